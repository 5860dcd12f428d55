//! Turns an image about its centre by a random angle.

use forebay_datasets::sample::Pixels;
use serde::{Deserialize, Serialize};

use super::affine::{Geometry, Moves};
use crate::stage::{Draws, Fault, Stage};

/// Rotation about the centre, bilinear. The size stays; what turns in from outside is `fill`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rotation {
    /// The angle is uniform between minus and plus this, counter-clockwise; 0 to 180.
    pub degrees: f64,
    /// The colour of the corners.
    pub fill: [u8; 3],
}

impl Default for Rotation {
    /// ± 10°, black corners.
    fn default() -> Rotation {
        Rotation { degrees: 10.0, fill: [0; 3] }
    }
}

impl Rotation {
    pub(super) fn check(&self) -> Result<(), String> {
        if (0.0..=180.0).contains(&self.degrees) {
            return Ok(());
        }
        Err(format!("degrees is {}, and must be 0 to 180", self.degrees))
    }
}

impl Stage for Rotation {
    const NAME: &'static str = "rotation";
    type In = Pixels;
    type Out = Pixels;

    fn apply(&self, input: Pixels, draws: &Draws) -> Result<Pixels, Fault> {
        Ok(self.moved(Moves::of(input), draws).pixels())
    }
}

impl Geometry for Rotation {
    fn moved(&self, moves: Moves, draws: &Draws) -> Moves {
        rotate(moves, draws.of(Self::NAME).range(-self.degrees, self.degrees), self.fill)
    }
}

/// Turns by `degrees` counter-clockwise.
pub(super) fn rotate(moves: Moves, degrees: f64, fill: [u8; 3]) -> Moves {
    if degrees == 0.0 {
        return moves;
    }
    let (sin, cos) = degrees.to_radians().sin_cos();
    // Rows grow downwards: this turns a place in the output clockwise, to where it came from.
    moves.map([[cos, -sin], [sin, cos]], fill)
}
