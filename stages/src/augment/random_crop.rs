//! Shows a square at a random place: the usual recipe for training on small images.

use forebay_datasets::sample::Pixels;
use serde::{Deserialize, Serialize};

use super::check_side;
use crate::crop::window;
use crate::resize::{Filter, Fit, Resize, Size};
use crate::stage::{Draws, Fault, Stage};

/// A square at a random place. An image whose shorter side is smaller than `side` is first enlarged to it.
///
/// Out: `[side, side, 3]`, u8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomCrop {
    /// Pixels, at least 1.
    pub side: u32,
    /// Black pixels that are added on each of the four edges before the crop, 4 in the usual CIFAR recipe.
    #[serde(default)]
    pub pad: u32,
}

impl RandomCrop {
    pub(super) fn check(&self) -> Result<(), String> {
        check_side(self.side)
    }

    /// The most bytes that lie between what goes in and what comes out: an image enlarged to the side.
    pub(super) fn work_bytes(&self, width: u32, height: u32) -> u64 {
        if width.min(height) >= self.side { 0 } else { enlarged(self.side).work(width, height).total() }
    }
}

impl Stage for RandomCrop {
    const NAME: &'static str = "random_crop";
    type In = Pixels;
    type Out = Pixels;

    fn apply(&self, input: Pixels, draws: &Draws) -> Result<Pixels, Fault> {
        let input = at_least(self.side, input, draws, Self::NAME)?;
        let mut stream = draws.of(Self::NAME);
        let mut place = |length: u32| {
            let room = u64::from(length - self.side) + 2 * u64::from(self.pad) + 1;
            stream.below(room) as i64 - i64::from(self.pad)
        };
        let left = place(input.width);
        let top = place(input.height);
        Ok(window(input, left, top, self.side, self.side, [0; 3]))
    }
}

/// The image, enlarged where its shorter side is smaller than `side`.
fn at_least(side: u32, input: Pixels, draws: &Draws, name: &str) -> Result<Pixels, Fault> {
    if side == 0 {
        return Err(Fault::new(name, "the side is 0, and must be at least 1 pixel"));
    }
    if input.width.min(input.height) >= side {
        return Ok(input);
    }
    enlarged(side).apply(input, draws).map_err(|fault| Fault::new(name, fault.reason))
}

fn enlarged(side: u32) -> Resize {
    Resize { size: Size::Side(side), fit: Fit::Shortest, filter: Filter::Bilinear, ..Resize::default() }
}

#[cfg(test)]
mod tests {
    use forebay_datasets::seed::Seed;

    use super::*;

    fn draws(index: u32) -> Draws {
        Seed(5).draws("a", index, 0)
    }

    /// One grey level per pixel, counting from the top left.
    fn counting(width: u32, height: u32) -> Pixels {
        let data = (0..width * height).flat_map(|place| [place as u8; 3]).collect();
        Pixels { original: (99, 98).into(), ..Pixels::new(width, height, data) }
    }

    fn levels(pixels: &Pixels) -> Vec<u8> {
        pixels.data.iter().step_by(3).copied().collect()
    }

    #[test]
    fn an_image_smaller_than_the_view_is_enlarged_first() {
        for (width, height) in [(3, 5), (1, 1), (9, 2)] {
            let random = RandomCrop { side: 8, pad: 0 }.apply(counting(width, height), &draws(0)).unwrap();
            assert_eq!((random.width, random.height, random.original.size), (8, 8, (99, 98)));
        }
        let refused = RandomCrop { side: 0, pad: 0 }.apply(counting(2, 2), &draws(0)).unwrap_err();
        assert_eq!(refused.to_string(), "random_crop: the side is 0, and must be at least 1 pixel");
    }

    #[test]
    fn random_crops_reach_every_place_and_no_other() {
        let mut corners: Vec<u8> = (0..200)
            .map(|index| {
                let pixels = RandomCrop { side: 2, pad: 0 }.apply(counting(4, 3), &draws(index)).unwrap();
                let found = levels(&pixels);
                assert_eq!(found, [found[0], found[0] + 1, found[0] + 4, found[0] + 5]);
                found[0]
            })
            .collect();
        corners.sort_unstable();
        corners.dedup();
        assert_eq!(corners, [0, 1, 2, 4, 5, 6]);
    }

    #[test]
    fn padding_moves_the_image_by_at_most_the_pad() {
        let crop = RandomCrop { side: 2, pad: 1 };
        let image = Pixels::new(2, 2, [7, 8, 9, 10].map(|level| [level; 3]).concat());
        let mut seen: Vec<Vec<u8>> =
            (0..200).map(|index| levels(&crop.apply(image.clone(), &draws(index)).unwrap())).collect();
        seen.sort_unstable();
        seen.dedup();
        let expected = [
            [0, 0, 0, 7],
            [0, 0, 7, 8],
            [0, 0, 8, 0],
            [0, 7, 0, 9],
            [0, 9, 0, 0],
            [7, 8, 9, 10],
            [8, 0, 10, 0],
            [9, 10, 0, 0],
            [10, 0, 0, 0],
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_window_far_outside_is_all_fill() {
        for (left, top) in [(-50, 0), (50, 0), (0, -50), (0, 50)] {
            assert_eq!(levels(&window(counting(3, 3), left, top, 2, 2, [6; 3])), [6; 4]);
        }
        assert_eq!(levels(&window(counting(3, 3), -1, 2, 5, 2, [9; 3])), [9, 6, 7, 8, 9, 9, 9, 9, 9, 9]);
    }
}
