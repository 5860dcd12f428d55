//! JSON files of ours: each carries the checksum of itself, so that one that was cut, edited or flipped in a byte is
//! damaged to whoever reads it, and never taken for another dataset.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::escape::one_line;

/// The version of everything that is written; it is part of every fingerprint.
pub const FORMAT: u32 = 4;

/// The field that holds the checksum.
const CHECKSUM: &str = "checksum";

/// What stands under the key of a manifest or a plan, and is none that this version can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is no work of Forebay: leave it alone.
    #[error("{key} was not written by Forebay")]
    Foreign {
        /// Its key.
        key: &'static str,
    },
    /// It is not even JSON, and nothing in it says who wrote it: damaged, where ours stands beside it.
    #[error("{key} is no JSON")]
    Unknown {
        /// Its key.
        key: &'static str,
    },
    /// Another version of Forebay wrote it: make the dataset anew.
    #[error("{key} was written by another version of Forebay (format {format}, this one writes {FORMAT})")]
    OtherFormat {
        /// Its key.
        key: &'static str,
        /// The version of its format.
        format: u64,
    },
    /// It was cut short or changed: make it again.
    #[error("{key} is damaged: {reason}")]
    Damaged {
        /// Its key.
        key: &'static str,
        /// What is wrong, in one line.
        reason: String,
    },
}

impl ManifestError {
    /// Whether the file says by itself that Forebay wrote it.
    pub fn is_ours(&self) -> bool {
        match self {
            ManifestError::OtherFormat { .. } | ManifestError::Damaged { .. } => true,
            ManifestError::Foreign { .. } | ManifestError::Unknown { .. } => false,
        }
    }
}

/// Writes plain data as we write it: indented JSON, keys in the order of the fields, a line feed at the end.
pub fn to_json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("manifests are plain data");
    bytes.push(b'\n');
    bytes
}

#[derive(Serialize)]
struct Sealed<'a, T> {
    #[serde(flatten)]
    value: &'a T,
    checksum: String,
}

/// The file of a value, with its checksum as the last field.
pub(crate) fn seal(value: &impl Serialize) -> Vec<u8> {
    // Of what a reader will find, so that it does not matter how a number is held before it is written.
    let written = serde_json::from_slice(&to_json(value)).expect("our own JSON");
    to_json(&Sealed { value, checksum: digest(&written) })
}

/// BLAKE3 of the fields without the checksum, in hex: keys sorted, no white space.
fn digest(fields: &Value) -> String {
    blake3::hash(&serde_json::to_vec(fields).expect("JSON")).to_hex().to_string()
}

/// Reads a file that [`seal`] made. JSON without any of `marks` is another program's; a file that is no JSON is taken
/// for a damaged one of ours where it still holds a mark, or nothing.
///
/// # Errors
/// [`ManifestError`] says what it is instead.
pub(crate) fn unseal<T: for<'a> Deserialize<'a>>(
    key: &'static str,
    json: &[u8],
    marks: &[&str],
) -> Result<T, ManifestError> {
    let damaged = |reason: String| ManifestError::Damaged { key, reason: one_line(&reason).into_owned() };
    let mut value: Value = match serde_json::from_slice(json) {
        Ok(value) => value,
        Err(error) => {
            let text = String::from_utf8_lossy(json);
            let is_ours = json.is_empty() || marks.iter().any(|mark| text.contains(&format!("\"{mark}\":")));
            return Err(if is_ours { damaged(error.to_string()) } else { ManifestError::Unknown { key } });
        }
    };
    if marks.iter().all(|mark| value.get(mark).is_none()) {
        return Err(ManifestError::Foreign { key });
    }
    match value.get("format").and_then(Value::as_u64) {
        Some(format) if format != u64::from(FORMAT) => {
            return Err(ManifestError::OtherFormat { key, format });
        }
        _ => {}
    }
    let checksum = value.as_object_mut().and_then(|fields| fields.remove(CHECKSUM));
    if checksum.as_ref().and_then(Value::as_str) != Some(&digest(&value)) {
        return Err(damaged("it is not what was written, by its checksum".to_string()));
    }
    serde_json::from_value(value).map_err(|error| damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Record {
        format: u32,
        share: f32,
        names: Vec<String>,
    }

    #[test]
    fn a_bit_that_is_flipped_anywhere_is_never_another_value() {
        let record = Record { format: FORMAT, share: 0.1, names: vec!["a\u{85}".into(), "b".into()] };
        let file = seal(&record);
        assert_eq!(unseal::<Record>("x.json", &file, &["names"]), Ok(record.clone()));
        for place in 0..file.len() * 8 {
            let mut flipped = file.clone();
            flipped[place / 8] ^= 1 << (place % 8);
            let read = unseal::<Record>("x.json", &flipped, &["names"]);
            assert!(read.is_err(), "bit {place}: {read:?}");
        }
    }

    #[test]
    fn a_field_that_is_added_or_taken_away_is_damage() {
        let record = Record { format: FORMAT, share: 0.1, names: vec![] };
        let file = String::from_utf8(seal(&record)).expect("UTF-8");
        for edited in [
            file.replacen('{', "{\"more\": 1,", 1),
            file.replacen("\"names\"", "\"nameless\": [], \"names\"", 1),
            file.replacen("\"checksum\"", "\"checked\"", 1),
        ] {
            assert_ne!(edited, file);
            let error = unseal::<Record>("x.json", edited.as_bytes(), &["names"]).unwrap_err();
            assert!(error.to_string().contains("by its checksum"), "{error}");
        }
    }
}
