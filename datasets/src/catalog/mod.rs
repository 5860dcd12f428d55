//! What is in a source: its classes and samples, and what cannot be one, found without opening a single image.

use std::collections::BTreeMap;
use std::io;

use crate::sample::{Fault, Label, SampleId, Split};
use crate::store::{Store, StoreError};

mod folder;

/// The stage that faults of a catalog name.
pub const STAGE: &str = "catalog";

/// What is in a source. A pure function of the names and sizes there, in sorted order throughout.
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

/// One sample of a catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path relative to the source.
    pub id: SampleId,
    /// The size of its file.
    pub bytes: u64,
    /// Its class.
    pub label: Label,
    /// The split its folder declares.
    pub split: Option<Split>,
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

/// Reads the catalog of a source. A local folder is walked on the calling thread.
///
/// # Errors
/// When the source cannot be listed or holds no image in a class folder.
pub async fn read(store: &Store) -> Result<Catalog, CatalogError> {
    let found = match store.local_root() {
        Some(root) => folder::walk(root).map_err(|(path, error)| unreadable(store, &path, &error))?,
        None => folder::listed(store.list("").await?),
    };
    folder::catalog(store.location(), found)
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
