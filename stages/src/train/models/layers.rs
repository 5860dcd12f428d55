//! Layers: each registers its tensors under a name when it is built and asks the pass for them when it runs.

use candle_core::{Result, Tensor};

use crate::train::ops::{self, Activation, Convolution};
use crate::train::params::{Builder, Kind, Pass};

/// A convolution without bias, followed by batch normalisation and perhaps a ReLU.
#[derive(Debug)]
pub struct ConvNorm {
    convolution: String,
    norm: String,
    options: Convolution,
    activation: Activation,
}

/// Sizes of a convolution with a square kernel.
#[derive(Clone, Copy, Debug)]
pub struct ConvSizes {
    /// Channels of the input.
    pub channels_in: usize,
    /// Channels of the output.
    pub channels_out: usize,
    /// Side of the kernel, odd; the padding is half of it, so that stride 1 keeps the size.
    pub kernel: usize,
    /// Step between windows.
    pub stride: usize,
}

/// PyTorch's default.
const EPSILON: f64 = 1e-5;

impl ConvNorm {
    /// Registers `{convolution}.weight` (He's normal initialisation over the fan-out, arXiv 1502.01852, as
    /// torchvision's ResNet) and `{norm}.{weight, bias, running_mean, running_var}`.
    ///
    /// # Errors
    /// When the device cannot hold the tensors.
    pub fn new(
        builder: &mut Builder<'_>,
        (convolution, norm): (&str, &str),
        sizes: ConvSizes,
        activation: Activation,
    ) -> Result<ConvNorm> {
        let ConvSizes { channels_in, channels_out, kernel, stride } = sizes;
        let std = (2.0 / (channels_out * kernel * kernel) as f64).sqrt();
        builder.normal(
            &format!("{convolution}.weight"),
            &[channels_out, channels_in, kernel, kernel],
            std,
        )?;
        let channels = [channels_out];
        builder.constant(&format!("{norm}.weight"), &channels, Kind::Shift, 1.0)?;
        builder.constant(&format!("{norm}.bias"), &channels, Kind::Shift, 0.0)?;
        builder.constant(&format!("{norm}.running_mean"), &channels, Kind::Buffer, 0.0)?;
        builder.constant(&format!("{norm}.running_var"), &channels, Kind::Buffer, 1.0)?;
        let options = Convolution { stride, padding: (kernel / 2, kernel / 2) };
        Ok(ConvNorm { convolution: convolution.to_owned(), norm: norm.to_owned(), options, activation })
    }

    /// `[batch, channels_in, height, width]` to `[batch, channels_out, ..]`. A norm that this pass does not
    /// train uses its running statistics and leaves them alone.
    ///
    /// # Errors
    /// When the image is smaller than the kernel, or a training batch has one value per channel.
    pub fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let of_norm = |name: &str| pass.tensor(&format!("{}.{name}", self.norm));
        let y = ops::conv2d(x, &pass.tensor(&format!("{}.weight", self.convolution)), self.options)?;
        let (weight, bias) = (of_norm("weight"), of_norm("bias"));
        if pass.trains(&format!("{}.weight", self.norm)) {
            let (y, statistics) = ops::batch_norm(&y, &weight, &bias, EPSILON, self.activation)?;
            pass.record(&self.norm, statistics);
            return Ok(y);
        }
        let moments = (&of_norm("running_mean"), &of_norm("running_var"));
        ops::batch_norm_fixed(&y, moments, &weight, &bias, EPSILON, self.activation)
    }
}

/// A fully connected layer with bias.
#[derive(Debug)]
pub struct Linear {
    name: String,
}

impl Linear {
    /// Registers `{name}.weight` `[features_out, features_in]` and `{name}.bias`, both uniform within
    /// `1 / √features_in`, as PyTorch's `Linear`.
    ///
    /// # Errors
    /// When the device cannot hold the tensors.
    pub fn new(builder: &mut Builder<'_>, name: &str, features: usize, classes: usize) -> Result<Linear> {
        let bound = 1.0 / (features as f64).sqrt();
        builder.uniform(&format!("{name}.weight"), &[classes, features], Kind::Weight, bound)?;
        builder.uniform(&format!("{name}.bias"), &[classes], Kind::Shift, bound)?;
        Ok(Linear { name: name.to_owned() })
    }

    /// `[batch, features_in]` to `[batch, features_out]`.
    ///
    /// # Errors
    /// When `x` has another number of features.
    pub fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let tensor = |part: &str| pass.tensor(&format!("{}.{part}", self.name));
        ops::linear(x, &tensor("weight"), &tensor("bias"))
    }
}
