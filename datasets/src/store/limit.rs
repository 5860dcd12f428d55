//! How many requests to one server are on their way at once: fewer where it says that they are too many.
//!
//! As TCP does with its window (additive increase, multiplicative decrease): a server that throttles halves the limit,
//! once for all requests that were on their way by then, and each round of answers without throttling adds one request.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::channel::oneshot;

/// The limit of one server, shared by all who ask it. Cloning is cheap.
#[derive(Clone, Debug)]
pub(super) struct RequestLimit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    state: Mutex<LimitState>,
}

#[derive(Debug)]
struct LimitState {
    limit: usize,
    on_their_way: usize,
    /// How often the limit was halved: a request that began before the last time says nothing new.
    halvings: u64,
    /// Answers since the limit last changed.
    answers: usize,
    /// Who waits, the first to come first.
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// The right to have one request on its way; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Turn(Option<Arc<Shared>>);

/// When a request began, as far as the limit is concerned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun(u64);

impl RequestLimit {
    /// A limit that begins at the most requests that may be on their way, at least one.
    pub(super) fn new(most: usize) -> RequestLimit {
        let most = most.max(1);
        let (waiting, limit) = (VecDeque::new(), most);
        let state = LimitState { limit, on_their_way: 0, halvings: 0, answers: 0, waiting };
        RequestLimit(Arc::new(Shared { most, state: Mutex::new(state) }))
    }

    /// Waits for a turn. Whoever holds one may not wait for another of the same limit.
    pub(super) async fn turn(&self) -> Turn {
        let waiting = {
            let mut state = self.0.lock();
            if state.on_their_way < state.limit && state.waiting.is_empty() {
                state.on_their_way += 1;
                return Turn(Some(Arc::clone(&self.0)));
            }
            let (hand_on, waiting) = oneshot::channel();
            state.waiting.push_back(hand_on);
            waiting
        };
        waiting.await.expect("the limit outlives those who wait for it, and drops none of them")
    }

    /// A request begins.
    pub(super) fn begin(&self) -> Begun {
        Begun(self.0.lock().halvings)
    }

    /// The server answered a request. Whether the request had the server for itself, so that fewer are not possible.
    pub(super) fn answered(&self, begun: Begun, is_throttled: bool) -> bool {
        let (turns, was_alone) = {
            let mut state = self.0.lock();
            let was_alone = begun.0 == state.halvings && state.limit == 1;
            match is_throttled {
                true if begun.0 < state.halvings => {}
                true => {
                    state.limit = (state.limit / 2).max(1);
                    state.halvings += 1;
                    state.answers = 0;
                }
                false => {
                    state.answers += 1;
                    if state.answers >= state.limit && state.limit < self.0.most {
                        state.limit += 1;
                        state.answers = 0;
                    }
                }
            }
            (self.0.hand_on(&mut state), was_alone)
        };
        Shared::give(turns);
        was_alone
    }

    /// How many requests may be on their way now.
    #[cfg(test)]
    pub(super) fn now(&self) -> usize {
        self.0.lock().limit
    }
}

/// A turn, and who gets it.
type Given = (oneshot::Sender<Turn>, Turn);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, LimitState> {
        self.state.lock().expect("nothing panics while it is held")
    }

    /// The turns that are free, for those who wait; given outside of the lock, since one that nobody takes any more comes
    /// back through it.
    fn hand_on(self: &Arc<Shared>, state: &mut LimitState) -> Vec<Given> {
        let mut given = Vec::new();
        while state.on_their_way < state.limit
            && let Some(next) = state.waiting.pop_front()
        {
            state.on_their_way += 1;
            given.push((next, Turn(Some(Arc::clone(self)))));
        }
        given
    }

    fn give(turns: Vec<Given>) {
        for (who, turn) in turns {
            // Who has given up waiting takes no turn, which then comes back.
            let _ = who.send(turn);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(shared) = self.0.take() else { return };
        let turns = {
            let mut state = shared.lock();
            state.on_their_way -= 1;
            shared.hand_on(&mut state)
        };
        Shared::give(turns);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_storm_halves_the_limit_once_a_round_and_answers_grow_it_back_to_the_most() {
        let limit = RequestLimit::new(16);
        let round: Vec<Begun> = (0..16).map(|_| limit.begin()).collect();
        round.into_iter().for_each(|begun| assert!(!limit.answered(begun, true)));
        assert_eq!(limit.now(), 8, "one storm is one sign");
        for (expected, was_alone) in [(4, false), (2, false), (1, false), (1, true), (1, true)] {
            assert_eq!(limit.answered(limit.begin(), true), was_alone);
            assert_eq!(limit.now(), expected);
        }
        // A round is as many answers as may be on their way.
        let mut answers = 0;
        while limit.now() < 16 {
            limit.answered(limit.begin(), false);
            answers += 1;
        }
        assert_eq!(answers, (1..16).sum::<usize>());
        (0..100).for_each(|_| assert!(!limit.answered(limit.begin(), false)));
        assert_eq!(limit.now(), 16);
        assert_eq!(RequestLimit::new(0).now(), 1);
    }

    #[test]
    fn turns_are_as_many_as_the_limit_and_given_in_the_order_of_those_who_wait() {
        let limit = RequestLimit::new(2);
        let mut held =
            vec![limit.turn().now_or_never().expect("free"), limit.turn().now_or_never().expect("free")];
        let (mut third, mut fourth) = (Box::pin(limit.turn()), Box::pin(limit.turn()));
        assert!(third.as_mut().now_or_never().is_none() && fourth.as_mut().now_or_never().is_none());
        drop(held.pop());
        assert!(fourth.as_mut().now_or_never().is_none(), "it was not the first");
        let third = third.now_or_never().expect("its turn");
        // After a sign of too much, what comes back is not handed on.
        limit.answered(limit.begin(), true);
        drop(held.pop());
        assert!(fourth.as_mut().now_or_never().is_none());
        drop(third);
        assert!(fourth.now_or_never().is_some());
    }

    #[test]
    fn a_turn_that_nobody_waits_for_any_more_is_not_lost() {
        let limit = RequestLimit::new(1);
        let held = limit.turn().now_or_never().expect("free");
        let mut gone = Box::pin(limit.turn());
        let mut late = Box::pin(limit.turn());
        let mut last = Box::pin(limit.turn());
        for waiting in [&mut gone, &mut late, &mut last] {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        drop(gone);
        drop(held);
        // It was handed on, and is dropped before it was looked at.
        drop(late);
        assert!(last.now_or_never().is_some());
    }
}
