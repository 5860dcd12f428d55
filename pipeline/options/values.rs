//! The resolved values of a run, and who set each of them.

use std::collections::BTreeMap;

use forebay_datasets::words::Words;
use toml::{Table, Value};

/// Who set a value, weakest first. A default is set by nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// The run file, which may serve other commands too.
    File,
    /// `--set`
    Set,
    /// A flag.
    Flag,
}

/// The resolved values of a run: every key of the table that has a value, checked by its kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub(super) values: BTreeMap<&'static str, Value>,
    /// Keys that something other than the default set.
    pub(super) given: BTreeMap<&'static str, Layer>,
    /// The run file, where there is one.
    pub(super) file: Option<String>,
}

impl Config {
    /// The place of the run file, where there is one.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// Who gave the value, the default among them; `None` where nobody did.
    pub fn given(&self, key: &str) -> Option<Layer> {
        self.given.get(key).copied()
    }

    /// True where the user gave a value, the default among them.
    pub fn is_given(&self, key: &str) -> bool {
        self.given(key).is_some()
    }

    /// The value of a key, if it has one.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// A text, if given; numbers are printed.
    pub fn text(&self, key: &str) -> Option<String> {
        match self.get(key)? {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// A choice of a key that has a default, as the enum that owns the words of its row.
    ///
    /// # Panics
    /// When the table gives the key no default, or takes its words from elsewhere.
    pub fn choice<T: Words>(&self, key: &str) -> T {
        let word = self.get(key).and_then(Value::as_str).unwrap_or_else(|| panic!("{key} has a default"));
        T::of_word(word).unwrap_or_else(|| panic!("{key} takes its words from another enum: {word}"))
    }

    /// A choice of a key that may have none, as the enum that owns the words of its row.
    ///
    /// # Panics
    /// When the table takes the words of the key from elsewhere.
    pub fn chosen<T: Words>(&self, key: &str) -> Option<T> {
        let word = self.get(key).and_then(Value::as_str)?;
        Some(T::of_word(word).unwrap_or_else(|| panic!("{key} takes its words from another enum: {word}")))
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

    /// A whole number of a key that has a default.
    ///
    /// # Panics
    /// When the table gives the key no default.
    pub fn whole(&self, key: &str) -> u64 {
        self.integer(key).unwrap_or_else(|| panic!("{key} has a default"))
    }

    /// A number of a key that has a default.
    ///
    /// # Panics
    /// When the table gives the key no default.
    pub fn real(&self, key: &str) -> f64 {
        self.number(key).unwrap_or_else(|| panic!("{key} has a default"))
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

    /// Paths or URLs, none where none is given.
    pub fn places(&self, key: &str) -> Vec<String> {
        let places = self.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        places.iter().filter_map(|place| place.as_str().map(str::to_string)).collect()
    }

    /// Every value that is a text, with its key.
    pub fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        fn texts(value: &Value) -> Vec<&str> {
            match value {
                Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
                value => value.as_str().into_iter().collect(),
            }
        }
        self.values.iter().flat_map(|(key, value)| texts(value).into_iter().map(|text| (*key, text)))
    }

    /// The same with another value, for commands that choose defaults of their own.
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Config {
        self.values.insert(key, value.into());
        self
    }
}

pub(super) fn nest(table: &mut Table, key: &str, value: Value) {
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
