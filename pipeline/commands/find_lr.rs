//! The learning-rate range test (Smith, arXiv 1506.01186): the rate rises from step to step until the loss does.

use std::sync::{Arc, Mutex};

use forebay_datasets::sample::Split;
use forebay_stages::collate::Batch;
use forebay_train::{Freeze, TrainError, TrainOptions, Trainer};
use serde::Serialize;

use crate::feed::{Pass, PassBatch};
use crate::flow::{Error, Items, Run};
use crate::options::Invocation;
use crate::report::curves::{self, Series};
use crate::report::{say, say_json};
use crate::train::{RunFolder, TrainPlan, train_error};

/// The first and the last rate, and the steps between them, as in fastai's `lr_find`.
const FIRST: f64 = 1e-7;
const LAST: f64 = 10.0;
const STEPS: usize = 100;
/// The test ends where the smoothed loss is so many times its smallest value.
const DIVERGED: f64 = 4.0;

/// What a range test found.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// What was trained: what the run begins with.
    pub trained: String,
    /// Learning rate and smoothed loss of each step.
    pub points: Vec<(f64, f64)>,
    /// Where the loss falls most steeply; `None` when it nowhere falls.
    pub steepest: Option<f64>,
    /// A tenth of the rate of the smallest loss.
    pub minimum_tenth: f64,
    /// The smaller of the two, which is the safer.
    pub suggestion: f64,
}

/// Trains on batches of the plan with a rising learning rate, and forgets what it has trained.
///
/// # Errors
/// The first error of the run; a diverging loss is none.
pub async fn find(run: &Run, plan: &Arc<TrainPlan>) -> Result<Found, Error> {
    run.rejects().begin(plan.feed.samples(&[Split::Train]));
    // What thaws in the middle of the test would make the loss fall whatever the rate.
    let options =
        TrainOptions { unfreeze: Vec::new(), unfreeze_on_stall: Vec::new(), ..plan.options.clone() };
    let trained = match &options.freeze {
        Freeze::None => format!("all of {}", options.model),
        Freeze::Backbone => format!("the head of {}", options.model),
        Freeze::Until(part) => format!("the parts of {} after {part}", options.model),
    };
    let trainer = run.install(|| Trainer::new(&options));
    let mut trainer = trainer.map_err(|error| train_error("build the network", error))?;
    if let Some((name, bytes)) = &plan.weights {
        let loaded = run.install(|| trainer.load_weights(bytes));
        loaded.map_err(|error| train_error(&format!("load {name}"), error))?;
    }
    let trainer = Arc::new(Mutex::new(trainer));
    let (mut points, mut average) = (Vec::new(), 0.0);
    for epoch in 0.. {
        let (pool, trainer, before) = (run.clone(), trainer.clone(), points.len());
        let consume = move |batches: Items<PassBatch<Batch>>| {
            let mut trainer = trainer.lock().expect("one pass at a time");
            let trainer = &mut *trainer;
            let (mut points, mut average): (Vec<(f64, f64)>, f64) = (points, average);
            for fed in batches {
                if !fed.has_a_step(fed.batch.len()) {
                    continue;
                }
                let step = points.len();
                let rate = FIRST * (LAST / FIRST).powf(step as f64 / (STEPS - 1) as f64);
                let loss = match pool.install(|| trainer.step_at(&fed.batch, rate)) {
                    Ok(report) => report.loss,
                    Err(TrainError::Diverged { .. }) => return Ok((points, average, true)),
                    Err(error) => return Err(train_error("train", error)),
                };
                // An exponential mean, corrected for its start at zero.
                average = 0.98 * average + 0.02 * loss;
                let smoothed = average / (1.0 - 0.98f64.powi(step as i32 + 1));
                let least = points.iter().fold(smoothed, |least, (_, loss)| least.min(*loss));
                points.push((rate, smoothed));
                if points.len() == STEPS || (step > 10 && smoothed > DIVERGED * least) {
                    return Ok((points, average, true));
                }
            }
            Ok((points, average, false))
        };
        let ended;
        (points, average, ended) =
            plan.feed.batches(run, Pass::Train(epoch)).drain("find-lr", consume).await?;
        if ended {
            break;
        }
        if points.len() == before {
            return Err(Error::NothingLeft("no training image could be read".to_string()));
        }
    }
    suggest(trained, points).ok_or_else(|| {
        Error::NothingLeft(
            "the loss was not a number from the first steps on: look at the images and weights".into(),
        )
    })
}

/// The first tenth of the steps is left out: there the smoothed loss is still that of a few batches.
fn suggest(trained: String, points: Vec<(f64, f64)>) -> Option<Found> {
    let used = &points[(points.len() / 10).min(points.len().saturating_sub(3))..];
    let least = used.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    // Over the logarithm of the rate, up to the smallest loss: behind it the loss only rises.
    let slopes = used.windows(2).take_while(|pair| pair[0].0 < least.0).map(|pair| {
        ((pair[1].1 - pair[0].1) / (pair[1].0.ln() - pair[0].0.ln()), (pair[0].0 * pair[1].0).sqrt())
    });
    let steepest =
        slopes.min_by(|a, b| a.0.total_cmp(&b.0)).filter(|(slope, _)| *slope < 0.0).map(|(_, rate)| rate);
    let minimum_tenth = least.0 / 10.0;
    let suggestion = steepest.map_or(minimum_tenth, |steepest| steepest.min(minimum_tenth));
    Some(Found { trained, steepest, minimum_tenth, suggestion, points })
}

impl Found {
    /// The curve over the logarithm of the rate.
    pub fn svg(&self) -> String {
        let points = self.points.iter().map(|(rate, loss)| (rate.log10(), *loss)).collect();
        let series = Series { name: "smoothed loss", color: curves::TRAIN, points, dots: false };
        curves::svg("Learning-rate range test", "log10 of the learning rate", &[series])
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let highest = self.points.iter().map(|(_, loss)| *loss).fold(0.0, f64::max);
        writeln!(f, "learning rate  smoothed loss")?;
        for (rate, loss) in self.points.iter().step_by((self.points.len() / 20).max(1)) {
            let bar = "#".repeat((40.0 * loss / highest.max(1e-12)).round() as usize);
            writeln!(f, "{rate:>13.1e}  {loss:<8.4} {bar}")?;
        }
        match self.steepest {
            Some(steepest) => writeln!(f, "the loss falls most steeply at {steepest:.1e}")?,
            None => writeln!(f, "the loss falls nowhere: more or other images may be needed")?,
        }
        writeln!(f, "a tenth of the rate of its minimum is {:.1e}", self.minimum_tenth)?;
        writeln!(f, "suggestion for {}: --lr {:.1e}, the smaller of the two", self.trained, self.suggestion)
    }
}

/// Runs the test, says what it found, and keeps it where a run folder was named.
///
/// # Errors
/// As [`find`].
pub async fn run(run: &Run, asked: &Invocation, plan: &Arc<TrainPlan>) -> Result<(), Error> {
    let config = &asked.config;
    let found = find(run, plan).await?;
    if config.text("out").is_some() {
        let folder = RunFolder::open(config)?;
        folder.put("find-lr.svg", found.svg()).await?;
        let numbers = serde_json::to_string_pretty(&found).expect("results are plain data");
        folder.put("find-lr.json", numbers).await?;
    }
    match asked.json {
        true => say_json(&found),
        false => say(&found.to_string()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suggestion_is_before_the_minimum_and_where_the_loss_falls() {
        // A fall around 1e-3, a minimum at 0.1, then a rise.
        let points: Vec<(f64, f64)> = (0..100)
            .map(|step| {
                let rate = FIRST * (LAST / FIRST).powf(f64::from(step) / 99.0);
                let x = rate.log10();
                (rate, 2.0 - 1.0 / (1.0 + (-3.0 * (x + 3.0)).exp()) + (x + 1.0).max(0.0).powi(2))
            })
            .collect();
        let found = suggest("all".to_string(), points).unwrap();
        let steepest = found.steepest.unwrap();
        assert!((3e-4..3e-3).contains(&steepest), "{steepest}");
        assert!(found.suggestion <= steepest && found.suggestion <= found.minimum_tenth);
        assert!(found.to_string().contains("suggestion for all: --lr "));
        assert!(found.svg().starts_with("<svg"));
    }

    #[test]
    fn a_loss_that_never_falls_gives_no_steepest_point() {
        let points = (0..50).map(|step| (10f64.powi(step - 40), f64::from(step))).collect();
        assert_eq!(suggest(String::new(), points).unwrap().steepest, None);
        assert!(suggest(String::new(), Vec::new()).is_none());
    }
}
