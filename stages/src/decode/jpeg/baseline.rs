//! The blocks of a baseline scan.

use super::bits::Bits;
use super::coefficients::PLACES;
use super::frame::Component;
use super::huffman::{Entry, VALUE_MAX};

/// Reads a block and gives each of its coefficients to `put`, with its place in the first block of a
/// [`Quad`](super::coefficients::Quad); among them zeros, before what else comes to their place. `None` where the bits are no
/// block.
#[inline(always)]
pub(super) fn block(
    bits: &mut Bits<'_>,
    component: &Component,
    last: &mut i32,
    mut put: impl FnMut(u8, i16),
) -> Option<()> {
    let Component { dc, ac, quantisers, .. } = component;
    bits.refill();
    let (difference, n) = dc.difference(bits.peek())?;
    bits.consume(u64::from(n));
    *last += difference;
    if last.abs() > component.last_max {
        return None;
    }
    put(0, *last as i16);
    let mut next = 1;
    loop {
        bits.refill();
        // Four look-ups take no more bits than a refill leaves.
        for _ in 0..4 {
            let entry = ac.entry(bits.peek());
            let on = if entry.is_whole() {
                bits.consume(entry.bits());
                let ([first, second], [a, b]) = (entry.at(), entry.values());
                // The second one first: where there is none, its place may be that of the first.
                put(PLACES[(next + second) & 255], b);
                put(PLACES[(next + first) & 255], a);
                entry.on()
            } else {
                bits.refill();
                let (zeros, value, on, n) = ac.whole(bits.peek())?;
                let place = PLACES[(next + zeros) & 255];
                let quantiser = quantisers[usize::from(place) / 32][usize::from(place) % 8];
                if value.abs() * i32::from(quantiser) > VALUE_MAX {
                    return None;
                }
                put(place, value as i16);
                bits.consume(u64::from(n));
                bits.refill();
                on
            };
            if next + on > 63 {
                return end(bits, entry, next, on);
            }
            next += on;
        }
    }
}

/// Ends a block in which the next coefficient after `entry` has place `next + on`; `None` where it should not have ended there.
#[inline(always)]
fn end(bits: &mut Bits<'_>, entry: Entry, next: usize, on: usize) -> Option<()> {
    if entry.second_bits() > 0 {
        match next + entry.at()[0] {
            0..63 => {}
            // The second symbol is the next block's.
            63 => {
                bits.back(entry.second_bits());
                return Some(());
            }
            _ => return None,
        }
    }
    // Either all 64 came, or the block ended before.
    (next + on == 64 || next + on > 128).then_some(())
}
