//! What a dataset says of itself: `plan.json` before the first shard, `manifest.json` after the last.
//!
//! A dataset exists if and only if its manifest does. No path, host name or time stands in either file, so that
//! the same plan gives the same bytes everywhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::sample::Split;
use crate::shard::{VALUE_COLUMNS, ascii_json};

/// The version of everything that is written; it is part of every fingerprint.
pub const FORMAT: u32 = 2;

/// The key of the plan, written first.
pub const PLAN_KEY: &str = "plan.json";
/// The key of the manifest, written last.
pub const MANIFEST_KEY: &str = "manifest.json";
/// The key of the list of rejected samples, one JSON object per line.
pub const REJECTS_KEY: &str = "rejects.jsonl";
/// The key of the dataset card that Hugging Face tools read.
pub const CARD_KEY: &str = "README.md";

/// `plan.json`: what a destination is going to hold, so that a rerun knows whether to resume or to refuse, and
/// what it may delete.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanRecord {
    /// [`FORMAT`].
    pub format: u32,
    /// The fingerprint: format, samples, split, settings of every stage, seeds.
    pub fingerprint: String,
    /// The settings behind the fingerprint, for people.
    pub settings: serde_json::Value,
    /// The keys of every shard.
    pub shards: Vec<String>,
    /// Samples that an earlier dataset put into another split than a fresh cut would: adding images moves no
    /// old one.
    pub pinned: BTreeMap<String, Split>,
}

/// Samples are conserved: `written + rejected + dropped = found`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Samples in the source, those that cannot be keys among them.
    pub found: u64,
    /// Samples that stand in the shards, each counted once.
    pub written: u64,
    /// Samples that a stage or the catalog refused.
    pub rejected: u64,
    /// Samples that the balance gave no copy.
    pub dropped: u64,
    /// Rows in the shards; copies count.
    pub rows: u64,
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
    /// Its size.
    pub bytes: u64,
    /// BLAKE3 of the whole file, in hex.
    pub blake3: String,
    /// Its rows, group by planned group; see [`crate::shard::Footer::groups`].
    pub groups: Vec<usize>,
}

impl ShardRecord {
    /// The number of rows.
    pub fn rows(&self) -> u64 {
        self.groups.iter().sum::<usize>() as u64
    }
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
    /// Whether augmentation changed training samples.
    pub augmented: bool,
    /// How an image became a row that was not augmented, as `forebay_stages::chain::Chain` writes it.
    pub chain: serde_json::Value,
    /// The settings of every stage, from image bytes to stored image, as the run file names them.
    pub settings: serde_json::Value,
    /// How the samples add up.
    pub counts: Counts,
    /// The splits that hold rows.
    pub splits: Vec<SplitSummary>,
    /// Every shard, by split and index.
    pub shards: Vec<ShardRecord>,
}

/// A manifest or plan that does not say what it should.
#[derive(Debug, thiserror::Error)]
#[error("{key} is not one of this version of Forebay: {reason}")]
pub struct ManifestError {
    key: &'static str,
    reason: String,
}

/// Writes a manifest or a plan: indented JSON, keys in the order of the fields, a line feed at the end.
pub fn to_json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("manifests are plain data");
    bytes.push(b'\n');
    bytes
}

impl Manifest {
    /// Reads `manifest.json`.
    ///
    /// # Errors
    /// [`ManifestError`] when it is damaged or of another format.
    pub fn parse(json: &[u8]) -> Result<Manifest, ManifestError> {
        parse(MANIFEST_KEY, json, |manifest: &Manifest| manifest.format)
    }
}

impl PlanRecord {
    /// Reads `plan.json`.
    ///
    /// # Errors
    /// [`ManifestError`] when it is damaged or of another format.
    pub fn parse(json: &[u8]) -> Result<PlanRecord, ManifestError> {
        parse(PLAN_KEY, json, |plan: &PlanRecord| plan.format)
    }
}

fn parse<T: for<'a> Deserialize<'a>>(
    key: &'static str,
    json: &[u8],
    format: impl Fn(&T) -> u32,
) -> Result<T, ManifestError> {
    let value: T =
        serde_json::from_slice(json).map_err(|error| ManifestError { key, reason: error.to_string() })?;
    match format(&value) {
        FORMAT => Ok(value),
        other => Err(ManifestError { key, reason: format!("format {other}, expected {FORMAT}") }),
    }
}

/// The dataset card: with it, `datasets.load_dataset(DIR)` finds splits, columns and class names without a guess.
/// It lists every column and true counts, since `datasets` refuses a card that does not.
pub fn card(manifest: &Manifest) -> String {
    let mut text = String::from("---\nconfigs:\n- config_name: default\n  data_files:\n");
    for SplitSummary { split, .. } in &manifest.splits {
        text += &format!("  - split: {split}\n    path: data/{split}-*\n");
    }
    text += "dataset_info:\n  features:\n  - name: image\n    dtype: image\n  - name: label\n    dtype:\n      class_label:\n        names:\n";
    for (label, name) in manifest.classes.iter().enumerate() {
        // A JSON string in ASCII is also a double-quoted YAML string.
        text += &format!("          '{label}': {}\n", ascii_json(name));
    }
    for (name, dtype) in VALUE_COLUMNS {
        text += &format!("  - name: {name}\n    dtype: {dtype}\n");
    }
    text += "  splits:\n";
    for SplitSummary { split, rows, bytes, .. } in &manifest.splits {
        text += &format!("  - name: {split}\n    num_bytes: {bytes}\n    num_examples: {rows}\n");
    }
    let bytes: u64 = manifest.splits.iter().map(|split| split.bytes).sum();
    text += &format!("  download_size: {bytes}\n  dataset_size: {bytes}\n---\n\n");
    text += &format!(
        "An image classification dataset of {} rows in {} classes, written by Forebay.\n",
        manifest.counts.rows,
        manifest.classes.len()
    );
    text += "`manifest.json` lists its shards with their checksums.\n";
    text
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
            augmented: false,
            chain: serde_json::json!({"resize": []}),
            settings: serde_json::json!({"seed": 0}),
            counts: Counts { found: 5, written: 3, rejected: 1, dropped: 1, rows: 4 },
            splits: vec![SplitSummary {
                split: Split::Train,
                rows: 4,
                bytes: 99,
                side_px: Some(64),
                classes: vec![],
            }],
            shards: vec![],
        }
    }

    #[test]
    fn a_manifest_comes_back_and_another_format_is_refused() {
        let json = to_json(&manifest());
        assert_eq!(Manifest::parse(&json).unwrap(), manifest());
        let newer = String::from_utf8(json).unwrap().replace("\"format\": 2", "\"format\": 3");
        let error = Manifest::parse(newer.as_bytes()).unwrap_err().to_string();
        assert_eq!(error, "manifest.json is not one of this version of Forebay: format 3, expected 2");
        assert!(Manifest::parse(b"{").is_err());
    }

    #[test]
    fn the_card_names_every_column_class_and_count() {
        let card = card(&manifest());
        for line in [
            "  - split: train\n    path: data/train-*",
            "          '1': \"yes: \\\"\\u00e9\\\"\"",
            "  - name: original_height\n    dtype: int32",
            "    num_examples: 4",
        ] {
            assert!(card.contains(line), "{line} in {card}");
        }
    }
}
