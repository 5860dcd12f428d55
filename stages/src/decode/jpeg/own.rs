//! Forebay's own decoder, for baseline images of 8 bits: as libjpeg-turbo decodes them, bit for bit where coefficients are such
//! that an image can have, and of an image no more than is asked for.
//!
//! It refuses what is not as the standard says without a reason; whoever calls it has another decoder for that.

use std::cell::RefCell;

use super::color::Model;
use super::frame::Frame;
use super::rows::{Buffers, Region, decode};
use crate::simd::isa::Isa;

thread_local! {
    /// Buffers of the last image on this thread.
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// What the buffers may hold between two images, bytes.
pub(in crate::decode) const KEPT_BYTES_MAX: usize = 1 << 21;

/// The pixels of a region, `[height, width, 3]`; of the whole image where none is given. With `reduced` above 1 each is the mean
/// of a square of so many columns and rows, at most 8; at the right and lower edges what the file holds beyond the image counts, too. `None` where the image is none that is decoded here.
pub(super) fn pixels(
    bytes: &[u8],
    is_rgb: bool,
    region: Option<Region>,
    reduced: usize,
    isa: Isa,
) -> Option<Vec<u8>> {
    BUFFERS.with_borrow_mut(|buffers| {
        let frame = Frame::read(bytes, &mut buffers.tables)?;
        let region = region.unwrap_or(Region { columns: 0..frame.width, rows: 0..frame.height });
        let model = if is_rgb { Model::Rgb } else { Model::Ycc };
        let pixels = decode(bytes, &frame, model, &region, reduced, buffers, isa);
        if buffers.bytes() > KEPT_BYTES_MAX {
            let tables = std::mem::take(&mut buffers.tables);
            *buffers = Buffers::default();
            buffers.tables = tables;
        }
        pixels
    })
}
