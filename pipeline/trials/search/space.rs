//! The settings that a search may choose: options of `train`, each with a range or a list of values.

use std::collections::BTreeMap;

use forebay_datasets::escape::one_line;
use forebay_stages::balance::Balance;
use forebay_train::search::Axis;
use serde::Serialize;
use toml::{Table, Value};

use crate::options::{Command, Config, FreezePlan, Identity, Kind, OptionRow, option, unknown_key};

/// In a list of values, the one that leaves the option out.
const UNSET: &str = "unset";
/// The most whole numbers of a range that are taken as so many values; more are taken as a range of numbers.
const COUNTED_MAX: i64 = 16;
/// Classes are uneven from this ratio of the largest to the smallest on.
const UNEVEN: f64 = 1.5;

/// An option that is searched.
#[derive(Clone, Debug)]
pub struct Dimension {
    /// Its row in the table of options.
    pub row: &'static OptionRow,
    /// What it may be.
    pub range: Range,
}

/// What an option may be.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Range {
    /// A number from `low` to `high`, both among them, rounded to four digits.
    Number {
        /// The least.
        low: f64,
        /// The most.
        high: f64,
        /// Whether each tenfold is as likely as any other.
        log: bool,
    },
    /// A whole number from `low` to `high`, both among them.
    Integer {
        /// The least.
        low: i64,
        /// The most.
        high: i64,
        /// Whether each tenfold is as likely as any other.
        log: bool,
    },
    /// One of these; `None` leaves the option out.
    Values(Vec<Option<Value>>),
}

/// The options that are searched, in the order of their keys.
#[derive(Clone, Debug)]
pub struct Space {
    /// One or more.
    pub dimensions: Vec<Dimension>,
}

impl Space {
    /// The space that the options name, or the usual one for what is trained on images of so many in each class.
    ///
    /// # Errors
    /// One line for each thing that is wrong.
    pub fn of(config: &Config, class_counts: &[u64]) -> Result<Space, Vec<String>> {
        let Some(Value::Table(table)) = config.get("tune.space") else {
            return Ok(Space::usual(config, class_counts));
        };
        let (mut dimensions, mut problems) = (Vec::new(), Vec::new());
        read(table, "", &mut dimensions, &mut problems);
        if dimensions.is_empty() && problems.is_empty() {
            problems.push("tune.space: it is empty; leave it out for the usual one".to_string());
        }
        let lines = problems.iter().map(|line| one_line(line).into_owned());
        if problems.is_empty() { Ok(Space::sorted(dimensions)) } else { Err(lines.collect()) }
    }

    fn sorted(mut dimensions: Vec<Dimension>) -> Space {
        dimensions.sort_by_key(|dimension| dimension.row.key);
        Space { dimensions }
    }

    fn usual(config: &Config, class_counts: &[u64]) -> Space {
        let log = |low: f64, high: f64| Range::Number { low, high, log: true };
        let linear = |low: f64, high: f64| Range::Number { low, high, log: false };
        let words =
            |words: &[&str]| Range::Values(words.iter().map(|word| Some(Value::from(*word))).collect());
        let all_of = |key: &str| match option(key).map(|row| row.kind) {
            Some(Kind::Choice(choices)) => words(choices),
            _ => unreachable!("{key} is a choice"),
        };
        let is_frozen = FreezePlan::of(config).trains_head_only();
        let rates = match (is_frozen, config.get("train.weights").is_some()) {
            (true, _) => log(1e-4, 1e-1),
            (false, true) => log(1e-5, 1e-2),
            (false, false) => log(1e-4, 3e-2),
        };
        let whole = |numbers: &[i64]| -> Vec<Option<Value>> {
            numbers.iter().map(|number| Some(Value::from(*number))).collect()
        };
        let mut usual = vec![
            ("train.learning_rate", rates),
            ("train.weight_decay", log(1e-6, 1e-1)),
            ("train.label_smoothing", linear(0.0, 0.2)),
            ("train.dropout", linear(0.0, 0.5)),
            ("train.batch_size", Range::Values(whole(&[16, 32, 64, 128]))),
        ];
        if is_frozen {
            usual.push((
                "train.head_width",
                Range::Values(std::iter::once(None).chain(whole(&[64, 128, 256, 512])).collect()),
            ));
            usual.push(("train.head_activation", all_of("train.head_activation")));
        }
        let (most, least) = (class_counts.iter().max(), class_counts.iter().min());
        let ratio = *most.unwrap_or(&1) as f64 / (*least.unwrap_or(&1)).max(1) as f64;
        if ratio > UNEVEN {
            usual.push(("train.loss", all_of("train.loss")));
            usual.push(("train.class_weights", words(&["none", "inverse", "effective"])));
            if config.choice::<Balance>("balance.mode") == Balance::None {
                usual.push(("balance.mode", words(&["none", "over"])));
            }
        }
        let dimension = |(key, range): (&str, Range)| {
            let row = option(key).expect("the table has it");
            Dimension { row, range }
        };
        // What the user has decided is not searched.
        let is_open = |key: &str| !config.is_given(key);
        Space::sorted(usual.into_iter().filter(|(key, _)| is_open(key)).map(dimension).collect())
    }

    /// The axes of a search, one for each option.
    pub fn axes(&self) -> Vec<Axis> {
        self.dimensions.iter().map(Dimension::axis).collect()
    }

    /// The options of a trial at a point, over those that all have in common. Those that have no effect beside the others are
    /// left as they are there.
    pub fn settings(&self, base: &Config, point: &[f64]) -> (Config, Vec<(&'static str, Option<Value>)>) {
        let mut config = base.clone();
        let mut chosen = Vec::new();
        for (dimension, coordinate) in self.dimensions.iter().zip(point) {
            let value = dimension.value(*coordinate);
            config = config.with_setting(dimension.row, value.clone());
            chosen.push((dimension.row, value));
        }
        let all = config.clone();
        let mut settings = Vec::new();
        for (row, value) in chosen {
            match value.is_none() || all.takes_part(row, Command::Train) {
                true => settings.push((row.key, value)),
                false => config = config.with_that_of(row, base),
            }
        }
        (config, settings)
    }

    /// The space for programs: by key.
    pub fn to_json(&self) -> serde_json::Map<String, serde_json::Value> {
        let json = |range: &Range| serde_json::to_value(range).expect("ranges are plain data");
        self.dimensions
            .iter()
            .map(|dimension| (dimension.row.key.to_string(), json(&dimension.range)))
            .collect()
    }
}

impl std::fmt::Display for Space {
    /// A line for each option.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for Dimension { row, range } in &self.dimensions {
            match range {
                Range::Number { low, high, log } => {
                    writeln!(f, "  {:<24} {low} to {high}{}", row.key, if *log { ", log" } else { "" })?
                }
                Range::Integer { low, high, log } => {
                    writeln!(f, "  {:<24} {low} to {high}{}", row.key, if *log { ", log" } else { "" })?
                }
                Range::Values(values) => {
                    let values: Vec<String> = values.iter().map(in_words).collect();
                    writeln!(f, "  {:<24} {}", row.key, values.join(", "))?
                }
            }
        }
        Ok(())
    }
}

/// Settings as the journal has them: null leaves an option out.
pub fn by_key(settings: Vec<(&'static str, Option<Value>)>) -> BTreeMap<String, serde_json::Value> {
    let json = |value| serde_json::to_value(value).expect("settings are plain data");
    settings.into_iter().map(|(key, value)| (key.to_string(), json(value))).collect()
}

/// A value as it stands in a table.
pub(super) fn in_words(value: &Option<Value>) -> String {
    match value {
        None => UNSET.to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

impl Dimension {
    fn axis(&self) -> Axis {
        match &self.range {
            Range::Integer { low, high, log: false } if high - low < COUNTED_MAX => {
                Axis::Ordered((high - low + 1) as u32)
            }
            Range::Number { .. } | Range::Integer { .. } => Axis::Continuous,
            Range::Values(values) => {
                let numbers: Vec<Option<f64>> = values.iter().map(|value| number(value.as_ref()?)).collect();
                let is_rising = numbers.windows(2).all(|pair| matches!(pair, [Some(a), Some(b)] if a < b));
                let n = values.len() as u32;
                if is_rising { Axis::Ordered(n) } else { Axis::Unordered(n) }
            }
        }
    }

    /// The value that a coordinate from 0 to 1 stands for.
    fn value(&self, coordinate: f64) -> Option<Value> {
        let between = |low: f64, high: f64, log: bool| match log {
            true => (low.ln() + coordinate * (high.ln() - low.ln())).exp(),
            false => low + coordinate * (high - low),
        };
        let index = self.axis().index(coordinate);
        match (&self.range, index) {
            (Range::Number { low, high, log }, _) => {
                let rounded: f64 = format!("{:.3e}", between(*low, *high, *log)).parse().expect("a number");
                Some(Value::from(rounded.clamp(*low, *high)))
            }
            (Range::Integer { low, .. }, Some(index)) => Some(Value::from(low + i64::from(index))),
            (Range::Integer { low, high, log }, None) => {
                let rounded = between(*low as f64, *high as f64, *log).round() as i64;
                Some(Value::from(rounded.clamp(*low, *high)))
            }
            (Range::Values(values), index) => values[index.unwrap_or(0) as usize].clone(),
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64))
}

/// Why an option is not searched; `None` where it may be.
fn refused(row: &OptionRow) -> Option<&'static str> {
    let decides = matches!(row.identity, Identity::Run | Identity::Views | Identity::Rows);
    match row.key {
        "train.epochs" => None,
        "train.monitor" => Some("it is what trials are compared by"),
        key if key.starts_with("split.") => Some("trials are compared on the same validation images"),
        _ if matches!(row.kind, Kind::Place | Kind::Places) => Some("it is opened once for all trials"),
        _ if !row.is_of(Command::Tune) || !decides => {
            Some("it is no setting of a training; options that are: see `forebay train --help`")
        }
        _ => None,
    }
}

fn read(table: &Table, prefix: &str, dimensions: &mut Vec<Dimension>, problems: &mut Vec<String>) {
    for (name, entry) in table {
        let key = format!("{prefix}{name}");
        match (option(&key), entry) {
            (Some(row), entry) => {
                let range = match refused(row) {
                    Some(why) => Err(format!("it cannot be searched: {why}")),
                    None => range(row, entry),
                };
                match range {
                    Ok(range) => dimensions.push(Dimension { row, range }),
                    Err(why) => problems.push(format!("tune.space: {key}: {why}")),
                }
            }
            (None, Value::Table(inner)) => read(inner, &format!("{key}."), dimensions, problems),
            (None, _) => problems.push(format!("tune.space: {key}: {}", unknown_key(&key))),
        }
    }
}

/// The range that an entry of the table says for an option.
fn range(row: &OptionRow, entry: &Value) -> Result<Range, String> {
    const EXPECTED: &str = "a range such as { low = 0.001, high = 0.1, log = true }, or a list of values";
    match entry {
        Value::Array(values) => {
            let read = |value: &Value| match value.as_str() {
                Some(UNSET) => Ok(None),
                _ => row.check(value).map(Some),
            };
            let values = values.iter().map(read).collect::<Result<Vec<_>, String>>()?;
            if values.is_empty() {
                return Err("a list of no values".to_string());
            }
            if let Some(twice) = values.iter().enumerate().find(|(i, value)| values[..*i].contains(value)) {
                return Err(format!("{} stands twice", in_words(twice.1)));
            }
            Ok(Range::Values(values))
        }
        Value::Table(table) => {
            if let Some(key) = table.keys().find(|key| !["low", "high", "log"].contains(&key.as_str())) {
                return Err(format!("{key} is unknown; a range has low, high and log"));
            }
            let end = |name: &str| {
                let value =
                    table.get(name).ok_or_else(|| format!("{name} is missing; expected {EXPECTED}"))?;
                row.check(value)
            };
            let (low, high) = (end("low")?, end("high")?);
            let log = match table.get("log") {
                None => false,
                Some(log) => log.as_bool().ok_or_else(|| format!("log: {log} is not true or false"))?,
            };
            let (Some(least), Some(most)) = (number(&low), number(&high)) else {
                return Err("its values are no numbers; give a list of them".to_string());
            };
            if least >= most {
                return Err(format!("low {low} is not below high {high}"));
            }
            if log && least <= 0.0 {
                return Err(format!("a range with log begins above 0, and not at {low}"));
            }
            Ok(match (low.as_integer(), high.as_integer()) {
                (Some(low), Some(high)) => Range::Integer { low, high, log },
                _ => Range::Number { low: least, high: most, log },
            })
        }
        other => Err(format!("{other} is not {EXPECTED}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(file: &str) -> Config {
        Config::resolve(Some(("run.toml", file)), &[], &[]).expect("sound options")
    }

    fn space(file: &str) -> Result<Space, Vec<String>> {
        Space::of(&config(&format!("[tune.space]\n{file}")), &[1, 1])
    }

    #[test]
    fn a_point_is_the_settings_of_a_trial() {
        let space = space(
            "train.learning_rate = { low = 1e-4, high = 1e-2, log = true }\ntrain.optimizer = [\"adamw\", \"sgd\"]\n\
             train.batch_size = { low = 8, high = 11 }\ntrain.head_width = [\"unset\", 64]\ntrain.dropout = [0.1, 0.3]\n",
        )
        .unwrap();
        let keys: Vec<&str> = space.dimensions.iter().map(|dimension| dimension.row.key).collect();
        assert_eq!(
            keys,
            [
                "train.batch_size",
                "train.dropout",
                "train.head_width",
                "train.learning_rate",
                "train.optimizer"
            ]
        );
        use Axis::{Continuous, Ordered, Unordered};
        assert_eq!(space.axes(), [Ordered(4), Ordered(2), Unordered(2), Continuous, Unordered(2)]);
        let (trial, settings) = space.settings(&config(""), &[0.6, 0.25, 0.25, 0.5, 0.75]);
        assert_eq!(trial.integer("train.batch_size"), Some(10));
        assert_eq!((trial.number("train.dropout"), trial.get("train.head_width")), (Some(0.1), None));
        assert_eq!(trial.number("train.learning_rate"), Some(0.001));
        assert_eq!(trial.text("train.optimizer").as_deref(), Some("sgd"));
        assert_eq!((settings.len(), in_words(&settings[2].1)), (5, "unset".to_string()));
        let (ends, _) = space.settings(&config(""), &[0.99, 0.9, 0.9, 1.0, 0.1]);
        assert_eq!(
            (ends.integer("train.batch_size"), ends.number("train.learning_rate")),
            (Some(11), Some(0.01))
        );
    }

    #[test]
    fn an_option_without_effect_beside_the_others_is_left_as_it_was() {
        let space = space("train.optimizer = [\"adamw\", \"sgd\"]\ntrain.momentum = [0.5, 0.9]\n").unwrap();
        let base = config("");
        let (adamw, settings) = space.settings(&base, &[0.2, 0.2]);
        assert_eq!((adamw.number("train.momentum"), settings.len()), (base.number("train.momentum"), 1));
        assert!(adamw.without_effect(Command::Train, &Default::default()).is_empty());
        let (sgd, settings) = space.settings(&base, &[0.2, 0.8]);
        assert_eq!((sgd.number("train.momentum"), settings.len()), (Some(0.5), 2));
    }

    #[test]
    fn everything_that_is_wrong_with_a_space_is_named_at_once() {
        let problems = space(
            "train.learning_rate = { low = 0.0, high = 0.1, log = true }\ntrain.dropout = { low = 0.5, high = 0.2 }\n\
             train.optimizer = [\"adamw\", \"adamx\"]\ntrain.droput = [0.1]\ntrain.monitor = [\"loss\"]\ntrain.epochs = 3\n\
             split.seed = [1, 2]\ntrain.batch_size = [16, 16]\ntrain.warmup = { low = 1.0 }\nresize.size = [32, 64]\n",
        )
        .unwrap_err();
        assert_eq!(problems.len(), 10, "{problems:#?}");
        for (key, why) in [
            ("train.learning_rate", "begins above 0"),
            ("train.dropout", "is not below"),
            ("train.optimizer", "adamx"),
            ("train.droput", "did you mean train.dropout?"),
            ("train.monitor", "compared by"),
            ("train.epochs", "a list of values"),
            ("split.seed", "same validation images"),
            ("train.batch_size", "stands twice"),
            ("train.warmup", "high is missing"),
            ("resize.size", "cannot be searched"),
        ] {
            let line = problems.iter().find(|line| line.contains(key)).unwrap_or_else(|| panic!("{key}"));
            assert!(line.contains(why), "{line}");
        }
    }

    #[test]
    fn the_usual_space_is_about_what_is_trained_and_leaves_what_is_decided() {
        let keys = |file: &str, counts: &[u64]| -> Vec<&str> {
            let space = Space::of(&config(file), counts).unwrap();
            space.dimensions.iter().map(|dimension| dimension.row.key).collect()
        };
        let plain = keys("", &[10, 10]);
        assert!(plain.contains(&"train.learning_rate") && !plain.contains(&"train.head_width"));
        assert!(keys("[train]\nfreeze = \"backbone\"\n", &[1]).contains(&"train.head_width"));
        assert!(keys("", &[100, 10]).contains(&"train.loss"));
        assert!(!keys("[train]\ndropout = 0.1\n", &[1]).contains(&"train.dropout"));
        let all = Space::of(&config("[train]\nfreeze = \"backbone\"\n"), &[100, 10]).unwrap();
        for Dimension { row, range } in all.dimensions {
            let values = match range {
                Range::Number { low, high, .. } => vec![Value::from(low), Value::from(high)],
                Range::Integer { low, high, .. } => vec![Value::from(low), Value::from(high)],
                Range::Values(values) => values.into_iter().flatten().collect(),
            };
            for value in values {
                assert_eq!(row.kind.check(value.clone()), Ok(value), "{}", row.key);
            }
        }
    }
}
