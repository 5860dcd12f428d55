//! What the files of a source are like, and what is wrong with some.

use std::collections::BTreeMap;

use forebay_datasets::catalog::Catalog;
use forebay_stages::decode::ColorModel;
use forebay_stages::facts::{Damage, promised_format};
use serde::Serialize;

use super::Percentiles;
use super::pass::LookedAt;

/// What the files of a source are like, and what is wrong with some.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileFindings {
    /// Files that would be rejected, by what is wrong with them.
    pub damaged: BTreeMap<Damage, u64>,
    /// Files whose content is of another format than their extension says. They are read by their content.
    pub mislabelled: Vec<Mislabelled>,
    /// Images by the colours that their files store.
    pub colors: BTreeMap<String, u64>,
    /// Images that store three colours and show only gray.
    pub gray_as_color: u64,
    /// Images that are turned or mirrored by their EXIF data, as every viewer and Forebay does and OpenCV and Pillow do
    /// not by themselves.
    pub turned: u64,
    /// The qualities at which JPEG files were probably encoded.
    pub jpeg_quality: Option<Percentiles<u8>>,
    /// Bytes of the files that decode.
    pub bytes: Option<Percentiles<u64>>,
}

/// A file with the extension of another format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mislabelled {
    /// The sample.
    pub id: String,
    /// The format of its extension.
    pub extension: String,
    /// The format of its content.
    pub content: String,
}

impl FileFindings {
    pub(super) fn of(catalog: &Catalog, images: &[LookedAt]) -> FileFindings {
        let mut damaged = BTreeMap::new();
        let mut mislabelled = Vec::new();
        let mut colors = BTreeMap::new();
        let (mut gray_as_color, mut turned) = (0, 0);
        // What a catalog refuses was not opened.
        if !catalog.rejects().is_empty() {
            damaged.insert(Damage::Unreadable, catalog.rejects().len() as u64);
        }
        for (entry, image) in catalog.entries().iter().zip(images) {
            match image {
                Err((damage, _)) => *damaged.entry(*damage).or_insert(0) += 1,
                Ok(facts) => {
                    let file = &facts.file;
                    *colors.entry(file.color.to_string()).or_insert(0) += 1;
                    let is_color = matches!(file.color.model, ColorModel::Rgb | ColorModel::Cmyk);
                    gray_as_color += u64::from(is_color && facts.pixels.is_gray);
                    turned += u64::from(file.is_turned);
                    // What lies in another file is called as it was elsewhere, or not at all.
                    let promised = promised_format(&entry.id).filter(|_| entry.locator.is_file());
                    if let Some(extension) = promised.filter(|said| *said != file.format) {
                        let (extension, content) = (extension.to_string(), file.format.to_string());
                        mislabelled.push(Mislabelled { id: entry.id.to_string(), extension, content });
                    }
                }
            }
        }
        let whole = || images.iter().filter_map(|image| image.as_ref().ok());
        FileFindings {
            damaged,
            mislabelled,
            colors,
            gray_as_color,
            turned,
            jpeg_quality: Percentiles::of(whole().filter_map(|facts| facts.file.jpeg_quality)),
            bytes: Percentiles::of(whole().map(|facts| facts.file.bytes)),
        }
    }

    /// A line for files whose extension says another format.
    pub(super) fn warnings(&self) -> Vec<String> {
        let line = |first: &Mislabelled| {
            let others = match self.mislabelled.len() - 1 {
                0 => String::new(),
                n => format!(", and {n} more"),
            };
            format!(
                "the extension is of another format than the content, by which it is read: {} is {}{others}",
                first.id, first.content
            )
        };
        self.mislabelled.first().map(line).into_iter().collect()
    }
}
