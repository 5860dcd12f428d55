//! Figures with their intervals and what they would be without skill: as tiles at the head of a page, and as a table.

use std::fmt::Write as _;

use forebay_datasets::escape;
use forebay_train::metrics::{Evaluation, Figure};

use super::shell::{head, table};

/// How a figure reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// A share from 0 to 1, as per cent.
    Percent,
    /// A number as it is.
    Plain,
}

impl Reads {
    /// The value alone.
    pub(crate) fn value(self, value: f64) -> String {
        match self {
            Reads::Percent => format!("{:.2} %", value * 100.0),
            Reads::Plain => format!("{value:.4}"),
        }
    }

    fn bare(self, value: f64) -> String {
        match self {
            Reads::Percent => format!("{:.2}", value * 100.0),
            Reads::Plain => format!("{value:.4}"),
        }
    }

    /// The ends of an interval.
    pub(crate) fn interval(self, figure: &Figure) -> String {
        format!("{} to {}", self.bare(figure.low), self.bare(figure.high))
    }
}

/// The confidence level of an evaluation, as per cent.
pub(crate) fn level(evaluation: &Evaluation) -> String {
    let percent = format!("{:.2}", evaluation.level * 100.0);
    format!("{} %", percent.trim_end_matches('0').trim_end_matches('.'))
}

/// The interval as a bar on a scale from 0 to 1, and the baseline as a mark on it.
pub(super) fn range(figure: &Figure) -> String {
    let percent = |value: f64| 100.0 * if value.is_finite() { value.clamp(0.0, 1.0) } else { 0.0 };
    let (low, high) = (percent(figure.low), percent(figure.high));
    let baseline = figure.baseline.map(|value| format!("<b style=\"left:{:.2}%\"></b>", percent(value)));
    format!(
        "<span class=\"range\"><i style=\"left:{low:.2}%;width:{:.2}%\"></i>{}</span>",
        (high - low).max(0.0),
        baseline.unwrap_or_default()
    )
}

fn tile(name: &str, figure: &Figure, reads: Reads, level: &str, note: &str) -> String {
    let note = if note.is_empty() { String::new() } else { format!("<small>{}</small>", escape::html(note)) };
    format!(
        "<div class=\"tile\"><span>{}</span><b>{}</b>{}<small>{level} interval {}</small>{note}</div>\n",
        escape::html(name),
        reads.value(figure.value),
        range(figure),
        reads.interval(figure),
    )
}

/// The answer: accuracy beside the majority baseline, macro F1, calibration.
pub(super) fn tiles(evaluation: &Evaluation) -> String {
    let level = level(evaluation);
    let Evaluation { accuracy, macro_average, ece, majority, temperature, top5, .. } = evaluation;
    let always = format!("always “{}”: {}", majority.class, Reads::Percent.value(majority.accuracy));
    let without = |figure: &Figure, reads: Reads| match figure.baseline {
        Some(value) => format!("without skill {}", reads.value(value)),
        None => String::new(),
    };
    let mut text = String::from("<div class=\"tiles\">\n");
    text += &tile("Accuracy", accuracy, Reads::Percent, &level, &always);
    text +=
        &tile("Macro F1", &macro_average.f1, Reads::Plain, &level, &without(&macro_average.f1, Reads::Plain));
    if let Some(top5) = top5 {
        text += &tile("Top-5 accuracy", top5, Reads::Percent, &level, &without(top5, Reads::Percent));
    }
    let calibrated = match *temperature {
        1.0 => "probabilities as the network gives them".to_string(),
        temperature => format!("probabilities at temperature {temperature:.3}"),
    };
    text += &tile("Calibration error (ECE)", ece, Reads::Percent, &level, &calibrated);
    text + "</div>\n"
}

/// The same answer as a sentence, as HTML.
pub(super) fn sentence(evaluation: &Evaluation, images: &str) -> String {
    let Evaluation { accuracy, majority, samples, confusion, .. } = evaluation;
    let right: u64 = confusion.iter().enumerate().map(|(class, row)| row[class]).sum();
    let beats = match majority.accuracy {
        baseline if accuracy.low > baseline => "more than",
        baseline if accuracy.high < baseline => "less than",
        _ => "not clearly more than",
    };
    format!(
        "<p class=\"lead\">Right on <strong>{right}</strong> of {samples} {}: {}, {beats} the {} of always answering “{}”.</p>\n",
        escape::html(images),
        Reads::Percent.value(accuracy.value),
        Reads::Percent.value(majority.accuracy),
        escape::html(&majority.class)
    )
}

/// Every figure of an evaluation: its name, and how it reads.
pub(crate) fn all(evaluation: &Evaluation) -> Vec<(&'static str, Figure, Reads)> {
    use Reads::{Percent, Plain};
    let Evaluation { macro_average, weighted_average, roc_auc, average_precision, .. } = evaluation;
    let figures = [
        ("accuracy", Some(evaluation.accuracy), Percent),
        ("top-5 accuracy", evaluation.top5, Percent),
        ("balanced accuracy", Some(evaluation.balanced_accuracy), Percent),
        ("macro F1", Some(macro_average.f1), Plain),
        ("macro precision", Some(macro_average.precision), Plain),
        ("macro recall", Some(macro_average.recall), Plain),
        ("weighted F1", Some(weighted_average.f1), Plain),
        ("ROC AUC", roc_auc.binary, Plain),
        ("ROC AUC, macro", roc_auc.macro_average, Plain),
        ("ROC AUC, micro", roc_auc.micro_average, Plain),
        ("average precision", average_precision.binary, Plain),
        ("average precision, macro", average_precision.macro_average, Plain),
        ("average precision, micro", average_precision.micro_average, Plain),
        ("Matthews correlation (MCC)", Some(evaluation.mcc), Plain),
        ("Cohen's kappa", evaluation.kappa, Plain),
        ("log loss", Some(evaluation.log_loss), Plain),
        ("Brier score", Some(evaluation.brier), Plain),
        ("calibration error (ECE)", Some(evaluation.ece), Percent),
    ];
    figures.into_iter().filter_map(|(name, figure, reads)| Some((name, figure?, reads))).collect()
}

/// Every figure with its interval beside what it would be without skill.
pub(super) fn figures(evaluation: &Evaluation) -> String {
    let level = level(evaluation);
    let mut rows = String::new();
    for (name, figure, reads) in all(evaluation) {
        // A loss has no scale from 0 to 1, and what may be negative leaves it.
        let is_on_scale = name != "log loss" && figure.low >= 0.0 && figure.high <= 1.0;
        let bar = if is_on_scale { range(&figure) } else { String::new() };
        let baseline = figure.baseline.map_or("–".to_string(), |value| reads.value(value));
        let _ = writeln!(
            rows,
            "<tr><th scope=\"row\">{name}</th><td>{}</td><td>{}</td><td>{baseline}</td><td>{bar}</td></tr>",
            reads.value(figure.value),
            reads.interval(&figure)
        );
    }
    let caption = format!(
        "Each figure with its {level} interval, beside the classifier that gives every image the shares of the classes \
         (the mark on the bar)"
    );
    let names = ["figure", "value", "interval", "without skill", "0 to 1"];
    table(&caption, "figures", &head(&names), &rows)
}
