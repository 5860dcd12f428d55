//! MobileNetV2: inverted residuals and linear bottlenecks (Sandler et al., arXiv 1801.04381), with torchvision's names.

use candle_core::Result;
use forebay_stages::resize::Filter;

use super::family::{Family, TensorShapes, Variant};
use super::known_weights::{IMAGENET, KnownWeights, known};
use super::layers::{Conv, ConvNorm, GlobalAveragePool, InvertedResidual, Layers, LinearInit, Norm};
use super::timm_blocks::{self, place};
use super::{Head, Network, Parts};
use crate::ops::Activation;
use crate::params::Builder;

/// MobileNetV2.
pub const FAMILY: Family = Family {
    variants: &[Variant::new("mobilenet_v2", Some("mobilenetv2_100"), build)],
    translate: |_, layer| translate(layer),
    looks_like,
    prefixes: &["mobilenet_v2."],
    passed_over: &[],
    // TensorFlow's constant.
    norm_epsilons: &[("transformers", (1e-3, 1e-5))],
    timm: Some(timm_blocks::TIMM),
    known: KNOWN,
};

/// Expansion, channels of the output, blocks, stride of the first block: table 2 of the paper.
const BLOCKS: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];

/// Registers `features.0` to `features.18` and `classifier.1`. Parts: `features.0` to `features.18`, `head`.
fn build(mut parts: Parts<'_, '_>, head: &Head) -> Result<Network> {
    let whole = |builder: &mut Builder<'_>, name: &str, conv| {
        let names = (&*format!("{name}.0"), &*format!("{name}.1"));
        ConvNorm::new(builder, names, conv, Norm::DEFAULT, Activation::Relu6)
    };
    parts.add("features.0", |builder| {
        Ok(vec![Box::new(whole(builder, "features.0", Conv::same(3, 32, 3, 2))?)])
    })?;
    let (mut channels_in, mut index) = (32, 1);
    for (expansion, channels, count, stride) in BLOCKS {
        for block in 0..count {
            let name = format!("features.{index}");
            let stride = if block == 0 { stride } else { 1 };
            let sizes = (channels_in, expansion, channels, stride);
            parts.add(&name, |builder| Ok(vec![Box::new(inverted_residual(builder, &name, sizes)?)]))?;
            channels_in = channels;
            index += 1;
        }
    }
    parts.add("features.18", |builder| {
        let last = whole(builder, "features.18", Conv::same(channels_in, 1280, 1, 1))?;
        Ok(vec![Box::new(last), Box::new(GlobalAveragePool)])
    })?;
    parts.finish("classifier.1", 1280, head, (0.2, LinearInit::Normal(0.01)), 1)
}

/// A 1 x 1 convolution that widens, a depthwise 3 x 3, a 1 x 1 that narrows and is followed by no activation; where
/// the shape stays, the input is added. Registers `{name}.conv.{..}`.
fn inverted_residual(
    builder: &mut Builder<'_>,
    name: &str,
    (channels_in, expansion, channels_out, stride): (usize, usize, usize, usize),
) -> Result<InvertedResidual> {
    let width = channels_in * expansion;
    let mut index = 0;
    let mut layer = |builder: &mut Builder<'_>, conv| {
        let names = (&*format!("{name}.conv.{index}.0"), &*format!("{name}.conv.{index}.1"));
        index += 1;
        ConvNorm::new(builder, names, conv, Norm::DEFAULT, Activation::Relu6)
    };
    let mut layers: Layers = Vec::new();
    if expansion != 1 {
        layers.push(Box::new(layer(builder, Conv::same(channels_in, width, 1, 1))?));
    }
    layers.push(Box::new(layer(builder, Conv::depthwise(width, 3, stride))?));
    let names = (&*format!("{name}.conv.{index}"), &*format!("{name}.conv.{}", index + 1));
    let conv = Conv::same(width, channels_out, 1, 1);
    let project = ConvNorm::new(builder, names, conv, Norm::DEFAULT, Activation::Identity)?;
    Ok(InvertedResidual { layers, project, is_residual: stride == 1 && channels_in == channels_out })
}

/// As [`Family::translate`], whatever the network.
fn translate(parts: &[&str]) -> Option<String> {
    Some(match parts {
        // timm, whose first block has no expansion.
        ["conv_stem"] => "features.0.0".to_owned(),
        ["bn1"] => "features.0.1".to_owned(),
        ["conv_head"] => "features.18.0".to_owned(),
        ["bn2"] => "features.18.1".to_owned(),
        ["classifier"] => "classifier.1".to_owned(),
        ["blocks", stage, block, layer] => {
            let (stage, at) = place(&[1, 2, 3, 4, 3, 3, 1], stage, block)?;
            let layer = match (stage, *layer) {
                (0, "conv_dw") => "0.0",
                (0, "bn1") => "0.1",
                (0, "conv_pw") => "1",
                (0, "bn2") => "2",
                (1.., "conv_pw") => "0.0",
                (1.., "bn1") => "0.1",
                (1.., "conv_dw") => "1.0",
                (1.., "bn2") => "1.1",
                (1.., "conv_pwl") => "2",
                (1.., "bn3") => "3",
                _ => return None,
            };
            format!("features.{}.conv.{layer}", at + 1)
        }
        // Transformers, which counts the first block to the stem.
        ["conv_stem", "first_conv", part] => format!("features.0.{}", conv_or_norm(part)?),
        ["conv_stem", "conv_3x3", part] => format!("features.1.conv.0.{}", conv_or_norm(part)?),
        ["conv_stem", "reduce_1x1", part] => format!("features.1.conv.{}", conv_or_norm(part)? + 1),
        ["conv_1x1", part] => format!("features.18.{}", conv_or_norm(part)?),
        ["layer", block, layer, part] => {
            let block = block.parse::<usize>().ok().filter(|block| *block < 16)? + 2;
            match *layer {
                "expand_1x1" => format!("features.{block}.conv.0.{}", conv_or_norm(part)?),
                "conv_3x3" => format!("features.{block}.conv.1.{}", conv_or_norm(part)?),
                "reduce_1x1" => format!("features.{block}.conv.{}", conv_or_norm(part)? + 2),
                _ => return None,
            }
        }
        _ => return None,
    })
}

/// Where one of the two layers that transformers keeps together stands in torchvision.
fn conv_or_norm(part: &str) -> Option<usize> {
    match part {
        "convolution" => Some(0),
        "normalization" => Some(1),
        _ => None,
    }
}

/// As [`Family::looks_like`].
fn looks_like(file: &TensorShapes<'_>) -> Option<(&'static str, &'static str)> {
    if file.has("conv_stem.first_conv.convolution.weight") {
        return Some(("mobilenet_v2", "transformers"));
    }
    let squeezes = file.has("blocks.0.0.se.conv_reduce.weight");
    if file.has("conv_stem.weight") && !squeezes && !file.has("conv_head.bias") {
        return Some(("mobilenet_v2", "timm"));
    }
    file.has("features.1.conv.0.0.weight").then_some(("mobilenet_v2", "torchvision"))
}

/// Weights that people publish.
#[rustfmt::skip]
const KNOWN: &[KnownWeights] = &[
    known("torchvision/mobilenet_v2.IMAGENET1K_V1", "mobilenet_v2", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "mobilenet_v2-b0353104.pth"),
    known("torchvision/mobilenet_v2.IMAGENET1K_V2", "mobilenet_v2", "bsd-3-clause", 224, 0.9655, Filter::Bilinear, IMAGENET, 1000, "mobilenet_v2-7ebf99e0.pth"),
    known("timm/mobilenetv2_100.ra_in1k", "mobilenet_v2", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "mobilenetv2_100_ra-b33bc2c4.pth"),
];
