//! What stands in a source, whatever it means: files and empty folders, walked on a disk or listed in a bucket.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt};

use super::split_called;
use crate::escape::{escape, escape_text};
use crate::sample::SampleId;
use crate::store::{Object, ObjectName, Store, StoreError, Version};

/// Everything that stands in a source.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Sorted by id.
    pub(super) files: Vec<File>,
    /// Folders that hold no file of their own but hidden ones, each with `/` at its end.
    pub(super) empty: BTreeSet<String>,
    /// What no layout is to see, by kind.
    pub(super) ignored: BTreeMap<String, u64>,
}

/// A file of a source.
#[derive(Clone, Debug)]
pub(super) struct File {
    /// Its name, escaped so that it is unique and printable.
    pub(super) id: SampleId,
    pub(super) name: ObjectName,
    pub(super) bytes: u64,
    pub(super) version: Version,
    /// Why it cannot be read, whatever it is.
    pub(super) fault: Option<String>,
}

/// Extensions of images, lower case: those of Hugging Face's `imagefolder` that the decoder can open.
const EXTENSIONS: [&str; 15] = [
    "jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "tif", "tiff", "bmp", "gif", "ppm", "pgm", "pbm",
    "pnm",
];

/// Whether images are called so; in lower case and without the dot.
pub(super) fn is_image_extension(extension: &str) -> bool {
    EXTENSIONS.contains(&extension)
}

impl File {
    /// What stands behind the last slash of its name.
    pub(super) fn base_name(&self) -> &str {
        self.id.rsplit('/').next().unwrap_or(&self.id)
    }

    /// Whether it is called like an image.
    pub(super) fn is_image(&self) -> bool {
        self.extension().is_some_and(|extension| is_image_extension(&extension))
    }

    /// Of a file that is no image: its extension with the dot, or that it has none.
    pub(super) fn kind(&self) -> String {
        self.extension().map_or("(no extension)".to_string(), |extension| format!(".{extension}"))
    }

    /// What stands behind the last dot of its name, in lower case and without the dot.
    pub(super) fn extension(&self) -> Option<String> {
        let name = self.id.rsplit('/').next().unwrap_or(&self.id);
        let extension = Path::new(name).extension().and_then(OsStr::to_str);
        extension.map(str::to_lowercase)
    }
}

impl Listing {
    fn ignore(&mut self, kind: &str) {
        *self.ignored.entry(kind.to_string()).or_default() += 1;
    }

    pub(super) fn sorted(mut self) -> Listing {
        self.files.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        self
    }
}

/// Lists a bucket. A key that cannot be asked for is a file with a fault and hides no other; an object without
/// bytes whose key ends in `/` is what a program that shows folders makes of an empty one.
pub(super) async fn list(store: &Store) -> Result<Listing, StoreError> {
    let mut listing = Listing::default();
    for Object { name, bytes, version } in store.list_objects("").await? {
        let key = name.text().unwrap_or_default();
        let (folder, last) = key.rsplit_once('/').unwrap_or(("", key));
        let is_odd = |parts: &str| parts.split('/').any(|part| ["", ".", ".."].contains(&part));
        if last.is_empty() && !folder.is_empty() && bytes == 0 && !is_odd(folder) {
            let hidden = hidden_below(folder);
            listing.empty.insert(format!("{}/", escape_text(hidden.unwrap_or(folder))));
            continue;
        }
        let fault = (!store.can_read(&name)).then(|| {
            "its key has an empty part, `.` or `..`, or a control character, and cannot be asked for: rename it"
                .to_string()
        });
        match hidden_below(key).filter(|_| !is_odd(key)) {
            Some(above) => {
                listing.ignore("(hidden)");
                // As on a disk, where the folder of a hidden file is there too.
                if !above.is_empty() {
                    listing.empty.insert(format!("{}/", escape_text(above)));
                }
            }
            None => listing.files.push(File { id: name.printable(), name, bytes, version, fault }),
        }
    }
    listing.empty.remove("/");
    let occupied: BTreeSet<String> = listing
        .files
        .iter()
        .filter_map(|file| file.id.rsplit_once('/'))
        .map(|(folder, _)| format!("{folder}/"))
        .collect();
    listing.empty.retain(|folder| !occupied.contains(folder));
    Ok(listing.sorted())
}

/// Asks for the files of these names, of a store that cannot be listed; also gives the names of which there is none.
pub(super) async fn of_names(
    store: &Store,
    names: Vec<String>,
) -> Result<(Listing, Vec<String>), StoreError> {
    /// More would wait for their turn at the store.
    const ASKED_AT_ONCE: usize = 64;
    let looks = names.into_iter().map(|name| async move {
        let found = store.look(&name).await?;
        Ok::<_, StoreError>((name, found))
    });
    let mut looks = futures::stream::iter(looks).buffered(ASKED_AT_ONCE);
    let (mut listing, mut missing) = (Listing::default(), Vec::new());
    while let Some((asked, found)) = looks.try_next().await? {
        match found {
            Some(Object { name, bytes, version }) => {
                listing.files.push(File { id: name.printable(), name, bytes, version, fault: None });
            }
            None => missing.push(asked),
        }
    }
    Ok((listing.sorted(), missing))
}

/// The part of a key above its first hidden part, where it has one.
fn hidden_below(key: &str) -> Option<&str> {
    let mut start = 0;
    for part in key.split('/') {
        if is_hidden(OsStr::new(part)) {
            return Some(key[..start].trim_end_matches('/'));
        }
        start += part.len() + 1;
    }
    None
}

/// Files that systems leave behind, which are no samples whatever their extension.
fn is_hidden(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b".") || name == b"Thumbs.db" || name == b"__MACOSX"
}

/// Walks a local folder on the calling thread; an error comes with the folder it is about.
///
/// Links are followed, and within a class each real folder is read once, so that links that lead back or to each
/// other multiply nothing. Where a folder can be reached with and without a link, it is the way without.
pub(super) fn walk(root: &Path) -> Result<Listing, (PathBuf, io::Error)> {
    let mut listing = Listing::default();
    let at_root = |error| (root.to_path_buf(), error);
    let metadata = fs::metadata(root).map_err(at_root)?;
    let real = FolderId::of(root, &metadata).map_err(at_root)?;
    let root = Folder { path: root.to_path_buf(), name: OsString::new(), is_link: false, real };
    let above = [root.real.clone()];
    for top in read_folder(&root, &mut listing)? {
        // Whether a class stands at the top or in a folder of a split is for the layout to say; a link counts
        // for one class either way.
        if split_called(&escape(&top.name)).is_none() {
            walk_class(top, &above, &mut listing)?;
            continue;
        }
        let above = [root.real.clone(), top.real.clone()];
        for class in read_folder(&top, &mut listing)? {
            walk_class(class, &above, &mut listing)?;
        }
    }
    Ok(listing.sorted())
}

/// A folder to walk.
struct Folder {
    path: PathBuf,
    /// Relative to the source; empty for the source itself.
    name: OsString,
    is_link: bool,
    real: FolderId,
}

/// What two paths to one folder have in common.
#[derive(Clone, PartialEq, Eq, Hash)]
struct FolderId(#[cfg(unix)] (u64, u64), #[cfg(not(unix))] PathBuf);

impl FolderId {
    #[cfg(unix)]
    fn of(_: &Path, metadata: &Metadata) -> io::Result<FolderId> {
        use std::os::unix::fs::MetadataExt;
        Ok(FolderId((metadata.dev(), metadata.ino())))
    }

    #[cfg(not(unix))]
    fn of(path: &Path, _: &Metadata) -> io::Result<FolderId> {
        fs::canonicalize(path).map(FolderId)
    }
}

/// Walks all that one class can hold, folders before links to folders.
fn walk_class(class: Folder, above: &[FolderId], listing: &mut Listing) -> Result<(), (PathBuf, io::Error)> {
    let mut seen: HashSet<FolderId> = above.iter().cloned().collect();
    let mut folders = vec![class];
    let mut links: BTreeMap<OsString, Folder> = BTreeMap::new();
    while let Some(folder) = folders.pop().or_else(|| Some(links.pop_first()?.1)) {
        if !seen.insert(folder.real.clone()) {
            listing.ignore("(link to a folder that is read already)");
            continue;
        }
        for below in read_folder(&folder, listing)? {
            match below.is_link {
                true => drop(links.insert(below.name.clone(), below)),
                false => folders.push(below),
            }
        }
    }
    Ok(())
}

/// Adds the files of a folder to the listing; gives its folders sorted by name.
fn read_folder(folder: &Folder, listing: &mut Listing) -> Result<Vec<Folder>, (PathBuf, io::Error)> {
    let mut folders = vec![];
    read_entries(folder, listing, &mut folders).map_err(|error| (folder.path.clone(), error))?;
    folders.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(folders)
}

fn read_entries(folder: &Folder, listing: &mut Listing, folders: &mut Vec<Folder>) -> io::Result<()> {
    let mut is_empty = true;
    for entry in fs::read_dir(&folder.path)? {
        let entry = entry?;
        if is_hidden(&entry.file_name()) {
            listing.ignore("(hidden)");
            continue;
        }
        let mut name = folder.name.clone();
        if !name.is_empty() {
            name.push("/");
        }
        name.push(entry.file_name());
        let is_link = entry.file_type()?.is_symlink();
        let metadata = if is_link { fs::metadata(entry.path()) } else { entry.metadata() };
        let (bytes, version, fault) = match metadata {
            Ok(metadata) if metadata.is_dir() => {
                let path = entry.path();
                let real = FolderId::of(&path, &metadata)?;
                folders.push(Folder { path, name, is_link, real });
                continue;
            }
            Ok(metadata) if metadata.is_file() => (metadata.len(), Version::of_file(&metadata), None),
            Ok(_) => {
                listing.ignore("(not a file)");
                continue;
            }
            // A broken link, or a file deleted since: an image that is lost is a reject, not a silence.
            Err(error) => (0, Version::UNKNOWN, Some(format!("cannot be read: {error}"))),
        };
        is_empty = false;
        let name = ObjectName::of_os(&name);
        listing.files.push(File { id: name.printable(), name, bytes, version, fault });
    }
    if is_empty && !folder.name.is_empty() {
        listing.empty.insert(format!("{}/", escape(&folder.name)));
    }
    Ok(())
}
