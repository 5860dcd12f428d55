//! Stages in one node: an image is in the cache of the core that made it when the next stage takes it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use forebay_datasets::sample::{AsClass, Sample};
use forebay_datasets::seed::Seed;
use forebay_stages::stage::Stage;

use super::error::Error;
use super::meter::{Open, Slot, State, Verb};
use super::room::Room;
use super::{Chunk, Flow, Shared};

/// Stages that a chunk passes one after the other, on one thread and in the slots of one node.
///
/// Each is measured under its own name. While a later stage works on a chunk the first one's slot is blocked.
#[must_use = "a line does nothing until it is started"]
pub struct Line<P, Q, L> {
    flow: Flow<Chunk<P, L>>,
    room: Room,
    applied: Applied,
    first: Arc<Open>,
    last: Arc<Open>,
    work: LineWork<P, Q, L>,
}

type LineWork<P, Q, L> = Box<dyn Fn(&mut Slot, Chunk<P, L>) -> Result<Chunk<Q, L>, Error> + Send + Sync>;

/// What stages are applied with.
#[derive(Clone)]
struct Applied {
    shared: Arc<Shared>,
    seed: Seed,
    epoch: u32,
}

impl<P: Send + 'static, L: AsClass + Send + 'static> Flow<Chunk<P, L>> {
    /// Applies `stage` to each sample on the pool, with the draws of (`seed`, id, copy, `epoch`), to up to `room.slots` chunks at
    /// once. A fault makes the sample a tombstone; tombstones pass, and count against the reject budget once for a sample.
    pub fn stage<S: Stage<In = P>>(
        self,
        room: Room,
        seed: Seed,
        epoch: u32,
        stage: S,
    ) -> Flow<Chunk<S::Out, L>> {
        self.line(room, seed, epoch, stage).start()
    }

    /// As [`Flow::stage`], and other stages [`then`](Line::then).
    pub fn line<S: Stage<In = P>>(self, room: Room, seed: Seed, epoch: u32, stage: S) -> Line<P, S::Out, L> {
        let applied = Applied { shared: self.run.shared.clone(), seed, epoch };
        let first = applied.open::<S>(room);
        let (with, open) = (applied.clone(), first.clone());
        let work: LineWork<P, S::Out, L> = Box::new(move |_, chunk| with.apply(&stage, &open, chunk));
        Line { flow: self, room, applied, last: first.clone(), first, work }
    }
}

impl<P: Send + 'static, Q: Send + 'static, L: AsClass + Send + 'static> Line<P, Q, L> {
    /// Applies another stage to what comes out.
    pub fn then<S: Stage<In = Q>>(self, stage: S) -> Line<P, S::Out, L> {
        let Line { flow, room, applied, first, last: before, work } = self;
        let (with, last) = (applied.clone(), applied.open::<S>(room));
        let open = last.clone();
        let work: LineWork<P, S::Out, L> = Box::new(move |slot, chunk| {
            let chunk = work(slot, chunk)?;
            slot.to(State::Blocked);
            before.count_out();
            let mut here = open.slot();
            here.to(State::Busy);
            open.count_in();
            with.apply(&stage, &open, chunk)
        });
        Line { flow, room, applied, first, last, work }
    }

    /// The node of these stages.
    pub fn start(self) -> Flow<Chunk<Q, L>> {
        let Line { flow, room, first, last, work, .. } = self;
        flow.pooled((first, last), room, work)
    }
}

impl Applied {
    /// The slots of a stage.
    fn open<S: Stage>(&self, room: Room) -> Arc<Open> {
        self.shared.meter.open(S::NAME, Verb::Compute, room.slots())
    }

    fn apply<S: Stage, L: AsClass>(
        &self,
        stage: &S,
        open: &Open,
        chunk: Chunk<S::In, L>,
    ) -> Result<Chunk<S::Out, L>, Error> {
        let mut samples = Vec::with_capacity(chunk.len());
        for sample in chunk {
            let (id, copy, class) = (sample.id.clone(), sample.copy, sample.label.as_class());
            let applied = catch_unwind(AssertUnwindSafe(|| {
                sample.map(|input| stage.apply_to(input, class, &self.seed.draws(&id, copy, self.epoch)))
            }));
            let sample = applied.map_err(|panic| {
                let copy = if copy == 0 { String::new() } else { format!(" (copy {copy})") };
                Error::panicked(format!("run {} on {id}{copy}", S::NAME), &*panic)
            })?;
            samples.push(sample);
        }
        let faults = samples.iter().filter_map(|sample: &Sample<S::Out, L>| {
            sample.payload.as_ref().err().map(|fault| (&sample.id, fault))
        });
        self.shared.rejects.record(faults)?;
        open.count_samples(samples.len());
        Ok(samples)
    }
}
