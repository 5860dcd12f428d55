//! What a search tries, what it remembers and what it comes to: the space of settings, the journal from which it goes on, and
//! its results.

mod journal;
mod space;
mod tuned;

pub use journal::{Ended, Event, Journal, JournalHeader, Outcome, TrialRecord};
pub use space::{Dimension, Range, Space};
pub use tuned::{EndedBy, TrialResult, Tuned, best_of, end_in_words, setting_in_words, tune_files};
pub(super) use tuned::{csv, pages};
