//! The node behind `io` and `compute`.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::budget::{Gate, Loan};
use super::error::Error;
use super::meter::{Open, Slot, State};
use super::room::Room;
use super::{Flow, Hold, Parcel};

/// The result of a piece of work, in the slot it ran in.
pub(super) type Answer<U> = (Slot, Result<U, Error>);

/// An item in the window.
struct Work<U> {
    hold: Hold,
    progress: WindowProgress<U>,
}

enum WindowProgress<U> {
    Running(oneshot::Receiver<Answer<U>>),
    Done(U, Slot),
}

/// An item that waits for its bytes.
struct Weighing<T> {
    value: T,
    hold: Hold,
    slot: Slot,
    bytes: u64,
}

impl<T: Send + 'static> Flow<T> {
    /// The node behind `io` and `compute`: starts up to `room.slots` pieces of work and hands their results
    /// on in the order of the items.
    ///
    /// Slots are those of `open`, which counts what comes in; `out`, mostly the same, counts what leaves.
    ///
    /// The window holds only work that `start` has handed to the tasks or the pool, so that it goes on while
    /// this node waits: a lazy future in it could hold something that whoever it waits for needs.
    #[allow(clippy::disallowed_methods)]
    pub(super) fn window<U: Send + 'static>(
        self,
        (open, out): (Arc<Open>, Arc<Open>),
        room: Room,
        mut start: impl FnMut(u64, T, Slot, oneshot::Sender<Answer<U>>) + Send + 'static,
    ) -> Flow<U> {
        let Flow { run, mut input, truncated, weigh } = self;
        let shared = run.shared.clone();
        let gate = weigh.is_some().then(|| Gate::new(shared.budget.clone()));
        let (output, next) = mpsc::channel(room.queue());
        let flow = Flow { run, input: next, truncated, weigh: None };
        flow.run.shared.tasks.spawn(async move {
            let failure = shared.wait_for_failure();
            let gone = output.closed();
            tokio::pin!(failure, gone);
            let mut window: VecDeque<Work<U>> = VecDeque::new();
            let mut waiting: Option<Weighing<T>> = None;
            // What else came of the item that was weighed last.
            let mut parts: VecDeque<(T, u64)> = VecDeque::new();
            let mut ended = false;
            let mut index = 0;
            let mut begin = |window: &mut VecDeque<Work<U>>, value: T, mut slot: Slot, hold: Hold| {
                slot.to(State::Contended);
                let (reply, answer) = oneshot::channel();
                start(index, value, slot, reply);
                index += 1;
                window.push_back(Work { hold, progress: WindowProgress::Running(answer) });
            };
            while !(ended && window.is_empty() && waiting.is_none() && parts.is_empty()) {
                let has_room = waiting.is_none() && window.len() < room.slots();
                if has_room && let Some((value, bytes)) = parts.pop_front() {
                    open.count_in();
                    let mut slot = open.slot();
                    slot.to(State::Blocked);
                    let hold = Hold { _token: shared.meter.token(), loan: None };
                    waiting = Some(Weighing { value, hold, slot, bytes });
                    continue;
                }
                let head = window.front_mut().map(|work| &mut work.progress);
                let head_done = matches!(head, Some(WindowProgress::Done(..)));
                tokio::select! {
                    biased;
                    () = &mut failure => return,
                    () = &mut gone => return,
                    place = output.reserve(), if head_done => {
                        let Ok(place) = place else { return };
                        let work = window.pop_front().expect("the head is done");
                        if let WindowProgress::Done(value, slot) = work.progress {
                            out.count_out();
                            drop(slot);
                            place.send(Parcel { value, hold: work.hold });
                        }
                    }
                    answer = finished(head), if !head_done => match answer {
                        Some((slot, Ok(value))) => {
                            let head = window.front_mut().expect("the head has finished");
                            head.progress = WindowProgress::Done(value, slot);
                        }
                        Some((_, Err(error))) => return shared.fail(error),
                        // The runtime shuts down and has dropped the work.
                        None => return,
                    },
                    loan = granted(gate.as_ref(), waiting.as_ref().map(|waiting| waiting.bytes)) => {
                        let Weighing { value, mut hold, slot, .. } = waiting.take().expect("it was granted");
                        // What an earlier weighed node lent is given back here.
                        hold.loan = Some(loan);
                        begin(&mut window, value, slot, hold);
                    }
                    parcel = input.recv(), if has_room && !ended => match parcel {
                        Some(Parcel { value, hold }) => {
                            open.count_in();
                            let mut slot = open.slot();
                            match &weigh {
                                Some(weigh) => {
                                    slot.to(State::Blocked);
                                    match catch_unwind(AssertUnwindSafe(|| weigh(value))) {
                                        Ok(weighed) => {
                                            parts = weighed.into();
                                            waiting = parts
                                                .pop_front()
                                                .map(|(value, bytes)| Weighing { value, hold, slot, bytes });
                                        }
                                        Err(panic) => {
                                            let attempt = format!("weigh an item of {}", open.name());
                                            return shared.fail(Error::panicked(attempt, &*panic));
                                        }
                                    }
                                }
                                None => begin(&mut window, value, slot, hold),
                            }
                        }
                        None => ended = true,
                    },
                }
            }
        });
        flow
    }
}

/// Waits until the head of the window has finished; forever when there is nothing to wait for.
async fn finished<U>(head: Option<&mut WindowProgress<U>>) -> Option<Answer<U>> {
    match head {
        Some(WindowProgress::Running(answer)) => answer.await.ok(),
        _ => std::future::pending().await,
    }
}

/// Waits until the item that waits has its bytes; forever when there is none.
async fn granted(gate: Option<&Gate>, bytes: Option<u64>) -> Loan {
    match (gate, bytes) {
        (Some(gate), Some(bytes)) => gate.take(bytes).await,
        _ => std::future::pending().await,
    }
}
