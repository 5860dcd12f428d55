//! How long does a search for duplicates take, and how many of them does it find? Pictures are changed in known ways, and
//! looked for again.
//!
//! `FOREBAY_IMAGES=FOLDER cargo bench -p forebay-stages --bench duplicates` takes the fingerprints of all files below a
//! folder with two threads and joins them; then it plants changed copies of every tenth image, at most 2,000, and prints
//! for each kind of change how many were joined with their original (recall), and how many of the links that begin or end at such
//! a copy are between images of one origin (precision; images that are alike before anything is planted are of one origin).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use forebay_datasets::duplicates::{Duplicates, Fingerprint, find};
use forebay_datasets::sample::{Encoded, Pixels, SampleId};
use forebay_datasets::seed::Seed;
use forebay_stages::augment::HorizontalFlip;
use forebay_stages::decode::Decode;
use forebay_stages::encode::{Encode, Encoding};
use forebay_stages::fingerprint::Fingerprinting;
use forebay_stages::resize::{Filter, Fit, Resize, Size};
use forebay_stages::stage::Stage;

const THREADS: usize = 2;

/// Every how many images one is changed, and at most how many are.
const PLANTED: (usize, usize) = (10, 2_000);

const KINDS: [&str; 5] = ["exact", "quality 50", "resized 0.7", "flipped", "cropped 5 %"];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

fn decoded(bytes: Vec<u8>) -> Option<Pixels> {
    Decode::default().apply(Encoded { bytes: bytes.into() }, &Seed(0).draws("bench", 0, 0)).ok()
}

fn print(pixels: Pixels) -> Fingerprint {
    Fingerprinting.apply(pixels, &Seed(0).draws("bench", 0, 0)).expect("any image has one")
}

/// An image after it was changed in a way of [`KINDS`].
fn changed(image: &Pixels, kind: usize) -> Pixels {
    let draws = Seed(0).draws("bench", 0, 0);
    let again = |pixels: Pixels, quality: u8| {
        let stored = Encode { encoding: Encoding::Jpeg { quality, restarts: false } }
            .apply(pixels, &draws)
            .expect("a JPEG");
        decoded(stored.bytes.to_vec()).expect("what was written")
    };
    let (width, height) = (image.width, image.height);
    match kind {
        0 => image.clone(),
        1 => again(image.clone(), 50),
        2 => {
            let side = (f64::from(width.min(height)) * 0.7).round() as u32;
            let resize = Resize {
                size: Size::Side(side),
                fit: Fit::Shortest,
                filter: Filter::Bilinear,
                ..Resize::default()
            };
            again(resize.apply(image.clone(), &draws).expect("a smaller one"), 90)
        }
        3 => again(HorizontalFlip { probability: 1.0 }.apply(image.clone(), &draws).expect("mirrored"), 90),
        _ => {
            // 5 % of each side is cut away, a fifth of it on the left and at the top.
            let [cut_width, cut_height] = [width, height].map(|side| (side as f64 * 0.95).round() as u32);
            let (left, top) = ((width - cut_width) / 5, (height - cut_height) / 5);
            let rows = (top..top + cut_height).flat_map(|y| {
                let start = (y * width + left) as usize * 3;
                image.data[start..start + cut_width as usize * 3].iter().copied()
            });
            again(Pixels::new(cut_width, cut_height, rows.collect()), 90)
        }
    }
}

/// `work` of each item, by two threads.
fn of_each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let part = items.len().div_ceil(THREADS).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = items
            .chunks(part)
            .map(|part| scope.spawn(|| part.iter().map(&work).collect::<Vec<R>>()))
            .collect();
        parts.into_iter().flat_map(|part| part.join().expect("it does not panic")).collect()
    })
}

fn main() {
    let Some(folder) = std::env::var_os("FOREBAY_IMAGES") else { return };
    let mut paths = Vec::new();
    files(Path::new(&folder), &mut paths);
    paths.sort();
    let begin = Instant::now();
    let prints: Vec<Option<Fingerprint>> =
        of_each(&paths, |path| decoded(std::fs::read(path).expect("a file")).map(print));
    let looked = begin.elapsed();
    let (paths, prints): (Vec<PathBuf>, Vec<Fingerprint>) =
        paths.into_iter().zip(prints).filter_map(|(path, print)| Some((path, print?))).unzip();
    let ids: Vec<SampleId> = paths.iter().map(|path| path.to_string_lossy().into()).collect();
    let begin = Instant::now();
    let natural = find(&ids, &prints);
    let joined = begin.elapsed();
    println!(
        "{} images: fingerprints {:.1} s with {THREADS} threads, search {:.1} s, {} groups of {} images",
        ids.len(),
        looked.as_secs_f64(),
        joined.as_secs_f64(),
        natural.groups(&ids).len(),
        natural.groups(&ids).iter().map(Vec::len).sum::<usize>()
    );
    planted(&paths, ids, prints, &natural);
}

fn planted(paths: &[PathBuf], mut ids: Vec<SampleId>, mut prints: Vec<Fingerprint>, natural: &Duplicates) {
    let (step, most) = PLANTED;
    let origins: Vec<usize> = (0..paths.len()).step_by(step).take(most).collect();
    let made: Vec<Vec<Fingerprint>> = of_each(&origins, |origin| {
        let image = decoded(std::fs::read(&paths[*origin]).expect("a file")).expect("it was decoded before");
        (0..KINDS.len()).map(|kind| print(changed(&image, kind))).collect()
    });
    // The origin of each image, and how it was changed.
    let mut origin_of: Vec<u32> = natural.group.clone();
    let mut kind_of: HashMap<u32, usize> = HashMap::new();
    for (origin, made) in origins.iter().zip(made) {
        for (kind, made) in made.into_iter().enumerate() {
            kind_of.insert(ids.len() as u32, kind);
            origin_of.push(natural.group[*origin]);
            ids.push(format!("{} {kind}", ids[*origin]).into());
            prints.push(made);
        }
    }
    let found = find(&ids, &prints);
    for (kind, name) in KINDS.iter().enumerate() {
        let of_kind = |index: &u32| kind_of.get(index) == Some(&kind);
        let copies: Vec<u32> = (0..ids.len() as u32).filter(of_kind).collect();
        let is_found = |copy: &&u32| {
            let origin = origins[origin_place(**copy, paths.len())];
            found.group[**copy as usize] == found.group[origin]
        };
        let recalled = copies.iter().filter(is_found).count();
        let links = || found.links.iter().filter(|link| of_kind(&link.first) || of_kind(&link.second));
        let right = links().filter(|link| origin_of[link.first as usize] == origin_of[link.second as usize]);
        println!(
            "  {name:<12} recall {:.4} of {}, precision {:.4} of {} links",
            recalled as f64 / copies.len().max(1) as f64,
            copies.len(),
            right.count() as f64 / links().count().max(1) as f64,
            links().count()
        );
    }
}

/// The place of the original of a planted image among those that were changed.
fn origin_place(copy: u32, originals: usize) -> usize {
    (copy as usize - originals) / KINDS.len()
}
