//! The mean of every plane: what a classifier sees of the last feature maps.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor, WithDType};
use rayon::prelude::*;

use super::tape::apply1;
use super::{Element, values, with_element, with_values};

/// The mean over the pixels of `x` `[batch, channels, height, width]`, as `[batch, channels]`.
///
/// # Errors
/// When `x` has not four dimensions.
pub fn global_average_pool(x: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    if !x.device().is_cpu() {
        return x.reshape((batch, channels, height * width))?.mean(2);
    }
    apply1(&x.contiguous()?, GlobalAveragePool)
}

struct GlobalAveragePool;

fn spread<T: Element>(gradient: &[T], plane: usize) -> Vec<T> {
    let share = T::from_f64(1.0 / plane as f64);
    let mut dx = vec![T::ZERO; gradient.len() * plane];
    dx.par_chunks_mut(plane).zip(gradient).for_each(|(dx, &gradient)| dx.fill(gradient * share));
    dx
}

impl CustomOp1 for GlobalAveragePool {
    fn name(&self) -> &'static str {
        "global_average_pool"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, channels, height, width) = layout.shape().dims4()?;
        let plane = height * width;
        with_element!("global_average_pool", x.dtype(), T => {
            let y: Vec<T> = values::<T>(x, layout)?
                .par_chunks(plane)
                .map(|plane| T::from_f64(plane.iter().map(|value| value.to_f64()).sum::<f64>() / plane.len() as f64))
                .collect();
            Ok((WithDType::to_cpu_storage_owned(y), (batch, channels).into()))
        })
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (_, _, height, width) = x.dims4()?;
        with_element!("global_average_pool", x.dtype(), T => with_values::<T, _, 1>([gradient], |[gradient]| {
            Tensor::from_vec(spread(gradient, height * width), x.dims(), &Device::Cpu).map(Some)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{check, close, normal};
    use super::*;

    #[test]
    fn gradients_equal_finite_differences() -> Result<()> {
        check(&[normal(&[2, 3, 5, 7], "x")], &|inputs| global_average_pool(&inputs[0]))?;
        let composed = |inputs: &[Tensor]| inputs[0].reshape((2, 3, 35))?.mean(2);
        check(&[normal(&[2, 3, 5, 7], "x")], &composed)?;
        let x = normal(&[2, 3, 5, 7], "x");
        close(&global_average_pool(&x)?, &composed(&[x])?, 1e-12)
    }
}
