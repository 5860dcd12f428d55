//! What a frozen prefix of a network makes of images: computed once, and trained on instead of them.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use super::checkpoint;
use super::trainer::{TrainError, compute};

/// The features and the label of every image of a split, row by row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeatureRows {
    /// `[rows, width]`.
    pub values: Vec<f32>,
    /// `[rows]`.
    pub labels: Vec<u32>,
}

impl FeatureRows {
    /// Features of a row.
    pub fn width(&self) -> usize {
        self.values.len() / self.labels.len().max(1)
    }

    /// The rows of these numbers, in their order.
    pub fn select(&self, rows: &[usize]) -> FeatureRows {
        let width = self.width();
        FeatureRows {
            values: rows
                .iter()
                .flat_map(|row| &self.values[row * width..(row + 1) * width])
                .copied()
                .collect(),
            labels: rows.iter().map(|row| self.labels[*row]).collect(),
        }
    }

    /// The bytes of a safetensors file with `features` `[rows, width]` f32 and `labels` `[rows]` u32.
    ///
    /// # Errors
    /// When memory is short.
    pub fn to_bytes(&self) -> Result<Vec<u8>, TrainError> {
        let shape = (self.labels.len(), self.width());
        let tensors = || {
            Ok(vec![
                ("features".to_owned(), Tensor::from_slice(&self.values, shape, &Device::Cpu)?),
                ("labels".to_owned(), Tensor::from_slice(&self.labels, shape.0, &Device::Cpu)?),
            ])
        };
        tensors()
            .and_then(|tensors: Vec<_>| checkpoint::encode_plain(&tensors))
            .map_err(compute("write features"))
    }

    /// Reads what [`FeatureRows::to_bytes`] wrote; `None` when it is not that, or not whole.
    pub fn from_bytes(bytes: &[u8]) -> Option<FeatureRows> {
        let (_, tensors): (_, BTreeMap<String, Tensor>) = checkpoint::decode(bytes).ok()?;
        let (features, labels) = (tensors.get("features")?, tensors.get("labels")?);
        if features.dims().len() != 2
            || labels.dims() != &features.dims()[..1]
            || labels.dtype() != DType::U32
        {
            return None;
        }
        Some(FeatureRows {
            values: features.flatten_all().ok()?.to_vec1().ok()?,
            labels: labels.to_vec1().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were_and_damage_is_noticed() {
        let rows = FeatureRows { values: vec![1.0, -0.5, 2.0, 3.0, 4.0, 5.0], labels: vec![1, 0, 7] };
        let bytes = rows.to_bytes().expect("bytes");
        assert_eq!(FeatureRows::from_bytes(&bytes).as_ref(), Some(&rows));
        assert!(FeatureRows::from_bytes(&bytes[..bytes.len() - 1]).is_none());
        assert_eq!(
            rows.select(&[2, 0]),
            FeatureRows { values: vec![4.0, 5.0, 1.0, -0.5], labels: vec![7, 1] }
        );
    }
}
