//! The sections of a search over settings: its best score so far, what matters, and every trial.

use std::fmt::Write as _;

use forebay_datasets::escape;

use super::super::palette::AXIS;
use super::chart::{Chart, ChartLine, Coordinate, Side, parallel};
use super::shell::{bars, head, table};

/// One trial of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialRow {
    /// Counted from 1.
    pub number: u64,
    /// What it set each parameter to, in their order; `None` where it has none, as where another one excludes it.
    pub values: Vec<Option<String>>,
    /// Its score; `None` where it failed or was stopped before it had one.
    pub score: Option<f64>,
    /// How it ended, in words.
    pub end: String,
    /// How long it took.
    pub seconds: f64,
}

/// A search over settings.
#[derive(Clone, Debug, PartialEq)]
pub struct TuningPage<'a> {
    /// What was tuned, and on what.
    pub title: &'a str,
    /// What the search did and found, in a sentence.
    pub lead: &'a str,
    /// What a score is, such as `validation accuracy`.
    pub score_name: &'a str,
    /// Whether a lower score is better.
    pub lower_is_better: bool,
    /// The names of the parameters.
    pub parameters: &'a [String],
    /// Every trial, in the order in which they were begun.
    pub trials: &'a [TrialRow],
    /// Name and share of each parameter in what makes scores differ, from 0 to 1, in any order.
    pub importance: &'a [(String, f64)],
    /// The number of the best trial.
    pub best: Option<u64>,
    /// The command that trains the best one.
    pub best_command: &'a str,
    /// The command that makes the search again.
    pub command: &'a str,
    /// Every setting of the search.
    pub run_file: &'a str,
}

impl TuningPage<'_> {
    /// A score by which more is better.
    fn height(&self, trial: &TrialRow) -> Option<f64> {
        let score = trial.score.filter(|score| score.is_finite())?;
        Some(if self.lower_is_better { -score } else { score })
    }

    /// Scores of trials and the best so far, over the number of the trial.
    pub(super) fn best_so_far(&self) -> String {
        let mut best: Option<f64> = None;
        let (mut line, mut dots) = (Vec::new(), Vec::new());
        for trial in self.trials {
            if let (Some(height), Some(score)) = (self.height(trial), trial.score) {
                dots.push((trial.number as f64, score));
                if best.is_none_or(|best| height > best) {
                    // A step: what was the best until here stays so up to here.
                    let before = best.map(|best| if self.lower_is_better { -best } else { best });
                    line.extend(before.map(|before| (trial.number as f64, before)));
                    best = Some(height);
                }
            }
            if let Some(best) = best {
                line.push((trial.number as f64, if self.lower_is_better { -best } else { best }));
            }
        }
        let (mut low, mut high) = dots
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), dot| (low.min(dot.1), high.max(dot.1)));
        if dots.is_empty() || high - low < 1e-9 {
            (low, high) = match dots.first() {
                Some((_, score)) => (score - 0.5, score + 0.5),
                None => (0.0, 1.0),
            };
        }
        let room = 0.04 * (high - low);
        let last = self.trials.last().map_or(1.0, |trial| trial.number as f64);
        let lines = vec![
            ChartLine {
                name: Some("a trial".to_string()),
                color: AXIS,
                dots: true,
                ..ChartLine::reference(dots)
            },
            ChartLine::named("best so far".to_string(), 0, line),
        ];
        Chart {
            title: "Score over trials",
            x: Side { name: "trial", low: 0.0, high: last.max(1.0) },
            y: Side { name: "score", low: low - room, high: high + room },
            boxes: Vec::new(),
            lines,
        }
        .svg()
    }

    /// Every trial as a line through its values.
    pub(super) fn parallel(&self) -> String {
        let scores: Vec<Option<f64>> = self.trials.iter().map(|trial| self.height(trial)).collect();
        let mut axes: Vec<(String, Vec<Option<Coordinate>>)> = self
            .parameters
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let value = |trial: &TrialRow| Some(Coordinate::of(trial.values.get(index)?.as_ref()?));
                (name.clone(), self.trials.iter().map(value).collect())
            })
            .collect();
        let score = |trial: &TrialRow| trial.score.filter(|score| score.is_finite()).map(Coordinate::Number);
        axes.push((self.score_name.to_string(), self.trials.iter().map(score).collect()));
        parallel("Every trial through its values; the best is orange", &axes, &scores)
    }

    /// What matters, as bars.
    pub(super) fn importance(&self) -> String {
        if self.importance.is_empty() {
            return "<p>Too few trials to say what matters.</p>\n".to_string();
        }
        let mut sorted: Vec<&(String, f64)> = self.importance.iter().collect();
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
        let most = sorted[0].1.max(f64::MIN_POSITIVE);
        let rows: Vec<(String, f64, String)> = sorted
            .into_iter()
            .map(|(name, share)| (name.clone(), share / most, format!("{:.1} %", share * 100.0)))
            .collect();
        "<p class=\"muted\">How differently the best tenth of the trials lies along each parameter than all of them, as a share of \
         all (PED-ANOVA); what only two parameters together decide is not seen.</p>\n"
            .to_string()
            + &bars("Importance of parameters", &rows)
    }

    /// A row per trial.
    pub(super) fn table(&self) -> String {
        let mut names = vec!["trial", self.score_name];
        names.extend(self.parameters.iter().map(String::as_str));
        names.extend(["seconds", "end"]);
        let mut rows = String::new();
        for trial in self.trials {
            let mark = if self.best == Some(trial.number) { " ★" } else { "" };
            let score = trial.score.map_or(String::new(), |score| format!("{score:.5}"));
            let _ = write!(
                rows,
                "<tr><td data-v=\"{0}\">{0}{mark}</td><td data-v=\"{score}\">{score}</td>",
                trial.number
            );
            for value in &trial.values {
                let _ = write!(rows, "<td>{}</td>", escape::html(value.as_deref().unwrap_or("–")));
            }
            let _ = writeln!(rows, "<td>{:.1}</td><td>{}</td></tr>", trial.seconds, escape::html(&trial.end));
        }
        let caption = format!("{} trials; ★ is the best", self.trials.len());
        let table = table(&caption, "sort", &head(&names), &rows);
        format!("<div class=\"tall\" tabindex=\"0\">\n{table}</div>\n")
    }
}
