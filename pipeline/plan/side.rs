//! The side of the images of a run: who decides it, the rule where nobody does, and what enlarging costs.
//!
//! The user decides, else the weights, else the shards of squares that the user had prepared, else the network, else
//! the images: their median shorter side, rounded to a multiple of 32, at least 32 and at most [`OF_A_BATCH_PX`] for a
//! batch and [`OF_A_SHARD_PX`] for shards.

use std::fmt;

use forebay_datasets::catalog::{Entry, Locator};
use forebay_datasets::store::{Store, StoreError};
use forebay_stages::decode::{Header, probe};
use forebay_train::models;
use futures::{StreamExt, TryStreamExt};

use crate::flow::Error;

/// The largest side that the images of a batch get by their own size.
pub const OF_A_BATCH_PX: u32 = 224;

/// The largest side that stored images get by their own size: some room for the crops of a training.
pub const OF_A_SHARD_PX: u32 = 256;

/// Sides are multiples of this, as most networks halve their planes five times.
const STEP_PX: u32 = 32;

/// Images that are looked at, spread evenly over a source.
const LOOKED_AT: usize = 64;

/// Where the header of an image ends, as a rule.
const HEADER_BYTES: u64 = 64 << 10;

/// The largest file that is read whole for its header.
const WHOLE_BYTES: u64 = 16 << 20;

/// Images that are looked at together.
const AT_ONCE: usize = 16;

/// Who decided the side of the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecidedBy {
    /// An option.
    User,
    /// What is known of the initial weights.
    Weights,
    /// Squares that were prepared.
    Shards,
    /// The size that the network is made for.
    Network,
    /// The images, whose shorter sides have this median.
    Images(u32),
    /// Nothing: no image could be looked at.
    Default,
}

impl fmt::Display for DecidedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecidedBy::User => f.write_str("given"),
            DecidedBy::Weights => f.write_str("weights"),
            DecidedBy::Shards => f.write_str("shards"),
            DecidedBy::Network => f.write_str("network"),
            DecidedBy::Images(median) => write!(f, "images: median {median}"),
            DecidedBy::Default => f.write_str("default"),
        }
    }
}

/// The shorter sides of some images of a source, by their headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShorterSides(Vec<u32>);

impl ShorterSides {
    /// Those of images with these headers.
    pub fn of(headers: impl IntoIterator<Item = Header>) -> ShorterSides {
        ShorterSides::of_pixels(headers.into_iter().map(|header| header.width.min(header.height)).collect())
    }

    /// Those of images with these shorter sides, pixels.
    pub fn of_pixels(mut sides: Vec<u32>) -> ShorterSides {
        sides.sort_unstable();
        ShorterSides(sides)
    }

    /// Looks at the headers of some of `entries`, spread evenly. What has none counts for nothing here: it becomes a
    /// reject when it is read.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn look(store: &Store, entries: &[Entry]) -> Result<ShorterSides, Error> {
        let n = entries.len().min(LOOKED_AT);
        let chosen = (0..n).map(|index| entries[index * entries.len() / n].locator.clone());
        let looks = chosen.map(|locator| async move {
            match header(store, &locator).await {
                Ok(header) => Ok(header),
                Err(error) if error.loses_only_this_object() => Ok(None),
                Err(error) => Err(Error::from(error)),
            }
        });
        let headers: Vec<_> = futures::stream::iter(looks).buffered(AT_ONCE).try_collect().await?;
        Ok(ShorterSides::of(headers.into_iter().flatten()))
    }

    /// The median; `None` where there was nothing to look at.
    pub fn median(&self) -> Option<u32> {
        self.0.get(self.0.len() / 2).copied()
    }

    /// The side by the size of the images, up to `largest`, and who decided it.
    pub fn side(&self, largest: u32) -> (u32, DecidedBy) {
        match self.median() {
            Some(median) => (rounded(median, largest), DecidedBy::Images(median)),
            None => (largest, DecidedBy::Default),
        }
    }

    /// A warning where images that become `side` wide and high are enlarged more than twice: most of them, and so the median too.
    /// `advice` says what to do, given the side that is nearest to them.
    pub fn enlarged(&self, side: u32, by: DecidedBy, advice: impl FnOnce(u32) -> String) -> Option<String> {
        let median = self.median()?;
        let n = self.0.iter().filter(|shorter| u64::from(side) > 2 * u64::from(**shorter)).count();
        (2 * n > self.0.len()).then(|| {
            format!(
                "images are enlarged more than twice, {n} of {} that were looked at: their median shorter side is \
                 {median} px, and the size is {side} ({by}); {}",
                self.0.len(),
                // The least side of the rule is large for an icon.
                advice(match rounded(median, side) {
                    nearest if nearest < side => nearest,
                    _ => median,
                })
            )
        })
    }
}

/// The side of the images that a network is made for, where there are no images: 224 for one that takes any.
pub fn side_of(network: &str) -> u32 {
    models::named(network).and_then(|(_, variant)| variant.side_px).unwrap_or(OF_A_BATCH_PX)
}

/// The multiple of 32 that is nearest to the sides of images, up to `largest`.
fn rounded(median: u32, largest: u32) -> u32 {
    let nearest = median.saturating_add(STEP_PX / 2) / STEP_PX * STEP_PX;
    nearest.max(STEP_PX).min(largest)
}

/// The header of an image: a file whose header is long, or stands at its end, is read whole where it is not large.
async fn header(store: &Store, locator: &Locator) -> Result<Option<Header>, StoreError> {
    if locator.bytes() > HEADER_BYTES {
        let start = locator.read_start(store, HEADER_BYTES).await?;
        let found = probe(&start).ok();
        if found.is_some() || locator.bytes() > WHOLE_BYTES {
            return Ok(found);
        }
    }
    Ok(probe(&locator.read(store).await?).ok())
}
