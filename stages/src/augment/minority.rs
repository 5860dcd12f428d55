//! Other changes for the images of rare classes, which come more often than they are many.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Augment;

/// The changes of images of rare classes, in place of those of the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct Minority {
    /// A class is rare where it has fewer than this share of the training images of the largest; above 0 to 1.
    pub below: f64,
    /// The classes that are, by name, in place of those that are few.
    pub classes: Vec<String>,
    /// What happens to their images.
    pub changes: Augment,
}

impl Minority {
    /// A class with fewer than half of the images of the largest.
    pub const BELOW: f64 = 0.5;

    /// Which of the classes are rare, by their training images before any balance.
    ///
    /// # Errors
    /// In one line, where a name is none of `classes`.
    ///
    /// # Panics
    /// When there is not one count per class.
    pub fn rare(&self, classes: &[String], counts: &[u64]) -> Result<Vec<bool>, String> {
        assert_eq!(classes.len(), counts.len(), "one count per class");
        if let Some(unknown) = self.classes.iter().find(|name| !classes.contains(name)) {
            return Err(format!("augment.minority.classes: there is no class {unknown}"));
        }
        let most = counts.iter().copied().max().unwrap_or(0) as f64;
        let is_rare = |(class, n): (&String, &u64)| match self.classes.is_empty() {
            true => (*n as f64) < self.below * most,
            false => self.classes.contains(class),
        };
        Ok(classes.iter().zip(counts).map(is_rare).collect())
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> =
            self.changes.problems().into_iter().map(|problem| format!("minority.{problem}")).collect();
        if !(self.below > 0.0 && self.below <= 1.0) {
            problems.push(format!("minority.below is {}, and must be above 0 and at most 1", self.below));
        }
        problems
    }
}

/// A preset by name, or a table: `below`, `classes` and `preset`, beside single changes that alter the preset.
impl TryFrom<Value> for Minority {
    type Error = String;

    fn try_from(value: Value) -> Result<Minority, String> {
        let mut table = match value {
            Value::String(preset) => Map::from_iter([("preset".to_string(), Value::String(preset))]),
            Value::Object(table) => table,
            other => return Err(format!("minority is {other}, and must be a preset or a table")),
        };
        let read = |key: &str, value: Option<Value>| -> Result<Option<Value>, String> {
            let is_sound = match (&value, key) {
                (None, _) => true,
                (Some(value), "below") => value.is_number(),
                (Some(value), "preset") => value.is_string(),
                (Some(value), _) => value.as_array().is_some_and(|names| names.iter().all(Value::is_string)),
            };
            match is_sound {
                true => Ok(value),
                false => Err(format!("minority.{key} is {}", value.unwrap_or_default())),
            }
        };
        let below = read("below", table.remove("below"))?;
        let classes = read("classes", table.remove("classes"))?;
        let preset = read("preset", table.remove("preset"))?;
        let preset: Augment = match preset.as_ref().and_then(Value::as_str) {
            Some(name) => name.parse()?,
            None => Augment::default(),
        };
        let mut changes = match serde_json::to_value(preset) {
            Ok(Value::Object(changes)) => changes,
            _ => Map::new(),
        };
        changes.extend(table);
        let changes: Augment =
            serde_json::from_value(Value::Object(changes)).map_err(|error| error.to_string())?;
        if changes.minority.is_some() {
            return Err("minority.minority: rare classes have none of their own".to_string());
        }
        Ok(Minority {
            below: below.as_ref().and_then(Value::as_f64).unwrap_or(Minority::BELOW),
            classes: classes
                .iter()
                .flat_map(|names| names.as_array().into_iter().flatten())
                .filter_map(|name| Some(name.as_str()?.to_string()))
                .collect(),
            changes: changes.without_idle(),
        })
    }
}

impl From<Minority> for Value {
    fn from(minority: Minority) -> Value {
        let Minority { below, classes, changes } = minority;
        let mut table = match serde_json::to_value(changes) {
            Ok(Value::Object(table)) => table,
            _ => Map::new(),
        };
        table.insert("below".to_string(), below.into());
        if !classes.is_empty() {
            table.insert("classes".to_string(), classes.into());
        }
        Value::Object(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_name_of(preset: &str) -> Option<Box<Minority>> {
        let table = serde_json::json!({"minority": preset});
        serde_json::from_value::<Augment>(table).expect("a preset").minority
    }

    #[test]
    fn a_preset_is_altered_by_single_changes_and_comes_back() {
        let augment: Augment = serde_json::from_str(
            r#"{"minority": {"preset": "strong", "rotation": {"degrees": 40.0}, "below": 0.25}}"#,
        )
        .expect("a table");
        let minority = augment.minority.as_deref().expect("rare classes");
        let strong: Augment = "strong".parse().expect("a preset");
        assert_eq!(minority.below, 0.25);
        assert_eq!(minority.changes.rotation.as_ref().map(|rotation| rotation.degrees), Some(40.0));
        assert_eq!(minority.changes.color_jitter, strong.color_jitter);
        let again: Augment =
            serde_json::from_value(serde_json::to_value(&augment).expect("writes")).expect("reads");
        assert_eq!(again, augment);
        let by_name: Augment = serde_json::from_str(r#"{"minority": "light"}"#).expect("a preset");
        assert_eq!(
            by_name.minority.map(|minority| minority.changes),
            Some("light".parse().expect("a preset"))
        );
        // What is the same for all classes is no change of some.
        let light = || "light".parse::<Augment>().expect("a preset");
        let same = Augment { minority: by_name_of("light"), ..light() };
        assert!(same.problems()[0].starts_with("minority changes rare classes as all others"));
        let off = Augment { minority: by_name_of("none"), ..light() };
        assert_eq!(off.problems(), Vec::<String>::new());
        for (table, line) in [
            (r#"{"minority": 3}"#, "minority is 3"),
            (r#"{"minority": {"below": "x"}}"#, "minority.below is"),
            (r#"{"minority": {"preset": "wild"}}"#, "must be one of"),
            (r#"{"minority": {"flip": {}}}"#, "unknown field"),
            (r#"{"minority": {"minority": "light"}}"#, "have none of their own"),
        ] {
            let error = serde_json::from_str::<Augment>(table).expect_err(table).to_string();
            assert!(error.contains(line), "{error}");
        }
    }

    #[test]
    fn rare_classes_are_few_or_named() {
        let names: Vec<String> = ["a", "b", "c"].map(String::from).into();
        let of = |below, classes: &[&str]| {
            let classes = classes.iter().map(ToString::to_string).collect();
            Minority { below, classes, changes: Augment::default() }.rare(&names, &[100, 50, 49])
        };
        assert_eq!(of(0.5, &[]), Ok(vec![false, false, true]));
        assert_eq!(of(1.0, &[]), Ok(vec![false, true, true]));
        assert_eq!(of(0.5, &["a"]), Ok(vec![true, false, false]));
        assert_eq!(of(0.5, &["z"]), Err("augment.minority.classes: there is no class z".to_string()));
    }
}
