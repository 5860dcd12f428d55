//! Shards as a source: read group by group, or row by row where the groups of a window would take too much memory.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use forebay_datasets::blocks::Blocks;
use forebay_datasets::manifest::{Manifest, PLAN_KEY, PlanRecord, ShardRecord};
use forebay_datasets::order::{EpochRow, RowPlace};
use forebay_datasets::sample::{Encoded, Fault, Label, Sample, SampleId, Split};
use forebay_datasets::shard::{self, GroupRows, Index, ROWS_PER_GROUP};
use forebay_datasets::store::Store;
use forebay_stages::decode::{Format, probe};
use forebay_stages::shuffle::{Shuffle, WindowPart};
use forebay_stages::stage::Regroup;
use futures::executor::block_on;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};

use super::kept::KeptRows;
use super::source::{Fetch, Reading, Source};
use crate::flow::{Chunk, Error, Flow, Room, Run, blocking, in_one_line};
use crate::plan::{self, PlannedNode, Rooms, ShorterSides};

/// Stored rows of a window that are held while they are mixed. Where groups are larger, rows are read one by one
/// in their order: these images are large, so that each is a piece that any store reads well.
pub(super) const WINDOW_BYTES_MAX: u64 = 256 << 20;

/// Chunks of mixed rows that wait.
const UNPACKED: Room = Room { slots: 1, queue: 2 };

/// Rows that are read at once within a part of a window: a store answers many requests sooner than one by one.
const ROWS_AT_ONCE: usize = 8;

/// Rows of so many bytes on average are read one by one from a local folder: they need not wait in memory for their turn. The
/// system is told of their groups before, where it takes advice, so that a disk that seeks slowly reads them in one.
const ROW_BYTES_MIN: u64 = 64 << 10;

/// Larger images are read into memory of their own: they differ in size, so that kept blocks would all become as large as
/// the largest, and decoding them takes much longer than clearing that memory.
const KEPT_BLOCK_BYTES_MAX: usize = 1 << 20;

/// What a byte of raw pixels takes beside one of a JPEG or PNG file, to be decoded: one in so many.
const RAW_LIGHTER: u64 = 16;

/// Rows that are looked at to learn how large the images are, where their preparation does not say it.
const ROWS_LOOKED_AT: usize = 16;

/// A dataset whose shards are known: where every group of rows lies.
pub struct Shards {
    store: Store,
    manifest: Manifest,
    /// The index of every shard, in the order of the manifest.
    indexes: Vec<Index>,
    window_bytes_max: u64,
    /// Bytes of a stored image, on average.
    mean_bytes: u64,
    bytes_read: AtomicU64,
    /// Those that groups are read into.
    group_blocks: Blocks<u8>,
    /// Those that rows are read into.
    row_blocks: Blocks<u8>,
}

/// What was read for a part of a window.
enum FoundRows {
    /// The bytes of a group.
    Group { shard: usize, group: usize, bytes: Bytes },
    /// Rows, in the order in which they were asked for.
    Rows(Vec<Sample<Encoded>>),
}

/// The groups of a split, and the rows that are kept.
#[derive(Clone)]
struct ShardsPass {
    /// Shard and group of each.
    groups: Arc<[(usize, usize)]>,
    kept: Arc<KeptRows>,
    known: Arc<KnownGroups>,
    /// Whether all rows of a group are read that one is read of, before it leaves the system's memory again.
    expects_groups: bool,
}

/// What is known of the rows of the groups that were begun last: rows of a few groups come in a mixed order.
struct KnownGroups {
    most: usize,
    held: Mutex<VecDeque<(GroupPlace, Arc<GroupRows>)>>,
}

/// A shard, and a group of it.
type GroupPlace = (usize, usize);

impl KnownGroups {
    fn new(most: usize) -> KnownGroups {
        KnownGroups { most, held: Mutex::default() }
    }

    fn get(&self, place: GroupPlace) -> Option<Arc<GroupRows>> {
        let held = self.held.lock().expect("no panic under the lock");
        held.iter().find(|(known, _)| *known == place).map(|(_, rows)| rows.clone())
    }

    /// Keeps what was read, and says so; `false` where another read it meanwhile.
    fn put(&self, place: GroupPlace, rows: Arc<GroupRows>) -> bool {
        let mut held = self.held.lock().expect("no panic under the lock");
        if held.iter().any(|(known, _)| *known == place) {
            return false;
        }
        held.push_back((place, rows));
        if held.len() > self.most {
            held.pop_front();
        }
        true
    }
}

impl Shards {
    /// Takes the index of every shard from the manifest. Where looking costs nothing, which is on a local disk, each is
    /// compared with the file; a bucket is asked for no shard before its rows are read, each of which has a checksum in the
    /// index.
    ///
    /// # Errors
    /// [`Error::Integrity`] when a shard is missing or not the one that the manifest lists.
    pub async fn open(store: &Store, mut manifest: Manifest) -> Result<Shards, Error> {
        let mut indexes = Vec::with_capacity(manifest.shards.len());
        for record in &mut manifest.shards {
            let place = format!("{}/{}", store.location(), record.key);
            let refuse = |why: &str| {
                Err(Error::Integrity(format!(
                    "{place} {why}; run `forebay verify`, or `forebay prepare` again"
                )))
            };
            let packed = record.index.take();
            if packed.is_none() || store.local_root().is_some() {
                match store.size(&record.key).await? {
                    None => return refuse("is missing"),
                    Some(bytes) if bytes != record.bytes => {
                        return refuse(&format!("has {bytes} bytes, the manifest says {}", record.bytes));
                    }
                    Some(_) => {}
                }
            }
            let index = match packed {
                Some(packed) => match Index::unpack(&packed, record.bytes) {
                    Ok(index) => index,
                    Err(error) => return refuse(&in_one_line(&error)),
                },
                None => shard::read_index(store, &record.key, record.bytes).await?,
            };
            let footer = index.footer();
            if footer.fingerprint != record.fingerprint || footer.groups != record.groups {
                return refuse("belongs to another dataset");
            }
            indexes.push(index);
        }
        let store = store.clone();
        let bytes_read = AtomicU64::new(0);
        let bytes: u64 = manifest.shards.iter().map(|shard| shard.bytes).sum();
        let rows: u64 = manifest.shards.iter().map(ShardRecord::rows).sum();
        let mean_bytes = bytes / rows.max(1);
        let window_bytes_max = WINDOW_BYTES_MAX;
        Ok(Shards {
            store,
            manifest,
            indexes,
            window_bytes_max,
            mean_bytes,
            bytes_read,
            group_blocks: Blocks::default(),
            row_blocks: Blocks::up_to(KEPT_BLOCK_BYTES_MAX),
        })
    }

    /// Reads rows one by one already where a window would hold more than so much.
    #[cfg(test)]
    pub(super) fn with_windows_of(self, window_bytes_max: u64) -> Shards {
        Shards { window_bytes_max, ..self }
    }

    /// Shard and group of every planned group of a split. Empty ones stay in the list: a group has its number
    /// whatever was rejected.
    fn groups_of(&self, split: Split) -> Vec<(usize, usize)> {
        let shards = self.manifest.shards.iter().enumerate().filter(|(_, shard)| shard.split == split);
        shards.flat_map(|(index, shard)| (0..shard.groups.len()).map(move |group| (index, group))).collect()
    }

    /// Stored bytes of the largest group of these.
    fn largest_group(&self, groups: &[(usize, usize)]) -> u64 {
        let bytes = |&(shard, group): &(usize, usize)| {
            let range = self.indexes[shard].group_range(group);
            range.end - range.start
        };
        groups.iter().map(bytes).max().unwrap_or(0)
    }

    /// Whether rows are read one by one.
    fn reads_rows(&self, groups: &[(usize, usize)], window_groups: usize) -> bool {
        let is_near = self.store.local_root().is_some() && self.mean_bytes >= ROW_BYTES_MIN;
        is_near || !self.fits_a_window(groups, window_groups)
    }

    /// Whether the groups of a window may be in memory at once.
    fn fits_a_window(&self, groups: &[(usize, usize)], window_groups: usize) -> bool {
        self.largest_group(groups) * window_groups as u64 <= self.window_bytes_max
    }

    /// What `read` gives, which waits for a local disk on a thread that may.
    async fn apart<R: Send + 'static>(&self, read: impl Future<Output = R> + Send + 'static) -> R {
        match self.store.local_root() {
            Some(_) => blocking(|| block_on(read)).await,
            None => read.await,
        }
    }

    /// A label that is no class is damage: every shard was written from the classes of its manifest.
    fn check_label(&self, shard: usize, id: &str, label: Label) -> Result<(), Error> {
        let classes = self.manifest.classes.len();
        if (label as usize) < classes {
            return Ok(());
        }
        Err(Error::Integrity(format!(
            "{}/{}: {id} has label {label}, but there are {classes} classes; run `forebay verify`, or `forebay \
             prepare` again",
            self.store.location(),
            self.manifest.shards[shard].key
        )))
    }

    async fn read(self: &Arc<Self>, wanted: &ShardsPass, fetch: &Fetch) -> Result<FoundRows, Error> {
        let Some(group) = fetch.group else {
            let rows = fetch.rows.iter().map(|(_, row)| *row).collect();
            return Ok(FoundRows::Rows(self.read_rows(wanted, rows).await?));
        };
        let (shard, group) = wanted.groups[group as usize];
        let range = self.indexes[shard].group_range(group);
        self.bytes_read.fetch_add(range.end - range.start, Ordering::Relaxed);
        if range.is_empty() {
            return Ok(FoundRows::Group { shard, group, bytes: Bytes::new() });
        }
        let (store, blocks) = (self.store.clone(), self.group_blocks.clone());
        let key = self.manifest.shards[shard].key.clone();
        let bytes = self.apart(async move { store.get_range_in(&key, range, &blocks).await }).await?;
        Ok(FoundRows::Group { shard, group, bytes })
    }

    async fn read_rows(
        self: &Arc<Self>,
        wanted: &ShardsPass,
        rows: Vec<EpochRow>,
    ) -> Result<Vec<Sample<Encoded>>, Error> {
        let (shards, wanted) = (self.clone(), wanted.clone());
        let read = async move {
            let (shards, wanted) = (&shards, &wanted);
            let read = rows.into_iter().map(|row| async move {
                let sample = match wanted.kept.get(row.place) {
                    Some(sample) => sample,
                    None => shards.read_row(wanted, row.place).await?,
                };
                Ok(Sample { copy: sample.copy + row.copy, ..sample })
            });
            futures::stream::iter(read).buffered(ROWS_AT_ONCE).try_collect().await
        };
        self.apart(read).await
    }

    async fn read_row(&self, wanted: &ShardsPass, place: RowPlace) -> Result<Sample<Encoded>, Error> {
        let (shard, group) = wanted.groups[place.group as usize];
        let (key, index) = (&self.manifest.shards[shard].key, &self.indexes[shard]);
        let rows = match wanted.known.get((shard, group)) {
            Some(rows) => rows,
            None => {
                let rows = Arc::new(GroupRows::read(&self.store, key, index, group).await?);
                if wanted.known.put((shard, group), rows.clone()) {
                    self.bytes_read.fetch_add(rows.bytes(), Ordering::Relaxed);
                    if wanted.expects_groups {
                        self.store.expect(key, index.group_range(group));
                    }
                }
                rows
            }
        };
        let (row, bytes) = rows.row(&self.store, key, index, place.row as usize, &self.row_blocks).await?;
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
        self.check_label(shard, &row.id, row.label)?;
        let sample = Sample::from(row);
        wanted.kept.offer(place, &sample);
        Ok(sample)
    }

    fn unpack(
        &self,
        wanted: &ShardsPass,
        fetch: Fetch,
        found: FoundRows,
    ) -> Result<WindowPart<Encoded>, Error> {
        let Fetch { window_rows, group: number, rows } = fetch;
        let (shard, group, bytes) = match found {
            FoundRows::Rows(samples) => {
                let samples = rows.into_iter().map(|(at, _)| at).zip(samples).collect();
                return Ok(WindowPart { window_rows, samples });
            }
            FoundRows::Group { shard, group, bytes } => (shard, group, bytes),
        };
        let stored = self.indexes[shard].rows(group, bytes).map_err(|error| {
            let place = self.store.name(&self.manifest.shards[shard].key);
            Error::Integrity(format!("{place}: {}", in_one_line(&error)))
        })?;
        let stored: Vec<Sample<Encoded>> = stored.into_iter().map(Sample::from).collect();
        for sample in &stored {
            self.check_label(shard, &sample.id, sample.label)?;
        }
        if !wanted.kept.is_empty() {
            let group = number.expect("a whole group was asked for");
            for (row, sample) in (0..).zip(&stored) {
                wanted.kept.offer(RowPlace { group, row }, sample);
            }
        }
        let sample = |(at, row): (usize, EpochRow)| {
            let sample = stored[row.place.row as usize].clone();
            (at, Sample { copy: sample.copy + row.copy, ..sample })
        };
        Ok(WindowPart { window_rows, samples: rows.into_iter().map(sample).collect() })
    }
}

impl Source for Shards {
    fn classes(&self) -> &[String] {
        &self.manifest.classes
    }

    fn groups(&self, split: Split) -> Vec<usize> {
        let rows = |(shard, group): (usize, usize)| self.indexes[shard].footer().groups[group];
        self.groups_of(split).into_iter().map(rows).collect()
    }

    fn labels(&self, split: Split) -> BoxFuture<'_, Result<Vec<(SampleId, Label)>, Error>> {
        async move {
            let mut labels = Vec::new();
            for (shard, (record, index)) in self.manifest.shards.iter().zip(&self.indexes).enumerate() {
                if record.split != split {
                    continue;
                }
                for (id, _, label) in shard::read_identities(&self.store, &record.key, index).await? {
                    self.check_label(shard, &id, label)?;
                    labels.push((id, label));
                }
            }
            Ok(labels)
        }
        .boxed()
    }

    fn groups_of_samples(&self) -> BoxFuture<'_, Result<HashMap<SampleId, SampleId>, Error>> {
        async move {
            // Shards that were copied without their plan are read all the same.
            let plan = self.store.find(PLAN_KEY).await?.and_then(|bytes| PlanRecord::parse(&bytes).ok());
            Ok(plan.map(|plan| plan.assignment.groups().iter().cloned().collect()).unwrap_or_default())
        }
        .boxed()
    }

    fn known_rows(&self, _split: Split) -> Option<Vec<Sample<()>>> {
        None
    }

    fn rejects(&self) -> &[(SampleId, Fault)] {
        // Those of the images that the shards were made from are in their own list.
        &[]
    }

    fn shorter_sides(&self) -> BoxFuture<'_, Result<ShorterSides, Error>> {
        async move {
            let mut headers = Vec::new();
            // The rows of a shard are a mixture, as a rule.
            let per_shard = ROWS_LOOKED_AT.div_ceil(self.indexes.len().max(1));
            for (record, index) in self.manifest.shards.iter().zip(&self.indexes).take(ROWS_LOOKED_AT) {
                let rows = index.footer().groups.first().copied().unwrap_or(0).min(per_shard);
                for row in 0..rows {
                    let (row, _) = shard::read_row(&self.store, &record.key, index, 0, row).await?;
                    headers.extend(probe(&row.bytes).ok());
                }
            }
            Ok(ShorterSides::of(headers))
        }
        .boxed()
    }

    fn images(self: Arc<Self>, run: &Run, reading: Reading) -> Flow<Chunk<Encoded>> {
        let Reading { splits, windows, window_groups, rooms, kept } = reading;
        let groups: Vec<_> = splits.iter().flat_map(|split| self.groups_of(*split)).collect();
        // Those of a window, of the one before, and of a few whose rows come again.
        let known = Arc::new(KnownGroups::new(2 * window_groups + 4));
        let expects_groups =
            self.reads_rows(&groups, window_groups) && self.fits_a_window(&groups, window_groups);
        let wanted = ShardsPass { groups: groups.into(), kept, known, expects_groups };
        let chunk = self.chunk();
        if self.reads_rows(&wanted.groups, window_groups) {
            let chunks = windows
                .flat_map(move |window| window.rows.chunks(chunk).map(<[_]>::to_vec).collect::<Vec<_>>());
            return run.source("rows", chunks).io("read", rooms.read(), move |rows| {
                let (shards, wanted) = (self.clone(), wanted.clone());
                async move { shards.read_rows(&wanted, rows).await }
            });
        }
        let (reader, to_read) = (self.clone(), wanted.clone());
        run.source("groups", windows.flat_map(Fetch::of))
            .io("read", rooms.group(), move |fetch| {
                let (shards, wanted) = (reader.clone(), to_read.clone());
                async move {
                    let found = shards.read(&wanted, &fetch).await?;
                    Ok((fetch, found))
                }
            })
            .compute("unpack", rooms.group(), move |(fetch, found)| self.unpack(&wanted, fetch, found))
            .regroup(UNPACKED.queue, Shuffle::new(chunk))
    }

    fn nodes(&self, rooms: Rooms, window_groups: usize) -> Vec<PlannedNode> {
        let groups = Split::ALL.map(|split| self.groups_of(split)).concat();
        if self.reads_rows(&groups, window_groups) {
            return vec![PlannedNode::new(
                "read",
                rooms.read(),
                format!("{}, row by row", self.store.location()),
            )];
        }
        vec![
            PlannedNode::new("read", rooms.group(), self.store.location()),
            PlannedNode::new("unpack", rooms.group(), "groups of rows"),
            PlannedNode::new(
                Shuffle::<()>::NAME,
                UNPACKED,
                format!("windows of up to {window_groups} groups"),
            ),
        ]
    }

    fn memory(&self, rooms: Rooms, window_groups: usize, per_row: f64) -> Vec<(&'static str, u64)> {
        let groups = Split::ALL.map(|split| self.groups_of(split)).concat();
        let largest = self.largest_group(&groups);
        if self.reads_rows(&groups, window_groups) {
            let read = rooms.read();
            let rows = (read.slots + read.queue + 1) as u64 * self.chunk() as u64;
            // No image is larger than all images of its row group, and those that follow each other are of two windows.
            let largest_row_group = self.indexes.iter().map(Index::largest_row_group).max().unwrap_or(0);
            let of_two_windows =
                (2.0 * window_groups as f64 * largest as f64 * per_row.max(1.0)).ceil() as u64;
            let is_within_two = rows <= (window_groups * ROWS_PER_GROUP) as u64;
            let most = if is_within_two { of_two_windows } else { u64::MAX };
            return vec![("images read and not yet decoded", most.min(rows * largest_row_group))];
        }
        let group = rooms.group();
        let window = window_groups as f64 * largest as f64 * per_row.max(1.0);
        vec![
            ("groups being read and unpacked", 2 * (group.slots + group.queue) as u64 * largest),
            ("rows in the mixing window", 2 * window.ceil() as u64),
        ]
    }

    fn mean_bytes(&self) -> u64 {
        self.mean_bytes
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    fn chunk(&self) -> usize {
        let raw = Format::Pnm.extension();
        let is_raw = |index: &Index| index.footer().extensions == [raw];
        let lighter = if self.indexes.iter().all(is_raw) { RAW_LIGHTER } else { 1 };
        plan::chunk_of(self.mean_bytes() / lighter)
    }

    fn manifest(&self) -> Option<&Manifest> {
        Some(&self.manifest)
    }

    fn fingerprint(&self) -> String {
        self.manifest.fingerprint.clone()
    }

    fn samples_fingerprint(&self) -> String {
        let mut shards = plan::Digest::default();
        self.manifest.shards.iter().for_each(|shard| shards.field(&shard.blake3));
        shards.hex()
    }

    fn images_identity(&self) -> serde_json::Value {
        self.manifest.shards.iter().map(|shard| &*shard.blake3).collect()
    }

    fn kind(&self) -> &'static str {
        "shards"
    }

    fn declares_splits(&self) -> bool {
        // Their splits are those that they were prepared with, which the options must not contradict.
        false
    }

    fn description(&self) -> String {
        format!("{} shards", self.manifest.shards.len())
    }
}
