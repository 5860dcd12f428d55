//! What the features of a run are a function of: by what their files are found, and taken by another run.

use std::sync::Mutex;

use forebay_datasets::sample::Split;
use forebay_train::DeviceKind;

use super::cache;
use crate::flow::Error;
use crate::plan::Digest;
use crate::train::error::train_error;
use crate::train::plan::TrainPlan;
use crate::train::session::{Session, lock};

/// The name of the folder of features: a hash of all that those of an image are a function of.
fn images_name(plan: &TrainPlan, session: &Mutex<Session>, first: usize) -> Result<String, Error> {
    let prefix = lock(session).trainer.prefix_bytes(first);
    let prefix = prefix.map_err(|error| train_error("read the weights", error))?;
    // Devices and precisions round differently.
    let device = match plan.options.device {
        DeviceKind::Cpu => "cpu",
        DeviceKind::Cuda(_) => "cuda",
    };
    let how = format!("features {} {device} {:?} ", cache::FORMAT, plan.options.precision);
    let mut name = Digest::default();
    for field in [how.as_bytes(), plan.images_identity.as_bytes(), plan.options.model.as_bytes(), &prefix] {
        name.field_of(field);
    }
    Ok(name.hex()[..32].to_string())
}

/// What the features of a run are, so that another one can take them as they are in memory.
#[derive(Clone, PartialEq)]
pub(super) struct FeaturesIdentity {
    /// The name of the folder.
    pub(super) images: String,
    /// Of each split that is there.
    rows: Vec<(Split, String)>,
    views: u32,
    /// Whether validation images are rows of the training split.
    pub(super) shares_rows: bool,
}

impl FeaturesIdentity {
    pub(super) fn of(
        plan: &TrainPlan,
        session: &Mutex<Session>,
        (first, views): (usize, u32),
        splits: &[Split],
    ) -> Result<FeaturesIdentity, Error> {
        let there = splits.iter().filter(|split| plan.feed.rows(**split) > 0);
        Ok(FeaturesIdentity {
            images: images_name(plan, session, first)?,
            rows: there.map(|split| (*split, rows_identity(plan, *split))).collect(),
            views,
            shares_rows: shares_rows(plan),
        })
    }
}

/// Whether validation images are rows of the training split as it is: those that a fold holds out.
fn shares_rows(plan: &TrainPlan) -> bool {
    plan.feed.fold().is_some() && plan.feed.augment.is_none()
}

/// Which rows a split has, in their order: what its features are of, whatever a run makes of them afterwards.
pub(super) fn rows_identity(plan: &TrainPlan, split: Split) -> String {
    let (mut rows, split) = (Digest::default(), plan.feed.split_of_source(split));
    match plan.feed.source.known_rows(split) {
        Some(known) => known.iter().for_each(|row| {
            rows.field(&row.id);
            rows.field(&format!("{} {}", row.copy, row.label));
        }),
        None => rows.field(&plan.feed.source.fingerprint()),
    }
    rows.hex()
}
