//! A feed as the options describe it: what the source is, and what is done with its images.

use std::sync::Arc;

use forebay_datasets::catalog;
use forebay_datasets::sample::Split;
use forebay_datasets::seed::Seed;
use forebay_stages::balance::{Balance, BalanceSummary};
use forebay_stages::resize::{Fit, Size};
use toml::Value;

use super::{Feed, Folder, Shards, Source};
use crate::flow::Error;
use crate::options::{self, Command, Config, Facts};
use crate::plan::{self, Rooms, open};

/// The source of a feed and what it holds, before a trainer is thought of: what `train` and `bench` share.
///
/// # Errors
/// [`Error::Plan`] or [`Error::Usage`] for options or a source that cannot be used, others when a store fails.
pub async fn resolve(
    config: &Config,
    command: Command,
) -> Result<(Feed, Option<BalanceSummary>, Vec<String>), Error> {
    let mut problems = config.without_effect(command, &Facts::default());
    let augment = options::augment(config, &mut problems);
    let balance = options::balance_options(config, &mut problems);
    if config.get("resize.size").and_then(Value::as_str) == Some("original") {
        problems.push("resize.size: a batch needs one size; give a number of pixels".to_string());
    }
    if !problems.is_empty() {
        return Err(Error::Plan(problems));
    }
    let store = open(config, "source", "SOURCE")?;
    let mut warnings = Vec::new();
    let (source, default_side): (Arc<dyn Source>, _) = match plan::manifest(&store).await? {
        Some(manifest) => {
            refuse_twice(config, &manifest, &augment, balance.mode)?;
            let side = manifest.side_px;
            (Arc::new(Shards::open(&store, manifest).await?), side)
        }
        None => {
            let catalog = catalog::read(&store).await?;
            // Copies are made by the feed, as for shards, so that both give the same batches.
            let rows = plan::rows(config, catalog, None, false)?;
            warnings.extend(rows.catalog.warnings.iter().cloned());
            (Arc::new(Folder::new(store.clone(), rows)), None)
        }
    };
    let side = config.integer("resize.size").map(|side| side as u32).or(default_side).unwrap_or(224);
    let mut feed = Feed::new(
        store,
        source,
        options::chain(config, Size::Side(side), Fit::Crop),
        side,
        augment,
        config.whole("train.batch_size") as usize,
        Seed(config.whole("seed")),
        Rooms::of(config),
    );
    // A batch has one size, so that small images are enlarged whatever the run file says of shards.
    feed.chain.resize.enlarge = true;
    if let Some(prepared) = default_side
        && feed.chain.resize.shorter_side.is_some_and(|shorter| prepared < shorter)
    {
        // The margin was cut off when the shards were prepared, or was never there.
        feed.chain.resize.shorter_side = None;
        if prepared < side {
            warnings.push(format!(
                "the shards hold images of {prepared} pixels, which are enlarged to {side}: prepare them larger, or \
                 train at their size"
            ));
        }
    }
    let problems = config.without_effect(command, &facts(&feed));
    if !problems.is_empty() {
        return Err(Error::Plan(problems));
    }
    let order = feed.source.manifest().map(|manifest| &manifest.settings["shards.order"]);
    if order.is_some_and(|order| order == "source") && feed.is_mixed_in_windows() {
        warnings.push(
            "the shards keep the order of their source (--order source), and an epoch mixes only groups of rows: \
             batches may hold few classes; prepare with --order shuffled"
                .to_string(),
        );
    }
    let summary = match balance.mode {
        Balance::None => None,
        _ => Some(feed.balance(&balance, feed.seed).await?),
    };
    plan::check_memory(&feed.memory())?;
    Ok((feed, summary, warnings))
}

/// What the source of a feed says about which options have an effect.
pub fn facts(feed: &Feed) -> Facts {
    let validates = feed.rows(Split::Validation) > 0;
    Facts {
        prepared: feed.source.manifest().map(|manifest| manifest.settings.clone()),
        declares_splits: feed.source.declares_splits(),
        validates,
    }
}

/// Balance and augmentation happen once: what the shards hold is not done again, unless forced.
fn refuse_twice(
    config: &Config,
    manifest: &forebay_datasets::manifest::Manifest,
    augment: &Option<forebay_stages::augment::Augment>,
    balance: Balance,
) -> Result<(), Error> {
    if config.is_on("force") {
        return Ok(());
    }
    let mut problems = Vec::new();
    if manifest.balanced && balance != Balance::None {
        problems.push("balance.mode: the shards are balanced already; leave it out, or --force".to_string());
    }
    if manifest.augmented && augment.is_some() {
        problems.push("augment: the shards are augmented already; leave it out, or --force".to_string());
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::Plan(problems)) }
}
