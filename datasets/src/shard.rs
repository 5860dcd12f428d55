//! A shard is a value: rows go in, the bytes of one Parquet file come out, and rows come back from any range.
//!
//! The file is ordinary Parquet that Hugging Face `datasets`, pyarrow, DuckDB and polars open as images with
//! class names. What a shard knows beyond its rows stands in its footer under the key `forebay`.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, StructArray,
};
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Int64Type, Schema, SchemaRef};
use bytes::{Buf, Bytes, buf::Reader};
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::{Compression, Encoding};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, FooterTail, KeyValue, ParquetMetaData, ParquetMetaDataReader,
};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{ChunkReader, Length};
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};

use crate::sample::{Encoded, Fault, Label, Sample, SampleId, Split};

/// Planned rows per group: what `datasets` itself uses for images, and what the dataset viewer scans best.
/// It is the unit of reading and of shuffling, so it never depends on the size of an image.
pub const ROWS_PER_GROUP: usize = 100;

/// A row group is cut earlier when its images reach this, as `datasets` does.
const ROW_GROUP_BYTES_MAX: usize = 100_000_000;

/// The footer key under which [`Footer`] stands.
pub const FOOTER_KEY: &str = "forebay";

/// One row of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The image file: JPEG, PNG or PPM.
    pub bytes: Bytes,
    /// Its class.
    pub label: Label,
    /// Which sample it is.
    pub id: SampleId,
    /// 0 is the original; balancing adds copies 1, 2, ….
    pub copy: u32,
    /// Columns and rows of the stored image.
    pub size: (u32, u32),
    /// Columns and rows of the image that was read.
    pub original_size: (u32, u32),
}

/// A sample that a stage refused, as `rejects.jsonl` lists it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reject {
    /// Which sample.
    pub id: String,
    /// The stage that refused it.
    pub stage: String,
    /// Why, in one line.
    pub reason: String,
}

impl Reject {
    /// What `fault` says of the sample `id`.
    pub fn new(id: &str, fault: &Fault) -> Reject {
        Reject { id: id.to_string(), stage: fault.stage.clone(), reason: fault.reason.clone() }
    }
}

/// What a shard knows of itself beyond its rows. It makes a finished shard recognisable, and a resumed run's
/// manifest equal to that of an uninterrupted one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footer {
    /// The fingerprint of the plan that this shard belongs to.
    pub fingerprint: String,
    /// The part of the dataset.
    pub split: Split,
    /// Its place among the shards of its split.
    pub index: usize,
    /// Rows present in each planned group of [`ROWS_PER_GROUP`] rows; rejects leave gaps, and a group
    /// without a survivor has no row group.
    pub groups: Vec<usize>,
    /// How many row groups each planned group became: 1, more where its images are large, 0 where it is empty.
    pub row_groups: Vec<usize>,
    /// The samples that did not make it, in planned order; a sample with several copies stands here once.
    pub rejects: Vec<Reject>,
    /// BLAKE3 of the file from its start to the end of the last row group: a resumed run trusts no shard whose
    /// data it has not read again.
    pub data_blake3: String,
}

/// A shard that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The file is not one of ours, or is damaged.
    #[error("not a shard of Forebay: {0}")]
    Foreign(String),
    /// Parquet refused it.
    #[error("cannot read the shard as Parquet")]
    Parquet(#[from] ParquetError),
    /// Arrow refused it.
    #[error("cannot form the shard's columns")]
    Arrow(#[from] arrow::error::ArrowError),
}

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

fn image_fields() -> Fields {
    Fields::from(vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)])
}

/// The columns beside `image` and `label`, with their Hugging Face types, in their order.
pub const VALUE_COLUMNS: [(&str, &str); 6] = [
    ("id", "string"),
    ("copy", "int32"),
    ("width", "int32"),
    ("height", "int32"),
    ("original_width", "int32"),
    ("original_height", "int32"),
];

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
    let rows_per_page = (1 << 20) / (bytes / rows.max(1)).max(1);
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
fn file_name(id: &str, extension: &str) -> String {
    let name = id.rsplit('/').next().unwrap_or(id);
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| if stem.is_empty() { name } else { stem });
    format!("{stem}.{extension}")
}

/// The end of a shard file, read once: where its row groups lie and what its footer says.
#[derive(Clone, Debug)]
pub struct Index {
    reader: ArrowReaderMetadata,
    footer: Footer,
    classes: Vec<String>,
    bytes: u64,
}

/// How many bytes at the end of a file tell the length of its metadata.
pub const TAIL_BYTES: u64 = 8;

/// How many bytes at the end of a file hold its metadata and the tail itself, as its last [`TAIL_BYTES`] say.
///
/// # Errors
/// [`ShardError::Foreign`] when this is not the end of a Parquet file.
pub fn end_bytes(tail: &[u8]) -> Result<u64, ShardError> {
    let foreign = || ShardError::Foreign("it does not end as a Parquet file does".to_string());
    let tail: [u8; 8] = tail.try_into().map_err(|_| foreign())?;
    let footer = FooterTail::try_new(&tail).map_err(|_| foreign())?;
    Ok(footer.metadata_length() as u64 + TAIL_BYTES)
}

impl Index {
    /// Reads the index from the last [`end_bytes`] bytes of a file of `bytes` bytes.
    ///
    /// # Errors
    /// [`ShardError`] when the file is damaged or was not written by Forebay.
    pub fn parse(end: &Bytes, bytes: u64) -> Result<Index, ShardError> {
        let metadata_end = end.len().saturating_sub(TAIL_BYTES as usize);
        let metadata = ParquetMetaDataReader::decode_metadata(&end[..metadata_end])?;
        let key = |name: &str| {
            let pairs = metadata.file_metadata().key_value_metadata()?;
            pairs.iter().find(|pair| pair.key == name)?.value.clone()
        };
        let json = key(FOOTER_KEY)
            .ok_or_else(|| ShardError::Foreign(format!("its footer has no key `{FOOTER_KEY}`")))?;
        let footer: Footer = serde_json::from_str(&json)
            .map_err(|error| ShardError::Foreign(format!("the key `{FOOTER_KEY}` of its footer: {error}")))?;
        let huggingface: serde_json::Value =
            key("huggingface").and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default();
        let names = huggingface["info"]["features"]["label"]["names"].as_array();
        let classes =
            names.into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_string())).collect();
        let in_order = metadata.num_row_groups() == footer.row_groups.iter().sum::<usize>();
        if !in_order || footer.groups.len() != footer.row_groups.len() {
            return Err(ShardError::Foreign("its footer and its row groups disagree".to_string()));
        }
        let reader = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new())?;
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

    fn row_groups_of(&self, group: usize) -> Range<usize> {
        let first = self.footer.row_groups[..group].iter().sum();
        first..first + self.footer.row_groups[group]
    }

    fn row_groups_range(&self, row_groups: Range<usize>) -> Range<u64> {
        let columns = || row_groups.clone().flat_map(|group| self.metadata().row_group(group).columns());
        let start = columns().map(|column| column.byte_range().0).min().unwrap_or(0);
        let end = columns().map(|column| column.byte_range().0 + column.byte_range().1).max().unwrap_or(0);
        start..end
    }

    /// The rows of planned group `group`, from the bytes of [`Index::group_range`]. The images share the memory
    /// of one column: they are copied once, out of the pages.
    ///
    /// # Errors
    /// [`ShardError`] when the bytes are damaged.
    pub fn rows(&self, group: usize, bytes: Bytes) -> Result<Vec<Row>, ShardError> {
        let start = self.group_range(group).start;
        let window = Window { start, bytes, file_bytes: self.bytes };
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(window, self.reader.clone())
            .with_row_groups(self.row_groups_of(group).collect())
            .with_batch_size(ROWS_PER_GROUP)
            .build()?;
        let mut rows = Vec::with_capacity(self.footer.groups[group]);
        for batch in reader {
            rows_of(&batch?, &mut rows)?;
        }
        Ok(rows)
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
        let window = Window { start, bytes, file_bytes: self.bytes };
        let schema = self.reader.parquet_schema();
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(window, self.reader.clone())
            .with_row_groups(vec![row_group])
            .with_projection(ProjectionMask::columns(schema, ["id", "copy", "label"]))
            .build()?;
        let mut identities = Vec::new();
        for batch in reader {
            let batch = batch?;
            let ids = column(&batch, "id")?.as_string_opt::<i32>().ok_or_else(|| odd("id"))?;
            let copies = int32_column(&batch, "copy")?;
            let labels =
                column(&batch, "label")?.as_primitive_opt::<Int64Type>().ok_or_else(|| odd("label"))?;
            for row in 0..batch.num_rows() {
                identities.push((
                    ids.value(row).into(),
                    copies.value(row) as u32,
                    labels.value(row) as Label,
                ));
            }
        }
        Ok(identities)
    }
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

fn rows_of(batch: &RecordBatch, rows: &mut Vec<Row>) -> Result<(), ShardError> {
    let image = column(batch, "image")?.as_struct_opt().ok_or_else(|| odd("image"))?;
    let images = image.column_by_name("bytes").and_then(|bytes| bytes.as_binary_opt::<i32>());
    let images = images.ok_or_else(|| odd("image.bytes"))?;
    let ids = column(batch, "id")?.as_string_opt::<i32>().ok_or_else(|| odd("id"))?;
    let labels = column(batch, "label")?.as_primitive_opt::<Int64Type>().ok_or_else(|| odd("label"))?;
    let copies = int32_column(batch, "copy")?;
    let [width, height, original_width, original_height] =
        ["width", "height", "original_width", "original_height"].map(|name| int32_column(batch, name));
    let (width, height) = (width?, height?);
    let (original_width, original_height) = (original_width?, original_height?);
    let values = Bytes::from_owner(images.values().clone());
    for row in 0..batch.num_rows() {
        let range = images.value_offsets()[row] as usize..images.value_offsets()[row + 1] as usize;
        rows.push(Row {
            bytes: values.slice(range),
            label: labels.value(row) as Label,
            id: ids.value(row).into(),
            copy: copies.value(row) as u32,
            size: (width.value(row) as u32, height.value(row) as u32),
            original_size: (original_width.value(row) as u32, original_height.value(row) as u32),
        });
    }
    Ok(())
}

impl From<Row> for Sample<Encoded> {
    fn from(row: Row) -> Sample<Encoded> {
        let payload = Ok(Encoded { bytes: row.bytes });
        Sample { id: row.id, copy: row.copy, label: row.label, payload }
    }
}

/// A part of a file, addressed as the file is.
struct Window {
    start: u64,
    bytes: Bytes,
    file_bytes: u64,
}

impl Length for Window {
    fn len(&self) -> u64 {
        self.file_bytes
    }
}

impl ChunkReader for Window {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let end = self.start + self.bytes.len() as u64;
        Ok(self.get_bytes(start, end.saturating_sub(start) as usize)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let outside = || ParquetError::EOF(format!("bytes {start}+{length} lie outside what was read"));
        let first = start.checked_sub(self.start).ok_or_else(outside)? as usize;
        let last = first.checked_add(length).filter(|&last| last <= self.bytes.len()).ok_or_else(outside)?;
        Ok(self.bytes.slice(first..last))
    }
}

/// `data/train-00000-of-00032.parquet`, as Hugging Face names shards.
pub fn key(split: Split, index: usize, count: usize) -> String {
    format!("data/{split}-{index:05}-of-{count:05}.parquet")
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::column::page::Page;
    use parquet::file::reader::{FileReader, SerializedFileReader};

    fn classes() -> Vec<String> {
        vec!["chat".to_string(), "naïve \"😀\"".to_string()]
    }

    fn row(index: usize, bytes: usize) -> Row {
        Row {
            bytes: Bytes::from(vec![index as u8; bytes]),
            label: (index % 2) as u32,
            id: format!("chat/{index:04}.JPEG").into(),
            copy: 0,
            size: (4, 5),
            original_size: (40, 50),
        }
    }

    fn footer() -> Footer {
        Footer {
            fingerprint: "f".into(),
            split: Split::Train,
            index: 2,
            groups: vec![],
            row_groups: vec![],
            rejects: vec![Reject { id: "x".into(), stage: "decode".into(), reason: "bad".into() }],
            data_blake3: String::new(),
        }
    }

    fn shard(groups: Vec<Vec<Row>>) -> Bytes {
        encode(&classes(), "jpg", groups, footer()).unwrap().0
    }

    fn read(file: &Bytes, group: usize) -> Vec<Row> {
        let index = Index::of_file(file).unwrap();
        let range = index.group_range(group);
        index.rows(group, file.slice(range.start as usize..range.end as usize)).unwrap()
    }

    #[test]
    fn rows_come_back_by_planned_group_though_rejects_left_gaps() {
        let groups = vec![
            (0..99).map(|i| row(i, 10)).collect::<Vec<_>>(),
            vec![],
            (200..203).map(|i| row(i, 7)).collect(),
        ];
        let file = shard(groups.clone());
        for (index, group) in groups.iter().enumerate() {
            assert_eq!(&read(&file, index), group);
        }
        let index = Index::of_file(&file).unwrap();
        assert_eq!(
            (&index.footer().groups[..], &index.footer().row_groups[..]),
            (&[99, 0, 3][..], &[1, 0, 1][..])
        );
        assert_eq!(index.classes(), classes());
        let range = index.identity_range(1);
        assert!(range.start > index.group_range(2).start, "no image is read for an identity");
        let identities = index.identities(1, file.slice(range.start as usize..range.end as usize)).unwrap();
        assert_eq!(identities[1], ("chat/0201.JPEG".into(), 0, 1));
    }

    #[test]
    fn a_shard_without_a_survivor_has_no_row_group() {
        let file = shard(vec![vec![], vec![]]);
        assert_eq!(Index::of_file(&file).unwrap().metadata().num_row_groups(), 0);
    }

    #[test]
    fn large_images_cut_a_row_group_and_still_read_as_one_group() {
        let rows: Vec<Row> = (0..3).map(|i| row(i, 45_000_000)).collect();
        let file = shard(vec![rows.clone(), vec![row(9, 1)]]);
        let index = Index::of_file(&file).unwrap();
        assert_eq!(index.footer().row_groups, [2, 1]);
        assert_eq!(read(&file, 0), rows);
        assert_eq!(read(&file, 1), [row(9, 1)]);
    }

    #[test]
    fn no_page_has_zero_rows_and_none_is_much_larger_than_a_mebibyte() {
        for bytes in [10, 3_000, 200_000, 2_000_000] {
            let file = shard(vec![(0..100).map(|i| row(i, bytes)).collect()]);
            let reader = SerializedFileReader::new(file).unwrap();
            let group = reader.get_row_group(0).unwrap();
            for column in 0..group.num_columns() {
                let pages: Vec<Page> =
                    group.get_column_page_reader(column).unwrap().map(|p| p.unwrap()).collect();
                for page in pages.iter().filter(|page| !matches!(page, Page::DictionaryPage { .. })) {
                    assert!(page.num_values() > 0, "a page of column {column} without rows");
                    assert!(
                        page.buffer().len() <= (1 << 20) + 2 * bytes.max(1 << 10),
                        "{}",
                        page.buffer().len()
                    );
                }
            }
        }
    }

    #[test]
    fn the_metadata_is_what_the_readers_of_hugging_face_expect() {
        let file = shard(vec![vec![row(0, 5)]]);
        let index = Index::of_file(&file).unwrap();
        let json = r#"{"info": {"features": {"image": {"_type": "Image"}, "label": {"names": ["chat", "na\u00efve \"\ud83d\ude00\""], "_type": "ClassLabel"}, "id": {"dtype": "string", "_type": "Value"}, "copy": {"dtype": "int32", "_type": "Value"}, "width": {"dtype": "int32", "_type": "Value"}, "height": {"dtype": "int32", "_type": "Value"}, "original_width": {"dtype": "int32", "_type": "Value"}, "original_height": {"dtype": "int32", "_type": "Value"}}}}"#;
        let metadata = index.metadata();
        let pairs = metadata.file_metadata().key_value_metadata().unwrap();
        let value = |key: &str| pairs.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone());
        assert_eq!(value("huggingface").as_deref(), Some(json));
        assert_eq!(value("content_defined_chunking"), None);
        // The second place: inside the Arrow schema, which pyarrow reads instead.
        assert!(value("ARROW:schema").is_some());
        assert_eq!(index.reader.schema().metadata()["huggingface"], json);
        assert_eq!(index.reader.schema().field(0).data_type(), &DataType::Struct(image_fields()));
        let images = metadata.row_group(0).column(0);
        assert_eq!(images.compression(), Compression::UNCOMPRESSED);
        assert_eq!(images.dictionary_page_offset(), None);
        assert!(images.statistics().is_none_or(|s| s.min_bytes_opt().is_none()));
        assert!(images.offset_index_offset().is_some());
        let labels = metadata.row_group(0).column(2);
        assert_eq!(labels.compression(), Compression::SNAPPY);
        assert!(labels.offset_index_offset().is_some() && labels.column_index_offset().is_some());
    }

    #[test]
    fn the_same_rows_give_the_same_bytes_and_the_digest_covers_them() {
        let groups = || vec![(0..30).map(|i| row(i, 100)).collect::<Vec<_>>()];
        let (file, footer) = encode(&classes(), "jpg", groups(), footer()).unwrap();
        assert_eq!(file, shard(groups()));
        let index = Index::of_file(&file).unwrap();
        assert_eq!(index.footer(), &footer);
        let end = index.group_range(0).end as usize;
        assert_eq!(blake3::hash(&file[..end]).to_hex().to_string(), footer.data_blake3);
    }

    #[test]
    fn a_damaged_or_foreign_file_is_one_error() {
        let file = shard(vec![vec![row(0, 5)]]);
        for bad in [
            Bytes::new(),
            Bytes::from_static(b"hello, this is not parquet"),
            file.slice(..file.len() - 3),
            file.slice(file.len() - 12..),
        ] {
            assert!(Index::of_file(&bad).is_err());
        }
    }

    #[test]
    fn the_path_of_an_image_ends_as_its_encoding_does() {
        assert_eq!(file_name("n01/n01_apple.JPEG", "jpg"), "n01_apple.jpg");
        assert_eq!(file_name("a/b.c/noext", "png"), "noext.png");
    }
}
