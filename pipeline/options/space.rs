//! What `--space KEY=RANGE` says, in the form of the table `[tune.space]` of the run file.

use toml::{Table, Value};

use super::values::nest;

/// Reads flags, with a zero byte between them, as the table that a run file would have.
pub(super) fn read(text: &str) -> Result<Table, String> {
    let mut space = Table::new();
    for flag in text.split('\0') {
        let Some((key, range)) = flag.split_once('=') else {
            return Err(format!("{flag} is not KEY=LOW..HIGH, KEY=LOW..HIGH,log or KEY=A,B,C"));
        };
        nest(&mut space, key.trim(), of_text(range.trim()));
    }
    Ok(space)
}

/// `1e-4..1e-1,log` as a table with both ends, `a,b` as a list; TOML as it is.
fn of_text(text: &str) -> Value {
    if text.starts_with(['[', '{']) {
        return scalar(text);
    }
    let (range, log) = match text.strip_suffix(",log") {
        Some(range) => (range, true),
        None => (text, false),
    };
    if let Some((low, high)) = range.split_once("..") {
        let mut table = Table::new();
        table.insert("low".to_string(), scalar(low.trim()));
        table.insert("high".to_string(), scalar(high.trim()));
        if log {
            table.insert("log".to_string(), Value::Boolean(true));
        }
        return Value::Table(table);
    }
    Value::Array(text.split(',').map(|value| scalar(value.trim())).collect())
}

/// A value of TOML; what is none is a text.
fn scalar(text: &str) -> Value {
    text.parse::<Value>().unwrap_or_else(|_| Value::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_says_what_the_table_of_the_run_file_says() {
        let flags = "train.learning_rate=1e-4..1e-1,log\0train.optimizer=adamw, sgd\0train.batch_size=16..64\0train.nesterov=true,false\0train.dropout={ low = 0.0, high = 0.5 }";
        let file = "[train]\nlearning_rate = { low = 1e-4, high = 1e-1, log = true }\noptimizer = [\"adamw\", \"sgd\"]\n\
                    batch_size = { low = 16, high = 64 }\nnesterov = [true, false]\ndropout = { low = 0.0, high = 0.5 }\n";
        assert_eq!(read(flags).unwrap(), file.parse::<Table>().unwrap());
        assert!(read("train.dropout").unwrap_err().contains("KEY=LOW..HIGH"));
    }
}
