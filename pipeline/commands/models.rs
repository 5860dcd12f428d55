//! `forebay models`: which networks there are, and which weights are known for them.

use std::fmt::Write as _;

use forebay_stages::normalize::Normalize;
use forebay_train::Trainer;
use forebay_train::models::family::{Family, Variant};
use forebay_train::models::known_weights::KnownWeights;
use forebay_train::models::{self, FAMILIES};
use serde_json::{Value, json};

use crate::flow::Error;
use crate::options::Invocation;
use crate::report::{say, say_json, terminal};

/// Classes of the classifier that the numbers of parameters are for: ImageNet's, as papers count.
const CLASSES: usize = 1000;

/// Runs the command.
///
/// # Errors
/// None.
pub fn run(asked: &Invocation) -> Result<(), Error> {
    let named = asked.config.text("models.arch");
    let all =
        FAMILIES.iter().flat_map(|family| family.variants.iter().map(move |variant| (*family, variant)));
    let wanted = all.filter(|(_, variant)| named.as_ref().is_none_or(|name| *name == variant.name));
    let wanted: Vec<(&Family, &Variant)> = wanted.collect();
    match (asked.json, &named, &wanted[..]) {
        (true, ..) => {
            let networks: Vec<Value> =
                wanted.iter().map(|(family, variant)| as_json(family, variant)).collect();
            say_json(&json!({ "networks": networks }));
        }
        (false, Some(_), [(family, variant)]) => say(&one(family, variant)),
        _ => say(&table(&wanted)),
    }
    Ok(())
}

/// The sets of weights that are known for a network.
fn known(family: &Family, variant: &Variant) -> Vec<&'static KnownWeights> {
    family.known.iter().filter(|known| known.model == variant.name).collect()
}

/// What `--weights` takes for a set: the repository of the hub, or the file as PyTorch publishes it.
fn weights_argument(known: &KnownWeights) -> String {
    match known.id.starts_with("timm/") {
        true => format!("hf:{}", known.id),
        false => known.file.to_string(),
    }
}

fn as_json(family: &Family, variant: &Variant) -> Value {
    let weights: Vec<Value> = known(family, variant)
        .into_iter()
        .map(|known| {
            let images = known.preprocessing;
            let Normalize { mean, std } = images.normalize;
            json!({
                "id": known.id, "weights": weights_argument(known), "licence": known.licence,
                "classes": known.classes, "size": images.size, "crop_pct": images.crop_pct,
                "filter": images.filter, "mean": mean, "std": std,
            })
        })
        .collect();
    json!({
        "name": variant.name, "timm": variant.timm, "parameters": models::parameters(variant.name, CLASSES),
        "size": variant.side_px, "parts": Trainer::part_names(variant.name), "weights": weights,
    })
}

/// Columns of the table before that of the weights.
const BEFORE_WEIGHTS: usize = 20 + 1 + 10 + 1 + 7 + 2;

/// A row per network.
fn table(wanted: &[(&Family, &Variant)]) -> String {
    let mut text = format!("{:<20} {:>10} {:>7}  known weights\n", "network", "parameters", "images");
    for (family, variant) in wanted {
        let known = known(family, variant);
        let weights = match known.first() {
            None => "none".to_string(),
            Some(first) => {
                let whole = format!("{}, such as {}", known.len(), weights_argument(first));
                let is_fit = BEFORE_WEIGHTS + whole.len() <= terminal::room();
                if is_fit { whole } else { known.len().to_string() }
            }
        };
        let _ = writeln!(
            text,
            "{:<20} {:>10} {:>7}  {weights}",
            variant.name,
            millions(variant),
            images(variant)
        );
    }
    text + "\nParameters are those for 1000 classes. `forebay models NETWORK` lists its parts and weights.\n"
}

/// All that is known of a network.
fn one(family: &Family, variant: &Variant) -> String {
    let mut text = format!(
        "{}: {} parameters for 1000 classes, images of {}\n",
        variant.name,
        millions(variant),
        images(variant)
    );
    let _ = writeln!(
        text,
        "parts, for --freeze and --unfreeze: {}",
        Trainer::part_names(variant.name).join(", ")
    );
    if let Some(timm) = variant.timm {
        let _ = writeln!(text, "in timm: {timm}");
    }
    let known = known(family, variant);
    match known.is_empty() {
        true => text += "no weights are known for it\n",
        false => {
            text += "known weights, as --weights takes them (.pth files are those of https://download.pytorch.org/models/):\n"
        }
    }
    for known in known {
        let images = known.preprocessing;
        let _ = writeln!(
            text,
            "  {:<58} {} px cut from {}, {}, {} classes, {}",
            weights_argument(known),
            images.size,
            images.shorter_side(),
            images.filter,
            known.classes,
            known.licence
        );
    }
    text
}

fn millions(variant: &Variant) -> String {
    let parameters = models::parameters(variant.name, CLASSES).expect("a known name");
    format!("{:.1} M", parameters as f64 / 1e6)
}

fn images(variant: &Variant) -> String {
    variant.side_px.map_or("any size".to_string(), |side| format!("{side} px"))
}
