//! Tables and bar charts for a terminal.

use std::fmt::Write as _;
use std::io::IsTerminal;

use forebay_datasets::escape;
use forebay_datasets::sample::Split;
use forebay_datasets::shard::Reject;
use forebay_train::metrics::{Confusion, Evaluation, classification_report};

use super::bar::{COLUMNS, Standing, Unit, columns};
use super::html;
use super::progress::{Phase, Snapshot};
use super::run::{EpochMetrics, RunFacts, Trained};
use crate::plan::shorten;

/// The most width of a name in a table, characters; in a narrow terminal it is less, and at least the second.
const NAME_MAX: usize = 32;
const NAME_MIN: usize = 8;

/// Rows of a list before it is cut short.
const ROWS_MAX: usize = 40;

/// The longest name of a figure.
const ALL_FIGURES_WIDTH: usize = 26;

/// Where a training run stands; `starved` is the share of time in which it waited for the feed.
pub fn training(seen: &Snapshot, epochs: u32, steps_per_epoch: u64, starved: f64) -> Standing {
    let (per_second, fields) = match seen.phase {
        Phase::Training => (
            seen.steps_per_second,
            vec![
                format!("loss {:.4}", seen.loss),
                format!("accuracy {:.1} %", seen.accuracy * 100.0),
                seen.speed.to_string(),
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

/// Columns that a table may take where results are read: those of the terminal, or the usual ones in a file.
pub fn room() -> usize {
    match std::io::stdout().is_terminal() {
        true => columns(),
        false => COLUMNS,
    }
}

/// How wide the column of these names is where the others of the table take `others`.
fn name_width<'a>(names: impl Iterator<Item = &'a str>, others: usize, room: usize) -> usize {
    let longest = names.map(|name| escape::printable(name).chars().count()).max().unwrap_or(0);
    longest.min(NAME_MAX).min(room.saturating_sub(others).max(NAME_MIN))
}

pub(crate) fn reject_lines(rejects: &[Reject]) -> String {
    let mut text = String::new();
    for Reject { id, stage, reason } in rejects.iter().take(ROWS_MAX) {
        let _ = writeln!(text, "  {}: {stage}: {}", escape::printable(id), escape::printable(reason));
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

/// One line per epoch, in a terminal as much of it as has room.
pub fn epoch(metrics: &EpochMetrics, epochs: u32) -> String {
    let room = std::io::stdout().is_terminal().then(columns);
    epoch_within(metrics, epochs, room.unwrap_or(usize::MAX)) + "\n"
}

fn epoch_within(metrics: &EpochMetrics, epochs: u32, room: usize) -> String {
    let which = format!("epoch {:>3}/{epochs}", metrics.epoch);
    let percent = |share: f64| format!("{:5.2} %", share * 100.0);
    let (loss, accuracy) = (metrics.train_loss, percent(metrics.train_accuracy));
    let (whole, short, least) = match (metrics.validation_loss, metrics.validation_accuracy) {
        (Some(loss), Some(share)) => {
            let accuracy = percent(share);
            let short = format!("validation loss {loss:.4}, {accuracy}");
            (
                format!("validation loss {loss:.4}, accuracy {accuracy}"),
                short,
                format!("validation {accuracy}"),
            )
        }
        _ => ["no validation"; 3].map(String::from).into(),
    };
    let training = format!("loss {loss:.4}, accuracy {accuracy}");
    let lines = [
        format!("{which}  {training}  {whole}  {}", metrics.speed),
        format!("{which}  loss {loss:.4}, {accuracy}  {short}  {}", metrics.speed),
        format!("{which}  loss {loss:.4}, {accuracy}  {short}"),
        format!("{which}  loss {loss:.4}, {accuracy}  {least}"),
    ];
    let fit = lines.iter().position(|line| line.chars().count() <= room);
    lines.into_iter().nth(fit.unwrap_or(3)).expect("there are four")
}

/// The per-class table and the confusion matrix.
pub fn trained(done: &Trained) -> String {
    let mut text = String::new();
    let names: Vec<&str> = done.classes.iter().map(|row| row.class.as_str()).collect();
    let room = room();
    let width = name_width(names.iter().copied(), 4 * 10, room);
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
    let cell = done.confusion.iter().flatten().max().map_or(1, |most| most.to_string().len()).max(3);
    if done.classes.len() <= 16 && NAME_MIN + done.classes.len() * (cell + 1) <= room {
        let width = name_width(names.iter().copied(), names.len() * (cell + 1), room);
        let _ = writeln!(
            text,
            "\nconfusion matrix: rows are true classes,\ncolumns predictions in the same order"
        );
        for (name, row) in names.iter().zip(&done.confusion) {
            let cells: Vec<String> = row.iter().map(|n| format!("{n:>cell$}")).collect();
            let _ = writeln!(text, "{:>width$} {}", shorten(name, width), cells.join(" "));
        }
    }
    if done.stopped_early {
        let _ = writeln!(text, "\n{}", stopped_early(done));
    }
    let what = match (done.split, done.test_openings) {
        (Split::Test, Some(openings)) if openings > 1 => {
            format!("on test images that training never saw, looked at for the {} time", ordinal(openings))
        }
        (Split::Test, _) => "on test images that training never saw".to_string(),
        (Split::Validation, _) => "on validation images, by which its epoch was chosen".to_string(),
        (Split::Train, _) => "on the training images themselves (there is no other split)".to_string(),
    };
    let percent = |share: f64| format!("{:.2} %", share * 100.0);
    let _ = writeln!(
        text,
        "\naccuracy {}{}, macro F1 {:.4} {what}; best checkpoint of epoch {}",
        percent(done.accuracy),
        done.accuracy_interval
            .map(|(low, high)| format!(" (95 % interval {} to {})", percent(low), percent(high)))
            .unwrap_or_default(),
        done.macro_f1,
        done.best_epoch
    );
    let most = done.classes.iter().max_by_key(|row| row.support).filter(|_| done.majority.is_some());
    if let (Some(most), Some(majority)) = (most, done.majority) {
        let _ = writeln!(text, "always answering {} would get {}", most.class, percent(majority));
    }
    if let Some(temperature) = done.temperature.filter(|temperature| *temperature != 1.0) {
        let _ = writeln!(
            text,
            "probabilities are calibrated on the validation images: temperature {temperature:.3}, kept in the model"
        );
    }
    let _ = writeln!(
        text,
        "train: starved {:.0} % (the share of time it waited for a batch)",
        done.starved * 100.0
    );
    text
}

/// `2nd`, `3rd`, `11th`.
pub fn ordinal(number: u64) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// Pairs of classes that are confused most, of which so many are named.
const PAIRS_MAX: usize = 10;

/// Every figure of an evaluation with its interval beside what it would be without skill, scikit-learn's table of the
/// classes, and the pairs of classes that are confused most.
pub fn evaluation(found: &Evaluation) -> String {
    let width = ALL_FIGURES_WIDTH;
    let mut text = format!("{:<width$} {:>9}  {:<20} {:>13}\n", "", "value", "interval", "without skill");
    for (name, figure, reads) in html::all_figures(found) {
        let baseline = figure.baseline.map_or("-".to_string(), |value| reads.value(value));
        let _ = writeln!(
            text,
            "{name:<width$} {:>9}  {:<20} {baseline:>13}",
            reads.value(figure.value),
            reads.interval(&figure)
        );
    }
    let _ = writeln!(
        text,
        "\n{} images; {} intervals; always \"{}\" would be right on {:.2} %; probabilities at temperature {:.4}\n",
        found.samples,
        html::level(found),
        shorten(&found.majority.class, NAME_MAX),
        found.majority.accuracy * 100.0,
        found.temperature
    );
    if found.classes.len() <= ROWS_MAX {
        let names: Vec<String> = found.classes.iter().map(|class| shorten(class, NAME_MAX)).collect();
        text += &classification_report(&Confusion::from_rows(&found.confusion), &names);
    } else {
        let _ = writeln!(text, "the table of {} classes is in report.html (--out DIR)", found.classes.len());
    }
    let pairs = html::confused(found);
    if !pairs.is_empty() {
        text += "\nconfused most: true class, prediction\n";
    }
    for (truth, prediction, count) in pairs.iter().take(PAIRS_MAX) {
        let total: u64 = found.confusion[*truth].iter().sum();
        let [truth, prediction] = [truth, prediction].map(|class| shorten(&found.classes[*class], NAME_MAX));
        let _ = writeln!(text, "  {count:>6} of {total:<7} {truth} -> {prediction}");
    }
    text
}

/// Why a run ended before its last epoch.
fn stopped_early(done: &Trained) -> String {
    let stale = done.epochs.last().map_or(0, |metrics| metrics.epochs_without_improvement);
    let (epochs, monitor) = (done.epochs.last().map_or(0, |metrics| metrics.epoch), done.monitor);
    format!("stopped early after epoch {epochs}: validation {monitor} did not improve for {stale} epochs")
}

/// What a run came to, as a page of Markdown.
pub fn summary(facts: &RunFacts, done: &Trained) -> String {
    let mut text = String::new();
    let plain = |name: &str| escape::markdown(&shorten(name, 200));
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
        "\n| epoch | loss | accuracy | validation loss | validation accuracy | speed |\n|--:|--:|--:|--:|--:|--:|"
    );
    for metrics in &done.epochs {
        let optional = |value: Option<f64>| value.map_or("-".to_string(), |value| format!("{value:.4}"));
        let _ = writeln!(
            text,
            "| {} | {:.4} | {:.4} | {} | {} | {} |",
            metrics.epoch,
            metrics.train_loss,
            metrics.train_accuracy,
            optional(metrics.validation_loss),
            optional(metrics.validation_accuracy),
            metrics.speed
        );
    }
    text + "\n![loss](loss.svg)\n![accuracy](accuracy.svg)\n![learning rate](learning_rate.svg)\n"
}

#[cfg(test)]
mod tests {
    use super::super::run::Speed;
    use super::*;

    #[test]
    fn no_table_is_wider_than_its_terminal() {
        let metrics = EpochMetrics {
            epoch: 100,
            steps: 10_000,
            learning_rate: 1e-3,
            train_loss: 12.3456,
            train_accuracy: 1.0,
            validation_loss: Some(12.3456),
            validation_accuracy: Some(1.0),
            validation_macro_f1: None,
            epochs_without_improvement: 0,
            seconds: 1.0,
            speed: Speed::Images(12_345.0),
        };
        for room in [60, 80, 200] {
            let line = epoch_within(&metrics, 100, room);
            assert!(line.chars().count() <= room && line.contains("100.00 %"), "{room}: {line}");
        }
        let whole = epoch_within(&metrics, 100, usize::MAX);
        assert!(whole.ends_with("validation loss 12.3456, accuracy 100.00 %  12345 images/s"), "{whole}");
    }
}
