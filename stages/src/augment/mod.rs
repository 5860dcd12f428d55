//! Random changes to a training image that leave its class as it is.
//!
//! Each augmentation is a stage of its own with draws of its own, so that adding, removing or changing one
//! changes the draws of no other. [`Augment`] composes those that are on, always in this order: geometry that
//! chooses what is seen (crop, flips, zoom, rotation, translation), then colour, then noise, then erasing, so
//! that erased pixels stay flat. What moves pixels and follows each other is one pass, where that
//! gives, to a rounding, the same levels as one pass each.

mod affine;
mod color_jitter;
mod flip;
mod gaussian_noise;
mod minority;
mod random_crop;
mod random_erasing;
mod random_resized_crop;
mod rotation;
mod scale;
mod translation;

use std::str::FromStr;

use forebay_datasets::sample::Pixels;
use serde::{Deserialize, Serialize};

use self::affine::{Geometry, Moves};
pub use self::color_jitter::ColorJitter;
pub use self::flip::{HorizontalFlip, VerticalFlip};
pub use self::gaussian_noise::GaussianNoise;
pub use self::minority::Minority;
pub use self::random_crop::RandomCrop;
pub use self::random_erasing::RandomErasing;
pub use self::random_resized_crop::RandomResizedCrop;
pub use self::rotation::Rotation;
pub use self::scale::Scale;
pub use self::translation::Translation;

use crate::crop::in_one_piece;
use crate::resample::View;
use crate::resize::{Resize, Size};
use crate::stage::{Draws, Fault, Stage, Work};

/// The augmentations of a run, in the order in which they are applied; `None` is off, and all are off by
/// default.
///
/// In and out: `[height, width, 3]`, u8, 0 to 255. The size changes only by a crop, which
/// makes a square.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// A square at a random place, after padding: the usual recipe for small images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_crop: Option<RandomCrop>,
    /// A window of random area and aspect, resized.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_resized_crop: Option<RandomResizedCrop>,
    /// Left and right change places.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub horizontal_flip: Option<HorizontalFlip>,
    /// Top and bottom change places.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vertical_flip: Option<VerticalFlip>,
    /// Zoom about the centre.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// Rotation about the centre.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
    /// A shift by whole pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub translation: Option<Translation>,
    /// Brightness, contrast, saturation and hue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub color_jitter: Option<ColorJitter>,
    /// Independent noise on every channel of every pixel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gaussian_noise: Option<GaussianNoise>,
    /// A rectangle of one colour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_erasing: Option<RandomErasing>,
    /// What happens to images of rare classes, in place of the above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minority: Option<Box<Minority>>,
}

impl Augment {
    /// True where every augmentation is off.
    pub fn is_off(&self) -> bool {
        *self == Augment::default()
    }

    /// The same without those whose settings leave every image as it is: they are off.
    pub fn without_idle(self) -> Augment {
        let jitters = |jitter: &ColorJitter| {
            let ColorJitter { brightness, contrast, saturation, hue } = jitter;
            [brightness, contrast, saturation, hue].into_iter().any(|strength| *strength > 0.0)
        };
        Augment {
            horizontal_flip: self.horizontal_flip.filter(|flip| flip.probability > 0.0),
            vertical_flip: self.vertical_flip.filter(|flip| flip.probability > 0.0),
            scale: self.scale.filter(|scale| scale.factor != [1.0; 2]),
            rotation: self.rotation.filter(|rotation| rotation.degrees > 0.0),
            translation: self.translation.filter(|translation| translation.fraction != [0.0; 2]),
            color_jitter: self.color_jitter.filter(jitters),
            gaussian_noise: self.gaussian_noise.filter(|noise| noise.probability > 0.0 && noise.sigma > 0.0),
            random_erasing: self.random_erasing.filter(|erasing| erasing.probability > 0.0),
            // Also where it is off: then images of rare classes are left as they are.
            minority: self.minority,
            // Crops make squares, whatever they choose.
            random_crop: self.random_crop,
            random_resized_crop: self.random_resized_crop,
        }
    }

    /// What happens to images of classes that are not rare.
    pub fn common(&self) -> Augment {
        Augment { minority: None, ..self.clone() }
    }

    /// The side of the squares that come out where a crop names one, in pixels; else sizes stay what they were.
    pub fn side(&self) -> Option<u32> {
        let resized = self.random_resized_crop.as_ref().and_then(|crop| crop.side);
        resized.or(self.random_crop.as_ref().map(|crop| crop.side))
    }

    /// Every parameter that is out of its range, as one line each that begins with its key
    /// (`rotation.degrees is 200, …`); empty where all is well. A plan shows them before anything runs.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |name: &str, found: Result<(), String>| {
            if let Err(problem) = found {
                problems.push(format!("{name}.{problem}"));
            }
        };
        fn each<T>(stage: &Option<T>, check: impl Fn(&T) -> Result<(), String>) -> Result<(), String> {
            stage.as_ref().map_or(Ok(()), check)
        }
        check(RandomCrop::NAME, each(&self.random_crop, RandomCrop::check));
        check(RandomResizedCrop::NAME, each(&self.random_resized_crop, RandomResizedCrop::check));
        check(HorizontalFlip::NAME, each(&self.horizontal_flip, HorizontalFlip::check));
        check(VerticalFlip::NAME, each(&self.vertical_flip, VerticalFlip::check));
        check(Scale::NAME, each(&self.scale, Scale::check));
        check(Rotation::NAME, each(&self.rotation, Rotation::check));
        check(Translation::NAME, each(&self.translation, Translation::check));
        check(ColorJitter::NAME, each(&self.color_jitter, ColorJitter::check));
        check(GaussianNoise::NAME, each(&self.gaussian_noise, GaussianNoise::check));
        check(RandomErasing::NAME, each(&self.random_erasing, RandomErasing::check));
        if let Some(minority) = &self.minority {
            problems.extend(minority.problems());
            if minority.changes == self.common().without_idle() {
                problems.push(
                    "minority changes rare classes as all others; give it a preset or changes, or leave it out".to_string(),
                );
            }
        }
        problems
    }

    /// These augmentations for images as they were decoded, where a random part of the whole image is among them:
    /// torchvision's order, in which no resize cuts anything off before. The part then becomes what `resize` would
    /// make of the image. `None` where images are resized first.
    pub fn of_whole_images(&self, resize: &Resize) -> Option<Augment> {
        if let (Some(crop), None) = (&self.random_crop, &self.random_resized_crop) {
            let random_crop = Some(crop.instead_of_centre(resize)?);
            return Some(Augment { random_crop, ..self.clone() });
        }
        let crop = self.random_resized_crop.as_ref()?;
        let side = match resize.size {
            _ if self.random_crop.is_some() => return None,
            Size::Original => None,
            Size::Side(side) if resize.enlarge => Some(side),
            // Whether an image is enlarged is for the resize to decide.
            Size::Side(_) => return None,
        };
        let crop = RandomResizedCrop { side: crop.side.or(side), ..crop.clone() };
        Some(Augment { random_resized_crop: Some(crop), ..self.clone() })
    }

    /// What the first change shows of an image of `width` x `height` pixels; `None` where it sees all of it.
    pub(crate) fn view(&self, width: u32, height: u32, draws: &Draws) -> Option<View> {
        if let Some(crop) = &self.random_crop {
            return crop.view(width, height, draws);
        }
        let crop = self.random_resized_crop.as_ref()?;
        (crop.side_of(width, height) > 0).then(|| crop.view(width, height, draws))
    }

    /// What the changes take together, those that happen to few images too.
    pub fn work(&self, mut width: u32, mut height: u32) -> Work {
        let rgb = |width: u32, height: u32| u64::from(width) * u64::from(height) * 3;
        let mut most = rgb(width, height);
        if let Some(crop) = &self.random_crop {
            most = most.max(crop.work_bytes(width, height));
            (width, height) = (crop.side, crop.side);
        }
        if let Some(crop) = &self.random_resized_crop {
            most = most.max(crop.work_bytes(width, height));
            let side = crop.side_of(width, height);
            (width, height) = (side, side);
        }
        let out_bytes = rgb(width, height);
        // Every change holds at most one image more than the one that it gives.
        Work { width, height, out_bytes, work_bytes: most.max(out_bytes) }
    }

    /// The presets, weakest first.
    pub const PRESETS: [&'static str; 4] = ["none", "light", "standard", "strong"];
}

impl FromStr for Augment {
    type Err = String;

    /// A preset by name:
    ///
    /// | preset | what is on |
    /// |---|---|
    /// | `none` | nothing |
    /// | `light` | half of the images flipped left to right; a window of 50 to 100 % of the area, aspect 3/4 to 4/3 |
    /// | `standard` | the flip; a window of 35 to 100 %, aspect 3/4 to 4/3; brightness, contrast and saturation ± 20 % |
    /// | `strong` | the flip; a window of 8 to 100 %, as ImageNet is trained; jitter ± 40 % and hue ± 0.1 turns; rotation ± 15°; noise of deviation 0.02 on half of the images; erasing on a quarter of them |
    ///
    /// # Errors
    /// Another name, with the list of those that exist.
    fn from_str(name: &str) -> Result<Augment, String> {
        let flip = Some(HorizontalFlip { probability: 0.5 });
        let crop = |scale, ratio| Some(RandomResizedCrop { side: None, scale, ratio });
        match name {
            "none" => Ok(Augment::default()),
            "light" => Ok(Augment {
                // Of an image of 3:2 or 16:9 no window of more than nine or seven tenths has such an aspect.
                random_resized_crop: crop([0.5, 1.0], [3.0 / 4.0, 4.0 / 3.0]),
                horizontal_flip: flip,
                ..Augment::default()
            }),
            "standard" => Ok(Augment {
                random_resized_crop: crop([0.35, 1.0], [3.0 / 4.0, 4.0 / 3.0]),
                horizontal_flip: flip,
                color_jitter: Some(ColorJitter { brightness: 0.2, contrast: 0.2, saturation: 0.2, hue: 0.0 }),
                ..Augment::default()
            }),
            "strong" => Ok(Augment {
                random_resized_crop: crop([0.08, 1.0], [3.0 / 4.0, 4.0 / 3.0]),
                horizontal_flip: flip,
                rotation: Some(Rotation { degrees: 15.0, ..Rotation::default() }),
                color_jitter: Some(ColorJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1 }),
                gaussian_noise: Some(GaussianNoise { sigma: 0.02, probability: 0.5 }),
                random_erasing: Some(RandomErasing { probability: 0.25, ..RandomErasing::default() }),
                ..Augment::default()
            }),
            _ => Err(format!("augment is {name:?}, and must be one of {}", Augment::PRESETS.join(", "))),
        }
    }
}

impl Stage for Augment {
    const NAME: &'static str = "augment";
    type In = Pixels;
    type Out = Pixels;

    fn apply(&self, input: Pixels, draws: &Draws) -> Result<Pixels, Fault> {
        fn run<S: Stage<In = Pixels, Out = Pixels>>(
            stage: &Option<S>,
            input: Pixels,
            draws: &Draws,
        ) -> Result<Pixels, Fault> {
            match stage {
                Some(stage) => stage.apply(input, draws),
                None => Ok(input),
            }
        }
        /// The same of a stage that changes levels, and so takes them in memory of their own.
        fn recolored<S: Stage<In = Pixels, Out = Pixels>>(
            stage: &Option<S>,
            input: Pixels,
            draws: &Draws,
        ) -> Result<Pixels, Fault> {
            if stage.is_some() { run(stage, in_one_piece(input), draws) } else { Ok(input) }
        }
        let pixels = run(&self.random_crop, input, draws)?;
        let pixels = run(&self.random_resized_crop, pixels, draws)?;
        fn geometry<G: Geometry>(stage: &Option<G>) -> Option<&dyn Geometry> {
            stage.as_ref().map(|stage| stage as &dyn Geometry)
        }
        let moves = [
            geometry(&self.horizontal_flip),
            geometry(&self.vertical_flip),
            geometry(&self.scale),
            geometry(&self.rotation),
            geometry(&self.translation),
        ];
        let moved = moves.into_iter().flatten();
        let pixels = moved.fold(Moves::of(pixels), |moves, stage| stage.moved(moves, draws)).pixels();
        let pixels = recolored(&self.color_jitter, pixels, draws)?;
        let pixels = recolored(&self.gaussian_noise, pixels, draws)?;
        recolored(&self.random_erasing, pixels, draws)
    }
}

/// Whether `probability` is one.
fn check_probability(probability: f64) -> Result<(), String> {
    if (0.0..=1.0).contains(&probability) {
        return Ok(());
    }
    Err(format!("probability is {probability}, and must be 0 to 1"))
}

/// Whether `side` is one that an image may have.
fn check_side(side: u32) -> Result<(), String> {
    match side {
        0 => Err("side is 0, and must be at least 1 pixel".to_string()),
        1..=Resize::SIDE_PX_MAX => Ok(()),
        _ => Err(format!("side is {side}, and must be at most {} pixels", Resize::SIDE_PX_MAX)),
    }
}

/// Whether a range called `name` lies within `least` to `most` and its ends are in order.
fn check_range(name: &str, [low, high]: [f64; 2], least: f64, most: f64) -> Result<(), String> {
    if least <= low && low <= high && high <= most {
        return Ok(());
    }
    Err(format!("{name} is [{low}, {high}], and must be two numbers in order, {least} to {most}"))
}

#[cfg(test)]
mod tests;
