//! `forebay train`: shards or an image folder to a fine-tuned model.

use std::io::IsTerminal;
use std::sync::Arc;

use forebay_datasets::escape::{self, printable};
use forebay_stages::balance::Balance;
use forebay_train::WeightsReport;
use forebay_train::metrics::Evaluation;

use super::{find_lr, say_plan, say_that_it_looks};
use crate::flow::{Error, Run};
use crate::options::{Command, Config, Invocation};
use crate::plan::balance_in_words;
use crate::report::live::{LiveView, Title};
use crate::report::{
    Bar, EpochMetrics, Live, Trained, Unit, Usage, detail, note, say, say_json, tell, terminal, warn, watched,
};
use crate::train::{self, RunFolder, Start, TrainPlan, Watch, files};
use crate::trials::folds::{CrossValidated, FOLDS, FoldScores, cross_validate};

/// Runs the command.
///
/// # Errors
/// The first error of the run.
pub async fn run(run: &Run, asked: &Invocation) -> Result<Option<Trained>, Error> {
    let config = &asked.config;
    let is_folded = config.integer("split.folds").is_some() && config.integer("split.fold").is_none();
    if is_folded && !asked.plan_only && !config.is_on("train.find_lr") {
        return folds(run, asked).await.map(|()| None);
    }
    let begins = !asked.plan_only && !config.is_on("train.find_lr");
    let plan = resolve(run, config, begins).await?;
    if asked.plan_only {
        warn(&plan.warnings);
        say_plan(asked, &*plan, || plan.to_json());
        return Ok(None);
    }
    if config.is_on("train.find_lr") {
        say_before(&plan);
        return find_lr::run(run, asked, &plan).await.map(|()| None);
    }
    let cycle = plan.cycle;
    let (done, folder) = one(run, asked, config, plan).await?;
    let location = folder.location();
    if asked.json && asked.command == Command::Train {
        let usage = Usage::now();
        let mut value = serde_json::to_value(&done).expect("results are plain data");
        let object = value.as_object_mut().expect("a struct is an object");
        object.insert("run".into(), location.into());
        object.insert("cpu_seconds".into(), usage.cpu_seconds.into());
        object.insert("peak_memory_bytes".into(), usage.peak_memory_bytes.into());
        say_json(&value);
    } else if !asked.json {
        say(&terminal::trained(&done));
        let place = format!(" of {}, all of them in {location}/{}", done.found, files::REJECTS);
        say(&terminal::rejected(&run.rejects().list(), &place));
        say(&format!("\nwritten to {location}: {}, {}, {}\n", files::MODEL, files::METRICS, files::REPORT));
        if asked.command == Command::Train {
            say(&next(location, cycle.is_some_and(|cycle| done.epochs.len() >= 2 * cycle as usize)));
        }
    }
    Ok(Some(done))
}

/// What to try with a run that is done.
fn next(run: &str, has_snapshots: bool) -> String {
    let run = escape::shell(run);
    let others = if has_snapshots { "" } else { " ANOTHER-RUN" };
    format!(
        "\nnext:\n  forebay predict {run} PICTURE.jpg\n  forebay eval {run} OTHER-PHOTOS\n  forebay ensemble {run}{others} \
         --out TOGETHER\n"
    )
}

async fn resolve(run: &Run, config: &Config, begins: bool) -> Result<Arc<TrainPlan>, Error> {
    say_that_it_looks(config);
    let (planned, planning) = (config.clone(), run.clone());
    let resolve = move || async move { TrainPlan::resolve(&planning, &planned, begins).await };
    Ok(Arc::new(run.until_stopped(resolve).await?))
}

/// What is known of a training before it begins.
fn say_before(plan: &TrainPlan) {
    warn(&plan.warnings);
    detail(&plan.to_string());
    plan.notes.iter().for_each(|line| note(line));
}

/// One training, in its run folder.
async fn one(
    run: &Run,
    asked: &Invocation,
    config: &Config,
    plan: Arc<TrainPlan>,
) -> Result<(Trained, RunFolder), Error> {
    say_before(&plan);
    let folder = RunFolder::open(config)?;
    if let Some(summary) = &plan.balance {
        tell(&format!("balance: {}, training split\n", config.choice::<Balance>("balance.mode")));
        tell(&balance_in_words(&plan.options.classes, summary));
    }
    let done = watch(run, asked, &plan, &folder, Start::of(config)).await;
    let done = done.inspect_err(|error| {
        if matches!(error, Error::Interrupted(_)) {
            note(&format!(
                "a checkpoint is in {}; the same command goes on with --resume, and without --overwrite",
                folder.location()
            ));
        }
    })?;
    Ok((done, folder))
}

/// A training for each fold.
async fn folds(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let each = async |config: &Config, fold: u32, folds: u32| {
        note(&format!("fold {fold} of {folds}"));
        let plan = resolve(run, config, true).await?;
        let (done, _) = one(run, asked, config, plan).await?;
        Ok(done)
    };
    let done = cross_validate(run, &asked.config, each).await?;
    match asked.json {
        true => say_json(&done),
        false => say(&folds_in_words(&done, &asked.config.text("out").unwrap_or_default())),
    }
    Ok(())
}

fn folds_in_words(done: &CrossValidated, out: &str) -> String {
    let mut text =
        format!("\n{:>4} {:>7} {:>9} {:>9} {:>6}  run\n", "fold", "images", "accuracy", "macro F1", "epoch");
    for fold in &done.scores {
        let FoldScores { fold, run, images, accuracy, macro_f1, best_epoch } = fold;
        let accuracy = accuracy * 100.0;
        text += &format!("{fold:>4} {images:>7} {accuracy:>7.2} % {macro_f1:>9.4} {best_epoch:>6}  {run}\n");
    }
    let Evaluation { accuracy, majority, samples, .. } = &done.evaluation;
    let percent = |share: f64| format!("{:.2} %", share * 100.0);
    text + &format!(
        "\naccuracy {} ± {} over folds (standard deviation), macro F1 {:.4} ± {:.4}; of all {samples} images {} ({} to {}), \
         where always {} gets {}\n\
         the epoch of each fold was chosen by the images that score it, which flatters it a little; test images were not looked \
         at\n",
        percent(done.accuracy.mean),
        percent(done.accuracy.deviation),
        done.macro_f1.mean,
        done.macro_f1.deviation,
        percent(accuracy.value),
        percent(accuracy.low),
        percent(accuracy.high),
        printable(&majority.class),
        percent(majority.accuracy),
    ) + &format!("\nwritten to {out}: {}, {FOLDS}, {}, {}\n", files::REPORT, files::PREDICTIONS, files::FIXES)
}

/// Trains, and shows how it goes: in the live view, as a progress bar, or line by line without a terminal.
async fn watch(
    run: &Run,
    asked: &Invocation,
    plan: &Arc<TrainPlan>,
    folder: &RunFolder,
    begin: Start,
) -> Result<Trained, Error> {
    let (live, config) = (Arc::new(Live::default()), &asked.config);
    let is_terminal = std::io::stderr().is_terminal();
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    let is_live = config.is_on("train.live") && is_terminal && !is_dumb;
    if config.is_on("train.live") && !is_live {
        let lacks = match is_terminal {
            true => "a terminal that draws, and TERM is dumb or not set",
            false => "a terminal on stderr",
        };
        warn(&[format!("--live needs {lacks}; going on line by line")]);
    }
    let mut view = match is_live {
        true => Some(LiveView::open()?),
        false => None,
    };
    let bar = match is_live {
        true => None,
        false => Some(Bar::begin("training", plan.steps_per_epoch, Unit::Steps)),
    };
    let mut on_weights = |report: &WeightsReport| tell(&format!("initial weights:\n{report}\n"));
    // Epochs are results of a run that is watched, and progress of one that is read by a program.
    let mut on_epoch = |metrics: &EpochMetrics| {
        let line = terminal::epoch(metrics, plan.epochs);
        if asked.json { tell(&line) } else { say(&line) }
    };
    let title = Title {
        text: format!("{} on {}, into {}", plan.options.model, plan.feed.store.location(), folder.location()),
        epochs: plan.epochs,
        steps_per_epoch: plan.steps_per_epoch,
    };
    let watch = Watch { live: live.clone(), on_weights: &mut on_weights, on_epoch: &mut on_epoch };
    let work = train::train(run, plan.clone(), folder, begin, watch);
    watched(work, || {
        let nodes = run.meter().report();
        if let Some(shown) = &mut view {
            if run.interrupted().is_some() {
                // A second signal ends the process at once, and must find the terminal as it was.
                view = None;
                tell("stopping: a checkpoint is written\n");
                return;
            }
            shown.draw(&title, &live.seen(), &nodes);
        }
        let Some(bar) = &bar else { return };
        let seen = live.seen();
        let starved = nodes.iter().find(|node| node.name == "train").map_or(0.0, |node| node.starved);
        bar.show(&terminal::training(&seen, plan.epochs, plan.steps_per_epoch, starved));
    })
    .await
}
