//! The features of the training images as training takes them where some are made and some left out.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use forebay_datasets::sample::{SampleId, Split};
use forebay_train::sampling::{Clean, FeatureRows, oversample};

use super::Features;
use crate::feed::PassBatch;
use crate::flow::{Error, Flow, Room, Run};
use crate::report::note;
use crate::train::input::FeatureBatch;
use crate::train::plan::TrainPlan;
use crate::train::resampling::Resampling;

/// Features of training images, and those that were made of them.
pub(super) struct ResampledRows {
    /// `[rows, width]`.
    values: Vec<f32>,
    labels: Vec<u32>,
    how: Resampling,
}

impl ResampledRows {
    /// Makes and leaves out what the plan asks for, and says what came of it.
    pub(super) async fn of(run: &Run, plan: &TrainPlan, features: &Features) -> Result<ResampledRows, Error> {
        let how = plan.resampling.clone().expect("the plan asks for it");
        let width = features.shape.iter().product::<usize>();
        let (mut values, mut labels) = (Vec::new(), Vec::new());
        let planned = plan.feed.planned(Split::Train);
        for (group, of_group) in (0..).zip(&features.groups[&(Split::Train, 0)]) {
            let found = of_group.values(&features.store).await?;
            for (place, row) in planned.rows_of(group).zip(&of_group.rows) {
                // What a fold holds out is among its training rows, and has no copy.
                if let Ok(number) = row.payload
                    && planned.copies(place) > 0
                {
                    values.extend_from_slice(&found[number * width..(number + 1) * width]);
                    labels.push(row.label);
                }
            }
        }
        let (n, clean) = (labels.len(), how.clean);
        let resampled =
            run.install(|| ResampledRows { values, labels, how }.resample(&plan.options.classes, width));
        if n > 1 && resampled.labels.len() < 2 {
            return Err(Error::NothingLeft(format!(
                "--clean {clean} leaves out all but {} of the features, so that nothing is left to train on: leave it out",
                resampled.labels.len()
            )));
        }
        Ok(resampled)
    }

    fn resample(mut self, classes: &[String], width: usize) -> ResampledRows {
        let named = |labels: &[u32]| {
            labels.iter().map(|label| classes[*label as usize].as_str()).collect::<Vec<_>>().join(", ")
        };
        let n_found = self.labels.len();
        if let Some(method) = self.how.oversampling {
            let rows = FeatureRows { values: &self.values, width };
            let targets: Vec<usize> = self.how.targets.iter().map(|target| *target as usize).collect();
            let made = oversample(rows, &self.labels, &targets, method, self.how.seed);
            let new: Vec<f32> = made.rows.iter().flat_map(|row| row.features(rows)).collect();
            let of_new: Vec<u32> = made.rows.iter().map(|row| self.labels[row.base as usize]).collect();
            note(&format!(
                "{} features are made of those of {n_found} training images: features and not images, since what lies \
                 between two photographs is none",
                of_new.len()
            ));
            if !made.repeated.is_empty() {
                note(&format!("of one image only, so that it is repeated: {}", named(&made.repeated)));
            }
            if !made.unthreatened.is_empty() {
                note(&format!(
                    "no image near other classes, so that features are made of all: {}",
                    named(&made.unthreatened)
                ));
            }
            self.values.extend(new);
            self.labels.extend(of_new);
        }
        if self.how.clean != Clean::None {
            let n_before = self.labels.len();
            let cleans = self.cleaned_classes(classes.len());
            let rows = FeatureRows { values: &self.values, width };
            let keeps = self.how.clean.keeps(rows, &self.labels, &cleans);
            let kept = (0..).zip(&keeps).filter(|(_, keeps)| **keeps).map(|(row, _)| row);
            self.values = kept.flat_map(|row| rows.row(row).iter().copied()).collect();
            let mut keeps = keeps.into_iter();
            self.labels.retain(|_| keeps.next() == Some(true));
            note(&format!(
                "{} of {n_before} features are left out by --clean {}",
                n_before - self.labels.len(),
                self.how.clean
            ));
        }
        self
    }

    /// Of which classes rows may go: of all where rare ones were filled up, as imbalanced-learn combines both, and else not of
    /// the smallest.
    fn cleaned_classes(&self, classes: usize) -> Vec<bool> {
        let counts = self.counts(classes);
        let least = counts.iter().copied().filter(|count| *count > 0.0).fold(f64::INFINITY, f64::min);
        let smallest = counts.iter().position(|count| *count == least);
        (0..classes).map(|class| self.how.oversampling.is_some() || Some(class) != smallest).collect()
    }

    /// Rows of each class.
    pub(super) fn counts(&self, classes: usize) -> Vec<f64> {
        let mut counts = vec![0.0; classes];
        self.labels.iter().for_each(|label| counts[*label as usize] += 1.0);
        counts
    }

    /// The batches of an epoch after its first `done`.
    pub(super) fn batches(
        self: &Arc<ResampledRows>,
        run: &Run,
        (shape, first): (Arc<[usize]>, usize),
        (epoch, done): (u32, u64),
    ) -> Flow<PassBatch<FeatureBatch>> {
        let here = self.clone();
        let width = shape.iter().product::<usize>();
        let id: SampleId = "resampled".into();
        run.source("features", self.how.batches(self.labels.len(), epoch, done)).compute(
            "collate",
            Room { slots: 2, queue: 2 },
            move |(index, rows): (u64, Vec<usize>)| {
                let planned = rows.len();
                let there = || rows.iter().copied().filter(|row| *row < here.labels.len());
                let numbers: Vec<f32> = there()
                    .flat_map(|row| here.values[row * width..(row + 1) * width].iter().copied())
                    .collect();
                let labels: Vec<u32> = there().map(|row| here.labels[row]).collect();
                let shape = [&[labels.len()], &*shape].concat();
                let features = Tensor::from_vec(numbers, shape, &Device::Cpu);
                let features = features.map_err(|error| Error::failed("collate features", error))?;
                let ids = vec![id.clone(); labels.len()];
                let batch = FeatureBatch { features, labels, ids, first, is_lost: false };
                Ok(PassBatch { index, planned, batch })
            },
        )
    }
}
