//! Dropout: values are set to zero at random during training (Srivastava et al., JMLR 15, 2014).

use candle_core::{Device, Result, Tensor, bail};
use forebay_datasets::seed::Stream;

use super::tape::note;
use super::{has_kernel, with_element, with_values};

/// Sets each value of `x`, of any shape, to zero with `probability` in `[0, 1)`, and scales the others by
/// `1 / (1 - probability)`, so that the expected value stays. Which ones is a function of `stream` alone.
///
/// # Errors
/// When the probability is out of range.
pub fn dropout(x: &Tensor, probability: f64, stream: &mut Stream) -> Result<Tensor> {
    if !(0.0..1.0).contains(&probability) {
        bail!("dropout with probability {probability}: expected from 0 to below 1");
    }
    let kept = 1.0 / (1.0 - probability);
    let mask: Vec<f32> =
        (0..x.elem_count()).map(|_| if stream.chance(probability) { 0.0 } else { kept as f32 }).collect();
    let mask = Tensor::from_vec(mask, x.dims(), x.device())?.to_dtype(x.dtype())?;
    if !has_kernel(x) {
        return x * mask;
    }
    let y = product_of(x, &mask)?;
    note("dropout", &y, [x], move |gradient, _| Ok([Some(product_of(gradient, &mask)?)]))?;
    Ok(y)
}

fn product_of(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    with_element!("dropout", left.dtype(), T => with_values::<T, _, 2>([left, right], |[left_values, right]| {
        let product: Vec<T> = left_values.iter().zip(right).map(|(&left, &right)| left * right).collect();
        Tensor::from_vec(product, left.dims(), &Device::Cpu)
    }))
}

#[cfg(test)]
mod tests {
    use forebay_datasets::seed::Seed;

    use super::super::gradient_check::{check, close, normal};
    use super::*;

    #[test]
    fn gradients_equal_finite_differences() -> Result<()> {
        check(&[normal(&[4, 9], "x")], &|inputs| dropout(&inputs[0], 0.4, &mut Seed(3).stream("mask")))
    }

    #[test]
    fn the_same_stream_drops_the_same_values_and_the_mean_stays() -> Result<()> {
        let x = (normal(&[100, 100], "x") * 0.0)?.affine(1.0, 1.0)?;
        let once = dropout(&x, 0.25, &mut Seed(3).stream("mask"))?;
        close(&once, &dropout(&x, 0.25, &mut Seed(3).stream("mask"))?, 0.0)?;
        let values = once.flatten_all()?.to_vec1::<f64>()?;
        let dropped = values.iter().filter(|&&value| value == 0.0).count();
        // Five standard deviations of a binomial of 10,000 draws.
        assert!(dropped.abs_diff(2500) < 217, "{dropped}");
        assert!(values.iter().all(|&value| value == 0.0 || (value - 4.0 / 3.0).abs() < 1e-6));
        assert!(dropout(&x, 1.0, &mut Seed(3).stream("mask")).is_err());
        Ok(())
    }
}
