//! Weights and datasets from the Hugging Face hub: out of its cache on this machine, or from its server into that cache.
//!
//! The cache is the one that Python's `huggingface_hub` keeps, so that neither downloads what the other has: a
//! folder per repository with `refs/REVISION` (the commit), `blobs/ETAG` (the bytes) and
//! `snapshots/COMMIT/FILE`, which links to a blob. What is there is used without a request.

mod dataset;
mod files;
mod reference;
mod server;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use forebay_datasets::store::endpoint;
use reqwest::Url;

use crate::flow::Error;

pub use dataset::serve_datasets;
pub(crate) use files::sha256;
use files::{is_commit, link, lock_file, write_error, write_whole};
pub use reference::Reference;
use server::{Refusal, Server};

/// The files that hold the weights of a repository, best first.
pub const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// The files that describe them: the network and, in timm's form, how images are prepared; and the latter again
/// in the form of transformers.
pub const CONFIGS: [&str; 2] = ["config.json", "preprocessor_config.json"];

/// The hub as the environment describes it, by the variables that Python's `huggingface_hub` reads.
#[derive(Clone)]
pub struct Hub {
    cache: PathBuf,
    endpoint: String,
    token: Option<String>,
    is_offline: bool,
}

/// A file of a repository in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// The name of the file in the repository.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// The commit it is of.
    pub commit: String,
}

impl Hub {
    /// Reads `HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_OFFLINE` and their
    /// older names, and the token file.
    pub fn from_environment() -> Hub {
        Hub::from_variables(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// The same hub for one whom it does not know.
    pub fn without_token(self) -> Hub {
        Hub { token: None, ..self }
    }

    /// The hub as these variables describe it, by the same names.
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Hub {
        let user = variable("HOME").map(PathBuf::from).or_else(std::env::home_dir).unwrap_or_default();
        let path = |text: String| match text.strip_prefix("~/") {
            Some(rest) => user.join(rest),
            None => PathBuf::from(text),
        };
        let is_true = |name: &str| {
            variable(name).is_some_and(|value| {
                matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
            })
        };
        let home = variable("HF_HOME").map(path).unwrap_or_else(|| {
            variable("XDG_CACHE_HOME").map(path).unwrap_or_else(|| user.join(".cache")).join("huggingface")
        });
        let cache = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"));
        let clean = |token: String| {
            let token = token.replace(['\r', '\n'], "").trim().to_string();
            (!token.is_empty()).then_some(token)
        };
        let token_file = variable("HF_TOKEN_PATH").map_or_else(|| home.join("token"), path);
        let token = variable("HF_TOKEN")
            .or_else(|| variable("HUGGING_FACE_HUB_TOKEN"))
            .and_then(clean)
            .or_else(|| fs::read_to_string(token_file).ok().and_then(clean))
            .filter(|_| !is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN"));
        Hub {
            cache: cache.map_or_else(|| home.join("hub"), path),
            endpoint: variable("HF_ENDPOINT")
                .map_or("https://huggingface.co".to_string(), |url| url.trim_end_matches('/').to_string()),
            token,
            is_offline: is_true("HF_HUB_OFFLINE") || is_true("TRANSFORMERS_OFFLINE"),
        }
    }

    /// The first of these files that the repository has: out of the cache without a request if any of them is
    /// there, else from the server.
    ///
    /// # Errors
    /// [`Error::Usage`] when there is no such repository, revision or file, or access to it is refused;
    /// [`Error::Store`] when the server cannot be reached; [`Error::Integrity`] when what came is not what the
    /// server announced; [`Error::Failed`] when the cache cannot be written.
    pub async fn find(&self, reference: &Reference, names: &[&str]) -> Result<Cached, Error> {
        if let Some(cached) = names.iter().find_map(|name| self.cached(reference, name)) {
            return Ok(cached);
        }
        let Reference { repository, revision, .. } = reference;
        let what = names.join(" or ");
        if self.is_offline {
            return Err(Error::Usage(format!(
                "HF_HUB_OFFLINE is set, and {} holds no {what} of {repository} at {revision}: unset it, or give \
                 the path of a file",
                self.cache.display()
            )));
        }
        let mut missing = None;
        for name in names {
            match self.download(reference, name).await {
                Ok(cached) => return Ok(cached),
                Err(Refusal::NoFile(error)) => missing = Some(error),
                Err(refusal) => return Err(refusal.into_error()),
            }
        }
        match (names, missing) {
            ([_], Some(error)) => Err(error),
            _ => Err(Error::Usage(format!(
                "{repository} at {revision} holds no {what}; name a file: hf:{repository}:FILE"
            ))),
        }
    }

    /// A file of a repository that lists it with so many bytes. One that has another size in the cache, as after a disk was full
    /// or a copy broke off, is thrown away and downloaded again.
    ///
    /// # Errors
    /// As [`Hub::find`], and [`Error::Integrity`] where `HF_HUB_OFFLINE` forbids to download it.
    pub async fn find_sized(
        &self,
        reference: &Reference,
        name: &str,
        bytes: Option<u64>,
    ) -> Result<Cached, Error> {
        if let (Some(cached), Some(bytes)) = (self.cached(reference, name), bytes) {
            let found = fs::metadata(&cached.path).map(|metadata| metadata.len());
            if let Some(found) = found.ok().filter(|found| *found != bytes) {
                // A snapshot is a link to a blob, or a copy of one.
                let blob = fs::canonicalize(&cached.path).unwrap_or_else(|_| cached.path.clone());
                if self.is_offline {
                    return Err(Error::Integrity(format!(
                        "{} has {found} bytes where {bytes} are listed, and HF_HUB_OFFLINE is set: unset it, so that it is \
                         downloaded again",
                        blob.display()
                    )));
                }
                let folder = fs::canonicalize(self.folder(reference)).unwrap_or_default();
                for file in [&cached.path, &blob] {
                    match fs::remove_file(file) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => {
                            return Err(Error::failed(format!("delete {}", file.display()), error));
                        }
                        _ => {}
                    }
                    // What lies elsewhere is not of this cache.
                    if !blob.starts_with(&folder) {
                        break;
                    }
                }
            }
        }
        self.find(reference, &[name]).await
    }

    /// A file that a repository may lack, at the commit of another file; `None` where the server says that it does, and
    /// where `HF_HUB_OFFLINE` forbids to ask.
    ///
    /// # Errors
    /// As [`Hub::find`].
    pub async fn find_beside(
        &self,
        reference: &Reference,
        commit: &str,
        name: &str,
    ) -> Result<Option<Cached>, Error> {
        let reference = reference.at(commit);
        let known_missing = self.folder(&reference).join(".no_exist").join(commit).join(name);
        if let Some(cached) = self.cached(&reference, name) {
            return Ok(Some(cached));
        }
        if self.is_offline || known_missing.exists() {
            return Ok(None);
        }
        match self.download(&reference, name).await {
            Ok(cached) => Ok(Some(cached)),
            Err(Refusal::NoFile(_)) => {
                // As Python does, so that neither asks again. It is a courtesy that a read-only cache may refuse.
                let _ = known_missing.parent().map(fs::create_dir_all);
                let _ = File::create(known_missing);
                Ok(None)
            }
            Err(Refusal::Final(error)) => Err(error),
        }
    }

    fn folder(&self, reference: &Reference) -> PathBuf {
        let kind = if reference.is_dataset { "datasets" } else { "models" };
        self.cache.join(format!("{kind}--{}", reference.repository.replace('/', "--")))
    }

    /// A file that the cache holds.
    fn cached(&self, reference: &Reference, name: &str) -> Option<Cached> {
        let folder = self.folder(reference);
        let commit = self.cached_commit(reference)?;
        let path = folder.join("snapshots").join(&commit).join(name);
        path.is_file().then(|| Cached { name: name.to_string(), path, commit })
    }

    /// The commit that a revision is of, as far as the cache knows.
    fn cached_commit(&self, reference: &Reference) -> Option<String> {
        let commit = match is_commit(&reference.revision) {
            true => reference.revision.clone(),
            false => {
                let refs = self.folder(reference).join("refs").join(&reference.revision);
                fs::read_to_string(refs).ok()?.trim().to_string()
            }
        };
        is_commit(&commit).then_some(commit)
    }

    /// The address of the hub.
    fn home(&self) -> Result<Url, Error> {
        let home = endpoint("HF_ENDPOINT", &self.endpoint, "HF_TOKEN").map_err(Error::Usage)?;
        Url::parse(&home).map_err(|_| Error::Usage(format!("HF_ENDPOINT: {home} is not a URL")))
    }

    /// Notes which commit a revision is of.
    fn note_commit(&self, reference: &Reference, commit: &str) -> Result<(), Error> {
        let at = self.folder(reference).join("refs").join(&reference.revision);
        let parent = at.parent().expect("it is below the cache");
        fs::create_dir_all(parent)
            .and_then(|()| write_whole(&at, commit.as_bytes()))
            .map_err(|error| write_error(&at, error))
    }

    /// Downloads one file into the cache.
    async fn download(&self, reference: &Reference, name: &str) -> Result<Cached, Refusal> {
        let mut url = self.home().map_err(Refusal::Final)?;
        let parts = reference.page();
        let parts = parts.split('/').chain(["resolve", &reference.revision]).chain(name.split('/'));
        url.path_segments_mut().expect("it is a web address").pop_if_empty().extend(parts);
        let server = Server::new(self.token.as_deref(), &url, reference, name)?;
        let metadata = server.metadata(&url).await?;
        let folder = self.folder(reference);
        let blob = folder.join("blobs").join(&metadata.etag);
        let path = folder.join("snapshots").join(&metadata.commit).join(name);
        let written = |what: &Path, result: io::Result<()>| {
            result.map_err(|error| Refusal::Final(write_error(what, error)))
        };
        for file in [&blob, &path] {
            let parent = file.parent().expect("it is below the cache");
            written(parent, fs::create_dir_all(parent))?;
        }
        if !blob.is_file() {
            // The name and the kind of lock are Python's.
            let locks = self.cache.join(".locks").join(folder.file_name().expect("it has a name"));
            written(&locks, fs::create_dir_all(&locks))?;
            let lock = locks.join(format!("{}.lock", metadata.etag));
            let part = Server::part(&blob);
            let _held = lock_file(&lock, name, &part).await.map_err(Refusal::Final)?;
            // Whoever held it may have brought the file.
            if !blob.is_file() {
                server.fetch(&url, &metadata, &blob).await?;
            }
        }
        if !path.is_file() {
            written(&path, link(&blob, &path, name))?;
        }
        if reference.revision != metadata.commit {
            self.note_commit(reference, &metadata.commit).map_err(Refusal::Final)?;
        }
        Ok(Cached { name: name.to_string(), path, commit: metadata.commit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_repository_revision_and_file() {
        let reference = |repository: &str, revision: &str, file: Option<&str>| Reference {
            repository: repository.to_string(),
            revision: revision.to_string(),
            file: file.map(str::to_string),
            is_dataset: false,
        };
        for (text, expected) in [
            ("hf:timm/resnet50.a1_in1k", reference("timm/resnet50.a1_in1k", "main", None)),
            ("hf:a/b@v1.0", reference("a/b", "v1.0", None)),
            ("hf:a/b@refs/pr/1:x/y.bin", reference("a/b", "refs/pr/1", Some("x/y.bin"))),
            ("hf:a/b:model.safetensors", reference("a/b", "main", Some("model.safetensors"))),
        ] {
            assert_eq!(Reference::parse(text).expect("hf").expect("sound"), expected);
        }
        for text in [
            "hf:",
            "hf:a",
            "hf:a/b/c",
            "hf:../b",
            "hf:a/..",
            "hf:a/b@../x",
            "hf:a/b:../../x",
            "hf:a/b:/x",
            "hf:a/b@",
            "hf:a--b/c",
            "hf:a/b:x y",
        ] {
            assert!(matches!(Reference::parse(text), Some(Err(Error::Usage(_)))), "{text}");
        }
        assert!(Reference::parse("weights.safetensors").is_none());
    }

    #[test]
    fn the_environment_is_read_as_python_reads_it() {
        let hub = |set: &[(&str, &str)]| {
            let set: Vec<(String, String)> =
                set.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            Hub::from_variables(&move |name| {
                set.iter().find(|(set, _)| set == name).map(|(_, value)| value.clone())
            })
        };
        let cache = |set: &[(&str, &str)]| hub(set).cache.to_string_lossy().into_owned();
        assert_eq!(cache(&[("HOME", "/u")]), "/u/.cache/huggingface/hub");
        assert_eq!(cache(&[("HOME", "/u"), ("XDG_CACHE_HOME", "/x")]), "/x/huggingface/hub");
        assert_eq!(cache(&[("HOME", "/u"), ("HF_HOME", "~/h")]), "/u/h/hub");
        assert_eq!(cache(&[("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old")]), "/old");
        assert_eq!(cache(&[("HF_HUB_CACHE", "/c"), ("HUGGINGFACE_HUB_CACHE", "/old")]), "/c");
        assert_eq!(hub(&[("HOME", "/nowhere")]).endpoint, "https://huggingface.co");
        assert_eq!(hub(&[("HF_ENDPOINT", "http://h:1/")]).endpoint, "http://h:1");
        let token = |set: &[(&str, &str)]| hub(set).token;
        assert_eq!(token(&[("HF_TOKEN", " t\n"), ("HUGGING_FACE_HUB_TOKEN", "o")]).as_deref(), Some("t"));
        assert_eq!(token(&[("HF_TOKEN", "t"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        for (value, expected) in [("1", true), ("yes", true), ("0", false), ("no", false)] {
            assert_eq!(hub(&[("HF_HUB_OFFLINE", value)]).is_offline, expected, "{value}");
        }
    }
}
