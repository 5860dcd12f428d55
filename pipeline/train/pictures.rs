//! Pixels for reports: thumbnails of the images that a page wants, and augmented examples as training sees them.

use std::collections::BTreeSet;

use forebay_datasets::sample::Split;

use crate::feed::{Feed, Pass};
use crate::flow::{Error, Run};
use crate::report::html::{AugmentedExample, Gallery, thumbnail_of_planes};

/// Images of a page that are shown augmented.
const EXAMPLES: usize = 6;

/// Epochs whose views of them are shown.
const VIEWS: u32 = 4;

/// Reads the splits of these passes again, until a gallery has every image that it wants or there is no other.
///
/// # Errors
/// The first error of the run.
pub async fn fill(run: &Run, feed: &Feed, passes: &[Pass], mut gallery: Gallery) -> Result<Gallery, Error> {
    for pass in passes {
        if gallery.is_complete() {
            break;
        }
        let consume = move |batches: crate::flow::Items<crate::feed::PassBatch<_>>| {
            let mut gallery: Gallery = gallery;
            for crate::feed::PassBatch { batch, .. } in batches {
                let batch: forebay_stages::collate::Batch = batch;
                let image = 3 * batch.side as usize * batch.side as usize;
                for (id, planes) in batch.ids.iter().zip(batch.images.chunks(image)) {
                    if gallery.wants(id) {
                        gallery.add_planes(id.clone(), planes, batch.side);
                    }
                }
                if gallery.is_complete() {
                    break;
                }
            }
            Ok(gallery)
        };
        gallery = feed.batches(run, *pass).drain("thumbnails", consume).await?;
    }
    Ok(gallery)
}

/// The first training images of some classes as they are evaluated, and as the first epochs see them; none where training
/// changes nothing.
///
/// # Errors
/// The first error of the run.
pub(super) async fn examples(run: &Run, feed: &Feed) -> Result<Vec<AugmentedExample>, Error> {
    if feed.augment.is_none() || feed.rows(Split::Train) == 0 {
        return Ok(Vec::new());
    }
    let mut examples: Vec<AugmentedExample> = Vec::new();
    for view in std::iter::once(None).chain((0..VIEWS).map(Some)) {
        let group = feed.groups(run, Split::Train, vec![0], view).collect().await?;
        for (_, batch) in group {
            if view.is_none() {
                // Images of several classes first, and then any others.
                let mut seen = BTreeSet::new();
                let (mut rows, others): (Vec<usize>, Vec<usize>) =
                    (0..batch.len()).partition(|row| seen.insert(batch.labels[*row]));
                rows.extend(others);
                for row in rows.into_iter().take(EXAMPLES) {
                    examples.push(AugmentedExample {
                        id: batch.ids[row].to_string(),
                        class: feed.classes()[batch.labels[row] as usize].clone(),
                        views: Vec::new(),
                    });
                }
            }
            let image = 3 * batch.side as usize * batch.side as usize;
            for example in &mut examples {
                let row = batch.ids.iter().position(|id| **id == *example.id);
                let jpeg = row
                    .and_then(|row| thumbnail_of_planes(&batch.images[row * image..][..image], batch.side));
                example.views.extend(jpeg);
            }
        }
    }
    Ok(examples)
}
