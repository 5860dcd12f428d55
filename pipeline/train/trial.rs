//! A training of which only the scores are kept: one of many, on sources that were opened once.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use forebay_datasets::sample::Split;
use forebay_train::metrics::Scored;

use super::frozen::Features;
use super::plan::TrainPlan;
use super::recorder::Recorder;
use super::session::{Progress, Session, lock};
use super::stalls::Reactions;
use super::{Keep, build, classifies, epochs};
use crate::flow::{Error, Run};
use crate::report::{EpochMetrics, Live};

/// The features of frozen layers that a trial had in memory, for the next trial with the same ones.
#[derive(Clone, Default)]
pub struct KeptFeatures(Arc<Mutex<Option<Arc<Features>>>>);

/// What a training came to of which only the scores are kept.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Every epoch.
    pub epochs: Vec<EpochMetrics>,
    /// The best of them, counted from 1.
    pub best_epoch: u32,
    /// Its score by the monitor of the plan, the higher the better.
    pub score: f64,
    /// The rows of each class that it trained on, without images that could not be read.
    pub class_counts: Vec<f64>,
    /// What it said of the validation images, each once; `None` where there are none, or they were not asked for.
    pub validation: Option<Scored>,
}

/// Trains without a run folder and, where `answers` are wanted, keeps what the best epoch said of the validation images. `on_epoch` is told of each epoch
/// and may end the training. Test images are neither read nor scored.
///
/// # Errors
/// The first error of the run.
pub async fn trial(
    run: &Run,
    plan: &Arc<TrainPlan>,
    kept: &KeptFeatures,
    answers: bool,
    on_epoch: &mut (dyn FnMut(&EpochMetrics) -> ControlFlow<()> + Send),
) -> Result<Trial, Error> {
    const SPLITS: [Split; 2] = [Split::Train, Split::Validation];
    plan.feed.begin(run, &SPLITS)?;
    let (trainer, loaded) = build(run, plan, &plan.options)?;
    let session = Arc::new(Mutex::new(Session {
        trainer,
        progress: Progress::default(),
        reactions: Reactions::new(plan),
        classifies: loaded.as_ref().is_some_and(classifies),
        recorder: Recorder::nowhere(),
        kept: Instant::now(),
    }));
    let before = kept.0.lock().expect("no panic under the lock").clone();
    let features = Features::with(run, plan, &session, &SPLITS, before).await?;
    kept.0.lock().expect("no panic under the lock").clone_from(&features);
    let features = match features {
        Some(features) => Some(features.resampled(run, plan).await?),
        None => None,
    };
    let (mut best, live) = (None, Arc::new(Live::default()));
    let keep = &mut if answers { Keep::Scores(&mut best) } else { Keep::Nothing };
    let done = epochs(run, plan, keep, &session, features.as_ref(), Vec::new(), &live, on_epoch).await?;
    let (progress, class_counts) = {
        let session = lock(&session);
        (session.progress, session.trainer.class_counts().to_vec())
    };
    Ok(Trial {
        class_counts,
        epochs: done,
        best_epoch: progress.best.epoch,
        score: progress.best.score,
        validation: best,
    })
}
