//! The confusion matrix: counts of (truth, prediction), and what follows from them.

use serde::Serialize;

/// Counts of (truth, prediction).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Confusion {
    classes: usize,
    /// Row by row: `counts[truth * classes + prediction]`.
    counts: Vec<u64>,
}

/// What is known of one class. Where nothing can be said (no prediction, no example) the value is 0, as
/// scikit-learn prints it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClassScores {
    /// Of those predicted as this class, the share that is.
    pub precision: f64,
    /// Of those of this class, the share that was found.
    pub recall: f64,
    /// The harmonic mean of both.
    pub f1: f64,
    /// How many there are.
    pub support: u64,
}

impl Confusion {
    /// An empty matrix.
    pub fn new(classes: usize) -> Confusion {
        Confusion { classes, counts: vec![0; classes * classes] }
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Counts one prediction.
    ///
    /// # Panics
    /// When either is not below the number of classes.
    pub fn add(&mut self, truth: usize, prediction: usize) {
        assert!(
            truth < self.classes && prediction < self.classes,
            "class {truth} or {prediction} is unknown"
        );
        self.counts[truth * self.classes + prediction] += 1;
    }

    /// Adds the counts of a part of the data.
    ///
    /// # Panics
    /// When the numbers of classes differ.
    pub fn merge(&mut self, other: &Confusion) {
        assert_eq!(self.classes, other.classes, "two matrices of one problem");
        for (count, other) in self.counts.iter_mut().zip(&other.counts) {
            *count += other;
        }
    }

    /// How often `truth` was taken for `prediction`.
    pub fn count(&self, truth: usize, prediction: usize) -> u64 {
        self.counts[truth * self.classes + prediction]
    }

    /// All predictions counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The share of right predictions; 0 when there is none.
    pub fn accuracy(&self) -> f64 {
        let right = (0..self.classes).map(|class| self.count(class, class)).sum();
        ratio(right, self.total())
    }

    /// The scores of one class.
    pub fn class(&self, class: usize) -> ClassScores {
        let right = self.count(class, class);
        let support = (0..self.classes).map(|prediction| self.count(class, prediction)).sum();
        let predicted: u64 = (0..self.classes).map(|truth| self.count(truth, class)).sum();
        ClassScores {
            precision: ratio(right, predicted),
            recall: ratio(right, support),
            f1: ratio(2 * right, predicted + support),
            support,
        }
    }

    /// The mean of the scores of the classes that an image is of or was taken for, each class weighing the same, as
    /// scikit-learn's `average="macro"`; support is the total.
    pub fn macro_average(&self) -> ClassScores {
        let is_there = |class: &usize| {
            (0..self.classes).any(|other| self.count(*class, other) + self.count(other, *class) > 0)
        };
        let scores: Vec<ClassScores> =
            (0..self.classes).filter(is_there).map(|class| self.class(class)).collect();
        let mean = |score: fn(&ClassScores) -> f64| {
            if scores.is_empty() { 0.0 } else { scores.iter().map(score).sum::<f64>() / scores.len() as f64 }
        };
        ClassScores {
            precision: mean(|scores| scores.precision),
            recall: mean(|scores| scores.recall),
            f1: mean(|scores| scores.f1),
            support: self.total(),
        }
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confusion() -> Confusion {
        let mut confusion = Confusion::new(3);
        for (truth, prediction) in [(0, 0), (0, 0), (0, 1), (1, 1), (1, 0)] {
            confusion.add(truth, prediction);
        }
        confusion
    }

    #[test]
    fn scores_follow_from_the_counts() {
        let confusion = confusion();
        assert_eq!((confusion.total(), confusion.accuracy()), (5, 0.6));
        let scores = confusion.class(0);
        assert_eq!((scores.precision, scores.recall, scores.support), (2.0 / 3.0, 2.0 / 3.0, 3));
        let scores = confusion.class(1);
        assert_eq!((scores.precision, scores.recall, scores.f1, scores.support), (0.5, 0.5, 0.5, 2));
        assert_eq!(confusion.class(2), ClassScores { precision: 0.0, recall: 0.0, f1: 0.0, support: 0 });
        assert_eq!(Confusion::new(2).accuracy(), 0.0);
    }

    #[test]
    fn parts_add_up() {
        let mut whole = confusion();
        whole.merge(&confusion());
        assert_eq!((whole.total(), whole.count(0, 1), whole.accuracy()), (10, 2, 0.6));
    }

    #[test]
    fn macro_averages_equal_scikit_learns() {
        // precision_recall_fscore_support(truths, predictions, average="macro", zero_division=0), scikit-learn 1.9.
        type Pairs = &'static [(usize, usize)];
        let cases: [(Pairs, [f64; 3]); 4] = [
            // Two classes of three: no image is of the third, and none was taken for it.
            (&[(0, 0), (0, 0), (0, 1), (1, 1), (1, 0)], [7.0 / 12.0, 7.0 / 12.0, 7.0 / 12.0]),
            (&[(0, 0), (0, 1)], [0.5, 0.25, 1.0 / 3.0]),
            // A class that images were only taken for counts, with zeros.
            (&[(0, 2), (0, 0), (1, 1)], [2.0 / 3.0, 0.5, 5.0 / 9.0]),
            (&[(2, 2)], [1.0, 1.0, 1.0]),
        ];
        for (pairs, [precision, recall, f1]) in cases {
            let mut confusion = Confusion::new(3);
            pairs.iter().for_each(|&(truth, prediction)| confusion.add(truth, prediction));
            let scores = confusion.macro_average();
            for (ours, theirs) in [(scores.precision, precision), (scores.recall, recall), (scores.f1, f1)] {
                assert!((ours - theirs).abs() < 1e-12, "{pairs:?}: {scores:?}");
            }
        }
    }
}
