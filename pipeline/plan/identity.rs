//! What makes a plan this plan.

use std::collections::BTreeMap;

use forebay_datasets::manifest::FORMAT;

use super::rows::Rows;

/// The identity of a plan: format version, (id, size, label) of every sample, split, the settings of every
/// stage and the seeds; never threads, places or times.
pub(crate) fn fingerprint(rows: &Rows, settings: &BTreeMap<String, serde_json::Value>) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut field = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    field(&format!("forebay plan {FORMAT}"));
    for (key, value) in settings {
        field(key);
        field(&value.to_string());
    }
    for class in &rows.catalog.classes {
        field(class);
    }
    for (entry, split) in rows.catalog.entries.iter().zip(&rows.splits) {
        field(&entry.id);
        field(&format!("{} {} {split}", entry.bytes, entry.label));
    }
    hasher.finalize().to_hex().to_string()
}

/// The identity of the images of a folder: (id, size) of each.
pub(crate) fn images_fingerprint(rows: &Rows) -> String {
    let mut hasher = blake3::Hasher::new();
    for entry in &rows.catalog.entries {
        hasher.update(&(entry.id.len() as u64).to_le_bytes()).update(entry.id.as_bytes());
        hasher.update(&entry.bytes.to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
