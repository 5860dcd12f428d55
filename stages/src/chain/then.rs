//! What shards hold, and what is done with it after that: the chain of both, or the conflict between them.

use std::fmt;

use super::{Chain, ResizeStep, Wanted, color_in_words};
use crate::normalize::Normalize;
use crate::resize::{Filter, Fit, Resize};

/// The side of images that nothing else gives one, in pixels.
const SIDE_PX: u32 = 224;

/// Prepared images and what is left to do with them.
#[derive(Clone, Debug, PartialEq)]
pub struct Composed {
    /// From the original file to the tensor: what a model says of its images.
    pub chain: Chain,
    /// What is left to do with the prepared images.
    pub resize: Resize,
}

/// A part of a chain that can be contradicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// [`Wanted::fit`].
    Fit,
    /// [`Wanted::crop_pct`].
    CropPct,
    /// [`Wanted::filter`].
    Filter,
    /// [`Wanted::background`].
    Background,
}

/// One thing that prepared images are, and that something else is wanted of.
#[derive(Clone, Debug, PartialEq)]
pub struct Contradiction {
    /// What of the preparation.
    pub property: Property,
    /// What the prepared images are.
    pub prepared: String,
    /// What is wanted.
    pub wanted: String,
}

/// Prepared images cannot become what is wanted of them.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}", lines(.contradictions))]
pub struct Conflict {
    /// Each thing that differs; at least one.
    pub contradictions: Vec<Contradiction>,
    /// What the images become when what they are stands, and what was wanted otherwise is left out.
    pub forced: Box<Composed>,
}

fn lines(contradictions: &[Contradiction]) -> String {
    contradictions.iter().map(Contradiction::to_string).collect::<Vec<_>>().join("; ")
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is wanted, and the images were prepared {}", self.wanted, self.prepared)
    }
}

impl ResizeStep {
    /// True where nothing is resampled after `before`: its images have the size already, and at most their centre
    /// is cut out.
    pub(super) fn only_cuts(&self, before: &ResizeStep) -> bool {
        match self.fit {
            Fit::Crop if before.makes_squares() => self.shorter_side() == before.side,
            Fit::Crop => before.fit == Fit::Shortest && before.enlarge && self.shorter_side() == before.side,
            Fit::Pad | Fit::Squash => before.makes_squares() && self.side == before.side,
            Fit::Shortest => false,
        }
    }

    /// This step and the one after it as one that makes the same of every image, where there is one.
    fn joined(&self, next: &ResizeStep) -> Option<ResizeStep> {
        if self.makes_squares() && next.only_cuts(self) && next.side == self.side {
            return Some(self.clone());
        }
        if next.fit != Fit::Crop || next.shorter_side() != self.side {
            return None;
        }
        match self.fit {
            // Small images that the first leaves as they are the second enlarges, in the same way.
            Fit::Shortest if self.enlarge || self.filter == next.filter => {
                Some(ResizeStep { filter: self.filter, enlarge: true, ..next.clone() })
            }
            // The centre of a centre is that of the whole where no half pixel is rounded, which Python does to
            // the even side.
            Fit::Crop if self.enlarge && (self.side - next.side).is_multiple_of(4) => {
                let crop_pct = crop_pct(next.side, self.shorter_side())?;
                Some(ResizeStep { side: next.side, crop_pct, ..self.clone() })
            }
            _ => None,
        }
    }
}

/// The shortest decimal of which `floor(side / decimal)` is the shorter side.
fn crop_pct(side: u32, shorter_side: u32) -> Option<f64> {
    let exact = f64::from(side) / f64::from(shorter_side);
    (0..=12).find_map(|digits| {
        let unit = 10f64.powi(digits);
        let share = (exact * unit).floor() / unit;
        let fits = share > 0.0 && (f64::from(side) / share).floor() as u32 == shorter_side;
        fits.then_some(share)
    })
}

fn nearly(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-3
}

/// A background in words.
fn color(background: Option<[u8; 3]>) -> String {
    background.map_or("alpha dropped".to_string(), |color| format!("background {}", color_in_words(color)))
}

impl Chain {
    /// Images that were prepared by this chain become what is wanted: the chain from their originals to the tensor,
    /// and what is left to do. What `wanted` leaves open is as prepared; for images as their files hold them it is
    /// the centre square of 224 pixels, bilinear, with the mean and deviation of ImageNet.
    ///
    /// # Errors
    /// [`Conflict`] where the images were prepared otherwise and nothing can be done about it any more.
    ///
    /// # Panics
    /// When `wanted` is not sound: see [`Wanted::problems`].
    pub fn then(&self, wanted: &Wanted) -> Result<Composed, Conflict> {
        assert_eq!(wanted.problems(), [""; 0], "it was checked");
        let normalize = wanted.normalize.or(self.normalize).unwrap_or_default();
        let mut contradictions = Vec::new();
        let mut contradict = |property, prepared: String, wanted: String| {
            contradictions.push(Contradiction { property, prepared, wanted });
        };
        let last = self.steps.last();
        let background = match wanted.background {
            Some(background) if last.is_none() && self.jpeg_quality.is_none() => background,
            Some(background) if background != self.background => {
                contradict(
                    Property::Background,
                    format!("with {}", color(self.background)),
                    color(background),
                );
                self.background
            }
            _ => self.background,
        };
        let rest = |side: Option<u32>, fit: Fit, crop_pct: f64, filter: Option<Filter>| ResizeStep {
            side: side.unwrap_or(SIDE_PX),
            fit,
            crop_pct,
            filter: filter.unwrap_or(Filter::Bilinear),
            enlarge: true,
            pad_color: if fit == Fit::Pad { normalize.mean_color() } else { [0; 3] },
        };
        let Wanted { side, fit, crop_pct, filter, .. } = *wanted;
        let rest = match last {
            Some(last) if last.makes_squares() => {
                if let Some(fit) = fit.filter(|fit| *fit != last.fit) {
                    contradict(Property::Fit, format!("with fit {}", last.fit), format!("fit {fit}"));
                }
                let side = side.unwrap_or(last.side);
                let margin = crop_pct.unwrap_or(last.crop_pct);
                let asked = rest(Some(side), Fit::Crop, margin, filter.or(Some(last.filter)));
                let is_as_prepared = match side == last.side {
                    true => asked.shorter_side() == last.shorter_side(),
                    false => nearly(margin, last.crop_pct),
                };
                let can_be_cut =
                    side < last.side && last.crop_pct == 1.0 && asked.shorter_side() <= last.side;
                if !is_as_prepared && !can_be_cut {
                    contradict(
                        Property::CropPct,
                        format!("to {} px with crop_pct {}", last.side, last.crop_pct),
                        format!("crop_pct {margin} of {side} px"),
                    );
                }
                match !is_as_prepared && can_be_cut {
                    true => asked,
                    false => ResizeStep { crop_pct: 1.0, ..asked },
                }
            }
            _ => {
                let filter = filter.or(last.map(|last| last.filter));
                // Large images have lost their margin or aspect already, whatever became of the small ones.
                let cut = last.filter(|last| last.fit != Fit::Shortest);
                let (mut fit, mut crop_pct) = (fit.unwrap_or(Fit::Crop), crop_pct);
                if let Some(last) = cut {
                    if wanted.fit.is_some_and(|fit| fit != last.fit) {
                        contradict(Property::Fit, format!("with fit {}", last.fit), format!("fit {fit}"));
                        fit = Fit::Crop;
                    }
                    if let Some(share) = crop_pct.filter(|_| last.crop_pct < 1.0) {
                        if !nearly(share, last.crop_pct) {
                            contradict(
                                Property::CropPct,
                                format!("to {} px with crop_pct {}", last.side, last.crop_pct),
                                format!("crop_pct {share}"),
                            );
                        }
                        crop_pct = None;
                    }
                }
                rest(side, fit, crop_pct.unwrap_or(1.0), filter)
            }
        };
        let mut rest = rest;
        if let Some(last) = last
            && let Some(filter) = filter.filter(|filter| *filter != last.filter)
            && rest.only_cuts(last)
        {
            contradict(Property::Filter, format!("with filter {}", last.filter), format!("filter {filter}"));
            rest.filter = last.filter;
        }
        let resize = rest.resize();
        let mut steps = self.steps.clone();
        match last.and_then(|last| last.joined(&rest)) {
            Some(joined) => *steps.last_mut().expect("there is a last one") = joined,
            None => steps.push(rest),
        }
        let normalize: Option<Normalize> = Some(normalize);
        let chain =
            Chain { decode: self.decode, background, steps, jpeg_quality: self.jpeg_quality, normalize };
        let composed = Composed { chain, resize };
        match contradictions.is_empty() {
            true => Ok(composed),
            false => Err(Conflict { contradictions, forced: Box::new(composed) }),
        }
    }
}

impl Wanted {
    /// What is out of its range, a line each.
    pub fn problems(&self) -> Vec<String> {
        let Wanted { side, fit, crop_pct, filter: _, background: _, normalize } = *self;
        let mut problems = Vec::new();
        if let Some(side) = side.filter(|side| !(1..=Resize::SIDE_PX_MAX).contains(side)) {
            problems.push(format!("size is {side}, and must be 1 to {} pixels", Resize::SIDE_PX_MAX));
        }
        if fit == Some(Fit::Shortest) {
            problems.push("fit is shortest, and a batch needs squares: crop, pad or squash".to_string());
        }
        if let Some(share) = crop_pct {
            if !(0.05..=1.0).contains(&share) {
                problems.push(format!("crop_pct is {share}, and must be within 0.05 and 1"));
            } else if share < 1.0 && fit.is_some_and(|fit| fit != Fit::Crop) {
                problems.push(format!("crop_pct is {share}, and only fit crop cuts a margin off"));
            }
        }
        problems.extend(normalize.iter().flat_map(Normalize::problems));
        problems
    }
}
