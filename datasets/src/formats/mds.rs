//! Shards of MosaicML Streaming, and the index that names them; the form is told at [`crate::catalog`]'s reader of them.

use serde_json::{Value, json};

use super::ListedShard;
use crate::catalog::{KeptColumn, json_of};
use crate::shard::{Row, ShardError};

/// What Streaming takes as the size of a shard where nobody says one; it only records it.
const SIZE_LIMIT: u64 = 1 << 26;

/// Bytes of a shard, which is in memory whole: its file begins with where each sample lies.
pub const SHARD_BYTES_MAX: u64 = 512 << 20;

/// A column: its name, its encoding, and its bytes where each value has as many.
type Column = (String, &'static str, Option<u64>);

/// The columns, sorted by name as Streaming has them. What is kept of the source is JSON, since a value may be missing.
fn columns(extensions: &[String], kept: &[KeptColumn]) -> Vec<Column> {
    let mut columns: Vec<Column> = vec![
        ("class_name".to_string(), "str", None),
        ("copy".to_string(), "int", Some(8)),
        ("id".to_string(), "str", None),
        ("image".to_string(), encoding(extensions), None),
        ("label".to_string(), "int", Some(8)),
    ];
    columns.extend(kept.iter().map(|column| (column.name.clone(), "json", None)));
    columns.sort();
    columns
}

/// The encoding of images: that of their files where it is one, so that Streaming decodes them, else bytes.
fn encoding(extensions: &[String]) -> &'static str {
    match extensions {
        [one] if one == "jpg" => "jpeg",
        [one] if one == "png" => "png",
        _ => "bytes",
    }
}

/// The bytes of a shard, whose images are files with these extensions.
pub(super) fn shard(
    classes: &[String],
    kept: &[KeptColumn],
    extensions: &[String],
    rows: &[Row],
) -> Result<Vec<u8>, ShardError> {
    let columns = columns(extensions, kept);
    let config = config(&columns);
    // No place in a shard is larger than a shard.
    let number = |value: usize| {
        u32::try_from(value).map_err(|_| ShardError::TooLarge("a value is larger than 4 GiB".to_string()))
    };
    let start = 4 * (rows.len() + 2) + config.len();
    let images: usize = rows.iter().map(|row| row.bytes.len() + 256).sum();
    let mut file = Vec::with_capacity(start + images);
    file.extend(number(rows.len())?.to_le_bytes());
    file.extend(number(start)?.to_le_bytes());
    file.resize(start - config.len(), 0);
    file.extend_from_slice(config.as_bytes());
    for (place, row) in rows.iter().enumerate() {
        let label = i64::from(row.label).to_le_bytes();
        let copy = i64::from(row.copy).to_le_bytes();
        let kept: Vec<(&str, String)> = (kept.iter().zip(&row.provenance.kept))
            .map(|(column, value)| (column.name.as_str(), json_of(column.kind, value).to_string()))
            .collect();
        let value = |name: &str| -> &[u8] {
            match name {
                "class_name" => classes[row.label as usize].as_bytes(),
                "copy" => &copy,
                "id" => row.id.as_bytes(),
                "image" => &row.bytes,
                "label" => &label,
                name => {
                    kept.iter().find(|(kept, _)| *kept == name).map_or(b"null", |(_, json)| json.as_bytes())
                }
            }
        };
        for (name, ..) in columns.iter().filter(|(.., size)| size.is_none()) {
            file.extend(number(value(name).len())?.to_le_bytes());
        }
        for (name, ..) in &columns {
            file.extend_from_slice(value(name));
        }
        let end = number(file.len())?.to_le_bytes();
        file[4 * (place + 2)..][..4].copy_from_slice(&end);
    }
    Ok(file)
}

fn config(columns: &[Column]) -> String {
    let mut described = described(columns);
    described["compression"] = Value::Null;
    described["format"] = "mds".into();
    described["hashes"] = json!([]);
    described["size_limit"] = SIZE_LIMIT.into();
    described["version"] = 2.into();
    described.to_string()
}

fn described(columns: &[Column]) -> Value {
    json!({
        "column_encodings": columns.iter().map(|(_, encoding, _)| encoding).collect::<Vec<_>>(),
        "column_names": columns.iter().map(|(name, ..)| name).collect::<Vec<_>>(),
        "column_sizes": columns.iter().map(|(.., size)| size).collect::<Vec<_>>(),
    })
}

/// The index of the shards of a split.
pub(super) fn index(kept: &[KeptColumn], shards: &[&ListedShard<'_>]) -> String {
    let shards = shards.iter().map(|shard| {
        let mut described = described(&columns(shard.extensions, kept));
        let name = shard.key.rsplit('/').next();
        described["compression"] = Value::Null;
        described["format"] = "mds".into();
        described["hashes"] = json!([]);
        described["raw_data"] = json!({"basename": name, "bytes": shard.bytes, "hashes": {}});
        described["samples"] = shard.rows.into();
        described["size_limit"] = SIZE_LIMIT.into();
        described["version"] = 2.into();
        described["zip_data"] = Value::Null;
        described
    });
    json!({"shards": shards.collect::<Vec<_>>(), "version": 2}).to_string()
}
