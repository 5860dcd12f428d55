//! PyTorch's `.pth` and `.bin` files as data: a pickle is a program, and nothing of it is run here.
//!
//! Both forms are read: the zip archive that `torch.save` writes since 1.6, and the stream of pickles before it.
//! The reader works on the bytes of the file and borrows from them. It keeps objects in one list and refers to
//! them by number, so that nesting costs no stack and sharing costs no copy; what a file can make it allocate is
//! bounded by the size of the file.

mod pickle;
mod state_dict;
mod tensors;
mod zip;

use std::collections::BTreeMap;

use super::stored::Stored;
use pickle::{Machine, Node};
use zip::zip_entries;

/// What a state dict holds by name, and the key of a checkpoint under which it was found.
type StateDict<'a> = (BTreeMap<String, Stored<'a>>, Option<String>);

/// Bytes of one pickle in an archive, which holds names and shapes and no values.
const PICKLE_BYTES_MAX: usize = 64 << 20;

/// Bytes that the objects of a state dict may take: some ten thousand tensors with the state of their optimiser. While a
/// list of them grows, the old one and one of twice its length are there at a time, so that a file may take three times as
/// much for a moment, which with the rest stays within 64 MiB beyond its own size.
const OBJECT_BYTES_MAX: usize = 16 << 20;

/// The same of the other pickles of a legacy file: numbers, and the keys of the storages.
const SMALL_BYTES_MAX: usize = 4 << 20;

/// What the pickle of a legacy file starts with, after its two bytes of protocol: the number
/// `0x1950a86a20f9469cfc6c`, then stop.
const LEGACY_MAGIC: &[u8] = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// True for a zip archive.
pub(super) fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06")
}

/// True for what `torch.save` wrote before 1.6.
pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    bytes.len() > 2 && bytes[0] == 0x80 && bytes[2..].starts_with(LEGACY_MAGIC)
}

/// What the state dict of a file holds by name, and the key it was found under, if any.
///
/// # Errors
/// With one sentence when the file is cut short, damaged, asks to run code, or holds no state dict.
pub(super) fn read(bytes: &[u8]) -> Result<StateDict<'_>, String> {
    if is_legacy(bytes) { read_legacy(bytes) } else { read_archive(bytes) }
}

fn read_archive(bytes: &[u8]) -> Result<StateDict<'_>, String> {
    let entries = zip_entries(bytes)?;
    let mut pickles = entries.keys().filter(|name| **name == "data.pkl" || name.ends_with("/data.pkl"));
    let (Some(pickle), None) = (pickles.next(), pickles.next()) else {
        return Err("a zip archive, but not one of torch.save, which holds one data.pkl".to_owned());
    };
    let folder = &pickle[..pickle.len() - "data.pkl".len()];
    let entry = |name: &str| entries.get(format!("{folder}{name}").as_str()).copied();
    if entry("constants.pkl").is_some() {
        return Err(
            "a TorchScript archive, which holds a program; save the state_dict() of the network instead"
                .to_owned(),
        );
    }
    if entry("byteorder").is_some_and(|order| order != b"little") {
        return Err("written on a big-endian machine, which is not supported".to_owned());
    }
    let data = entries[pickle];
    if data.len() > PICKLE_BYTES_MAX {
        return Err(format!("its pickle has {} bytes, which is no list of tensors", data.len()));
    }
    let (machine, root, _) = Machine::run(data, OBJECT_BYTES_MAX)?;
    let storages = |key: &str| {
        entry(&format!("data/{key}")).ok_or_else(|| format!("the archive lacks the values data/{key}"))
    };
    machine.state_dict(root, bytes.len(), storages)
}

fn read_legacy(bytes: &[u8]) -> Result<StateDict<'_>, String> {
    let legacy = |reason: String| format!("a legacy PyTorch file (before 1.6): {reason}");
    // Magic number, protocol version and a description of the machine come first.
    let mut rest = bytes;
    for _ in 0..3 {
        let (.., end) = Machine::run(rest, SMALL_BYTES_MAX).map_err(legacy)?;
        rest = &rest[end..];
    }
    let (machine, root, end) = Machine::run(rest, OBJECT_BYTES_MAX).map_err(legacy)?;
    rest = &rest[end..];
    let (keys, list, end) = Machine::run(rest, SMALL_BYTES_MAX).map_err(legacy)?;
    rest = &rest[end..];
    let Node::List(list) = keys.node(list) else {
        return Err(legacy("it lists no storages".to_owned()));
    };
    let widths: BTreeMap<&str, usize> = machine
        .nodes()
        .filter_map(|node| match node {
            Node::Storage { key, element } => Some((*key, element.bytes())),
            _ => None,
        })
        .collect();
    let mut storages: BTreeMap<&str, &[u8]> = BTreeMap::new();
    for key in list {
        let Node::Text(key) = keys.node(*key) else {
            return Err(legacy("the name of a storage is no text".to_owned()));
        };
        let cut = || legacy(format!("cut short in the values of storage {key}"));
        let (count, values) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
        let width = widths.get(key).ok_or_else(|| legacy(format!("no tensor has the storage {key}")))?;
        let length = usize::try_from(i64::from_le_bytes(*count)).ok().and_then(|n| n.checked_mul(*width));
        let (values, after) = length.and_then(|length| values.split_at_checked(length)).ok_or_else(cut)?;
        storages.insert(key, values);
        rest = after;
    }
    machine.state_dict(root, bytes.len(), |key| {
        storages.get(key).copied().ok_or_else(|| legacy(format!("it lacks the storage {key}")))
    })
}

#[cfg(test)]
mod tests;
