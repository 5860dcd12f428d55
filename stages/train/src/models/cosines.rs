//! A head of unit vectors, as the loss LDAM takes it.

use candle_core::{Result, Tensor};

use super::COSINE_SCALE;
use super::layers::{Layer, LinearInit};
use crate::onnx::{Attribute, Graph, Value};
use crate::ops;
use crate::params::{Builder, Pass};

/// The cosines between the features of an image and the weights of each class, times [`COSINE_SCALE`]: the linear layer
/// without bias of LDAM, features and weights made as long as each other. It is the same in training, in evaluation and in an
/// exported file; the length of the features cannot be folded into weights.
#[derive(Debug)]
pub struct Cosines {
    name: String,
}

impl Cosines {
    /// Registers `{name}.weight` `[features_out, features_in]`.
    ///
    /// # Errors
    /// When the device cannot hold the tensor.
    pub fn new(
        builder: &mut Builder<'_>,
        name: &str,
        sizes: (usize, usize),
        init: LinearInit,
    ) -> Result<Cosines> {
        init.register(builder, name, sizes)?;
        Ok(Cosines { name: name.to_owned() })
    }
}

impl Layer for Cosines {
    /// `[batch, ..]`, flattened, to `[batch, features_out]`.
    fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let weight = ops::unit_rows(&pass.tensor(&format!("{}.weight", self.name)), 1.0)?;
        let none = Tensor::zeros(weight.dim(0)?, weight.dtype(), weight.device())?;
        ops::linear(&ops::unit_rows(x, COSINE_SCALE)?, &weight, &none)
    }

    fn export(&self, x: Value, pass: &Pass<'_>, graph: &mut Graph) -> Result<Value> {
        let x = graph.flatten(x);
        let name = format!("{}.weight", self.name);
        let weight = pass.tensor(&name);
        let classes = weight.dim(0)?;
        // Only the division by the length of the features is left to the file.
        let weight = (ops::unit_rows(&weight, 1.0)? * COSINE_SCALE)?;
        let weight = graph.constant(&name, weight);
        let norm = vec![("axis", Attribute::Integer(1)), ("p", Attribute::Integer(2))];
        let unit = graph.node("LpNormalization", &[x.name()], norm, x.shape().to_vec());
        let transposed = vec![("transB", Attribute::Integer(1))];
        Ok(graph.node("Gemm", &[unit.name(), &weight], transposed, vec![classes]))
    }
}
