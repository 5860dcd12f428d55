//! From the bits of a scan to rows of pixels: a row of units at a time, and of it only what a region of the image needs.

use std::ops::Range;

use super::baseline::{Slot, blocks};
use super::bits::{Bits, ScanBytes};
use super::coefficients::{BLOCKS_MAX, Quad, Quads};
use super::color::{self, Model};
use super::frame::{Component, Frame, Tables};
use super::idct::{self, Target};
use crate::simd::isa::Isa;
use crate::spare;

/// A rectangle of an image as it is stored, pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) columns: Range<usize>,
    pub(super) rows: Range<usize>,
}

/// Buffers that decoding uses, for one image after the other.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    scan: ScanBytes,
    pub(super) tables: Tables,
    quads: Quads,
    aside: Quads,
    planes: [Plane; 3],
    /// A row of each component at the size of the image, where it is not in a plane as it is.
    lines: [Vec<u8>; 3],
}

impl Buffers {
    /// What the buffers take, tables apart.
    pub(super) fn bytes(&self) -> usize {
        let planes: usize = self.planes.iter().map(|plane| plane.samples.capacity()).sum();
        self.scan.bytes() + planes
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
    /// Rows that are held.
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
        (row - self.origin[1]) % self.rows * self.stride + MARGIN
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

/// Decodes a region of a file to pixels, `[height, width, 3]`, or to the means of squares of `reduced` columns and rows, of which the
/// region has whole ones as far as the image has. `None` where the bits are not as the standard says.
pub(super) fn decode(
    bytes: &[u8],
    frame: &Frame,
    model: Model,
    region: &Region,
    reduced: usize,
    buffers: &mut Buffers,
    isa: Isa,
) -> Option<Vec<u8>> {
    let Buffers { scan, quads, aside, planes, lines, .. } = buffers;
    let end = frame.scan_at + scan.read(&bytes[frame.scan_at..])?;
    let has_end = bytes[end..].starts_with(&[0xff, 0xd9]);
    if !has_end && end < bytes.len() {
        return None;
    }
    let unit = frame.sampling_max.map(|factor| 8 * factor / reduced);
    let [units_across, units_down] = frame.units();
    let intervals = match frame.restart_interval {
        0 => 1,
        interval => (units_across * units_down).div_ceil(interval),
    };
    if scan.intervals() != intervals {
        return None;
    }
    // In the pixels that come out.
    let [across, down] =
        [&region.columns, &region.rows].map(|pixels| pixels.start / reduced..pixels.end.div_ceil(reduced));
    // Units of the region, with the samples next to it.
    let units = |pixels: &Range<usize>, axis: usize, all: usize| {
        let (size, beside) = (unit[axis], frame.sampling_max[axis]);
        pixels.start.saturating_sub(beside) / size..(pixels.end + beside).div_ceil(size).min(all)
    };
    let columns = units(&across, 0, units_across);
    let rows = units(&down, 1, units_down);
    for (plane, component) in planes.iter_mut().zip(&frame.components) {
        plane.begin(frame, component, reduced, [columns.start, rows.start], columns.len());
    }
    let mut out = spare::take(3 * across.len() * down.len());
    quads.flat().fill(0);

    let mut units = Units::begin(frame, scan, aside, isa, rows.start * units_across)?;
    units.skip_to(rows.start * units_across)?;
    let mut emitted = down.start;
    for row in rows.clone() {
        units.row(columns.clone(), units_across, quads, |four, quads| {
            let mut at = 0;
            for (plane, component) in planes.iter_mut().zip(&frame.components) {
                let ([h, v], [width, height]) = (component.sampling, plane.block);
                for below in 0..v {
                    let start = plane.start((row * v + below) * height) + four * 4 * width * h;
                    for beside in 0..h {
                        let samples = &mut plane.samples[start + beside * 4 * width..];
                        let mut target = Target { samples, stride: plane.stride };
                        idct::quad(isa, &quads[at], &component.quantisers, plane.reduced, &mut target);
                        at += 1;
                    }
                }
            }
        })?;
        // The last rows of a unit wait for the chroma below them.
        let below = if frame.sampling_max[1] > 1 { frame.sampling_max[1] } else { 0 };
        let until = match row + 1 == units_down {
            true => down.end,
            false => ((row + 1) * unit[1]).saturating_sub(below).min(down.end),
        };
        for (plane, component) in planes.iter_mut().zip(&frame.components) {
            let rows = plane.block[1] * component.sampling[1];
            for row in row * rows..(row + 1) * rows {
                plane.extend(row);
            }
        }
        while emitted < until {
            let at = out.len();
            out.resize(at + 3 * across.len(), 0);
            pixels(frame, model, planes, emitted, across.clone(), lines, isa, &mut out[at..]);
            emitted += 1;
        }
    }
    if !has_end {
        // The file may be cut short where no one sees it.
        units.skip_to(units_across * units_down)?;
    }
    let is_good =
        if units.at == units_across * units_down { units.bits.is_spent() } else { !units.bits.is_overrun() };
    is_good.then_some(out)
}

/// The units of a scan, one after the other.
struct Units<'a> {
    frame: &'a Frame,
    scan: &'a ScanBytes,
    /// What no one sees.
    aside: &'a mut Quads,
    isa: Isa,
    bits: Bits<'a>,
    /// The next unit.
    at: usize,
    /// The unit that the next interval begins with.
    interval_end: usize,
    /// The last DC coefficient of each component.
    last: [i32; 3],
    /// The blocks of four units, unit by unit in the order of the file.
    slots: [Slot<'a>; FOUR_UNITS],
    /// Blocks of a unit.
    blocks: usize,
}

/// Coefficients of a quad.
const QUAD: usize = size_of::<Quad>() / size_of::<i16>();

/// The most blocks of four units.
const FOUR_UNITS: usize = 4 * BLOCKS_MAX;

impl<'a> Units<'a> {
    /// Begins so that `first` can be reached: at the last restart marker before it.
    fn begin(
        frame: &'a Frame,
        scan: &'a ScanBytes,
        aside: &'a mut Quads,
        isa: Isa,
        first: usize,
    ) -> Option<Units<'a>> {
        let interval = first.checked_div(frame.restart_interval).unwrap_or(0);
        let bits = scan.interval(interval)?;
        let at = interval * frame.restart_interval;
        let interval_end = if frame.restart_interval > 0 { at + frame.restart_interval } else { usize::MAX };
        let mut slots = [Slot { component: &frame.components[0], index: 0, at: 0 }; FOUR_UNITS];
        let mut n = 0;
        for unit in 0..4 {
            let mut first = 0;
            for (index, component) in frame.components.iter().enumerate() {
                let [h, v] = component.sampling;
                for down in 0..v {
                    for column in unit * h..(unit + 1) * h {
                        let quad = first + down * h + column / 4;
                        slots[n] = Slot { component, index, at: quad * QUAD + column % 4 * 8 };
                        n += 1;
                    }
                }
                first += h * v;
            }
        }
        Some(Units { frame, scan, aside, isa, bits, at, interval_end, last: [0; 3], slots, blocks: n / 4 })
    }

    /// Goes past units up to `at`.
    fn skip_to(&mut self, at: usize) -> Option<()> {
        while self.at < at {
            self.read(0, (at - self.at).min(4), None)?;
        }
        Some(())
    }

    /// Reads a row of units; those of `columns` come to `done` four at a time, with their index among the fours, and their
    /// blocks by component, by row of blocks and from left to right.
    fn row(
        &mut self,
        columns: Range<usize>,
        units_across: usize,
        quads: &mut Quads,
        mut done: impl FnMut(usize, &[Quad]),
    ) -> Option<()> {
        let start = self.at;
        self.skip_to(start + columns.start)?;
        for four in 0..columns.len().div_ceil(4) {
            let end = (columns.start + 4 * four + 4).min(columns.end) + start;
            let first = self.at;
            while self.at < end {
                self.read(self.at - first, end - self.at, Some(quads))?;
            }
            done(four, quads.all());
            quads.flat()[..self.blocks * QUAD].fill(0);
        }
        self.skip_to(start + units_across)
    }

    /// Reads `n` units, or as many as there are up to the next interval, as the ones from `first` on of a four: where no quads
    /// are given only to go past them.
    #[inline(always)]
    fn read(&mut self, first: usize, n: usize, quads: Option<&mut Quads>) -> Option<()> {
        if self.at == self.interval_end {
            let interval = self.frame.restart_interval;
            if !self.bits.is_spent() {
                return None;
            }
            self.bits = self.scan.interval(self.at / interval)?;
            self.last = [0; 3];
            self.interval_end += interval;
        }
        let n = n.min(self.interval_end - self.at);
        let (from, to) = (first * self.blocks, (first + n) * self.blocks);
        let coefficients = quads.unwrap_or(self.aside).flat();
        blocks(self.isa, &mut self.bits, &self.slots[from..to], &mut self.last, coefficients)?;
        self.at += n;
        Some(())
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
