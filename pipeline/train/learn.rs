//! One pass over the training split.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use forebay_datasets::order::Rank;
use forebay_datasets::sample::Split;

use super::error::train_error;
use super::first_batch::first_batch;
use super::frozen::Features;
use super::input::TrainInput;
use super::plan::TrainPlan;
use super::run_folder::RunFolder;
use super::session::{Session, lock, put_checkpoint};
use crate::feed::{Pass, PassBatch};
use crate::flow::{Error, Items, Run};
use crate::report::{Live, warn};

/// Trains one epoch; a resumed one goes on after the batches that are done.
pub(super) async fn pass(
    run: &Run,
    plan: &Arc<TrainPlan>,
    folder: Option<&RunFolder>,
    session: Arc<Mutex<Session>>,
    features: Option<&Arc<Features>>,
    epoch: u32,
    live: Arc<Live>,
) -> Result<(), Error> {
    let position = || lock(&session).progress.batch;
    if let Some(features) = features.filter(|features| features.has(Split::Train)) {
        live.begin(epoch + 1, position(), true);
        let batches = features.batches(run, plan, Pass::train(epoch), position());
        batches.drain("train", learn(run, plan, folder, session.clone(), epoch, live.clone())).await?;
        if features.has(Split::Train) {
            return Ok(());
        }
    }
    // From the start, or from where the features were lost: images give the same batches.
    live.begin(epoch + 1, position(), false);
    let batches = plan.feed.batches_from(run, Pass::train(epoch), position(), Rank::ALONE);
    batches.drain("train", learn(run, plan, folder, session.clone(), epoch, live.clone())).await
}

/// The consumer of a training pass, which ends before a batch that was lost.
fn learn<T: TrainInput>(
    run: &Run,
    plan: &Arc<TrainPlan>,
    folder: Option<&RunFolder>,
    session: Arc<Mutex<Session>>,
    epoch: u32,
    live: Arc<Live>,
) -> impl FnOnce(Items<PassBatch<T>>) -> Result<(), Error> + Send + 'static {
    let (run_here, plan_here, folder) = (run.clone(), plan.clone(), folder.cloned());
    move |batches: Items<PassBatch<T>>| {
        let (run, plan) = (run_here, plan_here);
        let mut session = session.lock().expect("one pass at a time");
        let session = &mut *session;
        session.recorder.begin();
        for fed in batches {
            if fed.batch.is_lost() {
                break;
            }
            session.progress.batch = fed.index + 1;
            if !fed.has_a_step(fed.batch.labels().len()) {
                session.trainer.pass_over();
                live.seen().step += 1;
                continue;
            }
            let batch = fed.batch;
            if let Some(images) = batch.images().filter(|_| (epoch, session.progress.seen) == (0, 0)) {
                warn(&first_batch(&run, &plan, session, images)?);
            }
            let (count, is_cached) = (batch.labels().len(), batch.images().is_none());
            let report = run.install(|| batch.step(&mut session.trainer));
            let report = report.map_err(|error| train_error("train", error))?;
            let progress = &mut session.progress;
            progress.loss += report.loss * count as f64;
            progress.correct += report.correct as u64;
            progress.seen += count as u64;
            let seen = progress.seen as f64;
            let (loss, accuracy) = (progress.loss / seen, progress.correct as f64 / seen);
            let part = progress.batch as f64 / plan.steps_per_epoch as f64;
            live.step(count, loss, accuracy, report.learning_rate);
            let point = session.recorder.step(&report, (count, is_cached), f64::from(epoch) + part)?;
            live.seen().points.extend(point);
            if let Some(folder) = folder.as_ref().filter(|_| session.is_due(&plan.keeping)) {
                let (bytes, moment) = (session.checkpoint(&plan)?, session.moment());
                run.block_on(put_checkpoint(&run, folder, &session.recorder.events, bytes, &moment))?;
                session.kept = Instant::now();
            }
        }
        Ok(())
    }
}
