//! Rows of pixels become fewer and shorter ones: each pixel the mean of a square of them, so that what an antialiased resize makes
//! of these comes out as if all had been there.

use crate::simd::isa::{Isa, for_each_isa};

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

    /// Puts a row of the means of squares of `side` columns, 2, 4 or 8, at the end of `out`, rounded; the last square may be
    /// narrower. Then it begins again.
    pub(super) fn end(&mut self, isa: Isa, side: usize, out: &mut Vec<u8>) {
        let start = out.len();
        let width = self.sums.len() / 3;
        out.resize(start + 3 * width.div_ceil(side), 0);
        let (whole, rest) = self.sums.split_at(3 * (width - width % side));
        let (of_whole, of_rest) = out[start..].split_at_mut(whole.len() / side);
        means(isa, whole, side, self.rows, of_whole);
        if !rest.is_empty() {
            of_rest.copy_from_slice(&mean(rest, |sum| divided(sum, rest.len() / 3 * self.rows)));
        }
        self.sums.fill(0);
        self.rows = 0;
    }
}

/// The mean of a square, from the sums of its columns, `[columns, 3]`.
#[inline(always)]
fn mean(columns: &[u16], of_sum: impl Fn(u32) -> u8) -> [u8; 3] {
    let mut sums = [0; 3];
    for column in columns.as_chunks::<3>().0 {
        sums = std::array::from_fn(|channel| sums[channel] + u32::from(column[channel]));
    }
    sums.map(of_sum)
}

fn divided(sum: u32, n: usize) -> u8 {
    ((sum + n as u32 / 2) / n as u32) as u8
}

for_each_isa! {
    /// The means of squares of `side` columns, 2, 4 or 8, and so many rows: `[width, 3]` to `[width / side, 3]`.
    means = means_loop(sums: &[u16], side: usize, rows: usize, out: &mut [u8])
}

#[inline(always)]
fn means_loop(sums: &[u16], side: usize, rows: usize, out: &mut [u8]) {
    match side {
        2 => means_of::<2>(sums, rows, out),
        4 => means_of::<4>(sums, rows, out),
        _ => means_of::<8>(sums, rows, out),
    }
}

#[inline(always)]
fn means_of<const SIDE: usize>(sums: &[u16], rows: usize, out: &mut [u8]) {
    let (n, squares) = (SIDE * rows, sums.chunks_exact(3 * SIDE).zip(out.as_chunks_mut::<3>().0));
    if rows == SIDE {
        // All but the last row of squares.
        squares
            .for_each(|(square, out)| *out = mean(square, |sum| ((sum + n as u32 / 2) >> n.ilog2()) as u8));
    } else {
        squares.for_each(|(square, out)| *out = mean(square, |sum| divided(sum, n)));
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
