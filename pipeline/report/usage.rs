//! What this process has used: processor time and peak memory, as the system accounts for them.

use nix::sys::resource::{Usage as ResourceUsage, UsageWho, getrusage};
use serde::Serialize;

/// Totals of the process since its start.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Usage {
    /// User and system time of all threads.
    pub cpu_seconds: f64,
    /// The largest resident set so far.
    pub peak_memory_bytes: u64,
}

impl Usage {
    /// As of now.
    pub fn now() -> Usage {
        let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the system accounts for its processes");
        // Linux counts kibibytes, macOS bytes.
        let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
        Usage { cpu_seconds: cpu_seconds(&usage), peak_memory_bytes: usage.max_rss() as u64 * unit }
    }
}

fn cpu_seconds(usage: &ResourceUsage) -> f64 {
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}
