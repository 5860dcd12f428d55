//! The blocks of a baseline scan.

use super::bits::Bits;
use super::coefficients::{Flat, PLACES};
use super::frame::Component;
use super::huffman::{Entry, Pair, VALUE_MAX};
use crate::simd::isa::for_each_isa;

/// A block that is to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot<'a> {
    pub(super) component: &'a Component,
    pub(super) tables: &'a Pair,
    /// The place of the component among those of the frame.
    pub(super) index: usize,
    /// Where its first coefficient goes.
    pub(super) at: usize,
}

for_each_isa! {
    /// Reads blocks, one after the other: their coefficients other than zero go to their [`PLACES`] after the first one, among them
    /// some zeros, before what else comes to their place. The first one is stated as the difference to that of the component's
    /// block before, which is among `last`. `None` where the bits are no blocks.
    blocks = blocks_loop(
        bits: &mut Bits<'_>,
        slots: &[Slot<'_>],
        last: &mut [i32; 3],
        coefficients: &mut Flat
    ) -> Option<()>
}
for_each_isa! {
    /// Goes past blocks that no one sees: of their coefficients only the first one is kept, for the next block of its component.
    skip = skip_loop(bits: &mut Bits<'_>, slots: &[Slot<'_>], last: &mut [i32; 3]) -> Option<()>
}

#[inline(always)]
fn blocks_loop(
    bits: &mut Bits<'_>,
    slots: &[Slot<'_>],
    last: &mut [i32; 3],
    coefficients: &mut Flat,
) -> Option<()> {
    let mut reservoir = bits.clone();
    for slot in slots {
        let coefficients: &mut [i16; 256] = coefficients[slot.at..].first_chunk_mut()?;
        let put = |at: usize, value| coefficients[usize::from(PLACES[at & 255])] = value;
        coefficients[0] = block(&mut reservoir, slot, last, put)?;
    }
    *bits = reservoir;
    Some(())
}

#[inline(always)]
fn skip_loop(bits: &mut Bits<'_>, slots: &[Slot<'_>], last: &mut [i32; 3]) -> Option<()> {
    let mut reservoir = bits.clone();
    for slot in slots {
        block(&mut reservoir, slot, last, |_, _| ())?;
    }
    *bits = reservoir;
    Some(())
}

/// Reads a block and says its first coefficient; the others are put to their places.
#[inline(always)]
fn block(
    bits: &mut Bits<'_>,
    slot: &Slot<'_>,
    last: &mut [i32; 3],
    put: impl FnMut(usize, i16),
) -> Option<i16> {
    let difference = coefficients(bits, slot.tables, &slot.component.quantisers, put)?;
    let last = &mut last[slot.index];
    *last += i32::from(difference);
    (last.abs() <= slot.component.last_max).then_some(*last as i16)
}

/// The difference of the first coefficient; the others are put to their places.
#[inline(always)]
fn coefficients(
    bits: &mut Bits<'_>,
    tables: &Pair,
    quantisers: &[[i16; 8]; 8],
    mut put: impl FnMut(usize, i16),
) -> Option<i16> {
    bits.refill();
    let peeked = bits.peek();
    let entry = tables.dc(peeked);
    let (first, mut next);
    if entry.bits > 0 {
        bits.consume(u64::from(entry.bits));
        put(usize::from(entry.at[1]), i16::from(entry.second));
        first = entry.value(peeked);
        next = usize::from(entry.on);
        if next > 63 {
            return Some(first);
        }
    } else {
        let (_, value, _, n) = tables.whole(false, peeked)?;
        first = value;
        bits.consume(u64::from(n));
        next = 1;
    }
    loop {
        bits.refill();
        // Three look-ups take no more bits than a refill leaves.
        for _ in 0..3 {
            let peeked = bits.peek();
            let entry = tables.ac(peeked);
            if entry.bits > 0 {
                bits.consume(u64::from(entry.bits));
                // The second one first: where there is none, its place may be that of the first.
                put(next + usize::from(entry.at[1]), i16::from(entry.second));
                put(next + usize::from(entry.at[0]), entry.value(peeked));
                next += usize::from(entry.on);
                if next > 63 {
                    let at = next - usize::from(entry.on);
                    return end(bits, tables, peeked, entry, at).map(|()| first);
                }
            } else {
                bits.refill();
                let (zeros, value, on, n) = tables.whole(true, bits.peek())?;
                let at = next + usize::from(zeros);
                let place = usize::from(PLACES[at & 255]);
                let quantiser = quantisers[place / 32][place % 8];
                if i32::from(value).abs() * i32::from(quantiser) > VALUE_MAX {
                    return None;
                }
                put(at, value);
                bits.consume(u64::from(n));
                bits.refill();
                next += usize::from(on);
                if next > 63 {
                    return (next == 64 || next > 128).then_some(first);
                }
            }
        }
    }
}

/// Ends a block with `entry`, before which the next coefficient had the place `at`. `None` where it should not end there.
#[inline(always)]
fn end(bits: &mut Bits<'_>, tables: &Pair, peeked: u64, entry: &Entry, at: usize) -> Option<()> {
    let on = at + usize::from(entry.on);
    match at + usize::from(entry.at[0]) {
        // Either all 64 came, or the block ended before.
        0..63 => (on == 64 || on > 128).then_some(()),
        63 => {
            // A second symbol is the next block's.
            let (_, _, _, first) = tables.whole(true, peeked)?;
            bits.back(u32::from(entry.bits) - first);
            Some(())
        }
        _ => None,
    }
}
