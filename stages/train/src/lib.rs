#![doc = include_str!("../README.md")]

mod checkpoint;
mod doctor;
mod error;
mod export;
mod features;
mod file;
mod forward;
mod freezing;
mod loss_scale;
pub mod metrics;
mod mixing;
pub mod models;
pub mod onnx;
pub mod ops;
mod optim;
mod options;
pub mod params;
mod predictor;
pub mod protobuf;
pub mod schedule;
mod step;
mod trainer;
pub mod weights;

pub use checkpoint::FileDescription;
pub use error::TrainError;
pub use export::{Export, OnnxFile, export};
pub use features::features_file;
pub use forward::{Forward, forward};
pub use mixing::Mixing;
pub use optim::OptimizerKind;
pub use options::{DeviceKind, Freeze, Loss, Precision, TrainOptions, Unfreeze};
pub use predictor::Predictor;
pub use step::StepReport;
pub use trainer::{ParameterSummary, Trainer};
pub use weights::{Strictness, WeightsReport};
