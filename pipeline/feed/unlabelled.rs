//! Images that nobody has labelled, in their order, as the views that a classifier is asked about.
//!
//! What is known of a sample here is its id, and its type says so: no label stands in for one that is missing.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::sync::Arc;

use forebay_datasets::catalog::{self, ImageFile, ImageFiles, Locator};
use forebay_datasets::escape::escape_text;
use forebay_datasets::order::{Epoch, PlannedRows, Rank};
use forebay_datasets::sample::{Encoded, Fault, Label, Sample, SampleId, Split};
use forebay_datasets::seed::Seed;
use forebay_datasets::store::{ObjectName, Store};
use forebay_stages::chain::{Chain, Conflict, ResizeStep};
use forebay_stages::views::Views;

use super::viewed::{ViewMaker, ViewedBatch, Viewing};
use super::{Reading, Shards, Source};
use crate::flow::{Chunk, Error, Flow, Room, Run};
use crate::options::{Config, dataset_file, decode, layout_at, store_options};
use crate::plan::read;
use crate::plan::{self, Purpose, Rooms, file_key, folder_and_file, refuse_unreached};

/// Images to predict, found and not yet read.
#[derive(Clone)]
pub struct Unlabelled {
    places: Vec<ImagePlace>,
    /// Where they were found, but for images that were named one by one.
    pub folders: Vec<Store>,
    /// What can be no image, and why.
    pub rejects: Vec<(SampleId, Fault)>,
    /// What a user would want to know before going on.
    pub warnings: Vec<String>,
}

/// Images that were prepared alike.
#[derive(Clone)]
enum ImagePlace {
    /// Files, as they are.
    Files(Vec<StoredImage>),
    /// Rows of shards, whatever their split and label.
    Shards { store: Store, shards: Arc<Shards>, prepared: Chain },
}

#[derive(Clone)]
struct StoredImage {
    store: Store,
    id: SampleId,
    locator: Locator,
}

impl Unlabelled {
    /// Finds the images at these places: a file, a folder at any depth, or a folder of shards. Those of one folder are called
    /// by their path below it, as in a dataset; files, and images of several places, by their whole path as it was given.
    ///
    /// # Errors
    /// [`Error::Usage`] when a place is not there or holds no image; others when a store fails.
    pub async fn find(places: &[String], config: &Config) -> Result<Unlabelled, Error> {
        let mut found = Unlabelled { places: vec![], folders: vec![], rejects: vec![], warnings: vec![] };
        for place in places {
            refuse_unreached("IMAGES", place, Purpose::Images)?;
            let is_alone = places.len() == 1;
            // A table or a tar file is no image.
            let image = match dataset_file(place) {
                None => file_at(place, config).await?,
                Some(_) => None,
            };
            match image {
                Some(image) => found.add(vec![image]),
                None => found.add_folder(place, is_alone, config).await?,
            }
        }
        Ok(found)
    }

    /// How many images there are, those that cannot be read among them.
    pub fn len(&self) -> u64 {
        let of = |place: &ImagePlace| match place {
            ImagePlace::Files(images) => images.len() as u64,
            ImagePlace::Shards { shards, .. } => groups(shards).iter().map(|rows| *rows as u64).sum(),
        };
        self.places.iter().map(of).sum::<u64>() + self.rejects.len() as u64
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The longest id of a file, in characters; `None` where ids are known only as they are read.
    pub fn longest_id(&self) -> Option<usize> {
        let of = |place: &ImagePlace| match place {
            ImagePlace::Files(images) => images.iter().map(|image| image.id.chars().count()).max(),
            ImagePlace::Shards { .. } => None,
        };
        self.places.iter().map(of).collect::<Option<Vec<usize>>>()?.into_iter().max()
    }

    /// Whether a file of a folder is one of the images.
    pub fn reads(&self, folder: &Store, file: &str) -> bool {
        let is_it = |image: &StoredImage| {
            let name = image.locator.object().text();
            name.is_some_and(|name| folder.is_same_object(file, &image.store, name))
        };
        self.places.iter().any(|place| match place {
            ImagePlace::Files(images) => images.iter().any(is_it),
            // What shards are made of is refused for every command.
            ImagePlace::Shards { .. } => false,
        })
    }

    fn add(&mut self, images: Vec<StoredImage>) {
        match self.places.last_mut() {
            _ if images.is_empty() => {}
            Some(ImagePlace::Files(files)) => files.extend(images),
            _ => self.places.push(ImagePlace::Files(images)),
        }
    }

    async fn add_folder(&mut self, place: &str, is_alone: bool, config: &Config) -> Result<(), Error> {
        let layout = layout_at(config, place);
        let folder = dataset_file(place).map_or(place, |(folder, _)| folder);
        let store = Store::open(folder, &store_options(config))?;
        self.folders.push(store.clone());
        if let Some(manifest) = plan::shards_of(&store, &layout).await? {
            let prepared = plan::prepared(&store, &manifest)?;
            let shards = Arc::new(Shards::open(&store, manifest).await?);
            self.places.push(ImagePlace::Shards { store, shards, prepared });
            return Ok(());
        }
        let ImageFiles { images, rejects, ignored, warnings } = catalog::images(&store, &layout).await?;
        self.warnings.extend(warnings);
        if !ignored.is_empty() {
            let kinds: Vec<String> = ignored.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
            self.warnings.push(format!("passed over in {}: {}", store.location(), kinds.join(", ")));
        }
        let named = |id: SampleId| match is_alone {
            true => id,
            false => format!("{}/{id}", escape_text(place.trim_end_matches('/'))).into(),
        };
        self.rejects.extend(rejects.into_iter().map(|(id, fault)| (named(id), fault)));
        let stored = |ImageFile { id, locator }| StoredImage { store: store.clone(), id: named(id), locator };
        self.add(images.into_iter().map(stored).collect());
        Ok(())
    }

    /// The images of each place as flows to start one after the other. `chain` is how the classifier's images are prepared,
    /// which each place may have done a part of. With them come warnings.
    ///
    /// # Errors
    /// [`Error::Usage`] when nothing makes squares of the images, or random views are asked for without an augmentation.
    pub fn flows(
        &self,
        chain: &Chain,
        viewing: &Viewing,
        config: &Config,
    ) -> Result<(Vec<PlannedFlow>, Vec<String>), Error> {
        let mut warnings = Vec::new();
        let mut flows = Vec::new();
        let side = chain.side().ok_or_else(|| {
            Error::Usage("the model does not say to which size its images are prepared".to_string())
        })?;
        for place in &self.places {
            let (steps, background) = match place {
                ImagePlace::Files(_) => {
                    (chain.steps().iter().map(ResizeStep::resize).collect(), chain.background())
                }
                ImagePlace::Shards { store, prepared, .. } => {
                    let composed = prepared.then(&chain.wanted());
                    let composed = composed.unwrap_or_else(|Conflict { contradictions, forced }| {
                        let lines: Vec<String> = contradictions.iter().map(ToString::to_string).collect();
                        warnings.push(format!(
                            "{} was prepared otherwise than the images of the model, which costs accuracy: {}",
                            store.location(),
                            lines.join("; ")
                        ));
                        *forced
                    });
                    (vec![composed.resize], composed.chain.background())
                }
            };
            let views = Views::new(&steps, viewing.tta, viewing.augment.clone());
            let maker = ViewMaker {
                decode: decode(config, background),
                views: views.map_err(|why| Error::Usage(format!("model.tta: {why}")))?,
                side,
                rooms: Rooms::of(config),
                seed: Seed(config.whole("seed")),
            };
            let batch_size = config.whole("train.batch_size") as usize;
            flows.push(PlannedFlow { place: place.clone(), maker, batch_size });
        }
        Ok((flows, warnings))
    }
}

/// The images of one place and what is done to them.
#[derive(Clone)]
pub struct PlannedFlow {
    place: ImagePlace,
    maker: ViewMaker,
    batch_size: usize,
}

impl PlannedFlow {
    /// Starts it.
    pub fn start(self, run: &Run) -> Flow<ViewedBatch<()>> {
        let PlannedFlow { place, maker, batch_size } = self;
        let sizes = |rows: usize| {
            (0..rows).step_by(batch_size).map(move |start| batch_size.min(rows - start)).collect::<Vec<_>>()
        };
        match place {
            ImagePlace::Files(images) => {
                let sizes = sizes(images.len());
                maker.clone().batches(files(run, images, maker.rooms), sizes)
            }
            ImagePlace::Shards { shards, .. } => {
                let planned = PlannedRows::new(groups(&shards));
                let sizes = sizes(planned.used() as usize);
                let epoch = Arc::new(Epoch::in_order(&planned, batch_size));
                let reading = Reading {
                    splits: Split::ALL.to_vec(),
                    windows: Box::new(epoch.windows(0, Rank::ALONE)),
                    window_groups: 1,
                    rooms: maker.rooms,
                    kept: Arc::default(),
                };
                let rows = maker.batches(shards.images(run, reading), sizes);
                // Labels are no part of a prediction.
                rows.compute("unlabel", Room { slots: 1, queue: 1 }, |ViewedBatch { samples, batch }| {
                    let unlabelled = |Sample { id, copy, payload, .. }: Sample<(), Label>| Sample {
                        id,
                        copy,
                        label: (),
                        payload,
                    };
                    Ok(ViewedBatch { samples: samples.into_iter().map(unlabelled).collect(), batch })
                })
            }
        }
    }
}

/// Planned rows of every group of shards, split after split.
fn groups(shards: &Shards) -> Vec<usize> {
    Split::ALL.iter().flat_map(|split| shards.groups(*split)).collect()
}

/// The bytes of files, in chunks of one store.
fn files(run: &Run, images: Vec<StoredImage>, rooms: Rooms) -> Flow<Chunk<Encoded, ()>> {
    let bytes: u64 = images.iter().map(|image| image.locator.bytes()).sum();
    let chunk = plan::chunk_of(bytes / images.len().max(1) as u64);
    let is_of_one_place = |a: &StoredImage, b: &StoredImage| a.store.location() == b.store.location();
    let chunks: Vec<Vec<StoredImage>> = images
        .chunk_by(is_of_one_place)
        .flat_map(|images| images.chunks(chunk).map(<[StoredImage]>::to_vec))
        .collect();
    run.source("images", chunks).io("read", rooms.read(), |images: Vec<StoredImage>| async move {
        let Some(StoredImage { store, .. }) = images.first().cloned() else { return Ok(vec![]) };
        let sample =
            |StoredImage { id, locator, .. }| Sample { id, copy: 0, label: (), payload: Ok(locator) };
        read(store, images.into_iter().map(sample).collect()).await
    })
}

/// The file at a place; `None` where there is none, which may be a folder.
async fn file_at(place: &str, config: &Config) -> Result<Option<StoredImage>, Error> {
    let (folder, file) = folder_and_file(place);
    let file = &*file_key(place, file);
    let id: SampleId = escape_text(place).into();
    // A repository of the hub, hf://datasets/OWNER/NAME, is no file.
    let is_repository = place.starts_with("hf://") && place.split('/').count() <= 5;
    let is_in_a_folder = !["", ".", ".."].contains(&file) && !folder.ends_with(":/") && !is_repository;
    if !is_in_a_folder {
        return Ok(None);
    }
    let store = Store::open(folder, &store_options(config))?;
    let Some(root) = store.local_root() else {
        let found = store.size(file).await?;
        let image = |bytes| StoredImage { id, locator: Locator::whole(file.into(), bytes), store };
        return Ok(found.map(image));
    };
    // Whatever its name: a key of a bucket may not be called so.
    match std::fs::metadata(root.join(file)) {
        Ok(there) if there.is_dir() => Ok(None),
        Ok(there) => {
            let locator = Locator::whole(ObjectName::of_os(OsStr::new(file)), there.len());
            Ok(Some(StoredImage { id, locator, store }))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(Error::Usage(format!("{id}: there is no such image or folder")))
        }
        Err(error) => Err(Error::Usage(format!("cannot read {id}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Config {
        Config::resolve(None, &[], &[]).unwrap()
    }

    fn find(places: &[&str]) -> Result<Unlabelled, Error> {
        let places: Vec<String> = places.iter().map(ToString::to_string).collect();
        futures::executor::block_on(Unlabelled::find(&places, &settings()))
    }

    fn ids(found: &Unlabelled) -> Vec<String> {
        let of = |place: &ImagePlace| match place {
            ImagePlace::Files(images) => images.iter().map(|image| image.id.to_string()).collect(),
            ImagePlace::Shards { .. } => Vec::new(),
        };
        found.places.iter().flat_map(of).collect()
    }

    #[test]
    fn images_of_one_folder_are_called_as_in_a_dataset_and_others_by_their_whole_path() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        for file in ["photos/b/2.jpg", "photos/1.png", "photos/notes.txt", "other/3#1.jpg"] {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file).unwrap();
        }
        let photos = format!("{root}/photos");
        let alone = find(&[&photos]).unwrap();
        assert_eq!((ids(&alone), alone.len()), (vec!["1.png".to_string(), "b/2.jpg".to_string()], 2));
        assert!(alone.warnings[0].ends_with("photos: 1 .txt"), "{:?}", alone.warnings);
        let other = format!("{root}/other/3#1.jpg");
        let several = find(&[&other, &format!("{photos}/")]).unwrap();
        assert_eq!(ids(&several), [other, format!("{photos}/1.png"), format!("{photos}/b/2.jpg")]);
        let missing = find(&[&format!("{root}/none")]).err().unwrap();
        assert!(missing.to_string().ends_with("there is no such image or folder"), "{missing}");
        assert_eq!(missing.exit_code(), 2);
    }
}
