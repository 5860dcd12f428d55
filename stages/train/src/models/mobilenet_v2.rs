//! MobileNetV2: inverted residuals and linear bottlenecks (Sandler et al., arXiv 1801.04381), with torchvision's names.

use candle_core::Result;

use super::family::{Family, Variant};
use super::layers::{Conv, ConvNorm, GlobalAveragePool, InvertedResidual, Layers, LinearInit, Norm};
use super::{Head, Network, Parts};
use crate::ops::Activation;
use crate::params::Builder;

/// MobileNetV2.
pub const FAMILY: Family = Family { variants: &[Variant { name: "mobilenet_v2", build }] };

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
