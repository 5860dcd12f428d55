//! The one kind of file that this crate writes: safetensors, the same bytes for the same state.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Result, Tensor, bail};
use forebay_datasets::escape::one_line;
use forebay_stages::chain::Chain;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::error::{TrainError, unreadable};
use crate::models::Head;
use crate::optim::OptimizerKind;

/// The one metadata key of a file. Several would be written in random order, and equal states would then be
/// unequal files.
const KEY: &str = "forebay";

/// The key of [`FileDescription::metadata`] that holds the temperature of the logits.
pub const TEMPERATURE: &str = "temperature";

/// The key of [`FileDescription::metadata`] that holds the training images of each class, as a JSON list.
pub const CLASS_COUNTS: &str = "class_counts";

/// The key of [`FileDescription::metadata`] that holds the shares of the classes that the logits stand for, as a JSON list.
pub const LOGIT_PRIOR: &str = "logit_prior";

/// The prefix of optimiser state among the tensors.
pub(super) const OPTIMIZER: &str = "optimizer.";

/// The prefix of the moving average among the tensors of a checkpoint.
pub(super) const AVERAGE: &str = "average.";

/// The tensor of a checkpoint that holds the scale of the loss.
pub(super) const LOSS_SCALE: &str = "loss_scale";

/// The key of [`FileDescription::metadata`] that holds the chain of the images, as JSON.
pub(super) const CHAIN: &str = "chain";

/// What a file of weights or a checkpoint says about itself, as JSON under one key of its safetensors header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileDescription {
    /// The name of the network.
    pub model: String,
    /// The class of each logit.
    pub classes: Vec<String>,
    /// What ends the network.
    pub head: Head,
    /// Steps done when it was written.
    pub step: u64,
    /// The optimiser of a checkpoint, whose state it holds; `None` for weights alone, from which no run can resume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<OptimizerKind>,
    /// What was kept with it.
    pub metadata: BTreeMap<String, String>,
}

impl FileDescription {
    /// Reads what a file says about itself; `None` for a file that no trainer wrote. No tensor is read.
    ///
    /// # Errors
    /// When the bytes are no safetensors file.
    pub fn read(bytes: &[u8]) -> std::result::Result<Option<FileDescription>, TrainError> {
        header(bytes).map_err(unreadable("weights"))
    }

    /// What the logits are divided by so that probabilities are calibrated, above 0; `None` in a file of which it was not
    /// found out.
    pub fn temperature(&self) -> Option<f64> {
        let temperature = self.metadata.get(TEMPERATURE)?.parse().ok();
        temperature.filter(|temperature: &f64| temperature.is_finite() && *temperature > 0.0)
    }

    /// How many training images of each class the network learned from, copies counted, in the order of `classes`; `None`
    /// in a file that does not say.
    pub fn class_counts(&self) -> Option<Vec<f64>> {
        let counts: Vec<f64> = serde_json::from_str(self.metadata.get(CLASS_COUNTS)?).ok()?;
        (counts.len() == self.classes.len()).then_some(counts)
    }

    /// The shares of the classes, with the sum 1 and in the order of `classes`, that the logits stand for: their softmax is
    /// right where images come in these shares. Those of the training images, unless the loss corrected for them; `None` in a
    /// file that does not say.
    pub fn logit_prior(&self) -> Option<Vec<f64>> {
        let prior: Option<Vec<f64>> =
            self.metadata.get(LOGIT_PRIOR).and_then(|json| serde_json::from_str(json).ok());
        let shares =
            prior.filter(|prior| prior.len() == self.classes.len()).or_else(|| self.class_counts())?;
        let sum: f64 = shares.iter().sum();
        (sum > 0.0).then(|| shares.into_iter().map(|share| share / sum).collect())
    }

    /// A file of weights that says this of itself instead of what it said: its tensors stay as they are.
    ///
    /// # Errors
    /// When the bytes are no safetensors file.
    pub fn describe(&self, file: &[u8]) -> std::result::Result<Vec<u8>, TrainError> {
        let unreadable = unreadable("weights");
        let (length, _) = match SafeTensors::read_metadata(file) {
            Ok(found) => found,
            Err(error) => return Err(unreadable(candle_core::Error::wrap(error))),
        };
        let json = |error: serde_json::Error| candle_core::Error::wrap(error);
        let edited = || -> Result<Vec<u8>> {
            let mut header: serde_json::Map<String, serde_json::Value> =
                serde_json::from_slice(&file[8..8 + length]).map_err(json)?;
            let own = serde_json::to_string(self).map_err(json)?;
            let metadata = header.entry("__metadata__").or_insert_with(|| serde_json::json!({}));
            metadata[KEY] = own.into();
            let mut header = serde_json::to_vec(&header).map_err(json)?;
            // The data stays aligned.
            header.resize(header.len().next_multiple_of(8), b' ');
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend(header);
            bytes.extend(&file[8 + length..]);
            Ok(bytes)
        };
        edited().map_err(unreadable)
    }

    /// From the original file of an image to the tensor, as the network was trained; `None` in a file that does not say.
    ///
    /// # Errors
    /// In a line, when it says what this version does not understand.
    pub fn chain(&self) -> std::result::Result<Option<Chain>, String> {
        let chain = self.metadata.get(CHAIN).map(|json| serde_json::from_str(json));
        chain.transpose().map_err(|error| one_line(&error.to_string()).into_owned())
    }
}

/// The bytes of a file with these tensors.
pub(super) fn encode(header: &FileDescription, tensors: &[(String, Tensor)]) -> Result<Vec<u8>> {
    let json = serde_json::to_string(header).map_err(candle_core::Error::wrap)?;
    serialize(tensors, Some(HashMap::from([(KEY.to_owned(), json)])))
}

/// The same without a word about itself, for other programs.
pub(super) fn encode_plain(tensors: &[(String, Tensor)]) -> Result<Vec<u8>> {
    serialize(tensors, None)
}

fn serialize(tensors: &[(String, Tensor)], metadata: Option<HashMap<String, String>>) -> Result<Vec<u8>> {
    let mut blocks = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let (dtype, bytes): (_, Vec<u8>) = match tensor.dtype() {
            DType::F32 => {
                let values = tensor.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
                (Dtype::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
            DType::I64 => {
                let values = tensor.flatten_all()?.to_vec1::<i64>()?;
                (Dtype::I64, values.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
            DType::U32 => {
                let values = tensor.flatten_all()?.to_vec1::<u32>()?;
                (Dtype::U32, values.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
            other => bail!("cannot write `{name}` of {other:?}"),
        };
        blocks.push((name.as_str(), tensor.dims().to_vec(), dtype, bytes));
    }
    let views = blocks.iter().map(|(name, shape, dtype, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes).expect("as many bytes as values");
        (*name, view)
    });
    safetensors::serialize(views, metadata).map_err(candle_core::Error::wrap)
}

/// The tensors of a file by name, floating-point ones as f32 on the CPU, others as they are.
pub(super) fn decode(bytes: &[u8]) -> Result<(Option<FileDescription>, BTreeMap<String, Tensor>)> {
    let header = header(bytes)?;
    let mut tensors = BTreeMap::new();
    for (name, tensor) in candle_core::safetensors::load_buffer(bytes, &Device::Cpu)? {
        let tensor = if tensor.dtype().is_float() { tensor.to_dtype(DType::F32)? } else { tensor };
        tensors.insert(name, tensor);
    }
    Ok((header, tensors))
}

/// What a file says about itself; `None` when another program wrote it.
pub(super) fn header(bytes: &[u8]) -> Result<Option<FileDescription>> {
    let (_, description) = SafeTensors::read_metadata(bytes).map_err(candle_core::Error::wrap)?;
    match description.metadata().as_ref().and_then(|metadata| metadata.get(KEY)) {
        Some(json) => serde_json::from_str(json).map(Some).map_err(candle_core::Error::wrap),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_what_was_put_in_and_equal_states_are_equal_files() -> Result<()> {
        let header = FileDescription {
            model: "small".into(),
            classes: vec!["a".into(), "b".into()],
            head: Head { width: Some(8), ..Head::linear(2) },
            step: 7,
            optimizer: Some(OptimizerKind::Sgd { momentum: 0.9, nesterov: true }),
            metadata: (0..20).map(|key| (format!("key {key}"), "value".into())).collect(),
        };
        let tensors = [
            ("fc.bias".to_owned(), Tensor::new(&[1f32, -0.0, f32::MIN_POSITIVE], &Device::Cpu)?),
            ("a".to_owned(), Tensor::new(&[[2f32], [3.0]], &Device::Cpu)?),
        ];
        let bytes = encode(&header, &tensors)?;
        assert_eq!(bytes, encode(&header.clone(), &tensors)?);
        let (read, read_tensors) = decode(&bytes)?;
        assert_eq!(read.as_ref(), Some(&header));
        assert_eq!(read_tensors["a"].to_vec2::<f32>()?, [[2.0], [3.0]]);
        let bits: Vec<u32> = read_tensors["fc.bias"].to_vec1::<f32>()?.iter().map(|v| v.to_bits()).collect();
        assert_eq!(bits, [1f32, -0.0, f32::MIN_POSITIVE].map(f32::to_bits));
        assert!(decode(&bytes[..bytes.len() - 1]).is_err());
        Ok(())
    }
}
