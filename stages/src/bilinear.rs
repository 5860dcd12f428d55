//! Bilinear resizing with the byte permutations of AVX-512 (VBMI), to the levels of `fast_image_resize`, which does it on other
//! machines, with other filters, and where more than 2.6 columns become one.

use std::cell::RefCell;

use forebay_datasets::sample::Pixels;

use crate::axis::{Axis, ROWS_KEPT_BYTES_MAX, Rows, axis, down, is_resized};
use crate::simd::isa::Isa;
use crate::simd::weigh::{Neighbours, ROW_BYTES_MIN, across};

thread_local! {
    /// The rows between the two passes.
    static BETWEEN: RefCell<Vec<u8>> = RefCell::default();
}

impl Axis {
    /// What the pixels are made of: the first and the one behind the last.
    fn seen(&self) -> (u32, u32) {
        let last = self.starts.len() - 1;
        (self.starts[0], self.starts[last] + self.counts[last] as u32)
    }

    /// Pixels in groups of 16, of which the last may begin within the one before, of rows of `stride` bytes that begin with pixel
    /// `first`. `None` where a group is made of more bytes than two vectors hold.
    fn groups(&self, first: u32, stride: usize) -> Option<Vec<Neighbours>> {
        let width = self.starts.len();
        let mut groups = Vec::with_capacity(width.div_ceil(16));
        for pixel in (0..width).step_by(16).map(|pixel| pixel.min(width - 16)) {
            let place = |of: usize, tap: usize| 3 * ((self.starts[of] - first) as usize + tap);
            let base = place(pixel, 0).min(stride - ROW_BYTES_MIN);
            let end = (pixel..pixel + 16).map(|of| place(of, self.counts[of])).max()?;
            if end > base + ROW_BYTES_MIN {
                return None;
            }
            let mut places = vec![[[0; 64]; 3]; self.taps / 2];
            let mut weights = vec![[[0; 32]; 3]; self.taps / 2];
            for byte in 0..48 {
                let (of, channel) = (pixel + byte / 3, byte % 3);
                let (third, at) = (byte / 16, byte % 16);
                for tap in 0..self.counts[of] {
                    let (pair, second) = (tap / 2, tap % 2);
                    places[pair][third][4 * at + 2 * second] = (place(of, tap) + channel - base) as u8;
                    weights[pair][third][2 * at + second] = self.weights[of * self.taps + tap];
                }
            }
            groups.push(Neighbours { base, pixel, places, weights });
        }
        Some(groups)
    }

    /// Rows of `stride` bytes with these columns, of which `groups` are made.
    fn summed(&self, rows: &[u8], stride: usize, groups: &[Neighbours]) -> Vec<u8> {
        let Isa::Avx512(has) = Isa::detect() else { unreachable!("there are no groups without it") };
        let width = self.starts.len();
        let mut data = vec![0; rows.len() / stride * 3 * width];
        across(has, (rows, stride), self.precision, groups, (&mut data, width));
        data
    }
}

/// Whether sixteen pixels may be made of those that two vectors hold: 42.
fn is_narrow(window_width: f64, width: u32) -> bool {
    width >= 16 && window_width < 2.6 * f64::from(width)
}

/// A window (left, top, width, height) of a part of an image, of which the levels are so many bytes from row to row, at another size;
/// nothing outside of the part is seen. `None` where it is not for this: few pixels, many that become one, or an axis that keeps its pixels.
pub(crate) fn resized(
    (levels, row_bytes): (&[u8], usize),
    [part_left, part_top, part_width, part_height]: [u32; 4],
    window: [f64; 4],
    [width, height]: [u32; 2],
) -> Option<Pixels> {
    let isa @ Isa::Avx512(_) = Isa::detect() else { return None };
    let [left, top, window_width, window_height] = window;
    if !is_narrow(window_width, width) || !is_resized(window, [width, height]) {
        return None;
    }
    // Numbers are rounded by an instruction there, and by a call where the compiler knows of none.
    let columns = axis(isa, part_width, left, left + window_width, width);
    let rows = axis(isa, part_height, top, top + window_height, height);
    let (first, end) = columns.seen();
    let stride = 3 * (end - first) as usize;
    if stride < ROW_BYTES_MIN {
        return None;
    }
    let groups = columns.groups(first, stride)?;
    let from = 3 * (part_left + first) as usize;
    let source = Rows {
        bytes: &levels[part_top as usize * row_bytes..],
        stride: row_bytes,
        columns: from..from + stride,
        n: part_height as usize,
        is_ring: false,
    };
    let data = BETWEEN.with_borrow_mut(|between| {
        between.resize(stride * height as usize, 0);
        down(isa, &rows, 0..height as usize, &source, between);
        let data = columns.summed(between, stride, &groups);
        if between.len() > ROWS_KEPT_BYTES_MAX {
            *between = Vec::new();
        }
        data
    });
    Some(Pixels::new(width, height, data))
}

/// The second pass alone: `width` pixels of columns `left` to `left + window_width` of rows that have been resized. `None` as of
/// [`resized`].
pub(crate) fn narrowed(resized: &Pixels, left: f64, window_width: f64, width: u32) -> Option<Pixels> {
    let isa @ Isa::Avx512(_) = Isa::detect() else { return None };
    let stride = 3 * resized.width as usize;
    if !is_narrow(window_width, width) || stride < ROW_BYTES_MIN {
        return None;
    }
    let columns = axis(isa, resized.width, left, left + window_width, width);
    let groups = columns.groups(0, stride)?;
    Some(Pixels::new(width, resized.height, columns.summed(&resized.data, stride, &groups)))
}
