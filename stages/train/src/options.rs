//! All that decides what a training run does to a network, besides its batches.

use candle_core::DType;
use forebay_datasets::seed::Seed;
use forebay_datasets::words;
use forebay_stages::chain::Chain;
use forebay_stages::normalize::Normalize;

use crate::loss::{ClassWeights, Loss};
use crate::mixing::Mixing;
use crate::models::{Head, Network};
use crate::optim::OptimizerKind;
use crate::schedule::{Schedule, Shape};

/// Where a network lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// The processor.
    Cpu,
    /// The CUDA device of this number; needs a build with the feature `cuda`.
    Cuda(usize),
}

/// Which parts of a network are not trained when a run begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Freeze {
    /// Everything is trained.
    #[default]
    None,
    /// Only the classifier is trained. The rest costs no graph, and its norms keep their running statistics.
    Backbone,
    /// The parts up to and including the one of this name are frozen.
    Until(String),
}

/// From a step on, the part of this name and all parts after it are trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfreeze {
    /// The first step, counted from 0, that trains them.
    pub step: u64,
    /// The first part.
    pub part: String,
}

/// The precision of the activations. Parameters, moments, the loss and the optimiser's state are single precision always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Single precision.
    F32,
    /// Half precision with the range of single precision.
    Bf16,
    /// Half precision with a small range: the loss is scaled so that gradients do not vanish (Micikevicius et al., arXiv
    /// 1710.03740).
    F16,
}

words!(Precision { F32 => "f32", Bf16 => "bf16", F16 => "f16" });

impl Precision {
    pub(crate) fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
            Precision::F16 => DType::F16,
        }
    }
}

/// All that decides what a training run does to a network, besides its batches.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// One of [`NAMES`](crate::models::NAMES).
    pub model: String,
    /// The class of each label, in the order of labels; at least two.
    pub classes: Vec<String>,
    /// What ends the network; its number of classes is that of `classes`.
    pub head: Head,
    /// The update rule.
    pub optimizer: OptimizerKind,
    /// The learning rate of each step.
    pub schedule: Schedule,
    /// Weight decay of weights; biases and norms have none.
    pub weight_decay: f64,
    /// L1 penalty of weights; biases and norms have none.
    pub l1: f64,
    /// The largest norm that all gradients may have together.
    pub clip_norm: Option<f64>,
    /// The most images that go through the network at a time, but for a third beside two that would otherwise be alone.
    /// The gradients of a batch are added up over its micro-batches; norms see one of them at a time.
    pub micro_batch: Option<usize>,
    /// Decay of the moving average of the weights that is evaluated and kept, in `[0, 1)`.
    pub ema: Option<f64>,
    /// What is not trained at first.
    pub freeze: Freeze,
    /// What is trained later, from steps known beforehand.
    pub unfreeze: Vec<Unfreeze>,
    /// Parts that are trained later, with all after them, one at each [`Trainer::set_stalls`](crate::Trainer::set_stalls).
    pub unfreeze_on_stall: Vec<String>,
    /// What the learning rate is multiplied by for every part between a parameter and the head, in `(0, 1]`.
    pub layer_decay: f64,
    /// The loss.
    pub loss: Loss,
    /// Label smoothing, in `[0, 1)`.
    pub label_smoothing: f64,
    /// How much an image of each class counts in the loss of training.
    pub class_weights: ClassWeights,
    /// The first step in which class weights count, counted from 0 (deferred re-weighting, arXiv 1906.07413).
    pub class_weights_from: u64,
    /// Training images of each class, copies counted, `[classes]`: what class weights and the losses that correct for priors
    /// go by. [`Trainer::set_class_counts`](crate::Trainer::set_class_counts) replaces them.
    pub class_counts: Vec<f64>,
    /// Images mixed with others of their batch.
    pub mixing: Option<Mixing>,
    /// From the original file of an image to the tensor, in evaluation; it ends in the map from grey levels to the tensor.
    /// The files of a trainer carry it.
    pub chain: Chain,
    /// Decides the initial weights, the dropout and the mixing.
    pub seed: Seed,
    /// Where the network lives.
    pub device: DeviceKind,
    /// How exact the activations are.
    pub precision: Precision,
}

impl TrainOptions {
    /// Plain training of everything on the CPU: SGD with momentum 0.9 at the constant learning rate 0.01,
    /// cross-entropy, ImageNet's normalisation.
    pub fn new(model: &str, classes: Vec<String>) -> TrainOptions {
        TrainOptions {
            model: model.to_owned(),
            head: Head::linear(classes.len()),
            class_counts: vec![1.0; classes.len()],
            classes,
            optimizer: OptimizerKind::Sgd { momentum: 0.9, nesterov: false },
            schedule: Schedule { shape: Shape::Constant, peak: 0.01, warmup_steps: 0, steps_total: u64::MAX },
            weight_decay: 0.0,
            l1: 0.0,
            clip_norm: None,
            micro_batch: None,
            ema: None,
            freeze: Freeze::None,
            unfreeze: Vec::new(),
            unfreeze_on_stall: Vec::new(),
            layer_decay: 1.0,
            loss: Loss::CrossEntropy,
            label_smoothing: 0.0,
            class_weights: ClassWeights::None,
            class_weights_from: 0,
            mixing: None,
            chain: Chain::of_pixels(Normalize::IMAGENET),
            seed: Seed(0),
            device: DeviceKind::Cpu,
            precision: Precision::F32,
        }
    }
}

impl TrainOptions {
    /// The parts that thaw at some time, by steps and after stalls.
    pub(crate) fn thawed(&self) -> impl Iterator<Item = &str> {
        let by_step = self.unfreeze.iter().map(|unfreeze| &unfreeze.part);
        by_step.chain(&self.unfreeze_on_stall).map(String::as_str)
    }
}

/// What is wrong with options, a line each.
pub(crate) fn problems(options: &TrainOptions) -> Vec<String> {
    let mut problems = Vec::new();
    let mut range = |name: &str, value: f64, fits: bool, expected: &str| {
        if !fits {
            problems.push(format!("{name} is {value}: expected {expected}"));
        }
    };
    let finite = |value: f64| value.is_finite() && value >= 0.0;
    let is_share = |value: f64| (0.0..1.0).contains(&value);
    let peak = options.schedule.peak;
    range("learning rate", peak, finite(peak), "0 or more");
    range("weight decay", options.weight_decay, finite(options.weight_decay), "0 or more");
    range("L1 penalty", options.l1, finite(options.l1), "0 or more");
    let decay = options.layer_decay;
    range("layer decay", decay, decay > 0.0 && decay <= 1.0, "more than 0, at most 1");
    let (gamma, tau) = (options.loss.gamma(), options.loss.tau());
    for (name, value) in [("clip norm", options.clip_norm), ("gamma", Some(gamma)), ("tau", Some(tau))] {
        let Some(value) = value else { continue };
        range(name, value, finite(value), "0 or more");
    }
    let beta = match (options.class_weights, options.loss) {
        (ClassWeights::Effective { beta }, _) | (_, Loss::ClassBalancedFocal { beta, .. }) => Some(beta),
        _ => None,
    };
    let shares = [
        ("decay of the moving average", options.ema),
        ("label smoothing", Some(options.label_smoothing)),
        ("beta of the effective number", beta),
    ];
    let (of_optimizer, eps) = match options.optimizer {
        OptimizerKind::Sgd { momentum, .. } => ([("momentum", Some(momentum)), ("", None)], None),
        OptimizerKind::Adam { beta1, beta2, eps } | OptimizerKind::AdamW { beta1, beta2, eps } => {
            ([("beta1", Some(beta1)), ("beta2", Some(beta2))], Some(eps))
        }
        OptimizerKind::RmsProp { alpha, eps, momentum, .. } => {
            ([("alpha", Some(alpha)), ("momentum", Some(momentum))], Some(eps))
        }
    };
    for (name, value) in shares.into_iter().chain(of_optimizer) {
        let Some(value) = value else { continue };
        range(name, value, is_share(value), "from 0 to below 1");
    }
    if let Some(eps) = eps {
        range("eps", eps, eps.is_finite() && eps > 0.0, "more than 0");
    }
    if options.classes.len() < 2 {
        problems.push(format!("a classifier needs two classes or more, got {}", options.classes.len()));
    }
    let counts = &options.class_counts;
    if counts.len() != options.classes.len() || counts.iter().any(|count| !finite(*count)) {
        problems.push(format!("{} class counts for {} classes", counts.len(), options.classes.len()));
    }
    let loss = options.loss;
    if options.class_weights != ClassWeights::None && loss.corrects_priors() && loss != Loss::Ldam {
        problems
            .push(format!("the loss {loss} corrects for the classes by itself, and takes no class weights"));
    }
    if !loss.takes_soft_targets() && (options.label_smoothing > 0.0 || options.mixing.is_some()) {
        problems.push(format!(
            "the loss {loss} is one of labels: neither mixed images nor label smoothing have a margin"
        ));
    }
    if (loss == Loss::Ldam) != options.head.normalized {
        problems.push(format!("the loss {} is of a head of unit vectors, and no other is", Loss::Ldam));
    }
    match options.chain.normalize() {
        Some(normalize) => problems.extend(normalize.problems()),
        None => {
            problems.push("the chain of the images does not end in a tensor: it has no mean and std".into())
        }
    }
    problems
}

/// A line for each part that is named and that the network does not have, or whose freezing leaves nothing to train.
pub(crate) fn part_problems(options: &TrainOptions, network: &Network) -> Vec<String> {
    let until = match &options.freeze {
        Freeze::Until(name) => Some(name.as_str()),
        _ => None,
    };
    let last = network.parts() - 1;
    let problem = |name: &str| {
        let parts = || network.part_names().collect::<Vec<_>>().join(", ");
        match network.part_index(name) {
            None => Some(format!("{} has no part `{name}`; its parts are {}", options.model, parts())),
            Some(index) if index == last && Some(name) == until => {
                Some(format!("freezing `{name}` leaves nothing to train; the parts are {}", parts()))
            }
            Some(_) => None,
        }
    };
    until.into_iter().chain(options.thawed()).filter_map(problem).collect()
}
