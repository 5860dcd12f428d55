//! How a run trains: what is frozen and when it thaws, how fast each part learns, what the loss counts.

use forebay_datasets::seed::Seed;
use forebay_stages::chain::Chain;
use forebay_train::models::Head;
use forebay_train::ops::Activation;
use forebay_train::schedule::{Plateau, Schedule, Shape};
use forebay_train::{
    ClassWeights, DeviceKind, Freeze, Loss, Mixing, OptimizerKind, Precision, TrainOptions, Trainer, Unfreeze,
};

use crate::options::{self, Config, FreezePlan, HeadActivation, ScheduleKind, Thaw};

/// What a recipe is resolved against.
pub(super) struct Context<'a> {
    pub(super) classes: Vec<String>,
    /// Images of each class in the training split, after balancing where it balances, and before rejects.
    pub(super) counts: &'a [f64],
    /// Whether there are validation images.
    pub(super) validates: bool,
    pub(super) steps_per_epoch: u64,
    pub(super) epochs: u32,
    pub(super) side: u32,
    pub(super) seed: Seed,
    pub(super) device: DeviceKind,
    /// Whether the run begins at pretrained weights.
    pub(super) pretrained: bool,
    /// Mean and deviation of the chain.
    pub(super) chain: Chain,
    /// Whether the training images were balanced when their shards were prepared.
    pub(super) is_balanced: bool,
}

/// The options of a run, what lowers its learning rate when validation stalls, and what its user may want to know.
///
/// # Errors
/// Every problem, one a line.
pub(super) fn resolve(
    config: &Config,
    freezing: &FreezePlan,
    context: Context<'_>,
) -> Result<(TrainOptions, Option<Plateau>, Vec<String>), Vec<String>> {
    let (mut problems, mut notes) = (Vec::new(), Vec::new());
    let number = |key: &str| config.real(key);
    let optimizer = optimizer(config);
    let model = config.text("train.arch").unwrap_or_default();
    let schedule_kind: ScheduleKind = config.choice("train.schedule");
    problems.extend(freezing.problems.iter().cloned());
    if !freezing.by_stall.is_empty() && !context.validates {
        problems.push(
            "train.unfreeze: there are no validation images to tell a stall by; give epochs, or see --split"
                .to_string(),
        );
    }
    notes.extend(recipe_in_words(config, freezing).map(str::to_string));
    let peak = config.number("train.learning_rate").unwrap_or(match optimizer {
        OptimizerKind::Sgd { .. } => 0.05,
        OptimizerKind::RmsProp { .. } => 1e-4,
        OptimizerKind::Adam { .. } | OptimizerKind::AdamW { .. } => 1e-3,
    });
    let steps_total = context.steps_per_epoch * u64::from(context.epochs);
    let steps_of_cycle =
        cycle(config, context.epochs).map_or(steps_total, |cycle| u64::from(cycle) * context.steps_per_epoch);
    let warmup = number("train.warmup") * context.steps_per_epoch as f64;
    let schedule = Schedule {
        shape: shape(config, schedule_kind, (context.steps_per_epoch, context.epochs), &mut problems),
        peak,
        // A run or a cycle of one epoch still ends with the learning rate falling.
        warmup_steps: (warmup as u64).min(steps_of_cycle / 2),
        steps_total,
    };
    if schedule_kind == ScheduleKind::Plateau && !context.validates {
        problems.push(
            "train.schedule: plateau needs validation images, and there are none; see --split".to_string(),
        );
    }
    let plateau = (schedule_kind == ScheduleKind::Plateau)
        .then(|| Plateau::new(number("train.lr_gamma"), number("train.lr_patience") as u32, 0.0));
    let (loss, class_weights, defer) =
        (options::loss(config), options::class_weights(config), options::deferred_share(config));
    problems.extend(refuse_double(config, context.is_balanced, loss, class_weights));
    notes.extend(correction_in_words(loss, class_weights, context.counts, defer));
    let at_step = |Thaw { epoch, part }: &Thaw| {
        let step = (epoch - 1).saturating_mul(context.steps_per_epoch);
        Unfreeze { step, part: part.clone() }
    };
    let options = TrainOptions {
        head: head(config, context.classes.len()),
        optimizer,
        schedule,
        weight_decay: config.number("train.weight_decay").unwrap_or(match optimizer {
            OptimizerKind::AdamW { .. } => 0.05,
            OptimizerKind::Sgd { .. } => 5e-4,
            OptimizerKind::Adam { .. } | OptimizerKind::RmsProp { .. } => 0.0,
        }),
        l1: number("train.l1"),
        clip_norm: config.number("train.clip_norm"),
        micro_batch: config.integer("train.micro_batch").map(|images| images as usize),
        ema: config.number("train.ema"),
        freeze: freezing.freeze.clone(),
        unfreeze: freezing.by_epoch.iter().map(at_step).collect(),
        unfreeze_on_stall: freezing.by_stall.clone(),
        layer_decay: freezing.layer_decay,
        loss,
        // Refused with a loss of labels, unless a run file of several commands says it.
        label_smoothing: if loss.takes_soft_targets() { number("train.label_smoothing") } else { 0.0 },
        class_weights,
        class_weights_from: (defer * steps_total as f64) as u64,
        class_counts: context.counts.to_vec(),
        mixing: mixing(config).filter(|_| loss.takes_soft_targets()),
        chain: context.chain,
        seed: context.seed,
        device: context.device,
        precision: precision(config, context.device, &mut problems),
        // Last, since what is above reads of both. There is no `..`: an option that the trainer has and nobody sets does not compile.
        classes: context.classes,
        model,
    };
    if options.freeze == Freeze::Backbone && !context.pretrained {
        notes.push("--freeze backbone without --weights trains a head on random features".to_string());
    }
    // Names of parts, the size of the images: what only the network knows.
    problems.extend(Trainer::check(&options, context.side).err().into_iter().flatten());
    if problems.is_empty() { Ok((options, plateau, notes)) } else { Err(problems) }
}

fn optimizer(config: &Config) -> OptimizerKind {
    match config.choice("train.optimizer") {
        OptimizerKind::Sgd { .. } => OptimizerKind::Sgd {
            momentum: config.real("train.momentum"),
            nesterov: config.is_on("train.nesterov"),
        },
        // With the constants of their papers.
        other => other,
    }
}

fn precision(config: &Config, device: DeviceKind, problems: &mut Vec<String>) -> Precision {
    let precision = config.choice("train.precision");
    if precision != Precision::F32 && device == DeviceKind::Cpu {
        problems.push(
            "train.precision: half precision is for GPUs (--device cuda:0); the processor computes in f32"
                .to_string(),
        );
    }
    precision
}

/// What the recipe comes to, where it decides something.
fn recipe_in_words(config: &Config, freezing: &FreezePlan) -> Option<&'static str> {
    let is_cut = config.is_given("train.freeze") || config.is_given("train.unfreeze");
    if freezing.is_recipe && freezing.trains_head_only() {
        Some("recipe fine-tune: the one epoch trains the head; with --epochs 2 or more all of it follows")
    } else if freezing.is_recipe {
        Some(
            "recipe fine-tune: epoch 1 trains the head, then all of the network, earlier parts more slowly (--recipe plain \
             trains everything from the start)",
        )
    } else if is_cut && freezing.decays_by_recipe && !freezing.trains_head_only() {
        Some(
            "recipe fine-tune: each part learns at 0.75 of the learning rate of the part after it (--layer-decay 1 for one \
             rate, or --recipe plain)",
        )
    } else {
        None
    }
}

/// Epochs of each cycle of `--snapshots`; `None` where there are none.
pub(super) fn cycle(config: &Config, epochs: u32) -> Option<u32> {
    config.integer("train.snapshots").map(|cycles| (epochs / cycles as u32).max(1))
}

fn shape(
    config: &Config,
    kind: ScheduleKind,
    (steps_per_epoch, epochs): (u64, u32),
    problems: &mut Vec<String>,
) -> Shape {
    let number = |key: &str| config.real(key);
    let steps = |epochs: f64| ((epochs * steps_per_epoch as f64) as u64).max(1);
    let factor = number("train.lr_gamma");
    match kind {
        ScheduleKind::Constant | ScheduleKind::Plateau => Shape::Constant,
        ScheduleKind::Step => Shape::Step { every: steps(number("train.lr_every")), factor },
        ScheduleKind::MultiStep => match config.numbers("train.lr_milestones") {
            Some(epochs) => Shape::MultiStep { at: epochs.into_iter().map(steps).collect(), factor },
            None => {
                problems.push("train.schedule: multi-step needs --lr-milestones, as in 30,60".to_string());
                Shape::Constant
            }
        },
        // The factor is that of an epoch, and the shape's that of a step.
        ScheduleKind::Exponential => Shape::Exponential { factor: factor.powf(1.0 / steps_per_epoch as f64) },
        ScheduleKind::CosineRestarts => {
            Shape::CosineRestarts { period: steps(number("train.lr_every")), growth: 2.0 }
        }
        ScheduleKind::OneCycle => Shape::OneCycle { warm_share: 0.3, start_divisor: 25.0, end_divisor: 1e4 },
        ScheduleKind::Polynomial => Shape::Polynomial { power: number("train.lr_power") },
        ScheduleKind::Linear => Shape::Linear,
        ScheduleKind::Cosine => match cycle(config, epochs) {
            Some(cycle) => Shape::Cycles { period: u64::from(cycle) * steps_per_epoch },
            None => Shape::Cosine { floor: 0.0 },
        },
    }
}

/// What the loss makes of the numbers of images of the classes, in words; `None` where it goes by none.
fn correction_in_words(
    loss: Loss,
    class_weights: ClassWeights,
    counts: &[f64],
    defer: f64,
) -> Option<String> {
    let percent = |shares: Vec<f64>| {
        let all: f64 = shares.iter().sum();
        shares.iter().map(|share| format!("{:.1} %", 100.0 * share / all)).collect::<Vec<_>>().join(", ")
    };
    if class_weights != ClassWeights::None {
        let weights = class_weights.of(counts);
        let from = match defer > 0.0 {
            true => format!(" from {:.0} % of the run on", 100.0 * defer),
            false => String::new(),
        };
        let shares = percent(weights.iter().zip(counts).map(|(weight, count)| weight * count).collect());
        return Some(format!("class weights: the classes count in the loss as {shares}{from}"));
    }
    loss.corrects_priors().then(|| {
        format!("loss {loss}: of the training images {} are of the classes", percent(counts.to_vec()))
    })
}

/// Refuses to correct for the numbers of images of shards that are even already.
fn refuse_double(config: &Config, is_balanced: bool, loss: Loss, weights: ClassWeights) -> Option<String> {
    let key = match (weights, loss.corrects_priors()) {
        (ClassWeights::None, false) => return None,
        (_, true) => "train.loss",
        (_, false) => "train.class_weights",
    };
    (is_balanced && !config.is_on("force")).then(|| {
        format!("{key}: the shards are balanced already, and both would overdo it; leave it out, or --force")
    })
}

fn mixing(config: &Config) -> Option<Mixing> {
    let number = |key: &str| config.number(key).unwrap_or(0.0);
    let (mixup, cutmix) = (number("train.mixup"), number("train.cutmix"));
    (mixup > 0.0 || cutmix > 0.0).then_some(Mixing { mixup, cutmix, probability: 1.0 })
}

/// What ends the network.
fn head(config: &Config, classes: usize) -> Head {
    Head {
        classes,
        width: config.integer("train.head_width").map(|width| width as usize),
        activation: match config.choice("train.head_activation") {
            HeadActivation::Relu => Activation::Relu,
            HeadActivation::Gelu => Activation::Gelu,
            HeadActivation::Silu => Activation::Silu,
            HeadActivation::HardSwish => Activation::HardSwish,
            HeadActivation::Tanh => Activation::Tanh,
            HeadActivation::Sigmoid => Activation::Sigmoid,
        },
        dropout: config.number("train.dropout"),
        normalized: options::loss(config) == Loss::Ldam,
    }
}
