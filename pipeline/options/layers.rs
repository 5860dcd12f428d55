//! The run file as written, and the layers that set its values.
//!
//! A flag beats `--set`, which beats the file, which beats the default. Everything is checked against the table
//! at once, so that a run file with five mistakes is reported with five lines.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::table::{Kind, OPTIONS, OptionRow, option};

/// The resolved values of a run: every key of the table that has a value, checked by its kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    values: BTreeMap<&'static str, Value>,
    /// Keys that something other than the default set.
    given: Vec<&'static str>,
}

/// Everything that is wrong with the options of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

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
        let mut config = Config { values: BTreeMap::new(), given: Vec::new() };
        for row in OPTIONS.iter().filter(|row| !row.default.is_empty()) {
            let value = row.kind.read(row.default).expect("defaults of the table are of their kind");
            config.values.insert(row.key, value);
        }
        if let Some((name, text)) = file {
            match text.parse::<Table>() {
                Ok(table) => config.merge(&table, "", name, &mut problems),
                Err(error) => problems.push(format!("{name}: {}", one_line(&error.to_string()))),
            }
        }
        for set in sets {
            let Some((key, text)) = set.split_once('=') else {
                problems.push(format!("--set {set}: expected KEY=VALUE"));
                continue;
            };
            let (key, text) = (key.trim(), text.trim());
            match (option(key), key.strip_prefix("augment.")) {
                (Some(row), _) => {
                    config.set(row, row.kind.read(text), &format!("--set {key}"), &mut problems)
                }
                (None, Some(rest)) => {
                    let value = text.parse::<Value>().unwrap_or_else(|_| Value::from(text));
                    let mut table = match config.values.remove("augment") {
                        Some(Value::Table(table)) => table,
                        _ => Table::new(),
                    };
                    nest(&mut table, rest, value);
                    config.values.insert("augment", Value::Table(table));
                    config.given.push("augment");
                }
                (None, None) => problems.push(format!("--set {key}: {}", unknown(key))),
            }
        }
        for (key, text) in flags {
            let row = option(key).expect("flags come from the table");
            let name = if row.flag.is_empty() { row.value.to_string() } else { format!("--{}", row.flag) };
            let value = match row.kind {
                Kind::Switch(value) => Ok(Value::Boolean(value)),
                kind => kind.read(text),
            };
            config.set(row, value, &name, &mut problems);
        }
        if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
    }

    fn merge(&mut self, table: &Table, prefix: &str, file: &str, problems: &mut Vec<String>) {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            let is_table = OPTIONS.iter().any(|row| row.key.starts_with(&format!("{key}.")));
            match (option(&key), value) {
                (Some(row), value) => {
                    let value = row.kind.check(value.clone());
                    self.set(row, value, &format!("{file}: {key}"), problems);
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
        value: Result<Value, String>,
        place: &str,
        problems: &mut Vec<String>,
    ) {
        match value {
            Ok(value) => {
                self.values.insert(row.key, value);
                if !self.given.contains(&row.key) {
                    self.given.push(row.key);
                }
            }
            Err(expected) => problems.push(format!("{place}: {expected}")),
        }
    }

    /// True where the user gave a value, the default among them.
    pub fn is_given(&self, key: &str) -> bool {
        self.given.contains(&key)
    }

    /// The value of a key, if it has one.
    pub fn get(&self, key: &str) -> Option<&Value> {
        debug_assert!(option(key).is_some(), "{key} is not in the table");
        self.values.get(key)
    }

    /// A text, if given; numbers are printed.
    pub fn text(&self, key: &str) -> Option<String> {
        match self.get(key)? {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// A word of a key that has a default.
    ///
    /// # Panics
    /// When the table gives the key no default.
    pub fn word(&self, key: &str) -> &str {
        self.get(key).and_then(Value::as_str).unwrap_or_else(|| panic!("{key} has a default"))
    }

    /// A whole number, if given.
    pub fn integer(&self, key: &str) -> Option<u64> {
        self.get(key)?.as_integer().map(|value| value as u64)
    }

    /// A number, if given.
    pub fn number(&self, key: &str) -> Option<f64> {
        let value = self.get(key)?;
        value.as_float().or_else(|| value.as_integer().map(|value| value as f64))
    }

    /// A switch.
    pub fn is_on(&self, key: &str) -> bool {
        self.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    /// A list of numbers, if the value is one.
    pub fn numbers(&self, key: &str) -> Option<Vec<f64>> {
        let values = self.get(key)?.as_array()?;
        Some(
            values.iter().filter_map(|v| v.as_float().or_else(|| v.as_integer().map(|v| v as f64))).collect(),
        )
    }

    /// The flat settings under these keys or tables, in a fixed order: what fingerprints and manifests hold.
    pub fn settings(&self, keys: &[&str]) -> BTreeMap<String, serde_json::Value> {
        let chosen = |key: &str| keys.iter().any(|want| key == *want || key.starts_with(&format!("{want}.")));
        let json = |value: &Value| serde_json::to_value(value).expect("TOML values are plain data");
        self.values.iter().filter(|(key, _)| chosen(key)).map(|(key, v)| (key.to_string(), json(v))).collect()
    }

    /// The resolved run file, which gives the same run again. Secrets have no keys, so none can stand in it.
    pub fn to_toml(&self) -> String {
        // What is asked of one start only: a saved run must not replace or resume one by itself.
        const OF_ONE_START: [&str; 4] = ["overwrite", "force", "train.resume", "train.live"];
        let mut table = Table::new();
        for (key, value) in self.values.iter().filter(|(key, _)| !OF_ONE_START.contains(key)) {
            nest(&mut table, key, value.clone());
        }
        toml::to_string_pretty(&table).expect("a table of plain values")
    }

    /// The same with another value, for commands that choose defaults of their own.
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Config {
        self.values.insert(key, value.into());
        self
    }
}

fn nest(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_string(), value);
        }
        Some((head, rest)) => {
            let inner = table.entry(head).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                nest(inner, rest, value);
            }
        }
    }
}

fn unknown(key: &str) -> String {
    let near = OPTIONS.iter().map(|row| (distance(key, row.key), row.key)).min().expect("the table has rows");
    let same_end = OPTIONS.iter().find(|row| row.key.rsplit('.').next() == Some(key));
    match (same_end, near) {
        (Some(row), _) => format!("unknown key; did you mean {}?", row.key),
        (None, (steps, name)) if steps <= 1 + key.len() / 4 => format!("unknown key; did you mean {name}?"),
        _ => "unknown key; `forebay --help` shows where the keys are listed".to_string(),
    }
}

/// Edits between two words (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let change = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

fn one_line(text: &str) -> String {
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
                "run.toml: encode.format: \"gif\" is not one of jpeg, png, raw",
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
    fn the_resolved_run_file_gives_the_same_run() {
        let config =
            resolve("[augment]\nrotation = 10\n", &["memory=64 MiB"], &[("split.shares", "none")]).unwrap();
        let again = resolve(&config.to_toml(), &[], &[]).unwrap();
        assert_eq!(config.values, again.values);
        assert_eq!(again.integer("memory"), Some(64 << 20));
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
