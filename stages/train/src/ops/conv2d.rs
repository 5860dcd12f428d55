//! Two-dimensional convolution as matrix products over unfolded tiles, forward and backward.
//!
//! The image is unfolded (im2col) one tile of output rows at a time, so that the unfolded values stay in cache;
//! where a plane is small, a tile covers several images, so that the product stays large enough to be fast.

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor, bail};
use rayon::prelude::*;

use super::batch_norm::ChannelMap;
use super::product::{Matrix, product};
use super::tape::note;
use super::winograd::Winograd;
use super::{Activation, Element, has_kernel, with_element, with_values, zeros};

/// Stride and zero padding of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Step between windows, in pixels, the same in both directions.
    pub stride: usize,
    /// Zeros added above and below, and left and right, in pixels.
    pub padding: (usize, usize),
}

/// Convolves `x` `[batch, channels_in, height, width]` with `weight` `[channels_out, channels_in,
/// kernel_height, kernel_width]` to `[batch, channels_out, (height + 2·padding - kernel) / stride + 1, ..]`
/// (a cross-correlation, as PyTorch's `conv2d` without bias).
///
/// # Errors
/// When the shapes do not belong together, or the kernel is larger than the padded image.
pub fn conv2d(x: &Tensor, weight: &Tensor, convolution: Convolution) -> Result<Tensor> {
    let geometry = Geometry::new(x.dims(), weight.dims(), convolution)?;
    if !has_kernel(x) {
        return composed(x, &weight.to_dtype(x.dtype())?, convolution);
    }
    noted_convolution("conv2d", x, weight, geometry)
}

/// The kernels of a kind of convolution, each parallel in the pool it is called in.
pub(super) trait Kernels: Copy + 'static {
    /// The shape of the output.
    fn shape(&self) -> (usize, usize, usize, usize);

    /// The output of an image and the weights.
    fn output<T: Element>(&self, x: &[T], weight: &[T]) -> Vec<T>;

    /// The gradient of the image, from the weights and the gradient of the output.
    fn input_gradient<T: Element>(&self, weight: &[T], gradient: &[T]) -> Vec<T>;

    /// The gradient of the weights, from the image and the gradient of the output.
    fn weight_gradient<T: Element>(&self, x: &[T], gradient: &[T]) -> Vec<T>;
}

/// Convolves and notes how the gradients of the image and the weights are found.
pub(super) fn noted_convolution(
    name: &'static str,
    x: &Tensor,
    weight: &Tensor,
    kernels: impl Kernels,
) -> Result<Tensor> {
    let y = with_element!(name, x.dtype(), T => with_values::<T, _, 2>([x, weight], |[x_values, weight]| {
        Tensor::from_vec(kernels.output(x_values, weight), kernels.shape(), &Device::Cpu)
    }))?;
    let (kept_x, kept_weight) = (x.clone(), weight.clone());
    note(name, &y, [x, weight], move |gradient, needs| {
        let (x, weight) = (&kept_x, &kept_weight);
        with_element!(name, x.dtype(), T => {
            with_values::<T, _, 3>([x, weight, gradient], |[x_values, weight_values, gradient]| {
                let dx = needs[0].then(|| {
                    Tensor::from_vec(kernels.input_gradient(weight_values, gradient), x.dims(), &Device::Cpu)
                });
                let dw = needs[1].then(|| {
                    Tensor::from_vec(kernels.weight_gradient(x_values, gradient), weight.dims(), &Device::Cpu)
                });
                Ok([dx.transpose()?, dw.transpose()?])
            })
        })
    })?;
    Ok(y)
}

/// [`conv2d`] followed by a fixed map of each channel, the sum with a residual where there is one, and an
/// activation, where nothing is trained: the output is finished while it is still in cache.
///
/// # Errors
/// As [`conv2d`], or when the residual has another shape; f32 on the CPU only.
pub fn conv2d_fixed(
    x: &Tensor,
    weight: &Tensor,
    convolution: Convolution,
    map: &ChannelMap,
    residual: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    let geometry = Geometry::new(x.dims(), weight.dims(), convolution)?;
    check_fused(activation, residual.is_some())?;
    if x.dtype() != DType::F32 {
        bail!("a fixed convolution of {:?}: only f32 is supported", x.dtype());
    }
    let (image, plane) = (geometry.channels_out * geometry.output_plane(), geometry.output_plane());
    if let Some(residual) = residual
        && residual.elem_count() != geometry.batch * image
    {
        bail!("a convolution to {:?} got a residual of {:?}", geometry.shape(), residual.dims());
    }
    let values = with_values::<f32, _, 3>([x, weight, residual.unwrap_or(weight)], |[x, weight, added]| {
        Ok(match residual {
            None => {
                geometry.forward(x, weight, |_, channel, _, y: &mut [f32]| map.apply(channel, y, activation))
            }
            Some(_) => geometry.forward(x, weight, |index, channel, start, y: &mut [f32]| {
                let residual = &added[index * image + channel * plane + start..][..y.len()];
                map.apply_with(channel, y, residual, activation);
            }),
        })
    })?;
    Tensor::from_vec(values, geometry.shape(), &Device::Cpu)
}

/// Refuses activations that [`ChannelMap`] has no loop for.
pub(super) fn check_fused(activation: Activation, with_residual: bool) -> Result<()> {
    let known = match with_residual {
        true => &Activation::FUSED[..3],
        false => &Activation::FUSED[..],
    };
    if !known.contains(&activation) {
        bail!("a fixed convolution followed by {activation:?}: apply the activation apart");
    }
    Ok(())
}

/// The same from candle's own convolution, for other devices than the CPU. The image is padded first and cut to
/// the pixels that some window sees: candle's gradient is then right also where padding or remainder differ
/// between the two directions.
fn composed(x: &Tensor, weight: &Tensor, convolution: Convolution) -> Result<Tensor> {
    let geometry = Geometry::new(x.dims(), weight.dims(), convolution)?;
    let Convolution { stride, padding: (rows, columns) } = convolution;
    let used = |output: usize, kernel: usize| (output - 1) * stride + kernel;
    x.pad_with_zeros(2, rows, rows)?
        .pad_with_zeros(3, columns, columns)?
        .narrow(2, 0, used(geometry.output.0, geometry.kernel.0))?
        .narrow(3, 0, used(geometry.output.1, geometry.kernel.1))?
        .contiguous()?
        .conv2d(weight, 0, stride, 1, 1)
}

/// The sizes of one convolution.
#[derive(Clone, Copy)]
struct Geometry {
    batch: usize,
    channels_in: usize,
    input: (usize, usize),
    channels_out: usize,
    kernel: (usize, usize),
    output: (usize, usize),
    stride: usize,
    padding: (usize, usize),
}

/// The unfolded values of a tile, at most: 1 MiB of f32, about a second-level cache. Measured on ResNet-18 at 224
/// pixels, a step took 3 % less than with 384 KiB.
const TILE_VALUES: usize = 256 * 1024;
/// The columns of a tile, at least: below, packing the weights costs more than multiplying by them.
const TILE_COLUMNS: usize = 192;

impl Geometry {
    fn new(x: &[usize], weight: &[usize], convolution: Convolution) -> Result<Geometry> {
        let (&[batch, channels_in, height, width], &[channels_out, depth, kernel_height, kernel_width]) =
            (x, weight)
        else {
            bail!("a convolution needs four dimensions, got {x:?} and {weight:?}")
        };
        let Convolution { stride, padding } = convolution;
        let (padded_height, padded_width) = (height + 2 * padding.0, width + 2 * padding.1);
        if depth != channels_in || stride == 0 || kernel_height == 0 || kernel_width == 0 {
            bail!("a convolution of {x:?} with weights {weight:?} and stride {stride}: they do not fit");
        }
        if kernel_height > padded_height || kernel_width > padded_width {
            bail!("an image of {height} x {width} pixels is too small here for a kernel of {weight:?}");
        }
        let output =
            ((padded_height - kernel_height) / stride + 1, (padded_width - kernel_width) / stride + 1);
        Ok(Geometry {
            batch,
            channels_in,
            input: (height, width),
            channels_out,
            kernel: (kernel_height, kernel_width),
            output,
            stride,
            padding,
        })
    }

    /// Values that one output pixel depends on.
    fn depth(&self) -> usize {
        self.channels_in * self.kernel.0 * self.kernel.1
    }

    fn input_plane(&self) -> usize {
        self.input.0 * self.input.1
    }

    fn output_plane(&self) -> usize {
        self.output.0 * self.output.1
    }

    /// True where the unfolded image is the image.
    fn is_pointwise(&self) -> bool {
        self.kernel == (1, 1) && self.stride == 1 && self.padding == (0, 0)
    }

    /// Images of one tile: several where planes are small. A function of the shape alone.
    fn images_per_tile(&self) -> usize {
        let fitting = (256 / self.output_plane()).max(1);
        1 << fitting.ilog2()
    }

    /// The row ranges of the tiles of one image.
    fn row_tiles(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (height, width) = self.output;
        let columns = (TILE_VALUES / self.depth()).max(TILE_COLUMNS);
        let rows = (columns / width).clamp(1, height);
        (0..height).step_by(rows).map(move |start| start..(start + rows).min(height))
    }

    /// Output columns whose input column, `column * stride + offset - padding`, lies inside the image.
    fn inside(&self, offset: usize) -> Range<usize> {
        let (padding, width) = (self.padding.1, self.input.1);
        let start = padding.saturating_sub(offset).div_ceil(self.stride);
        let end = (width + padding).saturating_sub(offset).div_ceil(self.stride).min(self.output.1);
        start.min(end)..end
    }

    /// Writes the unfolded rows of one image into `columns`, whose rows are `stride` values apart.
    fn unfold<T: Element>(&self, image: &[T], rows: Range<usize>, columns: &mut [T], stride: usize) {
        let (height, width) = self.input;
        let (kernel_height, kernel_width) = self.kernel;
        let out_width = self.output.1;
        for depth in 0..self.depth() {
            let (channel, window) =
                (depth / (kernel_height * kernel_width), depth % (kernel_height * kernel_width));
            let (row_offset, column_offset) = (window / kernel_width, window % kernel_width);
            let plane = &image[channel * height * width..][..height * width];
            let inside = self.inside(column_offset);
            if self.stride == 1 && out_width == width && !inside.is_empty() {
                let target = &mut columns[depth * stride..][..rows.len() * width];
                let shift = (
                    row_offset as isize - self.padding.0 as isize,
                    column_offset as isize - self.padding.1 as isize,
                );
                shift_rows(plane, rows.start, width, shift, inside, target);
                continue;
            }
            for (slot, row) in rows.clone().enumerate() {
                let target = &mut columns[depth * stride + slot * out_width..][..out_width];
                let source_row = (row * self.stride + row_offset).wrapping_sub(self.padding.0);
                if source_row >= height || inside.is_empty() {
                    target.fill(T::ZERO);
                    continue;
                }
                target[..inside.start].fill(T::ZERO);
                target[inside.end..].fill(T::ZERO);
                let first = inside.start * self.stride + column_offset - self.padding.1;
                let source = &plane[source_row * width + first..(source_row + 1) * width];
                if self.stride == 1 {
                    target[inside.clone()].copy_from_slice(&source[..inside.len()]);
                } else {
                    let source = source.iter().step_by(self.stride);
                    for (target, source) in target[inside.clone()].iter_mut().zip(source) {
                        *target = *source;
                    }
                }
            }
        }
    }

    /// Adds unfolded rows back where they came from: the transpose of [`Geometry::unfold`].
    fn fold<T: Element>(&self, image: &mut [T], rows: Range<usize>, columns: &[T], stride: usize) {
        let (height, width) = self.input;
        let (kernel_height, kernel_width) = self.kernel;
        let out_width = self.output.1;
        for depth in 0..self.depth() {
            let (channel, window) =
                (depth / (kernel_height * kernel_width), depth % (kernel_height * kernel_width));
            let (row_offset, column_offset) = (window / kernel_width, window % kernel_width);
            let plane = &mut image[channel * height * width..][..height * width];
            let inside = self.inside(column_offset);
            for (slot, row) in rows.clone().enumerate() {
                let source = &columns[depth * stride + slot * out_width..][..out_width];
                let target_row = (row * self.stride + row_offset).wrapping_sub(self.padding.0);
                if target_row >= height || inside.is_empty() {
                    continue;
                }
                let first = inside.start * self.stride + column_offset - self.padding.1;
                let target = &mut plane[target_row * width + first..(target_row + 1) * width];
                for (target, source) in target.iter_mut().step_by(self.stride).zip(&source[inside.clone()]) {
                    *target += *source;
                }
            }
        }
    }

    /// The same convolution by minimal filtering, where that pays.
    fn winograd(&self) -> Option<Winograd> {
        let Geometry { batch, channels_in, channels_out, input, output, padding, .. } = *self;
        let winograd = Winograd { batch, channels_in, channels_out, input, output, padding };
        (self.kernel == (3, 3) && self.stride == 1 && winograd.pays()).then_some(winograd)
    }

    /// `[batch, channels_out, height, width]` of the output. `finish` gets the finished values of one channel while
    /// they are in cache: image, channel, place of the first in the plane, values.
    fn forward<T: Element>(
        &self,
        x: &[T],
        weight: &[T],
        finish: impl Fn(usize, usize, usize, &mut [T]) + Sync,
    ) -> Vec<T> {
        match self.winograd() {
            Some(winograd) => winograd.forward(x, &winograd.weights(weight, false), finish),
            None => self.forward_unfolded(x, weight, finish),
        }
    }

    fn forward_unfolded<T: Element>(
        &self,
        x: &[T],
        weight: &[T],
        finish: impl Fn(usize, usize, usize, &mut [T]) + Sync,
    ) -> Vec<T> {
        let (depth, plane) = (self.depth(), self.output_plane());
        let (input_size, output_size) = (self.channels_in * self.input_plane(), self.channels_out * plane);
        let images = self.images_per_tile();
        let mut y = zeros(self.batch * output_size);
        let weight = Matrix::rows(weight, depth);
        let jobs = y.par_chunks_mut(images * output_size).zip(x.par_chunks(images * input_size));
        jobs.enumerate().for_each(|(job, (y, x))| {
            let count = y.len() / output_size;
            T::with_scratch(|columns, gathered| {
                if count > 1 {
                    let width = count * plane;
                    columns.resize((depth * width).max(columns.len()), T::ZERO);
                    gathered.resize((self.channels_out * width).max(gathered.len()), T::ZERO);
                    for (index, image) in x.chunks_exact(input_size).enumerate() {
                        self.unfold(image, 0..self.output.0, &mut columns[index * plane..], width);
                    }
                    let sizes = (self.channels_out, depth, width);
                    product(sizes, weight, Matrix::rows(columns, width), gathered, width, false);
                    for (index, image) in y.chunks_exact_mut(output_size).enumerate() {
                        for (channel, target) in image.chunks_exact_mut(plane).enumerate() {
                            target.copy_from_slice(&gathered[channel * width + index * plane..][..plane]);
                            finish(job * images + index, channel, 0, target);
                        }
                    }
                    return;
                }
                for rows in self.row_tiles() {
                    let (start, width) = (rows.start * self.output.1, rows.len() * self.output.1);
                    let sizes = (self.channels_out, depth, width);
                    let target = &mut y[start..];
                    if self.is_pointwise() {
                        product(sizes, weight, Matrix::rows(&x[start..], plane), target, plane, false);
                    } else {
                        columns.resize((depth * width).max(columns.len()), T::ZERO);
                        self.unfold(x, rows, columns, width);
                        product(sizes, weight, Matrix::rows(columns, width), target, plane, false);
                    }
                    for channel in 0..self.channels_out {
                        finish(job * images, channel, start, &mut y[channel * plane + start..][..width]);
                    }
                }
            });
        });
        y
    }

    /// The convolution that turns the gradient of the output into that of the input: at stride 1 it is the
    /// convolution with the kernel turned by 180 degrees and the channels exchanged.
    fn turned(&self) -> Option<Geometry> {
        let (height, width) = self.kernel;
        let fits = self.stride == 1 && self.padding.0 < height && self.padding.1 < width;
        fits.then(|| Geometry {
            channels_in: self.channels_out,
            channels_out: self.channels_in,
            input: self.output,
            output: self.input,
            padding: (height - 1 - self.padding.0, width - 1 - self.padding.1),
            ..*self
        })
    }

    /// The weights of [`Geometry::turned`].
    fn turn<T: Element>(&self, weight: &[T]) -> Vec<T> {
        let window = self.kernel.0 * self.kernel.1;
        let mut turned = Vec::with_capacity(weight.len());
        for channel_in in 0..self.channels_in {
            for channel_out in 0..self.channels_out {
                let start = (channel_out * self.channels_in + channel_in) * window;
                turned.extend(weight[start..start + window].iter().rev());
            }
        }
        turned
    }

    /// Lays the planes of several images side by side: `[count, channels, plane]` to `[channels, count * plane]`.
    fn gather<T: Element>(&self, gradient: &[T], gathered: &mut Vec<T>) {
        let plane = self.output_plane();
        let output_size = self.channels_out * plane;
        let width = gradient.len() / self.channels_out;
        gathered.resize(gradient.len().max(gathered.len()), T::ZERO);
        for (index, image) in gradient.chunks_exact(output_size).enumerate() {
            for (channel, source) in image.chunks_exact(plane).enumerate() {
                gathered[channel * width + index * plane..][..plane].copy_from_slice(source);
            }
        }
    }

    /// Partial sums of the gradient of the weights: enough for the cores of one machine where the weights are
    /// few, fewer where adding them up would cost more than it gains. A function of the shape alone.
    fn partial_sums(&self) -> usize {
        match self.channels_out * self.depth() {
            0..=65_536 => 16,
            65_537..=524_288 => 8,
            _ => 4,
        }
    }

    fn backward_weight_unfolded<T: Element>(&self, x: &[T], gradient: &[T]) -> Vec<T> {
        let (depth, plane) = (self.depth(), self.output_plane());
        let (input_size, output_size) = (self.channels_in * self.input_plane(), self.channels_out * plane);
        let images = self.images_per_tile();
        // Each partial sum covers a whole number of tiles.
        let tiles = self.batch.div_ceil(images);
        let share = tiles.div_ceil(self.partial_sums()) * images;
        let mut sums: Vec<Vec<T>> = (x.par_chunks(share * input_size))
            .zip(gradient.par_chunks(share * output_size))
            .map(|(x, gradient)| {
                let mut sum = vec![T::ZERO; self.channels_out * depth];
                let mut first = true;
                T::with_scratch(|columns, gathered| {
                    let tiles = x.chunks(images * input_size).zip(gradient.chunks(images * output_size));
                    for (x, gradient) in tiles {
                        let count = gradient.len() / output_size;
                        if count > 1 {
                            let width = count * plane;
                            columns.resize((depth * width).max(columns.len()), T::ZERO);
                            for (index, image) in x.chunks_exact(input_size).enumerate() {
                                self.unfold(image, 0..self.output.0, &mut columns[index * plane..], width);
                            }
                            self.gather(gradient, gathered);
                            let sizes = (self.channels_out, width, depth);
                            let columns = Matrix::transposed(columns, width);
                            product(sizes, Matrix::rows(gathered, width), columns, &mut sum, depth, !first);
                            first = false;
                            continue;
                        }
                        for rows in self.row_tiles() {
                            let (start, width) = (rows.start * self.output.1, rows.len() * self.output.1);
                            let sizes = (self.channels_out, width, depth);
                            let gradient = Matrix::rows(&gradient[start..], plane);
                            if self.is_pointwise() {
                                let columns = Matrix::transposed(&x[start..], plane);
                                product(sizes, gradient, columns, &mut sum, depth, !first);
                            } else {
                                columns.resize((depth * width).max(columns.len()), T::ZERO);
                                self.unfold(x, rows, columns, width);
                                let columns = Matrix::transposed(columns, width);
                                product(sizes, gradient, columns, &mut sum, depth, !first);
                            }
                            first = false;
                        }
                    }
                });
                sum
            })
            .collect();
        if sums.is_empty() {
            return vec![T::ZERO; self.channels_out * depth];
        }
        let mut total = sums.remove(0);
        total.par_chunks_mut(16 * 1024).enumerate().for_each(|(chunk, total)| {
            for sum in &sums {
                for (total, value) in total.iter_mut().zip(&sum[chunk * 16 * 1024..]) {
                    *total += *value;
                }
            }
        });
        total
    }
}

impl Kernels for Geometry {
    fn shape(&self) -> (usize, usize, usize, usize) {
        (self.batch, self.channels_out, self.output.0, self.output.1)
    }

    fn output<T: Element>(&self, x: &[T], weight: &[T]) -> Vec<T> {
        self.forward(x, weight, |_, _, _, _| ())
    }

    fn input_gradient<T: Element>(&self, weight: &[T], gradient: &[T]) -> Vec<T> {
        if let Some(turned) = self.turned() {
            return match turned.winograd() {
                Some(winograd) => {
                    winograd.forward(gradient, &winograd.weights(weight, true), |_, _, _, _| ())
                }
                None => turned.forward_unfolded(gradient, &self.turn(weight), |_, _, _, _| ()),
            };
        }
        let (depth, plane) = (self.depth(), self.output_plane());
        let (input_size, output_size) = (self.channels_in * self.input_plane(), self.channels_out * plane);
        let images = self.images_per_tile();
        let mut dx = zeros(self.batch * input_size);
        let weight = Matrix::transposed(weight, depth);
        let jobs = dx.par_chunks_mut(images * input_size).zip(gradient.par_chunks(images * output_size));
        jobs.for_each(|(dx, gradient)| {
            let count = gradient.len() / output_size;
            T::with_scratch(|columns, gathered| {
                if count > 1 {
                    let width = count * plane;
                    columns.resize((depth * width).max(columns.len()), T::ZERO);
                    self.gather(gradient, gathered);
                    let sizes = (depth, self.channels_out, width);
                    product(sizes, weight, Matrix::rows(gathered, width), columns, width, false);
                    for (index, image) in dx.chunks_exact_mut(input_size).enumerate() {
                        self.fold(image, 0..self.output.0, &columns[index * plane..], width);
                    }
                    return;
                }
                for rows in self.row_tiles() {
                    let (start, width) = (rows.start * self.output.1, rows.len() * self.output.1);
                    columns.resize((depth * width).max(columns.len()), T::ZERO);
                    let sizes = (depth, self.channels_out, width);
                    product(sizes, weight, Matrix::rows(&gradient[start..], plane), columns, width, false);
                    self.fold(dx, rows, columns, width);
                }
            });
        });
        dx
    }

    fn weight_gradient<T: Element>(&self, x: &[T], gradient: &[T]) -> Vec<T> {
        match self.winograd() {
            Some(winograd) => winograd.backward_weight(x, gradient),
            None => self.backward_weight_unfolded(x, gradient),
        }
    }
}

/// Writes rows of a plane, shifted by whole rows and columns, as one copy: what runs over the end of a row into
/// the next is then overwritten with the zeros of the padding, which is what `inside` leaves out.
fn shift_rows<T: Element>(
    plane: &[T],
    first_row: usize,
    width: usize,
    (rows, columns): (isize, isize),
    inside: Range<usize>,
    target: &mut [T],
) {
    let start = (first_row as isize + rows) * width as isize + columns;
    // The part of the target whose source lies in the plane.
    let from = start.min(0).unsigned_abs().min(target.len());
    let to = (plane.len() as isize - start).clamp(from as isize, target.len() as isize) as usize;
    target[..from].fill(T::ZERO);
    if from < to {
        let source = (start + from as isize) as usize;
        target[from..to].copy_from_slice(&plane[source..source + to - from]);
    }
    target[to..].fill(T::ZERO);
    if inside.start > 0 || inside.end < width {
        for row in target.chunks_exact_mut(width) {
            row[..inside.start].fill(T::ZERO);
            row[inside.end..].fill(T::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Tape;
    use super::super::gradient_check::{check, close, gradients, normal};
    use super::*;

    /// Odd sizes, strides, paddings (also larger than the kernel and unequal), kernels of 1, 3 and 1 x 4.
    type Case = ([usize; 4], [usize; 4], usize, (usize, usize));
    const CASES: &[Case] = &[
        ([2, 3, 5, 7], [4, 3, 3, 3], 1, (1, 1)),
        ([3, 2, 6, 5], [3, 2, 3, 3], 2, (1, 1)),
        ([2, 2, 5, 5], [3, 2, 1, 1], 1, (0, 0)),
        ([2, 2, 5, 6], [3, 2, 1, 1], 2, (0, 0)),
        ([1, 2, 7, 5], [2, 2, 1, 4], 1, (0, 2)),
        ([1, 1, 3, 3], [1, 1, 2, 2], 1, (3, 2)),
        ([2, 1, 9, 9], [2, 1, 7, 7], 2, (3, 3)),
        ([1, 1, 2, 2], [2, 1, 5, 5], 3, (2, 2)),
        ([1, 1, 20, 17], [2, 1, 3, 3], 1, (1, 1)),
        ([1, 2, 3, 5], [1, 2, 5, 5], 1, (2, 2)),
    ];

    #[test]
    fn gradients_equal_finite_differences() -> Result<()> {
        for &(x, weight, stride, padding) in CASES {
            let inputs = [normal(&x, "x"), normal(&weight, "weight")];
            check(&inputs, &|inputs| conv2d(&inputs[0], &inputs[1], Convolution { stride, padding }))?;
        }
        Ok(())
    }

    #[test]
    fn the_kernel_equals_the_composition_of_other_devices() -> Result<()> {
        for &(x, weight, stride, padding) in CASES {
            let convolution = Convolution { stride, padding };
            let inputs = [normal(&x, "x"), normal(&weight, "weight")];
            close(
                &conv2d(&inputs[0], &inputs[1], convolution)?,
                &composed(&inputs[0], &inputs[1], convolution)?,
                1e-12,
            )?;
            let ours = gradients(&inputs, &|inputs| conv2d(&inputs[0], &inputs[1], convolution))?;
            let theirs = gradients(&inputs, &|inputs| composed(&inputs[0], &inputs[1], convolution))?;
            for (ours, theirs) in ours.iter().zip(&theirs) {
                close(ours, theirs, 1e-12)?;
            }
        }
        Ok(())
    }

    #[test]
    fn an_image_of_several_tiles_equals_the_composition() -> Result<()> {
        for (stride, kernel) in [(1, 3), (2, 3), (1, 1)] {
            let convolution = Convolution { stride, padding: (kernel / 2, kernel / 2) };
            let inputs = [normal(&[2, 60, 31, 29], "x"), normal(&[3, 60, kernel, kernel], "weight")];
            let geometry = Geometry::new(inputs[0].dims(), inputs[1].dims(), convolution)?;
            assert!(kernel == 1 || stride == 2 || geometry.row_tiles().count() > 1);
            let function = |inputs: &[Tensor]| conv2d(&inputs[0], &inputs[1], convolution);
            let other = |inputs: &[Tensor]| composed(&inputs[0], &inputs[1], convolution);
            close(&function(&inputs)?, &other(&inputs)?, 1e-12)?;
            for (ours, theirs) in gradients(&inputs, &function)?.iter().zip(&gradients(&inputs, &other)?) {
                close(ours, theirs, 1e-12)?;
            }
        }
        Ok(())
    }

    #[test]
    fn minimal_filtering_equals_the_unfolded_convolution_forward_and_backward() -> Result<()> {
        // Odd and even sizes, several images per job, several blocks per image, unequal channels, no padding and two.
        for (x, channels_out, padding) in [
            ([3, 2, 7, 9], 4, (1, 1)),
            ([5, 3, 8, 6], 2, (1, 0)),
            ([1, 40, 41, 90], 33, (1, 1)),
            ([2, 33, 5, 6], 32, (2, 2)),
        ] {
            let weight = [channels_out, x[1], 3, 3];
            let geometry = Geometry::new(&x, &weight, Convolution { stride: 1, padding })?;
            let Geometry { batch, channels_in, channels_out, input, output, padding, .. } = geometry;
            let winograd = Winograd { batch, channels_in, channels_out, input, output, padding };
            let list = |shape: &[usize], name: &str| normal(shape, name).flatten_all()?.to_vec1::<f64>();
            let (image, kernel) = (list(&x, "x")?, list(&weight, "weight")?);
            let gradient = list(&[batch, channels_out, output.0, output.1], "gradient")?;
            let same = |ours: Vec<f64>, theirs: Vec<f64>| {
                close(&Tensor::new(ours, &Device::Cpu)?, &Tensor::new(theirs, &Device::Cpu)?, 1e-12)
            };
            let seen = std::sync::Mutex::new(0);
            let finish =
                |_: usize, _: usize, _: usize, values: &mut [f64]| *seen.lock().unwrap() += values.len();
            let ours = winograd.forward(&image, &winograd.weights(&kernel, false), finish);
            assert_eq!(seen.into_inner().unwrap(), ours.len());
            same(ours, geometry.forward_unfolded(&image, &kernel, |_, _, _, _| ()))?;
            same(
                winograd.backward_weight(&image, &gradient),
                geometry.backward_weight_unfolded(&image, &gradient),
            )?;
            let turned = geometry.turned().expect("stride 1 and little padding");
            let back = Winograd {
                channels_in: turned.channels_in,
                channels_out: turned.channels_out,
                input: turned.input,
                output: turned.output,
                padding: turned.padding,
                ..winograd
            };
            same(
                back.forward(&gradient, &back.weights(&kernel, true), |_, _, _, _| ()),
                turned.forward_unfolded(&gradient, &geometry.turn(&kernel), |_, _, _, _| ()),
            )?;
        }
        Ok(())
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() -> Result<()> {
        // Unfolded at both strides, and by minimal filtering.
        for (channels, stride, padding) in [(5, 1, 1), (5, 2, 0), (32, 1, 1)] {
            let x = normal(&[37, channels, 11, 13], "x").to_dtype(DType::F32)?;
            let weight = normal(&[channels, channels, 3, 3], "weight").to_dtype(DType::F32)?;
            let inputs = [x.clone(), weight];
            let convolution = Convolution { stride, padding: (padding, padding) };
            let run = |threads: usize| -> Result<Vec<Vec<f32>>> {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                pool.install(|| {
                    let mut bits =
                        vec![conv2d(&inputs[0], &inputs[1], convolution)?.flatten_all()?.to_vec1()?];
                    for gradient in gradients(&inputs, &|inputs| conv2d(&inputs[0], &inputs[1], convolution))?
                    {
                        bits.push(gradient.flatten_all()?.to_vec1()?);
                    }
                    Ok(bits)
                })
            };
            let one = run(1)?;
            assert_eq!(one, run(2)?);
            assert_eq!(one, run(8)?);
        }
        Ok(())
    }

    #[test]
    fn a_fixed_convolution_is_a_convolution_then_a_norm_a_sum_and_an_activation() -> Result<()> {
        use super::super::{add, batch_norm_fixed, depthwise_conv2d, depthwise_conv2d_fixed};

        let single = |shape: &[usize], name: &str| normal(shape, name).to_dtype(DType::F32);
        let moments = (&single(&[5], "mean")?, &single(&[5], "variance")?.sqr()?);
        let (weight, bias) = (single(&[5], "weight")?, single(&[5], "bias")?);
        let map = ChannelMap::norm(moments, &weight, &bias, 1e-5)?;
        // A plane of several tiles, planes that share one, and a pointwise convolution.
        for (x, kernel) in [([1, 60, 70, 31], 3), ([3, 3, 5, 4], 3), ([2, 4, 6, 6], 1)] {
            let (x, kernel) = (single(&x, "x")?, single(&[5, x[1], kernel, kernel], "kernel")?);
            let convolution = Convolution { stride: 1, padding: (kernel.dim(2)? / 2, kernel.dim(3)? / 2) };
            let y = conv2d(&x, &kernel, convolution)?;
            let norm =
                |y: &Tensor, activation| batch_norm_fixed(y, moments, &weight, &bias, 1e-5, activation, None);
            let fixed = conv2d_fixed(&x, &kernel, convolution, &map, None, Activation::HardSwish)?;
            close(&fixed, &norm(&y, Activation::HardSwish)?, 1e-6)?;
            let residual = single(y.dims(), "residual")?;
            let fixed = conv2d_fixed(&x, &kernel, convolution, &map, Some(&residual), Activation::Relu)?;
            close(&fixed, &add(&norm(&y, Activation::Identity)?, &residual, Activation::Relu)?, 1e-6)?;
            assert!(conv2d_fixed(&x, &kernel, convolution, &map, Some(&weight), Activation::Relu).is_err());
        }
        let (x, kernel) = (single(&[2, 5, 9, 8], "x")?, single(&[5, 1, 3, 3], "kernel")?);
        let convolution = Convolution { stride: 2, padding: (1, 1) };
        let y = depthwise_conv2d(&x, &kernel, convolution)?;
        let norm = batch_norm_fixed(&y, moments, &weight, &bias, 1e-5, Activation::Relu6, None)?;
        close(&depthwise_conv2d_fixed(&x, &kernel, convolution, &map, Activation::Relu6)?, &norm, 1e-6)
    }

    #[test]
    fn what_is_not_trained_gets_no_gradient() -> Result<()> {
        let (x, weight) = (normal(&[1, 1, 4, 4], "x"), normal(&[1, 1, 3, 3], "weight"));
        let convolution = Convolution { stride: 1, padding: (1, 1) };
        let (y, tape) = Tape::record(|| conv2d(&x, &weight, convolution));
        assert!(!tape.tracks(&y?));
        let weight = candle_core::Var::from_tensor(&weight)?;
        let (y, tape) = Tape::record(|| conv2d(&x, weight.as_tensor(), convolution));
        let y = y?;
        let gradients = tape.backward(&y, y.ones_like()?, std::iter::empty())?;
        assert!(gradients.get(&x).is_none() && gradients.get(&weight).is_some());
        Ok(())
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() -> Result<()> {
        let convolution = Convolution { stride: 1, padding: (0, 0) };
        let x = normal(&[1, 2, 4, 4], "x");
        assert!(conv2d(&x, &normal(&[1, 3, 3, 3], "weight"), convolution).is_err());
        let error = conv2d(&x, &normal(&[1, 2, 5, 5], "weight"), convolution).expect_err("too small");
        assert!(error.to_string().contains("an image of 4 x 4 pixels is too small"), "{error}");
        Ok(())
    }
}
