//! How many images each class has in each split, in at most 60 columns, and which splits hold other shares of the
//! classes than training does.

use std::fmt::Write as _;

use forebay_datasets::escape;
use forebay_datasets::sample::Split;
use indicatif::HumanCount;

use crate::plan::shorten;

/// Columns of a class's name.
const NAME: usize = 22;

/// Columns of the longest bar.
const BAR: usize = 24;

/// Classes that are all shown.
const CLASSES_MAX: usize = 40;

/// Of more classes, so many of the largest are shown, and so many of the smallest.
const LARGEST: usize = 15;
const SMALLEST: usize = 5;

/// The difference between two shares of a class from which on it is worth a word: ten points.
const SHARE_DIFFERENCE: f64 = 0.1;

/// Images of each class in a split, in the order of the classes.
pub type SplitCounts = (Split, Vec<u64>);

/// A row per class in the order of the labels: a column per split, or a bar where there is only one. Of many classes the
/// largest and the smallest are shown, by their size.
pub fn class_table(classes: &[String], splits: &[SplitCounts]) -> String {
    let splits: Vec<&SplitCounts> = splits
        .iter()
        .filter(|(split, counts)| *split == Split::Train || counts.iter().sum::<u64>() > 0)
        .collect();
    let total = |class: usize| splits.iter().map(|(_, counts)| counts[class]).sum::<u64>();
    let mut shown: Vec<usize> = (0..classes.len()).collect();
    let is_long = classes.len() > CLASSES_MAX;
    if is_long {
        shown.sort_by_key(|class| std::cmp::Reverse(total(*class)));
        shown.drain(LARGEST..classes.len() - SMALLEST);
    }
    let length = |class: &usize| escape::printable(&classes[*class]).chars().count();
    let width = shown.iter().map(length).max().unwrap_or(0).clamp(5, NAME);
    let largest = (0..classes.len()).map(total).max().unwrap_or(0).max(1);
    let mut text = String::new();
    if splits.len() > 1 {
        let names: String = splits.iter().map(|(split, _)| format!(" {:>10}", split.name())).collect();
        let _ = writeln!(text, "  {:<width$}{names}", "class");
    }
    for (index, class) in shown.iter().copied().enumerate() {
        if is_long && index == LARGEST {
            let _ = writeln!(
                text,
                "  … and {} more between these",
                HumanCount((classes.len() - shown.len()) as u64)
            );
        }
        let name = shorten(&classes[class], width);
        let _ = match &splits[..] {
            [_, _, ..] => {
                let counts = splits
                    .iter()
                    .map(|(_, counts)| format!(" {:>10}", HumanCount(counts[class]).to_string()));
                writeln!(text, "  {name:<width$}{}", counts.collect::<String>())
            }
            _ => {
                let value = total(class);
                writeln!(
                    text,
                    "  {name:<width$} {:<BAR$} {}",
                    bar(value as f64 / largest as f64),
                    HumanCount(value)
                )
            }
        };
    }
    text
}

/// A bar of this share of the whole length.
fn bar(share: f64) -> String {
    let eighths = (share * BAR as f64 * 8.0).round() as usize;
    let part = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    format!("{}{part}", "█".repeat(eighths / 8))
}

/// A line for each split other than training in which the share of a class differs by more than ten points from its
/// share in training, and by more than chance would have it: the class that differs most.
pub fn shifted(classes: &[String], splits: &[SplitCounts]) -> Vec<String> {
    let Some((_, train)) = splits.iter().find(|(split, _)| *split == Split::Train) else { return Vec::new() };
    let n_train = train.iter().sum::<u64>() as f64;
    let others = splits.iter().filter(|(split, _)| *split != Split::Train);
    others
        .filter_map(|(split, counts)| {
            let n = counts.iter().sum::<u64>() as f64;
            let shares = |class: usize| (train[class] as f64 / n_train, counts[class] as f64 / n);
            let difference = |class: usize| (shares(class).0 - shares(class).1).abs();
            // Of two classes one gains what the other loses: the one that gains is named.
            let order = |class: usize| ((difference(class) * 1e9).round(), shares(class).1);
            let most = (0..classes.len()).max_by(|a, b| {
                let (a, b) = (order(*a), order(*b));
                a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
            })?;
            let (in_train, here) = shares(most);
            let both = (train[most] + counts[most]) as f64 / (n_train + n);
            // Three standard deviations of the difference between two draws of so many images.
            let chance = 3.0 * (both * (1.0 - both) * (1.0 / n_train + 1.0 / n)).sqrt();
            (difference(most) > SHARE_DIFFERENCE.max(chance)).then(|| {
                format!(
                    "class proportions differ between {split} and train: {} is {:.0} % of {split} and {:.0} % of train",
                    classes[most],
                    100.0 * here,
                    100.0 * in_train
                )
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|index| format!("class-{index:04}-with-a-long-name")).collect()
    }

    #[test]
    fn each_class_has_a_column_per_split_or_a_bar_within_60_columns() {
        let classes = vec!["bag".to_string(), "a\nb".to_string(), "none".to_string()];
        let one = class_table(&classes, &[(Split::Train, vec![10, 5, 0]), (Split::Test, vec![0; 3])]);
        let lines: Vec<&str> = one.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].contains(&"█".repeat(BAR)) && lines[0].ends_with(" 10"));
        assert!(lines[1].contains("a\\nb") && lines[1].matches('█').count() == BAR / 2);
        assert!(!lines[2].contains('█'));
        let all = Split::ALL.map(|split| (split, vec![1_234_567, 5, 0]));
        let three = class_table(&classes, &all);
        assert_eq!(three.lines().next(), Some("  class      train validation       test"));
        assert!(three.contains("  bag    1,234,567  1,234,567  1,234,567"), "{three}");
        for text in
            [one, three, class_table(&names(1000), &Split::ALL.map(|split| (split, vec![1_234_567; 1000])))]
        {
            assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
        }
    }

    #[test]
    fn of_many_classes_the_largest_and_the_smallest_are_shown() {
        let text = class_table(&names(1000), &[(Split::Train, (0..1000).collect())]);
        assert_eq!(text.lines().count(), LARGEST + 1 + SMALLEST);
        assert!(text.starts_with("  class-0999"), "{text}");
        assert!(text.contains("… and 980 more between these\n"), "{text}");
        assert!(text.trim_end().ends_with('0') && text.contains("class-0004"), "{text}");
    }

    #[test]
    fn a_split_with_other_shares_of_the_classes_is_named() {
        let classes = ["bag", "shoes", "shirt"].map(String::from);
        let of = |train: [u64; 3], test: [u64; 3]| {
            shifted(&classes, &[(Split::Train, train.to_vec()), (Split::Test, test.to_vec())])
        };
        assert_eq!(
            of([200, 100, 300], [40, 73, 52]),
            ["class proportions differ between test and train: shoes is 44 % of test and 17 % of train"]
        );
        assert_eq!(of([200, 100, 300], [20, 11, 29]), [""; 0]);
        // Six images say nothing.
        assert_eq!(of([200, 100, 300], [3, 2, 1]), [""; 0]);
        assert_eq!(of([200, 100, 300], [0, 0, 0]), [""; 0]);
    }
}
