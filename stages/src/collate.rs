//! Samples become a batch: one contiguous block of planes and its labels.

use forebay_datasets::blocks::{Block, Blocks};
use forebay_datasets::sample::{Label, Pixels, Sample, SampleId};
use forebay_datasets::words;
pub use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use crate::normalize::Normalize;
use crate::planes::{Stores, separate, separate_mirrored, store_f32, to_bf16, to_f16, with_stores};
use crate::simd::isa::Isa;

/// A batch on the host, as the trainer receives it: grey levels, which the device normalises, or numbers that are normalised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch<T = u8> {
    /// `[n, 3, side, side]`, RGB planes: values 0 to 255, or what [`Collate::normalized`] says.
    pub images: Block<T>,
    /// `[n]`; empty where the classes of the images are not known.
    pub labels: Vec<Label>,
    /// `[n]`: which sample each row is.
    pub ids: Vec<SampleId>,
    /// Width and height of every image.
    pub side: u32,
}

impl<T: Clone> Batch<T> {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.images.len() / image_values(self.side)
    }

    /// The images of these rows.
    pub fn rows(&self, rows: std::ops::Range<usize>) -> Batch<T> {
        let image = image_values(self.side);
        Batch {
            images: self.images[rows.start * image..rows.end * image].to_vec().into(),
            labels: self.labels.get(rows.clone()).unwrap_or_default().to_vec(),
            ids: self.ids.get(rows).unwrap_or_default().to_vec(),
            side: self.side,
        }
    }

    /// The images in batches of `size`, the last one smaller.
    pub fn parts(&self, size: usize) -> impl Iterator<Item = Batch<T>> {
        (0..self.len()).step_by(size).map(move |start| self.rows(start..(start + size).min(self.len())))
    }

    /// True for a batch without images.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }
}

/// Values of an image, at least 1.
fn image_values(side: u32) -> usize {
    (3 * side as usize * side as usize).max(1)
}

/// The types of the values of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Grey levels, which the device normalises: a quarter of what 32 bits take on their way.
    #[default]
    U8,
    /// IEEE 754, 32 bits.
    F32,
    /// IEEE 754, 16 bits.
    F16,
    /// The upper half of 32 bits.
    Bf16,
}
words!(Dtype { U8 => "u8", F32 => "f32", F16 => "f16", Bf16 => "bf16" });

impl Dtype {
    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::U8 => 1,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::F32 => 4,
        }
    }
}

/// What the values of a batch are: grey levels (`u8`), or numbers of 32 or 16 bits.
pub trait Value: Copy + Default + Send + Sync + 'static {
    /// What makes values of grey levels, for each channel.
    type Map: Copy + Send + Sync + 'static;

    /// The values of grey levels of a channel.
    #[doc(hidden)]
    fn write(how: Writing<'_>, map: &Self::Map, channel: usize, levels: &[u8], values: &mut [Self]);

    /// Whether large batches of them are written past the caches.
    #[doc(hidden)]
    const IS_STREAMED: bool = false;
}

/// With which instructions levels become values, and how these are stored.
#[derive(Clone, Copy)]
pub struct Writing<'a> {
    isa: Isa,
    stores: Stores<'a>,
}

/// What the caches of a core hold, bytes, about: a batch of more would put its own images out of them.
const CACHE_BYTES: usize = 2 << 20;

impl Value for u8 {
    type Map = ();

    fn write(_: Writing<'_>, (): &(), _: usize, levels: &[u8], values: &mut [u8]) {
        values.copy_from_slice(levels);
    }
}

/// `level * scale + shift`, per channel: see [`Normalize::scale_shift`].
type ScaleShift = ([f32; 3], [f32; 3]);

macro_rules! numbers {
    ($($number:ty: $is_streamed:literal, $write:expr;)*) => {
        $(impl Value for $number {
            type Map = ScaleShift;

            const IS_STREAMED: bool = $is_streamed;

            fn write(
                how: Writing<'_>,
                (scale, shift): &ScaleShift,
                channel: usize,
                levels: &[u8],
                values: &mut [$number],
            ) {
                $write(how, levels, scale[channel], shift[channel], values);
            }
        })*
    };
}
numbers! {
    f32: true, |how: Writing<'_>, levels, scale, shift, numbers| {
        store_f32((how.isa, how.stores), levels, scale, shift, numbers)
    };
    f16: false, |how: Writing<'_>, levels, scale, shift, numbers| to_f16(how.isa, levels, scale, shift, numbers);
    bf16: false, |how: Writing<'_>, levels, scale, shift, numbers| to_bf16(how.isa, levels, scale, shift, numbers);
}

/// A batch of which some images are there: the first ones.
pub(crate) struct Filling<T> {
    images: Block<T>,
    size: usize,
    labels: Vec<Label>,
    ids: Vec<SampleId>,
}

/// Makes batches of images of one size. What a batch is kept in serves another one after it.
#[derive(Clone, Debug)]
pub struct Collate<T: Value = u8> {
    side: u32,
    map: T::Map,
    isa: Isa,
    blocks: Blocks<T>,
}

impl Collate {
    /// Batches of grey levels, of images of `side` x `side` pixels.
    pub fn levels(side: u32) -> Collate {
        Collate { side, map: (), isa: Isa::detect(), blocks: Blocks::default() }
    }
}

impl<T: Value<Map = ScaleShift>> Collate<T> {
    /// Batches of numbers, of images of `side` x `side` pixels: `(level / 255 - mean) / std`, as one multiplication and one
    /// addition of 32 bits; those of 16 bits are the nearest ones.
    pub fn normalized(side: u32, normalize: &Normalize) -> Collate<T> {
        Collate { side, map: normalize.scale_shift(), isa: Isa::detect(), blocks: Blocks::default() }
    }
}

/// Pixels that become planes at once: their planes stay in the nearest cache.
const PIXELS_AT_ONCE: usize = 2048;

impl<T: Value> Collate<T> {
    /// Turns samples into a batch, in their order; tombstones are left out.
    ///
    /// # Panics
    /// When an image is not of the side: the transform before this stage makes them so.
    pub fn batch(&self, samples: Vec<Sample<Pixels>>) -> Batch<T> {
        let mut filling = self.begin(samples.len());
        self.add(&mut filling, samples);
        self.end(filling)
    }

    /// Begins a batch of so many samples.
    pub(crate) fn begin(&self, size: usize) -> Filling<T> {
        let (labels, ids) = (Vec::with_capacity(size), Vec::with_capacity(size));
        Filling { images: self.lend(size), size, labels, ids }
    }

    /// Adds the next samples; tombstones are left out.
    ///
    /// # Panics
    /// As [`Collate::batch`], and when there are more than were said.
    pub(crate) fn add(&self, filling: &mut Filling<T>, samples: impl IntoIterator<Item = Sample<Pixels>>) {
        let Filling { images, size, labels, ids } = filling;
        self.writing(*size, |how| {
            let mut places = self.places(images).skip(ids.len());
            for sample in samples {
                let Ok(pixels) = sample.payload else { continue };
                self.write(how, &sample.id, &pixels, places.next().expect("one for each"));
                labels.push(sample.label);
                ids.push(sample.id);
            }
        });
    }

    /// The batch of what was added.
    pub(crate) fn end(&self, Filling { images, labels, ids, .. }: Filling<T>) -> Batch<T> {
        self.finished(images, labels, ids)
    }

    /// Images that are each seen in several views: the batch holds those of the first image, then those of the second, and
    /// names each as often. Their classes are not known.
    ///
    /// # Panics
    /// As [`Collate::batch`], and when one image has more views than another.
    pub fn views(&self, images: &[(SampleId, Vec<Pixels>)]) -> Batch<T> {
        let per_image = images.first().map_or(0, |(_, views)| views.len());
        let n = images.len() * per_image;
        let mut values = self.lend(n);
        let mut ids = Vec::with_capacity(n);
        self.writing(n, |how| {
            let mut places = self.places(&mut values);
            for (id, views) in images {
                assert_eq!(views.len(), per_image, "the views of {id}");
                for pixels in views {
                    self.write(how, id, pixels, places.next().expect("one for each"));
                    ids.push(id.clone());
                }
            }
        });
        self.finished(values, vec![], ids)
    }

    /// Memory for a batch of so many images, which holds what was there before.
    fn lend(&self, images: usize) -> Block<T> {
        self.blocks.lend(images * image_values(self.side))
    }

    /// The places of the images of a batch.
    fn places<'b>(&self, images: &'b mut Block<T>) -> impl Iterator<Item = &'b mut [T]> + use<'b, T> {
        images.chunks_exact_mut(image_values(self.side))
    }

    /// The batch of the images that these are, of the first ones that are there.
    fn finished(&self, mut images: Block<T>, labels: Vec<Label>, ids: Vec<SampleId>) -> Batch<T> {
        images.truncate(ids.len() * image_values(self.side));
        Batch { images, labels, ids, side: self.side }
    }

    /// Lets `write` write images of a batch of so many.
    fn writing<R>(&self, images: usize, write: impl FnOnce(Writing<'_>) -> R) -> R {
        let is_streamed = T::IS_STREAMED && size_of::<T>() * images * image_values(self.side) > CACHE_BYTES;
        with_stores(self.isa, is_streamed, |stores| write(Writing { isa: self.isa, stores }))
    }

    /// The planes of an image.
    fn write(&self, how: Writing<'_>, id: &SampleId, pixels: &Pixels, values: &mut [T]) {
        assert_eq!((pixels.width, pixels.height), (self.side, self.side), "the size of {id}");
        let n = pixels.data.len() / 3;
        // With room behind them, into which vectors reach.
        let mut levels = [[0; PIXELS_AT_ONCE + 64]; 3];
        let mut put = |at: usize, here: usize, levels: &[[u8; PIXELS_AT_ONCE + 64]; 3]| {
            for (channel, (levels, values)) in levels.iter().zip(values.chunks_exact_mut(n)).enumerate() {
                T::write(how, &self.map, channel, &levels[..here], &mut values[at..at + here]);
            }
        };
        if let Some(stored) = pixels.data.stored()
            && let [columns @ 1..=PIXELS_AT_ONCE, rows] = stored.size()
        {
            let separate = if stored.is_mirrored() { separate_mirrored } else { separate };
            let at_once = PIXELS_AT_ONCE / columns;
            for first in (0..rows).step_by(at_once) {
                let here = at_once.min(rows - first);
                for row in 0..here {
                    let planes = levels.each_mut().map(|levels| &mut levels[row * columns..]);
                    separate(self.isa, columns, stored.row(first + row), planes);
                }
                put(first * columns, here * columns, &levels);
            }
            return;
        }
        for at in (0..n).step_by(PIXELS_AT_ONCE) {
            let here = PIXELS_AT_ONCE.min(n - at);
            separate(self.isa, here, &pixels.data[3 * at..], levels.each_mut().map(|levels| &mut levels[..]));
            put(at, here, &levels);
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_datasets::levels::StoredRows;
    use forebay_datasets::sample::Fault;

    use super::*;

    #[test]
    fn planes_are_separated_and_tombstones_left_out() {
        let pixels = Pixels::new(2, 2, (0..12).collect());
        let sample = |id: &str, payload| Sample { id: id.into(), copy: 0, label: 3, payload };
        let samples = vec![sample("a", Err(Fault::new("decode", "bad"))), sample("b", Ok(pixels))];
        let batch = Collate::levels(2).batch(samples);
        assert_eq!(*batch.images, [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]);
        assert_eq!((batch.len(), &*batch.ids[0], batch.labels[0]), (1, "b", 3));
    }

    #[test]
    fn images_in_a_file_become_what_they_become_in_memory_of_their_own() {
        let mut stream = forebay_datasets::seed::Seed(2).stream("rows");
        for side in [1, 7, 61, 64, 65, 224, PIXELS_AT_ONCE, PIXELS_AT_ONCE + 1] {
            let stride = 3 * side + stream.below(40) as usize;
            let file = (0..stride * side + 5).map(|_| stream.below(256) as u8).collect::<Vec<u8>>().into();
            let rows = StoredRows::new(file, 5, stride, [side, side]);
            for by in [[false, false], [true, false], [false, true], [true, true]] {
                let stored = Pixels::stored(rows.clone());
                let data = stored.data.mirrored([side, side], by);
                let own = Pixels::new(side as u32, side as u32, data.clone().into_vec());
                let sample = |payload| Sample { id: "a".into(), copy: 0, label: 0, payload: Ok(payload) };
                for isa in Isa::all() {
                    let collate = Collate { isa, ..Collate::levels(side as u32) };
                    let found = collate.batch(vec![sample(Pixels { data: data.clone(), ..own.clone() })]);
                    assert!(found == collate.batch(vec![sample(own.clone())]), "{side} {by:?} {isa:?}");
                }
            }
        }
    }

    #[test]
    fn the_views_of_an_image_stand_together() {
        let pixels = |level: u8| Pixels::new(1, 1, vec![level; 3]);
        let images = [("a".into(), vec![pixels(1), pixels(2)]), ("b".into(), vec![pixels(3), pixels(4)])];
        let batch = Collate::levels(1).views(&images);
        assert_eq!(*batch.images, [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]);
        let ids: Vec<&str> = batch.ids.iter().map(|id| &**id).collect();
        assert_eq!((batch.len(), ids, batch.labels.len()), (4, vec!["a", "a", "b", "b"], 0));
        let last = batch.rows(2..4);
        assert_eq!((last.len(), &**last.images), (2, &[3, 3, 3, 4, 4, 4][..]));
    }

    #[test]
    fn numbers_are_normalised_and_the_nearest_of_their_type() {
        let side = 61;
        let n = side as usize * side as usize;
        let data: Vec<u8> = (0..3 * n).map(|at| (at * 7 % 256) as u8).collect();
        let sample = || Sample {
            id: "a".into(),
            copy: 0,
            label: 1,
            payload: Ok(Pixels::new(side, side, data.clone())),
        };
        let (scale, shift) = Normalize::IMAGENET.scale_shift();
        let expected: Vec<f32> = (0..3)
            .flat_map(|channel| data[channel..].iter().step_by(3).map(move |level| (channel, *level)))
            .map(|(channel, level)| f32::from(level) * scale[channel] + shift[channel])
            .collect();
        let wide = Collate::<f32>::normalized(side, &Normalize::IMAGENET).batch(vec![sample(), sample()]);
        assert_eq!(wide.len(), 2);
        assert!(*wide.images == [&*expected, &*expected].concat());
        // More than caches hold.
        let many =
            Collate::<f32>::normalized(side, &Normalize::IMAGENET).batch((0..64).map(|_| sample()).collect());
        assert!(size_of_val(&**many.images) > CACHE_BYTES);
        assert!(many.images.chunks_exact(expected.len()).all(|image| image == expected));
        let half = Collate::<f16>::normalized(side, &Normalize::IMAGENET).batch(vec![sample()]);
        assert!(half.images.iter().zip(&expected).all(|(half, wide)| *half == f16::from_f32(*wide)));
        let brain = Collate::<bf16>::normalized(side, &Normalize::IMAGENET).batch(vec![sample()]);
        assert!(brain.images.iter().zip(&expected).all(|(brain, wide)| *brain == bf16::from_f32(*wide)));
    }
}
