//! Optimisers whose state is kept by parameter name, so that it can be saved and restored exactly.

use std::collections::BTreeMap;

use candle_core::{DType, Result, Tensor, Var, bail};
use serde::{Deserialize, Serialize};

use super::ops::{self, Gradients};
use super::params::{Kind, ParamStore};

/// Which update rule, with its constants.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Stochastic gradient descent; the velocity is `momentum · velocity + gradient`.
    Sgd {
        /// What is kept of the velocity, in `[0, 1)`.
        momentum: f64,
        /// Look ahead along the velocity (Nesterov).
        nesterov: bool,
    },
    /// Adam with decoupled weight decay (arXiv 1711.05101).
    AdamW {
        /// Decay of the mean of gradients.
        beta1: f64,
        /// Decay of the mean of squared gradients.
        beta2: f64,
        /// Added to the denominator.
        eps: f64,
    },
}

impl OptimizerKind {
    /// `sgd` or `adamw`.
    pub fn name(&self) -> &'static str {
        match self {
            OptimizerKind::Sgd { .. } => "sgd",
            OptimizerKind::AdamW { .. } => "adamw",
        }
    }

    /// The names of the tensors kept for each parameter.
    fn slots(&self) -> &'static [&'static str] {
        match self {
            OptimizerKind::Sgd { .. } => &["velocity"],
            OptimizerKind::AdamW { .. } => &["mean", "square"],
        }
    }
}

/// An optimiser and its state.
#[derive(Debug)]
pub(crate) struct Optimizer {
    kind: OptimizerKind,
    weight_decay: f64,
    /// `{slot}.{parameter}` to a tensor of the parameter's shape.
    state: BTreeMap<String, Var>,
}

impl Optimizer {
    /// An optimiser of everything that is trainable in `store`, its state zero. Weight decay acts on weights
    /// and not on biases or norms.
    pub(crate) fn new(kind: OptimizerKind, weight_decay: f64, store: &ParamStore) -> Result<Optimizer> {
        let mut state = BTreeMap::new();
        for (name, entry) in store.iter().filter(|(_, entry)| entry.is_trainable()) {
            for slot in kind.slots() {
                let shape = entry.values().shape().clone();
                state.insert(format!("{slot}.{name}"), Var::zeros(shape, DType::F32, store.device())?);
            }
        }
        Ok(Optimizer { kind, weight_decay, state })
    }

    /// Moves every trainable parameter by its gradient; `step` counts from 0. A parameter without a gradient
    /// (a layer that the loss does not reach) is an error, since nothing would ever train it.
    pub(crate) fn step(
        &self,
        store: &ParamStore,
        gradients: &Gradients,
        learning_rate: f64,
        step: u64,
    ) -> Result<()> {
        for (name, entry) in store.iter().filter(|(_, entry)| entry.is_trainable()) {
            let Some(gradient) = gradients.get(entry.variable()) else {
                bail!("no gradient reaches `{name}`")
            };
            let weight_decay = if entry.kind() == Kind::Weight { self.weight_decay } else { 0.0 };
            let slot = |slot: &str| &self.state[&format!("{slot}.{name}")];
            match self.kind {
                OptimizerKind::Sgd { momentum, nesterov } => ops::sgd(
                    entry.variable(),
                    slot("velocity"),
                    gradient,
                    learning_rate,
                    (momentum, nesterov),
                    weight_decay,
                )?,
                OptimizerKind::AdamW { beta1, beta2, eps } => ops::adamw(
                    entry.variable(),
                    (slot("mean"), slot("square")),
                    gradient,
                    learning_rate,
                    (beta1, beta2, eps),
                    weight_decay,
                    step + 1,
                )?,
            }
        }
        Ok(())
    }

    /// The state, by `{slot}.{parameter}`, in the order of these names.
    pub(crate) fn state(&self) -> impl Iterator<Item = (&str, Tensor)> {
        self.state.iter().map(|(name, variable)| (name.as_str(), variable.as_detached_tensor()))
    }

    /// Overwrites one tensor of the state.
    pub(crate) fn restore(&self, name: &str, values: &Tensor) -> Result<()> {
        let Some(variable) = self.state.get(name) else { bail!("the optimiser keeps no `{name}`") };
        variable.set(&values.to_device(variable.device())?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use forebay_datasets::seed::Seed;

    use super::*;
    use crate::train::params::Builder;

    fn gradients_of(output: &Tensor, store: &ParamStore) -> Result<Gradients> {
        let variables = store.iter().map(|(_, entry)| entry.variable().as_tensor());
        ops::Tape::composed_backward(&output.sum_all()?, variables)
    }

    /// Three steps from (1, -2, 0.5); expected values are those of PyTorch 2.15.
    fn check(kind: OptimizerKind, weight_decay: f64, expected: [[f32; 3]; 3]) -> Result<()> {
        let mut store = ParamStore::new(Device::Cpu);
        Builder::new(&mut store, Seed(0)).normal("w", &[3], 1.0)?;
        store.set("w", &Tensor::new(&[1f32, -2.0, 0.5], &Device::Cpu)?)?;
        let optimizer = Optimizer::new(kind, weight_decay, &store)?;
        let gradients = [[0.5f32, -1.0, 0.0], [0.25, 2.0, -3.0], [-1.0, 0.125, 1e-3]];
        for (step, (gradient, expected)) in gradients.iter().zip(expected).enumerate() {
            let entry = store.get("w").expect("registered above");
            let slope = Tensor::new(gradient, &Device::Cpu)?;
            let gradients = gradients_of(&(entry.variable().as_tensor() * slope)?, &store)?;
            optimizer.step(&store, &gradients, 0.1, step as u64)?;
            for (ours, theirs) in entry.values().to_vec1::<f32>()?.iter().zip(expected) {
                assert!((ours - theirs).abs() < 2e-6, "step {step}: {ours} is not {theirs}");
            }
        }
        Ok(())
    }

    #[test]
    fn sgd_with_momentum_equals_pytorchs() -> Result<()> {
        let expected = [
            [0.949, -1.898, 0.4995],
            [0.877_151, -2.004_302, 0.798_550_5],
            [0.911_609_8, -2.110_469_6, 1.066_797_4],
        ];
        check(OptimizerKind::Sgd { momentum: 0.9, nesterov: false }, 0.01, expected)
    }

    #[test]
    fn sgd_with_nesterovs_momentum_equals_pytorchs() -> Result<()> {
        let expected = [
            [0.903_1, -1.806_2, 0.499_05],
            [0.812_574_15, -2.100_148_2, 1.067_696_8],
            [0.942_869_7, -2.206_086_9, 1.307_709_5],
        ];
        check(OptimizerKind::Sgd { momentum: 0.9, nesterov: true }, 0.01, expected)
    }

    #[test]
    fn adamw_equals_pytorchs() -> Result<()> {
        let expected = [
            [0.89, -1.88, 0.495],
            [0.787_755_2, -1.897_760_7, 0.564_296],
            [0.800_460_1, -1.910_635_1, 0.616_154_7],
        ];
        check(OptimizerKind::AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8 }, 0.1, expected)
    }

    #[test]
    fn biases_and_norms_do_not_decay() -> Result<()> {
        let mut store = ParamStore::new(Device::Cpu);
        Builder::new(&mut store, Seed(0)).constant("bias", &[1], Kind::Shift, 2.0)?;
        let optimizer = Optimizer::new(OptimizerKind::Sgd { momentum: 0.0, nesterov: false }, 0.5, &store)?;
        let entry = store.get("bias").expect("registered above");
        let zero = Tensor::new(&[0f32], &Device::Cpu)?;
        let gradients = gradients_of(&(entry.variable().as_tensor() * zero)?, &store)?;
        optimizer.step(&store, &gradients, 0.1, 0)?;
        assert_eq!(entry.values().to_vec1::<f32>()?, [2.0]);
        Ok(())
    }

    #[test]
    fn a_parameter_that_the_loss_does_not_reach_is_named() -> Result<()> {
        let mut store = ParamStore::new(Device::Cpu);
        let mut builder = Builder::new(&mut store, Seed(0));
        builder.constant("used", &[1], Kind::Weight, 2.0)?;
        builder.constant("unused", &[1], Kind::Weight, 2.0)?;
        let optimizer = Optimizer::new(OptimizerKind::Sgd { momentum: 0.0, nesterov: false }, 0.0, &store)?;
        let used = store.get("used").expect("registered above").variable().as_tensor();
        let gradients = gradients_of(used, &store)?;
        let error = optimizer.step(&store, &gradients, 0.1, 0).expect_err("no gradient").to_string();
        assert!(error.contains("no gradient reaches `unused`"), "{error}");
        Ok(())
    }
}
