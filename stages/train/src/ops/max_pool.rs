//! Max-pooling with overlapping and padded windows, whose gradient goes to the one largest value of a window.

use std::ops::Range;

use candle_core::{Device, Result, Tensor, bail};
use rayon::prelude::*;

use super::tape::{is_tracked, note};
use super::{Element, has_kernel, with_element, with_values, zeros};

/// A square window, how far apart windows are, and how far they reach over the edge, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pooling {
    /// Side of a window.
    pub window: usize,
    /// Step between windows.
    pub stride: usize,
    /// Pixels by which windows reach over each edge; they never win. At most half the window.
    pub padding: usize,
    /// True where a last window may reach further over the edge than the padding, so that no pixel is left out
    /// (PyTorch's `ceil_mode`).
    pub ceil: bool,
}

/// The largest value of each window of `x` `[batch, channels, height, width]`, as `[batch, channels,
/// (height + 2·padding - window) / stride + 1, ..]`, the quotient rounded down, or up in ceil mode. Of equal values the first in reading order wins, and gets
/// the whole gradient, as in PyTorch.
///
/// # Errors
/// When a window is larger than the padded image, or lies wholly in the padding.
pub fn max_pool(x: &Tensor, pooling: Pooling) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    pooling.check(height, width)?;
    if !has_kernel(x) {
        return composed(x, pooling);
    }
    let (planes, plane) = (batch * channels, height * width);
    let shape = (batch, channels, pooling.output(height), pooling.output(width));
    let tracked = is_tracked(x);
    let (y, winners) = with_element!("max_pool", x.dtype(), T => with_values::<T, _, 1>([x], |[x_values]| {
        let y = forward(x_values, pooling, planes, (height, width));
        let winners = if tracked { winners(x_values, &y, pooling, (height, width)) } else { Vec::new() };
        Ok((Tensor::from_vec(y, shape, &Device::Cpu)?, winners))
    }))?;
    note("max_pool", &y, [x], move |gradient, _| {
        with_element!("max_pool", gradient.dtype(), T => with_values::<T, _, 1>([gradient], |[gradient]| {
            let dx = backward(gradient, &winners, planes, plane);
            Ok([Some(Tensor::from_vec(dx, (batch, channels, height, width), &Device::Cpu)?)])
        }))
    })?;
    Ok(y)
}

impl Pooling {
    /// Refuses windows that do not fit an image.
    pub(crate) fn check(&self, height: usize, width: usize) -> Result<()> {
        let Pooling { window, stride, padding, .. } = *self;
        if window == 0 || stride == 0 || 2 * padding > window {
            bail!("pooling with window {window}, stride {stride} and padding {padding} is not defined");
        }
        if height + 2 * padding < window || width + 2 * padding < window || height * width == 0 {
            bail!(
                "an image of {height} x {width} pixels is too small here for a window of {window} x {window}"
            );
        }
        Ok(())
    }

    /// Windows along `size` pixels.
    pub(crate) fn output(&self, size: usize) -> usize {
        let room = size + 2 * self.padding - self.window;
        if !self.ceil {
            return room / self.stride + 1;
        }
        // A window that starts in the padding behind the image is left out.
        let windows = room.div_ceil(self.stride) + 1;
        if (windows - 1) * self.stride >= size + self.padding { windows - 1 } else { windows }
    }

    /// The part of window `index` inside an image of `size` pixels.
    pub(super) fn inside(&self, index: usize, size: usize) -> Range<usize> {
        let start = index * self.stride;
        start.saturating_sub(self.padding)..(start + self.window - self.padding).min(size)
    }
}

/// The same from candle operations, for other devices than the CPU: the windows are laid side by side by
/// index, and `gather` takes, and gives back to, the first of the largest.
fn composed(x: &Tensor, pooling: Pooling) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    // A window that reaches over the edge sees its first inside row or column again instead, which changes no
    // maximum; reading order is kept, so the first of equal values still wins.
    let indices = |size: usize, offset: usize| {
        let index = |window: usize| {
            let inside = pooling.inside(window, size);
            let position = (window * pooling.stride + offset).saturating_sub(pooling.padding);
            position.clamp(inside.start, inside.end - 1) as u32
        };
        Tensor::from_iter((0..pooling.output(size)).map(index), x.device())
    };
    let mut views = Vec::with_capacity(pooling.window * pooling.window);
    for row in 0..pooling.window {
        let rows = x.index_select(&indices(height, row)?, 2)?;
        for column in 0..pooling.window {
            views.push(rows.index_select(&indices(width, column)?, 3)?);
        }
    }
    let windows = Tensor::stack(&views, 4)?.contiguous()?;
    let winners = windows.detach().argmax_keepdim(4)?;
    windows.gather(&winners, 4)?.squeeze(4)
}

/// The largest value of each window. Rows are compared first, then columns, each as long vectors: a row of maxima is
/// split by column modulo stride, so that what one column of a window meets lies side by side.
fn forward<T: Element>(x: &[T], pooling: Pooling, planes: usize, (height, width): (usize, usize)) -> Vec<T> {
    let (out_height, out_width) = (pooling.output(height), pooling.output(width));
    let out_plane = out_height * out_width;
    let Pooling { window, stride, padding, .. } = pooling;
    // Columns of one residue, padding and the last window included.
    let length = (width + padding).div_ceil(stride).max(out_width + (window - 1) / stride) + 1;
    let mut y = zeros(planes * out_plane);
    let jobs = y.par_chunks_mut(out_plane).zip(x.par_chunks(height * width));
    jobs.for_each_init(
        || (vec![T::ZERO; width], vec![T::from_f64(f64::NEG_INFINITY); length * stride]),
        |(most, columns), (y, x)| {
            T::vectorized(
                #[inline(always)]
                || {
                    for (row, y) in y.chunks_exact_mut(out_width).enumerate() {
                        let rows = pooling.inside(row, height);
                        most.copy_from_slice(&x[rows.start * width..][..width]);
                        for row in rows.start + 1..rows.end {
                            keep_larger(most, &x[row * width..][..width]);
                        }
                        for (column, &value) in most.iter().enumerate() {
                            let column = column + padding;
                            columns[column % stride * length + column / stride] = value;
                        }
                        y.copy_from_slice(&columns[..out_width]);
                        for column in 1..window {
                            let start = column % stride * length + column / stride;
                            keep_larger(y, &columns[start..][..out_width]);
                        }
                    }
                },
            );
        },
    );
    y
}

#[inline(always)]
fn keep_larger<T: Element>(most: &mut [T], values: &[T]) {
    for (most, &value) in most.iter_mut().zip(values) {
        // The second half is true for NaN, which then stays visible.
        #[allow(clippy::eq_op)]
        if value > *most || value != value {
            *most = value;
        }
    }
}

/// For each output value, the position of its winner in the input plane: the first that equals it.
fn winners<T: Element>(x: &[T], y: &[T], pooling: Pooling, (height, width): (usize, usize)) -> Vec<u32> {
    let (out_height, out_width) = (pooling.output(height), pooling.output(width));
    let mut winners = vec![0; y.len()];
    let jobs = winners.par_chunks_mut(out_height * out_width).zip(y.par_chunks(out_height * out_width));
    jobs.zip(x.par_chunks(height * width)).for_each(|((winners, y), x)| {
        for (index, (winner, &most)) in winners.iter_mut().zip(y).enumerate() {
            let columns = pooling.inside(index % out_width, width);
            let mut positions = pooling.inside(index / out_width, height).flat_map(|row| {
                let start = row * width + columns.start;
                start..start + columns.len()
            });
            // Nothing equals NaN: then the first NaN is the winner.
            #[allow(clippy::eq_op)]
            let found = positions.find(|&position| x[position] == most || x[position] != x[position]);
            *winner = found.expect("the largest value is in its window") as u32;
        }
    });
    winners
}

fn backward<T: Element>(gradient: &[T], winners: &[u32], planes: usize, plane: usize) -> Vec<T> {
    let out_plane = gradient.len() / planes;
    let mut dx = zeros(planes * plane);
    let jobs = gradient.par_chunks(out_plane).zip(winners.par_chunks(out_plane));
    dx.par_chunks_mut(plane).zip(jobs).for_each(|(dx, (gradient, winners))| {
        for (&gradient, &winner) in gradient.iter().zip(winners) {
            dx[winner as usize] += gradient;
        }
    });
    dx
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{check, close, gradients, normal};
    use super::*;

    /// ResNet's, VGG's (also on an odd size) and Inception's windows, and one of a single row of windows.
    const CASES: &[([usize; 4], Pooling)] = &[
        ([2, 3, 7, 9], Pooling { window: 3, stride: 2, padding: 1, ceil: false }),
        ([1, 2, 8, 6], Pooling { window: 3, stride: 2, padding: 1, ceil: false }),
        ([1, 2, 5, 5], Pooling { window: 2, stride: 2, padding: 0, ceil: false }),
        ([1, 1, 7, 8], Pooling { window: 3, stride: 2, padding: 0, ceil: false }),
        ([1, 1, 5, 4], Pooling { window: 3, stride: 1, padding: 1, ceil: false }),
        ([1, 1, 3, 9], Pooling { window: 3, stride: 3, padding: 0, ceil: false }),
        ([1, 1, 1, 1], Pooling { window: 3, stride: 2, padding: 1, ceil: false }),
        ([1, 2, 6, 7], Pooling { window: 3, stride: 2, padding: 0, ceil: true }),
        ([1, 1, 6, 4], Pooling { window: 2, stride: 3, padding: 1, ceil: true }),
    ];

    #[test]
    fn gradients_equal_finite_differences() -> Result<()> {
        for &(shape, pooling) in CASES {
            check(&[normal(&shape, "x")], &|inputs| max_pool(&inputs[0], pooling))?;
        }
        Ok(())
    }

    #[test]
    fn the_kernel_equals_the_composition_of_other_devices() -> Result<()> {
        for &(shape, pooling) in CASES {
            // Few distinct values, so that windows have ties.
            let x = (normal(&shape, "x") * 1.5)?.round()?;
            close(&max_pool(&x, pooling)?, &composed(&x, pooling)?, 0.0)?;
            let ours = gradients(std::slice::from_ref(&x), &|inputs| max_pool(&inputs[0], pooling))?;
            let theirs = gradients(std::slice::from_ref(&x), &|inputs| composed(&inputs[0], pooling))?;
            close(&ours[0], &theirs[0], 1e-12)?;
        }
        Ok(())
    }

    #[test]
    fn of_equal_values_the_first_gets_the_gradient() -> Result<()> {
        let x = Tensor::new(&[[[[1f32, 3.0], [3.0, 3.0]]]], &Device::Cpu)?;
        let pooling = Pooling { window: 2, stride: 2, padding: 0, ceil: false };
        let gradients = gradients(&[x], &|inputs| max_pool(&inputs[0], pooling))?;
        let gradient = gradients[0].flatten_all()?.to_vec1::<f32>()?;
        assert_ne!(gradient[1], 0.0);
        assert_eq!([gradient[0], gradient[2], gradient[3]], [0.0; 3]);
        Ok(())
    }

    #[test]
    fn ceil_mode_has_pytorchs_sizes() {
        // (size, window, stride, padding) to the size of torch.nn.functional.max_pool2d(ceil_mode=True).
        for (size, window, stride, padding, expected) in [
            (6, 3, 2, 0, 3),
            (7, 3, 2, 0, 3),
            (5, 2, 2, 0, 3),
            (4, 2, 3, 1, 2),
            (6, 2, 3, 1, 3),
            (1, 1, 2, 0, 1),
        ] {
            let pooling = Pooling { window, stride, padding, ceil: true };
            assert_eq!(pooling.output(size), expected, "{pooling:?} of {size}");
        }
    }

    #[test]
    fn padding_never_wins_and_nan_stays_visible() -> Result<()> {
        let pooling = Pooling { window: 3, stride: 2, padding: 1, ceil: false };
        let x = Tensor::new(&[[[[-5f32, -4.0], [-3.0, -2.0]]]], &Device::Cpu)?;
        assert_eq!(max_pool(&x, pooling)?.flatten_all()?.to_vec1::<f32>()?, [-2.0]);
        let x = Tensor::new(&[[[[-5f32, f32::NAN], [-3.0, -2.0]]]], &Device::Cpu)?;
        assert!(max_pool(&x, pooling)?.flatten_all()?.to_vec1::<f32>()?[0].is_nan());
        Ok(())
    }
}
