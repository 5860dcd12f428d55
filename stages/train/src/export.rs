//! A network with given weights as a file that other programs run without this one.

use forebay_stages::chain::Chain;
use forebay_stages::normalize::Normalize;

use crate::classifier::{Classifier, Member, NO_VOTE, Vote};
use crate::error::{TrainError, compute};
use crate::models::Head;
use crate::onnx::{Description, Graph};
use crate::params::{Mode, Pass};
use crate::predictor::Predictor;
use crate::weights::WeightsReport;

/// What is exported, besides the weights.
#[derive(Clone, Debug)]
pub struct Export {
    /// One of [`models::NAMES`](crate::models::NAMES).
    pub arch: String,
    /// What ends the network; its number of classes is that of the weights.
    pub head: Head,
    /// The side of the images, in pixels.
    pub side: usize,
    /// What the file says besides the network.
    pub description: Description,
}

/// An ONNX file, and what became of the weights.
#[derive(Clone, Debug)]
pub struct OnnxFile {
    /// The file.
    pub bytes: Vec<u8>,
    /// Logits of an image.
    pub classes: usize,
    /// Which tensors it was made of.
    pub report: WeightsReport,
}

/// The network with the tensors of the file `weights` (safetensors, or PyTorch's `.pth`) as an ONNX file:
/// `images` `[batch, 3, side, side]`, already normalised, to `logits` `[batch, classes]` as in evaluation, for any batch.
/// Norms are folded into the convolutions before them. The same input gives the same bytes.
///
/// # Errors
/// When the weights cannot be read or are not those of the network, or the images are too small for it.
pub fn export(export: &Export, weights: &[u8]) -> Result<OnnxFile, TrainError> {
    let (predictor, report) =
        Predictor::load(&export.arch, &export.head, weights, Chain::of_pixels(Normalize::UNIT))?;
    let (network, store) = (predictor.network, predictor.store);
    if export.side < network.side_min() {
        return Err(TrainError::Options(format!(
            "images of {} pixels are too small for {}, which needs {} or more; give --size",
            export.side,
            export.arch,
            network.side_min()
        )));
    }
    let mut graph = Graph::new(export.side);
    network
        .export(&Pass::new(&store, Mode::Evaluate), &mut graph)
        .map_err(compute("write the network as a graph"))?;
    let classes = graph.classes();
    let bytes = graph.into_bytes(&export.description).map_err(compute("write the graph"))?;
    Ok(OnnxFile { bytes, classes, report })
}

/// An ensemble as an ONNX file: `images` `[batch, 3, side, side]`, already normalised, to `logits` `[batch, classes]`, the
/// logarithms of the probabilities that its members agree on, as [`Classifier::logits`] gives them.
///
/// # Errors
/// When the images are too small for a member.
pub fn export_ensemble(
    classifier: &Classifier,
    side: usize,
    description: &Description,
) -> Result<Vec<u8>, TrainError> {
    let mut graph = Graph::new(side);
    let total: f64 = classifier.members().iter().map(|member| member.weight).sum();
    let mut members = Vec::new();
    for (index, Member { predictor, weight, temperature }) in classifier.members().iter().enumerate() {
        let (network, store) = (&predictor.network, &predictor.store);
        if side < network.side_min() {
            return Err(TrainError::Options(format!(
                "images of {side} pixels are too small for member {}, which needs {} or more",
                index + 1,
                network.side_min()
            )));
        }
        graph.begin_member(index + 1);
        let exported = network.export(&Pass::new(store, Mode::Evaluate), &mut graph);
        let logits = exported.and_then(|()| graph.last());
        let logits = logits.map_err(compute("write the network as a graph"))?;
        // The logits of one member are its own: what divides them is the temperature of the whole.
        let temperature = if classifier.members().len() == 1 { 1.0 } else { *temperature };
        members.push((logits, temperature as f32, (weight / total) as f32));
    }
    let soft = classifier.vote() == Vote::Soft || classifier.members().len() == 1;
    graph.vote(&members, soft, NO_VOTE as f32).map_err(compute("write the vote as a graph"))?;
    graph.into_bytes(description).map_err(compute("write the graph"))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::models;
    use crate::params::{Builder, ParamStore};
    use crate::{DeviceKind, TrainOptions, Trainer, file};

    fn exported(arch: &str, head: Head, side: usize, weights: &[u8]) -> Result<OnnxFile, String> {
        let what = Export { arch: arch.to_owned(), head, side, description: Description::default() };
        export(&what, weights).map_err(|error| error.to_string())
    }

    #[test]
    fn the_same_weights_give_the_same_bytes_and_the_classes_are_theirs() {
        let head = Head { width: Some(6), ..Head::linear(1) };
        let options = TrainOptions {
            head,
            device: DeviceKind::Cpu,
            ..TrainOptions::new("small", ["a", "b", "c"].map(str::to_owned).to_vec())
        };
        let trainer = Trainer::new(&options).expect("a network");
        let weights = trainer.weights(&Default::default()).expect("bytes");
        let file = exported("small", head, 16, &weights).expect("a file");
        assert_eq!(file.classes, 3);
        assert_eq!(file.bytes, exported("small", head, 16, &weights).expect("a file").bytes);
        assert_ne!(file.bytes, exported("small", head, 17, &weights).expect("a file").bytes);
    }

    #[test]
    fn bad_input_gets_one_line() {
        let mut store = ParamStore::new(Device::Cpu);
        models::build("inception_v3", &Head::linear(2), &mut Builder::blank(&mut store))
            .expect("memory")
            .expect("a known name");
        let tensors: Vec<_> = store.iter().map(|(name, entry)| (name.to_owned(), entry.values())).collect();
        let weights = file::encode_plain(&tensors).expect("bytes");
        let check = |arch: &str, head: Head, side: usize, weights: &[u8], expected: &str| {
            let line = exported(arch, head, side, weights).expect_err("bad input");
            assert!(line.contains(expected) && !line.contains('\n'), "{line}");
        };
        let linear = Head::linear(1);
        check(
            "inception_v3",
            linear,
            74,
            &weights,
            "74 pixels are too small for inception_v3, which needs 75",
        );
        check("resnet18", linear, 224, &weights, "its names are those of inception_v3");
        check("resnet21", linear, 224, &weights, "no network is called `resnet21`");
        check("inception_v3", linear, 299, &weights[..99], "cannot read the weights");
        let hidden = Head { width: Some(6), ..linear };
        check("inception_v3", hidden, 299, &weights, "the weights lack 4 tensors of inception_v3");
        assert_eq!(exported("inception_v3", linear, 75, &weights).map(|file| file.classes), Ok(2));
    }
}
