//! Columns of a source that stay with its samples, beside image and label.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::LayoutOptions;
use crate::columns::Value;
use crate::escape::escape_text;
use crate::words::few;

/// The values of a sample in the columns that are kept, in the order of [`super::Catalog::kept_columns`].
pub type Kept = Arc<[Value]>;

/// A column of the source that goes along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptColumn {
    /// Its name in the source.
    pub name: String,
    /// What its values are.
    pub kind: KeptKind,
}

/// What the values of a column are, where there are any: each may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeptKind {
    /// Texts.
    String,
    /// Whole numbers.
    Int64,
    /// Numbers with and without fractions.
    Float64,
}
impl KeptKind {
    /// As Hugging Face calls it.
    pub fn dtype(self) -> &'static str {
        match self {
            KeptKind::String => "string",
            KeptKind::Int64 => "int64",
            KeptKind::Float64 => "float64",
        }
    }

    /// What holds all of these values as they are: texts where any is one, and where whole numbers stand among others that
    /// would lose digits as one of them.
    pub(super) fn of<'a>(values: impl Iterator<Item = &'a Value>) -> KeptKind {
        /// From here on not every whole number is one of 64 bits with a fraction.
        const EXACT_MAX: u64 = 1 << 53;
        let (mut kind, mut is_long) = (None, false);
        for value in values {
            is_long |= matches!(value, Value::Integer(number) if number.unsigned_abs() > EXACT_MAX);
            let of_value = match value {
                Value::Null => continue,
                Value::Integer(_) => KeptKind::Int64,
                Value::Number(_) => KeptKind::Float64,
                Value::Text(_) | Value::Other => KeptKind::String,
            };
            kind = match (kind, of_value) {
                (None, kind) => Some(kind),
                (Some(a), b) if a == b => Some(a),
                (Some(KeptKind::Int64 | KeptKind::Float64), KeptKind::Int64 | KeptKind::Float64) => {
                    Some(KeptKind::Float64)
                }
                _ => return KeptKind::String,
            };
        }
        match kind {
            Some(KeptKind::Float64) if is_long => KeptKind::String,
            kind => kind.unwrap_or(KeptKind::String),
        }
    }
}

/// A value as a text; `None` where there is none.
pub fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Other => None,
        Value::Text(text) => Some(text.to_string()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Number(number) => Some(number.to_string()),
    }
}

/// A value as JSON, in a column of this kind.
pub(crate) fn json_of(kind: KeptKind, value: &Value) -> serde_json::Value {
    match (kind, value) {
        (KeptKind::String, value) => text_of(value).into(),
        (KeptKind::Int64 | KeptKind::Float64, Value::Integer(number)) => (*number).into(),
        (KeptKind::Float64, Value::Number(number)) => (*number).into(),
        _ => serde_json::Value::Null,
    }
}

/// Where the kept columns are among `names`.
///
/// # Errors
/// One line that reads after the name of a table, where a column is missing or there are several of its name.
pub(super) fn places(names: &[String], options: &LayoutOptions) -> Result<Vec<usize>, String> {
    let place = |wanted: &String| {
        let mut having = (0..names.len()).filter(|at| names[*at] == *wanted);
        match (having.next(), having.next()) {
            (Some(at), None) => Ok(at),
            (Some(_), Some(_)) => Err(format!("has several columns called `{wanted}`: leave one of them")),
            (None, _) => Err(format!("has no column `{wanted}`; it has {}", few(names))),
        }
    };
    options.keep_columns.iter().map(place).collect()
}

/// Values as they are kept: `None` where no column is.
///
/// # Errors
/// One line that reads after the name of a sample, where a value is a list or a structure.
pub(super) fn values(values: Vec<Value>, options: &LayoutOptions) -> Result<Option<Kept>, String> {
    if let Some(at) = values.iter().position(|value| *value == Value::Other) {
        return Err(format!(
            "its column `{}` holds a list, a structure or bytes: a text or a number can be kept",
            escape_text(&options.keep_columns[at])
        ));
    }
    Ok((!values.is_empty()).then(|| values.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_loses_digits_in_its_column() {
        let of = |values: &[Value]| KeptKind::of(values.iter());
        let (whole, long) = (Value::Integer(3), Value::Integer((1 << 53) + 1));
        let half = Value::Number(0.5);
        assert_eq!(of(&[whole.clone(), Value::Null]), KeptKind::Int64);
        assert_eq!(of(std::slice::from_ref(&long)), KeptKind::Int64);
        assert_eq!(of(&[whole.clone(), half.clone()]), KeptKind::Float64);
        assert_eq!(of(&[half, long]), KeptKind::String);
        assert_eq!(of(&[whole, Value::Text("18446744073709551615".into())]), KeptKind::String);
    }
}
