//! Weighted sums of neighbours in rows of bytes, with AVX-512: the second pass of a resize.
#![allow(unsafe_code, reason = "vectors; each block says why it is sound")]

use std::arch::x86_64::*;

use super::x86::HasAvx512;

/// The lower half of each 16 bits.
const LOWER: __mmask64 = 0x5555_5555_5555_5555;

/// Bytes that a row of [`across`] has at least.
pub(crate) const ROW_BYTES_MIN: usize = 128;

/// Neighbours in rows of bytes.
pub(crate) struct Neighbours {
    /// The first of the 128 bytes that they are among.
    pub(crate) base: usize,
    /// The first of the 16 pixels that are made of them.
    pub(crate) pixel: usize,
    /// For each pair of neighbours and each third of 48 bytes: which of the 128 bytes, as in 16 bits each.
    pub(crate) places: Vec<[[u8; 64]; 3]>,
    /// The weights of the same.
    pub(crate) weights: Vec<[[i16; 32]; 3]>,
}

/// Sums of neighbours in each row of `stride` bytes: to rows of `width` pixels.
///
/// # Panics
/// When a group reaches over the end of a row.
pub(crate) fn across(
    _: HasAvx512,
    (rows, stride): (&[u8], usize),
    precision: u32,
    groups: &[Neighbours],
    (out, width): (&mut [u8], usize),
) {
    // SAFETY: the machine has the instructions.
    unsafe { across_avx512(rows, stride, precision, groups, out, width) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn across_avx512(
    rows: &[u8],
    stride: usize,
    precision: u32,
    groups: &[Neighbours],
    out: &mut [u8],
    width: usize,
) {
    let half = _mm512_set1_epi32(1 << (precision - 1));
    let precision = _mm_cvtsi32_si128(precision as i32);
    for (row, out) in rows.chunks_exact(stride).zip(out.chunks_exact_mut(3 * width)) {
        for Neighbours { base, pixel, places, weights } in groups {
            let from = &row[*base..][..ROW_BYTES_MIN];
            // SAFETY: the pointers are to 64 bytes each.
            let (a, b) = unsafe {
                (_mm512_loadu_si512(from.as_ptr().cast()), _mm512_loadu_si512(from[64..].as_ptr().cast()))
            };
            let mut sums = [half; 3];
            for (places, weights) in places.iter().zip(weights) {
                for (sum, (places, weights)) in sums.iter_mut().zip(places.iter().zip(weights)) {
                    // SAFETY: the pointers are to 64 bytes each.
                    let (places, weights) = unsafe {
                        (
                            _mm512_loadu_si512(places.as_ptr().cast()),
                            _mm512_loadu_si512(weights.as_ptr().cast()),
                        )
                    };
                    let both = _mm512_maskz_permutex2var_epi8(LOWER, a, places, b);
                    *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(both, weights));
                }
            }
            for (sum, out) in sums.into_iter().zip(out[3 * pixel..][..48].as_chunks_mut::<16>().0) {
                store(sum, precision, out);
            }
        }
    }
}

/// Sums without their fractional bits, as bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn store(sums: __m512i, precision: __m128i, out: &mut [u8; 16]) {
    let levels = _mm512_max_epi32(_mm512_sra_epi32(sums, precision), _mm512_setzero_si512());
    // SAFETY: the pointer is to 16 bytes.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), _mm512_cvtusepi32_epi8(levels)) }
}
