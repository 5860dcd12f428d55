//! Samples as the figures need them, so that a figure of any resample is one pass over plain numbers.

use forebay_datasets::seed::Seed;

use super::confusion::Marginals;
use super::ranking::{POINTS_MAX, Ranking};
use super::{ReliabilityBin, Scored};

/// The bins of a reliability diagram, as in Guo et al. 2017 (arXiv 1706.04599).
pub(super) const BINS: usize = 15;

/// The most points that the curves of all classes have together, down to a tenth of [`POINTS_MAX`] each.
const CURVE_POINTS_MAX: usize = 40_000;

/// The most probabilities that are held at once to be ranked by class: 64 MiB.
const COLUMN_VALUES_MAX: usize = 1 << 22;

/// The most (sample, class) pairs that are ranked together, which takes 16 bytes a pair.
pub(super) const MICRO_PAIRS_MAX: usize = 1 << 24;

/// What the figures need of each sample, in the order of the ids.
pub(super) struct Measured<'a> {
    scored: &'a Scored,
    temperature: f64,
    classes: usize,
    /// Where each sample stands in `scored`.
    order: Vec<usize>,
    pub(super) labels: Vec<usize>,
    pub(super) predictions: Vec<usize>,
    /// The probability of the predicted class.
    pub(super) confidences: Vec<f64>,
    log_losses: Vec<f64>,
    briers: Vec<f64>,
    bins: Vec<usize>,
}

/// The figures that are sums over samples, of one resample.
pub(super) struct Totals {
    pub(super) marginals: Marginals,
    pub(super) log_loss: f64,
    pub(super) brier: f64,
    pub(super) bins: [BinSums; BINS],
}

/// What is summed of the samples of one bin.
#[derive(Clone, Copy, Default)]
pub(super) struct BinSums {
    samples: u64,
    right: u64,
    confidence: f64,
}

impl<'a> Measured<'a> {
    /// Measures each sample.
    pub(super) fn new(scored: &'a Scored, temperature: f64) -> Measured<'a> {
        let (n, classes) = (scored.len(), scored.classes().len());
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_unstable_by(|a, b| scored.ids()[*a].cmp(&scored.ids()[*b]));
        let mut measured = Measured {
            scored,
            temperature,
            classes,
            labels: order.iter().map(|at| scored.labels()[*at] as usize).collect(),
            predictions: order.iter().map(|at| scored.prediction(*at) as usize).collect(),
            confidences: Vec::with_capacity(n),
            log_losses: Vec::with_capacity(n),
            briers: Vec::with_capacity(n),
            bins: Vec::with_capacity(n),
            order,
        };
        let halves = if classes == 2 { 0.5 } else { 1.0 };
        for sample in 0..n {
            let probabilities = measured.probabilities(sample);
            let (label, prediction) = (measured.labels[sample], measured.predictions[sample]);
            let missing = probabilities.iter().enumerate();
            let missing = missing.map(|(class, p)| (p - f64::from(u8::from(class == label))).powi(2));
            measured.briers.push(halves * missing.sum::<f64>());
            measured.log_losses.push(log_loss(probabilities[label]));
            measured.confidences.push(probabilities[prediction]);
            measured.bins.push(bin_of(probabilities[prediction]));
        }
        measured
    }

    /// How many samples there are.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// The probabilities of a sample.
    fn probabilities(&self, sample: usize) -> Vec<f64> {
        self.scored.probabilities(self.order[sample], self.temperature)
    }

    /// The largest logit of a sample, and the sum of the powers that its probabilities are shares of.
    fn scale(&self, logits: &[f32]) -> (f64, f64) {
        let largest = logits.iter().map(|logit| f64::from(*logit)).fold(f64::NEG_INFINITY, f64::max);
        (largest, logits.iter().map(|logit| self.power(*logit, largest)).sum())
    }

    /// What the softmax makes of a logit before it is divided.
    fn power(&self, logit: f32, largest: f64) -> f64 {
        ((f64::from(logit) - largest) / self.temperature).exp()
    }

    /// How many samples have their class among their `k` most probable; of equal ones, the first come first.
    pub(super) fn among_top(&self, k: usize) -> u64 {
        let is_among = |sample: &usize| {
            let (logits, label) = (self.scored.logits(self.order[*sample]), self.labels[*sample]);
            let own = logits[label];
            let before = logits.iter().enumerate();
            before.filter(|(class, logit)| **logit > own || (**logit == own && *class < label)).count() < k
        };
        (0..self.len()).filter(is_among).count() as u64
    }

    /// The samples ranked by the probability of each class, and all (sample, class) pairs ranked together unless they are
    /// more than [`MICRO_PAIRS_MAX`].
    pub(super) fn rankings(&self) -> (Vec<Ranking>, Option<Ranking>) {
        let points_max = (CURVE_POINTS_MAX / self.classes.max(1)).clamp(POINTS_MAX / 10, POINTS_MAX);
        // Columns of a few classes at a time, so that no more than these are held; what the softmax of a sample is divided by is found
        // once.
        let scales: Vec<(f64, f64)> =
            self.order.iter().map(|row| self.scale(self.scored.logits(*row))).collect();
        let per_pass = (COLUMN_VALUES_MAX / self.len().max(1)).clamp(1, self.classes.max(1));
        let mut by_class = Vec::with_capacity(self.classes);
        let mut pairs = Vec::new();
        let has_micro = self.len() * self.classes <= MICRO_PAIRS_MAX;
        for first in (0..self.classes).step_by(per_pass) {
            let classes = first..(first + per_pass).min(self.classes);
            let mut columns = vec![Vec::with_capacity(self.len()); classes.len()];
            for (sample, &(largest, sum)) in scales.iter().enumerate() {
                let logits = self.scored.logits(self.order[sample]);
                for (column, class) in columns.iter_mut().zip(classes.clone()) {
                    let probability = self.power(logits[class], largest) / sum;
                    column.push((sample as u32, probability, class == self.labels[sample]));
                }
            }
            if has_micro {
                pairs.extend(columns.iter().flatten());
            }
            by_class.extend(columns.into_iter().map(|column| Ranking::new(column, points_max)));
        }
        (by_class, has_micro.then(|| Ranking::new(pairs, POINTS_MAX)))
    }

    /// The figures where each sample counts as often as `weights` says.
    pub(super) fn totals(&self, weights: &[u32]) -> Totals {
        let mut marginals = Marginals::new(self.classes);
        let mut bins = [BinSums::default(); BINS];
        let (mut log_loss, mut brier) = (0.0, 0.0);
        for (sample, &weight) in weights.iter().enumerate() {
            if weight == 0 {
                continue;
            }
            let (label, prediction) = (self.labels[sample], self.predictions[sample]);
            let (n, weight) = (u64::from(weight), f64::from(weight));
            marginals.add(label, prediction, n);
            log_loss += weight * self.log_losses[sample];
            brier += weight * self.briers[sample];
            let confidence = self.confidences[sample];
            let bin = &mut bins[self.bins[sample]];
            bin.samples += n;
            bin.right += if label == prediction { n } else { 0 };
            bin.confidence += weight * confidence;
        }
        let n = marginals.total() as f64;
        Totals { marginals, log_loss: log_loss / n, brier: brier / n, bins }
    }
}

impl Totals {
    /// The expected calibration error: Σ samples of a bin × |accuracy - confidence| / samples.
    pub(super) fn ece(&self) -> f64 {
        let gap = |bin: &BinSums| (bin.right as f64 - bin.confidence).abs();
        self.bins.iter().map(gap).sum::<f64>() / self.marginals.total() as f64
    }

    /// The bins of a reliability diagram.
    pub(super) fn reliability(&self) -> Vec<ReliabilityBin> {
        let bin = |(index, sums): (usize, &BinSums)| {
            let n = sums.samples.max(1) as f64;
            ReliabilityBin {
                low: index as f64 / BINS as f64,
                high: (index + 1) as f64 / BINS as f64,
                samples: sums.samples,
                confidence: sums.confidence / n,
                accuracy: sums.right as f64 / n,
            }
        };
        self.bins.iter().enumerate().map(bin).collect()
    }
}

/// -ln of a probability that is kept from 0 and 1 by the smallest step above 1, as scikit-learn's `log_loss` does.
pub(super) fn log_loss(probability: f64) -> f64 {
    -probability.clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln()
}

/// The bin whose (low, high] holds a confidence.
fn bin_of(confidence: f64) -> usize {
    (1..BINS).find(|edge| confidence <= *edge as f64 / BINS as f64).map_or(BINS - 1, |edge| edge - 1)
}

/// How often each of `n` samples is drawn when `n` of them are drawn with replacement, in the draw of this number.
pub(super) fn draw(seed: u64, number: u32, n: usize) -> Vec<u32> {
    let mut stream = Seed(seed).stream(&format!("bootstrap/{number}"));
    let mut weights = vec![0; n];
    for _ in 0..n {
        weights[stream.below(n as u64) as usize] += 1;
    }
    weights
}
