//! Samples become a batch: one contiguous block of u8 pixels and its labels.

use forebay_datasets::sample::{Label, Pixels, Sample, SampleId};

/// A batch on the host, as the trainer receives it. Pixels stay u8; the device normalises them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// `[n, 3, side, side]`, values 0 to 255, RGB planes.
    pub images: Vec<u8>,
    /// `[n]`.
    pub labels: Vec<Label>,
    /// `[n]`: which sample each row is.
    pub ids: Vec<SampleId>,
    /// Width and height of every image.
    pub side: u32,
}

impl Batch {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// The images of these rows.
    pub fn rows(&self, rows: std::ops::Range<usize>) -> Batch {
        let image = 3 * self.side as usize * self.side as usize;
        Batch {
            images: self.images[rows.start * image..rows.end * image].to_vec(),
            labels: self.labels[rows.clone()].to_vec(),
            ids: self.ids[rows].to_vec(),
            side: self.side,
        }
    }

    /// The images in batches of `size`, the last one smaller.
    pub fn parts(&self, size: usize) -> impl Iterator<Item = Batch> {
        (0..self.len()).step_by(size).map(move |start| self.rows(start..(start + size).min(self.len())))
    }

    /// True for a batch without images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

/// Turns samples of `side` x `side` pixels into a batch, in their order; tombstones are left out.
///
/// # Panics
/// When an image is not `side` x `side`: the transform before this stage makes them so.
pub fn collate(samples: Vec<Sample<Pixels>>, side: u32) -> Batch {
    let plane = side as usize * side as usize;
    let mut batch =
        Batch { images: Vec::with_capacity(samples.len() * plane * 3), labels: vec![], ids: vec![], side };
    for sample in samples {
        let Ok(pixels) = sample.payload else { continue };
        assert_eq!((pixels.width, pixels.height), (side, side), "the size of {}", sample.id);
        for channel in 0..3 {
            batch.images.extend(pixels.data.iter().skip(channel).step_by(3));
        }
        batch.labels.push(sample.label);
        batch.ids.push(sample.id);
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
}
