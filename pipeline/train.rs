//! Batches -> model: epochs of training and validation, checkpoints, and the test at the end.
//!
//! The device is touched by the train thread only. A run folder holds the resolved run file, the whole chain
//! from image bytes to tensor, metrics, the last checkpoint, the best model as timm and transformers open it, and
//! a report.

mod features;
pub mod find_lr;
mod fit;
mod keeping;
mod live;
pub(crate) mod recipe;
mod recorder;
mod run_folder;
pub(crate) mod seal;
pub mod timm;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use forebay_datasets::catalog;
use forebay_datasets::sample::Split;
use forebay_datasets::seed::Seed;
use forebay_stages::balance::{Balance, BalanceSummary};
use forebay_stages::collate::Batch;
use forebay_stages::group::count_batches;
use forebay_stages::resize::{Fit, Size};
use forebay_stages::train::metrics::{Confusion, prediction};
use forebay_stages::train::schedule::Plateau;
use forebay_stages::train::{DeviceKind, FileDescription, TrainError, TrainOptions, Trainer, WeightsReport};
use serde::{Deserialize, Serialize};
use toml::Value;

use crate::config::Config;
use crate::feed::{Feed, Origin, Pass, Shards};
use crate::flow::{Error, Items, Run};
use crate::plan::{self, Rooms, catalog_error, memory_in_words, open};
use crate::weights;
use features::{Features, Lesson};
use keeping::Best;
pub use keeping::{CheckpointEvery, Keeping, Monitor};
pub use live::{Live, Phase, Seen};
use recorder::Recorder;
pub use recorder::StepPoint;
pub use run_folder::{RunFolder, files};

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
    /// When it is checkpointed, what its best epoch is best in, and when it has gone on for long enough.
    pub keeping: Keeping,
    /// Initial weights: the name of the file and its bytes.
    pub weights: Option<(String, Bytes)>,
    /// The whole chain from image bytes to tensor.
    pub chain: serde_json::Value,
    /// What a checkpoint must agree with to be resumed from.
    pub identity: String,
    /// The resolved run file.
    pub run_file: String,
    /// What lowers the learning rate when validation stalls, where the schedule is that.
    pub plateau: Option<Plateau>,
    /// What the images are that the network sees, and what is done with them.
    pub data_identity: String,
    /// The same without which images are trained on and in which order.
    pub images_identity: String,
    /// Where features are kept for later runs; `None` when every epoch is to see the images.
    pub feature_cache: Option<FeatureCache>,
    /// Epochs without an improvement after which the next of [`TrainOptions::unfreeze_on_stall`] is trained.
    pub unfreeze_patience: u32,
    /// Whether micro-batches may be made smaller until a step fits in memory.
    pub fits_micro_batch: bool,
    /// How closely the first batch is looked at before training.
    pub doctor: Doctor,
    /// What the options come to.
    pub notes: Vec<String>,
    /// What a user would want to know before going on.
    pub warnings: Vec<String>,
}

/// Where the features of frozen parts are kept.
#[derive(Clone, Debug)]
pub struct FeatureCache {
    /// A path or a URL.
    pub place: String,
    /// Whether the user chose it: else it holds only what fits in memory.
    pub is_chosen: bool,
    /// Views of an augmented image.
    pub views: Option<u32>,
}

/// How closely the first batch is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doctor {
    /// Not at all.
    Off,
    /// Its memory, loss and gradients.
    Quick,
    /// Also whether it can be learned by heart.
    Full,
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
        let keeping = Keeping::resolve(config, feed.rows(Split::Validation) > 0).map_err(Error::Plan)?;
        let epochs = config.integer("train.epochs").expect("it has a default") as u32;
        let steps_per_epoch = count_batches(rows, feed.batch_size as u64);
        let normalize = plan::normalize(config);
        let counts = match &balance {
            Some(summary) => summary.classes.iter().map(|class| class.after).collect(),
            None => feed.class_counts().await?,
        };
        let context = recipe::Context {
            classes,
            counts: &counts,
            validates: feed.rows(Split::Validation) > 0,
            steps_per_epoch,
            epochs,
            side: feed.side,
            seed: feed.seed,
            device,
            pretrained: initial.is_some(),
        };
        let (options, plateau, notes) = recipe::resolve(config, context).map_err(Error::Plan)?;
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
        for key in
            ["feature_cache", "doctor", "early_stop", "min_delta", "checkpoint_every", "log_every", "live"]
        {
            identity.remove(&format!("train.{key}"));
        }
        let mut data = config.settings(&["seed", "split", "decode", "resize", "balance"]);
        for settings in [&mut identity, &mut data] {
            settings.insert("dataset".to_string(), dataset.clone().into());
            settings.insert("side".to_string(), feed.side.into());
        }
        data.insert("normalize".to_string(), chain["normalize"].clone());
        let data_identity = serde_json::to_string(&data).expect("settings are plain data");
        // What of it the images are a function of: which split they are in changes none of them.
        data.retain(|key, _| {
            !["split", "balance", "seed"].contains(&key.split('.').next().unwrap_or_default())
        });
        let images = match &feed.origin {
            Origin::Shards(shards) => shards.manifest.shards.iter().map(|shard| &*shard.blake3).collect(),
            Origin::Folder(rows) => {
                // Images of another folder may have the same names and sizes.
                let root = feed.store.local_root().and_then(|root| root.canonicalize().ok());
                let root = root.map_or(place.clone(), |root| root.to_string_lossy().into_owned());
                format!("{root} {}", plan::images_fingerprint(rows))
            }
        };
        data.insert("dataset".to_string(), images.into());
        if let Some(augment) = &feed.augment {
            data.insert("seed".to_string(), feed.seed.0.into());
            data.insert(
                "augment".to_string(),
                serde_json::to_value(augment).expect("settings are plain data"),
            );
        }
        let images_identity = serde_json::to_string(&data).expect("settings are plain data");
        let feature_cache = match config.text("train.feature_cache").as_deref() {
            Some("off") => None,
            chosen => Some(FeatureCache {
                place: match chosen {
                    Some(place) => place.to_string(),
                    None => run_folder::cache_folder().join("features").to_string_lossy().into_owned(),
                },
                is_chosen: chosen.is_some(),
                views: config.integer("train.feature_views").map(|views| views as u32),
            }),
        };
        if config.integer("train.feature_views").is_some() && feed.augment.is_none() {
            return Err(Error::Plan(vec![
                "train.feature_views: without --augment all views are the same; leave it out".to_string(),
            ]));
        }
        let identity = serde_json::to_string(&identity).expect("settings are plain data");
        Ok(TrainPlan {
            identity: blake3::hash(identity.as_bytes()).to_hex().to_string(),
            feed,
            options,
            epochs,
            steps_per_epoch,
            balance,
            keeping,
            plateau,
            data_identity,
            images_identity,
            feature_cache,
            unfreeze_patience: config.integer("train.unfreeze_patience").expect("it has a default") as u32,
            fits_micro_batch: config.get("train.micro_batch").and_then(Value::as_str) == Some("auto"),
            doctor: match config.word("train.doctor") {
                "off" => Doctor::Off,
                "full" => Doctor::Full,
                _ => Doctor::Quick,
            },
            notes,
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
    /// The mean F1 of the classes on the validation split, each weighing the same.
    #[serde(default)]
    pub validation_macro_f1: Option<f64>,
    /// Epochs since the last improvement, with this one: 0 for an improvement. What `--early-stop` counts.
    #[serde(default)]
    pub epochs_without_improvement: u32,
    /// How long the epoch took, validation included; of an epoch that was resumed, the part since then.
    pub seconds: f64,
    /// Training images per second, validation not counted; of an epoch that was resumed, in the part since then.
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
    /// What it was best in, on the validation split.
    pub monitor: Monitor,
    /// Whether the run ended before its last epoch because nothing got better.
    pub stopped_early: bool,
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

/// The key of a checkpoint under which the micro-batch stands that was found to fit.
const MICRO_BATCH: &str = "micro_batch";

/// What a checkpoint carries beside the network: where the run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Progress {
    /// Finished epochs.
    epoch: u32,
    /// Batches done of the epoch at hand.
    batch: u64,
    /// Samples of the order of the epoch at hand that those batches used up, rejected ones among them.
    used: u64,
    /// Sums over those batches.
    loss: f64,
    correct: u64,
    seen: u64,
    /// The best epoch so far, and the patience that is used up.
    best: Best,
}

impl Progress {
    fn to_metadata(self, plan: &TrainPlan) -> BTreeMap<String, String> {
        // A float is kept as its bits, so that a resumed epoch reports what an uninterrupted one does.
        BTreeMap::from([
            ("identity".to_string(), plan.identity.clone()),
            ("chain".to_string(), plan.chain.to_string()),
            ("epoch".to_string(), self.epoch.to_string()),
            ("batch".to_string(), self.batch.to_string()),
            ("used".to_string(), self.used.to_string()),
            ("loss".to_string(), self.loss.to_bits().to_string()),
            ("correct".to_string(), self.correct.to_string()),
            ("seen".to_string(), self.seen.to_string()),
            ("best_epoch".to_string(), self.best.epoch.to_string()),
            ("best_score".to_string(), self.best.score.to_bits().to_string()),
            ("reference_score".to_string(), self.best.reference.to_bits().to_string()),
            ("stale_epochs".to_string(), self.best.stale.to_string()),
            (seal::KEY.to_string(), seal::blank()),
        ])
    }

    fn from_metadata(metadata: &BTreeMap<String, String>) -> Option<Progress> {
        let number = |key: &str| metadata.get(key)?.parse::<u64>().ok();
        Some(Progress {
            epoch: number("epoch")? as u32,
            batch: number("batch")?,
            used: number("used")?,
            loss: f64::from_bits(number("loss")?),
            correct: number("correct")?,
            seen: number("seen")?,
            best: Best {
                epoch: number("best_epoch")? as u32,
                score: f64::from_bits(number("best_score")?),
                reference: f64::from_bits(number("reference_score")?),
                stale: number("stale_epochs")? as u32,
            },
        })
    }
}

/// The trainer and where it stands; the train thread holds it during a pass.
struct Session {
    trainer: Trainer,
    progress: Progress,
    /// Whether the classifier came with the initial weights.
    classifies: bool,
    recorder: Recorder,
    /// When the last checkpoint was written.
    kept: Instant,
}

impl Session {
    /// The checkpoint to resume from, as it is now.
    fn checkpoint(&self, plan: &TrainPlan) -> Result<Vec<u8>, Error> {
        let mut metadata = self.progress.to_metadata(plan);
        if plan.fits_micro_batch {
            // What was found to fit is part of what the run is.
            metadata.insert(MICRO_BATCH.to_string(), self.trainer.micro_batch().unwrap_or(0).to_string());
        }
        let bytes = self.trainer.checkpoint(&metadata);
        Ok(seal::seal(bytes.map_err(|error| train_error("write the checkpoint", error))?))
    }

    /// Whether a checkpoint is due within an epoch.
    fn is_due(&self, keeping: &Keeping) -> bool {
        match keeping.checkpoint_every {
            CheckpointEvery::Steps(steps) => self.trainer.steps_done().is_multiple_of(steps),
            CheckpointEvery::Time(time) => self.kept.elapsed() >= time,
        }
    }
}

fn lock(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().expect("the train thread has ended")
}

/// Who is told while a run goes on.
pub struct Watch<'a> {
    /// Where the run stands, for a progress bar or the live view.
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
    let (session, mut history) = start(run, &plan, folder, begin, &live, on_weights).await?;
    let validates = plan.feed.rows(Split::Validation) > 0;
    let features = match history.len() < plan.epochs as usize {
        true => match Features::of(run, &plan, &session).await {
            Err(Error::Interrupted(interrupt)) => {
                // What is computed stays in the cache, and a resumed run goes on there.
                keep(&plan, folder, &session).await?;
                return Err(Error::Interrupted(interrupt));
            }
            features => features?,
        },
        false => None,
    };
    loop {
        let Progress { epoch, best, .. } = lock(&session).progress;
        if epoch >= plan.epochs || best.is_enough(&plan.keeping) {
            break;
        }
        let start = Instant::now();
        let seen_before = {
            let mut session = lock(&session);
            session.trainer.set_rate_scale(rate_scale(&plan, &history));
            session.trainer.set_stalls(stalls(&plan, &history));
            session.progress.seen
        };
        let measured = async {
            pass(run, &plan, folder, session.clone(), features.as_ref(), epoch, live.clone()).await?;
            let trained = start.elapsed();
            if !validates {
                return Ok((trained, None));
            }
            live.turn_to(Phase::Validating);
            let validation =
                evaluate(run, &plan, session.clone(), features.as_ref(), Split::Validation).await?;
            Ok((trained, Some(validation)))
        };
        let (trained, validation) = match measured.await {
            Err(Error::Interrupted(interrupt)) => {
                keep(&plan, folder, &session).await?;
                return Err(Error::Interrupted(interrupt));
            }
            measured => measured?,
        };
        let metrics = {
            let session = &mut lock(&session);
            let images = session.progress.seen - seen_before;
            let images_per_second = images as f64 / trained.as_secs_f64().max(1e-9);
            let seconds = start.elapsed().as_secs_f64();
            finish_epoch(&plan, session, seconds, images_per_second, validation.as_ref())?
        };
        if let Some(features) = features.as_deref().filter(|_| history.is_empty()) {
            let rows = plan.feed.rows(Split::Train);
            let took = trained.as_secs_f64();
            match features.seconds {
                Some(seconds) => eprintln!(
                    "note: the frozen part saw {rows} training images{} in {seconds:.1} s; on its features an epoch takes \
                     {took:.2} s, {:.0} times less than to see them each time",
                    if features.views() > 1 {
                        format!(" in {} views", features.views())
                    } else {
                        String::new()
                    },
                    seconds / f64::from(features.views()) / took.max(1e-9)
                ),
                None => {
                    eprintln!("note: trains on the features of {rows} images that an earlier run computed")
                }
            }
        }
        history.push(metrics.clone());
        let thawed = stalls(&plan, &history);
        if thawed.last() == Some(&metrics.steps)
            && let Some(part) = plan.options.unfreeze_on_stall.get(thawed.len() - 1)
        {
            eprintln!(
                "note: epoch {} got no better: from now on {part} and what follows it are trained",
                metrics.epoch
            );
            // What thaws gets the whole patience of --early-stop.
            lock(&session).progress.best.stale = 0;
        }
        live.seen().epochs.push(metrics.clone());
        if lock(&session).progress.best.epoch == epoch + 1 {
            keep_model(&plan, folder, &session).await?;
        }
        let line = |metrics| serde_json::to_string(metrics).expect("metrics are plain data") + "\n";
        folder.put(files::METRICS, history.iter().map(line).collect::<String>()).await?;
        // Last of all: a checkpoint says that everything before it is in place.
        keep(&plan, folder, &session).await?;
        tracing::debug!(epoch = metrics.epoch, steps = metrics.steps, "epoch kept");
        on_epoch(&metrics);
        if let Some(interrupt) = run.interrupted() {
            return Err(Error::Interrupted(interrupt));
        }
    }
    run.rejects().check_at_end()?;
    live.turn_to(Phase::Testing);
    test(run, &plan, folder, session, features.as_ref(), history, &live).await
}

/// What the learning rate is multiplied by after these epochs: a function of what validation said, so that a resumed run
/// cannot drift from it.
fn rate_scale(plan: &TrainPlan, history: &[EpochMetrics]) -> f64 {
    let Some(mut plateau) = plan.plateau.clone() else { return 1.0 };
    for metrics in history {
        if let Some(score) = plan.keeping.monitor.score(metrics) {
            plateau.observe(score, true);
        }
    }
    plateau.scale
}

/// The first steps after each time in these epochs that nothing got better for as long as the run waits before it trains
/// more parts.
fn stalls(plan: &TrainPlan, history: &[EpochMetrics]) -> Vec<u64> {
    let (mut best, mut stalls) = (Best::default(), Vec::new());
    for metrics in history {
        let Some(score) = plan.keeping.monitor.score(metrics) else { continue };
        best = best.after(metrics.epoch, score, &plan.keeping);
        if best.stale >= plan.unfreeze_patience {
            stalls.push(metrics.steps);
            best.stale = 0;
        }
    }
    stalls
}

/// What an epoch came to; the next one begins.
fn finish_epoch(
    plan: &TrainPlan,
    session: &mut Session,
    seconds: f64,
    images_per_second: f64,
    validation: Option<&(f64, Confusion)>,
) -> Result<EpochMetrics, Error> {
    let Session { trainer, progress, recorder, .. } = session;
    if progress.seen == 0 {
        return Err(Error::NothingLeft("no training image could be read".to_string()));
    }
    let steps = trainer.steps_done();
    let mut metrics = EpochMetrics {
        epoch: progress.epoch + 1,
        steps,
        learning_rate: trainer.learning_rate(steps.saturating_sub(1)),
        train_loss: progress.loss / progress.seen as f64,
        train_accuracy: progress.correct as f64 / progress.seen as f64,
        validation_loss: validation.map(|(loss, _)| *loss),
        validation_accuracy: validation.map(|(_, confusion)| confusion.accuracy()),
        validation_macro_f1: validation.map(|(_, confusion)| confusion.macro_average().f1),
        epochs_without_improvement: 0,
        seconds,
        images_per_second,
    };
    // Without a validation split the last epoch is the best.
    let score = plan.keeping.monitor.score(&metrics).unwrap_or(f64::from(metrics.epoch));
    let best = progress.best.after(metrics.epoch, score, &plan.keeping);
    metrics.epochs_without_improvement = best.stale;
    *progress = Progress { epoch: metrics.epoch, best, ..Progress::default() };
    recorder.epoch(&metrics)?;
    Ok(metrics)
}

/// Builds the trainer: from the last checkpoint, from a weights file, or anew. With it come the finished epochs.
async fn start(
    run: &Run,
    plan: &TrainPlan,
    folder: &RunFolder,
    begin: Start,
    live: &Live,
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
    let mut progress = Progress::default();
    let mut history = Vec::new();
    let mut classifies = false;
    if begin == Start::Resume {
        let Some(bytes) = last else {
            return Err(Error::Usage(format!(
                "{} holds no {} to resume from; leave out --resume",
                folder.location(),
                files::LAST
            )));
        };
        let metrics = folder.get(files::METRICS).await?.unwrap_or_default();
        let lines = String::from_utf8_lossy(&metrics);
        history.extend(lines.lines().filter_map(|line| serde_json::from_str::<EpochMetrics>(line).ok()));
        // A checkpoint has the optimiser's state of what had thawed when it was written.
        trainer.set_stalls(stalls(plan, &history));
        progress = resume(run, plan, folder, &mut trainer, &bytes)?;
        history.retain(|metrics| metrics.epoch <= progress.epoch);
    } else {
        if let Some((name, bytes)) = &plan.weights {
            let loaded = run.install(|| trainer.load_weights(bytes));
            let loaded = loaded.map_err(|error| train_error(&format!("load {name}"), error))?;
            classifies = loaded.missing.is_empty() && loaded.mismatched.is_empty();
            on_weights(&loaded);
        }
        discard(folder, begin).await?;
        folder.put(files::CONFIG, plan.run_file.clone()).await?;
        folder.put(files::CHAIN, forebay_datasets::manifest::to_json(&plan.chain)).await?;
    }
    let (recorder, points) =
        Recorder::start(folder, begin, trainer.steps_done(), plan.keeping.log_every).await?;
    let mut seen = live.seen();
    (seen.points, seen.epochs) = (points, history.clone());
    drop(seen);
    let session = Session { trainer, progress, classifies, recorder, kept: Instant::now() };
    Ok((Arc::new(Mutex::new(session)), history))
}

/// Sets the trainer to a checkpoint, once it is certain that it is whole and of this run.
fn resume(
    run: &Run,
    plan: &TrainPlan,
    folder: &RunFolder,
    trainer: &mut Trainer,
    bytes: &[u8],
) -> Result<Progress, Error> {
    let place = format!("{}/{}", folder.location(), files::LAST);
    seal::check(bytes).map_err(|damage| {
        Error::Integrity(format!(
            "{place} is damaged: {damage}; put a copy in its place, or start again with --overwrite"
        ))
    })?;
    let described = Trainer::describe(bytes).map_err(|error| train_error(&place, error))?;
    // Another network is named by the trainer.
    let is_other = |found: &FileDescription| {
        found.optimizer.is_some()
            && found.model == plan.options.model
            && found.metadata.get("identity") != Some(&plan.identity)
    };
    if described.as_ref().is_some_and(is_other) {
        return Err(Error::Usage(format!(
            "{place} is of a run with other data or options; give the options of its {}, or another --out",
            files::CONFIG
        )));
    }
    let restored = run.install(|| trainer.restore(bytes));
    let metadata = restored.map_err(|error| train_error(&place, error))?;
    if let Some(images) = metadata.get(MICRO_BATCH).and_then(|images| images.parse().ok()) {
        trainer.set_micro_batch(Some(images).filter(|images| *images > 0));
    }
    Progress::from_metadata(&metadata)
        .ok_or_else(|| Error::Integrity(format!("{place} does not say where its run stands")))
}

/// Deletes what an earlier run left, so that nothing of it can be taken for the new one's: all of it when it is to
/// be replaced, else the curves of one that ended before its first checkpoint.
async fn discard(folder: &RunFolder, begin: Start) -> Result<(), Error> {
    let names = folder.names().await?;
    let of_a_run = [
        // The checkpoint first: without one the folder holds no run.
        files::LAST,
        files::MODEL,
        files::TIMM,
        files::PREPROCESSOR,
        files::LABELS,
        files::METRICS,
        files::STEPS,
        files::SUMMARY,
        files::SUMMARY_TEXT,
        files::REPORT,
    ];
    for name in of_a_run.into_iter().chain(files::CURVES) {
        if begin == Start::Overwrite && names.iter().any(|found| found == name) {
            folder.delete(name).await?;
        }
    }
    for name in names.iter().filter(|name| recorder::is_event_file(name)) {
        folder.delete(name).await?;
    }
    Ok(())
}

/// Writes the checkpoint to resume from.
async fn keep(plan: &TrainPlan, folder: &RunFolder, session: &Mutex<Session>) -> Result<(), Error> {
    let (bytes, events) = {
        let mut session = lock(session);
        session.kept = Instant::now();
        (session.checkpoint(plan)?, session.recorder.events.clone())
    };
    folder.publish(files::STEPS).await?;
    folder.publish(&events).await?;
    // The store replaces a file when the new one is whole, so that the one before is there until then.
    folder.put(files::LAST, bytes).await
}

/// Writes the model as it is now, as the best so far, with what timm and transformers need beside it.
async fn keep_model(plan: &TrainPlan, folder: &RunFolder, session: &Mutex<Session>) -> Result<(), Error> {
    let (bytes, steps) = {
        let session = lock(session);
        let weights = session.trainer.weights(&session.progress.to_metadata(plan));
        (weights.map_err(|error| train_error("write the weights", error))?, session.trainer.steps_done())
    };
    let model = timm::exported(&bytes, &plan.options.model, steps);
    let config = timm::config(plan, &model);
    let preprocessor = timm::preprocessor(plan, &config);
    folder.put(files::TIMM, forebay_datasets::manifest::to_json(&config)).await?;
    folder.put(files::PREPROCESSOR, forebay_datasets::manifest::to_json(&preprocessor)).await?;
    let labels: String =
        plan.options.classes.iter().map(|class| class.replace(['\n', '\r'], " ") + "\n").collect();
    folder.put(files::LABELS, labels).await?;
    folder.put(files::MODEL, seal::seal(model)).await
}

/// Trains one epoch; a resumed one goes on after the samples that were used up.
async fn pass(
    run: &Run,
    plan: &Arc<TrainPlan>,
    folder: &RunFolder,
    session: Arc<Mutex<Session>>,
    features: Option<&Arc<Features>>,
    epoch: u32,
    live: Arc<Live>,
) -> Result<(), Error> {
    let Progress { batch, used, .. } = lock(&session).progress;
    live.begin(epoch + 1, batch);
    match features {
        None => {
            let batches = plan.feed.batches_after(run, Pass::Train(epoch), used);
            batches.drain("train", learn(run, plan, folder, session, epoch, live)).await
        }
        Some(features) => {
            let batches = features.batches(run, plan, Pass::Train(epoch), used);
            batches.drain("train", learn(run, plan, folder, session, epoch, live)).await
        }
    }
}

/// The consumer of a training pass.
fn learn<T: Lesson>(
    run: &Run,
    plan: &Arc<TrainPlan>,
    folder: &RunFolder,
    session: Arc<Mutex<Session>>,
    epoch: u32,
    live: Arc<Live>,
) -> impl FnOnce(Items<(T, u64)>) -> Result<(), Error> + Send + 'static {
    let (run_here, plan_here, folder) = (run.clone(), plan.clone(), folder.clone());
    move |batches: Items<(T, u64)>| {
        let (run, plan) = (run_here, plan_here);
        let mut session = session.lock().expect("one pass at a time");
        let session = &mut *session;
        session.recorder.begin();
        for (batch, used) in batches {
            if let Some(images) = batch.images().filter(|_| (epoch, session.progress.batch) == (0, 0)) {
                for line in first_batch(&run, &plan, session, images)? {
                    eprintln!("warning: {line}");
                }
            }
            let count = batch.labels().len();
            let report = run.install(|| batch.step(&mut session.trainer));
            let report = report.map_err(|error| train_error("train", error))?;
            let progress = &mut session.progress;
            progress.batch += 1;
            progress.used = used;
            progress.loss += report.loss * count as f64;
            progress.correct += report.correct as u64;
            progress.seen += count as u64;
            let seen = progress.seen as f64;
            let (loss, accuracy) = (progress.loss / seen, progress.correct as f64 / seen);
            let part = progress.batch as f64 / plan.steps_per_epoch as f64;
            live.step(count, loss, accuracy, report.learning_rate);
            let point = session.recorder.step(&report, count, f64::from(epoch) + part)?;
            live.seen().points.extend(point);
            if session.is_due(&plan.keeping) {
                let bytes = session.checkpoint(&plan)?;
                run.block_on(async {
                    folder.publish(files::STEPS).await?;
                    folder.publish(&session.recorder.events).await?;
                    folder.put(files::LAST, bytes).await
                })?;
                session.kept = Instant::now();
            }
        }
        Ok(())
    }
}

/// What looks wrong about the first batch of a run.
fn first_batch(
    run: &Run,
    plan: &TrainPlan,
    session: &mut Session,
    images: &Batch,
) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    if plan.weights.is_some() {
        let look =
            || weights::complaints(&session.trainer, images, plan.options.normalize, session.classifies);
        lines.extend(run.install(look));
    }
    if plan.doctor != Doctor::Off {
        if let Some(note) = fit::fit(run, plan, &mut session.trainer, images)? {
            eprintln!("note: {note}");
        }
        let complaints = run.install(|| session.trainer.examine(images));
        lines.extend(complaints.map_err(|error| train_error("look at the first batch", error))?);
    }
    if plan.doctor == Doctor::Full {
        let complaints = run.install(|| session.trainer.overfit(images));
        let complaints = complaints.map_err(|error| train_error("learn the first batch by heart", error))?;
        if complaints.is_empty() {
            eprintln!("note: the first batch can be learned by heart");
        }
        lines.extend(complaints);
    }
    Ok(lines)
}

/// Mean loss and confusion matrix of one split, in evaluation mode.
async fn evaluate(
    run: &Run,
    plan: &TrainPlan,
    session: Arc<Mutex<Session>>,
    features: Option<&Arc<Features>>,
    split: Split,
) -> Result<(f64, Confusion), Error> {
    // Where training images come in views, their accuracy is that of the images as they are.
    match features
        .filter(|features| features.has(split) && (split != Split::Train || plan.feed.augment.is_none()))
    {
        None => {
            let batches = plan.feed.batches_after(run, Pass::Evaluate(split), 0);
            batches.drain("evaluate", measure(run, plan, session)).await
        }
        Some(features) => {
            let batches = features.batches(run, plan, Pass::Evaluate(split), 0);
            batches.drain("evaluate", measure(run, plan, session)).await
        }
    }
}

/// The consumer of an evaluation.
fn measure<T: Lesson>(
    run: &Run,
    plan: &TrainPlan,
    session: Arc<Mutex<Session>>,
) -> impl FnOnce(Items<(T, u64)>) -> Result<(f64, Confusion), Error> + Send + 'static {
    let pool = run.clone();
    let classes = plan.options.classes.len();
    move |batches: Items<(T, u64)>| {
        let session = session.lock().expect("one pass at a time");
        let mut confusion = Confusion::new(classes);
        let mut loss = 0.0;
        for (batch, _) in batches {
            let logits = pool.install(|| batch.logits(&session.trainer));
            let logits = logits.map_err(|error| train_error("evaluate", error))?;
            loss += Trainer::loss(&logits, batch.labels()) * batch.labels().len() as f64;
            for (row, label) in logits.iter().zip(batch.labels()) {
                confusion.add(*label as usize, prediction(row));
            }
        }
        Ok((loss / confusion.total().max(1) as f64, confusion))
    }
}

/// Sets the trainer to the weights of the best epoch.
async fn load_best(run: &Run, folder: &RunFolder, session: &Mutex<Session>) -> Result<(), Error> {
    let place = format!("{}/{}", folder.location(), files::MODEL);
    let best =
        folder.get(files::MODEL).await?.ok_or_else(|| Error::Integrity(format!("{place} is missing")))?;
    seal::check(&best).map_err(|damage| Error::Integrity(format!("{place} is damaged: {damage}")))?;
    let trainer = &mut lock(session).trainer;
    let loaded = run.install(|| trainer.load_weights(&best)).map_err(|error| train_error(&place, error))?;
    match loaded.missing.is_empty() && loaded.mismatched.is_empty() {
        true => Ok(()),
        false => Err(Error::Integrity(format!("{place} holds the tensors of another network"))),
    }
}

/// Tests the best checkpoint on images that training never saw.
async fn test(
    run: &Run,
    plan: &TrainPlan,
    folder: &RunFolder,
    session: Arc<Mutex<Session>>,
    features: Option<&Arc<Features>>,
    epochs: Vec<EpochMetrics>,
    live: &Live,
) -> Result<Trained, Error> {
    let Progress { epoch, best, .. } = lock(&session).progress;
    load_best(run, folder, &session).await?;
    let held = [Split::Test, Split::Validation, Split::Train];
    let split = held.into_iter().find(|split| plan.feed.rows(*split) > 0).expect("there are training rows");
    let (_, confusion) = evaluate(run, plan, session, features, split).await?;
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
        best_epoch: best.epoch,
        monitor: plan.keeping.monitor,
        stopped_early: epoch < plan.epochs && best.is_enough(&plan.keeping),
        macro_f1: confusion.macro_average().f1,
        classes,
        confusion: (0..n).map(|truth| (0..n).map(|guess| confusion.count(truth, guess)).collect()).collect(),
        epochs,
        starved: nodes.iter().find(|node| node.name == "train").map_or(0.0, |node| node.starved),
    };
    let curves = crate::report::training_curves(&trained.epochs, &live.seen().points);
    for (name, curve) in files::CURVES.iter().zip(&curves) {
        folder.put(name, curve.clone()).await?;
    }
    folder.put(files::SUMMARY_TEXT, crate::report::terminal::summary(plan, &trained)).await?;
    folder.put(files::REPORT, crate::report::html::train(plan, &trained, &curves)).await?;
    folder.put(files::SUMMARY, forebay_datasets::manifest::to_json(&trained)).await?;
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
            options.schedule.peak,
            options.weight_decay
        )?;
        writeln!(
            f,
            "  schedule     {} epochs of {} steps, {} steps of warm-up, {:?}",
            self.epochs, self.steps_per_epoch, options.schedule.warmup_steps, options.schedule.shape
        )?;
        for note in &self.notes {
            writeln!(f, "  note         {note}")?;
        }
        writeln!(f, "  keeping      {}", self.keeping)?;
        writeln!(f, "  threads      {}", feed.rooms.threads)?;
        f.write_str(&memory_in_words(&feed.memory()))
    }
}
