//! The blocks of a baseline scan.

use super::bits::Bits;
use super::frame::Component;
use super::huffman::{Ac, Dc, Entry, VALUE_MAX};

/// Four blocks that stand side by side, `[8, 4, 8]`: a row of all four, then the next one; coefficients in natural order.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct Quad(pub(super) [i16; 288]);

impl Quad {
    pub(super) const ZERO: Quad = Quad([0; 288]);
}

/// Where the coefficients of a block are in the first block of a [`Quad`], by their place in the file. What a file says of
/// places beyond the last goes to the last, as in libjpeg.
pub(super) static PLACES: [u8; 256] = {
    let mut places = [7 * 32 + 7; 256];
    let (mut at, mut row, mut column) = (0, 0, 0);
    let mut up = true;
    while at < 64 {
        places[at] = row * 32 + column;
        if up {
            if column == 7 {
                row += 1;
                up = false;
            } else if row == 0 {
                column += 1;
                up = false;
            } else {
                row -= 1;
                column += 1;
            }
        } else if row == 7 {
            column += 1;
            up = true;
        } else if column == 0 {
            row += 1;
            up = true;
        } else {
            row += 1;
            column -= 1;
        }
        at += 1;
    }
    places
};

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
