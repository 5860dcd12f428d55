//! EfficientNet-B0 (Tan and Le, arXiv 1905.11946), with torchvision's names. Stochastic depth, which the paper trains
//! ImageNet with, is left out: fine-tuning goes without it.

use candle_core::Result;

use super::family::{Family, Variant};
use super::layers::{
    Conv, ConvNorm, GlobalAveragePool, InvertedResidual, Layers, LinearInit, Norm, SqueezeExcite,
};
use super::{Head, Network, Parts};
use crate::ops::Activation;
use crate::params::Builder;

/// EfficientNet-B0.
pub const FAMILY: Family = Family { variants: &[Variant { name: "efficientnet_b0", build }] };

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
