//! `chain.json` of a run folder: how its images became tensors, and where its weights came from.

use std::collections::BTreeMap;

use forebay_stages::augment::Augment;
use forebay_stages::chain::Chain;
use forebay_train::models::Head;
use serde::{Deserialize, Serialize};

use crate::weights::{self, Provenance};

/// What a model says of its images and of its beginning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preparation {
    /// From the original file of an image to the tensor, in evaluation.
    pub chain: Chain,
    /// What is done to training images besides.
    pub augment: Option<Augment>,
    /// The class of each logit.
    pub classes: Vec<String>,
    /// The weights that the run began with; `None` for random ones.
    pub weights: Option<Provenance>,
    /// Whether timm and transformers have this network, so that they open the folder as it is.
    pub opens_in_timm: bool,
    /// What of the chain no other program's fields can say: see [`Chain::caveats`].
    pub caveats: Vec<String>,
}

impl Preparation {
    /// What of the chain the folder cannot tell other programs, in a line.
    pub(super) fn warning(&self) -> Option<String> {
        (!self.caveats.is_empty()).then(|| {
            format!(
                "timm, transformers and ONNX readers cannot reproduce this preparation of images: {}",
                self.caveats.join("; ")
            )
        })
    }

    /// Which programs open the folder, in a line, where timm and transformers do not.
    pub(super) fn opens_in(&self, model: &str, head: &Head) -> Option<String> {
        let head = match (head.width.is_some(), head.normalized) {
            (true, _) => " with a hidden layer in its head",
            (false, true) => " with a head of unit vectors",
            (false, false) => "",
        };
        (!self.opens_in_timm).then(|| {
            format!(
                "Forebay, and by forebay export in ONNX readers, only: timm and transformers have no {model}{head}"
            )
        })
    }

    /// What a checkpoint and a model keep of it beside the chain, key by key.
    pub(super) fn to_metadata(&self) -> BTreeMap<String, String> {
        let json = |weights| serde_json::to_string(weights).expect("plain data");
        self.weights.iter().map(|weights| (weights::KEY.to_string(), json(weights))).collect()
    }
}
