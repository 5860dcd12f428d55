//! Branches side by side: what an Inception block ends with.

use candle_core::{Device, Result, Tensor, bail};
use rayon::prelude::*;

use super::tape::note;
use super::{has_kernel, with_element, with_values, zeros};

/// The channels of `branches`, each `[batch, channels, height, width]` with channels of its own, one after the
/// other.
///
/// # Errors
/// When the other sizes differ.
pub fn concat<const N: usize>(branches: [&Tensor; N]) -> Result<Tensor> {
    let (batch, _, height, width) = branches[0].dims4()?;
    let mut channels = [0; N];
    for (channels, branch) in channels.iter_mut().zip(branches) {
        let (images, depth, rows, columns) = branch.dims4()?;
        if (images, rows, columns) != (batch, height, width) {
            bail!("{:?} and {:?} side by side: the sizes differ", branches[0].dims(), branch.dims());
        }
        *channels = depth;
    }
    if !has_kernel(branches[0]) {
        return Tensor::cat(&branches, 1);
    }
    let plane = height * width;
    let total: usize = channels.iter().sum();
    let y = with_element!("concat", branches[0].dtype(), T => with_values::<T, _, N>(branches, |values| {
        let mut y = zeros(batch * total * plane);
        y.par_chunks_mut((total * plane).max(1)).enumerate().for_each(|(image, y)| {
            let mut start = 0;
            for (values, channels) in values.iter().zip(channels) {
                let size = channels * plane;
                y[start..start + size].copy_from_slice(&values[image * size..(image + 1) * size]);
                start += size;
            }
        });
        Tensor::from_vec(y, (batch, total, height, width), &Device::Cpu)
    }))?;
    note("concat", &y, branches, move |gradient, needs| {
        with_element!("concat", gradient.dtype(), T => with_values::<T, _, 1>([gradient], |[gradient]| {
            let mut parts = [const { None }; N];
            let mut start = 0;
            for ((part, needed), channels) in parts.iter_mut().zip(needs).zip(channels) {
                let size = channels * plane;
                if needed {
                    let images = gradient.chunks_exact((total * plane).max(1));
                    let values: Vec<T> = images.flat_map(|image| &image[start..start + size]).copied().collect();
                    *part = Some(Tensor::from_vec(values, (batch, channels, height, width), &Device::Cpu)?);
                }
                start += size;
            }
            Ok(parts)
        }))
    })?;
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{check, close, normal};
    use super::*;

    #[test]
    fn gradients_equal_finite_differences() -> Result<()> {
        let inputs = [normal(&[2, 1, 2, 3], "a"), normal(&[2, 3, 2, 3], "b"), normal(&[2, 2, 2, 3], "c")];
        check(&inputs, &|inputs| concat([&inputs[0], &inputs[1], &inputs[2]]))?;
        close(&concat([&inputs[0], &inputs[1]])?, &Tensor::cat(&inputs[..2], 1)?, 0.0)?;
        assert!(concat([&inputs[0], &normal(&[2, 1, 3, 3], "d")]).is_err());
        Ok(())
    }
}
