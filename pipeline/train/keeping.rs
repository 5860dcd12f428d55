//! When a run writes a checkpoint, which epoch is its best, and when it has gone on for long enough.

use std::time::Duration;

use crate::options::{Config, Monitor};

/// What makes a checkpoint due within an epoch; one is written at the end of each epoch in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointEvery {
    /// So many steps of the run.
    Steps(u64),
    /// So much time since the last one.
    Time(Duration),
}

/// What is kept of a run and how long it goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Keeping {
    /// When a checkpoint is due within an epoch.
    pub checkpoint_every: CheckpointEvery,
    /// What the best epoch is best in.
    pub monitor: Monitor,
    /// The epochs in a row without an improvement after which the run ends; `None` never.
    pub patience: Option<u32>,
    /// How much better an epoch must be to count as an improvement, in the unit of the monitor.
    pub min_delta: f64,
    /// Steps between two points of the training curves.
    pub log_every: u64,
}

impl Keeping {
    /// Reads the options of a run.
    ///
    /// # Errors
    /// One line per option that cannot be met.
    pub fn resolve(config: &Config) -> Result<Keeping, Vec<String>> {
        let mut problems = Vec::new();
        let text = config.text("train.checkpoint_every").expect("it has a default");
        let checkpoint_every = every(&text).unwrap_or_else(|| {
            problems.push(format!(
                "train.checkpoint_every: \"{text}\" is neither a number of steps such as 500 nor a time such as 90s, 10m or 1h"
            ));
            CheckpointEvery::Steps(1)
        });
        let patience = config.integer("train.early_stop").map(|epochs| epochs as u32);
        let keeping = Keeping {
            checkpoint_every,
            monitor: config.choice("train.monitor"),
            patience,
            min_delta: config.real("train.min_delta"),
            log_every: config.whole("train.log_every"),
        };
        if problems.is_empty() { Ok(keeping) } else { Err(problems) }
    }
}

impl std::fmt::Display for Keeping {
    /// In a line: `a checkpoint after each epoch and every 600 s; best validation accuracy; …`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a checkpoint after each epoch and every ")?;
        match self.checkpoint_every {
            CheckpointEvery::Steps(steps) => write!(f, "{steps} steps")?,
            CheckpointEvery::Time(time) => write!(f, "{} s", time.as_secs())?,
        }
        write!(f, "; the model with the best validation {}", self.monitor)?;
        match self.patience {
            Some(epochs) => {
                write!(f, "; it ends after {epochs} epochs without more than {} better", self.min_delta)
            }
            None => Ok(()),
        }
    }
}

/// A time such as `90s`, `10m` or `1h`; `None` of none.
pub fn time_of(text: &str) -> Option<Duration> {
    match every(text)? {
        CheckpointEvery::Time(time) => Some(time),
        CheckpointEvery::Steps(_) => None,
    }
}

/// Reads `500`, `90s`, `10m` or `1h`; nothing of none of these.
fn every(text: &str) -> Option<CheckpointEvery> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok().filter(|number| (1..=1 << 40).contains(number))?;
    let seconds = match &text[digits..] {
        "" => return Some(CheckpointEvery::Steps(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    Some(CheckpointEvery::Time(Duration::from_secs(number * seconds)))
}

/// The best epoch so far and how long nothing has got better: what of it a checkpoint carries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Best {
    /// The epoch with the best score, counted from 1; 0 before the first.
    pub(super) epoch: u32,
    pub(super) score: f64,
    /// The score that the next improvement is measured from. It moves only by improvements, so that many small
    /// steps add up to one.
    pub(super) reference: f64,
    /// Epochs since the last improvement.
    pub(super) stale: u32,
}

impl Default for Best {
    fn default() -> Best {
        Best { epoch: 0, score: f64::NEG_INFINITY, reference: f64::NEG_INFINITY, stale: 0 }
    }
}

impl Best {
    /// Takes in the score of a finished epoch, counted from 1; a score that is not a number is the worst.
    pub(super) fn after(self, epoch: u32, score: f64, keeping: &Keeping) -> Best {
        let score = if score.is_nan() { f64::NEG_INFINITY } else { score };
        let mut next = self;
        if self.epoch == 0 || score > self.score {
            (next.epoch, next.score) = (epoch, score);
        }
        let improved = self.epoch == 0 || score > self.reference + keeping.min_delta;
        match improved {
            true => (next.reference, next.stale) = (score, 0),
            false => next.stale += 1,
        }
        next
    }

    /// True when nothing has got better for as many epochs as the run has patience for.
    pub(super) fn is_enough(&self, keeping: &Keeping) -> bool {
        keeping.patience.is_some_and(|patience| self.stale >= patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_that_is_written_and_read_is_the_same_number() {
        // A resumed run decides by scores that it reads back: one bit less would be an improvement.
        for n in 1..300u32 {
            for k in 0..=n {
                let score = f64::from(k) / f64::from(n);
                let text = serde_json::to_string(&score).unwrap();
                assert_eq!(serde_json::from_str::<f64>(&text).unwrap().to_bits(), score.to_bits(), "{k}/{n}");
            }
        }
    }

    fn keeping(patience: u32, min_delta: f64) -> Keeping {
        Keeping {
            checkpoint_every: CheckpointEvery::Steps(1),
            monitor: Monitor::Accuracy,
            patience: Some(patience),
            min_delta,
            log_every: 1,
        }
    }

    /// The epoch after which a run with these scores ends, and its best epoch.
    fn ends(scores: &[f64], keeping: &Keeping) -> (Option<u32>, u32) {
        let mut best = Best::default();
        for (epoch, score) in (1..).zip(scores) {
            best = best.after(epoch, *score, keeping);
            if best.is_enough(keeping) {
                return (Some(epoch), best.epoch);
            }
        }
        (None, best.epoch)
    }

    #[test]
    fn a_run_ends_when_nothing_got_better_for_as_long_as_its_patience() {
        assert_eq!(ends(&[0.1, 0.5, 0.4, 0.5, 0.3], &keeping(3, 0.0)), (Some(5), 2));
        assert_eq!(ends(&[0.1, 0.5, 0.4, 0.4, 0.6], &keeping(3, 0.0)), (None, 5));
        assert_eq!(ends(&[f64::NAN, f64::NAN, 0.1], &keeping(1, 0.0)), (Some(2), 1));
    }

    #[test]
    fn small_gains_are_kept_but_end_the_run_unless_they_add_up() {
        assert_eq!(ends(&[0.5, 0.51, 0.52, 0.53], &keeping(2, 0.1)), (Some(3), 3));
        assert_eq!(ends(&[0.5, 0.56, 0.62, 0.68, 0.74], &keeping(2, 0.1)), (None, 5));
    }

    #[test]
    fn steps_and_times_are_read_and_other_words_are_not() {
        assert_eq!(every("500"), Some(CheckpointEvery::Steps(500)));
        for (text, seconds) in [("90s", 90), ("10m", 600), ("2h", 7200)] {
            assert_eq!(every(text), Some(CheckpointEvery::Time(Duration::from_secs(seconds))));
        }
        for text in ["", "0", "m", "10 m", "-1", "1d", "0.5h", "99999999999999999999"] {
            assert_eq!(every(text), None, "{text}");
        }
    }
}
