//! What a tensor of a network is called by torchvision, timm and Hugging Face transformers.
//!
//! Networks here have torchvision's names, so that translating means: from any of the three to torchvision's.
//! The functions are pure, and their tests go through every name of real networks.

use std::collections::BTreeMap;

use crate::models::NAMES;

/// What a wrapper puts before the names of the network inside it. None is the start of a name of a network.
const PREFIXES: [&str; 15] = [
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
    "resnet.",
    "mobilenet_v2.",
];

/// Networks that share a scheme of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `features.N` and `classifier.N`.
    Vgg,
    /// `layerS.B`, of any depth and stem.
    Resnet,
    /// `Mixed_5b` and the like.
    InceptionV3,
    /// Inverted residuals.
    MobilenetV2,
    /// The same with squeeze-and-excitation in some blocks, small form.
    MobilenetV3Small,
    /// As above, large form.
    MobilenetV3Large,
    /// Blocks in stages, each with squeeze-and-excitation.
    EfficientnetB0,
}

impl Family {
    /// The family of a network called `model`, by torchvision's names; `None` for one that only this program has.
    pub fn of(model: &str) -> Option<Family> {
        Some(match model {
            _ if model.starts_with("vgg") => Family::Vgg,
            _ if model.contains("resnet") => Family::Resnet,
            "inception_v3" => Family::InceptionV3,
            "mobilenet_v2" => Family::MobilenetV2,
            "mobilenet_v3_small" => Family::MobilenetV3Small,
            "mobilenet_v3_large" => Family::MobilenetV3Large,
            "efficientnet_b0" => Family::EfficientnetB0,
            _ => return None,
        })
    }
}

/// What timm calls the network `model`; `None` for one that timm does not have.
pub fn timm_name(model: &str) -> Option<&'static str> {
    Some(match model {
        "mobilenet_v2" => "mobilenetv2_100",
        "mobilenet_v3_small" => "mobilenetv3_small_100",
        "mobilenet_v3_large" => "mobilenetv3_large_100",
        // Those for small images are nowhere else.
        "resnet18" | "resnet34" | "resnet50" | "resnet101" | "inception_v3" | "efficientnet_b0" => {
            named(model)?
        }
        _ if model.starts_with("vgg") => named(model)?,
        _ => return None,
    })
}

/// The network here that timm calls so, or that the model folder of a run does; `None` where there is none.
pub fn of_architecture(architecture: &str) -> Option<&'static str> {
    let ours = named(architecture.strip_prefix("forebay_").unwrap_or(architecture));
    ours.or_else(|| NAMES.iter().copied().find(|model| timm_name(model) == Some(architecture)))
}

fn named(model: &str) -> Option<&'static str> {
    NAMES.iter().copied().find(|name| *name == model)
}

/// A name without what wrappers put before it.
pub fn without_prefixes(name: &str) -> &str {
    let mut name = name;
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
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

/// True for what is no part of a network that is fine-tuned: counters of batch norms, the auxiliary classifier of
/// InceptionV3, which only helps to train from scratch, and sizes that some transformers keep.
pub fn is_passed_over(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    matches!(last, "num_batches_tracked" | "n_averaged" | "total_ops" | "total_params")
        || name.starts_with("AuxLogits.")
        || name.starts_with("aux1.")
        || name.starts_with("aux2.")
}

/// The name under which a network of `family` has the tensor that a file calls `name` (without prefixes). A name
/// that is torchvision's already, or of no scheme known, stays as it is.
pub fn translate(family: Family, name: &str) -> String {
    let Some((layer, tensor)) = name.rsplit_once('.') else { return name.to_owned() };
    let parts: Vec<&str> = layer.split('.').collect();
    let translated = match family {
        Family::Vgg => vgg(&parts),
        Family::Resnet => resnet(&parts),
        // timm and torchvision agree.
        Family::InceptionV3 => None,
        Family::MobilenetV2 => mobilenet_v2(&parts),
        Family::MobilenetV3Small => mobilenet_v3(&parts, &[1, 2, 3, 2, 3, 1], &[0, 2, 3, 4]),
        Family::MobilenetV3Large => mobilenet_v3(&parts, &[1, 2, 3, 4, 2, 3, 1], &[2, 4, 5]),
        Family::EfficientnetB0 => efficientnet_b0(&parts),
    };
    translated.map_or_else(|| name.to_owned(), |layer| format!("{layer}.{tensor}"))
}

/// timm's name of every layer that torchvision calls otherwise, by torchvision's: what [`translate`] maps back.
pub fn timm_layers(family: Family) -> BTreeMap<String, String> {
    const BLOCK: [&str; 9] =
        ["conv", "conv_pw", "bn1", "conv_dw", "bn2", "se.conv_reduce", "se.conv_expand", "conv_pwl", "bn3"];
    let mut layers: Vec<String> = match family {
        Family::Vgg => ["pre_logits.fc1", "pre_logits.fc2", "head.fc"].map(String::from).into(),
        Family::Resnet | Family::InceptionV3 => Vec::new(),
        _ => ["conv_stem", "bn1", "conv_head", "bn2", "classifier"].map(String::from).into(),
    };
    if !layers.is_empty() && family != Family::Vgg {
        // Seven stages of up to four blocks.
        let places = (0..7).flat_map(|stage| (0..4).map(move |block| (stage, block)));
        layers.extend(places.flat_map(|(s, b)| BLOCK.map(|layer| format!("blocks.{s}.{b}.{layer}"))));
    }
    let pairs = layers.into_iter().filter_map(|timm| {
        let torchvision = translate(family, &format!("{timm}.weight"));
        let torchvision = torchvision.strip_suffix(".weight").expect("a weight stays one").to_owned();
        (torchvision != timm).then_some((torchvision, timm))
    });
    pairs.collect()
}

fn vgg(parts: &[&str]) -> Option<String> {
    // timm keeps the first two linear layers as convolutions over the whole plane.
    let name = match parts {
        ["pre_logits", "fc1"] => "classifier.0",
        ["pre_logits", "fc2"] => "classifier.3",
        // A head with a hidden layer has two of them.
        ["head", "fc", layer] => return Some(format!("classifier.6.{layer}")),
        ["head", "fc"] => "classifier.6",
        _ => return None,
    };
    Some(name.to_owned())
}

fn resnet(parts: &[&str]) -> Option<String> {
    let number = |text: &str| text.parse::<usize>().ok().filter(|number| *number < 1000);
    Some(match parts {
        // Transformers.
        ["embedder", "embedder", "convolution"] => "conv1".to_owned(),
        ["embedder", "embedder", "normalization"] => "bn1".to_owned(),
        ["encoder", "stages", stage, "layers", block, rest @ ..] => {
            let at = format!("layer{}.{}", number(stage)? + 1, number(block)?);
            match rest {
                ["shortcut", "convolution"] => format!("{at}.downsample.0"),
                ["shortcut", "normalization"] => format!("{at}.downsample.1"),
                ["layer", layer, "convolution"] => format!("{at}.conv{}", number(layer)? + 1),
                ["layer", layer, "normalization"] => format!("{at}.bn{}", number(layer)? + 1),
                _ => return None,
            }
        }
        ["classifier", "1"] => "fc".to_owned(),
        // Common CIFAR repositories.
        ["linear"] => "fc".to_owned(),
        [stage, block, "shortcut", part @ ("0" | "1")] if stage.starts_with("layer") => {
            format!("{stage}.{block}.downsample.{part}")
        }
        _ => return None,
    })
}

/// Where stage `stage` and block `block` of timm stand among the blocks of all stages, counted from 0.
fn place(stages: &[usize], stage: &str, block: &str) -> Option<(usize, usize)> {
    let (stage, block) = (stage.parse::<usize>().ok()?, block.parse::<usize>().ok()?);
    (block < *stages.get(stage)?).then(|| (stage, stages[..stage].iter().sum::<usize>() + block))
}

fn mobilenet_v2(parts: &[&str]) -> Option<String> {
    Some(match parts {
        // timm, whose first block has no expansion.
        ["conv_stem"] => "features.0.0".to_owned(),
        ["bn1"] => "features.0.1".to_owned(),
        ["conv_head"] => "features.18.0".to_owned(),
        ["bn2"] => "features.18.1".to_owned(),
        ["classifier"] => "classifier.1".to_owned(),
        ["blocks", stage, block, layer] => {
            let (stage, at) = place(&[1, 2, 3, 4, 3, 3, 1], stage, block)?;
            let layer = match (stage, *layer) {
                (0, "conv_dw") => "0.0",
                (0, "bn1") => "0.1",
                (0, "conv_pw") => "1",
                (0, "bn2") => "2",
                (1.., "conv_pw") => "0.0",
                (1.., "bn1") => "0.1",
                (1.., "conv_dw") => "1.0",
                (1.., "bn2") => "1.1",
                (1.., "conv_pwl") => "2",
                (1.., "bn3") => "3",
                _ => return None,
            };
            format!("features.{}.conv.{layer}", at + 1)
        }
        // Transformers, which counts the first block to the stem.
        ["conv_stem", "first_conv", part] => format!("features.0.{}", conv_or_norm(part)?),
        ["conv_stem", "conv_3x3", part] => format!("features.1.conv.0.{}", conv_or_norm(part)?),
        ["conv_stem", "reduce_1x1", part] => format!("features.1.conv.{}", conv_or_norm(part)? + 1),
        ["conv_1x1", part] => format!("features.18.{}", conv_or_norm(part)?),
        ["layer", block, layer, part] => {
            let block = block.parse::<usize>().ok().filter(|block| *block < 16)? + 2;
            match *layer {
                "expand_1x1" => format!("features.{block}.conv.0.{}", conv_or_norm(part)?),
                "conv_3x3" => format!("features.{block}.conv.1.{}", conv_or_norm(part)?),
                "reduce_1x1" => format!("features.{block}.conv.{}", conv_or_norm(part)? + 2),
                _ => return None,
            }
        }
        _ => return None,
    })
}

fn conv_or_norm(part: &str) -> Option<usize> {
    match part {
        "convolution" => Some(0),
        "normalization" => Some(1),
        _ => None,
    }
}

/// timm's names of an inverted residual as torchvision's: a layer's index counts what the block has before it.
fn inverted_residual(expands: bool, squeezes: bool, layer: &[&str]) -> Option<String> {
    let depthwise = usize::from(expands);
    let project = depthwise + 1 + usize::from(squeezes);
    Some(match (expands, layer) {
        (true, ["conv_pw"]) => "0.0".to_owned(),
        (true, ["bn1"]) => "0.1".to_owned(),
        (true, ["conv_dw"]) | (false, ["conv_dw"]) => format!("{depthwise}.0"),
        (true, ["bn2"]) | (false, ["bn1"]) => format!("{depthwise}.1"),
        (_, ["se", "conv_reduce"]) if squeezes => format!("{}.fc1", depthwise + 1),
        (_, ["se", "conv_expand"]) if squeezes => format!("{}.fc2", depthwise + 1),
        (true, ["conv_pwl"]) | (false, ["conv_pw"]) => format!("{project}.0"),
        (true, ["bn3"]) | (false, ["bn2"]) => format!("{project}.1"),
        _ => return None,
    })
}

fn mobilenet_v3(parts: &[&str], stages: &[usize], squeezed: &[usize]) -> Option<String> {
    let last = stages.iter().sum::<usize>();
    Some(match parts {
        ["conv_stem"] => "features.0.0".to_owned(),
        ["bn1"] => "features.0.1".to_owned(),
        // timm pools before this layer, so that it is a convolution; torchvision's is linear.
        ["conv_head"] => "classifier.0".to_owned(),
        ["classifier"] => "classifier.3".to_owned(),
        ["blocks", stage, block, layer @ ..] => {
            let (stage, at) = place(stages, stage, block)?;
            if stage + 1 == stages.len() {
                return match layer {
                    ["conv"] => Some(format!("features.{last}.0")),
                    ["bn1"] => Some(format!("features.{last}.1")),
                    _ => None,
                };
            }
            let layer = inverted_residual(stage > 0, squeezed.contains(&stage), layer)?;
            format!("features.{}.block.{layer}", at + 1)
        }
        _ => return None,
    })
}

fn efficientnet_b0(parts: &[&str]) -> Option<String> {
    Some(match parts {
        ["conv_stem"] => "features.0.0".to_owned(),
        ["bn1"] => "features.0.1".to_owned(),
        ["conv_head"] => "features.8.0".to_owned(),
        ["bn2"] => "features.8.1".to_owned(),
        ["classifier"] => "classifier.1".to_owned(),
        ["blocks", stage, block, layer @ ..] => {
            let (at, _) = place(&[1, 2, 2, 3, 3, 4, 1], stage, block)?;
            let layer = inverted_residual(at > 0, true, layer)?;
            format!("features.{}.{block}.block.{layer}", at + 1)
        }
        _ => return None,
    })
}

/// Which network the names and shapes of a file look like, by torchvision's name, and whose names they are.
///
/// `tensors` gives the shape under a name without prefixes. `None` when nothing that is known looks like it.
pub fn looks_like<'a>(
    names: impl Iterator<Item = (&'a str, &'a [usize])> + Clone,
) -> Option<(&'static str, &'static str)> {
    let shape = |name: &str| names.clone().find(|(found, _)| *found == name).map(|(_, shape)| shape);
    let has = |name: &str| shape(name).is_some();
    let count = |test: &dyn Fn(&str) -> bool| names.clone().filter(|(name, _)| test(name)).count();
    if has("Mixed_5b.branch1x1.conv.weight") {
        return Some(("inception_v3", "torchvision or timm"));
    }
    if has("embedder.embedder.convolution.weight") {
        let blocks = |stage: usize| {
            let prefix = format!("encoder.stages.{stage}.layers.");
            count(&|name| name.starts_with(&prefix) && name.ends_with(".layer.0.convolution.weight"))
        };
        let is_bottleneck = has("encoder.stages.0.layers.0.layer.2.convolution.weight");
        let name = resnet_of([blocks(0), blocks(1), blocks(2), blocks(3)], is_bottleneck)?;
        return Some((name, "transformers"));
    }
    if has("layer1.0.conv1.weight") && has("conv1.weight") {
        let blocks = |stage: usize| {
            let prefix = format!("layer{stage}.");
            count(&|name| name.starts_with(&prefix) && name.ends_with(".conv1.weight"))
        };
        let stem = *shape("conv1.weight")?.first()?;
        let is_bottleneck = has("layer1.0.conv3.weight");
        let blocks = [blocks(1), blocks(2), blocks(3), blocks(4)];
        // A shortcut without parameters is the paper's for small images; the other one is a convolution.
        let projects =
            ["downsample", "shortcut"].iter().any(|layer| has(&format!("layer2.0.{layer}.0.weight")));
        let name = match (stem, blocks) {
            (64, _) if shape("conv1.weight")?.last() == Some(&3) => cifar_resnet_of(blocks, is_bottleneck)?,
            (64, _) => resnet_of(blocks, is_bottleneck)?,
            (16, [3, 3, 3, 0]) if projects => "resnet20_b",
            (16, [5, 5, 5, 0]) if projects => "resnet32_b",
            (16, [9, 9, 9, 0]) if projects => "resnet56_b",
            (16, [3, 3, 3, 0]) => "resnet20",
            (16, [5, 5, 5, 0]) => "resnet32",
            (16, [9, 9, 9, 0]) => "resnet56",
            _ => return None,
        };
        return Some((name, "torchvision or timm"));
    }
    if has("conv_stem.first_conv.convolution.weight") {
        return Some(("mobilenet_v2", "transformers"));
    }
    if has("conv_stem.weight") {
        let name = match (
            has("blocks.0.0.se.conv_reduce.weight"),
            has("conv_head.bias"),
            has("blocks.6.0.conv.weight"),
        ) {
            (_, true, true) => "mobilenet_v3_large",
            (true, true, false) => "mobilenet_v3_small",
            (true, false, _) => "efficientnet_b0",
            (false, false, _) => "mobilenet_v2",
            _ => return None,
        };
        return Some((name, "timm"));
    }
    if has("features.1.conv.0.0.weight") {
        return Some(("mobilenet_v2", "torchvision"));
    }
    if has("features.1.0.block.0.0.weight") {
        return Some(("efficientnet_b0", "torchvision"));
    }
    if has("features.1.block.0.0.weight") {
        let is_small = has("features.1.block.1.fc1.weight");
        return Some((if is_small { "mobilenet_v3_small" } else { "mobilenet_v3_large" }, "torchvision"));
    }
    if shape("features.0.weight").is_some_and(|shape| shape == [64, 3, 3, 3]) {
        let convolutions =
            names.clone().filter(|(name, shape)| name.starts_with("features.") && shape.len() == 4);
        let has_norm = count(&|name| name.starts_with("features.") && name.ends_with(".running_mean")) > 0;
        let name = match (convolutions.count(), has_norm) {
            (8, false) => "vgg11",
            (10, false) => "vgg13",
            (13, false) => "vgg16",
            (16, false) => "vgg19",
            (8, true) => "vgg11_bn",
            (10, true) => "vgg13_bn",
            (13, true) => "vgg16_bn",
            (16, true) => "vgg19_bn",
            _ => return None,
        };
        return Some((name, if has("head.fc.weight") { "timm" } else { "torchvision" }));
    }
    None
}

fn resnet_of(blocks: [usize; 4], is_bottleneck: bool) -> Option<&'static str> {
    Some(match (blocks, is_bottleneck) {
        ([2, 2, 2, 2], false) => "resnet18",
        ([3, 4, 6, 3], false) => "resnet34",
        ([3, 4, 6, 3], true) => "resnet50",
        ([3, 4, 23, 3], true) => "resnet101",
        ([3, 8, 36, 3], true) => "resnet152",
        _ => return None,
    })
}

/// The same of the networks with the stem for small images.
fn cifar_resnet_of(blocks: [usize; 4], is_bottleneck: bool) -> Option<&'static str> {
    Some(match resnet_of(blocks, is_bottleneck)? {
        "resnet18" => "cifar_resnet18",
        "resnet34" => "cifar_resnet34",
        "resnet50" => "cifar_resnet50",
        _ => return None,
    })
}

/// What the norms of the network that a file was made with add to the variance, where that is not what
/// torchvision's network adds: `(theirs, torchvision's)`.
///
/// timm's MobileNetV3 has PyTorch's default where torchvision has 0.001, and the MobileNetV2 of transformers has
/// TensorFlow's 0.001 where torchvision has the default.
pub fn norm_epsilons(family: Family, whose: &str) -> Option<(f64, f64)> {
    match (family, whose) {
        (Family::MobilenetV3Small | Family::MobilenetV3Large, "timm") => Some((1e-5, 1e-3)),
        (Family::MobilenetV2, "transformers") => Some((1e-3, 1e-5)),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

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
            let family = Family::of(model).expect("a family");
            for (theirs, ours, _) in tensors(table) {
                assert_eq!(translate(family, &theirs), ours, "{theirs} of {model} by {whose}");
                assert_eq!(translate(family, &ours), ours, "a name of torchvision stays as it is");
                assert!(!is_passed_over(&theirs), "{theirs}");
                n += 1;
            }
        }
        assert_eq!(n, 22 + 84 + 102 + 267 + 472 + 262 + 210 + 266 + 311 + 102 + 267 + 262);
    }

    #[test]
    fn every_layer_has_the_name_back_that_timm_gives_it() {
        for (model, _, _, table) in TABLES.into_iter().filter(|(_, wrapper, ..)| *wrapper == "timm") {
            let layers = timm_layers(Family::of(model).expect("a family"));
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
            assert_eq!(looks_like(theirs), Some((model, whose)), "{model} by {whose}");
            let ours = tensors.iter().map(|(_, name, shape)| (name.as_str(), shape.as_slice()));
            assert_eq!(looks_like(ours).map(|(name, _)| name), Some(model), "{model} by torchvision");
        }
        let other = [("encoder.weight", [3usize].as_slice())];
        assert_eq!(looks_like(other.into_iter()), None);
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
            assert_eq!(translate(Family::MobilenetV2, name), name);
        }
    }

    #[test]
    fn both_layers_of_a_hidden_head_of_vgg_are_found() {
        assert_eq!(translate(Family::Vgg, "head.fc.0.weight"), "classifier.6.0.weight");
        assert_eq!(translate(Family::Vgg, "head.fc.3.bias"), "classifier.6.3.bias");
    }
}
