//! Where a run stands, for those who watch it: a progress bar, or the live view.

use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use super::run::{EpochMetrics, Speed, StepPoint};

/// What a run does at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Builds the network or opens what is there.
    #[default]
    Starting,
    /// Trains on the batches of an epoch.
    Training,
    /// Measures the epoch on the validation split.
    Validating,
    /// Measures the best epoch on images that training never saw.
    Testing,
}

impl Phase {
    /// The phase in a word.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Training => "training",
            Phase::Validating => "validating",
            Phase::Testing => "testing",
        }
    }
}

/// A run as it was a moment ago.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What it does.
    pub phase: Phase,
    /// The epoch at hand, counted from 1.
    pub epoch: u32,
    /// Steps done of the epoch at hand.
    pub step: u64,
    /// The mean loss over the epoch at hand.
    pub loss: f64,
    /// The share of the images of the epoch at hand that were classified right, 0 to 1.
    pub accuracy: f64,
    /// The learning rate of the last step.
    pub learning_rate: f64,
    /// How fast it goes since the epoch, or what was left of it, began.
    pub speed: Speed,
    /// Steps per second since then.
    pub steps_per_second: f64,
    /// The points of the training curves.
    pub points: Vec<StepPoint>,
    /// The finished epochs.
    pub epochs: Vec<EpochMetrics>,
    began: Instant,
    images: u64,
    steps: u64,
    is_cached: bool,
}

/// Shared between the run and those who watch it.
#[derive(Debug)]
pub struct Live(Mutex<Snapshot>);

impl Default for Live {
    fn default() -> Live {
        Live(Mutex::new(Snapshot {
            phase: Phase::Starting,
            epoch: 0,
            step: 0,
            loss: 0.0,
            accuracy: 0.0,
            learning_rate: 0.0,
            speed: Speed::Images(0.0),
            steps_per_second: 0.0,
            points: Vec::new(),
            epochs: Vec::new(),
            began: Instant::now(),
            images: 0,
            steps: 0,
            is_cached: false,
        }))
    }
}

impl Live {
    /// Where the run stands; the run waits as long as this is held.
    pub fn seen(&self) -> MutexGuard<'_, Snapshot> {
        self.0.lock().expect("no panic under the lock")
    }

    /// The run turns to something else.
    pub fn turn_to(&self, phase: Phase) {
        self.seen().phase = phase;
    }

    /// An epoch begins, or goes on after `step` of its steps, on images or on what a cache has of them.
    pub fn begin(&self, epoch: u32, step: u64, is_cached: bool) {
        let mut seen = self.seen();
        (seen.phase, seen.epoch, seen.step) = (Phase::Training, epoch, step);
        (seen.began, seen.images, seen.steps, seen.is_cached) = (Instant::now(), 0, 0, is_cached);
    }

    /// A step was done: so many images, and the means over the epoch so far.
    pub fn step(&self, images: usize, loss: f64, accuracy: f64, learning_rate: f64) {
        let mut seen = self.seen();
        (seen.loss, seen.accuracy, seen.learning_rate) = (loss, accuracy, learning_rate);
        seen.step += 1;
        seen.steps += 1;
        seen.images += images as u64;
        let seconds = seen.began.elapsed().as_secs_f64().max(1e-9);
        seen.speed = Speed::of(seen.images, seconds, seen.is_cached);
        seen.steps_per_second = seen.steps as f64 / seconds;
    }
}
