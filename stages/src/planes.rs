//! Pixels as they lie in an image, `[n, 3]`, and as networks take them, three planes of `[n]`.

use std::marker::PhantomData;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::simd::isa::{Isa, for_each_isa};
use crate::simd::lanes::Lanes;
#[cfg(target_arch = "x86_64")]
use crate::simd::stream;

for_each_isa! {
    /// The planes of `n` pixels: `[n, 3]` to three times `[n]`. What follows them in the planes is written over.
    separate = vector_separate / scalar_separate(n: usize, rgb: &[u8], planes: [&mut [u8]; 3])
}
for_each_isa! {
    /// The same of the last pixel to the first one.
    separate_mirrored = vector_separate_mirrored / scalar_separate_mirrored(n: usize, rgb: &[u8], planes: [&mut [u8]; 3])
}
for_each_isa! {
    /// The pixels of each row from the last one to the first: `[rows, width, 3]`, twice.
    reverse_rows = vector_reverse / scalar_reverse(width: usize, rgb: &[u8], reversed: &mut [u8])
}
for_each_isa! {
    /// Grey levels as numbers: `level * scale + shift`, rounded after each of the two.
    to_f32 = to_f32_loop(levels: &[u8], scale: f32, shift: f32, numbers: &mut [f32])
}
for_each_isa! {
    /// The same as numbers of 16 bits, of which 8 are the exponent; the nearest one, of two the even one.
    to_bf16 = to_bf16_loop(levels: &[u8], scale: f32, shift: f32, numbers: &mut [bf16])
}

/// How numbers of 32 bits are stored.
#[derive(Clone, Copy)]
pub(super) enum Stores<'a> {
    /// As all else.
    Cached(PhantomData<&'a ()>),
    /// Past the caches.
    #[cfg(target_arch = "x86_64")]
    Streamed(&'a stream::Stream),
}

/// Lets `write` store numbers, past the caches where that is wanted and the machine can.
pub(super) fn with_stores<R>(isa: Isa, is_streamed: bool, write: impl FnOnce(Stores<'_>) -> R) -> R {
    match (isa, is_streamed) {
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512(has), true) => stream::streaming(has, |stream| write(Stores::Streamed(stream))),
        _ => write(Stores::Cached(PhantomData)),
    }
}

/// As [`to_f32`], stored in one way or the other.
pub(super) fn store_f32(
    (isa, stores): (Isa, Stores<'_>),
    levels: &[u8],
    scale: f32,
    shift: f32,
    numbers: &mut [f32],
) {
    match stores {
        Stores::Cached(_) => to_f32(isa, levels, scale, shift, numbers),
        #[cfg(target_arch = "x86_64")]
        Stores::Streamed(stream) => stream.to_f32(levels, scale, shift, numbers),
    }
}

/// The same as numbers of 16 bits, of which 5 are the exponent; the nearest one, of two the even one.
pub(super) fn to_f16(isa: Isa, levels: &[u8], scale: f32, shift: f32, numbers: &mut [f16]) {
    let mut wide = [0.0; 256];
    for (levels, numbers) in levels.chunks(wide.len()).zip(numbers.chunks_mut(wide.len())) {
        let wide = &mut wide[..levels.len()];
        to_f32(isa, levels, scale, shift, wide);
        numbers.convert_from_f32_slice(wide);
    }
}

/// The first bytes of pixels, as a vector reads them; behind the last one zeros.
#[inline(always)]
fn head<'a>(rgb: &'a [u8], read: &'a mut [u8; 192]) -> &'a [u8; 192] {
    match rgb.first_chunk() {
        Some(head) => head,
        None => {
            read[..rgb.len()].copy_from_slice(rgb);
            read
        }
    }
}

#[inline(always)]
fn vector_separate<L: Lanes>(proof: L::Proof, n: usize, rgb: &[u8], mut planes: [&mut [u8]; 3]) {
    for at in (0..n).step_by(16 * L::GROUPS) {
        let mut read = [0; 192];
        let channels = L::load_triples(proof, head(&rgb[3 * at..], &mut read));
        for (channel, plane) in channels.into_iter().zip(&mut planes) {
            let plane = &mut plane[at..];
            match plane.first_chunk_mut() {
                Some(bytes) => channel.store_bytes(bytes),
                None => {
                    let mut bytes = [0; 64];
                    channel.store_bytes(&mut bytes);
                    let here = plane.len().min(16 * L::GROUPS);
                    plane[..here].copy_from_slice(&bytes[..here]);
                }
            }
        }
    }
}

#[inline(always)]
fn scalar_separate(n: usize, rgb: &[u8], [red, green, blue]: [&mut [u8]; 3]) {
    let planes = red.iter_mut().zip(green).zip(blue);
    for (pixel, ((red, green), blue)) in rgb.as_chunks().0[..n].iter().zip(planes) {
        [*red, *green, *blue] = *pixel;
    }
}

#[inline(always)]
fn vector_separate_mirrored<L: Lanes>(proof: L::Proof, n: usize, rgb: &[u8], mut planes: [&mut [u8]; 3]) {
    let step = 16 * L::GROUPS;
    for at in (0..n).step_by(step) {
        let mut read = [0; 192];
        let channels = L::load_triples(proof, head(&rgb[3 * at..], &mut read));
        // The last ones stand first, behind what follows them in the row.
        let here = (n - at).min(step);
        let end = n - at;
        for (channel, plane) in channels.into_iter().zip(&mut planes) {
            let mut bytes = [0; 64];
            channel.reversed8().store_bytes(&mut bytes);
            plane[end - here..end].copy_from_slice(&bytes[step - here..step]);
        }
    }
}

#[inline(always)]
fn scalar_separate_mirrored(n: usize, rgb: &[u8], [red, green, blue]: [&mut [u8]; 3]) {
    let planes = red.iter_mut().zip(green).zip(blue);
    for (pixel, ((red, green), blue)) in rgb.as_chunks().0[..n].iter().rev().zip(planes) {
        [*red, *green, *blue] = *pixel;
    }
}

#[inline(always)]
fn vector_reverse<L: Lanes>(proof: L::Proof, width: usize, rgb: &[u8], reversed: &mut [u8]) {
    let step = 16 * L::GROUPS;
    for (row, reversed) in reversed.chunks_exact_mut(3 * width).enumerate() {
        for at in (0..width).step_by(step) {
            let mut read = [0; 192];
            let [red, green, blue] = L::load_triples(proof, head(&rgb[3 * (row * width + at)..], &mut read));
            let mut written = [0; 192];
            L::store_triples([red.reversed8(), green.reversed8(), blue.reversed8()], &mut written);
            // What stood behind the last pixel of the row stands before it now.
            let here = (width - at).min(step);
            let end = 3 * (width - at);
            reversed[end - 3 * here..end].copy_from_slice(&written[3 * (step - here)..3 * step]);
        }
    }
}

#[inline(always)]
fn scalar_reverse(width: usize, rgb: &[u8], reversed: &mut [u8]) {
    for (row, reversed) in rgb.chunks_exact(3 * width).zip(reversed.chunks_exact_mut(3 * width)) {
        for (pixel, reversed) in row.as_chunks::<3>().0.iter().rev().zip(reversed.as_chunks_mut().0) {
            *reversed = *pixel;
        }
    }
}

#[inline(always)]
fn to_f32_loop(levels: &[u8], scale: f32, shift: f32, numbers: &mut [f32]) {
    for (number, level) in numbers.iter_mut().zip(levels) {
        *number = f32::from(*level) * scale + shift;
    }
}

#[inline(always)]
fn to_bf16_loop(levels: &[u8], scale: f32, shift: f32, numbers: &mut [bf16]) {
    for (number, level) in numbers.iter_mut().zip(levels) {
        let bits = (f32::from(*level) * scale + shift).to_bits();
        // The upper half, where what is cut off is more than a half, or a half behind an odd number, one more.
        *number = bf16::from_bits((bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16);
    }
}

#[cfg(test)]
mod tests {
    use forebay_datasets::seed::Seed;

    use super::*;

    #[test]
    fn planes_of_vectors_are_those_of_single_numbers() {
        let mut stream = Seed(7).stream("planes");
        for n in (0..200).chain([300, 4096, 50_176]) {
            let rgb: Vec<u8> = (0..3 * n).map(|_| stream.below(256) as u8).collect();
            let pixels: Vec<&[u8]> = rgb.chunks(3).collect();
            let backwards = |width: usize| -> Vec<u8> {
                let rows = pixels.chunks_exact(width);
                rows.flat_map(|row| row.iter().rev().copied().flatten()).copied().collect()
            };
            for isa in Isa::all() {
                let mut planes = [(); 3].map(|()| vec![0; n]);
                separate(isa, n, &rgb, planes.each_mut().map(Vec::as_mut_slice));
                for (channel, plane) in planes.iter().enumerate() {
                    assert!(plane.iter().eq(pixels.iter().map(|pixel| &pixel[channel])), "{n} {isa:?}");
                }
                for fewer in [n, n - n / 3] {
                    separate_mirrored(isa, fewer, &rgb, planes.each_mut().map(Vec::as_mut_slice));
                    for (channel, plane) in planes.iter().enumerate() {
                        let expected = pixels[..fewer].iter().rev().map(|pixel| &pixel[channel]);
                        assert!(plane[..fewer].iter().eq(expected), "{n} {isa:?}");
                    }
                }
                for width in [1, 3, 16, 32, 65, n].into_iter().filter(|width| (1..=n).contains(width)) {
                    let mut reversed = vec![0; n / width * width * 3];
                    reverse_rows(isa, width, &rgb[..reversed.len()], &mut reversed);
                    assert!(reversed == backwards(width), "{n} {width} {isa:?}");
                }
            }
        }
    }

    #[test]
    fn levels_become_the_nearest_number_of_each_kind() {
        let levels: Vec<u8> = (0..=255).collect();
        for (scale, shift) in [(1.0 / 255.0, 0.0), (1.0 / (255.0 * 0.229), -0.485 / 0.229), (0.3, -17.0)] {
            let expected: Vec<f32> = levels.iter().map(|level| f32::from(*level) * scale + shift).collect();
            for isa in Isa::all() {
                let mut wide = vec![0.0; 256];
                to_f32(isa, &levels, scale, shift, &mut wide);
                assert_eq!(wide, expected, "{isa:?}");
                for (from, to) in [(0, 256), (1, 256), (3, 200), (7, 23), (16, 16), (40, 41)] {
                    let mut streamed = vec![-1.0; 256];
                    with_stores(isa, true, |stores| {
                        store_f32((isa, stores), &levels[from..to], scale, shift, &mut streamed[from..to]);
                    });
                    assert_eq!(streamed[from..to], expected[from..to], "{isa:?} {from} {to}");
                    let others = streamed[..from].iter().chain(&streamed[to..]);
                    assert!(others.eq(vec![-1.0; 256 - (to - from)].iter()), "{isa:?} {from} {to}");
                }
                let mut half = vec![f16::ZERO; 256];
                to_f16(isa, &levels, scale, shift, &mut half);
                assert!(
                    half.iter().eq(expected.iter().map(|x| f16::from_f32(*x)).collect::<Vec<_>>().iter())
                );
                let mut brain = vec![bf16::ZERO; 256];
                to_bf16(isa, &levels, scale, shift, &mut brain);
                assert!(
                    brain.iter().eq(expected.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>().iter())
                );
            }
        }
    }
}
