//! Huffman tables as the entropy decoder looks them up: the next bits of the scan give a run of zeros, the value after it
//! and how many bits both took, at once, and where a second symbol fits into the same bits that one too.

/// Bits that a look-up sees.
pub(super) const LOOK_BITS: u32 = 10;
/// The most bits of a value that a look-up gives. Times any quantiser of 8 bits it is less than [`VALUE_MAX`].
const LOOK_SIZE_MAX: u8 = 5;

/// The largest coefficient, positive or negative, before it is quantised. Images of 8 bits have none far above 1024; what is
/// beyond this wraps around, in each transform in another way.
pub(super) const VALUE_MAX: i32 = 8191;

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
}

/// What follows the bits of a code that is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Symbol {
    /// Bits of the code.
    code_bits: u32,
    /// The byte that it stands for: a run of zeros in its upper half, the bits of the value in its lower half.
    byte: u8,
}

/// The codes of a table.
#[derive(Clone, Debug)]
struct Codes {
    /// The symbol whose code the bits of an index begin with; no bits where the code is longer.
    short: Vec<Symbol>,
    /// For each length in bits, one past the last code of it and shorter ones, left-aligned in 16 bits.
    ends: [u32; 17],
    /// For each length in bits, what added to a code of it gives the place of its symbol.
    offsets: [i32; 17],
    symbols: [u8; 256],
}

impl Codes {
    fn of(spec: &Spec) -> Codes {
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

    /// The symbol that these 64 bits begin with; `None` where no code does.
    #[inline]
    fn symbol(&self, bits: u64) -> Option<Symbol> {
        let short = self.short[(bits >> (64 - LOOK_BITS)) as usize];
        if short.code_bits > 0 { Some(short) } else { self.long(bits) }
    }

    #[cold]
    #[inline(never)]
    fn long(&self, bits: u64) -> Option<Symbol> {
        let next = (bits >> (64 - CODE_BITS_MAX)) as u32;
        let code_bits = (LOOK_BITS + 1..=CODE_BITS_MAX).find(|&length| next < self.ends[length as usize])?;
        let at = (next >> (CODE_BITS_MAX - code_bits)) as i32 + self.offsets[code_bits as usize];
        Some(Symbol { code_bits, byte: self.symbols[at as usize & 255] })
    }
}

/// The value that `size` bits at the top of 64 stand for (ITU-T T.81, figure F.12). Sizes are at most 15.
#[inline]
pub(super) fn value(bits: u64, size: u32) -> i32 {
    // In two steps, because a size of 0 would shift by 64.
    let magnitude = ((bits >> 1) >> (63 - size)) as i32;
    let is_negative = (bits as i64 >= 0) as i32;
    magnitude - (is_negative * ((1 << size) - 1))
}

/// The table of DC differences.
#[derive(Clone, Debug)]
pub(super) struct Dc {
    /// The difference above 16 bits of which the lower 6 are how many bits it takes; 0 where the look-up does not see it whole.
    entries: Box<[u32; ENTRIES]>,
    codes: Codes,
}

impl Dc {
    /// `None` where a difference would take more than 11 bits, which no 8-bit image needs.
    pub(super) fn of(spec: &Spec) -> Option<Dc> {
        let n: usize = spec.counts.iter().map(|&count| usize::from(count)).sum();
        if spec.symbols[..n].iter().any(|&size| size > 11) {
            return None;
        }
        let codes = Codes::of(spec);
        let mut entries = Box::new([0; ENTRIES]);
        for (index, entry) in entries.iter_mut().enumerate() {
            let Symbol { code_bits, byte } = codes.short[index];
            let bits = code_bits + u32::from(byte);
            if code_bits > 0 && bits <= LOOK_BITS {
                let after = (index as u64) << (64 - LOOK_BITS) << code_bits;
                *entry = (value(after, u32::from(byte)) as u32) << 16 | bits;
            }
        }
        Some(Dc { entries, codes })
    }

    /// The difference that these bits begin with and how many bits it takes; `None` where no code is there.
    #[inline]
    pub(super) fn difference(&self, bits: u64) -> Option<(i32, u32)> {
        let entry = self.entries[(bits >> (64 - LOOK_BITS)) as usize];
        if entry != 0 {
            return Some((entry as i32 >> 16, entry & 63));
        }
        let Symbol { code_bits, byte } = self.codes.symbol(bits)?;
        let size = u32::from(byte);
        Some((value(bits << code_bits, size), code_bits + size))
    }
}

/// What the next bits of a block's AC coefficients say: one symbol or two, or that a look-up does not see one whole.
///
/// From the lowest bit: the bits it takes (8), the first coefficient's place after the current one (8), the second one's (8),
/// where the next symbol goes on (8), the first value (16), the bits of it all that are the second symbol's (8), the second
/// value (8). A symbol without value has 0 in a place that is 0 anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry(u64);

impl Entry {
    const NOT_WHOLE: Entry = Entry(0);

    fn one(bits: u32, zeros: u8, on: u8, value: i32) -> Entry {
        Entry::two([bits, 0], [zeros, zeros + 1], on, [value, 0])
    }

    fn two(bits: [u32; 2], at: [u8; 2], on: u8, values: [i32; 2]) -> Entry {
        Entry(
            u64::from(bits[0] + bits[1])
                | u64::from(at[0]) << 8
                | u64::from(at[1]) << 16
                | u64::from(on) << 24
                | u64::from(values[0] as i16 as u16) << 32
                | u64::from(bits[1]) << 48
                | u64::from(values[1] as i8 as u8) << 56,
        )
    }

    #[inline]
    pub(super) fn is_whole(self) -> bool {
        self.0 != 0
    }

    /// The bits it takes are the lower 6 of these; those above say something else.
    #[inline(always)]
    pub(super) fn bits(self) -> u64 {
        self.0
    }

    /// Places of the two coefficients after the current one.
    #[inline(always)]
    pub(super) fn at(self) -> [usize; 2] {
        [(self.0 >> 8 & 255) as usize, (self.0 >> 16 & 255) as usize]
    }

    /// How far the next symbol goes on; [`END_OF_BLOCK`] more where none follows.
    #[inline(always)]
    pub(super) fn on(self) -> usize {
        (self.0 >> 24 & 255) as usize
    }

    #[inline]
    pub(super) fn values(self) -> [i16; 2] {
        [(self.0 >> 32) as i16, i16::from((self.0 >> 56) as i8)]
    }

    /// Bits of the second symbol; 0 where there is none.
    #[inline]
    pub(super) fn second_bits(self) -> u32 {
        (self.0 >> 48) as u32 & 255
    }
}

/// Added to the place in a block where the block ends before its last coefficient.
pub(super) const END_OF_BLOCK: u8 = 128;

/// The table of AC coefficients.
#[derive(Clone, Debug)]
pub(super) struct Ac {
    entries: Box<[Entry; ENTRIES]>,
    codes: Codes,
}

impl Ac {
    /// `None` where a value would take more than 10 bits or none after a run that is not 15, which a baseline image of 8 bits
    /// has not.
    pub(super) fn of(spec: &Spec) -> Option<Ac> {
        let n: usize = spec.counts.iter().map(|&count| usize::from(count)).sum();
        let is_other = |byte: &u8| byte & 15 > 10 || (byte & 15 == 0 && !matches!(byte >> 4, 0 | 15));
        if spec.symbols[..n].iter().any(is_other) {
            return None;
        }
        let codes = Codes::of(spec);
        let mut entries = Box::new([Entry::NOT_WHOLE; ENTRIES]);
        for index in 0..ENTRIES {
            entries[index] = match first(&codes, index as u64, LOOK_BITS) {
                None => Entry::NOT_WHOLE,
                Some(one) if one.ends || one.value == 0 => {
                    Entry::one(one.bits, one.zeros, one.on(), one.value)
                }
                Some(one) => {
                    let left = LOOK_BITS - one.bits;
                    let after = (index as u64) << one.bits & (ENTRIES as u64 - 1);
                    match first(&codes, after, left) {
                        None => Entry::one(one.bits, one.zeros, one.on(), one.value),
                        Some(two) => Entry::two(
                            [one.bits, two.bits],
                            [one.zeros, one.on() + two.zeros],
                            one.on() + two.on(),
                            [one.value, two.value],
                        ),
                    }
                }
            };
        }
        Some(Ac { entries, codes })
    }

    /// What the first [`LOOK_BITS`] of these bits say.
    #[inline]
    pub(super) fn entry(&self, bits: u64) -> Entry {
        self.entries[(bits >> (64 - LOOK_BITS)) as usize]
    }

    /// The symbol that these bits begin with, however long: zeros before its value, the value, how far it goes on and the
    /// bits it takes, at most 26. `None` where no code is there.
    #[inline]
    pub(super) fn whole(&self, bits: u64) -> Option<(usize, i32, usize, u32)> {
        let Symbol { code_bits, byte } = self.codes.symbol(bits)?;
        let size = u32::from(byte & 15);
        let on = if byte == 0 { END_OF_BLOCK } else { (byte >> 4) + 1 };
        Some((usize::from(byte >> 4), value(bits << code_bits, size), usize::from(on), code_bits + size))
    }
}

/// A symbol that a look-up sees whole.
struct Seen {
    bits: u32,
    zeros: u8,
    value: i32,
    ends: bool,
}

impl Seen {
    fn on(&self) -> u8 {
        if self.ends { END_OF_BLOCK } else { self.zeros + 1 }
    }
}

/// The symbol that an index begins with, of which `known` bits are the file's.
fn first(codes: &Codes, index: u64, known: u32) -> Option<Seen> {
    let Symbol { code_bits, byte } = codes.short[index as usize];
    let bits = code_bits + u32::from(byte & 15);
    if code_bits == 0 || bits > known || byte & 15 > LOOK_SIZE_MAX {
        return None;
    }
    let value = value(index << (64 - LOOK_BITS) << code_bits, u32::from(byte & 15));
    Some(Seen { bits, zeros: byte >> 4, value, ends: byte == 0 })
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
            let dc = Dc::of(&spec).expect("differences of no bits");
            assert_eq!(dc.difference(0), Some((0, code_bits as u32)));
            let ac = Ac::of(&spec).expect("ends of blocks");
            assert_eq!(ac.whole(0), Some((0, 0, usize::from(END_OF_BLOCK), code_bits as u32)));
        }
    }
}
