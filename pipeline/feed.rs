//! The dataflow shards -> batches, or an image folder -> batches through the same stages.
//!
//! The order of an epoch is a pure function of (seed, epoch). A folder is read as if it were the shards that
//! `prepare` would write, so that folder and lossless shards give identical batches.

mod read;
mod resolve;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use forebay_datasets::manifest::Manifest;
use forebay_datasets::order::windows;
use forebay_datasets::sample::{Encoded, Label, Pixels, Sample, SampleId, Split};
use forebay_datasets::seed::Seed;
use forebay_datasets::shard::{self, Index, ROWS_PER_GROUP};
use forebay_datasets::split::TrainSamples;
use forebay_datasets::store::Store;
use forebay_stages::augment::Augment;
use forebay_stages::balance::{self, BalanceOptions, BalanceSummary};
use forebay_stages::collate::{Batch, collate};
use forebay_stages::group::{Batches, Group};
use forebay_stages::shuffle::Shuffle;
use forebay_stages::stage::{Regroup, Stage};

use crate::flow::{Chunk, Error, Flow, Room, Run, in_one_line};
use crate::options::Chain;
use crate::plan::{PlannedRow, Rooms, Rows};

pub(crate) use read::{decoded_bytes, read};
pub use resolve::{facts, resolve};

/// The most groups of rows that are mixed with each other: 1600 rows. Shards are fair mixtures already, so that
/// more would cost memory and gain little.
const WINDOW_GROUPS_MAX: usize = 16;

/// What a window may take: fewer groups are mixed where images are large. It is counted in pixels of the batch,
/// so that folder, PNG and raw shards agree on the order.
const WINDOW_BYTES_MAX: usize = 64 << 20;

/// Where a feed takes its images from.
#[derive(Clone)]
pub enum Origin {
    /// A dataset of shards.
    Shards(Arc<Shards>),
    /// An image folder, planned as `prepare` would.
    Folder(Arc<Rows>),
}

/// A dataset whose shards are known: where every group of rows lies.
pub struct Shards {
    /// What the dataset says of itself.
    pub manifest: Manifest,
    /// The index of every shard, in the order of the manifest.
    indexes: Vec<Index>,
}

/// A source of batches, checked. It starts one flow per pass over a split.
#[derive(Clone)]
pub struct Feed {
    /// Where the bytes are.
    pub store: Store,
    /// What is there.
    pub origin: Origin,
    /// Image bytes to a square of `side` pixels.
    pub chain: Chain,
    /// Width and height of the images of a batch, pixels.
    pub side: u32,
    /// What happens to training images.
    pub augment: Option<Augment>,
    /// Copies of each training sample, where a balance asks for other than one.
    pub copies: Option<Arc<BTreeMap<SampleId, u32>>>,
    /// Images per batch.
    pub batch_size: usize,
    /// Seed of order and augmentation.
    pub seed: Seed,
    /// Threads and memory.
    pub rooms: Rooms,
    /// Samples that pass together.
    pub chunk: usize,
}

/// One pass over a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The training split in the order of this epoch, augmented.
    Train(u32),
    /// A split in its own order, as it is.
    Evaluate(Split),
}

impl Pass {
    fn split(self) -> Split {
        match self {
            Pass::Train(_) => Split::Train,
            Pass::Evaluate(split) => split,
        }
    }

    /// The epoch whose augmentation images get; none where they are as they are.
    fn epoch(self) -> Option<u32> {
        match self {
            Pass::Train(epoch) => Some(epoch),
            Pass::Evaluate(_) => None,
        }
    }
}

impl Shards {
    /// Reads the index of every shard and compares it with the manifest.
    ///
    /// # Errors
    /// [`Error::Integrity`] when a shard is missing or not the one that the manifest lists.
    pub async fn open(store: &Store, manifest: Manifest) -> Result<Shards, Error> {
        let mut indexes = Vec::with_capacity(manifest.shards.len());
        for record in &manifest.shards {
            let place = format!("{}/{}", store.location(), record.key);
            let hint = "run `forebay verify`, or `forebay prepare` again";
            match store.size(&record.key).await? {
                None => return Err(Error::Integrity(format!("{place} is missing; {hint}"))),
                Some(bytes) if bytes != record.bytes => {
                    let expected = record.bytes;
                    let line = format!("{place} has {bytes} bytes, the manifest says {expected}; {hint}");
                    return Err(Error::Integrity(line));
                }
                Some(bytes) => {
                    let index = shard::read_index(store, &record.key, bytes).await?;
                    let footer = index.footer();
                    if footer.fingerprint != manifest.fingerprint || footer.groups != record.groups {
                        return Err(Error::Integrity(format!("{place} belongs to another dataset; {hint}")));
                    }
                    indexes.push(index);
                }
            }
        }
        Ok(Shards { manifest, indexes })
    }

    /// Every planned group of a split that holds rows: shard and group, in planned order. Empty ones stay in the
    /// list, so that the order of an epoch does not depend on rejects.
    fn groups(&self, split: Split) -> Vec<(usize, usize)> {
        let shards = self.manifest.shards.iter().enumerate().filter(|(_, shard)| shard.split == split);
        shards.flat_map(|(index, shard)| (0..shard.groups.len()).map(move |group| (index, group))).collect()
    }
}

impl Feed {
    /// Class names; a label is an index into them.
    pub fn classes(&self) -> &[String] {
        match &self.origin {
            Origin::Shards(shards) => &shards.manifest.classes,
            Origin::Folder(rows) => &rows.catalog.classes,
        }
    }

    /// Rows of a split before rejects; the training split with its copies.
    pub fn rows(&self, split: Split) -> u64 {
        if let (Split::Train, Some(copies)) = (split, &self.copies) {
            return copies.values().map(|n| u64::from(*n)).sum();
        }
        match &self.origin {
            Origin::Shards(shards) => {
                let of_split = shards.manifest.shards.iter().filter(|shard| shard.split == split);
                of_split.map(forebay_datasets::manifest::ShardRecord::rows).sum()
            }
            Origin::Folder(rows) => rows.of(split).len() as u64,
        }
    }

    /// Gives each training sample the copies that `options` ask for.
    ///
    /// # Errors
    /// When the labels of the shards cannot be read.
    pub async fn balance(&mut self, options: &BalanceOptions, seed: Seed) -> Result<BalanceSummary, Error> {
        let labels = self.training_labels().await?;
        let samples = labels.iter().map(|(id, label)| (id, *label, Split::Train));
        let train = TrainSamples::among(samples, self.classes().len());
        let copies = balance::copies(&train, options, seed);
        let summary = BalanceSummary::of(&train, &copies, options);
        self.copies = Some(Arc::new(labels.into_keys().zip(copies).collect()));
        Ok(summary)
    }

    /// The label of every image of the training split.
    async fn training_labels(&self) -> Result<BTreeMap<SampleId, Label>, Error> {
        Ok(match &self.origin {
            Origin::Folder(rows) => {
                let train = rows.of(Split::Train).iter().map(|row| &rows.catalog.entries[row.entry]);
                train.map(|entry| (entry.id.clone(), entry.label)).collect()
            }
            Origin::Shards(shards) => {
                let mut labels = BTreeMap::new();
                for (record, index) in shards.manifest.shards.iter().zip(&shards.indexes) {
                    if record.split == Split::Train {
                        let identities = shard::read_identities(&self.store, &record.key, index).await?;
                        labels.extend(identities.into_iter().map(|(id, _, label)| (id, label)));
                    }
                }
                labels
            }
        })
    }

    /// How many images of each class the training split holds, `[classes]`.
    ///
    /// # Errors
    /// When a shard cannot be read.
    pub async fn class_counts(&self) -> Result<Vec<u64>, Error> {
        let mut counts = vec![0; self.classes().len()];
        for (_, label) in self.training_labels().await? {
            counts[label as usize] += 1;
        }
        Ok(counts)
    }

    /// How many groups of rows are mixed with each other in an epoch.
    fn window_groups(&self) -> usize {
        (WINDOW_BYTES_MAX / (ROWS_PER_GROUP * self.image_bytes())).clamp(1, WINDOW_GROUPS_MAX)
    }

    /// Bytes of one image of a batch.
    fn image_bytes(&self) -> usize {
        self.side as usize * self.side as usize * 3
    }

    /// The most memory that a pass can hold, part by part: name and bytes. Rows in the mixing window are counted
    /// as raw images of the batch's size; encoded ones are smaller.
    pub fn memory(&self) -> Vec<(&'static str, u64)> {
        let group = (ROWS_PER_GROUP * self.image_bytes()) as u64;
        let batch = (self.batch_size * self.image_bytes()) as u64;
        let (read, collate) = (self.rooms.group(), self.rooms.group());
        let per_room = |room: Room| (room.slots + room.queue) as u64;
        vec![
            ("groups being read and unpacked", 2 * per_room(read) * group),
            ("rows in the mixing window", 2 * self.window_groups() as u64 * group),
            ("decoded images (memory)", self.rooms.memory_bytes),
            ("batches", (2 * per_room(collate) + 2) * batch),
        ]
    }

    /// Starts one pass: batches of `[n, 3, side, side]` u8, the last one smaller.
    pub fn batches(&self, run: &Run, pass: Pass) -> Flow<Batch> {
        self.collated(run, pass, 0, |batch, _| batch)
    }

    /// Starts one pass after the first `skip` samples of its order, which are not decoded, nor read where that
    /// can be known. With each batch comes how many samples of the order, rejected ones among them, are used up
    /// when it is: given as `skip`, the rest of the batches follow, bit for bit.
    pub fn batches_after(&self, run: &Run, pass: Pass, skip: u64) -> Flow<(Batch, u64)> {
        self.collated(run, pass, skip, |batch, used| (batch, used))
    }

    fn collated<T: Send + 'static>(
        &self,
        run: &Run,
        pass: Pass,
        skip: u64,
        finish: impl Fn(Batch, u64) -> T + Send + Sync + 'static,
    ) -> Flow<T> {
        let images = self.images(run, pass.split(), self.arrange(pass, skip));
        let side = self.side;
        self.squares(images, pass.epoch()).regroup(2, Batches::new(self.batch_size, skip)).compute(
            "collate",
            Room { slots: 2, queue: 2 },
            move |(samples, used)| Ok(finish(collate(samples, side), used)),
        )
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
        let rows = self.group_rows(split);
        let sizes: Vec<((), usize)> = groups.iter().map(|&group| ((), rows[group])).collect();
        let windows = groups.into_iter().map(|group| vec![group]).collect();
        let images = self.images(run, split, Arrangement { windows, ..Arrangement::default() });
        let side = self.side;
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
                Ok((samples.iter().map(identity).collect(), collate(samples, side)))
            },
        )
    }

    /// The rows of a split in their order, where they are known before anything is read: those of a folder.
    pub(crate) fn known_rows(&self, split: Split) -> Option<Vec<Sample<()>>> {
        match &self.origin {
            Origin::Shards(_) => None,
            Origin::Folder(rows) => Some(planned(rows, split)),
        }
    }

    /// Planned rows of each group of a split.
    pub(crate) fn group_rows(&self, split: Split) -> Vec<usize> {
        match &self.origin {
            Origin::Shards(shards) => {
                let rows = |(shard, group): (usize, usize)| shards.indexes[shard].footer().groups[group];
                shards.groups(split).into_iter().map(rows).collect()
            }
            Origin::Folder(rows) => rows.of(split).chunks(ROWS_PER_GROUP).map(<[_]>::len).collect(),
        }
    }

    /// What a pass reads after the first `skip` samples of its order, and how it mixes that.
    pub(crate) fn arrange(&self, pass: Pass, mut skip: u64) -> Arrangement {
        let rows = self.group_rows(pass.split());
        let (order, copies) = match pass {
            Pass::Train(epoch) => (Some((self.seed, epoch)), self.copies.clone()),
            Pass::Evaluate(_) => (None, None),
        };
        let mut windows = match order {
            Some((seed, epoch)) => windows(rows.len(), self.window_groups(), seed, epoch),
            // Nothing is mixed, so nothing needs to be held.
            None => (0..rows.len()).map(|group| vec![group]).collect(),
        };
        // How many rows a balance makes of a group is known when the group is read; without one, whole windows
        // need not be.
        while copies.is_none() && !windows.is_empty() {
            let rows: u64 = windows[0].iter().map(|&group| rows[group] as u64).sum();
            if rows > skip {
                break;
            }
            skip -= rows;
            windows.remove(0);
        }
        Arrangement { windows, order, copies, skip }
    }

    fn images(&self, run: &Run, split: Split, arrangement: Arrangement) -> Flow<Chunk<Encoded>> {
        match &self.origin {
            Origin::Shards(shards) => self.shard_images(run, shards, split, arrangement),
            Origin::Folder(rows) => self.folder_images(run, rows, split, arrangement),
        }
    }

    /// Squares of the batch's size, augmented as in the epoch where one is given.
    fn squares(&self, images: Flow<Chunk<Encoded>>, epoch: Option<u32>) -> Flow<Chunk<Pixels>> {
        let (compute, seed) = (self.rooms.compute(), self.seed);
        let (augment, epoch) = (self.augment.clone().filter(|_| epoch.is_some()), epoch.unwrap_or(0));
        let decoded = images.weighed(decoded_bytes).stage(compute, seed, epoch, self.chain.decode.clone());
        let resize = self.chain.resize.clone();
        let Some(augment) = augment else { return decoded.stage(compute, seed, epoch, resize) };
        // An augmentation may change the size; the batch wants squares. The margin of a crop is cut off once.
        let mut again = resize.clone();
        again.shorter_side = None;
        decoded.stage(compute, seed, epoch, resize.then(augment).then(again))
    }

    fn shard_images(
        &self,
        run: &Run,
        shards: &Arc<Shards>,
        split: Split,
        arrangement: Arrangement,
    ) -> Flow<Chunk<Encoded>> {
        let groups = shards.groups(split);
        let in_order: Vec<(usize, usize)> = arrangement.groups().map(|group| groups[group]).collect();
        let (reader, unpacker, store) = (shards.clone(), shards.clone(), self.store.clone());
        let copies = arrangement.copies.clone();
        run.source("groups", in_order)
            .io("read", self.rooms.group(), move |(shard, group): (usize, usize)| {
                let (store, shards) = (store.clone(), reader.clone());
                async move {
                    let range = shards.indexes[shard].group_range(group);
                    let bytes = if range.is_empty() {
                        Bytes::new()
                    } else {
                        let key = &shards.manifest.shards[shard].key;
                        store.get_range(key, range).await?
                    };
                    Ok((shard, group, bytes))
                }
            })
            .compute("unpack", self.rooms.group(), move |(shard, group, bytes)| {
                let rows = unpacker.indexes[shard].rows(group, bytes).map_err(|error| {
                    let key = &unpacker.manifest.shards[shard].key;
                    Error::Integrity(format!("{key}, group {group}: {}", in_one_line(&error)))
                })?;
                let samples: Vec<Sample<Encoded>> = rows.into_iter().map(Sample::from).collect();
                Ok(repeat(samples, copies.as_deref()))
            })
            .regroup(2, arrangement.shuffle(self.chunk))
    }

    fn folder_images(
        &self,
        run: &Run,
        rows: &Arc<Rows>,
        split: Split,
        arrangement: Arrangement,
    ) -> Flow<Chunk<Encoded>> {
        let planned = planned(rows, split);
        let groups: Vec<&[Sample<()>]> = planned.chunks(ROWS_PER_GROUP).collect();
        let mut shuffle = arrangement.shuffle(self.chunk);
        let mut chunks = Vec::new();
        for group in arrangement.groups() {
            shuffle.push(repeat(groups[group].to_vec(), arrangement.copies.as_deref()), &mut chunks);
        }
        let store = self.store.clone();
        run.source("samples", chunks).io("read", self.rooms.read(), move |chunk| read(store.clone(), chunk))
    }
}

/// The rows of a split of a folder in their order, not yet read.
fn planned(rows: &Rows, split: Split) -> Vec<Sample<()>> {
    let sample = |row: &PlannedRow| {
        let entry = &rows.catalog.entries[row.entry];
        Sample { id: entry.id.clone(), copy: row.copy, label: entry.label, payload: Ok(()) }
    };
    rows.of(split).iter().map(sample).collect()
}

/// Which groups of a split a pass reads, and how it mixes their rows: the same for images and for what is made of them.
#[derive(Clone, Default)]
pub(crate) struct Arrangement {
    /// Groups that are mixed with each other.
    windows: Vec<Vec<usize>>,
    /// Seed and epoch of a mixture; without them rows stay in their order.
    order: Option<(Seed, u32)>,
    /// Copies of each sample, where a balance asks for other than one.
    pub(crate) copies: Option<Arc<BTreeMap<SampleId, u32>>>,
    /// Samples of the first window that are used up.
    skip: u64,
}

impl Arrangement {
    /// The groups in the order in which they are read.
    pub(crate) fn groups(&self) -> impl Iterator<Item = usize> {
        self.windows.iter().flatten().copied()
    }

    /// What mixes them, given each group's rows.
    pub(crate) fn shuffle<P>(&self, chunk: usize) -> Shuffle<P> {
        Shuffle::new(self.windows.iter().map(Vec::len), self.order, chunk).skipping(self.skip)
    }
}

/// Repeats and drops samples as a balance asks.
pub(crate) fn repeat<P: Clone>(
    samples: Vec<Sample<P>>,
    copies: Option<&BTreeMap<SampleId, u32>>,
) -> Vec<Sample<P>> {
    let Some(copies) = copies else { return samples };
    let mut repeated = Vec::with_capacity(samples.len());
    for sample in samples {
        let n = copies.get(&sample.id).copied().unwrap_or(1);
        repeated.extend((0..n).map(|copy| Sample { copy, ..sample.clone() }));
    }
    repeated
}
