//! Rows of samples become rows of pixels: chroma is upsampled as libjpeg's "fancy upsampling" does it, then YCbCr becomes RGB.

use crate::simd::isa::for_each_isa;
use crate::simd::lanes::Lanes;

/// What three samples of a pixel mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Model {
    /// YCbCr as JFIF defines it, turned to RGB with libjpeg's fixed point (`jdcolor.c`).
    Ycc,
    /// Red, green and blue.
    Rgb,
}

for_each_isa! {
    /// Samples of three channels, `[n]` each, to pixels, `[n, 3]`.
    pixels = vector_pixels / scalar_pixels(model: Model, channels: [&[u8]; 3], rgb: &mut [u8])
}

#[inline(always)]
fn vector_pixels<L: Lanes>(proof: L::Proof, model: Model, channels: [&[u8]; 3], rgb: &mut [u8]) {
    let n = channels[0].len();
    let channels = channels.map(|channel| &channel[..n]);
    let step = 16 * L::GROUPS;
    for (at, rgb) in (0..n).step_by(step).zip(rgb[..3 * n].chunks_mut(3 * step)) {
        // Vectors are read and written whole; what stands at the end goes through buffers.
        let mut read = [[0; 64]; 3];
        let mut from = [&[0; 64]; 3];
        for ((from, read), channel) in from.iter_mut().zip(&mut read).zip(channels) {
            let rest = &channel[at..];
            *from = match rest.first_chunk::<64>() {
                Some(whole) => whole,
                None => {
                    read[..rest.len()].copy_from_slice(rest);
                    read
                }
            };
        }
        let from =
            [L::load_bytes(proof, from[0]), L::load_bytes(proof, from[1]), L::load_bytes(proof, from[2])];
        let pixels = match model {
            Model::Ycc => ycc(proof, from),
            Model::Rgb => from,
        };
        let mut written = [0; 192];
        L::store_triples(pixels, &mut written);
        rgb.copy_from_slice(&written[..rgb.len()]);
    }
}

#[inline(always)]
fn ycc<L: Lanes>(proof: L::Proof, [y, cb, cr]: [L; 3]) -> [L; 3] {
    let zero = L::splat32(proof, 0);
    let low = ycc16(proof, [y.low8(zero), cb.low8(zero), cr.low8(zero)]);
    let high = ycc16(proof, [y.high8(zero), cb.high8(zero), cr.high8(zero)]);
    [low[0].narrow_unsigned16(high[0]), low[1].narrow_unsigned16(high[1]), low[2].narrow_unsigned16(high[2])]
}

/// As [`scalar_ycc`], in 16-bit lanes.
#[inline(always)]
fn ycc16<L: Lanes>(proof: L::Proof, [y, cb, cr]: [L; 3]) -> [L; 3] {
    let one = L::splat_pair(proof, [1, 1]);
    let middle = L::splat_pair(proof, [128, 128]);
    let (cb, cr) = (cb.sub16(middle), cr.sub16(middle));
    let (cb2, cr2) = (cb.add16(cb), cr.add16(cr));
    let red = cr2
        .mul_high16(L::splat_pair(proof, [CR_TO_RED; 2]))
        .add16(one)
        .shift_right16::<1>()
        .add16(cr)
        .add16(y);
    let blue = cb2
        .mul_high16(L::splat_pair(proof, [CB_TO_BLUE; 2]))
        .add16(one)
        .shift_right16::<1>()
        .add16(cb2)
        .add16(y);
    let (by, half) = (L::splat_pair(proof, [CB_TO_GREEN, CR_TO_GREEN]), L::splat32(proof, 1 << 15));
    let low = cb.low16(cr).mul_add_pairs(by).add32(half).shift_right32(16);
    let high = cb.high16(cr).mul_add_pairs(by).add32(half).shift_right32(16);
    let green = low.narrow32(high).sub16(cr).add16(y);
    [red, green, blue]
}

/// What JFIF's constants (1.402, 1.772, 0.34414, 0.71414) are beyond 1, 2, 0 and 1, with 16 fractional bits.
const CR_TO_RED: i16 = 26345;
const CB_TO_BLUE: i16 = -14942;
const CB_TO_GREEN: i16 = -22554;
const CR_TO_GREEN: i16 = 18734;

fn scalar_pixels(model: Model, [a, b, c]: [&[u8]; 3], rgb: &mut [u8]) {
    for (((pixel, &a), &b), &c) in rgb.chunks_exact_mut(3).zip(a).zip(b).zip(c) {
        let made = match model {
            Model::Rgb => [a, b, c],
            Model::Ycc => scalar_ycc(i32::from(a), i32::from(b) - 128, i32::from(c) - 128),
        };
        pixel.copy_from_slice(&made);
    }
}

fn scalar_ycc(y: i32, cb: i32, cr: i32) -> [u8; 3] {
    let rounded = |product: i32| (product + (1 << 15)) >> 16;
    let red = y + cr + rounded(cr * i32::from(CR_TO_RED));
    let green = y - cr + rounded(cb * i32::from(CB_TO_GREEN) + cr * i32::from(CR_TO_GREEN));
    let blue = y + 2 * cb + rounded(cb * i32::from(CB_TO_BLUE));
    [red, green, blue].map(|level| level.clamp(0, 255) as u8)
}

for_each_isa! {
    /// Samples that are luma and chroma in one: `[n]` to `[n, 3]`.
    gray = gray_loop(y: &[u8], rgb: &mut [u8])
}
for_each_isa! {
    /// Twice as many samples: `[n + 2]`, with a neighbour at either end, to `[2 * n]`. Three quarters of a sample are the nearer
    /// one (`h2v1_fancy_upsample`).
    double_across = double_across_loop(samples: &[u8], out: &mut [u8])
}
for_each_isa! {
    /// Rows between rows: three quarters of the nearer one, `[n]` each; `round_up` for the lower one of two
    /// (`h1v2_fancy_upsample`).
    double_down = double_down_loop(near: &[u8], far: &[u8], round_up: bool, out: &mut [u8])
}
for_each_isa! {
    /// Both at once: `[n + 2]` each, with a neighbour at either end, to `[2 * n]` (`h2v2_fancy_upsample`).
    double_both = double_both_loop(near: &[u8], far: &[u8], out: &mut [u8])
}

#[inline(always)]
fn gray_loop(y: &[u8], rgb: &mut [u8]) {
    for (pixel, level) in rgb.chunks_exact_mut(3).zip(y) {
        pixel.fill(*level);
    }
}

#[inline(always)]
fn double_across_loop(samples: &[u8], out: &mut [u8]) {
    let n = samples.len() - 2;
    let (before, here, after) = (&samples[..n], &samples[1..=n], &samples[2..]);
    let out = &mut out[..2 * n];
    for i in 0..n {
        let three = 3 * u16::from(here[i]);
        out[2 * i] = ((three + u16::from(before[i]) + 1) >> 2) as u8;
        out[2 * i + 1] = ((three + u16::from(after[i]) + 2) >> 2) as u8;
    }
}

#[inline(always)]
fn double_down_loop(near: &[u8], far: &[u8], round_up: bool, out: &mut [u8]) {
    let n = near.len();
    let (far, out) = (&far[..n], &mut out[..n]);
    let half = 1 + u16::from(round_up);
    for i in 0..n {
        out[i] = ((3 * u16::from(near[i]) + u16::from(far[i]) + half) >> 2) as u8;
    }
}

#[inline(always)]
fn double_both_loop(near: &[u8], far: &[u8], out: &mut [u8]) {
    let n = near.len() - 2;
    let (far, out) = (&far[..n + 2], &mut out[..2 * n]);
    let sum = |i: usize| 3 * u16::from(near[i]) + u16::from(far[i]);
    for i in 0..n {
        let three = 3 * sum(i + 1);
        out[2 * i] = ((three + sum(i) + 8) >> 4) as u8;
        out[2 * i + 1] = ((three + sum(i + 2) + 7) >> 4) as u8;
    }
}

#[cfg(test)]
mod tests {
    use forebay_datasets::seed::Seed;

    use super::*;
    use crate::simd::isa::Isa;

    #[test]
    fn rows_of_vectors_are_those_of_single_numbers() {
        let mut stream = Seed(5).stream("rows");
        for n in 1..300 {
            let mut row = |n: usize| (0..n).map(|_| stream.below(256) as u8).collect::<Vec<u8>>();
            let channels = [row(n), row(n), row(n)];
            let [near, far] = [row(n + 2), row(n + 2)];
            let made = |isa| {
                let mut made = [(); 6].map(|()| vec![0; 3 * n]);
                let [ycc, rgb, gray_row, across, down, both] = &mut made;
                let of = channels.each_ref().map(Vec::as_slice);
                pixels(isa, Model::Ycc, of, ycc);
                pixels(isa, Model::Rgb, of, rgb);
                gray(isa, of[0], gray_row);
                double_across(isa, &near, across);
                double_down(isa, &near, &far, n % 2 == 0, down);
                double_both(isa, &near, &far, both);
                made
            };
            let expected = made(Isa::Scalar);
            for isa in Isa::all() {
                assert!(made(isa) == expected, "{n} {isa:?}");
            }
        }
    }

    #[test]
    fn colours_are_those_of_jfif() {
        for (ycc, rgb) in [
            ([0, 128, 128], [0, 0, 0]),
            ([255, 128, 128], [255, 255, 255]),
            ([76, 85, 255], [254, 0, 0]),
            ([150, 44, 21], [0, 255, 1]),
        ] {
            let [y, cb, cr] = ycc.map(|level: i32| level);
            assert_eq!(scalar_ycc(y, cb - 128, cr - 128), rgb);
        }
    }
}
