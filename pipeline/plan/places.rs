//! The places that a run reads and writes.

use forebay_datasets::escape::one_line;
use forebay_datasets::manifest::{MANIFEST_KEY, Manifest, ManifestError, PLAN_KEY, PlanRecord};
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

/// Whether a source is a dataset of shards: its manifest, if it has one of ours.
///
/// # Errors
/// When the store refuses, or the manifest is damaged or of another version.
pub async fn manifest(store: &Store) -> Result<Option<Manifest>, Error> {
    let Some(json) = store.find(MANIFEST_KEY).await? else { return Ok(None) };
    let location = store.location();
    match Manifest::parse(&json) {
        Ok(manifest) => Ok(Some(manifest)),
        // Web apps have files of this name, and so may a folder of images.
        Err(ManifestError::Foreign { .. }) => Ok(None),
        Err(ManifestError::Unknown { .. }) if !has_plan(store).await? => Ok(None),
        Err(error @ ManifestError::OtherFormat { .. }) => Err(Error::Usage(format!(
            "{location}: {error}; make it anew from its images: forebay prepare SOURCE {location} --overwrite"
        ))),
        Err(error @ (ManifestError::Damaged { .. } | ManifestError::Unknown { .. })) => {
            Err(Error::Integrity(format!(
                "{location}: {error}; run the same `forebay prepare` again, which makes it anew"
            )))
        }
    }
}

/// Whether a plan of ours stands in a place, whole or damaged.
pub(super) async fn has_plan(store: &Store) -> Result<bool, Error> {
    let Some(plan) = store.find(PLAN_KEY).await? else { return Ok(false) };
    Ok(PlanRecord::parse(&plan).err().is_none_or(|error| error.is_ours()))
}

/// How the rows of a dataset were prepared.
///
/// # Errors
/// [`Error::Integrity`] when its manifest says something that is no chain.
pub fn prepared(store: &Store, manifest: &Manifest) -> Result<Chain, Error> {
    serde_json::from_value(manifest.chain.clone())
        .map_err(|error: serde_json::Error| one_line(&error.to_string()).into_owned())
        .map_err(|error| Error::Integrity(format!("{}/{MANIFEST_KEY}: chain: {error}", store.location())))
}
