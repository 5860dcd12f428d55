//! Images in their order as a classifier is asked about them: in batches that name every image, each in all of its views.

use std::sync::Arc;

use forebay_datasets::order::Rank;
use forebay_datasets::sample::{AsClass, Encoded, Label, Pixels, Sample};
use forebay_datasets::seed::Seed;
use forebay_stages::augment::Augment;
use forebay_stages::collate::{Batch, Collate};
use forebay_stages::decode::Decode;
use forebay_stages::group::Group;
use forebay_stages::views::{Tta, Views};
use forebay_stages::weight::Scales;

use super::{Feed, Pass};
use crate::flow::{Chunk, Error, Flow, Room, Run};
use crate::plan::Rooms;
use crate::plan::weighed;

/// Batches in work, and those that wait to be answered.
const COLLATE: Room = Room { slots: 2, queue: 2 };

/// Which views a classifier is asked about.
#[derive(Clone, Debug, Default)]
pub struct Viewing {
    /// The views of each image.
    pub tta: Tta,
    /// What draws random views; the images of no training are changed by it.
    pub augment: Option<Augment>,
}

/// Images that stand together, ready for a classifier.
#[derive(Clone, Debug)]
pub struct ViewedBatch<L> {
    /// Every image in its order; of a tombstone there is nothing in the batch.
    pub samples: Vec<Sample<(), L>>,
    /// The views of the others, those of one image after the other.
    pub batch: Batch,
}

impl<L> ViewedBatch<L> {
    /// The images that are in the batch, in its order.
    pub fn readable(&self) -> impl Iterator<Item = &Sample<(), L>> {
        self.samples.iter().filter(|sample| sample.payload.is_ok())
    }
}

/// What is done to images on their way to a classifier.
#[derive(Clone, Debug)]
pub(super) struct ViewMaker {
    pub(super) decode: Decode,
    pub(super) views: Views,
    /// Width and height of a view, pixels.
    pub(super) side: u32,
    pub(super) rooms: Rooms,
    /// Of random views.
    pub(super) seed: Seed,
}

impl ViewMaker {
    /// Batches of so many images each, in the order of `images`.
    pub(super) fn batches<L: AsClass + Send + 'static>(
        self,
        images: Flow<Chunk<Encoded, L>>,
        sizes: impl IntoIterator<Item = usize>,
    ) -> Flow<ViewedBatch<L>> {
        let ViewMaker { decode, views, side, rooms, seed } = self;
        let scales = Scales { decode: decode.clone(), steps: views.steps(), encode: None };
        let (room, collate) = (rooms.compute(), Collate::levels(side));
        let group = Group::new(sizes.into_iter().map(|size| ((), size)));
        let viewed = weighed(images, scales, rooms).line(room, seed, 0, decode).then(views).start();
        viewed.regroup(1, group).compute("collate", COLLATE, move |((), group)| {
            let mut images = Vec::with_capacity(group.len());
            let keep = |sample: Sample<Vec<Pixels>, L>| {
                let id = sample.id.clone();
                sample.map(|views| {
                    images.push((id, views));
                    Ok(())
                })
            };
            let samples = group.into_iter().map(keep).collect();
            Ok(ViewedBatch { samples, batch: collate.views(&images) })
        })
    }
}

impl Feed {
    /// Starts a pass over a split in its own order, for a classifier.
    ///
    /// # Errors
    /// [`Error::Usage`] when random views are asked for and there is no augmentation.
    pub fn viewed(
        &self,
        run: &Run,
        pass: Pass,
        viewing: &Viewing,
    ) -> Result<Flow<ViewedBatch<Label>>, Error> {
        let views = Views::new(std::slice::from_ref(&self.resize), viewing.tta, viewing.augment.clone());
        let maker = ViewMaker {
            decode: self.decode.clone(),
            views: views.map_err(|why| Error::Usage(format!("model.tta: {why}")))?,
            side: self.side,
            rooms: self.rooms,
            seed: self.seed,
        };
        let epoch = Arc::new(self.epoch(pass));
        let sizes: Vec<usize> = epoch.sizes(0, Rank::ALONE).map(|(_, rows)| rows).collect();
        let images = self.images(run, pass.split(), epoch.windows(0, Rank::ALONE), 1);
        Ok(maker.batches(images, sizes))
    }
}
