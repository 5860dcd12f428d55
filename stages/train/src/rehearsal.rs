//! What can be known of a run before it begins: whether a step fits in memory, and whether the network learns at all.

use std::collections::BTreeMap;

use crate::error::{TrainError, compute};
use crate::loss::{ClassWeights, Loss};
use crate::params::Kind;
use crate::step::BatchGradients;
use crate::trainer::Trainer;
use forebay_stages::collate::Batch;

/// Steps within which the network should overfit a batch.
const STEPS: usize = 100;

impl Trainer {
    /// Runs the first `images` images of a batch forward and backward, all at a time, and forgets what came out: to learn
    /// what it takes.
    ///
    /// # Errors
    /// [`TrainError::OutOfMemory`] when it takes too much; as [`Trainer::step`].
    pub fn rehearse(&mut self, batch: &Batch, images: usize) -> Result<(), TrainError> {
        let part = batch.rows(0..images.min(batch.len()));
        let micro_batch = self.micro_batch();
        self.set_micro_batch(None);
        let result = self.first_gradients(&part);
        self.set_micro_batch(micro_batch);
        result.map(|_| ())
    }

    fn first_gradients(&mut self, batch: &Batch) -> Result<BatchGradients, TrainError> {
        self.freeze_for_step();
        let images = self.upload(batch)?;
        let targets = self.targets(&batch.labels, |row| row.to_string())?;
        self.gradients(&images, 0, &targets, &batch.labels, self.learning_rate(self.step))
    }

    /// Looks at a first batch before training: complaints, each one line, about a loss far from that of guessing, and
    /// about weights to be trained that no gradient reaches, or none but zeros. Biases are left out: before a batch
    /// normalisation their gradient is zero. Nothing is changed.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn examine(&mut self, batch: &Batch) -> Result<Vec<String>, TrainError> {
        let found = self.first_gradients(batch)?;
        let mut complaints = Vec::new();
        let guess = (self.options.classes.len() as f64).ln();
        if self.step == 0
            && self.options.loss == Loss::CrossEntropy
            && self.options.class_weights == ClassWeights::None
            && found.loss > 3.0 * guess + 1.0
        {
            complaints.push(format!(
                "the first loss is {:.2}, and guessing would have {guess:.2}: look at the normalisation and the weights",
                found.loss
            ));
        }
        for (name, entry) in self.store.iter().filter(|(_, entry)| entry.kind() == Kind::Weight) {
            match found.gradients.get(name) {
                Some(gradient) => {
                    let largest = gradient.abs().and_then(|gradient| gradient.max_all()?.to_scalar::<f32>());
                    let largest = largest.map_err(compute("read a gradient"))?;
                    if largest == 0.0 || !largest.is_finite() {
                        complaints
                            .push(format!("the gradient of `{name}` is {largest}: nothing would train it"));
                    }
                }
                None if entry.is_trainable() => {
                    complaints.push(format!("no gradient reaches `{name}`, which is to be trained"));
                }
                None => {}
            }
        }
        Ok(complaints)
    }

    /// Overfits one batch, at the highest learning rate of the schedule and without mixing, and forgets it again:
    /// complaints, each one line, when it cannot, or when something frozen has moved.
    ///
    /// # Errors
    /// As [`Trainer::step`]; [`TrainError::Diverged`] is a complaint.
    pub fn overfit(&mut self, batch: &Batch) -> Result<Vec<String>, TrainError> {
        let before = self.checkpoint(&BTreeMap::new())?;
        let complaints = self.overfit_steps(batch);
        self.restore(&before)?;
        complaints
    }

    fn overfit_steps(&mut self, batch: &Batch) -> Result<Vec<String>, TrainError> {
        let images = self.upload(batch)?;
        let rate = self.options.schedule.peak;
        let start = self.step;
        let frozen = self.prefix_bytes(self.first_trained(start))?;
        let mut complaints = Vec::new();
        let mut first = None;
        let (mut loss, mut share) = (f64::NAN, 0.0);
        for step in 0..STEPS {
            let targets = self.targets(&batch.labels, |row| row.to_string())?;
            match self.advance(&images, 0, targets, &batch.labels, rate) {
                Ok(report) => (loss, share) = (report.loss, report.correct as f64 / batch.len() as f64),
                Err(TrainError::Diverged { .. }) => {
                    complaints.push(format!(
                        "one batch cannot be overfitted: at the learning rate {rate} its loss is not a number after {step} steps"
                    ));
                    return Ok(complaints);
                }
                Err(error) => return Err(error),
            }
            // What thaws later would hide what is wrong now.
            self.step = start;
            first.get_or_insert(loss);
            if share == 1.0 {
                break;
            }
        }
        if share < 0.9 {
            complaints.push(format!(
                "one batch cannot be overfitted: after {STEPS} steps at the learning rate {rate} its loss went from {:.3} to {loss:.3}, and {:.0} % of it are right: try another learning rate, less regularisation, or to freeze less",
                first.unwrap_or(loss),
                100.0 * share
            ));
        }
        if self.prefix_bytes(self.first_trained(start))? != frozen {
            complaints.push("a frozen part has moved".to_owned());
        }
        Ok(complaints)
    }
}
