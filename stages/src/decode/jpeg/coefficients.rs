//! Where the coefficients of blocks are in memory.

/// Four blocks that stand side by side, `[8, 4, 8]`: a row of all four, then the next one; coefficients in natural order.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct Quad(pub(super) [i16; 288]);

impl Quad {
    pub(super) const ZERO: Quad = Quad([0; 288]);

    /// From the first coefficient of a block on, so that [`PLACES`] are indices.
    #[inline(always)]
    pub(super) fn block(&mut self, at: usize) -> &mut [i16; 256] {
        (&mut self.0[at * 8..at * 8 + 256]).try_into().expect("256 of them")
    }
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
