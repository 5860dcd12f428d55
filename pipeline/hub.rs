//! Weights from the Hugging Face hub: out of its cache on this machine, or from its server into that cache.
//!
//! The cache is the one that Python's `huggingface_hub` keeps, so that neither downloads what the other has: a
//! folder per repository with `refs/REVISION` (the commit), `blobs/ETAG` (the bytes) and
//! `snapshots/COMMIT/FILE`, which links to a blob. What is there is used without a request.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode, Url};

use crate::flow::Error;
use crate::plan::bytes_in_words;
use crate::report::terminal;

/// The files that hold the weights of a repository, best first.
pub const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];
/// The files that describe them: the network and, in timm's form, how images are prepared; and the latter again
/// in the form of transformers.
pub const CONFIGS: [&str; 2] = ["config.json", "preprocessor_config.json"];

/// Tries of one request, of which each waits twice as long as the one before; as many as with object stores.
const TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(300);
const REDIRECTS_MAX: usize = 10;
const TIMEOUT: Duration = Duration::from_secs(30);

/// `hf:OWNER/NAME[@REVISION][:FILE]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `OWNER/NAME`.
    pub repository: String,
    /// A branch, a tag or a commit; `main` where none is given.
    pub revision: String,
    /// The file, where one is given.
    pub file: Option<String>,
}

impl Reference {
    /// Reads a reference; `None` for a text that does not begin with `hf:`.
    ///
    /// # Errors
    /// [`Error::Usage`] when it begins so and goes on in another way.
    pub fn parse(text: &str) -> Option<Result<Reference, Error>> {
        let rest = text.strip_prefix("hf:")?;
        let (rest, file) = match rest.split_once(':') {
            Some((rest, file)) => (rest, Some(file.to_string())),
            None => (rest, None),
        };
        let (repository, revision) = rest.split_once('@').unwrap_or((rest, "main"));
        let is_name = |name: &str| {
            !name.is_empty()
                && !name.contains("..")
                && !name.contains("--")
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        let is_path = |path: &str| {
            let is_part =
                |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', '?', '#', '%']);
            path.split('/').all(is_part) && !path.chars().any(|c| c.is_control() || c.is_whitespace())
        };
        let is_repository =
            repository.split_once('/').is_some_and(|(owner, name)| is_name(owner) && is_name(name));
        let is_sound = is_repository && is_path(revision) && file.as_deref().is_none_or(is_path);
        Some(match is_sound {
            true => {
                Ok(Reference { repository: repository.to_string(), revision: revision.to_string(), file })
            }
            false => Err(Error::Usage(format!(
                "{text}: expected hf:OWNER/NAME, hf:OWNER/NAME@REVISION or hf:OWNER/NAME:FILE, such as \
                 hf:timm/resnet18.a1_in1k"
            ))),
        })
    }

    /// The same of another revision: a commit, once it is known.
    fn at(&self, commit: &str) -> Reference {
        Reference { revision: commit.to_string(), ..self.clone() }
    }
}

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

/// What the server says of a file before it is downloaded.
struct Metadata {
    commit: String,
    etag: String,
    bytes: Option<u64>,
}

/// Why a request gave nothing.
enum Refusal {
    /// The server answered that there is no such file in the repository.
    NoFile(Error),
    /// The server could not be reached, or went on failing.
    NoAnswer(Error),
    /// Anything else.
    Final(Error),
}

impl Refusal {
    fn into_error(self) -> Error {
        match self {
            Refusal::NoFile(error) | Refusal::NoAnswer(error) | Refusal::Final(error) => error,
        }
    }
}

impl Hub {
    /// Reads `HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_OFFLINE` and their
    /// older names, and the token file.
    pub fn from_environment() -> Hub {
        Hub::from_variables(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Hub {
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
            match self.download(reference, name, TRIES).await {
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

    /// A file that a repository may lack, at the commit of another file; `None` where it does, and where it is
    /// not in the cache and the server cannot be asked.
    ///
    /// # Errors
    /// As [`Hub::find`], but for a server that cannot be reached.
    pub async fn find_beside(
        &self,
        reference: &Reference,
        commit: &str,
        name: &str,
    ) -> Result<Option<Cached>, Error> {
        let reference = reference.at(commit);
        let known_missing = self.folder(&reference.repository).join(".no_exist").join(commit).join(name);
        if let Some(cached) = self.cached(&reference, name) {
            return Ok(Some(cached));
        }
        if self.is_offline || known_missing.exists() {
            return Ok(None);
        }
        match self.download(&reference, name, 1).await {
            Ok(cached) => Ok(Some(cached)),
            Err(Refusal::NoFile(_)) => {
                // As Python does, so that neither asks again. It is a courtesy that a read-only cache may refuse.
                let _ = known_missing.parent().map(fs::create_dir_all);
                let _ = File::create(known_missing);
                Ok(None)
            }
            Err(Refusal::NoAnswer(_)) => Ok(None),
            Err(Refusal::Final(error)) => Err(error),
        }
    }

    fn folder(&self, repository: &str) -> PathBuf {
        self.cache.join(format!("models--{}", repository.replace('/', "--")))
    }

    /// A file that the cache holds.
    fn cached(&self, reference: &Reference, name: &str) -> Option<Cached> {
        let folder = self.folder(&reference.repository);
        let commit = match is_commit(&reference.revision) {
            true => reference.revision.clone(),
            false => {
                fs::read_to_string(folder.join("refs").join(&reference.revision)).ok()?.trim().to_string()
            }
        };
        let path = folder.join("snapshots").join(&commit).join(name);
        (is_commit(&commit) && path.is_file()).then(|| Cached { name: name.to_string(), path, commit })
    }

    /// Downloads one file into the cache.
    async fn download(&self, reference: &Reference, name: &str, tries: u32) -> Result<Cached, Refusal> {
        let Reference { repository, revision, .. } = reference;
        let url = format!("{}/{repository}/resolve/{}/{name}", self.endpoint, revision.replace('/', "%2F"));
        let url = Url::parse(&url).ok().filter(|url| url.has_host()).ok_or_else(|| {
            Refusal::Final(Error::Usage(format!("HF_ENDPOINT: {} is not a URL", self.endpoint)))
        })?;
        let server = Server::new(self.token.as_deref(), &url, reference, name)?;
        let metadata = server.metadata(&url, tries).await?;
        let folder = self.folder(repository);
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
            let _held = lock_file(&lock).await.map_err(|error| Refusal::Final(write_error(&lock, error)))?;
            // Whoever held it may have brought the file.
            if !blob.is_file() {
                server.fetch(&url, &metadata, &blob).await?;
            }
        }
        if !path.is_file() {
            written(&path, link(&blob, &path, name))?;
        }
        if *revision != metadata.commit {
            let at = folder.join("refs").join(revision);
            let parent = at.parent().expect("it is below the cache");
            written(
                &at,
                fs::create_dir_all(parent).and_then(|()| write_whole(&at, metadata.commit.as_bytes())),
            )?;
        }
        Ok(Cached { name: name.to_string(), path, commit: metadata.commit })
    }
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hexadecimal(text)
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn write_error(path: &Path, error: io::Error) -> Error {
    let attempt = format!("write {}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull => Error::failed(
            attempt,
            "the disk is full; make room and run again, or let HF_HOME name a folder on another disk",
        ),
        _ => Error::failed(attempt, error),
    }
}

/// A small file, whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&temporary, bytes)?;
    fs::rename(temporary, path)
}

/// Links a snapshot to its blob as Python does, relatively, so that the cache can be moved; where the file system
/// has no links, copies it.
fn link(blob: &Path, path: &Path, name: &str) -> io::Result<()> {
    #[cfg(unix)]
    {
        let etag = blob.file_name().expect("a blob has a name");
        let up: PathBuf = std::iter::repeat_n("..", 2 + name.matches('/').count()).collect();
        match std::os::unix::fs::symlink(up.join("blobs").join(etag), path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_file() => return Ok(()),
            Err(_) => {
                // A link to a blob that was deleted.
                let _ = fs::remove_file(path);
                if std::os::unix::fs::symlink(up.join("blobs").join(etag), path).is_ok() {
                    return Ok(());
                }
            }
        }
    }
    let _ = name;
    fs::copy(blob, path).map(drop)
}

/// Waits for the lock; it is given back when the file is closed, by a process that dies too.
async fn lock_file(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).append(true).open(path)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(100)).await,
            // A file system without locks costs a second download at worst: blobs are put in place whole.
            Err(TryLockError::Error(_)) => return Ok(file),
        }
    }
}

/// One file on a server.
struct Server<'a> {
    client: Client,
    token: Option<HeaderValue>,
    /// Where the token may be sent.
    home: Url,
    reference: &'a Reference,
    name: &'a str,
}

impl<'a> Server<'a> {
    fn new(
        token: Option<&str>,
        home: &Url,
        reference: &'a Reference,
        name: &'a str,
    ) -> Result<Server<'a>, Refusal> {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        // Redirects are followed here, because the token must not follow them to another host.
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(TIMEOUT)
            .read_timeout(TIMEOUT)
            .user_agent(concat!("forebay/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Refusal::Final(Error::failed("prepare HTTPS requests", error)))?;
        let token = token.map(|token| HeaderValue::from_str(&format!("Bearer {token}"))).transpose();
        let mut token = token.map_err(|_| {
            Refusal::Final(Error::Usage("HF_TOKEN holds characters that no token has".to_string()))
        })?;
        if let Some(token) = &mut token {
            token.set_sensitive(true);
        }
        Ok(Server { client, token, home: home.clone(), reference, name })
    }

    /// One request and the redirects after it, with what the hub itself said of the file on the way: the answer
    /// at the end may be of a plain store. `stop` ends at a redirect to another host.
    async fn follow(
        &self,
        method: &Method,
        url: &Url,
        from: u64,
        stop: bool,
    ) -> Result<(Response, HeaderMap), reqwest::Error> {
        let mut url = url.clone();
        let mut said = HeaderMap::new();
        for hop in 0.. {
            let is_home = url.origin() == self.home.origin();
            let mut request = self.client.request(method.clone(), url.clone());
            request = request.header("Accept-Encoding", "identity");
            if let Some(token) = self.token.as_ref().filter(|_| is_home) {
                request = request.header("Authorization", token.clone());
            }
            if from > 0 {
                request = request.header("Range", format!("bytes={from}-"));
            }
            let response = request.send().await?;
            if is_home {
                for name in ["x-repo-commit", "x-linked-etag", "x-linked-size"] {
                    if let Some(value) = response.headers().get(name) {
                        said.insert(HeaderName::from_static(name), value.clone());
                    }
                }
            }
            if !response.status().is_redirection() || hop == REDIRECTS_MAX {
                return Ok((response, said));
            }
            let next = text(response.headers(), "location").and_then(|place| url.join(&place).ok());
            let Some(next) = next.filter(|next| matches!(next.scheme(), "http" | "https")) else {
                return Ok((response, said));
            };
            if stop && said.contains_key("x-linked-etag") && next.origin() != self.home.origin() {
                return Ok((response, said));
            }
            url = next;
        }
        unreachable!("the last hop returns")
    }

    /// The same, tried again when the server fails or does not answer.
    async fn ask(
        &self,
        method: Method,
        url: &Url,
        from: u64,
        stop: bool,
        tries: u32,
    ) -> Result<(Response, HeaderMap), Refusal> {
        let mut wait = FIRST_WAIT;
        for attempt in 1.. {
            let problem = match self.follow(&method, url, from, stop).await {
                Ok((response, said)) => match response.status() {
                    status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                        format!("the server says {status}")
                    }
                    _ => return Ok((response, said)),
                },
                Err(error) => root_cause(&error),
            };
            if attempt >= tries {
                let Reference { repository, revision, .. } = self.reference;
                return Err(Refusal::NoAnswer(Error::Store(format!(
                    "cannot download {} of {repository} at {revision} from {}: {problem}; without the network, \
                     give the path of a file",
                    self.name,
                    without_path(&self.home),
                ))));
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        unreachable!("the last try returns")
    }

    async fn metadata(&self, url: &Url, tries: u32) -> Result<Metadata, Refusal> {
        let (response, said) = self.ask(Method::HEAD, url, 0, true, tries).await?;
        if !response.status().is_success() && !response.status().is_redirection() {
            return Err(self.refusal(&response));
        }
        let headers = response.headers();
        let etag = text(&said, "x-linked-etag").or_else(|| text(headers, "etag"));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_string());
        // The tag becomes the name of a file.
        let is_name = |etag: &String| {
            (1..=128).contains(&etag.len())
                && !etag.starts_with('.')
                && etag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        let commit = text(&said, "x-repo-commit")
            .or_else(|| is_commit(&self.reference.revision).then(|| self.reference.revision.clone()))
            .filter(|commit| is_commit(commit));
        let (Some(etag), Some(commit)) = (etag.filter(is_name), commit) else {
            return Err(Refusal::Final(Error::Store(format!(
                "{} does not answer as a Hugging Face hub: it names no commit or no tag of {}; check HF_ENDPOINT",
                without_path(&self.home),
                self.name
            ))));
        };
        let length = text(headers, "content-length").filter(|_| response.status().is_success());
        let bytes = text(&said, "x-linked-size").or(length).and_then(|bytes| bytes.parse().ok());
        Ok(Metadata { commit, etag, bytes })
    }

    /// Downloads a blob beside its place, goes on where an earlier try ended, checks it, and puts it in place.
    async fn fetch(&self, url: &Url, metadata: &Metadata, blob: &Path) -> Result<(), Refusal> {
        let part = blob.with_file_name(format!("{}.incomplete", metadata.etag));
        let failed = |error| Refusal::Final(write_error(&part, error));
        let mut file = File::options()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(&part)
            .map_err(failed)?;
        let mut at = file.seek(io::SeekFrom::End(0)).map_err(failed)?;
        let mut is_resumed = at > 0;
        let size = metadata.bytes.map_or("unknown size".to_string(), bytes_in_words);
        eprintln!("downloading {} of {} ({size})", self.name, self.reference.repository);
        let bar = terminal::progress("download", metadata.bytes.unwrap_or(0), "bytes");
        let mut stalls = 0;
        loop {
            if metadata.bytes.is_some_and(|bytes| at > bytes) {
                at = 0;
            }
            let before = at;
            if metadata.bytes.is_none() || metadata.bytes.is_some_and(|bytes| at < bytes) {
                let (mut response, _) = self.ask(Method::GET, url, at, false, TRIES).await?;
                match response.status() {
                    StatusCode::PARTIAL_CONTENT if goes_on_at(response.headers(), at) => {}
                    StatusCode::OK => at = 0,
                    StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if at > 0 => {
                        at = 0;
                        continue;
                    }
                    _ => return Err(self.refusal(&response)),
                }
                file.set_len(at).and_then(|()| file.seek(io::SeekFrom::Start(at))).map_err(failed)?;
                let ended = loop {
                    match response.chunk().await {
                        Ok(Some(chunk)) => {
                            at += chunk.len() as u64;
                            if metadata.bytes.is_some_and(|bytes| at > bytes) {
                                break Ok(());
                            }
                            file.write_all(&chunk).map_err(failed)?;
                            bar.set_position(at);
                        }
                        Ok(None) => break Ok(()),
                        Err(error) => break Err(root_cause(&error)),
                    }
                };
                let is_whole = metadata.bytes.is_none_or(|bytes| at >= bytes);
                if ended.is_err() || !is_whole {
                    stalls = if at > before { 0 } else { stalls + 1 };
                    if stalls >= TRIES {
                        let why = ended.err().unwrap_or_else(|| "the connection ended early".to_string());
                        return Err(Refusal::NoAnswer(Error::Store(format!(
                            "cannot download {} of {}: {why}; run again to go on at {}",
                            self.name,
                            self.reference.repository,
                            bytes_in_words(at)
                        ))));
                    }
                    is_resumed = true;
                    tokio::time::sleep(FIRST_WAIT).await;
                    continue;
                }
            }
            match check(&mut file, metadata).map_err(failed)? {
                Ok(()) => break,
                // What an earlier run left may be of a connection that delivered rubbish.
                Err(_) if is_resumed => {
                    (at, is_resumed) = (0, false);
                    file.set_len(0).map_err(failed)?;
                }
                Err(difference) => {
                    let _ = fs::remove_file(&part);
                    return Err(Refusal::Final(Error::Integrity(format!(
                        "{} of {} is not what {} announced: {difference}; it was thrown away, run again",
                        self.name,
                        self.reference.repository,
                        without_path(&self.home)
                    ))));
                }
            }
        }
        bar.finish_and_clear();
        file.sync_all().and_then(|()| fs::rename(&part, blob)).map_err(failed)
    }

    /// An answer that is no file, as an error that says what to do.
    fn refusal(&self, response: &Response) -> Refusal {
        let Reference { repository, revision, .. } = self.reference;
        let (status, home) = (response.status(), without_path(&self.home));
        let code = text(response.headers(), "x-error-code").unwrap_or_default();
        let log_in = match self.token {
            Some(_) => "check that the token of HF_TOKEN may read it",
            None => "set HF_TOKEN to a token that may read it",
        };
        match (status.as_u16(), code.as_str()) {
            (_, "EntryNotFound") => Refusal::NoFile(Error::Usage(format!(
                "{repository} at {revision} holds no file {}: look at {home}/{repository}/tree/{revision}",
                self.name
            ))),
            (_, "RevisionNotFound") => {
                Refusal::Final(Error::Usage(format!("{repository} has no branch, tag or commit {revision}")))
            }
            (_, "GatedRepo") => Refusal::Final(Error::Usage(format!(
                "{repository} is gated: accept its terms at {home}/{repository}, and {log_in}"
            ))),
            (401 | 404, "RepoNotFound") | (401, _) => Refusal::Final(Error::Usage(format!(
                "{home} has no repository {repository}, or it is private: check the name, or {log_in}"
            ))),
            (403, _) => {
                Refusal::Final(Error::Usage(format!("{home} refuses access to {repository}: {log_in}")))
            }
            (404, _) => Refusal::NoFile(Error::Usage(format!(
                "{home} has no {} in {repository} at {revision}: check the name",
                self.name
            ))),
            _ => Refusal::Final(Error::Store(format!(
                "cannot download {} of {repository}: {home} says {status}",
                self.name
            ))),
        }
    }
}

/// Compares a downloaded file with its announced size and tag: a SHA-256 for large files, and for small ones the
/// name that Git gives a blob, a SHA-1 of its length and bytes.
fn check(file: &mut File, metadata: &Metadata) -> io::Result<Result<(), String>> {
    use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
    let length = file.seek(io::SeekFrom::End(0))?;
    if let Some(bytes) = metadata.bytes.filter(|bytes| *bytes != length) {
        return Ok(Err(format!("it has {length} bytes instead of {bytes}")));
    }
    let is_digest = is_hexadecimal(&metadata.etag);
    let (mut context, kind) = match metadata.etag.len() {
        64 if is_digest => (Context::new(&SHA256), "SHA-256"),
        40 if is_digest => {
            let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
            context.update(format!("blob {length}\0").as_bytes());
            (context, "Git hash")
        }
        // The tag says nothing of the bytes.
        _ => return Ok(Ok(())),
    };
    file.rewind()?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => context.update(&buffer[..n]),
        }
    }
    let found = hexadecimal(context.finish().as_ref());
    Ok(if found == metadata.etag {
        Ok(())
    } else {
        Err(format!("its {kind} is {found} instead of {}", metadata.etag))
    })
}

/// The SHA-256 of some bytes, in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hexadecimal(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// True when a partial answer begins where the file ends.
fn goes_on_at(headers: &HeaderMap, at: u64) -> bool {
    let range = text(headers, "content-range");
    range.is_none_or(|range| range.starts_with(&format!("bytes {at}-")))
}

fn text(headers: &HeaderMap, name: &'static str) -> Option<String> {
    let value = headers.get(HeaderName::from_static(name))?;
    value.to_str().ok().map(str::to_string)
}

/// The address of a server without user, password and path.
fn without_path(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// The innermost cause, which is the one that names the trouble.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if error.is_timeout() {
        format!("no answer within {} seconds", TIMEOUT.as_secs())
    } else {
        cause.to_string()
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

    #[test]
    fn a_file_is_compared_with_what_its_tag_says() {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"hello\n").expect("room");
        let mut check = |etag: &str, bytes| {
            let metadata = Metadata { commit: String::new(), etag: etag.to_string(), bytes };
            check(&mut file, &metadata).expect("it can be read").is_ok()
        };
        // As `sha256sum` and `git hash-object` print them.
        let digest = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert!(check(digest, Some(6)));
        assert!(check("ce013625030ba8dba906f756967f9e9ca394464a", None));
        assert!(!check(digest, Some(7)));
        assert!(!check(&digest.replace('5', "6"), None));
        assert!(!check("ce013625030ba8dba906f756967f9e9ca394464b", None));
        assert!(check("any-tag", None));
    }
}
