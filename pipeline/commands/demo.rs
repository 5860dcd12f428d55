//! `forebay demo`: the whole job on a dataset that is drawn for it.

use std::path::Path;
use std::time::Instant;

use forebay_datasets::seed::Seed;
use forebay_datasets::store::local_path;
use serde_json::json;

use super::{inspect, prepare, train};
use crate::demo;
use crate::flow::{Error, Run};
use crate::options::{Command, Invocation};
use crate::report::{Speed, Trained, say_json, tell};
use crate::train::files;

/// Side of the images, pixels: with the epochs, what lets two cores end the demo in less than 45 s.
const SIZE: i64 = 32;

/// Passes over the training split, unless others are asked for.
const EPOCHS: u64 = 12;

/// Gives the rare class images in every split.
const SPLIT_SEED: i64 = 9;

/// What the demo writes first into its folder, so that it knows it again.
const MARK: (&str, &str) = (
    "forebay-demo.txt",
    "Everything in this folder was made by `forebay demo`, which replaces it when it is run here again.\n",
);

/// Takes the folder of the demo: a new or an empty one, or one that an earlier demo made. Nothing else is replaced.
fn take(root: &Path) -> Result<(), Error> {
    let mark = root.join(MARK.0);
    let is_taken = std::fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_some());
    if is_taken && !mark.is_file() {
        let root = root.display();
        return Err(Error::Usage(format!(
            "{root} holds files that no demo made (it has no {}); choose another --out, or an empty folder",
            MARK.0
        )));
    }
    std::fs::create_dir_all(root)
        .and_then(|()| std::fs::write(&mark, MARK.1))
        .map_err(|error| Error::failed(format!("write {}", mark.display()), error))
}

/// Runs the command.
///
/// # Errors
/// The first error of the run.
pub async fn run(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let config = &asked.config;
    let out = config.text("out").unwrap_or_else(|| "forebay-demo".to_string());
    if out.contains("://") {
        return Err(Error::Usage(format!("the demo draws its images in a folder, and --out {out} is none")));
    }
    let root = local_path(&out)?;
    take(&root)?;
    let [images, shards, trained] =
        ["images", "shards", "run"].map(|name| root.join(name).to_string_lossy().into_owned());
    let seed = Seed(config.whole("seed"));
    let heading = |text: &str| tell(&format!("\n── {text}\n"));

    heading(&format!("1. draw a dataset in {images}"));
    let mut stopwatch = Stopwatch::start();
    let drawn = demo::draw(Path::new(&images), seed, demo::DemoOptions::default())
        .map_err(|error| Error::failed(format!("draw images in {images}"), error))?;
    tell(&format!(
        "{} images in {} classes, {} of them broken on purpose\n",
        drawn.files,
        drawn.classes.len(),
        drawn.broken
    ));
    stopwatch.lap("draw");

    let quiet = |asked: &Invocation, command| Invocation { command, plan_only: false, ..asked.clone() };
    heading(&format!("2. forebay inspect {images}"));
    let source = config.clone().with("source", images.clone());
    let inspect_asked = Invocation { json: false, config: source.clone(), ..quiet(asked, Command::Inspect) };
    if !asked.json {
        inspect::run(run, &inspect_asked).await?;
    }
    stopwatch.lap("inspect");

    heading(&format!(
        "3. forebay prepare {images} {shards} --size {SIZE} --fit crop --encode png --split 0.7,0.1,0.2 \
         --split-seed {SPLIT_SEED}"
    ));
    let prepare_config = source
        .with("dest", shards.clone())
        .with("split.shares", vec![0.7, 0.1, 0.2])
        .with("split.seed", SPLIT_SEED)
        .with("resize.size", SIZE)
        .with("resize.fit", "crop")
        .with("encode.format", "png")
        .with("overwrite", true);
    let prepare_asked = Invocation { config: prepare_config, ..quiet(asked, Command::Prepare) };
    prepare::run(run, &prepare_asked).await?;
    stopwatch.lap("prepare");

    let epochs = config.integer("train.epochs").filter(|_| config.is_given("train.epochs")).unwrap_or(EPOCHS);
    heading(&format!(
        "4. forebay train {shards} --out {trained} --balance over --augment light --epochs {epochs} \
         --batch-size 16 --lr 0.003"
    ));
    let train_config = config
        .clone()
        .with("source", shards.clone())
        .with("out", trained.clone())
        .with("balance.mode", "over")
        .with("augment", "light")
        .with("train.epochs", epochs as i64)
        .with("train.batch_size", 16)
        .with("train.learning_rate", 0.003)
        .with("overwrite", true);
    let train_asked = Invocation { config: train_config, ..quiet(asked, Command::Demo) };
    let done = train::run(run, &train_asked).await?;
    let done = done.expect("it was trained, not only planned");
    stopwatch.lap("train");

    heading("5. what came of it");
    tell(&outcome(&done, &stopwatch));
    tell(&format!("  report     {trained}/{}, for a browser\n", files::REPORT));
    heading("Next, on a folder of your own with one folder per class:");
    tell("  forebay inspect PHOTOS\n");
    tell("  forebay prepare PHOTOS SHARDS --size 224 --fit crop\n");
    tell("  forebay train SHARDS --out RUN --augment light\n");
    tell("  forebay export RUN --output model.onnx\n");
    if asked.json {
        say_json(&json!({
            "accuracy": done.accuracy, "majority_accuracy": Majority::of(&done).accuracy, "split": done.split,
            "best_epoch": done.best_epoch, "macro_f1": done.macro_f1, "images": images, "shards": shards,
            "run": trained, "seconds": stopwatch.seconds(),
        }));
    }
    Ok(())
}

/// The answer of one who looks at no image: the class that most of them are of.
struct Majority<'a> {
    class: &'a str,
    accuracy: f64,
    images: u64,
}

impl Majority<'_> {
    fn of(done: &Trained) -> Majority<'_> {
        let images = done.classes.iter().map(|row| row.support).sum();
        let largest = done.classes.iter().max_by_key(|row| row.support).expect("the demo has classes");
        let accuracy = largest.support as f64 / images as f64;
        Majority { class: &largest.class, accuracy, images }
    }
}

/// When each part of the demo ended.
struct Stopwatch {
    start: Instant,
    laps: Vec<(&'static str, f64)>,
}

impl Stopwatch {
    fn start() -> Stopwatch {
        Stopwatch { start: Instant::now(), laps: Vec::new() }
    }

    fn seconds(&self) -> f64 {
        self.laps.iter().map(|(_, seconds)| seconds).sum()
    }

    /// The part called `name` ends here.
    fn lap(&mut self, name: &'static str) {
        let seconds = self.start.elapsed().as_secs_f64() - self.seconds();
        self.laps.push((name, seconds));
    }
}

/// What was learned, against what takes no learning, and where the time went.
fn outcome(done: &Trained, stopwatch: &Stopwatch) -> String {
    let Majority { class, accuracy, images } = Majority::of(done);
    let rarest = done.classes.iter().min_by_key(|row| row.support).expect("the demo has classes");
    let found = (rarest.recall * rarest.support as f64).round();
    let laps = stopwatch.laps.iter().map(|(name, seconds)| format!("{name} {seconds:.1} s"));
    // Every epoch has as many images, so that the mean of the rates is the harmonic one.
    let rates = done.epochs.iter().filter_map(|epoch| match epoch.speed {
        Speed::Images(per_second) => Some(1.0 / per_second),
        Speed::CachedFeatures(_) => None,
    });
    let (n_rates, seconds_per_image) = rates.fold((0, 0.0), |(n, sum), seconds| (n + 1, sum + seconds));
    let mut text = format!(
        "  accuracy   {:.1} % of {images} {} images; {:.1} % for always answering {class}\n",
        done.accuracy * 100.0,
        done.split,
        accuracy * 100.0,
    );
    text += &format!(
        "  rarest     {}: found {found} of {}, precision {:.1} %\n",
        rarest.class,
        rarest.support,
        rarest.precision * 100.0
    );
    text += &format!("  time       {:.0} s: {}\n", stopwatch.seconds(), laps.collect::<Vec<_>>().join(", "));
    text += &format!(
        "  training   {:.0} images/s, {:.0} % of the time waiting for images\n",
        f64::from(n_rates) / seconds_per_image,
        done.starved * 100.0
    );
    text
}

#[cfg(test)]
mod tests {
    use forebay_datasets::sample::Split;

    use super::*;
    use crate::options::Monitor;
    use crate::report::{ClassRow, EpochMetrics};

    fn epoch(images_per_second: f64) -> EpochMetrics {
        EpochMetrics {
            epoch: 1,
            steps: 1,
            learning_rate: 0.1,
            train_loss: 1.0,
            train_accuracy: 0.5,
            validation_loss: None,
            validation_accuracy: None,
            validation_macro_f1: None,
            epochs_without_improvement: 0,
            seconds: 1.0,
            speed: Speed::Images(images_per_second),
        }
    }

    #[test]
    fn the_demo_ends_with_accuracy_beside_the_majority_and_where_time_went() {
        let class = |class: &str, recall, support| ClassRow {
            class: class.into(),
            precision: 0.5,
            recall,
            f1: 0.5,
            support,
        };
        let done = Trained {
            accuracy: 0.75,
            split: Split::Test,
            best_epoch: 2,
            monitor: Monitor::Accuracy,
            stopped_early: false,
            macro_f1: 0.5,
            classes: vec![class("a", 1.0, 4), class("b", 0.5, 12)],
            confusion: vec![],
            epochs: vec![epoch(100.0), epoch(300.0)],
            found: 16,
            rejected: 0,
            starved: 0.25,
            accuracy_interval: None,
            majority: None,
            test_openings: None,
            temperature: None,
            validation: None,
        };
        let stopwatch = Stopwatch { start: Instant::now(), laps: vec![("draw", 1.0), ("train", 2.0)] };
        let expected = "  accuracy   75.0 % of 16 test images; 75.0 % for always answering b\n  \
             rarest     a: found 4 of 4, precision 50.0 %\n  \
             time       3 s: draw 1.0 s, train 2.0 s\n  \
             training   150 images/s, 25 % of the time waiting for images\n";
        assert_eq!(outcome(&done, &stopwatch), expected);
    }
}
