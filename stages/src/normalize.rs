//! The step from grey levels to what a model expects: subtract a mean, divide by a deviation, per channel.
//!
//! It is a value and no stage: pixels stay u8 until the batch, and whoever holds the batch (the host or the
//! device) applies it once, as one multiplication and one addition.

use serde::{Deserialize, Serialize};

/// Per-channel mean and standard deviation of pixel values scaled to 0 to 1, in the order red, green, blue.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalize {
    /// What is subtracted, within 0 and 1.
    pub mean: [f32; 3],
    /// What is divided by: see [`Normalize::problems`].
    pub std: [f32; 3],
}

impl Normalize {
    /// The constants of nearly every model that was trained on ImageNet (torchvision, timm).
    pub const IMAGENET: Normalize = Normalize { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

    /// Maps 0 to 255 to 0 to 1 and no further.
    pub const UNIT: Normalize = Normalize { mean: [0.0; 3], std: [1.0; 3] };

    /// What is out of its range, a line each: a mean is within 0 and 1, a deviation within 0.01 and 1. Pixel values
    /// are within 0 and 1, so that no images have others, and smaller deviations blow noise up until it is infinite.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |name: &str, values: [f32; 3], low: f32| {
            if !values.iter().all(|value| (low..=1.0).contains(value)) {
                problems.push(format!("{name} is {values:?}, and each value must be within {low} and 1"));
            }
        };
        check("mean", self.mean, 0.0);
        check("std", self.std, 0.01);
        problems
    }

    /// The mean as a colour: what bars are filled with so that they are 0 in the tensor, rounded as timm does.
    pub fn mean_color(&self) -> [u8; 3] {
        self.mean.map(|mean| (255.0 * f64::from(mean)).round_ties_even() as u8)
    }

    /// The same map on grey levels as `scale * x + shift`, per channel, x from 0 to 255:
    /// `scale = 1 / (255 * std)`, `shift = -mean / std`.
    pub fn scale_shift(&self) -> ([f32; 3], [f32; 3]) {
        let scale = self.std.map(|std| 1.0 / (255.0 * std));
        let shift = std::array::from_fn(|channel| -self.mean[channel] / self.std[channel]);
        (scale, shift)
    }
}

impl Default for Normalize {
    fn default() -> Normalize {
        Normalize::IMAGENET
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_becomes_zero_and_a_deviation_one() {
        let (scale, shift) = Normalize::IMAGENET.scale_shift();
        for channel in 0..3 {
            let Normalize { mean, std } = Normalize::IMAGENET;
            let at = |x: f32| 255.0 * x * scale[channel] + shift[channel];
            assert!(at(mean[channel]).abs() < 1e-6);
            assert!((at(mean[channel] + std[channel]) - 1.0).abs() < 1e-6);
        }
    }
}
