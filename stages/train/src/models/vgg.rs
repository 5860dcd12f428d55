//! Very deep convolutional networks (Simonyan and Zisserman, arXiv 1409.1556), with torchvision's names and, under the
//! names that end in `_bn`, its batch normalisation.

use candle_core::Result;
use forebay_stages::resize::Filter;

use super::family::{Family, TensorShapes, Timm, Variant};
use super::known_weights::{IMAGENET, KnownWeights, known};
use super::layers::{
    Activate, AdaptiveAveragePool, Conv, ConvBiasRelu, Dropout, Layers, Linear, LinearInit, MaxPool,
};
use super::{Head, Network, Parts};
use crate::ops::{Activation, Pooling};

/// VGG of four depths, without and with batch normalisation.
pub const FAMILY: Family = Family {
    variants: &[
        Variant::new("vgg11", Some("vgg11"), |parts, head| VGG11.build(parts, head)),
        Variant::new("vgg13", Some("vgg13"), |parts, head| VGG13.build(parts, head)),
        Variant::new("vgg16", Some("vgg16"), |parts, head| VGG16.build(parts, head)),
        Variant::new("vgg19", Some("vgg19"), |parts, head| VGG19.build(parts, head)),
        Variant::new("vgg11_bn", Some("vgg11_bn"), |parts, head| VGG11.with_norm().build(parts, head)),
        Variant::new("vgg13_bn", Some("vgg13_bn"), |parts, head| VGG13.with_norm().build(parts, head)),
        Variant::new("vgg16_bn", Some("vgg16_bn"), |parts, head| VGG16.with_norm().build(parts, head)),
        Variant::new("vgg19_bn", Some("vgg19_bn"), |parts, head| VGG19.with_norm().build(parts, head)),
    ],
    translate: |_, layer| translate(layer),
    looks_like,
    prefixes: &[],
    passed_over: &[],
    norm_epsilons: &[],
    timm: Some(Timm {
        layers: || ["pre_logits.fc1", "pre_logits.fc2", "head.fc"].map(String::from).into(),
        first_conv: "features.0",
        classifier: "head.fc",
        convolutions: &[("pre_logits.fc1", 7), ("pre_logits.fc2", 1)],
    }),
    known: KNOWN,
};

const VGG11: Vgg = Vgg { convolutions: [1, 1, 2, 2, 2], norm: false };
const VGG13: Vgg = Vgg { convolutions: [2, 2, 2, 2, 2], norm: false };
const VGG16: Vgg = Vgg { convolutions: [2, 2, 3, 3, 3], norm: false };
const VGG19: Vgg = Vgg { convolutions: [2, 2, 4, 4, 4], norm: false };

/// Five blocks of 3 x 3 convolutions, each followed by a pool that halves the size, then a grid of 7 x 7 means and
/// three fully connected layers. Parts: `block1` to `block5`, `classifier`, `head`.
#[derive(Clone, Copy, Debug)]
struct Vgg {
    /// Convolutions of each block (table 1 of the paper, columns A, B, D and E).
    convolutions: [usize; 5],
    /// Batch normalisation after each convolution.
    norm: bool,
}

impl Vgg {
    /// The same network with batch normalisation.
    fn with_norm(self) -> Vgg {
        Vgg { norm: true, ..self }
    }

    /// Registers `features.{index}` and `classifier.{0, 3, 6}`, numbered as in torchvision, where activations and pools
    /// have numbers too.
    fn build(self, mut parts: Parts<'_, '_>, head: &Head) -> Result<Network> {
        let (mut index, mut channels_in) = (0, 3);
        for (block, (&count, channels)) in self.convolutions.iter().zip([64, 128, 256, 512, 512]).enumerate()
        {
            parts.add(&format!("block{}", block + 1), |builder| {
                let mut layers: Layers = Vec::new();
                for _ in 0..count {
                    let norm = self.norm.then(|| format!("features.{}", index + 1));
                    let conv = Conv::same(channels_in, channels, 3, 1);
                    let name = format!("features.{index}");
                    layers.push(Box::new(ConvBiasRelu::new(builder, &name, norm.as_deref(), conv)?));
                    index += if self.norm { 3 } else { 2 };
                    channels_in = channels;
                }
                index += 1;
                layers.push(Box::new(MaxPool(Pooling { window: 2, stride: 2, padding: 0, ceil: false })));
                Ok(layers)
            })?;
        }
        let init = LinearInit::Normal(0.01);
        parts.add("classifier", |builder| {
            let dropout = |name: &str| Box::new(Dropout { name: name.to_owned(), probability: 0.5 });
            Ok(vec![
                Box::new(AdaptiveAveragePool(7, 7)),
                Box::new(Linear::new(builder, "classifier.0", (512 * 7 * 7, 4096), init)?),
                Box::new(Activate(Activation::Relu)),
                dropout("classifier.2"),
                Box::new(Linear::new(builder, "classifier.3", (4096, 4096), init)?),
                Box::new(Activate(Activation::Relu)),
            ])
        })?;
        parts.finish("classifier.6", 4096, head, (0.5, init), 32)
    }
}

/// As [`Family::translate`], whatever the network.
fn translate(parts: &[&str]) -> Option<String> {
    // timm keeps the first two linear layers as convolutions over the whole plane.
    let name = match parts {
        ["pre_logits", "fc1"] => "classifier.0",
        ["pre_logits", "fc2"] => "classifier.3",
        // A head with a hidden layer has two of them.
        ["head", "fc", layer] => return Some(format!("classifier.6.{layer}")),
        ["head", "fc"] => "classifier.6",
        _ => return None,
    };
    Some(name.to_owned())
}

/// As [`Family::looks_like`].
fn looks_like(file: &TensorShapes<'_>) -> Option<(&'static str, &'static str)> {
    file.shape("features.0.weight").filter(|shape| *shape == [64, 3, 3, 3])?;
    let convolutions = file.count(|name, shape| name.starts_with("features.") && shape.len() == 4);
    let norms = file.count(|name, _| name.starts_with("features.") && name.ends_with(".running_mean"));
    let name = match (convolutions, norms > 0) {
        (8, false) => "vgg11",
        (10, false) => "vgg13",
        (13, false) => "vgg16",
        (16, false) => "vgg19",
        (8, true) => "vgg11_bn",
        (10, true) => "vgg13_bn",
        (13, true) => "vgg16_bn",
        (16, true) => "vgg19_bn",
        _ => return None,
    };
    Some((name, if file.has("head.fc.weight") { "timm" } else { "torchvision" }))
}

/// torchvision's weights first, which share files with some of timm's.
#[rustfmt::skip]
const KNOWN: &[KnownWeights] = &[
    known("torchvision/vgg11.IMAGENET1K_V1", "vgg11", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "vgg11-8a719046.pth"),
    known("torchvision/vgg11_bn.IMAGENET1K_V1", "vgg11_bn", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "vgg11_bn-6002323d.pth"),
    known("torchvision/vgg13.IMAGENET1K_V1", "vgg13", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "vgg13-19584684.pth"),
    known("torchvision/vgg13_bn.IMAGENET1K_V1", "vgg13_bn", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "vgg13_bn-abd245e5.pth"),
    known("torchvision/vgg16.IMAGENET1K_V1", "vgg16", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "vgg16-397923af.pth"),
    known("torchvision/vgg16_bn.IMAGENET1K_V1", "vgg16_bn", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "vgg16_bn-6c64b313.pth"),
    known("torchvision/vgg19.IMAGENET1K_V1", "vgg19", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "vgg19-dcbb9e9d.pth"),
    known("torchvision/vgg19_bn.IMAGENET1K_V1", "vgg19_bn", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "vgg19_bn-c79401a0.pth"),
    known("timm/vgg11.tv_in1k", "vgg11", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, ""),
    known("timm/vgg11_bn.tv_in1k", "vgg11_bn", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, ""),
    known("timm/vgg13.tv_in1k", "vgg13", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, ""),
    known("timm/vgg13_bn.tv_in1k", "vgg13_bn", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, ""),
    known("timm/vgg16.tv_in1k", "vgg16", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, ""),
    known("timm/vgg16_bn.tv_in1k", "vgg16_bn", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, ""),
    known("timm/vgg19.tv_in1k", "vgg19", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, ""),
    known("timm/vgg19_bn.tv_in1k", "vgg19_bn", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, ""),
];
