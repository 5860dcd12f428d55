//! What a dataset says of itself: `plan.json` before the first shard, `manifest.json` after the last.
//!
//! A dataset exists if and only if its manifest does. No path, host name or time stands in either file, so that
//! the same plan gives the same bytes everywhere. Each has a checksum of itself: one that was edited is damaged.

use serde::{Deserialize, Serialize};

use crate::catalog::KeptColumn;
use crate::escape::yaml;
use crate::formats::DatasetFormat;
use crate::sample::Split;
use crate::sealed::{seal, unseal};
use crate::shard::value_columns;
use crate::split::{Assignment, SplitRule};
use crate::words;

pub use crate::sealed::{FORMAT, ManifestError, to_json};

/// The key of the plan, written first.
pub const PLAN_KEY: &str = "plan.json";
/// The key of a plan that is about to take the place of another: written before anything of the other goes, and
/// deleted once all of it has gone.
pub const NEXT_PLAN_KEY: &str = "plan.next.json";
/// The key of the manifest, written last.
pub const MANIFEST_KEY: &str = "manifest.json";
/// The key of the list of rejected samples, one JSON object per line.
pub const REJECTS_KEY: &str = "rejects.jsonl";
/// The key of the dataset card that Hugging Face tools read.
pub const CARD_KEY: &str = "README.md";

/// `plan.json`: what a destination is going to hold, so that a rerun knows whether to resume or to refuse.
///
/// The assignment stands in it whole, and not in a file beside it: one put cannot be torn, so that a plan is never
/// there without the splits that it was made with. At 1.3 million samples that are about 50 MB, put once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanRecord {
    /// [`FORMAT`].
    pub format: u32,
    /// The fingerprint: format, samples, split, settings of every stage, seeds.
    pub fingerprint: String,
    /// The settings behind the fingerprint, by key.
    pub settings: serde_json::Value,
    /// The names of the classes, which are part of it too.
    pub classes: Vec<String>,
    /// Every shard that the dataset is going to have, by split and index.
    pub shards: Vec<ShardPlan>,
    /// Which versions of its files the samples of the source were when they were grouped.
    #[serde(default)]
    pub versions: String,
    /// The split of every sample of the source.
    pub assignment: Assignment,
}

/// One shard of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardPlan {
    /// Its key.
    pub key: String,
    /// What its bytes are a function of; see [`crate::shard::Footer::fingerprint`].
    pub fingerprint: String,
    /// Which versions of its files it was made from: a digest of ids and of what the store says of their versions.
    /// It stands in no other file, since it differs between copies of the same source.
    pub versions: String,
}

/// `plan.next.json`: the plan that is taking the place of another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replacement {
    /// [`FORMAT`].
    pub format: u32,
    /// The plan that is to be `plan.json`.
    pub plan: PlanRecord,
    /// The keys of shards that are to go.
    pub delete: Vec<String>,
}

/// How the rows of a split are ordered in its shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum RowOrder {
    /// By a hash of each, so that every shard is a fair mixture.
    Shuffled {
        /// The seed of the hash.
        seed: u64,
    },
    /// As the source names them.
    Source,
}

/// What the images of a dataset are stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredFormat {
    /// JPEG files.
    Jpeg,
    /// PNG files.
    Png,
    /// Binary PPM files.
    Raw,
    /// The files of the source, byte for byte.
    Kept,
}
words!(StoredFormat { Jpeg => "jpeg", Png => "png", Raw => "raw", Kept => "kept" });

/// Samples are conserved: `written + rejected + dropped = found`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Samples in the source, those that cannot be keys among them.
    pub found: u64,
    /// Samples that stand in the shards, each counted once.
    pub written: u64,
    /// Samples that a stage or the catalog refused.
    pub rejected: u64,
    /// Samples that the balance gave no copy, and those that a person has dropped by `fixes.csv`.
    pub dropped: u64,
    /// Rows in the shards; copies count.
    pub rows: u64,
}

/// What a person has mended in the labels of the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixedLabels {
    /// Samples that became those of another class.
    pub relabelled: u64,
    /// Samples that were left out; they are among [`Counts::dropped`].
    pub dropped: u64,
    /// Samples that were looked at and stay as they are.
    pub kept: u64,
}

/// One class of one split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCount {
    /// The name of the class.
    pub name: String,
    /// Samples that the split gave it.
    pub samples: u64,
    /// Rows that stand in the shards, after balance and rejects.
    pub rows: u64,
}

/// One split of the dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitSummary {
    /// Which.
    pub split: Split,
    /// Rows in its shards.
    pub rows: u64,
    /// Bytes of its shards.
    pub bytes: u64,
    /// The width and height of its rows as they are stored, where they are all the same squares; pixels.
    pub side_px: Option<u32>,
    /// Every class in the order of the labels.
    pub classes: Vec<ClassCount>,
}

/// One shard file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRecord {
    /// Its key in the dataset.
    pub key: String,
    /// The split it belongs to.
    pub split: Split,
    /// What its bytes are a function of; see [`crate::shard::Footer::fingerprint`].
    pub fingerprint: String,
    /// Its size.
    pub bytes: u64,
    /// BLAKE3 of the whole file, in hex.
    pub blake3: String,
    /// Its rows, group by planned group; see [`crate::shard::Footer::groups`].
    pub groups: Vec<usize>,
    /// Of a shard of Forebay: its index, as [`crate::shard::Index::unpack`] reads it, so that whoever has the manifest need not
    /// ask the store for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
}

/// A file that stands among the shards and tells other programs of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BesideRecord {
    /// Its key in the dataset.
    pub key: String,
    /// Its size.
    pub bytes: u64,
    /// BLAKE3 of it, in hex.
    pub blake3: String,
}

impl ShardRecord {
    /// The number of rows.
    pub fn rows(&self) -> u64 {
        self.groups.iter().sum::<usize>() as u64
    }
}

/// How training samples were changed at random: with the id and the copy of a row, all that its draws follow from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AugmentRecord {
    /// The seed of the draws.
    pub seed: u64,
    /// The changes, as `forebay_stages::augment::Augment` writes them.
    pub changes: serde_json::Value,
    /// Whether each class is rare, where rare ones are changed in another way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_rare: Option<Vec<bool>>,
}

/// `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// That of the plan.
    pub fingerprint: String,
    /// Class names; a label is an index into them.
    pub classes: Vec<String>,
    /// Whether balancing repeated or dropped training samples.
    pub balanced: bool,
    /// How training samples were changed at random; `None` where they were not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augment: Option<AugmentRecord>,
    /// How an image became a row that was not augmented, as `forebay_stages::chain::Chain` writes it.
    pub chain: serde_json::Value,
    /// What decided the split of each sample.
    pub split_rule: SplitRule,
    /// How the rows of each split are ordered.
    pub row_order: RowOrder,
    /// What the stored images are.
    pub stored_format: StoredFormat,
    /// The form of the shards.
    #[serde(default)]
    pub dataset_format: DatasetFormat,
    /// The settings of every stage, from image bytes to stored image, as the run file names them. They are for people:
    /// what a program reads back has a field of its own.
    pub settings: serde_json::Value,
    /// What was mended in the labels of the source; `None` where nothing was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixes: Option<FixedLabels>,
    /// The columns of the source that rows keep.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<KeptColumn>,
    /// How the samples add up.
    pub counts: Counts,
    /// The splits that hold rows.
    pub splits: Vec<SplitSummary>,
    /// What stands among the shards for other programs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<BesideRecord>,
    /// Every shard, by split and index.
    pub shards: Vec<ShardRecord>,
}

impl Manifest {
    /// Reads `manifest.json`.
    ///
    /// # Errors
    /// [`ManifestError`] says what it is instead.
    pub fn parse(json: &[u8]) -> Result<Manifest, ManifestError> {
        unseal(MANIFEST_KEY, json, &["format", "fingerprint"])
    }

    /// `manifest.json`, with its checksum.
    pub fn to_bytes(&self) -> Vec<u8> {
        seal(self)
    }
}

impl PlanRecord {
    /// Reads `plan.json`.
    ///
    /// # Errors
    /// [`ManifestError`] says what it is instead.
    pub fn parse(json: &[u8]) -> Result<PlanRecord, ManifestError> {
        unseal(PLAN_KEY, json, &["format", "fingerprint"])
    }

    /// `plan.json`, with its checksum.
    pub fn to_bytes(&self) -> Vec<u8> {
        seal(self)
    }
}

impl Replacement {
    /// Reads `plan.next.json`.
    ///
    /// # Errors
    /// [`ManifestError`] says what it is instead.
    pub fn parse(json: &[u8]) -> Result<Replacement, ManifestError> {
        unseal(NEXT_PLAN_KEY, json, &["plan", "delete"])
    }

    /// `plan.next.json`, with its checksum.
    pub fn to_bytes(&self) -> Vec<u8> {
        seal(self)
    }
}

/// The dataset card: with it, `datasets.load_dataset(DIR)` finds splits, columns and class names without a guess.
/// It lists every column and true counts, since `datasets` refuses a card that does not.
pub fn card(manifest: &Manifest) -> String {
    let splits: Vec<(Split, u64, u64)> =
        manifest.splits.iter().map(|split| (split.split, split.rows, split.bytes)).collect();
    let mut text = format!(
        "An image classification dataset of {} rows in {} classes, written by Forebay.\n",
        manifest.counts.rows,
        manifest.classes.len()
    );
    text += "`manifest.json` lists its shards with their checksums.\n";
    if let Some(FixedLabels { relabelled, dropped, .. }) = manifest.fixes {
        text += &format!(
            "Of the images of the source, {relabelled} were relabelled and {dropped} left out by a person who looked at them.\n"
        );
    }
    front_matter(&manifest.classes, &value_columns(&manifest.kept), &splits) + &text
}

/// What a dataset card begins with: columns beside image and label, each with its type, and splits with their rows and bytes.
fn front_matter(classes: &[String], columns: &[(&str, &str)], splits: &[(Split, u64, u64)]) -> String {
    let mut text = String::from("---\nconfigs:\n- config_name: default\n  data_files:\n");
    for (split, ..) in splits {
        text += &format!("  - split: {split}\n    path: data/{split}-*\n");
    }
    text += "dataset_info:\n  features:\n  - name: image\n    dtype: image\n  - name: label\n    dtype:\n      class_label:\n        names:\n";
    for (label, name) in classes.iter().enumerate() {
        text += &format!("          '{label}': {}\n", yaml(name));
    }
    for (name, dtype) in columns {
        text += &format!("  - name: {}\n    dtype: {dtype}\n", yaml(name));
    }
    text += "  splits:\n";
    for (split, rows, bytes) in splits {
        text += &format!("  - name: {split}\n    num_bytes: {bytes}\n    num_examples: {rows}\n");
    }
    let bytes: u64 = splits.iter().map(|(.., bytes)| bytes).sum();
    text + &format!("  download_size: {bytes}\n  dataset_size: {bytes}\n---\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            fingerprint: "abc".into(),
            classes: vec!["cat".into(), "yes: \"é\"".into()],
            balanced: false,
            augment: None,
            chain: serde_json::json!({"resize": []}),
            split_rule: SplitRule::Declared,
            row_order: RowOrder::Shuffled { seed: 3 },
            stored_format: StoredFormat::Raw,
            dataset_format: DatasetFormat::Parquet,
            settings: serde_json::json!({"seed": 0}),
            fixes: None,
            kept: vec![],
            counts: Counts { found: 5, written: 3, rejected: 1, dropped: 1, rows: 4 },
            splits: vec![SplitSummary {
                split: Split::Train,
                rows: 4,
                bytes: 99,
                side_px: Some(64),
                classes: vec![],
            }],
            beside: vec![],
            shards: vec![],
        }
    }

    #[test]
    fn a_manifest_comes_back_and_another_format_is_refused() {
        let json = manifest().to_bytes();
        let read = Manifest::parse(&json).unwrap();
        assert_eq!(read, manifest());
        let edited = String::from_utf8(json.clone()).unwrap().replace("\"found\": 5", "\"found\": 6");
        assert!(Manifest::parse(edited.as_bytes()).unwrap_err().to_string().contains("by its checksum"));
        let newer = String::from_utf8(json.clone()).unwrap().replace("\"format\": 4", "\"format\": 5");
        let error = Manifest::parse(newer.as_bytes()).unwrap_err().to_string();
        assert_eq!(
            error,
            "manifest.json was written by another version of Forebay (format 5, this one writes 4)"
        );
        for (bytes, what) in [
            (&json[..json.len() / 2], "is damaged"),
            (&b""[..], "is damaged"),
            (br#"{"format": 4, "fingerprint": 7}"#, "is damaged"),
            (br#"{"name": "a web app", "icons": []}"#, "was not written by Forebay"),
            (b"[1, 2]", "was not written by Forebay"),
            (b"hello", "is no JSON"),
        ] {
            let error = Manifest::parse(bytes).unwrap_err().to_string();
            assert!(error.contains(what), "{error}: {what}");
        }
    }

    #[test]
    fn what_is_read_back_of_a_manifest_is_typed_and_a_malformed_value_is_damage() {
        let text = String::from_utf8(manifest().to_bytes()).unwrap();
        for (from, to) in [
            (r#""by": "declared""#, r#""by": "hash", "shares": [0.9, 0.9, 0.9], "seed": 1"#),
            (r#""by": "shuffled""#, r#""by": "chance""#),
            (r#""stored_format": "raw""#, r#""stored_format": "webp""#),
        ] {
            assert!(text.contains(from), "{from} in {text}");
            let mut edited: serde_json::Value = serde_json::from_str(&text.replace(from, to)).unwrap();
            edited.as_object_mut().unwrap().remove("checksum");
            let error = Manifest::parse(&seal(&edited)).unwrap_err().to_string();
            assert!(error.contains("is damaged") && !error.contains("checksum"), "{to}: {error}");
        }
    }

    #[test]
    fn the_card_names_every_column_class_and_count() {
        let card = card(&manifest());
        for line in [
            "  - split: train\n    path: data/train-*",
            "          '1': \"yes: \\\"é\\\"\"",
            "  - name: \"original_height\"\n    dtype: int32",
            "  - name: \"source_blake3\"\n    dtype: string",
            "    num_examples: 4",
        ] {
            assert!(card.contains(line), "{line} in {card}");
        }
    }
}
