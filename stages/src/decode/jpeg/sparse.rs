//! The blocks of a baseline scan that have few symbols.
//!
//! Symbols are read one after the other, whichever block they belong to, so that the end of a block is no branch: the table of first
//! coefficients comes after it, else that of the others. Where blocks have few symbols, and each another number of them, a processor
//! guesses the end of most of them wrong, which takes it as long as two or three look-ups; where they have many, that is less than
//! what is done here for each of them.

use std::hint::select_unpredictable;
use std::ops::Range;

use super::baseline::{Slot, Slots, fill};
use super::bits::Bits;
use super::coefficients::{Flat, PLACES, block};
use super::huffman::{Entry, LOOK_BITS};
use crate::simd::isa::for_each_isa;

for_each_isa! {
    /// As that of [`baseline`](super::baseline), of a range of blocks. Where no one sees them, `coefficients` are zeros before it, and
    /// after it where it says something.
    blocks = blocks_loop(
        bits: &mut Bits<'_>,
        slots: &Slots<'_>,
        range: Range<u8>,
        last: &mut [i32; 3],
        coefficients: &mut Flat,
        is_seen: bool
    ) -> Option<()>
}

#[inline(always)]
fn blocks_loop(
    bits: &mut Bits<'_>,
    slots: &Slots<'_>,
    range: Range<u8>,
    last: &mut [i32; 3],
    coefficients: &mut Flat,
    is_seen: bool,
) -> Option<()> {
    let these = &slots[usize::from(range.start)..usize::from(range.end)];
    if is_seen {
        symbols::<true>(bits, slots, range, coefficients)?;
        firsts(these, last, |slot, difference| {
            let first = place(coefficients, slot, 0);
            let sum = difference + i32::from(*first);
            *first = sum as i16;
            sum
        })
    } else {
        symbols::<false>(bits, slots, range, coefficients)?;
        firsts(these, last, |slot, sum| {
            *place(coefficients, slot, UNSEEN) = 0;
            sum + i32::from(std::mem::take(place(coefficients, slot, 0)))
        })
    }
}

/// Adds up the first coefficients of each component by `add`, from what it was last. `None` where one is too large.
#[inline(always)]
fn firsts(slots: &[Slot<'_>], last: &mut [i32; 3], mut add: impl FnMut(&Slot<'_>, i32) -> i32) -> Option<()> {
    let [mut a, mut b, mut c] = *last;
    let mut is_good = true;
    for slot in slots {
        let sum = match slot.index {
            0 => {
                a = add(slot, a);
                a
            }
            1 => {
                b = add(slot, b);
                b
            }
            _ => {
                c = add(slot, c);
                c
            }
        };
        is_good &= sum.abs() <= slot.component.last_max;
    }
    *last = [a, b, c];
    is_good.then_some(())
}

/// Where in the file's order the coefficients go that no one sees.
const UNSEEN: usize = 63;

/// The coefficient of a block that has this place in the file.
#[inline(always)]
fn place<'f>(coefficients: &'f mut Flat, slot: &Slot<'_>, at: usize) -> &'f mut i16 {
    &mut block(coefficients, slot.at)[usize::from(PLACES[at % 256])]
}

/// Reads the symbols of blocks, of which there is one at least, and puts their coefficients to their places, of blocks that are not seen
/// the first one to its place and the others to that of [`UNSEEN`]. The first one is a difference.
#[inline(always)]
fn symbols<const IS_SEEN: bool>(
    bits: &mut Bits<'_>,
    slots: &Slots<'_>,
    Range { start, end: stop }: Range<u8>,
    coefficients: &mut Flat,
) -> Option<()> {
    debug_assert!(start < stop, "no block");
    let mut reservoir = bits.clone();
    let mut index = start;
    let mut next = 0;
    let first = &slots[usize::from(start)];
    let mut table = &first.tables.dc;
    // Of the block that is read and of the one after it, known before it is known which of them is asked for.
    let (mut others, mut after) = (&first.tables.ac, first.after);
    'symbols: loop {
        reservoir.refill();
        macro_rules! look_up {
            () => {
                let peeked = reservoir.peek();
                let entry = &table[(peeked >> (64 - LOOK_BITS)) as usize];
                reservoir.consume(u64::from(entry.bits));
                let slot = &slots[usize::from(index)];
                let value = entry.value(peeked);
                if IS_SEEN {
                    // The second one first: where there is none, its place may be that of the first.
                    *place(coefficients, slot, next + usize::from(entry.at[1])) = i16::from(entry.second);
                    *place(coefficients, slot, next + usize::from(entry.at[0])) = value;
                } else {
                    *place(coefficients, slot, select_unpredictable(next == 0, 0, UNSEEN)) = value;
                }
                let on = next + usize::from(entry.on);
                if on > 63 {
                    if IS_SEEN {
                        // What `Entry::LONG` makes of the bits was put here.
                        *place(coefficients, slot, next) = 0;
                    }
                    let (at, value);
                    (reservoir, at, value, next) = seldom(reservoir, slot, (peeked, entry), next)?;
                    if IS_SEEN || at == 0 {
                        *place(coefficients, slot, at) = value;
                    }
                    table = if next == 0 { after } else { others };
                    index += u8::from(next == 0);
                    if index == stop {
                        break 'symbols;
                    }
                    let slot = &slots[usize::from(index)];
                    (others, after) = (&slot.tables.ac, slot.after);
                    continue;
                }
                let ends = entry.ends();
                table = select_unpredictable(ends, after, others);
                next = on & usize::from(ends).wrapping_sub(1);
                index += u8::from(ends);
                if index == stop {
                    break 'symbols;
                }
                let slot = &slots[usize::from(index)];
                (others, after) = (&slot.tables.ac, slot.after);
            };
        }
        // Three look-ups take no more bits than a refill leaves.
        look_up!();
        look_up!();
        look_up!();
    }
    *bits = reservoir;
    Some(())
}

/// Reads on where a look-up says nothing, or goes on behind the end of a block, by the entry that `peeked` gave, before which the next
/// coefficient had the place `next`. `bits` are those after it. Says the place of a coefficient and its value, and the place of the next
/// one, 0 after the end of the block. `None` where the bits are no block.
#[cold]
#[inline(never)]
fn seldom<'a>(
    mut bits: Bits<'a>,
    slot: &Slot<'_>,
    (peeked, entry): (u64, &Entry),
    next: usize,
) -> Option<(Bits<'a>, usize, i16, usize)> {
    if entry.bits == 0 {
        let (at, value, on) = slot.symbol(&mut bits, next)?;
        return Some((bits, at, value, if on > 63 { 0 } else { on }));
    }
    fill(&mut bits, slot, (peeked, entry), next)?;
    Some((bits, next + usize::from(entry.at[0]), entry.value(peeked), 0))
}

#[cfg(test)]
mod tests {
    use forebay_datasets::seed::{Seed, Stream};

    use super::super::baseline;
    use super::super::bits::ScanBytes;
    use super::super::coefficients::Quads;
    use super::super::frame::Component;
    use super::super::huffman::{Pair, Spec};
    use super::*;
    use crate::simd::isa::Isa;

    /// Codes of random lengths, most of which there are, for some of these symbols, the first of which has the shortest.
    fn spec(symbols: &[u8], stream: &mut Stream) -> Spec {
        let (mut counts, mut stated) = ([0; 16], [0; 256]);
        let (mut n, mut free) = (0, 1);
        for count in &mut counts {
            free *= 2;
            *count = (free / 2 + stream.below(free / 2 + 1)).min(free - 1).min(12) as u8;
            for _ in 0..*count {
                stated[n] = symbols[if n == 0 { 0 } else { stream.below(symbols.len() as u64) as usize }];
                n += 1;
            }
            free -= u64::from(*count);
        }
        Spec { counts, symbols: stated }
    }

    /// Bits at random, as a scan has them.
    fn scan(stream: &mut Stream) -> ScanBytes {
        let mut file = Vec::new();
        for _ in 0..stream.below(400) {
            match stream.below(256) as u8 {
                0xff => file.extend([0xff, 0]),
                byte => file.push(byte),
            }
        }
        file.extend([0xff, 0xd9]);
        let mut scan = ScanBytes::default();
        scan.read(&file, 1).expect("one interval");
        scan
    }

    #[test]
    fn blocks_are_those_that_are_read_one_by_one() {
        let mut stream = Seed(12).stream("blocks");
        let firsts: Vec<u8> = (0..12).collect();
        // Mostly short runs and small values.
        let runs = (0..16).flat_map(|zeros| (1..11).map(move |size| (zeros, size)));
        let runs = runs.flat_map(|(zeros, size)| {
            let weight = 40 / (usize::from(zeros) + 1) / usize::from(size);
            std::iter::repeat_n(zeros << 4 | size, weight.max(1))
        });
        let others: Vec<u8> = [0, 0xf0].into_iter().chain(runs).collect();
        let (mut n_blocks, mut n_refused) = (0, 0);
        for _ in 0..4000 {
            let components =
                [0, 1, 2].map(|index| Component::of_test(index, [1, 1, 2, 5, 60][stream.below(5) as usize]));
            let pairs = components.each_ref().map(|_| {
                let specs = [spec(&firsts, &mut stream), spec(&others, &mut stream)];
                Pair::of(specs.each_ref(), 3 + stream.below(8) as u32).expect("symbols of a baseline scan")
            });
            // Two of the first, one of each other, and so on.
            let of = |at: usize| [0, 0, 1, 2][at % 4];
            let slots: Slots<'_> = std::array::from_fn(|at| Slot {
                component: &components[of(at)],
                tables: &pairs[of(at)],
                after: &pairs[of(at + 1)].dc,
                index: of(at) as u32,
                at: (at % 40 / 4 * 256 + at % 4 * 8) as u16,
            });
            let scan = scan(&mut stream);
            for isa in Isa::all() {
                let bits = || scan.interval(0).expect("it has one");
                let [mut one, mut other] = [bits(), bits()];
                let [mut last, mut other_last] = [[0; 3]; 2];
                let mut at = 0;
                while at < 40 {
                    let range = at as u8..(at + 1 + stream.below(40 - at)) as u8;
                    let n = range.len() as u64;
                    let is_seen = stream.below(2) == 0;
                    let [mut quads, mut other_quads] = [Quads::default(), Quads::default()];
                    let some = &slots[usize::from(range.start)..usize::from(range.end)];
                    let found = blocks(isa, &mut one, &slots, range, &mut last, quads.flat(), is_seen);
                    let (other_last, flat) = (&mut other_last, other_quads.flat());
                    let expected = baseline::blocks(isa, &mut other, some, other_last, flat, is_seen);
                    assert_eq!(found, expected);
                    if found.is_none() || one.is_overrun() {
                        n_refused += 1;
                        break;
                    }
                    assert_eq!((one.position(), last), (other.position(), *other_last));
                    assert!(quads.flat() == other_quads.flat(), "seen: {is_seen}");
                    (at, n_blocks) = (at + n, n_blocks + n);
                }
            }
        }
        assert!(n_blocks > 20_000 && n_refused > 2000, "{n_blocks} blocks, {n_refused} refused");
    }
}
