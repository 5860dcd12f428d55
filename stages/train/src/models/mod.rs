//! Network families, one file each, built from the layers of [`layers`] under torchvision's names. Each fills a
//! [`Family`], and [`FAMILIES`] is the one list of them.

pub mod cosines;
pub mod efficientnet;
pub mod family;
pub mod inception;
pub mod known_weights;
pub mod layers;
pub mod mobilenet_v2;
pub mod mobilenet_v3;
pub mod resnet;
pub mod small;
mod timm_blocks;
pub mod vgg;

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::onnx::Graph;
use super::ops::Activation;
use super::params::{Builder, Entry, ParamStore, Pass};
use cosines::Cosines;
use family::{Family, Variant};
use layers::{Activate, Dropout, Layer, Layers, Linear, LinearInit, export, run};

/// A classifier: its tensors are in a [`ParamStore`], its structure is here, as parts in
/// their order from the images to the logits. The last part, `head`, is the classifier; the others are the backbone.
/// Parts are what is frozen, unfrozen and given learning rates of its own.
pub struct Network {
    parts: Vec<Part>,
    head: String,
    /// The layer of the head that gives the logits.
    classifier: String,
    /// What the head takes.
    features: usize,
    side_min: usize,
}

/// Where a network begins and ends, by the names that its layers have here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkEnds {
    /// The convolution that takes the image.
    pub first_convolution: String,
    /// The layer that gives the logits.
    pub classifier: String,
    /// The features of an image that the head takes.
    pub features: usize,
}

struct Part {
    name: String,
    layers: Layers,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.part_names()).finish()
    }
}

/// The structure of the network called `arch`, without tensors.
pub(crate) fn blank(arch: &str) -> Option<Network> {
    outline(arch, &Head::linear(1)).map(|(network, _)| network)
}

/// The structure of the network called `arch`, and name and shape of each of its tensors.
pub(crate) fn outline(arch: &str, head: &Head) -> Option<(Network, BTreeMap<String, Vec<usize>>)> {
    let mut shapes = BTreeMap::new();
    let network = build(arch, head, &mut Builder::outline(&mut shapes)).ok().flatten()?;
    Some((network, shapes))
}

impl Network {
    /// Logits `[batch, classes]` of normalised images `[batch, 3, height, width]`.
    ///
    /// # Errors
    /// When the images are too small for the network, or the device fails.
    pub fn forward(&self, images: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        self.forward_parts(0..self.parts.len(), images, pass)
    }

    /// The number of the part called `name`.
    pub(crate) fn part_index(&self, name: &str) -> Option<usize> {
        self.part_names().position(|part| part == name)
    }

    /// What the given parts make of `x`, the output of the part before them.
    ///
    /// # Errors
    /// As [`Network::forward`].
    pub fn forward_parts(&self, parts: Range<usize>, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        self.parts[parts].iter().try_fold(x.clone(), |x, part| run(&part.layers, &x, pass))
    }

    /// What the layers before the pool over whole planes make of normalised images: `[batch, channels, height, width]`, the
    /// last activations that have a place in the image.
    ///
    /// # Errors
    /// As [`Network::forward`].
    pub(crate) fn forward_to_planes(&self, images: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let (part, layer) = self.pool();
        let x = self.forward_parts(0..part, images, pass)?;
        run(&self.parts[part].layers[..layer], &x, pass)
    }

    /// Logits of what [`Network::forward_to_planes`] gives.
    ///
    /// # Errors
    /// As [`Network::forward`].
    pub(crate) fn forward_from_planes(&self, planes: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let (part, layer) = self.pool();
        let x = run(&self.parts[part].layers[layer..], planes, pass)?;
        self.forward_parts(part + 1..self.parts.len(), &x, pass)
    }

    /// Part and layer of the pool over whole planes.
    fn pool(&self) -> (usize, usize) {
        let of_part = |part: &Part| part.layers.iter().position(|layer| layer.pools_planes());
        let mut found =
            self.parts.iter().enumerate().filter_map(|(index, part)| Some((index, of_part(part)?)));
        found.next().expect("a convolutional network pools its planes before its head")
    }

    /// The number of parts, the head among them.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Adds to `graph` what [`Network::forward`] computes in evaluation, from its images to the logits.
    ///
    /// # Errors
    /// When the images are too small for the network.
    pub fn export(&self, pass: &Pass<'_>, graph: &mut Graph) -> Result<()> {
        let images = graph.images();
        self.parts.iter().try_fold(images, |x, part| export(&part.layers, x, pass, graph)).map(drop)
    }

    /// The names of the parts, from the images to the logits; the last is `head`.
    pub fn part_names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(|part| part.name.as_str())
    }

    /// The prefix of the names of the classifier's tensors.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// True for a tensor of the classifier.
    pub fn is_head(&self, tensor: &str) -> bool {
        tensor.strip_prefix(self.head.as_str()).is_some_and(|rest| rest.starts_with('.'))
    }

    /// Where it begins and ends. `store` holds its tensors.
    ///
    /// # Panics
    /// When `store` is of another network: no layer but the first takes the three channels of an image.
    pub fn ends(&self, store: &ParamStore) -> NetworkEnds {
        let takes_images = |entry: &Entry| matches!(entry.values().dims(), [_, 3, _, _]);
        let mut first = store.iter().filter(|(_, entry)| takes_images(entry)).map(|(name, _)| name);
        let first = first.next().and_then(|name| name.strip_suffix(".weight"));
        NetworkEnds {
            first_convolution: first.expect("a network takes images").to_owned(),
            classifier: self.classifier.clone(),
            features: self.features,
        }
    }

    /// The smallest side of an image, in pixels.
    pub fn side_min(&self) -> usize {
        self.side_min
    }
}

/// What ends a network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Logits.
    pub classes: usize,
    /// Features of a hidden layer; without one the head is linear.
    pub width: Option<usize>,
    /// What follows the hidden layer.
    pub activation: Activation,
    /// Dropout before the last layer; without a number it is the family's own.
    pub dropout: Option<f64>,
    /// Whether the last layer gives cosines times [`COSINE_SCALE`], as the loss LDAM takes them, and not a linear map with
    /// bias.
    #[serde(default, skip_serializing_if = "is_false")]
    pub normalized: bool,
}

/// What the cosines of a head of unit vectors are multiplied by to be logits (arXiv 1906.07413).
pub const COSINE_SCALE: f64 = 30.0;

fn is_false(value: &bool) -> bool {
    !value
}

impl Head {
    /// A linear head with the dropout of its family.
    pub fn linear(classes: usize) -> Head {
        Head { classes, width: None, activation: Activation::Relu, dropout: None, normalized: false }
    }
}

/// Parts of a network while it is built.
struct Parts<'a, 'b> {
    builder: &'a mut Builder<'b>,
    parts: Vec<Part>,
}

impl<'a, 'b> Parts<'a, 'b> {
    fn new(builder: &'a mut Builder<'b>) -> Parts<'a, 'b> {
        Parts { builder, parts: Vec::new() }
    }

    /// Adds the part called `name`, whose layers `layers` builds.
    fn add(&mut self, name: &str, layers: impl FnOnce(&mut Builder<'b>) -> Result<Layers>) -> Result<()> {
        self.builder.begin_part(self.parts.len());
        let layers = layers(self.builder)?;
        self.parts.push(Part { name: name.to_owned(), layers });
        Ok(())
    }

    /// Adds the classifier `name` over `features` features, with the dropout and the initial weights of its family.
    fn finish(
        mut self,
        name: &str,
        features: usize,
        head: &Head,
        (dropout, init): (f64, LinearInit),
        side_min: usize,
    ) -> Result<Network> {
        let dropout = || -> Box<dyn Layer> {
            let probability = head.dropout.unwrap_or(dropout);
            Box::new(Dropout { name: format!("{name}.dropout"), probability })
        };
        let last = |builder: &mut Builder<'b>, name: &str, features: usize| -> Result<Box<dyn Layer>> {
            let sizes = (features, head.classes);
            Ok(match head.normalized {
                true => Box::new(Cosines::new(builder, name, sizes, init)?),
                false => Box::new(Linear::new(builder, name, sizes, init)?),
            })
        };
        self.add("head", |builder| {
            let Some(width) = head.width else {
                return Ok(vec![dropout(), last(builder, name, features)?]);
            };
            Ok(vec![
                Box::new(Linear::new(builder, &format!("{name}.0"), (features, width), LinearInit::Uniform)?),
                Box::new(Activate(head.activation)),
                dropout(),
                last(builder, &format!("{name}.3"), width)?,
            ])
        })?;
        let classifier = if head.width.is_some() { format!("{name}.3") } else { name.to_owned() };
        Ok(Network { parts: self.parts, head: name.to_owned(), classifier, features, side_min })
    }
}

/// How many numbers of the network called `name` training moves, for so many classes.
pub fn parameters(name: &str, classes: usize) -> Option<u64> {
    let (_, shapes) = outline(name, &Head::linear(classes))?;
    let trained = shapes.iter().filter(|(name, _)| !name.contains(".running_"));
    Some(trained.map(|(_, shape)| shape.iter().product::<usize>() as u64).sum())
}

/// The families, in the order in which their networks are listed: a new one is a file of this folder and a line here.
pub const FAMILIES: &[&Family] = &[
    &small::FAMILY,
    &vgg::FAMILY,
    &resnet::FAMILY,
    &inception::FAMILY,
    &mobilenet_v2::FAMILY,
    &mobilenet_v3::FAMILY,
    &efficientnet::FAMILY,
];

/// The names that [`build`] knows, of all [`FAMILIES`]: torchvision's, the residual networks for 32-pixel images of
/// arXiv 1512.03385 (`resnet20`, `resnet32`, `resnet56`; with `_b` those whose shortcuts are convolutions), the larger
/// ones with the stem of these, and `small`.
pub const NAMES: &[&str] = &names::<{ n_names() }>();

/// How many networks all families have.
const fn n_names() -> usize {
    let (mut n, mut family) = (0, 0);
    while family < FAMILIES.len() {
        n += FAMILIES[family].variants.len();
        family += 1;
    }
    n
}

/// The names of all families, one after the other.
const fn names<const N: usize>() -> [&'static str; N] {
    let mut names = [""; N];
    let (mut n, mut family) = (0, 0);
    while family < FAMILIES.len() {
        let variants = FAMILIES[family].variants;
        let mut variant = 0;
        while variant < variants.len() {
            names[n] = variants[variant].name;
            (n, variant) = (n + 1, variant + 1);
        }
        family += 1;
    }
    names
}

/// The network called `name`, and its family; `None` when no network is called so.
pub fn named(name: &str) -> Option<(&'static Family, &'static Variant)> {
    let of = |family: &'static Family| {
        let variant = family.variants.iter().find(|variant| variant.name == name)?;
        Some((family, variant))
    };
    FAMILIES.iter().find_map(|family| of(family))
}

/// Builds the network called `name` with the given head and registers its tensors; `None` when no network is called
/// so.
///
/// # Errors
/// When the device cannot hold the tensors.
pub fn build(name: &str, head: &Head, builder: &mut Builder<'_>) -> Result<Option<Network>> {
    named(name).map(|(_, variant)| (variant.build)(Parts::new(builder), head)).transpose()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use candle_core::{Device, Tensor};
    use forebay_datasets::seed::Seed;

    use super::*;
    use crate::params::{Kind, Mode, ParamStore};

    #[test]
    fn every_name_builds_a_network_that_runs_at_its_smallest_size() -> Result<()> {
        for name in NAMES {
            let mut store = ParamStore::new(Device::Cpu);
            let network =
                build(name, &Head::linear(3), &mut Builder::blank(&mut store))?.expect("a known name");
            let side = network.side_min();
            let images = Tensor::zeros((1, 3, side, side + 1), candle_core::DType::F32, &Device::Cpu)?;
            let logits = network.forward(&images, &Pass::new(&store, Mode::Evaluate))?;
            assert_eq!(logits.dims(), [1, 3], "{name}");
            let parts = network.parts();
            assert_eq!(network.part_names().last(), Some("head"));
            for (tensor, entry) in store.iter() {
                assert_eq!(network.is_head(tensor), entry.part() == parts - 1, "{name}: {tensor}");
            }
            assert!(store.iter().any(|(tensor, _)| network.is_head(tensor)), "{name}");
            if side > 1 {
                let images = Tensor::zeros((1, 3, side - 1, side), candle_core::DType::F32, &Device::Cpu)?;
                assert!(network.forward(&images, &Pass::new(&store, Mode::Evaluate)).is_err(), "{name}");
            }
        }
        assert!(
            build("alexnet", &Head::linear(3), &mut Builder::blank(&mut ParamStore::new(Device::Cpu)))?
                .is_none()
        );
        Ok(())
    }

    #[test]
    fn a_network_says_where_it_begins_and_ends_whatever_its_head() -> Result<()> {
        for (name, first, head) in [
            ("small", "conv1", "fc"),
            ("vgg11_bn", "features.0", "classifier.6"),
            ("resnet20", "conv1", "fc"),
            ("inception_v3", "Conv2d_1a_3x3.conv", "fc"),
            ("mobilenet_v2", "features.0.0", "classifier.1"),
            ("mobilenet_v3_small", "features.0.0", "classifier.3"),
            ("efficientnet_b0", "features.0.0", "classifier.1"),
        ] {
            for (width, classifier) in [(None, head.to_owned()), (Some(6), format!("{head}.3"))] {
                let mut store = ParamStore::new(Device::Cpu);
                let head = Head { width, ..Head::linear(3) };
                let network = build(name, &head, &mut Builder::blank(&mut store))?.expect("a known name");
                let takes_images = |entry: &Entry| matches!(entry.values().dims(), [_, 3, _, _]);
                let n = store.iter().filter(|(_, entry)| takes_images(entry)).count();
                assert_eq!(n, 1, "{name}");
                let ends = network.ends(&store);
                assert_eq!((ends.first_convolution.as_str(), &ends.classifier), (first, &classifier));
                let of = |layer: &str| store.get(&format!("{layer}.weight")).expect(layer).values();
                assert_eq!(of(&classifier).dims()[0], 3, "{name}");
                let layer = if width.is_some() { format!("{}.0", network.head()) } else { classifier };
                assert_eq!(of(&layer).dims()[1], ends.features, "{name}");
            }
        }
        Ok(())
    }

    #[test]
    fn every_network_and_every_set_of_weights_is_of_one_family() {
        let listed = || FAMILIES.iter().flat_map(|family| family.variants);
        assert!(listed().map(|variant| variant.name).eq(NAMES.iter().copied()));
        for names in [NAMES.to_vec(), listed().filter_map(|variant| variant.timm).collect()] {
            let distinct: BTreeSet<&str> = names.iter().copied().collect();
            assert_eq!(distinct.len(), names.len(), "a name is listed twice");
        }
        for family in FAMILIES {
            let of = |name: &str| family.variants.iter().find(|variant| variant.name == name);
            let first = family.variants.first().expect("a family has networks").name;
            for known in family.known {
                let model = of(known.model).map(|variant| (variant.name, variant.timm));
                let (model, timm) = model.unwrap_or_else(|| panic!("{} is not of {first}", known.id));
                let (library, rest) = known.id.split_once('/').expect("a library and a name");
                let name = rest.split('.').next();
                assert_eq!(name, if library == "timm" { timm } else { Some(model) }, "{}", known.id);
            }
            let is_in_timm = family.variants.iter().any(|variant| variant.timm.is_some());
            assert_eq!(is_in_timm, family.timm.is_some(), "{first}");
        }
    }

    #[test]
    fn parameters_are_as_many_as_torchvisions() -> Result<()> {
        // sum(p.numel() for p in model.parameters()) of torchvision, for 1000 classes (without Inception's AuxLogits).
        for (name, expected) in [
            ("vgg11_bn", 132_868_840),
            ("resnet18", 11_689_512),
            ("resnet34", 21_797_672),
            ("resnet50", 25_557_032),
            ("resnet101", 44_549_160),
            ("inception_v3", 23_834_568),
            ("mobilenet_v2", 3_504_872),
            ("mobilenet_v3_small", 2_542_856),
            ("mobilenet_v3_large", 5_483_032),
            ("efficientnet_b0", 5_288_548),
        ] {
            let mut store = ParamStore::new(Device::Cpu);
            build(name, &Head::linear(1000), &mut Builder::blank(&mut store))?.expect("a known name");
            let of_entry = |(_, entry): (&str, &crate::params::Entry)| {
                if entry.kind() == Kind::Buffer { 0 } else { entry.values().elem_count() }
            };
            assert_eq!(store.iter().map(of_entry).sum::<usize>(), expected, "{name}");
            assert_eq!(parameters(name, 1000), Some(expected as u64), "{name}");
        }
        Ok(())
    }

    #[test]
    fn a_head_with_a_hidden_layer_drops_values_in_training_only() -> Result<()> {
        let head =
            Head { width: Some(16), activation: Activation::Gelu, dropout: Some(0.5), ..Head::linear(4) };
        let mut store = ParamStore::new(Device::Cpu);
        let network = build("small", &head, &mut Builder::new(&mut store, Seed(3)))?.expect("a known name");
        assert_eq!(store.get("fc.3.weight").map(|entry| entry.values().dims().to_vec()), Some(vec![4, 16]));
        let images = Tensor::ones((2, 3, 8, 8), candle_core::DType::F32, &Device::Cpu)?;
        let logits = |pass: Pass<'_>| network.forward(&images, &pass)?.flatten_all()?.to_vec1::<f32>();
        let train = || Pass::new(&store, Mode::Train);
        let dropped = logits(train().with_dropout(Seed(1), 5))?;
        assert_eq!(dropped, logits(train().with_dropout(Seed(1), 5))?);
        assert_ne!(dropped, logits(train().with_dropout(Seed(1), 6))?);
        assert_ne!(dropped, logits(train())?);
        let evaluate = || Pass::new(&store, Mode::Evaluate);
        assert_eq!(logits(evaluate())?, logits(evaluate().with_dropout(Seed(1), 5))?);
        Ok(())
    }
}
