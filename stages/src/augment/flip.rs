//! Mirrors an image, left to right or top to bottom.

use forebay_datasets::sample::Pixels;
use serde::{Deserialize, Serialize};

use super::affine::{Geometry, Moves};
use super::check_probability;
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

    fn apply(&self, input: Pixels, draws: &Draws) -> Result<Pixels, Fault> {
        Ok(self.moved(Moves::of(input), draws).pixels())
    }
}

impl Geometry for HorizontalFlip {
    fn moved(&self, moves: Moves, draws: &Draws) -> Moves {
        if draws.of(Self::NAME).chance(self.probability) { moves.mirror(0) } else { moves }
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

    fn apply(&self, input: Pixels, draws: &Draws) -> Result<Pixels, Fault> {
        Ok(self.moved(Moves::of(input), draws).pixels())
    }
}

impl Geometry for VerticalFlip {
    fn moved(&self, moves: Moves, draws: &Draws) -> Moves {
        if draws.of(Self::NAME).chance(self.probability) { moves.mirror(1) } else { moves }
    }
}
