//! Initial weights: where they come from, and what they ask of the images.
//!
//! Pretrained weights know images that were resized, cropped and normalised in one certain way. That way belongs
//! to the weights, so that a run takes it from them, and asks before it does something else.

use bytes::Bytes;
use forebay_datasets::store::Store;
use forebay_datasets::words::Words;
use forebay_stages::resize::Filter;
use forebay_train::Trainer;
use forebay_train::weights::golden::{ChannelStatistics, entropy_complaint, entropy_share};
use forebay_train::weights::registry::{self, KnownWeights, Preprocessing};
use serde_json::{Value, json};

use crate::flow::Error;
use crate::hub::{self, Hub, Reference};
use crate::options;
use crate::options::Config;

/// A weights file and what is known about it.
#[derive(Clone, Debug)]
pub struct Initial {
    /// As the user named it.
    pub name: String,
    /// The file.
    pub bytes: Bytes,
    /// How its images were prepared, where that is known.
    pub preprocessing: Option<Preprocessing>,
    /// What the run keeps: file, SHA-256, commit of a repository, licence.
    pub record: Value,
    /// What a user would want to know before going on.
    pub warnings: Vec<String>,
}

/// Reads the file that `train.weights` names, if it names one: a path, a URL, or `hf:OWNER/NAME`.
///
/// # Errors
/// When it cannot be read, is not the file that its name promises, or is of a network that no network here is.
pub async fn read(config: &Config) -> Result<Option<Initial>, Error> {
    let Some(name) = config.text("train.weights") else { return Ok(None) };
    let mut initial = from(&name, config).await?;
    if initial.preprocessing.is_none() {
        initial.warnings.push(format!(
            "nothing tells how the images of {name} were prepared: --mean and --std are {}, and no margin is cut \
             off (--crop-pct). Wrong ones cost accuracy without an error; look them up where the weights are from",
            if config.is_given("train.mean") { "as given" } else { "ImageNet's" }
        ));
    }
    Ok(Some(initial))
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
    // What a run of this program wrote says how it prepared its images.
    let own = Trainer::describe(&initial.bytes).ok().flatten();
    let chain = own.and_then(|own| serde_json::from_str::<Value>(own.metadata.get("chain")?).ok());
    initial.preprocessing =
        chain.and_then(|chain| Preprocessing::from_chain(&chain)).or(initial.preprocessing);
    Ok(initial)
}

/// The folder and the name of a file at a path or URL.
pub(crate) fn folder_and_file(place: &str) -> (&str, &str) {
    match place.rsplit_once('/') {
        Some(("", file)) => ("/", file),
        Some(parts) => parts,
        None => (".", place),
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
    let store = Store::open(folder, &options::store_options(config))?;
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
            if let Ok(Some(_)) = store.size(beside).await {
                let bytes = store.get(beside).await?;
                configs[index] = serde_json::from_slice(&bytes).ok();
            }
        }
    }
    let described = configs.iter().flatten().count() > 0;
    Ok(Initial {
        name: name.to_string(),
        preprocessing: preprocessing(name, &configs, config)?.or(known.map(|known| known.preprocessing)),
        record: json!({"from": name, "sha256": digest, "known_as": known.map(|known| known.id),
            "licence": known.map(|known| known.licence), "described": described}),
        bytes,
        warnings: known.and_then(licence_warning).into_iter().collect(),
    })
}

async fn from_hub(name: &str, reference: &Reference, config: &Config) -> Result<Initial, Error> {
    let hub = Hub::from_environment();
    let names: Vec<&str> = match &reference.file {
        Some(file) => vec![file.as_str()],
        None => hub::WEIGHTS.to_vec(),
    };
    let cached = hub.find(reference, &names).await?;
    let bytes = std::fs::read(&cached.path)
        .map_err(|error| Error::failed(format!("read {}", cached.path.display()), error))?;
    let mut configs = [None, None];
    for (index, beside) in hub::CONFIGS.into_iter().enumerate() {
        // A timm repository needs the first only.
        let is_needed = index == 0 || preprocessing(name, &configs, config)?.is_none();
        let found = if is_needed { hub.find_beside(reference, &cached.commit, beside).await? } else { None };
        configs[index] = found
            .and_then(|found| std::fs::read(found.path).ok())
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    }
    let known = registry::by_id(&reference.repository);
    let licence = known.map(|known| known.licence);
    Ok(Initial {
        name: name.to_string(),
        preprocessing: preprocessing(name, &configs, config)?.or(known.map(|known| known.preprocessing)),
        record: json!({"from": name, "file": cached.name, "commit": cached.commit, "sha256": hub::sha256(&bytes),
            "licence": licence}),
        bytes: bytes.into(),
        warnings: known.and_then(licence_warning).into_iter().collect(),
    })
}

/// How the images of a repository were prepared, by its `config.json` and `preprocessor_config.json`.
///
/// # Errors
/// [`Error::Usage`] when the configuration is of a network that computes something else than the one of the same
/// names here, which no name or shape of a tensor tells.
fn preprocessing(
    name: &str,
    [network, images]: &[Option<Value>; 2],
    config: &Config,
) -> Result<Option<Preprocessing>, Error> {
    let Some(network) = network else {
        return Ok(images.as_ref().and_then(Preprocessing::from_transformers));
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
        _ => Ok(Preprocessing::from_timm(network)
            .or_else(|| images.as_ref().and_then(Preprocessing::from_transformers))),
    }
}

/// The options of a run whose images are prepared as the weights want it. Where the user asks for something else,
/// `--force` lets that stand.
///
/// # Errors
/// [`Error::Plan`] with one line per option that contradicts the weights.
pub fn apply(config: &Config, initial: &Initial) -> Result<Config, Error> {
    let Some(wanted) = initial.preprocessing else { return Ok(config.clone()) };
    let normalize = options::normalize(config);
    let equal = |a: [f32; 3], b: [f32; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3);
    let triple = |values: [f32; 3]| {
        // The shortest digits that give the same number.
        let digits = values.map(|value| value.to_string().parse::<f64>().expect("a number was printed"));
        toml::Value::Array(digits.map(toml::Value::Float).to_vec())
    };
    let crop_pct = config.number("resize.crop_pct");
    let fields: [(&'static str, bool, toml::Value); 5] = [
        (
            "resize.size",
            config.integer("resize.size") == Some(u64::from(wanted.size)),
            i64::from(wanted.size).into(),
        ),
        (
            "resize.crop_pct",
            crop_pct.is_some_and(|share| (share - wanted.crop_pct).abs() < 1e-3),
            wanted.crop_pct.into(),
        ),
        (
            "resize.filter",
            config.choice::<Filter>("resize.filter") == wanted.filter,
            wanted.filter.name().into(),
        ),
        ("train.mean", equal(normalize.mean, wanted.mean), triple(wanted.mean)),
        ("train.std", equal(normalize.std, wanted.std), triple(wanted.std)),
    ];
    let mut problems = Vec::new();
    let mut applied = config.clone();
    for (key, agrees, value) in fields {
        match config.is_given(key) {
            false => applied = applied.with(key, value),
            true if agrees || config.is_on("force") => {}
            true => {
                let given = config.get(key).expect("it is given");
                problems.push(format!(
                    "{key}: {given} contradicts {}, which was trained with {value}; leave it out, or --force",
                    initial.name
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
    (mean, std): ([f32; 3], [f32; 3]),
    classifies: bool,
) -> Vec<String> {
    let statistics = ChannelStatistics::of(&batch.images, batch.side, mean, std);
    let entropy =
        if classifies { trainer.predict(batch).ok().and_then(|rows| entropy_share(&rows)) } else { None };
    let input = statistics.and_then(|statistics| statistics.complaint());
    input.into_iter().chain(entropy.and_then(entropy_complaint)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Command, Facts};

    fn config(flags: &[(&'static str, &str)]) -> Config {
        let flags: Vec<_> = flags.iter().map(|(key, text)| (*key, text.to_string())).collect();
        Config::resolve(None, &[], &flags).expect("sound options")
    }

    fn initial(preprocessing: Option<Preprocessing>) -> Initial {
        let (name, bytes) = ("w.pth".to_string(), Bytes::new());
        Initial { name, bytes, preprocessing, record: Value::Null, warnings: Vec::new() }
    }

    #[test]
    fn the_weights_decide_what_the_user_does_not() {
        let known = registry::by_id("timm/resnet34.ra4_e3600_r224_in1k").expect("it is known");
        let applied = apply(&config(&[]), &initial(Some(known.preprocessing))).expect("no contradiction");
        assert_eq!(applied.integer("resize.size"), Some(224));
        assert_eq!(applied.number("resize.crop_pct"), Some(0.9));
        assert_eq!(applied.choice::<Filter>("resize.filter"), Filter::Bicubic);
        assert_eq!(applied.numbers("train.mean"), Some(vec![0.5; 3]));
        assert_eq!(options::normalize(&applied).std, [0.5; 3]);
        // The resolved run file gives the same options, and says nothing that contradicts the weights.
        let toml = |config: &Config| config.to_toml(Command::Train, &Facts::default());
        let again = Config::resolve(Some(("run.toml", &toml(&applied))), &[], &[]).expect("its own text");
        let same = apply(&again, &initial(Some(known.preprocessing))).expect("the same");
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
        let weights = initial(Some(Preprocessing::IMAGENET));
        let Err(Error::Plan(problems)) = apply(&config(&flags), &weights) else { panic!("it contradicts") };
        let keys: Vec<&str> = problems.iter().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(keys, ["resize.size", "resize.crop_pct", "resize.filter", "train.mean"]);
        assert_eq!(
            problems[0],
            "resize.size: 64 contradicts w.pth, which was trained with 224; leave it out, or --force"
        );
        let forced = config(&[flags.as_slice(), &[("force", "true")]].concat());
        assert_eq!(apply(&forced, &weights).expect("forced"), forced);
    }

    #[test]
    fn networks_that_only_share_names_are_refused() {
        let check = |network: Value, flags: &[(&'static str, &str)]| {
            preprocessing("hf:a/b", &[Some(network), None], &config(flags))
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
        assert_eq!((found.size, found.shorter_side(), found.filter), (160, 168, Filter::Bicubic));
    }
}
