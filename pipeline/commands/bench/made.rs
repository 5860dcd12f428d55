//! What the batches are that a bench takes.

use forebay_datasets::order::Rank;
use forebay_datasets::sample::{Pixels, Sample};
use forebay_stages::collate::{Batch, Collate, Dtype, Value, bf16, f16};

use crate::feed::{Feed, Pass, PassBatch};
use crate::flow::{Error, Items, Run};

/// What makes batches of values of a type.
#[derive(Clone)]
pub enum BatchMaker {
    /// Grey levels.
    U8(Collate),
    /// Normalised.
    F32(Collate<f32>),
    /// Normalised.
    F16(Collate<f16>),
    /// Normalised.
    Bf16(Collate<bf16>),
}

/// Counts the images of batches, whatever their values are.
pub trait Taker: Send + 'static {
    /// Takes the batches of an epoch, as many as are wanted.
    fn take<T: Value>(self, items: Items<PassBatch<Batch<T>>>) -> Self;
}

impl BatchMaker {
    /// Batches of a feed; numbers are normalised as its chain says, or as most networks want them.
    pub fn of(feed: &Feed) -> BatchMaker {
        let (side, normalize) = (feed.side, feed.chain.normalize().unwrap_or_default());
        match feed.dtype {
            Dtype::U8 => BatchMaker::U8(Collate::levels(side)),
            Dtype::F32 => BatchMaker::F32(Collate::normalized(side, &normalize)),
            Dtype::F16 => BatchMaker::F16(Collate::normalized(side, &normalize)),
            Dtype::Bf16 => BatchMaker::Bf16(Collate::normalized(side, &normalize)),
        }
    }

    /// Makes a batch, and lets it go.
    pub fn batch(&self, samples: Vec<Sample<Pixels>>) {
        match self {
            BatchMaker::U8(collate) => drop(collate.batch(samples)),
            BatchMaker::F32(collate) => drop(collate.batch(samples)),
            BatchMaker::F16(collate) => drop(collate.batch(samples)),
            BatchMaker::Bf16(collate) => drop(collate.batch(samples)),
        }
    }

    /// Gives the batches of a pass to a taker.
    ///
    /// # Errors
    /// The first error of the run.
    pub async fn drain<K: Taker>(&self, run: &Run, feed: &Feed, pass: Pass, taker: K) -> Result<K, Error> {
        async fn all<T: Value, K: Taker>(
            run: &Run,
            feed: &Feed,
            pass: Pass,
            taker: K,
            collate: &Collate<T>,
        ) -> Result<K, Error> {
            let batches = feed.batches_by(run, pass, 0, Rank::ALONE, collate.clone());
            batches.drain("count", |items| Ok(taker.take(items))).await
        }
        match self {
            BatchMaker::U8(collate) => all(run, feed, pass, taker, collate).await,
            BatchMaker::F32(collate) => all(run, feed, pass, taker, collate).await,
            BatchMaker::F16(collate) => all(run, feed, pass, taker, collate).await,
            BatchMaker::Bf16(collate) => all(run, feed, pass, taker, collate).await,
        }
    }
}
