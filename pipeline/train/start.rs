//! How a run begins: at its last checkpoint, at initial weights, or anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use forebay_train::{FileDescription, Trainer, WeightsReport};

use super::Start;
use super::error::train_error;
use super::plan::TrainPlan;
use super::recorder::{self, Recorder};
use super::run_folder::{RunFolder, files};
use super::session::{MICRO_BATCH, Progress, Session};
use super::stalls::stalls;
use crate::flow::{Error, Run};
use crate::report::{EpochMetrics, Live};
use crate::weights::seal;

/// Builds the trainer: from the last checkpoint, from a weights file, or anew. With it come the finished epochs.
pub(super) async fn start(
    run: &Run,
    plan: &TrainPlan,
    folder: &RunFolder,
    begin: Start,
    live: &Live,
    on_weights: &mut (dyn FnMut(&WeightsReport) + Send),
) -> Result<(Arc<Mutex<Session>>, Vec<EpochMetrics>), Error> {
    let last = folder.get(files::LAST).await?;
    if last.is_some() && begin == Start::New {
        return Err(Error::Usage(format!(
            "{} holds a run already: --resume goes on with it, --overwrite starts again",
            folder.location()
        )));
    }
    let trainer = run.install(|| Trainer::new(&plan.options));
    let mut trainer = trainer.map_err(|error| train_error("build the network", error))?;
    let mut progress = Progress::default();
    let mut history = Vec::new();
    let mut classifies = false;
    let mut kept = BTreeMap::new();
    if begin == Start::Resume {
        let Some(bytes) = last else {
            return Err(Error::Usage(format!(
                "{} holds no {} to resume from; leave out --resume",
                folder.location(),
                files::LAST
            )));
        };
        let metrics = folder.get(files::METRICS).await?.unwrap_or_default();
        let lines = String::from_utf8_lossy(&metrics);
        history.extend(lines.lines().filter_map(|line| serde_json::from_str::<EpochMetrics>(line).ok()));
        // A checkpoint has the optimiser's state of what had thawed when it was written.
        trainer.set_stalls(stalls(plan, &history));
        (progress, kept) = resume(run, plan, folder, &mut trainer, &bytes)?;
        history.retain(|metrics| metrics.epoch <= progress.epoch);
    } else {
        if let Some((name, bytes)) = &plan.weights {
            let loaded = run.install(|| trainer.load_weights(bytes, plan.strictness));
            let loaded = loaded.map_err(|error| train_error(&format!("load {name}"), error))?;
            classifies = loaded.missing.is_empty() && loaded.mismatched.is_empty();
            on_weights(&loaded);
        }
        discard(folder, begin).await?;
        folder.put(files::CONFIG, plan.run_file.clone()).await?;
        folder.put(files::CHAIN, forebay_datasets::manifest::to_json(&plan.preparation)).await?;
    }
    let (mut recorder, points) =
        Recorder::start(folder, begin, trainer.steps_done(), plan.keeping.log_every).await?;
    recorder.resume(&kept);
    let mut seen = live.seen();
    (seen.points, seen.epochs) = (points, history.clone());
    drop(seen);
    let session = Session { trainer, progress, classifies, recorder, kept: Instant::now() };
    Ok((Arc::new(Mutex::new(session)), history))
}

/// Sets the trainer to a checkpoint, once it is certain that it is whole and of this run. With where the run stands comes
/// all that the checkpoint keeps beside the network.
fn resume(
    run: &Run,
    plan: &TrainPlan,
    folder: &RunFolder,
    trainer: &mut Trainer,
    bytes: &[u8],
) -> Result<(Progress, BTreeMap<String, String>), Error> {
    let place = format!("{}/{}", folder.location(), files::LAST);
    seal::check(bytes).map_err(|damage| {
        Error::Integrity(format!(
            "{place} is damaged: {damage}; put a copy in its place, or start again with --overwrite"
        ))
    })?;
    let described = Trainer::describe(bytes).map_err(|error| train_error(&place, error))?;
    // Another network is named by the trainer.
    let is_other = |found: &FileDescription| {
        found.optimizer.is_some()
            && found.model == plan.options.model
            && found.metadata.get("identity") != Some(&plan.identity)
    };
    if described.as_ref().is_some_and(is_other) {
        return Err(Error::Usage(format!(
            "{place} is of a run with other data or options; give the options of its {}, or another --out",
            files::CONFIG
        )));
    }
    let restored = run.install(|| trainer.restore(bytes));
    let metadata = restored.map_err(|error| train_error(&place, error))?;
    if let Some(images) = metadata.get(MICRO_BATCH).and_then(|images| images.parse().ok()) {
        trainer.set_micro_batch(Some(images).filter(|images| *images > 0));
    }
    let progress = Progress::from_metadata(&metadata)
        .ok_or_else(|| Error::Integrity(format!("{place} does not say where its run stands")))?;
    Ok((progress, metadata))
}

/// Deletes what an earlier run left, so that nothing of it can be taken for the new one's: all of it when it is to
/// be replaced, else the curves of one that ended before its first checkpoint.
async fn discard(folder: &RunFolder, begin: Start) -> Result<(), Error> {
    let names = folder.names().await?;
    let of_a_run = [
        // The checkpoint first: without one the folder holds no run.
        files::LAST,
        files::MODEL,
        files::TIMM,
        files::PREPROCESSOR,
        files::LABELS,
        files::METRICS,
        files::STEPS,
        files::SUMMARY,
        files::SUMMARY_TEXT,
        files::REPORT,
    ];
    for name in of_a_run.into_iter().chain(files::CURVES) {
        if begin == Start::Overwrite && names.iter().any(|found| found == name) {
            folder.delete(name).await?;
        }
    }
    for name in names.iter().filter(|name| recorder::is_event_file(name)) {
        folder.delete(name).await?;
    }
    Ok(())
}
