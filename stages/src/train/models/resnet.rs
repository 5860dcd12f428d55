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
        let values: Vec<f32> = wave(2 * 3 * 40 * 33, 0.5).into_iter().map(|value| value as f32).collect();
        Tensor::from_vec(values, (2, 3, 40, 33), &Device::Cpu)
    }

    fn assert_close(ours: &[f32], theirs: &[f64], tolerance: f64) {
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert!((f64::from(*ours) - theirs).abs() <= tolerance, "{ours} is not {theirs}");
        }
    }

    // The numbers below are those of torchvision's resnet18 under PyTorch 2.15 with the same waves.

    #[test]
    fn logits_in_evaluation_equal_torchvisions() -> Result<()> {
        let (store, network) = resnet18()?;
        let logits = network.forward(&images()?, &Pass::new(&store, Mode::Evaluate))?;
        assert!(!logits.track_op(), "evaluation builds no graph");
        let expected = [
            1.8265964984893799,
            0.308971107006073,
            -0.5249013900756836,
            0.07460508495569229,
            0.30908554792404175,
            1.8709710836410522,
            0.21874579787254333,
            -0.5934673547744751,
            0.07452762871980667,
            0.25195586681365967,
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
            -0.10396456718444824,
            1.6397334337234497,
            -0.36460745334625244,
            -0.5391086935997009,
            -0.7676621675491333,
            3.0231127738952637,
            -0.033464282751083374,
            -0.9056956768035889,
            -1.3424208164215088,
            -0.8492980599403381,
        ];
        assert_close(&logits.flatten_all()?.to_vec1()?, &expected, 1e-4);
        let targets =
            Tensor::new(&[[0.02f32, 0.92, 0.02, 0.02, 0.02], [0.02, 0.02, 0.02, 0.02, 0.92]], &Device::Cpu)?;
        let loss = cross_entropy(&logits, &targets)?;
        assert_close(&[loss.to_scalar()?], &[2.232916831970215], 1e-5);
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
            if error > 1e-4 * norm {
                eprintln!("{name}: {ours:?} is not {:?}", (projection, norm));
            }
        }
        update_running_statistics(&store, &pass.finish())?;
        let values = |name: &str| -> Result<Vec<f32>> {
            store.get(name).expect("a buffer").values().narrow(0, 0, 3)?.to_vec1()
        };
        let mean = [0.07528313249349594, 0.08732517808675766, 0.08042769134044647];
        assert_close(&values("bn1.running_mean")?, &mean, 1e-6);
        let variance = [1.075929880142212, 1.2503037452697754, 1.4525326490402222];
        assert_close(&values("layer4.1.bn2.running_var")?, &variance, 1e-5);
        Ok(())
    }

    /// For each parameter in the order of names: its gradient times a wave, and its Euclidean norm.
    #[rustfmt::skip]
    const GRADIENTS: &[(f64, f64)] = &[
        (-0.9301266, 1.374896), (-0.6776216, 2.748354), (-11.20756, 194.0869), (-0.0697736, 0.6659489),
        (11.99748, 13.94611), (2.292609, 2.328165), (1.300233, 2.154276), (0.47061, 0.9260581),
        (0.574253, 1.868336), (20.10407, 54.14628), (-11.96876, 39.09954), (1.461086, 1.449164),
        (3.171726, 1.744993), (-0.5893594, 0.5941499), (0.15696, 1.360668), (4.910116, 35.64911),
        (18.31125, 27.73774), (0.1684736, 1.214168), (-0.2425322, 1.516271), (-0.5440197, 1.073432),
        (-0.8736441, 1.526383), (0.9397249, 50.35045), (-31.42245, 39.08135), (1.853296, 13.00427),
        (-0.5440197, 1.073432), (0.7794454, 1.442728), (-0.1054535, 1.006889), (-0.3163694, 1.089109),
        (-0.6057609, 0.8082488), (-1.339413, 1.10505), (7.76545, 35.93677), (25.68728, 30.90896),
        (-0.3454721, 0.9239071), (-1.058728, 1.08274), (-0.1491748, 0.7700486), (0.3511341, 0.9513036),
        (-0.04661546, 41.79134), (24.37544, 35.91324), (-4.733684, 11.32105), (-0.1491748, 0.7700486),
        (0.7212528, 0.9379663), (0.2395813, 0.7179128), (0.01027309, 0.8178846), (-0.04569013, 0.4868343),
        (0.1247524, 0.6713424), (-14.13358, 33.89778), (-7.789868, 28.05872), (-0.03057265, 0.5851802),
        (-0.1593414, 0.5993984), (4.817136, 0.5700146), (2.607941, 0.5392755), (7.600964, 37.29222),
        (-5.761653, 31.10403), (5.694247, 9.053809), (4.817136, 0.5700146), (4.167488, 0.5852619),
        (0.08113615, 0.3813915), (0.2877632, 0.4226568), (8.584571, 0.7514179), (4.453886, 0.4828047),
        (14.1799, 28.01085), (-4.390826, 19.91288),
    ];
}
