//! What a file of this folder says of its family, as plain data: whoever needs to know something of a family reads it
//! here.

use std::collections::BTreeMap;

use candle_core::Result;

use super::known_weights::KnownWeights;
use super::{Head, Network, Parts};

/// Networks that share their layers and the names of them, and what other programs make of them.
///
/// A layer or a tensor of a file is called as in the file, but for the prefixes of wrappers.
#[derive(Debug)]
pub struct Family {
    /// The networks, in the order in which they are listed.
    pub variants: &'static [Variant],
    /// torchvision's name of a layer of the network that is given first, of whose name in timm, transformers or another
    /// repository the parts between the dots are given; `None` for one that is torchvision's already, or unknown.
    pub translate: fn(&str, &[&str]) -> Option<String>,
    /// Which network the names and shapes of a file look like, by torchvision's name, and whose names they are; `None` for
    /// a file of another family.
    pub looks_like: fn(&TensorShapes<'_>) -> Option<(&'static str, &'static str)>,
    /// What other programs put before all names of such a network, each with its dot.
    pub prefixes: &'static [&'static str],
    /// How the names begin of what is in such files and no part of a network that is fine-tuned.
    pub passed_over: &'static [&'static str],
    /// Where the norms of others add another number to the variance: whose, by the words of [`Family::looks_like`], and
    /// `(theirs, torchvision's)`.
    pub norm_epsilons: &'static [(&'static str, (f64, f64))],
    /// How timm sees these networks; `None` for a family that it does not have.
    pub timm: Option<Timm>,
    /// The weights that people publish. Of two rows with one file the first is the file's.
    pub known: &'static [KnownWeights],
}

/// A network of a family.
#[derive(Debug)]
pub struct Variant {
    /// torchvision's name, or our own of a network that torchvision does not have.
    pub name: &'static str,
    /// timm's name; `None` for a network that timm does not have.
    pub timm: Option<&'static str>,
    /// The side of the images that the network is made for, in pixels; `None` for one that takes them as they are.
    pub side_px: Option<u32>,
    /// Registers the tensors, under torchvision's names where it has the network.
    pub(super) build: Build,
}

/// What builds a network from its parts and its head.
pub(super) type Build = fn(Parts<'_, '_>, &Head) -> Result<Network>;

impl Variant {
    /// The network called `name` here, and `timm` in timm, for images of 224 pixels.
    pub(super) const fn new(name: &'static str, timm: Option<&'static str>, build: Build) -> Variant {
        Variant { name, timm, side_px: Some(224), build }
    }

    /// The same for images of another size.
    pub(super) const fn for_images_of(self, side_px: Option<u32>) -> Variant {
        Variant { side_px, ..self }
    }
}

/// How timm sees the networks of a family.
#[derive(Debug)]
pub struct Timm {
    /// timm's names of the layers that [`Family::translate`] translates, of all networks of the family; those that a
    /// network does not have do no harm.
    pub layers: fn() -> Vec<String>,
    /// The first convolution, by timm's name.
    pub first_conv: &'static str,
    /// The layer that gives the logits, by timm's name.
    pub classifier: &'static str,
    /// Our linear layers that are convolutions over the whole plane in timm, by timm's names, and the side of their kernels.
    pub convolutions: &'static [(&'static str, u64)],
}

/// The tensors of a file, by names without the prefixes of wrappers.
#[derive(Clone, Debug)]
pub struct TensorShapes<'a>(BTreeMap<&'a str, &'a [usize]>);

impl<'a> FromIterator<(&'a str, &'a [usize])> for TensorShapes<'a> {
    fn from_iter<T: IntoIterator<Item = (&'a str, &'a [usize])>>(tensors: T) -> TensorShapes<'a> {
        TensorShapes(tensors.into_iter().collect())
    }
}

impl TensorShapes<'_> {
    /// The shape of the tensor called `name`.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.0.get(name).copied()
    }

    /// True where a tensor is called `name`.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// How many tensors `test` is true of, given their names and shapes.
    pub fn count(&self, test: impl Fn(&str, &[usize]) -> bool) -> usize {
        self.0.iter().filter(|(name, shape)| test(name, shape)).count()
    }
}
