//! A shard is a value: rows go in, the bytes of one Parquet file come out, and rows come back from any range.
//!
//! The file is ordinary Parquet that Hugging Face `datasets`, pyarrow, DuckDB and polars open as images with
//! class names. What a shard knows beyond its rows stands in its footer under the key `forebay`.

mod images;
mod index;
mod row;
mod standing;
mod trace;
mod write;

use bytes::Bytes;
use parquet::errors::ParquetError;
use serde::{Deserialize, Serialize};

use crate::catalog::KeptColumn;
use crate::columns::{Unsound, Value};
use crate::sample::{Encoded, Fault, Label, Sample, SampleId, Split};
pub use index::{Index, ReadError, packed_index, read_end, read_identities, read_index};
pub use row::{GroupRows, read_row};
pub use standing::{StandingShard, standing};
pub use trace::{TracedRow, trace};
pub use write::{ROW_GROUP_BYTES_MAX, ShardWriter, ascii_json, encode, huggingface_metadata, schema};

/// Planned rows per group: what `datasets` itself uses for images, and what the dataset viewer scans best.
/// It is the unit of reading and of shuffling, so it never depends on the size of an image.
pub const ROWS_PER_GROUP: usize = 100;

/// The footer key under which [`Footer`] stands.
pub const FOOTER_KEY: &str = "forebay";

/// Where a row comes from: what nothing is trained on, and what a reader of rows passes over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Provenance {
    /// The place of its file in the source, as [`crate::catalog::Locator::place`] says it.
    pub source: String,
    /// BLAKE3 of that file, in hexadecimal digits.
    pub source_blake3: String,
    /// Its values in the columns of the source that are kept.
    pub kept: Vec<Value>,
}

/// One row of a shard.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// What the name of the image file ends in, by its content (`jpg`, `png`).
    pub extension: &'static str,
    /// Where it comes from.
    pub provenance: Provenance,
}

/// What of a row is trained on, and read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRow {
    /// The image file.
    pub bytes: Bytes,
    /// Its class.
    pub label: Label,
    /// Which sample it is.
    pub id: SampleId,
    /// 0 is the original; balancing adds copies 1, 2, ….
    pub copy: u32,
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

    /// Whether the image may be accepted another time, as its file is: nothing may remember that it was not.
    pub fn may_pass(&self) -> bool {
        self.stage == Fault::READ
    }

    /// What [`Reject::new`] was given.
    pub fn into_fault(self) -> (SampleId, Fault) {
        (self.id.into(), Fault::new(&self.stage, self.reason))
    }

    /// Rejects as `rejects.jsonl` has them: one JSON object a line.
    pub fn to_lines(rejects: &[Reject]) -> String {
        rejects
            .iter()
            .map(|reject| serde_json::to_string(reject).expect("a reject is plain data") + "\n")
            .collect()
    }

    /// Reads what [`Reject::to_lines`] wrote; a line that is none is passed over.
    pub fn of_lines(text: &str) -> Vec<Reject> {
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// What a shard knows of itself beyond its rows. It makes a finished shard recognisable, and a resumed run's
/// manifest equal to that of an uninterrupted one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footer {
    /// What the bytes of this shard are a function of, and of nothing else: the format, the classes, the rows with
    /// their labels, copies and sizes, and the settings of the stages that they pass. A shard is kept from one plan
    /// to another where this is the same.
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
    /// The planned rows that did not make it, as places among all planned rows of the shard, ascending.
    pub holes: Vec<usize>,
    /// The samples that did not make it, in planned order; a sample with several copies stands here once.
    pub rejects: Vec<Reject>,
    /// BLAKE3 of the file from its start to the end of the last row group, or of all of a file of another form: a resumed
    /// run trusts no shard whose data it has not read again.
    pub data_blake3: String,
    /// What the names of its images end in, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<String>,
    /// CRC-32C of every row, group by planned group: what is trained on is what was written, wherever a bit flips. None in
    /// shards from before they were kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub row_crc32c: Vec<RowSums>,
}

impl Footer {
    /// That of shard `index` of a split, before anything is known of its rows.
    pub fn of(split: Split, index: usize) -> Footer {
        Footer {
            fingerprint: String::new(),
            split,
            index,
            groups: Vec::new(),
            row_groups: Vec::new(),
            holes: Vec::new(),
            rejects: Vec::new(),
            data_blake3: String::new(),
            extensions: Vec::new(),
            row_crc32c: Vec::new(),
        }
    }
}

/// The CRC-32C of rows, eight hexadecimal digits each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RowSums(pub Vec<u32>);

impl From<RowSums> for String {
    fn from(sums: RowSums) -> String {
        sums.0.iter().map(|sum| format!("{sum:08x}")).collect()
    }
}

impl TryFrom<String> for RowSums {
    type Error = &'static str;

    fn try_from(digits: String) -> Result<RowSums, &'static str> {
        let sum = |digits: &[u8]| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        let (sums, []) = digits.as_bytes().as_chunks::<8>() else { return Err("not eight digits a row") };
        sums.iter().map(|digits| sum(digits)).collect::<Option<_>>().map(RowSums).ok_or("no digits")
    }
}

/// The CRC-32C of what is trained on of a row.
fn checksum(bytes: &[u8], id: &str, copy: u32, label: Label) -> u32 {
    let numbers = [copy.to_le_bytes(), label.to_le_bytes()].concat();
    [id.as_bytes(), &numbers].into_iter().fold(crc32c::crc32c(bytes), crc32c::crc32c_append)
}

/// A shard that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The file is not one of ours, or is damaged.
    #[error("not a shard of Forebay: {0}")]
    Foreign(String),
    /// A row is not the one that was written.
    #[error("damaged: {0}")]
    Damaged(String),
    /// Parquet refused it.
    #[error("cannot read the shard as Parquet")]
    Parquet(#[from] ParquetError),
    /// A value or a file is larger than its form can hold.
    #[error("{0}")]
    TooLarge(String),
    /// Arrow refused it.
    #[error("cannot form the shard's columns")]
    Arrow(#[from] arrow_schema::ArrowError),
}

fn foreign(what: &str) -> ShardError {
    ShardError::Foreign(what.to_string())
}

impl From<Unsound> for ShardError {
    fn from(error: Unsound) -> ShardError {
        match error {
            Unsound::Odd(what) => ShardError::Foreign(what),
            Unsound::Parquet(error) => ShardError::Parquet(error),
        }
    }
}

/// The columns beside `image` and `label`, with their Hugging Face types, in their order.
pub const VALUE_COLUMNS: [(&str, &str); 8] = [
    ("id", "string"),
    ("copy", "int32"),
    ("width", "int32"),
    ("height", "int32"),
    ("original_width", "int32"),
    ("original_height", "int32"),
    ("source", "string"),
    ("source_blake3", "string"),
];

/// The columns beside `image` and `label` of shards that keep these of their source.
pub(crate) fn value_columns(kept: &[KeptColumn]) -> Vec<(&str, &str)> {
    let kept = kept.iter().map(|column| (column.name.as_str(), column.kind.dtype()));
    VALUE_COLUMNS.into_iter().chain(kept).collect()
}

/// Whether shards have a column of this name, whatever they keep of their source.
pub fn has_column(name: &str) -> bool {
    ["image", "label"].contains(&name) || VALUE_COLUMNS.iter().any(|(column, _)| *column == name)
}

impl From<StoredRow> for Sample<Encoded> {
    fn from(row: StoredRow) -> Sample<Encoded> {
        let payload = Ok(Encoded { bytes: row.bytes });
        Sample { id: row.id, copy: row.copy, label: row.label, payload }
    }
}

/// The folder that holds the shards, and nothing else.
pub const FOLDER: &str = "data";

/// `data/train-00000-of-00032.parquet`, as Hugging Face names shards.
pub fn key(split: Split, index: usize, count: usize) -> String {
    format!("{FOLDER}/{split}-{index:05}-of-{count:05}.parquet")
}

/// Whether a key has the form that [`key`] gives: nothing else is ever deleted or replaced as a shard.
pub fn is_key(text: &str) -> bool {
    let parse = || {
        let name = text.strip_prefix(FOLDER)?.strip_prefix('/')?.strip_suffix(".parquet")?;
        let (split, numbers) = name.split_once('-')?;
        let split = Split::ALL.into_iter().find(|of| of.name() == split)?;
        let (index, count) = numbers.split_once("-of-")?;
        Some(key(split, index.parse().ok()?, count.parse().ok()?))
    };
    parse().is_some_and(|key| key == text)
}

#[cfg(test)]
mod tests {
    use arrow_schema::DataType;
    use parquet::basic::Compression;
    use parquet::schema::types::ColumnPath;

    use super::write::{file_name, image_fields};
    use super::*;
    use crate::columns::TAIL_BYTES;
    use crate::store::Store;
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
            extension: "jpg",
            ..Row::default()
        }
    }

    fn footer() -> Footer {
        Footer {
            fingerprint: "f".into(),
            rejects: vec![Reject { id: "x".into(), stage: "decode".into(), reason: "bad".into() }],
            ..Footer::of(Split::Train, 2)
        }
    }

    fn shard(groups: Vec<Vec<Row>>) -> Bytes {
        encode(&classes(), groups, footer()).unwrap().0
    }

    fn read(file: &Bytes, group: usize) -> Vec<StoredRow> {
        let index = Index::of_file(file).unwrap();
        let range = index.group_range(group);
        index.rows(group, file.slice(range.start as usize..range.end as usize)).unwrap()
    }

    /// What is read back of rows.
    fn stored(rows: &[Row]) -> Vec<StoredRow> {
        let of = |row: &Row| StoredRow {
            bytes: row.bytes.clone(),
            label: row.label,
            id: row.id.clone(),
            copy: row.copy,
        };
        rows.iter().map(of).collect()
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
            assert_eq!(read(&file, index), stored(group));
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
        assert_eq!(index.footer().row_groups, [3, 1]);
        let found = read(&file, 0);
        assert_eq!(found, stored(&rows));
        assert!(file.as_ptr_range().contains(&found[2].bytes.as_ptr()), "nothing of an image is copied");
        assert_eq!(read(&file, 1), stored(&[row(9, 1)]));
    }

    /// The file with another footer of our own in its metadata: lengths stand before texts, and nothing else does.
    fn with_footer(file: &Bytes, change: impl FnOnce(&mut serde_json::Value)) -> Bytes {
        let tail = file.len() - TAIL_BYTES as usize;
        let metadata = u32::from_le_bytes(file[tail..tail + 4].try_into().unwrap()) as usize;
        let (data, metadata) = (&file[..tail - metadata], &file[tail - metadata..tail]);
        let json = Index::of_file(file).unwrap().footer().clone();
        let before = serde_json::to_string(&json).unwrap();
        let start = metadata.windows(before.len()).position(|text| text == before.as_bytes()).unwrap();
        let mut value = serde_json::to_value(&json).unwrap();
        change(&mut value);
        let after = value.to_string();
        let varint = |mut n: usize| {
            let mut bytes = Vec::new();
            while n >= 0x80 {
                bytes.push(n as u8 | 0x80);
                n >>= 7;
            }
            [bytes, vec![n as u8]].concat()
        };
        let head = &metadata[..start - varint(before.len()).len()];
        let metadata =
            [head, &varint(after.len()), after.as_bytes(), &metadata[start + before.len()..]].concat();
        let length = (metadata.len() as u32).to_le_bytes();
        Bytes::from([data, &metadata, &length, b"PAR1"].concat())
    }

    #[test]
    fn a_footer_that_sums_wrap_or_room_is_made_for_is_refused() {
        let file = shard(vec![vec![row(0, 5)], vec![row(1, 5), row(2, 5)]]);
        let set =
            |key: &'static str, value: serde_json::Value| with_footer(&file, |footer| footer[key] = value);
        assert!(Index::of_file(&with_footer(&file, |_| {})).is_ok());
        for (key, value) in [
            ("groups", serde_json::json!([1_000_000_000_000_000_000u64, 2])),
            ("groups", serde_json::json!([274_877_906_944u64, 2])),
            ("groups", serde_json::json!([2, 1])),
            ("groups", serde_json::json!([1])),
            ("row_groups", serde_json::json!([u64::MAX, 2])),
            ("row_groups", serde_json::json!([2, 0])),
            ("row_groups", serde_json::json!([1, 2])),
            ("row_crc32c", serde_json::json!(["00000000"])),
            ("row_crc32c", serde_json::json!(["00000000", "0000000000000000ff"])),
            ("row_crc32c", serde_json::json!(["00000000", "naïv0000"])),
            ("holes", serde_json::json!([3, 3])),
        ] {
            let said = Index::of_file(&set(key, value.clone())).expect_err("a lie").to_string();
            assert!(said.starts_with("not a shard of Forebay"), "{key} {value}: {said}");
        }
    }

    #[test]
    fn a_bit_that_flips_in_a_row_is_noticed_by_whoever_reads_it() {
        let groups = vec![(0..3).map(|i| row(i, 50)).collect::<Vec<_>>()];
        let file = shard(groups.clone());
        let range = Index::of_file(&file).unwrap().group_range(0);
        let range = range.start as usize..range.end as usize;
        let flipped = |file: &Bytes, at: usize, bit: u8| {
            let mut bytes = file.to_vec();
            bytes[at] ^= 1 << bit;
            Bytes::from(bytes)
        };
        let rows = |file: &Bytes| Index::of_file(file).unwrap().rows(0, file.slice(range.clone()));
        let mut noticed = 0;
        for at in range.clone() {
            for bit in [0, 7] {
                match rows(&flipped(&file, at, bit)) {
                    Ok(rows) => {
                        assert_eq!(rows, stored(&groups[0]), "{at}, {bit}")
                    }
                    Err(error) => noticed += usize::from(error.to_string().starts_with("damaged: row ")),
                }
            }
        }
        assert!(noticed > 300, "{noticed} flips were noticed by a checksum");
        // Also where the row is read alone, and the others are not.
        let image = file.windows(50).position(|bytes| bytes == [2; 50]).expect("the last image");
        let damaged = flipped(&file, image + 20, 4);
        let index = Index::of_file(&damaged).unwrap();
        let store = Store::memory();
        futures::executor::block_on(async {
            store.put("x", damaged.clone()).await.unwrap();
            for (place, row) in groups[0].iter().enumerate() {
                match read_row(&store, "x", &index, 0, place).await {
                    Ok((found, _)) => assert_eq!(found.bytes, row.bytes),
                    Err(error) => assert_eq!(
                        (place, error.to_string().as_str()),
                        (2, "memory/x: damaged: row 2 of group 0 is not what was written: chat/0002.JPEG")
                    ),
                }
            }
        });
        // A shard from before there were checksums is read as it was.
        let before = with_footer(&file, |footer| drop(footer.as_object_mut().unwrap().remove("row_crc32c")));
        assert_eq!(read(&before, 0), stored(&groups[0]));
        assert_ne!(read(&flipped(&before, image + 20, 4), 0), stored(&groups[0]));
    }

    /// A file of one row group whose ids are `ids`, written with these properties, with our footer.
    fn with_ids(ids: Vec<String>, properties: parquet::file::properties::WriterPropertiesBuilder) -> Bytes {
        use arrow_array::{ArrayRef, BinaryArray, Int32Array, Int64Array, StringArray, StructArray};
        use std::sync::Arc;
        let n = ids.len();
        let schema = schema(&classes(), &[]);
        let images = BinaryArray::from_iter_values((0..n).map(|_| b"x"));
        let paths = StringArray::from_iter_values((0..n).map(|_| "x.jpg"));
        let image = StructArray::new(image_fields(), vec![Arc::new(images), Arc::new(paths)], None);
        let number = || -> ArrayRef { Arc::new(Int32Array::from(vec![1; n])) };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(image),
            Arc::new(Int64Array::from(vec![0; n])),
            Arc::new(StringArray::from(ids)),
            number(),
            number(),
            number(),
            number(),
            number(),
            Arc::new(StringArray::from(vec!["x"; n])),
            Arc::new(StringArray::from(vec!["x"; n])),
        ];
        let batch = arrow_array::RecordBatch::try_new(schema.clone(), columns).unwrap();
        let properties = ["bytes", "path"].into_iter().fold(properties, |properties, name| {
            let column = ColumnPath::new(vec!["image".into(), name.into()]);
            properties
                .set_column_compression(column.clone(), Compression::UNCOMPRESSED)
                .set_column_dictionary_enabled(column, false)
        });
        let mut writer =
            parquet::arrow::ArrowWriter::try_new(Vec::new(), schema, Some(properties.build())).unwrap();
        writer.write(&batch).unwrap();
        let footer = Footer { groups: vec![n], row_groups: vec![1], ..footer() };
        let json = serde_json::to_string(&footer).unwrap();
        writer.append_key_value_metadata(parquet::file::metadata::KeyValue::new(FOOTER_KEY.into(), json));
        Bytes::from(writer.into_inner().unwrap())
    }

    #[test]
    fn a_few_bytes_that_become_a_gigabyte_are_refused_before_they_do() {
        use parquet::basic::Encoding;
        use parquet::file::properties::WriterProperties;
        let properties = || {
            WriterProperties::builder()
                .set_compression(Compression::SNAPPY)
                .set_dictionary_page_size_limit(1 << 30)
        };
        let id = ColumnPath::new(vec!["id".to_string()]);
        let read = |file: &Bytes| {
            let index = Index::of_file(file).expect("it says nothing wrong of itself");
            let range = index.group_range(0);
            let rows = index.rows(0, file.slice(range.start as usize..range.end as usize));
            let range = index.identity_range(0);
            let ids = index.identities(0, file.slice(range.start as usize..range.end as usize));
            assert_eq!(rows.is_ok(), ids.is_ok());
            rows.map(|rows| rows.len()).map_err(|error| error.to_string())
        };
        let ids = |bytes: usize| vec!["i".repeat(bytes); 100];
        assert_eq!(read(&with_ids(ids(60_000), properties())), Ok(100), "long ids are ids");
        // A dictionary of one text that every row names, and one text that compresses to nothing.
        for (file, words) in [
            (with_ids(ids(7 << 20), properties()), "once it is unpacked"),
            (
                with_ids(ids(1 << 20), properties().set_column_dictionary_enabled(id.clone(), false)),
                "once it is unpacked",
            ),
            (
                with_ids(
                    ids(1 << 18),
                    properties()
                        .set_column_dictionary_enabled(id.clone(), false)
                        .set_column_encoding(id, Encoding::DELTA_BYTE_ARRAY),
                ),
                "in an encoding that none of ours has",
            ),
        ] {
            let said = read(&file).expect_err("a bomb");
            assert!(said.contains("`id`") && said.contains(words), "{said}");
        }
    }

    #[test]
    fn a_writer_holds_one_row_group_and_gives_the_bytes_of_the_whole() {
        let groups: Vec<Vec<Row>> = vec![
            (0..100).map(|i| row(i, 900_000)).collect(),
            vec![],
            vec![row(100, 40_000_000)],
            (101..180).map(|i| row(i, 10)).collect(),
        ];
        let (whole, expected) = encode(&classes(), groups.clone(), footer()).unwrap();
        let mut writer = ShardWriter::new(&classes(), &[]).unwrap();
        let mut file = Vec::new();
        let mut largest = 0;
        for group in groups {
            for row in group {
                let bytes = row.bytes.len();
                writer.push(row).unwrap();
                let done = writer.take().unwrap();
                largest = largest.max(done.len());
                assert!(writer.memory_bytes() <= ROW_GROUP_BYTES_MAX + bytes + (2 << 20));
                file.extend_from_slice(&done);
            }
            writer.end_group().unwrap();
        }
        let (rest, footer) = writer.finish(footer()).unwrap();
        file.extend_from_slice(&rest);
        assert!(largest < 41_000_000, "{largest}");
        assert!(whole == file, "the same bytes, whenever they are taken");
        assert_eq!(footer, expected);
        assert_eq!(footer.groups, [100, 0, 1, 79]);
        assert_eq!(footer.row_groups, [3, 0, 1, 1]);
    }

    #[test]
    fn no_page_has_zero_rows_and_one_of_images_holds_16_kib_or_a_single_one() {
        for bytes in [10, 3_000, 200_000, 2_000_000] {
            let file = shard(vec![(0..100).map(|i| row(i, bytes)).collect()]);
            let reader = SerializedFileReader::new(file).unwrap();
            let group = reader.get_row_group(0).unwrap();
            for column in 0..group.num_columns() {
                let pages: Vec<Page> =
                    group.get_column_page_reader(column).unwrap().map(|p| p.unwrap()).collect();
                for page in pages.iter().filter(|page| !matches!(page, Page::DictionaryPage { .. })) {
                    assert!(page.num_values() > 0, "a page of column {column} without rows");
                    assert!(page.buffer().len() <= (1 << 14) + bytes.max(1 << 10), "{}", page.buffer().len());
                }
            }
        }
    }

    #[test]
    fn a_row_is_read_alone_whatever_the_size_of_its_neighbours() {
        for bytes in [10, 3_000, 20_000] {
            let sized = |group: usize, rows: usize| -> Vec<Row> {
                (0..rows).map(|i| row(1000 * group + i, bytes + 7 * (i % 13))).collect()
            };
            let groups = vec![sized(0, 100), vec![], sized(2, 31)];
            let file = shard(groups.clone());
            let index = Index::of_file(&file).unwrap();
            let store = Store::memory();
            let key = "data/a.parquet";
            futures::executor::block_on(async {
                store.put(key, file.clone()).await.unwrap();
                for (group, rows) in groups.iter().enumerate() {
                    for (place, row) in rows.iter().enumerate() {
                        let (found, read) = read_row(&store, key, &index, group, place).await.unwrap();
                        let Row { bytes, label, id, copy, .. } = row.clone();
                        assert_eq!(found, StoredRow { bytes, label, id, copy });
                        assert!(read < 2 * row.bytes.len() as u64 + (1 << 14) + (1 << 13), "{read}");
                    }
                }
                let beyond = read_row(&store, key, &index, 2, 31).await.unwrap_err();
                assert!(beyond.to_string().contains("fewer rows"), "{beyond}");
            });
        }
    }

    #[test]
    fn the_metadata_is_what_the_readers_of_hugging_face_expect() {
        let file = shard(vec![vec![row(0, 5)]]);
        let index = Index::of_file(&file).unwrap();
        let json = r#"{"info": {"features": {"image": {"_type": "Image"}, "label": {"names": ["chat", "na\u00efve \"\ud83d\ude00\""], "_type": "ClassLabel"}, "id": {"dtype": "string", "_type": "Value"}, "copy": {"dtype": "int32", "_type": "Value"}, "width": {"dtype": "int32", "_type": "Value"}, "height": {"dtype": "int32", "_type": "Value"}, "original_width": {"dtype": "int32", "_type": "Value"}, "original_height": {"dtype": "int32", "_type": "Value"}, "source": {"dtype": "string", "_type": "Value"}, "source_blake3": {"dtype": "string", "_type": "Value"}}}}"#;
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
        let (file, footer) = encode(&classes(), groups(), footer()).unwrap();
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
    fn only_names_of_our_own_form_are_keys_of_shards() {
        assert!(is_key(&key(Split::Validation, 3, 12)) && is_key(&key(Split::Train, 123_456, 200_000)));
        for other in [
            "notes/thesis.txt",
            "data/train-00000-of-00001.parquet#1",
            "data/../data/train-00000-of-00001.parquet",
            "data/sub/train-00000-of-00001.parquet",
            "data/train-0-of-1.parquet",
            "data/train-+0000-of-00001.parquet",
            "data/held-00000-of-00001.parquet",
            "/data/train-00000-of-00001.parquet",
        ] {
            assert!(!is_key(other), "{other}");
        }
    }

    #[test]
    fn the_path_of_an_image_ends_as_its_encoding_does() {
        assert_eq!(file_name("n01/n01_apple.JPEG", "jpg"), "n01_apple.jpg");
        assert_eq!(file_name("a/b.c/noext", "png"), "noext.png");
    }
}
