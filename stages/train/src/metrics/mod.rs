//! How good a classifier is, and how sure that is: figures with intervals and baselines, curves, calibration, comparison
//! and suspected label errors.
//!
//! [`Scored`] holds what a classifier said of samples whose class is known, joined by id.
//! Everything else is a function of it, and of a seed where samples are drawn.

mod logits;
mod confusion;
mod scored;
mod evaluation;

pub use confusion::{ClassScores, Confusion};
pub use evaluation::{
    AverageFigures, ClassFigures, CoveragePoint, CurvePoint, Curves, Evaluation, EvaluationOptions, Figure,
    Majority, RankFigures, ReliabilityBin,
};
pub use logits::{cross_entropy, prediction};
pub use scored::{ScoreError, Scored};
