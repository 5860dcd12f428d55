//! How a run is stopped from outside: by signals, also while it still plans.

use std::future::Future;
use std::sync::OnceLock;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Error, Interrupt, Run, flatten};

/// What is done before a second signal ends the process where it stands.
static LAST_ACT: OnceLock<fn()> = OnceLock::new();

/// Before a second signal ends the process, `last_act` is called: nothing is dropped then, and a terminal that the process
/// has taken would stay as it is. The first call counts.
pub fn before_exit(last_act: fn()) {
    let _ = LAST_ACT.set(last_act);
}

impl Run {
    /// From now on the first Ctrl-C, SIGTERM or SIGHUP stops the run, and the second ends the process at once. A SIGHUP that
    /// is ignored, as under `nohup`, stays ignored.
    ///
    /// # Errors
    /// When the system lets us listen to no signals.
    #[allow(clippy::disallowed_methods)]
    pub fn stop_on_signals(&self) -> Result<(), Error> {
        let listen = |kind| {
            let _context = self.shared.tasks.enter();
            signal(kind).map_err(|error| Error::failed("listen to signals", error))
        };
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut terminate = listen(SignalKind::terminate())?;
        let mut hang_up = match is_ignored(libc::SIGHUP) {
            true => None,
            false => Some(listen(SignalKind::hangup())?),
        };
        let shared = self.shared.clone();
        self.shared.tasks.spawn(async move {
            loop {
                let signal = tokio::select! {
                    _ = interrupt.recv() => Interrupt::CtrlC,
                    _ = terminate.recv() => Interrupt::Terminate,
                    () = received(&mut hang_up) => Interrupt::HangUp,
                };
                if shared.halt.borrow().interrupt.is_some() {
                    // Work on the pool cannot be aborted, and nothing needs it to be: what is not complete
                    // does not exist.
                    if let Some(last) = LAST_ACT.get() {
                        last();
                    }
                    std::process::exit(signal.exit_code());
                }
                shared.halt.send_modify(|halt| halt.interrupt = Some(signal));
            }
        });
        Ok(())
    }

    /// Waits for `work`, which reads and computes and writes nothing, such as planning; a stop ends the wait at once and
    /// leaves `work` to itself.
    ///
    /// # Errors
    /// Those of `work`, or [`Error::Interrupted`].
    #[allow(clippy::disallowed_methods)]
    pub async fn until_stopped<R, Work>(
        &self,
        work: impl FnOnce() -> Work + Send + 'static,
    ) -> Result<R, Error>
    where
        R: Send + 'static,
        Work: Future<Output = Result<R, Error>>,
    {
        let tasks = self.shared.tasks.clone();
        let mut halt = self.shared.halt.subscribe();
        // A walk through a folder waits for the disk without giving way to anyone: it needs a thread of its own.
        let mut stopped = self.shared.halt.subscribe();
        let working = self.shared.tasks.spawn_blocking(move || {
            tasks.block_on(async move {
                // Left to itself it would wait on a runtime that shuts down, which panics.
                tokio::select! {
                    biased;
                    Ok(halt) = stopped.wait_for(|halt| halt.interrupt.is_some()) => {
                        Err(Error::Interrupted(halt.interrupt.expect("it was waited for")))
                    }
                    done = work() => done,
                }
            })
        });
        let interrupted = async {
            match halt.wait_for(|halt| halt.interrupt.is_some()).await {
                Ok(halt) => halt.interrupt,
                // The sender lives in the run.
                Err(_) => None,
            }
        };
        tokio::select! {
            biased;
            Some(interrupt) = interrupted => Err(Error::Interrupted(interrupt)),
            done = working => {
                let done = done.map_err(|error| match error.try_into_panic() {
                    Ok(panic) => panic,
                    Err(error) => Box::new(error.to_string()),
                });
                flatten(done, || "read what is needed".to_string())
            }
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether whoever started the process wants it to ignore a signal.
#[allow(unsafe_code)]
fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: zeros are a valid `sigaction`, and with no new action the call only fills it in.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}
