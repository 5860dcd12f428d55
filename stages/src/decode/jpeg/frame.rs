//! What a file says beside the bits of its scans, as far as decoding needs it.

use std::sync::Arc;

use super::coefficients::{BLOCKS_MAX, PLACES};
use super::huffman::{Pair, Spec, VALUE_MAX, size_max};
use super::{Segment, be16, segment};

/// The size and the components of an image.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) width: usize,
    pub(super) height: usize,
    /// One or three.
    pub(super) components: Vec<Component>,
    /// The largest sampling factors, horizontal and vertical.
    pub(super) sampling_max: [usize; 2],
    /// As its header says (SOF2): scans may bring a part of the coefficients, and of their bits.
    pub(super) is_progressive: bool,
}

/// One of luma and chroma.
#[derive(Clone, Debug)]
pub(super) struct Component {
    id: u8,
    /// Horizontal and vertical sampling factor.
    pub(super) sampling: [usize; 2],
    /// The number of its quantisers.
    stated_quantisers: usize,
    /// `[8, 8]` in natural order, as they were when its first scan began; zeros before.
    pub(super) quantisers: [[i16; 8]; 8],
    /// The largest DC coefficient, positive or negative: see [`VALUE_MAX`].
    pub(super) last_max: i32,
}

#[cfg(test)]
impl Component {
    /// With one quantiser for all.
    pub(super) fn of_test(id: u8, quantiser: i16) -> Component {
        let quantisers = [[quantiser; 8]; 8];
        let last_max = VALUE_MAX / i32::from(quantiser);
        Component { id, sampling: [1, 1], stated_quantisers: 0, quantisers, last_max }
    }
}

/// Some components of an image, some of their coefficients, some bits of these.
#[derive(Debug)]
pub(super) struct Scan {
    /// The places of its components among those of the frame.
    pub(super) components: Vec<usize>,
    /// The numbers of their tables, of the first coefficient and of the others.
    tables: Vec<[usize; 2]>,
    /// The first and the last coefficient that it brings, by their places in the file.
    pub(super) band: [usize; 2],
    /// The lowest bit that scans before brought of them, or 0, and the lowest one that this brings.
    pub(super) approximation: [u32; 2],
    /// Minimum coded units between restart markers; 0 where there are none.
    restart_interval: usize,
    /// Where its bits begin in the file.
    pub(super) at: usize,
}

/// The Huffman tables that were asked for last.
#[derive(Debug, Default)]
pub(super) struct Tables(Vec<MadeOf>);

/// Tables and what they were made of.
#[derive(Debug)]
struct MadeOf {
    specs: [Spec; 2],
    size_max: u32,
    pair: Arc<Pair>,
}

impl Tables {
    /// Images mostly have two pairs, of which those of Annex K are the most frequent; those of other qualities have others.
    const MAX: usize = 6;

    /// See [`Pair::of`].
    fn get(&mut self, [dc, ac]: [&Spec; 2], size_max: u32) -> Option<Arc<Pair>> {
        let is_it = |made: &MadeOf| [&made.specs[0], &made.specs[1]] == [dc, ac] && made.size_max == size_max;
        if let Some(at) = self.0.iter().position(is_it) {
            self.0[..=at].rotate_right(1);
        } else {
            let pair = Arc::new(Pair::of([dc, ac], size_max)?);
            self.0.truncate(Self::MAX - 1);
            self.0.insert(0, MadeOf { specs: [dc.clone(), ac.clone()], size_max, pair });
        }
        Some(self.0[0].pair.clone())
    }
}

impl Scan {
    /// Columns and rows of its minimum coded units. Those of a scan of one component are single blocks, of which there are no more
    /// than show something.
    pub(super) fn units(&self, frame: &Frame) -> [usize; 2] {
        match self.single() {
            Some(component) => {
                let sampling = frame.components[component].sampling;
                [(0, frame.width), (1, frame.height)].map(|(axis, pixels)| {
                    (pixels * sampling[axis]).div_ceil(frame.sampling_max[axis]).div_ceil(8)
                })
            }
            None => frame.units(),
        }
    }

    /// Its component, where it has but one.
    pub(super) fn single(&self) -> Option<usize> {
        if let [component] = self.components[..] { Some(component) } else { None }
    }

    /// Minimum coded units of a restart interval; all of them where there are no markers.
    pub(super) fn interval(&self, frame: &Frame) -> usize {
        let [across, down] = self.units(frame);
        if self.restart_interval == 0 { across * down } else { self.restart_interval }
    }

    /// Its restart intervals.
    pub(super) fn intervals(&self, frame: &Frame) -> usize {
        let [across, down] = self.units(frame);
        (across * down).div_ceil(self.interval(frame))
    }
}

/// What comes after the headers of an image, or after a scan.
#[derive(Debug)]
pub(super) enum Next {
    /// The bits of a scan.
    Scan(Scan),
    /// The end marker.
    End,
    /// The end of the file.
    Cut,
}

impl Frame {
    /// Of the body of a frame header; `None` where it is not an image of 8 bits with one component or three, or anything in it is
    /// not as the standard says.
    fn read(body: &[u8], is_progressive: bool) -> Option<Frame> {
        let &[precision, h1, h0, w1, w0, n, ref stated @ ..] = body else { return None };
        let n = usize::from(n);
        let (width, height) = (usize::from(be16(&[w1, w0])), usize::from(be16(&[h1, h0])));
        if precision != 8 || !matches!(n, 1 | 3) || width == 0 || height == 0 {
            return None;
        }
        let component = |stated: &[u8]| {
            let sampling = [usize::from(stated[1] >> 4), usize::from(stated[1] & 15)];
            sampling.iter().all(|factor| matches!(factor, 1 | 2 | 4)).then(|| Component {
                id: stated[0],
                // The units of a scan of one component are single blocks.
                sampling: if n == 1 { [1, 1] } else { sampling },
                stated_quantisers: usize::from(stated[2]),
                quantisers: [[0; 8]; 8],
                last_max: 0,
            })
        };
        let components = stated.get(..3 * n)?.chunks_exact(3).map(component).collect::<Option<Vec<_>>>()?;
        let has_twice = (1..n).any(|i| components[..i].iter().any(|other| other.id == components[i].id));
        if has_twice {
            return None;
        }
        let sampling_max =
            [0, 1].map(|axis| components.iter().map(|one| one.sampling[axis]).max().expect("one or three"));
        Some(Frame { width, height, components, sampling_max, is_progressive })
    }

    /// Columns and rows of minimum coded units.
    pub(super) fn units(&self) -> [usize; 2] {
        let [h, v] = self.sampling_max;
        [self.width.div_ceil(8 * h), self.height.div_ceil(8 * v)]
    }
}

/// What the segments of a file have said so far.
#[derive(Debug, Default)]
pub(super) struct Headers {
    quantisers: [Option<[[i16; 8]; 8]>; 4],
    /// Of first coefficients, and of others.
    specs: [[Option<Spec>; 4]; 2],
    restart_interval: usize,
    frame: Option<Frame>,
}

impl Headers {
    /// Reads on from the segment at `at`. `None` where the image is of a kind that is not decoded here, or anything is not as the
    /// standard says.
    pub(super) fn next(&mut self, bytes: &[u8], mut at: usize) -> Option<Next> {
        while at < bytes.len() {
            let Segment { marker, mut body, start, end } = segment(bytes, at).ok()?;
            if start > at {
                return None;
            }
            at = end;
            match marker {
                0xc0..=0xc2 if self.frame.is_none() => self.frame = Some(Frame::read(body, marker == 0xc2)?),
                0xc4 => {
                    while let Some((&kind, rest)) = body.split_first() {
                        let (spec, length) = Spec::read(rest)?;
                        let class = self.specs.get_mut(usize::from(kind >> 4))?;
                        *class.get_mut(usize::from(kind & 15))? = Some(spec);
                        body = &rest[length..];
                    }
                }
                0xdb => {
                    while let Some((&kind, rest)) = body.split_first() {
                        let (table, rest) = read_quantisers(kind, rest)?;
                        *self.quantisers.get_mut(usize::from(kind & 15))? = Some(table);
                        body = rest;
                    }
                }
                0xdd => self.restart_interval = usize::from(be16(body.get(..2)?)),
                0xda => return self.scan(body, end).map(Next::Scan),
                0xd9 => return Some(Next::End),
                // Of programs, and comments.
                0xe0..=0xef | 0xfe => {}
                // A marker of a kind that is broken may have been a table.
                _ => return None,
            }
        }
        Some(Next::Cut)
    }

    /// The scan of a header with this body, whose bits begin at `at`.
    fn scan(&mut self, body: &[u8], at: usize) -> Option<Scan> {
        let frame = self.frame.as_mut()?;
        let n = usize::from(*body.first()?);
        let (stated, &[from, to, approximation]) = body.get(1..)?.split_at_checked(2 * n)? else {
            return None;
        };
        let mut scan = Scan {
            components: Vec::with_capacity(n),
            tables: Vec::with_capacity(n),
            band: [from, to].map(usize::from),
            approximation: [approximation >> 4, approximation & 15].map(u32::from),
            restart_interval: self.restart_interval,
            at,
        };
        let mut blocks = 0;
        for stated in stated.chunks_exact(2) {
            let index = frame.components.iter().position(|component| component.id == stated[0])?;
            // They come in the order of the frame.
            if scan.components.last().is_some_and(|last| *last >= index) {
                return None;
            }
            let component = &mut frame.components[index];
            if component.quantisers[0][0] == 0 {
                component.quantisers = (*self.quantisers.get(component.stated_quantisers)?)?;
                component.last_max = VALUE_MAX / i32::from(component.quantisers[0][0]);
            }
            let [h, v] = component.sampling;
            blocks += h * v;
            scan.components.push(index);
            scan.tables.push([stated[1] >> 4, stated[1] & 15].map(usize::from));
        }
        ((1..=BLOCKS_MAX).contains(&blocks) || n == 1).then_some(scan)
    }

    /// The image.
    pub(super) fn frame(&self) -> Option<&Frame> {
        self.frame.as_ref()
    }

    /// The table of first coefficients (class 0) or of others (1) of the component with this place in a scan.
    pub(super) fn spec(&self, scan: &Scan, place: usize, class: usize) -> Option<&Spec> {
        self.specs[class].get(scan.tables[place][class])?.as_ref()
    }

    /// Both tables of each component of a scan that brings all coefficients of all components; see [`Pair::of`].
    pub(super) fn pairs(&self, scan: &Scan, tables: &mut Tables) -> Option<Vec<Arc<Pair>>> {
        let components = &self.frame()?.components;
        (0..scan.components.len())
            .map(|place| {
                let quantisers = components[scan.components[place]].quantisers.as_flattened();
                let size_max = size_max(quantisers[1..].iter().copied().max()?);
                tables.get([self.spec(scan, place, 0)?, self.spec(scan, place, 1)?], size_max)
            })
            .collect()
    }
}

/// The table of a DQT body after its kind, and what comes after it.
fn read_quantisers(kind: u8, body: &[u8]) -> Option<([[i16; 8]; 8], &[u8])> {
    let width = match kind >> 4 {
        0 => 1,
        1 => 2,
        _ => return None,
    };
    let (values, rest) = body.split_at_checked(64 * width)?;
    let mut table = [[0; 8]; 8];
    for (place, value) in values.chunks_exact(width).enumerate() {
        let value = value.iter().fold(0u16, |value, &byte| value << 8 | u16::from(byte));
        let at = PLACES[place];
        table[usize::from(at / 32)][usize::from(at % 32)] =
            i16::try_from(value).ok().filter(|&value| value > 0)?;
    }
    Some((table, rest))
}
