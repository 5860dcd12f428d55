//! The zip archive that `torch.save` writes since PyTorch 1.6.

use std::collections::BTreeMap;

/// Files of one archive: one for the values of each tensor, and a few more.
const ENTRIES_MAX: usize = 1 << 17;

/// The files of an archive by name, in whose bytes they lie as they are: `torch.save` compresses nothing.
pub(super) fn zip_entries(bytes: &[u8]) -> Result<BTreeMap<&str, &[u8]>, String> {
    let cut = || "a zip archive that is cut short or damaged: download it again".to_owned();
    let number = |at: usize, width: usize| -> Result<usize, String> {
        let field = at.checked_add(width).and_then(|end| bytes.get(at..end)).ok_or_else(cut)?;
        let value = field.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).map_err(|_| cut())
    };
    let has =
        |at: usize, signature: &[u8; 4]| bytes.get(at..).is_some_and(|rest| rest.starts_with(signature));
    // The record at the end may be followed by a comment of at most 64 KiB.
    let last = bytes.len().checked_sub(22).ok_or_else(cut)?;
    let end =
        (last.saturating_sub(65_535)..=last).rev().find(|&at| has(at, b"PK\x05\x06")).ok_or_else(cut)?;
    let (mut count, mut directory) = (number(end + 10, 2)?, number(end + 16, 4)?);
    if let Some(locator) = end.checked_sub(20).filter(|&at| has(at, b"PK\x06\x07")) {
        let record = number(locator + 8, 8)?;
        if !has(record, b"PK\x06\x06") {
            return Err(cut());
        }
        (count, directory) = (number(record + 32, 8)?, number(record + 48, 8)?);
    }
    if count > ENTRIES_MAX {
        return Err(format!("the archive says that it holds {count} files, which no list of tensors needs"));
    }
    let mut entries = BTreeMap::new();
    let mut at = directory;
    for _ in 0..count {
        if !has(at, b"PK\x01\x02") {
            return Err(cut());
        }
        let method = number(at + 10, 2)?;
        let (mut packed, mut size, mut header) =
            (number(at + 20, 4)?, number(at + 24, 4)?, number(at + 42, 4)?);
        let (name_length, extra_length) = (number(at + 28, 2)?, number(at + 30, 2)?);
        let name = bytes.get(at + 46..at + 46 + name_length).ok_or_else(cut)?;
        let name = std::str::from_utf8(name).map_err(|_| cut())?;
        // Sizes and places beyond 32 bits stand in an extra field, those that need it, in this order.
        let mut extra = at + 46 + name_length;
        let extra_end = extra + extra_length;
        while extra + 4 <= extra_end {
            let (id, length) = (number(extra, 2)?, number(extra + 2, 2)?);
            if id == 1 {
                let mut field = extra + 4;
                for value in [&mut size, &mut packed, &mut header] {
                    if *value == 0xffff_ffff {
                        *value = number(field, 8)?;
                        field += 8;
                    }
                }
            }
            extra += 4 + length;
        }
        if method != 0 || packed != size {
            return Err(format!("{name} is compressed in the archive, which torch.save does not do"));
        }
        if !has(header, b"PK\x03\x04") {
            return Err(cut());
        }
        let start = header + 30 + number(header + 26, 2)? + number(header + 28, 2)?;
        let data = start.checked_add(size).and_then(|end| bytes.get(start..end)).ok_or_else(cut)?;
        if entries.insert(name, data).is_some() {
            return Err(format!("the archive holds {name} twice"));
        }
        at = extra_end + number(at + 32, 2)?;
    }
    Ok(entries)
}
