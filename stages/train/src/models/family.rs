//! What a file of this folder says of its family, as plain data: whoever needs to know something of a family reads it
//! here.

use candle_core::Result;

use super::{Head, Network, Parts};

/// Networks that share their layers and the names of them.
#[derive(Debug)]
pub struct Family {
    /// The networks, in the order in which they are listed.
    pub variants: &'static [Variant],
}

/// A network of a family.
#[derive(Debug)]
pub struct Variant {
    /// torchvision's name, or our own of a network that torchvision does not have.
    pub name: &'static str,
    /// Registers the tensors, under torchvision's names where it has the network.
    pub(super) build: fn(Parts<'_, '_>, &Head) -> Result<Network>,
}
