//! Numbers that go to memory past the caches, with AVX-512: a batch of them is larger than a cache, and would put out of it the
//! images that it is made of.
#![allow(unsafe_code, reason = "vectors; each block says why it is sound")]

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::x86::HasAvx512;

/// Stores of one thread past the caches, which are done before [`streaming`] returns.
pub(crate) struct Stream {
    _has: HasAvx512,
    /// Another thread's stores would wait for another fence.
    _of_this_thread: PhantomData<*const ()>,
}

/// Lets `write` stream. What it has streamed comes before all that this thread reads or writes afterwards, whether it ends or panics.
pub(crate) fn streaming<R>(has: HasAvx512, write: impl FnOnce(&Stream) -> R) -> R {
    struct Fence;
    impl Drop for Fence {
        fn drop(&mut self) {
            // SAFETY: every machine of this kind has the instruction.
            unsafe { _mm_sfence() }
        }
    }
    let _fence = Fence;
    write(&Stream { _has: has, _of_this_thread: PhantomData })
}

impl Stream {
    /// Grey levels as numbers: `level * scale + shift`, rounded after each of the two.
    ///
    /// # Panics
    /// When there are not as many numbers as levels.
    pub(crate) fn to_f32(&self, levels: &[u8], scale: f32, shift: f32, numbers: &mut [f32]) {
        assert_eq!(levels.len(), numbers.len());
        let start = numbers.as_ptr().align_offset(64).min(numbers.len());
        let (first, rest) = levels.split_at(start);
        let (first_numbers, rest_numbers) = numbers.split_at_mut(start);
        let (vectors, last) = rest.as_chunks();
        let (vector_numbers, last_numbers) = rest_numbers.as_chunks_mut();
        for (number, level) in first_numbers.iter_mut().zip(first).chain(last_numbers.iter_mut().zip(last)) {
            *number = f32::from(*level) * scale + shift;
        }
        // SAFETY: the machine has the instructions, the numbers begin at a multiple of 64 bytes, and there is a fence to come.
        unsafe { to_f32_avx512(vectors, scale, shift, vector_numbers) }
    }
}

// SAFETY: whoever calls it sees to it that the numbers begin at a multiple of 64 bytes, and that this thread passes a fence before it
// reads or writes them again, or lets another one do so.
#[target_feature(enable = "avx512f")]
unsafe fn to_f32_avx512(levels: &[[u8; 16]], scale: f32, shift: f32, numbers: &mut [[f32; 16]]) {
    let (scale, shift) = (_mm512_set1_ps(scale), _mm512_set1_ps(shift));
    for (levels, numbers) in levels.iter().zip(numbers) {
        // SAFETY: the pointer is to 16 bytes.
        let levels = unsafe { _mm_loadu_si128(levels.as_ptr().cast()) };
        let wide = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(levels));
        let wide = _mm512_add_ps(_mm512_mul_ps(wide, scale), shift);
        // SAFETY: the pointer is to 64 bytes at a multiple of 64, and there is a fence to come.
        unsafe { _mm512_stream_ps(numbers.as_mut_ptr(), wide) }
    }
}
