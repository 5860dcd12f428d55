//! An object that is put piece by piece, so that it need never lie in memory as a whole.

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path as Key;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};

use super::bucket::{Before, complete, look_before};
use super::patience::part_bytes;
use super::{Store, StoreError};

/// An object on its way. It is there when [`Upload::finish`] has returned, whole, and not before; one that is dropped
/// leaves nothing that can be seen.
pub struct Upload {
    store: Store,
    key: String,
    name: Key,
    /// What is not yet sent, in its order.
    pieces: Vec<Bytes>,
    held_bytes: usize,
    parts: Option<Parts>,
}

/// An object that is put in parts.
struct Parts {
    upload: Box<dyn MultipartUpload>,
    objects: Arc<dyn ObjectStore>,
    /// What was there before.
    before: Before,
    /// How many bytes were sent.
    bytes: u64,
}

impl Store {
    /// Begins to put an object of unknown size.
    ///
    /// # Errors
    /// When `key` is none.
    pub fn upload(&self, key: &str) -> Result<Upload, StoreError> {
        let name = self.key("write", key)?;
        let store = self.clone();
        Ok(Upload { store, key: key.to_string(), name, pieces: Vec::new(), held_bytes: 0, parts: None })
    }
}

impl Upload {
    /// Adds bytes at the end, and sends what makes a part. All parts but the last are of one size, which some servers
    /// ask for.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.held_bytes += bytes.len();
        self.pieces.push(bytes);
        while self.held_bytes > part_bytes() {
            let part = self.next(part_bytes());
            self.send(part).await?;
        }
        Ok(())
    }

    /// Sends the rest and makes the object.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub async fn finish(mut self) -> Result<(), StoreError> {
        let rest = self.next(self.held_bytes);
        if self.parts.is_none() {
            let whole = Bytes::from(rest.concat());
            return self.store.put(&self.key, whole).await;
        }
        self.send(rest).await?;
        let Some(Parts { mut upload, objects, before, bytes }) = self.parts.take() else {
            unreachable!("a part was sent")
        };
        self.store.forget(&self.key);
        let done = complete(&*objects, &self.name, &mut *upload, before, bytes).await;
        done.map_err(|error| self.store.explain("write", &self.key, &error))
    }

    /// Takes so many bytes off the front.
    fn next(&mut self, bytes: usize) -> Vec<Bytes> {
        let (mut taken, mut left) = (Vec::new(), bytes);
        self.held_bytes -= bytes;
        while left > 0 {
            let piece = &mut self.pieces[0];
            if piece.len() > left {
                taken.push(piece.split_to(left));
                break;
            }
            left -= piece.len();
            taken.push(self.pieces.remove(0));
        }
        taken
    }

    async fn send(&mut self, part: Vec<Bytes>) -> Result<(), StoreError> {
        if self.parts.is_none() {
            let objects = self.store.objects("write", &self.key, true)?;
            let objects = objects.ok_or_else(|| self.store.absent("write", &self.key))?;
            let before = look_before(&*objects, &self.name).await;
            let begun = objects.put_multipart(&self.name).await;
            let upload = begun.map_err(|error| self.store.explain("write", &self.key, &error))?;
            self.parts = Some(Parts { upload, objects, before, bytes: 0 });
        }
        let parts = self.parts.as_mut().expect("it was begun");
        parts.bytes += part.iter().map(|piece| piece.len() as u64).sum::<u64>();
        match parts.upload.put_part(PutPayload::from_iter(part)).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.give_up(&error).await),
        }
    }

    /// The first error is the one to report; a store that cannot abort either keeps invisible parts.
    async fn give_up(&mut self, error: &object_store::Error) -> StoreError {
        if let Some(mut parts) = self.parts.take() {
            let _ = parts.upload.abort().await;
        }
        self.store.explain("write", &self.key, error)
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;
    use crate::store::StoreOptions;

    #[test]
    fn what_is_written_in_pieces_is_there_at_the_end_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let local = Store::open(folder.path().to_str().unwrap(), &StoreOptions::default()).unwrap();
        for store in [local, Store::memory()] {
            for sizes in
                [vec![], vec![5, 0, 7], vec![part_bytes()], vec![3, 3 * part_bytes(), 1, part_bytes() - 4, 9]]
            {
                let mut upload = store.upload("data/x").unwrap();
                let mut whole = Vec::new();
                for (index, size) in sizes.iter().enumerate() {
                    let piece = vec![index as u8 + 1; *size];
                    whole.extend_from_slice(&piece);
                    block_on(upload.write(piece.into())).unwrap();
                    assert!(upload.held_bytes <= part_bytes());
                }
                assert_eq!(block_on(store.size("data/x")).unwrap(), None);
                block_on(upload.finish()).unwrap();
                assert!(block_on(store.get("data/x")).unwrap() == whole, "{sizes:?}");
                block_on(store.delete(&["data/x"], |_| true)).unwrap();
            }
            let mut upload = store.upload("data/x").unwrap();
            block_on(upload.write(vec![1; 3 * part_bytes()].into())).unwrap();
            drop(upload);
            assert_eq!(block_on(store.list("data")).unwrap(), []);
        }
    }
}
