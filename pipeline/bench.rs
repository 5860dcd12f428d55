//! How fast the feed is when nothing is trained: images per second, where slot-time went, what holds it up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use forebay_datasets::sample::Split;
use forebay_stages::collate::Batch;
use serde::Serialize;

use crate::feed::{Feed, Pass};
use crate::flow::{Error, Items, Run};
use crate::meter::{NodeReport, bottleneck};
use crate::usage::Usage;

/// What a bench measured.
#[derive(Clone, Debug, Serialize)]
pub struct Benched {
    /// Images that reached the end.
    pub images: u64,
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
    let before = Usage::now();
    let start = Instant::now();
    let (mut images, mut batches, mut first) = (0, 0, None);
    for epoch in 0..epochs {
        let seen = seen.clone();
        let count = move |items: Items<Batch>| {
            let (mut images, mut batches, mut first) = (0u64, 0u64, None);
            for batch in items {
                first.get_or_insert_with(|| start.elapsed().as_secs_f64());
                images += batch.len() as u64;
                batches += 1;
                seen.fetch_add(batch.len() as u64, Ordering::Relaxed);
            }
            Ok((images, batches, first))
        };
        let pass = feed.batches(run, Pass::Train(epoch)).drain("count", count).await?;
        images += pass.0;
        batches += pass.1;
        first = first.or(pass.2);
    }
    run.rejects().check_at_end()?;
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
        batches,
        seconds,
        first_batch_seconds: first.unwrap_or(seconds),
        images_per_second: images as f64 / seconds,
        cpu_seconds,
        cpu_seconds_per_1000: cpu_seconds / images as f64 * 1000.0,
        peak_memory_bytes: after.peak_memory_bytes,
        bottleneck: worst.map_or_else(String::new, |node| node.name.to_string()),
        verdict: worst.map_or_else(String::new, NodeReport::in_words),
        stages,
    })
}
