//! Mirrors an image, left to right or top to bottom.

use forebay_datasets::sample::Pixels;
use serde::{Deserialize, Serialize};

use super::check_probability;
use crate::planes::reverse_rows;
use crate::simd::isa::Isa;
use crate::stage::{Draws, Fault, Stage};

/// Left and right change places.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HorizontalFlip {
    /// How likely an image is flipped, 0 to 1.
    pub probability: f64,
}

impl Default for HorizontalFlip {
    fn default() -> HorizontalFlip {
        HorizontalFlip { probability: 0.5 }
    }
}

impl HorizontalFlip {
    pub(super) fn check(&self) -> Result<(), String> {
        check_probability(self.probability)
    }
}

impl Stage for HorizontalFlip {
    const NAME: &'static str = "horizontal_flip";
    type In = Pixels;
    type Out = Pixels;

    fn apply(&self, mut input: Pixels, draws: &Draws) -> Result<Pixels, Fault> {
        if draws.of(Self::NAME).chance(self.probability) {
            let mut reversed = vec![0; input.data.len()];
            reverse_rows(Isa::detect(), input.width as usize, &input.data, &mut reversed);
            input.data = reversed;
        }
        Ok(input)
    }
}

/// Top and bottom change places.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VerticalFlip {
    /// How likely an image is flipped, 0 to 1.
    pub probability: f64,
}

impl Default for VerticalFlip {
    fn default() -> VerticalFlip {
        VerticalFlip { probability: 0.5 }
    }
}

impl VerticalFlip {
    pub(super) fn check(&self) -> Result<(), String> {
        check_probability(self.probability)
    }
}

impl Stage for VerticalFlip {
    const NAME: &'static str = "vertical_flip";
    type In = Pixels;
    type Out = Pixels;

    fn apply(&self, mut input: Pixels, draws: &Draws) -> Result<Pixels, Fault> {
        if draws.of(Self::NAME).chance(self.probability) {
            let stride = input.width as usize * 3;
            let half = input.height as usize / 2 * stride;
            let (above, below) = input.data.split_at_mut(half);
            for (upper, lower) in above.chunks_exact_mut(stride).zip(below.rchunks_exact_mut(stride)) {
                upper.swap_with_slice(lower);
            }
        }
        Ok(input)
    }
}
