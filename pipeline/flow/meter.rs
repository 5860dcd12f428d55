//! Where slot-time went: every slot of every node is busy, contended, blocked or starved.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;

/// What a node is; decides what would help when it bounds the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Gives the items.
    Source,
    /// Waits for something outside: a disk, a network.
    Io,
    /// Works on the pool.
    Compute,
    /// Rearranges the stream, alone.
    Regroup,
    /// Takes the items.
    Drain,
}

/// What a slot does at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Runs.
    Busy,
    /// Has work and waits for a core.
    Contended,
    /// Has a result that cannot leave, or an item that waits for memory.
    Blocked,
    /// Has nothing to do.
    Starved,
}

/// What one node did, over all flows of the run that name it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeReport {
    /// Its name: a stage's name, or the one given to the verb.
    pub name: &'static str,
    /// What kind of node it is.
    pub verb: Verb,
    /// Items that came in; a source has none.
    pub items_in: u64,
    /// Items that left. A stage's items are chunks.
    pub items_out: u64,
    /// Samples that left a stage, tombstones among them; 0 for other nodes.
    pub samples: u64,
    /// Slot-time in seconds: slots times the time they were open. The shares below are of this.
    pub slot_seconds: f64,
    /// Share of slot-time spent running, 0 to 1. The four shares add up to 1.
    pub busy: f64,
    /// Share of slot-time spent waiting for a core.
    pub contended: f64,
    /// Share of slot-time spent with a result that could not leave, or waiting for memory.
    pub blocked: f64,
    /// Share of slot-time spent with nothing to do.
    pub starved: f64,
    /// The most items it had in its slots at once: in work, or done and waiting to leave in order.
    pub peak_items: usize,
}

type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The measures of all nodes of one run. Nodes of one name, such as those of one flow per epoch, share an
/// entry.
#[derive(Clone)]
pub struct Meter {
    clock: Clock,
    nodes: Arc<Mutex<Vec<Arc<Node>>>>,
    in_flight: Arc<Mutex<Gauge>>,
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Meter").field(&self.report()).finish()
    }
}

impl Meter {
    /// A meter that reads the machine's clock.
    pub(crate) fn new() -> Meter {
        let start = Instant::now();
        Meter::with_clock(Arc::new(move || start.elapsed()))
    }

    fn with_clock(clock: Clock) -> Meter {
        Meter { clock, nodes: Arc::default(), in_flight: Arc::default() }
    }

    /// What each node did so far, in order of first appearance.
    pub fn report(&self) -> Vec<NodeReport> {
        self.nodes.lock().expect("no panic under the lock").iter().map(|node| node.report()).collect()
    }

    /// Items that have left the nodes called `name` so far; 0 when there is none. A stage's items are chunks.
    pub fn items(&self, name: &str) -> u64 {
        self.find(name).map_or(0, |node| node.items_out.load(Ordering::Relaxed))
    }

    /// Samples that have left the stages called `name` so far, tombstones among them.
    pub fn samples(&self, name: &str) -> u64 {
        self.find(name).map_or(0, |node| node.samples.load(Ordering::Relaxed))
    }

    /// Items that are now between a source and the end of its flow, those in the consumer's hands included.
    /// What a regroup holds back is not among them: it declares that itself.
    pub fn items_in_flight(&self) -> usize {
        self.in_flight.lock().expect("no panic under the lock").now
    }

    /// The most items that were in flight at once.
    pub fn peak_items(&self) -> usize {
        self.in_flight.lock().expect("no panic under the lock").peak
    }

    fn find(&self, name: &str) -> Option<Arc<Node>> {
        self.nodes.lock().expect("no panic under the lock").iter().find(|node| node.name == name).cloned()
    }

    /// Opens `slots` slots of the node called `name`, starved at first.
    pub(crate) fn open(&self, name: &'static str, verb: Verb, slots: usize) -> Arc<Open> {
        let mut nodes = self.nodes.lock().expect("no panic under the lock");
        let node = match nodes.iter().find(|node| node.name == name) {
            Some(node) => node.clone(),
            None => {
                let node = Arc::new(Node::new(name, verb, self.clock.clone()));
                nodes.push(node.clone());
                node
            }
        };
        node.change(|open, counts| {
            *open += slots;
            counts[State::Starved as usize] += slots;
        });
        Arc::new(Open { node, slots })
    }

    /// An item comes into being.
    pub(crate) fn token(&self) -> Token {
        self.in_flight.lock().expect("no panic under the lock").up();
        Token { gauge: self.in_flight.clone() }
    }
}

#[derive(Debug, Default)]
struct Gauge {
    now: usize,
    peak: usize,
}

impl Gauge {
    fn up(&mut self) {
        self.now += 1;
        self.peak = self.peak.max(self.now);
    }
}

/// An item in flight, from its source to the end of its flow.
pub(crate) struct Token {
    gauge: Arc<Mutex<Gauge>>,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.gauge.lock().expect("no panic under the lock").now -= 1;
    }
}

struct Node {
    name: &'static str,
    verb: Verb,
    clock: Clock,
    items_in: AtomicU64,
    items_out: AtomicU64,
    samples: AtomicU64,
    time: Mutex<SlotTime>,
}

/// Slots per state, and the slot-time spent in each: the integral of the counts. What the slots are open for is
/// counted by itself, so that a slot that is lost on its way between two states shows.
#[derive(Default)]
struct SlotTime {
    open: usize,
    slot_time: Duration,
    counts: [usize; 4],
    totals: [Duration; 4],
    last: Duration,
    peak_items: usize,
}

impl Node {
    fn new(name: &'static str, verb: Verb, clock: Clock) -> Node {
        Node {
            name,
            verb,
            clock,
            items_in: AtomicU64::new(0),
            items_out: AtomicU64::new(0),
            samples: AtomicU64::new(0),
            time: Mutex::default(),
        }
    }

    fn change(&self, change: impl FnOnce(&mut usize, &mut [usize; 4])) {
        let mut time = self.time.lock().expect("no panic under the lock");
        // Read under the lock, so that time does not run backwards between two slots.
        let now = (self.clock)();
        let SlotTime { open, slot_time, counts, totals, last, peak_items } = &mut *time;
        let passed = now.saturating_sub(*last);
        *slot_time += passed * *open as u32;
        for (total, count) in totals.iter_mut().zip(&*counts) {
            *total += passed * *count as u32;
        }
        *last = now;
        change(open, counts);
        let starved = counts[State::Starved as usize];
        *peak_items = (*peak_items).max(counts.iter().sum::<usize>() - starved);
    }

    fn report(&self) -> NodeReport {
        self.change(|_, _| ());
        let time = self.time.lock().expect("no panic under the lock");
        let totals = time.totals.map(|total| total.as_secs_f64());
        let slot_seconds = time.slot_time.as_secs_f64();
        let share =
            |state: State| if slot_seconds > 0.0 { totals[state as usize] / slot_seconds } else { 0.0 };
        NodeReport {
            name: self.name,
            verb: self.verb,
            items_in: self.items_in.load(Ordering::Relaxed),
            items_out: self.items_out.load(Ordering::Relaxed),
            samples: self.samples.load(Ordering::Relaxed),
            slot_seconds,
            busy: share(State::Busy),
            contended: share(State::Contended),
            blocked: share(State::Blocked),
            starved: share(State::Starved),
            peak_items: time.peak_items,
        }
    }
}

/// The slots of one node of one flow. They close when the node and its last piece of work have let go.
pub(crate) struct Open {
    node: Arc<Node>,
    slots: usize,
}

impl Open {
    /// One of the slots, starved at first.
    pub(crate) fn slot(self: &Arc<Open>) -> Slot {
        Slot { open: self.clone(), state: State::Starved }
    }

    /// The name of the node.
    pub(crate) fn name(&self) -> &'static str {
        self.node.name
    }

    pub(crate) fn count_in(&self) {
        self.node.items_in.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_out(&self) {
        self.node.items_out.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_samples(&self, n_samples: usize) {
        self.node.samples.fetch_add(n_samples as u64, Ordering::Relaxed);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.node.change(|open, counts| {
            *open -= self.slots;
            counts[State::Starved as usize] -= self.slots;
        });
    }
}

/// One slot; it travels with the work it holds and is starved again when dropped.
pub(crate) struct Slot {
    open: Arc<Open>,
    state: State,
}

impl Slot {
    pub(crate) fn open(&self) -> &Open {
        &self.open
    }

    pub(crate) fn to(&mut self, state: State) {
        if self.state != state {
            let from = std::mem::replace(&mut self.state, state);
            self.open.node.change(|_, counts| {
                counts[from as usize] -= 1;
                counts[state as usize] += 1;
            });
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.to(State::Starved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A meter and the milliseconds that its clock shows.
    fn clockwork() -> (Meter, Arc<AtomicU64>) {
        let now = Arc::new(AtomicU64::new(0));
        let clock = now.clone();
        (Meter::with_clock(Arc::new(move || Duration::from_millis(clock.load(Ordering::SeqCst)))), now)
    }

    #[test]
    fn the_four_shares_are_of_all_slot_time_and_add_up_to_one() {
        let (meter, now) = clockwork();
        now.store(1000, Ordering::SeqCst);
        let open = meter.open("decode", Verb::Compute, 2);
        let (mut first, mut second) = (open.slot(), open.slot());
        // (time, first slot, second slot)
        for (time, one, other) in [
            (1000, State::Contended, State::Starved),
            (1010, State::Busy, State::Contended),
            (1040, State::Blocked, State::Busy),
            (1070, State::Starved, State::Blocked),
        ] {
            now.store(time, Ordering::SeqCst);
            first.to(one);
            second.to(other);
        }
        now.store(1100, Ordering::SeqCst);
        drop((first, second, open));
        // After it has closed no time passes for it.
        now.store(5000, Ordering::SeqCst);
        let report = &meter.report()[0];
        assert!((report.slot_seconds - 0.2).abs() < 1e-9, "two slots, 100 ms each: {report:?}");
        let shares = [report.busy, report.contended, report.blocked, report.starved];
        for (share, milliseconds) in shares.iter().zip([60.0, 40.0, 60.0, 40.0]) {
            assert!((share - milliseconds / 200.0).abs() < 1e-9, "{report:?}");
        }
        assert_eq!(report.peak_items, 2);
    }

    #[test]
    fn nodes_of_one_name_share_an_entry_in_order_of_appearance() {
        let (meter, now) = clockwork();
        for epoch in 0..3 {
            let read = meter.open("read", Verb::Io, 1);
            let decode = meter.open("decode", Verb::Compute, 1 + epoch);
            read.count_out();
            decode.count_in();
            let mut slot = decode.slot();
            slot.to(State::Busy);
            now.fetch_add(10, Ordering::SeqCst);
        }
        let reports = meter.report();
        assert_eq!(reports.iter().map(|report| report.name).collect::<Vec<_>>(), ["read", "decode"]);
        assert_eq!((meter.items("read"), reports[1].items_in, reports[1].items_out), (3, 3, 0));
        // One slot of 1, 2 and 3 was busy.
        assert!((reports[1].busy - 30.0 / 60.0).abs() < 1e-9, "{reports:?}");
    }
}
