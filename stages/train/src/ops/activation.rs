//! What follows a linear map: rectifiers and their smooth relatives, with PyTorch's gradients where they bend.

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::tape::note;
use super::{CHUNK, Element, has_kernel, with_element, with_values, zeros};

/// A function of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// The value itself.
    Identity,
    /// `max(x, 0)`, with gradient 0 at 0.
    Relu,
    /// `min(max(x, 0), 6)`, with gradient 0 at 0 and at 6 (arXiv 1801.04381).
    Relu6,
    /// `x · min(max(x + 3, 0), 6) / 6` (arXiv 1905.02244).
    HardSwish,
    /// `min(max(x + 3, 0), 6) / 6`, with gradient 0 at both ends.
    HardSigmoid,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// `x / (1 + exp(-x))`, also called swish (arXiv 1702.03118).
    Silu,
    /// `x · Φ(x)` with the normal distribution function, exact and not by tanh (arXiv 1606.08415).
    Gelu,
}

/// Runs `$work` with `$function` standing for the function (`value`) or the derivative (`slope`) of `$activation` as a
/// closure over `$element`: a loop in `$work` is compiled and vectorised for each of the listed activations, and for
/// others `$else` is the result.
macro_rules! with_activation {
    (
        $activation:expr, $method:ident, $element:ident, $function:ident => $work:expr;
        $($variant:ident)|+, else $else:expr
    ) => {
        match $activation {
            $($crate::ops::Activation::$variant => {
                let $function = |value: $element| $crate::ops::Activation::$variant.$method(value);
                $work
            })+
            #[allow(unreachable_patterns)]
            _ => $else,
        }
    };
}
pub(super) use with_activation;

impl Activation {
    /// Every activation, for tests.
    #[cfg(test)]
    pub(super) const ALL: [Activation; 9] = [
        Activation::Identity,
        Activation::Relu,
        Activation::Relu6,
        Activation::HardSwish,
        Activation::HardSigmoid,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Silu,
        Activation::Gelu,
    ];

    /// Those that other kernels apply to their results while they are in cache.
    pub(super) const FUSED: [Activation; 5] =
        [Activation::Identity, Activation::Relu, Activation::Relu6, Activation::HardSwish, Activation::Silu];

    /// The function. NaN stays NaN.
    #[inline(always)]
    pub(super) fn value<T: Element>(self, x: T) -> T {
        let number = T::from_f64;
        // Comparisons are written so that they are false for NaN, which then passes through.
        let relu = |x: T| if x <= T::ZERO { T::ZERO } else { x };
        let relu6 = |x: T| if x >= number(6.0) { number(6.0) } else { relu(x) };
        match self {
            Activation::Identity => x,
            Activation::Relu => relu(x),
            Activation::Relu6 => relu6(x),
            Activation::HardSwish => x * relu6(x + number(3.0)) * number(1.0 / 6.0),
            Activation::HardSigmoid => relu6(x + number(3.0)) * number(1.0 / 6.0),
            Activation::Sigmoid => number(1.0) / (number(1.0) + x.neg_exp()),
            Activation::Tanh => number(x.to_f64().tanh()),
            Activation::Silu => x / (number(1.0) + x.neg_exp()),
            Activation::Gelu => x * normal_distribution(x),
        }
    }

    /// The derivative, with PyTorch's choice where there is none.
    #[inline(always)]
    pub(super) fn slope<T: Element>(self, x: T) -> T {
        let number = T::from_f64;
        let one = number(1.0);
        match self {
            Activation::Identity => one,
            Activation::Relu => {
                if x <= T::ZERO {
                    T::ZERO
                } else {
                    one
                }
            }
            Activation::Relu6 => {
                if x <= T::ZERO || x >= number(6.0) {
                    T::ZERO
                } else {
                    one
                }
            }
            Activation::HardSwish => {
                if x <= number(-3.0) {
                    T::ZERO
                } else if x >= number(3.0) {
                    one
                } else {
                    x * number(1.0 / 3.0) + number(0.5)
                }
            }
            Activation::HardSigmoid => {
                if x <= number(-3.0) || x >= number(3.0) {
                    T::ZERO
                } else {
                    number(1.0 / 6.0)
                }
            }
            Activation::Sigmoid => {
                let y = Activation::Sigmoid.value(x);
                y * (one - y)
            }
            Activation::Tanh => {
                let y = Activation::Tanh.value(x);
                one - y * y
            }
            Activation::Silu => {
                let sigmoid = Activation::Sigmoid.value(x);
                sigmoid * (one + x * (one - sigmoid))
            }
            Activation::Gelu => {
                let density = (-0.5 * x.to_f64() * x.to_f64()).exp() / (2.0 * std::f64::consts::PI).sqrt();
                normal_distribution(x) + x * number(density)
            }
        }
    }
}

fn normal_distribution<T: Element>(x: T) -> T {
    T::from_f64(0.5 * (1.0 + candle_core::cpu::erf::erf_f64(x.to_f64() / std::f64::consts::SQRT_2)))
}

/// The activation of every value of a tensor of any shape.
///
/// # Errors
/// For other element types than f32 and f64.
pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    if activation == Activation::Identity {
        return Ok(x.clone());
    }
    if !has_kernel(x) {
        return composed(x, activation);
    }
    let y = values_of(x, activation)?;
    let argument = x.clone();
    note("activation", &y, [x], move |gradient, _| {
        Ok([Some(scaled_by_slope(&argument, gradient, activation)?)])
    })?;
    Ok(y)
}

/// `max(x, 0)` for every value of a tensor of any shape; NaN stays NaN.
///
/// # Errors
/// For other element types than f32 and f64.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    activate(x, Activation::Relu)
}

fn values_of(x: &Tensor, activation: Activation) -> Result<Tensor> {
    with_element!("an activation", x.dtype(), T => with_values::<T, _, 1>([x], |[x_values]| {
        let mut y = zeros(x_values.len());
        y.par_chunks_mut(CHUNK).zip(x_values.par_chunks(CHUNK)).for_each(|(y, x)| {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = activation.value(x);
            }
        });
        Tensor::from_vec(y, x.dims(), &Device::Cpu)
    }))
}

/// The gradient before an activation, from that after it and the values at which to take the slope.
pub(super) fn scaled_by_slope(x: &Tensor, gradient: &Tensor, activation: Activation) -> Result<Tensor> {
    if activation == Activation::Identity {
        return Ok(gradient.clone());
    }
    with_element!("a slope", x.dtype(), T => with_values::<T, _, 2>([x, gradient], |[x_values, gradient]| {
        let mut result = zeros(gradient.len());
        let jobs = result.par_chunks_mut(CHUNK).zip(x_values.par_chunks(CHUNK)).zip(gradient.par_chunks(CHUNK));
        jobs.for_each(|((result, x), gradient)| {
            with_activation!(activation, slope, T, slope => T::vectorized(|| {
                for ((result, &x), &gradient) in result.iter_mut().zip(x).zip(gradient) {
                    *result = gradient * slope(x);
                }
            }); Relu | Relu6, else for ((result, &x), &gradient) in result.iter_mut().zip(x).zip(gradient) {
                *result = gradient * activation.slope(x);
            });
        });
        Tensor::from_vec(result, x.dims(), &Device::Cpu)
    }))
}

/// The same from candle operations, for other devices than the CPU. Ends of ranges are chosen by comparisons of
/// detached values: candle's own clamp and ReLU, and with them its hard sigmoid, have other gradients there.
pub(super) fn composed(x: &Tensor, activation: Activation) -> Result<Tensor> {
    let relu = |x: &Tensor| x.detach().le(0.0)?.where_cond(&x.zeros_like()?, x);
    let relu6 = |x: &Tensor| {
        let six = (x.zeros_like()? + 6.0)?;
        x.detach().ge(6.0)?.where_cond(&six, &relu(x)?)
    };
    match activation {
        Activation::Identity => Ok(x.clone()),
        Activation::Relu => relu(x),
        Activation::Relu6 => relu6(x),
        Activation::HardSwish => (x * relu6(&(x + 3.0)?)?)? * (1.0 / 6.0),
        Activation::HardSigmoid => relu6(&(x + 3.0)?)? * (1.0 / 6.0),
        Activation::Sigmoid => candle_nn::ops::sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::Silu => candle_nn::ops::silu(x),
        Activation::Gelu => x.gelu_erf(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{check, close, gradients, normal};
    use super::*;

    fn wide() -> Tensor {
        (normal(&[5, 17], "x") * 4.0).expect("a product")
    }

    #[test]
    fn gradients_equal_finite_differences() -> Result<()> {
        for activation in Activation::ALL {
            check(&[wide()], &|inputs| activate(&inputs[0], activation))?;
            check(&[wide()], &|inputs| composed(&inputs[0], activation))?;
        }
        Ok(())
    }

    #[test]
    fn the_kernel_equals_the_composition_of_other_devices() -> Result<()> {
        for activation in Activation::ALL {
            close(&activate(&wide(), activation)?, &composed(&wide(), activation)?, 1e-9)?;
        }
        Ok(())
    }

    #[test]
    fn values_are_those_of_pytorch() -> Result<()> {
        // torch.nn.functional at -3.5, -1, 0, 0.5, 2.5, 7 in double precision.
        let x = Tensor::new(&[-3.5f64, -1.0, 0.0, 0.5, 2.5, 7.0], &Device::Cpu)?;
        for (activation, expected) in [
            (Activation::Relu, [0.0, 0.0, 0.0, 0.5, 2.5, 7.0]),
            (Activation::Relu6, [0.0, 0.0, 0.0, 0.5, 2.5, 6.0]),
            (Activation::HardSwish, [0.0, -1.0 / 3.0, 0.0, 1.75 / 6.0, 13.75 / 6.0, 7.0]),
            (Activation::HardSigmoid, [0.0, 1.0 / 3.0, 0.5, 3.5 / 6.0, 5.5 / 6.0, 1.0]),
            (
                Activation::Sigmoid,
                [0.029312230751, 0.268941421370, 0.5, 0.622459331202, 0.924141819979, 0.999088948806],
            ),
            (
                Activation::Tanh,
                [-0.998177897611, -0.761594155956, 0.0, 0.462117157260, 0.986614298151, 0.999998336944],
            ),
            (
                Activation::Silu,
                [-0.102592807629, -0.268941421370, 0.0, 0.311229665601, 2.310354549947, 6.993622641639],
            ),
            (
                Activation::Gelu,
                [-0.000814202277, -0.158655253931, 0.0, 0.345731230631, 2.484475836185, 6.999999999991],
            ),
        ] {
            close(&activate(&x, activation)?, &Tensor::new(&expected, &Device::Cpu)?, 1e-9)?;
        }
        Ok(())
    }

    #[test]
    fn where_there_is_no_slope_the_gradient_is_pytorchs() -> Result<()> {
        for (activation, points) in [
            (Activation::Relu, vec![-1.0, 0.0, -0.0]),
            (Activation::Relu6, vec![0.0, -0.0, 6.0, 7.0]),
            (Activation::HardSigmoid, vec![-3.0, 3.0, 4.0]),
            (Activation::HardSwish, vec![-3.0, -4.0]),
        ] {
            let x = Tensor::new(points, &Device::Cpu)?;
            let gradient = gradients(std::slice::from_ref(&x), &|inputs| activate(&inputs[0], activation))?;
            assert!(gradient[0].to_vec1::<f64>()?.iter().all(|&gradient| gradient == 0.0), "{activation:?}");
        }
        Ok(())
    }

    #[test]
    fn not_a_number_stays_visible() -> Result<()> {
        let x = Tensor::new(&[f32::NAN], &Device::Cpu)?;
        for activation in Activation::ALL {
            assert!(activate(&x, activation)?.to_vec1::<f32>()?[0].is_nan(), "{activation:?}");
        }
        Ok(())
    }
}
