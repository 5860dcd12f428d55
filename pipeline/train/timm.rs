//! A run folder that timm and transformers open as it is: their names for the tensors and the two JSON files that
//! they read.
//!
//! A network here has torchvision's names for its tensors. Only the header of the safetensors file is written anew: a tensor keeps its
//! bytes, and at most its shape changes, where timm has a 1x1 convolution for a linear layer.

use forebay_stages::chain::TimmFields;
use forebay_train::models;
use forebay_train::models::family::Timm;
use forebay_train::models::{Head, NetworkEnds};
use forebay_train::weights::names::{norm_epsilons, timm_layers};
use serde_json::{Map, Value, json};

use crate::train::TrainPlan;

/// How timm calls a network of ours, and what its configuration says of it.
#[derive(Clone, Copy, Debug)]
pub struct Architecture {
    /// The name in timm.
    pub name: &'static str,
    /// What timm calls its layers.
    pub timm: &'static Timm,
    /// The constant of its batch norms where timm's default is another one.
    pub batch_norm_eps: Option<f64>,
}

/// The architecture of a network by torchvision's name and its head: timm has one linear layer there. `None` for one
/// that timm lacks.
pub fn architecture(model: &str, head: &Head) -> Option<Architecture> {
    if head.width.is_some() || head.normalized {
        return None;
    }
    let (family, variant) = models::named(model)?;
    let batch_norm_eps = norm_epsilons(model, "timm").map(|(_, ours)| ours);
    Some(Architecture { name: variant.timm?, timm: family.timm.as_ref()?, batch_norm_eps })
}

/// The shape that timm has for a tensor of ours: a 1x1 convolution, or one that covers the whole map, where we
/// have a linear layer.
fn shape(timm: Option<&Timm>, theirs: &str, shape: &[u64]) -> Vec<u64> {
    let layer = theirs.strip_suffix(".weight");
    let mut convolutions = timm.iter().flat_map(|timm| timm.convolutions);
    match (convolutions.find(|(convolution, _)| layer == Some(*convolution)), shape) {
        (Some((_, side)), [out, flat]) => vec![*out, flat / (side * side), *side, *side],
        _ => shape.to_vec(),
    }
}

/// The header of a safetensors file that we wrote, and where its data begins.
fn header(bytes: &[u8]) -> (Map<String, Value>, usize) {
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header = serde_json::from_slice(&bytes[8..8 + length]).expect("our own file has a whole header");
    (header, 8 + length)
}

/// A file with this header and data; the header is padded so that the data is aligned.
fn file(header: &Map<String, Value>, data: &[&[u8]]) -> Vec<u8> {
    let mut json = serde_json::to_vec(header).expect("a header is plain data");
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json);
    data.iter().for_each(|part| bytes.extend(*part));
    bytes
}

fn offsets(tensor: &Value) -> (u64, u64) {
    let at = |index: usize| tensor["data_offsets"][index].as_u64().expect("two offsets");
    (at(0), at(1))
}

fn dims(tensor: &Value) -> Vec<u64> {
    let dims = tensor["shape"].as_array().expect("a shape");
    dims.iter().map(|dim| dim.as_u64().expect("a whole number")).collect()
}

/// Our file of weights as timm's: its names and shapes, the counters of the batch norms, and `format: pt`, without
/// which transformers opens no file. A network that timm lacks keeps our names. `steps` is what the counters say.
pub(super) fn exported(weights: &[u8], (model, head): (&str, &Head), steps: u64) -> Vec<u8> {
    let (tensors, start) = header(weights);
    let known = architecture(model, head);
    let layers = known.map(|_| timm_layers(model)).unwrap_or_default();
    let names = |name: &str| match name.rsplit_once('.').map(|(layer, tensor)| (layers.get(layer), tensor)) {
        Some((Some(layer), tensor)) => format!("{layer}.{tensor}"),
        _ => name.to_owned(),
    };
    let norms: Vec<String> = tensors
        .keys()
        .filter_map(|name| Some(format!("{}.num_batches_tracked", name.strip_suffix(".running_mean")?)))
        .collect();
    // The counters go first, where eight bytes of them are aligned whatever follows.
    let before = 8 * norms.len() as u64;
    let mut renamed = Map::new();
    for (index, name) in norms.iter().enumerate() {
        let at = 8 * index as u64;
        renamed.insert(names(name), json!({"dtype": "I64", "shape": [], "data_offsets": [at, at + 8]}));
    }
    for (name, tensor) in &tensors {
        if name == "__metadata__" {
            let mut metadata = tensor.clone();
            metadata["format"] = "pt".into();
            renamed.insert(name.clone(), metadata);
            continue;
        }
        let theirs = names(name);
        let (from, to) = offsets(tensor);
        let tensor = json!({
            "dtype": tensor["dtype"], "shape": shape(known.map(|known| known.timm), &theirs, &dims(tensor)),
            "data_offsets": [from + before, to + before],
        });
        renamed.insert(theirs, tensor);
    }
    let counters: Vec<u8> = norms.iter().flat_map(|_| (steps as i64).to_le_bytes()).collect();
    file(&renamed, &[&counters, &weights[start..]])
}

/// How an image becomes the tensor that the model takes, in timm's words.
fn preprocessing(plan: &TrainPlan) -> TimmFields {
    plan.preparation.chain.timm().expect("a feed's chain ends in a tensor")
}

/// `config.json`: timm's keys and those of transformers' `TimmWrapperForImageClassification`. `ends` are those of the
/// network, whose layers have our names in the folder where timm lacks it.
pub(super) fn config(plan: &TrainPlan, ends: NetworkEnds) -> Value {
    let (classes, model) = (&plan.options.classes, plan.options.model.as_str());
    let architecture = architecture(model, &plan.options.head);
    let NetworkEnds { first_convolution, classifier, features } = ends;
    let (first_conv, classifier) = match architecture {
        Some(Architecture { timm, .. }) => (timm.first_conv.to_owned(), timm.classifier.to_owned()),
        None => (first_convolution, classifier),
    };
    let mut cfg = serde_json::to_value(preprocessing(plan)).expect("plain data");
    let known = cfg.as_object_mut().expect("an object");
    known.insert("num_classes".into(), classes.len().into());
    known.insert("first_conv".into(), first_conv.into());
    known.insert("classifier".into(), classifier.into());
    known.insert("tag".into(), "forebay".into());
    known.insert("custom_load".into(), false.into());
    let preparation = &plan.preparation;
    if let Some(licence) = preparation.weights.as_ref().and_then(|weights| weights.licence.as_deref()) {
        known.insert("license".into(), licence.into());
    }
    let eps = architecture.and_then(|architecture| architecture.batch_norm_eps);
    let id2label: Map<String, Value> =
        classes.iter().enumerate().map(|(id, name)| (id.to_string(), name.as_str().into())).collect();
    let label2id: Map<String, Value> =
        classes.iter().enumerate().map(|(id, name)| (name.clone(), id.into())).collect();
    let mut config = json!({
        "architecture": architecture.map_or_else(|| format!("forebay_{model}"), |a| a.name.to_owned()),
        "num_classes": classes.len(),
        "num_features": features,
        "global_pool": "avg",
        "label_names": classes,
        "model_args": eps.map_or_else(|| json!({}), |eps| json!({"bn_eps": eps})),
        "pretrained_cfg": cfg,
    });
    let ours = config.as_object_mut().expect("an object");
    if !preparation.caveats.is_empty() {
        ours.insert("forebay_caveats".into(), json!(preparation.caveats));
    }
    if architecture.is_none() {
        ours.insert("forebay_opens_in".into(), json!(["forebay", "onnx"]));
    } else {
        ours.insert("architectures".into(), json!(["TimmWrapperForImageClassification"]));
        ours.insert("model_type".into(), "timm_wrapper".into());
        ours.insert("id2label".into(), id2label.into());
        ours.insert("label2id".into(), label2id.into());
        ours.insert("torch_dtype".into(), "float32".into());
    }
    config
}

/// `preprocessor_config.json`, as transformers reads it.
pub(super) fn preprocessor(plan: &TrainPlan, config: &Value) -> Value {
    json!({
        "image_processor_type": "TimmWrapperImageProcessor",
        "architecture": config["architecture"],
        "data_config": serde_json::to_value(preprocessing(plan)).expect("plain data"),
        "pretrained_cfg": config["pretrained_cfg"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of f32 tensors.
    fn weights(tensors: &[(&str, &[u64])]) -> Vec<u8> {
        let mut header = Map::from_iter([("__metadata__".to_string(), json!({"forebay": "{}"}))]);
        let mut data: Vec<u8> = Vec::new();
        for (index, (name, dims)) in tensors.iter().enumerate() {
            let from = data.len();
            data.extend(
                std::iter::repeat_n(index as f32, dims.iter().product::<u64>() as usize)
                    .flat_map(f32::to_le_bytes),
            );
            header.insert(
                name.to_string(),
                json!({"dtype": "F32", "shape": dims, "data_offsets": [from, data.len()]}),
            );
        }
        file(&header, &[&data])
    }

    #[test]
    fn tensors_keep_their_bytes_under_the_names_of_timm() {
        let ours = weights(&[
            ("classifier.0.weight", &[2, 512 * 49]),
            ("classifier.6.bias", &[3]),
            ("features.1.running_mean", &[5]),
        ]);
        let theirs = exported(&ours, ("vgg11_bn", &Head::linear(3)), 7);
        let (tensors, start) = header(&theirs);
        assert_eq!(dims(&tensors["pre_logits.fc1.weight"]), [2, 512, 7, 7]);
        assert_eq!(tensors["__metadata__"]["format"], "pt");
        let (from, to) = offsets(&tensors["features.1.num_batches_tracked"]);
        assert_eq!(theirs[start + from as usize..start + to as usize], 7i64.to_le_bytes());
        let values = |name: &str| {
            let (from, to) = offsets(&tensors[name]);
            theirs[start + from as usize..start + to as usize].to_vec()
        };
        assert_eq!(values("head.fc.bias"), [1f32; 3].map(f32::to_le_bytes).concat());
        assert_eq!(values("features.1.running_mean"), [2f32; 5].map(f32::to_le_bytes).concat());
    }
}
