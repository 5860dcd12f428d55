//! Layers: each registers its tensors under a name when it is built and asks the pass for them when it runs.

use candle_core::{DType, Result, Tensor, bail};

use crate::onnx::{Attribute, Graph, Value};
use crate::ops::{self, Activation, ChannelMap, Convolution};
use crate::params::{Builder, Kind, Pass};

/// A step of a network: a tensor goes in, a tensor comes out.
pub trait Layer: Send + Sync {
    /// Applies the layer, usually to `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// When the image is too small for the layer, or the device fails.
    fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor>;

    /// Adds to `graph` what [`Layer::forward`] computes in evaluation, and returns its output.
    ///
    /// # Errors
    /// When the image is too small for the layer.
    fn export(&self, x: Value, pass: &Pass<'_>, graph: &mut Graph) -> Result<Value>;

    /// True where the layer pools whole planes: what it takes is the last that a network knows of places in the image.
    fn pools_planes(&self) -> bool {
        false
    }
}

/// Layers one after the other.
pub type Layers = Vec<Box<dyn Layer>>;

/// Runs `x` through `layers`.
///
/// # Errors
/// As the layers.
pub fn run(layers: &[Box<dyn Layer>], x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
    layers.iter().try_fold(x.clone(), |x, layer| layer.forward(&x, pass))
}

/// Adds `layers` to `graph`, one after the other.
///
/// # Errors
/// As the layers.
pub fn export(layers: &[Box<dyn Layer>], x: Value, pass: &Pass<'_>, graph: &mut Graph) -> Result<Value> {
    layers.iter().try_fold(x, |x, layer| layer.export(x, pass, graph))
}

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct Conv {
    /// Channels of the input.
    pub channels_in: usize,
    /// Channels of the output.
    pub channels_out: usize,
    /// Height and width of the kernel, in pixels.
    pub kernel: (usize, usize),
    /// Step between windows, in pixels.
    pub stride: usize,
    /// Zeros added above and below, and left and right, in pixels.
    pub padding: (usize, usize),
    /// True where every channel has a kernel of its own and sees no other.
    pub depthwise: bool,
}

impl Conv {
    /// A square kernel of odd size whose padding is half of it, so that stride 1 keeps the size.
    pub fn same(channels_in: usize, channels_out: usize, kernel: usize, stride: usize) -> Conv {
        let padding = (kernel / 2, kernel / 2);
        Conv { channels_in, channels_out, kernel: (kernel, kernel), stride, padding, depthwise: false }
    }

    /// A kernel without padding at stride 1, which makes the image smaller.
    pub fn valid(channels_in: usize, channels_out: usize, kernel: (usize, usize)) -> Conv {
        Conv { channels_in, channels_out, kernel, stride: 1, padding: (0, 0), depthwise: false }
    }

    /// One kernel per channel, with the size of [`Conv::same`].
    pub fn depthwise(channels: usize, kernel: usize, stride: usize) -> Conv {
        Conv { depthwise: true, ..Conv::same(channels, channels, kernel, stride) }
    }

    /// Registers `{name}.weight`: normal with `std`, or with He's over the fan-out (arXiv 1502.01852).
    fn register(&self, builder: &mut Builder<'_>, name: &str, std: Option<f64>) -> Result<()> {
        let fan_out = self.channels_out * self.kernel.0 * self.kernel.1;
        let depth = if self.depthwise { 1 } else { self.channels_in };
        let shape = [self.channels_out, depth, self.kernel.0, self.kernel.1];
        builder.normal(&format!("{name}.weight"), &shape, std.unwrap_or((2.0 / fan_out as f64).sqrt()))
    }

    fn options(&self) -> Convolution {
        Convolution { stride: self.stride, padding: self.padding }
    }

    fn forward(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        match self.depthwise {
            true => ops::depthwise_conv2d(x, weight, self.options()),
            false => ops::conv2d(x, weight, self.options()),
        }
    }

    fn forward_fixed(
        &self,
        x: &Tensor,
        weight: &Tensor,
        map: &ChannelMap,
        residual: Option<&Tensor>,
        activation: Activation,
    ) -> Result<Tensor> {
        match (self.depthwise, residual) {
            (false, _) => ops::conv2d_fixed(x, weight, self.options(), map, residual, activation),
            (true, None) => ops::depthwise_conv2d_fixed(x, weight, self.options(), map, activation),
            (true, Some(_)) => bail!("a depthwise convolution ends no residual block"),
        }
    }

    /// Adds the convolution called `name` with these weights and biases.
    fn export(
        &self,
        x: &Value,
        name: &str,
        (weight, bias): (Tensor, Tensor),
        graph: &mut Graph,
    ) -> Result<Value> {
        let (_, height, width) = x.plane()?;
        let (kernel, padding) = (self.kernel, self.padding);
        let output =
            |size: usize, kernel: usize, padding: usize| match (size + 2 * padding).checked_sub(kernel) {
                Some(room) => Ok(room / self.stride + 1),
                None => bail!("{name}: an image of {height} x {width} pixels is too small"),
            };
        let shape = vec![
            self.channels_out,
            output(height, kernel.0, padding.0)?,
            output(width, kernel.1, padding.1)?,
        ];
        let attributes = vec![
            ("group", Attribute::Integer(if self.depthwise { self.channels_in } else { 1 })),
            ("kernel_shape", Attribute::Integers(vec![kernel.0, kernel.1])),
            ("pads", Attribute::Integers(vec![padding.0, padding.1, padding.0, padding.1])),
            ("strides", Attribute::Integers(vec![self.stride; 2])),
        ];
        let weight = graph.constant(&format!("{name}.weight"), weight);
        let bias = graph.constant(&format!("{name}.bias"), bias);
        Ok(graph.node("Conv", &[x.name(), &weight, &bias], attributes, shape))
    }
}

/// The constants of a batch normalisation.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    /// Added to the variance.
    pub epsilon: f64,
    /// The share that a batch has in the running statistics.
    pub momentum: f64,
}

impl Norm {
    /// PyTorch's defaults.
    pub const DEFAULT: Norm = Norm { epsilon: 1e-5, momentum: 0.1 };
}

/// A convolution without bias, followed by batch normalisation and perhaps an activation.
#[derive(Debug)]
pub struct ConvNorm {
    convolution: String,
    norm: String,
    conv: Conv,
    constants: Norm,
    activation: Activation,
}

impl ConvNorm {
    /// Registers `{convolution}.weight` and `{norm}.{weight, bias, running_mean, running_var}`.
    ///
    /// # Errors
    /// When the device cannot hold the tensors.
    pub fn new(
        builder: &mut Builder<'_>,
        (convolution, norm): (&str, &str),
        conv: Conv,
        constants: Norm,
        activation: Activation,
    ) -> Result<ConvNorm> {
        ConvNorm::with_std(builder, (convolution, norm), conv, constants, activation, None)
    }

    /// The same with a standard deviation of the initial weights that is not He's.
    ///
    /// # Errors
    /// When the device cannot hold the tensors.
    pub fn with_std(
        builder: &mut Builder<'_>,
        (convolution, norm): (&str, &str),
        conv: Conv,
        constants: Norm,
        activation: Activation,
        std: Option<f64>,
    ) -> Result<ConvNorm> {
        conv.register(builder, convolution, std)?;
        register_norm(builder, norm, conv.channels_out)?;
        Ok(ConvNorm {
            convolution: convolution.to_owned(),
            norm: norm.to_owned(),
            conv,
            constants,
            activation,
        })
    }

    /// [`Layer::forward`] with a residual added before the activation, where there is one.
    ///
    /// # Errors
    /// As [`Layer::forward`], and when the residual has another shape.
    pub fn forward_with(&self, x: &Tensor, residual: Option<&Tensor>, pass: &Pass<'_>) -> Result<Tensor> {
        let weight = pass.tensor(&format!("{}.weight", self.convolution));
        let trains_weight = pass.trains(&format!("{}.weight", self.convolution));
        let norm = NormOf { name: &self.norm, constants: self.constants, activation: self.activation };
        if let Some(map) = norm.fixed_map(pass)?
            && !trains_weight
            && is_plain(x)
            && residual.is_none_or(is_plain)
        {
            return self.conv.forward_fixed(x, &weight, &map, residual, self.activation);
        }
        norm.forward(&self.conv.forward(x, &weight)?, residual, pass)
    }

    /// [`Layer::export`] with a residual added before the activation, where there is one.
    ///
    /// # Errors
    /// As [`Layer::export`].
    pub fn export_with(
        &self,
        x: Value,
        residual: Option<&Value>,
        pass: &Pass<'_>,
        graph: &mut Graph,
    ) -> Result<Value> {
        let weight = pass.tensor(&format!("{}.weight", self.convolution));
        let norm = NormOf { name: &self.norm, constants: self.constants, activation: self.activation };
        let folded = norm.folded_into(&weight, None, pass)?;
        let mut y = self.conv.export(&x, &self.convolution, folded, graph)?;
        if let Some(residual) = residual {
            y = graph.node("Add", &[y.name(), residual.name()], vec![], y.shape().to_vec());
        }
        graph.activate(y, self.activation)
    }
}

/// True where nothing trained is behind `x`, on the device that has fused kernels.
fn is_plain(x: &Tensor) -> bool {
    ops::has_kernel(x) && !ops::is_tracked(x)
}

impl Layer for ConvNorm {
    fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        self.forward_with(x, None, pass)
    }

    fn export(&self, x: Value, pass: &Pass<'_>, graph: &mut Graph) -> Result<Value> {
        self.export_with(x, None, pass, graph)
    }
}

fn register_norm(builder: &mut Builder<'_>, norm: &str, channels: usize) -> Result<()> {
    let channels = [channels];
    builder.constant(&format!("{norm}.weight"), &channels, Kind::Shift, 1.0)?;
    builder.constant(&format!("{norm}.bias"), &channels, Kind::Shift, 0.0)?;
    builder.constant(&format!("{norm}.running_mean"), &channels, Kind::Buffer, 0.0)?;
    builder.constant(&format!("{norm}.running_var"), &channels, Kind::Buffer, 1.0)
}

/// A batch normalisation: by the moments of the batch where the pass trains it, by its running statistics, which it
/// then leaves alone, where not.
struct NormOf<'a> {
    name: &'a str,
    constants: Norm,
    activation: Activation,
}

impl NormOf<'_> {
    fn tensor(&self, part: &str, pass: &Pass<'_>) -> Tensor {
        pass.tensor(&format!("{}.{part}", self.name))
    }

    /// What the norm comes to where it is not trained.
    fn fixed_map(&self, pass: &Pass<'_>) -> Result<Option<ChannelMap>> {
        if pass.trains(&format!("{}.weight", self.name)) {
            return Ok(None);
        }
        let moments = (&self.tensor("running_mean", pass), &self.tensor("running_var", pass));
        let (weight, bias) = (self.tensor("weight", pass), self.tensor("bias", pass));
        ChannelMap::norm(moments, &weight, &bias, self.constants.epsilon).map(Some)
    }

    fn forward(&self, x: &Tensor, residual: Option<&Tensor>, pass: &Pass<'_>) -> Result<Tensor> {
        let (weight, bias) = (self.tensor("weight", pass), self.tensor("bias", pass));
        let Norm { epsilon, momentum } = self.constants;
        if pass.uses_batch_moments(self.name) {
            let (y, statistics) = ops::batch_norm(x, &weight, &bias, epsilon, self.activation, residual)?;
            pass.record(self.name, momentum, statistics);
            return Ok(y);
        }
        let moments = (&self.tensor("running_mean", pass), &self.tensor("running_var", pass));
        ops::batch_norm_fixed(x, moments, &weight, &bias, epsilon, self.activation, residual)
    }

    /// Weights and biases of the convolution before the norm, which then does what both do in evaluation. It is
    /// computed in f64, so that only the results are rounded.
    fn folded_into(
        &self,
        convolution: &Tensor,
        bias: Option<&Tensor>,
        pass: &Pass<'_>,
    ) -> Result<(Tensor, Tensor)> {
        let double = |part: &str| self.tensor(part, pass).to_dtype(DType::F64);
        let scale = (double("weight")? / (double("running_var")? + self.constants.epsilon)?.sqrt()?)?;
        let mean = match bias {
            Some(bias) => (double("running_mean")? - bias.to_dtype(DType::F64)?)?,
            None => double("running_mean")?,
        };
        let shift = (double("bias")? - (mean * &scale)?)?;
        let channel = (scale.elem_count(), 1, 1, 1);
        let weight = convolution.to_dtype(DType::F64)?.broadcast_mul(&scale.reshape(channel)?)?;
        Ok((weight.to_dtype(DType::F32)?, shift.to_dtype(DType::F32)?))
    }
}

/// A convolution with bias, then batch normalisation where `norm` names one, then a ReLU: VGG's layer.
#[derive(Debug)]
pub struct ConvBiasRelu {
    name: String,
    norm: Option<String>,
    conv: Conv,
}

impl ConvBiasRelu {
    /// Registers `{name}.{weight, bias}`, and the tensors of the norm.
    ///
    /// # Errors
    /// When the device cannot hold the tensors.
    pub fn new(
        builder: &mut Builder<'_>,
        name: &str,
        norm: Option<&str>,
        conv: Conv,
    ) -> Result<ConvBiasRelu> {
        conv.register(builder, name, None)?;
        builder.constant(&format!("{name}.bias"), &[conv.channels_out], Kind::Shift, 0.0)?;
        if let Some(norm) = norm {
            register_norm(builder, norm, conv.channels_out)?;
        }
        Ok(ConvBiasRelu { name: name.to_owned(), norm: norm.map(str::to_owned), conv })
    }
}

impl Layer for ConvBiasRelu {
    fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let (weight, bias) =
            (pass.tensor(&format!("{}.weight", self.name)), pass.tensor(&format!("{}.bias", self.name)));
        let trained = pass.trains(&format!("{}.weight", self.name));
        let Some(name) = &self.norm else {
            if !trained && is_plain(x) {
                return self.conv.forward_fixed(
                    x,
                    &weight,
                    &ChannelMap::bias(&bias)?,
                    None,
                    Activation::Relu,
                );
            }
            return ops::add_bias(&self.conv.forward(x, &weight)?, &bias, Activation::Relu);
        };
        let norm = NormOf { name, constants: Norm::DEFAULT, activation: Activation::Relu };
        if let Some(map) = norm.fixed_map(pass)?
            && !trained
            && is_plain(x)
        {
            return self.conv.forward_fixed(x, &weight, &map.after_bias(&bias)?, None, Activation::Relu);
        }
        let y = ops::add_bias(&self.conv.forward(x, &weight)?, &bias, Activation::Identity)?;
        norm.forward(&y, None, pass)
    }

    fn export(&self, x: Value, pass: &Pass<'_>, graph: &mut Graph) -> Result<Value> {
        let tensor = |part: &str| pass.tensor(&format!("{}.{part}", self.name));
        let (weight, bias) = (tensor("weight"), tensor("bias"));
        let folded = match &self.norm {
            Some(name) => NormOf { name, constants: Norm::DEFAULT, activation: Activation::Relu }
                .folded_into(&weight, Some(&bias), pass)?,
            None => (weight, bias),
        };
        let y = self.conv.export(&x, &self.name, folded, graph)?;
        graph.activate(y, Activation::Relu)
    }
}

/// Layers and a convolution that narrows what they widened, and around both an identity where the shape stays (Sandler et
/// al., arXiv 1801.04381, figure 4).
pub struct InvertedResidual {
    /// What widens, filters each channel, and perhaps excites.
    pub layers: Layers,
    /// What narrows.
    pub project: ConvNorm,
    /// Whether the identity is added.
    pub is_residual: bool,
}

impl Layer for InvertedResidual {
    fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let y = run(&self.layers, x, pass)?;
        self.project.forward_with(&y, self.is_residual.then_some(x), pass)
    }

    fn export(&self, x: Value, pass: &Pass<'_>, graph: &mut Graph) -> Result<Value> {
        let y = export(&self.layers, x.clone(), pass, graph)?;
        self.project.export_with(y, self.is_residual.then_some(&x), pass, graph)
    }
}

/// The largest value of each window.
#[derive(Debug)]
pub struct MaxPool(pub ops::Pooling);

impl Layer for MaxPool {
    fn forward(&self, x: &Tensor, _pass: &Pass<'_>) -> Result<Tensor> {
        ops::max_pool(x, self.0)
    }

    fn export(&self, x: Value, _pass: &Pass<'_>, graph: &mut Graph) -> Result<Value> {
        graph.max_pool(&x, self.0)
    }
}

/// The mean over the plane: `[batch, channels, height, width]` to `[batch, channels]`.
#[derive(Debug)]
pub struct GlobalAveragePool;

impl Layer for GlobalAveragePool {
    fn forward(&self, x: &Tensor, _pass: &Pass<'_>) -> Result<Tensor> {
        ops::global_average_pool(x)
    }

    fn export(&self, x: Value, _pass: &Pass<'_>, graph: &mut Graph) -> Result<Value> {
        let y = graph.global_average_pool(&x)?;
        Ok(graph.flatten(y))
    }

    fn pools_planes(&self) -> bool {
        true
    }
}

/// The mean of each cell of a grid of `rows` x `columns`, for images of any size.
#[derive(Debug)]
pub struct AdaptiveAveragePool(pub usize, pub usize);

impl Layer for AdaptiveAveragePool {
    fn forward(&self, x: &Tensor, _pass: &Pass<'_>) -> Result<Tensor> {
        ops::adaptive_average_pool(x, (self.0, self.1))
    }

    fn export(&self, x: Value, _pass: &Pass<'_>, graph: &mut Graph) -> Result<Value> {
        graph.grid_of_means(&x, self.0, self.1)
    }

    fn pools_planes(&self) -> bool {
        true
    }
}

/// An activation that stands alone.
#[derive(Debug)]
pub struct Activate(pub Activation);

impl Layer for Activate {
    fn forward(&self, x: &Tensor, _pass: &Pass<'_>) -> Result<Tensor> {
        ops::activate(x, self.0)
    }

    fn export(&self, x: Value, _pass: &Pass<'_>, graph: &mut Graph) -> Result<Value> {
        graph.activate(x, self.0)
    }
}

/// Dropout, in a training pass that has it; the identity otherwise.
#[derive(Debug)]
pub struct Dropout {
    /// The name of its draws.
    pub name: String,
    /// The share of values that are set to zero, in `[0, 1)`.
    pub probability: f64,
}

impl Layer for Dropout {
    fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        match pass.dropout(&self.name) {
            Some(mut stream) if self.probability > 0.0 => ops::dropout(x, self.probability, &mut stream),
            _ => Ok(x.clone()),
        }
    }

    fn export(&self, x: Value, _pass: &Pass<'_>, _graph: &mut Graph) -> Result<Value> {
        Ok(x)
    }
}

/// How the weights of a linear layer start.
#[derive(Clone, Copy, Debug)]
pub enum LinearInit {
    /// Weights and biases uniform within `1 / √features_in`, as PyTorch's `Linear`.
    Uniform,
    /// Weights normal with this standard deviation, biases zero.
    Normal(f64),
}

impl LinearInit {
    /// Registers `{name}.weight` `[features_out, features_in]`.
    pub(super) fn register(self, builder: &mut Builder<'_>, name: &str, sizes: (usize, usize)) -> Result<()> {
        let (weight, shape) = (format!("{name}.weight"), [sizes.1, sizes.0]);
        match self {
            LinearInit::Uniform => {
                let bound = 1.0 / (sizes.0 as f64).sqrt();
                builder.uniform(&weight, &shape, Kind::Weight, bound)
            }
            LinearInit::Normal(std) => builder.normal(&weight, &shape, std),
        }
    }
}

/// A fully connected layer with bias.
#[derive(Debug)]
pub struct Linear {
    name: String,
}

impl Linear {
    /// Registers `{name}.weight` `[features_out, features_in]` and `{name}.bias`.
    ///
    /// # Errors
    /// When the device cannot hold the tensors.
    pub fn new(
        builder: &mut Builder<'_>,
        name: &str,
        (features, classes): (usize, usize),
        init: LinearInit,
    ) -> Result<Linear> {
        let bias = format!("{name}.bias");
        init.register(builder, name, (features, classes))?;
        match init {
            LinearInit::Uniform => {
                let bound = 1.0 / (features as f64).sqrt();
                builder.uniform(&bias, &[classes], Kind::Shift, bound)?;
            }
            LinearInit::Normal(_) => builder.constant(&bias, &[classes], Kind::Shift, 0.0)?,
        }
        Ok(Linear { name: name.to_owned() })
    }
}

impl Layer for Linear {
    /// `[batch, ..]`, flattened, to `[batch, features_out]`.
    fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let tensor = |part: &str| pass.tensor(&format!("{}.{part}", self.name));
        ops::linear(x, &tensor("weight"), &tensor("bias"))
    }

    fn export(&self, x: Value, pass: &Pass<'_>, graph: &mut Graph) -> Result<Value> {
        let x = graph.flatten(x);
        let mut constant = |part: &str| {
            let name = format!("{}.{part}", self.name);
            graph.constant(&name, pass.tensor(&name))
        };
        let (weight, bias) = (constant("weight"), constant("bias"));
        let features = pass.tensor(&format!("{}.bias", self.name)).elem_count();
        let transposed = vec![("transB", Attribute::Integer(1))];
        Ok(graph.node("Gemm", &[x.name(), &weight, &bias], transposed, vec![features]))
    }
}

/// Squeeze-and-excitation (arXiv 1709.01507): the mean of each channel, through two fully connected layers, weighs the
/// channels.
#[derive(Debug)]
pub struct SqueezeExcite {
    name: String,
    inner: Activation,
    gate: Activation,
}

impl SqueezeExcite {
    /// Registers `{name}.fc1` and `{name}.fc2`, 1 x 1 convolutions with bias from `channels` to `squeezed` and back.
    ///
    /// # Errors
    /// When the device cannot hold the tensors.
    pub fn new(
        builder: &mut Builder<'_>,
        name: &str,
        (channels, squeezed): (usize, usize),
        (inner, gate): (Activation, Activation),
    ) -> Result<SqueezeExcite> {
        for (layer, from, to) in [("fc1", channels, squeezed), ("fc2", squeezed, channels)] {
            Conv::same(from, to, 1, 1).register(builder, &format!("{name}.{layer}"), None)?;
            builder.constant(&format!("{name}.{layer}.bias"), &[to], Kind::Shift, 0.0)?;
        }
        Ok(SqueezeExcite { name: name.to_owned(), inner, gate })
    }
}

impl Layer for SqueezeExcite {
    fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let linear = |x: &Tensor, layer: &str| {
            let tensor = |part: &str| pass.tensor(&format!("{}.{layer}.{part}", self.name));
            ops::linear(x, &tensor("weight"), &tensor("bias"))
        };
        let squeezed = ops::activate(&linear(&ops::global_average_pool(x)?, "fc1")?, self.inner)?;
        ops::scale_channels(x, &ops::activate(&linear(&squeezed, "fc2")?, self.gate)?)
    }

    fn export(&self, x: Value, pass: &Pass<'_>, graph: &mut Graph) -> Result<Value> {
        let mut y = graph.global_average_pool(&x)?;
        for (layer, activation) in [("fc1", self.inner), ("fc2", self.gate)] {
            let name = format!("{}.{layer}", self.name);
            let tensor = |part: &str| pass.tensor(&format!("{name}.{part}"));
            let (weight, bias) = (tensor("weight"), tensor("bias"));
            let conv = Conv::same(y.shape()[0], bias.elem_count(), 1, 1);
            y = conv.export(&y, &name, (weight, bias), graph)?;
            y = graph.activate(y, activation)?;
        }
        Ok(graph.product(&x, y.name()))
    }
}
