//! The one place that knows where bytes live: a local folder, a prefix of a bucket, a folder of a web server, a dataset of the
//! hub, or memory.
//!
//! Keys are relative to the root, their parts joined by `/`, and are taken as given (`Path::parse`), never
//! percent-encoded. The futures here need the caller's tokio runtime for buckets and run anywhere otherwise.

mod body;
mod bucket;
mod cache;
mod cached;
mod claim;
mod delete;
mod elsewhere;
mod http;
mod known;
mod limit;
mod listing;
mod local;
mod mirror;
mod near;
mod object;
mod part;
mod patience;
mod resend;
mod strange;
mod upload;
mod web;
mod window;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use self::bucket::{Bucket, CLOUDS};
use self::cached::{CachedObjects, Wanted};
use self::elsewhere::Elsewhere;
use self::known::{Edition, KnownObjects};
use self::local::Local;
use crate::escape::{escape_text, one_line as in_one_line, printable};

pub use self::bucket::{endpoint, install_tls, without_credentials, without_secrets};
pub use self::cache::CacheOptions;
pub use self::claim::Claim;
pub use self::elsewhere::is_url;
pub use self::listing::{ListingForm, NoListing, Page, PageObject};
pub use self::local::local_path;
pub use self::mirror::{Mirror, MirrorOpener, Mirrored, open_hub_with};
pub use self::object::{Object, ObjectName, Version};
pub use self::patience::{ASKS, Pace, Patience, TooSlow};
pub use self::upload::Upload;
pub(crate) use self::window::ByteWindow;

/// How a location is opened. The default asks for nothing beyond the variables `AWS_*`, `GOOGLE_*` and `AZURE_*`, each for
/// its own cloud.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Address of the server of every bucket, with its scheme; a plain `http://` one is allowed as given.
    pub endpoint: Option<String>,
    /// The region of a bucket of S3, instead of `AWS_REGION`.
    pub region: Option<String>,
    /// Sends unsigned requests, as public buckets take them, and no token to the hub.
    pub anonymous: bool,
    /// Follows a redirect of a public web server to a private address, and reads what a table names there.
    pub allow_private: bool,
    /// The place is named by strangers, so that none with a private address is asked.
    pub from_strangers: bool,
    /// Asks the metadata service of the machine for credentials when the environment holds none.
    pub instance_metadata: bool,
    /// Where objects of buckets and web servers are kept for the next time.
    pub cache: Option<CacheOptions>,
    /// The most requests to a bucket that wait for their answer at once: each has a socket of its own. A server that says
    /// that these are too many gets fewer, see [`Store`].
    pub requests_max: usize,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            endpoint: None,
            region: None,
            anonymous: false,
            allow_private: false,
            from_strangers: false,
            instance_metadata: false,
            cache: None,
            // Far below the 1024 files that a process usually may open.
            requests_max: 128,
        }
    }
}

/// The root of a dataset, a destination or a run. Cloning is cheap.
///
/// Each bucket that is opened has a limit of requests on their way: a server that throttles (503, 429) halves it, and each
/// round of other answers adds one again, up to [`StoreOptions::requests_max`].
#[derive(Clone)]
pub struct Store {
    location: String,
    root: Root,
    /// Where objects of a bucket or a web server are kept, where the options name a place.
    cache: Option<Arc<CachedObjects>>,
    /// Which versions of the objects of a bucket or a web server were seen.
    known: Arc<KnownObjects>,
    /// What is read of other places, by whole URLs.
    elsewhere: Arc<Elsewhere>,
}

#[derive(Clone)]
enum Root {
    Local(Local),
    Bucket(Arc<Bucket>),
    Memory(Arc<InMemory>),
    Mirror(Arc<dyn Mirror>),
}

impl Store {
    /// Opens a local path or, when `location` contains `://`, a URL: `file://`, `s3://bucket/prefix`,
    /// `gs://bucket/prefix`, `az://container/prefix`, or `http://` or `https://` for a folder of a web server, which can be
    /// read and cannot be listed. `hf://` is opened with what [`open_hub_with`] was given. A leading `~/` is the home folder.
    ///
    /// Nothing is read or created and no server is asked: a folder or bucket that does not exist is reported
    /// by the first operation that needs it, by its name. Of the environment, an empty variable is an unset one.
    ///
    /// # Errors
    /// [`StoreError::Correct`] for a scheme this build does not know, a malformed URL, endpoint or variable, or
    /// a bucket without credentials.
    pub fn open(location: &str, options: &StoreOptions) -> Result<Store, StoreError> {
        let opened = Store::open_alone(location, options)?;
        Ok(Store { elsewhere: Elsewhere::new(options), ..opened })
    }

    fn open_alone(location: &str, options: &StoreOptions) -> Result<Store, StoreError> {
        let variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        let Some((scheme, rest)) = location.split_once("://") else {
            if location.is_empty() {
                return Err(StoreError::Correct("an empty location: give a folder or a URL".to_string()));
            }
            let path = local_path(location)?;
            // Both spellings of a place are one place.
            let location = match location.starts_with('~') {
                true => path.to_string_lossy().into_owned(),
                false => location.to_string(),
            };
            return Ok(Store::local(path, location));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "file" => {
                let path = reqwest::Url::parse(location).ok().and_then(|url| url.to_file_path().ok());
                let path = path.ok_or_else(|| {
                    StoreError::Correct(format!(
                        "{}: not a local file URL: write file:///absolute/path",
                        escape_text(location)
                    ))
                })?;
                Ok(Store::local(path, location.to_string()))
            }
            "hf" => {
                let location = escape_text(location.trim_end_matches('/')).into_owned();
                let open = mirror::hub().ok_or_else(|| {
                    StoreError::Correct(format!("{location}: this program does not read from the hub"))
                })?;
                Ok(Store::at(location, Root::Mirror(open(rest, options)?)))
            }
            "http" | "https" => {
                let (location, bucket) = Bucket::open_web(location, options)?;
                Store::remote(location, bucket, options)
            }
            scheme => match CLOUDS.iter().find(|(cloud, _)| cloud.scheme == scheme) {
                Some(cloud) => {
                    let (location, bucket) = Bucket::open(*cloud, rest, options, variables)?;
                    Store::remote(location, bucket, options)
                }
                None => Err(StoreError::Correct(format!(
                    "{}: unknown scheme {scheme}://: give a local path, file://, s3://bucket/prefix, gs://bucket/prefix, \
                     az://container/prefix or https://host/folder",
                    escape_text(&without_secrets(location))
                ))),
            },
        }
    }

    /// An empty root in memory.
    pub fn memory() -> Store {
        Store::at("memory".to_string(), Root::Memory(Arc::new(InMemory::new())))
    }

    fn local(path: PathBuf, location: String) -> Store {
        // It goes into messages, each of which is one line.
        let location = printable(&location).into_owned();
        Store::at(location, Root::Local(Local { root: path.into() }))
    }

    fn at(location: String, root: Root) -> Store {
        let elsewhere = Elsewhere::new(&StoreOptions::default());
        Store { location, root, cache: None, known: Arc::default(), elsewhere }
    }

    fn remote(location: String, bucket: Bucket, options: &StoreOptions) -> Result<Store, StoreError> {
        let cache = options.cache.as_ref().map(CachedObjects::open).transpose()?;
        Ok(Store { cache: cache.map(Arc::new), ..Store::at(location, Root::Bucket(Arc::new(bucket))) })
    }

    /// Where this is, for messages: as it was given, without anything secret.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// The server of a bucket, in words that differ where servers do.
    pub fn server(&self) -> Option<&str> {
        match &self.root {
            Root::Bucket(bucket) => Some(bucket.server()),
            _ => None,
        }
    }

    /// The folder, when this is a local one.
    pub fn local_root(&self) -> Option<&Path> {
        match &self.root {
            Root::Local(local) => Some(&local.root),
            _ => None,
        }
    }

    /// The whole object at `key`.
    ///
    /// # Errors
    /// [`StoreError::LeaveOut`] when it does not exist or may not be read.
    pub async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.part(key, None, None).await
    }

    /// The bytes `range` of the object at `key`; fewer when it ends before.
    ///
    /// # Errors
    /// [`StoreError::LeaveOut`] when it does not exist or may not be read.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.part(key, Some(range), None).await
    }

    /// `listed` is how many bytes are expected, where that is known; then they have to be of the version that was listed.
    async fn part(
        &self,
        key: &str,
        range: Option<Range<u64>>,
        listed: Option<u64>,
    ) -> Result<Bytes, StoreError> {
        let name = self.key("read", key)?;
        self.check_regular("read", key)?;
        if let Root::Mirror(mirror) = &self.root {
            let Some(listed) = self.look(key).await? else {
                return Err(StoreError::LeaveOut(self.line("read", key)("no such file")));
            };
            let path = mirror.bring(listed.name.text().unwrap_or(key)).await?;
            let (root, name) = mirror::folder_and_name(&path).ok_or_else(|| self.absent("read", key))?;
            let read = Local { root }.read(&ObjectName::of_os(name), range.as_ref());
            return read
                .map_err(|error| StoreError::Stop(self.line("read", key)(&one_line(&error.to_string()))));
        }
        let Some(store) = self.objects("read", key, false)? else { return Err(self.absent("read", key)) };
        // What is read without its size is small and may change, as a manifest does: that always comes from its place.
        if let (Root::Bucket(bucket), Some(cache)) = (&self.root, &self.cache)
            && (range.is_some() || listed.is_some())
        {
            let explain = |error: &object_store::Error| self.explain("read", key, error);
            let line = self.line("read", key);
            let wanted = Wanted { name: &name, range: range.as_ref(), is_listed: listed.is_some() };
            if let Some(bytes) = cache.read(bucket, &self.known, wanted, &explain, &line).await? {
                return Ok(bytes);
            }
        }
        let read = match &self.root {
            Root::Bucket(bucket) => {
                let known = listed.and_then(|_| self.known.get(key));
                bucket.read(&name, range, listed, known).await
            }
            _ => get_part(&*store, &name, range).await,
        };
        read.map_err(|error| self.explain("read", key, &error))
    }

    /// Even asking for the size of a named pipe would wait: `object_store` opens it for that. And a put takes the place of
    /// what is there, be it a device.
    fn check_regular(&self, verb: &str, key: &str) -> Result<(), StoreError> {
        match &self.root {
            Root::Local(local) => {
                local.check_regular(key).map_err(|error| self.explain_io(verb, key, &error))
            }
            _ => Ok(()),
        }
    }

    /// The bytes of the object at `key`, or `None` when there is no such object.
    ///
    /// # Errors
    /// When it cannot be told.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, StoreError> {
        match &self.root {
            Root::Bucket(bucket) => return Ok(self.look_at(bucket, key).await?.map(|found| found.bytes)),
            Root::Mirror(mirror) => return Ok(mirrored(&**mirror, key).await?.map(|found| found.bytes)),
            Root::Local(_) | Root::Memory(_) => {}
        }
        let name = self.key("read", key)?;
        self.check_regular("read", key)?;
        let Some(store) = self.objects("read", key, false)? else { return Ok(None) };
        match store.head(&name).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.explain("read", key, &error)),
        }
    }

    /// The whole object at `key`; `None` when there is no such object, also when it goes while it is looked at.
    ///
    /// # Errors
    /// When it is there and cannot be read, or that cannot be told.
    pub async fn find(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        if let Root::Bucket(bucket) = &self.root {
            let found = bucket.find(&self.key("read", key)?).await;
            return found.map_err(|error| self.explain("read", key, &error));
        }
        let mut asked = 0;
        while let Some(size) = self.size(key).await? {
            let read = self.part(key, None, Some(size)).await;
            asked += 1;
            match read {
                Ok(bytes) if bytes.len() as u64 == size => return Ok(Some(bytes)),
                // It may have been replaced or deleted in between.
                Ok(_) | Err(StoreError::LeaveOut(_)) if asked < ASKS => {}
                Ok(bytes) => return Err(self.other_size(key, bytes.len(), size)),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Bytes that are not as many as were announced.
    pub(crate) fn other_size(&self, key: &str, came: usize, announced: u64) -> StoreError {
        StoreError::Stop(self.line("read", key)(&format!(
            "{came} bytes came where {announced} were listed: it was changed since the run began, or the server sends \
             something else; run again"
        )))
    }

    /// Puts one whole object, replacing what was there: readers see the old one or the new one, never a part.
    /// A local root and the folders of the key are made where they are missing, and the file is on the disk
    /// (fsync) when this returns. Large objects go to a bucket in parts, which are removed when one fails; where the
    /// process is killed they stay invisible until the bucket's rule for incomplete uploads removes them.
    ///
    /// # Errors
    /// [`StoreError::Stop`] with the reason: a full disk, a path below a file, no permission, no bucket.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let name = self.key("write", key)?;
        self.check_regular("write", key)?;
        let result = match &self.root {
            Root::Bucket(bucket) => bucket.put(&name, &bytes).await,
            _ => {
                let store = self.objects("write", key, true)?.ok_or_else(|| self.absent("write", key))?;
                store.put(&name, PutPayload::from(bytes)).await.map(drop)
            }
        };
        self.forget(key);
        result.map_err(|error| self.explain("write", key, &error))
    }

    /// The keys below `prefix` (whole parts of a key: `data` finds `data/x` and not `database/x`; empty for
    /// all) with their bytes, relative to the root and sorted. Names that cannot be keys are left out. A folder
    /// that does not exist is empty; a bucket that does not exist is an error.
    ///
    /// # Errors
    /// When the listing is refused, breaks off or is none.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let name = self.key("list", prefix)?;
        let mut found = match &self.root {
            Root::Local(local) => {
                local.list(&name).map_err(|error| self.explain_io("list", prefix, &error))?
            }
            _ => {
                let objects = self.list_objects(prefix).await?;
                let keys = objects.into_iter().filter(|object| bucket::is_key(&object.name));
                keys.filter_map(|object| Some((object.name.text()?.to_string(), object.bytes))).collect()
            }
        };
        found.sort_unstable();
        Ok(found)
    }

    /// The objects below `prefix` of a bucket or of memory under the names that they have there, odd ones among
    /// them, in any order. A local folder is walked by the catalog, which knows what links and folders mean; here
    /// it has no objects.
    ///
    /// # Errors
    /// When the listing is refused, breaks off, is none, or names an object twice.
    pub async fn list_objects(&self, prefix: &str) -> Result<Vec<Object>, StoreError> {
        let name = self.key("list", prefix)?;
        match &self.root {
            Root::Local(_) => Ok(vec![]),
            Root::Bucket(bucket) => {
                let objects = bucket.list(&name, self.line("list", prefix)).await?;
                objects.iter().for_each(|object| self.known.note(object));
                Ok(objects)
            }
            Root::Mirror(mirror) => {
                let below = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
                let is_below =
                    |object: &&Object| object.name.text().is_some_and(|name| name.starts_with(&below));
                Ok(mirror.list().await?.iter().filter(is_below).cloned().collect())
            }
            Root::Memory(store) => {
                let listing = store.list(Some(&name)).map_ok(|object| Object {
                    name: object.location.as_ref().into(),
                    bytes: object.size,
                    version: object.e_tag.map_or(Version::UNKNOWN, |tag| Version::of_etag(&tag)),
                });
                listing.try_collect().await.map_err(|error| self.explain("list", prefix, &error))
            }
        }
    }

    /// Whether it can be listed, as a web server cannot.
    pub fn can_list(&self) -> bool {
        match &self.root {
            Root::Bucket(bucket) => bucket.is_whole(),
            _ => true,
        }
    }

    fn can_write(&self) -> bool {
        self.can_list() && !matches!(self.root, Root::Mirror(_))
    }

    /// What a store says of the object at `key` that cannot be listed; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be told.
    pub async fn look(&self, key: &str) -> Result<Option<Object>, StoreError> {
        match &self.root {
            Root::Bucket(bucket) => return self.look_at(bucket, key).await,
            Root::Mirror(mirror) => return mirrored(&**mirror, key).await,
            Root::Local(_) | Root::Memory(_) => {}
        }
        let object = |bytes| Object { name: key.into(), bytes, version: Version::UNKNOWN };
        Ok(self.size(key).await?.map(object))
    }

    async fn look_at(&self, bucket: &Bucket, key: &str) -> Result<Option<Object>, StoreError> {
        let name = self.key("read", key)?;
        let found = bucket.look(&name).await.map_err(|error| self.explain("read", key, &error))?;
        let found = found.map(|found| {
            let version = Edition::of(&found).version();
            Object { name: key.into(), bytes: found.size, version }
        });
        found.iter().for_each(|found| self.known.note(found));
        Ok(found)
    }

    /// Of an object that is written or deleted.
    fn forget(&self, key: &str) {
        self.known.forget(key);
    }

    /// Whether an object of this name can be read: in a bucket, names with empty parts, `.` or `..` cannot be
    /// asked for.
    pub fn can_read(&self, name: &ObjectName) -> bool {
        self.local_root().is_some() || bucket::is_key(name)
    }

    /// Reads an object by its true name, or a range of its bytes (fewer where it ends before). For a local root
    /// this blocks the calling thread, and names of any kind can be read (`object_store` does not open `a#1`). It is
    /// `listed` to have so many bytes: a server that announces more is not listened to.
    ///
    /// # Errors
    /// [`StoreError::LeaveOut`] when only this object is lost: it is gone, may not be read, is no regular file,
    /// or its name is none. Anything else ends the run.
    pub async fn read(
        &self,
        name: &ObjectName,
        range: Option<Range<u64>>,
        listed: u64,
    ) -> Result<Bytes, StoreError> {
        if let Some(url) = name.text().filter(|name| is_url(name)) {
            return self.read_elsewhere(url, range, listed).await;
        }
        if let Root::Local(local) = &self.root {
            let read = local.read(name, range.as_ref());
            return read.map_err(|error| self.explain_io("read", &name.printable(), &error));
        }
        let Some(key) = name.text() else { return Err(self.no_key("read", &name.printable())) };
        self.part(key, range, Some(listed)).await
    }

    /// Reads a whole object that was listed with so many bytes. What has another size, or in a bucket and on a web server is
    /// of another version than the one that this store saw first, is asked for again, and ends the run if it stays so: a
    /// changed object never becomes a sample in silence.
    ///
    /// # Errors
    /// As [`Store::read`], and [`StoreError::Stop`] for another size.
    pub async fn read_whole(&self, name: &ObjectName, bytes: u64) -> Result<Bytes, StoreError> {
        self.read_listed(name, None, bytes).await
    }

    /// Reads a range of the bytes of an object that was listed with as many or more.
    ///
    /// # Errors
    /// As [`Store::read_whole`].
    pub async fn read_exactly(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        let bytes = range.end - range.start;
        self.read_listed(name, Some(range), bytes).await
    }

    async fn read_listed(
        &self,
        name: &ObjectName,
        range: Option<Range<u64>>,
        expected: u64,
    ) -> Result<Bytes, StoreError> {
        let mut asked = 0;
        loop {
            let bytes = self.read(name, range.clone(), expected).await?;
            asked += 1;
            if bytes.len() as u64 == expected {
                return Ok(bytes);
            }
            if asked == ASKS {
                return Err(self.other_size(&name.printable(), bytes.len(), expected));
            }
        }
    }

    /// `key` below the root, for messages; line breaks and control characters escaped.
    pub fn name(&self, key: &str) -> String {
        let separator = if key.is_empty() { "" } else { "/" };
        let root = self.location.trim_end_matches('/');
        format!("{root}{separator}{}", printable(key))
    }

    /// Puts a reason behind what was attempted.
    fn line(&self, verb: &str, key: &str) -> impl Fn(&str) -> String {
        let attempt = format!("cannot {verb} {}", self.name(key));
        move |reason| format!("{attempt}: {reason}")
    }

    fn key(&self, verb: &str, key: &str) -> Result<Key, StoreError> {
        if ["write", "delete"].contains(&verb) && !self.can_write() {
            return Err(StoreError::Stop(self.line(verb, key)(
                "it is only read: give a local path or a bucket",
            )));
        }
        Key::parse(key).map_err(|_| self.no_key(verb, key))
    }

    fn no_key(&self, verb: &str, key: &str) -> StoreError {
        StoreError::LeaveOut(self.line(verb, key)("not a key"))
    }

    /// The objects of the root; `None` for a local folder that does not exist, which `make` makes.
    fn objects(&self, verb: &str, key: &str, make: bool) -> Result<Option<Arc<dyn ObjectStore>>, StoreError> {
        match &self.root {
            Root::Bucket(bucket) => Ok(Some(Arc::clone(&bucket.objects))),
            Root::Memory(store) => Ok(Some(Arc::clone(store) as Arc<dyn ObjectStore>)),
            Root::Mirror(_) => Err(StoreError::Stop(self.line(verb, key)("it is only read"))),
            Root::Local(local) => {
                let store = local.objects(make).map_err(|error| self.explain_io(verb, key, &error))?;
                Ok(store.map(|store| Arc::new(store) as Arc<dyn ObjectStore>))
            }
        }
    }

    fn absent(&self, verb: &str, key: &str) -> StoreError {
        self.explain_io(verb, key, &io::Error::from(io::ErrorKind::NotFound))
    }

    fn explain_io(&self, verb: &str, key: &str, error: &io::Error) -> StoreError {
        match &self.root {
            Root::Local(local) => local.explain(verb, key, error, self.line(verb, key)),
            _ => StoreError::Stop(self.line(verb, key)(&one_line(&error.to_string()))),
        }
    }

    fn explain(&self, verb: &str, key: &str, error: &object_store::Error) -> StoreError {
        let line = self.line(verb, key);
        match &self.root {
            Root::Bucket(bucket) => bucket.explain(verb, error, &line),
            Root::Local(local) => match cause::<io::Error>(error) {
                Some(error) => local.explain(verb, key, error, line),
                None => StoreError::Stop(line(&one_line(&innermost(error)))),
            },
            Root::Memory(_) | Root::Mirror(_) => match error {
                object_store::Error::NotFound { .. } => StoreError::LeaveOut(line("no such object")),
                _ => StoreError::Stop(line(&one_line(&innermost(error)))),
            },
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // By hand: a derived one would print the secrets.
        f.debug_tuple("Store").field(&self.location).finish()
    }
}

/// What a store refused, in one line that says what was attempted, on what, why, and what to do. The variants
/// are named after what to do next. There is no `source`: the causes can hold secrets, see [`Store`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Correct the location, the options or the environment; no store was asked.
    #[error("{0}")]
    Correct(String),
    /// Leave this object out and go on: it is missing, may not be read, or has no valid name.
    #[error("{0}")]
    LeaveOut(String),
    /// Stop the run: the next object would fare no better.
    #[error("{0}")]
    Stop(String),
    /// Stop the run, and do not trust what came: it is not what its checksum says.
    #[error("{0}")]
    Damaged(String),
}

impl StoreError {
    /// True when a reader may reject the one sample and go on.
    pub fn loses_only_this_object(&self) -> bool {
        matches!(self, StoreError::LeaveOut(_))
    }
}

/// What the listing of a mirror says of a file.
async fn mirrored(mirror: &dyn Mirror, key: &str) -> Result<Option<Object>, StoreError> {
    let listed = mirror.list().await?;
    let found = listed.binary_search_by(|object| object.name.text().unwrap_or_default().cmp(key));
    Ok(found.ok().map(|at| listed[at].clone()))
}

/// An object, or a range of its bytes.
async fn get_part(
    store: &dyn ObjectStore,
    name: &Key,
    range: Option<Range<u64>>,
) -> object_store::Result<Bytes> {
    match range {
        Some(range) => store.get_range(name, range).await,
        None => store.get(name).await?.bytes().await,
    }
}

/// The first error of type `T` in the chain of causes.
fn cause<'a, T: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a T> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref::<T>())
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error).to_string()
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let text = &text[text.find(start)? + start.len()..];
    Some(&text[..text.find(end)?])
}

/// The first 300 characters in one line that prints.
fn one_line(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    in_one_line(&words).chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;

    fn folder() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store =
            Store::open(folder.path().to_str().expect("UTF-8"), &StoreOptions::default()).expect("opens");
        (folder, store)
    }

    #[test]
    fn a_local_folder_and_memory_do_the_same() {
        let (_folder, local) = folder();
        for store in [local, Store::memory()] {
            block_on(async {
                assert_eq!(store.list("").await, Ok(vec![]));
                assert_eq!(store.size("a/b").await, Ok(None));
                store.put("a/b", "one".into()).await.expect("a new object");
                store.put("a/b", "other".into()).await.expect("a new version of it");
                store.put("ab/c d%20é", "x".into()).await.expect("a key that is not escaped");
                assert_eq!(store.size("a/b").await, Ok(Some(5)));
                assert_eq!(store.get("a/b").await.expect("the object"), "other");
                assert_eq!(store.get_range("a/b", 1..3).await.expect("a part"), "th");
                assert_eq!(store.read(&"ab/c d%20é".into(), None, 1).await.expect("the object"), "x");
                assert_eq!(store.list("a").await, Ok(vec![("a/b".to_string(), 5)]));
                assert_eq!(store.list("").await.expect("a listing").len(), 2);
                store.delete(&["a/b"], |_| true).await.expect("deletes");
                store.delete(&["a/b"], |_| true).await.expect("what is gone is gone");
                let error = store.get("a/b").await.expect_err("deleted");
                assert!(error.loses_only_this_object(), "{error}");
                assert!(store.get("a/../b").await.is_err() && store.put("a\nb", "".into()).await.is_err());
            });
        }
    }

    #[test]
    fn a_destination_is_made_by_the_first_put_and_not_before() {
        let (folder, _) = folder();
        let path = folder.path().join("new/er");
        let store = Store::open(path.to_str().expect("UTF-8"), &StoreOptions::default()).expect("opens");
        assert_eq!(block_on(store.list("")), Ok(vec![]));
        assert_eq!(block_on(store.size("x")), Ok(None));
        assert!(!path.exists());
        block_on(store.put("x", "1".into())).expect("makes the folders");
        assert_eq!(std::fs::read(path.join("x")).expect("the file"), b"1");
    }

    #[test]
    fn a_destination_below_a_file_is_named() {
        let (folder, _) = folder();
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("a file");
        for (location, key) in
            [(file.join("below"), "x"), (file.clone(), "x"), (folder.path().into(), "file/x")]
        {
            let store =
                Store::open(location.to_str().expect("UTF-8"), &StoreOptions::default()).expect("opens");
            let error = block_on(store.put(key, "1".into())).expect_err("below a file");
            let line = format!(
                "cannot write {}/{key}: {} is a file, not a folder",
                location.display(),
                file.display()
            );
            assert_eq!(error, StoreError::Stop(line));
        }
    }

    #[test]
    fn leftovers_of_a_killed_put_are_removed_and_nothing_else() {
        let (folder, store) = folder();
        for name in
            ["data/a.parquet#1", "data/a.parquet#12", "data/a.parquet", "data/mine#1", "data/a.parquet#x"]
        {
            std::fs::create_dir_all(folder.path().join("data")).expect("a folder");
            std::fs::write(folder.path().join(name), "x").expect("a file");
        }
        let removed = block_on(store.delete_leftovers("data", |key| key == "data/a.parquet"));
        assert_eq!(removed, Ok(2));
        let left: Vec<String> =
            block_on(store.list("")).expect("a listing").into_iter().map(|(key, _)| key).collect();
        assert_eq!(left, ["data/a.parquet", "data/a.parquet#x", "data/mine#1"]);
    }

    #[test]
    fn locations_that_cannot_be_are_refused_in_one_line() {
        let refused = |location: &str| {
            Store::open(location, &StoreOptions::default()).expect_err("refused").to_string()
        };
        assert_eq!(
            refused("ftp://user:geheim@host/x?sig=geheim"),
            "ftp://host/x: unknown scheme ftp://: give a local path, file://, s3://bucket/prefix, gs://bucket/prefix, \
             az://container/prefix or https://host/folder"
        );
        assert_eq!(
            refused("s3://key:geheim@bucket/x"),
            "s3://bucket/x: a URL may hold no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        );
        assert_eq!(refused("s3:///x"), "s3:///x: the bucket is missing: write s3://bucket/prefix");
        assert_eq!(refused(""), "an empty location: give a folder or a URL");
        assert_eq!(refused("file://x/y"), "file://x/y: not a local file URL: write file:///absolute/path");
        assert!(refused("s3://my bucket/x").contains("my bucket is no name of a bucket"));
        let home = std::env::home_dir().expect("a home folder").join("x");
        let store = Store::open("~/x", &StoreOptions::default()).expect("the home folder");
        assert_eq!((store.local_root(), store.location()), (Some(&*home), &*home.to_string_lossy()));
        let file = Store::open("file:///a%20b", &StoreOptions::default()).expect("a file URL");
        assert_eq!(file.local_root(), Some(Path::new("/a b")));
    }
}
