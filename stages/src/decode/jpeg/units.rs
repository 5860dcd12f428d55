//! The minimum coded units of an image of one baseline scan, which become pixels as they are read.

use std::ops::Range;
use std::sync::Arc;

use super::baseline::{self, Slot, Slots};
use super::bits::{Bits, ScanBytes};
use super::coefficients::{BLOCKS_MAX, Quad, Quads};
use super::frame::{Frame, Scan};
use super::huffman::Pair;
use super::rows::PixelRows;
use super::sparse;
use crate::simd::isa::Isa;

/// Decodes what `rows` need. `None` where the bits are not as the standard says, of a file that is cut also those that no one sees.
pub(super) fn decode(
    scan: &Scan,
    pairs: &[Arc<Pair>],
    mut rows: PixelRows<'_>,
    (scan_bytes, quads): (&ScanBytes, &mut Quads),
    is_cut: bool,
    isa: Isa,
) -> Option<Vec<u8>> {
    if scan.band != [0, 63] || scan.approximation != [0, 0] {
        return None;
    }
    let frame = rows.frame;
    let [units_across, units_down] = frame.units();
    // An image that was refused may have left some.
    quads.clear(BLOCKS_MAX);
    let [columns, wanted] = rows.units.clone();
    let mut units = Units::begin(frame, scan, pairs, scan_bytes, isa, wanted.start * units_across)?;
    units.skip_to(wanted.start * units_across, quads)?;
    for row in wanted {
        units.row(columns.clone(), units_across, quads, |four, quads| rows.four(row, four, quads.iter()))?;
        rows.end_row(row);
    }
    if is_cut {
        units.skip_to(units_across * units_down, quads)?;
    }
    let is_good =
        if units.at == units_across * units_down { units.bits.is_spent() } else { !units.bits.is_overrun() };
    is_good.then(|| rows.end())
}

/// The units of a scan, one after the other.
struct Units<'a> {
    scan_bytes: &'a ScanBytes,
    /// Units of a restart interval.
    interval: usize,
    isa: Isa,
    bits: Bits<'a>,
    /// The next unit.
    at: usize,
    /// The unit that the next interval begins with.
    interval_end: usize,
    /// The last DC coefficient of each component.
    last: [i32; 3],
    /// The blocks of four units, unit by unit in the order of the file.
    slots: Slots<'a>,
    /// Blocks of a unit.
    blocks: usize,
    /// Whether these are few bits a block.
    is_sparse: bool,
}

/// Bits of a block below which its end is better no branch: see [`sparse`]. Of images that have 29 of them in the mean decoding takes 0.85
/// to 0.95 of the time, 41 of them 0.99, 54 of them 1.02, 110 of them 1.04 (`benches/results`).
const SPARSE_BITS: usize = 48;

/// Whether blocks have fewer bits than [`SPARSE_BITS`] in the mean.
pub(super) fn is_sparse(frame: &Frame, scan_bytes: &ScanBytes) -> bool {
    let blocks: usize =
        frame.components.iter().map(|component| component.sampling.iter().product::<usize>()).sum();
    let [across, down] = frame.units();
    8 * scan_bytes.n() < SPARSE_BITS * blocks * across * down
}

/// Coefficients of a quad.
const QUAD: usize = size_of::<Quad>() / size_of::<i16>();

impl<'a> Units<'a> {
    /// Begins so that `first` can be reached: at the last restart marker before it.
    fn begin(
        frame: &'a Frame,
        scan: &Scan,
        pairs: &'a [Arc<Pair>],
        scan_bytes: &'a ScanBytes,
        isa: Isa,
        first: usize,
    ) -> Option<Units<'a>> {
        let interval = scan.interval(frame);
        let bits = scan_bytes.interval(first / interval)?;
        let at = first / interval * interval;
        let interval_end = at + interval;
        let no_slot =
            Slot { component: &frame.components[0], tables: &pairs[0], after: &pairs[0].dc, index: 0, at: 0 };
        let mut slots = [no_slot; 256];
        let mut n = 0;
        for unit in 0..4 {
            let mut first = 0;
            for (index, (component, tables)) in frame.components.iter().zip(pairs).enumerate() {
                let [h, v] = component.sampling;
                for down in 0..v {
                    for column in unit * h..(unit + 1) * h {
                        let quad = first + down * h + column / 4;
                        let (index, at) = (index as u32, (quad * QUAD + column % 4 * 8) as u16);
                        slots[n] = Slot { component, tables, index, at, ..no_slot };
                        n += 1;
                    }
                }
                first += h * v;
            }
        }
        for at in 0..n {
            slots[at].after = &slots[(at + 1) % n].tables.dc;
        }
        let (last, blocks, is_sparse) = ([0; 3], n / 4, is_sparse(frame, scan_bytes));
        Some(Units { scan_bytes, interval, isa, bits, at, interval_end, last, slots, blocks, is_sparse })
    }

    /// Goes past units up to `at`; the quads are zeros.
    fn skip_to(&mut self, at: usize, quads: &mut Quads) -> Option<()> {
        while self.at < at {
            self.read(0, (at - self.at).min(4), quads, false)?;
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
        self.skip_to(start + columns.start, quads)?;
        for four in 0..columns.len().div_ceil(4) {
            let end = (columns.start + 4 * four + 4).min(columns.end) + start;
            let first = self.at;
            while self.at < end {
                self.read(self.at - first, end - self.at, quads, true)?;
            }
            done(four, quads.all());
            quads.clear(self.blocks);
        }
        self.skip_to(start + units_across, quads)
    }

    /// Reads `n` units, or as many as there are up to the next interval, as the ones from `first` on of a four, or only goes past them.
    #[inline(always)]
    fn read(&mut self, first: usize, n: usize, quads: &mut Quads, is_seen: bool) -> Option<()> {
        if self.at == self.interval_end {
            if !self.bits.is_spent() {
                return None;
            }
            self.bits = self.scan_bytes.interval(self.at / self.interval)?;
            self.last = [0; 3];
            self.interval_end += self.interval;
        }
        let n = n.min(self.interval_end - self.at);
        let range = first * self.blocks..(first + n) * self.blocks;
        let Units { isa, bits, slots, last, .. } = self;
        if self.is_sparse {
            sparse::blocks(
                *isa,
                bits,
                slots,
                range.start as u8..range.end as u8,
                last,
                quads.flat(),
                is_seen,
            )?;
        } else {
            baseline::blocks(*isa, bits, &slots[range], last, quads.flat(), is_seen)?;
        }
        self.at += n;
        Some(())
    }
}
