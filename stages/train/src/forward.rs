//! One pass over given images with given weights, so that anyone can compare a network with another program's.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use forebay_stages::chain::Chain;
use forebay_stages::normalize::Normalize;

use crate::error::{TrainError, compute, unreadable};
use crate::explain::grad_cam;
use crate::file;
use crate::loss::{ClassWeights, Criterion, Loss};
use crate::models::Head;
use crate::ops::Tape;
use crate::params::{Kind, Mode, Pass};
use crate::predictor::Predictor;
use crate::weights::WeightsReport;

/// What a pass computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Norms by the moments of the batch, as in a training step; otherwise by their running statistics. Dropout is off
    /// in both.
    pub train: bool,
    /// Also a heatmap of each image for its label: see [`Predictor::grad_cam`].
    pub grad_cam: bool,
    /// Also the loss and the gradient of every parameter; the input then holds labels.
    pub gradients: bool,
}

/// Runs the network called `arch` with the tensors of the file `weights` (safetensors, or PyTorch's `.pth`) over the tensors of the safetensors file
/// `input`: `input` `[batch, 3, height, width]`, already normalised, and for gradients or heatmaps `label` `[batch]`, i64 or u32.
/// Returns a safetensors file with `logits` `[batch, classes]`, and with gradients the mean cross-entropy `loss` and the
/// gradient of each parameter under `grad.` and its name, with heatmaps `grad_cam` `[batch, rows, columns]`; and what became
/// of the weights.
///
/// # Errors
/// When a file cannot be read, does not belong to the network or lacks a tensor, or a label has no logit.
pub fn forward(
    arch: &str,
    weights: &[u8],
    input: &[u8],
    what: Forward,
) -> Result<(Vec<u8>, WeightsReport), TrainError> {
    let (predictor, report) =
        Predictor::load(arch, &Head::linear(1), weights, Chain::of_pixels(Normalize::UNIT))?;
    let (_, inputs) = file::decode(input).map_err(unreadable("input"))?;
    let (network, store) = (predictor.network, predictor.store);
    let images = input_tensor(&inputs, "input")?;
    if images.dims().len() != 4 || images.dims()[1] != 3 || images.elem_count() == 0 {
        return Err(TrainError::Batch(format!(
            "`input` is {:?}: expected [batch, 3, height, width]",
            images.dims()
        )));
    }
    let images = images.to_dtype(DType::F32).map_err(compute("read the images"))?;
    let mode = if what.train || what.gradients { Mode::Train } else { Mode::Evaluate };
    let mut pass = Pass::new(&store, mode);
    if !what.train {
        pass = pass.with_fixed_norms();
    }
    let run = || network.forward(&images, &pass);
    // Without a tape nothing is kept for a backward pass.
    let (logits, tape) = if what.gradients { Tape::record(run) } else { (run(), Tape::default()) };
    let logits = logits.map_err(compute("run the network forward"))?;
    let mut output = vec![("logits".to_owned(), logits.clone())];
    if what.gradients {
        let targets = one_hot(input_tensor(&inputs, "label")?, logits.dims())?;
        let numbers = |tensor: &Tensor| tensor.flatten_all().and_then(|values| values.to_vec1::<f32>());
        let (scores, wanted) = numbers(&logits)
            .and_then(|scores| Ok((scores, numbers(&targets)?)))
            .map_err(compute("compute the loss"))?;
        let (images, classes) = (logits.dims()[0], logits.dims()[1]);
        let criterion = Criterion::new(Loss::CrossEntropy, ClassWeights::None, &vec![1.0; classes]);
        let (loss, gradient) = criterion.of_batch(&scores, &wanted, images as f64);
        let gradients = Tensor::from_vec(gradient, logits.dims(), &Device::Cpu)
            .and_then(|gradient| tape.backward(&logits, gradient, std::iter::empty()))
            .map_err(compute("run the network backward"))?;
        let loss = Tensor::new(loss as f32, &Device::Cpu).map_err(compute("write the loss"))?;
        output.push(("loss".to_owned(), loss));
        for (name, entry) in store.iter().filter(|(_, entry)| entry.kind() != Kind::Buffer) {
            let gradient = gradients.get(entry.variable()).cloned();
            let gradient = gradient.map_or_else(|| entry.values().zeros_like(), Ok);
            output.push((format!("grad.{name}"), gradient.map_err(compute("read a gradient"))?));
        }
    }
    if what.grad_cam {
        let targets = one_hot(input_tensor(&inputs, "label")?, logits.dims())?;
        let labels = targets.argmax(1).and_then(|labels| labels.to_vec1::<u32>());
        let labels: Vec<usize> =
            labels.map_err(compute("read the labels"))?.into_iter().map(|label| label as usize).collect();
        let maps = grad_cam(&network, &store, &images, &labels).map_err(compute("explain the logits"))?;
        let shape = (maps.len(), maps[0].height, maps[0].width);
        let values: Vec<f32> = maps.into_iter().flat_map(|map| map.values).collect();
        let maps = Tensor::from_vec(values, shape, &Device::Cpu).map_err(compute("explain the logits"))?;
        output.push(("grad_cam".to_owned(), maps));
    }
    let bytes = file::encode_plain(&output).map_err(compute("write the output"))?;
    Ok((bytes, report))
}

fn input_tensor<'a>(inputs: &'a BTreeMap<String, Tensor>, name: &str) -> Result<&'a Tensor, TrainError> {
    inputs.get(name).ok_or_else(|| {
        let names: Vec<&str> = inputs.keys().map(String::as_str).collect();
        TrainError::Batch(format!("the input file holds no tensor `{name}`, only {}", names.join(", ")))
    })
}

/// `[batch, classes]` from labels `[batch]`.
fn one_hot(labels: &Tensor, logits: &[usize]) -> Result<Tensor, TrainError> {
    let (batch, classes) = (logits[0], logits[1]);
    let bad = |what: String| Err(TrainError::Batch(what));
    if labels.dims() != [batch] || labels.dtype().is_float() {
        return bad(format!(
            "`label` is {:?} of {:?}: expected [{batch}] whole numbers",
            labels.dims(),
            labels.dtype()
        ));
    }
    let labels = labels.to_dtype(DType::I64).and_then(|labels| labels.to_vec1::<i64>());
    let labels = labels.map_err(compute("read the labels"))?;
    let mut targets = vec![0f32; batch * classes];
    for (image, label) in labels.into_iter().enumerate() {
        match usize::try_from(label) {
            Ok(class) if class < classes => targets[image * classes + class] = 1.0,
            _ => return bad(format!("image {image} has label {label}, but there are {classes} classes")),
        }
    }
    Tensor::from_vec(targets, (batch, classes), &Device::Cpu).map_err(compute("read the labels"))
}

#[cfg(test)]
mod tests {
    use forebay_datasets::seed::Seed;

    use super::*;
    use crate::models;
    use crate::params::{Builder, ParamStore};

    fn file(tensors: &[(&str, Tensor)]) -> Vec<u8> {
        let tensors: Vec<_> =
            tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())).collect();
        file::encode_plain(&tensors).expect("bytes")
    }

    fn weights(classes: usize) -> Vec<u8> {
        let mut store = ParamStore::new(Device::Cpu);
        models::build("resnet20", &Head::linear(classes), &mut Builder::new(&mut store, Seed(2)))
            .expect("a network");
        let tensors: Vec<_> = store.iter().map(|(name, entry)| (name, entry.values())).collect();
        file(&tensors)
    }

    fn images() -> Tensor {
        crate::ops::gradient_check::normal(&[2, 3, 9, 8], "images").to_dtype(DType::F32).expect("f32")
    }

    #[test]
    fn logits_loss_and_gradients_are_written_and_both_modes_differ() {
        let labels = Tensor::new(&[4i64, 0], &Device::Cpu).expect("labels");
        let input = file(&[("input", images()), ("label", labels)]);
        let run = |train, gradients| {
            let (bytes, _) =
                forward("resnet20", &weights(5), &input, Forward { train, gradients, grad_cam: false })
                    .expect("a pass");
            file::decode(&bytes).expect("a safetensors file").1
        };
        let (evaluated, trained) = (run(false, true), run(true, true));
        assert_eq!(evaluated["logits"].dims(), [2, 5]);
        assert_eq!(evaluated["grad.layer1.0.bn1.weight"].dims(), [16]);
        assert_eq!(evaluated.len(), trained.len());
        let loss = |tensors: &BTreeMap<String, Tensor>| tensors["loss"].to_scalar::<f32>().expect("a number");
        assert_ne!(loss(&evaluated), loss(&trained));
        let logits = |tensors: &BTreeMap<String, Tensor>| tensors["logits"].to_vec2::<f32>().expect("rows");
        let plain = run(false, false);
        assert_eq!(plain.len(), 1);
        for (fused, unfused) in logits(&plain).iter().flatten().zip(logits(&evaluated).iter().flatten()) {
            assert!((fused - unfused).abs() < 1e-5);
        }
    }

    #[test]
    fn bad_input_gets_one_line() {
        let check = |arch: &str, weights: &[u8], input: &[u8], expected: &str| {
            let what = Forward { train: false, gradients: true, grad_cam: true };
            let error = forward(arch, weights, input, what).expect_err("bad input").to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        };
        let labels = |values: &[u32]| Tensor::new(values, &Device::Cpu).expect("labels");
        let good = file(&[("input", images()), ("label", labels(&[0, 1]))]);
        check("resnet21", &weights(5), &good, "no network is called `resnet21`");
        check("resnet32", &weights(5), &good, "its names are those of resnet20");
        check("vgg11", &weights(5), &good, "another network than vgg11: its names are those of resnet20 in");
        check("resnet20", &weights(5)[..99], &good, "cannot read the weights");
        check("resnet20", &weights(5), &good[..9], "cannot read the input");
        check("resnet20", &weights(5), &file(&[("x", images())]), "holds no tensor `input`, only x");
        check("resnet20", &weights(5), &file(&[("input", images())]), "holds no tensor `label`");
        let high = file(&[("input", images()), ("label", labels(&[0, 5]))]);
        check("resnet20", &weights(5), &high, "image 1 has label 5, but there are 5 classes");
        let short = file(&[("input", images()), ("label", labels(&[0]))]);
        check("resnet20", &weights(5), &short, "`label` is [1] of U32: expected [2] whole numbers");
        let flat = file(&[("input", labels(&[1, 2])), ("label", labels(&[0, 5]))]);
        check("resnet20", &weights(5), &flat, "expected [batch, 3, height, width]");
    }
}
