//! The byte budget: how much memory the items of a run may weigh at once.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

/// A pot of bytes that all weighed nodes of a run take from.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: u64,
    ledger: Mutex<Ledger>,
    released: Notify,
}

#[derive(Debug, Default)]
struct Ledger {
    used: u64,
    peak: u64,
}

/// One place that takes from the budget: a weighed node of one flow. It asks for one item at a time, in the
/// order of the items.
#[derive(Debug)]
pub(super) struct Gate {
    budget: Arc<Budget>,
    n_held: Arc<Mutex<usize>>,
}

/// Bytes on loan; dropping it gives them back.
#[derive(Debug)]
pub(super) struct Loan {
    budget: Arc<Budget>,
    n_held: Arc<Mutex<usize>>,
    bytes: u64,
}

impl Budget {
    pub(super) fn new(bytes: u64) -> Arc<Budget> {
        Arc::new(Budget { bytes, ledger: Mutex::default(), released: Notify::new() })
    }

    /// The most that was on loan at once, in bytes.
    pub(super) fn peak(&self) -> u64 {
        self.ledger.lock().expect("no panic under the lock").peak
    }
}

impl Gate {
    pub(super) fn new(budget: Arc<Budget>) -> Gate {
        Gate { budget, n_held: Arc::default() }
    }

    /// Waits for `bytes` (at most the whole budget).
    ///
    /// A gate that holds nothing is never refused: two weighed nodes of one flow, or two flows of which the
    /// consumer reads one, would otherwise wait for each other forever. With one gate this changes nothing;
    /// with more, the run holds at most one item per further gate beyond its budget.
    pub(super) async fn take(&self, bytes: u64) -> Loan {
        let bytes = bytes.min(self.budget.bytes);
        loop {
            let released = self.budget.released.notified();
            tokio::pin!(released);
            // Registered before the look, so that no release falls between the look and the wait.
            released.as_mut().enable();
            if let Some(loan) = self.try_take(bytes) {
                return loan;
            }
            released.await;
        }
    }

    fn try_take(&self, bytes: u64) -> Option<Loan> {
        let mut ledger = self.budget.ledger.lock().expect("no panic under the lock");
        let mut n_held = self.n_held.lock().expect("no panic under the lock");
        if *n_held > 0 && ledger.used + bytes > self.budget.bytes {
            return None;
        }
        *n_held += 1;
        ledger.used += bytes;
        ledger.peak = ledger.peak.max(ledger.used);
        Some(Loan { budget: self.budget.clone(), n_held: self.n_held.clone(), bytes })
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.budget.ledger.lock().expect("no panic under the lock").used -= self.bytes;
        *self.n_held.lock().expect("no panic under the lock") -= 1;
        self.budget.released.notify_waiters();
    }
}
