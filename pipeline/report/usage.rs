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
        let peak = high_water_mark().unwrap_or(usage.max_rss() as u64 * unit);
        Usage { cpu_seconds: cpu_seconds(&usage), peak_memory_bytes: peak }
    }
}

/// The peak of this program on Linux, in bytes. What `getrusage` says there goes back to the process that started it: a
/// child of a large program would call that one's memory its own.
fn high_water_mark() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn cpu_seconds(usage: &ResourceUsage) -> f64 {
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}
