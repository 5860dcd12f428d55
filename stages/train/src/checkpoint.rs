//! All of a trainer in one file, from which a run goes on bit for bit.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use forebay_datasets::words::Words;

use crate::error::{TrainError, compute, unreadable};
use crate::file::{self, AVERAGE, CHAIN, FileDescription, LOSS_SCALE, OPTIMIZER};
use crate::loss_scale::LossScale;
use crate::optim::{Optimizer, OptimizerKind};
use crate::options::{Precision, TrainOptions};
use crate::params::{Entry, ParamStore};
use crate::trainer::Trainer;

impl Trainer {
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
        file::encode(&header, &tensors).map_err(compute("write the checkpoint"))
    }

    /// The network alone, as the bytes of a safetensors file, with `metadata`.
    ///
    /// # Errors
    /// When the device cannot be read.
    pub fn weights(&self, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>, TrainError> {
        let tensors = self.eval_weights().iter().map(|(name, entry)| (name.to_owned(), entry.values()));
        file::encode(&self.header(None, metadata), &tensors.collect::<Vec<_>>())
            .map_err(compute("write the weights"))
    }

    /// Continues from a [`checkpoint`](Trainer::checkpoint) of a run with the same network, classes, optimiser
    /// and frozen part, and returns the metadata that was kept with it. Nothing is changed when an error is
    /// returned.
    ///
    /// # Errors
    /// When the file cannot be read, or belongs to another run.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<BTreeMap<String, String>, TrainError> {
        let (header, mut tensors) = file::decode(bytes).map_err(unreadable("checkpoint"))?;
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
                |entry: &Entry| entry.kind() != crate::params::Kind::Buffer && entry.part() >= first_trained;
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
        let mut metadata = header.metadata;
        // The trainer's own, and not the caller's.
        metadata.remove(CHAIN);
        Ok(metadata)
    }

    pub(crate) fn header(
        &self,
        optimizer: Option<OptimizerKind>,
        metadata: &BTreeMap<String, String>,
    ) -> FileDescription {
        let TrainOptions { model, classes, head, chain, .. } = self.options.clone();
        let mut metadata = metadata.clone();
        metadata.insert(CHAIN.to_owned(), serde_json::to_string(&chain).expect("a chain is plain data"));
        FileDescription { model, classes, head, step: self.step, optimizer, metadata }
    }

    pub(crate) fn tensors(&self) -> Vec<(String, Tensor)> {
        self.store.iter().map(|(name, entry)| (name.to_owned(), entry.values())).collect()
    }
}
