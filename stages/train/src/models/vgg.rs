//! Very deep convolutional networks (Simonyan and Zisserman, arXiv 1409.1556), with torchvision's names and, under the
//! names that end in `_bn`, its batch normalisation.

use candle_core::Result;

use super::layers::{
    Activate, AdaptiveAveragePool, Conv, ConvBiasRelu, Dropout, Layers, Linear, LinearInit, MaxPool,
};
use super::{Head, Network, Parts};
use crate::ops::{Activation, Pooling};

/// Five blocks of 3 x 3 convolutions, each followed by a pool that halves the size, then a grid of 7 x 7 means and
/// three fully connected layers. Parts: `block1` to `block5`, `classifier`, `head`.
#[derive(Clone, Copy, Debug)]
pub struct Vgg {
    /// Convolutions of each block (table 1 of the paper, columns A, B, D and E).
    pub convolutions: [usize; 5],
    /// Batch normalisation after each convolution.
    pub norm: bool,
}

impl Vgg {
    /// The network called `name`, if it is one of this family.
    pub fn named(name: &str) -> Option<Vgg> {
        let (name, norm) = name.strip_suffix("_bn").map_or((name, false), |name| (name, true));
        let convolutions = match name {
            "vgg11" => [1, 1, 2, 2, 2],
            "vgg13" => [2, 2, 2, 2, 2],
            "vgg16" => [2, 2, 3, 3, 3],
            "vgg19" => [2, 2, 4, 4, 4],
            _ => return None,
        };
        Some(Vgg { convolutions, norm })
    }

    /// Registers `features.{index}` and `classifier.{0, 3, 6}`, numbered as in torchvision, where activations and pools
    /// have numbers too.
    pub(super) fn build(&self, mut parts: Parts<'_, '_>, head: &Head) -> Result<Network> {
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
