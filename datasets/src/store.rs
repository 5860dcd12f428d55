//! The one place that knows where bytes live: a local folder, a prefix of an S3 bucket, or memory.
//!
//! Keys are relative to the root, their parts joined by `/`, and are taken as given (`Path::parse`), never
//! percent-encoded. The futures here need the caller's tokio runtime for S3 and run anywhere otherwise.

mod claim;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{ClientConfigKey, HttpError, HttpErrorKind};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig};

pub use claim::Claim;

/// An S3 object larger than this is put in parts of this size. A part is one request, and a request that
/// stalls for a minute is given up, so that a line of 140 KB/s still suffices.
const PART_BYTES: usize = 8 << 20;

/// Parts of one object on their way at once: what `put` holds beyond the object itself is headers only, since
/// parts share the object's memory.
const PARTS_IN_FLIGHT: usize = 4;

/// How a location is opened. The default asks for nothing beyond the `AWS_*` variables.
#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    /// Address of an S3-compatible server; a plain `http://` one is allowed as given.
    pub endpoint: Option<String>,
    /// The region of the bucket, instead of `AWS_REGION`.
    pub region: Option<String>,
    /// Sends unsigned requests, as public buckets take them.
    pub anonymous: bool,
    /// Asks the metadata service of the machine for credentials when the environment holds none.
    pub instance_metadata: bool,
}

/// The root of a dataset, a destination or a run. Cloning is cheap.
#[derive(Clone)]
pub struct Store {
    location: String,
    root: Root,
    /// What no message may contain, whatever a server sends back.
    secrets: Arc<[String]>,
}

#[derive(Clone)]
enum Root {
    Local(Arc<Path>),
    Remote { store: Arc<dyn ObjectStore>, bucket: String },
    Memory(Arc<InMemory>),
}

impl Store {
    /// Opens a local path or, when `location` contains `://`, a `file://` or `s3://bucket/prefix` URL.
    ///
    /// Nothing is read or created and no server is asked: a folder or bucket that does not exist is reported
    /// by the first operation that needs it, by its name.
    ///
    /// # Errors
    /// [`StoreError::Correct`] for a scheme this build does not know, a malformed URL, or an S3 location
    /// without credentials.
    pub fn open(location: &str, options: &StoreOptions) -> Result<Store, StoreError> {
        let Some((scheme, rest)) = location.split_once("://") else {
            if location.is_empty() {
                return Err(StoreError::Correct("an empty location: give a folder or a URL".to_string()));
            }
            return Ok(Store::local(PathBuf::from(location), location.to_string()));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "file" => {
                let path = reqwest::Url::parse(location).ok().and_then(|url| url.to_file_path().ok());
                let path = path.ok_or_else(|| {
                    StoreError::Correct(format!(
                        "{location}: not a local file URL: write file:///absolute/path"
                    ))
                })?;
                Ok(Store::local(path, location.to_string()))
            }
            "s3" => Store::s3(rest, options, AmazonS3Builder::from_env()),
            _ => Err(StoreError::Correct(format!(
                "{}: unknown scheme {scheme}://: give a local path, file:// or s3://bucket/prefix",
                without_user(location)
            ))),
        }
    }

    /// An empty root in memory.
    pub fn memory() -> Store {
        Store {
            location: "memory".to_string(),
            root: Root::Memory(Arc::new(InMemory::new())),
            secrets: Arc::default(),
        }
    }

    fn local(path: PathBuf, location: String) -> Store {
        Store { location, root: Root::Local(path.into()), secrets: Arc::default() }
    }

    fn s3(rest: &str, options: &StoreOptions, builder: AmazonS3Builder) -> Result<Store, StoreError> {
        let location = without_user(&format!("s3://{rest}"));
        let correct = |what: String| StoreError::Correct(format!("{location}: {what}"));
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.contains('@') {
            return Err(correct(
                "a URL may hold no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_string(),
            ));
        }
        if bucket.is_empty() {
            return Err(correct("the bucket is missing: write s3://bucket/prefix".to_string()));
        }
        let prefix = Key::parse(prefix)
            .map_err(|error| correct(format!("not a prefix: {}", one_line(&error.to_string()))))?;

        let mut builder = builder.with_bucket_name(bucket);
        if let Some(region) = &options.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &options.endpoint {
            // The variable for S3 alone would otherwise beat the option.
            builder = builder
                .with_endpoint(endpoint)
                .with_config(AmazonS3ConfigKey::S3Endpoint, endpoint)
                .with_virtual_hosted_style_request(false);
        }
        if options.anonymous {
            builder = builder.with_skip_signature(true);
        }
        let value = |key: AmazonS3ConfigKey| builder.get_config_value(&key).filter(|value| !value.is_empty());
        let key_id = value(AmazonS3ConfigKey::AccessKeyId);
        let secret = value(AmazonS3ConfigKey::SecretAccessKey);
        let token = value(AmazonS3ConfigKey::Token);
        let endpoint = value(AmazonS3ConfigKey::S3Endpoint).or(value(AmazonS3ConfigKey::Endpoint));
        let unsigned = value(AmazonS3ConfigKey::SkipSignature).is_some_and(|value| value == "true");
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
        if endpoint.as_deref().is_some_and(|endpoint| endpoint.to_ascii_lowercase().starts_with("http://")) {
            builder = builder.with_allow_http(true);
            if unsigned || key_id.is_some() {
                // Nothing here speaks TLS, so a machine without root certificates will do.
                let key = AmazonS3ConfigKey::Client(ClientConfigKey::NoSystemCertificates);
                builder = builder.with_config(key, "true");
            }
        }
        // A large body may take as long as it likes, as long as bytes move.
        builder = builder
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), "1 hour")
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ReadTimeout), "60 seconds")
            .with_retry(RetryConfig {
                // Ten tries over half a minute outlast a server's restart without hiding a wrong endpoint.
                backoff: BackoffConfig { max_backoff: Duration::from_secs(5), ..Default::default() },
                ..Default::default()
            });
        let secrets: Arc<[String]> =
            [key_id, secret, token].into_iter().flatten().filter(|secret| secret.len() >= 4).collect();
        let store =
            builder.build().map_err(|error| correct(redacted(&one_line(&innermost(&error)), &secrets)))?;
        let store: Arc<dyn ObjectStore> = if prefix.as_ref().is_empty() {
            Arc::new(store)
        } else {
            Arc::new(PrefixStore::new(store, prefix))
        };
        let root = Root::Remote { store, bucket: bucket.to_string() };
        Ok(Store { location: location.trim_end_matches('/').to_string(), root, secrets })
    }

    /// Where this is, for messages: as it was given, without anything secret.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// The folder, when this is a local one.
    pub fn local_root(&self) -> Option<&Path> {
        match &self.root {
            Root::Local(path) => Some(path),
            _ => None,
        }
    }

    /// The whole object at `key`.
    ///
    /// # Errors
    /// [`StoreError::LeaveOut`] when it does not exist or may not be read.
    pub async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let name = self.key("read", key)?;
        let result = match self.objects("read", key, false)? {
            Some(store) => match store.get(&name).await {
                Ok(result) => result.bytes().await,
                Err(error) => Err(error),
            },
            None => return Err(self.absent("read", key)),
        };
        result.map_err(|error| self.explain("read", key, &error))
    }

    /// The bytes `range` of the object at `key`; fewer when it ends before.
    ///
    /// # Errors
    /// [`StoreError::LeaveOut`] when it does not exist or may not be read.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let name = self.key("read", key)?;
        match self.objects("read", key, false)? {
            Some(store) => {
                store.get_range(&name, range).await.map_err(|error| self.explain("read", key, &error))
            }
            None => Err(self.absent("read", key)),
        }
    }

    /// The bytes of the object at `key`, or `None` when there is no such object.
    ///
    /// # Errors
    /// When it cannot be told.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let name = self.key("read", key)?;
        let Some(store) = self.objects("read", key, false)? else { return Ok(None) };
        match store.head(&name).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error @ object_store::Error::PermissionDenied { .. }) => {
                // The answer to HEAD has no body, and only the body says which credential was wrong.
                let told = store.get_range(&name, 0..1).await.err();
                Err(self.explain("read", key, told.as_ref().unwrap_or(&error)))
            }
            Err(error) => Err(self.explain("read", key, &error)),
        }
    }

    /// Puts one whole object, replacing what was there: readers see the old one or the new one, never a part.
    /// A local root and the folders of the key are made where they are missing, and the file is on the disk
    /// (fsync) when this returns. Large objects go to S3 in parts, which are removed when one fails; where the
    /// process is killed they stay invisible until the bucket's rule for incomplete uploads removes them.
    ///
    /// # Errors
    /// [`StoreError::Stop`] with the reason: a full disk, a path below a file, no permission, no bucket.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let name = self.key("write", key)?;
        let store = self.objects("write", key, true)?.ok_or_else(|| self.absent("write", key))?;
        let result = match &self.root {
            Root::Remote { .. } if bytes.len() > PART_BYTES => put_parts(&*store, &name, &bytes).await,
            _ => store.put(&name, PutPayload::from(bytes)).await.map(drop),
        };
        result.map_err(|error| self.explain("write", key, &error))
    }

    /// Deletes the object at `key`; one that is not there is no error.
    ///
    /// # Errors
    /// When it is there and stays there.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let name = self.key("delete", key)?;
        let Some(store) = self.objects("delete", key, false)? else { return Ok(()) };
        match store.delete(&name).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.explain("delete", key, &error)),
        }
    }

    /// The keys below `prefix` (whole parts of a key: `data` finds `data/x` and not `database/x`; empty for
    /// all) with their bytes, relative to the root and sorted. Local files whose names cannot be keys are left
    /// out. A folder that does not exist is empty; a bucket that does not exist is an error.
    ///
    /// # Errors
    /// When the listing is refused or breaks off.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let name = self.key("list", prefix)?;
        let mut found = match &self.root {
            Root::Local(root) => {
                let mut found = vec![];
                list_files(&root.join(name.as_ref()), name.as_ref(), &mut found)
                    .map_err(|error| self.explain_io("list", prefix, &error))?;
                found
            }
            Root::Remote { store, .. } => self.list_objects(&**store, prefix, &name).await?,
            Root::Memory(store) => self.list_objects(&**store, prefix, &name).await?,
        };
        found.sort_unstable();
        Ok(found)
    }

    async fn list_objects(
        &self,
        store: &dyn ObjectStore,
        prefix: &str,
        name: &Key,
    ) -> Result<Vec<(String, u64)>, StoreError> {
        let listing = store.list(Some(name)).map_ok(|object| (String::from(object.location), object.size));
        listing.try_collect().await.map_err(|error| self.explain("list", prefix, &error))
    }

    /// Removes what a killed local [`put`](Store::put) left beside keys that are ours: files called
    /// `KEY#NUMBER` below `prefix` for which `owned(KEY)` holds. Returns how many. On S3 and in memory there
    /// are none.
    ///
    /// # Errors
    /// When the folder cannot be listed or a file cannot be removed.
    pub async fn remove_leftovers(
        &self,
        prefix: &str,
        owned: impl Fn(&str) -> bool,
    ) -> Result<usize, StoreError> {
        let Some(root) = self.local_root() else { return Ok(0) };
        let mut removed = 0;
        for (key, _) in self.list(prefix).await? {
            let Some((base, number)) = key.rsplit_once('#') else { continue };
            if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) || !owned(base) {
                continue;
            }
            std::fs::remove_file(root.join(&key)).map_err(|error| self.explain_io("delete", &key, &error))?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Reads one sample of a local root on the calling thread, whatever its name is (`object_store` does not
    /// open `a#1`).
    ///
    /// # Errors
    /// Those of the file system; `InvalidInput` when this is no local root or `id` would leave it.
    pub fn read_local(&self, id: &str) -> io::Result<Bytes> {
        let inside = Path::new(id).components().all(|part| matches!(part, Component::Normal(_)));
        match self.local_root() {
            Some(root) if inside => std::fs::read(root.join(id)).map(Bytes::from),
            Some(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "the name leaves the source folder")),
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a local folder")),
        }
    }

    /// Reads one sample. For a local root this blocks as [`read_local`](Store::read_local) does.
    ///
    /// # Errors
    /// [`StoreError::LeaveOut`] when only this sample is lost: it is gone, may not be read, or its name is
    /// none. Anything else ends the run.
    pub async fn read_sample(&self, id: &str) -> Result<Bytes, StoreError> {
        match self.local_root() {
            Some(_) => self.read_local(id).map_err(|error| self.explain_io("read", id, &error)),
            None => self.get(id).await,
        }
    }

    /// `key` below the root, for messages; line breaks and control characters escaped.
    fn name(&self, key: &str) -> String {
        let separator = if key.is_empty() { "" } else { "/" };
        let root = self.location.trim_end_matches('/');
        let key: String = key
            .chars()
            .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.into() })
            .collect();
        format!("{root}{separator}{key}")
    }

    fn key(&self, verb: &str, key: &str) -> Result<Key, StoreError> {
        Key::parse(key)
            .map_err(|_| StoreError::LeaveOut(format!("cannot {verb} {}: not a key", self.name(key))))
    }

    /// The objects of the root; `None` for a local folder that does not exist, which `make` makes.
    fn objects(&self, verb: &str, key: &str, make: bool) -> Result<Option<Arc<dyn ObjectStore>>, StoreError> {
        let root = match &self.root {
            Root::Remote { store, .. } => return Ok(Some(Arc::clone(store))),
            Root::Memory(store) => return Ok(Some(Arc::clone(store) as Arc<dyn ObjectStore>)),
            Root::Local(root) => root,
        };
        if make {
            std::fs::create_dir_all(root).map_err(|error| self.explain_io(verb, key, &error))?;
        } else if !root.exists() {
            return Ok(None);
        }
        let store =
            LocalFileSystem::new_with_prefix(root).map_err(|error| self.explain(verb, key, &error))?;
        Ok(Some(Arc::new(store.with_fsync(true))))
    }

    fn absent(&self, verb: &str, key: &str) -> StoreError {
        self.explain_io(verb, key, &io::Error::from(io::ErrorKind::NotFound))
    }

    fn explain_io(&self, verb: &str, key: &str, error: &io::Error) -> StoreError {
        let name = self.name(key);
        let line = |reason: &str| format!("cannot {verb} {name}: {reason}");
        match error.kind() {
            io::ErrorKind::NotFound if verb == "read" => StoreError::LeaveOut(line("no such file")),
            io::ErrorKind::NotFound => StoreError::Stop(line("no such folder")),
            io::ErrorKind::InvalidInput | io::ErrorKind::IsADirectory if verb == "read" => {
                StoreError::LeaveOut(line(&one_line(&error.to_string())))
            }
            io::ErrorKind::PermissionDenied if verb == "read" => {
                StoreError::LeaveOut(line("permission denied"))
            }
            io::ErrorKind::PermissionDenied => StoreError::Stop(line("permission denied")),
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                StoreError::Stop(line(&match self.file_on_the_way(key) {
                    Some(file) => format!("{} is a file, not a folder", file.display()),
                    None => "a file stands where a folder is needed".to_string(),
                }))
            }
            io::ErrorKind::StorageFull => StoreError::Stop(line("the disk is full")),
            io::ErrorKind::QuotaExceeded => StoreError::Stop(line("the disk quota is used up")),
            io::ErrorKind::FileTooLarge => {
                StoreError::Stop(line("the file is larger than this process may write"))
            }
            io::ErrorKind::ReadOnlyFilesystem => StoreError::Stop(line("the file system is read-only")),
            _ => StoreError::Stop(line(&one_line(&error.to_string()))),
        }
    }

    /// The first ancestor of `key` that is a file.
    fn file_on_the_way(&self, key: &str) -> Option<PathBuf> {
        let path = self.local_root()?.join(key);
        let mut ancestors: Vec<&Path> = path.ancestors().skip(1).collect();
        ancestors.reverse();
        ancestors.into_iter().find(|path| path.is_file()).map(Path::to_path_buf)
    }

    /// One plain line for what `object_store` reports. Its own text can hold addresses, whole XML bodies and
    /// key ids, so that the line is written anew and the original is not kept as a source.
    fn explain(&self, verb: &str, key: &str, error: &object_store::Error) -> StoreError {
        if let Some(error) = cause::<io::Error>(error).filter(|_| self.local_root().is_some()) {
            return self.explain_io(verb, key, error);
        }
        let name = self.name(key);
        let line =
            |reason: String| redacted(&format!("cannot {verb} {name}: {}", one_line(&reason)), &self.secrets);
        if let Some(http) = cause::<HttpError>(error) {
            let what = match http.kind() {
                HttpErrorKind::Connect => "cannot connect to the server",
                HttpErrorKind::Timeout => "the server does not answer",
                _ => "the connection broke",
            };
            return StoreError::Stop(line(format!(
                "{what} ({}): check the endpoint and the network",
                innermost(http)
            )));
        }
        let text = error.to_string();
        let code = between(&text, "<Code>", "</Code>").unwrap_or_default();
        let bucket = match &self.root {
            Root::Remote { bucket, .. } => bucket.as_str(),
            _ => "",
        };
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
            ("RequestTimeTooSkewed", _) => StoreError::Stop(line(
                "the clock of this machine is off by more than the server allows".to_string(),
            )),
            (
                "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException",
                _,
            ) => StoreError::Stop(line(format!(
                "bucket {bucket} is in another region ({code}): set AWS_REGION or the region option"
            ))),
            (_, object_store::Error::NotFound { .. }) if verb == "read" => {
                StoreError::LeaveOut(line("no such object".to_string()))
            }
            (_, object_store::Error::NotFound { .. }) => {
                StoreError::Stop(line(format!("not found: check that bucket {bucket} exists")))
            }
            (_, object_store::Error::PermissionDenied { .. }) if verb == "read" => {
                StoreError::LeaveOut(line("access denied".to_string()))
            }
            (
                _,
                object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. },
            ) => StoreError::Stop(line("access denied: the credentials may not do this here".to_string())),
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
}

impl StoreError {
    /// True when a reader may reject the one sample and go on.
    pub fn loses_only_this_object(&self) -> bool {
        matches!(self, StoreError::LeaveOut(_))
    }
}

async fn put_parts(store: &dyn ObjectStore, key: &Key, bytes: &Bytes) -> object_store::Result<()> {
    let mut upload = store.put_multipart(key).await?;
    // Parts are numbered in the order in which their futures are made, so that they may run together.
    let parts: Vec<_> = (0..bytes.len())
        .step_by(PART_BYTES)
        .map(|start| bytes.slice(start..bytes.len().min(start + PART_BYTES)))
        .map(|part| upload.put_part(PutPayload::from(part)))
        .collect();
    let sent = futures::stream::iter(parts).buffer_unordered(PARTS_IN_FLIGHT).try_collect::<Vec<()>>().await;
    let done = match sent {
        Ok(_) => upload.complete().await.map(drop),
        Err(error) => Err(error),
    };
    if done.is_err() {
        // The first error is the one to report; a store that cannot abort either keeps invisible parts.
        let _ = upload.abort().await;
    }
    done
}

fn list_files(folder: &Path, key: &str, found: &mut Vec<(String, u64)>) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().map(str::to_string) else { continue };
        let key = if key.is_empty() { name } else { format!("{key}/{name}") };
        let kind = entry.file_type()?;
        // A link to a folder is not followed: what a destination lists is what it holds.
        if kind.is_dir() {
            list_files(&entry.path(), &key, found)?;
        } else if Key::parse(&key).is_ok()
            && let Ok(metadata) = std::fs::metadata(entry.path())
            && metadata.is_file()
        {
            found.push((key, metadata.len()));
        }
    }
    Ok(())
}

/// Both `object_store` and anyone else in the process may build TLS clients: whoever comes first installs the
/// provider, and ring is the one this program is built with.
fn install_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// A URL without `user:password@`.
fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_string() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
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

/// The first 300 characters without line breaks.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect()
}

fn redacted(text: &str, secrets: &[String]) -> String {
    secrets.iter().fold(text.to_string(), |text, secret| text.replace(secret.as_str(), "[hidden]"))
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
                assert_eq!(store.read_sample("ab/c d%20é").await.expect("the object"), "x");
                assert_eq!(store.list("a").await, Ok(vec![("a/b".to_string(), 5)]));
                assert_eq!(store.list("").await.expect("a listing").len(), 2);
                store.delete("a/b").await.expect("deletes");
                store.delete("a/b").await.expect("what is gone is gone");
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
        let removed = block_on(store.remove_leftovers("data", |key| key == "data/a.parquet"));
        assert_eq!(removed, Ok(2));
        let left: Vec<String> =
            block_on(store.list("")).expect("a listing").into_iter().map(|(key, _)| key).collect();
        assert_eq!(left, ["data/a.parquet", "data/a.parquet#x", "data/mine#1"]);
    }

    #[test]
    fn a_local_sample_is_read_whatever_its_name_and_never_outside() {
        let (folder, store) = folder();
        std::fs::write(folder.path().join("a#1"), "x").expect("a file");
        assert_eq!(store.read_local("a#1").expect("the file"), "x");
        assert_eq!(block_on(store.read_sample("a#1")).expect("the file"), "x");
        for id in ["../a", "/etc/hostname", "b/../../a", "missing"] {
            let error = block_on(store.read_sample(id)).expect_err(id);
            assert!(error.loses_only_this_object(), "{id}: {error}");
        }
    }

    #[test]
    fn locations_that_cannot_be_are_refused_in_one_line() {
        let refused = |location: &str| {
            Store::open(location, &StoreOptions::default()).expect_err("refused").to_string()
        };
        assert_eq!(
            refused("gs://bucket/x"),
            "gs://bucket/x: unknown scheme gs://: give a local path, file:// or s3://bucket/prefix"
        );
        assert_eq!(
            refused("http://user:geheim@host/x"),
            "http://host/x: unknown scheme http://: give a local path, file:// or s3://bucket/prefix"
        );
        assert_eq!(
            refused("s3://key:geheim@bucket/x"),
            "s3://bucket/x: a URL may hold no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        );
        assert_eq!(refused("s3:///x"), "s3:///x: the bucket is missing: write s3://bucket/prefix");
        assert_eq!(refused(""), "an empty location: give a folder or a URL");
        assert_eq!(refused("file://x/y"), "file://x/y: not a local file URL: write file:///absolute/path");
        let file = Store::open("file:///a%20b", &StoreOptions::default()).expect("a file URL");
        assert_eq!(file.local_root(), Some(Path::new("/a b")));
    }

    fn s3(settings: &[(AmazonS3ConfigKey, &str)], options: &StoreOptions) -> Result<Store, StoreError> {
        let builder =
            settings.iter().fold(AmazonS3Builder::new(), |all, (key, value)| all.with_config(*key, *value));
        Store::s3("bucket/pre/fix/", options, builder)
    }

    const KEY: (AmazonS3ConfigKey, &str) = (AmazonS3ConfigKey::AccessKeyId, "AKIDEXAMPLE");
    const SECRET: (AmazonS3ConfigKey, &str) = (AmazonS3ConfigKey::SecretAccessKey, "wJalrXUtnFEMI");

    #[test]
    fn s3_without_credentials_says_which_variables() {
        let default = StoreOptions::default();
        let refused = |settings: &[_]| s3(settings, &default).expect_err("refused").to_string();
        assert!(refused(&[]).starts_with("s3://bucket/pre/fix/: no credentials: set AWS_ACCESS_KEY_ID and"));
        assert_eq!(refused(&[KEY]), "s3://bucket/pre/fix/: AWS_SECRET_ACCESS_KEY is not set");
        assert_eq!(refused(&[SECRET]), "s3://bucket/pre/fix/: AWS_ACCESS_KEY_ID is not set");
        let http = Some("http://localhost:1".to_string());
        let anonymous = StoreOptions { anonymous: true, endpoint: http.clone(), ..default.clone() };
        s3(&[], &anonymous).expect("a public bucket");
        let asked = StoreOptions { endpoint: http, ..default };
        assert_eq!(s3(&[KEY, SECRET], &asked).expect("opens").location(), "s3://bucket/pre/fix");
    }

    #[test]
    fn what_a_server_says_becomes_one_line_without_secrets() {
        let options = StoreOptions { endpoint: Some("http://localhost:1".to_string()), ..Default::default() };
        let store = s3(&[KEY, SECRET], &options).expect("opens");
        assert_eq!(format!("{store:?}"), "Store(\"s3://bucket/pre/fix\")");
        let said = |verb: &str, code: &str, error: fn(String, io::Error) -> object_store::Error| {
            let body =
                format!("status code: 403 Forbidden: <Error>\n<Code>{code}</Code><K>AKIDEXAMPLE</K></Error>");
            store.explain(verb, "x", &error("x".to_string(), io::Error::other(body)))
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
                "cannot list s3://bucket/pre/fix/x: the server refused the credentials (SignatureDoesNotMatch): \
                 check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        );
        assert_eq!(
            said("read", "NoSuchBucket", missing),
            stop("cannot read s3://bucket/pre/fix/x: there is no bucket called bucket")
        );
        assert!(said("read", "AccessDenied", denied).loses_only_this_object());
        assert!(said("read", "NoSuchKey", missing).loses_only_this_object());
        assert_eq!(
            said("write", "AccessDenied", denied),
            stop("cannot write s3://bucket/pre/fix/x: access denied: the credentials may not do this here")
        );
        assert_eq!(
            said("write", "Odd", other),
            stop("cannot write s3://bucket/pre/fix/x: the server answered 403 Forbidden (Odd)")
        );
        let plain =
            object_store::Error::Generic { store: "S3", source: "a\nwJalrXUtnFEMI AKIDEXAMPLE".into() };
        assert_eq!(
            store.explain("write", "x", &plain),
            stop("cannot write s3://bucket/pre/fix/x: a [hidden] [hidden]")
        );
    }
}
