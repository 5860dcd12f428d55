//! Features of the same images that were computed for another split of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use forebay_datasets::sample::Split;
use forebay_datasets::shard::{ROWS_PER_GROUP, Reject};
use forebay_datasets::store::Store;

use super::cache::{Failure, FeatureShards, Record, Row, numbers};
use crate::train::plan::TrainPlan;

/// The file, by its place among the others, and the bytes in it that hold the features of a row, or why it has none.
type Known = (usize, Result<std::ops::Range<u64>, Reject>);

/// A file of features of another folder.
struct Other {
    key: String,
    record: Record,
    /// Whether its features are what was written; known once they were read.
    is_whole: Option<bool>,
}

/// The files that rows are taken from, and the bytes of the last few that were read whole: rows that follow each other mostly lie
/// in the same ones.
struct Others {
    files: Vec<Other>,
    held: VecDeque<(usize, Bytes)>,
}

/// Files whose bytes are held.
const HELD_MAX: usize = 4;

/// Writes those of these shards whose rows all have features in other folders of the same images, and returns the
/// others.
pub(super) async fn gather(
    store: &Store,
    plan: &TrainPlan,
    shards: &FeatureShards,
    missing: Vec<usize>,
) -> Result<Vec<usize>, Failure> {
    let (split, view) = shards.pass;
    let Some(rows) = plan.feed.source.known_rows(plan.feed.split_of_source(split)) else {
        return Ok(missing);
    };
    let is_augmented = |split: Split| split == Split::Train && plan.feed.augment.is_some();
    // An augmented image is a function of its copy and view; one as it is, of neither.
    let copy_of = |copy: u32| if is_augmented(split) { copy } else { 0 };
    let files: BTreeMap<String, u64> = store.list(&shards.images).await?.into_iter().collect();
    let mut others: Vec<Other> = Vec::new();
    let mut known: BTreeMap<(String, u32), Known> = BTreeMap::new();
    for key in files.keys().filter(|key| key.ends_with(".json")) {
        let name = key.rsplit('/').next().unwrap_or_default();
        let is_like = match is_augmented(split) {
            true => name.starts_with(&format!("{split}-{view}-")),
            false => !(name.starts_with("train-") && plan.feed.augment.is_some()),
        };
        if !is_like {
            continue;
        }
        let Some(record) = store.get(key).await.ok().and_then(|bytes| Record::read(&bytes)) else { continue };
        let file = key.replace(".json", ".safetensors");
        let ranges = record.ranges(files.get(&file).copied().unwrap_or(0));
        let Some(ranges) = ranges.filter(|_| record.shape == *shards.shape) else { continue };
        for (group, range) in record.groups.iter().zip(ranges) {
            let mut at = range.start;
            for row in &group.rows {
                let place = match row.fault.clone() {
                    None => Ok(at..at + record.row_bytes()),
                    Some(reject) => Err(reject),
                };
                at = place.as_ref().map_or(at, |place| place.end);
                if !row.may_pass() {
                    known.insert((row.id.clone(), copy_of(row.copy)), (others.len(), place));
                }
            }
        }
        others.push(Other { key: file, record, is_whole: None });
    }
    let (mut left, mut others) = (Vec::new(), Others { files: others, held: VecDeque::new() });
    for shard in missing {
        let (mut values, mut record) = (Vec::new(), Record::new(&shards.shape));
        'groups: for group in shards.groups_of(shard) {
            let (mut of_group, from) = (Vec::new(), values.len());
            for sample in rows.iter().skip(group * ROWS_PER_GROUP).take(ROWS_PER_GROUP) {
                let place = known.get(&(sample.id.to_string(), copy_of(sample.copy)));
                let Some((other, range)) = place else { break 'groups };
                if let Ok(range) = range {
                    let Some(features) = others.row(store, *other, range).await? else { break 'groups };
                    values.extend_from_slice(&features);
                }
                of_group.push(Row {
                    id: sample.id.to_string(),
                    copy: sample.copy,
                    label: sample.label,
                    fault: range.as_ref().err().cloned(),
                });
            }
            record.push(of_group, &values[from..]);
        }
        let sizes = &shards.sizes[shards.groups_of(shard)];
        if record.groups.iter().map(|group| group.rows.len()).eq(sizes.iter().copied()) {
            shards.write(store, shard, &values, record).await?;
        } else {
            left.push(shard);
        }
    }
    Ok(left)
}

impl Others {
    /// The features of a row of a file; `None` when they are not what was written.
    async fn row(
        &mut self,
        store: &Store,
        file: usize,
        range: &std::ops::Range<u64>,
    ) -> Result<Option<Arc<[f32]>>, Failure> {
        let other = &mut self.files[file];
        if other.is_whole.is_none() {
            let bytes = store.get(&other.key).await?;
            other.is_whole = Some(other.record.matches(&bytes));
            self.held.truncate(HELD_MAX - 1);
            self.held.push_front((file, bytes));
        }
        if other.is_whole == Some(false) {
            return Ok(None);
        }
        Ok(Some(match self.held.iter().find(|(held, _)| *held == file) {
            Some((_, bytes)) => numbers(&bytes[range.start as usize..range.end as usize]),
            None => numbers(&store.get_range(&other.key, range.clone()).await?),
        }))
    }
}
