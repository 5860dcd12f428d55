//! What is looked at before the first step.

use forebay_stages::collate::Batch;

use super::error::train_error;
use super::fit;
use super::plan::TrainPlan;
use super::session::Session;
use crate::flow::{Error, Run};
use crate::options::Doctor;
use crate::weights;

/// What looks wrong about the first batch of a run.
pub(super) fn first_batch(
    run: &Run,
    plan: &TrainPlan,
    session: &mut Session,
    images: &Batch,
) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    if plan.weights.is_some() {
        let look =
            || weights::complaints(&session.trainer, images, plan.options.normalize, session.classifies);
        lines.extend(run.install(look));
    }
    if plan.doctor != Doctor::Off {
        if let Some(note) = fit::fit(run, plan, &mut session.trainer, images)? {
            eprintln!("note: {note}");
        }
        let complaints = run.install(|| session.trainer.examine(images));
        lines.extend(complaints.map_err(|error| train_error("look at the first batch", error))?);
    }
    if plan.doctor == Doctor::Full {
        let complaints = run.install(|| session.trainer.overfit(images));
        let complaints = complaints.map_err(|error| train_error("learn the first batch by heart", error))?;
        if complaints.is_empty() {
            eprintln!("note: the first batch can be learned by heart");
        }
        lines.extend(complaints);
    }
    Ok(lines)
}
