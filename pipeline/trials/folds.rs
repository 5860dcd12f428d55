//! Cross-validation: a training for each part of the images that is held out, and what they come to together.

use forebay_datasets::sample::Split;
use forebay_datasets::store::Store;
use forebay_train::metrics::{Evaluation, EvaluationOptions, Scored};
use serde::Serialize;

use crate::flow::{Error, Run};
use crate::options::{Config, store_options};
use crate::predictions::Predictions;
use crate::report::Trained;
use crate::train::files;

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
    let mut predictions = Predictions::new(done.scored.classes().to_vec());
    predictions.push_scored(&done.scored, Split::Validation, 1.0);
    store.put(files::PREDICTIONS, predictions.to_parquet()).await?;
    store.put(FOLDS, forebay_datasets::manifest::to_json(&done).into()).await?;
    Ok(done)
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
