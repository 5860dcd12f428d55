//! What the loss is multiplied by in half precision.

/// What the loss is multiplied by in half precision of small range, so that its gradients lie within that range. The
/// constants are those of PyTorch's `GradScaler`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LossScale {
    pub(crate) factor: f64,
    /// Steps since it last changed.
    pub(crate) steady: u32,
}

impl LossScale {
    pub(crate) const START: LossScale = LossScale { factor: 65_536.0, steady: 0 };

    /// After a step whose gradients were finite, or not.
    pub(crate) fn after(self, finite: bool) -> LossScale {
        match (finite, self.steady) {
            (false, _) => LossScale { factor: self.factor / 2.0, steady: 0 },
            (true, 1999..) => LossScale { factor: self.factor * 2.0, steady: 0 },
            (true, steady) => LossScale { steady: steady + 1, ..self },
        }
    }
}
