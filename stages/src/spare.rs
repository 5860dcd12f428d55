//! A large buffer of pixels that each thread keeps: large blocks go back to the system when they are freed, and clearing as many
//! pages for the next photograph costs a tenth of what decoding it does.

use std::cell::Cell;
use std::ops::RangeInclusive;

/// Bytes of a buffer that is kept. Smaller ones the allocator keeps by itself.
const KEPT_BYTES: RangeInclusive<usize> = 4 << 20..=BYTES_MAX;

/// The most bytes that a thread keeps.
pub(crate) const BYTES_MAX: usize = 16 << 20;

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// An empty buffer for so many bytes: the one that is kept where it is little larger.
pub(crate) fn take(bytes: usize) -> Vec<u8> {
    let spare = SPARE.take();
    if (bytes..=bytes + bytes / 8).contains(&spare.capacity()) {
        return spare;
    }
    SPARE.set(spare);
    Vec::with_capacity(bytes)
}

/// Keeps a buffer for the next image of this thread, in place of the one before.
pub(crate) fn give(mut buffer: Vec<u8>) {
    if KEPT_BYTES.contains(&buffer.capacity()) {
        buffer.clear();
        SPARE.set(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_buffer_serves_the_next_image_of_its_size() {
        let buffer = take(5 << 20);
        let place = buffer.as_ptr();
        give(buffer);
        assert_eq!(take(3 << 20).capacity(), 3 << 20, "of a smaller image it would be too large");
        assert_eq!(take(6 << 20).capacity(), 6 << 20);
        let again = take((5 << 20) - 1000);
        assert!(again.as_ptr() == place && again.is_empty());
        let other = take(5 << 20);
        assert!(other.as_ptr() != place, "it is given once");
        for size in [1 << 20, 17 << 20] {
            give(Vec::with_capacity(size));
            assert_eq!(SPARE.take().capacity(), 0, "{size}");
        }
    }
}
