//! Shows a random window of the image, of random area and aspect, at a fixed size.

use forebay_datasets::sample::Pixels;
use forebay_datasets::seed::Stream;
use serde::{Deserialize, Serialize};

use super::{check_range, check_side};
use crate::resample::View;
use crate::resize::{Filter, Fit, Resize, Size};
use crate::stage::{Draws, Fault, Stage};

/// A window of random area and aspect at a random place, resized (bilinear, antialiased) to a square: torchvision's
/// `RandomResizedCrop`, from the Inception recipe (arXiv 1409.4842). The shape of the image changes nothing: a window
/// of an aspect from 3/4 to 4/3 is stretched by no more than that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomResizedCrop {
    /// The side of the square it becomes, in pixels. `None`: the size that the run gives to its images, or the shorter
    /// side of the image where it gives none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub side: Option<u32>,
    /// The window's share of the area is uniform between these two, above 0 to 1.
    pub scale: [f64; 2],
    /// The window's width over its height: its logarithm is uniform between those of these two.
    pub ratio: [f64; 2],
}

impl Default for RandomResizedCrop {
    /// 8 to 100 % of the area, aspect 3/4 to 4/3, the run's size.
    fn default() -> RandomResizedCrop {
        RandomResizedCrop { side: None, scale: [0.08, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0] }
    }
}

impl RandomResizedCrop {
    pub(super) fn check(&self) -> Result<(), String> {
        self.side.map_or(Ok(()), check_side)?;
        check_range("scale", self.scale, 0.001, 1.0)?;
        check_range("ratio", self.ratio, 0.01, 100.0)
    }

    /// The side of the square that an image of this size becomes.
    pub(super) fn side_of(&self, width: u32, height: u32) -> u32 {
        self.side.unwrap_or(width.min(height))
    }

    /// The most bytes that lie between what goes in and what comes out: the window after one of two passes.
    pub(super) fn work_bytes(&self, width: u32, height: u32) -> u64 {
        let side = self.side_of(width, height);
        Resize { size: Size::Side(side), fit: Fit::Squash, ..Resize::default() }.work(width, height).total()
    }

    /// What is shown of an image of `width` x `height` pixels.
    pub(crate) fn view(&self, width: u32, height: u32, draws: &Draws) -> View {
        let window = self.window(width, height, &mut draws.of(Self::NAME));
        View::of_part(window, [self.side_of(width, height); 2], Filter::Bilinear)
    }

    /// Left, top, width and height of the window. Ten tries, then the largest window in the middle whose aspect
    /// is allowed, as in torchvision.
    pub fn window(&self, width: u32, height: u32, stream: &mut Stream) -> [u32; 4] {
        let area = f64::from(width) * f64::from(height);
        for _ in 0..10 {
            let target = area * stream.range(self.scale[0], self.scale[1]);
            let aspect = stream.range(self.ratio[0].ln(), self.ratio[1].ln()).exp();
            let window_width = (target * aspect).sqrt().round();
            let window_height = (target / aspect).sqrt().round();
            if (1.0..=f64::from(width)).contains(&window_width)
                && (1.0..=f64::from(height)).contains(&window_height)
            {
                let (window_width, window_height) = (window_width as u32, window_height as u32);
                let top = stream.below(u64::from(height - window_height) + 1) as u32;
                let left = stream.below(u64::from(width - window_width) + 1) as u32;
                return [left, top, window_width, window_height];
            }
        }
        let aspect = f64::from(width) / f64::from(height);
        let (window_width, window_height) = if aspect < self.ratio[0] {
            (width, (f64::from(width) / self.ratio[0]).round().clamp(1.0, f64::from(height)) as u32)
        } else if aspect > self.ratio[1] {
            ((f64::from(height) * self.ratio[1]).round().clamp(1.0, f64::from(width)) as u32, height)
        } else {
            (width, height)
        };
        [(width - window_width) / 2, (height - window_height) / 2, window_width, window_height]
    }
}

impl Stage for RandomResizedCrop {
    const NAME: &'static str = "random_resized_crop";
    type In = Pixels;
    type Out = Pixels;

    fn apply(&self, input: Pixels, draws: &Draws) -> Result<Pixels, Fault> {
        let (width, height) = input.whole();
        if self.side_of(width, height) == 0 {
            return Err(Fault::new(Self::NAME, "the side is 0, and must be at least 1 pixel"));
        }
        Ok(self.view(width, height, draws).of(input))
    }
}
