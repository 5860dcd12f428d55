//! A part of a file that was read, as the Parquet crate reads from it.

use bytes::{Buf, Bytes, buf::Reader};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

/// A part of a file, addressed as the file is.
#[derive(Clone, Debug)]
pub struct FilePart {
    /// Where it begins in the file.
    pub start: u64,
    /// What was read.
    pub bytes: Bytes,
    /// Bytes of the whole file.
    pub file_bytes: u64,
}

impl FilePart {
    /// All of a file.
    pub fn whole(file: Bytes) -> FilePart {
        FilePart { start: 0, file_bytes: file.len() as u64, bytes: file }
    }

    /// So many bytes from a place of the file on.
    pub(crate) fn slice(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let outside = || ParquetError::EOF(format!("bytes {start}+{length} lie outside what was read"));
        let first = start.checked_sub(self.start).ok_or_else(outside)? as usize;
        let last = first.checked_add(length).filter(|&last| last <= self.bytes.len()).ok_or_else(outside)?;
        Ok(self.bytes.slice(first..last))
    }
}

impl Length for FilePart {
    fn len(&self) -> u64 {
        self.file_bytes
    }
}

impl ChunkReader for FilePart {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let end = self.start + self.bytes.len() as u64;
        Ok(self.get_bytes(start, end.saturating_sub(start) as usize)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.slice(start, length)
    }
}
