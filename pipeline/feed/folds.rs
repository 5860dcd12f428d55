//! A fold of a cross-validation: of what is not for the test, a part is held out as its validation images.
//!
//! The rows of a fold are masks over the same rows, in their own order, for all folds: so what a cache holds of them (the
//! features of frozen layers) serves every fold.

use std::collections::HashMap;
use std::sync::Arc;

use forebay_datasets::folds::{Fold, deal};
use forebay_datasets::manifest::Manifest;
use forebay_datasets::order::PlannedRows;
use forebay_datasets::sample::{Encoded, Fault, Label, Sample, SampleId, Split};
use forebay_datasets::seed::Seed;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Feed;
use super::source::{Reading, Source};
use crate::flow::{Chunk, Error, Flow, Run};
use crate::plan::{PlannedNode, Rooms, ShorterSides};

/// Which rows of the training split of a [`Pooled`] source are held out.
#[derive(Clone)]
pub(super) struct HeldOut {
    fold: Fold,
    rows: Arc<[bool]>,
}

/// The splits that folds are dealt from.
const POOL: [Split; 2] = [Split::Train, Split::Validation];

/// A source whose validation images are training images, at their end.
struct Pooled(Arc<dyn Source>);

impl Source for Pooled {
    fn classes(&self) -> &[String] {
        self.0.classes()
    }

    fn groups(&self, split: Split) -> Vec<usize> {
        splits(split).iter().flat_map(|split| self.0.groups(*split)).collect()
    }

    fn labels(&self, split: Split) -> BoxFuture<'_, Result<Vec<(SampleId, Label)>, Error>> {
        async move {
            let mut labels = Vec::new();
            for split in splits(split) {
                labels.extend(self.0.labels(*split).await?);
            }
            Ok(labels)
        }
        .boxed()
    }

    fn groups_of_samples(&self) -> BoxFuture<'_, Result<HashMap<SampleId, SampleId>, Error>> {
        self.0.groups_of_samples()
    }

    fn known_rows(&self, split: Split) -> Option<Vec<Sample<()>>> {
        let mut rows = Vec::new();
        for split in splits(split) {
            rows.extend(self.0.known_rows(*split)?);
        }
        Some(rows)
    }

    fn rejects(&self) -> &[(SampleId, Fault)] {
        self.0.rejects()
    }

    fn shorter_sides(&self) -> BoxFuture<'_, Result<ShorterSides, Error>> {
        self.0.shorter_sides()
    }

    fn images(self: Arc<Self>, run: &Run, reading: Reading) -> Flow<Chunk<Encoded>> {
        let splits = reading.splits.iter().flat_map(|split| splits(*split).iter().copied()).collect();
        self.0.clone().images(run, Reading { splits, ..reading })
    }

    fn nodes(&self, rooms: Rooms, window_groups: usize) -> Vec<PlannedNode> {
        self.0.nodes(rooms, window_groups)
    }

    fn memory(&self, rooms: Rooms, window_groups: usize, per_row: f64) -> Vec<(&'static str, u64)> {
        self.0.memory(rooms, window_groups, per_row)
    }

    fn mean_bytes(&self) -> u64 {
        self.0.mean_bytes()
    }

    fn bytes_read(&self) -> u64 {
        self.0.bytes_read()
    }

    fn chunk(&self) -> usize {
        self.0.chunk()
    }

    fn manifest(&self) -> Option<&Manifest> {
        self.0.manifest()
    }

    fn fingerprint(&self) -> String {
        format!("{}, training and validation images in one", self.0.fingerprint())
    }

    fn samples_fingerprint(&self) -> String {
        self.0.samples_fingerprint()
    }

    fn images_identity(&self) -> serde_json::Value {
        self.0.images_identity()
    }

    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn declares_splits(&self) -> bool {
        self.0.declares_splits()
    }

    fn description(&self) -> String {
        self.0.description()
    }
}

/// The splits of the source within that a split of the pooled one has.
fn splits(split: Split) -> &'static [Split] {
    match split {
        Split::Train => &POOL,
        Split::Validation => &[],
        Split::Test => &[Split::Test],
    }
}

impl Feed {
    /// The same feed with the rows of a fold: training and validation images are pooled and dealt anew, and test images stay
    /// what they are. A balance comes after it.
    ///
    /// # Errors
    /// [`Error::Usage`] when a class has fewer images than there are folds; others when the labels cannot be read.
    pub(super) async fn of_fold(self, fold: Fold, seed: Seed) -> Result<Feed, Error> {
        let source: Arc<dyn Source> = Arc::new(Pooled(self.source.clone()));
        let mut rows = source.labels(Split::Train).await?;
        let groups = source.groups_of_samples().await?;
        for (id, _) in &mut rows {
            if let Some(group) = groups.get(id) {
                *id = group.clone();
            }
        }
        let dealt = deal(&rows, fold.folds(), seed).map_err(|few| {
            let class = |few: &forebay_datasets::folds::TooFew| {
                format!("{} ({})", source.classes()[few.label as usize], few.groups)
            };
            Error::Usage(format!(
                "split.folds: {} folds, and fewer images than that for training of {}, what belongs together counted once: give fewer \
                 --folds, or more images of them",
                fold.folds(),
                few.iter().map(class).collect::<Vec<_>>().join(", ")
            ))
        })?;
        let held: Arc<[bool]> = dealt.into_iter().map(|number| number == fold.index()).collect();
        let groups = source.groups(Split::Train);
        let of = |wanted: bool| {
            let copies = held.iter().map(|is_held| u32::from(*is_held == wanted)).collect();
            PlannedRows::new(groups.clone()).with_copies(copies)
        };
        let test = self.planned(Split::Test).clone();
        let planned = [of(false), of(true), test];
        Ok(Feed { source, planned, held_out: Some(HeldOut { fold, rows: held }), ..self })
    }

    /// The fold that this is; `None` where nothing is folded.
    pub fn fold(&self) -> Option<Fold> {
        self.held_out.as_ref().map(|held| held.fold)
    }

    /// Whether a row of the source's training split is one that is trained on.
    pub(super) fn trains_on(&self, row: usize) -> bool {
        self.held_out.as_ref().is_none_or(|held| !held.rows[row])
    }

    /// The split of the source that has the rows of a split: what a fold holds out is among its training rows.
    pub(crate) fn split_of_source(&self, split: Split) -> Split {
        match split {
            Split::Validation if self.held_out.is_some() => Split::Train,
            split => split,
        }
    }

    /// The rows of a split that an evaluation sees, each once.
    pub(super) fn evaluated(&self, split: Split) -> PlannedRows {
        match (&self.held_out, split) {
            (Some(held), Split::Train) => {
                let copies = held.rows.iter().map(|is_held| u32::from(!is_held)).collect();
                self.planned(Split::Train).once().with_copies(copies)
            }
            (Some(_), Split::Validation) => self.planned(Split::Validation).clone(),
            _ => self.planned(split).once(),
        }
    }
}
