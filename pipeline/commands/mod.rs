//! The commands, one file each: what it does, and what it says as text and as JSON.

pub mod bench;
pub mod bench_model;
pub mod demo;
pub mod export;
pub mod find_lr;
pub mod forward;
pub mod inspect;
pub mod prepare;
pub mod train;
pub mod verify;

use crate::flow::{Error, Run};
use crate::options::{Command, Invocation};
use crate::report::{say, say_json};

/// Prints a plan that is only to be looked at: for people, or with `--json` as one object on one line.
fn say_plan(asked: &Invocation, plan: &impl std::fmt::Display, json: impl FnOnce() -> serde_json::Value) {
    match asked.json {
        true => say_json(&json()),
        false => say(&plan.to_string()),
    }
}

/// Runs the command that was asked for.
///
/// # Errors
/// The first error of the run.
pub async fn run(run: &Run, asked: &Invocation) -> Result<(), Error> {
    match asked.command {
        Command::Demo => demo::run(run, asked).await,
        Command::Inspect => inspect::run(run, asked).await,
        Command::Prepare => prepare::run(run, asked).await,
        Command::Verify => verify::run(run, asked).await,
        Command::Train => train::run(run, asked).await.map(drop),
        Command::Bench => bench::run(run, asked).await,
        Command::BenchModel => bench_model::run(run, asked),
        Command::Forward => forward::run(run, asked),
        Command::Export => export::run(run, asked).await,
    }
}
