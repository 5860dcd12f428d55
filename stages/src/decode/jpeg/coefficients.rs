//! Where the coefficients of blocks are in memory.

/// The most blocks of a minimum coded unit (ITU-T T.81, B.2.3).
pub(super) const BLOCKS_MAX: usize = 10;

/// Coefficients of four blocks that stand side by side, `[8, 4, 8]`: a row of all four, then the next one; in natural order.
pub(super) type Quad = [i16; 256];

/// Blocks begin below it: a power of two.
const BEGINS: usize = 1 << 12;
const _: () = assert!(BLOCKS_MAX * size_of::<Quad>() / size_of::<i16>() <= BEGINS);

/// Coefficients of [`Quads`], one quad after the other; those after the last one mean nothing. Wherever a block begins, it is within.
pub(super) type Flat = [i16; BEGINS + 256];

/// The block that begins at `at`, and what follows: as a [`Quad`] of which it is the first.
#[inline(always)]
pub(super) fn block(flat: &mut Flat, at: u16) -> &mut Quad {
    debug_assert!(usize::from(at) < BEGINS);
    let at = usize::from(at) % BEGINS;
    (&mut flat[at..at + 256]).try_into().expect("as long")
}

/// Coefficients of four minimum coded units that stand side by side, as quads.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct Quads(Flat);

impl Default for Quads {
    fn default() -> Quads {
        Quads([0; BEGINS + 256])
    }
}

impl Quads {
    /// The quads.
    #[inline(always)]
    pub(super) fn all(&self) -> &[Quad] {
        &self.0.as_chunks().0[..BLOCKS_MAX]
    }

    /// The coefficients of all quads, one after the other.
    #[inline(always)]
    pub(super) fn flat(&mut self) -> &mut Flat {
        &mut self.0
    }

    /// Makes zeros of the first `n` quads.
    #[inline(always)]
    pub(super) fn clear(&mut self, n: usize) {
        self.0[..256 * n].fill(0);
    }
}

/// Where the coefficients of a block are in the first block of a [`Quad`], by their place in the file. What lies
/// beyond the last goes there; such a block is refused.
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
