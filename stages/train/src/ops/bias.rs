//! The bias of a convolution, with the activation after it folded in.

use candle_core::{Device, Result, Tensor, WithDType, bail};
use rayon::prelude::*;

use super::activation::{self, Activation, scaled_by_slope, with_activation};
use super::tape::note;
use super::{Element, has_kernel, with_element, with_values, zeros};

/// `activation(x + bias)` with one number per channel: `x` `[batch, channels, height, width]`, `bias`
/// `[channels]`. The activation is one whose slope its output tells: identity or a rectifier.
///
/// # Errors
/// When the shapes do not belong together, or for another activation.
pub fn add_bias(x: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let (_, channels, height, width) = x.dims4()?;
    if bias.dims() != [channels] {
        bail!("{channels} channels got {:?} biases", bias.dims());
    }
    if !matches!(activation, Activation::Identity | Activation::Relu | Activation::Relu6) {
        bail!("a bias followed by {activation:?}: use a separate activation");
    }
    if !has_kernel(x) {
        let bias = bias.to_dtype(x.dtype())?.reshape((1, channels, 1, 1))?;
        return activation::composed(&x.broadcast_add(&bias)?, activation);
    }
    let plane = height * width;
    let y = with_element!("a bias", x.dtype(), T => with_values::<T, _, 2>([x, bias], |[x_values, bias]| {
        let mut y = zeros(x_values.len());
        let jobs = y.par_chunks_mut(plane).zip(x_values.par_chunks(plane)).enumerate();
        jobs.for_each(|(index, (y, x))| {
            let bias = bias[index % channels];
            with_activation!(activation, value, T, value => T::vectorized(|| {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = value(x + bias);
                }
            }); Identity | Relu | Relu6, else unreachable!("refused above"));
        });
        Tensor::from_vec(y, x.dims(), &Device::Cpu)
    }))?;
    let kept = y.clone();
    note("add_bias", &y, [x, bias], move |gradient, needs| {
        let gradient = scaled_by_slope(&kept, gradient, activation)?;
        let db = needs[1].then(|| {
            with_element!("a bias", gradient.dtype(), T => with_values::<T, _, 1>([&gradient], |[gradient]| {
                let db: Vec<T> = (0..channels)
                    .into_par_iter()
                    .map(|channel| {
                        let planes = gradient.chunks_exact(plane).skip(channel).step_by(channels);
                        let mut sum = [0.0];
                        planes.for_each(|plane| super::batch_norm::add_sums([plane], &mut sum, |[x]| [x]));
                        T::from_f64(sum[0])
                    })
                    .collect();
                Tensor::from_vec(db, channels, &Device::Cpu)
            }))
        });
        Ok([needs[0].then(|| gradient.clone()), db.transpose()?])
    })?;
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{check, normal};
    use super::*;

    #[test]
    fn gradients_equal_finite_differences() -> Result<()> {
        for activation in [Activation::Identity, Activation::Relu, Activation::Relu6] {
            let inputs = [normal(&[2, 3, 3, 5], "x"), normal(&[3], "bias")];
            check(&inputs, &|inputs| add_bias(&inputs[0], &inputs[1], activation))?;
        }
        assert!(add_bias(&normal(&[1, 2, 1, 1], "x"), &normal(&[2], "bias"), Activation::Gelu).is_err());
        assert!(add_bias(&normal(&[1, 2, 1, 1], "x"), &normal(&[3], "bias"), Activation::Relu).is_err());
        Ok(())
    }
}
