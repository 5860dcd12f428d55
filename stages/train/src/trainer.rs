//! A network in training: its parameters, its optimiser and its step count.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use forebay_stages::collate::Batch;

use crate::error::{TrainError, compute, plain, unknown_network};
use crate::loss_scale::LossScale;
use crate::models::{self, Head, Network, NetworkEnds};
use crate::ops;
use crate::optim::Optimizer;
use crate::options::{DeviceKind, TrainOptions, part_problems, problems};
use crate::params::{Builder, ParamStore, Pass, Undrawn};
use crate::predictor::Predictor;
use crate::weights::{self, Strictness, WeightsReport};

/// How many numbers a network has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterSummary {
    /// Numbers that the optimiser moves.
    pub trainable: usize,
    /// Numbers that are frozen; running statistics are in neither.
    pub frozen: usize,
}

/// A network in training.
///
/// Runs in the rayon pool it is called in. The same options and batches give the same weights, bit for bit, for
/// any number of threads and after any number of [`checkpoint`](Trainer::checkpoint)s and
/// [`restore`](Trainer::restore)s.
pub struct Trainer {
    pub(crate) options: TrainOptions,
    pub(crate) network: Arc<Network>,
    pub(crate) store: ParamStore,
    /// The moving average of the weights, where one is kept.
    pub(crate) ema: Option<ParamStore>,
    pub(crate) optimizer: Optimizer,
    pub(crate) step: u64,
    /// What the schedule's learning rate is multiplied by.
    rate_scale: f64,
    /// The first step after each stall of the run so far.
    pub(crate) stalls: Vec<u64>,
    pub(crate) micro_batch: Option<usize>,
    pub(crate) loss_scale: LossScale,
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer")
            .field("options", &self.options)
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

impl Trainer {
    /// Builds the network with initial weights drawn from the seed.
    ///
    /// # Errors
    /// When the options contradict themselves, no network is called so, or the device cannot be used.
    pub fn new(options: &TrainOptions) -> Result<Trainer, TrainError> {
        Ok(Trainer::build(options, true)?.0)
    }

    /// Builds the network with the weights of a file, as [`load_weights`](Trainer::load_weights) takes them, and draws initial
    /// weights only of what the file does not have.
    ///
    /// # Errors
    /// As [`Trainer::new`] and [`Trainer::load_weights`].
    pub fn with_weights(
        options: &TrainOptions,
        file_bytes: &[u8],
        strictness: Strictness,
    ) -> Result<(Trainer, WeightsReport), TrainError> {
        let (mut trainer, undrawn) = Trainer::build(options, false)?;
        let report = trainer.load_weights(file_bytes, strictness)?;
        let loaded: BTreeSet<&str> = report.loaded.iter().map(String::as_str).collect();
        let drawn = trainer.store.draw(undrawn, options.seed, |name| !loaded.contains(name));
        drawn.map_err(compute("set the weights"))?;
        trainer.restart_average()?;
        Ok((trainer, report))
    }

    /// The network, and what is left to draw of it.
    fn build(options: &TrainOptions, draws: bool) -> Result<(Trainer, Undrawn), TrainError> {
        let refuse = |problems: Vec<String>| match problems.is_empty() {
            true => Ok(()),
            false => Err(TrainError::Options(problems.join("; "))),
        };
        refuse(problems(options))?;
        let device = match options.device {
            DeviceKind::Cpu => Ok(Device::Cpu),
            // A stream of its own: the default one is per thread, and would not wait for other threads'.
            DeviceKind::Cuda(ordinal) => Device::new_cuda_with_stream(ordinal),
        };
        let device =
            device.map_err(|source| TrainError::Device { device: options.device, source: plain(source) })?;
        let mut store = ParamStore::new(device);
        let mut builder = match draws {
            true => Builder::new(&mut store, options.seed),
            false => Builder::blank(&mut store),
        };
        let head = Head { classes: options.classes.len(), ..options.head };
        let network = models::build(&options.model, &head, &mut builder)
            .map_err(compute("build the network"))?
            .ok_or_else(|| unknown_network(&options.model))?;
        let undrawn = builder.undrawn();
        refuse(part_problems(options, &network))?;
        let optimizer = Optimizer::new(options.optimizer);
        let mut trainer = Trainer {
            options: options.clone(),
            network: Arc::new(network),
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
        Ok((trainer, undrawn))
    }

    /// Refuses options that contradict themselves, that name parts that the network does not have, or images of `side` pixels that
    /// are too small for it.
    ///
    /// # Errors
    /// Everything that is wrong, a line each.
    pub fn check(options: &TrainOptions, side: u32) -> Result<(), Vec<String>> {
        let mut problems = problems(options);
        match models::blank(&options.model) {
            None => problems.push(unknown_network(&options.model).to_string()),
            Some(network) => {
                if (side as usize) < network.side_min() {
                    problems.push(format!(
                        "images of {side} pixels are too small for {}, which needs {} or more; give --size",
                        options.model,
                        network.side_min()
                    ));
                }
                problems.extend(part_problems(options, &network));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Refuses weights that [`load_weights`](Trainer::load_weights) would refuse for the network called `model` with this head,
    /// whatever its classes, without building it.
    ///
    /// # Errors
    /// As there.
    pub fn check_weights(
        model: &str,
        head: &Head,
        file_bytes: &[u8],
        strictness: Strictness,
    ) -> Result<(), TrainError> {
        let file = weights::read(file_bytes)?;
        // Other classes are another number of rows in the last layer, which is no reason to refuse a file.
        let head = Head { classes: 1, ..*head };
        let (network, tensors) = models::outline(model, &head).ok_or_else(|| unknown_network(model))?;
        let tensors: Vec<(&str, Vec<usize>)> =
            tensors.iter().map(|(name, shape)| (name.as_str(), shape.clone())).collect();
        let matched = weights::match_shapes(file, &tensors, model, network.head(), strictness);
        Ok(matched.map(drop)?)
    }

    /// Multiplies the schedule's learning rate from the next step on.
    pub fn set_rate_scale(&mut self, scale: f64) {
        self.rate_scale = scale;
    }

    /// The most images that go through the network at a time.
    pub fn micro_batch(&self) -> Option<usize> {
        self.micro_batch
    }

    /// Sets the most images that go through the network at a time; `None` takes batches whole.
    pub fn set_micro_batch(&mut self, images: Option<usize>) {
        self.micro_batch = images;
    }

    /// Begins the moving average at the weights as they are.
    pub(crate) fn restart_average(&mut self) -> Result<(), TrainError> {
        self.ema = match self.options.ema {
            Some(_) => Some(self.store.duplicate().map_err(compute("copy the weights"))?),
            None => None,
        };
        Ok(())
    }

    /// The weights that are evaluated and kept.
    pub(crate) fn eval_weights(&self) -> &ParamStore {
        self.ema.as_ref().unwrap_or(&self.store)
    }

    /// The network with the weights that it is evaluated with, as it stands between two steps: the values are shared, so that a
    /// predictor that outlives a step sees it.
    pub fn predictor(&self) -> Predictor {
        Predictor {
            network: self.network.clone(),
            store: self.eval_weights().clone(),
            chain: self.options.chain.clone(),
            classes: self.options.classes.len(),
            precision: self.options.precision.dtype(),
            micro_batch: self.micro_batch,
        }
    }

    /// Takes the weights from the bytes of a safetensors file, or a `.pth` or `.bin` file of PyTorch, under the names of
    /// torchvision, timm, transformers or ours; the classifier of other classes keeps its initial values, which the
    /// report says. Nothing is changed when an error is returned.
    ///
    /// # Errors
    /// When the file cannot be read, or is for another network; where `strictness` asks for it also when it does not fill
    /// the backbone.
    pub fn load_weights(
        &mut self,
        file_bytes: &[u8],
        strictness: Strictness,
    ) -> Result<WeightsReport, TrainError> {
        let file = weights::read(file_bytes)?;
        // As many classes are not the same classes: a classifier of others would be wrong about every image.
        let ours = &self.options.classes;
        let other_classes = file.classes().filter(|classes| *classes != ours && classes.len() == ours.len());
        let other_classes = other_classes.map(<[String]>::to_vec);
        let head = self.network.head();
        let matched = weights::match_names(file, &self.store, &self.options.model, head, strictness);
        let mut matched = matched?;
        if let Some(classes) = other_classes {
            matched.leave_head(|name| self.network.is_head(name), classes);
        }
        matched.set(&self.store)?;
        self.restart_average()?;
        Ok(matched.report)
    }

    /// What parts of the network make of `x`, in single precision.
    pub(crate) fn run(
        &self,
        parts: Range<usize>,
        x: &Tensor,
        pass: &Pass<'_>,
    ) -> candle_core::Result<Tensor> {
        self.network.forward_parts(parts, x, pass)?.to_dtype(DType::F32)
    }

    /// The learning rate of a step, counted from 0.
    pub fn learning_rate(&self, step: u64) -> f64 {
        self.rate_scale * self.options.schedule.at(step)
    }

    /// Steps done so far.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// Counts a step of the schedule that changes no weight: its batch held nothing to learn from.
    pub fn pass_over(&mut self) {
        self.step += 1;
    }

    /// Where the network begins and ends, by the names that its layers have here.
    pub fn ends(&self) -> NetworkEnds {
        self.network.ends(&self.store)
    }

    /// How many numbers are trained and how many are frozen.
    pub fn parameters(&self) -> ParameterSummary {
        let mut summary = ParameterSummary { trainable: 0, frozen: 0 };
        for (_, entry) in self.store.iter() {
            let count = entry.values().elem_count();
            match entry.is_trainable() {
                true => summary.trainable += count,
                false if entry.kind() != crate::params::Kind::Buffer => summary.frozen += count,
                false => {}
            }
        }
        summary
    }

    /// `[batch, 3, side, side]`, normalised, on the device.
    pub(crate) fn upload(&self, batch: &Batch) -> Result<Tensor, TrainError> {
        let size = (batch.len(), batch.side as usize);
        if batch.is_empty() {
            return Err(TrainError::Batch("a batch without images cannot be trained on".into()));
        }
        let normalize = self.options.chain.normalize().expect("options are checked");
        ops::normalize(&batch.images, size, &normalize, self.store.device())
            .and_then(|images| images.to_dtype(self.options.precision.dtype()))
            .map_err(compute("upload a batch"))
    }
}

#[cfg(test)]
mod tests;
