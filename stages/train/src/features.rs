//! What the frozen first parts of a network make of images.

use candle_core::{Device, Tensor};
use forebay_stages::collate::Batch;

use crate::error::{TrainError, compute};
use crate::file;
use crate::params::{Mode, Pass};
use crate::trainer::Trainer;

/// The bytes of a safetensors file with the one tensor `features` `[rows, ..shape]`, which is its end.
///
/// # Errors
/// When `values` are not whole rows.
pub fn features_file(values: &[f32], shape: &[usize]) -> Result<Vec<u8>, TrainError> {
    let rows = values.len() / shape.iter().product::<usize>().max(1);
    Tensor::from_slice(values, [&[rows], shape].concat(), &Device::Cpu)
        .and_then(|features| file::encode_plain(&[("features".to_owned(), features)]))
        .map_err(compute("write features"))
}

impl Trainer {
    /// What the parts before part `first` make of each image in evaluation: `[batch, ..shape]`, and that shape.
    ///
    /// # Errors
    /// When the images are too small for the network, or the device fails.
    pub fn features(&self, batch: &Batch, first: usize) -> Result<(Vec<f32>, Vec<usize>), TrainError> {
        let images = self.upload(batch)?;
        let pass = Pass::new(self.eval_weights(), Mode::Evaluate);
        let features = self.run(0..first, &images, &pass).map_err(compute("run the network forward"))?;
        let values = features.flatten_all().and_then(|features| features.to_vec1());
        Ok((values.map_err(compute("read the features"))?, features.dims()[1..].to_vec()))
    }

    /// The values of all tensors before part `first`, and their names: what features are a function of.
    ///
    /// # Errors
    /// When the device cannot be read.
    pub fn prefix_bytes(&self, first: usize) -> Result<Vec<u8>, TrainError> {
        let tensors = self.store.iter().filter(|(_, entry)| entry.part() < first);
        let tensors: Vec<_> = tensors.map(|(name, entry)| (name.to_owned(), entry.values())).collect();
        file::encode_plain(&tensors).map_err(compute("read the weights"))
    }

    /// Features on the device, in the precision of the activations.
    pub(crate) fn upload_features(&self, features: &Tensor) -> Result<Tensor, TrainError> {
        features
            .to_device(self.store.device())
            .and_then(|features| features.to_dtype(self.options.precision.dtype()))
            .map_err(compute("upload a batch"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_a_tensor_and_ends_with_its_values() {
        let values = [1.0, -0.5, 2.0, 3.0, 4.0, 5.0];
        let bytes = features_file(&values, &[3, 1]).expect("two rows");
        let (_, tensors) = file::decode(&bytes).expect("a file");
        assert_eq!(tensors["features"].dims(), [2, 3, 1]);
        let end: Vec<u8> = values.iter().flat_map(|value: &f32| value.to_le_bytes()).collect();
        assert!(bytes.ends_with(&end));
        assert!(features_file(&values, &[4]).is_err());
        assert!(features_file(&[], &[4]).is_ok(), "a shard without a row");
    }
}
