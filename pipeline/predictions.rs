//! What a model said of samples, as a Parquet file that pandas, polars and DuckDB open: a row per sample, found by its id.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Float32Type;
use arrow_array::{Array, ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use forebay_datasets::columns::{self, ColumnBounds, FilePart, Unsound, Writer};
use forebay_datasets::escape::{one_line, printable};
use forebay_datasets::panics;
use forebay_datasets::sample::{Label, SampleId, Split};
use forebay_datasets::store::Store;
use forebay_train::metrics::{Scored, prediction};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use crate::flow::{Error, in_one_line};
use crate::options::bytes_in_words;

/// The key of the file's metadata under which the names of the classes stand, as a JSON list.
pub const CLASSES_KEY: &str = "classes";
/// Under which key of the metadata the options stand that they were made with, beside the model's own.
const ASKED_KEY: &str = "asked";

/// The columns: id, split and label where they are known, the predicted class and its probability, and the probability of
/// each class, in the order of [`CLASSES_KEY`].
pub const COLUMNS: [&str; 6] = ["id", "split", "label", "prediction", "confidence", "probabilities"];

/// Those that are read: prediction and confidence follow from the probabilities.
const READ: [&str; 4] = ["id", "split", "label", "probabilities"];

/// Rows that are encoded, and decoded, at once.
const ROWS_AT_ONCE: usize = 4096;

/// The most bytes that the values of a file become, for each of its own and beside these: Snappy packs 64 bytes into 3, and what
/// another program writes of a few rows may be packed as it likes. A small file could say that it holds any number of zeros.
const BYTES_PER_BYTE_MAX: usize = 32;
const BYTES_BESIDE_MAX: usize = 8 << 20;
/// The most bytes of a file that is read, and of what it becomes.
const BYTES_MAX: usize = 4 << 30;

/// The most probabilities that are decoded at once.
const VALUES_AT_ONCE: usize = 1 << 20;

/// How far from 1 the sum of a row may be, as rounding leaves it.
const SUM_TOLERANCE: f32 = 1e-3;

/// What a model said of samples, with their labels where they are known.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    classes: Vec<String>,
    ids: Vec<SampleId>,
    splits: Vec<Option<Split>>,
    labels: Vec<Option<Label>>,
    /// Row by row.
    probabilities: Vec<f32>,
    /// What the model was asked with, beside its own: views, another prior, another temperature; as options, empty without.
    asked: String,
}

impl Predictions {
    /// None yet, of these classes.
    pub fn new(classes: Vec<String>) -> Predictions {
        Predictions {
            classes,
            ids: Vec::new(),
            splits: Vec::new(),
            labels: Vec::new(),
            probabilities: Vec::new(),
            asked: String::new(),
        }
    }

    /// The same, made with these options beside what the model itself says.
    pub fn asked_with(self, asked: String) -> Predictions {
        Predictions { asked, ..self }
    }

    /// The options that they were made with, beside what the model itself says; empty without.
    pub fn asked(&self) -> &str {
        &self.asked
    }

    /// Adds what was said of a sample: a probability per class.
    ///
    /// # Panics
    /// When there is not one per class, or the label is no class.
    pub fn push(&mut self, id: SampleId, split: Option<Split>, label: Option<Label>, probabilities: &[f32]) {
        assert_eq!(probabilities.len(), self.classes.len(), "a probability per class");
        assert!(label.is_none_or(|label| (label as usize) < self.classes.len()), "{label:?} is no class");
        self.ids.push(id);
        self.splits.push(split);
        self.labels.push(label);
        self.probabilities.extend_from_slice(probabilities);
    }

    /// Adds every sample of a split, with the probabilities at `temperature`.
    ///
    /// # Panics
    /// When its classes are others.
    pub fn push_scored(&mut self, scored: &Scored, split: Split, temperature: f64) {
        assert_eq!(scored.classes(), self.classes, "predictions are of one list of classes");
        for index in 0..scored.len() {
            let probabilities = scored.probabilities(index, temperature);
            let probabilities: Vec<f32> = probabilities.into_iter().map(|p| p as f32).collect();
            let (id, label) = (scored.ids()[index].clone(), scored.labels()[index]);
            self.push(id, Some(split), Some(label), &probabilities);
        }
    }

    /// The names of the classes.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The splits that there are labelled samples of, in the order of [`Split::ALL`].
    pub fn splits(&self) -> Vec<Split> {
        let has = |split: &Split| {
            self.splits.iter().zip(&self.labels).any(|(of, label)| *of == Some(*split) && label.is_some())
        };
        Split::ALL.into_iter().filter(has).collect()
    }

    /// The labelled samples of a split, or all of them, their logits the logarithms of the probabilities; `place` is where they were read.
    ///
    /// # Errors
    /// [`Error::Integrity`] when a sample comes twice.
    pub fn scored(&self, split: Option<Split>, place: &str) -> Result<Scored, Error> {
        let mut scored = Scored::new(self.classes.clone());
        for (index, probabilities) in self.rows() {
            let is_chosen = split.is_none() || self.splits[index] == split;
            let Some(label) = self.labels[index].filter(|_| is_chosen) else { continue };
            let logits: Vec<f32> = probabilities.iter().map(|p| f64::from(*p).ln() as f32).collect();
            let pushed = scored.push(self.ids[index].clone(), label, &logits);
            pushed.map_err(|error| Error::Integrity(format!("{place}: {error}")))?;
        }
        Ok(scored)
    }

    fn rows(&self) -> impl Iterator<Item = (usize, &[f32])> {
        self.probabilities.chunks(self.classes.len().max(1)).enumerate()
    }

    fn schema(&self) -> SchemaRef {
        let field = |name: &str, data_type, is_nullable| Field::new(name, data_type, is_nullable);
        let [id, split, label, prediction, confidence, probabilities] = COLUMNS;
        let fields = vec![
            field(id, DataType::Utf8, false),
            field(split, DataType::Utf8, true),
            field(label, DataType::Utf8, true),
            field(prediction, DataType::Utf8, false),
            field(confidence, DataType::Float32, false),
            field(probabilities, DataType::FixedSizeList(value(), self.classes.len() as i32), false),
        ];
        let classes = serde_json::to_string(&self.classes).expect("text is JSON");
        Arc::new(Schema::new_with_metadata(fields, HashMap::from([(CLASSES_KEY.to_string(), classes)])))
    }

    /// The bytes of a Parquet file: a function of the predictions and their order.
    pub fn to_parquet(&self) -> Bytes {
        self.encode().expect("every column has a value, or none, for each row").into()
    }

    fn encode(&self) -> Result<Vec<u8>, ParquetError> {
        let schema = self.schema();
        let classes = KeyValue::new(CLASSES_KEY.to_string(), schema.metadata().get(CLASSES_KEY).cloned());
        let asked = match self.asked.is_empty() {
            true => vec![],
            false => vec![KeyValue::new(ASKED_KEY.to_string(), self.asked.clone())],
        };
        // Ids are distinct, and probabilities nearly so: a dictionary of them would be as large as they are.
        let [id, .., confidence, probabilities] = COLUMNS;
        let plain = [vec![id], vec![confidence], vec![probabilities, "list", "item"]];
        let plain = plain.map(|path| ColumnPath::new(path.into_iter().map(String::from).collect()));
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
        let properties = plain
            .into_iter()
            .fold(properties, |properties, path| properties.set_column_dictionary_enabled(path, false))
            .set_key_value_metadata(Some([vec![classes], asked].concat()))
            .build();
        let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties))?;
        let n_classes = self.classes.len();
        for first in (0..self.len()).step_by(ROWS_AT_ONCE) {
            let rows = first..(first + ROWS_AT_ONCE).min(self.len());
            let name = |class: Label| self.classes[class as usize].as_str();
            let values = &self.probabilities[rows.start * n_classes..rows.end * n_classes];
            let guesses: Vec<usize> =
                values.chunks(n_classes).map(|row| prediction(row).unwrap_or_default()).collect();
            let confidences = values.chunks(n_classes).zip(&guesses).map(|(row, guess)| row[*guess]);
            let values = Arc::new(Float32Array::from(values.to_vec()));
            let columns: Vec<ArrayRef> = vec![
                Arc::new(StringArray::from_iter_values(self.ids[rows.clone()].iter())),
                Arc::new(StringArray::from_iter(
                    self.splits[rows.clone()].iter().map(|split| split.map(Split::name)),
                )),
                Arc::new(StringArray::from_iter(self.labels[rows].iter().map(|label| label.map(name)))),
                Arc::new(StringArray::from_iter_values(guesses.iter().map(|guess| name(*guess as Label)))),
                Arc::new(Float32Array::from_iter_values(confidences)),
                Arc::new(FixedSizeListArray::try_new(value(), n_classes as i32, values, None)?),
            ];
            writer.write(&RecordBatch::try_new(schema.clone(), columns)?)?;
        }
        writer.into_inner()
    }

    /// Finds a file of predictions below `folder` and reads it; `place` is what it is called.
    ///
    /// # Errors
    /// As [`Predictions::from_parquet`], and when it cannot be read.
    pub async fn find(folder: &Store, name: &str, place: &str) -> Result<Option<Predictions>, Error> {
        if let Some(bytes) = folder.size(name).await?
            && bytes > BYTES_MAX as u64
        {
            let (has, most) = (bytes_in_words(bytes), bytes_in_words(BYTES_MAX as u64));
            return Err(Error::Usage(format!(
                "{place} has {has}, and of predictions no more than {most} are read: compare fewer samples at a time"
            )));
        }
        let file = folder.find(name).await?;
        file.map(|file| Predictions::from_parquet(place, file)).transpose()
    }

    /// Reads a file of predictions; `place` is what it is called. Prediction and confidence follow from the probabilities,
    /// and are not read.
    ///
    /// # Errors
    /// [`Error::Usage`] when it is of another kind; [`Error::Integrity`] when it is damaged, or says what cannot be.
    pub fn from_parquet(place: &str, file: Bytes) -> Result<Predictions, Error> {
        let read = panics::guard(|| Predictions::decode(file));
        let found = read.unwrap_or_else(|message| Err(Unreadable::Damaged(one_line(&message).into_owned())));
        found.map_err(|why| match why {
            Unreadable::Foreign(why) => Error::Usage(format!("{place} is no file of predictions: {why}")),
            Unreadable::Damaged(why) => Error::Integrity(format!("{place} is damaged: {why}")),
        })
    }

    fn decode(file: Bytes) -> Result<Predictions, Unreadable> {
        if !file.starts_with(b"PAR1") {
            return Err(Unreadable::Foreign("it does not begin as a Parquet file does".into()));
        }
        let bytes = file.len();
        let metadata = columns::metadata_of_file(&file)?;
        let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new())?;
        let file = FilePart::whole(file);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file.clone(), metadata);
        let classes = reader.schema().metadata().get(CLASSES_KEY);
        let classes: Option<Vec<String>> = classes.and_then(|classes| serde_json::from_str(classes).ok());
        let classes = classes.filter(|classes| !classes.is_empty()).ok_or_else(|| {
            Unreadable::Foreign(format!("its metadata has no list of names under `{CLASSES_KEY}`"))
        })?;
        let asked = reader.schema().metadata().get(ASKED_KEY).cloned().unwrap_or_default();
        let labels: HashMap<String, Label> =
            classes.iter().enumerate().map(|(label, name)| (name.clone(), label as Label)).collect();
        if labels.len() < classes.len() {
            return Err(Unreadable::Damaged("two of its classes have one name".into()));
        }
        for (name, expected) in [
            ("id", DataType::Utf8),
            ("split", DataType::Utf8),
            ("label", DataType::Utf8),
            ("probabilities", DataType::FixedSizeList(value(), classes.len() as i32)),
        ] {
            let found = reader.schema().field_with_name(name).map(|field| field.data_type());
            let fits = match (found, &expected) {
                (Ok(DataType::FixedSizeList(field, n)), DataType::FixedSizeList(_, expected)) => {
                    n == expected && *field.data_type() == DataType::Float32
                }
                (Ok(found), expected) => found == expected,
                (Err(_), _) => return Err(Unreadable::Foreign(format!("it has no column `{name}`"))),
            };
            if !fits {
                let expected = match expected {
                    DataType::FixedSizeList(..) => format!("lists of {} numbers of 32 bits", classes.len()),
                    _ => "text".into(),
                };
                return Err(Unreadable::Foreign(format!("its column `{name}` is not of {expected}")));
            }
        }
        check_bounds(reader.metadata(), &Arc::new(file), bytes, classes.len())?;
        let read = ProjectionMask::columns(reader.parquet_schema(), READ);
        let reader = reader.with_projection(read);
        let mut predictions = Predictions::new(classes).asked_with(asked);
        let rows_at_once = (VALUES_AT_ONCE / predictions.classes.len()).clamp(1, ROWS_AT_ONCE);
        for batch in reader.with_batch_size(rows_at_once).build()? {
            let batch =
                batch.map_err(|error| Unreadable::Damaged(one_line(&error.to_string()).into_owned()))?;
            predictions.append(&batch, &labels)?;
        }
        Ok(predictions)
    }

    fn append(&mut self, batch: &RecordBatch, labels: &HashMap<String, Label>) -> Result<(), Unreadable> {
        let column = |name: &str| batch.column_by_name(name).expect("the schema has it");
        let text = |name: &str| column(name).as_string::<i32>();
        let (ids, splits, names) = (text("id"), text("split"), text("label"));
        let lists = column("probabilities").as_fixed_size_list();
        for row in 0..batch.num_rows() {
            if ids.is_null(row) || lists.is_null(row) {
                return Err(Unreadable::Damaged("a row has no id, or no probabilities".into()));
            }
            let id = ids.value(row);
            let damaged = |what: String| Unreadable::Damaged(format!("{what} of {}", printable(id)));
            let word = |column: &StringArray| (!column.is_null(row)).then(|| column.value(row).to_string());
            let split = match word(splits) {
                None => None,
                Some(word) => match Split::ALL.into_iter().find(|split| split.name() == word) {
                    Some(split) => Some(split),
                    None => return Err(damaged(format!("the split `{}`", printable(&word)))),
                },
            };
            let label = match word(names) {
                None => None,
                Some(word) => match labels.get(&word) {
                    Some(label) => Some(*label),
                    None => {
                        return Err(damaged(format!("the label `{}`, which is no class,", printable(&word))));
                    }
                },
            };
            let values = lists.value(row);
            let values = values.as_primitive::<Float32Type>();
            let is_share = |p: &f32| (0.0..=1.0).contains(p);
            if values.null_count() > 0
                || !values.values().iter().all(is_share)
                || (values.values().iter().sum::<f32>() - 1.0).abs() > SUM_TOLERANCE
            {
                return Err(damaged("the probabilities, which do not share out 1,".into()));
            }
            self.push(id.into(), split, label, values.values());
        }
        Ok(())
    }
}

/// The field of one probability.
fn value() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Float32, false))
}

/// Refuses a file whose rows would become more than [`BYTES_PER_BYTE_MAX`] allows, before any is unpacked.
fn check_bounds(
    metadata: &ParquetMetaData,
    file: &Arc<FilePart>,
    bytes: usize,
    n_classes: usize,
) -> Result<(), Unreadable> {
    let bytes_max = bytes.saturating_mul(BYTES_PER_BYTE_MAX).saturating_add(BYTES_BESIDE_MAX).min(BYTES_MAX);
    let (mut rows, mut rest) = (0, bytes_max);
    for group in metadata.row_groups() {
        // A sample has an id of its own, so that a row takes a byte of the file or more.
        rows += u64::try_from(group.num_rows()).unwrap_or(u64::MAX).min(1 << 40);
        if rows > bytes as u64 {
            return Err(Unreadable::Damaged(format!(
                "it says that it has {rows} rows or more in {bytes} bytes"
            )));
        }
        let unpacked = columns::check_pages(group, file, |column| {
            let name = column.column_path().parts()[0].as_str();
            READ.contains(&name).then(|| ColumnBounds {
                values_per_row: if name == "probabilities" { n_classes } else { 1 },
                bytes_max: Some(rest),
                // Of split and label no text is kept beyond a batch.
                values_at_once: if ["split", "label"].contains(&name) { ROWS_AT_ONCE } else { usize::MAX },
                writer: Writer::Forebay,
            })
        })?;
        let what =
            || Unreadable::Damaged(format!("it becomes more than {bytes_max} bytes once it is unpacked"));
        rest = rest.checked_sub(unpacked).ok_or_else(what)?;
    }
    Ok(())
}

/// Why a file cannot be read.
enum Unreadable {
    /// It is something else.
    Foreign(String),
    /// It is one, and not as it was written.
    Damaged(String),
}

impl From<Unsound> for Unreadable {
    fn from(error: Unsound) -> Unreadable {
        Unreadable::Damaged(one_line(&in_one_line(&error)).into_owned())
    }
}

impl From<ParquetError> for Unreadable {
    fn from(error: ParquetError) -> Unreadable {
        Unreadable::Damaged(one_line(&error.to_string()).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predictions() -> Predictions {
        let mut predictions = Predictions::new(vec!["cat".into(), "dog \"x\"".into(), "emu\n".into()]);
        let mut scored = Scored::new(predictions.classes().to_vec());
        scored.push("b.png".into(), 2, &[0.5, f32::NEG_INFINITY, 2.0]).unwrap();
        scored.push("a.png".into(), 1, &[0.0, 1.0, 0.0]).unwrap();
        predictions.push_scored(&scored, Split::Test, 2.0);
        predictions.push("c.png".into(), None, None, &[0.2, 0.3, 0.5]);
        predictions.push("d.png".into(), Some(Split::Train), Some(0), &[1.0, 0.0, 0.0]);
        predictions
    }

    #[test]
    fn predictions_come_back_as_they_were_written() {
        let predictions = predictions();
        let file = predictions.to_parquet();
        assert_eq!(file, predictions.to_parquet());
        let back = Predictions::from_parquet("p.parquet", file).unwrap();
        assert_eq!((&back, back.splits()), (&predictions, vec![Split::Train, Split::Test]));
        let scored = back.scored(Some(Split::Test), "p.parquet").unwrap();
        let ids: Vec<&str> = scored.ids().iter().map(AsRef::as_ref).collect();
        assert_eq!((ids, scored.labels()), (vec!["b.png", "a.png"], &[2, 1][..]));
        let p = scored.probabilities(1, 1.0);
        let expected = 0.5f64.exp() / (2.0 + 0.5f64.exp());
        assert!((p[1] - expected).abs() < 1e-6 && p.iter().sum::<f64>() - 1.0 < 1e-12);
        assert_eq!(
            (scored.probabilities(0, 1.0)[1], back.scored(Some(Split::Validation), "").unwrap().len()),
            (0.0, 0)
        );
        let none = Predictions::new(vec!["a".into()]);
        assert!(Predictions::from_parquet("p", none.to_parquet()).unwrap().is_empty());
    }

    #[test]
    fn many_rows_come_back_in_their_order() {
        let mut predictions = Predictions::new(vec!["a".into(), "b".into()]);
        for index in 0..2 * ROWS_AT_ONCE + 7 {
            let p = index as f32 / 10_000.0;
            let label = Some((index % 2) as Label);
            predictions.push(format!("{index}").into(), Some(Split::Test), label, &[p, 1.0 - p]);
        }
        assert_eq!(Predictions::from_parquet("p", predictions.to_parquet()).unwrap(), predictions);
    }

    #[test]
    fn a_sample_that_comes_twice_is_named() {
        let mut predictions = predictions();
        predictions.push("a.png".into(), Some(Split::Test), Some(0), &[1.0, 0.0, 0.0]);
        let error = predictions.scored(None, "p.parquet").unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().as_str()), (4, "p.parquet: a.png is scored twice"));
    }

    #[test]
    fn what_is_no_file_of_predictions_is_told_from_a_damaged_one() {
        let refused = |file: Bytes| Predictions::from_parquet("x", file).unwrap_err();
        let error = refused(Bytes::from_static(b"id,label\n"));
        assert_eq!(error.exit_code(), 2, "{error}");
        let whole = predictions().to_parquet();
        let error = refused(whole.slice(..whole.len() - 9));
        assert!(error.exit_code() == 4 && error.to_string().starts_with("x is damaged: "), "{error}");
        let odd = |p: &[f32]| {
            let mut predictions = Predictions::new(vec!["a".into(), "b".into()]);
            predictions.push("odd.png".into(), None, None, p);
            refused(predictions.to_parquet())
        };
        for p in [[0.5, 0.6], [f32::NAN, 1.0], [-0.5, 1.5], [0.0, 0.0]] {
            let error = odd(&p);
            assert!(error.to_string().ends_with("which do not share out 1, of odd.png"), "{error}");
        }
    }

    #[test]
    fn shares_of_nothing_and_of_everything_are_kept_small_and_come_back() {
        // As those of a hard vote among many classes.
        let mut predictions = Predictions::new((0..300).map(|class| format!("class {class}")).collect());
        for index in 0..5000 {
            let mut p = [0.0; 300];
            p[index % 300] = 1.0;
            predictions.push(format!("photos/of a class/{index:06}.jpg").into(), Some(Split::Test), None, &p);
        }
        let file = predictions.to_parquet();
        assert!(file.len() < 1_000_000, "{} bytes of 6,000,000", file.len());
        assert_eq!(Predictions::from_parquet("p", file).unwrap(), predictions);
    }

    #[test]
    fn a_file_with_any_byte_changed_is_read_or_refused_and_never_a_panic() {
        let whole = predictions().to_parquet();
        for index in 0..whole.len() {
            let mut bytes = whole.to_vec();
            bytes[index] ^= 0x55;
            let _ = Predictions::from_parquet("x", bytes.into());
        }
    }
}
