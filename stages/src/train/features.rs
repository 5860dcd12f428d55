//! What a frozen prefix of a network makes of images, as a file that other programs open.

use candle_core::{Device, Tensor};

use super::checkpoint;
use super::trainer::{TrainError, compute};

/// The bytes of a safetensors file with the one tensor `features` `[rows, ..shape]`, which is its end.
///
/// # Errors
/// When `values` are not whole rows.
pub fn features_file(values: &[f32], shape: &[usize]) -> Result<Vec<u8>, TrainError> {
    let rows = values.len() / shape.iter().product::<usize>().max(1);
    Tensor::from_slice(values, [&[rows], shape].concat(), &Device::Cpu)
        .and_then(|features| checkpoint::encode_plain(&[("features".to_owned(), features)]))
        .map_err(compute("write features"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_a_tensor_and_ends_with_its_values() {
        let values = [1.0, -0.5, 2.0, 3.0, 4.0, 5.0];
        let bytes = features_file(&values, &[3, 1]).expect("two rows");
        let (_, tensors) = checkpoint::decode(&bytes).expect("a file");
        assert_eq!(tensors["features"].dims(), [2, 3, 1]);
        let end: Vec<u8> = values.iter().flat_map(|value: &f32| value.to_le_bytes()).collect();
        assert!(bytes.ends_with(&end));
        assert!(features_file(&values, &[4]).is_err());
        assert!(features_file(&[], &[4]).is_ok(), "a shard without a row");
    }
}
