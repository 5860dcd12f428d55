//! A network that answers: images go in, logits come out, nothing is learned.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::VarMap;
use forebay_stages::chain::Chain;
use forebay_stages::collate::Batch;
use forebay_stages::normalize::Normalize;

use crate::error::{TrainError, compute, unknown_network};
use crate::file::FileDescription;
use crate::models::{self, Head, Network};
use crate::ops;
use crate::params::{Builder, Mode, ParamStore, Pass};
use crate::weights::{self, Strictness, WeightsReport};

/// A network, the weights that it is evaluated with, and the chain that turns an image into what it takes, in batches of
/// bounded size. There is no optimiser and no schedule: this is what validation, evaluation, ensembles and
/// export run, so that an image has the same logits everywhere.
///
/// To candle it is a [`Module`] from normalised images `[batch, 3, height, width]` to logits `[batch, classes]`, so that it
/// stands in a candle program among the pieces of `candle_nn`, and [`Predictor::var_map`] are its weights there:
///
/// ```
/// use candle_core::{D, Device, Module, Tensor};
/// use candle_nn::{Linear, Optimizer, SGD, VarMap, loss, ops, seq};
/// use forebay_stages::normalize::Normalize;
/// use forebay_train::{Predictor, TrainOptions, Trainer};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // The file that `forebay train` leaves as RUN/model.safetensors; here one of a network that has seen nothing.
/// let classes = ["cat", "dog", "owl"].map(String::from).to_vec();
/// let trained = Trainer::new(&TrainOptions::new("small", classes))?.weights(&Default::default())?;
/// let (predictor, description) = Predictor::of_run(&trained)?;
/// assert_eq!(description.classes, ["cat", "dog", "owl"]);
/// // How a file becomes pixels, and pixels the tensor: nobody has to know it by heart.
/// assert_eq!(predictor.chain().normalize(), Some(Normalize::IMAGENET));
///
/// // Its weights by torchvision's names, as `candle_nn` keeps variables.
/// let weights: VarMap = predictor.var_map();
/// assert!(weights.data().lock().unwrap().contains_key("conv1.weight"));
///
/// // Probabilities, with layers of candle after ours.
/// let images = Tensor::randn(0f32, 1.0, (5, 3, 32, 32), &Device::Cpu)?;
/// let model = seq().add(predictor).add_fn(|logits| ops::softmax(logits, D::Minus1));
/// let probabilities = model.forward(&images)?;
/// assert_eq!(probabilities.dims(), [5, 3]);
///
/// // A head of candle's own on what the network says, learned with candle's loss and optimiser.
/// let mut head = VarMap::new();
/// let variables = candle_nn::VarBuilder::from_varmap(&head, candle_core::DType::F32, &Device::Cpu);
/// let linear: Linear = candle_nn::linear(3, 2, variables.pp("head"))?;
/// let labels = Tensor::new(&[0u32, 1, 0, 1, 0], &Device::Cpu)?;
/// let mut optimizer = SGD::new(head.all_vars(), 0.5)?;
/// let loss_of = || loss::cross_entropy(&linear.forward(&probabilities)?, &labels);
/// let before = loss_of()?.to_scalar::<f32>()?;
/// optimizer.backward_step(&loss_of()?)?;
/// assert!(loss_of()?.to_scalar::<f32>()? < before);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Predictor {
    pub(crate) network: Arc<Network>,
    pub(crate) store: ParamStore,
    pub(crate) chain: Chain,
    /// Logits of an image.
    pub(crate) classes: usize,
    /// Of the activations.
    pub(crate) precision: DType,
    pub(crate) micro_batch: Option<usize>,
}

impl Predictor {
    /// The network of a file that a trainer wrote, such as RUN/model.safetensors or a checkpoint, and what the file says of
    /// it: classes, head and chain are its own. Whether its bytes are those that were written is not looked at.
    ///
    /// # Errors
    /// When no trainer wrote the file, or as [`Predictor::load`].
    pub fn of_run(file: &[u8]) -> Result<(Predictor, FileDescription), TrainError> {
        let foreign = |line: &str| TrainError::Weights(line.to_owned());
        let described = FileDescription::read(file)?;
        let described = described.ok_or_else(|| foreign("the file does not say which network it is of"))?;
        let chain = described.chain().map_err(|error| foreign(&format!("its chain: {error}")))?;
        let chain = chain.filter(|chain| chain.normalize().is_some());
        let chain = chain.ok_or_else(|| foreign("the file does not say how its images were prepared"))?;
        let (predictor, _) = Predictor::load(&described.model, &described.head, file, chain)?;
        Ok((predictor, described))
    }

    /// The network called `model` on the CPU in single precision, with the tensors of the file `weights` (safetensors, or
    /// PyTorch's `.pth` or `.bin`), which must hold all of them. `head` is what ends the network; its number of classes is
    /// that of the file. `chain` is how its images become the tensor.
    ///
    /// # Errors
    /// When the chain does not end in a tensor, no network is called so, or the file cannot be read, is of another network or lacks a tensor.
    pub fn load(
        model: &str,
        head: &Head,
        weights: &[u8],
        chain: Chain,
    ) -> Result<(Predictor, WeightsReport), TrainError> {
        if chain.normalize().is_none() {
            return Err(TrainError::Options("the chain has no mean and std: it gives no tensor".into()));
        }
        let file = weights::read(weights)?;
        let build = |classes: usize, store: &mut ParamStore| {
            models::build(model, &Head { classes, ..*head }, &mut Builder::blank(store))
                .map_err(compute("build the network"))?
                .ok_or_else(|| unknown_network(model))
        };
        // Built with one class first to know the head, whose rows in the file are the classes.
        let mut store = ParamStore::new(Device::Cpu);
        let mut network = build(1, &mut store)?;
        let matched = |network: &Network, store: &ParamStore| {
            weights::match_names(file.clone(), store, model, network.head(), Strictness::Strict)
        };
        // A head of unit vectors has no bias, and its rows are the classes too.
        let last = if head.normalized { ".weight" } else { ".bias" };
        let classes =
            matched(&network, &store)?.report.mismatched.iter().find_map(|(name, in_file, _)| {
                name.ends_with(last).then(|| in_file.first().copied()).flatten()
            });
        if let Some(classes) = classes {
            store = ParamStore::new(Device::Cpu);
            network = build(classes, &mut store)?;
        }
        let matched = matched(&network, &store)?;
        if let Some((name, there, here)) = matched.report.mismatched.first() {
            return Err(TrainError::Weights(format!("`{name}` is {there:?} in the file and {here:?} here")));
        }
        if let Some(name) = matched.report.missing.first() {
            return Err(TrainError::Weights(format!(
                "the weights lack {} tensors of {model}, the first is `{name}`",
                matched.report.missing.len()
            )));
        }
        matched.set(&store)?;
        let network = Arc::new(network);
        let classes = classes.unwrap_or(1);
        let predictor =
            Predictor { network, store, chain, classes, precision: DType::F32, micro_batch: None };
        Ok((predictor, matched.report))
    }

    /// From the original file of an image to the tensor that the network takes.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// How many logits an image has.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// What the end of the chain makes of grey levels.
    fn normalize(&self) -> Normalize {
        self.chain.normalize().expect("checked when it was made")
    }

    /// The same with at most so many images in the network at a time; `None` takes batches as they come.
    pub fn with_micro_batch(self, micro_batch: Option<usize>) -> Predictor {
        Predictor { micro_batch, ..self }
    }

    /// Logits of each image, by running statistics: one row of `classes` numbers per image. How a batch is cut changes no
    /// image's logits but for rounding.
    ///
    /// # Errors
    /// When the images are too small for the network, or the device fails.
    pub fn predict(&self, batch: &Batch) -> Result<Vec<Vec<f32>>, TrainError> {
        let side = batch.side as usize;
        self.rows(batch.len(), |rows| {
            let image = 3 * side * side;
            let images = &batch.images[rows.start * image..rows.end * image];
            let images = ops::normalize(images, (rows.len(), side), &self.normalize(), self.store.device())?;
            self.run(0..self.network.parts(), &images)
        })
    }

    /// Logits from the features `[batch, ..]` that the parts before part `first` made of images, as
    /// [`Predictor::predict`] gives them from the images.
    ///
    /// # Errors
    /// When the features are those of another network, or the device fails.
    pub fn predict_on_features(&self, features: &Tensor, first: usize) -> Result<Vec<Vec<f32>>, TrainError> {
        let n = features.dims().first().copied().unwrap_or(0);
        self.rows(n, |rows| {
            let features = features.narrow(0, rows.start, rows.len())?.to_device(self.store.device())?;
            self.run(first..self.network.parts(), &features)
        })
    }

    /// The variables of the network by torchvision's names, running statistics among them. They are the network's own: what
    /// is written to them, the predictor sees.
    pub fn var_map(&self) -> VarMap {
        let map = VarMap::new();
        let mut variables = map.data().lock().expect("nobody else has it yet");
        for (name, entry) in self.store.iter() {
            variables.insert(name.to_owned(), entry.variable().clone());
        }
        drop(variables);
        map
    }

    /// What parts of the network make of `x` in evaluation, in single precision.
    fn run(&self, parts: Range<usize>, x: &Tensor) -> candle_core::Result<Tensor> {
        let pass = Pass::new(&self.store, Mode::Evaluate);
        self.network.forward_parts(parts, &x.to_dtype(self.precision)?, &pass)?.to_dtype(DType::F32)
    }

    /// The logits of `n` rows, of which `logits` computes those of a range.
    fn rows(
        &self,
        n: usize,
        logits: impl Fn(Range<usize>) -> candle_core::Result<Tensor>,
    ) -> Result<Vec<Vec<f32>>, TrainError> {
        let mut all = Vec::with_capacity(n);
        for rows in micro_batches(n, self.micro_batch, 1) {
            let rows = logits(rows).and_then(|logits| logits.to_vec2::<f32>());
            all.extend(rows.map_err(compute("run the network forward"))?);
        }
        Ok(all)
    }
}

impl Module for Predictor {
    /// Logits `[batch, classes]` of normalised images `[batch, 3, height, width]`.
    fn forward(&self, images: &Tensor) -> candle_core::Result<Tensor> {
        let logits = |rows: Range<usize>| {
            let images = images.narrow(0, rows.start, rows.len())?;
            self.run(0..self.network.parts(), &images)
        };
        let n = images.dim(0)?;
        match micro_batches(n, self.micro_batch, 1).collect::<Vec<_>>().as_slice() {
            [] => candle_core::bail!("a batch without images has no logits"),
            [all] => logits(all.clone()),
            parts => {
                Tensor::cat(&parts.iter().cloned().map(logits).collect::<candle_core::Result<Vec<_>>>()?, 0)
            }
        }
    }
}

/// Ranges of `total` rows of nearly equal length: at most `most` each, but at least `least` where there are as many.
pub(crate) fn micro_batches(
    total: usize,
    most: Option<usize>,
    least: usize,
) -> impl Iterator<Item = Range<usize>> {
    let n = total.div_ceil(most.unwrap_or(total).max(1)).min(total / least).max(1);
    (0..n).map(move |part| part * total / n..(part + 1) * total / n).filter(|rows| !rows.is_empty())
}

#[cfg(test)]
mod tests {
    use forebay_datasets::seed::Seed;

    use super::*;
    use crate::{TrainOptions, Trainer};

    fn trainer(model: &str) -> Trainer {
        Trainer::new(&TrainOptions::new(model, ["a", "b", "c"].map(String::from).to_vec()))
            .expect("a network")
    }

    fn batch(n: usize, side: u32, seed: u64) -> Batch {
        let mut stream = Seed(seed).stream("pixels");
        let images = (0..n * 3 * (side * side) as usize).map(|_| stream.below(256) as u8).collect();
        Batch { images, labels: vec![0; n], ids: vec![], side }
    }

    #[test]
    fn how_a_batch_is_cut_changes_no_logits() {
        for model in ["small", "resnet20", "mobilenet_v3_small"] {
            let whole = trainer(model).predictor();
            for (seed, n) in [(1, 1), (2, 2), (3, 7), (4, 8)] {
                let batch = batch(n, 24, seed);
                let expected = whole.predict(&batch).expect("logits");
                assert_eq!(expected.len(), n);
                for most in 1..=n + 1 {
                    let cut = whole.clone().with_micro_batch(Some(most)).predict(&batch).expect("logits");
                    for (row, expected) in cut.iter().flatten().zip(expected.iter().flatten()) {
                        assert!(
                            (row - expected).abs() <= 1e-5 * expected.abs().max(1.0),
                            "{model} {n} {most}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_module_of_candle_gives_the_logits_that_validation_gives() {
        let predictor = trainer("resnet20").predictor().with_micro_batch(Some(2));
        let batch = batch(5, 16, 9);
        let images =
            ops::normalize(&batch.images, (5, 16), &predictor.normalize(), &Device::Cpu).expect("images");
        let logits = predictor.forward(&images).and_then(|logits| logits.to_vec2::<f32>()).expect("logits");
        assert_eq!(logits, predictor.predict(&batch).expect("logits"));
        assert!(predictor.forward(&images.narrow(0, 0, 0).expect("no image")).is_err());
    }

    #[test]
    fn a_file_gives_the_logits_of_the_trainer_that_wrote_it() {
        let trainer = trainer("resnet20_b");
        let file = trainer.weights(&Default::default()).expect("bytes");
        let chain = Chain::of_pixels(Normalize::IMAGENET);
        let loaded = Predictor::load("resnet20_b", &Head::linear(1), &file, chain);
        let (loaded, report) = loaded.expect("its own file");
        assert!(report.missing.is_empty());
        let batch = batch(3, 16, 4);
        assert_eq!(loaded.predict(&batch).expect("rows"), trainer.predictor().predict(&batch).expect("rows"));
    }

    #[test]
    fn a_file_of_a_run_needs_no_other_word() {
        let head = Head { width: Some(5), ..Head::linear(3) };
        let chain = Chain::of_pixels(Normalize { mean: [0.25; 3], std: [0.5, 0.25, 1.0] });
        let classes = ["a", "b", "c"].map(String::from).to_vec();
        let options = TrainOptions { head, chain: chain.clone(), ..TrainOptions::new("small", classes) };
        let trainer = Trainer::new(&options).expect("a network");
        let batch = batch(4, 16, 2);
        let expected = trainer.predictor().predict(&batch).expect("logits");
        for file in [trainer.weights(&Default::default()), trainer.checkpoint(&Default::default())] {
            let (loaded, described) = Predictor::of_run(&file.expect("bytes")).expect("a file of a trainer");
            assert_eq!((loaded.chain(), &described.classes), (&chain, &options.classes));
            assert_eq!(loaded.predict(&batch).expect("logits"), expected);
        }
        assert!(Predictor::of_run(b"no file").is_err());
    }

    #[test]
    fn parts_cover_every_row_once_and_none_is_too_large() {
        for total in 0..30usize {
            for most in 1..12 {
                let ranges: Vec<_> = micro_batches(total, Some(most), 1).collect();
                assert!(ranges.iter().all(|rows| (1..=most).contains(&rows.len())), "{total} {most}");
                assert_eq!(ranges.into_iter().flatten().collect::<Vec<_>>(), (0..total).collect::<Vec<_>>());
                assert!(total < 2 || micro_batches(total, Some(most), 2).all(|rows| rows.len() >= 2));
            }
        }
    }
}
