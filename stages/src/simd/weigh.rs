//! Weighted sums of rows and of columns of bytes: the two passes of a resize.
#![allow(unsafe_code, reason = "vectors; each block says why it is sound")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::isa::{Isa, for_each_isa};
#[cfg(target_arch = "x86_64")]
use super::x86::HasAvx512;

/// Where weights for pairs of rows lie in a vector: bytes of the first row (0 to 63) and of the second (64 to 127), each the
/// lower half of 16 bits, for each quarter of 64 columns.
#[cfg(target_arch = "x86_64")]
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
#[cfg(target_arch = "x86_64")]
const LOWER: __mmask64 = 0x5555_5555_5555_5555;

/// Bytes that a row of [`across`] has at least.
#[cfg(target_arch = "x86_64")]
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
#[cfg(target_arch = "x86_64")]
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

/// Rows of bytes, one behind the other.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) bytes: &'a [u8],
    /// Bytes of a row.
    pub(crate) stride: usize,
    /// How many rows are here.
    pub(crate) n: usize,
    /// Whether each row has the place of the one that is `n`, a power of two, before it. Else what lies behind the last row is like it.
    pub(crate) is_ring: bool,
}

impl Rows<'_> {
    /// Where a row begins.
    pub(crate) fn start(&self, row: usize) -> usize {
        self.stride * if self.is_ring { row & (self.n - 1) } else { row.min(self.n - 1) }
    }
}

/// Sums of rows: `columns` bytes from byte `first` on of each, to `[sums, columns]`.
///
/// # Panics
/// When a row has fewer bytes.
pub(crate) fn down(
    isa: Isa,
    rows: Rows<'_>,
    (first, columns): (usize, usize),
    by: &Weights<'_>,
    out: &mut [u8],
) {
    assert!(
        first + columns <= rows.stride && rows.bytes.len() >= rows.stride * (rows.n - 1) + first + columns
    );
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(_) if columns >= 64 => {
            // SAFETY: the machine has the instructions.
            unsafe { down_avx512(rows, first, columns, by, out) }
        }
        _ => down_as_it_is(isa, rows, first, columns, by, out),
    }
}

for_each_isa! {
    /// The same, without vectors of its own.
    down_as_it_is = down_loop(rows: Rows<'_>, first: usize, columns: usize, by: &Weights<'_>, out: &mut [u8])
}

#[inline(always)]
fn down_loop(rows: Rows<'_>, first: usize, columns: usize, by: &Weights<'_>, out: &mut [u8]) {
    const AT_ONCE: usize = 64;
    let taps = by.weights.len() / by.starts.len();
    for ((start, weights), out) in
        by.starts.iter().zip(by.weights.chunks_exact(taps)).zip(out.chunks_exact_mut(columns))
    {
        for (at, out) in (0..columns).step_by(AT_ONCE).zip(out.chunks_mut(AT_ONCE)) {
            let mut sums = [1 << (by.precision - 1); AT_ONCE];
            for (tap, weight) in weights.iter().enumerate() {
                let row = &rows.bytes[rows.start(*start as usize + tap) + first + at..][..out.len()];
                for (sum, level) in sums.iter_mut().zip(row) {
                    *sum += i32::from(*level) * i32::from(*weight);
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = (sum >> by.precision).clamp(0, 255) as u8;
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn down_avx512(rows: Rows<'_>, first: usize, columns: usize, by: &Weights<'_>, out: &mut [u8]) {
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
                let row = *start as usize + 2 * pair;
                let [low, high] = weights.map(|weight| i32::from(weight as u16));
                let weights = _mm512_set1_epi32(high << 16 | low);
                let from = |row: usize| &rows.bytes[rows.start(row) + first + at..][..64];
                // SAFETY: the pointers are to 64 bytes each.
                let (a, b) = unsafe {
                    (
                        _mm512_loadu_si512(from(row).as_ptr().cast()),
                        _mm512_loadu_si512(from(row + 1).as_ptr().cast()),
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
#[cfg(target_arch = "x86_64")]
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

#[cfg(target_arch = "x86_64")]
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
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn store(sums: __m512i, precision: __m128i, out: &mut [u8; 16]) {
    let levels = _mm512_max_epi32(_mm512_sra_epi32(sums, precision), _mm512_setzero_si512());
    // SAFETY: the pointer is to 16 bytes.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), _mm512_cvtusepi32_epi8(levels)) }
}
