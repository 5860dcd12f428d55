//! The dataflow images -> shards.
//!
//! A shard is a pure function of (plan, shard index): its samples are known before anything is read, it leaves as
//! one object, and a rerun writes the same bytes. What is found finished in the destination is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use forebay_datasets::manifest::{
    CARD_KEY, ClassCount, Counts, FORMAT, MANIFEST_KEY, Manifest, PLAN_KEY, REJECTS_KEY, ShardRecord,
    SplitSummary, card, to_json,
};
use forebay_datasets::sample::{Encoded, Sample, Split};
use forebay_datasets::shard::{self, Footer, Index, ROWS_PER_GROUP, Reject, Row};
use forebay_datasets::store::Store;
use forebay_stages::augment::Augment;
use forebay_stages::encode::Stored;
use forebay_stages::group::Group;

use crate::feed::{decoded_bytes, read};
use crate::flow::{Chunk, Error, Flow, Run};
use crate::plan::{DestState, PlannedShard, PreparePlan, Rows};

/// What a run of `prepare` did.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// The manifest, as it stands in the destination.
    pub manifest: Manifest,
    /// Shards that were found finished.
    pub shards_reused: usize,
    /// Every rejected sample, as `rejects.jsonl` lists them.
    pub rejects: Vec<Reject>,
}

/// A shard on its way to the store: where it goes and what it is.
struct Packed {
    record: ShardRecord,
    footer: Footer,
    bytes: Bytes,
}

/// Runs a plan: writes what is missing of its shards, then the manifest.
///
/// # Errors
/// The first error of the run; too many rejects or nothing written end it without a manifest.
pub async fn prepare(run: &Run, plan: Arc<PreparePlan>) -> Result<Prepared, Error> {
    let finished = begin(run, &plan).await?;
    let shards_reused = finished.len();
    tracing::debug!(
        shards = plan.shards.len(),
        shards_reused,
        fingerprint = plan.fingerprint,
        "prepare begins"
    );
    let mut shards = finished;
    for split in Split::ALL {
        let missing: Vec<PlannedShard> = plan
            .shards
            .iter()
            .filter(|shard| shard.split == split && !shards.contains_key(&shard.key()))
            .copied()
            .collect();
        // Only training images are augmented: the flow of another split has no such stage.
        let augment = plan.augment.clone().filter(|_| split == Split::Train);
        let written = write_shards(run, &plan, missing, augment).await?;
        shards.extend(written.into_iter().map(|(record, footer)| (record.key.clone(), (record, footer))));
    }
    finish(run, &plan, &shards, shards_reused).await
}

/// The dataflow of one split, from planned rows to shards in the store.
async fn write_shards(
    run: &Run,
    plan: &Arc<PreparePlan>,
    shards: Vec<PlannedShard>,
    augment: Option<Augment>,
) -> Result<Vec<(ShardRecord, Footer)>, Error> {
    let rooms = plan.rooms;
    let (seed, extension) = (plan.seed, plan.extension());
    let (reader, packer, writer) = (plan.clone(), plan.clone(), plan.dest.clone());
    let ids = samples(&plan.rows, &shards, plan.chunk);
    let sizes: Vec<(PlannedShard, usize)> = shards.iter().map(|shard| (*shard, shard.rows)).collect();

    let images: Flow<Chunk<Encoded>> =
        run.source("samples", ids).io("read", rooms.read(), move |chunk| read(reader.source.clone(), chunk));
    let resized = images.weighed(decoded_bytes).stage(rooms.compute(), seed, 0, plan.decode.clone()).stage(
        rooms.compute(),
        seed,
        0,
        plan.resize.clone(),
    );
    let changed = match augment {
        Some(augment) => resized.stage(rooms.compute(), seed, 0, augment),
        None => resized,
    };
    changed
        .stage(rooms.compute(), seed, 0, plan.encode.clone())
        .regroup(1, Group::new(sizes))
        .compute("pack", rooms.shard(), move |(shard, samples)| pack(&packer, extension, shard, samples))
        .io("write", rooms.shard(), move |packed: Packed| {
            let dest = writer.clone();
            async move {
                dest.put(&packed.record.key, packed.bytes).await?;
                tracing::debug!(key = packed.record.key, bytes = packed.record.bytes, "shard written");
                Ok((packed.record, packed.footer))
            }
        })
        .collect()
        .await
}

/// The samples of the planned shards in their order, in chunks, not yet read.
fn samples(rows: &Rows, shards: &[PlannedShard], chunk: usize) -> Vec<Vec<Sample<()>>> {
    let planned =
        shards.iter().flat_map(|shard| &rows.of(shard.split)[shard.first..shard.first + shard.rows]);
    let samples: Vec<Sample<()>> = planned
        .map(|row| {
            let entry = &rows.catalog.entries[row.entry];
            Sample { id: entry.id.clone(), copy: row.copy, label: entry.label, payload: Ok(()) }
        })
        .collect();
    samples.chunks(chunk.max(1)).map(<[_]>::to_vec).collect()
}

/// Encodes the survivors of one planned shard to the bytes of its file.
fn pack(
    plan: &PreparePlan,
    extension: &str,
    shard: PlannedShard,
    samples: Vec<Sample<Stored>>,
) -> Result<Packed, Error> {
    let mut rejects = Vec::new();
    let mut groups = Vec::with_capacity(shard.rows.div_ceil(ROWS_PER_GROUP));
    let mut samples = samples.into_iter().peekable();
    while samples.peek().is_some() {
        let mut group = Vec::with_capacity(ROWS_PER_GROUP);
        for sample in samples.by_ref().take(ROWS_PER_GROUP) {
            match sample.payload {
                Ok(stored) => group.push(Row {
                    bytes: stored.bytes,
                    label: sample.label,
                    id: sample.id,
                    copy: sample.copy,
                    size: (stored.width, stored.height),
                    original_size: (stored.original_width, stored.original_height),
                }),
                Err(fault) => rejects.push(Reject::new(&sample.id, &fault)),
            }
        }
        groups.push(group);
    }
    rejects.dedup();
    let footer = Footer {
        fingerprint: plan.fingerprint.clone(),
        split: shard.split,
        index: shard.index,
        groups: vec![],
        row_groups: vec![],
        rejects,
        data_blake3: String::new(),
    };
    let key = shard.key();
    let (bytes, footer) = shard::encode(&plan.rows.catalog.classes, extension, groups, footer)
        .map_err(|error| Error::failed(format!("encode {key}"), error))?;
    let record = record(key, &bytes, &footer);
    Ok(Packed { record, footer, bytes })
}

fn record(key: String, file: &Bytes, footer: &Footer) -> ShardRecord {
    ShardRecord {
        key,
        split: footer.split,
        bytes: file.len() as u64,
        blake3: blake3::hash(file).to_hex().to_string(),
        groups: footer.groups.clone(),
    }
}

type Finished = BTreeMap<String, (ShardRecord, Footer)>;

/// Readies the destination and finds what of the plan is finished there.
async fn begin(run: &Run, plan: &Arc<PreparePlan>) -> Result<Finished, Error> {
    let dest = &plan.dest;
    if let DestState::Replace(shards) = &plan.dest_state {
        // The manifest first: without it the dataset does not exist.
        delete(dest, &[MANIFEST_KEY, CARD_KEY, REJECTS_KEY]).await?;
        let keys: Vec<&str> = shards.iter().map(String::as_str).collect();
        delete(dest, &keys).await?;
    }
    let owned = |key: &str| {
        [PLAN_KEY, MANIFEST_KEY, CARD_KEY, REJECTS_KEY].contains(&key)
            || (key.starts_with("data/") && key.ends_with(".parquet"))
    };
    dest.remove_leftovers("", owned).await?;
    if let DestState::Same { is_finished } = plan.dest_state {
        let finished = finished(run, plan).await?;
        if is_finished && finished.len() < plan.shards.len() {
            delete(dest, &[MANIFEST_KEY]).await?;
        }
        return Ok(finished);
    }
    dest.put(PLAN_KEY, Bytes::from(to_json(&plan.record()))).await?;
    Ok(Finished::new())
}

async fn delete(store: &Store, keys: &[&str]) -> Result<(), Error> {
    for key in keys {
        if store.size(key).await?.is_some() {
            store.delete(key).await?;
        }
    }
    Ok(())
}

/// Reads again the shards of this plan that are in the destination and keeps those that are whole.
async fn finished(run: &Run, plan: &Arc<PreparePlan>) -> Result<Finished, Error> {
    let present: BTreeSet<String> = plan.dest.list("data/").await?.into_iter().map(|(key, _)| key).collect();
    let candidates: Vec<PlannedShard> =
        plan.shards.iter().filter(|shard| present.contains(&shard.key())).copied().collect();
    let (store, fingerprint) = (plan.dest.clone(), plan.fingerprint.clone());
    let checked: Vec<Option<(ShardRecord, Footer)>> = run
        .source("shards", candidates)
        .io("reread", plan.rooms.shard(), move |shard: PlannedShard| {
            let store = store.clone();
            async move { Ok((shard, store.get(&shard.key()).await?)) }
        })
        .compute("checksum", plan.rooms.shard(), move |(shard, file)| Ok(whole(shard, &file, &fingerprint)))
        .collect()
        .await?;
    Ok(checked.into_iter().flatten().map(|(record, footer)| (record.key.clone(), (record, footer))).collect())
}

/// The record of a file if it is this shard of this plan and its data is what was written.
fn whole(shard: PlannedShard, file: &Bytes, fingerprint: &str) -> Option<(ShardRecord, Footer)> {
    let index = Index::of_file(file).ok()?;
    let footer = index.footer();
    let is_ours =
        footer.fingerprint == fingerprint && footer.split == shard.split && footer.index == shard.index;
    let groups = 0..footer.groups.len();
    let end = groups.map(|group| index.group_range(group).end).max().filter(|&end| end > 0).unwrap_or(4);
    let is_whole = blake3::hash(&file[..end as usize]).to_hex().as_str() == footer.data_blake3;
    (is_ours && is_whole).then(|| (record(shard.key(), file, footer), footer.clone()))
}

/// Adds up what the shards say, writes the rejects, the card and, last, the manifest.
async fn finish(
    run: &Run,
    plan: &PreparePlan,
    shards: &Finished,
    shards_reused: usize,
) -> Result<Prepared, Error> {
    let rows = &plan.rows;
    let catalog_rejects = rows.catalog.rejects.iter().map(|(id, fault)| Reject::new(id, fault));
    let mut rejects: Vec<Reject> = catalog_rejects.collect();
    // In the order of the plan, so that a resumed run lists them as an uninterrupted one does.
    let in_order = || plan.shards.iter().map(|shard| &shards[&shard.key()]);
    let mut seen = BTreeSet::new();
    for reject in in_order().flat_map(|(_, footer)| &footer.rejects) {
        if seen.insert(reject.id.clone()) {
            rejects.push(reject.clone());
        }
    }
    let found = (rows.catalog.entries.len() + rows.catalog.rejects.len()) as u64;
    let (rejected, dropped) = (rejects.len() as u64, rows.dropped());
    let counts = Counts {
        found,
        written: found - rejected - dropped,
        rejected,
        dropped,
        rows: in_order().map(|(record, _)| record.rows()).sum(),
    };
    check_rejects(plan, &counts, &rejects)?;

    let manifest = Manifest {
        format: FORMAT,
        fingerprint: plan.fingerprint.clone(),
        classes: rows.catalog.classes.clone(),
        balanced: rows.balance.classes.iter().any(|class| class.before != class.after),
        augmented: plan.augment.is_some(),
        chain: serde_json::to_value(&plan.chain).expect("a chain is plain data"),
        settings: serde_json::to_value(&plan.settings).expect("settings are plain data"),
        counts,
        splits: summaries(plan, &seen, in_order().map(|(record, _)| record)),
        shards: in_order().map(|(record, _)| record.clone()).collect(),
    };
    let lines: String = rejects
        .iter()
        .map(|reject| serde_json::to_string(reject).expect("rejects are plain data") + "\n")
        .collect();
    if let Some(interrupt) = run.interrupted() {
        return Err(Error::Interrupted(interrupt));
    }
    for (key, bytes) in [
        (REJECTS_KEY, lines.into_bytes()),
        (CARD_KEY, card(&manifest).into_bytes()),
        (MANIFEST_KEY, to_json(&manifest)),
    ] {
        plan.dest.put(key, Bytes::from(bytes)).await?;
    }
    Ok(Prepared { manifest, shards_reused, rejects })
}

/// The reject budget over the whole dataset: the shards of earlier runs and the catalog's rejects count too.
fn check_rejects(plan: &PreparePlan, counts: &Counts, rejects: &[Reject]) -> Result<(), Error> {
    let max = plan.rooms.max_rejects;
    let reasons = || {
        let lines =
            rejects.iter().map(|reject| format!("{}: {}: {}", reject.id, reject.stage, reject.reason));
        lines.take(3).collect()
    };
    if max.is_exceeded_by(counts.rejected, counts.found) {
        let (seen, rejected) = (counts.found, counts.rejected);
        return Err(Error::TooManyRejects { seen, rejected, max, reasons: reasons() });
    }
    if counts.rows == 0 {
        let reasons: Vec<String> = reasons();
        return Err(Error::NothingLeft(format!("nothing was written: {}", reasons.join("; "))));
    }
    Ok(())
}

fn summaries<'a>(
    plan: &PreparePlan,
    rejected: &BTreeSet<String>,
    shards: impl Iterator<Item = &'a ShardRecord>,
) -> Vec<SplitSummary> {
    let shards: Vec<&ShardRecord> = shards.collect();
    let (mut summaries, rows) = (Vec::new(), &plan.rows);
    for split in Split::ALL {
        let of_split = || shards.iter().filter(|shard| shard.split == split);
        let n_rows: u64 = of_split().map(|shard| shard.rows()).sum();
        if n_rows == 0 {
            continue;
        }
        let names = rows.catalog.classes.iter();
        let mut classes: Vec<ClassCount> =
            names.map(|name| ClassCount { name: name.clone(), samples: 0, rows: 0 }).collect();
        for (entry, _) in rows.catalog.entries.iter().zip(&rows.splits).filter(|(_, of)| **of == split) {
            classes[entry.label as usize].samples += 1;
        }
        for row in rows.of(split) {
            let entry = &rows.catalog.entries[row.entry];
            if !rejected.contains(&*entry.id) {
                classes[entry.label as usize].rows += 1;
            }
        }
        let bytes = of_split().map(|shard| shard.bytes).sum();
        summaries.push(SplitSummary { split, rows: n_rows, bytes, side_px: plan.side_px(split), classes });
    }
    summaries
}
