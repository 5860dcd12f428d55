//! Datasets in the forms of other programs: image files as they are, with their ids and classes, as the bytes of shards.
//!
//! A shard is a pure function of its rows, and what stands beside the shards one of all that was written.

mod mds;
mod parquet;
mod webdataset;

use bytes::Bytes;

use crate::sample::{Label, SampleId, Split};
use crate::words;

/// The form of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatasetFormat {
    /// Hugging Face Parquet: `data/train-00000-of-00002.parquet` and a card, `README.md`.
    Parquet,
    /// WebDataset: `train-000000.tar` of `KEY.jpg`, `KEY.cls` and `KEY.json`, and the names of the classes, `classes.txt`.
    WebDataset,
    /// MosaicML Streaming: `train/shard.00000.mds` and `train/index.json`.
    Mds,
}

words!(DatasetFormat { Parquet => "parquet", WebDataset => "webdataset", Mds => "mds" });

/// One image as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRow {
    /// Its id.
    pub id: SampleId,
    /// The index of its class.
    pub label: Label,
    /// The image file.
    pub bytes: Bytes,
    /// What its name ends in, by its content: `jpg`, `png`.
    pub extension: &'static str,
}

/// A shard that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenShard {
    /// Its split.
    pub split: Split,
    /// Its name below the dataset.
    pub key: String,
    /// Its rows.
    pub rows: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Of MDS: how its images are encoded.
    pub encoding: &'static str,
}

/// The name of shard `index` of the `n` shards of a split.
pub fn shard_key(format: DatasetFormat, split: Split, index: usize, n: usize) -> String {
    match format {
        DatasetFormat::Parquet => format!("data/{split}-{index:05}-of-{n:05}.parquet"),
        DatasetFormat::WebDataset => format!("{split}-{index:06}.tar"),
        DatasetFormat::Mds => format!("{split}/shard.{index:05}.mds"),
    }
}

/// Whether a name is one that a dataset of some form has here: of a shard, or of what stands beside shards.
pub fn is_key(key: &str) -> bool {
    let digits = |text: &str, n: usize| text.len() >= n && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_split = |text: &str| Split::ALL.iter().any(|split| split.name() == text);
    let is_shard = |name: &str| -> Option<bool> {
        let (split, rest) = match name.strip_prefix("data/") {
            Some(name) => name.split_once('-')?,
            None => name.split_once(['-', '/'])?,
        };
        let numbers: Vec<&str> = match name.rsplit_once('.')?.1 {
            "parquet" => rest.strip_suffix(".parquet")?.split("-of-").collect(),
            "tar" => vec![rest.strip_suffix(".tar")?],
            "mds" => vec![rest.strip_prefix("shard.")?.strip_suffix(".mds")?],
            "json" => return Some(is_split(split) && rest == "index.json"),
            _ => return None,
        };
        Some(is_split(split) && numbers.iter().all(|number| digits(number, 5)))
    };
    ["README.md", "classes.txt"].contains(&key) || is_shard(key) == Some(true)
}

/// The bytes of a shard of these rows, of which the first is row `first` of its split.
///
/// # Errors
/// In one line, when a row does not fit the form: a file of 2 GiB.
pub fn shard(
    format: DatasetFormat,
    classes: &[String],
    (split, key): (Split, String),
    first: u64,
    rows: Vec<FileRow>,
) -> Result<(Bytes, WrittenShard), String> {
    let n = rows.len() as u64;
    let (bytes, encoding) = match format {
        DatasetFormat::Parquet => (parquet::shard(classes, &rows)?, ""),
        DatasetFormat::WebDataset => (webdataset::shard(classes, first, &rows)?, ""),
        DatasetFormat::Mds => mds::shard(classes, &rows)?,
    };
    let written = WrittenShard { split, key, rows: n, bytes: bytes.len() as u64, encoding };
    Ok((bytes, written))
}

/// What stands beside the shards, by its name: it makes them a dataset, and is written last.
pub fn beside(format: DatasetFormat, classes: &[String], shards: &[WrittenShard]) -> Vec<(String, Bytes)> {
    match format {
        DatasetFormat::Parquet => vec![("README.md".to_string(), parquet::card(classes, shards).into())],
        DatasetFormat::WebDataset => {
            let lines: String = classes.iter().map(|class| format!("{class}\n")).collect();
            vec![("classes.txt".to_string(), lines.into())]
        }
        DatasetFormat::Mds => Split::ALL
            .into_iter()
            .filter_map(|split| {
                let shards: Vec<&WrittenShard> = shards.iter().filter(|shard| shard.split == split).collect();
                (!shards.is_empty()).then(|| (format!("{split}/index.json"), mds::index(&shards).into()))
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{LayoutOptions, read};
    use crate::store::Store;
    use crate::words::Words;
    use futures::executor::block_on;

    #[test]
    fn names_of_shards_are_told_from_others() {
        for format in DatasetFormat::ALL {
            let shards: Vec<WrittenShard> = (0..2)
                .map(|index| WrittenShard {
                    split: Split::Test,
                    key: shard_key(*format, Split::Test, index, 2),
                    rows: 1,
                    bytes: 1,
                    encoding: "jpeg",
                })
                .collect();
            let beside = beside(*format, &[], &shards).into_iter().map(|(key, _)| key);
            for key in shards.iter().map(|shard| shard.key.clone()).chain(beside) {
                assert!(is_key(&key), "{key}");
            }
        }
        for key in
            ["../train-000000.tar", "train-x.tar", "cat/1.jpg", "photos/index.json", "data/train.parquet", ""]
        {
            assert!(!is_key(key), "{key}");
        }
    }

    #[test]
    fn what_is_written_in_each_form_comes_back_with_its_ids_classes_and_bytes() {
        let classes = ["cat".to_string(), "emu é".to_string()];
        let rows = |split: Split, n: usize| -> Vec<FileRow> {
            let of = |row: usize| FileRow {
                id: format!("{split}/a.b/{row} é.jpg").into(),
                label: (row % 2) as u32,
                bytes: vec![row as u8; 700 * row + 1].into(),
                extension: "jpg",
            };
            (0..n).map(of).collect()
        };
        for format in DatasetFormat::ALL {
            let store = Store::memory();
            let mut shards = Vec::new();
            let mut expected = Vec::new();
            for (split, n) in [(Split::Train, 5), (Split::Test, 2)] {
                let all = rows(split, n);
                let parts: Vec<&[FileRow]> = all.chunks(3).collect();
                for (index, part) in parts.iter().enumerate() {
                    let key = shard_key(*format, split, index, parts.len());
                    let made = shard(*format, &classes, (split, key), 3 * index as u64, part.to_vec());
                    let (bytes, written) = made.expect("a shard");
                    block_on(store.put(&written.key, bytes)).expect("an object");
                    shards.push(written);
                }
                expected.extend(all.into_iter().map(|row| (row.id, row.label, Some(split), row.bytes)));
            }
            for (key, bytes) in beside(*format, &classes, &shards) {
                block_on(store.put(&key, bytes)).expect("an object");
            }
            let catalog = block_on(read(&store, &LayoutOptions::default())).expect("a catalog");
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
        }
    }
}
