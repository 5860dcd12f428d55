//! The arithmetic of the optimisers: a parameter and its state are updated in place.

use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, Tensor, Var, bail};
use rayon::prelude::*;

use super::{CHUNK, Element};

/// One step of stochastic gradient descent with momentum, as PyTorch's `SGD` without dampening:
/// `d = gradient + weight_decay · parameter`, `velocity = momentum · velocity + d`, and the parameter moves by
/// `-learning_rate` times the velocity, or `d + momentum · velocity` with Nesterov's look-ahead.
pub(crate) fn sgd(
    parameter: &Var,
    velocity: &Var,
    gradient: &Tensor,
    learning_rate: f64,
    (momentum, nesterov): (f64, bool),
    weight_decay: f64,
) -> Result<()> {
    let (values, state) = (parameter.as_detached_tensor(), velocity.as_detached_tensor());
    let gradient = gradient.contiguous()?;
    if !values.device().is_cpu() {
        let decayed = (&gradient + (&values * weight_decay)?)?;
        let moved = ((&state * momentum)? + &decayed)?;
        velocity.set(&moved)?;
        let direction = if nesterov { (decayed + (moved * momentum)?)? } else { moved };
        return parameter.set(&(values - (direction * learning_rate)?)?);
    }
    let (rate, momentum, decay) = (learning_rate as f32, momentum as f32, weight_decay as f32);
    state.inplace_op3(
        &gradient,
        &values,
        &Elementwise(move |velocity: f32, [gradient, value]: [f32; 2]| {
            momentum * velocity + (gradient + decay * value)
        }),
    )?;
    values.inplace_op3(
        &gradient,
        &state,
        &Elementwise(move |value: f32, [gradient, velocity]: [f32; 2]| {
            let direction = if nesterov { gradient + decay * value + momentum * velocity } else { velocity };
            value - rate * direction
        }),
    )
}

/// One step of AdamW with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), as PyTorch's
/// `AdamW`; `step` counts from 1.
pub(crate) fn adamw(
    parameter: &Var,
    (first, second): (&Var, &Var),
    gradient: &Tensor,
    learning_rate: f64,
    (beta1, beta2, epsilon): (f64, f64, f64),
    weight_decay: f64,
    step: u64,
) -> Result<()> {
    let (values, mean, square) =
        (parameter.as_detached_tensor(), first.as_detached_tensor(), second.as_detached_tensor());
    let gradient = gradient.contiguous()?;
    let power = |beta: f64| 1.0 - beta.powf(step as f64);
    let (size, root, keep) =
        (learning_rate / power(beta1), power(beta2).sqrt(), 1.0 - learning_rate * weight_decay);
    if !values.device().is_cpu() {
        let mean = (&mean + ((&gradient - &mean)? * (1.0 - beta1))?)?;
        let square = ((square * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
        let denominator = ((square.sqrt()? * (1.0 / root))? + epsilon)?;
        parameter.set(&((values * keep)? - ((&mean / denominator)? * size)?)?)?;
        first.set(&mean)?;
        return second.set(&square);
    }
    let (weight1, beta2, weight2) = ((1.0 - beta1) as f32, beta2 as f32, (1.0 - beta2) as f32);
    let (size, root, keep, epsilon) = (size as f32, root as f32, keep as f32, epsilon as f32);
    mean.inplace_op2(
        &gradient,
        &Elementwise(move |mean: f32, [gradient]: [f32; 1]| mean + (gradient - mean) * weight1),
    )?;
    square.inplace_op2(
        &gradient,
        &Elementwise(move |square: f32, [gradient]: [f32; 1]| square * beta2 + weight2 * gradient * gradient),
    )?;
    values.inplace_op3(
        &mean,
        &square,
        &Elementwise(move |value: f32, [mean, square]: [f32; 2]| {
            value * keep - size * (mean / (square.sqrt() / root + epsilon))
        }),
    )
}

/// The sum of the squares of all values, in double precision.
pub(crate) fn sum_of_squares(x: &Tensor) -> Result<f64> {
    if !x.device().is_cpu() {
        return Ok(f64::from(x.sqr()?.sum_all()?.to_scalar::<f32>()?));
    }
    super::with_values::<f32, _, 1>([x], |[x]| {
        // The partial sums are added in their order, for any number of threads.
        let partial = |values: &[f32]| {
            let mut sum = [0.0];
            super::batch_norm::add_sums([values], &mut sum, |[value]| [value * value]);
            sum[0]
        };
        Ok(x.par_chunks(CHUNK).map(partial).collect::<Vec<f64>>().iter().sum())
    })
}

/// Adds penalties to a gradient: `gradient += l2 · parameter + l1 · sign(parameter)`.
pub(crate) fn penalize(gradient: &Tensor, parameter: &Var, l2: f64, l1: f64) -> Result<Tensor> {
    let values = parameter.as_detached_tensor();
    if !values.device().is_cpu() {
        return (gradient + (&values * l2)?)? + (values.sign()? * l1)?;
    }
    let penalized = gradient.contiguous()?.copy()?;
    let (l2, l1) = (l2 as f32, l1 as f32);
    penalized.inplace_op2(
        &values,
        &Elementwise(move |gradient: f32, [value]: [f32; 1]| {
            let sign = if value == 0.0 { 0.0 } else { value.signum() };
            gradient + l2 * value + l1 * sign
        }),
    )?;
    Ok(penalized)
}

/// One step of RMSprop (Hinton's lecture 6e), as PyTorch's `RMSprop`. `mean` is the mean of gradients of the centred
/// form, `velocity` what momentum keeps.
pub(crate) fn rmsprop(
    parameter: &Var,
    square: &Var,
    (mean, velocity): (Option<&Var>, Option<&Var>),
    gradient: &Tensor,
    learning_rate: f64,
    (alpha, epsilon, momentum): (f64, f64, f64),
) -> Result<()> {
    let values = parameter.as_detached_tensor();
    let gradient = gradient.contiguous()?;
    square.set(&((square.as_detached_tensor() * alpha)? + (gradient.sqr()? * (1.0 - alpha))?)?)?;
    let mut spread = square.as_detached_tensor();
    if let Some(mean) = mean {
        let before = mean.as_detached_tensor();
        mean.set(&(&before + ((&gradient - &before)? * (1.0 - alpha))?)?)?;
        // Rounding may take the difference of equal numbers below zero, which has no root.
        spread = (spread - mean.as_detached_tensor().sqr()?)?.relu()?;
    }
    let mut direction = (gradient / (spread.sqrt()? + epsilon)?)?;
    if let Some(velocity) = velocity {
        velocity.set(&((velocity.as_detached_tensor() * momentum)? + direction)?)?;
        direction = velocity.as_detached_tensor();
    }
    parameter.set(&(values - (direction * learning_rate)?)?)
}

/// `target = function(target, sources)` for every element, f32 on the CPU. What the function captures it owns, and a loop works on
/// a copy of it: behind a reference it could be what the loop writes, for all that the compiler knows.
struct Elementwise<F>(F);

/// Hands the chunks of `target` and of what is read beside it to `work`, which is compiled for the vectors of this processor.
#[inline(always)]
fn by_chunks<const N: usize>(
    target: &mut CpuStorage,
    layout: &Layout,
    sources: [(&CpuStorage, &Layout); N],
    work: impl Fn(&mut [f32], [&[f32]; N]) + Sync,
) -> Result<()> {
    let (CpuStorage::F32(target), Some((start, end))) = (target, layout.contiguous_offsets()) else {
        bail!("an optimiser updates contiguous f32 parameters only")
    };
    let mut slices: [&[f32]; N] = [&[]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(sources) {
        *slice = super::values(storage, layout)?;
        if slice.len() != end - start {
            bail!("an optimiser got {} values for {}", slice.len(), end - start);
        }
    }
    target[start..end].par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, target)| {
        let sources = slices.map(|slice| &slice[chunk * CHUNK..][..target.len()]);
        f32::vectorized(
            #[inline(always)]
            || work(target, sources),
        );
    });
    Ok(())
}

impl<F: Fn(f32, [f32; 1]) -> f32 + Copy + Sync> InplaceOp2 for Elementwise<F> {
    fn name(&self) -> &'static str {
        "optimiser update"
    }

    fn cpu_fwd(
        &self,
        target: &mut CpuStorage,
        layout: &Layout,
        source: &CpuStorage,
        source_layout: &Layout,
    ) -> Result<()> {
        by_chunks(
            target,
            layout,
            [(source, source_layout)],
            #[inline(always)]
            |target, [source]| {
                let function = self.0;
                for (target, source) in target.iter_mut().zip(source) {
                    *target = function(*target, [*source]);
                }
            },
        )
    }
}

impl<F: Fn(f32, [f32; 2]) -> f32 + Copy + Sync> InplaceOp3 for Elementwise<F> {
    fn name(&self) -> &'static str {
        "optimiser update"
    }

    fn cpu_fwd(
        &self,
        target: &mut CpuStorage,
        layout: &Layout,
        first: &CpuStorage,
        first_layout: &Layout,
        second: &CpuStorage,
        second_layout: &Layout,
    ) -> Result<()> {
        by_chunks(
            target,
            layout,
            [(first, first_layout), (second, second_layout)],
            #[inline(always)]
            |target, [first, second]| {
                let function = self.0;
                for ((target, first), second) in target.iter_mut().zip(first).zip(second) {
                    *target = function(*target, [*first, *second]);
                }
            },
        )
    }
}
