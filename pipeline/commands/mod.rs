//! The commands, one file each: what it does, and what it says as text and as JSON.

pub mod advise;
pub mod bench;
pub mod bench_model;
pub mod compare;
pub mod convert;
pub mod demo;
pub mod ensemble;
pub mod eval;
pub mod export;
pub mod find_lr;
pub mod forward;
pub mod inspect;
pub mod manual;
pub mod models;
pub mod predict;
pub mod prepare;
pub mod trace;
pub mod train;
pub mod tune;
pub mod verify;

use forebay_datasets::groups::SamePicture;
use forebay_datasets::store::{Store, local_path};

use crate::flow::{Error, Run};
use crate::hub::Reference;
use crate::options::{Command, Config, Invocation, store_options};
use crate::plan::{Purpose, folder_and_file, refuse_file, refuse_unreached};
use crate::report::{detail, say, say_json};
use crate::train::files;

/// Prints a plan that is only to be looked at: for people, or with `--json` as one object on one line.
fn say_plan(asked: &Invocation, plan: &impl std::fmt::Display, json: impl FnOnce() -> serde_json::Value) {
    match asked.json {
        true => say_json(&json()),
        false => say(&plan.to_string()),
    }
}

/// Says what a plan waits for where it decodes every image.
fn say_that_it_looks(config: &Config) {
    if config.choice::<SamePicture>("split.group") == SamePicture::Duplicates {
        detail("looking for pictures that are there in several forms: every image is decoded once more");
    }
}

/// Where a command writes its one file, and the name of it there. What the command reads (`inputs`, and the run file), what
/// a run or a dataset is made of and what is no file gives way to nothing; any other file that is there gives way to
/// `--overwrite`.
///
/// # Errors
/// [`Error::Usage`] with what is in the way.
async fn output(
    config: &Config,
    flag: &str,
    place: &str,
    inputs: &[String],
) -> Result<(Store, String), Error> {
    let refuse = |why: &str| Err(Error::Usage(format!("{flag} {place} {why}: choose another {flag}")));
    let (folder, file) = folder_and_file(place);
    // Stores write `NAME#1` beside a file that is under way.
    let is_temporary =
        file.rsplit_once('#').is_some_and(|(_, n)| n.bytes().all(|byte| byte.is_ascii_digit()));
    if ["", ".", ".."].contains(&file) || local_path(place).is_ok_and(|path| path.is_dir()) {
        return refuse("is a folder, and not a file in one");
    }
    if is_temporary || Reference::parse(place).is_some() {
        return refuse("is no name for a file");
    }
    refuse_unreached(flag, place, Purpose::Output)?;
    let options = store_options(config);
    let store = Store::open(folder, &options)?;
    for name in inputs.iter().map(String::as_str).chain(config.file()) {
        let (folder, other) = folder_and_file(name);
        if store.is_same_object(file, &Store::open(folder, &options)?, other) {
            return refuse(&format!("is {name}, which is read"));
        }
    }
    let there = match (store.size(file).await, store.local_root()) {
        // A bucket may answer another time; what is wrong with a path stays wrong.
        (Err(error), Some(_)) => return Err(Error::Usage(error.to_string())),
        (there, _) => there?,
    };
    if files::is_of_a_run(file) && there.is_some() && holds_a_run(&store).await? {
        return refuse("is a file of a run");
    }
    refuse_file(&store, file).await?;
    if !config.is_on("overwrite") && there.is_some() {
        return Err(Error::Usage(format!(
            "{place} is there already: choose another {flag}, or --overwrite to replace it"
        )));
    }
    let file = file.to_string();
    Ok((store, file))
}

/// Whether a folder is one that a run has left.
async fn holds_a_run(store: &Store) -> Result<bool, Error> {
    for name in [files::LAST, files::CHAIN] {
        if store.size(name).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Runs the command that was asked for.
///
/// # Errors
/// The first error of the run.
pub async fn run(run: &Run, asked: &Invocation) -> Result<(), Error> {
    match asked.command {
        Command::Demo => demo::run(run, asked).await,
        Command::Inspect => inspect::run(run, asked).await,
        Command::Models => models::run(asked),
        Command::Prepare => prepare::run(run, asked).await,
        Command::Convert => convert::run(run, asked).await,
        Command::Verify => verify::run(run, asked).await,
        Command::Trace => trace::run(run, asked).await,
        Command::Train => train::run(run, asked).await.map(drop),
        Command::Bench => bench::run(run, asked).await,
        Command::BenchModel => bench_model::run(run, asked),
        Command::Forward => forward::run(run, asked).await,
        Command::Export => export::run(run, asked).await,
        Command::Compare => compare::run(run, asked).await,
        Command::Predict => predict::run(run, asked).await,
        Command::Eval => eval::run(run, asked).await,
        Command::Ensemble => ensemble::run(run, asked).await,
        Command::Tune => tune::run(run, asked).await,
        Command::Advise => advise::run(run, asked).await,
    }
}
