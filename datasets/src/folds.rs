//! Folds of a cross-validation: which part of the samples is held out in which of the trainings.

use std::cmp::Reverse;
use std::collections::HashMap;

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
    /// How many it has.
    pub samples: usize,
}

/// The number of the fold in which each row is held out. Rows of one group, such as the copies of an image, are held out
/// together. Without groups the folds differ by one sample at most in each class and over all classes; with groups each goes
/// to the fold that has the least of its class, the large ones first.
///
/// # Errors
/// Every class with rows that has fewer groups than there are folds.
pub fn deal(rows: &[(SampleId, Label)], folds: u32, seed: Seed) -> Result<Vec<u32>, Vec<TooFew>> {
    let mut sizes: HashMap<&SampleId, usize> = HashMap::new();
    let mut classes: Vec<Vec<(u128, &SampleId)>> = Vec::new();
    for (group, label) in rows {
        let size = sizes.entry(group).or_default();
        *size += 1;
        if *size > 1 {
            continue;
        }
        classes.resize_with(classes.len().max(*label as usize + 1), Vec::new);
        classes[*label as usize].push((seed.rank("folds", group, 0, 0), group));
    }
    let few = |(label, groups): (usize, &Vec<_>)| {
        let samples = groups.len();
        (samples > 0 && samples < folds as usize).then_some(TooFew { label: label as Label, samples })
    };
    let few: Vec<TooFew> = classes.iter().enumerate().filter_map(few).collect();
    if !few.is_empty() {
        return Err(few);
    }
    let mut fold_of: HashMap<&SampleId, u32> = HashMap::new();
    let mut in_all = vec![0; folds as usize];
    for groups in &mut classes {
        groups.sort_unstable_by_key(|(rank, group)| (Reverse(sizes[group]), *rank));
        let mut in_class = vec![0; folds as usize];
        for (_, group) in groups {
            // By the whole, no fold gets the odd one of every class.
            let fold = (0..folds as usize).min_by_key(|fold| (in_class[*fold], in_all[*fold], *fold));
            let fold = fold.expect("two folds or more");
            in_class[fold] += sizes[group];
            in_all[fold] += sizes[group];
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
        assert_eq!(few, [TooFew { label: 1, samples: 2 }, TooFew { label: 3, samples: 4 }]);
        assert_eq!((Fold::new(0, 1), Fold::new(3, 3)), (None, None));
    }
}
