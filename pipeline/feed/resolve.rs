//! A feed as the options describe it: what the source is, and what is done with its images.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_datasets::catalog;
use forebay_datasets::seed::Seed;
use forebay_datasets::store::Store;
use forebay_stages::balance::{Balance, BalanceSummary};
use forebay_stages::chain::{Chain, Composed, Conflict, Contradiction, Property, Wanted};
use toml::Value;

use super::{Feed, Origin, Shards};
use crate::flow::Error;
use crate::options::{self, Config};
use crate::plan::{self, Rooms, open};

/// The source of a feed and what it holds, before a trainer is thought of: what `train` and `bench` share.
///
/// # Errors
/// [`Error::Plan`] or [`Error::Usage`] for options or a source that cannot be used, others when a store fails.
pub async fn resolve(config: &Config) -> Result<(Feed, Option<BalanceSummary>, Vec<String>), Error> {
    let mut problems = Vec::new();
    let augment = options::augment(config, &mut problems);
    let balance = options::balance_options(config, &mut problems);
    if config.get("resize.size").and_then(Value::as_str) == Some("original") {
        problems.push("resize.size: a batch needs one size; give a number of pixels".to_string());
    }
    let wanted = options::wanted(config);
    problems.extend(wanted.problems().into_iter().map(|line| match line.split(' ').next() {
        Some("mean" | "std") => format!("train.{line}"),
        _ => format!("resize.{line}"),
    }));
    if !problems.is_empty() {
        return Err(Error::Plan(problems));
    }
    let store = open(config, "source", "SOURCE")?;
    let mut warnings = Vec::new();
    let (origin, chunk) = match plan::manifest(&store).await? {
        Some(manifest) => {
            refuse_twice(config, &manifest, &augment, balance.mode)?;
            let (rows, bytes) =
                (manifest.counts.rows.max(1), manifest.shards.iter().map(|s| s.bytes).sum::<u64>());
            let chunk = plan::chunk_of(bytes / rows);
            (Origin::Shards(Arc::new(Shards::open(&store, manifest).await?)), chunk)
        }
        None => {
            let catalog = catalog::read(&store).await?;
            warnings.extend(catalog.warnings.iter().cloned());
            let chunk = plan::chunk(&catalog);
            // Copies are made by the feed, as for shards, so that both give the same batches.
            let rows = plan::rows(config, catalog, &BTreeMap::new(), false)?;
            (Origin::Folder(Arc::new(rows)), chunk)
        }
    };
    let prepared = match &origin {
        Origin::Shards(shards) => shards.prepared.clone(),
        Origin::Folder(_) => Chain::of_files(),
    };
    let Composed { chain, resize } = compose(config, &store, &prepared, &wanted, &mut warnings)?;
    let side = chain.side().expect("a feed makes squares");
    if let Some(stored) = prepared.side().filter(|stored| *stored < side) {
        warnings.push(format!(
            "the shards hold images of {stored} pixels, which are enlarged to {side}: prepare them larger, or train \
             at their size"
        ));
    }
    // Rows of shards are opaque, so that a background means something for the files of a folder.
    let decode = options::decode(config, chain.background());
    let mut feed = Feed {
        store,
        origin,
        chain,
        decode,
        resize,
        side,
        augment,
        copies: None,
        batch_size: config.integer("train.batch_size").expect("it has a default") as usize,
        seed: Seed(config.integer("seed").expect("it has a default")),
        rooms: Rooms::of(config),
        chunk,
    };
    let summary = match balance.mode {
        Balance::None => None,
        _ => Some(feed.balance(&balance, feed.seed).await?),
    };
    Ok((feed, summary, warnings))
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
