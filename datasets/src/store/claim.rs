//! Who may change a destination: claims on a folder, puts that replace nothing, and whether two places are one.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use object_store::{PutMode, PutPayload};

use super::local::Local;
use super::{ASKS, Root, Store, StoreError};

/// A claim on a local folder, given back when it is dropped or its process ends, however it ends.
///
/// It is an advisory lock (`flock`) on the folder itself, so that nothing of it stays behind. Buckets, memory and file
/// systems without such locks know no claims: there nobody is ever seen at work.
#[derive(Debug)]
pub struct Claim {
    folder: Option<File>,
}

impl Claim {
    /// Whether others could be kept away: where they cannot, nobody knows who else is at work.
    pub fn is_held(&self) -> bool {
        self.folder.is_some()
    }

    /// From now on shares the claim with others that share it. Waits for nobody, but another may have the folder alone
    /// for a moment in between: look again at what stands there.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn share(&self) -> io::Result<()> {
        self.folder.as_ref().map_or(Ok(()), File::lock_shared)
    }
}

impl Store {
    /// Claims the root for this one alone, and makes it where it is missing; `None` when another has a claim on it.
    ///
    /// # Errors
    /// When the folder cannot be made or opened.
    pub fn claim_alone(&self) -> Result<Option<Claim>, StoreError> {
        self.claim(File::try_lock)
    }

    /// Claims the root together with others that share it; `None` while another has it alone.
    ///
    /// # Errors
    /// When the folder cannot be made or opened.
    pub fn claim_shared(&self) -> Result<Option<Claim>, StoreError> {
        self.claim(File::try_lock_shared)
    }

    fn claim(&self, lock: fn(&File) -> Result<(), TryLockError>) -> Result<Option<Claim>, StoreError> {
        let Some(folder) = self.claimable()? else { return Ok(Some(Claim { folder: None })) };
        match lock(&folder) {
            Ok(()) => Ok(Some(Claim { folder: Some(folder) })),
            Err(TryLockError::WouldBlock) => Ok(None),
            // A network file system may know no locks.
            Err(TryLockError::Error(_)) => Ok(Some(Claim { folder: None })),
        }
    }

    fn claimable(&self) -> Result<Option<File>, StoreError> {
        let Root::Local(Local { root }) = &self.root else { return Ok(None) };
        std::fs::create_dir_all(root)
            .and_then(|()| File::open(root))
            .map(Some)
            .map_err(|error| self.explain_io("write", "", &error))
    }

    /// Puts an object where there is none; `false` when there is another one, which stays as it is, and `true` also when
    /// the one that is there has the same bytes. Where the store cannot do this in one step, it is looked for first.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub async fn put_new(&self, key: &str, bytes: Bytes) -> Result<bool, StoreError> {
        let name = self.key("write", key)?;
        let store = self.objects("write", key, true)?.ok_or_else(|| self.absent("write", key))?;
        for asked in 1.. {
            let payload = PutPayload::from(bytes.clone());
            let put = store.put_opts(&name, payload, PutMode::Create.into()).await;
            self.forget(key);
            let error = match put {
                Ok(_) => return Ok(true),
                Err(
                    object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. },
                ) => {
                    if self.size(key).await?.is_some() {
                        return Ok(false);
                    }
                    return self.put(key, bytes).await.map(|()| true);
                }
                Err(error) => error,
            };
            // Whether it was written is not known after an answer that was lost, and where it was, it is our own object
            // that stands in the way of the next try: what is there tells.
            match self.find(key).await {
                Ok(Some(found)) => return Ok(found == bytes),
                Ok(None) if asked < ASKS => {}
                _ => return Err(self.explain("write", key, &error)),
            }
        }
        unreachable!("the last try returns")
    }

    /// Whether both are the same place, however each is spelled: links, `.` and `..` are followed.
    pub fn is_same_place(&self, other: &Store) -> bool {
        match (&self.root, &other.root) {
            (Root::Local(one), Root::Local(other)) => real(&one.root) == real(&other.root),
            (Root::Memory(one), Root::Memory(other)) => std::sync::Arc::ptr_eq(one, other),
            _ => self.location == other.location,
        }
    }

    /// Whether `key` here and `other_key` there are one object, however each is spelled: links are followed, and a file
    /// with two names is one. What is not there is no object, but its place is compared.
    pub fn is_same_object(&self, key: &str, other: &Store, other_key: &str) -> bool {
        match (&self.root, &other.root) {
            (Root::Local(one), Root::Local(two)) => {
                let (one, two) = (one.root.join(key), two.root.join(other_key));
                real(&one) == real(&two) || identity(&one).is_some_and(|one| Some(one) == identity(&two))
            }
            // One object has a key below each prefix of its name.
            (Root::Bucket(_), Root::Bucket(_)) => {
                let name =
                    |store: &Store, key: &str| format!("{}/{key}", store.location.trim_end_matches('/'));
                name(self, key) == name(other, other_key)
            }
            _ => self.is_same_place(other) && key == other_key,
        }
    }

    /// The places that folders called `name` lie in, of those that this place is or lies in, the nearest first.
    pub fn around(&self, name: &str) -> Vec<Store> {
        match &self.root {
            Root::Local(local) => {
                let absolute = std::path::absolute(&local.root).unwrap_or_else(|_| local.root.to_path_buf());
                let named = absolute.ancestors().filter(|path| path.file_name().is_some_and(|of| of == name));
                let places = named.filter_map(Path::parent);
                places
                    .map(|path| Store::local(path.to_path_buf(), path.to_string_lossy().into_owned()))
                    .collect()
            }
            Root::Bucket(bucket) => {
                let parts: Vec<&str> = bucket.prefix.split_terminator('/').collect();
                let place = |n: usize| {
                    // Of the location as many names are left out as of the prefix.
                    let location = self.location.rsplitn(parts.len() - n + 1, '/').last();
                    let location = location.expect("a text has a last part").to_string();
                    Store::at(location, Root::Bucket(bucket.at(&parts[..n].join("/")).into()))
                };
                (0..parts.len()).rev().filter(|n| parts[*n] == name).map(place).collect()
            }
            Root::Memory(_) | Root::Mirror(_) => vec![],
        }
    }

    /// Whether this place lies below the other one.
    pub fn is_below(&self, other: &Store) -> bool {
        match (&self.root, &other.root) {
            (Root::Local(one), Root::Local(other)) => {
                let (one, other) = (real(&one.root), real(&other.root));
                one != other && one.starts_with(other)
            }
            (Root::Bucket(_), Root::Bucket(_)) => {
                self.location.starts_with(&format!("{}/", other.location.trim_end_matches('/')))
            }
            _ => false,
        }
    }
}

/// What tells a file that is there from every other one.
#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// As far as paths tell.
#[cfg(not(unix))]
fn identity(_path: &Path) -> Option<()> {
    None
}

/// The real path of what is there, and the parts of what is not there yet below it.
fn real(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut real = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => {
                real.pop();
            }
            part => real.push(part),
        }
        real = real.canonicalize().unwrap_or(real);
    }
    real
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::super::StoreOptions;
    use super::*;

    fn open(path: &Path) -> Store {
        Store::open(path.to_str().expect("UTF-8"), &StoreOptions::default()).expect("opens")
    }

    #[test]
    fn a_claim_keeps_others_away_until_it_is_shared_or_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("new/place");
        let alone = open(&place).claim_alone().expect("claims").expect("nobody else is there");
        assert!(alone.is_held());
        assert!(open(&place).claim_alone().expect("looks").is_none());
        alone.share().expect("shares");
        assert!(open(&place).claim_alone().expect("looks").is_none());
        let shared = open(&place).claim_shared().expect("shares").expect("nobody has it alone");
        drop(alone);
        assert!(open(&place).claim_alone().expect("looks").is_none());
        drop(shared);
        assert!(open(&place).claim_alone().expect("looks").is_some());
        assert_eq!(std::fs::read_dir(&place).expect("a folder").count(), 0, "nothing stays behind");
    }

    #[test]
    fn a_new_object_replaces_none() {
        let folder = tempfile::tempdir().expect("a folder");
        for store in [open(folder.path()), Store::memory()] {
            assert_eq!(block_on(store.put_new("a/b", Bytes::from_static(b"1"))), Ok(true));
            assert_eq!(block_on(store.put_new("a/b", Bytes::from_static(b"2"))), Ok(false));
            assert_eq!(block_on(store.get("a/b")).expect("reads"), "1");
        }
    }

    #[test]
    fn one_place_is_known_by_all_of_its_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(path("d/e")).expect("a folder");
        std::os::unix::fs::symlink(path("d"), path("link")).expect("a link");
        for other in ["d", "./d", "d/", "d/../d", "link", "link/e/..", "d/./e/.."] {
            assert!(open(&path("d")).is_same_place(&open(&path(other))), "{other}");
        }
        assert!(open(&path("link/new")).is_same_place(&open(&path("d/e/../new"))));
        let url = format!("file://{}", path("d").display());
        assert!(open(&path("d")).is_same_place(&Store::open(&url, &StoreOptions::default()).expect("opens")));
        assert!(!open(&path("d")).is_same_place(&open(&path("d/e"))));
        assert!(!Store::memory().is_same_place(&Store::memory()));
        std::fs::write(path("d/x"), "x").expect("a file");
        assert!(open(folder.path()).is_through_link("link/x"));
        assert!(!open(folder.path()).is_through_link("d/x"));
    }
}
