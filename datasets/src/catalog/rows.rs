//! The rows of a table of text or Parquet, column by column as they are asked for.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value as Json;

use super::listing::File;
use crate::columns::{OthersFile, OthersFileError, Value};
use crate::escape::one_line;
use crate::store::{Store, StoreError};

/// Bytes of a table of text, which is held in memory while it is read.
const TEXT_BYTES_MAX: u64 = 2 << 30;

/// Lines of a table of JSON that are looked at for the names of its columns.
const LINES_LOOKED_AT: usize = 100;

/// Why a table is not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowsError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The table is damaged or of another kind, in one line without its name.
    #[error("{0}")]
    Odd(String),
}

impl From<OthersFileError> for RowsError {
    fn from(error: OthersFileError) -> RowsError {
        match error {
            OthersFileError::Store(error) => RowsError::Store(error),
            OthersFileError::Odd(what) => RowsError::Odd(what),
        }
    }
}

/// A table that was opened.
pub(super) struct Rows {
    form: Form,
    /// The names of its columns, in their order.
    pub(super) columns: Vec<String>,
}

enum Form {
    Csv { bytes: Bytes, delimiter: u8 },
    JsonLines(Bytes),
    Parquet(Box<OthersFile>),
}

/// What is done with the number of a row and its values, and why it cannot be.
pub(super) type EachRow<'a> = dyn FnMut(u64, &[Value]) -> Result<(), String> + Send + 'a;

/// Extensions of tables, in lower case.
pub(super) const EXTENSIONS: [&str; 5] = ["csv", "tsv", "jsonl", "ndjson", "parquet"];

impl Rows {
    /// Opens a table, by its extension.
    ///
    /// # Errors
    /// When the store fails or the table is damaged.
    pub(super) async fn open(store: &Store, file: &File) -> Result<Rows, RowsError> {
        let extension = file.extension().unwrap_or_default();
        if extension == "parquet" {
            let parquet = OthersFile::open(store, &file.name, file.bytes).await?;
            let columns = parquet.fields().map(|field| field.name().clone()).collect();
            return Ok(Rows { form: Form::Parquet(Box::new(parquet)), columns });
        }
        if file.bytes > TEXT_BYTES_MAX {
            let (bytes, most) = (file.bytes >> 20, TEXT_BYTES_MAX >> 20);
            return Err(RowsError::Odd(format!(
                "it has {bytes} MiB, and a table of text may have {most}: write it as Parquet"
            )));
        }
        let bytes = store.read_whole(&file.name, file.bytes).await?;
        if extension == "jsonl" || extension == "ndjson" {
            let mut columns: Vec<String> = Vec::new();
            for (row, line) in lines(&bytes).take(LINES_LOOKED_AT) {
                let object = object(line).map_err(|what| RowsError::Odd(format!("line {row}: {what}")))?;
                for name in object.keys() {
                    if !columns.contains(name) {
                        columns.push(name.clone());
                    }
                }
            }
            return Ok(Rows { form: Form::JsonLines(bytes), columns });
        }
        let header = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let delimiter = match extension.as_str() {
            "tsv" => b'\t',
            _ if !header.contains(&b',') && header.contains(&b';') => b';',
            _ if !header.contains(&b',') && header.contains(&b'\t') => b'\t',
            _ => b',',
        };
        let names = reader(&bytes, delimiter).headers().map_err(|error| odd(&error))?.clone();
        let columns = names.iter().map(|name| name.trim().to_string()).collect();
        Ok(Rows { form: Form::Csv { bytes, delimiter }, columns })
    }

    /// Goes through all rows: `each` gets the number of a row, counted from 1, and its values in the columns `wanted`.
    ///
    /// # Errors
    /// When the store fails or a row is damaged, and those of `each`.
    pub(super) async fn each(
        &self,
        store: &Store,
        wanted: &[usize],
        each: &mut EachRow<'_>,
    ) -> Result<(), RowsError> {
        match &self.form {
            Form::Csv { bytes, delimiter } => {
                let mut reader = reader(bytes, *delimiter);
                let mut record = csv::StringRecord::new();
                let mut row = 0;
                while reader.read_record(&mut record).map_err(|error| odd(&error))? {
                    row += 1;
                    let value = |column: &usize| match record.get(*column).map(str::trim) {
                        None | Some("") => Value::Null,
                        Some(text) => Value::Text(text.into()),
                    };
                    let values: Vec<Value> = wanted.iter().map(value).collect();
                    each(row, &values).map_err(RowsError::Odd)?;
                }
            }
            Form::JsonLines(bytes) => {
                for (row, line) in lines(bytes) {
                    let object =
                        object(line).map_err(|what| RowsError::Odd(format!("line {row}: {what}")))?;
                    let value = |column: &usize| value_of(object.get(&self.columns[*column]));
                    let values: Vec<Value> = wanted.iter().map(value).collect();
                    each(row, &values).map_err(RowsError::Odd)?;
                }
            }
            Form::Parquet(parquet) => {
                let mut row = 0;
                for row_group in 0..parquet.row_groups().len() {
                    let n = parquet.row_groups()[row_group].num_rows().max(0) as usize;
                    let mut columns = Vec::with_capacity(wanted.len());
                    for column in wanted {
                        columns.push(match parquet.leaf(&[&self.columns[*column]]) {
                            Some(leaf) => parquet.values(store, row_group, leaf).await?,
                            // A list or a structure.
                            None => vec![Value::Other; n],
                        });
                    }
                    for at in 0..n {
                        row += 1;
                        let values: Vec<Value> = columns.iter().map(|column| column[at].clone()).collect();
                        each(row, &values).map_err(RowsError::Odd)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn reader(bytes: &Bytes, delimiter: u8) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().delimiter(delimiter).from_reader(bytes)
}

fn odd(error: &csv::Error) -> RowsError {
    RowsError::Odd(one_line(&error.to_string()).into_owned())
}

/// The lines that hold something, with their numbers, counted from 1.
fn lines(bytes: &Bytes) -> impl Iterator<Item = (u64, &[u8])> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let lines = (1..).zip(bytes.split(|byte| *byte == b'\n'));
    lines.map(|(row, line)| (row, line.trim_ascii())).filter(|(_, line)| !line.is_empty())
}

fn object(line: &[u8]) -> Result<serde_json::Map<String, Json>, String> {
    match serde_json::from_slice(line) {
        Ok(Json::Object(object)) => Ok(object),
        Ok(_) => Err("a line is no JSON object".to_string()),
        Err(error) => Err(format!("a line is no JSON: {}", one_line(&error.to_string()))),
    }
}

/// A value of JSON as one of a column.
pub(super) fn value_of(json: Option<&Json>) -> Value {
    match json {
        None | Some(Json::Null) => Value::Null,
        Some(Json::String(text)) => match text.trim() {
            "" => Value::Null,
            text => Value::Text(text.into()),
        },
        Some(Json::Bool(value)) => Value::Text(Arc::from(value.to_string())),
        Some(Json::Number(number)) => match number.as_i64() {
            Some(number) => Value::Integer(number),
            // A whole number that is larger than any of 64 bits is kept as it is written.
            None if number.is_u64() => Value::Text(number.to_string().into()),
            None => number.as_f64().map_or(Value::Other, Value::Number),
        },
        Some(Json::Array(_) | Json::Object(_)) => Value::Other,
    }
}
