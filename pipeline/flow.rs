//! A dataflow is a source and a chain of nodes, each a task with a bounded window; this room alone starts
//! tasks and threads.
//!
//! Five verbs are enough: [`Flow::io`] waits, [`Flow::compute`] and [`Flow::stage`] work on the one pool, [`Flow::gather`] makes one
//! item of many there, [`Flow::regroup`] rearranges, [`Flow::drain`] (or [`Flow::collect`]) takes. Order is kept by all of them.
//! The end travels down as a closed sender, a consumer that has gone travels up as a closed receiver.

mod bound;
mod budget;
mod candle;
mod error;
mod gather;
mod kill_point;
mod line;
mod max_rejects;
mod meter;
mod open_files;
mod rejects;
mod room;
mod stop;
mod window;

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use forebay_datasets::sample::{Label, Sample};
use forebay_stages::stage::Regroup;
use futures::FutureExt;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{mpsc, oneshot, watch};

pub use bound::{Bound, BoundBy};
use budget::{Budget, Loan};
pub use candle::limit_candle;
pub use error::{Error, Interrupt, in_one_line};
pub use kill_point::kill_point;
pub use line::Line;
pub use max_rejects::MaxRejects;
pub use meter::{Meter, NodeReport, Verb};
use meter::{Open, Slot, State, Token};
pub use open_files::open_files_max;
pub use rejects::Rejects;
pub use room::{Room, peak_bytes, peak_items};
pub use stop::before_exit;

/// Samples travel in chunks, so that small images share the cost of a hop. The order within is kept.
pub type Chunk<P, L = Label> = Vec<Sample<P, L>>;

/// What a run may use.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions {
    /// Threads that work; at least 1.
    pub threads: usize,
    /// The byte budget that [`Flow::weighed`] takes from.
    pub memory_bytes: u64,
    /// How many samples may be refused.
    pub max_rejects: MaxRejects,
}

/// Threads that may wait for a disk at once. They do not compute, so that they are not among `threads`; idle,
/// they end after ten seconds.
pub const BLOCKING_THREADS: usize = 16;

/// One run of the program: its threads, its budgets, its meter, and the first error of any of its flows.
#[derive(Clone)]
pub struct Run {
    shared: Arc<Shared>,
    runtime: Arc<OwnedRuntime>,
}

/// A runtime that may be dropped anywhere, also on one of its own threads, where waiting for them would panic.
struct OwnedRuntime(Option<Runtime>);

impl Drop for OwnedRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What the nodes of all flows of a run share.
struct Shared {
    tasks: Handle,
    pool: rayon::ThreadPool,
    budget: Arc<Budget>,
    meter: Meter,
    rejects: Arc<Rejects>,
    failure: Mutex<Option<Error>>,
    halt: watch::Sender<Halt>,
}

/// Why sources close and nodes return.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Halt {
    interrupt: Option<Interrupt>,
    failed: bool,
}

impl Shared {
    /// Ends every flow of the run; the first error wins.
    fn fail(&self, error: Error) {
        self.failure.lock().expect("no panic under the lock").get_or_insert(error);
        self.halt.send_modify(|halt| halt.failed = true);
    }

    fn failure(&self) -> Option<Error> {
        self.failure.lock().expect("no panic under the lock").clone()
    }

    fn failed(&self) -> bool {
        self.halt.borrow().failed
    }

    /// Ends when the run has failed.
    async fn wait_for_failure(&self) {
        // The sender lives in `self`, so that this never ends with an error.
        let _ = self.halt.subscribe().wait_for(|halt| halt.failed).await;
    }
}

impl Run {
    /// Starts the threads of a run.
    ///
    /// # Errors
    /// [`Error::Usage`] for no threads, [`Error::Failed`] when the system gives none.
    pub fn new(options: RunOptions) -> Result<Run, Error> {
        let rejects = Arc::new(Rejects::new(options.max_rejects));
        Run::start(options, rejects, watch::Sender::new(Halt::default()))
    }

    /// A run with threads, budget and meter of its own that is a part of this one: what stops or fails one of them ends
    /// the other, and a sample that both refuse counts once.
    ///
    /// # Errors
    /// As [`Run::new`].
    pub fn within(&self, threads: usize, memory_bytes: u64) -> Result<Run, Error> {
        let rejects = self.shared.rejects.clone();
        let options = RunOptions { threads, memory_bytes, max_rejects: rejects.max() };
        Run::start(options, rejects, self.shared.halt.clone())
    }

    fn start(options: RunOptions, rejects: Arc<Rejects>, halt: watch::Sender<Halt>) -> Result<Run, Error> {
        if options.threads == 0 {
            return Err(Error::Usage("threads: 0 is too few, give at least 1".to_string()));
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .thread_name(|index| format!("compute-{index}"))
            .build()
            .map_err(|error| Error::failed(format!("start {} threads", options.threads), error))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            // Its tasks move items and wait; one worker for four threads that compute keeps up with them.
            .worker_threads(options.threads.div_ceil(4))
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("flow")
            .enable_all()
            .build()
            .map_err(|error| Error::failed("start the threads that read and write", error))?;
        let shared = Shared {
            tasks: runtime.handle().clone(),
            pool,
            budget: Budget::new(options.memory_bytes),
            meter: Meter::new(),
            rejects,
            failure: Mutex::new(None),
            halt,
        };
        Ok(Run { shared: Arc::new(shared), runtime: Arc::new(OwnedRuntime(Some(runtime))) })
    }

    /// Waits on this thread, which must not be one of the run's, for `future`.
    pub fn block_on<R>(&self, future: impl Future<Output = R>) -> R {
        self.runtime.0.as_ref().expect("taken only when dropped").block_on(future)
    }

    /// Runs `work` on the pool and waits for it: what it does in parallel, such as candle's matrix products,
    /// uses the pool's threads and no others. `work` must not wait for a flow: it holds a thread that the flow
    /// needs.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.shared.pool.install(work)
    }

    /// A flow of `items`, pulled one at a time when there is room. Pulling must not wait for long.
    #[allow(clippy::disallowed_methods)]
    pub fn source<T: Send + 'static>(
        &self,
        name: &'static str,
        items: impl IntoIterator<Item = T, IntoIter: Send> + Send + 'static,
    ) -> Flow<T> {
        let truncated = Arc::new(AtomicBool::new(false));
        let (output, input) = mpsc::channel(1);
        let open = self.shared.meter.open(name, Verb::Source, 1);
        let flow = Flow { run: self.clone(), input, truncated, weigh: None };
        let (shared, truncated) = (self.shared.clone(), flow.truncated.clone());
        self.shared.tasks.spawn(async move {
            let mut slot = open.slot();
            let mut halt = shared.halt.subscribe();
            slot.to(State::Busy);
            let mut items = match catch_unwind(AssertUnwindSafe(|| items.into_iter())) {
                Ok(items) => items,
                Err(panic) => return shared.fail(Error::panicked(format!("start source {name}"), &*panic)),
            };
            loop {
                slot.to(State::Blocked);
                let permit = tokio::select! {
                    biased;
                    _ = halt.wait_for(|halt| *halt != Halt::default()) => {
                        truncated.store(true, Ordering::SeqCst);
                        return;
                    }
                    permit = output.reserve() => match permit {
                        Ok(permit) => permit,
                        Err(_) => return,
                    },
                };
                slot.to(State::Busy);
                match catch_unwind(AssertUnwindSafe(|| items.next())) {
                    Ok(Some(value)) => {
                        permit
                            .send(Parcel { value, hold: Hold { _token: shared.meter.token(), loan: None } });
                        open.count_out();
                    }
                    Ok(None) => return,
                    Err(panic) => {
                        return shared.fail(Error::panicked(format!("pull from source {name}"), &*panic));
                    }
                }
                // An iterator never waits, so that this task would keep its worker from the others.
                tokio::task::consume_budget().await;
            }
        });
        flow
    }

    /// Closes every source of the run, now and later. [`Flow::collect`] still takes what is in flight; [`Flow::drain`] ends
    /// with the item in the consumer's hands, since what is in flight may never come. Both end with
    /// [`Error::Interrupted`].
    pub fn stop(&self, signal: Interrupt) {
        self.shared.halt.send_modify(|halt| {
            halt.interrupt.get_or_insert(signal);
        });
    }

    /// Who asked the run to stop, if anyone has.
    pub fn interrupted(&self) -> Option<Interrupt> {
        self.shared.halt.borrow().interrupt
    }

    /// Where slot-time goes; live.
    pub fn meter(&self) -> &Meter {
        &self.shared.meter
    }

    /// The samples that were refused; live.
    pub fn rejects(&self) -> &Rejects {
        &self.shared.rejects
    }

    /// The most bytes that were on loan from the byte budget at once.
    pub fn peak_bytes(&self) -> u64 {
        self.shared.budget.peak()
    }
}

/// Runs `work`, which waits for a disk, on one of [`BLOCKING_THREADS`] threads. For use within [`Flow::io`].
///
/// # Panics
/// When `work` panics, and outside a [`Run`].
#[allow(clippy::disallowed_methods)]
pub async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down cancels blocking work, and then nobody waits for this.
            Err(_) => std::future::pending().await,
        },
    }
}

/// An item on its way, with what it holds.
struct Parcel<T> {
    value: T,
    hold: Hold,
}

/// What an item holds until the consumer, a regroup or a gather lets go of it.
struct Hold {
    _token: Token,
    loan: Option<Loan>,
}

/// Cuts an item into parts and tells what each takes from the byte budget.
type Weigh<T> = Arc<dyn Fn(T) -> Vec<(T, u64)> + Send + Sync>;

/// A flow of items of one type; dropping it closes its source. Each verb adds a node, which starts at once.
#[must_use = "a flow that nobody takes from closes its source"]
pub struct Flow<T> {
    /// Keeps the threads alive while somebody takes from the flow: it would otherwise look complete.
    run: Run,
    input: mpsc::Receiver<Parcel<T>>,
    /// Whether the source was closed before its end.
    truncated: Arc<AtomicBool>,
    /// What the next node takes from the byte budget for an item.
    weigh: Option<Weigh<T>>,
}

impl<T: Send + 'static> Flow<T> {
    /// Lets the next `io`, `compute` or `stage` take the bytes of each item from the byte budget, in the order
    /// of the items, before it starts on the item. They are given back when a regroup, a gather or the consumer is
    /// done with it, or exchanged at the next weighed node. An item heavier than the budget runs alone.
    pub fn weighed(self, bytes: impl Fn(&T) -> u64 + Send + Sync + 'static) -> Flow<T> {
        self.weighed_parts(move |item| {
            let bytes = bytes(&item);
            vec![(item, bytes)]
        })
    }

    /// As [`Flow::weighed`], where an item may turn out too heavy to pass as one: `parts` cuts it into items of its
    /// own, in their order, each with its bytes.
    pub fn weighed_parts(self, parts: impl Fn(T) -> Vec<(T, u64)> + Send + Sync + 'static) -> Flow<T> {
        Flow { weigh: Some(Arc::new(parts)), ..self }
    }

    /// Waits for something outside, such as a read, for up to `room.slots` items at once.
    /// An error of `work` ends the run.
    #[allow(clippy::disallowed_methods)]
    pub fn io<U, Work>(
        self,
        name: &'static str,
        room: Room,
        work: impl Fn(T) -> Work + Send + Sync + 'static,
    ) -> Flow<U>
    where
        U: Send + 'static,
        Work: Future<Output = Result<U, Error>> + Send + 'static,
    {
        let tasks = self.run.shared.tasks.clone();
        let work = Arc::new(work);
        let open = self.run.shared.meter.open(name, Verb::Io, room.slots());
        self.window((open.clone(), open), room, move |index, value, mut slot, mut reply| {
            let work = work.clone();
            tasks.spawn(async move {
                slot.to(State::Busy);
                // The call itself is inside, because it may panic before its future is polled.
                let working = AssertUnwindSafe(async { work(value).await }).catch_unwind();
                let result = tokio::select! {
                    biased;
                    _ = reply.closed() => return,
                    result = working => result,
                };
                slot.to(State::Blocked);
                // Fails only when the node is gone, and then nobody wants it.
                let _ = reply.send((slot, flatten(result, || format!("run {name} on item {index}"))));
            });
        })
    }

    /// Works on the pool, on up to `room.slots` items at once. An error of `work` ends the run.
    pub fn compute<U: Send + 'static>(
        self,
        name: &'static str,
        room: Room,
        work: impl Fn(T) -> Result<U, Error> + Send + Sync + 'static,
    ) -> Flow<U> {
        let open = self.run.shared.meter.open(name, Verb::Compute, room.slots());
        self.pooled((open.clone(), open), room, move |_, value| work(value))
    }

    #[allow(clippy::disallowed_methods)]
    fn pooled<U: Send + 'static>(
        self,
        open: (Arc<Open>, Arc<Open>),
        room: Room,
        work: impl Fn(&mut Slot, T) -> Result<U, Error> + Send + Sync + 'static,
    ) -> Flow<U> {
        let shared = self.run.shared.clone();
        let (work, name) = (Arc::new(work), open.0.name());
        self.window(open, room, move |index, value, mut slot, reply| {
            let work = work.clone();
            shared.pool.spawn(move || {
                if reply.is_closed() {
                    return;
                }
                slot.to(State::Busy);
                let result = catch_unwind(AssertUnwindSafe(|| work(&mut slot, value)));
                slot.to(State::Blocked);
                let _ = reply.send((slot, flatten(result, || format!("run {name} on item {index}"))));
            });
        })
    }

    /// Rearranges the stream. What `regroup` holds back weighs nothing here: the plan accounts for it.
    /// [`Regroup::finish`] is called when the source has ended, and not when the run was stopped or has failed.
    #[allow(clippy::disallowed_methods)]
    pub fn regroup<R: Regroup<In = T>>(self, queue: usize, mut regroup: R) -> Flow<R::Out> {
        let Flow { run, mut input, truncated, weigh: _ } = self;
        let shared = run.shared.clone();
        let open = shared.meter.open(R::NAME, Verb::Regroup, 1);
        let (output, next) = mpsc::channel(queue.max(1));
        let flow = Flow { run, input: next, truncated, weigh: None };
        let truncated = flow.truncated.clone();
        flow.run.shared.tasks.spawn(async move {
            let failure = shared.wait_for_failure();
            let gone = output.closed();
            tokio::pin!(failure, gone);
            let mut slot = open.slot();
            let mut out = Vec::new();
            let mut ended = false;
            while !ended {
                slot.to(State::Starved);
                let parcel = tokio::select! {
                    biased;
                    () = &mut failure => return,
                    () = &mut gone => return,
                    parcel = input.recv() => parcel,
                };
                slot.to(State::Busy);
                let pushed = match parcel {
                    Some(Parcel { value, hold }) => {
                        open.count_in();
                        let pushed = catch_unwind(AssertUnwindSafe(|| regroup.push(value, &mut out)));
                        drop(hold);
                        pushed
                    }
                    None if truncated.load(Ordering::SeqCst) || shared.failed() => return,
                    None => {
                        ended = true;
                        catch_unwind(AssertUnwindSafe(|| regroup.finish(&mut out)))
                    }
                };
                if let Err(panic) = pushed {
                    return shared.fail(Error::panicked(format!("run {}", R::NAME), &*panic));
                }
                slot.to(State::Blocked);
                let parcels: Vec<_> = out
                    .drain(..)
                    .map(|value| Parcel { value, hold: Hold { _token: shared.meter.token(), loan: None } })
                    .collect();
                for parcel in parcels {
                    if output.send(parcel).await.is_err() {
                        return;
                    }
                    open.count_out();
                }
            }
        });
        flow
    }

    /// Gives the items to `consumer` on a thread called `name`, which may wait and block as it likes. The
    /// consumer starts at once; an early return closes the source.
    ///
    /// # Errors
    /// The first error of the run, that of `consumer` among them, or [`Error::Interrupted`] when the source was
    /// stopped before its end; `consumer` has returned by then and has had its chance to save what it has.
    #[allow(clippy::disallowed_methods)]
    pub fn drain<R: Send + 'static>(
        self,
        name: &'static str,
        consumer: impl FnOnce(Items<T>) -> Result<R, Error> + Send + 'static,
    ) -> impl Future<Output = Result<R, Error>> + Send + 'static {
        let Flow { run, input, truncated, .. } = self;
        let open = run.shared.meter.open(name, Verb::Drain, 1);
        let mut slot = open.slot();
        slot.to(State::Busy);
        let end = End { run: run.clone(), truncated: truncated.clone() };
        let halt = run.shared.halt.subscribe();
        let items = Items { run, truncated, input, halt, slot, hold: None };
        let (reply, answer) = oneshot::channel();
        let thread = std::thread::Builder::new().name(name.to_string()).spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(|| consumer(items)));
            // Nobody waits when the future was dropped.
            let _ = reply.send(flatten(result, || format!("run {name}")));
        });
        async move {
            if let Err(error) = thread {
                end.run.shared.fail(Error::failed(format!("start the thread {name}"), error));
            }
            match answer.await {
                Ok(result) => end.of(result),
                Err(_) => Err(end.run.shared.failure().expect("the thread answers unless it did not start")),
            }
        }
    }

    /// All items, in order.
    ///
    /// # Errors
    /// The first error of the run, or [`Error::Interrupted`] when the source was stopped before its end, since
    /// the items would then look complete and not be.
    pub async fn collect(self) -> Result<Vec<T>, Error> {
        let Flow { run, mut input, truncated, .. } = self;
        let end = End { run, truncated };
        let mut items = Vec::new();
        while let Some(Parcel { value, .. }) = input.recv().await {
            items.push(value);
        }
        end.of(Ok(items))
    }
}

/// A panic becomes the error of whoever caught it.
fn flatten<U>(
    result: Result<Result<U, Error>, Box<dyn Any + Send>>,
    attempt: impl FnOnce() -> String,
) -> Result<U, Error> {
    result.unwrap_or_else(|panic| Err(Error::panicked(attempt(), &*panic)))
}

/// The items of a flow, for a consumer on a thread of its own. Ends early, and at once, when the run fails or is stopped.
pub struct Items<T> {
    run: Run,
    truncated: Arc<AtomicBool>,
    input: mpsc::Receiver<Parcel<T>>,
    halt: watch::Receiver<Halt>,
    slot: Slot,
    /// What the item in the consumer's hands holds.
    hold: Option<Hold>,
}

impl<T> Items<T> {
    /// Who stopped the source before its end, if anyone has. Certain once the items have ended.
    pub fn interrupted(&self) -> Option<Interrupt> {
        self.run.interrupted().filter(|_| self.truncated.load(Ordering::SeqCst))
    }
}

impl<T> Iterator for Items<T> {
    type Item = T;

    /// # Panics
    /// On a thread of the pool, which the flow may need to make the item.
    fn next(&mut self) -> Option<T> {
        assert!(rayon::current_thread_index().is_none(), "a thread of the pool must not wait for a flow");
        self.hold = None;
        self.slot.to(State::Starved);
        let Items { run, truncated, input, halt, .. } = &mut *self;
        let parcel = run.shared.tasks.block_on(async {
            tokio::select! {
                biased;
                // What is on its way may wait for a store that says nothing.
                _ = halt.wait_for(|halt| *halt != Halt::default()) => {
                    truncated.store(true, Ordering::SeqCst);
                    None
                }
                parcel = input.recv() => parcel,
            }
        });
        self.slot.to(State::Busy);
        let Parcel { value, hold } = parcel?;
        self.slot.open().count_in();
        self.slot.open().count_out();
        self.hold = Some(hold);
        Some(value)
    }
}

/// How a flow ended, asked by its consumer.
struct End {
    run: Run,
    truncated: Arc<AtomicBool>,
}

impl End {
    fn of<R>(&self, result: Result<R, Error>) -> Result<R, Error> {
        let cut = self.run.interrupted().filter(|_| self.truncated.load(Ordering::SeqCst));
        let result = match (result, cut) {
            // That nothing came is no finding where not all was let through.
            (Err(Error::NothingLeft(_)), Some(interrupt)) => Err(Error::Interrupted(interrupt)),
            (result, _) => result,
        };
        let result = result.inspect_err(|error| self.run.shared.fail(error.clone()));
        if let Some(error) = self.run.shared.failure() {
            return Err(error);
        }
        match cut {
            Some(interrupt) => Err(Error::Interrupted(interrupt)),
            None => result,
        }
    }
}

#[cfg(test)]
mod tests;
