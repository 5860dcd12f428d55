//! What a feed reads from: which rows there are, and how the rows of a window are read.

use std::collections::HashMap;
use std::sync::Arc;

use forebay_datasets::manifest::Manifest;
use forebay_datasets::order::{EpochRow, Window};
use forebay_datasets::sample::{Encoded, Fault, Label, Sample, SampleId, Split};
use forebay_datasets::shard::ROWS_PER_GROUP;
use futures::future::BoxFuture;

use super::kept::KeptRows;
use crate::flow::{Chunk, Error, Flow, Run};
use crate::plan::{PlannedNode, Rooms, ShorterSides};

/// Samples in groups of up to [`ROWS_PER_GROUP`] rows: images as they are, or shards. Both give the same rows for the
/// same images, and a feed cannot tell them apart.
pub trait Source: Send + Sync {
    /// Class names; a label is an index into them.
    fn classes(&self) -> &[String];

    /// Planned rows of each group of a split.
    fn groups(&self, split: Split) -> Vec<usize>;

    /// Id and label of every planned row of a split, in its order; labels are below the number of classes.
    fn labels(&self, split: Split) -> BoxFuture<'_, Result<Vec<(SampleId, Label)>, Error>>;

    /// The group of each sample that is not alone in its own.
    fn groups_of_samples(&self) -> BoxFuture<'_, Result<HashMap<SampleId, SampleId>, Error>>;

    /// The rows of a split in their order, where they are known before anything is read.
    fn known_rows(&self, split: Split) -> Option<Vec<Sample<()>>>;

    /// What of the source can be no sample, and why, sorted by id: it is in no split.
    fn rejects(&self) -> &[(SampleId, Fault)];

    /// The shorter sides of some of its images, by their headers.
    fn shorter_sides(&self) -> BoxFuture<'_, Result<ShorterSides, Error>>;

    /// Starts reading: the rows of each window in their order, in chunks. What cannot be read is a tombstone.
    fn images(self: Arc<Self>, run: &Run, reading: Reading) -> Flow<Chunk<Encoded>>;

    /// The nodes that read.
    fn nodes(&self, rooms: Rooms, window_groups: usize) -> Vec<PlannedNode>;

    /// The most memory that reading can hold, part by part: name and bytes. `window_groups` are mixed with each
    /// other, and `per_row` rows of an epoch come from one planned row on average.
    fn memory(&self, rooms: Rooms, window_groups: usize, per_row: f64) -> Vec<(&'static str, u64)>;

    /// Bytes of a stored image, on average.
    fn mean_bytes(&self) -> u64;

    /// How many bytes were read so far, in all passes.
    fn bytes_read(&self) -> u64;

    /// Samples that pass together.
    fn chunk(&self) -> usize;

    /// What the dataset says of itself, where it is one of ours.
    fn manifest(&self) -> Option<&Manifest>;

    /// What makes this dataset this dataset: samples, labels and splits.
    fn fingerprint(&self) -> String;

    /// By what the same images are known in another place: names, sizes and labels of a folder, checksums of shards.
    fn samples_fingerprint(&self) -> String;

    /// What makes its images these images, whatever their split and order.
    fn images_identity(&self) -> serde_json::Value;

    /// `shards` or `images`.
    fn kind(&self) -> &'static str;

    /// Whether it has splits of its own, by its folders, so that nothing is cut.
    fn declares_splits(&self) -> bool;

    /// What it is, as a plan says it.
    fn description(&self) -> String;
}

/// What of a source is to be read, in which order.
pub struct Reading {
    /// The splits whose rows these are, one after the other.
    pub splits: Vec<Split>,
    /// The rows, window by window.
    pub windows: Box<dyn Iterator<Item = Window> + Send>,
    /// How many groups are in a window at most.
    pub window_groups: usize,
    /// Threads and memory.
    pub rooms: Rooms,
    /// Rows that come often, which are read once.
    pub kept: Arc<KeptRows>,
}

/// Rows of one window that are read together.
pub(crate) struct Fetch {
    /// How many rows the window has.
    pub(crate) window_rows: usize,
    /// The group that is read as a whole; without one, each row is read alone.
    pub(crate) group: Option<u32>,
    /// Each with its place in the order of the window.
    pub(crate) rows: Vec<(usize, EpochRow)>,
}

impl Fetch {
    /// What makes up a window: its groups, and then the further copies of rows of others.
    pub(crate) fn of(window: Window) -> Vec<Fetch> {
        let Window { groups, rows } = window;
        let window_rows = rows.len();
        let mut whole: std::collections::HashMap<u32, Vec<(usize, EpochRow)>> =
            groups.iter().map(|&group| (group, Vec::new())).collect();
        let mut alone = Vec::new();
        for (place, row) in rows.into_iter().enumerate() {
            whole.get_mut(&row.place.group).unwrap_or(&mut alone).push((place, row));
        }
        alone.sort_by_key(|(_, row)| row.place);
        let group = |group: u32| Fetch {
            window_rows,
            group: Some(group),
            rows: whole.remove(&group).expect("a group stands in a window once"),
        };
        let mut fetches: Vec<Fetch> = groups.into_iter().map(group).collect();
        let alone = alone.chunks(ROWS_PER_GROUP);
        fetches.extend(alone.map(|rows| Fetch { window_rows, group: None, rows: rows.to_vec() }));
        fetches
    }
}
