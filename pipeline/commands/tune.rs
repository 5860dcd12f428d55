//! `forebay tune`: many trainings, and the settings of the best.

use std::fmt::Write as _;

use forebay_datasets::escape::{printable, shell};
use serde_json::Value;

use crate::flow::{Error, Run};
use crate::options::{Invocation, Monitor};
use crate::report::{Bar, Standing, Unit, note, say, say_json, tell};
use crate::trials::search::{
    EndedBy, Outcome, TrialResult, Tuned, end_in_words, setting_in_words, tune_files,
};
use crate::trials::tune::{Told, tune};

/// Options that are shown of the importances.
const IMPORTANT: usize = 5;

/// Runs the command.
///
/// # Errors
/// The first error of the run.
pub async fn run(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let mut table = Table::default();
    let mut told = |told: Told<'_>| {
        let text = table.tell(told);
        // Trials are results of a search that is watched, and progress of one that is read by a program.
        if asked.json { tell(&text) } else { say(&text) }
    };
    let done = tune(run, &asked.config, &mut told).await;
    drop(table);
    let done = done.inspect_err(|error| {
        if matches!(error, Error::Interrupted(_)) {
            note("what was found so far is written; the same command goes on with --resume");
        }
    })?;
    match asked.json {
        true => say_json(&done),
        false => say(&summary(&done)),
    }
    Ok(())
}

/// The table of trials while it grows.
#[derive(Default)]
struct Table {
    bar: Option<Bar>,
    monitor: Option<Monitor>,
    trials: u64,
    done: u64,
    best: Option<f64>,
}

impl Table {
    /// The lines that are added.
    fn tell(&mut self, told: Told<'_>) -> String {
        match told {
            Told::Begin { space, done, monitor, trials } => {
                (self.monitor, self.trials, self.done) = (Some(monitor), trials, done.len() as u64);
                self.bar = Some(Bar::begin("tuning", trials, Unit::Trials).from(self.done));
                let mut text = format!("searched, by validation {monitor}:\n{space}\n");
                text += &format!(
                    "{:>6}  {:>9} {:>7} {:>8}  settings\n",
                    "trial",
                    monitor.to_string(),
                    "epochs",
                    "time"
                );
                for result in done {
                    let is_best = self.is_better(result);
                    text += &row(result, monitor, is_best);
                }
                text
            }
            Told::Epoch { trial, epoch, epochs, score } => {
                if let (Some(bar), Some(monitor)) = (&self.bar, self.monitor) {
                    let mut fields = vec![format!("epoch {epoch}/{epochs}"), shown(monitor, score)];
                    fields.extend(self.best.map(|best| format!("best {}", shown(monitor, Some(best)))));
                    bar.show(&Standing {
                        what: format!("trial {trial}"),
                        done: self.done,
                        total: self.trials,
                        unit: Unit::Trials,
                        per_second: 0.0,
                        fields,
                    });
                }
                String::new()
            }
            Told::Ended { result, is_best } => {
                self.done += 1;
                self.is_better(result);
                row(result, self.monitor.unwrap_or(Monitor::Accuracy), is_best)
            }
        }
    }

    fn is_better(&mut self, result: &TrialResult) -> bool {
        let score = result.ended.score.filter(|_| result.ended.outcome == Outcome::Done);
        let is_better = score > self.best;
        if is_better {
            self.best = score;
        }
        is_better
    }
}

/// A score as people know it.
fn shown(monitor: Monitor, score: Option<f64>) -> String {
    match (monitor, score) {
        (_, None) => "-".to_string(),
        (Monitor::Accuracy, Some(score)) => format!("{:.2} %", score * 100.0),
        (Monitor::Loss, Some(score)) => format!("{:.4}", -score),
        (Monitor::MacroF1, Some(score)) => format!("{score:.4}"),
    }
}

/// The settings in a line, without the table that their options are in.
fn settings(result: &TrialResult) -> String {
    let one = |(key, value): (&String, &Value)| {
        let name = key.rsplit('.').next().unwrap_or(key);
        let name = if name == "mode" { key.as_str() } else { name };
        format!("{name} {}", setting_in_words(Some(value)))
    };
    result.settings.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn row(result: &TrialResult, monitor: Monitor, is_best: bool) -> String {
    let ended = &result.ended;
    let mark = if is_best { "*" } else { " " };
    let (score, time) = (shown(monitor, ended.score), format!("{:.1} s", ended.seconds));
    let end = end_in_words(ended);
    let end = if end.is_empty() { end } else { format!("; {}", printable(&end)) };
    format!(
        "{mark}{:>5}  {score:>9} {:>7} {time:>8}  {}{end}\n",
        result.trial,
        ended.epochs,
        printable(&settings(result))
    )
}

fn summary(done: &Tuned) -> String {
    let count = |outcome| done.trials.iter().filter(|trial| trial.ended.outcome == outcome).count();
    let why = match done.ended_by {
        EndedBy::Trials => "all trials are done",
        EndedBy::Budget => "the time is over; more --budget and --resume go on",
        EndedBy::Exhausted => "every combination was tried",
        EndedBy::Interrupt => "interrupted",
    };
    let mut text = format!(
        "\n{} trials in {:.0} s, {} ended early, {} failed: {why}\n",
        done.trials.len(),
        done.seconds,
        count(Outcome::Pruned),
        count(Outcome::Failed)
    );
    if let Some(best) = done.best.and_then(|best| done.trials.iter().find(|trial| trial.trial == best)) {
        let _ = writeln!(
            text,
            "best: trial {}, {} {}\n  {}",
            best.trial,
            done.monitor,
            shown(done.monitor, best.ended.score),
            printable(&settings(best))
        );
    }
    let mut important: Vec<(&String, &f64)> = done.importance.iter().collect();
    important.sort_by(|a, b| b.1.total_cmp(a.1));
    if !important.is_empty() {
        let shares =
            important.iter().take(IMPORTANT).map(|(key, share)| format!("{key} {:.0} %", *share * 100.0));
        let _ = writeln!(text, "what mattered most: {}", shares.collect::<Vec<_>>().join(", "));
    }
    let (place, best) = (printable(&done.output), format!("{}/{}", done.output, tune_files::BEST));
    let best = shell(&best);
    let _ = writeln!(
        text,
        "the best of many trials on the same validation images flatters itself: look at the test images once, in the end\n\
         written to {place}: {}, {}, {}, {}\n\
         next: forebay train --config {best} --out RUN\n      forebay eval RUN --final",
        tune_files::REPORT,
        tune_files::BEST,
        tune_files::TRIALS,
        tune_files::SUMMARY,
    );
    text
}
