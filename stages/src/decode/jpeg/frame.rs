//! What a baseline file says before its first scan, as far as decoding needs it.

use std::sync::Arc;

use super::coefficients::{BLOCKS_MAX, PLACES};
use super::huffman::{Pair, Spec, VALUE_MAX, size_max};
use super::{Segment, be16, segment};

/// The size, the components and the tables of an image with one scan.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) components: Vec<Component>,
    /// The largest sampling factors, horizontal and vertical.
    pub(super) sampling_max: [usize; 2],
    /// Minimum coded units between restart markers; 0 where there are none.
    pub(super) restart_interval: usize,
    /// Where the bits of the scan begin in the file.
    pub(super) scan_at: usize,
}

/// One of luma and chroma.
#[derive(Clone, Debug)]
pub(super) struct Component {
    id: u8,
    /// Horizontal and vertical sampling factor.
    pub(super) sampling: [usize; 2],
    /// `[8, 8]` in natural order.
    pub(super) quantisers: [[i16; 8]; 8],
    /// The largest DC coefficient, positive or negative: see [`VALUE_MAX`].
    pub(super) last_max: i32,
    pub(super) tables: Arc<Pair>,
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

impl Frame {
    /// Columns and rows of minimum coded units.
    pub(super) fn units(&self) -> [usize; 2] {
        let [h, v] = self.sampling_max;
        [self.width.div_ceil(8 * h), self.height.div_ceil(8 * v)]
    }

    /// Reads the headers of a file; `None` where it is not a baseline image of 8 bits in one scan, with one component or
    /// three, or anything in it is not as the standard says.
    pub(super) fn read(bytes: &[u8], tables: &mut Tables) -> Option<Frame> {
        let mut quantisers: [Option<[[i16; 8]; 8]>; 4] = [None; 4];
        let (mut dcs, mut acs): ([Option<Spec>; 4], [Option<Spec>; 4]) = Default::default();
        let mut frame: Option<&[u8]> = None;
        let mut restart_interval = 0;
        let mut at = 2;
        loop {
            let Segment { marker, mut body, start, end } = segment(bytes, at).ok()?;
            if start > at {
                return None;
            }
            at = end;
            match marker {
                0xc0 | 0xc1 if frame.is_none() => frame = Some(body),
                0xc0..=0xc3 | 0xc5..=0xcf => return None,
                0xc4 => {
                    while let Some((&kind, rest)) = body.split_first() {
                        let (spec, length) = Spec::read(rest)?;
                        let place = match kind >> 4 {
                            0 => dcs.get_mut(usize::from(kind & 15)),
                            1 => acs.get_mut(usize::from(kind & 15)),
                            _ => None,
                        };
                        *place? = Some(spec);
                        body = &rest[length..];
                    }
                }
                0xdb => {
                    while let Some((&kind, rest)) = body.split_first() {
                        let (table, rest) = read_quantisers(kind, rest)?;
                        *quantisers.get_mut(usize::from(kind & 15))? = Some(table);
                        body = rest;
                    }
                }
                0xdd => restart_interval = usize::from(be16(body.get(..2)?)),
                0xda => {
                    let &[precision, h1, h0, w1, w0, n, ref stated @ ..] = frame? else { return None };
                    let n = usize::from(n);
                    let (stated, scan) = (stated.get(..3 * n)?, body.get(1..1 + 2 * n)?);
                    if precision != 8
                        || !matches!(n, 1 | 3)
                        || usize::from(body[0]) != n
                        || body.len() != 4 + 2 * n
                    {
                        return None;
                    }
                    if body[1 + 2 * n..] != [0, 63, 0] {
                        return None;
                    }
                    let component = |(stated, scan): (&[u8], &[u8])| {
                        let sampling = [usize::from(stated[1] >> 4), usize::from(stated[1] & 15)];
                        if stated[0] != scan[0] || !sampling.iter().all(|factor| matches!(factor, 1 | 2 | 4))
                        {
                            return None;
                        }
                        let quantisers = (*quantisers.get(usize::from(stated[2]))?)?;
                        Some(Component {
                            id: stated[0],
                            // The units of a scan of one component are single blocks.
                            sampling: if n == 1 { [1, 1] } else { sampling },
                            last_max: VALUE_MAX / i32::from(quantisers[0][0]),
                            quantisers,
                            tables: tables.get(
                                [
                                    dcs.get(usize::from(scan[1] >> 4))?.as_ref()?,
                                    acs.get(usize::from(scan[1] & 15))?.as_ref()?,
                                ],
                                size_max(quantisers.as_flattened()[1..].iter().copied().max()?),
                            )?,
                        })
                    };
                    let components = stated
                        .chunks_exact(3)
                        .zip(scan.chunks_exact(2))
                        .map(component)
                        .collect::<Option<Vec<_>>>()?;
                    let (width, height) = (usize::from(be16(&[w1, w0])), usize::from(be16(&[h1, h0])));
                    let blocks: usize =
                        components.iter().map(|Component { sampling: [h, v], .. }| h * v).sum();
                    let has_twice =
                        (1..n).any(|i| components[..i].iter().any(|other| other.id == components[i].id));
                    if width == 0 || height == 0 || blocks > BLOCKS_MAX || has_twice {
                        return None;
                    }
                    let sampling_max = [0, 1].map(|axis| {
                        components.iter().map(|one| one.sampling[axis]).max().expect("one or three")
                    });
                    return Some(Frame {
                        width,
                        height,
                        components,
                        sampling_max,
                        restart_interval,
                        scan_at: end,
                    });
                }
                0xd8 | 0xd9 => return None,
                _ => {}
            }
        }
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
