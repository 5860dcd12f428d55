//! One line for every job that takes a while: what is done of it, how long it will still take, how it goes. On a terminal
//! it is drawn over and over; elsewhere it is written once a minute.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::HumanCount;

use super::reporter::{OnScreen, tell, voice};
use crate::options::{Level, bytes_in_words};

/// How often a job says where it stands where nobody looks at a terminal.
const PACE: Duration = Duration::from_secs(60);

/// Columns of a terminal that does not tell how many it has.
pub(super) const COLUMNS: usize = 80;

/// The least and the most columns of the bar itself.
const BAR: std::ops::RangeInclusive<usize> = 6..=40;

/// Columns that stay free at the end of the line: a terminal echoes `^C` there, and what wraps is not cleared.
const INTERRUPT: usize = 2;

/// How many fields are worth more than the bar.
const FIELDS_BEFORE_BAR: usize = 2;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Images that pass.
    Images,
    /// Steps of training.
    Steps,
    /// Bytes that come.
    Bytes,
    /// Trials of a search.
    Trials,
}

impl Unit {
    fn count(self, done: u64, total: u64) -> String {
        let of = |number: fn(u64) -> String| match total {
            0 => number(done),
            total => format!("{}/{}", number(done), number(total)),
        };
        match self {
            Unit::Images => of(|n| HumanCount(n).to_string()) + " images",
            Unit::Steps => of(|n| HumanCount(n).to_string()) + " steps",
            Unit::Bytes => of(bytes_in_words),
            Unit::Trials => of(|n| HumanCount(n).to_string()) + " trials",
        }
    }

    fn rate(self, per_second: f64) -> String {
        match self {
            Unit::Images => format!("{per_second:.0} images/s"),
            Unit::Steps => format!("{per_second:.1} steps/s"),
            Unit::Trials => format!("{per_second:.2} trials/s"),
            Unit::Bytes => format!("{}/s", bytes_in_words(per_second as u64)),
        }
    }
}

/// Where a job stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// What is done, such as `prepare` or `epoch 3/10`.
    pub what: String,
    /// How much of it is done.
    pub done: u64,
    /// How much there is; 0 where nobody knows.
    pub total: u64,
    /// Of what.
    pub unit: Unit,
    /// How much of it a second; 0 where it does not go on.
    pub per_second: f64,
    /// How it goes, the most important first.
    pub fields: Vec<String>,
}

impl Standing {
    /// All of it, of which a line shows as much as has room.
    fn parts(&self) -> (Vec<String>, usize) {
        let mut parts = vec![self.what.clone(), self.unit.count(self.done, self.total)];
        let left = self.total.saturating_sub(self.done) as f64 / self.per_second;
        if self.total > 0 && left.is_finite() {
            parts.push(format!("{} left", clock(left)));
        }
        let fields_from = parts.len();
        parts.extend(self.fields.iter().cloned());
        (parts, fields_from)
    }

    /// In less than `columns` characters: fields drop out from the least important one, and the bar takes what is left.
    pub(super) fn line(&self, columns: usize) -> String {
        let (parts, fields_from) = self.parts();
        let room = columns.saturating_sub(1);
        let (mut used, mut bar) = (0, 0);
        let mut kept: Vec<&str> = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            if index == fields_from + FIELDS_BEFORE_BAR {
                bar = self.bar_columns(room, used);
                used += bar;
            }
            let columns = part.chars().count() + if index == 0 { 0 } else { 2 };
            if used + columns > room {
                break;
            }
            used += columns;
            kept.push(part);
        }
        if bar == 0 {
            bar = self.bar_columns(room, used);
            used += bar;
        }
        if bar > 0 {
            // What no field took, up to the most.
            bar += (room - used).min(BAR.end() - (bar - 2));
        }
        let mut line = kept.join("  ");
        if bar > 0 {
            let cells = bar - 2;
            let filled = (self.done.min(self.total) as f64 / self.total as f64 * cells as f64) as usize;
            let bar = format!("  {}{}", "━".repeat(filled), "─".repeat(cells - filled));
            line.insert_str(kept[0].len(), &bar);
        }
        if line.is_empty() {
            line = self.what.chars().take(room).collect();
        }
        line
    }

    /// What the bar takes at least, with the space before it; nothing where it has no room or no end.
    fn bar_columns(&self, room: usize, used: usize) -> usize {
        match self.total > 0 && used > 0 && used + 2 + BAR.start() <= room {
            true => 2 + BAR.start(),
            false => 0,
        }
    }
}

/// Says where a job stands until it is dropped.
#[derive(Debug)]
pub struct Bar {
    /// What was done before it began.
    from: u64,
    screen: Option<OnScreen>,
    job: Standing,
    began: Instant,
    pace: Mutex<Instant>,
}

impl Bar {
    /// Begins to say where a job of `total` (0 where nobody knows) stands.
    pub fn begin(what: &str, total: u64, unit: Unit) -> Bar {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let is_drawn = std::io::stderr().is_terminal() && !is_dumb && voice().level > Level::Quiet;
        let screen = is_drawn.then(OnScreen::show);
        let job =
            Standing { what: what.to_string(), done: 0, total, unit, per_second: 0.0, fields: Vec::new() };
        Bar { screen, job, from: 0, began: Instant::now(), pace: Mutex::new(Instant::now()) }
    }

    /// So much was done before it began, and says nothing of how fast it goes.
    pub fn from(self, done: u64) -> Bar {
        Bar { from: done, ..self }
    }

    /// So much of the job is done.
    pub fn at(&self, done: u64) {
        let per_second = done.saturating_sub(self.from) as f64 / self.began.elapsed().as_secs_f64().max(1e-3);
        let fields = vec![self.job.unit.rate(per_second)];
        self.show(&Standing { done, per_second, fields, ..self.job.clone() });
    }

    /// The job stands so.
    pub fn show(&self, standing: &Standing) {
        match &self.screen {
            Some(screen) => screen.draw(standing.line(columns().saturating_sub(INTERRUPT))),
            None if is_due(&mut self.pace.lock().expect("no panic under the lock"), Instant::now()) => {
                tell(&(standing.parts().0.join("  ") + "\n"));
            }
            None => {}
        }
    }
}

/// Whether a minute has passed since the last time.
fn is_due(last: &mut Instant, now: Instant) -> bool {
    let is_due = now.duration_since(*last) >= PACE;
    if is_due {
        *last = now;
    }
    is_due
}

/// Columns of the terminal.
pub(super) fn columns() -> usize {
    match ratatui::crossterm::terminal::size() {
        Ok((columns, _)) if columns > 0 => columns.into(),
        _ => COLUMNS,
    }
}

/// Seconds as a clock shows them: `0:07`, `12:30`, `3:05:00`.
pub(super) fn clock(seconds: f64) -> String {
    let seconds = seconds.clamp(0.0, 3.6e8) as u64;
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn training() -> Standing {
        Standing {
            what: "epoch 12/100".into(),
            done: 250,
            total: 1000,
            unit: Unit::Steps,
            per_second: 2.0,
            fields: ["loss 0.1234", "accuracy 91.2 %", "320 images/s", "starved 3 %", "lr 1.00e-3"]
                .map(String::from)
                .into(),
        }
    }

    #[test]
    fn a_line_never_wraps_and_the_least_important_fields_go_first() {
        for columns in 0..=220 {
            let line = training().line(columns);
            assert!(line.chars().count() < columns.max(1), "{columns}: {line}");
            // What is there is a beginning of the list of fields.
            let shown: Vec<bool> = training().fields.iter().map(|field| line.contains(field)).collect();
            assert!(shown.is_sorted_by(|a, b| a >= b), "{columns}: {line}");
        }
        assert_eq!(training().line(60), "epoch 12/100  250/1,000 steps  6:15 left  loss 0.1234");
        let line = training().line(80);
        assert_eq!(line, "epoch 12/100  ━──────  250/1,000 steps  6:15 left  loss 0.1234  accuracy 91.2 %");
        let wide = training().line(200);
        assert_eq!(wide.matches(['━', '─']).count(), *BAR.end(), "{wide}");
        assert!(wide.contains("lr 1.00e-3") && wide.matches('━').count() == BAR.end() / 4, "{wide}");
    }

    #[test]
    fn a_job_without_an_end_has_no_bar_and_one_that_stands_no_time_left() {
        let job = Standing { total: 0, unit: Unit::Images, ..training() };
        assert!(job.line(200).starts_with("epoch 12/100  250 images  loss"), "{}", job.line(200));
        assert!(!Standing { per_second: 0.0, ..training() }.line(200).contains("left"));
    }

    #[test]
    fn where_there_is_no_terminal_a_line_is_due_once_a_minute() {
        let began = Instant::now();
        let mut last = began;
        let due: Vec<u64> =
            (0..=300).filter(|seconds| is_due(&mut last, began + Duration::from_secs(*seconds))).collect();
        assert_eq!(due, [60, 120, 180, 240, 300]);
    }
}
