//! The dataflow images -> batches, from shards or from an image folder through the same stages.
//!
//! An epoch is a pure function of (plan, balance, seed, epoch): see [`Epoch`]. A folder is read as if it were the
//! shards that `prepare` would write, so that folder and lossless shards give identical batches. What cannot be
//! read leaves a hole in its batch, and moves no other image.

mod alone;
mod folder;
mod folds;
mod kept;
mod pass;
mod resolve;
mod shards;
mod source;
mod unlabelled;
mod viewed;

use std::collections::BTreeSet;
use std::sync::Arc;

use forebay_datasets::order::{Epoch, EpochRow, PlannedRows, Rank, Window};
use forebay_datasets::sample::{Encoded, Fault, Label, Pixels, Sample, SampleId, Split};
use forebay_datasets::seed::{Drawn, Seed};
use forebay_datasets::shard::ROWS_PER_GROUP;
use forebay_datasets::split::TrainSamples;
use forebay_datasets::store::Store;
use forebay_stages::augment::Augment;
use forebay_stages::balance::{self, BalanceOptions, BalanceSummary};
use forebay_stages::batches::Batches;
use forebay_stages::chain::{Chain, Composed};
use forebay_stages::collate::{Batch, Collate, Dtype, Value};
use forebay_stages::decode::Decode;
use forebay_stages::group::Group;
use forebay_stages::resize::Resize;
use forebay_stages::stage::Gather;
use forebay_stages::weight::{Scales, Step};

use crate::flow::{Chunk, Error, Flow, Room, Run};
use crate::plan::{DecidedBy, PlannedNode, Rooms, changed, weighed};

pub use alone::StageAlone;
pub use folder::Folder;
use folds::HeldOut;
pub use kept::KeptRows;
pub use pass::{Pass, PassBatch, TestAccess};
pub use resolve::{OpenedSource, facts, on, problems, resolve};
pub use shards::Shards;
pub(crate) use source::Fetch;
pub use source::{Reading, Source};
pub use unlabelled::{PlannedFlow, Unlabelled};
pub use viewed::{ViewedBatch, Viewing};

/// The most groups of rows that are mixed with each other: 1600 rows. Shards are fair mixtures already, so that
/// more would cost memory and gain little.
const WINDOW_GROUPS_MAX: usize = 16;

/// What a window may take: fewer groups are mixed where images are large. It is counted in pixels of the batch,
/// so that folder, PNG and raw shards agree on the order, and whatever `--memory` says, so that a run resumes with
/// another.
const WINDOW_BYTES_MAX: usize = 64 << 20;

/// Rows that a balance repeats are kept as they are stored, in so much of the memory that decoded images may take.
const KEPT_SHARE: u64 = 4;

/// Batches that are filled or wait, of values of so many bytes: one of f32, and as many of smaller values as take no more memory.
fn batch_places(value_bytes: usize) -> usize {
    (size_of::<f32>() / value_bytes).max(1)
}

/// Batches with their places in a pass.
struct PassBatches<T: Value>(Batches<(u64, usize), T>);

impl<T: Value> Gather for PassBatches<T> {
    const NAME: &'static str = Batches::<(u64, usize), T>::NAME;
    type In = Chunk<Pixels>;
    type Out = PassBatch<Batch<T>>;

    fn take(&mut self, chunk: Chunk<Pixels>) {
        self.0.take(chunk);
    }

    fn fill(&mut self) -> Option<PassBatch<Batch<T>>> {
        let ((index, planned), batch) = self.0.fill()?;
        Some(PassBatch { index, planned, batch })
    }

    fn is_idle(&self) -> bool {
        self.0.is_idle()
    }
}

/// A source of batches, checked. It starts one flow per pass over a split.
#[derive(Clone)]
pub struct Feed {
    /// Where the bytes are.
    pub store: Store,
    /// What is there.
    pub source: Arc<dyn Source>,
    /// From the original file of an image to the tensor, what shards were prepared by among it.
    pub chain: Chain,
    /// The bytes of a row to pixels.
    pub decode: Decode,
    /// Pixels to a square of `side` pixels: what of the chain is left to do.
    pub resize: Resize,
    /// Width and height of the images of a batch, pixels.
    pub side: u32,
    /// Who decided it.
    pub side_by: DecidedBy,
    /// What happens to training images.
    pub augment: Option<Augment>,
    /// Whether each class is rare, where rare ones are changed in another way.
    is_rare: Option<Arc<[bool]>>,
    /// Images per batch.
    pub batch_size: usize,
    /// Seed of order and augmentation.
    pub seed: Seed,
    /// Threads and memory.
    pub rooms: Rooms,
    /// What the values of the batches are that are asked of it, by which their memory is counted.
    pub dtype: Dtype,
    /// The rows of each split, in the order of [`Split::ALL`]; those of training with their copies.
    planned: [PlannedRows; 3],
    /// What a cross-validation holds out, where this is one of its folds.
    held_out: Option<HeldOut>,
    /// The rows that a balance repeats, over all epochs.
    kept: Arc<KeptRows>,
    /// What makes batches of grey levels.
    collate: Collate,
}

impl Feed {
    /// A feed of what `source` holds, each row once an epoch, composed into tensors; `decode` reads a row's bytes.
    #[allow(
        clippy::too_many_arguments,
        reason = "a struct literal with two fields that follow from the others"
    )]
    pub fn new(
        store: Store,
        source: Arc<dyn Source>,
        composed: Composed,
        decode: Decode,
        augment: Option<Augment>,
        batch_size: usize,
        seed: Seed,
        rooms: Rooms,
    ) -> Feed {
        let planned = Split::ALL.map(|split| PlannedRows::new(source.groups(split)));
        let kept = Arc::default();
        let Composed { chain, resize } = composed;
        let chain = chain.decoded_again(decode.scale_used());
        let side = chain.side().expect("what a chain is composed with makes squares");
        let side_by = DecidedBy::User;
        Feed {
            store,
            source,
            chain,
            decode,
            resize,
            side,
            side_by,
            augment,
            is_rare: None,
            batch_size,
            seed,
            rooms,
            dtype: Dtype::U8,
            planned,
            held_out: None,
            kept,
            collate: Collate::levels(side),
        }
    }

    /// Class names; a label is an index into them.
    pub fn classes(&self) -> &[String] {
        self.source.classes()
    }

    /// The planned rows of a split; those of training with their copies.
    pub fn planned(&self, split: Split) -> &PlannedRows {
        &self.planned[split as usize]
    }

    /// Rows of a split before rejects; the training split with its copies.
    pub fn rows(&self, split: Split) -> u64 {
        self.planned(split).in_epoch()
    }

    /// How many samples of these splits are read, whatever the number of their copies.
    pub fn samples(&self, splits: &[Split]) -> u64 {
        splits.iter().map(|split| self.planned(*split).used()).sum()
    }

    /// Begins to count rejects, for a run that reads these splits: what can be no sample is one from the start.
    ///
    /// # Errors
    /// [`Error::TooManyRejects`] when that is more than the run may have.
    pub fn begin(&self, run: &Run, splits: &[Split]) -> Result<(), Error> {
        run.rejects().begin(self.found(splits));
        run.rejects().record(self.source.rejects().iter().map(|(id, fault)| (id, fault)))
    }

    /// The folder of images that is read; `None` where shards are.
    pub fn image_folder(&self) -> Option<&Store> {
        self.source.manifest().is_none().then_some(&self.store)
    }

    /// Samples that a run over these splits finds, those that can be none among them.
    pub fn found(&self, splits: &[Split]) -> u64 {
        self.samples(splits) + self.source.rejects().len() as u64
    }

    /// Batches of an epoch of training, and so its steps: a function of the plan, whatever can be read.
    pub fn batches_per_epoch(&self) -> u64 {
        self.epoch(Pass::train(0)).batches()
    }

    /// Looks which classes are rare, where the augmentation asks: by their training images before any balance.
    ///
    /// # Errors
    /// When the labels cannot be read, or a name is no class.
    async fn look_for_rare(&mut self) -> Result<(), Error> {
        let Some(minority) = self.augment.as_ref().and_then(|augment| augment.minority.clone()) else {
            return Ok(());
        };
        let counts = self.class_counts().await?;
        let is_rare = minority.rare(self.classes(), &counts).map_err(|problem| Error::Plan(vec![problem]))?;
        self.is_rare = Some(is_rare.into());
        Ok(())
    }

    /// Gives each training sample the copies that `options` ask for.
    ///
    /// # Errors
    /// When the labels of the shards cannot be read, or a table of targets names what is no class.
    pub async fn balance(&mut self, options: &BalanceOptions, seed: Seed) -> Result<BalanceSummary, Error> {
        let labels = self.source.labels(Split::Train).await?;
        let samples = (0..).zip(&labels).filter(|(row, _)| self.trains_on(*row));
        let samples = samples.map(|(_, (id, label))| (id, *label, Split::Train));
        let train = TrainSamples::among(samples, self.classes().len());
        let problems = options.problems_of(self.classes(), &train.counts());
        if !problems.is_empty() {
            return Err(Error::Plan(problems));
        }
        let copies = balance::copies(&train, self.classes(), options, seed);
        let summary = BalanceSummary::of(&train, self.classes(), &copies, options);
        let mut of_trained = copies.into_iter();
        let copies = (0..labels.len()).map(|row| match self.trains_on(row) {
            true => of_trained.next().expect("one for each"),
            false => 0,
        });
        let planned = PlannedRows::new(self.source.groups(Split::Train)).with_copies(copies.collect());
        self.kept =
            Arc::new(KeptRows::of(&planned, self.source.mean_bytes(), self.rooms.memory_bytes / KEPT_SHARE));
        self.planned[Split::Train as usize] = planned;
        Ok(summary)
    }

    /// How many images of each class the training split holds, `[classes]`.
    ///
    /// # Errors
    /// When a shard cannot be read, or a label is no class.
    pub async fn class_counts(&self) -> Result<Vec<u64>, Error> {
        let mut counts = vec![0; self.classes().len()];
        for (row, (_, label)) in self.source.labels(Split::Train).await?.into_iter().enumerate() {
            counts[label as usize] += u64::from(self.trains_on(row));
        }
        Ok(counts)
    }

    /// How many rows of each class an epoch of training has, copies counted, without those of these samples, `[classes]`.
    ///
    /// # Errors
    /// As [`Feed::class_counts`].
    pub async fn class_counts_without(&self, refused: &BTreeSet<SampleId>) -> Result<Vec<f64>, Error> {
        let planned = self.planned(Split::Train);
        let places = (0..planned.groups().len() as u32).flat_map(|group| planned.rows_of(group));
        let mut counts = vec![0.0; self.classes().len()];
        for (place, (id, label)) in places.zip(self.source.labels(Split::Train).await?) {
            if !refused.contains(&id) {
                counts[label as usize] += f64::from(planned.copies(place));
            }
        }
        Ok(counts)
    }

    /// How many groups of rows are mixed with each other in an epoch.
    fn window_groups(&self) -> usize {
        (WINDOW_BYTES_MAX / (ROWS_PER_GROUP * self.image_bytes())).clamp(1, WINDOW_GROUPS_MAX)
    }

    /// Whether an epoch of training is mixed in several windows, so that images that stand together in the source
    /// come together.
    pub fn is_mixed_in_windows(&self) -> bool {
        self.planned(Split::Train).groups().len() > self.window_groups()
    }

    /// Bytes of one image of a batch.
    fn image_bytes(&self) -> usize {
        self.side as usize * self.side as usize * 3
    }

    /// The most memory that a pass can hold, part by part: name and bytes.
    pub fn memory(&self) -> Vec<(&'static str, u64)> {
        let heaviest = [false, true].map(|augmented| self.scales(augmented).most().peak);
        let train = self.planned(Split::Train);
        let per_row = train.in_epoch() as f64 / (train.used() as f64).max(1.0);
        let mut parts = self.source.memory(self.rooms, self.window_groups(), per_row);
        if !self.kept.is_empty() {
            parts.push(("repeated images that are kept", self.kept.bytes_max()));
        }
        parts.push(("decoded images (memory)", heaviest.into_iter().fold(self.rooms.memory_bytes, u64::max)));
        parts.push(("buffers that threads keep", self.rooms.kept_bytes()));
        let image = self.image_bytes() as u64;
        let batch = self.batch_size as u64 * image;
        // One is in the hands of the consumer.
        let batches = batch_places(self.dtype.bytes()) as u64 + 1;
        parts.push(("batches", batches * self.dtype.bytes() as u64 * (batch + 2 * image)));
        parts
    }

    /// The order of a pass.
    pub(crate) fn epoch(&self, pass: Pass) -> Epoch {
        match pass.epoch() {
            Some(epoch) => {
                let planned = self.planned(Split::Train);
                Epoch::mixed(planned, self.window_groups(), self.batch_size, self.seed, epoch)
            }
            None => Epoch::in_order(&self.evaluated(pass.split()), self.batch_size),
        }
    }

    /// Starts one pass: batches of `[n, 3, side, side]` u8, where holes are left out.
    pub fn batches(&self, run: &Run, pass: Pass) -> Flow<PassBatch<Batch>> {
        self.batches_from(run, pass, 0, Rank::ALONE)
    }

    /// Starts one pass after its first `done` batches, of which nothing is decoded, for process `rank`: the rest of
    /// the batches follow, bit for bit, and the parts of all ranks make up each of them.
    pub fn batches_from(&self, run: &Run, pass: Pass, done: u64, rank: Rank) -> Flow<PassBatch<Batch>> {
        self.batches_by(run, pass, done, rank, self.collate.clone())
    }

    /// The same with values that are as `collate` makes them, which is of the feed's side.
    pub fn batches_by<T: Value>(
        &self,
        run: &Run,
        pass: Pass,
        done: u64,
        rank: Rank,
        collate: Collate<T>,
    ) -> Flow<PassBatch<Batch<T>>> {
        let epoch = Arc::new(self.epoch(pass));
        let window_groups = if pass.epoch().is_some() { self.window_groups() } else { 1 };
        let sizes = epoch.sizes(done, rank).map(|(index, rows)| ((index, rows), rows));
        let images = self.images(run, pass.split(), epoch.clone().windows(done, rank), window_groups);
        let batches = PassBatches(Batches::new(sizes, collate));
        self.squares(images, pass.epoch()).gather(batch_places(size_of::<T>()), batches)
    }

    /// The given groups of a split in their own order, each as its samples, rejected ones as tombstones, and the batch of
    /// the others: as they are, or augmented as in the epoch `view`.
    pub(crate) fn groups(
        &self,
        run: &Run,
        split: Split,
        groups: Vec<usize>,
        view: Option<u32>,
    ) -> Flow<(Vec<Sample<()>>, Batch)> {
        let planned = self.planned(split).clone();
        let sizes: Vec<((), usize)> = groups.iter().map(|&group| ((), planned.groups()[group])).collect();
        let windows = groups.into_iter().map(move |group| {
            let group = group as u32;
            let rows = planned.rows_of(group).map(|place| EpochRow { place, copy: 0 }).collect();
            Window { groups: vec![group], rows }
        });
        let images = self.images(run, split, windows, 1);
        // Of its own: these are as large as groups, and few come.
        let collate = Collate::levels(self.side);
        self.squares(images, view).regroup(1, Group::new(sizes)).compute(
            "collate",
            Room { slots: 1, queue: 1 },
            move |((), samples)| {
                let identity = |sample: &Sample<Pixels>| Sample {
                    id: sample.id.clone(),
                    copy: sample.copy,
                    label: sample.label,
                    payload: sample.payload.as_ref().map(drop).map_err(Clone::clone),
                };
                Ok((samples.iter().map(identity).collect(), collate.batch(samples)))
            },
        )
    }

    /// The nodes of a training pass, in the order in which an image meets them.
    pub fn nodes(&self) -> Vec<PlannedNode> {
        let mut nodes = self.source.nodes(self.rooms, self.window_groups());
        let scales = self.scales(self.augment.is_some());
        nodes.extend(PlannedNode::of_stages(&scales, &self.chain, self.rooms.compute()));
        let room = Room { slots: 1, queue: batch_places(self.dtype.bytes()) - 1 };
        nodes.push(PlannedNode::new("collate", room, format!("batches of {} planned rows", self.batch_size)));
        nodes
    }

    fn images(
        &self,
        run: &Run,
        split: Split,
        windows: impl Iterator<Item = Window> + Send + 'static,
        window_groups: usize,
    ) -> Flow<Chunk<Encoded>> {
        let kept = match split {
            Split::Train => self.kept.clone(),
            _ => Arc::default(),
        };
        let windows = Box::new(windows);
        let splits = vec![self.split_of_source(split)];
        self.source.clone().images(run, Reading { splits, windows, window_groups, rooms: self.rooms, kept })
    }

    /// How often each row of a sample comes in an epoch of training, in the order of the source.
    ///
    /// # Errors
    /// When the labels cannot be read.
    pub async fn copies_of(&self, id: &str) -> Result<Vec<u32>, Error> {
        let labels = self.source.labels(Split::Train).await?;
        let planned = self.planned(Split::Train);
        let places = (0..planned.groups().len() as u32).flat_map(|group| planned.rows_of(group));
        let rows = labels.iter().zip(places).filter(|((found, _), _)| **found == *id);
        Ok(rows.map(|(_, place)| planned.copies(place)).collect())
    }

    /// What is drawn for a training image of a row whose image decodes to `size`, in an epoch.
    ///
    /// # Errors
    /// When the image cannot pass.
    pub fn drawn(
        &self,
        (id, copy, class): (&str, u32, Label),
        epoch: u32,
        size: (u32, u32),
    ) -> Result<Vec<Drawn>, Fault> {
        self.scales(true).drawn(size, class, self.seed.draws(id, copy, epoch))
    }

    /// What makes a square of the batch's size of a file, augmented or not.
    fn scales(&self, is_augmented: bool) -> Scales {
        let augment = self.augment.as_ref().filter(|_| is_augmented);
        let made = |augment: Option<&Augment>| Step::squares(&self.resize, augment);
        let steps = Step::by_class(augment, self.is_rare.as_ref(), made);
        Scales { decode: self.decode.clone(), steps, encode: None }
    }

    /// Squares of the batch's size, augmented as in the epoch where one is given.
    fn squares(&self, images: Flow<Chunk<Encoded>>, epoch: Option<u32>) -> Flow<Chunk<Pixels>> {
        let (compute, seed) = (self.rooms.compute(), self.seed);
        let (scales, epoch) = (self.scales(epoch.is_some()), epoch.unwrap_or(0));
        let decoded =
            weighed(images, scales.clone(), self.rooms).line(compute, seed, epoch, scales.decode_seen());
        changed(decoded, scales.steps).start()
    }
}

#[cfg(test)]
mod tests;
