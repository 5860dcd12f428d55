//! Sections of the run file as the types that they stand for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use forebay_datasets::catalog::LayoutOptions;
use forebay_datasets::folds::Fold;
use forebay_datasets::groups::Together;
use forebay_datasets::split::{HashSplit, Shares};
use forebay_datasets::store::{CacheOptions, StoreOptions};
use forebay_stages::augment::Augment;
use forebay_stages::balance::BalanceOptions;
use forebay_stages::chain::Wanted;
use forebay_stages::decode::{Decode, Limits};
use forebay_stages::normalize::Normalize;
use forebay_train::{ClassWeights, Loss};
use regex::Regex;
use toml::Value;

use super::cache_home::cache_home;
use super::choices::Background;
use super::values::Config;
use crate::flow::open_files_max;

/// The store options that the run file gives.
pub fn store_options(config: &Config) -> StoreOptions {
    StoreOptions {
        endpoint: config.text("store.endpoint"),
        region: config.text("store.region"),
        anonymous: config.is_on("store.anonymous"),
        allow_private: config.is_on("store.allow_private"),
        from_strangers: false,
        instance_metadata: config.is_on("store.instance_metadata"),
        cache: config.text("store.cache").map(|folder| CacheOptions {
            folder: folder.into(),
            bytes_max: config.whole("store.cache_limit"),
        }),
        requests_max: requests_max(),
    }
}

/// Requests in flight to one bucket. A run reads one, writes another and may keep its weights in a third, and as many
/// files again are left to the disk, the pool's threads and what the libraries open.
fn requests_max() -> usize {
    (open_files_max() / 4).clamp(2, 256)
}

/// Which layout SOURCE is read as.
pub fn layout(config: &Config) -> LayoutOptions {
    let source = config.text("source");
    layout_at(config, source.as_deref().unwrap_or_default())
}

/// Which layout a place is read as.
pub fn layout_at(config: &Config, place: &str) -> LayoutOptions {
    LayoutOptions {
        layout: config.choice("data.layout"),
        file: dataset_file(place).map(|(_, file)| file_key(place, file).into_owned()),
        image_column: config.text("data.image_column"),
        label_column: config.text("data.label_column"),
        keep_columns: {
            let mut columns = keep_columns(config);
            if let Ok(Some(GroupBy::Column(column))) = group_by(config)
                && !columns.contains(&column)
            {
                columns.push(column);
            }
            columns
        },
        index_folder: cache_home().map(|folder| folder.join("indexes")),
    }
}

/// The folder and the name of a file at a path or URL.
pub(crate) fn folder_and_file(place: &str) -> (&str, &str) {
    match place.rsplit_once('/') {
        Some(("", file)) => ("/", file),
        Some(parts) => parts,
        None => (".", place),
    }
}

/// The key in the folder of a place of the file whose name ends it: in a URL of the web or of this machine, percent-escapes
/// stand for bytes, as in its folder. An escaped slash divides no folders, and stays as it is.
pub(crate) fn file_key<'a>(place: &str, file: &'a str) -> Cow<'a, str> {
    let scheme = place.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    if !scheme.is_some_and(|scheme| ["http", "https", "file"].contains(&&*scheme)) {
        return Cow::Borrowed(file);
    }
    let mut bytes = Vec::new();
    let mut rest = file.as_bytes();
    while let [first, after @ ..] = rest {
        let digits =
            after.get(..2).filter(|digits| *first == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let code = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = code.and_then(|code| u8::from_str_radix(code, 16).ok()).filter(|byte| *byte != b'/');
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(file), Cow::Owned)
}

/// The folder and the name of a file that holds samples or names them, where a place is one: `photos/labels.csv`,
/// `shards/train-{000..031}.tar`. A folder that is called so is a folder.
pub fn dataset_file(place: &str) -> Option<(&str, &str)> {
    const EXTENSIONS: [&str; 6] = ["csv", "tsv", "jsonl", "ndjson", "parquet", "tar"];
    let (folder, file) = folder_and_file(place);
    let extension = file.rsplit_once('.')?.1.to_lowercase();
    let is_folder = || !place.contains("://") && std::path::Path::new(place).is_dir();
    (EXTENSIONS.contains(&&*extension) && !folder.ends_with(":/") && !is_folder()).then_some((folder, file))
}

/// How image files are decoded by the run file, on the background that a chain has.
pub fn decode(config: &Config, background: Option<[u8; 3]>) -> Decode {
    let limits = Limits {
        side_px_max: config.whole("decode.max_side") as u32,
        memory_bytes_max: config.whole("decode.max_bytes"),
    };
    let (decoder, scale) = (config.choice("decode.decoder"), config.choice("decode.scale"));
    Decode { background, limits, decoder, scale, hashes: false }
}

/// What the run file asks of the preparation of images; what it says nothing of is open.
pub fn wanted(config: &Config) -> Wanted {
    Wanted {
        side: config.integer("resize.size").map(|side| side as u32),
        fit: config.chosen("resize.fit"),
        crop_pct: config.number("resize.crop_pct"),
        filter: config.chosen("resize.filter"),
        background: config.chosen("decode.background").map(Background::color),
        normalize: Some(normalize(config)),
    }
}

/// The augmentation that the run file gives; `None` where it is off.
pub(crate) fn augment(config: &Config, problems: &mut Vec<String>) -> Option<Augment> {
    let augment: Augment = match config.get("augment") {
        Some(Value::Table(table)) => match table.clone().try_into() {
            Ok(augment) => augment,
            Err(error) => {
                problems.push(format!("augment: {}", error.to_string().replace('\n', " ").trim()));
                return None;
            }
        },
        other => {
            other.and_then(Value::as_str).unwrap_or("none").parse().expect("presets are checked by kind")
        }
    };
    problems.extend(augment.problems().into_iter().map(|problem| format!("augment.{problem}")));
    let augment = augment.without_idle();
    (!augment.is_off()).then_some(augment)
}

pub(crate) fn balance_options(config: &Config, problems: &mut Vec<String>) -> BalanceOptions {
    let options = BalanceOptions {
        mode: config.choice("balance.mode"),
        ratio: config.real("balance.ratio"),
        max_repeats: config.whole("balance.max_repeats") as u32,
        beta: config.real("balance.beta"),
        threshold: config.number("balance.threshold"),
        targets: balance_targets(config),
    };
    problems.extend(options.problems());
    options
}

/// `[balance.targets]`: images by class.
fn balance_targets(config: &Config) -> BTreeMap<String, u64> {
    let table = config.get("balance.targets").and_then(Value::as_table);
    let number = |value: &Value| value.as_integer().expect("targets are checked by kind") as u64;
    table.into_iter().flatten().map(|(class, images)| (class.clone(), number(images))).collect()
}

pub(crate) fn shares(config: &Config, problems: &mut Vec<String>) -> Option<Shares> {
    let shares = config.numbers("split.shares")?;
    Shares::new(shares[0], shares[1], shares[2])
        .map_err(|problem| problems.push(format!("split.shares: {problem}")))
        .ok()
}

/// Columns of the source that go into the shards.
pub fn keep_columns(config: &Config) -> Vec<String> {
    let text = config.text("data.keep_columns").unwrap_or_default();
    let mut columns: Vec<String> = Vec::new();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if !columns.iter().any(|column| column == name) {
            columns.push(name.to_string());
        }
    }
    columns
}

/// What decides which samples belong together, beside what the source says of them.
pub fn together(config: &Config) -> Together {
    Together { pictures: config.choice("split.group"), by: config.text("split.group_by") }
}

/// What `--group-by` names.
#[derive(Clone, Debug)]
pub enum GroupBy {
    /// A column of the source: samples of one value belong together.
    Column(String),
    /// A pattern of ids, in which parentheses stand around what samples that belong together share.
    Pattern(Regex),
}

impl fmt::Display for GroupBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GroupBy::Column(column) => write!(f, "column {column}"),
            GroupBy::Pattern(pattern) => write!(f, "pattern {pattern}"),
        }
    }
}

/// What `--group-by` names: with a parenthesis a pattern, else a column.
///
/// # Errors
/// One line for a pattern that is none.
pub fn group_by(config: &Config) -> Result<Option<GroupBy>, String> {
    let Some(text) = config.text("split.group_by") else { return Ok(None) };
    if !text.contains('(') {
        return Ok(Some(GroupBy::Column(text)));
    }
    let pattern = Regex::new(&text).map_err(|error| {
        let error = error.to_string();
        let last = error.lines().last().unwrap_or_default();
        format!("split.group_by: {text} is no pattern: {}", last.trim_start_matches("error: "))
    })?;
    match pattern.captures_len() {
        1 => Err(format!(
            "split.group_by: {text} has no group in parentheses around what samples that belong together share, as ([^_]+)_ \
             has"
        )),
        _ => Ok(Some(GroupBy::Pattern(pattern))),
    }
}

/// The split that the options ask for, where the source declares none.
pub(crate) fn hash_split(config: &Config, problems: &mut Vec<String>) -> Option<HashSplit> {
    let shares = shares(config, problems)?;
    let (seed, together) = (config.whole("split.seed"), together(config));
    Some(HashSplit { shares, seed, together, stratify: config.is_on("split.stratify") })
}

/// The fold of a cross-validation that a run is; the first where none is named. `None` where nothing is folded.
pub fn fold(config: &Config) -> Option<Fold> {
    let folds = config.integer("split.folds")? as u32;
    Fold::new(config.integer("split.fold").map_or(0, |number| number as u32 - 1), folds)
}

/// What is wrong with the fold of a run.
pub(crate) fn fold_problem(config: &Config) -> Option<String> {
    let (folds, number) = (config.integer("split.folds")?, config.integer("split.fold")?);
    (number > folds).then(|| format!("split.fold: {number} of {folds} folds; give 1 to {folds}"))
}

/// The loss that the run file gives, with its numbers.
pub fn loss(config: &Config) -> Loss {
    let (gamma, beta) = (config.real("train.focal_gamma"), config.real("train.effective_beta"));
    match config.choice("train.loss") {
        Loss::Focal { .. } => Loss::Focal { gamma },
        Loss::ClassBalancedFocal { .. } => Loss::ClassBalancedFocal { gamma, beta },
        Loss::LogitAdjustment { .. } => Loss::LogitAdjustment { tau: config.real("train.logit_tau") },
        other => other,
    }
}

/// How the run file weighs the classes; LDAM comes with weights where it says nothing.
pub fn class_weights(config: &Config) -> ClassWeights {
    let usual = match config.choice("train.loss") {
        Loss::Ldam => ClassWeights::Effective { beta: 0.0 },
        _ => ClassWeights::None,
    };
    match config.chosen("train.class_weights").unwrap_or(usual) {
        ClassWeights::Effective { .. } => {
            ClassWeights::Effective { beta: config.real("train.effective_beta") }
        }
        other => other,
    }
}

/// The share of the run after which the weights of the classes count.
pub fn deferred_share(config: &Config) -> f64 {
    config.number("train.defer").unwrap_or(match config.choice("train.loss") {
        // As LDAM-DRW: epoch 160 of 200.
        Loss::Ldam => 0.8,
        _ => 0.0,
    })
}

/// The normalisation that the run file gives.
pub(super) fn normalize(config: &Config) -> Normalize {
    let triple = |key, default: [f32; 3]| match config.numbers(key) {
        Some(values) => [values[0] as f32, values[1] as f32, values[2] as f32],
        None => default,
    };
    Normalize {
        mean: triple("train.mean", Normalize::IMAGENET.mean),
        std: triple("train.std", Normalize::IMAGENET.std),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_part_of_a_url_is_unescaped_as_its_folder_is() {
        for (place, expected) in [
            ("https://h/a%20b/100%25.tar", "100%.tar"),
            ("https://h/a%20b/x%20y%23%C3%BC.tar", "x y#ü.tar"),
            ("file:///a%20b/x%20y.csv", "x y.csv"),
            // What is no escape, or none of text, stays as it is.
            ("https://h/100%.tar", "100%.tar"),
            ("https://h/a%zz%+1.tar", "a%zz%+1.tar"),
            ("https://h/%E4.tar", "%E4.tar"),
            ("https://h/a%2Fb.tar", "a%2Fb.tar"),
            // Elsewhere a key is a key.
            ("s3://b/x%20y.tar", "x%20y.tar"),
            ("a%20b/x%20y.tar", "x%20y.tar"),
        ] {
            let (_, file) = folder_and_file(place);
            assert_eq!(file_key(place, file), expected, "{place}");
        }
    }
}
