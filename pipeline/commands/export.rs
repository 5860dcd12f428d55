//! A trained network as an ONNX file, which other programs run without this one.

use forebay_datasets::store::Store;
use forebay_stages::chain::{Chain, Wanted};
use forebay_train::models::{Head, NAMES};
use forebay_train::onnx::Description;
use forebay_train::{Export, FileDescription, TrainError, WeightsReport, export as write};
use serde::Serialize;
use serde_json::json;

use crate::flow::{Error, Run};
use crate::hub::Reference;
use crate::options::{Config, Invocation, bytes_in_words, store_options};
use crate::plan::{Purpose, refuse_unreached, side_of};
use crate::report::{say, say_json, warn};
use crate::train::files;
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
    let (named, place, settings) = (source.clone(), output.clone(), config.clone());
    let looking = run.until_stopped(move || async move {
        let weights = weights_of(&named, &settings).await?;
        let (target, file) = super::output(&settings, &place, std::slice::from_ref(&weights)).await?;
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
    let arch = arch(config, &name, own.as_ref())?;
    weights::refuse_other_network(&name, architecture.as_deref(), &arch, config)?;
    let asked = config.integer("export.size").map(|size| size as u32);
    let chain = chain_at(chain, wanted, asked);
    let size = asked.or(wanted.and_then(|wanted| wanted.side)).unwrap_or_else(|| side_of(&arch));
    let classes = own.as_ref().map(|own| own.classes.as_slice());
    let what = Export {
        head: own.as_ref().map_or(Head::linear(1), |own| own.head),
        side: size as usize,
        description: describe(&arch, classes, size, chain.as_ref(), provenance.licence.as_deref()),
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

/// The name of the weights file: the model of the run where `source` is a folder.
async fn weights_of(source: &str, config: &Config) -> Result<String, Error> {
    if Reference::parse(source).is_some() {
        return Ok(source.to_owned());
    }
    refuse_unreached("SOURCE", source, Purpose::File)?;
    let store = Store::open(source, &store_options(config))?;
    let local = store.local_root();
    if local.is_some_and(std::path::Path::is_file) {
        return Ok(source.to_owned());
    }
    let holds_model = store.size(files::MODEL).await?.is_some();
    match local {
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
fn arch(config: &Config, name: &str, own: Option<&FileDescription>) -> Result<String, Error> {
    match (config.text("export.arch"), own) {
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

/// The chain that the file describes: that of the run, or what is known of the weights, at the size that is asked for.
/// `None` where it is not known how images are normalised.
fn chain_at(chain: Option<Chain>, wanted: Option<Wanted>, side: Option<u32>) -> Option<Chain> {
    let chain = chain.filter(|chain| side.is_none() || side == chain.side());
    chain.or_else(|| {
        let wanted = wanted.filter(|wanted| wanted.normalize.is_some())?;
        let wanted = Wanted { side: side.or(wanted.side), ..wanted };
        Some(Chain::of_files().then(&wanted).expect("files become anything").chain)
    })
}

/// What the file says for people and, key by key, for programs. A list is JSON.
fn describe(
    arch: &str,
    classes: Option<&[String]>,
    size: u32,
    chain: Option<&Chain>,
    licence: Option<&str>,
) -> Description {
    let mut properties = vec![("architecture", arch.to_owned())];
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
