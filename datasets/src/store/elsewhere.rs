//! Objects of other places, which a source names by whole URLs: the images of a table may be anybody's.
//!
//! Whoever wrote the table is a stranger, as the server is that sends a redirect: no private address is asked, unless that is
//! allowed, and what one of these places lacks or refuses loses an image and not the run. Names without `://` are never taken
//! for URLs, and no key or path that a listing gives has it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use object_store::path::Path as Key;
use reqwest::Url;

use super::bucket::without_secrets;
use super::{Object, Store, StoreError, StoreOptions};
use crate::escape::printable;

/// A server that failed so often in a row is not asked again: each time takes half a minute.
const FAILURES_MAX: u32 = 4;

/// Whether the name of an object is a whole URL.
pub fn is_url(name: &str) -> bool {
    name.contains("://")
}

/// Stores of whole URLs that were opened, by server or bucket.
pub(super) struct Elsewhere {
    options: StoreOptions,
    opened: Mutex<HashMap<String, StrangeServer>>,
}

struct StrangeServer {
    /// Else why it cannot be used.
    store: Result<Store, String>,
    /// How often it failed in a row.
    failures: u32,
}

/// Where the object of a URL is.
struct PlaceOfUrl {
    /// The server or bucket.
    base: String,
    store: Store,
    key: String,
}

impl Elsewhere {
    /// Stores that are opened by these options.
    pub(super) fn new(options: &StoreOptions) -> Arc<Elsewhere> {
        let options = StoreOptions { from_strangers: true, ..options.clone() };
        Arc::new(Elsewhere { options, opened: Mutex::default() })
    }

    fn opened(&self) -> MutexGuard<'_, HashMap<String, StrangeServer>> {
        self.opened.lock().expect("nothing panics while it is held")
    }

    /// Where the object of a URL is, or why it cannot be read, as it reads after its name.
    fn place(&self, url: &str) -> Result<PlaceOfUrl, String> {
        let parsed = Url::parse(url).map_err(|_| "it is no URL".to_string())?;
        let (scheme, host) = (parsed.scheme(), parsed.host_str().unwrap_or_default());
        if !["http", "https", "s3", "gs", "az"].contains(&scheme) || host.is_empty() {
            return Err("images are read from https://, http://, s3://, gs:// and az://".to_string());
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err("a URL may hold no credentials".to_string());
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err("a URL with a query (?..) is not read".to_string());
        }
        let port = parsed.port().map_or(String::new(), |port| format!(":{port}"));
        let base = format!("{scheme}://{host}{port}");
        let key = match scheme {
            "http" | "https" => Key::from_url_path(parsed.path()).map(|key| key.as_ref().to_string()),
            // A key of a bucket is written as it is.
            _ => Key::parse(url[scheme.len() + 3..].split_once('/').map_or("", |(_, key)| key))
                .map(|key| key.as_ref().to_string()),
        };
        let key = key.ok().filter(|key| !key.is_empty()).ok_or("it names no file of its server")?;
        let mut opened = self.opened();
        let place = opened.entry(base.clone()).or_insert_with(|| {
            let store = Store::open(&base, &self.options).map_err(|error| error.to_string());
            StrangeServer { store, failures: 0 }
        });
        if place.failures >= FAILURES_MAX {
            return Err(format!("{base} has failed {FAILURES_MAX} times in a row, and is not asked again"));
        }
        let store = place.store.clone()?;
        Ok(PlaceOfUrl { base, store, key })
    }

    /// Remembers how a server did.
    fn note<T>(&self, base: &str, done: &Result<T, StoreError>) {
        if let Some(place) = self.opened().get_mut(base) {
            let is_down = done.as_ref().err().is_some_and(|error| !error.loses_only_this_object());
            place.failures = if is_down { place.failures + 1 } else { 0 };
        }
    }
}

impl Store {
    /// What the server of a whole URL says of its object, which is then read by this URL as its name; else why it cannot be
    /// read, as it reads after its name.
    pub(crate) async fn look_elsewhere(&self, url: &str) -> Result<Object, String> {
        let PlaceOfUrl { base, store, key } = self.elsewhere.place(url)?;
        let found = store.look(&key).await;
        self.elsewhere.note(&base, &found);
        match found {
            Ok(Some(Object { bytes, version, .. })) => Ok(Object { name: url.into(), bytes, version }),
            Ok(None) => Err("there is no such file".to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// As [`Store::read`] of an object that is called by a whole URL.
    pub(super) async fn read_elsewhere(
        &self,
        url: &str,
        range: Option<Range<u64>>,
        listed: u64,
    ) -> Result<Bytes, StoreError> {
        let refuse = |why: &str| {
            let url = without_secrets(url);
            StoreError::LeaveOut(format!("cannot read {}: {why}", printable(&url)))
        };
        let PlaceOfUrl { base, store, key } = self.elsewhere.place(url).map_err(|why| refuse(&why))?;
        let wanted = range.clone().map_or(listed, |range| range.end - range.start);
        let read = Box::pin(store.read(&key.as_str().into(), range, listed)).await;
        self.elsewhere.note(&base, &read);
        match read {
            Ok(bytes) if bytes.len() as u64 == wanted => Ok(bytes),
            Ok(_) => Err(refuse("it was changed since it was looked at")),
            Err(error) => Err(StoreError::LeaveOut(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_its_server_and_its_key_or_why_it_is_none() {
        let elsewhere = Elsewhere::new(&StoreOptions { anonymous: true, ..StoreOptions::default() });
        let of = |url: &str| elsewhere.place(url).map(|place| (place.base, place.key));
        let found = |base: &str, key: &str| Ok((base.to_string(), key.to_string()));
        assert_eq!(of("https://h:8443/a%20b/1.jpg"), found("https://h:8443", "a b/1.jpg"));
        assert_eq!(of("s3://bucket/a%20b/1.jpg"), found("s3://bucket", "a%20b/1.jpg"));
        for (url, why) in [
            ("https://h/1.jpg?sig=geheim", "a URL with a query"),
            ("https://me:geheim@h/1.jpg", "no credentials"),
            ("file:///etc/passwd", "images are read from"),
            ("ftp://h/1.jpg", "images are read from"),
            ("https://h/", "it names no file"),
            ("https://", "it is no URL"),
        ] {
            let said = of(url).expect_err(url);
            assert!(said.contains(why) && !said.contains("geheim"), "{url}: {said}");
        }
        let down: Result<(), StoreError> = Err(StoreError::Stop("down".to_string()));
        for _ in 0..FAILURES_MAX {
            assert!(of("https://h:8443/x").is_ok());
            elsewhere.note("https://h:8443", &down);
        }
        assert!(of("https://h:8443/x").expect_err("given up").contains("is not asked again"));
        assert!(of("https://other/x").is_ok());
    }
}
