//! Training: a network, its loss, an optimiser, and checkpoints from which a run resumes bit for bit.
//!
//! [`Trainer`] is what a program calls; the modules below it are what it is made of.

mod checkpoint;
mod forward;
pub mod metrics;
pub mod models;
pub mod ops;
mod optim;
pub mod params;
pub mod schedule;
mod trainer;
mod weights;

pub use forward::{Forward, forward};
pub use optim::OptimizerKind;
pub use trainer::{
    DeviceKind, FileDescription, Freeze, ParameterSummary, StepReport, TrainError, TrainOptions, Trainer,
};
pub use weights::WeightsReport;
