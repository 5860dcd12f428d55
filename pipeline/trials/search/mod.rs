//! What a search tries, and what it remembers: the space of settings, and the journal from which it goes on.

mod journal;
mod space;

pub use journal::{Ended, Event, Journal, JournalHeader, Outcome, TrialRecord};
pub use space::{Dimension, Range, Space};
