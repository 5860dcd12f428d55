//! Deleting: the one place where anything goes, and it goes only when all that shall go is known to be ours.

use std::path::Path;

use super::{ASKS, Store, StoreError};

impl Store {
    /// Deletes the objects of these keys; one that is not there is no error. Each is looked at before the first one goes:
    /// `is_ours` knows its key, and on a disk no part of it is a link, behind which lies what is not of this place.
    ///
    /// # Errors
    /// [`StoreError::Stop`] when one of them is not ours, and then all stay; or when one is there and stays there.
    pub async fn delete<K: AsRef<str>>(
        &self,
        keys: &[K],
        is_ours: impl Fn(&str) -> bool,
    ) -> Result<(), StoreError> {
        for key in keys.iter().map(AsRef::as_ref) {
            let refused = match key {
                _ if !is_ours(key) => "it is no file of Forebay's",
                _ if self.is_through_link(key) => "it is a link, or lies behind one",
                _ => continue,
            };
            return Err(StoreError::Stop(self.line("delete", key)(refused)));
        }
        for key in keys.iter().map(AsRef::as_ref) {
            let name = self.key("delete", key)?;
            let Some(store) = self.objects("delete", key, false)? else { return Ok(()) };
            for asked in 1.. {
                let deleted = object_store::ObjectStoreExt::delete(&*store, &name).await;
                self.forget(key);
                match deleted {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => break,
                    // It is not sent again by itself, since it might hit what came in between; but this is our own place.
                    Err(error) => match self.size(key).await {
                        Ok(None) => break,
                        Ok(Some(_)) if asked < ASKS => {}
                        _ => return Err(self.explain("delete", key, &error)),
                    },
                }
            }
        }
        Ok(())
    }

    /// Deletes what a killed local [`put`](Store::put) left beside keys that are ours: files called `KEY#NUMBER` below
    /// `prefix` for which `is_ours(KEY)` holds. Returns how many. In a bucket and in memory there are none.
    ///
    /// # Errors
    /// When the folder cannot be listed or a file cannot be removed.
    pub async fn delete_leftovers(
        &self,
        prefix: &str,
        is_ours: impl Fn(&str) -> bool,
    ) -> Result<usize, StoreError> {
        let Some(root) = self.local_root() else { return Ok(0) };
        let mut deleted = 0;
        for (key, _) in self.list(prefix).await? {
            let Some((base, number)) = key.rsplit_once('#') else { continue };
            let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            if !is_number || !is_ours(base) || self.is_through_link(&key) {
                continue;
            }
            // `object_store` has no name for such a file.
            std::fs::remove_file(root.join(&key)).map_err(|error| self.explain_io("delete", &key, &error))?;
            deleted += 1;
        }
        Ok(deleted)
    }

    /// Whether a part of `key` is a symbolic link: what lies behind it is not of this place.
    pub fn is_through_link(&self, key: &str) -> bool {
        let Some(root) = self.local_root() else { return false };
        let mut path = root.to_path_buf();
        Path::new(key).components().any(|part| {
            path.push(part);
            std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.file_type().is_symlink())
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::executor::block_on;

    use super::super::StoreOptions;
    use super::*;

    #[test]
    fn nothing_goes_unless_all_of_it_is_ours() {
        let folder = tempfile::tempdir().expect("a folder");
        let foreign = tempfile::tempdir().expect("a folder");
        std::fs::write(foreign.path().join("thesis.txt"), "years").expect("a file");
        std::os::unix::fs::symlink(foreign.path(), folder.path().join("link")).expect("a link");
        let store = Store::open(folder.path().to_str().expect("UTF-8"), &StoreOptions::default());
        let store = store.expect("opens");
        block_on(store.put("ours/a", Bytes::from_static(b"1"))).expect("puts");
        let is_ours = |key: &str| key.starts_with("ours/") || key.starts_with("link/");
        for (bad, reason) in
            [("thesis.txt", "no file of Forebay's"), ("link/thesis.txt", "behind one"), ("../x", "no file")]
        {
            let error = block_on(store.delete(&["ours/a", bad], is_ours)).expect_err(bad);
            assert!(error.to_string().contains(reason), "{error}");
            assert_eq!(block_on(store.get("ours/a")).expect("it stayed"), "1");
            assert!(foreign.path().join("thesis.txt").exists());
        }
        block_on(store.delete(&["ours/a", "ours/b"], is_ours)).expect("deletes");
        assert_eq!(block_on(store.size("ours/a")), Ok(None));
    }
}
