//! `forebay`: the commands, as a table of contents.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use forebay::cli::{self, Invocation};
use forebay::config::{Command, Config};
use forebay::feed::Origin;
use forebay::flow::{Error, Run, limit_candle};
use forebay::plan::{self, PreparePlan, Rooms};
use forebay::report::live::{LiveView, Title};
use forebay::report::{say, terminal, watched};
use forebay::train::{Live, RunFolder, Start, TrainPlan, Trained, Watch, files};
use forebay::usage::Usage;
use forebay::{bench, demo, export, inspect, model, prepare, train, verify};
use forebay_datasets::sample::Split;
use forebay_datasets::seed::Seed;
use serde_json::json;

fn main() -> ExitCode {
    ignore_file_size_signal();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("FOREBAY_LOG"))
        .init();
    let matches = cli::command_line().get_matches();
    let asked = match cli::resolve(&matches, |path| std::fs::read_to_string(path)) {
        Ok(asked) => asked,
        Err(problems) => return fail(&Error::Plan(problems.0)),
    };
    match run(&asked) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Over the limit of `ulimit -f`, a write then fails and is reported, instead of ending the process.
#[allow(unsafe_code)]
fn ignore_file_size_signal() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: ignoring a signal installs no handler, and no thread exists yet.
    let _ = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
}

/// A training step frees and takes the same large blocks again and again. By default the C library gives each back to
/// the system, which then clears every page anew: a tenth of the time of a step.
#[allow(unsafe_code)]
fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets three numbers of the allocator before any other thread exists; both are documented for `mallopt`.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
    }
}

fn fail(error: &Error) -> ExitCode {
    for line in error.chain().lines() {
        eprintln!("forebay: {line}");
    }
    ExitCode::from(error.exit_code() as u8)
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
}

fn run(asked: &Invocation) -> Result<(), Error> {
    let config = &asked.config;
    let rooms = Rooms::of(config);
    limit_candle(rooms.threads)?;
    if matches!(asked.command, Command::Train | Command::Demo | Command::BenchModel | Command::Forward) {
        keep_freed_memory();
    }
    let run = Run::new(rooms.run_options())?;
    run.stop_on_signals()?;
    run.block_on(async {
        match asked.command {
            Command::Demo => demo_command(&run, asked).await,
            Command::Inspect => inspect_command(&run, asked).await,
            Command::Prepare => prepare_command(&run, asked, config).await.map(drop),
            Command::Verify => verify_command(&run, asked).await,
            Command::Train => train_command(&run, asked, config).await.map(drop),
            Command::Bench => bench_command(&run, asked).await,
            Command::BenchModel => bench_model_command(&run, asked, rooms.threads),
            Command::Forward => forward_command(&run, asked),
            Command::Export => export_command(&run, asked).await,
        }
    })
}

/// The last line of stdout with `--json`.
fn say_json(value: &serde_json::Value) {
    say(&format!("{value}\n"));
}

async fn inspect_command(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let store = plan::open(&asked.config, "source", "SOURCE")?;
    if let Some(manifest) = plan::manifest(&store).await? {
        match asked.json {
            true => say_json(&serde_json::to_value(&manifest).expect("manifests are plain data")),
            false => say(&terminal::dataset(store.location(), &manifest)),
        }
        return Ok(());
    }
    let bar = terminal::progress("inspect", 0, "images");
    let work = inspect::inspect(run, &asked.config, &store);
    let found = watched(work, || bar.set_position(run.meter().items("decode"))).await?;
    bar.finish_and_clear();
    warn(&found.warnings);
    match asked.json {
        true => say_json(&serde_json::to_value(&found).expect("results are plain data")),
        false => say(&terminal::inspected(store.location(), &found)),
    }
    Ok(())
}

async fn prepare_command(run: &Run, asked: &Invocation, config: &Config) -> Result<(), Error> {
    let start = Instant::now();
    let plan = Arc::new(PreparePlan::resolve(config).await?);
    if asked.plan_only {
        say(&plan.to_string());
        return Ok(());
    }
    let catalog = &plan.rows.catalog;
    warn(&catalog.warnings);
    let location = plan.dest.location().to_string();
    if config.word("balance.mode") != "none" {
        eprintln!("balance: {}, training split", config.word("balance.mode"));
        eprint!("{}", terminal::balance(&catalog.classes, &plan.rows.balance));
        if plan.augment.is_none() && plan.rows.planned[Split::Train as usize].iter().any(|row| row.copy > 0) {
            eprintln!(
                "note: without --augment the copies are equal; `forebay train --balance` repeats samples as it \
                 reads them and costs no disk"
            );
        }
    }
    let rows = plan.rows.planned.iter().map(Vec::len).sum::<usize>() as u64;
    let bar = terminal::progress("prepare", rows, "images");
    let work = prepare::prepare(run, plan.clone());
    let done = watched(work, || bar.set_position(run.meter().samples("encode"))).await;
    bar.finish_and_clear();
    let done = done.inspect_err(|error| {
        if matches!(error, Error::Interrupted(_)) {
            eprintln!("the finished shards stay in {location}; run the same command again to go on");
        }
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let counts = &done.manifest.counts;
    let usage = Usage::now();
    if asked.json {
        say_json(&json!({
            "found": counts.found, "written": counts.written, "rejected": counts.rejected,
            "dropped": counts.dropped, "rows": counts.rows, "shards": done.manifest.shards.len(),
            "shards_reused": done.shards_reused, "seconds": seconds, "cpu_seconds": usage.cpu_seconds,
            "peak_memory_bytes": usage.peak_memory_bytes, "fingerprint": done.manifest.fingerprint,
            "dest": location,
        }));
    } else {
        say(&terminal::prepared(&location, &done, seconds));
    }
    Ok(())
}

async fn verify_command(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let store = plan::open(&asked.config, "source", "SOURCE")?;
    let location = store.location();
    let manifest = plan::manifest(&store).await?.ok_or_else(|| {
        Error::Usage(format!("{location} holds no manifest.json, so it is no finished dataset of shards"))
    })?;
    let verified = verify::verify(run, &Rooms::of(&asked.config), &store, &manifest).await?;
    if asked.json {
        say_json(&json!({
            "shards": verified.shards, "bytes": verified.bytes, "differences": verified.differences,
        }));
    }
    if !verified.differences.is_empty() {
        let lines: Vec<String> =
            verified.differences.iter().map(|line| format!("{location}/{line}")).collect();
        return Err(Error::Integrity(lines.join("\n")));
    }
    if !asked.json {
        let bytes = plan::bytes_in_words(verified.bytes);
        say(&format!("{location}: {} shards, {bytes}, all as the manifest says\n", verified.shards));
    }
    Ok(())
}

async fn find_lr(run: &Run, asked: &Invocation, config: &Config, plan: &Arc<TrainPlan>) -> Result<(), Error> {
    let found = train::find_lr::find(run, plan).await?;
    if config.text("out").is_some() {
        let folder = RunFolder::open(config)?;
        folder.put("find-lr.svg", found.svg()).await?;
        let numbers = serde_json::to_string_pretty(&found).expect("results are plain data");
        folder.put("find-lr.json", numbers).await?;
    }
    match asked.json {
        true => say_json(&serde_json::to_value(&found).expect("results are plain data")),
        false => say(&found.to_string()),
    }
    Ok(())
}

async fn train_command(run: &Run, asked: &Invocation, config: &Config) -> Result<Option<Trained>, Error> {
    let plan = Arc::new(TrainPlan::resolve(config).await?);
    warn(&plan.warnings);
    if asked.plan_only {
        say(&plan.to_string());
        return Ok(None);
    }
    for note in &plan.notes {
        eprintln!("note: {note}");
    }
    if config.is_on("train.find_lr") {
        return find_lr(run, asked, config, &plan).await.map(|()| None);
    }
    let folder = RunFolder::open(config)?;
    if let Some(summary) = &plan.balance {
        eprintln!("balance: {}, training split", config.word("balance.mode"));
        eprint!("{}", terminal::balance(&plan.options.classes, summary));
    }
    let begin = match (config.is_on("train.resume"), config.is_on("overwrite")) {
        (true, _) => Start::Resume,
        (false, true) => Start::Overwrite,
        (false, false) => Start::New,
    };
    let done = watch_training(run, asked, config, &plan, &folder, begin).await;
    let location = folder.location();
    let done = done.inspect_err(|error| {
        if matches!(error, Error::Interrupted(_)) {
            eprintln!("a checkpoint is in {location}; the same command with --resume goes on");
        }
    })?;
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
        say(&format!("\nwritten to {location}: {}, {}, {}\n", files::MODEL, files::METRICS, files::REPORT));
    }
    Ok(Some(done))
}

/// Trains, and shows how it goes: in the live view, as a progress bar, or line by line without a terminal.
async fn watch_training(
    run: &Run,
    asked: &Invocation,
    config: &Config,
    plan: &Arc<TrainPlan>,
    folder: &RunFolder,
    begin: Start,
) -> Result<Trained, Error> {
    let live = Arc::new(Live::default());
    let is_live = config.is_on("train.live") && std::io::stderr().is_terminal();
    if config.is_on("train.live") && !is_live {
        warn(&["--live needs a terminal on stderr; going on line by line".to_string()]);
    }
    let mut view = match is_live {
        true => Some(LiveView::open()?),
        false => None,
    };
    let bar = match is_live {
        true => indicatif::ProgressBar::hidden(),
        false => terminal::training_progress(plan.steps_per_epoch),
    };
    // Lines that would break the picture wait until the terminal is given back.
    let held = std::sync::Mutex::new(Vec::<(bool, String)>::new());
    let is_viewed = std::sync::atomic::AtomicBool::new(is_live);
    let tell = |is_result: bool, text: String| match is_viewed.load(Ordering::Relaxed) {
        true => held.lock().expect("no panic under the lock").push((is_result, text)),
        false => bar.suspend(|| if is_result { say(&text) } else { eprint!("{text}") }),
    };
    let mut on_weights = |report: &forebay_stages::train::WeightsReport| {
        tell(false, format!("initial weights:\n{report}\n"));
    };
    // Epochs are results of a run that is watched, and progress of one that is read by a program.
    let mut on_epoch =
        |metrics: &train::EpochMetrics| tell(!asked.json, terminal::epoch(metrics, plan.epochs));
    let title = Title {
        text: format!("{} on {}, into {}", plan.options.model, plan.feed.store.location(), folder.location()),
        epochs: plan.epochs,
        steps_per_epoch: plan.steps_per_epoch,
    };
    let give_back = |view: &mut Option<LiveView>| {
        drop(view.take());
        is_viewed.store(false, Ordering::Relaxed);
        let lines = std::mem::take(&mut *held.lock().expect("no panic under the lock"));
        lines.into_iter().for_each(|(is_result, text)| tell(is_result, text));
    };
    let watch = Watch { live: live.clone(), on_weights: &mut on_weights, on_epoch: &mut on_epoch };
    let work = train::train(run, plan.clone(), folder, begin, watch);
    let done = watched(work, || {
        let nodes = run.meter().report();
        if let Some(shown) = &mut view {
            if shown.asked_to_stop() {
                run.stop(forebay::flow::Interrupt::CtrlC);
            }
            if run.interrupted().is_some() {
                give_back(&mut view);
                eprintln!("stopping: the batches in flight are finished and a checkpoint is written");
                return;
            }
            shown.draw(&title, &live.seen(), &nodes);
            return;
        }
        let seen = live.seen();
        let starved = nodes.iter().find(|node| node.name == "train").map_or(0.0, |node| node.starved);
        bar.set_position(seen.step);
        bar.set_prefix(format!("epoch {}/{}", seen.epoch, plan.epochs));
        bar.set_message(terminal::training_state(&seen, plan.steps_per_epoch, starved));
    })
    .await;
    give_back(&mut view);
    bar.finish_and_clear();
    done
}

async fn bench_command(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let config = &asked.config;
    let (feed, _, warnings) = train::feed(config).await?;
    warn(&warnings);
    let epochs = match config.is_given("train.epochs") {
        true => config.integer("train.epochs").expect("it is given") as u32,
        false => 1,
    };
    let what = match &feed.origin {
        Origin::Shards(_) => "shards",
        Origin::Folder(_) => "image folder",
    };
    let bar = terminal::progress("bench", feed.rows(Split::Train) * u64::from(epochs), "images");
    let seen = Arc::new(AtomicU64::new(0));
    let work = bench::bench(run, &feed, epochs, seen.clone());
    let done = watched(work, || bar.set_position(seen.load(Ordering::Relaxed))).await;
    bar.finish_and_clear();
    let done = done?;
    if asked.json {
        say_json(&serde_json::to_value(&done).expect("results are plain data"));
    } else {
        let (side, batch) = (feed.side, feed.batch_size);
        say(&format!("{} ({what}), batches of {batch} at {side}x{side} px\n", feed.store.location()));
        say(&terminal::benched(&done));
    }
    Ok(())
}

fn bench_model_command(run: &Run, asked: &Invocation, threads: usize) -> Result<(), Error> {
    let done = model::bench(run, &asked.config, threads)?;
    match asked.json {
        true => say_json(&serde_json::to_value(&done).expect("results are plain data")),
        false => say(&done.to_string()),
    }
    Ok(())
}

fn forward_command(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let report = model::forward_files(run, &asked.config)?;
    let output = asked.config.text("forward.output").unwrap_or_default();
    match asked.json {
        true => {
            say_json(&json!({"output": output, "loaded": report.loaded, "unexpected": report.unexpected}))
        }
        false => {
            eprintln!("weights:\n{report}");
            say(&format!("written to {output}\n"));
        }
    }
    Ok(())
}

async fn export_command(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let done = export::export(run, &asked.config).await?;
    warn(&done.warnings);
    match asked.json {
        true => say_json(&serde_json::to_value(&done).expect("results are plain data")),
        false => say(&done.to_string()),
    }
    Ok(())
}

/// The whole job on a dataset that is drawn here.
async fn demo_command(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let config = &asked.config;
    let start = Instant::now();
    let root = std::path::PathBuf::from(config.text("out").unwrap_or_else(|| "forebay-demo".to_string()));
    let [images, shards, trained] =
        ["images", "shards", "run"].map(|name| root.join(name).to_string_lossy().into_owned());
    let seed = Seed(config.integer("seed").expect("it has a default"));
    let heading = |text: &str| eprintln!("\n── {text}");

    heading(&format!("1. draw a dataset in {images}"));
    let drawn = demo::draw(std::path::Path::new(&images), seed, demo::DemoOptions::default())
        .map_err(|error| Error::failed(format!("draw images in {images}"), error))?;
    eprintln!(
        "{} images in {} classes, {} of them broken on purpose",
        drawn.images,
        drawn.classes.len(),
        drawn.broken
    );

    let quiet = |asked: &Invocation, command| Invocation { command, plan_only: false, ..asked.clone() };
    heading(&format!("2. forebay inspect {images}"));
    let source = config.clone().with("source", images.clone());
    let inspect_asked = Invocation { json: false, config: source.clone(), ..quiet(asked, Command::Inspect) };
    if !asked.json {
        inspect_command(run, &inspect_asked).await?;
    }

    heading(&format!("3. forebay prepare {images} {shards} --size 48 --fit crop --encode png"));
    let prepare_config = source
        .with("dest", shards.clone())
        .with("resize.size", 48)
        .with("resize.fit", "crop")
        .with("encode.format", "png")
        .with("overwrite", true);
    let prepare_asked = Invocation { config: prepare_config.clone(), ..quiet(asked, Command::Prepare) };
    prepare_command(run, &prepare_asked, &prepare_config).await?;

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
    let done = train_command(run, &quiet(asked, Command::Demo), &train_config).await?;
    let done = done.expect("it was trained, not only planned");

    let seconds = start.elapsed().as_secs_f64();
    eprintln!("\n── done in {seconds:.0} s. Next, on a folder of your own with one folder per class:");
    eprintln!("  forebay inspect PHOTOS");
    eprintln!("  forebay prepare PHOTOS SHARDS --size 224 --fit crop");
    eprintln!("  forebay train SHARDS --out RUN --augment light");
    if asked.json {
        say_json(&json!({
            "accuracy": done.accuracy, "split": done.split, "best_epoch": done.best_epoch,
            "macro_f1": done.macro_f1, "images": images, "shards": shards, "run": trained, "seconds": seconds,
        }));
    }
    Ok(())
}
