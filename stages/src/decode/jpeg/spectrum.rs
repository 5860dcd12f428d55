//! The coefficients of a whole image, where several scans bring them: of some components, of some coefficients (ITU-T T.81, annex
//! G: spectral selection), some of their bits (successive approximation).

use super::SCANS_MAX;
use super::bits::{Bits, ScanBytes};
use super::coefficients::{PLACES, Quad};
use super::frame::{Frame, Headers, Next, Scan};
use super::huffman::{Codes, Symbol, VALUE_MAX, value};
use super::rows::PixelRows;
use crate::simd::isa::{Isa, for_each_isa};

/// The coefficients of a whole image.
#[derive(Debug, Default)]
pub(super) struct Spectrum {
    /// By component, by row of blocks and from left to right.
    quads: Vec<Quad>,
    /// Which coefficients of a block after the first one are not zero, by their places in the file; by quad and by column.
    nonzero: Vec<[u64; 4]>,
    grids: [BlockGrid; 3],
}

/// Where the blocks of a component are.
#[derive(Clone, Copy, Debug, Default)]
struct BlockGrid {
    /// The first quad.
    first: usize,
    /// Quads of a row.
    across: usize,
}

/// The lowest bit of a coefficient before any scan brings it.
const UNKNOWN: u32 = u32::MAX;

impl Spectrum {
    /// Units that begin a row of pixels' columns are multiples of this: a quad does not begin elsewhere.
    pub(super) const ALIGN: usize = 4;

    /// What the blocks of a component take, of so many columns and rows of units.
    pub(super) fn bytes_of([across, down]: [u64; 2], [h, v]: [u64; 2]) -> u64 {
        let quads = across.div_ceil(Self::ALIGN as u64) * h * down * v;
        quads * (size_of::<Quad>() + size_of::<[u64; 4]>()) as u64
    }

    /// What it takes.
    pub(super) fn bytes(&self) -> usize {
        self.quads.capacity() * size_of::<Quad>() + self.nonzero.capacity() * size_of::<[u64; 4]>()
    }

    /// Reads all scans of an image, from the first one on, whose bytes are read and end where it is said. `None` where they do not
    /// bring all coefficients to their last bit, each in its turn, and nothing else, or the bits are not as the standard says.
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        headers: &mut Headers,
        (mut scan, mut end): (Scan, usize),
        scan_bytes: &mut ScanBytes,
        isa: Isa,
    ) -> Option<()> {
        self.begin(headers.frame()?);
        let mut lowest = [[UNKNOWN; 64]; 3];
        for _ in 0..SCANS_MAX {
            let frame = headers.frame()?;
            let kind = Kind::of(frame, &scan)?;
            for &component in &scan.components {
                let [from, to] = scan.band;
                for lowest in &mut lowest[component][from..=to] {
                    let [high, low] = scan.approximation;
                    let before = if high == 0 { UNKNOWN } else { high };
                    if *lowest != before || (high > 0 && high != low + 1) {
                        return None;
                    }
                    *lowest = low;
                }
                // The first one comes before others.
                if lowest[component][0] == UNKNOWN {
                    return None;
                }
            }
            let mut codes = Vec::with_capacity(scan.components.len());
            for place in 0..scan.components.len() {
                let codes_of = |class| headers.spec(&scan, place, class).map(Codes::of);
                codes.push([0, 1].map(|class| if kind.reads(class) { codes_of(class) } else { None }));
            }
            blocks(isa, self, frame, &scan, kind, &codes, scan_bytes)?;
            match headers.next(bytes, end)? {
                Next::Scan(next) => {
                    scan = next;
                    end = scan.at + scan_bytes.read(&bytes[scan.at..], scan.intervals(headers.frame()?))?;
                }
                // A file that lacks nothing but its end marker is whole.
                Next::End | Next::Cut => {
                    let frame = headers.frame()?;
                    let is_known =
                        lowest[..frame.components.len()].as_flattened().iter().all(|low| *low == 0);
                    return (is_known && self.is_within(frame, isa)).then_some(());
                }
            }
        }
        None
    }

    /// Makes room for an image, of which all is zero.
    fn begin(&mut self, frame: &Frame) {
        let [across, down] = frame.units();
        let mut n = 0;
        for (grid, component) in self.grids.iter_mut().zip(&frame.components) {
            let [h, v] = component.sampling;
            *grid = BlockGrid { first: n, across: across.div_ceil(Self::ALIGN) * h };
            n += grid.across * down * v;
        }
        self.quads.clear();
        self.quads.resize(n, [0; 256]);
        self.nonzero.clear();
        self.nonzero.resize(n, [0; 4]);
    }

    fn block(&mut self, component: usize, row: usize, column: usize) -> Block<'_> {
        let BlockGrid { first, across } = self.grids[component];
        let quad = first + row * across + column / 4;
        Block {
            quad: &mut self.quads[quad],
            at: column % 4 * 8,
            nonzero: &mut self.nonzero[quad][column % 4],
        }
    }

    /// True where no coefficient that is dequantised is beyond [`VALUE_MAX`].
    fn is_within(&self, frame: &Frame, isa: Isa) -> bool {
        let mut end = self.quads.len();
        for (BlockGrid { first, .. }, component) in self.grids.iter().zip(&frame.components).rev() {
            let mut limits = [0; 256];
            for (limits, quantisers) in limits.chunks_exact_mut(32).zip(&component.quantisers) {
                for (limit, quantiser) in limits.iter_mut().zip(quantisers.iter().cycle()) {
                    *limit = VALUE_MAX.checked_div(i32::from(*quantiser)).unwrap_or(0) as u16;
                }
            }
            if !within(isa, &self.quads[*first..end], &limits) {
                return false;
            }
            end = *first;
        }
        true
    }

    /// The pixels that they make.
    pub(super) fn pixels(&self, mut rows: PixelRows<'_>) -> Vec<u8> {
        let frame = rows.frame;
        let [columns, wanted] = rows.units.clone();
        for row in wanted {
            for four in 0..columns.len().div_ceil(Self::ALIGN) {
                let quads = frame.components.iter().zip(&self.grids).flat_map(|(component, grid)| {
                    let [h, v] = component.sampling;
                    (row * v..(row + 1) * v).flat_map(move |row| {
                        let first = grid.first + row * grid.across + (columns.start / Self::ALIGN + four) * h;
                        &self.quads[first..first + h]
                    })
                });
                rows.four(row, four, quads);
            }
            rows.end_row(row);
        }
        rows.end()
    }
}

for_each_isa! {
    /// True where no coefficient is beyond the limit of its place.
    within = within_loop(quads: &[Quad], limits: &[u16; 256]) -> bool
}

#[inline(always)]
fn within_loop(quads: &[Quad], limits: &[u16; 256]) -> bool {
    let is_beyond = |quad: &Quad| {
        quad.iter().zip(limits).fold(false, |beyond, (value, limit)| beyond | (value.unsigned_abs() > *limit))
    };
    !quads.iter().any(is_beyond)
}

/// What a scan brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// All coefficients of its components.
    Sequential,
    /// The upper bits of first coefficients.
    FirstDc,
    /// A further bit of them.
    RefineDc,
    /// The upper bits of other coefficients.
    FirstAc,
    /// A further bit of them.
    RefineAc,
}

impl Kind {
    /// True where it reads codes of first coefficients (class 0) or of others (1).
    fn reads(self, class: usize) -> bool {
        match self {
            Kind::Sequential => true,
            Kind::FirstDc => class == 0,
            Kind::RefineDc => false,
            Kind::FirstAc | Kind::RefineAc => class == 1,
        }
    }

    /// `None` where the standard has no such scan.
    fn of(frame: &Frame, scan: &Scan) -> Option<Kind> {
        let [high, low] = scan.approximation;
        match (frame.is_progressive, scan.band) {
            (false, [0, 63]) if [high, low] == [0, 0] => Some(Kind::Sequential),
            (true, [0, 0]) if low <= 13 => Some(if high == 0 { Kind::FirstDc } else { Kind::RefineDc }),
            (true, [from, to]) if (1..=to).contains(&from) && to <= 63 && low <= 13 => {
                let kind = if high == 0 { Kind::FirstAc } else { Kind::RefineAc };
                (scan.components.len() == 1).then_some(kind)
            }
            _ => None,
        }
    }
}

/// A block of the image.
struct Block<'a> {
    quad: &'a mut Quad,
    /// Its first coefficient.
    at: usize,
    nonzero: &'a mut u64,
}

impl Block<'_> {
    /// The coefficient with this place in the file, below 64.
    #[inline(always)]
    fn coefficient(&mut self, place: usize) -> &mut i16 {
        &mut self.quad[(self.at + usize::from(PLACES[place & 63])) & 255]
    }

    #[inline(always)]
    fn put(&mut self, place: usize, value: i16) {
        *self.coefficient(place) = value;
        *self.nonzero |= u64::from(value != 0) << place;
    }

    /// Moves a coefficient that is not zero away from it by `one` where the next bit says so.
    #[inline(always)]
    fn refine(&mut self, bits: &mut Bits<'_>, place: usize, one: i16) {
        bits.refill();
        // No branch depends on the bit.
        let is_more = (bits.peek() >> 63) as i16;
        bits.consume(1);
        let coefficient = self.coefficient(place);
        let is_new = i16::from(*coefficient & one == 0);
        *coefficient += if *coefficient >= 0 { one } else { -one } * (is_more & is_new);
    }
}

/// The tables of a component: of first coefficients and of others, where the file has them.
type ComponentCodes = [Option<Codes>; 2];

for_each_isa! {
    /// Reads the blocks of a scan. `None` where the bits are none, or not as many as are there.
    blocks = blocks_loop(
        spectrum: &mut Spectrum,
        frame: &Frame,
        scan: &Scan,
        kind: Kind,
        codes: &[ComponentCodes],
        scan_bytes: &ScanBytes
    ) -> Option<()>
}

#[inline(always)]
fn blocks_loop(
    spectrum: &mut Spectrum,
    frame: &Frame,
    scan: &Scan,
    kind: Kind,
    codes: &[ComponentCodes],
    scan_bytes: &ScanBytes,
) -> Option<()> {
    let is_single = scan.single().is_some();
    let [across, down] = scan.units(frame);
    let (units, interval) = (across * down, scan.interval(frame));
    for (index, start) in (0..units).step_by(interval).enumerate() {
        let mut state = State { bits: scan_bytes.interval(index)?, last: [0; 3], ended: 0 };
        let (mut row, mut column) = (start / across, start % across);
        for _ in start..(start + interval).min(units) {
            for ((place, &component), codes) in scan.components.iter().enumerate().zip(codes) {
                let [h, v] = if is_single { [1, 1] } else { frame.components[component].sampling };
                for row in row * v..(row + 1) * v {
                    for column in column * h..(column + 1) * h {
                        state.block(kind, scan, place, codes, spectrum.block(component, row, column))?;
                    }
                }
            }
            column += 1;
            if column == across {
                (row, column) = (row + 1, 0);
                if state.bits.is_overrun() {
                    return None;
                }
            }
        }
        if state.ended > 0 || !state.bits.is_spent() {
            return None;
        }
    }
    Some(())
}

/// What the blocks of a restart interval share.
struct State<'a> {
    bits: Bits<'a>,
    /// The last DC coefficient of each component of the scan.
    last: [i32; 3],
    /// How many further blocks have no new coefficient.
    ended: u32,
}

impl State<'_> {
    #[inline(always)]
    fn block(
        &mut self,
        kind: Kind,
        scan: &Scan,
        place: usize,
        [dc, ac]: &ComponentCodes,
        mut block: Block<'_>,
    ) -> Option<()> {
        let low = scan.approximation[1];
        match kind {
            Kind::Sequential => {
                self.first_dc(place, dc.as_ref()?, 0, &mut block)?;
                self.first_ac(ac.as_ref()?, [1, 63], 0, &mut block)?;
                (self.ended == 0).then_some(())
            }
            Kind::FirstDc => self.first_dc(place, dc.as_ref()?, low, &mut block),
            Kind::RefineDc => {
                self.bits.refill();
                *block.coefficient(0) |= ((self.bits.peek() >> 63) << low) as i16;
                self.bits.consume(1);
                Some(())
            }
            Kind::FirstAc => self.first_ac(ac.as_ref()?, scan.band, low, &mut block),
            Kind::RefineAc => self.refine_ac(ac.as_ref()?, scan.band, low, &mut block),
        }
    }

    #[inline(always)]
    fn first_dc(&mut self, place: usize, codes: &Codes, low: u32, block: &mut Block<'_>) -> Option<()> {
        self.bits.refill();
        let peeked = self.bits.peek();
        let Symbol { code_bits, byte: size } = codes.symbol(peeked)?;
        let size = u32::from(size);
        if size > 11 {
            return None;
        }
        self.bits.consume(u64::from(code_bits + size));
        let last = &mut self.last[place];
        *last += i32::from(value(peeked << code_bits, size));
        if last.abs() > VALUE_MAX >> low {
            return None;
        }
        *block.coefficient(0) = (*last << low) as i16;
        Some(())
    }

    #[inline(always)]
    fn first_ac(
        &mut self,
        codes: &Codes,
        [from, to]: [usize; 2],
        low: u32,
        block: &mut Block<'_>,
    ) -> Option<()> {
        if self.ended > 0 {
            self.ended -= 1;
            return Some(());
        }
        let mut at = from;
        while at <= to {
            self.bits.refill();
            let peeked = self.bits.peek();
            let Symbol { code_bits, byte } = codes.symbol(peeked)?;
            let (zeros, size) = (byte >> 4, u32::from(byte & 15));
            at += usize::from(zeros);
            match (zeros, size) {
                (15, 0) => self.bits.consume(u64::from(code_bits)),
                (_, 0) => {
                    self.ended = self.end_of_band(code_bits, zeros) - 1;
                    return Some(());
                }
                _ => {
                    let value = i32::from(value(peeked << code_bits, size)) << low;
                    if size > 10 || at > to || value.abs() > VALUE_MAX {
                        return None;
                    }
                    self.bits.consume(u64::from(code_bits + size));
                    block.put(at, value as i16);
                }
            }
            at += 1;
        }
        // A run of 16 zeros may reach over the end in no valid file.
        (at == to + 1).then_some(())
    }

    /// Takes the code of an end, of so many bits, and the `size` bits after it: how many blocks have no new coefficient from here on,
    /// this one among them (figure G.4).
    #[inline(always)]
    fn end_of_band(&mut self, code_bits: u32, size: u8) -> u32 {
        let after = self.bits.peek() << code_bits;
        self.bits.consume(u64::from(code_bits) + u64::from(size));
        (1 << size) + (after >> 1 >> (63 - size)) as u32
    }

    #[inline(always)]
    fn refine_ac(
        &mut self,
        codes: &Codes,
        [from, to]: [usize; 2],
        low: u32,
        block: &mut Block<'_>,
    ) -> Option<()> {
        let one = 1i16 << low;
        let mut at = from;
        while self.ended == 0 && at <= to {
            self.bits.refill();
            let peeked = self.bits.peek();
            let Symbol { code_bits, byte } = codes.symbol(peeked)?;
            let (mut zeros, size) = (byte >> 4, byte & 15);
            let new = match size {
                0 if zeros < 15 => {
                    self.ended = self.end_of_band(code_bits, zeros);
                    break;
                }
                0 => 0,
                1 if peeked << code_bits >> 63 == 1 => one,
                1 => -one,
                _ => return None,
            };
            self.bits.consume(u64::from(code_bits) + u64::from(size));
            // Past so many zeros; what is not zero on the way is refined.
            loop {
                // A run of zeros reaches over the end in no valid file.
                if at > to {
                    return None;
                }
                if *block.nonzero >> at & 1 == 1 {
                    block.refine(&mut self.bits, at, one);
                } else if zeros == 0 {
                    break;
                } else {
                    zeros -= 1;
                }
                at += 1;
            }
            block.put(at, new);
            at += 1;
        }
        if self.ended > 0 {
            self.ended -= 1;
            let mut rest =
                if at <= to { *block.nonzero & (u64::MAX >> (63 - to)) & (u64::MAX << at) } else { 0 };
            while rest != 0 {
                block.refine(&mut self.bits, rest.trailing_zeros() as usize, one);
                rest &= rest - 1;
            }
        }
        Some(())
    }
}
