//! Makes candle obey the number of threads.

use super::error::Error;

/// The variables that candle reads, and what they must be for it to use no more than `threads` threads.
///
/// Its matrix products are split `RAYON_NUM_THREADS` ways, over the threads of the pool that they run in. Its
/// element-wise operations use a second pool of `CANDLE_NUM_THREADS` - 1 spinning threads of its own, which no
/// call can limit; with 1 it has none, and they run where they are called.
pub(super) fn candle_variables(threads: usize) -> [(&'static str, String); 2] {
    [("RAYON_NUM_THREADS", threads.to_string()), ("CANDLE_NUM_THREADS", "1".to_string())]
}

/// Makes candle obey `threads` too. Call it in `main` before anything starts a thread; [`Run::install`](super::Run::install) does
/// the rest.
///
/// # Errors
/// When the process already has more than one thread, on a system that tells.
#[allow(unsafe_code, clippy::disallowed_methods)]
pub fn limit_candle(threads: usize) -> Result<(), Error> {
    let n_threads = std::fs::read_dir("/proc/self/task").map_or(1, |tasks| tasks.count());
    if n_threads > 1 {
        return Err(Error::failed(
            "limit the threads of candle",
            format!("the process has {n_threads} threads and must have one"),
        ));
    }
    for (name, value) in candle_variables(threads) {
        // SAFETY: nothing reads the environment at the same time, because this is the only thread.
        unsafe { std::env::set_var(name, value) };
    }
    Ok(())
}
