//! Adds independent noise to every channel of every pixel, as a dim sensor does.

use forebay_datasets::sample::Pixels;
use serde::{Deserialize, Serialize};

use super::check_probability;
use crate::stage::{Draws, Fault, Stage};

/// Normal noise of mean 0, rounded to grey levels and clipped to 0 to 255.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GaussianNoise {
    /// The standard deviation as a share of the range from black to white, 0 to 1: 0.02 is 5.1 grey levels.
    pub sigma: f64,
    /// How likely an image gets noise, 0 to 1.
    pub probability: f64,
}

impl Default for GaussianNoise {
    /// A deviation of 0.02 on every image.
    fn default() -> GaussianNoise {
        GaussianNoise { sigma: 0.02, probability: 1.0 }
    }
}

impl GaussianNoise {
    pub(super) fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.sigma) {
            return Err(format!("sigma is {}, and must be 0 to 1", self.sigma));
        }
        check_probability(self.probability)
    }
}

impl Stage for GaussianNoise {
    const NAME: &'static str = "gaussian_noise";
    type In = Pixels;
    type Out = Pixels;

    fn apply(&self, mut input: Pixels, draws: &Draws) -> Result<Pixels, Fault> {
        let mut stream = draws.of(Self::NAME);
        if self.sigma == 0.0 || !stream.chance(self.probability) {
            return Ok(input);
        }
        let deviation = self.sigma * 255.0;
        for value in input.data.iter_mut() {
            // A cast from float to integer clips.
            *value = (f64::from(*value) + deviation * stream.normal()).round() as u8;
        }
        Ok(input)
    }
}
