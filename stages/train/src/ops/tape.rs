//! The backward pass on the CPU: what ran, in reverse.
//!
//! candle's own graph keeps every argument of every operation alive, adds every gradient to zeros first, and adds
//! large ones on threads of its own that spin while they wait. Our operations therefore run outside of it: while a
//! [`Tape`] is recorded each notes how its gradient is found, keeping only the tensors that this needs, and the tape
//! runs them backward. The first gradient of a tensor is taken as it is, sums run in the pool that the caller is in.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use candle_core::{Device, Result, Tensor, TensorId, bail};
use rayon::prelude::*;

use super::{CHUNK, Element, with_element, with_values, zeros};

type Backward = Box<dyn FnOnce(&Tensor) -> Result<Vec<Option<Tensor>>>>;

/// One operation that something trained passes through.
struct TapeNode {
    name: &'static str,
    output: TensorId,
    arguments: Vec<TensorId>,
    backward: Backward,
}

/// The operations of one forward pass, in their order.
#[derive(Default)]
pub(crate) struct Tape {
    nodes: Vec<TapeNode>,
    /// The outputs of the nodes.
    outputs: HashSet<TensorId>,
}

thread_local! {
    // A forward pass runs on one thread; only the inside of an operation is spread over the pool.
    static RECORDING: RefCell<Option<Tape>> = const { RefCell::new(None) };
}

/// True when a gradient is wanted for `x`: it is trained, or depends on something trained.
pub(crate) fn is_tracked(x: &Tensor) -> bool {
    RECORDING.with_borrow(|tape| tape.as_ref().is_some_and(|tape| tape.tracks(x)))
}

/// Notes that `output` was computed from `arguments`, if a tape is recorded and one of them is tracked. `backward`
/// gets the gradient of the output and which arguments are tracked, and returns the gradients of these.
///
/// # Errors
/// When an argument depends on something trained through an operation of candle, which is not on the tape.
pub(super) fn note<const N: usize>(
    name: &'static str,
    output: &Tensor,
    arguments: [&Tensor; N],
    backward: impl FnOnce(&Tensor, [bool; N]) -> Result<[Option<Tensor>; N]> + 'static,
) -> Result<()> {
    RECORDING.with_borrow_mut(|tape| {
        let Some(tape) = tape else { return Ok(()) };
        let tracked = arguments.map(|argument| tape.tracks(argument));
        for (argument, tracked) in arguments.iter().zip(tracked) {
            if !tracked && argument.track_op() {
                bail!("{name}: its argument comes from an operation that is not one of ours");
            }
        }
        if tracked.contains(&true) {
            tape.outputs.insert(output.id());
            tape.nodes.push(TapeNode {
                name,
                output: output.id(),
                arguments: arguments.iter().map(|argument| argument.id()).collect(),
                backward: Box::new(move |gradient| backward(gradient, tracked).map(Vec::from)),
            });
        }
        Ok(())
    })
}

/// The gradients of trained tensors.
#[derive(Debug)]
pub(crate) struct Gradients(HashMap<TensorId, Tensor>);

impl Gradients {
    /// The gradient of `tensor`, if the loss depends on it.
    pub(crate) fn get(&self, tensor: &Tensor) -> Option<&Tensor> {
        self.0.get(&tensor.id())
    }
}

impl Tape {
    /// Runs `forward` and notes the operations that something trained passes through.
    pub(crate) fn record<R>(forward: impl FnOnce() -> R) -> (R, Tape) {
        RECORDING.set(Some(Tape::default()));
        let result = forward();
        (result, RECORDING.take().unwrap_or_default())
    }

    /// True when a gradient is wanted for `x`.
    pub(crate) fn tracks(&self, x: &Tensor) -> bool {
        x.is_variable() || self.outputs.contains(&x.id())
    }

    /// The gradients of everything trained, given that of `output`, the last tensor of the forward pass.
    ///
    /// Where the operations were compositions of candle's, it is candle's own backward pass that finds the gradients of
    /// `trained`.
    ///
    /// # Errors
    /// When an operation is on the tape whose output reaches the last tensor only through operations that are not:
    /// its parameters would silently get no gradient.
    pub(crate) fn backward<'a>(
        mut self,
        output: &Tensor,
        gradient: Tensor,
        trained: impl Iterator<Item = &'a Tensor>,
    ) -> Result<Gradients> {
        if output.track_op() && !self.tracks(output) {
            return Tape::composed_backward(&(output * gradient)?.sum_all()?, trained);
        }
        let mut gradients = HashMap::from([(output.id(), gradient)]);
        // Popped, so that what only the backward pass needed is freed on the way.
        while let Some(TapeNode { name, output, arguments, backward }) = self.nodes.pop() {
            let Some(gradient) = gradients.remove(&output) else {
                bail!("no gradient reaches {name}: an operation that is not one of ours follows it");
            };
            let arrived = backward(&gradient)?;
            drop(gradient);
            for (argument, gradient) in arguments.into_iter().zip(arrived) {
                let Some(gradient) = gradient else { continue };
                let sum = match gradients.remove(&argument) {
                    Some(before) => sum_of(&before, &gradient)?,
                    None => gradient,
                };
                gradients.insert(argument, sum);
            }
        }
        Ok(Gradients(gradients))
    }

    /// The gradients of `loss` by candle's own backward pass.
    pub(crate) fn composed_backward<'a>(
        loss: &Tensor,
        trained: impl Iterator<Item = &'a Tensor>,
    ) -> Result<Gradients> {
        let gradients = loss.backward()?;
        let pairs = trained.filter_map(|tensor| Some((tensor.id(), gradients.get(tensor)?.clone())));
        Ok(Gradients(pairs.collect()))
    }
}

fn sum_of(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    fn sum<T: Element>(left: &[T], right: &[T]) -> Vec<T> {
        let mut sum = zeros(left.len());
        let arguments = left.par_chunks(CHUNK).zip(right.par_chunks(CHUNK));
        sum.par_chunks_mut(CHUNK).zip(arguments).for_each(|(sum, (left, right))| {
            for ((sum, &left), &right) in sum.iter_mut().zip(left).zip(right) {
                *sum = left + right;
            }
        });
        sum
    }
    with_element!("the sum of gradients", left.dtype(), T => {
        with_values::<T, _, 2>([left, right], |[left_values, right]| {
            Tensor::from_vec(sum(left_values, right), left.dims(), &Device::Cpu)
        })
    })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};

    use super::super::gradient_check::{close, normal};
    use super::super::{Activation, add, linear, relu};
    use super::*;

    fn variables() -> Result<[Var; 3]> {
        Ok([
            Var::from_tensor(&normal(&[4, 4], "weight").to_dtype(DType::F32)?)?,
            Var::from_tensor(&normal(&[4], "bias").to_dtype(DType::F32)?)?,
            Var::from_tensor(&normal(&[4], "unused").to_dtype(DType::F32)?)?,
        ])
    }

    #[test]
    fn gradients_equal_those_of_candles_backward_pass() -> Result<()> {
        let x = normal(&[3, 4], "x").to_dtype(DType::F32)?;
        let [weight, bias, unused] = variables()?;
        // The same weights twice, and a tensor with two uses: gradients add up.
        let ours = || {
            let y = relu(&linear(&x, &weight, &bias)?)?;
            add(&linear(&y, &weight, &bias)?, &y, Activation::Relu)
        };
        let theirs = || {
            let product = |x: &Tensor| x.matmul(&weight.t()?)?.broadcast_add(&bias);
            let y = product(&x)?.relu()?;
            (product(&y)? + &y)?.relu()
        };
        let (y, tape) = Tape::record(ours);
        let y = y?;
        let ours = tape.backward(&y, y.ones_like()?, std::iter::empty())?;
        let theirs = theirs()?.sum_all()?.backward()?;
        for variable in [&weight, &bias] {
            let (ours, theirs) = (ours.get(variable), theirs.get(variable));
            close(ours.expect("a gradient"), theirs.expect("a gradient"), 1e-6)?;
        }
        assert!(ours.get(&unused).is_none() && ours.0.len() == 2);
        Ok(())
    }

    #[test]
    fn an_operation_of_candle_in_the_path_is_refused() -> Result<()> {
        let x = normal(&[3, 4], "x").to_dtype(DType::F32)?;
        let [weight, bias, _] = variables()?;
        let (y, tape) = Tape::record(|| relu(&linear(&x, &weight, &bias)?.tanh()?));
        let y = y?;
        let error = tape.backward(&y, y.ones_like()?, std::iter::empty()).expect_err("tanh is not ours");
        assert!(error.to_string().contains("not one of ours"), "{error}");
        let (y, _) = Tape::record(|| relu(&weight.tanh()?));
        let error = y.expect_err("tanh of a weight is not ours").to_string();
        assert!(error.contains("not one of ours"), "{error}");
        Ok(())
    }

    #[test]
    fn nothing_is_noted_outside_of_a_recording_or_without_something_trained() -> Result<()> {
        let x = normal(&[3], "x");
        relu(&x)?;
        let (_, tape) = Tape::record(|| relu(&x));
        assert!(tape.nodes.is_empty());
        Ok(())
    }
}
