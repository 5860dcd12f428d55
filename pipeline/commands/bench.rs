//! How fast the feed is when nothing is trained: images per second, where slot-time went, what holds it up.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use forebay_datasets::sample::Split;
use forebay_stages::collate::Batch;
use serde::Serialize;

use crate::feed::{self, Feed, Pass, PassBatch};
use crate::flow::{Error, Items, NodeReport, Run, bottleneck};
use crate::options::{Command, Invocation, bytes_in_words};
use crate::report::{Bar, Unit, Usage, say, say_json, terminal, warn, watched};

/// What a bench measured.
#[derive(Clone, Debug, Serialize)]
pub struct Benched {
    /// Images that reached the end.
    pub images: u64,
    /// Images that were refused, each counted once, whatever the number of epochs.
    pub rejected: u64,
    /// Batches that reached the end.
    pub batches: u64,
    /// Wall time.
    pub seconds: f64,
    /// Time to the first batch.
    pub first_batch_seconds: f64,
    /// Images per second of wall time.
    pub images_per_second: f64,
    /// Processor time, user and system.
    pub cpu_seconds: f64,
    /// Processor time per 1000 images.
    pub cpu_seconds_per_1000: f64,
    /// Bytes that were read from the source.
    pub bytes_read: u64,
    /// The largest resident set of the process.
    pub peak_memory_bytes: u64,
    /// The name of the node that holds the feed up.
    pub bottleneck: String,
    /// The same in words.
    pub verdict: String,
    /// Every node.
    pub stages: Vec<NodeReport>,
}

/// Feeds `epochs` epochs of the training split to a consumer that counts.
///
/// # Errors
/// The first error of the run.
pub async fn bench(run: &Run, feed: &Feed, epochs: u32, seen: Arc<AtomicU64>) -> Result<Benched, Error> {
    feed.begin(run, &[Split::Train])?;
    let (before, bytes_before) = (Usage::now(), feed.source.bytes_read());
    let start = Instant::now();
    let (mut images, mut batches, mut first) = (0, 0, None);
    for epoch in 0..epochs {
        let seen = seen.clone();
        let count = move |items: Items<PassBatch<Batch>>| {
            let (mut images, mut batches, mut first) = (0u64, 0u64, None);
            for PassBatch { batch, .. } in items {
                first.get_or_insert_with(|| start.elapsed().as_secs_f64());
                images += batch.len() as u64;
                batches += 1;
                seen.fetch_add(batch.len() as u64, Ordering::Relaxed);
            }
            Ok((images, batches, first))
        };
        let pass = feed.batches(run, Pass::train(epoch)).drain("count", count).await?;
        images += pass.0;
        batches += pass.1;
        first = first.or(pass.2);
    }
    if images == 0 {
        let line = format!("{} gave no image of the {} split", feed.store.location(), Split::Train);
        return Err(Error::NothingLeft(line));
    }
    let seconds = start.elapsed().as_secs_f64();
    let after = Usage::now();
    let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
    let stages = run.meter().report();
    let worst = bottleneck(&stages);
    Ok(Benched {
        images,
        rejected: run.rejects().rejected(),
        batches,
        seconds,
        first_batch_seconds: first.unwrap_or(seconds),
        images_per_second: images as f64 / seconds,
        cpu_seconds,
        cpu_seconds_per_1000: cpu_seconds / images as f64 * 1000.0,
        bytes_read: feed.source.bytes_read() - bytes_before,
        peak_memory_bytes: after.peak_memory_bytes,
        bottleneck: worst.map_or_else(String::new, |node| node.name.to_string()),
        verdict: worst.map_or_else(String::new, NodeReport::in_words),
        stages,
    })
}

/// Runs the command.
///
/// # Errors
/// The first error of the run.
pub async fn run(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let config = &asked.config;
    let (planned, planning) = (config.clone(), run.clone());
    let resolve = move || async move { feed::resolve(&planning, &planned, Command::Bench).await };
    let planned = run.until_stopped(resolve);
    let (feed, _, warnings) = planned.await?;
    warn(&warnings);
    let epochs = match config.is_given("train.epochs") {
        true => config.integer("train.epochs").expect("it is given") as u32,
        false => 1,
    };
    let what = feed.source.kind();
    let bar = Bar::begin("bench", feed.rows(Split::Train) * u64::from(epochs), Unit::Images);
    let seen = Arc::new(AtomicU64::new(0));
    let work = bench(run, &feed, epochs, seen.clone());
    let done = watched(work, || bar.at(seen.load(Ordering::Relaxed))).await;
    drop(bar);
    let done = done?;
    if asked.json {
        say_json(&done);
    } else {
        let (side, batch) = (feed.side, feed.batch_size);
        say(&format!("{} ({what}), batches of {batch} at {side}x{side} px\n", feed.store.location()));
        say(&benched(&done));
        say(&terminal::rejected(&run.rejects().list(), ""));
    }
    Ok(())
}

/// Where slot-time went and what holds the feed up.
fn benched(done: &Benched) -> String {
    let mut text = String::new();
    let _ =
        writeln!(text, "{:<10} {:>6} {:>9} {:>8} {:>8}", "stage", "busy", "contended", "blocked", "starved");
    for node in &done.stages {
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let _ = writeln!(
            text,
            "{:<10} {:>6} {:>9} {:>8} {:>8}",
            node.name,
            percent(node.busy),
            percent(node.contended),
            percent(node.blocked),
            percent(node.starved)
        );
    }
    let _ = writeln!(text, "{}", done.verdict);
    let _ = writeln!(
        text,
        "{:.0} images/s ({} images in {:.2} s, first batch after {:.2} s)",
        done.images_per_second, done.images, done.seconds, done.first_batch_seconds
    );
    let _ = writeln!(
        text,
        "{:.3} CPU-seconds per 1000 images, {} read, peak memory {}",
        done.cpu_seconds_per_1000,
        bytes_in_words(done.bytes_read),
        bytes_in_words(done.peak_memory_bytes)
    );
    text
}
