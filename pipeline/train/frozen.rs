//! Features instead of images: where the first parts of a network stay frozen for a whole run, they see every image once,
//! and each epoch, also of later runs, trains the rest on what they made of it.
//!
//! The features of a split lie in shards below the cache, each a safetensors file with one tensor `features` of the rows
//! that could be decoded and, written after it, a JSON file that says which rows these are. Their folder is named by a hash
//! of all that the features of an image are a function of, and a folder in it by one of which images are trained on: the
//! fold of a cross-validation, or another split, takes from the folders beside its own what they have.
//!
//! A pass reads the groups of rows of a split as a pass over the images does, in the same order, so that it trains the same
//! weights, bit for bit. Random augmentation is kept as a number of views: view `n` of the training images is what epoch
//! `n` would see, and epochs take turns with them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use candle_core::{Device, Tensor};
use forebay_datasets::order::Rank;
use forebay_datasets::sample::{Fault, Sample, Split};
use forebay_datasets::shard::ROWS_PER_GROUP;
use forebay_datasets::store::Store;
use forebay_stages::collate::Batch;
use forebay_stages::group::Group;
use forebay_stages::shuffle::{Shuffle, WindowPart};
use forebay_train::features_file;
use serde::{Deserialize, Serialize};

use super::error::train_error;
use super::first_batch::first_batch;
use super::input::FeatureBatch;
use super::plan::TrainPlan;
use super::session::{Session, lock};
use crate::feed::{Fetch, Pass, PassBatch};
use crate::flow::{Error, Flow, Items, Room, Run};
use crate::options::bytes_in_words;

/// The features of a shard take about so much: a piece that any store reads well.
const SHARD_BYTES: u64 = 16 << 20;

/// The features of one image, in the memory of what was read with it.
#[derive(Clone)]
struct Feature {
    values: Arc<[f32]>,
    /// Its place among the rows whose features these are.
    row: usize,
}

/// What a shard says of its rows: shape of a row's features and, group by group, the rows.
#[derive(Serialize, Deserialize)]
struct Record {
    shape: Vec<usize>,
    groups: Vec<Vec<Row>>,
}

impl Record {
    fn row_bytes(&self) -> u64 {
        4 * self.shape.iter().product::<usize>() as u64
    }

    /// Where the features begin in the file of `size` bytes, whose end they are; `None` when it is too small for them.
    fn start(&self, size: u64) -> Option<u64> {
        let whole = self.groups.iter().flatten().filter(|row| row.is_whole).count() as u64;
        size.checked_sub(whole * self.row_bytes()).filter(|start| *start > 8)
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Row {
    id: String,
    copy: u32,
    label: u32,
    /// Whether the image could be decoded.
    is_whole: bool,
}

/// A group of rows of a split, and where their features are.
struct GroupFeatures {
    /// Each with its place among the rows that have features, as payload.
    rows: Vec<Sample<usize>>,
    place: Place,
}

enum Place {
    Memory(Arc<[f32]>),
    /// The key of a file and the bytes of it.
    Store(Arc<str>, std::ops::Range<u64>),
}

/// The features of every split.
pub(super) struct Features {
    /// By split and view.
    groups: BTreeMap<(Split, u32), Vec<GroupFeatures>>,
    /// Views of the training images.
    views: u32,
    shape: Arc<[usize]>,
    first: usize,
    store: Store,
    /// How long the frozen part took over the training images; `None` when an earlier run had done it.
    pub(super) seconds: Option<f64>,
}

impl Features {
    /// Reads the features from the cache, after what is missing there was computed. `None` where images are needed:
    /// nothing is frozen for the whole run, an image is mixed with others or augmented without a number of views, or the
    /// features need more memory than decoded images may take and no folder was given to keep them in.
    pub(super) async fn of(
        run: &Run,
        plan: &Arc<TrainPlan>,
        session: &Arc<Mutex<Session>>,
    ) -> Result<Option<Arc<Features>>, Error> {
        let Some(cache) = &plan.feature_cache else { return Ok(None) };
        let Some(first) = lock(session).trainer.frozen_prefix() else { return Ok(None) };
        let views = match (&plan.feed.augment, cache.views) {
            _ if plan.options.mixing.is_some() => return Ok(None),
            (None, _) => 1,
            (Some(_), Some(views)) => views,
            (Some(_), None) => {
                eprintln!(
                    "note: the frozen part runs in every epoch, because images are augmented; --feature-views 4 runs it \
                     once for each of 4 views of an image"
                );
                return Ok(None);
            }
        };
        let (shape, name) = {
            let session = lock(session);
            let blank = Batch {
                images: vec![0; 3 * (plan.feed.side as usize).pow(2)],
                labels: vec![0],
                ids: vec!["".into()],
                side: plan.feed.side,
            };
            let features = run.install(|| session.trainer.features(&blank, first));
            let (_, shape) = features.map_err(|error| train_error("compute features", error))?;
            let prefix = session.trainer.prefix_bytes(first);
            let prefix = prefix.map_err(|error| train_error("read the weights", error))?;
            let mut name = blake3::Hasher::new();
            name.update(plan.images_identity.as_bytes())
                .update(plan.options.model.as_bytes())
                .update(&prefix);
            (shape, name.finalize().to_hex()[..32].to_string())
        };
        let splits = Split::ALL.into_iter().filter(|split| plan.feed.rows(*split) > 0);
        let passes: Vec<(Split, u32)> = splits
            .flat_map(|split| {
                (0..if split == Split::Train { views } else { 1 }).map(move |view| (split, view))
            })
            .collect();
        let row_bytes = 4 * shape.iter().product::<usize>() as u64;
        let rows = passes.iter().map(|(split, _)| plan.feed.planned(*split).found() as u64);
        let bytes = rows.sum::<u64>() * row_bytes;
        let fits = bytes <= plan.feed.rooms.memory_bytes;
        if !fits && !cache.is_chosen {
            eprintln!(
                "note: the frozen part runs in every epoch: its features take {}, more than --memory; --feature-cache DIR \
                 keeps them there",
                bytes_in_words(bytes)
            );
            return Ok(None);
        }
        let mut features = Features {
            groups: BTreeMap::new(),
            views,
            shape: shape.into(),
            first,
            store: Store::open(&cache.place, &Default::default())?,
            seconds: None,
        };
        for (split, view) in passes {
            let shards = FeatureShards {
                images: format!("{name}/"),
                prefix: format!(
                    "{name}/{}/{split}-{view}-",
                    &blake3::hash(plan.data_identity.as_bytes()).to_hex()[..32]
                ),
                sizes: plan.feed.planned(split).groups().to_vec(),
                groups: (SHARD_BYTES / (row_bytes * ROWS_PER_GROUP as u64)).clamp(1, 64) as usize,
                pass: (split, view),
            };
            let start = Instant::now();
            let mut missing = features.missing(&shards).await?;
            if !missing.is_empty() {
                missing = features.gather(plan, &shards, missing).await?;
            }
            if !missing.is_empty() {
                features.compute(run, plan, session, &shards, missing).await?;
                if split == Split::Train {
                    *features.seconds.get_or_insert(0.0) += start.elapsed().as_secs_f64();
                }
            }
            features.open(run, plan, &shards, fits).await?;
        }
        Ok(Some(Arc::new(features)))
    }

    /// True when the features of a split are there.
    pub(super) fn has(&self, split: Split) -> bool {
        self.groups.contains_key(&(split, 0))
    }

    /// Views of training images that the frozen part saw.
    pub(super) fn views(&self) -> u32 {
        self.views
    }

    /// The numbers of the shards that are not there.
    async fn missing(&self, shards: &FeatureShards) -> Result<Vec<usize>, Error> {
        let mut missing = Vec::new();
        for shard in 0..shards.shards() {
            // The record is written last.
            if self.store.size(&shards.record(shard)).await?.is_none() {
                missing.push(shard);
            }
        }
        Ok(missing)
    }

    /// Writes those of these shards whose rows all have features in other folders of the same images, and returns the
    /// others.
    async fn gather(
        &self,
        plan: &TrainPlan,
        shards: &FeatureShards,
        missing: Vec<usize>,
    ) -> Result<Vec<usize>, Error> {
        let (split, view) = shards.pass;
        let Some(rows) = plan.feed.source.known_rows(split) else { return Ok(missing) };
        let is_augmented = |split: Split| split == Split::Train && plan.feed.augment.is_some();
        // An augmented image is a function of its copy and view; one as it is, of neither.
        let copy_of = |copy: u32| if is_augmented(split) { copy } else { 0 };
        let files: BTreeMap<String, u64> = self.store.list(&shards.images).await?.into_iter().collect();
        let mut known: BTreeMap<(String, u32), Option<Place>> = BTreeMap::new();
        for (key, _) in files.iter().filter(|(key, _)| key.ends_with(".json")) {
            let name = key.rsplit('/').next().unwrap_or_default();
            let is_like = match is_augmented(split) {
                true => name.starts_with(&format!("{split}-{view}-")),
                false => !(name.starts_with("train-") && plan.feed.augment.is_some()),
            };
            let record = match is_like {
                true => self.store.get(key).await?,
                false => continue,
            };
            let file: Arc<str> = key.replace(".json", ".safetensors").into();
            let Ok(record) = serde_json::from_slice::<Record>(&record) else { continue };
            let size = files.get(&*file).copied().unwrap_or(0);
            let start = record.start(size).filter(|_| record.shape[..] == self.shape[..]);
            let (Some(mut at), row_bytes) = (start, record.row_bytes()) else { continue };
            for row in record.groups.into_iter().flatten() {
                let place = row.is_whole.then(|| Place::Store(file.clone(), at..at + row_bytes));
                at += if row.is_whole { row_bytes } else { 0 };
                known.insert((row.id, copy_of(row.copy)), place);
            }
        }
        let mut others = Vec::new();
        for shard in missing {
            let (mut values, mut groups): (Vec<f32>, Vec<Vec<Row>>) = (Vec::new(), Vec::new());
            for group in shards.groups_of(shard) {
                let mut of_group = Vec::new();
                for sample in rows.iter().skip(group * ROWS_PER_GROUP).take(ROWS_PER_GROUP) {
                    let Some(place) = known.get(&(sample.id.to_string(), copy_of(sample.copy))) else {
                        break;
                    };
                    if let Some(Place::Store(file, range)) = place {
                        let bytes = self.store.get_range(file, range.clone()).await?;
                        values.extend_from_slice(&numbers(&bytes));
                    }
                    of_group.push(Row {
                        id: sample.id.to_string(),
                        copy: sample.copy,
                        label: sample.label,
                        is_whole: place.is_some(),
                    });
                }
                groups.push(of_group);
            }
            let sizes = &shards.sizes[shards.groups_of(shard)];
            if groups.iter().map(Vec::len).eq(sizes.iter().copied()) {
                let record = Record { shape: self.shape.to_vec(), groups };
                write(&self.store, shards, shard, &values, &record).await?;
            } else {
                others.push(shard);
            }
        }
        Ok(others)
    }

    /// Runs the frozen part over the images of these shards and writes them.
    async fn compute(
        &self,
        run: &Run,
        plan: &Arc<TrainPlan>,
        session: &Arc<Mutex<Session>>,
        shards: &FeatureShards,
        missing: Vec<usize>,
    ) -> Result<(), Error> {
        let (split, view) = shards.pass;
        let groups = missing.iter().flat_map(|&shard| shards.groups_of(shard)).collect();
        let view = (split == Split::Train && plan.feed.augment.is_some()).then_some(view);
        let (pool, plan_here, session) = (run.clone(), plan.clone(), session.clone());
        let (store, shards, first, shape) =
            (self.store.clone(), shards.clone(), self.first, self.shape.clone());
        let consume = move |groups: Items<(Vec<Sample<()>>, Batch)>| {
            let mut session = lock(&session);
            let session = &mut *session;
            let mut groups = groups.into_iter();
            let mut is_first = (shards.pass, missing[0]) == ((Split::Train, 0), 0);
            for shard in missing {
                let (mut values, mut record) = (Vec::new(), Record { shape: shape.to_vec(), groups: vec![] });
                for (samples, batch) in groups.by_ref().take(shards.groups_of(shard).len()) {
                    for part in batch.parts(plan_here.feed.batch_size) {
                        if std::mem::take(&mut is_first) {
                            for line in first_batch(&pool, &plan_here, session, &part)? {
                                eprintln!("warning: {line}");
                            }
                        }
                        let made = pool.install(|| session.trainer.features(&part, first));
                        values.extend(made.map_err(|error| train_error("compute features", error))?.0);
                    }
                    let row = |sample: Sample<()>| Row {
                        id: sample.id.to_string(),
                        copy: sample.copy,
                        label: sample.label,
                        is_whole: sample.payload.is_ok(),
                    };
                    record.groups.push(samples.into_iter().map(row).collect());
                }
                if record.groups.len() < shards.groups_of(shard).len() {
                    // The run was interrupted.
                    return Ok(());
                }
                pool.block_on(write(&store, &shards, shard, &values, &record))?;
            }
            Ok(())
        };
        plan.feed.groups(run, split, groups, view).drain("compute features", consume).await
    }

    /// Reads the records of a split, and its features where they are to be held in memory.
    async fn open(
        &mut self,
        run: &Run,
        plan: &TrainPlan,
        shards: &FeatureShards,
        held: bool,
    ) -> Result<(), Error> {
        let (store, here, shape) = (self.store.clone(), shards.clone(), self.shape.clone());
        let read = move |shard: usize| {
            let (store, shards) = (store.clone(), here.clone());
            async move {
                let record = store.get(&shards.record(shard)).await?;
                let key = shards.file(shard);
                let size = store.size(&key).await?.unwrap_or(0);
                let file = if held { store.get(&key).await? } else { Bytes::new() };
                Ok((shard, record, size, file))
            }
        };
        let (here, location) = (shards.clone(), self.store.location().to_string());
        let parse = move |(shard, record, size, file): (usize, Bytes, u64, Bytes)| {
            groups_of(&here, &shape, shard, &record, size, &file).ok_or_else(|| {
                Error::Integrity(format!(
                    "{location}/{} is damaged: delete it and its .json, and its features are computed again",
                    here.file(shard)
                ))
            })
        };
        let room = plan.feed.rooms.group();
        let flow = run.source("feature shards", 0..shards.shards()).io("open features", room, read);
        let groups: Vec<Vec<GroupFeatures>> = flow.compute("parse features", room, parse).collect().await?;
        let groups: Vec<GroupFeatures> = groups.into_iter().flatten().collect();
        // An image that an earlier run refused is a reject of this one too.
        let rows = groups.iter().flat_map(|group| &group.rows);
        run.rejects().record(rows.filter_map(|row| Some((&row.id, row.payload.as_ref().err()?))))?;
        self.groups.insert(shards.pass, groups);
        Ok(())
    }

    /// The batches of a pass after its first `done`, in the order of the images.
    pub(super) fn batches(
        self: &Arc<Features>,
        run: &Run,
        plan: &TrainPlan,
        pass: Pass,
        done: u64,
    ) -> Flow<PassBatch<FeatureBatch>> {
        let epoch = Arc::new(plan.feed.epoch(pass));
        let sizes = epoch.sizes(done, Rank::ALONE).map(|(index, rows)| ((index, rows), rows));
        let here = self.clone();
        let (shape, first, width) = (self.shape.clone(), self.first, self.shape.iter().product::<usize>());
        run.source("features", epoch.windows(done, Rank::ALONE).flat_map(Fetch::of))
            .io("read features", plan.feed.rooms.group(), move |fetch| {
                let here = here.clone();
                async move { here.read(pass, fetch).await }
            })
            .regroup(2, Shuffle::new(ROWS_PER_GROUP))
            .regroup(2, Group::new(sizes))
            .compute("collate", Room { slots: 2, queue: 2 }, move |((index, planned), samples)| {
                let mut numbers = Vec::with_capacity(samples.len() * width);
                let mut labels = Vec::with_capacity(samples.len());
                for sample in samples {
                    let Ok(Feature { values, row }) = sample.payload else { continue };
                    numbers.extend_from_slice(&values[row * width..(row + 1) * width]);
                    labels.push(sample.label);
                }
                let shape = [&[labels.len()], &*shape].concat();
                let features = Tensor::from_vec(numbers, shape, &Device::Cpu);
                let features = features.map_err(|error| Error::failed("collate features", error))?;
                Ok(PassBatch { index, planned, batch: FeatureBatch { features, labels, first } })
            })
    }

    /// The features of the rows of a part of a window.
    async fn read(&self, pass: Pass, fetch: Fetch) -> Result<WindowPart<Feature>, Error> {
        let (split, epoch, views) = match pass {
            Pass::Train(epoch) => (Split::Train, epoch, self.views),
            Pass::Evaluate(split) => (split, 0, 1),
        };
        // A group is read once for each view of it.
        let mut whole: BTreeMap<u32, Arc<[f32]>> = BTreeMap::new();
        let mut samples = Vec::with_capacity(fetch.rows.len());
        for (at, row) in fetch.rows {
            let view = (epoch + row.copy) % views;
            let group = &self.groups[&(split, view)][row.place.group as usize];
            let sample = group.rows[row.place.row as usize].clone();
            let payload = match sample.payload {
                Err(fault) => Err(fault),
                Ok(number) if fetch.group.is_none() => {
                    Ok(group.feature(&self.store, number, &self.shape).await?)
                }
                Ok(number) => {
                    if let std::collections::btree_map::Entry::Vacant(entry) = whole.entry(view) {
                        entry.insert(group.values(&self.store).await?);
                    }
                    Ok(Feature { values: whole[&view].clone(), row: number })
                }
            };
            let copy = sample.copy + row.copy;
            samples.push((at, Sample { id: sample.id, copy, label: sample.label, payload }));
        }
        Ok(WindowPart { window_rows: fetch.window_rows, samples })
    }
}

impl GroupFeatures {
    async fn values(&self, store: &Store) -> Result<Arc<[f32]>, Error> {
        match &self.place {
            Place::Memory(values) => Ok(values.clone()),
            Place::Store(_, range) if range.is_empty() => Ok([].into()),
            Place::Store(key, range) => {
                let bytes = store.get_range(key, range.clone()).await?;
                Ok(numbers(&bytes))
            }
        }
    }

    /// The features of one row alone.
    async fn feature(&self, store: &Store, row: usize, shape: &[usize]) -> Result<Feature, Error> {
        let bytes = 4 * shape.iter().product::<usize>() as u64;
        match &self.place {
            Place::Memory(values) => Ok(Feature { values: values.clone(), row }),
            Place::Store(key, range) => {
                let start = range.start + row as u64 * bytes;
                let bytes = store.get_range(key, start..start + bytes).await?;
                Ok(Feature { values: numbers(&bytes), row: 0 })
            }
        }
    }
}

/// Writes a shard: the features, and then the record, without which they do not count.
async fn write(
    store: &Store,
    shards: &FeatureShards,
    shard: usize,
    values: &[f32],
    record: &Record,
) -> Result<(), Error> {
    let file = features_file(values, &record.shape);
    let file = file.map_err(|error| train_error("write the features", error))?;
    let record = serde_json::to_vec(record).expect("a record is plain data");
    store.put(&shards.file(shard), file.into()).await?;
    store.put(&shards.record(shard), record.into()).await.map_err(Error::from)
}

/// Little-endian numbers, as safetensors files hold them.
fn numbers(bytes: &[u8]) -> Arc<[f32]> {
    let (values, _) = bytes.as_chunks::<4>();
    values.iter().map(|value| f32::from_le_bytes(*value)).collect()
}

/// Where the shards of a pass lie.
#[derive(Clone)]
struct FeatureShards {
    /// The folder of everything made of the same images.
    images: String,
    prefix: String,
    /// Planned rows of each group.
    sizes: Vec<usize>,
    /// Groups of a shard.
    groups: usize,
    pass: (Split, u32),
}

impl FeatureShards {
    fn shards(&self) -> usize {
        self.sizes.len().div_ceil(self.groups)
    }

    fn groups_of(&self, shard: usize) -> std::ops::Range<usize> {
        shard * self.groups..((shard + 1) * self.groups).min(self.sizes.len())
    }

    fn file(&self, shard: usize) -> String {
        format!("{}{shard:05}.safetensors", self.prefix)
    }

    fn record(&self, shard: usize) -> String {
        format!("{}{shard:05}.json", self.prefix)
    }
}

/// The groups of a shard; `None` when record and file are not what was written for it.
fn groups_of(
    shards: &FeatureShards,
    shape: &[usize],
    shard: usize,
    record: &[u8],
    size: u64,
    file: &[u8],
) -> Option<Vec<GroupFeatures>> {
    let record: Record = serde_json::from_slice(record).ok()?;
    let sizes = &shards.sizes[shards.groups_of(shard)];
    if record.shape != shape || !record.groups.iter().map(Vec::len).eq(sizes.iter().copied()) {
        return None;
    }
    let (row_bytes, mut end) = (record.row_bytes(), record.start(size)?);
    let key: Arc<str> = shards.file(shard).into();
    let groups = record.groups.into_iter().map(|rows| {
        let mut count = 0;
        let sample = |row: Row| {
            let payload = match row.is_whole {
                true => Ok(count),
                false => Err(Fault::new("decode", "refused when its features were computed")),
            };
            count += usize::from(row.is_whole);
            Sample { id: row.id.into(), copy: row.copy, label: row.label, payload }
        };
        let rows = rows.into_iter().map(sample).collect();
        let range = end..end + count as u64 * row_bytes;
        end = range.end;
        let place = match file.get(range.start as usize..range.end as usize) {
            Some(bytes) if !file.is_empty() => Place::Memory(numbers(bytes)),
            _ => Place::Store(key.clone(), range),
        };
        GroupFeatures { rows, place }
    });
    Some(groups.collect())
}
