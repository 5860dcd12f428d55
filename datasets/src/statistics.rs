//! What a user or a trainer asks of many images at once: class counts, sizes, channel means. Statistics of
//! parts merge to those of the whole in any order, bit by bit, because they are sums of whole numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::sample::{Label, Pixels};

/// Statistics of a set of images, such as one shard or one split.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// The number of images.
    pub images: u64,
    /// Their bytes as stored.
    pub bytes: u64,
    /// `[classes]`: the images of each label; as long as the largest label needs.
    pub classes: Vec<u64>,
    /// Widths in pixels, as stored.
    pub width: Lengths,
    /// Heights in pixels, as stored.
    pub height: Lengths,
    /// Sums over the pixels as stored.
    pub channels: Channels,
}

impl Statistics {
    /// Adds one image whose stored form is `pixels` in `bytes` bytes.
    pub fn add(&mut self, label: Label, pixels: &Pixels, bytes: u64) {
        self.add_size(label, pixels.width, pixels.height, bytes);
        self.channels.add(&pixels.data);
    }

    /// Adds one image of which only the header is known.
    pub fn add_size(&mut self, label: Label, width: u32, height: u32, bytes: u64) {
        self.images += 1;
        self.bytes += bytes;
        let label = label as usize;
        self.classes.resize(self.classes.len().max(label + 1), 0);
        self.classes[label] += 1;
        self.width.add(width);
        self.height.add(height);
    }

    /// Adds the images of `other`.
    pub fn merge(&mut self, other: &Statistics) {
        self.images += other.images;
        self.bytes += other.bytes;
        self.classes.resize(self.classes.len().max(other.classes.len()), 0);
        for (mine, theirs) in self.classes.iter_mut().zip(&other.classes) {
            *mine += theirs;
        }
        self.width.merge(&other.width);
        self.height.merge(&other.height);
        self.channels.merge(&other.channels);
    }
}

/// A distribution of lengths: its ends exactly, between them a histogram with eight buckets to a doubling.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lengths {
    /// The smallest and the largest, when there is one.
    pub range: Option<(u32, u32)>,
    /// The smallest length of a bucket, and how many lengths it holds.
    pub buckets: BTreeMap<u32, u64>,
}

impl Lengths {
    /// Adds one length.
    pub fn add(&mut self, length: u32) {
        let (low, high) = self.range.unwrap_or((length, length));
        self.range = Some((low.min(length), high.max(length)));
        *self.buckets.entry(bucket(length)).or_default() += 1;
    }

    /// Adds the lengths of `other`.
    pub fn merge(&mut self, other: &Lengths) {
        self.range = match (self.range, other.range) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (mine, theirs) => mine.or(theirs),
        };
        for (length, count) in &other.buckets {
            *self.buckets.entry(*length).or_default() += count;
        }
    }

    /// The median, as the smallest length of its bucket but within the range: exact below 16, at most one
    /// eighth too small above.
    pub fn median(&self) -> Option<u32> {
        let (low, high) = self.range?;
        let half = self.buckets.values().sum::<u64>().div_ceil(2);
        let mut seen = 0;
        let bucket = self.buckets.iter().find(|(_, count)| {
            seen += **count;
            seen >= half
        });
        bucket.map(|(length, _)| (*length).clamp(low, high))
    }
}

/// `length` with all but its four highest bits cleared.
fn bucket(length: u32) -> u32 {
    let cleared = (u32::BITS - length.leading_zeros()).saturating_sub(4);
    length >> cleared << cleared
}

/// Sums from which mean and standard deviation of each channel follow. They hold 2.8e14 pixels, a billion
/// images of 500 x 500, before they overflow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channels {
    /// The pixels summed over.
    pub pixels: u64,
    /// `[3]`: the sum of the values 0 to 255 of red, green and blue.
    pub sums: [u64; 3],
    /// `[3]`: the sum of their squares.
    pub squares: [u64; 3],
}

impl Channels {
    /// Adds pixels, `[n, 3]`.
    pub fn add(&mut self, data: &[u8]) {
        let data = &data[..data.len() / 3 * 3];
        self.pixels += (data.len() / 3) as u64;
        // Each byte of 16 pixels has sums of its own, so that vectors of bytes need not be taken apart by channel. Of 256 times
        // 16 pixels they fit: 255 * 256 < 2¹⁶ and 65,025 * 256 < 2³².
        for block in data.chunks(48 * 256) {
            let (mut sums, mut squares) = ([0u16; 48], [0u32; 48]);
            let (whole, rest) = block.as_chunks::<48>();
            for bytes in whole {
                for lane in 0..48 {
                    let value = u16::from(bytes[lane]);
                    sums[lane] = sums[lane].wrapping_add(value);
                    squares[lane] = squares[lane].wrapping_add(u32::from(value.wrapping_mul(value)));
                }
            }
            for lane in 0..48 {
                self.sums[lane % 3] += u64::from(sums[lane]);
                self.squares[lane % 3] += u64::from(squares[lane]);
            }
            for (at, byte) in rest.iter().enumerate() {
                let value = u64::from(*byte);
                self.sums[at % 3] += value;
                self.squares[at % 3] += value * value;
            }
        }
    }

    /// Adds the pixels of `other`.
    pub fn merge(&mut self, other: &Channels) {
        self.pixels += other.pixels;
        for channel in 0..3 {
            self.sums[channel] += other.sums[channel];
            self.squares[channel] += other.squares[channel];
        }
    }

    /// The mean of each channel on the scale 0 to 1; 0 without pixels.
    pub fn mean(&self) -> [f64; 3] {
        self.sums.map(|sum| sum as f64 / self.pixels.max(1) as f64 / 255.0)
    }

    /// The standard deviation of each channel over all pixels, on the scale 0 to 1; 0 without pixels.
    pub fn std(&self) -> [f64; 3] {
        let n = u128::from(self.pixels.max(1));
        std::array::from_fn(|channel| {
            // n² times the variance, exactly: n Σx² - (Σx)².
            let sum = u128::from(self.sums[channel]);
            let scaled = n * u128::from(self.squares[channel]) - sum * sum;
            (scaled as f64).sqrt() / n as f64 / 255.0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_a_chequered_image_are_exact() {
        let mut statistics = Statistics::default();
        statistics.add(2, &Pixels::new(2, 1, vec![0, 51, 255, 255, 51, 255]), 10);
        assert_eq!(statistics.channels.mean(), [0.5, 0.2, 1.0]);
        assert_eq!(statistics.channels.std(), [0.5, 0.0, 0.0]);
        assert_eq!((statistics.classes, statistics.bytes), (vec![0, 0, 1], 10));
        assert_eq!(Channels::default().std(), [0.0; 3]);
    }

    #[test]
    fn white_pixels_do_not_overflow_a_block() {
        let mut channels = Channels::default();
        channels.add(&vec![255; 3 * 40_000]);
        assert_eq!((channels.sums[1], channels.squares[1]), (255 * 40_000, 65_025 * 40_000));
    }

    #[test]
    fn parts_merge_to_the_whole_in_any_order_and_survive_json() {
        let image = |n: u32| Pixels::new(n, 2, (0..n * 6).map(|value| (value * 37 % 256) as u8).collect());
        let of = |sizes: &[u32]| {
            let mut statistics = Statistics::default();
            for n in sizes {
                statistics.add(n % 3, &image(*n), u64::from(*n));
            }
            statistics
        };
        let (mut left, mut right) = (of(&[5, 200, 31]), of(&[7]));
        left.merge(&of(&[7]));
        right.merge(&of(&[31, 5, 200]));
        assert_eq!(left, right);
        assert_eq!(left, of(&[5, 200, 31, 7]));
        let json = serde_json::to_string(&left).expect("writes");
        assert_eq!(serde_json::from_str::<Statistics>(&json).expect("reads"), left);
    }

    #[test]
    fn a_median_is_at_most_an_eighth_too_small() {
        for (lengths, low, high) in [
            (vec![3, 5, 9], 5, 5),
            (vec![300, 301, 5000], 264, 301),
            (vec![77; 4], 77, 77),
            (vec![640], 640, 640),
        ] {
            let mut all = Lengths::default();
            lengths.iter().for_each(|length| all.add(*length));
            let median = all.median().expect("lengths");
            assert!((low..=high).contains(&median), "{lengths:?}: {median}");
        }
        assert_eq!(Lengths::default().median(), None);
    }
}
