//! Tar files of WebDataset: ustar headers in which nothing but names and sizes differs from file to file.

use serde_json::json;

use crate::catalog::{FOREBAY_ID, KeptColumn, json_of};
use crate::shard::{Row, ShardError};

/// Appends a row as `KEY.jpg`, `KEY.cls` (its label as a number) and `KEY.json` (id, copy, label and name of the class, and
/// what is kept of the source). The key is the number of the row in its split: an id may have dots, which would end a key.
pub(super) fn row(
    file: &mut Vec<u8>,
    classes: &[String],
    kept: &[KeptColumn],
    number: u64,
    row: &Row,
) -> Result<(), ShardError> {
    let mut json = json!({
        FOREBAY_ID: &*row.id, "copy": row.copy, "label": row.label, "class_name": classes[row.label as usize],
    });
    for (column, value) in kept.iter().zip(&row.provenance.kept) {
        json[&column.name] = json_of(column.kind, value);
    }
    let (label, json) = (row.label.to_string(), json.to_string());
    for (extension, data) in
        [(row.extension, &row.bytes[..]), ("cls", label.as_bytes()), ("json", json.as_bytes())]
    {
        member(file, &format!("{number:09}.{extension}"), data)?;
    }
    Ok(())
}

/// Appends the end: two blocks of zeros.
pub(super) fn end(file: &mut Vec<u8>) {
    file.extend([0; 1024]);
}

fn member(file: &mut Vec<u8>, name: &str, data: &[u8]) -> Result<(), ShardError> {
    // Eleven octal digits.
    if data.len() as u64 >= 1 << 33 {
        return Err(ShardError::TooLarge(format!(
            "a file of {} bytes is too large for a tar file",
            data.len()
        )));
    }
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    file.extend(header);
    file.extend_from_slice(data);
    file.resize(file.len().next_multiple_of(512), 0);
    Ok(())
}
