//! Forebay's own decoder, for Huffman-coded images of 8 bits, baseline and progressive: as libjpeg-turbo decodes them, bit for bit
//! where coefficients are such that an image can have, and of an image no more than is asked for.
//!
//! It refuses what is not as the standard says without a reason; whoever calls it has another decoder for that.

use std::cell::RefCell;

use super::bits::ScanBytes;
use super::coefficients::Quads;
use super::color::Model;
use super::frame::{Headers, Next, Tables};
use super::rows::{PixelRows, Region, RowBuffers};
use super::spectrum::Spectrum;
use super::units;
use crate::resized_rows::ResizedRows;
use crate::simd::isa::Isa;

thread_local! {
    /// Buffers of the last image on this thread.
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// Buffers that decoding uses, for one image after the other.
#[derive(Debug, Default)]
struct Buffers {
    tables: Tables,
    scan: ScanBytes,
    quads: Quads,
    spectrum: Spectrum,
    rows: RowBuffers,
}

impl Buffers {
    /// What they take, of what grows with images.
    fn bytes(&self) -> usize {
        self.scan.bytes() + self.spectrum.bytes() + self.rows.bytes()
    }
}

/// What the buffers may hold between two images, bytes.
pub(in crate::decode) const KEPT_BYTES_MAX: usize = 1 << 21;

/// The pixels of a region, `[height, width, 3]`; of the whole image where none is given. With `reduced` above 1 each is the mean
/// of a square of so many columns and rows, at most 8; at the right and lower edges what the file holds beyond the image counts, too.
/// With `resized`, which is for these columns and rows, the rows that it makes of them.
/// `None` where the image is none that is decoded here.
pub(super) fn pixels(
    bytes: &[u8],
    is_rgb: bool,
    region: Option<Region>,
    reduced: usize,
    resized: Option<ResizedRows>,
    isa: Isa,
) -> Option<Vec<u8>> {
    BUFFERS.with_borrow_mut(|buffers| {
        let pixels = decode(bytes, is_rgb, region, (reduced, resized), isa, buffers);
        if buffers.bytes() > KEPT_BYTES_MAX {
            let tables = std::mem::take(&mut buffers.tables);
            *buffers = Buffers { tables, ..Buffers::default() };
        }
        pixels
    })
}

fn decode(
    bytes: &[u8],
    is_rgb: bool,
    region: Option<Region>,
    (reduced, resized): (usize, Option<ResizedRows>),
    isa: Isa,
    buffers: &mut Buffers,
) -> Option<Vec<u8>> {
    let Buffers { tables, scan: scan_bytes, quads, spectrum, rows } = buffers;
    let mut headers = Headers::default();
    let Next::Scan(scan) = headers.next(bytes, 2)? else { return None };
    let frame = headers.frame()?;
    let region = region.unwrap_or(Region { columns: 0..frame.width, rows: 0..frame.height });
    let model = if is_rgb { Model::Rgb } else { Model::Ycc };
    let is_whole = !frame.is_progressive && scan.components.len() == frame.components.len();
    let end = scan.at + scan_bytes.read(&bytes[scan.at..], scan.intervals(frame))?;
    if !is_whole {
        spectrum.read(bytes, &mut headers, (scan, end), scan_bytes, isa)?;
        let frame = headers.frame()?;
        let rows = PixelRows::begin(frame, model, &region, reduced, Spectrum::ALIGN, isa, rows, resized);
        return Some(spectrum.pixels(rows));
    }
    let pairs = headers.pairs(&scan, tables)?;
    let is_cut = match headers.next(bytes, end)? {
        Next::Scan(_) => return None,
        Next::End => false,
        // It may lack nothing but its end marker.
        Next::Cut => true,
    };
    let frame = headers.frame()?;
    let rows = PixelRows::begin(frame, model, &region, reduced, 1, isa, rows, resized);
    units::decode(&scan, &pairs, rows, (scan_bytes, quads), is_cut, isa)
}
