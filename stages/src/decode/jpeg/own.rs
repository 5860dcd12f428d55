//! Forebay's own decoder, for baseline images of 8 bits: as libjpeg-turbo decodes them, bit for bit
//! where coefficients are such that an image can have, and of an image no more than is asked for.
//!
//! It refuses what is not as the standard says without a reason; whoever calls it has another decoder for that.

use std::cell::RefCell;

use super::color::Model;
use super::frame::Frame;
use super::idct::Isa;
use super::rows::{Buffers, Region, Sink, decode};

thread_local! {
    /// Buffers of the last image on this thread.
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// What the buffers may hold between two images, bytes.
pub(super) const KEPT_BYTES_MAX: usize = 1 << 19;

/// The pixels of a region, `[height, width, 3]`; of the whole image where none is given. `reduced` columns and rows of the image
/// become one, 1, 2, 4 or 8 of them, which is their mean; the region is of the smaller image. `None` where the image is none that is
/// decoded here.
pub(super) fn pixels(
    bytes: &[u8],
    is_rgb: bool,
    region: Option<Region>,
    reduced: usize,
    isa: Isa,
) -> Option<Vec<u8>> {
    BUFFERS.with_borrow_mut(|work| {
        let frame = Frame { reduced, ..Frame::read(bytes, &mut work.tables)? };
        let [width, height] = frame.reduced_size();
        let region = region.unwrap_or(Region { columns: 0..width, rows: 0..height });
        let width = region.columns.len();
        let mut rows =
            Decoded { line: vec![0; width * 3], data: Vec::with_capacity(width * region.rows.len() * 3) };
        let model = if is_rgb { Model::Rgb } else { Model::Ycc };
        let done = decode(bytes, &frame, model, &region, work, isa, &mut rows);
        if work.bytes() > KEPT_BYTES_MAX {
            *work = Buffers::default();
        }
        done.map(|()| rows.data)
    })
}

/// Rows one after the other.
struct Decoded {
    line: Vec<u8>,
    data: Vec<u8>,
}

impl Sink for Decoded {
    fn row(&mut self) -> &mut [u8] {
        &mut self.line
    }

    fn done(&mut self) {
        // Into memory that nothing has written before.
        self.data.extend_from_slice(&self.line);
    }
}
