//! `forebay trace`: where a sample comes from, where it lies, and which draws made it what it is.

use std::fmt::Write as _;
use std::sync::Arc;

use forebay_datasets::escape::{one_line, printable};
use forebay_datasets::formats::DatasetFormat;
use forebay_datasets::manifest::{AugmentRecord, MANIFEST_KEY, Manifest, PLAN_KEY, PlanRecord, REJECTS_KEY};
use forebay_datasets::sample::Split;
use forebay_datasets::seed::{Drawn, DrawnFrom, Seed};
use forebay_datasets::shard::{self, ReadError, Reject, TracedRow};
use forebay_datasets::store::Store;
use forebay_stages::augment::Augment;
use forebay_stages::chain::ResizeStep;
use forebay_stages::decode::Decode;
use forebay_stages::resize::Resize;
use forebay_stages::weight::{Scales, Step};
use serde::Serialize;

use crate::feed;
use crate::flow::{Error, Run};
use crate::model::OfRun;
use crate::options::{Command, Config, Invocation};
use crate::plan;
use crate::report::{say, say_json};

/// What is known of a sample.
#[derive(Debug, Serialize)]
pub struct Traced {
    /// Its id.
    pub id: String,
    /// The split that it was put in.
    pub split: Option<Split>,
    /// The sample that its group is called by, where it is not alone.
    pub group: Option<String>,
    /// Its class.
    pub class: Option<String>,
    /// Its rows; none where it was rejected or left out.
    pub rows: Vec<TracedCopy>,
    /// Why it was rejected.
    pub rejected: Option<Reject>,
}

/// A row of a sample, and what was drawn for it.
#[derive(Debug, Serialize)]
pub struct TracedCopy {
    /// Where it lies and what it was made of.
    #[serde(flatten)]
    pub row: TracedRow,
    /// What was drawn as it was prepared, a line each.
    pub draws: Vec<String>,
    /// What is drawn for it in the epoch of a run that was asked for, for each of its copies there.
    pub epoch: Vec<EpochDraws>,
}

/// What is drawn for a copy of a row in an epoch.
#[derive(Debug, Serialize)]
pub struct EpochDraws {
    /// The epoch, counted from 1.
    pub epoch: u32,
    /// Its copy in the epoch.
    pub copy: u32,
    /// A line for each draw.
    pub draws: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// [`Error::Usage`] for a sample that the dataset does not know; others when the store fails.
pub async fn run(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let config = asked.config.clone();
    let tracing = run.clone();
    let traced = run.until_stopped(move || async move { trace(&tracing, &config).await }).await?;
    match asked.json {
        true => say_json(&traced),
        false => say(&traced.in_words()),
    }
    Ok(())
}

/// Looks for a sample.
///
/// # Errors
/// As [`run`].
pub async fn trace(run: &Run, config: &Config) -> Result<Traced, Error> {
    let store = plan::open_source(config)?;
    let (location, id) = (store.location(), config.text("trace.id").unwrap_or_default());
    let manifest = plan::finished(&store).await?.ok_or_else(|| {
        Error::Usage(format!("{location} is no dataset of shards, whose samples can be traced"))
    })?;
    if manifest.dataset_format != DatasetFormat::Parquet {
        return Err(Error::Usage(format!(
            "{location} is written as {}, whose files do not say where a row comes from: shards of Forebay do (--format parquet)",
            manifest.dataset_format
        )));
    }
    let planned = store.find(PLAN_KEY).await?.and_then(|bytes| PlanRecord::parse(&bytes).ok());
    let split = planned.as_ref().and_then(|plan| plan.assignment.split(&id));
    let group = planned.as_ref().and_then(|plan| plan.assignment.group(&id)).map(ToString::to_string);
    let rejects = store.find(REJECTS_KEY).await?;
    let rejects = rejects.map(|bytes| Reject::of_lines(&String::from_utf8_lossy(&bytes))).unwrap_or_default();
    let rejected = rejects.into_iter().find(|reject| reject.id == id);
    let mut rows = Vec::new();
    for record in manifest.shards.iter().filter(|record| split.is_none_or(|split| split == record.split)) {
        let damaged = |error: ReadError| match error {
            ReadError::Store(error) => Error::from(error),
            ReadError::Damaged(line) => Error::Integrity(line),
        };
        let index = shard::read_index(&store, &record.key, record.bytes).await.map_err(damaged)?;
        let found = shard::trace(&store, &record.key, &index, &id).await.map_err(damaged)?;
        rows.extend(found.into_iter().map(|row| (record.split, row)));
    }
    if rows.is_empty() && rejected.is_none() && split.is_none() {
        return Err(Error::Usage(format!(
            "{location} knows no sample {id}: give an id as inspect, rejects.jsonl and predictions have it"
        )));
    }
    let split = split.or(rows.first().map(|(split, _)| *split));
    let class = rows.first().and_then(|(_, row)| manifest.classes.get(row.label as usize)).cloned();
    let rows: Vec<TracedRow> = rows.into_iter().map(|(_, row)| row).collect();
    let epochs = of_run(run, config, &id, &rows).await?;
    let draws = prepared(&store, &manifest, split)?;
    let copies = rows.into_iter().zip(epochs).map(|(row, epoch)| {
        let draws = draws(&id, &row)?;
        Ok(TracedCopy { row, draws, epoch })
    });
    Ok(Traced { id: id.clone(), split, group, class, rows: copies.collect::<Result<_, Error>>()?, rejected })
}

/// What tells the draws of a row of shards: none where they are not augmented.
fn prepared(
    store: &Store,
    manifest: &Manifest,
    split: Option<Split>,
) -> Result<impl Fn(&str, &TracedRow) -> Result<Vec<String>, Error>, Error> {
    let chain = plan::prepared(store, manifest)?;
    let resize = chain.steps().first().map_or(Resize::default(), ResizeStep::resize);
    let record = manifest.augment.as_ref().filter(|_| split == Some(Split::Train));
    let made = match record {
        None => None,
        Some(AugmentRecord { seed, changes, is_rare }) => {
            let augment: Augment = serde_json::from_value(changes.clone()).map_err(|error| {
                let what = one_line(&error.to_string()).into_owned();
                Error::Integrity(format!("{}/{MANIFEST_KEY}: its augmentation: {what}", store.location()))
            })?;
            let is_rare: Option<Arc<[bool]>> = is_rare.clone().map(Into::into);
            let of = |augment: Option<&Augment>| Step::of_a_row(&resize, augment);
            let steps = Step::by_class(Some(&augment), is_rare.as_ref(), of);
            Some((Seed(*seed), Scales { decode: Decode::default(), steps, encode: None }))
        }
    };
    Ok(move |id: &str, row: &TracedRow| match &made {
        None => Ok(Vec::new()),
        Some((seed, scales)) => {
            lines(scales.drawn(row.original_size, row.label, seed.draws(id, row.copy, 0)))
        }
    })
}

/// What a run draws for rows in the epoch that was asked for.
async fn of_run(
    run: &Run,
    config: &Config,
    id: &str,
    rows: &[TracedRow],
) -> Result<Vec<Vec<EpochDraws>>, Error> {
    let (Some(place), Some(epoch)) = (config.text("trace.run"), config.integer("trace.epoch")) else {
        return Ok(rows.iter().map(|_| Vec::new()).collect());
    };
    let of_run = OfRun::read(&place, config).await?;
    let of_run = of_run.ok_or_else(|| Error::Usage(format!("--run {place} is no run folder")))?;
    let source = config.text("source").unwrap_or_default();
    if !of_run.is_of(&source, config) {
        return Err(Error::Usage(format!(
            "--run {place} was not trained on {source}, but on {}",
            of_run.source().unwrap_or_default()
        )));
    }
    let fed = of_run.fed_from(&source);
    let epochs = fed.whole("train.epochs");
    if epoch > epochs {
        return Err(Error::Usage(format!("--run {place} is of {epochs} epochs, and has no epoch {epoch}")));
    }
    let (feed, ..) = feed::resolve(run, &fed, Command::Train).await?;
    // Both are in the order of the shards.
    let copies = feed.copies_of(id).await?;
    let of_row = |(at, row): (usize, &TracedRow)| {
        let n = copies.get(at).copied().unwrap_or(0);
        let of_copy = |copy: u32| {
            let copy = row.copy + copy;
            // Epochs are counted from 0 where they are drawn for.
            let drawn = feed.drawn((id, copy, row.label), epoch as u32 - 1, row.size);
            Ok(EpochDraws { epoch: epoch as u32, copy, draws: lines(drawn)? })
        };
        (0..n).map(of_copy).collect()
    };
    rows.iter().enumerate().map(of_row).collect()
}

/// A line for each draw.
fn lines(drawn: Result<Vec<Drawn>, forebay_datasets::sample::Fault>) -> Result<Vec<String>, Error> {
    let drawn = drawn.map_err(|fault| Error::Usage(format!("its draws cannot be made again: {fault}")))?;
    Ok(drawn.iter().map(in_words).collect())
}

fn in_words(drawn: &Drawn) -> String {
    let Drawn { stage, from, value } = drawn;
    match from {
        DrawnFrom::Chance(p) => {
            format!("{stage}: {} (probability {p})", if *value > 0.0 { "yes" } else { "no" })
        }
        DrawnFrom::Range(low, high) => format!("{stage}: {value:.6} (from {low:.4} to {high:.4})"),
        DrawnFrom::Below(n) => format!("{stage}: {value} (of 0 to {})", n - 1),
    }
}

impl Traced {
    fn in_words(&self) -> String {
        let mut text = String::new();
        let split = self.split.map_or("of no split".to_string(), |split| format!("in {split}"));
        let class = self.class.as_ref().map_or(String::new(), |class| format!(", class {class}"));
        let _ = writeln!(text, "{}: {split}{class}", self.id);
        if let Some(group) = &self.group {
            let _ = writeln!(text, "  split with its group {group}");
        }
        match &self.rejected {
            Some(Reject { stage, reason, .. }) => {
                let _ = writeln!(text, "  rejected by {stage}: {reason}");
            }
            None if self.rows.is_empty() => text += "  in no shard: the balance gave it no copy\n",
            None => {}
        }
        for TracedCopy { row, draws, epoch } in &self.rows {
            let TracedRow {
                shard,
                row_group,
                row: number,
                copy,
                size,
                original_size,
                source,
                source_blake3,
                kept,
                ..
            } = row;
            let _ = writeln!(text, "  copy {copy}: {shard}, row group {row_group}, row {number}");
            let _ = writeln!(
                text,
                "    made of    {}, {}x{} px",
                printable(source),
                original_size.0,
                original_size.1
            );
            let _ = writeln!(text, "    blake3     {}", printable(source_blake3));
            let _ = writeln!(text, "    stored as  {}x{} px", size.0, size.1);
            for (name, value) in kept {
                let value = value.as_deref().map_or("none".into(), printable);
                let _ = writeln!(text, "    {:<10} {value}", printable(name));
            }
            for line in draws {
                let _ = writeln!(text, "    drew       {line}");
            }
            for EpochDraws { epoch, copy, draws } in epoch {
                let _ = writeln!(
                    text,
                    "    epoch {epoch}, copy {copy}: {}",
                    if draws.is_empty() { "nothing is drawn" } else { "" }
                );
                for line in draws {
                    let _ = writeln!(text, "      drew     {line}");
                }
            }
        }
        text
    }
}
