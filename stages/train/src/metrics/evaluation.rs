//! Everything that is known of a classifier after it was tried on samples of known class.

use serde::{Deserialize, Serialize};

/// How an evaluation is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvaluationOptions {
    /// What logits are divided by before the softmax; 1 leaves them.
    pub temperature: f64,
    /// The confidence level of every interval, in (0, 1).
    pub level: f64,
    /// How often the samples are drawn anew for the intervals that have no formula.
    pub draws: u32,
    /// What these draws are a function of.
    pub seed: u64,
}

impl Default for EvaluationOptions {
    fn default() -> EvaluationOptions {
        EvaluationOptions { temperature: 1.0, level: 0.95, draws: 1000, seed: 0 }
    }
}

/// A figure, how sure it is, and what it would be without any skill.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// On these samples.
    pub value: f64,
    /// The lower end of the interval; at most `value`.
    pub low: f64,
    /// The upper end of the interval; at least `value`.
    pub high: f64,
    /// The same figure of the classifier that gives every sample the shares of the classes as probabilities, and so
    /// predicts the majority. `None` where it has none.
    pub baseline: Option<f64>,
}

/// The most frequent class of the samples, the first of equally frequent ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Majority {
    /// Its name.
    pub class: String,
    /// The accuracy of always predicting it.
    pub accuracy: f64,
}

/// Precision, recall and F1 of all classes in one figure each.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AverageFigures {
    /// Of those predicted as a class, the share that is.
    pub precision: Figure,
    /// Of those of a class, the share that was found.
    pub recall: Figure,
    /// The harmonic mean of both.
    pub f1: Figure,
}

/// A figure of the order in which samples are ranked by their probability of a class; in [0, 1].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RankFigures {
    /// The mean over the classes for which it is defined, each against the rest. `None` where there is no such class.
    #[serde(rename = "macro")]
    pub macro_average: Option<Figure>,
    /// All (sample, class) pairs ranked together. `None` for more than 2^24 pairs; with one class `None` for ROC, where no pair is
    /// negative, and 1 for average precision.
    #[serde(rename = "micro")]
    pub micro_average: Option<Figure>,
    /// That of the second class, where there are two.
    pub binary: Option<Figure>,
}

/// What is known of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassFigures {
    /// Its name.
    pub class: String,
    /// How many samples are of it.
    pub support: u64,
    /// How many samples were taken for it.
    pub predicted: u64,
    /// Of those predicted as this class, the share that is; 0 without any. Wilson's interval.
    pub precision: Figure,
    /// Of those of this class, the share that was found; 0 without any. Wilson's interval.
    pub recall: Figure,
    /// The harmonic mean of both; 0 without any.
    pub f1: Figure,
    /// The area under the ROC curve against all other classes. `None` without samples of it, or of others.
    pub roc_auc: Option<Figure>,
    /// The average precision against all other classes. `None` without samples of it.
    pub average_precision: Option<Figure>,
}

/// A point of a curve over thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// ROC: the false positive rate. Precision and recall: the recall.
    pub x: f64,
    /// ROC: the true positive rate. Precision and recall: the precision.
    pub y: f64,
    /// The smallest probability that counts as positive here; `None` where nothing does.
    pub threshold: Option<f64>,
}

/// A curve for each class against the rest, and one of all (sample, class) pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curves {
    /// In the order of the classes; empty where a class has no curve.
    pub classes: Vec<Vec<CurvePoint>>,
    /// Of all pairs together; empty for more than 2^24 of them.
    pub micro: Vec<CurvePoint>,
}

/// The samples whose confidence, the probability of the predicted class, lies in (`low`, `high`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Above this.
    pub low: f64,
    /// Up to this.
    pub high: f64,
    /// How many there are.
    pub samples: u64,
    /// Their mean confidence; 0 without any.
    pub confidence: f64,
    /// The share of right predictions among them; 0 without any.
    pub accuracy: f64,
}

/// What is right where only predictions of some confidence are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CoveragePoint {
    /// The smallest confidence that is accepted.
    pub threshold: f64,
    /// The share of samples that are accepted.
    pub coverage: f64,
    /// The share of right predictions among them.
    pub accuracy: f64,
}

/// Everything that is known of a classifier after it was tried on samples of known class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The names of the classes, in the order of everything that is listed by class.
    pub classes: Vec<String>,
    /// How many samples there are.
    pub samples: u64,
    /// What logits were divided by.
    pub temperature: f64,
    /// The confidence level of every interval.
    pub level: f64,
    /// How often the samples were drawn anew.
    pub draws: u32,
    /// How often for figures of ranks, which take longest: `draws`, or fewer where there are very many (sample, class)
    /// pairs.
    pub rank_draws: u32,
    /// What the draws are a function of.
    pub seed: u64,
    /// `confusion[truth][prediction]`.
    pub confusion: Vec<Vec<u64>>,
    /// What every figure stands beside.
    pub majority: Majority,
    /// The share of right predictions. Wilson's interval.
    pub accuracy: Figure,
    /// The share of samples whose class is among the five most probable; `None` under six classes. Wilson's interval.
    pub top5: Option<Figure>,
    /// The mean recall of the classes that have samples.
    pub balanced_accuracy: Figure,
    /// Each class that a sample is of or was taken for weighs the same.
    pub macro_average: AverageFigures,
    /// Each class weighs as many samples as it has.
    pub weighted_average: AverageFigures,
    /// All counts together: each is the accuracy, as every sample has one class and one prediction.
    pub micro_average: AverageFigures,
    /// Cohen's kappa, agreement beyond chance, at most 1; `None` where chance alone would agree on everything.
    pub kappa: Option<Figure>,
    /// Matthews' correlation coefficient of several classes, in [-1, 1]; 0 where truth or prediction is always one class.
    pub mcc: Figure,
    /// The mean of -ln(probability of the true class), at least 0, finite.
    pub log_loss: Figure,
    /// The mean squared distance of probabilities and truth, summed over classes; halved for two classes, as
    /// scikit-learn does. In [0, 2], or [0, 1] for two classes.
    pub brier: Figure,
    /// The expected calibration error in 15 bins of equal width (Guo et al. 2017), in [0, 1].
    pub ece: Figure,
    /// Areas under ROC curves.
    pub roc_auc: RankFigures,
    /// Average precisions: areas under curves of precision and recall, in steps.
    pub average_precision: RankFigures,
    /// A row per class.
    pub per_class: Vec<ClassFigures>,
    /// ROC curves, at most 200 points each.
    pub roc: Curves,
    /// Curves of precision against recall, at most 200 points each.
    pub pr: Curves,
    /// Confidence against accuracy in the 15 bins of `ece`.
    pub reliability: Vec<ReliabilityBin>,
    /// Accuracy against coverage, at most 200 points, from the most confident to all.
    pub coverage: Vec<CoveragePoint>,
}
