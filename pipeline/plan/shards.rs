//! Which rows make which shard, how large it is likely to be, and how many samples pass together.

use forebay_datasets::catalog::{Catalog, Entry};
use forebay_datasets::formats::{self, DatasetFormat};
use forebay_datasets::sample::Split;
use forebay_datasets::shard::ROWS_PER_GROUP;
use forebay_stages::encode::Encoding;
use forebay_stages::resize::{Fit, Resize, Size};

/// One shard before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedShard {
    /// Its form.
    pub format: DatasetFormat,
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
        formats::key(self.format, self.split, self.index, self.count)
    }
}

/// Cuts the rows of a split into shards.
pub(super) fn cut(
    format: DatasetFormat,
    split: Split,
    rows: usize,
    samples_per_shard: usize,
) -> impl Iterator<Item = PlannedShard> {
    let count = rows.div_ceil(samples_per_shard);
    (0..count).map(move |index| {
        let first = index * samples_per_shard;
        PlannedShard { format, split, index, count, first, rows: samples_per_shard.min(rows - first) }
    })
}

/// Samples per chunk where files have this size on average: about 64 KiB, and no more than a row group.
pub fn chunk_of(mean_bytes: u64) -> usize {
    ((64 << 10) / mean_bytes.max(1)).clamp(1, ROWS_PER_GROUP as u64) as usize
}

/// Samples per chunk for the files of a catalog.
pub fn chunk(catalog: &Catalog) -> usize {
    let bytes: u64 = catalog.entries().iter().map(Entry::bytes).sum();
    chunk_of(bytes / (catalog.entries().len() as u64).max(1))
}

/// The estimated bytes of one stored image. Bits per pixel of JPEG and PNG are those of photographs at 256
/// pixels and quality 90: 20.7 MB and about 100 MB per 1000. Without an encoding files are stored as they are.
pub(super) fn stored_bytes(catalog: &Catalog, resize: &Resize, encoding: Option<Encoding>) -> u64 {
    let files: u64 = catalog.entries().iter().map(Entry::bytes).sum();
    let mean = files / (catalog.entries().len() as u64).max(1);
    let pixels = match (resize.size, resize.fit) {
        (Size::Side(side), Fit::Shortest) => u64::from(side) * u64::from(side) * 4 / 3,
        (Size::Side(side), _) => u64::from(side) * u64::from(side),
        // Photographs take about 2 to 4 bits a pixel.
        (Size::Original, _) => mean * 8 / 3,
    };
    200 + match encoding {
        None => mean,
        Some(Encoding::Jpeg { .. }) => pixels * 8 / 25,
        Some(Encoding::Png) => pixels * 8 / 5,
        Some(Encoding::Raw) => pixels * 3 + 15,
    }
}
