//! Samples become a batch: one contiguous block of u8 pixels and its labels.

use forebay_datasets::sample::{Label, Pixels, Sample, SampleId};

/// A batch on the host, as the trainer receives it. Pixels stay u8; the device normalises them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// `[n, 3, side, side]`, values 0 to 255, RGB planes.
    pub images: Vec<u8>,
    /// `[n]`; empty where the classes of the images are not known.
    pub labels: Vec<Label>,
    /// `[n]`: which sample each row is.
    pub ids: Vec<SampleId>,
    /// Width and height of every image.
    pub side: u32,
}

impl Batch {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.images.len() / self.image_bytes()
    }

    /// Bytes of an image, at least 1.
    fn image_bytes(&self) -> usize {
        (3 * self.side as usize * self.side as usize).max(1)
    }

    /// The images of these rows.
    pub fn rows(&self, rows: std::ops::Range<usize>) -> Batch {
        let image = self.image_bytes();
        Batch {
            images: self.images[rows.start * image..rows.end * image].to_vec(),
            labels: self.labels.get(rows.clone()).unwrap_or_default().to_vec(),
            ids: self.ids.get(rows).unwrap_or_default().to_vec(),
            side: self.side,
        }
    }

    /// The images in batches of `size`, the last one smaller.
    pub fn parts(&self, size: usize) -> impl Iterator<Item = Batch> {
        (0..self.len()).step_by(size).map(move |start| self.rows(start..(start + size).min(self.len())))
    }

    /// True for a batch without images.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }
}

impl Batch {
    /// A batch of no image yet, for `n` of them.
    fn of_side(side: u32, n: usize) -> Batch {
        let plane = side as usize * side as usize;
        Batch { images: Vec::with_capacity(n * plane * 3), labels: vec![], ids: vec![], side }
    }

    /// Adds the planes of an image.
    fn push(&mut self, id: &SampleId, pixels: &Pixels) {
        assert_eq!((pixels.width, pixels.height), (self.side, self.side), "the size of {id}");
        for channel in 0..3 {
            self.images.extend(pixels.data.iter().skip(channel).step_by(3));
        }
        self.ids.push(id.clone());
    }
}

/// Images that are each seen in several views: the batch holds those of the first image, then those of the second, and
/// names each as often.
///
/// # Panics
/// When a view is not `side` x `side`, or one image has more of them than another.
pub fn collate_views(images: &[(SampleId, Vec<Pixels>)], side: u32) -> Batch {
    let per_image = images.first().map_or(0, |(_, views)| views.len());
    let mut batch = Batch::of_side(side, images.len() * per_image);
    for (id, views) in images {
        assert_eq!(views.len(), per_image, "the views of {id}");
        views.iter().for_each(|pixels| batch.push(id, pixels));
    }
    batch
}

/// Turns samples of `side` x `side` pixels into a batch, in their order; tombstones are left out.
///
/// # Panics
/// When an image is not `side` x `side`: the transform before this stage makes them so.
pub fn collate(samples: Vec<Sample<Pixels>>, side: u32) -> Batch {
    let mut batch = Batch::of_side(side, samples.len());
    for sample in samples {
        let Ok(pixels) = sample.payload else { continue };
        batch.push(&sample.id, &pixels);
        batch.labels.push(sample.label);
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_datasets::sample::Fault;

    #[test]
    fn planes_are_separated_and_tombstones_left_out() {
        let pixels = Pixels::new(2, 2, (0..12).collect());
        let sample = |id: &str, payload| Sample { id: id.into(), copy: 0, label: 3, payload };
        let batch = collate(vec![sample("a", Err(Fault::new("decode", "bad"))), sample("b", Ok(pixels))], 2);
        assert_eq!(batch.images, [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]);
        assert_eq!((batch.len(), &*batch.ids[0], batch.labels[0]), (1, "b", 3));
    }

    #[test]
    fn the_views_of_an_image_stand_together() {
        let pixels = |level: u8| Pixels::new(1, 1, vec![level; 3]);
        let images = [("a".into(), vec![pixels(1), pixels(2)]), ("b".into(), vec![pixels(3), pixels(4)])];
        let batch = collate_views(&images, 1);
        assert_eq!(batch.images, [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]);
        let ids: Vec<&str> = batch.ids.iter().map(|id| &**id).collect();
        assert_eq!((batch.len(), ids, batch.labels.len()), (4, vec!["a", "a", "b", "b"], 0));
        let last = batch.rows(2..4);
        assert_eq!((last.len(), last.images), (2, vec![3, 3, 3, 4, 4, 4]));
    }
}
