//! How an image becomes the tensor that a network takes, as one value: background, resizes, normalisation.
//!
//! A model means nothing without it, so that everything that says how images were prepared (a dataset's manifest, a
//! checkpoint, the files that timm and transformers read, the metadata of an ONNX file) is written from a [`Chain`]
//! and read back into it, or into the [`Wanted`] part of one that another program's fields can say.

mod foreign;
mod then;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::foreign::{Described, TimmFields};
pub use self::then::{Composed, Conflict, Contradiction, Property};
use crate::decode::DecodeScale;
use crate::normalize::Normalize;
use crate::resize::{Filter, Fit, Resize, Size};

/// Image bytes to tensor: decoded on a background, resized (not at all, once, or twice where shards of one size are
/// used at another), perhaps stored as JPEG in between, and normalised.
///
/// Two chains that are equal make equal tensors of an image, but for what decoding at another scale changes. Its JSON form comes
/// back exactly.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Chain {
    decode: Option<DecodeScale>,
    background: Option<[u8; 3]>,
    steps: Vec<ResizeStep>,
    jpeg_quality: Option<u8>,
    normalize: Option<Normalize>,
}

impl PartialEq for Chain {
    /// At which scale images were decoded is recorded and not compared: it changes less than two programs that resize differ by.
    fn eq(&self, other: &Chain) -> bool {
        let parts = |Chain { decode: _, background, steps, jpeg_quality, normalize }: &Chain| {
            (*background, steps.clone(), *jpeg_quality, *normalize)
        };
        parts(self) == parts(other)
    }
}

/// One resize to a side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResizeStep {
    /// The side in pixels, 1 to [`Resize::SIDE_PX_MAX`]; what it is the side of, `fit` says.
    pub side: u32,
    /// How an image that is not square gets there.
    pub fit: Fit,
    /// With [`Fit::Crop`]: the side over the shorter side before the centre square is cut out, 0.05 to 1; else 1.
    pub crop_pct: f64,
    /// How pixels are interpolated.
    pub filter: Filter,
    /// Whether smaller images are enlarged.
    pub enlarge: bool,
    /// The colour of the bars of [`Fit::Pad`]; black with another fit, which has none.
    pub pad_color: [u8; 3],
}

/// What is asked of the preparation of images, by a user or by weights that were trained with it; what is `None` is
/// left to the shards, or to the default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Side of the input, in pixels.
    pub side: Option<u32>,
    /// How an image that is not square gets there; [`Fit::Shortest`] gives no squares and is refused.
    pub fit: Option<Fit>,
    /// As [`ResizeStep::crop_pct`].
    pub crop_pct: Option<f64>,
    /// How pixels are interpolated.
    pub filter: Option<Filter>,
    /// What transparent pixels are composited on; `Some(None)` drops alpha.
    pub background: Option<Option<[u8; 3]>>,
    /// Mean and standard deviation per channel.
    pub normalize: Option<Normalize>,
}

/// The JSON form of a chain, not yet checked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decode: Option<DecodeScale>,
    background: Option<[u8; 3]>,
    resize: Vec<ResizeStep>,
    jpeg_quality: Option<u8>,
    normalize: Option<Normalize>,
}

impl From<Chain> for Written {
    fn from(chain: Chain) -> Written {
        let Chain { decode, background, steps, jpeg_quality, normalize } = chain;
        Written { decode, background, resize: steps, jpeg_quality, normalize }
    }
}

impl TryFrom<Written> for Chain {
    type Error = String;

    fn try_from(written: Written) -> Result<Chain, String> {
        let Written { decode, background, resize, jpeg_quality, normalize } = written;
        let chain = Chain::new(background, resize, jpeg_quality, normalize);
        Ok(Chain { decode, ..chain.map_err(|problems| problems.join("; "))? })
    }
}

impl ResizeStep {
    /// The shorter side before the centre square is cut out, in pixels: `floor(side / crop_pct)`, as in timm.
    pub fn shorter_side(&self) -> u32 {
        (f64::from(self.side) / self.crop_pct).floor() as u32
    }

    /// The stage that does it.
    pub fn resize(&self) -> Resize {
        let ResizeStep { side, fit, crop_pct, filter, enlarge, pad_color } = *self;
        let shorter_side = (fit == Fit::Crop && crop_pct < 1.0).then(|| self.shorter_side());
        Resize { size: Size::Side(side), fit, enlarge, filter, pad_color, shorter_side }
    }

    /// True where every image that comes out is a square of [`ResizeStep::side`].
    pub fn makes_squares(&self) -> bool {
        match self.fit {
            Fit::Shortest => false,
            Fit::Crop | Fit::Squash => self.enlarge,
            Fit::Pad => true,
        }
    }

    /// What is out of its range, a line each.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !(1..=Resize::SIDE_PX_MAX).contains(&self.side) {
            problems.push(format!("size is {}, and must be 1 to {} pixels", self.side, Resize::SIDE_PX_MAX));
        }
        if !(0.05..=1.0).contains(&self.crop_pct) {
            problems.push(format!("crop_pct is {}, and must be within 0.05 and 1", self.crop_pct));
        } else if self.crop_pct < 1.0 && self.fit != Fit::Crop {
            problems.push(format!("crop_pct is {}, and only fit crop cuts a margin off", self.crop_pct));
        }
        problems
    }
}

impl Chain {
    /// A chain of these parts.
    ///
    /// # Errors
    /// One line per part that is out of its range: see [`ResizeStep`] and [`Normalize::problems`]; a JPEG's quality is 1 to
    /// 100.
    pub fn new(
        background: Option<[u8; 3]>,
        steps: Vec<ResizeStep>,
        jpeg_quality: Option<u8>,
        normalize: Option<Normalize>,
    ) -> Result<Chain, Vec<String>> {
        let mut problems: Vec<String> = steps.iter().flat_map(ResizeStep::problems).collect();
        if let Some(quality) = jpeg_quality.filter(|quality| !(1..=100).contains(quality)) {
            problems.push(format!("jpeg_quality is {quality}, and must be within 1 and 100"));
        }
        problems.extend(normalize.iter().flat_map(Normalize::problems));
        // No other fit has bars, so that a colour of theirs would only keep equal chains from being equal.
        let plain = |step: ResizeStep| match step.fit {
            Fit::Pad => step,
            _ => ResizeStep { pad_color: [0; 3], ..step },
        };
        let steps = steps.into_iter().map(plain).collect();
        if problems.is_empty() {
            Ok(Chain { decode: None, background, steps, jpeg_quality, normalize })
        } else {
            Err(problems)
        }
    }

    /// Images as their files hold them: what a folder gives.
    pub fn of_files() -> Chain {
        Chain { decode: None, background: None, steps: Vec::new(), jpeg_quality: None, normalize: None }
    }

    /// The same, whose first step decodes at this scale.
    pub fn decoded(self, scale: DecodeScale) -> Chain {
        Chain { decode: Some(scale), ..self }
    }

    /// The same, whose images are decoded once more, at this scale. What was scaled once is so for good, and what nobody says of the
    /// first time stays unknown.
    pub fn decoded_again(self, scale: DecodeScale) -> Chain {
        let decode = if scale == DecodeScale::Scaled { Some(scale) } else { self.decode };
        Chain { decode, ..self }
    }

    /// What of it is a setting of a plan, as JSON: all but the scale, which is one by itself.
    pub fn settings(&self) -> serde_json::Value {
        serde_json::to_value(Chain { decode: None, ..self.clone() }).expect("a chain is plain data")
    }

    /// At which scale JPEG was decoded; `None` where nobody says.
    pub fn decode(&self) -> Option<DecodeScale> {
        self.decode
    }

    /// Pixels as they come, of any size, and the map from their grey levels to the tensor.
    pub fn of_pixels(normalize: Normalize) -> Chain {
        Chain { normalize: Some(normalize), ..Chain::of_files() }
    }

    /// What transparent pixels are composited on; `None` drops alpha.
    pub fn background(&self) -> Option<[u8; 3]> {
        self.background
    }

    /// The resizes in their order.
    pub fn steps(&self) -> &[ResizeStep] {
        &self.steps
    }

    /// The quality of the JPEG that images are stored as on the way, where they are.
    pub fn jpeg_quality(&self) -> Option<u8> {
        self.jpeg_quality
    }

    /// Mean and standard deviation per channel; `None` for images that are stored and not yet a tensor.
    pub fn normalize(&self) -> Option<Normalize> {
        self.normalize
    }

    /// The side of the squares that come out, in pixels; `None` where sizes differ.
    pub fn side(&self) -> Option<u32> {
        self.steps.last().filter(|step| step.makes_squares()).map(|step| step.side)
    }

    /// The chain as one resize: its fit, and the share of the shorter side that the square covers. Two resizes are
    /// the one whose square covers the same part of the image; [`Chain::caveats`] says so.
    fn outline(&self) -> (Fit, f64) {
        let any = |fit: Fit| self.steps.iter().any(|step| step.fit == fit);
        let fit = match () {
            () if any(Fit::Squash) => Fit::Squash,
            () if any(Fit::Pad) => Fit::Pad,
            () => Fit::Crop,
        };
        let share = match &self.steps[..] {
            [one] => one.crop_pct,
            steps => steps.iter().map(|step| step.crop_pct).product::<f64>().max(0.05),
        };
        (fit, share)
    }

    /// What weights that were trained with this chain ask of other images, as one resize.
    pub fn wanted(&self) -> Wanted {
        let (fit, crop_pct) = self.outline();
        let is_sized = self.side().is_some();
        Wanted {
            side: self.side(),
            fit: is_sized.then_some(fit),
            crop_pct: (is_sized && fit == Fit::Crop).then_some(crop_pct),
            filter: self.steps.first().map(|step| step.filter),
            background: Some(self.background),
            normalize: self.normalize,
        }
    }

    /// What of the chain the fields that other programs read (timm's, transformers', those beside an ONNX graph)
    /// cannot say, a sentence each. Empty where they make the same tensors, but for a grey level of rounding.
    pub fn caveats(&self) -> Vec<String> {
        let mut caveats = Vec::new();
        match &self.steps[..] {
            [] | [_] => {}
            // timm's squash with a margin.
            [first, second] if second.only_cuts(first) && first.fit == Fit::Squash => {}
            steps => {
                let sides: Vec<String> = steps.iter().map(|step| format!("to {}", step.side)).collect();
                caveats.push(format!(
                    "images were resized {} times ({} pixels), and other programs resize once",
                    steps.len(),
                    sides.join(", then ")
                ));
            }
        }
        if let Some(quality) = self.jpeg_quality {
            caveats.push(format!(
                "the shards hold images as JPEG of quality {quality}, and other programs take them as they are"
            ));
        }
        if let Some(color) = self.background {
            caveats.push(format!(
                "transparent pixels were composited on {}, and others drop alpha",
                color_in_words(color)
            ));
        }
        for step in self.steps.iter().filter(|step| step.fit == Fit::Pad) {
            caveats.push(
                "images were padded as Pillow's ImageOps.pad does, and timm puts those whose bars are 3, 7, 11, ... \
                 pixels together one pixel further up or left"
                    .to_string(),
            );
            let mean = self.normalize.map_or([0; 3], |normalize| normalize.mean_color());
            if step.pad_color != mean {
                caveats.push(format!(
                    "bars were {}, and timm's are of the mean's color {}",
                    color_in_words(step.pad_color),
                    color_in_words(mean)
                ));
            }
        }
        if self.steps.iter().any(|step| !step.enlarge) {
            caveats.push("smaller images were not enlarged at first, and others enlarge them".to_string());
        }
        caveats
    }
}

/// `white`, `black` or `rgb(124, 116, 104)`.
fn color_in_words(color: [u8; 3]) -> String {
    match color {
        [255, 255, 255] => "white".to_string(),
        [0, 0, 0] => "black".to_string(),
        [red, green, blue] => format!("rgb({red}, {green}, {blue})"),
    }
}

impl fmt::Display for ResizeStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ResizeStep { side, fit, filter, .. } = self;
        match fit {
            Fit::Shortest => write!(f, "shorter side {side} px")?,
            Fit::Crop if self.crop_pct < 1.0 => {
                write!(f, "{side}x{side} px, centre crop of shorter side {}", self.shorter_side())?
            }
            Fit::Crop => write!(f, "{side}x{side} px, centre crop")?,
            Fit::Pad => write!(f, "{side}x{side} px, padded")?,
            Fit::Squash => write!(f, "{side}x{side} px, aspect ignored")?,
        }
        write!(f, ", {filter}")?;
        if self.enlarge { Ok(()) } else { f.write_str(", none enlarged") }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps.is_empty() {
            return f.write_str("original size");
        }
        let steps: Vec<String> = self.steps.iter().map(ResizeStep::to_string).collect();
        f.write_str(&steps.join("; then "))
    }
}

#[cfg(test)]
mod tests;
