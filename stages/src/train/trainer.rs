//! The training step: a batch goes in, the loss comes out, the network has moved.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{DType, Device, Tensor, Var};
use forebay_datasets::seed::Seed;
use thiserror::Error;

use super::checkpoint::{self, Header, OPTIMIZER};
use super::metrics::prediction;
use super::mixing::Mixing;
use super::models::{self, Head, Network};
use super::ops::{self, Tape};
use super::optim::{Optimizer, OptimizerKind, StepSettings, clip_by_norm, norm};
use super::params::{Builder, Entry, Mode, NormUpdate, ParamStore, Pass, update_running_statistics};
use super::schedule::{Schedule, Shape};
use super::weights::{self, WeightsReport};
use crate::collate::Batch;

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

impl Precision {
    fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
            Precision::F16 => DType::F16,
        }
    }
}

/// What a step makes smaller.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Cross-entropy.
    CrossEntropy,
    /// Focal loss (arXiv 1708.02002): images that are classified well count less.
    Focal {
        /// The power of one minus the probability; 0 is cross-entropy.
        gamma: f64,
    },
}

/// All that decides what a training run does to a network, besides its batches.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// One of [`models::NAMES`].
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
    /// Parts that are trained later, with all after them, one at each [`Trainer::set_stalls`].
    pub unfreeze_on_stall: Vec<String>,
    /// What the learning rate is multiplied by for every part between a parameter and the head, in `(0, 1]`.
    pub layer_decay: f64,
    /// The loss.
    pub loss: Loss,
    /// Label smoothing, in `[0, 1)`.
    pub label_smoothing: f64,
    /// What an image of each class counts in the loss of training.
    pub class_weights: Option<Vec<f64>>,
    /// Images mixed with others of their batch.
    pub mixing: Option<Mixing>,
    /// Mean and standard deviation per channel, of pixels scaled to 0 to 1.
    pub normalize: ([f32; 3], [f32; 3]),
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
            class_weights: None,
            mixing: None,
            normalize: ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            seed: Seed(0),
            device: DeviceKind::Cpu,
            precision: Precision::F32,
        }
    }
}

/// Why training cannot start or go on.
#[derive(Debug, Error)]
pub enum TrainError {
    /// The options do not describe a run.
    #[error("{0}")]
    Options(String),
    /// The device cannot be used.
    #[error("cannot use {device:?} for training{}", if matches!(device, DeviceKind::Cuda(_)) { ": it needs a build with the feature `cuda`, and such a device" } else { "" })]
    Device {
        /// Which.
        device: DeviceKind,
        /// What the driver said.
        source: candle_core::Error,
    },
    /// The batch does not belong to this run.
    #[error("{0}")]
    Batch(String),
    /// The loss or its gradient is not a number any more; the network is as it was before the step.
    #[error(
        "the {what} is {value} at step {step} (learning rate {learning_rate:.3e}): try a lower learning rate or a longer warm-up, and look for broken images in the batch"
    )]
    Diverged {
        /// `loss` or `norm of the gradients`.
        what: &'static str,
        /// The step, counted from 0.
        step: u64,
        /// NaN or infinite.
        value: f64,
        /// The learning rate of the step.
        learning_rate: f64,
    },
    /// The device cannot hold a step.
    #[error(
        "the device has not enough memory to {what}: give a smaller --micro-batch, --batch-size or --size"
    )]
    OutOfMemory {
        /// What was being done.
        what: &'static str,
    },
    /// A weights file or checkpoint does not belong to this network.
    #[error("{0}")]
    Weights(String),
    /// A weights file or checkpoint cannot be read.
    #[error("cannot read the {what}: not a whole safetensors file")]
    File {
        /// `weights`, `checkpoint` or `input`.
        what: &'static str,
        /// What the reader said.
        source: candle_core::Error,
    },
    /// An operation failed on the device.
    #[error("cannot {what}")]
    Compute {
        /// What was being done.
        what: &'static str,
        /// What candle said.
        source: candle_core::Error,
    },
}

/// What one training step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The mean loss of the batch, before the step.
    pub loss: f64,
    /// How many images of the batch were classified right, before the step.
    pub correct: usize,
    /// The learning rate of the step.
    pub learning_rate: f64,
    /// The step, counted from 0.
    pub step: u64,
}

/// How many numbers a network has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterSummary {
    /// Numbers that the optimiser moves.
    pub trainable: usize,
    /// Numbers that are frozen; running statistics are in neither.
    pub frozen: usize,
}

/// What a file of weights or a checkpoint says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct FileDescription {
    /// The name of the network.
    pub model: String,
    /// The class of each logit.
    pub classes: Vec<String>,
    /// Steps done when it was written.
    pub step: u64,
    /// The optimiser of a checkpoint; `None` for weights alone, from which no run can resume.
    pub optimizer: Option<OptimizerKind>,
    /// What was kept with it.
    pub metadata: BTreeMap<String, String>,
}

/// The prefix of the moving average among the tensors of a checkpoint.
const AVERAGE: &str = "average.";

/// The tensor of a checkpoint that holds a [`LossScale`].
const LOSS_SCALE: &str = "loss_scale";

/// What the loss is multiplied by in half precision of small range, so that its gradients lie within that range. The
/// constants are those of PyTorch's `GradScaler`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct LossScale {
    factor: f64,
    /// Steps since it last changed.
    steady: u32,
}

impl LossScale {
    const START: LossScale = LossScale { factor: 65_536.0, steady: 0 };

    /// After a step whose gradients were finite, or not.
    fn after(self, finite: bool) -> LossScale {
        match (finite, self.steady) {
            (false, _) => LossScale { factor: self.factor / 2.0, steady: 0 },
            (true, 1999..) => LossScale { factor: self.factor * 2.0, steady: 0 },
            (true, steady) => LossScale { steady: steady + 1, ..self },
        }
    }
}

/// A network in training.
///
/// Runs in the rayon pool it is called in. The same options and batches give the same weights, bit for bit, for
/// any number of threads and after any number of [`checkpoint`](Trainer::checkpoint)s and
/// [`restore`](Trainer::restore)s.
pub struct Trainer {
    pub(super) options: TrainOptions,
    network: Network,
    pub(super) store: ParamStore,
    /// The moving average of the weights, where one is kept.
    ema: Option<ParamStore>,
    optimizer: Optimizer,
    pub(super) step: u64,
    /// What the schedule's learning rate is multiplied by.
    rate_scale: f64,
    /// The first step after each stall of the run so far.
    stalls: Vec<u64>,
    micro_batch: Option<usize>,
    loss_scale: LossScale,
}

/// What the backward pass of a batch found.
pub(super) struct Slopes {
    pub(super) loss: f64,
    correct: usize,
    /// By the name of the parameter.
    pub(super) gradients: BTreeMap<String, Tensor>,
    updates: Vec<NormUpdate>,
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer")
            .field("options", &self.options)
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

pub(super) fn compute(what: &'static str) -> impl Fn(candle_core::Error) -> TrainError {
    move |source| match plain(source) {
        source if is_out_of_memory(&source) => TrainError::OutOfMemory { what },
        source => TrainError::Compute { what, source },
    }
}

pub(super) fn unreadable(what: &'static str) -> impl Fn(candle_core::Error) -> TrainError {
    move |source| TrainError::File { what, source: plain(source) }
}

/// An error as it is, without the backtrace that candle wraps around it where `RUST_BACKTRACE` is set.
fn plain(error: candle_core::Error) -> candle_core::Error {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => plain(*inner),
        error => error,
    }
}

fn is_out_of_memory(error: &candle_core::Error) -> bool {
    let text = error.to_string().to_lowercase();
    text.contains("out of memory") || text.contains("out_of_memory")
}

pub(super) fn unknown_network(name: &str) -> TrainError {
    TrainError::Options(format!("no network is called `{name}`: known are {}", models::NAMES.join(", ")))
}

impl Trainer {
    /// Builds the network with initial weights drawn from the seed.
    ///
    /// # Errors
    /// When the options contradict themselves, no network is called so, or the device cannot be used.
    pub fn new(options: &TrainOptions) -> Result<Trainer, TrainError> {
        check(options).map_err(TrainError::Options)?;
        let device = match options.device {
            DeviceKind::Cpu => Ok(Device::Cpu),
            // A stream of its own: the default one is per thread, and would not wait for other threads'.
            DeviceKind::Cuda(ordinal) => Device::new_cuda_with_stream(ordinal),
        };
        let device =
            device.map_err(|source| TrainError::Device { device: options.device, source: plain(source) })?;
        let mut store = ParamStore::new(device);
        let mut builder = Builder::new(&mut store, options.seed);
        let head = Head { classes: options.classes.len(), ..options.head };
        let network = models::build(&options.model, &head, &mut builder)
            .map_err(compute("build the network"))?
            .ok_or_else(|| unknown_network(&options.model))?;
        check_parts(options, &network).map_err(TrainError::Options)?;
        let optimizer = Optimizer::new(options.optimizer);
        let mut trainer = Trainer {
            options: options.clone(),
            network,
            store,
            ema: None,
            optimizer,
            step: 0,
            rate_scale: 1.0,
            stalls: Vec::new(),
            micro_batch: options.micro_batch,
            loss_scale: LossScale::START,
        };
        trainer.freeze_for_step();
        trainer.restart_average()?;
        Ok(trainer)
    }

    /// Refuses options that contradict themselves, that name parts the network has not, or images of `side` pixels that
    /// are too small for it, in one line.
    ///
    /// # Errors
    /// That line.
    pub fn check(options: &TrainOptions, side: u32) -> Result<(), String> {
        check(options)?;
        let network =
            blank_network(&options.model).ok_or_else(|| unknown_network(&options.model).to_string())?;
        if (side as usize) < network.side_min() {
            return Err(format!(
                "images of {side} pixels are too small for {}, which needs {} or more; give --size",
                options.model,
                network.side_min()
            ));
        }
        check_parts(options, &network)
    }

    /// The parts of the network called `arch`, from the images to the head; none when no network is called so.
    pub fn part_names(arch: &str) -> Vec<String> {
        blank_network(arch)
            .map(|network| network.part_names().map(str::to_owned).collect())
            .unwrap_or_default()
    }

    /// Multiplies the schedule's learning rate from the next step on.
    pub fn set_rate_scale(&mut self, scale: f64) {
        self.rate_scale = scale;
    }

    /// Says after which steps nothing got better: each lets the next of [`TrainOptions::unfreeze_on_stall`] be trained from
    /// there on.
    pub fn set_stalls(&mut self, steps: Vec<u64>) {
        self.stalls = steps;
    }

    /// The most images that go through the network at a time.
    pub fn micro_batch(&self) -> Option<usize> {
        self.micro_batch
    }

    /// Changes it.
    pub fn set_micro_batch(&mut self, images: Option<usize>) {
        self.micro_batch = images;
    }

    /// The number of the first part that a step trains.
    pub(super) fn first_trained(&self, step: u64) -> usize {
        let part = |name: &str| part_index(&self.network, name).expect("checked when the trainer was made");
        let last = self.network.parts() - 1;
        let begin = match &self.options.freeze {
            Freeze::None => 0,
            Freeze::Backbone => last,
            Freeze::Until(name) => part(name) + 1,
        };
        let reached = self.options.unfreeze.iter().filter(|unfreeze| unfreeze.step <= step);
        let reached = reached.map(|unfreeze| part(&unfreeze.part)).fold(begin, usize::min);
        let stalled = self.options.unfreeze_on_stall.iter().zip(&self.stalls).filter(|(_, at)| **at <= step);
        stalled.map(|(name, _)| part(name)).fold(reached, usize::min)
    }

    /// The number of the first part that is trained at some time.
    fn first_ever_trained(&self) -> usize {
        let part =
            |name: &String| part_index(&self.network, name).expect("checked when the trainer was made");
        self.options.unfreeze_on_stall.iter().map(part).fold(self.first_trained(u64::MAX), usize::min)
    }

    /// Freezes what the next step does not train.
    pub(super) fn freeze_for_step(&mut self) {
        self.store.freeze_before(self.first_trained(self.step));
    }

    /// Begins the moving average at the weights as they are.
    fn restart_average(&mut self) -> Result<(), TrainError> {
        self.ema = match self.options.ema {
            Some(_) => Some(self.store.duplicate().map_err(compute("copy the weights"))?),
            None => None,
        };
        Ok(())
    }

    /// The weights that are evaluated and kept.
    fn judged(&self) -> &ParamStore {
        self.ema.as_ref().unwrap_or(&self.store)
    }

    /// Takes the weights that fit from the bytes of a safetensors file, or a `.pth` or `.bin` file of PyTorch,
    /// under the names of torchvision, timm, transformers or ours; the classifier of other classes keeps its initial
    /// values, which the report says. Nothing is changed when an error is returned.
    ///
    /// # Errors
    /// When the file cannot be read, or is for another network.
    pub fn load_weights(&mut self, file_bytes: &[u8]) -> Result<WeightsReport, TrainError> {
        let file = weights::read(file_bytes)?;
        // As many classes are not the same classes: a classifier of others would be wrong about every image.
        let other_classes = file.classes.clone().filter(|classes| {
            *classes != self.options.classes && classes.len() == self.options.classes.len()
        });
        let mut matched = weights::match_names(file, &self.store, &self.options.model, self.network.head())
            .map_err(TrainError::Weights)?;
        if other_classes.is_some() {
            let is_head = |name: &String| self.network.is_head(name);
            matched.tensors.retain(|(name, _)| !is_head(name));
            let head = matched.report.loaded.extract_if(.., |name| is_head(name)).collect::<Vec<_>>();
            matched.report.missing.extend(head);
            matched.report.missing.sort();
            matched.report.other_classes = other_classes;
        }
        for (name, tensor) in &matched.tensors {
            self.store.set(name, tensor).map_err(compute("set the weights"))?;
        }
        self.restart_average()?;
        Ok(matched.report)
    }

    /// One step: forward, loss, backward, update. When it returns an error, nothing has changed.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] when the loss or its gradient is not finite; [`TrainError::Batch`] for an empty batch, labels
    /// out of range or images that are too small.
    pub fn step(&mut self, batch: &Batch) -> Result<StepReport, TrainError> {
        self.step_at(batch, self.learning_rate(self.step))
    }

    /// [`Trainer::step`] with another learning rate than the schedule's.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn step_at(&mut self, batch: &Batch, learning_rate: f64) -> Result<StepReport, TrainError> {
        let (images, targets) = self.mixed(batch)?;
        self.advance(&images, 0, targets, &batch.labels, learning_rate)
    }

    /// A step on what the frozen parts before part `first` made of a batch: `features` `[batch, ..]`, f32, with the values
    /// that [`Trainer::features`] returns.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn step_on_features(
        &mut self,
        features: &Tensor,
        first: usize,
        labels: &[u32],
    ) -> Result<StepReport, TrainError> {
        let targets = self.targets(labels, |row| format!("row {row}"))?;
        let features = self.upload_features(features)?;
        self.advance(&features, first, targets, labels, self.learning_rate(self.step))
    }

    /// What the parts before part `first` make of each image in evaluation: `[batch, ..shape]`, and that shape.
    ///
    /// # Errors
    /// When the images are too small for the network, or the device fails.
    pub fn features(&self, batch: &Batch, first: usize) -> Result<(Vec<f32>, Vec<usize>), TrainError> {
        let images = self.upload(batch)?;
        let pass = Pass::new(self.judged(), Mode::Evaluate);
        let features = self.run(0..first, &images, &pass).map_err(compute("run the network forward"))?;
        let values = features.flatten_all().and_then(|features| features.to_vec1());
        Ok((values.map_err(compute("read the features"))?, features.dims()[1..].to_vec()))
    }

    /// Logits from the features `[batch, ..]` of images, as [`Trainer::predict`] gives them from the images.
    ///
    /// # Errors
    /// When the features are those of another network, or the device fails.
    pub fn predict_on_features(&self, features: &Tensor, first: usize) -> Result<Vec<Vec<f32>>, TrainError> {
        self.judge(&self.upload_features(features)?, first)
    }

    /// Logits of `input` `[batch, ..]`, what part `first` takes, in evaluation.
    fn judge(&self, input: &Tensor, first: usize) -> Result<Vec<Vec<f32>>, TrainError> {
        let pass = Pass::new(self.judged(), Mode::Evaluate);
        let logits = self.run(first..self.network.parts(), input, &pass);
        logits.and_then(|logits| logits.to_vec2::<f32>()).map_err(compute("run the network forward"))
    }

    /// What parts of the network make of `x`, in single precision.
    fn run(&self, parts: Range<usize>, x: &Tensor, pass: &Pass<'_>) -> candle_core::Result<Tensor> {
        self.network.forward_parts(parts, x, pass)?.to_dtype(DType::F32)
    }

    /// The same on the device.
    fn upload_features(&self, features: &Tensor) -> Result<Tensor, TrainError> {
        features
            .to_device(self.store.device())
            .and_then(|features| features.to_dtype(self.options.precision.dtype()))
            .map_err(compute("upload a batch"))
    }

    /// The values of all tensors before part `first`, and their names: what features are a function of.
    ///
    /// # Errors
    /// When the device cannot be read.
    pub fn prefix_bytes(&self, first: usize) -> Result<Vec<u8>, TrainError> {
        let tensors = self.store.iter().filter(|(_, entry)| entry.part() < first);
        let tensors: Vec<_> = tensors.map(|(name, entry)| (name.to_owned(), entry.values())).collect();
        checkpoint::encode_plain(&tensors).map_err(compute("read the weights"))
    }

    /// The first part that is trained at some time, where parts before it stay frozen for the whole run.
    pub fn frozen_prefix(&self) -> Option<usize> {
        Some(self.first_ever_trained()).filter(|first| *first > 0)
    }

    pub(super) fn advance(
        &mut self,
        input: &Tensor,
        first: usize,
        targets: Vec<f32>,
        labels: &[u32],
        learning_rate: f64,
    ) -> Result<StepReport, TrainError> {
        self.freeze_for_step();
        let step = self.step;
        let mut slopes = self.slopes(input, first, &targets, labels, learning_rate)?;
        let norm = norm(&slopes.gradients).map_err(compute("read the gradients"))?;
        if self.options.precision == Precision::F16 {
            self.loss_scale = self.loss_scale.after(norm.is_finite());
            if !norm.is_finite() && self.loss_scale.factor >= 1.0 {
                // The scale was too large: the batch is passed over, as PyTorch's `GradScaler` does.
                self.step += 1;
                let Slopes { loss, correct, .. } = slopes;
                return Ok(StepReport { loss, correct, learning_rate, step });
            }
        }
        if !norm.is_finite() {
            let what = "norm of the gradients";
            return Err(TrainError::Diverged { what, step, value: norm, learning_rate });
        }
        if let Some(most) = self.options.clip_norm {
            clip_by_norm(&mut slopes.gradients, norm, most).map_err(compute("clip the gradients"))?;
        }
        let settings =
            StepSettings { learning_rate, weight_decay: self.options.weight_decay, l1: self.options.l1 };
        let last = self.network.parts() as i32 - 1;
        let decay = self.options.layer_decay;
        let rate = move |entry: &Entry| decay.powi(last - entry.part() as i32);
        self.optimizer
            .step(&self.store, &slopes.gradients, &settings, &rate)
            .map_err(compute("update the weights"))?;
        update_running_statistics(&self.store, &slopes.updates)
            .map_err(compute("update the running statistics"))?;
        if let (Some(average), Some(decay)) = (&self.ema, self.options.ema) {
            // The average follows closely at first, as in TensorFlow's ExponentialMovingAverage with num_updates.
            let decay = decay.min((1.0 + step as f64) / (10.0 + step as f64));
            average.move_towards(&self.store, decay).map_err(compute("average the weights"))?;
        }
        self.step += 1;
        let Slopes { loss, correct, .. } = slopes;
        Ok(StepReport { loss, correct, learning_rate, step })
    }

    /// Loss and gradients of a batch, micro-batch by micro-batch. Nothing is changed.
    pub(super) fn slopes(
        &self,
        input: &Tensor,
        first: usize,
        targets: &[f32],
        labels: &[u32],
        learning_rate: f64,
    ) -> Result<Slopes, TrainError> {
        let (total, classes) = (labels.len(), self.options.classes.len());
        // Parts of nearly equal size, of at least two images: norms could not normalise a single one.
        let most = self.micro_batch.unwrap_or(total).max(1);
        let parts = total.div_ceil(most).min(total / 2).max(1);
        let denominator = self.denominator(targets);
        // What is frozen runs as in evaluation, and needs no tape.
        let trained = self.first_trained(self.step).max(first);
        let scale = match self.options.precision {
            Precision::F16 => self.loss_scale.factor,
            _ => 1.0,
        };
        let mut sum = Slopes { loss: 0.0, correct: 0, gradients: BTreeMap::new(), updates: Vec::new() };
        for part in 0..parts {
            let rows = part * total / parts..(part + 1) * total / parts;
            let input = match parts {
                1 => input.clone(),
                _ => input.narrow(0, rows.start, rows.len()).map_err(compute("cut a batch"))?,
            };
            let pass = Pass::new(&self.store, Mode::Train)
                .with_dropout(self.options.seed, self.step * 65_536 + part as u64);
            let frozen = Pass::new(&self.store, Mode::Evaluate);
            let input = self.network.forward_parts(first..trained, &input, &frozen);
            let input = input.map_err(compute("run the network forward"))?;
            let (logits, tape) = Tape::record(|| self.run(trained..self.network.parts(), &input, &pass));
            let logits = logits.map_err(compute("run the network forward"))?;
            sum.updates.extend(pass.finish());
            // The loss is few numbers: its own gradient comes from candle, and the network's from the tape.
            let scores = Var::from_tensor(&logits.detach()).map_err(compute("compute the loss"))?;
            let targets = &targets[rows.start * classes..rows.end * classes];
            let loss = self.loss_of(&scores, targets, denominator).map_err(compute("compute the loss"))?;
            let value = f64::from(loss.to_scalar::<f32>().map_err(compute("read the loss"))?);
            if !value.is_finite() {
                return Err(TrainError::Diverged { what: "loss", step: self.step, value, learning_rate });
            }
            sum.loss += value;
            let predicted = logits.detach().to_vec2::<f32>().map_err(compute("read the logits"))?;
            let right = predicted
                .iter()
                .zip(&labels[rows])
                .filter(|(row, label)| prediction(row) == **label as usize);
            sum.correct += right.count();
            let gradients = loss
                .backward()
                .and_then(|mut gradients| {
                    let mut gradient =
                        gradients.remove(&scores).expect("the loss is a function of the scores");
                    if scale != 1.0 {
                        gradient = (gradient * scale)?;
                    }
                    tape.backward(&logits, gradient, self.store.iter().map(|(_, entry)| &**entry.variable()))
                })
                .map_err(compute("run the network backward"))?;
            for (name, entry) in self.store.iter().filter(|(_, entry)| entry.is_trainable()) {
                let Some(gradient) = gradients.get(entry.variable()) else { continue };
                let gradient = match scale {
                    1.0 => gradient,
                    _ => &(gradient * (1.0 / scale)).map_err(compute("scale gradients"))?,
                };
                let gradient = match sum.gradients.remove(name) {
                    Some(before) => (before + gradient).map_err(compute("add gradients"))?,
                    None => gradient.clone(),
                };
                sum.gradients.insert(name.to_owned(), gradient);
            }
        }
        Ok(sum)
    }

    /// What the sum over a batch is divided by: its images, or the weights of their classes before smoothing.
    fn denominator(&self, targets: &[f32]) -> f64 {
        let classes = self.options.classes.len();
        let smoothing = self.options.label_smoothing;
        let plain = |target: f32| (f64::from(target) - smoothing / classes as f64) / (1.0 - smoothing);
        match &self.options.class_weights {
            None => (targets.len() / classes) as f64,
            Some(weights) => {
                let rows = targets.chunks_exact(classes).flat_map(|row| row.iter().zip(weights));
                rows.map(|(&target, weight)| plain(target) * weight).sum()
            }
        }
    }

    fn loss_of(&self, scores: &Var, targets: &[f32], denominator: f64) -> candle_core::Result<Tensor> {
        let device = self.store.device();
        let targets = Tensor::from_slice(targets, scores.dims(), device)?;
        let weights = match &self.options.class_weights {
            Some(weights) => Some(Tensor::new(weights.as_slice(), device)?.to_dtype(DType::F32)?),
            None => None,
        };
        let gamma = focal_gamma(&self.options).unwrap_or(0.0);
        ops::focal(scores, &targets, gamma, weights.as_ref(), denominator)
    }

    /// Logits of each image, in evaluation mode (running statistics): one row of `classes` numbers per image.
    ///
    /// # Errors
    /// When the images are too small for the network, or the device fails.
    pub fn predict(&self, batch: &Batch) -> Result<Vec<Vec<f32>>, TrainError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.judge(&self.upload(batch)?, 0)
    }

    /// The mean cross-entropy of logits, without label smoothing: what validation reports.
    ///
    /// # Panics
    /// When a label has no logit.
    pub fn loss(logits: &[Vec<f32>], labels: &[u32]) -> f64 {
        let loss = |(row, label): (&Vec<f32>, &u32)| {
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = row.iter().map(|logit| f64::from(logit - largest).exp()).sum();
            sum.ln() - f64::from(row[*label as usize] - largest)
        };
        logits.iter().zip(labels).map(loss).sum::<f64>() / logits.len().max(1) as f64
    }

    /// The learning rate of a step, counted from 0.
    pub fn learning_rate(&self, step: u64) -> f64 {
        self.rate_scale * self.options.schedule.at(step)
    }

    /// Steps done so far.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// How many numbers are trained and how many are frozen.
    pub fn parameters(&self) -> ParameterSummary {
        let mut summary = ParameterSummary { trainable: 0, frozen: 0 };
        for (_, entry) in self.store.iter() {
            let count = entry.values().elem_count();
            match entry.is_trainable() {
                true => summary.trainable += count,
                false if entry.kind() != super::params::Kind::Buffer => summary.frozen += count,
                false => {}
            }
        }
        summary
    }

    /// All that [`Trainer::restore`] needs, as the bytes of a safetensors file: the network under torchvision's
    /// names, the optimiser's state under `optimizer.`, and `metadata`. Equal states give equal bytes.
    ///
    /// # Errors
    /// When the device cannot be read.
    pub fn checkpoint(&self, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>, TrainError> {
        let mut tensors = self.tensors();
        if let Some(average) = &self.ema {
            tensors.extend(average.iter().map(|(name, entry)| (format!("{AVERAGE}{name}"), entry.values())));
        }
        tensors.extend(self.optimizer.state().map(|(name, tensor)| (format!("{OPTIMIZER}{name}"), tensor)));
        if self.options.precision == Precision::F16 {
            let LossScale { factor, steady } = self.loss_scale;
            let values = Tensor::new(&[factor as f32, steady as f32], &Device::Cpu);
            tensors.push((LOSS_SCALE.to_owned(), values.map_err(compute("write the checkpoint"))?));
        }
        let header = self.header(Some(self.options.optimizer), metadata);
        checkpoint::encode(&header, &tensors).map_err(compute("write the checkpoint"))
    }

    /// The network alone, as the bytes of a safetensors file, with `metadata`.
    ///
    /// # Errors
    /// When the device cannot be read.
    pub fn weights(&self, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>, TrainError> {
        let tensors = self.judged().iter().map(|(name, entry)| (name.to_owned(), entry.values()));
        checkpoint::encode(&self.header(None, metadata), &tensors.collect::<Vec<_>>())
            .map_err(compute("write the weights"))
    }

    /// Continues from a [`checkpoint`](Trainer::checkpoint) of a run with the same network, classes, optimiser
    /// and frozen part, and returns the metadata that was kept with it. Nothing is changed when an error is
    /// returned.
    ///
    /// # Errors
    /// When the file cannot be read, or belongs to another run.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<BTreeMap<String, String>, TrainError> {
        let (header, mut tensors) = checkpoint::decode(bytes).map_err(unreadable("checkpoint"))?;
        let refuse = |what: &str| Err(TrainError::Weights(format!("this checkpoint {what}")));
        let Some(header) = header else { return refuse("was not written by this program") };
        let Some(optimizer) = header.optimizer else {
            return refuse("holds weights only: give it as weights, not to resume from");
        };
        if header.model != self.options.model {
            return refuse(&format!("is of {}, and the run trains {}", header.model, self.options.model));
        }
        if header.classes != self.options.classes {
            return refuse("was trained on other classes");
        }
        if optimizer != self.options.optimizer {
            let (theirs, ours) = (optimizer, self.options.optimizer);
            return refuse(&format!("was trained with {theirs:?}, and the run uses {ours:?}"));
        }
        let mut network = Vec::new();
        for (name, tensor) in self.tensors() {
            match tensors.remove(&name) {
                Some(values) if values.dims() == tensor.dims() => network.push((name, values)),
                _ => return refuse(&format!("holds no `{name}` of shape {:?}", tensor.dims())),
            }
        }
        let mut average = Vec::new();
        for (name, tensor) in self.ema.iter().flat_map(ParamStore::iter) {
            match tensors.remove(&format!("{AVERAGE}{name}")) {
                Some(values) if values.dims() == tensor.values().dims() => {
                    average.push((name.to_owned(), values))
                }
                _ => return refuse(&format!("holds no moving average of `{name}`")),
            }
        }
        let mut loss_scale = self.loss_scale;
        if self.options.precision == Precision::F16 {
            let values = tensors.remove(LOSS_SCALE).and_then(|values| values.to_vec1::<f32>().ok());
            let Some(&[factor, steady]) = values.as_deref() else {
                return refuse("was not trained in half precision f16");
            };
            loss_scale = LossScale { factor: f64::from(factor), steady: steady as u32 };
        }
        let first_trained = self.first_trained(header.step.saturating_sub(1));
        let mut state = Vec::new();
        for (name, values) in tensors {
            let Some(slot) = name.strip_prefix(OPTIMIZER) else {
                return refuse(&format!("trains what the run freezes: it holds `{name}`"));
            };
            let parameter = slot.split_once('.').map_or("", |(_, parameter)| parameter);
            match self.store.get(parameter) {
                Some(entry) if entry.part() >= first_trained => state.push((slot.to_owned(), values)),
                _ => return refuse(&format!("trains what the run freezes: it holds `{name}`")),
            }
        }
        if header.step > 0 && self.options.optimizer.name() != "sgd" || !state.is_empty() {
            let has = |name: &str| {
                state.iter().any(|(slot, _)| slot.split_once('.').is_some_and(|(_, p)| p == name))
            };
            let trained =
                |entry: &Entry| entry.kind() != super::params::Kind::Buffer && entry.part() >= first_trained;
            if let Some((name, _)) = self.store.iter().find(|(name, entry)| trained(entry) && !has(name)) {
                return refuse(&format!("freezes what the run trains: it holds no state of `{name}`"));
            }
        }
        let mut optimizer = Optimizer::new(self.options.optimizer);
        for (name, values) in &state {
            optimizer.restore(name, values, &self.store).map_err(compute("set the optimiser's state"))?;
        }
        self.optimizer = optimizer;
        for (name, values) in &network {
            self.store.set(name, values).map_err(compute("set the weights"))?;
        }
        for (name, values) in &average {
            let store = self.ema.as_ref().expect("there are values of it");
            store.set(name, values).map_err(compute("set the weights"))?;
        }
        (self.step, self.loss_scale) = (header.step, loss_scale);
        self.freeze_for_step();
        Ok(header.metadata)
    }

    /// What a file of [`Trainer::checkpoint`] or [`Trainer::weights`] says about itself, read without its
    /// tensors; `None` for a file of another program.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn describe(bytes: &[u8]) -> Result<Option<FileDescription>, TrainError> {
        let header = checkpoint::header(bytes).map_err(unreadable("weights"))?;
        Ok(header.map(|header| {
            let Header { model, classes, step, optimizer, metadata } = header;
            FileDescription { model, classes, step, optimizer, metadata }
        }))
    }

    fn header(&self, optimizer: Option<OptimizerKind>, metadata: &BTreeMap<String, String>) -> Header {
        let TrainOptions { model, classes, .. } = self.options.clone();
        Header { model, classes, step: self.step, optimizer, metadata: metadata.clone() }
    }

    fn tensors(&self) -> Vec<(String, Tensor)> {
        self.store.iter().map(|(name, entry)| (name.to_owned(), entry.values())).collect()
    }

    /// `[batch, 3, side, side]`, normalised, on the device.
    pub(super) fn upload(&self, batch: &Batch) -> Result<Tensor, TrainError> {
        let (mean, std) = self.options.normalize;
        let size = (batch.len(), batch.side as usize);
        if batch.is_empty() {
            return Err(TrainError::Batch("a batch without images cannot be trained on".into()));
        }
        ops::normalize(&batch.images, size, mean, std, self.store.device())
            .and_then(|images| images.to_dtype(self.options.precision.dtype()))
            .map_err(compute("upload a batch"))
    }

    /// Normalised images and targets of a batch, mixed with one another where the run mixes.
    fn mixed(&self, batch: &Batch) -> Result<(Tensor, Vec<f32>), TrainError> {
        let images = self.upload(batch)?;
        let name = |row: usize| batch.ids.get(row).map_or_else(|| "?".to_owned(), |id| id.to_string());
        let mut targets = self.targets(&batch.labels, name)?;
        let Some(mixing) = &self.options.mixing else { return Ok((images, targets)) };
        let mut values = images
            .flatten_all()
            .and_then(|images| images.to_dtype(DType::F32)?.to_vec1::<f32>())
            .map_err(compute("mix a batch"))?;
        let mut stream = self.options.seed.stream(&format!("mixing/{}", self.step));
        mixing.apply(&mut values, batch.side as usize, &mut targets, self.options.classes.len(), &mut stream);
        let images = Tensor::from_vec(values, images.dims(), self.store.device())
            .and_then(|mixed| mixed.to_dtype(images.dtype()))
            .map_err(compute("mix a batch"))?;
        Ok((images, targets))
    }

    /// `[batch, classes]`: one-hot rows, smoothed; `name` is what an image is called in an error.
    pub(super) fn targets(
        &self,
        labels: &[u32],
        name: impl Fn(usize) -> String,
    ) -> Result<Vec<f32>, TrainError> {
        let classes = self.options.classes.len();
        let smoothing = self.options.label_smoothing;
        let mut targets = vec![(smoothing / classes as f64) as f32; labels.len() * classes];
        for (row, &label) in labels.iter().enumerate() {
            let Some(target) = targets[row * classes..(row + 1) * classes].get_mut(label as usize) else {
                return Err(TrainError::Batch(format!(
                    "image {} has label {label}, but there are {classes} classes",
                    name(row)
                )));
            };
            *target += (1.0 - smoothing) as f32;
        }
        Ok(targets)
    }
}

/// The structure of a network, without values of its own.
fn blank_network(arch: &str) -> Option<Network> {
    let mut store = ParamStore::new(Device::Cpu);
    models::build(arch, &Head::linear(1), &mut Builder::blank(&mut store)).ok().flatten()
}

/// The number of the part called `name`.
fn part_index(network: &Network, name: &str) -> Option<usize> {
    network.part_names().position(|part| part == name)
}

/// Refuses names of parts that the network has not.
fn check_parts(options: &TrainOptions, network: &Network) -> Result<(), String> {
    let until = match &options.freeze {
        Freeze::Until(name) => Some(name),
        _ => None,
    };
    let last = network.parts() - 1;
    let later = options.unfreeze.iter().map(|unfreeze| &unfreeze.part).chain(&options.unfreeze_on_stall);
    for name in until.into_iter().chain(later) {
        let parts = || network.part_names().collect::<Vec<_>>().join(", ");
        match part_index(network, name) {
            None => return Err(format!("{} has no part `{name}`; its parts are {}", options.model, parts())),
            Some(index) if index == last && Some(name) == until => {
                return Err(format!("to freeze `{name}` leaves nothing to train; the parts are {}", parts()));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// What is wrong with options, in one line.
fn check(options: &TrainOptions) -> Result<(), String> {
    let range = |name: &str, value: f64, fits: bool, expected: &str| {
        if fits { Ok(()) } else { Err(format!("{name} is {value}: expected {expected}")) }
    };
    let finite = |value: f64| value.is_finite() && value >= 0.0;
    if options.classes.len() < 2 {
        return Err(format!("a classifier needs two classes or more, got {}", options.classes.len()));
    }
    range("learning rate", options.schedule.peak, finite(options.schedule.peak), "0 or more")?;
    range("weight decay", options.weight_decay, finite(options.weight_decay), "0 or more")?;
    range("L1 penalty", options.l1, finite(options.l1), "0 or more")?;
    let decay = options.layer_decay;
    range("layer decay", decay, decay > 0.0 && decay <= 1.0, "more than 0, at most 1")?;
    for (name, value) in [("clip norm", options.clip_norm), ("gamma", focal_gamma(options))] {
        let Some(value) = value else { continue };
        range(name, value, finite(value), "0 or more")?;
    }
    if let Some(decay) = options.ema {
        range("decay of the moving average", decay, (0.0..1.0).contains(&decay), "from 0 to below 1")?;
    }
    if let Some(weights) = &options.class_weights
        && (weights.len() != options.classes.len() || weights.iter().any(|weight| !finite(*weight)))
    {
        return Err(format!("{} class weights for {} classes", weights.len(), options.classes.len()));
    }
    let smoothing = options.label_smoothing;
    range("label smoothing", smoothing, (0.0..1.0).contains(&smoothing), "from 0 to below 1")?;
    for &std in &options.normalize.1 {
        let std = f64::from(std);
        range("standard deviation", std, std.is_finite() && std > 0.0, "more than 0")?;
    }
    let share = |name: &str, value: f64| range(name, value, (0.0..1.0).contains(&value), "from 0 to below 1");
    let eps = |value: f64| range("eps", value, value.is_finite() && value > 0.0, "more than 0");
    match options.optimizer {
        OptimizerKind::Sgd { momentum, .. } => share("momentum", momentum),
        OptimizerKind::Adam { beta1, beta2, eps: value }
        | OptimizerKind::AdamW { beta1, beta2, eps: value } => {
            share("beta1", beta1)?;
            share("beta2", beta2)?;
            eps(value)
        }
        OptimizerKind::RmsProp { alpha, eps: value, momentum, .. } => {
            share("alpha", alpha)?;
            share("momentum", momentum)?;
            eps(value)
        }
    }
}

fn focal_gamma(options: &TrainOptions) -> Option<f64> {
    match options.loss {
        Loss::Focal { gamma } => Some(gamma),
        Loss::CrossEntropy => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(model: &str, classes: usize) -> TrainOptions {
        let classes = (0..classes).map(|class| format!("class {class}")).collect();
        TrainOptions {
            optimizer: OptimizerKind::Sgd { momentum: 0.9, nesterov: true },
            schedule: Schedule {
                shape: Shape::Cosine { floor: 0.0 },
                peak: 0.05,
                warmup_steps: 4,
                steps_total: 30,
            },
            weight_decay: 5e-4,
            label_smoothing: 0.1,
            normalize: ([0.5; 3], [0.25; 3]),
            seed: Seed(5),
            ..TrainOptions::new(model, classes)
        }
    }

    /// Noisy images of a square whose colour is the class: red, green or blue.
    fn squares(count: usize, side: usize, seed: u64) -> Batch {
        let mut stream = Seed(seed).stream("squares");
        let mut batch = Batch { images: vec![], labels: vec![], ids: vec![], side: side as u32 };
        for index in 0..count {
            let class = stream.below(3) as usize;
            let (left, top) =
                (stream.below(side as u64 / 2) as usize, stream.below(side as u64 / 2) as usize);
            for channel in 0..3 {
                for row in 0..side {
                    for column in 0..side {
                        let inside =
                            (top..top + side / 2).contains(&row) && (left..left + side / 2).contains(&column);
                        let base = if inside && channel == class { 140 } else { 60 };
                        batch.images.push(base + stream.below(60) as u8);
                    }
                }
            }
            batch.labels.push(class as u32);
            batch.ids.push(format!("{index}").into());
        }
        batch
    }

    fn trainer(options: &TrainOptions) -> Trainer {
        Trainer::new(options).expect("sound options")
    }

    #[test]
    fn a_trainer_may_move_to_the_thread_that_trains() {
        fn is_send<T: Send>() {}
        is_send::<Trainer>();
    }

    #[test]
    fn coloured_squares_are_learnt() {
        let mut trainer = trainer(&options("small", 3));
        let first = trainer.step(&squares(16, 16, 0)).expect("a step").loss;
        let last = (1..30).map(|step| trainer.step(&squares(16, 16, step)).expect("a step").loss).last();
        assert!(last.expect("thirty steps") < 0.6 * first, "{first} then {last:?}");
        let unseen = squares(60, 16, 1000);
        let logits = trainer.predict(&unseen).expect("logits");
        let right =
            logits.iter().zip(&unseen.labels).filter(|(row, label)| prediction(row) == **label as usize);
        assert!(right.count() >= 58, "more than 95 % of 60");
        assert!(Trainer::loss(&logits, &unseen.labels) < 0.4);
    }

    #[test]
    fn a_resumed_run_has_the_weights_of_an_uninterrupted_one() {
        let adamw = OptimizerKind::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 };
        for optimizer in [options("small", 3).optimizer, adamw] {
            let options = TrainOptions { optimizer, ..options("small", 3) };
            let mut whole = trainer(&options);
            let mut part = trainer(&options);
            for step in 0..3 {
                assert_eq!(whole.step(&squares(5, 8, step)).ok(), part.step(&squares(5, 8, step)).ok());
            }
            let metadata = BTreeMap::from([("epoch".to_owned(), "2".to_owned())]);
            let saved = part.checkpoint(&metadata).expect("a checkpoint");
            let described = Trainer::describe(&saved).expect("its own file").expect("a header");
            assert_eq!((described.step, described.optimizer), (3, Some(optimizer)));
            assert_eq!((&*described.model, described.classes.len()), ("small", 3));
            // Another seed: everything must come from the file.
            let mut resumed = trainer(&TrainOptions { seed: Seed(99), ..options });
            assert_eq!(resumed.restore(&saved).expect("its own file"), metadata);
            assert_eq!(resumed.steps_done(), 3);
            for step in 3..6 {
                let report = whole.step(&squares(5, 8, step)).expect("a step");
                assert_eq!(resumed.step(&squares(5, 8, step)).expect("a step"), report);
            }
            let end = BTreeMap::new();
            assert!(whole.checkpoint(&end).expect("bytes") == resumed.checkpoint(&end).expect("bytes"));
        }
    }

    #[test]
    fn one_two_and_eight_threads_give_the_same_weights() {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| {
                let mut trainer = trainer(&options("small", 3));
                for step in 0..2 {
                    trainer.step(&squares(19, 17, step)).expect("a step");
                }
                trainer.checkpoint(&BTreeMap::new()).expect("bytes")
            })
        };
        let one = run(1);
        assert!(one == run(2), "two threads");
        assert!(one == run(8), "eight threads");
    }

    #[test]
    fn a_frozen_backbone_does_not_move_and_the_head_does() {
        let mut trainer = trainer(&TrainOptions { freeze: Freeze::Backbone, ..options("small", 3) });
        assert_eq!(trainer.parameters().trainable, 256 * 3 + 3);
        let before = bits(&trainer);
        for step in 0..2 {
            trainer.step(&squares(6, 8, step)).expect("a step");
        }
        for (name, after) in bits(&trainer) {
            assert_eq!(after != before[&name], name.starts_with("fc."), "{name}");
        }
    }

    /// Every tensor by name, as bits.
    fn bits(trainer: &Trainer) -> BTreeMap<String, Vec<u32>> {
        let bits = |tensor: Tensor| -> Vec<u32> {
            let values = tensor.flatten_all().and_then(|tensor| tensor.to_vec1::<f32>());
            values.expect("values").iter().map(|value| value.to_bits()).collect()
        };
        trainer.tensors().into_iter().map(|(name, tensor)| (name, bits(tensor))).collect()
    }

    #[test]
    fn parts_thaw_at_their_step_and_frozen_statistics_stay() {
        let unfreeze = |step, part: &str| Unfreeze { step, part: part.into() };
        let options = TrainOptions {
            freeze: Freeze::Until("layer4".into()),
            unfreeze: vec![unfreeze(1, "layer4"), unfreeze(2, "layer3")],
            ..options("small", 3)
        };
        let mut trainer = trainer(&options);
        let moves: [&[&str]; 3] = [&["fc"], &["fc", "layer4"], &["fc", "layer4", "layer3"]];
        for (step, moving) in moves.iter().enumerate() {
            let before = bits(&trainer);
            trainer.step(&squares(6, 8, step as u64)).expect("a step");
            for (name, after) in bits(&trainer) {
                let moved = moving.iter().any(|part| name.starts_with(&format!("{part}.")));
                assert_eq!(after != before[&name], moved, "step {step}: {name}");
            }
        }
        // A run that stops in the middle goes on with the same parts.
        let saved = trainer.checkpoint(&BTreeMap::new()).expect("bytes");
        let mut again = self::trainer(&options);
        again.restore(&saved).expect("the same run");
        trainer.step(&squares(6, 8, 9)).expect("a step");
        again.step(&squares(6, 8, 9)).expect("a step");
        assert!(bits(&trainer) == bits(&again));
    }

    #[test]
    fn earlier_parts_learn_more_slowly_with_layer_decay() {
        let plain = TrainOptions {
            optimizer: OptimizerKind::Sgd { momentum: 0.0, nesterov: false },
            weight_decay: 0.0,
            ..options("small", 3)
        };
        let moved = |layer_decay: f64, name: &str| {
            let mut trainer = trainer(&TrainOptions { layer_decay, ..plain.clone() });
            let value = |trainer: &Trainer| trainer.store.get(name).expect("a tensor").values();
            let before = value(&trainer).copy().expect("a copy");
            trainer.step(&squares(6, 8, 0)).expect("a step");
            let difference = (value(&trainer) - before).and_then(|d| d.abs()?.sum_all()?.to_scalar::<f32>());
            difference.expect("a number")
        };
        // Parts: conv1, layer1 to layer4, head.
        for (name, parts) in [("fc.weight", 0), ("layer4.0.conv1.weight", 1), ("conv1.weight", 5)] {
            let ratio = moved(0.5, name) / moved(1.0, name);
            assert!((ratio - 0.5f32.powi(parts)).abs() < 1e-3, "{name}: {ratio}");
        }
    }

    #[test]
    fn micro_batches_add_up_to_the_batch_where_no_norm_sees_them() {
        // With a frozen backbone there is no batch statistic, so that only the order of sums differs.
        let weights = Some(vec![1.0, 3.0, 0.5]);
        let whole = TrainOptions { freeze: Freeze::Backbone, class_weights: weights, ..options("small", 3) };
        let parts = TrainOptions { micro_batch: Some(4), ..whole.clone() };
        let (mut whole, mut parts) = (trainer(&whole), trainer(&parts));
        for step in 0..3 {
            let batch = squares(11, 8, step);
            let (one, other) = (whole.step(&batch).expect("a step"), parts.step(&batch).expect("a step"));
            assert!((one.loss - other.loss).abs() < 1e-5, "{one:?} {other:?}");
            assert_eq!(one.correct, other.correct);
        }
        for ((name, one), (_, other)) in whole.tensors().into_iter().zip(parts.tensors()) {
            crate::train::ops::gradient_check::close(&one, &other, 1e-5).unwrap_or_else(|_| panic!("{name}"));
        }
    }

    #[test]
    fn the_moving_average_is_what_is_judged_and_resumes() {
        let options = TrainOptions { ema: Some(0.9), clip_norm: Some(0.5), l1: 1e-4, ..options("small", 3) };
        let mut trainer = trainer(&options);
        for step in 0..3 {
            trainer.step(&squares(8, 8, step)).expect("a step");
        }
        let head = |bytes: Vec<u8>| {
            let (_, tensors) = checkpoint::decode(&bytes).expect("a file");
            tensors["fc.weight"].flatten_all().and_then(|values| values.to_vec1::<f32>()).expect("values")
        };
        let kept = head(trainer.weights(&BTreeMap::new()).expect("bytes"));
        let saved = trainer.checkpoint(&BTreeMap::new()).expect("bytes");
        assert_ne!(kept, head(saved.clone()), "the average lags behind");
        let mut again = self::trainer(&options);
        again.restore(&saved).expect("the same run");
        trainer.step(&squares(8, 8, 9)).expect("a step");
        again.step(&squares(8, 8, 9)).expect("a step");
        let file = |trainer: &Trainer| trainer.weights(&BTreeMap::new()).expect("bytes");
        assert!(file(&trainer) == file(&again));
        let mut other = self::trainer(&TrainOptions { ema: None, ..options });
        assert!(other.restore(&saved).is_err(), "a run without an average does not go on with one");
    }

    #[test]
    fn mixed_batches_and_focal_losses_train_and_repeat() {
        let mixing = Some(Mixing { mixup: 0.4, cutmix: 1.0, probability: 1.0 });
        let options = TrainOptions { mixing, loss: Loss::Focal { gamma: 2.0 }, ..options("small", 3) };
        let run = || {
            let mut trainer = trainer(&options);
            let losses: Vec<f64> =
                (0..4).map(|step| trainer.step(&squares(8, 8, step)).expect("a step").loss).collect();
            (losses, bits(&trainer))
        };
        assert!(run() == run());
        assert!(
            run().0 != {
                let mut plain = trainer(&TrainOptions { mixing: None, ..options.clone() });
                (0..4).map(|step| plain.step(&squares(8, 8, step)).expect("a step").loss).collect::<Vec<_>>()
            }
        );
    }

    #[test]
    fn a_step_on_features_is_the_step_on_images_bit_for_bit() {
        for (freeze, shape) in
            [(Freeze::Backbone, vec![256]), (Freeze::Until("layer1".into()), vec![32, 8, 8])]
        {
            let options = TrainOptions { freeze, ema: Some(0.9), ..options("small", 3) };
            let (mut images, mut features) = (trainer(&options), trainer(&options));
            let first = features.frozen_prefix().expect("a part is frozen");
            for step in 0..3 {
                let batch = squares(6, 8, step);
                images.step(&batch).expect("a step");
                let (values, of_row) = features.features(&batch, first).expect("features");
                assert_eq!(of_row, shape);
                let values =
                    Tensor::from_vec(values, [&[6], &*of_row].concat(), &Device::Cpu).expect("six rows");
                features.step_on_features(&values, first, &batch.labels).expect("a step");
                let logits = features.predict_on_features(&values, first).expect("logits");
                assert_eq!(logits, images.predict(&batch).expect("logits"));
            }
            let end = BTreeMap::new();
            assert!(images.checkpoint(&end).expect("bytes") == features.checkpoint(&end).expect("bytes"));
        }
        assert!(trainer(&self::options("small", 3)).frozen_prefix().is_none());
    }

    #[test]
    fn parts_thaw_one_by_one_where_a_run_stalls() {
        let options = TrainOptions {
            freeze: Freeze::Backbone,
            unfreeze_on_stall: vec!["layer3".into(), "layer2".into()],
            ..options("small", 3)
        };
        let mut trainer = trainer(&options);
        let names: Vec<String> = Trainer::part_names("small");
        let part = |name: &str| names.iter().position(|part| part == name);
        assert_eq!(trainer.frozen_prefix(), part("layer2"), "what never thaws");
        assert_eq!(Some(trainer.first_trained(5)), part("head"));
        trainer.set_stalls(vec![5]);
        assert_eq!(
            (Some(trainer.first_trained(4)), Some(trainer.first_trained(5))),
            (part("head"), part("layer3"))
        );
        trainer.set_stalls(vec![5, 9, 12]);
        assert_eq!(
            (Some(trainer.first_trained(8)), Some(trainer.first_trained(50))),
            (part("layer3"), part("layer2"))
        );
        let wrong = TrainOptions { unfreeze_on_stall: vec!["layer9".into()], ..options };
        assert!(Trainer::check(&wrong, 32).expect_err("no such part").contains("no part `layer9`"));
    }

    #[test]
    fn half_precision_trains_as_single_precision_does_and_resumes() {
        let run = |precision| {
            let options = TrainOptions { precision, ..options("small", 3) };
            let mut trainer = trainer(&options);
            let losses: Vec<f64> =
                (0..6).map(|step| trainer.step(&squares(8, 16, step)).expect("a step").loss).collect();
            (trainer, losses, options)
        };
        let (_, single, _) = run(Precision::F32);
        // The processor has no product of bf16 matrices.
        let (mut half, losses, options) = run(Precision::F16);
        // Later steps magnify what rounding differs by.
        for (half, single) in losses.iter().zip(&single).take(4) {
            assert!((half - single).abs() < 0.01 * single && half != single, "{half} is not {single}");
        }
        let logits = half.predict(&squares(4, 16, 9)).expect("logits");
        assert!(logits.iter().flatten().all(|logit| logit.is_finite()));
        let saved = half.checkpoint(&BTreeMap::new()).expect("bytes");
        let mut resumed = trainer(&TrainOptions { seed: Seed(99), ..options });
        resumed.restore(&saved).expect("its own file");
        half.step(&squares(8, 16, 7)).expect("a step");
        resumed.step(&squares(8, 16, 7)).expect("a step");
        assert!(bits(&half) == bits(&resumed));
    }

    #[test]
    fn a_loss_scale_halves_at_an_overflow_and_doubles_after_two_thousand_sound_steps() {
        let start = LossScale::START;
        assert_eq!(start.after(false), LossScale { factor: 32_768.0, steady: 0 });
        let later = (0..1999).fold(start, |scale, _| scale.after(true));
        assert_eq!((later.factor, later.after(true).factor), (65_536.0, 131_072.0));
        let mut trainer = trainer(&TrainOptions { precision: Precision::F16, ..options("small", 3) });
        trainer.loss_scale.factor = 1e9;
        let before = bits(&trainer);
        let report = trainer.step(&squares(8, 16, 0)).expect("passed over");
        assert!(report.loss.is_finite() && trainer.loss_scale.factor == 5e8 && trainer.steps_done() == 1);
        assert!(before == bits(&trainer));
    }

    #[test]
    fn a_batch_is_learned_by_heart_and_forgotten() {
        let batch = squares(8, 16, 0);
        let mut sound = trainer(&options("small", 3));
        let before = sound.checkpoint(&BTreeMap::new()).expect("bytes");
        sound.rehearse(&batch, 2).expect("room");
        assert_eq!(sound.overfit(&batch).expect("a batch"), Vec::<String>::new());
        assert!(before == sound.checkpoint(&BTreeMap::new()).expect("bytes"), "nothing is changed");
        let still = Schedule { peak: 0.0, ..options("small", 3).schedule };
        let mut idle = trainer(&TrainOptions { schedule: still, ..options("small", 3) });
        let complaints = idle.overfit(&batch).expect("a batch");
        assert!(
            complaints.len() == 1 && complaints[0].contains("cannot be learned by heart"),
            "{complaints:?}"
        );
        let wild = Schedule { peak: 1e12, ..options("small", 3).schedule };
        let mut wild = trainer(&TrainOptions { schedule: wild, ..options("small", 3) });
        let complaints = wild.overfit(&batch).expect("a batch");
        assert!(complaints.len() == 1 && complaints[0].contains("is not a number"), "{complaints:?}");
    }

    #[test]
    fn a_first_batch_is_examined() {
        let mut sound = trainer(&options("small", 3));
        let before = bits(&sound);
        assert!(sound.examine(&squares(6, 8, 0)).expect("a batch").is_empty());
        assert!(before == bits(&sound), "nothing is changed");
        let mut dead = trainer(&options("small", 3));
        // A last layer of zeros lets no gradient through.
        let head = dead.store.get("fc.weight").expect("a tensor").values();
        dead.store.set("fc.weight", &head.zeros_like().expect("zeros")).expect("the same shape");
        let complaints = dead.examine(&squares(6, 8, 0)).expect("a batch");
        assert!(
            complaints.iter().any(|line| line.contains("gradient of `layer4.0.conv1.weight` is 0")),
            "{complaints:?}"
        );
    }

    #[test]
    fn parts_that_the_network_has_not_are_named() {
        let line = |freeze: Freeze, unfreeze: &[&str]| {
            let unfreeze = unfreeze.iter().map(|part| Unfreeze { step: 1, part: (*part).into() }).collect();
            Trainer::check(&TrainOptions { freeze, unfreeze, ..options("small", 3) }, 32)
                .expect_err("no such part")
        };
        let parts = "conv1, layer1, layer2, layer3, layer4, head";
        assert_eq!(
            line(Freeze::Until("layer7".into()), &[]),
            format!("small has no part `layer7`; its parts are {parts}")
        );
        assert_eq!(
            line(Freeze::Until("head".into()), &[]),
            format!("to freeze `head` leaves nothing to train; the parts are {parts}")
        );
        assert!(line(Freeze::None, &["fc"]).starts_with("small has no part `fc`"));
        let small = Trainer::check(&options("inception_v3", 3), 64).expect_err("too small");
        assert_eq!(
            small,
            "images of 64 pixels are too small for inception_v3, which needs 75 or more; give --size"
        );
    }

    #[test]
    fn a_loss_that_is_not_a_number_names_the_step_and_changes_nothing() {
        let mut trainer = trainer(&options("small", 3));
        trainer.step(&squares(4, 8, 0)).expect("a step");
        let poison = Tensor::new(&[f32::NAN, 0.0, 0.0], &Device::Cpu).expect("three numbers");
        trainer.store.set("fc.bias", &poison).expect("the bias of the head");
        let before = trainer.checkpoint(&BTreeMap::new()).expect("bytes");
        let error = trainer.step(&squares(4, 8, 1)).expect_err("a loss of NaN").to_string();
        assert!(error.starts_with("the loss is NaN at step 1 (learning rate 2.500e-2): try"), "{error}");
        assert!(before == trainer.checkpoint(&BTreeMap::new()).expect("bytes"));
    }

    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        let mut trainer = trainer(&options("small", 3));
        let row = |class: usize| vec![if class == 0 { 1e30f32 } else { 0.0 }; 256];
        let huge = Tensor::new(vec![row(0), row(1), row(2)], &Device::Cpu).expect("a matrix");
        trainer.store.set("fc.weight", &huge).expect("the same shape");
        let before = trainer.checkpoint(&BTreeMap::new()).expect("bytes");
        let batch = Batch { labels: vec![1, 2, 1, 2], ..squares(4, 8, 1) };
        let error = trainer.step(&batch).expect_err("a gradient of 1e30 squared").to_string();
        assert!(error.starts_with("the norm of the gradients is inf at step 0"), "{error}");
        assert!(before == trainer.checkpoint(&BTreeMap::new()).expect("bytes"));
    }

    #[test]
    fn weights_of_other_classes_keep_the_new_head_and_say_so() {
        let donor = trainer(&options("small", 5));
        let file = donor.weights(&BTreeMap::new()).expect("bytes");
        let mut taker = trainer(&TrainOptions { seed: Seed(6), ..options("small", 3) });
        let report = taker.load_weights(&file).expect("the same network");
        assert_eq!(report.loaded.len(), taker.tensors().len() - 2);
        assert!(report.missing.is_empty() && report.unexpected.is_empty(), "{report}");
        let text = report.to_string();
        assert!(text.contains("fc.weight: [5, 256] in the file, [3, 256] here; initialised anew"), "{text}");
        let value =
            |trainer: &Trainer| trainer.store.get("conv1.weight").map(|entry| entry.values().to_string());
        assert_eq!(value(&donor), value(&taker));
    }

    #[test]
    fn a_classifier_of_as_many_other_classes_is_not_taken() {
        let donor = trainer(&options("small", 3));
        let file = donor.weights(&BTreeMap::new()).expect("bytes");
        let classes = ["x", "y", "z"].map(str::to_owned).to_vec();
        let mut taker = trainer(&TrainOptions { classes, seed: Seed(6), ..options("small", 3) });
        let before = bits(&taker);
        let report = taker.load_weights(&file).expect("the same network");
        assert_eq!(report.missing, ["fc.bias", "fc.weight"]);
        assert!(
            report.to_string().contains("anew: the file's classes are class 0, class 1, class 2"),
            "{report}"
        );
        for (name, after) in bits(&taker) {
            let is_kept = name.starts_with("fc.");
            assert_eq!(after == before[&name], is_kept || before[&name] == bits(&donor)[&name], "{name}");
        }
        let mut same = trainer(&TrainOptions { seed: Seed(6), ..options("small", 3) });
        assert!(same.load_weights(&file).expect("the same network").missing.is_empty());
        assert!(bits(&same) == bits(&donor));
    }

    #[test]
    fn wrappers_prefixes_and_counters_are_understood() {
        let donor = trainer(&options("small", 3));
        let mut tensors: Vec<_> = donor
            .tensors()
            .into_iter()
            .map(|(name, tensor)| (format!("module.model.{name}"), tensor))
            .collect();
        let counter = Tensor::new(&[3f32], &Device::Cpu).expect("a number");
        tensors.push(("module.model.bn1.num_batches_tracked".into(), counter.clone()));
        tensors.push(("extra".into(), counter));
        tensors.retain(|(name, _)| !name.ends_with("fc.bias"));
        let file = checkpoint::encode(&donor.header(None, &BTreeMap::new()), &tensors).expect("bytes");
        let report = trainer(&options("small", 3)).load_weights(&file).expect("the same network");
        assert_eq!((report.missing, report.unexpected), (vec!["fc.bias".into()], vec!["extra".into()]));
    }

    #[test]
    fn files_that_do_not_belong_get_one_line() {
        let mut small = trainer(&options("small", 3));
        small.step(&squares(4, 8, 0)).expect("a step");
        let weights = small.weights(&BTreeMap::new()).expect("bytes");
        let saved = small.checkpoint(&BTreeMap::new()).expect("bytes");
        let mut large = trainer(&options("resnet18", 3));
        let check = |result: Result<(), TrainError>, expected: &str| {
            let error = result.expect_err("a file that does not belong").to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        };
        check(
            large.load_weights(&weights).map(drop),
            "the file is for another network than resnet18: `bn1.bias`",
        );
        check(large.load_weights(&weights[..100]).map(drop), "not a whole safetensors file");
        check(large.load_weights(b"").map(drop), "not a whole safetensors file");
        check(large.restore(&saved).map(drop), "this checkpoint is of small, and the run trains resnet18");
        let mut other = trainer(&options("small", 3));
        check(other.restore(&weights).map(drop), "holds weights only");
        let mut other = trainer(&options("small", 4));
        check(other.restore(&saved).map(drop), "was trained on other classes");
        let mut other = trainer(&TrainOptions { freeze: Freeze::Backbone, ..options("small", 3) });
        check(other.restore(&saved).map(drop), "trains what the run freezes");
        let adamw = OptimizerKind::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 };
        let mut other = trainer(&TrainOptions { optimizer: adamw, ..options("small", 3) });
        check(other.restore(&saved).map(drop), "was trained with Sgd");
    }

    #[test]
    fn bad_options_and_batches_get_one_line() {
        let refused = |options: TrainOptions| Trainer::new(&options).expect_err("bad options").to_string();
        assert_eq!(refused(options("small", 1)), "a classifier needs two classes or more, got 1");
        let unknown = refused(options("vgg", 2));
        assert!(unknown.starts_with("no network is called `vgg`: known are small, vgg11, "), "{unknown}");
        let mut rate = options("small", 2);
        rate.schedule.peak = f64::NAN;
        assert_eq!(refused(rate), "learning rate is NaN: expected 0 or more");
        let mut trainer = trainer(&options("small", 2));
        let mut batch = squares(2, 8, 0);
        batch.labels = vec![0, 9];
        let error = trainer.step(&batch).expect_err("a label out of range").to_string();
        assert_eq!(error, "image 1 has label 9, but there are 2 classes");
        let empty = Batch { images: vec![], labels: vec![], ids: vec![], side: 8 };
        assert!(trainer.step(&empty).is_err());
        assert!(trainer.predict(&empty).expect("no logits").is_empty());
    }
}
