//! Reads the files of samples, and tells what they weigh once they are decoded.

use forebay_datasets::catalog::{Entry, Locator};
use forebay_datasets::sample::{Encoded, Fault, Label, Pixels, Sample};
use forebay_datasets::store::{Store, is_url};
use forebay_stages::decode::Decode;
use forebay_stages::weight::{Scales, Step, Weight, parts};
use futures::StreamExt;
use futures::executor::block_on;

use super::{Rooms, chunk_of};
use crate::flow::{Chunk, Error, Flow, Line, Run, blocking};
use crate::options::Config;

/// Reads the images of a chunk, each from where its locator says. What cannot be read becomes a tombstone where only
/// this object is lost.
pub(crate) async fn read<L: Send + 'static>(
    store: Store,
    chunk: Vec<Sample<Locator, L>>,
) -> Result<Chunk<Encoded, L>, Error> {
    let is_elsewhere = |sample: &Sample<Locator, L>| {
        sample.payload.as_ref().is_ok_and(|locator| locator.object().text().is_some_and(is_url))
    };
    if store.local_root().is_some() && !chunk.iter().any(is_elsewhere) {
        let read = move || {
            // It blocks, and may wait for another thread that unpacks what it needs.
            let local = |sample| block_on(read_one(&store, sample));
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

async fn read_one<L>(store: &Store, sample: Sample<Locator, L>) -> Result<Sample<Encoded, L>, Error> {
    let bytes = match &sample.payload {
        Ok(locator) => locator.read(store).await,
        Err(_) => return Ok(sample.map(|_| unreachable!("a tombstone has no payload"))),
    };
    match bytes {
        Ok(bytes) => Ok(sample.map(|_| Ok(Encoded { bytes }))),
        Err(error) if error.loses_only_this_object() => {
            Ok(sample.map(|_| Err(Fault::new(Fault::READ, error))))
        }
        Err(error) => Err(error.into()),
    }
}

/// The bytes of some images in their order, weighed before they are decoded.
pub(crate) fn images_of<'a>(
    run: &Run,
    config: &Config,
    store: &Store,
    entries: impl Iterator<Item = &'a Entry>,
    decode: &Decode,
) -> Flow<Chunk<Encoded>> {
    let rooms = Rooms::of(config);
    let sample = |entry: &Entry| Sample {
        id: entry.id.clone(),
        copy: 0,
        label: entry.label,
        payload: Ok(entry.locator.clone()),
    };
    let samples: Vec<Sample<Locator>> = entries.map(sample).collect();
    let bytes = |sample: &Sample<Locator>| sample.payload.as_ref().map_or(0, Locator::bytes);
    let total: u64 = samples.iter().map(bytes).sum();
    let chunk = chunk_of(total / samples.len().max(1) as u64);
    let chunks: Vec<Vec<Sample<Locator>>> = samples.chunks(chunk).map(<[_]>::to_vec).collect();
    let source = store.clone();
    let images =
        run.source("samples", chunks).io("read", rooms.read(), move |chunk| read(source.clone(), chunk));
    weighed(images, Scales { decode: decode.clone(), steps: Vec::new(), encode: None }, rooms)
}

/// Lets the next stage take from the byte budget what images weigh on their way, told from their headers. A chunk
/// whose images are heavy together passes in parts.
pub(crate) fn weighed<L: Send + 'static>(
    images: Flow<Chunk<Encoded, L>>,
    scales: Scales,
    rooms: Rooms,
) -> Flow<Chunk<Encoded, L>> {
    let bytes_max = rooms.part_bytes();
    images.weighed_parts(move |mut chunk| {
        let weight = |sample: &Sample<Encoded, L>| {
            sample.payload.as_ref().map_or(Weight::default(), |encoded| scales.weigh(&encoded.bytes))
        };
        let cut = parts(chunk.iter().map(weight), bytes_max);
        let mut parts = Vec::with_capacity(cut.len());
        for (n, bytes) in cut {
            let rest = chunk.split_off(n);
            parts.push((std::mem::replace(&mut chunk, rest), bytes));
        }
        parts
    })
}

/// The steps of a chain, each as a stage of its own.
pub(crate) fn changed<P: Send + 'static>(
    images: Line<P, Pixels, Label>,
    steps: Vec<Step>,
) -> Line<P, Pixels, Label> {
    steps.into_iter().fold(images, |images, step| match step {
        Step::Resize(resize) => images.then(resize),
        Step::Augment(augment) => images.then(augment),
        Step::ByClass(by_class) => images.then(by_class),
    })
}
