//! Parquet files that hold images, as Hugging Face `datasets` writes them: a column of images (`struct<bytes, path>` or
//! bytes), one of labels, and the names of the classes in the file's metadata. The files are read by their footers and
//! their labels; images stay where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_schema::{DataType, Field};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use parquet::basic::Compression;
use serde_json::Value as Json;

use super::gathered::{FoundSample, Gathered, broken, class_name, id_of_copy, own_id, split_of_path};
use super::kept::{self, Kept};
use super::listing::File;
use super::packed::{KEPT_BYTES_MAX, PIECE_BYTES_MAX, Piece, Places, Shelf, Unpack, Unpacked};
use super::table::LABEL_COLUMNS;
use super::{
    Layout, LayoutKind, LayoutOptions, Locator, Misfit, NamedColumns, Reading, Source, SourceContents,
    split_called,
};
use crate::columns::{ByteStrings, OthersColumn, OthersFile, OthersFileError, Value, byte_range};
use crate::sample::SampleId;
use crate::store::{ByteWindow, StoreError};
use crate::words::few;

/// Files whose footers are read at once.
const AT_ONCE: usize = 16;

/// The names of columns of bytes that are images where nothing says so, the first first.
const IMAGE_COLUMNS: [&str; 7] = ["image", "img", "jpg", "jpeg", "png", "image_bytes", "bytes"];

/// Parquet files with a column of images.
pub(super) struct HuggingFaceParquet;

impl Layout for HuggingFaceParquet {
    fn kind(&self) -> LayoutKind {
        LayoutKind::Parquet
    }

    fn looks_for(&self) -> &'static str {
        "Parquet files with a column of images, as Hugging Face datasets writes them"
    }

    fn finds(&self, source: &Source<'_>) -> Option<String> {
        let files = files(source);
        let names: Vec<&str> = files.iter().map(|file| &*file.id).collect();
        (!names.is_empty()).then(|| few(&names))
    }

    fn columns(&self) -> NamedColumns {
        NamedColumns::ALL
    }

    fn read<'a>(&'a self, source: &'a Source<'a>) -> Reading<'a> {
        Box::pin(read(source))
    }
}

/// What is no table of an image folder.
fn files<'a>(source: &Source<'a>) -> Vec<&'a File> {
    let mut files = source.files_called(&["parquet"]);
    if source.options.file.is_none() {
        files.retain(|file| file.id.rsplit('/').next() != Some("metadata.parquet"));
    }
    files
}

/// A line for each set of files that are numbered `NAME-00000-of-00032.parquet` and of which some are not there.
fn incomplete<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut there: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for name in names {
        let Some((first, count)) = name.strip_suffix(".parquet").and_then(|name| name.rsplit_once("-of-"))
        else {
            continue;
        };
        let Some((set, _)) = first.rsplit_once('-') else { continue };
        *there.entry((set, count)).or_default() += 1;
    }
    let lacks = |((set, count), n): (&(&str, &str), &usize)| {
        let wanted = count.parse::<usize>().ok().filter(|wanted| n < wanted)?;
        Some(format!("{set}: {n} of its {wanted} files are there, and the images of the others are missing"))
    };
    there.iter().filter_map(lacks).collect()
}

/// A line for files that are called after splits other than those that are known, as those of `datasets` may be.
fn other_splits<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let (mut known, mut others) = (false, BTreeSet::new());
    for name in names {
        let base = name.rsplit('/').next().unwrap_or(name);
        match (split_of_path(name), base.split_once('-')) {
            (Some(_), _) => known = true,
            (None, Some((other, _))) => drop(others.insert(other)),
            (None, None) => {}
        }
    }
    let others: Vec<&str> = others.into_iter().collect();
    (known && !others.is_empty()).then(|| {
        format!("{}: no split that is known by its name, so that its images are in train", few(&others))
    })
}

async fn read(source: &Source<'_>) -> Result<SourceContents, Misfit> {
    let files = files(source);
    one_configuration(source, &files)?;
    let shelf = Arc::new(Shelf::default());
    let parts: Vec<_> = files.iter().map(|file| part(source, file, &shelf)).collect();
    let mut parts = futures::stream::iter(parts).buffered(AT_ONCE);
    let mut found = Gathered::default();
    let mut samples: Vec<ParquetRow> = Vec::new();
    let mut first: Option<(&File, ParquetColumns)> = None;
    let mut packing = Packing::default();
    for file in &files {
        let ParquetRows { columns, rows, packing: of_part } =
            parts.next().await.expect("one for each file")?;
        match &first {
            None => first = Some((file, columns)),
            Some((other, expected)) if *expected != columns => {
                return Err(broken(format!(
                    "{} has {columns}, and {} has {expected}: a dataset has the same features in all of its files",
                    source.name(file),
                    source.name(other)
                )));
            }
            Some(_) => {}
        }
        found.splits.extend(split_of_path(&file.id));
        packing.merge(of_part);
        samples.extend(rows);
    }
    let n = files.len();
    let files_in_words = if n == 1 { "1 file".to_string() } else { format!("{n} files") };
    let Some((_, columns)) = first else {
        return Err(Misfit::Holds("no Parquet file".to_string()));
    };
    found.layout = format!("Parquet, {files_in_words}, {columns}");
    found.classes.extend(columns.names.iter().flatten().filter_map(|name| class_name(name)));
    found.warnings.extend(packing.warning());
    if source.options.file.is_none() {
        found.warnings.extend(other_splits(files.iter().map(|file| &*file.id)));
        found.warnings.extend(incomplete(files.iter().map(|file| &*file.id)));
    }
    found.kept_columns.clone_from(&source.options.keep_columns);
    add(&mut found, samples, &columns);
    found.into_contents()
}

/// Several configurations are several datasets.
fn one_configuration(source: &Source<'_>, files: &[&File]) -> Result<(), Misfit> {
    let of = |file: &&&File| {
        let (folders, _) = file.id.rsplit_once('/')?;
        let folders = folders.split('/').filter(|part| split_called(part).is_none() && *part != "data");
        Some(folders.collect::<Vec<_>>().join("/"))
    };
    let folders: BTreeSet<String> = files.iter().map(|file| of(&file).unwrap_or_default()).collect();
    if folders.len() < 2 {
        return Ok(());
    }
    let folders: Vec<String> = folders.into_iter().filter(|folder| !folder.is_empty()).collect();
    let location = source.store.location().trim_end_matches('/');
    Err(broken(format!(
        "{location} holds Parquet files in several folders ({}), which are probably configurations of a dataset: give one \
         of them, such as {location}/{}",
        few(&folders),
        folders[0]
    )))
}

/// The columns of a file that are read.
#[derive(Clone, Debug, PartialEq)]
struct ParquetColumns {
    /// The path of the bytes of the images.
    image: Vec<String>,
    label: Option<String>,
    /// The names of the classes that the metadata gives, in the order of the labels.
    names: Option<Vec<String>>,
}

impl std::fmt::Display for ParquetColumns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "images in `{}`", self.image[0])?;
        match (&self.label, &self.names) {
            (None, _) => write!(f, " and no labels"),
            (Some(label), None) => write!(f, " and labels in `{label}`"),
            (Some(label), Some(names)) => write!(f, " and labels of {} classes in `{label}`", names.len()),
        }
    }
}

/// A row of a file.
struct ParquetRow {
    /// By its file and its number there.
    place: SampleId,
    /// By a column of ids.
    own_id: Option<SampleId>,
    label: Value,
    split: Option<crate::sample::Split>,
    locator: Locator,
    version: crate::store::Version,
    kept: Option<Kept>,
}

/// How the images of files are packed.
#[derive(Default)]
struct Packing {
    kind: Option<Compression>,
    bytes: u64,
    largest: u64,
}

impl Packing {
    fn merge(&mut self, other: Packing) {
        self.kind = self.kind.or(other.kind);
        self.bytes += other.bytes;
        self.largest = self.largest.max(other.largest);
    }

    fn warning(&self) -> Option<String> {
        let kind = self.kind.filter(|_| self.bytes > KEPT_BYTES_MAX)?;
        Some(format!(
            "its images are packed ({kind}), {} MiB at a time, so that one cannot be read alone: prepare --order source \
             unpacks each part once, any other order many times",
            (self.largest >> 20).max(1)
        ))
    }
}

struct ParquetRows {
    columns: ParquetColumns,
    rows: Vec<ParquetRow>,
    packing: Packing,
}

/// The rows of one file.
async fn part(source: &Source<'_>, file: &File, shelf: &Arc<Shelf>) -> Result<ParquetRows, Misfit> {
    let refuse = |error: OthersFileError| match error {
        OthersFileError::Store(error) => Misfit::from(error),
        OthersFileError::Odd(what) => broken(format!("cannot read {}: {what}", source.name(file))),
    };
    let parquet = OthersFile::open(source.store, &file.name, file.bytes).await.map_err(refuse)?;
    let columns = columns(&parquet, source.options).map_err(|what| match what {
        NoColumns::Images(what) => Misfit::Holds(format!("{} {what}", file.id)),
        NoColumns::Unclear(what) => broken(format!("{} {what}", source.name(file))),
    })?;
    let image: Vec<&str> = columns.image.iter().map(String::as_str).collect();
    let image = parquet.leaf(&image).expect("it was looked for among the columns");
    let leaf = |name: &str| parquet.leaf(&[name]);
    let label = match &columns.label {
        None => None,
        Some(name) => Some(leaf(name).ok_or_else(|| {
            broken(format!(
                "{}: its column `{name}` holds several labels of an image or none that can be a class: a sample has one \
                 class, a text or a whole number",
                source.name(file)
            ))
        })?),
    };
    let text = |name: &str| {
        let is_text =
            parquet.fields().any(|field| field.name() == name && *field.data_type() == DataType::Utf8);
        leaf(name).filter(|_| is_text)
    };
    let (id, copy) = (text("id"), leaf("copy").filter(|_| parquet.key("forebay").is_some()));
    let names: Vec<String> = parquet.fields().map(|field| field.name().clone()).collect();
    let kept_places = kept::places(&names, source.options);
    let kept_places = kept_places.map_err(|why| broken(format!("{} {why}", source.name(file))))?;
    let split = split_of_path(&file.id);
    let (mut rows, mut packing) = (Vec::new(), Packing::default());
    for (row_group, metadata) in parquet.row_groups().iter().enumerate() {
        let n = u32::try_from(metadata.num_rows())
            .map_err(|_| broken(format!("{}: a row group has too many rows", source.name(file))))?;
        if n == 0 {
            continue;
        }
        let column = metadata.column(image);
        let bytes = u64::try_from(column.uncompressed_size()).unwrap_or_default();
        if bytes > PIECE_BYTES_MAX {
            return Err(broken(format!(
                "{}: a row group has {} MiB of images, more than can be read at once: write it with fewer rows a group",
                source.name(file),
                bytes >> 20
            )));
        }
        if column.compression() != Compression::UNCOMPRESSED {
            let kind = Some(column.compression());
            packing.merge(Packing { kind, bytes, largest: bytes });
        }
        let unpack = Box::new(ImageColumn(parquet.column(row_group, image)));
        let first = rows.len() as u64;
        let numbers = first..first + u64::from(n);
        let piece = Piece::new(file.name.clone(), byte_range(column), numbers, bytes, unpack, shelf);
        let mut read = Vec::new();
        for leaf in [label, id, copy] {
            read.push(match leaf {
                None => vec![Value::Null; n as usize],
                Some(leaf) => parquet.values(source.store, row_group, leaf).await.map_err(refuse)?,
            });
        }
        let [labels, ids, copies] = <[Vec<Value>; 3]>::try_from(read).expect("three columns");
        let mut columns = Vec::new();
        for place in &kept_places {
            columns.push(match leaf(&names[*place]) {
                Some(leaf) => parquet.values(source.store, row_group, leaf).await.map_err(refuse)?,
                None => vec![Value::Other; n as usize],
            });
        }
        let values = labels.into_iter().zip(ids).zip(copies);
        for (row, ((label, id), copy)) in piece.samples().zip(values) {
            let own_id = match (id, copy) {
                (Value::Text(id), Value::Integer(copy)) => id_of_copy(&id, copy),
                (Value::Text(id), _) => own_id(&id),
                _ => None,
            };
            let at = (row.number() - first) as usize;
            let kept = columns.iter().map(|column| column[at].clone()).collect();
            let kept = kept::values(kept, source.options)
                .map_err(|why| broken(format!("{}: row {}: {why}", source.name(file), rows.len())))?;
            rows.push(ParquetRow {
                kept,
                place: format!("{}/{:06}", file.id, rows.len()).into(),
                own_id,
                label,
                split,
                locator: Locator::packed(row),
                version: file.version,
            });
        }
    }
    Ok(ParquetRows { columns, rows, packing })
}

/// Adds the rows of all files.
fn add(found: &mut Gathered, rows: Vec<ParquetRow>, columns: &ParquetColumns) {
    for ParquetRow { place, own_id, label, split, locator, version, kept } in rows {
        match class_of(label, columns) {
            Ok(class) => {
                found.samples.push(FoundSample { id: place, own_id, class, split, locator, version, kept })
            }
            Err(reason) => found.reject(place, reason),
        }
    }
}

/// The class of a label; `None` where there is none: Hugging Face writes -1 for one that is not known.
fn class_of(label: Value, columns: &ParquetColumns) -> Result<Option<Arc<str>>, String> {
    match (label, &columns.names) {
        (Value::Null, _) => Ok(None),
        (Value::Integer(-1), Some(_)) => Ok(None),
        (Value::Integer(label), Some(names)) => {
            let name = usize::try_from(label).ok().and_then(|label| names.get(label));
            let name = name.ok_or_else(|| {
                format!("its label {label} is out of range: the file names {} classes", names.len())
            })?;
            Ok(class_name(name))
        }
        (Value::Integer(label), None) => Ok(class_name(&label.to_string())),
        (Value::Text(name), _) => Ok(class_name(&name)),
        (Value::Number(number), _) => {
            Err(format!("its label {number:?} is a number with a fraction and no class"))
        }
        (Value::Other, _) => Err("its label is neither a text nor a whole number".to_string()),
    }
}

/// Why the columns of a file are not known.
enum NoColumns {
    /// It holds no images.
    Images(String),
    /// It may hold several.
    Unclear(String),
}

fn columns(parquet: &OthersFile, options: &LayoutOptions) -> Result<ParquetColumns, NoColumns> {
    let json: Json =
        parquet.key("huggingface").and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    let features = &json["info"]["features"];
    let is_feature = |name: &str, kind: &str| features[name]["_type"] == kind;
    let fields: BTreeMap<&str, &Field> =
        parquet.fields().map(|field| (field.name().as_str(), field)).collect();
    let image_path = |field: &Field| -> Option<Vec<String>> {
        let is_bytes =
            |kind: &DataType| matches!(kind, DataType::Binary | DataType::LargeBinary | DataType::BinaryView);
        match field.data_type() {
            kind if is_bytes(kind) => Some(vec![field.name().clone()]),
            DataType::Struct(children) => {
                let child = children.iter().find(|child| child.name() == "bytes");
                child.filter(|child| is_bytes(child.data_type()))?;
                Some(vec![field.name().clone(), "bytes".to_string()])
            }
            _ => None,
        }
    };
    let having = |names: &[&str]| names.join(", ");
    let image = match &options.image_column {
        Some(name) => {
            let field = fields.get(name.as_str()).ok_or_else(|| {
                let names: Vec<&str> = parquet.fields().map(|field| field.name().as_str()).collect();
                NoColumns::Unclear(format!("has no column `{name}`; it has {}", having(&names)))
            })?;
            let what = || NoColumns::Unclear(format!("has no images in its column `{name}`"));
            image_path(field).ok_or_else(what)?
        }
        None => {
            let all: Vec<Vec<String>> = parquet.fields().filter_map(image_path).collect();
            let declared: Vec<&Vec<String>> =
                all.iter().filter(|path| is_feature(&path[0], "Image")).collect();
            let structures: Vec<&Vec<String>> = all.iter().filter(|path| path.len() == 2).collect();
            let called = IMAGE_COLUMNS.iter().find_map(|name| all.iter().find(|path| path[0] == *name));
            let usual = |paths: &[&Vec<String>]| match paths {
                [] => None,
                [one] => Some(Ok((*one).clone())),
                several => Some(match several.iter().find(|path| IMAGE_COLUMNS.contains(&&*path[0])) {
                    Some(path) => Ok((**path).clone()),
                    None => {
                        let names: Vec<&str> = several.iter().map(|path| path[0].as_str()).collect();
                        let names = having(&names);
                        Err(NoColumns::Unclear(format!(
                            "has several columns of images ({names}): say which (--image-column)"
                        )))
                    }
                }),
            };
            let found = usual(&declared).or_else(|| usual(&structures));
            let found = found.or_else(|| called.map(|path| Ok(path.clone())));
            found.unwrap_or_else(|| Err(NoColumns::Images("without a column of images".to_string())))?
        }
    };
    let label = match &options.label_column {
        Some(name) if fields.contains_key(name.as_str()) => Some(name.clone()),
        Some(name) => {
            let names: Vec<&str> = parquet.fields().map(|field| field.name().as_str()).collect();
            return Err(NoColumns::Unclear(format!("has no column `{name}`; it has {}", having(&names))));
        }
        None => {
            let declared: Vec<&str> =
                fields.keys().filter(|name| is_feature(name, "ClassLabel")).copied().collect();
            let usual = LABEL_COLUMNS.into_iter().find(|name| fields.contains_key(name));
            match (&declared[..], usual) {
                ([one], _) => Some(one.to_string()),
                (several, Some(usual)) if several.is_empty() || several.contains(&usual) => {
                    Some(usual.to_string())
                }
                ([], _) => None,
                (several, _) => {
                    return Err(NoColumns::Unclear(format!(
                        "has several columns of labels ({}): say which (--label-column)",
                        having(several)
                    )));
                }
            }
        }
    };
    let names = label
        .as_deref()
        .and_then(|label| features[label]["names"].as_array())
        .map(|names| names.iter().map(|name| name.as_str().unwrap_or_default().to_string()).collect());
    Ok(ParquetColumns { image, label, names })
}

/// The images of a row group.
#[derive(Debug)]
struct ImageColumn(OthersColumn);

impl Unpack for ImageColumn {
    fn unpack(&self, bytes: Bytes) -> Result<Unpacked, String> {
        let found = self.0.byte_strings(bytes, PIECE_BYTES_MAX as usize);
        let ByteStrings { bytes, rows } = found.map_err(|error| error.to_string())?;
        Ok(Unpacked { bytes, rows })
    }

    fn places<'a>(
        &'a self,
        window: &'a mut ByteWindow<'_>,
    ) -> BoxFuture<'a, Result<Option<Places>, StoreError>> {
        self.0.places(window).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Catalog, Entry, read as read_catalog};
    use crate::store::Store;
    use arrow_array::{
        ArrayRef, BinaryArray, Float64Array, Int64Array, RecordBatch, StringArray, StructArray,
    };
    use arrow_schema::Schema;
    use futures::executor::block_on;
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};

    /// A file with these columns beside its images, which are `image N`.
    fn file(
        n: usize,
        columns: Vec<(&str, ArrayRef)>,
        properties: WriterProperties,
        features: &str,
    ) -> Vec<u8> {
        let images = (0..n).map(|row| format!("image {row}").into_bytes()).collect::<Vec<_>>();
        let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values(images));
        let paths: ArrayRef = Arc::new(StringArray::from(vec![Some("x.jpg"); n]));
        let fields = |name: &str, kind: DataType| Arc::new(Field::new(name, kind, true));
        let image: ArrayRef = Arc::new(StructArray::from(vec![
            (fields("bytes", DataType::Binary), bytes),
            (fields("path", DataType::Utf8), paths),
        ]));
        let all: Vec<(&str, ArrayRef)> = [("image", image)].into_iter().chain(columns).collect();
        let schema_fields: Vec<Field> =
            all.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
        let metadata = [("huggingface".to_string(), features.to_string())];
        let schema =
            Arc::new(Schema::new_with_metadata(schema_fields, std::collections::HashMap::from(metadata)));
        let batch = RecordBatch::try_new(schema.clone(), all.into_iter().map(|(_, array)| array).collect());
        let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).expect("a writer");
        writer.write(&batch.expect("a batch")).expect("rows");
        writer.into_inner().expect("a file")
    }

    fn labels(labels: &[i64]) -> Vec<(&'static str, ArrayRef)> {
        vec![("label", Arc::new(Int64Array::from(labels.to_vec())))]
    }

    const OWLS: &str = r#"{"info": {"features": {"image": {"_type": "Image"}, "label": {"names": ["owl", "cat"], "_type": "ClassLabel"}}}}"#;

    fn plain() -> WriterProperties {
        WriterProperties::builder().set_max_row_group_row_count(Some(2)).build()
    }

    fn catalog(files: &[(&str, Vec<u8>)], options: &LayoutOptions) -> Result<Catalog, String> {
        let store = Store::memory();
        for (name, bytes) in files {
            block_on(store.put(name, bytes.clone().into())).expect("an object");
        }
        let catalog = block_on(read_catalog(&store, options)).map_err(|error| error.to_string())?;
        for _ in 0..2 {
            for entry in catalog.entries().iter().rev() {
                let bytes = block_on(entry.locator.read(&store)).expect("a sample");
                assert!(bytes.starts_with(b"image"), "{}: {bytes:?}", entry.id);
            }
        }
        Ok(catalog)
    }

    fn summary(catalog: &Catalog) -> Vec<String> {
        let of = |entry: &Entry| {
            let split = entry.split.map_or("-", |split| split.name());
            format!("{} {} {split}", entry.id, catalog.classes()[entry.label as usize])
        };
        catalog.entries().iter().map(of).collect()
    }

    #[test]
    fn classes_have_the_names_of_the_metadata_and_files_say_their_split() {
        let train = file(3, labels(&[0, 1, 0]), plain(), OWLS);
        let test = file(1, labels(&[1]), plain(), OWLS);
        let files =
            [("data/train-00000-of-00001.parquet", train), ("data/test-00000-of-00001.parquet", test)];
        let found = catalog(&files, &LayoutOptions::default()).expect("a catalog");
        assert_eq!(found.classes(), ["cat", "owl"]);
        assert_eq!(
            summary(&found),
            [
                "data/test-00000-of-00001.parquet/000000 cat test",
                "data/train-00000-of-00001.parquet/000000 owl train",
                "data/train-00000-of-00001.parquet/000001 cat train",
                "data/train-00000-of-00001.parquet/000002 owl train",
            ]
        );
        assert_eq!(found.layout(), "Parquet, 2 files, images in `image` and labels of 2 classes in `label`");
    }

    #[test]
    fn every_way_of_writing_gives_the_same_samples() {
        let expected = summary(
            &catalog(
                &[("a.parquet", file(200, labels(&[1; 200]), plain(), OWLS))],
                &LayoutOptions::default(),
            )
            .expect("a catalog"),
        );
        let builder = WriterProperties::builder;
        for properties in [
            builder().set_dictionary_enabled(false).build(),
            builder().set_compression(Compression::SNAPPY).build(),
            builder()
                .set_compression(Compression::ZSTD(Default::default()))
                .set_dictionary_enabled(false)
                .build(),
            builder().set_writer_version(WriterVersion::PARQUET_2_0).set_dictionary_enabled(false).build(),
            builder()
                .set_data_page_row_count_limit(3)
                .set_write_batch_size(3)
                .set_dictionary_enabled(false)
                .build(),
            builder().set_statistics_enabled(EnabledStatistics::None).build(),
        ] {
            let found = catalog(
                &[("a.parquet", file(200, labels(&[1; 200]), properties, OWLS))],
                &LayoutOptions::default(),
            );
            assert_eq!(summary(&found.expect("a catalog")), expected);
        }
    }

    #[test]
    fn labels_that_are_none_are_told() {
        let of = |columns: Vec<(&str, ArrayRef)>, n: usize, features: &str| {
            catalog(&[("a.parquet", file(n, columns, plain(), features))], &LayoutOptions::default())
        };
        let found = of(labels(&[0, 2, -1]), 3, OWLS).expect("a catalog");
        assert_eq!(summary(&found), ["a.parquet/000000 owl -"]);
        assert_eq!(found.rejects()[0].1.reason, "its label 2 is out of range: the file names 2 classes");
        let warning = found.warnings().iter().any(|line| line.starts_with("one image has no label"));
        assert!(warning, "{:?}", found.warnings());
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.5]));
        let error = of(vec![("label", floats)], 1, "").expect_err("a float");
        assert!(error.contains("its label 0.5 is a number with a fraction and no class"), "{error}");
        let error = of(vec![], 1, "").expect_err("no labels");
        assert!(error.contains("none of its 1 images has a label"), "{error}");
        let names: ArrayRef = Arc::new(StringArray::from(vec!["b", "a"]));
        let found = of(vec![("class", names)], 2, "").expect("a catalog");
        assert_eq!(summary(&found), ["a.parquet/000000 b -", "a.parquet/000001 a -"]);
    }

    #[test]
    fn files_and_configurations_that_do_not_match_are_refused() {
        let owl = || file(1, labels(&[0]), plain(), OWLS);
        let other = file(1, labels(&[0]), plain(), &OWLS.replace("cat", "dog").replace(r#""owl", "#, ""));
        let error = catalog(&[("a.parquet", owl()), ("b.parquet", other)], &LayoutOptions::default());
        assert!(error.expect_err("other classes").contains("the same features in all of its files"));
        let several = [("one/train.parquet", owl()), ("two/train.parquet", owl())];
        let error = catalog(&several, &LayoutOptions::default()).expect_err("configurations");
        assert!(error.contains("several folders (one, two)") && error.contains("memory/one"), "{error}");
        let mut cut = owl();
        cut.truncate(200);
        let error = catalog(&[("a.parquet", cut)], &LayoutOptions::default()).expect_err("cut short");
        assert!(error.contains("a.parquet: it does not end as a Parquet file does"), "{error}");
    }

    #[test]
    fn ids_are_those_of_a_column_where_each_is_another() {
        let with = |ids: &[&str]| {
            let ids: ArrayRef = Arc::new(StringArray::from(ids.to_vec()));
            let columns = labels(&[0, 1]).into_iter().chain([("id", ids)]).collect();
            catalog(&[("a.parquet", file(2, columns, plain(), OWLS))], &LayoutOptions::default())
                .expect("one")
        };
        assert_eq!(summary(&with(&["x/1", "x/0"])), ["x/0 cat -", "x/1 owl -"]);
        let same = with(&["x", "x"]);
        assert_eq!(summary(&same)[0], "a.parquet/000000 owl -");
        assert!(same.warnings()[0].contains("two of its ids are the same"), "{:?}", same.warnings());
    }
}
