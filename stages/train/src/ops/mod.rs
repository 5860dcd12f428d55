//! The differentiable operations of a trained path: each with its gradient, proven by finite differences.
//!
//! candle brings tensors, devices and the chain rule; several of its own gradients are wrong or missing
//! (pooling, ReLU at 0, softmax), and its CPU convolutions are slow, so every operation that a model trains
//! through stands here. On the CPU each is a kernel, parallel in the rayon pool it is called in. On another
//! device each is a composition of those candle operations whose gradients are right, and the same
//! composition is tested against the kernel on the CPU.
//!
//! Results do not depend on the number of threads: work is cut by shape, never by pool, and partial sums are
//! added in one fixed order. An argument that nothing trains costs nothing: its gradient is never computed.

mod activation;
mod add;
mod average_pool;
mod batch_norm;
mod bias;
mod concat;
mod conv2d;
mod depthwise;
mod dropout;
mod linear;
mod max_pool;
mod nearest;
mod normalize;
mod product;
mod scale_channels;
mod shortcut;
mod tape;
mod unit_rows;
mod update;
mod winograd;

pub use activation::{Activation, activate, relu};
pub use add::add;
pub use average_pool::{adaptive_average_pool, average_pool, global_average_pool};
pub use batch_norm::{BatchStatistics, ChannelMap, batch_norm, batch_norm_fixed};
pub use bias::add_bias;
pub use concat::concat;
pub use conv2d::{Convolution, conv2d, conv2d_fixed};
pub use depthwise::{depthwise_conv2d, depthwise_conv2d_fixed};
pub use dropout::dropout;
pub use linear::linear;
pub use max_pool::{Pooling, max_pool};
pub use nearest::nearest;
pub use normalize::normalize;
pub use scale_channels::scale_channels;
pub use shortcut::zero_padded_shortcut;
pub(crate) use tape::{Tape, is_tracked};
pub use unit_rows::unit_rows;
pub(crate) use update::{adamw, penalize, rmsprop, sgd, sum_of_squares};

use std::mem::{ManuallyDrop, MaybeUninit};

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, WithDType, bail};
use rayon::prelude::*;

/// True where our kernels run: on the CPU in the precision of the parameters. Elsewhere, and in half precision, operations
/// are compositions. There activations carry the precision, and a parameter is cast to it where it is used.
pub(crate) fn has_kernel(x: &Tensor) -> bool {
    x.device().is_cpu() && matches!(x.dtype(), DType::F32 | DType::F64)
}

/// Values per job of an elementwise kernel: enough to pay for handing it out.
const CHUNK: usize = 16 * 1024;

/// An element type that the CPU kernels are written for: f32 to train, f64 so that a finite difference can
/// tell a wrong gradient from a rounding error.
pub(crate) trait Element: WithDType {
    /// Zero.
    const ZERO: Self;

    /// `exp(-self)`.
    fn neg_exp(self) -> Self;

    /// Runs a loop compiled for the vectors of this processor; `work` must be a closure that inlines.
    fn vectorized<R>(work: impl FnOnce() -> R) -> R;

    /// Calls `work` with two buffers that this thread keeps: pages are then faulted in once, not per call.
    /// `work` must not enter the pool, which could start another job of this thread.
    fn with_scratch<R>(work: impl FnOnce(&mut Vec<Self>, &mut Vec<Self>) -> R) -> R;
}

macro_rules! element {
    ($type:ty, $work:ident => $vectorized:expr) => {
        impl Element for $type {
            const ZERO: $type = 0.0;

            fn neg_exp(self) -> $type {
                (-self).exp()
            }

            #[inline(always)]
            fn vectorized<R>(work: impl FnOnce() -> R) -> R {
                let $work = work;
                $vectorized
            }

            fn with_scratch<R>(work: impl FnOnce(&mut Vec<Self>, &mut Vec<Self>) -> R) -> R {
                thread_local! {
                    static SCRATCH: std::cell::RefCell<(Vec<$type>, Vec<$type>)> = const {
                        std::cell::RefCell::new((Vec::new(), Vec::new()))
                    };
                }
                SCRATCH.with_borrow_mut(|(first, second)| work(first, second))
            }
        }
    };
}

element!(f32, work => pulp::Arch::new().dispatch(work));
// Double precision is for finite differences: one version is enough.
element!(f64, work => work());

/// Runs `$work` with the type `$element` standing for the element type `$dtype`. Double precision is for finite
/// differences: kernels are compiled for it in tests only.
macro_rules! with_element {
    ($operation:expr, $dtype:expr, $element:ident => $work:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $element = f32;
                $work
            }
            #[cfg(test)]
            candle_core::DType::F64 => {
                type $element = f64;
                $work
            }
            other => candle_core::bail!("{} of {other:?}: only f32 is supported", $operation),
        }
    };
}
pub(crate) use with_element;

/// So many zeros. Large vectors are zeroed by all threads of the pool: one thread would take as long as a kernel does.
#[allow(unsafe_code)]
fn zeros<T: Element>(length: usize) -> Vec<T> {
    if length <= 16 * CHUNK {
        return vec![T::ZERO; length];
    }
    let mut values = vec![MaybeUninit::uninit(); length];
    values
        .par_chunks_mut(CHUNK)
        .for_each(|chunk: &mut [MaybeUninit<T>]| chunk.fill(MaybeUninit::new(T::ZERO)));
    let mut values = ManuallyDrop::new(values);
    // SAFETY: pointer, length and capacity are those of a vector that is not used any more, `MaybeUninit<T>` has the
    // layout of `T`, and the chunks, which cover it, were written.
    unsafe { Vec::from_raw_parts(values.as_mut_ptr().cast(), values.len(), values.capacity()) }
}

/// The values of a contiguous tensor on the CPU.
fn values<'a, T: Element>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("a kernel got a strided tensor") };
    Ok(&T::cpu_storage_as_slice(storage)?[start..end])
}

/// The storage of a tensor that must be on the CPU.
fn on_cpu(storage: &Storage) -> Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        _ => bail!("a CPU kernel got a tensor of another device"),
    }
}

/// Calls `work` with the values of each of `tensors`.
fn with_values<T: Element, R, const N: usize>(
    tensors: [&Tensor; N],
    work: impl FnOnce([&[T]; N]) -> Result<R>,
) -> Result<R> {
    let tensors = tensors.map(|tensor| tensor.contiguous());
    let mut contiguous = Vec::with_capacity(N);
    for tensor in tensors {
        contiguous.push(tensor?);
    }
    let guards: Vec<_> = contiguous.iter().map(|tensor| tensor.storage_and_layout()).collect();
    let mut slices: [&[T]; N] = [&[]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        *slice = values(on_cpu(storage)?, layout)?;
    }
    work(slices)
}

#[cfg(test)]
pub(crate) mod gradient_check {
    use candle_core::{DType, Device, Result, Tensor, Var};
    use forebay_datasets::seed::Seed;

    use super::Tape;

    /// A tensor of standard normal numbers.
    pub(crate) fn normal(shape: &[usize], name: &str) -> Tensor {
        let mut stream = Seed(11).stream(name);
        let count = shape.iter().product();
        let values: Vec<f64> = (0..count).map(|_| stream.normal()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).expect("the count is the product of the shape")
    }

    /// The gradients of `sum(weights * function(inputs))` by the chain rule.
    pub(crate) fn gradients(
        inputs: &[Tensor],
        function: &dyn Fn(&[Tensor]) -> Result<Tensor>,
    ) -> Result<Vec<Tensor>> {
        let variables = inputs.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
        let tensors: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
        let (output, tape) = Tape::record(|| function(&tensors));
        let output = output?;
        let weights = normal(output.dims(), "the weights of the loss").to_dtype(output.dtype())?;
        let gradients = if tape.tracks(&output) {
            tape.backward(&output, weights, std::iter::empty())?
        } else {
            // A composition of candle operations, as other devices run it.
            let trained = variables.iter().map(|variable| variable.as_tensor());
            Tape::composed_backward(&(output * weights)?.sum_all()?, trained)?
        };
        variables.iter().map(|v| Ok(gradients.get(v).expect("every input has a gradient").clone())).collect()
    }

    fn loss(inputs: &[Tensor], function: &dyn Fn(&[Tensor]) -> Result<Tensor>) -> Result<f64> {
        let output = function(inputs)?;
        let weights = normal(output.dims(), "the weights of the loss");
        (output * weights)?.sum_all()?.to_scalar::<f64>()
    }

    /// Asserts that the gradient of every element of every input equals a central difference in f64, and that
    /// the gradients in f32 equal those in f64 up to rounding.
    pub(crate) fn check(inputs: &[Tensor], function: &dyn Fn(&[Tensor]) -> Result<Tensor>) -> Result<()> {
        let analytic = gradients(inputs, function)?;
        let step = 1e-5;
        for (index, input) in inputs.iter().enumerate() {
            let values = input.flatten_all()?.to_vec1::<f64>()?;
            let gradient = analytic[index].flatten_all()?.to_vec1::<f64>()?;
            for element in 0..values.len() {
                let at = |offset: f64| -> Result<f64> {
                    let mut moved = values.clone();
                    moved[element] += offset;
                    let mut inputs = inputs.to_vec();
                    inputs[index] = Tensor::from_vec(moved, input.dims(), &Device::Cpu)?;
                    loss(&inputs, function)
                };
                let difference = (at(step)? - at(-step)?) / (2.0 * step);
                let error = (difference - gradient[element]).abs();
                assert!(
                    error <= 1e-6 * (1.0 + difference.abs()),
                    "input {index} element {element}: gradient {} but difference {difference}",
                    gradient[element]
                );
            }
        }
        let single = inputs.iter().map(|t| t.to_dtype(DType::F32)).collect::<Result<Vec<_>>>()?;
        for (single, double) in gradients(&single, function)?.iter().zip(&analytic) {
            close(&single.to_dtype(DType::F64)?, double, 1e-4)?;
        }
        Ok(())
    }

    /// Asserts that two tensors of one shape differ by at most `tolerance` of the largest value (at least 1).
    pub(crate) fn close(left: &Tensor, right: &Tensor, tolerance: f64) -> Result<()> {
        assert_eq!(left.dims(), right.dims());
        let left = left.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let right = right.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let scale = right.iter().fold(1f64, |most, value| most.max(value.abs()));
        for (index, (left, right)) in left.iter().zip(&right).enumerate() {
            assert!((left - right).abs() <= tolerance * scale, "element {index}: {left} is not {right}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::gradient_check::{check, normal};
    use super::*;

    /// Stem, pool, a residual block with a convolution beside it, and a classifier.
    fn network(inputs: &[Tensor]) -> Result<Tensor> {
        let [x, stem, first, second, beside, scale, shift, weight, bias] = inputs else {
            bail!("nine tensors")
        };
        let norm = |x: &Tensor, activation| {
            Ok::<_, candle_core::Error>(batch_norm(x, scale, shift, 1e-5, activation, None)?.0)
        };
        let convolution = |kernel: usize, stride| Convolution { stride, padding: (kernel / 2, kernel / 2) };
        let x = norm(&conv2d(x, stem, convolution(3, 1))?, Activation::Relu)?;
        let x = max_pool(&x, Pooling { window: 3, stride: 2, padding: 1, ceil: false })?;
        let y = norm(&conv2d(&x, first, convolution(3, 2))?, Activation::Relu)?;
        let y = norm(&conv2d(&y, second, convolution(3, 1))?, Activation::Identity)?;
        let beside = norm(&conv2d(&x, beside, convolution(1, 2))?, Activation::Identity)?;
        let x = add(&y, &beside, Activation::Relu)?;
        linear(&relu(&global_average_pool(&x)?)?, weight, bias)
    }

    #[test]
    fn zeros_of_all_threads_are_those_of_one() {
        for length in [0, 1, 16 * CHUNK, 16 * CHUNK + 1, 40 * CHUNK + 7] {
            assert!(zeros::<f32>(length) == vec![0.0; length], "{length}");
            assert!(zeros::<f64>(length) == vec![0.0; length], "{length}");
        }
    }

    #[test]
    fn the_gradients_of_a_whole_network_equal_finite_differences() -> Result<()> {
        let shapes: [&[usize]; 9] = [
            &[2, 2, 9, 7],
            &[3, 2, 3, 3],
            &[3, 3, 3, 3],
            &[3, 3, 3, 3],
            &[3, 3, 1, 1],
            &[3],
            &[3],
            &[2, 3],
            &[2],
        ];
        let inputs: Vec<Tensor> = shapes
            .iter()
            .enumerate()
            .map(|(index, shape)| normal(shape, &format!("tensor {index}")))
            .collect();
        check(&inputs, &network)
    }

    #[test]
    fn every_operation_on_the_tape_has_a_finite_difference_test() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops");
        let mut operations = 0;
        for entry in std::fs::read_dir(folder).expect("the sources are there") {
            let path = entry.expect("a file").path();
            let source = std::fs::read_to_string(&path).expect("text");
            let (code, tests) = source.split_once("#[cfg(test)]").unwrap_or((&source, ""));
            // A kernel notes its gradient.
            let differentiable = ["note(\"", "noted_convolution("].iter().any(|call| code.contains(call));
            if differentiable {
                operations += 1;
                assert!(tests.contains("check("), "{} has no finite-difference test", path.display());
            }
        }
        assert!(operations >= 12, "only {operations} operations were found");
    }
}
