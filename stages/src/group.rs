//! Samples become the planned groups of rows, and each leaves when it is complete.

use std::collections::VecDeque;

use forebay_datasets::sample::{Label, Sample};

use crate::stage::Regroup;

/// Cuts the stream where the plan does: each planned group leaves when every one of its samples has arrived, as
/// payload or as tombstone, together with the value that the plan gave it. An interrupted run therefore never
/// emits a part of one.
#[derive(Debug)]
pub struct Group<K, P, L = Label> {
    plan: VecDeque<(K, usize)>,
    held: Vec<Sample<P, L>>,
}

impl<K, P, L> Group<K, P, L> {
    /// Groups of these sizes, in the order of the stream. A size of 0 leaves with the group before it.
    pub fn new(plan: impl IntoIterator<Item = (K, usize)>) -> Group<K, P, L> {
        Group { plan: plan.into_iter().collect(), held: Vec::new() }
    }
}

impl<K: Send + 'static, P: Send + 'static, L: Send + 'static> Regroup for Group<K, P, L> {
    const NAME: &'static str = "group";
    type In = Vec<Sample<P, L>>;
    type Out = (K, Vec<Sample<P, L>>);

    fn push(&mut self, chunk: Vec<Sample<P, L>>, out: &mut Vec<Self::Out>) {
        self.held.extend(chunk);
        while self.plan.front().is_some_and(|(_, size)| self.held.len() >= *size) {
            let (key, size) = self.plan.pop_front().expect("it was looked at");
            let rest = self.held.split_off(size);
            out.push((key, std::mem::replace(&mut self.held, rest)));
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
}
