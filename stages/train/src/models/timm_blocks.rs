//! timm's names in families of inverted residuals: a stem, blocks as `blocks.STAGE.BLOCK`, a last convolution and a
//! classifier.

use super::family::Timm;

/// What families of inverted residuals have in common in timm.
pub(super) const TIMM: Timm =
    Timm { layers, first_conv: "conv_stem", classifier: "classifier", convolutions: &[] };

/// Every layer that such a network may have.
fn layers() -> Vec<String> {
    const BLOCK: [&str; 9] =
        ["conv", "conv_pw", "bn1", "conv_dw", "bn2", "se.conv_reduce", "se.conv_expand", "conv_pwl", "bn3"];
    // Seven stages of up to four blocks.
    let places = (0..7).flat_map(|stage| (0..4).map(move |block| (stage, block)));
    let blocks = places.flat_map(|(s, b)| BLOCK.map(|layer| format!("blocks.{s}.{b}.{layer}")));
    ["conv_stem", "bn1", "conv_head", "bn2", "classifier"]
        .map(String::from)
        .into_iter()
        .chain(blocks)
        .collect()
}

/// Where stage `stage` and block `block` of timm stand among the blocks of all stages, counted from 0.
pub(super) fn place(stages: &[usize], stage: &str, block: &str) -> Option<(usize, usize)> {
    let (stage, block) = (stage.parse::<usize>().ok()?, block.parse::<usize>().ok()?);
    (block < *stages.get(stage)?).then(|| (stage, stages[..stage].iter().sum::<usize>() + block))
}

/// torchvision's name of the layer of an inverted residual that timm calls `layer`: a layer's index counts what the block has before it.
pub(super) fn layer_of_block(expands: bool, squeezes: bool, layer: &[&str]) -> Option<String> {
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
