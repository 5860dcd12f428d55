//! The images of a source whatever their class: what is to be predicted has none yet.

use std::collections::BTreeMap;

use super::{
    CatalogError, Entry, LAYOUTS, LayoutKind, LayoutOptions, Listing, Locator, NamedColumns, STAGE, Source,
    SourceContents, first_of, list,
};
use crate::sample::{Fault, SampleId};
use crate::store::Store;

/// An image of which nobody says the class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFile {
    /// The id that it has in a dataset of this source: of a file its path below it, escaped so that it is printable and unique.
    pub id: SampleId,
    /// Where its bytes are.
    pub locator: Locator,
}

/// The images of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFiles {
    /// Sorted by id.
    pub images: Vec<ImageFile>,
    /// Images that cannot be read and why, sorted by id.
    pub rejects: Vec<(SampleId, Fault)>,
    /// How many files were passed over, by extension (`.txt`) or kind (`(hidden)`).
    pub ignored: BTreeMap<String, u64>,
    /// What a user would want to know of the source, one line each.
    pub warnings: Vec<String>,
}

/// The images of a source, labelled or not. Files are taken at any depth, and folders mean nothing; a source without image
/// files, or one of which the options say more, is read by its layout. A local folder is walked on the calling thread.
///
/// # Errors
/// When the source cannot be listed or holds no image.
pub async fn images(store: &Store, options: &LayoutOptions) -> Result<ImageFiles, CatalogError> {
    let listing = list(store, options).await?;
    let is_folder = match options.layout {
        LayoutKind::Folder => true,
        LayoutKind::Auto => {
            let names_none = NamedColumns::of(options) == NamedColumns::NONE;
            options.leave_it_open() && names_none && listing.files.iter().any(super::File::is_image)
        }
        _ => false,
    };
    if is_folder {
        return of_folder(store, listing);
    }
    let contents = match first_of(&LAYOUTS, &Source { store, listing: &listing, options }).await {
        Ok(contents) => contents,
        Err(_) if options.layout == LayoutKind::Auto && !holds_others(&listing, store, options) => {
            return of_folder(store, listing);
        }
        Err(error) => return Err(error),
    };
    let labelled = contents.entries.into_iter().map(|Entry { id, locator, .. }| ImageFile { id, locator });
    let mut images: Vec<ImageFile> = labelled.chain(contents.unlabelled).collect();
    images.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    if let Some(pair) = images.windows(2).find(|pair| pair[0].id == pair[1].id) {
        return Err(CatalogError::Correct(format!("two samples are called {}", pair[0].id)));
    }
    let SourceContents { rejects, ignored, warnings, .. } = contents;
    Ok(ImageFiles { images, rejects, ignored, warnings })
}

/// Whether a layout other than folders finds something here.
fn holds_others(listing: &Listing, store: &Store, options: &LayoutOptions) -> bool {
    let source = Source { store, listing, options };
    LAYOUTS.iter().any(|layout| layout.finds(&source).is_some())
}

fn of_folder(store: &Store, listing: Listing) -> Result<ImageFiles, CatalogError> {
    let mut found = ImageFiles { ignored: listing.ignored, ..ImageFiles::default() };
    for file in listing.files {
        match file.fault {
            _ if !file.is_image() => *found.ignored.entry(file.kind()).or_default() += 1,
            Some(fault) => found.rejects.push((file.id, Fault::new(STAGE, fault))),
            None => {
                let locator = Locator::whole(file.name, file.bytes);
                found.images.push(ImageFile { id: file.id, locator });
            }
        }
    }
    match (found.images.first(), found.rejects.first()) {
        (None, None) => {
            let kinds: Vec<String> =
                found.ignored.iter().take(5).map(|(kind, n)| format!("{n} {kind}")).collect();
            let holds = if kinds.is_empty() { "nothing".to_string() } else { kinds.join(", ") };
            Err(CatalogError::Correct(format!(
                "no image in {}: it holds {holds}; looked for files called .jpg, .png, .webp, .gif, .bmp, .tif or .ppm, at \
                 any depth",
                store.location()
            )))
        }
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;

    #[test]
    fn images_are_found_at_any_depth_and_sorted_whatever_their_folders() {
        let store = Store::memory();
        for key in ["b/2.JPG", "a/deep/er/x.webp", "1.png", "notes.txt", "b/README", ".hidden/y.png"] {
            block_on(store.put(key, "bytes".into())).expect("an object");
        }
        let found = block_on(images(&store, &LayoutOptions::default())).expect("images");
        let ids: Vec<&str> = found.images.iter().map(|image| &*image.id).collect();
        assert_eq!(ids, ["1.png", "a/deep/er/x.webp", "b/2.JPG"]);
        let ignored: Vec<String> = found.ignored.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        assert_eq!(ignored, ["1 (hidden)", "1 (no extension)", "1 .txt"]);
        assert_eq!(block_on(found.images[2].locator.read(&store)).expect("its bytes"), "bytes");
    }

    #[test]
    fn a_folder_without_images_is_told_what_it_holds() {
        let store = Store::memory();
        let refused = |store: &Store| {
            block_on(images(store, &LayoutOptions::default())).expect_err("no image").to_string()
        };
        assert!(refused(&store).contains("it holds nothing"), "{}", refused(&store));
        block_on(store.put("notes.txt", "x".into())).expect("an object");
        assert!(refused(&store).contains("it holds 1 .txt"), "{}", refused(&store));
    }
}
