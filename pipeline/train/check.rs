//! What is wrong with a training run: first all that the options alone tell, before anything is opened or downloaded.

use forebay_datasets::seed::Seed;
use forebay_stages::chain::Chain;
use forebay_stages::normalize::Normalize;
use forebay_train::models::Head;
use forebay_train::{DeviceKind, Loss, Strictness, Trainer};

use super::Start;
use super::error::train_error;
use super::feature_cache::FeatureCache;
use super::keeping::Keeping;
use super::recipe;
use super::run_folder::RunFolder;
use crate::feed;
use crate::flow::Error;
use crate::options::{self, Command, Config, FreezePlan};
use crate::plan::gather;
use crate::weights::{self, Initial};

/// Every problem of the options, whatever the source, the weights and the run folder hold, one a line. A run that is to
/// begin, `begins`, needs a folder.
///
/// # Errors
/// When a place cannot be reached, whatever is there.
pub(super) fn options(config: &Config, freezing: &FreezePlan, begins: bool) -> Result<Vec<String>, Error> {
    let mut problems = feed::problems(config, Command::Train)?;
    problems.extend(weights::problems(config)?);
    if begins || config.text("out").is_some() {
        gather(RunFolder::open(config), &mut problems)?;
    }
    let device = gather(device(config), &mut problems)?;
    gather(Keeping::resolve(config).map_err(Error::Plan), &mut problems)?;
    gather(FeatureCache::resolve(config, &mut Vec::new()), &mut problems)?;
    // A source that nothing could be wrong with: what the run's own adds is found when it has been read.
    let any = recipe::Context {
        classes: ["a", "b"].map(String::from).to_vec(),
        counts: &[1.0, 1.0],
        validates: true,
        steps_per_epoch: 1,
        epochs: config.whole("train.epochs") as u32,
        side: config.integer("resize.size").map_or(u32::MAX, |side| side as u32),
        seed: Seed(config.whole("seed")),
        // What no device is called forbids no precision.
        device: device.unwrap_or(DeviceKind::Cuda(0)),
        pretrained: config.text("train.weights").is_some(),
        // The run's own is looked at with the rest of the chain.
        chain: Chain::of_pixels(Normalize::IMAGENET),
        is_balanced: false,
    };
    let of_recipe = recipe::resolve(config, freezing, any).map(drop).map_err(Error::Plan);
    gather(of_recipe, &mut problems)?;
    Ok(problems)
}

/// The device that the options name.
///
/// # Errors
/// [`Error::Usage`] for one that there is not, or not in this build.
pub(super) fn device(config: &Config) -> Result<DeviceKind, Error> {
    let text = config.text("train.device").unwrap_or_default();
    let number = text
        .strip_prefix("cuda")
        .map(|rest| rest.strip_prefix(':').unwrap_or(if rest.is_empty() { "0" } else { rest }));
    match (text.as_str(), number.map(str::parse)) {
        ("cpu", _) => Ok(DeviceKind::Cpu),
        (_, Some(Ok(_))) if !cfg!(feature = "cuda") => Err(Error::Usage(format!(
            "train.device: {text} needs a build with `--features cuda`; this one has only cpu"
        ))),
        (_, Some(Ok(number))) => Ok(DeviceKind::Cuda(number)),
        _ => Err(Error::Usage(format!("train.device: \"{text}\" is not cpu or cuda:N"))),
    }
}

/// What is done where initial weights do not fill the network.
pub(super) fn strictness(config: &Config) -> Strictness {
    if config.is_on("force") { Strictness::Lenient } else { Strictness::Strict }
}

/// The folder of a run that is named, and that the run could begin in. A range test keeps files of its own, which it looks
/// for itself.
///
/// # Errors
/// [`Error::Usage`] when it holds a run, one that is going on among them, or no checkpoint to resume from.
pub(super) async fn run_folder(config: &Config) -> Result<Option<RunFolder>, Error> {
    if config.text("out").is_none() || config.is_on("train.find_lr") {
        return Ok(None);
    }
    let folder = RunFolder::open(config)?;
    let begin = Start::of(config);
    if let Err(refusal) = folder.refuse_start(begin).await {
        // What to do about a run at rest is no help while it goes on. A folder that is not refused is not locked either, not
        // even for a moment, in which a run that begins would be refused.
        folder.refuse_owned()?;
        return Err(refusal);
    }
    if let (Start::Overwrite, Some(input)) = (begin, config.text("train.weights")) {
        folder.refuse_losing(&input).await?;
    }
    Ok(Some(folder))
}

/// The weights that a run begins with, compared with its network. A resumed run begins with its checkpoint, which may have
/// begun with `--force`.
///
/// # Errors
/// As [`weights::read`]; [`Error::Usage`] when the network does not take them.
pub(super) async fn initial(config: &Config) -> Result<Option<Initial>, Error> {
    let Some(initial) = weights::read(config).await? else { return Ok(None) };
    if !config.is_on("train.resume") {
        let model = config.text("train.arch").unwrap_or_default();
        let width = config.integer("train.head_width").map(|width| width as usize);
        let normalized = options::loss(config) == Loss::Ldam;
        let head = Head { width, normalized, ..Head::linear(1) };
        let fits = Trainer::check_weights(&model, &head, &initial.bytes, strictness(config));
        fits.map_err(|error| train_error(&format!("load {}", initial.name), error))?;
    }
    Ok(Some(initial))
}
