//! The run file as written, and the layers that set its values.
//!
//! A flag beats `--set`, which beats the file, which beats the default. Everything is checked against the table
//! at once, so that a run file with five mistakes is reported with five lines.

use std::collections::BTreeMap;

use forebay_datasets::escape::one_line;
use forebay_stages::augment::Augment;
use toml::{Table, Value};

use super::command::Command;
use super::nearest::nearest;
use super::spellings::word_of;
use super::table::{Kind, OPTIONS, OptionRow, option};
use super::values::{Config, Layer, nest};

/// Whether an option is kept in the table of the augmentation: a preset for rare classes is.
fn is_of_augmentation(row: &OptionRow) -> bool {
    row.key.eq("augment.minority")
}

/// Everything that is wrong with the options of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

impl OptionRow {
    /// The value that a text stands for, further names of a choice included.
    fn read(&self, text: &str) -> Result<Value, String> {
        self.kind.read(word_of(self.key, text))
    }

    /// A value of a run file as it counts, further names of a choice included.
    ///
    /// # Errors
    /// In a line, when the option cannot be this.
    pub fn check(&self, value: &Value) -> Result<Value, String> {
        self.kind.check(match value {
            Value::String(text) => Value::from(word_of(self.key, text)),
            other => other.clone(),
        })
    }
}

impl Config {
    /// Merges the layers, weakest first: the run file, `--set` pairs, flags. Flags come as text by key.
    ///
    /// # Errors
    /// Every problem of every layer, each in one line that names key, value and what is expected.
    pub fn resolve(
        file: Option<(&str, &str)>,
        sets: &[String],
        flags: &[(&'static str, String)],
    ) -> Result<Config, Problems> {
        let mut problems = Vec::new();
        let file_name = file.map(|(name, _)| name.to_string());
        let mut config = Config { values: BTreeMap::new(), given: BTreeMap::new(), file: file_name };
        for row in OPTIONS.iter().filter(|row| !row.default.is_empty()) {
            let value = row.kind.read(row.default).expect("defaults of the table are of their kind");
            config.values.insert(row.key, value);
        }
        if let Some((name, text)) = file {
            match text.parse::<Table>() {
                Ok(table) => config.merge(&table, "", name, &mut problems),
                Err(error) => problems.push(format!("{name}: {}", words(&error.to_string()))),
            }
        }
        // Single settings of the augmentation change a preset, whichever layer named it.
        let mut single: Vec<(&str, Value)> = Vec::new();
        for set in sets {
            let Some((key, text)) = set.split_once('=') else {
                problems.push(format!("--set {set}: expected KEY=VALUE"));
                continue;
            };
            let (key, text) = (key.trim(), text.trim());
            match (option(key).filter(|row| !is_of_augmentation(row)), key.strip_prefix("augment.")) {
                (Some(row), _) => {
                    let place = format!("--set {key}");
                    config.set(row, Layer::Set, row.read(text), &place, &mut problems)
                }
                (None, Some(rest)) => {
                    single.push((rest, text.parse::<Value>().unwrap_or_else(|_| Value::from(text))));
                }
                (None, None) => problems.push(format!("--set {key}: {}", unknown(key))),
            }
        }
        for (key, text) in flags {
            let row = option(key).expect("flags come from the table");
            let name = if row.flag.is_empty() { row.value.to_string() } else { format!("--{}", row.flag) };
            let value = match row.kind {
                Kind::Switch(value) => Ok(Value::Boolean(value)),
                _ => row.read(text),
            };
            if is_of_augmentation(row) {
                match value {
                    Ok(value) => single.push(("minority", value)),
                    Err(problem) => problems.push(format!("{name}: {problem}")),
                }
                continue;
            }
            config.set(row, Layer::Flag, value, &name, &mut problems);
        }
        if !single.is_empty() {
            let mut table = config.augment_table();
            for (key, value) in single {
                nest(&mut table, key, value);
            }
            config.values.insert("augment", Value::Table(table));
            let layer = config.given("augment").unwrap_or(Layer::Set).max(Layer::Set);
            config.given.insert("augment", layer);
        }
        // They repeat keys and values of a file that may be another's.
        let lines: Vec<String> = problems.iter().map(|line| one_line(line).into_owned()).collect();
        if lines.is_empty() { Ok(config) } else { Err(Problems(lines)) }
    }

    /// The same with a value as if the run file gave it; `None` is as if nobody gave one.
    pub fn with_setting(mut self, row: &'static OptionRow, value: Option<Value>) -> Config {
        let is_given = value.is_some();
        let default = || (!row.default.is_empty()).then(|| row.kind.read(row.default).expect("of its kind"));
        match value.or_else(default) {
            Some(value) => self.values.insert(row.key, value),
            None => self.values.remove(row.key),
        };
        match is_given {
            true => self.given.insert(row.key, Layer::File),
            false => self.given.remove(row.key),
        };
        self
    }

    /// The same with an option as it is in another configuration.
    pub fn with_that_of(mut self, row: &'static OptionRow, other: &Config) -> Config {
        match other.values.get(row.key) {
            Some(value) => self.values.insert(row.key, value.clone()),
            None => self.values.remove(row.key),
        };
        match other.given.get(row.key) {
            Some(layer) => self.given.insert(row.key, *layer),
            None => self.given.remove(row.key),
        };
        self
    }

    /// The same with the values of other commands' options back at their defaults: a run file may serve several
    /// commands, and what it says for another has no part in this one.
    pub(super) fn only_of(mut self, command: Command) -> Config {
        for row in OPTIONS.iter().filter(|row| !row.is_of(command)) {
            self.given.remove(row.key);
            match row.default {
                "" => self.values.remove(row.key),
                default => {
                    let value = row.kind.read(default).expect("defaults of the table are of their kind");
                    self.values.insert(row.key, value)
                }
            };
        }
        self
    }

    /// The settings of the augmentation, those of a preset written out.
    fn augment_table(&self) -> Table {
        match self.get("augment") {
            Some(Value::Table(table)) => table.clone(),
            other => {
                let preset = other.and_then(Value::as_str).and_then(|name| name.parse::<Augment>().ok());
                Table::try_from(preset.unwrap_or_default()).expect("settings are plain data")
            }
        }
    }

    fn merge(&mut self, table: &Table, prefix: &str, file: &str, problems: &mut Vec<String>) {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            let is_table = OPTIONS.iter().any(|row| row.key.starts_with(&format!("{key}.")));
            match (option(&key), value) {
                (Some(row), value) => {
                    self.set(row, Layer::File, row.check(value), &format!("{file}: {key}"), problems);
                }
                (None, Value::Table(table)) if is_table => {
                    self.merge(table, &format!("{key}."), file, problems)
                }
                (None, _) if is_table => problems.push(format!("{file}: {key}: expected a table")),
                (None, _) => problems.push(format!("{file}: {key}: {}", unknown(&key))),
            }
        }
    }

    fn set(
        &mut self,
        row: &OptionRow,
        layer: Layer,
        value: Result<Value, String>,
        place: &str,
        problems: &mut Vec<String>,
    ) {
        match value {
            Ok(value) => {
                self.values.insert(row.key, value);
                self.given.insert(row.key, layer);
            }
            Err(expected) => problems.push(format!("{place}: {expected}")),
        }
    }
}

/// What is said of a key that no option has, with the nearest one.
pub fn unknown(key: &str) -> String {
    let same_end = OPTIONS.iter().map(|row| row.key).find(|known| known.rsplit('.').next() == Some(key));
    match same_end.or_else(|| nearest(key, OPTIONS.iter().map(|row| row.key))) {
        Some(name) => format!("unknown key; did you mean {name}?"),
        None => "unknown key; `forebay --help` shows where the keys are listed".to_string(),
    }
}

/// A text that its own program lays out on several lines, as words.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(file: &str, sets: &[&str], flags: &[(&'static str, &str)]) -> Result<Config, Problems> {
        let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
        let flags: Vec<_> = flags.iter().map(|(key, text)| (*key, text.to_string())).collect();
        Config::resolve(Some(("run.toml", file)), &sets, &flags)
    }

    #[test]
    fn a_flag_beats_a_set_beats_the_file_beats_the_default() {
        let quality = |file, sets: &[&str], flags: &[(&'static str, &str)]| {
            resolve(file, sets, flags).unwrap().integer("encode.quality").unwrap()
        };
        let file = "encode.quality = 80";
        assert_eq!(quality("", &[], &[]), 90);
        assert_eq!(quality(file, &[], &[]), 80);
        assert_eq!(quality(file, &["encode.quality=70"], &[]), 70);
        assert_eq!(quality(file, &["encode.quality=70"], &[("encode.quality", "60")]), 60);
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let file = "colour = 1\n[encode]\nformat = \"gif\"\nqualty = 3\n[split]\nshares = [0.5, 0.5]\n";
        let problems = resolve(file, &["quality=3", "x"], &[("threads", "0")]).unwrap_err().0;
        assert_eq!(
            problems,
            [
                "run.toml: colour: unknown key; `forebay --help` shows where the keys are listed",
                "run.toml: encode.format: \"gif\" is not one of jpeg, png, raw, keep",
                "run.toml: encode.qualty: unknown key; did you mean encode.quality?",
                "run.toml: split.shares: [0.5, 0.5] is not none, or 3 numbers from 0 to 1",
                "--set quality: unknown key; did you mean encode.quality?",
                "--set x: expected KEY=VALUE",
                "--threads: 0 is not a whole number from 1 to 4096",
            ]
        );
        assert!(resolve("a = [", &[], &[]).is_err());
    }

    #[test]
    fn one_setting_of_an_augmentation_changes_a_preset_and_keeps_the_rest_of_it() {
        let augment = |file: &str, sets: &[&str], flags: &[(&'static str, &str)]| -> Augment {
            let config = resolve(file, sets, flags).unwrap();
            config.augment_table().try_into().unwrap()
        };
        let mut strong: Augment = "strong".parse().unwrap();
        strong.rotation.as_mut().unwrap().degrees = 5.0;
        let set = ["augment.rotation.degrees=5.0"];
        assert_eq!(augment("augment = \"strong\"", &set, &[]), strong);
        assert_eq!(augment("", &[set[0], "augment=strong"], &[]), strong);
        assert_eq!(augment("augment = \"light\"", &set, &[("augment", "strong")]), strong);
        let alone = augment("", &set, &[]);
        assert_eq!((alone.rotation.is_some(), alone.horizontal_flip.is_some()), (true, false));
    }

    #[test]
    fn a_leading_tilde_is_the_home_folder_in_every_layer() {
        let home = std::env::home_dir().unwrap().to_string_lossy().into_owned();
        let place = |file: &str, sets: &[&str], flags: &[(&'static str, &str)]| {
            resolve(file, sets, flags).unwrap().text("out").unwrap()
        };
        let inside = format!("{home}/runs");
        assert_eq!(place("out = \"~/runs\"", &[], &[]), inside);
        assert_eq!(place("", &["out=~/runs"], &[]), inside);
        assert_eq!(place("", &[], &[("out", "~/runs")]), inside);
        assert_eq!(place("", &[], &[("out", "./~/runs")]), "./~/runs");
        let problems = resolve("", &[], &[("out", "~other/runs")]).unwrap_err().0;
        assert!(problems[0].contains("~other"), "{problems:?}");
    }

    #[test]
    fn equal_numbers_are_one_value() {
        let values = |file: &str| resolve(file, &[], &[]).unwrap().values;
        assert_eq!(values("balance.ratio = 1"), values("balance.ratio = 1.0"));
        assert_eq!(values("split.shares = [1, 0, 0]"), values("split.shares = [1.0, 0.0, 0.0]"));
        assert_eq!(values("train.lr_milestones = \"30, 60\""), values("train.lr_milestones = [30, 60.0]"));
    }

    #[test]
    fn flags_and_keys_are_unique() {
        for (index, row) in OPTIONS.iter().enumerate() {
            for other in &OPTIONS[index + 1..] {
                assert_ne!(row.key, other.key);
                let shared = row.commands.iter().any(|command| other.commands.contains(command));
                assert!(row.flag.is_empty() || row.flag != other.flag || !shared, "--{}", row.flag);
            }
        }
    }
}
