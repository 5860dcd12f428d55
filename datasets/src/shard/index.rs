//! Where the rows of a shard lie, and how they come back from a range of its bytes.

use std::io::{Read, Write};
use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, Int32Array, RecordBatch};
use arrow_schema::Field;
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use thiserror::Error;

use super::images::images;
use super::write::schema;
use super::{FOOTER_KEY, Footer, ROWS_PER_GROUP, ShardError, StoredRow, checksum, foreign};
use crate::columns::{
    ColumnBounds, FilePart, METADATA_BYTES_MAX, TAIL_BYTES, Writer, check_pages, end_bytes, guarded, metadata,
};
use crate::escape::{escape_text, one_line};
use crate::sample::{Label, SampleId};
use crate::store::{Store, StoreError};

/// Why the rows of a stored shard cannot be told.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The shard is damaged, in one line that names it.
    #[error("{0}")]
    Damaged(String),
}

impl ReadError {
    pub(super) fn damaged(store: &Store, key: &str, error: &dyn std::error::Error) -> ReadError {
        let mut line = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            line = format!("{line}: {error}");
            cause = error.source();
        }
        ReadError::Damaged(format!("{}/{key}: {}", store.location(), one_line(&line)))
    }
}

/// Reads the index of a shard of `bytes` bytes: its end, and nothing of its images.
///
/// # Errors
/// When the store fails or the shard is damaged.
pub async fn read_index(store: &Store, key: &str, bytes: u64) -> Result<Index, ReadError> {
    let end = read_end(store, key, bytes).await?;
    Index::parse(&end, bytes).map_err(|error| ReadError::damaged(store, key, &error))
}

/// Reads the end of a shard of `bytes` bytes, which holds its index.
///
/// # Errors
/// When the store fails or the file ends as no shard does.
pub async fn read_end(store: &Store, key: &str, bytes: u64) -> Result<Bytes, ReadError> {
    let damaged = |error: ShardError| ReadError::damaged(store, key, &error);
    if bytes < TAIL_BYTES {
        return Err(ReadError::Damaged(format!("{}/{key}: {bytes} bytes are no shard", store.location())));
    }
    let tail = store.get_range(key, bytes - TAIL_BYTES..bytes).await?;
    let end = end_bytes(&tail).map_err(|error| damaged(error.into()))?.min(bytes);
    Ok(store.get_range(key, bytes - end..bytes).await?)
}

/// The index of a shard as its manifest has it: the end of the file, packed (zlib) and written in base64.
///
/// # Panics
/// When this is not the end of a shard, with all of its metadata.
pub fn packed_index(file_end: &[u8]) -> String {
    let tail = &file_end[file_end.len() - TAIL_BYTES as usize..];
    let end = end_bytes(tail).expect("the end of a Parquet file") as usize;
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(&file_end[file_end.len() - end..]).expect("memory takes bytes");
    BASE64_STANDARD.encode(packer.finish().expect("memory takes bytes"))
}

/// Id, copy and label of every row of a shard; no image is read.
///
/// # Errors
/// When the store fails or the shard is damaged.
pub async fn read_identities(
    store: &Store,
    key: &str,
    index: &Index,
) -> Result<Vec<(SampleId, u32, Label)>, ReadError> {
    let mut identities = Vec::new();
    for row_group in 0..index.metadata().num_row_groups() {
        let bytes = store.get_range(key, index.identity_range(row_group)).await?;
        let found = index.identities(row_group, bytes);
        identities.extend(found.map_err(|error| ReadError::damaged(store, key, &error))?);
    }
    Ok(identities)
}

/// The end of a shard file, read once: where its row groups lie and what its footer says.
#[derive(Clone, Debug)]
pub struct Index {
    pub(super) reader: ArrowReaderMetadata,
    footer: Footer,
    classes: Vec<String>,
    bytes: u64,
}

/// Bytes of the values of a column beside the images, unpacked. Ids are paths, of which a hundred with every letter
/// escaped take less.
const VALUES_BYTES_MAX: usize = 8 << 20;

/// What the columns of a shard beside the images may hold.
pub(super) const BOUNDS: ColumnBounds = ColumnBounds {
    values_per_row: 1,
    bytes_max: Some(VALUES_BYTES_MAX),
    values_at_once: usize::MAX,
    writer: Writer::Forebay,
};

impl Index {
    /// Reads the index from the last [`end_bytes`] bytes of a file of `bytes` bytes.
    ///
    /// # Errors
    /// [`ShardError`] when the file is damaged or was not written by Forebay.
    pub fn parse(end: &Bytes, bytes: u64) -> Result<Index, ShardError> {
        guarded(|| Index::parse_unguarded(end, bytes))
    }

    /// Reads the index of a shard of `bytes` bytes as [`packed_index`] wrote it.
    ///
    /// # Errors
    /// [`ShardError`] when it is damaged.
    pub fn unpack(packed: &str, bytes: u64) -> Result<Index, ShardError> {
        let damaged = || ShardError::Foreign("its index cannot be unpacked".to_string());
        let packed = BASE64_STANDARD.decode(packed).map_err(|_| damaged())?;
        let mut end = Vec::new();
        let unpacker = flate2::read::ZlibDecoder::new(&packed[..]);
        unpacker.take(METADATA_BYTES_MAX + TAIL_BYTES).read_to_end(&mut end).map_err(|_| damaged())?;
        let tail = end.len().checked_sub(TAIL_BYTES as usize).ok_or_else(damaged)?;
        match end_bytes(&end[tail..])? == end.len() as u64 {
            true => Index::parse(&end.into(), bytes),
            false => Err(damaged()),
        }
    }

    fn parse_unguarded(end: &Bytes, bytes: u64) -> Result<Index, ShardError> {
        let metadata = metadata(&end[..end.len().saturating_sub(TAIL_BYTES as usize)], bytes)?;
        let key = |name: &str| {
            let pairs = metadata.file_metadata().key_value_metadata()?;
            pairs.iter().find(|pair| pair.key == name)?.value.clone()
        };
        let json = key(FOOTER_KEY)
            .ok_or_else(|| ShardError::Foreign(format!("its footer has no key `{FOOTER_KEY}`")))?;
        let footer: Footer = serde_json::from_str(&json).map_err(|error| {
            let error = error.to_string();
            ShardError::Foreign(format!("the key `{FOOTER_KEY}` of its footer: {}", one_line(&error)))
        })?;
        let huggingface: serde_json::Value =
            key("huggingface").and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default();
        let names = huggingface["info"]["features"]["label"]["names"].as_array();
        let classes =
            names.into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_string())).collect();
        if !agree(&footer, metadata.row_groups()) {
            return Err(ShardError::Foreign("its footer and its row groups disagree".to_string()));
        }
        let reader = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new())?;
        let ours = schema(&[], &[]);
        // What is kept of the source follows.
        if !reader.schema().fields().starts_with(ours.fields()) {
            let is_missing =
                |field: &&Arc<Field>| !reader.schema().fields().iter().any(|found| found == *field);
            let name =
                ours.fields().iter().find(is_missing).map_or("of another program", |field| field.name());
            return Err(odd(name));
        }
        Ok(Index { reader, footer, classes, bytes })
    }

    /// The index of a whole file.
    ///
    /// # Errors
    /// As [`Index::parse`].
    pub fn of_file(file: &Bytes) -> Result<Index, ShardError> {
        let tail = &file[file.len().saturating_sub(TAIL_BYTES as usize)..];
        let end = end_bytes(tail)?.min(file.len() as u64) as usize;
        Index::parse(&file.slice(file.len() - end..), file.len() as u64)
    }

    /// What the shard knows beyond its rows.
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// The names of the classes.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The Parquet metadata, for those who look closer.
    pub fn metadata(&self) -> &ParquetMetaData {
        self.reader.metadata()
    }

    /// Where the rows of planned group `group` lie in the file; empty for a group without a survivor.
    pub fn group_range(&self, group: usize) -> Range<u64> {
        self.row_groups_range(self.row_groups_of(group))
    }

    /// The bytes of the largest row group.
    pub fn largest_row_group(&self) -> u64 {
        let row_groups = 0..self.metadata().num_row_groups();
        let bytes = |row_group: usize| self.row_groups_range(row_group..row_group + 1);
        row_groups.map(bytes).map(|range| range.end - range.start).max().unwrap_or(0)
    }

    pub(super) fn row_groups_of(&self, group: usize) -> Range<usize> {
        let first = self.footer.row_groups[..group].iter().sum();
        first..first + self.footer.row_groups[group]
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.bytes
    }

    fn row_groups_range(&self, row_groups: Range<usize>) -> Range<u64> {
        let columns = || row_groups.clone().flat_map(|group| self.metadata().row_group(group).columns());
        let start = columns().map(|column| column.byte_range().0).min().unwrap_or(0);
        let end = columns().map(|column| column.byte_range().0 + column.byte_range().1).max().unwrap_or(0);
        start..end
    }

    /// The rows of planned group `group`, from the bytes of [`Index::group_range`]. The images are parts of these bytes:
    /// nothing of them is copied.
    ///
    /// # Errors
    /// [`ShardError`] when the bytes are damaged.
    pub fn rows(&self, group: usize, bytes: Bytes) -> Result<Vec<StoredRow>, ShardError> {
        guarded(|| self.rows_unguarded(group, bytes))
    }

    fn rows_unguarded(&self, group: usize, bytes: Bytes) -> Result<Vec<StoredRow>, ShardError> {
        let part = FilePart { start: self.group_range(group).start, bytes, file_bytes: self.bytes };
        let mut rows = Vec::with_capacity(self.footer.groups[group]);
        for row_group in self.row_groups_of(group) {
            let images = images(self.metadata().row_group(row_group), &part)?;
            let identities = self.identities_of(row_group, part.clone())?;
            if images.len() != identities.len() {
                return Err(foreign("its columns have different numbers of rows"));
            }
            let row = |(bytes, (id, copy, label))| StoredRow { bytes, label, id, copy };
            rows.extend(images.into_iter().zip(identities).map(row));
        }
        if rows.len() != self.footer.groups[group] {
            return Err(foreign("a planned group has other rows than the footer says"));
        }
        for (place, row) in rows.iter().enumerate() {
            self.check_sum(group, place, checksum(&row.bytes, &row.id, row.copy, row.label), &row.id)?;
        }
        Ok(rows)
    }

    /// Refuses a row that is not the one that was written. Shards from before there were checksums of rows have none.
    ///
    /// # Errors
    /// [`ShardError::Damaged`] with the id of the row as it is read.
    pub(super) fn check_sum(&self, group: usize, row: usize, sum: u32, id: &str) -> Result<(), ShardError> {
        let Some(written) = self.footer.row_crc32c.get(group) else { return Ok(()) };
        match written.0.get(row) == Some(&sum) {
            true => Ok(()),
            false => {
                let id = escape_text(id);
                Err(ShardError::Damaged(format!("row {row} of group {group} is not what was written: {id}")))
            }
        }
    }

    /// Where the columns other than the images lie in row group `row_group`: they follow the images.
    pub fn identity_range(&self, row_group: usize) -> Range<u64> {
        let columns = self.metadata().row_group(row_group).columns();
        let named = |column: &&ColumnChunkMetaData| column.column_path().parts()[0] != "image";
        let ranges = || columns.iter().filter(named).map(ColumnChunkMetaData::byte_range);
        let start = ranges().map(|(start, _)| start).min().unwrap_or(0);
        start..ranges().map(|(start, length)| start + length).max().unwrap_or(start)
    }

    /// Id, copy and label of every row of row group `row_group`, from the bytes of [`Index::identity_range`].
    ///
    /// # Errors
    /// [`ShardError`] when the bytes are damaged.
    pub fn identities(
        &self,
        row_group: usize,
        bytes: Bytes,
    ) -> Result<Vec<(SampleId, u32, Label)>, ShardError> {
        let start = self.identity_range(row_group).start;
        guarded(|| self.identities_of(row_group, FilePart { start, bytes, file_bytes: self.bytes }))
    }

    fn identities_of(
        &self,
        row_group: usize,
        part: FilePart,
    ) -> Result<Vec<(SampleId, u32, Label)>, ShardError> {
        let is_read = |column: &ColumnChunkMetaData| {
            ["id", "copy", "label"].contains(&&*column.column_path().parts()[0])
        };
        check_pages(self.metadata().row_group(row_group), &Arc::new(part.clone()), |column| {
            is_read(column).then_some(BOUNDS)
        })?;
        let schema = self.reader.parquet_schema();
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(part, self.reader.clone())
            .with_row_groups(vec![row_group])
            .with_projection(ProjectionMask::columns(schema, ["id", "copy", "label"]))
            .build()?;
        let mut identities = Vec::new();
        for batch in reader {
            let batch = batch?;
            if batch.columns().iter().any(|column| column.null_count() > 0) {
                return Err(foreign("a row lacks a value"));
            }
            let ids = column(&batch, "id")?.as_string_opt::<i32>().ok_or_else(|| odd("id"))?;
            let copies = int32_column(&batch, "copy")?;
            let labels =
                column(&batch, "label")?.as_primitive_opt::<Int64Type>().ok_or_else(|| odd("label"))?;
            for row in 0..batch.num_rows() {
                let (copy, label) = (whole("copy", copies.value(row))?, whole("label", labels.value(row))?);
                identities.push((ids.value(row).into(), copy, label));
            }
        }
        Ok(identities)
    }
}

/// Whether a footer tells of these row groups, and of no others: everything that is summed and sliced later on.
fn agree(footer: &Footer, row_groups: &[RowGroupMetaData]) -> bool {
    let Footer { groups, row_groups: counts, holes, row_crc32c, .. } = footer;
    let mut rest = row_groups;
    let mut has_rows = |(rows, count): (&usize, &usize)| {
        let Some((these, after)) = rest.split_at_checked(*count) else { return false };
        rest = after;
        let sum = these.iter().try_fold(0, |sum: usize, group| {
            let rows = usize::try_from(group.num_rows()).ok()?;
            let agrees = group.columns().iter().all(|column| column.num_values() == group.num_rows());
            (agrees && rows > 0).then(|| sum.checked_add(rows)).flatten()
        });
        *rows <= ROWS_PER_GROUP && sum == Some(*rows)
    };
    let sums_agree = std::iter::zip(groups, row_crc32c).all(|(rows, sums)| sums.0.len() == *rows);
    groups.len() == counts.len()
        && std::iter::zip(groups, counts).all(&mut has_rows)
        && rest.is_empty()
        && (row_crc32c.is_empty() || row_crc32c.len() == groups.len())
        && sums_agree
        && holes.is_sorted_by(|a, b| a < b)
}

fn odd(name: &str) -> ShardError {
    ShardError::Foreign(format!("its column `{name}` is missing or of another type"))
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, ShardError> {
    batch.column_by_name(name).ok_or_else(|| odd(name))
}

fn int32_column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a Int32Array, ShardError> {
    column(batch, name)?.as_primitive_opt::<Int32Type>().ok_or_else(|| odd(name))
}

/// A number of a column that is none below 0, nor larger than its place.
fn whole(name: &str, value: impl TryInto<u32>) -> Result<u32, ShardError> {
    value
        .try_into()
        .map_err(|_| ShardError::Foreign(format!("its column `{name}` holds what is out of range")))
}
