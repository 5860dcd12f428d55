//! Reads every shard of a dataset again and compares it with the checksums of the manifest.

use std::collections::BTreeMap;

use forebay_datasets::escape::printable;
use forebay_datasets::manifest::{BesideRecord, Manifest, PLAN_KEY, ShardRecord};
use forebay_datasets::shard;
use forebay_datasets::store::Store;
use serde_json::json;

use crate::flow::{Error, Run};
use crate::options::{Invocation, bytes_in_words};
use crate::plan::{self, Destination, Rooms};
use crate::prepare::{Reread, checksums};
use crate::report::{Usage, say, say_json};

/// What `verify` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Shards that the manifest lists.
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
    let mut standing: BTreeMap<String, u64> = store.list(shard::FOLDER).await?.into_iter().collect();
    let shards = manifest.shards.iter().map(|ShardRecord { key, bytes, blake3, .. }| (key, bytes, blake3));
    let beside = manifest.beside.iter().map(|BesideRecord { key, bytes, blake3 }| (key, bytes, blake3));
    let listed: Vec<(&String, &u64, &String)> = shards.chain(beside).collect();
    let files = listed.iter().filter(|(key, bytes, _)| standing.get(*key) == Some(bytes));
    let files =
        files.map(|(key, bytes, _)| Reread { key: key.to_string(), bytes: **bytes, start: 0 }).collect();
    let checksums = checksums(run, rooms, store, files).await?;
    let mut differences = Vec::new();
    for (key, bytes, blake3) in listed {
        let difference = match (standing.remove(key), checksums.get(key)) {
            (None, _) => "missing".to_string(),
            (Some(found), _) if found != *bytes => format!("{found} bytes, the manifest says {bytes}"),
            (_, None) => "it cannot be read to its end".to_string(),
            (_, Some(found)) if found.whole != *blake3 => {
                format!("checksum {}, the manifest says {}", found.whole, printable(blake3))
            }
            _ => continue,
        };
        differences.push(format!("{}: {difference}", printable(key)));
    }
    differences.extend(standing.keys().map(|key| format!("{}: not listed by the manifest", printable(key))));
    if let Some(plan) = Destination::read(store).await?.fingerprint()
        && plan != manifest.fingerprint
    {
        let listed = &manifest.fingerprint;
        differences.push(format!(
            "{PLAN_KEY}: of another dataset ({}) than the manifest ({})",
            printable(plan),
            printable(listed)
        ));
    }
    Ok(Verified {
        shards: manifest.shards.len(),
        bytes: checksums.values().map(|found| found.bytes).sum(),
        differences,
    })
}

/// Runs the command.
///
/// # Errors
/// The first error of the run.
pub async fn run(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let store = plan::open_source(&asked.config)?;
    let location = store.location();
    let opened = store.clone();
    let manifest = run.until_stopped(move || async move { plan::finished(&opened).await }).await?;
    let manifest = manifest.ok_or_else(|| {
        Error::Usage(format!("{location} is no dataset of shards: it holds no manifest.json of Forebay"))
    })?;
    let verified = verify(run, &Rooms::of(&asked.config), &store, &manifest).await?;
    let decode = plan::prepared(&store, &manifest).ok().and_then(|chain| chain.decode());
    if asked.json {
        say_json(&json!({
            "shards": verified.shards, "bytes": verified.bytes, "differences": verified.differences, "decode": decode,
            "peak_memory_bytes": Usage::now().peak_memory_bytes,
        }));
    }
    if !verified.differences.is_empty() {
        let lines: Vec<String> =
            verified.differences.iter().map(|line| format!("{location}/{line}")).collect();
        return Err(Error::Integrity(lines.join("\n")));
    }
    if !asked.json {
        let bytes = bytes_in_words(verified.bytes);
        let scale = decode.map_or_else(String::new, |scale| format!("; JPEG was decoded {scale}"));
        say(&format!("{location}: {} shards, {bytes}, all as the manifest says{scale}\n", verified.shards));
    }
    Ok(())
}
