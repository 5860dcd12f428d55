//! What is in a source: its classes and samples, and what cannot be one, found without opening a single image.

mod entry;
mod folder;
mod listing;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::pin::Pin;

use self::folder::FolderPerClass;
use self::listing::Listing;
use crate::escape::is_printable;
use crate::sample::{Fault, SampleId, Split};
use crate::store::{Store, StoreError};

pub use self::entry::{Entry, Locator};

/// The stage that faults of a catalog name.
pub const STAGE: &str = "catalog";

/// What is in a source, in sorted order throughout. But for the versions of its entries it is a pure function of
/// the names and sizes there.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalog {
    /// The layout that was found, in words.
    pub layout: String,
    /// The names of the classes, sorted by bytes; a label is an index into them, in every split.
    pub classes: Vec<String>,
    /// The samples, sorted by id.
    pub entries: Vec<Entry>,
    /// Images that cannot be samples and why, sorted by id. A name that is not printable is escaped.
    pub rejects: Vec<(SampleId, Fault)>,
    /// How many files were passed over, by extension (`.txt`) or kind (`(hidden)`).
    pub ignored: BTreeMap<String, u64>,
    /// What a user would want to know before going on, one line each.
    pub warnings: Vec<String>,
    /// The splits the source itself declares by its folders, without repetition.
    pub declared: Vec<Split>,
}

impl Catalog {
    /// Whether the source cuts itself: it has folders for validation or test.
    pub fn declares_splits(&self) -> bool {
        self.declared.iter().any(|split| *split != Split::Train)
    }

    /// A catalog of these samples without rejects, ignored files and warnings, which its layout adds.
    ///
    /// # Errors
    /// [`CatalogError::Correct`] when an id is empty, does not print or comes twice, or a label is no class.
    pub fn new(
        layout: String,
        classes: Vec<String>,
        mut entries: Vec<Entry>,
    ) -> Result<Catalog, CatalogError> {
        entries.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let wrong = |what: String| Err(CatalogError::Correct(what));
        for (index, entry) in entries.iter().enumerate() {
            if entry.id.is_empty() || !is_printable(&entry.id) {
                return wrong(format!("the sample {:?} has no printable name", entry.id));
            }
            if index > 0 && entries[index - 1].id == entry.id {
                return wrong(format!("two samples are called {}", entry.id));
            }
            if entry.label as usize >= classes.len() {
                return wrong(format!("{} has label {} of {} classes", entry.id, entry.label, classes.len()));
            }
        }
        let declared: BTreeSet<Split> = entries.iter().filter_map(|entry| entry.split).collect();
        Ok(Catalog {
            layout,
            classes,
            entries,
            rejects: vec![],
            ignored: BTreeMap::new(),
            warnings: vec![],
            declared: declared.into_iter().collect(),
        })
    }
}

/// Why there is no catalog, in one line that says what was looked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// Correct the source: it is missing, a file, or holds no image in a class folder.
    #[error("{0}")]
    Correct(String),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A way in which a source can hold samples. Adding one is a file, and a line in [`LAYOUTS`].
trait Layout: Sync {
    /// What a source of this layout looks like, as it reads after "looked for".
    fn looks_for(&self) -> &'static str;

    /// The catalog of a source in which this stands. It may read objects of the store, such as a table of labels,
    /// but opens no image.
    fn read<'a>(&'a self, store: &'a Store, listing: &'a Listing) -> Reading<'a>;
}

type Reading<'a> = Pin<Box<dyn Future<Output = Result<Catalog, Misfit>> + Send + 'a>>;

/// Why a layout gives no catalog.
#[derive(Debug)]
enum Misfit {
    /// The source is of another layout, or of none: what it holds, as it reads after "it holds".
    Holds(String),
    /// It is of this layout, and cannot be used.
    Broken(CatalogError),
}

/// Every layout, in the order in which a source is asked whether it is of it.
const LAYOUTS: [&dyn Layout; 1] = [&FolderPerClass];

/// Reads the catalog of a source. A local folder is walked on the calling thread.
///
/// # Errors
/// When the source cannot be listed or is of no known layout.
pub async fn read(store: &Store) -> Result<Catalog, CatalogError> {
    let listing = match store.local_root() {
        Some(root) => listing::walk(root).map_err(|(path, error)| unreadable(store, &path, &error))?,
        None => listing::list(store).await?,
    };
    let mut holds = String::new();
    for layout in LAYOUTS {
        match layout.read(store, &listing).await {
            Ok(catalog) => return Ok(catalog),
            Err(Misfit::Broken(error)) => return Err(error),
            Err(Misfit::Holds(what)) => holds = what,
        }
    }
    let looked_for: Vec<&str> = LAYOUTS.iter().map(|layout| layout.looks_for()).collect();
    Err(CatalogError::Correct(format!(
        "no dataset in {}: it holds {holds}; looked for {}",
        store.location(),
        looked_for.join("; or ")
    )))
}

/// The split that a folder is named after, in any case.
fn split_called(name: &str) -> Option<Split> {
    match name.to_lowercase().as_str() {
        "train" | "training" => Some(Split::Train),
        "validation" | "valid" | "val" | "dev" => Some(Split::Validation),
        "test" | "testing" | "eval" | "evaluation" => Some(Split::Test),
        _ => None,
    }
}

fn unreadable(store: &Store, path: &std::path::Path, error: &io::Error) -> CatalogError {
    let location = store.location();
    CatalogError::Correct(match error.kind() {
        io::ErrorKind::NotFound if Some(path) == store.local_root() => {
            format!("cannot read {location}: there is no such folder")
        }
        io::ErrorKind::NotADirectory if Some(path) == store.local_root() => {
            format!("{location} is a file: give the folder that holds one folder per class")
        }
        io::ErrorKind::PermissionDenied => format!("cannot list {}: permission denied", path.display()),
        _ => format!("cannot list {}: {error}", path.display()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;
    use crate::store::Version;

    fn entry(id: &str, label: u32) -> Entry {
        Entry::new(id.into(), label, None, Locator::whole(id.into(), 1), Version::UNKNOWN)
    }

    #[test]
    fn a_catalog_has_unique_printable_ids_in_order_and_labels_of_its_classes() {
        let classes = || vec!["a".to_string(), "b".to_string()];
        let of = |entries: Vec<Entry>| Catalog::new(String::new(), classes(), entries);
        // Any order of any samples gives one catalog.
        let ids: Vec<String> = (0..50).map(|n| format!("a/{n}")).collect();
        let sorted = of(ids.iter().map(|id| entry(id, 1)).collect()).expect("a catalog");
        for seed in 0..20 {
            let mut shuffled = ids.clone();
            Seed(seed).stream("order").shuffle(&mut shuffled);
            assert_eq!(of(shuffled.iter().map(|id| entry(id, 1)).collect()), Ok(sorted.clone()));
        }
        assert!(sorted.entries.is_sorted_by(|a, b| a.id < b.id));
        assert!(sorted.entries.iter().all(|entry| entry.group == entry.id));
        let refused = |entries| of(entries).expect_err("refused").to_string();
        assert_eq!(refused(vec![entry("x", 0), entry("y", 0), entry("x", 1)]), "two samples are called x");
        assert_eq!(refused(vec![entry("x", 2)]), "x has label 2 of 2 classes");
        assert_eq!(refused(vec![entry("x\u{85}", 0)]), "the sample \"x\\u{85}\" has no printable name");
        assert_eq!(refused(vec![entry("", 0)]), "the sample \"\" has no printable name");
    }
}
