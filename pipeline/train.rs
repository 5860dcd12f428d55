//! Batches -> model: epochs of training and validation, checkpoints, and the test at the end.
//!
//! The device is touched by the train thread only. A run folder holds the resolved run file, the whole chain
//! from image bytes to tensor, metrics, the last and the best checkpoint, and a report.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use forebay_datasets::catalog;
use forebay_datasets::sample::Split;
use forebay_datasets::seed::Seed;
use forebay_datasets::store::Store;
use forebay_stages::balance::{Balance, BalanceSummary};
use forebay_stages::collate::Batch;
use forebay_stages::resize::{Fit, Size};
use forebay_stages::train::metrics::{Confusion, prediction};
use forebay_stages::train::{
    DeviceKind, Freeze, OptimizerKind, StepReport, TrainError, TrainOptions, Trainer, WeightsReport,
};
use serde::{Deserialize, Serialize};
use toml::Value;

use crate::config::Config;
use crate::feed::{Feed, Origin, Pass, Shards};
use crate::flow::{Error, Items, Run};
use crate::plan::{self, Rooms, catalog_error, memory_in_words, open, store_error};
use crate::weights;

/// The files of a run folder.
pub mod files {
    /// The resolved run file.
    pub const RUN: &str = "run.toml";
    /// The chain from image bytes to tensor.
    pub const CHAIN: &str = "chain.json";
    /// One JSON object per epoch.
    pub const METRICS: &str = "metrics.jsonl";
    /// The checkpoint to resume from.
    pub const LAST: &str = "last.safetensors";
    /// The weights of the best epoch.
    pub const BEST: &str = "best.safetensors";
    /// The scores of the best checkpoint.
    pub const SCORES: &str = "scores.json";
    /// The report for people.
    pub const REPORT: &str = "report.html";
}

/// `forebay train`, checked.
#[derive(Clone)]
pub struct TrainPlan {
    /// Where the batches come from.
    pub feed: Feed,
    /// What training does with them.
    pub options: TrainOptions,
    /// Passes over the training split.
    pub epochs: u32,
    /// Steps of one pass.
    pub steps_per_epoch: u64,
    /// The classes before and after balancing, where a balance was asked for.
    pub balance: Option<BalanceSummary>,
    /// Initial weights: the name of the file and its bytes.
    pub weights: Option<(String, Bytes)>,
    /// The whole chain from image bytes to tensor.
    pub chain: serde_json::Value,
    /// What a checkpoint must agree with to be resumed from.
    pub identity: String,
    /// The resolved run file.
    pub run_file: String,
    /// What a user would want to know before going on.
    pub warnings: Vec<String>,
}

/// The source of a feed and what it holds, before a trainer is thought of: what `train` and `bench` share.
///
/// # Errors
/// [`Error::Plan`] or [`Error::Usage`] for options or a source that cannot be used, others when a store fails.
pub async fn feed(config: &Config) -> Result<(Feed, Option<BalanceSummary>, Vec<String>), Error> {
    let mut problems = Vec::new();
    let augment = plan::augment(config, &mut problems);
    let balance = plan::balance_options(config, &mut problems);
    if config.get("resize.size").and_then(Value::as_str) == Some("original") {
        problems.push("resize.size: a batch needs one size; give a number of pixels".to_string());
    }
    if !problems.is_empty() {
        return Err(Error::Plan(problems));
    }
    let store = open(config, "source", "SOURCE")?;
    let mut warnings = Vec::new();
    let (origin, default_side, chunk) = match plan::manifest(&store).await? {
        Some(manifest) => {
            refuse_twice(config, &manifest, &augment, balance.mode)?;
            let side = manifest.side_px;
            let (rows, bytes) =
                (manifest.counts.rows.max(1), manifest.shards.iter().map(|s| s.bytes).sum::<u64>());
            let chunk = plan::chunk_of(bytes / rows);
            (Origin::Shards(Arc::new(Shards::open(&store, manifest).await?)), side, chunk)
        }
        None => {
            let catalog = catalog::read(&store).await.map_err(catalog_error)?;
            warnings.extend(catalog.warnings.iter().cloned());
            let chunk = plan::chunk(&catalog);
            // Copies are made by the feed, as for shards, so that both give the same batches.
            let rows = plan::rows(config, catalog, &BTreeMap::new(), false)?;
            (Origin::Folder(Arc::new(rows)), None, chunk)
        }
    };
    let side = config.integer("resize.size").map(|side| side as u32).or(default_side).unwrap_or(224);
    let mut feed = Feed {
        store,
        origin,
        chain: plan::chain(config, Size::Side(side), Fit::Crop),
        side,
        augment,
        copies: None,
        batch_size: config.integer("train.batch_size").expect("it has a default") as usize,
        seed: Seed(config.integer("seed").expect("it has a default")),
        rooms: Rooms::of(config),
        chunk,
    };
    // A batch has one size, so that small images are enlarged whatever the run file says of shards.
    feed.chain.resize.enlarge = true;
    if let Some(prepared) = default_side
        && feed.chain.resize.shorter_side.is_some_and(|shorter| prepared < shorter)
    {
        // The margin was cut off when the shards were prepared, or was never there.
        feed.chain.resize.shorter_side = None;
        if prepared < side {
            warnings.push(format!(
                "the shards hold images of {prepared} pixels, which are enlarged to {side}: prepare them larger, or \
                 train at their size"
            ));
        }
    }
    let summary = match balance.mode {
        Balance::None => None,
        _ => Some(feed.balance(&balance, feed.seed).await?),
    };
    Ok((feed, summary, warnings))
}

/// Balance and augmentation happen once: what the shards hold is not done again, unless forced.
fn refuse_twice(
    config: &Config,
    manifest: &forebay_datasets::manifest::Manifest,
    augment: &Option<forebay_stages::augment::Augment>,
    balance: Balance,
) -> Result<(), Error> {
    if config.is_on("force") {
        return Ok(());
    }
    let mut problems = Vec::new();
    if manifest.balanced && balance != Balance::None {
        problems.push("balance.mode: the shards are balanced already; leave it out, or --force".to_string());
    }
    if manifest.augmented && augment.is_some() {
        problems.push("augment: the shards are augmented already; leave it out, or --force".to_string());
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::Plan(problems)) }
}

impl TrainPlan {
    /// Checks a training run: opens the source, reads what is there, and the initial weights.
    ///
    /// # Errors
    /// [`Error::Plan`] or [`Error::Usage`] for options or a source that cannot be used, others when a store fails.
    pub async fn resolve(config: &Config) -> Result<TrainPlan, Error> {
        let device = device(config.word("train.device"))?;
        let initial = weights::read(config).await?;
        let applied = initial.as_ref().map(|initial| weights::apply(config, initial)).transpose()?;
        let config = applied.as_ref().unwrap_or(config);
        let (feed, balance, mut warnings) = feed(config).await?;
        warnings.extend(initial.iter().flat_map(|initial| initial.warnings.iter().cloned()));
        let place = feed.store.location().to_string();
        let classes = feed.classes().to_vec();
        if classes.len() < 2 {
            return Err(Error::Usage(format!(
                "{place} holds {} class: training tells classes apart, so it needs two or more folders of images",
                classes.len()
            )));
        }
        let rows = feed.rows(Split::Train);
        if rows == 0 {
            return Err(Error::Usage(format!("{place} holds no training images; see --split")));
        }
        if feed.rows(Split::Validation) == 0 {
            warnings.push("no validation images: the best checkpoint is the last one".to_string());
        }
        let optimizer = match config.word("train.optimizer") {
            "sgd" => OptimizerKind::Sgd {
                momentum: config.number("train.momentum").expect("it has a default"),
                nesterov: false,
            },
            // The constants of the paper, which are PyTorch's defaults too.
            _ => OptimizerKind::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
        };
        let is_sgd = optimizer.name() == "sgd";
        let epochs = config.integer("train.epochs").expect("it has a default") as u32;
        let steps_per_epoch = rows.div_ceil(feed.batch_size as u64);
        let normalize = plan::normalize(config);
        let warmup = config.number("train.warmup").expect("it has a default") * steps_per_epoch as f64;
        let steps_total = steps_per_epoch * u64::from(epochs);
        let options = TrainOptions {
            model: config.word("train.arch").to_string(),
            classes,
            optimizer,
            learning_rate: config.number("train.learning_rate").unwrap_or(if is_sgd { 0.05 } else { 0.001 }),
            weight_decay: config.number("train.weight_decay").unwrap_or(if is_sgd { 5e-4 } else { 0.05 }),
            // A run of one epoch still ends with the learning rate falling.
            warmup_steps: (warmup as u64).min(steps_total / 2),
            steps_total,
            freeze: if config.word("train.freeze") == "backbone" { Freeze::Backbone } else { Freeze::None },
            label_smoothing: config.number("train.label_smoothing").expect("it has a default"),
            normalize: (normalize.mean, normalize.std),
            seed: feed.seed,
            device,
        };
        if options.freeze == Freeze::Backbone && initial.is_none() {
            warnings.push("--freeze backbone without --weights trains a head on random features".to_string());
        }
        let settings = config.settings(&["seed", "split", "decode", "resize", "balance", "augment", "train"]);
        let dataset = match &feed.origin {
            Origin::Shards(shards) => shards.manifest.fingerprint.clone(),
            Origin::Folder(rows) => plan::fingerprint(rows, &BTreeMap::new()),
        };
        let chain = serde_json::json!({
            "prepared": match &feed.origin {
                Origin::Shards(shards) => shards.manifest.settings.clone(),
                Origin::Folder(_) => serde_json::Value::Null,
            },
            "decode": config.settings(&["decode"]),
            "resize": {
                "side": feed.side,
                "fit": "crop",
                "filter": config.word("resize.filter"),
                "crop_pct": config.number("resize.crop_pct").unwrap_or(1.0),
                "shorter_side": feed.chain.resize.shorter_side.unwrap_or(feed.side),
            },
            "augment": feed.augment,
            "normalize": {"mean": normalize.mean, "std": normalize.std},
            "layout": format!("[batch, 3, {0}, {0}] RGB", feed.side),
            "classes": options.classes,
            "weights": initial.as_ref().map(|initial| initial.record.clone()),
        });
        let mut identity = settings;
        // Where and how long a run goes on is not what it is.
        for key in ["train.resume", "train.epochs", "train.device"] {
            identity.remove(key);
        }
        identity.insert("dataset".to_string(), dataset.into());
        identity.insert("side".to_string(), feed.side.into());
        let identity = serde_json::to_string(&identity).expect("settings are plain data");
        Ok(TrainPlan {
            identity: blake3::hash(identity.as_bytes()).to_hex().to_string(),
            feed,
            options,
            epochs,
            steps_per_epoch,
            balance,
            weights: initial.map(|initial| (initial.name, initial.bytes)),
            chain,
            run_file: config.to_toml(),
            warnings,
        })
    }
}

fn device(text: &str) -> Result<DeviceKind, Error> {
    let number = text
        .strip_prefix("cuda")
        .map(|rest| rest.strip_prefix(':').unwrap_or(if rest.is_empty() { "0" } else { rest }));
    match (text, number.map(str::parse)) {
        ("cpu", _) => Ok(DeviceKind::Cpu),
        (_, Some(Ok(_))) if !cfg!(feature = "cuda") => Err(Error::Usage(format!(
            "train.device: {text} needs a build with `--features cuda`; this one has only cpu"
        ))),
        (_, Some(Ok(number))) => Ok(DeviceKind::Cuda(number)),
        _ => Err(Error::Usage(format!("train.device: \"{text}\" is not cpu or cuda:N"))),
    }
}

/// A run folder: kept locally, and where RUN is remote each file is also put there whole.
#[derive(Clone, Debug)]
pub struct RunFolder {
    local: Store,
    remote: Option<Store>,
}

impl RunFolder {
    /// Opens RUN. A remote one is kept below the user's cache folder as well.
    ///
    /// # Errors
    /// [`Error::Usage`] when it cannot be a place.
    pub fn open(config: &Config) -> Result<RunFolder, Error> {
        let out = open(config, "out", "--out RUN")?;
        if out.local_root().is_some() {
            return Ok(RunFolder { local: out, remote: None });
        }
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(std::path::PathBuf::from)
            .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
            .unwrap_or_else(std::env::temp_dir);
        let name = blake3::hash(out.location().as_bytes()).to_hex();
        let local = cache.join("forebay").join("runs").join(&name.as_str()[..16]);
        let local = Store::open(&local.to_string_lossy(), &Default::default()).map_err(store_error)?;
        Ok(RunFolder { local, remote: Some(out) })
    }

    /// Where a user finds the run.
    pub fn location(&self) -> &str {
        self.remote.as_ref().unwrap_or(&self.local).location()
    }

    /// The store that counts: the remote one where there is one.
    fn authority(&self) -> &Store {
        self.remote.as_ref().unwrap_or(&self.local)
    }

    /// Reads a file of the run, if it is there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get(&self, name: &str) -> Result<Option<Bytes>, Error> {
        let store = self.authority();
        match store.size(name).await.map_err(store_error)? {
            Some(_) => Ok(Some(store.get(name).await.map_err(store_error)?)),
            None => Ok(None),
        }
    }

    /// Writes a file of the run, whole or not at all.
    ///
    /// # Errors
    /// When a store fails.
    pub async fn put(&self, name: &str, bytes: impl Into<Bytes>) -> Result<(), Error> {
        let bytes = bytes.into();
        self.local.put(name, bytes.clone()).await.map_err(store_error)?;
        match &self.remote {
            Some(remote) => remote.put(name, bytes).await.map_err(store_error),
            None => Ok(()),
        }
    }
}

/// What one epoch came to, as a line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// Counted from 1.
    pub epoch: u32,
    /// Steps since the start of the run.
    pub steps: u64,
    /// The learning rate of the last step.
    pub learning_rate: f64,
    /// The mean loss over the epoch, as it went.
    pub train_loss: f64,
    /// The share of training images classified right, as it went.
    pub train_accuracy: f64,
    /// The mean loss on the validation split.
    pub validation_loss: Option<f64>,
    /// The accuracy on the validation split.
    pub validation_accuracy: Option<f64>,
    /// How long the epoch took, validation included.
    pub seconds: f64,
    /// Training images per second.
    pub images_per_second: f64,
}

/// The scores of one class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassRow {
    /// Its name.
    pub class: String,
    /// Of those predicted as this class, the share that is.
    pub precision: f64,
    /// Of those of this class, the share that was found.
    pub recall: f64,
    /// The harmonic mean of both.
    pub f1: f64,
    /// How many there are.
    pub support: u64,
}

/// What a training run came to.
#[derive(Clone, Debug, Serialize)]
pub struct Trained {
    /// The accuracy of the best checkpoint on `split`.
    pub accuracy: f64,
    /// `test` where there is one, else `validation`, else `train`.
    pub split: Split,
    /// The epoch of the best checkpoint, counted from 1.
    pub best_epoch: u32,
    /// The mean over classes, each weighing the same.
    pub macro_f1: f64,
    /// Every class in the order of the labels.
    pub classes: Vec<ClassRow>,
    /// `[truth][prediction]`: counts.
    pub confusion: Vec<Vec<u64>>,
    /// Every epoch.
    pub epochs: Vec<EpochMetrics>,
    /// The share of the train thread's time in which it waited for a batch.
    pub starved: f64,
}

/// What a checkpoint carries beside the network: where the run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Progress {
    /// Finished epochs.
    epoch: u32,
    /// Batches done of the epoch at hand.
    batch: u64,
    /// Sums over those batches.
    loss: f64,
    correct: u64,
    seen: u64,
    /// Epoch and score of the best checkpoint.
    best_epoch: u32,
    best_score: f64,
}

impl Progress {
    fn to_metadata(self, plan: &TrainPlan) -> BTreeMap<String, String> {
        // A float is kept as its bits, so that a resumed epoch reports what an uninterrupted one does.
        BTreeMap::from([
            ("identity".to_string(), plan.identity.clone()),
            ("chain".to_string(), plan.chain.to_string()),
            ("epoch".to_string(), self.epoch.to_string()),
            ("batch".to_string(), self.batch.to_string()),
            ("loss".to_string(), self.loss.to_bits().to_string()),
            ("correct".to_string(), self.correct.to_string()),
            ("seen".to_string(), self.seen.to_string()),
            ("best_epoch".to_string(), self.best_epoch.to_string()),
            ("best_score".to_string(), self.best_score.to_bits().to_string()),
        ])
    }

    fn from_metadata(metadata: &BTreeMap<String, String>) -> Option<Progress> {
        let number = |key: &str| metadata.get(key)?.parse::<u64>().ok();
        Some(Progress {
            epoch: number("epoch")? as u32,
            batch: number("batch")?,
            loss: f64::from_bits(number("loss")?),
            correct: number("correct")?,
            seen: number("seen")?,
            best_epoch: number("best_epoch")? as u32,
            best_score: f64::from_bits(number("best_score")?),
        })
    }
}

/// The trainer and where it stands; the train thread holds it during a pass.
struct Session {
    trainer: Trainer,
    progress: Progress,
    /// Whether the classifier came with the initial weights.
    classifies: bool,
}

/// What the world sees of a run while it goes on.
#[derive(Debug, Default)]
pub struct Live {
    /// Steps of the epoch at hand.
    pub step: AtomicU64,
    /// Bits of the running mean loss of the epoch at hand.
    pub loss: AtomicU64,
    /// The epoch at hand, counted from 1.
    pub epoch: AtomicU64,
}

/// Who is told while a run goes on.
pub struct Watch<'a> {
    /// Where the run stands, for a progress bar.
    pub live: Arc<Live>,
    /// Called with what became of the initial weights.
    pub on_weights: &'a mut (dyn FnMut(&WeightsReport) + Send),
    /// Called with each finished epoch.
    pub on_epoch: &'a mut (dyn FnMut(&EpochMetrics) + Send),
}

/// How a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Anew, in a folder that holds no run.
    New,
    /// Anew, in the place of a run that the folder may hold.
    Overwrite,
    /// With the last checkpoint in the folder.
    Resume,
}

fn train_error(what: &str, error: TrainError) -> Error {
    match error {
        TrainError::Options(line) => Error::Usage(line),
        TrainError::Weights(line) => Error::Usage(format!("{what}: {line}")),
        error => Error::failed(what.to_string(), error),
    }
}

/// Trains, keeps checkpoints, and tests the best of them.
///
/// # Errors
/// The first error of the run. An interrupted run leaves a checkpoint to resume from.
pub async fn train(
    run: &Run,
    plan: Arc<TrainPlan>,
    folder: &RunFolder,
    begin: Start,
    watch: Watch<'_>,
) -> Result<Trained, Error> {
    let Watch { live, on_weights, on_epoch } = watch;
    let (session, mut history) = start(run, &plan, folder, begin, on_weights).await?;
    let validates = plan.feed.rows(Split::Validation) > 0;
    loop {
        let epoch = session.lock().expect("the train thread has ended").progress.epoch;
        if epoch >= plan.epochs {
            break;
        }
        live.epoch.store(u64::from(epoch) + 1, Ordering::Relaxed);
        let start = Instant::now();
        let trained = pass(run, &plan, session.clone(), epoch, live.clone()).await;
        if let Err(Error::Interrupted(interrupt)) = trained {
            keep(&plan, folder, &session).await?;
            return Err(Error::Interrupted(interrupt));
        }
        let last = trained?;
        let validation = match validates {
            true => Some(evaluate(run, &plan, session.clone(), Split::Validation).await?),
            false => None,
        };
        let metrics = {
            let mut session = session.lock().expect("the train thread has ended");
            let progress = &mut session.progress;
            if progress.seen == 0 {
                return Err(Error::NothingLeft("no training image could be read".to_string()));
            }
            let seconds = start.elapsed().as_secs_f64();
            let metrics = EpochMetrics {
                epoch: epoch + 1,
                steps: last.map_or(0, |step| step.step + 1),
                learning_rate: last.map_or(0.0, |step| step.learning_rate),
                train_loss: progress.loss / progress.seen as f64,
                train_accuracy: progress.correct as f64 / progress.seen as f64,
                validation_loss: validation.as_ref().map(|(loss, _)| *loss),
                validation_accuracy: validation.as_ref().map(|(_, confusion)| confusion.accuracy()),
                seconds,
                images_per_second: progress.seen as f64 / seconds,
            };
            let score = metrics.validation_accuracy.unwrap_or(f64::from(epoch + 1));
            let is_best = progress.best_epoch == 0 || score > progress.best_score;
            if is_best {
                (progress.best_epoch, progress.best_score) = (epoch + 1, score);
            }
            *progress = Progress { epoch: epoch + 1, batch: 0, loss: 0.0, correct: 0, seen: 0, ..*progress };
            metrics
        };
        history.push(metrics.clone());
        let is_best = session.lock().expect("the train thread has ended").progress.best_epoch == epoch + 1;
        if is_best {
            let bytes = {
                let session = session.lock().expect("the train thread has ended");
                let metadata = session.progress.to_metadata(&plan);
                session.trainer.weights(&metadata).map_err(|error| train_error("write the weights", error))?
            };
            folder.put(files::BEST, bytes).await?;
        }
        let lines: String = history
            .iter()
            .map(|metrics| serde_json::to_string(metrics).expect("metrics are plain data") + "\n")
            .collect();
        folder.put(files::METRICS, lines).await?;
        // Last of all: a checkpoint says that everything before it is in place.
        keep(&plan, folder, &session).await?;
        tracing::debug!(epoch = metrics.epoch, steps = metrics.steps, is_best, "epoch kept");
        on_epoch(&metrics);
        if let Some(interrupt) = run.interrupted() {
            return Err(Error::Interrupted(interrupt));
        }
    }
    run.rejects().check_at_end()?;
    test(run, &plan, folder, session, history).await
}

/// Builds the trainer: from the last checkpoint, from a weights file, or anew.
async fn start(
    run: &Run,
    plan: &TrainPlan,
    folder: &RunFolder,
    begin: Start,
    on_weights: &mut (dyn FnMut(&WeightsReport) + Send),
) -> Result<(Arc<Mutex<Session>>, Vec<EpochMetrics>), Error> {
    let last = folder.get(files::LAST).await?;
    if last.is_some() && begin == Start::New {
        return Err(Error::Usage(format!(
            "{} holds a run already: --resume goes on with it, --overwrite starts again",
            folder.location()
        )));
    }
    let trainer = run.install(|| Trainer::new(&plan.options));
    let mut trainer = trainer.map_err(|error| train_error("build the network", error))?;
    let place = |name: &str| format!("{}/{name}", folder.location());
    if begin == Start::Resume {
        let Some(bytes) = last else {
            return Err(Error::Usage(format!(
                "{} holds no {} to resume from; leave out --resume",
                folder.location(),
                files::LAST
            )));
        };
        let restored = run.install(|| trainer.restore(&bytes));
        let metadata = restored.map_err(|error| train_error(&place(files::LAST), error))?;
        let progress = Progress::from_metadata(&metadata).ok_or_else(|| {
            Error::Integrity(format!("{} does not say where its run stands", place(files::LAST)))
        })?;
        if metadata.get("identity") != Some(&plan.identity) {
            return Err(Error::Usage(format!(
                "{} is of a run with other data or options; give the options of its {}, or another --out",
                place(files::LAST),
                files::RUN
            )));
        }
        let metrics = folder.get(files::METRICS).await?.unwrap_or_default();
        let history = String::from_utf8_lossy(&metrics)
            .lines()
            .filter_map(|line| serde_json::from_str::<EpochMetrics>(line).ok())
            .filter(|metrics| metrics.epoch <= progress.epoch)
            .collect();
        return Ok((Arc::new(Mutex::new(Session { trainer, progress, classifies: false })), history));
    }
    let mut classifies = false;
    if let Some((name, bytes)) = &plan.weights {
        let loaded = run.install(|| trainer.load_weights(bytes));
        let loaded = loaded.map_err(|error| train_error(&format!("load {name}"), error))?;
        classifies = loaded.missing.is_empty() && loaded.mismatched.is_empty();
        on_weights(&loaded);
    }
    folder.put(files::RUN, plan.run_file.clone()).await?;
    folder.put(files::CHAIN, forebay_datasets::manifest::to_json(&plan.chain)).await?;
    Ok((Arc::new(Mutex::new(Session { trainer, progress: Progress::default(), classifies })), Vec::new()))
}

/// Writes the checkpoint to resume from.
async fn keep(plan: &TrainPlan, folder: &RunFolder, session: &Mutex<Session>) -> Result<(), Error> {
    let bytes = {
        let session = session.lock().expect("the train thread has ended");
        let metadata = session.progress.to_metadata(plan);
        session.trainer.checkpoint(&metadata).map_err(|error| train_error("write the checkpoint", error))?
    };
    folder.put(files::LAST, bytes).await
}

/// Trains one epoch; a resumed one goes on after the batches that were done.
async fn pass(
    run: &Run,
    plan: &TrainPlan,
    session: Arc<Mutex<Session>>,
    epoch: u32,
    live: Arc<Live>,
) -> Result<Option<StepReport>, Error> {
    let pool = run.clone();
    let pretrained = plan.weights.is_some().then_some(plan.options.normalize);
    let consume = move |batches: Items<Batch>| {
        let mut session = session.lock().expect("one pass at a time");
        let session = &mut *session;
        let done = session.progress.batch;
        live.step.store(done, Ordering::Relaxed);
        let mut last = None;
        for batch in batches.skip(done as usize) {
            if let Some(normalize) = pretrained.filter(|_| (epoch, session.progress.batch) == (0, 0)) {
                let look = || weights::complaints(&session.trainer, &batch, normalize, session.classifies);
                pool.install(look).iter().for_each(|line| eprintln!("warning: {line}"));
            }
            let report = pool.install(|| session.trainer.step(&batch));
            let report = report.map_err(|error| train_error("train", error))?;
            let progress = &mut session.progress;
            progress.batch += 1;
            progress.loss += report.loss * batch.len() as f64;
            progress.correct += report.correct as u64;
            progress.seen += batch.len() as u64;
            live.step.store(progress.batch, Ordering::Relaxed);
            live.loss.store((progress.loss / progress.seen as f64).to_bits(), Ordering::Relaxed);
            last = Some(report);
        }
        Ok(last)
    };
    plan.feed.batches(run, Pass::Train(epoch)).drain("train", consume).await
}

/// Mean loss and confusion matrix of one split, in evaluation mode.
async fn evaluate(
    run: &Run,
    plan: &TrainPlan,
    session: Arc<Mutex<Session>>,
    split: Split,
) -> Result<(f64, Confusion), Error> {
    let pool = run.clone();
    let classes = plan.options.classes.len();
    let consume = move |batches: Items<Batch>| {
        let session = session.lock().expect("one pass at a time");
        let trainer = &session.trainer;
        let mut confusion = Confusion::new(classes);
        let mut loss = 0.0;
        for batch in batches {
            let logits = pool.install(|| trainer.predict(&batch));
            let logits = logits.map_err(|error| train_error("evaluate", error))?;
            loss += Trainer::loss(&logits, &batch.labels) * batch.len() as f64;
            for (row, label) in logits.iter().zip(&batch.labels) {
                confusion.add(*label as usize, prediction(row));
            }
        }
        Ok((loss / confusion.total().max(1) as f64, confusion))
    };
    plan.feed.batches(run, Pass::Evaluate(split)).drain("evaluate", consume).await
}

/// Tests the best checkpoint on images that training never saw.
async fn test(
    run: &Run,
    plan: &TrainPlan,
    folder: &RunFolder,
    session: Arc<Mutex<Session>>,
    epochs: Vec<EpochMetrics>,
) -> Result<Trained, Error> {
    let best = folder
        .get(files::BEST)
        .await?
        .ok_or_else(|| Error::Integrity(format!("{}/{} is missing", folder.location(), files::BEST)))?;
    let best_epoch = {
        let mut session = session.lock().expect("the train thread has ended");
        let session = &mut *session;
        let loaded = run.install(|| session.trainer.load_weights(&best));
        loaded.map_err(|error| train_error(files::BEST, error))?;
        session.progress.best_epoch
    };
    let held = [Split::Test, Split::Validation, Split::Train];
    let split = held.into_iter().find(|split| plan.feed.rows(*split) > 0).expect("there are training rows");
    let (_, confusion) = evaluate(run, plan, session, split).await?;
    let names = plan.options.classes.iter().enumerate();
    let classes = names
        .map(|(class, name)| {
            let scores = confusion.class(class);
            ClassRow {
                class: name.clone(),
                precision: scores.precision,
                recall: scores.recall,
                f1: scores.f1,
                support: scores.support,
            }
        })
        .collect();
    let n = plan.options.classes.len();
    let nodes = run.meter().report();
    let trained = Trained {
        accuracy: confusion.accuracy(),
        split,
        best_epoch,
        macro_f1: confusion.macro_average().f1,
        classes,
        confusion: (0..n).map(|truth| (0..n).map(|guess| confusion.count(truth, guess)).collect()).collect(),
        epochs,
        starved: nodes.iter().find(|node| node.name == "train").map_or(0.0, |node| node.starved),
    };
    folder.put(files::SCORES, forebay_datasets::manifest::to_json(&trained)).await?;
    folder.put(files::REPORT, crate::report::html::train(plan, &trained)).await?;
    Ok(trained)
}

impl std::fmt::Display for TrainPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let feed = &self.feed;
        let origin = match &feed.origin {
            Origin::Shards(shards) => format!("{} shards", shards.manifest.shards.len()),
            Origin::Folder(rows) => format!("image folder, {}", rows.catalog.layout),
        };
        writeln!(f, "train {} ({origin})", feed.store.location())?;
        for split in Split::ALL {
            writeln!(f, "  {split:<12} {} images", feed.rows(split))?;
        }
        let (read, compute) = (feed.rooms.read(), feed.rooms.compute());
        writeln!(f, "  stages       (slots + queue, of chunks of {} samples)", feed.chunk)?;
        let augment = match &feed.augment {
            Some(augment) => serde_json::to_string(augment).unwrap_or_default(),
            None => "off".to_string(),
        };
        for (name, room, what) in [
            ("read", read, feed.store.location().to_string()),
            ("decode", compute, "to RGB".to_string()),
            ("resize", compute, format!("{0}x{0} px, centre crop", feed.side)),
            ("augment", compute, augment),
            ("batch", compute, format!("{} images", feed.batch_size)),
        ] {
            writeln!(f, "    {name:<10} {:>3} + {:<3} {what}", room.slots, room.queue)?;
        }
        let options = &self.options;
        writeln!(f, "  model        {} with {} classes", options.model, options.classes.len())?;
        writeln!(
            f,
            "  optimizer    {}, learning rate {}, weight decay {}",
            options.optimizer.name(),
            options.learning_rate,
            options.weight_decay
        )?;
        writeln!(
            f,
            "  schedule     {} epochs of {} steps, {} steps of warm-up, then cosine",
            self.epochs, self.steps_per_epoch, options.warmup_steps
        )?;
        writeln!(f, "  threads      {}", feed.rooms.threads)?;
        f.write_str(&memory_in_words(&feed.memory()))
    }
}
