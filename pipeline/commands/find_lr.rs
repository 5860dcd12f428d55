//! The learning-rate range test (Smith, arXiv 1506.01186): the rate rises from step to step until the loss does.

use std::sync::{Arc, Mutex};

use forebay_datasets::sample::Split;
use forebay_stages::collate::Batch;
use forebay_train::{TrainError, TrainOptions, Trainer};
use serde::Serialize;

use crate::feed::{Pass, PassBatch};
use crate::flow::{Error, Items, Run};
use crate::options::Invocation;
use crate::report::axis::{Division, PlotAxis};
use crate::report::curves::{self, Plot, Series};
use crate::report::{say, say_json, tell, terminal};
use crate::train::{RunFolder, Start, TrainPlan, build, train_error};

/// The first and the last rate, and the steps between them, as in fastai's `lr_find`.
const FIRST: f64 = 1e-7;
const LAST: f64 = 10.0;
const STEPS: usize = 100;
/// The test ends where the smoothed loss is so many times its smallest value.
const DIVERGED: f64 = 4.0;

/// The files that it keeps.
const CURVE: &str = "find-lr.svg";
const NUMBERS: &str = "find-lr.json";

/// The least of a loss at the start of the test by which it must fall, as a share of it, for a rate to be suggested.
const FALL_MIN: f64 = 0.01;
/// By how many standard deviations of the smoothed loss it must fall: in a test whose loss only wavers, one in thousands.
const FALL_DEVIATIONS: f64 = 4.0;
/// The weight of the past in the smoothed loss, as in fastai.
const SMOOTHING: f64 = 0.98;

/// What a range test found.
#[derive(Clone, Debug, Serialize)]
pub struct RangeTest {
    /// What was trained: what the run begins with.
    pub trained: String,
    /// Learning rate and smoothed loss of each step.
    pub points: Vec<(f64, f64)>,
    /// Where the loss falls most steeply; `None` when it nowhere clearly falls.
    pub steepest: Option<f64>,
    /// A tenth of the rate of the smallest loss; `None` when the loss nowhere clearly falls.
    pub minimum_tenth: Option<f64>,
    /// The smaller of the two, which is the safer.
    pub suggestion: Option<f64>,
}

/// The steps of a range test so far.
#[derive(Clone, Debug, Default)]
struct Curve {
    /// Learning rate and smoothed loss of each step.
    points: Vec<(f64, f64)>,
    /// The loss of each step.
    losses: Vec<f64>,
    average: f64,
}

impl Curve {
    /// The rate of the next step.
    fn rate(&self) -> f64 {
        FIRST * (LAST / FIRST).powf(self.points.len() as f64 / (STEPS - 1) as f64)
    }

    /// Takes in the loss of a step; true when the test is over.
    fn push(&mut self, rate: f64, loss: f64) -> bool {
        let step = self.points.len();
        // An exponential mean, corrected for its start at zero.
        self.average = SMOOTHING * self.average + (1.0 - SMOOTHING) * loss;
        let smoothed = self.average / (1.0 - SMOOTHING.powi(step as i32 + 1));
        let least = self.points.iter().fold(smoothed, |least, (_, loss)| least.min(*loss));
        self.points.push((rate, smoothed));
        self.losses.push(loss);
        self.points.len() == STEPS || (step > 10 && smoothed > DIVERGED * least)
    }

    /// The standard deviation of the loss from step to step, by the median of the differences, to which the few steps of a
    /// fall or a rise add nothing.
    fn noise(&self) -> f64 {
        let mut differences: Vec<f64> =
            self.losses.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
        differences.sort_by(f64::total_cmp);
        // The median of the absolute difference of two normal draws is 0.6745 * sqrt(2) standard deviations.
        differences
            .get(differences.len() / 2)
            .map_or(0.0, |median| median / (0.6745 * std::f64::consts::SQRT_2))
    }
}

/// Trains on batches of the plan with a rising learning rate, and forgets what it has trained.
///
/// # Errors
/// The first error of the run; a diverging loss is none.
pub async fn find(run: &Run, plan: &Arc<TrainPlan>) -> Result<RangeTest, Error> {
    plan.feed.begin(run, &[Split::Train])?;
    // What thaws in the middle of the test would make the loss fall whatever the rate; what the run trains from its first
    // step on is trained.
    let mut options = TrainOptions { unfreeze_on_stall: Vec::new(), ..plan.options.clone() };
    options.unfreeze.retain(|unfreeze| unfreeze.step == 0);
    let (trainer, _) = build(run, plan, &options)?;
    let trained = match &trainer.trained_parts()[..] {
        parts if parts.len() == Trainer::part_names(&options.model).len() => {
            format!("all of {}", options.model)
        }
        [_] => format!("the head of {}", options.model),
        parts => format!("{} from {} on", options.model, parts[0]),
    };
    let trainer = Arc::new(Mutex::new(trainer));
    let mut curve = Curve::default();
    for epoch in 0.. {
        let (pool, trainer, before) = (run.clone(), trainer.clone(), curve.points.len());
        let consume = move |batches: Items<PassBatch<Batch>>| {
            let mut trainer = trainer.lock().expect("one pass at a time");
            let trainer = &mut *trainer;
            for fed in batches {
                if !fed.has_a_step(fed.batch.len()) {
                    continue;
                }
                let rate = curve.rate();
                let loss = match pool.install(|| trainer.step_at(&fed.batch, rate)) {
                    Ok(report) => report.loss,
                    Err(TrainError::Diverged { .. }) => return Ok((curve, true)),
                    Err(error) => return Err(train_error("train", error)),
                };
                if curve.push(rate, loss) {
                    return Ok((curve, true));
                }
            }
            Ok((curve, false))
        };
        let ended;
        (curve, ended) = plan.feed.batches(run, Pass::train(epoch)).drain("find-lr", consume).await?;
        if ended {
            break;
        }
        if curve.points.len() == before {
            return Err(Error::NothingLeft("no training image could be read".to_string()));
        }
    }
    suggest(trained, curve).ok_or_else(|| {
        Error::NothingLeft(
            "the loss was not a number from the first steps on: look at the images and weights".into(),
        )
    })
}

/// The first tenth of the steps is left out: there the smoothed loss is still that of a few batches.
fn suggest(trained: String, curve: Curve) -> Option<RangeTest> {
    let noise = curve.noise();
    let points = curve.points;
    let first = (points.len() / 10).min(points.len().saturating_sub(3));
    let used = &points[first..];
    let lowest =
        used.iter().enumerate().min_by(|(_, a), (_, b)| a.1.total_cmp(&b.1)).map(|(index, _)| index)?;
    let (start, least) = (used[0], used[lowest]);
    // The smoothed loss of the first point used is about the mean of the steps so far, and that of a later one has this
    // share of the variance of a step.
    let variance = 1.0 / (first + 1) as f64 + (1.0 - SMOOTHING) / (1.0 + SMOOTHING);
    let wavering = FALL_DEVIATIONS * noise * variance.sqrt();
    if start.1 - least.1 <= wavering.max(FALL_MIN * start.1.abs()) {
        return Some(RangeTest { trained, points, steepest: None, minimum_tenth: None, suggestion: None });
    }
    // Over the logarithm of the rate, up to the smallest loss: behind it the loss only rises. Between points so far apart
    // that one step's noise is no fall.
    let apart = (used.len() / 10).clamp(1, lowest);
    let slope = |index: usize| {
        let (a, b) = (used[index], used[index + apart]);
        ((b.1 - a.1) / (b.0.ln() - a.0.ln()), (a.0 * b.0).sqrt())
    };
    let slopes = (0..=lowest - apart).map(slope).filter(|(slope, _)| *slope < 0.0);
    let steepest = slopes.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, rate)| rate);
    let minimum_tenth = least.0 / 10.0;
    let suggestion = steepest.map_or(minimum_tenth, |steepest| steepest.min(minimum_tenth));
    Some(RangeTest {
        trained,
        points,
        steepest,
        minimum_tenth: Some(minimum_tenth),
        suggestion: Some(suggestion),
    })
}

impl RangeTest {
    /// The curve over the logarithm of the rate.
    pub fn svg(&self) -> String {
        let points = self.points.clone();
        let series = Series { name: "smoothed loss", color: curves::TRAIN, points, dots: false };
        let mut lines = vec![series];
        if let Some(rate) = self.suggestion {
            let loss = self.loss_at(rate);
            lines.push(Series {
                name: "suggestion",
                color: curves::VALIDATION,
                points: vec![(rate, loss)],
                dots: true,
            });
        }
        let plot =
            Plot { title: "Learning-rate range test", x_name: "rate", x_is_log: true, y_may_be_log: false };
        curves::svg(plot, &lines)
    }

    /// The scale of the losses of every so many steps, from the lowest to the highest before it. A test goes on until the loss
    /// is several times its smallest value: a scale up to there would hide the valley.
    fn axis(&self, every: usize) -> Option<PlotAxis> {
        let losses: Vec<f64> = self.points.iter().step_by(every).map(|(_, loss)| *loss).collect();
        let lowest = losses.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1))?.0;
        let before = if lowest > 0 { &losses[..=lowest] } else { &losses[..] };
        let mut axis = PlotAxis::of(before.iter().copied(), Division::Linear)?;
        let above = || losses.iter().copied().filter(|loss| *loss > axis.high);
        axis.above = above().reduce(f64::max).map(|most| (above().count(), most));
        Some(axis)
    }

    /// The smoothed loss of the step whose rate is nearest.
    fn loss_at(&self, rate: f64) -> f64 {
        self.points[self.step_of(rate)].1
    }

    /// The step whose rate is nearest.
    fn step_of(&self, rate: f64) -> usize {
        let apart = |index: &usize| (self.points[*index].0.ln() - rate.ln()).abs();
        (0..self.points.len()).min_by(|a, b| apart(a).total_cmp(&apart(b))).unwrap_or(0)
    }
}

/// Rows of the chart in the terminal.
const ROWS: usize = 20;
/// Width of its bars, characters: with the numbers and the mark it fits in 60 columns.
const BAR: usize = 20;

/// A learning rate as it may be given back: `1e-3`, `2.5e-4`.
fn rate_in_words(rate: f64) -> String {
    let text = format!("{rate:.1e}");
    text.replace(".0e", "e").trim_end_matches("e0").to_string()
}

impl std::fmt::Display for RangeTest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let every = self.points.len().div_ceil(ROWS).max(1);
        let marked = self.suggestion.map(|rate| self.step_of(rate) / every * every);
        let shown = || self.points.iter().enumerate().step_by(every);
        let Some(axis) = self.axis(every) else { return Ok(()) };
        let higher = axis.above.map_or(String::new(), |(n, _)| format!(" ({n} higher)"));
        writeln!(f, "learning rate     loss  {:.4} to {:.4}{higher}", axis.low, axis.high)?;
        for (step, (rate, loss)) in shown() {
            let filled = (BAR as f64 * axis.position(*loss)).round() as usize;
            let bar = format!("{}{}", "█".repeat(filled), "·".repeat(BAR - filled));
            let mark = if marked == Some(step) { " <- suggestion" } else { "" };
            writeln!(f, "{:>13}  {loss:>7.4}  {bar}{mark}", rate_in_words(*rate))?;
        }
        let (Some(minimum_tenth), Some(suggestion)) = (self.minimum_tenth, self.suggestion) else {
            return writeln!(
                f,
                "no suggestion for {}: its loss nowhere falls by clearly more than it wavers from batch to batch; more or \
                 other images, larger batches or more to train may be needed",
                self.trained
            );
        };
        if let Some(steepest) = self.steepest {
            writeln!(f, "the loss falls most steeply at {}", rate_in_words(steepest))?;
        }
        writeln!(f, "a tenth of the rate of its minimum is {}", rate_in_words(minimum_tenth))?;
        let suggestion = rate_in_words(suggestion);
        writeln!(f, "suggestion for {}: --lr {suggestion}, the smaller of the two", self.trained)
    }
}

/// Runs the test, says what it found, and keeps it where a run folder was named.
///
/// # Errors
/// As [`find`].
pub async fn run(run: &Run, asked: &Invocation, plan: &Arc<TrainPlan>) -> Result<(), Error> {
    let config = &asked.config;
    let folder = config.text("out").map(|_| RunFolder::open(config)).transpose()?;
    if let Some(folder) = &folder {
        folder.refuse_place(plan.feed.image_folder()).await?;
    }
    let _owned = folder.as_ref().map(|folder| folder.own(Start::New)).transpose()?;
    if let Some(folder) = folder.as_ref().filter(|_| !config.is_on("overwrite")) {
        let names = folder.names().await?;
        if let Some(name) = [CURVE, NUMBERS].into_iter().find(|name| names.iter().any(|found| found == name))
        {
            return Err(Error::Usage(format!(
                "{} holds {name} already: give another --out, or --overwrite to replace it",
                folder.location()
            )));
        }
    }
    let found = find(run, plan).await?;
    tell(&terminal::rejected(&run.rejects().list(), ""));
    if let Some(folder) = &folder {
        folder.put(CURVE, found.svg()).await?;
        let numbers = serde_json::to_string_pretty(&found).expect("results are plain data");
        folder.put(NUMBERS, numbers).await?;
    }
    match asked.json {
        true => say_json(&found),
        false => say(&found.to_string()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use forebay_datasets::seed::Seed;

    use super::*;

    /// The curve of a test with this loss of each step.
    fn curve(loss: impl Fn(f64) -> f64, noise: f64, seed: u64) -> Curve {
        let mut stream = Seed(seed).stream("noise");
        let mut curve = Curve::default();
        for _ in 0..STEPS {
            let rate = curve.rate();
            // The sum of twelve even draws is all but normal.
            let normal: f64 =
                (0..12).map(|_| stream.below(1 << 20) as f64 / f64::from(1 << 20)).sum::<f64>() - 6.0;
            curve.push(rate, loss(rate) + noise * normal);
        }
        curve
    }

    /// A fall around 1e-3, a minimum at 0.1, then a rise.
    fn falling(rate: f64) -> f64 {
        let x = rate.log10();
        2.0 - 1.0 / (1.0 + (-3.0 * (x + 3.0)).exp()) + (x + 1.0).max(0.0).powi(2)
    }

    #[test]
    fn the_suggestion_is_before_the_minimum_and_where_the_loss_falls() {
        for (noise, seed) in [(0.0, 0), (0.1, 1), (0.1, 2), (0.1, 3)] {
            let found = suggest("all".to_string(), curve(falling, noise, seed)).unwrap();
            let (steepest, suggestion) = (found.steepest.unwrap(), found.suggestion.unwrap());
            // The smoothed loss follows the loss by some steps.
            assert!((3e-4..1e-1).contains(&steepest), "{steepest}");
            assert!(suggestion <= steepest && suggestion <= found.minimum_tenth.unwrap());
            assert!(found.to_string().contains("suggestion for all: --lr "));
            let svg = found.svg();
            assert!(svg.contains(">suggestion<") && svg.contains(">1e-6<") && svg.contains(">1<"), "{svg}");
            let shown = found.to_string();
            let bars: Vec<usize> = shown.lines().map(|line| line.matches('█').count()).collect();
            assert!(bars.contains(&0) && bars.contains(&BAR), "from the lowest to the highest\n{shown}");
            assert_eq!(shown.matches("<- suggestion").count(), 1, "{shown}");
            assert!(shown.lines().all(|line| line.chars().count() <= 60), "{shown}");
            assert!(shown.contains("\n         1e-7  "), "{shown}");
        }
    }

    #[test]
    fn a_loss_that_only_wavers_or_rises_gives_no_suggestion() {
        let flat = (0..50).map(|seed| curve(|_| 2.3, 0.2, seed));
        let rising = (0..50).map(|seed| curve(|rate| 2.3 + rate, 0.2, seed));
        for curve in flat.chain(rising).chain([curve(|_| 2.3, 0.0, 0)]) {
            let found = suggest("all".to_string(), curve).unwrap();
            assert_eq!((found.suggestion, found.steepest, found.minimum_tenth), (None, None, None));
            assert!(found.to_string().contains("no suggestion for all"));
        }
        assert!(suggest(String::new(), Curve::default()).is_none());
    }
}
