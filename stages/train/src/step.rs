//! One step: a batch goes in, the loss comes out, the network has moved.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use forebay_stages::collate::Batch;

use crate::error::{TrainError, compute};
use crate::file::{CLASS_COUNTS, LOGIT_PRIOR};
use crate::loss::{ClassWeights, Criterion};
use crate::metrics::prediction;
use crate::ops::Tape;
use crate::optim::{StepSettings, clip_by_norm, norm};
use crate::options::{Precision, TrainOptions};
use crate::params::{Entry, Mode, NormUpdate, Pass, update_running_statistics};
use crate::predictor::micro_batches;
use crate::trainer::Trainer;

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

/// What the logits of a batch should be.
pub(crate) struct Targets {
    /// `[batch, classes]`, each row with the sum 1.
    rows: Vec<f32>,
    /// What the sum of the loss over the batch is divided by: with class weights that of the images' classes, as PyTorch's
    /// `cross_entropy` of labels; else, and of mixed targets always, the number of images, as that of probabilities.
    total: f64,
}

/// What the backward pass of a batch found.
pub(crate) struct BatchGradients {
    pub(crate) loss: f64,
    correct: usize,
    /// By the name of the parameter.
    pub(crate) gradients: BTreeMap<String, Tensor>,
    updates: Vec<NormUpdate>,
}

impl Trainer {
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

    pub(crate) fn advance(
        &mut self,
        input: &Tensor,
        first: usize,
        targets: Targets,
        labels: &[u32],
        learning_rate: f64,
    ) -> Result<StepReport, TrainError> {
        self.freeze_for_step();
        let step = self.step;
        let momentum = self.options.schedule.momentum_at(step);
        let mut found = self.gradients(input, first, &targets, labels, learning_rate)?;
        let norm = norm(&found.gradients).map_err(compute("read the gradients"))?;
        if self.options.precision == Precision::F16 {
            self.loss_scale = self.loss_scale.after(norm.is_finite());
            if !norm.is_finite() && self.loss_scale.factor >= 1.0 {
                // The scale was too large: the batch is passed over, as PyTorch's `GradScaler` does.
                self.step += 1;
                let BatchGradients { loss, correct, .. } = found;
                return Ok(StepReport { loss, correct, learning_rate, step });
            }
        }
        if !norm.is_finite() {
            let what = "norm of the gradients";
            return Err(TrainError::Diverged { what, step, value: norm, learning_rate });
        }
        if let Some(most) = self.options.clip_norm {
            clip_by_norm(&mut found.gradients, norm, most).map_err(compute("clip the gradients"))?;
        }
        let TrainOptions { weight_decay, l1, .. } = self.options;
        let settings = StepSettings { learning_rate, momentum, weight_decay, l1 };
        let last = self.network.parts() as i32 - 1;
        let decay = self.options.layer_decay;
        let rate = move |entry: &Entry| decay.powi(last - entry.part() as i32);
        self.optimizer
            .step(&self.store, &found.gradients, &settings, &rate)
            .map_err(compute("update the weights"))?;
        update_running_statistics(&self.store, &found.updates)
            .map_err(compute("update the running statistics"))?;
        if let (Some(average), Some(decay)) = (&self.ema, self.options.ema) {
            // The average follows closely at first, as in TensorFlow's ExponentialMovingAverage with num_updates.
            let decay = decay.min((1.0 + step as f64) / (10.0 + step as f64));
            average.move_towards(&self.store, decay).map_err(compute("average the weights"))?;
        }
        self.step += 1;
        let BatchGradients { loss, correct, .. } = found;
        Ok(StepReport { loss, correct, learning_rate, step })
    }

    /// Loss and gradients of a batch, micro-batch by micro-batch. Nothing is changed.
    pub(crate) fn gradients(
        &self,
        input: &Tensor,
        first: usize,
        targets: &Targets,
        labels: &[u32],
        learning_rate: f64,
    ) -> Result<BatchGradients, TrainError> {
        let (total, classes) = (labels.len(), self.options.classes.len());
        // At least two images in each: norms could not normalise a single one.
        let micro_batches: Vec<_> = micro_batches(total, self.micro_batch, 2).collect();
        // What is frozen runs as in evaluation, and needs no tape.
        let trained = self.first_trained(self.step).max(first);
        let scale = match self.options.precision {
            Precision::F16 => self.loss_scale.factor,
            _ => 1.0,
        };
        let criterion = self.criterion_at(self.step);
        let mut sum =
            BatchGradients { loss: 0.0, correct: 0, gradients: BTreeMap::new(), updates: Vec::new() };
        for (index, rows) in micro_batches.iter().enumerate() {
            let input = match micro_batches.len() {
                1 => input.clone(),
                _ => input.narrow(0, rows.start, rows.len()).map_err(compute("cut a batch"))?,
            };
            let pass = Pass::new(&self.store, Mode::Train)
                .with_dropout(self.options.seed, self.step * 65_536 + index as u64);
            let frozen = Pass::new(&self.store, Mode::Evaluate);
            let input = self.network.forward_parts(first..trained, &input, &frozen);
            let input = input.map_err(compute("run the network forward"))?;
            let (logits, tape) = Tape::record(|| self.run(trained..self.network.parts(), &input, &pass));
            let logits = logits.map_err(compute("run the network forward"))?;
            sum.updates.extend(pass.finish());
            let scores = logits.detach().flatten_all().and_then(|scores| scores.to_vec1::<f32>());
            let scores = scores.map_err(compute("read the logits"))?;
            let wanted = &targets.rows[rows.start * classes..rows.end * classes];
            let (value, gradient) = criterion.of_batch(&scores, wanted, targets.total);
            if !value.is_finite() {
                return Err(TrainError::Diverged { what: "loss", step: self.step, value, learning_rate });
            }
            sum.loss += value;
            let right = scores
                .chunks_exact(classes)
                .zip(&labels[rows.clone()])
                .filter(|(row, label)| prediction(row) == Some(**label as usize));
            sum.correct += right.count();
            let gradients = Tensor::from_vec(gradient, logits.dims(), self.store.device())
                .and_then(|mut gradient| {
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

    /// The training images of each class from the next step on, copies counted, `[classes]`: what class weights and losses
    /// that correct for priors go by.
    ///
    /// # Panics
    /// When there is not one number for each class.
    pub fn set_class_counts(&mut self, counts: Vec<f64>) {
        assert_eq!(counts.len(), self.options.classes.len(), "a count for each class");
        self.options.class_counts = counts;
    }

    /// The training images of each class that the next step goes by.
    pub fn class_counts(&self) -> &[f64] {
        &self.options.class_counts
    }

    /// What a file of the weights after so many steps keeps of the training images of each class and of the shares that its logits
    /// stand for, key by key.
    pub fn priors_as_metadata(&self, steps: u64) -> [(String, String); 2] {
        let TrainOptions { loss, class_weights, class_counts, .. } = &self.options;
        let weights = match steps > self.options.class_weights_from {
            true => *class_weights,
            false => ClassWeights::None,
        };
        let json = |numbers: &[f64]| serde_json::to_string(numbers).expect("plain data");
        let prior = loss.logit_prior(weights, class_counts);
        [(CLASS_COUNTS.to_owned(), json(class_counts)), (LOGIT_PRIOR.to_owned(), json(&prior))]
    }

    /// The loss of a step.
    fn criterion_at(&self, step: u64) -> Criterion {
        let weights = match step < self.options.class_weights_from {
            true => ClassWeights::None,
            false => self.options.class_weights,
        };
        Criterion::new(self.options.loss, weights, &self.options.class_counts)
    }

    /// Normalised images and targets of a batch, mixed with one another where the run mixes.
    fn mixed(&self, batch: &Batch) -> Result<(Tensor, Targets), TrainError> {
        let images = self.upload(batch)?;
        let name = |row: usize| batch.ids.get(row).map_or_else(|| "?".to_owned(), |id| id.to_string());
        let mut targets = self.targets(&batch.labels, name)?;
        let Some(mixing) = &self.options.mixing else { return Ok((images, targets)) };
        let mut values = images
            .flatten_all()
            .and_then(|images| images.to_dtype(DType::F32)?.to_vec1::<f32>())
            .map_err(compute("mix a batch"))?;
        let mut stream = self.options.seed.stream(&format!("mixing/{}", self.step));
        let (side, classes) = (batch.side as usize, self.options.classes.len());
        mixing.apply(&mut values, side, &mut targets.rows, classes, &mut stream);
        targets.total = batch.len() as f64;
        let images = Tensor::from_vec(values, images.dims(), self.store.device())
            .and_then(|mixed| mixed.to_dtype(images.dtype()))
            .map_err(compute("mix a batch"))?;
        Ok((images, targets))
    }

    /// One-hot rows, smoothed; `name` is what an image is called in an error.
    pub(crate) fn targets(
        &self,
        labels: &[u32],
        name: impl Fn(usize) -> String,
    ) -> Result<Targets, TrainError> {
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
        let total = self.criterion_at(self.step).divisor(labels);
        Ok(Targets { rows: targets, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixing::Mixing;

    #[test]
    fn losses_of_labels_divide_by_their_weights_and_those_of_mixed_targets_by_the_images() {
        let classes = ["a", "b", "c"].map(String::from).to_vec();
        let weighted = TrainOptions {
            class_weights: ClassWeights::Inverse,
            class_counts: vec![4.0, 2.0, 8.0],
            label_smoothing: 0.1,
            ..TrainOptions::new("small", classes)
        };
        let batch = Batch { images: vec![9; 3 * 3 * 64].into(), labels: vec![1, 2, 2], ids: vec![], side: 8 };
        let total = |options: &TrainOptions| {
            let (_, targets) = Trainer::new(options).expect("a network").mixed(&batch).expect("a batch");
            targets.total
        };
        let is = |options: &TrainOptions, expected: f64| {
            let total = total(options);
            assert!((total - expected).abs() < 1e-12, "{total} is not {expected}");
        };
        // The weights are 7 / 6, 7 / 3 and 7 / 12.
        is(&weighted, 3.5);
        // Deferred weights do not count yet.
        is(&TrainOptions { class_weights_from: 1, ..weighted.clone() }, 3.0);
        let heavy = TrainOptions { class_counts: vec![4.0, 1.0, 8.0], ..weighted };
        is(&heavy, 13.0 / 3.0 + 13.0 / 12.0);
        let mixing = Some(Mixing { mixup: 0.4, cutmix: 0.0, probability: 1.0 });
        is(&TrainOptions { mixing, ..heavy.clone() }, 3.0);
        is(&TrainOptions { class_weights: ClassWeights::None, ..heavy }, 3.0);
    }
}
