//! Tables of images and their labels: `metadata.csv` beside the images as Hugging Face's `imagefolder` has it, lists of
//! paths, and a table of ids beside a folder of images as competitions give it.
//!
//! A row names its image by a path relative to the table or to the source, with or without the extension, or by a name
//! that only one image of the source has.

mod named;
mod unlisted;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use self::named::{Named, NamedImages};
use super::gathered::{FoundSample, Gathered, broken, class_name, split_of_path};
use super::kept::{self, text_of};
use super::listing::File;
use super::rows::{EXTENSIONS, Rows, RowsError};
use super::{
    Layout, LayoutKind, LayoutOptions, Locator, Misfit, NamedColumns, Reading, Source, SourceContents,
    folder, split_called,
};
use crate::columns::Value;
use crate::escape::escape_text;
use crate::manifest::REJECTS_KEY;
use crate::sample::Split;
use crate::words::few;

/// The names of columns that say which image a row is about, the first first.
const IMAGE_COLUMNS: [&str; 17] = [
    "file_name",
    "filename",
    "file",
    "image",
    "img",
    "image_path",
    "img_path",
    "path",
    "filepath",
    "file_path",
    "image_name",
    "image_id",
    "img_id",
    "id_code",
    "image_url",
    "url",
    "id",
];

/// The names of columns of labels, the first first.
pub(super) const LABEL_COLUMNS: [&str; 11] = [
    "label",
    "labels",
    "class",
    "target",
    "category",
    "class_name",
    "label_name",
    "cls",
    "breed",
    "species",
    "y",
];

/// The names of columns that say the split.
const SPLIT_COLUMNS: [&str; 3] = ["split", "subset", "set"];

/// A table of files.
pub(super) struct Table;

impl Layout for Table {
    fn kind(&self) -> LayoutKind {
        LayoutKind::Table
    }

    fn looks_for(&self) -> &'static str {
        "a table (.csv, .tsv, .jsonl, .parquet) with a column of file names and one of labels"
    }

    fn finds(&self, source: &Source<'_>) -> Option<String> {
        match &tables(source)[..] {
            [] => None,
            tables => {
                let names: Vec<&str> = tables.iter().map(|file| &*file.id).collect();
                Some(few(&names))
            }
        }
    }

    fn precedes_folders(&self, source: &Source<'_>) -> bool {
        tables(source).iter().any(|file| is_metadata(file))
    }

    fn columns(&self) -> NamedColumns {
        NamedColumns::ALL
    }

    fn read<'a>(&'a self, source: &'a Source<'a>) -> Reading<'a> {
        Box::pin(read(source))
    }
}

/// A table of Hugging Face's `imagefolder`.
fn is_metadata(file: &File) -> bool {
    file.base_name().rsplit_once('.').is_some_and(|(stem, _)| stem == "metadata")
}

/// The tables of a source: those at its top and those called `metadata` anywhere; of a competition not the example of what
/// to hand in.
fn tables<'a>(source: &Source<'a>) -> Vec<&'a File> {
    let mut files = source.files_called(&EXTENSIONS);
    if source.options.file.is_none() {
        files.retain(|file| {
            let is_example = file.base_name().to_lowercase().starts_with("sample_submission");
            // That of rejects is of a dataset that Forebay wrote.
            is_metadata(file) || (!file.id.contains('/') && !is_example && &*file.id != REJECTS_KEY)
        });
    }
    files
}

async fn read(source: &Source<'_>) -> Result<SourceContents, Misfit> {
    if source.store.can_list() {
        return read_listed(source).await;
    }
    let listing = unlisted::with_images(source).await?;
    read_listed(&Source { listing: &listing, ..*source }).await
}

async fn read_listed(source: &Source<'_>) -> Result<SourceContents, Misfit> {
    let mut found = Gathered::default();
    let mut images = NamedImages::of(source);
    let mut rows: BTreeMap<usize, Named> = BTreeMap::new();
    let mut elsewhere: BTreeMap<String, Named> = BTreeMap::new();
    let mut missing: HashSet<String> = HashSet::new();
    let mut without: Vec<String> = Vec::new();
    let mut said: Vec<String> = Vec::new();
    let mut read_tables: HashSet<&str> = HashSet::new();
    let mut has_labels = false;
    let is_asked_for = source.options.file.is_some() || source.options.layout == LayoutKind::Table;
    // Then a column is that of the labels by its name only.
    let folders_may_be_classes = !is_asked_for && folder::may_be_classes(source.listing);
    for file in tables(source) {
        let refuse = |error: RowsError| match error {
            RowsError::Store(error) => Misfit::from(error),
            RowsError::Odd(what) => broken(format!("cannot read {}: {what}", source.name(file))),
        };
        let table = Rows::open(source.store, file).await.map_err(refuse)?;
        let columns = match TableColumns::of(&table.columns, source.options, folders_may_be_classes) {
            Ok(columns) => columns,
            // Left out, it would take images, labels and splits with it.
            Err(UnreadTable { why, names_images }) if is_asked_for || names_images || is_metadata(file) => {
                return Err(broken(format!("{} {why}", source.name(file))));
            }
            Err(UnreadTable { why, .. }) => {
                without.push(format!("{} {why}", file.id));
                continue;
            }
        };
        read_tables.insert(&file.id);
        has_labels |= !matches!(columns.label, LabelColumns::Absent);
        said.push(format!("{} ({})", file.id, columns.in_words(&table.columns)));
        let mut reader = RowReader {
            columns: &columns,
            names: &table.columns,
            file,
            images: &mut images,
            rows: &mut rows,
            elsewhere: &mut elsewhere,
            missing: &mut missing,
            found: &mut found,
            options: source.options,
            splits: SplitColumn::default(),
        };
        let wanted = [columns.all(), columns.kept.clone()].concat();
        table
            .each(source.store, &wanted, &mut |row, values| reader.row(row, values))
            .await
            .map_err(refuse)?;
        let odd = reader.splits.odd();
        let odd = odd.map_err(|what| refuse(RowsError::Odd(what)))?;
        found.warnings.extend(odd.map(|what| format!("{}: {what}", file.id)));
        found.splits.extend(split_of_path(&file.id));
    }
    if folders_may_be_classes && !has_labels {
        if source.options.keep_columns.is_empty() {
            return Err(Misfit::Holds(
                "folders of images, and in its tables no column of labels".to_string(),
            ));
        }
        // The folders are the classes, and the tables say more of their images.
        let folders = folder::classes_of(source.listing);
        for (index, file) in images.files.iter().enumerate() {
            let Some((split, class)) = folders.get(&*file.id) else { continue };
            // One without a row is a sample all the same, of which nothing more is known.
            let row = rows.entry(index).or_insert_with(|| Named {
                class: None,
                split: None,
                kept: Some(vec![Value::Null; source.options.keep_columns.len()].into()),
                row: String::new(),
                conflict: None,
            });
            row.class = Some((*class).into());
            row.split = row.split.or(*split);
            found.splits.extend(*split);
        }
        said.push("classes by their folders".to_string());
    }
    if said.is_empty() {
        return Err(Misfit::Holds(match without.is_empty() {
            true => "no table".to_string(),
            false => few(&without),
        }));
    }
    // Images of other places are asked for, each once.
    let others = named::elsewhere(source.store, elsewhere, &mut found).await;
    found.warnings.extend(without.iter().map(|table| format!("{table}: it is not read")));
    found.layout = format!("table {}", few(&said));
    found.kept_columns.clone_from(&source.options.keep_columns);
    let has_rows = !rows.is_empty() || !others.is_empty();
    if !has_rows && missing.is_empty() && found.rejects.is_empty() {
        return Err(broken(format!("{}: {} has no row", source.store.location(), found.layout)));
    }
    if !has_rows {
        let first = found.rejects.first().map(|(id, fault)| format!(", such as {id}: {}", fault.reason));
        return Err(broken(format!(
            "{}: no row of {} names an image that is there{}",
            source.store.location(),
            found.layout,
            first.unwrap_or_default()
        )));
    }
    let classes =
        || rows.values().chain(others.iter().map(|(_, row)| row)).filter_map(|row| row.class.as_deref());
    refuse_measures(source, classes, &found.layout)?;
    let n_unnamed = images.files.len() - rows.len();
    if n_unnamed > 0 {
        *found.ignored.entry("(images without a row in the table)".to_string()).or_default() +=
            n_unnamed as u64;
    }
    let is_other = |file: &&File| !file.is_image() && !read_tables.contains(&&*file.id);
    for file in source.listing.files.iter().filter(is_other) {
        found.ignore(&file.kind());
    }
    for (kind, n) in &source.listing.ignored {
        *found.ignored.entry(kind.clone()).or_default() += n;
    }
    let named = rows.into_iter().map(|(index, row)| (images.files[index], row));
    for (file, Named { class, split, kept, conflict, .. }) in
        named.chain(others.iter().map(|(file, row)| (file, row.clone())))
    {
        match (&file.fault, conflict) {
            (Some(fault), _) => found.reject(file.id.clone(), fault),
            (None, Some(conflict)) => found.reject(file.id.clone(), conflict),
            (None, None) => found.samples.push(FoundSample {
                id: file.id.clone(),
                own_id: None,
                class,
                split,
                locator: Locator::whole(file.name.clone(), file.bytes),
                version: file.version,
                kept,
            }),
        }
    }
    found.into_contents()
}

/// Labels that are all numbers, some with fractions, are measures and no classes.
fn refuse_measures<'a, Classes: Iterator<Item = &'a str>>(
    source: &Source<'_>,
    classes: impl Fn() -> Classes,
    layout: &str,
) -> Result<(), Misfit> {
    let has_fraction = |class: &str| class.contains('.') && class.parse::<f64>().is_ok();
    let Some(example) = classes().find(|class| has_fraction(class)) else { return Ok(()) };
    if !classes().all(|class| class.parse::<f64>().is_ok()) {
        return Ok(());
    }
    Err(broken(format!(
        "{}: the labels of {layout} are numbers with fractions, such as {example}, and no classes: give a column of names or \
         whole numbers (--label-column)",
        source.store.location()
    )))
}

/// The columns of a table that are read, by their places.
#[derive(Debug)]
struct TableColumns {
    image: usize,
    label: LabelColumns,
    split: Option<usize>,
    /// Those that samples keep, whatever else they are.
    kept: Vec<usize>,
}

/// Why the columns of a table are not known.
#[derive(Debug)]
struct UnreadTable {
    /// As it reads after the name of the table.
    why: String,
    /// Whether one of them names images all the same.
    names_images: bool,
}

#[derive(Debug)]
enum LabelColumns {
    /// None.
    Absent,
    /// One holds the class.
    One(usize),
    /// One for each class, which holds 1 where an image is of it.
    OneHot(Vec<usize>),
}

impl TableColumns {
    /// Those of these names by the options; else why they are not known, as it reads after the name of the table.
    /// Where `by_name_only`, a column is that of the labels only where it is called so.
    fn of(
        names: &[String],
        options: &LayoutOptions,
        by_name_only: bool,
    ) -> Result<TableColumns, UnreadTable> {
        let nameless = |why: String| UnreadTable { why, names_images: false };
        if names.iter().all(String::is_empty) {
            return Err(nameless("has no columns".to_string()));
        }
        let having = || few(names);
        let exactly = |wanted: &str| names.iter().position(|name| name == wanted);
        let called = |wanted: &str| names.iter().position(|name| name.to_lowercase() == wanted);
        let image = match &options.image_column {
            Some(name) => exactly(name)
                .ok_or_else(|| nameless(format!("has no column `{name}`; it has {}", having())))?,
            None => IMAGE_COLUMNS.into_iter().find_map(called).ok_or_else(|| {
                nameless(format!(
                    "has no column of file names; it has {}: say which (--image-column)",
                    having()
                ))
            })?,
        };
        let broken = |why: String| UnreadTable { why, names_images: true };
        let split = SPLIT_COLUMNS.into_iter().find_map(called);
        // An index that pandas wrote has no name.
        let rest: Vec<usize> = (0..names.len())
            .filter(|at| *at != image && Some(*at) != split && !names[*at].is_empty())
            .filter(|at| !names[*at].starts_with("Unnamed:"))
            .collect();
        let label = match &options.label_column {
            Some(name) => LabelColumns::One(
                exactly(name)
                    .ok_or_else(|| broken(format!("has no column `{name}`; it has {}", having())))?,
            ),
            None => match (LABEL_COLUMNS.into_iter().find_map(called), &rest[..]) {
                (Some(label), _) => LabelColumns::One(label),
                (None, []) => LabelColumns::Absent,
                (None, _) if by_name_only => LabelColumns::Absent,
                (None, [one]) => LabelColumns::One(*one),
                (None, several) => LabelColumns::OneHot(several.to_vec()),
            },
        };
        let columns =
            TableColumns { image, label, split, kept: kept::places(names, options).map_err(broken)? };
        let same = |at: &usize| names.iter().filter(|name| **name == names[*at]).count() > 1;
        match columns.all().iter().find(|at| same(at)) {
            Some(at) => {
                Err(broken(format!("has several columns called `{}`: leave one of them", names[*at])))
            }
            None => Ok(columns),
        }
    }

    /// All but those that are kept; the first is that of the images, the last that of the split, where there is one.
    fn all(&self) -> Vec<usize> {
        let labels = match &self.label {
            LabelColumns::Absent => Vec::new(),
            LabelColumns::One(label) => vec![*label],
            LabelColumns::OneHot(labels) => labels.clone(),
        };
        [self.image].into_iter().chain(labels).chain(self.split).collect()
    }

    fn in_words(&self, names: &[String]) -> String {
        match &self.label {
            LabelColumns::Absent => format!("images in `{}`, no labels", names[self.image]),
            LabelColumns::One(label) => {
                format!("images in `{}`, labels in `{}`", names[self.image], names[*label])
            }
            LabelColumns::OneHot(labels) => {
                format!("images in `{}`, a column for each of {} classes", names[self.image], labels.len())
            }
        }
    }
}

/// What goes through the rows of one table.
struct RowReader<'a, 'b> {
    columns: &'a TableColumns,
    names: &'a [String],
    file: &'a File,
    images: &'a mut NamedImages<'b>,
    rows: &'a mut BTreeMap<usize, Named>,
    /// Those of images that whole URLs of other places name.
    elsewhere: &'a mut BTreeMap<String, Named>,
    missing: &'a mut HashSet<String>,
    found: &'a mut Gathered,
    options: &'a LayoutOptions,
    splits: SplitColumn,
}

/// What stands in the column that is called like one of splits.
#[derive(Default)]
struct SplitColumn {
    /// Whether any value is a split.
    holds_splits: bool,
    /// The first row whose value is none, and the value.
    odd: Option<(u64, String)>,
}

impl SplitColumn {
    fn read(&mut self, row: u64, value: Option<&Value>) -> Option<Split> {
        let split = match value {
            Some(Value::Text(text)) => split_called(text),
            Some(Value::Null) | None => return None,
            Some(_) => None,
        };
        match (split, value) {
            (None, Some(value)) if self.odd.is_none() => {
                self.odd = Some((row, escape_text(&text_of(value).unwrap_or_default()).into_owned()));
            }
            _ => self.holds_splits |= split.is_some(),
        }
        split
    }

    /// What is wrong, where some values are splits and others are none; a line of it where none is one.
    fn odd(&self) -> Result<Option<String>, String> {
        match &self.odd {
            None => Ok(None),
            Some((row, value)) if self.holds_splits => {
                Err(format!("row {row}: its split is {value}, which is none of train, validation and test"))
            }
            Some((_, value)) => Ok(Some(format!(
                "what its column of splits holds, such as {value}, is none of train, validation and test, and is not read"
            ))),
        }
    }
}

impl RowReader<'_, '_> {
    fn row(&mut self, row: u64, values: &[Value]) -> Result<(), String> {
        let (values, kept) = values.split_at(values.len() - self.columns.kept.len());
        let (image, rest) = values.split_first().expect("a table has a column of images");
        let place = format!("row {row} of {}", self.file.id);
        let kept = kept::values(kept.to_vec(), self.options).map_err(|why| format!("{place}: {why}"))?;
        let name = match image {
            Value::Text(name) => name.to_string(),
            Value::Integer(name) => name.to_string(),
            Value::Null => {
                self.found.reject(place.clone().into(), "it names no image");
                return Ok(());
            }
            Value::Number(_) | Value::Other => {
                return Err(format!(
                    "{place}: its column `{}` holds no file names",
                    self.names[self.columns.image]
                ));
            }
        };
        let (labels, split) = match self.columns.split {
            None => (rest, None),
            Some(_) => rest.split_last().map_or((rest, None), |(split, labels)| (labels, Some(split))),
        };
        let split = self.splits.read(row, split).or_else(|| split_of_path(&self.file.id));
        let class = self.class(labels, &place)?;
        let named = Named { class, split, kept, row: place, conflict: None };
        if self.images.is_elsewhere(&name) {
            match self.elsewhere.entry(name) {
                Entry::Vacant(first) => drop(first.insert(named)),
                Entry::Occupied(mut earlier) => earlier.get_mut().compare(&named, self.options),
            }
            return Ok(());
        }
        match self.images.find(&name, self.file, split) {
            Ok(index) => match self.rows.entry(index) {
                Entry::Vacant(first) => drop(first.insert(named)),
                Entry::Occupied(mut earlier) => earlier.get_mut().compare(&named, self.options),
            },
            Err(why) => {
                if self.missing.insert(name.clone()) {
                    self.found.reject(escape_text(&name).into(), format!("{why} ({})", named.row));
                }
            }
        }
        Ok(())
    }

    fn class(&self, labels: &[Value], place: &str) -> Result<Option<Arc<str>>, String> {
        match &self.columns.label {
            LabelColumns::Absent => Ok(None),
            LabelColumns::One(column) => match &labels[0] {
                Value::Null => Ok(None),
                Value::Text(name) => Ok(class_name(name)),
                Value::Integer(label) => Ok(class_name(&label.to_string())),
                // Refused later, with an example.
                Value::Number(label) => Ok(class_name(&format!("{label:?}"))),
                Value::Other => Err(format!(
                    "{place}: its column `{}` holds several labels, and an image has one class here",
                    self.names[*column]
                )),
            },
            LabelColumns::OneHot(columns) => {
                let mut of: Option<usize> = None;
                for (value, column) in labels.iter().zip(columns) {
                    let number = match value {
                        Value::Integer(number) => Some(*number as f64),
                        Value::Number(number) => Some(*number),
                        // As pandas writes columns of True and False.
                        Value::Text(text) if text.eq_ignore_ascii_case("true") => Some(1.0),
                        Value::Text(text) if text.eq_ignore_ascii_case("false") => Some(0.0),
                        Value::Text(text) => text.parse().ok(),
                        Value::Null | Value::Other => None,
                    };
                    match number {
                        Some(0.0) => {}
                        Some(1.0) if of.is_none() => of = Some(*column),
                        Some(1.0) => {
                            return Err(format!(
                                "{place} has several labels, {} and {}, and an image has one class here",
                                self.names[of.unwrap_or(*column)],
                                self.names[*column]
                            ));
                        }
                        _ => {
                            let names: Vec<&str> =
                                columns.iter().map(|at| self.names[*at].as_str()).collect();
                            return Err(format!(
                                "no column is known to hold the labels, among {}: say which (--label-column)",
                                few(&names)
                            ));
                        }
                    }
                }
                Ok(of.and_then(|column| class_name(&self.names[column])))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Catalog, Entry, read as read_catalog};
    use crate::store::Store;
    use futures::executor::block_on;

    fn catalog(files: &[(&str, &str)], options: &LayoutOptions) -> Result<Catalog, String> {
        let store = Store::memory();
        for (name, text) in files {
            block_on(store.put(name, text.to_string().into())).expect("an object");
        }
        block_on(read_catalog(&store, options)).map_err(|error| error.to_string())
    }

    fn summary(catalog: &Catalog) -> String {
        let of = |entry: &Entry| {
            let split = entry.split.map_or(String::new(), |split| format!("({split})"));
            format!("{}={}{split}", entry.id, catalog.classes()[entry.label as usize])
        };
        catalog.entries().iter().map(of).collect::<Vec<_>>().join(" ")
    }

    fn check(files: &[(&str, &str)], expected: &str) -> Catalog {
        let catalog = catalog(files, &LayoutOptions::default()).expect("a catalog");
        assert_eq!(summary(&catalog), expected);
        catalog
    }

    fn refused(files: &[(&str, &str)]) -> String {
        catalog(files, &LayoutOptions::default()).expect_err("refused")
    }

    #[test]
    fn a_row_names_its_image_by_path_with_or_without_extension_or_by_a_name_of_its_own() {
        check(
            &[("labels.csv", "file_name,label\na/1.jpg,x\n2.png,y\n"), ("a/1.jpg", ""), ("2.png", "")],
            "2.png=y a/1.jpg=x",
        );
        check(
            &[
                ("labels.csv", "\u{feff}id,breed\r\n\"1\",\"a, b\"\r\n2,c\r\n"),
                ("train/1.jpg", ""),
                ("train/2.jpg", ""),
                ("sample_submission.csv", "id,a,b\n3,0.5,0.5\n"),
            ],
            "train/1.jpg=a, b train/2.jpg=c",
        );
        check(
            &[
                (
                    "x.jsonl",
                    "{\"image\": \"1.jpg\", \"label\": 3}\n\n{\"image\": \".\\\\2.jpg\", \"label\": 10}\n",
                ),
                ("1.jpg", ""),
                ("2.jpg", ""),
            ],
            "1.jpg=3 2.jpg=10",
        );
        check(
            &[
                ("x.tsv", "path\tclass\tsplit\n1.jpg\ta\tval\n2.jpg\ta\ttrain\n"),
                ("1.jpg", ""),
                ("2.jpg", ""),
            ],
            "1.jpg=a(validation) 2.jpg=a(train)",
        );
        check(
            &[
                ("train.csv", "image_id,healthy,rust\n1,1,0\n2,0,1\n"),
                ("images/1.jpg", ""),
                ("images/2.jpg", ""),
            ],
            "images/1.jpg=healthy(train) images/2.jpg=rust(train)",
        );
        check(
            &[
                ("train/metadata.csv", "file_name,label\n1.jpg,a\n"),
                ("test/metadata.csv", "file_name,label\n1.jpg,b\n"),
                ("train/1.jpg", ""),
                ("test/1.jpg", ""),
            ],
            "test/1.jpg=b(test) train/1.jpg=a(train)",
        );
    }

    #[test]
    fn rows_that_name_nothing_are_counted_and_images_without_a_row_too() {
        let found = check(
            &[
                (
                    "l.csv",
                    "path,label\n1.jpg,a\nno.jpg,a\n../1.jpg,a\n/etc/x.jpg,b\nx,b\n2.jpg,\n3.jpg,a\n3.jpg,b\n",
                ),
                ("1.jpg", ""),
                ("2.jpg", ""),
                ("3.jpg", ""),
                ("4.jpg", ""),
                ("a/x.jpg", ""),
                ("a/b/x.jpg", ""),
            ],
            "1.jpg=a",
        );
        let rejects: Vec<String> =
            found.rejects().iter().map(|(id, fault)| format!("{id}: {}", fault.reason)).collect();
        assert_eq!(
            rejects,
            [
                "../1.jpg: its path leads out of the source (row 3 of l.csv)",
                "/etc/x.jpg: its path leads out of the source (row 4 of l.csv)",
                "3.jpg: row 7 of l.csv and row 8 of l.csv give it different labels",
                "no.jpg: there is no such image (row 2 of l.csv)",
                "x: several images are called so, a/b/x.jpg and a/x.jpg (row 5 of l.csv)",
            ]
        );
        assert_eq!(found.ignored().get("(images without a row in the table)"), Some(&3));
        assert_eq!(found.ignored().get(".csv"), None, "the table itself was read");
        assert!(found.warnings().iter().any(|line| line.contains("no label")), "{:?}", found.warnings());
    }

    #[test]
    fn no_table_of_images_is_left_out_and_other_tables_are_told_of() {
        let images = [("train/1.jpg", ""), ("train/2.jpg", ""), ("test/1.jpg", "")];
        let of = |train: &str, test: &str, options: &LayoutOptions| {
            let tables = [("train/metadata.csv", train), ("test/metadata.csv", test)];
            catalog(&[&tables[..], &images].concat(), options)
        };
        let train = "file_name,label,age\n1.jpg,a,3\n2.jpg,b,4\n";
        let keeps = LayoutOptions { keep_columns: vec!["age".into()], ..LayoutOptions::default() };
        let line = of(train, "file_name,label\n1.jpg,a\n", &keeps).expect_err("no age in test");
        assert!(line.contains("test/metadata.csv has no column `age`"), "{line}");
        for (test, says) in [
            ("picture,label\n1.jpg,a\n", "test/metadata.csv has no column of file names"),
            ("file_name,label,label\n1.jpg,a,b\n", "test/metadata.csv has several columns called `label`"),
            ("", "test/metadata.csv has no columns"),
        ] {
            let line = of(train, test, &LayoutOptions::default()).expect_err("refused");
            assert!(line.contains(says), "{line}");
        }
        // A list of images that nobody has labelled is no split of what is trained on.
        let lists = [
            ("train.csv", "id,breed\n1,a\n2,b\n"),
            ("test.csv", "id\n3\n"),
            ("breeds.csv", "name,size\na,3\n"),
        ];
        let images = [("train/1.jpg", ""), ("train/2.jpg", ""), ("test/3.jpg", "")];
        let found = catalog(&[&lists[..], &images].concat(), &LayoutOptions::default()).expect("a catalog");
        assert!(!found.declares_splits());
        let said = found.warnings().join("\n");
        assert!(said.contains("breeds.csv has no column of file names"), "{said}");
    }

    #[test]
    fn a_table_beside_folders_of_classes_labels_them_only_by_a_column_that_is_called_so() {
        let images = [("cat/1.jpg", ""), ("dog/2.jpg", "")];
        let of = |table: &str| check_both(&[("metadata.csv", table), images[0], images[1]]);
        let (classes, said) = of("file_name,photographer\ncat/1.jpg,ann\ndog/2.jpg,bob\n");
        assert_eq!(classes, "cat/1.jpg=cat dog/2.jpg=dog");
        assert!(said.contains("metadata.csv was not read: the source holds folders of images"), "{said}");
        let (classes, said) = of("file_name,label\ncat/1.jpg,x\ndog/2.jpg,y\n");
        assert_eq!(classes, "cat/1.jpg=x dog/2.jpg=y");
        assert!(said.contains("--layout folder reads those instead"), "{said}");
        // Columns that are asked for go with the classes of the folders.
        let options = LayoutOptions { keep_columns: vec!["patient".into()], ..LayoutOptions::default() };
        let table = "file_name,patient\ncat/1.jpg,p1\ndog/2.jpg,p2\n";
        let found = catalog(&[("metadata.csv", table), images[0], images[1]], &options).expect("a catalog");
        assert_eq!(summary(&found), "cat/1.jpg=cat dog/2.jpg=dog");
        assert_eq!(found.entries()[1].kept.as_deref(), Some(&[Value::Text("p2".into())][..]));
        let more = [("metadata.csv", table), images[0], images[1], ("dog/3.jpg", "")];
        let found = catalog(&more, &options).expect("a catalog");
        assert_eq!(summary(&found), "cat/1.jpg=cat dog/2.jpg=dog dog/3.jpg=dog");
        assert_eq!(found.entries()[2].kept.as_deref(), Some(&[Value::Null][..]));
    }

    /// The summary of a source and what is said of it.
    fn check_both(files: &[(&str, &str)]) -> (String, String) {
        let found = catalog(files, &LayoutOptions::default()).expect("a catalog");
        (summary(&found), found.warnings().join("\n"))
    }

    #[test]
    fn columns_of_true_and_false_are_classes() {
        let table = "image_id,ant,bee\n1,True,False\n2,false,true\n";
        check(&[("l.csv", table), ("1.jpg", ""), ("2.jpg", "")], "1.jpg=ant 2.jpg=bee");
    }

    #[test]
    fn a_column_of_splits_is_judged_by_all_of_its_rows() {
        let of = |splits: [&str; 3]| {
            let rows: String = (1..).zip(splits).map(|(n, split)| format!("{n}.jpg,a,{split}\n")).collect();
            let table = format!("file_name,label,split\n{rows}");
            catalog(
                &[("l.csv", table.as_str()), ("1.jpg", ""), ("2.jpg", ""), ("3.jpg", "")],
                &LayoutOptions::default(),
            )
        };
        for splits in [["unused", "train", "test"], ["train", "test", "unused"]] {
            let line = of(splits).expect_err("refused");
            assert!(line.contains("its split is unused, which is none of"), "{line}");
        }
        let found = of(["spring", "autumn", "spring"]).expect("no splits");
        assert!(!found.declares_splits());
        assert!(
            found.warnings().iter().any(|line| line.contains("such as spring")),
            "{:?}",
            found.warnings()
        );
        assert!(of(["train", "", "test"]).expect("splits").declares_splits());
    }

    #[test]
    fn what_rows_say_of_one_image_agrees_or_is_named() {
        let options = LayoutOptions { keep_columns: vec!["patient".into()], ..LayoutOptions::default() };
        let table = "file_name,label,patient\n1.jpg,a,p0\n2.jpg,a,p1\n1.jpg,a,p1\n2.jpg,a,p1\n";
        let found = catalog(&[("l.csv", table), ("1.jpg", ""), ("2.jpg", "")], &options).expect("a catalog");
        let (id, fault) = &found.rejects()[0];
        assert_eq!(
            (&**id, fault.reason.as_str()),
            ("1.jpg", "row 1 of l.csv and row 3 of l.csv give it different values of patient")
        );
        assert_eq!(found.entries().len(), 1);
    }

    #[test]
    fn a_table_that_cannot_be_meant_is_told_in_one_line() {
        let line = refused(&[("l.csv", "path,label\n1.jpg,0.5\n"), ("1.jpg", "")]);
        assert!(line.contains("numbers with fractions, such as 0.5"), "{line}");
        let line = refused(&[("l.csv", "path,label,label\n1.jpg,a,b\n"), ("1.jpg", "")]);
        assert!(line.contains("has several columns called `label`"), "{line}");
        let line = refused(&[("l.csv", "\n"), ("1.jpg", "")]);
        assert!(line.contains("l.csv has no columns"), "{line}");
        let line = refused(&[("l.csv", "path,label\n"), ("1.jpg", "")]);
        assert!(line.contains("has no row"), "{line}");
        let line = refused(&[("l.csv", "path,label\nx.jpg,a\n"), ("1.jpg", "")]);
        assert!(line.contains("no row of table l.csv") && line.contains("x.jpg"), "{line}");
        let line = refused(&[("l.csv", "image_id,a,b\n1,1,1\n"), ("1.jpg", "")]);
        assert!(line.contains("row 1 of l.csv has several labels, a and b"), "{line}");
        let line = refused(&[("l.csv", "image_id,age,weight\n1,3,7\n"), ("1.jpg", "")]);
        assert!(line.contains("among age, weight: say which (--label-column)"), "{line}");
        let line = refused(&[("l.jsonl", "{\"path\": \"1.jpg\", \"label\": [1, 2]}\n"), ("1.jpg", "")]);
        assert!(line.contains("holds several labels"), "{line}");
        let line = refused(&[("l.csv", "path,label\n1.jpg,a,b\n"), ("1.jpg", "")]);
        assert!(line.contains("cannot read memory/l.csv: CSV error"), "{line}");
        let line = refused(&[("l.csv", "path,label\n1.jpg,\n"), ("1.jpg", "")]);
        assert!(line.contains("none of its 1 images has a label"), "{line}");
    }

    #[test]
    fn folders_are_classes_unless_a_table_says_more_and_what_was_not_read_is_said() {
        let files = [("l.csv", "path,label\na/1.jpg,x\nb/1.jpg,y\n"), ("a/1.jpg", ""), ("b/1.jpg", "")];
        let found = check(&files, "a/1.jpg=a b/1.jpg=b");
        assert!(
            found
                .warnings()
                .contains(&"l.csv stands there too: --layout table reads that instead".to_string()),
            "{:?}",
            found.warnings()
        );
        let table = LayoutOptions { layout: LayoutKind::Table, ..LayoutOptions::default() };
        assert_eq!(summary(&catalog(&files, &table).expect("a catalog")), "a/1.jpg=x b/1.jpg=y");
        let label = LayoutOptions { label_column: Some("label".to_string()), ..LayoutOptions::default() };
        assert_eq!(summary(&catalog(&files, &label).expect("a catalog")), "a/1.jpg=x b/1.jpg=y");
        check(
            &[("metadata.csv", "file_name,label\na/1.jpg,x\nb/1.jpg,y\n"), files[1], files[2]],
            "a/1.jpg=x b/1.jpg=y",
        );
    }
}
