//! What is in a source: classes, sizes, formats, and every file that would be rejected, with its reason.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_datasets::catalog::{self, Catalog, Entry, Locator};
use forebay_datasets::manifest::Manifest;
use forebay_datasets::sample::{Encoded, Sample, Split};
use forebay_datasets::seed::Seed;
use forebay_datasets::shard::Reject;
use forebay_datasets::statistics::{Channels, Statistics};
use forebay_datasets::store::Store;
use forebay_stages::decode::{Decode, probe};
use forebay_stages::stage::Stage;
use forebay_stages::weight::Scales;
use indicatif::HumanCount;
use serde::Serialize;

use crate::feed::{read, weighed};
use crate::flow::{Chunk, Error, Run};
use crate::options::{self, Config, Invocation, bytes_in_words};
use crate::plan::{self, Rooms};
use crate::report::{Bar, SplitCounts, Unit, class_table, say, say_json, shifted, terminal, warn, watched};

/// What was found in an image folder.
#[derive(Clone, Debug, Serialize)]
pub struct Inspected {
    /// The layout in words.
    pub layout: String,
    /// Samples found, those that would be rejected among them.
    pub found: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Class names and their samples.
    pub classes: Vec<(String, u64)>,
    /// Samples of each class, in their order, by the split that the source declares; all under `train` where it declares
    /// none.
    pub classes_by_split: BTreeMap<Split, Vec<u64>>,
    /// Samples by the split that the source declares; all of them under `train` where it declares none.
    pub splits: BTreeMap<Split, u64>,
    /// Samples by format.
    pub formats: BTreeMap<String, u64>,
    /// Counts, sizes and channel sums of the images that decode; they merge with those of other sources.
    pub statistics: Statistics,
    /// Widths of the images that decode, pixels.
    pub width: Option<Percentiles>,
    /// Their heights, pixels.
    pub height: Option<Percentiles>,
    /// Mean of each channel over all pixels, of values from 0 to 1: what `--mean` takes.
    pub mean: [f64; 3],
    /// Standard deviation of each channel, as `--std` takes it.
    pub std: [f64; 3],
    /// Samples that would be rejected.
    pub rejects: Vec<Reject>,
    /// Files that are no samples, by extension or kind.
    pub ignored: BTreeMap<String, u64>,
    /// What a user would want to know before going on.
    pub warnings: Vec<String>,
}

/// A distribution in five numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// The least.
    pub min: u32,
    /// No more than 5 % are below it.
    pub p5: u32,
    /// No more than half are below it.
    pub median: u32,
    /// No more than 5 % are above it.
    pub p95: u32,
    /// The largest.
    pub max: u32,
}

impl Percentiles {
    /// Those of some values; `None` of none.
    fn of(mut values: Vec<u32>) -> Option<Percentiles> {
        values.sort_unstable();
        let (min, max) = (*values.first()?, *values.last()?);
        let at = |percent: usize| values[(values.len() - 1) * percent / 100];
        Some(Percentiles { min, p5: at(5), median: at(50), p95: at(95), max })
    }
}

/// What one file turned out to be: format, width, height, and the sums over its pixels.
type FoundImage = (&'static str, u32, u32, Channels);

/// Decodes every image of `catalog`, that of `store`, and tells what it found; `seen` counts them meanwhile.
///
/// # Errors
/// When the source cannot be read.
pub async fn inspect(
    run: &Run,
    config: &Config,
    store: &Store,
    catalog: Catalog,
    seen: Arc<AtomicU64>,
) -> Result<Inspected, Error> {
    let rooms = Rooms::of(config);
    let decode = Arc::new(options::decode(config, None));
    let samples: Vec<Sample<Locator>> = catalog
        .entries()
        .iter()
        .map(|entry| {
            let payload = Ok(entry.locator.clone());
            Sample { id: entry.id.clone(), copy: 0, label: entry.label, payload }
        })
        .collect();
    let chunks: Vec<Vec<Sample<Locator>>> =
        samples.chunks(plan::chunk(&catalog)).map(<[_]>::to_vec).collect();
    let source = store.clone();
    let images =
        run.source("samples", chunks).io("read", rooms.read(), move |chunk| read(source.clone(), chunk));
    let scales = Scales { decode: (*decode).clone(), steps: Vec::new(), encode: None };
    let found: Vec<Chunk<FoundImage>> = weighed(images, scales, rooms)
        .compute(Decode::NAME, rooms.compute(), move |chunk: Chunk<Encoded>| {
            seen.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            Ok(chunk.into_iter().map(|sample| look(&decode, sample)).collect())
        })
        .collect()
        .await?;
    let found: Vec<Sample<FoundImage>> = found.into_iter().flatten().collect();

    let mut classes: Vec<(String, u64)> = catalog.classes().iter().map(|name| (name.clone(), 0)).collect();
    let mut classes_by_split = BTreeMap::new();
    for entry in catalog.entries() {
        classes[entry.label as usize].1 += 1;
        let of_split = classes_by_split
            .entry(entry.split.unwrap_or(Split::Train))
            .or_insert_with(|| vec![0; catalog.classes().len()]);
        of_split[entry.label as usize] += 1;
    }
    let by_split: Vec<SplitCounts> = classes_by_split.clone().into_iter().collect();
    let mut warnings = catalog.warnings().to_vec();
    warnings.extend(catalog.mistake().map(String::from));
    warnings.extend(shifted(catalog.classes(), &by_split));
    let mut rejects: Vec<Reject> =
        catalog.rejects().iter().map(|(id, fault)| Reject::new(id, fault)).collect();
    let mut formats = BTreeMap::new();
    let mut statistics = Statistics::default();
    let (mut widths, mut heights) = (Vec::new(), Vec::new());
    for (sample, entry) in found.iter().zip(catalog.entries()) {
        match &sample.payload {
            Ok((format, width, height, channels)) => {
                *formats.entry(format.to_string()).or_insert(0) += 1;
                statistics.add_size(sample.label, *width, *height, entry.bytes());
                statistics.channels.merge(channels);
                widths.push(*width);
                heights.push(*height);
            }
            Err(fault) => rejects.push(Reject::new(&sample.id, fault)),
        }
    }
    Ok(Inspected {
        found: catalog.found(),
        bytes: catalog.entries().iter().map(Entry::bytes).sum(),
        layout: catalog.layout().to_string(),
        classes,
        splits: by_split.iter().map(|(split, counts)| (*split, counts.iter().sum())).collect(),
        classes_by_split,
        formats,
        width: Percentiles::of(widths),
        height: Percentiles::of(heights),
        mean: statistics.channels.mean(),
        std: statistics.channels.std(),
        statistics,
        rejects,
        ignored: catalog.ignored().clone(),
        warnings,
    })
}

/// Decodes a whole image, since only that tells whether it is whole, and keeps what its header says.
fn look(decode: &Decode, sample: Sample<Encoded>) -> Sample<FoundImage> {
    let draws = Seed(0).draws(&sample.id, 0, 0);
    sample.map(|encoded| {
        let format = probe(&encoded.bytes)?.format.name();
        let pixels = decode.apply(encoded, &draws)?;
        let mut channels = Channels::default();
        channels.add(&pixels.data);
        Ok((format, pixels.width, pixels.height, channels))
    })
}

/// Runs the command.
///
/// # Errors
/// The first error of the run.
pub async fn run(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let store = plan::open_source(&asked.config)?;
    let (opened, config) = (store.clone(), asked.config.clone());
    let shards = run.until_stopped(move || async move { plan::shards_of(&opened, &config).await });
    if let Some(manifest) = shards.await? {
        match asked.json {
            true => say_json(&manifest),
            false => say(&dataset(store.location(), &manifest)),
        }
        return Ok(());
    }
    let (listed, layout) = (store.clone(), options::layout(&asked.config));
    let catalog: Catalog =
        run.until_stopped(move || async move { Ok(catalog::read(&listed, &layout).await?) }).await?;
    let bar = Bar::begin("inspect", catalog.entries().len() as u64, Unit::Images);
    let seen = Arc::new(AtomicU64::new(0));
    let work = inspect(run, &asked.config, &store, catalog, seen.clone());
    let found = watched(work, || bar.at(seen.load(Ordering::Relaxed))).await?;
    drop(bar);
    warn(&found.warnings);
    match asked.json {
        true => say_json(&found),
        false => say(&inspected(store.location(), &found)),
    }
    Ok(())
}

/// What `inspect` found in an image folder.
fn inspected(location: &str, found: &Inspected) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{location}: {}", found.layout);
    let (n, bytes) = (HumanCount(found.found), bytes_in_words(found.bytes));
    let _ = writeln!(text, "{n} samples in {} classes, {bytes}", found.classes.len());
    let names: Vec<String> = found.classes.iter().map(|(name, _)| name.clone()).collect();
    let by_split: Vec<SplitCounts> = found.classes_by_split.clone().into_iter().collect();
    text += &class_table(&names, &by_split);
    let joined = |pairs: Vec<String>| pairs.join(", ");
    let splits = found.splits.iter().map(|(split, n)| format!("{split} {}", HumanCount(*n))).collect();
    let _ = writeln!(text, "splits   {}", joined(splits));
    let formats = found.formats.iter().map(|(name, n)| format!("{name} {}", HumanCount(*n))).collect();
    let _ = writeln!(text, "formats  {}", joined(formats));
    for (name, lengths) in [("width", found.width), ("height", found.height)] {
        if let Some(Percentiles { min, p5, median, p95, max }) = lengths {
            let _ = writeln!(text, "{name:<8} min {min}, p5 {p5}, median {median}, p95 {p95}, max {max} px");
        }
    }
    let triple = |values: [f64; 3]| values.map(|value| format!("{value:.3}")).join(",");
    let _ = writeln!(text, "color    --mean {} --std {}", triple(found.mean), triple(found.std));
    if !found.ignored.is_empty() {
        let ignored = found.ignored.iter().map(|(name, n)| format!("{name} {}", HumanCount(*n))).collect();
        let _ = writeln!(text, "ignored  {}", joined(ignored));
    }
    if !found.rejects.is_empty() {
        let _ = writeln!(text, "{} would be rejected:", found.rejects.len());
        text += &terminal::reject_lines(&found.rejects);
    }
    text
}

/// What `inspect` says of a dataset of shards.
fn dataset(location: &str, manifest: &Manifest) -> String {
    let mut text = String::new();
    let counts = &manifest.counts;
    let _ = writeln!(
        text,
        "{location}: shards of Forebay, {} rows in {} shards",
        counts.rows,
        manifest.shards.len()
    );
    let _ = writeln!(text, "images stored as {}", manifest.stored_format);
    for split in &manifest.splits {
        let side = split.side_px.map_or("various sizes".to_string(), |side| format!("{side}x{side} px"));
        let _ =
            writeln!(text, "{} {} rows of {side}, {}", split.split, split.rows, bytes_in_words(split.bytes));
    }
    let splits = manifest.splits.iter();
    let splits: Vec<SplitCounts> =
        splits.map(|split| (split.split, split.classes.iter().map(|class| class.rows).collect())).collect();
    text += &class_table(&manifest.classes, &splits);
    text
}
