//! Parquet files of others: what one says of itself is checked before the Parquet crate believes it, so that a file of a
//! few bytes takes no gigabytes.

mod others;
mod pages;
mod part;
mod thrift;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, FooterTail, ParquetMetaData, ParquetMetaDataReader};

use crate::escape::one_line;
use crate::panics;
pub use others::Value;
pub(crate) use others::{ByteStrings, OthersColumn, OthersFile, OthersFileError, byte_range};
pub(crate) use pages::PLAIN;
pub use pages::{ColumnBounds, Writer, check_pages};
pub use part::FilePart;
pub(crate) use thrift::{PageHeader, PageKind, check as check_structure};

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum Unsound {
    /// What it says of itself cannot be.
    #[error("{0}")]
    Odd(String),
    /// Parquet refused it.
    #[error("cannot read it as Parquet")]
    Parquet(#[from] ParquetError),
}

/// How many bytes at the end of a file tell the length of its metadata.
pub const TAIL_BYTES: u64 = 8;

/// Bytes of the metadata of a file. A row of a shard takes some 20, a row group 2,000.
pub(crate) const METADATA_BYTES_MAX: u64 = 256 << 20;

/// How many bytes at the end of a file hold its metadata and the tail itself, as its last [`TAIL_BYTES`] say.
///
/// # Errors
/// [`Unsound::Odd`] when this is not the end of a Parquet file.
pub fn end_bytes(tail: &[u8]) -> Result<u64, Unsound> {
    let foreign = || Unsound::Odd("it does not end as a Parquet file does".to_string());
    let tail: [u8; 8] = tail.try_into().map_err(|_| foreign())?;
    let footer = FooterTail::try_new(&tail).map_err(|_| foreign())?;
    let bytes = footer.metadata_length() as u64;
    if bytes > METADATA_BYTES_MAX {
        return Err(Unsound::Odd(format!("it says {bytes} bytes about itself, which no such file does")));
    }
    Ok(bytes + TAIL_BYTES)
}

/// The metadata of a file of `bytes` bytes, from what stands before its tail.
///
/// # Errors
/// [`Unsound`] when it is damaged, or tells of columns that do not lie in the file.
pub fn metadata(before_tail: &[u8], bytes: u64) -> Result<ParquetMetaData, Unsound> {
    thrift::check(before_tail)?;
    let metadata = guarded(|| Ok::<_, Unsound>(ParquetMetaDataReader::decode_metadata(before_tail)?))?;
    let mut columns = metadata.row_groups().iter().flat_map(|group| group.columns());
    if !columns.all(|column| is_inside(column, bytes)) {
        return Err(Unsound::Odd("its row groups lie outside the file".to_string()));
    }
    Ok(metadata)
}

/// The metadata of a whole file.
///
/// # Errors
/// As [`end_bytes`] and [`metadata`].
pub fn metadata_of_file(file: &Bytes) -> Result<ParquetMetaData, Unsound> {
    let length = file.len();
    let end = end_bytes(&file[length.saturating_sub(TAIL_BYTES as usize)..])?.min(length as u64) as usize;
    metadata(&file[length - end..length - TAIL_BYTES as usize], length as u64)
}

/// Whether a column lies inside a file of `bytes` bytes; Parquet's own arithmetic panics where it does not.
fn is_inside(column: &ColumnChunkMetaData, bytes: u64) -> bool {
    let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
    let end = start.checked_add(column.compressed_size());
    start >= 0 && column.compressed_size() >= 0 && end.is_some_and(|end| end as u64 <= bytes)
}

/// Runs what reads with the Parquet crate.
///
/// # Errors
/// Those of `read`, and [`Unsound::Odd`] for a panic of the crate.
pub fn guarded<T, E: From<Unsound>>(read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    panics::guard(read).unwrap_or_else(|message| {
        Err(Unsound::Odd(format!("the Parquet reader panicked: {}", one_line(&message))).into())
    })
}
