//! Moments at which a test kills the process, to see what is left of it.

/// Kills the process with SIGKILL where the environment variable `FOREBAY_KILL_AT` is `name`. Only in builds with debug
/// assertions, which the released program has none of.
#[cfg(debug_assertions)]
pub fn kill_point(name: &str) {
    if std::env::var("FOREBAY_KILL_AT").is_ok_and(|at| at == name) {
        // The signal cannot be caught, so that nothing of this process runs after it.
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}

/// Does nothing: only test builds are killed.
#[cfg(not(debug_assertions))]
pub fn kill_point(_: &str) {}
