//! Zooms an image in or out about its centre by a random factor.

use forebay_datasets::sample::Pixels;
use serde::{Deserialize, Serialize};

use super::affine::{Geometry, Moves};
use super::check_range;
use crate::stage::{Draws, Fault, Stage};

/// Zoom about the centre, bilinear. The size stays: above 1 the edges leave the image, below 1 `fill` surrounds
/// it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scale {
    /// The factor is uniform between these two; 0.1 to 10.
    pub factor: [f64; 2],
    /// The colour around a smaller image.
    pub fill: [u8; 3],
}

impl Default for Scale {
    /// 0.9 to 1.1, black around.
    fn default() -> Scale {
        Scale { factor: [0.9, 1.1], fill: [0; 3] }
    }
}

impl Scale {
    pub(super) fn check(&self) -> Result<(), String> {
        check_range("factor", self.factor, 0.1, 10.0)
    }
}

impl Stage for Scale {
    const NAME: &'static str = "scale";
    type In = Pixels;
    type Out = Pixels;

    fn apply(&self, input: Pixels, draws: &Draws) -> Result<Pixels, Fault> {
        Ok(self.moved(Moves::of(input), draws).pixels())
    }
}

impl Geometry for Scale {
    fn moved(&self, moves: Moves, draws: &Draws) -> Moves {
        let factor = draws.of(Self::NAME).range(self.factor[0], self.factor[1]);
        if factor == 1.0 {
            return moves;
        }
        moves.map([[1.0 / factor, 0.0], [0.0, 1.0 / factor]], self.fill)
    }
}
