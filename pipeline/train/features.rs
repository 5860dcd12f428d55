//! Features instead of images: where all but the head stays frozen, and nothing about an image is random, the frozen part
//! sees every image once, and each epoch, also of later runs, trains the head on what it made of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use forebay_datasets::sample::Split;
use forebay_datasets::store::Store;
use forebay_stages::collate::Batch;
use forebay_stages::group::next_batch;
use forebay_stages::train::{FeatureRows, StepReport, TrainError, Trainer};

use super::{Session, TrainPlan, first_batch, lock, train_error};
use crate::feed::Pass;
use crate::flow::{Error, Flow, Items, Run};
use crate::plan::store_error;

/// What a trainer learns from and is measured on: a batch of images, or of their features.
pub(super) trait Lesson: Send + Sync + 'static {
    fn labels(&self) -> &[u32];
    fn step(&self, trainer: &mut Trainer) -> Result<StepReport, TrainError>;
    fn logits(&self, trainer: &Trainer) -> Result<Vec<Vec<f32>>, TrainError>;
    /// The images, where they are there to be looked at.
    fn images(&self) -> Option<&Batch>;
}

impl Lesson for Batch {
    fn labels(&self) -> &[u32] {
        &self.labels
    }

    fn step(&self, trainer: &mut Trainer) -> Result<StepReport, TrainError> {
        trainer.step(self)
    }

    fn logits(&self, trainer: &Trainer) -> Result<Vec<Vec<f32>>, TrainError> {
        trainer.predict(self)
    }

    fn images(&self) -> Option<&Batch> {
        Some(self)
    }
}

/// A batch of features, for the parts of the network from `first` on.
pub(super) struct FeatureBatch {
    rows: FeatureRows,
    first: usize,
}

impl Lesson for FeatureBatch {
    fn labels(&self) -> &[u32] {
        &self.rows.labels
    }

    fn step(&self, trainer: &mut Trainer) -> Result<StepReport, TrainError> {
        trainer.step_on_features(&self.rows.values, self.first, &self.rows.labels)
    }

    fn logits(&self, trainer: &Trainer) -> Result<Vec<Vec<f32>>, TrainError> {
        trainer.predict_on_features(&self.rows.values, self.first, self.rows.labels.len())
    }

    fn images(&self) -> Option<&Batch> {
        None
    }
}

/// The features of every split.
pub(super) struct Features {
    splits: BTreeMap<Split, Arc<FeatureRows>>,
    first: usize,
    /// How long the frozen part took over the training images; `None` when an earlier run had done it.
    pub(super) seconds: Option<f64>,
}

impl Features {
    /// Reads the features from the cache, or computes them and puts them there. `None` where images are needed: more
    /// than the head is trained at some time, an image is augmented or mixed with others, or the features of all images
    /// need more memory than decoded images may take.
    pub(super) async fn of(
        run: &Run,
        plan: &Arc<TrainPlan>,
        session: &Arc<Mutex<Session>>,
    ) -> Result<Option<Arc<Features>>, Error> {
        let Some(place) = &plan.feature_cache else { return Ok(None) };
        let (first, prefix) = {
            let session = lock(session);
            let Some(first) = session.trainer.frozen_prefix() else { return Ok(None) };
            (
                first,
                session
                    .trainer
                    .prefix_bytes(first)
                    .map_err(|error| train_error("read the weights", error))?,
            )
        };
        if plan.feed.augment.is_some() || plan.options.mixing.is_some() {
            return Ok(None);
        }
        let mut name = blake3::Hasher::new();
        name.update(plan.data_identity.as_bytes()).update(plan.options.model.as_bytes()).update(&prefix);
        let name = name.finalize().to_hex();
        let store = Store::open(place, &Default::default()).map_err(store_error)?;
        let (mut splits, mut seconds, mut bytes) = (BTreeMap::new(), None, 0);
        for split in Split::ALL.into_iter().filter(|split| plan.feed.rows(*split) > 0) {
            let key = format!("{}-{split}.safetensors", &name.as_str()[..32]);
            let kept = match store.size(&key).await.map_err(store_error)? {
                Some(_) => FeatureRows::from_bytes(&store.get(&key).await.map_err(store_error)?),
                None => None,
            };
            let rows = match kept {
                Some(rows) => rows,
                None => {
                    let start = Instant::now();
                    let rows = compute(run, plan, session, split, first).await?;
                    if split == Split::Train {
                        seconds = Some(start.elapsed().as_secs_f64());
                    }
                    let bytes = rows.to_bytes().map_err(|error| train_error("write the features", error))?;
                    store.put(&key, bytes.into()).await.map_err(store_error)?;
                    rows
                }
            };
            bytes += rows.values.len() as u64 * 4;
            splits.insert(split, Arc::new(rows));
        }
        if bytes > plan.feed.rooms.memory_bytes {
            tracing::info!(bytes, "the features do not fit in --memory; images are used");
            return Ok(None);
        }
        Ok(Some(Arc::new(Features { splits, first, seconds })))
    }

    /// The rows of a split.
    pub(super) fn rows(&self, split: Split) -> u64 {
        self.splits.get(&split).map_or(0, |rows| rows.labels.len() as u64)
    }

    /// The batches of a pass after the first `skip` samples of its order, which for training is a permutation of its own
    /// per epoch; with each comes how many samples are used up.
    pub(super) fn batches(
        &self,
        run: &Run,
        plan: &TrainPlan,
        pass: Pass,
        skip: u64,
    ) -> Flow<(FeatureBatch, u64)> {
        let (split, epoch) = match pass {
            Pass::Train(epoch) => (Split::Train, Some(epoch)),
            Pass::Evaluate(split) => (split, None),
        };
        let rows = self.splits.get(&split).cloned().unwrap_or_default();
        let mut order: Vec<usize> = (0..rows.labels.len()).collect();
        if let Some(epoch) = epoch {
            plan.feed.seed.stream(&format!("features/{epoch}")).shuffle(&mut order);
        }
        let (size, first) = (plan.feed.batch_size as u64, self.first);
        let mut used = skip;
        let batches = std::iter::from_fn(move || {
            let start = used as usize;
            used += next_batch(order.len() as u64 - used, size);
            let taken = &order[start..used as usize];
            (!taken.is_empty()).then(|| (FeatureBatch { rows: rows.select(taken), first }, used))
        });
        run.source("features", batches)
    }
}

async fn compute(
    run: &Run,
    plan: &Arc<TrainPlan>,
    session: &Arc<Mutex<Session>>,
    split: Split,
    first: usize,
) -> Result<FeatureRows, Error> {
    let (pool, plan_here, session) = (run.clone(), plan.clone(), session.clone());
    let consume = move |batches: Items<Batch>| {
        let mut session = lock(&session);
        let session = &mut *session;
        let mut rows = FeatureRows::default();
        for batch in batches {
            if split == Split::Train && rows.labels.is_empty() {
                for line in first_batch(&pool, &plan_here, session, &batch)? {
                    eprintln!("warning: {line}");
                }
            }
            let values = pool.install(|| session.trainer.features(&batch, first));
            rows.values.extend(values.map_err(|error| train_error("compute features", error))?);
            rows.labels.extend(&batch.labels);
        }
        Ok(rows)
    };
    let pass = if split == Split::Train { Pass::Train(0) } else { Pass::Evaluate(split) };
    plan.feed.batches(run, pass).drain("compute features", consume).await
}
