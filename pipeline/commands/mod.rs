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

use forebay_datasets::store::Store;

use crate::flow::{Error, Run};
use crate::options::{Command, Config, Invocation, store_options};
use crate::report::{say, say_json};
use crate::weights::folder_and_file;

/// Prints a plan that is only to be looked at: for people, or with `--json` as one object on one line.
fn say_plan(asked: &Invocation, plan: &impl std::fmt::Display, json: impl FnOnce() -> serde_json::Value) {
    match asked.json {
        true => say_json(&json()),
        false => say(&plan.to_string()),
    }
}

/// Where a command writes its one file, and the name of it there. What the command reads, or must not lose, is in `taken`;
/// any other file that is there gives way to `--overwrite` only.
///
/// # Errors
/// [`Error::Usage`] with what is in the way.
async fn output(config: &Config, place: &str, taken: &[String]) -> Result<(Store, String), Error> {
    let (folder, file) = folder_and_file(place);
    if file.is_empty() {
        return Err(Error::Usage(format!("{place} is a folder: name a file in it")));
    }
    let options = store_options(config);
    let store = Store::open(folder, &options)?;
    for name in taken {
        let (folder, other) = folder_and_file(name);
        if other == file && Store::open(folder, &options)?.is_same_place(&store) {
            return Err(Error::Usage(format!(
                "--output {place} is {name}, which is read or part of a run: choose another --output"
            )));
        }
    }
    if !config.is_on("overwrite") && store.size(file).await?.is_some() {
        return Err(Error::Usage(format!(
            "{place} is there already: choose another --output, or --overwrite to replace it"
        )));
    }
    let file = file.to_string();
    Ok((store, file))
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
        Command::Forward => forward::run(run, asked).await,
        Command::Export => export::run(run, asked).await,
    }
}
