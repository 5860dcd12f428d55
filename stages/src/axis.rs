//! What the pixels of an axis are made of when an image is resized with the bilinear filter.

use std::ops::Range;

use crate::simd::isa::for_each_isa;
use crate::simd::lanes::Lanes;

/// Bytes of the rows before the second pass, or of those before the first, that a thread keeps between two images.
pub(super) const ROWS_KEPT_BYTES_MAX: usize = 1 << 19;

/// The weights of one axis.
pub(super) struct Axis {
    pub(super) precision: u32,
    /// The first neighbour of each pixel.
    pub(super) starts: Vec<u32>,
    /// How many neighbours each has.
    pub(super) counts: Vec<usize>,
    /// The most of them, or one more: an even number.
    pub(super) taps: usize,
    /// `[pixels, taps]`.
    pub(super) weights: Vec<i16>,
}

impl Axis {
    /// The first neighbour of each of some pixels, and the weights of all of them.
    fn sums(&self, pixels: Range<usize>) -> impl Iterator<Item = (usize, &[i16])> {
        let starts = self.starts[pixels.clone()].iter().map(|start| *start as usize);
        starts.zip(self.weights[pixels.start * self.taps..].chunks_exact(self.taps))
    }

    /// The one behind the last of what a pixel is made of.
    pub(super) fn end(&self, pixel: usize) -> usize {
        self.starts[pixel] as usize + self.counts[pixel]
    }
}

for_each_isa! {
    /// Those of `out` pixels of which each is made of its neighbours among `length` pixels, from `start` to `end`. As Pillow's
    /// `precompute_coeffs`: triangles of the distance between two pixels that come out, and no narrower than of those that go
    /// in; as many fractional bits as 16 bits have room for.
    axis = axis_loop(length: u32, start: f64, end: f64, out: u32) -> Axis
}

#[inline(always)]
fn axis_loop(length: u32, start: f64, end: f64, out: u32) -> Axis {
    let scale = (end - start) / f64::from(out);
    let radius = scale.max(1.0);
    let by = 1.0 / radius;
    let most = 2 * radius.ceil() as usize + 1;
    let (mut starts, mut counts) = (Vec::with_capacity(out as usize), Vec::with_capacity(out as usize));
    let mut exact = vec![0.0; most * out as usize];
    for (pixel, exact) in (0..out).zip(exact.chunks_exact_mut(most)) {
        let centre = start + (f64::from(pixel) + 0.5) * scale;
        let first = (centre - radius).floor().max(0.0) as u32;
        let last = (centre + radius).ceil().min(f64::from(length)) as u32;
        let weight = |at: u32| (1.0 - ((f64::from(at) - (centre - 0.5)) * by).abs()).max(0.0);
        let first = (first..last).find(|at| weight(*at) > 0.0).unwrap_or(first);
        let mut sum = 0.0;
        for (exact, at) in exact.iter_mut().zip(first..last) {
            *exact = weight(at);
            sum += *exact;
        }
        exact.iter_mut().for_each(|weight| *weight /= sum);
        starts.push(first);
        counts.push(exact.iter().rposition(|weight| *weight > 0.0).map_or(0, |last| last + 1));
    }
    let largest = exact.iter().copied().fold(0.0, f64::max);
    let fits = |precision: &u32| (largest * f64::from(1 << (precision + 1))).round() < f64::from(1 << 15);
    let precision = (0..21).find(|precision| !fits(precision)).unwrap_or(21);
    let taps = counts.iter().max().map_or(0, |most| most.next_multiple_of(2));
    let one = f64::from(1 << precision);
    let mut weights = vec![0; taps * out as usize];
    for (weights, exact) in weights.chunks_exact_mut(taps.max(1)).zip(exact.chunks_exact(most)) {
        for (weight, exact) in weights.iter_mut().zip(exact) {
            *weight = (exact * one).round() as i16;
        }
    }
    Axis { precision, starts, counts, taps, weights }
}

/// Whether both axes of a window (left, top, width, height) change, so that there are two passes.
pub(super) fn is_resized([left, top, width, height]: [f64; 4], size: [u32; 2]) -> bool {
    let keeps = |from: f64, length: f64, to: u32| length == f64::from(to) && from == from.round();
    size.iter().all(|length| *length > 0) && !keeps(left, width, size[0]) && !keeps(top, height, size[1])
}

/// Rows of bytes, one behind the other.
pub(super) struct Rows<'a> {
    pub(super) bytes: &'a [u8],
    /// Bytes of a row, and those of them that are looked at.
    pub(super) stride: usize,
    pub(super) columns: Range<usize>,
    /// How many rows are here.
    pub(super) n: usize,
    /// Whether each row has the place of the one that is `n`, a power of two, before it. Else what lies behind the last row is like it.
    pub(super) is_ring: bool,
}

impl Rows<'_> {
    /// What of a row is looked at, from its byte `at` on, and what follows it.
    #[inline(always)]
    fn row(&self, row: usize, at: usize) -> &[u8] {
        debug_assert!(!self.is_ring || self.n.is_power_of_two());
        let row = if self.is_ring { row & (self.n - 1) } else { row.min(self.n - 1) };
        &self.bytes[row * self.stride + self.columns.start + at..]
    }
}

for_each_isa! {
    /// Some pixels of an axis, each of them a row: `[pixels, columns]`.
    down = vector_down / scalar_down(axis: &Axis, pixels: Range<usize>, rows: &Rows<'_>, out: &mut [u8])
}

#[inline(always)]
fn vector_down<L: Lanes>(
    proof: L::Proof,
    axis: &Axis,
    pixels: Range<usize>,
    rows: &Rows<'_>,
    out: &mut [u8],
) {
    let columns = rows.columns.len();
    let (zero, half) = (L::splat32(proof, 0), L::splat32(proof, 1 << (axis.precision - 1)));
    let mut read = [[0; 64]; 2];
    for ((start, weights), out) in axis.sums(pixels).zip(out.chunks_exact_mut(columns)) {
        let step = 16 * L::GROUPS;
        for at in (0..columns).step_by(step) {
            let mut sums = [half; 4];
            for (pair, weights) in weights.as_chunks::<2>().0.iter().enumerate() {
                let row = start + 2 * pair;
                let from = [row, row + 1].map(|row| rows.row(row, at));
                let [upper, lower] = match from.map(|from| from.first_chunk()) {
                    [Some(upper), Some(lower)] => [upper, lower],
                    // Vectors are read and written whole; what stands at the end goes through buffers.
                    _ => {
                        for (read, from) in read.iter_mut().zip(from) {
                            let here = from.len().min(64);
                            read[..here].copy_from_slice(&from[..here]);
                        }
                        [&read[0], &read[1]]
                    }
                };
                let (upper, lower) = (L::load_bytes(proof, upper), L::load_bytes(proof, lower));
                let weights = L::splat_pair(proof, *weights);
                let (low, high) = (upper.low8(lower), upper.high8(lower));
                let pairs = [low.low8(zero), low.high8(zero), high.low8(zero), high.high8(zero)];
                for (sum, pairs) in sums.iter_mut().zip(pairs) {
                    *sum = sum.add32(pairs.mul_add_pairs(weights));
                }
            }
            let [a, b, c, d] = sums.map(|sum| sum.shift_right32(axis.precision));
            let levels = a.narrow32(b).narrow_unsigned16(c.narrow32(d));
            let out = &mut out[at..];
            match out.first_chunk_mut() {
                Some(out) => levels.store_bytes(out),
                None => {
                    let mut written = [0; 64];
                    levels.store_bytes(&mut written);
                    let here = out.len().min(step);
                    out[..here].copy_from_slice(&written[..here]);
                }
            }
        }
    }
}

fn scalar_down(axis: &Axis, pixels: Range<usize>, rows: &Rows<'_>, out: &mut [u8]) {
    for ((start, weights), out) in axis.sums(pixels).zip(out.chunks_exact_mut(rows.columns.len())) {
        for (at, out) in out.iter_mut().enumerate() {
            let products = weights.iter().enumerate();
            let products =
                products.map(|(tap, weight)| i32::from(rows.row(start + tap, at)[0]) * i32::from(*weight));
            let sum = (1 << (axis.precision - 1)) + products.sum::<i32>();
            *out = (sum >> axis.precision).clamp(0, 255) as u8;
        }
    }
}
