//! How many files this process may have open, which sockets count as too.

use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The most files that this process may have open. The soft limit, which is there for programs that hand files to
/// `select`, is raised to the hard one first.
pub fn open_files_max() -> usize {
    static MAX: OnceLock<usize> = OnceLock::new();
    *MAX.get_or_init(|| {
        let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 256 };
        let max = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(_) => soft,
        };
        usize::try_from(max).unwrap_or(usize::MAX)
    })
}
