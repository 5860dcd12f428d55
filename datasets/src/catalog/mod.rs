//! What is in a source: its classes and samples, and what cannot be one, found without opening a single image.

mod cifar;
mod contents;
mod entry;
mod folder;
mod gathered;
mod idx;
mod images;
mod kept;
mod listing;
mod mds;
mod one_deeper;
mod packed;
mod parquet;
mod pixels;
mod rows;
mod table;
mod tar;
mod webdataset;

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;

use self::cifar::CifarBinary;
use self::folder::FolderPerClass;
use self::idx::MnistIdx;
use self::listing::{File, Listing};
use self::mds::Mds;
use self::parquet::HuggingFaceParquet;
use self::table::Table;
use self::webdataset::WebDataset;
use crate::sample::Split;
use crate::store::{Store, StoreError};
use crate::words;

pub use self::contents::{Catalog, SourceContents};
pub use self::entry::{Entry, Locator};
pub use self::images::{ImageFile, ImageFiles, images};
pub(crate) use self::kept::json_of;
pub use self::kept::{Kept, KeptColumn, KeptKind, text_of};
pub(crate) use self::webdataset::ID_KEY as FOREBAY_ID;
pub use crate::columns::Value;

/// The stage that faults of a catalog name.
pub const STAGE: &str = "catalog";

/// Columns of samples that options name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NamedColumns {
    /// That of the images.
    image: bool,
    /// That of the labels.
    label: bool,
    /// Those that are kept.
    kept: bool,
}

impl NamedColumns {
    const NONE: NamedColumns = NamedColumns { image: false, label: false, kept: false };
    const ALL: NamedColumns = NamedColumns { image: true, label: true, kept: true };

    fn of(options: &LayoutOptions) -> NamedColumns {
        NamedColumns {
            image: options.image_column.is_some(),
            label: options.label_column.is_some(),
            kept: !options.keep_columns.is_empty(),
        }
    }

    /// The option that names a column of which `there` has none.
    fn missing_in(self, there: NamedColumns) -> Option<&'static str> {
        let options = [
            (self.image, there.image, "--image-column"),
            (self.label, there.label, "--label-column"),
            (self.kept, there.kept, "--keep-columns (or --group-by with a column)"),
        ];
        options.into_iter().find(|(named, there, _)| *named && !there).map(|(.., flag)| flag)
    }
}

/// Why there is no catalog, in one line that says what was looked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// Correct the source: it is missing, damaged, or of no layout that is read.
    #[error("{0}")]
    Correct(String),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How a source can hold samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LayoutKind {
    /// The first layout that the source is of.
    #[default]
    Auto,
    /// A folder per class.
    Folder,
    /// A table of files and their labels: CSV, TSV, JSON lines or Parquet.
    Table,
    /// Tar files whose members stand together by their names.
    WebDataset,
    /// Parquet files that hold the images, as Hugging Face `datasets` writes them.
    Parquet,
    /// MosaicML Streaming's shards.
    Mds,
    /// The binary version of CIFAR-10 and CIFAR-100.
    Cifar,
    /// The files of MNIST and of what took its form.
    Idx,
}

words!(LayoutKind {
    Auto => "auto",
    Folder => "folder",
    Table => "table",
    WebDataset => "webdataset",
    Parquet => "parquet",
    Mds => "mds",
    Cifar => "cifar",
    Idx => "idx",
});

/// Which layout a source is read as, and what of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayoutOptions {
    /// The layout.
    pub layout: LayoutKind,
    /// The file of the source that was named, where it is not all of the source: `labels.csv`, or several as in
    /// `train-{000..031}.tar`.
    pub file: Option<String>,
    /// The column of the images or of their names; of a tar file the extension of the images.
    pub image_column: Option<String>,
    /// The column of the labels; of a tar file their extension, or a key of `.json`.
    pub label_column: Option<String>,
    /// Columns that stay with the samples; of tar files keys of `.json`.
    pub keep_columns: Vec<String>,
    /// A local folder in which what takes long to find is kept for the next time.
    pub index_folder: Option<PathBuf>,
}

impl LayoutOptions {
    /// Whether they leave all to the source, which may then be shards of Forebay.
    pub fn leave_it_open(&self) -> bool {
        self.layout == LayoutKind::Auto && self.file.is_none()
    }
}

/// A way in which a source can hold samples. Adding one is a file, a line in [`LAYOUTS`] and a word of [`LayoutKind`].
trait Layout: Sync {
    /// Its word.
    fn kind(&self) -> LayoutKind;

    /// What a source of this layout looks like, as it reads after "looked for".
    fn looks_for(&self) -> &'static str;

    /// What of the listing it would read, such as `labels.csv` or `4 tar files`, by names alone.
    fn finds(&self, source: &Source<'_>) -> Option<String>;

    /// Whether what it finds says more than folders do, so that it is asked before them.
    fn precedes_folders(&self, _: &Source<'_>) -> bool {
        false
    }

    /// Which columns its samples have, that options can name: what a layout does not have is never taken and ignored.
    fn columns(&self) -> NamedColumns {
        NamedColumns::NONE
    }

    /// What stands in a source. It may read objects of the store, such as a table of labels, but opens no image.
    fn read<'a>(&'a self, source: &'a Source<'a>) -> Reading<'a>;
}

/// A source that was listed.
struct Source<'a> {
    store: &'a Store,
    listing: &'a Listing,
    options: &'a LayoutOptions,
}

impl<'a> Source<'a> {
    /// The files with one of these extensions; where one file was named, those of its name.
    fn files_called(&self, extensions: &[&str]) -> Vec<&'a File> {
        let named: Option<Vec<String>> = self.options.file.as_deref().map(expand_braces);
        let is_named = |file: &&'a File| {
            let name = file.name.text();
            named.as_ref().is_none_or(|named| name.is_some_and(|name| named.iter().any(|one| one == name)))
        };
        let is_called = |file: &&'a File| {
            file.fault.is_none() && file.extension().is_some_and(|found| extensions.contains(&&*found))
        };
        self.listing.files.iter().filter(is_called).filter(is_named).collect()
    }

    /// A name below the source, for messages.
    fn name(&self, file: &File) -> String {
        self.store.name(&file.id)
    }
}

type Reading<'a> = Pin<Box<dyn Future<Output = Result<SourceContents, Misfit>> + Send + 'a>>;

/// Why a layout gives no catalog.
#[derive(Debug)]
enum Misfit {
    /// The source is of another layout, or of none: what it holds, as it reads after "it holds".
    Holds(String),
    /// It is of this layout, and cannot be used.
    Broken(CatalogError),
}

impl From<StoreError> for Misfit {
    fn from(error: StoreError) -> Misfit {
        Misfit::Broken(error.into())
    }
}

/// Every layout, in the order in which a source is asked whether it is of it.
const LAYOUTS: [&dyn Layout; 7] =
    [&CifarBinary, &MnistIdx, &Mds, &HuggingFaceParquet, &WebDataset, &Table, &FolderPerClass];

/// Reads the catalog of a source. A local folder is walked on the calling thread.
///
/// # Errors
/// When the source cannot be listed or is of no layout that the options allow, or has no labels.
pub async fn read(store: &Store, options: &LayoutOptions) -> Result<Catalog, CatalogError> {
    let listing = list(store, options).await?;
    if let Some(file) = &options.file {
        let names = expand_braces(file);
        let wanted: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let is_wanted = |found: &File| found.name.text().is_some_and(|name| wanted.contains(name));
        if !listing.files.iter().any(is_wanted) {
            return Err(CatalogError::Correct(format!("{}: there is no such file", store.name(&names[0]))));
        }
    }
    let source = Source { store, listing: &listing, options };
    let contents = first_of(&LAYOUTS, &source).await?;
    match (contents.entries.is_empty(), contents.unlabelled.first()) {
        (true, Some(image)) => Err(CatalogError::Correct(no_labels(&source, &contents, &image.id))),
        _ => Catalog::new(contents),
    }
}

/// Everything that stands in a source; of one that cannot be listed, the files that the options name.
async fn list(store: &Store, options: &LayoutOptions) -> Result<Listing, CatalogError> {
    if let Some((file, (first, last))) = options.file.as_ref().and_then(|file| Some((file, falling(file)?))) {
        return Err(CatalogError::Correct(format!(
            "{}: numbers in braces go up: write {{{last}..{first}}}",
            store.name(file)
        )));
    }
    if !store.can_list() {
        let location = store.location();
        let Some(file) = &options.file else {
            return Err(CatalogError::Correct(format!(
                "{location}: a web server does not list what it has: name a file of the dataset ({location}/train.tar, \
                 {location}/labels.csv), or several by their numbers ({location}/train-{{000..031}}.tar)"
            )));
        };
        let names = expand_braces(file);
        let (listing, missing) = listing::of_names(store, names).await?;
        return match missing.first() {
            Some(name) => Err(CatalogError::Correct(format!("{}: there is no such file", store.name(name)))),
            None => Ok(listing),
        };
    }
    match store.local_root() {
        Some(root) => listing::walk(root).map_err(|(path, error)| unreadable(store, &path, &error)),
        None => Ok(listing::list(store).await?),
    }
}

/// What the first of `layouts` finds that the source is of; else why it is of none, each with its own reason.
///
/// Where folders may be classes, they are read as such, unless another layout says more than they do; what else could have
/// been read is then said.
async fn first_of(layouts: &[&dyn Layout], source: &Source<'_>) -> Result<SourceContents, CatalogError> {
    let options = source.options;
    let named = NamedColumns::of(options);
    let is_auto = options.layout == LayoutKind::Auto;
    let is_allowed = |layout: &&&dyn Layout| match is_auto {
        false => layout.kind() == options.layout,
        true if layout.kind() == LayoutKind::Folder => named == NamedColumns::NONE && options.file.is_none(),
        true => named.missing_in(layout.columns()).is_none(),
    };
    let mut asked: Vec<&dyn Layout> = layouts.iter().filter(is_allowed).copied().collect();
    if is_auto && folder::may_be_classes(source.listing) {
        // Stable: those that come before folders keep their order, and so do the others.
        asked.sort_by_key(|layout| match layout.kind() {
            LayoutKind::Folder => 1,
            _ if layout.precedes_folders(source) => 0,
            _ => 2,
        });
    }
    if let (false, [layout]) = (is_auto, &asked[..])
        && let Some(flag) = named.missing_in(layout.columns())
    {
        return Err(CatalogError::Correct(format!(
            "{}: --layout {} has no such column to name; leave {flag} out",
            source.store.location(),
            layout.kind()
        )));
    }
    let mut reasons: Vec<String> = Vec::new();
    // What a layout found and did not read, and a line of it.
    let mut passed_over: Vec<(String, String)> = Vec::new();
    for (at, layout) in asked.iter().enumerate() {
        let found = layout.finds(source);
        let holds = match (&found, layout.kind()) {
            (None, kind) if kind != LayoutKind::Folder => None,
            _ => match layout.read(source).await {
                Ok(mut contents) => {
                    let rest = asked[at + 1..].iter().filter(|_| is_auto);
                    for other in rest.filter(|layout| layout.kind() != LayoutKind::Folder) {
                        if let Some(what) = other.finds(source) {
                            let kind = other.kind();
                            let line = format!("{what} stands there too: --layout {kind} reads that instead");
                            passed_over.push((what, line));
                        }
                    }
                    if is_auto
                        && layout.kind() != LayoutKind::Folder
                        && folder::may_be_classes(source.listing)
                    {
                        let line = "folders of images that may be classes stand there too: --layout folder reads those instead";
                        passed_over.push((String::new(), line.to_string()));
                    }
                    // Parquet files are tables too: what was read is not told of as something else.
                    let others = passed_over.into_iter().filter(|(what, _)| Some(what) != found.as_ref());
                    contents.warnings.extend(others.map(|(_, line)| line));
                    return Ok(contents);
                }
                Err(Misfit::Broken(error)) => return Err(error),
                Err(Misfit::Holds(what)) => Some(what),
            },
        };
        match holds {
            Some(holds) => {
                if let Some(found) = found {
                    passed_over
                        .push((found.clone(), format!("{found} was not read: the source holds {holds}")));
                }
                reasons.push(format!("it holds {holds}; looked for {}", layout.looks_for()));
            }
            None if !is_auto => {
                reasons.push(format!("it holds none of it; looked for {}", layout.looks_for()));
            }
            None => {}
        }
    }
    if reasons.is_empty() {
        let looked: Vec<&str> = asked.iter().map(|layout| layout.looks_for()).collect();
        let folders = if is_auto && named != NamedColumns::NONE {
            " (a folder per class has no columns to name)"
        } else {
            ""
        };
        reasons.push(format!("looked for {}{folders}", looked.join("; or ")));
    }
    let location = match &options.file {
        Some(file) => source.store.name(file),
        None => source.store.location().to_string(),
    };
    Err(CatalogError::Correct(format!("no dataset in {location}: {}", reasons.join("; or "))))
}

fn no_labels(source: &Source<'_>, contents: &SourceContents, first: &str) -> String {
    let n = contents.unlabelled.len();
    let rejected = match &contents.rejects[..] {
        [] => String::new(),
        [(id, fault), ..] => {
            format!(" ({} more are rejects, such as {id}: {})", contents.rejects.len(), fault.reason)
        }
    };
    let how = match source.options.label_column {
        Some(_) => "predict takes them as they are",
        None => "name the column of the labels (--label-column), or predict them as they are",
    };
    format!(
        "{}: {}: none of its {n} images has a label, such as {first}{rejected}: {how}",
        source.store.location(),
        contents.layout
    )
}

/// The names that one with numbers in braces stands for: `a-{08..10}.tar` is `a-08.tar`, `a-09.tar` and `a-10.tar`.
fn expand_braces(name: &str) -> Vec<String> {
    /// More files than any dataset has.
    const NAMES_MAX: u64 = 1_000_000;
    let range = || {
        let (before, rest) = name.split_once('{')?;
        let (range, after) = rest.split_once('}')?;
        let (first, last) = range.split_once("..")?;
        let (from, to): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        (to.checked_sub(from)? < NAMES_MAX).then_some((before, from..=to, first.len(), after))
    };
    match range() {
        None => vec![name.to_string()],
        Some((before, numbers, width, after)) => {
            numbers.flat_map(|number| expand_braces(&format!("{before}{number:0width$}{after}"))).collect()
        }
    }
}

/// The numbers in braces that go down, and so stand for no names.
fn falling(name: &str) -> Option<(&str, &str)> {
    let (range, after) = name.split_once('{')?.1.split_once('}')?;
    let bounds = range.split_once("..");
    let is_falling = |(first, last): &(&str, &str)| {
        first.parse::<u64>().is_ok_and(|first| last.parse().is_ok_and(|last: u64| last < first))
    };
    bounds.filter(is_falling).or_else(|| falling(after))
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

    #[test]
    fn a_source_of_no_layout_is_told_what_was_looked_for() {
        let store = Store::memory();
        let of = |layout: LayoutKind| {
            let options = LayoutOptions { layout, ..LayoutOptions::default() };
            block_on(read(&store, &options)).expect_err("no dataset").to_string()
        };
        let start = format!("no dataset in {}: ", store.location());
        let folders = format!("{start}it holds nothing; looked for {}", FolderPerClass.looks_for());
        assert_eq!(of(LayoutKind::Auto), folders);
        assert_eq!(of(LayoutKind::Folder), folders);
        let tars = format!("{start}it holds none of it; looked for {}", WebDataset.looks_for());
        assert_eq!(of(LayoutKind::WebDataset), tars);
    }

    #[test]
    fn braces_stand_for_numbers_of_their_width() {
        assert_eq!(expand_braces("a-{08..10}.tar"), ["a-08.tar", "a-09.tar", "a-10.tar"]);
        assert_eq!(expand_braces("{0..1}-{1..2}"), ["0-1", "0-2", "1-1", "1-2"]);
        for plain in ["a.tar", "a{b}.tar", "{3..1}", "{..2}", "{0..99999999999}"] {
            assert_eq!(expand_braces(plain), [plain]);
        }
    }
}
