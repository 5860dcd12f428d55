//! Tables and bar charts for a terminal.

use std::fmt::Write as _;

use forebay_datasets::sample::Split;
use forebay_datasets::shard::Reject;

use super::bar::{Standing, Unit};
use super::progress::{Phase, Snapshot};
use super::run::{EpochMetrics, RunFacts, Trained};
use crate::plan::shorten;

/// Rows of a list before it is cut short.
const ROWS_MAX: usize = 40;

/// Where a training run stands; `starved` is the share of time in which it waited for the feed.
pub fn training(seen: &Snapshot, epochs: u32, steps_per_epoch: u64, starved: f64) -> Standing {
    let (per_second, fields) = match seen.phase {
        Phase::Training => (
            seen.steps_per_second,
            vec![
                format!("loss {:.4}", seen.loss),
                format!("accuracy {:.1} %", seen.accuracy * 100.0),
                format!("{:.0} images/s", seen.images_per_second),
                format!("starved {:.0} %", starved * 100.0),
                format!("lr {:.2e}", seen.learning_rate),
            ],
        ),
        phase => (0.0, vec![phase.name().to_string()]),
    };
    Standing {
        what: format!("epoch {}/{epochs}", seen.epoch),
        done: seen.step,
        total: steps_per_epoch,
        unit: Unit::Steps,
        per_second,
        fields,
    }
}

pub(crate) fn reject_lines(rejects: &[Reject]) -> String {
    let mut text = String::new();
    for Reject { id, stage, reason } in rejects.iter().take(ROWS_MAX) {
        let _ = writeln!(text, "  {}: {stage}: {reason}", id.escape_debug());
    }
    if rejects.len() > ROWS_MAX {
        let _ = writeln!(text, "  … and {} more", rejects.len() - ROWS_MAX);
    }
    text
}

/// The samples that were refused, if there are some; `place` says where all of them stand.
pub fn rejected(rejects: &[Reject], place: &str) -> String {
    match rejects {
        [] => String::new(),
        rejects => format!("{} rejected{place}:\n{}", rejects.len(), reject_lines(rejects)),
    }
}

/// One line per epoch.
pub fn epoch(metrics: &EpochMetrics, epochs: u32) -> String {
    let validation = match (metrics.validation_loss, metrics.validation_accuracy) {
        (Some(loss), Some(accuracy)) => {
            format!("validation loss {loss:.4}, accuracy {:5.2} %", accuracy * 100.0)
        }
        _ => "no validation".to_string(),
    };
    format!(
        "epoch {:>3}/{epochs}  loss {:.4}, accuracy {:5.2} %  {validation}  {:.0} images/s\n",
        metrics.epoch,
        metrics.train_loss,
        metrics.train_accuracy * 100.0,
        metrics.images_per_second
    )
}

/// The per-class table and the confusion matrix.
pub fn trained(done: &Trained) -> String {
    let mut text = String::new();
    let names: Vec<&str> = done.classes.iter().map(|row| row.class.as_str()).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).clamp(9, 32);
    let _ = writeln!(
        text,
        "{:>width$} {:>9} {:>9} {:>9} {:>9}",
        "", "precision", "recall", "f1-score", "support"
    );
    for row in done.classes.iter().take(ROWS_MAX) {
        let name = shorten(&row.class, width);
        let _ = writeln!(
            text,
            "{name:>width$} {:>9.4} {:>9.4} {:>9.4} {:>9}",
            row.precision, row.recall, row.f1, row.support
        );
    }
    if done.classes.len() > ROWS_MAX {
        let _ = writeln!(text, "{:>width$} and {} more classes", "…", done.classes.len() - ROWS_MAX);
    }
    if done.classes.len() <= 16 {
        let cell = done.confusion.iter().flatten().map(|n| n.to_string().len()).max().unwrap_or(1).max(3);
        let _ = writeln!(
            text,
            "\nconfusion matrix: rows are true classes, columns predictions in the same order"
        );
        for (name, row) in names.iter().zip(&done.confusion) {
            let cells: Vec<String> = row.iter().map(|n| format!("{n:>cell$}")).collect();
            let _ = writeln!(text, "{:>width$} {}", shorten(name, width), cells.join(" "));
        }
    }
    if done.stopped_early {
        let _ = writeln!(text, "\n{}", stopped_early(done));
    }
    let what = match done.split {
        Split::Test => "on test images that training never saw",
        Split::Validation => "on validation images (there is no test split)",
        Split::Train => "on the training images themselves (there is no other split)",
    };
    let _ = writeln!(
        text,
        "\naccuracy {:.2} %, macro F1 {:.4} {what}; best checkpoint of epoch {}",
        done.accuracy * 100.0,
        done.macro_f1,
        done.best_epoch
    );
    let _ = writeln!(
        text,
        "train: starved {:.0} % (the share of time it waited for a batch)",
        done.starved * 100.0
    );
    text
}

/// Why a run ended before its last epoch.
fn stopped_early(done: &Trained) -> String {
    let stale = done.epochs.last().map_or(0, |metrics| metrics.epochs_without_improvement);
    let (epochs, monitor) = (done.epochs.last().map_or(0, |metrics| metrics.epoch), done.monitor);
    format!("stopped early after epoch {epochs}: validation {monitor} got no better for {stale} epochs")
}

/// What a run came to, as a page of Markdown.
pub fn summary(facts: &RunFacts, done: &Trained) -> String {
    let mut text = String::new();
    // Names are from outside: nothing of them may end a cell or a line.
    let plain = |name: &str| shorten(&name.replace('|', "\\|"), 200);
    let _ = writeln!(text, "# {} on {}\n", facts.model, plain(&facts.source));
    let _ = writeln!(
        text,
        "{:.2} % accuracy and macro F1 {:.4} on the {} split, with the weights of epoch {} of {} (best validation {}).",
        done.accuracy * 100.0,
        done.macro_f1,
        done.split,
        done.best_epoch,
        done.epochs.len(),
        done.monitor
    );
    if done.stopped_early {
        let _ = writeln!(text, "The run was {}.", stopped_early(done));
    }
    let _ = writeln!(text, "\n| class | precision | recall | F1 | support |\n|---|--:|--:|--:|--:|");
    for row in &done.classes {
        let name = plain(&row.class);
        let _ = writeln!(
            text,
            "| {name} | {:.4} | {:.4} | {:.4} | {} |",
            row.precision, row.recall, row.f1, row.support
        );
    }
    let _ = writeln!(
        text,
        "\n| epoch | loss | accuracy | validation loss | validation accuracy | images/s |\n|--:|--:|--:|--:|--:|--:|"
    );
    for metrics in &done.epochs {
        let optional = |value: Option<f64>| value.map_or("-".to_string(), |value| format!("{value:.4}"));
        let _ = writeln!(
            text,
            "| {} | {:.4} | {:.4} | {} | {} | {:.0} |",
            metrics.epoch,
            metrics.train_loss,
            metrics.train_accuracy,
            optional(metrics.validation_loss),
            optional(metrics.validation_accuracy),
            metrics.images_per_second
        );
    }
    text + "\n![loss](loss.svg)\n![accuracy](accuracy.svg)\n![learning rate](learning_rate.svg)\n"
}
