//! `forebay forward`: the outputs and gradients of a network for given tensors.

use forebay_datasets::store::local_path;
use forebay_train::{Forward, TrainError, WeightsReport, forward};
use serde_json::json;

use super::bench_model::arch;
use crate::flow::{Error, Run};
use crate::options::{Config, Invocation, NormMode};
use crate::report::{say, say_json, tell};
use crate::weights::refuse_damaged;

/// Runs a network over the tensors of a file, and writes what it computes to another.
///
/// # Errors
/// [`Error::Usage`] when a file is missing, or they do not belong together, or the output is there already; [`Error::Integrity`] when the weights are damaged; others when the output cannot be written.
pub async fn forward_files(run: &Run, config: &Config) -> Result<WeightsReport, Error> {
    let needed = |key: &str, flag: &str| {
        config.text(key).ok_or_else(|| Error::Usage(format!("forward needs {flag} FILE")))
    };
    let (weights, input, output) = (
        needed("forward.weights", "--weights")?,
        needed("forward.input", "--input")?,
        needed("forward.output", "--output")?,
    );
    let arch = arch(config)?;
    let (store, file) = super::output(config, "--output", &output, &[weights.clone(), input.clone()]).await?;
    let read = |name: &str| {
        std::fs::read(local_path(name)?).map_err(|error| Error::Usage(format!("cannot read {name}: {error}")))
    };
    let (weights_bytes, input_bytes) = (read(&weights)?, read(&input)?);
    refuse_damaged(&weights, &weights_bytes)?;
    let what = Forward {
        train: config.choice::<NormMode>("forward.mode") == NormMode::Train,
        gradients: config.is_on("forward.gradients"),
        grad_cam: config.is_on("forward.grad_cam"),
    };
    let done = run.install(|| forward(&arch, &weights_bytes, &input_bytes, what));
    let (bytes, report) = done.map_err(|error| match error {
        TrainError::File { what: "weights", source } => {
            Error::Usage(format!("cannot read {weights}: not a whole safetensors file: {source}"))
        }
        TrainError::File { source, .. } => {
            Error::Usage(format!("cannot read {input}: not a whole safetensors file: {source}"))
        }
        TrainError::Compute { source, what } => Error::Usage(format!("cannot {what} of {arch}: {source}")),
        other => Error::Usage(other.to_string()),
    })?;
    store.put(&file, bytes.into()).await?;
    Ok(report)
}

/// Runs the command.
///
/// # Errors
/// The first error of the run.
pub async fn run(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let report = forward_files(run, &asked.config).await?;
    let output = asked.config.text("forward.output").unwrap_or_default();
    match asked.json {
        true => {
            say_json(&json!({"output": output, "loaded": report.loaded, "unexpected": report.unexpected}))
        }
        false => {
            tell(&format!("weights:\n{report}\n"));
            say(&format!("written to {output}\n"));
        }
    }
    Ok(())
}
