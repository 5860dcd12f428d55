//! Initial weights: where they come from, and what they ask of the images.
//!
//! Pretrained weights know images that were resized, cropped and normalised in one certain way. That way belongs
//! to the weights, so that a run takes it from them, and asks before it does something else.

mod provenance;
pub(crate) mod seal;

use bytes::Bytes;
use forebay_datasets::store::Store;
use forebay_datasets::words::Words;
use forebay_stages::chain::{Chain, Described, Wanted};
use forebay_train::weights::golden::{
    ChannelStatistics, entropy_complaint, entropy_share, loss_complaint, mean_loss,
};
use forebay_train::weights::names;
use forebay_train::weights::registry::{self, KnownWeights};
use forebay_train::{FileDescription, Trainer};
use serde_json::Value;

pub use self::provenance::{KEY, Provenance};

use crate::flow::Error;
use crate::hub::{self, Cached, Hub, Reference};
use crate::options;
use crate::options::{Background, Config, bytes_in_words};
use crate::plan::{Purpose, file_key, folder_and_file, gather, refuse_unreached};

/// A weights file and what is known about it.
#[derive(Clone, Debug)]
pub struct Initial {
    /// As the user named it.
    pub name: String,
    /// The file.
    pub bytes: Bytes,
    /// What it asks of the preparation of images, where anything is known.
    pub wanted: Option<Wanted>,
    /// The whole chain of its images, where a run of this program wrote it.
    pub chain: Option<Chain>,
    /// Where it is from.
    pub provenance: Provenance,
    /// The network that the description beside the file says it is of, in timm's words.
    pub architecture: Option<String>,
    /// What a user would want to know before going on.
    pub warnings: Vec<String>,
}

/// What is wrong with the name of the weights, a line each: nothing is opened.
///
/// # Errors
/// When the name is of a place that cannot be reached, whatever is there.
pub fn problems(config: &Config) -> Result<Vec<String>, Error> {
    let mut problems = Vec::new();
    if let Some(name) = config.text("train.weights") {
        let place = || {
            refuse_unreached("--weights", &name, Purpose::File)?;
            Ok(Store::open(folder_and_file(&name).0, &options::store_options(config)).map(drop)?)
        };
        let found = match Reference::parse(&name) {
            Some(reference) => reference.map(drop),
            None => place(),
        };
        gather(found, &mut problems)?;
    }
    Ok(problems)
}

/// Reads the file that `train.weights` names, if it names one: a path, a URL, or `hf:OWNER/NAME`.
///
/// # Errors
/// When it cannot be read, is not the file that its name promises, or is of a network that no network here is.
pub async fn read(config: &Config) -> Result<Option<Initial>, Error> {
    let Some(name) = config.text("train.weights") else { return Ok(None) };
    let mut initial = from(&name, config).await?;
    let model = config.text("train.arch").unwrap_or_default();
    refuse_other_network(&name, initial.architecture.as_deref(), &model, config)?;
    if initial.wanted.is_none() {
        initial.warnings.push(unprepared(&name, config));
    }
    Ok(Some(initial))
}

/// That nothing is known of the preparation of images but what the options say.
pub(crate) fn unprepared(name: &str, config: &Config) -> String {
    format!(
        "nothing tells how the images of {name} were prepared: --mean and --std are {}, and no margin is cut off \
         (--crop-pct). Wrong ones cost accuracy without an error; look them up where the weights are from",
        if config.is_given("train.mean") { "as given" } else { "ImageNet's" }
    )
}

/// Reads the file of this name: a path, a URL, or `hf:OWNER/NAME`.
///
/// # Errors
/// As [`read`].
pub async fn from(name: &str, config: &Config) -> Result<Initial, Error> {
    let mut initial = match Reference::parse(name) {
        Some(reference) => from_hub(name, &reference?, config).await?,
        None => from_place(name, config).await?,
    };
    refuse_damaged(name, &initial.bytes)?;
    inherit(&mut initial);
    Ok(initial)
}

/// Takes from the file what a run of this program wrote into it: the chain of its images, and the licence of the
/// weights that it began with.
fn inherit(initial: &mut Initial) {
    let Some(own) = FileDescription::read(&initial.bytes).ok().flatten() else { return };
    match own.chain() {
        Ok(None) => {}
        Ok(Some(chain)) => {
            initial.wanted = Some(chain.wanted());
            let caveats = chain.caveats().into_iter();
            initial
                .warnings
                .extend(caveats.map(|caveat| format!("{} was trained so: {caveat}", initial.name)));
            initial.chain = Some(chain);
        }
        Err(error) => initial.warnings.push(format!(
            "{} says nothing that is understood of how its images were prepared: {error}",
            initial.name
        )),
    }
    let before = own.metadata.get(KEY).and_then(|json| serde_json::from_str::<Provenance>(json).ok());
    if initial.provenance.licence.is_none() {
        initial.provenance.licence = before.and_then(|before| before.licence);
    }
}

/// Refuses a file of a run whose bytes are not those that its checksum was made of: whoever takes weights asks this.
///
/// # Errors
/// [`Error::Integrity`] with the name of the file.
pub(crate) fn refuse_damaged(name: &str, bytes: &[u8]) -> Result<(), Error> {
    match seal::is_sealed(bytes).then(|| seal::check(bytes)) {
        Some(Err(damage)) => Err(Error::Integrity(format!("{name} is damaged: {damage}"))),
        _ => Ok(()),
    }
}

/// Refuses weights of a network that is not `model`, by what the description beside them calls it.
///
/// # Errors
/// [`Error::Usage`] with both names, unless `--force` is given.
pub(crate) fn refuse_other_network(
    name: &str,
    architecture: Option<&str>,
    model: &str,
    config: &Config,
) -> Result<(), Error> {
    let Some(architecture) = architecture.filter(|_| !config.is_on("force")) else { return Ok(()) };
    match names::of_architecture(architecture) {
        Some(found) if found == model => Ok(()),
        Some(found) => Err(Error::Usage(format!(
            "{name}: its {} says that it is of {found}, not of {model}: choose that network, or --force",
            hub::CONFIGS[0]
        ))),
        None => Err(Error::Usage(format!(
            "{name}: its {} says that it is of {architecture}, which is no network here: take weights of {model}, or \
             --force to take what fits",
            hub::CONFIGS[0]
        ))),
    }
}

/// A note on what may be done with weights of this entry.
fn licence_warning(known: &KnownWeights) -> Option<String> {
    known
        .is_non_commercial()
        .then(|| format!("the licence of {} is {}, which forbids commercial use", known.id, known.licence))
}

async fn from_place(name: &str, config: &Config) -> Result<Initial, Error> {
    let (folder, file) = folder_and_file(name);
    let file = &*file_key(name, file);
    let store = Store::open(folder, &options::store_options(config))?;
    if store.local_root().is_some_and(|root| root.join(file).is_dir()) {
        return Err(Error::Usage(format!(
            "{name} is a folder: give the file of its weights, such as {}/{}",
            name.trim_end_matches('/'),
            hub::WEIGHTS[0]
        )));
    }
    let bytes = store.get(file).await.map_err(|error| Error::Usage(error.to_string()))?;
    let known = registry::by_file(file);
    let digest = hub::sha256(&bytes);
    if let Some(promised) = known.and_then(|known| registry::promised_digest(known.file))
        && !digest.starts_with(promised)
    {
        return Err(Error::Integrity(format!(
            "{name}: its SHA-256 begins with {}, and its name promises {promised}: download it again",
            &digest[..promised.len()]
        )));
    }
    // A folder of a hub's repository, or of a run, has the description beside the weights.
    let mut configs = [None, None];
    if hub::WEIGHTS.contains(&file) {
        for (index, beside) in hub::CONFIGS.into_iter().enumerate() {
            let bytes = store.size(beside).await?;
            bytes.map_or(Ok(()), |bytes| refuse_large(name, beside, bytes))?;
            if let Some(bytes) = store.find(beside).await? {
                configs[index] = Some(description(&store.name(beside), &bytes)?);
            }
        }
    }
    let mut warnings: Vec<String> = known.and_then(licence_warning).into_iter().collect();
    Ok(Initial {
        name: name.to_string(),
        architecture: architecture(&configs),
        wanted: wanted(name, &configs, known, config, &mut warnings)?,
        chain: None,
        provenance: Provenance {
            file: file.to_string(),
            sha256: digest,
            repository: None,
            commit: None,
            known_as: known.map(|known| known.id.to_string()),
            licence: known.map(|known| known.licence.to_string()),
        },
        bytes,
        warnings,
    })
}

async fn from_hub(name: &str, reference: &Reference, config: &Config) -> Result<Initial, Error> {
    let mut hub = Hub::from_environment();
    if config.is_on("store.anonymous") {
        hub = hub.without_token();
    }
    let names: Vec<&str> = match &reference.file {
        Some(file) => vec![file.as_str()],
        None => hub::WEIGHTS.to_vec(),
    };
    let cached = hub.find(reference, &names).await?;
    let bytes = std::fs::read(&cached.path)
        .map_err(|error| Error::failed(format!("read {}", cached.path.display()), error))?;
    let digest = hub::sha256(&bytes);
    // The cache names a large file by its SHA-256.
    let blob = std::fs::canonicalize(&cached.path).ok();
    let blob = blob.as_deref().and_then(|blob| blob.file_name()?.to_str()).unwrap_or_default();
    if blob.len() == digest.len() && blob.bytes().all(|byte| byte.is_ascii_hexdigit()) && blob != digest {
        return Err(Error::Integrity(format!(
            "{name}: {} in the cache is not what it was when it was downloaded: delete it, and it is downloaded again",
            cached.path.display()
        )));
    }
    let mut configs = [None, None];
    for (index, beside) in hub::CONFIGS.into_iter().enumerate() {
        // A timm repository needs the first only.
        let is_needed = index == 0 || described(name, &configs, config)?.is_none();
        let found = if is_needed { hub.find_beside(reference, &cached.commit, beside).await? } else { None };
        if let Some(Cached { path, .. }) = found {
            let place = path.display().to_string();
            refuse_large(name, beside, std::fs::metadata(&path).map_or(0, |file| file.len()))?;
            let bytes =
                std::fs::read(&path).map_err(|error| Error::failed(format!("read {place}"), error))?;
            configs[index] = Some(description(&place, &bytes)?);
        }
    }
    let known = registry::by_id(&reference.repository);
    let mut warnings: Vec<String> = known.and_then(licence_warning).into_iter().collect();
    Ok(Initial {
        name: name.to_string(),
        architecture: architecture(&configs),
        wanted: wanted(name, &configs, known, config, &mut warnings)?,
        chain: None,
        provenance: Provenance {
            file: cached.name,
            sha256: digest,
            repository: Some(reference.repository.clone()),
            commit: Some(cached.commit),
            known_as: known.map(|known| known.id.to_string()),
            licence: known.map(|known| known.licence.to_string()),
        },
        bytes: bytes.into(),
        warnings,
    })
}

/// Bytes of a file that describes a network: one with the names of 22,000 classes has 2 MB.
const DESCRIPTION_BYTES_MAX: u64 = 16 << 20;

/// Refuses a description that is too long for one, before it is read.
fn refuse_large(name: &str, beside: &str, bytes: u64) -> Result<(), Error> {
    match bytes > DESCRIPTION_BYTES_MAX {
        true => Err(Error::Usage(format!(
            "{name}: the {beside} beside it has {}, which no description of a network has: take it away, or download it \
             again",
            bytes_in_words(bytes)
        ))),
        false => Ok(()),
    }
}

/// Reads a description of weights. One that is there and cannot be read is no description that is missing.
fn description(place: &str, bytes: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::Usage(format!(
            "{place} is no JSON ({error}): it says how the images of the weights are prepared, so that it is not left \
             out; get it anew, or move it away"
        ))
    })
}

/// What weights ask of images: what the files beside them say, else what is known of them. What of the files is not
/// understood becomes a warning.
fn wanted(
    name: &str,
    configs: &[Option<Value>; 2],
    known: Option<&KnownWeights>,
    config: &Config,
    warnings: &mut Vec<String>,
) -> Result<Option<Wanted>, Error> {
    let Some(Described { wanted, unknown }) = described(name, configs, config)? else {
        return Ok(known.map(|known| known.preprocessing.wanted()));
    };
    warnings.extend(unknown.into_iter().map(|line| {
        format!(
            "what is said beside {name} of its images is not all understood, and that is left out: {line}"
        )
    }));
    Ok(Some(wanted))
}

/// What timm calls the network, by `config.json`.
fn architecture([network, _]: &[Option<Value>; 2]) -> Option<String> {
    network.as_ref()?.get("architecture")?.as_str().map(str::to_owned)
}

/// How the images of a repository were prepared, by its `config.json` and `preprocessor_config.json`.
///
/// # Errors
/// [`Error::Usage`] when the configuration is of a network that computes something else than the one of the same
/// names here, which no name or shape of a tensor tells.
fn described(
    name: &str,
    [network, images]: &[Option<Value>; 2],
    config: &Config,
) -> Result<Option<Described>, Error> {
    let Some(network) = network else {
        return Ok(images.as_ref().and_then(Described::from_transformers));
    };
    let is_true = |key: &str| network.get(key).and_then(Value::as_bool).unwrap_or(false);
    let architecture = network.get("architecture").and_then(Value::as_str).unwrap_or_default();
    let problem = if architecture.starts_with("tf_") || is_true("tf_padding") {
        Some("pads as TensorFlow does, with more at the right and bottom than at the left and top")
    } else if is_true("downsample_in_bottleneck") {
        Some("halves its planes in the first layer of a block, and torchvision's in the second")
    } else {
        None
    };
    match problem {
        Some(problem) if !config.is_on("force") => Err(Error::Usage(format!(
            "{name}: the network {problem}, so that its weights would compute something else here; take other \
             weights, or --force to fine-tune them all the same"
        ))),
        _ => {
            Ok(Described::from_timm(network)
                .or_else(|| images.as_ref().and_then(Described::from_transformers)))
        }
    }
}

/// The options of a run whose images are prepared as the weights want it. Where the user asks for something else,
/// `--force` lets that stand.
///
/// # Errors
/// [`Error::Plan`] with one line per option that contradicts the weights.
pub fn apply(config: &Config, initial: &Initial) -> Result<Config, Error> {
    match initial.wanted {
        Some(wanted) => apply_wanted(config, &initial.name, wanted),
        None => Ok(config.clone()),
    }
}

/// [`apply`], of what is wanted of images by what is called `name`.
///
/// # Errors
/// As [`apply`].
pub fn apply_wanted(config: &Config, name: &str, wanted: Wanted) -> Result<Config, Error> {
    let given = options::wanted(config);
    let equal = |a: [f32; 3], b: [f32; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3);
    let triple = |values: [f32; 3]| {
        // The shortest digits that give the same number.
        let digits = values.map(|value| value.to_string().parse::<f64>().expect("a number was printed"));
        toml::Value::Array(digits.map(toml::Value::Float).to_vec())
    };
    let normalize = given.normalize.unwrap_or_default();
    let crops = given.crop_pct.zip(wanted.crop_pct);
    let background = |color| Background::of_color(color).map(|background| background.name());
    let fields: [(&'static str, bool, Option<toml::Value>); 7] = [
        ("resize.size", given.side == wanted.side, wanted.side.map(|side| i64::from(side).into())),
        ("resize.fit", given.fit == wanted.fit, wanted.fit.map(|fit| fit.to_string().into())),
        (
            "resize.crop_pct",
            crops.is_some_and(|(given, wanted)| (given - wanted).abs() < 1e-3),
            wanted.crop_pct.map(Into::into),
        ),
        (
            "resize.filter",
            given.filter == wanted.filter,
            wanted.filter.map(|filter| filter.to_string().into()),
        ),
        (
            "decode.background",
            given.background == wanted.background,
            wanted.background.and_then(background).map(Into::into),
        ),
        (
            "train.mean",
            wanted.normalize.is_some_and(|wanted| equal(normalize.mean, wanted.mean)),
            wanted.normalize.map(|wanted| triple(wanted.mean)),
        ),
        (
            "train.std",
            wanted.normalize.is_some_and(|wanted| equal(normalize.std, wanted.std)),
            wanted.normalize.map(|wanted| triple(wanted.std)),
        ),
    ];
    let mut problems = Vec::new();
    let mut applied = config.clone();
    for (key, agrees, value) in fields {
        let Some(value) = value else { continue };
        match config.is_given(key) {
            false => applied = applied.with(key, value),
            true if agrees || config.is_on("force") => {}
            true => {
                let given = config.get(key).expect("it is given");
                problems.push(format!(
                    "{key}: {given} contradicts {name}, which was trained with {value}; leave it out, or --force"
                ));
            }
        }
    }
    if problems.is_empty() { Ok(applied) } else { Err(Error::Plan(problems)) }
}

/// What looks wrong about the first batch of a run with pretrained weights, in a sentence each. `classifies` says
/// that the classifier is a pretrained one too.
pub fn complaints(
    trainer: &Trainer,
    batch: &forebay_stages::collate::Batch,
    classifies: bool,
) -> Vec<String> {
    let predictor = trainer.predictor();
    let normalize = predictor.chain().normalize();
    let statistics =
        normalize.and_then(|normalize| ChannelStatistics::of(&batch.images, batch.side, &normalize));
    let input = statistics.and_then(|statistics| statistics.complaint());
    let logits = if classifies { predictor.predict(batch).ok() } else { None };
    let of_classifier = logits.and_then(|logits| {
        let loss = mean_loss(&logits, &batch.labels);
        // Who is sure of what is wrong has little entropy, and who knows nothing has about the loss of guessing.
        let worse = loss.and_then(|loss| loss_complaint(loss, logits.first()?.len()));
        worse.or_else(|| entropy_share(&logits).and_then(entropy_complaint))
    });
    input.into_iter().chain(of_classifier).collect()
}

#[cfg(test)]
mod tests {
    use forebay_stages::resize::Filter;
    use serde_json::json;

    use super::*;
    use crate::options::{Command, Facts};

    fn config(flags: &[(&'static str, &str)]) -> Config {
        let flags: Vec<_> = flags.iter().map(|(key, text)| (*key, text.to_string())).collect();
        Config::resolve(None, &[], &flags).expect("sound options")
    }

    fn initial(wanted: Option<Wanted>) -> Initial {
        let (name, bytes) = ("w.pth".to_string(), Bytes::new());
        let provenance = Provenance {
            file: name.clone(),
            sha256: String::new(),
            repository: None,
            commit: None,
            known_as: None,
            licence: None,
        };
        Initial { name, bytes, wanted, architecture: None, chain: None, provenance, warnings: Vec::new() }
    }

    #[test]
    fn the_weights_decide_what_the_user_does_not() {
        let known = registry::by_id("timm/resnet34.ra4_e3600_r224_in1k").expect("it is known");
        let applied =
            apply(&config(&[]), &initial(Some(known.preprocessing.wanted()))).expect("no contradiction");
        assert_eq!(applied.integer("resize.size"), Some(224));
        assert_eq!(applied.number("resize.crop_pct"), Some(0.9));
        assert_eq!(applied.choice::<Filter>("resize.filter"), Filter::Bicubic);
        assert_eq!(applied.numbers("train.mean"), Some(vec![0.5; 3]));
        assert_eq!(options::wanted(&applied).normalize.map(|normalize| normalize.std), Some([0.5; 3]));
        // The resolved run file gives the same options, and says nothing that contradicts the weights.
        let toml = |config: &Config| config.to_toml(Command::Train, &Facts::default());
        let again = Config::resolve(Some(("run.toml", &toml(&applied))), &[], &[]).expect("its own text");
        let same = apply(&again, &initial(Some(known.preprocessing.wanted()))).expect("the same");
        assert_eq!(toml(&same), toml(&applied));
        let unknown = apply(&config(&[]), &initial(None)).expect("nothing is known");
        assert_eq!(unknown, config(&[]));
    }

    #[test]
    fn every_contradiction_is_named_and_force_lets_it_stand() {
        let flags = [
            ("resize.size", "64"),
            ("resize.crop_pct", "1.0"),
            ("resize.filter", "bicubic"),
            ("train.mean", "0.5,0.5,0.5"),
            ("train.std", "imagenet"),
        ];
        let weights = initial(Some(registry::Preprocessing::IMAGENET.wanted()));
        let Err(Error::Plan(problems)) = apply(&config(&flags), &weights) else { panic!("it contradicts") };
        let keys: Vec<&str> = problems.iter().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(keys, ["resize.size", "resize.crop_pct", "resize.filter", "train.mean"]);
        assert_eq!(
            problems[0],
            "resize.size: 64 contradicts w.pth, which was trained with 224; leave it out, or --force"
        );
        let forced = config(&[flags.as_slice(), &[("force", "true")]].concat());
        // What is not given is still that of the weights.
        let expected = forced.clone().with("resize.fit", "crop");
        assert_eq!(apply(&forced, &weights).expect("forced"), expected);
    }

    #[test]
    fn weights_whose_description_names_another_network_are_refused_unless_forced() {
        let check = |architecture: Option<&str>, model: &str, flags: &[(&'static str, &str)]| {
            refuse_other_network("hf:a/b", architecture, model, &config(flags))
                .map_err(|error| error.to_string())
        };
        for (architecture, model) in [
            ("resnet50", "resnet50"),
            ("mobilenetv2_100", "mobilenet_v2"),
            ("forebay_small", "small"),
            ("small", "small"),
        ] {
            assert_eq!(check(Some(architecture), model, &[]), Ok(()));
        }
        assert_eq!(check(None, "resnet50", &[]), Ok(()));
        for (architecture, model, words) in [
            ("resnet101", "resnet50", "is of resnet101, not of resnet50"),
            ("mobilenetv2_100", "efficientnet_b0", "is of mobilenet_v2, not of efficientnet_b0"),
            ("efficientnet_b1", "efficientnet_b0", "is of efficientnet_b1, which is no network here"),
            ("resnet50d", "resnet50", "is of resnet50d, which is no network here"),
        ] {
            let line = check(Some(architecture), model, &[]).expect_err("another network");
            assert!(line.contains(words), "{line}");
            assert_eq!(check(Some(architecture), model, &[("force", "true")]), Ok(()));
        }
    }

    #[test]
    fn networks_that_only_share_names_are_refused() {
        let check = |network: Value, flags: &[(&'static str, &str)]| {
            described("hf:a/b", &[Some(network), None], &config(flags))
        };
        for network in [
            json!({"architecture": "tf_mobilenetv3_large_100"}),
            json!({"model_type": "mobilenet_v2", "tf_padding": true}),
            json!({"model_type": "resnet", "downsample_in_bottleneck": true}),
        ] {
            assert!(matches!(check(network.clone(), &[]), Err(Error::Usage(_))), "{network}");
            assert!(check(network, &[("force", "true")]).is_ok());
        }
        let sound = json!({"architecture": "resnet50", "pretrained_cfg": {"input_size": [3, 160, 160],
            "crop_pct": 0.95, "interpolation": "bicubic", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}});
        let found = check(sound, &[]).expect("sound").expect("described");
        assert_eq!((found.wanted.side, found.wanted.crop_pct), (Some(160), Some(0.95)));
        assert_eq!(found.unknown, [""; 0]);
    }
}
