//! Huffman tables as the entropy decoder looks them up: the next bits of the scan give a run of zeros, the value after it
//! and how many bits both took, at once, and where a second symbol fits into the same bits that one too.

/// Bits that a look-up sees.
pub(super) const LOOK_BITS: u32 = 10;

/// The largest coefficient, positive or negative, before it is quantised. Images of 8 bits have none far above 1024; what is
/// beyond this wraps around, in each transform in another way.
pub(super) const VALUE_MAX: i32 = 8191;

/// The most bits, of the 10 that a value may have, of one that times a quantiser is never beyond [`VALUE_MAX`].
pub(super) fn size_max(quantiser: i16) -> u32 {
    (VALUE_MAX / i32::from(quantiser) + 1).ilog2().min(10)
}

const ENTRIES: usize = 1 << LOOK_BITS;

/// The longest code of JPEG, bits.
const CODE_BITS_MAX: u32 = 16;

/// A table as the file states it (DHT): how many codes of each length from 1 to 16 bits there are, and what they mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) counts: [u8; 16],
    /// The symbols in the order of their codes; those beyond the codes are 0.
    pub(super) symbols: [u8; 256],
}

impl Spec {
    /// The first spec of a DHT body after its class and number, and how many bytes it takes. `None` where it is cut off or
    /// states more codes than there are.
    pub(super) fn read(body: &[u8]) -> Option<(Spec, usize)> {
        let counts: [u8; 16] = body.get(..16)?.try_into().expect("16 bytes");
        let n: usize = counts.iter().map(|&count| usize::from(count)).sum();
        let stated = body.get(16..16 + n)?;
        let mut symbols = [0; 256];
        symbols.get_mut(..n)?.copy_from_slice(stated);
        // The codes of each length follow those of the length before, shifted by a bit; the code of all ones is none.
        let mut code = 0u32;
        for (&count, length) in counts.iter().zip(1..) {
            code += u32::from(count);
            if code > (1 << length) - u32::from(count > 0) {
                return None;
            }
            code <<= 1;
        }
        Some((Spec { counts, symbols }, 16 + n))
    }

    /// The symbols that have codes.
    fn stated(&self) -> &[u8] {
        &self.symbols[..self.counts.iter().map(|&count| usize::from(count)).sum()]
    }
}

/// What follows the bits of a code that is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Symbol {
    /// Bits of the code.
    pub(super) code_bits: u32,
    /// The byte that it stands for: a run of zeros in its upper half, the bits of the value in its lower half.
    pub(super) byte: u8,
}

/// The codes of a table.
#[derive(Clone, Debug)]
pub(super) struct Codes {
    /// The symbol whose code the bits of an index begin with; no bits where the code is longer.
    short: Vec<Symbol>,
    /// For each length in bits, one past the last code of it and shorter ones, left-aligned in 16 bits.
    ends: [u32; 17],
    /// For each length in bits, what added to a code of it gives the place of its symbol.
    offsets: [i32; 17],
    symbols: [u8; 256],
}

impl Codes {
    pub(super) fn of(spec: &Spec) -> Codes {
        let mut short = vec![Symbol { code_bits: 0, byte: 0 }; ENTRIES];
        let (mut ends, mut offsets) = ([0; 17], [0; 17]);
        let (mut code, mut at) = (0u32, 0usize);
        for (&count, code_bits) in spec.counts.iter().zip(1u32..) {
            offsets[code_bits as usize] = at as i32 - code as i32;
            for _ in 0..count {
                if code_bits <= LOOK_BITS {
                    let (from, n) = (code << (LOOK_BITS - code_bits), 1 << (LOOK_BITS - code_bits));
                    let symbol = Symbol { code_bits, byte: spec.symbols[at] };
                    short[from as usize..][..n].fill(symbol);
                }
                (code, at) = (code + 1, at + 1);
            }
            ends[code_bits as usize] = code << (CODE_BITS_MAX - code_bits);
            code <<= 1;
        }
        Codes { short, ends, offsets, symbols: spec.symbols }
    }

    /// The symbol that these bits begin with; `None` where no code is there.
    #[inline(always)]
    pub(super) fn symbol(&self, bits: u64) -> Option<Symbol> {
        let short = self.short[(bits >> (64 - LOOK_BITS)) as usize];
        if short.code_bits > 0 {
            return Some(short);
        }
        let next = (bits >> (64 - CODE_BITS_MAX)) as u32;
        let code_bits = (LOOK_BITS + 1..=CODE_BITS_MAX).find(|&length| next < self.ends[length as usize])?;
        let at = (next >> (CODE_BITS_MAX - code_bits)) as i32 + self.offsets[code_bits as usize];
        Some(Symbol { code_bits, byte: self.symbols[at as usize & 255] })
    }
}

/// What the next bits of a block say: a symbol with the value that follows it, and where it is seen whole a second one.
///
/// A symbol without a value has 0 in a place that is 0 anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub(super) struct Entry {
    /// All the bits it takes, and [`END_OF_BLOCK`] where the block ends; 0 where a look-up does not say it: where it does not see the
    /// code and the first bit of the value, or takes more bits than [`SEEN_BITS_MAX`], or for a value that may be too large.
    pub(super) bits: u8,
    /// Places of the two coefficients after the current one.
    pub(super) at: [u8; 2],
    /// How far the next symbol goes on; beyond any block where a look-up does not say it.
    pub(super) on: u8,
    /// What added to the code and the bits of the first value, of which these are the lower ones, makes the value.
    offset: i16,
    /// Bits of 64 after the first symbol.
    shift: u8,
    /// The second value.
    pub(super) second: i8,
}

/// The most bits of an entry.
pub(super) const SEEN_BITS_MAX: u32 = 18;

/// Added where a block ends before its last coefficient: to the bits of an entry, of which 6 count, or to how far a whole symbol goes on.
pub(super) const END_OF_BLOCK: u8 = 128;

impl Entry {
    /// What a look-up does not say. Where that is not asked before, it is seen by the place of the next symbol, and its value is put to
    /// the place of the next coefficient alone.
    const LONG: Entry = Entry { bits: 0, at: [0, 0], on: 64, offset: 0, shift: 0, second: 0 };

    /// What each index begins with; values are of `size_max` bits at most.
    fn all(codes: &Codes, is_ac: bool, size_max: u32) -> Entries {
        let mut all = [Entry::LONG; ENTRIES];
        let mut index = 0;
        // Those of no short code are the last ones; a code and the sign of its value are all that an entry depends on.
        while let Some(&Symbol { code_bits: code_bits @ 1.., .. }) = codes.short.get(index) {
            let n = (1 << (LOOK_BITS - code_bits) >> 1).max(1);
            all[index..index + n].fill(Entry::of(codes, index, is_ac, size_max));
            index += n;
        }
        all
    }

    /// What an index begins with that begins with a short code.
    fn of(codes: &Codes, index: usize, is_ac: bool, size_max: u32) -> Entry {
        let Symbol { code_bits, byte } = codes.short[index];
        let size = u32::from(byte & 15);
        // The first bit of a value says whether it is negative.
        let has_sign = size == 0 || code_bits < LOOK_BITS;
        if !has_sign || size > size_max || code_bits + size > SEEN_BITS_MAX {
            return Entry::LONG;
        }
        let code = (index >> (LOOK_BITS - code_bits)) as i32;
        let is_negative = size > 0 && index >> (LOOK_BITS - code_bits - 1) & 1 == 0;
        let low = if is_negative { (1 << size) - 1 } else { 0 };
        let zeros = byte >> 4;
        let (ends, on) = if is_ac && byte == 0 { (END_OF_BLOCK, 0) } else { (0, zeros + 1) };
        Entry {
            bits: (code_bits + size) as u8 + ends,
            at: [zeros, zeros + 1],
            on,
            offset: -((code << size) + low) as i16,
            shift: (64 - code_bits - size) as u8,
            second: 0,
        }
    }

    /// The same and the next symbol, of `known` bits after this one.
    fn with(self, next: Entry, known: u64) -> Entry {
        let second = next.value(known);
        let is_seen = self.bits > 0 && next.bits > 0 && self.n() + next.n() <= LOOK_BITS;
        if !is_seen || self.ends() || second.abs() > 127 {
            return self;
        }
        Entry {
            bits: self.bits + next.bits,
            at: [self.at[0], self.on + next.at[0]],
            on: self.on + next.on,
            second: second as i8,
            ..self
        }
    }

    /// The bits that it takes.
    pub(super) fn n(&self) -> u32 {
        u32::from(self.bits % 64)
    }

    /// Whether the block ends.
    #[inline(always)]
    pub(super) fn ends(&self) -> bool {
        self.bits >= END_OF_BLOCK
    }

    /// The first value; `bits` are those that gave the entry.
    #[inline(always)]
    pub(super) fn value(&self, bits: u64) -> i16 {
        ((bits >> (self.shift & 63)) as i16).wrapping_add(self.offset)
    }
}

/// The value that `size` bits at the top of 64 stand for (ITU-T T.81, figure F.12). Sizes are at most 15.
#[inline(always)]
pub(super) fn value(bits: u64, size: u32) -> i16 {
    // In two steps, because a size of 0 would shift by 64.
    let magnitude = (bits >> 1 >> (63 - size)) as i32;
    let low = if bits as i64 >= 0 { (1 << size) - 1 } else { 0 };
    (magnitude - low) as i16
}

/// What each [`LOOK_BITS`] of the next bits say.
pub(super) type Entries = [Entry; ENTRIES];

/// The tables of a component as they are looked up.
#[derive(Clone, Debug)]
#[repr(C)]
pub(super) struct Pair {
    /// Of coefficients other than the first one.
    pub(super) ac: Entries,
    /// Of the difference of the first coefficient to that of the block before, and what comes after it.
    pub(super) dc: Entries,
    codes: [Codes; 2],
}

impl Pair {
    /// `None` where a difference would take more than 11 bits, another coefficient more than 10, or none after a run that is
    /// not 15: a baseline image of 8 bits has none of these. A look-up shall give no other coefficient of more than `size_max` bits.
    pub(super) fn of([dc, ac]: [&Spec; 2], size_max: u32) -> Option<Pair> {
        let is_other = |&byte: &u8| byte & 15 > 10 || (byte & 15 == 0 && !matches!(byte >> 4, 0 | 15));
        if dc.stated().iter().any(|&size| size > 11) || ac.stated().iter().any(is_other) {
            return None;
        }
        let codes = [dc, ac].map(Codes::of);
        let (one_dc, one_ac) = (Entry::all(&codes[0], false, 11), Entry::all(&codes[1], true, size_max));
        let two = |of: &Entries| {
            std::array::from_fn(|index| {
                let after = index << of[index].n();
                of[index].with(one_ac[after % ENTRIES], (after as u64) << (64 - LOOK_BITS))
            })
        };
        Some(Pair { dc: two(&one_dc), ac: two(&one_ac), codes })
    }

    /// The symbol that these bits begin with, however long: zeros before its value, the value, how far it goes on and the
    /// bits it takes, at most 27. `None` where no code is there.
    #[cold]
    #[inline(never)]
    pub(super) fn whole(&self, is_ac: bool, bits: u64) -> Option<(u8, i16, u8, u32)> {
        let Symbol { code_bits, byte } = self.codes[usize::from(is_ac)].symbol(bits)?;
        let size = u32::from(byte & 15);
        let on = if is_ac && byte == 0 { END_OF_BLOCK } else { (byte >> 4) + 1 };
        Some((byte >> 4, value(bits << code_bits, size), on, code_bits + size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_as_long_as_a_look_up_may_stand_for_no_bits_at_all() {
        for code_bits in 1..=16 {
            let mut counts = [0; 16];
            counts[code_bits - 1] = 1;
            let spec = Spec { counts, symbols: [0; 256] };
            let pair = Pair::of([&spec; 2], 10).expect("differences of no bits, ends of blocks");
            assert_eq!(pair.whole(false, 0), Some((0, 0, 1, code_bits as u32)));
            assert_eq!(pair.whole(true, 0), Some((0, 0, END_OF_BLOCK, code_bits as u32)));
            let [dc, ac] =
                [pair.dc[0], pair.ac[0]].map(|entry| (entry.bits as usize, entry.value(0), entry.on));
            let is_short = code_bits as u32 <= LOOK_BITS;
            let end = usize::from(END_OF_BLOCK);
            assert_eq!(ac, if is_short { (code_bits + end, 0, 0) } else { (0, 0, 64) });
            let both = (2 * code_bits + end, 0, 1);
            let one = if is_short { (code_bits, 0, 1) } else { (0, 0, 64) };
            assert_eq!(dc, if 2 * code_bits as u32 <= LOOK_BITS { both } else { one });
        }
    }
}
