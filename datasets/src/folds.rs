//! Folds of a cross-validation: which part of the samples is held out in which of the trainings.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::groups::ClassGroups;
use crate::sample::{Label, SampleId};
use crate::seed::Seed;

/// One of the trainings of a cross-validation: the part of the samples with this number is held out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fold {
    index: u32,
    folds: u32,
}

impl Fold {
    /// Fold `index`, counted from 0, of `folds`; `None` unless `index` is below `folds` and there are two or more.
    pub fn new(index: u32, folds: u32) -> Option<Fold> {
        (folds >= 2 && index < folds).then_some(Fold { index, folds })
    }

    /// Its number, counted from 0.
    pub fn index(self) -> u32 {
        self.index
    }

    /// How many there are.
    pub fn folds(self) -> u32 {
        self.folds
    }
}

/// A class that has fewer samples, or groups of samples that stay together, than there are folds: some fold would be
/// tested on none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFew {
    /// The class.
    pub label: Label,
    /// How many groups it has: samples that stay together are one.
    pub groups: usize,
}

/// The number of the fold in which each row is held out; a row is the name of its group, and its class. Rows of one group,
/// such as the copies of an image, are held out together. Without groups the folds differ by one sample at most in each class
/// and over all classes; with groups each goes to the fold that has the least of its class, rare classes and large groups
/// first. A group of several classes counts for each by its rows of it.
///
/// # Errors
/// Every class with rows that has fewer groups than there are folds.
pub fn deal(rows: &[(SampleId, Label)], folds: u32, seed: Seed) -> Result<Vec<u32>, Vec<TooFew>> {
    let groups = ClassGroups::of(rows.iter().map(|(group, label)| (group, *label)));
    let few: Vec<TooFew> = (0..)
        .zip(groups.groups_of_classes())
        .filter(|(_, n)| *n > 0 && *n < folds as usize)
        .map(|(label, groups)| TooFew { label, groups })
        .collect();
    if !few.is_empty() {
        return Err(few);
    }
    let mut fold_of: HashMap<&SampleId, u32> = HashMap::new();
    let mut in_class = vec![vec![0; folds as usize]; groups.totals.len()];
    let mut in_all = vec![0; folds as usize];
    for (label, mut of_class) in groups.by_rarest_class() {
        of_class.sort_by_cached_key(|(group, n)| (Reverse(*n), seed.rank("folds", group, 0, 0)));
        for (group, _) in of_class {
            // By the whole, no fold gets the odd one of every class.
            let held = &in_class[label as usize];
            let fold = (0..folds as usize).min_by_key(|fold| (held[*fold], in_all[*fold], *fold));
            let fold = fold.expect("two folds or more");
            for (label, n) in &groups.counts[group] {
                in_class[*label as usize][fold] += n;
                in_all[fold] += n;
            }
            fold_of.insert(group, fold as u32);
        }
    }
    Ok(rows.iter().map(|(group, _)| fold_of[group]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(counts: &[usize]) -> Vec<(SampleId, Label)> {
        let of_class = |(label, n): (usize, &usize)| {
            (0..*n).map(move |i| (format!("{label}/{i}").into(), label as Label)).collect::<Vec<_>>()
        };
        counts.iter().enumerate().flat_map(of_class).collect()
    }

    #[test]
    fn folds_are_stratified_and_of_nearly_equal_size() {
        for folds in [2, 3, 5, 10] {
            let rows = rows(&[10, 11, 0, 37, 101]);
            let dealt = deal(&rows, folds, Seed(3)).expect("every class has enough");
            let count = |label: Option<Label>, fold: u32| {
                let is_it =
                    |((_, l), f): &(&(SampleId, Label), &u32)| label.is_none_or(|x| x == *l) && **f == fold;
                rows.iter().zip(&dealt).filter(is_it).count()
            };
            for label in [None, Some(0), Some(1), Some(3), Some(4)] {
                let counts: Vec<usize> = (0..folds).map(|fold| count(label, fold)).collect();
                let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
                assert!(*least > 0 && most - least <= 1, "{folds} folds, {label:?}: {counts:?}");
            }
            assert_ne!(dealt, deal(&rows, folds, Seed(4)).expect("another seed"));
        }
    }

    #[test]
    fn rows_of_one_group_are_held_out_together() {
        let mut rows = rows(&[6, 8]);
        rows.extend(rows.clone());
        let dealt = deal(&rows, 3, Seed(1)).expect("enough");
        assert_eq!(dealt[..14], dealt[14..]);
    }

    #[test]
    fn groups_of_several_classes_count_for_each() {
        let mut rows: Vec<(SampleId, Label)> = Vec::new();
        for patient in 0..50 {
            let group: SampleId = format!("p{patient}").into();
            rows.extend((0..5).map(|_| (group.clone(), 0)));
            rows.extend((patient % 5 == 0).then_some((group, 1)));
        }
        let dealt = deal(&rows, 5, Seed(0)).expect("ten groups have the rare class");
        for fold in 0..5 {
            let n = |label: Label| {
                rows.iter().zip(&dealt).filter(|((_, of), dealt)| *of == label && **dealt == fold).count()
            };
            assert_eq!((n(0), n(1)), (50, 2), "fold {fold}");
        }
    }

    #[test]
    fn large_groups_go_where_there_is_room() {
        let mut rows = rows(&[35]);
        for group in ["big", "bigger"] {
            rows.extend((0..6).map(|_| (group.into(), 0)));
        }
        for seed in 0..20 {
            let dealt = deal(&rows, 4, Seed(seed)).expect("enough");
            let counts = [0, 1, 2, 3].map(|fold| dealt.iter().filter(|of| **of == fold).count());
            assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        }
    }

    #[test]
    fn a_class_with_fewer_groups_than_folds_is_named() {
        let few = deal(&rows(&[9, 2, 0, 4]), 5, Seed(1)).expect_err("two classes have too few");
        assert_eq!(few, [TooFew { label: 1, groups: 2 }, TooFew { label: 3, groups: 4 }]);
        assert_eq!((Fold::new(0, 1), Fold::new(3, 3)), (None, None));
    }
}
