//! When an option has an effect, and what is said of one that has none: nothing is accepted and ignored.
//!
//! Each function judges one option of the table, or a few of the same kind, over the values of a run and what is known
//! of its source. They say whether the option takes part, not whether its value is sound.

use forebay_datasets::words::Words;
use forebay_stages::balance::Balance;
use forebay_stages::decode::Decoder;
use forebay_stages::resize::Fit;
use forebay_train::sampling::Clean;
use forebay_train::{ClassWeights, Loss, OptimizerKind};
use toml::Value;

use super::choices::{ModelPass, ScheduleKind, StoreAs};
use super::command::Command;
use super::facts::Facts;
use super::freezing::FreezePlan;
use super::sections;
use super::values::{Config, Layer};

/// The run in which an option is judged.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// Its key.
    pub key: &'static str,
    /// What is run.
    pub command: Command,
    /// Every value.
    pub config: &'a Config,
    /// What is known of the source.
    pub facts: &'a Facts,
}

/// Whether an option takes part in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It does.
    Yes,
    /// It does not, and nobody could be misled: it is part of no fingerprint.
    Idle,
    /// It does not, and whoever gave it should know: why, and what to do.
    No(String),
}

/// [`Effect::Yes`] where `holds`, else [`Effect::No`].
pub(super) fn only(holds: bool, otherwise: impl Into<String>) -> Effect {
    if holds { Effect::Yes } else { Effect::No(otherwise.into()) }
}

impl Situation<'_> {
    /// What becomes of an option of a whole training where `--find-lr` begins none.
    pub(super) fn of_a_whole_training(&self) -> Effect {
        self.no("--find-lr begins no training that it could mean something for; leave it out")
    }

    /// As [`Effect::No`], but for a key of a run file that other commands may read too.
    pub(super) fn no(&self, why: impl Into<String>) -> Effect {
        match self.config.given(self.key) {
            Some(Layer::File) => Effect::Idle,
            _ => Effect::No(why.into()),
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.config.get(key).is_some()
    }

    fn is_augmented(&self) -> bool {
        sections::augment(self.config, &mut Vec::new()).is_some()
    }

    /// Refuses what would come only after the last epoch.
    fn within_the_run(&self, epochs: f64, effect: Effect) -> Effect {
        let last = self.config.whole("train.epochs");
        match effect == Effect::Yes && epochs >= last as f64 {
            true => self.no(format!(
                "it would come after the last of {last} epochs; leave it out, or give more --epochs"
            )),
            false => effect,
        }
    }

    fn schedule(&self) -> ScheduleKind {
        self.config.choice("train.schedule")
    }

    /// Effect of a number of schedules: only where the run's is one of them.
    fn of_schedules(&self, kinds: &[ScheduleKind]) -> Effect {
        let words: Vec<&str> = kinds.iter().map(Words::name).collect();
        let (one, others) = (words[0], words.join(", "));
        only(
            kinds.contains(&self.schedule()),
            format!(
                "schedule {} does not use it, only {others}; leave it out, or --schedule {one}",
                self.schedule()
            ),
        )
    }

    fn freezing(&self) -> FreezePlan {
        FreezePlan::of(self.config)
    }

    /// Whether `--find-lr` only tries learning rates, and begins no training.
    pub(super) fn finds_a_rate(&self) -> bool {
        self.command == Command::Train && self.config.is_on("train.find_lr")
    }

    /// Why every epoch runs all of the network on the images, so that no output of a frozen layer can be reused; `None`
    /// where one can.
    fn sees_every_image(&self) -> Option<String> {
        let freezing = self.freezing();
        let mixes = ["train.mixup", "train.cutmix"].iter().any(|key| self.config.real(key) > 0.0);
        let why = if !freezing.begins_frozen() {
            "no part of the network is frozen, so every epoch sees the images; leave it out, or --freeze"
        } else if !freezing.stays_frozen() && freezing.is_recipe {
            "recipe fine-tune trains all of the network from epoch 2 on, and so sees the images; leave it out, or --freeze \
             backbone"
        } else if !freezing.stays_frozen() {
            "--unfreeze trains all of the network in the end, and so sees the images; leave one of them out"
        } else if mixes {
            "--mixup and --cutmix mix images, which no kept features can show; leave it out"
        } else {
            return None;
        };
        Some(why.to_string())
    }
}

pub(super) fn always(_: &Situation<'_>) -> Effect {
    Effect::Yes
}

pub(super) fn bench_frozen(run: &Situation<'_>) -> Effect {
    let steps = run.config.choice::<ModelPass>("bench_model.mode") == ModelPass::Step;
    only(steps, "a forward pass trains nothing; leave it out, or --mode step")
}

pub(super) fn bench_seconds(run: &Situation<'_>) -> Effect {
    only(!run.has("bench.epochs"), "--epochs says how long is measured each time; leave one of them out")
}

/// Fewer repetitions say little about their spread.
pub const SPREAD_REPETITIONS_MIN: u64 = 5;

pub(super) fn bench_repetitions(run: &Situation<'_>) -> Effect {
    let n = run.config.whole("bench.repetitions");
    only(
        !run.has("bench.compare") || n >= SPREAD_REPETITIONS_MIN,
        format!(
            "--compare needs {SPREAD_REPETITIONS_MIN} or more to know how far they lie apart; leave it out"
        ),
    )
}

pub(super) fn seed(run: &Situation<'_>) -> Effect {
    let draws = run.config.choice::<Balance>("balance.mode") != Balance::None || run.is_augmented();
    match run.command {
        Command::Prepare if !draws => run.no(
            "without --balance and --augment nothing is drawn by it; leave it out, or --split-seed for another split \
             or order",
        ),
        _ => Effect::Yes,
    }
}

pub(super) fn overwrite(run: &Situation<'_>) -> Effect {
    let resumes = run.command == Command::Train && run.config.is_on("train.resume");
    only(!resumes, "--resume goes on with the run that --overwrite would replace; leave one out")
}

pub(super) fn layout(run: &Situation<'_>) -> Effect {
    match run.facts.prepared {
        None => Effect::Yes,
        Some(_) => run.no("the source is shards, which say themselves what they hold; leave it out"),
    }
}

/// Whether `prepare` stores the files as they are, and decodes none.
fn keeps_files(run: &Situation<'_>) -> bool {
    run.command == Command::Prepare && run.config.choice::<StoreAs>("encode.format") == StoreAs::Keep
}

pub(super) fn decodes(run: &Situation<'_>) -> Effect {
    match keeps_files(run) {
        true => {
            run.no("--encode keep stores image files as they are, and decodes none; leave one of them out")
        }
        false => Effect::Yes,
    }
}

pub(super) fn scales(run: &Situation<'_>) -> Effect {
    if run.config.choice::<Decoder>("decode.decoder") == Decoder::Image {
        return run.no("--decoder image decodes every image at its full size; leave one of them out");
    }
    decodes(run)
}

pub(super) fn resizes(run: &Situation<'_>) -> Effect {
    if keeps_files(run) {
        return decodes(run);
    }
    let keeps = run.config.get("resize.size").and_then(Value::as_str) == Some("original");
    only(!keeps, "--size original resizes nothing; leave it out, or give a --size in pixels")
}

pub(super) fn crop_pct(run: &Situation<'_>) -> Effect {
    let crops = run.command != Command::Prepare
        || run.config.chosen::<Fit>("resize.fit") == Some(Fit::Crop) && resizes(run) == Effect::Yes;
    only(crops, "only --fit crop with a --size cuts a margin off; leave it out, or --fit crop")
}

pub(super) fn restarts(run: &Situation<'_>) -> Effect {
    let stored = run.config.choice::<StoreAs>("encode.format");
    only(stored == StoreAs::Jpeg, format!("{stored} has no restart markers; leave it out, or --encode jpeg"))
}

pub(super) fn quality(run: &Situation<'_>) -> Effect {
    let stored = run.config.choice::<StoreAs>("encode.format");
    let lossy = stored == StoreAs::Jpeg;
    only(lossy, format!("{stored} loses nothing, so it has no quality; leave it out, or --encode jpeg"))
}

pub(super) fn traced_epoch(run: &Situation<'_>) -> Effect {
    only(
        run.has("trace.run") && run.has("trace.epoch"),
        "--run and --epoch are of use together; give both, or neither",
    )
}

pub(super) fn vote(run: &Situation<'_>) -> Effect {
    only(!run.config.is_on("ensemble.soup"), "--soup makes one network, which needs no vote; leave one out")
}

pub(super) fn balance_ratio(run: &Situation<'_>) -> Effect {
    match run.config.choice("balance.mode") {
        Balance::Over | Balance::Under | Balance::Both => Effect::Yes,
        Balance::Smote | Balance::BorderlineSmote | Balance::Adasyn => Effect::Yes,
        Balance::None => Effect::No("nothing is balanced; leave it out, or --balance over".to_string()),
        balance @ (Balance::Sqrt | Balance::EffectiveNumber | Balance::RepeatFactor | Balance::Targets) => {
            Effect::No(format!("balance {balance} has no ratio; leave it out, or --balance over"))
        }
    }
}

pub(super) fn of_one_balance(run: &Situation<'_>) -> Effect {
    let mode = match run.key {
        "balance.beta" => Balance::EffectiveNumber,
        "balance.threshold" => Balance::RepeatFactor,
        _ => Balance::Targets,
    };
    match run.config.choice::<Balance>("balance.mode") == mode {
        true => Effect::Yes,
        false => Effect::No(format!("it is of --balance {mode}, which is not given; leave it out")),
    }
}

pub(super) fn max_repeats(run: &Situation<'_>) -> Effect {
    match run.config.choice("balance.mode") {
        Balance::Over | Balance::Both | Balance::Sqrt => Effect::Yes,
        Balance::EffectiveNumber | Balance::RepeatFactor | Balance::Targets => Effect::Yes,
        Balance::None => Effect::No("nothing is balanced; leave it out, or --balance over".to_string()),
        balance @ (Balance::Under | Balance::Smote | Balance::BorderlineSmote | Balance::Adasyn) => {
            Effect::No(format!("balance {balance} repeats nothing; leave it out, or --balance over"))
        }
    }
}

pub(super) fn recipe(run: &Situation<'_>) -> Effect {
    if !run.has("train.weights") {
        return Effect::No(
            "without --weights everything is trained; leave it out, or give --weights".to_string(),
        );
    }
    let is_given = run.has("train.freeze") || run.has("train.unfreeze");
    match (is_given, run.freezing().trains_head_only(), run.has("train.layer_decay")) {
        (true, true, _) => {
            Effect::No("only the head is trained, at one learning rate; leave it out".to_string())
        }
        (true, _, true) => {
            Effect::No("--freeze, --unfreeze and --layer-decay replace all of it; leave it out".to_string())
        }
        _ => Effect::Yes,
    }
}

pub(super) fn momentum(run: &Situation<'_>) -> Effect {
    match run.schedule() {
        ScheduleKind::OneCycle => Effect::No(
            "schedule one-cycle moves it between 0.85 and 0.95; leave it out, or another --schedule"
                .to_string(),
        ),
        _ => of_sgd(run),
    }
}

/// What sgd has and other update rules do not.
fn of_sgd(run: &Situation<'_>) -> Effect {
    let optimizer = run.config.choice::<OptimizerKind>("train.optimizer");
    let is_sgd = matches!(optimizer, OptimizerKind::Sgd { .. });
    only(is_sgd, format!("{optimizer} has none to set, only sgd has; leave it out, or --optimizer sgd"))
}

pub(super) fn nesterov(run: &Situation<'_>) -> Effect {
    let moves = of_sgd(run) == Effect::Yes && run.config.real("train.momentum") > 0.0;
    only(moves, "only sgd with a momentum looks ahead; leave it out, or --optimizer sgd")
}

pub(super) fn micro_batch(run: &Situation<'_>) -> Effect {
    if run.finds_a_rate() && run.config.integer("train.micro_batch").is_none() {
        return Effect::No("--find-lr does not find out how many images fit; give their number".to_string());
    }
    let batch = run.config.whole("train.batch_size");
    let splits = run.config.integer("train.micro_batch").is_none_or(|images| images < batch);
    only(splits, format!("a batch of {batch} images fits in one; leave it out, or make it smaller"))
}

pub(super) fn warmup(run: &Situation<'_>) -> Effect {
    let one_cycle = run.schedule() == ScheduleKind::OneCycle;
    let epochs = run.config.whole("train.epochs");
    match run.config.real("train.warmup") > epochs as f64 {
        true => Effect::No(format!("it would be longer than the run of {epochs} epochs; give fewer")),
        false => only(
            !one_cycle,
            "schedule one-cycle has a warm-up of its own; leave it out, or another --schedule",
        ),
    }
}

pub(super) fn lr_gamma(run: &Situation<'_>) -> Effect {
    run.of_schedules(&[
        ScheduleKind::Step,
        ScheduleKind::MultiStep,
        ScheduleKind::Exponential,
        ScheduleKind::Plateau,
    ])
}

pub(super) fn lr_every(run: &Situation<'_>) -> Effect {
    let effect = run.of_schedules(&[ScheduleKind::Step, ScheduleKind::CosineRestarts]);
    match run.schedule() {
        ScheduleKind::Step => run.within_the_run(run.config.real("train.lr_every"), effect),
        _ => effect,
    }
}

pub(super) fn snapshots(run: &Situation<'_>) -> Effect {
    let (cycles, epochs) =
        (run.config.integer("train.snapshots").unwrap_or(1), run.config.whole("train.epochs"));
    let effect = only(
        run.schedule() == ScheduleKind::Cosine,
        format!("its cycles are cosines, and no schedule {}; leave one of them out", run.schedule()),
    );
    match effect == Effect::Yes && epochs % cycles != 0 {
        true => run.no(format!(
            "{epochs} epochs are not {cycles} cycles of as many; give --epochs {}",
            cycles * (epochs / cycles + 1)
        )),
        false => effect,
    }
}

pub(super) fn lr_milestones(run: &Situation<'_>) -> Effect {
    let first = run.config.numbers("train.lr_milestones").unwrap_or_default().into_iter().reduce(f64::min);
    run.within_the_run(first.unwrap_or(0.0), run.of_schedules(&[ScheduleKind::MultiStep]))
}

pub(super) fn lr_power(run: &Situation<'_>) -> Effect {
    run.of_schedules(&[ScheduleKind::Polynomial])
}

pub(super) fn lr_patience(run: &Situation<'_>) -> Effect {
    run.of_schedules(&[ScheduleKind::Plateau])
}

pub(super) fn focal_gamma(run: &Situation<'_>) -> Effect {
    let loss = run.config.choice::<Loss>("train.loss");
    let focal = matches!(loss, Loss::Focal { .. } | Loss::ClassBalancedFocal { .. });
    only(focal, format!("{loss} has no gamma, only focal has; leave it out, or --loss focal"))
}

pub(super) fn logit_tau(run: &Situation<'_>) -> Effect {
    let loss = run.config.choice::<Loss>("train.loss");
    let has_tau = matches!(loss, Loss::LogitAdjustment { .. });
    only(has_tau, format!("{loss} has no tau; leave it out, or --loss logit-adjustment"))
}

pub(super) fn soft_targets(run: &Situation<'_>) -> Effect {
    let loss = run.config.choice::<Loss>("train.loss");
    match loss.takes_soft_targets() {
        true => Effect::Yes,
        false if run.config.real(run.key) == 0.0 => Effect::Idle,
        false => run.no(format!(
            "loss {loss} is of labels: neither mixed images nor label smoothing have a margin; leave it out, or another \
             --loss"
        )),
    }
}

/// Refuses to correct twice for the numbers of images: by the images or features themselves, and by the loss.
fn once(run: &Situation<'_>, corrects: bool) -> Effect {
    let is_even = run.config.choice::<Balance>("balance.mode") != Balance::None;
    match corrects && is_even && !run.config.is_on("force") {
        true => Effect::No(
            "--balance evens the classes out already, and both would overdo it; leave one out, or --force"
                .to_string(),
        ),
        false => Effect::Yes,
    }
}

pub(super) fn loss(run: &Situation<'_>) -> Effect {
    once(run, run.config.choice::<Loss>("train.loss").corrects_priors())
}

pub(super) fn class_weights(run: &Situation<'_>) -> Effect {
    let loss = run.config.choice::<Loss>("train.loss");
    let weighs = run.config.chosen::<ClassWeights>(run.key) != Some(ClassWeights::None);
    match loss.corrects_priors() && loss != Loss::Ldam {
        false => once(run, weighs),
        true if !weighs => Effect::Idle,
        true => Effect::No(format!(
            "loss {loss} corrects for the numbers of images by itself; leave it out, or --loss cross-entropy"
        )),
    }
}

/// The weights of classes as they are given, or else those that the loss comes with.
fn weights_of_run(run: &Situation<'_>) -> ClassWeights {
    sections::class_weights(run.config)
}

pub(super) fn effective_beta(run: &Situation<'_>) -> Effect {
    let loss = run.config.choice::<Loss>("train.loss");
    let has_beta = matches!(loss, Loss::ClassBalancedFocal { .. })
        || matches!(weights_of_run(run), ClassWeights::Effective { .. });
    only(has_beta, "no class weighs by its effective number; leave it out, or --class-weights effective")
}

pub(super) fn defer(run: &Situation<'_>) -> Effect {
    let weighs = weights_of_run(run) != ClassWeights::None;
    only(
        weighs,
        "there are no class weights that could begin later; leave it out, or --class-weights effective",
    )
}

/// Why nothing can be made of the features of training images; `None` where they are kept, and an image has one row.
fn no_features(run: &Situation<'_>) -> Option<String> {
    let off = run.config.text("train.feature_cache").as_deref() == Some("off");
    let why = if run.command != Command::Train {
        "only train has features"
    } else if run.finds_a_rate() {
        "--find-lr trains on images"
    } else if ["train.mixup", "train.cutmix"].iter().any(|key| run.config.real(key) > 0.0) {
        "--mixup and --cutmix mix images; leave them out"
    } else if run.sees_every_image().is_some() {
        "no part of the network stays frozen for the whole run; give --freeze backbone"
    } else if off {
        "--feature-cache off keeps no features; leave it out"
    } else if run.is_augmented() {
        "--augment gives an image other features in every epoch; leave it out"
    } else {
        return None;
    };
    Some(why.to_string())
}

/// What of a run needs features: pixels are no such space, since the mean of two photographs shows no third object.
fn on_features(run: &Situation<'_>, word: impl std::fmt::Display) -> Effect {
    match no_features(run) {
        None => Effect::Yes,
        Some(why) => Effect::No(format!(
            "{word} is for the features of a frozen network, and not for pixels, of which two mixed images make none: {why}"
        )),
    }
}

pub(super) fn balance(run: &Situation<'_>) -> Effect {
    match run.config.choice::<Balance>("balance.mode") {
        balance if balance.makes_features() => on_features(run, balance),
        _ => Effect::Yes,
    }
}

pub(super) fn clean(run: &Situation<'_>) -> Effect {
    match run.config.choice::<Clean>("balance.clean") {
        Clean::None => Effect::Idle,
        clean => on_features(run, clean),
    }
}

pub(super) fn unfreeze(run: &Situation<'_>) -> Effect {
    only(run.freezing().begins_frozen(), "--freeze none leaves nothing to thaw; leave one of them out")
}

pub(super) fn unfreeze_patience(run: &Situation<'_>) -> Effect {
    let stalls = !run.freezing().by_stall.is_empty();
    only(stalls, "it is the patience of --unfreeze \"stall: PART\", which is not given; leave it out")
}

pub(super) fn layer_decay(run: &Situation<'_>) -> Effect {
    let freezing = run.freezing();
    if run.finds_a_rate() && freezing.begins_with_head_only() {
        return Effect::No(
            "--find-lr trains the head alone here, at one learning rate; leave it out".to_string(),
        );
    }
    let more = if freezing.is_recipe { ", or give more --epochs" } else { "" };
    only(
        !freezing.trains_head_only(),
        format!("only the head is trained, at one learning rate; leave it out{more}"),
    )
}

pub(super) fn head_activation(run: &Situation<'_>) -> Effect {
    only(run.has("train.head_width"), "the head has no hidden layer; leave it out, or give --head-width")
}

pub(super) fn feature_cache(run: &Situation<'_>) -> Effect {
    let off = run.config.text("train.feature_cache").as_deref() == Some("off");
    match run.sees_every_image() {
        Some(_) if off => Effect::Idle,
        Some(why) => Effect::No(why),
        None if !off && run.is_augmented() && !run.has("train.feature_views") => Effect::No(
            "images are augmented, so every epoch sees others; leave it out, or --feature-views 4 keeps 4 views of each"
                .to_string(),
        ),
        None => Effect::Yes,
    }
}

pub(super) fn feature_views(run: &Situation<'_>) -> Effect {
    match (run.is_augmented(), run.sees_every_image()) {
        (false, _) => Effect::No("without --augment all views are the same; leave it out".to_string()),
        (true, Some(why)) => Effect::No(why),
        (true, None) => Effect::Yes,
    }
}

pub(super) fn early_stop(run: &Situation<'_>) -> Effect {
    only(
        run.facts.validates,
        "there are no validation images to tell when to stop by; leave it out, or give some with --split",
    )
}

pub(super) fn monitor(run: &Situation<'_>) -> Effect {
    only(
        run.facts.validates,
        "there are no validation images, so the best epoch is the last; leave it out, or give some with --split",
    )
}

pub(super) fn min_delta(run: &Situation<'_>) -> Effect {
    let counts = run.has("train.early_stop") || unfreeze_patience(run) == Effect::Yes;
    only(counts, "it says what counts for --early-stop and --unfreeze \"stall: PART\", and neither is given")
}

pub(super) fn learning_rate(run: &Situation<'_>) -> Effect {
    only(
        !run.config.is_on("train.find_lr"),
        "--find-lr tries the rates from 1e-7 to 10, whatever it is; leave one out",
    )
}
