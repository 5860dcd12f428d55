//! Reads the files of samples, and tells what they weigh once they are decoded.

use forebay_datasets::catalog::Locator;
use forebay_datasets::sample::{Encoded, Fault, Sample};
use forebay_datasets::store::Store;
use forebay_stages::decode::probe;
use futures::{FutureExt, StreamExt};

use crate::flow::{Chunk, Error, blocking};

/// Reads the images of a chunk, each from where its locator says. What cannot be read becomes a tombstone where only
/// this object is lost.
pub(crate) async fn read(store: Store, chunk: Vec<Sample<Locator>>) -> Result<Chunk<Encoded>, Error> {
    if store.local_root().is_some() {
        let read = move || {
            let local = |sample| {
                read_one(&store, sample).now_or_never().expect("a local read blocks and does not wait")
            };
            chunk.into_iter().map(local).collect()
        };
        return blocking(read).await;
    }
    let reads = chunk.into_iter().map(|sample| {
        let store = store.clone();
        async move { read_one(&store, sample).await }
    });
    futures::stream::iter(reads).buffered(8).collect::<Vec<_>>().await.into_iter().collect()
}

async fn read_one(store: &Store, sample: Sample<Locator>) -> Result<Sample<Encoded>, Error> {
    let bytes = match &sample.payload {
        Ok(locator) => locator.read(store).await,
        Err(_) => return Ok(sample.map(|_| unreachable!("a tombstone has no payload"))),
    };
    match bytes {
        Ok(bytes) => Ok(sample.map(|_| Ok(Encoded { bytes }))),
        Err(error) if error.loses_only_this_object() => Ok(sample.map(|_| Err(Fault::new("read", error)))),
        Err(error) => Err(error.into()),
    }
}

/// What a chunk takes from the byte budget: its images as they decode, by their headers.
#[allow(clippy::ptr_arg, reason = "`weighed` passes the item of the flow")]
pub(crate) fn decoded_bytes(chunk: &Chunk<Encoded>) -> u64 {
    let headers = chunk.iter().filter_map(|sample| probe(&sample.payload.as_ref().ok()?.bytes).ok());
    headers.map(|header| header.pixel_bytes()).sum()
}
