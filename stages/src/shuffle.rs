//! Groups of rows become windows, and the rows of a window are mixed.

use std::collections::VecDeque;

use forebay_datasets::order::shuffle_window;
use forebay_datasets::sample::Sample;
use forebay_datasets::seed::Seed;

use crate::stage::Regroup;

/// Holds the groups of one window, sorts their rows into the order of the epoch, and lets them go in chunks.
#[derive(Debug)]
pub struct Shuffle<P> {
    windows: VecDeque<usize>,
    order: Option<(Seed, u32)>,
    chunk: usize,
    skip: u64,
    groups_held: usize,
    held: Vec<Sample<P>>,
}

impl<P> Shuffle<P> {
    /// `windows` says how many groups each window takes, in the order of the stream; `order` is (seed, epoch),
    /// or `None` to keep the order and only cut chunks of `chunk` samples.
    pub fn new(
        windows: impl IntoIterator<Item = usize>,
        order: Option<(Seed, u32)>,
        chunk: usize,
    ) -> Shuffle<P> {
        Shuffle {
            windows: windows.into_iter().collect(),
            order,
            chunk: chunk.max(1),
            skip: 0,
            groups_held: 0,
            held: Vec::new(),
        }
    }

    /// Lets the first `n` samples go of what it would give, and gives the rest as it would have.
    pub fn skipping(self, n: u64) -> Shuffle<P> {
        Shuffle { skip: n, ..self }
    }
}

impl<P: Send + 'static> Regroup for Shuffle<P> {
    const NAME: &'static str = "shuffle";
    type In = Vec<Sample<P>>;
    type Out = Vec<Sample<P>>;

    fn push(&mut self, group: Vec<Sample<P>>, out: &mut Vec<Self::Out>) {
        self.held.extend(group);
        self.groups_held += 1;
        if self.windows.front().is_some_and(|&groups| self.groups_held < groups) {
            return;
        }
        self.windows.pop_front();
        self.groups_held = 0;
        let mut rows = std::mem::take(&mut self.held);
        if let Some((seed, epoch)) = self.order {
            shuffle_window(&mut rows, seed, epoch, |sample| (&sample.id, sample.copy));
        }
        let skipped = self.skip.min(rows.len() as u64);
        self.skip -= skipped;
        let mut rows = rows.into_iter().skip(skipped as usize).peekable();
        while rows.peek().is_some() {
            out.push(rows.by_ref().take(self.chunk).collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(order: Option<(Seed, u32)>) -> Vec<Vec<u32>> {
        run_skipping(order, 0)
    }

    fn run_skipping(order: Option<(Seed, u32)>, skip: u64) -> Vec<Vec<u32>> {
        let mut shuffle = Shuffle::new([2, 1], order, 4).skipping(skip);
        let mut out = Vec::new();
        for group in [0..3, 3..6, 6..9] {
            let group = group
                .map(|i| Sample { id: format!("{i}").into(), copy: 0, label: 0, payload: Ok(i) })
                .collect();
            shuffle.push(group, &mut out);
        }
        out.into_iter().map(|chunk| chunk.into_iter().map(|s| s.payload.unwrap()).collect()).collect()
    }

    #[test]
    fn windows_are_mixed_within_and_cut_into_chunks() {
        assert_eq!(run(None), [vec![0, 1, 2, 3], vec![4, 5], vec![6, 7, 8]]);
        let mixed = run(Some((Seed(1), 0)));
        let mut first: Vec<u32> = mixed[..2].concat();
        assert_ne!(first, [0, 1, 2, 3, 4, 5]);
        first.sort_unstable();
        assert_eq!(first, [0, 1, 2, 3, 4, 5]);
        assert_ne!(mixed, run(Some((Seed(1), 1))));
    }

    #[test]
    fn what_is_left_after_a_skip_is_the_end_of_the_whole() {
        let order = Some((Seed(1), 3));
        let whole = run(order).concat();
        for skip in 0..=whole.len() {
            assert_eq!(run_skipping(order, skip as u64).concat(), whole[skip..], "after {skip}");
        }
    }
}
