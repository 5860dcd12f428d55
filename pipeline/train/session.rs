//! The trainer and where its run stands, and how both are kept in the run folder.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use forebay_datasets::escape::printable;
use forebay_datasets::shard::Reject;
use forebay_train::Trainer;

use super::error::train_error;
use super::keeping::{Best, CheckpointEvery, Keeping};
use super::plan::TrainPlan;
use super::recorder::Recorder;
use super::run_folder::{RunFolder, files};
use super::stalls::Reactions;
use super::timm;
use crate::flow::{Error, Run, kill_point};
use crate::weights::seal;

/// The key of a checkpoint under which the micro-batch stands that was found to fit.
pub(super) const MICRO_BATCH: &str = "micro_batch";

/// The key under which a checkpoint and a model keep which run they are of.
pub(super) const IDENTITY: &str = "identity";

/// What a checkpoint carries beside the network: where the run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Progress {
    /// Finished epochs.
    pub(super) epoch: u32,
    /// Batches done of the epoch at hand: the position in it.
    pub(super) batch: u64,
    /// Sums over those batches.
    pub(super) loss: f64,
    pub(super) correct: u64,
    pub(super) seen: u64,
    /// The best epoch so far, and the patience that is used up.
    pub(super) best: Best,
}

impl Progress {
    fn to_metadata(self, plan: &TrainPlan, trainer: &Trainer) -> BTreeMap<String, String> {
        // A float is kept as its bits, so that a resumed epoch reports what an uninterrupted one does.
        let mut metadata = plan.preparation.to_metadata();
        metadata.extend(trainer.priors_as_metadata(trainer.steps_done()));
        metadata.extend([
            (IDENTITY.to_string(), plan.identity.clone()),
            ("epoch".to_string(), self.epoch.to_string()),
            ("batch".to_string(), self.batch.to_string()),
            ("loss".to_string(), self.loss.to_bits().to_string()),
            ("correct".to_string(), self.correct.to_string()),
            ("seen".to_string(), self.seen.to_string()),
            ("best_epoch".to_string(), self.best.epoch.to_string()),
            ("best_score".to_string(), self.best.score.to_bits().to_string()),
            ("reference_score".to_string(), self.best.reference.to_bits().to_string()),
            ("stale_epochs".to_string(), self.best.stale.to_string()),
            (seal::KEY.to_string(), seal::blank()),
        ]);
        metadata
    }

    pub(super) fn from_metadata(metadata: &BTreeMap<String, String>) -> Option<Progress> {
        let number = |key: &str| metadata.get(key)?.parse::<u64>().ok();
        Some(Progress {
            epoch: number("epoch")? as u32,
            batch: number("batch")?,
            loss: f64::from_bits(number("loss")?),
            correct: number("correct")?,
            seen: number("seen")?,
            best: Best {
                epoch: number("best_epoch")? as u32,
                score: f64::from_bits(number("best_score")?),
                reference: f64::from_bits(number("reference_score")?),
                stale: number("stale_epochs")? as u32,
            },
        })
    }
}

/// The trainer and where it stands; the train thread holds it during a pass.
pub(super) struct Session {
    pub(super) trainer: Trainer,
    pub(super) progress: Progress,
    /// What validation has said so far.
    pub(super) reactions: Reactions,
    /// Whether the classifier came with the initial weights.
    pub(super) classifies: bool,
    pub(super) recorder: Recorder,
    /// When the last checkpoint was written.
    pub(super) kept: Instant,
}

impl Session {
    /// The checkpoint to resume from, as it is now.
    pub(super) fn checkpoint(&self, plan: &TrainPlan) -> Result<Vec<u8>, Error> {
        checkpoint(plan, &self.trainer, self.progress, &self.reactions, Some(&self.recorder))
    }

    /// Whether the run has done no step yet.
    pub(super) fn is_new(&self) -> bool {
        (self.progress.epoch, self.progress.batch) == (0, 0)
    }

    /// Where the run stands, in the names of kill points.
    pub(super) fn moment(&self) -> String {
        format!("epoch {} batch {}", self.progress.epoch, self.progress.batch)
    }

    /// Whether a checkpoint is due within an epoch.
    pub(super) fn is_due(&self, keeping: &Keeping) -> bool {
        match keeping.checkpoint_every {
            CheckpointEvery::Steps(steps) => self.trainer.steps_done().is_multiple_of(steps),
            CheckpointEvery::Time(time) => self.kept.elapsed() >= time,
        }
    }
}

/// The bytes of a checkpoint: the trainer, and all else that decides the rest of the run.
pub(super) fn checkpoint(
    plan: &TrainPlan,
    trainer: &Trainer,
    progress: Progress,
    reactions: &Reactions,
    recorder: Option<&Recorder>,
) -> Result<Vec<u8>, Error> {
    let mut metadata = progress.to_metadata(plan, trainer);
    metadata.extend(recorder.map(Recorder::to_metadata));
    reactions.add_to(&mut metadata);
    if plan.fits_micro_batch {
        // What was found to fit is part of what the run is.
        metadata.insert(MICRO_BATCH.to_string(), trainer.micro_batch().unwrap_or(0).to_string());
    }
    let bytes = trainer.checkpoint(&metadata);
    Ok(seal::seal(bytes.map_err(|error| train_error("write the checkpoint", error))?))
}

pub(super) fn lock(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().expect("the train thread has ended")
}

/// Writes the checkpoint to resume from.
pub(super) async fn keep(
    run: &Run,
    plan: &TrainPlan,
    folder: &RunFolder,
    session: &Mutex<Session>,
) -> Result<(), Error> {
    let (bytes, events, moment) = {
        let mut session = lock(session);
        session.kept = Instant::now();
        (session.checkpoint(plan)?, session.recorder.events.clone(), session.moment())
    };
    put_checkpoint(run, folder, &events, bytes, &moment).await
}

/// Writes the bytes of a checkpoint, after the curves and the rejects up to there.
pub(super) async fn put_checkpoint(
    run: &Run,
    folder: &RunFolder,
    events: &str,
    bytes: Vec<u8>,
    moment: &str,
) -> Result<(), Error> {
    folder.publish(files::STEPS).await?;
    folder.publish(events).await?;
    folder.put(files::REJECTS, Reject::to_lines(&run.rejects().list())).await?;
    kill_point(&format!("train: before the checkpoint, {moment}"));
    // The store replaces a file when the new one is whole, so that the one before is there until then.
    folder.put(files::LAST, bytes).await?;
    kill_point(&format!("train: after the checkpoint, {moment}"));
    Ok(())
}

/// The bytes of the model as it is now, under the names that timm has for them.
fn model_bytes(plan: &TrainPlan, session: &Session) -> Result<Vec<u8>, Error> {
    let Session { trainer, progress, .. } = session;
    let bytes = trainer.weights(&progress.to_metadata(plan, trainer));
    let bytes = bytes.map_err(|error| train_error("write the weights", error))?;
    Ok(seal::seal(timm::exported(&bytes, (&plan.options.model, &plan.options.head), trainer.steps_done())))
}

/// Keeps the model as it is now where a cycle of `--snapshots` has ended.
pub(super) async fn keep_snapshot(
    plan: &TrainPlan,
    folder: &RunFolder,
    session: &Mutex<Session>,
) -> Result<(), Error> {
    let (bytes, epoch, moment) = {
        let session = lock(session);
        let epoch = session.progress.epoch;
        if !plan.cycle.is_some_and(|cycle| epoch.is_multiple_of(cycle)) {
            return Ok(());
        }
        (model_bytes(plan, &session)?, epoch, session.moment())
    };
    kill_point(&format!("train: before the snapshot, {moment}"));
    folder.put(&files::snapshot(epoch / plan.cycle.unwrap_or(1)), bytes).await
}

/// Writes the model as it is now, as the best so far, with what timm and transformers need beside it.
pub(super) async fn keep_model(
    plan: &TrainPlan,
    folder: &RunFolder,
    session: &Mutex<Session>,
) -> Result<(), Error> {
    let (model, ends, moment) = {
        let session = lock(session);
        (model_bytes(plan, &session)?, session.trainer.ends(), session.moment())
    };
    kill_point(&format!("train: before the model, {moment}"));
    let config = timm::config(plan, ends);
    let preprocessor = timm::preprocessor(plan, &config);
    folder.put(files::TIMM, forebay_datasets::manifest::to_json(&config)).await?;
    folder.put(files::PREPROCESSOR, forebay_datasets::manifest::to_json(&preprocessor)).await?;
    // Other programs read a class a line: a line break within a name is written `\n`.
    let labels: String =
        plan.options.classes.iter().map(|class| printable(class).into_owned() + "\n").collect();
    folder.put(files::LABELS, labels).await?;
    kill_point(&format!("train: inside the model, {moment}"));
    folder.put(files::MODEL, model).await?;
    kill_point(&format!("train: after the model, {moment}"));
    Ok(())
}
