//! What a search came to, for programs and for people.

use std::collections::BTreeMap;

use forebay_datasets::escape::shell;
use serde::Serialize;

use super::journal::{Ended, Outcome, TrialRecord};
use super::space::Space;
use crate::options::Monitor;
use crate::report::html::{self, TrialRow, TuningPage};

/// Names of what a search leaves in its folder beside the journal.
pub mod tune_files {
    /// Every trial, a row each.
    pub const TRIALS: &str = "trials.csv";
    /// The run file of the best trial.
    pub const BEST: &str = "best.toml";
    /// All that was found, for programs.
    pub const SUMMARY: &str = "tune.json";
    /// The run file of the search.
    pub const CONFIG: &str = "tune.toml";
    /// All that was found, for people.
    pub const REPORT: &str = "report.html";
}

/// What a search came to.
#[derive(Clone, Debug, Serialize)]
pub struct Tuned {
    /// Its folder.
    pub output: String,
    /// Where the images are.
    pub source: String,
    /// How settings were chosen.
    pub search: String,
    /// Which trials were ended early.
    pub prune: String,
    /// What trials are compared by.
    pub monitor: Monitor,
    /// What was searched, by key.
    pub space: serde_json::Map<String, serde_json::Value>,
    /// Every trial that has ended, in order.
    pub trials: Vec<TrialResult>,
    /// The number of the best of those that trained to their end.
    pub best: Option<u32>,
    /// The best score after each trial, the higher the better; `None` before there is one.
    pub best_so_far: Vec<Option<f64>>,
    /// How much each option mattered, 1 together, by key; empty where there are too few trials.
    pub importance: BTreeMap<String, f64>,
    /// Why it ended.
    pub ended_by: EndedBy,
    /// Seconds of training.
    pub seconds: f64,
}

/// A trial that has ended.
#[derive(Clone, Debug, Serialize)]
pub struct TrialResult {
    /// Its number, counted from 1.
    pub trial: u32,
    /// Its settings, by key; null leaves an option out.
    pub settings: BTreeMap<String, serde_json::Value>,
    /// Its coordinates in the space, each from 0 to 1, in the order of the keys.
    pub point: Vec<f64>,
    /// How it ended.
    #[serde(flatten)]
    pub ended: Ended,
}

impl TrialResult {
    /// That of a trial of a journal; `None` while it is under way.
    pub fn of(record: &TrialRecord) -> Option<TrialResult> {
        let TrialRecord { trial, point, settings, ended, .. } = record;
        let (settings, point) = (settings.clone(), point.clone());
        Some(TrialResult { trial: *trial, settings, point, ended: ended.clone()? })
    }
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndedBy {
    /// All trials were done.
    Trials,
    /// Its time was over.
    Budget,
    /// There is no other combination.
    Exhausted,
    /// The user or the system stopped it.
    Interrupt,
}

/// The best of the trials that trained to their end, the first among equals.
pub fn best_of<'a>(results: impl Iterator<Item = &'a TrialResult>) -> Option<&'a TrialResult> {
    let done = results.filter(|result| result.ended.outcome == Outcome::Done && result.ended.score.is_some());
    done.reduce(|best, other| if other.ended.score > best.ended.score { other } else { best })
}

/// The trials as a table for other programs.
pub(in crate::trials) fn csv(space: &Space, tuned: &Tuned) -> String {
    let quoted = |text: &str| match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_string(),
    };
    let keys: Vec<&str> = space.dimensions.iter().map(|dimension| dimension.row.key).collect();
    let mut text = format!("trial,outcome,score,best_epoch,epochs,seconds,{},reason\n", keys.join(","));
    for TrialResult { trial, settings, ended, .. } in &tuned.trials {
        let outcome = serde_json::to_value(ended.outcome).expect("plain data");
        let mut cells = vec![
            trial.to_string(),
            outcome.as_str().unwrap_or_default().to_string(),
            ended.score.map_or(String::new(), |score| score.to_string()),
            ended.best_epoch.to_string(),
            ended.epochs.to_string(),
            format!("{:.3}", ended.seconds),
        ];
        cells.extend(keys.iter().map(|key| setting_in_words(settings.get(*key))));
        cells.push(ended.reason.clone().unwrap_or_default());
        let cells: Vec<String> = cells.iter().map(|cell| quoted(cell)).collect();
        text += &(cells.join(",") + "\n");
    }
    text
}

/// A setting as it stands in a table; empty where it had no effect.
pub fn setting_in_words(value: Option<&serde_json::Value>) -> String {
    match value {
        None => String::new(),
        Some(serde_json::Value::Null) => "unset".to_string(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

/// The report of a search, and its plots as files: name and content. `run_file` is that of the search.
pub(in crate::trials) fn pages(
    space: &Space,
    tuned: &Tuned,
    run_file: &str,
    bytes: u64,
) -> (Vec<(&'static str, String)>, Option<String>) {
    let parameters: Vec<String> =
        space.dimensions.iter().map(|dimension| dimension.row.key.to_string()).collect();
    let lower_is_better = tuned.monitor == Monitor::Loss;
    let row = |trial: &TrialResult| {
        let value = |key: &String| trial.settings.get(key).map(|value| setting_in_words(Some(value)));
        TrialRow {
            number: trial.trial.into(),
            values: parameters.iter().map(value).collect(),
            score: trial.ended.score.map(|score| if lower_is_better { -score } else { score }),
            end: end_in_words(&trial.ended),
            seconds: trial.ended.seconds,
        }
    };
    let trials: Vec<TrialRow> = tuned.trials.iter().map(row).collect();
    let importance: Vec<(String, f64)> =
        tuned.importance.iter().map(|(key, share)| (key.clone(), *share)).collect();
    let place = tuned.output.trim_end_matches('/');
    let best_command = match tuned.best {
        Some(_) => {
            format!("forebay train --config {} --out RUN", shell(&format!("{place}/{}", tune_files::BEST)))
        }
        None => String::new(),
    };
    let title = format!("Search on {}", tuned.source);
    let lead = format!(
        "{} trials in {:.0} s of training, chosen by {}; the score is the best validation {} of an epoch. The best of many trials \
         on the same images flatters itself: it is the test, looked at once, that says how good it is.",
        tuned.trials.len(),
        tuned.seconds,
        tuned.search,
        tuned.monitor
    );
    let page = TuningPage {
        title: &title,
        lead: &lead,
        score_name: &format!("validation {}", tuned.monitor),
        lower_is_better,
        parameters: &parameters,
        trials: &trials,
        importance: &importance,
        best: tuned.best.map(u64::from),
        best_command: &best_command,
        command: &format!(
            "forebay tune --config {} --out {}",
            shell(&format!("{place}/{}", tune_files::CONFIG)),
            shell(&format!("{place}-again"))
        ),
        run_file,
    };
    let report = html::tuning(&page, bytes);
    let mut files = vec![(tune_files::REPORT, report.html)];
    files.extend(html::tuning_plots(&page));
    (files, report.note)
}

/// How a trial ended, in words; empty where it trained to its end.
pub fn end_in_words(ended: &Ended) -> String {
    match (ended.outcome, &ended.reason, ended.same_as) {
        (Outcome::Failed, Some(reason), _) => format!("failed: {reason}"),
        (Outcome::Failed, None, _) => "failed".to_string(),
        (_, _, Some(other)) => format!("as trial {other}"),
        (Outcome::Pruned, ..) => "ended early".to_string(),
        (Outcome::Done, ..) => String::new(),
    }
}
