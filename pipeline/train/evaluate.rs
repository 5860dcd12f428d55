//! How good the network is on a split, and what a run came to.

use std::sync::{Arc, Mutex};

use forebay_datasets::sample::Split;
use forebay_datasets::shard::Reject;
use forebay_train::metrics::{Confusion, cross_entropy, prediction};
use forebay_train::{Predictor, Strictness};

use super::error::train_error;
use super::frozen::Features;
use super::input::TrainInput;
use super::plan::TrainPlan;
use super::run_folder::{RunFolder, files};
use super::session::{Progress, Session, lock};
use crate::feed::{Pass, PassBatch};
use crate::flow::{Error, Items, Run};
use crate::report::{ClassRow, EpochMetrics, Live, Trained};
use crate::weights::seal;

/// What evaluating a split came to: of at least one image, with numbers for each.
pub(super) struct Scores {
    /// The mean cross-entropy.
    pub(super) loss: f64,
    pub(super) confusion: Confusion,
}

/// Evaluates the network on one split.
///
/// # Errors
/// [`Error::NothingLeft`] when no image of the split could be read: nothing is no score. [`Error::Failed`] when the network
/// gives something else than numbers, of which no class is the largest.
pub(super) async fn evaluate(
    run: &Run,
    plan: &TrainPlan,
    session: &Mutex<Session>,
    features: Option<&Arc<Features>>,
    split: Split,
) -> Result<Scores, Error> {
    // Where training images come in views, their accuracy is that of the images as they are.
    let (predictor, classes) = (lock(session).trainer.predictor(), plan.options.classes.len());
    let as_they_are = split != Split::Train || plan.feed.augment.is_none();
    if let Some(features) = features.filter(|features| features.has(split) && as_they_are) {
        let batches = features.batches(run, plan, Pass::Evaluate(split), 0);
        let scores = batches.drain("evaluate", measure(run, predictor.clone(), classes, split)).await?;
        if let Some(scores) = scores {
            return Ok(scores);
        }
    }
    let batches = plan.feed.batches(run, Pass::Evaluate(split));
    let scores = batches.drain("evaluate", measure(run, predictor, classes, split)).await?;
    Ok(scores.expect("an image is never lost"))
}

/// The consumer of an evaluation; `None` when a batch was lost.
fn measure<T: TrainInput>(
    run: &Run,
    predictor: Predictor,
    classes: usize,
    split: Split,
) -> impl FnOnce(Items<PassBatch<T>>) -> Result<Option<Scores>, Error> + Send + 'static {
    let pool = run.clone();
    move |batches: Items<PassBatch<T>>| {
        let mut confusion = Confusion::new(classes);
        let (mut loss, mut without) = (0.0, 0);
        for PassBatch { batch, .. } in batches {
            if batch.is_lost() {
                return Ok(None);
            }
            if batch.labels().is_empty() {
                continue;
            }
            let logits = pool.install(|| batch.logits(&predictor));
            let logits = logits.map_err(|error| train_error("evaluate", error))?;
            loss += cross_entropy(&logits, batch.labels()) * batch.labels().len() as f64;
            for (row, label) in logits.iter().zip(batch.labels()) {
                match prediction(row) {
                    Some(class) => confusion.add(*label as usize, class),
                    None => without += 1,
                }
            }
        }
        let total = confusion.total();
        if without > 0 {
            let images = total + without;
            return Err(Error::failed(
                format!("score the {split} images"),
                format!(
                    "the network gives no numbers for {without} of {images}: its weights or running statistics are not \
                     finite; look at --weights, or give a lower learning rate"
                ),
            ));
        }
        if total == 0 {
            return Err(Error::NothingLeft(format!(
                "no {split} image could be read: there is nothing to score"
            )));
        }
        Ok(Some(Scores { loss: loss / total as f64, confusion }))
    }
}

/// Sets the trainer to the weights of the best epoch.
async fn load_best(run: &Run, folder: &RunFolder, session: &Mutex<Session>) -> Result<(), Error> {
    let place = format!("{}/{}", folder.location(), files::MODEL);
    let best =
        folder.get(files::MODEL).await?.ok_or_else(|| Error::Integrity(format!("{place} is missing")))?;
    seal::check(&best).map_err(|damage| Error::Integrity(format!("{place} is damaged: {damage}")))?;
    let trainer = &mut lock(session).trainer;
    let loaded = run.install(|| trainer.load_weights(&best, Strictness::Strict));
    let loaded = loaded.map_err(|error| train_error(&place, error))?;
    match loaded.missing.is_empty() && loaded.mismatched.is_empty() {
        true => Ok(()),
        false => Err(Error::Integrity(format!("{place} holds the tensors of another network"))),
    }
}

/// Tests the best checkpoint on images that training never saw.
pub(super) async fn test(
    run: &Run,
    plan: &TrainPlan,
    folder: &RunFolder,
    session: Arc<Mutex<Session>>,
    features: Option<&Arc<Features>>,
    epochs: Vec<EpochMetrics>,
    live: &Live,
) -> Result<Trained, Error> {
    let Progress { epoch, best, .. } = lock(&session).progress;
    load_best(run, folder, &session).await?;
    let held = [Split::Test, Split::Validation, Split::Train];
    let split = held.into_iter().find(|split| plan.feed.rows(*split) > 0).expect("there are training rows");
    let Scores { confusion, .. } = evaluate(run, plan, &session, features, split).await?;
    let names = plan.options.classes.iter().enumerate();
    let classes = names
        .map(|(class, name)| {
            let scores = confusion.class(class);
            ClassRow {
                class: name.clone(),
                precision: scores.precision,
                recall: scores.recall,
                f1: scores.f1,
                support: scores.support,
            }
        })
        .collect();
    let n = plan.options.classes.len();
    let nodes = run.meter().report();
    let trained = Trained {
        accuracy: confusion.accuracy(),
        split,
        best_epoch: best.epoch,
        monitor: plan.keeping.monitor,
        stopped_early: epoch < plan.epochs && best.is_enough(&plan.keeping),
        macro_f1: confusion.macro_average().f1,
        classes,
        confusion: (0..n).map(|truth| (0..n).map(|guess| confusion.count(truth, guess)).collect()).collect(),
        epochs,
        found: plan.feed.found(&Split::ALL),
        rejected: run.rejects().rejected(),
        starved: nodes.iter().find(|node| node.name == "train").map_or(0.0, |node| node.starved),
    };
    folder.put(files::REJECTS, Reject::to_lines(&run.rejects().list())).await?;
    let curves = crate::report::training_curves(&trained.epochs, &live.seen().points);
    for (name, curve) in files::CURVES.iter().zip(&curves) {
        folder.put(name, curve.clone()).await?;
    }
    folder.put(files::SUMMARY_TEXT, crate::report::terminal::summary(&plan.facts(), &trained)).await?;
    folder.put(files::REPORT, crate::report::html::train(&plan.facts(), &trained, &curves)).await?;
    folder.put(files::SUMMARY, forebay_datasets::manifest::to_json(&trained)).await?;
    Ok(trained)
}
