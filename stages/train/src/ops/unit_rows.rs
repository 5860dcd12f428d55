//! Rows made as long as each other: what a head of cosines takes.

use candle_core::{D, Device, Result, Tensor};

use super::tape::note;
use super::{Element, has_kernel, with_element, with_values};

/// What a norm is at least, as in PyTorch's `normalize`: a row of zeros stays one.
const NORM_MIN: f64 = 1e-12;

/// Each row of `x` `[rows, ..]`, what follows the first dimension flattened, divided by its Euclidean norm and multiplied by
/// `length`; the shape stays.
///
/// # Errors
/// For other element types than f32 and f64.
pub fn unit_rows(x: &Tensor, length: f64) -> Result<Tensor> {
    let rows = x.dim(0)?;
    if !has_kernel(x) {
        let flat = x.reshape((rows, ()))?;
        let norms = flat.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.clamp(NORM_MIN, f64::INFINITY)?;
        return (flat.broadcast_div(&norms)? * length)?.reshape(x.dims());
    }
    let width = (x.elem_count() / rows.max(1)).max(1);
    let y = with_element!("unit rows", x.dtype(), T => with_values::<T, _, 1>([x], |[values]| {
        Tensor::from_vec(scaled(values, width, length), x.dims(), &Device::Cpu)
    }))?;
    let argument = x.clone();
    note("unit rows", &y, [x], move |gradient, _| {
        let x = &argument;
        with_element!("unit rows", x.dtype(), T => with_values::<T, _, 2>([x, gradient], |[values, gradient]| {
            let dx = before_scaling(values, gradient, width, length);
            Ok([Some(Tensor::from_vec(dx, x.dims(), &Device::Cpu)?)])
        }))
    })?;
    Ok(y)
}

fn scaled<T: Element>(values: &[T], width: usize, length: f64) -> Vec<T> {
    let mut y = Vec::with_capacity(values.len());
    for row in values.chunks_exact(width) {
        let scale = T::from_f64(length / norm(row));
        y.extend(row.iter().map(|&value| value * scale));
    }
    y
}

/// The gradient by the rows: with `u = x / |x|`, the derivative of `length · u` is `length / |x| · (1 - u uᵀ)`.
fn before_scaling<T: Element>(values: &[T], gradient: &[T], width: usize, length: f64) -> Vec<T> {
    let mut dx = Vec::with_capacity(values.len());
    for (row, gradient) in values.chunks_exact(width).zip(gradient.chunks_exact(width)) {
        let norm = norm(row);
        let dot: f64 = row.iter().zip(gradient).map(|(x, g)| x.to_f64() * g.to_f64()).sum();
        let (scale, along) = (length / norm, dot / (norm * norm));
        dx.extend(
            row.iter().zip(gradient).map(|(x, g)| T::from_f64(scale * (g.to_f64() - x.to_f64() * along))),
        );
    }
    dx
}

fn norm<T: Element>(row: &[T]) -> f64 {
    let squares: f64 = row.iter().map(|value| value.to_f64() * value.to_f64()).sum();
    squares.sqrt().max(NORM_MIN)
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{check, close, normal};
    use super::*;

    #[test]
    fn gradients_equal_finite_differences() -> Result<()> {
        for shape in [&[4, 5][..], &[2, 3, 2, 2], &[1, 1]] {
            check(&[(normal(shape, "x") + 0.3)?], &|inputs| unit_rows(&inputs[0], 3.0))?;
        }
        Ok(())
    }

    #[test]
    fn rows_are_those_of_pytorch_and_of_other_devices() -> Result<()> {
        // 5 * torch.nn.functional.normalize
        let x = Tensor::new(&[[3f64, 4.0], [0.0, 0.0], [-1.0, 0.0]], &Device::Cpu)?;
        let expected = Tensor::new(&[[3f64, 4.0], [0.0, 0.0], [-5.0, 0.0]], &Device::Cpu)?;
        close(&unit_rows(&x, 5.0)?, &expected, 1e-12)?;
        let half = normal(&[3, 8], "x").to_dtype(candle_core::DType::BF16)?;
        let single = half.to_dtype(candle_core::DType::F32)?;
        close(&unit_rows(&half, 1.0)?, &unit_rows(&single, 1.0)?, 1e-2)
    }
}
