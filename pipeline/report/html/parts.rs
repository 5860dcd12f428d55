//! The other sections of a page: classes, priors, augmented examples, settings, and how it was made.

use std::fmt::Write as _;

use forebay_datasets::escape;
use forebay_train::metrics::{Evaluation, Figure};

use super::figures::{Reads, level, range};
use super::gallery::data_uri;
use super::shell::{bars, details, head, lines, table};
use crate::report::run::{ClassRow, Trained};

/// How much of a class training sees.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassPrior {
    /// Its name.
    pub class: String,
    /// Training images of it that were found, before rejects.
    pub images: u64,
    /// Rows of it in an epoch: its images that could be read, with the copies that the balance gives them.
    pub rows: u64,
    /// What the loss weighs each of them by; 1 without class weights.
    pub weight: f64,
}

/// An image as training sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct AugmentedExample {
    /// The sample.
    pub id: String,
    /// Its class.
    pub class: String,
    /// JPEG files: first as it is evaluated, then as several epochs see it.
    pub views: Vec<Vec<u8>>,
}

/// Above so many classes a table can be searched.
const FILTER_FROM: usize = 20;

/// Above so many classes bars become a table.
const BARS_MAX: usize = 40;

fn with_interval(figure: &Figure, reads: Reads) -> String {
    format!(
        "<td data-v=\"{:.6}\">{} <small>{}</small></td>",
        figure.value,
        reads.value(figure.value),
        reads.interval(figure)
    )
}

/// A row per class, with intervals.
pub(super) fn classes(evaluation: &Evaluation) -> String {
    let mut rows = String::new();
    let or_dash = |figure: &Option<Figure>| match figure {
        Some(figure) => with_interval(figure, Reads::Plain),
        None => "<td data-v=\"-1\">–</td>".to_string(),
    };
    for class in &evaluation.per_class {
        let _ = writeln!(
            rows,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td>{}{}{}{}{}<td>{}</td></tr>",
            escape::html(&class.class),
            class.support,
            class.predicted,
            with_interval(&class.precision, Reads::Percent),
            with_interval(&class.recall, Reads::Percent),
            with_interval(&class.f1, Reads::Plain),
            or_dash(&class.roc_auc),
            or_dash(&class.average_precision),
            range(&class.recall)
        );
    }
    let caption = format!("Each class with {} intervals; the bar is the recall", level(evaluation));
    let names = [
        "class",
        "images",
        "predicted",
        "precision",
        "recall",
        "F1",
        "ROC AUC",
        "average precision",
        "recall, 0 to 1",
    ];
    filtered("class-table", evaluation.classes.len(), table(&caption, "sort", &head(&names), &rows))
}

/// The same of a run of which nothing more is known.
pub(super) fn class_rows(done: &Trained) -> String {
    let mut rows = String::new();
    for ClassRow { class, precision, recall, f1, support } in &done.classes {
        let _ = writeln!(
            rows,
            "<tr><th scope=\"row\">{}</th><td>{precision:.4}</td><td>{recall:.4}</td><td>{f1:.4}</td><td>{support}</td></tr>",
            escape::html(class)
        );
    }
    let names = ["class", "precision", "recall", "F1", "images"];
    filtered("class-table", done.classes.len(), table("Each class", "sort", &head(&names), &rows))
}

/// A table that can be searched where it is long.
fn filtered(id: &str, rows: usize, table: String) -> String {
    if rows < FILTER_FROM {
        return table;
    }
    format!(
        "<p class=\"only-js\"><input class=\"filter\" type=\"search\" data-of=\"{id}\" aria-label=\"Filter rows\" placeholder=\"Filter rows\"></p>\n\
         <div class=\"tall\" id=\"{id}\" tabindex=\"0\">\n{table}</div>\n"
    )
}

/// What training sees of each class: images, after the balance, times the weights of the loss.
pub(super) fn priors(priors: &[ClassPrior]) -> String {
    let seen = |prior: &ClassPrior| prior.rows as f64 * prior.weight;
    let total = priors.iter().map(seen).sum::<f64>().max(f64::MIN_POSITIVE);
    let images = priors.iter().map(|prior| prior.images).sum::<u64>().max(1);
    let most = priors.iter().map(seen).fold(0.0, f64::max) / total;
    let share = |prior: &ClassPrior| seen(prior) / total;
    let mut text = String::from(
        "<p class=\"muted\">The share of each class in what training minimises: its images, with the copies of the balance, times \
         the weights of the loss.</p>\n",
    );
    if priors.len() <= BARS_MAX {
        let rows: Vec<(String, f64, String)> = priors
            .iter()
            .map(|prior| {
                let weight =
                    if prior.weight == 1.0 { String::new() } else { format!(" × {:.3}", prior.weight) };
                let rows =
                    if prior.rows == prior.images { String::new() } else { format!(" → {}", prior.rows) };
                let words = format!("{:.1} %  ({}{rows}{weight})", share(prior) * 100.0, prior.images);
                (prior.class.clone(), share(prior) / most.max(f64::MIN_POSITIVE), words)
            })
            .collect();
        text += &bars("Effective class priors", &rows);
    }
    let mut rows = String::new();
    for prior in priors {
        let _ = writeln!(
            rows,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{:.2}</td><td>{}</td><td>{:.4}</td><td>{:.2}</td></tr>",
            escape::html(&prior.class),
            prior.images,
            100.0 * prior.images as f64 / images as f64,
            prior.rows,
            prior.weight,
            100.0 * share(prior)
        );
    }
    let names = ["class", "images", "% of images", "rows in an epoch", "weight", "% of what is minimised"];
    let table = table("Effective class priors", "sort", &head(&names), &rows);
    text + &if priors.len() <= BARS_MAX {
        details("As a table", &table)
    } else {
        filtered("priors-table", priors.len(), table)
    }
}

/// Images as training sees them.
pub(super) fn examples(examples: &[AugmentedExample]) -> String {
    let columns = examples.iter().map(|example| example.views.len()).max().unwrap_or(1).max(1);
    let mut text = format!(
        "<p class=\"muted\">Each row is one image: first as it is evaluated, then as {} epochs see it.</p>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Augmented examples\">\n<div class=\"views\" style=\"--n:{columns}\">\n",
        columns - 1
    );
    for AugmentedExample { id, class, views } in examples {
        for n in 0..columns {
            text += &match views.get(n) {
                Some(jpeg) => format!(
                    "<i class=\"t\" role=\"img\" aria-label=\"view {n} of {}\" style=\"background-image:url({})\"></i>",
                    escape::html(id),
                    data_uri(jpeg)
                ),
                None => "<i></i>".to_string(),
            };
        }
        let _ = writeln!(text, "<small>{} · {}</small>", escape::html(class), escape::html(id));
    }
    text + "</div></div>\n"
}

/// How to make it again: the command, and every setting.
pub(super) fn made(command: &str, run_file: &str) -> String {
    let mut text = String::new();
    if !command.is_empty() {
        text += "<p>This makes it again:</p>\n";
        text += &lines(command);
    }
    if !run_file.is_empty() {
        text += &details("Every setting, as a run file", &lines(run_file));
    }
    text
}
