//! Tar files of WebDataset: ustar headers in which nothing but names and sizes differs from file to file.

use bytes::Bytes;

use super::FileRow;
use crate::catalog::FOREBAY_ID;

/// Each row as `KEY.jpg`, `KEY.cls` (its label as a number) and `KEY.json` (id, label and name of the class). The key is the
/// number of the row in its split: an id may have dots, which would end a key.
pub(super) fn shard(classes: &[String], first: u64, rows: &[FileRow]) -> Result<Bytes, String> {
    let images: usize = rows.iter().map(|row| row.bytes.len() + 4096).sum();
    let mut file = Vec::with_capacity(images + 1024);
    for (row, number) in rows.iter().zip(first..) {
        let json = serde_json::json!({
            FOREBAY_ID: &*row.id, "label": row.label, "class_name": classes[row.label as usize],
        });
        let json = json.to_string();
        for (extension, data) in [
            (row.extension, &row.bytes[..]),
            ("cls", row.label.to_string().as_bytes()),
            ("json", json.as_bytes()),
        ] {
            member(&mut file, &format!("{number:09}.{extension}"), data)?;
        }
    }
    // The end: two blocks of zeros.
    file.extend([0; 1024]);
    Ok(file.into())
}

fn member(file: &mut Vec<u8>, name: &str, data: &[u8]) -> Result<(), String> {
    // Eleven octal digits.
    if data.len() as u64 >= 1 << 33 {
        return Err(format!("a file of {} bytes is too large for a tar file", data.len()));
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
