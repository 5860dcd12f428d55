//! What one row of logits says: its cross-entropy, and the class that it predicts.

/// The mean cross-entropy of logits, a row of `classes` numbers per image, without label smoothing: what validation
/// reports. 0 without images.
///
/// # Panics
/// When a label has no logit.
pub fn cross_entropy(logits: &[Vec<f32>], labels: &[u32]) -> f64 {
    let loss = |(row, label): (&Vec<f32>, &u32)| {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|logit| f64::from(logit - largest).exp()).sum();
        sum.ln() - f64::from(row[*label as usize] - largest)
    };
    logits.iter().zip(labels).map(loss).sum::<f64>() / logits.len().max(1) as f64
}

/// The index of the largest of `logits`, the first of equal ones; `None` where one of them is not a number, or there is
/// none.
pub fn prediction(logits: &[f32]) -> Option<usize> {
    if logits.iter().any(|logit| logit.is_nan()) {
        return None;
    }
    let largest = logits.iter().copied().reduce(f32::max)?;
    logits.iter().position(|logit| *logit == largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_largest_is_predicted() {
        assert_eq!(prediction(&[-1.0, 3.0, 3.0, 2.0]), Some(1));
        assert_eq!(prediction(&[f32::NEG_INFINITY; 2]), Some(0));
    }

    #[test]
    fn logits_that_are_no_numbers_predict_no_class() {
        for logits in [&[f32::NAN, 1.0][..], &[1.0, f32::NAN], &[f32::NAN; 3], &[]] {
            assert_eq!(prediction(logits), None, "{logits:?}");
        }
    }
}
