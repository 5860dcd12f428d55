//! The pages of a row group, looked at before they are unpacked: a page of a few bytes can say that it becomes a
//! gigabyte, and a dictionary of one long text can be named by every row.

use std::sync::Arc;

use parquet::basic::{Compression, Type};
use parquet::column::page::{Page, PageReader};
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::serialized_reader::SerializedPageReader;

use super::Unsound;
use super::part::FilePart;
use super::thrift::{PageHeader, PageKind};

/// PLAIN: the values themselves.
pub(crate) const PLAIN: i64 = 0;
/// Numbers of values of the dictionary, by their older and their newer name.
const OF_DICTIONARY: [i64; 2] = [2, 8];
/// Encodings of other programs that make no more of a page than it says: RLE of booleans, DELTA_BINARY_PACKED of numbers,
/// DELTA_LENGTH_BYTE_ARRAY and BYTE_STREAM_SPLIT.
const OF_OTHERS: [i64; 4] = [3, 5, 6, 9];
/// DELTA_BYTE_ARRAY: a value may repeat all that the page held before it.
const REPEATING: i64 = 7;

/// Whose files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// Forebay wrote it, in the few ways in which it writes.
    Forebay,
    /// Anybody: pages of the second version and the usual encodings are read too.
    Anybody,
}

/// What a column may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnBounds {
    /// Values of each row.
    pub values_per_row: usize,
    /// Bytes of its values in a row group, unpacked; `None` for a column that is stored as it is, neither packed nor with a
    /// dictionary, and so takes no more than the file does.
    pub bytes_max: Option<usize>,
    /// Values that are unpacked from a dictionary at a time.
    pub values_at_once: usize,
    /// Whose file it is.
    pub writer: Writer,
}

fn odd(column: &ColumnChunkMetaData, what: &str) -> Unsound {
    Unsound::Odd(format!("its column `{}` {what}", column.column_path().string()))
}

/// Refuses pages that no file of ours has, or that become more than their bounds. `part` holds the columns that are read:
/// those with `bounds`. Returns the bytes that they take unpacked.
///
/// # Errors
/// [`Unsound`] with the name of the column.
pub fn check_pages(
    row_group: &RowGroupMetaData,
    part: &Arc<FilePart>,
    bounds: impl Fn(&ColumnChunkMetaData) -> Option<ColumnBounds>,
) -> Result<usize, Unsound> {
    let rows = usize::try_from(row_group.num_rows())
        .map_err(|_| Unsound::Odd("a row group has fewer rows than none".to_string()))?;
    let mut bytes: usize = 0;
    for column in row_group.columns() {
        if let Some(bounds) = bounds(column) {
            bytes = bytes.saturating_add(check_column(column, part, rows, bounds)?);
        }
    }
    Ok(bytes)
}

fn check_column(
    column: &ColumnChunkMetaData,
    part: &Arc<FilePart>,
    rows: usize,
    bounds: ColumnBounds,
) -> Result<usize, Unsound> {
    let is_packed = column.compression() != Compression::UNCOMPRESSED;
    let as_it_is = bounds.bytes_max.is_none();
    if as_it_is && is_packed {
        return Err(odd(column, "is packed, and none of ours is"));
    }
    let bytes_max = bounds.bytes_max.unwrap_or(usize::MAX);
    let too_large = || odd(column, &format!("takes more than {bytes_max} bytes once it is unpacked"));
    let all = rows.checked_mul(bounds.values_per_row).ok_or_else(too_large)?;
    let (start, length) = column.byte_range();
    let mut rest = part.slice(start, length as usize)?;
    let (mut values, mut unpacked, mut repeated, mut longest) = (0, 0, 0, None);
    while !rest.is_empty() {
        let header =
            PageHeader::read(&rest).ok_or_else(|| odd(column, "has a page whose header is damaged"))?;
        let page = rest.slice(header.header_bytes..);
        if header.bytes > page.len() || (!is_packed && header.bytes != header.unpacked_bytes) {
            return Err(odd(column, "has a page of another length than it says"));
        }
        unpacked += header.unpacked_bytes;
        if unpacked > bytes_max {
            return Err(too_large());
        }
        if header.values > all {
            return Err(odd(column, "has a page of more values than there are rows"));
        }
        match header.kind {
            PageKind::Dictionary if as_it_is || values > 0 || longest.is_some() => {
                return Err(odd(column, "has a dictionary where none of ours has one"));
            }
            PageKind::Dictionary => {
                longest = Some(longest_value(column, part, rows)?);
            }
            PageKind::DataV2 if bounds.writer == Writer::Forebay => {
                return Err(odd(column, "has a page whose header is damaged"));
            }
            PageKind::Data | PageKind::DataV2 => {
                values += header.values;
                let is_known = header.encoding == PLAIN
                    || (longest.is_some() && OF_DICTIONARY.contains(&header.encoding))
                    || (bounds.writer == Writer::Anybody && OF_OTHERS.contains(&header.encoding));
                let repeats = bounds.writer == Writer::Anybody && header.encoding == REPEATING;
                if repeats {
                    repeated = repeated.max(header.unpacked_bytes);
                }
                let is_known = is_known || repeats;
                if !is_known {
                    return Err(odd(column, "has a page in an encoding that none of ours has"));
                }
            }
        }
        rest = page.slice(header.bytes..);
    }
    if values != all {
        return Err(odd(column, "has another number of values than there are rows"));
    }
    let repeated = longest.unwrap_or(0).max(repeated).saturating_mul(all.min(bounds.values_at_once));
    match repeated > bytes_max {
        true => Err(too_large()),
        false => Ok(unpacked.max(repeated)),
    }
}

/// The bytes of the longest value of the dictionary with which a column begins. What it becomes unpacked is known to be
/// within bounds.
fn longest_value(column: &ColumnChunkMetaData, part: &Arc<FilePart>, rows: usize) -> Result<usize, Unsound> {
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
