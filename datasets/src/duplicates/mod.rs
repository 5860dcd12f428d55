//! Which images show the same picture: exact copies, and those that were re-encoded, resized, cropped a little or
//! mirrored.
//!
//! Two steps. Candidates are images whose hashes differ in few bits, found by multi-index hashing without comparing all
//! with all; then the thumbnails of a candidate pair are laid over each other and correlated, which decides. Groups are
//! the connected parts of what was found, each called by its smallest id, so that they are a function of the set of
//! images alone.

mod candidates;
mod compare;

use std::borrow::Borrow;
use std::collections::HashMap;

use self::candidates::CandidateIndex;
use crate::groups::Joined;
use crate::sample::SampleId;
use crate::words;

/// Columns and rows of a thumbnail.
pub const THUMBNAIL_SIDE: usize = 16;

/// Bytes of a thumbnail: planes Y, Cb and Cr one after the other.
pub const THUMBNAIL_BYTES: usize = 3 * THUMBNAIL_SIDE * THUMBNAIL_SIDE;

/// Hashes of an image: of the whole of it, and of the windows that a crop by 5 % may have left ([`WINDOWS`]).
pub const HASHES: usize = 6;

/// What is left of each side by a crop of 5 %.
pub const CROPPED_SIDE: f32 = 0.95;

/// Left and top of the windows behind the hashes after the first, as shares of the margin that a crop takes away:
/// the centre and the corners. Two windows of any crop by 5 % and the nearest of these are at most 2.5 % apart.
pub const WINDOWS: [[f32; 2]; HASHES - 1] = [[0.5, 0.5], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]];

/// The detail of a thumbnail, in grey levels, below which only an exact copy counts: what is left of a plain wall or
/// a clear sky correlates with that of any other. Of 60,000 CIFAR-10 images no duplicate that was looked at had less
/// than 6.
pub const DETAIL_MIN: f32 = 2.0;

/// What an image is known again by: 72 bytes beside its thumbnail of [`THUMBNAIL_BYTES`].
#[derive(Clone, Debug, PartialEq)]
pub struct Fingerprint {
    /// A hash of width, height, a checksum of the pixels as they were decoded and of the image at 32 × 32 pixels, and not of
    /// the file: what differs in metadata or in lossless compression is the same image to a model.
    pub pixels: [u8; 16],
    /// Signs of the 8 × 8 lowest cosine coefficients of the luma, of the whole image and of each of [`WINDOWS`]. Bit
    /// `16 ((u + 2v) mod 4) + ..` is that of column frequency `u` and row frequency `v`, see [`bit_of`], so that each
    /// quarter of the hash has coefficients of all kinds.
    pub hashes: [u64; HASHES],
    /// Y, Cb and Cr of 16 × 16 pixels each, smoothed by (1, 2, 1) / 4 in both directions.
    pub thumbnail: Box<[u8; THUMBNAIL_BYTES]>,
}

/// The bit of a hash that holds the sign of the coefficient of column frequency `u` and row frequency `v`, each below 8.
pub const fn bit_of(u: usize, v: usize) -> usize {
    // Of each row, two coefficients fall into each quarter.
    16 * ((u + 2 * v) % 4) + 2 * v + u / 4
}

/// The bits that change their sign when an image is mirrored: those of odd column frequencies.
const MIRRORED: u64 = {
    let (mut mask, mut v) = (0, 0);
    while v < 8 {
        let mut u = 1;
        while u < 8 {
            mask |= 1 << bit_of(u, v);
            u += 2;
        }
        v += 1;
    }
    mask
};

/// What makes two images the same picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkKind {
    /// The same size and pixels.
    Exact,
    /// The same frame: re-encoded or resized.
    Near,
    /// One shows a little less than the other.
    Cropped,
    /// One is the mirror image of the other, and may be cropped too.
    Mirrored,
}
words!(LinkKind { Exact => "exact", Near => "near", Cropped => "cropped", Mirrored => "mirrored" });

/// Two images that show the same picture: indexes into the images that were given, the one with the smaller id first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// The image with the smaller id.
    pub first: u32,
    /// The image with the larger id.
    pub second: u32,
    /// What makes them the same.
    pub kind: LinkKind,
    /// The correlation of their thumbnails as they fit best, at most 1.
    pub similarity: f32,
}

/// What is the same picture among some images.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Duplicates {
    /// Links that join the groups, by ids: enough to join them, and not every pair of a group.
    pub links: Vec<Link>,
    /// The group of each image, in the order in which they were given: the index of the image of the group whose id
    /// is smallest.
    pub group: Vec<u32>,
}

impl Duplicates {
    /// The groups of two and more, each as indexes sorted by id; the largest first, equals by id.
    pub fn groups(&self, ids: &[SampleId]) -> Vec<Vec<u32>> {
        let mut members: HashMap<u32, Vec<u32>> = HashMap::new();
        for (index, group) in (0..).zip(&self.group) {
            members.entry(*group).or_default().push(index);
        }
        let mut groups: Vec<Vec<u32>> = members.into_values().filter(|members| members.len() > 1).collect();
        for members in &mut groups {
            members.sort_unstable_by_key(|index| &ids[*index as usize]);
        }
        groups.sort_unstable_by(|a, b| {
            b.len().cmp(&a.len()).then_with(|| ids[a[0] as usize].cmp(&ids[b[0] as usize]))
        });
        groups
    }
}

/// Finds what is the same picture among images, each known by its id; ids are unique. The answer is the same whatever
/// the order in which they come, but for the indexes.
///
/// It takes 36 bytes an image beside the fingerprints, and time that grows a little faster than their number.
///
/// # Panics
/// When there is not one fingerprint per id, or there are more than 2³² of them.
pub fn find(ids: &[SampleId], fingerprints: &[impl Borrow<Fingerprint>]) -> Duplicates {
    assert_eq!(ids.len(), fingerprints.len(), "one fingerprint per image");
    let mut order: Vec<u32> = (0..u32::try_from(ids.len()).expect("at most 2^32 images")).collect();
    order.sort_unstable_by_key(|index| &ids[*index as usize]);
    let print = |place: u32| fingerprints[order[place as usize] as usize].borrow();
    let mut joined = Joined::new(ids.len());
    let mut links = Vec::new();
    let mut link = |joined: &mut Joined, first: u32, second: u32, kind, similarity| {
        if joined.join(first, second) {
            let [first, second] = [first, second].map(|place| order[place as usize]);
            links.push(Link { first, second, kind, similarity });
        }
    };
    // Of exact copies one stands for all, or a thousand of them would be compared a million times.
    let mut first_of: HashMap<[u8; 16], u32> = HashMap::new();
    let mut compared: Vec<u32> = Vec::new();
    for place in 0..order.len() as u32 {
        match first_of.get(&print(place).pixels) {
            Some(first) => link(&mut joined, *first, place, LinkKind::Exact, 1.0),
            None => {
                first_of.insert(print(place).pixels, place);
                if compare::detail(&print(place).thumbnail) >= DETAIL_MIN {
                    compared.push(place);
                }
            }
        }
    }
    drop(first_of);
    let index = CandidateIndex::new(compared.iter().map(|place| print(*place).hashes[0]).collect());
    for (at, place) in (0..).zip(&compared) {
        for candidate in index.near(at, &print(*place).hashes) {
            let other = compared[candidate.other as usize];
            // What is in one group already needs no further link.
            if joined.root(*place) == joined.root(other) {
                continue;
            }
            let [a, b] = [print(*place), print(other)].map(|print| &print.thumbnail);
            if let Some((kind, similarity)) = compare::same_picture(a, b, candidate.is_mirrored) {
                link(&mut joined, (*place).min(other), (*place).max(other), kind, similarity);
            }
        }
    }
    let mut group = vec![0; ids.len()];
    for place in 0..order.len() as u32 {
        group[order[place as usize] as usize] = order[joined.root(place) as usize];
    }
    links.sort_by(|a, b| {
        let key = |link: &Link| (&ids[link.first as usize], &ids[link.second as usize]);
        key(a).cmp(&key(b))
    });
    Duplicates { links, group }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    #[test]
    fn each_coefficient_has_a_bit_of_its_own_and_each_quarter_has_sixteen() {
        let mut bits: Vec<usize> = (0..64).map(|n| bit_of(n % 8, n / 8)).collect();
        bits.sort_unstable();
        assert_eq!(bits, (0..64).collect::<Vec<_>>());
        assert_eq!(MIRRORED.count_ones(), 32);
    }

    /// A fingerprint of noise that belongs to `picture`; `shift` tells copies apart without changing their look.
    fn print(picture: u64, shift: u8) -> Fingerprint {
        let mut stream = Seed(picture).stream("picture");
        let hash = stream.range(0.0, u64::MAX as f64) as u64;
        let mut thumbnail = Box::new([128; THUMBNAIL_BYTES]);
        for value in &mut thumbnail[..256] {
            *value = stream.range(20.0, 220.0) as u8 + shift;
        }
        Fingerprint { pixels: [picture as u8 ^ (shift << 4); 16], hashes: [hash; HASHES], thumbnail }
    }

    #[test]
    fn groups_are_the_same_in_any_order_and_called_by_their_smallest_id() {
        let prints = [print(1, 0), print(2, 0), print(1, 0), print(1, 3), print(3, 0), print(2, 4)];
        let ids = ["d", "a", "f", "b", "c", "e"];
        let mut order: Vec<usize> = (0..6).collect();
        for seed in 0..10 {
            Seed(seed).stream("order").shuffle(&mut order);
            let names: Vec<SampleId> = order.iter().map(|n| ids[*n].into()).collect();
            let given: Vec<Fingerprint> = order.iter().map(|n| prints[*n].clone()).collect();
            let found = find(&names, &given);
            let name = |index: &u32| names[*index as usize].to_string();
            let groups: Vec<Vec<String>> =
                found.groups(&names).iter().map(|group| group.iter().map(name).collect()).collect();
            assert_eq!(groups, [vec!["b", "d", "f"], vec!["a", "e"]]);
            let links: Vec<_> =
                (found.links.iter()).map(|link| (name(&link.first), name(&link.second), link.kind)).collect();
            let link = |a: &str, b: &str, kind| (a.to_string(), b.to_string(), kind);
            let expected = [
                link("a", "e", LinkKind::Near),
                link("b", "d", LinkKind::Near),
                link("d", "f", LinkKind::Exact),
            ];
            assert_eq!(links, expected);
        }
    }

    #[test]
    fn images_without_detail_are_the_same_only_where_their_pixels_are() {
        let plain = |shift: u8| Fingerprint {
            thumbnail: Box::new([100 + shift; THUMBNAIL_BYTES]),
            pixels: [shift; 16],
            hashes: [0; HASHES],
        };
        let ids: Vec<SampleId> = ["a", "b", "c"].map(Into::into).into();
        let found = find(&ids, &[plain(0), plain(1), plain(0)]);
        assert_eq!(found.group, [0, 1, 0]);
    }

    #[test]
    fn no_images_are_no_groups() {
        assert_eq!(find(&[], &[] as &[Fingerprint]), Duplicates::default());
    }
}
