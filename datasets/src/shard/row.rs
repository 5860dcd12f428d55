//! The images of a shard where they lie: those of a row group, or that of one row, read alone with the small columns of its
//! row group. They are stored as they are, so that each is a part of the bytes that were read.

use std::ops::Range;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::page_index::index_reader::decode_offset_index;

use super::index::{Index, ReadError, foreign};
use super::{ShardError, StoredRow, checksum};
use crate::columns::{FilePart, PLAIN, PageHeader, PageKind, check_structure, guarded};
use crate::store::Store;

/// Where a row lies: its row group, and its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RowAddress {
    row_group: usize,
    row: usize,
}

/// Reads row `row` of planned group `group`, and says how many bytes that took. Images of 16 KiB and more lie in
/// pages of their own; smaller ones come with their neighbours.
///
/// # Errors
/// When the store fails or the shard is damaged.
pub async fn read_row(
    store: &Store,
    key: &str,
    index: &Index,
    group: usize,
    row: usize,
) -> Result<(StoredRow, u64), ReadError> {
    let damaged = |error: ShardError| ReadError::damaged(store, key, &error);
    let address = locate(index, group, row).map_err(damaged)?;
    let pages = page_index_range(index, address.row_group).map_err(damaged)?;
    let mut bytes = pages.end - pages.start;
    let pages = store.get_range(key, pages).await?;
    let page = page_of(index, address, &pages).map_err(damaged)?;
    bytes += page.range.end - page.range.start;
    let stored = store.get_range(key, page.range.clone()).await?;
    let image = image(&page, &stored).map_err(damaged)?;
    let identities = index.identity_range(address.row_group);
    bytes += identities.end - identities.start;
    let identities = store.get_range(key, identities).await?;
    let mut identities = index.identities(address.row_group, identities).map_err(damaged)?;
    if address.row >= identities.len() {
        return Err(damaged(foreign("a row group has fewer rows than it says")));
    }
    let (id, copy, label) = identities.swap_remove(address.row);
    index.check_sum(group, row, checksum(&image, &id, copy, label), &id).map_err(damaged)?;
    Ok((StoredRow { bytes: image, label, id, copy }, bytes))
}

/// The images of a row group, of which `part` holds the column: parts of it, in their order.
///
/// # Errors
/// [`ShardError`] when its pages are not those of images.
pub(super) fn images(index: &Index, row_group: usize, part: &FilePart) -> Result<Vec<Bytes>, ShardError> {
    let (start, length) = image_column(index, row_group)?.byte_range();
    let mut rest = part.slice(start, length as usize)?;
    let mut images = Vec::new();
    while !rest.is_empty() {
        let mut page = ImageValues::read(&mut rest)?;
        images.extend(&mut page);
        page.end()?;
    }
    Ok(images)
}

fn locate(index: &Index, group: usize, row: usize) -> Result<RowAddress, ShardError> {
    let mut row = row;
    for row_group in index.row_groups_of(group) {
        let rows = index.metadata().row_group(row_group).num_rows() as usize;
        if row < rows {
            return Ok(RowAddress { row_group, row });
        }
        row -= rows;
    }
    Err(foreign("a planned group has fewer rows than the footer says"))
}

fn image_column(index: &Index, row_group: usize) -> Result<&ColumnChunkMetaData, ShardError> {
    let columns = index.metadata().row_group(row_group).columns();
    let is_image = |column: &&ColumnChunkMetaData| column.column_path().parts() == ["image", "bytes"];
    let column = columns.iter().find(is_image).ok_or_else(|| foreign("its column `image.bytes` is missing"))?;
    match column.compression() {
        Compression::UNCOMPRESSED => Ok(column),
        _ => Err(foreign("its column `image.bytes` is packed, and none of ours is")),
    }
}

/// Bytes of the page index of the images of a row group: some 20 a page, and a page holds a row or more.
const PAGE_INDEX_BYTES_MAX: u64 = 1 << 20;

fn page_index_range(index: &Index, row_group: usize) -> Result<Range<u64>, ShardError> {
    let column = image_column(index, row_group)?;
    let (start, length) = (column.offset_index_offset(), column.offset_index_length());
    let start = start.and_then(|start| u64::try_from(start).ok());
    let length = length.and_then(|length| u64::try_from(length).ok());
    let (Some(start), Some(length)) = (start, length) else {
        return Err(foreign("its images have no page index"));
    };
    let end = start.checked_add(length).filter(|end| *end <= index.file_bytes());
    match end {
        Some(end) if length <= PAGE_INDEX_BYTES_MAX => Ok(start..end),
        _ => Err(foreign("its page index lies outside the file")),
    }
}

/// The page that a row's image lies in.
struct ImagePage {
    range: Range<u64>,
    /// The place of the row among those of the page.
    row: usize,
}

fn page_of(index: &Index, address: RowAddress, pages: &[u8]) -> Result<ImagePage, ShardError> {
    check_structure(pages)?;
    let pages = guarded(|| Ok::<_, ShardError>(decode_offset_index(pages)?))?;
    let pages = pages.page_locations();
    let row = address.row as i64;
    let page = pages.iter().rfind(|page| (0..=row).contains(&page.first_row_index));
    let page = page.ok_or_else(|| foreign("its page index does not begin with the first row"))?;
    let (first, all) = image_column(index, address.row_group)?.byte_range();
    let outside = || foreign("its page index points outside the images");
    let start = u64::try_from(page.offset).map_err(|_| outside())?;
    let length = u64::try_from(page.compressed_page_size).map_err(|_| outside())?;
    let end = start.checked_add(length).filter(|end| start >= first && *end <= first + all);
    let range = start..end.ok_or_else(outside)?;
    Ok(ImagePage { range, row: (row - page.first_row_index) as usize })
}

/// The bytes of the row's image, out of the page that holds it.
fn image(page: &ImagePage, stored: &Bytes) -> Result<Bytes, ShardError> {
    let mut rest = stored.clone();
    let mut values = ImageValues::read(&mut rest)?;
    match values.nth(page.row) {
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
