//! Cross-validation: a training for each part of the images that is held out, and what they come to together.

use forebay_datasets::sample::Split;
use forebay_datasets::store::Store;
use forebay_train::metrics::{Evaluation, EvaluationOptions, Scored};
use serde::Serialize;

use crate::feed::Pass;
use crate::flow::{Error, Run};
use crate::model::{ModelKind, NetworkFile, OfRun, feed_for, weights_of};
use crate::options::{Command, Config, store_options};
use crate::predictions::Predictions;
use crate::report::html::{self, EvaluationPage, Judged, ScoredAnswers};
use crate::report::{Trained, note, warn};
use crate::train::{files, show};

/// What the trainings of a cross-validation came to.
#[derive(Clone, Debug, Serialize)]
pub struct CrossValidated {
    /// How many there were.
    pub folds: u32,
    /// Each on the part that it held out.
    pub scores: Vec<FoldScores>,
    /// The mean over folds, and how far they spread.
    pub accuracy: Spread,
    /// The same of the macro F1.
    pub macro_f1: Spread,
    /// Every figure on all images, each as the training said of it that did not see it.
    pub evaluation: Evaluation,
    /// What that was.
    #[serde(skip)]
    pub scored: Scored,
}

/// One of the trainings.
#[derive(Clone, Debug, Serialize)]
pub struct FoldScores {
    /// Its number, counted from 1.
    pub fold: u32,
    /// Its run folder.
    pub run: String,
    /// Images that it held out and that could be read.
    pub images: usize,
    /// The share of them that was classified right.
    pub accuracy: f64,
    /// The mean F1 of the classes.
    pub macro_f1: f64,
    /// The best epoch.
    pub best_epoch: u32,
}

/// A mean and the standard deviation around it, of few numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The standard deviation of the numbers (divided by n - 1); 0 of one.
    pub deviation: f64,
}

impl Spread {
    /// That of these numbers, of which there is at least one.
    pub fn of(numbers: &[f64]) -> Spread {
        let n = numbers.len() as f64;
        let mean = numbers.iter().sum::<f64>() / n;
        let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
        Spread { mean, deviation: (squares / (n - 1.0).max(1.0)).sqrt() }
    }
}

/// The file of a cross-validation, beside the folders of its runs.
pub const FOLDS: &str = "folds.json";

/// Trains once for each of the folds that the options ask for, below RUN; `one` does a training with the options of a run,
/// and is told which fold it is.
///
/// # Errors
/// The first error of a training. Those before it stay, and `--resume` goes on after them.
pub async fn cross_validate(
    run: &Run,
    config: &Config,
    mut one: impl AsyncFnMut(&Config, u32, u32) -> Result<Trained, Error>,
) -> Result<CrossValidated, Error> {
    let folds = config.whole("split.folds") as u32;
    let out = config.text("out").ok_or_else(|| Error::Usage("train needs --out RUN".to_string()))?;
    let out = out.trim_end_matches('/');
    refuse_full(out, config).await?;
    let (mut scores, mut pooled) = (Vec::new(), None::<Scored>);
    for fold in 1..=folds {
        let place = format!("{out}/fold-{fold}");
        let store = Store::open(&place, &store_options(config))?;
        let is_there = store.local_root().is_none_or(|root| root.is_dir());
        let goes_on = config.is_on("train.resume") && is_there && store.size(files::LAST).await?.is_some();
        let of_fold = config
            .clone()
            .with("split.fold", i64::from(fold))
            .with("out", place.clone())
            .with("train.resume", goes_on)
            // Folds are compared with each other, and the test is for what is chosen in the end.
            .with("train.seal_test", true);
        let trained = one(&of_fold, fold, folds).await?;
        let held_out = trained.validation.as_ref();
        let held_out =
            held_out.ok_or_else(|| Error::NothingLeft(format!("fold {fold} holds out no image")))?;
        scores.push(FoldScores {
            fold,
            run: place,
            images: held_out.len(),
            accuracy: trained.accuracy,
            macro_f1: trained.macro_f1,
            best_epoch: trained.best_epoch,
        });
        let pooled = pooled.get_or_insert_with(|| Scored::new(held_out.classes().to_vec()));
        add(pooled, held_out, trained.temperature.unwrap_or(1.0))?;
    }
    let scored = pooled.expect("there are two folds or more");
    let options = EvaluationOptions { seed: config.whole("seed"), ..EvaluationOptions::default() };
    let evaluation = run.install(|| Evaluation::of(&scored, &options));
    let evaluation = evaluation.map_err(|error| Error::failed("evaluate the folds", error))?;
    let spread = |of: fn(&FoldScores) -> f64| Spread::of(&scores.iter().map(of).collect::<Vec<_>>());
    let done = CrossValidated {
        folds,
        accuracy: spread(|scores| scores.accuracy),
        macro_f1: spread(|scores| scores.macro_f1),
        evaluation,
        scores,
        scored,
    };
    let store = Store::open(out, &store_options(config))?;
    report(run, config, &store, &done).await?;
    let mut predictions = Predictions::new(done.scored.classes().to_vec());
    predictions.push_scored(&done.scored, Split::Validation, 1.0);
    store.put(files::PREDICTIONS, predictions.to_parquet()).await?;
    store.put(FOLDS, forebay_datasets::manifest::to_json(&done).into()).await?;
    Ok(done)
}

/// Refuses the folder of one run, files that no cross-validation wrote, and those of one that is neither resumed nor replaced, or
/// that had more folds. What one wrote is known by the folders of its folds, which are there before anything beside them.
async fn refuse_full(out: &str, config: &Config) -> Result<(), Error> {
    let store = Store::open(out, &store_options(config))?;
    if store.local_root().is_some_and(|root| !root.is_dir()) {
        return Ok(());
    }
    let names: Vec<String> = store.list("").await?.into_iter().map(|(name, _)| name).collect();
    let refuse = |what: String| Err(Error::Usage(format!("{out} holds {what}: give another --out")));
    if let Some(name) = names.iter().find(|name| [files::LAST, files::MODEL].contains(&name.as_str())) {
        return refuse(format!("{name}, so it is the folder of one run"));
    }
    let fold_of = |name: &String| name.strip_prefix("fold-")?.split_once('/')?.0.parse::<u64>().ok();
    let most = names.iter().filter_map(fold_of).max();
    let (resumes, replaces) = (config.is_on("train.resume"), config.is_on("overwrite"));
    if let Some(most) = most.filter(|most| replaces && *most > config.whole("split.folds")) {
        return refuse(format!("fold-{most} of a cross-validation with more folds, which would stay"));
    }
    match names.iter().find(|name| *name == FOLDS || files::ALL.contains(&name.as_str())) {
        Some(name) if most.is_none() => refuse(format!("{name}, which is of no cross-validation")),
        Some(name) if !resumes && !replaces => refuse(format!(
            "{name} of a cross-validation, with which --resume goes on and which --overwrite begins again"
        )),
        _ => Ok(()),
    }
}

/// Writes the report of all held-out images with its plots, and their labels that look wrong.
async fn report(run: &Run, config: &Config, store: &Store, done: &CrossValidated) -> Result<(), Error> {
    let CrossValidated { scores, scored, evaluation, .. } = done;
    // The training and the validation images of any one fold are those that all of them hold out.
    let place = scores[0].run.clone();
    let (settings, pool) = (config.clone(), run.clone());
    let opened_by = run.clone();
    let opening = run.until_stopped(move || async move {
        let run = &opened_by;
        let network =
            NetworkFile::open(&pool, &weights_of(&place, &settings).await?, None, &settings).await?;
        let of_run = OfRun::of_model(&place, ModelKind::Run, &settings).await?;
        let source = of_run.as_ref().and_then(OfRun::source);
        let source = source.ok_or_else(|| Error::Integrity(format!("{place} has no {}", files::CONFIG)))?;
        let chain = network.predictor.chain();
        let (feed, _) = feed_for(run, &settings, (&source, &place), chain, of_run.as_ref()).await?;
        Ok((feed, network.architecture, source))
    });
    let (feed, architecture, source) = opening.await?;
    feed.begin(run, &[Split::Train, Split::Validation])?;
    let budget = config.whole("report.bytes");
    let passes = [Pass::training_images(), Pass::validation()];
    let shown = show(run, (&feed, &passes), (scored, evaluation), budget).await?;
    for (name, bytes) in shown.files {
        let is_kept = name == files::FIXES && config.is_on("train.resume");
        let kept = if is_kept { store.find(name).await? } else { None };
        match kept.is_some_and(|kept| kept != bytes) {
            true => note(&format!("{name} was changed since it was written, and stays as it is")),
            false => store.put(name, bytes.into()).await?,
        }
    }
    let mut remarks = vec![format!(
        "Each image is called by the training that did not see it: accuracy {:.2} % ± {:.2} over {} folds (standard deviation), \
         macro F1 {:.4} ± {:.4}. The epoch of each was chosen by the images that score it, which flatters it a little; test \
         images were not looked at.",
        done.accuracy.mean * 100.0,
        done.accuracy.deviation * 100.0,
        done.folds,
        done.macro_f1.mean,
        done.macro_f1.deviation
    )];
    remarks.extend(scores.iter().map(|fold| {
        format!(
            "Fold {}: {:.2} % of {} images, macro F1 {:.4}, epoch {}.",
            fold.fold,
            fold.accuracy * 100.0,
            fold.images,
            fold.macro_f1,
            fold.best_epoch
        )
    }));
    let answers = ScoredAnswers::of(scored, &shown.errors.suspects, evaluation.temperature);
    let judged = Judged { evaluation, answers: &answers, gallery: &shown.gallery, images: "held-out images" };
    let command = format!("forebay train {}", config.to_arguments(Command::Train).join(" "));
    let model = format!("{architecture} in {} folds", done.folds);
    let page =
        EvaluationPage { model: &model, source: &source, judged, remarks: &remarks, command: &command };
    let page = html::evaluation(&page, budget);
    warn(&Vec::from_iter(page.note));
    Ok(store.put(files::REPORT, page.html.into()).await?)
}

/// Adds what one training said of the images that it held out, as logarithms of calibrated probabilities, so that those of
/// several trainings are of one kind.
fn add(pooled: &mut Scored, held_out: &Scored, temperature: f64) -> Result<(), Error> {
    for (index, (id, label)) in held_out.ids().iter().zip(held_out.labels()).enumerate() {
        let logs: Vec<f32> =
            held_out.probabilities(index, temperature).into_iter().map(|p| p.ln() as f32).collect();
        let pushed = pooled.push(id.clone(), *label, &logs);
        pushed.map_err(|error| Error::failed("put the folds together", error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_of_numbers_is_their_standard_deviation() {
        let spread = Spread::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        assert!(
            (spread.mean - 5.0).abs() < 1e-12 && (spread.deviation - (32.0f64 / 7.0).sqrt()).abs() < 1e-12
        );
        assert_eq!(Spread::of(&[3.0]), Spread { mean: 3.0, deviation: 0.0 });
    }
}
