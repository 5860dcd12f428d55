//! The layout "one folder per class", with or without `train/`, `validation/` and `test/` above the classes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::listing::{File, Listing};
use super::one_deeper::mistake;
use super::{
    Entry, Layout, LayoutKind, Locator, Misfit, Reading, STAGE, Source, SourceContents, split_called,
};
use crate::sample::{Fault, Label, SampleId, Split};
use crate::words::few;

/// `class/image` or `split/class/image`; folders below a class belong to it.
pub(super) struct FolderPerClass;

impl Layout for FolderPerClass {
    fn kind(&self) -> LayoutKind {
        LayoutKind::Folder
    }

    fn looks_for(&self) -> &'static str {
        "CLASS/IMAGE or train/CLASS/IMAGE with images called .jpg, .png, .webp, .gif, .bmp, .tif or .ppm"
    }

    fn finds(&self, _: &Source<'_>) -> Option<String> {
        None
    }

    fn read<'a>(&'a self, source: &'a Source<'a>) -> Reading<'a> {
        Box::pin(async { contents(source.store.location(), source.listing) })
    }
}

/// Whether there are several folders of images that may be classes.
pub(super) fn may_be_classes(listing: &Listing) -> bool {
    let images: Vec<&File> = listing.files.iter().filter(|file| file.is_image()).collect();
    let stand = ClassFolders::of(&images, listing);
    let mut classes = images.iter().filter_map(|file| Some(stand.place(&file.id)?.1));
    classes.next().is_some_and(|first| classes.any(|class| class != first))
}

/// The split and the class of each image by the folders that it is in, by its id.
pub(super) fn classes_of(listing: &Listing) -> HashMap<&str, (Option<Split>, &str)> {
    let images: Vec<&File> = listing.files.iter().filter(|file| file.is_image()).collect();
    let stand = ClassFolders::of(&images, listing);
    images.iter().filter_map(|file| Some((&*file.id, stand.place(&file.id)?))).collect()
}

/// Brings what stands in a source into contents, which depend on it only and not on the order it was found in.
fn contents(location: &str, listing: &Listing) -> Result<SourceContents, Misfit> {
    let mut ignored = listing.ignored.clone();
    let (images, others): (Vec<&File>, Vec<&File>) = listing.files.iter().partition(|file| file.is_image());
    for file in &others {
        *ignored.entry(file.kind()).or_default() += 1;
    }
    let stand = ClassFolders::of(&images, listing);

    // The class of each file, and whether the folders of a class hold images or something else. An image that cannot
    // be read holds its class, so that the labels of the others stay.
    let mut classes: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
    for file in &images {
        if let Some((split, class)) = stand.place(&file.id) {
            let counts = classes.entry(class).or_default();
            counts[split.unwrap_or(Split::Train) as usize] += u64::from(file.fault.is_none());
        }
    }
    let usable = others.iter().filter(|file| file.fault.is_none());
    let mut without_images: BTreeSet<&str> =
        usable.filter_map(|file| Some(stand.place(&file.id)?.1)).collect();
    // A folder with nothing in it is a class that is still to be filled; one with other files only (notes,
    // annotations) is no class.
    for folder in &listing.empty {
        if let Some((_, class)) = stand.place(folder)
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
    for file in images {
        let fault = match (&file.fault, stand.place(&file.id)) {
            (Some(fault), _) => fault.as_str(),
            (None, None) => "in no class folder",
            (None, Some((split, class))) => {
                let locator = Locator::whole(file.name.clone(), file.bytes);
                entries.push(Entry::new(file.id.clone(), labels[class], split, locator, file.version));
                continue;
            }
        };
        rejects.push((file.id.clone(), Fault::new(STAGE, fault)));
    }
    if entries.is_empty() {
        return Err(Misfit::Holds(held(&rejects, &ignored)));
    }
    let mut warnings = warnings(&stand, &classes, &without_images);
    // What it leads to may be a folder of images, of which none is then seen.
    let lost: Vec<&str> = others.iter().filter(|file| file.fault.is_some()).map(|file| &*file.id).collect();
    if !lost.is_empty() {
        warnings.push(format!("cannot be read, and may be a folder of images: {}", few(&lost)));
    }
    let mistake = match &stand {
        ClassFolders::AtTop { .. } => mistake(location, entries.iter().map(|entry| &*entry.id)),
        ClassFolders::InSplits { .. } => None,
    };
    Ok(SourceContents {
        mistake,
        layout: stand.to_string(),
        classes: classes.keys().map(ToString::to_string).collect(),
        entries,
        rejects,
        ignored,
        warnings,
        declared: stand.declared(),
        unlabelled: Vec::new(),
        kept_columns: Vec::new(),
    })
}

/// Where the classes stand.
#[derive(Debug, PartialEq)]
enum ClassFolders {
    /// `class/image`; with folders that are named like splits but are taken as classes.
    AtTop { like_splits: Vec<String> },
    /// `split/class/image`, with the split folders as they are called, those without a usable image among them.
    InSplits { folders: Vec<String> },
}

impl ClassFolders {
    /// `split/class/image` when every folder at the top that holds images is named like a split. One other
    /// folder makes them all classes: `train` is also a vehicle.
    ///
    /// What counts is which folders there are, and not whether their images can be read: else images would move to
    /// another split because others broke.
    fn of(images: &[&File], listing: &Listing) -> ClassFolders {
        let top = |id: &'_ str| id.split_once('/').map(|(top, _)| top.to_string());
        let tops: BTreeSet<String> = images.iter().filter_map(|file| top(&file.id)).collect();
        // A key of a bucket may begin with an empty part, `.` or `..`, which is no folder.
        let tops = tops.into_iter().filter(|top| !["", ".", ".."].contains(&top.as_str()));
        let (like_splits, others): (Vec<String>, Vec<String>) =
            tops.partition(|top| split_called(top).is_some());
        if like_splits.is_empty() || !others.is_empty() {
            return ClassFolders::AtTop { like_splits };
        }
        let there = listing.files.iter().filter_map(|file| match &file.fault {
            // A broken link at the top, which led to a folder.
            Some(_) if !file.id.contains('/') => Some(file.id.to_string()),
            _ => top(&file.id),
        });
        let there: BTreeSet<String> = there.chain(listing.empty.iter().filter_map(|id| top(id))).collect();
        ClassFolders::InSplits {
            folders: there.into_iter().filter(|top| split_called(top).is_some()).collect(),
        }
    }

    /// The splits that the source declares.
    fn declared(&self) -> BTreeSet<Split> {
        match self {
            ClassFolders::AtTop { .. } => BTreeSet::new(),
            ClassFolders::InSplits { folders } => {
                folders.iter().filter_map(|top| split_called(top)).collect()
            }
        }
    }

    /// The declared split and the class folder of a file; `None` when it stands in no class folder.
    fn place<'a>(&self, id: &'a str) -> Option<(Option<Split>, &'a str)> {
        let (top, below) = id.split_once('/')?;
        // As in a key of a bucket that cannot be asked for.
        let is_folder = |name: &&str| !["", ".", ".."].contains(name);
        match self {
            _ if !is_folder(&top) => None,
            ClassFolders::InSplits { .. } => {
                let class = below.split_once('/').map(|(class, _)| class).filter(is_folder)?;
                Some((Some(split_called(top)?), class))
            }
            ClassFolders::AtTop { like_splits } => {
                // An empty folder called `test` is a split to come and not a class.
                let is_class = split_called(top).is_none() || like_splits.iter().any(|folder| folder == top);
                is_class.then_some((None, top))
            }
        }
    }
}

impl std::fmt::Display for ClassFolders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ClassFolders::AtTop { .. } => write!(f, "folder per class"),
            ClassFolders::InSplits { folders } => write!(f, "folder per class, in {}", few_folders(folders)),
        }
    }
}

fn warnings(
    stand: &ClassFolders,
    classes: &BTreeMap<&str, [u64; 3]>,
    without_images: &BTreeSet<&str>,
) -> Vec<String> {
    let mut warnings = vec![];
    let declared = stand.declared();
    let is_cut_by_source = declared.iter().any(|split| *split != Split::Train);
    if let ClassFolders::AtTop { like_splits } = stand
        && !like_splits.is_empty()
    {
        warnings.push(format!(
            "{} named like a split but standing beside other folders: taken as {}",
            few_folders(like_splits),
            if like_splits.len() == 1 { "a class" } else { "classes" },
        ));
    }
    let of = |wanted: &dyn Fn(&[u64; 3]) -> bool| -> Vec<&str> {
        classes.iter().filter(|(_, counts)| wanted(counts)).map(|(class, _)| *class).collect()
    };
    let total = |counts: &[u64; 3]| counts.iter().sum::<u64>();
    if classes.len() == 1 {
        warnings.push(format!("only one class, {}: there is nothing to tell apart", few(&of(&|_| true))));
    }
    let empty = of(&|counts| total(counts) == 0);
    if !empty.is_empty() {
        warnings.push(format!("no image in {}: kept as a class without samples", few_folders(&empty)));
    }
    let single = of(&|counts| total(counts) == 1);
    if !single.is_empty() && !is_cut_by_source {
        warnings.push(format!("only one image in {}", few_folders(&single)));
    }
    if is_cut_by_source {
        for split in
            declared.iter().filter(|split| classes.values().all(|counts| counts[**split as usize] == 0))
        {
            let ClassFolders::InSplits { folders } = stand else { continue };
            let folders: Vec<&String> =
                folders.iter().filter(|top| split_called(top) == Some(*split)).collect();
            warnings.push(format!(
                "no image that can be used in {}: {split} is declared and stays empty",
                few_folders(&folders)
            ));
        }
        let untaught = of(&|counts| total(counts) > 0 && counts[Split::Train as usize] == 0);
        if !untaught.is_empty() {
            warnings.push(format!("no train image of {}: a model cannot learn it", few(&untaught)));
        }
    }
    if !without_images.is_empty() {
        let folders: Vec<&str> = without_images.iter().copied().collect();
        warnings.push(format!("no image but other files in {}: not a class", few_folders(&folders)));
    }
    warnings
}

/// What a source holds that has no sample, as it reads after "it holds".
fn held(rejects: &[(SampleId, Fault)], ignored: &BTreeMap<String, u64>) -> String {
    match rejects.first() {
        Some((id, fault)) => {
            format!("{} that cannot be used, such as {id} ({})", images(rejects.len()), fault.reason)
        }
        None if ignored.is_empty() => "nothing".to_string(),
        None => {
            let kinds: Vec<String> = ignored.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
            format!("only files that are no images ({})", few(&kinds))
        }
    }
}

fn images(n: usize) -> String {
    if n == 1 { "an image".to_string() } else { format!("{n} images") }
}

/// Up to five folders, and how many more there are.
fn few_folders(names: &[impl AsRef<str>]) -> String {
    few(&names.iter().map(|name| format!("{}/", name.as_ref())).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::catalog::{Catalog, CatalogError, LayoutOptions, read};
    use crate::seed::Seed;
    use crate::split::{Assignment, HashSplit, SplitRule};
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
        block_on(read(
            &Store::open(location, &StoreOptions::default()).expect("opens"),
            &LayoutOptions::default(),
        ))
    }

    /// The catalog in one line: `CLASSES: ID=LABEL(SPLIT) …`.
    fn summary(catalog: &Catalog) -> String {
        let entries = catalog.entries().iter().map(|entry| match entry.split {
            Some(split) => format!(" {}={}({split})", entry.id, entry.label),
            None => format!(" {}={}", entry.id, entry.label),
        });
        format!("{}:{}", catalog.classes().join(","), entries.collect::<String>())
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
        assert_eq!(catalog.layout(), "folder per class");
        assert_eq!(*catalog.ignored(), [(".txt".to_string(), 1), ("(no extension)".to_string(), 1)].into());
        assert_eq!(catalog.entries()[2].bytes(), 8);
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
        assert!(catalog.declares_splits());
        assert_eq!(catalog.layout(), "folder per class, in Training/, VAL/, dev/, eval/");
        assert_eq!(catalog.warnings(), ["no train image of emu: a model cannot learn it"]);
    }

    #[test]
    fn a_train_beside_a_plane_is_a_vehicle() {
        let catalog = check(
            &["train/1.jpg", "train/2.jpg", "plane/1.jpg", "plane/2.jpg"],
            "plane,train: plane/1.jpg=0 plane/2.jpg=0 train/1.jpg=1 train/2.jpg=1",
        );
        assert_eq!(
            catalog.warnings(),
            ["train/ named like a split but standing beside other folders: taken as a class"]
        );
    }

    #[test]
    fn a_split_is_declared_by_the_folder_that_is_there_whatever_it_holds() {
        let declares = |files: &[&str]| local(folder(files).path()).expect("a catalog").declares_splits();
        assert!(!declares(&["train/a/1.jpg", "train/b/1.jpg"]), "a train folder alone declares nothing");
        for other in ["test/", "test/a/", "test/notes.txt", "VAL/a/2.jpg", "dev/.gitkeep"] {
            assert!(declares(&["train/a/1.jpg", "train/b/1.jpg", other]), "{other}");
        }
        for other in ["docs/", "notes.txt", "test"] {
            assert!(!declares(&["train/a/1.jpg", "train/b/1.jpg", other]), "{other}");
        }
        assert!(!declares(&["a/1.jpg", "b/1.jpg", "test/"]), "classes at the top");
        let said = check(
            &["train/a/1.jpg", "train/a/2.jpg", "train/b/3.jpg", "test/a/"],
            "a,b: train/a/1.jpg=0(train) train/a/2.jpg=0(train) train/b/3.jpg=1(train)",
        );
        assert_eq!(said.warnings(), ["no image that can be used in test/: test is declared and stays empty"]);
    }

    /// Faults, additions and the removal of images from folders that stay move no other image and no label: the
    /// folders decide, and not what can be read in them.
    #[test]
    fn nothing_that_happens_to_other_images_moves_one_in_a_source_of_any_shape() {
        let file = |id: &str| File {
            id: id.into(),
            name: id.into(),
            bytes: 1,
            version: crate::store::Version::UNKNOWN,
            fault: None,
        };
        let shapes: [&[&str]; 4] = [
            &["train/a", "train/b", "val/a", "test/a", "test/b"],
            &["train/a", "train/b", "test/a"],
            &["train/a", "train/b"],
            &["train", "test", "plane"],
        ];
        for seed in 0..200 {
            let mut draws = Seed(seed).stream("faults");
            let mut draw = |n: u64| draws.bits() % n;
            let folders = shapes[seed as usize % shapes.len()];
            let mut listing = Listing::default();
            for folder in folders {
                listing.files.extend((0..3).map(|n| file(&format!("{folder}/{n}.jpg"))));
            }
            let splits = |listing: &Listing| -> Option<BTreeMap<SampleId, (Split, String)>> {
                let catalog = Catalog::new(contents("place", listing).ok()?).ok()?;
                let rule = SplitRule::of(&catalog, Some(HashSplit { seed, ..HashSplit::default() }));
                let splits = Assignment::of(&catalog, rule, None).splits(&catalog);
                let entries = catalog.entries().iter().zip(splits);
                let class = |entry: &Entry| catalog.classes()[entry.label as usize].clone();
                Some(entries.map(|(entry, split)| (entry.id.clone(), (split, class(entry)))).collect())
            };
            let before = splits(&listing).expect("a catalog");
            // All of a folder breaks, some of each, some go, some come, and notes are taken.
            let doomed = folders[draw(folders.len() as u64) as usize];
            for file in &mut listing.files {
                if file.id.starts_with(&format!("{doomed}/")) || draw(4) == 0 {
                    file.fault = Some("cannot be read: permission denied".to_string());
                }
            }
            listing.files.retain(|_| draw(5) > 0);
            listing.empty.extend(folders.iter().map(|folder| format!("{folder}/")));
            for folder in folders {
                listing.files.extend((3..3 + draw(3)).map(|n| file(&format!("{folder}/{n}.jpg"))));
                listing.files.extend((0..draw(2)).map(|n| file(&format!("{folder}/{n}.txt"))));
            }
            let Some(after) = splits(&listing) else { continue };
            for (id, place) in before.iter().filter(|(id, _)| after.contains_key(*id)) {
                assert_eq!(&after[id], place, "{id}, seed {seed}, {doomed} broken");
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_broken_link_to_the_test_folder_is_named_and_moves_no_train_image() {
        use std::os::unix::fs::symlink;
        let folder = folder(&["train/a/1.jpg", "train/a/2.jpg", "train/b/1.jpg", "train/b/2.jpg"]);
        symlink("/nowhere/at/all", folder.path().join("test")).expect("a link");
        let catalog = local(folder.path()).expect("a catalog");
        assert!(catalog.declares_splits());
        let warnings = catalog.warnings().join("\n");
        assert!(warnings.contains("cannot be read, and may be a folder of images: test"), "{warnings}");
    }

    #[test]
    fn an_empty_class_folder_keeps_its_class_and_is_named() {
        let catalog = check(
            &["a/1.jpg", "a/2.jpg", "b/", "c/.gitkeep", "d/notes.txt", "test/", "e/1.jpg"],
            "a,b,c,e: a/1.jpg=0 a/2.jpg=0 e/1.jpg=3",
        );
        assert_eq!(
            catalog.warnings(),
            [
                "no image in b/, c/: kept as a class without samples",
                "only one image in e/",
                "no image but other files in d/: not a class",
            ]
        );
        assert_eq!(check(&["a/1.jpg", "a/2.jpg"], "a: a/1.jpg=0 a/2.jpg=0").warnings().len(), 1);
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

    #[cfg(unix)]
    #[test]
    fn names_of_any_kind_are_samples_with_unique_printable_ids() {
        use std::os::unix::ffi::OsStrExt;
        let folder = folder(&[
            "a/x y.jpg",
            "a/#1%20.jpg",
            "a/ü#1.jpg",
            "a/b..jpg",
            "a/line\nbreak.jpg",
            "a/next\u{85}line.jpg",
            "top.jpg",
            // The literal name that the escape of the byte below would have, did it not escape itself.
            "a/bad-\\xff.png",
        ]);
        fs::write(folder.path().join("a").join(OsStr::from_bytes(b"bad-\xff.png")), "a byte")
            .expect("a file");
        let catalog = local(folder.path()).expect("a catalog");
        assert_eq!(
            summary(&catalog),
            "a: a/#1%20.jpg=0 a/b..jpg=0 a/bad-\\\\xff.png=0 a/bad-\\xff.png=0 a/line\\nbreak.jpg=0 \
             a/next\\u{85}line.jpg=0 a/x y.jpg=0 a/ü#1.jpg=0"
        );
        let rejects: Vec<_> = catalog.rejects().iter().map(|(id, fault)| format!("{id}: {fault}")).collect();
        assert_eq!(rejects, ["top.jpg: catalog: in no class folder"]);
        let location = folder.path().to_str().expect("UTF-8");
        let store = Store::open(location, &StoreOptions::default()).expect("opens");
        for entry in catalog.entries() {
            let bytes = block_on(entry.locator.read(&store)).expect("each can be read");
            assert_eq!(bytes.len() as u64, entry.bytes(), "{}", entry.id);
        }
        assert_eq!(block_on(catalog.entries()[3].locator.read(&store)).expect("the byte's"), "a byte");
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
        let rejects: Vec<&str> = catalog.rejects().iter().map(|(id, _)| &**id).collect();
        assert_eq!(rejects, ["a/gone.jpg", "b/a/gone.jpg"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_real_folder_is_read_once_per_class_however_many_links_lead_to_it() {
        use std::os::unix::fs::symlink;
        let names: Vec<String> = (0..9).map(|n| format!("c{n}")).collect();
        for above in ["", "train/"] {
            let files: Vec<String> = names.iter().map(|name| format!("{above}{name}/x.jpg")).collect();
            let folder = folder(&files.iter().map(String::as_str).collect::<Vec<_>>());
            let path = folder.path().join(above);
            for name in &names {
                for other in names.iter().filter(|other| *other != name) {
                    symlink(path.join(other), path.join(name).join(other)).expect("a link");
                }
            }
            let catalog = local(folder.path()).expect("a catalog");
            // Each class holds its own image and those of the eight others: the links multiply nothing.
            assert_eq!(catalog.classes().len(), 9, "{above}");
            assert_eq!(catalog.entries().len(), 81, "{above}");
            assert_eq!(Ok(catalog), local(folder.path()), "{above}");
        }
        // The way without a link is the one that counts.
        let folder = folder(&["a/z/1.jpg", "a/2.jpg", "b/1.jpg"]);
        symlink(folder.path().join("a/z"), folder.path().join("a/k")).expect("a link");
        check_folder(folder.path(), "a,b: a/2.jpg=0 a/z/1.jpg=0 b/1.jpg=1");
    }

    fn check_folder(path: &Path, expected: &str) {
        assert_eq!(summary(&local(path).expect("a catalog")), expected);
    }

    #[cfg(unix)]
    #[test]
    fn a_named_pipe_is_no_image() {
        let folder = folder(&["a/1.jpg", "b/1.jpg"]);
        let made = std::process::Command::new("mkfifo").arg(folder.path().join("a/2.jpg")).status();
        assert!(made.expect("mkfifo runs").success());
        let catalog = local(folder.path()).expect("a catalog");
        assert_eq!(summary(&catalog), "a,b: a/1.jpg=0 b/1.jpg=1");
        assert_eq!(*catalog.ignored(), [("(not a file)".to_string(), 1)].into());
    }

    #[test]
    fn a_file_changed_in_place_is_the_same_sample_of_another_version() {
        let folder = folder(&["a/1.jpg", "a/2.jpg", "b/1.jpg"]);
        let before = local(folder.path()).expect("a catalog");
        let path = folder.path().join("a/2.jpg");
        fs::write(&path, "A/2.JPG").expect("as many other bytes");
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(2);
        fs::File::options().write(true).open(path).expect("it").set_modified(later).expect("a time");
        let after = local(folder.path()).expect("a catalog");
        let differ: Vec<&str> = before
            .entries()
            .iter()
            .zip(after.entries())
            .filter(|(before, after)| before.version != after.version)
            .map(|(before, _)| &*before.id)
            .collect();
        assert_eq!(differ, ["a/2.jpg"]);
        assert_eq!(summary(&before), summary(&after));
    }

    #[test]
    fn a_listing_gives_the_catalog_of_the_folder() {
        let files =
            ["train/b/1.jpg", "train/a/#%20.png", "test/a/2.jpg", "train/a/.x.jpg", "notes.txt", "x.jpg"];
        let store = Store::memory();
        for file in files {
            block_on(store.put(file, file.into())).expect("an object");
        }
        // But for the versions, which are those of the store.
        let unversioned = |catalog: Result<Catalog, CatalogError>| {
            let catalog = catalog.expect("a catalog");
            let rejects = catalog.rejects().to_vec();
            let said = (catalog.layout().to_string(), catalog.ignored().clone(), catalog.warnings().to_vec());
            (summary(&catalog), rejects, said)
        };
        let files = folder(&files);
        assert_eq!(
            unversioned(block_on(read(&store, &LayoutOptions::default()))),
            unversioned(local(files.path()))
        );
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
