//! What was found in a source, for a terminal: at most 60 columns, but for names and the command.

use std::fmt::{Display, Write as _};

use forebay_datasets::words::Words;
use indicatif::HumanCount;

use super::{Inspected, Percentiles};
use crate::options::bytes_in_words;
use crate::plan::shorten;
use crate::report::{SplitCounts, class_table, terminal};

/// The widest line.
const COLUMNS: usize = 60;

/// Where what is said begins, after its name.
const INDENT: usize = 9;

/// Groups of duplicates that are listed.
const GROUPS_SHOWN: usize = 5;

/// What `inspect` found in the source at `location`.
pub fn in_words(location: &str, found: &Inspected) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{location}: {}", found.layout);
    let (n, bytes) = (HumanCount(found.found), bytes_in_words(found.bytes));
    let _ = writeln!(text, "{n} samples in {} classes, {bytes}", found.classes.len());
    let names: Vec<String> = found.classes.iter().map(|(name, _)| name.clone()).collect();
    let by_split: Vec<SplitCounts> = found.classes_by_split.clone().into_iter().collect();
    text += &class_table(&names, &by_split);
    let shares = &found.class_shares;
    if let (Some(imbalance), Some(majority)) = (shares.imbalance, &shares.majority) {
        let percent = 100.0 * shares.majority_accuracy;
        let words =
            [format!("{imbalance:.1} to 1"), format!("always {}: {percent:.1} %", shorten(majority, 22))];
        text += &row("balance", words);
    }
    text += &row("splits", counted(found.splits.iter().map(|(split, n)| (*split, *n))));
    text += &row("formats", counted(found.formats.iter().map(|(name, n)| (name, *n))));
    if found.files.colors.len() > 1 || found.files.gray_as_color > 0 {
        let mut colors = counted(found.files.colors.iter().map(|(name, n)| (name, *n)));
        colors.extend(some(found.files.gray_as_color, "of them gray in RGB"));
        text += &row("colors", colors);
    }
    text += &row("exif", some(found.files.turned, "turned or mirrored by EXIF"));
    for (name, lengths) in [("width", found.width), ("height", found.height)] {
        if let Some(Percentiles { min, p5, median, p95, max }) = lengths {
            let _ = writeln!(text, "{name:<8} min {min}, p5 {p5}, median {median}, p95 {p95}, max {max} px");
        }
    }
    if let Some(Percentiles { min, p5, median, p95, max }) = found.files.jpeg_quality {
        let _ = writeln!(text, "jpeg     quality min {min}, p5 {p5}, median {median}, p95 {p95}, max {max}");
    }
    if let Some(Percentiles { median, p95, max, .. }) = found.crop_loss {
        let [median, p95, max] = [median, p95, max].map(|share| 100.0 * share);
        let _ = writeln!(text, "crop     cuts off median {median:.0} %, p95 {p95:.0} %, max {max:.0} %");
    }
    let triple = |values: [f64; 3]| values.map(|value| format!("{value:.3}")).join(",");
    if !found.formats.is_empty() {
        let _ = writeln!(text, "color    --mean {} --std {}", triple(found.mean), triple(found.std));
    }
    text += &row("ignored", counted(found.ignored.iter().map(|(name, n)| (name, *n))));
    let flagged = found.pictures.flagged.iter().map(|(flaw, images)| (flaw.name(), images.len() as u64));
    text += &row("looks", counted(flagged));
    let mislabelled = found.files.mislabelled.len() as u64;
    text += &row("names", counted([("extension of another format", mislabelled)]));
    text += &duplicates(found);
    if let Some(probe) = &found.shortcuts {
        let mut words: Vec<String> = probe
            .attributes
            .iter()
            .filter(|found| found.predicts)
            .map(|found| format!("{} {:.0} %", found.name, 100.0 * found.accuracy))
            .collect();
        if !words.is_empty() {
            words.push(format!("chance {:.0} %", 100.0 * probe.baseline));
        }
        text += &row("shortcut", words);
    }
    if !found.rejects.is_empty() {
        let kinds = found.files.damaged.iter().map(|(damage, n)| format!("{n} {}", damage.in_words()));
        let _ = writeln!(text, "{} would be rejected:", found.rejects.len());
        text += &row("", kinds.collect::<Vec<String>>());
        text += &terminal::reject_lines(&found.rejects);
    }
    if let Some(suggestion) = &found.suggestion {
        let _ = writeln!(text, "next\n  {}", suggestion.command);
        for reason in &suggestion.reasons {
            let _ = writeln!(text, "    {reason}");
        }
    }
    text
}

fn duplicates(found: &Inspected) -> String {
    let duplicates = &found.duplicates;
    if duplicates.groups.is_empty() {
        return String::new();
    }
    let mut words = vec![format!("groups {}", duplicates.groups.len())];
    words.push(format!("images too many {}", HumanCount(duplicates.superfluous)));
    words.extend(counted([("in several splits", duplicates.across_splits as u64)]));
    words.extend(counted([("in several classes", duplicates.across_classes as u64)]));
    let mut text = row("copies", words);
    for group in duplicates.groups.iter().take(GROUPS_SHOWN) {
        let width = (COLUMNS - 10) / 2;
        let names: Vec<String> = group.images.iter().take(2).map(|image| shorten(&image.id, width)).collect();
        let more = match group.images.len() - names.len() {
            0 => String::new(),
            more => format!(" +{more}"),
        };
        // Copies are equal; others are alike.
        let between = if group.is_exact { " = " } else { " ~ " };
        let _ = writeln!(text, "  {}{more}", names.join(between));
    }
    if duplicates.groups.len() > GROUPS_SHOWN {
        let _ = writeln!(text, "  … and {} more groups", duplicates.groups.len() - GROUPS_SHOWN);
    }
    text
}

/// Each name with its number, but for those of which there is none.
fn counted<T: Display>(pairs: impl IntoIterator<Item = (T, u64)>) -> Vec<String> {
    let pairs = pairs.into_iter().filter(|(_, n)| *n > 0);
    pairs.map(|(name, n)| format!("{name} {}", HumanCount(n))).collect()
}

fn some(n: u64, what: &str) -> Vec<String> {
    if n == 0 { Vec::new() } else { vec![format!("{} {what}", HumanCount(n))] }
}

/// A name and what belongs to it, on as many lines as it takes; nothing where nothing does.
fn row(name: &str, words: impl Into<Vec<String>>) -> String {
    let words: Vec<String> = words.into();
    let mut text = String::new();
    let mut line = format!("{name:<INDENT$}");
    for (at, word) in words.iter().enumerate() {
        let piece = if at + 1 < words.len() { format!("{word},") } else { word.clone() };
        let is_full = line.chars().count() + 1 + piece.chars().count() > COLUMNS;
        if is_full && line.trim_end().chars().count() > name.chars().count().max(1) {
            let _ = writeln!(text, "{}", line.trim_end());
            line = " ".repeat(INDENT);
        }
        line += &piece;
        line.push(' ');
    }
    if !words.is_empty() {
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}
