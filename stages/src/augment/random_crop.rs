//! Shows a square at a random place: the usual recipe for training on small images.

use forebay_datasets::sample::Pixels;
use serde::{Deserialize, Serialize};

use super::check_side;
use crate::crop::window;
use crate::resample::View;
use crate::resize::{Filter, Fit, Resize, Size};
use crate::stage::{Draws, Fault, Stage};

/// A square at a random place. An image whose shorter side is smaller than `side` is first enlarged to it; where a run makes
/// squares of that side, the shorter side first becomes what it would before their centre is cut out, so that training sees a
/// random square where an evaluation sees the one in the middle.
///
/// Only what is seen is resized, and what an evaluation refuses is refused here too: an image whose longer side would be longer
/// than one may be.
///
/// Out: `[side, side, 3]`, u8.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomCrop {
    /// Pixels, at least 1.
    pub side: u32,
    /// Black pixels that are added on each of the four edges before the crop, 4 in the usual CIFAR recipe.
    #[serde(default)]
    pub pad: u32,
    /// What makes the image that the square is cut from; where there is nothing, as it comes.
    #[serde(skip)]
    pub(super) before: Option<Resize>,
}

/// Where the square lies, and what of it is image.
struct Place {
    /// What is shown; `None` where the square lies in the padding.
    view: Option<View>,
    /// Columns and rows of the square that lie left of and above the image.
    outside: [u32; 2],
}

impl RandomCrop {
    /// A square of `side` pixels out of an image with `pad` more on each edge.
    pub fn new(side: u32, pad: u32) -> RandomCrop {
        RandomCrop { side, pad, before: None }
    }

    /// The square out of what `resize` makes before it cuts the centre out. `None` where it cuts no centre of this side.
    pub(super) fn instead_of_centre(&self, resize: &Resize) -> Option<RandomCrop> {
        let is_same = resize.size == Size::Side(self.side) && resize.fit == Fit::Crop && resize.enlarge;
        is_same.then(|| RandomCrop { before: Some(resize.before_the_cut()), ..self.clone() })
    }

    pub(super) fn check(&self) -> Result<(), String> {
        check_side(self.side)
    }

    /// What makes the image that the square is cut from, which is nowhere smaller than it.
    fn resize(&self, width: u32, height: u32) -> Resize {
        match &self.before {
            Some(before) => before.clone(),
            None if width.min(height) < self.side => Resize {
                size: Size::Side(self.side),
                fit: Fit::Shortest,
                filter: Filter::Bilinear,
                ..Resize::default()
            },
            None => Resize::default(),
        }
    }

    /// The most bytes that lie between what goes in and what comes out: the image at its other size.
    pub(super) fn work_bytes(&self, width: u32, height: u32) -> u64 {
        self.resize(width, height).work(width, height).total()
    }

    /// # Errors
    /// When the image would become too large.
    fn place(&self, width: u32, height: u32, draws: &Draws) -> Result<Place, Fault> {
        let named = |fault: Fault| Fault::new(Self::NAME, fault.reason);
        if self.side == 0 {
            return Err(Fault::new(Self::NAME, "the side is 0, and must be at least 1 pixel"));
        }
        let resize = self.resize(width, height);
        let whole = resize.output_size_checked(width, height).map_err(named)?;
        let mut stream = draws.of(Self::NAME);
        let (mut window, mut size, mut outside) = ([0.0; 4], [0; 2], [0; 2]);
        for (axis, (from, to)) in [(width, whole.0), (height, whole.1)].into_iter().enumerate() {
            let room = u64::from(to - self.side) + 2 * u64::from(self.pad) + 1;
            let start = stream.below(room) as i64 - i64::from(self.pad);
            let first = start.clamp(0, i64::from(to));
            let last = (start + i64::from(self.side)).clamp(first, i64::from(to));
            let scale = f64::from(from) / f64::from(to);
            window[axis] = first as f64 * scale;
            // A last bit too much would reach over the edge.
            window[2 + axis] = ((last - first) as f64 * scale).min(f64::from(from) - window[axis]);
            size[axis] = (last - first) as u32;
            outside[axis] = (first - start) as u32;
        }
        let inside = [0, 0, width, height];
        let is_seen = size.iter().all(|length| *length > 0);
        let view = is_seen.then_some(View { inside, window, size, filter: resize.filter });
        Ok(Place { view, outside })
    }

    /// What is shown of an image of `width` x `height` pixels; `None` where nothing is, or the image is refused.
    pub(super) fn view(&self, width: u32, height: u32, draws: &Draws) -> Option<View> {
        self.place(width, height, draws).ok()?.view
    }
}

impl Stage for RandomCrop {
    const NAME: &'static str = "random_crop";
    type In = Pixels;
    type Out = Pixels;

    fn apply(&self, input: Pixels, draws: &Draws) -> Result<Pixels, Fault> {
        let (width, height) = input.whole();
        let Place { view, outside: [left, top] } = self.place(width, height, draws)?;
        let shown = match view {
            Some(view) => view.of(input),
            // All of it is padding, of which one pixel serves.
            None => Pixels { original: input.original, ..Pixels::new(1, 1, vec![0; 3]) },
        };
        Ok(window(shown, -i64::from(left), -i64::from(top), self.side, self.side, [0; 3]))
    }
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
            let random = RandomCrop::new(8, 0).apply(counting(width, height), &draws(0)).unwrap();
            assert_eq!((random.width, random.height, random.original.size), (8, 8, (99, 98)));
        }
        let refused = RandomCrop::new(0, 0).apply(counting(2, 2), &draws(0)).unwrap_err();
        assert_eq!(refused.to_string(), "random_crop: the side is 0, and must be at least 1 pixel");
    }

    #[test]
    fn random_crops_reach_every_place_and_no_other() {
        let mut corners: Vec<u8> = (0..200)
            .map(|index| {
                let pixels = RandomCrop::new(2, 0).apply(counting(4, 3), &draws(index)).unwrap();
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
        let crop = RandomCrop::new(2, 1);
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
    fn with_a_margin_the_square_is_cut_from_what_an_evaluation_cuts_the_middle_of() {
        let data = (0..40u32).flat_map(|y| (0..60u32).flat_map(move |x| [x * 4, y * 6, (x * y) % 256]));
        let image = Pixels::new(60, 40, data.map(|level| level as u8).collect());
        let resize =
            Resize { size: Size::Side(16), fit: Fit::Crop, shorter_side: Some(20), ..Resize::default() };
        let crop = RandomCrop::new(16, 0).instead_of_centre(&resize).expect("squares of this side");
        let whole = resize.before_the_cut().apply(image.clone(), &draws(0)).unwrap();
        assert_eq!((whole.width, whole.height), (30, 20));
        let places = |square: &Pixels| {
            let near = |(left, top): &(u32, u32)| {
                let cut = window(whole.clone(), i64::from(*left), i64::from(*top), 16, 16, [0; 3]);
                cut.data.iter().zip(&square.data).all(|(a, b)| a.abs_diff(*b) <= 1)
            };
            (0..=14).flat_map(|left| (0..=4).map(move |top| (left, top))).find(near)
        };
        let mut found: Vec<(u32, u32)> = (0..100)
            .map(|index| places(&crop.apply(image.clone(), &draws(index)).unwrap()).expect("one of them"))
            .collect();
        found.sort_unstable();
        found.dedup();
        assert!(found.len() > 40, "{found:?}");
        for other in [
            Resize { size: Size::Side(17), ..resize.clone() },
            Resize { fit: Fit::Pad, ..resize.clone() },
            Resize { enlarge: false, ..resize },
        ] {
            assert_eq!(RandomCrop::new(16, 0).instead_of_centre(&other), None);
        }
    }

    #[test]
    fn a_window_far_outside_is_all_fill() {
        for (left, top) in [(-50, 0), (50, 0), (0, -50), (0, 50)] {
            assert_eq!(levels(&window(counting(3, 3), left, top, 2, 2, [6; 3])), [6; 4]);
        }
        assert_eq!(levels(&window(counting(3, 3), -1, 2, 5, 2, [9; 3])), [9, 6, 7, 8, 9, 9, 9, 9, 9, 9]);
    }
}
