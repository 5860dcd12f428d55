//! How good a classifier is, and how sure that is: figures with intervals and baselines, curves, calibration, comparison
//! and suspected label errors.
//!
//! [`Scored`] holds what a classifier said of samples whose class is known, joined by id.
//! Everything else is a function of it, and of a seed where samples are drawn.

mod logits;
mod confusion;
mod classification_report;
mod scored;
mod evaluation;
mod evaluate;
mod temperature;
mod comparison;
mod label_errors;
mod measured;
mod ranking;
mod interval;
mod shortcut;

pub use classification_report::classification_report;
pub use comparison::{Comparison, ComparisonError, Difference, McNemar, holm};
pub use confusion::{ClassScores, Confusion};
pub use evaluation::{
    AverageFigures, ClassFigures, CoveragePoint, CurvePoint, Curves, Evaluation, EvaluationOptions, Figure,
    Majority, RankFigures, ReliabilityBin,
};
pub use label_errors::{LabelErrors, Suspect};
pub use logits::{cross_entropy, prediction};
pub use scored::{ScoreError, Scored};
pub use shortcut::{AttributeAccuracy, ImageAttribute, ShortcutProbe, shortcut_probe};
pub use temperature::{TemperatureEnd, TemperatureFit, fit_temperature};
