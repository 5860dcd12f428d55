//! The files of cached features: what they are called, how they are written, and that only whole ones are taken.
//!
//! A shard is a safetensors file with one tensor `features` of the rows that could be decoded and, written after it, a
//! record: a JSON file that says which rows these are, with a checksum of the features of each group and one of itself.
//! What is missing, cut, flipped or of another version of the format is made anew, and never taken.

use std::sync::Arc;

use bytes::Bytes;
use forebay_datasets::sample::{Sample, Split};
use forebay_datasets::shard::Reject;
use forebay_datasets::store::{Store, StoreError};
use forebay_train::features_file;
use serde::{Deserialize, Serialize};

use crate::flow::Error;
use crate::train::error::train_error;

/// Raised when the files come to mean something else; it is part of the name of their folder.
pub(super) const FORMAT: u32 = 3;

/// Why the features of a run cannot be had.
pub(super) enum Failure {
    /// The cache cannot be read or written, for this reason: the run can go on without it.
    Cache(String),
    /// The run cannot go on.
    Run(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Run(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Cache(error.to_string())
    }
}

/// What a shard says of its rows.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// Shape of the features of a row.
    pub(super) shape: Vec<usize>,
    pub(super) groups: Vec<GroupRecord>,
    /// BLAKE3 of the record with nothing here.
    seal: String,
}

/// The rows of a group, and what their features are.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct GroupRecord {
    pub(super) rows: Vec<Row>,
    /// BLAKE3 of the features of the rows that have some, as bytes.
    pub(super) blake3: String,
}

// A field of another name would be one that is not there.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) copy: u32,
    pub(super) label: u32,
    /// Why the image has no features; `None` where it has some.
    pub(super) fault: Option<Reject>,
}

impl Row {
    /// The row of a sample, of which the features follow those of the row before it unless it is a tombstone.
    pub(super) fn of(sample: &Sample<()>) -> Row {
        let fault = sample.payload.as_ref().err();
        Row {
            id: sample.id.to_string(),
            copy: sample.copy,
            label: sample.label,
            fault: fault.map(|fault| Reject::new(&sample.id, fault)),
        }
    }

    pub(super) fn has_features(&self) -> bool {
        self.fault.is_none()
    }

    /// Whether the image may have features another time.
    pub(super) fn may_pass(&self) -> bool {
        self.fault.as_ref().is_some_and(Reject::may_pass)
    }
}

impl Record {
    /// A record of no groups yet.
    pub(super) fn new(shape: &[usize]) -> Record {
        Record { shape: shape.to_vec(), groups: Vec::new(), seal: String::new() }
    }

    /// Adds a group whose features are `values`.
    pub(super) fn push(&mut self, rows: Vec<Row>, values: &[f32]) {
        let mut hasher = blake3::Hasher::new();
        for value in values {
            hasher.update(&value.to_le_bytes());
        }
        self.groups.push(GroupRecord { rows, blake3: hasher.finalize().to_hex().to_string() });
    }

    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record is plain data")
    }

    fn digest(&self) -> String {
        let blank = Record { seal: String::new(), ..self.clone() };
        blake3::hash(&blank.to_json()).to_hex().to_string()
    }

    fn sealed(mut self) -> Vec<u8> {
        self.seal = self.digest();
        self.to_json()
    }

    /// Reads a record; `None` when it is not what was written.
    pub(super) fn read(bytes: &[u8]) -> Option<Record> {
        let record: Record = serde_json::from_slice(bytes).ok()?;
        (record.digest() == record.seal).then_some(record)
    }

    pub(super) fn row_bytes(&self) -> u64 {
        4 * self.shape.iter().product::<usize>() as u64
    }

    /// Where the features of each group lie in a file of `size` bytes, whose end they are; `None` when it is too small.
    pub(super) fn ranges(&self, size: u64) -> Option<Vec<std::ops::Range<u64>>> {
        let bytes = |group: &GroupRecord| {
            self.row_bytes() * group.rows.iter().filter(|row| row.has_features()).count() as u64
        };
        let all: u64 = self.groups.iter().map(bytes).sum();
        let mut end = size.checked_sub(all).filter(|start| *start > 8)?;
        let range = |group| {
            let start = end;
            end += bytes(group);
            start..end
        };
        Some(self.groups.iter().map(range).collect())
    }

    /// Whether the features of every group in `file` are those that were written.
    pub(super) fn matches(&self, file: &[u8]) -> bool {
        let Some(ranges) = self.ranges(file.len() as u64) else { return false };
        self.groups.iter().zip(ranges).all(|(group, range)| {
            blake3::hash(&file[range.start as usize..range.end as usize]).to_hex().as_str() == group.blake3
        })
    }
}

/// A group of rows of a split, and where their features are.
pub(super) struct GroupFeatures {
    /// Each with its place among the rows that have features, as payload.
    pub(super) rows: Vec<Sample<usize>>,
    place: Place,
}

enum Place {
    Memory(Arc<[f32]>),
    Store { key: Arc<str>, range: std::ops::Range<u64>, blake3: String },
}

impl GroupFeatures {
    /// The features of the rows that have some, one after the other.
    pub(super) async fn values(&self, store: &Store) -> Result<Arc<[f32]>, Error> {
        match &self.place {
            Place::Memory(values) => Ok(values.clone()),
            Place::Store { range, .. } if range.is_empty() => Ok([].into()),
            Place::Store { key, range, blake3 } => {
                let bytes = store.get_range(key, range.clone()).await?;
                match blake3::hash(&bytes).to_hex().as_str() == blake3 {
                    true => Ok(numbers(&bytes)),
                    false => Err(Error::Integrity(format!(
                        "{}/{key} was changed while the run used it",
                        store.location()
                    ))),
                }
            }
        }
    }

    /// Features among which those of the row `number` of the rows that have some are, and the place of that row among
    /// them. A row read alone has no checksum: its file was compared when it was opened.
    pub(super) async fn row(
        &self,
        store: &Store,
        number: usize,
        shape: &[usize],
    ) -> Result<(Arc<[f32]>, usize), Error> {
        let bytes = 4 * shape.iter().product::<usize>() as u64;
        match &self.place {
            Place::Memory(values) => Ok((values.clone(), number)),
            Place::Store { key, range, .. } => {
                let start = range.start + number as u64 * bytes;
                let bytes = store.get_range(key, start..start + bytes).await?;
                Ok((numbers(&bytes), 0))
            }
        }
    }
}

/// Little-endian numbers, as safetensors files hold them.
pub(super) fn numbers(bytes: &[u8]) -> Arc<[f32]> {
    let (values, _) = bytes.as_chunks::<4>();
    values.iter().map(|value| f32::from_le_bytes(*value)).collect()
}

/// Where the shards of a pass lie.
#[derive(Clone)]
pub(super) struct FeatureShards {
    /// The folder of everything made of the same images.
    pub(super) images: String,
    pub(super) prefix: String,
    /// Planned rows of each group.
    pub(super) sizes: Vec<usize>,
    /// Groups of a shard.
    pub(super) groups: usize,
    pub(super) pass: (Split, u32),
    /// Shape of the features of a row.
    pub(super) shape: Arc<[usize]>,
}

/// What became of reading a shard.
pub(super) enum Opened {
    Whole(Vec<GroupFeatures>),
    Missing,
    Damaged,
}

impl FeatureShards {
    pub(super) fn shards(&self) -> usize {
        self.sizes.len().div_ceil(self.groups)
    }

    pub(super) fn groups_of(&self, shard: usize) -> std::ops::Range<usize> {
        shard * self.groups..((shard + 1) * self.groups).min(self.sizes.len())
    }

    fn file(&self, shard: usize) -> String {
        format!("{}{shard:05}.safetensors", self.prefix)
    }

    fn record(&self, shard: usize) -> String {
        format!("{}{shard:05}.json", self.prefix)
    }

    /// Writes a shard: the features, and then the record, without which they do not count.
    pub(super) async fn write(
        &self,
        store: &Store,
        shard: usize,
        values: &[f32],
        record: Record,
    ) -> Result<(), Failure> {
        let file = features_file(values, &record.shape);
        let file = file.map_err(|error| train_error("write the features", error))?;
        store.put(&self.file(shard), file.into()).await?;
        store.put(&self.record(shard), record.sealed().into()).await?;
        Ok(())
    }

    /// Reads a shard as it lies in the store: its record and its features, where they are there.
    pub(super) async fn read(&self, store: &Store, shard: usize) -> Option<(Bytes, Bytes)> {
        // The record is written last. What cannot be read is made anew, and if that cannot be written, it is said.
        let record = store.get(&self.record(shard)).await.ok()?;
        let file = store.get(&self.file(shard)).await.unwrap_or_default();
        Some((record, file))
    }

    /// The groups of a shard, if record and features are what was written for it; with `held`, in memory. One `of_before`
    /// this run that lacks images which may be readable by now is none.
    pub(super) fn parse(
        &self,
        shard: usize,
        read: Option<(Bytes, Bytes)>,
        held: bool,
        of_before: bool,
    ) -> Opened {
        let Some((record, file)) = read else { return Opened::Missing };
        let sizes = &self.sizes[self.groups_of(shard)];
        let is_ours = |record: &Record| {
            record.shape == *self.shape
                && record.groups.iter().map(|group| group.rows.len()).eq(sizes.iter().copied())
                && record.matches(&file)
        };
        let Some(record) = Record::read(&record).filter(is_ours) else { return Opened::Damaged };
        if of_before && record.groups.iter().flat_map(|group| &group.rows).any(Row::may_pass) {
            return Opened::Missing;
        }
        let key: Arc<str> = self.file(shard).into();
        let ranges = record.ranges(file.len() as u64).expect("the file matches the record");
        let groups = record.groups.into_iter().zip(ranges).map(|(group, range)| {
            let mut count = 0;
            let sample = |row: Row| {
                let payload = match row.fault {
                    None => Ok(count),
                    Some(reject) => Err(reject.into_fault().1),
                };
                count += usize::from(payload.is_ok());
                Sample { id: row.id.into(), copy: row.copy, label: row.label, payload }
            };
            let rows = group.rows.into_iter().map(sample).collect();
            let place = match held {
                true => Place::Memory(numbers(&file[range.start as usize..range.end as usize])),
                false => Place::Store { key: key.clone(), range, blake3: group.blake3 },
            };
            GroupFeatures { rows, place }
        });
        Opened::Whole(groups.collect())
    }
}

#[cfg(test)]
mod tests {
    use forebay_datasets::sample::Fault;

    use super::*;

    fn shards() -> FeatureShards {
        FeatureShards {
            images: String::new(),
            prefix: "x-".into(),
            sizes: vec![2, 1],
            groups: 2,
            pass: (Split::Train, 0),
            shape: [2].into(),
        }
    }

    fn row(id: &str, fault: Option<&str>) -> Row {
        let payload = fault.map_or(Ok(()), |stage| Err(Fault::new(stage, "x")));
        Row::of(&Sample { id: id.into(), copy: 0, label: 1, payload })
    }

    #[test]
    fn a_shard_with_any_bit_flipped_or_any_byte_cut_is_never_taken() {
        let values = [1.0, 2.0, 3.0, 4.0];
        let mut record = Record::new(&[2]);
        record.push(vec![row("a", None), row("b", Some("decode"))], &values[..2]);
        record.push(vec![row("c", None)], &values[2..]);
        let (record, file) = (record.sealed(), features_file(&values, &[2]).unwrap());
        let is_taken = |record: &[u8], file: &[u8]| {
            let read = Some((record.to_vec().into(), file.to_vec().into()));
            matches!(shards().parse(0, read, true, true), Opened::Whole(groups) if groups.len() == 2)
        };
        assert!(is_taken(&record, &file));
        for length in 0..file.len() {
            assert!(!is_taken(&record, &file[..length]), "features cut after {length}");
        }
        for bit in (file.len() - 16) * 8..file.len() * 8 {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_taken(&record, &flipped), "bit {bit} of the features");
        }
        for bit in 0..record.len() * 8 {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_taken(&flipped, &file), "bit {bit} of the record");
        }
        assert!(matches!(shards().parse(0, None, true, true), Opened::Missing));
    }

    #[test]
    fn a_shard_without_an_image_that_may_be_readable_by_now_is_of_its_own_run_only() {
        for (stage, is_taken_later) in [("decode", true), (Fault::READ, false)] {
            let values = [1.0, 2.0, 3.0, 4.0];
            let mut record = Record::new(&[2]);
            record.push(vec![row("a", None), row("b", Some(stage))], &values[..2]);
            record.push(vec![row("c", None)], &values[2..]);
            let (record, file) = (record.sealed(), features_file(&values, &[2]).unwrap());
            let opened = |of_before| {
                let read = Some((record.clone().into(), file.clone().into()));
                match shards().parse(0, read, true, of_before) {
                    Opened::Whole(groups) => {
                        Some(groups[0].rows[1].payload.clone().expect_err("it has no features"))
                    }
                    _ => None,
                }
            };
            assert_eq!(opened(false), Some(Fault::new(stage, "x")));
            assert_eq!(opened(true).is_some(), is_taken_later, "{stage}");
        }
    }
}
