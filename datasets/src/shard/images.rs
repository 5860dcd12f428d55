//! The images of a row group where they lie: they are stored as they are, so that each is a part of the bytes that were read.

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};

use super::{ShardError, foreign};
use crate::columns::{FilePart, PLAIN, PageHeader, PageKind};

/// The images of a row group, of which `part` holds the column: parts of it, in their order.
///
/// # Errors
/// [`ShardError`] when its pages are not those of images.
pub(super) fn images(row_group: &RowGroupMetaData, part: &FilePart) -> Result<Vec<Bytes>, ShardError> {
    let (start, length) = image_column(row_group)?.byte_range();
    let mut rest = part.slice(start, length as usize)?;
    let mut images = Vec::new();
    while !rest.is_empty() {
        let mut page = ImageValues::read(&mut rest)?;
        images.extend(&mut page);
        page.end()?;
    }
    Ok(images)
}

/// The column of the images of a row group.
pub(super) fn image_column(row_group: &RowGroupMetaData) -> Result<&ColumnChunkMetaData, ShardError> {
    let columns = row_group.columns();
    let is_image = |column: &&ColumnChunkMetaData| column.column_path().parts() == ["image", "bytes"];
    let column =
        columns.iter().find(is_image).ok_or_else(|| foreign("its column `image.bytes` is missing"))?;
    match column.compression() {
        Compression::UNCOMPRESSED => Ok(column),
        _ => Err(foreign("its column `image.bytes` is packed, and none of ours is")),
    }
}

/// Image `row` of a page: a part of it.
pub(super) fn image(stored: &Bytes, row: usize) -> Result<Bytes, ShardError> {
    let mut rest = stored.clone();
    let mut values = ImageValues::read(&mut rest)?;
    match values.nth(row) {
        Some(image) if rest.is_empty() => Ok(image),
        _ => Err(foreign("a page of images is cut short")),
    }
}

/// The values of a page of images, each a part of it. Images are not packed and have no dictionary: definition levels with
/// their length before them, as there are no repeated fields, then each value with its length before it (the PLAIN
/// encoding of Parquet).
struct ImageValues {
    /// What follows the values that were taken.
    rest: Bytes,
    /// How many there are still.
    left: usize,
}

impl ImageValues {
    /// Takes the page at the head of `stored`.
    fn read(stored: &mut Bytes) -> Result<ImageValues, ShardError> {
        let header = PageHeader::read(stored).filter(|header| {
            (header.kind, header.encoding) == (PageKind::Data, PLAIN)
                && header.bytes == header.unpacked_bytes
                && header.bytes <= stored.len() - header.header_bytes
        });
        let header = header.ok_or_else(|| foreign("an image does not lie in a page of images"))?;
        let mut page = stored.split_to(header.header_bytes + header.bytes);
        let mut values = ImageValues { rest: page.split_off(header.header_bytes), left: header.values };
        values.value().ok_or_else(|| foreign("a page of images is cut short"))?;
        Ok(values)
    }

    /// Bytes with their length before them.
    fn value(&mut self) -> Option<Bytes> {
        let length = u32::from_le_bytes(*self.rest.first_chunk()?) as usize;
        let end = length.checked_add(4).filter(|end| *end <= self.rest.len())?;
        Some(self.rest.split_to(end).slice(4..))
    }

    /// Refuses a page of fewer or more values than it says, as one that lacks a value is.
    fn end(self) -> Result<(), ShardError> {
        match self.left == 0 && self.rest.is_empty() {
            true => Ok(()),
            false => Err(foreign("a page of images holds other values than it says")),
        }
    }
}

impl Iterator for ImageValues {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.left = self.left.checked_sub(1)?;
        let value = self.value();
        // Of a page that is cut short, one is left for `end` to find.
        self.left += usize::from(value.is_none());
        value
    }
}
