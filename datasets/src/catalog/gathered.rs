//! What a layout other than folders finds: samples with the names of their classes, from which labels follow.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::contents::SourceContents;
use super::images::ImageFile;
use super::kept::Kept;
use super::{CatalogError, Entry, Locator, Misfit, STAGE, split_called};
use crate::escape::printable;
use crate::sample::{Fault, Label, SampleId, Split};
use crate::store::Version;
use crate::words::few;

/// A sample as a layout finds it.
pub(super) struct FoundSample {
    /// What it is called by its place.
    pub(super) id: SampleId,
    /// What the source itself calls it, where it has a place for that.
    pub(super) own_id: Option<SampleId>,
    /// The name of its class; `None` where the source does not say.
    pub(super) class: Option<Arc<str>>,
    pub(super) split: Option<Split>,
    pub(super) locator: Locator,
    pub(super) version: Version,
    /// Of the columns that are kept.
    pub(super) kept: Option<Kept>,
}

/// All that a layout finds.
#[derive(Default)]
pub(super) struct Gathered {
    /// The layout in words.
    pub(super) layout: String,
    /// Classes that the source names, whether or not it has images of them.
    pub(super) classes: BTreeSet<Arc<str>>,
    pub(super) samples: Vec<FoundSample>,
    pub(super) rejects: Vec<(SampleId, Fault)>,
    pub(super) ignored: BTreeMap<String, u64>,
    pub(super) warnings: Vec<String>,
    /// Splits that the source has, whether or not they hold a sample.
    pub(super) splits: BTreeSet<Split>,
    /// The columns that samples keep.
    pub(super) kept_columns: Vec<String>,
}

impl Gathered {
    /// An image that cannot be a sample.
    pub(super) fn reject(&mut self, id: SampleId, reason: impl std::fmt::Display) {
        self.rejects.push((id, Fault::new(STAGE, reason)));
    }

    /// Something that is no image.
    pub(super) fn ignore(&mut self, kind: &str) {
        *self.ignored.entry(kind.to_string()).or_default() += 1;
    }

    /// The contents of the source: labels are the places of the classes' names among all of them, sorted by bytes.
    pub(super) fn into_contents(self) -> Result<SourceContents, Misfit> {
        let Gathered {
            layout,
            mut classes,
            samples,
            rejects,
            ignored,
            mut warnings,
            mut splits,
            kept_columns,
        } = self;
        if samples.is_empty() {
            return Err(match rejects.first() {
                Some((id, fault)) => broken(format!(
                    "{layout}: {} cannot be used, such as {id} ({})",
                    if rejects.len() == 1 {
                        "its only image".to_string()
                    } else {
                        format!("its {} images", rejects.len())
                    },
                    fault.reason
                )),
                None => Misfit::Holds(format!("{layout} without an image")),
            });
        }
        classes.extend(samples.iter().filter_map(|sample| sample.class.clone()));
        let labels: BTreeMap<Arc<str>, Label> = classes.iter().cloned().zip(0..).collect();
        splits.extend(samples.iter().filter_map(|sample| sample.split));
        // One of which nothing is labelled, as competitions have it for the test, is none that anything is tested on.
        let is_of = |split: Split| move |sample: &&FoundSample| sample.split == Some(split);
        splits.retain(|split| {
            let labelled = samples.iter().filter(is_of(*split)).any(|sample| sample.class.is_some());
            labelled || !samples.iter().any(|sample| sample.split == Some(*split))
        });
        let mut own_ids = HashSet::new();
        let has_own_ids =
            samples.iter().all(|sample| sample.own_id.as_ref().is_some_and(|id| own_ids.insert(id)));
        if !has_own_ids && samples.iter().all(|sample| sample.own_id.is_some()) {
            warnings
                .push("two of its ids are the same: images are called by their places instead".to_string());
        }
        drop(own_ids);
        let mut counts = vec![[0_u64; 3]; classes.len()];
        let mut unlabelled = Vec::new();
        let mut entries = Vec::with_capacity(samples.len());
        for FoundSample { id, own_id, class, split, locator, version, kept } in samples {
            let id = own_id.filter(|_| has_own_ids).unwrap_or(id);
            match class {
                None => unlabelled.push(ImageFile { id, locator }),
                Some(class) => {
                    let label = labels[&class];
                    counts[label as usize][split.unwrap_or(Split::Train) as usize] += 1;
                    entries.push(Entry { kept, ..Entry::new(id, label, split, locator, version) });
                }
            }
        }
        if entries.len() > 20 && classes.len() * 2 > entries.len() {
            warnings.push(format!(
                "{} classes in {} samples: is something else the label (--label-column)?",
                classes.len(),
                entries.len()
            ));
        }
        let of = |wanted: &dyn Fn(&[u64; 3]) -> bool| -> Vec<&str> {
            let wanted = classes.iter().zip(&counts).filter(|(_, counts)| wanted(counts));
            wanted.map(|(class, _)| &**class).collect()
        };
        if let ([only], false) = (&of(&|_| true)[..], entries.is_empty()) {
            warnings.push(format!("only one class, {only}: there is nothing to tell apart"));
        }
        let empty = of(&|counts| counts.iter().sum::<u64>() == 0);
        if !empty.is_empty() && !entries.is_empty() {
            warnings.push(format!("no image of {}: kept as a class without samples", few(&empty)));
        }
        let untaught = of(&|counts| counts[0] == 0 && counts.iter().sum::<u64>() > 0);
        if splits.iter().any(|split| *split != Split::Train) && !untaught.is_empty() {
            warnings.push(format!("no train image of {}: a model cannot learn it", few(&untaught)));
        }
        if !unlabelled.is_empty() && !entries.is_empty() {
            warnings.push(match unlabelled.len() {
                1 => "one image has no label, and is no sample (predict takes it)".to_string(),
                n => format!("{n} images have no label, and are no samples (predict takes them)"),
            });
        }
        Ok(SourceContents {
            layout,
            classes: classes.iter().map(ToString::to_string).collect(),
            entries,
            unlabelled,
            rejects,
            ignored,
            warnings,
            mistake: None,
            declared: splits,
            kept_columns,
        })
    }
}

/// The name of a class as it may be shown and written: one that does not print is escaped. `None` for one without a letter.
///
/// What prints stays as it is, also where it is an escape: what is written as a text into shards, tables or tar files and
/// read again, however often, is the same name.
pub(super) fn class_name(text: &str) -> Option<Arc<str>> {
    let text = text.trim();
    (!text.is_empty()).then(|| printable(text).into())
}

/// An id that a dataset gives its sample, by the same rule. `None` for an empty one.
pub(super) fn own_id(text: &str) -> Option<SampleId> {
    (!text.is_empty()).then(|| printable(text).into())
}

/// The id of a copy of a sample, of which 0 is the original, by that of the sample.
pub(super) fn id_of_copy(id: &str, copy: i64) -> Option<SampleId> {
    match copy {
        1.. => own_id(&format!("{id} (copy {copy})")),
        _ => own_id(id),
    }
}

/// The split that a file says it is of, by a word of its own name or else of the folders that it lies in, nearest first:
/// `data/train-00000-of-00003.parquet`, `val/000.tar`.
pub(super) fn split_of_path(path: &str) -> Option<Split> {
    path.rsplit('/').find_map(|part| {
        let mut words = part.split(|c: char| !c.is_alphanumeric());
        words.find_map(split_called)
    })
}

/// A source that is of a layout and cannot be used.
pub(super) fn broken(line: String) -> Misfit {
    Misfit::Broken(CatalogError::Correct(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_its_split_by_a_word_of_it() {
        for (path, expected) in [
            ("data/train-00000-of-00003.parquet", Some(Split::Train)),
            ("val/000.tar", Some(Split::Validation)),
            ("imagenet_test_01.tar", Some(Split::Test)),
            ("test/train.csv", Some(Split::Train)),
            ("latest.tar", None),
            ("trains/x.tar", None),
        ] {
            assert_eq!(split_of_path(path), expected, "{path}");
        }
    }
}
