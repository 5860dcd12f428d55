//! Samples become planned groups (the rows of a shard) or batches of survivors.

use std::collections::VecDeque;

use forebay_datasets::sample::Sample;

use crate::stage::Regroup;

/// Cuts the stream where the plan does: each planned group leaves when every one of its samples has arrived, as
/// payload or as tombstone, together with the value that the plan gave it. An interrupted run therefore never
/// emits a part of one.
#[derive(Debug)]
pub struct Group<K, P> {
    plan: VecDeque<(K, usize)>,
    held: Vec<Sample<P>>,
}

impl<K, P> Group<K, P> {
    /// Groups of these sizes, in the order of the stream. A size of 0 leaves with the group before it.
    pub fn new(plan: impl IntoIterator<Item = (K, usize)>) -> Group<K, P> {
        Group { plan: plan.into_iter().collect(), held: Vec::new() }
    }
}

impl<K: Send + 'static, P: Send + 'static> Regroup for Group<K, P> {
    const NAME: &'static str = "group";
    type In = Vec<Sample<P>>;
    type Out = (K, Vec<Sample<P>>);

    fn push(&mut self, chunk: Vec<Sample<P>>, out: &mut Vec<Self::Out>) {
        self.held.extend(chunk);
        while self.plan.front().is_some_and(|(_, size)| self.held.len() >= *size) {
            let (key, size) = self.plan.pop_front().expect("it was looked at");
            let rest = self.held.split_off(size);
            out.push((key, std::mem::replace(&mut self.held, rest)));
        }
    }
}

/// Collects survivors into batches of `size`; tombstones end here. The last batch may be smaller. With each batch
/// comes how many samples of the stream, tombstones among them, went by up to its last one: a stream cut there
/// gives the rest of the batches.
#[derive(Debug)]
pub struct Batches<P> {
    size: usize,
    /// Each with `passed` as it was at that sample.
    held: Vec<(Sample<P>, u64)>,
    passed: u64,
}

/// How many samples the next batch takes of `left`, where batches hold `size`: the last one is smaller, but never a
/// single sample, which batch normalisation could not normalise; such a one goes into the batch before.
///
/// # Panics
/// When `size` is 0.
pub fn next_batch(left: u64, size: u64) -> u64 {
    assert!(size > 0, "a batch holds a sample");
    if size > 1 && left == size + 1 { left } else { left.min(size) }
}

/// How many batches that makes of `samples`.
pub fn count_batches(samples: u64, size: u64) -> u64 {
    let tail = u64::from(size > 1 && samples > size && samples % size == 1);
    samples.div_ceil(size) - tail
}

impl<P> Batches<P> {
    /// Batches of `size` samples, at least 1, of a stream of which `passed` samples went by before.
    pub fn new(size: usize, passed: u64) -> Batches<P> {
        Batches { size: size.max(1), held: Vec::new(), passed }
    }

    /// The first `count` held samples, and what had passed with the last of them; `None` of none.
    fn take(&mut self, count: usize) -> Option<(Vec<Sample<P>>, u64)> {
        let passed = self.held.get(count.checked_sub(1)?)?.1;
        Some((self.held.drain(..count).map(|(sample, _)| sample).collect(), passed))
    }
}

impl<P: Send + 'static> Regroup for Batches<P> {
    const NAME: &'static str = "batch";
    type In = Vec<Sample<P>>;
    type Out = (Vec<Sample<P>>, u64);

    fn push(&mut self, chunk: Vec<Sample<P>>, out: &mut Vec<Self::Out>) {
        for sample in chunk {
            self.passed += 1;
            if sample.payload.is_err() {
                continue;
            }
            self.held.push((sample, self.passed));
            // Two more than a batch are enough to know that no single one will be left.
            if self.size == 1 || self.held.len() == self.size + 2 {
                out.extend(self.take(self.size));
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<Self::Out>) {
        while let Some(batch) = self.take(next_batch(self.held.len() as u64, self.size as u64) as usize) {
            out.push(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Fault;

    fn samples(range: std::ops::Range<u32>, bad: &[u32]) -> Vec<Sample<u32>> {
        let payload = |i| if bad.contains(&i) { Err(Fault::new("decode", "bad")) } else { Ok(i) };
        range.map(|i| Sample { id: format!("{i}").into(), copy: 0, label: 0, payload: payload(i) }).collect()
    }

    fn push_all<R: Regroup>(regroup: &mut R, chunks: Vec<R::In>) -> Vec<R::Out> {
        let mut out = Vec::new();
        for chunk in chunks {
            regroup.push(chunk, &mut out);
        }
        out
    }

    #[test]
    fn a_group_leaves_when_its_last_sample_or_tombstone_has_arrived() {
        let mut group = Group::new([("a", 3), ("b", 2), ("c", 4)]);
        let out = push_all(&mut group, vec![samples(0..2, &[1]), samples(2..6, &[]), samples(6..7, &[])]);
        let shapes: Vec<(&str, Vec<String>)> =
            out.iter().map(|(k, s)| (*k, s.iter().map(|s| s.id.to_string()).collect())).collect();
        let ids = |ids: &[&str]| ids.iter().map(|id| id.to_string()).collect::<Vec<_>>();
        assert_eq!(shapes, [("a", ids(&["0", "1", "2"])), ("b", ids(&["3", "4"]))]);
        let mut rest = Vec::new();
        group.finish(&mut rest);
        assert!(rest.is_empty(), "an incomplete group is thrown away");
    }

    #[test]
    fn batches_hold_survivors_only_and_say_what_has_passed_with_them() {
        let mut batches = Batches::new(3, 0);
        let mut out = push_all(&mut batches, vec![samples(0..4, &[1]), samples(4..9, &[4, 6, 8])]);
        batches.finish(&mut out);
        let values = |out: Vec<(Vec<Sample<u32>>, u64)>| -> Vec<(Vec<u32>, u64)> {
            let payloads = |batch: Vec<Sample<u32>>| batch.into_iter().map(|s| s.payload.unwrap()).collect();
            out.into_iter().map(|(batch, passed)| (payloads(batch), passed)).collect()
        };
        assert_eq!(values(out), [(vec![0, 2, 3], 4), (vec![5, 7], 8)]);
        // What was said to have passed is where the stream can be cut.
        let mut rest = Batches::new(3, 4);
        let mut out = push_all(&mut rest, vec![samples(4..9, &[4, 6, 8])]);
        rest.finish(&mut out);
        assert_eq!(values(out), [(vec![5, 7], 8)]);
    }

    #[test]
    fn no_batch_is_left_with_a_single_sample() {
        for (samples_in, size, expected) in [
            (7, 3, vec![3, 4]),
            (8, 3, vec![3, 3, 2]),
            (9, 3, vec![3, 3, 3]),
            (1, 3, vec![1]),
            (4, 3, vec![4]),
            (3, 1, vec![1, 1, 1]),
            (5, 2, vec![2, 3]),
        ] {
            let mut batches = Batches::new(size, 0);
            let mut out = push_all(&mut batches, vec![samples(0..samples_in, &[])]);
            batches.finish(&mut out);
            let sizes: Vec<u64> = out.iter().map(|(batch, _)| batch.len() as u64).collect();
            assert_eq!(sizes, expected, "{samples_in} by {size}");
            let (samples_in, size) = (u64::from(samples_in), size as u64);
            assert_eq!(count_batches(samples_in, size), sizes.len() as u64);
            let mut left = samples_in;
            for taken in sizes {
                assert_eq!(next_batch(left, size), taken);
                left -= taken;
            }
        }
    }
}
