//! Batch normalisation in its three modes, with the ReLU after it folded in.
//!
//! *Train* normalises by the moments of the batch; *evaluate* and *frozen* by fixed moments, the latter inside
//! a training step. Ioffe and Szegedy, arXiv 1502.03167.

use std::sync::{Arc, OnceLock};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Device, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::tape::apply3;
use super::{Element, relu, values, with_element, with_values};

/// What is applied to the normalised values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// `max(value, 0)`, with gradient 0 at 0.
    Relu,
}

/// The moments of a batch per channel, over images and pixels.
#[derive(Clone, Debug)]
pub struct BatchStatistics {
    /// `[channels]`.
    pub mean: Tensor,
    /// `[channels]`, with n - 1 in the denominator, as running variances are kept.
    pub unbiased_variance: Tensor,
}

/// Normalises `x` `[batch, channels, height, width]` by its own moments per channel, scales by `weight` and
/// shifts by `bias` (both `[channels]`), then applies `activation`. Returns the moments too, for the running
/// averages.
///
/// # Errors
/// When a channel has a single value (a batch of one image of one pixel), which has no variance.
pub fn batch_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    epsilon: f64,
    activation: Activation,
) -> Result<(Tensor, BatchStatistics)> {
    let (batch, _, height, width) = x.dims4()?;
    let count = batch * height * width;
    if count < 2 {
        bail!("batch normalisation needs more than one value per channel: use a larger batch or image");
    }
    let unbiased = count as f64 / (count - 1) as f64;
    if !x.device().is_cpu() {
        let mean = x.mean_keepdim(3)?.mean_keepdim(2)?.mean_keepdim(0)?;
        let centred = x.broadcast_sub(&mean)?;
        let variance = centred.sqr()?.mean_keepdim(3)?.mean_keepdim(2)?.mean_keepdim(0)?;
        let statistics = BatchStatistics {
            mean: mean.detach().flatten_all()?,
            unbiased_variance: (variance.detach().flatten_all()? * unbiased)?,
        };
        return Ok((composed(&centred, &variance, weight, bias, epsilon, activation)?, statistics));
    }
    let moments = Arc::new(OnceLock::new());
    let op = Normalisation { epsilon, activation, fixed: false, moments: moments.clone() };
    let y = apply3([&x.contiguous()?, weight, bias], op)?;
    let moments: &Moments = moments.get().expect("the forward pass has filled them");
    let tensor = |values: Vec<f64>| Tensor::new(values, &Device::Cpu)?.to_dtype(x.dtype());
    let variance = moments.variance.iter().map(|variance| variance * unbiased).collect();
    Ok((y, BatchStatistics { mean: tensor(moments.mean.clone())?, unbiased_variance: tensor(variance)? }))
}

/// The same with given moments (`mean` and `variance`, both `[channels]`), which get no gradient.
///
/// # Errors
/// When the shapes do not belong together.
pub fn batch_norm_fixed(
    x: &Tensor,
    (mean, variance): (&Tensor, &Tensor),
    weight: &Tensor,
    bias: &Tensor,
    epsilon: f64,
    activation: Activation,
) -> Result<Tensor> {
    if !x.device().is_cpu() {
        let channel = (1, mean.elem_count(), 1, 1);
        let centred = x.broadcast_sub(&mean.detach().reshape(channel)?)?;
        let variance = variance.detach().reshape(channel)?;
        return composed(&centred, &variance, weight, bias, epsilon, activation);
    }
    let double = |tensor: &Tensor| tensor.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>();
    let moments = Moments { mean: double(mean)?, variance: double(variance)? };
    let op = Normalisation { epsilon, activation, fixed: true, moments: Arc::new(OnceLock::from(moments)) };
    apply3([&x.contiguous()?, weight, bias], op)
}

/// What remains once the moments are known, from candle operations, for other devices than the CPU.
fn composed(
    centred: &Tensor,
    variance: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    epsilon: f64,
    activation: Activation,
) -> Result<Tensor> {
    let channel = (1, weight.elem_count(), 1, 1);
    let normalised = centred.broadcast_div(&(variance + epsilon)?.sqrt()?)?;
    let y = normalised.broadcast_mul(&weight.reshape(channel)?)?.broadcast_add(&bias.reshape(channel)?)?;
    match activation {
        Activation::Identity => Ok(y),
        Activation::Relu => relu(&y),
    }
}

/// Mean and biased variance per channel, in double precision.
struct Moments {
    mean: Vec<f64>,
    variance: Vec<f64>,
}

struct Normalisation {
    epsilon: f64,
    activation: Activation,
    /// True when the moments are given, and so no function of the input.
    fixed: bool,
    moments: Arc<OnceLock<Moments>>,
}

/// Sums of `term` over the values of slices of one length, added to `totals`: blocks of a thousand values in the
/// element type, in sixteen lanes that the compiler vectorises, and the blocks in f64. One order for any number
/// of threads.
fn add_sums<T: Element, const N: usize, const M: usize>(
    slices: [&[T]; N],
    totals: &mut [f64; M],
    term: impl Fn([T; N]) -> [T; M],
) {
    const LANES: usize = 16;
    const BLOCK: usize = 64 * LANES;
    let length = slices[0].len();
    for start in (0..length).step_by(BLOCK) {
        let end = (start + BLOCK).min(length);
        let block = slices.map(|slice| &slice[start..end]);
        let mut lanes = [[T::ZERO; LANES]; M];
        let groups = block.map(|slice| slice.as_chunks::<LANES>());
        for index in 0..groups[0].0.len() {
            let group = groups.map(|(group, _)| &group[index]);
            for lane in 0..LANES {
                let terms = term(group.map(|values| values[lane]));
                for (lanes, term) in lanes.iter_mut().zip(terms) {
                    lanes[lane] += term;
                }
            }
        }
        for lane in 0..groups[0].1.len() {
            let terms = term(groups.map(|(_, rest)| rest[lane]));
            for (lanes, term) in lanes.iter_mut().zip(terms) {
                lanes[lane] += term;
            }
        }
        for (total, lanes) in totals.iter_mut().zip(&lanes) {
            *total += lanes.iter().map(|lane| lane.to_f64()).sum::<f64>();
        }
    }
}

impl Normalisation {
    fn moments<T: Element>(&self, x: &[T], channels: usize, plane: usize) -> &Moments {
        self.moments.get_or_init(|| {
            let count = (x.len() / channels) as f64;
            let moments: Vec<(f64, f64)> = (0..channels)
                .into_par_iter()
                .map(|channel| {
                    let planes = || x.chunks_exact(plane).skip(channel).step_by(channels);
                    let mut sum = [0.0];
                    planes().for_each(|plane| add_sums([plane], &mut sum, |[x]| [x]));
                    let mean = sum[0] / count;
                    let centre = T::from_f64(mean);
                    let mut squares = [0.0];
                    planes().for_each(|plane| {
                        add_sums([plane], &mut squares, |[x]| [(x - centre) * (x - centre)]);
                    });
                    (mean, squares[0] / count)
                })
                .collect();
            let (mean, variance) = moments.into_iter().unzip();
            Moments { mean, variance }
        })
    }

    fn forward<T: Element>(&self, x: &[T], weight: &[T], bias: &[T], plane: usize) -> Vec<T> {
        let channels = weight.len();
        let moments = self.moments(x, channels, plane);
        let mut y = vec![T::ZERO; x.len()];
        y.par_chunks_mut(plane).zip(x.par_chunks(plane)).enumerate().for_each(|(index, (y, x))| {
            let channel = index % channels;
            let scale = weight[channel].to_f64() / (moments.variance[channel] + self.epsilon).sqrt();
            let shift = T::from_f64(bias[channel].to_f64() - moments.mean[channel] * scale);
            let scale = T::from_f64(scale);
            match self.activation {
                Activation::Identity => {
                    for (y, &x) in y.iter_mut().zip(x) {
                        *y = x * scale + shift;
                    }
                }
                Activation::Relu => {
                    for (y, &x) in y.iter_mut().zip(x) {
                        let value = x * scale + shift;
                        // Written so that NaN stays NaN.
                        *y = if value <= T::ZERO { T::ZERO } else { value };
                    }
                }
            }
        });
        y
    }

    /// The gradients of input, weight and bias. With `n` values per channel and `x̂` normalised:
    /// `dx = weight / σ · (dy - mean(dy) - x̂ · mean(dy · x̂))`, the two means left out for fixed moments.
    fn backward<T: Element>(
        &self,
        [x, y, gradient]: [&[T]; 3],
        weight: &[T],
        plane: usize,
        needs_input: bool,
    ) -> (Option<Vec<T>>, Vec<T>, Vec<T>) {
        let channels = weight.len();
        let count = (x.len() / channels) as f64;
        let moments = self.moments(x, channels, plane);
        let relu = self.activation == Activation::Relu;
        let inverse: Vec<f64> =
            moments.variance.iter().map(|variance| 1.0 / (variance + self.epsilon).sqrt()).collect();
        let sums: Vec<(f64, f64)> = (0..channels)
            .into_par_iter()
            .map(|channel| {
                let (mean, inverse) = (T::from_f64(moments.mean[channel]), T::from_f64(inverse[channel]));
                let planes = |values| <[T]>::chunks_exact(values, plane).skip(channel).step_by(channels);
                let mut sums = [0.0; 2];
                for ((x, y), gradient) in planes(x).zip(planes(y)).zip(planes(gradient)) {
                    add_sums([x, y, gradient], &mut sums, |[x, y, gradient]| {
                        let passed = if relu && y <= T::ZERO { T::ZERO } else { gradient };
                        [passed * ((x - mean) * inverse), passed]
                    });
                }
                (sums[0], sums[1])
            })
            .collect();
        let dx = needs_input.then(|| {
            let mut dx = vec![T::ZERO; x.len()];
            dx.par_chunks_mut(plane).enumerate().for_each(|(index, dx)| {
                let channel = index % channels;
                let scale = weight[channel].to_f64() * inverse[channel];
                let (mut slope, mut offset) = (0.0, 0.0);
                if !self.fixed {
                    let (weight_sum, bias_sum) = sums[channel];
                    slope = -scale * inverse[channel] * weight_sum / count;
                    offset = -scale * bias_sum / count - slope * moments.mean[channel];
                }
                let (scale, slope, offset) = (T::from_f64(scale), T::from_f64(slope), T::from_f64(offset));
                let range = index * plane..(index + 1) * plane;
                let (x, y, gradient) = (&x[range.clone()], &y[range.clone()], &gradient[range]);
                for (((dx, &x), &y), &gradient) in dx.iter_mut().zip(x).zip(y).zip(gradient) {
                    let passed = if relu && y <= T::ZERO { T::ZERO } else { gradient };
                    *dx = passed * scale + x * slope + offset;
                }
            });
            dx
        });
        let (weight, bias) =
            sums.iter().map(|&(weight, bias)| (T::from_f64(weight), T::from_f64(bias))).unzip();
        (dx, weight, bias)
    }
}

impl CustomOp3 for Normalisation {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, channels, height, width) = x_layout.shape().dims4()?;
        if weight_layout.dims() != [channels] || bias_layout.dims() != [channels] {
            bail!("batch_norm of {channels} channels got {} weights", weight_layout.shape().elem_count());
        }
        with_element!("batch_norm", x.dtype(), T => {
            let (x, weight) = (values::<T>(x, x_layout)?, values(weight, weight_layout)?);
            let y = self.forward(x, weight, values(bias, bias_layout)?, height * width);
            Ok((candle_core::WithDType::to_cpu_storage_owned(y), x_layout.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (_, channels, height, width) = x.dims4()?;
        with_element!("batch_norm", x.dtype(), T => {
            let tensors = [x, y, gradient, weight];
            with_values::<T, _, 4>(tensors, |[x_values, y, gradient, weight_values]| {
                let needs_input = x.track_op();
                let (dx, dw, db) =
                    self.backward([x_values, y, gradient], weight_values, height * width, needs_input);
                let dx = dx.map(|dx| Tensor::from_vec(dx, x.dims(), &Device::Cpu)).transpose()?;
                let vector = |values| Tensor::from_vec(values, channels, &Device::Cpu);
                let dw = weight.track_op().then(|| vector(dw)).transpose()?;
                let db = bias.track_op().then(|| vector(db)).transpose()?;
                Ok((dx, dw, db))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{check, close, gradients, normal};
    use super::*;
    use candle_core::DType;

    fn inputs() -> [Tensor; 3] {
        let x = (normal(&[3, 2, 5, 7], "x") * 2.0).and_then(|x| x + 0.5).expect("an affine map");
        [x, normal(&[2], "weight"), normal(&[2], "bias")]
    }

    fn train(inputs: &[Tensor], activation: Activation) -> Result<Tensor> {
        Ok(batch_norm(&inputs[0], &inputs[1], &inputs[2], 1e-5, activation)?.0)
    }

    fn fixed(inputs: &[Tensor], activation: Activation) -> Result<Tensor> {
        let mean = Tensor::new(&[0.3, -0.2], &Device::Cpu)?.to_dtype(inputs[0].dtype())?;
        let variance = Tensor::new(&[2.0, 0.7], &Device::Cpu)?.to_dtype(inputs[0].dtype())?;
        batch_norm_fixed(&inputs[0], (&mean, &variance), &inputs[1], &inputs[2], 1e-5, activation)
    }

    /// The composition of other devices, with the moments of the batch.
    fn composed_train(inputs: &[Tensor], activation: Activation) -> Result<Tensor> {
        let mean = inputs[0].mean_keepdim(3)?.mean_keepdim(2)?.mean_keepdim(0)?;
        let centred = inputs[0].broadcast_sub(&mean)?;
        let variance = centred.sqr()?.mean_keepdim(3)?.mean_keepdim(2)?.mean_keepdim(0)?;
        composed(&centred, &variance, &inputs[1], &inputs[2], 1e-5, activation)
    }

    #[test]
    fn gradients_equal_finite_differences_in_every_mode() -> Result<()> {
        for activation in [Activation::Identity, Activation::Relu] {
            check(&inputs(), &|inputs| train(inputs, activation))?;
            check(&inputs(), &|inputs| fixed(inputs, activation))?;
            check(&inputs(), &|inputs| composed_train(inputs, activation))?;
        }
        Ok(())
    }

    #[test]
    fn the_kernel_equals_the_composition_of_other_devices() -> Result<()> {
        for activation in [Activation::Identity, Activation::Relu] {
            close(&train(&inputs(), activation)?, &composed_train(&inputs(), activation)?, 1e-12)?;
            let ours = gradients(&inputs(), &|inputs| train(inputs, activation))?;
            let theirs = gradients(&inputs(), &|inputs| composed_train(inputs, activation))?;
            for (ours, theirs) in ours.iter().zip(&theirs) {
                close(ours, theirs, 1e-12)?;
            }
        }
        Ok(())
    }

    #[test]
    fn moments_are_those_of_the_batch() -> Result<()> {
        let x = Tensor::new(&[[[[1f64, 2.0], [3.0, 6.0]]]], &Device::Cpu)?;
        let one = Tensor::new(&[1f64], &Device::Cpu)?;
        let (y, statistics) = batch_norm(&x, &one, &(&one * 0.0)?, 0.0, Activation::Identity)?;
        assert_eq!(statistics.mean.to_vec1::<f64>()?, [3.0]);
        assert!((statistics.unbiased_variance.to_vec1::<f64>()?[0] - 14.0 / 3.0).abs() < 1e-12);
        let expected = [-2.0, -1.0, 0.0, 3.0].map(|centred| centred / 3.5f64.sqrt());
        close(&y.flatten_all()?, &Tensor::new(&expected, &Device::Cpu)?, 1e-12)
    }

    #[test]
    fn a_large_mean_does_not_drown_the_variance() -> Result<()> {
        let x = (normal(&[2, 1, 40, 40], "x") + 1000.0)?;
        let one = Tensor::new(&[1f64], &Device::Cpu)?;
        let zero = (&one * 0.0)?;
        let double = batch_norm(&x, &one, &zero, 1e-5, Activation::Identity)?.1;
        let single = x.to_dtype(DType::F32)?;
        let (one, zero) = (one.to_dtype(DType::F32)?, zero.to_dtype(DType::F32)?);
        let single = batch_norm(&single, &one, &zero, 1e-5, Activation::Identity)?.1;
        close(&single.unbiased_variance, &double.unbiased_variance, 1e-4)
    }

    #[test]
    fn a_single_value_per_channel_is_refused() -> Result<()> {
        let one = normal(&[2], "one");
        let result = batch_norm(&normal(&[1, 2, 1, 1], "x"), &one, &one, 1e-5, Activation::Identity);
        let error = result.expect_err("one value has no variance");
        assert!(error.to_string().contains("more than one value per channel"), "{error}");
        Ok(())
    }
}
