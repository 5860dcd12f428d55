//! Rows to the bytes of one Parquet file.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, StructArray,
};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::{FOOTER_KEY, Footer, Row, RowSums, ShardError, checksum, value_columns};
use crate::catalog::{KeptColumn, KeptKind, Value, text_of};

/// A page of images is ended when it reaches this, so that larger images are pages of their own and can be read
/// alone. An entry in the page index and the page's header take about 60 bytes.
const PAGE_BYTES: usize = 1 << 14;

/// A row group is cut earlier when its images reach this: so much is held at once by who writes or reads it.
pub const ROW_GROUP_BYTES_MAX: usize = 32 << 20;

/// Rows are handed on to the encoder when their images reach this.
const ROWS_HELD_BYTES: usize = 1 << 20;

/// The Arrow schema of every shard, whatever its encoding: the `image` struct and `label` of Hugging Face, then
/// the columns that are ours, then those of the source that are `kept`. It carries the `huggingface` metadata.
pub fn schema(classes: &[String], kept: &[KeptColumn]) -> SchemaRef {
    let value = |name: &str, data_type| Field::new(name, data_type, true);
    let mut fields = vec![
        value("image", DataType::Struct(image_fields())),
        value("label", DataType::Int64),
        value("id", DataType::Utf8),
        value("copy", DataType::Int32),
        value("width", DataType::Int32),
        value("height", DataType::Int32),
        value("original_width", DataType::Int32),
        value("original_height", DataType::Int32),
        value("source", DataType::Utf8),
        value("source_blake3", DataType::Utf8),
    ];
    fields.extend(kept.iter().map(|column| {
        let data_type = match column.kind {
            KeptKind::String => DataType::Utf8,
            KeptKind::Int64 => DataType::Int64,
            KeptKind::Float64 => DataType::Float64,
        };
        value(&column.name, data_type)
    }));
    let metadata = HashMap::from([("huggingface".to_string(), huggingface_metadata(classes, kept))]);
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

pub(super) fn image_fields() -> Fields {
    Fields::from(vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)])
}

/// The value of the `huggingface` key, byte for byte as Python's `json.dumps` prints it: readers compare the
/// features, and people compare files.
pub fn huggingface_metadata(classes: &[String], kept: &[KeptColumn]) -> String {
    let names: Vec<String> = classes.iter().map(|name| ascii_json(name)).collect();
    let values: Vec<String> = value_columns(kept)
        .iter()
        .map(|(name, dtype)| format!(r#"{}: {{"dtype": "{dtype}", "_type": "Value"}}"#, ascii_json(name)))
        .collect();
    format!(
        r#"{{"info": {{"features": {{"image": {{"_type": "Image"}}, "label": {{"names": [{}], "_type": "ClassLabel"}}, {}}}}}}}"#,
        names.join(", "),
        values.join(", ")
    )
}

/// A JSON string in ASCII, with surrogate pairs for what lies beyond, as Python prints it.
pub fn ascii_json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    let mut out = String::with_capacity(quoted.len());
    for character in quoted.chars() {
        if character.is_ascii() && character != '\u{7f}' {
            out.push(character);
        } else if character == '\u{7f}' {
            out.push(character); // json.dumps leaves DEL as it is
        } else {
            let mut units = [0u16; 2];
            for unit in character.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

/// How the files of images are written: images as they are, in pages of their own, and with a page index.
fn properties(schema: &Schema) -> WriterProperties {
    let huggingface = schema.metadata().get("huggingface").cloned();
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_column_index_truncate_length(Some(64))
        // Row groups are cut by us, at planned positions.
        .set_max_row_group_row_count(None)
        // The limit of a page is checked once per batch of values, and one value may be larger than a page.
        .set_write_batch_size(1)
        .set_key_value_metadata(Some(vec![KeyValue::new("huggingface".to_string(), huggingface)]));
    for name in ["bytes", "path"] {
        let column = ColumnPath::new(vec!["image".to_string(), name.to_string()]);
        builder = builder
            .set_column_compression(column.clone(), Compression::UNCOMPRESSED)
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column.clone(), Encoding::PLAIN);
        if name == "bytes" {
            builder = builder.set_column_data_page_size_limit(column.clone(), PAGE_BYTES);
            // The least and the greatest of a page of JPEG files tell nobody anything.
            builder = builder.set_column_statistics_enabled(column, EnabledStatistics::None);
        }
    }
    builder.build()
}

/// Encodes the survivors of one planned shard.
///
/// `groups` holds the rows of each planned group in their order. A shard without any row is a file without a row group. The
/// result is a pure function of the arguments.
///
/// # Errors
/// [`ShardError`] when a value does not fit its column (an image of 2 GiB).
pub fn encode(
    classes: &[String],
    groups: Vec<Vec<Row>>,
    footer: Footer,
) -> Result<(Bytes, Footer), ShardError> {
    let mut writer = ShardWriter::new(classes, &[])?;
    let mut file = Vec::new();
    for group in groups {
        for row in group {
            writer.push(row)?;
        }
        writer.end_group()?;
        file.extend_from_slice(&writer.take()?);
    }
    let (rest, footer) = writer.finish(footer)?;
    file.extend_from_slice(&rest);
    Ok((Bytes::from(file), footer))
}

/// A shard that is encoded while its rows come. What is done of the file can be taken out of it at any time, so that
/// one row group is all that is ever held, however large the shard is.
pub struct ShardWriter {
    schema: SchemaRef,
    kept: Vec<KeptColumn>,
    extensions: BTreeSet<&'static str>,
    writer: ArrowWriter<Vec<u8>>,
    /// Rows that the encoder has not seen.
    held: Vec<Row>,
    held_bytes: usize,
    /// The images of the open row group, the held ones among them.
    row_group_bytes: usize,
    /// Of the open planned group.
    rows: usize,
    row_groups: usize,
    /// Of the planned groups before it.
    groups: Vec<(usize, usize)>,
    /// Of the rows of the open planned group, and of the groups before it.
    sums: RowSums,
    row_crc32c: Vec<RowSums>,
    /// Of all that was taken out.
    digest: blake3::Hasher,
}

impl ShardWriter {
    /// A shard without rows; `kept` are the columns of the source that go along.
    ///
    /// # Errors
    /// [`ShardError`] when the class names do not fit the metadata of a file.
    pub fn new(classes: &[String], kept: &[KeptColumn]) -> Result<ShardWriter, ShardError> {
        let schema = schema(classes, kept);
        let writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties(&schema)))?;
        Ok(ShardWriter {
            schema,
            kept: kept.to_vec(),
            extensions: BTreeSet::new(),
            writer,
            held: Vec::new(),
            held_bytes: 0,
            row_group_bytes: 0,
            rows: 0,
            row_groups: 0,
            groups: Vec::new(),
            sums: RowSums::default(),
            row_crc32c: Vec::new(),
            digest: blake3::Hasher::new(),
        })
    }

    /// Adds a row to the open planned group.
    ///
    /// # Errors
    /// [`ShardError`] when a value does not fit its column (an image of 2 GiB).
    pub fn push(&mut self, row: Row) -> Result<(), ShardError> {
        if self.row_group_bytes > 0 && self.row_group_bytes + row.bytes.len() > ROW_GROUP_BYTES_MAX {
            self.end_row_group()?;
        }
        self.row_group_bytes += row.bytes.len();
        self.held_bytes += row.bytes.len();
        self.rows += 1;
        self.extensions.insert(row.extension);
        self.sums.0.push(checksum(&row.bytes, &row.id, row.copy, row.label));
        self.held.push(row);
        if self.held_bytes >= ROWS_HELD_BYTES { self.hand_on() } else { Ok(()) }
    }

    /// Ends the planned group: the next row belongs to the next one. A group without a row has no row group.
    ///
    /// # Errors
    /// As [`ShardWriter::push`].
    pub fn end_group(&mut self) -> Result<(), ShardError> {
        self.end_row_group()?;
        self.groups.push((std::mem::take(&mut self.rows), std::mem::take(&mut self.row_groups)));
        self.row_crc32c.push(std::mem::take(&mut self.sums));
        Ok(())
    }

    fn hand_on(&mut self) -> Result<(), ShardError> {
        self.held_bytes = 0;
        let rows = std::mem::take(&mut self.held);
        Ok(self.writer.write(&batch(&self.schema, &self.kept, &rows)?)?)
    }

    fn end_row_group(&mut self) -> Result<(), ShardError> {
        if !self.held.is_empty() {
            self.hand_on()?;
        }
        if self.writer.in_progress_rows() > 0 {
            // Once, and not by growing.
            self.writer.inner_mut().reserve(self.row_group_bytes + (1 << 16));
            self.writer.flush()?;
            self.row_groups += 1;
        }
        self.row_group_bytes = 0;
        Ok(())
    }

    /// The bytes of the file that are done and were not taken before.
    ///
    /// # Errors
    /// Never in memory.
    pub fn take(&mut self) -> Result<Bytes, ShardError> {
        self.writer.sync().map_err(ParquetError::from)?;
        let bytes = std::mem::take(self.writer.inner_mut());
        self.digest.update(&bytes);
        Ok(Bytes::from(bytes))
    }

    /// The bytes of the rows and pages that are held.
    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        self.held_bytes + self.writer.memory_size()
    }

    /// Ends the file: its last bytes, and `footer` with what is known now of groups and data.
    ///
    /// # Errors
    /// As [`ShardWriter::push`].
    pub fn finish(mut self, mut footer: Footer) -> Result<(Bytes, Footer), ShardError> {
        if self.rows > 0 {
            self.end_group()?;
        }
        let last = self.take()?;
        (footer.groups, footer.row_groups) = self.groups.into_iter().unzip();
        footer.row_crc32c = self.row_crc32c;
        footer.extensions = self.extensions.iter().map(ToString::to_string).collect();
        footer.data_blake3 = self.digest.finalize().to_hex().to_string();
        let json = serde_json::to_string(&footer).expect("a footer is plain data");
        self.writer.append_key_value_metadata(KeyValue::new(FOOTER_KEY.to_string(), json));
        let end = self.writer.into_inner()?;
        Ok((Bytes::from([&last[..], &end].concat()), footer))
    }
}

fn batch(schema: &SchemaRef, kept: &[KeptColumn], rows: &[Row]) -> Result<RecordBatch, ShardError> {
    let images = BinaryArray::from_iter_values(rows.iter().map(|row| &row.bytes));
    let paths = StringArray::from_iter_values(rows.iter().map(|row| file_name(&row.id, row.extension)));
    let image = StructArray::try_new(image_fields(), vec![Arc::new(images), Arc::new(paths)], None)?;
    let int32 = |value: fn(&Row) -> u32| -> ArrayRef {
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| value(row) as i32)))
    };
    let text = |value: fn(&Row) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(value)))
    };
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(image),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| i64::from(row.label)))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.id.to_string()))),
        int32(|row| row.copy),
        int32(|row| row.size.0),
        int32(|row| row.size.1),
        int32(|row| row.original_size.0),
        int32(|row| row.original_size.1),
        text(|row| &row.provenance.source),
        text(|row| &row.provenance.source_blake3),
    ];
    for (at, column) in kept.iter().enumerate() {
        let values = || rows.iter().map(|row| row.provenance.kept.get(at).unwrap_or(&Value::Null));
        columns.push(match column.kind {
            KeptKind::String => Arc::new(values().map(text_of).collect::<StringArray>()),
            KeptKind::Int64 => Arc::new(values().map(integer_of).collect::<Int64Array>()),
            KeptKind::Float64 => Arc::new(values().map(number_of).collect::<Float64Array>()),
        });
    }
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

fn integer_of(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(number) => Some(*number),
        _ => None,
    }
}

fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Number(number) => Some(*number),
        _ => None,
    }
}

/// The base name of a sample with the extension of what is stored.
pub(super) fn file_name(id: &str, extension: &str) -> String {
    let name = id.rsplit('/').next().unwrap_or(id);
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| if stem.is_empty() { name } else { stem });
    format!("{stem}.{extension}")
}
