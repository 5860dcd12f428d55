//! Which samples the model learns from, which choose the best checkpoint, and which it never sees.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::catalog::Catalog;
use crate::sample::{Label, SampleId, Split};
use crate::seed::Seed;

/// The shares of a class that go to each split; they add up to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "[f64; 3]", into = "[f64; 3]")]
pub struct Shares {
    shares: [f64; 3],
}

impl Shares {
    /// The shares of train, validation and test.
    ///
    /// # Errors
    /// One line when a share is below 0 or the sum differs from 1 by more than 10⁻⁶.
    pub fn new(train: f64, validation: f64, test: f64) -> Result<Shares, String> {
        let shares = [train, validation, test];
        if shares.iter().any(|share| !share.is_finite() || *share < 0.0) {
            return Err(format!("{train},{validation},{test}: a share is at least 0"));
        }
        let sum: f64 = shares.iter().sum();
        if (sum - 1.0).abs() > 1e-6 {
            return Err(format!("{train},{validation},{test}: the shares add up to {sum} and not to 1"));
        }
        Ok(Shares { shares })
    }

    /// The share of one split, in `[0, 1]`.
    pub fn of(&self, split: Split) -> f64 {
        self.shares[split as usize]
    }

    /// The first ranks of validation and of test among `n` ranked images: `n` times the cumulative share,
    /// rounded to the nearest whole number (half up), so that each split is within one image of its share.
    /// The first image of a class always goes to train, unless the share of train is 0.
    fn cuts(&self, n: usize) -> (usize, usize) {
        let cut = |share: f64| ((n as f64 * share + 0.5 + 1e-9).floor() as usize).min(n);
        let [train, validation, _] = self.shares;
        let least = usize::from(n > 0 && train > 0.0);
        let validation_from = cut(train).max(least);
        (validation_from, cut(train + validation).max(validation_from))
    }
}

/// 0.8, 0.1 and 0.1.
impl Default for Shares {
    fn default() -> Shares {
        Shares { shares: [0.8, 0.1, 0.1] }
    }
}

/// Three numbers separated by commas: train, validation, test.
impl FromStr for Shares {
    type Err = String;

    fn from_str(text: &str) -> Result<Shares, String> {
        let numbers: Result<Vec<f64>, _> = text.split(',').map(|share| share.trim().parse()).collect();
        match numbers.as_deref() {
            Ok(&[train, validation, test]) => Shares::new(train, validation, test),
            _ => Err(format!("{text}: expected three shares, as in 0.8,0.1,0.1")),
        }
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [train, validation, test] = self.shares;
        write!(f, "{train},{validation},{test}")
    }
}

impl TryFrom<[f64; 3]> for Shares {
    type Error = String;

    fn try_from([train, validation, test]: [f64; 3]) -> Result<Shares, String> {
        Shares::new(train, validation, test)
    }
}

impl From<Shares> for [f64; 3] {
    fn from(shares: Shares) -> [f64; 3] {
        shares.shares
    }
}

/// Reads the setting of a split: `none` (everything is train) or three shares.
///
/// # Errors
/// One line that says what was expected.
pub fn parse(text: &str) -> Result<Option<Shares>, String> {
    match text.trim() {
        "none" => Ok(None),
        text => text.parse().map(Some),
    }
}

/// The split of each entry of the catalog, in its order.
///
/// First comes `previous`, the assignment of an existing manifest; then what the source declares. Where it
/// declares validation or test, no new cut is made and what declares nothing is train. Otherwise the images
/// of each class are ranked by `seed.rank("split", id, 0, 0)` and cut at the shares (rounded, see
/// [`Shares`]); with `None` all are train. A rank depends on no other image.
pub fn assign(
    catalog: &Catalog,
    shares: Option<Shares>,
    seed: Seed,
    previous: &BTreeMap<SampleId, Split>,
) -> Vec<Split> {
    let is_cut_by_source = catalog.declared.iter().any(|split| *split != Split::Train);
    let mut splits: Vec<Split> =
        catalog.entries.iter().map(|entry| entry.split.unwrap_or(Split::Train)).collect();
    if let Some(shares) = shares.filter(|_| !is_cut_by_source) {
        let mut classes: Vec<Vec<(u128, usize)>> = vec![vec![]; catalog.classes.len()];
        for (index, entry) in catalog.entries.iter().enumerate() {
            classes[entry.label as usize].push((seed.rank("split", &entry.id, 0, 0), index));
        }
        for class in &mut classes {
            class.sort_unstable();
            let (validation_from, test_from) = shares.cuts(class.len());
            for (rank, (_, index)) in class.iter().enumerate() {
                splits[*index] = match rank {
                    rank if rank < validation_from => Split::Train,
                    rank if rank < test_from => Split::Validation,
                    _ => Split::Test,
                };
            }
        }
    }
    for (split, entry) in splits.iter_mut().zip(&catalog.entries) {
        if let Some(before) = previous.get(&entry.id) {
            *split = *before;
        }
    }
    splits
}

/// Samples of the train split and of no other: what may be balanced. Its only constructor takes the split of
/// each sample and keeps those of train, so that a test image cannot be repeated or dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainSamples {
    samples: Vec<(SampleId, Label)>,
    classes: usize,
}

impl TrainSamples {
    /// The train samples among `samples`, in their order; labels are below `classes`.
    ///
    /// # Panics
    /// When a label is not below `classes`.
    pub fn among<'a>(
        samples: impl IntoIterator<Item = (&'a SampleId, Label, Split)>,
        classes: usize,
    ) -> TrainSamples {
        let samples: Vec<_> = samples
            .into_iter()
            .filter(|(_, _, split)| *split == Split::Train)
            .map(|(id, label, _)| (SampleId::clone(id), label))
            .collect();
        for (id, label) in &samples {
            assert!((*label as usize) < classes, "{id} has label {label} of {classes} classes");
        }
        TrainSamples { samples, classes }
    }

    /// The train samples of a catalog whose entries have these splits; see [`assign`].
    ///
    /// # Panics
    /// When there is not one split per entry.
    pub fn of(catalog: &Catalog, splits: &[Split]) -> TrainSamples {
        assert_eq!(catalog.entries.len(), splits.len(), "one split per entry");
        let samples =
            catalog.entries.iter().zip(splits).map(|(entry, split)| (&entry.id, entry.label, *split));
        TrainSamples::among(samples, catalog.classes.len())
    }

    /// Name and label of each, in the order they came.
    pub fn samples(&self) -> &[(SampleId, Label)] {
        &self.samples
    }

    /// The number of classes, those without a sample included.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// `[classes]`: the samples of each class.
    pub fn counts(&self) -> Vec<u64> {
        let mut counts = vec![0; self.classes];
        for (_, label) in &self.samples {
            counts[*label as usize] += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Entry, Locator};
    use crate::store::Version;

    /// A catalog of classes with so many images each.
    fn catalog(counts: &[usize], declared: Option<Split>) -> Catalog {
        let mut entries = vec![];
        for (label, count) in (0..).zip(counts) {
            for n in 0..*count {
                let id = format!("{label}/{n}");
                let locator = Locator::whole(id.as_str().into(), 1);
                entries.push(Entry::new(id.into(), label, None, locator, Version::UNKNOWN));
            }
        }
        if let (Some(split), Some(first)) = (declared, entries.first_mut()) {
            first.split = Some(split);
        }
        Catalog {
            layout: String::new(),
            classes: (0..counts.len()).map(|class| class.to_string()).collect(),
            entries,
            rejects: vec![],
            ignored: BTreeMap::new(),
            warnings: vec![],
            declared: declared.into_iter().collect(),
        }
    }

    /// `[classes][splits]`.
    fn counts(catalog: &Catalog, splits: &[Split]) -> Vec<[usize; 3]> {
        let mut counts = vec![[0; 3]; catalog.classes.len()];
        for (entry, split) in catalog.entries.iter().zip(splits) {
            counts[entry.label as usize][*split as usize] += 1;
        }
        counts
    }

    #[test]
    fn every_class_is_cut_at_the_shares_and_keeps_one_for_train() {
        let catalog = catalog(&[1000, 10, 5, 2, 1, 0], None);
        let splits = assign(&catalog, Some(Shares::default()), Seed(0), &BTreeMap::new());
        let expected = [[800, 100, 100], [8, 1, 1], [4, 1, 0], [2, 0, 0], [1, 0, 0], [0, 0, 0]];
        assert_eq!(counts(&catalog, &splits), expected);
        let half = Shares::new(0.2, 0.0, 0.8).expect("shares");
        let splits = assign(&catalog, Some(half), Seed(0), &BTreeMap::new());
        assert_eq!(counts(&catalog, &splits)[3..], [[1, 0, 1], [1, 0, 0], [0, 0, 0]]);
        let splits = assign(&catalog, None, Seed(0), &BTreeMap::new());
        assert!(splits.iter().all(|split| *split == Split::Train));
    }

    #[test]
    fn another_seed_is_another_cut_and_the_same_seed_the_same() {
        let catalog = catalog(&[100], None);
        let cut = |seed| assign(&catalog, Some(Shares::default()), Seed(seed), &BTreeMap::new());
        assert_eq!(cut(1), cut(1));
        assert_ne!(cut(1), cut(2));
    }

    #[test]
    fn a_declared_split_wins_and_an_earlier_assignment_wins_over_it() {
        let shares = Some(Shares::new(0.0, 0.0, 1.0).expect("shares"));
        let with_train = catalog(&[3], Some(Split::Train));
        assert_eq!(assign(&with_train, shares, Seed(0), &BTreeMap::new()), [Split::Test; 3]);
        let with_validation = catalog(&[3], Some(Split::Validation));
        let mut previous = BTreeMap::new();
        let declared = [Split::Validation, Split::Train, Split::Train];
        assert_eq!(assign(&with_validation, shares, Seed(0), &previous), declared);
        previous.insert("0/0".into(), Split::Test);
        let kept = [Split::Test, Split::Train, Split::Train];
        assert_eq!(assign(&with_validation, shares, Seed(0), &previous), kept);
    }

    #[test]
    fn new_images_move_no_old_one() {
        let old = catalog(&[50], None);
        let before = assign(&old, Some(Shares::default()), Seed(0), &BTreeMap::new());
        let previous: BTreeMap<_, _> =
            old.entries.iter().map(|entry| entry.id.clone()).zip(before.clone()).collect();
        let after = assign(&catalog(&[500], None), Some(Shares::default()), Seed(0), &previous);
        assert_eq!(after[..50], before);
        assert_ne!(
            assign(&catalog(&[500], None), Some(Shares::default()), Seed(0), &BTreeMap::new())[..50],
            before
        );
    }

    #[test]
    fn shares_are_read_and_checked() {
        assert_eq!(parse("none"), Ok(None));
        assert_eq!(parse(" 0.8, 0.1,0.1"), Ok(Some(Shares::default())));
        assert_eq!("0.7,0.2,0.1".parse::<Shares>().expect("shares").to_string(), "0.7,0.2,0.1");
        for (text, problem) in [
            ("0.8,0.1", "0.8,0.1: expected three shares, as in 0.8,0.1,0.1"),
            ("a,b,c", "a,b,c: expected three shares, as in 0.8,0.1,0.1"),
            ("0.5,0.5,0.5", "0.5,0.5,0.5: the shares add up to 1.5 and not to 1"),
            ("1.5,-0.5,0", "1.5,-0.5,0: a share is at least 0"),
            ("NaN,0,1", "NaN,0,1: a share is at least 0"),
        ] {
            assert_eq!(parse(text), Err(problem.to_string()));
        }
        let json = serde_json::to_string(&Shares::default()).expect("writes");
        assert_eq!(json, "[0.8,0.1,0.1]");
        assert!(serde_json::from_str::<Shares>("[1.0,1.0,0.0]").is_err());
    }

    #[test]
    fn only_train_can_be_balanced() {
        let catalog = catalog(&[2, 1], None);
        let train = TrainSamples::of(&catalog, &[Split::Test, Split::Train, Split::Validation]);
        assert_eq!(train.samples(), [("0/1".into(), 0)]);
        assert_eq!(train.counts(), [1, 0]);
    }
}
