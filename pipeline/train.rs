//! Batches -> model: epochs of training and validation, checkpoints, and the test at the end.
//!
//! The device is touched by the train thread only. A run folder holds the resolved run file, the whole chain
//! from image bytes to tensor, metrics, the last checkpoint, the best model as timm and transformers open it, and
//! a report.

mod check;
mod error;
mod evaluate;
mod feature_cache;
mod first_batch;
mod fit;
mod frozen;
mod input;
mod keeping;
mod learn;
mod pictures;
mod plan;
mod preparation;
mod priors;
mod recipe;
mod recorder;
mod resampling;
mod run_folder;
mod run_page;
mod run_tests;
mod session;
mod stalls;
mod start;
mod text;
mod trial;
pub mod timm;

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use forebay_datasets::sample::Split;
use forebay_datasets::shard::Reject;
use forebay_train::WeightsReport;
use forebay_train::metrics::Scored;

use crate::feed::Pass;
use crate::flow::{Error, Run, kill_point};
use crate::options::Config;
use crate::report::{EpochMetrics, Live, Phase, Speed, Trained, note};
pub(crate) use error::train_error;
use evaluate::{Scores, evaluate, score, test};
pub use feature_cache::FeatureCache;
use frozen::Features;
pub use keeping::{CheckpointEvery, Keeping, time_of};
use learn::pass;
pub use pictures::show;
pub use plan::{TrainPlan, TrainSources};
pub use run_folder::{RunFolder, files};
pub use run_tests::RunTests;
use session::{Progress, Session, keep, keep_model, keep_snapshot, lock};
pub(crate) use start::build;
use start::{classifies, start};
pub use trial::{KeptFeatures, Trial, trial};

/// Who is told while a run goes on.
pub struct Watch<'a> {
    /// Where the run stands, for a progress bar or the live view.
    pub live: Arc<Live>,
    /// Called with what became of the initial weights.
    pub on_weights: &'a mut (dyn FnMut(&WeightsReport) + Send),
    /// Called with each finished epoch.
    pub on_epoch: &'a mut (dyn FnMut(&EpochMetrics) + Send),
}

/// How a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Anew, in a folder that holds no run.
    New,
    /// Anew, in the place of a run that the folder may hold.
    Overwrite,
    /// With the last checkpoint in the folder.
    Resume,
}

impl Start {
    /// How the options begin it.
    pub fn of(config: &Config) -> Start {
        match (config.is_on("train.resume"), config.is_on("overwrite")) {
            (true, _) => Start::Resume,
            (false, true) => Start::Overwrite,
            (false, false) => Start::New,
        }
    }
}

/// Trains, keeps checkpoints, and tests the best of them.
///
/// # Errors
/// The first error of the run. An interrupted run leaves a checkpoint to resume from.
pub async fn train(
    run: &Run,
    plan: Arc<TrainPlan>,
    folder: &RunFolder,
    begin: Start,
    watch: Watch<'_>,
) -> Result<Trained, Error> {
    let Watch { live, on_weights, on_epoch } = watch;
    folder.refuse_place(plan.feed.image_folder()).await?;
    let _owned = folder.own(begin)?;
    // What is too much from the start leaves the folder as it is.
    plan.feed.begin(run, &Split::ALL)?;
    let (session, history) = start(run, &plan, folder, begin, &live, on_weights).await?;
    if begin == Start::Resume {
        let refused = folder.get(files::REJECTS).await?.unwrap_or_default();
        let refused = Reject::of_lines(&String::from_utf8_lossy(&refused));
        let refused: Vec<_> = refused.into_iter().map(Reject::into_fault).collect();
        run.rejects().record(refused.iter().map(|(id, fault)| (id, fault)))?;
    }
    let features = match history.len() < plan.epochs as usize {
        true => match Features::of(run, &plan, &session, &Split::ALL).await {
            Err(Error::Interrupted(interrupt)) => {
                // What is computed stays in the cache, and a resumed run goes on there.
                keep(run, &plan, folder, &session).await?;
                return Err(Error::Interrupted(interrupt));
            }
            features => match features? {
                Some(features) => Some(features.resampled(run, &plan).await?),
                None => None,
            },
        },
        false => None,
    };
    let mut told = |metrics: &EpochMetrics| {
        on_epoch(metrics);
        ControlFlow::Continue(())
    };
    let history =
        epochs(run, &plan, &mut Keep::Folder(folder), &session, features.as_ref(), history, &live, &mut told)
            .await?;
    live.turn_to(Phase::Testing);
    test(run, &plan, folder, session, features.as_ref(), history, &live).await
}

/// What is kept of a training while it goes on.
enum Keep<'a> {
    /// All that a run folder has.
    Folder(&'a RunFolder),
    /// What the best epoch said of the validation images.
    Scores(&'a mut Option<Scored>),
    /// Nothing but the metrics of the epochs.
    Nothing,
}

/// Trains the epochs that are left, and adds them to the history. `on_epoch` may end it after any of them.
#[allow(clippy::too_many_arguments, reason = "what a run is, where it stands and who is told")]
async fn epochs(
    run: &Run,
    plan: &Arc<TrainPlan>,
    keep_in: &mut Keep<'_>,
    session: &Arc<Mutex<Session>>,
    features: Option<&Arc<Features>>,
    mut history: Vec<EpochMetrics>,
    live: &Arc<Live>,
    on_epoch: &mut (dyn FnMut(&EpochMetrics) -> ControlFlow<()> + Send),
) -> Result<Vec<EpochMetrics>, Error> {
    let validates = plan.feed.rows(Split::Validation) > 0;
    let folder = match keep_in {
        Keep::Folder(folder) => Some(*folder),
        Keep::Scores(_) | Keep::Nothing => None,
    };
    loop {
        let Progress { epoch, best, .. } = lock(session).progress;
        if epoch >= plan.epochs || best.is_enough(&plan.keeping) {
            break;
        }
        let start = Instant::now();
        count_classes(run, plan, session, features).await?;
        let seen_before = {
            let mut session = lock(session);
            let Session { trainer, reactions, .. } = &mut *session;
            trainer.set_rate_scale(reactions.rate_scale());
            trainer.set_stalls(reactions.stalls().to_vec());
            session.progress.seen
        };
        let passed = pass(run, plan, folder, session.clone(), features, epoch, live.clone()).await;
        let (trained, is_trained) = (start.elapsed(), passed.is_ok());
        let validation = match passed {
            Ok(()) if validates => {
                live.turn_to(Phase::Validating);
                let scores = evaluate(run, plan, session, features, Pass::validation());
                scores.await.map(Some)
            }
            passed => passed.map(|()| None),
        };
        let validation = match validation {
            // Also what cannot be validated was trained, and a resumed run need not train it again.
            Err(error) if is_trained || matches!(error, Error::Interrupted(_)) => {
                if let Some(folder) = folder {
                    keep(run, plan, folder, session).await?;
                }
                return Err(error);
            }
            validation => validation?,
        };
        let metrics = {
            let session = &mut lock(session);
            let images = session.progress.seen - seen_before;
            let is_cached = features.is_some_and(|features| features.has(Split::Train));
            let speed = Speed::of(images, trained.as_secs_f64(), is_cached);
            let seconds = start.elapsed().as_secs_f64();
            finish_epoch(plan, session, seconds, speed, validation.as_ref())?
        };
        if let Some(features) = features.filter(|_| history.is_empty() && folder.is_some()) {
            let rows = plan.feed.rows(Split::Train);
            let took = trained.as_secs_f64();
            match features.seconds {
                Some(seconds) => note(&format!(
                    "the frozen part saw {rows} training images{} in {seconds:.1} s; on its features an epoch takes \
                     {took:.2} s, {:.0} times less than to see them each time",
                    if features.views() > 1 {
                        format!(" in {} views", features.views())
                    } else {
                        String::new()
                    },
                    seconds / f64::from(features.views()) / took.max(1e-9)
                )),
                None => {
                    note(&format!("trains on the features of {rows} images that an earlier run computed"));
                }
            }
        }
        history.push(metrics.clone());
        {
            let Session { reactions, progress, .. } = &mut *lock(session);
            let thaws = reactions.observe(plan, &metrics).then(|| reactions.stalls().len() - 1);
            if let Some(part) = thaws.and_then(|index| plan.options.unfreeze_on_stall.get(index)) {
                note(&format!(
                    "epoch {} did not improve: from now on {part} and what follows it are trained",
                    metrics.epoch
                ));
                // What thaws gets the whole patience of --early-stop.
                progress.best.stale = 0;
            }
        }
        live.seen().epochs.push(metrics.clone());
        if let Keep::Scores(best) = keep_in
            && validates
            && lock(session).progress.best.epoch == epoch + 1
        {
            **best = Some(score(run, plan, session, features, Pass::validation()).await?);
        }
        if let Some(folder) = folder {
            if lock(session).progress.best.epoch == epoch + 1 {
                keep_model(plan, folder, session).await?;
            }
            keep_snapshot(plan, folder, session).await?;
            kill_point(&format!("train: before the metrics, epoch {}", metrics.epoch));
            put_metrics(folder, &history).await?;
            kill_point(&format!("train: after the metrics, epoch {}", metrics.epoch));
            // Last of all: a checkpoint says that everything before it is in place.
            keep(run, plan, folder, session).await?;
            tracing::debug!(epoch = metrics.epoch, steps = metrics.steps, "epoch kept");
        }
        let goes_on = on_epoch(&metrics);
        if let Some(interrupt) = run.interrupted() {
            return Err(Error::Interrupted(interrupt));
        }
        if goes_on.is_break() {
            break;
        }
    }
    Ok(history)
}

/// Tells the loss how many rows of each class an epoch trains on, as far as that is known at its start: of features all is
/// known, of images the first epoch finds out which cannot be read.
async fn count_classes(
    run: &Run,
    plan: &TrainPlan,
    session: &Mutex<Session>,
    features: Option<&Arc<Features>>,
) -> Result<(), Error> {
    let is_known = {
        let Progress { epoch, batch, .. } = lock(session).progress;
        // Within an epoch, a resumed run goes by the numbers that the epoch began with.
        batch == 0 && (epoch > 0 || features.is_some_and(|features| features.has(Split::Train)))
    };
    if !is_known {
        return Ok(());
    }
    if let Some(counts) = known_counts(run, plan, features).await? {
        lock(session).trainer.set_class_counts(counts);
    }
    Ok(())
}

/// How many rows of each class there are to train on, as far as images are known that cannot be read; `None` where these are made
/// features that are not there any more.
async fn known_counts(
    run: &Run,
    plan: &TrainPlan,
    features: Option<&Arc<Features>>,
) -> Result<Option<Vec<f64>>, Error> {
    match features.and_then(|features| features.resampled_counts(plan.options.classes.len())) {
        Some(counts) => Ok(Some(counts)),
        None if plan.resampling.is_some() => Ok(None),
        None if run.rejects().rejected() == 0 => Ok(Some(plan.options.class_counts.clone())),
        None => {
            let refused = run.rejects().list().into_iter().map(|reject| reject.into_fault().0);
            plan.feed.class_counts_without(&refused.collect()).await.map(Some)
        }
    }
}

/// Writes the finished epochs, one a line.
async fn put_metrics(folder: &RunFolder, history: &[EpochMetrics]) -> Result<(), Error> {
    let line = |metrics| serde_json::to_string(metrics).expect("metrics are plain data") + "\n";
    folder.put(files::METRICS, history.iter().map(line).collect::<String>()).await
}

/// What an epoch came to; the next one begins.
fn finish_epoch(
    plan: &TrainPlan,
    session: &mut Session,
    seconds: f64,
    speed: Speed,
    validation: Option<&Scores>,
) -> Result<EpochMetrics, Error> {
    let Session { trainer, progress, recorder, .. } = session;
    if progress.seen == 0 {
        return Err(Error::NothingLeft("no training image could be read".to_string()));
    }
    let steps = trainer.steps_done();
    let mut metrics = EpochMetrics {
        epoch: progress.epoch + 1,
        steps,
        learning_rate: trainer.learning_rate(steps.saturating_sub(1)),
        train_loss: progress.loss / progress.seen as f64,
        train_accuracy: progress.correct as f64 / progress.seen as f64,
        validation_loss: validation.map(|scores| scores.loss),
        validation_accuracy: validation.map(|scores| scores.confusion.accuracy()),
        validation_macro_f1: validation.map(|scores| scores.confusion.macro_average().f1),
        epochs_without_improvement: 0,
        seconds,
        speed,
    };
    // Without a validation split the last epoch is the best.
    let score = plan.keeping.monitor.score(&metrics).unwrap_or(f64::from(metrics.epoch));
    let best = progress.best.after(metrics.epoch, score, &plan.keeping);
    metrics.epochs_without_improvement = best.stale;
    *progress = Progress { epoch: metrics.epoch, best, ..Progress::default() };
    recorder.epoch(&metrics)?;
    Ok(metrics)
}
