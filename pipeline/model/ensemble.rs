//! The folder of an ensemble: what its members are, how they vote, and their weights beside it.

use forebay_datasets::store::Store;
use forebay_datasets::words::Words;
use forebay_train::{Classifier, Member, Vote};
use serde::{Deserialize, Serialize};

use super::{Model, ModelKind, NetworkFile};
use crate::flow::{Error, Run};
use crate::options::Config;

/// The format of [`EnsembleFile::NAME`].
const FORMAT: u32 = 1;

/// `ensemble.json`, which makes a folder an ensemble.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnsembleFile {
    /// The version of this file.
    pub format: u32,
    /// How the members decide together: `soft` or `hard`.
    pub vote: String,
    /// The class of each probability.
    pub classes: Vec<String>,
    /// What the logarithms of their joint probabilities are divided by, fitted on validation images.
    pub temperature: f64,
    /// Whether no member was trained on the validation images of the run file beside it.
    pub validated: bool,
    /// The shares of the classes that the members' logits stand for, where they are the same for all.
    pub logit_prior: Option<Vec<f64>>,
    /// The members, in the order in which they were named.
    pub members: Vec<EnsembleMember>,
}

/// A member of an ensemble.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnsembleMember {
    /// The file of its weights, in the folder of the ensemble.
    pub file: String,
    /// Where it came from, as it was named.
    pub from: String,
    /// How much it counts.
    pub weight: f64,
    /// What its logits are divided by.
    pub temperature: f64,
}

impl EnsembleFile {
    /// What the file is called.
    pub const NAME: &str = "ensemble.json";

    /// The file of a member, counted from 1.
    pub fn member_file(number: usize) -> String {
        format!("member-{number}.safetensors")
    }

    /// Whether a file is one of a member.
    pub fn is_member(name: &str) -> bool {
        let number = name.strip_prefix("member-").and_then(|rest| rest.strip_suffix(".safetensors"));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    }

    /// Reads the file of a folder; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Integrity`] when it cannot be understood; others when the store fails.
    pub async fn read(folder: &Store) -> Result<Option<EnsembleFile>, Error> {
        if folder.local_root().is_some_and(|root| !root.is_dir()) {
            return Ok(None);
        }
        let Some(bytes) = folder.find(EnsembleFile::NAME).await? else { return Ok(None) };
        let place = folder.name(EnsembleFile::NAME);
        let file: EnsembleFile = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Integrity(format!("{place} cannot be understood: {error}")))?;
        match file.format {
            FORMAT => Ok(Some(file)),
            format => Err(Error::Usage(format!(
                "{place} is of format {format}, and this version reads {FORMAT}: make the ensemble anew"
            ))),
        }
    }

    /// Opens the networks of the folder.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub(super) async fn open(
        self,
        run: &Run,
        place: &str,
        folder: &Store,
        config: &Config,
    ) -> Result<Model, Error> {
        let odd = |what: String| Error::Integrity(format!("{}: {what}", folder.name(EnsembleFile::NAME)));
        let vote = Vote::of_word(&self.vote).ok_or_else(|| odd(format!("\"{}\" is no vote", self.vote)))?;
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(odd(format!("{} is no temperature, which is a number above 0", self.temperature)));
        }
        if let Some(member) = self.members.iter().find(|member| !EnsembleFile::is_member(&member.file)) {
            return Err(odd(format!("{} is no file of a member", member.file)));
        }
        let (mut members, mut architectures, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        for member in &self.members {
            let name = format!("{}/{}", place.trim_end_matches('/'), member.file);
            let opened = NetworkFile::open(run, &name, None, config).await?;
            if opened.classes != self.classes {
                return Err(Error::Integrity(format!("{name} is of other classes than the ensemble")));
            }
            architectures.push(opened.architecture);
            warnings.extend(opened.warnings);
            members.push(Member {
                predictor: opened.predictor,
                weight: member.weight,
                temperature: member.temperature,
            });
        }
        let classifier = Classifier::new(members, vote, self.classes);
        let classifier = classifier.map_err(|line| Error::Integrity(format!("{place}: {line}")))?;
        Ok(Model {
            classifier: classifier.with_temperature(self.temperature),
            place: place.to_string(),
            kind: ModelKind::Ensemble,
            architectures,
            names_classes: true,
            logit_prior: self.logit_prior,
            is_validated: self.validated,
            warnings,
        })
    }

    /// The bytes of the file.
    pub fn to_json(&self) -> Vec<u8> {
        forebay_datasets::manifest::to_json(self)
    }

    /// One of this version.
    pub fn new(vote: Vote, classes: Vec<String>, members: Vec<EnsembleMember>) -> EnsembleFile {
        let vote = vote.name().to_string();
        EnsembleFile {
            format: FORMAT,
            vote,
            classes,
            temperature: 1.0,
            validated: false,
            logit_prior: None,
            members,
        }
    }
}
