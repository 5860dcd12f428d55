//! The loss of a classifier: cross-entropy against targets that may be soft.

use candle_core::{D, Result, Tensor, bail};

/// The mean over the batch of `-Σ target · log softmax(logits)`; both are `[batch, classes]`, and each row of
/// `targets` sums to 1. Label smoothing ε is the target `(1 - ε) · one-hot + ε / classes` (Szegedy et al.,
/// arXiv 1512.00567), as in PyTorch.
///
/// # Errors
/// When the shapes differ.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    if logits.dims() != targets.dims() {
        bail!("cross-entropy of logits {:?} and targets {:?}", logits.dims(), targets.dims());
    }
    // The largest logit is subtracted as a constant: the loss does not depend on it, so its gradient is 0.
    let largest = logits.detach().max_keepdim(D::Minus1)?;
    let shifted = logits.broadcast_sub(&largest)?;
    let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    let log_probabilities = shifted.broadcast_sub(&log_sum)?;
    (log_probabilities * targets)?.sum_all()? * (-1.0 / logits.dim(0)?.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{check, normal};
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn gradients_equal_finite_differences() -> Result<()> {
        let targets = [[0.9f64, 0.05, 0.05], [0.1, 0.3, 0.6], [0.0, 1.0, 0.0]];
        check(&[normal(&[3, 3], "logits")], &|inputs| {
            let targets = Tensor::new(&targets, &Device::Cpu)?.to_dtype(inputs[0].dtype())?;
            cross_entropy(&inputs[0], &targets)
        })
    }

    #[test]
    fn the_gradient_is_softmax_minus_target_also_for_huge_logits() -> Result<()> {
        let logits = Var::new(&[[1000f32, 1000.0, -1000.0]], &Device::Cpu)?;
        let loss = cross_entropy(logits.as_tensor(), &Tensor::new(&[[1f32, 0.0, 0.0]], &Device::Cpu)?)?;
        assert!((loss.to_scalar::<f32>()? - 2f32.ln()).abs() < 1e-6);
        let gradients = loss.backward()?;
        let gradient = gradients.get(&logits).expect("a gradient").to_vec2::<f32>()?;
        assert_eq!(gradient, [[-0.5, 0.5, 0.0]]);
        Ok(())
    }
}
