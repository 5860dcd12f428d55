//! Rows to the bytes of one Parquet file.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::{FOOTER_KEY, Footer, Row, ShardError, VALUE_COLUMNS};

/// A page of images is ended when it reaches this, so that larger images are pages of their own and can be read
/// alone. An entry in the page index and the page's header take about 60 bytes.
const PAGE_BYTES: usize = 1 << 14;

/// A row group is cut earlier when its images reach this, as `datasets` does.
const ROW_GROUP_BYTES_MAX: usize = 100_000_000;

/// The Arrow schema of every shard, whatever its encoding: the `image` struct and `label` of Hugging Face, then
/// the columns that are ours. It carries the `huggingface` metadata.
pub fn schema(classes: &[String]) -> SchemaRef {
    let value = |name: &str, data_type| Field::new(name, data_type, true);
    let fields = vec![
        value("image", DataType::Struct(image_fields())),
        value("label", DataType::Int64),
        value("id", DataType::Utf8),
        value("copy", DataType::Int32),
        value("width", DataType::Int32),
        value("height", DataType::Int32),
        value("original_width", DataType::Int32),
        value("original_height", DataType::Int32),
    ];
    let metadata = HashMap::from([("huggingface".to_string(), huggingface_metadata(classes))]);
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

pub(super) fn image_fields() -> Fields {
    Fields::from(vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)])
}

/// The value of the `huggingface` key, byte for byte as Python's `json.dumps` prints it: readers compare the
/// features, and people compare files.
pub fn huggingface_metadata(classes: &[String]) -> String {
    let names: Vec<String> = classes.iter().map(|name| ascii_json(name)).collect();
    let values: Vec<String> = VALUE_COLUMNS
        .iter()
        .map(|(name, dtype)| format!(r#""{name}": {{"dtype": "{dtype}", "_type": "Value"}}"#))
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

fn properties(schema: &Schema, rows_per_page: usize) -> WriterProperties {
    let huggingface = schema.metadata().get("huggingface").cloned();
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_column_index_truncate_length(Some(64))
        // Row groups are cut by us, at planned positions.
        .set_max_row_group_row_count(None)
        // The limit of a page is checked once per batch of values; a batch of one page of images keeps it.
        .set_write_batch_size(rows_per_page.clamp(1, 1024))
        .set_key_value_metadata(Some(vec![KeyValue::new("huggingface".to_string(), huggingface)]));
    for name in ["bytes", "path"] {
        let column = ColumnPath::new(vec!["image".to_string(), name.to_string()]);
        builder = builder
            .set_column_compression(column.clone(), Compression::UNCOMPRESSED)
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column.clone(), Encoding::PLAIN);
        if name == "bytes" {
            builder = builder.set_column_data_page_row_count_limit(column.clone(), rows_per_page.max(1));
            builder = builder.set_column_data_page_size_limit(column.clone(), PAGE_BYTES);
            // The least and the greatest of a page of JPEG files tell nobody anything.
            builder = builder.set_column_statistics_enabled(column, EnabledStatistics::None);
        }
    }
    builder.build()
}

/// Encodes the survivors of one planned shard.
///
/// `groups` holds the rows of each planned group in their order. `extension` (`jpg`, `png`, `ppm`) ends the
/// `path` of every image. A shard without any row is a file without a row group. The result is a pure function
/// of the arguments.
///
/// # Errors
/// [`ShardError`] when a value does not fit its column (an image of 2 GiB).
pub fn encode(
    classes: &[String],
    extension: &str,
    groups: Vec<Vec<Row>>,
    mut footer: Footer,
) -> Result<(Bytes, Footer), ShardError> {
    let schema = schema(classes);
    let bytes: usize = groups.iter().flatten().map(|row| row.bytes.len() + 200).sum();
    let rows: usize = groups.iter().map(Vec::len).sum();
    let rows_per_page = PAGE_BYTES / (bytes / rows.max(1)).max(1);
    let mut writer = ArrowWriter::try_new(
        Vec::with_capacity(bytes + (1 << 16)),
        schema.clone(),
        Some(properties(&schema, rows_per_page)),
    )?;
    footer.groups = groups.iter().map(Vec::len).collect();
    footer.row_groups = Vec::with_capacity(groups.len());
    for group in groups {
        let mut row_groups = 0;
        for part in cut(&group) {
            writer.write(&batch(&schema, &group[part], extension)?)?;
            writer.flush()?;
            row_groups += 1;
        }
        footer.row_groups.push(row_groups);
    }
    writer.sync().map_err(ParquetError::from)?;
    footer.data_blake3 = blake3::hash(writer.inner()).to_hex().to_string();
    let json = serde_json::to_string(&footer).expect("a footer is plain data");
    writer.append_key_value_metadata(KeyValue::new(FOOTER_KEY.to_string(), json));
    Ok((Bytes::from(writer.into_inner()?), footer))
}

/// Cuts a group where its images reach [`ROW_GROUP_BYTES_MAX`].
fn cut(group: &[Row]) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, row) in group.iter().enumerate() {
        if index > start && bytes + row.bytes.len() > ROW_GROUP_BYTES_MAX {
            parts.push(start..index);
            (start, bytes) = (index, 0);
        }
        bytes += row.bytes.len();
    }
    if start < group.len() {
        parts.push(start..group.len());
    }
    parts
}

fn batch(schema: &SchemaRef, rows: &[Row], extension: &str) -> Result<RecordBatch, ShardError> {
    let images = BinaryArray::from_iter_values(rows.iter().map(|row| &row.bytes));
    let paths = StringArray::from_iter_values(rows.iter().map(|row| file_name(&row.id, extension)));
    let image = StructArray::try_new(image_fields(), vec![Arc::new(images), Arc::new(paths)], None)?;
    let int32 = |value: fn(&Row) -> u32| -> ArrayRef {
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| value(row) as i32)))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(image),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| i64::from(row.label)))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.id.to_string()))),
        int32(|row| row.copy),
        int32(|row| row.size.0),
        int32(|row| row.size.1),
        int32(|row| row.original_size.0),
        int32(|row| row.original_size.1),
    ];
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// The base name of a sample with the extension of what is stored.
pub(super) fn file_name(id: &str, extension: &str) -> String {
    let name = id.rsplit('/').next().unwrap_or(id);
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| if stem.is_empty() { name } else { stem });
    format!("{stem}.{extension}")
}
