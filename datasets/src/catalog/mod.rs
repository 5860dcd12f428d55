//! What is in a source: its classes and samples, and what cannot be one, found without opening a single image.

mod contents;
mod entry;
mod folder;
mod listing;

use std::future::Future;
use std::io;
use std::pin::Pin;

use self::folder::FolderPerClass;
use self::listing::Listing;
use crate::sample::Split;
use crate::store::{Store, StoreError};

pub use self::contents::{Catalog, Contents};
pub use self::entry::{Entry, Locator};

/// The stage that faults of a catalog name.
pub const STAGE: &str = "catalog";

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
