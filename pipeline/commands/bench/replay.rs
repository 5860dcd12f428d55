//! The trainer's ceiling: steps of a network on the same few batches again and again, which wait for no image.

use std::time::Instant;

use forebay_stages::collate::Batch;
use forebay_train::{TrainError, TrainOptions, Trainer};
use serde::Serialize;

use super::measure::{Measure, Measures};
use super::repetition::Length;
use crate::feed::{Feed, Pass};
use crate::flow::{Error, Run};
use crate::report::Usage;

/// Batches that are kept: enough that the caches of the processor do not hold them.
const BATCHES: usize = 4;

/// What a trainer does that never waits for images.
#[derive(Clone, Debug, Serialize)]
pub struct Replayed {
    /// The network, on random weights, all of which are trained.
    pub network: String,
    /// Batches that came again and again.
    pub batches: usize,
    /// Images that it trained on per second.
    pub images_per_second: Measure,
    /// Processor time per 1000 images, user and system, of its steps alone.
    pub cpu_seconds_per_1000: Measure,
    /// What the feed gives, times what the trainer takes.
    pub feed_over_trainer: f64,
    /// The most images per second that the cores can both feed and train on, by the processor time of both.
    pub together_images_per_second: f64,
}

/// A network and what it is fed.
pub(super) struct Replay {
    options: TrainOptions,
    batches: Vec<Batch>,
    length: Length,
    /// Of each round so far, images per second and processor time per 1000.
    rounds: Vec<(f64, f64)>,
}

impl Replay {
    /// Whether a network can be trained on what a feed gives.
    ///
    /// # Errors
    /// [`Error::Plan`] when the images are too small for it.
    pub(super) fn new(network: &str, feed: &Feed, length: Length) -> Result<Replay, Error> {
        let options =
            TrainOptions { weight_decay: 1e-4, ..TrainOptions::new(network, feed.classes().to_vec()) };
        Trainer::check(&options, feed.side).map_err(Error::Plan)?;
        Ok(Replay { options, batches: Vec::new(), length, rounds: Vec::new() })
    }

    /// Measures once more. A stop ends the wait at once.
    ///
    /// # Errors
    /// Those of the feed and of the trainer, and [`Error::Interrupted`].
    pub(super) async fn round(&mut self, run: &Run, feed: &Feed) -> Result<(), Error> {
        if self.batches.is_empty() {
            let first = Pass::train(0);
            let apart = run.within(feed.rooms.threads, feed.rooms.memory_bytes)?;
            let take = |items| {
                Ok(Iterator::take(items, BATCHES).map(|item: crate::feed::PassBatch<_>| item.batch).collect())
            };
            self.batches = feed.batches(&apart, first).drain("kept", take).await?;
            // A batch of one image has no statistics of its own.
            self.batches.retain(|batch| batch.len() > 1);
            if self.batches.is_empty() {
                return Err(Error::Usage("--replay: no batch has two images to train on".to_string()));
            }
        }
        let (options, batches, length) = (self.options.clone(), self.batches.clone(), self.length);
        let pool = run.clone();
        let steps = move || async move { pool.install(|| steps(&options, &batches, length)).map_err(failed) };
        self.rounds.push(run.until_stopped(steps).await?);
        Ok(())
    }

    /// What was measured, beside what the feed gives.
    pub(super) fn done(&self, feed: &Measures, cores: usize) -> Replayed {
        let images_per_second = Measure::of(self.rounds.iter().map(|round| round.0));
        let cpu_seconds_per_1000 = Measure::of(self.rounds.iter().map(|round| round.1));
        let both = feed.cpu_seconds_per_1000.median + cpu_seconds_per_1000.median;
        let together = cores as f64 * 1000.0 / both;
        Replayed {
            network: self.options.model.clone(),
            batches: self.batches.len(),
            images_per_second,
            cpu_seconds_per_1000,
            feed_over_trainer: feed.images_per_second.median / images_per_second.median,
            together_images_per_second: together.min(images_per_second.median),
        }
    }
}

/// Images per second and processor time per 1000 of steps, after one to warm up.
fn steps(options: &TrainOptions, batches: &[Batch], length: Length) -> Result<(f64, f64), TrainError> {
    let mut trainer = Trainer::new(options)?;
    trainer.step(&batches[0])?;
    let (before, start, mut images) = (Usage::now(), Instant::now(), 0);
    for step in 0.. {
        let is_over = match length {
            Length::Seconds(most) => step > 0 && start.elapsed().as_secs_f64() >= most,
            Length::Epochs(_) => step == batches.len(),
        };
        if is_over {
            break;
        }
        let batch = &batches[step % batches.len()];
        trainer.step(batch)?;
        images += batch.len();
    }
    let (seconds, images) = (start.elapsed().as_secs_f64(), images as f64);
    let cpu_seconds = Usage::now().cpu_seconds - before.cpu_seconds;
    Ok((images / seconds, cpu_seconds / images * 1000.0))
}

fn failed(error: TrainError) -> Error {
    Error::failed("train on the same batches again", error)
}

impl std::fmt::Display for Replayed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Replayed { network, batches, images_per_second: Measure { median, min, max }, .. } = self;
        let (ratio, together) = (self.feed_over_trainer, self.together_images_per_second);
        writeln!(
            f,
            "{network} on the same {batches} batches again and again trains on {median:.1} images/s ({min:.1} to {max:.1}): the \
             feed gives {ratio:.1} times that, and the cores can do both for at most {together:.1}"
        )
    }
}
