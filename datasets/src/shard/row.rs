//! The images of a shard where they lie: those of a row group, or that of one row, read alone with the small columns of its
//! row group. They are stored as they are, so that each is a part of the bytes that were read.

use std::ops::Range;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::page_index::index_reader::decode_offset_index;

use super::index::{Index, ReadError, foreign};
use super::{ShardError, StoredRow, checksum};
use crate::blocks::Blocks;
use crate::columns::{FilePart, PLAIN, PageHeader, PageKind, check_structure, guarded};
use crate::sample::{Label, SampleId};
use crate::store::Store;

/// The rows of a planned group: what is trained on beside their images, and where these lie.
#[derive(Debug)]
pub struct GroupRows {
    group: usize,
    rows: Vec<RowEntry>,
    bytes: u64,
}

#[derive(Debug)]
struct RowEntry {
    page: ImagePage,
    id: SampleId,
    copy: u32,
    label: Label,
}

impl GroupRows {
    /// Reads them; no image.
    ///
    /// # Errors
    /// When the store fails or the shard is damaged.
    pub async fn read(store: &Store, key: &str, index: &Index, group: usize) -> Result<GroupRows, ReadError> {
        let damaged = |error: ShardError| ReadError::damaged(store, key, &error);
        // A block of nobody: these are some ten kilobytes.
        let blocks = Blocks::default();
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for row_group in index.row_groups_of(group) {
            let pages = page_index_range(index, row_group).map_err(damaged)?;
            let identities = index.identity_range(row_group);
            bytes += pages.end - pages.start + identities.end - identities.start;
            let pages = store.get_range_in(key, pages, &blocks).await?;
            let identities = store.get_range_in(key, identities, &blocks).await?;
            let identities = index.identities(row_group, identities).map_err(damaged)?;
            let pages = pages_of(index, row_group, &pages, identities.len()).map_err(damaged)?;
            let entry = |(page, (id, copy, label))| RowEntry { page, id, copy, label };
            rows.extend(pages.into_iter().zip(identities).map(entry));
        }
        if rows.len() != index.footer().groups[group] {
            return Err(damaged(foreign("a planned group has other rows than the footer says")));
        }
        Ok(GroupRows { group, rows, bytes })
    }

    /// How many bytes were read for them.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads one of them, in a block of `blocks` where that is a local folder's, and says how many bytes that took. Images of
    /// 16 KiB and more lie in pages of their own; smaller ones come with their neighbours.
    ///
    /// # Errors
    /// When the store fails or the shard is damaged.
    pub async fn row(
        &self,
        store: &Store,
        key: &str,
        index: &Index,
        row: usize,
        blocks: &Blocks<u8>,
    ) -> Result<(StoredRow, u64), ReadError> {
        let damaged = |error: ShardError| ReadError::damaged(store, key, &error);
        let found = self.rows.get(row);
        let RowEntry { page, id, copy, label } =
            found.ok_or_else(|| damaged(foreign("a planned group has fewer rows than the footer says")))?;
        let bytes = page.range.end - page.range.start;
        let stored = store.get_range_in(key, page.range.clone(), blocks).await?;
        let image = image(page, &stored).map_err(damaged)?;
        index.check_sum(self.group, row, checksum(&image, id, *copy, *label), id).map_err(damaged)?;
        Ok((StoredRow { bytes: image, label: *label, id: id.clone(), copy: *copy }, bytes))
    }
}

/// Reads row `row` of planned group `group` alone, and says how many bytes that took.
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
    let rows = GroupRows::read(store, key, index, group).await?;
    let (found, bytes) = rows.row(store, key, index, row, &Blocks::default()).await?;
    Ok((found, rows.bytes() + bytes))
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
#[derive(Clone, Debug)]
struct ImagePage {
    range: Range<u64>,
    /// The place of the row among those of the page.
    row: usize,
}

/// The page of each row of a row group, from its page index.
fn pages_of(
    index: &Index,
    row_group: usize,
    pages: &[u8],
    n_rows: usize,
) -> Result<Vec<ImagePage>, ShardError> {
    check_structure(pages)?;
    let pages = guarded(|| Ok::<_, ShardError>(decode_offset_index(pages)?))?;
    let (first, all) = image_column(index, row_group)?.byte_range();
    let outside = || foreign("its page index points outside the images");
    let mut of_rows: Vec<ImagePage> = Vec::with_capacity(n_rows);
    let starts = pages.page_locations().iter().map(|page| page.first_row_index);
    let ends = starts.clone().skip(1).chain([n_rows as i64]);
    for ((page, first_row), end) in pages.page_locations().iter().zip(starts).zip(ends) {
        if first_row != of_rows.len() as i64 || end <= first_row || end > n_rows as i64 {
            return Err(foreign("the pages of its page index do not follow each other"));
        }
        let start = u64::try_from(page.offset).map_err(|_| outside())?;
        let length = u64::try_from(page.compressed_page_size).map_err(|_| outside())?;
        let end_byte = start.checked_add(length).filter(|end| start >= first && *end <= first + all);
        let range = start..end_byte.ok_or_else(outside)?;
        of_rows.extend((0..(end - first_row) as usize).map(|row| ImagePage { range: range.clone(), row }));
    }
    match of_rows.len() == n_rows {
        true => Ok(of_rows),
        false => Err(foreign("its page index has no pages")),
    }
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
