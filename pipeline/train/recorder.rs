//! The training curves as they grow: `steps.jsonl`, TensorBoard's event files, and the points for plots.
//!
//! What is written here is for people; a run that goes on from a checkpoint cuts it back to that checkpoint.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use forebay_train::StepReport;

use super::Start;
use super::run_folder::{RunFolder, files};
use crate::flow::Error;
use crate::report::tensorboard::{self, Scalar};
use crate::report::{EpochMetrics, StepPoint};

/// Sums over the steps since the last point.
struct Window {
    began: Instant,
    steps: u64,
    images: usize,
    correct: usize,
    loss: f64,
}

impl Window {
    fn new() -> Window {
        Window { began: Instant::now(), steps: 0, images: 0, correct: 0, loss: 0.0 }
    }
}

/// Writes the curves of one start of a run.
pub(super) struct Recorder {
    folder: RunFolder,
    /// The event file of this start.
    pub(super) events: String,
    log_every: u64,
    window: Window,
}

/// Seconds since 1970, as TensorBoard keeps them.
fn wall_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

impl Recorder {
    /// Starts to record after `step` steps of the run; returns the points up to there.
    pub(super) async fn start(
        folder: &RunFolder,
        begin: Start,
        step: u64,
        log_every: u64,
    ) -> Result<(Recorder, Vec<StepPoint>), Error> {
        let earlier = folder.names().await?.iter().filter(|name| is_event_file(name)).count();
        // Names sort by time; the last number keeps two starts within a second apart.
        let events = format!("{}{:010}.forebay.{earlier}", files::EVENTS, wall_seconds() as u64);
        let mut points = Vec::new();
        if begin == Start::Resume {
            let text = folder.get(files::STEPS).await?.unwrap_or_default();
            let lines = String::from_utf8_lossy(&text);
            let read = lines.lines().filter_map(|line| serde_json::from_str::<StepPoint>(line).ok());
            points.extend(read.filter(|point| point.step <= step));
        }
        folder.put(files::STEPS, points.iter().map(line).collect::<String>()).await?;
        folder.append(&events, &tensorboard::opening(wall_seconds()))?;
        if begin == Start::Resume {
            // TensorBoard then drops what earlier files say of this step and later ones.
            folder.append(&events, &tensorboard::resumed(wall_seconds(), step + 1))?;
        }
        let recorder = Recorder { folder: folder.clone(), events, log_every, window: Window::new() };
        Ok((recorder, points))
    }

    /// The time until now was not spent on steps.
    pub(super) fn begin(&mut self) {
        self.window = Window::new();
    }

    /// Takes in a step; `epoch` is how many epochs are done with it. Gives a point when one is due.
    pub(super) fn step(
        &mut self,
        report: &StepReport,
        images: usize,
        epoch: f64,
    ) -> Result<Option<StepPoint>, Error> {
        let window = &mut self.window;
        window.steps += 1;
        window.images += images;
        window.correct += report.correct;
        window.loss += report.loss * images as f64;
        let step = report.step + 1;
        if !step.is_multiple_of(self.log_every) {
            return Ok(None);
        }
        let window = std::mem::replace(&mut self.window, Window::new());
        let images = window.images.max(1) as f64;
        let point = StepPoint {
            step,
            epoch,
            loss: window.loss / images,
            accuracy: window.correct as f64 / images,
            learning_rate: report.learning_rate,
            images_per_second: images / window.began.elapsed().as_secs_f64().max(1e-9),
        };
        self.folder.append(files::STEPS, line(&point).as_bytes())?;
        let scalars: [Scalar; 4] = [
            ("step/loss", point.loss),
            ("step/accuracy", point.accuracy),
            ("step/learning_rate", point.learning_rate),
            ("step/images_per_second", point.images_per_second),
        ];
        self.folder.append(&self.events, &tensorboard::scalars(wall_seconds(), step, &scalars))?;
        Ok(Some(point))
    }

    /// Takes in a finished epoch.
    pub(super) fn epoch(&self, metrics: &EpochMetrics) -> Result<(), Error> {
        let measured = [
            ("loss/train", Some(metrics.train_loss)),
            ("loss/validation", metrics.validation_loss),
            ("accuracy/train", Some(metrics.train_accuracy)),
            ("accuracy/validation", metrics.validation_accuracy),
            ("macro_f1/validation", metrics.validation_macro_f1),
            ("learning_rate", Some(metrics.learning_rate)),
            ("images_per_second", Some(metrics.images_per_second)),
        ];
        let scalars: Vec<Scalar> =
            measured.into_iter().filter_map(|(tag, value)| Some((tag, value?))).collect();
        self.folder.append(&self.events, &tensorboard::scalars(wall_seconds(), metrics.steps, &scalars))
    }
}

/// True for the name of an event file of ours.
pub(super) fn is_event_file(name: &str) -> bool {
    name.starts_with(files::EVENTS) && name.contains(".forebay.")
}

fn line(point: &StepPoint) -> String {
    serde_json::to_string(point).expect("a point is plain data") + "\n"
}
