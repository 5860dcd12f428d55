//! What a tensor of a network is called by torchvision, timm and Hugging Face transformers.
//!
//! Networks here have torchvision's names, so that translating means: from any of the three to torchvision's.
//! What is common to all networks is here; each family has its own names in its file of [`models`](crate::models). The
//! functions are pure, and their tests go through every name of real networks.

use std::collections::BTreeMap;

use crate::models::family::{Family, TensorShapes};
use crate::models::{FAMILIES, NAMES, named};

/// What a wrapper puts before the names of the network inside it, whatever its family. None is the start of a name of a
/// network.
const PREFIXES: [&str; 13] = [
    "_orig_mod.",
    "module.",
    "model_ema.",
    "ema_model.",
    "ema.",
    "averaged_model.",
    "swa_model.",
    "online_model.",
    "model.",
    "timm_model.",
    "backbone.",
    "net.",
    "network.",
];

/// What timm calls the network `model`; `None` for one that timm does not have.
pub fn timm_name(model: &str) -> Option<&'static str> {
    named(model)?.1.timm
}

/// The network here that timm calls so, or that the model folder of a run does; `None` where there is none.
pub fn of_architecture(architecture: &str) -> Option<&'static str> {
    let ours = named(architecture.strip_prefix("forebay_").unwrap_or(architecture));
    ours.map(|(_, variant)| variant.name)
        .or_else(|| NAMES.iter().copied().find(|model| timm_name(model) == Some(architecture)))
}

/// A name without what wrappers put before it.
pub fn without_prefixes(name: &str) -> &str {
    let mut name = name;
    let prefixes = || PREFIXES.iter().chain(FAMILIES.iter().flat_map(|family| family.prefixes));
    while let Some(rest) = prefixes().find_map(|prefix| name.strip_prefix(prefix)) {
        name = rest;
    }
    name
}

/// True for the prefix of a moving average of the weights, which programs keep beside the weights in training.
pub fn is_average(prefix: &str) -> bool {
    ["model_ema.", "ema_model.", "ema.", "averaged_model.", "swa_model."]
        .iter()
        .any(|average| prefix.contains(average))
}

/// True for what is no part of a network that is fine-tuned: counters of batch norms, sizes that some programs keep, and
/// what a family passes over.
pub fn is_passed_over(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    matches!(last, "num_batches_tracked" | "n_averaged" | "total_ops" | "total_params")
        || FAMILIES.iter().flat_map(|family| family.passed_over).any(|start| name.starts_with(start))
}

/// The name under which the network `model` has the tensor that a file calls `name` (without prefixes). A name that is
/// torchvision's already, or of no scheme known, stays as it is.
pub fn translate(model: &str, name: &str) -> String {
    named(model).map_or_else(|| name.to_owned(), |(family, _)| translate_in(family, model, name))
}

/// [`translate`] in a family, listed or not.
fn translate_in(family: &Family, model: &str, name: &str) -> String {
    let Some((layer, tensor)) = name.rsplit_once('.') else { return name.to_owned() };
    let parts: Vec<&str> = layer.split('.').collect();
    (family.translate)(model, &parts).map_or_else(|| name.to_owned(), |layer| format!("{layer}.{tensor}"))
}

/// timm's name of every layer of the network `model` that torchvision calls otherwise, by torchvision's: what
/// [`translate`] maps back.
pub fn timm_layers(model: &str) -> BTreeMap<String, String> {
    named(model).map(|(family, _)| timm_layers_in(family, model)).unwrap_or_default()
}

/// [`timm_layers`] in a family, listed or not.
fn timm_layers_in(family: &Family, model: &str) -> BTreeMap<String, String> {
    let layers = family.timm.as_ref().map(|timm| (timm.layers)()).unwrap_or_default();
    let pairs = layers.into_iter().filter_map(|timm| {
        let torchvision = translate_in(family, model, &format!("{timm}.weight"));
        let torchvision = torchvision.strip_suffix(".weight").expect("a weight stays one").to_owned();
        (torchvision != timm).then_some((torchvision, timm))
    });
    pairs.collect()
}

/// Which network the names and shapes of a file look like, by torchvision's name, and whose names they are; `None` when
/// nothing that is known looks like it.
pub fn looks_like(file: &TensorShapes<'_>) -> Option<(&'static str, &'static str)> {
    FAMILIES.iter().find_map(|family| (family.looks_like)(file))
}

/// What the norms of the network that a file was made with add to the variance, where that is not what
/// torchvision's network `model` adds: `(theirs, torchvision's)`.
pub fn norm_epsilons(model: &str, whose: &str) -> Option<(f64, f64)> {
    let epsilons = named(model)?.0.norm_epsilons;
    epsilons.iter().find(|(other, _)| *other == whose).map(|(_, epsilons)| *epsilons)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use candle_core::Device;

    use super::*;
    use crate::models::{Head, Network, build};
    use crate::params::{Builder, Entry, ParamStore};

    /// Table, torchvision's name of its network, and whose names they are.
    pub(in super::super) const TABLES: [(&str, &str, &str, &str); 12] = [
        ("vgg11", "timm", "timm", include_str!("testdata/timm-vgg11.txt")),
        ("vgg16_bn", "timm", "timm", include_str!("testdata/timm-vgg16_bn.txt")),
        ("resnet18", "timm", "torchvision or timm", include_str!("testdata/timm-resnet18.txt")),
        ("resnet50", "timm", "torchvision or timm", include_str!("testdata/timm-resnet50.txt")),
        ("inception_v3", "timm", "torchvision or timm", include_str!("testdata/timm-inception_v3.txt")),
        ("mobilenet_v2", "timm", "timm", include_str!("testdata/timm-mobilenet_v2.txt")),
        ("mobilenet_v3_small", "timm", "timm", include_str!("testdata/timm-mobilenet_v3_small.txt")),
        ("mobilenet_v3_large", "timm", "timm", include_str!("testdata/timm-mobilenet_v3_large.txt")),
        ("efficientnet_b0", "timm", "timm", include_str!("testdata/timm-efficientnet_b0.txt")),
        ("resnet18", "resnet.", "transformers", include_str!("testdata/transformers-resnet18.txt")),
        ("resnet50", "resnet.", "transformers", include_str!("testdata/transformers-resnet50.txt")),
        (
            "mobilenet_v2",
            "mobilenet_v2.",
            "transformers",
            include_str!("testdata/transformers-mobilenet_v2.txt"),
        ),
    ];

    /// Every tensor of a table: the other library's name, torchvision's, and the shape in the other library.
    pub(in super::super) fn tensors(table: &str) -> Vec<(String, String, Vec<usize>)> {
        let mut found = Vec::new();
        for line in table.lines() {
            let [theirs, ours, kind, shape] =
                line.split(' ').collect::<Vec<_>>().try_into().expect("four fields");
            let shape: Vec<usize> = shape.split('x').map(|side| side.parse().expect("a number")).collect();
            let leaves = ["weight", "bias", "running_mean", "running_var"];
            let n = match kind {
                "w" => 1,
                "b" => 2,
                _ => 4,
            };
            for leaf in &leaves[..n] {
                let shape = if *leaf == "weight" { shape.clone() } else { vec![shape[0]] };
                found.push((format!("{theirs}.{leaf}"), format!("{ours}.{leaf}"), shape));
            }
        }
        found
    }

    #[test]
    fn every_name_of_timm_and_transformers_becomes_the_one_of_torchvision() {
        let mut n = 0;
        for (model, _, whose, table) in TABLES {
            for (theirs, ours, _) in tensors(table) {
                assert_eq!(translate(model, &theirs), ours, "{theirs} of {model} by {whose}");
                assert_eq!(translate(model, &ours), ours, "a name of torchvision stays as it is");
                assert!(!is_passed_over(&theirs), "{theirs}");
                n += 1;
            }
        }
        assert_eq!(n, 22 + 84 + 102 + 267 + 472 + 262 + 210 + 266 + 311 + 102 + 267 + 262);
    }

    #[test]
    fn every_layer_has_the_name_back_that_timm_gives_it() {
        for (model, _, _, table) in TABLES.into_iter().filter(|(_, wrapper, ..)| *wrapper == "timm") {
            let layers = timm_layers(model);
            let of = |name: &str| name.rsplit_once('.').expect("a layer and a tensor").0.to_owned();
            let pairs: BTreeMap<String, String> =
                tensors(table).iter().map(|(theirs, ours, _)| (of(ours), of(theirs))).collect();
            for (ours, theirs) in &pairs {
                assert_eq!(layers.get(ours).unwrap_or(ours), theirs, "{model}");
            }
            let extra: Vec<_> = layers.keys().filter(|ours| !pairs.contains_key(*ours)).collect();
            assert!(extra.is_empty() || model.starts_with("vgg"), "{model} has no {extra:?}");
        }
    }

    #[test]
    fn a_network_is_known_by_its_names() {
        for (model, _, whose, table) in TABLES {
            let tensors = tensors(table);
            let theirs = tensors.iter().map(|(name, _, shape)| (name.as_str(), shape.as_slice()));
            assert_eq!(looks_like(&theirs.collect()), Some((model, whose)), "{model} by {whose}");
            let ours = tensors.iter().map(|(_, name, shape)| (name.as_str(), shape.as_slice()));
            assert_eq!(
                looks_like(&ours.collect()).map(|(name, _)| name),
                Some(model),
                "{model} by torchvision"
            );
        }
        let other = [("encoder.weight", [3usize].as_slice())];
        assert_eq!(looks_like(&other.into_iter().collect()), None);
    }

    #[test]
    fn wrappers_leave_prefixes_and_counters() {
        for name in
            ["module.model.fc.weight", "_orig_mod.module.fc.weight", "timm_model.fc.weight", "fc.weight"]
        {
            assert_eq!(without_prefixes(name), "fc.weight", "{name}");
        }
        assert_eq!(without_prefixes("resnet.embedder.x"), "embedder.x");
        assert_eq!(without_prefixes("features.0.weight"), "features.0.weight");
        for name in ["bn1.num_batches_tracked", "AuxLogits.fc.weight", "AuxLogits.conv0.bn.running_mean"] {
            assert!(is_passed_over(name), "{name}");
        }
        assert!(!is_passed_over("bn1.running_mean"));
    }

    #[test]
    fn names_beyond_the_network_stay_as_they_are() {
        for name in [
            "blocks.9.0.conv_pw.weight",
            "blocks.1.7.bn1.bias",
            "blocks.x.0.bn1.bias",
            "layer.99.conv_3x3.convolution.weight",
            "nothing",
        ] {
            assert_eq!(translate("mobilenet_v2", name), name);
        }
    }

    #[test]
    fn both_layers_of_a_hidden_head_of_vgg_are_found() {
        assert_eq!(translate("vgg11", "head.fc.0.weight"), "classifier.6.0.weight");
        assert_eq!(translate("vgg11", "head.fc.3.bias"), "classifier.6.3.bias");
    }

    /// Names and shapes of the tensors of the network `model`, in a store, and the network.
    fn network(model: &str) -> (Vec<(String, Vec<usize>)>, Network) {
        let mut store = ParamStore::new(Device::Cpu);
        let network = build(model, &Head::linear(3), &mut Builder::blank(&mut store))
            .expect("the processor holds it")
            .expect("a known name");
        let tensor = |(name, entry): (&str, &Entry)| (name.to_owned(), entry.values().dims().to_vec());
        (store.iter().map(tensor).collect(), network)
    }

    #[test]
    fn every_network_is_recognised_by_its_family_and_by_no_other() {
        for model in NAMES {
            let (tensors, _) = network(model);
            let layers = timm_layers(model);
            let timm = |name: &str| match name.rsplit_once('.').expect("a layer and a tensor") {
                (layer, tensor) if layers.contains_key(layer) => format!("{}.{tensor}", layers[layer]),
                _ => name.to_owned(),
            };
            let by_timm: Vec<_> = tensors.iter().map(|(name, shape)| (timm(name), shape.clone())).collect();
            for tensors in [tensors, by_timm] {
                let file = tensors.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
                let found: Vec<&str> = FAMILIES
                    .iter()
                    .filter_map(|family| (family.looks_like)(&file))
                    .map(|(found, _)| found)
                    .collect();
                // `small` is in no other program, and a file of our own says what it is of.
                let expected: &[&str] = if *model == "small" { &[] } else { &[model] };
                assert_eq!(found, expected, "{model}");
            }
        }
    }

    #[test]
    fn every_network_of_timm_has_the_layers_that_timm_has() {
        for model in NAMES {
            let (family, variant) = named(model).expect("a known name");
            let Some(timm) = variant.timm.map(|_| family.timm.as_ref().expect("of its family too")) else {
                assert_eq!(timm_layers(model), BTreeMap::new(), "{model}");
                continue;
            };
            let (tensors, network) = network(model);
            let layers = timm_layers(model);
            let theirs: BTreeSet<&String> = layers.values().collect();
            assert_eq!(theirs.len(), layers.len(), "{model}: timm has a name for two layers");
            let ours = |layer: &str| {
                let name = translate(model, &format!("{layer}.weight"));
                let (_, shape) = tensors.iter().find(|(ours, _)| *ours == name).expect(&name);
                (name.strip_suffix(".weight").expect("a weight").to_owned(), shape.as_slice())
            };
            for (name, _) in &tensors {
                let (layer, tensor) = name.rsplit_once('.').expect("a layer and a tensor");
                let theirs = layers.get(layer).map_or(layer, String::as_str);
                assert_eq!(translate(model, &format!("{theirs}.{tensor}")), *name, "{model}: {theirs}");
            }
            assert_eq!(ours(timm.classifier).0, network.head(), "{model}");
            let (_, first) = ours(timm.first_conv);
            assert!(matches!(first, [_, 3, _, _]), "{model}: {first:?}");
            for (layer, side) in timm.convolutions {
                let (_, shape) = ours(layer);
                let &[_, flat] = shape else { panic!("{model}: {layer} is {shape:?}") };
                assert!((flat as u64).is_multiple_of(side * side), "{model}: {layer} is {shape:?}");
            }
            let has_table = TABLES.iter().any(|(of, wrapper, ..)| {
                *wrapper == "timm" && family.variants.iter().any(|variant| variant.name == *of)
            });
            assert!(has_table, "no table has timm's names of the family of {model}");
        }
    }

    #[test]
    fn a_family_that_timm_lacks_is_given_no_names_of_timm() {
        let family = Family {
            variants: &[],
            translate: |_, _| None,
            looks_like: |_| None,
            prefixes: &[],
            passed_over: &[],
            norm_epsilons: &[],
            timm: None,
            known: &[],
        };
        assert_eq!(timm_layers_in(&family, "new"), BTreeMap::new());
        assert_eq!(translate_in(&family, "new", "conv_stem.weight"), "conv_stem.weight");
        assert_eq!((timm_layers("new"), timm_name("new")), (BTreeMap::new(), None));
        assert_eq!(translate("new", "blocks.1.0.bn1.bias"), "blocks.1.0.bn1.bias");
    }

    #[test]
    fn what_a_family_strips_or_passes_over_begins_no_name_of_a_network() {
        for model in NAMES {
            for (name, _) in network(model).0 {
                assert_eq!(without_prefixes(&name), name, "{model}");
                assert!(!is_passed_over(&name), "{model}: {name}");
            }
        }
    }
}
