//! Against imbalanced-learn, whose results `tests/interop/sampling.py` stored, and on rows that are no such table.

use std::collections::BTreeMap;

use forebay_datasets::seed::Seed;
use serde::Deserialize;

use super::oversample::{adasyn_numbers, in_danger, threats};
use super::*;

#[derive(Deserialize)]
struct Table {
    rows: Vec<Vec<f32>>,
    labels: Vec<u32>,
    smote: Vec<(u32, u32, f64, Vec<f64>)>,
    smote_counts: Vec<usize>,
    danger: BTreeMap<u32, Vec<u32>>,
    borderline_counts: Vec<usize>,
    adasyn_numbers: BTreeMap<u32, Vec<usize>>,
    adasyn_counts: Vec<usize>,
    tomek_auto: Vec<u32>,
    tomek_all: Vec<u32>,
    enn_auto: Vec<u32>,
    enn_all: Vec<u32>,
    enn_mode_all: Vec<u32>,
}

fn table() -> (Table, Vec<f32>) {
    let json = include_str!("testdata/imbalanced_learn.json");
    let table: Table = serde_json::from_str(json).expect("a table");
    let values = table.rows.concat();
    (table, values)
}

fn counts(labels: &[u32], made: &Oversampled) -> Vec<usize> {
    let mut counts = vec![0; 3];
    labels.iter().for_each(|label| counts[*label as usize] += 1);
    made.rows.iter().for_each(|row| counts[labels[row.base as usize] as usize] += 1);
    counts
}

#[test]
fn rows_made_of_imbalanced_learns_draws_are_its_rows() {
    let (table, values) = table();
    let rows = FeatureRows { values: &values, width: 4 };
    for (base, neighbour, gap, expected) in &table.smote {
        let made = Synthetic { base: *base, neighbour: *neighbour, gap: *gap };
        for (ours, theirs) in made.features(rows).zip(expected) {
            assert!((f64::from(ours) - theirs).abs() < 1e-6, "{base} {neighbour} {gap}");
        }
    }
}

#[test]
fn bases_and_neighbours_are_those_that_imbalanced_learn_may_draw() {
    let (table, values) = table();
    let rows = FeatureRows { values: &values, width: 4 };
    for (method, expected) in [
        (Oversampling::Smote, &table.smote_counts),
        (Oversampling::BorderlineSmote, &table.borderline_counts),
        (Oversampling::Adasyn, &table.adasyn_counts),
    ] {
        let made = oversample(rows, &table.labels, &[40; 3], method, Seed(1));
        assert_eq!(&counts(&table.labels, &made), expected, "{method:?}");
        assert!(made.repeated.is_empty() && made.unthreatened.is_empty());
        for row in &made.rows {
            let label = table.labels[row.base as usize];
            assert!(label != 0 && row.base != row.neighbour && (0.0..1.0).contains(&row.gap));
            let own = by_class(&table.labels, 3).swap_remove(label as usize);
            let near = crate::ops::nearest(&values, 4, &[row.base], &own, 5);
            assert!(near[0].contains(&row.neighbour), "{row:?}");
            if method == Oversampling::BorderlineSmote {
                assert!(table.danger[&label].contains(&row.base), "{row:?}");
            }
        }
        assert_eq!(made, oversample(rows, &table.labels, &[40; 3], method, Seed(1)));
        assert_ne!(made, oversample(rows, &table.labels, &[40; 3], method, Seed(2)));
    }
}

#[test]
fn rows_in_danger_and_the_numbers_of_adasyn_are_imbalanced_learns() {
    let (table, values) = table();
    let rows = FeatureRows { values: &values, width: 4 };
    for (class, own) in (0..).zip(by_class(&table.labels, 3)).skip(1) {
        assert_eq!(in_danger(rows, &table.labels, &own), table.danger[&class]);
        let numbers = adasyn_numbers(&threats(rows, &table.labels, &own, 5), 40 - own.len());
        assert_eq!(numbers, table.adasyn_numbers[&class], "class {class}");
    }
}

#[test]
fn rows_that_are_cleaned_away_are_imbalanced_learns() {
    let (table, values) = table();
    let rows = FeatureRows { values: &values, width: 4 };
    let left = |keeps: Vec<bool>| -> Vec<u32> {
        (0..).zip(keeps).filter(|(_, keeps)| *keeps).map(|(row, _)| row).collect()
    };
    // All classes but the smallest, and all.
    let (auto, all) = ([true, true, false], [true; 3]);
    assert_eq!(left(Clean::Tomek.keeps(rows, &table.labels, &auto)), table.tomek_auto);
    assert_eq!(left(Clean::Tomek.keeps(rows, &table.labels, &all)), table.tomek_all);
    assert_eq!(left(Clean::Enn.keeps(rows, &table.labels, &auto)), table.enn_auto);
    assert_eq!(left(Clean::Enn.keeps(rows, &table.labels, &all)), table.enn_all);
    let by_majority = edited_neighbours(rows, &table.labels, &all, Agreement::Majority);
    assert_eq!(left(by_majority), table.enn_mode_all);
    assert_eq!(left(Clean::None.keeps(rows, &table.labels, &all)).len(), table.labels.len());
}

#[test]
fn a_class_with_one_row_is_repeated_and_named_and_one_without_stays_empty() {
    let values = [0.0, 0.0, 0.1, 0.0, 0.0, 0.1, 9.0, 9.0];
    let rows = FeatureRows { values: &values, width: 2 };
    for method in [Oversampling::Smote, Oversampling::BorderlineSmote, Oversampling::Adasyn] {
        let made = oversample(rows, &[0, 0, 0, 2], &[3, 3, 3], method, Seed(0));
        assert_eq!(made.repeated, [2]);
        assert_eq!(made.rows, [Synthetic { base: 3, neighbour: 3, gap: 0.0 }; 2]);
    }
}

#[test]
fn a_class_that_no_other_comes_near_is_named_and_made_of_any_of_its_rows() {
    let values: Vec<f32> = (0..30).map(|row| row as f32 + if row < 18 { 0.0 } else { 500.0 }).collect();
    let labels: Vec<u32> = (0..30).map(|row| u32::from(row >= 18)).collect();
    let rows = FeatureRows { values: &values, width: 1 };
    for method in [Oversampling::BorderlineSmote, Oversampling::Adasyn] {
        let made = oversample(rows, &labels, &[18, 18], method, Seed(0));
        assert_eq!((made.unthreatened.clone(), made.rows.len()), (vec![1], 6), "{method:?}");
    }
}
