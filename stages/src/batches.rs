//! Images become batches while they come, so that each goes from the cache of the core that made it, and none waits for the others.

use std::collections::VecDeque;

use forebay_datasets::sample::{Pixels, Sample};

use crate::collate::{Batch, Collate, Filling, Value};
use crate::stage::Gather;

/// Cuts the stream into batches where the plan does: each leaves when all of its samples have come, as pixels or as tombstones, with
/// the value that the plan gave it. Tombstones are left out. A batch of which samples are missing at the end of the stream is thrown
/// away, so that an interrupted run gives no part of one.
pub struct Batches<K, T: Value = u8> {
    plan: VecDeque<(K, usize)>,
    collate: Collate<T>,
    /// What has come and is in no batch.
    held: VecDeque<Sample<Pixels>>,
    /// The first batch of the plan, where it is begun.
    begun: Option<Begun<T>>,
}

/// A batch of which so many samples have come, tombstones too.
struct Begun<T> {
    filling: Filling<T>,
    came: usize,
}

impl<K, T: Value> Batches<K, T> {
    /// Batches of so many samples each, in the order of the stream.
    pub fn new(plan: impl IntoIterator<Item = (K, usize)>, collate: Collate<T>) -> Batches<K, T> {
        Batches { plan: plan.into_iter().collect(), collate, held: VecDeque::new(), begun: None }
    }
}

impl<K: Send + 'static, T: Value> Gather for Batches<K, T> {
    const NAME: &'static str = "collate";
    type In = Vec<Sample<Pixels>>;
    type Out = (K, Batch<T>);

    fn take(&mut self, chunk: Vec<Sample<Pixels>>) {
        self.held.extend(chunk);
    }

    /// # Panics
    /// When an image is not of the side: the transform before this stage makes them so. When more samples come than are planned.
    fn fill(&mut self) -> Option<(K, Batch<T>)> {
        let Batches { plan, collate, held, begun } = self;
        let Some((_, size)) = plan.front() else {
            assert!(held.is_empty(), "{} samples are in no planned batch", held.len());
            return None;
        };
        if held.is_empty() && *size > 0 {
            return None;
        }
        let batch = begun.get_or_insert_with(|| Begun { filling: collate.begin(*size), came: 0 });
        let here = held.len().min(size - batch.came);
        batch.came += here;
        collate.add(&mut batch.filling, held.drain(..here));
        if batch.came < *size {
            return None;
        }
        let (key, _) = plan.pop_front().expect("it was looked at");
        Some((key, collate.end(begun.take().expect("it was begun").filling)))
    }

    fn is_idle(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use forebay_datasets::sample::Label;

    use super::*;
    use crate::stage::Fault;

    fn samples(range: std::ops::Range<u8>, bad: &[u8]) -> Vec<Sample<Pixels>> {
        let payload = |i| match bad.contains(&i) {
            true => Err(Fault::new("decode", "bad")),
            false => Ok(Pixels::new(1, 1, vec![i; 3])),
        };
        let sample =
            |i: u8| Sample { id: format!("{i}").into(), copy: 0, label: i.into(), payload: payload(i) };
        range.map(sample).collect()
    }

    #[test]
    fn a_batch_leaves_when_its_last_sample_or_tombstone_has_come() {
        let mut batches = Batches::new([("a", 3), ("b", 2), ("c", 0), ("d", 4)], Collate::levels(1));
        assert!(batches.fill().is_none());
        let mut found = Vec::new();
        for chunk in [samples(0..2, &[1]), samples(2..6, &[]), samples(6..7, &[])] {
            batches.take(chunk);
            while let Some((key, batch)) = batches.fill() {
                let ids: Vec<String> = batch.ids.iter().map(|id| id.to_string()).collect();
                assert!(batch.labels.iter().map(Label::to_string).eq(ids.iter().cloned()));
                assert!(batch.images.chunks(3).zip(&ids).all(|(image, id)| image[0].to_string() == *id));
                assert_eq!(batch.len(), ids.len());
                found.push((key, ids.join(" ")));
            }
        }
        assert_eq!(found, [("a", "0 2".to_string()), ("b", "3 4".into()), ("c", String::new())]);
        assert!(batches.is_idle(), "what has come of the last batch is in it");
    }

    #[test]
    fn no_batch_is_begun_before_it_is_asked_for() {
        let mut batches = Batches::new([((), 2), ((), 2)], Collate::levels(1));
        batches.take(samples(0..3, &[]));
        assert!(batches.fill().is_some());
        assert!(batches.begun.is_none() && !batches.is_idle());
    }

    #[test]
    #[should_panic(expected = "2 samples are in no planned batch")]
    fn more_samples_than_are_planned_are_no_silence() {
        let mut batches = Batches::new([((), 2)], Collate::levels(1));
        batches.take(samples(0..4, &[]));
        assert!(batches.fill().is_some());
        batches.fill();
    }
}
