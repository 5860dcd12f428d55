//! `small`: a residual network for small images that trains on a laptop's CPU.
//!
//! Nine layers: a 3 x 3 stem of 32 channels at full size, four residual blocks of 32, 64, 128 and 256 channels,
//! each after the first at half the size, the mean over the plane, a linear classifier `fc`. The stem is that
//! of the CIFAR networks of arXiv 1512.03385, section 4.2. About 1.2 million parameters and 67 million
//! multiplications per 32 x 32 image; their number grows with the area, so that from about 128 pixels on
//! `resnet18`, which first divides the size by four, costs less.

use candle_core::Result;

use super::family::{Family, Variant};
use super::resnet::{Block, ResNet, Shortcut, Stem};
use super::{Head, Network, Parts};

/// The only network of its family, and of no other program.
pub const FAMILY: Family = Family {
    variants: &[Variant::new("small", None, build).for_images_of(None)],
    translate: |_, _| None,
    looks_like: |_| None,
    prefixes: &[],
    passed_over: &[],
    norm_epsilons: &[],
    timm: None,
    known: &[],
};

/// Registers `conv1`, `bn1`, `layer1.0` to `layer4.0` and `fc`.
fn build(parts: Parts<'_, '_>, head: &Head) -> Result<Network> {
    let shortcut = Shortcut::Projection;
    let small = ResNet { stem: Stem::Small, block: Block::Basic, blocks: &[1, 1, 1, 1], width: 32, shortcut };
    small.build(parts, head)
}
