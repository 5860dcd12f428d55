//! The hub's server: what it says of a file, and the file itself.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use forebay_datasets::store::{ASKS, Pace, Patience, TooSlow, install_tls};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode, Url};

use crate::flow::Error;
use crate::options::bytes_in_words;
use crate::report::{Bar, Unit, tell};

use super::files::{hexadecimal, is_commit, is_hexadecimal, open_part, write_error};
use super::reference::Reference;

/// A connection that gets less than this further is as good as one that brings nothing.
const ROUND_BYTES_MIN: u64 = 64 << 10;

/// A file that describes weights is not larger.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

/// The download of a smaller file of a dataset is not worth a line.
const TOLD_BYTES: u64 = 16 << 20;

/// A page of the list of files is not larger.
const PAGE_BYTES_MAX: usize = 64 << 20;

const REDIRECTS_MAX: usize = 10;

/// What the server says of a file before it is downloaded.
pub(super) struct Metadata {
    pub(super) commit: String,
    pub(super) etag: String,
    pub(super) bytes: Option<u64>,
}

/// Why a request gave nothing.
pub(super) enum Refusal {
    /// The server answered that there is no such file in the repository.
    NoFile(Error),
    /// Anything else.
    Final(Error),
}

impl Refusal {
    pub(super) fn into_error(self) -> Error {
        match self {
            Refusal::NoFile(error) | Refusal::Final(error) => error,
        }
    }
}

/// One file on a server.
pub(super) struct Server<'a> {
    client: Client,
    token: Option<HeaderValue>,
    /// Where the token may be sent.
    home: Url,
    reference: &'a Reference,
    name: &'a str,
    patience: Patience,
}

impl<'a> Server<'a> {
    pub(super) fn new(
        token: Option<&str>,
        home: &Url,
        reference: &'a Reference,
        name: &'a str,
    ) -> Result<Server<'a>, Refusal> {
        install_tls();
        let patience = Patience::usual();
        // Redirects are followed here, because the token must not follow them to another host.
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(patience.connect)
            .read_timeout(patience.silence)
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
        Ok(Server { client, token, home: home.clone(), reference, name, patience })
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
            // Nobody on the way may change what began with TLS.
            let is_plain = url.scheme() == "http";
            let next = next.filter(|next| next.scheme() == "https" || next.scheme() == "http" && is_plain);
            let Some(next) = next else {
                return Ok((response, said));
            };
            if stop && said.contains_key("x-linked-etag") && next.origin() != self.home.origin() {
                return Ok((response, said));
            }
            url = next;
        }
        unreachable!("the last hop returns")
    }

    /// The same, tried again when the server fails or does not answer, and when it may not be the hub that answered.
    async fn ask(
        &self,
        method: Method,
        url: &Url,
        from: u64,
        stop: bool,
    ) -> Result<(Response, HeaderMap), Refusal> {
        let began = Instant::now();
        for asked in 1.. {
            let mut wait = self.patience.wait_after(asked);
            let problem = match self.follow(&method, url, from, stop).await {
                Ok((response, said)) => {
                    let status = response.status();
                    let has_reason = response.headers().contains_key("x-error-code");
                    let is_busy = status.is_server_error()
                        || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
                    let is_odd =
                        [StatusCode::FORBIDDEN, StatusCode::NOT_FOUND].contains(&status) && !has_reason;
                    if !(is_busy || is_odd && asked < ASKS) {
                        return Ok((response, said));
                    }
                    if let Some(seconds) =
                        text(response.headers(), "retry-after").and_then(|s| s.parse().ok())
                    {
                        wait = Duration::from_secs(seconds).clamp(wait, self.patience.total);
                    }
                    format!("the server says {status}")
                }
                Err(error) => self.root_cause(&error),
            };
            if !self.patience.allows(asked, began) {
                return Err(self.no_answer(&problem));
            }
            tokio::time::sleep(wait).await;
        }
        unreachable!("patience has an end")
    }

    fn no_answer(&self, problem: &str) -> Refusal {
        let Reference { repository, revision, .. } = self.reference;
        Refusal::Final(Error::Store(format!(
            "cannot download {} of {repository} at {revision} from {}: {problem}; without the network, give the path \
             of a file",
            self.name,
            without_path(&self.home),
        )))
    }

    /// The innermost cause, which is the one that names the trouble.
    fn root_cause(&self, error: &reqwest::Error) -> String {
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        match error.is_timeout() {
            true => format!("no answer within {} seconds", self.patience.silence.as_secs()),
            false => cause.to_string(),
        }
    }

    pub(super) async fn metadata(&self, url: &Url) -> Result<Metadata, Refusal> {
        let (response, said) = self.ask(Method::HEAD, url, 0, true).await?;
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
        // The hub itself names the commit: what a portal answers, also after a redirect, lacks it.
        let commit = text(&said, "x-repo-commit").filter(|commit| is_commit(commit));
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

    /// What the hub's interface answers, and where its next page is.
    pub(super) async fn json(&self, url: &Url) -> Result<(serde_json::Value, Option<Url>), Refusal> {
        let mut asked = 0;
        loop {
            let (response, _) = self.ask(Method::GET, url, 0, true).await?;
            if !response.status().is_success() {
                return Err(self.refusal(&response));
            }
            let next = text(response.headers(), "link").and_then(|links| next_link(&links));
            let next = next.and_then(|next| url.join(&next).ok());
            asked += 1;
            // Something in between may have answered, or cut the answer.
            let problem = match self.page(response).await {
                Ok(bytes) => match serde_json::from_slice(&bytes) {
                    Ok(value) => return Ok((value, next)),
                    Err(_) => "the answer is no JSON".to_string(),
                },
                Err(problem) => problem,
            };
            if asked == ASKS {
                return Err(self.no_answer(&problem));
            }
            tokio::time::sleep(self.patience.wait_after(asked)).await;
        }
    }

    /// The body of an answer.
    async fn page(&self, mut response: Response) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let mut pace = Pace::new(self.patience);
        while let Some(chunk) = response.chunk().await.map_err(|error| self.root_cause(&error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > PAGE_BYTES_MAX {
                return Err(format!("the answer is larger than {}", bytes_in_words(PAGE_BYTES_MAX as u64)));
            }
            if pace.is_too_slow(chunk.len() as u64) {
                return Err(TooSlow::from(self.patience).to_string());
            }
        }
        Ok(bytes)
    }

    /// Where a blob lies while it is downloaded.
    pub(super) fn part(blob: &Path) -> PathBuf {
        let mut name = blob.file_name().unwrap_or_default().to_os_string();
        name.push(".incomplete");
        blob.with_file_name(name)
    }

    /// Downloads a blob beside its place, goes on where an earlier try ended, checks it, and puts it in place.
    pub(super) async fn fetch(&self, url: &Url, metadata: &Metadata, blob: &Path) -> Result<(), Refusal> {
        let part = Server::part(blob);
        let failed = |error| Refusal::Final(write_error(&part, error));
        // Of a dataset many files are read, one by one.
        let is_told = !self.reference.is_dataset || metadata.bytes.is_none_or(|bytes| bytes >= TOLD_BYTES);
        let bytes_max = match super::CONFIGS.contains(&self.name) && !self.reference.is_dataset {
            true => CONFIG_BYTES_MAX,
            false => u64::MAX,
        };
        let too_large = || {
            Refusal::Final(Error::Usage(format!(
                "{} of {} is larger than {}: that is no description of weights",
                self.name,
                self.reference.repository,
                bytes_in_words(bytes_max)
            )))
        };
        if metadata.bytes.is_none() && bytes_max == u64::MAX {
            return Err(Refusal::Final(Error::Store(format!(
                "cannot download {} of {}: {} does not say how many bytes it has",
                self.name,
                self.reference.repository,
                without_path(&self.home)
            ))));
        }
        if metadata.bytes.is_some_and(|bytes| bytes > bytes_max) {
            return Err(too_large());
        }
        let mut file = open_part(&part).map_err(failed)?;
        let mut at = file.seek(io::SeekFrom::End(0)).map_err(failed)?;
        let mut is_resumed = at > 0;
        let size = metadata.bytes.map_or("unknown size".to_string(), bytes_in_words);
        if is_told {
            tell(&format!("downloading {} of {} ({size})\n", self.name, self.reference.repository));
        }
        let bar = is_told.then(|| Bar::begin("download", metadata.bytes.unwrap_or(0), Unit::Bytes).from(at));
        // A server that answers anew from the start, or cuts each answer, must get further to be asked again.
        let (mut furthest, mut vain, mut damaged) = (at, 0, 0);
        loop {
            if metadata.bytes.is_some_and(|bytes| at > bytes) {
                at = 0;
            }
            if metadata.bytes.is_none_or(|bytes| at < bytes) {
                let (mut response, _) = self.ask(Method::GET, url, at, false).await?;
                let mut ended = Ok(());
                match response.status() {
                    StatusCode::PARTIAL_CONTENT if goes_on_at(response.headers(), at) => {}
                    StatusCode::OK => at = 0,
                    status @ (StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE) if at > 0 => {
                        at = 0;
                        ended = Err(format!(
                            "the server says {status} to going on at {}",
                            bytes_in_words(furthest)
                        ));
                    }
                    _ => return Err(self.refusal(&response)),
                }
                file.set_len(at).and_then(|()| file.seek(io::SeekFrom::Start(at))).map_err(failed)?;
                let mut pace = Pace::new(self.patience);
                while ended.is_ok() {
                    match response.chunk().await {
                        Ok(Some(chunk)) => {
                            at += chunk.len() as u64;
                            if metadata.bytes.is_some_and(|bytes| at > bytes) {
                                break;
                            }
                            if at > bytes_max {
                                return Err(too_large());
                            }
                            file.write_all(&chunk).map_err(failed)?;
                            bar.iter().for_each(|bar| bar.at(at));
                            if pace.is_too_slow(chunk.len() as u64) {
                                ended = Err(TooSlow::from(self.patience).to_string());
                            }
                        }
                        Ok(None) => break,
                        Err(error) => ended = Err(self.root_cause(&error)),
                    }
                }
                let is_whole = metadata.bytes.is_none_or(|bytes| at >= bytes);
                if ended.is_err() || !is_whole {
                    let is_further = at >= furthest + ROUND_BYTES_MIN;
                    vain = if is_further { 0 } else { vain + 1 };
                    furthest = furthest.max(at);
                    if vain >= self.patience.tries {
                        let why = ended.err().unwrap_or_else(|| "the connection ended early".to_string());
                        return Err(Refusal::Final(Error::Store(format!(
                            "cannot download {} of {}: {why}; run again to go on at {}",
                            self.name,
                            self.reference.repository,
                            bytes_in_words(at)
                        ))));
                    }
                    is_resumed = true;
                    tokio::time::sleep(self.patience.wait_after(vain.max(1))).await;
                    continue;
                }
            }
            match check(&mut file, metadata).map_err(failed)? {
                Ok(()) => break,
                // What came, or what an earlier run left, may be of a connection that delivered rubbish.
                Err(_) if is_resumed || damaged + 1 < ASKS => {
                    damaged += u32::from(!is_resumed);
                    (at, is_resumed) = (0, false);
                    file.set_len(0).map_err(failed)?;
                }
                Err(difference) => {
                    file.set_len(0).map_err(failed)?;
                    return Err(Refusal::Final(Error::Integrity(format!(
                        "{} of {} is not what {} announced: {difference}; it was thrown away, run again",
                        self.name,
                        self.reference.repository,
                        without_path(&self.home)
                    ))));
                }
            }
        }
        drop(bar);
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
                "{repository} at {revision} holds no file {}: look at {home}/{}/tree/{revision}",
                self.name,
                self.reference.page()
            ))),
            (_, "RevisionNotFound") => {
                Refusal::Final(Error::Usage(format!("{repository} has no branch, tag or commit {revision}")))
            }
            (_, "GatedRepo") => Refusal::Final(Error::Usage(format!(
                "{repository} is gated: accept its terms at {home}/{}, and {log_in}",
                self.reference.page()
            ))),
            (401 | 404, "RepoNotFound") | (401, _) => Refusal::Final(Error::Usage(format!(
                "{home} has no repository {repository}, or it is private: check the name, or {log_in}"
            ))),
            (403 | 404, "") => Refusal::Final(Error::Store(format!(
                "cannot download {} of {repository}: the answer {status} has no reason of a hub: check HF_ENDPOINT \
                 ({home}) and what stands before it",
                self.name
            ))),
            (403, _) => {
                Refusal::Final(Error::Usage(format!("{home} refuses access to {repository}: {log_in}")))
            }
            _ => Refusal::Final(Error::Store(format!(
                "cannot download {} of {repository}: {home} says {status}",
                self.name
            ))),
        }
    }
}

/// Compares a downloaded file with its announced size and tag: a SHA-256 for large files, and for small ones the
/// name that Git gives a blob, a SHA-1 of its length and bytes.
pub(super) fn check(file: &mut File, metadata: &Metadata) -> io::Result<Result<(), String>> {
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

/// The target of `rel="next"` in a header of links.
fn next_link(links: &str) -> Option<String> {
    let next =
        links.split(',').find(|link| link.split(';').skip(1).any(|part| part.trim() == "rel=\"next\""))?;
    Some(next.split_once('<')?.1.split_once('>')?.0.to_string())
}

/// True when a partial answer begins where the file ends.
fn goes_on_at(headers: &HeaderMap, at: u64) -> bool {
    let range = text(headers, "content-range");
    range.is_some_and(|range| range.starts_with(&format!("bytes {at}-")))
}

fn text(headers: &HeaderMap, name: &'static str) -> Option<String> {
    let value = headers.get(HeaderName::from_static(name))?;
    value.to_str().ok().map(str::to_string)
}

/// The address of a server without user, password and path.
fn without_path(url: &Url) -> String {
    url.origin().ascii_serialization()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_that_of_the_link_called_next() {
        let next = |links: &str| next_link(links);
        let (a, b) = ("<https://h/a?x=1>; rel=\"prev\"", "<https://h/b?cursor=Zm9v%3D>; rel=\"next\"");
        assert_eq!(next(&format!("{a}, {b}")).as_deref(), Some("https://h/b?cursor=Zm9v%3D"));
        assert_eq!(next(a), None);
        assert_eq!(next("https://h/b; rel=\"next\""), None);
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
