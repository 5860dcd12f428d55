//! The reject budget: how many samples may be refused before the run is not worth finishing.

use std::collections::BTreeMap;
use std::sync::Mutex;

use forebay_datasets::sample::{Fault, SampleId};
use forebay_datasets::shard::Reject;

use super::error::Error;
use super::max_rejects::MaxRejects;

/// Enough to see whether they have one cause.
const N_REASONS: usize = 3;

/// The samples that were refused so far, in all flows of a run: each counts once, whatever the number of its
/// copies and of the epochs it comes in.
///
/// The run ends early only when its budget can no longer be kept, which is a function of what it reads: in which
/// order, and how fast, changes nothing.
#[derive(Debug)]
pub struct Rejects {
    max: MaxRejects,
    tally: Mutex<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    /// How many samples the run reads, each counted once; unknown at first.
    of: Option<u64>,
    refused: BTreeMap<SampleId, Fault>,
    reasons: Vec<String>,
}

impl Rejects {
    pub(super) fn new(max: MaxRejects) -> Rejects {
        Rejects { max, tally: Mutex::default() }
    }

    /// How many there may be.
    pub(super) fn max(&self) -> MaxRejects {
        self.max
    }

    /// Begins to count, for work that reads so many samples, each counted once: what a share is a share of.
    pub fn begin(&self, samples: u64) {
        *self.tally.lock().expect("no panic under the lock") =
            Tally { of: Some(samples), ..Tally::default() };
    }

    /// Samples that were refused, whoever refused them.
    pub fn rejected(&self) -> u64 {
        self.tally.lock().expect("no panic under the lock").refused.len() as u64
    }

    /// The samples that were refused, and why, sorted by id.
    pub fn list(&self) -> Vec<Reject> {
        let tally = self.tally.lock().expect("no panic under the lock");
        tally.refused.iter().map(|(id, fault)| Reject::new(id, fault)).collect()
    }

    /// Counts the samples of these faults, unless they are counted already. For dataflows without a stage; a flow
    /// with one counts by itself.
    ///
    /// # Errors
    /// [`Error::TooManyRejects`] as soon as there are more than the whole run may have.
    pub fn record<'a>(
        &self,
        faults: impl IntoIterator<Item = (&'a SampleId, &'a Fault)>,
    ) -> Result<(), Error> {
        let mut tally = self.tally.lock().expect("no panic under the lock");
        for (id, fault) in faults {
            if tally.refused.contains_key(id) {
                continue;
            }
            tally.refused.insert(id.clone(), fault.clone());
            if tally.reasons.len() < N_REASONS {
                tally.reasons.push(format!("{id}: {fault}"));
            }
            let rejected = tally.refused.len() as u64;
            let is_exceeded = match (self.max, tally.of) {
                // As long as nobody says what it is a share of, a share can be kept.
                (MaxRejects::Share(_), None) => false,
                (max, of) => max.is_exceeded_by(rejected, of.unwrap_or(0)),
            };
            if is_exceeded {
                let (of, reasons) = (tally.of.unwrap_or(rejected), tally.reasons.clone());
                return Err(Error::TooManyRejects { of, rejected, max: self.max, reasons });
            }
        }
        Ok(())
    }
}
