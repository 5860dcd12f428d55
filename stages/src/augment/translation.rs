//! Shifts an image by a random number of whole pixels.

use forebay_datasets::sample::Pixels;
use serde::{Deserialize, Serialize};

use super::affine::{Geometry, Moves};
use crate::stage::{Draws, Fault, Stage};

/// A shift by whole pixels, so that no pixel is blurred. The size stays; what moves in is `fill`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Translation {
    /// The farthest shift, as shares of width and height, 0 to 1; uniform between minus and plus this, rounded
    /// to pixels, as torchvision's `RandomAffine(translate=…)`.
    pub fraction: [f64; 2],
    /// The colour that moves in.
    pub fill: [u8; 3],
}

impl Default for Translation {
    /// A tenth of each side, black.
    fn default() -> Translation {
        Translation { fraction: [0.1, 0.1], fill: [0; 3] }
    }
}

impl Translation {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.fraction.iter().all(|fraction| (0.0..=1.0).contains(fraction)) {
            return Ok(());
        }
        let [x, y] = self.fraction;
        Err(format!("fraction is [{x}, {y}], and must be two numbers from 0 to 1"))
    }
}

impl Stage for Translation {
    const NAME: &'static str = "translation";
    type In = Pixels;
    type Out = Pixels;

    fn apply(&self, input: Pixels, draws: &Draws) -> Result<Pixels, Fault> {
        Ok(self.moved(Moves::of(input), draws).pixels())
    }
}

impl Geometry for Translation {
    fn moved(&self, moves: Moves, draws: &Draws) -> Moves {
        let mut stream = draws.of(Self::NAME);
        let mut shift = |side: u32, fraction: f64| {
            let farthest = f64::from(side) * fraction;
            stream.range(-farthest, farthest).round() as i64
        };
        let [width, height] = moves.size();
        let by = [shift(width, self.fraction[0]), shift(height, self.fraction[1])];
        moves.shift(by, self.fill)
    }
}
