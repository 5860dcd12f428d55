//! The loss of a classifier: cross-entropy against targets that may be soft.

use candle_core::{D, Result, Tensor, bail};

/// The mean over the batch of `-Σ target · log softmax(logits)`; both are `[batch, classes]`, and each row of
/// `targets` sums to 1. Label smoothing ε is the target `(1 - ε) · one-hot + ε / classes` (Szegedy et al.,
/// arXiv 1512.00567), as in PyTorch.
///
/// # Errors
/// When the shapes differ.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    focal(logits, targets, 0.0, None, logits.dim(0)?.max(1) as f64)
}

/// `-Σ weight · target · (1 - p)^gamma · log p / total` over the batch and the classes, where `p` is the softmax of
/// `logits` `[batch, classes]` and `class_weights` are `[classes]`, or 1. With `gamma` 0 it is cross-entropy, and with
/// weights and a `total` of the weights of the images' classes it is PyTorch's `cross_entropy` of labels, smoothed or not,
/// with a `total` of the images that of probabilities; with more it is the focal loss of Lin et al. (arXiv 1708.02002) over several classes.
///
/// # Errors
/// When the shapes differ.
pub fn focal(
    logits: &Tensor,
    targets: &Tensor,
    gamma: f64,
    class_weights: Option<&Tensor>,
    total: f64,
) -> Result<Tensor> {
    if logits.dims() != targets.dims() {
        bail!("a loss of logits {:?} and targets {:?}", logits.dims(), targets.dims());
    }
    // The largest logit is subtracted as a constant: the loss does not depend on it, so its gradient is 0.
    let largest = logits.detach().max_keepdim(D::Minus1)?;
    let shifted = logits.broadcast_sub(&largest)?;
    let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    let log_probabilities = shifted.broadcast_sub(&log_sum)?;
    let mut terms = (&log_probabilities * targets)?;
    if gamma != 0.0 {
        // A probability of exactly 1 would have an infinite slope where gamma is below 1.
        let missing = log_probabilities.exp()?.affine(-(1.0 - 1e-7), 1.0)?;
        terms = (terms * missing.powf(gamma)?)?;
    }
    if let Some(weights) = class_weights {
        terms = terms.broadcast_mul(weights)?;
    }
    terms.sum_all()? * (-1.0 / total)
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
    fn gradients_of_weighted_and_focal_losses_equal_finite_differences() -> Result<()> {
        let targets = [[0.9f64, 0.05, 0.05], [0.1, 0.3, 0.6], [0.0, 1.0, 0.0]];
        for gamma in [0.0, 1.0, 2.5] {
            check(&[normal(&[3, 3], "logits")], &|inputs| {
                let like = |tensor: Tensor| tensor.to_dtype(inputs[0].dtype());
                let targets = like(Tensor::new(&targets, &Device::Cpu)?)?;
                let weights = like(Tensor::new(&[0.5f64, 2.0, 1.0], &Device::Cpu)?)?;
                focal(&inputs[0], &targets, gamma, Some(&weights), 2.5)
            })?;
        }
        Ok(())
    }

    #[test]
    fn weighted_losses_are_those_of_pytorch() -> Result<()> {
        // torch.nn.functional.cross_entropy of labels 2 and 0, with weights, then with label smoothing 0.1 too.
        let logits = Tensor::new(&[[1f64, 2.0, -1.0], [0.5, 0.0, 0.25]], &Device::Cpu)?;
        let weights = Tensor::new(&[1f64, 2.0, 0.5], &Device::Cpu)?;
        for (smoothing, expected) in [(0.0, 1.6958961486816406), (0.1, 1.7016226053237915)] {
            let row = |label: usize| -> Vec<f64> {
                (0..3)
                    .map(|c| f64::from(u8::from(c == label)) * (1.0 - smoothing) + smoothing / 3.0)
                    .collect()
            };
            let targets = Tensor::new(vec![row(2), row(0)], &Device::Cpu)?;
            let loss = focal(&logits, &targets, 0.0, Some(&weights), 1.5)?.to_scalar::<f64>()?;
            assert!((loss - expected).abs() < 1e-6, "{loss} is not {expected}");
        }
        Ok(())
    }

    #[test]
    fn the_loss_of_mixed_targets_with_weights_divides_by_the_images_as_pytorchs() -> Result<()> {
        // torch.nn.functional.cross_entropy of probabilities with weights, then with label smoothing 0.1 too.
        let logits = Tensor::new(&[[1f64, 2.0, -1.0], [0.5, 0.0, 0.25]], &Device::Cpu)?;
        let weights = Tensor::new(&[1f64, 2.0, 0.5], &Device::Cpu)?;
        for (smoothing, expected) in [(0.0, 1.1290683528268053), (0.1, 1.1476486184459336)] {
            let mixed = [[0.7, 0.3, 0.0], [0.0, 0.25, 0.75]];
            let targets = mixed.map(|row| row.map(|share: f64| share * (1.0 - smoothing) + smoothing / 3.0));
            let targets = Tensor::new(&targets, &Device::Cpu)?;
            let loss = focal(&logits, &targets, 0.0, Some(&weights), 2.0)?.to_scalar::<f64>()?;
            assert!((loss - expected).abs() < 1e-12, "{loss} is not {expected}");
        }
        Ok(())
    }

    #[test]
    fn the_focal_loss_is_that_of_its_formula() -> Result<()> {
        let logits = Tensor::new(&[[3f64.ln(), 0.0]], &Device::Cpu)?;
        let targets = Tensor::new(&[[1f64, 0.0]], &Device::Cpu)?;
        let loss = focal(&logits, &targets, 2.0, None, 1.0)?.to_scalar::<f64>()?;
        assert!((loss - 0.0625 * -(0.75f64.ln())).abs() < 1e-6, "{loss}");
        Ok(())
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
