//! Pixels for reports: thumbnails of the images that a page wants, and augmented examples as training sees them.

use std::collections::BTreeSet;

use forebay_datasets::sample::Split;
use forebay_stages::collate::Batch;
use forebay_train::metrics::{Evaluation, LabelErrors, Scored};

use super::run_folder::files;
use crate::feed::{Feed, Pass, PassBatch};
use crate::flow::{Error, Items, Run};
use crate::plan::fixes;
use crate::report::html::{self, AugmentedExample, Gallery, ScoredAnswers, thumbnail_of_planes};

/// Images of a page that are shown augmented.
const EXAMPLES: usize = 6;

/// Epochs whose views of them are shown.
const VIEWS: u32 = 4;

/// What a report has of the images that a model was scored on.
pub struct Shown {
    /// The labels that look wrong.
    pub errors: LabelErrors,
    /// Thumbnails, as far as there is room for them.
    pub gallery: Gallery,
    /// What goes beside the page: `fixes.csv` and the plots.
    pub files: Vec<(&'static str, Vec<u8>)>,
}

/// Looks for wrong labels among scored images, draws the plots of their evaluation, and reads the splits of these passes again
/// for the images that a page of `budget_bytes` wants to show.
///
/// # Errors
/// The first error of the run.
pub async fn show(
    run: &Run,
    (feed, passes): (&Feed, &[Pass]),
    (scored, evaluation): (&Scored, &Evaluation),
    budget_bytes: u64,
) -> Result<Shown, Error> {
    let errors = run.install(|| LabelErrors::of(scored, evaluation.temperature));
    let errors = errors.map_err(|error| Error::failed("look for wrong labels", error))?;
    let mut files = vec![(files::FIXES, fixes::to_csv(&errors))];
    files.extend(html::evaluation_plots(evaluation).map(|(name, svg)| (name, svg.into_bytes())));
    let answers = ScoredAnswers::of(scored, &errors.suspects, evaluation.temperature);
    let gallery = fill(run, feed, passes, Gallery::wanted(&answers, budget_bytes)).await?;
    Ok(Shown { errors, gallery, files })
}

/// Reads the splits of these passes, until a gallery has every image that it wants or there is no other.
async fn fill(run: &Run, feed: &Feed, passes: &[Pass], mut gallery: Gallery) -> Result<Gallery, Error> {
    for pass in passes {
        if gallery.is_complete() {
            break;
        }
        let consume = move |batches: Items<PassBatch<Batch>>| {
            for PassBatch { batch, .. } in batches {
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
