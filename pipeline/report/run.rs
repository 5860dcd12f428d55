//! A training run as those see it who are told of it: what it is, what its steps and epochs came to, and how it ended.

use forebay_datasets::sample::Split;
use forebay_train::metrics::Scored;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::options::Monitor;

/// What a run is, in the words of a heading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFacts {
    /// The network.
    pub model: String,
    /// Where its images come from.
    pub source: String,
    /// The resolved run file.
    pub run_file: String,
}

/// How fast training goes, per second. What the frozen layers made of an image and a cache gives back is no image: the two
/// are not to be compared, and have names of their own in the files of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Speed {
    /// Images through the whole network.
    #[serde(rename = "images_per_second")]
    Images(f64),
    /// Cached features through what is trained.
    #[serde(rename = "cached_features_per_second")]
    CachedFeatures(f64),
}

impl Speed {
    /// So many samples, which came as images or out of a cache.
    pub fn of(samples: u64, seconds: f64, is_cached: bool) -> Speed {
        let per_second = samples as f64 / seconds.max(1e-9);
        match is_cached {
            true => Speed::CachedFeatures(per_second),
            false => Speed::Images(per_second),
        }
    }
}

impl std::fmt::Display for Speed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Speed::Images(per_second) => write!(f, "{per_second:.0} images/s"),
            Speed::CachedFeatures(_) => f.write_str("cached features"),
        }
    }
}

/// What one epoch came to, as a line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// Counted from 1.
    pub epoch: u32,
    /// Steps since the start of the run.
    pub steps: u64,
    /// The learning rate of the last step.
    pub learning_rate: f64,
    /// The mean loss over the epoch, as it went.
    pub train_loss: f64,
    /// The share of training images classified right, as it went.
    pub train_accuracy: f64,
    /// The mean loss on the validation split.
    pub validation_loss: Option<f64>,
    /// The accuracy on the validation split.
    pub validation_accuracy: Option<f64>,
    /// The mean F1 of the classes on the validation split, each weighing the same.
    #[serde(default)]
    pub validation_macro_f1: Option<f64>,
    /// Epochs since the last improvement, with this one: 0 for an improvement. What `--early-stop` counts.
    #[serde(default)]
    pub epochs_without_improvement: u32,
    /// How long the epoch took, validation included; of an epoch that was resumed, the part since then.
    pub seconds: f64,
    /// How fast it went, validation not counted; of an epoch that was resumed, in the part since then.
    #[serde(flatten)]
    pub speed: Speed,
}

/// A point of the training curves, as a line of `steps.jsonl`: what the steps since the last point came to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepPoint {
    /// Steps done since the start of the run.
    pub step: u64,
    /// Epochs done, with the part of the one at hand.
    pub epoch: f64,
    /// The mean loss.
    pub loss: f64,
    /// The share of images classified right, 0 to 1.
    pub accuracy: f64,
    /// The learning rate of the last of these steps.
    pub learning_rate: f64,
    /// How fast these steps went.
    #[serde(flatten)]
    pub speed: Speed,
}

/// The values of a file that has a JSON object a line, which is for people: a line that is none, as a process that is
/// killed leaves it, is passed over.
fn of_lines<T: DeserializeOwned>(text: &[u8]) -> Vec<T> {
    text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

impl EpochMetrics {
    /// Reads `metrics.jsonl`.
    pub fn of_lines(text: &[u8]) -> Vec<EpochMetrics> {
        of_lines(text)
    }
}

impl StepPoint {
    /// Reads `steps.jsonl`.
    pub fn of_lines(text: &[u8]) -> Vec<StepPoint> {
        of_lines(text)
    }
}

impl Monitor {
    /// The score of an epoch, the higher the better; `None` without a validation split.
    pub fn score(self, metrics: &EpochMetrics) -> Option<f64> {
        match self {
            Monitor::Accuracy => metrics.validation_accuracy,
            Monitor::Loss => metrics.validation_loss.map(|loss| -loss),
            Monitor::MacroF1 => metrics.validation_macro_f1,
        }
    }
}

/// The scores of one class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassRow {
    /// Its name.
    pub class: String,
    /// Of those predicted as this class, the share that is.
    pub precision: f64,
    /// Of those of this class, the share that was found.
    pub recall: f64,
    /// The harmonic mean of both.
    pub f1: f64,
    /// How many there are.
    pub support: u64,
}

/// What a training run came to.
#[derive(Clone, Debug, Serialize)]
pub struct Trained {
    /// The accuracy of the best checkpoint on `split`.
    pub accuracy: f64,
    /// The ends of its interval at a confidence of 95 %; `None` on the training images, which say nothing of others.
    pub accuracy_interval: Option<(f64, f64)>,
    /// The accuracy of always predicting the most frequent class.
    pub majority: Option<f64>,
    /// How often the test images were scored, with this time; `None` where they were not.
    pub test_openings: Option<u64>,
    /// What makes the model's probabilities calibrated, fitted on the validation images.
    pub temperature: Option<f64>,
    /// `test` where there is one that is not sealed, else `validation`, else `train`.
    pub split: Split,
    /// The epoch of the best checkpoint, counted from 1.
    pub best_epoch: u32,
    /// What it was best in, on the validation split.
    pub monitor: Monitor,
    /// Whether the run ended before its last epoch because nothing got better.
    pub stopped_early: bool,
    /// The mean over classes, each weighing the same.
    pub macro_f1: f64,
    /// Every class in the order of the labels.
    pub classes: Vec<ClassRow>,
    /// `[truth][prediction]`: counts.
    pub confusion: Vec<Vec<u64>>,
    /// Every epoch.
    pub epochs: Vec<EpochMetrics>,
    /// Images that the run found, each counted once, those that it rejected among them.
    pub found: u64,
    /// Images that could not be read.
    pub rejected: u64,
    /// The share of the train thread's time in which it waited for a batch.
    pub starved: f64,
    /// What the best epoch said of the validation images.
    #[serde(skip)]
    pub validation: Option<Scored>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_of_a_cache_are_never_counted_as_images() {
        let point =
            |speed| StepPoint { step: 1, epoch: 0.1, loss: 0.3, accuracy: 0.5, learning_rate: 1e-3, speed };
        for (speed, words, key) in [
            (Speed::Images(246_237.4), "246237 images/s", "images_per_second"),
            (Speed::CachedFeatures(246_237.4), "cached features", "cached_features_per_second"),
        ] {
            assert_eq!(speed.to_string(), words);
            let line = serde_json::to_string(&point(speed)).unwrap();
            assert!(line.contains(&format!("\"{key}\":246237.4")), "{line}");
            assert_eq!(serde_json::from_str::<StepPoint>(&line).unwrap(), point(speed));
        }
    }
}
