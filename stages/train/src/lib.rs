#![doc = include_str!("../README.md")]

mod options;
mod error;
mod trainer;
mod step;
mod freezing;
mod loss_scale;
mod checkpoint;
mod file;
mod features;
mod predictor;
pub mod metrics;
mod rehearsal;
mod forward;
mod optim;
pub mod schedule;
mod mixing;
pub mod models;
pub mod ops;
pub mod params;
pub mod weights;
mod export;
pub mod onnx;
pub mod protobuf;

pub use error::TrainError;
pub use export::{Export, OnnxFile, export};
pub use features::features_file;
pub use file::FileDescription;
pub use forward::{Forward, forward};
pub use mixing::Mixing;
pub use optim::OptimizerKind;
pub use options::{DeviceKind, Freeze, Loss, Precision, TrainOptions, Unfreeze};
pub use predictor::Predictor;
pub use step::StepReport;
pub use trainer::{ParameterSummary, Trainer};
pub use weights::{Strictness, WeightsReport};
