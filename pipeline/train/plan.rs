//! `forebay train` as it is checked before anything starts.

use std::collections::BTreeMap;

use bytes::Bytes;
use forebay_datasets::sample::Split;
use forebay_datasets::store::{Store, local_path};
use forebay_stages::balance::{Balance, BalanceSummary};
use forebay_train::schedule::Plateau;
use forebay_train::{Strictness, TrainOptions};
use toml::Value;

use super::feature_cache::FeatureCache;
use super::keeping::Keeping;
use super::preparation::Preparation;
use super::priors::EffectivePriors;
use super::resampling::Resampling;
use super::{check, recipe, timm};
use crate::feed::{self, Feed};
use crate::flow::{Error, Run};
use crate::hub::Reference;
use crate::options::{Command, Config, Doctor, FreezePlan, Identity};
use crate::plan::{self, gather, refuse};
use crate::report::RunFacts;
use crate::weights::{self, Initial};

/// `forebay train`, checked.
#[derive(Clone)]
pub struct TrainPlan {
    /// Where the batches come from.
    pub feed: Feed,
    /// What training does with them.
    pub options: TrainOptions,
    /// What is frozen at first and when it thaws.
    pub freezing: FreezePlan,
    /// Passes over the training split.
    pub epochs: u32,
    /// Steps of one pass.
    pub steps_per_epoch: u64,
    /// The classes before and after balancing, where a balance was asked for.
    pub balance: Option<BalanceSummary>,
    /// When it is checkpointed, what its best epoch is best in, and when it has gone on for long enough.
    pub keeping: Keeping,
    /// What is made of the features of the training images, where something is.
    pub resampling: Option<Resampling>,
    /// Initial weights: the name of the file and its bytes.
    pub weights: Option<(String, Bytes)>,
    /// What is done where they do not fill the network.
    pub strictness: Strictness,
    /// How images become tensors, and what the model began with.
    pub preparation: Preparation,
    /// What a checkpoint must agree with to be resumed from.
    pub identity: String,
    /// The resolved run file.
    pub run_file: String,
    /// The options that take part in the run, by key.
    pub settings: BTreeMap<String, serde_json::Value>,
    /// What lowers the learning rate when validation stalls, where the schedule is that.
    pub plateau: Option<Plateau>,
    /// What the images are and what is done with them before the network sees them, whatever their split and order.
    pub images_identity: String,
    /// Where features are kept for later runs; `None` when every epoch is to see the images.
    pub feature_cache: Option<FeatureCache>,
    /// Epochs without an improvement after which the next of [`TrainOptions::unfreeze_on_stall`] is trained.
    pub unfreeze_patience: u32,
    /// Whether micro-batches may be made smaller until a step fits in memory.
    pub fits_micro_batch: bool,
    /// Epochs after each of which the weights are kept as a snapshot; `None` where they are not.
    pub(crate) cycle: Option<u32>,
    /// Whether the test images are kept for one look at the end, which is not the end of this training.
    pub seals_test: bool,
    /// Training images of each class, before balancing and rejects.
    pub class_counts: Vec<u64>,
    /// The most that the report may take, bytes.
    pub report_bytes: u64,
    /// How closely the first batch is looked at before training.
    pub doctor: Doctor,
    /// What the options come to.
    pub notes: Vec<String>,
    /// What a user would want to know before going on.
    pub warnings: Vec<String>,
}

/// What trainings read, opened once for any number of them: the source and the initial weights.
#[derive(Clone)]
pub struct TrainSources {
    source: feed::OpenedSource,
    initial: Option<Initial>,
}

impl TrainSources {
    /// Opens what the options name.
    ///
    /// # Errors
    /// As [`TrainPlan::resolve`].
    pub async fn open(run: &Run, config: &Config) -> Result<TrainSources, Error> {
        refuse(check::options(config, &FreezePlan::of(config), false)?)?;
        let mut problems = Vec::new();
        let initial = gather(check::initial(config).await, &mut problems)?.flatten();
        let source = gather(feed::OpenedSource::open(run, config, Command::Train).await, &mut problems)?;
        match (source, &problems[..]) {
            (Some(source), []) => Ok(TrainSources { source, initial }),
            _ => Err(Error::Plan(problems)),
        }
    }
}

impl TrainPlan {
    /// What each class counts in the training.
    pub(super) fn priors(&self) -> EffectivePriors<'_> {
        let TrainOptions { classes, class_counts, loss, class_weights, .. } = &self.options;
        let shares = loss.logit_prior(*class_weights, class_counts);
        EffectivePriors { classes, images: &self.class_counts, rows: class_counts, shares }
    }

    /// Checks a training run: first its options, then the source, the initial weights and, where one is named, the run folder,
    /// each for all that is wrong with it. One that `begins` needs a run folder.
    ///
    /// # Errors
    /// [`Error::Plan`] or [`Error::Usage`] for options or a source that cannot be used, others when a store fails.
    pub async fn resolve(run: &Run, config: &Config, begins: bool) -> Result<TrainPlan, Error> {
        let freezing = FreezePlan::of(config);
        refuse(check::options(config, &freezing, begins)?)?;
        let mut problems = Vec::new();
        let folder = gather(check::run_folder(config).await, &mut problems)?.flatten();
        let initial = gather(check::initial(config).await, &mut problems)?.flatten();
        let source = gather(feed::OpenedSource::open(run, config, Command::Train).await, &mut problems)?;
        let Some(source) = source else {
            // What the options say of the weights is wrong too, whatever the source holds.
            let applied = initial.as_ref().map(|initial| weights::apply(config, initial)).transpose();
            gather(applied, &mut problems)?;
            return Err(Error::Plan(problems));
        };
        let made = gather(TrainPlan::made(config, freezing, &source, initial).await, &mut problems)?;
        if let Some(folder) = &folder {
            gather(folder.refuse_place(source.image_folder()).await, &mut problems)?;
        }
        match (made, &problems[..]) {
            (Some(plan), []) => Ok(plan),
            _ => Err(Error::Plan(problems)),
        }
    }

    /// One of many trainings on sources that are open, which keeps no run folder.
    ///
    /// # Errors
    /// As [`TrainPlan::resolve`].
    pub async fn on(config: &Config, sources: &TrainSources) -> Result<TrainPlan, Error> {
        let freezing = FreezePlan::of(config);
        refuse(check::options(config, &freezing, false)?)?;
        TrainPlan::made(config, freezing, &sources.source, sources.initial.clone()).await
    }

    /// The plan of options that were checked alone.
    async fn made(
        config: &Config,
        freezing: FreezePlan,
        source: &feed::OpenedSource,
        initial: Option<Initial>,
    ) -> Result<TrainPlan, Error> {
        let device = check::device(config)?;
        let keeping = Keeping::resolve(config).map_err(Error::Plan)?;
        let mut problems = Vec::new();
        let applied = initial.as_ref().map(|initial| weights::apply(config, initial)).transpose();
        let applied = gather(applied, &mut problems)?.flatten();
        let config = applied.as_ref().unwrap_or(config);
        let fed = gather(feed::on(config, Command::Train, source).await, &mut problems)?;
        let (Some((feed, balance, mut warnings)), []) = (fed, &problems[..]) else {
            return Err(Error::Plan(problems));
        };
        // Whatever decided it, the run file and the identity of the run have one size.
        let config = &config.clone().with("resize.size", i64::from(feed.side));
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
        let epochs = config.whole("train.epochs") as u32;
        let facts = feed::facts(&feed);
        let steps_per_epoch = feed.batches_per_epoch();
        let found = feed.class_counts().await?;
        let resampling = Resampling::of(config, &found, feed.batch_size);
        let counts: Vec<u64> = match (&balance, &resampling) {
            (Some(summary), _) => summary.classes.iter().map(|class| class.after).collect(),
            (None, Some(resampling)) => resampling.targets.clone(),
            (None, None) => found.clone(),
        };
        let steps_per_epoch = resampling.as_ref().map_or(steps_per_epoch, Resampling::steps_per_epoch);
        let counts: Vec<f64> = counts.into_iter().map(|count| count as f64).collect();
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
            chain: feed.chain.clone(),
            is_balanced: feed.source.manifest().is_some_and(|manifest| manifest.balanced),
        };
        let (options, plateau, mut notes) =
            recipe::resolve(config, &freezing, context).map_err(Error::Plan)?;
        let priors = EffectivePriors {
            classes: &options.classes,
            images: &found,
            rows: &options.class_counts,
            shares: options.loss.logit_prior(options.class_weights, &options.class_counts),
        };
        if balance.is_some() || resampling.is_some() {
            let mode: Balance = config.choice("balance.mode");
            notes.push(format!("balance {mode}: the classes count in the loss as {}", priors.line()));
        }
        if let Some(line) = priors.overcorrected() {
            let too_much = format!("balance and class weights together correct beyond even classes: {line}");
            match config.is_on("force") {
                true => warnings.push(too_much),
                false => {
                    let advice = "lower one of them, or --force";
                    return Err(Error::Plan(vec![format!("balance.mode: {too_much}; {advice}")]));
                }
            }
        }
        let opens_in_timm = timm::architecture(&options.model, &options.head).is_some();
        let preparation = Preparation {
            chain: feed.chain.clone(),
            augment: feed.augment.clone(),
            classes: options.classes.clone(),
            weights: initial.as_ref().map(|initial| initial.provenance.clone()),
            opens_in_timm,
            caveats: feed.chain.caveats(),
        };
        warnings.extend(preparation.warning());
        let source: serde_json::Value = feed.source.fingerprint().into();
        let images = feed.source.images_identity();
        let chain = feed.chain.settings();
        let settings = |what: &[Identity]| config.settings(Command::Train, &facts, what);
        let identity_of = |mut settings: BTreeMap<String, serde_json::Value>, dataset: &serde_json::Value| {
            settings.insert("dataset".to_string(), dataset.clone());
            settings.insert("chain".to_string(), chain.clone());
            // A position in an epoch of the first version, which had no holes, means nothing in this one.
            settings.insert("order".to_string(), 2.into());
            serde_json::to_string(&settings).expect("settings are plain data")
        };
        let of_run = [Identity::Pixels, Identity::Views, Identity::Rows, Identity::Run];
        let identity = identity_of(settings(&of_run), &source);
        let mut pixels = settings(&[Identity::Pixels, Identity::Views]);
        if feed.augment.is_some() {
            pixels.insert("seed".to_string(), feed.seed.0.into());
        }
        let images_identity = identity_of(pixels, &images);
        let feature_cache = FeatureCache::resolve(config, &mut notes)?;
        if let Some(cache) = feature_cache.as_ref().filter(|cache| cache.is_chosen) {
            let place = Store::open(&cache.place, &cache.options)?;
            plan::refuse_folder("--feature-cache", &place, feed.image_folder()).await?;
        }
        Ok(TrainPlan {
            identity: blake3::hash(identity.as_bytes()).to_hex().to_string(),
            feed,
            options,
            freezing,
            epochs,
            steps_per_epoch,
            balance,
            resampling,
            keeping,
            plateau,
            images_identity,
            feature_cache,
            unfreeze_patience: config.whole("train.unfreeze_patience") as u32,
            fits_micro_batch: config.get("train.micro_batch").and_then(Value::as_str) == Some("auto"),
            // Folds are compared with each other, also where each is trained alone.
            seals_test: config.is_on("train.seal_test") || config.get("split.fold").is_some(),
            cycle: recipe::cycle(config, epochs),
            class_counts: found,
            report_bytes: config.whole("report.bytes"),
            doctor: config.choice("train.doctor"),
            notes,
            weights: initial.map(|initial| (initial.name, initial.bytes)),
            strictness: check::strictness(config),
            preparation,
            run_file: from_anywhere(config).to_toml(Command::Train, &facts),
            settings: settings(&[&of_run[..], &[Identity::Neither]].concat()),
            warnings,
        })
    }
}

/// The options with the places of images and weights as they are found from any working directory.
fn from_anywhere(config: &Config) -> Config {
    let mut config = config.clone();
    for key in ["source", "train.weights"] {
        let is_path = |place: &String| !place.contains("://") && Reference::parse(place).is_none();
        let path = config.text(key).filter(is_path);
        let path =
            path.and_then(|place| local_path(&place).ok()).and_then(|path| std::path::absolute(path).ok());
        if let Some(path) = path.as_deref().and_then(std::path::Path::to_str) {
            config = config.with(key, path);
        }
    }
    config
}

impl TrainPlan {
    /// The plan for programs: what is trained on what, the options that take part, and the most memory in flight.
    pub fn to_json(&self) -> serde_json::Value {
        let images = |split: Split| (split.name().to_string(), self.feed.rows(split).into());
        let images: serde_json::Map<String, serde_json::Value> = Split::ALL.into_iter().map(images).collect();
        serde_json::json!({
            "command": "train",
            "source": self.feed.store.location(),
            "images": images,
            "classes": self.options.classes,
            "side": self.feed.side,
            "side_by": self.feed.side_by.to_string(),
            "epochs": self.epochs,
            "steps_per_epoch": self.steps_per_epoch,
            "learning_rate": self.options.schedule.peak,
            "weight_decay": self.options.weight_decay,
            "warmup_steps": self.options.schedule.warmup_steps,
            "settings": self.settings,
            "threads": self.feed.rooms.threads,
            "memory": plan::memory_as_json(&self.memory()),
            "identity": self.identity,
            "effective_prior": self.priors().shares,
            "notes": self.notes,
            "warnings": self.warnings,
        })
    }

    /// The most memory that the run can hold beside its network, part by part: name and bytes.
    pub fn memory(&self) -> Vec<(&'static str, u64)> {
        let mut parts = self.feed.memory();
        parts.extend(
            self.weights.iter().map(|(_, bytes)| ("the file of initial weights", bytes.len() as u64)),
        );
        if self.feature_cache.is_some() && self.freezing.stays_frozen() {
            parts.push(("cached features", self.feed.rooms.memory_bytes));
        }
        parts
    }

    /// What the run is, for its report.
    pub fn facts(&self) -> RunFacts {
        RunFacts {
            model: self.options.model.clone(),
            source: self.feed.store.location().to_string(),
            run_file: self.run_file.clone(),
        }
    }
}
