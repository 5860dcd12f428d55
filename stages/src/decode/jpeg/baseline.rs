//! The blocks of a baseline scan.

use super::bits::Bits;
use super::coefficients::{self, Flat, PLACES};
use super::frame::Component;
use super::huffman::{END_OF_BLOCK, Entries, Entry, LOOK_BITS, Pair, VALUE_MAX};
use crate::simd::isa::for_each_isa;

/// A block that is to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot<'a> {
    pub(super) component: &'a Component,
    pub(super) tables: &'a Pair,
    /// Of the first coefficient of the block after it.
    pub(super) after: &'a Entries,
    /// The place of the component among those of the frame.
    pub(super) index: u32,
    /// Where its first coefficient goes.
    pub(super) at: u16,
}

/// The blocks of some units: as many as a byte can say, so that it needs no comparison to be one of them.
pub(super) type Slots<'a> = [Slot<'a>; 256];

for_each_isa! {
    /// Reads blocks, one after the other: their coefficients other than zero go to their [`PLACES`] after the first one, among them
    /// some zeros, before what else comes to their place. The first one is stated as the difference to that of the component's
    /// block before, which is among `last`. Of blocks that no one sees nothing but that is kept. `None` where the bits are no blocks.
    blocks = blocks_loop(
        bits: &mut Bits<'_>,
        slots: &[Slot<'_>],
        last: &mut [i32; 3],
        coefficients: &mut Flat,
        is_seen: bool
    ) -> Option<()>
}

#[inline(always)]
fn blocks_loop(
    bits: &mut Bits<'_>,
    slots: &[Slot<'_>],
    last: &mut [i32; 3],
    coefficients: &mut Flat,
    is_seen: bool,
) -> Option<()> {
    let mut reservoir = bits.clone();
    if is_seen {
        for slot in slots {
            let coefficients = coefficients::block(coefficients, slot.at);
            let put = |at: usize, value| coefficients[usize::from(PLACES[at & 255])] = value;
            let difference = block(&mut reservoir, slot, put)?;
            coefficients[0] = slot.first(difference, last)?;
        }
    } else {
        for slot in slots {
            let difference = block(&mut reservoir, slot, |_, _| ())?;
            slot.first(difference, last)?;
        }
    }
    *bits = reservoir;
    Some(())
}

impl Slot<'_> {
    /// The first coefficient, which differs by this from the one before. `None` where it is too large.
    #[inline(always)]
    pub(super) fn first(&self, difference: i16, last: &mut [i32; 3]) -> Option<i16> {
        let last = &mut last[self.index as usize];
        *last += i32::from(difference);
        (last.abs() <= self.component.last_max).then_some(*last as i16)
    }

    /// Reads a symbol that a look-up does not say, before which the next coefficient had the place `next`: the place of its
    /// coefficient, the value, and the place of the next one, above 63 after the end of the block. `None` where it is no symbol, or
    /// should not be there.
    #[inline(always)]
    pub(super) fn symbol(&self, bits: &mut Bits<'_>, next: usize) -> Option<(usize, i16, usize)> {
        bits.refill();
        let (zeros, value, on, n) = self.tables.whole(next > 0, bits.peek())?;
        bits.consume(u64::from(n));
        bits.refill();
        let (at, on) = (next + usize::from(zeros), next + usize::from(on));
        let place = usize::from(PLACES[at & 255]);
        let quantiser = self.component.quantisers[place / 32][place % 8];
        let is_small = next == 0 || i32::from(value).abs() * i32::from(quantiser) <= VALUE_MAX;
        // Either all 64 came, or the block ended before.
        (is_small && (on <= 64 || on > usize::from(END_OF_BLOCK))).then_some((at, value, on))
    }
}

/// Reads a block: the difference of the first coefficient; the others are put to their places.
#[inline(always)]
fn block(bits: &mut Bits<'_>, slot: &Slot<'_>, mut put: impl FnMut(usize, i16)) -> Option<i16> {
    let tables = slot.tables;
    bits.refill();
    let peeked = bits.peek();
    let entry = &tables.dc[(peeked >> (64 - LOOK_BITS)) as usize];
    let (first, mut next);
    if entry.bits > 0 {
        bits.consume(u64::from(entry.bits));
        put(usize::from(entry.at[1]), i16::from(entry.second));
        first = entry.value(peeked);
        next = usize::from(entry.on);
        if entry.ends() {
            return Some(first);
        }
    } else {
        (_, first, next) = slot.symbol(bits, 0)?;
    }
    loop {
        bits.refill();
        // Three look-ups take no more bits than a refill leaves.
        for _ in 0..3 {
            let peeked = bits.peek();
            let entry = &tables.ac[(peeked >> (64 - LOOK_BITS)) as usize];
            if entry.bits > 0 {
                bits.consume(u64::from(entry.bits));
                // The second one first: where there is none, its place may be that of the first.
                put(next + usize::from(entry.at[1]), i16::from(entry.second));
                put(next + usize::from(entry.at[0]), entry.value(peeked));
                let on = next + usize::from(entry.on);
                if on > 63 {
                    return fill(bits, slot, (peeked, entry), next).map(|()| first);
                }
                if entry.ends() {
                    return Some(first);
                }
                next = on;
            } else {
                let (at, value, on) = slot.symbol(bits, next)?;
                put(at, value);
                next = on;
                if next > 63 {
                    return Some(first);
                }
            }
        }
    }
}

/// Ends a block with the last of its coefficients: by the entry that `peeked` gave, before which the next one had the place `next`.
/// `None` where it should not end there.
#[inline(always)]
pub(super) fn fill(
    bits: &mut Bits<'_>,
    slot: &Slot<'_>,
    (peeked, entry): (u64, &Entry),
    next: usize,
) -> Option<()> {
    match next + usize::from(entry.at[0]) {
        0..63 => (next + usize::from(entry.on) == 64).then_some(()),
        63 => {
            // A second symbol is the next block's.
            let (_, _, _, first) = slot.tables.whole(true, peeked)?;
            bits.back(entry.n() - first);
            Some(())
        }
        _ => None,
    }
}
