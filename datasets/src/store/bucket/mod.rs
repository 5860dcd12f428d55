//! A prefix of a bucket as a store: how it is opened, listed, read and written, whoever runs it.
//!
//! What differs between clouds is one file each: a [`Cloud`], which opens a bucket and has the words.

mod azure;
mod cloud;
mod gcs;
mod parts;
mod refusal;
mod s3;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use object_store::limit::LimitStore;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutPayload};

use self::cloud::{Opened, Variables, is_plain};
use self::parts::put_parts;
use self::refusal::code;
use super::http::Strange;
use super::listing::Page;
use super::object::{Object, ObjectName};
use super::patience::part_bytes;
use super::{ASKS, StoreError, StoreOptions, one_line};
use crate::escape::escape_text;

pub(super) use self::cloud::Cloud;
pub use self::cloud::{endpoint, install_tls, without_credentials};
pub(super) use self::parts::{Before, complete, look_before};

/// Every kind of buckets.
pub(super) const CLOUDS: [&Cloud; 3] = [&s3::S3, &gcs::GOOGLE, &azure::AZURE];

/// A prefix of a bucket.
#[derive(Clone)]
pub(super) struct Bucket {
    cloud: &'static Cloud,
    /// Keys relative to the prefix.
    pub(super) objects: Arc<dyn ObjectStore>,
    whole: Arc<dyn ObjectStore>,
    pages: Arc<dyn PaginatedListStore>,
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
        cloud: &'static Cloud,
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

        let opened = (cloud.open)(bucket, options, variables).map_err(correct)?;
        let Opened { objects: whole, pages, address, secrets } = opened;
        let endpoint = match &address {
            Some(address) => format!("the endpoint ({})", escape_text(&without_credentials(address))),
            None => "the endpoint".to_string(),
        };
        let bounded = LimitStore::new(Arc::clone(&whole), options.requests_max.max(1));
        let objects: Arc<dyn ObjectStore> = match prefix.as_ref() {
            "" => Arc::new(bounded),
            _ => Arc::new(PrefixStore::new(bounded, prefix.clone())),
        };
        let prefix = match prefix.as_ref() {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let bucket = Bucket {
            cloud,
            objects,
            whole,
            pages,
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
            let answer = self.pages.list_paginated(asked, options).await;
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
        Err(object_store::Error::Generic { store: self.cloud.name, source: Box::new(strange) })
    }

    /// The bytes of an object, or `None` when there is none. The answer to HEAD has no body: what it denies is asked for
    /// by GET, whose answer says who denies it.
    pub(super) async fn size(&self, name: &Key) -> object_store::Result<Option<u64>> {
        let denied = match self.objects.head(name).await {
            Ok(found) => return Ok(Some(found.size)),
            Err(error) => error,
        };
        match self.objects.get_range(name, 0..1).await {
            Err(error @ object_store::Error::NotFound { .. })
                if self.cloud.codes.no_object.contains(&code(&error.to_string())) =>
            {
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
}

fn hexadecimal_md5(bytes: &[u8]) -> String {
    use md5::Digest;
    md5::Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
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
