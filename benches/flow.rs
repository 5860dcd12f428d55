//! What does a hop cost? And what does keeping the order cost?
//!
//! `hop/*` is the time of one item through one node that does nothing, source and collect subtracted by the
//! reader (`hop/none`). `order/*` is the time of a batch of uneven work, of which every tenth piece takes ten
//! times as long: on the bare pool in any order (the least possible), and through a window of 1, 2 and 4 slots
//! for each thread, which must wait for its head.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forebay::flow::{Flow, MaxRejects, Room, Run, RunOptions};
use forebay_stages::stage::Regroup;

const N_ITEMS: u64 = 10_000;

fn run(threads: usize) -> Run {
    Run::new(RunOptions { threads, memory_bytes: 1 << 30, max_rejects: MaxRejects::Count(0) })
        .expect("threads for a bench")
}

struct Pass;

impl Regroup for Pass {
    const NAME: &'static str = "pass";
    type In = u64;
    type Out = u64;

    fn push(&mut self, item: u64, out: &mut Vec<u64>) {
        out.push(item);
    }
}

fn hops(criterion: &mut Criterion) {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let run = run(threads);
    let room = Room { slots: 2 * threads, queue: 2 * threads };
    let mut group = criterion.benchmark_group("hop");
    group.throughput(Throughput::Elements(N_ITEMS)).sample_size(10);
    type Node = (&'static str, fn(Flow<u64>, Room) -> Flow<u64>);
    let nodes: [Node; 5] = [
        ("none", |flow, _| flow),
        ("io", |flow, room| flow.io("io", room, async |i| Ok(i))),
        ("compute", |flow, room| flow.compute("compute", room, Ok)),
        ("weighed", |flow, room| flow.weighed(|_| 1).compute("weighed", room, Ok)),
        ("regroup", |flow, room| flow.regroup(room.queue, Pass)),
    ];
    for (name, node) in nodes {
        group.bench_function(name, |bencher| {
            bencher.iter(|| run.block_on(node(run.source("numbers", 0..N_ITEMS), room).collect()));
        });
    }
    group.finish();
}

/// A fixed amount of work, about `microseconds` on a core of its own, so that a busy machine does not shorten
/// it as it would a loop that looks at the clock.
fn spin(microseconds: u64) {
    let mut state = 1u64;
    for _ in 0..microseconds * 400 {
        state = black_box(state ^ (state << 13) ^ (state >> 7));
    }
}

fn order(criterion: &mut Criterion) {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let run = run(threads);
    let work = |i: u64| if i.is_multiple_of(10) { 5000 } else { 500 };
    const N_PIECES: u64 = 200;
    let mut group = criterion.benchmark_group("order");
    group.throughput(Throughput::Elements(N_PIECES)).sample_size(10);
    group.bench_function("any", |bencher| {
        bencher.iter(|| {
            run.install(|| {
                rayon::scope(|scope| (0..N_PIECES).for_each(|i| scope.spawn(move |_| spin(work(i)))))
            });
        });
    });
    for slots_per_thread in [1, 2, 4] {
        let room = Room { slots: slots_per_thread * threads, queue: 1 };
        group.bench_function(format!("window of {slots_per_thread} per thread"), |bencher| {
            bencher.iter(|| {
                let flow = run.source("numbers", 0..N_PIECES).compute("spin", room, move |i| {
                    spin(work(i));
                    Ok(())
                });
                run.block_on(flow.collect())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, hops, order);
criterion_main!(benches);
