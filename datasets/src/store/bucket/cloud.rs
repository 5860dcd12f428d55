//! What the kinds of buckets share before one is opened: the words that differ between them, the variables of the
//! environment, and the settings of their clients.

use std::ffi::OsString;
use std::sync::{Arc, Once};
use std::time::Duration;

use object_store::client::ClientConfigKey;
use object_store::list::PaginatedListStore;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};

use super::super::StoreOptions;
use super::super::http::{Addressed, Watching};
use super::super::limit::RequestLimit;
use super::super::patience::Patience;
use super::super::resend::Resend;
use crate::escape::escape_text;

/// The environment.
pub(in super::super) type Variables = Vec<(OsString, OsString)>;

/// A kind of buckets, in words: what messages call it, and what its refusals mean.
pub(in super::super) struct Cloud {
    /// Of its URLs, without `://`.
    pub(in super::super) scheme: &'static str,
    /// As messages call it.
    pub(super) name: &'static str,
    /// What it calls a bucket.
    pub(super) bucket: &'static str,
    /// The variables that hold credentials.
    pub(super) keys: &'static str,
    /// What to do about credentials that are no longer valid.
    pub(super) renew: &'static str,
    /// What to do about a bucket of another region.
    pub(super) move_to_region: &'static str,
    pub(super) codes: Codes,
}

/// Opens the bucket of a name. An error is one line without a secret.
pub(in super::super) type Opener =
    fn(&str, &StoreOptions, &RequestLimit, Variables) -> Result<Opened, String>;

/// The codes with which a cloud refuses, by what to do about each.
pub(super) struct Codes {
    pub(super) no_object: &'static [&'static str],
    pub(super) no_bucket: &'static [&'static str],
    /// Of one object that may not be read.
    pub(super) denied: &'static [&'static str],
    pub(super) bad_credentials: &'static [&'static str],
    pub(super) old_credentials: &'static [&'static str],
    pub(super) other_region: &'static [&'static str],
}

/// A bucket that was opened; nobody was asked yet.
pub(in super::super) struct Opened {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) pages: Arc<dyn PaginatedListStore>,
    /// The address of the server, where it is not the usual one.
    pub(super) address: Option<String>,
    /// What no message may contain, whatever a server sends back.
    pub(super) secrets: Vec<String>,
}

impl Opened {
    /// One store as both: what reads and writes, and what lists in pages.
    pub(super) fn new<T: ObjectStore + PaginatedListStore>(
        whole: T,
        address: Option<String>,
        secrets: Vec<String>,
    ) -> Opened {
        let whole = Arc::new(whole);
        let (objects, pages) = (Arc::clone(&whole) as Arc<dyn ObjectStore>, whole);
        Opened { objects, pages, address, secrets }
    }
}

/// What the client of every bucket is given.
pub(super) struct Settings {
    pub(super) client: Vec<(ClientConfigKey, String)>,
    pub(super) watching: Watching,
    pub(super) retry: RetryConfig,
}

impl Settings {
    /// For a server at `address`. Where nothing `speaks_tls_elsewhere`, such as a service that gives credentials, a
    /// machine without root certificates will do for a plain address.
    pub(super) fn new(
        cloud: &'static str,
        addressed: Addressed,
        address: Option<&str>,
        speaks_tls_elsewhere: bool,
        limit: &RequestLimit,
    ) -> Settings {
        let patience = Patience::usual();
        let time = |time: Duration| format!("{} ms", time.as_millis());
        // A large body may take as long as it likes, as long as bytes move.
        let mut client = vec![
            (ClientConfigKey::Timeout, "1 hour".to_string()),
            (ClientConfigKey::ReadTimeout, time(patience.silence)),
            (ClientConfigKey::ConnectTimeout, time(patience.connect)),
        ];
        let is_plain = address.is_some_and(is_plain);
        if is_plain {
            client.push((ClientConfigKey::AllowHttp, "true".to_string()));
        }
        if is_plain && !speaks_tls_elsewhere {
            client.push((ClientConfigKey::NoSystemCertificates, "true".to_string()));
        }
        install_tls();
        Settings {
            client,
            watching: Watching::new(Resend { patience, limit: limit.clone() }, cloud, addressed),
            retry: retries(&patience),
        }
    }
}

/// How often `object_store` goes on with an answer that broke off, and sends again what may have changed something: the rest
/// is sent again below it, by `Resend`.
pub(super) fn retries(patience: &Patience) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: patience.first_wait,
            max_backoff: patience.wait_max,
            // Each wait lies between the first one and so many times the one before: with 2 they would hardly grow.
            base: 4.0,
        },
        max_retries: patience.tries as usize - 1,
        retry_timeout: patience.total,
    }
}

/// Whether nothing but TCP's sums of 16 bits guards what comes from a server.
pub(super) fn is_plain(address: &str) -> bool {
    address.to_ascii_lowercase().starts_with("http://")
}

/// Whether a setting is switched on, as `object_store` reads it.
pub(super) fn is_on(value: Option<String>) -> bool {
    value.is_some_and(|value| ["1", "true", "on", "yes", "y"].contains(&&*value.to_ascii_lowercase()))
}

/// The settings that `key` knows among the variables, their values trimmed: an empty variable is an unset one. `check`
/// looks at the name, the key and the value of each.
pub(super) fn environment<K>(
    variables: Variables,
    key: impl Fn(&str) -> Option<K>,
    check: impl Fn(&str, &K, String) -> Result<String, String>,
) -> Result<Vec<(K, String)>, String> {
    // In the order of their names, so that which of two names for one thing wins does not depend on the shell.
    let mut known = vec![];
    for (name, value) in variables {
        let Some((name, key)) = name.to_str().and_then(|name| Some((name, key(name)?))) else { continue };
        let value = value.to_str().ok_or_else(|| format!("{name} is not UTF-8"))?.trim().to_string();
        if !value.is_empty() {
            known.push((name.to_string(), key, value));
        }
    }
    known.sort_by(|a, b| a.0.cmp(&b.0));
    let checked = |(name, key, value): (String, K, String)| {
        let value = check(&name, &key, value)?;
        Ok((key, value))
    };
    known.into_iter().map(checked).collect()
}

/// A value without control characters; paths and times may hold blanks.
pub(super) fn one_value(name: &str, value: String) -> Result<String, String> {
    match value.chars().any(char::is_control) {
        true => Err(format!("{name} holds a control character")),
        false => Ok(value),
    }
}

/// A value without white space or control characters inside, such as a line break that was copied with a key.
/// The message does not hold the value, which may be a secret.
pub(super) fn one_word(name: &str, value: &str) -> Result<String, String> {
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

/// The address of a server, as it may be printed and stored. `name` is what it was given as, and `credentials` where a
/// user name and a password belong instead.
///
/// # Errors
/// One line, without a secret, when it is no `http://` or `https://` URL or holds credentials.
pub fn endpoint(name: &str, value: &str, credentials: &str) -> Result<String, String> {
    let value = value.trim();
    let shown = escape_text(&without_secrets(value)).into_owned();
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
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{name} {shown} may hold no query (?..) and no fragment (#..): leave it out"));
    }
    Ok(value.trim_end_matches('/').to_string())
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

/// The address of a server as [`without_credentials`] shows it, and without what follows a `?` or `#`, which may be a signature
/// or a token. Where a `?` stands before an `@`, either may begin a secret, and nothing but the scheme is shown.
pub fn without_secrets(address: &str) -> String {
    let (scheme, rest) = address.split_at(address.find("://").map_or(0, |at| at + 3));
    let query = rest.find(['?', '#']).unwrap_or(rest.len());
    match rest.rfind('@') {
        Some(at) if at > query => format!("{scheme}.."),
        _ => without_credentials(&format!("{scheme}{}", &rest[..query])),
    }
}

/// A text without the secrets.
pub(super) fn redacted(text: &str, secrets: &[String]) -> String {
    secrets.iter().fold(text.to_string(), |text, secret| text.replace(secret.as_str(), "[hidden]"))
}

/// An environment of a test.
#[cfg(test)]
pub(super) fn variables(named: &[(&str, &str)]) -> Variables {
    named.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

/// Opens a bucket in an environment of a test: the location is what `rest` says, and is left out of what is refused.
#[cfg(test)]
pub(super) fn opened(
    (cloud, open): (&'static Cloud, Opener),
    rest: &str,
    named: &[(&str, &str)],
    options: &StoreOptions,
) -> Result<super::Bucket, String> {
    let expected = format!("{}://{rest}", cloud.scheme);
    match super::Bucket::open((cloud, open), rest, options, variables(named)) {
        Ok((location, bucket)) => {
            assert_eq!(location, expected);
            Ok(bucket)
        }
        Err(crate::store::StoreError::Correct(line)) => {
            Err(line.strip_prefix(&format!("{expected}: ")).expect("the location").to_string())
        }
        Err(other) => panic!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_of_an_address_is_not_shown() {
        for (address, expected) in [
            ("https://host/a/b", "https://host/a/b"),
            ("https://me:geheim@host/a", "https://host/a"),
            ("https://host/a?sig=geheim#x", "https://host/a"),
            ("ftp://host/a#geheim", "ftp://host/a"),
            ("https://me:geheim@host/a?sig=geheim", "https://host/a"),
            ("https://me:ge?heim@host/a", "https://.."),
            ("https://host/a?mail=me@geheim", "https://.."),
            ("host:9/a?x=geheim", "host:9/a"),
        ] {
            assert_eq!(without_secrets(address), expected);
        }
    }

    #[test]
    fn the_address_of_a_server_has_neither_credentials_nor_a_query() {
        assert_eq!(endpoint("E", " http://host:9/a/ ", "K").as_deref(), Ok("http://host:9/a"));
        for (value, says) in [
            ("http://me:geheim@host", "E http://host may hold no credentials: set K"),
            (
                "http://host?tok=geheim",
                "E http://host may hold no query (?..) and no fragment (#..): leave it out",
            ),
            (
                "http://host/#geheim",
                "E http://host/ may hold no query (?..) and no fragment (#..): leave it out",
            ),
            ("host?tok=geheim", "E host has no scheme: write http://host or https://host"),
        ] {
            assert_eq!(endpoint("E", value, "K").as_deref(), Err(&says.to_string()));
        }
    }
}
