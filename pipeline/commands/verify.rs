//! Reads every shard of a dataset again and compares it with the checksums of the manifest.

use std::collections::BTreeSet;

use forebay_datasets::manifest::{Manifest, PLAN_KEY, ShardRecord};
use forebay_datasets::shard;
use forebay_datasets::store::Store;
use serde_json::json;

use crate::flow::{Error, Run};
use crate::options::{Invocation, bytes_in_words};
use crate::plan::{self, Destination, Rooms};
use crate::report::{say, say_json};

/// What `verify` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Shards that were read.
    pub shards: usize,
    /// Bytes that were read.
    pub bytes: u64,
    /// What differs, one line each.
    pub differences: Vec<String>,
}

/// Compares every shard with `manifest`, and names what stands beside them: other programs would read it as a shard.
///
/// # Errors
/// When the store fails; a missing or different shard is no error but a difference.
pub async fn verify(run: &Run, rooms: &Rooms, store: &Store, manifest: &Manifest) -> Result<Verified, Error> {
    let reader = store.clone();
    let differences: Vec<Option<String>> = run
        .source("shards", manifest.shards.clone())
        .io("read", rooms.shard(), move |shard: ShardRecord| {
            let store = reader.clone();
            async move {
                match store.get(&shard.key).await {
                    Ok(file) => Ok((shard, Some(file))),
                    Err(error) if error.loses_only_this_object() => Ok((shard, None)),
                    Err(error) => Err(error.into()),
                }
            }
        })
        .compute("checksum", rooms.compute(), |(shard, file)| {
            let Some(file) = file else { return Ok(Some(format!("{}: missing", shard.key))) };
            if file.len() as u64 != shard.bytes {
                let line = format!("{}: {} bytes, the manifest says {}", shard.key, file.len(), shard.bytes);
                return Ok(Some(line));
            }
            let found = blake3::hash(&file).to_hex().to_string();
            let differs = found != shard.blake3;
            Ok(differs
                .then(|| format!("{}: checksum {found}, the manifest says {}", shard.key, shard.blake3)))
        })
        .collect()
        .await?;
    let listed: BTreeSet<&str> = manifest.shards.iter().map(|shard| shard.key.as_str()).collect();
    let standing = store.list(shard::FOLDER).await?;
    let extra = standing.iter().filter(|(key, _)| !listed.contains(key.as_str()));
    let extra = extra.map(|(key, _)| format!("{key}: not listed by the manifest"));
    let plan = match Destination::read(store).await?.fingerprint() {
        Some(plan) if plan != manifest.fingerprint => Some(format!(
            "{PLAN_KEY}: of another dataset ({plan}) than the manifest ({})",
            manifest.fingerprint
        )),
        _ => None,
    };
    Ok(Verified {
        shards: manifest.shards.len(),
        bytes: manifest.shards.iter().map(|shard| shard.bytes).sum(),
        differences: differences.into_iter().flatten().chain(extra).chain(plan).collect(),
    })
}

/// Runs the command.
///
/// # Errors
/// The first error of the run.
pub async fn run(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let store = plan::open(&asked.config, "source", "SOURCE")?;
    let location = store.location();
    let manifest = plan::manifest(&store).await?.ok_or_else(|| {
        Error::Usage(format!(
            "{location} holds no manifest.json of Forebay, so it is no finished dataset of shards"
        ))
    })?;
    let verified = verify(run, &Rooms::of(&asked.config), &store, &manifest).await?;
    if asked.json {
        say_json(&json!({
            "shards": verified.shards, "bytes": verified.bytes, "differences": verified.differences,
        }));
    }
    if !verified.differences.is_empty() {
        let lines: Vec<String> =
            verified.differences.iter().map(|line| format!("{location}/{line}")).collect();
        return Err(Error::Integrity(lines.join("\n")));
    }
    if !asked.json {
        let bytes = bytes_in_words(verified.bytes);
        say(&format!("{location}: {} shards, {bytes}, all as the manifest says\n", verified.shards));
    }
    Ok(())
}
