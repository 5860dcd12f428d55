//! What the pixels of an axis are made of when an image is resized with the bilinear filter.

use std::ops::Range;

use crate::simd::isa::for_each_isa;
use crate::simd::weigh::Weights;

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
    /// Those of some of the pixels.
    pub(super) fn weights(&self, pixels: Range<usize>) -> Weights<'_> {
        Weights {
            precision: self.precision,
            starts: &self.starts[pixels.clone()],
            weights: &self.weights[pixels.start * self.taps..pixels.end * self.taps],
        }
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
