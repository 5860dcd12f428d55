//! `forebay prepare`: images to shards.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use forebay_datasets::manifest::FixedLabels;
use forebay_datasets::sample::Split;
use forebay_stages::balance::Balance;
use serde_json::{Value, json};

use super::{say_plan, say_that_it_looks};
use crate::flow::{Error, Run, in_one_line};
use crate::options::{Invocation, bytes_in_words};
use crate::plan::{self, Destination, PreparePlan, balance_in_words};
use crate::prepare::{self, Prepared, Quarantined};
use crate::report::{Bar, Unit, Usage, detail, note, say, say_json, tell, terminal, warn, watched};

/// Runs the command.
///
/// # Errors
/// The first error of the run.
pub async fn run(run: &Run, asked: &Invocation) -> Result<(), Error> {
    of(run, asked).await
}

/// What `prepare` does with these options, whatever command they are of.
///
/// # Errors
/// The first error of the run.
pub(super) async fn of(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let (start, config) = (Instant::now(), &asked.config);
    say_that_it_looks(config);
    let (options, planning) = (config.clone(), run.clone());
    let resolve = move || async move { PreparePlan::resolve(&planning, &options).await };
    let plan = Arc::new(run.until_stopped(resolve).await?);
    if asked.plan_only {
        say_plan(asked, &*plan, || planned(&plan));
        return Ok(());
    }
    detail(&plan.to_string());
    let catalog = &plan.rows.catalog;
    warn(&plan.rows.warnings);
    let location = plan.dest.location().to_string();
    let balance: Balance = config.choice("balance.mode");
    if balance != Balance::None {
        tell(&format!("balance: {balance}, training split\n"));
        tell(&balance_in_words(catalog.classes(), &plan.rows.balance));
        if plan.augment.is_none() && plan.rows.planned[Split::Train as usize].iter().any(|row| row.copy > 0) {
            note(
                "without --augment the copies are equal; `forebay train --balance` repeats samples as it reads them and \
                 costs no disk",
            );
        }
    }
    let rows = plan.rows.planned.iter().map(Vec::len).sum::<usize>() as u64;
    let bar = Bar::begin("prepare", rows, Unit::Images);
    let work = prepare::prepare(run, plan.clone());
    let done = watched(work, || bar.at(run.meter().samples(plan.last_stage()))).await;
    drop(bar);
    if matches!(done, Err(Error::Interrupted(_))) {
        let destination = Destination::read(&plan.dest).await?;
        match destination.is_of(&plan.record()) {
            true => {
                note(&format!("what is finished stays in {location}; the same command goes on from there"))
            }
            false => note(&format!("nothing was changed in {location}")),
        }
    }
    let refused = match &done {
        Ok(done) => done.rejects.clone(),
        // Whoever has too many looks at them first of all.
        Err(Error::TooManyRejects { .. }) => run.rejects().list(),
        Err(_) => Vec::new(),
    };
    if let Some(place) = plan.quarantine.clone().filter(|_| !refused.is_empty()) {
        match prepare::quarantine(&plan, &place, &refused).await {
            Ok(Quarantined { copied, without }) => {
                let without = match without {
                    0 => String::new(),
                    n => format!("; of {n} there is no file to copy"),
                };
                let files = if copied == 1 { "rejected file is" } else { "rejected files are" };
                note(&format!("{copied} {files} copied to {}{without}", place.location()));
            }
            Err(error) if done.is_ok() => return Err(error),
            // What ended the run comes first.
            Err(error) => warn(&[format!("rejected files were not copied: {}", in_one_line(&error))]),
        }
    }
    let done = done?;
    let seconds = start.elapsed().as_secs_f64();
    let counts = &done.manifest.counts;
    let usage = Usage::now();
    if asked.json {
        say_json(&json!({
            "found": counts.found, "written": counts.written, "rejected": counts.rejected,
            "dropped": counts.dropped, "fixes": done.manifest.fixes, "rows": counts.rows, "shards": done.manifest.shards.len(),
            "shards_reused": done.shards_reused, "seconds": seconds, "cpu_seconds": usage.cpu_seconds,
            "peak_memory_bytes": usage.peak_memory_bytes, "fingerprint": done.manifest.fingerprint,
            "dest": location,
        }));
    } else {
        say(&prepared(&location, &done, seconds));
    }
    Ok(())
}

/// A plan as one object.
fn planned(plan: &PreparePlan) -> Value {
    let catalog = &plan.rows.catalog;
    let splits: Vec<Value> = Split::ALL
        .into_iter()
        .map(|split| {
            json!({
                "split": split, "rows": plan.rows.of(split).len(),
                "shards": plan.shards.iter().filter(|shard| shard.split == split).count(),
            })
        })
        .collect();
    json!({
        "source": plan.source.location(), "dest": plan.dest.location(), "fingerprint": plan.fingerprint,
        "layout": catalog.layout(), "classes": catalog.classes(), "samples": catalog.entries().len(),
        "rejected": catalog.rejects().len(), "dropped": plan.rows.dropped(), "fixes": plan.fixes, "splits": splits,
        "samples_per_shard": plan.samples_per_shard, "settings": plan.settings,
        "memory": plan::memory_as_json(&plan.memory()),
        "warnings": plan.rows.warnings,
    })
}

/// What `prepare` did.
fn prepared(location: &str, done: &Prepared, seconds: f64) -> String {
    let mut text = String::new();
    let counts = &done.manifest.counts;
    let reused = match done.shards_reused {
        0 => String::new(),
        n => format!(", {n} of them found finished"),
    };
    let fixed_away = done.manifest.fixes.map_or(0, |fixes| fixes.dropped);
    let by_fixes =
        if fixed_away == 0 { String::new() } else { format!(" + {fixed_away} dropped by --fixes") };
    let _ = writeln!(
        text,
        "{} found = {} written + {} rejected + {} dropped by the balance{by_fixes}",
        counts.found,
        counts.written,
        counts.rejected,
        counts.dropped - fixed_away
    );
    if let Some(FixedLabels { relabelled, .. }) = done.manifest.fixes.filter(|fixes| fixes.relabelled > 0) {
        let _ = writeln!(text, "{relabelled} relabelled by --fixes");
    }
    let _ = writeln!(
        text,
        "{} rows in {} shards{reused}, {seconds:.1} s",
        counts.rows,
        done.manifest.shards.len()
    );
    for split in &done.manifest.splits {
        let _ =
            writeln!(text, "  {:<12} {:>9} rows  {}", split.split, split.rows, bytes_in_words(split.bytes));
    }
    text += &terminal::rejected(
        &done.rejects,
        &format!(", all of them in {}/rejects.jsonl", location.trim_end_matches('/')),
    );
    let _ = writeln!(text, "written to {location}");
    text
}
