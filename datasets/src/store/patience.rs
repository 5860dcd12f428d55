//! How long a server is waited for, and how often it is asked again: one answer for every store and for the hub.

use std::time::{Duration, Instant};

/// How often is asked for what came and cannot be right: fewer bytes than announced, bytes of another sum, a refusal that
/// something in between may have written.
pub const ASKS: u32 = 3;

/// How long a server is waited for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Patience {
    /// How long a connection may take.
    pub connect: Duration,
    /// A server that sends nothing for so long is silent.
    pub silence: Duration,
    /// The fewest bytes of an answer that have to come within `silence`: whoever drips is as good as silent.
    pub bytes_min: u64,
    /// The most requests for one thing.
    pub tries: u32,
    /// The wait before the second request; each wait is twice the one before, up to `wait_max`.
    pub first_wait: Duration,
    /// The longest wait between two requests.
    pub wait_max: Duration,
    /// When so long has passed since the first request, none is sent any more.
    pub total: Duration,
}

impl Patience {
    /// Ten requests over half a minute (28.7 seconds of waits) outlast a server's restart without hiding a wrong address, and a silent server
    /// costs four minutes at most. A minute of silence lets a part of 8 MiB through a line of 140 KB/s.
    pub fn usual() -> Patience {
        let seconds = |seconds: f64| Duration::from_secs_f64(seconds * scale());
        Patience {
            connect: seconds(10.0),
            silence: seconds(60.0),
            bytes_min: 60 << 10,
            tries: 10,
            first_wait: seconds(0.1),
            wait_max: seconds(8.0),
            total: seconds(180.0),
        }
    }

    /// What to wait after so many requests in vain.
    pub fn wait_after(&self, requests: u32) -> Duration {
        self.first_wait.saturating_mul(1 << requests.saturating_sub(1).min(16)).min(self.wait_max)
    }

    /// Whether one more request is worth it, `requests` after the first one was sent at `began`.
    pub fn allows(&self, requests: u32, began: Instant) -> bool {
        requests < self.tries && began.elapsed() <= self.total
    }
}

/// An object larger than this is put in parts of this size. A part is one request, and a request that stalls for a minute
/// is given up, so that a line of 140 KB/s still suffices.
pub(super) fn part_bytes() -> usize {
    for_tests("FOREBAY_PART_BYTES").filter(|bytes| *bytes >= 1).unwrap_or(8 << 20)
}

/// Tests do not wait as long.
fn scale() -> f64 {
    for_tests("FOREBAY_PATIENCE").filter(|factor| (1e-4..=1.0).contains(factor)).unwrap_or(1.0)
}

/// An address of this machine that tests take for one of the public network.
pub(super) fn public_for_tests() -> Option<std::net::IpAddr> {
    for_tests("FOREBAY_PUBLIC_ADDRESS")
}

/// What builds with debug assertions read from the environment, and the released program does not.
fn for_tests<T: std::str::FromStr>(name: &str) -> Option<T> {
    match cfg!(debug_assertions) {
        true => std::env::var(name).ok()?.parse().ok(),
        false => None,
    }
}

/// Watches how fast an answer comes.
#[derive(Debug)]
pub struct Pace {
    patience: Patience,
    since: Instant,
    bytes: u64,
}

impl Pace {
    /// From now on.
    pub fn new(patience: Patience) -> Pace {
        Pace { patience, since: Instant::now(), bytes: 0 }
    }

    /// Counts bytes that came. True when fewer came in the time of [`Patience::silence`] than are worth waiting for.
    pub fn is_too_slow(&mut self, bytes: u64) -> bool {
        self.bytes += bytes;
        if self.since.elapsed() < self.patience.silence {
            return false;
        }
        let is_too_slow = self.bytes < self.patience.bytes_min;
        (self.since, self.bytes) = (Instant::now(), 0);
        is_too_slow
    }
}

/// The reason that goes with [`Pace::is_too_slow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sends fewer than {} KB in {} seconds", self.bytes_min >> 10, self.seconds)]
pub struct TooSlow {
    bytes_min: u64,
    seconds: u64,
}

impl From<Patience> for TooSlow {
    fn from(patience: Patience) -> TooSlow {
        TooSlow { bytes_min: patience.bytes_min, seconds: patience.silence.as_secs() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let patience = Patience::usual();
        let waits: Vec<u64> = (1..=9).map(|n| patience.wait_after(n).as_millis() as u64).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 8000, 8000]);
        assert_eq!(patience.wait_after(u32::MAX), patience.wait_max);
        let began = Instant::now();
        assert!(patience.allows(9, began) && !patience.allows(10, began));
        assert!(!Patience { total: Duration::ZERO, ..patience }.allows(1, began - Duration::from_millis(1)));
    }

    #[test]
    fn an_answer_that_drips_is_too_slow_and_one_that_flows_is_not() {
        let patience = Patience { silence: Duration::ZERO, bytes_min: 100, ..Patience::usual() };
        let mut pace = Pace::new(patience);
        assert!(pace.is_too_slow(99));
        assert!(!pace.is_too_slow(100));
        assert!(pace.is_too_slow(1), "each window counts for itself");
        let mut pace = Pace::new(Patience::usual());
        assert!(!pace.is_too_slow(0), "the window is not over");
    }
}
