//! All shards are there: what they come to, and the manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use forebay_datasets::formats::{self, DatasetFormat, ListedShard};
use forebay_datasets::manifest::{
    AugmentRecord, BesideRecord, CARD_KEY, ClassCount, Counts, FORMAT, MANIFEST_KEY, Manifest, REJECTS_KEY,
    ShardRecord, SplitSummary, StoredFormat, card,
};
use forebay_datasets::sample::Split;
use forebay_datasets::shard::{self, Footer, ROWS_PER_GROUP, Reject, StandingShard};

use super::begin::still_ours;
use super::work::{Worked, finished};
use crate::flow::{Error, Run, kill_point};
use crate::plan::{PlannedRow, PlannedShard, PreparePlan, Rows, is_leftover};

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

type FoundShards = BTreeMap<String, (ShardRecord, Footer)>;

/// Checks that the destination holds every shard of the plan and nothing else beside them, adds up what they say,
/// decides the reject budget on the whole, and writes the rejects, the card and, last, the manifest.
///
/// Shards that `worked` knows are compared by their footers; those that other workers made are read whole.
///
/// # Errors
/// [`Error::Integrity`] when a shard is missing, is of another plan, or something stands beside them;
/// [`Error::TooManyRejects`] and [`Error::NothingLeft`] by what the whole comes to.
pub async fn commit(run: &Run, plan: &Arc<PreparePlan>, worked: &Worked) -> Result<Prepared, Error> {
    let shards = standing(run, plan, worked).await?;
    let rows = &plan.rows;
    // In the order of the plan, so that a resumed run lists rejects as an uninterrupted one does.
    let in_order: Vec<(&PlannedShard, &ShardRecord, &Footer)> = (plan.shards.iter())
        .map(|shard| (shard, &shards[&shard.key()]))
        .map(|(shard, (record, footer))| (shard, record, footer))
        .collect();
    let written = written(rows, &in_order)?;
    let mut rejects: Vec<Reject> =
        rows.catalog.rejects().iter().map(|(id, fault)| Reject::new(id, fault)).collect();
    let mut seen = BTreeSet::new();
    for reject in in_order.iter().flat_map(|(_, _, footer)| &footer.rejects) {
        // A sample of which another copy is there was written.
        if !written.contains(reject.id.as_str()) && seen.insert(reject.id.as_str()) {
            rejects.push(reject.clone());
        }
    }
    let fixed_away = plan.fixes.map_or(0, |fixes| fixes.dropped);
    let counts = Counts {
        found: rows.catalog.found() + fixed_away,
        written: written.len() as u64,
        rejected: rejects.len() as u64,
        dropped: rows.dropped() + fixed_away,
        rows: in_order.iter().map(|(_, record, _)| record.rows()).sum(),
    };
    check_counts(plan, &counts)?;
    check_rejects(plan, &counts, &rejects)?;

    let listed: Vec<ListedShard<'_>> =
        in_order.iter().map(|(_, record, footer)| listed(record, footer)).collect();
    let beside = formats::beside(plan.format, rows.catalog.classes(), &plan.kept_columns(), &listed);
    let manifest = Manifest {
        format: FORMAT,
        fingerprint: plan.fingerprint.clone(),
        classes: rows.catalog.classes().to_vec(),
        balanced: plan.was_balanced || rows.balance.classes.iter().any(|class| class.before != class.after),
        augment: plan.augment.as_ref().map(|augment| AugmentRecord {
            seed: plan.seed.0,
            changes: serde_json::to_value(augment).expect("an augmentation is plain data"),
            is_rare: plan.is_rare.as_ref().map(|is_rare| is_rare.to_vec()),
        }),
        chain: serde_json::to_value(&plan.chain).expect("a chain is plain data"),
        split_rule: rows.assignment.rule().clone(),
        row_order: rows.order,
        stored_format: match &plan.encode {
            None => StoredFormat::Kept,
            Some(encode) => encode.encoding.format(),
        },
        dataset_format: plan.format,
        settings: serde_json::to_value(&plan.settings).expect("settings are plain data"),
        fixes: plan.fixes,
        kept: plan.kept_columns(),
        counts,
        splits: summaries(plan, &in_order),
        beside: beside.iter().map(|(key, bytes)| beside_record(key, bytes)).collect(),
        shards: in_order.iter().map(|(_, record, _)| ShardRecord::clone(record)).collect(),
    };
    put(run, plan, &manifest, &beside, &rejects).await?;
    Ok(Prepared { manifest, shards_reused: worked.reused, rejects })
}

fn listed<'a>(record: &'a ShardRecord, footer: &'a Footer) -> ListedShard<'a> {
    ListedShard {
        split: record.split,
        key: &record.key,
        rows: record.rows(),
        bytes: record.bytes,
        extensions: &footer.extensions,
    }
}

fn beside_record(key: &str, bytes: &Bytes) -> BesideRecord {
    let blake3 = blake3::hash(bytes).to_hex().to_string();
    BesideRecord { key: key.to_string(), bytes: bytes.len() as u64, blake3 }
}

/// The shards of the plan, as they stand in the destination.
async fn standing(run: &Run, plan: &Arc<PreparePlan>, worked: &Worked) -> Result<FoundShards, Error> {
    let location = plan.dest.location();
    let mut sizes: BTreeMap<String, u64> = plan.dest.list(shard::FOLDER).await?.into_iter().collect();
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for planned in &plan.shards {
        let key = planned.key();
        let Some(bytes) = sizes.remove(&key) else {
            return Err(Error::Integrity(format!("{location}/{key} is missing; run it again")));
        };
        match worked.shards.get(&key) {
            Some((record, footer)) => known.push((record.clone(), footer.clone(), bytes)),
            None => unknown.push(*planned),
        }
    }
    if let Some(key) = sizes.keys().find(|key| !is_leftover(key) && !formats::is_beside(key)) {
        return Err(Error::Integrity(format!(
            "{location}/{key} stands beside the shards of this plan, and other programs would read it as one; move it \
             away and run it again"
        )));
    }
    let mut shards = finished(run, plan, &unknown).await?;
    if let Some(missing) = unknown.iter().find(|shard| !shards.contains_key(&shard.key())) {
        let key = missing.key();
        return Err(Error::Integrity(format!(
            "{location}/{key} is no whole shard of this plan; run it again"
        )));
    }
    let dest = plan.dest.clone();
    let look = move |(record, footer, bytes): (ShardRecord, Footer, u64)| {
        let dest = dest.clone();
        async move {
            let found = formats::standing(&dest, &record.key, bytes).await?;
            let is_it = matches!(&found, StandingShard::Ours(Some(found)) if *found == footer);
            match is_it && bytes == record.bytes {
                true => Ok((record.key.clone(), (record, footer))),
                false => Err(Error::Integrity(format!(
                    "{}/{} was changed by another program; run it again",
                    dest.location(),
                    record.key
                ))),
            }
        }
    };
    shards.extend(run.source("shards", known).io("footers", plan.rooms.read(), look).collect().await?);
    Ok(shards)
}

/// The samples of which a row stands in a shard, each once: the planned rows without the holes.
fn written<'a>(
    rows: &'a Rows,
    shards: &[(&PlannedShard, &ShardRecord, &Footer)],
) -> Result<BTreeSet<&'a str>, Error> {
    let mut written = BTreeSet::new();
    for (shard, record, footer) in shards {
        let mut present = vec![0; record.groups.len()];
        for (place, row) in surviving(rows, shard, footer) {
            present[place / ROWS_PER_GROUP] += 1;
            written.insert(&*rows.catalog.entries()[row.entry].id);
        }
        if present != record.groups {
            return Err(Error::Integrity(format!("{}: its holes and its rows do not add up", record.key)));
        }
    }
    Ok(written)
}

/// The planned rows of a shard that stand in it, with their places among all of its planned rows.
fn surviving<'a>(
    rows: &'a Rows,
    shard: &PlannedShard,
    footer: &'a Footer,
) -> impl Iterator<Item = (usize, &'a PlannedRow)> {
    let planned = &rows.of(shard.split)[shard.first..shard.first + shard.rows];
    planned.iter().enumerate().filter(|(place, _)| footer.holes.binary_search(place).is_err())
}

/// Samples are conserved, by three counts of which none is made from the others.
fn check_counts(plan: &PreparePlan, counts: &Counts) -> Result<(), Error> {
    let Counts { found, written, rejected, dropped, .. } = *counts;
    if written + rejected + dropped == found {
        return Ok(());
    }
    Err(Error::Integrity(format!(
        "{}: {written} written + {rejected} rejected + {dropped} dropped is not {found} found",
        plan.dest.location()
    )))
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
        let (of, rejected) = (counts.found, counts.rejected);
        return Err(Error::TooManyRejects { of, rejected, max, reasons: reasons() });
    }
    if counts.rows == 0 {
        let reasons: Vec<String> = reasons();
        let why = match reasons.is_empty() {
            true => "the balance gave no image a copy: ask for some (--balance)".to_string(),
            false => reasons.join("; "),
        };
        return Err(Error::NothingLeft(format!("nothing was written: {why}")));
    }
    Ok(())
}

fn summaries(plan: &PreparePlan, shards: &[(&PlannedShard, &ShardRecord, &Footer)]) -> Vec<SplitSummary> {
    let (mut summaries, rows) = (Vec::new(), &plan.rows);
    for split in Split::ALL {
        let of_split = || shards.iter().filter(|(shard, ..)| shard.split == split);
        let n_rows: u64 = of_split().map(|(_, record, _)| record.rows()).sum();
        if n_rows == 0 {
            continue;
        }
        let names = rows.catalog.classes().iter();
        let mut classes: Vec<ClassCount> =
            names.map(|name| ClassCount { name: name.clone(), samples: 0, rows: 0 }).collect();
        for (entry, _) in rows.catalog.entries().iter().zip(&rows.splits).filter(|(_, of)| **of == split) {
            classes[entry.label as usize].samples += 1;
        }
        for (shard, _, footer) in of_split() {
            for (_, row) in surviving(rows, shard, footer) {
                classes[rows.catalog.entries()[row.entry].label as usize].rows += 1;
            }
        }
        let bytes = of_split().map(|(_, record, _)| record.bytes).sum();
        summaries.push(SplitSummary { split, rows: n_rows, bytes, side_px: plan.side_px(split), classes });
    }
    summaries
}

/// Writes what stands beside the shards, the manifest last. Another process with the same plan may have been first:
/// its bytes are the same.
async fn put(
    run: &Run,
    plan: &PreparePlan,
    manifest: &Manifest,
    beside: &[(String, Bytes)],
    rejects: &[Reject],
) -> Result<(), Error> {
    if let Some(interrupt) = run.interrupted() {
        return Err(Error::Interrupted(interrupt));
    }
    kill_point("prepare: before the rejects");
    plan.dest.put(REJECTS_KEY, Bytes::from(Reject::to_lines(rejects))).await?;
    if plan.format == DatasetFormat::Parquet {
        plan.dest.put(CARD_KEY, Bytes::from(card(manifest))).await?;
    }
    for (key, bytes) in beside {
        plan.dest.put(key, bytes.clone()).await?;
    }
    kill_point("prepare: before the manifest");
    still_ours(plan).await?;
    let json = Bytes::from(manifest.to_bytes());
    if !plan.dest.put_new(MANIFEST_KEY, json.clone()).await?
        && plan.dest.find(MANIFEST_KEY).await? != Some(json)
    {
        return Err(Error::Integrity(format!(
            "{} holds the {MANIFEST_KEY} of another run; run it again",
            plan.dest.location()
        )));
    }
    kill_point("prepare: after the manifest");
    Ok(())
}
