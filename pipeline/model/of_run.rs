//! The run that a model is of, as far as its images are concerned: where they are, how they were split, how often its test
//! images were looked at.

use forebay_datasets::store::Store;
use forebay_stages::augment::Augment;
use forebay_stages::chain::Chain;
use forebay_stages::views::Tta;

use super::{EnsembleFile, Model, ModelKind};
use crate::feed::{self, Feed, Viewing};
use crate::flow::{Error, Run};
use crate::hub::Reference;
use crate::options::{Command, Config, augment, store_options};
use crate::plan::folder_and_file;
use crate::train::{RunFolder, RunTests, files};
use crate::weights;

/// What decides which images are in which split of a source, and which of them are refused.
const SPLIT_KEYS: [&str; 12] = [
    "split.shares",
    "split.seed",
    "split.group",
    "split.group_by",
    "split.stratify",
    "split.folds",
    "split.fold",
    "decode.max_side",
    "decode.max_bytes",
    "data.layout",
    "data.image_column",
    "data.label_column",
];

/// The run of a model.
pub struct OfRun {
    /// Its folder.
    pub folder: RunFolder,
    config: Config,
    /// What was looked at of its test images.
    pub tests: RunTests,
}

impl OfRun {
    /// That of a run folder; `None` where the folder does not say what the run was.
    ///
    /// # Errors
    /// [`Error::Integrity`] when what it says cannot be read; others when the store fails.
    pub async fn read(place: &str, config: &Config) -> Result<Option<OfRun>, Error> {
        let folder = RunFolder::open(&config.clone().with("out", place))?;
        let Some(text) = folder.get(files::CONFIG).await? else { return Ok(None) };
        let text = String::from_utf8_lossy(&text).into_owned();
        let resolved = Config::resolve(Some((files::CONFIG, &text)), &[], &[]).map_err(|problems| {
            let first = problems.0.first().cloned().unwrap_or_default();
            Error::Integrity(format!(
                "{place}: it is not known what the run was trained on, and so which images it has not seen: {first}"
            ))
        })?;
        let mut tests = RunTests::read(&folder).await?;
        // Also a copy without the count is of a sealed run.
        tests.sealed |= resolved.is_on("train.seal_test");
        Ok(Some(OfRun { folder, config: resolved, tests }))
    }

    /// That of a model; `None` where nothing says what the run was. The file of a run's weights is of that run too: its test
    /// images are as sealed.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn of_model(place: &str, kind: ModelKind, config: &Config) -> Result<Option<OfRun>, Error> {
        match (kind, folder_and_file(place)) {
            (ModelKind::Run | ModelKind::Ensemble, _) => OfRun::read(place, config).await,
            (ModelKind::Weights, (folder, file))
                if (files::is_model(file) || EnsembleFile::is_member(file))
                    && Reference::parse(place).is_none() =>
            {
                OfRun::read(folder, config).await
            }
            (ModelKind::Weights, _) => Ok(None),
        }
    }

    /// Where its images are, as its user named it.
    pub fn source(&self) -> Option<String> {
        self.config.text("source")
    }

    /// Its options, with the source at `source`.
    pub fn fed_from(&self, source: &str) -> Config {
        self.config.clone().with("source", source)
    }

    /// How its training images were changed at random; `None` where they were not.
    pub fn augment(&self) -> Option<Augment> {
        let augment = augment(&self.config, &mut Vec::new())?.common();
        (!augment.is_off()).then_some(augment)
    }

    /// Whether `source` is where its images are.
    pub fn is_of(&self, source: &str, config: &Config) -> bool {
        let Some(own) = self.source() else { return false };
        let open = |place: &str| Store::open(place, &store_options(config)).ok();
        open(&own).zip(open(source)).is_some_and(|(own, source)| own.is_same_place(&source))
    }

    /// Whether another run has the same images in the same splits, so that neither trained on what the other was
    /// validated on.
    pub fn is_split_as(&self, other: &OfRun, config: &Config) -> bool {
        self.is_tested_as(other, config) && self.config.get("split.fold") == other.config.get("split.fold")
    }

    /// Whether another run has the same test images of the same source, as the folds of a cross-validation do.
    pub fn is_tested_as(&self, other: &OfRun, config: &Config) -> bool {
        other.source().is_some_and(|source| self.is_of(&source, config))
            && SPLIT_KEYS
                .iter()
                .filter(|key| **key != "split.fold")
                .all(|key| self.config.get(key) == other.config.get(key))
    }
}

/// The views that a model is asked about, as the options say: random ones are drawn by the augmentation of its run.
///
/// # Errors
/// [`Error::Usage`] when random views are asked for and the model says nothing of an augmentation; others when a store fails.
pub async fn viewing(model: &Model, config: &Config) -> Result<Viewing, Error> {
    let text = config.text("model.tta").unwrap_or_default();
    let tta: Tta = text.parse().map_err(|why| Error::Usage(format!("model.tta: {why}")))?;
    let Tta::Augmented(_) = tta else { return Ok(Viewing { tta, augment: None }) };
    let of_run = OfRun::of_model(&model.place, model.kind, config).await?;
    match of_run.and_then(|of_run| of_run.augment()) {
        Some(augment) => Ok(Viewing { tta, augment: Some(augment) }),
        None => Err(Error::Usage(format!(
            "model.tta: {tta} views are drawn by the augmentation that {} was trained with, and it says of none: give flip or \
             five-crop",
            model.place
        ))),
    }
}

/// A feed that evaluates: the images of `source` as `chain` prepares them, split as the run split them where they are its
/// own, and not split where it is another folder of images. With it come warnings.
///
/// # Errors
/// As [`feed::resolve`]; [`Error::Plan`] where the source was prepared in a way that contradicts the chain.
pub async fn feed_for(
    run: &Run,
    config: &Config,
    (source, model): (&str, &str),
    chain: &Chain,
    of_run: Option<&OfRun>,
) -> Result<(Feed, Vec<String>), Error> {
    let mut fed = config.clone().with("source", source).with("augment", "none").with("balance.mode", "none");
    match of_run {
        Some(of_run) => {
            for key in SPLIT_KEYS {
                if let Some(value) = of_run.config.get(key).filter(|_| !fed.is_given(key)) {
                    fed = fed.with(key, value.clone());
                }
            }
        }
        None => fed = fed.with("split.shares", "none"),
    }
    let fed = weights::apply_wanted(&fed, model, chain.wanted()).map_err(|error| match error {
        // The chain is that of the model, and nothing forces another one on it.
        Error::Plan(lines) => {
            Error::Plan(lines.into_iter().map(|line| line.replace(", or --force", "")).collect())
        }
        other => other,
    })?;
    let (feed, _, warnings) = feed::resolve(run, &fed, Command::Eval).await?;
    Ok((feed, warnings))
}
