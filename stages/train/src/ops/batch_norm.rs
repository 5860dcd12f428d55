//! Batch normalisation in its three modes, with the ReLU after it folded in.
//!
//! *Train* normalises by the moments of the batch; *evaluate* and *frozen* by fixed moments, the latter inside
//! a training step. Ioffe and Szegedy, arXiv 1502.03167.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, WithDType, bail};
use rayon::prelude::*;

use super::activation::{self, Activation, scaled_by_slope, with_activation};
use super::tape::note;
use super::{Element, has_kernel, with_element, with_values, zeros};

/// The moments of a batch per channel, over images and pixels.
#[derive(Clone, Debug)]
pub struct BatchStatistics {
    /// `[channels]`.
    pub mean: Tensor,
    /// `[channels]`, with n - 1 in the denominator, as running variances are kept.
    pub unbiased_variance: Tensor,
}

/// Normalises `x` `[batch, channels, height, width]` by its own moments per channel, scales by `weight` and
/// shifts by `bias` (both `[channels]`), adds `residual` (of the shape of `x`) where there is one, then applies
/// `activation`. Returns the moments too, for the running averages.
///
/// # Errors
/// When a channel has a single value (a batch of one image of one pixel), which has no variance.
pub fn batch_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    epsilon: f64,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<(Tensor, BatchStatistics)> {
    let (batch, _, height, width) = x.dims4()?;
    let count = batch * height * width;
    if count < 2 {
        bail!("batch normalisation needs more than one value per channel: use a larger batch or image");
    }
    let unbiased = count as f64 / (count - 1) as f64;
    if !has_kernel(x) {
        let dtype = x.dtype();
        let x = &in_single(x)?;
        let mean = x.mean_keepdim(3)?.mean_keepdim(2)?.mean_keepdim(0)?;
        let centred = x.broadcast_sub(&mean)?;
        let variance = centred.sqr()?.mean_keepdim(3)?.mean_keepdim(2)?.mean_keepdim(0)?;
        let statistics = BatchStatistics {
            mean: mean.detach().flatten_all()?,
            unbiased_variance: (variance.detach().flatten_all()? * unbiased)?,
        };
        let y = composed(&centred, &variance, weight, bias, epsilon, activation, residual)?;
        return Ok((y.to_dtype(dtype)?, statistics));
    }
    let moments = with_element!("batch_norm", x.dtype(), T => with_values::<T, _, 1>([x], |[x_values]| {
        Ok(Moments::of(x_values, weight.elem_count(), height * width))
    }))?;
    let tensor = |values: Vec<f64>| Tensor::new(values, &Device::Cpu)?.to_dtype(x.dtype());
    let variance = moments.variance.iter().map(|variance| variance * unbiased).collect();
    let statistics =
        BatchStatistics { mean: tensor(moments.mean.clone())?, unbiased_variance: tensor(variance)? };
    let norm = Normalisation { epsilon, activation, fixed: false, moments: Arc::new(moments) };
    Ok((norm.apply([x, weight, bias], residual)?, statistics))
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
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    if !has_kernel(x) {
        let channel = (1, mean.elem_count(), 1, 1);
        let centred = in_single(x)?.broadcast_sub(&mean.detach().reshape(channel)?)?;
        let variance = variance.detach().reshape(channel)?;
        return composed(&centred, &variance, weight, bias, epsilon, activation, residual)?
            .to_dtype(x.dtype());
    }
    let moments = Arc::new(Moments { mean: double(mean)?, variance: double(variance)? });
    Normalisation { epsilon, activation, fixed: true, moments }.apply([x, weight, bias], residual)
}

fn double(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_dtype(DType::F64)?.to_vec1()
}

/// Half precision made single: moments and what is divided by them are found in it.
fn in_single(x: &Tensor) -> Result<Tensor> {
    if matches!(x.dtype(), DType::F16 | DType::BF16) { x.to_dtype(DType::F32) } else { Ok(x.clone()) }
}

/// What remains once the moments are known, from candle operations, for other devices than the CPU.
fn composed(
    centred: &Tensor,
    variance: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    epsilon: f64,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let channel = (1, weight.elem_count(), 1, 1);
    let normalised = centred.broadcast_div(&(variance + epsilon)?.sqrt()?)?;
    let y = normalised.broadcast_mul(&weight.reshape(channel)?)?.broadcast_add(&bias.reshape(channel)?)?;
    let y = match residual {
        Some(residual) => (y + in_single(residual)?)?,
        None => y,
    };
    activation::composed(&y, activation)
}

/// `value · scale + shift` per channel: what a norm with fixed moments comes to, or a bias.
#[derive(Clone, Debug)]
pub struct ChannelMap {
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl ChannelMap {
    /// That of a norm with these moments, weight and bias, each `[channels]`.
    ///
    /// # Errors
    /// When a tensor is not a vector.
    pub fn norm(
        (mean, variance): (&Tensor, &Tensor),
        weight: &Tensor,
        bias: &Tensor,
        epsilon: f64,
    ) -> Result<ChannelMap> {
        let (mean, variance, weight, bias) =
            (double(mean)?, double(variance)?, double(weight)?, double(bias)?);
        let scale: Vec<f64> = (weight.iter().zip(&variance))
            .map(|(weight, variance)| weight / (variance + epsilon).sqrt())
            .collect();
        let shift =
            bias.iter().zip(&mean).zip(&scale).map(|((bias, mean), scale)| (bias - mean * scale) as f32);
        Ok(ChannelMap { shift: shift.collect(), scale: scale.iter().map(|&scale| scale as f32).collect() })
    }

    /// That of a bias `[channels]`.
    ///
    /// # Errors
    /// When it is not a vector.
    pub fn bias(bias: &Tensor) -> Result<ChannelMap> {
        let shift: Vec<f32> = bias.to_vec1()?;
        Ok(ChannelMap { scale: vec![1.0; shift.len()], shift })
    }

    /// This map applied to values that a bias `[channels]` was added to before.
    ///
    /// # Errors
    /// When the bias is not a vector.
    pub fn after_bias(&self, bias: &Tensor) -> Result<ChannelMap> {
        let bias: Vec<f32> = bias.to_vec1()?;
        let shift =
            bias.iter().zip(&self.scale).zip(&self.shift).map(|((bias, scale), shift)| bias * scale + shift);
        Ok(ChannelMap { shift: shift.collect(), scale: self.scale.clone() })
    }

    /// Maps values of one channel, then applies the activation.
    #[inline(never)]
    pub(super) fn apply(&self, channel: usize, values: &mut [f32], activation: Activation) {
        let (scale, shift) = (self.scale[channel], self.shift[channel]);
        with_activation!(activation, value, f32, value => f32::vectorized(|| {
            for x in &mut *values {
                *x = value(*x * scale + shift);
            }
        }); Identity | Relu | Relu6 | HardSwish | Silu, else unreachable!("refused before"));
    }

    /// The same with a residual added before the activation.
    #[inline(never)]
    pub(super) fn apply_with(
        &self,
        channel: usize,
        values: &mut [f32],
        residual: &[f32],
        activation: Activation,
    ) {
        let (scale, shift) = (self.scale[channel], self.shift[channel]);
        with_activation!(activation, value, f32, value => f32::vectorized(|| {
            for (x, &residual) in values.iter_mut().zip(residual) {
                *x = value(*x * scale + shift + residual);
            }
        }); Identity | Relu | Relu6, else unreachable!("refused before"));
    }
}

/// Mean and biased variance per channel, in double precision.
struct Moments {
    mean: Vec<f64>,
    variance: Vec<f64>,
}

#[derive(Clone)]
struct Normalisation {
    epsilon: f64,
    activation: Activation,
    /// True when the moments are given, and so no function of the input.
    fixed: bool,
    moments: Arc<Moments>,
}

/// Sums of `term` over the values of slices of one length, added to `totals`: blocks of a thousand values in the
/// element type, in sixteen lanes that the compiler vectorises, and the blocks in f64. One order for any number
/// of threads.
#[inline(always)]
pub(super) fn add_sums<T: Element, const N: usize, const M: usize>(
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

impl Moments {
    /// The moments of `[batch, channels, plane]` values, in one pass: both sums are taken of the distance to the
    /// first value of the channel, so that a mean far from zero does not drown the variance.
    fn of<T: Element>(x: &[T], channels: usize, plane: usize) -> Moments {
        let count = (x.len() / channels) as f64;
        let of_channel = |channel: usize| {
            let first = x[channel * plane];
            let mut sums = [0.0; 2];
            for plane in x.chunks_exact(plane).skip(channel).step_by(channels) {
                T::vectorized(
                    #[inline(always)]
                    || add_sums([plane], &mut sums, |[x]| [x - first, (x - first) * (x - first)]),
                );
            }
            let distance = sums[0] / count;
            (first.to_f64() + distance, (sums[1] / count - distance * distance).max(0.0))
        };
        let moments: Vec<(f64, f64)> = (0..channels).into_par_iter().map(of_channel).collect();
        let (mean, variance) = moments.into_iter().unzip();
        Moments { mean, variance }
    }
}

impl Normalisation {
    /// The factor and the offset of a channel.
    fn affine<T: Element>(&self, channel: usize, weight: T, bias: T) -> (T, T) {
        let scale = weight.to_f64() / (self.moments.variance[channel] + self.epsilon).sqrt();
        (T::from_f64(scale), T::from_f64(bias.to_f64() - self.moments.mean[channel] * scale))
    }

    fn apply(self, [x, weight, bias]: [&Tensor; 3], residual: Option<&Tensor>) -> Result<Tensor> {
        let (_, channels, height, width) = x.dims4()?;
        let plane = height * width;
        if weight.dims() != [channels] || bias.dims() != [channels] || self.moments.mean.len() != channels {
            bail!("batch_norm of {channels} channels got {} weights", weight.elem_count());
        }
        if let Some(residual) = residual
            && residual.dims() != x.dims()
        {
            bail!("batch_norm of {:?} got a residual of {:?}", x.dims(), residual.dims());
        }
        if !Activation::FUSED.contains(&self.activation) {
            bail!("batch_norm with {:?}: apply the activation apart", self.activation);
        }
        let y = with_element!("batch_norm", x.dtype(), T => {
            let tensors = [x, residual.unwrap_or(x), weight, bias];
            with_values::<T, _, 4>(tensors, |[x_values, residual_values, weight, bias]| {
                let residual = residual.map(|_| residual_values);
                Tensor::from_vec(self.forward(x_values, weight, bias, residual, plane), x.dims(), &Device::Cpu)
            })
        })?;
        let (kept_x, kept_weight, kept_bias) = (x.clone(), weight.clone(), bias.clone());
        match residual {
            None => note("batch_norm", &y, [x, weight, bias], move |gradient, needs| {
                let activation = self.activation;
                self.gradients([&kept_x, gradient, &kept_weight, &kept_bias], activation, needs)
            })?,
            Some(residual) => {
                if !matches!(self.activation, Activation::Identity | Activation::Relu | Activation::Relu6) {
                    bail!("batch_norm with a residual and {:?}: add the residual apart", self.activation);
                }
                // The output tells the slope of a rectifier, so that the residual is not kept.
                let kept_y = y.clone();
                note(
                    "batch_norm",
                    &y,
                    [x, weight, bias, residual],
                    move |gradient, [x, weight, bias, residual]| {
                        let gradient = scaled_by_slope(&kept_y, gradient, self.activation)?;
                        let tensors = [&kept_x, &gradient, &kept_weight, &kept_bias];
                        let [dx, dw, db] =
                            self.gradients(tensors, Activation::Identity, [x, weight, bias])?;
                        Ok([dx, dw, db, residual.then_some(gradient)])
                    },
                )?;
            }
        }
        Ok(y)
    }

    fn forward<T: Element>(
        &self,
        x: &[T],
        weight: &[T],
        bias: &[T],
        residual: Option<&[T]>,
        plane: usize,
    ) -> Vec<T> {
        let channels = weight.len();
        let mut y = zeros(x.len());
        let jobs = y.par_chunks_mut(plane).zip(x.par_chunks(plane)).enumerate();
        jobs.for_each(|(index, (y, x))| {
            let channel = index % channels;
            let (scale, shift) = self.affine(channel, weight[channel], bias[channel]);
            let residual = residual.map(|residual| &residual[index * plane..(index + 1) * plane]);
            with_activation!(self.activation, value, T, value => T::vectorized(|| match residual {
                None => {
                    for (y, &x) in y.iter_mut().zip(x) {
                        *y = value(x * scale + shift);
                    }
                }
                Some(residual) => {
                    for ((y, &x), &residual) in y.iter_mut().zip(x).zip(residual) {
                        *y = value(x * scale + shift + residual);
                    }
                }
            }); Identity | Relu | Relu6 | HardSwish | Silu, else unreachable!("refused before"));
        });
        y
    }

    /// The gradients of input, weight and bias. With `n` values per channel and `x̂` normalised:
    /// `dx = weight / σ · (dy - mean(dy) - x̂ · mean(dy · x̂))`, the two means left out for fixed moments, where `dy`
    /// is the gradient before the activation, whose slope is taken at the values computed again from `x`.
    fn gradients(
        &self,
        [x, gradient, weight, bias]: [&Tensor; 4],
        activation: Activation,
        needs: [bool; 3],
    ) -> Result<[Option<Tensor>; 3]> {
        let (_, channels, height, width) = x.dims4()?;
        with_element!("batch_norm", x.dtype(), T => {
            with_values::<T, _, 4>([x, gradient, weight, bias], |[x_values, gradient, weight, bias]| {
                let plane = height * width;
                let sums = self.sums(x_values, gradient, (weight, bias), plane, activation);
                let dx = needs[0].then(|| {
                    let dx = self.backward(x_values, gradient, (weight, bias), plane, activation, &sums);
                    Tensor::from_vec(dx, x.dims(), &Device::Cpu)
                });
                let vector = |of: fn(&(f64, f64)) -> f64| {
                    let values: Vec<T> = sums.iter().map(|sums| T::from_f64(of(sums))).collect();
                    Tensor::from_vec(values, channels, &Device::Cpu)
                };
                let dw = needs[1].then(|| vector(|sums| sums.0));
                let db = needs[2].then(|| vector(|sums| sums.1));
                Ok([dx.transpose()?, dw.transpose()?, db.transpose()?])
            })
        })
    }

    fn inverse(&self, channel: usize) -> f64 {
        1.0 / (self.moments.variance[channel] + self.epsilon).sqrt()
    }

    /// Per channel the sums of `dy · x̂` and of `dy`: the gradients of weight and bias.
    fn sums<T: Element>(
        &self,
        x: &[T],
        gradient: &[T],
        (weight, bias): (&[T], &[T]),
        plane: usize,
        activation: Activation,
    ) -> Vec<(f64, f64)> {
        let channels = weight.len();
        let of_channel = |channel: usize| {
            let (scale, shift) = self.affine(channel, weight[channel], bias[channel]);
            let (mean, inverse) =
                (T::from_f64(self.moments.mean[channel]), T::from_f64(self.inverse(channel)));
            let planes = |values| <[T]>::chunks_exact(values, plane).skip(channel).step_by(channels);
            let mut sums = [0.0; 2];
            for (x, gradient) in planes(x).zip(planes(gradient)) {
                with_activation!(activation, slope, T, slope => T::vectorized(
                    #[inline(always)]
                    || add_sums([x, gradient], &mut sums, |[x, gradient]| {
                        let passed = gradient * slope(x * scale + shift);
                        [passed * ((x - mean) * inverse), passed]
                    }),
                ); Identity | Relu | Relu6 | HardSwish | Silu, else unreachable!("refused before"));
            }
            (sums[0], sums[1])
        };
        (0..channels).into_par_iter().map(of_channel).collect()
    }

    fn backward<T: Element>(
        &self,
        x: &[T],
        gradient: &[T],
        (weight, bias): (&[T], &[T]),
        plane: usize,
        activation: Activation,
        sums: &[(f64, f64)],
    ) -> Vec<T> {
        let channels = weight.len();
        let count = (x.len() / channels) as f64;
        let mut dx = zeros(x.len());
        let jobs =
            dx.par_chunks_mut(plane).zip(x.par_chunks(plane)).zip(gradient.par_chunks(plane)).enumerate();
        jobs.for_each(|(index, ((dx, x), gradient))| {
            let channel = index % channels;
            let (value_scale, value_shift) = self.affine(channel, weight[channel], bias[channel]);
            let scale = weight[channel].to_f64() * self.inverse(channel);
            let (mut rate, mut offset) = (0.0, 0.0);
            if !self.fixed {
                let (weight_sum, bias_sum) = sums[channel];
                rate = -scale * self.inverse(channel) * weight_sum / count;
                offset = -scale * bias_sum / count - rate * self.moments.mean[channel];
            }
            let (scale, rate, offset) = (T::from_f64(scale), T::from_f64(rate), T::from_f64(offset));
            with_activation!(activation, slope, T, slope => T::vectorized(|| {
                for ((dx, &x), &gradient) in dx.iter_mut().zip(x).zip(gradient) {
                    *dx = gradient * slope(x * value_scale + value_shift) * scale + x * rate + offset;
                }
            }); Identity | Relu | Relu6 | HardSwish | Silu, else unreachable!("refused before"));
        });
        dx
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
        Ok(batch_norm(&inputs[0], &inputs[1], &inputs[2], 1e-5, activation, inputs.get(3))?.0)
    }

    fn fixed(inputs: &[Tensor], activation: Activation) -> Result<Tensor> {
        let mean = Tensor::new(&[0.3, -0.2], &Device::Cpu)?.to_dtype(inputs[0].dtype())?;
        let variance = Tensor::new(&[2.0, 0.7], &Device::Cpu)?.to_dtype(inputs[0].dtype())?;
        batch_norm_fixed(
            &inputs[0],
            (&mean, &variance),
            &inputs[1],
            &inputs[2],
            1e-5,
            activation,
            inputs.get(3),
        )
    }

    /// The composition of other devices, with the moments of the batch.
    fn composed_train(inputs: &[Tensor], activation: Activation) -> Result<Tensor> {
        let mean = inputs[0].mean_keepdim(3)?.mean_keepdim(2)?.mean_keepdim(0)?;
        let centred = inputs[0].broadcast_sub(&mean)?;
        let variance = centred.sqr()?.mean_keepdim(3)?.mean_keepdim(2)?.mean_keepdim(0)?;
        composed(&centred, &variance, &inputs[1], &inputs[2], 1e-5, activation, inputs.get(3))
    }

    #[test]
    fn gradients_equal_finite_differences_in_every_mode() -> Result<()> {
        for activation in Activation::FUSED {
            check(&inputs(), &|inputs| train(inputs, activation))?;
            check(&inputs(), &|inputs| fixed(inputs, activation))?;
            check(&inputs(), &|inputs| composed_train(inputs, activation))?;
        }
        for activation in [Activation::Identity, Activation::Relu, Activation::Relu6] {
            let inputs = [&inputs()[..], &[normal(&[3, 2, 5, 7], "residual")]].concat();
            check(&inputs, &|inputs| train(inputs, activation))?;
            check(&inputs, &|inputs| fixed(inputs, activation))?;
        }
        Ok(())
    }

    #[test]
    fn the_kernel_equals_the_composition_of_other_devices() -> Result<()> {
        for activation in Activation::FUSED {
            close(&train(&inputs(), activation)?, &composed_train(&inputs(), activation)?, 1e-9)?;
            let ours = gradients(&inputs(), &|inputs| train(inputs, activation))?;
            let theirs = gradients(&inputs(), &|inputs| composed_train(inputs, activation))?;
            for (ours, theirs) in ours.iter().zip(&theirs) {
                close(ours, theirs, 1e-9)?;
            }
        }
        Ok(())
    }

    #[test]
    fn moments_are_those_of_the_batch() -> Result<()> {
        let x = Tensor::new(&[[[[1f64, 2.0], [3.0, 6.0]]]], &Device::Cpu)?;
        let one = Tensor::new(&[1f64], &Device::Cpu)?;
        let (y, statistics) = batch_norm(&x, &one, &(&one * 0.0)?, 0.0, Activation::Identity, None)?;
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
        let double = batch_norm(&x, &one, &zero, 1e-5, Activation::Identity, None)?.1;
        let single = x.to_dtype(DType::F32)?;
        let (one, zero) = (one.to_dtype(DType::F32)?, zero.to_dtype(DType::F32)?);
        let single = batch_norm(&single, &one, &zero, 1e-5, Activation::Identity, None)?.1;
        close(&single.unbiased_variance, &double.unbiased_variance, 1e-4)
    }

    #[test]
    fn a_single_value_per_channel_is_refused() -> Result<()> {
        let one = normal(&[2], "one");
        let result = batch_norm(&normal(&[1, 2, 1, 1], "x"), &one, &one, 1e-5, Activation::Identity, None);
        let error = result.expect_err("one value has no variance");
        assert!(error.to_string().contains("more than one value per channel"), "{error}");
        Ok(())
    }
}
