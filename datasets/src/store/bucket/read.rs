//! How an object of a bucket is read: whole, a part of it, or, where it is large, by several parts at once.

use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStoreExt};

use super::super::ASKS;
use super::super::known::{Edition, KnownObject};
use super::super::part::UNKNOWN_BYTES;
use super::super::patience::part_bytes;
use super::super::strange::Strange;
use super::Bucket;
use super::refusal::{code, is_silent};

/// Parts of one object that are read at once: enough for one line of 1 GB/s, where one connection brings 250 MB/s.
const PARTS_READ_AT_ONCE: usize = 4;

/// What came of an object, and of which version it is.
type Come = (Bytes, Edition);

/// Which version the parts of an object have to be of.
enum OfVersion {
    /// The one that an answer was of.
    Seen(Edition),
    /// The one that was listed; any, where none was.
    Known(Option<KnownObject>),
}

/// Who takes the bytes of an object, in their order.
pub(in super::super) type Take<'a> = dyn FnMut(&[u8]) -> object_store::Result<()> + Send + 'a;

/// What a request gave: bytes, or what cannot be right.
type Tried<T> = object_store::Result<Result<T, Strange>>;

impl Bucket {
    /// An object, or a range of its bytes. Fewer bytes than announced are asked for again. So is a whole object that came
    /// without TLS and is not what its entity tag says, which is the MD5 of most objects: bytes that come twice are it only
    /// where no tag of this store was an MD5 so far. An object that changes while it is read is an error, and so is one of
    /// another version than the `known` one.
    ///
    /// `listed` is how many bytes are expected, where that is known: nobody makes room for more.
    pub(in super::super) async fn read(
        &self,
        name: &Key,
        range: Option<Range<u64>>,
        listed: Option<u64>,
        known: Option<KnownObject>,
    ) -> object_store::Result<Bytes> {
        self.checked(name, range, listed, known).await.map(|(bytes, _)| bytes)
    }

    /// A whole object, or `None` when there is none, by one request: what is small and may change, as a manifest does.
    pub(in super::super) async fn find(&self, name: &Key) -> object_store::Result<Option<Bytes>> {
        match self.read(name, None, None, None).await {
            Err(error) if self.is_no_object(&error) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Whether an error says that there is no such object, in a bucket that is there.
    fn is_no_object(&self, error: &object_store::Error) -> bool {
        matches!(error, object_store::Error::NotFound { .. })
            && self.cloud.codes.no_object.contains(&code(&error.to_string()))
    }

    /// The same, with the version.
    async fn checked(
        &self,
        name: &Key,
        range: Option<Range<u64>>,
        listed: Option<u64>,
        known: Option<KnownObject>,
    ) -> object_store::Result<Come> {
        let mut before: Option<Bytes> = None;
        let (mut strange, mut is_steady) = (Strange::Damaged, true);
        for _ in 0..ASKS {
            let (bytes, edition) = match self.once(name, range.clone(), listed, known).await? {
                Ok(come) => come,
                Err(what) => {
                    strange = what;
                    continue;
                }
            };
            let digest = edition.tag.as_ref().map(|tag| tag.trim_matches('"').to_ascii_lowercase());
            let is_whole = range.is_none() && self.is_plain;
            match digest.filter(|tag| is_whole && tag.len() == 32 && !tag.contains('-')) {
                Some(digest) if digest == hexadecimal_md5(&bytes) => {
                    self.tags_are_md5.store(true, Ordering::Relaxed);
                    return Ok((bytes, edition));
                }
                Some(_) if self.tags_are_md5.load(Ordering::Relaxed) || before.as_ref() != Some(&bytes) => {
                    let is_same = before.as_ref().is_none_or(|before| *before == bytes);
                    is_steady &= is_same;
                    strange = if is_steady { Strange::OtherTag } else { Strange::Damaged };
                    before = Some(bytes);
                }
                _ => return Ok((bytes, edition)),
            }
        }
        Err(object_store::Error::Generic { store: self.cloud.name, source: Box::new(strange) })
    }

    async fn once(
        &self,
        name: &Key,
        range: Option<Range<u64>>,
        listed: Option<u64>,
        known: Option<KnownObject>,
    ) -> Tried<Come> {
        if let Some(listed) = listed.filter(|listed| is_large(*listed)) {
            let is_whole = range.is_none();
            let span = range.unwrap_or(0..listed);
            return self.in_parts(name, span, is_whole, OfVersion::Known(known)).await;
        }
        let options = GetOptions { range: range.clone().map(GetRange::Bounded), ..Default::default() };
        let answer = self.objects.get_opts(name, options).await?;
        let span = answer.range.clone();
        let announced = span.end - span.start;
        let edition = Edition::of(&answer.meta);
        if known.is_some_and(|known| known.is_changed(&edition)) {
            return Ok(Err(Strange::Changed));
        }
        if let Some(listed) = listed.filter(|listed| *listed < announced) {
            return Ok(Err(Strange::Longer { announced, listed }));
        }
        if is_large(announced) {
            // The rest of this answer is not waited for.
            drop(answer);
            return self.in_parts(name, span, range.is_none(), OfVersion::Seen(edition)).await;
        }
        let bytes = match answer.bytes().await {
            // What lacks bytes at its end is asked for from there, where a true object has none.
            Err(error) if ["InvalidRange", "InvalidArgument"].contains(&code(&error.to_string())) => {
                return Ok(Err(Strange::Short { announced }));
            }
            read => read?,
        };
        Ok(match bytes.len() as u64 == announced {
            true => Ok((bytes, edition)),
            false => Err(Strange::Short { announced }),
        })
    }

    /// Reads a large part of an object into memory.
    async fn in_parts(
        &self,
        name: &Key,
        span: Range<u64>,
        is_whole: bool,
        version: OfVersion,
    ) -> Tried<Come> {
        let mut whole = BytesMut::new();
        let listed = (span.end - span.start) as usize;
        let mut take = |bytes: &[u8]| {
            whole.reserve(listed - whole.len());
            whole.extend_from_slice(bytes);
            Ok(())
        };
        let edition = self.each_part(name, span, is_whole, version, &mut take).await?;
        Ok(edition.map(|edition| (whole.freeze(), edition)))
    }

    /// Hands on a whole object of so many bytes, piece by piece in their order; gives its version.
    pub(in super::super) async fn bring(
        &self,
        name: &Key,
        bytes: u64,
        known: Option<KnownObject>,
        take: &mut Take<'_>,
    ) -> object_store::Result<Result<Edition, Strange>> {
        if is_large(bytes) {
            return self.each_part(name, 0..bytes, true, OfVersion::Known(known), take).await;
        }
        let (whole, edition) = self.checked(name, None, Some(bytes), known).await?;
        if whole.len() as u64 != bytes {
            return Ok(Err(Strange::Short { announced: bytes }));
        }
        take(&whole)?;
        Ok(Ok(edition))
    }

    /// Hands on a large part of an object, read by several requests at once, all of one version: the one that was seen, else
    /// that of the first part, which has to be the known one.
    async fn each_part(
        &self,
        name: &Key,
        span: Range<u64>,
        is_whole: bool,
        version: OfVersion,
        take: &mut Take<'_>,
    ) -> Tried<Edition> {
        let part = part_bytes() as u64;
        let listed = span.end - span.start;
        let starts = (span.start..span.end).step_by(part_bytes());
        let mut parts = starts.map(|start| start..span.end.min(start + part));
        let edition = match version {
            OfVersion::Seen(edition) => edition,
            OfVersion::Known(known) => {
                let first = parts.next().expect("a large part is not empty");
                let (first, edition) = match self.part(name, first, None).await? {
                    Ok(come) => come,
                    Err(strange) => return Ok(Err(strange)),
                };
                if known.is_some_and(|known| known.is_changed(&edition)) {
                    return Ok(Err(Strange::Changed));
                }
                match edition.bytes.filter(|_| is_whole) {
                    Some(announced) if announced > listed => {
                        return Ok(Err(Strange::Longer { announced, listed }));
                    }
                    Some(announced) if announced < listed => {
                        return Ok(Err(Strange::Short { announced: listed }));
                    }
                    _ => {}
                }
                take(&first)?;
                edition
            }
        };
        let read = parts.map(|range| self.part(name, range, Some(&edition)));
        let mut read = futures::stream::iter(read).buffered(PARTS_READ_AT_ONCE);
        while let Some(come) = read.try_next().await? {
            match come {
                Ok((bytes, _)) => take(&bytes)?,
                Err(strange) => return Ok(Err(strange)),
            }
        }
        drop(read);
        Ok(Ok(edition))
    }

    /// One part, of the version that was seen.
    async fn part(&self, name: &Key, range: Range<u64>, seen: Option<&Edition>) -> Tried<Come> {
        let announced = range.end - range.start;
        let if_match = seen.and_then(Edition::strong_tag);
        let options = GetOptions { range: Some(GetRange::Bounded(range)), if_match, ..Default::default() };
        let answer = self.objects.get_opts(name, options).await?;
        let edition = Edition::of(&answer.meta);
        // Some servers ignore the condition, and some give no tag to ask for.
        if seen.is_some_and(|seen| !seen.is_same(&edition)) {
            let source = "another version of it came".into();
            return Err(object_store::Error::Precondition { path: name.to_string(), source });
        }
        let bytes = answer.bytes().await?;
        Ok(match bytes.len() as u64 == announced {
            true => Ok((bytes, edition)),
            false => Err(Strange::Short { announced }),
        })
    }

    /// What the server says of an object, or `None` when there is none. The answer to HEAD has no body: what it denies is
    /// asked for by GET, whose answer says who denies it. A server that does not answer is not asked twice.
    pub(in super::super) async fn look(&self, name: &Key) -> object_store::Result<Option<ObjectMeta>> {
        match self.objects.head(name).await {
            Ok(found) => return Ok(Some(found)),
            Err(error) if is_silent(&error) => return Err(error),
            Err(_) => {}
        }
        let options = GetOptions { range: Some(GetRange::Bounded(0..1)), ..Default::default() };
        match self.objects.get_opts(name, options).await {
            Err(error) if self.is_no_object(&error) => Ok(None),
            Err(error) => Err(error),
            Ok(found) if found.meta.size == UNKNOWN_BYTES => Err(object_store::Error::Generic {
                store: self.cloud.name,
                source: Box::new(Strange::NoTotal),
            }),
            // It may be read, and only HEAD be refused; or it came in between.
            Ok(found) => Ok(Some(found.meta)),
        }
    }
}

/// What is larger is read in parts.
fn is_large(bytes: u64) -> bool {
    bytes > 2 * part_bytes() as u64
}

fn hexadecimal_md5(bytes: &[u8]) -> String {
    use md5::Digest;
    md5::Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
