//! `forebay compare`: runs side by side on the same samples, and whether their differences could be chance.

use std::fmt::Write as _;

use forebay_datasets::escape::printable;
use forebay_datasets::sample::Split;
use forebay_datasets::store::Store;
use forebay_datasets::words::Words;
use forebay_train::metrics::{
    Comparison, Confusion, Difference, Evaluation, EvaluationOptions, Figure, Scored, classification_report,
    holm,
};
use serde::Serialize;

use crate::flow::{Error, Run};
use crate::options::{Config, EvalSplit, Invocation, store_options};
use crate::plan::{Purpose, file_key, folder_and_file, refuse_unreached};
use crate::predictions::Predictions;
use crate::report::{say, say_json, warn};
use crate::train::files;

/// What a comparison came to.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// Which samples: `train`, `validation`, `test` or `all`.
    pub split: &'static str,
    /// The runs, as they were named.
    pub runs: Vec<ComparedRun>,
    /// Every other run against the first.
    pub comparisons: Vec<ComparedPair>,
}

/// A run of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct ComparedRun {
    /// As it was named.
    pub run: String,
    /// Every figure of it.
    pub evaluation: Evaluation,
    /// scikit-learn's table.
    pub classification_report: String,
}

/// A run against the first.
#[derive(Clone, Debug, Serialize)]
pub struct ComparedPair {
    /// The first run.
    pub first: String,
    /// The other.
    pub second: String,
    /// How far apart they are.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// The probability of McNemar's test, adjusted for the number of pairs (Holm).
    pub adjusted_p: f64,
    /// Whether the accuracies differ by more than chance.
    pub is_significant: bool,
    /// The same in a sentence.
    pub in_words: String,
}

/// Reads the predictions of RUN: a run folder, a folder of `eval --out`, or the file itself.
async fn read(place: &str, config: &Config) -> Result<Predictions, Error> {
    refuse_unreached("RUN", place, Purpose::File)?;
    let options = store_options(config);
    let folder = Store::open(place, &options)?;
    let path = folder.local_root();
    if path.is_none_or(|path| !path.is_file()) {
        let named = format!("{}/{}", place.trim_end_matches('/'), files::PREDICTIONS);
        if let Some(predictions) = Predictions::find(&folder, files::PREDICTIONS, &named).await? {
            return Ok(predictions);
        }
    }
    if path.is_some_and(std::path::Path::is_dir) {
        return Err(Error::Usage(format!(
            "{place} holds no {}: name a run folder, a folder of eval --out, or a file of predictions",
            files::PREDICTIONS
        )));
    }
    let (folder, file) = folder_and_file(place);
    let found = Predictions::find(&Store::open(folder, &options)?, &file_key(place, file), place).await?;
    found.ok_or_else(|| Error::Usage(format!("{place}: there is no such run folder or file of predictions")))
}

/// The samples of a run that are compared.
fn chosen(place: &str, predictions: &Predictions, split: EvalSplit) -> Result<Scored, Error> {
    let which = match split {
        EvalSplit::Train => Some(Split::Train),
        EvalSplit::Validation => Some(Split::Validation),
        EvalSplit::Test => Some(Split::Test),
        EvalSplit::All => None,
    };
    let scored = predictions.scored(which, place)?;
    if !scored.is_empty() {
        return Ok(scored);
    }
    let there = predictions.splits();
    let names: Vec<&str> = there.iter().map(|split| split.name()).collect();
    Err(Error::Usage(match names.as_slice() {
        [] => format!("{place} has no predictions of samples whose class is known"),
        [one] => format!("{place} has no predictions of {} samples: give --split {one}", split.name()),
        _ => format!("{place} has no predictions of {} samples: it has {}", split.name(), names.join(", ")),
    }))
}

/// Compares runs.
///
/// # Errors
/// [`Error::Usage`] when there are fewer than two, when one has no predictions, or when their samples, labels or classes
/// are not the same; others when they cannot be read.
pub async fn compare(run: &Run, config: &Config) -> Result<Compared, Error> {
    let places = config.places("compare.runs");
    if places.len() < 2 {
        return Err(Error::Usage(
            "compare needs two or more RUNs: run folders, folders of eval --out, or files of predictions"
                .into(),
        ));
    }
    let split: EvalSplit = config.choice("compare.split");
    let (settings, named) = (config.clone(), places.clone());
    let reading = run.until_stopped(move || async move {
        let mut runs = Vec::new();
        for place in &named {
            let predictions = read(place, &settings).await?;
            if !predictions.asked().is_empty() {
                warn(&[format!(
                    "{place} was scored with {}: what differs may come of that, and not of the model",
                    printable(predictions.asked())
                )]);
            }
            runs.push(chosen(place, &predictions, split)?);
        }
        Ok(runs)
    });
    let scored = reading.await?;
    let options = EvaluationOptions {
        // The probabilities are those that the run has given, its temperature in them.
        temperature: 1.0,
        level: config.real("eval.level"),
        draws: config.whole("eval.draws") as u32,
        seed: config.whole("seed"),
    };
    run.install(|| measure(split, &places, &scored, &options))
}

fn measure(
    split: EvalSplit,
    places: &[String],
    scored: &[Scored],
    options: &EvaluationOptions,
) -> Result<Compared, Error> {
    let (first, others) = (&places[0], &places[1..]);
    let mut comparisons = Vec::new();
    for (second, other) in others.iter().zip(&scored[1..]) {
        let comparison = Comparison::of(&scored[0], other, options);
        comparisons.push(comparison.map_err(|error| {
            Error::Usage(format!("cannot compare {first}, the first, with {second}, the second: {error}"))
        })?);
    }
    let adjusted = holm(&comparisons.iter().map(|comparison| comparison.mcnemar.p).collect::<Vec<_>>());
    let pair = |((second, comparison), p): ((&String, Comparison), f64)| ComparedPair {
        first: first.clone(),
        second: second.clone(),
        adjusted_p: p,
        is_significant: comparison.is_significant(p),
        in_words: comparison.in_words(&printable(first), &printable(second), p),
        comparison,
    };
    let of_run = |(place, scored): (&String, &Scored)| {
        let evaluation = Evaluation::of(scored, options);
        let evaluation = evaluation.map_err(|error| Error::Usage(format!("{place}: {error}")))?;
        let confusion = Confusion::from_rows(&evaluation.confusion);
        let classification_report = classification_report(&confusion, &evaluation.classes);
        Ok(ComparedRun { run: place.clone(), evaluation, classification_report })
    };
    Ok(Compared {
        split: split.name(),
        runs: places.iter().zip(scored).map(of_run).collect::<Result<_, Error>>()?,
        comparisons: others.iter().zip(comparisons).zip(adjusted).map(pair).collect(),
    })
}

type FigureOf = fn(&Evaluation) -> Option<Figure>;

/// The rows of the table: what each is called, whether it is a share that is printed in percent, and the figure.
const ROWS: [(&str, bool, FigureOf); 11] = [
    ("accuracy, %", true, |of| Some(of.accuracy)),
    ("top-5 accuracy, %", true, |of| of.top5),
    ("balanced accuracy, %", true, |of| Some(of.balanced_accuracy)),
    ("macro F1, %", true, |of| Some(of.macro_average.f1)),
    ("kappa", false, |of| of.kappa),
    ("MCC", false, |of| Some(of.mcc)),
    ("ROC AUC, macro", false, |of| of.roc_auc.macro_average),
    ("average precision, macro", false, |of| of.average_precision.macro_average),
    ("log loss", false, |of| Some(of.log_loss)),
    ("Brier score", false, |of| Some(of.brier)),
    ("calibration error (ECE)", false, |of| Some(of.ece)),
];

/// A number in percent with two digits after the point, or as it is with four.
fn number(value: f64, is_share: bool) -> String {
    if is_share { format!("{:.2}", 100.0 * value) } else { format!("{value:.4}") }
}

/// What the rows of [`ROWS`] say of each run.
fn table(runs: &[ComparedRun]) -> String {
    let mut text = format!("{:<26}{:>10}", "", "baseline");
    for index in 0..runs.len() {
        let _ = write!(text, "  {:<26}", format!("run {}", index + 1));
    }
    let mut lines = vec![text];
    for (name, is_share, of) in ROWS {
        let figures: Vec<Option<Figure>> = runs.iter().map(|run| of(&run.evaluation)).collect();
        if figures.iter().all(Option::is_none) {
            continue;
        }
        let baseline = figures.iter().flatten().find_map(|figure| figure.baseline);
        let mut text =
            format!("{name:<26}{:>10}", baseline.map_or("-".into(), |value| number(value, is_share)));
        for figure in figures {
            let cell = figure.map_or("-".into(), |Figure { value, low, high, .. }| {
                let [value, low, high] = [value, low, high].map(|value| number(value, is_share));
                format!("{value} ({low} to {high})")
            });
            let _ = write!(text, "  {cell:<26}");
        }
        lines.push(text);
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The differences of a pair that are more than chance beside those of the accuracies, a line each.
fn other_differences(comparison: &Comparison) -> String {
    let line = |difference: &Difference| {
        let Difference { figure, difference, low, high, .. } = difference;
        let is_share = ["balanced_accuracy", "macro_f1"].contains(&figure.as_str());
        let name = figure.replace('_', " ");
        let [difference, low, high] = [difference, low, high].map(|value| match is_share {
            true => format!("{:+.2}", 100.0 * value),
            false => format!("{value:+.4}"),
        });
        let points = if is_share { " points" } else { "" };
        format!("  {name} {difference}{points} ({low} to {high})\n")
    };
    comparison.differences[1..].iter().filter(|difference| difference.is_significant()).map(line).collect()
}

impl std::fmt::Display for Compared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Evaluation { samples, classes, majority, level, draws, .. } = &self.runs[0].evaluation;
        let split = if self.split == "all" { String::new() } else { format!("{} ", self.split) };
        writeln!(
            f,
            "{samples} {split}samples of {} classes; always {}: {:.2} % accuracy",
            classes.len(),
            printable(&majority.class),
            100.0 * majority.accuracy
        )?;
        for (index, run) in self.runs.iter().enumerate() {
            writeln!(f, "  run {}: {}", index + 1, printable(&run.run))?;
        }
        writeln!(f, "\n{}", table(&self.runs))?;
        writeln!(
            f,
            "In brackets: {:.0} % intervals (Wilson for accuracies, else {draws} resamples of the samples).",
            100.0 * level
        )?;
        for pair in &self.comparisons {
            writeln!(f, "\n{}.", pair.in_words)?;
            let others = other_differences(&pair.comparison);
            if !others.is_empty() {
                write!(f, "Other differences whose interval leaves 0 out:\n{others}")?;
            }
        }
        if self.comparisons.len() > 1 {
            writeln!(f, "\nEach p is adjusted for {} comparisons (Holm).", self.comparisons.len())?;
        }
        Ok(())
    }
}

/// Runs the command.
///
/// # Errors
/// The first error of the run.
pub async fn run(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let done = compare(run, &asked.config).await?;
    match asked.json {
        true => say_json(&done),
        false => say(&done.to_string()),
    }
    Ok(())
}
