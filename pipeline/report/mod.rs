//! What the program says: to the terminal, as JSON, and as an HTML page.
//!
//! Results go to stdout, everything else to stderr. A stdout that was closed ends the program quietly.

pub mod html;
pub mod terminal;

use std::io::Write;
use std::time::Duration;

/// Writes results to stdout. When the reader has gone (`forebay … | head`), nothing is left to say.
pub fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Waits for `work` and calls `look` ten times a second meanwhile, and once at the end.
pub async fn watched<R>(work: impl Future<Output = R>, mut look: impl FnMut()) -> R {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            result = &mut work => {
                look();
                return result;
            }
            _ = ticks.tick() => look(),
        }
    }
}
