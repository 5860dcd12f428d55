//! What went wrong in the training crate, as an error of the run.

use forebay_datasets::escape::printable;
use forebay_train::TrainError;

use crate::flow::Error;

pub(crate) fn train_error(what: &str, error: TrainError) -> Error {
    match error {
        TrainError::Options(line) => Error::Usage(line),
        // Names of tensors are in these, and a line break within one would begin a line of its own.
        TrainError::Weights(line) => Error::Usage(format!("{what}: {}", printable(&line))),
        TrainError::Incomplete(line) => {
            Error::Usage(format!("{what}: {}, or --force to take what fits", printable(&line)))
        }
        error => Error::failed(what.to_string(), error),
    }
}
