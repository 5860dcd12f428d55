//! `forebay prepare` as it is checked before anything starts: what is read, what each stage does, what comes out, and
//! the most memory that it can hold.

use std::collections::BTreeMap;

use forebay_datasets::catalog;
use forebay_datasets::manifest::{CARD_KEY, FORMAT, MANIFEST_KEY, PLAN_KEY, PlanRecord};
use forebay_datasets::sample::{SampleId, Split};
use forebay_datasets::seed::Seed;
use forebay_datasets::shard::{read_identities, read_index};
use forebay_datasets::store::Store;
use forebay_stages::augment::Augment;
use forebay_stages::encode::{Encode, Encoding};
use forebay_stages::resize::{Fit, Size};
use toml::Value;

use super::identity::fingerprint;
use super::places::{manifest, open};
use super::rooms::Rooms;
use super::rows::{Rows, rows};
use super::shards::{PlannedShard, chunk, cut, stored_bytes};
use crate::flow::Error;
use crate::options::{
    Chain, Command, Config, Facts, Identity, augment, balance_options, bytes_in_words, chain, shares,
};

/// `forebay prepare`, checked.
#[derive(Clone, Debug)]
pub struct PreparePlan {
    /// Where the images are.
    pub source: Store,
    /// Where the shards go.
    pub dest: Store,
    /// What is written.
    pub rows: Rows,
    /// Image bytes to pixels.
    pub chain: Chain,
    /// What happens to training images; `None` leaves them alone.
    pub augment: Option<Augment>,
    /// Pixels to stored bytes.
    pub encode: Encode,
    /// Seed of every draw.
    pub seed: Seed,
    /// Rows per shard.
    pub samples_per_shard: usize,
    /// Every shard, by split and index.
    pub shards: Vec<PlannedShard>,
    /// What makes this dataset this dataset.
    pub fingerprint: String,
    /// The settings behind the fingerprint.
    pub settings: BTreeMap<String, serde_json::Value>,
    /// Threads, memory and reject budget.
    pub rooms: Rooms,
    /// Samples that pass together, so that small images share the cost of a hop.
    pub chunk: usize,
    /// What the destination holds already, and what to do about it.
    pub dest_state: DestState,
}

/// What was found at a destination.
#[derive(Clone, Debug, PartialEq)]
pub enum DestState {
    /// Nothing that would be in the way.
    Empty,
    /// The same plan, begun or finished.
    Same {
        /// Whether its manifest is there.
        is_finished: bool,
    },
    /// Another dataset, which `--overwrite` allows to delete: the keys that it lists.
    Replace(Vec<String>),
}

impl PreparePlan {
    /// Checks a run of `prepare`: opens both places, reads the catalog, and looks at what the destination holds.
    ///
    /// # Errors
    /// [`Error::Plan`] with every problem of the options, [`Error::Usage`] for a source or a destination that
    /// cannot be used, other variants when a store fails.
    pub async fn resolve(config: &Config) -> Result<PreparePlan, Error> {
        let mut problems = config.without_effect(Command::Prepare, &Facts::default());
        let augment = augment(config, &mut problems);
        balance_options(config, &mut problems);
        shares(config, &mut problems);
        let rooms = Rooms::of(config);
        let size = match config.get("resize.size") {
            Some(Value::Integer(side)) => Size::Side(*side as u32),
            Some(_) => Size::Original,
            None => Size::Side(256),
        };
        let chain = chain(config, size, config.choice("resize.fit"));
        if chain.decode.limits.memory_bytes_max > rooms.memory_bytes {
            problems.push(format!(
                "memory: {} is less than decode.max_bytes {}; one image must fit",
                bytes_in_words(rooms.memory_bytes),
                bytes_in_words(chain.decode.limits.memory_bytes_max)
            ));
        }
        let mut place =
            |key, what| open(config, key, what).map_err(|error| problems.push(error.to_string())).ok();
        let (source, dest) = (place("source", "SOURCE"), place("dest", "DEST"));
        let (Some(source), Some(dest), []) = (source, dest, &problems[..]) else {
            return Err(Error::Plan(problems));
        };
        if source.location() == dest.location() {
            return Err(Error::Usage(format!("SOURCE and DEST are both {}", source.location())));
        }
        let catalog = catalog::read(&source).await?;
        let declares_splits = catalog.declared.iter().any(|split| *split != Split::Train);
        let facts = Facts { declares_splits, ..Facts::default() };
        let problems = config.without_effect(Command::Prepare, &facts);
        if !problems.is_empty() {
            return Err(Error::Plan(problems));
        }
        let (record, previous) = earlier(&dest, config.is_on("overwrite")).await?;
        let rows = rows(config, catalog, &previous, true)?;

        let encoding = match config.choice("encode.format") {
            Encoding::Jpeg { .. } => Encoding::Jpeg { quality: config.whole("encode.quality") as u8 },
            lossless @ (Encoding::Png | Encoding::Raw) => lossless,
        };
        let sample_bytes = stored_bytes(&rows.catalog, &chain.resize, encoding);
        let samples_per_shard = match config.integer("shards.samples_per_shard") {
            Some(samples) => samples as usize,
            None => ((64 << 20) / sample_bytes.max(1) / 100 * 100).clamp(100, 10_000) as usize,
        };
        let mut settings = config.settings(Command::Prepare, &facts, &[Identity::Pixels, Identity::Rows]);
        settings.insert(
            "resize.size".to_string(),
            match size {
                Size::Original => "original".into(),
                Size::Side(side) => side.into(),
            },
        );
        settings.insert("shards.samples_per_shard".to_string(), samples_per_shard.into());
        let fingerprint = fingerprint(&rows, &settings);
        let shards: Vec<PlannedShard> = Split::ALL
            .into_iter()
            .flat_map(|split| cut(split, rows.of(split).len(), samples_per_shard))
            .collect();
        let dest_state =
            dest_state(&dest, record, &fingerprint, &rows.pinned, config.is_on("overwrite")).await?;
        Ok(PreparePlan {
            chunk: chunk(&rows.catalog),
            seed: Seed(config.whole("seed")),
            encode: Encode { encoding },
            source,
            dest,
            rows,
            chain,
            augment,
            samples_per_shard,
            shards,
            fingerprint,
            settings,
            rooms,
            dest_state,
        })
    }

    /// `jpg`, `png` or `ppm`.
    pub fn extension(&self) -> &'static str {
        match self.encode.encoding {
            Encoding::Jpeg { .. } => "jpg",
            Encoding::Png => "png",
            Encoding::Raw => "ppm",
        }
    }

    /// The width and height of all stored images, where the plan makes them square.
    pub fn side_px(&self) -> Option<u32> {
        let is_square = self.chain.resize.fit != Fit::Shortest && self.chain.resize.enlarge;
        match self.chain.resize.size {
            Size::Side(side) if is_square => Some(side),
            _ => None,
        }
    }

    /// What `plan.json` holds.
    pub fn record(&self) -> PlanRecord {
        PlanRecord {
            format: FORMAT,
            fingerprint: self.fingerprint.clone(),
            settings: serde_json::to_value(&self.settings).expect("settings are plain data"),
            shards: self.shards.iter().map(PlannedShard::key).collect(),
            pinned: self.rows.pinned.clone(),
        }
    }

    /// The estimated bytes of one stored image.
    pub fn sample_bytes(&self) -> u64 {
        stored_bytes(&self.rows.catalog, &self.chain.resize, self.encode.encoding)
    }

    /// The most memory that images and shards in flight can take, part by part: name and bytes. The shards are
    /// estimated from [`PreparePlan::sample_bytes`]; everything else is a bound.
    pub fn memory(&self) -> Vec<(&'static str, u64)> {
        let largest = self.rows.catalog.entries.iter().map(|entry| entry.bytes).max().unwrap_or(0);
        let read = self.rooms.read();
        let rows = self.shards.iter().map(|shard| shard.rows).max().unwrap_or(0) as u64;
        let shard = self.sample_bytes() * rows;
        let (pack, write) = (self.rooms.shard(), self.rooms.shard());
        vec![
            (
                "files read and not yet decoded",
                (read.slots + read.queue + 1) as u64 * self.chunk as u64 * largest,
            ),
            ("decoded images (memory)", self.rooms.memory_bytes),
            ("shard being grouped", shard),
            ("shards being encoded", 2 * (pack.slots + pack.queue) as u64 * shard),
            ("shards being written", (write.slots + write.queue) as u64 * shard),
        ]
    }
}

/// The plan that a destination holds, and the assignments to splits that it fixes.
async fn earlier(
    dest: &Store,
    overwrite: bool,
) -> Result<(Option<PlanRecord>, BTreeMap<SampleId, Split>), Error> {
    if dest.size(PLAN_KEY).await?.is_none() {
        return Ok((None, BTreeMap::new()));
    }
    let json = dest.get(PLAN_KEY).await?;
    let record = match PlanRecord::parse(&json) {
        Ok(record) => record,
        Err(_) if overwrite => return Ok((None, BTreeMap::new())),
        Err(error) => {
            return Err(Error::Usage(format!("{}: {error}; --overwrite replaces it", dest.location())));
        }
    };
    let mut previous: BTreeMap<SampleId, Split> =
        record.pinned.iter().map(|(id, split)| (id.as_str().into(), *split)).collect();
    if overwrite && let Some(manifest) = manifest(dest).await? {
        for shard in &manifest.shards {
            let Some(bytes) = dest.size(&shard.key).await? else { continue };
            let index = read_index(dest, &shard.key, bytes).await?;
            for (id, ..) in read_identities(dest, &shard.key, &index).await? {
                previous.insert(id, shard.split);
            }
        }
    }
    Ok((Some(record), previous))
}

async fn dest_state(
    dest: &Store,
    record: Option<PlanRecord>,
    fingerprint: &str,
    pinned: &BTreeMap<String, Split>,
    overwrite: bool,
) -> Result<DestState, Error> {
    match record {
        Some(record) if record.fingerprint == fingerprint && record.pinned == *pinned => {
            Ok(DestState::Same { is_finished: manifest(dest).await?.is_some() })
        }
        Some(record) if overwrite => Ok(DestState::Replace(record.shards)),
        Some(_) => Err(Error::Usage(format!(
            "{} holds another dataset: its plan differs from this one; choose another DEST, or --overwrite to \
             replace it",
            dest.location()
        ))),
        None if overwrite => Ok(DestState::Replace(Vec::new())),
        None => {
            for key in [MANIFEST_KEY, CARD_KEY] {
                if dest.size(key).await?.is_some() {
                    return Err(Error::Usage(format!(
                        "{} holds a {key} that is not of this program; choose an empty DEST, or --overwrite to \
                         replace it",
                        dest.location()
                    )));
                }
            }
            let foreign = dest.list("data/").await?;
            match foreign.iter().find(|(key, _)| !key.contains('#')) {
                Some((key, _)) => Err(Error::Usage(format!(
                    "{} holds {key}, which is not of this program; choose an empty DEST",
                    dest.location()
                ))),
                None => Ok(DestState::Empty),
            }
        }
    }
}
