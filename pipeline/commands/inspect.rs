//! What is in a source, and what is wrong with it: as text, as JSON, and as a page.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_datasets::catalog::{self, Catalog};
use forebay_datasets::manifest::Manifest;

use crate::flow::{Error, Run};
use crate::inspection::{in_words, inspect};
use crate::options::{self, Command, Config, FailOn, Invocation, bytes_in_words};
use crate::plan;
use crate::report::{Bar, SplitCounts, Unit, class_table, note, say, say_json, warn, watched};

/// What is to end the command with exit code 3.
fn kinds_to_fail_on(config: &Config) -> Result<Vec<FailOn>, Error> {
    let text = config.text("inspect.fail_on").unwrap_or_default();
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    let kinds: Result<Vec<FailOn>, String> = words.map(str::parse).collect();
    kinds.map_err(|why| Error::Usage(format!("inspect.fail_on: {why}")))
}

/// Runs the command.
///
/// # Errors
/// The first error of the run; [`Error::Found`] where something is there that was to end it.
pub async fn run(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let config = &asked.config;
    let kinds = kinds_to_fail_on(config)?;
    let store = plan::open_source(config)?;
    let page = config.text("inspect.html");
    let (opened, layout) = (store.clone(), options::layout(config));
    let shards = run.until_stopped(move || async move { plan::shards_of(&opened, &layout).await });
    if let Some(mut manifest) = shards.await? {
        // Of no use to people.
        manifest.shards.iter_mut().for_each(|shard| shard.index = None);
        if page.is_some() || !kinds.is_empty() {
            return Err(Error::Usage(format!(
                "{} holds shards, of which inspect shows the manifest only: leave out --html and --fail-on, inspect the images that \
                 they were made of, or their own (--layout parquet)",
                store.location()
            )));
        }
        match asked.json {
            true => say_json(&manifest),
            false => say(&dataset(store.location(), &manifest)),
        }
        return Ok(());
    }
    let target = match page.clone() {
        Some(place) => {
            let (settings, source) = (config.clone(), config.text("source").into_iter().collect::<Vec<_>>());
            let look = move || async move { super::output(&settings, "--html", &place, &source).await };
            Some(run.until_stopped(look).await?)
        }
        None => None,
    };
    let (listed, layout) = (store.clone(), options::layout(config));
    let catalog: Catalog =
        run.until_stopped(move || async move { Ok(catalog::read(&listed, &layout).await?) }).await?;
    let bar = Bar::begin("inspect", catalog.entries().len() as u64, Unit::Images);
    let seen = Arc::new(AtomicU64::new(0));
    let (looking, settings, opened, looked_at) = (run.clone(), config.clone(), store.clone(), seen.clone());
    // Whoever stops it wants nothing of it: what is half looked at says nothing.
    let work =
        run.until_stopped(
            move || async move { inspect(&looking, &settings, &opened, catalog, looked_at).await },
        );
    let inspection = watched(work, || bar.at(seen.load(Ordering::Relaxed))).await?;
    drop(bar);
    let found = &inspection.found;
    warn(&found.warnings);
    if let Some((folder, file)) = target {
        let command = format!("forebay inspect {}", config.to_arguments(Command::Inspect).join(" "));
        let page = inspection.page(run, config, &store, &command).await?;
        warn(&Vec::from_iter(page.note));
        folder.put(&file, page.html.into()).await?;
    }
    match asked.json {
        true => say_json(found),
        false => say(&in_words(store.location(), found)),
    }
    if let Some(page) = page {
        note(&format!("written to {page}"));
    }
    match found.faults(&kinds) {
        faults if faults.is_empty() => Ok(()),
        faults => Err(Error::Found(format!("{}: {}", store.location(), faults.join(", ")))),
    }
}

/// What `inspect` says of a dataset of shards.
fn dataset(location: &str, manifest: &Manifest) -> String {
    let mut text = String::new();
    let counts = &manifest.counts;
    let _ = writeln!(
        text,
        "{location}: shards of Forebay, {} rows in {} shards",
        counts.rows,
        manifest.shards.len()
    );
    let _ = writeln!(text, "images stored as {}", manifest.stored_format);
    for split in &manifest.splits {
        let side = split.side_px.map_or("various sizes".to_string(), |side| format!("{side}x{side} px"));
        let _ =
            writeln!(text, "{} {} rows of {side}, {}", split.split, split.rows, bytes_in_words(split.bytes));
    }
    let splits = manifest.splits.iter();
    let splits: Vec<SplitCounts> =
        splits.map(|split| (split.split, split.classes.iter().map(|class| class.rows).collect())).collect();
    text += &class_table(&manifest.classes, &splits);
    text += "of shards inspect shows the manifest: what is wrong with images\nis said of the folder that they were made of\n";
    text
}
