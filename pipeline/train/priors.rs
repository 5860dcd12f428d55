//! What each class counts in a training: its images, times the copies of the balance, times the weights of the loss.

use std::fmt::Write as _;

use crate::plan::shorten;

/// Classes that a table lists, and that a line does.
const ROWS_MAX: usize = 40;
const NAMED_MAX: usize = 12;

/// By how much a rarer class may count more than a commoner one before that is a correction beyond even: the whole numbers
/// of a balance of few images differ by less.
const TOLERANCE: f64 = 1.05;

/// What each class counts in a training.
pub(super) struct EffectivePriors<'a> {
    /// Their names.
    pub(super) classes: &'a [String],
    /// Training images that were found.
    pub(super) images: &'a [u64],
    /// Rows or features of an epoch, copies among them.
    pub(super) rows: &'a [f64],
    /// The shares of the classes that the logits stand for: rows times weights, without what the loss corrects.
    pub(super) shares: Vec<f64>,
}

impl EffectivePriors<'_> {
    /// A rarer class that counts clearly more than a commoner one: more than inverse frequency would have it, which no way of
    /// evening classes out asks for. `None` where there is none.
    pub(super) fn overcorrected(&self) -> Option<String> {
        let mut order: Vec<usize> = (0..self.classes.len()).filter(|class| self.images[*class] > 0).collect();
        order.sort_by_key(|class| std::cmp::Reverse(self.images[*class]));
        // Of all classes with more images the one that counts least.
        let mut least: Option<usize> = None;
        let mut worst: Option<(f64, usize, usize)> = None;
        for equal in order.chunk_by(|a, b| self.images[*a] == self.images[*b]) {
            for class in equal {
                if let Some(common) = least.filter(|common| self.shares[*common] > 0.0) {
                    let ratio = self.shares[*class] / self.shares[common];
                    // One row more or less is the least that a balance can do.
                    let without_one = ratio * (1.0 - 1.0 / self.rows[*class].max(1.0));
                    if without_one > TOLERANCE && worst.is_none_or(|(most, ..)| ratio > most) {
                        worst = Some((ratio, *class, common));
                    }
                }
            }
            let here = equal.iter().copied().min_by(|a, b| self.shares[*a].total_cmp(&self.shares[*b]));
            least = [least, here]
                .into_iter()
                .flatten()
                .min_by(|a, b| self.shares[*a].total_cmp(&self.shares[*b]));
        }
        let (ratio, rare, common) = worst?;
        Some(format!(
            "{} has {} images and would count {ratio:.1} times as much as {} with {}",
            self.classes[rare], self.images[rare], self.classes[common], self.images[common]
        ))
    }

    /// A row per class.
    pub(super) fn table(&self) -> String {
        let width = self.classes.iter().map(|name| name.chars().count()).max().unwrap_or(0).clamp(5, 32);
        let mut text = format!("  {:<width$} {:>9} {:>9} {:>8}\n", "class", "images", "rows", "prior");
        for (class, name) in self.classes.iter().enumerate().take(ROWS_MAX) {
            let _ = writeln!(
                text,
                "  {:<width$} {:>9} {:>9} {:>6.1} %",
                shorten(name, width),
                self.images[class],
                self.rows[class],
                100.0 * self.shares[class]
            );
        }
        if self.classes.len() > ROWS_MAX {
            let _ = writeln!(text, "  … and {} more", self.classes.len() - ROWS_MAX);
        }
        text
    }

    /// The same in a line: of many classes the ends.
    pub(super) fn line(&self) -> String {
        let word = |class: usize| format!("{} {:.1} %", self.classes[class], 100.0 * self.shares[class]);
        let all = 0..self.classes.len();
        if self.classes.len() <= NAMED_MAX {
            return all.map(word).collect::<Vec<_>>().join(", ");
        }
        let by_share = |a: &usize, b: &usize| self.shares[*a].total_cmp(&self.shares[*b]);
        let ends = [all.clone().min_by(by_share), all.max_by(by_share)];
        format!("from {}", ends.into_iter().flatten().map(word).collect::<Vec<_>>().join(" to "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overcorrected(images: &[u64], rows: &[f64], weights: &[f64]) -> Option<String> {
        let classes: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
        let all: f64 = rows.iter().zip(weights).map(|(rows, weight)| rows * weight).sum();
        let shares = rows.iter().zip(weights).map(|(rows, weight)| rows * weight / all).collect();
        EffectivePriors { classes: &classes[..images.len()], images, rows, shares }.overcorrected()
    }

    #[test]
    fn only_what_makes_a_rare_class_count_more_than_a_common_one_is_too_much() {
        for (images, rows, weights) in [
            // As they come, evened out by copies, by weights, and by half of both.
            ([100, 50, 10], [100.0, 50.0, 10.0], [1.0; 3]),
            ([100, 50, 10], [100.0, 100.0, 100.0], [1.0; 3]),
            ([100, 50, 10], [100.0, 50.0, 10.0], [0.1, 0.2, 1.0]),
            ([100, 25, 4], [100.0, 50.0, 20.0], [0.2, 0.4, 1.0]),
            // Whole numbers.
            ([3, 2, 1], [2.0, 2.0, 3.0], [1.0; 3]),
        ] {
            assert_eq!(overcorrected(&images, &rows, &weights), None, "{images:?} {rows:?} {weights:?}");
        }
        let twice = overcorrected(&[100, 50, 10], &[100.0; 3], &[0.1, 0.2, 1.0]);
        let expected = "c has 10 images and would count 10.0 times as much as a with 100";
        assert_eq!(twice.as_deref(), Some(expected));
        let more = overcorrected(&[100, 100, 10], &[100.0, 300.0, 200.0], &[1.0; 3]);
        assert!(more.is_some_and(|line| line.contains("2.0 times as much as a")));
    }
}
