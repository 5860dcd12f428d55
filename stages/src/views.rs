//! The views of an image that a network is asked about: the image alone, or several whose answers are averaged
//! (test-time augmentation).

use std::fmt;
use std::str::FromStr;

use forebay_datasets::sample::Pixels;
use serde::Serialize;

use crate::augment::{Augment, HorizontalFlip};
use crate::crop::cut;
use crate::resize::{Fit, Resize, Size, centre_offset};
use crate::stage::{Draws, Fault, Stage};
use crate::weight::Step;

/// Which views of an image a network is asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum Tta {
    /// The image as the network was evaluated with it.
    #[default]
    Off,
    /// The image and its mirror image.
    Flip,
    /// The four corners and the centre (Krizhevsky et al. 2012, section 4.1, without the mirror images).
    FiveCrop,
    /// So many random views, by the augmentation that the network was trained with.
    Augmented(u32),
}

impl Tta {
    /// The most random views of an image.
    pub const AUGMENTED_MAX: u32 = 1000;

    /// Views of an image.
    pub fn views(self) -> usize {
        match self {
            Tta::Off => 1,
            Tta::Flip => 2,
            Tta::FiveCrop => 5,
            Tta::Augmented(n) => n as usize,
        }
    }
}

impl fmt::Display for Tta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tta::Off => f.write_str("off"),
            Tta::Flip => f.write_str("flip"),
            Tta::FiveCrop => f.write_str("five-crop"),
            Tta::Augmented(n) => write!(f, "{n}"),
        }
    }
}

impl From<Tta> for String {
    fn from(tta: Tta) -> String {
        tta.to_string()
    }
}

impl FromStr for Tta {
    type Err = String;

    /// `off`, `flip`, `five-crop`, or a number of random views.
    fn from_str(text: &str) -> Result<Tta, String> {
        match (text, text.parse()) {
            ("off", _) => Ok(Tta::Off),
            ("flip", _) => Ok(Tta::Flip),
            ("five-crop", _) => Ok(Tta::FiveCrop),
            (_, Ok(n)) if (1..=Tta::AUGMENTED_MAX).contains(&n) => Ok(Tta::Augmented(n)),
            _ => Err(format!(
                "{text:?} is not off, flip, five-crop, or a number of views from 1 to {}",
                Tta::AUGMENTED_MAX
            )),
        }
    }
}

/// The stage that makes the views of a decoded image.
///
/// In: `[height, width, 3]`, u8. Out: as many squares of one side as [`Tta::views`] says, in the order in which [`Tta`] names
/// them; five crops from the top left over the top right, the bottom left and the bottom right to the centre.
#[derive(Clone, Debug)]
pub struct Views {
    /// What is done before the last resize.
    before: Vec<Resize>,
    /// What makes squares.
    last: Resize,
    tta: Tta,
    augment: Option<Augment>,
}

impl Views {
    /// Views of images that these resizes make squares of, one after the other. `augment` draws the random ones.
    ///
    /// # Errors
    /// In a line, without a resize that makes squares, or when random views are asked for and there is no augmentation.
    pub fn new(steps: &[Resize], tta: Tta, augment: Option<Augment>) -> Result<Views, String> {
        let is_square = |resize: &&Resize| resize.size != Size::Original && resize.fit != Fit::Shortest;
        let Some((last, before)) = steps.split_last().filter(|(last, _)| is_square(last)) else {
            return Err("its images are not made squares of one size".to_string());
        };
        if matches!(tta, Tta::Augmented(_)) && augment.is_none() {
            return Err(
                "random views are those that the model was trained on, and it was trained without augmentation: flip and \
                 five-crop need none"
                    .to_string(),
            );
        }
        Ok(Views { before: before.to_vec(), last: last.clone(), tta, augment })
    }

    /// How many squares an image becomes.
    pub fn per_image(&self) -> usize {
        self.tta.views()
    }

    /// What happens to an image for one of its views, for whoever weighs it.
    pub fn steps(&self) -> Vec<Step> {
        let before = self.before.iter().cloned().map(Step::Resize);
        match self.tta {
            Tta::Augmented(_) => before.chain(Step::squares(&self.last, self.augment.as_ref())).collect(),
            Tta::FiveCrop => before.chain([Step::Resize(self.whole())]).collect(),
            Tta::Off | Tta::Flip => before.chain([Step::Resize(self.last.clone())]).collect(),
        }
    }

    /// The side of the squares, in pixels.
    fn side(&self) -> u32 {
        match self.last.size {
            Size::Side(side) => side,
            Size::Original => unreachable!("it was checked that it makes squares"),
        }
    }

    /// The side that crops are cut from: what the resize cuts its centre from where that has a margin, else the side of the
    /// squares and a seventh, as 256 for 224.
    fn margin(&self) -> u32 {
        let side = self.side();
        let own = self.last.shorter_side.filter(|shorter| self.last.fit == Fit::Crop && *shorter > side);
        own.unwrap_or_else(|| (f64::from(side) * 8.0 / 7.0).round() as u32)
    }

    /// What makes the image that crops are cut from.
    fn whole(&self) -> Resize {
        let fit = if self.last.fit == Fit::Crop { Fit::Shortest } else { self.last.fit };
        Resize {
            size: Size::Side(self.margin()),
            fit,
            enlarge: true,
            shorter_side: None,
            ..self.last.clone()
        }
    }

    fn five_crops(&self, input: Pixels, draws: &Draws) -> Result<Vec<Pixels>, Fault> {
        let whole = self.whole().apply(input, draws)?;
        let side = self.side();
        let (right, bottom) = (whole.width - side, whole.height - side);
        let centre = |length: u32| centre_offset(length, side) as u32;
        let places =
            [(0, 0), (right, 0), (0, bottom), (right, bottom), (centre(whole.width), centre(whole.height))];
        Ok(places.into_iter().map(|(left, top)| cut(whole.clone(), left, top, side, side)).collect())
    }

    /// The image as one of its random views.
    fn random(&self, input: &Pixels, draws: &Draws) -> Result<Pixels, Fault> {
        let steps = Step::squares(&self.last, self.augment.as_ref());
        steps.iter().try_fold(input.clone(), |pixels, step| step.apply_to(pixels, None, draws))
    }
}

impl Stage for Views {
    const NAME: &'static str = "views";
    type In = Pixels;
    type Out = Vec<Pixels>;

    fn apply(&self, input: Pixels, draws: &Draws) -> Result<Vec<Pixels>, Fault> {
        let input = self.before.iter().try_fold(input, |pixels, resize| resize.apply(pixels, draws))?;
        match self.tta {
            Tta::Off => Ok(vec![self.last.apply(input, draws)?]),
            Tta::Flip => {
                let image = self.last.apply(input, draws)?;
                let mirrored = HorizontalFlip { probability: 1.0 }.apply(image.clone(), draws)?;
                Ok(vec![image, mirrored])
            }
            Tta::FiveCrop => self.five_crops(input, draws),
            Tta::Augmented(n) => {
                (1..=n).map(|view| self.random(&input, &draws.within(&format!("view {view}")))).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_datasets::seed::Seed;

    use super::*;
    use crate::resize::Filter;

    fn picture(width: u32, height: u32) -> Pixels {
        let mut stream = Seed(1).stream("picture");
        let data = (0..width * height * 3).map(|_| stream.below(256) as u8).collect();
        Pixels::new(width, height, data)
    }

    fn resize(side: u32, fit: Fit, shorter_side: Option<u32>) -> Resize {
        Resize { size: Size::Side(side), fit, filter: Filter::Bilinear, shorter_side, ..Resize::default() }
    }

    fn views(resize: &Resize, tta: Tta, augment: Option<Augment>) -> Vec<Pixels> {
        let views = Views::new(std::slice::from_ref(resize), tta, augment).expect("sound");
        let made = views.apply(picture(50, 37), &Seed(0).draws("a", 0, 0)).expect("squares");
        assert_eq!(made.len(), views.per_image());
        made
    }

    #[test]
    fn without_augmentation_there_is_the_image_alone_and_with_flip_its_mirror_image_too() {
        let resize = resize(16, Fit::Crop, None);
        let expected = resize.apply(picture(50, 37), &Seed(0).draws("a", 0, 0)).expect("a square");
        assert_eq!(views(&resize, Tta::Off, None), std::slice::from_ref(&expected));
        let [image, mirrored] = &views(&resize, Tta::Flip, None)[..] else { panic!("two views") };
        assert_eq!(*image, expected);
        for (row, back) in image.data.chunks(48).zip(mirrored.data.chunks(48)) {
            let reversed: Vec<u8> = row.chunks(3).rev().flatten().copied().collect();
            assert_eq!(reversed, back);
        }
    }

    #[test]
    fn five_crops_are_the_corners_and_the_centre_that_the_chain_itself_would_cut() {
        // The chain's own margin: 20 of which 16 are cut.
        let own = resize(16, Fit::Crop, Some(20));
        let crops = views(&own, Tta::FiveCrop, None);
        let centre = own.apply(picture(50, 37), &Seed(0).draws("a", 0, 0)).expect("a square");
        let difference = crops[4].data.iter().zip(&centre.data).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(difference <= Some(1), "{difference:?}");
        // A seventh where it has none: 14 of 16 pixels of the whole image, which overlap.
        for fit in [Fit::Squash, Fit::Pad] {
            let crops = views(&resize(14, fit, None), Tta::FiveCrop, None);
            assert!(crops.iter().all(|crop| (crop.width, crop.height) == (14, 14)));
            let row =
                |crop: &Pixels, row: usize, from: usize| crop.data[(row * 14 + from) * 3..][..36].to_vec();
            assert_eq!(row(&crops[0], 3, 2), row(&crops[1], 3, 0), "two columns further right");
            assert_eq!(row(&crops[0], 3, 0), row(&crops[2], 1, 0), "two rows further down");
            assert_eq!(row(&crops[4], 3, 1), row(&crops[3], 2, 0), "one of each");
        }
    }

    #[test]
    fn random_views_differ_and_are_the_same_each_time() {
        let augment: Augment = "standard".parse().expect("a preset");
        let resize = resize(16, Fit::Crop, None);
        let made = views(&resize, Tta::Augmented(4), Some(augment.clone()));
        assert_eq!(made, views(&resize, Tta::Augmented(4), Some(augment.clone())));
        assert_eq!(made[..2], views(&resize, Tta::Augmented(2), Some(augment)));
        for (index, view) in made.iter().enumerate() {
            assert!(!made[..index].contains(view), "view {index} came twice");
        }
        let refused = Views::new(&[resize], Tta::Augmented(4), None).expect_err("no augmentation");
        assert!(refused.contains("trained without augmentation"), "{refused}");
        assert!(Views::new(&[], Tta::Off, None).is_err());
    }

    #[test]
    fn a_word_is_read_as_it_is_written() {
        for text in ["off", "flip", "five-crop", "1", "12"] {
            assert_eq!(text.parse::<Tta>().expect(text).to_string(), text);
        }
        for text in ["", "0", "ten-crop", "-1", "1001"] {
            assert!(text.parse::<Tta>().expect_err(text).contains("five-crop"));
        }
    }
}
