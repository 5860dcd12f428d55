//! One measurement of the feed: batches are taken and counted, for some time or for whole epochs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use forebay_datasets::sample::Split;
use forebay_stages::collate::{Batch, Value};
use serde::Serialize;

use super::made::{BatchMaker, Taker};
use crate::feed::{Feed, Pass, PassBatch, Source};
use crate::flow::{Error, Items, NodeReport, Run};
use crate::report::Usage;

/// How long a repetition is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// From the first batch on for so many seconds, over as many epochs as that takes: a flow that runs.
    Seconds(f64),
    /// So many whole epochs, the start of each among them.
    Epochs(u32),
}

/// What one repetition measured.
#[derive(Clone, Debug, Serialize)]
pub struct Repetition {
    /// Images that came in the time that counts.
    pub images: u64,
    /// Batches of them.
    pub batches: u64,
    /// The time that counts.
    pub seconds: f64,
    /// From the start to the first batch.
    pub first_batch_seconds: f64,
    /// Images per second of that time.
    pub images_per_second: f64,
    /// Processor time in it, user and system.
    pub cpu_seconds: f64,
    /// Processor time per 1000 images.
    pub cpu_seconds_per_1000: f64,
    /// Bytes that were read from the source in it.
    pub bytes_read: u64,
    /// Every node, from the start.
    #[serde(skip)]
    pub stages: Vec<NodeReport>,
    /// From the start to the last batch.
    #[serde(skip)]
    pub seconds_in_all: f64,
    /// Images from the start on.
    #[serde(skip)]
    pub images_in_all: u64,
}

/// What had been used at a moment.
#[derive(Clone, Copy)]
struct Moment {
    at: Instant,
    cpu_seconds: f64,
    bytes_read: u64,
}

impl Moment {
    fn now(source: &dyn Source) -> Moment {
        Moment { at: Instant::now(), cpu_seconds: Usage::now().cpu_seconds, bytes_read: source.bytes_read() }
    }
}

/// What has come so far.
struct Taken {
    length: Length,
    source: Arc<dyn Source>,
    seen: Arc<AtomicU64>,
    start: Moment,
    first: Option<Moment>,
    end: Option<Moment>,
    images: u64,
    batches: u64,
    images_first: u64,
}

impl Taker for Taken {
    fn take<T: Value>(mut self, items: Items<PassBatch<Batch<T>>>) -> Taken {
        for PassBatch { batch, .. } in items {
            let images = batch.len() as u64;
            self.seen.fetch_add(images, Ordering::Relaxed);
            self.images += images;
            self.batches += 1;
            let first = *self.first.get_or_insert_with(|| {
                self.images_first = images;
                Moment::now(&*self.source)
            });
            if matches!(self.length, Length::Seconds(most) if first.at.elapsed().as_secs_f64() >= most) {
                self.end = Some(Moment::now(&*self.source));
                break;
            }
        }
        self
    }
}

/// Takes batches of the training split from its first epoch on. `run` measures nothing else.
///
/// # Errors
/// The first error of the run, or [`Error::NothingLeft`] when an epoch has no image.
pub async fn repetition(
    run: &Run,
    feed: &Feed,
    made: &BatchMaker,
    length: Length,
    seen: Arc<AtomicU64>,
) -> Result<Repetition, Error> {
    let source = feed.source.clone();
    let mut tally = Taken {
        length,
        start: Moment::now(&*source),
        source,
        seen,
        first: None,
        end: None,
        images: 0,
        batches: 0,
        images_first: 0,
    };
    let epochs = match length {
        Length::Seconds(_) => u32::MAX,
        Length::Epochs(epochs) => epochs,
    };
    for epoch in 0..epochs {
        let before = tally.images;
        tally = made.drain(run, feed, Pass::train(epoch), tally).await?;
        if tally.images == before {
            let line = format!("{} gave no image of the {} split", feed.store.location(), Split::Train);
            return Err(Error::NothingLeft(line));
        }
        if tally.end.is_some() {
            break;
        }
    }
    let end = tally.end.unwrap_or_else(|| Moment::now(&*feed.source));
    let first = tally.first.expect("images came in a batch");
    let since = |mark: Moment| end.at.duration_since(mark.at).as_secs_f64();
    // Where a flow runs, the batch that started the clock was made before.
    let (from, images, batches) = match length {
        Length::Seconds(_) => (first, tally.images - tally.images_first, tally.batches - 1),
        Length::Epochs(_) => (tally.start, tally.images, tally.batches),
    };
    let (seconds, cpu_seconds) = (since(from), end.cpu_seconds - from.cpu_seconds);
    Ok(Repetition {
        images,
        batches,
        seconds,
        first_batch_seconds: first.at.duration_since(tally.start.at).as_secs_f64(),
        images_per_second: images as f64 / seconds,
        cpu_seconds,
        cpu_seconds_per_1000: cpu_seconds / images as f64 * 1000.0,
        bytes_read: end.bytes_read - from.bytes_read,
        stages: run.meter().report(),
        seconds_in_all: since(tally.start),
        images_in_all: tally.images,
    })
}
