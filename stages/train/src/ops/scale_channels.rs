//! Channels weighted per image: the end of a squeeze-and-excitation block (arXiv 1709.01507).

use candle_core::{Device, Result, Tensor, WithDType, bail};
use rayon::prelude::*;

use super::tape::note;
use super::{has_kernel, with_element, with_values, zeros};

/// `x` `[batch, channels, height, width]` times `scale` `[batch, channels]`, one number per plane.
///
/// # Errors
/// When the shapes do not belong together.
pub fn scale_channels(x: &Tensor, scale: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    if scale.dims() != [batch, channels] {
        bail!("planes of {:?} got scales {:?}", x.dims(), scale.dims());
    }
    if !has_kernel(x) {
        return x.broadcast_mul(&scale.reshape((batch, channels, 1, 1))?);
    }
    let plane = height * width;
    let y = scaled(x, scale, plane)?;
    let (kept_x, kept_scale) = (x.clone(), scale.clone());
    note("scale_channels", &y, [x, scale], move |gradient, needs| {
        let dx = needs[0].then(|| scaled(gradient, &kept_scale, plane));
        let of_scale = || {
            with_element!("a scale", gradient.dtype(), T => with_values::<T, _, 2>([&kept_x, gradient], |[x, gradient]| {
                let sums: Vec<T> = (x.par_chunks(plane).zip(gradient.par_chunks(plane)))
                    .map(|(x, gradient)| {
                        let mut sum = [0.0];
                        super::batch_norm::add_sums([x, gradient], &mut sum, |[x, gradient]| [x * gradient]);
                        T::from_f64(sum[0])
                    })
                    .collect();
                Tensor::from_vec(sums, (batch, channels), &Device::Cpu)
            }))
        };
        let dscale = needs[1].then(of_scale);
        Ok([dx.transpose()?, dscale.transpose()?])
    })?;
    Ok(y)
}

fn scaled(x: &Tensor, scale: &Tensor, plane: usize) -> Result<Tensor> {
    with_element!("a scale", x.dtype(), T => with_values::<T, _, 2>([x, scale], |[x_values, scale]| {
        let mut y = zeros(x_values.len());
        y.par_chunks_mut(plane).zip(x_values.par_chunks(plane)).zip(scale).for_each(|((y, x), &scale)| {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = x * scale;
            }
        });
        Tensor::from_vec(y, x.dims(), &Device::Cpu)
    }))
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{check, close, normal};
    use super::*;

    #[test]
    fn gradients_equal_finite_differences() -> Result<()> {
        let inputs = [normal(&[2, 3, 3, 5], "x"), normal(&[2, 3], "scale")];
        check(&inputs, &|inputs| scale_channels(&inputs[0], &inputs[1]))?;
        let composed = inputs[0].broadcast_mul(&inputs[1].reshape((2, 3, 1, 1))?)?;
        close(&scale_channels(&inputs[0], &inputs[1])?, &composed, 0.0)?;
        assert!(scale_channels(&inputs[0], &normal(&[3, 2], "scale")).is_err());
        Ok(())
    }
}
