//! What is in a source and what is wrong with it: facts about every image, and what they add up to.
//!
//! A pass (`pass`) reads and decodes every image once and keeps a few dozen bytes of facts about it. Everything else is
//! a pure function of the catalog and these facts: classes, files, pictures, duplicates, shortcuts, and the command that
//! this source asks for. Only a page decodes again the few images that it shows.

mod advice;
mod classes;
mod duplicates;
mod files;
mod page;
mod pass;
mod pictures;
mod shortcuts;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use forebay_datasets::catalog::Catalog;
use forebay_datasets::sample::Split;
use forebay_datasets::seed::Seed;
use forebay_datasets::shard::Reject;
use forebay_datasets::statistics::Statistics;
use forebay_datasets::store::Store;
use forebay_train::metrics::ShortcutProbe;
use serde::Serialize;

use crate::flow::{Error, Run};
use crate::options::{Config, FailOn};
use crate::report::html::{Gallery, ReportPage};
use crate::report::{SplitCounts, shifted};

use advice::Grounds;
pub use advice::Suggestion;
pub use classes::{ClassShares, EffectiveNumber};
pub use duplicates::{DuplicateGroup, DuplicateImage, Duplicates};
pub use files::{FileFindings, Mislabelled};
use pass::Looked;
pub use pictures::PictureFindings;
pub use text::in_words;

/// What was found in a source that is no shards.
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
    /// How even the classes are in training.
    pub class_shares: ClassShares,
    /// Samples by format.
    pub formats: BTreeMap<String, u64>,
    /// Counts, sizes and channel sums of the images that decode; they merge with those of other sources.
    pub statistics: Statistics,
    /// Widths of the images that decode, pixels.
    pub width: Option<Percentiles<u32>>,
    /// Their heights, pixels.
    pub height: Option<Percentiles<u32>>,
    /// Their widths over their heights.
    pub aspect: Option<Percentiles<f64>>,
    /// The share of each that `--fit crop` would cut away.
    pub crop_loss: Option<Percentiles<f64>>,
    /// Mean of each channel over all pixels, of values from 0 to 1: what `--mean` takes.
    pub mean: [f64; 3],
    /// Standard deviation of each channel, as `--std` takes it.
    pub std: [f64; 3],
    /// What the files are like, and what is wrong with some.
    pub files: FileFindings,
    /// What the pictures are like, and which of them stand out.
    pub pictures: PictureFindings,
    /// Images that are there more than once.
    pub duplicates: Duplicates,
    /// Whether facts beside the picture predict its class; `None` where there are too few images or classes.
    pub shortcuts: Option<ShortcutProbe>,
    /// Samples that would be rejected.
    pub rejects: Vec<Reject>,
    /// Files that are no samples, by extension or kind.
    pub ignored: BTreeMap<String, u64>,
    /// What a user would want to know before going on.
    pub warnings: Vec<String>,
    /// How this source would be prepared; `None` where it is not what is meant.
    pub suggestion: Option<Suggestion>,
}

/// A distribution in five numbers, each of them a value that occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Percentiles<T> {
    /// The least.
    pub min: T,
    /// No more than 5 % are below it.
    pub p5: T,
    /// No more than half are below it.
    pub median: T,
    /// No more than 5 % are above it.
    pub p95: T,
    /// The largest.
    pub max: T,
}

impl<T: Copy + PartialOrd> Percentiles<T> {
    /// Those of some values that are numbers; `None` of none.
    fn of(values: impl IntoIterator<Item = T>) -> Option<Percentiles<T>> {
        let mut values: Vec<T> = values.into_iter().collect();
        values.sort_unstable_by(|a, b| a.partial_cmp(b).expect("numbers"));
        let (min, max) = (*values.first()?, *values.last()?);
        let at = |percent: usize| values[(values.len() - 1) * percent / 100];
        Some(Percentiles { min, p5: at(5), median: at(50), p95: at(95), max })
    }
}

/// A source that was inspected, with the facts about every image.
pub struct Inspection {
    /// What they add up to.
    pub found: Inspected,
    catalog: Catalog,
    looked: Looked,
}

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
) -> Result<Inspection, Error> {
    let looked = pass::look_at_all(run, config, store, &catalog, seen).await?;
    let source = config.source_arguments().join(" ");
    let found = run.install(|| found(&catalog, &looked, &source));
    Ok(Inspection { found, catalog, looked })
}

impl Inspection {
    /// What was found as a page, for which the images that it shows are decoded again; `command` makes it again.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn page(
        &self,
        run: &Run,
        config: &Config,
        store: &Store,
        command: &str,
    ) -> Result<ReportPage, Error> {
        let budget = config.whole("report.bytes");
        let mut gallery = Gallery::of(page::shown(&self.found), budget);
        let wanted = self.catalog.entries().iter().filter(|entry| gallery.wants(&entry.id)).collect();
        for image in pass::decode_some(run, config, store, wanted).await? {
            gallery.add_thumbnail(image.id, image.side_px, image.jpeg);
        }
        Ok(page::page(store.location(), &self.found, &self.looked, &gallery, command, budget))
    }
}

/// What a catalog and the facts about its images add up to.
fn found(catalog: &Catalog, looked: &Looked, source: &str) -> Inspected {
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
    let class_shares = ClassShares::of(catalog.classes(), &by_split);
    let mut warnings = catalog.warnings().to_vec();
    warnings.extend(catalog.mistake().map(String::from));
    warnings.extend(shifted(catalog.classes(), &by_split));
    warnings.extend(class_shares.warnings());

    let mut rejects: Vec<Reject> =
        catalog.rejects().iter().map(|(id, fault)| Reject::new(id, fault)).collect();
    let mut formats = BTreeMap::new();
    let mut statistics = Statistics { channels: looked.channels.clone(), ..Statistics::default() };
    for (entry, image) in catalog.entries().iter().zip(&looked.images) {
        match image {
            Ok(facts) => {
                *formats.entry(facts.file.format.to_string()).or_insert(0) += 1;
                statistics.add_size(entry.label, facts.file.width, facts.file.height, facts.file.bytes);
            }
            Err((_, fault)) => rejects.push(Reject::new(&entry.id, fault)),
        }
    }
    let whole = || looked.whole().map(|facts| facts.file);
    let duplicates = Duplicates::of(catalog, &looked.images);
    warnings.extend(duplicates.warnings());
    let shortcuts = shortcuts::probe(catalog, &looked.images, &duplicates, Seed(0));
    warnings.extend(shortcuts.as_ref().and_then(shortcuts::warning));
    let files = FileFindings::of(catalog, &looked.images);
    warnings.extend(files.warnings());
    let crop_loss =
        Percentiles::of(whole().map(|file| forebay_stages::facts::crop_loss(file.width, file.height)));
    let suggestion = (catalog.mistake().is_none() && whole().next().is_some()).then(|| {
        let sides = whole().map(|file| file.width.min(file.height)).collect();
        let n_rejects = rejects.len() as u64;
        let (class_shares, duplicates) = (&class_shares, &duplicates);
        advice::suggest(Grounds {
            source,
            catalog,
            shorter_sides: sides,
            crop_loss,
            n_rejects,
            class_shares,
            duplicates,
        })
    });
    Inspected {
        found: catalog.found(),
        // In Parquet files only whoever has read an image knows its size.
        bytes: (catalog.entries().iter().zip(&looked.images))
            .map(|(entry, image)| image.as_ref().map_or(entry.bytes(), |facts| facts.file.bytes))
            .sum(),
        layout: catalog.layout().to_string(),
        classes,
        splits: by_split.iter().map(|(split, counts)| (*split, counts.iter().sum())).collect(),
        classes_by_split,
        class_shares,
        formats,
        width: Percentiles::of(whole().map(|file| file.width)),
        height: Percentiles::of(whole().map(|file| file.height)),
        aspect: Percentiles::of(whole().map(|file| f64::from(file.width) / f64::from(file.height))),
        crop_loss,
        mean: statistics.channels.mean(),
        std: statistics.channels.std(),
        statistics,
        files,
        pictures: PictureFindings::of(catalog, &looked.images),
        duplicates,
        shortcuts,
        rejects,
        ignored: catalog.ignored().clone(),
        warnings,
        suggestion,
    }
}

impl Inspected {
    /// Which of these kinds of fault are there, each in words.
    pub fn faults(&self, kinds: &[FailOn]) -> Vec<String> {
        let count = |what: &str, n: usize| (n > 0).then(|| format!("{what}: {n}"));
        let of = |kind: &FailOn| match kind {
            FailOn::Leaks => {
                count("groups of the same image in several splits", self.duplicates.across_splits)
            }
            FailOn::Duplicates => count("groups of the same image", self.duplicates.groups.len()),
            FailOn::Rejects => count("files that would be rejected", self.rejects.len()),
            FailOn::Mislabelled => {
                count("files with the extension of another format", self.files.mislabelled.len())
            }
            FailOn::Shortcuts => {
                let named = self.shortcuts.iter().flat_map(|probe| &probe.attributes);
                count("facts that predict the class", named.filter(|found| found.predicts).count())
            }
        };
        kinds.iter().filter_map(of).collect()
    }
}
