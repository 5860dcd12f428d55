//! A fully connected layer.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Device, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

use super::product::{Matrix, product};
use super::tape::apply3;
use super::{Element, values, with_element, with_values};

/// `x × weightᵀ + bias`: `x` `[batch, features_in]`, `weight` `[features_out, features_in]`, `bias`
/// `[features_out]`, to `[batch, features_out]`.
///
/// # Errors
/// When the shapes do not belong together.
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return x.matmul(&weight.t()?)?.broadcast_add(bias);
    }
    apply3([&x.contiguous()?, &weight.contiguous()?, bias], Linear)
}

/// Rows of a result that one job computes: a function of nothing, so that no sum depends on the pool.
const ROWS: usize = 64;

struct Linear;

impl Linear {
    fn forward<T: Element>(x: &[T], weight: &[T], bias: &[T], features: usize) -> Vec<T> {
        let classes = bias.len();
        let mut y: Vec<T> = bias.iter().copied().cycle().take(x.len() / features * classes).collect();
        y.par_chunks_mut(ROWS * classes).zip(x.par_chunks(ROWS * features)).for_each(|(y, x)| {
            let sizes = (y.len() / classes, features, classes);
            product(sizes, Matrix::rows(x, features), Matrix::transposed(weight, features), y, classes, true);
        });
        y
    }

    fn backward_input<T: Element>(weight: &[T], gradient: &[T], classes: usize) -> Vec<T> {
        let features = weight.len() / classes;
        let mut dx = vec![T::ZERO; gradient.len() / classes * features];
        let jobs = dx.par_chunks_mut(ROWS * features).zip(gradient.par_chunks(ROWS * classes));
        jobs.for_each(|(dx, gradient)| {
            let sizes = (dx.len() / features, classes, features);
            product(
                sizes,
                Matrix::rows(gradient, classes),
                Matrix::rows(weight, features),
                dx,
                features,
                false,
            );
        });
        dx
    }

    fn backward_weight<T: Element>(x: &[T], gradient: &[T], features: usize, classes: usize) -> Vec<T> {
        let batch = x.len() / features;
        let mut dw = vec![T::ZERO; classes * features];
        dw.par_chunks_mut(ROWS * features).enumerate().for_each(|(index, dw)| {
            let gradient = Matrix::transposed(&gradient[index * ROWS..], classes);
            product(
                (dw.len() / features, batch, features),
                gradient,
                Matrix::rows(x, features),
                dw,
                features,
                false,
            );
        });
        dw
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let ((batch, features), (classes, depth)) =
            (x_layout.shape().dims2()?, weight_layout.shape().dims2()?);
        if depth != features || bias_layout.dims() != [classes] || features == 0 {
            bail!(
                "linear of {features} features got weights for {depth} and {:?} biases",
                bias_layout.dims()
            );
        }
        with_element!("linear", x.dtype(), T => {
            let (x, weight) = (values::<T>(x, x_layout)?, values(weight, weight_layout)?);
            let y = Linear::forward(x, weight, values(bias, bias_layout)?, features);
            Ok((WithDType::to_cpu_storage_owned(y), (batch, classes).into()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (classes, features) = weight.dims2()?;
        with_element!("linear", x.dtype(), T => {
            with_values::<T, _, 3>([x, weight, gradient], |[x_values, weight_values, gradient]| {
                let dx = x.track_op().then(|| {
                    let dx = Linear::backward_input(weight_values, gradient, classes);
                    Tensor::from_vec(dx, x.dims(), &Device::Cpu)
                });
                let dw = weight.track_op().then(|| {
                    let dw = Linear::backward_weight(x_values, gradient, features, classes);
                    Tensor::from_vec(dw, weight.dims(), &Device::Cpu)
                });
                let db = bias.track_op().then(|| {
                    let mut db = vec![T::ZERO; classes];
                    for row in gradient.chunks_exact(classes) {
                        for (db, &gradient) in db.iter_mut().zip(row) {
                            *db += gradient;
                        }
                    }
                    Tensor::from_vec(db, classes, &Device::Cpu)
                });
                Ok((dx.transpose()?, dw.transpose()?, db.transpose()?))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{check, close, normal};
    use super::*;

    #[test]
    fn gradients_equal_finite_differences() -> Result<()> {
        let inputs = [normal(&[5, 7], "x"), normal(&[3, 7], "weight"), normal(&[3], "bias")];
        check(&inputs, &|inputs| linear(&inputs[0], &inputs[1], &inputs[2]))?;
        // More classes and more rows than one job takes.
        let inputs = [normal(&[67, 2], "x"), normal(&[65, 2], "weight"), normal(&[65], "bias")];
        let composed = |inputs: &[Tensor]| inputs[0].matmul(&inputs[1].t()?)?.broadcast_add(&inputs[2]);
        check(&inputs, &|inputs| linear(&inputs[0], &inputs[1], &inputs[2]))?;
        close(&linear(&inputs[0], &inputs[1], &inputs[2])?, &composed(&inputs)?, 1e-12)
    }
}
