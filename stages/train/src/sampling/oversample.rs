//! Rows of rare classes made of rows that are there: SMOTE, borderline SMOTE and ADASYN.

use forebay_datasets::seed::Seed;

use super::{FeatureRows, by_class};
use crate::ops::nearest;

/// How rows are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oversampling {
    /// Between any row of a class and one of its five nearest of that class (Chawla et al. 2002, arXiv 1106.1813).
    Smote,
    /// The same, from rows in danger only: at least half of their ten nearest neighbours are of other classes, but not all
    /// (Han et al. 2005, borderline-1).
    BorderlineSmote,
    /// More from rows with more neighbours of other classes among their five nearest (He et al. 2008).
    Adasyn,
}

/// Neighbours between which rows are made, and those that say whether a row is in danger, as in imbalanced-learn.
const NEIGHBOURS: usize = 5;
const NEIGHBOURS_OF_DANGER: usize = 10;

/// A row that was made: `base + gap · (neighbour - base)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Synthetic {
    /// The number of a row.
    pub base: u32,
    /// That of another one of its class; its own where the class has no other.
    pub neighbour: u32,
    /// In `[0, 1)`.
    pub gap: f64,
}

impl Synthetic {
    /// The features, in single precision as the rows are.
    pub fn features(&self, rows: FeatureRows<'_>) -> impl Iterator<Item = f32> {
        let gap = self.gap;
        let pairs = rows.row(self.base).iter().zip(rows.row(self.neighbour));
        pairs.map(move |(base, other)| {
            (f64::from(*base) + gap * (f64::from(*other) - f64::from(*base))) as f32
        })
    }
}

/// What [`oversample`] made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Oversampled {
    /// The rows, class by class.
    pub rows: Vec<Synthetic>,
    /// Classes with one row, which is repeated: there is no other to go towards.
    pub repeated: Vec<u32>,
    /// Classes of which no row lies near others, so that rows were made of any of them.
    pub unthreatened: Vec<u32>,
}

/// Makes rows until each class `c` has `targets[c]`, or with ADASYN about so many, since each row's share is rounded; a class
/// that has as many stays, and so does one without rows.
///
/// The draws are those of `seed`, a stream for each class.
///
/// # Panics
/// When there is not one label for each row, or one is none of `targets`.
pub fn oversample(
    rows: FeatureRows<'_>,
    labels: &[u32],
    targets: &[usize],
    method: Oversampling,
    seed: Seed,
) -> Oversampled {
    assert_eq!(rows.len(), labels.len(), "a label for each row");
    let mut made = Oversampled::default();
    for (class, own) in by_class(labels, targets.len()).into_iter().enumerate() {
        let wanted = targets[class].saturating_sub(own.len());
        if own.is_empty() || wanted == 0 {
            continue;
        }
        let mut stream = seed.stream(&format!("oversample/{class}"));
        if let [only] = own[..] {
            made.repeated.push(class as u32);
            made.rows.extend(vec![Synthetic { base: only, neighbour: only, gap: 0.0 }; wanted]);
            continue;
        }
        // Bases, and how many rows are made from each; without a number any of them may be drawn.
        let (mut bases, mut numbers) = (own.clone(), None);
        match method {
            Oversampling::Smote => {}
            Oversampling::BorderlineSmote => {
                let danger = in_danger(rows, labels, &own);
                match danger.is_empty() {
                    true => made.unthreatened.push(class as u32),
                    false => bases = danger,
                }
            }
            Oversampling::Adasyn => {
                let found = adasyn_numbers(&threats(rows, labels, &own, NEIGHBOURS), wanted);
                match found.iter().sum::<usize>() {
                    0 => made.unthreatened.push(class as u32),
                    _ => numbers = Some(found),
                }
            }
        }
        let k = NEIGHBOURS.min(own.len() - 1);
        let neighbours = nearest(rows.values, rows.width, &bases, &own, k);
        let mut draw = |base: usize, made: &mut Vec<Synthetic>| {
            let neighbour = neighbours[base][stream.below(k as u64) as usize];
            made.push(Synthetic { base: bases[base], neighbour, gap: stream.unit() });
        };
        match numbers {
            Some(numbers) => {
                for (base, number) in numbers.into_iter().enumerate() {
                    (0..number).for_each(|_| draw(base, &mut made.rows));
                }
            }
            None => {
                let mut which = seed.stream(&format!("oversample/{class}/base"));
                for _ in 0..wanted {
                    draw(which.below(bases.len() as u64) as usize, &mut made.rows);
                }
            }
        }
    }
    made
}

/// How many of the `k` nearest of all rows are of other classes, for each of these of one class.
pub(super) fn threats(rows: FeatureRows<'_>, labels: &[u32], own: &[u32], k: usize) -> Vec<usize> {
    let all: Vec<u32> = (0..labels.len() as u32).collect();
    let found = nearest(rows.values, rows.width, own, &all, k);
    let of_row = |(row, found): (&u32, Vec<u32>)| {
        found.iter().filter(|other| labels[**other as usize] != labels[*row as usize]).count()
    };
    own.iter().zip(found).map(of_row).collect()
}

/// Those of these rows of one class of whose ten nearest at least half are of other classes, but not all.
pub(super) fn in_danger(rows: FeatureRows<'_>, labels: &[u32], own: &[u32]) -> Vec<u32> {
    let k = NEIGHBOURS_OF_DANGER.min(rows.len() - 1);
    let threats = threats(rows, labels, own, k);
    let danger = own.iter().zip(threats).filter(|(_, n)| 2 * n >= k && *n < k);
    danger.map(|(row, _)| *row).collect()
}

/// How many rows ADASYN makes of each, in proportion to its neighbours of other classes, rounded to even as by NumPy; none
/// where no row has such neighbours. Where each share is below one half (imbalanced-learn refuses that), the rows with the most
/// such neighbours get one.
pub(super) fn adasyn_numbers(threats: &[usize], wanted: usize) -> Vec<usize> {
    let all: usize = threats.iter().sum();
    let number = |&threats: &usize| match all {
        0 => 0,
        _ => (threats as f64 / all as f64 * wanted as f64).round_ties_even() as usize,
    };
    let numbers: Vec<usize> = threats.iter().map(number).collect();
    if numbers.iter().any(|number| *number > 0) || all == 0 {
        return numbers;
    }
    let mut order: Vec<usize> = (0..threats.len()).filter(|row| threats[*row] > 0).collect();
    order.sort_by_key(|row| std::cmp::Reverse(threats[*row]));
    let mut numbers = numbers;
    order.iter().cycle().take(wanted).for_each(|row| numbers[*row] += 1);
    numbers
}
