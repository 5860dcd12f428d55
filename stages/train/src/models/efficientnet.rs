//! EfficientNet-B0 (Tan and Le, arXiv 1905.11946), with torchvision's names. Stochastic depth, which the paper trains
//! ImageNet with, is left out: fine-tuning goes without it.

use candle_core::Result;
use forebay_stages::resize::Filter;

use super::family::{Family, TensorShapes, Variant};
use super::known_weights::{HALF, IMAGENET, KnownWeights, known};
use super::layers::{
    Conv, ConvNorm, GlobalAveragePool, InvertedResidual, Layers, LinearInit, Norm, SqueezeExcite,
};
use super::timm_blocks::{self, layer_of_block, place};
use super::{Head, Network, Parts};
use crate::ops::Activation;
use crate::params::Builder;

/// EfficientNet-B0.
pub const FAMILY: Family = Family {
    variants: &[Variant::new("efficientnet_b0", Some("efficientnet_b0"), build)],
    translate: |_, layer| translate(layer),
    looks_like,
    prefixes: &[],
    passed_over: &[],
    norm_epsilons: &[],
    timm: Some(timm_blocks::TIMM),
    known: KNOWN,
};

/// Expansion, kernel, stride of the first block, channels of the output, blocks: table 1 of the paper.
const STAGES: [(usize, usize, usize, usize, usize); 7] = [
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
];

/// Registers `features.0` to `features.8` and `classifier.1`. Parts: `features.0` to `features.8`, `head`.
fn build(mut parts: Parts<'_, '_>, head: &Head) -> Result<Network> {
    parts.add("features.0", |builder| {
        Ok(vec![Box::new(whole(builder, "features.0", Conv::same(3, 32, 3, 2), Activation::Silu)?)])
    })?;
    let mut channels = 32;
    for (index, (expansion, kernel, stride, channels_out, count)) in STAGES.into_iter().enumerate() {
        let name = format!("features.{}", index + 1);
        parts.add(&name, |builder| {
            let mut layers: Layers = Vec::new();
            for block in 0..count {
                let name = format!("{name}.{block}.block");
                let stride = if block == 0 { stride } else { 1 };
                let sizes = (channels, expansion, channels_out);
                layers.push(Box::new(inverted_residual(builder, &name, sizes, (kernel, stride))?));
                channels = channels_out;
            }
            Ok(layers)
        })?;
    }
    parts.add("features.8", |builder| {
        let last = whole(builder, "features.8", Conv::same(channels, 1280, 1, 1), Activation::Silu)?;
        Ok(vec![Box::new(last), Box::new(GlobalAveragePool)])
    })?;
    parts.finish("classifier.1", 1280, head, (0.2, LinearInit::Uniform), 1)
}

fn whole(builder: &mut Builder<'_>, name: &str, conv: Conv, activation: Activation) -> Result<ConvNorm> {
    ConvNorm::new(builder, (&format!("{name}.0"), &format!("{name}.1")), conv, Norm::DEFAULT, activation)
}

/// An inverted residual with squeeze-and-excitation, whose squeezed features are a quarter of the block's input. Registers `{name}.{0, 1, ..}`.
fn inverted_residual(
    builder: &mut Builder<'_>,
    name: &str,
    (channels_in, expansion, channels_out): (usize, usize, usize),
    (kernel, stride): (usize, usize),
) -> Result<InvertedResidual> {
    let width = channels_in * expansion;
    let mut layers: Layers = Vec::new();
    if expansion != 1 {
        let conv = Conv::same(channels_in, width, 1, 1);
        layers.push(Box::new(whole(builder, &format!("{name}.0"), conv, Activation::Silu)?));
    }
    let depthwise = Conv::depthwise(width, kernel, stride);
    layers.push(Box::new(whole(builder, &format!("{name}.{}", layers.len()), depthwise, Activation::Silu)?));
    let squeeze = format!("{name}.{}", layers.len());
    let activations = (Activation::Silu, Activation::Sigmoid);
    let sizes = (width, (channels_in / 4).max(1));
    layers.push(Box::new(SqueezeExcite::new(builder, &squeeze, sizes, activations)?));
    let conv = Conv::same(width, channels_out, 1, 1);
    let project = whole(builder, &format!("{name}.{}", layers.len()), conv, Activation::Identity)?;
    Ok(InvertedResidual { layers, project, is_residual: stride == 1 && channels_in == channels_out })
}

/// As [`Family::translate`], whatever the network.
fn translate(parts: &[&str]) -> Option<String> {
    Some(match parts {
        ["conv_stem"] => "features.0.0".to_owned(),
        ["bn1"] => "features.0.1".to_owned(),
        ["conv_head"] => "features.8.0".to_owned(),
        ["bn2"] => "features.8.1".to_owned(),
        ["classifier"] => "classifier.1".to_owned(),
        ["blocks", stage, block, layer @ ..] => {
            let (at, _) = place(&[1, 2, 2, 3, 3, 4, 1], stage, block)?;
            let layer = layer_of_block(at > 0, true, layer)?;
            format!("features.{}.{block}.block.{layer}", at + 1)
        }
        _ => return None,
    })
}

/// As [`Family::looks_like`].
fn looks_like(file: &TensorShapes<'_>) -> Option<(&'static str, &'static str)> {
    let squeezes = file.has("blocks.0.0.se.conv_reduce.weight");
    if file.has("conv_stem.weight") && squeezes && !file.has("conv_head.bias") {
        return Some(("efficientnet_b0", "timm"));
    }
    file.has("features.1.0.block.0.0.weight").then_some(("efficientnet_b0", "torchvision"))
}

/// Weights that people publish.
#[rustfmt::skip]
const KNOWN: &[KnownWeights] = &[
    known("torchvision/efficientnet_b0.IMAGENET1K_V1", "efficientnet_b0", "bsd-3-clause", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "efficientnet_b0_rwightman-7f5810bc.pth"),
    known("timm/efficientnet_b0.ra4_e3600_r224_in1k", "efficientnet_b0", "apache-2.0", 224, 0.9, Filter::Bicubic, HALF, 1000, ""),
    known("timm/efficientnet_b0.ra_in1k", "efficientnet_b0", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "efficientnet_b0_ra-3dd342df.pth"),
];
