//! Parquet files of other programs: what they are made of by their footer alone, and single columns of single row groups.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, Field, TimeUnit};
use bytes::Bytes;
use futures::FutureExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Compression;
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};

use super::{
    ColumnBounds, FilePart, PLAIN, PageHeader, PageKind, TAIL_BYTES, Unsound, Writer, check_pages, end_bytes,
    guarded, metadata,
};
use crate::escape::one_line;
use crate::store::{ByteWindow, ObjectName, Store, StoreError};

/// The end of a file that is read at once: the metadata of most files is smaller, and needs no second request.
const END_BYTES: u64 = 64 << 10;

/// Values that are unpacked at a time.
const ROWS_AT_ONCE: usize = 64;

/// Bytes of a column of labels or names in a row group, unpacked.
const VALUES_BYTES_MAX: usize = 256 << 20;

/// Why a file of another program cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OthersFileError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file is damaged or of a kind that is not read, in one line without its name.
    #[error("{0}")]
    Odd(String),
}

impl From<Unsound> for OthersFileError {
    fn from(error: Unsound) -> OthersFileError {
        OthersFileError::Odd(match error {
            Unsound::Odd(what) => what,
            Unsound::Parquet(error) => one_line(&format!("cannot read it as Parquet: {error}")).into_owned(),
        })
    }
}

impl From<parquet::errors::ParquetError> for OthersFileError {
    fn from(error: parquet::errors::ParquetError) -> OthersFileError {
        Unsound::Parquet(error).into()
    }
}

impl From<arrow_schema::ArrowError> for OthersFileError {
    fn from(error: arrow_schema::ArrowError) -> OthersFileError {
        OthersFileError::Odd(one_line(&format!("cannot form its columns: {error}")).into_owned())
    }
}

/// One value of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// None.
    Null,
    /// A text.
    Text(Arc<str>),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction, as far as its type goes.
    Number(f64),
    /// Several values, or bytes: nothing that can be a class or a name.
    Other,
}

/// A file of another program, by its footer.
#[derive(Clone, Debug)]
pub(crate) struct OthersFile {
    pub(crate) object: ObjectName,
    pub(crate) bytes: u64,
    reader: ArrowReaderMetadata,
}

impl OthersFile {
    /// Reads the footer of a file of `bytes` bytes.
    ///
    /// # Errors
    /// When the store fails, or the file is damaged or no Parquet.
    pub(crate) async fn open(
        store: &Store,
        object: &ObjectName,
        bytes: u64,
    ) -> Result<OthersFile, OthersFileError> {
        let odd = |what: &str| OthersFileError::Odd(what.to_string());
        if bytes < TAIL_BYTES {
            return Err(odd("it does not end as a Parquet file does"));
        }
        let mut end = store.read_exactly(object, bytes - END_BYTES.min(bytes)..bytes).await?;
        let needed = end_bytes(&end[end.len() - TAIL_BYTES as usize..])?;
        if needed > bytes {
            return Err(odd("it does not end as a Parquet file does"));
        }
        if needed > end.len() as u64 {
            end = store.read_exactly(object, bytes - needed..bytes).await?;
        }
        let footer = end.slice(end.len() - needed as usize..end.len() - TAIL_BYTES as usize);
        let reader = guarded(|| {
            let metadata = metadata(&footer, bytes)?;
            Ok::<_, OthersFileError>(ArrowReaderMetadata::try_new(
                Arc::new(metadata),
                ArrowReaderOptions::new(),
            )?)
        })?;
        Ok(OthersFile { object: object.clone(), bytes, reader })
    }

    /// The value of a key of the file's metadata; the schema's own first.
    pub(crate) fn key(&self, name: &str) -> Option<&str> {
        let of_schema = self.reader.schema().metadata().get(name).map(String::as_str);
        let pairs = self.reader.metadata().file_metadata().key_value_metadata();
        let of_file = || pairs?.iter().find(|pair| pair.key == name)?.value.as_deref();
        of_schema.or_else(of_file)
    }

    /// The columns at the top.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &Field> {
        self.reader.schema().fields().iter().map(|field| &**field)
    }

    /// The row groups.
    pub(crate) fn row_groups(&self) -> &[RowGroupMetaData] {
        self.reader.metadata().row_groups()
    }

    /// The place of a column that holds values, by its path.
    pub(crate) fn leaf(&self, path: &[&str]) -> Option<usize> {
        let columns = self.reader.parquet_schema().columns();
        columns.iter().position(|column| column.path().parts() == path)
    }

    /// The values of column `leaf` in a row group.
    ///
    /// # Errors
    /// When the store fails or the column is damaged.
    pub(crate) async fn values(
        &self,
        store: &Store,
        row_group: usize,
        leaf: usize,
    ) -> Result<Vec<Value>, OthersFileError> {
        let range = byte_range(self.row_groups()[row_group].column(leaf));
        let bytes = store.read_exactly(&self.object, range.clone()).await?;
        let part = FilePart { start: range.start, bytes, file_bytes: self.bytes };
        let rows = self.row_groups()[row_group].num_rows() as usize;
        let mut values = Vec::new();
        let bounded = self.column(row_group, leaf).decode(part, VALUES_BYTES_MAX, &mut |array| {
            values.extend(values_of(array));
            Ok(())
        });
        bounded?;
        match values.len() == rows {
            true => Ok(values),
            false => Err(OthersFileError::Odd(format!(
                "a column has {} values where its row group has {rows} rows",
                values.len()
            ))),
        }
    }

    /// One column of a row group, to be decoded later.
    pub(crate) fn column(&self, row_group: usize, leaf: usize) -> OthersColumn {
        OthersColumn { reader: self.reader.clone(), file_bytes: self.bytes, row_group, leaf }
    }
}

/// Where a column of a row group lies.
pub(crate) fn byte_range(column: &ColumnChunkMetaData) -> Range<u64> {
    let (start, length) = column.byte_range();
    start..start + length
}

/// One column of a row group.
#[derive(Clone, Debug)]
pub(crate) struct OthersColumn {
    reader: ArrowReaderMetadata,
    file_bytes: u64,
    row_group: usize,
    leaf: usize,
}

/// Texts or byte strings of a column.
#[derive(Debug)]
pub(crate) struct ByteStrings {
    /// What holds them.
    pub(crate) bytes: Bytes,
    /// Where each lies in it.
    pub(crate) rows: Vec<Option<Range<usize>>>,
}

impl OthersColumn {
    fn metadata(&self) -> &RowGroupMetaData {
        self.reader.metadata().row_group(self.row_group)
    }

    /// The byte strings of a column, from its bytes in the file.
    ///
    /// # Errors
    /// When they are damaged, or become more than `bytes_max`.
    pub(crate) fn byte_strings(
        &self,
        bytes: Bytes,
        bytes_max: usize,
    ) -> Result<ByteStrings, OthersFileError> {
        let range = byte_range(self.metadata().column(self.leaf));
        let mut window = ByteWindow::held(range.start, bytes.clone());
        let places = self.places(&mut window).now_or_never().expect("what is held is not waited for");
        if let Some(places) = places? {
            let inside =
                |place: Range<u64>| (place.start - range.start) as usize..(place.end - range.start) as usize;
            let rows = places.into_iter().map(|place| place.map(inside)).collect();
            return Ok(ByteStrings { bytes, rows });
        }
        let part = FilePart { start: range.start, bytes, file_bytes: self.file_bytes };
        let (mut unpacked, mut rows) = (Vec::new(), Vec::new());
        self.decode(part, bytes_max, &mut |array| {
            for row in 0..array.len() {
                let value = bytes_at(array, row)?;
                rows.push(value.map(|value| {
                    let start = unpacked.len();
                    unpacked.extend_from_slice(value);
                    start..unpacked.len()
                }));
            }
            if unpacked.len() > bytes_max {
                return Err(OthersFileError::Odd(format!("a row group becomes more than {bytes_max} bytes")));
            }
            Ok(())
        })?;
        Ok(ByteStrings { bytes: unpacked.into(), rows })
    }

    /// Where the values lie in the file, found by their lengths alone; `None` where they do not lie there as they are: one
    /// is missing, something is packed, or a page is not PLAIN.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn places(
        &self,
        window: &mut ByteWindow<'_>,
    ) -> Result<Option<Vec<Option<Range<u64>>>>, StoreError> {
        /// The header of a page and the levels of its values, which are a few bytes where all are the same.
        const HEAD_BYTES: u64 = 256;
        let column = self.metadata().column(self.leaf);
        let levels = column.column_descr();
        if column.compression() != Compression::UNCOMPRESSED || levels.max_rep_level() > 0 {
            return Ok(None);
        }
        let Range { start, end } = byte_range(column);
        let mut rows = Vec::new();
        let mut at = start;
        while at < end {
            let head = window.at(at, HEAD_BYTES.min(end - at)).await?;
            let Some(header) = PageHeader::read(&head) else { return Ok(None) };
            if (header.kind, header.encoding) != (PageKind::Data, PLAIN) {
                return Ok(None);
            }
            let page = at + header.header_bytes as u64;
            let page_end = page + header.bytes as u64;
            if page_end > end {
                return Ok(None);
            }
            let mut value = page;
            if levels.max_def_level() > 0 {
                let of_levels = head.slice(header.header_bytes..);
                let Some((length, rest)) = of_levels.split_first_chunk::<4>() else { return Ok(None) };
                let length = u32::from_le_bytes(*length);
                let most = levels.max_def_level() as u64;
                match rest.get(..length as usize) {
                    Some(levels) if is_all(levels, header.values, most) => value += 4 + u64::from(length),
                    _ => return Ok(None),
                }
            }
            for _ in 0..header.values {
                if page_end - value < 4 {
                    return Ok(None);
                }
                let length = window.at(value, 4).await?;
                let Ok(length) = <[u8; 4]>::try_from(&length[..]) else { return Ok(None) };
                let first = value + 4;
                value = first + u64::from(u32::from_le_bytes(length));
                if value > page_end {
                    return Ok(None);
                }
                rows.push(Some(first..value));
            }
            at = page_end;
        }
        Ok((rows.len() as i64 == self.metadata().num_rows()).then_some(rows))
    }

    /// Decodes the column batch by batch: `each` gets an array of its values.
    fn decode(
        &self,
        part: FilePart,
        bytes_max: usize,
        each: &mut dyn FnMut(&ArrayRef) -> Result<(), OthersFileError>,
    ) -> Result<(), OthersFileError> {
        let row_group = self.metadata();
        let path = row_group.column(self.leaf).column_path().clone();
        guarded(|| {
            check_pages(row_group, &Arc::new(part.clone()), |column| {
                (*column.column_path() == path).then_some(ColumnBounds {
                    values_per_row: 1,
                    bytes_max: Some(bytes_max),
                    values_at_once: ROWS_AT_ONCE,
                    writer: Writer::Anybody,
                })
            })?;
            let mask = ProjectionMask::leaves(self.reader.parquet_schema(), [self.leaf]);
            let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(part, self.reader.clone())
                .with_row_groups(vec![self.row_group])
                .with_projection(mask)
                .with_batch_size(ROWS_AT_ONCE)
                .build()?;
            for batch in batches {
                let batch = batch?;
                let mut array = batch.column(0).clone();
                // A field of a structure: what is missing above is missing below.
                while let Some(outer) = array.as_struct_opt() {
                    let inner = outer.column(0).clone();
                    array = match outer.nulls() {
                        None => inner,
                        Some(nulls) => {
                            let nulls = arrow_buffer::NullBuffer::union(Some(nulls), inner.nulls());
                            let data = inner.to_data().into_builder().nulls(nulls).build()?;
                            arrow_array::make_array(data)
                        }
                    };
                }
                each(&array)?;
            }
            Ok(())
        })
    }
}

/// Whether so many levels are all `level`, in Parquet's hybrid of runs and packed bits.
fn is_all(mut bytes: &[u8], values: usize, level: u64) -> bool {
    let width = (u64::BITS - level.leading_zeros()) as usize;
    let mut left = values;
    while left > 0 {
        let mut header = 0_usize;
        for shift in (0..35).step_by(7) {
            let Some((byte, rest)) = bytes.split_first() else { return false };
            bytes = rest;
            header |= usize::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                break;
            }
        }
        if header & 1 == 0 {
            // A run: as many of one value.
            let Some((value, rest)) = bytes.split_first() else { return false };
            if u64::from(*value) != level || header == 0 {
                return false;
            }
            (bytes, left) = (rest, left.saturating_sub(header >> 1));
        } else {
            // Eight values in as many bytes as one has bits.
            let n = (header >> 1).saturating_mul(8);
            let Some((packed, rest)) = bytes.split_at_checked((header >> 1).saturating_mul(width)) else {
                return false;
            };
            let bit = |at: usize| u64::from(packed[at / 8] >> (at % 8) & 1);
            let is_level = |at: usize| (0..width).map(|i| bit(at * width + i) << i).sum::<u64>() == level;
            if n == 0 || !(0..n.min(left)).all(is_level) {
                return false;
            }
            (bytes, left) = (rest, left.saturating_sub(n));
        }
    }
    true
}

/// The text or byte string in a row.
fn bytes_at(array: &ArrayRef, row: usize) -> Result<Option<&[u8]>, OthersFileError> {
    if array.is_null(row) {
        return Ok(None);
    }
    let value = match array.data_type() {
        DataType::Binary => array.as_binary::<i32>().value(row),
        DataType::LargeBinary => array.as_binary::<i64>().value(row),
        DataType::BinaryView => array.as_binary_view().value(row),
        DataType::Utf8 => array.as_string::<i32>().value(row).as_bytes(),
        other => {
            return Err(OthersFileError::Odd(format!(
                "a column of {other} where encoded images were looked for"
            )));
        }
    };
    Ok(Some(value))
}

/// The values of an array.
fn values_of(array: &ArrayRef) -> impl Iterator<Item = Value> + '_ {
    let text = |text: &str| Value::Text(text.into());
    (0..array.len()).map(move |row| {
        if array.is_null(row) {
            return Value::Null;
        }
        macro_rules! integer {
            ($type:ty) => {
                match i64::try_from(array.as_primitive::<$type>().value(row)) {
                    Ok(number) => Value::Integer(number),
                    Err(_) => text(&array.as_primitive::<$type>().value(row).to_string()),
                }
            };
        }
        macro_rules! time {
            ($type:ty) => {
                match array.as_primitive::<$type>().value_as_datetime(row) {
                    Some(time) => text(&time.to_string()),
                    None => Value::Other,
                }
            };
        }
        match array.data_type() {
            DataType::Utf8 => text(array.as_string::<i32>().value(row)),
            DataType::LargeUtf8 => text(array.as_string::<i64>().value(row)),
            DataType::Utf8View => text(array.as_string_view().value(row)),
            DataType::Boolean => text(if array.as_boolean().value(row) { "true" } else { "false" }),
            DataType::Int8 => integer!(Int8Type),
            DataType::Int16 => integer!(Int16Type),
            DataType::Int32 => integer!(Int32Type),
            DataType::Int64 => integer!(Int64Type),
            DataType::UInt8 => integer!(UInt8Type),
            DataType::UInt16 => integer!(UInt16Type),
            DataType::UInt32 => integer!(UInt32Type),
            DataType::UInt64 => integer!(UInt64Type),
            DataType::Float16 => Value::Number(array.as_primitive::<Float16Type>().value(row).into()),
            DataType::Decimal128(..) => text(&array.as_primitive::<Decimal128Type>().value_as_string(row)),
            DataType::Date32 => match array.as_primitive::<Date32Type>().value_as_date(row) {
                Some(date) => text(&date.to_string()),
                None => Value::Other,
            },
            DataType::Timestamp(TimeUnit::Second, _) => time!(TimestampSecondType),
            DataType::Timestamp(TimeUnit::Millisecond, _) => time!(TimestampMillisecondType),
            DataType::Timestamp(TimeUnit::Microsecond, _) => time!(TimestampMicrosecondType),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => time!(TimestampNanosecondType),
            DataType::Null => Value::Null,
            DataType::Float32 => Value::Number(array.as_primitive::<Float32Type>().value(row).into()),
            DataType::Float64 => Value::Number(array.as_primitive::<Float64Type>().value(row)),
            DataType::Dictionary(..) => {
                let dictionary = array.as_any_dictionary();
                let key = dictionary.normalized_keys()[row];
                values_of(&dictionary.values().slice(key, 1)).next().unwrap_or(Value::Null)
            }
            _ => Value::Other,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_that_are_all_the_same_are_told_from_others() {
        // A run of 100 twos; 8 twos packed into two bytes; a run of 100 twos and then a one.
        assert!(is_all(&[200, 1, 2], 100, 2));
        assert!(is_all(&[3, 0b1010_1010, 0b1010_1010], 7, 2));
        assert!(!is_all(&[200, 1, 2, 2, 1], 101, 2));
        assert!(!is_all(&[3, 0b1010_1010, 0b1010_1000], 8, 2));
        for cut in 0..3 {
            assert!(!is_all(&[200, 1, 2][..cut], 100, 2));
        }
        assert!(!is_all(&[0, 2], 1, 2), "a run of none");
    }
}
