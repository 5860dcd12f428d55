//! What went wrong in the training crate, as an error of the run.

use forebay_train::TrainError;

use crate::flow::Error;

pub(crate) fn train_error(what: &str, error: TrainError) -> Error {
    match error {
        TrainError::Options(line) => Error::Usage(line),
        TrainError::Weights(line) => Error::Usage(format!("{what}: {line}")),
        TrainError::Incomplete(line) => Error::Usage(format!("{what}: {line}, or --force to take what fits")),
        error => Error::failed(what.to_string(), error),
    }
}
