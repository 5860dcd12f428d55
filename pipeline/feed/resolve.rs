//! A feed as the options describe it: what the source is, and what is done with its images.

use std::sync::Arc;

use forebay_datasets::catalog;
use forebay_datasets::manifest::{Manifest, RowOrder};
use forebay_datasets::sample::Split;
use forebay_datasets::seed::Seed;
use forebay_datasets::store::Store;
use forebay_stages::augment::Augment;
use forebay_stages::balance::{Balance, BalanceOptions, BalanceSummary};
use forebay_stages::chain::{Chain, Composed, Conflict, Contradiction, Property, Wanted};
use forebay_train::models;
use toml::Value;

use super::{Feed, Folder, Shards, Source};
use crate::flow::{Error, Run};
use crate::options::{self, Command, Config, Facts, PreparedRows};
use crate::plan::grouping::{GroupedSource, grouped};
use crate::plan::{self, DecidedBy, OF_A_BATCH_PX, Rooms, ShorterSides, gather, open, open_source};

/// What the options say of a feed, whatever the source holds.
struct Asked {
    augment: Option<Augment>,
    balance: BalanceOptions,
    wanted: Wanted,
}

impl Asked {
    fn of(config: &Config, problems: &mut Vec<String>) -> Asked {
        let augment = options::augment(config, problems);
        let balance = options::balance_options(config, problems);
        options::shares(config, problems);
        problems.extend(options::fold_problem(config));
        if config.get("resize.size").and_then(Value::as_str) == Some("original") {
            problems.push("resize.size: a batch needs one size; give a number of pixels".to_string());
        }
        let wanted = options::wanted(config);
        problems.extend(wanted.problems().into_iter().map(|line| match line.split(' ').next() {
            Some("mean" | "std") => format!("train.{line}"),
            _ => format!("resize.{line}"),
        }));
        Asked { augment, balance, wanted }
    }
}

/// What is wrong with the options of a feed, whatever the source holds, a line each: nothing is opened.
///
/// # Errors
/// When SOURCE names a place that cannot be reached, whatever is there.
pub fn problems(config: &Config, command: Command) -> Result<Vec<String>, Error> {
    let mut problems = config.without_effect(command, &Facts::default());
    Asked::of(config, &mut problems);
    gather(open(config, "source", "SOURCE"), &mut problems)?;
    Ok(problems)
}

/// A source that was opened once: any number of feeds are made of it.
#[derive(Clone)]
pub struct OpenedSource {
    store: Store,
    source: Arc<dyn Source>,
    /// What of the preparation of its images is done.
    prepared: Chain,
    shorter_sides: ShorterSides,
    /// What it was prepared with, where Forebay wrote it in the form of another program.
    made: Option<Manifest>,
    warnings: Vec<String>,
}

impl OpenedSource {
    /// Opens the source that the options name, split as they say.
    ///
    /// # Errors
    /// [`Error::Plan`] or [`Error::Usage`] for a source that cannot be used, others when a store fails.
    pub async fn open(run: &Run, config: &Config, command: Command) -> Result<OpenedSource, Error> {
        let store = open_source(config)?;
        let mut warnings = Vec::new();
        let (source, prepared): (Arc<dyn Source>, _) =
            match plan::shards_of(&store, &options::layout(config)).await? {
                Some(manifest) => {
                    let prepared = plan::prepared(&store, &manifest)?;
                    (Arc::new(Shards::open(&store, manifest).await?), prepared)
                }
                None => {
                    let catalog = catalog::read(&store, &options::layout(config)).await?;
                    let reading = GroupedSource { run, config, store: &store };
                    let looks_for_leaks = command == Command::Train;
                    let (catalog, found) = grouped(&reading, catalog, None, looks_for_leaks).await?;
                    warnings.extend(found);
                    // Copies are made by the feed, as for shards, so that both give the same batches.
                    let rows = plan::rows(config, catalog, None, false)?;
                    warnings.extend(rows.warnings.iter().cloned());
                    let scale = options::decode(config, None).scale_used();
                    (Arc::new(Folder::new(store.clone(), rows)), Chain::of_files().decoded(scale))
                }
            };
        if let [(id, fault), ..] = source.rejects() {
            warnings.push(format!(
                "{} of the files can be no samples, and count as rejects: {id}: {fault}{}",
                source.rejects().len(),
                if source.rejects().len() > 1 { ", and others" } else { "" }
            ));
        }
        let shorter_sides = match prepared.side() {
            Some(_) => ShorterSides::default(),
            None => source.shorter_sides().await?,
        };
        let made = match source.manifest() {
            Some(_) => None,
            None => plan::made(&store, &options::layout(config)).await?,
        };
        Ok(OpenedSource { store, source, prepared, shorter_sides, made, warnings })
    }

    /// The folder of images that is read; `None` where shards are.
    pub fn image_folder(&self) -> Option<&Store> {
        self.source.manifest().is_none().then_some(&self.store)
    }
}

/// What is made of the source of a feed, before a trainer is thought of: what `train` and `bench` share.
///
/// # Errors
/// [`Error::Plan`] or [`Error::Usage`] for options or a source that cannot be used, others when a store fails.
pub async fn resolve(
    run: &Run,
    config: &Config,
    command: Command,
) -> Result<(Feed, Option<BalanceSummary>, Vec<String>), Error> {
    let problems = problems(config, command)?;
    if !problems.is_empty() {
        return Err(Error::Plan(problems));
    }
    on(config, command, &OpenedSource::open(run, config, command).await?).await
}

/// [`resolve`], with a source that is open.
///
/// # Errors
/// As [`resolve`].
pub async fn on(
    config: &Config,
    command: Command,
    opened: &OpenedSource,
) -> Result<(Feed, Option<BalanceSummary>, Vec<String>), Error> {
    let mut problems = config.without_effect(command, &Facts::default());
    let Asked { augment, balance, wanted } = Asked::of(config, &mut problems);
    if !problems.is_empty() {
        return Err(Error::Plan(problems));
    }
    let OpenedSource { store, source, prepared, shorter_sides, made, mut warnings } = opened.clone();
    if let Some(made) = source.manifest().or(made.as_ref()) {
        refuse_twice(config, made, &augment, balance.mode)?;
    }
    let (side, side_by) = decide_side(config, command, &prepared, &shorter_sides);
    let wanted = Wanted { side: Some(side), ..wanted };
    let composed = compose(config, &store, &prepared, &wanted, &mut warnings)?;
    if let Some(stored) = prepared.side().filter(|stored| *stored < side) {
        warnings.push(format!(
            "the shards hold images of {stored} pixels, which are enlarged to {side} ({side_by}): prepare them larger, or \
             train at their size"
        ));
    }
    warnings.extend(shorter_sides.enlarged(side, side_by, |nearest| match side_by {
        DecidedBy::Weights => format!(
            "it costs time and may gain accuracy, since the weights were trained so; --size {nearest} --force trains at \
             about the size of the images"
        ),
        _ => format!("it costs time and shows the network nothing more; --size {nearest} is about their size"),
    }));
    let decode = options::decode(config, composed.chain.background());
    let mut feed = Feed::new(
        store,
        source,
        composed,
        decode,
        augment,
        config.whole("train.batch_size") as usize,
        Seed(config.whole("seed")),
        Rooms::of(config),
    );
    feed.side_by = side_by;
    if command == Command::Bench {
        feed.dtype = config.chosen("bench.dtype").unwrap_or_default();
    }
    // Before a fold, so that all folds agree: what is kept of changed images serves each.
    feed.look_for_rare().await?;
    if let Some(fold) = options::fold(config) {
        feed = feed.of_fold(fold, Seed(config.whole("split.seed"))).await?;
    }
    let order = feed.source.manifest().map(|manifest| manifest.row_order);
    if order == Some(RowOrder::Source) && feed.is_mixed_in_windows() {
        warnings.push(
            "the shards keep the order of their source (--order source), and an epoch mixes only groups of rows: \
             batches may hold few classes; prepare with --order shuffled"
                .to_string(),
        );
    }
    let problems = config.without_effect(command, &facts(&feed));
    if !problems.is_empty() {
        return Err(Error::Plan(problems));
    }
    let summary = match balance.mode {
        mode if mode == Balance::None || mode.makes_features() => None,
        _ => Some(feed.balance(&balance, feed.seed).await?),
    };
    // Features that do not fit are kept elsewhere, so that little memory may be meant.
    warnings.extend(
        feed.rooms
            .too_small_for(&options::decode(config, None))
            .map(|line| format!("{line}, and one that takes more passes alone")),
    );
    plan::check_memory(&feed.memory())?;
    Ok((feed, summary, warnings))
}

/// The side of the images of a batch, and who decides it: [`crate::plan`] has the rule. Weights have decided already
/// what the user did not, among the options.
fn decide_side(
    config: &Config,
    command: Command,
    prepared: &Chain,
    images: &ShorterSides,
) -> (u32, DecidedBy) {
    if let Some(side) = config.integer("resize.size") {
        let by = if config.is_given("resize.size") { DecidedBy::User } else { DecidedBy::Weights };
        return (side as u32, by);
    }
    if let Some(side) = prepared.side() {
        return (side, DecidedBy::Shards);
    }
    let network = config.text("train.arch").filter(|_| command == Command::Train);
    match network.and_then(|name| models::named(&name)?.1.side_px) {
        Some(side) => (side, DecidedBy::Network),
        None => images.side(OF_A_BATCH_PX),
    }
}

/// The chain of what shards hold and what is wanted of it. Where the two contradict each other, `--force` lets what
/// the shards hold stand, with a warning.
fn compose(
    config: &Config,
    store: &Store,
    prepared: &Chain,
    wanted: &Wanted,
    warnings: &mut Vec<String>,
) -> Result<Composed, Error> {
    let Conflict { contradictions, forced } = match prepared.then(wanted) {
        Ok(composed) => return Ok(composed),
        Err(conflict) => conflict,
    };
    let line = |contradiction: &Contradiction| {
        let key = match contradiction.property {
            Property::Fit => "resize.fit",
            Property::CropPct => "resize.crop_pct",
            Property::Filter => "resize.filter",
            Property::Background => "decode.background",
        };
        // What the user does not say, the weights do.
        let by = if config.is_given(key) { "by the options" } else { "by the weights" };
        let Contradiction { prepared, wanted, .. } = contradiction;
        (
            key,
            format!(
                "{wanted} is wanted {by}, and the images of {} were prepared {prepared}",
                store.location()
            ),
        )
    };
    let lines = contradictions.iter().map(line);
    if config.is_on("force") {
        warnings.extend(lines.map(|(_, line)| format!("{line}, which stands, as --force says")));
        return Ok(*forced);
    }
    Err(Error::Plan(
        lines
            .map(|(key, line)| {
                format!("{key}: {line}; prepare them anew, or --force trains on them as they are")
            })
            .collect(),
    ))
}

/// What the source of a feed says about which options have an effect.
pub fn facts(feed: &Feed) -> Facts {
    Facts {
        prepared: feed.source.manifest().map(PreparedRows::of),
        declares_splits: feed.source.declares_splits(),
        validates: feed.rows(Split::Validation) > 0,
    }
}

/// Balance and augmentation happen once: what the shards hold is not done again, unless forced.
fn refuse_twice(
    config: &Config,
    manifest: &Manifest,
    augment: &Option<forebay_stages::augment::Augment>,
    balance: Balance,
) -> Result<(), Error> {
    if config.is_on("force") {
        return Ok(());
    }
    let mut problems = Vec::new();
    if manifest.balanced && balance != Balance::None {
        problems.push("balance.mode: the source is balanced already; leave it out, or --force".to_string());
    }
    if manifest.augment.is_some() && augment.is_some() {
        problems.push("augment: the source is augmented already; leave it out, or --force".to_string());
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::Plan(problems)) }
}
