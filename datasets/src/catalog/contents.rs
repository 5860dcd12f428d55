//! What a source holds: as a layout found it, and as a catalog that was checked.

use std::collections::{BTreeMap, BTreeSet};

use super::kept::KeptKind;
use super::packed;
use super::{CatalogError, Entry, ImageFile};
use crate::escape::is_printable;
use crate::groups;
use crate::sample::{Fault, SampleId, Split};

/// What a layout found in a source, in any order and not yet checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceContents {
    /// The layout in words.
    pub layout: String,
    /// The names of the classes, sorted by bytes.
    pub classes: Vec<String>,
    /// The samples.
    pub entries: Vec<Entry>,
    /// Images of which the source does not say the class; those of folders are in a class always.
    pub unlabelled: Vec<ImageFile>,
    /// Images that cannot be samples and why. A name that is not printable is escaped.
    pub rejects: Vec<(SampleId, Fault)>,
    /// How many files were passed over, by extension (`.txt`) or kind (`(hidden)`).
    pub ignored: BTreeMap<String, u64>,
    /// What a user would want to know before going on, one line each.
    pub warnings: Vec<String>,
    /// Why what was taken for classes hardly is what the user means, and what probably is: whoever goes on from here
    /// refuses such a source, and whoever only looks at it warns.
    pub mistake: Option<String>,
    /// The splits that the source itself declares.
    pub declared: BTreeSet<Split>,
    /// The columns of the source that its samples keep, each with a value of every one.
    pub kept_columns: Vec<String>,
}

/// What is in a source, in sorted order throughout. But for the versions of its entries it is a pure function of
/// the names and sizes there.
///
/// Its fields are private, so that what its constructor checked stays true.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalog {
    contents: SourceContents,
}

impl Catalog {
    /// A catalog of what a layout found.
    ///
    /// # Errors
    /// [`CatalogError::Correct`] when classes are not sorted or come twice; when an id is empty, does not print or
    /// comes twice among samples and rejects; when a label is no class, a sample is in a split that is not
    /// declared, or samples of one group declare different ones.
    pub fn new(mut contents: SourceContents) -> Result<Catalog, CatalogError> {
        contents.entries.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        contents.rejects.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        problem(&contents).map_or(Ok(Catalog { contents }), |line| Err(CatalogError::Correct(line)))
    }

    /// What it was made of, to make another one.
    pub fn into_contents(self) -> SourceContents {
        self.contents
    }

    /// The layout that was found, in words.
    pub fn layout(&self) -> &str {
        &self.contents.layout
    }

    /// The names of the classes, sorted by bytes and each there once; a label is an index into them, in every split.
    pub fn classes(&self) -> &[String] {
        &self.contents.classes
    }

    /// The columns of the source that its samples keep.
    pub fn kept_columns(&self) -> &[String] {
        &self.contents.kept_columns
    }

    /// What the values of a kept column are, by its place.
    ///
    /// # Panics
    /// When there is no such column.
    pub fn kept_kind(&self, column: usize) -> KeptKind {
        KeptKind::of(
            self.contents.entries.iter().filter_map(|entry| entry.kept.as_ref()).map(|kept| &kept[column]),
        )
    }

    /// The samples, sorted by id.
    pub fn entries(&self) -> &[Entry] {
        &self.contents.entries
    }

    /// Images that cannot be samples and why, sorted by id. None is a sample too.
    pub fn rejects(&self) -> &[(SampleId, Fault)] {
        &self.contents.rejects
    }

    /// How many images were found, those that cannot be samples among them.
    pub fn found(&self) -> u64 {
        (self.contents.entries.len() + self.contents.rejects.len()) as u64
    }

    /// How many files were passed over, by extension (`.txt`) or kind (`(hidden)`).
    pub fn ignored(&self) -> &BTreeMap<String, u64> {
        &self.contents.ignored
    }

    /// What a user would want to know before going on, one line each.
    pub fn warnings(&self) -> &[String] {
        &self.contents.warnings
    }

    /// Why what was taken for classes hardly is what the user means, and what probably is.
    pub fn mistake(&self) -> Option<&str> {
        self.contents.mistake.as_deref()
    }

    /// The most memory that unpacked pieces of the source take while it is read, bytes: none where each sample can be read
    /// alone.
    pub fn unpacked_bytes_max(&self) -> u64 {
        packed::bytes_max(self.contents.entries.iter().filter_map(|entry| entry.locator.piece()))
    }

    /// Whether the source cuts itself: it has samples, or folders, for validation or test.
    pub fn declares_splits(&self) -> bool {
        self.contents.declared.iter().any(|split| *split != Split::Train)
    }
}

/// An exbibyte.
const BYTES_MAX: u64 = 1 << 60;

/// What is wrong with sorted contents, in one line.
fn problem(contents: &SourceContents) -> Option<String> {
    let SourceContents { classes, entries, rejects, declared, .. } = contents;
    if let Some(pair) = classes.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Some(match pair[0] == pair[1] {
            true => format!("two classes are called {}", pair[0]),
            false => format!("class {} stands before {}: classes are sorted by bytes", pair[0], pair[1]),
        });
    }
    let mut ids: Vec<&SampleId> = entries.iter().map(|entry| &entry.id).collect();
    ids.extend(rejects.iter().map(|(id, _)| id));
    if let Some(id) = ids.iter().find(|id| id.is_empty() || !is_printable(id)) {
        return Some(format!("the sample {id:?} has no printable name"));
    }
    // Two sorted lists, which this merges.
    ids.sort();
    if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        return Some(format!("two samples are called {}", pair[0]));
    }
    // Plans add sizes up, some of them several times over.
    let total = entries.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.bytes()));
    if total > BYTES_MAX
        && let Some(Entry { id, locator, .. }) = entries.iter().max_by_key(|entry| entry.bytes())
    {
        return Some(format!(
            "more bytes are listed than any store holds, {} of {id} among them",
            locator.bytes()
        ));
    }
    let n_kept = contents.kept_columns.len();
    let wrong = entries.iter().find_map(|Entry { id, label, split, kept, .. }| match split {
        _ if kept.as_ref().map_or(0, |kept| kept.len()) != n_kept => {
            Some(format!("{id} has not the {n_kept} columns that are kept"))
        }
        _ if *label as usize >= classes.len() => {
            Some(format!("{id} has label {label} of {} classes", classes.len()))
        }
        Some(split) if !declared.contains(split) => {
            Some(format!("{id} is in {split}, which is not declared"))
        }
        _ => None,
    });
    wrong.or_else(|| torn(entries))
}

/// Two samples of one group that declare different splits.
fn torn(entries: &[Entry]) -> Option<String> {
    let split = |entry: &Entry| entry.split.unwrap_or(Split::Train);
    let torn = groups::torn(entries.iter().map(|entry| (entry, &entry.group, split(entry))));
    let [a, b] = torn.first()?;
    Some(format!(
        "{} is in {} and {} in {}, but both belong to {}, which cannot be in two splits",
        a.id,
        split(a),
        b.id,
        split(b),
        a.group
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Locator;
    use crate::seed::Seed;
    use crate::store::Version;

    fn entry(id: &str, label: u32) -> Entry {
        Entry::new(id.into(), label, None, Locator::whole(id.into(), 1), Version::UNKNOWN)
    }

    fn contents(entries: Vec<Entry>, rejects: &[&str]) -> SourceContents {
        let fault = || Fault::new("catalog", "broken");
        SourceContents {
            classes: vec!["a".to_string(), "b".to_string()],
            entries,
            rejects: rejects.iter().map(|id| ((*id).into(), fault())).collect(),
            ..SourceContents::default()
        }
    }

    #[test]
    fn any_order_of_any_images_gives_one_catalog() {
        let ids: Vec<String> = (0..50).map(|n| format!("a/{n}")).collect();
        let of = |ids: &[String]| {
            let (samples, rejects) = ids.split_at(30);
            let rejects: Vec<&str> = rejects.iter().map(String::as_str).collect();
            contents(samples.iter().map(|id| entry(id, 1)).collect(), &rejects)
        };
        let sorted = Catalog::new(of(&ids)).expect("a catalog");
        for seed in 0..20 {
            let mut shuffled = of(&ids);
            Seed(seed).stream("order").shuffle(&mut shuffled.entries);
            Seed(seed).stream("order").shuffle(&mut shuffled.rejects);
            assert_eq!(Catalog::new(shuffled), Ok(sorted.clone()));
        }
        assert!(sorted.entries().is_sorted_by(|a, b| a.id < b.id));
        assert!(sorted.rejects().is_sorted_by(|a, b| a.0 < b.0));
        assert!(sorted.entries().iter().all(|entry| entry.group == entry.id));
        assert_eq!(sorted.found(), 50);
    }

    #[test]
    fn what_a_catalog_promises_is_checked_and_named() {
        let refused = |contents: SourceContents| Catalog::new(contents).expect_err("refused").to_string();
        let samples = |entries: Vec<Entry>| refused(contents(entries, &[]));
        assert_eq!(samples(vec![entry("x", 0), entry("y", 0), entry("x", 1)]), "two samples are called x");
        assert_eq!(samples(vec![entry("x", 2)]), "x has label 2 of 2 classes");
        assert_eq!(samples(vec![entry("x\u{85}", 0)]), "the sample \"x\\u{85}\" has no printable name");
        assert_eq!(samples(vec![entry("", 0)]), "the sample \"\" has no printable name");
        assert_eq!(refused(contents(vec![entry("x", 0)], &["x"])), "two samples are called x");
        assert_eq!(refused(contents(vec![entry("x", 0)], &["y", "y"])), "two samples are called y");
        let named = |classes: [&str; 2]| {
            let classes = classes.map(ToString::to_string).to_vec();
            refused(SourceContents { classes, ..contents(vec![entry("x", 0)], &[]) })
        };
        assert_eq!(named(["a", "a"]), "two classes are called a");
        assert_eq!(named(["b", "a"]), "class b stands before a: classes are sorted by bytes");
        let declared = Entry { split: Some(Split::Test), ..entry("x", 0) };
        assert_eq!(samples(vec![declared]), "x is in test, which is not declared");
        let large = |id: &str, bytes| Entry { locator: Locator::whole(id.into(), bytes), ..entry(id, 0) };
        let line = samples(vec![large("x", 1 << 62), large("y", u64::MAX)]);
        assert_eq!(line, format!("more bytes are listed than any store holds, {} of y among them", u64::MAX));
    }
}
