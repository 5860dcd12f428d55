//! The training step: a batch goes in, the loss comes out, the network has moved.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use forebay_datasets::seed::Seed;
use thiserror::Error;

use super::checkpoint::{self, Header, OPTIMIZER};
use super::metrics::prediction;
use super::models::{self, Head, Network};
use super::ops::{self, Tape};
use super::optim::{Optimizer, OptimizerKind};
use super::params::{Builder, Mode, ParamStore, Pass, update_running_statistics};
use super::schedule::Cosine;
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

/// Which part of a network is not trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freeze {
    /// Everything is trained.
    None,
    /// Only the classifier is trained. The rest costs no graph, and its norms keep their running statistics.
    Backbone,
}

/// All that decides what a training run does to a network, besides its batches.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// One of [`models::NAMES`].
    pub model: String,
    /// The class of each label, in the order of labels; at least two.
    pub classes: Vec<String>,
    /// The update rule.
    pub optimizer: OptimizerKind,
    /// The largest learning rate, reached after the warm-up.
    pub learning_rate: f64,
    /// Weight decay of weights; biases and norms have none.
    pub weight_decay: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Steps of the whole run, warm-up included; the learning rate then is 0.
    pub steps_total: u64,
    /// What is not trained.
    pub freeze: Freeze,
    /// Label smoothing, in `[0, 1)`.
    pub label_smoothing: f64,
    /// Mean and standard deviation per channel, of pixels scaled to 0 to 1.
    pub normalize: ([f32; 3], [f32; 3]),
    /// Decides the initial weights.
    pub seed: Seed,
    /// Where the network lives.
    pub device: DeviceKind,
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
    /// The loss is not a number any more; the network is as it was before the step.
    #[error(
        "the loss is {loss} at step {step} (learning rate {learning_rate:.3e}): try a lower learning rate or a longer warm-up, and look for broken images in the batch"
    )]
    Diverged {
        /// The step, counted from 0.
        step: u64,
        /// The loss: NaN or infinite.
        loss: f64,
        /// The learning rate of the step.
        learning_rate: f64,
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

/// A network in training.
///
/// Runs in the rayon pool it is called in. The same options and batches give the same weights, bit for bit, for
/// any number of threads and after any number of [`checkpoint`](Trainer::checkpoint)s and
/// [`restore`](Trainer::restore)s.
pub struct Trainer {
    options: TrainOptions,
    network: Network,
    store: ParamStore,
    optimizer: Optimizer,
    step: u64,
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
    move |source| TrainError::Compute { what, source }
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
        let device = device.map_err(|source| TrainError::Device { device: options.device, source })?;
        let mut store = ParamStore::new(device);
        let mut builder = Builder::new(&mut store, options.seed);
        let network = models::build(&options.model, &Head::linear(options.classes.len()), &mut builder)
            .map_err(compute("build the network"))?
            .ok_or_else(|| unknown_network(&options.model))?;
        if options.freeze == Freeze::Backbone {
            store.freeze(|name| !network.is_head(name));
        }
        let optimizer = Optimizer::new(options.optimizer, options.weight_decay, &store)
            .map_err(compute("allocate the optimiser's state"))?;
        Ok(Trainer { options: options.clone(), network, store, optimizer, step: 0 })
    }

    /// Takes the weights that fit from the bytes of a safetensors file, under torchvision's names or ours; the
    /// classifier of another number of classes keeps its initial values, which the report says. Nothing is
    /// changed when an error is returned.
    ///
    /// # Errors
    /// When the file cannot be read, or is for another network.
    pub fn load_weights(&mut self, file_bytes: &[u8]) -> Result<WeightsReport, TrainError> {
        let (_, tensors) =
            checkpoint::decode(file_bytes).map_err(|source| TrainError::File { what: "weights", source })?;
        let matched = weights::match_names(tensors, &self.store, &self.options.model, self.network.head())
            .map_err(TrainError::Weights)?;
        for (name, tensor) in &matched.tensors {
            self.store.set(name, tensor).map_err(compute("set the weights"))?;
        }
        Ok(matched.report)
    }

    /// One step: forward, loss, backward, update. When it returns an error, nothing has changed.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] when the loss is not finite; [`TrainError::Batch`] for an empty batch, labels
    /// out of range or images that are too small.
    pub fn step(&mut self, batch: &Batch) -> Result<StepReport, TrainError> {
        let (step, learning_rate) = (self.step, self.learning_rate(self.step));
        let images = self.upload(batch)?;
        let targets = self.targets(batch)?;
        let pass = Pass::new(&self.store, Mode::Train);
        let (logits, tape) = Tape::record(|| self.network.forward(&images, &pass));
        let logits = logits.map_err(compute("run the network forward"))?;
        let statistics = pass.finish();
        // The loss is few numbers: its own gradient comes from candle, and the network's from the tape.
        let scores = Var::from_tensor(&logits.detach()).map_err(compute("compute the loss"))?;
        let loss = ops::cross_entropy(&scores, &targets).map_err(compute("compute the loss"))?;
        let value = f64::from(loss.to_scalar::<f32>().map_err(compute("read the loss"))?);
        if !value.is_finite() {
            return Err(TrainError::Diverged { step, loss: value, learning_rate });
        }
        let rows = logits.detach().to_vec2::<f32>().map_err(compute("read the logits"))?;
        let correct =
            rows.iter().zip(&batch.labels).filter(|(row, label)| prediction(row) == **label as usize).count();
        let gradients = loss
            .backward()
            .and_then(|mut gradients| {
                let gradient = gradients.remove(&scores).expect("the loss is a function of the scores");
                tape.backward(&logits, gradient, self.store.iter().map(|(_, entry)| &**entry.variable()))
            })
            .map_err(compute("run the network backward"))?;
        self.optimizer
            .step(&self.store, &gradients, learning_rate, step)
            .map_err(compute("update the weights"))?;
        update_running_statistics(&self.store, &statistics)
            .map_err(compute("update the running statistics"))?;
        self.step += 1;
        Ok(StepReport { loss: value, correct, learning_rate, step })
    }

    /// Logits of each image, in evaluation mode (running statistics): one row of `classes` numbers per image.
    ///
    /// # Errors
    /// When the images are too small for the network, or the device fails.
    pub fn predict(&self, batch: &Batch) -> Result<Vec<Vec<f32>>, TrainError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let images = self.upload(batch)?;
        let pass = Pass::new(&self.store, Mode::Evaluate);
        let logits = self.network.forward(&images, &pass).map_err(compute("run the network forward"))?;
        logits.to_vec2::<f32>().map_err(compute("read the logits"))
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
        let TrainOptions { learning_rate: peak, warmup_steps, steps_total, .. } = self.options;
        Cosine { peak, warmup_steps, steps_total }.at(step)
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
        tensors.extend(self.optimizer.state().map(|(name, tensor)| (format!("{OPTIMIZER}{name}"), tensor)));
        let header = self.header(Some(self.options.optimizer), metadata);
        checkpoint::encode(&header, &tensors).map_err(compute("write the checkpoint"))
    }

    /// The network alone, as the bytes of a safetensors file, with `metadata`.
    ///
    /// # Errors
    /// When the device cannot be read.
    pub fn weights(&self, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>, TrainError> {
        checkpoint::encode(&self.header(None, metadata), &self.tensors())
            .map_err(compute("write the weights"))
    }

    /// Continues from a [`checkpoint`](Trainer::checkpoint) of a run with the same network, classes, optimiser
    /// and frozen part, and returns the metadata that was kept with it. Nothing is changed when an error is
    /// returned.
    ///
    /// # Errors
    /// When the file cannot be read, or belongs to another run.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<BTreeMap<String, String>, TrainError> {
        let (header, mut tensors) =
            checkpoint::decode(bytes).map_err(|source| TrainError::File { what: "checkpoint", source })?;
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
        let mut state = Vec::new();
        for (name, tensor) in self.optimizer.state() {
            match tensors.remove(&format!("{OPTIMIZER}{name}")) {
                Some(values) if values.dims() == tensor.dims() => state.push((name.to_owned(), values)),
                _ => return refuse(&format!("freezes what the run trains: it holds no state `{name}`")),
            }
        }
        if let Some((name, _)) = tensors.first_key_value() {
            return refuse(&format!("trains what the run freezes: it holds `{name}`"));
        }
        for (name, values) in &network {
            self.store.set(name, values).map_err(compute("set the weights"))?;
        }
        for (name, values) in &state {
            self.optimizer.restore(name, values).map_err(compute("set the optimiser's state"))?;
        }
        self.step = header.step;
        Ok(header.metadata)
    }

    /// What a file of [`Trainer::checkpoint`] or [`Trainer::weights`] says about itself, read without its
    /// tensors; `None` for a file of another program.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn describe(bytes: &[u8]) -> Result<Option<FileDescription>, TrainError> {
        let header =
            checkpoint::header(bytes).map_err(|source| TrainError::File { what: "weights", source })?;
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
    fn upload(&self, batch: &Batch) -> Result<Tensor, TrainError> {
        let (mean, std) = self.options.normalize;
        let size = (batch.len(), batch.side as usize);
        if batch.is_empty() {
            return Err(TrainError::Batch("a batch without images cannot be trained on".into()));
        }
        ops::normalize(&batch.images, size, mean, std, self.store.device()).map_err(compute("upload a batch"))
    }

    /// `[batch, classes]`: one-hot rows, smoothed.
    fn targets(&self, batch: &Batch) -> Result<Tensor, TrainError> {
        let classes = self.options.classes.len();
        let smoothing = self.options.label_smoothing;
        let mut targets = vec![(smoothing / classes as f64) as f32; batch.len() * classes];
        for (row, &label) in batch.labels.iter().enumerate() {
            let Some(target) = targets[row * classes..(row + 1) * classes].get_mut(label as usize) else {
                return Err(TrainError::Batch(format!(
                    "image {} has label {label}, but there are {classes} classes",
                    batch.ids.get(row).map_or("?", |id| id)
                )));
            };
            *target += (1.0 - smoothing) as f32;
        }
        Tensor::from_vec(targets, (batch.len(), classes), self.store.device())
            .and_then(|targets| targets.to_dtype(DType::F32))
            .map_err(compute("upload the labels"))
    }
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
    range("learning rate", options.learning_rate, finite(options.learning_rate), "0 or more")?;
    range("weight decay", options.weight_decay, finite(options.weight_decay), "0 or more")?;
    let smoothing = options.label_smoothing;
    range("label smoothing", smoothing, (0.0..1.0).contains(&smoothing), "from 0 to below 1")?;
    for &std in &options.normalize.1 {
        let std = f64::from(std);
        range("standard deviation", std, std.is_finite() && std > 0.0, "more than 0")?;
    }
    let share = |name: &str, value: f64| range(name, value, (0.0..1.0).contains(&value), "from 0 to below 1");
    match options.optimizer {
        OptimizerKind::Sgd { momentum, .. } => share("momentum", momentum),
        OptimizerKind::AdamW { beta1, beta2, eps } => {
            share("beta1", beta1)?;
            share("beta2", beta2)?;
            range("eps", eps, eps.is_finite() && eps > 0.0, "more than 0")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(model: &str, classes: usize) -> TrainOptions {
        TrainOptions {
            model: model.into(),
            classes: (0..classes).map(|class| format!("class {class}")).collect(),
            optimizer: OptimizerKind::Sgd { momentum: 0.9, nesterov: true },
            learning_rate: 0.05,
            weight_decay: 5e-4,
            warmup_steps: 4,
            steps_total: 30,
            freeze: Freeze::None,
            label_smoothing: 0.1,
            normalize: ([0.5; 3], [0.25; 3]),
            seed: Seed(5),
            device: DeviceKind::Cpu,
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
        let bits = |trainer: &Trainer| -> BTreeMap<String, Vec<u32>> {
            let tensors = trainer.tensors().into_iter();
            let bits = |tensor: Tensor| -> Vec<u32> {
                let values = tensor.flatten_all().and_then(|tensor| tensor.to_vec1::<f32>());
                values.expect("values").iter().map(|value| value.to_bits()).collect()
            };
            tensors.map(|(name, tensor)| (name, bits(tensor))).collect()
        };
        let before = bits(&trainer);
        for step in 0..2 {
            trainer.step(&squares(6, 8, step)).expect("a step");
        }
        for (name, after) in bits(&trainer) {
            assert_eq!(after != before[&name], name.starts_with("fc."), "{name}");
        }
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
        let small = trainer(&options("small", 3));
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
        let rate = TrainOptions { learning_rate: f64::NAN, ..options("small", 2) };
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
