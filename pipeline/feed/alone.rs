//! What each stage of a feed takes on one thread while nothing else runs: inside a flow it shares caches and memory with
//! the others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_datasets::order::Rank;
use forebay_datasets::sample::{AsClass, Encoded, Fault, Pixels, Sample, Split};
use forebay_stages::augment::Augment;
use forebay_stages::resize::Resize;
use forebay_stages::stage::Stage;
use forebay_stages::weight::{DecodeSeen, Step};

use super::{Feed, Pass};
use crate::flow::{Error, Run};

/// What a stage took for some images.
#[derive(Clone, Debug)]
pub struct StageAlone {
    /// Its name in the flow.
    pub name: &'static str,
    /// The time of all of them.
    pub time: Duration,
    /// How many it took.
    pub images: u64,
}

impl Feed {
    /// The first images of an epoch of training as they are stored: up to so many, of so many bytes together, and one
    /// in any case.
    ///
    /// # Errors
    /// The first error of the run.
    pub async fn stored(
        &self,
        run: &Run,
        images_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Sample<Encoded>>, Error> {
        let windows = Arc::new(self.epoch(Pass::train(0))).windows(0, Rank::ALONE);
        let images = self.images(run, Split::Train, windows, self.window_groups());
        let take = move |chunks| {
            let mut bytes = 0;
            let fits = |sample: &Sample<Encoded>| {
                let is_first = bytes == 0;
                bytes += sample.payload.as_ref().map_or(0, |encoded| encoded.bytes.len());
                is_first || bytes <= bytes_max
            };
            Ok(Iterator::flatten(chunks).take(images_max).take_while(fits).collect())
        };
        images.drain("stored", take).await
    }

    /// Takes images through the stages of an epoch of training and batches of them through `collate`, one after the other, on
    /// this thread; as soon as `is_over` no
    /// further one. What cannot be read takes no time.
    pub fn alone(
        &self,
        stored: &[Sample<Encoded>],
        collate: impl Fn(Vec<Sample<Pixels>>),
        is_over: impl Fn() -> bool,
    ) -> Vec<StageAlone> {
        let scales = self.scales(true);
        let decode_seen = scales.decode_seen();
        let mut stages: Vec<StageAlone> = Vec::new();
        let mut batch: Vec<Sample<Pixels>> = Vec::new();
        for sample in stored {
            if is_over() {
                break;
            }
            let (id, copy, class) = (&sample.id, sample.copy, sample.label.as_class());
            let draws = self.seed.draws(id, copy, 0);
            let squared = sample.clone().map(|encoded| {
                let decode = || decode_seen.apply_to(encoded, class, &draws);
                let decoded = timed(&mut stages, DecodeSeen::NAME, 1, decode)?;
                scales.steps.iter().try_fold(decoded, |image, step| {
                    let (name, apply): (_, Box<dyn FnOnce() -> Result<Pixels, Fault>>) = match step {
                        Step::Resize(resize) => {
                            (Resize::NAME, Box::new(|| resize.apply_to(image, class, &draws)))
                        }
                        Step::Augment(augment) => {
                            (Augment::NAME, Box::new(|| augment.apply_to(image, class, &draws)))
                        }
                        Step::ByClass(by_class) => {
                            (Augment::NAME, Box::new(|| by_class.apply_to(image, class, &draws)))
                        }
                    };
                    timed(&mut stages, name, 1, apply)
                })
            });
            if squared.payload.is_ok() {
                batch.push(squared);
            }
            if batch.len() == self.batch_size {
                let full = std::mem::take(&mut batch);
                timed(&mut stages, "collate", full.len(), || collate(full));
            }
        }
        if !batch.is_empty() {
            timed(&mut stages, "collate", batch.len(), || collate(batch));
        }
        // A stage that an image meets twice is one, and takes it once.
        let images = stages.first().map_or(0, |decode| decode.images);
        stages.iter_mut().for_each(|stage| stage.images = stage.images.min(images));
        stages
    }
}

/// Adds what `work` on so many images takes to the stage of this name.
fn timed<R>(stages: &mut Vec<StageAlone>, name: &'static str, images: usize, work: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = work();
    let time = start.elapsed();
    match stages.iter_mut().find(|stage| stage.name == name) {
        Some(stage) => {
            stage.time += time;
            stage.images += images as u64;
        }
        None => stages.push(StageAlone { name, time, images: images as u64 }),
    }
    result
}
