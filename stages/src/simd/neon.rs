//! [`Lanes`] of NEON, which every 64-bit ARM has.
#![allow(unsafe_code, reason = "each function is the instruction that it is named after")]

use std::arch::aarch64::*;

use super::lanes::Lanes;

/// One group.
#[derive(Clone, Copy)]
pub(crate) struct Neon(int16x8_t);

/// That the machine has NEON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HasNeon(());

impl HasNeon {
    pub(crate) fn find() -> Option<HasNeon> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(HasNeon(()))
    }
}

/// The vector is turned into lanes of the kind that the instruction takes, and back, which takes no time.
macro_rules! binary {
    ($($name:ident => $to:ident, $intrinsic:ident, $from:ident;)*) => {
        $(
            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                // SAFETY: the machine has the instructions.
                unsafe { Self($from($intrinsic($to(self.0), $to(other.0)))) }
            }
        )*
    };
}

/// Lanes of 16 bits as they are.
#[inline(always)]
fn same(lanes: int16x8_t) -> int16x8_t {
    lanes
}

impl Neon {
    #[inline(always)]
    fn of8(bytes: uint8x16_t) -> Self {
        // SAFETY: the machine has the instructions.
        unsafe { Self(vreinterpretq_s16_u8(bytes)) }
    }
}

impl Lanes for Neon {
    type Proof = HasNeon;

    const GROUPS: usize = 1;

    #[inline(always)]
    fn load(_: Self::Proof, from: &[i16; 32], at: usize) -> Self {
        let from: &[i16; 8] = from[at..at + 8].try_into().expect("8 of them");
        // SAFETY: the pointer is to 8 lanes; the machine has the instructions.
        unsafe { Self(vld1q_s16(from.as_ptr())) }
    }
    #[inline(always)]
    fn splat_group(_: Self::Proof, lanes: &[i16; 8]) -> Self {
        // SAFETY: the pointer is to 8 lanes; the machine has the instructions.
        unsafe { Self(vld1q_s16(lanes.as_ptr())) }
    }
    #[inline(always)]
    fn splat32(_: Self::Proof, lane: i32) -> Self {
        // SAFETY: the machine has the instructions.
        unsafe { Self(vreinterpretq_s16_s32(vdupq_n_s32(lane))) }
    }
    #[inline(always)]
    fn load_bytes(_: Self::Proof, from: &[u8; 64]) -> Self {
        // SAFETY: the pointer is to 64 bytes; the machine has the instructions.
        unsafe { Self::of8(vld1q_u8(from.as_ptr())) }
    }

    binary! {
        add16 => same, vaddq_s16, same;
        sub16 => same, vsubq_s16, same;
        mul16 => same, vmulq_s16, same;
        add32 => vreinterpretq_s32_s16, vaddq_s32, vreinterpretq_s16_s32;
        sub32 => vreinterpretq_s32_s16, vsubq_s32, vreinterpretq_s16_s32;
        low8 => vreinterpretq_s8_s16, vzip1q_s8, vreinterpretq_s16_s8;
        high8 => vreinterpretq_s8_s16, vzip2q_s8, vreinterpretq_s16_s8;
        low16 => same, vzip1q_s16, same;
        high16 => same, vzip2q_s16, same;
        low32 => vreinterpretq_s32_s16, vzip1q_s32, vreinterpretq_s16_s32;
        high32 => vreinterpretq_s32_s16, vzip2q_s32, vreinterpretq_s16_s32;
        low64 => vreinterpretq_s64_s16, vzip1q_s64, vreinterpretq_s16_s64;
        high64 => vreinterpretq_s64_s16, vzip2q_s64, vreinterpretq_s16_s64;
    }

    #[inline(always)]
    fn shift_right16<const N: u32>(self) -> Self {
        // SAFETY: the machine has the instructions.
        unsafe { Self(vshlq_s16(self.0, vdupq_n_s16(-(N as i16)))) }
    }
    #[inline(always)]
    fn shift_right32(self, by: u32) -> Self {
        // SAFETY: the machine has the instructions.
        unsafe {
            let lanes = vshlq_s32(vreinterpretq_s32_s16(self.0), vdupq_n_s32(-(by as i32)));
            Self(vreinterpretq_s16_s32(lanes))
        }
    }
    #[inline(always)]
    fn mul_high16(self, other: Self) -> Self {
        // SAFETY: the machine has the instructions.
        unsafe {
            let low = vmull_s16(vget_low_s16(self.0), vget_low_s16(other.0));
            let high = vmull_high_s16(self.0, other.0);
            Self(vcombine_s16(vshrn_n_s32::<16>(low), vshrn_n_s32::<16>(high)))
        }
    }
    #[inline(always)]
    fn mul_add_pairs(self, other: Self) -> Self {
        // SAFETY: the machine has the instructions.
        unsafe {
            let low = vmull_s16(vget_low_s16(self.0), vget_low_s16(other.0));
            let high = vmull_high_s16(self.0, other.0);
            Self(vreinterpretq_s16_s32(vpaddq_s32(low, high)))
        }
    }
    #[inline(always)]
    fn narrow32(self, other: Self) -> Self {
        // SAFETY: the machine has the instructions.
        unsafe {
            let [low, high] = [self.0, other.0];
            Self(vcombine_s16(
                vqmovn_s32(vreinterpretq_s32_s16(low)),
                vqmovn_s32(vreinterpretq_s32_s16(high)),
            ))
        }
    }
    #[inline(always)]
    fn narrow16(self, other: Self) -> Self {
        // SAFETY: the machine has the instructions.
        unsafe { Self(vreinterpretq_s16_s8(vcombine_s8(vqmovn_s16(self.0), vqmovn_s16(other.0)))) }
    }
    #[inline(always)]
    fn narrow_unsigned16(self, other: Self) -> Self {
        // SAFETY: the machine has the instructions.
        unsafe { Self::of8(vcombine_u8(vqmovun_s16(self.0), vqmovun_s16(other.0))) }
    }
    #[inline(always)]
    fn to_unsigned8(self) -> Self {
        // SAFETY: the machine has the instructions.
        unsafe { Self::of8(veorq_u8(vreinterpretq_u8_s16(self.0), vdupq_n_u8(0x80))) }
    }
    #[inline(always)]
    fn store_rows(self, [low, high]: [&mut [u8; 32]; 2], at: usize) {
        let [low, high]: [&mut [u8; 8]; 2] =
            [low, high].map(|row| (&mut row[at..at + 8]).try_into().expect("8 of them"));
        // SAFETY: the pointers are to 8 bytes each; the machine has the instructions.
        unsafe {
            let bytes = vreinterpretq_u8_s16(self.0);
            vst1_u8(low.as_mut_ptr(), vget_low_u8(bytes));
            vst1_u8(high.as_mut_ptr(), vget_high_u8(bytes));
        }
    }
    #[inline(always)]
    fn store_triples([r, g, b]: [Self; 3], to: &mut [u8; 192]) {
        // SAFETY: the pointer is to 192 bytes, of which 48 are written; the machine has the instructions.
        unsafe {
            let triples =
                uint8x16x3_t(vreinterpretq_u8_s16(r.0), vreinterpretq_u8_s16(g.0), vreinterpretq_u8_s16(b.0));
            vst3q_u8(to.as_mut_ptr(), triples);
        }
    }
    #[inline(always)]
    fn load_triples(_: Self::Proof, from: &[u8; 192]) -> [Self; 3] {
        // SAFETY: the pointer is to 192 bytes, of which 48 are read; the machine has the instructions.
        unsafe {
            let uint8x16x3_t(r, g, b) = vld3q_u8(from.as_ptr());
            [Self::of8(r), Self::of8(g), Self::of8(b)]
        }
    }
    #[inline(always)]
    fn store_bytes(self, to: &mut [u8; 64]) {
        // SAFETY: the pointer is to 64 bytes; the machine has the instructions.
        unsafe { vst1q_u8(to.as_mut_ptr(), vreinterpretq_u8_s16(self.0)) }
    }
    #[inline(always)]
    fn reversed8(self) -> Self {
        // SAFETY: the machine has the instructions.
        unsafe {
            let halves = vrev64q_u8(vreinterpretq_u8_s16(self.0));
            Self::of8(vextq_u8::<8>(halves, halves))
        }
    }
}
