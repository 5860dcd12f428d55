//! A fully connected layer.

use candle_core::{D, Device, Result, Tensor, bail};
use rayon::prelude::*;

use super::product::{Matrix, product};
use super::tape::note;
use super::{Element, has_kernel, with_element, with_values};

/// `x × weightᵀ + bias`: `x` `[batch, ..]`, `weight` `[features_out, ..]`, `bias` `[features_out]`, to
/// `[batch, features_out]`. What follows the first dimension is flattened, so that feature maps
/// `[batch, channels, height, width]` and 1 x 1 convolutions `[features_out, features_in, 1, 1]` need no reshape.
///
/// # Errors
/// When the shapes do not belong together.
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let batch = x.dim(0)?;
    let classes = weight.dim(0)?;
    let features = weight.elem_count() / classes.max(1);
    if x.elem_count() != batch * features || bias.dims() != [classes] || features == 0 {
        bail!("linear of {:?} got weights {:?} and biases {:?}", x.dims(), weight.dims(), bias.dims());
    }
    if !has_kernel(x) {
        let (x, weight) = (x.reshape((batch, features))?, weight.to_dtype(x.dtype())?);
        return x.matmul(&weight.transpose(D::Minus1, D::Minus2)?)?.broadcast_add(&bias.to_dtype(x.dtype())?);
    }
    let y = with_element!("linear", x.dtype(), T => {
        with_values::<T, _, 3>([x, weight, bias], |[x_values, weight, bias]| {
            let y = LinearKernel::forward(x_values, weight, bias, features);
            Tensor::from_vec(y, (batch, classes), &Device::Cpu)
        })
    })?;
    let (kept_x, kept_weight) = (x.clone(), weight.clone());
    note("linear", &y, [x, weight, bias], move |gradient, needs| {
        let (x, weight) = (&kept_x, &kept_weight);
        with_element!("linear", x.dtype(), T => {
            with_values::<T, _, 3>([x, weight, gradient], |[x_values, weight_values, gradient]| {
                let dx = needs[0].then(|| {
                    let dx = LinearKernel::backward_input(weight_values, gradient, classes);
                    Tensor::from_vec(dx, x.dims(), &Device::Cpu)
                });
                let dw = needs[1].then(|| {
                    let dw = LinearKernel::backward_weight(x_values, gradient, features, classes);
                    Tensor::from_vec(dw, weight.dims(), &Device::Cpu)
                });
                let db = needs[2].then(|| {
                    let mut db = vec![T::ZERO; classes];
                    for row in gradient.chunks_exact(classes) {
                        for (db, &gradient) in db.iter_mut().zip(row) {
                            *db += gradient;
                        }
                    }
                    Tensor::from_vec(db, classes, &Device::Cpu)
                });
                Ok([dx.transpose()?, dw.transpose()?, db.transpose()?])
            })
        })
    })?;
    Ok(y)
}

/// Rows of a result that one job computes: a function of nothing, so that no sum depends on the pool.
const ROWS: usize = 64;

struct LinearKernel;

impl LinearKernel {
    fn forward<T: Element>(x: &[T], weight: &[T], bias: &[T], features: usize) -> Vec<T> {
        let classes = bias.len();
        let mut y: Vec<T> = bias.iter().copied().cycle().take(x.len() / features * classes).collect();
        y.par_chunks_mut(ROWS * classes).zip(x.par_chunks(ROWS * features)).for_each(|(y, x)| {
            let rows = y.len() / classes;
            if classes <= ROWS {
                let sizes = (rows, features, classes);
                let weight = Matrix::transposed(weight, features);
                return product(sizes, Matrix::rows(x, features), weight, y, classes, true);
            }
            // The product copies what gives the columns of its result together: better the images than the many more weights.
            T::with_scratch(|transposed, _| {
                transposed.clear();
                transposed.resize(classes * rows, T::ZERO);
                let sizes = (classes, features, rows);
                let x = Matrix::transposed(x, features);
                product(sizes, Matrix::rows(weight, features), x, transposed, rows, false);
                for (row, y) in y.chunks_exact_mut(classes).enumerate() {
                    for (y, value) in y.iter_mut().zip(transposed[row..].iter().step_by(rows)) {
                        *y += *value;
                    }
                }
            });
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
        close(&linear(&inputs[0], &inputs[1], &inputs[2])?, &composed(&inputs)?, 1e-12)?;
        // Feature maps and a 1 x 1 convolution.
        let inputs = [normal(&[2, 3, 2, 2], "x"), normal(&[3, 12, 1, 1], "weight"), normal(&[3], "bias")];
        check(&inputs, &|inputs| linear(&inputs[0], &inputs[1], &inputs[2]))
    }
}
