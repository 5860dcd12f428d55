//! The dataflow images -> shards, on one screen.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use forebay_datasets::catalog::Locator;
use forebay_datasets::manifest::{ShardPlan, ShardRecord};
use forebay_datasets::sample::{Encoded, Sample, Split};
use forebay_datasets::shard::{self, Footer, Index, ROWS_PER_GROUP};
use forebay_stages::augment::Augment;

use super::begin::join;
use super::pack::{Packer, Writer};
use crate::feed::{changed, read, weighed};
use crate::flow::{Chunk, Error, Flow, Run};
use crate::plan::{PlannedShard, PreparePlan, Rows};

/// What work on a range of shards came to.
#[derive(Clone, Debug, Default)]
pub struct Worked {
    /// Shards that were found finished.
    pub reused: usize,
    /// Every shard of the range, by its key.
    pub(super) shards: BTreeMap<String, (ShardRecord, Footer)>,
}

/// Makes the shards `range` of the plan (indexes into [`PreparePlan::shards`]) that are not finished in the
/// destination, whose plan this must be. Deletes nothing and needs no other worker.
///
/// # Errors
/// The first error of the run.
///
/// # Panics
/// When the range is beyond the shards of the plan.
pub async fn work(run: &Run, plan: &Arc<PreparePlan>, range: Range<usize>) -> Result<Worked, Error> {
    // Nobody replaces the plan while this worker is at it.
    let _begun = join(plan).await?;
    let wanted = &plan.shards[range];
    let mut shards = finished(run, plan, wanted).await?;
    let reused = shards.len();
    tracing::debug!(shards = wanted.len(), reused, fingerprint = plan.fingerprint, "work begins");
    for split in Split::ALL {
        let missing: Vec<PlannedShard> = wanted
            .iter()
            .filter(|shard| shard.split == split && !shards.contains_key(&shard.key()))
            .copied()
            .collect();
        // Only training images are augmented: the flow of another split has no such stage.
        let augment = plan.augment.clone().filter(|_| split == Split::Train);
        let written = write_shards(run, plan, missing, augment).await?;
        shards.extend(written.into_iter().map(|(record, footer)| (record.key.clone(), (record, footer))));
    }
    Ok(Worked { reused, shards })
}

/// The dataflow of one split, from planned rows to shards in the store.
async fn write_shards(
    run: &Run,
    plan: &Arc<PreparePlan>,
    shards: Vec<PlannedShard>,
    augment: Option<Augment>,
) -> Result<Vec<(ShardRecord, Footer)>, Error> {
    let rooms = plan.rooms;
    let (seed, reader) = (plan.seed, plan.clone());
    let packer = Mutex::new(Packer::new(plan.clone(), &shards));
    let writer = Arc::new(futures::lock::Mutex::new(Writer::new(plan.dest.clone())));
    let ids = samples(&plan.rows, &shards, plan.chunk);

    let images: Flow<Chunk<Encoded>> =
        run.source("samples", ids).io("read", rooms.read(), move |chunk| read(reader.source.clone(), chunk));
    let scales = plan.scales(augment.as_ref());
    let decoded = weighed(images, scales.clone(), rooms).stage(rooms.compute(), seed, 0, scales.decode);
    let written: Vec<Vec<(ShardRecord, Footer)>> = changed(decoded, scales.steps, rooms.compute(), seed, 0)
        .stage(rooms.compute(), seed, 0, plan.encode.clone())
        // One at a time and in order: both remember the shard that is open.
        .compute("pack", rooms.shard(), move |samples| {
            packer.lock().expect("no panic under the lock").push(samples)
        })
        .io("write", rooms.shard(), move |pieces| {
            let writer = writer.clone();
            async move { writer.lock().await.write(pieces).await }
        })
        .collect()
        .await?;
    Ok(written.into_iter().flatten().collect())
}

/// The samples of the planned shards in their order, in chunks, not yet read.
fn samples(rows: &Rows, shards: &[PlannedShard], chunk: usize) -> Vec<Vec<Sample<Locator>>> {
    let planned =
        shards.iter().flat_map(|shard| &rows.of(shard.split)[shard.first..shard.first + shard.rows]);
    let samples: Vec<Sample<Locator>> = planned.map(|row| rows.sample(row)).collect();
    samples.chunks(chunk.max(1)).map(<[_]>::to_vec).collect()
}

fn record(key: String, file: &Bytes, footer: &Footer) -> ShardRecord {
    ShardRecord {
        key,
        split: footer.split,
        fingerprint: footer.fingerprint.clone(),
        bytes: file.len() as u64,
        blake3: blake3::hash(file).to_hex().to_string(),
        groups: footer.groups.clone(),
    }
}

/// Reads again the shards of this plan that are in the destination and keeps those that are whole.
pub(super) async fn finished(
    run: &Run,
    plan: &Arc<PreparePlan>,
    wanted: &[PlannedShard],
) -> Result<BTreeMap<String, (ShardRecord, Footer)>, Error> {
    let present: BTreeSet<String> =
        plan.dest.list(shard::FOLDER).await?.into_iter().map(|(key, _)| key).collect();
    let candidates: Vec<(PlannedShard, ShardPlan)> = (wanted.iter())
        .filter(|shard| present.contains(&shard.key()))
        .map(|shard| (*shard, plan.shard_plan(shard).clone()))
        .collect();
    let store = plan.dest.clone();
    let checked: Vec<Option<(ShardRecord, Footer)>> = run
        .source("shards", candidates)
        .io("reread", plan.rooms.shard(), move |(shard, planned): (PlannedShard, ShardPlan)| {
            let store = store.clone();
            async move {
                match store.get(&planned.key).await {
                    Ok(file) => Ok(Some((shard, planned, file))),
                    Err(error) if error.loses_only_this_object() => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
        })
        .compute("checksum", plan.rooms.shard(), |found| {
            Ok(found.and_then(|(shard, planned, file)| whole(&shard, &planned, &file)))
        })
        .collect()
        .await?;
    Ok(checked.into_iter().flatten().map(|(record, footer)| (record.key.clone(), (record, footer))).collect())
}

/// The record of a file if it is this shard of this plan and its data is what was written. What cannot be read is not
/// finished.
fn whole(shard: &PlannedShard, planned: &ShardPlan, file: &Bytes) -> Option<(ShardRecord, Footer)> {
    let index = Index::of_file(file).ok()?;
    let footer = index.footer();
    let is_planned = footer.fingerprint == planned.fingerprint
        && footer.split == shard.split
        && footer.index == shard.index
        && footer.groups.len() == shard.rows.div_ceil(ROWS_PER_GROUP);
    if !is_planned {
        return None;
    }
    let groups = 0..footer.groups.len();
    let end = groups.map(|group| index.group_range(group).end).max().filter(|&end| end > 0).unwrap_or(4);
    let data = file.get(..usize::try_from(end).ok()?)?;
    let is_whole = blake3::hash(data).to_hex().as_str() == footer.data_blake3;
    is_whole.then(|| (record(planned.key.clone(), file, footer), footer.clone()))
}
