//! How many rejects a run bears.

use std::fmt;

/// How many rejects a run bears.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MaxRejects {
    /// This share of the samples seen, 0 to 1. Checked from the 100th sample on and at the end.
    Share(f64),
    /// This many samples. Checked at each reject and at the end.
    Count(u64),
}

impl MaxRejects {
    /// Whether `rejected` of `seen` samples are too many.
    pub fn is_exceeded_by(self, rejected: u64, seen: u64) -> bool {
        match self {
            MaxRejects::Share(share) => rejected as f64 > share * seen as f64,
            MaxRejects::Count(count) => rejected > count,
        }
    }
}

impl fmt::Display for MaxRejects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MaxRejects::Share(share) => write!(f, "{} %", share * 100.0),
            MaxRejects::Count(count) => write!(f, "{count}"),
        }
    }
}
