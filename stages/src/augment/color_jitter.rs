//! Changes brightness, contrast, saturation and hue by random amounts.

use forebay_datasets::sample::Pixels;
use serde::{Deserialize, Serialize};

use crate::stage::{Draws, Fault, Stage};

/// The four changes of torchvision's `ColorJitter`, in a random order. Values are clipped to 0 to 255 after
/// each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ColorJitter {
    /// The factor is uniform in `[max(0, 1 - brightness), 1 + brightness]`; 0 is off.
    pub brightness: f64,
    /// As brightness, for the distance from the image's mean gray.
    pub contrast: f64,
    /// As brightness, for the distance from the pixel's own gray.
    pub saturation: f64,
    /// The hue turns by a share of the colour circle uniform in `[-hue, hue]`, 0 to 0.5; 0 is off.
    pub hue: f64,
}

impl Default for ColorJitter {
    /// ± 40 % of brightness, contrast and saturation; the hue stays.
    fn default() -> ColorJitter {
        ColorJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.0 }
    }
}

impl ColorJitter {
    pub(super) fn check(&self) -> Result<(), String> {
        for (name, value) in
            [("brightness", self.brightness), ("contrast", self.contrast), ("saturation", self.saturation)]
        {
            if !(0.0..=10.0).contains(&value) {
                return Err(format!("{name} is {value}, and must be 0 to 10"));
            }
        }
        if !(0.0..=0.5).contains(&self.hue) {
            return Err(format!("hue is {}, and must be 0 to 0.5", self.hue));
        }
        Ok(())
    }
}

impl Stage for ColorJitter {
    const NAME: &'static str = "color_jitter";
    type In = Pixels;
    type Out = Pixels;

    fn apply(&self, mut input: Pixels, draws: &Draws) -> Result<Pixels, Fault> {
        let mut stream = draws.of(Self::NAME);
        // All five are drawn whatever is on, so that switching hue off leaves the brightness as it was.
        let mut order = [0, 1, 2, 3];
        stream.shuffle(&mut order);
        let mut factor = |strength: f64| stream.range((1.0 - strength).max(0.0), 1.0 + strength) as f32;
        let brightness = factor(self.brightness);
        let contrast = factor(self.contrast);
        let saturation = factor(self.saturation);
        let turn = stream.range(-self.hue, self.hue) as f32;
        for change in order {
            match change {
                0 if self.brightness > 0.0 => brighten(&mut input.data, brightness),
                1 if self.contrast > 0.0 => stretch(&mut input.data, contrast),
                2 if self.saturation > 0.0 => saturate(&mut input.data, saturation),
                3 if self.hue > 0.0 => turn_hue(&mut input.data, turn),
                _ => {}
            }
        }
        Ok(input)
    }
}

/// Luma by ITU-R BT.601, in the 16-bit fixed point of Pillow's `convert("L")`.
fn gray(pixel: &[u8; 3]) -> u8 {
    let [red, green, blue] = pixel.map(u32::from);
    ((19_595 * red + 38_470 * green + 7_471 * blue + 0x8000) >> 16) as u8
}

/// `value * factor + other * (1 - factor)`, rounded and clipped.
fn blend(value: u8, other: f32, factor: f32) -> u8 {
    // A cast from float to integer clips.
    (f32::from(value) * factor + other * (1.0 - factor)).round() as u8
}

/// A map of grey levels, as one table for the whole image.
fn map_levels(data: &mut [u8], level: impl Fn(u8) -> u8) {
    let table: [u8; 256] = std::array::from_fn(|value| level(value as u8));
    data.iter_mut().for_each(|value| *value = table[usize::from(*value)]);
}

fn brighten(data: &mut [u8], factor: f32) {
    map_levels(data, |value| blend(value, 0.0, factor));
}

/// Contrast: towards or away from the mean gray of the image, rounded to a grey level as in Pillow.
fn stretch(data: &mut [u8], factor: f32) {
    let pixels = data.as_chunks::<3>().0;
    let sum: u64 = pixels.iter().map(|pixel| u64::from(gray(pixel))).sum();
    let mean = (sum as f64 / pixels.len() as f64 + 0.5).floor() as f32;
    map_levels(data, |value| blend(value, mean, factor));
}

fn saturate(data: &mut [u8], factor: f32) {
    for pixel in data.as_chunks_mut::<3>().0 {
        let gray = f32::from(gray(pixel));
        *pixel = pixel.map(|value| blend(value, gray, factor));
    }
}

/// Turns the hue by a share of the colour circle; value and saturation (HSV) stay.
fn turn_hue(data: &mut [u8], turn: f32) {
    for pixel in data.as_chunks_mut::<3>().0 {
        let [red, green, blue] = pixel.map(f32::from);
        let most = red.max(green).max(blue);
        let chroma = most - red.min(green).min(blue);
        if chroma == 0.0 {
            continue;
        }
        // In sixths of the circle, from red over green to blue.
        let hue = if most == red {
            (green - blue) / chroma
        } else if most == green {
            (blue - red) / chroma + 2.0
        } else {
            (red - green) / chroma + 4.0
        };
        let hue = hue + turn * 6.0;
        // The closed form of HSV to RGB: https://en.wikipedia.org/wiki/HSL_and_HSV#HSV_to_RGB_alternative
        *pixel = [5.0, 3.0, 1.0].map(|offset: f32| {
            let place = (offset + hue).rem_euclid(6.0);
            (most - chroma * place.min(4.0 - place).clamp(0.0, 1.0)).round() as u8
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(pixels: &[[u8; 3]], change: impl Fn(&mut [u8])) -> Vec<[u8; 3]> {
        let mut data = pixels.concat();
        change(&mut data);
        data.as_chunks::<3>().0.to_vec()
    }

    #[test]
    fn a_brighter_image_is_multiplied_and_clipped() {
        let found = changed(&[[0, 100, 200]], |data| brighten(data, 1.5));
        assert_eq!(found, [[0, 150, 255]]);
    }

    #[test]
    fn no_contrast_is_the_mean_gray_and_no_saturation_the_own() {
        // Gray 76 and 29, as Pillow's convert("L") gives; their mean 52.5 rounds up.
        let pixels = [[255, 0, 0], [0, 0, 255]];
        assert_eq!(changed(&pixels, |data| stretch(data, 0.0)), [[53; 3], [53; 3]]);
        assert_eq!(changed(&pixels, |data| saturate(data, 0.0)), [[76; 3], [29; 3]]);
    }

    #[test]
    fn a_third_of_the_circle_turns_red_to_green_and_gray_stays() {
        let pixels = [[255, 0, 0], [0, 255, 0], [10, 10, 10], [200, 100, 50]];
        let found = changed(&pixels, |data| turn_hue(data, 1.0 / 3.0));
        assert_eq!(found, [[0, 255, 0], [0, 0, 255], [10, 10, 10], [50, 200, 100]]);
        let back = changed(&found, |data| turn_hue(data, -1.0 / 3.0));
        assert_eq!(back, pixels);
    }

    #[test]
    fn neutral_factors_change_nothing() {
        let pixels: Vec<[u8; 3]> = (0..=255).map(|level| [level, 255 - level, level / 2]).collect();
        assert_eq!(changed(&pixels, |data| brighten(data, 1.0)), pixels);
        assert_eq!(changed(&pixels, |data| stretch(data, 1.0)), pixels);
        assert_eq!(changed(&pixels, |data| saturate(data, 1.0)), pixels);
        assert_eq!(changed(&pixels, |data| turn_hue(data, 0.0)), pixels);
    }
}
