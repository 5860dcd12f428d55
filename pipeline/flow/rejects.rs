//! The reject budget: how many samples may be refused before the run is not worth finishing.

use std::sync::Mutex;

use forebay_datasets::sample::Fault;

use super::error::Error;
use super::max_rejects::MaxRejects;

/// As in SPDL: below a hundred samples one bad file would already be 1 %.
const SEEN_BEFORE_SHARE: u64 = 100;

/// Enough to see whether they have one cause.
const N_REASONS: usize = 3;

/// What was seen and refused so far, in all flows of a run.
#[derive(Debug)]
pub struct Rejects {
    max: MaxRejects,
    tally: Mutex<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    seen: u64,
    rejected: u64,
    reasons: Vec<String>,
}

impl Rejects {
    pub(super) fn new(max: MaxRejects) -> Rejects {
        Rejects { max, tally: Mutex::default() }
    }

    /// Samples that met their first stage, copies and epochs counted each time.
    pub fn seen(&self) -> u64 {
        self.tally.lock().expect("no panic under the lock").seen
    }

    /// Samples that were refused, whoever refused them.
    pub fn rejected(&self) -> u64 {
        self.tally.lock().expect("no panic under the lock").rejected
    }

    /// Counts `seen` more samples and the faults among them. For dataflows without a stage; a flow with one
    /// counts by itself.
    ///
    /// # Errors
    /// [`Error::TooManyRejects`] as soon as the budget is spent.
    pub fn record<'a>(
        &self,
        seen: u64,
        faults: impl IntoIterator<Item = (&'a str, &'a Fault)>,
    ) -> Result<(), Error> {
        let mut tally = self.tally.lock().expect("no panic under the lock");
        tally.seen += seen;
        for (id, fault) in faults {
            tally.rejected += 1;
            if tally.reasons.len() < N_REASONS {
                tally.reasons.push(format!("{id}: {fault}"));
            }
        }
        let worth_a_check = match self.max {
            MaxRejects::Share(_) => tally.seen >= SEEN_BEFORE_SHARE,
            MaxRejects::Count(_) => true,
        };
        if worth_a_check { self.check(&tally) } else { Ok(()) }
    }

    /// Whether the budget holds, also for fewer than a hundred samples.
    ///
    /// # Errors
    /// [`Error::TooManyRejects`] with the counts and the first reasons.
    pub fn check_at_end(&self) -> Result<(), Error> {
        self.check(&self.tally.lock().expect("no panic under the lock"))
    }

    fn check(&self, tally: &Tally) -> Result<(), Error> {
        if !self.max.is_exceeded_by(tally.rejected, tally.seen) {
            return Ok(());
        }
        let Tally { seen, rejected, ref reasons } = *tally;
        Err(Error::TooManyRejects { seen, rejected, max: self.max, reasons: reasons.clone() })
    }
}
