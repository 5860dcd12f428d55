//! Network families, one file each, built from the layers of [`layers`].

pub mod layers;
pub mod resnet;
pub mod small;

use candle_core::{Result, Tensor};

use super::params::{Builder, Pass};

/// A classifier: its tensors are in a [`ParamStore`](super::params::ParamStore), its structure is here.
pub trait Network: Send + Sync {
    /// Logits `[batch, classes]` of normalised images `[batch, 3, height, width]`.
    ///
    /// # Errors
    /// When the images are too small for the network, or the device fails.
    fn forward(&self, images: &Tensor, pass: &Pass<'_>) -> Result<Tensor>;

    /// The name before the first dot of the classifier's tensors; everything else is the backbone.
    fn head(&self) -> &'static str;
}

/// The names that [`build`] knows.
pub const NAMES: &[&str] = &["small", "resnet18"];

/// Builds the network called `name` for `classes` classes and registers its tensors; `None` when no network is
/// called so.
///
/// # Errors
/// When the device cannot hold the tensors.
pub fn build(name: &str, classes: usize, builder: &mut Builder<'_>) -> Result<Option<Box<dyn Network>>> {
    Ok(Some(match name {
        "small" => Box::new(small::Small::new(builder, classes)?),
        "resnet18" => Box::new(resnet::ResNet::resnet18(builder, classes)?),
        _ => return Ok(None),
    }))
}
