//! Deep residual networks (He et al., arXiv 1512.03385), under the names and with the arithmetic of torchvision.

use candle_core::{Result, Tensor};

use super::Network;
use super::layers::{ConvNorm, ConvSizes, Linear};
use crate::train::ops::{self, Activation, Pooling};
use crate::train::params::{Builder, Pass};

/// Two 3 x 3 convolutions beside an identity (figure 2 of the paper): `relu(x + bn(conv(relu(bn(conv(x))))))`.
/// Where the shape changes, the identity is a 1 x 1 convolution with the same stride (option B).
#[derive(Debug)]
pub struct BasicBlock {
    first: ConvNorm,
    second: ConvNorm,
    downsample: Option<ConvNorm>,
}

impl BasicBlock {
    /// Registers `{name}.{conv1, bn1, conv2, bn2}` and, where needed, `{name}.downsample.{0, 1}`.
    ///
    /// # Errors
    /// When the device cannot hold the tensors.
    pub fn new(
        builder: &mut Builder<'_>,
        name: &str,
        channels_in: usize,
        channels_out: usize,
        stride: usize,
    ) -> Result<BasicBlock> {
        let mut layer = |convolution: &str, norm: &str, sizes: ConvSizes, activation| {
            let names = (&*format!("{name}.{convolution}"), &*format!("{name}.{norm}"));
            ConvNorm::new(builder, names, sizes, activation)
        };
        let sizes = ConvSizes { channels_in, channels_out, kernel: 3, stride };
        let first = layer("conv1", "bn1", sizes, Activation::Relu)?;
        let inner = ConvSizes { channels_in: channels_out, stride: 1, ..sizes };
        let second = layer("conv2", "bn2", inner, Activation::Identity)?;
        let downsample = (stride != 1 || channels_in != channels_out)
            .then(|| {
                let sizes = ConvSizes { kernel: 1, ..sizes };
                layer("downsample.0", "downsample.1", sizes, Activation::Identity)
            })
            .transpose()?;
        Ok(BasicBlock { first, second, downsample })
    }

    /// `[batch, channels_in, height, width]` to `[batch, channels_out, height / stride, width / stride]`,
    /// rounded up.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let y = self.second.forward(&self.first.forward(x, pass)?, pass)?;
        match &self.downsample {
            Some(downsample) => ops::add_relu(&y, &downsample.forward(x, pass)?),
            None => ops::add_relu(&y, x),
        }
    }
}

/// ResNet for images of about 224 pixels: a 7 x 7 stem that divides the size by four, four stages of blocks, the
/// mean over the plane, a linear classifier `fc`.
#[derive(Debug)]
pub struct ResNet {
    stem: ConvNorm,
    blocks: Vec<BasicBlock>,
    head: Linear,
}

impl ResNet {
    /// Eighteen layers: two blocks per stage, 64 to 512 channels.
    ///
    /// # Errors
    /// When the device cannot hold the tensors.
    pub fn resnet18(builder: &mut Builder<'_>, classes: usize) -> Result<ResNet> {
        let sizes = ConvSizes { channels_in: 3, channels_out: 64, kernel: 7, stride: 2 };
        let stem = ConvNorm::new(builder, ("conv1", "bn1"), sizes, Activation::Relu)?;
        let mut blocks = Vec::new();
        let mut channels_in = 64;
        for (stage, channels) in [64, 128, 256, 512].into_iter().enumerate() {
            for block in 0..2 {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let name = format!("layer{}.{block}", stage + 1);
                blocks.push(BasicBlock::new(builder, &name, channels_in, channels, stride)?);
                channels_in = channels;
            }
        }
        Ok(ResNet { stem, blocks, head: Linear::new(builder, "fc", channels_in, classes)? })
    }
}

impl Network for ResNet {
    fn forward(&self, images: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let mut x = self.stem.forward(images, pass)?;
        x = ops::max_pool(&x, Pooling { window: 3, stride: 2, padding: 1 })?;
        for block in &self.blocks {
            x = block.forward(&x, pass)?;
        }
        self.head.forward(&ops::global_average_pool(&x)?, pass)
    }

    fn head(&self) -> &'static str {
        "fc"
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Result, Tensor};
    use forebay_datasets::seed::Seed;

    use super::*;
    use crate::train::ops::cross_entropy;
    use crate::train::params::{Kind, Mode, ParamStore, update_running_statistics};

    /// Numbers that another program can make too.
    fn wave(count: usize, phase: f64) -> Vec<f64> {
        (0..count).map(|index| (0.37 * (index as f64).powf(1.5) + phase).sin()).collect()
    }

    /// A network for five classes whose tensors are waves, each with its place in the order of names as phase.
    fn resnet18() -> Result<(ParamStore, ResNet)> {
        let mut store = ParamStore::new(Device::Cpu);
        let network = ResNet::resnet18(&mut Builder::new(&mut store, Seed(0)), 5)?;
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
        assert!(!logits.track_op(), "evaluation builds no graph");
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
        let logits = network.forward(&images()?, &pass)?;
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
        let loss = cross_entropy(&logits, &targets)?;
        assert_close(&[loss.to_scalar()?], &[1.8056403398513794], 1e-5);
        let gradients = loss.backward()?;
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
