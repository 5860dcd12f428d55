//! How a run begins: at its last checkpoint, at initial weights, or anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use forebay_train::{FileDescription, TrainOptions, Trainer, WeightsReport};

use super::Start;
use super::error::train_error;
use super::frozen::Use;
use super::plan::TrainPlan;
use super::recorder::Recorder;
use super::run_folder::{RunFolder, files};
use super::run_tests::RunTests;
use super::session::{IDENTITY, MICRO_BATCH, Progress, Session, checkpoint};
use super::stalls::Reactions;
use crate::flow::{Error, Run, kill_point};
use crate::options::{Config, Identity, OPTIONS, option};
use crate::report::{EpochMetrics, Live};
use crate::weights::{self, Provenance, seal};

/// Builds the trainer: from the last checkpoint, from a weights file, or anew. With it come the finished epochs.
pub(super) async fn start(
    run: &Run,
    plan: &TrainPlan,
    folder: &RunFolder,
    begin: Start,
    live: &Live,
    on_weights: &mut (dyn FnMut(&WeightsReport) + Send),
) -> Result<(Arc<Mutex<Session>>, Vec<EpochMetrics>), Error> {
    folder.delete_leftovers().await?;
    folder.refuse_start(begin).await?;
    let (mut progress, mut reactions) = (Progress::default(), Reactions::new(plan));
    let mut history = Vec::new();
    let mut loaded = None;
    let mut kept = BTreeMap::new();
    let trainer;
    if begin == Start::Resume {
        let Some(bytes) = folder.get(files::LAST).await? else { return Err(folder.nothing_to_resume()) };
        let began = folder.get(files::CONFIG).await?.unwrap_or_default();
        let began = String::from_utf8_lossy(&began);
        let built = run.install(|| Trainer::new(&plan.options));
        let mut built = built.map_err(|error| train_error("build the network", error))?;
        (progress, reactions, kept) = resume(run, plan, folder, &mut built, (&bytes, &began))?;
        trainer = built;
        if plan.epochs < progress.epoch {
            return Err(Error::Usage(format!(
                "{} has done {} epochs, more than --epochs {}: give as many or more, or another --out",
                folder.location(),
                progress.epoch,
                plan.epochs
            )));
        }
        check_best(plan, folder, progress).await?;
        Use::of(run, plan, &trainer)?;
        // What the epochs came to is for people: where it is lost, the run goes on all the same.
        let metrics = folder.get(files::METRICS).await?.unwrap_or_default();
        history = EpochMetrics::of_lines(&metrics);
        history.retain(|metrics| metrics.epoch <= progress.epoch);
    } else {
        (trainer, loaded) = build(run, plan, &plan.options)?;
        loaded.iter().for_each(on_weights);
        // What the options ask for and cannot be is said before anything is written.
        Use::of(run, plan, &trainer)?;
        discard(folder).await?;
        // Before anything else is written: whatever is in the folder then, the run can be resumed.
        folder.put(files::LAST, checkpoint(plan, &trainer, progress, &reactions, None)?).await?;
        RunTests::begin(folder, plan.seals_test, plan.feed.source.samples_fingerprint()).await?;
        kill_point("train: after the first checkpoint");
    }
    // A resume may have changed how long the run goes on.
    folder.put(files::CONFIG, plan.run_file.clone()).await?;
    folder.put(files::CHAIN, forebay_datasets::manifest::to_json(&plan.preparation)).await?;
    let (mut recorder, points) =
        Recorder::start(folder, begin, trainer.steps_done(), plan.keeping.log_every).await?;
    recorder.resume(&kept);
    let mut seen = live.seen();
    (seen.points, seen.epochs) = (points, history.clone());
    drop(seen);
    let classifies = loaded.as_ref().is_some_and(classifies);
    let session = Session { trainer, progress, reactions, classifies, recorder, kept: Instant::now() };
    Ok((Arc::new(Mutex::new(session)), history))
}

/// The trainer at the beginning of a run: with the initial weights of the plan and, where these are of a file, what was taken.
pub(crate) fn build(
    run: &Run,
    plan: &TrainPlan,
    options: &TrainOptions,
) -> Result<(Trainer, Option<WeightsReport>), Error> {
    let Some((name, bytes)) = &plan.weights else {
        let trainer = run.install(|| Trainer::new(options));
        return Ok((trainer.map_err(|error| train_error("build the network", error))?, None));
    };
    let built = run.install(|| Trainer::with_weights(options, bytes, plan.strictness));
    let (trainer, report) = built.map_err(|error| train_error(&format!("load {name}"), error))?;
    Ok((trainer, Some(report)))
}

/// Whether the classifier came with the weights.
pub(super) fn classifies(loaded: &WeightsReport) -> bool {
    loaded.missing.is_empty() && loaded.mismatched.is_empty()
}

/// In what a run differs from the one that is to go on, by their run files.
fn differences(before: &str, now: &str) -> String {
    // What decides nothing of a run may differ: these have lines of their own in the table.
    let decides = |key: &str| option(key).is_some_and(|row| row.identity != Identity::Neither);
    let values = |text: &str| -> Option<BTreeMap<String, String>> {
        // Another place may hold the same images, and mostly holds others.
        let rows = OPTIONS.iter().filter(|row| decides(row.key) || row.key == "source");
        let config = Config::resolve(Some((files::CONFIG, text)), &[], &[]).ok()?;
        let given = rows.filter(|row| config.is_given(row.key));
        Some(given.filter_map(|row| Some((row.key.to_string(), config.get(row.key)?.to_string()))).collect())
    };
    let before = values(before).filter(|before| !before.is_empty());
    let (Some(before), Some(now)) = (before, values(now)) else {
        return format!("in what, its {} does not say", files::CONFIG);
    };
    let keys: BTreeSet<&String> =
        before.keys().chain(now.keys()).filter(|key| before.get(*key) != now.get(*key)).collect();
    let value = |values: &BTreeMap<String, String>, key: &String| {
        values.get(key).map_or("the default".to_string(), String::clone)
    };
    let lines: Vec<String> = keys
        .iter()
        .map(|key| format!("{key}: {} there, {} here", value(&before, key), value(&now, key)))
        .collect();
    match lines.is_empty() {
        true => "other images or labels".to_string(),
        false => lines.join("; "),
    }
}

/// Sets the trainer to a checkpoint, once it is certain that it is whole and of this run. With where the run stands comes
/// all that the checkpoint keeps beside the network.
fn resume(
    run: &Run,
    plan: &TrainPlan,
    folder: &RunFolder,
    trainer: &mut Trainer,
    (bytes, began_with): (&[u8], &str),
) -> Result<(Progress, Reactions, BTreeMap<String, String>), Error> {
    let place = format!("{}/{}", folder.location(), files::LAST);
    seal::check(bytes).map_err(|damage| {
        Error::Integrity(format!(
            "{place} is damaged: {damage}; put a copy in its place, or start again with --overwrite"
        ))
    })?;
    let described = FileDescription::read(bytes).map_err(|error| train_error(&place, error))?;
    // Another network is named by the trainer.
    let is_other = |found: &FileDescription| {
        found.optimizer.is_some()
            && found.model == plan.options.model
            && found.metadata.get(IDENTITY) != Some(&plan.identity)
    };
    if described.as_ref().is_some_and(is_other) {
        return Err(Error::Usage(format!(
            "{place} is of another run than this one ({}); give the options of its {}, or another --out",
            differences(began_with, &plan.run_file),
            files::CONFIG
        )));
    }
    let began = described.as_ref().and_then(|found| found.metadata.get(weights::KEY));
    let began =
        began.and_then(|json| serde_json::from_str::<Provenance>(json).ok()).map(|began| began.sha256);
    let now = plan.preparation.weights.as_ref().map(|weights| weights.sha256.clone());
    if began != now {
        let name = plan.weights.as_ref().map_or("--weights", |(name, _)| name);
        let digest = |digest: Option<String>| digest.unwrap_or_else(|| "none".to_string());
        return Err(Error::Usage(format!(
            "{name} is not the file that the run of {place} began with: its SHA-256 is {}, and was {}; put the old file \
             back, or start again with --overwrite or another --out",
            digest(now),
            digest(began),
        )));
    }
    // A checkpoint has the optimiser's state of what had thawed when it was written.
    let reactions = described.as_ref().and_then(|found| Reactions::from_metadata(plan, &found.metadata));
    trainer.set_stalls(reactions.as_ref().map_or(Vec::new(), |reactions| reactions.stalls().to_vec()));
    let restored = run.install(|| trainer.restore(bytes));
    let metadata = restored.map_err(|error| train_error(&place, error))?;
    if let Some(images) = metadata.get(MICRO_BATCH).and_then(|images| images.parse().ok()) {
        trainer.set_micro_batch(Some(images).filter(|images| *images > 0));
    }
    if let Some(counts) = described.as_ref().and_then(FileDescription::class_counts) {
        trainer.set_class_counts(counts);
    }
    let progress = Progress::from_metadata(&metadata).zip(reactions);
    let (progress, reactions) = progress.ok_or_else(|| {
        Error::Integrity(format!(
            "{place} does not say where its run stands: another version of this program wrote it; start again with \
             --overwrite"
        ))
    })?;
    Ok((progress, reactions, metadata))
}

/// Refuses to go on where the best model so far is not there, or is another run's: it is what the run would keep and test.
async fn check_best(plan: &TrainPlan, folder: &RunFolder, progress: Progress) -> Result<(), Error> {
    if progress.best.epoch == 0 {
        return Ok(());
    }
    let place = format!("{}/{}", folder.location(), files::MODEL);
    let unfit = |why: String| {
        Err(Error::Integrity(format!("{place} {why}; put it back, or start again with --overwrite")))
    };
    let Some(bytes) = folder.get(files::MODEL).await? else { return unfit("is missing".to_string()) };
    if let Err(damage) = seal::check(&bytes) {
        return unfit(format!("is damaged: {damage}"));
    }
    let described = FileDescription::read(&bytes).map_err(|error| train_error(&place, error))?;
    let identity = described.as_ref().and_then(|found| found.metadata.get(IDENTITY));
    match identity == Some(&plan.identity) {
        true => Ok(()),
        false => unfit("is of another run".to_string()),
    }
}

/// Deletes what an earlier run left, so that nothing of it can be taken for the new one's: the checkpoint first, since
/// without one the folder holds no run.
async fn discard(folder: &RunFolder) -> Result<(), Error> {
    let names = folder.names().await?;
    let of_a_run = files::ALL.into_iter().filter(|file| names.iter().any(|name| name == file));
    let others = |name: &&str| files::is_written_by_a_run(name) && !files::ALL.contains(name);
    let others = names.iter().map(String::as_str).filter(others);
    folder.delete(&of_a_run.chain(others).collect::<Vec<_>>()).await
}
