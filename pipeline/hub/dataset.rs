//! Datasets of the hub as a place that is read: their files as the hub lists them, and each, once it is read, in the cache.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use forebay_datasets::store::{Mirror, Mirrored, Object, StoreError, Version, open_hub_with};
use reqwest::Url;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::flow::Error;

use super::files::{is_commit, write_error, write_whole};
use super::reference::{Reference, is_path_of_file};
use super::server::Server;
use super::{Hub, Refusal};

/// What a list of files is called where it cannot be had.
const LISTING: &str = "the list of files";

/// Pages of a list; each has a thousand files.
const PAGES_MAX: usize = 100_000;

/// From now on, `hf://datasets/..` is a place of this program.
pub fn serve_datasets() {
    open_hub_with(|rest, options| {
        let (reference, folder) = Reference::parse_dataset(rest).map_err(StoreError::Correct)?;
        let mut hub = Hub::from_environment();
        if options.anonymous {
            hub = hub.without_token();
        }
        Ok(Arc::new(HubDataset { hub, reference, folder, listed: OnceCell::new() }))
    });
}

/// A dataset of the hub, or a folder of one.
struct HubDataset {
    hub: Hub,
    reference: Reference,
    /// The folder; empty for all of it.
    folder: String,
    listed: OnceCell<Listed>,
}

/// What the hub said of a dataset.
struct Listed {
    /// The reference at its commit.
    reference: Reference,
    /// Relative to the folder, sorted.
    objects: Arc<[Object]>,
}

/// An entry of the hub's list; what else it says is not read.
#[derive(Deserialize)]
struct TreeEntry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<LargeFile>,
}

/// A file that is not in the repository itself.
#[derive(Deserialize)]
struct LargeFile {
    oid: String,
    size: u64,
}

impl Mirror for HubDataset {
    fn list(&self) -> Mirrored<'_, Arc<[Object]>> {
        Box::pin(async { Ok(self.listed().await?.objects.clone()) })
    }

    fn bring<'a>(&'a self, name: &'a str) -> Mirrored<'a, PathBuf> {
        Box::pin(async move {
            let Listed { reference, objects } = self.listed().await?;
            let path =
                if self.folder.is_empty() { name.to_string() } else { format!("{}/{name}", self.folder) };
            let listed = objects.binary_search_by(|object| object.name.text().unwrap_or_default().cmp(name));
            let bytes = listed.ok().map(|at| objects[at].bytes);
            match self.hub.find_sized(reference, &path, bytes).await {
                Ok(cached) => Ok(cached.path),
                Err(error) => Err(in_words(error)),
            }
        })
    }
}

/// An error of the hub as one of a store.
fn in_words(error: Error) -> StoreError {
    match error {
        Error::Usage(line) => StoreError::Correct(line),
        Error::Integrity(line) => StoreError::Damaged(line),
        other => StoreError::Stop(other.chain()),
    }
}

impl HubDataset {
    async fn listed(&self) -> Result<&Listed, StoreError> {
        self.listed.get_or_try_init(|| async { self.look().await.map_err(in_words) }).await
    }

    async fn look(&self) -> Result<Listed, Error> {
        let (reference, entries) = self.hub.tree(&self.reference).await?;
        let below = if self.folder.is_empty() { String::new() } else { format!("{}/", self.folder) };
        let object = |entry: TreeEntry| {
            let (tag, bytes) = entry.lfs.map_or((entry.oid, entry.size), |large| (large.oid, large.size));
            let name = entry.path.strip_prefix(&below)?;
            Some(Object { name: name.into(), bytes, version: Version::of_etag(&tag) })
        };
        let mut objects: Vec<Object> = entries.into_iter().filter_map(object).collect();
        objects.sort_by(|a, b| a.name.text().cmp(&b.name.text()));
        if objects.is_empty() && !self.folder.is_empty() {
            return Err(Error::Usage(format!(
                "{} at {} has no folder {}",
                self.reference.repository, self.reference.revision, self.folder
            )));
        }
        Ok(Listed { reference, objects: objects.into() })
    }
}

impl Hub {
    /// The files of a repository, and its reference at the commit that they are of. The list of a commit never changes, and
    /// is kept beside its files.
    async fn tree(&self, reference: &Reference) -> Result<(Reference, Vec<TreeEntry>), Error> {
        let Reference { repository, revision, .. } = reference;
        let kept = |commit: &str| self.folder(reference).join("trees").join(format!("{commit}.json"));
        let commit = match (is_commit(revision), self.is_offline) {
            (true, _) => Some(revision.clone()),
            (false, true) => self.cached_commit(reference),
            (false, false) => Some(self.commit(reference).await?),
        };
        let known = commit.as_deref().and_then(|commit| fs::read(kept(commit)).ok());
        if let (Some(commit), Some(Ok(entries))) = (&commit, known.map(|json| serde_json::from_slice(&json)))
        {
            return Ok((reference.at(commit), files(reference, entries)?));
        }
        let Some(commit) = commit.filter(|_| !self.is_offline) else {
            return Err(Error::Usage(format!(
                "HF_HUB_OFFLINE is set, and {} holds no list of the files of {repository} at {revision}: unset it once",
                self.cache.display()
            )));
        };
        let pages = self.pages(&reference.at(&commit)).await?;
        let path = kept(&commit);
        fs::create_dir_all(path.parent().expect("it is below the cache"))
            .and_then(|()| write_whole(&path, Value::Array(pages.clone()).to_string().as_bytes()))
            .map_err(|error| write_error(&path, error))?;
        Ok((reference.at(&commit), files(reference, pages)?))
    }

    /// A page of the hub's interface that is about a repository.
    fn interface(&self, reference: &Reference, parts: &[&str]) -> Result<Url, Error> {
        let mut url = self.home()?;
        let page = reference.page();
        let parts = ["api"].into_iter().chain(page.split('/')).chain(parts.iter().copied());
        url.path_segments_mut().expect("it is a web address").pop_if_empty().extend(parts);
        Ok(url)
    }

    /// The commit that a revision is of now.
    async fn commit(&self, reference: &Reference) -> Result<String, Error> {
        let url = self.interface(reference, &["revision", &reference.revision])?;
        let server =
            Server::new(self.token.as_deref(), &url, reference, LISTING).map_err(Refusal::into_error)?;
        let (said, _) = server.json(&url).await.map_err(Refusal::into_error)?;
        match said["sha"].as_str().filter(|commit| is_commit(commit)) {
            Some(commit) => {
                self.note_commit(reference, commit)?;
                Ok(commit.to_string())
            }
            None => Err(self.odd(reference, "it names no commit")),
        }
    }

    /// All entries of the tree of a commit.
    async fn pages(&self, reference: &Reference) -> Result<Vec<Value>, Error> {
        let mut url = self.interface(reference, &["tree", &reference.revision])?;
        url.set_query(Some("recursive=true&expand=false"));
        let server =
            Server::new(self.token.as_deref(), &url, reference, LISTING).map_err(Refusal::into_error)?;
        let (mut all, mut seen) = (Vec::new(), BTreeSet::new());
        loop {
            let (page, next) = server.json(&url).await.map_err(Refusal::into_error)?;
            let Value::Array(page) = page else {
                return Err(self.odd(reference, "its list of files is none"));
            };
            all.extend(page);
            let Some(next) = next else { return Ok(all) };
            // A token goes along, and a list that begins anew has no end.
            if next.origin() != url.origin() || !seen.insert(next.to_string()) || seen.len() > PAGES_MAX {
                return Err(self.odd(reference, "its list of files leads elsewhere or has no end"));
            }
            url = next;
        }
    }

    fn odd(&self, reference: &Reference, what: &str) -> Error {
        let Reference { repository, .. } = reference;
        Error::Store(format!(
            "{} does not answer as a Hugging Face hub about {repository}: {what}; check HF_ENDPOINT",
            self.endpoint
        ))
    }
}

/// The files among the entries of a tree. One whose name no disk can have is left out of what can be read, and is an error
/// where it could hide another.
fn files(reference: &Reference, entries: Vec<Value>) -> Result<Vec<TreeEntry>, Error> {
    let damaged = |what: String| {
        Error::Store(format!("the list of files of {} is damaged: {what}", reference.repository))
    };
    let mut names = BTreeSet::new();
    let mut found = Vec::new();
    for entry in entries {
        let entry: TreeEntry = serde_json::from_value(entry).map_err(|error| damaged(error.to_string()))?;
        if entry.kind != "file" {
            continue;
        }
        if !is_path_of_file(&entry.path) {
            return Err(damaged(format!("{:?} is no path of a file", entry.path)));
        }
        if !names.insert(entry.path.clone()) {
            return Err(damaged(format!("{:?} stands in it twice", entry.path)));
        }
        found.push(entry);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_tree_are_those_with_sound_names_once_each() {
        let reference = Reference::parse_dataset("datasets/o/n").expect("sound").0;
        let entry = |kind: &str, path: &str| serde_json::json!({"type": kind, "oid": "ab", "size": 3, "path": path, "new": true});
        let large = serde_json::json!({"type": "file", "oid": "ab", "size": 100, "path": "x.tar",
            "lfs": {"oid": "cd", "size": 100, "pointerSize": 3}});
        let found = files(&reference, vec![entry("directory", "a"), entry("file", "a/x y#1.png"), large]);
        let found = found.unwrap_or_else(|error| panic!("{error}"));
        let paths: Vec<&str> = found.iter().map(|entry| &*entry.path).collect();
        assert_eq!(paths, ["a/x y#1.png", "x.tar"]);
        assert_eq!(found[1].lfs.as_ref().map(|large| &*large.oid), Some("cd"));
        for odd in ["../x", "/x", "a//x", "a/./x", "a\\x", "a\nx", ""] {
            assert!(files(&reference, vec![entry("file", odd)]).is_err(), "{odd:?}");
        }
        assert!(files(&reference, vec![entry("file", "x"), entry("file", "x")]).is_err());
        assert!(files(&reference, vec![Value::from(3)]).is_err());
    }
}
