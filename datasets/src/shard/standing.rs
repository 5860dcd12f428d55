//! What a file is that stands where a shard would: ours, damaged, or another program's.

use super::{FOOTER_KEY, Footer};
use crate::columns::{TAIL_BYTES, end_bytes, metadata};
use crate::store::{Store, StoreError};

/// What a file is that stands where a shard would, as far as its end tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "each is looked at and gone")]
pub enum StandingShard {
    /// A shard of Forebay; its footer where it is one of this version.
    Ours(Option<Footer>),
    /// No Parquet file that can be opened: what a shard becomes that lost bytes, and anything else. Also a file that tells
    /// other programs of shards, since nothing in it says who wrote it.
    Damaged,
    /// A file of another program.
    Foreign,
}

/// Tells what stands under `key`, a file of `bytes` bytes, by its end.
///
/// # Errors
/// When the store fails; a file that is gone meanwhile counts as damaged.
pub async fn standing(store: &Store, key: &str, bytes: u64) -> Result<StandingShard, StoreError> {
    if bytes < TAIL_BYTES {
        return Ok(StandingShard::Damaged);
    }
    let read = async |range| match store.get_range(key, range).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.loses_only_this_object() => Ok(None),
        Err(error) => Err(error),
    };
    let Some(tail) = read(bytes - TAIL_BYTES..bytes).await? else { return Ok(StandingShard::Damaged) };
    let Some(end) = end_bytes(&tail).ok().filter(|end| *end <= bytes) else {
        return Ok(StandingShard::Damaged);
    };
    let Some(end) = read(bytes - end..bytes - TAIL_BYTES).await? else { return Ok(StandingShard::Damaged) };
    let Ok(metadata) = metadata(&end, bytes) else {
        return Ok(StandingShard::Damaged);
    };
    let pairs = metadata.file_metadata().key_value_metadata();
    let ours = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == FOOTER_KEY));
    Ok(match ours {
        Some(pair) => {
            StandingShard::Ours(pair.value.as_deref().and_then(|json| serde_json::from_str(json).ok()))
        }
        None => StandingShard::Foreign,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::executor::block_on;

    use super::super::{Index, Row, encode};
    use super::*;
    use crate::sample::Split;

    fn footer() -> Footer {
        Footer { fingerprint: "f".into(), ..Footer::of(Split::Train, 0) }
    }

    #[test]
    fn no_byte_of_a_footer_that_is_flipped_or_lost_makes_a_panic() {
        let rows: Vec<Row> = (0..3u32)
            .map(|i| Row {
                bytes: Bytes::from(vec![i as u8; 20]),
                label: 0,
                id: format!("a/{i}").into(),
                copy: 0,
                size: (1, 1),
                original_size: (1, 1),
                ..Row::default()
            })
            .collect();
        let (file, _) = encode(&["a".to_string()], vec![rows], footer()).expect("encodes");
        let data = Index::of_file(&file).expect("ours").group_range(0).end as usize;
        let look = |bytes: Vec<u8>| {
            let bytes = Bytes::from(bytes);
            if let Ok(index) = Index::of_file(&bytes) {
                (0..index.footer().groups.len()).for_each(|group| {
                    let _ = index.group_range(group);
                });
            }
            let store = Store::memory();
            let n = bytes.len() as u64;
            block_on(store.put("x", bytes)).expect("puts");
            block_on(standing(&store, "x", n)).expect("looks");
        };
        for at in data..file.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = file.to_vec();
                bytes[at] ^= flip;
                look(bytes);
            }
            let mut bytes = file.to_vec();
            bytes.remove(at);
            look(bytes);
        }
    }

    #[test]
    fn a_shard_is_known_by_its_footer_and_a_damaged_file_is_no_foreign_one() {
        let (file, footer) = encode(&["a".to_string()], vec![vec![]], footer()).expect("encodes");
        let text = String::from_utf8_lossy(&file).into_owned();
        // The key of the footer is another one, and the file is otherwise whole.
        let at = file.windows(7).position(|bytes| bytes == FOOTER_KEY.as_bytes()).expect("the key is there");
        let mut foreign = file.to_vec();
        foreign[at..at + 7].copy_from_slice(b"another");
        let mut other_version = file.to_vec();
        let at = text.find("\"holes\"").map(|_| file.windows(7).position(|b| b == b"\"holes\"").unwrap());
        let at = at.expect("the footer is JSON");
        other_version[at..at + 7].copy_from_slice(b"\"hales\"");
        for (bytes, expected) in [
            (file.clone(), StandingShard::Ours(Some(footer))),
            (Bytes::from(foreign), StandingShard::Foreign),
            (Bytes::from(other_version), StandingShard::Ours(None)),
            (Bytes::new(), StandingShard::Damaged),
            (file.slice(..file.len() / 2), StandingShard::Damaged),
            (Bytes::from_static(b"this is a text and no table"), StandingShard::Damaged),
        ] {
            let store = Store::memory();
            let n = bytes.len() as u64;
            block_on(store.put("x", bytes)).expect("puts");
            assert_eq!(block_on(standing(&store, "x", n)).expect("looks"), expected);
        }
    }
}
