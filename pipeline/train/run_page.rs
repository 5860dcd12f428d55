//! The report of a run, of what its best epoch said of held-out images, and the labels that look wrong.

use forebay_datasets::escape;
use forebay_datasets::sample::Split;
use forebay_train::metrics::{Evaluation, Scored};

use super::pictures::{examples, show};
use super::plan::TrainPlan;
use super::run_folder::{RunFolder, files};
use crate::feed::{Pass, TestAccess};
use crate::flow::{Error, Run};
use crate::report::Trained;
use crate::report::html::{self, ClassPrior, Judged, RunPage, ScoredAnswers};
use crate::report::{note, warn};

/// What the best epoch said of the images by which a run is judged.
pub(super) struct HeldOutAnswers<'a> {
    pub(super) split: Split,
    pub(super) scored: &'a Scored,
    pub(super) evaluation: &'a Evaluation,
}

/// Writes the report of a run with its plots, and the suspected labels of held-out images.
///
/// # Errors
/// The first error of the run; when a file cannot be written.
pub(super) async fn write(
    run: &Run,
    plan: &TrainPlan,
    folder: &RunFolder,
    (done, counts): (&Trained, &[f64]),
    curves: &[String],
    judged: Option<HeldOutAnswers<'_>>,
) -> Result<(), Error> {
    let facts = plan.facts();
    let priors = priors(plan, counts);
    let place = folder.location().trim_end_matches('/');
    let command = format!(
        "forebay train --config {} --out {}",
        escape::shell(&format!("{place}/{}", files::CONFIG)),
        escape::shell(&format!("{place}-again"))
    );
    let mut page = RunPage {
        facts: &facts,
        done,
        curves,
        judged: None,
        priors: &priors,
        examples: &examples(run, &plan.feed).await?,
        command: &command,
    };
    let Some(HeldOutAnswers { split, scored, evaluation }) = judged else {
        let page = html::run(&page, plan.report_bytes);
        warn(&Vec::from_iter(page.note));
        return folder.put(files::REPORT, page.html).await;
    };
    let pass = match split {
        // That these images were looked at is counted already.
        Split::Test => Pass::evaluate(split, TestAccess::counted(done.test_openings.unwrap_or(1))),
        Split::Validation => Pass::validation(),
        Split::Train => Pass::training_images(),
    };
    let shown = show(run, (&plan.feed, &[pass]), (scored, evaluation), plan.report_bytes).await?;
    let answers = ScoredAnswers::of(scored, &shown.errors.suspects, evaluation.temperature);
    for (name, bytes) in shown.files {
        let kept = if name == files::FIXES { folder.get(name).await? } else { None };
        match kept.is_some_and(|kept| kept != bytes) {
            true => note(&format!("{name} was changed since it was written, and stays as it is")),
            false => folder.put(name, bytes).await?,
        }
    }
    let images = format!("{split} images");
    page.judged = Some(Judged { evaluation, answers: &answers, gallery: &shown.gallery, images: &images });
    let page = html::run(&page, plan.report_bytes);
    warn(&Vec::from_iter(page.note));
    folder.put(files::REPORT, page.html).await
}

/// What training saw of each class, in `counts` rows of it.
fn priors(plan: &TrainPlan, counts: &[f64]) -> Vec<ClassPrior> {
    let weights = plan.options.class_weights.of(counts);
    let prior = |(class, name): (usize, &String)| {
        let images = match &plan.balance {
            Some(summary) => summary.classes[class].before,
            None => plan.class_counts[class],
        };
        ClassPrior { class: name.clone(), images, rows: counts[class] as u64, weight: weights[class] }
    };
    plan.options.classes.iter().enumerate().map(prior).collect()
}
