//! Training: a network, its loss, an optimiser, and checkpoints from which a run resumes bit for bit.
//!
//! [`Trainer`] is what a program calls; the modules below it are what it is made of.

mod checkpoint;
mod doctor;
mod export;
mod features;
mod forward;
pub mod metrics;
mod mixing;
pub mod models;
pub mod onnx;
pub mod ops;
mod optim;
pub mod params;
pub mod protobuf;
pub mod schedule;
mod trainer;
pub mod weights;

pub use export::{Export, OnnxFile, export};
pub use features::features_file;
pub use forward::{Forward, forward};
pub use mixing::Mixing;
pub use optim::OptimizerKind;
pub use trainer::{
    DeviceKind, FileDescription, Freeze, Loss, ParameterSummary, Precision, StepReport, TrainError,
    TrainOptions, Trainer, Unfreeze,
};
pub use weights::WeightsReport;
