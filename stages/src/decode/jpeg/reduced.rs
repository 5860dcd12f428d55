//! Rows of pixels become fewer and shorter ones: each pixel the mean of a square of them, so that what an antialiased resize makes
//! of these comes out as if all had been there.

use super::isa::{Isa, for_each_isa};

/// The squares that a row of means is made of.
#[derive(Debug, Default)]
pub(super) struct Squares {
    /// Sums of columns, `[width, 3]`: at most 8 rows of bytes.
    sums: Vec<u16>,
    rows: usize,
}

impl Squares {
    /// Begins with rows of `width` pixels.
    pub(super) fn begin(&mut self, width: usize) {
        self.sums.clear();
        self.sums.resize(3 * width, 0);
        self.rows = 0;
    }

    /// Takes a row of pixels, `[width, 3]`, and says how many there are.
    pub(super) fn add(&mut self, isa: Isa, row: &[u8]) -> usize {
        add(isa, &mut self.sums, row);
        self.rows += 1;
        self.rows
    }

    /// Puts a row of the means of squares of `side` columns at the end of `out`, rounded; the last square may be narrower. Then
    /// it begins again.
    pub(super) fn end(&mut self, side: usize, out: &mut Vec<u8>) {
        for square in self.sums.chunks_mut(3 * side) {
            let n = (square.len() / 3 * self.rows) as u32;
            for channel in 0..3 {
                let sum: u32 = square.iter().skip(channel).step_by(3).map(|sum| u32::from(*sum)).sum();
                out.push(((sum + n / 2) / n) as u8);
            }
            square.fill(0);
        }
        self.rows = 0;
    }
}

for_each_isa! {
    /// Adds a row to sums, `[n]` each.
    add = add_loop(sums: &mut [u16], row: &[u8])
}

#[inline(always)]
fn add_loop(sums: &mut [u16], row: &[u8]) {
    for (sum, value) in sums.iter_mut().zip(row) {
        *sum += u16::from(*value);
    }
}
