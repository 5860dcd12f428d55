//! What is looked at before the first step.

use std::sync::{Arc, Mutex};

use forebay_stages::collate::Batch;

use super::error::train_error;
use super::fit;
use super::plan::TrainPlan;
use super::session::{Session, lock};
use crate::feed::{Pass, PassBatch};
use crate::flow::{Error, Items, Run};
use crate::options::Doctor;
use crate::report::{note, warn};
use crate::weights;

/// Looks at the first batch of a run that is not to train on images.
pub(super) async fn look_ahead(
    run: &Run,
    plan: &Arc<TrainPlan>,
    session: Arc<Mutex<Session>>,
) -> Result<(), Error> {
    let (pool, plan_here) = (run.clone(), plan.clone());
    let look = move |mut batches: Items<PassBatch<Batch>>| {
        if let Some(batch) = batches.find(|fed| !fed.batch.is_empty()).map(|fed| fed.batch) {
            warn(&first_batch(&pool, &plan_here, &mut lock(&session), &batch)?);
        }
        Ok(())
    };
    plan.feed.batches(run, Pass::train(0)).drain("look at the first batch", look).await
}

/// What looks wrong about the first batch of a run.
pub(super) fn first_batch(
    run: &Run,
    plan: &TrainPlan,
    session: &mut Session,
    images: &Batch,
) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    if plan.weights.is_some() {
        let look = || weights::complaints(&session.trainer, images, session.classifies);
        lines.extend(run.install(look));
    }
    if (plan.doctor != Doctor::Off || plan.fits_micro_batch)
        && let Some(fits) = fit::fit(run, plan, &mut session.trainer, images)?
    {
        note(&fits);
    }
    if plan.doctor != Doctor::Off {
        let complaints = run.install(|| session.trainer.examine(images));
        lines.extend(complaints.map_err(|error| train_error("look at the first batch", error))?);
    }
    if plan.doctor == Doctor::Full {
        let complaints = run.install(|| session.trainer.overfit(images));
        let complaints = complaints.map_err(|error| train_error("overfit the first batch", error))?;
        if complaints.is_empty() {
            note("the network overfits the first batch, as it should");
        }
        lines.extend(complaints);
    }
    Ok(lines)
}
