//! Very deep convolutional networks (Simonyan and Zisserman, arXiv 1409.1556), with torchvision's names and, under the
//! names that end in `_bn`, its batch normalisation.

use candle_core::Result;

use super::family::{Family, Variant};
use super::layers::{
    Activate, AdaptiveAveragePool, Conv, ConvBiasRelu, Dropout, Layers, Linear, LinearInit, MaxPool,
};
use super::{Head, Network, Parts};
use crate::ops::{Activation, Pooling};

/// VGG of four depths, without and with batch normalisation.
pub const FAMILY: Family = Family {
    variants: &[
        Variant { name: "vgg11", build: |parts, head| VGG11.build(parts, head) },
        Variant { name: "vgg13", build: |parts, head| VGG13.build(parts, head) },
        Variant { name: "vgg16", build: |parts, head| VGG16.build(parts, head) },
        Variant { name: "vgg19", build: |parts, head| VGG19.build(parts, head) },
        Variant { name: "vgg11_bn", build: |parts, head| VGG11.with_norm().build(parts, head) },
        Variant { name: "vgg13_bn", build: |parts, head| VGG13.with_norm().build(parts, head) },
        Variant { name: "vgg16_bn", build: |parts, head| VGG16.with_norm().build(parts, head) },
        Variant { name: "vgg19_bn", build: |parts, head| VGG19.with_norm().build(parts, head) },
    ],
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
