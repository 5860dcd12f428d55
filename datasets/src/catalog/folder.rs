//! The layout "one folder per class", with or without `train/`, `validation/` and `test/` above the classes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use object_store::path::Path as Key;

use super::{Catalog, CatalogError, Entry, STAGE};
use crate::sample::{Fault, Label, Split};

/// Extensions of images, lower case: those of Hugging Face's `imagefolder` that the decoder can open.
const EXTENSIONS: [&str; 15] = [
    "jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "tif", "tiff", "bmp", "gif", "ppm", "pgm", "pbm",
    "pnm",
];

/// What a walk or a listing found, in any order.
#[derive(Debug, Default)]
pub(super) struct Found {
    files: Vec<File>,
    /// Folders that hold no file of their own but hidden ones, each with `/` at its end.
    empty: Vec<String>,
    ignored: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct File {
    /// Relative to the source, printable.
    id: String,
    bytes: u64,
    /// Why it cannot be a sample, whatever folder it is in.
    fault: Option<String>,
    is_image: bool,
}

/// Walks a local folder; an error comes with the folder it is about.
///
/// Symbolic links are followed. A link back to a folder that it is in ends there: on each chain of folders
/// every real folder stands once.
pub(super) fn walk(root: &Path) -> Result<Found, (PathBuf, io::Error)> {
    let mut found = Found::default();
    let real = fs::canonicalize(root).map_err(|error| (root.to_path_buf(), error))?;
    let mut todo = vec![Folder {
        path: root.to_path_buf(),
        id: String::new(),
        is_key: true,
        chain: Rc::new(Chain { real, above: None }),
    }];
    while let Some(folder) = todo.pop() {
        walk_one(&folder, &mut todo, &mut found).map_err(|error| (folder.path.clone(), error))?;
    }
    Ok(found)
}

/// A folder to walk.
struct Folder {
    path: PathBuf,
    /// Relative to the source, printable; empty for the source itself.
    id: String,
    /// False once a name on the way cannot be part of a key.
    is_key: bool,
    chain: Rc<Chain>,
}

/// The real paths of a folder and of those it was reached through.
struct Chain {
    real: PathBuf,
    above: Option<Rc<Chain>>,
}

impl Chain {
    fn holds(&self, real: &Path) -> bool {
        std::iter::successors(Some(self), |chain| chain.above.as_deref()).any(|chain| chain.real == real)
    }
}

fn walk_one(folder: &Folder, todo: &mut Vec<Folder>, found: &mut Found) -> io::Result<()> {
    let mut is_empty = true;
    for entry in fs::read_dir(&folder.path)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_hidden(&name) {
            found.ignore("(hidden)");
            continue;
        }
        let id = match folder.id.as_str() {
            "" => printable(&name),
            above => format!("{above}/{}", printable(&name)),
        };
        let is_key = folder.is_key && name.to_str().is_some_and(|name| Key::parse(name).is_ok());
        let name_fault = (!is_key).then(|| {
            "its path holds a control character or is not UTF-8: rename it to something printable".to_string()
        });
        let kind = entry.file_type()?;
        let metadata = if kind.is_symlink() { fs::metadata(entry.path()) } else { entry.metadata() };
        match metadata {
            Ok(metadata) if metadata.is_dir() => {
                let real = match kind.is_symlink() {
                    true => fs::canonicalize(entry.path())?,
                    false => folder.chain.real.join(&name),
                };
                if kind.is_symlink() && folder.chain.holds(&real) {
                    found.ignore("(link to a folder above)");
                    continue;
                }
                let chain = Rc::new(Chain { real, above: Some(Rc::clone(&folder.chain)) });
                todo.push(Folder { path: entry.path(), id, is_key, chain });
            }
            Ok(metadata) if metadata.is_file() => {
                is_empty = false;
                found.file(id, metadata.len(), &name, name_fault);
            }
            Ok(_) => found.ignore("(not a file)"),
            // A broken link, or a file deleted since: an image that is lost is a reject, not a silence.
            Err(error) => {
                is_empty = false;
                found.file(id, 0, &name, Some(name_fault.unwrap_or(format!("cannot be read: {error}"))));
            }
        }
    }
    if is_empty && folder.is_key && !folder.id.is_empty() {
        found.empty.push(format!("{}/", folder.id));
    }
    Ok(())
}

/// What an object store lists: keys and their bytes.
pub(super) fn listed(keys: Vec<(String, u64)>) -> Found {
    let mut found = Found::default();
    for (key, bytes) in keys {
        if key.split('/').any(|part| is_hidden(OsStr::new(part))) {
            found.ignore("(hidden)");
        } else {
            let name = key.rsplit('/').next().unwrap_or(&key).to_string();
            found.file(key, bytes, OsStr::new(&name), None);
        }
    }
    found
}

impl Found {
    fn ignore(&mut self, kind: &str) {
        *self.ignored.entry(kind.to_string()).or_default() += 1;
    }

    fn file(&mut self, id: String, bytes: u64, name: &OsStr, fault: Option<String>) {
        let extension = Path::new(name).extension().map(|extension| printable(extension).to_lowercase());
        let is_image = extension.as_deref().is_some_and(|extension| EXTENSIONS.contains(&extension));
        if !is_image {
            self.ignore(&extension.map_or("(no extension)".to_string(), |extension| format!(".{extension}")));
        }
        self.files.push(File { id, bytes, fault, is_image });
    }
}

/// Brings what was found into a catalog, which depends on the names and sizes only and not on their order.
pub(super) fn catalog(location: &str, mut found: Found) -> Result<Catalog, CatalogError> {
    found.files.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    let layout = Layout::of(&found.files);

    // The class of each file, and whether the folders of a class hold images or something else.
    let mut classes: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
    let mut without_images: BTreeSet<&str> = BTreeSet::new();
    for file in &found.files {
        match layout.place(&file.id) {
            Some((split, class)) if file.is_image && file.fault.is_none() => {
                classes.entry(class).or_default()[split.unwrap_or(Split::Train) as usize] += 1;
            }
            Some((_, class)) if !file.is_image && file.fault.is_none() => {
                without_images.insert(class);
            }
            _ => {}
        }
    }
    // A folder with nothing in it is a class that is still to be filled; one with other files only (notes,
    // annotations) is no class.
    for folder in &found.empty {
        if let Some((_, class)) = layout.place(folder)
            && !without_images.contains(class)
        {
            classes.entry(class).or_default();
        }
    }
    without_images.retain(|folder| !classes.contains_key(folder));

    let labels: BTreeMap<&str, Label> =
        classes.keys().zip(0..).map(|(class, label)| (*class, label)).collect();
    let mut entries = vec![];
    let mut rejects = vec![];
    for file in found.files.iter().filter(|file| file.is_image) {
        let fault = match (&file.fault, layout.place(&file.id)) {
            (Some(fault), _) => fault.as_str(),
            (None, None) => "in no class folder",
            (None, Some((split, class))) => {
                let label = labels[class];
                entries.push(Entry { id: file.id.as_str().into(), bytes: file.bytes, label, split });
                continue;
            }
        };
        rejects.push((file.id.as_str().into(), Fault::new(STAGE, fault)));
    }
    if entries.is_empty() {
        return Err(nothing(location, &rejects, &found.ignored));
    }
    let declared: BTreeSet<Split> = entries.iter().filter_map(|entry| entry.split).collect();
    let declared: Vec<Split> = declared.into_iter().collect();
    let warnings = warnings(&layout, &classes, &without_images, &declared);
    Ok(Catalog {
        layout: layout.to_string(),
        classes: classes.keys().map(ToString::to_string).collect(),
        entries,
        rejects,
        ignored: found.ignored,
        warnings,
        declared,
    })
}

/// Where the classes stand.
#[derive(Debug, PartialEq)]
enum Layout {
    /// `class/image`; with folders that are named like splits but are taken as classes.
    Classes { like_splits: Vec<String> },
    /// `split/class/image`, with the split folders as they are called.
    Splits { folders: Vec<String> },
}

impl Layout {
    /// `split/class/image` when every folder at the top that holds images is named like a split. One other
    /// folder makes them all classes: `train` is also a vehicle.
    fn of(files: &[File]) -> Layout {
        let tops: BTreeSet<&str> = files
            .iter()
            .filter(|file| file.is_image)
            .filter_map(|file| file.id.split_once('/').map(|(top, _)| top))
            .collect();
        let like_splits: Vec<String> =
            tops.iter().filter(|top| split_called(top).is_some()).map(ToString::to_string).collect();
        match !tops.is_empty() && like_splits.len() == tops.len() {
            true => Layout::Splits { folders: like_splits },
            false => Layout::Classes { like_splits },
        }
    }

    /// The declared split and the class folder of a file; `None` when it stands in no class folder.
    fn place<'a>(&self, id: &'a str) -> Option<(Option<Split>, &'a str)> {
        let (top, below) = id.split_once('/')?;
        match self {
            Layout::Splits { .. } => Some((Some(split_called(top)?), below.split_once('/')?.0)),
            Layout::Classes { like_splits } => {
                // An empty folder called `test` is a split to come and not a class.
                let is_class = split_called(top).is_none() || like_splits.iter().any(|folder| folder == top);
                is_class.then_some((None, top))
            }
        }
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Layout::Classes { .. } => write!(f, "folder per class"),
            Layout::Splits { folders } => write!(f, "folder per class, in {}", named(folders, "/")),
        }
    }
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

fn warnings(
    layout: &Layout,
    classes: &BTreeMap<&str, [u64; 3]>,
    without_images: &BTreeSet<&str>,
    declared: &[Split],
) -> Vec<String> {
    let mut warnings = vec![];
    if let Layout::Classes { like_splits } = layout
        && !like_splits.is_empty()
    {
        warnings.push(format!(
            "{} named like a split but standing beside other folders: taken as {}",
            named(like_splits, "/"),
            if like_splits.len() == 1 { "a class" } else { "classes" },
        ));
    }
    let of = |wanted: &dyn Fn(&[u64; 3]) -> bool| -> Vec<&str> {
        classes.iter().filter(|(_, counts)| wanted(counts)).map(|(class, _)| *class).collect()
    };
    let total = |counts: &[u64; 3]| counts.iter().sum::<u64>();
    if classes.len() == 1 {
        warnings
            .push(format!("only one class, {}: there is nothing to tell apart", named(&of(&|_| true), "")));
    }
    let empty = of(&|counts| total(counts) == 0);
    if !empty.is_empty() {
        warnings.push(format!("no image in {}: kept as a class without samples", named(&empty, "/")));
    }
    let single = of(&|counts| total(counts) == 1);
    if !single.is_empty() && declared.iter().all(|split| *split == Split::Train) {
        warnings.push(format!("only one image in {}: it goes to train", named(&single, "/")));
    }
    if declared.iter().any(|split| *split != Split::Train) {
        let untaught = of(&|counts| total(counts) > 0 && counts[Split::Train as usize] == 0);
        if !untaught.is_empty() {
            warnings.push(format!("no train image of {}: a model cannot learn it", named(&untaught, "")));
        }
    }
    if !without_images.is_empty() {
        let folders: Vec<&str> = without_images.iter().copied().collect();
        warnings.push(format!("no image but other files in {}: not a class", named(&folders, "/")));
    }
    warnings
}

/// Up to five names, and how many more there are.
fn named(names: &[impl AsRef<str>], suffix: &str) -> String {
    let shown: Vec<String> = names.iter().take(5).map(|name| format!("{}{suffix}", name.as_ref())).collect();
    let more = match names.len() {
        0..=5 => String::new(),
        n => format!(" and {} more", n - 5),
    };
    shown.join(", ") + &more
}

fn nothing(
    location: &str,
    rejects: &[(crate::sample::SampleId, Fault)],
    ignored: &BTreeMap<String, u64>,
) -> CatalogError {
    let there = match rejects.first() {
        Some((id, fault)) => {
            format!("{} that cannot be used, such as {id} ({})", images(rejects.len()), fault.reason)
        }
        None if ignored.is_empty() => "nothing".to_string(),
        None => {
            let kinds: Vec<String> = ignored.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
            format!("only files that are no images ({})", named(&kinds, ""))
        }
    };
    CatalogError::Correct(format!(
        "no dataset in {location}: it holds {there}; looked for CLASS/IMAGE or train/CLASS/IMAGE with images called          .jpg, .png, .webp, .gif, .bmp, .tif or .ppm"
    ))
}

fn images(n: usize) -> String {
    if n == 1 { "an image".to_string() } else { format!("{n} images") }
}

/// Files that systems leave behind, which are no samples whatever their extension.
fn is_hidden(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b".") || name == b"Thumbs.db" || name == b"__MACOSX"
}

/// A name with what is not UTF-8 as `\xNN` and control characters escaped, so that it prints as one line.
fn printable(name: &OsStr) -> String {
    let mut text = String::new();
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            match character.is_control() {
                true => text.extend(character.escape_default()),
                false => text.push(character),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::read;
    use crate::store::{Store, StoreOptions};
    use futures::executor::block_on;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for file in files {
            let path = folder.path().join(file);
            if file.ends_with('/') {
                fs::create_dir_all(path).expect("a folder");
            } else {
                fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
                fs::write(path, file).expect("a file");
            }
        }
        folder
    }

    fn local(folder: &Path) -> Result<Catalog, CatalogError> {
        let location = folder.to_str().expect("UTF-8");
        block_on(read(&Store::open(location, &StoreOptions::default()).expect("opens")))
    }

    /// The catalog in one line: `CLASSES: ID=LABEL(SPLIT) …`.
    fn summary(catalog: &Catalog) -> String {
        let entries = catalog.entries.iter().map(|entry| match entry.split {
            Some(split) => format!(" {}={}({split})", entry.id, entry.label),
            None => format!(" {}={}", entry.id, entry.label),
        });
        format!("{}:{}", catalog.classes.join(","), entries.collect::<String>())
    }

    fn check(files: &[&str], expected: &str) -> Catalog {
        let catalog = local(folder(files).path()).expect("a catalog");
        assert_eq!(summary(&catalog), expected);
        catalog
    }

    #[test]
    fn a_folder_is_a_class_and_names_are_sorted_by_bytes() {
        let catalog = check(
            &["b/2.JPG", "b/10.png", "a/deep/er/x.WebP", "B/x.tif", "é/x.gif", "b/notes.txt", "README"],
            "B,a,b,é: B/x.tif=0 a/deep/er/x.WebP=1 b/10.png=2 b/2.JPG=2 é/x.gif=3",
        );
        assert_eq!(catalog.layout, "folder per class");
        assert_eq!(catalog.ignored, [(".txt".to_string(), 1), ("(no extension)".to_string(), 1)].into());
        assert_eq!(catalog.entries[2].bytes, 8);
    }

    #[test]
    fn split_folders_go_by_their_synonyms_and_share_the_labels() {
        let catalog = check(
            &[
                "Training/cat/1.jpg",
                "Training/dog/1.jpg",
                "VAL/dog/2.jpg",
                "eval/emu/3.jpg",
                "docs/x.pdf",
                "dev/",
            ],
            "cat,dog,emu: Training/cat/1.jpg=0(train) Training/dog/1.jpg=1(train) VAL/dog/2.jpg=1(validation) \
             eval/emu/3.jpg=2(test)",
        );
        assert_eq!(catalog.declared, Split::ALL);
        assert_eq!(catalog.layout, "folder per class, in Training/, VAL/, eval/");
        assert_eq!(catalog.warnings, ["no train image of emu: a model cannot learn it"]);
    }

    #[test]
    fn a_train_beside_a_plane_is_a_vehicle() {
        let catalog = check(
            &["train/1.jpg", "train/2.jpg", "plane/1.jpg", "plane/2.jpg"],
            "plane,train: plane/1.jpg=0 plane/2.jpg=0 train/1.jpg=1 train/2.jpg=1",
        );
        assert_eq!(
            catalog.warnings,
            ["train/ named like a split but standing beside other folders: taken as a class"]
        );
    }

    #[test]
    fn an_empty_class_folder_keeps_its_class_and_is_named() {
        let catalog = check(
            &["a/1.jpg", "a/2.jpg", "b/", "c/.gitkeep", "d/notes.txt", "test/", "e/1.jpg"],
            "a,b,c,e: a/1.jpg=0 a/2.jpg=0 e/1.jpg=3",
        );
        assert_eq!(
            catalog.warnings,
            [
                "no image in b/, c/: kept as a class without samples",
                "only one image in e/: it goes to train",
                "no image but other files in d/: not a class",
            ]
        );
        assert_eq!(check(&["a/1.jpg", "a/2.jpg"], "a: a/1.jpg=0 a/2.jpg=0").warnings.len(), 1);
        check(&["train/a/1.jpg", "train/b/"], "a,b: train/a/1.jpg=0(train)");
    }

    #[test]
    fn what_systems_leave_behind_is_no_sample() {
        check(
            &[
                "a/x.jpg",
                "a/.y.jpg",
                "a/._x.jpg",
                ".git/b/x.jpg",
                "__MACOSX/a/x.jpg",
                "a/.DS_Store",
                "a/Thumbs.db",
            ],
            "a: a/x.jpg=0",
        );
    }

    #[test]
    fn odd_names_are_ids_and_impossible_ones_are_rejects() {
        let folder =
            folder(&["a/x y.jpg", "a/#1%20.jpg", "a/ü#1.jpg", "a/b..jpg", "a/line\nbreak.jpg", "top.jpg"]);
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt;
            fs::write(folder.path().join("a").join(OsStr::from_bytes(b"l\xe4tin.jpg")), "").expect("a file");
        }
        let catalog = local(folder.path()).expect("a catalog");
        assert_eq!(summary(&catalog), "a: a/#1%20.jpg=0 a/b..jpg=0 a/x y.jpg=0 a/ü#1.jpg=0");
        let rejects: Vec<_> = catalog.rejects.iter().map(|(id, fault)| format!("{id}: {fault}")).collect();
        let reason = "its path holds a control character or is not UTF-8: rename it to something printable";
        assert_eq!(
            rejects,
            [
                format!("a/l\\xe4tin.jpg: catalog: {reason}"),
                format!("a/line\\nbreak.jpg: catalog: {reason}"),
                "top.jpg: catalog: in no class folder".to_string(),
            ]
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_loops_end() {
        use std::os::unix::fs::symlink;
        let elsewhere = folder(&["x/1.jpg"]);
        let folder = folder(&["a/1.jpg", "b/1.jpg"]);
        let path = folder.path();
        symlink(elsewhere.path().join("x"), path.join("c")).expect("a link to a folder");
        symlink(path.join("a/1.jpg"), path.join("b/2.jpg")).expect("a link to a file");
        symlink(path, path.join("a/loop")).expect("a loop");
        symlink(path.join("b"), path.join("a/b")).expect("a link across");
        symlink(path.join("a"), path.join("b/a")).expect("a link back");
        symlink(path.join("gone.jpg"), path.join("a/gone.jpg")).expect("a broken link");
        let catalog = local(path).expect("a catalog");
        assert_eq!(
            summary(&catalog),
            "a,b,c: a/1.jpg=0 a/b/1.jpg=0 a/b/2.jpg=0 b/1.jpg=1 b/2.jpg=1 b/a/1.jpg=1 c/1.jpg=2"
        );
        let rejects: Vec<&str> = catalog.rejects.iter().map(|(id, _)| &**id).collect();
        assert_eq!(rejects, ["a/gone.jpg", "b/a/gone.jpg"]);
    }

    #[test]
    fn a_listing_gives_the_catalog_of_the_folder() {
        let files =
            ["train/b/1.jpg", "train/a/#%20.png", "test/a/2.jpg", "train/a/.x.jpg", "notes.txt", "x.jpg"];
        let store = Store::memory();
        for file in files {
            block_on(store.put(file, file.into())).expect("an object");
        }
        assert_eq!(block_on(read(&store)), local(folder(&files).path()));
    }

    #[test]
    fn a_source_without_images_says_what_was_looked_for() {
        let message = |path: &Path| local(path).expect_err("no catalog").to_string();
        let case = |files: &[&str], expected: &str| {
            let folder = folder(files);
            let message = message(folder.path());
            let start = format!("no dataset in {}: it holds {expected}; looked for", folder.path().display());
            assert!(message.starts_with(&start), "{message}");
        };
        case(&[], "nothing");
        case(&["train/", "test/"], "nothing");
        case(&["a.txt", "b/c.txt", "b/d.csv"], "only files that are no images (1 .csv, 2 .txt)");
        case(&["1.jpg", "2.jpg"], "2 images that cannot be used, such as 1.jpg (in no class folder)");
        case(&["test/2.jpg"], "an image that cannot be used, such as test/2.jpg (in no class folder)");
        let folder = folder(&["x.jpg"]);
        let path = folder.path().join("gone");
        assert_eq!(message(&path), format!("cannot read {}: there is no such folder", path.display()));
        let path = folder.path().join("x.jpg");
        assert_eq!(
            message(&path),
            format!("{} is a file: give the folder that holds one folder per class", path.display())
        );
    }
}
