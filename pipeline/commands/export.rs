//! A trained network as an ONNX file, which other programs run without this one.

use forebay_stages::chain::Chain;
use forebay_train::models::Head;
use forebay_train::onnx::Description;
use forebay_train::{Export, FileDescription, TrainError, WeightsReport, export as write, export_ensemble};
use serde::Serialize;
use serde_json::json;

use crate::flow::{Error, Run};
use crate::model::{EnsembleFile, Model, architecture_of, chain_at, weights_of};
use crate::options::{Config, Invocation, bytes_in_words};
use crate::plan::side_of;
use crate::report::{say, say_json, warn};
use crate::train::train_error;
use crate::weights::{self, Initial};

/// What was exported.
#[derive(Clone, Debug, Serialize)]
pub struct Exported {
    /// Where the file is.
    pub output: String,
    /// The network.
    pub arch: String,
    /// Logits of an image.
    pub classes: usize,
    /// Side of the images, in pixels.
    pub size: usize,
    /// Bytes of the file.
    pub bytes: usize,
    /// What a user would want to know.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

impl std::fmt::Display for Exported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "written to {}: {}, {}\n  images [batch, 3, {size}, {size}], normalised -> logits [batch, {}]",
            self.output,
            self.arch,
            bytes_in_words(self.bytes as u64),
            self.classes,
            size = self.size,
        )
    }
}

/// Exports the model of a run, or a file of weights.
///
/// # Errors
/// [`Error::Usage`] when the source is neither, does not fit the network or the size, or the output is there already;
/// [`Error::Integrity`] when the weights are damaged; others when the output cannot be written.
pub async fn export(run: &Run, config: &Config) -> Result<Exported, Error> {
    let needed =
        |key: &str, what: &str| config.text(key).ok_or_else(|| Error::Usage(format!("export needs {what}")));
    let source = needed("export.source", "a SOURCE: a run folder, or a weights file")?;
    let output = needed("export.output", "--output FILE")?;
    let (named, settings, pool) = (source.clone(), config.clone(), run.clone());
    let opening =
        run.until_stopped(move || async move { Model::open_ensemble(&pool, &named, &settings).await });
    if let Some(model) = opening.await? {
        return ensemble(run, config, model, output).await;
    }
    let (named, place, settings) = (source.clone(), output.clone(), config.clone());
    let looking = run.until_stopped(move || async move {
        let weights = weights_of(&named, &settings).await?;
        let (target, file) =
            super::output(&settings, "--output", &place, std::slice::from_ref(&weights)).await?;
        Ok((weights, target, file))
    });
    let (weights, target, file) = looking.await?;
    let settings = config.clone();
    let reading = run.until_stopped(move || async move { weights::from(&weights, &settings).await });
    let Initial { name, bytes, wanted, chain, provenance, architecture, mut warnings } = reading.await?;
    let own = FileDescription::read(&bytes);
    if own.is_err() && name != source {
        return Err(Error::Integrity(format!("{name} is damaged: its header cannot be read")));
    }
    let own = own.ok().flatten();
    let arch = architecture_of(config.text("export.arch"), &name, own.as_ref())?;
    weights::refuse_other_network(&name, architecture.as_deref(), &arch, config)?;
    let asked = config.integer("export.size").map(|size| size as u32);
    let chain = chain_at(chain, wanted, asked, &arch);
    let size = asked.or(wanted.and_then(|wanted| wanted.side)).unwrap_or_else(|| side_of(&arch));
    let classes = own.as_ref().map(|own| own.classes.as_slice());
    let temperature = own.as_ref().and_then(FileDescription::temperature).unwrap_or(1.0);
    let what = Export {
        head: own.as_ref().map_or(Head::linear(1), |own| own.head),
        side: size as usize,
        description: describe(
            &arch,
            classes,
            size,
            chain.as_ref(),
            provenance.licence.as_deref(),
            temperature,
        ),
        arch,
    };
    let written = run.install(|| write(&what, &bytes));
    drop(bytes);
    let written = written.map_err(|error| match error {
        TrainError::File { source, .. } => {
            Error::Usage(format!("cannot read {name}: not a whole safetensors file: {source}"))
        }
        TrainError::Weights(line) | TrainError::Incomplete(line) => Error::Usage(format!("{name}: {line}")),
        TrainError::Compute { what: attempt, source } => {
            Error::Usage(format!("cannot {attempt} of {}: {source}", what.arch))
        }
        other => Error::Usage(other.to_string()),
    })?;
    let bytes = written.bytes.len();
    target.put(&file, written.bytes.into()).await?;
    let WeightsReport { unexpected, .. } = written.report;
    if let Some(first) = unexpected.first() {
        warnings.push(format!(
            "{} has no use for {} tensors of {name}, the first is `{first}`",
            what.arch,
            unexpected.len()
        ));
    }
    Ok(Exported { output, arch: what.arch, classes: written.classes, size: what.side, bytes, warnings })
}

/// Exports an ensemble.
async fn ensemble(run: &Run, config: &Config, model: Model, output: String) -> Result<Exported, Error> {
    for (key, flag) in [("export.arch", "--arch"), ("export.size", "--size")] {
        if config.is_given(key) {
            return Err(Error::Usage(format!(
                "{} is an ensemble, which decides it: leave out {flag}",
                model.place
            )));
        }
    }
    let (settings, place) = (config.clone(), output.clone());
    let inputs = vec![format!("{}/{}", model.place.trim_end_matches('/'), EnsembleFile::NAME)];
    let looking =
        run.until_stopped(move || async move { super::output(&settings, "--output", &place, &inputs).await });
    let (target, file) = looking.await?;
    let Model { classifier, architectures, warnings, .. } = model;
    let size = classifier.chain().side().expect("a model takes squares");
    let arch = format!("ensemble of {}", architectures.join(", "));
    let (classes, chain) = (classifier.classes(), classifier.chain());
    let described = describe(&arch, Some(classes), size, Some(chain), None, classifier.temperature());
    let written = run.install(|| export_ensemble(&classifier, size as usize, &described));
    let written = written.map_err(|error| train_error(&arch, error))?;
    let bytes = written.len();
    target.put(&file, written.into()).await?;
    let classes = classifier.classes().len();
    Ok(Exported { output, arch, classes, size: size as usize, bytes, warnings })
}

/// What the file says for people and, key by key, for programs. A list is JSON. Probabilities are the softmax of the logits divided
/// by `temperature`.
fn describe(
    arch: &str,
    classes: Option<&[String]>,
    size: u32,
    chain: Option<&Chain>,
    licence: Option<&str>,
    temperature: f64,
) -> Description {
    let mut properties = vec![("architecture", arch.to_owned()), ("temperature", temperature.to_string())];
    if let Some(classes) = classes {
        properties.push(("classes", json!(classes).to_string()));
    }
    let mut text = format!("{arch}: logits of RGB images of {size} x {size} pixels");
    match chain.map(Chain::properties) {
        Some(of_chain) => {
            let value = |wanted: &str| {
                of_chain.iter().find(|(key, _)| *key == wanted).map_or("", |(_, value)| value.as_str())
            };
            let (mean, std) = (value("mean"), value("std"));
            text = format!("{text}, whose values from 0 to 1 are normalised with mean {mean} and std {std}");
            properties.extend(of_chain);
        }
        None => properties.push(("size", size.to_string())),
    }
    properties.extend(licence.map(|licence| ("license", licence.to_owned())));
    let properties = properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Description { name: arch.to_owned(), text, properties }
}

/// Runs the command.
///
/// # Errors
/// The first error of the run.
pub async fn run(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let done = export(run, &asked.config).await?;
    warn(&done.warnings);
    match asked.json {
        true => say_json(&done),
        false => say(&done.to_string()),
    }
    Ok(())
}
