//! One row of a shard, read alone: the page that its image lies in, and the small columns of its row group.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::column::page::{Page, PageReader};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::page_index::index_reader::decode_offset_index;
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::serialized_reader::SerializedPageReader;

use super::index::{FilePart, Index, ReadError};
use super::{ShardError, StoredRow};
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
    let (pages, range) = page_of(index, address, &pages).map_err(damaged)?;
    bytes += range.end - range.start;
    let page = store.get_range(key, range.clone()).await?;
    let page = FilePart { start: range.start, bytes: page, file_bytes: index.file_bytes() };
    let image = image(index, address, pages, page).map_err(damaged)?;
    let identities = index.identity_range(address.row_group);
    bytes += identities.end - identities.start;
    let identities = store.get_range(key, identities).await?;
    let mut identities = index.identities(address.row_group, identities).map_err(damaged)?;
    if address.row >= identities.len() {
        return Err(damaged(foreign("a row group has fewer rows than it says")));
    }
    let (id, copy, label) = identities.swap_remove(address.row);
    Ok((StoredRow { bytes: image, label, id, copy }, bytes))
}

fn foreign(what: &str) -> ShardError {
    ShardError::Foreign(what.to_string())
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
    columns.iter().find(is_image).ok_or_else(|| foreign("its column `image.bytes` is missing"))
}

fn page_index_range(index: &Index, row_group: usize) -> Result<Range<u64>, ShardError> {
    let range = image_column(index, row_group)?.offset_index_range();
    range.ok_or_else(|| foreign("its images have no page index"))
}

/// The pages of the images of a row group, and where that of the row lies.
fn page_of(
    index: &Index,
    address: RowAddress,
    pages: &[u8],
) -> Result<(Vec<PageLocation>, Range<u64>), ShardError> {
    let pages = decode_offset_index(pages)?.page_locations().clone();
    let behind = pages.partition_point(|page| page.first_row_index <= address.row as i64);
    let page = behind.checked_sub(1).map(|at| &pages[at]);
    let page = page.ok_or_else(|| foreign("its page index does not begin with the first row"))?;
    let (start, length) = (page.offset as u64, page.compressed_page_size as u64);
    let (first, all) = image_column(index, address.row_group)?.byte_range();
    if start < first || start.saturating_add(length) > first + all {
        return Err(foreign("its page index points outside the images"));
    }
    Ok((pages, start..start + length))
}

/// The bytes of the row's image, out of the page that holds it.
fn image(
    index: &Index,
    address: RowAddress,
    pages: Vec<PageLocation>,
    page: FilePart,
) -> Result<Bytes, ShardError> {
    let column = image_column(index, address.row_group)?;
    let rows = index.metadata().row_group(address.row_group).num_rows() as usize;
    let start = page.start as i64;
    let before = pages.iter().take_while(|page| page.offset < start).count();
    let first_row = pages[before].first_row_index as usize;
    let mut reader = SerializedPageReader::new(Arc::new(page), column, rows, Some(pages))?;
    for _ in 0..before {
        reader.skip_next_page()?;
    }
    let Some(Page::DataPage { buf, .. }) = reader.get_next_page()? else {
        return Err(foreign("an image does not lie in a data page"));
    };
    value(&buf, address.row - first_row).ok_or_else(|| foreign("a page of images is cut short"))
}

/// Value `index` of a page of byte arrays: definition levels with their length before them, as there are no
/// repeated fields, then each value with its length before it (the PLAIN encoding of Parquet).
fn value(page: &Bytes, index: usize) -> Option<Bytes> {
    let length = |at: usize| {
        let bytes = page.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    let mut at = 4 + length(0)?;
    for _ in 0..index {
        at = at.checked_add(4)?.checked_add(length(at)?)?;
    }
    let (start, end) = (at + 4, (at + 4).checked_add(length(at)?)?);
    (end <= page.len()).then(|| page.slice(start..end))
}
