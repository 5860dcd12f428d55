//! `forebay prepare` as it is checked before anything starts: what is read, what each stage does, what comes out, and
//! the most memory that it can hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_datasets::catalog::{self, Catalog, KeptColumn};
use forebay_datasets::formats::{self, DatasetFormat, FileWriter, MDS_BYTES_MAX};
use forebay_datasets::manifest::{FORMAT, FixedLabels, PlanRecord, ShardPlan};
use forebay_datasets::sample::Split;
use forebay_datasets::seed::Seed;
use forebay_datasets::shard::{Provenance, ROW_GROUP_BYTES_MAX, ROWS_PER_GROUP, ShardError, has_column};
use forebay_datasets::split::TrainSamples;
use forebay_datasets::store::Store;
use forebay_stages::augment::Augment;
use forebay_stages::chain::{Chain, ResizeStep, Wanted};
use forebay_stages::decode::Decode;
use forebay_stages::encode::{Encode, Encoding, Keep};
use forebay_stages::resize::{Filter, Fit, Resize};
use forebay_stages::stage::Stage;
use forebay_stages::weight::{Scales, Step};

use super::destination::{DestState, Destination};
use super::digests::shard_plans;
use super::fixes;
use super::grouping::{GroupedSource, grouped};
use super::identity::{fingerprint, versions_digest};
use super::memory::{check_memory, sum_of_largest};
use super::nodes::PlannedNode;
use super::outputs::{refuse_destination, refuse_quarantine};
use super::places::{made, open, open_source, shards_of};
use super::replay::{listed_file, replayed};
use super::rooms::Rooms;
use super::rows::{Rows, rows};
use super::shards::{PlannedShard, chunk, cut, stored_bytes};
use super::side::{DecidedBy, OF_A_SHARD_PX, ShorterSides};
use crate::flow::{Error, Run};
use crate::options::{
    self, Command, Config, Facts, Identity, StoreAs, augment, balance_options, bytes_in_words, shares,
};

/// `forebay prepare`, checked.
#[derive(Clone, Debug)]
pub struct PreparePlan {
    /// Where the images are.
    pub source: Store,
    /// Where the shards go.
    pub dest: Store,
    /// What a person has mended in the labels; `None` where nothing was asked for.
    pub fixes: Option<FixedLabels>,
    /// What is written.
    pub rows: Rows,
    /// How the images are prepared, as the manifest says it.
    pub chain: Chain,
    /// Image bytes to pixels.
    pub decode: Decode,
    /// Whether the images are those of a dataset that was balanced when it was made.
    pub was_balanced: bool,
    /// Who decided how large they become; nobody where they keep their size.
    pub side_by: Option<DecidedBy>,
    /// Pixels to pixels of the wanted size.
    pub resize: Resize,
    /// What happens to training images; `None` leaves them alone.
    pub augment: Option<Augment>,
    /// Whether each class is rare, where rare ones are changed in another way.
    pub is_rare: Option<Arc<[bool]>>,
    /// Pixels to stored bytes; `None` stores image files as they are.
    pub encode: Option<Encode>,
    /// The form of the shards.
    pub format: DatasetFormat,
    /// Seed of every draw.
    pub seed: Seed,
    /// Rows per shard.
    pub samples_per_shard: usize,
    /// Every shard, by split and index.
    pub shards: Vec<PlannedShard>,
    /// What each of them is made from, in the same order.
    pub shard_plans: Vec<ShardPlan>,
    /// Columns of the source that go into the shards, each with its place among those of the catalog.
    pub kept: Vec<(usize, KeptColumn)>,
    /// Of which versions of the files groups were looked for.
    pub versions: String,
    /// What makes this dataset this dataset.
    pub fingerprint: String,
    /// The settings behind the fingerprint.
    pub settings: BTreeMap<String, serde_json::Value>,
    /// Threads, memory and reject budget.
    pub rooms: Rooms,
    /// Samples that pass together, so that small images share the cost of a hop.
    pub chunk: usize,
    /// What the destination held when this was planned, and what to do about it.
    pub dest_state: DestState,
    /// Where rejected files are copied.
    pub quarantine: Option<Store>,
    /// Whether another dataset may be replaced.
    pub overwrite: bool,
}

impl PreparePlan {
    /// Checks a run of `prepare`: opens both places, reads the catalog, and looks at what the destination holds.
    ///
    /// # Errors
    /// [`Error::Plan`] with every problem of the options, [`Error::Usage`] for a source or a destination that
    /// cannot be used, other variants when a store fails.
    pub async fn resolve(run: &Run, config: &Config) -> Result<PreparePlan, Error> {
        let mut problems = config.without_effect(Command::Prepare, &Facts::default());
        let augment = augment(config, &mut problems);
        balance_options(config, &mut problems);
        shares(config, &mut problems);
        let rooms = Rooms::of(config);
        // What is wrong with a chain is so at every size.
        prepared(config, OF_A_SHARD_PX, &mut problems);
        let decode = options::decode(config, None);
        problems.extend(rooms.too_small_for(&decode));
        let mut place =
            |found: Result<Store, Error>| found.map_err(|error| problems.push(error.to_string())).ok();
        let (source, dest) = (place(open_source(config)), place(open(config, "dest", "DEST")));
        let (Some(source), Some(dest), []) = (source, dest, &problems[..]) else {
            return Err(Error::Plan(problems));
        };
        if source.is_same_place(&dest) {
            return Err(Error::Usage(format!(
                "SOURCE {} and DEST {} are both the same place; shards go to one of their own",
                source.location(),
                dest.location()
            )));
        }
        refuse_destination(&dest, &source).await?;
        let quarantine = match config.text("quarantine") {
            Some(_) => Some(open(config, "quarantine", "--quarantine")?),
            None => None,
        };
        if let Some(place) = &quarantine {
            refuse_quarantine(place, &source, &dest).await?;
        }
        if shards_of(&source, &options::layout(config)).await?.is_some() {
            let source = source.location();
            return Err(Error::Usage(format!(
                "SOURCE {source} is shards already: train on them (forebay train {source} --out RUN), prepare from the images \
                 that they were made of, or prepare their images once more (--layout parquet)"
            )));
        }
        let was_balanced = made(&source, &options::layout(config)).await?.is_some_and(|made| made.balanced);
        let catalog = catalog::read(&source, &options::layout(config)).await?;
        let (catalog, fixes) = match config.text("fixes") {
            Some(place) => {
                mended(config, &place, catalog).await.map(|(catalog, done)| (catalog, Some(done)))?
            }
            None => (catalog, None),
        };
        let overwrite = config.is_on("overwrite");
        let destination = Destination::read(&dest).await?;
        let facts = Facts { declares_splits: catalog.declares_splits(), ..Facts::default() };
        let problems = config.without_effect(Command::Prepare, &facts);
        if !problems.is_empty() {
            return Err(Error::Plan(problems));
        }
        let resplits = config.is_on("resplit");
        let earlier = destination.assignment().filter(|_| !resplits);
        let reading = GroupedSource { run, config, store: &source };
        let versions = versions_digest(catalog.entries());
        let known = earlier.filter(|_| destination.versions() == Some(&versions));
        let (catalog, warnings) = grouped(&reading, catalog, known, true).await?;
        let catalog = match config.text("replay") {
            Some(place) => replayed(config, &place, catalog).await?,
            None => catalog,
        };
        let mut rows = rows(config, catalog, earlier, true)?;
        rows.warnings.extend(warnings);
        if !resplits {
            same_splits(&dest, &destination, &rows)?;
        }
        let is_rare = match augment.as_ref().and_then(|augment| augment.minority.as_ref()) {
            None => None,
            Some(minority) => {
                let counts = TrainSamples::of(&rows.catalog, &rows.splits).counts();
                let is_rare = minority.rare(rows.catalog.classes(), &counts);
                Some(is_rare.map_err(|problem| Error::Plan(vec![problem]))?.into())
            }
        };
        let encoding = encoding(config);
        let shorter_sides = match encoding {
            None => ShorterSides::default(),
            Some(_) => ShorterSides::look(&source, rows.catalog.entries()).await?,
        };
        let (side, side_by) = match config.integer("resize.size") {
            Some(side) => (side as u32, DecidedBy::User),
            None => shorter_sides.side(OF_A_SHARD_PX),
        };
        let chain = prepared(config, side, &mut Vec::new()).expect("its problems were looked for");
        if chain.steps().iter().any(|step| step.enlarge) {
            rows.warnings.extend(shorter_sides.enlarged(side, side_by, |nearest| {
                format!("larger files hold nothing more; give --size {nearest}, or --no-enlarge")
            }));
        }
        let resize = chain.steps().first().map_or(Resize::default(), ResizeStep::resize);
        let decode = Decode { background: chain.background(), hashes: true, ..decode };
        let sample_bytes = stored_bytes(&rows.catalog, &resize, encoding);
        let samples_per_shard = match config.integer("shards.samples_per_shard") {
            Some(samples) => samples as usize,
            None => ((64 << 20) / sample_bytes.max(1) / 100 * 100).clamp(100, 10_000) as usize,
        };
        let mut settings =
            config.settings(Command::Prepare, &facts, &[Identity::Pixels, Identity::Views, Identity::Rows]);
        // What the options come to, whether they say so or leave it to the default.
        settings.retain(|key, _| !key.starts_with("resize.") && key != "decode.background");
        settings.insert("chain".to_string(), chain.settings());
        settings.insert("shards.samples_per_shard".to_string(), samples_per_shard.into());
        if let Some(Encoding::Jpeg { .. }) = encoding {
            // Shards of another encoder hold other bytes for the same settings.
            settings.insert("encode.encoder".to_string(), Encoding::JPEG_ENCODER.into());
        }
        let of_shards = settings.clone();
        if let Some(fixes) = fixes {
            // Which images are what is part of the fingerprint in any case; this says why.
            settings.insert("fixes".to_string(), serde_json::to_value(fixes).expect("counts are plain data"));
        }
        let fingerprint = fingerprint(&rows, &settings);
        let format: DatasetFormat = config.choice("shards.format");
        if format == DatasetFormat::Mds && samples_per_shard as u64 * sample_bytes > MDS_BYTES_MAX {
            return Err(Error::Plan(vec![format!(
                "shards.samples_per_shard: {samples_per_shard} images are about {}, and a shard of MDS, which is in memory whole, \
                 may have {}; give fewer",
                bytes_in_words(samples_per_shard as u64 * sample_bytes),
                bytes_in_words(MDS_BYTES_MAX)
            )]));
        }
        let shards: Vec<PlannedShard> = Split::ALL
            .into_iter()
            .flat_map(|split| cut(format, split, rows.of(split).len(), samples_per_shard))
            .collect();
        let kept = kept_columns(config, &rows.catalog, format)?;
        let shard_plans =
            shard_plans(&rows, &shards, &of_shards, augment.is_some(), &kept, is_rare.as_deref());
        let mut plan = PreparePlan {
            chunk: chunk(&rows.catalog),
            seed: Seed(config.whole("seed")),
            encode: encoding.map(|encoding| Encode { encoding }),
            format,
            source,
            dest,
            fixes,
            was_balanced,
            rows,
            side_by: (!chain.steps().is_empty()).then_some(side_by),
            chain,
            decode,
            resize,
            augment,
            is_rare,
            samples_per_shard,
            shards,
            shard_plans,
            kept,
            versions,
            fingerprint,
            settings,
            rooms,
            dest_state: DestState::Empty,
            quarantine,
            overwrite,
        };
        plan.dest_state = destination.state(&plan.dest, &plan.record(), overwrite).await?;
        check_memory(&plan.memory())?;
        Ok(plan)
    }

    /// What a shard of the plan is made from.
    ///
    /// # Panics
    /// When it is a shard of another plan.
    pub fn shard_plan(&self, shard: &PlannedShard) -> &ShardPlan {
        let place = (shard.split, shard.index);
        let index = self.shards.binary_search_by_key(&place, |shard| (shard.split, shard.index));
        &self.shard_plans[index.expect("a shard of this plan")]
    }

    /// A shard of this plan, yet without rows.
    ///
    /// # Errors
    /// When the names of classes or columns do not fit a file.
    pub fn shard_writer(&self, shard: &PlannedShard) -> Result<FileWriter, ShardError> {
        let (classes, kept) = (self.rows.catalog.classes(), self.kept_columns());
        FileWriter::new(self.format, classes, &kept, shard.first as u64)
    }

    /// The columns of the source that go into the shards.
    pub fn kept_columns(&self) -> Vec<KeptColumn> {
        self.kept.iter().map(|(_, column)| column.clone()).collect()
    }

    /// Where the row at `place` among those of a shard comes from, whose file has this BLAKE3.
    ///
    /// # Panics
    /// When the shard has no such row.
    pub fn provenance(&self, shard: &PlannedShard, place: usize, blake3: Option<[u8; 32]>) -> Provenance {
        let row = &self.rows.of(shard.split)[shard.first + place];
        let entry = &self.rows.catalog.entries()[row.entry];
        let kept = entry.kept.as_deref().unwrap_or_default();
        Provenance {
            source: entry.locator.place(),
            source_blake3: blake3
                .map(|hash| blake3::Hash::from(hash).to_hex().to_string())
                .unwrap_or_default(),
            kept: self.kept.iter().map(|(at, _)| kept[*at].clone()).collect(),
        }
    }

    /// The nodes that make shards of images, in the order in which an image meets them.
    pub fn nodes(&self) -> Vec<PlannedNode> {
        let (compute, shard) = (self.rooms.compute(), self.rooms.shard());
        let mut nodes = vec![PlannedNode::new("read", self.rooms.read(), self.source.location())];
        match self.encode {
            None => nodes.push(PlannedNode::new(Keep::NAME, compute, "image files as they are")),
            Some(_) => {
                let scales = self.scales(self.augment.as_ref());
                nodes.extend(PlannedNode::of_stages(&scales, &self.chain, compute));
            }
        }
        for node in &mut nodes {
            match node.name {
                Augment::NAME => node.what.insert_str(0, "train only: "),
                Encode::NAME => {
                    node.what += &format!(", about {} a sample", bytes_in_words(self.sample_bytes()));
                }
                _ => {}
            }
        }
        let pack = match self.format {
            DatasetFormat::Parquet => "Parquet, group of rows by group of rows",
            DatasetFormat::WebDataset => "WebDataset, image by image",
            DatasetFormat::Mds => "MDS, shard by shard",
        };
        nodes.push(PlannedNode::new("pack", shard, pack));
        nodes.push(PlannedNode::new("write", shard, self.dest.location()));
        nodes
    }

    /// What makes the pixels of a row of its file, for images that are augmented or not, and then its stored bytes.
    pub fn scales(&self, augment: Option<&Augment>) -> Scales {
        let made = |augment: Option<&Augment>| Step::of_a_row(&self.resize, augment);
        let steps = Step::by_class(augment, self.is_rare.as_ref(), made);
        Scales { decode: self.decode.clone(), steps, encode: self.encode.clone() }
    }

    /// The last stage that an image passes: the one that says how many are done.
    pub fn last_stage(&self) -> &'static str {
        if self.encode.is_some() { Encode::NAME } else { Keep::NAME }
    }

    /// The width and height of the rows of a split as they are stored, where they are all the same squares; pixels.
    pub fn side_px(&self, split: Split) -> Option<u32> {
        let Some(augment) = self.augment.as_ref().filter(|_| split == Split::Train) else {
            return self.chain.side();
        };
        let side = |augment: &Augment| match augment.of_whole_images(&self.resize) {
            Some(augment) => augment.side().map(|side| self.resize.output_size(side, side).0),
            None => augment.side().or(self.chain.side()),
        };
        let common = side(&augment.common());
        match &augment.minority {
            Some(minority) => common.filter(|common| side(&minority.changes) == Some(*common)),
            None => common,
        }
    }

    /// What `plan.json` holds.
    pub fn record(&self) -> PlanRecord {
        PlanRecord {
            format: FORMAT,
            fingerprint: self.fingerprint.clone(),
            settings: serde_json::to_value(&self.settings).expect("settings are plain data"),
            classes: self.rows.catalog.classes().to_vec(),
            shards: self.shard_plans.clone(),
            versions: self.versions.clone(),
            assignment: self.rows.assignment.clone(),
        }
    }

    /// The estimated bytes of one stored image.
    pub fn sample_bytes(&self) -> u64 {
        stored_bytes(&self.rows.catalog, &self.resize, self.encode.as_ref().map(|encode| encode.encoding))
    }

    /// The most memory that images and shards in flight can take, part by part: name and bytes.
    pub fn memory(&self) -> Vec<(&'static str, u64)> {
        let rows = Split::ALL.iter().flat_map(|split| self.rows.of(*split));
        let sizes = rows.map(|row| self.rows.catalog.entries()[row.entry].bytes());
        let (read, compute) = (self.rooms.read(), self.rooms.compute());
        let scales = [None, self.augment.as_ref()].map(|augment| self.scales(augment));
        let (in_work, decoded, stored) = match self.encode {
            None => {
                (read.slots + read.queue + compute.slots + compute.queue, 0, sizes.clone().max().unwrap_or(0))
            }
            Some(_) => {
                let heaviest = scales.iter().map(|scales| scales.most().peak).max().unwrap_or(0);
                let stored = scales.iter().map(Scales::most_stored).max().unwrap_or(0);
                (read.slots + read.queue, heaviest.max(self.rooms.memory_bytes), stored)
            }
        };
        // A row group is ended by its bytes or by its rows; an image may be larger than either.
        let group = (ROW_GROUP_BYTES_MAX as u64 + stored).min(ROWS_PER_GROUP as u64 * stored);
        // A shard of MDS is in memory whole: as rows, and as bytes of the file, one being made and others being written.
        let group = match self.format {
            DatasetFormat::Parquet | DatasetFormat::WebDataset => group,
            DatasetFormat::Mds => MDS_BYTES_MAX.min((self.samples_per_shard as u64).saturating_mul(stored)),
        };
        let (pack, write) = (self.rooms.shard(), self.rooms.shard());
        let unpacked = self.rows.catalog.unpacked_bytes_max();
        let mut parts = vec![
            ("files read and not yet decoded", sum_of_largest(sizes, (in_work + 2) * self.chunk)),
            ("decoded images (memory)", decoded),
            ("buffers that threads keep", if decoded > 0 { self.rooms.kept_bytes() } else { 0 }),
            ("group of rows being encoded, as pages and as bytes of the file", 2 * group),
            ("groups of rows being written", (pack.slots + pack.queue + write.slots) as u64 * group),
        ];
        parts.extend((unpacked > 0).then_some(("unpacked parts of the source", unpacked)));
        parts
    }
}

/// The columns that go into the shards, each with its place among those that the catalog keeps.
///
/// # Errors
/// [`Error::Plan`] for one whose name shards have already.
fn kept_columns(
    config: &Config,
    catalog: &Catalog,
    format: DatasetFormat,
) -> Result<Vec<(usize, KeptColumn)>, Error> {
    let names = options::keep_columns(config);
    let is_taken = |name: &str| has_column(name) || formats::has_column(format, name);
    if let Some(name) = names.iter().find(|name| is_taken(name)) {
        return Err(Error::Plan(vec![format!(
            "data.keep_columns: shards have a column `{name}` of their own; leave it out, or rename it in the source"
        )]));
    }
    let column = |name: String| {
        let at = catalog.kept_columns().iter().position(|kept| *kept == name);
        let at = at.expect("a catalog keeps what is asked for");
        (at, KeptColumn { name, kind: catalog.kept_kind(at) })
    };
    Ok(names.into_iter().map(column).collect())
}

/// The catalog with its labels mended as the file says, and what was done.
///
/// # Errors
/// [`Error::Usage`] when there is no such file; [`Error::Plan`] with all that is wrong with it.
async fn mended(config: &Config, place: &str, catalog: Catalog) -> Result<(Catalog, FixedLabels), Error> {
    let bytes = listed_file(config, "--fixes", place).await?;
    let found = fixes::parse(&bytes).and_then(|found| fixes::apply(catalog, &found));
    found.map_err(|problems| {
        Error::Plan(problems.into_iter().map(|problem| format!("--fixes {place}: {problem}")).collect())
    })
}

/// How the options encode pixels; `None` where files are stored as they are.
fn encoding(config: &Config) -> Option<Encoding> {
    match config.choice("encode.format") {
        StoreAs::Keep => None,
        StoreAs::Jpeg => Some(Encoding::Jpeg {
            quality: config.whole("encode.quality") as u8,
            restarts: config.is_on("encode.restarts"),
        }),
        StoreAs::Png => Some(Encoding::Png),
        StoreAs::Raw => Some(Encoding::Raw),
    }
}

/// The chain of a dataset of images of this side by its options; `None` where it has problems.
fn prepared(config: &Config, side: u32, problems: &mut Vec<String>) -> Option<Chain> {
    let Some(encoding) = encoding(config) else { return Some(Chain::of_files()) };
    let Wanted { fit, crop_pct, filter, background, .. } = options::wanted(config);
    let is_original = config.get("resize.size").is_some_and(|size| size.as_integer().is_none());
    let fit = fit.unwrap_or(Fit::Shortest);
    let step = ResizeStep {
        side,
        fit,
        crop_pct: crop_pct.filter(|_| fit == Fit::Crop).unwrap_or(1.0),
        filter: filter.unwrap_or(Filter::Bilinear),
        enlarge: config.is_on("resize.enlarge"),
        pad_color: [0; 3],
    };
    let steps = if is_original { Vec::new() } else { vec![step] };
    let jpeg_quality = match encoding {
        Encoding::Jpeg { quality, .. } => Some(quality),
        Encoding::Png | Encoding::Raw => None,
    };
    let chain = Chain::new(background.flatten(), steps, jpeg_quality, None);
    let chain = chain.map(|chain| match chain.steps() {
        [] => chain,
        _ => chain.decoded(options::decode(config, None).scale_used()),
    });
    chain.map_err(|found| problems.extend(found.into_iter().map(|line| format!("resize: {line}")))).ok()
}

/// Images stay in the splits that they are in: another rule has to be asked for.
fn same_splits(dest: &Store, destination: &Destination, rows: &Rows) -> Result<(), Error> {
    let rule = rows.assignment.rule();
    let Some(before) = destination.rule().filter(|before| before != rule) else { return Ok(()) };
    let why = format!("was split by {before}, and this run splits by {rule}: go back to that, or");
    Err(Error::Usage(format!(
        "{} {why} --resplit to split anew (with --overwrite where it is finished), which moves images between training \
         and test",
        dest.location()
    )))
}
