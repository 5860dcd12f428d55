//! Why training cannot start or go on.

use forebay_datasets::escape::{is_printable, one_line};
use thiserror::Error;

use crate::models;
use crate::options::DeviceKind;

/// Why training cannot start or go on.
#[derive(Debug, Error)]
pub enum TrainError {
    /// The options do not describe a run.
    #[error("{0}")]
    Options(String),
    /// The device cannot be used.
    #[error("cannot use {device:?} for training{}", if matches!(device, DeviceKind::Cuda(_)) { ": it needs a build with the feature `cuda`, and such a device" } else { "" })]
    Device {
        /// Which.
        device: DeviceKind,
        /// What the driver said.
        source: candle_core::Error,
    },
    /// The batch does not belong to this run.
    #[error("{0}")]
    Batch(String),
    /// The loss or its gradient is not a number any more; the network is as it was before the step.
    #[error(
        "the {what} is {value} at step {step} (learning rate {learning_rate:.3e}): try a lower learning rate or a longer warm-up, and look for broken images in the batch"
    )]
    Diverged {
        /// `loss` or `norm of the gradients`.
        what: &'static str,
        /// The step, counted from 0.
        step: u64,
        /// NaN or infinite.
        value: f64,
        /// The learning rate of the step.
        learning_rate: f64,
    },
    /// The device cannot hold a step.
    #[error(
        "the device has not enough memory to {what}: give a smaller --micro-batch, --batch-size or --size"
    )]
    OutOfMemory {
        /// What was being done.
        what: &'static str,
    },
    /// A weights file or checkpoint does not belong to this network.
    #[error("{0}")]
    Weights(String),
    /// A weights file leaves parts of the network as they were drawn, or has more than it: what fits may be asked for by
    /// [`Strictness::Lenient`](crate::Strictness::Lenient).
    #[error("{0}")]
    Incomplete(String),
    /// A weights file or checkpoint cannot be read.
    #[error("cannot read the {what}: not a whole safetensors file")]
    File {
        /// `weights`, `checkpoint` or `input`.
        what: &'static str,
        /// What the reader said.
        source: candle_core::Error,
    },
    /// An operation failed on the device.
    #[error("cannot {what}")]
    Compute {
        /// What was being done.
        what: &'static str,
        /// What candle said.
        source: candle_core::Error,
    },
}

pub(crate) fn compute(what: &'static str) -> impl Fn(candle_core::Error) -> TrainError {
    move |source| match plain(source) {
        source if is_out_of_memory(&source) => TrainError::OutOfMemory { what },
        source => TrainError::Compute { what, source },
    }
}

/// What the reader said repeats what stands in the file, and becomes a line that prints.
pub(crate) fn unreadable(what: &'static str) -> impl Fn(candle_core::Error) -> TrainError {
    move |source| {
        let said = plain(source);
        let line = said.to_string();
        let source =
            if is_printable(&line) { said } else { candle_core::Error::Msg(one_line(&line).into_owned()) };
        TrainError::File { what, source }
    }
}

/// An error as it is, without the backtrace that candle wraps around it where `RUST_BACKTRACE` is set.
pub(crate) fn plain(error: candle_core::Error) -> candle_core::Error {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => plain(*inner),
        error => error,
    }
}

fn is_out_of_memory(error: &candle_core::Error) -> bool {
    let text = error.to_string().to_lowercase();
    text.contains("out of memory") || text.contains("out_of_memory")
}

pub(crate) fn unknown_network(name: &str) -> TrainError {
    TrainError::Options(format!("no network is called `{name}`: known are {}", models::NAMES.join(", ")))
}
