//! The rectifier, alone and after a residual sum, with PyTorch's gradient at 0, which is 0 (candle's is 1).

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Device, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::tape::{apply1, apply2};
use super::{Element, values, with_element, with_values};

/// `max(x, 0)` for every value of a tensor of any shape; NaN stays NaN.
///
/// # Errors
/// For other element types than f32 and f64.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return composed(x);
    }
    apply1(&x.contiguous()?, Relu)
}

/// `max(a + b, 0)` for two tensors of one shape: the end of a residual block.
///
/// # Errors
/// When the shapes differ.
pub fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if !a.device().is_cpu() {
        return composed(&(a + b)?);
    }
    apply2(&a.contiguous()?, &b.contiguous()?, AddRelu)
}

/// The same from candle operations, for other devices than the CPU.
fn composed(x: &Tensor) -> Result<Tensor> {
    x.detach().le(0.0)?.where_cond(&x.zeros_like()?, x)
}

/// Values per job: enough to pay for handing it out.
const CHUNK: usize = 16 * 1024;

// Written so that NaN stays NaN.
fn rectify<T: Element>(value: T) -> T {
    if value <= T::ZERO { T::ZERO } else { value }
}

/// The gradient where the output is positive.
fn masked(y: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    with_element!("relu", y.dtype(), T => with_values::<T, _, 2>([y, gradient], |[y_values, gradient]| {
        let mut masked = vec![T::ZERO; gradient.len()];
        masked
            .par_chunks_mut(CHUNK)
            .zip(y_values.par_chunks(CHUNK))
            .zip(gradient.par_chunks(CHUNK))
            .for_each(|((masked, y), gradient)| {
                for ((masked, &y), &gradient) in masked.iter_mut().zip(y).zip(gradient) {
                    *masked = if y <= T::ZERO { T::ZERO } else { gradient };
                }
            });
        Tensor::from_vec(masked, y.dims(), &Device::Cpu)
    }))
}

struct Relu;

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        with_element!("relu", x.dtype(), T => {
            let x = values::<T>(x, layout)?;
            let mut y = vec![T::ZERO; x.len()];
            y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = rectify(x);
                }
            });
            Ok((candle_core::WithDType::to_cpu_storage_owned(y), layout.shape().clone()))
        })
    }

    fn bwd(&self, _x: &Tensor, y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        masked(y, gradient).map(Some)
    }
}

struct AddRelu;

impl CustomOp2 for AddRelu {
    fn name(&self) -> &'static str {
        "add_relu"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        if a_layout.shape() != b_layout.shape() {
            bail!("add_relu of {:?} and {:?}: the shapes differ", a_layout.shape(), b_layout.shape());
        }
        with_element!("add_relu", a.dtype(), T => {
            let (a, b) = (values::<T>(a, a_layout)?, values::<T>(b, b_layout)?);
            let mut y = vec![T::ZERO; a.len()];
            let jobs = y.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK)).zip(b.par_chunks(CHUNK));
            jobs.for_each(|((y, a), b)| {
                for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
                    *y = rectify(a + b);
                }
            });
            Ok((candle_core::WithDType::to_cpu_storage_owned(y), a_layout.shape().clone()))
        })
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let masked = masked(y, gradient)?;
        Ok((a.track_op().then(|| masked.clone()), b.track_op().then_some(masked)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{check, close, gradients, normal};
    use super::*;

    #[test]
    fn gradients_equal_finite_differences() -> Result<()> {
        check(&[normal(&[3, 7], "x")], &|inputs| relu(&inputs[0]))?;
        check(&[normal(&[3, 7], "x")], &|inputs| composed(&inputs[0]))?;
        let inputs = [normal(&[2, 3, 5], "a"), normal(&[2, 3, 5], "b")];
        check(&inputs, &|inputs| add_relu(&inputs[0], &inputs[1]))?;
        // One tensor twice: both gradients arrive.
        check(&[normal(&[5], "a")], &|inputs| add_relu(&inputs[0], &inputs[0]))
    }

    #[test]
    fn the_gradient_at_zero_is_zero() -> Result<()> {
        let x = Tensor::new(&[-1f64, 0.0, -0.0, 2.0], &Device::Cpu)?;
        for function in [relu, composed] {
            let gradient = gradients(std::slice::from_ref(&x), &|inputs| function(&inputs[0]))?.remove(0);
            let gradient = gradient.to_vec1::<f64>()?;
            assert_eq!(&gradient[..3], [0.0, 0.0, 0.0]);
            assert_ne!(gradient[3], 0.0);
        }
        Ok(())
    }

    #[test]
    fn not_a_number_stays_visible() -> Result<()> {
        let x = Tensor::new(&[f32::NAN, -1.0], &Device::Cpu)?;
        for y in [relu(&x)?, composed(&x)?, add_relu(&x, &x)?] {
            let y = y.to_vec1::<f32>()?;
            assert!(y[0].is_nan() && y[1] == 0.0);
        }
        Ok(())
    }

    #[test]
    fn the_kernel_equals_the_composition_of_other_devices() -> Result<()> {
        let x = normal(&[4, 5], "x");
        close(&relu(&x)?, &composed(&x)?, 0.0)
    }
}
