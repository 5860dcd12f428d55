//! Images of any layout as a source: read one by one, as if they were the shards that `prepare` would write.

use std::collections::HashMap;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_datasets::catalog::Locator;
use forebay_datasets::manifest::Manifest;
use forebay_datasets::order::EpochRow;
use forebay_datasets::sample::{Encoded, Fault, Label, Sample, SampleId, Split};
use forebay_datasets::shard::ROWS_PER_GROUP;
use forebay_datasets::store::Store;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::source::{Reading, Source};
use crate::flow::{Chunk, Error, Flow, Run};
use crate::plan::read;
use crate::plan::{self, PlannedNode, PlannedRow, Rooms, Rows, ShorterSides};

/// Images of a source, planned as `prepare` would.
pub struct Folder {
    store: Store,
    rows: Rows,
    chunk: usize,
    bytes_read: AtomicU64,
}

impl Folder {
    /// The folder at the root of `store`, which holds these rows.
    pub fn new(store: Store, rows: Rows) -> Folder {
        let chunk = plan::chunk(&rows.catalog);
        Folder { store, rows, chunk, bytes_read: AtomicU64::new(0) }
    }

    /// The row of an epoch over these splits, not yet read.
    fn row(&self, splits: &[Split], row: EpochRow) -> Sample<Locator> {
        let mut group = row.place.group as usize;
        for rows in splits.iter().map(|split| self.rows.of(*split)) {
            let groups = rows.len().div_ceil(ROWS_PER_GROUP);
            if group < groups {
                // All groups of a split but the last are full.
                let sample = self.rows.sample(&rows[group * ROWS_PER_GROUP + row.place.row as usize]);
                return Sample { copy: sample.copy + row.copy, ..sample };
            }
            group -= groups;
        }
        panic!("{row:?} is no row of {splits:?}");
    }

    async fn read(&self, reading: &FolderPass, rows: Vec<EpochRow>) -> Result<Chunk<Encoded>, Error> {
        let kept = &reading.kept;
        let planned = |row: &EpochRow| self.row(&reading.splits, *row);
        let held = |row: &EpochRow| Some(Sample { copy: planned(row).copy, ..kept.get(row.place)? });
        let mut samples: Vec<Option<Sample<Encoded>>> = rows.iter().map(held).collect();
        let missing: Vec<usize> = (0..rows.len()).filter(|&at| samples[at].is_none()).collect();
        let files = missing.iter().map(|&at| planned(&rows[at])).collect();
        for (at, sample) in missing.into_iter().zip(read(self.store.clone(), files).await?) {
            let bytes = sample.payload.as_ref().map_or(0, |encoded| encoded.bytes.len() as u64);
            self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
            kept.offer(rows[at].place, &sample);
            samples[at] = Some(sample);
        }
        Ok(samples.into_iter().flatten().collect())
    }
}

/// What a pass over a folder reads.
struct FolderPass {
    splits: Vec<Split>,
    kept: Arc<super::kept::KeptRows>,
}

impl Source for Folder {
    fn classes(&self) -> &[String] {
        self.rows.catalog.classes()
    }

    fn groups(&self, split: Split) -> Vec<usize> {
        self.rows.of(split).chunks(ROWS_PER_GROUP).map(<[_]>::len).collect()
    }

    fn labels(&self, split: Split) -> BoxFuture<'_, Result<Vec<(SampleId, Label)>, Error>> {
        let label = |row: &PlannedRow| {
            let entry = &self.rows.catalog.entries()[row.entry];
            (entry.id.clone(), entry.label)
        };
        let labels = self.rows.of(split).iter().map(label).collect();
        futures::future::ready(Ok(labels)).boxed()
    }

    fn groups_of_samples(&self) -> BoxFuture<'_, Result<HashMap<SampleId, SampleId>, Error>> {
        let groups = self.rows.assignment.groups().iter().cloned().collect();
        ready(Ok(groups)).boxed()
    }

    fn known_rows(&self, split: Split) -> Option<Vec<Sample<()>>> {
        Some(self.rows.of(split).iter().map(|row| self.rows.sample(row).map(|_| Ok(()))).collect())
    }

    fn rejects(&self) -> &[(SampleId, Fault)] {
        self.rows.catalog.rejects()
    }

    fn shorter_sides(&self) -> BoxFuture<'_, Result<ShorterSides, Error>> {
        ShorterSides::look(&self.store, self.rows.catalog.entries()).boxed()
    }

    fn images(self: Arc<Self>, run: &Run, reading: Reading) -> Flow<Chunk<Encoded>> {
        let Reading { splits, windows, rooms, kept, .. } = reading;
        let chunk = self.chunk;
        // A file is read when its turn comes: a window of files need not be held.
        let chunks =
            windows.flat_map(move |window| window.rows.chunks(chunk).map(<[_]>::to_vec).collect::<Vec<_>>());
        let wanted = Arc::new(FolderPass { splits, kept });
        run.source("samples", chunks).io("read", rooms.read(), move |rows| {
            let (folder, wanted) = (self.clone(), wanted.clone());
            async move { folder.read(&wanted, rows).await }
        })
    }

    fn nodes(&self, rooms: Rooms, _window_groups: usize) -> Vec<PlannedNode> {
        vec![PlannedNode::new("read", rooms.read(), self.store.location())]
    }

    fn memory(&self, rooms: Rooms, _window_groups: usize, _per_row: f64) -> Vec<(&'static str, u64)> {
        let largest = self.rows.catalog.entries().iter().map(|entry| entry.bytes()).max().unwrap_or(0);
        let read = rooms.read();
        let chunks = (read.slots + read.queue + 1) as u64;
        let mut parts = vec![("files read and not yet decoded", chunks * self.chunk as u64 * largest)];
        let unpacked = self.rows.catalog.unpacked_bytes_max();
        parts.extend((unpacked > 0).then_some(("unpacked parts of the source", unpacked)));
        parts
    }

    fn mean_bytes(&self) -> u64 {
        let entries = self.rows.catalog.entries();
        entries.iter().map(|entry| entry.bytes()).sum::<u64>() / (entries.len() as u64).max(1)
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    fn chunk(&self) -> usize {
        self.chunk
    }

    fn manifest(&self) -> Option<&Manifest> {
        None
    }

    fn fingerprint(&self) -> String {
        plan::fingerprint(&self.rows, &Default::default())
    }

    fn samples_fingerprint(&self) -> String {
        plan::samples_fingerprint(&self.rows)
    }

    fn images_identity(&self) -> serde_json::Value {
        // Images of another folder may have the same names and sizes.
        let root = self.store.local_root().and_then(|root| root.canonicalize().ok());
        let root = root.map_or(self.store.location().to_string(), |root| root.to_string_lossy().into_owned());
        format!("{root} {}", plan::images_fingerprint(&self.rows)).into()
    }

    fn kind(&self) -> &'static str {
        "images"
    }

    fn declares_splits(&self) -> bool {
        self.rows.catalog.declares_splits()
    }

    fn description(&self) -> String {
        format!("images, {}", self.rows.catalog.layout())
    }
}
