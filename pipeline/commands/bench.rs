//! How fast the feed is when nothing is trained: images per second and their spread, where slot-time went, what bounds it.
//!
//! Rounds are measured: in each of them everything that is asked for once, so that a machine that becomes slower or faster
//! meanwhile does so for all of it.

mod difference;
mod made;
mod measure;
mod repetition;
mod replay;
mod text;
mod workload;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use forebay_datasets::sample::{Encoded, Sample, Split};
use serde::Serialize;

use crate::feed::{self, Feed, StageAlone};
use crate::flow::{Bound, Error, NodeReport, Run, Verb};
use crate::options::{BenchSweep, Command, Config, Invocation};
use crate::report::{Bar, Unit, Usage, say, say_json, terminal, warn, watched};
use difference::Earlier;
pub use difference::{BesideEarlier, Difference};
pub use made::{BatchMaker, Taker};
pub use measure::{Measure, Measures};
pub use repetition::{Length, Repetition, repetition};
use replay::Replay;
pub use replay::Replayed;
pub use workload::{Machine, Workload};

/// Images that the stages are taken through alone, and the most that their files may take together.
const ALONE: (usize, u64) = (128, 16 << 20);

/// With less than this share of the time for which its threads are at work, a process is not alone.
const UNDISTURBED: f64 = 0.85;

/// So long a stage alone is measured in a round, at most.
const ALONE_SECONDS: f64 = 2.0;

/// What a bench measured.
#[derive(Clone, Debug, Serialize)]
pub struct Benched {
    /// What was fed.
    pub workload: Workload,
    /// Where, and with which program.
    pub machine: Machine,
    /// Threads of the pool.
    pub threads: usize,
    /// Images of all repetitions.
    pub images: u64,
    /// Images that were refused, each counted once, whatever the number of epochs.
    pub rejected: u64,
    /// Batches of all repetitions.
    pub batches: u64,
    /// Wall time of all repetitions.
    pub seconds: f64,
    /// Time to the first batch, the median.
    pub first_batch_seconds: f64,
    /// Images per second of wall time, the median.
    pub images_per_second: f64,
    /// Processor time of all repetitions, user and system.
    pub cpu_seconds: f64,
    /// Processor time per 1000 images, the median.
    pub cpu_seconds_per_1000: f64,
    /// Bytes that were read from the source in all repetitions.
    pub bytes_read: u64,
    /// The largest resident set of the process after the warm-up and the first repetition.
    pub peak_memory_bytes: u64,
    /// The medians with the smallest and the largest of the repetitions.
    pub figures: Measures,
    /// Each repetition, in their order.
    pub repetitions: Vec<Repetition>,
    /// The name of the node that bounds the feed, or of the one that works most where the cores do.
    pub bottleneck: String,
    /// What bounds the feed, in numbers.
    pub bound: Option<Bound>,
    /// The same in words.
    pub verdict: String,
    /// Every node in the repetition whose rate is the median.
    pub stages: Vec<NodeReport>,
    /// What an image takes in each stage, in that repetition and alone.
    pub stage_times: Vec<StageTime>,
    /// The feed with other numbers of threads, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sweep: Vec<SweepPoint>,
    /// What a trainer does that never waits for images, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replayed>,
    /// The same work earlier, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compare: Option<BesideEarlier>,
}

/// What an image takes in a stage.
#[derive(Clone, Debug, Serialize)]
pub struct StageTime {
    /// The stage.
    pub name: &'static str,
    /// Time for which a slot was busy with it in the flow, in milliseconds.
    pub ms_in_flow: f64,
    /// Time on one thread while nothing else ran, in milliseconds; only for what works on pixels.
    pub ms_alone: Option<Measure>,
}

/// The feed with a number of threads.
#[derive(Clone, Debug, Serialize)]
pub struct SweepPoint {
    /// Threads of the pool.
    pub threads: usize,
    /// What was measured with them.
    #[serde(flatten)]
    pub figures: Measures,
}

/// How a bench measures.
struct Method {
    length: Length,
    repetitions: u64,
    /// Numbers of threads, of which the last is that of the run.
    threads: Vec<usize>,
}

impl Method {
    fn of(config: &Config, threads: usize) -> Method {
        Method {
            length: match config.integer("bench.epochs") {
                Some(epochs) => Length::Epochs(epochs as u32),
                None => Length::Seconds(config.real("bench.seconds")),
            },
            repetitions: config.whole("bench.repetitions"),
            threads: match config.chosen("bench.sweep") {
                Some(BenchSweep::Threads) => doubled_up_to(threads),
                None => vec![threads],
            },
        }
    }
}

/// 1, 2, 4, and so on, and the number itself.
fn doubled_up_to(threads: usize) -> Vec<usize> {
    let powers = (0..).map(|n| 1 << n).take_while(|n| *n < threads);
    powers.chain([threads]).collect()
}

/// All rounds, so far.
struct Rounds {
    /// Of each number of threads.
    repetitions: Vec<Vec<Repetition>>,
    /// Of each round.
    alone: Vec<Vec<StageAlone>>,
    peak_memory_bytes: u64,
}

async fn rounds(
    run: &Run,
    feed: &Feed,
    method: &Method,
    replay: &mut Option<Replay>,
    seen: &Arc<AtomicU64>,
) -> Result<Rounds, Error> {
    feed.begin(run, &[Split::Train])?;
    let made = BatchMaker::of(feed);
    let once = async |threads: usize| {
        let mut feed = feed.clone();
        feed.rooms.threads = threads;
        let apart = run.within(threads, feed.rooms.memory_bytes)?;
        repetition(&apart, &feed, &made, method.length, seen.clone()).await
    };
    // What is read first comes from a disk that is asked for it the first time.
    once(feed.rooms.threads).await?;
    let mut done = Rounds {
        repetitions: vec![Vec::new(); method.threads.len()],
        alone: Vec::new(),
        peak_memory_bytes: 0,
    };
    let mut stored = None;
    for round in 0..method.repetitions {
        for (of_threads, threads) in done.repetitions.iter_mut().zip(&method.threads) {
            of_threads.push(once(*threads).await?);
        }
        if round == 0 {
            done.peak_memory_bytes = Usage::now().peak_memory_bytes;
        }
        let stored = match &stored {
            Some(stored) => Arc::clone(stored),
            None => stored.insert(stored_images(run, feed).await?).clone(),
        };
        done.alone.push(alone(run, feed, &made, stored).await?);
        if let Some(replay) = replay {
            replay.round(run, feed).await?;
        }
    }
    Ok(done)
}

async fn stored_images(run: &Run, feed: &Feed) -> Result<Arc<Vec<Sample<Encoded>>>, Error> {
    let (images, bytes) = (ALONE.0, ALONE.1.min(feed.rooms.memory_bytes / 4));
    let apart = run.within(feed.rooms.threads, feed.rooms.memory_bytes)?;
    feed.stored(&apart, images, bytes as usize).await.map(Arc::new)
}

/// Takes images through the stages on one thread that nothing disturbs.
async fn alone(
    run: &Run,
    feed: &Feed,
    made: &BatchMaker,
    stored: Arc<Vec<Sample<Encoded>>>,
) -> Result<Vec<StageAlone>, Error> {
    let (start, stopping, feed, made) = (Instant::now(), run.clone(), feed.clone(), made.clone());
    let is_over = move || stopping.interrupted().is_some() || start.elapsed().as_secs_f64() > ALONE_SECONDS;
    run.until_stopped(move || async move { Ok(feed.alone(&stored, |samples| made.batch(samples), is_over)) })
        .await
}

/// What images take in each stage: in a repetition, and alone in each round.
fn stage_times(of: &Repetition, alone: &[Vec<StageAlone>]) -> Vec<StageTime> {
    let time = |node: &NodeReport| {
        let images = if node.samples > 0 { node.samples } else { of.images_in_all };
        let ms = |stage: &StageAlone| stage.time.as_secs_f64() * 1000.0 / stage.images.max(1) as f64;
        let named = alone.iter().flatten().filter(|stage| stage.name == node.name).map(ms);
        let named: Vec<f64> = named.collect();
        StageTime {
            name: node.name,
            ms_in_flow: node.busy * node.slot_seconds * 1000.0 / images as f64,
            ms_alone: (!named.is_empty()).then(|| Measure::of(named)),
        }
    };
    let is_stage = |node: &&NodeReport| !matches!(node.verb, Verb::Source | Verb::Drain);
    of.stages.iter().filter(is_stage).map(time).collect()
}

/// The repetition whose rate is the median; of an even number the slower of the two in the middle.
fn median(repetitions: &[Repetition]) -> &Repetition {
    let mut sorted: Vec<&Repetition> = repetitions.iter().collect();
    sorted.sort_by(|a, b| a.images_per_second.total_cmp(&b.images_per_second));
    sorted[(sorted.len() - 1) / 2]
}

/// What is said where threads were at work for longer than cores worked for them.
fn disturbed(of: &Repetition, bound: &Bound, threads: usize, machine: &Machine) -> Option<String> {
    let (wanted, had) = (bound.cores_busy * threads as f64, of.cpu_seconds / of.seconds);
    (threads <= machine.cores && had < wanted * UNDISTURBED).then(|| {
        format!(
            "threads that wanted {wanted:.1} cores had {had:.1}: other programs, or whoever shares this machine, had the rest; \
             CPU-seconds hold nevertheless, and images/s are too few"
        )
    })
}

/// Measures the feed.
///
/// # Errors
/// The first error of the run, and [`Error::Interrupted`]: what was measured so far is then told to nobody.
async fn bench(
    run: &Run,
    feed: &Feed,
    config: &Config,
    earlier: Option<Earlier>,
    seen: &Arc<AtomicU64>,
) -> Result<Benched, Error> {
    let (threads, machine) = (feed.rooms.threads, Machine::here());
    let method = Method::of(config, threads);
    let workload = Workload::of(feed, config, method.length);
    if let Some(earlier) = &earlier {
        earlier.is_of(&workload)?;
    }
    let network = config.text("bench.replay");
    let mut replay = network.map(|network| Replay::new(&network, feed, method.length)).transpose()?;
    let Rounds { mut repetitions, alone, peak_memory_bytes } =
        rounds(run, feed, &method, &mut replay, seen).await?;
    let point = |(threads, repetitions): (&usize, &Vec<Repetition>)| SweepPoint {
        threads: *threads,
        figures: Measures::of(repetitions),
    };
    let sweep: Vec<SweepPoint> = match method.threads.len() {
        1 => Vec::new(),
        _ => method.threads.iter().zip(&repetitions).map(point).collect(),
    };
    let repetitions = repetitions.pop().expect("that of the run's own threads");
    let figures = Measures::of(&repetitions);
    let median = median(&repetitions);
    let bound = Bound::of(&median.stages, median.seconds_in_all, threads, machine.cores);
    let rate = figures.images_per_second.median;
    warn(&bound.iter().filter_map(|bound| disturbed(median, bound, threads, &machine)).collect::<Vec<_>>());
    Ok(Benched {
        images: repetitions.iter().map(|one| one.images).sum(),
        rejected: run.rejects().rejected(),
        batches: repetitions.iter().map(|one| one.batches).sum(),
        seconds: repetitions.iter().map(|one| one.seconds).sum(),
        first_batch_seconds: figures.first_batch_seconds.median,
        images_per_second: rate,
        cpu_seconds: repetitions.iter().map(|one| one.cpu_seconds).sum(),
        cpu_seconds_per_1000: figures.cpu_seconds_per_1000.median,
        bytes_read: repetitions.iter().map(|one| one.bytes_read).sum(),
        peak_memory_bytes,
        bottleneck: bound.as_ref().map_or_else(String::new, |bound| bound.stage.to_string()),
        verdict: bound.as_ref().map_or_else(String::new, |bound| bound.in_words("images", rate)),
        stages: median.stages.clone(),
        stage_times: stage_times(median, &alone),
        sweep,
        replay: replay.map(|replay| replay.done(&figures, machine.cores.min(threads))),
        compare: earlier.map(|earlier| earlier.beside(&figures, &machine, threads)),
        bound,
        figures,
        repetitions,
        workload,
        machine,
        threads,
    })
}

/// Runs the command.
///
/// # Errors
/// The first error of the run.
pub async fn run(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let config = &asked.config;
    let (planned, planning) = (config.clone(), run.clone());
    let resolve = move || async move {
        let problems = feed::problems(&planned, Command::Bench)?;
        if !problems.is_empty() {
            return Err(Error::Plan(problems));
        }
        let earlier = match planned.text("bench.compare") {
            Some(place) => Some(Earlier::read(&planned, &place).await?),
            None => None,
        };
        Ok((earlier, feed::resolve(&planning, &planned, Command::Bench).await?))
    };
    let (earlier, (feed, _, warnings)) = run.until_stopped(resolve).await?;
    warn(&warnings);
    let bar = Bar::begin("bench", 0, Unit::Images);
    let seen = Arc::new(AtomicU64::new(0));
    let work = bench(run, &feed, config, earlier, &seen);
    let done = watched(work, || bar.at(seen.load(Ordering::Relaxed))).await;
    drop(bar);
    let done = done?;
    if asked.json {
        say_json(&done);
    } else {
        say(&text::benched(feed.store.location(), &done));
        say(&terminal::rejected(&run.rejects().list(), ""));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_doubles_up_to_the_threads_of_the_run() {
        for (threads, expected) in [(1, &[1][..]), (2, &[1, 2]), (6, &[1, 2, 4, 6]), (16, &[1, 2, 4, 8, 16])]
        {
            assert_eq!(doubled_up_to(threads), expected);
        }
    }
}
