//! In what a plan differs from the one that stands in its destination, in words.

use std::collections::BTreeMap;

use forebay_datasets::manifest::{PlanRecord, ShardPlan};
use forebay_datasets::sample::{SampleId, Split};
use forebay_datasets::words::Words;
use serde_json::Value;

use crate::options::Background;

/// Names that one line shows; of more it says how many there are.
const NAMES_MAX: usize = 3;

/// One line for each part in which `plan` differs from `standing`, such as a setting with both of its values; none
/// where they are the same plan.
pub(super) fn differences(standing: &PlanRecord, plan: &PlanRecord) -> Vec<String> {
    let mut lines = settings_differ(&standing.settings, &plan.settings);
    let (before, after) = (standing.assignment.rule(), plan.assignment.rule());
    if before != after {
        lines.push(format!("split by {before} -> {after}"));
    }
    lines.extend(came_and_went("class", "classes", &standing.classes, &plan.classes));
    let ids = |record: &PlanRecord| -> Vec<SampleId> {
        record.assignment.samples().iter().map(|(id, _)| id.clone()).collect()
    };
    lines.extend(came_and_went("image", "images", &ids(standing), &ids(plan)));
    let moved: Vec<String> = (plan.assignment.samples().iter())
        .filter_map(|(id, split)| moved(id, standing.assignment.split(id)?, *split))
        .collect();
    lines.extend(counted(&moved, "image goes", "images go").map(|line| line + " to another split"));
    // What a file holds stands in no plan; that it is another file is all that is left, or what its shard says.
    let is_other = standing.fingerprint != plan.fingerprint && lines.is_empty();
    if is_other || has_other_versions(&standing.shards, &plan.shards) {
        lines.push("files of the source have changed".to_string());
    }
    lines
}

fn moved(id: &SampleId, before: Split, after: Split) -> Option<String> {
    (before != after).then(|| format!("{id}: {before} -> {after}"))
}

/// Whether a shard that is to hold the same was made from other versions of its files.
fn has_other_versions(standing: &[ShardPlan], plan: &[ShardPlan]) -> bool {
    let versions: BTreeMap<(&str, &str), &str> = standing
        .iter()
        .map(|shard| ((shard.key.as_str(), shard.fingerprint.as_str()), shard.versions.as_str()))
        .collect();
    plan.iter().any(|shard| {
        let before = versions.get(&(shard.key.as_str(), shard.fingerprint.as_str()));
        before.is_some_and(|before| *before != shard.versions)
    })
}

/// Each setting of which the two say something else, by the key of its option.
pub(super) fn settings_differ(before: &Value, after: &Value) -> Vec<String> {
    let of = |settings: &Value| -> BTreeMap<String, Value> {
        let mut found = BTreeMap::new();
        leaves("", settings, &mut found);
        found.into_iter().filter_map(|(key, value)| option_of(&key, value)).collect()
    };
    let (from, to) = (of(before), of(after));
    let keys: std::collections::BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    let said = |value: Option<&Value>| value.map_or("not set".to_string(), |value| value.to_string());
    keys.into_iter()
        .filter(|key| from.get(*key) != to.get(*key))
        .map(|key| format!("{key} {} -> {}", said(from.get(key)), said(to.get(key))))
        .collect()
}

/// What decided a setting, as its option says it: the chain of a dataset is what the options of images come to. `None`
/// for what follows from others.
fn option_of(key: &str, value: &Value) -> Option<(String, Value)> {
    if let Some(field) = key.strip_prefix("chain.resize.0.") {
        return match field {
            "side" => Some(("resize.size".to_string(), value.clone())),
            "pad_color" => None,
            field => Some((format!("resize.{field}"), value.clone())),
        };
    }
    match key {
        "chain.resize" => Some(("resize.size".to_string(), "original".into())),
        "chain.background" => {
            let color: Option<[u8; 3]> = serde_json::from_value(value.clone()).ok()?;
            let background = Background::of_color(color).map(|background| background.name().into());
            Some(("decode.background".to_string(), background.unwrap_or_else(|| value.clone())))
        }
        "chain.jpeg_quality" | "chain.normalize" => None,
        key => Some((key.to_string(), value.clone())),
    }
}

/// The values within a value by their keys: `chain.resize.0.side`. A list of plain values is one value.
fn leaves<'a>(key: &str, value: &'a Value, found: &mut BTreeMap<String, &'a Value>) {
    let below = |name: &str| if key.is_empty() { name.to_string() } else { format!("{key}.{name}") };
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().for_each(|(name, value)| leaves(&below(name), value, found));
        }
        Value::Array(values) if values.iter().any(Value::is_object) => {
            (values.iter().enumerate()).for_each(|(at, value)| leaves(&below(&at.to_string()), value, found));
        }
        _ => drop(found.insert(key.to_string(), value)),
    }
}

/// What only the second of two sorted lists holds, and what only the first.
fn came_and_went<T: AsRef<str> + Ord>(one: &str, many: &str, before: &[T], after: &[T]) -> Vec<String> {
    let without = |of: &[T], other: &[T]| -> Vec<String> {
        let only = of.iter().filter(|name| other.binary_search(name).is_err());
        only.map(|name| name.as_ref().to_string()).collect()
    };
    let (came, went) = (without(after, before), without(before, after));
    let line =
        |names: &[String], verb: &str| counted(names, &format!("{one} {verb}"), &format!("{many} {verb}"));
    line(&came, "came").into_iter().chain(line(&went, "went")).collect()
}

/// How many there are and the first of them; `None` for none.
fn counted(names: &[String], one: &str, many: &str) -> Option<String> {
    let shown = names.iter().take(NAMES_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => None,
        1 => Some(format!("1 {one} ({shown})")),
        n if n <= NAMES_MAX => Some(format!("{n} {many} ({shown})")),
        n => Some(format!("{n} {many} ({shown}, ..)")),
    }
}
