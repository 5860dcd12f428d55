//! The pass over a source: every image is read, decoded and looked at once, and little of it is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_datasets::catalog::{Catalog, Entry};
use forebay_datasets::duplicates::Fingerprint;
use forebay_datasets::sample::{Encoded, Fault, Sample, SampleId};
use forebay_datasets::seed::Seed;
use forebay_datasets::statistics::Channels;
use forebay_datasets::store::Store;
use forebay_stages::decode::Decode;
use forebay_stages::facts::{Damage, FileFacts, PixelFacts};
use forebay_stages::fingerprint::Fingerprinting;
use forebay_stages::stage::Stage;

use crate::flow::{Chunk, Error, Run};
use crate::options::{self, Config};
use crate::plan::Rooms;
use crate::plan::images_of;
use crate::report::html::thumbnail;

/// What is kept of an image.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ImageFacts {
    pub(super) file: FileFacts,
    pub(super) pixels: PixelFacts,
    /// The first half of the BLAKE3 of its file.
    pub(super) hash: [u8; 16],
    /// What it is known again by.
    pub(super) print: Fingerprint,
}

/// What is known of the images of a catalog.
pub(super) struct Looked {
    /// In the order of its entries: facts, or why there are none.
    pub(super) images: Vec<LookedAt>,
    /// Over the pixels of all that decode.
    pub(super) channels: Channels,
}

/// An image that was decoded, or what is wrong with it.
pub(super) type LookedAt = Result<ImageFacts, (Damage, Fault)>;

impl Looked {
    /// Those that decode.
    pub(super) fn whole(&self) -> impl Iterator<Item = &ImageFacts> {
        self.images.iter().filter_map(|image| image.as_ref().ok())
    }
}

/// The images of a chunk, with the sums over their pixels.
type LookedChunk = (Vec<LookedAt>, Channels);

/// Looks at every image; `seen` counts them meanwhile.
pub(super) async fn look_at_all(
    run: &Run,
    config: &Config,
    store: &Store,
    catalog: &Catalog,
    seen: Arc<AtomicU64>,
) -> Result<Looked, Error> {
    let decode = Arc::new(options::decode(config, None));
    let images = images_of(run, config, store, catalog.entries().iter(), &decode);
    let chunks: Vec<LookedChunk> = images
        .compute(Decode::NAME, Rooms::of(config).compute(), move |chunk: Chunk<Encoded>| {
            seen.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            let mut channels = Channels::default();
            let looked = chunk.into_iter().map(|sample| look(&decode, sample, &mut channels)).collect();
            Ok((looked, channels))
        })
        .collect()
        .await?;
    let mut looked = Looked { images: Vec::new(), channels: Channels::default() };
    for (images, channels) in chunks {
        looked.images.extend(images);
        looked.channels.merge(&channels);
    }
    Ok(looked)
}

/// A thumbnail of an image.
pub(super) struct SmallImage {
    pub(super) id: SampleId,
    /// The longer side of the image, pixels.
    pub(super) side_px: u32,
    pub(super) jpeg: Vec<u8>,
}

/// Decodes these images for a page, which are few; one that cannot be decoded is left out.
pub(super) async fn decode_some(
    run: &Run,
    config: &Config,
    store: &Store,
    entries: Vec<&Entry>,
) -> Result<Vec<SmallImage>, Error> {
    let decode = Arc::new(options::decode(config, None));
    let images = images_of(run, config, store, entries.into_iter(), &decode);
    let small: Vec<Vec<SmallImage>> = images
        .compute("thumbnails", Rooms::of(config).compute(), move |chunk: Chunk<Encoded>| {
            let small = |sample: Sample<Encoded>| {
                let draws = Seed(0).draws(&sample.id, 0, 0);
                let decoded = decode.apply(sample.payload.ok()?, &draws).ok()?;
                let side_px = decoded.width.max(decoded.height);
                Some(SmallImage { id: sample.id, side_px, jpeg: thumbnail(decoded)? })
            };
            Ok(chunk.into_iter().filter_map(small).collect())
        })
        .collect()
        .await?;
    Ok(small.into_iter().flatten().collect())
}

/// Decodes a whole image, since only that tells whether it is whole.
fn look(decode: &Decode, sample: Sample<Encoded>, channels: &mut Channels) -> LookedAt {
    let encoded = sample.payload.map_err(|fault| (Damage::Unreadable, fault))?;
    let bytes = encoded.bytes.clone();
    let draws = Seed(0).draws(&sample.id, 0, 0);
    let decoded = FileFacts::of(&bytes).and_then(|file| Ok((file, decode.apply(encoded, &draws)?)));
    let (file, pixels) = decoded.map_err(|fault| (Damage::of(&bytes, &fault.reason), fault))?;
    channels.add(&pixels.data);
    let mut hash = [0; 16];
    hash.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..16]);
    let facts = PixelFacts::of(&pixels);
    let print =
        Fingerprinting.apply(pixels, &draws).map_err(|fault| (Damage::of(&bytes, &fault.reason), fault))?;
    Ok(ImageFacts { file, pixels: facts, hash, print })
}
