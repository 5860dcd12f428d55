//! The forms that a dataset is written in. Shards of Forebay are Parquet and know themselves what they are; those of other
//! programs have no room for it, so that their footers stand beside them.

mod footers;
mod mds;
mod webdataset;
mod writer;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::catalog::{FOREBAY_ID, KeptColumn};
use crate::sample::Split;
use crate::shard;
use crate::words;
pub use footers::{files_of, is_of_shards, read_footer, record_key, standing, to_record};
pub use mds::SHARD_BYTES_MAX as MDS_BYTES_MAX;
pub use writer::FileWriter;

/// The form of a dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatasetFormat {
    /// Shards of Forebay, which are Hugging Face Parquet: `data/train-00000-of-00002.parquet`, and a card, `README.md`.
    #[default]
    Parquet,
    /// WebDataset: `data/train-000000.tar` of `KEY.jpg`, `KEY.cls` and `KEY.json`, and the names of the classes,
    /// `data/classes.txt`.
    WebDataset,
    /// MosaicML Streaming: `data/train/shard.00000.mds` and `data/train/index.json`.
    Mds,
}

words!(DatasetFormat { Parquet => "parquet", WebDataset => "webdataset", Mds => "mds" });

/// What is told of a shard to programs that read its form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedShard<'a> {
    /// Its split.
    pub split: Split,
    /// Its key.
    pub key: &'a str,
    /// Its rows.
    pub rows: u64,
    /// Its bytes.
    pub bytes: u64,
    /// What the names of its images end in, each once.
    pub extensions: &'a [String],
}

/// The key of shard `index` of the `count` shards of a split.
pub fn key(format: DatasetFormat, split: Split, index: usize, count: usize) -> String {
    match format {
        DatasetFormat::Parquet => shard::key(split, index, count),
        DatasetFormat::WebDataset => format!("{}/{split}-{index:06}.tar", shard::FOLDER),
        DatasetFormat::Mds => format!("{}/{split}/shard.{index:05}.mds", shard::FOLDER),
    }
}

/// The form of the shard of this key; `None` for a key that [`key`] never gives: nothing else is ever deleted or replaced as
/// a shard.
pub fn of_key(text: &str) -> Option<DatasetFormat> {
    if shard::is_key(text) {
        return Some(DatasetFormat::Parquet);
    }
    let name = text.strip_prefix(shard::FOLDER)?.strip_prefix('/')?;
    let (split, rest) = name.split_once(['-', '/'])?;
    let split = Split::ALL.into_iter().find(|of| of.name() == split)?;
    let (format, number) = match rest.strip_prefix("shard.") {
        Some(rest) => (DatasetFormat::Mds, rest.strip_suffix(".mds")?),
        None => (DatasetFormat::WebDataset, rest.strip_suffix(".tar")?),
    };
    (key(format, split, number.parse().ok()?, 0) == text).then_some(format)
}

/// Whether a key is that of a file that stands among the shards of some form and tells programs of them.
pub fn is_beside(key: &str) -> bool {
    key == classes_key() || Split::ALL.into_iter().any(|split| key == index_key(split))
}

/// Whether shards of this form have a column or a key of this name, beside those of every form.
pub fn has_column(format: DatasetFormat, name: &str) -> bool {
    match format {
        DatasetFormat::Parquet => false,
        DatasetFormat::WebDataset => [FOREBAY_ID, "class_name"].contains(&name),
        DatasetFormat::Mds => name == "class_name",
    }
}

/// The names of the classes beside tar files.
fn classes_key() -> String {
    format!("{}/classes.txt", shard::FOLDER)
}

/// The index of the shards of a split of MDS.
fn index_key(split: Split) -> String {
    format!("{}/{split}/index.json", shard::FOLDER)
}

/// What stands among the shards, by its key: it makes them a dataset to other programs, and is written last.
pub fn beside(
    format: DatasetFormat,
    classes: &[String],
    kept: &[KeptColumn],
    shards: &[ListedShard<'_>],
) -> Vec<(String, Bytes)> {
    match format {
        DatasetFormat::Parquet => Vec::new(),
        DatasetFormat::WebDataset => {
            let lines: String = classes.iter().map(|class| format!("{class}\n")).collect();
            vec![(classes_key(), lines.into())]
        }
        DatasetFormat::Mds => Split::ALL
            .into_iter()
            .filter_map(|split| {
                let shards: Vec<&ListedShard<'_>> =
                    shards.iter().filter(|shard| shard.split == split && shard.rows > 0).collect();
                (!shards.is_empty()).then(|| (index_key(split), mds::index(kept, &shards).into()))
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{KeptKind, LayoutOptions, Value, read};
    use crate::shard::{Footer, Row, StandingShard};
    use crate::store::Store;
    use crate::words::Words;
    use futures::executor::block_on;

    #[test]
    fn keys_of_shards_are_told_from_others() {
        for format in DatasetFormat::ALL {
            assert_eq!(of_key(&key(*format, Split::Test, 12, 17)), Some(*format));
            assert!(DatasetFormat::ALL.iter().all(|other| !is_beside(&key(*other, Split::Test, 1, 2))));
        }
        for key in [
            "train-000000.tar",
            "data/../train-000000.tar",
            "data/train-00.tar",
            "data/train-x.tar",
            "data/train-000000.mds",
            "data/train/shard.00000.tar",
            "data/cat/1.jpg",
            "data/train/index.json",
            "data/train.parquet",
            "",
        ] {
            assert_eq!(of_key(key), None, "{key}");
        }
        assert!(is_beside("data/test/index.json") && is_beside("data/classes.txt"));
        assert!(!is_beside("data/index.json") && !is_beside("classes.txt") && !is_beside("data/README.md"));
    }

    fn footer(split: Split) -> Footer {
        Footer { fingerprint: "f".into(), ..Footer::of(split, 0) }
    }

    #[test]
    fn what_is_written_in_each_form_comes_back_with_its_ids_classes_and_bytes() {
        let classes = ["cat".to_string(), "emu é".to_string()];
        let kept = [KeptColumn { name: "age".into(), kind: KeptKind::Int64 }];
        let rows = |split: Split, n: usize| -> Vec<Row> {
            let of = |row: usize| Row {
                bytes: vec![row as u8; 700 * row + 1].into(),
                label: (row % 2) as u32,
                id: format!("{split}/a.b/{row} é.jpg").into(),
                extension: "jpg",
                provenance: shard::Provenance {
                    kept: vec![if row == 1 { Value::Null } else { Value::Integer(row as i64) }],
                    ..Default::default()
                },
                ..Row::default()
            };
            (0..n).map(of).collect()
        };
        for format in DatasetFormat::ALL {
            let store = Store::memory();
            let mut listed = Vec::new();
            let mut expected = Vec::new();
            for (split, n) in [(Split::Train, 5), (Split::Test, 2)] {
                let all = rows(split, n);
                let count = all.len().div_ceil(3);
                for (index, part) in all.chunks(3).enumerate() {
                    let key = key(*format, split, index, count);
                    let mut writer =
                        FileWriter::new(*format, &classes, &kept, 3 * index as u64).expect("a writer");
                    let mut file = Vec::new();
                    for row in part {
                        writer.push(row.clone()).expect("a row");
                        file.extend(writer.take().expect("bytes"));
                    }
                    writer.end_group().expect("a group");
                    let (rest, footer) = writer.finish(footer(split)).expect("an end");
                    file.extend(rest);
                    assert_eq!(
                        (&footer.groups, &footer.extensions),
                        (&vec![part.len()], &vec!["jpg".to_string()])
                    );
                    assert_eq!(record_key(&key).is_none(), *format == DatasetFormat::Parquet);
                    if let Some(record) = record_key(&key) {
                        assert_eq!(footer.data_blake3, blake3::hash(&file).to_hex().as_str());
                        block_on(store.put(&record, to_record(&footer).into())).expect("a record");
                        assert_eq!(block_on(read_footer(&store, &key)).expect("reads"), Some(footer.clone()));
                    }
                    let bytes = file.len() as u64;
                    block_on(store.put(&key, file.into())).expect("an object");
                    let standing = block_on(standing(&store, &key, bytes)).expect("looks");
                    assert_eq!(standing, StandingShard::Ours(Some(footer.clone())));
                    listed.push((split, key, part.len() as u64, bytes, footer.extensions));
                }
                expected.extend(all.into_iter().map(|row| (row.id, row.label, Some(split), row.bytes)));
            }
            let listed: Vec<ListedShard<'_>> = listed
                .iter()
                .map(|(split, key, rows, bytes, extensions)| ListedShard {
                    split: *split,
                    key,
                    rows: *rows,
                    bytes: *bytes,
                    extensions,
                })
                .collect();
            for (key, bytes) in beside(*format, &classes, &kept, &listed) {
                assert!(is_beside(&key));
                block_on(store.put(&key, bytes)).expect("an object");
            }
            let options = LayoutOptions { keep_columns: vec!["age".into()], ..LayoutOptions::default() };
            let catalog = block_on(read(&store, &options)).expect("a catalog");
            let found: Vec<_> = catalog
                .entries()
                .iter()
                .map(|entry| {
                    let bytes = block_on(entry.locator.read(&store)).expect("an image");
                    (entry.id.clone(), entry.label, entry.split, bytes)
                })
                .collect();
            expected.sort();
            assert_eq!(found, expected, "{format}");
            assert_eq!(catalog.classes(), classes, "{format}");
            for entry in catalog.entries() {
                let row =
                    entry.id.split('/').next_back().and_then(|name| name.split(' ').next()?.parse().ok());
                let age = row.filter(|row| *row != 1).map_or(Value::Null, Value::Integer);
                assert_eq!(entry.kept.as_deref(), Some(&[age][..]), "{format}: {}", entry.id);
            }
        }
    }
}
