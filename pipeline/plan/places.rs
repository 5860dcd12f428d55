//! The places that a run reads and writes.

use forebay_datasets::manifest::{MANIFEST_KEY, Manifest};
use forebay_datasets::store::Store;
use forebay_stages::chain::Chain;

use crate::flow::Error;
use crate::options::{Config, store_options};

/// Opens the place that `key` names.
///
/// # Errors
/// [`Error::Usage`] when it is not given or cannot be a place.
pub fn open(config: &Config, key: &'static str, what: &str) -> Result<Store, Error> {
    let location = config
        .text(key)
        .ok_or_else(|| Error::Usage(format!("{what} is missing: name it, or set `{key}` in the run file")))?;
    Store::open(&location, &store_options(config)).map_err(Error::from)
}

/// Whether a source is a dataset of shards: its manifest, if it has one.
///
/// # Errors
/// When the store refuses, or the manifest is damaged.
pub async fn manifest(store: &Store) -> Result<Option<Manifest>, Error> {
    if store.size(MANIFEST_KEY).await?.is_none() {
        return Ok(None);
    }
    let json = store.get(MANIFEST_KEY).await?;
    let manifest =
        Manifest::parse(&json).map_err(|error| Error::Integrity(format!("{}: {error}", store.location())))?;
    Ok(Some(manifest))
}

/// How the rows of a dataset were prepared.
///
/// # Errors
/// [`Error::Integrity`] when its manifest says something that is no chain.
pub fn prepared(store: &Store, manifest: &Manifest) -> Result<Chain, Error> {
    serde_json::from_value(manifest.chain.clone())
        .map_err(|error| Error::Integrity(format!("{}/{MANIFEST_KEY}: chain: {error}", store.location())))
}
