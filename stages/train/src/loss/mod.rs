//! What training makes smaller: the losses, each with its words, formula and gradient, and how classes weigh in them.
//!
//! With logits `z` `[classes]`, a target `t` `[classes]` that sums to 1 (one-hot, smoothed or mixed), `n_c` the training
//! images of class `c`, `p` the softmax of what is in brackets and `w` the weights of the classes, the loss of an image is
//!
//! | loss | formula | source |
//! |---|---|---|
//! | cross-entropy | `-Σ w_c t_c log p_c [z]` | |
//! | focal | `-Σ w_c t_c (1 - p_c)^γ log p_c [z]` | arXiv 1708.02002, over several classes |
//! | class-balanced focal | focal with `w_c` in proportion to `(1 - β) / (1 - β^n_c)`, with the sum `classes` | arXiv 1901.05555 |
//! | ldam | `-w_y log p_y [z - m_y on the label]`, `m_c` in proportion to `n_c^(-1/4)`, the largest 0.5 times the head's scale | arXiv 1906.07413 |
//! | balanced softmax | `-Σ t_c log p_c [z + log n]` | arXiv 2007.10740 |
//! | logit adjustment | `-Σ t_c log p_c [z + τ log(n / Σn)]` | arXiv 2007.07314, equation 10 |
//!
//! Label smoothing ε is the target `(1 - ε) · one-hot + ε / classes` (arXiv 1512.00567), as in PyTorch. A class of which
//! there is no training image counts as one of which there is one, where the logarithm or a root of its number is taken.

mod criterion;

use forebay_datasets::words;

pub use criterion::Criterion;

/// What a step makes smaller.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Cross-entropy.
    CrossEntropy,
    /// Focal loss: images that are classified well count less.
    Focal {
        /// The power of one minus the probability, 0 or more; 0 is cross-entropy.
        gamma: f64,
    },
    /// Focal loss with classes weighed by their effective numbers.
    ClassBalancedFocal {
        /// As of [`Loss::Focal`].
        gamma: f64,
        /// As of [`ClassWeights::Effective`].
        beta: f64,
    },
    /// Label-distribution-aware margin: the rarer a class, the larger the margin by which its images are to be classified
    /// right. It takes a head of unit vectors ([`Head::normalized`](crate::models::Head::normalized)).
    Ldam,
    /// Cross-entropy of logits to which the logarithms of the numbers of images are added: the logits themselves then stand
    /// for classes that are equally likely.
    BalancedSoftmax,
    /// The same with `tau` times the logarithms of the shares of the classes.
    LogitAdjustment {
        /// How far the priors are taken out, 0 or more; 1 is all of them, 0 is cross-entropy.
        tau: f64,
    },
}

words!(Loss {
    CrossEntropy => "cross-entropy",
    Focal { gamma: 2.0 } => "focal",
    ClassBalancedFocal { gamma: 2.0, beta: 0.9999 } => "cb-focal",
    Ldam => "ldam",
    BalancedSoftmax => "balanced-softmax",
    LogitAdjustment { tau: 1.0 } => "logit-adjustment",
});

impl Loss {
    /// Whether a target may be of several classes, as mixed images and smoothed labels have them. A margin is that of one.
    pub fn takes_soft_targets(self) -> bool {
        !matches!(self, Loss::Ldam)
    }

    /// Whether it corrects for the numbers of images of the classes.
    pub fn corrects_priors(self) -> bool {
        !matches!(self, Loss::CrossEntropy | Loss::Focal { .. })
    }

    /// The shares of the classes, with the sum 1, that the logits of a network stand for that it trained on `counts`
    /// `[classes]` images of each class: at its minimum, the softmax of the logits is right where images come in these
    /// shares. Weights change the shares as so many more images would; focal losses and margins are taken as cross-entropy.
    pub fn logit_prior(self, class_weights: ClassWeights, counts: &[f64]) -> Vec<f64> {
        let weights = match self {
            Loss::ClassBalancedFocal { beta, .. } => ClassWeights::Effective { beta }.of(counts),
            _ => class_weights.of(counts),
        };
        let left = 1.0 - self.tau();
        // Of a class without images nothing was learned, whatever the loss makes of its logit.
        let shares = counts.iter().zip(weights).map(|(count, weight)| match *count > 0.0 {
            false => 0.0,
            true => count.powf(left) * weight,
        });
        let shares: Vec<f64> = shares.collect();
        let sum: f64 = shares.iter().sum();
        shares.into_iter().map(|share| share / sum).collect()
    }

    /// For how many of the logarithms of the priors the logits of a network that it trained do not stand any more: those of
    /// balanced softmax are as if the classes were equally likely.
    pub fn tau(self) -> f64 {
        match self {
            Loss::BalancedSoftmax => 1.0,
            Loss::LogitAdjustment { tau } => tau,
            _ => 0.0,
        }
    }

    /// The power of the focal losses, and 0 of the others.
    pub fn gamma(self) -> f64 {
        match self {
            Loss::Focal { gamma } | Loss::ClassBalancedFocal { gamma, .. } => gamma,
            _ => 0.0,
        }
    }
}

/// What an image of a class counts in the loss, by the number of images of that class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ClassWeights {
    /// The same for all.
    None,
    /// By the inverse of the number.
    Inverse,
    /// By the inverse of its root.
    Sqrt,
    /// By the inverse of the effective number `(1 - β^n) / (1 - β)` (Cui et al., arXiv 1901.05555).
    Effective {
        /// In `[0, 1)`; 0 weighs all the same, towards 1 it is the inverse of the number.
        beta: f64,
    },
}

words!(ClassWeights {
    None => "none",
    Inverse => "inverse",
    Sqrt => "sqrt",
    Effective { beta: 0.9999 } => "effective",
});

impl ClassWeights {
    /// What an image of each class counts, with a mean of 1 over the training images; 0 for a class without images.
    pub fn of(self, counts: &[f64]) -> Vec<f64> {
        let weights = self.unscaled(counts);
        let images: f64 = counts.iter().sum();
        let sum: f64 = weights.iter().zip(counts).map(|(weight, count)| weight * count).sum();
        weights.into_iter().map(|weight| if sum > 0.0 { weight * images / sum } else { 1.0 }).collect()
    }

    fn unscaled(self, counts: &[f64]) -> Vec<f64> {
        let weigh = |count: f64| match self {
            ClassWeights::None => 1.0,
            ClassWeights::Inverse => 1.0 / count,
            ClassWeights::Sqrt => 1.0 / count.sqrt(),
            // `1 - β^n` without the cancellation of it near 1.
            ClassWeights::Effective { beta } => (1.0 - beta) / -(count * beta.ln()).exp_m1(),
        };
        counts.iter().map(|&count| if count > 0.0 { weigh(count) } else { 0.0 }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_stand_for_no_share_of_a_class_that_was_never_seen() {
        let counts = [2.0, 0.0, 1.0];
        let prior = |loss: Loss| loss.logit_prior(ClassWeights::None, &counts);
        assert_eq!(prior(Loss::CrossEntropy), [2.0 / 3.0, 0.0, 1.0 / 3.0]);
        assert_eq!(prior(Loss::BalancedSoftmax), [0.5, 0.0, 0.5]);
        assert_eq!(prior(Loss::LogitAdjustment { tau: 1.0 }), [0.5, 0.0, 0.5]);
    }
}
