//! The end of a residual block: a sum of two tensors, and what follows it.

use candle_core::{Device, Result, Tensor, bail};
use rayon::prelude::*;

use super::activation::{self, Activation, scaled_by_slope};
use super::tape::note;
use super::{CHUNK, has_kernel, with_element, with_values, zeros};

/// `activation(a + b)` for two tensors of one shape.
///
/// # Errors
/// When the shapes differ.
pub fn add(a: &Tensor, b: &Tensor, activation: Activation) -> Result<Tensor> {
    if a.dims() != b.dims() {
        bail!("the sum of {:?} and {:?}: the shapes differ", a.dims(), b.dims());
    }
    if !has_kernel(a) {
        return activation::composed(&(a + b)?, activation);
    }
    let y = with_element!("a sum", a.dtype(), T => with_values::<T, _, 2>([a, b], |[a_values, b]| {
        let mut y = zeros(b.len());
        let jobs = y.par_chunks_mut(CHUNK).zip(a_values.par_chunks(CHUNK)).zip(b.par_chunks(CHUNK));
        jobs.for_each(|((y, a), b)| {
            for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
                *y = activation.value(a + b);
            }
        });
        Tensor::from_vec(y, a.dims(), &Device::Cpu)
    }))?;
    // Of the rectifiers the output tells the slope, so that neither argument is kept for the backward pass.
    let kept = match activation {
        Activation::Identity | Activation::Relu | Activation::Relu6 => y.clone(),
        _ => add(&a.detach(), &b.detach(), Activation::Identity)?,
    };
    note("add", &y, [a, b], move |gradient, needs| {
        let gradient = scaled_by_slope(&kept, gradient, activation)?;
        Ok(needs.map(|needed| needed.then(|| gradient.clone())))
    })?;
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{check, close, normal};
    use super::*;

    #[test]
    fn gradients_equal_finite_differences() -> Result<()> {
        for activation in Activation::ALL {
            let inputs = [normal(&[2, 3, 5], "a"), normal(&[2, 3, 5], "b")];
            check(&inputs, &|inputs| add(&inputs[0], &inputs[1], activation))?;
            // One tensor twice: both gradients arrive.
            check(&[normal(&[5], "a")], &|inputs| add(&inputs[0], &inputs[0], activation))?;
        }
        Ok(())
    }

    #[test]
    fn the_kernel_equals_the_composition_of_other_devices() -> Result<()> {
        let (a, b) = (normal(&[4, 5], "a"), normal(&[4, 5], "b"));
        close(&add(&a, &b, Activation::Relu)?, &activation::composed(&(&a + &b)?, Activation::Relu)?, 0.0)?;
        assert!(add(&a, &normal(&[5, 4], "b"), Activation::Relu).is_err());
        Ok(())
    }
}
