//! What is in a source: its classes and samples, and what cannot be one, found without opening a single image.

mod contents;
mod entry;
mod folder;
mod images;
mod listing;
mod one_deeper;

use std::future::Future;
use std::io;
use std::pin::Pin;

use self::folder::FolderPerClass;
use self::listing::Listing;
use crate::sample::Split;
use crate::store::{Store, StoreError};

pub use self::contents::{Catalog, SourceContents};
pub use self::entry::{Entry, Locator};
pub use self::images::{ImageFile, ImageFiles, images};

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

/// Which layout a source is read as, with the options of that layout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LayoutOptions {
    /// The first one that the source is of, as it is without options.
    #[default]
    Auto,
    /// One folder per class, which has no options.
    FolderPerClass,
}

/// A way in which a source can hold samples. Adding one is a file, and a line in [`LAYOUTS`].
trait Layout: Sync {
    /// What a source of this layout looks like, as it reads after "looked for".
    fn looks_for(&self) -> &'static str;

    /// Whether the options leave it to the source to be of this layout.
    fn is_allowed_by(&self, options: &LayoutOptions) -> bool;

    /// The catalog of a source in which this stands, by the options of this layout. It may read objects of the store,
    /// such as a table of labels, but opens no image.
    fn read<'a>(&'a self, store: &'a Store, listing: &'a Listing, options: &'a LayoutOptions) -> Reading<'a>;
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
/// When the source cannot be listed or is of no layout that the options allow.
pub async fn read(store: &Store, options: &LayoutOptions) -> Result<Catalog, CatalogError> {
    first_of(&LAYOUTS, store, &list(store).await?, options).await
}

/// Everything that stands in a source.
async fn list(store: &Store) -> Result<Listing, CatalogError> {
    match store.local_root() {
        Some(root) => listing::walk(root).map_err(|(path, error)| unreadable(store, &path, &error)),
        None => Ok(listing::list(store).await?),
    }
}

/// The catalog by the first of `layouts` that the source is of; else why it is of none, each with its own reason.
async fn first_of(
    layouts: &[&dyn Layout],
    store: &Store,
    listing: &Listing,
    options: &LayoutOptions,
) -> Result<Catalog, CatalogError> {
    let mut reasons: Vec<String> = Vec::new();
    for layout in layouts.iter().filter(|layout| layout.is_allowed_by(options)) {
        match layout.read(store, listing, options).await {
            Ok(catalog) => return Ok(catalog),
            Err(Misfit::Broken(error)) => return Err(error),
            Err(Misfit::Holds(what)) => {
                reasons.push(format!("it holds {what}; looked for {}", layout.looks_for()));
            }
        }
    }
    Err(CatalogError::Correct(format!("no dataset in {}: {}", store.location(), reasons.join("; or "))))
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
    use futures::executor::block_on;

    /// A layout of a table, which the source never has.
    struct Table;

    impl Layout for Table {
        fn looks_for(&self) -> &'static str {
            "a table of labels"
        }

        fn is_allowed_by(&self, options: &LayoutOptions) -> bool {
            *options == LayoutOptions::Auto
        }

        fn read<'a>(&'a self, _: &'a Store, _: &'a Listing, _: &'a LayoutOptions) -> Reading<'a> {
            Box::pin(async { Err(Misfit::Holds("no labels.csv".to_string())) })
        }
    }

    #[test]
    fn a_source_of_no_layout_is_told_what_each_of_them_found() {
        let store = Store::memory();
        let of = |options: &LayoutOptions| {
            block_on(first_of(&[&Table, &FolderPerClass], &store, &Listing::default(), options))
                .expect_err("no dataset")
                .to_string()
        };
        let folders = format!("it holds nothing; looked for {}", FolderPerClass.looks_for());
        let start = format!("no dataset in {}: ", store.location());
        let table = "it holds no labels.csv; looked for a table of labels";
        assert_eq!(of(&LayoutOptions::Auto), format!("{start}{table}; or {folders}"));
        assert_eq!(of(&LayoutOptions::FolderPerClass), format!("{start}{folders}"));
    }
}
