//! The blocks of a baseline scan.

use super::bits::Bits;
use super::coefficients::{PLACES, Quad};
use super::frame::Component;
use super::huffman::{Ac, Dc, Entry, VALUE_MAX};

/// Reads a block into place `at` of a quad whose coefficients there are 0; `None` where the bits are no block.
#[inline(always)]
pub(super) fn block(
    bits: &mut Bits<'_>,
    component: &Component,
    last: &mut i32,
    quad: &mut Quad,
    at: usize,
) -> Option<()> {
    let Component { dc, ac, quantisers, .. } = component;
    let block: &mut [i16; 256] = (&mut quad.0[at * 8..at * 8 + 256]).try_into().expect("256 of them");
    bits.refill();
    let (difference, n) = dc.difference(bits.peek())?;
    bits.consume(u64::from(n));
    *last += difference;
    if last.abs() > component.last_max {
        return None;
    }
    block[0] = *last as i16;
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
                block[usize::from(PLACES[(next + second) & 255])] = b;
                block[usize::from(PLACES[(next + first) & 255])] = a;
                entry.on()
            } else {
                bits.refill();
                let (zeros, value, on, n) = ac.whole(bits.peek())?;
                let place = usize::from(PLACES[(next + zeros) & 255]);
                if value.abs() * i32::from(quantisers[place / 32][place % 8]) > VALUE_MAX {
                    return None;
                }
                block[place] = value as i16;
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

/// Goes past a block of which only the DC coefficient counts, because later ones are told by their difference to it.
#[inline(always)]
pub(super) fn skim(bits: &mut Bits<'_>, dc: &Dc, ac: &Ac, last: &mut i32) -> Option<()> {
    bits.refill();
    let (difference, n) = dc.difference(bits.peek())?;
    bits.consume(u64::from(n));
    *last += difference;
    let mut next = 1;
    loop {
        bits.refill();
        for _ in 0..4 {
            let entry = ac.entry(bits.peek());
            let on = if entry.is_whole() {
                bits.consume(entry.bits());
                entry.on()
            } else {
                bits.refill();
                let (_, _, on, n) = ac.whole(bits.peek())?;
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
