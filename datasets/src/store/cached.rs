//! Objects of a bucket or a web server by way of the cache: which version is meant, and who brings it.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use bytes::Bytes;
use futures::lock::Mutex as Turns;
use object_store::path::Path as Key;

use super::bucket::{Bucket, without_credentials};
use super::cache::{CacheOptions, DiskCache, Filling, NoRoom};
use super::known::{Edition, KnownObject, KnownObjects};
use super::object::Version;
use super::strange::Strange;
use super::{StoreError, one_line};
use crate::escape::escape_text;

/// The cache of one place.
#[derive(Debug)]
pub(super) struct CachedObjects {
    disk: DiskCache,
    /// As messages name it.
    folder: String,
    state: Mutex<CacheState>,
}

#[derive(Debug, Default)]
struct CacheState {
    /// Who brings an object keeps others from bringing it too.
    brought: HashMap<String, Weak<Turns<()>>>,
}

/// What is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) name: &'a Key,
    /// A part of it, or the whole.
    pub(super) range: Option<&'a Range<u64>>,
    /// Whether it was listed before, and has to be of that version.
    pub(super) is_listed: bool,
}

impl CachedObjects {
    /// # Errors
    /// [`StoreError::Correct`] when the folder cannot be made.
    pub(super) fn open(options: &CacheOptions) -> Result<CachedObjects, StoreError> {
        let folder = escape_text(&options.folder.to_string_lossy()).into_owned();
        if folder.contains("://") {
            return Err(StoreError::Correct(format!(
                "the cache {}: it is a folder of this machine, and no URL",
                without_credentials(&folder)
            )));
        }
        let disk = DiskCache::open(options).map_err(|error| {
            StoreError::Correct(format!("cannot use the cache {folder}: {}", one_line(&error.to_string())))
        })?;
        Ok(CachedObjects { disk, folder, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, CacheState> {
        self.state.lock().expect("nothing panics while it is held")
    }

    fn brought(&self, id: &str) -> Arc<Turns<()>> {
        let brought = &mut self.state().brought;
        if let Some(turns) = brought.get(id).and_then(Weak::upgrade) {
            return turns;
        }
        brought.retain(|_, turns| turns.strong_count() > 0);
        let turns = Arc::new(Turns::new(()));
        brought.insert(id.to_string(), Arc::downgrade(&turns));
        turns
    }

    /// A part of an object, or the whole. `None` where the cache does not help: there is no such object, or there is no room
    /// just now; then it is read as without a cache. `line` puts a reason behind what was attempted.
    ///
    /// # Errors
    /// Those of the bucket through `explain`; [`StoreError::Correct`] for an object that is larger than the cache may be, or
    /// of which its store tells no version;
    /// [`StoreError::Stop`] when the folder cannot be written.
    pub(super) async fn read(
        &self,
        bucket: &Bucket,
        objects: &KnownObjects,
        wanted: Wanted<'_>,
        explain: &(dyn Fn(&object_store::Error) -> StoreError + Send + Sync),
        line: &(dyn Fn(&str) -> String + Send + Sync),
    ) -> Result<Option<Bytes>, StoreError> {
        let Wanted { name, range, is_listed } = wanted;
        let key = name.as_ref();
        let known = match objects.get(key) {
            Some(known) => known,
            None => match bucket.look(name).await.map_err(|error| explain(&error))? {
                None => return Ok(None),
                Some(found) => {
                    let known = KnownObject { version: Edition::of(&found).version(), bytes: found.size };
                    objects.replace(key, known);
                    known
                }
            },
        };
        if known.version == Version::UNKNOWN {
            return Err(StoreError::Correct(line(
                "the server gives it neither an ETag nor a time of its last change (Last-Modified), by which it could be \
                 kept: leave --cache out",
            )));
        }
        let id = |version: Version| {
            let parts = [&*bucket.url(key), "\0", &version.to_string()];
            blake3::hash(parts.concat().as_bytes()).to_hex().to_string()
        };
        let wanted = id(known.version);
        if let Some(bytes) = self.disk.read(&wanted, range, known.bytes) {
            return Ok(Some(bytes));
        }
        let turns = self.brought(&wanted);
        let _turn = turns.lock().await;
        if let Some(bytes) = self.disk.read(&wanted, range, known.bytes) {
            return Ok(Some(bytes));
        }
        let unwritten = |error: &io::Error| {
            let why = match error.kind() {
                io::ErrorKind::StorageFull => {
                    "the disk is full: lower --cache-limit, or name another --cache".into()
                }
                _ => one_line(&error.to_string()),
            };
            StoreError::Stop(format!("cannot write the cache {}: {why}", self.folder))
        };
        let mut filling = match self.disk.begin(known.bytes) {
            Ok(filling) => filling,
            Err(NoRoom::Busy) => return Ok(None),
            Err(NoRoom::Io(error)) => return Err(unwritten(&error)),
            Err(NoRoom::TooLarge) => {
                return Err(StoreError::Correct(line(&format!(
                    "it has {} bytes, and the cache {} may take {}: raise --cache-limit, or leave --cache out",
                    known.bytes,
                    self.folder,
                    self.disk.bytes_max()
                ))));
            }
        };
        let mut refused: Option<io::Error> = None;
        let of_version = is_listed.then_some(known);
        let come = fill(bucket, name, known.bytes, of_version, &mut filling, &mut refused).await;
        if let Some(error) = refused {
            return Err(unwritten(&error));
        }
        // The version that came is the one that is kept; it is another one where an object that nobody listed was changed
        // since it was looked at.
        let come = come.map_err(|error| explain(&error))?;
        let id = match known.is_changed(&come) {
            true => {
                let known = KnownObject { version: come.version(), ..known };
                objects.replace(key, known);
                id(known.version)
            }
            false => wanted,
        };
        filling.finish(&id).map_err(|error| unwritten(&error))?;
        // Where it had to go again at once, it is read as without a cache.
        Ok(self.disk.read(&id, range, known.bytes))
    }
}

/// Brings an object, of the version that is `known` where one has to be; gives the one that came. What the disk refused is
/// put into `refused`.
async fn fill(
    bucket: &Bucket,
    name: &Key,
    bytes: u64,
    known: Option<KnownObject>,
    filling: &mut Filling,
    refused: &mut Option<io::Error>,
) -> object_store::Result<Edition> {
    let mut write = |bytes: &[u8]| match filling.write(bytes) {
        Ok(()) => Ok(()),
        Err(error) => {
            *refused = Some(error);
            Err(object_store::Error::Generic { store: "cache", source: "it cannot be written".into() })
        }
    };
    let strange =
        |strange: Strange| object_store::Error::Generic { store: "cache", source: Box::new(strange) };
    bucket.bring(name, bytes, known, &mut write).await?.map_err(strange)
}
