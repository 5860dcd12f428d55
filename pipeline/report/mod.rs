//! What the program says: to the terminal, as JSON, and as an HTML page.
//!
//! Results go to stdout, everything else to stderr, both through the one reporter.

pub(crate) mod axis;
mod bar;
mod class_table;
pub mod curves;
pub mod html;
pub mod live;
mod palette;
mod progress;
mod reporter;
mod run;
pub mod tensorboard;
pub mod terminal;
mod usage;
mod wait;

use std::time::Duration;

pub use bar::{Bar, Standing, Unit};
pub use class_table::{SplitCounts, class_table, shifted};
use curves::{Plot, Series, TRAIN, VALIDATION};
pub use progress::{Live, Phase, Snapshot};
pub use reporter::{
    Voice, complain, detail, finish, is_read, log, note, say, say_as_it_is, say_json, speak, tell,
    tell_of_panics, warn,
};
pub use run::{ClassRow, EpochMetrics, RunFacts, Speed, StepPoint, Trained};
pub use usage::Usage;
pub use wait::wait_for;

/// Leaves the terminal as it was found, where the process ends without dropping what has it.
pub fn leave_terminal() {
    live::give_back();
    reporter::clear();
}

/// Waits for `work` and calls `look` ten times a second meanwhile, and once at the end.
pub async fn watched<R>(work: impl Future<Output = R>, mut look: impl FnMut()) -> R {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            result = &mut work => {
                look();
                return result;
            }
            _ = ticks.tick() => look(),
        }
    }
}

/// The curves of a run as SVG: loss, accuracy, learning rate. Training is drawn from the points between epochs
/// where there are some, validation once per epoch.
pub fn training_curves(epochs: &[EpochMetrics], points: &[StepPoint]) -> [String; 3] {
    let by_epoch = |pick: fn(&EpochMetrics) -> Option<f64>| -> Vec<(f64, f64)> {
        epochs.iter().filter_map(|metrics| Some((f64::from(metrics.epoch), pick(metrics)?))).collect()
    };
    let train = |by_step: fn(&StepPoint) -> f64, by: fn(&EpochMetrics) -> Option<f64>| {
        let (points, dots) = match points.len() < epochs.len() {
            true => (by_epoch(by), true),
            false => (points.iter().map(|point| (point.epoch, by_step(point))).collect(), false),
        };
        Series { name: "training", color: TRAIN, points, dots }
    };
    let validation =
        |points| Series { name: "validation", color: VALIDATION, points, dots: epochs.len() <= 50 };
    let plot = |title, y_may_be_log| Plot { title, x_name: "epoch", x_is_log: false, y_may_be_log };
    [
        curves::svg(
            plot("Loss", true),
            &[train(|p| p.loss, |e| Some(e.train_loss)), validation(by_epoch(|e| e.validation_loss))],
        ),
        curves::svg(
            plot("Accuracy, %", false),
            &[
                train(|p| 100.0 * p.accuracy, |e| Some(100.0 * e.train_accuracy)),
                validation(by_epoch(|e| e.validation_accuracy.map(|share| 100.0 * share))),
            ],
        ),
        curves::svg(
            plot("Learning rate", true),
            &[Series { name: "", ..train(|p| p.learning_rate, |e| Some(e.learning_rate)) }],
        ),
    ]
}
