//! Reads the files of samples, and tells what they weigh once they are decoded.

use bytes::Bytes;
use forebay_datasets::sample::{Encoded, Fault, Sample};
use forebay_datasets::store::{Store, StoreError};
use forebay_stages::decode::probe;
use futures::{FutureExt, StreamExt};

use crate::flow::{Chunk, Error, blocking};

/// Reads the files of a chunk. What cannot be read becomes a tombstone where only this object is lost.
pub(crate) async fn read(store: Store, chunk: Vec<Sample<()>>) -> Result<Chunk<Encoded>, Error> {
    let open = move |sample: Sample<()>, bytes: Result<Bytes, _>| match bytes {
        Ok(bytes) => Ok(sample.map(|()| Ok(Encoded { bytes }))),
        Err(error) => lost(sample, error),
    };
    if store.local_root().is_some() {
        let read = move || {
            let bytes = |sample: &Sample<()>| {
                store.read_sample(&sample.id).now_or_never().expect("a local read blocks and does not wait")
            };
            chunk
                .into_iter()
                .map(|sample| (bytes(&sample), sample))
                .map(|(bytes, s)| open(s, bytes))
                .collect()
        };
        return blocking(read).await;
    }
    let reads = chunk.into_iter().map(|sample| {
        let store = store.clone();
        async move {
            let bytes = store.read_sample(&sample.id).await;
            open(sample, bytes)
        }
    });
    futures::stream::iter(reads).buffered(8).collect::<Vec<_>>().await.into_iter().collect()
}

fn lost(sample: Sample<()>, error: StoreError) -> Result<Sample<Encoded>, Error> {
    if error.loses_only_this_object() {
        Ok(sample.map(|()| Err(Fault::new("read", error))))
    } else {
        Err(error.into())
    }
}

/// What a chunk takes from the byte budget: its images as they decode, by their headers.
#[allow(clippy::ptr_arg, reason = "`weighed` passes the item of the flow")]
pub(crate) fn decoded_bytes(chunk: &Chunk<Encoded>) -> u64 {
    let headers = chunk.iter().filter_map(|sample| probe(&sample.payload.as_ref().ok()?.bytes).ok());
    headers.map(|header| header.pixel_bytes()).sum()
}
