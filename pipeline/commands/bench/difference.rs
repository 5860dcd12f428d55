//! Two benches of the same work: whether one is faster than the other, or whether they differ by no more than repetitions
//! of one of them do.

use serde::{Deserialize, Serialize};

use super::measure::{Measure, Measures};
use super::workload::{Machine, Workload};
use crate::flow::Error;
use crate::options::{Config, SPREAD_REPETITIONS_MIN};
use crate::plan::listed_file;

/// What a bench said earlier, as far as it is compared.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Earlier {
    /// Where it stands.
    #[serde(skip)]
    place: String,
    workload: Workload,
    machine: Machine,
    threads: usize,
    figures: Measures,
    repetitions: Vec<serde_json::Value>,
}

/// What became of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Before.
    pub before: f64,
    /// Now.
    pub now: f64,
    /// By how much of what it was it has grown, in percent.
    pub percent: f64,
    /// How far repetitions lie around their medians, those of both benches together, in percent of what it was.
    pub spread_percent: f64,
    /// Whether the difference is larger.
    pub is_beyond_spread: bool,
}

impl Difference {
    /// That of a figure from a bench to a later one.
    pub fn of(before: Measure, now: Measure) -> Difference {
        let percent = |part: f64| if part == 0.0 { 0.0 } else { part / before.median * 100.0 };
        let (change, spread) = (now.median - before.median, before.spread() + now.spread());
        Difference {
            before: before.median,
            now: now.median,
            percent: percent(change),
            spread_percent: percent(spread),
            is_beyond_spread: change.abs() > spread,
        }
    }

    /// What it says: in `grown` words where the figure has grown, else in `shrunk` ones.
    fn in_words(&self, grown: &str, shrunk: &str) -> String {
        let Difference { percent, spread_percent, .. } = self;
        let word = if *percent > 0.0 { grown } else { shrunk };
        match self.is_beyond_spread {
            true => format!("{word} by {:.1} %, beyond the spread of ±{spread_percent:.1} %", percent.abs()),
            false => format!("no difference beyond the spread of ±{spread_percent:.1} % ({percent:+.1} %)"),
        }
    }
}

/// A bench beside an earlier one.
#[derive(Clone, Debug, Serialize)]
pub struct BesideEarlier {
    /// The file of the earlier one.
    pub file: String,
    /// The machine and the program of the earlier one.
    pub machine: Machine,
    /// Its threads.
    pub threads: usize,
    /// What of both is not the same beside the feed: the machine, the program, the threads.
    pub also_differs: Vec<String>,
    /// Images per second.
    pub images_per_second: Difference,
    /// Processor time per 1000 images.
    pub cpu_seconds_per_1000: Difference,
    /// Time to the first batch.
    pub first_batch_seconds: Difference,
}

impl Earlier {
    /// What a file of `forebay bench --json` says.
    ///
    /// # Errors
    /// [`Error::Usage`] for a file that says nothing of the kind, or is of too few repetitions.
    pub(super) async fn read(config: &Config, place: &str) -> Result<Earlier, Error> {
        let bytes = listed_file(config, "--compare", place).await?;
        let text = String::from_utf8_lossy(&bytes);
        // What else the program said on stdout stands before it.
        let line = text.trim().lines().last().unwrap_or_default();
        let whole = serde_json::from_str(&text).or_else(|_| serde_json::from_str(line));
        let earlier: Earlier = whole.map_err(|error| {
            Error::Usage(format!("--compare {place} is no result of forebay bench SOURCE --json: {error}"))
        })?;
        let n = earlier.repetitions.len();
        if (n as u64) < SPREAD_REPETITIONS_MIN {
            return Err(Error::Usage(format!(
                "--compare {place} has {n} repetitions, and {SPREAD_REPETITIONS_MIN} or more say how far they lie apart: measure \
                 it again"
            )));
        }
        Ok(Earlier { place: place.to_string(), ..earlier })
    }

    /// Refuses to compare with other work.
    ///
    /// # Errors
    /// [`Error::Usage`] with what differs.
    pub(super) fn is_of(&self, work: &Workload) -> Result<(), Error> {
        match work.difference(&self.workload) {
            None => Ok(()),
            Some(what) => Err(Error::Usage(format!(
                "--compare {} is of other work: {what}; measure the same work with both",
                self.place
            ))),
        }
    }

    /// What became of it.
    pub(super) fn beside(&self, now: &Measures, machine: &Machine, threads: usize) -> BesideEarlier {
        let Earlier { place, machine: there, figures: before, .. } = self;
        let texts = [
            (there.cpu.clone(), machine.cpu.clone()),
            (format!("{} cores", there.cores), format!("{} cores", machine.cores)),
            (format!("{} threads", self.threads), format!("{threads} threads")),
            (format!("forebay {}", there.forebay), format!("forebay {}", machine.forebay)),
            (there.system.clone(), machine.system.clone()),
        ];
        let differs = texts.iter().filter(|(there, here)| there != here);
        BesideEarlier {
            file: place.clone(),
            machine: there.clone(),
            threads: self.threads,
            also_differs: differs.map(|(there, here)| format!("{there} before, {here} now")).collect(),
            images_per_second: Difference::of(before.images_per_second, now.images_per_second),
            cpu_seconds_per_1000: Difference::of(before.cpu_seconds_per_1000, now.cpu_seconds_per_1000),
            first_batch_seconds: Difference::of(before.first_batch_seconds, now.first_batch_seconds),
        }
    }
}

impl std::fmt::Display for BesideEarlier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (rate, cpu) = (self.images_per_second, self.cpu_seconds_per_1000);
        writeln!(f, "beside {}:", self.file)?;
        let words = rate.in_words("faster", "slower");
        writeln!(f, "  images/s             {:.0} before, {:.0} now: {words}", rate.before, rate.now)?;
        let words = cpu.in_words("more", "less");
        writeln!(f, "  CPU-seconds per 1000 {:.3} before, {:.3} now: {words}", cpu.before, cpu.now)?;
        let first = self.first_batch_seconds;
        let words = first.in_words("later", "sooner");
        writeln!(f, "  first batch          {:.3} s before, {:.3} s now: {words}", first.before, first.now)?;
        self.also_differs.iter().try_for_each(|line| writeln!(f, "  also: {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_one_when_it_is_larger_than_both_spreads() {
        let figure = |median: f64, spread: f64| Measure { median, min: median - spread, max: median };
        for (before, now, expected) in [
            ((100.0, 2.0), (110.0, 3.0), "faster by 10.0 %, beyond the spread of ±5.0 %"),
            ((100.0, 2.0), (90.0, 3.0), "slower by 10.0 %, beyond the spread of ±5.0 %"),
            ((100.0, 2.0), (105.0, 3.0), "no difference beyond the spread of ±5.0 % (+5.0 %)"),
            ((100.0, 0.0), (99.0, 3.0), "no difference beyond the spread of ±3.0 % (-1.0 %)"),
            ((100.0, 0.0), (100.0, 0.0), "no difference beyond the spread of ±0.0 % (+0.0 %)"),
        ] {
            let difference = Difference::of(figure(before.0, before.1), figure(now.0, now.1));
            assert_eq!(difference.in_words("faster", "slower"), expected);
        }
    }
}
