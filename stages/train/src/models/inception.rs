//! InceptionV3 (Szegedy et al., arXiv 1512.00567), with torchvision's names and without its auxiliary classifier.
//!
//! torchvision's pretrained weights expect images normalised with mean and standard deviation 0.5; its
//! `transform_input` only turns ImageNet's normalisation into that one. Here the preprocessing belongs to the weights,
//! and the network takes what it was trained on.

use candle_core::{Result, Tensor};
use forebay_stages::resize::Filter;

use super::family::{Family, Timm, Variant};
use super::known_weights::{HALF, IMAGENET, KnownWeights, known};
use super::layers::{Conv, ConvNorm, GlobalAveragePool, Layer, LinearInit, MaxPool, Norm};
use super::{Head, Network, Parts};
use crate::onnx::{Attribute, Graph, Value};
use crate::ops::{self, Activation, Pooling};
use crate::params::{Builder, Pass};

/// InceptionV3.
pub const FAMILY: Family = Family {
    variants: &[Variant::new("inception_v3", Some("inception_v3"), build).for_images_of(Some(299))],
    // timm and torchvision agree.
    translate: |_, _| None,
    looks_like: |file| {
        file.has("Mixed_5b.branch1x1.conv.weight").then_some(("inception_v3", "torchvision or timm"))
    },
    prefixes: &[],
    // The auxiliary classifiers, which only help to train from scratch, of this network and of GoogLeNet.
    passed_over: &["AuxLogits.", "aux1.", "aux2."],
    norm_epsilons: &[],
    timm: Some(Timm {
        layers: Vec::new,
        first_conv: "Conv2d_1a_3x3.conv",
        classifier: "fc",
        convolutions: &[],
    }),
    known: KNOWN,
};

/// The paper's constant is PyTorch's default but for epsilon.
const NORM: Norm = Norm { epsilon: 1e-3, momentum: 0.1 };
const HALVE: Pooling = Pooling { window: 3, stride: 2, padding: 0, ceil: false };
const MEAN: Pooling = Pooling { window: 3, stride: 1, padding: 1, ceil: false };

/// Registers a stem of five convolutions, eleven blocks `Mixed_5b` to `Mixed_7c` and `fc`. Parts: the names of the
/// convolutions and of the blocks, `head`.
fn build(mut parts: Parts<'_, '_>, head: &Head) -> Result<Network> {
    let halved = |conv: Conv| Conv { stride: 2, ..conv };
    for (name, conv, pool) in [
        ("Conv2d_1a_3x3", halved(Conv::valid(3, 32, (3, 3))), false),
        ("Conv2d_2a_3x3", Conv::valid(32, 32, (3, 3)), false),
        ("Conv2d_2b_3x3", Conv::same(32, 64, 3, 1), true),
        ("Conv2d_3b_1x1", Conv::same(64, 80, 1, 1), false),
        ("Conv2d_4a_3x3", Conv::valid(80, 192, (3, 3)), true),
    ] {
        parts.add(name, |builder| {
            let mut layers: Vec<Box<dyn Layer>> = vec![Box::new(conv_norm(builder, name, conv)?)];
            if pool {
                layers.push(Box::new(MaxPool(HALVE)));
            }
            Ok(layers)
        })?;
    }
    let mut channels = 192;
    for (name, kind) in [
        ("Mixed_5b", BlockKind::A { pooled: 32 }),
        ("Mixed_5c", BlockKind::A { pooled: 64 }),
        ("Mixed_5d", BlockKind::A { pooled: 64 }),
        ("Mixed_6a", BlockKind::B),
        ("Mixed_6b", BlockKind::C { width: 128 }),
        ("Mixed_6c", BlockKind::C { width: 160 }),
        ("Mixed_6d", BlockKind::C { width: 160 }),
        ("Mixed_6e", BlockKind::C { width: 192 }),
        ("Mixed_7a", BlockKind::D),
        ("Mixed_7b", BlockKind::E),
        ("Mixed_7c", BlockKind::E),
    ] {
        parts.add(name, |builder| {
            let block = Mixed::new(builder, name, channels, kind)?;
            let mut layers: Vec<Box<dyn Layer>> = vec![Box::new(block)];
            if name == "Mixed_7c" {
                layers.push(Box::new(GlobalAveragePool));
            }
            Ok(layers)
        })?;
        channels = kind.channels_out(channels);
    }
    parts.finish("fc", channels, head, (0.5, LinearInit::Normal(0.1)), 75)
}

fn conv_norm(builder: &mut Builder<'_>, name: &str, conv: Conv) -> Result<ConvNorm> {
    let names = (&*format!("{name}.conv"), &*format!("{name}.bn"));
    ConvNorm::with_std(builder, names, conv, NORM, Activation::Relu, Some(0.1))
}

/// The blocks, by torchvision's letters.
#[derive(Clone, Copy, Debug)]
enum BlockKind {
    /// Figure 5: 1 x 1, 5 x 5, twice 3 x 3, and a pool that is narrowed to so many channels.
    A { pooled: usize },
    /// Figure 10, from 35 x 35 to 17 x 17.
    B,
    /// Figure 6: 7 x 7 kernels factored into 1 x 7 and 7 x 1, with so many channels between.
    C { width: usize },
    /// Figure 10, from 17 x 17 to 8 x 8.
    D,
    /// Figure 7: 3 x 3 kernels split into 1 x 3 beside 3 x 1.
    E,
}

impl BlockKind {
    fn channels_out(self, channels_in: usize) -> usize {
        match self {
            BlockKind::A { pooled } => 64 + 64 + 96 + pooled,
            BlockKind::B => 384 + 96 + channels_in,
            BlockKind::C { .. } => 4 * 192,
            BlockKind::D => 320 + 192 + channels_in,
            BlockKind::E => 320 + 768 + 768 + 192,
        }
    }
}

/// One branch of a block.
#[derive(Debug)]
struct Branch {
    /// What the branch does with the input before its convolutions.
    pool: Option<Pool>,
    convolutions: Vec<ConvNorm>,
    /// Two convolutions side by side at the end.
    fork: Option<[ConvNorm; 2]>,
}

#[derive(Clone, Copy, Debug)]
enum Pool {
    /// The mean of 3 x 3 pixels, padding counted, at full size.
    Mean,
    /// The largest of 3 x 3 pixels, at half the size.
    Halve,
}

impl Branch {
    fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let x = match self.pool {
            None => x.clone(),
            Some(Pool::Mean) => ops::average_pool(x, MEAN, true)?,
            Some(Pool::Halve) => ops::max_pool(x, HALVE)?,
        };
        let y = self.convolutions.iter().try_fold(x, |y, layer| layer.forward(&y, pass))?;
        match &self.fork {
            None => Ok(y),
            Some([left, right]) => ops::concat([&left.forward(&y, pass)?, &right.forward(&y, pass)?]),
        }
    }

    /// The outputs of the branch, which stand side by side in that of the block.
    fn export(&self, x: &Value, pass: &Pass<'_>, graph: &mut Graph) -> Result<Vec<Value>> {
        let x = match self.pool {
            None => x.clone(),
            Some(Pool::Mean) => graph.average_pool(x, MEAN, true)?,
            Some(Pool::Halve) => graph.max_pool(x, HALVE)?,
        };
        let y = self.convolutions.iter().try_fold(x, |y, layer| layer.export(y, pass, graph))?;
        match &self.fork {
            None => Ok(vec![y]),
            Some([left, right]) => {
                Ok(vec![left.export(y.clone(), pass, graph)?, right.export(y, pass, graph)?])
            }
        }
    }
}

/// Branches over one input, side by side in the output.
#[derive(Debug)]
struct Mixed {
    branches: Vec<Branch>,
}

impl Mixed {
    /// Registers `{name}.branch..`.
    fn new(builder: &mut Builder<'_>, name: &str, channels: usize, kind: BlockKind) -> Result<Mixed> {
        let mut layer = |branch: &str, conv: Conv| conv_norm(builder, &format!("{name}.{branch}"), conv);
        let wide = |from: usize, to: usize, kernel: (usize, usize)| Conv {
            padding: (kernel.0 / 2, kernel.1 / 2),
            ..Conv::valid(from, to, kernel)
        };
        let one = |to: usize| Conv::same(channels, to, 1, 1);
        let halved = |from: usize, to: usize| Conv { stride: 2, ..Conv::valid(from, to, (3, 3)) };
        let chain = |convolutions| Branch { pool: None, convolutions, fork: None };
        let after = |pool, convolutions| Branch { pool: Some(pool), convolutions, fork: None };
        let branches = match kind {
            BlockKind::A { pooled } => vec![
                chain(vec![layer("branch1x1", one(64))?]),
                chain(vec![layer("branch5x5_1", one(48))?, layer("branch5x5_2", wide(48, 64, (5, 5)))?]),
                chain(vec![
                    layer("branch3x3dbl_1", one(64))?,
                    layer("branch3x3dbl_2", wide(64, 96, (3, 3)))?,
                    layer("branch3x3dbl_3", wide(96, 96, (3, 3)))?,
                ]),
                after(Pool::Mean, vec![layer("branch_pool", one(pooled))?]),
            ],
            BlockKind::B => vec![
                chain(vec![layer("branch3x3", halved(channels, 384))?]),
                chain(vec![
                    layer("branch3x3dbl_1", one(64))?,
                    layer("branch3x3dbl_2", wide(64, 96, (3, 3)))?,
                    layer("branch3x3dbl_3", halved(96, 96))?,
                ]),
                after(Pool::Halve, vec![]),
            ],
            BlockKind::C { width } => vec![
                chain(vec![layer("branch1x1", one(192))?]),
                chain(vec![
                    layer("branch7x7_1", one(width))?,
                    layer("branch7x7_2", wide(width, width, (1, 7)))?,
                    layer("branch7x7_3", wide(width, 192, (7, 1)))?,
                ]),
                chain(vec![
                    layer("branch7x7dbl_1", one(width))?,
                    layer("branch7x7dbl_2", wide(width, width, (7, 1)))?,
                    layer("branch7x7dbl_3", wide(width, width, (1, 7)))?,
                    layer("branch7x7dbl_4", wide(width, width, (7, 1)))?,
                    layer("branch7x7dbl_5", wide(width, 192, (1, 7)))?,
                ]),
                after(Pool::Mean, vec![layer("branch_pool", one(192))?]),
            ],
            BlockKind::D => vec![
                chain(vec![layer("branch3x3_1", one(192))?, layer("branch3x3_2", halved(192, 320))?]),
                chain(vec![
                    layer("branch7x7x3_1", one(192))?,
                    layer("branch7x7x3_2", wide(192, 192, (1, 7)))?,
                    layer("branch7x7x3_3", wide(192, 192, (7, 1)))?,
                    layer("branch7x7x3_4", halved(192, 192))?,
                ]),
                after(Pool::Halve, vec![]),
            ],
            BlockKind::E => vec![
                chain(vec![layer("branch1x1", one(320))?]),
                Branch {
                    pool: None,
                    convolutions: vec![layer("branch3x3_1", one(384))?],
                    fork: Some([
                        layer("branch3x3_2a", wide(384, 384, (1, 3)))?,
                        layer("branch3x3_2b", wide(384, 384, (3, 1)))?,
                    ]),
                },
                Branch {
                    pool: None,
                    convolutions: vec![
                        layer("branch3x3dbl_1", one(448))?,
                        layer("branch3x3dbl_2", wide(448, 384, (3, 3)))?,
                    ],
                    fork: Some([
                        layer("branch3x3dbl_3a", wide(384, 384, (1, 3)))?,
                        layer("branch3x3dbl_3b", wide(384, 384, (3, 1)))?,
                    ]),
                },
                after(Pool::Mean, vec![layer("branch_pool", one(192))?]),
            ],
        };
        Ok(Mixed { branches })
    }
}

impl Layer for Mixed {
    fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let outputs =
            self.branches.iter().map(|branch| branch.forward(x, pass)).collect::<Result<Vec<_>>>()?;
        match &outputs[..] {
            [a, b, c] => ops::concat([a, b, c]),
            [a, b, c, d] => ops::concat([a, b, c, d]),
            other => unreachable!("a block has three or four branches, not {}", other.len()),
        }
    }

    fn export(&self, x: Value, pass: &Pass<'_>, graph: &mut Graph) -> Result<Value> {
        let mut outputs = Vec::new();
        for branch in &self.branches {
            outputs.extend(branch.export(&x, pass, graph)?);
        }
        let names: Vec<&str> = outputs.iter().map(Value::name).collect();
        let mut shape = outputs[0].shape().to_vec();
        shape[0] = outputs.iter().map(|output| output.shape()[0]).sum();
        Ok(graph.node("Concat", &names, vec![("axis", Attribute::Integer(1))], shape))
    }
}

/// torchvision's InceptionV3 takes images normalised as ImageNet and turns them into values from -1 to 1 itself
/// (`transform_input`); the row gives the values that its first convolution sees.
#[rustfmt::skip]
const KNOWN: &[KnownWeights] = &[
    known("torchvision/inception_v3.IMAGENET1K_V1", "inception_v3", "bsd-3-clause", 299, 0.874, Filter::Bilinear, HALF, 1000, "inception_v3_google-0cc3c7bd.pth"),
    known("timm/inception_v3.gluon_in1k", "inception_v3", "apache-2.0", 299, 0.875, Filter::Bicubic, IMAGENET, 1000, ""),
    known("timm/inception_v3.tf_adv_in1k", "inception_v3", "apache-2.0", 299, 0.875, Filter::Bicubic, HALF, 1000, ""),
    known("timm/inception_v3.tf_in1k", "inception_v3", "apache-2.0", 299, 0.875, Filter::Bicubic, HALF, 1000, ""),
    known("timm/inception_v3.tv_in1k", "inception_v3", "apache-2.0", 299, 0.875, Filter::Bicubic, HALF, 1000, "inception_v3_google-1a9a5a14.pth"),
];
