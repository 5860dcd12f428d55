//! A prefix of an S3 bucket as a store: how it is opened, listed, and what the server's refusals mean.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{ClientConfigKey, HttpError, HttpErrorKind};
use object_store::limit::LimitStore;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload,
    RetryConfig,
};

use super::http::{Strange, Watching};
use super::listing::Page;
use super::object::{Object, ObjectName};
use super::patience::{Patience, part_bytes};
use super::{ASKS, StoreError, StoreOptions, between, cause, innermost, one_line};
use crate::escape::escape_text;

/// Parts of one object on their way at once: what `put` holds beyond the object itself is headers only, since
/// parts share the object's memory.
const PARTS_IN_FLIGHT: usize = 4;

/// A prefix of a bucket.
#[derive(Clone)]
pub(super) struct S3 {
    /// Keys relative to the prefix.
    pub(super) objects: Arc<dyn ObjectStore>,
    whole: Arc<AmazonS3>,
    bucket: Arc<str>,
    /// The server, in words.
    endpoint: Arc<str>,
    /// Whether an entity tag of this store was seen to be the MD5 of its object. Tags of encrypted objects are none.
    tags_are_md5: Arc<AtomicBool>,
    /// Whether nothing but TCP's sums of 16 bits guards what comes.
    is_plain: bool,
    /// Of the root; empty, or with `/` at its end.
    pub(super) prefix: Arc<str>,
    /// What no message may contain, whatever a server sends back.
    secrets: Arc<[String]>,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // By hand: a derived one would print the secrets.
        f.debug_tuple("S3").field(&self.bucket).field(&self.prefix).finish()
    }
}

impl S3 {
    /// Opens `rest` of `s3://rest`; also gives the location as messages name it. `variables` is the environment.
    pub(super) fn open(
        rest: &str,
        options: &StoreOptions,
        variables: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<(String, S3), StoreError> {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let location = match bucket.contains([':', '@']) {
            // Where it ends, a password may say.
            true => without_credentials(&format!("s3://{rest}")),
            false => format!("s3://{rest}"),
        };
        let location = escape_text(&location).into_owned();
        let correct = |what: String| StoreError::Correct(format!("{location}: {what}"));
        if bucket.contains('@') {
            return Err(correct(
                "a URL may hold no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_string(),
            ));
        }
        if bucket.is_empty() {
            return Err(correct("the bucket is missing: write s3://bucket/prefix".to_string()));
        }
        if !bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
            let shown = match bucket.contains([':', '@']) {
                true => "what stands before the first /".into(),
                false => escape_text(bucket),
            };
            return Err(correct(format!(
                "{shown} is no name of a bucket: it has letters, digits, dots and hyphens only"
            )));
        }
        let prefix = Key::parse(prefix)
            .map_err(|error| correct(format!("not a prefix: {}", one_line(&error.to_string()))))?;

        let mut builder = environment(variables).map_err(correct)?.with_bucket_name(bucket);
        if let Some(region) = &options.region {
            builder = builder.with_region(one_word("the region", region).map_err(correct)?);
        }
        if let Some(address) = &options.endpoint {
            // The variable for S3 alone would otherwise beat the option.
            let address = endpoint("the endpoint", address, KEYS).map_err(correct)?;
            builder = builder
                .with_endpoint(&address)
                .with_config(AmazonS3ConfigKey::S3Endpoint, &address)
                .with_virtual_hosted_style_request(false);
        }
        if options.anonymous {
            builder = builder.with_skip_signature(true);
        }
        let value = |key: AmazonS3ConfigKey| builder.get_config_value(&key).filter(|value| !value.is_empty());
        let key_id = value(AmazonS3ConfigKey::AccessKeyId);
        let secret = value(AmazonS3ConfigKey::SecretAccessKey);
        let token = value(AmazonS3ConfigKey::Token);
        let address = value(AmazonS3ConfigKey::S3Endpoint).or(value(AmazonS3ConfigKey::Endpoint));
        let unsigned = value(AmazonS3ConfigKey::SkipSignature)
            .is_some_and(|value| ["1", "true", "on", "yes", "y"].contains(&&*value.to_ascii_lowercase()));
        let elsewhere = value(AmazonS3ConfigKey::WebIdentityTokenFile).is_some()
            || value(AmazonS3ConfigKey::ContainerCredentialsRelativeUri).is_some()
            || value(AmazonS3ConfigKey::ContainerCredentialsFullUri).is_some();
        match (&key_id, &secret) {
            (Some(_), None) => return Err(correct("AWS_SECRET_ACCESS_KEY is not set".to_string())),
            (None, Some(_)) => return Err(correct("AWS_ACCESS_KEY_ID is not set".to_string())),
            (None, None) if !unsigned && !elsewhere && !options.instance_metadata => {
                return Err(correct(
                    "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN where \
                     there is one), or ask for anonymous access or the machine's metadata service"
                        .to_string(),
                ));
            }
            _ => {}
        }

        install_tls();
        let endpoint = match &address {
            Some(address) => format!("the endpoint ({})", escape_text(&without_credentials(address))),
            None => "the endpoint".to_string(),
        };
        let is_plain =
            address.as_deref().is_some_and(|address| address.to_ascii_lowercase().starts_with("http://"));
        if is_plain {
            builder = builder.with_allow_http(true);
            if unsigned || key_id.is_some() {
                // Nothing here speaks TLS, so a machine without root certificates will do.
                let key = AmazonS3ConfigKey::Client(ClientConfigKey::NoSystemCertificates);
                builder = builder.with_config(key, "true");
            }
        }
        // A large body may take as long as it likes, as long as bytes move.
        let patience = Patience::usual();
        let time = |time: Duration| format!("{} ms", time.as_millis());
        builder = builder
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), "1 hour")
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ReadTimeout), time(patience.silence))
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ConnectTimeout), time(patience.connect))
            // One request an object: the request for many has an answer of its own for each, and some servers lack it.
            .with_disable_bulk_delete(true)
            .with_http_connector(Watching::new(patience, unsigned))
            .with_retry(RetryConfig {
                backoff: BackoffConfig {
                    init_backoff: patience.first_wait,
                    max_backoff: patience.wait_max,
                    ..Default::default()
                },
                max_retries: patience.tries as usize - 1,
                retry_timeout: patience.total,
            });
        let secrets: Arc<[String]> =
            [key_id, secret, token].into_iter().flatten().filter(|secret| secret.len() >= 4).collect();
        let whole =
            builder.build().map_err(|error| correct(redacted(&one_line(&innermost(&error)), &secrets)))?;
        let whole = Arc::new(whole);
        let bounded = LimitStore::new(Arc::clone(&whole), options.requests_max.max(1));
        let objects: Arc<dyn ObjectStore> = match prefix.as_ref() {
            "" => Arc::new(bounded),
            _ => Arc::new(PrefixStore::new(bounded, prefix.clone())),
        };
        let prefix = match prefix.as_ref() {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let s3 = S3 {
            objects,
            whole,
            tags_are_md5: Arc::default(),
            bucket: bucket.into(),
            endpoint: endpoint.into(),
            is_plain,
            prefix: prefix.into(),
            secrets,
        };
        Ok((location.trim_end_matches('/').to_string(), s3))
    }

    /// The folder of the bucket with a prefix: the whole names of folders, or nothing.
    pub(super) fn at(&self, prefix: &str) -> S3 {
        let key = Key::parse(prefix).expect("the first names of a key");
        let objects = Arc::new(PrefixStore::new(Arc::clone(&self.whole), key));
        let end = if prefix.is_empty() { "" } else { "/" };
        S3 { objects, prefix: format!("{prefix}{end}").into(), ..self.clone() }
    }

    pub(super) fn server(&self) -> &str {
        &self.endpoint
    }

    /// Every object below `prefix`, by its name relative to the root, as the bucket has it.
    pub(super) async fn list(
        &self,
        prefix: &Key,
        line: impl Fn(&str) -> String,
    ) -> Result<Vec<Object>, StoreError> {
        let below = match prefix.as_ref() {
            "" => self.prefix.to_string(),
            prefix => format!("{}{prefix}/", self.prefix),
        };
        let asked = (!below.is_empty()).then_some(below.as_str());
        let mut found = vec![];
        let mut names = BTreeSet::new();
        let mut tokens = BTreeSet::new();
        let mut token: Option<String> = None;
        loop {
            let options = PaginatedListOptions { page_token: token.clone(), ..Default::default() };
            let answer = self.whole.list_paginated(asked, options).await;
            let answer = answer.map_err(|error| self.explain("list", &error, &line))?;
            let page = answer.result.extensions.get::<Arc<Page>>();
            let page =
                page.ok_or_else(|| StoreError::Stop(line("the server did not answer with a listing")))?;
            for object in &page.objects {
                let odd =
                    |what: &str| StoreError::Stop(line(&format!("{what} {}", escape_text(&object.key))));
                let name = object.key.strip_prefix(&*self.prefix);
                let name = name.filter(|_| object.key.starts_with(&below));
                let name = name.ok_or_else(|| odd("the server lists what was not asked for:"))?;
                if !names.insert(object.key.clone()) {
                    return Err(odd("the server lists a key twice:"));
                }
                found.push(Object { name: name.into(), bytes: object.bytes, version: object.version });
            }
            let Some(next) = &page.next else { return Ok(found) };
            if !tokens.insert(next.clone()) {
                return Err(StoreError::Stop(line(
                    "the server's listing begins anew before its end (a continuation token came twice)",
                )));
            }
            token = Some(next.clone());
        }
    }

    /// An object, or a range of its bytes. Fewer bytes than announced are asked for again. So is a whole object that came
    /// without TLS and is not what its entity tag says, which is the MD5 of most objects: bytes that come twice are it only
    /// where no tag of this store was an MD5 so far.
    ///
    /// `listed` is how many bytes are expected, where that is known: nobody makes room for more.
    pub(super) async fn read(
        &self,
        name: &Key,
        range: Option<Range<u64>>,
        listed: Option<u64>,
    ) -> object_store::Result<Bytes> {
        let mut before: Option<Bytes> = None;
        let mut strange = Strange::Damaged;
        for _ in 0..ASKS {
            let options = GetOptions { range: range.clone().map(GetRange::Bounded), ..Default::default() };
            let answer = self.objects.get_opts(name, options).await?;
            let announced = answer.range.end - answer.range.start;
            if let Some(listed) = listed.filter(|listed| *listed < announced) {
                strange = Strange::Longer { announced, listed };
                continue;
            }
            let tag = answer.meta.e_tag.as_deref().map(|tag| tag.trim_matches('"').to_ascii_lowercase());
            let bytes = match answer.bytes().await {
                // What lacks bytes at its end is asked for from there, where a true object has none.
                Err(error) if ["InvalidRange", "InvalidArgument"].contains(&code(&error.to_string())) => {
                    strange = Strange::Short { announced };
                    continue;
                }
                read => read?,
            };
            let is_whole = range.is_none() && self.is_plain;
            let digest = tag.filter(|tag| is_whole && tag.len() == 32 && !tag.contains('-'));
            match digest {
                _ if bytes.len() as u64 != announced => {
                    strange = Strange::Short { announced };
                }
                Some(digest) if digest == hexadecimal_md5(&bytes) => {
                    self.tags_are_md5.store(true, Ordering::Relaxed);
                    return Ok(bytes);
                }
                Some(_) if self.tags_are_md5.load(Ordering::Relaxed) || before.as_ref() != Some(&bytes) => {
                    before = Some(bytes);
                }
                _ => return Ok(bytes),
            }
        }
        Err(object_store::Error::Generic { store: "S3", source: Box::new(strange) })
    }

    /// The bytes of an object, or `None` when there is none. The answer to HEAD has no body: what it denies is asked for
    /// by GET, whose answer says who denies it.
    pub(super) async fn size(&self, name: &Key) -> object_store::Result<Option<u64>> {
        let denied = match self.objects.head(name).await {
            Ok(found) => return Ok(Some(found.size)),
            Err(error) => error,
        };
        match self.objects.get_range(name, 0..1).await {
            Err(error @ object_store::Error::NotFound { .. }) if code(&error.to_string()) == "NoSuchKey" => {
                Ok(None)
            }
            Err(error) => Err(error),
            // It may be read, and its size not be told; or it came in between.
            Ok(_) => self.objects.head(name).await.map(|found| Some(found.size)).map_err(|_| denied),
        }
    }

    /// Puts one object, a large one in parts.
    pub(super) async fn put(&self, key: &Key, bytes: &Bytes) -> object_store::Result<()> {
        match bytes.len() > part_bytes() {
            true => put_parts(&*self.objects, key, bytes).await,
            false => self.objects.put(key, PutPayload::from(bytes.clone())).await.map(drop),
        }
    }

    /// One plain line for what `object_store` reports; `line` puts a reason behind what was attempted. Its own
    /// text can hold addresses, whole XML bodies and key ids, so that the line is written anew and the original
    /// is not kept as a source.
    pub(super) fn explain(
        &self,
        verb: &str,
        error: &object_store::Error,
        line: &impl Fn(&str) -> String,
    ) -> StoreError {
        let line = |reason: String| redacted(&line(&one_line(&reason)), &self.secrets);
        if let Some(error) = cause::<Strange>(error) {
            return StoreError::Stop(line(format!(
                "{error}: check {} and what stands before it",
                self.endpoint
            )));
        }
        if let Some(http) = cause::<HttpError>(error) {
            let what = match http.kind() {
                HttpErrorKind::Connect => "cannot connect to the server",
                HttpErrorKind::Timeout => "the server does not answer",
                _ => "the connection broke",
            };
            return StoreError::Stop(line(format!(
                "{what} ({}): check {} and the network",
                innermost(http),
                self.endpoint
            )));
        }
        let text = error.to_string();
        let code = code(&text);
        let bucket = &self.bucket;
        match (code, error) {
            ("NoSuchBucket", _) => StoreError::Stop(line(format!("there is no bucket called {bucket}"))),
            ("SignatureDoesNotMatch" | "InvalidAccessKeyId" | "AuthFailure" | "InvalidSecurity", _) => {
                StoreError::Stop(line(format!(
                    "the server refused the credentials ({code}): check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                )))
            }
            ("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired", _) => StoreError::Stop(line(format!(
                "the server refused the credentials ({code}): renew AWS_SESSION_TOKEN"
            ))),
            ("RequestTimeTooSkewed" | "RequestExpired", _) => StoreError::Stop(line(
                "the clock of this machine is off by more than the server allows".to_string(),
            )),
            (
                "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException",
                _,
            ) => StoreError::Stop(line(format!(
                "bucket {bucket} is in another region ({code}): set AWS_REGION or the region option"
            ))),
            ("NoSuchKey", object_store::Error::NotFound { .. }) if verb == "read" => {
                StoreError::LeaveOut(line("no such object".to_string()))
            }
            ("AccessDenied", object_store::Error::PermissionDenied { .. }) if verb == "read" => {
                StoreError::LeaveOut(line("access denied".to_string()))
            }
            (_, object_store::Error::NotFound { .. }) if verb != "read" => {
                StoreError::Stop(line(format!("not found: check that bucket {bucket} exists")))
            }
            (
                _,
                object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. },
            ) if verb != "read" => {
                let said = if code.is_empty() { String::new() } else { format!(" ({code})") };
                StoreError::Stop(line(format!("access denied{said}: the credentials may not do this here")))
            }
            ("", _) if is_refusal(error) => {
                let status = between(&text, "status code: ", ":").unwrap_or("a refusal").trim();
                StoreError::Stop(line(format!(
                    "the server answered {status} without a reason of S3: check {} and what stands before it",
                    self.endpoint
                )))
            }
            _ if text.contains("without LOCATION") => StoreError::Stop(line(format!(
                "bucket {bucket} is in another region: set AWS_REGION or the region option"
            ))),
            _ => {
                let status = between(&text, "status code: ", ":")
                    .map(|status| format!("the server answered {status}"));
                let reason = match (status, code) {
                    (Some(status), "") => status,
                    (Some(status), code) => format!("{status} ({code})"),
                    (None, "") => innermost(error),
                    (None, code) => format!("the server answered {code}"),
                };
                StoreError::Stop(line(reason))
            }
        }
    }
}

fn hexadecimal_md5(bytes: &[u8]) -> String {
    use md5::Digest;
    md5::Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The code that S3 gave with a refusal; empty where there is none.
fn code(text: &str) -> &str {
    between(text, "<Code>", "</Code>").unwrap_or_default()
}

fn is_refusal(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. } | object_store::Error::PermissionDenied { .. })
}

/// A builder from the `AWS_*` variables, their values trimmed: an empty variable is an unset one.
fn environment(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<AmazonS3Builder, String> {
    // In the order of their names, so that which of two names for one thing wins does not depend on the shell.
    let mut known = vec![];
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with("AWS_")) else { continue };
        let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() else { continue };
        let value = value.to_str().ok_or_else(|| format!("{name} is not UTF-8"))?.trim().to_string();
        if !value.is_empty() {
            known.push((name.to_string(), key, value));
        }
    }
    known.sort_by(|a, b| a.0.cmp(&b.0));
    let mut builder = AmazonS3Builder::new();
    for (name, key, value) in known {
        let value = match key {
            AmazonS3ConfigKey::Endpoint | AmazonS3ConfigKey::S3Endpoint | AmazonS3ConfigKey::StsEndpoint => {
                endpoint(&name, &value, KEYS)?
            }
            AmazonS3ConfigKey::AccessKeyId
            | AmazonS3ConfigKey::SecretAccessKey
            | AmazonS3ConfigKey::Token
            | AmazonS3ConfigKey::Region
            | AmazonS3ConfigKey::DefaultRegion => one_word(&name, &value)?,
            // A path or a time may hold blanks.
            _ if value.chars().any(char::is_control) => {
                return Err(format!("{name} holds a control character"));
            }
            _ => value,
        };
        builder = builder.with_config(key, value);
    }
    Ok(builder)
}

/// A value without white space or control characters inside, such as a line break that was copied with a key.
/// The message does not hold the value, which may be a secret.
fn one_word(name: &str, value: &str) -> Result<String, String> {
    let value = value.trim();
    match value {
        "" => Err(format!("{name} is empty")),
        _ if value.chars().any(|c| c.is_whitespace() || c.is_control()) => {
            Err(format!("{name} holds white space or a control character"))
        }
        _ if !value.is_ascii() => Err(format!("{name} holds a character that is not ASCII")),
        _ => Ok(value.to_string()),
    }
}

/// Where credentials belong.
const KEYS: &str = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";

/// The address of a server, as it may be printed and stored. `name` is what it was given as, and `credentials` where a
/// user name and a password belong instead.
///
/// # Errors
/// One line, without a secret, when it is no `http://` or `https://` URL or holds credentials.
pub fn endpoint(name: &str, value: &str, credentials: &str) -> Result<String, String> {
    let value = value.trim();
    let shown = escape_text(&without_credentials(value)).into_owned();
    let url = reqwest::Url::parse(value).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
    let Some(url) = url.filter(|url| url.has_host()) else {
        return Err(match value.contains("://") || value.is_empty() {
            true => format!("{name} {shown:?} is no address: write http://host:port or https://host"),
            false => format!("{name} {shown} has no scheme: write http://{shown} or https://{shown}"),
        });
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("{name} {shown} may hold no credentials: set {credentials}"));
    }
    Ok(value.trim_end_matches('/').to_string())
}

async fn put_parts(store: &dyn ObjectStore, key: &Key, bytes: &Bytes) -> object_store::Result<()> {
    let before = look_before(store, key).await;
    let mut upload = store.put_multipart(key).await?;
    // Parts are numbered in the order in which their futures are made, so that they may run together.
    let parts: Vec<_> = (0..bytes.len())
        .step_by(part_bytes())
        .map(|start| bytes.slice(start..bytes.len().min(start + part_bytes())))
        .map(|part| upload.put_part(PutPayload::from(part)))
        .collect();
    let sent = futures::stream::iter(parts).buffer_unordered(PARTS_IN_FLIGHT).try_collect::<Vec<()>>().await;
    match sent {
        Ok(_) => complete(store, key, &mut *upload, before, bytes.len() as u64).await,
        Err(error) => {
            // The first error is the one to report; a store that cannot abort either keeps invisible parts.
            let _ = upload.abort().await;
            Err(error)
        }
    }
}

/// What was at a key before an object was put there.
pub(super) enum Before {
    Absent,
    /// An object with this entity tag.
    Tag(String),
    /// It could not be told.
    Unknown,
}

pub(super) async fn look_before(store: &dyn ObjectStore, key: &Key) -> Before {
    match store.head(key).await {
        Ok(found) => found.e_tag.map_or(Before::Unknown, Before::Tag),
        Err(object_store::Error::NotFound { .. }) => Before::Absent,
        Err(_) => Before::Unknown,
    }
}

/// Makes an object of its parts. Where the answer is lost, the next request finds no upload any more: whether the object
/// has come, and is not the one that was there `before`, tells.
pub(super) async fn complete(
    store: &dyn ObjectStore,
    key: &Key,
    upload: &mut dyn MultipartUpload,
    before: Before,
    bytes: u64,
) -> object_store::Result<()> {
    let Err(error) = upload.complete().await else { return Ok(()) };
    let now = store.head(key).await.ok().filter(|found| found.size == bytes);
    let has_come = match (now.and_then(|found| found.e_tag), before) {
        (Some(_), Before::Absent) => true,
        (Some(now), Before::Tag(before)) => now != before,
        _ => false,
    };
    if has_come {
        return Ok(());
    }
    let _ = upload.abort().await;
    Err(error)
}

/// Both `object_store` and anyone else in the process may build TLS clients: whoever comes first installs the
/// provider, and ring is the one this program is built with.
pub fn install_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// The address of a server, to be shown: nothing that may be a user or a password is in it, also where the address is
/// malformed, so that nobody can tell where its host begins.
pub fn without_credentials(address: &str) -> String {
    let (scheme, rest) = address.split_at(address.find("://").map_or(0, |at| at + 3));
    format!("{scheme}{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host))
}

fn redacted(text: &str, secrets: &[String]) -> String {
    secrets.iter().fold(text.to_string(), |text, secret| text.replace(secret.as_str(), "[hidden]"))
}

/// Whether an object of this name can be asked for: `object_store` names none with empty parts, `.` or `..`.
pub(super) fn is_key(name: &ObjectName) -> bool {
    name.text().is_some_and(|name| Key::parse(name).is_ok_and(|key| key.as_ref() == name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    type Variables<'a> = &'a [(&'a str, &'a str)];

    fn open(variables: Variables, options: &StoreOptions) -> Result<(String, S3), StoreError> {
        open_at("bucket/pre/fix/", variables, options)
    }

    fn open_at(rest: &str, variables: Variables, options: &StoreOptions) -> Result<(String, S3), StoreError> {
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        S3::open(rest, options, variables)
    }

    const KEY: (&str, &str) = ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE");
    const SECRET: (&str, &str) = ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI");

    fn at(endpoint: &str) -> StoreOptions {
        StoreOptions { endpoint: Some(endpoint.to_string()), ..Default::default() }
    }

    fn refused(variables: Variables, options: &StoreOptions) -> String {
        match open(variables, options) {
            Ok(_) => panic!("opened"),
            Err(StoreError::Correct(line)) => line.trim_start_matches("s3://bucket/pre/fix/: ").to_string(),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn s3_without_credentials_says_which_variables() {
        let default = StoreOptions::default();
        assert!(refused(&[], &default).starts_with("no credentials: set AWS_ACCESS_KEY_ID and"));
        assert_eq!(refused(&[KEY], &default), "AWS_SECRET_ACCESS_KEY is not set");
        assert_eq!(refused(&[SECRET], &default), "AWS_ACCESS_KEY_ID is not set");
        let anonymous = StoreOptions { anonymous: true, ..at("http://localhost:1") };
        assert!(open(&[], &anonymous).is_ok(), "a public bucket");
        let (location, _) = open(&[KEY, SECRET], &at("http://localhost:1")).expect("opens");
        assert_eq!(location, "s3://bucket/pre/fix");
    }

    /// The value that a builder got for a key.
    fn got(variables: Variables, key: AmazonS3ConfigKey) -> Option<String> {
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        environment(variables).expect("an environment").get_config_value(&key)
    }

    #[test]
    fn an_empty_variable_is_an_unset_one_and_values_are_trimmed() {
        assert_eq!(got(&[KEY, SECRET, ("AWS_SESSION_TOKEN", "")], AmazonS3ConfigKey::Token), None);
        assert_eq!(got(&[("AWS_SESSION_TOKEN", " \n")], AmazonS3ConfigKey::Token), None);
        let region = |variables| got(variables, AmazonS3ConfigKey::Region);
        assert_eq!(region(&[("AWS_REGION", ""), ("AWS_DEFAULT_REGION", "eu-1")]).as_deref(), Some("eu-1"));
        assert_eq!(region(&[("AWS_REGION", "a-1"), ("AWS_DEFAULT_REGION", "eu-1")]).as_deref(), Some("a-1"));
        assert_eq!(got(&[("AWS_ENDPOINT_URL", "")], AmazonS3ConfigKey::Endpoint), None);
        let key = got(&[("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE\r\n")], AmazonS3ConfigKey::AccessKeyId);
        assert_eq!(key.as_deref(), Some("AKIDEXAMPLE"));
        open(&[KEY, SECRET, ("AWS_ENDPOINT_URL", ""), ("AWS_REGION", "")], &at("http://localhost:1"))
            .map(drop)
            .expect("opens as without them");
    }

    #[test]
    fn a_bad_variable_or_option_is_one_line_and_no_panic() {
        let default = StoreOptions::default();
        let with = |name, value| refused(&[KEY, SECRET, (name, value)], &at("http://localhost:1"));
        let line = with("AWS_SESSION_TOKEN", "geheim\nis");
        assert_eq!(line, "AWS_SESSION_TOKEN holds white space or a control character");
        assert_eq!(
            refused(&[("AWS_ACCESS_KEY_ID", "AK\nID"), SECRET], &default),
            "AWS_ACCESS_KEY_ID holds white space or a control character"
        );
        assert_eq!(with("AWS_REGION", "eu 1"), "AWS_REGION holds white space or a control character");
        assert!(
            with("AWS_ENDPOINT_URL", "localhost").starts_with("AWS_ENDPOINT_URL localhost has no scheme")
        );
        let endpoint = |text: &str| refused(&[KEY, SECRET], &at(text));
        assert_eq!(
            endpoint("localhost:9000"),
            "the endpoint localhost:9000 has no scheme: write http://localhost:9000 or https://localhost:9000"
        );
        for text in ["", "ftp://host", "http://", "http:// host"] {
            let line = endpoint(text);
            assert!(line.contains("is no address: write http://host:port"), "{line}");
        }
        let line = endpoint("http://me:geheim@host");
        assert!(line.contains("may hold no credentials") && !line.contains("geheim"), "{line}");
        for text in
            ["ich:geheim@host", "ich:geheim@host:9000/x", "://ich:geheim@host", "http://ich:ge/heim@host"]
        {
            let line = endpoint(text);
            assert!(!line.contains("heim") && !line.contains("ich"), "{line}");
        }
        let region = StoreOptions { region: Some("eu\n1".to_string()), ..at("http://localhost:1") };
        assert!(refused(&[KEY, SECRET], &region).starts_with("the region holds white space"));
        let line = with("AWS_UNSIGNED_PAYLOAD", "perhaps");
        assert!(line.contains("perhaps"), "{line}");
        for bucket in ["my bucket/x", "b\u{e9}/x", "a:b/x", "a\nb"] {
            let error = open_at(bucket, &[KEY, SECRET], &default).expect_err("refused").to_string();
            assert!(error.contains("is no name of a bucket") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn what_a_server_says_becomes_one_line_without_secrets() {
        let (_, store) = open(&[KEY, SECRET], &at("http://localhost:1")).expect("opens");
        let explain = |verb: &str, error: &object_store::Error| {
            store.explain(verb, error, &|reason: &str| format!("cannot {verb} x: {reason}"))
        };
        let said = |verb: &str, code: &str, error: fn(String, io::Error) -> object_store::Error| {
            let code = if code.is_empty() { String::new() } else { format!("<Code>{code}</Code>") };
            let body = format!("status code: 403 Forbidden: <Error>\n{code}<K>AKIDEXAMPLE</K></Error>");
            explain(verb, &error("x".to_string(), io::Error::other(body)))
        };
        let denied =
            |path, source: io::Error| object_store::Error::PermissionDenied { path, source: source.into() };
        let missing = |path, source: io::Error| object_store::Error::NotFound { path, source: source.into() };
        let other =
            |_, source: io::Error| object_store::Error::Generic { store: "S3", source: source.into() };
        let stop = |line: &str| StoreError::Stop(line.to_string());
        assert_eq!(
            said("list", "SignatureDoesNotMatch", denied),
            stop(
                "cannot list x: the server refused the credentials (SignatureDoesNotMatch): \
                 check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        );
        assert_eq!(
            said("read", "NoSuchBucket", missing),
            stop("cannot read x: there is no bucket called bucket")
        );
        assert!(said("read", "AccessDenied", denied).loses_only_this_object());
        assert!(said("read", "NoSuchKey", missing).loses_only_this_object());
        // What something in between says costs the run and not the sample.
        for refusal in [denied, missing] {
            let error = said("read", "", refusal);
            assert!(!error.loses_only_this_object(), "{error}");
            assert!(error.to_string().contains("answered 403 Forbidden without a reason of S3"), "{error}");
        }
        assert!(!said("read", "RequestExpired", denied).loses_only_this_object());
        assert_eq!(
            said("write", "AccessDenied", denied),
            stop("cannot write x: access denied (AccessDenied): the credentials may not do this here")
        );
        assert_eq!(
            said("write", "Odd", other),
            stop("cannot write x: the server answered 403 Forbidden (Odd)")
        );
        let plain =
            object_store::Error::Generic { store: "S3", source: "a\nwJalrXUtnFEMI AKIDEXAMPLE".into() };
        assert_eq!(explain("write", &plain), stop("cannot write x: a [hidden] [hidden]"));
    }

    #[test]
    fn a_name_with_empty_or_dotted_parts_is_no_key() {
        for (name, expected) in [
            ("a/x.png", true),
            ("a/ü #%20.png", true),
            ("a/\u{85}.png", true),
            ("a//x.png", false),
            ("/x.png", false),
            ("./z.png", false),
            ("a/../z.png", false),
            ("a/", false),
            ("a/\n.png", false),
        ] {
            assert_eq!(is_key(&name.into()), expected, "{name:?}");
        }
    }
}
