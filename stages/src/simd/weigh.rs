//! Weighted sums of rows and of columns of bytes, with AVX-512: the two passes of a resize.
#![allow(unsafe_code, reason = "vectors; each block says why it is sound")]

use std::arch::x86_64::*;

use super::x86::HasAvx512;

/// Where weights for pairs of rows lie in a vector: bytes of the first row (0 to 63) and of the second (64 to 127), each the
/// lower half of 16 bits, for each quarter of 64 columns.
static PAIRS: [[u8; 64]; 4] = {
    let mut pairs = [[0; 64]; 4];
    let mut at = 0;
    while at < 64 {
        let (quarter, place) = (at / 16, at % 16);
        pairs[quarter][4 * place] = at as u8;
        pairs[quarter][4 * place + 2] = 64 + at as u8;
        at += 1;
    }
    pairs
};

/// The lower half of each 16 bits.
const LOWER: __mmask64 = 0x5555_5555_5555_5555;

/// Bytes that a row of [`down`] and of [`across`] has at least.
pub(crate) const ROW_BYTES_MIN: usize = 128;

/// Weights of an even number of neighbours for each of a number of sums, 16 bits of which `precision` are fractional.
pub(crate) struct Weights<'a> {
    /// Fractional bits.
    pub(crate) precision: u32,
    /// The first neighbour of each sum.
    pub(crate) starts: &'a [u32],
    /// `[sums, neighbours]`.
    pub(crate) weights: &'a [i16],
}

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

/// Sums of rows: `columns` bytes from byte `first` on of rows of `stride` bytes, `n_rows` of them, to `[sums, columns]`.
///
/// # Panics
/// When a row has fewer bytes.
pub(crate) fn down(
    _: HasAvx512,
    (rows, stride, n_rows): (&[u8], usize, usize),
    (first, columns): (usize, usize),
    by: &Weights<'_>,
    out: &mut [u8],
) {
    assert!(
        columns >= 64 && first + columns <= stride && rows.len() >= stride * (n_rows - 1) + first + columns
    );
    // SAFETY: the machine has the instructions.
    unsafe { down_avx512(rows, stride, n_rows, first, columns, by, out) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn down_avx512(
    rows: &[u8],
    stride: usize,
    n_rows: usize,
    first: usize,
    columns: usize,
    by: &Weights<'_>,
    out: &mut [u8],
) {
    let taps = by.weights.len() / by.starts.len();
    let half = _mm512_set1_epi32(1 << (by.precision - 1));
    let precision = _mm_cvtsi32_si128(by.precision as i32);
    let mut pairs = [_mm512_setzero_si512(); 4];
    for (pair, places) in pairs.iter_mut().zip(&PAIRS) {
        // SAFETY: the pointer is to 64 bytes.
        *pair = unsafe { _mm512_loadu_si512(places.as_ptr().cast()) };
    }
    for ((start, weights), out) in
        by.starts.iter().zip(by.weights.chunks_exact(taps)).zip(out.chunks_exact_mut(columns))
    {
        let mut at = 0;
        loop {
            let mut sums = [half; 4];
            for (pair, weights) in weights.as_chunks::<2>().0.iter().enumerate() {
                let row = (*start as usize + 2 * pair).min(n_rows - 1);
                let next = (row + 1).min(n_rows - 1);
                let [low, high] = weights.map(|weight| i32::from(weight as u16));
                let weights = _mm512_set1_epi32(high << 16 | low);
                let from = |row: usize| &rows[row * stride + first + at..][..64];
                // SAFETY: the pointers are to 64 bytes each.
                let (a, b) = unsafe {
                    (
                        _mm512_loadu_si512(from(row).as_ptr().cast()),
                        _mm512_loadu_si512(from(next).as_ptr().cast()),
                    )
                };
                for (sum, places) in sums.iter_mut().zip(pairs) {
                    let both = _mm512_maskz_permutex2var_epi8(LOWER, a, places, b);
                    *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(both, weights));
                }
            }
            for (sum, out) in sums.into_iter().zip(out[at..at + 64].as_chunks_mut::<16>().0) {
                store(sum, precision, out);
            }
            if at + 64 == columns {
                break;
            }
            // The last vector may see some columns twice.
            at = (at + 64).min(columns - 64);
        }
    }
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
