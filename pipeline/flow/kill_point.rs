//! Named points at which a test kills the process.

/// Kills the process at once, as `kill -9` does, where the environment variable `FOREBAY_KILL_AT` names this point.
/// The released program has no such points.
#[cfg(debug_assertions)]
pub fn kill_point(name: &str) {
    if std::env::var("FOREBAY_KILL_AT").is_ok_and(|at| at == name) {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}

/// The released program has no such points.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn kill_point(_name: &str) {}
