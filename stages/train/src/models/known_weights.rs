//! A set of weights that people publish, and how its images were prepared: a row of a family's list.
//!
//! The preparation belongs to the weights: other means, another interpolation or another crop cost accuracy and
//! raise no error. The numbers are those of torchvision 0.29 and of timm 1.0.31 (`pretrained_cfg`).

use forebay_stages::chain::Wanted;
use forebay_stages::normalize::Normalize;
use forebay_stages::resize::{Filter, Fit};

/// How an image becomes the input of a network: the shorter side is resized to [`shorter_side`], the centre
/// square of `size` is cut out, values are divided by 255, and normalised.
///
/// [`shorter_side`]: Preprocessing::shorter_side
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preprocessing {
    /// The side of the input, in pixels.
    pub size: u32,
    /// The side of the input over the shorter side of the resized image, in `(0, 1]`.
    pub crop_pct: f64,
    /// How pixels are interpolated.
    pub filter: Filter,
    /// The map from grey levels to the tensor.
    pub normalize: Normalize,
}

/// Mean and standard deviation of ImageNet's training images.
pub(super) const IMAGENET: Normalize = Normalize::IMAGENET;
/// Values from -1 to 1.
pub(super) const HALF: Normalize = Normalize { mean: [0.5; 3], std: [0.5; 3] };
/// Values from 0 to 1.
pub(super) const NONE: Normalize = Normalize::UNIT;

impl Preprocessing {
    /// What is assumed of weights about which nothing is known: 224 pixels cut out of 256, bilinear, ImageNet's
    /// mean and standard deviation.
    pub const IMAGENET: Preprocessing =
        Preprocessing { size: 224, crop_pct: 0.875, filter: Filter::Bilinear, normalize: IMAGENET };

    /// The shorter side before the crop, in pixels: `floor(size / crop_pct)`, as in timm.
    pub fn shorter_side(&self) -> u32 {
        (f64::from(self.size) / self.crop_pct).floor() as u32
    }

    /// What weights that were trained so ask of the images of others.
    pub fn wanted(&self) -> Wanted {
        let Preprocessing { size, crop_pct, filter, normalize } = *self;
        Wanted {
            side: Some(size),
            fit: Some(Fit::Crop),
            crop_pct: Some(crop_pct),
            filter: Some(filter),
            background: None,
            normalize: Some(normalize),
        }
    }
}

/// A set of weights that people publish.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KnownWeights {
    /// `timm/NAME.TAG`, the name of its repository, or `torchvision/NAME.TAG`.
    pub id: &'static str,
    /// The network, by torchvision's name.
    pub model: &'static str,
    /// The licence by its SPDX name in lower case.
    pub licence: &'static str,
    /// How its images were prepared.
    pub preprocessing: Preprocessing,
    /// Classes of its classifier.
    pub classes: usize,
    /// The name of its `.pth` file, which ends in the first eight hexadecimal digits of its SHA-256; empty where
    /// there is none.
    pub file: &'static str,
}

impl KnownWeights {
    /// True where the licence forbids commercial use.
    pub fn is_non_commercial(&self) -> bool {
        self.licence.contains("-nc-")
    }
}

/// A row: the fields of [`KnownWeights`], those of [`Preprocessing`] among them, in order.
#[allow(clippy::too_many_arguments, reason = "a row of a table")]
pub(super) const fn known(
    id: &'static str,
    model: &'static str,
    licence: &'static str,
    size: u32,
    crop_pct: f64,
    filter: Filter,
    normalize: Normalize,
    classes: usize,
    file: &'static str,
) -> KnownWeights {
    let preprocessing = Preprocessing { size, crop_pct, filter, normalize };
    KnownWeights { id, model, licence, preprocessing, classes, file }
}
