//! Convolution with 3 x 3 kernels at stride 1 by the minimal filtering algorithm F(2 x 2, 3 x 3) (Winograd; Lavin and
//! Gray, arXiv 1509.09308): a tile of 2 x 2 output pixels from 4 x 4 input pixels with 16 multiplications instead of 36.
//!
//! Tiles are transformed by sums and differences, so that each of the 16 positions in a tile becomes a matrix product
//! over channels. The larger F(4 x 4, 3 x 3) would save more, but its constants cost about a digit of precision.

use rayon::prelude::*;

use super::product::{Matrix, product};
use super::{Element, zeros};

/// Positions of a transformed tile.
const POSITIONS: usize = 16;
/// Values of transformed tiles that a job works on, inputs and outputs: 2 MiB of f32.
const BLOCK_VALUES: usize = 512 * 1024;
/// Tiles of a block, at least: below, packing the weights costs more than multiplying by them.
const BLOCK_TILES: usize = 64;
/// Values of transformed tiles that the gradient of the weights keeps at a time: 32 MiB of f32.
const GROUP_VALUES: usize = 8 * 1024 * 1024;

/// A convolution with 3 x 3 kernels at stride 1.
#[derive(Clone, Copy)]
pub(super) struct Winograd {
    pub(super) batch: usize,
    pub(super) channels_in: usize,
    pub(super) channels_out: usize,
    pub(super) input: (usize, usize),
    pub(super) output: (usize, usize),
    pub(super) padding: (usize, usize),
}

/// Rows that the input transform works in.
struct Scratch<T> {
    rows: Vec<T>,
    even: Vec<T>,
    odd: Vec<T>,
}

impl Winograd {
    /// Where the transforms cost less than the multiplications they save.
    pub(super) fn pays(&self) -> bool {
        self.channels_in.min(self.channels_out) >= 32 && self.output.0.min(self.output.1) >= 4
    }

    fn tiles(&self) -> (usize, usize) {
        (self.output.0.div_ceil(2), self.output.1.div_ceil(2))
    }

    fn scratch<T: Element>(&self) -> Scratch<T> {
        let columns = self.tiles().1 + 1;
        Scratch {
            rows: vec![T::ZERO; 8 * columns],
            even: vec![T::ZERO; columns],
            odd: vec![T::ZERO; columns],
        }
    }

    /// `G g Gᵀ` of every kernel: `[16, channels_out, channels_in]` from `[channels_out, channels_in, 3, 3]`, or, where
    /// `turned`, from `[channels_in, channels_out, 3, 3]` turned by 180 degrees: the weights that carry a gradient back.
    #[allow(clippy::needless_range_loop)] // The column runs over two matrices at once.
    pub(super) fn weights<T: Element>(&self, weight: &[T], turned: bool) -> Vec<T> {
        let half = T::from_f64(0.5);
        let size = self.channels_out * self.channels_in;
        let mut transformed = zeros(POSITIONS * size);
        // A block of rows at a time is transformed into a buffer of its own, since its values lie in 16 places.
        let blocks: Vec<Vec<T>> = (0..self.channels_out)
            .into_par_iter()
            .map(|channel_out| {
                let mut row = vec![T::ZERO; POSITIONS * self.channels_in];
                for channel_in in 0..self.channels_in {
                    let index = match turned {
                        false => channel_out * self.channels_in + channel_in,
                        true => channel_in * self.channels_out + channel_out,
                    };
                    let kernel = &weight[index * 9..][..9];
                    let at = |row: usize, column: usize| {
                        if turned { kernel[8 - row * 3 - column] } else { kernel[row * 3 + column] }
                    };
                    let mut rows = [[T::ZERO; 3]; 4];
                    for column in 0..3 {
                        let (first, middle, last) = (at(0, column), at(1, column), at(2, column));
                        rows[0][column] = first;
                        rows[1][column] = (first + middle + last) * half;
                        rows[2][column] = (first - middle + last) * half;
                        rows[3][column] = last;
                    }
                    for (position, [first, middle, last]) in rows.into_iter().enumerate() {
                        let values =
                            [first, (first + middle + last) * half, (first - middle + last) * half, last];
                        for (offset, value) in values.into_iter().enumerate() {
                            row[(position * 4 + offset) * self.channels_in + channel_in] = value;
                        }
                    }
                }
                row
            })
            .collect();
        transformed.par_chunks_mut(size).enumerate().for_each(|(position, target)| {
            for (target, row) in target.chunks_exact_mut(self.channels_in).zip(&blocks) {
                target.copy_from_slice(&row[position * self.channels_in..][..self.channels_in]);
            }
        });
        transformed
    }

    /// `Bᵀ d B` of one row of tiles of a plane; position `p` goes to `target[p * stride..]`.
    #[inline(always)]
    fn transform_input<T: Element>(
        &self,
        plane: &[T],
        tile_row: usize,
        scratch: &mut Scratch<T>,
        target: &mut [T],
        stride: usize,
    ) {
        let (height, width) = self.input;
        let tiles = self.tiles().1;
        let columns = 2 * (tiles + 1);
        for (row, values) in scratch.rows.chunks_exact_mut(columns).enumerate() {
            let source = (tile_row * 2 + row).wrapping_sub(self.padding.0);
            if source >= height {
                values.fill(T::ZERO);
                continue;
            }
            values[..self.padding.1].fill(T::ZERO);
            values[self.padding.1..][..width].copy_from_slice(&plane[source * width..][..width]);
            values[self.padding.1 + width..].fill(T::ZERO);
        }
        let Scratch { rows, even, odd } = scratch;
        let row = |index: usize| rows[index * columns..][..columns].as_chunks::<2>().0;
        let (even, odd) = (&mut even[..tiles + 1], &mut odd[..tiles + 1]);
        for (position, (left, right, sign)) in
            [(0, 2, -1.0), (1, 2, 1.0), (2, 1, -1.0), (1, 3, -1.0)].into_iter().enumerate()
        {
            let sign = T::from_f64(sign);
            for (((even, odd), left), right) in even.iter_mut().zip(&mut *odd).zip(row(left)).zip(row(right))
            {
                *even = left[0] + right[0] * sign;
                *odd = left[1] + right[1] * sign;
            }
            let (next, after) = (&even[1..], &odd[1..]);
            let targets = |offset: usize| (position * 4 + offset) * stride;
            for (target, (even, next)) in target[targets(0)..].iter_mut().zip(even.iter().zip(next)) {
                *target = *even - *next;
            }
            for (target, (odd, next)) in target[targets(1)..].iter_mut().zip(odd.iter().zip(next)) {
                *target = *odd + *next;
            }
            for (target, (odd, next)) in target[targets(2)..].iter_mut().zip(odd.iter().zip(next)) {
                *target = *next - *odd;
            }
            for (target, (odd, after)) in target[targets(3)..].iter_mut().zip(odd.iter().zip(after)) {
                *target = *odd - *after;
            }
        }
    }

    /// `Aᵀ m A` of one row of tiles: two rows of output pixels, each `2 * tiles` long, into `rows`.
    #[inline(always)]
    fn transform_output<T: Element>(values: &[T], stride: usize, tiles: usize, rows: &mut [T]) {
        let source: [&[T]; POSITIONS] = std::array::from_fn(|position| &values[position * stride..][..tiles]);
        let (upper, lower) = rows.split_at_mut(2 * tiles);
        let (upper, lower) = (upper.as_chunks_mut::<2>().0, lower.as_chunks_mut::<2>().0);
        for tile in 0..tiles {
            let at = |row: usize, column: usize| source[row * 4 + column][tile];
            let (mut first, mut second) = ([T::ZERO; 4], [T::ZERO; 4]);
            for column in 0..4 {
                first[column] = at(0, column) + at(1, column) + at(2, column);
                second[column] = at(1, column) - at(2, column) - at(3, column);
            }
            upper[tile] = [first[0] + first[1] + first[2], first[1] - first[2] - first[3]];
            lower[tile] = [second[0] + second[1] + second[2], second[1] - second[2] - second[3]];
        }
    }

    /// `A g Aᵀ` of one row of tiles of a gradient: the transpose of [`Winograd::transform_output`].
    #[inline(always)]
    fn transform_gradient<T: Element>(
        &self,
        plane: &[T],
        tile_row: usize,
        rows: &mut [T],
        target: &mut [T],
        stride: usize,
    ) {
        let (height, width) = self.output;
        let tiles = self.tiles().1;
        let (upper, lower) = rows.split_at_mut(2 * tiles);
        for (row, values) in [(2 * tile_row, &mut *upper), (2 * tile_row + 1, &mut *lower)] {
            values.fill(T::ZERO);
            if row < height {
                values[..width].copy_from_slice(&plane[row * width..][..width]);
            }
        }
        let (upper, lower) = (upper.as_chunks::<2>().0, lower.as_chunks::<2>().0);
        for position in 0..4 {
            for (tile, (upper, lower)) in upper.iter().zip(lower).enumerate() {
                // Row `position` of A: (1, 0), (1, 1), (1, -1), (0, -1).
                let combine = |upper: T, lower: T| match position {
                    0 => upper,
                    1 => upper + lower,
                    2 => upper - lower,
                    _ => T::ZERO - lower,
                };
                let (left, right) = (combine(upper[0], lower[0]), combine(upper[1], lower[1]));
                let values = [left, left + right, left - right, T::ZERO - right];
                for (offset, value) in values.into_iter().enumerate() {
                    target[(position * 4 + offset) * stride + tile] = value;
                }
            }
        }
    }

    /// Images that a job takes together: several where planes are small. A function of the shape alone.
    fn images_per_job(&self) -> usize {
        let (rows, columns) = self.tiles();
        let fitting = (BLOCK_TILES / (rows * columns)).max(1);
        1 << fitting.ilog2()
    }

    /// `[batch, channels_out, height, width]` of the output, from weights of [`Winograd::weights`]. `finish` gets the
    /// finished values of one channel while they are in cache: image, channel, place of the first in the plane, values.
    pub(super) fn forward<T: Element>(
        &self,
        x: &[T],
        weights: &[T],
        finish: impl Fn(usize, usize, usize, &mut [T]) + Sync,
    ) -> Vec<T> {
        let (channels_in, channels_out) = (self.channels_in, self.channels_out);
        let (in_plane, out_plane) = (self.input.0 * self.input.1, self.output.0 * self.output.1);
        let (tile_rows, tiles) = self.tiles();
        let images = self.images_per_job();
        let mut y = zeros(self.batch * channels_out * out_plane);
        let wanted = (BLOCK_VALUES / (POSITIONS * (channels_in + channels_out))).max(BLOCK_TILES);
        let jobs = y
            .par_chunks_mut(images * channels_out * out_plane)
            .zip(x.par_chunks(images * channels_in * in_plane));
        jobs.enumerate().for_each(|(job, (y, x))| {
            let count = y.len() / (channels_out * out_plane);
            let rows_per_block = if count > 1 { tile_rows } else { (wanted / tiles).clamp(1, tile_rows) };
            let mut scratch = self.scratch();
            let mut out_rows = vec![T::ZERO; 4 * tiles];
            T::with_scratch(|inputs, outputs| {
                for first in (0..tile_rows).step_by(rows_per_block) {
                    let rows = first..(first + rows_per_block).min(tile_rows);
                    let width = count * rows.len() * tiles;
                    inputs.resize((POSITIONS * channels_in * width).max(inputs.len()), T::ZERO);
                    outputs.resize((POSITIONS * channels_out * width).max(outputs.len()), T::ZERO);
                    T::vectorized(
                        #[inline(always)]
                        || {
                            for (index, plane) in x.chunks_exact(in_plane).enumerate() {
                                let (image, channel) = (index / channels_in, index % channels_in);
                                for (slot, row) in rows.clone().enumerate() {
                                    let start = channel * width + (image * rows.len() + slot) * tiles;
                                    let target = &mut inputs[start..];
                                    self.transform_input(
                                        plane,
                                        row,
                                        &mut scratch,
                                        target,
                                        channels_in * width,
                                    );
                                }
                            }
                        },
                    );
                    for position in 0..POSITIONS {
                        product(
                            (channels_out, channels_in, width),
                            Matrix::rows(&weights[position * channels_out * channels_in..], channels_in),
                            Matrix::rows(&inputs[position * channels_in * width..], width),
                            &mut outputs[position * channels_out * width..],
                            width,
                            false,
                        );
                    }
                    for (index, plane) in y.chunks_exact_mut(out_plane).enumerate() {
                        let (image, channel) = (index / channels_out, index % channels_out);
                        for (slot, row) in rows.clone().enumerate() {
                            let start = channel * width + (image * rows.len() + slot) * tiles;
                            T::vectorized(
                                #[inline(always)]
                                || {
                                    let source = &outputs[start..];
                                    Winograd::transform_output(
                                        source,
                                        channels_out * width,
                                        tiles,
                                        &mut out_rows,
                                    );
                                },
                            );
                            let lines = plane[2 * row * self.output.1..].chunks_exact_mut(self.output.1);
                            for (line, values) in lines.zip(out_rows.chunks_exact(2 * tiles)) {
                                line.copy_from_slice(&values[..self.output.1]);
                            }
                        }
                        let start = 2 * rows.start * self.output.1;
                        let end = (2 * rows.end).min(self.output.0) * self.output.1;
                        finish(job * images + image, channel, start, &mut plane[start..end]);
                    }
                }
            });
        });
        y
    }

    /// The gradient of the weights, `[channels_out, channels_in, 3, 3]`. Groups of images are transformed channel by
    /// channel; then every position of a tile is a sum of its own, so that no partial sums are added.
    pub(super) fn backward_weight<T: Element>(&self, x: &[T], gradient: &[T]) -> Vec<T> {
        let (channels_in, channels_out) = (self.channels_in, self.channels_out);
        let (in_plane, out_plane) = (self.input.0 * self.input.1, self.output.0 * self.output.1);
        let (tile_rows, tiles) = self.tiles();
        let per_image = tile_rows * tiles;
        let images = (GROUP_VALUES / (POSITIONS * (channels_in + channels_out) * per_image))
            .clamp(1, self.batch.max(1));
        let mut sums = vec![T::ZERO; POSITIONS * channels_out * channels_in];
        let mut inputs = zeros(channels_in * POSITIONS * images * per_image);
        let mut outputs = zeros(channels_out * POSITIONS * images * per_image);
        // Rows of the product per job.
        let block = channels_out.div_ceil(2);
        for first in (0..self.batch).step_by(images) {
            let count = images.min(self.batch - first);
            let width = count * per_image;
            inputs.par_chunks_mut(POSITIONS * width).take(channels_in).enumerate().for_each(
                |(channel, target)| {
                    let mut scratch = self.scratch();
                    T::vectorized(
                        #[inline(always)]
                        || {
                            for image in 0..count {
                                let plane =
                                    &x[((first + image) * channels_in + channel) * in_plane..][..in_plane];
                                for row in 0..tile_rows {
                                    let target = &mut target[(image * tile_rows + row) * tiles..];
                                    self.transform_input(plane, row, &mut scratch, target, width);
                                }
                            }
                        },
                    );
                },
            );
            outputs.par_chunks_mut(POSITIONS * width).take(channels_out).enumerate().for_each(
                |(channel, target)| {
                    let mut rows = vec![T::ZERO; 4 * tiles];
                    T::vectorized(
                        #[inline(always)]
                        || {
                            for image in 0..count {
                                let plane = &gradient
                                    [((first + image) * channels_out + channel) * out_plane..][..out_plane];
                                for row in 0..tile_rows {
                                    let target = &mut target[(image * tile_rows + row) * tiles..];
                                    self.transform_gradient(plane, row, &mut rows, target, width);
                                }
                            }
                        },
                    );
                },
            );
            let stride = POSITIONS * width;
            sums.par_chunks_mut(channels_out * channels_in).enumerate().for_each(|(position, sums)| {
                sums.par_chunks_mut(block * channels_in).enumerate().for_each(|(index, sums)| {
                    let left = &outputs[index * block * stride + position * width..];
                    product(
                        (sums.len() / channels_in, width, channels_in),
                        Matrix::rows(left, stride),
                        Matrix::transposed(&inputs[position * width..], stride),
                        sums,
                        channels_in,
                        first > 0,
                    );
                });
            });
        }
        self.fold_weights(&sums)
    }

    /// `Gᵀ s G` of the sums of every pair of channels.
    #[allow(clippy::needless_range_loop)] // The column runs over several matrices at once.
    fn fold_weights<T: Element>(&self, sums: &[T]) -> Vec<T> {
        let half = T::from_f64(0.5);
        let size = self.channels_out * self.channels_in;
        let mut weights = vec![T::ZERO; size * 9];
        weights.par_chunks_mut(9 * self.channels_in).enumerate().for_each(|(channel_out, weights)| {
            for (channel_in, kernel) in weights.chunks_exact_mut(9).enumerate() {
                let pair = channel_out * self.channels_in + channel_in;
                let at = |row: usize, column: usize| sums[(row * 4 + column) * size + pair];
                let mut rows = [[T::ZERO; 4]; 3];
                for column in 0..4 {
                    let (plus, minus) = (at(1, column) * half, at(2, column) * half);
                    rows[0][column] = at(0, column) + plus + minus;
                    rows[1][column] = plus - minus;
                    rows[2][column] = plus + minus + at(3, column);
                }
                for (kernel, row) in kernel.chunks_exact_mut(3).zip(rows) {
                    let (plus, minus) = (row[1] * half, row[2] * half);
                    kernel.copy_from_slice(&[row[0] + plus + minus, plus - minus, plus + minus + row[3]]);
                }
            }
        });
        weights
    }
}
