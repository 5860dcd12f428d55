//! Depthwise convolution: every channel has a kernel of its own and sees no other.
//!
//! A plane is padded and split into `stride²` phases, so that the values that one tap of the kernel meets lie side
//! by side, row after row. Output, gradient of the input and gradient of the weights are then each a few long sums
//! over contiguous values, also where a plane is only seven pixels wide.

use candle_core::{DType, Device, Result, Tensor, bail};
use rayon::prelude::*;

use super::batch_norm::{ChannelMap, add_sums};
use super::conv2d::{Kernels, check_fused, noted_convolution};
use super::{Activation, Convolution, Element, has_kernel, with_values, zeros};

/// Convolves each channel of `x` `[batch, channels, height, width]` with its plane of `weight` `[channels, 1,
/// kernel_height, kernel_width]`, as PyTorch's `conv2d` with as many groups as channels and no bias.
///
/// # Errors
/// When the shapes do not belong together, or the kernel is larger than the padded image.
pub fn depthwise_conv2d(x: &Tensor, weight: &Tensor, convolution: Convolution) -> Result<Tensor> {
    let geometry = DepthwiseGeometry::new(x.dims(), weight.dims(), convolution)?;
    if !has_kernel(x) {
        return composed(x, &weight.to_dtype(x.dtype())?, &geometry);
    }
    noted_convolution("depthwise_conv2d", x, weight, geometry)
}

/// [`depthwise_conv2d`] followed by a fixed map of each channel and an activation, where nothing is trained.
///
/// # Errors
/// As [`depthwise_conv2d`]; f32 on the CPU only.
pub fn depthwise_conv2d_fixed(
    x: &Tensor,
    weight: &Tensor,
    convolution: Convolution,
    map: &ChannelMap,
    activation: Activation,
) -> Result<Tensor> {
    let geometry = DepthwiseGeometry::new(x.dims(), weight.dims(), convolution)?;
    check_fused(activation, false)?;
    if x.dtype() != DType::F32 {
        bail!("a fixed depthwise convolution of {:?}: only f32 is supported", x.dtype());
    }
    with_values::<f32, _, 2>([x, weight], |[x, weight]| {
        let y = geometry.forward(x, weight, |channel, plane| map.apply(channel, plane, activation));
        Tensor::from_vec(y, geometry.shape(), &Device::Cpu)
    })
}

/// The sum over the taps of the kernel of shifted, strided views, for other devices than the CPU.
fn composed(x: &Tensor, weight: &Tensor, geometry: &DepthwiseGeometry) -> Result<Tensor> {
    let DepthwiseGeometry { channels, kernel, output, stride, padding, .. } = *geometry;
    let padded = x.pad_with_zeros(2, padding.0, padding.0)?.pad_with_zeros(3, padding.1, padding.1)?;
    let positions = |count: usize, offset: usize| {
        Tensor::from_iter((0..count).map(|index| (index * stride + offset) as u32), x.device())
    };
    let mut sum: Option<Tensor> = None;
    for row in 0..kernel.0 {
        let rows = padded.index_select(&positions(output.0, row)?, 2)?;
        for column in 0..kernel.1 {
            let view = rows.index_select(&positions(output.1, column)?, 3)?;
            let tap = weight.narrow(2, row, 1)?.narrow(3, column, 1)?.reshape((1, channels, 1, 1))?;
            let product = view.broadcast_mul(&tap)?;
            sum = Some(match sum {
                Some(sum) => (sum + product)?,
                None => product,
            });
        }
    }
    Ok(sum.expect("a kernel has a tap"))
}

/// The sizes of one convolution, and of the phases that a padded plane is split into.
#[derive(Clone, Copy)]
struct DepthwiseGeometry {
    batch: usize,
    channels: usize,
    input: (usize, usize),
    kernel: (usize, usize),
    output: (usize, usize),
    stride: usize,
    padding: (usize, usize),
    /// Rows and columns of a phase.
    phase: (usize, usize),
}

impl DepthwiseGeometry {
    fn new(x: &[usize], weight: &[usize], convolution: Convolution) -> Result<DepthwiseGeometry> {
        let (&[batch, channels, height, width], &[depth, 1, rows, columns]) = (x, weight) else {
            bail!("a depthwise convolution of {x:?} with weights {weight:?}: they do not fit")
        };
        let Convolution { stride, padding } = convolution;
        let padded = (height + 2 * padding.0, width + 2 * padding.1);
        if depth != channels || stride == 0 || rows * columns == 0 || height * width == 0 {
            bail!(
                "a depthwise convolution of {x:?} with weights {weight:?} and stride {stride}: they do not fit"
            );
        }
        if rows > padded.0 || columns > padded.1 {
            bail!("an image of {height} x {width} pixels is too small here for a kernel of {weight:?}");
        }
        let output = ((padded.0 - rows) / stride + 1, (padded.1 - columns) / stride + 1);
        let phase = (padded.0.div_ceil(stride), padded.1.div_ceil(stride));
        Ok(DepthwiseGeometry {
            batch,
            channels,
            input: (height, width),
            kernel: (rows, columns),
            output,
            stride,
            padding,
            phase,
        })
    }

    fn taps(&self) -> usize {
        self.kernel.0 * self.kernel.1
    }

    fn phase_size(&self) -> usize {
        self.phase.0 * self.phase.1
    }

    /// The phase that a tap reads, and how far its first value lies behind the start of the phase.
    fn tap(&self, tap: usize) -> (usize, usize) {
        let (row, column) = (tap / self.kernel.1, tap % self.kernel.1);
        let stride = self.stride;
        (row % stride * stride + column % stride, row / stride * self.phase.1 + column / stride)
    }

    /// Output values in rows as long as those of a phase: from the first to the last.
    fn span(&self) -> usize {
        (self.output.0 - 1) * self.phase.1 + self.output.1
    }

    /// Where each row of a plane lies in phases: row, first column of every `stride`-th, and the place of that value.
    #[inline(always)]
    fn runs(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let DepthwiseGeometry { stride, padding, .. } = *self;
        (0..self.input.0).flat_map(move |row| {
            (0..stride).map(move |offset| {
                // The first padded column of this phase that is inside the image.
                let first = (offset + stride - padding.1 % stride) % stride;
                let padded = (row + padding.0, first + padding.1);
                let phase = padded.0 % stride * stride + padded.1 % stride;
                let within = padded.0 / stride * self.phase.1 + padded.1 / stride;
                (row, first.min(self.input.1), phase * self.phase_size() + within)
            })
        })
    }

    /// Writes a plane into phases, whose padding is zero already.
    #[inline(always)]
    fn split<T: Element>(&self, plane: &[T], phases: &mut [T]) {
        for (row, first, start) in self.runs() {
            let values = &plane[row * self.input.1..][first..self.input.1];
            if self.stride == 1 {
                phases[start..start + values.len()].copy_from_slice(values);
            } else {
                for (target, &value) in phases[start..].iter_mut().zip(values.iter().step_by(self.stride)) {
                    *target = value;
                }
            }
        }
    }

    /// Reads a plane back out of phases: the transpose of [`DepthwiseGeometry::split`].
    #[inline(always)]
    fn join<T: Element>(&self, phases: &[T], plane: &mut [T]) {
        for (row, first, start) in self.runs() {
            let values = &mut plane[row * self.input.1..][first..self.input.1];
            for (value, &source) in values.iter_mut().step_by(self.stride).zip(&phases[start..]) {
                *value = source;
            }
        }
    }

    /// `[batch, channels, height, width]` of the output; `finish` gets each channel and plane while it is hot.
    fn forward<T: Element>(&self, x: &[T], weight: &[T], finish: impl Fn(usize, &mut [T]) + Sync) -> Vec<T> {
        let (plane, out_plane) = (self.input.0 * self.input.1, self.output.0 * self.output.1);
        let mut y = zeros(self.batch * self.channels * out_plane);
        let jobs = y.par_chunks_mut(out_plane).zip(x.par_chunks(plane)).enumerate();
        jobs.for_each_init(
            || (Vec::new(), Vec::new()),
            |(phases, rows), (index, (y, x))| {
                let channel = index % self.channels;
                self.convolve(x, &weight[channel * self.taps()..][..self.taps()], phases, rows, y);
                finish(channel, y);
            },
        );
        y
    }

    /// One plane of the output.
    #[inline(never)]
    fn convolve<T: Element>(
        &self,
        x: &[T],
        weight: &[T],
        phases: &mut Vec<T>,
        rows: &mut Vec<T>,
        y: &mut [T],
    ) {
        T::vectorized(
            #[inline(always)]
            || {
                let span = self.span();
                phases.resize(self.phase_size() * self.stride * self.stride, T::ZERO);
                rows.resize(span, T::ZERO);
                self.split(x, phases);
                let source = |tap: usize| {
                    let (phase, offset) = self.tap(tap);
                    &phases[phase * self.phase_size() + offset..][..span]
                };
                weighted_sum(weight, source, rows);
                for (y, row) in y.chunks_exact_mut(self.output.1).zip(rows.chunks(self.phase.1)) {
                    y.copy_from_slice(&row[..self.output.1]);
                }
            },
        );
    }

    /// Output values with zeros between rows, as long as those of a phase.
    fn spread<T: Element>(&self, gradient: &[T], rows: &mut [T]) {
        for (row, gradient) in rows.chunks_mut(self.phase.1).zip(gradient.chunks_exact(self.output.1)) {
            row[..gradient.len()].copy_from_slice(gradient);
        }
    }
}

impl Kernels for DepthwiseGeometry {
    fn shape(&self) -> (usize, usize, usize, usize) {
        (self.batch, self.channels, self.output.0, self.output.1)
    }

    fn output<T: Element>(&self, x: &[T], weight: &[T]) -> Vec<T> {
        self.forward(x, weight, |_, _| ())
    }

    fn input_gradient<T: Element>(&self, weight: &[T], gradient: &[T]) -> Vec<T> {
        let (plane, out_plane) = (self.input.0 * self.input.1, self.output.0 * self.output.1);
        let mut dx = zeros(self.batch * self.channels * plane);
        let size = self.phase_size();
        // A value of a phase is met by the output `offset` values before it: zeros stand in front and behind.
        let front = (0..self.taps()).map(|tap| self.tap(tap).1).max().unwrap_or(0);
        let by_phase: Vec<Vec<usize>> = (0..self.stride * self.stride)
            .map(|phase| (0..self.taps()).filter(|&tap| self.tap(tap).0 == phase).collect())
            .collect();
        let jobs = dx.par_chunks_mut(plane).zip(gradient.par_chunks(out_plane)).enumerate();
        jobs.for_each_init(
            || (Vec::new(), Vec::new()),
            |(phases, rows), (index, (dx, gradient))| {
                T::vectorized(
                    #[inline(always)]
                    || {
                        let weight = &weight[index % self.channels * self.taps()..][..self.taps()];
                        phases.resize(size * self.stride * self.stride, T::ZERO);
                        rows.resize(front + size, T::ZERO);
                        self.spread(gradient, &mut rows[front..front + self.span()]);
                        for (phase, taps) in phases.chunks_exact_mut(size).zip(&by_phase) {
                            let mut weights = [T::ZERO; MOST_TAPS];
                            if taps.len() <= MOST_TAPS {
                                for (target, &tap) in weights.iter_mut().zip(taps) {
                                    *target = weight[tap];
                                }
                                let source = |tap: usize| &rows[front - self.tap(taps[tap]).1..][..size];
                                weighted_sum(&weights[..taps.len()], source, phase);
                            } else {
                                let weights: Vec<T> = taps.iter().map(|&tap| weight[tap]).collect();
                                let source = |tap: usize| &rows[front - self.tap(taps[tap]).1..][..size];
                                weighted_sum(&weights, source, phase);
                            }
                        }
                        self.join(phases, dx);
                    },
                )
            },
        );
        dx
    }

    /// The gradient of the weights: channels in parallel, the images of a channel one after the other.
    fn weight_gradient<T: Element>(&self, x: &[T], gradient: &[T]) -> Vec<T> {
        let (plane, out_plane) = (self.input.0 * self.input.1, self.output.0 * self.output.1);
        let mut dw = vec![T::ZERO; self.channels * self.taps()];
        let jobs = dw.par_chunks_mut(self.taps()).enumerate();
        jobs.for_each_init(
            || (Vec::new(), Vec::new()),
            |(phases, rows), (channel, dw)| {
                phases.resize(self.phase_size() * self.stride * self.stride, T::ZERO);
                rows.resize(self.span(), T::ZERO);
                let mut totals = vec![0.0; self.taps()];
                for image in 0..self.batch {
                    let index = image * self.channels + channel;
                    T::vectorized(
                        #[inline(always)]
                        || {
                            self.split(&x[index * plane..][..plane], phases);
                            self.spread(&gradient[index * out_plane..][..out_plane], rows);
                            let source = |tap: usize| {
                                let (phase, offset) = self.tap(tap);
                                &phases[phase * self.phase_size() + offset..][..self.span()]
                            };
                            products(rows, source, &mut totals);
                        },
                    );
                }
                for (dw, total) in dw.iter_mut().zip(totals) {
                    *dw = T::from_f64(total);
                }
            },
        );
        dw
    }
}

/// Taps of a 5 x 5 kernel, the largest that has its own loop.
const MOST_TAPS: usize = 25;

/// `target = Σ weight · source`, over the taps.
#[inline(always)]
fn weighted_sum<'a, T: Element>(weights: &[T], source: impl Fn(usize) -> &'a [T], target: &mut [T]) {
    #[inline(always)]
    fn unrolled<'a, T: Element, const N: usize>(
        weights: &[T],
        source: impl Fn(usize) -> &'a [T],
        target: &mut [T],
    ) {
        let length = target.len();
        let weights: [T; N] = std::array::from_fn(|tap| weights[tap]);
        let sources: [&[T]; N] = std::array::from_fn(|tap| &source(tap)[..length]);
        for (index, target) in target.iter_mut().enumerate() {
            let mut sum = weights[0] * sources[0][index];
            for (&weight, source) in weights.iter().zip(sources).skip(1) {
                sum += weight * source[index];
            }
            *target = sum;
        }
    }
    match weights.len() {
        0 => target.fill(T::ZERO),
        1 => unrolled::<T, 1>(weights, source, target),
        2 => unrolled::<T, 2>(weights, source, target),
        4 => unrolled::<T, 4>(weights, source, target),
        6 => unrolled::<T, 6>(weights, source, target),
        9 => unrolled::<T, 9>(weights, source, target),
        MOST_TAPS => unrolled::<T, MOST_TAPS>(weights, source, target),
        _ => {
            target.fill(T::ZERO);
            for (tap, &weight) in weights.iter().enumerate() {
                for (target, &value) in target.iter_mut().zip(source(tap)) {
                    *target += weight * value;
                }
            }
        }
    }
}

/// Adds `Σ gradient · source` of each tap to its total.
#[inline(always)]
fn products<'a, T: Element>(gradient: &[T], source: impl Fn(usize) -> &'a [T], totals: &mut [f64]) {
    if let Ok(totals) = <&mut [f64; 9]>::try_from(&mut *totals) {
        let slices: [&[T]; 10] =
            std::array::from_fn(|index| if index == 0 { gradient } else { source(index - 1) });
        add_sums(slices, totals, |values| std::array::from_fn(|tap| values[0] * values[tap + 1]));
        return;
    }
    // Five taps at a time: a row of a 5 x 5 kernel.
    for (row, totals) in totals.chunks_mut(5).enumerate() {
        if let Ok(totals) = <&mut [f64; 5]>::try_from(&mut *totals) {
            let slices: [&[T]; 6] =
                std::array::from_fn(|index| if index == 0 { gradient } else { source(row * 5 + index - 1) });
            add_sums(slices, totals, |values| std::array::from_fn(|tap| values[0] * values[tap + 1]));
            continue;
        }
        for (tap, total) in totals.iter_mut().enumerate() {
            let mut sum = [*total];
            add_sums([gradient, source(row * 5 + tap)], &mut sum, |[gradient, value]| [gradient * value]);
            *total = sum[0];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{check, close, gradients, normal};
    use super::*;

    /// MobileNet's kernels and strides, odd sizes, unequal sides, a stride of three, a row without padding.
    type Case = ([usize; 4], [usize; 4], usize, (usize, usize));
    const CASES: &[Case] = &[
        ([2, 3, 5, 7], [3, 1, 3, 3], 1, (1, 1)),
        ([2, 2, 6, 5], [2, 1, 3, 3], 2, (1, 1)),
        ([1, 2, 7, 6], [2, 1, 5, 5], 1, (2, 2)),
        ([1, 2, 9, 8], [2, 1, 5, 5], 2, (2, 2)),
        ([1, 1, 8, 7], [1, 1, 3, 3], 3, (0, 1)),
        ([1, 2, 4, 5], [2, 1, 1, 4], 1, (0, 2)),
        ([1, 1, 4, 3], [1, 1, 7, 3], 2, (3, 0)),
        ([2, 1, 2, 1], [1, 1, 3, 3], 2, (1, 1)),
    ];

    #[test]
    fn gradients_equal_finite_differences() -> Result<()> {
        for &(x, weight, stride, padding) in CASES {
            let inputs = [normal(&x, "x"), normal(&weight, "weight")];
            let convolution = Convolution { stride, padding };
            check(&inputs, &|inputs| depthwise_conv2d(&inputs[0], &inputs[1], convolution))?;
        }
        Ok(())
    }

    #[test]
    fn the_kernel_equals_the_composition_of_other_devices() -> Result<()> {
        for &(x, weight, stride, padding) in CASES {
            let inputs = [normal(&x, "x"), normal(&weight, "weight")];
            let convolution = Convolution { stride, padding };
            let geometry = DepthwiseGeometry::new(&x, &weight, convolution)?;
            let kernel = |inputs: &[Tensor]| depthwise_conv2d(&inputs[0], &inputs[1], convolution);
            let other = |inputs: &[Tensor]| composed(&inputs[0], &inputs[1], &geometry);
            close(&kernel(&inputs)?, &other(&inputs)?, 1e-12)?;
            for (ours, theirs) in gradients(&inputs, &kernel)?.iter().zip(&gradients(&inputs, &other)?) {
                close(ours, theirs, 1e-12)?;
            }
        }
        Ok(())
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let convolution = Convolution { stride: 1, padding: (0, 0) };
        let x = normal(&[1, 2, 4, 4], "x");
        assert!(depthwise_conv2d(&x, &normal(&[3, 1, 3, 3], "weight"), convolution).is_err());
        let error =
            depthwise_conv2d(&x, &normal(&[2, 1, 5, 5], "weight"), convolution).expect_err("too small");
        assert!(error.to_string().contains("an image of 4 x 4 pixels is too small"), "{error}");
    }
}
