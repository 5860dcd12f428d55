//! What a trainer learns from and is measured on.

use candle_core::Tensor;
use forebay_datasets::sample::SampleId;
use forebay_stages::collate::Batch;
use forebay_train::{Predictor, StepReport, TrainError, Trainer};

/// What a trainer learns from and is measured on: a batch of images, or of their features.
pub(super) trait TrainInput: Send + Sync + 'static {
    fn labels(&self) -> &[u32];
    fn ids(&self) -> &[SampleId];
    fn step(&self, trainer: &mut Trainer) -> Result<StepReport, TrainError>;
    fn logits(&self, predictor: &Predictor) -> Result<Vec<Vec<f32>>, TrainError>;
    /// The images, where they are there to be looked at.
    fn images(&self) -> Option<&Batch>;
    /// Whether something of it was lost on the way, so that it is not what was planned.
    fn is_lost(&self) -> bool;
}

impl TrainInput for Batch {
    fn labels(&self) -> &[u32] {
        &self.labels
    }

    fn ids(&self) -> &[SampleId] {
        &self.ids
    }

    fn step(&self, trainer: &mut Trainer) -> Result<StepReport, TrainError> {
        trainer.step(self)
    }

    fn logits(&self, predictor: &Predictor) -> Result<Vec<Vec<f32>>, TrainError> {
        predictor.predict(self)
    }

    fn images(&self) -> Option<&Batch> {
        Some(self)
    }

    fn is_lost(&self) -> bool {
        false
    }
}

/// A batch of features, for the parts of the network from `first` on.
pub(super) struct FeatureBatch {
    /// `[batch, ..shape]`.
    pub(super) features: Tensor,
    pub(super) labels: Vec<u32>,
    pub(super) ids: Vec<SampleId>,
    pub(super) first: usize,
    pub(super) is_lost: bool,
}

impl TrainInput for FeatureBatch {
    fn labels(&self) -> &[u32] {
        &self.labels
    }

    fn ids(&self) -> &[SampleId] {
        &self.ids
    }

    fn step(&self, trainer: &mut Trainer) -> Result<StepReport, TrainError> {
        trainer.step_on_features(&self.features, self.first, &self.labels)
    }

    fn logits(&self, predictor: &Predictor) -> Result<Vec<Vec<f32>>, TrainError> {
        predictor.predict_on_features(&self.features, self.first)
    }

    fn images(&self) -> Option<&Batch> {
        None
    }

    fn is_lost(&self) -> bool {
        self.is_lost
    }
}
