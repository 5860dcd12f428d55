//! Images that nobody has labelled, in their order, as the views that a classifier is asked about.
//!
//! What is known of a sample here is its id, and its type says so: no label stands in for one that is missing.

use std::path::Path;
use std::sync::Arc;

use forebay_datasets::catalog::{self, ImageFile, ImageFiles, Locator};
use forebay_datasets::escape::escape_text;
use forebay_datasets::order::{Epoch, PlannedRows, Rank};
use forebay_datasets::sample::{Encoded, Fault, Sample, SampleId, Split};
use forebay_datasets::seed::Seed;
use forebay_datasets::store::Store;
use forebay_stages::augment::Augment;
use forebay_stages::chain::{Chain, Conflict};
use forebay_stages::collate::{Batch, collate_views};
use forebay_stages::decode::Decode;
use forebay_stages::group::Group;
use forebay_stages::resize::Resize;
use forebay_stages::views::{Tta, Views};
use forebay_stages::weight::Scales;

use super::read::{read, weighed};
use super::{Reading, Shards, Source};
use crate::flow::{Chunk, Error, Flow, Room, Run};
use crate::options::{Config, decode, store_options};
use crate::plan::{self, Purpose, Rooms, refuse_unreached};
use crate::weights::folder_and_file;

/// Batches in work, and those that wait to be answered.
const COLLATE: Room = Room { slots: 2, queue: 2 };

/// Images to predict, found and not yet read.
#[derive(Clone)]
pub struct Unlabelled {
    places: Vec<Place>,
    /// What can be no image, and why.
    pub rejects: Vec<(SampleId, Fault)>,
    /// What a user would want to know before going on.
    pub warnings: Vec<String>,
}

/// Images that were prepared alike.
#[derive(Clone)]
enum Place {
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

/// Images that stand together, ready for a classifier.
#[derive(Debug)]
pub struct Answerable {
    /// Every image in its order, with why there is nothing of it in the batch where there is not.
    pub samples: Vec<(SampleId, Result<(), Fault>)>,
    /// The views of the others, those of one image after the other.
    pub batch: Batch,
}

impl Unlabelled {
    /// Finds the images at these places: a file, a folder at any depth, or a folder of shards. Those of one folder are called
    /// by their path below it, as in a dataset; files, and images of several places, by their whole path as it was given.
    ///
    /// # Errors
    /// [`Error::Usage`] when a place is not there or holds no image; others when a store fails.
    pub async fn find(places: &[String], config: &Config) -> Result<Unlabelled, Error> {
        let mut found = Unlabelled { places: vec![], rejects: vec![], warnings: vec![] };
        for place in places {
            refuse_unreached("IMAGES", place, Purpose::Images)?;
            let is_alone = places.len() == 1;
            match file_at(place, config).await? {
                Some(image) => found.add(vec![image]),
                None => found.add_folder(place, is_alone, config).await?,
            }
        }
        Ok(found)
    }

    /// How many images there are, those that cannot be read among them.
    pub fn len(&self) -> u64 {
        let of = |place: &Place| match place {
            Place::Files(images) => images.len() as u64,
            Place::Shards { shards, .. } => groups(shards).iter().map(|rows| *rows as u64).sum(),
        };
        self.places.iter().map(of).sum::<u64>() + self.rejects.len() as u64
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The longest id of a file, in characters; `None` where ids are known only as they are read.
    pub fn longest_id(&self) -> Option<usize> {
        let of = |place: &Place| match place {
            Place::Files(images) => images.iter().map(|image| image.id.chars().count()).max(),
            Place::Shards { .. } => None,
        };
        self.places.iter().map(of).collect::<Option<Vec<usize>>>()?.into_iter().max()
    }

    /// The folders that images are read from.
    pub fn stores(&self) -> impl Iterator<Item = &Store> {
        self.places.iter().map(|place| match place {
            Place::Files(images) => &images[0].store,
            Place::Shards { store, .. } => store,
        })
    }

    fn add(&mut self, images: Vec<StoredImage>) {
        match self.places.last_mut() {
            _ if images.is_empty() => {}
            Some(Place::Files(files)) => files.extend(images),
            _ => self.places.push(Place::Files(images)),
        }
    }

    async fn add_folder(&mut self, place: &str, is_alone: bool, config: &Config) -> Result<(), Error> {
        let store = Store::open(place, &store_options(config))?;
        if let Some(manifest) = plan::finished(&store).await? {
            let prepared = plan::prepared(&store, &manifest)?;
            let shards = Arc::new(Shards::open(&store, manifest).await?);
            self.places.push(Place::Shards { store, shards, prepared });
            return Ok(());
        }
        let ImageFiles { images, rejects, ignored } = catalog::images(&store).await?;
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

    /// The answerable images of each place, one flow after the other, in batches of `batch_size` images of which each is there
    /// in its views. `chain` is how the classifier's images are prepared; `augment` and `seed` draw random views.
    ///
    /// # Errors
    /// [`Error::Usage`] when nothing makes squares of the images, or random views are asked for without an augmentation.
    pub fn flows(&self, view: &Viewing<'_>, config: &Config) -> Result<(Vec<PlannedFlow>, Vec<String>), Error> {
        let mut warnings = Vec::new();
        let mut flows = Vec::new();
        let (rooms, batch_size) = (Rooms::of(config), config.whole("train.batch_size") as usize);
        for place in &self.places {
            let (steps, background) = match place {
                Place::Files(_) => {
                    let steps = view.chain.steps().iter().map(|step| step.resize()).collect();
                    (steps, view.chain.background())
                }
                Place::Shards { store, prepared, .. } => {
                    let composed = prepared.then(&view.chain.wanted()).unwrap_or_else(|Conflict { contradictions, forced }| {
                        let lines: Vec<String> = contradictions.iter().map(ToString::to_string).collect();
                        warnings.push(format!("{}: {}", store.location(), lines.join("; ")));
                        *forced
                    });
                    (vec![composed.resize], composed.chain.background())
                }
            };
            let steps: Vec<Resize> = steps;
            let views = Views::new(&steps, view.tta, view.augment.clone()).map_err(Error::Usage)?;
            let side = view.chain.side().ok_or_else(|| {
                Error::Usage("the model does not say to which size its images are prepared".to_string())
            })?;
            flows.push(PlannedFlow {
                place: place.clone(),
                views,
                decode: decode(config, background),
                side,
                rooms,
                batch_size,
                seed: view.seed,
            });
        }
        Ok((flows, warnings))
    }
}

/// How the images of a classifier are looked at.
#[derive(Clone, Debug)]
pub struct Viewing<'a> {
    /// From the original file of an image to the tensor.
    pub chain: &'a Chain,
    /// The views of each.
    pub tta: Tta,
    /// What draws random views.
    pub augment: Option<Augment>,
    /// The seed of their draws.
    pub seed: Seed,
}

/// The images of one place and what is done to them: it starts as a flow.
#[derive(Clone)]
pub struct PlannedFlow {
    place: Place,
    views: Views,
    decode: Decode,
    side: u32,
    rooms: Rooms,
    batch_size: usize,
    seed: Seed,
}

impl PlannedFlow {
    /// Starts it.
    pub fn start(self, run: &Run) -> Flow<Answerable> {
        match self.place.clone() {
            Place::Files(images) => {
                let rows = images.len();
                let files = files(run, images, self.rooms);
                self.viewed(files, rows)
            }
            Place::Shards { shards, .. } => {
                let planned = PlannedRows::new(groups(&shards));
                let rows = planned.used() as usize;
                let epoch = Arc::new(Epoch::in_order(&planned, self.batch_size));
                let reading = Reading {
                    splits: Split::ALL.to_vec(),
                    windows: Box::new(epoch.windows(0, Rank::ALONE)),
                    window_groups: 1,
                    rooms: self.rooms,
                    kept: Arc::default(),
                };
                let images = shards.images(run, reading);
                self.viewed(images, rows)
            }
        }
    }

    fn viewed<L: Send + 'static>(self, images: Flow<Chunk<Encoded, L>>, rows: usize) -> Flow<Answerable> {
        let PlannedFlow { views, decode, side, rooms, batch_size, seed, .. } = self;
        let scales = Scales { decode: decode.clone(), steps: views.steps(), encode: None };
        let compute = rooms.compute();
        let sizes = (0..rows).step_by(batch_size).map(move |start| ((), batch_size.min(rows - start)));
        weighed(images, scales, rooms)
            .stage(compute, seed, 0, decode)
            .stage(compute, seed, 0, views)
            .regroup(1, Group::new(sizes))
            .compute("collate", COLLATE, move |((), group)| {
                let mut samples = Vec::with_capacity(group.len());
                let mut images = Vec::with_capacity(group.len());
                for Sample { id, copy, payload, .. } in group {
                    match payload {
                        // What balanced shards hold again says what it says the first time.
                        _ if copy > 0 => {}
                        Ok(views) => {
                            samples.push((id.clone(), Ok(())));
                            images.push((id, views));
                        }
                        Err(fault) => samples.push((id, Err(fault))),
                    }
                }
                Ok(Answerable { samples, batch: collate_views(&images, side) })
            })
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
    if ["", ".", ".."].contains(&file) {
        return Ok(None);
    }
    let store = match Store::open(folder, &store_options(config)) {
        Ok(store) => store,
        // `s3://bucket` is no file in `s3:/`.
        Err(_) => return Ok(None),
    };
    if store.local_root().is_some_and(|root| root.join(file).is_dir()) {
        return Ok(None);
    }
    let id: SampleId = escape_text(place).into();
    Ok(match store.size(file).await? {
        Some(bytes) => Some(StoredImage { store, id, locator: Locator::whole(Path::new(file).as_os_str().into_name(), bytes) }),
        None if store.local_root().is_some() => {
            return Err(Error::Usage(format!("{}: there is no such image or folder", escape_text(place))));
        }
        None => None,
    })
}
