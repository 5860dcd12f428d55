//! Covers a random rectangle, so that a model looks at more than one part of a thing.

use forebay_datasets::sample::Pixels;
use serde::{Deserialize, Serialize};

use super::{check_probability, check_range};
use crate::stage::{Draws, Fault, Stage};

/// A rectangle of random area, aspect and place gets one colour (arXiv 1708.04896, as in torchvision).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomErasing {
    /// How likely an image loses a rectangle, 0 to 1.
    pub probability: f64,
    /// The rectangle's share of the area is uniform between these two, 0 to 1.
    pub scale: [f64; 2],
    /// Its height over its width: the logarithm is uniform between those of these two.
    pub ratio: [f64; 2],
    /// Its colour. The default is ImageNet's mean, which normalisation turns to 0.
    pub fill: [u8; 3],
}

impl Default for RandomErasing {
    /// Half of the images lose 2 to 33 % of their area.
    fn default() -> RandomErasing {
        RandomErasing { probability: 0.5, scale: [0.02, 0.33], ratio: [0.3, 3.3], fill: [124, 116, 104] }
    }
}

impl RandomErasing {
    pub(super) fn check(&self) -> Result<(), String> {
        check_probability(self.probability)?;
        check_range("scale", self.scale, 0.0, 1.0)?;
        check_range("ratio", self.ratio, 0.01, 100.0)
    }
}

impl Stage for RandomErasing {
    const NAME: &'static str = "random_erasing";
    type In = Pixels;
    type Out = Pixels;

    fn apply(&self, mut input: Pixels, draws: &Draws) -> Result<Pixels, Fault> {
        let mut stream = draws.of(Self::NAME);
        if !stream.chance(self.probability) {
            return Ok(input);
        }
        let area = f64::from(input.width) * f64::from(input.height);
        // Ten tries, as in torchvision; an image that is too long for any of them stays whole.
        for _ in 0..10 {
            let target = area * stream.range(self.scale[0], self.scale[1]);
            let aspect = stream.range(self.ratio[0].ln(), self.ratio[1].ln()).exp();
            let height = (target * aspect).sqrt().round() as u32;
            let width = (target / aspect).sqrt().round() as u32;
            if width < input.width && height < input.height {
                let top = stream.below(u64::from(input.height - height) + 1) as usize;
                let left = stream.below(u64::from(input.width - width) + 1) as usize;
                let stride = input.width as usize * 3;
                for row in input.data.chunks_exact_mut(stride).skip(top).take(height as usize) {
                    row[left * 3..][..width as usize * 3].as_chunks_mut::<3>().0.fill(self.fill);
                }
                return Ok(input);
            }
        }
        Ok(input)
    }
}
