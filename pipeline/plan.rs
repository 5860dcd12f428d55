//! A run as it is checked before anything starts: what is read, what each stage does, what comes out, and the
//! most memory that it can hold. Nothing runs that was not a plan.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use forebay_datasets::catalog::{self, Catalog};
use forebay_datasets::manifest::{CARD_KEY, FORMAT, MANIFEST_KEY, Manifest, PLAN_KEY, PlanRecord};
use forebay_datasets::sample::{SampleId, Split};
use forebay_datasets::seed::Seed;
use forebay_datasets::shard::{self, ROWS_PER_GROUP};
use forebay_datasets::split::{self, Shares, TrainSamples};
use forebay_datasets::store::{Store, StoreError, StoreOptions};
use forebay_stages::augment::Augment;
use forebay_stages::balance::{self, Balance, BalanceOptions, BalanceSummary};
use forebay_stages::decode::{Decode, Limits};
use forebay_stages::encode::{Encode, Encoding};
use forebay_stages::normalize::Normalize;
use forebay_stages::resize::{Filter, Fit, Resize, Size};
use toml::Value;

use crate::config::Config;
use crate::flow::{Error, MaxRejects, Room, RunOptions};

/// From image bytes to pixels: the part of a chain that `prepare` and `train` share.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Image bytes to pixels.
    pub decode: Decode,
    /// Pixels to pixels of the wanted size.
    pub resize: Resize,
}

/// One row that is to be written: which entry of the catalog, and which copy of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedRow {
    /// Index into [`Catalog::entries`].
    pub entry: usize,
    /// 0 is the original.
    pub copy: u32,
}

/// What a source holds, split and balanced: the rows of every split in the order in which they are written.
#[derive(Clone, Debug)]
pub struct Rows {
    /// What was found.
    pub catalog: Catalog,
    /// The split of each entry.
    pub splits: Vec<Split>,
    /// The rows of each split, in the order of [`Split::ALL`].
    pub planned: [Vec<PlannedRow>; 3],
    /// The classes of the training split before and after balancing.
    pub balance: BalanceSummary,
    /// Assignments that an earlier dataset fixed and a fresh cut would not give.
    pub pinned: BTreeMap<String, Split>,
}

impl Rows {
    /// The rows of one split.
    pub fn of(&self, split: Split) -> &[PlannedRow] {
        &self.planned[split as usize]
    }

    /// Entries that the balance gave no copy.
    pub fn dropped(&self) -> u64 {
        let planned = self.planned.iter().flatten().filter(|row| row.copy == 0).count();
        (self.catalog.entries.len() - planned) as u64
    }
}

/// One shard before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedShard {
    /// The split it belongs to.
    pub split: Split,
    /// Its place among the shards of its split.
    pub index: usize,
    /// The number of shards of its split.
    pub count: usize,
    /// Its first row among those of its split.
    pub first: usize,
    /// The number of its planned rows.
    pub rows: usize,
}

impl PlannedShard {
    /// Its key in the destination.
    pub fn key(&self) -> String {
        shard::key(self.split, self.index, self.count)
    }
}

/// What the run may use, and how many items each node of it may hold.
#[derive(Clone, Copy, Debug)]
pub struct Rooms {
    /// Threads that compute.
    pub threads: usize,
    /// The byte budget of decoded images.
    pub memory_bytes: u64,
    /// How many samples may be refused.
    pub max_rejects: MaxRejects,
}

impl Rooms {
    /// What the run file gives.
    pub fn of(config: &Config) -> Rooms {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Rooms {
            threads: config.integer("threads").map_or(cores, |threads| threads as usize),
            memory_bytes: config.integer("memory").expect("memory has a default"),
            max_rejects: match config.get("max_rejects") {
                Some(Value::Integer(count)) => MaxRejects::Count(*count as u64),
                other => MaxRejects::Share(other.and_then(Value::as_float).expect("a share or a count")),
            },
        }
    }

    /// What a [`crate::flow::Run`] is started with.
    pub fn run_options(&self) -> RunOptions {
        RunOptions { threads: self.threads, memory_bytes: self.memory_bytes, max_rejects: self.max_rejects }
    }

    /// Reads wait, they do not compute: enough of them to keep the pool fed from a store that answers slowly.
    pub fn read(&self) -> Room {
        Room { slots: 2 * self.threads.max(4), queue: 2 }
    }

    /// A window of about twice the pool's threads hides that the head of the line may be slow.
    pub fn compute(&self) -> Room {
        Room { slots: 2 * self.threads, queue: 2 }
    }

    /// Groups of rows and batches are worth hundreds of images, so two in work and one that waits are enough.
    pub fn group(&self) -> Room {
        Room { slots: 2, queue: 1 }
    }

    /// Shards in the making are large, so there are few: one encoded, one written.
    pub fn shard(&self) -> Room {
        Room { slots: 1, queue: 1 }
    }
}

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

/// The store options that the run file gives.
pub fn store_options(config: &Config) -> StoreOptions {
    StoreOptions {
        endpoint: config.text("store.endpoint"),
        region: config.text("store.region"),
        anonymous: config.is_on("store.anonymous"),
        instance_metadata: config.is_on("store.instance_metadata"),
    }
}

/// Opens the place that `key` names.
///
/// # Errors
/// [`Error::Usage`] when it is not given or cannot be a place.
pub fn open(config: &Config, key: &'static str, what: &str) -> Result<Store, Error> {
    let location = config
        .text(key)
        .ok_or_else(|| Error::Usage(format!("{what} is missing: name it, or set `{key}` in the run file")))?;
    Store::open(&location, &store_options(config)).map_err(store_error)
}

/// A store's error as the error of a run.
pub fn store_error(error: StoreError) -> Error {
    match error {
        StoreError::Correct(line) => Error::Usage(line),
        StoreError::LeaveOut(line) | StoreError::Stop(line) => Error::Store(line),
    }
}

pub(crate) fn catalog_error(error: catalog::CatalogError) -> Error {
    match error {
        catalog::CatalogError::Correct(line) => Error::Usage(line),
        catalog::CatalogError::Store(error) => store_error(error),
    }
}

/// Whether a source is a dataset of shards: its manifest, if it has one.
///
/// # Errors
/// When the store refuses, or the manifest is damaged.
pub async fn manifest(store: &Store) -> Result<Option<Manifest>, Error> {
    if store.size(MANIFEST_KEY).await.map_err(store_error)?.is_none() {
        return Ok(None);
    }
    let json = store.get(MANIFEST_KEY).await.map_err(store_error)?;
    let manifest =
        Manifest::parse(&json).map_err(|error| Error::Integrity(format!("{}: {error}", store.location())))?;
    Ok(Some(manifest))
}

/// The chain that the run file gives, for images of `size`.
pub fn chain(config: &Config, size: Size, fit: Fit) -> Chain {
    let background = match config.word("decode.background") {
        "white" => Some([255; 3]),
        "black" => Some([0; 3]),
        _ => None,
    };
    let limits = Limits {
        side_px_max: config.integer("decode.max_side").expect("it has a default") as u32,
        memory_bytes_max: config.integer("decode.max_bytes").expect("it has a default"),
    };
    let filter = match config.word("resize.filter") {
        "bicubic" => Filter::Bicubic,
        "lanczos3" => Filter::Lanczos3,
        _ => Filter::Bilinear,
    };
    let shorter_side = match (size, config.number("resize.crop_pct")) {
        // As timm: the side that is left of a shorter side of which the crop is this share.
        (Size::Side(side), Some(share)) if fit == Fit::Crop => Some((f64::from(side) / share).floor() as u32),
        _ => None,
    };
    let enlarge = config.is_on("resize.enlarge");
    Chain {
        decode: Decode { background, limits },
        resize: Resize { size, fit, enlarge, filter, pad_color: [0; 3], shorter_side },
    }
}

/// The augmentation that the run file gives; `None` where it is off.
pub(crate) fn augment(config: &Config, problems: &mut Vec<String>) -> Option<Augment> {
    let augment: Augment = match config.get("augment") {
        Some(Value::Table(table)) => match table.clone().try_into() {
            Ok(augment) => augment,
            Err(error) => {
                problems.push(format!("augment: {}", error.to_string().replace('\n', " ").trim()));
                return None;
            }
        },
        other => {
            other.and_then(Value::as_str).unwrap_or("none").parse().expect("presets are checked by kind")
        }
    };
    problems.extend(augment.problems().into_iter().map(|problem| format!("augment.{problem}")));
    (!augment.is_off()).then_some(augment)
}

pub(crate) fn balance_options(config: &Config, problems: &mut Vec<String>) -> BalanceOptions {
    let options = BalanceOptions {
        mode: config.word("balance.mode").parse().expect("modes are checked by kind"),
        ratio: config.number("balance.ratio").expect("it has a default"),
        max_repeats: config.integer("balance.max_repeats").expect("it has a default") as u32,
    };
    problems.extend(options.problems());
    options
}

fn shares(config: &Config, problems: &mut Vec<String>) -> Option<Shares> {
    let shares = config.numbers("split.shares")?;
    Shares::new(shares[0], shares[1], shares[2])
        .map_err(|problem| problems.push(format!("split.shares: {problem}")))
        .ok()
}

/// Splits, balances and orders what a catalog holds.
pub fn rows(
    config: &Config,
    catalog: Catalog,
    previous: &BTreeMap<SampleId, Split>,
    balance: bool,
) -> Result<Rows, Error> {
    let mut problems = Vec::new();
    let shares = shares(config, &mut problems);
    let mut options = balance_options(config, &mut problems);
    if !problems.is_empty() {
        return Err(Error::Plan(problems));
    }
    if !balance {
        options.mode = Balance::None;
    }
    let split_seed = Seed(config.integer("split.seed").expect("it has a default"));
    let seed = Seed(config.integer("seed").expect("it has a default"));
    let fresh = split::assign(&catalog, shares, split_seed, &BTreeMap::new());
    let splits = split::assign(&catalog, shares, split_seed, previous);
    let pinned = catalog.entries.iter().zip(fresh.iter().zip(&splits));
    let pinned = pinned
        .filter(|(_, (fresh, split))| fresh != split)
        .map(|(entry, (_, split))| (entry.id.to_string(), *split))
        .collect();

    let train = TrainSamples::of(&catalog, &splits);
    let copies = balance::copies(&train, &options, seed);
    let summary = BalanceSummary::of(&train, &copies, &options);
    let mut copies = copies.into_iter();
    let mut planned = [const { Vec::new() }; 3];
    for (index, split) in splits.iter().enumerate() {
        let n = if *split == Split::Train { copies.next().expect("one per train sample") } else { 1 };
        planned[*split as usize].extend((0..n).map(|copy| PlannedRow { entry: index, copy }));
    }
    if config.word("shards.order") == "shuffled" {
        for rows in &mut planned {
            rows.sort_by_cached_key(|row| {
                split_seed.rank("shards/order", &catalog.entries[row.entry].id, row.copy, 0)
            });
        }
    }
    Ok(Rows { catalog, splits, planned, balance: summary, pinned })
}

impl PreparePlan {
    /// Checks a run of `prepare`: opens both places, reads the catalog, and looks at what the destination holds.
    ///
    /// # Errors
    /// [`Error::Plan`] with every problem of the options, [`Error::Usage`] for a source or a destination that
    /// cannot be used, other variants when a store fails.
    pub async fn resolve(config: &Config) -> Result<PreparePlan, Error> {
        let mut problems = Vec::new();
        let augment = augment(config, &mut problems);
        balance_options(config, &mut problems);
        shares(config, &mut problems);
        let rooms = Rooms::of(config);
        let size = match config.get("resize.size") {
            Some(Value::Integer(side)) => Size::Side(*side as u32),
            Some(_) => Size::Original,
            None => Size::Side(256),
        };
        let fit = match config.word("resize.fit") {
            "crop" => Fit::Crop,
            "pad" => Fit::Pad,
            "squash" => Fit::Squash,
            _ => Fit::Shortest,
        };
        let chain = chain(config, size, fit);
        if config.is_given("resize.crop_pct") && chain.resize.shorter_side.is_none() {
            problems.push("resize.crop_pct: only --fit crop with a --size cuts a margin off".to_string());
        }
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
        let catalog = catalog::read(&source).await.map_err(catalog_error)?;
        let (record, previous) = earlier(&dest, config.is_on("overwrite")).await?;
        let rows = rows(config, catalog, &previous, true)?;

        let encoding = match config.word("encode.format") {
            "png" => Encoding::Png,
            "raw" => Encoding::Raw,
            _ => {
                Encoding::Jpeg { quality: config.integer("encode.quality").expect("it has a default") as u8 }
            }
        };
        let sample_bytes = stored_bytes(&rows.catalog, &chain.resize, encoding);
        let samples_per_shard = match config.integer("shards.samples_per_shard") {
            Some(samples) => samples as usize,
            None => ((64 << 20) / sample_bytes.max(1) / 100 * 100).clamp(100, 10_000) as usize,
        };
        let mut settings =
            config.settings(&["decode", "resize", "encode", "split", "balance", "augment", "shards", "seed"]);
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
            seed: Seed(config.integer("seed").expect("it has a default")),
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

/// Cuts the rows of a split into shards.
fn cut(split: Split, rows: usize, samples_per_shard: usize) -> impl Iterator<Item = PlannedShard> {
    let count = rows.div_ceil(samples_per_shard);
    (0..count).map(move |index| {
        let first = index * samples_per_shard;
        PlannedShard { split, index, count, first, rows: samples_per_shard.min(rows - first) }
    })
}

/// Samples per chunk where files have this size on average: about 64 KiB, and no more than a row group.
pub fn chunk_of(mean_bytes: u64) -> usize {
    ((64 << 10) / mean_bytes.max(1)).clamp(1, ROWS_PER_GROUP as u64) as usize
}

/// Samples per chunk for the files of a catalog.
pub fn chunk(catalog: &Catalog) -> usize {
    let bytes: u64 = catalog.entries.iter().map(|entry| entry.bytes).sum();
    chunk_of(bytes / (catalog.entries.len() as u64).max(1))
}

/// The estimated bytes of one stored image. Bits per pixel of JPEG and PNG are those of photographs at 256
/// pixels and quality 90: 20.7 MB and about 100 MB per 1000.
fn stored_bytes(catalog: &Catalog, resize: &Resize, encoding: Encoding) -> u64 {
    let files: u64 = catalog.entries.iter().map(|entry| entry.bytes).sum();
    let mean = files / (catalog.entries.len() as u64).max(1);
    let pixels = match (resize.size, resize.fit) {
        (Size::Side(side), Fit::Shortest) => u64::from(side) * u64::from(side) * 4 / 3,
        (Size::Side(side), _) => u64::from(side) * u64::from(side),
        // Photographs take about 2 to 4 bits a pixel.
        (Size::Original, _) => mean * 8 / 3,
    };
    200 + match encoding {
        Encoding::Jpeg { .. } => pixels * 8 / 25,
        Encoding::Png => pixels * 8 / 5,
        Encoding::Raw => pixels * 3 + 15,
    }
}

/// The identity of a plan: format version, (id, size, label) of every sample, split, the settings of every
/// stage and the seeds; never threads, places or times.
pub(crate) fn fingerprint(rows: &Rows, settings: &BTreeMap<String, serde_json::Value>) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut field = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    field(&format!("forebay plan {FORMAT}"));
    for (key, value) in settings {
        field(key);
        field(&value.to_string());
    }
    for class in &rows.catalog.classes {
        field(class);
    }
    for (entry, split) in rows.catalog.entries.iter().zip(&rows.splits) {
        field(&entry.id);
        field(&format!("{} {} {split}", entry.bytes, entry.label));
    }
    hasher.finalize().to_hex().to_string()
}

/// The identity of the images of a folder: (id, size) of each.
pub(crate) fn images_fingerprint(rows: &Rows) -> String {
    let mut hasher = blake3::Hasher::new();
    for entry in &rows.catalog.entries {
        hasher.update(&(entry.id.len() as u64).to_le_bytes()).update(entry.id.as_bytes());
        hasher.update(&entry.bytes.to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// The plan that a destination holds, and the assignments to splits that it fixes.
async fn earlier(
    dest: &Store,
    overwrite: bool,
) -> Result<(Option<PlanRecord>, BTreeMap<SampleId, Split>), Error> {
    if dest.size(PLAN_KEY).await.map_err(store_error)?.is_none() {
        return Ok((None, BTreeMap::new()));
    }
    let json = dest.get(PLAN_KEY).await.map_err(store_error)?;
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
            for (id, _, _) in crate::feed::identities(dest, &shard.key).await? {
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
                if dest.size(key).await.map_err(store_error)?.is_some() {
                    return Err(Error::Usage(format!(
                        "{} holds a {key} that is not of this program; choose an empty DEST, or --overwrite to \
                         replace it",
                        dest.location()
                    )));
                }
            }
            let foreign = dest.list("data/").await.map_err(store_error)?;
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

/// The most memory in flight and its parts, as lines of a plan.
pub fn memory_in_words(parts: &[(&'static str, u64)]) -> String {
    let total: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    let mut text = format!("  memory       at most {} in flight:\n", bytes_in_words(total));
    for (name, bytes) in parts {
        let _ = writeln!(text, "    {:>10}  {name}", bytes_in_words(*bytes));
    }
    text
}

/// `1.5 GiB`, for people.
pub fn bytes_in_words(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} bytes") } else { format!("{value:.1} {}", units[unit]) }
}

impl std::fmt::Display for PreparePlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        let catalog = &self.rows.catalog;
        let _ = writeln!(text, "prepare {} -> {}", self.source.location(), self.dest.location());
        let _ = writeln!(text, "  fingerprint  {}", &self.fingerprint[..16]);
        let _ = writeln!(
            text,
            "  source       {}: {} samples in {} classes",
            catalog.layout,
            catalog.entries.len(),
            catalog.classes.len()
        );
        for split in Split::ALL {
            let rows = self.rows.of(split).len();
            let shards = self.shards.iter().filter(|shard| shard.split == split).count();
            let _ = writeln!(
                text,
                "  {split:<12} {rows} rows in {shards} shards of up to {}",
                self.samples_per_shard
            );
        }
        let (read, compute, shard) = (self.rooms.read(), self.rooms.compute(), self.rooms.shard());
        let _ = writeln!(text, "  stages       (slots + queue, of chunks of {} samples)", self.chunk);
        let augment = match &self.augment {
            Some(augment) => format!("train only: {}", serde_json::to_string(augment).unwrap_or_default()),
            None => "off".to_string(),
        };
        let size = match self.chain.resize.size {
            Size::Original => "original size".to_string(),
            Size::Side(side) => {
                format!("{side} px, {}", self.settings["resize.fit"].as_str().unwrap_or_default())
            }
        };
        for (name, room, what) in [
            ("read", read, self.source.location().to_string()),
            ("decode", compute, format!("to RGB, up to {} px a side", self.chain.decode.limits.side_px_max)),
            ("resize", compute, size),
            ("augment", compute, augment),
            (
                "encode",
                compute,
                format!(
                    "{}, about {} a sample",
                    self.settings["encode.format"].as_str().unwrap_or_default(),
                    bytes_in_words(self.sample_bytes())
                ),
            ),
            ("group", Room { slots: 1, queue: 1 }, "by planned shard".to_string()),
            ("pack", shard, "Parquet".to_string()),
            ("write", shard, self.dest.location().to_string()),
        ] {
            let _ = writeln!(text, "    {name:<10} {:>3} + {:<3} {what}", room.slots, room.queue);
        }
        let _ = writeln!(text, "  threads      {}", self.rooms.threads);
        text += &memory_in_words(&self.memory());
        f.write_str(&text)
    }
}

/// The normalisation that the run file gives.
pub fn normalize(config: &Config) -> Normalize {
    let triple = |key, default: [f32; 3]| match config.numbers(key) {
        Some(values) => [values[0] as f32, values[1] as f32, values[2] as f32],
        None => default,
    };
    Normalize {
        mean: triple("train.mean", Normalize::IMAGENET.mean),
        std: triple("train.std", Normalize::IMAGENET.std),
    }
}
