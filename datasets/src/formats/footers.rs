//! Footers of shards whose form has no room for one: `.forebay/KEY.json`, which programs that read a folder pass over.

use super::{DatasetFormat, is_beside, of_key};
use crate::sealed::{seal, unseal};
use crate::shard::{self, Footer, StandingShard};
use crate::store::{Store, StoreError};

/// The folder of the records.
const FOLDER: &str = ".forebay";

/// Where the footer of the shard of this key stands, that has none in itself.
pub fn record_key(key: &str) -> String {
    format!("{FOLDER}/{key}.json")
}

/// Whether a key is one that [`record_key`] gives for a shard.
pub fn is_record(key: &str) -> bool {
    let inner = key.strip_prefix(FOLDER).and_then(|key| key.strip_prefix('/')?.strip_suffix(".json"));
    inner.and_then(of_key).is_some_and(|format| format != DatasetFormat::Parquet)
}

/// The keys of all that a shard of this key is: the file, and its record where it has one.
pub fn files_of(key: &str) -> Vec<String> {
    let record = record_key(key);
    let record = is_record(&record).then_some(record);
    std::iter::once(key.to_string()).chain(record).collect()
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
    let record = store.find(&record_key(key)).await?;
    Ok(record.and_then(|json| unseal("record", &json, &["fingerprint", "data_blake3"]).ok()))
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
            Ok(match store.find(&record_key(key)).await? {
                Some(_) => StandingShard::Ours(read_footer(store, key).await?),
                None => StandingShard::Foreign,
            })
        }
        None if is_beside(key) => Ok(StandingShard::Damaged),
        None => Ok(StandingShard::Foreign),
    }
}
