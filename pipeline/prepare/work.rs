//! The dataflow images -> shards, on one screen.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use forebay_datasets::catalog::Locator;
use forebay_datasets::formats::{self, DatasetFormat};
use forebay_datasets::manifest::ShardRecord;
use forebay_datasets::sample::{Encoded, Sample, Split};
use forebay_datasets::shard::{self, Footer, Index, ROWS_PER_GROUP, ReadError, Reject};
use forebay_datasets::store::{Store, StoreError};
use forebay_stages::augment::Augment;
use forebay_stages::encode::{Keep, Stored};

use super::begin::join;
use super::pack::{Packer, Writer};
use super::reread::{Checksums, Reread, checksums};
use crate::flow::{Chunk, Error, Flow, Run};
use crate::plan::{PlannedShard, PreparePlan, Rows};
use crate::plan::{changed, read, weighed};

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
    let _begun = join(run, plan).await?;
    let wanted = &plan.shards[range];
    // A file that could not be read then may be readable now.
    let mut shards = finished(run, plan, wanted).await?;
    shards.retain(|_, (_, footer)| !footer.rejects.iter().any(Reject::may_pass));
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
    let stored: Flow<Chunk<Stored>> = match plan.encode.clone() {
        None => images.stage(rooms.compute(), seed, 0, Keep),
        Some(encode) => {
            let scales = plan.scales(augment.as_ref());
            let decoded =
                weighed(images, scales.clone(), rooms).line(rooms.compute(), seed, 0, scales.decode_seen());
            changed(decoded, scales.steps).then(encode).start()
        }
    };
    let written: Vec<Vec<(ShardRecord, Footer)>> = stored
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

/// Reads again the shards of this plan that are in the destination and keeps those that are whole. What cannot be read
/// is not finished.
pub(super) async fn finished(
    run: &Run,
    plan: &Arc<PreparePlan>,
    wanted: &[PlannedShard],
) -> Result<BTreeMap<String, (ShardRecord, Footer)>, Error> {
    let present: BTreeMap<String, u64> = plan.dest.list(shard::FOLDER).await?.into_iter().collect();
    let candidates: Vec<(PlannedShard, u64)> =
        (wanted.iter()).filter_map(|shard| Some((*shard, *present.get(&shard.key())?))).collect();
    if candidates.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (store, planned) = (plan.dest.clone(), plan.clone());
    let found: Vec<Option<FoundShard>> = run
        .source("shards", candidates)
        .io("indexes", plan.rooms.read(), move |(shard, bytes)| {
            let (store, plan) = (store.clone(), planned.clone());
            async move {
                match of_store(&store, &plan, &shard, bytes).await {
                    Err(error) if error.loses_only_this_object() => Ok(None),
                    found => Ok(found?),
                }
            }
        })
        .collect()
        .await?;
    let (mut footers, mut files) = (BTreeMap::new(), Vec::new());
    for FoundShard { file, footer, index } in found.into_iter().flatten() {
        footers.insert(file.key.clone(), (footer, index));
        files.push(file);
    }
    let checksums = checksums(run, &plan.rooms, &plan.dest, files).await?;
    let whole = checksums.into_iter().filter_map(|(key, found)| {
        let (footer, index) = footers.remove(&key).filter(|(footer, _)| footer.data_blake3 == found.start)?;
        Some((key.clone(), (record(key, found, &footer, index), footer)))
    });
    Ok(whole.collect())
}

/// A file that says that it is a shard of this plan.
struct FoundShard {
    file: Reread,
    footer: Footer,
    /// As the manifest has it.
    index: Option<String>,
}

/// The shard that stands under the key of a planned one, if it says that it is that.
async fn of_store(
    store: &Store,
    plan: &PreparePlan,
    shard: &PlannedShard,
    bytes: u64,
) -> Result<Option<FoundShard>, StoreError> {
    let key = shard.key();
    if shard.format != DatasetFormat::Parquet {
        let footer = formats::read_footer(store, &key).await?.filter(|footer| is_of(plan, shard, footer));
        let file = Reread { key, bytes, start: bytes };
        return Ok(footer.map(|footer| FoundShard { file, footer, index: None }));
    }
    let end = match shard::read_end(store, &key, bytes).await {
        Ok(end) => end,
        Err(ReadError::Damaged(_)) => return Ok(None),
        Err(ReadError::Store(error)) => return Err(error),
    };
    let Ok(index) = Index::parse(&end, bytes) else { return Ok(None) };
    let footer = index.footer().clone();
    let groups = 0..footer.groups.len();
    // Where there is no row, there is the mark of the format.
    let start = groups.map(|group| index.group_range(group).end).max().filter(|&end| end > 0).unwrap_or(4);
    let found =
        FoundShard { file: Reread { key, bytes, start }, footer, index: Some(shard::packed_index(&end)) };
    Ok(is_of(plan, shard, &found.footer).then_some(found))
}

fn is_of(plan: &PreparePlan, shard: &PlannedShard, footer: &Footer) -> bool {
    footer.fingerprint == plan.shard_plan(shard).fingerprint
        && footer.split == shard.split
        && footer.index == shard.index
        && footer.groups.len() == shard.rows.div_ceil(ROWS_PER_GROUP)
}

fn record(key: String, found: Checksums, footer: &Footer, index: Option<String>) -> ShardRecord {
    ShardRecord {
        key,
        split: footer.split,
        fingerprint: footer.fingerprint.clone(),
        bytes: found.bytes,
        blake3: found.whole,
        groups: footer.groups.clone(),
        index,
    }
}
