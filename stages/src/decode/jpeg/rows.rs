//! From coefficients to rows of pixels: a row of units at a time, and of it only what a region of the image needs.

use std::ops::Range;

use super::coefficients::Quad;
use super::color::{self, Model};
use super::frame::{Component, Frame};
use super::idct::{self, Target};
use crate::resized_rows::ResizedRows;
use crate::simd::isa::Isa;
use crate::spare;

/// A rectangle of an image as it is stored, pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) columns: Range<usize>,
    pub(super) rows: Range<usize>,
}

/// What is kept of the components of an image for the rows of its pixels; for one image after the other.
#[derive(Debug, Default)]
pub(super) struct RowBuffers {
    planes: [Plane; 3],
    /// A row of each component at the size of the image, where it is not in a plane as it is.
    lines: [Vec<u8>; 3],
}

impl RowBuffers {
    /// What they take, lines apart.
    pub(super) fn bytes(&self) -> usize {
        self.planes.iter().map(|plane| plane.samples.capacity()).sum()
    }
}

/// Samples of a component of an image of which so many columns and rows become one, 1, 2, 4 or 8: two rows of units, the last one
/// and the one before.
///
/// A component of which there are fewer samples than pixels is reduced less, so that it is upsampled only where they are still
/// fewer.
#[derive(Debug, Default)]
struct Plane {
    samples: Vec<u8>,
    stride: usize,
    /// Rows that are held, a power of two.
    rows: usize,
    /// Column and row of the component that are the first ones here.
    origin: [usize; 2],
    /// Columns and rows of the component that show something.
    size: [usize; 2],
    /// How many columns and rows of the component become one.
    reduced: [usize; 2],
    /// Columns and rows of a block.
    block: [usize; 2],
    upsampling: Upsampling,
}

/// Samples left and right of those that are decoded, for neighbours at the edges.
const MARGIN: usize = 32;

impl Plane {
    /// Makes it that of a component, of so many columns of units from the first one of `units` on.
    fn begin(
        &mut self,
        frame: &Frame,
        component: &Component,
        reduced: usize,
        units: [usize; 2],
        columns: usize,
    ) {
        let sampling = component.sampling;
        let sparse = [0, 1].map(|axis| frame.sampling_max[axis] / sampling[axis]);
        self.reduced = sparse.map(|sparse| (reduced / sparse).max(1));
        self.block = self.reduced.map(|reduced| 8 / reduced);
        self.size = [0, 1].map(|axis| {
            let samples = [frame.width, frame.height][axis] * sampling[axis];
            samples.div_ceil(frame.sampling_max[axis] * self.reduced[axis])
        });
        self.upsampling = Upsampling::of(sparse.map(|sparse| (sparse / reduced).max(1)), self.size[0]);
        let unit = [0, 1].map(|axis| self.block[axis] * sampling[axis]);
        self.origin = [0, 1].map(|axis| units[axis] * unit[axis]);
        self.stride = 2 * MARGIN + columns.div_ceil(4) * 4 * unit[0];
        self.rows = 2 * unit[1];
        // What stands there of an image before is written over before it is read.
        if self.samples.len() < self.stride * self.rows {
            self.samples.resize(self.stride * self.rows, 0);
        }
    }

    /// Where a row of the component begins.
    fn start(&self, row: usize) -> usize {
        ((row - self.origin[1]) & (self.rows - 1)) * self.stride + MARGIN
    }

    /// Columns of a row; one column beyond either end of the plane may be among them.
    fn row(&self, row: usize, columns: Range<isize>) -> &[u8] {
        let start = self.start(row) as isize - self.origin[0] as isize;
        &self.samples[(start + columns.start) as usize..(start + columns.end) as usize]
    }

    /// The sample beyond either end of the component is that at the end.
    fn extend(&mut self, row: usize) {
        let start = self.start(row);
        self.samples[start - 1] = self.samples[start];
        // The last column may not be here, and then is not asked for.
        let last = start + self.size[0] - self.origin[0] - 1;
        if last + 1 < start - MARGIN + self.stride {
            self.samples[last + 1] = self.samples[last];
        }
    }
}

/// How a component gets to the size of the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Upsampling {
    #[default]
    None,
    Across,
    Down,
    Both,
    /// Each sample as often as it takes.
    Repeat([usize; 2]),
}

impl Upsampling {
    /// As `jdsample.c` decides, for a component of so many columns with so many times as many pixels as samples, across and down.
    fn of([across, down]: [usize; 2], columns: usize) -> Upsampling {
        let is_wide = columns > 2;
        match (across, down) {
            (1, 1) => Upsampling::None,
            (2, 1) if is_wide => Upsampling::Across,
            (1, 2) => Upsampling::Down,
            (2, 2) if is_wide => Upsampling::Both,
            _ => Upsampling::Repeat([across, down]),
        }
    }
}

/// The pixels of a region, `[height, width, 3]`, that come out row by row while its coefficients come in.
pub(super) struct PixelRows<'a> {
    pub(super) frame: &'a Frame,
    model: Model,
    isa: Isa,
    buffers: &'a mut RowBuffers,
    /// Columns and rows in the pixels that come out.
    across: Range<usize>,
    down: Range<usize>,
    /// Columns and rows of pixels of a unit.
    unit: [usize; 2],
    /// Columns and rows of units that it needs.
    pub(super) units: [Range<usize>; 2],
    /// The next row.
    next: usize,
    /// Where rows are resized as they come.
    resized: Option<ResizedRows>,
    /// Else all of them.
    out: Vec<u8>,
}

impl<'a> PixelRows<'a> {
    /// Those of a region, or the means of squares of `reduced` columns and rows, of which the region has whole ones as far as the
    /// image has; with `resized` what that makes of them. The first column of units is a multiple of `align`.
    #[allow(clippy::too_many_arguments, reason = "what rows are made of and where they go")]
    pub(super) fn begin(
        frame: &'a Frame,
        model: Model,
        region: &Region,
        reduced: usize,
        align: usize,
        isa: Isa,
        buffers: &'a mut RowBuffers,
        resized: Option<ResizedRows>,
    ) -> PixelRows<'a> {
        let unit = frame.sampling_max.map(|factor| 8 * factor / reduced);
        let [across, down] = [&region.columns, &region.rows]
            .map(|pixels| pixels.start / reduced..pixels.end.div_ceil(reduced));
        // With the samples next to it.
        let units = |pixels: &Range<usize>, axis: usize| {
            let (size, beside) = (unit[axis], frame.sampling_max[axis]);
            let end = (pixels.end + beside).div_ceil(size).min(frame.units()[axis]);
            pixels.start.saturating_sub(beside) / size..end
        };
        let (columns, rows) = (units(&across, 0), units(&down, 1));
        let columns = columns.start / align * align..columns.end;
        for (plane, component) in buffers.planes.iter_mut().zip(&frame.components) {
            plane.begin(frame, component, reduced, [columns.start, rows.start], columns.len());
        }
        let out = if resized.is_some() { Vec::new() } else { spare::take(3 * across.len() * down.len()) };
        let next = down.start;
        PixelRows {
            frame,
            model,
            isa,
            buffers,
            across,
            down,
            unit,
            units: [columns, rows],
            next,
            resized,
            out,
        }
    }

    /// Takes four units of a row, the ones of this index among the fours of its columns: their coefficients by component, by row of
    /// blocks and from left to right.
    #[inline(always)]
    pub(super) fn four<'q>(&mut self, row: usize, four: usize, mut quads: impl Iterator<Item = &'q Quad>) {
        for (plane, component) in self.buffers.planes.iter_mut().zip(&self.frame.components) {
            let ([h, v], [width, height]) = (component.sampling, plane.block);
            for below in 0..v {
                let start = plane.start((row * v + below) * height) + four * 4 * width * h;
                for (beside, quad) in (0..h).zip(&mut quads) {
                    let samples = &mut plane.samples[start + beside * 4 * width..];
                    let mut target = Target { samples, stride: plane.stride };
                    idct::quad(self.isa, quad, &component.quantisers, plane.reduced, &mut target);
                }
            }
        }
    }

    /// Makes the pixels that can be made when all fours of a row are taken.
    pub(super) fn end_row(&mut self, row: usize) {
        let PixelRows { frame, buffers: RowBuffers { planes, lines }, .. } = self;
        // The last rows of a unit wait for the chroma below them.
        let below = if frame.sampling_max[1] > 1 { frame.sampling_max[1] } else { 0 };
        let until = match row + 1 == frame.units()[1] {
            true => self.down.end,
            false => ((row + 1) * self.unit[1]).saturating_sub(below).min(self.down.end),
        };
        for (plane, component) in planes.iter_mut().zip(&frame.components) {
            let rows = plane.block[1] * component.sampling[1];
            for row in row * rows..(row + 1) * rows {
                plane.extend(row);
            }
        }
        while self.next < until {
            let row = match &mut self.resized {
                Some(resized) => resized.next(),
                None => {
                    let at = self.out.len();
                    self.out.resize(at + 3 * self.across.len(), 0);
                    &mut self.out[at..]
                }
            };
            pixels(frame, self.model, planes, self.next, self.across.clone(), lines, self.isa, row);
            if let Some(resized) = &mut self.resized {
                resized.took();
            }
            self.next += 1;
        }
    }

    /// The pixels, after the last row.
    pub(super) fn end(self) -> Vec<u8> {
        self.resized.map_or(self.out, ResizedRows::end)
    }
}

/// One row of pixels, `[columns, 3]`.
#[allow(clippy::too_many_arguments, reason = "what a row is made of and where it goes")]
fn pixels(
    frame: &Frame,
    model: Model,
    planes: &[Plane; 3],
    y: usize,
    columns: Range<usize>,
    lines: &mut [Vec<u8>; 3],
    isa: Isa,
    out: &mut [u8],
) {
    let whole = columns.start as isize..columns.end as isize;
    if frame.components.len() == 1 {
        return color::gray(isa, planes[0].row(y, whole), out);
    }
    let [first, second, third] = lines;
    let channels = [(0, first), (1, second), (2, third)]
        .map(|(component, line)| samples(&planes[component], y, columns.clone(), line, isa));
    color::pixels(isa, model, channels, out);
}

/// A row of a component at the size of the image; in `line`, where it is not in the plane as it is.
fn samples<'a>(
    plane: &'a Plane,
    y: usize,
    columns: Range<usize>,
    line: &'a mut Vec<u8>,
    isa: Isa,
) -> &'a [u8] {
    let whole = columns.start as isize..columns.end as isize;
    // Half as many, with a neighbour at either end.
    let half = (columns.start / 2) as isize - 1..columns.end.div_ceil(2) as isize + 1;
    let odd = columns.start % 2;
    let near = y / 2;
    let far = if y.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(plane.size[1] - 1) };
    line.resize(columns.len() + 2, 0);
    match plane.upsampling {
        Upsampling::None => return plane.row(y, whole),
        Upsampling::Across => color::double_across(isa, plane.row(y, half.clone()), line),
        Upsampling::Down => {
            color::double_down(isa, plane.row(near, whole.clone()), plane.row(far, whole), y % 2 == 1, line);
            return &line[..columns.len()];
        }
        Upsampling::Both => {
            color::double_both(isa, plane.row(near, half.clone()), plane.row(far, half.clone()), line)
        }
        Upsampling::Repeat([across, down]) => {
            let row =
                plane.row(y / down, (columns.start / across) as isize..columns.end.div_ceil(across) as isize);
            for (x, out) in columns.clone().zip(line.iter_mut()) {
                *out = row[x / across - columns.start / across];
            }
            return &line[..columns.len()];
        }
    }
    &line[odd..odd + columns.len()]
}
