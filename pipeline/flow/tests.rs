//! The claims of the runtime: bounds that equal their formulas, order, stops, panics, bottlenecks.

use std::process::{Command, Output};
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use forebay_datasets::sample::Fault;
use forebay_datasets::seed::Seed;
use forebay_stages::stage::{Draws, Gather, Stage};

use super::*;

const ONE: Room = Room { slots: 1, queue: 1 };

fn run_with(threads: usize, memory_bytes: u64, max_rejects: MaxRejects) -> Run {
    Run::new(RunOptions { threads, memory_bytes, max_rejects }).unwrap()
}

fn run(threads: usize) -> Run {
    run_with(threads, 1 << 20, MaxRejects::Count(0))
}

/// Waits for `future`; a minute is a deadlock, not a slow machine.
fn wait<R>(run: &Run, future: impl Future<Output = R>) -> R {
    run.block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await }).expect("a deadlock")
}

/// Waits until `condition` holds.
fn wait_until(run: &Run, what: &str, condition: impl Fn() -> bool) {
    let polls = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    run.block_on(async { tokio::time::timeout(Duration::from_secs(60), polls).await }).expect(what);
}

/// Gives every task and thread many turns in which it could do what it should not.
fn let_it_run(run: &Run) {
    run.block_on(async {
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

fn sample<P>(id: &str, payload: P) -> Sample<P> {
    Sample { id: id.into(), copy: 0, label: 0, payload: Ok(payload) }
}

/// `n` samples in chunks of `chunk`, with their number as payload.
fn chunks(n: u32, chunk: usize) -> Vec<Chunk<u32>> {
    let samples: Vec<_> = (0..n).map(|i| sample(&format!("{i}.png"), i)).collect();
    samples.chunks(chunk).map(<[_]>::to_vec).collect()
}

/// Refuses the numbers below its own, and panics at `u32::MAX`.
struct Picky(u32);

impl Stage for Picky {
    const NAME: &'static str = "picky";
    type In = u32;
    type Out = u32;

    fn apply(&self, input: u32, _: &Draws) -> Result<u32, Fault> {
        assert!(input != u32::MAX, "a number too far");
        if input < self.0 { Err(Fault::new(Self::NAME, format!("{input} is small"))) } else { Ok(input) }
    }
}

/// Passes items on, one by one, as slowly as asked; counts how often it was finished.
struct Pass<T> {
    pause: Duration,
    finished: Arc<AtomicUsize>,
    item: std::marker::PhantomData<fn(T) -> T>,
}

fn pass<T>() -> Pass<T> {
    Pass { pause: Duration::ZERO, finished: Arc::default(), item: std::marker::PhantomData }
}

impl<T: Send + 'static> Regroup for Pass<T> {
    const NAME: &'static str = "pass";
    type In = T;
    type Out = T;

    fn push(&mut self, item: T, out: &mut Vec<T>) {
        std::thread::sleep(self.pause);
        out.push(item);
    }

    fn finish(&mut self, _: &mut Vec<T>) {
        self.finished.fetch_add(1, Ordering::SeqCst);
    }
}

/// Makes sums of five numbers each; counts those that it has begun.
#[derive(Default)]
struct Sums {
    held: std::collections::VecDeque<u64>,
    sum: Option<(u64, usize)>,
    begun: Arc<AtomicUsize>,
}

impl Gather for Sums {
    const NAME: &'static str = "sums";
    type In = u64;
    type Out = u64;

    fn take(&mut self, number: u64) {
        assert!(number != u64::MAX, "a number too far");
        self.held.push_back(number);
    }

    fn fill(&mut self) -> Option<u64> {
        while let Some(number) = self.held.pop_front() {
            let (sum, n) = self.sum.take().unwrap_or_else(|| {
                self.begun.fetch_add(1, Ordering::SeqCst);
                (0, 0)
            });
            match n {
                4 => return Some(sum + number),
                _ => self.sum = Some((sum + number, n + 1)),
            }
        }
        None
    }

    fn is_idle(&self) -> bool {
        self.held.is_empty()
    }
}

/// An endless source that counts its items and tells when it was dropped.
struct Spring {
    pulled: Arc<AtomicUsize>,
    _dropped: SyncSender<()>,
}

fn spring() -> (Spring, Arc<AtomicUsize>, Receiver<()>) {
    let pulled = Arc::new(AtomicUsize::new(0));
    let (dropped, is_dropped) = sync_channel(1);
    (Spring { pulled: pulled.clone(), _dropped: dropped }, pulled, is_dropped)
}

impl Iterator for Spring {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        Some(self.pulled.fetch_add(1, Ordering::SeqCst))
    }
}

/// Waits until the spring is dropped: its sender then goes without having sent.
fn wait_until_dropped(is_dropped: &Receiver<()>) {
    let end = is_dropped.recv_timeout(Duration::from_secs(60));
    assert_eq!(end, Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
}

/// A consumer that takes one item and holds it until told to go on; returns how many it took in all.
fn stalled<T>(release: Receiver<()>, take: usize) -> impl FnOnce(Items<T>) -> Result<usize, Error> {
    move |mut items| {
        let first = items.next();
        let _ = release.recv();
        drop(first);
        Ok(1 + items.take(take - 1).count())
    }
}

#[test]
fn the_peak_in_flight_is_what_the_formula_says_and_stays_there() {
    let rooms = [
        [ONE, ONE],
        [Room { slots: 3, queue: 2 }, Room { slots: 1, queue: 4 }],
        [Room { slots: 8, queue: 1 }, Room { slots: 5, queue: 7 }],
        [Room { slots: 0, queue: 0 }, Room { slots: 2, queue: 0 }],
    ];
    for threads in [1, 2] {
        for [read, work] in rooms {
            let run = run(threads);
            let (spring, pulled, _) = spring();
            let (release, released) = sync_channel(1);
            let flow =
                run.source("spring", spring).io("read", read, async |i| Ok(i)).compute("work", work, Ok);
            let end = flow.regroup(3, pass()).drain("sink", stalled(released, 500));

            let formula = peak_items(&[read, work, Room { slots: 1, queue: 3 }]);
            wait_until(&run, "the flow fills up", || run.meter().items_in_flight() == formula);
            let_it_run(&run);
            assert_eq!(pulled.load(Ordering::SeqCst), formula, "a stalled consumer stops the source");

            release.send(()).unwrap();
            assert_eq!(wait(&run, end).unwrap(), 500);
            assert_eq!(run.meter().peak_items(), formula);
        }
    }
}

#[test]
fn the_peak_in_bytes_is_what_the_formula_says_and_stays_there() {
    let (read, work) = (Room { slots: 3, queue: 2 }, Room { slots: 4, queue: 1 });
    // Room for all; for three; for one that just fits; an item heavier than the budget; weightless items.
    for (item_bytes, memory_bytes, expected) in
        [(10, 1000, 110), (10, 35, 30), (35, 35, 35), (100, 35, 35), (0, 35, 0)]
    {
        let run = run_with(2, memory_bytes, MaxRejects::Count(0));
        let (spring, pulled, _) = spring();
        let (release, released) = sync_channel(1);
        let end = run
            .source("spring", spring)
            .weighed(move |_| item_bytes)
            .io("read", read, async |i| Ok(i))
            .compute("work", work, Ok)
            .drain("sink", stalled(released, 200));

        assert_eq!(peak_bytes(&[read, work], item_bytes, memory_bytes), expected);
        wait_until(&run, "the budget is used", || {
            run.peak_bytes() == expected && pulled.load(Ordering::SeqCst) >= 3
        });
        let_it_run(&run);
        release.send(()).unwrap();
        assert_eq!(wait(&run, end).unwrap(), 200);
        assert_eq!(run.peak_bytes(), expected);
    }
}

#[test]
fn what_is_slow_is_named() {
    let nothing_helps = "neither one more core nor a faster store would give more";
    let cases: [(&str, [u64; 4], usize, &str, &str); 5] = [
        ("read", [20, 0, 0, 0], 2, "the store bounds it: read waits for it ", "one more core nothing"),
        ("work", [0, 20, 0, 0], 2, "work bounds it, busy ", nothing_helps),
        ("pass", [0, 0, 20, 0], 2, "pass bounds it, busy ", nothing_helps),
        ("sink", [0, 0, 0, 20], 2, "the consumer bounds it: sink is busy ", nothing_helps),
        // Eight slots and one thread.
        ("work", [0, 20, 0, 0], 1, "the one core bounds it, busy ", "(+100 %), a faster store nothing"),
    ];
    for (name, pauses, threads, words, gains) in cases {
        let [read, work, regroup, sink] = pauses.map(Duration::from_millis);
        let run = run(threads);
        let slots = if threads == 1 { 8 } else { 2 };
        let pass = Pass { pause: regroup, ..pass() };
        let began = std::time::Instant::now();
        let end = run
            .source("numbers", 0..40)
            .io("read", Room { slots: 2, queue: 1 }, move |i| async move {
                if !read.is_zero() {
                    tokio::time::sleep(read).await;
                }
                Ok(i)
            })
            .compute("work", Room { slots, queue: 1 }, move |i| {
                std::thread::sleep(work);
                Ok(i)
            })
            .regroup(1, pass)
            .drain("sink", move |items| Ok(items.map(|_| std::thread::sleep(sink)).count()));
        assert_eq!(wait(&run, end).unwrap(), 40);
        let (seconds, reports) = (began.elapsed().as_secs_f64(), run.meter().report());
        let bound = Bound::of(&reports, seconds, threads, threads).unwrap();
        assert_eq!(bound.stage, name, "{reports:#?}");
        let said = bound.in_words("items", 40.0 / seconds);
        assert!(said.starts_with(words) && said.ends_with(gains), "{said}");
        for report in &reports {
            let sum = report.busy + report.contended + report.blocked + report.starved;
            assert!((sum - 1.0).abs() < 1e-9, "{report:?}");
        }
    }
}

#[test]
fn a_run_within_another_is_stopped_with_it_and_counts_its_rejects() {
    let outer = run_with(2, 1 << 20, MaxRejects::Count(9));
    let inner = outer.within(1, 1 << 20).unwrap();
    outer.rejects().begin(20);
    for run in [&inner, &outer] {
        let end = run.source("chunks", chunks(6, 2)).stage(ONE, Seed(0), 0, Picky(3)).collect();
        wait(run, end).unwrap();
    }
    assert_eq!((inner.rejects().rejected(), outer.rejects().rejected()), (3, 3), "three, each twice");
    assert_eq!(inner.meter().samples("picky"), 6);
    outer.stop(Interrupt::CtrlC);
    let end = inner.source("chunks", chunks(6, 2)).drain("sink", |items| Ok(items.count()));
    assert!(matches!(wait(&inner, end), Err(Error::Interrupted(Interrupt::CtrlC))));
}

#[test]
fn a_closed_consumer_stops_the_source() {
    let run = run(2);
    let (spring, _, is_dropped) = spring();
    let end = run
        .source("spring", spring)
        .io("read", ONE, async |i| Ok(i))
        .compute("work", ONE, Ok)
        .regroup(1, pass())
        .drain("sink", |items| Ok(items.take(3).collect::<Vec<_>>()));
    assert_eq!(wait(&run, end).unwrap(), [0, 1, 2]);
    wait_until_dropped(&is_dropped);
}

#[test]
fn a_flow_that_nobody_takes_from_stops_while_it_waits() {
    let run = run(1);
    let (spring, _, is_dropped) = spring();
    let flow = run.source("spring", spring).io("read", ONE, |_| std::future::pending::<Result<(), Error>>());
    drop(flow);
    wait_until_dropped(&is_dropped);
}

#[test]
fn a_job_whose_consumer_is_gone_is_skipped() {
    let run = run(1);
    let (spring, pulled, is_dropped) = spring();
    let (release, released) = sync_channel(1);
    let released = Mutex::new(released);
    let started = Arc::new(AtomicUsize::new(0));
    let counter = started.clone();
    let flow = run.source("spring", spring).compute("work", Room { slots: 5, queue: 1 }, move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        let _ = released.lock().unwrap().recv();
        Ok(())
    });
    // Five on the pool, of which one runs, and one in the hands of the source.
    wait_until(&run, "the pool is full", || {
        pulled.load(Ordering::SeqCst) == 6 && started.load(Ordering::SeqCst) == 1
    });
    drop(flow);
    wait_until_dropped(&is_dropped);
    release.send(()).unwrap();
    // The pool is first in, first out, so that this runs after the five.
    run.install(|| ());
    assert_eq!(started.load(Ordering::SeqCst), 1);
}

#[test]
fn a_budget_smaller_than_a_window_or_shared_by_weighed_nodes_and_flows_is_no_deadlock() {
    let room = Room { slots: 8, queue: 2 };
    for threads in [1, 2] {
        let run = run_with(threads, 5, MaxRejects::Count(0));
        let flow = || {
            run.source("numbers", 0..100u64)
                .weighed(|i| 1 + i % 4)
                .io("read", room, async |i| Ok(i))
                .weighed(|i| 9 - i % 7)
                .compute("work", room, Ok)
        };
        // The second is read first, while the first holds all of the budget that it can get.
        let (first, second) = (flow(), flow());
        assert_eq!(wait(&run, second.collect()).unwrap(), (0..100).collect::<Vec<_>>());
        assert_eq!(wait(&run, first.collect()).unwrap(), (0..100).collect::<Vec<_>>());
    }
}

#[test]
fn order_is_kept_whatever_finishes_first() {
    let run = run(4);
    let room = Room { slots: 16, queue: 4 };
    let pause = |purpose: &'static str, i: u64| Seed(i).stream(purpose).below(2000);
    let flow = run
        .source("numbers", 0..300)
        .io("read", room, move |i| async move {
            tokio::time::sleep(Duration::from_micros(pause("read", i))).await;
            Ok(i)
        })
        .compute("work", room, move |i| {
            std::thread::sleep(Duration::from_micros(pause("work", i)));
            Ok(i)
        });
    assert_eq!(wait(&run, flow.collect()).unwrap(), (0..300).collect::<Vec<_>>());
}

#[test]
fn an_interrupted_run_collects_what_is_in_flight_and_finishes_no_group() {
    let run = run(2);
    let (spring, pulled, _) = spring();
    let (pass, delivered) = (pass(), Arc::new(AtomicUsize::new(0)));
    let (finished, counter) = (pass.finished.clone(), delivered.clone());
    let stopper = run.clone();
    let end = run
        .source("spring", spring)
        .compute("work", Room { slots: 4, queue: 2 }, Ok)
        .regroup(2, pass)
        .io("sink", ONE, move |item| {
            counter.fetch_add(1, Ordering::SeqCst);
            if item == 10 {
                stopper.stop(Interrupt::Terminate);
                stopper.stop(Interrupt::CtrlC);
            }
            async move { Ok(item) }
        })
        .collect();
    let error = wait(&run, end).unwrap_err();
    assert!(matches!(error, Error::Interrupted(Interrupt::Terminate)), "{error}");
    assert_eq!(error.exit_code(), 143);
    assert_eq!(delivered.load(Ordering::SeqCst), pulled.load(Ordering::SeqCst));
    assert_eq!(finished.load(Ordering::SeqCst), 0);
    // Sources that come later are closed too.
    let error = wait(&run, run.source("spring", 0..3).collect()).unwrap_err();
    assert!(matches!(error, Error::Interrupted(Interrupt::Terminate)), "{error}");
}

#[test]
fn an_interrupted_consumer_does_not_wait_for_a_store_that_says_nothing() {
    let run = run(2);
    let stopper = run.clone();
    let end = run
        .source("numbers", 0u64..)
        .io("silent", Room { slots: 4, queue: 2 }, |i| async move {
            match i {
                0..3 => Ok(i),
                _ => std::future::pending().await,
            }
        })
        .drain("train", move |mut items| {
            let seen: Vec<u64> = items.by_ref().take(3).collect();
            stopper.stop(Interrupt::Terminate);
            assert_eq!(
                (seen, items.next(), items.interrupted()),
                (vec![0, 1, 2], None, Some(Interrupt::Terminate))
            );
            Ok(())
        });
    let error = wait(&run, end).unwrap_err();
    assert!(matches!(error, Error::Interrupted(Interrupt::Terminate)), "{error}");
}

#[test]
fn a_consumer_that_was_cut_short_has_not_found_that_nothing_came() {
    let run = run(1);
    let stopper = run.clone();
    let end = run.source("numbers", 0u64..).drain("evaluate", move |mut items| {
        stopper.stop(Interrupt::Terminate);
        while items.next().is_some() {}
        Err::<(), _>(Error::NothingLeft("no image could be read".into()))
    });
    let error = wait(&run, end).unwrap_err();
    assert!(matches!(error, Error::Interrupted(Interrupt::Terminate)), "{error}");
    assert!(matches!(
        wait(&run, run.source("none", 0..3).collect()),
        Err(Error::Interrupted(Interrupt::Terminate))
    ));
}

#[test]
fn a_plan_that_waits_is_left_when_the_run_is_stopped() {
    let run = run(1);
    let stopper = run.clone();
    let planning = run.until_stopped(move || async move {
        stopper.stop(Interrupt::HangUp);
        std::future::pending::<Result<(), Error>>().await
    });
    let error = wait(&run, planning).unwrap_err();
    assert_eq!((error.exit_code(), error.to_string().as_str()), (129, "interrupted by SIGHUP"));
}

#[test]
fn a_regroup_is_finished_at_the_end_and_not_after_a_failure() {
    for (fails, n_finished) in [(false, 1), (true, 0)] {
        let run = run(1);
        let pass = pass();
        let finished = pass.finished.clone();
        let flow = run
            .source("numbers", 0..20)
            .compute("work", ONE, move |i| match i {
                19 if fails => Err(Error::failed("work on 19", "it is prime")),
                _ => Ok(i),
            })
            .regroup(1, pass);
        assert_eq!(wait(&run, flow.collect()).is_err(), fails);
        assert_eq!(finished.load(Ordering::SeqCst), n_finished);
    }
}

#[test]
fn nothing_is_gathered_before_there_is_room_for_it() {
    for places in [1, 2, 4] {
        let run = run_with(2, 1 << 20, MaxRejects::Count(0));
        let (release, released) = sync_channel(1);
        let sums = Sums::default();
        let begun = sums.begun.clone();
        let flow =
            run.source("numbers", 0..500_u64).weighed(|_| 1).compute("work", ONE, Ok).gather(places, sums);
        let end = flow.drain("sink", stalled(released, 100));
        // One in the hands of the consumer.
        wait_until(&run, "sums that wait", || begun.load(Ordering::SeqCst) == places + 1);
        let_it_run(&run);
        assert_eq!(begun.load(Ordering::SeqCst), places + 1);
        release.send(()).unwrap();
        assert_eq!(wait(&run, end).unwrap(), 100);
        // Those that work was done on at once, those that waited for it, and those that were taken for a sum.
        assert!(run.peak_bytes() <= 3 + 4 + 1, "{}", run.peak_bytes());
    }
}

#[test]
fn what_is_gathered_is_what_came_in_its_order_and_the_end_of_it_ends_the_flow() {
    for (n, places) in (0..40).map(|n| (n * 3, 1 + n as usize % 3)) {
        let run = run(2);
        let flow = run.source("numbers", 0..n).gather(places, Sums::default()).compute("work", ONE, Ok);
        let expected: Vec<u64> = (0..n / 5).map(|sum| 25 * sum + 10).collect();
        assert_eq!(wait(&run, flow.collect()).unwrap(), expected);
        assert_eq!((run.meter().items_in_flight(), run.meter().items("sums")), (0, n / 5));
    }
    let run = run(1);
    let (spring, _, is_dropped) = spring();
    drop(run.source("spring", spring).compute("work", ONE, |i| Ok(i as u64)).gather(1, Sums::default()));
    wait_until_dropped(&is_dropped);
}

#[test]
fn a_panic_names_the_node_and_the_item() {
    struct Trip;
    impl Regroup for Trip {
        const NAME: &'static str = "trip";
        type In = u32;
        type Out = u32;
        fn push(&mut self, item: u32, _: &mut Vec<u32>) {
            assert!(item < 3, "over a stone");
        }
    }
    fn check<T: Send + 'static>(build: impl FnOnce(Flow<u32>) -> Flow<T>, expected: &str) {
        let run = run(2);
        let flow = build(run.source("numbers", 0..1000));
        let error = wait(&run, flow.collect()).err().expect("a panic is an error");
        assert_eq!((error.chain().as_str(), error.exit_code()), (expected, 1));
    }
    fn at_3(i: u32) -> Result<u32, Error> {
        if i == 3 { panic!("no {i}") } else { Ok(i) }
    }
    check(|flow| flow.compute("work", ONE, at_3), "cannot run work on item 3: it panicked: no 3");
    check(
        |flow| flow.io("read", ONE, move |i| async move { at_3(i) }),
        "cannot run read on item 3: it panicked: no 3",
    );
    check(
        |flow| flow.io("read", ONE, move |i| std::future::ready(at_3(i))),
        "cannot run read on item 3: it panicked: no 3",
    );
    check(
        |flow| flow.io("read", ONE, move |i| blocking(move || at_3(i))),
        "cannot run read on item 3: it panicked: no 3",
    );
    check(|flow| flow.regroup(1, Trip), "cannot run trip: it panicked: over a stone");
    check(
        |flow| {
            flow.compute("work", ONE, |i| Ok(if i == 8 { u64::MAX } else { 1 })).gather(1, Sums::default())
        },
        "cannot run sums: it panicked: a number too far",
    );
    check(
        |flow| flow.weighed(|i| u64::from(at_3(*i).unwrap_or(0))).compute("work", ONE, Ok),
        "cannot weigh an item of work: it panicked: no 3",
    );
    check(
        |flow| {
            let number = |i| if i == 7 { u32::MAX } else { i };
            let chunk =
                move |i: u32| Ok(vec![sample("cat/a.png", 5), sample(&format!("dog/{i}.png"), number(i))]);
            flow.compute("chunk", ONE, chunk).stage(ONE, Seed(0), 0, Picky(0))
        },
        "cannot run picky on dog/7.png: it panicked: a number too far",
    );

    let run = run(2);
    let end = run.source("numbers", 0..9).drain("sink", |_| -> Result<(), Error> { panic!("full") });
    assert_eq!(wait(&run, end).unwrap_err().chain(), "cannot run sink: it panicked: full");
    let run = self::run(2);
    let flow = run.source("numbers", (0..9).map(at_3));
    assert_eq!(
        wait(&run, flow.collect()).unwrap_err().chain(),
        "cannot pull from source numbers: it panicked: no 3"
    );
}

#[test]
fn the_first_error_wins_and_ends_every_flow() {
    let run = run(2);
    let (spring, _, is_dropped) = spring();
    let other = run.source("spring", spring).io("read", ONE, async |i| Ok(i)).collect();
    let end = run
        .source("numbers", 0..100)
        .compute("work", Room { slots: 4, queue: 1 }, |i| match i {
            5 => Err(Error::failed("work on 5", "it is odd")),
            _ => Ok(i),
        })
        .drain("sink", |items| -> Result<(), Error> {
            Err(Error::failed("train", format!("only {} items came", items.count())))
        });
    assert_eq!(wait(&run, end).unwrap_err().chain(), "cannot work on 5: it is odd");
    wait_until_dropped(&is_dropped);
    assert_eq!(wait(&run, other).unwrap_err().chain(), "cannot work on 5: it is odd");
    assert_eq!(
        wait(&run, run.source("later", 0..3).collect()).unwrap_err().chain(),
        "cannot work on 5: it is odd"
    );
}

#[test]
fn an_error_of_the_consumer_comes_out() {
    let run = run(1);
    let end = run.source("numbers", 0..).drain("sink", |items| -> Result<(), Error> {
        Err(Error::failed("train", format!("no memory after {:?}", items.take(2).last())))
    });
    assert_eq!(wait(&run, end).unwrap_err().chain(), "cannot train: no memory after Some(1)");
}

/// Rejects are a function of what is read: wherever the refused ones stand, the run fails when they are more than a
/// share of all, and not when they come early.
#[test]
fn a_share_of_rejects_is_a_share_of_the_whole_run_wherever_they_stand() {
    for (n, first_refused, refused, fails) in [
        (2000, 0, 100, false),
        (2000, 0, 101, true),
        (2000, 1899, 101, true),
        (2000, 1900, 100, false),
        (20, 0, 1, false),
        (20, 0, 2, true),
    ] {
        let run = run_with(2, 1, MaxRejects::Share(0.05));
        run.rejects().begin(n.into());
        let mut samples = chunks(n, 1);
        for sample in &mut samples[first_refused..first_refused + refused] {
            sample[0].payload = Err(Fault::new("read", "no such file"));
        }
        let flow = run.source("samples", samples).stage(ONE, Seed(0), 0, Picky(0));
        assert_eq!(wait(&run, flow.collect()).is_err(), fails, "{refused} of {n} from {first_refused} on");
    }
}

#[test]
fn a_sample_is_rejected_once_whatever_its_copies_and_epochs() {
    let run = run_with(2, 1, MaxRejects::Count(1));
    for epoch in 0..10 {
        let mut copies = chunks(10, 1);
        for (copy, chunk) in (0..).zip(&mut copies) {
            (chunk[0].id, chunk[0].copy) = ("a.png".into(), copy);
        }
        let flow = run.source("samples", copies).stage(ONE, Seed(0), epoch, Picky(50));
        assert_eq!(wait(&run, flow.collect()).unwrap().len(), 10);
    }
    assert_eq!(run.rejects().rejected(), 1);
    let other = run.source("samples", chunks(1, 1)).stage(ONE, Seed(0), 0, Picky(50));
    assert_eq!(wait(&run, other.collect()).unwrap_err().exit_code(), 3);
}

#[test]
fn a_count_of_rejects_is_checked_at_each_and_the_error_says_why() {
    let run = run_with(1, 1, MaxRejects::Count(4));
    run.rejects().begin(50);
    let flow = run.source("samples", chunks(50, 1)).stage(ONE, Seed(0), 0, Picky(50));
    let error = wait(&run, flow.collect()).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert_eq!(
        error.to_string(),
        "5 of 50 samples were rejected, which is more than 4; the first: 0.png: picky: 0 is small; \
         1.png: picky: 1 is small; 2.png: picky: 2 is small; mend them or allow more with --max-rejects"
    );
}

#[test]
fn a_tombstone_travels_to_the_end_and_counts_once() {
    let run = run_with(2, 1, MaxRejects::Count(4));
    let mut samples = chunks(30, 7);
    // Made before the first stage, as a read makes it.
    samples[2][0].payload = Err(Fault::new("read", "no such file"));
    let stages = |flow: Flow<Chunk<u32>>| {
        flow.stage(ONE, Seed(0), 0, Picky(2)).regroup(1, pass()).stage(ONE, Seed(0), 0, Picky(3))
    };
    let out: Vec<_> = wait(&run, stages(run.source("samples", samples)).collect()).unwrap().concat();
    assert_eq!(out.len(), 30);
    for (i, sample) in out.iter().enumerate() {
        assert_eq!(*sample.id, *format!("{i}.png"));
        assert_eq!(sample.payload.is_err(), i < 3 || i == 14);
    }
    assert_eq!(run.rejects().rejected(), 4);
    // Both stages have one name, and so one entry.
    assert_eq!((run.meter().items("picky"), run.meter().samples("picky")), (10, 60));
    assert_eq!(run.meter().items("nobody"), 0);
}

/// Says which thread it is on, after those before it.
struct Threads<const AT: usize>;

impl<const AT: usize> Stage for Threads<AT> {
    const NAME: &'static str = ["first", "second", "third"][AT];
    type In = Vec<String>;
    type Out = Vec<String>;

    fn apply(&self, mut input: Vec<String>, _: &Draws) -> Result<Vec<String>, Fault> {
        assert!(AT < 2 || input[0] != "panic", "a chunk too far");
        input.push(std::thread::current().name().unwrap_or_default().to_string());
        if input[0] == Self::NAME { Err(Fault::new(Self::NAME, "it is named")) } else { Ok(input) }
    }
}

#[test]
fn a_chunk_passes_the_stages_of_a_line_on_one_thread_in_the_slots_of_one_node() {
    let room = Room { slots: 2, queue: 1 };
    let line = |run: &Run, items: Vec<Chunk<Vec<String>>>| {
        let line = run.source("samples", items).line(room, Seed(0), 0, Threads::<0>);
        line.then(Threads::<1>).then(Threads::<2>).start()
    };
    let items = |n: usize| -> Vec<Chunk<Vec<String>>> {
        (0..n).map(|i| vec![sample(&format!("{i}.png"), vec![String::new()]); 3]).collect()
    };
    let run = run_with(4, 1, MaxRejects::Count(1));
    let mut samples = items(50);
    samples[7][1] = sample("bad.png", vec!["second".to_string()]);
    let out = wait(&run, line(&run, samples).collect()).unwrap();
    for sample in out.iter().flatten() {
        match &sample.payload {
            Ok(threads) => assert!(threads[1] == threads[2] && threads[2] == threads[3], "{threads:?}"),
            Err(fault) => assert_eq!(fault.to_string(), "second: it is named"),
        }
    }
    let nodes = run.meter().report();
    assert_eq!(
        nodes.iter().map(|node| node.name).collect::<Vec<_>>(),
        ["samples", "first", "second", "third"]
    );
    for node in &nodes[1..] {
        assert_eq!((node.items_in, node.items_out, node.samples), (50, 50, 150), "{}", node.name);
        assert!(node.peak_items <= 2 && node.busy > 0.0, "{}", node.name);
        let shares = node.busy + node.contended + node.blocked + node.starved;
        assert!((shares - 1.0).abs() < 1e-9, "{}: {shares}", node.name);
    }
    // Whoever does not take leaves one node full, and not three.
    let flow = line(&run, items(50));
    wait_until(&run, "it fills up", || run.meter().items_in_flight() == peak_items(&[room]) - 1);
    let_it_run(&run);
    assert_eq!(run.meter().items_in_flight(), peak_items(&[room]) - 1);
    drop(flow);

    let mut samples = items(3);
    samples[1][2] = sample("worst.png", vec!["panic".to_string()]);
    let error = wait(&run, line(&run, samples).collect()).unwrap_err();
    assert!(error.to_string().contains("run third on worst.png"), "{error}");
}

#[test]
fn a_stage_draws_for_the_sample_its_copy_and_the_epoch() {
    struct Draw;
    impl Stage for Draw {
        const NAME: &'static str = "draw";
        type In = u32;
        type Out = u64;
        fn apply(&self, _: u32, draws: &Draws) -> Result<u64, Fault> {
            Ok(draws.of(Self::NAME).bits())
        }
    }
    let run = run(2);
    let samples = vec![Sample { copy: 2, ..sample("a.png", 0) }];
    let out = wait(&run, run.source("samples", [samples]).stage(ONE, Seed(3), 4, Draw).collect()).unwrap();
    assert_eq!(out[0][0].payload, Ok(Seed(3).draws("a.png", 2, 4).of("draw").bits()));
}

/// Says odd numbers twice and leaves out every fifth.
struct Uneven;

impl Regroup for Uneven {
    const NAME: &'static str = "uneven";
    type In = u64;
    type Out = u64;

    fn push(&mut self, item: u64, out: &mut Vec<u64>) {
        let copies = if item.is_multiple_of(5) { 0 } else { 1 + item % 2 };
        out.extend((0..copies).map(|_| item));
    }

    fn finish(&mut self, out: &mut Vec<u64>) {
        out.push(u64::MAX);
    }
}

#[test]
fn any_threads_rooms_and_budget_give_the_same_items_in_order() {
    let mut draws = Seed(11).stream("stress");
    for round in 0..60 {
        let threads = [1, 2, 8][round % 3];
        let mut room = || Room { slots: 1 + draws.below(6) as usize, queue: 1 + draws.below(4) as usize };
        let (read, work, write, queue) = (room(), room(), room(), room().queue);
        let memory_bytes = 1 + draws.below(50);
        let n = draws.below(150);
        let run = run_with(threads, memory_bytes, MaxRejects::Count(0));
        let flow = run
            .source("numbers", 0..n)
            .io("read", read, async |i| {
                tokio::task::yield_now().await;
                Ok(i)
            })
            .weighed(|i| i * 7 % 31)
            .compute("work", work, Ok)
            .regroup(queue, Uneven)
            .weighed(|i| i % 13)
            .io("write", write, |i| blocking(move || Ok(i)));
        let mut expected = Vec::new();
        (0..n).for_each(|i| Uneven.push(i, &mut expected));
        Uneven.finish(&mut expected);
        let out = if round % 2 == 0 {
            wait(&run, flow.collect())
        } else {
            wait(&run, flow.drain("sink", |items| Ok(items.collect())))
        };
        assert_eq!(out.unwrap(), expected, "{threads} {read:?} {work:?} {write:?} {memory_bytes}");
        assert_eq!(run.meter().items_in_flight(), 0);
    }
}

#[test]
fn no_threads_are_refused() {
    let options = RunOptions { threads: 0, memory_bytes: 1, max_rejects: MaxRejects::Count(0) };
    let error = Run::new(options).err().unwrap();
    assert_eq!(
        (error.to_string().as_str(), error.exit_code()),
        ("threads: 0 is too few, give at least 1", 2)
    );
}

#[test]
fn a_run_may_be_dropped_on_its_own_threads() {
    let run = run(1);
    let (spring, _, is_dropped) = spring();
    let inner = run.clone();
    let flow = run.source("spring", spring).io("read", ONE, move |i| {
        let inner = inner.clone();
        async move { Ok((i, inner.interrupted())) }
    });
    drop(run);
    drop(flow);
    wait_until_dropped(&is_dropped);
}

#[test]
fn a_flow_outlives_the_run_that_it_was_made_of() {
    let other = run(1);
    let flow = run(1).source("numbers", 0..500).io("read", ONE, async |i| Ok(i)).regroup(1, pass());
    assert_eq!(wait(&other, flow.collect()).unwrap().len(), 500);
    let end =
        run(1).source("numbers", 0..500).compute("work", ONE, Ok).drain("sink", |items| Ok(items.count()));
    assert_eq!(wait(&other, end).unwrap(), 500);
}

/// Runs one test of this file again, in a process of its own in which `CHILD` is set.
fn in_a_process_of_its_own(test: &str, variables: &[(&str, String)]) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args([&format!("flow::tests::{test}"), "--exact", "--nocapture"])
        .env(CHILD, "1")
        .envs(variables.iter().map(|(name, value)| (*name, value)))
        .output()
        .unwrap()
}

const CHILD: &str = "FOREBAY_TEST_CHILD";

fn n_threads_of_this_process() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
#[cfg(target_os = "linux")]
fn all_threads_are_counted_those_of_candle_too() {
    use candle_core::{Device, Tensor};

    let threads = 2;
    if std::env::var_os(CHILD).is_none() {
        let variables = candle::candle_variables(threads);
        let output = in_a_process_of_its_own("all_threads_are_counted_those_of_candle_too", &variables);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(limit_candle(threads).is_err(), "this process has threads that may read the environment");
        return;
    }
    let before = n_threads_of_this_process();
    let run = run(threads);
    let trainer = run.clone();
    let square = |n: usize| Tensor::ones((n, n), candle_core::DType::F32, &Device::Cpu).unwrap();
    let end = run
        .source("numbers", 0..20)
        .compute("work", Room { slots: 4, queue: 4 }, move |i| Ok((i, square(300).sqr().unwrap())))
        .drain("train", move |items| {
            let mut peak = 0;
            for (_, tensor) in items {
                let name = trainer.install(|| {
                    let product = square(600).matmul(&square(600)).unwrap();
                    let sums = (&product + &product).unwrap();
                    assert_eq!(
                        (sums.dims(), tensor.matmul(&tensor).unwrap().dims()),
                        (&[600; 2][..], &[300; 2][..])
                    );
                    std::thread::current().name().map(str::to_string)
                });
                assert!(name.unwrap().starts_with("compute-"));
                peak = peak.max(n_threads_of_this_process());
            }
            Ok(peak)
        });
    let peak = wait(&run, end).unwrap();
    // The pool, one that moves the items, and the trainer's own, which waits for the pool.
    assert_eq!(peak - before, threads + 1 + 1);
}

#[test]
fn the_first_signal_stops_the_run_and_the_second_ends_the_process() {
    use nix::sys::signal::{Signal, raise};

    if std::env::var_os(CHILD).is_none() {
        let test = "the_first_signal_stops_the_run_and_the_second_ends_the_process";
        let output = in_a_process_of_its_own(test, &[]);
        assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("stopped: interrupted by SIGTERM"));
        return;
    }
    let run = run(1);
    run.stop_on_signals().unwrap();
    let flow = run.source("spring", 0u64..).io("read", ONE, async |i| Ok(i));
    let end = flow.drain("sink", |items| Ok(items.count()));
    raise(Signal::SIGTERM).unwrap();
    println!("stopped: {}", wait(&run, end).unwrap_err());
    raise(Signal::SIGINT).unwrap();
    wait(&run, std::future::pending::<()>());
}

#[test]
fn every_error_has_its_exit_code() {
    let codes = [
        (Error::Usage("x".into()), 2),
        (Error::Plan(vec!["x".into(), "y".into()]), 2),
        (Error::NothingLeft("x".into()), 3),
        (Error::Integrity("x".into()), 4),
        (Error::Interrupted(Interrupt::CtrlC), 130),
        (Error::Interrupted(Interrupt::Terminate), 143),
        (Error::failed("read a", "gone"), 1),
    ];
    for (error, code) in codes {
        assert_eq!(error.exit_code(), code, "{error}");
    }
}
