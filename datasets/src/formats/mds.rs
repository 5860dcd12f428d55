//! Shards of MosaicML Streaming, and the index that names them; the form is told at [`crate::catalog`]'s reader of them.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{FileRow, WrittenShard};

/// What Streaming takes as the size of a shard where nobody says one; it only records it.
const SIZE_LIMIT: u64 = 1 << 26;

/// The columns, sorted by name as Streaming has them, with their encodings; that of the images is `image`.
fn columns(image: &str) -> [(&'static str, String, Option<u64>); 4] {
    [
        ("class_name", "str".to_string(), None),
        ("id", "str".to_string(), None),
        ("image", image.to_string(), None),
        ("label", "int".to_string(), Some(8)),
    ]
}

/// The bytes of a shard, and the encoding of its images: that of their files where it is one, so that Streaming decodes
/// them, else bytes.
pub(super) fn shard(classes: &[String], rows: &[FileRow]) -> Result<(Bytes, &'static str), String> {
    let is_all = |extension: &str| rows.iter().all(|row| row.extension == extension);
    let encoding = if is_all("jpg") {
        "jpeg"
    } else if is_all("png") {
        "png"
    } else {
        "bytes"
    };
    let config = config(encoding);
    let too_large = || "a shard is larger than 4 GiB: give fewer --samples-per-shard".to_string();
    let number = |value: usize| u32::try_from(value).map_err(|_| too_large());
    let mut samples = Vec::new();
    let mut ends = Vec::with_capacity(rows.len());
    for row in rows {
        let name = classes[row.label as usize].as_bytes();
        for bytes in [name, row.id.as_bytes(), &row.bytes] {
            samples.extend(number(bytes.len())?.to_le_bytes());
        }
        for bytes in [name, row.id.as_bytes(), &row.bytes] {
            samples.extend_from_slice(bytes);
        }
        samples.extend(i64::from(row.label).to_le_bytes());
        ends.push(samples.len());
    }
    let start = 4 * (rows.len() + 2) + config.len();
    let mut file = number(rows.len())?.to_le_bytes().to_vec();
    for place in std::iter::once(0).chain(ends) {
        file.extend(number(start + place)?.to_le_bytes());
    }
    file.extend_from_slice(config.as_bytes());
    file.extend(samples);
    Ok((file.into(), encoding))
}

fn config(image: &str) -> String {
    let mut described = described(image);
    described["compression"] = Value::Null;
    described["format"] = "mds".into();
    described["hashes"] = json!([]);
    described["size_limit"] = SIZE_LIMIT.into();
    described["version"] = 2.into();
    described.to_string()
}

fn described(image: &str) -> Value {
    let columns = columns(image);
    json!({
        "column_encodings": columns.iter().map(|(_, encoding, _)| encoding).collect::<Vec<_>>(),
        "column_names": columns.iter().map(|(name, ..)| name).collect::<Vec<_>>(),
        "column_sizes": columns.iter().map(|(.., size)| size).collect::<Vec<_>>(),
    })
}

/// The index of the shards of a split.
pub(super) fn index(shards: &[&WrittenShard]) -> String {
    let shards = shards.iter().map(|shard| {
        let mut described = described(shard.encoding);
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
