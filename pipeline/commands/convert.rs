//! `forebay convert`: a dataset in another form, its image files as they are.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_datasets::catalog::{self, Catalog, Entry, LayoutKind, LayoutOptions, Locator};
use forebay_datasets::formats::{DatasetFormat, FileRow, WrittenShard, beside, is_key, shard, shard_key};
use forebay_datasets::sample::{Encoded, Fault, Sample, SampleId, Split};
use forebay_datasets::shard::Reject;
use forebay_datasets::store::Store;
use forebay_stages::decode::probe;
use indicatif::HumanCount;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::flow::{Chunk, Error, Run, blocking};
use crate::options::{self, Config, Invocation, bytes_in_words};
use crate::plan::{self, Rooms, read};
use crate::report::{Bar, Unit, say, say_json, terminal, warn, watched};

/// Bytes of the images of a shard, after which the next one begins.
const SHARD_BYTES: u64 = 64 << 20;

/// What a conversion leaves in its destination, written before its first shard and again after its last.
const RECORD_KEY: &str = "convert.json";

/// What is converted into what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ConversionRecord {
    /// The form.
    format: String,
    /// What the bytes are a function of: the samples and where the shards are cut.
    fingerprint: String,
    /// Every file of the dataset.
    files: Vec<String>,
    /// Whether all of them are there.
    is_finished: bool,
}

/// A shard to write: the samples of one split from the first to before the second.
struct PlannedFiles {
    split: Split,
    key: String,
    first: u64,
    entries: Vec<usize>,
}

/// What was converted.
struct Converted {
    shards: Vec<WrittenShard>,
    reused: usize,
    rejects: Vec<Reject>,
    catalog: Catalog,
}

/// Converts SOURCE into DEST.
///
/// # Errors
/// [`Error::Usage`] for a destination that holds something else; [`Error::TooManyRejects`]; others when a store fails.
async fn convert(
    run: &Run,
    config: &Config,
    (source, dest): (&Store, &Store),
    catalog: Catalog,
    seen: &Arc<AtomicU64>,
) -> Result<Converted, Error> {
    let format: DatasetFormat = config.choice("convert.format");
    let planned = planned(format, &catalog);
    let record = record(format, &catalog, &planned);
    let reused = begin(dest, &record, config.is_on("overwrite")).await?;
    run.rejects().begin(catalog.found());
    run.rejects().record(catalog.rejects().iter().map(|(id, fault)| (id, fault)))?;
    let classes: Arc<[String]> = catalog.classes().into();
    let rooms = Rooms::of(config);
    let (mut shards, mut n_reused) = (Vec::new(), 0);
    for PlannedFiles { split, key, first, entries } in planned {
        let rows = rows(run, &rooms, source, &catalog, &entries).await?;
        seen.fetch_add(entries.len() as u64, Ordering::Relaxed);
        let (classes, place) = (classes.clone(), (split, key));
        let made = blocking(move || shard(format, &classes, place, first, rows)).await;
        let (bytes, written) = made.map_err(|line| Error::Plan(vec![line]))?;
        // A file that is there is whole, and of the same samples; what could not be read then may be there now.
        let is_there = reused.iter().any(|(key, length)| *key == written.key && *length == written.bytes);
        if is_there {
            n_reused += 1;
        } else {
            dest.put(&written.key, bytes).await?;
        }
        shards.push(written);
    }
    for (key, bytes) in beside(format, catalog.classes(), &shards) {
        dest.put(&key, bytes).await?;
    }
    let finished = ConversionRecord { is_finished: true, ..record };
    dest.put(RECORD_KEY, json_line(&finished)).await?;
    Ok(Converted { shards, reused: n_reused, rejects: run.rejects().list(), catalog })
}

fn json_line(record: &ConversionRecord) -> bytes::Bytes {
    (serde_json::to_string_pretty(record).expect("a record is plain data") + "\n").into()
}

/// The shards of a catalog: each split in the order of its ids, cut where a shard has enough bytes.
fn planned(format: DatasetFormat, catalog: &Catalog) -> Vec<PlannedFiles> {
    let mut planned = Vec::new();
    for split in Split::ALL {
        let is_of = |entry: &Entry| entry.split.unwrap_or(Split::Train) == split;
        let of_split = (0..).zip(catalog.entries()).filter(|(_, entry)| is_of(entry));
        let (mut parts, mut bytes): (Vec<Vec<usize>>, u64) = (Vec::new(), u64::MAX);
        for (index, entry) in of_split {
            if bytes >= SHARD_BYTES {
                parts.push(Vec::new());
                bytes = 0;
            }
            bytes += entry.bytes();
            parts.last_mut().expect("one was begun").push(index);
        }
        let n = parts.len();
        let mut first = 0;
        for (index, entries) in parts.into_iter().enumerate() {
            let rows = entries.len() as u64;
            planned.push(PlannedFiles { split, key: shard_key(format, split, index, n), first, entries });
            first += rows;
        }
    }
    planned
}

fn record(format: DatasetFormat, catalog: &Catalog, planned: &[PlannedFiles]) -> ConversionRecord {
    let mut hasher = blake3::Hasher::new();
    let mut add = |part: &[u8]| {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    };
    add(format.to_string().as_bytes());
    catalog.classes().iter().for_each(|class| add(class.as_bytes()));
    for PlannedFiles { key, entries, .. } in planned {
        add(key.as_bytes());
        for entry in entries.iter().map(|index| &catalog.entries()[*index]) {
            add(entry.id.as_bytes());
            add(&entry.label.to_le_bytes());
            add(&entry.bytes().to_le_bytes());
            add(entry.version.as_bytes());
        }
    }
    let empty: Vec<WrittenShard> = planned
        .iter()
        .map(|shard| {
            let (split, key) = (shard.split, shard.key.clone());
            WrittenShard { split, key, rows: 0, bytes: 0, encoding: "" }
        })
        .collect();
    let beside = beside(format, catalog.classes(), &empty).into_iter().map(|(key, _)| key);
    ConversionRecord {
        format: format.to_string(),
        fingerprint: hasher.finalize().to_hex().to_string(),
        files: planned.iter().map(|shard| shard.key.clone()).chain(beside).collect(),
        is_finished: false,
    }
}

/// Makes the destination ready: it is empty, or holds what the same conversion left, whose files are returned with their
/// bytes, or holds another conversion that is to be replaced.
async fn begin(
    dest: &Store,
    record: &ConversionRecord,
    overwrites: bool,
) -> Result<Vec<(String, u64)>, Error> {
    let location = dest.location();
    let standing = dest.list("").await?;
    let earlier = dest.find(RECORD_KEY).await?;
    let earlier = earlier.and_then(|bytes| serde_json::from_slice::<ConversionRecord>(&bytes).ok());
    match earlier {
        None if standing.is_empty() => {}
        None => {
            return Err(Error::Usage(format!(
                "DEST {location} holds {} files that no conversion wrote: give a new folder",
                standing.len()
            )));
        }
        Some(earlier) if earlier.fingerprint == record.fingerprint => return Ok(standing),
        Some(_) if !overwrites => {
            return Err(Error::Usage(format!(
                "DEST {location} holds another conversion: give a new folder, or --overwrite to replace it"
            )));
        }
        Some(earlier) => {
            // Nothing is deleted but what a conversion wrote and a conversion would call so.
            let is_there = |file: &&String| standing.iter().any(|(key, _)| key == *file);
            let files: Vec<&String> = earlier.files.iter().filter(is_there).collect();
            dest.delete(&files, is_key).await?;
        }
    }
    dest.put(RECORD_KEY, json_line(record)).await?;
    Ok(Vec::new())
}

/// The image files of some entries; what cannot be read, or is no image, is a reject.
async fn rows(
    run: &Run,
    rooms: &Rooms,
    source: &Store,
    catalog: &Catalog,
    entries: &[usize],
) -> Result<Vec<FileRow>, Error> {
    let samples = entries.iter().map(|index| {
        let entry = &catalog.entries()[*index];
        let payload = Ok(entry.locator.clone());
        Sample { id: entry.id.clone(), copy: 0, label: entry.label, payload }
    });
    let samples: Vec<Sample<Locator>> = samples.collect();
    let chunks: Vec<Vec<Sample<Locator>>> = samples.chunks(plan::chunk(catalog)).map(<[_]>::to_vec).collect();
    let store = source.clone();
    let read =
        run.source("samples", chunks).io("read", rooms.read(), move |chunk| read(store.clone(), chunk));
    let chunks: Vec<Chunk<Encoded>> = read.collect().await?;
    let mut rows = Vec::with_capacity(entries.len());
    let mut faults: Vec<(SampleId, Fault)> = Vec::new();
    for Sample { id, label, payload, .. } in chunks.into_iter().flatten() {
        let file = payload.and_then(|Encoded { bytes }| Ok((probe(&bytes)?.format.extension(), bytes)));
        match file {
            Ok((extension, bytes)) => rows.push(FileRow { id, label, bytes, extension }),
            Err(fault) => faults.push((id, fault)),
        }
    }
    run.rejects().record(faults.iter().map(|(id, fault)| (id, fault)))?;
    Ok(rows)
}

/// Runs the command.
///
/// # Errors
/// The first error of the run.
pub async fn run(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let config = &asked.config;
    let source = plan::open_source(config)?;
    let dest = plan::open(config, "dest", "DEST")?;
    if source.is_same_place(&dest) {
        let location = source.location();
        return Err(Error::Usage(format!(
            "SOURCE {location} and DEST are the same place: give another DEST"
        )));
    }
    plan::refuse_folder("DEST", &dest, Some(&source)).await?;
    let mut layout = options::layout(config);
    let (opened, asked_layout) = (source.clone(), layout.clone());
    let shards =
        run.until_stopped(move || async move { plan::shards_of(&opened, &asked_layout).await }).await?;
    if shards.is_some() {
        layout = LayoutOptions { layout: LayoutKind::Parquet, ..layout };
    }
    let listed = source.clone();
    let catalog =
        run.until_stopped(move || async move { Ok(catalog::read(&listed, &layout).await?) }).await?;
    if let Some(mistake) = catalog.mistake() {
        return Err(Error::Usage(format!("SOURCE {}: {mistake}", source.location())));
    }
    warn(catalog.warnings());
    let bar = Bar::begin("convert", catalog.entries().len() as u64, Unit::Images);
    let seen = Arc::new(AtomicU64::new(0));
    let work = convert(run, config, (&source, &dest), catalog, &seen);
    let done = watched(work, || bar.at(seen.load(Ordering::Relaxed))).await?;
    drop(bar);
    let written: u64 = done.shards.iter().map(|shard| shard.rows).sum();
    let bytes: u64 = done.shards.iter().map(|shard| shard.bytes).sum();
    let location = dest.location();
    match asked.json {
        true => say_json(&json!({
            "layout": done.catalog.layout(), "format": config.text("convert.format"), "found": done.catalog.found(),
            "written": written, "rejected": done.rejects.len(), "shards": done.shards.len(), "shards_reused": done.reused,
            "bytes": bytes, "classes": done.catalog.classes(), "rejects": done.rejects, "dest": location,
        })),
        false => {
            let mut text = String::new();
            let _ = writeln!(
                text,
                "{} found = {} written + {} rejected",
                HumanCount(done.catalog.found()),
                HumanCount(written),
                HumanCount(done.rejects.len() as u64)
            );
            let reused = match done.reused {
                0 => String::new(),
                n => format!(", {n} of them were there"),
            };
            let _ = writeln!(
                text,
                "{} shards{reused}, {}, from {}",
                done.shards.len(),
                bytes_in_words(bytes),
                done.catalog.layout()
            );
            text += &terminal::rejected(&done.rejects, "");
            let _ = writeln!(text, "written to {location}");
            say(&text);
        }
    }
    Ok(())
}
