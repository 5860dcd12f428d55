//! Footers of shards whose form has no room for one: `.forebay/KEY.json`, which programs that read a folder pass over.

use super::{DatasetFormat, is_beside, of_key};
use crate::sealed::{seal, unseal};
use crate::shard::{self, Footer, StandingShard};
use crate::store::{Store, StoreError};

/// The folder of the records.
const FOLDER: &str = ".forebay";

/// Where the footer of the shard of this key stands; `None` for one that has it in itself, and for no shard.
pub fn record_key(key: &str) -> Option<String> {
    match of_key(key)? {
        DatasetFormat::Parquet => None,
        DatasetFormat::WebDataset | DatasetFormat::Mds => Some(format!("{FOLDER}/{key}.json")),
    }
}

/// Whether a key is one that [`record_key`] gives for a shard.
fn is_record(key: &str) -> bool {
    let inner = key.strip_prefix(FOLDER).and_then(|key| key.strip_prefix('/')?.strip_suffix(".json"));
    inner.and_then(record_key).is_some()
}

/// The keys of all that a shard of this key is: the file, and its record where it has one.
pub fn files_of(key: &str) -> Vec<String> {
    std::iter::once(key.to_string()).chain(record_key(key)).collect()
}

/// Whether a key is that of a file which a dataset has for its shards: nothing else is ever deleted or replaced.
pub fn is_of_shards(key: &str) -> bool {
    of_key(key).is_some() || is_beside(key) || is_record(key)
}

/// The record of a footer, with its checksum.
pub fn to_record(footer: &Footer) -> Vec<u8> {
    seal(footer)
}

/// The footer of the shard of this key, where its record is there and whole.
///
/// # Errors
/// When the store fails.
pub async fn read_footer(store: &Store, key: &str) -> Result<Option<Footer>, StoreError> {
    Ok(find_record(store, key).await?.flatten())
}

/// The record of the shard of this key, if there is one, and the footer in it where that is whole.
async fn find_record(store: &Store, key: &str) -> Result<Option<Option<Footer>>, StoreError> {
    let Some(record) = record_key(key) else { return Ok(None) };
    let json = store.find(&record).await?;
    Ok(json.map(|json| unseal("record", &json, &["fingerprint", "data_blake3"]).ok()))
}

/// Tells what stands under `key`, a file of `bytes` bytes, where a shard of any form would.
///
/// # Errors
/// When the store fails.
pub async fn standing(store: &Store, key: &str, bytes: u64) -> Result<StandingShard, StoreError> {
    match of_key(key) {
        Some(DatasetFormat::Parquet) => shard::standing(store, key, bytes).await,
        // A file of this name may be anybody's: ours has a record.
        Some(DatasetFormat::WebDataset | DatasetFormat::Mds) => {
            let record = find_record(store, key).await?;
            Ok(record.map_or(StandingShard::Foreign, StandingShard::Ours))
        }
        None if is_beside(key) => Ok(StandingShard::Damaged),
        None => Ok(StandingShard::Foreign),
    }
}
