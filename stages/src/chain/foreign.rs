//! The forms in which other programs keep the preparation of images: timm's `pretrained_cfg`, transformers' image
//! processors, and the metadata of an ONNX file.

use forebay_datasets::escape::one_line;
use serde::Serialize;
use serde_json::Value;

use super::{Chain, Wanted};
use crate::normalize::Normalize;
use crate::resize::{Filter, Fit};

/// What another program's file says of the preparation, and what of it is not understood here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Described {
    /// What is understood; parts that are not are left open.
    pub wanted: Wanted,
    /// What is not, a sentence each.
    pub unknown: Vec<String>,
}

/// The preparation in the fields of timm's `pretrained_cfg`, which transformers reads too.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TimmFields {
    /// Channels, height and width.
    pub input_size: [u32; 3],
    /// `bilinear`, `bicubic` or `lanczos`.
    pub interpolation: &'static str,
    /// The side of the input over that before the crop.
    pub crop_pct: f64,
    /// `center`, `border` (padded) or `squash`.
    pub crop_mode: &'static str,
    /// Mean per channel of values from 0 to 1.
    pub mean: [f64; 3],
    /// Standard deviation per channel.
    pub std: [f64; 3],
}

/// A filter in timm's word.
fn interpolation(filter: Filter) -> &'static str {
    match filter {
        Filter::Bilinear => "bilinear",
        Filter::Bicubic => "bicubic",
        Filter::Lanczos3 => "lanczos",
    }
}

/// f32 values as the shortest decimals that give them.
fn decimal(values: [f32; 3]) -> [f64; 3] {
    values.map(|value| value.to_string().parse().expect("a number as it is printed"))
}

impl Chain {
    /// The chain in timm's fields, which cannot say its [`Chain::caveats`]. `None` where it makes no squares or is
    /// not normalised.
    pub fn timm(&self) -> Option<TimmFields> {
        let (side, Normalize { mean, std }) = (self.side()?, self.normalize?);
        let (fit, crop_pct) = self.outline();
        Some(TimmFields {
            input_size: [3, side, side],
            interpolation: interpolation(self.steps.first()?.filter),
            crop_pct,
            crop_mode: match fit {
                Fit::Squash => "squash",
                Fit::Pad => "border",
                Fit::Crop | Fit::Shortest => "center",
            },
            mean: decimal(mean),
            std: decimal(std),
        })
    }

    /// The chain as the metadata of an ONNX file, key by key; lists are JSON. The whole of it stands under `chain`.
    pub fn properties(&self) -> Vec<(&'static str, String)> {
        let mut properties = Vec::new();
        if let Some(TimmFields { input_size, interpolation, crop_pct, crop_mode, mean, std }) = self.timm() {
            properties.extend([
                ("size", input_size[2].to_string()),
                ("mean", format!("{mean:?}")),
                ("std", format!("{std:?}")),
                ("crop_pct", crop_pct.to_string()),
                ("crop_mode", crop_mode.to_string()),
                ("interpolation", interpolation.to_string()),
            ]);
        }
        properties.push(("chain", serde_json::to_string(self).expect("a chain is plain data")));
        let caveats = self.caveats();
        if !caveats.is_empty() {
            properties.push(("caveats", serde_json::to_string(&caveats).expect("texts are plain data")));
        }
        properties
    }
}

/// Three numbers of a list.
fn triple(value: &Value) -> Option<[f32; 3]> {
    let values: Vec<f32> = value.as_array()?.iter().filter_map(|v| v.as_f64().map(|v| v as f32)).collect();
    values.try_into().ok()
}

impl Described {
    /// Takes mean and deviation, where they are sound.
    fn normalize(&mut self, mean: Option<&Value>, std: Option<&Value>) {
        let of = |value: Option<&Value>, default: [f32; 3]| value.map_or(Some(default), triple);
        let Normalize { mean: usual_mean, std: usual_std } = Normalize::IMAGENET;
        match (of(mean, usual_mean), of(std, usual_std)) {
            (Some(mean), Some(std)) => match (Normalize { mean, std }).problems() {
                problems if problems.is_empty() => self.wanted.normalize = Some(Normalize { mean, std }),
                problems => self.unknown.extend(problems),
            },
            _ => self.unknown.push("mean and std are not three numbers each".to_string()),
        }
    }

    /// Drops what is out of its range, and names it.
    fn checked(mut self) -> Described {
        let Wanted { side, crop_pct, .. } = self.wanted;
        for part in [
            Wanted { side, ..Wanted::default() },
            Wanted { crop_pct, fit: self.wanted.fit, ..Wanted::default() },
        ] {
            let problems = part.problems();
            if !problems.is_empty() {
                if part.side.is_some() {
                    self.wanted.side = None;
                }
                if part.crop_pct.is_some() {
                    self.wanted.crop_pct = None;
                }
                self.unknown.extend(problems);
            }
        }
        // They repeat the words of the file.
        self.unknown.iter_mut().for_each(|line| *line = one_line(line).into_owned());
        self
    }

    /// From the `config.json` of timm, also where transformers wraps it: its `pretrained_cfg`. What it leaves out is
    /// timm's default. `None` when it says nothing of images.
    pub fn from_timm(config: &Value) -> Option<Described> {
        let config = config.get("pretrained_cfg").unwrap_or(config);
        let size = config.get("input_size")?;
        let mut found = Described::default();
        let sides: Vec<u64> = size.as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        match sides[..] {
            [3, height, width] if height == width => {
                found.wanted.side = Some(u32::try_from(width).unwrap_or(u32::MAX))
            }
            _ => {
                found.unknown.push(format!("input_size is {size}, and only squares of 3 channels are taken"))
            }
        }
        let word = |key: &str, default: &'static str| match config.get(key) {
            None | Some(Value::Null) => default.to_string(),
            Some(Value::String(word)) => word.clone(),
            Some(other) => other.to_string(),
        };
        found.wanted.filter = match &*word("interpolation", "bicubic") {
            "bilinear" => Some(Filter::Bilinear),
            "bicubic" => Some(Filter::Bicubic),
            "lanczos" => Some(Filter::Lanczos3),
            other => {
                found.unknown.push(format!("interpolation {other:?}"));
                None
            }
        };
        let fit = match &*word("crop_mode", "center") {
            "center" => Some(Fit::Crop),
            "squash" => Some(Fit::Squash),
            "border" => Some(Fit::Pad),
            other => {
                found.unknown.push(format!("crop_mode {other:?}"));
                None
            }
        };
        let crop_pct = match config.get("crop_pct") {
            None | Some(Value::Null) => Some(0.875),
            Some(value) => value.as_f64(),
        };
        found.wanted.fit = fit;
        found.wanted.crop_pct = match crop_pct {
            // Nothing is cut off there, which is all that such a fit can do here.
            Some(1.0) if fit != Some(Fit::Crop) => None,
            Some(share) => Some(share),
            None => {
                found.unknown.push("crop_pct is no number".to_string());
                None
            }
        };
        if config.get("crop_border_pixels").is_some_and(|pixels| pixels.as_u64() != Some(0)) {
            found.unknown.push("crop_border_pixels".to_string());
        }
        found.normalize(config.get("mean"), config.get("std"));
        Some(found.checked())
    }

    /// From the `preprocessor_config.json` of transformers: its ConvNeXT form with `crop_pct`, which its ResNets
    /// have and which squashes from 384 pixels on, and its usual form with `size` and `crop_size`. `None` when it
    /// says nothing of images.
    pub fn from_transformers(config: &Value) -> Option<Described> {
        let size = config.get("size")?;
        let is = |key: &str, default: bool| config.get(key).and_then(Value::as_bool).unwrap_or(default);
        let kind = ["image_processor_type", "feature_extractor_type"];
        let kind = kind.iter().find_map(|key| config.get(*key)?.as_str()).unwrap_or_default();
        let mut found = Described::default();
        // One side, and whether both are given, which squashes.
        let side = |value: &Value| {
            let number = |key: &str| value.get(key).and_then(Value::as_u64);
            match (value.as_u64().or_else(|| number("shortest_edge")), number("height"), number("width")) {
                (Some(shorter), ..) => Some((shorter, false)),
                (None, Some(height), Some(width)) if height == width => Some((width, true)),
                _ => None,
            }
        };
        let pixels = |side: u64| u32::try_from(side).unwrap_or(u32::MAX);
        let crop = config.get("crop_size").filter(|crop| is("do_center_crop", !crop.is_null()));
        let crop_pct = config.get("crop_pct").and_then(Value::as_f64);
        let is_convnext = kind.starts_with("ConvNext") || crop_pct.is_some();
        let wanted = &mut found.wanted;
        match (side(size), crop.map(side)) {
            (Some((size, _)), _) if is_convnext => {
                wanted.side = Some(pixels(size));
                if size < 384 {
                    wanted.fit = Some(Fit::Crop);
                    wanted.crop_pct = Some(crop_pct.unwrap_or(0.875));
                } else {
                    wanted.fit = Some(Fit::Squash);
                }
            }
            (Some((size, false)), Some(Some((crop, _)))) if crop <= size => {
                wanted.side = Some(pixels(crop));
                wanted.fit = Some(Fit::Crop);
                wanted.crop_pct = Some(crop as f64 / size as f64);
            }
            (Some((size, true)), crop) if crop.is_none() || crop == Some(Some((size, true))) => {
                wanted.side = Some(pixels(size));
                wanted.fit = Some(Fit::Squash);
            }
            (Some((size, false)), None) => {
                wanted.side = Some(pixels(size));
                wanted.fit = Some(Fit::Crop);
                wanted.crop_pct = Some(1.0);
            }
            _ => found.unknown.push(format!(
                "size {size} with crop_size {}",
                config.get("crop_size").unwrap_or(&Value::Null)
            )),
        }
        let resample = config.get("resample").and_then(Value::as_u64);
        // Pillow's numbers.
        found.wanted.filter = match resample {
            Some(3) => Some(Filter::Bicubic),
            Some(1) => Some(Filter::Lanczos3),
            Some(2) => Some(Filter::Bilinear),
            None if is_convnext || kind.starts_with("Bit") || kind.starts_with("CLIP") => {
                Some(Filter::Bicubic)
            }
            None => Some(Filter::Bilinear),
            Some(other) => {
                found.unknown.push(format!("resample {other} of Pillow"));
                None
            }
        };
        for (key, usual) in [("do_resize", true), ("do_rescale", true), ("rescale_offset", false)] {
            if is(key, usual) != usual {
                found.unknown.push(format!("{key} {}", !usual));
            }
        }
        if is("do_normalize", true) {
            match (config.get("image_mean"), config.get("image_std")) {
                (None, None) => found.unknown.push("image_mean and image_std are missing".to_string()),
                (mean, std) => found.normalize(mean, std),
            }
        } else {
            found.wanted.normalize = Some(Normalize::UNIT);
        }
        Some(found.checked())
    }
}
