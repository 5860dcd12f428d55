//! The shortcut without parameters of residual networks: option A of He et al. (arXiv 1512.03385, section 3.3).

use candle_core::{Device, Result, Tensor, bail};
use rayon::prelude::*;

use super::tape::note;
use super::{has_kernel, with_element, with_values, zeros};

/// Every `stride`-th pixel of `x` `[batch, channels, height, width]` in both directions, between channels of zeros:
/// `[batch, channels_out, ceil(height / stride), ceil(width / stride)]`. Half of the new channels, rounded down, come
/// before those of `x` and the others after, as in the public weights of these networks.
///
/// # Errors
/// When `channels_out` is less than the channels of `x`, or `stride` is 0.
pub fn zero_padded_shortcut(x: &Tensor, stride: usize, channels_out: usize) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let Some(added) = channels_out.checked_sub(channels).filter(|_| stride > 0) else {
        bail!("a shortcut of stride {stride} from {channels} to {channels_out} channels");
    };
    let before = added / 2;
    let (rows, columns) = (height.div_ceil(stride), width.div_ceil(stride));
    if !has_kernel(x) {
        let every = |side: usize| Tensor::arange_step(0u32, side as u32, stride as u32, x.device());
        let y = x.index_select(&every(height)?, 2)?.index_select(&every(width)?, 3)?;
        return y.pad_with_zeros(1, before, added - before);
    }
    // The places of an image's values, in x and in y.
    let places = move || {
        (0..channels).flat_map(move |channel| {
            (0..rows).flat_map(move |row| {
                (0..columns).map(move |column| {
                    let there = (channel * height + row * stride) * width + column * stride;
                    (there, ((before + channel) * rows + row) * columns + column)
                })
            })
        })
    };
    let (size_in, size_out) = (channels * height * width, channels_out * rows * columns);
    let y = with_element!("a shortcut", x.dtype(), T => with_values::<T, _, 1>([x], |[x]| {
        let mut y = zeros(batch * size_out);
        let images = y.par_chunks_mut(size_out.max(1)).zip(x.par_chunks(size_in.max(1)));
        images.for_each(|(y, x)| places().for_each(|(there, here)| y[here] = x[there]));
        Tensor::from_vec(y, (batch, channels_out, rows, columns), &Device::Cpu)
    }))?;
    note("zero_padded_shortcut", &y, [x], move |gradient, _| {
        with_element!("a shortcut", gradient.dtype(), T => with_values::<T, _, 1>([gradient], |[gradient]| {
            let mut slope = zeros(batch * size_in);
            let images = slope.par_chunks_mut(size_in.max(1)).zip(gradient.par_chunks(size_out.max(1)));
            images.for_each(|(slope, gradient)| {
                places().for_each(|(there, here)| slope[there] = gradient[here]);
            });
            Ok([Some(Tensor::from_vec(slope, (batch, channels, height, width), &Device::Cpu)?)])
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
        for (stride, channels) in [(2, 4), (1, 5), (3, 2)] {
            check(&[normal(&[2, 2, 5, 4], "x")], &|inputs| {
                zero_padded_shortcut(&inputs[0], stride, channels)
            })?;
        }
        Ok(())
    }

    #[test]
    fn every_second_pixel_stands_between_channels_of_zeros() -> Result<()> {
        let x = normal(&[3, 2, 5, 7], "x");
        let y = zero_padded_shortcut(&x, 2, 5)?;
        assert_eq!(y.dims(), [3, 5, 3, 4]);
        let every = |side: u32| Tensor::arange_step(0u32, side, 2, &Device::Cpu);
        let kept = x.index_select(&every(5)?, 2)?.index_select(&every(7)?, 3)?;
        close(&y, &kept.pad_with_zeros(1, 1, 2)?, 0.0)?;
        assert!(zero_padded_shortcut(&x, 2, 1).is_err() && zero_padded_shortcut(&x, 0, 4).is_err());
        Ok(())
    }
}
