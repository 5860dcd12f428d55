//! Sources whose classes stand one folder deeper than where they are looked for, such as a repository as it was
//! downloaded: `Dataset/0 … 9` beside `Examples/`.
//!
//! Folders below a class belong to it, and nothing is said where most classes have such folders. Two forms are taken
//! for a mistake:
//!
//! - One folder holds no image itself but at least two folders of images, as many as there are folders at the top or
//!   more, while all other folders at the top together hold no more than a twentieth of the images.
//! - Every folder at the top is named after a split and something else (`training_set`, `seg_test`), and they hold the
//!   same two or more folders of images.

use std::collections::{BTreeMap, BTreeSet};

use super::split_called;

/// What the images outside of one folder may be a part of, so that the folder is taken for the dataset: one in so many.
const OTHERS_PART: usize = 20;

/// Why the folders at the top of a source are hardly its classes, and what was meant; `None` where they may well be.
/// `images` are the names of its images, and `location` says where it is.
pub(super) fn mistake<'a>(location: &str, images: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut tops: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for id in images {
        if let Some((top, below)) = id.split_once('/') {
            tops.entry(top).or_default().push(below);
        }
    }
    let location = location.trim_end_matches('/');
    whole_dataset(location, &tops).or_else(|| splits_by_other_names(&tops))
}

/// One folder is the dataset, and the others lie beside it.
fn whole_dataset(location: &str, tops: &BTreeMap<&str, Vec<&str>>) -> Option<String> {
    let n_images: usize = tops.values().map(Vec::len).sum();
    let (top, images) = tops.iter().max_by_key(|(_, images)| images.len())?;
    if (n_images - images.len()) * OTHERS_PART > n_images {
        return None;
    }
    let (mut place, mut images) = (top.to_string(), images.clone());
    loop {
        let folders = folders(&images)?;
        match folders.keys().next() {
            // Folders around the dataset, each with nothing beside it.
            Some(only) if folders.len() == 1 => {
                place = format!("{place}/{only}");
                images = folders.into_values().next()?;
            }
            _ if folders.len() < tops.len().max(2) => return None,
            _ => {
                return Some(format!(
                    "{place} holds {} folders of images, and nearly all images are in them: did you mean \
                     {location}/{place}? If it is one class, move its images up into it",
                    folders.len()
                ));
            }
        }
    }
}

/// Splits that are not called as splits are.
fn splits_by_other_names(tops: &BTreeMap<&str, Vec<&str>>) -> Option<String> {
    let is_like_one = |name: &str| {
        let mut words = name.split(|c: char| !c.is_alphanumeric());
        words.any(|word| split_called(word.trim_end_matches(|c: char| c.is_ascii_digit())).is_some())
    };
    if tops.len() < 2 || !tops.keys().all(|top| is_like_one(top)) {
        return None;
    }
    let mut of_all: Option<BTreeSet<&str>> = None;
    for images in tops.values() {
        let here: BTreeSet<&str> = folders(images)?.into_keys().collect();
        of_all = Some(match of_all {
            None => here,
            Some(before) => before.intersection(&here).copied().collect(),
        });
    }
    let n_shared = of_all.map_or(0, |shared| shared.len());
    let names: Vec<&str> = tops.keys().copied().collect();
    (n_shared >= 2).then(|| {
        format!(
            "{} hold the same {n_shared} folders of images, which are probably the classes: call them train, \
             validation and test, and they are read as splits",
            names.join(" and ")
        )
    })
}

/// The folders of images among these, and what is in each; `None` where an image stands beside them.
fn folders<'a>(images: &[&'a str]) -> Option<BTreeMap<&'a str, Vec<&'a str>>> {
    let mut folders: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for image in images {
        let (folder, below) = image.split_once('/')?;
        folders.entry(folder).or_default().push(below);
    }
    Some(folders)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `FOLDER*N` stands for N images in a folder.
    fn check(source: &[&str], expected: Option<&str>) {
        let images = source.iter().flat_map(|folder| {
            let (folder, n) = folder.split_once('*').expect("FOLDER*N");
            (0..n.parse::<usize>().expect("a number")).map(move |n| format!("{folder}/{n}.jpg"))
        });
        let images: Vec<String> = images.collect();
        let found = mistake("place/", images.iter().map(String::as_str));
        match (expected, &found) {
            (None, None) => {}
            (Some(words), Some(line)) if line.contains(words) => {}
            _ => panic!("{source:?}: {found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn the_root_of_a_repository_is_told_from_its_dataset() {
        let of_dataset = Some(
            "Dataset holds 3 folders of images, and nearly all images are in them: did you mean place/Dataset?",
        );
        check(&["Dataset/0*30", "Dataset/1*30", "Dataset/2*30", "Examples*3"], of_dataset);
        check(&["Dataset/0*3", "Dataset/1*3", "Dataset/2*3"], of_dataset);
        check(&["data/raw/a*30", "data/raw/b*30", "docs/img*1"], Some("did you mean place/data/raw?"));
        check(&["archive/train/a*3", "archive/test/a*3"], Some("did you mean place/archive?"));
    }

    #[test]
    fn folders_below_classes_belong_to_them() {
        check(&["cat*9", "dog*9"], None);
        check(&["cat/2019*9", "cat/2020*9", "dog/2019*9", "dog/2020*9"], None);
        // Some classes have them and some do not.
        check(&["cat/persian*9", "cat/siamese*9", "dog*9"], None);
        // A rare class beside a common one with folders, and images of the class itself.
        check(&["good/monday*90", "good/tuesday*90", "bad*40"], None);
        check(&["good*1", "good/monday*90", "good/tuesday*90", "good/friday*90", "bad*1"], None);
        // Fewer folders than classes.
        check(&["good/monday*90", "good/tuesday*90", "bad*1", "worse*1"], None);
        check(&["one/only/folder*9"], None);
    }

    #[test]
    fn splits_by_other_names_are_told_from_classes() {
        check(
            &["training_set/cats*9", "training_set/dogs*9", "test_set/cats*9", "test_set/dogs*9"],
            Some("test_set and training_set hold the same 2 folders of images"),
        );
        check(&["seg_train/a*9", "seg_train/b*9", "seg_test/a*9", "seg_test/b*9"], Some("call them train"));
        check(&["test_cards*9", "training_cards*9"], None);
        check(&["train2017*9", "val2017*9"], None);
        check(&["indoor/a*9", "indoor/b*9", "outdoor/a*9", "outdoor/b*9"], None);
    }
}
