//! A loss for given numbers of images of the classes, and its gradient.

use super::{ClassWeights, Loss};
use crate::models::COSINE_SCALE;

/// The largest margin of LDAM, of cosines from -1 to 1.
const MARGIN_MAX: f64 = 0.5;

/// A loss for given numbers of images of the classes: logits and targets in, the loss of each image and its gradient out.
///
/// Computed in double precision from logits of any: exact to about 1e-15 of the largest logit.
#[derive(Clone, Debug, PartialEq)]
pub struct Criterion {
    gamma: f64,
    /// What is added to the logits, `[classes]`.
    shift: Vec<f64>,
    /// What is taken from the logit of the label, `[classes]`.
    margins: Vec<f64>,
    /// What an image of each class counts, `[classes]`.
    weights: Vec<f64>,
    /// Whether the loss of a batch of labels is divided by their weights, as by PyTorch's `cross_entropy`, and not by their
    /// number.
    divides_by_weights: bool,
}

impl Criterion {
    /// The loss for `counts` `[classes]` training images of each class, none of them negative, whose classes also weigh as
    /// `class_weights` says. Where a loss has weights of its own these replace them.
    pub fn new(loss: Loss, class_weights: ClassWeights, counts: &[f64]) -> Criterion {
        let classes = counts.len();
        let images: f64 = counts.iter().sum();
        let there = |count: f64| count.max(1.0);
        let mut criterion = Criterion {
            gamma: loss.gamma(),
            shift: vec![0.0; classes],
            margins: vec![0.0; classes],
            weights: class_weights.of(counts),
            divides_by_weights: class_weights != ClassWeights::None,
        };
        match loss {
            Loss::CrossEntropy | Loss::Focal { .. } => {}
            Loss::ClassBalancedFocal { beta, .. } => {
                let weights = ClassWeights::Effective { beta }.unscaled(counts);
                let sum: f64 = weights.iter().sum();
                let scale = if sum > 0.0 { classes as f64 / sum } else { 1.0 };
                criterion.weights = weights.into_iter().map(|weight| weight * scale).collect();
                criterion.divides_by_weights = false;
            }
            Loss::Ldam => {
                let margins = || counts.iter().map(|&count| there(count).powf(-0.25));
                let largest = margins().fold(f64::MIN_POSITIVE, f64::max);
                let scale = COSINE_SCALE * MARGIN_MAX / largest;
                criterion.margins = margins().map(|margin| margin * scale).collect();
            }
            Loss::BalancedSoftmax => {
                criterion.shift = counts.iter().map(|&count| there(count).ln()).collect();
            }
            Loss::LogitAdjustment { tau } => {
                let share = |&count: &f64| tau * (there(count) / there(images)).ln();
                criterion.shift = counts.iter().map(share).collect();
            }
        }
        criterion
    }

    /// What the sum of the losses of images with these labels is divided by.
    pub fn divisor(&self, labels: &[u32]) -> f64 {
        match self.divides_by_weights {
            true => labels.iter().map(|&label| self.weights[label as usize]).sum(),
            false => labels.len() as f64,
        }
    }

    /// The loss of one image: `logits` and `target` `[classes]`. Its derivative by each logit goes to `gradient`, `[classes]`.
    pub fn of_image(&self, logits: &[f32], target: &[f32], gradient: &mut [f64]) -> f64 {
        // In `gradient` stand, one after the other: shifted logits, logarithms of probabilities, the gradient.
        for (class, value) in gradient.iter_mut().enumerate() {
            let margin = self.margins[class] * f64::from(target[class]);
            *value = f64::from(logits[class]) + self.shift[class] - margin;
        }
        let largest = gradient.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = gradient.iter().map(|z| (z - largest).exp()).sum::<f64>().ln() + largest;
        let (mut loss, mut pull) = (0.0, 0.0);
        for (class, value) in gradient.iter_mut().enumerate() {
            *value -= log_sum;
            let share = self.weights[class] * f64::from(target[class]);
            if share > 0.0 || value.is_nan() {
                let (term, slope) = self.term(*value);
                loss -= share * term;
                pull += share * slope;
            }
        }
        for (class, value) in gradient.iter_mut().enumerate() {
            let share = self.weights[class] * f64::from(target[class]);
            let slope = if share > 0.0 { self.term(*value).1 } else { 0.0 };
            *value = value.exp() * pull - share * slope;
        }
        loss
    }

    /// `(1 - p)^γ log p` and its derivative by `log p`.
    fn term(&self, log: f64) -> (f64, f64) {
        if self.gamma == 0.0 {
            return (log, 1.0);
        }
        let missing = -log.exp_m1();
        if missing == 0.0 {
            // At a probability of 1 both vanish, whatever gamma is.
            return (0.0, 0.0);
        }
        let power = missing.powf(self.gamma);
        (power * log, power - self.gamma * missing.powf(self.gamma - 1.0) * log.exp() * log)
    }

    /// The loss of a batch, the sum over its images divided by `divisor`, and its gradient: `logits` and `targets` are
    /// `[images][classes]`, one after the other, and so is the gradient.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn of_batch(&self, logits: &[f32], targets: &[f32], divisor: f64) -> (f64, Vec<f32>) {
        assert_eq!(logits.len(), targets.len(), "a target for each logit");
        let classes = self.weights.len();
        let (mut loss, mut gradients) = (0.0, Vec::with_capacity(logits.len()));
        let mut gradient = vec![0.0; classes];
        for (logits, target) in logits.chunks_exact(classes).zip(targets.chunks_exact(classes)) {
            loss += self.of_image(logits, target, &mut gradient);
            gradients.extend(gradient.iter().map(|value| (value / divisor) as f32));
        }
        (loss / divisor, gradients)
    }
}

#[cfg(test)]
mod tests {
    use forebay_datasets::seed::Seed;
    use forebay_datasets::words::Words;

    use super::*;

    const COUNTS: [f64; 4] = [500.0, 60.0, 7.0, 1.0];

    fn every() -> Vec<(Loss, ClassWeights)> {
        let weights = ClassWeights::ALL;
        let plain = Loss::ALL.iter().map(|loss| (*loss, ClassWeights::None));
        let weighted = weights.iter().flat_map(|weights| {
            [Loss::CrossEntropy, Loss::Focal { gamma: 0.5 }, Loss::Focal { gamma: 3.0 }, Loss::Ldam]
                .map(|loss| (loss, *weights))
        });
        plain.chain(weighted).chain([(Loss::LogitAdjustment { tau: 1.7 }, ClassWeights::None)]).collect()
    }

    /// The formulas of the table, each written out.
    fn by_formula(loss: Loss, weights: ClassWeights, logits: &[f32], target: &[f32]) -> f64 {
        let n: Vec<f64> = COUNTS.to_vec();
        let total: f64 = n.iter().sum();
        let z: Vec<f64> = logits.iter().map(|z| f64::from(*z)).collect();
        let t: Vec<f64> = target.iter().map(|t| f64::from(*t)).collect();
        let log_softmax = |z: &[f64]| -> Vec<f64> {
            let sum: f64 = z.iter().map(|z| z.exp()).sum();
            z.iter().map(|z| (z.exp() / sum).ln()).collect()
        };
        let raw: Vec<f64> = n
            .iter()
            .map(|n| match weights {
                ClassWeights::None => 1.0,
                ClassWeights::Inverse => 1.0 / n,
                ClassWeights::Sqrt => n.powf(-0.5),
                ClassWeights::Effective { beta } => (1.0 - beta) / (1.0 - beta.powf(*n)),
            })
            .collect();
        let mean = raw.iter().zip(&n).map(|(w, n)| w * n).sum::<f64>() / total;
        let w: Vec<f64> = raw.iter().map(|w| w / mean).collect();
        let sum = |f: &dyn Fn(usize) -> f64| (0..4).map(f).sum::<f64>();
        match loss {
            Loss::CrossEntropy => {
                let l = log_softmax(&z);
                -sum(&|c| w[c] * t[c] * l[c])
            }
            Loss::Focal { gamma } => {
                let l = log_softmax(&z);
                -sum(&|c| w[c] * t[c] * (1.0 - l[c].exp()).powf(gamma) * l[c])
            }
            Loss::ClassBalancedFocal { gamma, beta } => {
                let l = log_softmax(&z);
                let w: Vec<f64> = n.iter().map(|n| (1.0 - beta) / (1.0 - beta.powf(*n))).collect();
                let all: f64 = w.iter().sum();
                -sum(&|c| 4.0 * w[c] / all * t[c] * (1.0 - l[c].exp()).powf(gamma) * l[c])
            }
            Loss::Ldam => {
                let label = t.iter().position(|t| *t == 1.0).expect("a label");
                let largest = n.iter().map(|n| n.powf(-0.25)).fold(0.0, f64::max);
                let mut z = z;
                z[label] -= 30.0 * 0.5 * n[label].powf(-0.25) / largest;
                -w[label] * log_softmax(&z)[label]
            }
            Loss::BalancedSoftmax => {
                let l = log_softmax(&(0..4).map(|c| z[c] + n[c].ln()).collect::<Vec<_>>());
                -sum(&|c| t[c] * l[c])
            }
            Loss::LogitAdjustment { tau } => {
                let l = log_softmax(&(0..4).map(|c| z[c] + tau * (n[c] / total).ln()).collect::<Vec<_>>());
                -sum(&|c| t[c] * l[c])
            }
        }
    }

    fn cases(loss: Loss) -> Vec<(Vec<f32>, Vec<f32>)> {
        let mut stream = Seed(3).stream("logits");
        let mut logits = || (0..4).map(|_| 3.0 * stream.normal() as f32).collect::<Vec<f32>>();
        let mut targets: Vec<Vec<f32>> =
            (0..4).map(|label| (0..4).map(|class| f32::from(u8::from(class == label))).collect()).collect();
        if loss.takes_soft_targets() {
            targets.push(vec![0.7, 0.0, 0.3, 0.0]);
            targets.push(vec![0.925, 0.025, 0.025, 0.025]);
        }
        targets.into_iter().map(|target| (logits(), target)).collect()
    }

    #[test]
    fn each_loss_is_its_formula() {
        for (loss, weights) in every() {
            let criterion = Criterion::new(loss, weights, &COUNTS);
            for (logits, target) in cases(loss) {
                let found = criterion.of_image(&logits, &target, &mut [0.0; 4]);
                let expected = by_formula(loss, weights, &logits, &target);
                assert!((found - expected).abs() <= 1e-9 * (1.0 + expected.abs()), "{loss:?} {weights:?}");
            }
        }
    }

    #[test]
    fn each_gradient_equals_finite_differences() {
        // Logits are of single precision: a step that they hold exactly.
        let step = 2f32.powi(-10);
        for (loss, weights) in every() {
            let criterion = Criterion::new(loss, weights, &COUNTS);
            for (logits, target) in cases(loss) {
                let logits: Vec<f32> = logits.iter().map(|z| (z * 1024.0).round() / 1024.0).collect();
                let mut gradient = [0.0; 4];
                criterion.of_image(&logits, &target, &mut gradient);
                for class in 0..4 {
                    let at = |steps: f32| {
                        let mut moved = logits.clone();
                        moved[class] += steps * step;
                        criterion.of_image(&moved, &target, &mut [0.0; 4])
                    };
                    // Of the fourth order, so that its error is about 1e-12.
                    let difference =
                        (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * f64::from(step));
                    let error = (difference - gradient[class]).abs();
                    assert!(
                        error <= 1e-7 * (1.0 + difference.abs()),
                        "{loss:?} {weights:?}: {} but difference {difference}",
                        gradient[class]
                    );
                }
            }
        }
    }

    #[test]
    fn weighted_losses_are_those_of_pytorch() {
        // torch.nn.functional.cross_entropy of labels 2 and 0, with the weights 1, 2 and 0.5, then with label smoothing 0.1.
        let mut criterion = Criterion::new(Loss::CrossEntropy, ClassWeights::Inverse, &[1.0, 1.0, 1.0]);
        criterion.weights = vec![1.0, 2.0, 0.5];
        let logits = [1f32, 2.0, -1.0, 0.5, 0.0, 0.25];
        let divisor = criterion.divisor(&[2, 0]);
        assert_eq!(divisor, 1.5);
        for (smoothing, expected) in [(0.0, 1.6958961486816406), (0.1, 1.7016226053237915)] {
            let row = |label: usize| {
                (0..3).map(move |c| f32::from(u8::from(c == label)) * (1.0 - smoothing) + smoothing / 3.0)
            };
            let targets: Vec<f32> = row(2).chain(row(0)).collect();
            let (loss, _) = criterion.of_batch(&logits, &targets, divisor);
            assert!((loss - expected).abs() < 1e-6, "{loss} is not {expected}");
        }
        // Of probabilities it divides by their number.
        let mixed = [0.7f32, 0.3, 0.0, 0.0, 0.25, 0.75];
        let (loss, _) = criterion.of_batch(&logits, &mixed, 2.0);
        assert!((loss - 1.1290683528268053).abs() < 1e-6, "{loss}");
    }

    #[test]
    fn logits_of_any_size_have_a_loss_and_a_gradient() {
        for (loss, weights) in every() {
            let criterion = Criterion::new(loss, weights, &[5.0, 0.0, 3.0]);
            for logits in [[1000f32, 1000.0, -1000.0], [-1000.0, 3e4, 0.0], [0.0; 3]] {
                let mut gradient = [0.0; 3];
                let loss = criterion.of_image(&logits, &[1.0, 0.0, 0.0], &mut gradient);
                assert!(loss.is_finite() && gradient.iter().all(|g| g.is_finite()), "{criterion:?}");
                assert!(gradient.iter().sum::<f64>().abs() < 1e-9, "{gradient:?}");
            }
            let nan = criterion.of_image(&[f32::NAN, 0.0, 0.0], &[1.0, 0.0, 0.0], &mut [0.0; 3]);
            assert!(nan.is_nan(), "{loss:?}");
        }
        let plain = Criterion::new(Loss::CrossEntropy, ClassWeights::None, &[1.0; 3]);
        let (loss, gradient) = plain.of_batch(&[1000.0, 1000.0, -1000.0], &[1.0, 0.0, 0.0], 1.0);
        assert!((loss - 2f64.ln()).abs() < 1e-12);
        assert_eq!(gradient, [-0.5, 0.5, 0.0]);
    }

    #[test]
    fn weights_have_a_mean_of_one_over_the_images_and_a_class_without_images_has_none() {
        for weights in ClassWeights::ALL {
            let counts = [40.0, 0.0, 10.0];
            let found = weights.of(&counts);
            let mean = found.iter().zip(&counts).map(|(w, n)| w * n).sum::<f64>() / 50.0;
            assert!((mean - 1.0).abs() < 1e-12 && found[1] == 0.0, "{found:?}");
        }
        assert_eq!(ClassWeights::Inverse.of(&[40.0, 10.0]), [0.625, 2.5]);
        let even = ClassWeights::Effective { beta: 0.0 }.of(&[40.0, 10.0]);
        assert!(even.iter().all(|weight| (weight - 1.0).abs() < 1e-12), "{even:?}");
    }
}
