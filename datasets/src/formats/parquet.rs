//! Parquet files as Hugging Face `datasets` writes them, without the columns that shards of Forebay have beside.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{BinaryArray, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;

use super::{FileRow, WrittenShard};
use crate::manifest::dataset_card;
use crate::sample::Split;
use crate::shard::{
    ROW_GROUP_BYTES_MAX, ROWS_PER_GROUP, file_name, huggingface_features, image_fields, properties,
};

/// The columns beside image and label.
const COLUMNS: [(&str, &str); 1] = [("id", "string")];

/// A file of row groups of 100 rows, or of 32 MiB.
pub(super) fn shard(classes: &[String], rows: &[FileRow]) -> Result<Bytes, String> {
    let fields = vec![
        Field::new("image", DataType::Struct(image_fields()), true),
        Field::new("label", DataType::Int64, true),
        Field::new("id", DataType::Utf8, true),
    ];
    let metadata = HashMap::from([("huggingface".to_string(), huggingface_features(classes, &COLUMNS))]);
    let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
    let written = || {
        let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties(&schema)))?;
        let mut rest = rows;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take(ROWS_PER_GROUP).take_while(|row| {
                bytes += row.bytes.len();
                bytes <= ROW_GROUP_BYTES_MAX
            });
            let (group, after) = rest.split_at(fits.count().max(1));
            rest = after;
            let images = BinaryArray::from_iter_values(group.iter().map(|row| &row.bytes));
            let paths = group.iter().map(|row| file_name(&row.id, row.extension));
            let paths = StringArray::from_iter_values(paths);
            let image = StructArray::try_new(image_fields(), vec![Arc::new(images), Arc::new(paths)], None)?;
            let labels = Int64Array::from_iter_values(group.iter().map(|row| i64::from(row.label)));
            let ids = StringArray::from_iter_values(group.iter().map(|row| &*row.id));
            let columns: Vec<arrow_array::ArrayRef> = vec![Arc::new(image), Arc::new(labels), Arc::new(ids)];
            writer.write(&RecordBatch::try_new(schema.clone(), columns)?)?;
            writer.flush()?;
        }
        writer.into_inner()
    };
    written().map(Bytes::from).map_err(|error| format!("cannot write Parquet: {error}"))
}

/// The card by which `datasets` finds splits, columns and the names of classes.
pub(super) fn card(classes: &[String], shards: &[WrittenShard]) -> String {
    let of = |split: Split| {
        let shards: Vec<&WrittenShard> = shards.iter().filter(|shard| shard.split == split).collect();
        let rows = shards.iter().map(|shard| shard.rows).sum();
        let bytes = shards.iter().map(|shard| shard.bytes).sum();
        (!shards.is_empty()).then_some((split, rows, bytes))
    };
    let splits: Vec<(Split, u64, u64)> = Split::ALL.into_iter().filter_map(of).collect();
    let rows: u64 = splits.iter().map(|(_, rows, _)| rows).sum();
    let about = format!(
        "An image classification dataset of {rows} images in {} classes, converted by Forebay: the image files are as they \
         were.\n",
        classes.len()
    );
    dataset_card(classes, &COLUMNS, &splits, &about)
}
