//! Rows of an image that are resized as soon as they are there: the first of the two passes of a bilinear resize, while the image is
//! decoded. A few rows are held at once, which stay in cache, and the image as a whole nowhere.

use std::cell::Cell;

use forebay_datasets::sample::SeenPart;

use crate::axis::{Axis, ROWS_KEPT_BYTES_MAX, Rows, axis, down, is_resized};
use crate::resample::{End, Filter, Placed, View};
use crate::simd::isa::Isa;
use crate::spare;

thread_local! {
    /// The last rows of an image.
    static RING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Takes the rows of what a view sees of an image from the first one on, and gives as many as the view has, `[height, columns, 3]`.
pub(crate) struct ResizedRows {
    isa: Isa,
    axis: Axis,
    /// Each row stands where the one stood that is `held`, a power of two, before it.
    ring: Vec<u8>,
    held: usize,
    stride: usize,
    /// Rows that come, and rows that have come.
    rows: usize,
    came: usize,
    /// Rows that are made, of how many.
    made: usize,
    height: usize,
    /// What of the columns and rows counts in part.
    columns: Vec<End>,
    first: Option<End>,
    last: Option<End>,
    out: Vec<u8>,
}

impl ResizedRows {
    /// For what a view sees of an image, which has that many columns and rows. `None` where it is resized in another order or not at
    /// all, or where that would take more rows than the part itself has.
    ///
    /// Weights are never negative, so that it is no matter which pass comes first: what overshoots with other filters is cut off
    /// after the first one, which may be that along the rows there.
    pub(crate) fn begin(view: &View, part: SeenPart, here: [u32; 2], isa: Isa) -> Option<ResizedRows> {
        let Placed { inside, window, ends } = view.placed(part, here);
        if view.filter != Filter::Bilinear
            || inside != [0, 0, here[0], here[1]]
            || !is_resized(window, view.size)
        {
            return None;
        }
        let axis = axis(isa, here[1], window[1], window[1] + window[3], view.size[1]);
        let [columns, [first, last]] = ends;
        let reach = first.iter().chain(&last).map(End::reach).max().unwrap_or(0);
        let held = axis.taps.max(reach + 1).next_power_of_two();
        let [stride, rows, height] = [3 * here[0] as usize, here[1] as usize, view.size[1] as usize];
        if held + height > rows {
            return None;
        }
        let mut ring = RING.take();
        if ring.len() < held * stride {
            ring.resize(held * stride, 0);
        }
        let columns = columns.into_iter().flatten().collect();
        let out = spare::take(stride * height);
        Some(ResizedRows {
            isa,
            axis,
            ring,
            held,
            stride,
            rows,
            came: 0,
            made: 0,
            height,
            columns,
            first,
            last,
            out,
        })
    }

    /// Where the next row goes, all of it.
    pub(crate) fn next(&mut self) -> &mut [u8] {
        &mut self.ring[(self.came & (self.held - 1)) * self.stride..][..self.stride]
    }

    /// The next row is there.
    pub(crate) fn took(&mut self) {
        let (stride, mask) = (self.stride, self.held - 1);
        let row = (self.came & mask) * stride;
        for end in &self.columns {
            (0..3).for_each(|channel| end.weigh(&mut self.ring, |column| row + 3 * column + channel));
        }
        self.came += 1;
        let is_last = self.came == self.rows;
        let place = |at: usize| move |row: usize| (row & mask) * stride + at;
        if let Some(first) = self.first.take_if(|first| is_last || self.came > first.reach()) {
            (0..stride).for_each(|at| first.weigh(&mut self.ring, place(at)));
        }
        if let Some(last) = self.last.take_if(|_| is_last) {
            (0..stride).for_each(|at| last.weigh(&mut self.ring, place(at)));
        }
        // The first row counts when those next to it are there, too.
        if self.first.is_some() {
            return;
        }
        let ready = (self.made..self.height).take_while(|row| self.axis.end(*row) <= self.came).count();
        if ready > 0 {
            let at = self.out.len();
            self.out.resize(at + ready * stride, 0);
            let rows = Rows { bytes: &self.ring, stride, columns: 0..stride, n: self.held, is_ring: true };
            let pixels = self.made..self.made + ready;
            down(self.isa, &self.axis, pixels, &rows, &mut self.out[at..]);
            self.made += ready;
        }
    }

    /// The rows, after the last one.
    ///
    /// # Panics
    /// Before.
    pub(crate) fn end(mut self) -> Vec<u8> {
        assert_eq!((self.came, self.made), (self.rows, self.height), "rows of a part");
        std::mem::take(&mut self.out)
    }
}

impl Drop for ResizedRows {
    fn drop(&mut self) {
        if self.ring.len() <= ROWS_KEPT_BYTES_MAX {
            RING.set(std::mem::take(&mut self.ring));
        }
    }
}
