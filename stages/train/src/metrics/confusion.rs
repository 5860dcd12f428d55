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

    /// The matrix with the counts `rows[truth][prediction]`.
    ///
    /// # Panics
    /// When a row has another length than there are rows.
    pub fn from_rows(rows: &[Vec<u64>]) -> Confusion {
        assert!(rows.iter().all(|row| row.len() == rows.len()), "a square matrix");
        Confusion { classes: rows.len(), counts: rows.concat() }
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

    /// The counts as `rows[truth][prediction]`.
    pub fn rows(&self) -> Vec<Vec<u64>> {
        self.counts.chunks(self.classes.max(1)).map(<[u64]>::to_vec).collect()
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
        let support = (0..self.classes).map(|prediction| self.count(class, prediction)).sum();
        let predicted = (0..self.classes).map(|truth| self.count(truth, class)).sum();
        ClassScores::of(support, predicted, self.count(class, class))
    }

    /// The mean of the scores of the classes that an image is of or was taken for, each class weighing the same, as
    /// scikit-learn's `average="macro"`; support is the total.
    pub fn macro_average(&self) -> ClassScores {
        self.marginals().macro_average()
    }

    /// The sums of its rows and columns, and its diagonal.
    pub(super) fn marginals(&self) -> Marginals {
        let mut marginals = Marginals::new(self.classes);
        for truth in 0..self.classes {
            for prediction in 0..self.classes {
                marginals.add(truth, prediction, self.count(truth, prediction));
            }
        }
        marginals
    }
}

impl ClassScores {
    fn of(support: u64, predicted: u64, right: u64) -> ClassScores {
        ClassScores {
            precision: ratio(right, predicted),
            recall: ratio(right, support),
            f1: ratio(2 * right, predicted + support),
            support,
        }
    }
}

/// All of a confusion matrix that the figures of agreement are functions of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marginals {
    /// Per class, how many samples are of it.
    pub(super) support: Vec<u64>,
    /// Per class, how many were taken for it.
    pub(super) predicted: Vec<u64>,
    /// Per class, how many were taken for it rightly.
    pub(super) right: Vec<u64>,
}

impl Marginals {
    /// Of no sample.
    pub(super) fn new(classes: usize) -> Marginals {
        let zeros = || vec![0; classes];
        Marginals { support: zeros(), predicted: zeros(), right: zeros() }
    }

    /// Counts a prediction `n` times.
    pub(super) fn add(&mut self, truth: usize, prediction: usize, n: u64) {
        self.support[truth] += n;
        self.predicted[prediction] += n;
        if truth == prediction {
            self.right[truth] += n;
        }
    }

    /// How many samples there are.
    pub(super) fn total(&self) -> u64 {
        self.support.iter().sum()
    }

    /// How many predictions are right.
    pub(super) fn total_right(&self) -> u64 {
        self.right.iter().sum()
    }

    /// The scores of one class.
    pub(super) fn class(&self, class: usize) -> ClassScores {
        ClassScores::of(self.support[class], self.predicted[class], self.right[class])
    }

    /// Whether a sample is of this class or was taken for it.
    pub(super) fn is_there(&self, class: usize) -> bool {
        self.support[class] + self.predicted[class] > 0
    }

    /// The mean of the classes that are there.
    pub(super) fn macro_average(&self) -> ClassScores {
        self.average(|_| 1.0)
    }

    /// The mean of the classes, each weighing as many samples as it has: scikit-learn's `average="weighted"`.
    pub(super) fn weighted_average(&self) -> ClassScores {
        self.average(|class| self.support[class] as f64)
    }

    /// The weighted mean of the classes that are there.
    fn average(&self, weight: impl Fn(usize) -> f64) -> ClassScores {
        let classes: Vec<usize> = (0..self.support.len()).filter(|class| self.is_there(*class)).collect();
        let weights: f64 = classes.iter().map(|class| weight(*class)).sum();
        let mean = |score: fn(&ClassScores) -> f64| {
            let terms: Vec<f64> =
                classes.iter().map(|class| score(&self.class(*class)) * weight(*class)).collect();
            if weights > 0.0 { pairwise_sum(&terms) / weights } else { 0.0 }
        };
        ClassScores {
            precision: mean(|scores| scores.precision),
            recall: mean(|scores| scores.recall),
            f1: mean(|scores| scores.f1),
            support: self.total(),
        }
    }

    /// The mean recall of the classes that have samples: scikit-learn's `balanced_accuracy_score`.
    pub(super) fn balanced_accuracy(&self) -> f64 {
        let classes = (0..self.support.len()).filter(|class| self.support[*class] > 0);
        let (sum, n) = classes.fold((0.0, 0.0), |(sum, n), class| (sum + self.class(class).recall, n + 1.0));
        if n > 0.0 { sum / n } else { 0.0 }
    }

    /// Σ support × predicted: how many pairs of a truth and a prediction agree.
    fn agreeing_pairs(&self) -> f64 {
        self.support.iter().zip(&self.predicted).map(|(a, b)| *a as f64 * *b as f64).sum()
    }

    /// Cohen's kappa (1960); `None` where truth and prediction are one class.
    pub(super) fn kappa(&self) -> Option<f64> {
        let n = self.total() as f64;
        let wrong_by_chance = n - self.agreeing_pairs() / n;
        (wrong_by_chance > 0.0).then(|| 1.0 - (n - self.total_right() as f64) / wrong_by_chance)
    }

    /// Matthews' correlation coefficient of several classes (Gorodkin 2004); 0 where truth or prediction is one class.
    pub(super) fn mcc(&self) -> f64 {
        let n = self.total() as f64;
        let spread = |counts: &[u64]| n * n - counts.iter().map(|n| *n as f64 * *n as f64).sum::<f64>();
        let spreads = spread(&self.support) * spread(&self.predicted);
        let covariance = n * self.total_right() as f64 - self.agreeing_pairs();
        if spreads > 0.0 { covariance / spreads.sqrt() } else { 0.0 }
    }
}

/// The sum in the order in which numpy adds, so that a mean such as 0.825 is rounded to the digits that scikit-learn prints:
/// one by one up to seven, eight sums side by side up to 128, halves of more.
fn pairwise_sum(terms: &[f64]) -> f64 {
    match terms.len() {
        0..8 => terms.iter().sum(),
        8..=128 => {
            let (eights, rest) = terms.as_chunks::<8>();
            let mut sums = eights[0];
            for eight in &eights[1..] {
                sums.iter_mut().zip(eight).for_each(|(sum, term)| *sum += term);
            }
            let [a, b, c, d, e, f, g, h] = sums;
            rest.iter().fold(((a + b) + (c + d)) + ((e + f) + (g + h)), |sum, term| sum + term)
        }
        n => {
            let (first, second) = terms.split_at(n / 16 * 8);
            pairwise_sum(first) + pairwise_sum(second)
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
