//! [`Lanes`] of AVX2 and AVX-512.
#![allow(unsafe_code, reason = "each function is the instruction that it is named after")]

use std::arch::x86_64::*;

use super::lanes::Lanes;

macro_rules! binary {
    ($($name:ident => $intrinsic:ident,)*) => {
        $(
            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                // SAFETY: the machine has the instructions.
                unsafe { Self($intrinsic(self.0, other.0)) }
            }
        )*
    };
}

/// For each third of 16 triples and each channel: which byte of the channel comes to each of its 16 places; the highest bit
/// where none does.
static PICKS: [[[u8; 16]; 3]; 3] = {
    let mut picks = [[[0x80; 16]; 3]; 3];
    let mut at = 0;
    while at < 48 {
        picks[at / 16][at % 3][at % 16] = (at / 3) as u8;
        at += 1;
    }
    picks
};

/// For each third of 64 triples: places in red (0 to 63) and green (64 to 127), then places in what came of that and in
/// blue.
static TRIPLES: [[[u8; 64]; 2]; 3] = {
    let mut triples = [[[0; 64]; 2]; 3];
    let mut at = 0;
    while at < 192 {
        let (third, place, from) = (at / 64, at % 64, (at / 3) as u8);
        triples[third][0][place] = if at % 3 == 1 { 64 + from } else { from };
        triples[third][1][place] = if at % 3 == 2 { 64 + from } else { place as u8 };
        at += 1;
    }
    triples
};

/// For each third of 16 triples and each channel: which byte of the third comes to each of the channel's 16 places; the
/// highest bit where none does.
static UNPICKS: [[[u8; 16]; 3]; 3] = {
    let mut picks = [[[0x80; 16]; 3]; 3];
    let mut at = 0;
    while at < 48 {
        picks[at / 16][at % 3][at / 3] = (at % 16) as u8;
        at += 1;
    }
    picks
};

/// For each channel of 64 triples: places in the first and the second third of their bytes, then places in what came of
/// that (0 to 63) and in the last third (64 to 127).
static CHANNELS: [[[u8; 64]; 2]; 3] = {
    let mut channels = [[[0; 64]; 2]; 3];
    let mut at = 0;
    while at < 192 {
        let (channel, place) = (at % 3, at / 3);
        let is_last = at >= 128;
        channels[channel][0][place] = if is_last { 0 } else { at as u8 };
        channels[channel][1][place] = if is_last { (at - 64) as u8 } else { place as u8 };
        at += 1;
    }
    channels
};

/// Places from the last one to the first.
static BACKWARDS: [u8; 64] = {
    let mut places = [0; 64];
    let mut at = 0;
    while at < 64 {
        places[at] = 63 - at as u8;
        at += 1;
    }
    places
};

/// Two groups.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256i);

/// That the machine has AVX2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HasAvx2(());

impl HasAvx2 {
    pub(crate) fn find() -> Option<HasAvx2> {
        let has = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2");
        has.then_some(HasAvx2(()))
    }
}

impl Lanes for Avx2 {
    type Proof = HasAvx2;

    const GROUPS: usize = 2;

    #[inline(always)]
    fn load(_: Self::Proof, from: &[i16; 32], at: usize) -> Self {
        let from: &[i16; 16] = from[at..at + 16].try_into().expect("16 of them");
        // SAFETY: the pointer is to 32 bytes; the machine has the instructions.
        unsafe { Self(_mm256_loadu_si256(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn splat_group(_: Self::Proof, lanes: &[i16; 8]) -> Self {
        // SAFETY: the pointer is to 16 bytes; the machine has the instructions.
        unsafe { Self(_mm256_broadcastsi128_si256(_mm_loadu_si128(lanes.as_ptr().cast()))) }
    }
    #[inline(always)]
    fn splat32(_: Self::Proof, lane: i32) -> Self {
        // SAFETY: the machine has the instructions.
        unsafe { Self(_mm256_set1_epi32(lane)) }
    }
    #[inline(always)]
    fn load_bytes(_: Self::Proof, from: &[u8; 64]) -> Self {
        // SAFETY: the pointer is to 64 bytes; the machine has the instructions.
        unsafe { Self(_mm256_loadu_si256(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn shift_right16<const N: u32>(self) -> Self {
        // SAFETY: the machine has the instructions.
        unsafe { Self(_mm256_sra_epi16(self.0, _mm_cvtsi32_si128(N as i32))) }
    }
    binary! {
        add16 => _mm256_add_epi16, sub16 => _mm256_sub_epi16, mul_high16 => _mm256_mulhi_epi16,
        narrow_unsigned16 => _mm256_packus_epi16, mul16 => _mm256_mullo_epi16, mul_add_pairs => _mm256_madd_epi16,
        add32 => _mm256_add_epi32, sub32 => _mm256_sub_epi32,
        narrow32 => _mm256_packs_epi32, narrow16 => _mm256_packs_epi16,
        low8 => _mm256_unpacklo_epi8, high8 => _mm256_unpackhi_epi8,
        low16 => _mm256_unpacklo_epi16, high16 => _mm256_unpackhi_epi16,
        low32 => _mm256_unpacklo_epi32, high32 => _mm256_unpackhi_epi32,
        low64 => _mm256_unpacklo_epi64, high64 => _mm256_unpackhi_epi64,
    }
    #[inline(always)]
    fn shift_right32(self, by: u32) -> Self {
        // SAFETY: the machine has the instructions.
        unsafe { Self(_mm256_sra_epi32(self.0, _mm_cvtsi32_si128(by as i32))) }
    }
    #[inline(always)]
    fn to_unsigned8(self) -> Self {
        // SAFETY: the machine has the instructions.
        unsafe { Self(_mm256_xor_si256(self.0, _mm256_set1_epi8(-128))) }
    }
    #[inline(always)]
    fn store_rows(self, [low, high]: [&mut [u8; 32]; 2], at: usize) {
        let [low, high]: [&mut [u8; 16]; 2] =
            [low, high].map(|row| (&mut row[at..at + 16]).try_into().expect("16 of them"));
        // SAFETY: the pointers are to 16 bytes each; the machine has the instructions.
        unsafe {
            let rows = _mm256_permute4x64_epi64::<0b11_01_10_00>(self.0);
            _mm_storeu_si128(low.as_mut_ptr().cast(), _mm256_castsi256_si128(rows));
            _mm_storeu_si128(high.as_mut_ptr().cast(), _mm256_extracti128_si256::<1>(rows));
        }
    }
    #[inline(always)]
    fn store_triples([r, g, b]: [Self; 3], to: &mut [u8; 192]) {
        // SAFETY: each pointer is to 32 bytes of `to`; the machine has the instructions.
        unsafe {
            // Of each group of 16 triples: the part that is bytes 16 * i to 16 * i + 15 of them.
            let part = |i: usize| {
                let mut part = _mm256_setzero_si256();
                for (channel, bytes) in [r, g, b].into_iter().enumerate() {
                    let picks = _mm_loadu_si128(PICKS[i][channel].as_ptr().cast());
                    part = _mm256_or_si256(
                        part,
                        _mm256_shuffle_epi8(bytes.0, _mm256_broadcastsi128_si256(picks)),
                    );
                }
                part
            };
            let parts = [part(0), part(1), part(2)];
            let out = [
                _mm256_permute2x128_si256::<0x20>(parts[0], parts[1]),
                _mm256_permute2x128_si256::<0x30>(parts[2], parts[0]),
                _mm256_permute2x128_si256::<0x31>(parts[1], parts[2]),
            ];
            for (out, to) in out.into_iter().zip(to.chunks_exact_mut(32)) {
                _mm256_storeu_si256(to.as_mut_ptr().cast(), out);
            }
        }
    }
    #[inline(always)]
    fn load_triples(_: Self::Proof, from: &[u8; 192]) -> [Self; 3] {
        // SAFETY: each pointer is to 16 bytes of `from` or of a table; the machine has the instructions.
        unsafe {
            // Of both groups of 16 triples: their bytes 16 * i to 16 * i + 15.
            let part = |i: usize| {
                let at = |byte: usize| _mm_loadu_si128(from[byte..byte + 16].as_ptr().cast());
                _mm256_set_m128i(at(48 + 16 * i), at(16 * i))
            };
            let parts = [part(0), part(1), part(2)];
            // A closure for `map` would be a function without the instructions.
            let mut channels = [Self(_mm256_setzero_si256()); 3];
            for (channel, bytes) in channels.iter_mut().enumerate() {
                for (part, picks) in parts.into_iter().zip(&UNPICKS) {
                    let picks = _mm_loadu_si128(picks[channel].as_ptr().cast());
                    let picked = _mm256_shuffle_epi8(part, _mm256_broadcastsi128_si256(picks));
                    bytes.0 = _mm256_or_si256(bytes.0, picked);
                }
            }
            channels
        }
    }
    #[inline(always)]
    fn store_bytes(self, to: &mut [u8; 64]) {
        // SAFETY: the pointer is to 64 bytes; the machine has the instructions.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), self.0) }
    }
    #[inline(always)]
    fn reversed8(self) -> Self {
        // SAFETY: the pointer is to 16 bytes, the last of the table; the machine has the instructions.
        unsafe {
            let places = _mm_loadu_si128(BACKWARDS[48..].as_ptr().cast());
            let groups = _mm256_shuffle_epi8(self.0, _mm256_broadcastsi128_si256(places));
            Self(_mm256_permute2x128_si256::<1>(groups, groups))
        }
    }
}

/// Four groups.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512i);

/// That the machine has AVX-512 with vectors of bytes and words, and their permutations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HasAvx512(());

impl HasAvx512 {
    pub(crate) fn find() -> Option<HasAvx512> {
        let has = HasAvx2::find().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vbmi");
        has.then_some(HasAvx512(()))
    }
}

impl Lanes for Avx512 {
    type Proof = HasAvx512;

    const GROUPS: usize = 4;

    #[inline(always)]
    fn load(_: Self::Proof, from: &[i16; 32], at: usize) -> Self {
        assert_eq!(at, 0, "all of them");
        // SAFETY: the pointer is to 64 bytes; the machine has the instructions.
        unsafe { Self(_mm512_loadu_si512(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn splat_group(_: Self::Proof, lanes: &[i16; 8]) -> Self {
        // SAFETY: the pointer is to 16 bytes; the machine has the instructions.
        unsafe { Self(_mm512_broadcast_i32x4(_mm_loadu_si128(lanes.as_ptr().cast()))) }
    }
    #[inline(always)]
    fn splat32(_: Self::Proof, lane: i32) -> Self {
        // SAFETY: the machine has the instructions.
        unsafe { Self(_mm512_set1_epi32(lane)) }
    }
    #[inline(always)]
    fn load_bytes(_: Self::Proof, from: &[u8; 64]) -> Self {
        // SAFETY: the pointer is to 64 bytes; the machine has the instructions.
        unsafe { Self(_mm512_loadu_si512(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn shift_right16<const N: u32>(self) -> Self {
        // SAFETY: the machine has the instructions.
        unsafe { Self(_mm512_srai_epi16::<N>(self.0)) }
    }
    binary! {
        add16 => _mm512_add_epi16, sub16 => _mm512_sub_epi16, mul_high16 => _mm512_mulhi_epi16,
        narrow_unsigned16 => _mm512_packus_epi16, mul16 => _mm512_mullo_epi16, mul_add_pairs => _mm512_madd_epi16,
        add32 => _mm512_add_epi32, sub32 => _mm512_sub_epi32,
        narrow32 => _mm512_packs_epi32, narrow16 => _mm512_packs_epi16,
        low8 => _mm512_unpacklo_epi8, high8 => _mm512_unpackhi_epi8,
        low16 => _mm512_unpacklo_epi16, high16 => _mm512_unpackhi_epi16,
        low32 => _mm512_unpacklo_epi32, high32 => _mm512_unpackhi_epi32,
        low64 => _mm512_unpacklo_epi64, high64 => _mm512_unpackhi_epi64,
    }
    #[inline(always)]
    fn shift_right32(self, by: u32) -> Self {
        // SAFETY: the machine has the instructions.
        unsafe { Self(_mm512_sra_epi32(self.0, _mm_cvtsi32_si128(by as i32))) }
    }
    #[inline(always)]
    fn to_unsigned8(self) -> Self {
        // SAFETY: the machine has the instructions.
        unsafe { Self(_mm512_xor_si512(self.0, _mm512_set1_epi8(-128))) }
    }
    #[inline(always)]
    fn store_rows(self, [low, high]: [&mut [u8; 32]; 2], at: usize) {
        assert_eq!(at, 0, "all of them");
        // SAFETY: the pointers are to 32 bytes each; the machine has the instructions.
        unsafe {
            let rows = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), self.0);
            _mm256_storeu_si256(low.as_mut_ptr().cast(), _mm512_castsi512_si256(rows));
            _mm256_storeu_si256(high.as_mut_ptr().cast(), _mm512_extracti64x4_epi64::<1>(rows));
        }
    }
    #[inline(always)]
    fn store_triples([r, g, b]: [Self; 3], to: &mut [u8; 192]) {
        // SAFETY: each pointer is to 64 bytes; the machine has the instructions.
        unsafe {
            for (i, to) in to.chunks_exact_mut(64).enumerate() {
                let [two, three] = &TRIPLES[i];
                let two = _mm512_permutex2var_epi8(r.0, _mm512_loadu_si512(two.as_ptr().cast()), g.0);
                let three = _mm512_permutex2var_epi8(two, _mm512_loadu_si512(three.as_ptr().cast()), b.0);
                _mm512_storeu_si512(to.as_mut_ptr().cast(), three);
            }
        }
    }
    #[inline(always)]
    fn load_triples(_: Self::Proof, from: &[u8; 192]) -> [Self; 3] {
        // SAFETY: each pointer is to 64 bytes of `from` or of a table; the machine has the instructions.
        unsafe {
            let third = |i: usize| _mm512_loadu_si512(from[64 * i..64 * i + 64].as_ptr().cast());
            let [first, second, last] = [third(0), third(1), third(2)];
            // A closure for `map` would be a function without the instructions.
            let mut channels = [Self(first); 3];
            for (channel, [two, three]) in channels.iter_mut().zip(&CHANNELS) {
                let two = _mm512_permutex2var_epi8(first, _mm512_loadu_si512(two.as_ptr().cast()), second);
                channel.0 = _mm512_permutex2var_epi8(two, _mm512_loadu_si512(three.as_ptr().cast()), last);
            }
            channels
        }
    }
    #[inline(always)]
    fn store_bytes(self, to: &mut [u8; 64]) {
        // SAFETY: the pointer is to 64 bytes; the machine has the instructions.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), self.0) }
    }
    #[inline(always)]
    fn reversed8(self) -> Self {
        // SAFETY: the pointer is to 64 bytes; the machine has the instructions.
        unsafe {
            let places = _mm512_loadu_si512(BACKWARDS.as_ptr().cast());
            Self(_mm512_permutexvar_epi8(places, self.0))
        }
    }
}
