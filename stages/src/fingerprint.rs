//! What an image is known again by, after it was re-encoded, resized, cropped a little or mirrored.

use std::f32::consts::PI;

use forebay_datasets::duplicates::{
    CROPPED_SIDE, Fingerprint, HASHES, THUMBNAIL_BYTES, THUMBNAIL_SIDE, WINDOWS, bit_of,
};
use forebay_datasets::sample::{Fault, Pixels};
use forebay_datasets::seed::Draws;

use crate::resize::{Filter, Fit, Resize, Size};
use crate::stage::Stage;

/// Columns and rows that hashes and thumbnail are made of.
const SIDE: usize = 2 * THUMBNAIL_SIDE;

/// Frequencies in each direction that a hash has the signs of.
const FREQUENCIES: usize = 8;

/// Makes the [`Fingerprint`] of an image: a hash of its pixels, six of its look and a thumbnail, all of it from the image
/// squashed to 32 × 32 pixels. It draws nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprinting;

impl Stage for Fingerprinting {
    const NAME: &'static str = "fingerprint";
    type In = Pixels;
    type Out = Fingerprint;

    fn apply(&self, image: Pixels, draws: &Draws) -> Result<Fingerprint, Fault> {
        let (width, height, sum) = (image.width, image.height, crc32c::crc32c(&image.data));
        let squash = Resize {
            size: Size::Side(SIDE as u32),
            fit: Fit::Squash,
            filter: Filter::Bilinear,
            ..Resize::default()
        };
        let small = squash.apply(image, draws)?;
        let luma = luma(&small.data);
        let pixels = hash_of([width, height, sum], &small.data);
        Ok(Fingerprint { pixels, hashes: hashes(&luma), thumbnail: thumbnail(&small.data, &luma) })
    }
}

/// A checksum of all pixels tells images apart that are alike in the small, in a tenth of the time of a hash of them.
fn hash_of(numbers: [u32; 3], small: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(small);
    let mut hash = [0; 16];
    hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    hash
}

type Luma = [[f32; SIDE]; SIDE];

/// Luma as JPEG has it (ITU-R BT.601).
fn luma(rgb: &[u8]) -> Luma {
    let of = |at: usize| {
        let [r, g, b] = [0, 1, 2].map(|channel| f32::from(rgb[3 * at + channel]));
        0.299 * r + 0.587 * g + 0.114 * b
    };
    std::array::from_fn(|y| std::array::from_fn(|x| of(y * SIDE + x)))
}

/// The hash of the whole image, and those of the windows that a crop may have left.
fn hashes(luma: &Luma) -> [u64; HASHES] {
    let cosine = |at: f32, frequency: usize| (PI * (at + 0.5) * frequency as f32 / SIDE as f32).cos();
    let cosines: [[f32; SIDE]; FREQUENCIES] =
        std::array::from_fn(|frequency| std::array::from_fn(|at| cosine(at as f32, frequency)));
    let margin = 1.0 - CROPPED_SIDE;
    std::array::from_fn(|n| match n.checked_sub(1) {
        None => signs(luma, &cosines),
        Some(window) => signs(&window_of(luma, WINDOWS[window].map(|share| share * margin)), &cosines),
    })
}

/// A window of [`CROPPED_SIDE`], at the size of the whole, interpolated linearly.
fn window_of(luma: &Luma, [left, top]: [f32; 2]) -> Luma {
    let taps = |start: f32| -> [(usize, f32); SIDE] {
        std::array::from_fn(|at| {
            let place = start * SIDE as f32 + (at as f32 + 0.5) * CROPPED_SIDE - 0.5;
            let place = place.clamp(0.0, (SIDE - 1) as f32);
            let first = (place as usize).min(SIDE - 2);
            (first, place - first as f32)
        })
    };
    let (columns, rows) = (taps(left), taps(top));
    rows.map(|(above, down)| {
        columns.map(|(left, right)| {
            let across = |line: &[f32; SIDE]| line[left] + (line[left + 1] - line[left]) * right;
            let (above, below) = (across(&luma[above]), across(&luma[above + 1]));
            above + (below - above) * down
        })
    })
}

/// The signs of the lowest cosine coefficients (DCT-II), but for the mean.
fn signs(luma: &Luma, cosines: &[[f32; SIDE]; FREQUENCIES]) -> u64 {
    let dot = |a: &[f32; SIDE], b: &[f32; SIDE]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let rows: [[f32; SIDE]; FREQUENCIES] =
        std::array::from_fn(|u| std::array::from_fn(|y| dot(&luma[y], &cosines[u])));
    let mut hash = 0;
    for (u, row) in rows.iter().enumerate() {
        for (v, cosines) in cosines.iter().enumerate() {
            if (u, v) != (0, 0) && dot(row, cosines) > 0.0 {
                hash |= 1 << bit_of(u, v);
            }
        }
    }
    hash
}

/// Y, Cb and Cr of half the side, smoothed.
fn thumbnail(rgb: &[u8], luma: &Luma) -> Box<[u8; THUMBNAIL_BYTES]> {
    const N: usize = THUMBNAIL_SIDE;
    let mut thumbnail = Box::new([0; THUMBNAIL_BYTES]);
    for (plane, out) in thumbnail.chunks_exact_mut(N * N).enumerate() {
        let value = |x: usize, y: usize| {
            let channel = |channel: usize| f32::from(rgb[3 * (y * SIDE + x) + channel]);
            // The scales of JPEG (ITU-R BT.601).
            match plane {
                0 => luma[y][x],
                1 => 128.0 + 0.564 * (channel(2) - luma[y][x]),
                _ => 128.0 + 0.713 * (channel(0) - luma[y][x]),
            }
        };
        let halved: [[f32; N]; N] = std::array::from_fn(|y| {
            std::array::from_fn(|x| {
                let (x, y) = (2 * x, 2 * y);
                (value(x, y) + value(x + 1, y) + value(x, y + 1) + value(x + 1, y + 1)) / 4.0
            })
        });
        let near =
            |at: usize| [at.saturating_sub(1), at, (at + 1).min(N - 1)].into_iter().zip([0.25, 0.5, 0.25]);
        for (at, out) in out.iter_mut().enumerate() {
            let across = |y: usize| near(at % N).map(|(x, weight)| weight * halved[y][x]).sum::<f32>();
            *out = near(at / N).map(|(y, weight)| weight * across(y)).sum::<f32>().round() as u8;
        }
    }
    thumbnail
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::HorizontalFlip;
    use crate::crop::cut;
    use crate::decode::Decode;
    use crate::encode::{Encode, Encoding};
    use forebay_datasets::duplicates::{LinkKind, find};
    use forebay_datasets::sample::{Encoded, SampleId};
    use forebay_datasets::seed::Seed;

    /// A picture of some soft blobs, another one for each seed.
    fn picture(seed: u64) -> Pixels {
        let mut stream = Seed(seed).stream("picture");
        let mut draw = |low: f64, high: f64| stream.range(low, high) as f32;
        let blobs: Vec<[f32; 6]> = (0..14)
            .map(|_| {
                let color = [(); 3].map(|()| draw(-120.0, 120.0));
                [draw(0.0, 160.0), draw(0.0, 120.0), draw(6.0, 30.0), color[0], color[1], color[2]]
            })
            .collect();
        let mut data = Vec::new();
        for y in 0..120 {
            for x in 0..160 {
                for channel in 0..3 {
                    let value = blobs.iter().fold(128.0, |sum: f32, blob| {
                        let far =
                            ((x as f32 - blob[0]).powi(2) + (y as f32 - blob[1]).powi(2)) / blob[2].powi(2);
                        sum + blob[3 + channel] * (-far).exp()
                    });
                    data.push(value.clamp(0.0, 255.0) as u8);
                }
            }
        }
        Pixels::new(160, 120, data)
    }

    fn print(image: Pixels) -> Fingerprint {
        Fingerprinting.apply(image, &Seed(0).draws("x", 0, 0)).expect("a fingerprint")
    }

    #[test]
    fn a_copy_is_known_again_whatever_was_done_to_it_and_another_picture_is_not() {
        let draws = Seed(0).draws("x", 0, 0);
        let encode = |quality| {
            move |image: Pixels| {
                let draws = Seed(0).draws("x", 0, 0);
                let stored =
                    Encode { encoding: Encoding::Jpeg { quality, restarts: false } }.apply(image, &draws);
                let bytes = stored.expect("encodes").bytes;
                Decode::default().apply(Encoded { bytes }, &draws).expect("decodes")
            }
        };
        let resize = |image: Pixels| {
            let size = Resize { size: Size::Side(84), ..Resize::default() };
            size.apply(image, &draws).expect("resizes")
        };
        let flip = |image| HorizontalFlip { probability: 1.0 }.apply(image, &draws).expect("flips");
        let copies: [(&dyn Fn(Pixels) -> Pixels, LinkKind); 6] = [
            (&|image| image, LinkKind::Exact),
            (&encode(50), LinkKind::Near),
            (&resize, LinkKind::Near),
            (&flip, LinkKind::Mirrored),
            (&|image| cut(image, 8, 0, 152, 114), LinkKind::Cropped),
            (&|image| encode(60)(cut(image, 3, 4, 152, 114)), LinkKind::Cropped),
        ];
        let others: Vec<Fingerprint> = (10..30).map(|seed| print(picture(seed))).collect();
        for seed in 0..4 {
            let original = picture(seed);
            for (n, (copy, kind)) in copies.iter().enumerate() {
                let pair = [original.clone(), copy(original.clone())].map(print);
                let prints: Vec<Fingerprint> = pair.into_iter().chain(others.clone()).collect();
                let ids: Vec<SampleId> = (0..prints.len()).map(|n| format!("{n:02}").into()).collect();
                let found = find(&ids, &prints);
                let links: Vec<_> = found.links.iter().map(|link| (link.first, link.second)).collect();
                assert_eq!(links, [(0, 1)], "picture {seed}, copy {n}");
                // A crop that changes little is near enough as a whole.
                let kinds = [*kind, if *kind == LinkKind::Cropped { LinkKind::Near } else { *kind }];
                assert!(kinds.contains(&found.links[0].kind), "{n}: {:?}", found.links);
            }
        }
    }

    #[test]
    fn images_of_any_size_have_a_fingerprint() {
        for (width, height) in [(1, 1), (1, 300), (300, 1), (31, 33)] {
            print(Pixels::new(width, height, vec![9; (width * height * 3) as usize]));
        }
    }
}
