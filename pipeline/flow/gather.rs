//! The node that fills large items on the pool, one after the other.

use std::panic::{AssertUnwindSafe, catch_unwind};

use forebay_stages::stage::Gather;
use tokio::sync::{mpsc, oneshot};

use super::error::Error;
use super::meter::{State, Verb};
use super::{Flow, Hold, Parcel};

/// Items that are taken at once, where so many wait.
const TAKEN_MAX: usize = 4;

impl<T: Send + 'static> Flow<T> {
    /// Lets `gather` fill items on the pool. None is begun before there is room for it among `places`, which are those of items that
    /// wait for the next node and of the one that is filled. The bytes of what comes are given back when all of it is in items.
    #[allow(clippy::disallowed_methods)]
    pub fn gather<G: Gather<In = T>>(self, places: usize, mut gather: G) -> Flow<G::Out> {
        let Flow { run, mut input, truncated, weigh: _ } = self;
        let shared = run.shared.clone();
        let open = shared.meter.open(G::NAME, Verb::Compute, 1);
        let (output, next) = mpsc::channel(places.max(1));
        let flow = Flow { run, input: next, truncated, weigh: None };
        flow.run.shared.tasks.spawn(async move {
            let failure = shared.wait_for_failure();
            let gone = output.closed();
            tokio::pin!(failure, gone);
            let mut slot = open.slot();
            let mut holds: Vec<Hold> = Vec::new();
            loop {
                slot.to(State::Blocked);
                let place = tokio::select! {
                    biased;
                    () = &mut failure => return,
                    place = output.reserve() => match place {
                        Ok(place) => place,
                        Err(_) => return,
                    },
                };
                let mut items = Vec::new();
                let value = loop {
                    slot.to(State::Contended);
                    let (reply, answer) = oneshot::channel();
                    shared.pool.spawn(move || {
                        slot.to(State::Busy);
                        let filled = catch_unwind(AssertUnwindSafe(|| {
                            items.into_iter().for_each(|item| gather.take(item));
                            (gather.fill(), gather.is_idle())
                        }));
                        slot.to(State::Starved);
                        // Nobody waits when the run has failed.
                        let _ = reply.send((filled, gather, slot));
                    });
                    let filled;
                    (filled, gather, slot) = tokio::select! {
                        biased;
                        () = &mut failure => return,
                        answer = answer => match answer {
                            Ok(answer) => answer,
                            // The runtime shuts down and has dropped the work.
                            Err(_) => return,
                        },
                    };
                    match filled {
                        Ok((value, is_idle)) => {
                            if is_idle {
                                holds.clear();
                            }
                            if let Some(value) = value {
                                break value;
                            }
                        }
                        Err(panic) => {
                            return shared.fail(Error::panicked(format!("run {}", G::NAME), &*panic));
                        }
                    }
                    let mut parcel = tokio::select! {
                        biased;
                        () = &mut failure => return,
                        () = &mut gone => return,
                        parcel = input.recv() => match parcel {
                            Some(parcel) => Some(parcel),
                            None => return,
                        },
                    };
                    items = Vec::new();
                    while let Some(Parcel { value, hold }) = parcel.take() {
                        open.count_in();
                        items.push(value);
                        holds.push(hold);
                        if items.len() < TAKEN_MAX {
                            parcel = input.try_recv().ok();
                        }
                    }
                };
                place.send(Parcel { value, hold: Hold { _token: shared.meter.token(), loan: None } });
                open.count_out();
            }
        });
        flow
    }
}
