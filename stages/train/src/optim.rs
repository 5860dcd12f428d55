//! Optimisers whose state is kept by parameter name, so that it can be saved and restored exactly.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, Var, bail};
use forebay_datasets::words;
use serde::{Deserialize, Serialize};

use crate::ops;
use crate::params::{Entry, Kind, ParamStore};

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
    /// Adam (arXiv 1412.6980); weight decay is an L2 penalty.
    Adam {
        /// Decay of the mean of gradients.
        beta1: f64,
        /// Decay of the mean of squared gradients.
        beta2: f64,
        /// Added to the denominator.
        eps: f64,
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
    /// RMSprop (Hinton's lecture 6e).
    RmsProp {
        /// Decay of the mean of squared gradients.
        alpha: f64,
        /// Added to the denominator.
        eps: f64,
        /// What is kept of the velocity, in `[0, 1)`.
        momentum: f64,
        /// Subtract the square of the mean gradient.
        centered: bool,
    },
}

// The constants of the papers, which are PyTorch's defaults too.
words!(OptimizerKind {
    Sgd { momentum: 0.9, nesterov: false } => "sgd",
    Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8 } => "adam",
    AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 } => "adamw",
    RmsProp { alpha: 0.99, eps: 1e-8, momentum: 0.0, centered: false } => "rmsprop",
});

impl OptimizerKind {
    /// The same rule with another momentum, which for Adam is the decay of the mean of gradients, as with PyTorch's
    /// `OneCycleLR`.
    fn with_momentum(mut self, moved: Option<f64>) -> OptimizerKind {
        let (OptimizerKind::Sgd { momentum, .. }
        | OptimizerKind::RmsProp { momentum, .. }
        | OptimizerKind::Adam { beta1: momentum, .. }
        | OptimizerKind::AdamW { beta1: momentum, .. }) = &mut self;
        *momentum = moved.unwrap_or(*momentum);
        self
    }
}

/// What a step does besides following the gradient.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepSettings {
    /// Of a parameter whose multiplier is 1.
    pub(crate) learning_rate: f64,
    /// In place of the momentum of the rule, or of what stands for it, where a schedule moves it.
    pub(crate) momentum: Option<f64>,
    /// L2 penalty of weights, decoupled in AdamW.
    pub(crate) weight_decay: f64,
    /// L1 penalty of weights.
    pub(crate) l1: f64,
}

/// The Euclidean norm of all gradients together; not finite when one of their values is not.
pub(crate) fn norm(gradients: &BTreeMap<String, Tensor>) -> Result<f64> {
    let mut sum = 0.0;
    for gradient in gradients.values() {
        sum += ops::sum_of_squares(gradient)?;
    }
    Ok(sum.sqrt())
}

/// Scales gradients whose norm is `norm` so that it is at most `most`, as PyTorch's `clip_grad_norm_`.
pub(crate) fn clip_by_norm(gradients: &mut BTreeMap<String, Tensor>, norm: f64, most: f64) -> Result<()> {
    let scale = most / (norm + 1e-6);
    if scale < 1.0 {
        for gradient in gradients.values_mut() {
            *gradient = (&*gradient * scale)?;
        }
    }
    Ok(())
}

/// An optimiser and its state. A parameter's state is zero when it is moved for the first time, so that one that is
/// unfrozen later simply begins.
#[derive(Debug)]
pub(crate) struct Optimizer {
    kind: OptimizerKind,
    /// `{slot}.{parameter}` to a tensor of the parameter's shape, or, of the slot `count`, to the steps it was moved.
    state: BTreeMap<String, Var>,
}

impl Optimizer {
    /// An optimiser that has moved nothing yet.
    pub(crate) fn new(kind: OptimizerKind) -> Optimizer {
        Optimizer { kind, state: BTreeMap::new() }
    }

    /// The state `{slot}.{name}`, zeros where there was none.
    fn slot(&mut self, slot: &str, name: &str, shape: &[usize], device: &Device) -> Result<Var> {
        let key = format!("{slot}.{name}");
        if let Some(variable) = self.state.get(&key) {
            return Ok(variable.clone());
        }
        let variable = Var::zeros(shape, DType::F32, device)?;
        self.state.insert(key, variable.clone());
        Ok(variable)
    }

    /// Counts a step of a parameter, and returns the steps so far.
    fn count(&mut self, name: &str, device: &Device) -> Result<u64> {
        let variable = self.slot("count", name, &[1], device)?;
        let count = variable.as_detached_tensor().to_vec1::<f32>()?[0] + 1.0;
        variable.set(&Tensor::new(&[count], device)?)?;
        Ok(count as u64)
    }

    /// Moves every trainable parameter by its gradient at `rate_of` times the learning rate. Penalties act on weights
    /// and not on biases or norms. A parameter without a gradient (a layer that the loss does not reach) is an error,
    /// since nothing would ever train it.
    pub(crate) fn step(
        &mut self,
        store: &ParamStore,
        gradients: &BTreeMap<String, Tensor>,
        settings: &StepSettings,
        rate_of: &dyn Fn(&Entry) -> f64,
    ) -> Result<()> {
        let trainable = || store.iter().filter(|(_, entry)| entry.is_trainable());
        if let Some((name, _)) = trainable().find(|(name, _)| !gradients.contains_key(*name)) {
            bail!("no gradient reaches `{name}`");
        }
        let device = store.device();
        for (name, entry) in trainable() {
            let variable = entry.variable();
            let shape = variable.dims().to_vec();
            let rate = settings.learning_rate * rate_of(entry);
            let StepSettings { weight_decay, l1, .. } = *settings;
            let (decay, l1) = if entry.kind() == Kind::Weight { (weight_decay, l1) } else { (0.0, 0.0) };
            let coupled = if matches!(self.kind, OptimizerKind::AdamW { .. }) { 0.0 } else { decay };
            let gradient = match coupled != 0.0 || l1 != 0.0 {
                true => ops::penalize(&gradients[name], variable, coupled, l1)?,
                false => gradients[name].clone(),
            };
            match self.kind.with_momentum(settings.momentum) {
                OptimizerKind::Sgd { momentum, nesterov } => {
                    let velocity = self.slot("velocity", name, &shape, device)?;
                    ops::sgd(variable, &velocity, &gradient, rate, (momentum, nesterov), 0.0)?;
                }
                OptimizerKind::Adam { beta1, beta2, eps } | OptimizerKind::AdamW { beta1, beta2, eps } => {
                    let count = self.count(name, device)?;
                    let mean = self.slot("mean", name, &shape, device)?;
                    let square = self.slot("square", name, &shape, device)?;
                    let constants = (beta1, beta2, eps);
                    ops::adamw(
                        variable,
                        (&mean, &square),
                        &gradient,
                        rate,
                        constants,
                        decay - coupled,
                        count,
                    )?;
                }
                OptimizerKind::RmsProp { alpha, eps, momentum, centered } => {
                    let square = self.slot("square", name, &shape, device)?;
                    let mut optional = |slot: &str, wanted: bool| {
                        wanted.then(|| self.slot(slot, name, &shape, device)).transpose()
                    };
                    let (mean, velocity) =
                        (optional("mean", centered)?, optional("velocity", momentum > 0.0)?);
                    let constants = (alpha, eps, momentum);
                    ops::rmsprop(
                        variable,
                        &square,
                        (mean.as_ref(), velocity.as_ref()),
                        &gradient,
                        rate,
                        constants,
                    )?;
                }
            }
        }
        Ok(())
    }

    /// The state, by `{slot}.{parameter}`, in the order of these names.
    pub(crate) fn state(&self) -> impl Iterator<Item = (&str, Tensor)> {
        self.state.iter().map(|(name, variable)| (name.as_str(), variable.as_detached_tensor()))
    }

    /// Overwrites one tensor of the state.
    pub(crate) fn restore(&mut self, name: &str, values: &Tensor, store: &ParamStore) -> Result<()> {
        let (slot, parameter) = name.split_once('.').unwrap_or((name, ""));
        let Some(entry) = store.get(parameter) else { bail!("the network has no tensor `{parameter}`") };
        let shape = if slot == "count" { vec![1] } else { entry.variable().dims().to_vec() };
        if values.dims() != shape {
            bail!("the state `{name}` is {:?}, and the parameter {shape:?}", values.dims());
        }
        let variable = self.slot(slot, parameter, &shape, store.device())?;
        variable.set(&values.to_device(store.device())?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use forebay_datasets::seed::Seed;

    use super::*;
    use crate::params::Builder;

    fn settings(weight_decay: f64, l1: f64) -> StepSettings {
        StepSettings { learning_rate: 0.1, momentum: None, weight_decay, l1 }
    }

    fn gradients(name: &str, values: &[f32]) -> Result<BTreeMap<String, Tensor>> {
        Ok(BTreeMap::from([(name.to_owned(), Tensor::new(values, &Device::Cpu)?)]))
    }

    /// Three steps from (1, -2, 0.5); expected values are those of PyTorch 2.15.
    fn check(kind: OptimizerKind, weight_decay: f64, expected: [[f32; 3]; 3]) -> Result<()> {
        let mut store = ParamStore::new(Device::Cpu);
        Builder::new(&mut store, Seed(0)).normal("w", &[3], 1.0)?;
        store.set("w", &Tensor::new(&[1f32, -2.0, 0.5], &Device::Cpu)?)?;
        let mut optimizer = Optimizer::new(kind);
        let steps_gradients = [[0.5f32, -1.0, 0.0], [0.25, 2.0, -3.0], [-1.0, 0.125, 1e-3]];
        for (step, (steps_gradients, expected)) in steps_gradients.iter().zip(expected).enumerate() {
            // The state is saved and restored between steps, which must change nothing.
            let state: Vec<_> = optimizer.state().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
            optimizer = Optimizer::new(kind);
            for (name, tensor) in &state {
                optimizer.restore(name, tensor, &store)?;
            }
            optimizer.step(
                &store,
                &gradients("w", steps_gradients)?,
                &settings(weight_decay, 0.0),
                &|_| 1.0,
            )?;
            let values = store.get("w").expect("registered above").values().to_vec1::<f32>()?;
            for (ours, theirs) in values.iter().zip(expected) {
                assert!((ours - theirs).abs() < 2e-6, "step {step}: {ours} is not {theirs}");
            }
        }
        Ok(())
    }

    #[test]
    fn adam_equals_pytorchs() -> Result<()> {
        let expected = [
            [0.9, -1.9, 0.4],
            [0.804_899_1, -1.924_995_9, 0.473_106_9],
            [0.811_976_4, -1.942_363_6, 0.528_696_9],
        ];
        check(OptimizerKind::Adam { beta1: 0.9, beta2: 0.99, eps: 1e-8 }, 0.1, expected)
    }

    #[test]
    fn rmsprop_equals_pytorchs() -> Result<()> {
        let expected = [
            [0.683_772_3, -1.683_772_2, 0.183_772_4],
            [0.529_402_7, -1.952_350_1, 0.499_960_2],
            [0.794_139_9, -1.941_500_7, 0.494_260_7],
        ];
        check(
            OptimizerKind::RmsProp { alpha: 0.9, eps: 1e-8, momentum: 0.0, centered: false },
            0.1,
            expected,
        )?;
        let expected = [
            [0.666_666_7, -1.666_666_6, 0.5],
            [0.338_119_1, -1.789_308_7, 0.833_333_4],
            [0.457_248_6, -1.869_689_1, 0.999_883_6],
        ];
        check(OptimizerKind::RmsProp { alpha: 0.9, eps: 1e-8, momentum: 0.5, centered: true }, 0.0, expected)
    }

    #[test]
    fn clipping_keeps_the_direction_and_limits_the_norm_of_all() -> Result<()> {
        let mut two = gradients("a", &[3.0])?;
        two.extend(gradients("b", &[0.0, 4.0])?);
        assert!((norm(&two)? - 5.0).abs() < 1e-9);
        clip_by_norm(&mut two, 5.0, 1.0)?;
        assert!((two["a"].to_vec1::<f32>()?[0] - 0.6).abs() < 1e-6);
        assert!((two["b"].to_vec1::<f32>()?[1] - 0.8).abs() < 1e-6);
        assert!((norm(&two)? - 1.0).abs() < 1e-6);
        clip_by_norm(&mut two, 1.0, 2.0)?;
        assert!((two["a"].to_vec1::<f32>()?[0] - 0.6).abs() < 1e-6, "already shorter");
        Ok(())
    }

    #[test]
    fn a_value_that_is_not_a_number_shows_in_the_norm() -> Result<()> {
        let mut many = gradients("a", &vec![0.5; 40_000])?;
        assert!((norm(&many)? - 100.0).abs() < 1e-9);
        many.extend(gradients("b", &[1.0, f32::NAN])?);
        assert!(norm(&many)?.is_nan());
        Ok(())
    }

    #[test]
    fn the_l1_penalty_pulls_towards_zero_and_parts_have_rates_of_their_own() -> Result<()> {
        let mut store = ParamStore::new(Device::Cpu);
        Builder::new(&mut store, Seed(0)).normal("w", &[3], 1.0)?;
        store.set("w", &Tensor::new(&[1f32, -2.0, 0.0], &Device::Cpu)?)?;
        let mut optimizer = Optimizer::new(OptimizerKind::Sgd { momentum: 0.0, nesterov: false });
        optimizer.step(&store, &gradients("w", &[0.0; 3])?, &settings(0.0, 0.5), &|_| 0.5)?;
        let values = store.get("w").expect("registered above").values().to_vec1::<f32>()?;
        assert_eq!(values, [0.975, -1.975, 0.0]);
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
        let mut optimizer = Optimizer::new(OptimizerKind::Sgd { momentum: 0.0, nesterov: false });
        optimizer.step(&store, &gradients("bias", &[0.0])?, &settings(0.5, 0.5), &|_| 1.0)?;
        assert_eq!(store.get("bias").expect("registered above").values().to_vec1::<f32>()?, [2.0]);
        Ok(())
    }

    #[test]
    fn a_parameter_that_the_loss_does_not_reach_is_named() -> Result<()> {
        let mut store = ParamStore::new(Device::Cpu);
        let mut builder = Builder::new(&mut store, Seed(0));
        builder.constant("used", &[1], Kind::Weight, 2.0)?;
        builder.constant("unused", &[1], Kind::Weight, 2.0)?;
        let mut optimizer = Optimizer::new(OptimizerKind::Sgd { momentum: 0.0, nesterov: false });
        let error = optimizer.step(&store, &gradients("used", &[1.0])?, &settings(0.0, 0.0), &|_| 1.0);
        let error = error.expect_err("no gradient").to_string();
        assert!(error.contains("no gradient reaches `unused`"), "{error}");
        assert_eq!(store.get("used").expect("registered above").values().to_vec1::<f32>()?, [2.0]);
        Ok(())
    }
}
