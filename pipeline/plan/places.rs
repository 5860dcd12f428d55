//! The places that a run reads and writes.

use std::io::ErrorKind;

use forebay_datasets::catalog::LayoutOptions;
use forebay_datasets::escape::{escape_text, one_line};
use forebay_datasets::formats::DatasetFormat;
use forebay_datasets::manifest::{MANIFEST_KEY, Manifest, ManifestError, PLAN_KEY, PlanRecord};
use forebay_datasets::store::{self, Store};
use forebay_stages::chain::Chain;

use crate::flow::Error;
use crate::options::{Config, dataset_file, store_options};

/// Opens the place that `key` names.
///
/// # Errors
/// [`Error::Usage`] when it is not given or cannot be a place.
pub fn open(config: &Config, key: &'static str, what: &str) -> Result<Store, Error> {
    let location = config
        .text(key)
        .ok_or_else(|| Error::Usage(format!("{what} is missing: name it, or set `{key}` in the run file")))?;
    refuse_unreached(what, &location, if key == "source" { Purpose::Images } else { Purpose::Output })?;
    let folder = dataset_file(&location).filter(|_| key == "source").map_or(&*location, |(folder, _)| folder);
    Store::open(folder, &store_options(config)).map_err(Error::from)
}

/// Opens SOURCE. A local one is a folder that can be listed.
///
/// # Errors
/// As [`open`]; [`Error::Usage`] when it is not there, is a file, or may not be read.
pub fn open_source(config: &Config) -> Result<Store, Error> {
    let source = open(config, "source", "SOURCE")?;
    let Some(Err(error)) = source.local_root().map(std::fs::read_dir) else { return Ok(source) };
    let location = source.location();
    Err(Error::Usage(match error.kind() {
        ErrorKind::NotFound => format!("cannot read {location}: there is no such folder"),
        ErrorKind::NotADirectory => {
            format!(
                "{location} is a file: give the folder that holds one folder per class or the dataset's files; what is \
                 packed (.zip, .tar.gz) has to be unpacked first"
            )
        }
        ErrorKind::PermissionDenied => format!("cannot list {location}: permission denied"),
        _ => format!("cannot list {location}: {error}"),
    }))
}

/// What is at a place that a command is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Images that it reads.
    Images,
    /// One file that it reads.
    File,
    /// What it writes.
    Output,
}

/// Refuses a place that people know and that is not reached from here, by its name and with what to do; `what` names the
/// option that gives it.
///
/// # Errors
/// [`Error::Usage`] that says so.
pub(crate) fn refuse_unreached(what: &str, location: &str, purpose: Purpose) -> Result<(), Error> {
    let scheme = match location.split_once("://") {
        Some((scheme, _)) => scheme.to_ascii_lowercase(),
        None if location.starts_with("hf:") => "hf".to_string(),
        None => return Ok(()),
    };
    let place = without_secrets(location);
    let (name, download) = match scheme.as_str() {
        "hf" if purpose == Purpose::Images && location.starts_with("hf://") => return Ok(()),
        "hf" if purpose == Purpose::Images => {
            return Err(Error::Usage(format!(
                "{what} {place}: a dataset on the Hugging Face hub is written hf://datasets/OWNER/NAME"
            )));
        }
        "hf" => {
            let repository = place[3..].trim_start_matches('/').trim_start_matches("datasets/");
            let download = format!("hf download {repository} --repo-type dataset --local-dir FOLDER");
            ("the Hugging Face hub", download)
        }
        "gcs" => {
            return Err(Error::Usage(format!(
                "{what} {place}: a place in Google Cloud Storage is written gs://BUCKET/PREFIX"
            )));
        }
        "azure" | "abfs" | "abfss" | "adl" => {
            return Err(Error::Usage(format!(
                "{what} {place}: a place in Azure storage is written az://CONTAINER/PREFIX, and its account stands in \
                 AZURE_STORAGE_ACCOUNT_NAME"
            )));
        }
        // What is packed, or not a dataset's, is known before a server is asked.
        "http" | "https" if purpose == Purpose::Images && !is_packed(&place) => return Ok(()),
        "http" | "https" => ("the web", format!("curl -LO {place}")),
        _ => return Ok(()),
    };
    let advice = match purpose {
        Purpose::Images => format!(
            "what is packed is not read from {name}: download it ({download}), unpack it, and give the folder of its images"
        ),
        Purpose::File => {
            format!("a file from {name} is not read yet: download it ({download}), and give the file")
        }
        Purpose::Output if scheme == "hf" => format!(
            "nothing is written to {name} yet: give a local path, or a bucket, and copy it afterwards (hf upload)"
        ),
        Purpose::Output => {
            format!(
                "nothing can be written to {name}: give a local path, or a bucket such as s3://BUCKET/PREFIX"
            )
        }
    };
    Err(Error::Usage(format!("{what} {place}: {advice}")))
}

/// Whether a file is called like an archive that is not read as it is.
fn is_packed(place: &str) -> bool {
    let extension = place.rsplit(['.', '/']).next().unwrap_or_default().to_lowercase();
    ["zip", "gz", "tgz", "bz2", "xz", "zst", "7z", "rar"].contains(&&*extension)
}

/// A location as it may be shown: without a user, a password or a query, which may hold a token.
fn without_secrets(location: &str) -> String {
    escape_text(&match location.starts_with("hf:") {
        // What stands behind `@` is a revision.
        true => location.split(['?', '#']).next().unwrap_or_default().to_string(),
        false => store::without_secrets(location),
    })
    .into_owned()
}

/// The manifest of SOURCE, where it is a dataset of shards and is to be read as one: with a `--layout`, or as one file of it,
/// it is what it would be to another program.
///
/// # Errors
/// As [`finished`].
pub async fn shards_of(store: &Store, layout: &LayoutOptions) -> Result<Option<Manifest>, Error> {
    match layout.leave_it_open() {
        // Shards in the form of another program are read as that program's.
        true => Ok(finished(store).await?.filter(|found| found.dataset_format == DatasetFormat::Parquet)),
        false => Ok(None),
    }
}

/// What a source was made with, where Forebay wrote it in whatever form; nobody asks a web server for it, and what is damaged
/// or unfinished says nothing.
///
/// # Errors
/// When the store refuses.
pub async fn made(store: &Store, layout: &LayoutOptions) -> Result<Option<Manifest>, Error> {
    if !store.can_list() || layout.file.is_some() {
        return Ok(None);
    }
    match manifest(store).await {
        Err(Error::Usage(_) | Error::Integrity(_)) => Ok(None),
        found => found,
    }
}

/// The manifest of a source that is a dataset of shards; `None` where it is none.
///
/// # Errors
/// When the store refuses, or the manifest is damaged or of another version; [`Error::Usage`] where `prepare` has begun one
/// and not finished it.
pub async fn finished(store: &Store) -> Result<Option<Manifest>, Error> {
    let found = manifest(store).await?;
    if found.is_none() && has_plan(store).await? {
        let location = store.location();
        return Err(Error::Usage(format!(
            "{location} holds shards that prepare has not finished: run the same forebay prepare SOURCE {location} again, \
             which goes on where it stopped"
        )));
    }
    Ok(found)
}

/// Whether a place is a dataset of shards: its manifest, if it has one of ours.
///
/// # Errors
/// When the store refuses, or the manifest is damaged or of another version.
pub(super) async fn manifest(store: &Store) -> Result<Option<Manifest>, Error> {
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
