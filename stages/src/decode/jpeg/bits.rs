//! The bits of a scan: its bytes without stuffing, cut at its restart markers, and the reservoir that they are read through.

use std::ops::Range;

/// Zeros after each interval, so that a reservoir can be filled eight bytes at a time at its end. A whole image reads none.
const PADDING: usize = 16;

/// The entropy-coded bytes of one scan.
#[derive(Debug, Default)]
pub(super) struct ScanBytes {
    bytes: Vec<u8>,
    /// Where each restart interval is; the first one begins with the scan.
    intervals: Vec<Range<usize>>,
}

impl ScanBytes {
    /// Takes the bytes of the scan that begins `file`, up to its first marker that is no restart or to the end of the file,
    /// and says where that is; `None` where there are not as many restart intervals, or their markers not in their order.
    pub(super) fn read(&mut self, file: &[u8], intervals: usize) -> Option<usize> {
        self.bytes.clear();
        self.intervals.clear();
        // A marker takes two bytes.
        let markers = intervals.min(file.len() / 2);
        self.bytes.reserve_exact(file.len() + PADDING * (markers + 1));
        self.intervals.reserve_exact(markers + 1);
        let (mut at, mut start) = (0, 0);
        loop {
            let rest = &file[at..];
            let found = memchr::memchr(0xff, rest).unwrap_or(rest.len());
            match rest.get(found + 1).copied() {
                None => {
                    self.bytes.extend_from_slice(&rest[..found]);
                    self.end_interval(start);
                    return (self.intervals.len() == intervals).then_some(file.len());
                }
                Some(0x00) => {
                    self.bytes.extend_from_slice(&rest[..=found]);
                    at += found + 2;
                }
                Some(marker @ 0xd0..=0xd7) => {
                    let n = self.intervals.len();
                    if usize::from(marker - 0xd0) != n % 8 {
                        return None;
                    }
                    self.bytes.extend_from_slice(&rest[..found]);
                    if n + 1 == intervals {
                        // One more may stand at the end.
                        self.end_interval(start);
                        let next = at + found + 2;
                        return matches!(file[next..], [0xff, 0x01..=0xcf | 0xd8.., ..]).then_some(next);
                    }
                    start = self.end_interval(start);
                    at += found + 2;
                }
                // Any number of these may stand before a marker.
                Some(0xff) => {
                    self.bytes.extend_from_slice(&rest[..found]);
                    at += found + 1;
                }
                Some(_) => {
                    self.bytes.extend_from_slice(&rest[..found]);
                    self.end_interval(start);
                    return (self.intervals.len() == intervals).then_some(at + found);
                }
            }
        }
    }

    /// Ends the interval that begins at `start` and says where the next one does.
    fn end_interval(&mut self, start: usize) -> usize {
        self.intervals.push(start..self.bytes.len());
        self.bytes.resize(self.bytes.len() + PADDING, 0);
        self.bytes.len()
    }

    /// What a restart marker takes beside its two bytes in the file.
    pub(super) const MARKER_BYTES: u64 = (PADDING + size_of::<Range<usize>>()) as u64;

    /// How many there are.
    pub(super) fn n(&self) -> usize {
        self.bytes.len() - PADDING * self.intervals.len()
    }

    /// What the buffers take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.capacity() + self.intervals.capacity() * size_of::<Range<usize>>()
    }

    /// The bits of an interval.
    pub(super) fn interval(&self, index: usize) -> Option<Bits<'_>> {
        let Range { start, end } = self.intervals.get(index)?.clone();
        Some(Bits { bytes: &self.bytes[start..end + PADDING], at: 0, bits: 0, n: 0 })
    }
}

/// A reservoir of up to 63 bits over the bytes of an interval.
#[derive(Clone, Debug)]
pub(super) struct Bits<'a> {
    /// With the padding after them.
    bytes: &'a [u8],
    /// The next byte to load.
    at: usize,
    /// The next bits, left-aligned.
    bits: u64,
    /// How many of them are in the reservoir: the lower 6 bits of it, those above mean nothing.
    n: u64,
}

impl Bits<'_> {
    /// Fills the reservoir to at least 56 bits. After the end of the interval come zeros.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        let word = match self.bytes.get(self.at..self.at + 8) {
            Some(word) => u64::from_be_bytes(word.try_into().expect("8 bytes")),
            None => 0,
        };
        let n = self.n & 63;
        self.bits |= word >> n;
        self.at += ((63 - n) >> 3) as usize;
        self.n = n | 56;
    }

    /// The next bits, left-aligned; as many as the last [`Bits::refill`] left count.
    #[inline(always)]
    pub(super) fn peek(&self) -> u64 {
        self.bits
    }

    /// Goes on by as many bits as the lower 6 bits of `n` say.
    #[inline(always)]
    pub(super) fn consume(&mut self, n: u64) {
        self.bits <<= n & 63;
        self.n = self.n.wrapping_sub(n);
    }

    /// Where the next bit is, counted from the start of the interval.
    pub(super) fn position(&self) -> usize {
        self.at * 8 - (self.n & 63) as usize
    }

    /// Goes back by `n` bits.
    #[cold]
    #[inline(never)]
    pub(super) fn back(&mut self, n: u32) {
        let at = self.position() - n as usize;
        (self.at, self.bits, self.n) = (at / 8, 0, 0);
        self.refill();
        self.consume(at as u64 % 8);
    }

    /// True where more bits were read than the interval has.
    pub(super) fn is_overrun(&self) -> bool {
        self.position() > (self.bytes.len() - PADDING) * 8
    }

    /// True where all bytes of the interval were read, and no more.
    pub(super) fn is_spent(&self) -> bool {
        self.position().div_ceil(8) == self.bytes.len() - PADDING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_beyond_those_of_the_image_take_no_memory() {
        let markers: Vec<u8> = (0..1u32 << 20).flat_map(|at| [0xff, 0xd0 + (at % 8) as u8]).collect();
        let mut scan = ScanBytes::default();
        for intervals in [1, 2, 1000] {
            assert_eq!(scan.read(&markers, intervals), None);
            assert!(scan.bytes() < markers.len() + 64 * (intervals + 1), "{}", scan.bytes());
        }
        let wanted = (1 << 20) + 1;
        assert_eq!(scan.read(&markers, wanted + 1), None, "one is missing");
        assert_eq!(scan.read(&markers, wanted), Some(markers.len()));
        let most = markers.len() + (wanted + 1) * ScanBytes::MARKER_BYTES as usize;
        assert!(scan.bytes() <= most, "{} of {most}", scan.bytes());
    }
}
