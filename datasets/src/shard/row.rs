//! The rows of a planned group, read one by one: what stands beside their images comes first, each image when it is wanted.

use std::ops::Range;

use parquet::file::page_index::index_reader::decode_offset_index;

use super::images::{image, image_column};
use super::index::{Index, ReadError};
use super::{ShardError, StoredRow, checksum, foreign};
use crate::blocks::Blocks;
use crate::columns::{check_structure, guarded};
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
        // Some ten kilobytes, which need not be kept.
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
        if (stored.len() as u64) < bytes {
            return Err(damaged(foreign("the file ends before its images do")));
        }
        let image = image(&stored, page.row).map_err(damaged)?;
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

/// Bytes of the page index of the images of a row group: some 20 a page, and a page holds a row or more.
const PAGE_INDEX_BYTES_MAX: u64 = 1 << 20;

fn page_index_range(index: &Index, row_group: usize) -> Result<Range<u64>, ShardError> {
    let column = image_column(index.metadata().row_group(row_group))?;
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
    let (first, all) = image_column(index.metadata().row_group(row_group))?.byte_range();
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
