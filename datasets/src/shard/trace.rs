//! Where the rows of one sample lie, and where they come from.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Serialize;

use super::index::{BOUNDS, Index, ReadError};
use super::{ShardError, has_column};
use crate::catalog::{Value, text_of};
use crate::columns::{FilePart, check_pages, guarded};
use crate::store::Store;

/// A row of a sample, as its shard tells of it without its image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TracedRow {
    /// The key of the shard.
    pub shard: String,
    /// Its row group, counted from 0.
    pub row_group: usize,
    /// Its row in it, counted from 0.
    pub row: usize,
    /// 0 is the original.
    pub copy: u32,
    /// The class, as an index into their names.
    pub label: u32,
    /// Columns and rows of the stored image.
    pub size: (u32, u32),
    /// Columns and rows of the image that was read.
    pub original_size: (u32, u32),
    /// The place of its file in the source.
    pub source: String,
    /// BLAKE3 of that file.
    pub source_blake3: String,
    /// The columns of the source that it keeps, with what stands in them.
    pub kept: Vec<(String, Option<String>)>,
}

/// The rows of a sample in one shard, in their order.
///
/// # Errors
/// When the store fails or the shard is damaged.
pub async fn trace(store: &Store, key: &str, index: &Index, id: &str) -> Result<Vec<TracedRow>, ReadError> {
    let mut found = Vec::new();
    for row_group in 0..index.metadata().num_row_groups() {
        let bytes = store.get_range(key, index.identity_range(row_group)).await?;
        let rows = guarded(|| rows_of(index, row_group, bytes, id));
        let rows = rows.map_err(|error| ReadError::damaged(store, key, &error))?;
        found.extend(rows.into_iter().map(|row| TracedRow { shard: key.to_string(), ..row }));
    }
    Ok(found)
}

fn rows_of(index: &Index, row_group: usize, bytes: Bytes, id: &str) -> Result<Vec<TracedRow>, ShardError> {
    let start = index.identity_range(row_group).start;
    let part = FilePart { start, bytes, file_bytes: index.file_bytes() };
    check_pages(index.metadata().row_group(row_group), &Arc::new(part.clone()), |column| {
        (column.column_path().parts()[0] != "image").then_some(BOUNDS)
    })?;
    let fields = index.reader.schema().fields();
    let beside = (0..fields.len()).filter(|at| fields[*at].name() != "image");
    let mask = ProjectionMask::roots(index.reader.parquet_schema(), beside);
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(part, index.reader.clone())
        .with_row_groups(vec![row_group])
        .with_projection(mask)
        .build()?;
    let (mut found, mut before) = (Vec::new(), 0);
    for batch in reader {
        let batch = batch?;
        let ids = batch.column_by_name("id").and_then(|ids| ids.as_string_opt::<i32>());
        let ids = ids.ok_or_else(|| ShardError::Foreign("its column `id` is missing".to_string()))?;
        for row in (0..batch.num_rows()).filter(|row| ids.value(*row) == id) {
            found.push(TracedRow { row_group, row: before + row, ..traced(&batch, row) });
        }
        before += batch.num_rows();
    }
    Ok(found)
}

/// What a row says of itself; where something is missing, nothing of it.
fn traced(batch: &RecordBatch, row: usize) -> TracedRow {
    let value = |name: &str| batch.column_by_name(name).map_or(Value::Null, |column| value_at(column, row));
    let number = |name: &str| match value(name) {
        Value::Integer(number) => u32::try_from(number).unwrap_or_default(),
        _ => 0,
    };
    let text = |name: &str| text_of(&value(name)).unwrap_or_default();
    let schema = batch.schema();
    let names = schema.fields().iter().map(|field| field.name().as_str());
    TracedRow {
        shard: String::new(),
        row_group: 0,
        row: 0,
        copy: number("copy"),
        label: number("label"),
        size: (number("width"), number("height")),
        original_size: (number("original_width"), number("original_height")),
        source: text("source"),
        source_blake3: text("source_blake3"),
        kept: names
            .filter(|name| !has_column(name))
            .map(|name| (name.to_string(), text_of(&value(name))))
            .collect(),
    }
}

fn value_at(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    if let Some(texts) = column.as_string_opt::<i32>() {
        return Value::Text(texts.value(row).into());
    }
    if let Some(numbers) = column.as_primitive_opt::<Int32Type>() {
        return Value::Integer(i64::from(numbers.value(row)));
    }
    if let Some(numbers) = column.as_primitive_opt::<Int64Type>() {
        return Value::Integer(numbers.value(row));
    }
    column.as_primitive_opt::<Float64Type>().map_or(Value::Other, |numbers| Value::Number(numbers.value(row)))
}
