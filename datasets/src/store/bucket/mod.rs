//! A prefix of a bucket as a store: how it is opened, listed, read and written, whoever runs it.
//!
//! What differs between clouds is one file each: a [`Cloud`], which has the words, and how a bucket of it is opened.

mod azure;
mod cloud;
mod gcs;
mod parts;
mod read;
mod refusal;
mod s3;
mod web;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use self::cloud::{Opened, Opener, Variables, is_plain};
use self::parts::put_parts;
use super::limit::RequestLimit;
use super::listing::Page;
use super::object::{Object, ObjectName};
use super::patience::part_bytes;
use super::{StoreError, StoreOptions, one_line};
use crate::escape::escape_text;

pub(super) use self::cloud::Cloud;
pub use self::cloud::{endpoint, install_tls, without_credentials, without_secrets};
pub(super) use self::parts::{Before, complete, look_before};

/// Every kind of buckets.
pub(super) const CLOUDS: [(&Cloud, Opener); 3] =
    [(&s3::S3, s3::open), (&gcs::GOOGLE, gcs::open), (&azure::AZURE, azure::open)];

/// A prefix of a bucket.
#[derive(Clone)]
pub(super) struct Bucket {
    cloud: &'static Cloud,
    /// Keys relative to the prefix.
    pub(super) objects: Arc<dyn ObjectStore>,
    whole: Arc<dyn ObjectStore>,
    /// `None` where nobody lists what there is, and nothing can be written.
    pages: Option<Arc<dyn PaginatedListStore>>,
    bucket: Arc<str>,
    /// The server, in words.
    endpoint: Arc<str>,
    /// Whether an entity tag of this store was seen to be the MD5 of its object. Tags of encrypted objects are none.
    tags_are_md5: Arc<AtomicBool>,
    /// Whether nothing but TCP's sums of 16 bits guards what comes.
    is_plain: bool,
    is_anonymous: bool,
    /// Of the root; empty, or with `/` at its end.
    pub(super) prefix: Arc<str>,
    /// What no message may contain, whatever a server sends back.
    secrets: Arc<[String]>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // By hand: a derived one would print the secrets.
        f.debug_tuple(self.cloud.name).field(&self.bucket).field(&self.prefix).finish()
    }
}

impl Bucket {
    /// Opens `rest` of `SCHEME://rest`; also gives the location as messages name it. `variables` is the environment.
    pub(super) fn open(
        (cloud, open): (&'static Cloud, Opener),
        rest: &str,
        options: &StoreOptions,
        variables: Variables,
    ) -> Result<(String, Bucket), StoreError> {
        let Cloud { scheme, bucket: word, keys, .. } = cloud;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let location = match bucket.contains([':', '@']) {
            // Where it ends, a password may say.
            true => without_credentials(&format!("{scheme}://{rest}")),
            false => format!("{scheme}://{rest}"),
        };
        let location = escape_text(&location).into_owned();
        let correct = |what: String| StoreError::Correct(format!("{location}: {what}"));
        if bucket.contains('@') {
            return Err(correct(format!("a URL may hold no credentials: set {keys}")));
        }
        if bucket.is_empty() {
            return Err(correct(format!("the {word} is missing: write {scheme}://{word}/prefix")));
        }
        if !bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
            let shown = match bucket.contains([':', '@']) {
                true => "what stands before the first /".into(),
                false => escape_text(bucket),
            };
            return Err(correct(format!(
                "{shown} is no name of a {word}: it has letters, digits, dots and hyphens only"
            )));
        }
        let prefix = Key::parse(prefix)
            .map_err(|error| correct(format!("not a prefix: {}", one_line(&error.to_string()))))?;

        let limit = RequestLimit::new(options.requests_max);
        let opened = open(bucket, options, &limit, variables).map_err(correct)?;
        let Opened { objects: whole, pages, address, secrets } = opened;
        let endpoint = match &address {
            Some(address) => format!("the endpoint ({})", escape_text(&without_credentials(address))),
            None => "the endpoint".to_string(),
        };
        let objects: Arc<dyn ObjectStore> = match prefix.as_ref() {
            "" => Arc::clone(&whole),
            _ => Arc::new(PrefixStore::new(Arc::clone(&whole), prefix.clone())),
        };
        let prefix = match prefix.as_ref() {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let bucket = Bucket {
            cloud,
            objects,
            whole,
            pages: Some(pages),
            tags_are_md5: Arc::default(),
            bucket: bucket.into(),
            endpoint: endpoint.into(),
            is_plain: address.as_deref().is_some_and(is_plain),
            is_anonymous: options.anonymous,
            prefix: prefix.into(),
            secrets: secrets.into(),
        };
        Ok((location.trim_end_matches('/').to_string(), bucket))
    }

    /// The folder of the bucket with a prefix: the whole names of folders, or nothing.
    pub(super) fn at(&self, prefix: &str) -> Bucket {
        let key = Key::parse(prefix).expect("the first names of a key");
        let objects = Arc::new(PrefixStore::new(Arc::clone(&self.whole), key));
        let end = if prefix.is_empty() { "" } else { "/" };
        Bucket { objects, prefix: format!("{prefix}{end}").into(), ..self.clone() }
    }

    /// Whether it can be listed and written to.
    pub(super) fn is_whole(&self) -> bool {
        self.pages.is_some()
    }

    /// What no other object of any store is called: its server, its bucket and its whole key.
    pub(super) fn url(&self, key: &str) -> String {
        format!("{} {}://{}/{}{key}", self.endpoint, self.cloud.scheme, self.bucket, self.prefix)
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
        let Some(pages) = &self.pages else {
            return Err(StoreError::Stop(line("a web server does not list what it has")));
        };
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
            let answer = pages.list_paginated(asked, options).await;
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

    /// Puts one object, a large one in parts.
    pub(super) async fn put(&self, key: &Key, bytes: &Bytes) -> object_store::Result<()> {
        if bytes.len() > part_bytes() {
            return put_parts(self, key, bytes).await;
        }
        self.objects.put(key, PutPayload::from(bytes.clone())).await.map(drop)
    }
}

/// Whether an object of this name can be asked for: `object_store` names none with empty parts, `.` or `..`.
pub(super) fn is_key(name: &ObjectName) -> bool {
    name.text().is_some_and(|name| Key::parse(name).is_ok_and(|key| key.as_ref() == name))
}

#[cfg(test)]
mod tests {
    use super::*;

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
