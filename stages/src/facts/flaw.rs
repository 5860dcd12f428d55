//! What of a picture stands out, by thresholds.

use forebay_datasets::words;
use serde::Serialize;

use super::PixelFacts;

/// Something about a picture that makes it a poor example, or that tells of a fault in how it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flaw {
    /// Its 99th percentile of brightness is below 0.32, as in CleanVision.
    Dark,
    /// Its 5th percentile of brightness is above 0.95, as in CleanVision.
    Bright,
    /// Its grey levels have less than 3 bits of entropy, as in CleanVision: hardly anything is to be seen.
    LowInformation,
    /// The variance of its Laplacian is below 100 (Pech-Pacheco et al. 2000; 100 is the customary threshold), at a longer
    /// side of at most 128 cells: details smaller than about a hundredth of it are gone. Only of pictures that are none
    /// of the above.
    Blurry,
    /// One side is shorter than 0.35 of the other, as in CleanVision.
    OddAspect,
}
words!(Flaw {
    Dark => "dark",
    Bright => "bright",
    LowInformation => "low-information",
    Blurry => "blurry",
    OddAspect => "odd-aspect",
});

const DARK_BELOW: f32 = 0.32;
const BRIGHT_ABOVE: f32 = 0.95;
const ENTROPY_BITS_MIN: f32 = 3.0;
const SHARPNESS_MIN: f32 = 100.0;
const ASPECT_MIN: f64 = 0.35;

impl Flaw {
    /// Those of a picture of this size.
    pub fn of(facts: &PixelFacts, width: u32, height: u32) -> Vec<Flaw> {
        let mut flaws = Vec::new();
        if facts.brightness_p99 < DARK_BELOW {
            flaws.push(Flaw::Dark);
        } else if facts.brightness_p5 > BRIGHT_ABOVE {
            flaws.push(Flaw::Bright);
        }
        // A picture of a few cells cannot have more bits than their number holds.
        let most = (facts.cells as f32).log2();
        if facts.entropy < ENTROPY_BITS_MIN.min(most / 2.0) {
            flaws.push(Flaw::LowInformation);
        }
        if flaws.is_empty() && facts.sharpness.is_some_and(|sharpness| sharpness < SHARPNESS_MIN) {
            flaws.push(Flaw::Blurry);
        }
        let (shorter, longer) = (width.min(height), width.max(height));
        if f64::from(shorter) < ASPECT_MIN * f64::from(longer) {
            flaws.push(Flaw::OddAspect);
        }
        flaws
    }
}

/// The share of a picture's area that `--fit crop` cuts away: what lies beside the square in its middle.
pub fn crop_loss(width: u32, height: u32) -> f64 {
    1.0 - f64::from(width.min(height)) / f64::from(width.max(height)).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_datasets::sample::Pixels;
    use forebay_datasets::seed::Seed;

    fn flaws(width: u32, height: u32, level: impl Fn(u32, u32, u8) -> u8) -> Vec<Flaw> {
        let mut noise = Seed(5).stream("noise");
        let mut data = Vec::new();
        for y in 0..height {
            for x in 0..width {
                let value = level(x, y, noise.bits() as u8);
                data.extend([value, value / 2, value]);
            }
        }
        Flaw::of(&PixelFacts::of(&Pixels::new(width, height, data)), width, height)
    }

    #[test]
    fn each_flaw_is_found_alone_and_an_ordinary_picture_has_none() {
        assert_eq!(flaws(64, 48, |_, _, noise| noise), []);
        assert_eq!(flaws(400, 300, |x, y, noise| (x / 8 * 37 + y / 8 * 91) as u8 ^ (noise & 15)), []);
        assert_eq!(flaws(64, 48, |_, _, noise| noise / 4), [Flaw::Dark]);
        assert_eq!(flaws(64, 48, |_, _, _| 128), [Flaw::LowInformation]);
        assert_eq!(flaws(300, 200, |x, y, _| (x * 120 / 300 + y * 130 / 200) as u8), [Flaw::Blurry]);
        assert_eq!(flaws(64, 16, |_, _, noise| noise), [Flaw::OddAspect]);
        let white = PixelFacts::of(&Pixels::new(64, 48, vec![255; 64 * 48 * 3]));
        assert_eq!(Flaw::of(&white, 64, 48), [Flaw::Bright, Flaw::LowInformation]);
    }

    #[test]
    fn a_crop_loses_what_lies_beside_the_middle_square() {
        assert_eq!([crop_loss(3, 3), crop_loss(4, 3), crop_loss(1, 4)], [0.0, 0.25, 0.75]);
    }
}
