//! Deep residual networks (He et al., arXiv 1512.03385), under the names and with the arithmetic of torchvision.
//!
//! Section 3.4 of the paper has the networks for images of about 224 pixels, section 4.2 those for 32 pixels. Where its
//! shape changes, a shortcut of the former is a 1 x 1 convolution (option B). Those of the latter have no parameters
//! (option A), as in the paper, or are convolutions in the networks whose names end with `_b`. The stride of a bottleneck
//! is in its 3 x 3 convolution, as in torchvision.

use candle_core::{Result, Tensor};
use forebay_stages::resize::Filter;

use super::family::{Family, TensorShapes, Timm, Variant};
use super::known_weights::{HALF, IMAGENET, KnownWeights, known};
use super::layers::{Conv, ConvNorm, GlobalAveragePool, Layer, LinearInit, MaxPool, Norm};
use super::{Head, Network, Parts};
use crate::onnx::{Graph, Value};
use crate::ops::{self, Activation, Pooling};
use crate::params::{Builder, Pass};

/// Residual networks of both sections, and those of section 3.4 with the stem of section 4.2.
pub const FAMILY: Family = Family {
    variants: &[
        Variant::new("resnet18", Some("resnet18"), |parts, head| RESNET18.build(parts, head)),
        Variant::new("resnet34", Some("resnet34"), |parts, head| RESNET34.build(parts, head)),
        Variant::new("resnet50", Some("resnet50"), |parts, head| RESNET50.build(parts, head)),
        Variant::new("resnet101", Some("resnet101"), |parts, head| RESNET101.build(parts, head)),
        // Those for small images are in no other library.
        Variant::new("resnet20", None, |parts, head| RESNET20.build(parts, head)).for_images_of(Some(32)),
        Variant::new("resnet32", None, |parts, head| RESNET32.build(parts, head)).for_images_of(Some(32)),
        Variant::new("resnet56", None, |parts, head| RESNET56.build(parts, head)).for_images_of(Some(32)),
        Variant::new("resnet20_b", None, |parts, head| RESNET20.with_projections().build(parts, head))
            .for_images_of(Some(32)),
        Variant::new("resnet32_b", None, |parts, head| RESNET32.with_projections().build(parts, head))
            .for_images_of(Some(32)),
        Variant::new("resnet56_b", None, |parts, head| RESNET56.with_projections().build(parts, head))
            .for_images_of(Some(32)),
        Variant::new("cifar_resnet18", None, |parts, head| RESNET18.with_small_stem().build(parts, head))
            .for_images_of(Some(32)),
        Variant::new("cifar_resnet34", None, |parts, head| RESNET34.with_small_stem().build(parts, head))
            .for_images_of(Some(32)),
        Variant::new("cifar_resnet50", None, |parts, head| RESNET50.with_small_stem().build(parts, head))
            .for_images_of(Some(32)),
    ],
    translate: |_, layer| translate(layer),
    looks_like,
    prefixes: &["resnet."],
    passed_over: &[],
    norm_epsilons: &[],
    // timm and torchvision agree.
    timm: Some(Timm { layers: Vec::new, first_conv: "conv1", classifier: "fc", convolutions: &[] }),
    known: KNOWN,
};

const RESNET18: ResNet = ResNet::large(Block::Basic, &[2, 2, 2, 2]);
const RESNET34: ResNet = ResNet::large(Block::Basic, &[3, 4, 6, 3]);
const RESNET50: ResNet = ResNet::large(Block::Bottleneck, &[3, 4, 6, 3]);
const RESNET101: ResNet = ResNet::large(Block::Bottleneck, &[3, 4, 23, 3]);
const RESNET20: ResNet = ResNet::small(&[3, 3, 3]);
const RESNET32: ResNet = ResNet::small(&[5, 5, 5]);
const RESNET56: ResNet = ResNet::small(&[9, 9, 9]);

/// What comes before the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stem {
    /// A 7 x 7 convolution and a pool that divide the size by four.
    Large,
    /// A 3 x 3 convolution at full size.
    Small,
}

/// Which block the stages are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// Two 3 x 3 convolutions (figure 5 left).
    Basic,
    /// A 1 x 1, a 3 x 3 and a 1 x 1 convolution to four times as many channels (figure 5 right).
    Bottleneck,
}

/// What a shortcut is where its shape changes (section 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortcut {
    /// Option A: every second pixel, and zeros for the new channels.
    ZeroPadded,
    /// Option B: a 1 x 1 convolution.
    Projection,
}

/// A residual network: a stem, stages of blocks of which each after the first has twice the channels at half the size,
/// the mean over the plane, a classifier `fc`. Parts: `conv1`, `layer1`, ..., `head`.
#[derive(Clone, Copy, Debug)]
pub struct ResNet {
    /// What comes before the blocks.
    pub stem: Stem,
    /// Which block.
    pub block: Block,
    /// Blocks of each stage.
    pub blocks: &'static [usize],
    /// Channels of the stem and of the first stage.
    pub width: usize,
    /// Where the shape changes.
    pub shortcut: Shortcut,
}

impl ResNet {
    /// A network of section 3.4.
    const fn large(block: Block, blocks: &'static [usize]) -> ResNet {
        ResNet { stem: Stem::Large, block, blocks, width: 64, shortcut: Shortcut::Projection }
    }

    /// A network of section 4.2.
    const fn small(blocks: &'static [usize]) -> ResNet {
        ResNet { stem: Stem::Small, block: Block::Basic, blocks, width: 16, shortcut: Shortcut::ZeroPadded }
    }

    /// The same network with convolutions as shortcuts.
    fn with_projections(self) -> ResNet {
        ResNet { shortcut: Shortcut::Projection, ..self }
    }

    /// The same network with the stem for small images.
    fn with_small_stem(self) -> ResNet {
        ResNet { stem: Stem::Small, ..self }
    }

    /// Registers `conv1`, `bn1`, `layer{stage}.{block}` and `fc`.
    pub(super) fn build(&self, mut parts: Parts<'_, '_>, head: &Head) -> Result<Network> {
        let conv = match self.stem {
            Stem::Large => Conv::same(3, self.width, 7, 2),
            Stem::Small => Conv::same(3, self.width, 3, 1),
        };
        parts.add("conv1", |builder| {
            let stem = ConvNorm::new(builder, ("conv1", "bn1"), conv, Norm::DEFAULT, Activation::Relu)?;
            Ok(match self.stem {
                Stem::Large => vec![
                    Box::new(stem),
                    Box::new(MaxPool(Pooling { window: 3, stride: 2, padding: 1, ceil: false })),
                ],
                Stem::Small => vec![Box::new(stem)],
            })
        })?;
        let mut channels_in = self.width;
        for (stage, &count) in self.blocks.iter().enumerate() {
            let width = self.width << stage;
            let name = format!("layer{}", stage + 1);
            let mut channels = channels_in;
            parts.add(&name, |builder| {
                (0..count)
                    .map(|block| {
                        let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                        let name = format!("{name}.{block}");
                        let residual = Residual::new(builder, &name, self, (channels, width), stride)?;
                        channels = residual.channels_out;
                        Ok(Box::new(residual) as Box<dyn Layer>)
                    })
                    .chain([Ok(Box::new(GlobalAveragePool) as Box<dyn Layer>)])
                    .take(if stage + 1 == self.blocks.len() { count + 1 } else { count })
                    .collect()
            })?;
            channels_in = channels;
        }
        parts.finish("fc", channels_in, head, (0.0, LinearInit::Uniform), 1)
    }
}

/// What stands beside the convolutions of a block.
#[derive(Debug)]
enum Beside {
    /// The input itself.
    Identity,
    /// Every pixel of this stride, between channels of zeros.
    ZeroPadded { name: String, stride: usize },
    /// A 1 x 1 convolution.
    Projection(ConvNorm),
}

/// Convolutions beside a shortcut: `relu(shortcut(x) + f(x))`.
#[derive(Debug)]
struct Residual {
    first: Vec<ConvNorm>,
    last: ConvNorm,
    beside: Beside,
    channels_out: usize,
}

impl Residual {
    /// Registers `{name}.{conv1, bn1, conv2, bn2, ..}` and, where needed, `{name}.downsample.{0, 1}`.
    fn new(
        builder: &mut Builder<'_>,
        name: &str,
        &ResNet { block, shortcut, .. }: &ResNet,
        (channels_in, width): (usize, usize),
        stride: usize,
    ) -> Result<Residual> {
        let mut layer = |convolution: &str, norm: &str, conv: Conv, activation| {
            let names = (&*format!("{name}.{convolution}"), &*format!("{name}.{norm}"));
            ConvNorm::new(builder, names, conv, Norm::DEFAULT, activation)
        };
        let channels_out = match block {
            Block::Basic => width,
            Block::Bottleneck => 4 * width,
        };
        let (first, last) = match block {
            Block::Basic => (
                vec![layer("conv1", "bn1", Conv::same(channels_in, width, 3, stride), Activation::Relu)?],
                layer("conv2", "bn2", Conv::same(width, width, 3, 1), Activation::Relu)?,
            ),
            Block::Bottleneck => (
                vec![
                    layer("conv1", "bn1", Conv::same(channels_in, width, 1, 1), Activation::Relu)?,
                    layer("conv2", "bn2", Conv::same(width, width, 3, stride), Activation::Relu)?,
                ],
                layer("conv3", "bn3", Conv::same(width, channels_out, 1, 1), Activation::Relu)?,
            ),
        };
        let beside = match shortcut {
            _ if stride == 1 && channels_in == channels_out => Beside::Identity,
            Shortcut::ZeroPadded => Beside::ZeroPadded { name: name.to_owned(), stride },
            Shortcut::Projection => {
                let conv = Conv::same(channels_in, channels_out, 1, stride);
                Beside::Projection(layer("downsample.0", "downsample.1", conv, Activation::Identity)?)
            }
        };
        Ok(Residual { first, last, beside, channels_out })
    }
}

impl Layer for Residual {
    fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let beside = match &self.beside {
            Beside::Identity => x.clone(),
            Beside::ZeroPadded { stride, .. } => ops::zero_padded_shortcut(x, *stride, self.channels_out)?,
            Beside::Projection(projection) => projection.forward(x, pass)?,
        };
        let y = self.first.iter().try_fold(x.clone(), |y, layer| layer.forward(&y, pass))?;
        self.last.forward_with(&y, Some(&beside), pass)
    }

    fn export(&self, x: Value, pass: &Pass<'_>, graph: &mut Graph) -> Result<Value> {
        let beside = match &self.beside {
            Beside::Identity => x.clone(),
            Beside::ZeroPadded { name, stride } => {
                graph.zero_padded_shortcut(&x, name, *stride, self.channels_out)?
            }
            Beside::Projection(projection) => projection.export(x.clone(), pass, graph)?,
        };
        let y = self.first.iter().try_fold(x, |y, layer| layer.export(y, pass, graph))?;
        self.last.export_with(y, Some(&beside), pass, graph)
    }
}

/// As [`Family::translate`], whatever the network.
fn translate(parts: &[&str]) -> Option<String> {
    let number = |text: &str| text.parse::<usize>().ok().filter(|number| *number < 1000);
    Some(match parts {
        // Transformers.
        ["embedder", "embedder", "convolution"] => "conv1".to_owned(),
        ["embedder", "embedder", "normalization"] => "bn1".to_owned(),
        ["encoder", "stages", stage, "layers", block, rest @ ..] => {
            let at = format!("layer{}.{}", number(stage)? + 1, number(block)?);
            match rest {
                ["shortcut", "convolution"] => format!("{at}.downsample.0"),
                ["shortcut", "normalization"] => format!("{at}.downsample.1"),
                ["layer", layer, "convolution"] => format!("{at}.conv{}", number(layer)? + 1),
                ["layer", layer, "normalization"] => format!("{at}.bn{}", number(layer)? + 1),
                _ => return None,
            }
        }
        ["classifier", "1"] => "fc".to_owned(),
        // Common CIFAR repositories.
        ["linear"] => "fc".to_owned(),
        [stage, block, "shortcut", part @ ("0" | "1")] if stage.starts_with("layer") => {
            format!("{stage}.{block}.downsample.{part}")
        }
        _ => return None,
    })
}

/// As [`Family::looks_like`].
fn looks_like(file: &TensorShapes<'_>) -> Option<(&'static str, &'static str)> {
    if file.has("embedder.embedder.convolution.weight") {
        let blocks = |stage: usize| {
            let prefix = format!("encoder.stages.{stage}.layers.");
            file.count(|name, _| name.starts_with(&prefix) && name.ends_with(".layer.0.convolution.weight"))
        };
        let is_bottleneck = file.has("encoder.stages.0.layers.0.layer.2.convolution.weight");
        let name = large_of([blocks(0), blocks(1), blocks(2), blocks(3)], is_bottleneck)?;
        return Some((name, "transformers"));
    }
    let stem = file.shape("conv1.weight").filter(|_| file.has("layer1.0.conv1.weight"))?;
    let blocks = |stage: usize| {
        let prefix = format!("layer{stage}.");
        file.count(|name, _| name.starts_with(&prefix) && name.ends_with(".conv1.weight"))
    };
    let is_bottleneck = file.has("layer1.0.conv3.weight");
    let blocks = [blocks(1), blocks(2), blocks(3), blocks(4)];
    // A shortcut without parameters is the paper's for small images; the other one is a convolution.
    let projects =
        ["downsample", "shortcut"].iter().any(|layer| file.has(&format!("layer2.0.{layer}.0.weight")));
    let name = match (*stem.first()?, blocks) {
        (64, _) if stem.last() == Some(&3) => match large_of(blocks, is_bottleneck)? {
            "resnet18" => "cifar_resnet18",
            "resnet34" => "cifar_resnet34",
            "resnet50" => "cifar_resnet50",
            _ => return None,
        },
        (64, _) => large_of(blocks, is_bottleneck)?,
        (16, [3, 3, 3, 0]) if projects => "resnet20_b",
        (16, [5, 5, 5, 0]) if projects => "resnet32_b",
        (16, [9, 9, 9, 0]) if projects => "resnet56_b",
        (16, [3, 3, 3, 0]) => "resnet20",
        (16, [5, 5, 5, 0]) => "resnet32",
        (16, [9, 9, 9, 0]) => "resnet56",
        _ => return None,
    };
    Some((name, "torchvision or timm"))
}

/// The network of section 3.4 with so many blocks in each stage.
fn large_of(blocks: [usize; 4], is_bottleneck: bool) -> Option<&'static str> {
    Some(match (blocks, is_bottleneck) {
        ([2, 2, 2, 2], false) => "resnet18",
        ([3, 4, 6, 3], false) => "resnet34",
        ([3, 4, 6, 3], true) => "resnet50",
        ([3, 4, 23, 3], true) => "resnet101",
        ([3, 8, 36, 3], true) => "resnet152",
        _ => return None,
    })
}

/// torchvision's weights first, which share files with some of timm's.
#[rustfmt::skip]
const KNOWN: &[KnownWeights] = &[
    known("torchvision/resnet18.IMAGENET1K_V1", "resnet18", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "resnet18-f37072fd.pth"),
    known("torchvision/resnet34.IMAGENET1K_V1", "resnet34", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "resnet34-b627a593.pth"),
    known("torchvision/resnet50.IMAGENET1K_V1", "resnet50", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "resnet50-0676ba61.pth"),
    known("torchvision/resnet50.IMAGENET1K_V2", "resnet50", "bsd-3-clause", 224, 0.9655, Filter::Bilinear, IMAGENET, 1000, "resnet50-11ad3fa6.pth"),
    known("torchvision/resnet101.IMAGENET1K_V1", "resnet101", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "resnet101-63fe2227.pth"),
    known("torchvision/resnet101.IMAGENET1K_V2", "resnet101", "bsd-3-clause", 224, 0.9655, Filter::Bilinear, IMAGENET, 1000, "resnet101-cd907fc2.pth"),
    known("timm/resnet18.a1_in1k", "resnet18", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet18_a1_0-d63eafa0.pth"),
    known("timm/resnet18.a2_in1k", "resnet18", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet18_a2_0-b61bd467.pth"),
    known("timm/resnet18.a3_in1k", "resnet18", "apache-2.0", 160, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet18_a3_0-40c531c8.pth"),
    known("timm/resnet18.fb_ssl_yfcc100m_ft_in1k", "resnet18", "cc-by-nc-4.0", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "semi_supervised_resnet18-d92f0530.pth"),
    known("timm/resnet18.fb_swsl_ig1b_ft_in1k", "resnet18", "cc-by-nc-4.0", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "semi_weakly_supervised_resnet18-118f1556.pth"),
    known("timm/resnet18.gluon_in1k", "resnet18", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "gluon_resnet18_v1b-0757602b.pth"),
    known("timm/resnet18.tv_in1k", "resnet18", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "resnet18-f37072fd.pth"),
    known("timm/resnet34.a1_in1k", "resnet34", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet34_a1_0-46f8f793.pth"),
    known("timm/resnet34.a2_in1k", "resnet34", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet34_a2_0-82d47d71.pth"),
    known("timm/resnet34.a3_in1k", "resnet34", "apache-2.0", 160, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet34_a3_0-a20cabb6.pth"),
    known("timm/resnet34.bt_in1k", "resnet34", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "resnet34-43635321.pth"),
    known("timm/resnet34.gluon_in1k", "resnet34", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "gluon_resnet34_v1b-c6d82d59.pth"),
    known("timm/resnet34.ra4_e3600_r224_in1k", "resnet34", "apache-2.0", 224, 0.9, Filter::Bicubic, HALF, 1000, ""),
    known("timm/resnet34.tv_in1k", "resnet34", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "resnet34-b627a593.pth"),
    known("timm/resnet50.a1_in1k", "resnet50", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet50_a1_0-14fe96d1.pth"),
    known("timm/resnet50.a1h_in1k", "resnet50", "apache-2.0", 176, 0.9, Filter::Bicubic, IMAGENET, 1000, "resnet50_a1h2_176-001a1197.pth"),
    known("timm/resnet50.a2_in1k", "resnet50", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet50_a2_0-a2746f79.pth"),
    known("timm/resnet50.a3_in1k", "resnet50", "apache-2.0", 160, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet50_a3_0-59cae1ef.pth"),
    known("timm/resnet50.am_in1k", "resnet50", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "resnet50_am-6c502b37.pth"),
    known("timm/resnet50.b1k_in1k", "resnet50", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet50_b1k-532a802a.pth"),
    known("timm/resnet50.b2k_in1k", "resnet50", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet50_b2k-1ba180c1.pth"),
    known("timm/resnet50.bt_in1k", "resnet50", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "rw_resnet50-86acaeed.pth"),
    known("timm/resnet50.c1_in1k", "resnet50", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet50_c1-5ba5e060.pth"),
    known("timm/resnet50.c2_in1k", "resnet50", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet50_c2-d01e05b2.pth"),
    known("timm/resnet50.d_in1k", "resnet50", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet50_d-f39db8af.pth"),
    known("timm/resnet50.fb_ssl_yfcc100m_ft_in1k", "resnet50", "cc-by-nc-4.0", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "semi_supervised_resnet50-08389792.pth"),
    known("timm/resnet50.fb_swsl_ig1b_ft_in1k", "resnet50", "cc-by-nc-4.0", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "semi_weakly_supervised_resnet50-16a12f1b.pth"),
    known("timm/resnet50.gluon_in1k", "resnet50", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "gluon_resnet50_v1b-0ebe02e2.pth"),
    known("timm/resnet50.ra_in1k", "resnet50", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "resnet50_ra-85ebb6e5.pth"),
    known("timm/resnet50.ram_in1k", "resnet50", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "resnet50_ram-a26f946b.pth"),
    known("timm/resnet50.tv2_in1k", "resnet50", "bsd-3-clause", 176, 0.875, Filter::Bilinear, IMAGENET, 1000, "resnet50-11ad3fa6.pth"),
    known("timm/resnet50.tv_in1k", "resnet50", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "resnet50-0676ba61.pth"),
    known("timm/resnet101.a1_in1k", "resnet101", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet101_a1_0-cdcb52a9.pth"),
    known("timm/resnet101.a1h_in1k", "resnet101", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet101_a1h-36d3f2aa.pth"),
    known("timm/resnet101.a2_in1k", "resnet101", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet101_a2_0-6edb36c7.pth"),
    known("timm/resnet101.a3_in1k", "resnet101", "apache-2.0", 160, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet101_a3_0-1db14157.pth"),
    known("timm/resnet101.gluon_in1k", "resnet101", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "gluon_resnet101_v1b-3b017079.pth"),
    known("timm/resnet101.tv2_in1k", "resnet101", "bsd-3-clause", 176, 0.875, Filter::Bilinear, IMAGENET, 1000, "resnet101-cd907fc2.pth"),
    known("timm/resnet101.tv_in1k", "resnet101", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "resnet101-63fe2227.pth"),
];

#[cfg(test)]
mod tests {
    use candle_core::{Device, Result, Tensor};

    use super::super::build;
    use super::*;
    use crate::loss::{ClassWeights, Criterion, Loss};
    use crate::ops::Tape;
    use crate::params::{Kind, Mode, ParamStore, update_running_statistics};

    /// Numbers that another program can make too.
    fn wave(count: usize, phase: f64) -> Vec<f64> {
        (0..count).map(|index| (0.37 * (index as f64).powf(1.5) + phase).sin()).collect()
    }

    /// A network for five classes whose tensors are waves, each with its place in the order of names as phase.
    fn resnet18() -> Result<(ParamStore, Network)> {
        let mut store = ParamStore::new(Device::Cpu);
        let network =
            build("resnet18", &Head::linear(5), &mut Builder::blank(&mut store))?.expect("a known name");
        for (index, (name, entry)) in store.iter().enumerate() {
            let shape = entry.values().dims().to_vec();
            let scale = |value: f64| match *shape {
                [channels, _, height, width] => {
                    value * (2.0 / (channels * height * width) as f64).sqrt() * 1.4
                }
                [_, _] => value * 0.1,
                _ if name.ends_with("running_var") => 1.0 + 0.5 * value * value,
                _ if name.ends_with("weight") => 1.0 + 0.1 * value,
                _ => value * 0.1,
            };
            let values: Vec<f32> =
                wave(shape.iter().product(), index as f64).into_iter().map(|v| scale(v) as f32).collect();
            store.set(name, &Tensor::from_vec(values, &*shape, &Device::Cpu)?)?;
        }
        Ok((store, network))
    }

    fn images() -> Result<Tensor> {
        let values: Vec<f32> = wave(2 * 3 * 40 * 33, 7.5).into_iter().map(|value| value as f32).collect();
        Tensor::from_vec(values, (2, 3, 40, 33), &Device::Cpu)
    }

    fn assert_close(ours: &[f32], theirs: &[f64], tolerance: f64) {
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert!((f64::from(*ours) - theirs).abs() <= tolerance, "{ours} is not {theirs}");
        }
    }

    // The numbers below are those of torchvision's resnet18 under PyTorch 2.15 with the same waves. The
    // phase of the images is one at which no ReLU input lies within rounding of 0, where a gradient may jump.

    #[test]
    fn logits_in_evaluation_equal_torchvisions() -> Result<()> {
        let (store, network) = resnet18()?;
        let logits = network.forward(&images()?, &Pass::new(&store, Mode::Evaluate))?;
        let expected = [
            1.827825903892517,
            0.29669323563575745,
            -0.5025023221969604,
            0.030688025057315826,
            0.29214799404144287,
            1.8258757591247559,
            0.17719730734825134,
            -0.518441915512085,
            0.08460260182619095,
            0.2478220909833908,
        ];
        assert_close(&logits.flatten_all()?.to_vec1()?, &expected, 1e-5);
        Ok(())
    }

    #[test]
    fn a_training_pass_equals_torchvisions_down_to_every_gradient() -> Result<()> {
        let (store, network) = resnet18()?;
        let pass = Pass::new(&store, Mode::Train);
        let (logits, tape) = Tape::record(|| network.forward(&images()?, &pass));
        let logits = logits?;
        let expected = [
            1.9608330726623535,
            1.8037420511245728,
            -1.239261507987976,
            -0.41283875703811646,
            -1.346331238746643,
            1.6929049491882324,
            0.5432034134864807,
            -1.0503721237182617,
            -1.2301998138427734,
            -0.4926176071166992,
        ];
        assert_close(&logits.flatten_all()?.to_vec1()?, &expected, 1e-4);
        let targets =
            Tensor::new(&[[0.02f32, 0.92, 0.02, 0.02, 0.02], [0.02, 0.02, 0.02, 0.02, 0.92]], &Device::Cpu)?;
        let criterion = Criterion::new(Loss::CrossEntropy, ClassWeights::None, &[1.0; 5]);
        let (logits_of, targets) = (logits.flatten_all()?.to_vec1()?, targets.flatten_all()?.to_vec1()?);
        let (loss, gradient) = criterion.of_batch(&logits_of, &targets, 2.0);
        assert_close(&[loss as f32], &[1.8056403398513794], 1e-5);
        let gradient = Tensor::from_vec(gradient, logits.dims(), &Device::Cpu)?;
        let gradients = tape.backward(&logits, gradient, std::iter::empty())?;
        let parameters: Vec<_> = store.iter().filter(|(_, entry)| entry.kind() != Kind::Buffer).collect();
        assert_eq!(parameters.len(), GRADIENTS.len());
        for ((name, entry), (projection, norm)) in parameters.into_iter().zip(GRADIENTS) {
            let gradient = gradients.get(entry.variable()).expect("a gradient for every parameter");
            let gradient: Vec<f32> = gradient.flatten_all()?.to_vec1()?;
            let dot = |other: &dyn Fn(usize) -> f64| -> f64 {
                gradient.iter().enumerate().map(|(index, value)| f64::from(*value) * other(index)).sum()
            };
            let wave = wave(gradient.len(), 0.0);
            let ours = (dot(&|index| wave[index]), dot(&|index| f64::from(gradient[index])).sqrt());
            let error = (ours.0 - projection).abs().max((ours.1 - norm).abs());
            assert!(error <= 1e-4 * norm, "{name}: {ours:?} is not {:?}", (projection, norm));
        }
        update_running_statistics(&store, &pass.finish())?;
        let values = |name: &str| -> Result<Vec<f32>> {
            store.get(name).expect("a buffer").values().narrow(0, 0, 3)?.to_vec1()
        };
        let mean = [0.07549891620874405, 0.08750764280557632, 0.08069848269224167];
        assert_close(&values("bn1.running_mean")?, &mean, 1e-6);
        let variance = [1.0909855365753174, 1.2491141557693481, 1.435784935951233];
        assert_close(&values("layer4.1.bn2.running_var")?, &variance, 1e-5);
        Ok(())
    }

    /// For each parameter in the order of names: its gradient times a wave, and its Euclidean norm.
    #[rustfmt::skip]
    const GRADIENTS: &[(f64, f64)] = &[
        (-0.8783358, 1.629389), (2.856804, 3.725283), (114.3965, 217.4264), (-0.1048074, 0.7126927),
        (7.42933, 14.31298), (-1.813989, 2.211158), (0.2982712, 1.886589), (-0.1163673, 1.118313),
        (1.2533, 2.279693), (17.43066, 60.48937), (-15.71532, 42.48279), (0.2150467, 1.462037),
        (0.7769903, 1.837794), (-0.03762165, 0.65392), (-0.9221528, 1.393671), (-3.504056, 39.31153),
        (8.177458, 30.56364), (-0.9712707, 1.431279), (-1.286843, 1.627416), (1.190561, 1.232094),
        (1.054037, 1.574729), (5.874816, 53.22722), (28.43839, 43.56522), (-0.5876817, 14.60407),
        (1.190561, 1.232094), (-0.4076454, 1.645542), (-1.216843, 1.219783), (-1.096421, 1.410162),
        (-1.162981, 0.900236), (-1.099742, 1.171115), (6.832559, 42.23029), (11.70708, 35.2523),
        (-0.4531578, 0.9201336), (-1.220679, 1.090768), (0.6267502, 0.8186984), (0.2293536, 1.01839),
        (-16.27777, 46.35347), (14.46962, 39.86397), (4.207265, 12.862), (0.6267502, 0.8186984),
        (-0.1408775, 1.006817), (-0.07166391, 0.8129485), (0.498607, 0.8612678), (0.7493075, 0.5868383),
        (-0.01871969, 0.7816751), (2.116895, 38.7553), (-5.831467, 31.14043), (-0.1829225, 0.670848),
        (-0.5137365, 0.7424212), (5.367282, 0.6125235), (2.77991, 0.570307), (-2.005297, 42.78333),
        (-4.19399, 34.51245), (0.1674806, 9.863664), (5.367282, 0.6125235), (3.675402, 0.5834687),
        (0.2289459, 0.3811236), (0.3659558, 0.4250255), (9.723345, 0.7982222), (4.579896, 0.4470972),
        (14.92372, 28.68961), (-0.3695498, 19.24207),
    ];
}
