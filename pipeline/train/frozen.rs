//! Features instead of images: where the first parts of a network stay frozen for a whole run, they see every image once,
//! and each epoch, also of later runs, trains the rest on what they made of it.
//!
//! The features of a split lie in shards below the cache, see [`cache`]. Their folder is named by a hash of all that the
//! features of an image are a function of, and a folder in it by one of which images are trained on: the fold of a
//! cross-validation, or another split, takes from the folders beside its own what they have.
//!
//! A pass reads the groups of rows of a split as a pass over the images does, in the same order, so that it trains the same
//! weights, bit for bit. Random augmentation is kept as a number of views: view `n` of the training images is what epoch
//! `n` would see, and epochs take turns with them.
//!
//! A cache that cannot be read or written is a note: the run then sees the images in every epoch, and trains the same
//! weights.

mod cache;
mod gather;
mod identity;
mod resampled;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use candle_core::{Device, Tensor};
use forebay_datasets::order::Rank;
use forebay_datasets::sample::{Sample, Split};
use forebay_datasets::shard::ROWS_PER_GROUP;
use forebay_datasets::store::Store;
use forebay_stages::collate::Batch;
use forebay_stages::group::Group;
use forebay_stages::shuffle::{Shuffle, WindowPart};
use forebay_train::Trainer;

use super::error::train_error;
use super::first_batch::look_ahead;
use super::input::FeatureBatch;
use super::plan::TrainPlan;
use super::session::{Session, lock};
use crate::feed::{Fetch, Pass, PassBatch};
use crate::flow::{Error, Flow, Items, Room, Run};
use crate::options::bytes_in_words;
use crate::report::note;
use cache::{Failure, FeatureShards, GroupFeatures, Opened, Record, Row};
use identity::{FeaturesIdentity, rows_identity};
use resampled::ResampledRows;

/// The features of a shard take about so much: a piece that any store reads well.
const SHARD_BYTES: u64 = 16 << 20;

/// The features of one image.
#[derive(Clone)]
enum Feature {
    /// In the memory of what was read with it.
    Read {
        values: Arc<[f32]>,
        /// Its place among the rows whose features these are.
        row: usize,
    },
    /// The cache no longer gives what was opened.
    Lost,
}

/// What a run trains on.
pub(super) enum Use {
    /// Images, in every epoch.
    Images {
        /// What could be done about it, where there is something.
        note: Option<String>,
    },
    /// Features.
    Features {
        /// The first part of the network that takes them.
        first: usize,
        /// Views of each training image.
        views: u32,
        /// Shape of the features of an image.
        shape: Arc<[usize]>,
        /// Whether those of all images may be held in memory.
        fits: bool,
    },
}

impl Use {
    /// What a run with this plan and this network trains on. Images where nothing is frozen for the whole run, an image is
    /// mixed with others or augmented without a number of views, or the features need more memory than decoded images
    /// may take and no folder was given to keep them in.
    ///
    /// # Errors
    /// [`Error::Usage`] when `--feature-views` asks for features and there can be none.
    pub(super) fn of(run: &Run, plan: &TrainPlan, trainer: &Trainer) -> Result<Use, Error> {
        let found = Use::found(run, plan, trainer)?;
        let why = match (&plan.resampling, &found) {
            (None, _) | (Some(_), Use::Features { fits: true, .. }) => return Ok(found),
            (Some(_), Use::Features { .. }) => "they take more than --memory",
            (Some(_), Use::Images { note: Some(note) }) => note,
            (Some(_), Use::Images { .. }) => "there are none; see --freeze and --feature-cache",
        };
        Err(Error::Usage(format!(
            "balance.mode and balance.clean take the features of all training images: {why}"
        )))
    }

    fn found(run: &Run, plan: &TrainPlan, trainer: &Trainer) -> Result<Use, Error> {
        let Some(cache) = &plan.feature_cache else { return Ok(Use::Images { note: None }) };
        let images = |why: &str, note: Option<&str>| match cache.views {
            None => Ok(Use::Images {
                note: note.map(|note| format!("the frozen part runs in every epoch: {note}")),
            }),
            Some(_) => Err(Error::Usage(format!("train.feature_views: {why}; leave it out"))),
        };
        let Some(first) = trainer.frozen_prefix() else {
            return images("no part of the network stays frozen for the whole run, see --freeze", None);
        };
        if plan.options.mixing.is_some() {
            return images("--mixup and --cutmix mix images, which no kept features can show", None);
        }
        let views = match (&plan.feed.augment, cache.views) {
            (None, _) => 1,
            (Some(_), Some(views)) => views,
            (Some(_), None) => {
                let note =
                    "images are augmented; --feature-views 4 runs it once for each of 4 views of an image";
                return images("", Some(note));
            }
        };
        let blank = Batch {
            images: vec![0; 3 * (plan.feed.side as usize).pow(2)].into(),
            labels: vec![0],
            ids: vec!["".into()],
            side: plan.feed.side,
        };
        let features = run.install(|| trainer.features(&blank, first));
        let (_, shape) = features.map_err(|error| train_error("compute features", error))?;
        let row_bytes = 4 * shape.iter().product::<usize>() as u64;
        let rows = |split: Split| {
            let views = if split == Split::Train { u64::from(views) } else { 1 };
            let made = match (split, &plan.resampling) {
                // They are held beside those that they are made of.
                (Split::Train, Some(resampling)) => resampling.rows(),
                _ => 0,
            };
            views * plan.feed.planned(split).found() as u64 + made
        };
        let bytes = Split::ALL.into_iter().map(rows).sum::<u64>() * row_bytes;
        let fits = bytes <= plan.feed.rooms.memory_bytes;
        if !fits && !cache.is_chosen {
            let why = format!(
                "its features take {}, more than --memory; --feature-cache DIR keeps them there",
                bytes_in_words(bytes)
            );
            return images(&why, Some(&why));
        }
        Ok(Use::Features { first, views, shape: shape.into(), fits })
    }
}

/// The features of every split.
pub(super) struct Features {
    /// By split and view.
    groups: Arc<BTreeMap<(Split, u32), Vec<GroupFeatures>>>,
    /// What an epoch trains on instead of the features of the training images, where some are made or left out.
    resampled: Option<Arc<ResampledRows>>,
    /// Views of the training images.
    views: u32,
    shape: Arc<[usize]>,
    first: usize,
    store: Store,
    /// Whether features are held in memory.
    held: bool,
    /// Whether a run that loses them cannot go on with images: these have no views.
    needed: bool,
    identity: FeaturesIdentity,
    /// Why the cache gave back no more what was opened.
    lost: OnceLock<String>,
    /// How long the frozen part took over the training images; `None` when an earlier run had done it.
    pub(super) seconds: Option<f64>,
}

impl Features {
    /// [`Features::of`], or those that an earlier training had, where they are the same.
    ///
    /// # Errors
    /// As [`Features::of`].
    pub(super) async fn with(
        run: &Run,
        plan: &Arc<TrainPlan>,
        session: &Arc<Mutex<Session>>,
        splits: &[Split],
        before: Option<Arc<Features>>,
    ) -> Result<Option<Arc<Features>>, Error> {
        if let Some(before) = before.filter(|before| before.lost.get().is_none()) {
            let what = Use::of(run, plan, &lock(session).trainer)?;
            if let Use::Features { first, views, .. } = what
                && before.identity == FeaturesIdentity::of(plan, session, (first, views), splits)?
            {
                return Ok(Some(before));
            }
        }
        Features::of(run, plan, session, splits).await
    }

    /// Reads the features of these splits from the cache, after what is missing there was computed. `None` where the run trains on images.
    ///
    /// # Errors
    /// As [`Use::of`]; the first error of the run. A failing cache is one only where `--feature-views` needs it.
    pub(super) async fn of(
        run: &Run,
        plan: &Arc<TrainPlan>,
        session: &Arc<Mutex<Session>>,
        splits: &[Split],
    ) -> Result<Option<Arc<Features>>, Error> {
        let (what, is_new) = {
            let session = lock(session);
            (Use::of(run, plan, &session.trainer)?, session.is_new())
        };
        if let Use::Images { note: Some(line) } = &what {
            note(line);
        }
        let (Use::Features { first, views, shape, fits }, Some(cache)) = (what, &plan.feature_cache) else {
            return Ok(None);
        };
        let needed = cache.views.is_some() || plan.resampling.is_some();
        if is_new {
            // Training sees no image that could be looked at.
            look_ahead(run, plan, session.clone()).await?;
        }
        let store = match Store::open(&cache.place, &cache.options) {
            Err(error) if cache.is_chosen => return Err(error.into()),
            store => store,
        };
        let filled = match store {
            Err(error) => Err(Failure::from(error)),
            Ok(store) => {
                let features = Features {
                    groups: Arc::default(),
                    resampled: None,
                    views,
                    shape,
                    first,
                    store,
                    held: fits,
                    needed,
                    identity: FeaturesIdentity::of(plan, session, (first, views), splits)?,
                    lost: OnceLock::new(),
                    seconds: None,
                };
                features.fill(run, plan, session, splits).await
            }
        };
        match filled {
            Ok(features) => Ok(Some(Arc::new(features))),
            Err(Failure::Run(error)) => Err(error),
            Err(Failure::Cache(why)) if needed => Err(Error::Store(format!(
                "{}: the features cannot be kept: {why}; give another --feature-cache",
                if cache.views.is_some() { "train.feature_views" } else { "balance.mode" }
            ))),
            Err(Failure::Cache(why)) => {
                note(&format!("the frozen part runs in every epoch: its features cannot be kept: {why}"));
                Ok(None)
            }
        }
    }

    /// Opens the features of every split, after what is missing or damaged was gathered or computed.
    async fn fill(
        mut self,
        run: &Run,
        plan: &Arc<TrainPlan>,
        session: &Arc<Mutex<Session>>,
        splits: &[Split],
    ) -> Result<Features, Failure> {
        let name = self.identity.images.clone();
        let row_bytes = 4 * self.shape.iter().product::<usize>() as u64;
        let views = self.views;
        let splits = splits.iter().copied().filter(|split| plan.feed.rows(*split) > 0);
        let passes: Vec<(Split, u32)> = splits
            .flat_map(|split| {
                (0..if split == Split::Train { views } else { 1 }).map(move |view| (split, view))
            })
            .filter(|pass| self.key(*pass) == *pass)
            .collect();
        for (split, view) in passes {
            let shards = FeatureShards {
                images: format!("{name}/"),
                prefix: format!("{name}/{}/{split}-{view}-", &rows_identity(plan, split)[..32]),
                sizes: plan.feed.planned(split).groups().to_vec(),
                groups: (SHARD_BYTES / (row_bytes * ROWS_PER_GROUP as u64)).clamp(1, 64) as usize,
                pass: (split, view),
                shape: self.shape.clone(),
            };
            let start = Instant::now();
            let mut groups: BTreeMap<usize, Vec<GroupFeatures>> = BTreeMap::new();
            let missing =
                self.open(run, plan, &shards, (0..shards.shards()).collect(), true, &mut groups).await?;
            if !missing.is_empty() {
                let left = gather::gather(&self.store, plan, &shards, missing.clone()).await?;
                if !left.is_empty() {
                    self.compute(run, plan, session, &shards, left).await?;
                    if split == Split::Train {
                        *self.seconds.get_or_insert(0.0) += start.elapsed().as_secs_f64();
                    }
                }
                if !self.open(run, plan, &shards, missing, false, &mut groups).await?.is_empty() {
                    let place = self.store.location();
                    return Err(Failure::Cache(format!("{place} does not give back what is written to it")));
                }
            }
            let groups: Vec<GroupFeatures> = groups.into_values().flatten().collect();
            // An image that an earlier run refused is a reject of this one too.
            let rows = groups.iter().flat_map(|group| &group.rows);
            run.rejects().record(rows.filter_map(|row| Some((&row.id, row.payload.as_ref().err()?))))?;
            let all = Arc::get_mut(&mut self.groups).expect("nobody has them yet");
            all.insert(shards.pass, groups);
        }
        Ok(self)
    }

    /// The same with what the plan makes of the features of the training images, where it makes something of them.
    ///
    /// # Errors
    /// When the features cannot be read.
    pub(super) async fn resampled(
        self: Arc<Features>,
        run: &Run,
        plan: &TrainPlan,
    ) -> Result<Arc<Features>, Error> {
        if plan.resampling.is_none() {
            return Ok(self);
        }
        let resampled = ResampledRows::of(run, plan, &self).await?;
        Ok(Arc::new(Features {
            groups: self.groups.clone(),
            resampled: Some(Arc::new(resampled)),
            views: self.views,
            shape: self.shape.clone(),
            first: self.first,
            store: self.store.clone(),
            held: self.held,
            needed: self.needed,
            identity: self.identity.clone(),
            lost: OnceLock::new(),
            seconds: self.seconds,
        }))
    }

    /// How many features of each class an epoch trains on, where some are made or left out.
    pub(super) fn resampled_counts(&self, classes: usize) -> Option<Vec<f64>> {
        self.resampled.as_ref().map(|resampled| resampled.counts(classes))
    }

    /// True when the features of a split are there.
    pub(super) fn has(&self, split: Split) -> bool {
        self.lost.get().is_none() && self.groups.contains_key(&self.key((split, 0)))
    }

    /// The split and view under which the features of a split and a view are.
    fn key(&self, (split, view): (Split, u32)) -> (Split, u32) {
        match split {
            Split::Validation if self.identity.shares_rows => (Split::Train, 0),
            split => (split, view),
        }
    }

    /// What becomes of an image whose features cannot be read after all.
    fn lose(&self, error: Error) -> Result<Feature, Error> {
        if self.needed {
            return Err(error);
        }
        self.lost.get_or_init(|| {
            note(&format!("the frozen part runs again in every epoch: its features are lost: {error}"));
            error.to_string()
        });
        Ok(Feature::Lost)
    }

    /// Views of training images that the frozen part saw.
    pub(super) fn views(&self) -> u32 {
        self.views
    }

    /// Runs the frozen part over the images of these shards and writes them.
    async fn compute(
        &self,
        run: &Run,
        plan: &Arc<TrainPlan>,
        session: &Arc<Mutex<Session>>,
        shards: &FeatureShards,
        missing: Vec<usize>,
    ) -> Result<(), Failure> {
        let (split, view) = shards.pass;
        let groups = missing.iter().flat_map(|&shard| shards.groups_of(shard)).collect();
        let view = (split == Split::Train && plan.feed.augment.is_some()).then_some(view);
        let (pool, plan_here, session) = (run.clone(), plan.clone(), session.clone());
        let (store, shards, first) = (self.store.clone(), shards.clone(), self.first);
        let consume = move |groups: Items<(Vec<Sample<()>>, Batch)>| {
            let session = lock(&session);
            let mut groups = groups.into_iter();
            for shard in missing {
                let (mut values, mut record) = (Vec::new(), Record::new(&shards.shape));
                for (samples, batch) in groups.by_ref().take(shards.groups_of(shard).len()) {
                    let from = values.len();
                    for part in batch.parts(plan_here.feed.batch_size) {
                        let made = pool.install(|| session.trainer.features(&part, first));
                        values.extend(made.map_err(|error| train_error("compute features", error))?.0);
                    }
                    record.push(samples.iter().map(Row::of).collect(), &values[from..]);
                }
                if record.groups.len() < shards.groups_of(shard).len() {
                    // The run was interrupted.
                    return Ok(None);
                }
                match pool.block_on(shards.write(&store, shard, &values, record)) {
                    Ok(()) => {}
                    Err(Failure::Run(error)) => return Err(error),
                    // An error here would end the run.
                    Err(Failure::Cache(why)) => return Ok(Some(why)),
                }
            }
            Ok(None)
        };
        match plan.feed.groups(run, split, groups, view).drain("compute features", consume).await? {
            Some(why) => Err(Failure::Cache(why)),
            None => Ok(()),
        }
    }

    /// Reads these shards of a split and adds their groups; returns those that are not there or not what was written.
    async fn open(
        &self,
        run: &Run,
        plan: &TrainPlan,
        shards: &FeatureShards,
        wanted: Vec<usize>,
        of_before: bool,
        groups: &mut BTreeMap<usize, Vec<GroupFeatures>>,
    ) -> Result<Vec<usize>, Error> {
        let (store, here, held) = (self.store.clone(), shards.clone(), self.held);
        let read = move |shard: usize| {
            let (store, shards) = (store.clone(), here.clone());
            async move { Ok((shard, shards.read(&store, shard).await)) }
        };
        let here = shards.clone();
        let parse = move |(shard, read)| Ok((shard, here.parse(shard, read, held, of_before)));
        let room = plan.feed.rooms.group();
        let flow = run.source("feature shards", wanted).io("open features", room, read);
        let (mut missing, mut damaged) = (Vec::new(), 0);
        for (shard, opened) in flow.compute("parse features", room, parse).collect().await? {
            match opened {
                Opened::Whole(of_shard) => drop(groups.insert(shard, of_shard)),
                Opened::Missing => missing.push(shard),
                Opened::Damaged => {
                    missing.push(shard);
                    damaged += 1;
                }
            }
        }
        if damaged > 0 {
            let place = self.store.location();
            note(&format!("{damaged} files of features in {place} are damaged, and are computed again"));
        }
        Ok(missing)
    }

    /// The batches of a pass after its first `done`, in the order of the images.
    pub(super) fn batches(
        self: &Arc<Features>,
        run: &Run,
        plan: &TrainPlan,
        pass: Pass,
        done: u64,
    ) -> Flow<PassBatch<FeatureBatch>> {
        if let (Some(resampled), Some(epoch)) = (&self.resampled, pass.epoch()) {
            return resampled.batches(run, (self.shape.clone(), self.first), (epoch, done));
        }
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
                let mut ids = Vec::with_capacity(samples.len());
                let mut is_lost = false;
                for sample in samples {
                    match sample.payload {
                        Ok(Feature::Read { values, row }) => {
                            numbers.extend_from_slice(&values[row * width..(row + 1) * width]);
                            labels.push(sample.label);
                            ids.push(sample.id);
                        }
                        Ok(Feature::Lost) => is_lost = true,
                        Err(_) => {}
                    }
                }
                let shape = [&[labels.len()], &*shape].concat();
                let features = Tensor::from_vec(numbers, shape, &Device::Cpu);
                let features = features.map_err(|error| Error::failed("collate features", error))?;
                Ok(PassBatch {
                    index,
                    planned,
                    batch: FeatureBatch { features, labels, ids, first, is_lost },
                })
            })
    }

    /// The features of the rows of a part of a window.
    async fn read(&self, pass: Pass, fetch: Fetch) -> Result<WindowPart<Feature>, Error> {
        let (split, views) = match pass.epoch() {
            Some(_) => (Split::Train, self.views),
            None => (pass.split(), 1),
        };
        let epoch = pass.epoch().unwrap_or(0);
        // A group is read once for each view of it.
        let mut whole: BTreeMap<u32, Feature> = BTreeMap::new();
        let mut samples = Vec::with_capacity(fetch.rows.len());
        for (at, row) in fetch.rows {
            let view = (epoch + row.copy) % views;
            let group = &self.groups[&self.key((split, view))][row.place.group as usize];
            let sample = group.rows[row.place.row as usize].clone();
            let payload = match sample.payload {
                Err(fault) => Err(fault),
                Ok(number) if fetch.group.is_none() => {
                    Ok(match group.row(&self.store, number, &self.shape).await {
                        Ok((values, row)) => Feature::Read { values, row },
                        Err(error) => self.lose(error)?,
                    })
                }
                Ok(number) => {
                    if let std::collections::btree_map::Entry::Vacant(entry) = whole.entry(view) {
                        entry.insert(match group.values(&self.store).await {
                            Ok(values) => Feature::Read { values, row: 0 },
                            Err(error) => self.lose(error)?,
                        });
                    }
                    Ok(match &whole[&view] {
                        Feature::Read { values, .. } => Feature::Read { values: values.clone(), row: number },
                        Feature::Lost => Feature::Lost,
                    })
                }
            };
            let copy = sample.copy + row.copy;
            samples.push((at, Sample { id: sample.id, copy, label: sample.label, payload }));
        }
        Ok(WindowPart { window_rows: fetch.window_rows, samples })
    }
}
