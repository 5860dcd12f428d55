//! How many rejects a run bears.

use std::fmt;

/// How many rejects a run bears.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MaxRejects {
    /// This share of all samples that the run reads, 0 to 1.
    Share(f64),
    /// This many samples.
    Count(u64),
}

impl MaxRejects {
    /// Whether `rejected` of `samples` samples are too many.
    pub fn is_exceeded_by(self, rejected: u64, samples: u64) -> bool {
        match self {
            MaxRejects::Share(share) => rejected as f64 > share * samples as f64,
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
