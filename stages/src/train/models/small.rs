//! `small`: a residual network for small images that trains on a laptop's CPU.

use candle_core::{Result, Tensor};

use super::Network;
use super::layers::{ConvNorm, ConvSizes, Linear};
use super::resnet::BasicBlock;
use crate::train::ops::{self, Activation};
use crate::train::params::{Builder, Pass};

/// Nine layers: a 3 x 3 stem of 32 channels at full size, four residual blocks of 32, 64, 128 and 256 channels,
/// each after the first at half the size, the mean over the plane, a linear classifier `fc`. The stem is that
/// of the CIFAR networks of arXiv 1512.03385, section 4.2. About 1.2 million parameters and 67 million
/// multiplications per 32 x 32 image; their number grows with the area, so that from about 128 pixels on
/// `resnet18`, which first divides the size by four, costs less.
#[derive(Debug)]
pub struct Small {
    stem: ConvNorm,
    blocks: Vec<BasicBlock>,
    head: Linear,
}

impl Small {
    /// Registers `conv1`, `bn1`, `layer1.0` to `layer4.0` and `fc`.
    ///
    /// # Errors
    /// When the device cannot hold the tensors.
    pub fn new(builder: &mut Builder<'_>, classes: usize) -> Result<Small> {
        let sizes = ConvSizes { channels_in: 3, channels_out: 32, kernel: 3, stride: 1 };
        let stem = ConvNorm::new(builder, ("conv1", "bn1"), sizes, Activation::Relu)?;
        let mut blocks = Vec::new();
        let mut channels_in = 32;
        for (stage, channels) in [32, 64, 128, 256].into_iter().enumerate() {
            let stride = if stage > 0 { 2 } else { 1 };
            let name = format!("layer{}.0", stage + 1);
            blocks.push(BasicBlock::new(builder, &name, channels_in, channels, stride)?);
            channels_in = channels;
        }
        Ok(Small { stem, blocks, head: Linear::new(builder, "fc", channels_in, classes)? })
    }
}

impl Network for Small {
    fn forward(&self, images: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let mut x = self.stem.forward(images, pass)?;
        for block in &self.blocks {
            x = block.forward(&x, pass)?;
        }
        self.head.forward(&ops::global_average_pool(&x)?, pass)
    }

    fn head(&self) -> &'static str {
        "fc"
    }
}
