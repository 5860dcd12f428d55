//! Whether facts beside the picture give its class away: a small tree on each of them alone, cross-validated.
//!
//! A network learns whatever tells classes apart, such as that all pictures of one class came from another camera, and fails
//! where that does not hold. If the width of an image alone predicts its class better than always naming the most common
//! one, that is worth knowing before the training.

use std::collections::{BTreeMap, HashSet};

use forebay_datasets::seed::Seed;
use serde::Serialize;

use super::interval::wilson;

/// The most images that the probe uses, drawn at random: more change no answer.
const IMAGES_MAX: usize = 20_000;

/// Parts of the cross-validation.
const FOLDS: usize = 5;

/// Levels of a tree: at most 16 leaves.
const DEPTH: u32 = 4;

/// The fewest images of a leaf, and their least share of those that the tree is grown on.
const LEAF_MIN: usize = 4;
const LEAF_SHARE: f64 = 0.01;

/// Fewer images say nothing.
const IMAGES_MIN: usize = 20;

/// How sure the probe is that an attribute predicts, all of them together.
const LEVEL: f64 = 0.95;

/// Something that is known of every image beside its picture.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageAttribute {
    /// What it is called.
    pub name: &'static str,
    /// `[columns][images]`: its values; one that an image lacks is any value that no other has.
    pub columns: Vec<Vec<f32>>,
}

/// How well attributes predict the class of an image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShortcutProbe {
    /// Images that it used.
    pub images: u64,
    /// Accuracy of always naming the most common class.
    pub baseline: f64,
    /// The level of each interval: 0.95 for all of them together (Bonferroni).
    pub level: f64,
    /// Each attribute that is not the same everywhere, then all of them together.
    pub attributes: Vec<AttributeAccuracy>,
}

/// How well one attribute predicts the class of an image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttributeAccuracy {
    /// Which it is; `all together` of all.
    pub name: &'static str,
    /// Share of the images whose class a tree of at most 16 leaves predicts, that has not seen them.
    pub accuracy: f64,
    /// Lower end of Wilson's interval.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// Whether the whole interval is above the baseline.
    pub predicts: bool,
}

/// Predicts the classes of images from each attribute alone and from all together, by classification trees (CART with
/// Gini's impurity, Breiman et al. 1984) in a stratified 5-fold cross-validation, and compares the accuracy with that of
/// the most common class. `groups` are `[images]`: of those that show the same picture one is used. `None` where there are fewer
/// than 20 images, a single class, or no attribute that differs.
///
/// # Panics
/// When an attribute, or the groups, have not one value per label.
pub fn shortcut_probe(
    attributes: &[ImageAttribute],
    labels: &[u32],
    groups: &[u32],
    seed: Seed,
) -> Option<ShortcutProbe> {
    assert_eq!(groups.len(), labels.len(), "a group per label");
    for attribute in attributes {
        assert!(attribute.columns.iter().all(|column| column.len() == labels.len()), "a value per label");
    }
    let folds = Folds::of(labels, groups, seed);
    let n = folds.images.len();
    if n < IMAGES_MIN || folds.classes < 2 {
        return None;
    }
    let differs =
        |column: &&Vec<f32>| folds.images.iter().any(|image| column[*image] != column[folds.images[0]]);
    let kept = attributes.iter().filter_map(|attribute| {
        let columns: Vec<&Vec<f32>> = attribute.columns.iter().filter(differs).collect();
        (!columns.is_empty()).then_some((attribute.name, columns))
    });
    let mut tests: Vec<(&'static str, Vec<&Vec<f32>>)> = kept.collect();
    if tests.len() > 1 {
        tests.push(("all together", tests.iter().flat_map(|(_, columns)| columns.iter().copied()).collect()));
    }
    if tests.is_empty() {
        return None;
    }
    let mut counts = vec![0u64; folds.classes];
    folds.labels.iter().for_each(|label| counts[*label as usize] += 1);
    let baseline = counts.iter().copied().max().unwrap_or(0) as f64 / n as f64;
    let level = 1.0 - (1.0 - LEVEL) / tests.len() as f64;
    let attributes = tests
        .into_iter()
        .map(|(name, columns)| {
            let columns: Vec<Vec<f32>> = columns
                .iter()
                .map(|column| folds.images.iter().map(|image| column[*image]).collect())
                .collect();
            let right = folds.right(&columns);
            let (low, high) = wilson(right, n as u64, level);
            let accuracy = right as f64 / n as f64;
            AttributeAccuracy { name, accuracy, low, high, predicts: low > baseline }
        })
        .collect();
    Some(ShortcutProbe { images: n as u64, baseline, level, attributes })
}

/// The images that are used, and the part of the cross-validation that each is in.
struct Folds {
    /// Places among all images.
    images: Vec<usize>,
    /// `[images]`: their classes, counted from 0 without a gap.
    labels: Vec<u32>,
    classes: usize,
    /// `[images]`: below [`FOLDS`].
    fold: Vec<u8>,
}

impl Folds {
    fn of(labels: &[u32], groups: &[u32], seed: Seed) -> Folds {
        let rank = |image: usize| seed.rank("shortcut", &image.to_string(), 0, 0);
        let mut images: Vec<usize> = (0..labels.len()).collect();
        images.sort_by_cached_key(|image| rank(*image));
        // Of what shows the same picture one: a tree that has seen it would know the others, and they tell no more than it.
        let mut seen = HashSet::new();
        images.retain(|image| seen.insert(groups[*image]));
        images.truncate(IMAGES_MAX);
        let mut dense = BTreeMap::new();
        for image in &images {
            let next = dense.len() as u32;
            dense.entry(labels[*image]).or_insert(next);
        }
        let labels: Vec<u32> = images.iter().map(|image| dense[&labels[*image]]).collect();
        // Each class is dealt out by itself, and begins where the one before it stopped, so that parts are even too.
        let mut fold = vec![0; images.len()];
        let mut by_class: Vec<usize> = (0..images.len()).collect();
        by_class.sort_by_key(|at| labels[*at]);
        for (dealt, at) in by_class.into_iter().enumerate() {
            fold[at] = (dealt % FOLDS) as u8;
        }
        Folds { images, labels, classes: dense.len(), fold }
    }

    /// How many images are predicted right by a tree that has not seen them.
    fn right(&self, columns: &[Vec<f32>]) -> u64 {
        let mut right = 0;
        for part in 0..FOLDS as u8 {
            let mut rows: Vec<u32> =
                (0..self.fold.len() as u32).filter(|at| self.fold[*at as usize] != part).collect();
            let leaf = LEAF_MIN.max((rows.len() as f64 * LEAF_SHARE) as usize);
            let grower = Grower { columns, labels: &self.labels, classes: self.classes, leaf };
            let tree = grower.grow(&mut rows, DEPTH);
            let held_out = (0..self.fold.len()).filter(|at| self.fold[*at] == part);
            right += held_out.filter(|at| tree.class(columns, *at) == self.labels[*at]).count() as u64;
        }
        right
    }
}

enum Tree {
    Leaf(u32),
    Split { column: usize, below: f32, sides: Box<[Tree; 2]> },
}

impl Tree {
    fn class(&self, columns: &[Vec<f32>], row: usize) -> u32 {
        match self {
            Tree::Leaf(class) => *class,
            Tree::Split { column, below, sides } => {
                sides[usize::from(columns[*column][row] >= *below)].class(columns, row)
            }
        }
    }
}

struct Grower<'a> {
    columns: &'a [Vec<f32>],
    labels: &'a [u32],
    classes: usize,
    /// The fewest rows of a leaf.
    leaf: usize,
}

impl Grower<'_> {
    fn grow(&self, rows: &mut [u32], depth: u32) -> Tree {
        let mut counts = vec![0i64; self.classes];
        rows.iter().for_each(|row| counts[self.labels[*row as usize] as usize] += 1);
        // Of equally common classes the first.
        let most = (0..self.classes).rev().max_by_key(|class| counts[*class]).unwrap_or(0);
        let leaf = Tree::Leaf(most as u32);
        if depth == 0 || rows.len() < 2 * self.leaf || counts[most] == rows.len() as i64 {
            return leaf;
        }
        let Some((column, below)) = self.best_split(rows, &counts) else { return leaf };
        rows.sort_unstable_by_key(|row| self.columns[column][*row as usize] >= below);
        let n_left = rows.partition_point(|row| self.columns[column][*row as usize] < below);
        let (left, right) = rows.split_at_mut(n_left);
        let sides = Box::new([self.grow(left, depth - 1), self.grow(right, depth - 1)]);
        Tree::Split { column, below, sides }
    }

    /// The column and the threshold that leave the least impurity; `None` where none makes it smaller.
    fn best_split(&self, rows: &[u32], counts: &[i64]) -> Option<(usize, f32)> {
        let n = rows.len();
        let squares = |counts: &[i64]| counts.iter().map(|count| count * count).sum::<i64>();
        let mut best = (squares(counts) as f64 / n as f64 * (1.0 + 1e-9), None);
        let mut sorted = rows.to_vec();
        for (column, values) in self.columns.iter().enumerate() {
            sorted
                .sort_unstable_by(|a, b| values[*a as usize].total_cmp(&values[*b as usize]).then(a.cmp(b)));
            let (mut left, mut right) = (vec![0i64; self.classes], counts.to_vec());
            let (mut left_squares, mut right_squares) = (0, squares(counts));
            for at in 1..n {
                let class = self.labels[sorted[at - 1] as usize] as usize;
                left_squares += 2 * left[class] + 1;
                right_squares -= 2 * right[class] - 1;
                left[class] += 1;
                right[class] -= 1;
                let (before, here) = (values[sorted[at - 1] as usize], values[sorted[at] as usize]);
                if before == here || at < self.leaf || n - at < self.leaf {
                    continue;
                }
                // Sums of squares over sizes: the larger, the purer both sides are.
                let purity = left_squares as f64 / at as f64 + right_squares as f64 / (n - at) as f64;
                if purity > best.0 {
                    best = (purity, Some((column, here)));
                }
            }
        }
        best.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Images of which no two show the same picture.
    fn alone(n: usize) -> Vec<u32> {
        (0..n as u32).collect()
    }

    #[test]
    fn copies_of_an_image_say_no_more_than_one() {
        let mut named = 0;
        for seed in 0..20 {
            let draws = |n: usize| (0..n).map(move |image| Seed(seed).rank("x", &image.to_string(), 0, 0));
            let labels: Vec<u32> = draws(80).map(|rank| (rank % 2) as u32).collect();
            let sizes: Vec<f32> = draws(80).map(|rank| (rank / 2 % 1000) as f32).collect();
            let five = |of: &dyn Fn(usize) -> u32| (0..400).map(|at| of(at / 5)).collect::<Vec<u32>>();
            let columns = vec![(0..400).map(|at| sizes[at / 5]).collect()];
            let probe = shortcut_probe(
                &[ImageAttribute { name: "size", columns }],
                &five(&|image| labels[image]),
                &five(&|image| image as u32),
                Seed(seed),
            );
            let probe = probe.expect("enough images");
            assert_eq!(probe.images, 80);
            named += u32::from(probe.attributes[0].predicts);
        }
        // One of twenty by chance.
        assert!(named <= 3, "{named} of 20");
    }

    fn noise(name: &'static str, n: usize) -> ImageAttribute {
        let mut stream = Seed(3).stream(name);
        ImageAttribute { name, columns: vec![(0..n).map(|_| (stream.bits() % 1000) as f32).collect()] }
    }

    fn named(probe: &ShortcutProbe) -> Vec<&str> {
        probe.attributes.iter().filter(|found| found.predicts).map(|found| found.name).collect()
    }

    #[test]
    fn a_planted_shortcut_is_named_and_nothing_else_is() {
        let labels: Vec<u32> = (0..200).map(|at| at % 4).collect();
        // The third class has wider images, nine times of ten.
        let wide = |at: usize| if at % 4 == 2 && at % 40 != 2 { 640.0 } else { 500.0 + (at % 7) as f32 };
        let width = ImageAttribute { name: "width", columns: vec![(0..200).map(wide).collect()] };
        let constant = ImageAttribute { name: "constant", columns: vec![vec![7.0; 200]] };
        let attributes = [noise("a", 200), width, constant, noise("b", 200)];
        let probe =
            shortcut_probe(&attributes, &labels, &alone(labels.len()), Seed(0)).expect("enough images");
        assert_eq!(named(&probe), ["width", "all together"]);
        let names: Vec<&str> = probe.attributes.iter().map(|found| found.name).collect();
        assert_eq!(names, ["a", "width", "b", "all together"]);
        assert_eq!((probe.images, probe.baseline), (200, 0.25));
        assert!((probe.level - 0.9875).abs() < 1e-12);
        let width = &probe.attributes[1];
        assert!((0.3..0.55).contains(&width.accuracy) && width.low < width.accuracy, "{width:?}");
        assert_eq!(shortcut_probe(&attributes, &labels, &alone(labels.len()), Seed(0)), Some(probe));
    }

    #[test]
    fn nothing_is_named_where_labels_are_shuffled() {
        for seed in 0..20 {
            let mut stream = Seed(seed).stream("labels");
            let labels: Vec<u32> = (0..300).map(|_| (stream.bits() % 10).min(5) as u32).collect();
            let attributes = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|name| noise(name, 300));
            let probe = shortcut_probe(&attributes, &labels, &alone(labels.len()), Seed(seed))
                .expect("enough images");
            assert_eq!(named(&probe), [""; 0], "seed {seed}: {probe:?}");
        }
    }

    #[test]
    fn what_says_nothing_gives_no_probe() {
        let labels = [0, 1].repeat(50);
        assert_eq!(shortcut_probe(&[noise("a", 100)], &[0; 100], &alone(100), Seed(0)), None);
        assert_eq!(shortcut_probe(&[noise("a", 10)], &labels[..10], &alone(10), Seed(0)), None);
        let same = ImageAttribute { name: "same", columns: vec![vec![1.0; 100]] };
        assert_eq!(shortcut_probe(&[same], &labels, &alone(labels.len()), Seed(0)), None);
        // As many classes as images, as in a sample with one of each.
        let each: Vec<u32> = (0..100).collect();
        let probe = shortcut_probe(&[noise("a", 100)], &each, &alone(100), Seed(0)).expect("enough images");
        assert_eq!(named(&probe), [""; 0]);
    }
}
