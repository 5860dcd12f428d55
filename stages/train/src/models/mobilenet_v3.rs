//! MobileNetV3, small and large (Howard et al., arXiv 1905.02244), with torchvision's names.

use candle_core::Result;
use forebay_stages::resize::Filter;

use super::family::{Family, TensorShapes, Timm, Variant};
use super::known_weights::{HALF, IMAGENET, KnownWeights, NONE, known};
use super::layers::{
    Activate, Conv, ConvNorm, GlobalAveragePool, InvertedResidual, Layers, Linear, LinearInit, Norm,
    SqueezeExcite,
};
use super::timm_blocks::{self, layer_of_block, place};
use super::{Head, Network, Parts};
use crate::ops::Activation;
use crate::params::Builder;

/// MobileNetV3, small and large.
pub const FAMILY: Family = Family {
    variants: &[
        Variant::new("mobilenet_v3_small", Some("mobilenetv3_small_100"), |parts, head| {
            SMALL.build(parts, head)
        }),
        Variant::new("mobilenet_v3_large", Some("mobilenetv3_large_100"), |parts, head| {
            LARGE.build(parts, head)
        }),
    ],
    translate: |model, layer| match model {
        "mobilenet_v3_small" => translate(layer, &[1, 2, 3, 2, 3, 1], &[0, 2, 3, 4]),
        _ => translate(layer, &[1, 2, 3, 4, 2, 3, 1], &[2, 4, 5]),
    },
    looks_like,
    prefixes: &[],
    passed_over: &[],
    // PyTorch's default.
    norm_epsilons: &[("timm", (1e-5, NORM.epsilon))],
    // timm pools before this layer, so that it is a convolution.
    timm: Some(Timm { convolutions: &[("conv_head", 1)], ..timm_blocks::TIMM }),
    known: KNOWN,
};

const LARGE: MobileNetV3 = MobileNetV3 { rows: LARGE_ROWS, width: 1280 };
const SMALL: MobileNetV3 = MobileNetV3 { rows: SMALL_ROWS, width: 1024 };

/// Kernel, width of the expansion, channels of the output, squeeze-and-excitation, hard-swish instead of ReLU, stride:
/// a row of tables 1 and 2 of the paper.
type Row = (usize, usize, usize, bool, bool, usize);

const LARGE_ROWS: &[Row] = &[
    (3, 16, 16, false, false, 1),
    (3, 64, 24, false, false, 2),
    (3, 72, 24, false, false, 1),
    (5, 72, 40, true, false, 2),
    (5, 120, 40, true, false, 1),
    (5, 120, 40, true, false, 1),
    (3, 240, 80, false, true, 2),
    (3, 200, 80, false, true, 1),
    (3, 184, 80, false, true, 1),
    (3, 184, 80, false, true, 1),
    (3, 480, 112, true, true, 1),
    (3, 672, 112, true, true, 1),
    (5, 672, 160, true, true, 2),
    (5, 960, 160, true, true, 1),
    (5, 960, 160, true, true, 1),
];

const SMALL_ROWS: &[Row] = &[
    (3, 16, 16, true, false, 2),
    (3, 72, 24, false, false, 2),
    (3, 88, 24, false, false, 1),
    (5, 96, 40, true, true, 2),
    (5, 240, 40, true, true, 1),
    (5, 240, 40, true, true, 1),
    (5, 120, 48, true, true, 1),
    (5, 144, 48, true, true, 1),
    (5, 288, 96, true, true, 2),
    (5, 576, 96, true, true, 1),
    (5, 576, 96, true, true, 1),
];

/// torchvision's, which differ from PyTorch's defaults.
const NORM: Norm = Norm { epsilon: 1e-3, momentum: 0.01 };

/// A stem, rows of blocks, a 1 x 1 convolution, and a classifier of two layers of which the last is the head. Parts:
/// `features.0`, `features.1`, ..., `classifier`, `head`.
#[derive(Clone, Copy, Debug)]
struct MobileNetV3 {
    rows: &'static [Row],
    /// Features of the classifier's first layer.
    width: usize,
}

impl MobileNetV3 {
    /// Registers `features.{index}` and `classifier.{0, 3}`.
    fn build(&self, mut parts: Parts<'_, '_>, head: &Head) -> Result<Network> {
        let whole = |builder: &mut Builder<'_>, name: &str, conv| {
            let names = (&*format!("{name}.0"), &*format!("{name}.1"));
            ConvNorm::new(builder, names, conv, NORM, Activation::HardSwish)
        };
        parts.add("features.0", |builder| {
            Ok(vec![Box::new(whole(builder, "features.0", Conv::same(3, 16, 3, 2))?)])
        })?;
        let mut channels = 16;
        for (index, row) in self.rows.iter().enumerate() {
            let name = format!("features.{}", index + 1);
            parts.add(&name, |builder| {
                Ok(vec![Box::new(inverted_residual(builder, &format!("{name}.block"), channels, row)?)])
            })?;
            channels = row.2;
        }
        let name = format!("features.{}", self.rows.len() + 1);
        parts.add(&name, |builder| {
            let last = whole(builder, &name, Conv::same(channels, 6 * channels, 1, 1))?;
            Ok(vec![Box::new(last), Box::new(GlobalAveragePool)])
        })?;
        let init = LinearInit::Normal(0.01);
        parts.add("classifier", |builder| {
            let first = Linear::new(builder, "classifier.0", (6 * channels, self.width), init)?;
            Ok(vec![Box::new(first), Box::new(Activate(Activation::HardSwish))])
        })?;
        parts.finish("classifier.3", self.width, head, (0.2, init), 1)
    }
}

/// The next multiple of eight, unless that takes away more than a tenth.
fn divisible(channels: usize) -> usize {
    let rounded = ((channels + 4) / 8 * 8).max(8);
    if 10 * rounded < 9 * channels { rounded + 8 } else { rounded }
}

/// An inverted residual whose widened channels may be squeezed and excited before they are narrowed. Registers `{name}.{0, 1, ..}`.
fn inverted_residual(
    builder: &mut Builder<'_>,
    name: &str,
    channels_in: usize,
    row: &Row,
) -> Result<InvertedResidual> {
    let &(kernel, width, channels_out, squeeze, swish, stride) = row;
    let activation = if swish { Activation::HardSwish } else { Activation::Relu };
    let mut layers: Layers = Vec::new();
    let whole = |builder: &mut Builder<'_>, index: usize, conv, activation| {
        let names = (&*format!("{name}.{index}.0"), &*format!("{name}.{index}.1"));
        ConvNorm::new(builder, names, conv, NORM, activation)
    };
    if width != channels_in {
        layers.push(Box::new(whole(builder, 0, Conv::same(channels_in, width, 1, 1), activation)?));
    }
    layers.push(Box::new(whole(builder, layers.len(), Conv::depthwise(width, kernel, stride), activation)?));
    if squeeze {
        let name = format!("{name}.{}", layers.len());
        let activations = (Activation::Relu, Activation::HardSigmoid);
        layers.push(Box::new(SqueezeExcite::new(
            builder,
            &name,
            (width, divisible(width / 4)),
            activations,
        )?));
    }
    let conv = Conv::same(width, channels_out, 1, 1);
    let project = whole(builder, layers.len(), conv, Activation::Identity)?;
    Ok(InvertedResidual { layers, project, is_residual: stride == 1 && channels_in == channels_out })
}

/// torchvision's name of a layer of a network with so many blocks in each of timm's stages, of which some squeeze.
fn translate(parts: &[&str], stages: &[usize], squeezed: &[usize]) -> Option<String> {
    let last = stages.iter().sum::<usize>();
    Some(match parts {
        ["conv_stem"] => "features.0.0".to_owned(),
        ["bn1"] => "features.0.1".to_owned(),
        // timm pools before this layer, so that it is a convolution; torchvision's is linear.
        ["conv_head"] => "classifier.0".to_owned(),
        ["classifier"] => "classifier.3".to_owned(),
        ["blocks", stage, block, layer @ ..] => {
            let (stage, at) = place(stages, stage, block)?;
            if stage + 1 == stages.len() {
                return match layer {
                    ["conv"] => Some(format!("features.{last}.0")),
                    ["bn1"] => Some(format!("features.{last}.1")),
                    _ => None,
                };
            }
            let layer = layer_of_block(stage > 0, squeezed.contains(&stage), layer)?;
            format!("features.{}.block.{layer}", at + 1)
        }
        _ => return None,
    })
}

/// As [`Family::looks_like`].
fn looks_like(file: &TensorShapes<'_>) -> Option<(&'static str, &'static str)> {
    if file.has("conv_stem.weight") && file.has("conv_head.bias") {
        if file.has("blocks.6.0.conv.weight") {
            return Some(("mobilenet_v3_large", "timm"));
        }
        return file.has("blocks.0.0.se.conv_reduce.weight").then_some(("mobilenet_v3_small", "timm"));
    }
    let is_small = file.has("features.1.block.1.fc1.weight");
    let name = if is_small { "mobilenet_v3_small" } else { "mobilenet_v3_large" };
    file.has("features.1.block.0.0.weight").then_some((name, "torchvision"))
}

/// Weights that people publish.
#[rustfmt::skip]
const KNOWN: &[KnownWeights] = &[
    known("torchvision/mobilenet_v3_small.IMAGENET1K_V1", "mobilenet_v3_small", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "mobilenet_v3_small-047dcff4.pth"),
    known("torchvision/mobilenet_v3_large.IMAGENET1K_V1", "mobilenet_v3_large", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "mobilenet_v3_large-8738ca79.pth"),
    known("torchvision/mobilenet_v3_large.IMAGENET1K_V2", "mobilenet_v3_large", "bsd-3-clause", 224, 0.9655, Filter::Bilinear, IMAGENET, 1000, "mobilenet_v3_large-5c1a4163.pth"),
    known("timm/mobilenetv3_small_100.lamb_in1k", "mobilenet_v3_small", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "mobilenetv3_small_100_lamb-266a294c.pth"),
    known("timm/mobilenetv3_large_100.miil_in21k", "mobilenet_v3_large", "apache-2.0", 224, 0.875, Filter::Bilinear, NONE, 11221, "mobilenetv3_large_100_in21k_miil-d71cc17b.pth"),
    known("timm/mobilenetv3_large_100.miil_in21k_ft_in1k", "mobilenet_v3_large", "apache-2.0", 224, 0.875, Filter::Bilinear, NONE, 1000, "mobilenetv3_large_100_1k_miil_78_0-66471c13.pth"),
    known("timm/mobilenetv3_large_100.ra4_e3600_r224_in1k", "mobilenet_v3_large", "apache-2.0", 224, 0.95, Filter::Bicubic, HALF, 1000, ""),
    known("timm/mobilenetv3_large_100.ra_in1k", "mobilenet_v3_large", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "mobilenetv3_large_100_ra-f55367f5.pth"),
];
