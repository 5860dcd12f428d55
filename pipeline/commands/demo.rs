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
use crate::report::{say_json, tell};

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
    let start = Instant::now();
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
    let drawn = demo::draw(std::path::Path::new(&images), seed, demo::DemoOptions::default())
        .map_err(|error| Error::failed(format!("draw images in {images}"), error))?;
    tell(&format!(
        "{} images in {} classes, {} of them broken on purpose\n",
        drawn.images,
        drawn.classes.len(),
        drawn.broken
    ));

    let quiet = |asked: &Invocation, command| Invocation { command, plan_only: false, ..asked.clone() };
    heading(&format!("2. forebay inspect {images}"));
    let source = config.clone().with("source", images.clone());
    let inspect_asked = Invocation { json: false, config: source.clone(), ..quiet(asked, Command::Inspect) };
    if !asked.json {
        inspect::run(run, &inspect_asked).await?;
    }

    heading(&format!("3. forebay prepare {images} {shards} --size 48 --fit crop --encode png"));
    let prepare_config = source
        .with("dest", shards.clone())
        .with("resize.size", 48)
        .with("resize.fit", "crop")
        .with("encode.format", "png")
        .with("overwrite", true);
    let prepare_asked = Invocation { config: prepare_config, ..quiet(asked, Command::Prepare) };
    prepare::run(run, &prepare_asked).await?;

    let epochs = config.integer("train.epochs").filter(|_| config.is_given("train.epochs")).unwrap_or(16);
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

    let seconds = start.elapsed().as_secs_f64();
    heading(&format!("done in {seconds:.0} s. Next, on a folder of your own with one folder per class:"));
    tell("  forebay inspect PHOTOS\n");
    tell("  forebay prepare PHOTOS SHARDS --size 224 --fit crop\n");
    tell("  forebay train SHARDS --out RUN --augment light\n");
    if asked.json {
        say_json(&json!({
            "accuracy": done.accuracy, "split": done.split, "best_epoch": done.best_epoch,
            "macro_f1": done.macro_f1, "images": images, "shards": shards, "run": trained, "seconds": seconds,
        }));
    }
    Ok(())
}
