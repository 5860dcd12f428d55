//! CIFAR-10 and CIFAR-100 in their binary version: records of one label byte (two in CIFAR-100: coarse, then fine) and 3072
//! bytes of pixels, all of red, then green, then blue, 32 rows of 32 (<https://www.cs.toronto.edu/~kriz/cifar.html>).

use super::gathered::{FoundSample, Gathered, broken, class_name};
use super::listing::File;
use super::pixels::{PixelOrder, RawPixels};
use super::{Layout, LayoutKind, Locator, Misfit, NamedColumns, Reading, Source, SourceContents};
use crate::sample::Split;

const PIXELS: RawPixels = RawPixels { width: 32, height: 32, channels: PixelOrder::Planes };

/// The binary version of CIFAR.
pub(super) struct CifarBinary;

impl Layout for CifarBinary {
    fn kind(&self) -> LayoutKind {
        LayoutKind::Cifar
    }

    fn looks_for(&self) -> &'static str {
        "the binary version of CIFAR: data_batch_1.bin and test_batch.bin, or train.bin and test.bin beside \
         fine_label_names.txt"
    }

    fn finds(&self, source: &Source<'_>) -> Option<String> {
        let first = source.listing.files.iter().find(|file| is_pickled(source, file));
        records(source).first().map(|(file, ..)| *file).or(first).map(|file| file.id.to_string())
    }

    fn columns(&self) -> NamedColumns {
        NamedColumns { label: true, ..NamedColumns::NONE }
    }

    fn read<'a>(&'a self, source: &'a Source<'a>) -> Reading<'a> {
        Box::pin(read(source))
    }
}

fn split_name(file: &File) -> (&str, &str) {
    file.id.rsplit_once('/').unwrap_or(("", &file.id))
}

/// The file of this name beside another.
fn beside<'a>(source: &Source<'a>, file: &File, name: &str) -> Option<&'a File> {
    let folder = split_name(file).0;
    source.listing.files.iter().find(|other| split_name(other) == (folder, name) && other.fault.is_none())
}

/// The files of records, with their splits and the number of their label bytes.
fn records<'a>(source: &Source<'a>) -> Vec<(&'a File, Split, u64)> {
    let of = |file: &'a File| {
        let (split, labels) = match split_name(file).1 {
            "test_batch.bin" => (Split::Test, 1),
            name if name.starts_with("data_batch_") => (Split::Train, 1),
            "train.bin" if beside(source, file, "fine_label_names.txt").is_some() => (Split::Train, 2),
            "test.bin" if beside(source, file, "fine_label_names.txt").is_some() => (Split::Test, 2),
            _ => return None,
        };
        Some((file, split, labels))
    };
    source.files_called(&["bin"]).into_iter().filter_map(of).collect()
}

/// Whether it is of the version for Python, whose files are programs as much as data.
fn is_pickled(source: &Source<'_>, file: &File) -> bool {
    split_name(file).1 == "data_batch_1" && beside(source, file, "batches.meta").is_some()
}

async fn read(source: &Source<'_>) -> Result<SourceContents, Misfit> {
    let files = records(source);
    let Some((first, _, n_labels)) = files.first().copied() else {
        if let Some(file) = source.listing.files.iter().find(|file| is_pickled(source, file)) {
            return Err(broken(format!(
                "{} is of the Python version of CIFAR, whose pickles can run programs: download the binary version \
                 (cifar-10-binary.tar.gz, cifar-100-binary.tar.gz)",
                source.name(file)
            )));
        }
        return Err(Misfit::Holds("no file of CIFAR's binary version".to_string()));
    };
    if files.iter().any(|(_, _, labels)| *labels != n_labels) {
        return Err(broken(format!(
            "{} holds CIFAR-10 and CIFAR-100: give the folder of one of them",
            source.store.location()
        )));
    }
    let (label_byte, names) = match (n_labels, source.options.label_column.as_deref()) {
        (1, None | Some("label")) => (0, "batches.meta.txt"),
        (2, None | Some("fine_label")) => (1, "fine_label_names.txt"),
        (2, Some("coarse_label")) => (0, "coarse_label_names.txt"),
        (_, Some(column)) => {
            let has = if n_labels == 1 { "label" } else { "fine_label and coarse_label" };
            return Err(broken(format!("{}: no column {column}: CIFAR has {has}", source.store.location())));
        }
        _ => unreachable!("a record has one label byte or two"),
    };
    let classes = match beside(source, first, names) {
        None => Vec::new(),
        Some(file) => {
            let bytes = source.store.read_whole(&file.name, file.bytes).await?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect()
        }
    };
    let mut found = Gathered {
        layout: format!("CIFAR-{} in its binary version", if n_labels == 1 { 10 } else { 100 }),
        classes: classes.iter().filter_map(|name| class_name(name)).collect(),
        ..Gathered::default()
    };
    let record = n_labels + PIXELS.bytes();
    for (file, split, _) in files {
        if file.bytes % record != 0 {
            return Err(broken(format!(
                "{}: {} bytes are no whole number of records of {record}: it is cut short, or something else",
                source.name(file),
                file.bytes
            )));
        }
        found.splits.insert(split);
        let bytes = source.store.read_whole(&file.name, file.bytes).await?;
        for (row, start) in (0..file.bytes).step_by(record as usize).enumerate() {
            let id = format!("{}/{row:06}", file.id).into();
            let label = bytes[start as usize + label_byte];
            let class = match (classes.get(usize::from(label)), classes.is_empty()) {
                (Some(name), _) => class_name(name),
                (None, true) => class_name(&label.to_string()),
                (None, false) => {
                    let n = classes.len();
                    found.reject(id, format!("its label {label} is out of range: {names} names {n} classes"));
                    continue;
                }
            };
            let locator = Locator::pixels(file.name.clone(), start + n_labels, PIXELS, file.bytes);
            let locator = locator.expect("a whole record");
            let version = file.version;
            found.samples.push(FoundSample {
                id,
                own_id: None,
                class,
                split: Some(split),
                locator,
                version,
                kept: None,
            });
        }
    }
    found.into_contents()
}

#[cfg(test)]
mod tests {
    use crate::catalog::{Catalog, LayoutOptions, read};
    use crate::store::Store;
    use futures::executor::block_on;

    fn record(labels: &[u8]) -> Vec<u8> {
        [labels, &[10; 1024], &[20; 1024], &[30; 1024]].concat()
    }

    fn catalog(files: &[(&str, Vec<u8>)], options: &LayoutOptions) -> Result<(Store, Catalog), String> {
        let store = Store::memory();
        for (name, bytes) in files {
            block_on(store.put(name, bytes.clone().into())).expect("an object");
        }
        let catalog = block_on(read(&store, options)).map_err(|error| error.to_string())?;
        Ok((store, catalog))
    }

    #[test]
    fn records_are_images_with_the_names_of_their_classes() {
        let files = [
            ("c/data_batch_1.bin", [record(&[1]), record(&[0])].concat()),
            ("c/test_batch.bin", record(&[2])),
            ("c/batches.meta.txt", b"airplane\nautomobile\n\n".to_vec()),
        ];
        let (store, found) = catalog(&files, &LayoutOptions::default()).expect("a catalog");
        assert_eq!(found.classes(), ["airplane", "automobile"]);
        let first = &found.entries()[0];
        assert_eq!((&*first.id, first.label), ("c/data_batch_1.bin/000000", 1));
        let image = block_on(first.locator.read(&store)).expect("an image");
        assert_eq!(image[..16], *b"P6\n32 32\n255\n\x0a\x14\x1e");
        assert_eq!((image.len(), first.bytes()), (13 + 3072, 13 + 3072));
        assert_eq!(
            found.rejects()[0].1.reason,
            "its label 2 is out of range: batches.meta.txt names 2 classes"
        );
        assert!(found.declares_splits());
    }

    #[test]
    fn cifar_100_has_fine_and_coarse_labels() {
        let files = [
            ("train.bin", record(&[0, 1])),
            ("fine_label_names.txt", b"apple\nbear\n".to_vec()),
            ("coarse_label_names.txt", b"fruit\n".to_vec()),
        ];
        let of = |column: Option<&str>| {
            let options =
                LayoutOptions { label_column: column.map(String::from), ..LayoutOptions::default() };
            let (_, found) = catalog(&files, &options)?;
            Ok::<_, String>(found.classes()[found.entries()[0].label as usize].clone())
        };
        assert_eq!(of(None), Ok("bear".to_string()));
        assert_eq!(of(Some("coarse_label")), Ok("fruit".to_string()));
        assert!(of(Some("x")).expect_err("none").contains("CIFAR has fine_label and coarse_label"));
    }

    #[test]
    fn what_is_cut_short_or_pickled_is_refused() {
        let cut = [("data_batch_1.bin", vec![0; 3000])];
        let line = catalog(&cut, &LayoutOptions::default()).expect_err("cut short");
        assert!(line.contains("3000 bytes are no whole number of records of 3073"), "{line}");
        let pickles = [("data_batch_1", vec![0; 10]), ("batches.meta", vec![0; 10])];
        let line = catalog(&pickles, &LayoutOptions::default()).expect_err("pickles");
        assert!(line.contains("download the binary version"), "{line}");
    }
}
