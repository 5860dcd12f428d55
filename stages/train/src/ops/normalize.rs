//! Pixels of 0 to 255 become what a network was trained on: one affine map per channel, on the device.

use candle_core::{DType, Device, Result, Tensor};
use forebay_stages::normalize::Normalize;
use rayon::prelude::*;

/// Uploads u8 planes `[batch, 3, side, side]` as bytes and maps them to f32: `(pixel / 255 - mean) / std`.
///
/// # Errors
/// When `images` does not hold `batch` images of that size.
pub fn normalize(
    images: &[u8],
    (batch, side): (usize, usize),
    normalize: &Normalize,
    device: &Device,
) -> Result<Tensor> {
    let shape = (batch, 3, side, side);
    let (scale, shift) = normalize.scale_shift();
    if device.is_cpu() && side > 0 {
        let mut planes = vec![0f32; images.len()];
        let plane = side * side;
        planes.par_chunks_mut(plane).zip(images.par_chunks(plane)).enumerate().for_each(
            |(index, (target, source))| {
                let (scale, shift) = (scale[index % 3], shift[index % 3]);
                for (target, &pixel) in target.iter_mut().zip(source) {
                    *target = f32::from(pixel) * scale + shift;
                }
            },
        );
        return Tensor::from_vec(planes, shape, device);
    }
    let channel = |values: [f32; 3]| Tensor::new(&values, device)?.reshape((1, 3, 1, 1));
    Tensor::from_slice(images, shape, device)?
        .to_dtype(DType::F32)?
        .broadcast_mul(&channel(scale)?)?
        .broadcast_add(&channel(shift)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn black_and_white_become_the_ends_of_the_range() -> Result<()> {
        let images = [0, 255, 0, 255, 51, 0];
        let map = Normalize { mean: [0.5, 0.25, 0.0], std: [0.5, 0.5, 2.0] };
        let x = normalize(&images, (2, 1), &map, &Device::Cpu)?;
        let x = x.flatten_all()?.to_vec1::<f32>()?;
        for (value, expected) in x.iter().zip([-1.0, 1.5, 0.0, 1.0, -0.1, 0.0]) {
            assert!((value - expected).abs() < 1e-6, "{x:?}");
        }
        assert!(normalize(&images[1..], (2, 1), &Normalize::UNIT, &Device::Cpu).is_err());
        Ok(())
    }
}
