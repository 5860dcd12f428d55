//! The pages of a row group, looked at before they are unpacked: a page of a few bytes can say that it becomes a
//! gigabyte, and a dictionary of one long text can be named by every row.

use std::sync::Arc;

use parquet::basic::{Compression, Type};
use parquet::column::page::{Page, PageReader};
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::serialized_reader::SerializedPageReader;

use super::ShardError;
use super::part::FilePart;
use super::thrift::{PageHeader, PageKind};

/// Bytes of the values of a column beside the images, unpacked. Ids are paths, of which a hundred with every letter
/// escaped take less.
const VALUES_BYTES_MAX: usize = 8 << 20;

/// PLAIN: the values themselves.
pub(super) const PLAIN: i64 = 0;
/// Numbers of values of the dictionary, by their older and their newer name.
const OF_DICTIONARY: [i64; 2] = [2, 8];

fn odd(column: &ColumnChunkMetaData, what: &str) -> ShardError {
    ShardError::Foreign(format!("its column `{}` {what}", column.column_path().string()))
}

/// Refuses pages that no shard has, or that become more than [`VALUES_BYTES_MAX`]. `part` holds the columns that
/// `is_read`.
///
/// # Errors
/// [`ShardError::Foreign`] with the name of the column.
pub(super) fn check(
    row_group: &RowGroupMetaData,
    part: &Arc<FilePart>,
    is_read: impl Fn(&ColumnChunkMetaData) -> bool,
) -> Result<(), ShardError> {
    let rows = row_group.num_rows() as usize;
    for column in row_group.columns().iter().filter(|column| is_read(column)) {
        check_column(column, part, rows)?;
    }
    Ok(())
}

fn check_column(column: &ColumnChunkMetaData, part: &Arc<FilePart>, rows: usize) -> Result<(), ShardError> {
    let is_image = column.column_path().parts()[0] == "image";
    let is_packed = column.compression() != Compression::UNCOMPRESSED;
    if is_image && is_packed {
        return Err(odd(column, "is packed, and no shard packs images"));
    }
    let (start, length) = column.byte_range();
    let mut rest = part.slice(start, length as usize)?;
    let (mut values, mut unpacked, mut longest) = (0, 0, None);
    while !rest.is_empty() {
        let header =
            PageHeader::read(&rest).ok_or_else(|| odd(column, "has a page whose header is damaged"))?;
        let page = rest.slice(header.header_bytes..);
        if header.bytes > page.len() || (!is_packed && header.bytes != header.unpacked_bytes) {
            return Err(odd(column, "has a page of another length than it says"));
        }
        unpacked += header.unpacked_bytes;
        // Images are stored as they are, and take no more than the file does.
        if unpacked > VALUES_BYTES_MAX && !is_image {
            return Err(odd(
                column,
                &format!("takes more than {VALUES_BYTES_MAX} bytes once it is unpacked"),
            ));
        }
        if header.values > rows {
            return Err(odd(column, "has a page of more values than there are rows"));
        }
        match header.kind {
            PageKind::Dictionary if is_image || values > 0 || longest.is_some() => {
                return Err(odd(column, "has a dictionary where no shard has one"));
            }
            PageKind::Dictionary => {
                longest = Some(longest_value(column, part, rows)?);
            }
            PageKind::Data => {
                values += header.values;
                let is_known = header.encoding == PLAIN
                    || (longest.is_some() && OF_DICTIONARY.contains(&header.encoding));
                if !is_known {
                    return Err(odd(column, "has a page in an encoding that no shard has"));
                }
            }
        }
        rest = page.slice(header.bytes..);
    }
    if values != rows {
        return Err(odd(column, "has another number of values than there are rows"));
    }
    if longest.unwrap_or(0).saturating_mul(rows) > VALUES_BYTES_MAX {
        return Err(odd(column, &format!("takes more than {VALUES_BYTES_MAX} bytes once it is unpacked")));
    }
    Ok(())
}

/// The bytes of the longest value of the dictionary with which a column begins. What it becomes unpacked is known to be
/// within bounds.
fn longest_value(
    column: &ColumnChunkMetaData,
    part: &Arc<FilePart>,
    rows: usize,
) -> Result<usize, ShardError> {
    if column.column_type() != Type::BYTE_ARRAY {
        return Ok(size_of::<u64>());
    }
    let damaged = || odd(column, "has a dictionary that is damaged");
    let page = SerializedPageReader::new(part.clone(), column, rows, None)?.get_next_page()?;
    let Some(Page::DictionaryPage { buf, .. }) = page else { return Err(damaged()) };
    let (mut longest, mut rest) = (0, &buf[..]);
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        longest = longest.max(length);
        rest = after.get(length..).ok_or_else(damaged)?;
    }
    Ok(longest)
}
