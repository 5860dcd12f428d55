//! The backward pass on the CPU: what ran, in reverse.
//!
//! candle's own backward pass adds every gradient to zeros first, and adds large ones on threads of its own that
//! spin while they wait. Our operations therefore note what they did while a [`Tape`] is recorded, and the tape
//! runs them backward: the first gradient of a tensor is taken as it is, and sums run in the pool that the
//! caller is in. The gradients are those that candle's `backward` finds, which a test holds still.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use candle_core::{CustomOp1, CustomOp2, CustomOp3, Device, Result, Tensor, TensorId, bail};
use rayon::prelude::*;

use super::{Element, with_element, with_values};

type Shared<T> = Arc<Box<T>>;

enum Operation {
    One(Shared<dyn CustomOp1 + Send + Sync>, [Tensor; 1]),
    Two(Shared<dyn CustomOp2 + Send + Sync>, [Tensor; 2]),
    Three(Shared<dyn CustomOp3 + Send + Sync>, [Tensor; 3]),
}

/// The operations of one forward pass, in their order.
#[derive(Default)]
pub(crate) struct Tape {
    nodes: Vec<(Operation, Tensor)>,
}

thread_local! {
    // A forward pass runs on one thread; only the inside of an operation is spread over the pool.
    static RECORDING: RefCell<Option<Tape>> = const { RefCell::new(None) };
}

fn note(operation: Operation, output: &Tensor) {
    if output.track_op() {
        RECORDING.with_borrow_mut(|tape| {
            if let Some(tape) = tape {
                tape.nodes.push((operation, output.clone()));
            }
        });
    }
}

pub(super) fn apply1(x: &Tensor, op: impl CustomOp1 + Send + Sync + 'static) -> Result<Tensor> {
    let op: Shared<dyn CustomOp1 + Send + Sync> = Arc::new(Box::new(op));
    let y = x.apply_op1_arc(op.clone())?;
    note(Operation::One(op, [x.clone()]), &y);
    Ok(y)
}

pub(super) fn apply2(a: &Tensor, b: &Tensor, op: impl CustomOp2 + Send + Sync + 'static) -> Result<Tensor> {
    let op: Shared<dyn CustomOp2 + Send + Sync> = Arc::new(Box::new(op));
    let y = a.apply_op2_arc(b, op.clone())?;
    note(Operation::Two(op, [a.clone(), b.clone()]), &y);
    Ok(y)
}

pub(super) fn apply3([a, b, c]: [&Tensor; 3], op: impl CustomOp3 + Send + Sync + 'static) -> Result<Tensor> {
    let op: Shared<dyn CustomOp3 + Send + Sync> = Arc::new(Box::new(op));
    let y = a.apply_op3_arc(b, c, op.clone())?;
    note(Operation::Three(op, [a.clone(), b.clone(), c.clone()]), &y);
    Ok(y)
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

    /// The gradients of everything trained, given that of `output`, the last tensor of the forward pass.
    ///
    /// # Errors
    /// When a gradient arrives at a tensor that is neither trained nor on the tape: an operation that is not
    /// ours stands in the trained path.
    ///
    /// On another device than the CPU the operations are compositions of candle's: there it is candle's own
    /// backward pass that finds the gradients of `trained`.
    pub(crate) fn backward<'a>(
        mut self,
        output: &Tensor,
        gradient: Tensor,
        trained: impl Iterator<Item = &'a Tensor>,
    ) -> Result<Gradients> {
        if !output.device().is_cpu() {
            return Tape::composed_backward(&(output * gradient)?.sum_all()?, trained);
        }
        let mut gradients = HashMap::from([(output.id(), gradient)]);
        let mut reached = HashSet::new();
        // Popped, so that what only the backward pass needed is freed on the way.
        while let Some((operation, output)) = self.nodes.pop() {
            let Some(gradient) = gradients.remove(&output.id()) else { continue };
            let mut arrive = |argument: &Tensor, gradient: Option<Tensor>| -> Result<()> {
                let Some(gradient) = gradient else { return Ok(()) };
                if argument.is_variable() {
                    reached.insert(argument.id());
                }
                let sum = match gradients.remove(&argument.id()) {
                    Some(before) => add(&before, &gradient)?,
                    None => gradient,
                };
                gradients.insert(argument.id(), sum);
                Ok(())
            };
            match operation {
                Operation::One(op, [x]) => arrive(&x, op.bwd(&x, &output, &gradient)?)?,
                Operation::Two(op, [a, b]) => {
                    let (of_a, of_b) = op.bwd(&a, &b, &output, &gradient)?;
                    arrive(&a, of_a)?;
                    arrive(&b, of_b)?;
                }
                Operation::Three(op, [a, b, c]) => {
                    let (of_a, of_b, of_c) = op.bwd(&a, &b, &c, &output, &gradient)?;
                    arrive(&a, of_a)?;
                    arrive(&b, of_b)?;
                    arrive(&c, of_c)?;
                }
            }
        }
        if gradients.keys().any(|id| !reached.contains(id)) {
            bail!("a gradient ends at an operation that is not one of ours");
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

/// Values per job: enough to pay for handing it out.
const CHUNK: usize = 16 * 1024;

fn add(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    fn sum<T: Element>(left: &[T], right: &[T]) -> Vec<T> {
        let mut sum = left.to_vec();
        sum.par_chunks_mut(CHUNK).zip(right.par_chunks(CHUNK)).for_each(|(sum, right)| {
            for (sum, &right) in sum.iter_mut().zip(right) {
                *sum += right;
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
    use super::super::{add_relu, linear, relu};
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
        let forward = || {
            // The same weights twice, and a tensor with two uses: gradients add up.
            let y = relu(&linear(&x, &weight, &bias)?)?;
            add_relu(&linear(&y, &weight, &bias)?, &y)
        };
        let (y, tape) = Tape::record(forward);
        let y = y?;
        let ours = tape.backward(&y, y.ones_like()?, std::iter::empty())?;
        let theirs = y.sum_all()?.backward()?;
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
        let error =
            tape.backward(&y, y.ones_like()?, std::iter::empty()).expect_err("tanh is not ours").to_string();
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
