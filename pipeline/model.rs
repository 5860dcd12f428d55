//! MODEL as a command takes it: a run folder, an ensemble, or a weights file, opened as one classifier.

mod ensemble;
mod of_run;
mod prior;
mod scoring;

use forebay_datasets::store::Store;
use forebay_stages::chain::{Chain, Wanted};
use forebay_train::models::{Head, NAMES};
use forebay_train::{Classifier, FileDescription, Member, Predictor, TrainError, Vote};
use serde::Serialize;

use crate::flow::{Error, Run};
use crate::hub::Reference;
use crate::options::{self, Config, store_options};
use crate::plan::{Purpose, refuse_unreached, side_of};
use crate::train::{files, train_error};
use crate::weights::{self, Initial};

pub use ensemble::{EnsembleFile, EnsembleMember};
pub use of_run::{OfRun, feed_for, viewing};
pub use scoring::{Alignment, SplitScores, score};

/// What a model was opened from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// The folder of a run.
    Run,
    /// The folder of an ensemble.
    Ensemble,
    /// A file of weights.
    Weights,
}

/// A model and what is known of it.
#[derive(Clone, Debug)]
pub struct Model {
    /// The networks, ready to answer; its temperature is that of the model.
    pub classifier: Classifier,
    /// As the user named it.
    pub place: String,
    /// What it was opened from.
    pub kind: ModelKind,
    /// The network of each member.
    pub architectures: Vec<String>,
    /// Whether its classes have names of their own, by which those of a dataset are found.
    pub names_classes: bool,
    /// The shares of the classes, with the sum 1, that its logits stand for: those it was trained on, unless its loss corrected
    /// for them; `None` where nobody knows.
    pub logit_prior: Option<Vec<f64>>,
    /// Whether its run's validation images are images that it never saw: not so where folds vote together.
    pub is_validated: bool,
    /// What a user would want to know before going on.
    pub warnings: Vec<String>,
}

impl Model {
    /// Opens MODEL where it is an ensemble; `None` where it is something else.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub async fn open_ensemble(run: &Run, place: &str, config: &Config) -> Result<Option<Model>, Error> {
        let Some(folder) = folder(place, config)? else { return Ok(None) };
        match EnsembleFile::read(&folder).await? {
            Some(file) => file.open(run, place, &folder, config).await.map(Some),
            None => Ok(None),
        }
    }

    /// Opens MODEL; `arch` names the network of a weights file that does not say it.
    ///
    /// # Errors
    /// [`Error::Usage`] when it is none of the three or does not say how its images are prepared; [`Error::Integrity`] when
    /// its bytes are damaged; others when a store fails.
    pub async fn open(run: &Run, place: &str, arch: Option<String>, config: &Config) -> Result<Model, Error> {
        if let Some(model) = Model::open_ensemble(run, place, config).await? {
            return match arch {
                Some(_) => Err(Error::Usage(format!(
                    "{place} is an ensemble, whose networks are known: leave out --arch"
                ))),
                None => Ok(model),
            };
        }
        let name = weights_of(place, config).await?;
        let kind = if name == place { ModelKind::Weights } else { ModelKind::Run };
        let one = NetworkFile::open(run, &name, arch, config).await?;
        let temperature = one.temperature.unwrap_or(1.0);
        let member = Member { predictor: one.predictor, weight: 1.0, temperature: 1.0 };
        let classifier = Classifier::new(vec![member], Vote::Soft, one.classes).expect("one sound member");
        Ok(Model {
            classifier: classifier.with_temperature(temperature),
            place: place.to_string(),
            kind,
            architectures: vec![one.architecture],
            names_classes: one.names_classes,
            logit_prior: one.logit_prior,
            is_validated: true,
            warnings: one.warnings,
        })
    }
}

/// One network of a model, and what its file says.
pub(crate) struct NetworkFile {
    pub(crate) predictor: Predictor,
    pub(crate) architecture: String,
    pub(crate) classes: Vec<String>,
    pub(crate) names_classes: bool,
    /// Fitted on validation images; `None` where that was not done.
    pub(crate) temperature: Option<f64>,
    pub(crate) logit_prior: Option<Vec<f64>>,
    pub(crate) bytes: bytes::Bytes,
    pub(crate) warnings: Vec<String>,
}

impl NetworkFile {
    /// Reads and builds the network of a file.
    pub(crate) async fn open(
        run: &Run,
        name: &str,
        arch: Option<String>,
        config: &Config,
    ) -> Result<NetworkFile, Error> {
        let Initial { bytes, wanted, chain, architecture, mut warnings, .. } =
            weights::from(name, config).await?;
        let own = FileDescription::read(&bytes);
        let own = own.map_err(|_| Error::Integrity(format!("{name} is damaged: its header cannot be read")));
        // A file of PyTorch has no header of ours.
        let own = own.ok().flatten();
        let arch = architecture_of(arch, name, own.as_ref())?;
        weights::refuse_other_network(name, architecture.as_deref(), &arch, config)?;
        if wanted.is_none_or(|wanted| wanted.normalize.is_none()) {
            warnings.push(weights::unprepared(name, config));
        }
        let wanted =
            wanted.filter(|wanted| wanted.normalize.is_some()).unwrap_or_else(|| options::wanted(config));
        let chain = chain_at(chain, Some(wanted), None, &arch).expect("it normalises");
        let head = own.as_ref().map_or(Head::linear(1), |own| own.head);
        let loaded = run.install(|| Predictor::load(&arch, &head, &bytes, chain));
        let (predictor, _) = loaded.map_err(|error| match error {
            TrainError::File { source, .. } => {
                Error::Usage(format!("cannot read {name}: no whole file of weights: {source}"))
            }
            error => train_error(&format!("load {name}"), error),
        })?;
        let outputs = predictor.classes();
        let (classes, names_classes) = match &own {
            Some(own) => (own.classes.clone(), true),
            None => ((0..outputs).map(|class| format!("class {class}")).collect(), false),
        };
        if classes.len() != outputs {
            return Err(Error::Integrity(format!(
                "{name} names {} classes, and its network has {outputs} outputs",
                classes.len()
            )));
        }
        if !names_classes {
            warnings.push(format!(
                "{name} does not name its classes: they are called class 0 to class {}",
                outputs - 1
            ));
        }
        Ok(NetworkFile {
            predictor,
            architecture: arch,
            classes,
            names_classes,
            temperature: own.as_ref().and_then(FileDescription::temperature),
            logit_prior: own.as_ref().and_then(FileDescription::logit_prior),
            bytes,
            warnings,
        })
    }
}

/// The folder that MODEL may be; `None` for what is no folder.
fn folder(place: &str, config: &Config) -> Result<Option<Store>, Error> {
    if Reference::parse(place).is_some() {
        return Ok(None);
    }
    refuse_unreached("MODEL", place, Purpose::File)?;
    let store = Store::open(place, &store_options(config))?;
    Ok(Some(store).filter(|store| store.local_root().is_none_or(|path| !path.is_file())))
}

/// The name of the weights file: the model of the run where `source` is a folder.
///
/// # Errors
/// [`Error::Usage`] when it is neither.
pub(crate) async fn weights_of(source: &str, config: &Config) -> Result<String, Error> {
    let Some(store) = folder(source, config)? else { return Ok(source.to_owned()) };
    let holds_model = store.size(files::MODEL).await?.is_some();
    match store.local_root() {
        _ if holds_model => Ok(format!("{}/{}", source.trim_end_matches('/'), files::MODEL)),
        // What else may be a file there is told when it is read.
        None => Ok(source.to_owned()),
        Some(path) if path.is_dir() => Err(Error::Usage(format!(
            "{source} holds no {}, so it is no run folder: name one, or a weights file",
            files::MODEL
        ))),
        Some(_) => Err(Error::Usage(format!("{source}: there is no such run folder or weights file"))),
    }
}

/// The network that the user names, or else the weights.
///
/// # Errors
/// [`Error::Usage`] when neither does, or they differ.
pub(crate) fn architecture_of(
    asked: Option<String>,
    name: &str,
    own: Option<&FileDescription>,
) -> Result<String, Error> {
    match (asked, own) {
        (Some(arch), Some(own)) if arch != own.model => {
            Err(Error::Usage(format!("{name} is of {}, not of {arch}; leave out --arch", own.model)))
        }
        (Some(arch), _) => Ok(arch),
        (None, Some(own)) => Ok(own.model.clone()),
        (None, None) => Err(Error::Usage(format!(
            "{name} does not say which network it is of: give --arch, one of {}",
            NAMES.join(", ")
        ))),
    }
}

/// The chain of a run, or what is known of weights, at the size that is asked for; else at their own, or that of the
/// network. `None` where it is not known how images are normalised.
pub(crate) fn chain_at(
    chain: Option<Chain>,
    wanted: Option<Wanted>,
    side: Option<u32>,
    arch: &str,
) -> Option<Chain> {
    let chain = chain.filter(|chain| side.is_none() || side == chain.side());
    chain.or_else(|| {
        let wanted = wanted.filter(|wanted| wanted.normalize.is_some())?;
        let side = side.or(wanted.side).unwrap_or_else(|| side_of(arch));
        let wanted = Wanted { side: Some(side), ..wanted };
        Some(Chain::of_files().then(&wanted).expect("files become anything").chain)
    })
}
