//! Objects that are put in parts.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};

use super::super::patience::part_bytes;
use super::Bucket;

/// Parts of one object on their way at once: what `put` holds beyond the object itself is headers only, since
/// parts share the object's memory.
const PARTS_IN_FLIGHT: usize = 4;

/// Puts a large object.
pub(super) async fn put_parts(bucket: &Bucket, key: &Key, bytes: &Bytes) -> object_store::Result<()> {
    let store = &*bucket.objects;
    let before = look_before(store, key).await;
    let mut upload = store.put_multipart(key).await?;
    // Parts are numbered in the order in which their futures are made, so that they may run together.
    let parts: Vec<_> = (0..bytes.len())
        .step_by(part_bytes())
        .map(|start| bytes.slice(start..bytes.len().min(start + part_bytes())))
        .map(|part| upload.put_part(PutPayload::from(part)))
        .collect();
    let sent = futures::stream::iter(parts).buffer_unordered(PARTS_IN_FLIGHT).try_collect::<Vec<()>>().await;
    match sent {
        Ok(_) => complete(store, key, &mut *upload, before, bytes.len() as u64).await,
        Err(error) => {
            // The first error is the one to report; a store that cannot abort either keeps invisible parts.
            let _ = upload.abort().await;
            Err(error)
        }
    }
}

/// What was at a key before an object was put there.
pub(in super::super) enum Before {
    Absent,
    /// An object with this entity tag.
    Tag(String),
    /// It could not be told.
    Unknown,
}

pub(in super::super) async fn look_before(store: &dyn ObjectStore, key: &Key) -> Before {
    match store.head(key).await {
        Ok(found) => found.e_tag.map_or(Before::Unknown, Before::Tag),
        Err(object_store::Error::NotFound { .. }) => Before::Absent,
        Err(_) => Before::Unknown,
    }
}

/// Makes an object of its parts. Where the answer is lost, the next request finds no upload any more: whether the object
/// has come, and is not the one that was there `before`, tells.
pub(in super::super) async fn complete(
    store: &dyn ObjectStore,
    key: &Key,
    upload: &mut dyn MultipartUpload,
    before: Before,
    bytes: u64,
) -> object_store::Result<()> {
    let Err(error) = upload.complete().await else { return Ok(()) };
    let now = store.head(key).await.ok().filter(|found| found.size == bytes);
    let has_come = match (now.and_then(|found| found.e_tag), before) {
        (Some(_), Before::Absent) => true,
        (Some(now), Before::Tag(before)) => now != before,
        _ => false,
    };
    if has_come {
        return Ok(());
    }
    let _ = upload.abort().await;
    Err(error)
}
