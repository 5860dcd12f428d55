//! Where a run may write: in no dataset of shards, not among images, and over nothing that it reads.

use std::path::Path;

use forebay_datasets::manifest::{CARD_KEY, MANIFEST_KEY, PLAN_KEY, REJECTS_KEY};
use forebay_datasets::shard;
use forebay_datasets::store::Store;

use super::places::{has_plan, manifest};
use crate::flow::Error;

/// Refuses a folder in which what a run writes would be taken for something else; `what` names the option that gives it.
///
/// # Errors
/// [`Error::Usage`] when it is a dataset of shards, lies among its shards, lies in `images`, whose folders are classes,
/// or is no folder; others when the store refuses.
pub(crate) async fn refuse_folder(what: &str, place: &Store, images: Option<&Store>) -> Result<(), Error> {
    refuse_images(what, place, images)?;
    match dataset_around(place).await? {
        Some(dataset) => Err(within(what, place, &dataset)),
        None => Ok(()),
    }
}

/// Refuses a destination of shards as [`refuse_folder`] does, but for one that holds a dataset already.
///
/// # Errors
/// As [`refuse_folder`].
pub(crate) async fn refuse_destination(place: &Store, images: &Store) -> Result<(), Error> {
    refuse_images("DEST", place, Some(images))?;
    match dataset_around(place).await?.filter(|dataset| !dataset.is_same_place(place)) {
        Some(dataset) => Err(within("DEST", place, &dataset)),
        None => Ok(()),
    }
}

fn refuse_images(what: &str, place: &Store, images: Option<&Store>) -> Result<(), Error> {
    let location = place.location();
    let is_there = |path: &Path| path.symlink_metadata().is_ok();
    if place.local_root().is_some_and(|path| is_there(path) && !path.is_dir()) {
        return Err(Error::Usage(format!("{what} {location} is a file, and not a folder")));
    }
    match images.filter(|images| place.is_below(images) || place.is_same_place(images)) {
        Some(images) => Err(Error::Usage(format!(
            "{what} {location} lies in {}, whose folders are classes; give a place beside it",
            images.location()
        ))),
        None => Ok(()),
    }
}

fn within(what: &str, place: &Store, dataset: &Store) -> Error {
    Error::Usage(format!(
        "{what} {} is part of the dataset of shards {}; give a place beside it",
        place.location(),
        dataset.location()
    ))
}

/// Refuses a file that would be taken for one of a dataset of shards.
///
/// # Errors
/// As [`refuse_folder`].
pub(crate) async fn refuse_file(folder: &Store, file: &str) -> Result<(), Error> {
    let Some(dataset) = dataset_around(folder).await? else { return Ok(()) };
    let is_of_it = [MANIFEST_KEY, PLAN_KEY, CARD_KEY, REJECTS_KEY].contains(&file);
    match is_of_it || !dataset.is_same_place(folder) {
        true => Err(Error::Usage(format!(
            "{}/{file} would be part of the dataset of shards {}; give a place beside it",
            folder.location(),
            dataset.location()
        ))),
        false => Ok(()),
    }
}

/// Refuses a place for rejected files that lies among the images or the shards, or holds files of others.
///
/// # Errors
/// [`Error::Usage`] with what is in the way.
pub(super) async fn refuse_quarantine(place: &Store, source: &Store, dest: &Store) -> Result<(), Error> {
    refuse_folder("--quarantine", place, Some(source)).await?;
    for (name, other) in [("SOURCE", source), ("DEST", dest)] {
        if place.is_same_place(other) || place.is_below(other) || other.is_below(place) {
            return Err(Error::Usage(format!(
                "--quarantine {} and {name} {} lie in each other; rejected files go to a folder of their own",
                place.location(),
                other.location()
            )));
        }
    }
    match !place.list("").await?.is_empty() && place.find(REJECTS_KEY).await?.is_none() {
        true => Err(Error::Usage(format!(
            "--quarantine {} holds other files and no {REJECTS_KEY}; rejected files go to a folder of their own",
            place.location()
        ))),
        false => Ok(()),
    }
}

/// The dataset of shards that a place is, or among whose shards it lies.
async fn dataset_around(place: &Store) -> Result<Option<Store>, Error> {
    let candidates = [vec![place.clone()], place.around(shard::FOLDER)].concat();
    for dataset in candidates {
        let is_one = match manifest(&dataset).await {
            Ok(Some(_)) | Err(Error::Integrity(_) | Error::Usage(_)) => true,
            Ok(None) => has_plan(&dataset).await?,
            Err(error) => return Err(error),
        };
        if is_one {
            return Ok(Some(dataset));
        }
    }
    Ok(None)
}
