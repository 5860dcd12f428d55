//! The training curves as they grow: `steps.jsonl`, TensorBoard's event files, and the points for plots.
//!
//! What is written here is for people; a run that goes on from a checkpoint cuts it back to that checkpoint.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use forebay_train::StepReport;

use super::Start;
use super::run_folder::{RunFolder, files};
use crate::flow::Error;
use crate::report::tensorboard::{self, Scalar};
use crate::report::{EpochMetrics, Speed, StepPoint};

/// The key of a checkpoint under which the sums since the last point stand.
const SINCE_POINT: &str = "since_point";

/// Sums over the steps since the last point, whatever epochs they are of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Window {
    images: usize,
    correct: usize,
    loss: f64,
    /// Images of the steps that this process did, and the time that it spent on them.
    timed: usize,
    seconds: f64,
}

impl Window {
    /// A float is kept as its bits, so that a resumed run writes the points of an uninterrupted one. Times are not kept:
    /// a checkpoint is the same bytes however fast it came to be.
    fn to_text(self) -> String {
        let Window { images, correct, loss, .. } = self;
        format!("{images} {correct} {}", loss.to_bits())
    }

    fn from_text(text: &str) -> Option<Window> {
        let mut numbers = text.split(' ').map(|number| number.parse::<u64>().ok());
        let mut next = || numbers.next().flatten();
        Some(Window {
            images: next()? as usize,
            correct: next()? as usize,
            loss: f64::from_bits(next()?),
            ..Window::default()
        })
    }
}

/// Writes the curves of one start of a run.
pub(super) struct Recorder {
    /// Where they go; a training whose weights are not kept leaves no curves either.
    folder: Option<RunFolder>,
    /// The event file of this start.
    pub(super) events: String,
    log_every: u64,
    window: Window,
    /// When the time of the step at hand began.
    began: Instant,
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
        let earlier = folder.names().await?.iter().filter(|name| files::is_event_file(name)).count();
        // Names sort by time; the last number keeps two starts within a second apart.
        let events = format!("{}{:010}.forebay.{earlier}", files::EVENTS, wall_seconds() as u64);
        let mut points = Vec::new();
        if begin == Start::Resume {
            let text = folder.get(files::STEPS).await?.unwrap_or_default();
            points = StepPoint::of_lines(&text);
            points.retain(|point| point.step <= step);
        }
        folder.put(files::STEPS, points.iter().map(line).collect::<String>()).await?;
        folder.append(&events, &tensorboard::opening(wall_seconds()))?;
        if begin == Start::Resume {
            // TensorBoard then drops what earlier files say of this step and later ones.
            folder.append(&events, &tensorboard::resumed(wall_seconds(), step + 1))?;
        }
        let folder = Some(folder.clone());
        Ok((Recorder { folder, events, log_every, ..Recorder::nowhere() }, points))
    }

    /// One that writes nothing.
    pub(super) fn nowhere() -> Recorder {
        Recorder {
            folder: None,
            events: String::new(),
            log_every: u64::MAX,
            window: Window::default(),
            began: Instant::now(),
        }
    }

    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.folder.as_ref().map_or(Ok(()), |folder| folder.append(name, bytes))
    }

    /// The time until now was not spent on steps.
    pub(super) fn begin(&mut self) {
        self.began = Instant::now();
    }

    /// What a checkpoint keeps, so that the first point of a run that goes on from it is a mean since the last one too.
    pub(super) fn to_metadata(&self) -> (String, String) {
        (SINCE_POINT.to_string(), self.window.to_text())
    }

    /// Goes on with the sums that a checkpoint has kept.
    pub(super) fn resume(&mut self, metadata: &BTreeMap<String, String>) {
        self.window = metadata.get(SINCE_POINT).and_then(|text| Window::from_text(text)).unwrap_or_default();
    }

    /// Takes in a step on so many images, or on what a cache has of them; `epoch` is how many epochs are done with it. Gives
    /// a point when one is due.
    pub(super) fn step(
        &mut self,
        report: &StepReport,
        (images, is_cached): (usize, bool),
        epoch: f64,
    ) -> Result<Option<StepPoint>, Error> {
        let window = &mut self.window;
        window.images += images;
        window.timed += images;
        window.correct += report.correct;
        window.loss += report.loss * images as f64;
        window.seconds += self.began.elapsed().as_secs_f64();
        self.began = Instant::now();
        let step = report.step + 1;
        if !step.is_multiple_of(self.log_every) {
            return Ok(None);
        }
        let window = std::mem::take(&mut self.window);
        let images = window.images.max(1) as f64;
        let point = StepPoint {
            step,
            epoch,
            loss: window.loss / images,
            accuracy: window.correct as f64 / images,
            learning_rate: report.learning_rate,
            speed: Speed::of(window.timed as u64, window.seconds, is_cached),
        };
        self.append(files::STEPS, line(&point).as_bytes())?;
        let (speed, per_second) = tag(point.speed, true);
        let scalars: [Scalar; 4] = [
            ("step/loss", point.loss),
            ("step/accuracy", point.accuracy),
            ("step/learning_rate", point.learning_rate),
            (speed, per_second),
        ];
        self.append(&self.events, &tensorboard::scalars(wall_seconds(), step, &scalars))?;
        Ok(Some(point))
    }

    /// Takes in a finished epoch.
    pub(super) fn epoch(&self, metrics: &EpochMetrics) -> Result<(), Error> {
        let (speed, per_second) = tag(metrics.speed, false);
        let measured = [
            ("loss/train", Some(metrics.train_loss)),
            ("loss/validation", metrics.validation_loss),
            ("accuracy/train", Some(metrics.train_accuracy)),
            ("accuracy/validation", metrics.validation_accuracy),
            ("macro_f1/validation", metrics.validation_macro_f1),
            ("learning_rate", Some(metrics.learning_rate)),
            (speed, Some(per_second)),
        ];
        let scalars: Vec<Scalar> =
            measured.into_iter().filter_map(|(tag, value)| Some((tag, value?))).collect();
        self.append(&self.events, &tensorboard::scalars(wall_seconds(), metrics.steps, &scalars))
    }
}

/// The speed of a step or of an epoch for TensorBoard, images and cached features in charts of their own.
fn tag(speed: Speed, is_step: bool) -> Scalar {
    match (speed, is_step) {
        (Speed::Images(n), true) => ("step/images_per_second", n),
        (Speed::Images(n), false) => ("images_per_second", n),
        (Speed::CachedFeatures(n), true) => ("step/cached_features_per_second", n),
        (Speed::CachedFeatures(n), false) => ("cached_features_per_second", n),
    }
}

fn line(point: &StepPoint) -> String {
    serde_json::to_string(point).expect("a point is plain data") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Config;

    fn report(step: u64, loss: f64) -> StepReport {
        StepReport { loss, correct: 1, learning_rate: 0.1, step }
    }

    #[tokio::test]
    async fn a_point_is_the_mean_since_the_last_one_across_epochs_and_resumes() {
        let place = std::env::temp_dir().join(format!("forebay-recorder-{}", std::process::id()));
        let out = [("out", place.to_str().expect("UTF-8").to_string())];
        let config = Config::resolve(None, &[], &out).expect("sound options");
        let folder = RunFolder::open(&config).expect("a folder");
        let (mut recorder, _) = Recorder::start(&folder, Start::New, 0, 4).await.expect("a recorder");
        // Epochs of three steps.
        recorder.begin();
        for (step, loss) in [(0, 1.0), (1, 2.0), (2, 3.0)] {
            assert!(recorder.step(&report(step, loss), (2, false), 1.0).expect("it is written").is_none());
        }
        recorder.begin();
        let point = recorder.step(&report(3, 6.0), (2, false), 1.3).expect("it is written").expect("a point");
        assert_eq!((point.step, point.loss, point.accuracy), (4, 3.0, 0.5));
        // A checkpoint within the next four.
        recorder.step(&report(4, 5.0), (2, false), 1.6).expect("it is written");
        let (key, text) = recorder.to_metadata();
        let (mut resumed, _) = Recorder::start(&folder, Start::Resume, 5, 4).await.expect("a recorder");
        resumed.resume(&BTreeMap::from([(key, text)]));
        for (step, loss) in [(5, 1.0), (6, 1.0)] {
            assert!(resumed.step(&report(step, loss), (2, false), 2.0).expect("it is written").is_none());
        }
        let point = resumed.step(&report(7, 1.0), (2, false), 2.3).expect("it is written").expect("a point");
        assert_eq!((point.step, point.loss), (8, 2.0));
        std::fs::remove_dir_all(place).expect("it is there");
    }
}
