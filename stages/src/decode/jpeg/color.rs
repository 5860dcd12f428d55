//! Rows of samples become rows of pixels: chroma is upsampled as libjpeg's "fancy upsampling" does it, then YCbCr becomes RGB.
//!
//! The loops are written once and compiled for each of the [`Isa`]s; the compiler makes vectors of them.

use super::idct::Isa;
#[cfg(target_arch = "x86_64")]
use super::lanes::{
    Lanes,
    x86::{Avx2, Avx512},
};

/// Makes of one loop a function that runs it with the instructions of an [`Isa`].
macro_rules! for_each_isa {
    ($(#[$doc:meta])* $name:ident = $loop:ident($($argument:ident: $type:ty),*)) => {
        $(#[$doc])*
        pub(super) fn $name(isa: Isa, $($argument: $type),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn avx2($($argument: $type),*) {
                $loop($($argument),*);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
            fn avx512($($argument: $type),*) {
                $loop($($argument),*);
            }
            match isa {
                Isa::Scalar => $loop($($argument),*),
                // SAFETY: `Isa::detect` has found the instructions that the functions need.
                #[cfg(target_arch = "x86_64")]
                #[allow(unsafe_code, reason = "see above")]
                Isa::Avx2 => unsafe { avx2($($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                #[allow(unsafe_code, reason = "see above")]
                Isa::Avx512 => unsafe { avx512($($argument),*) },
            }
        }
    };
}

/// What three samples of a pixel mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Model {
    /// YCbCr as JFIF defines it, turned to RGB with libjpeg's fixed point (`jdcolor.c`).
    Ycc,
    /// Red, green and blue.
    Rgb,
}

/// Samples of three channels, `[n]` each, to pixels, `[n, 3]`.
pub(super) fn pixels(isa: Isa, model: Model, channels: [&[u8]; 3], rgb: &mut [u8]) {
    match isa {
        Isa::Scalar => scalar_pixels(model, channels, rgb),
        // SAFETY: `Isa::detect` has found the instructions that the functions need.
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code, reason = "see above")]
        Isa::Avx2 => unsafe { avx2_pixels(model, channels, rgb) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code, reason = "see above")]
        Isa::Avx512 => unsafe { avx512_pixels(model, channels, rgb) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2_pixels(model: Model, channels: [&[u8]; 3], rgb: &mut [u8]) {
    // SAFETY: this function has the instructions enabled.
    #[allow(unsafe_code, reason = "see above")]
    unsafe {
        vector_pixels::<Avx2>(model, channels, rgb);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2")]
fn avx512_pixels(model: Model, channels: [&[u8]; 3], rgb: &mut [u8]) {
    // SAFETY: this function has the instructions enabled.
    #[allow(unsafe_code, reason = "see above")]
    unsafe {
        vector_pixels::<Avx512>(model, channels, rgb);
    }
}

/// # Safety
/// As [`Lanes`].
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "its callers have the instructions enabled")]
#[inline(always)]
unsafe fn vector_pixels<L: Lanes>(model: Model, channels: [&[u8]; 3], rgb: &mut [u8]) {
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
        // SAFETY: the caller's.
        unsafe {
            let from = [L::load_bytes(from[0]), L::load_bytes(from[1]), L::load_bytes(from[2])];
            let pixels = match model {
                Model::Ycc => ycc(from),
                Model::Rgb => from,
            };
            let mut written = [0; 192];
            L::store_triples(pixels, &mut written);
            rgb.copy_from_slice(&written[..rgb.len()]);
        }
    }
}

/// # Safety
/// As [`Lanes`].
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "its callers have the instructions enabled")]
#[inline(always)]
unsafe fn ycc<L: Lanes>([y, cb, cr]: [L; 3]) -> [L; 3] {
    // SAFETY: the caller's.
    unsafe {
        let zero = L::splat32(0);
        let low = ycc16([y.low8(zero), cb.low8(zero), cr.low8(zero)]);
        let high = ycc16([y.high8(zero), cb.high8(zero), cr.high8(zero)]);
        [
            low[0].narrow_unsigned16(high[0]),
            low[1].narrow_unsigned16(high[1]),
            low[2].narrow_unsigned16(high[2]),
        ]
    }
}

/// As [`scalar_ycc`], in 16-bit lanes.
///
/// # Safety
/// As [`Lanes`].
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "its callers have the instructions enabled")]
#[inline(always)]
unsafe fn ycc16<L: Lanes>([y, cb, cr]: [L; 3]) -> [L; 3] {
    // SAFETY: the caller's.
    unsafe {
        let one = L::splat_pair([1, 1]);
        let middle = L::splat_pair([128, 128]);
        let (cb, cr) = (cb.sub16(middle), cr.sub16(middle));
        let (cb2, cr2) = (cb.add16(cb), cr.add16(cr));
        let red =
            cr2.mul_high16(L::splat_pair([CR_TO_RED; 2])).add16(one).shift_right16::<1>().add16(cr).add16(y);
        let blue = cb2
            .mul_high16(L::splat_pair([CB_TO_BLUE; 2]))
            .add16(one)
            .shift_right16::<1>()
            .add16(cb2)
            .add16(y);
        let (by, half) = (L::splat_pair([CB_TO_GREEN, CR_TO_GREEN]), L::splat32(1 << 15));
        let low = cb.low16(cr).mul_add_pairs(by).add32(half).shift_right32::<16>();
        let high = cb.high16(cr).mul_add_pairs(by).add32(half).shift_right32::<16>();
        let green = low.narrow32(high).sub16(cr).add16(y);
        [red, green, blue]
    }
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
