//! An epoch is a sequence of global batches of planned rows: a pure function of (plan, balance, seed, epoch).
//!
//! The groups of rows are permuted and cut into windows, so that a store is read in large pieces and a batch is
//! still a mixture. The further copies that a balance asks for are spread over the windows of the whole epoch, as
//! if each were drawn anew. Nothing here knows which rows can be read: one that cannot leaves a hole in its batch
//! and moves no other.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use crate::seed::Seed;

/// Where a planned row of a split is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowPlace {
    /// Its group, among those of the split.
    pub group: u32,
    /// Its place in the group.
    pub row: u32,
}

/// A row as it comes in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpochRow {
    /// Where it is.
    pub place: RowPlace,
    /// Which of its copies this is: 0 for the first.
    pub copy: u32,
}

/// The planned rows of a split, and how often each comes in an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedRows {
    /// Rows of each group.
    groups: Arc<[usize]>,
    /// Copies of each row, one row after the other; `None` where each comes once.
    copies: Option<Arc<[u32]>>,
    /// The number of each group's first row among all, and at the end the number of rows.
    starts: Arc<[usize]>,
}

impl PlannedRows {
    /// Groups of these sizes, of which each row comes once in an epoch.
    pub fn new(groups: Vec<usize>) -> PlannedRows {
        let starts = running_sums(groups.iter().copied());
        PlannedRows { groups: groups.into(), copies: None, starts: starts.into() }
    }

    /// The same rows, each as often as `copies` says; 0 leaves it out.
    ///
    /// # Panics
    /// When there is not one number of copies per row.
    pub fn with_copies(self, copies: Vec<u32>) -> PlannedRows {
        assert_eq!(copies.len(), self.found(), "one number of copies per row");
        PlannedRows { copies: Some(copies.into()), ..self }
    }

    /// The same rows, each once: how they are evaluated, whatever training makes of them.
    pub fn once(&self) -> PlannedRows {
        PlannedRows { copies: None, ..self.clone() }
    }

    /// Rows of each group.
    pub fn groups(&self) -> &[usize] {
        &self.groups
    }

    /// How many rows there are, each counted once.
    pub fn found(&self) -> usize {
        *self.starts.last().expect("there is one more than groups")
    }

    /// How many rows an epoch has, copies included.
    pub fn in_epoch(&self) -> u64 {
        match &self.copies {
            Some(copies) => copies.iter().map(|n| u64::from(*n)).sum(),
            None => self.found() as u64,
        }
    }

    /// How many rows come at least once.
    pub fn used(&self) -> u64 {
        match &self.copies {
            Some(copies) => copies.iter().filter(|n| **n > 0).count() as u64,
            None => self.found() as u64,
        }
    }

    /// How often a row comes.
    pub fn copies(&self, place: RowPlace) -> u32 {
        match &self.copies {
            Some(copies) => copies[self.starts[place.group as usize] + place.row as usize],
            None => 1,
        }
    }

    /// Every row of a group, in its order.
    pub fn rows_of(&self, group: u32) -> impl Iterator<Item = RowPlace> + use<> {
        (0..self.groups[group as usize] as u32).map(move |row| RowPlace { group, row })
    }
}

/// The numbers before each element and, at the end, their sum.
fn running_sums(numbers: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let mut sums = vec![0];
    for number in numbers {
        sums.push(sums[sums.len() - 1] + number);
    }
    sums
}

/// Which part of each global batch a process takes: rank `rank` of `world` equal ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    rank: usize,
    world: usize,
}

impl Rank {
    /// The only process, which takes whole batches.
    pub const ALONE: Rank = Rank { rank: 0, world: 1 };

    /// Rank `rank` of `world`; `None` unless `rank` is below `world`.
    pub fn new(rank: usize, world: usize) -> Option<Rank> {
        (rank < world).then_some(Rank { rank, world })
    }

    /// Its part of the rows of a global batch: the parts of all ranks follow each other and make the batch.
    pub fn part(self, batch: Range<u64>) -> Range<u64> {
        let (rank, world, rows) = (self.rank as u64, self.world as u64, batch.end - batch.start);
        batch.start + rows * rank / world..batch.start + rows * (rank + 1) / world
    }
}

/// A piece of an epoch that is read and mixed as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The groups that are read as a whole, in the order of reading. Rows of other groups are further copies.
    pub groups: Vec<u32>,
    /// The rows in the order in which they are trained on.
    pub rows: Vec<EpochRow>,
}

/// The sequence of global batches of one epoch. The position in it is the number of batches done.
#[derive(Clone, Debug)]
pub struct Epoch {
    planned: PlannedRows,
    windows: Vec<Vec<u32>>,
    /// Copies after the first of their row, in the order in which they are dealt to the windows.
    further: Vec<EpochRow>,
    /// How many of them come before each window, and in all.
    further_before: Vec<usize>,
    /// How many rows come before each window, and in all.
    rows_before: Vec<u64>,
    /// What the rows of a window are mixed by; without it they stay in their order.
    mixed_by: Option<(Seed, u32)>,
    batch_size: u64,
}

impl Epoch {
    /// Epoch `epoch` of training: `window_groups` groups are mixed with each other.
    ///
    /// # Panics
    /// When `batch_size` is 0.
    pub fn mixed(
        planned: &PlannedRows,
        window_groups: usize,
        batch_size: usize,
        seed: Seed,
        epoch: u32,
    ) -> Epoch {
        let mut groups: Vec<u32> = (0..planned.groups().len() as u32).collect();
        seed.stream(&format!("order/groups/{epoch}")).shuffle(&mut groups);
        let windows: Vec<Vec<u32>> = groups.chunks(window_groups.max(1)).map(<[u32]>::to_vec).collect();
        let mut further = Vec::new();
        if planned.copies.is_some() {
            for place in (0..planned.groups().len() as u32).flat_map(|group| planned.rows_of(group)) {
                further.extend((1..planned.copies(place)).map(|copy| EpochRow { place, copy }));
            }
            seed.stream(&format!("order/copies/{epoch}")).shuffle(&mut further);
        }
        Epoch::of(planned.clone(), windows, further, Some((seed, epoch)), batch_size)
    }

    /// The rows in their own order, each that has a copy once: how a split is evaluated.
    ///
    /// # Panics
    /// When `batch_size` is 0.
    pub fn in_order(planned: &PlannedRows, batch_size: usize) -> Epoch {
        // Nothing is mixed, so nothing needs to be held.
        let windows = (0..planned.groups().len() as u32).map(|group| vec![group]).collect();
        Epoch::of(planned.clone(), windows, Vec::new(), None, batch_size)
    }

    fn of(
        planned: PlannedRows,
        windows: Vec<Vec<u32>>,
        further: Vec<EpochRow>,
        mixed_by: Option<(Seed, u32)>,
        batch_size: usize,
    ) -> Epoch {
        assert!(batch_size > 0, "a batch holds a row");
        let first = |window: &Vec<u32>| {
            let rows = window.iter().flat_map(|&group| planned.rows_of(group));
            rows.filter(|&place| planned.copies(place) > 0).count()
        };
        let firsts = running_sums(windows.iter().map(first));
        // A window takes its share of the further copies, so that the epoch is equally dense throughout.
        let all = *firsts.last().expect("there is one more than windows") as u128;
        let share = |before: &usize| (further.len() as u128 * *before as u128 / all.max(1)) as usize;
        let further_before: Vec<usize> = firsts.iter().map(share).collect();
        let rows_before = firsts.iter().zip(&further_before).map(|(a, b)| (a + b) as u64).collect();
        let batch_size = batch_size as u64;
        Epoch { planned, windows, further, further_before, rows_before, mixed_by, batch_size }
    }

    /// How many rows the epoch has, copies included.
    pub fn rows(&self) -> u64 {
        *self.rows_before.last().expect("there is one more than windows")
    }

    fn cut(&self) -> GlobalBatches {
        GlobalBatches { rows: self.rows(), size: self.batch_size }
    }

    /// How many global batches.
    pub fn batches(&self) -> u64 {
        self.cut().count()
    }

    /// The rows of global batch `index`, as numbers in the order of the epoch; empty behind the last one.
    pub fn batch(&self, index: u64) -> Range<u64> {
        self.cut().range(index)
    }

    /// The planned rows of `rank` in each batch from the one with index `done` on.
    pub fn sizes(&self, done: u64, rank: Rank) -> impl Iterator<Item = (u64, usize)> + use<> {
        let batches = self.cut();
        (done..batches.count()).map(move |index| {
            let part = rank.part(batches.range(index));
            (index, (part.end - part.start) as usize)
        })
    }

    /// The windows with what `rank` trains on after the first `done` global batches; those without any are left out.
    pub fn windows(self: Arc<Self>, done: u64, rank: Rank) -> impl Iterator<Item = Window> + Send + use<> {
        let start = self.batch(done).start;
        let first = self.rows_before[1..].partition_point(|end| *end <= start);
        (first..self.windows.len()).filter_map(move |index| {
            let window = self.window(index, start, rank);
            (!window.rows.is_empty()).then_some(window)
        })
    }

    fn window(&self, index: usize, start: u64, rank: Rank) -> Window {
        let groups = self.windows[index].clone();
        let places = groups.iter().flat_map(|&group| self.planned.rows_of(group));
        let used = places.filter(|&place| self.planned.copies(place) > 0);
        let mut rows: Vec<EpochRow> = used.map(|place| EpochRow { place, copy: 0 }).collect();
        rows.extend(&self.further[self.further_before[index]..self.further_before[index + 1]]);
        if let Some((seed, epoch)) = self.mixed_by {
            seed.stream(&format!("order/rows/{epoch}/{index}")).shuffle(&mut rows);
        }
        let numbered = (self.rows_before[index]..).zip(rows);
        let batches = self.cut();
        let rows: Vec<EpochRow> = numbered
            .filter(|(number, _)| {
                *number >= start && rank.part(batches.range(batches.of(*number))).contains(number)
            })
            .map(|(_, row)| row)
            .collect();
        // A group whose rows are all done, or another rank's, is not read.
        let needed: HashSet<u32> = rows.iter().map(|row| row.place.group).collect();
        Window { groups: groups.into_iter().filter(|group| needed.contains(group)).collect(), rows }
    }
}

/// How the rows of an epoch are cut into batches: each holds `size`, the last one the rest; but where that would be a
/// single row, which batch normalisation could not normalise, it goes into the batch before.
#[derive(Clone, Copy)]
struct GlobalBatches {
    rows: u64,
    size: u64,
}

impl GlobalBatches {
    fn count(self) -> u64 {
        let GlobalBatches { rows, size } = self;
        let is_alone = size > 1 && rows > size && rows % size == 1;
        rows.div_ceil(size) - u64::from(is_alone)
    }

    /// The rows of batch `index`; none behind the last one.
    fn range(self, index: u64) -> Range<u64> {
        let start = (index * self.size).min(self.rows);
        match (index + 1).cmp(&self.count()) {
            Ordering::Less => start..start + self.size,
            Ordering::Equal => start..self.rows,
            Ordering::Greater => self.rows..self.rows,
        }
    }

    /// The batch that holds row `number`.
    fn of(self, number: u64) -> u64 {
        (number / self.size).min(self.count().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(epoch: Epoch, done: u64, rank: Rank) -> Vec<EpochRow> {
        Arc::new(epoch).windows(done, rank).flat_map(|window| window.rows).collect()
    }

    /// Groups of 7 rows and of 10, where the row of every tenth number has `copies` copies and one in nine none.
    fn planned(groups: usize, copies: u32) -> PlannedRows {
        let planned = PlannedRows::new((0..groups).map(|group| 7 + 3 * (group % 2)).collect());
        let copies_of = |row: usize| match row {
            row if row % 10 == 3 => copies,
            row if row % 9 == 4 => 0,
            _ => 1,
        };
        let copies = (0..planned.found()).map(copies_of).collect();
        planned.with_copies(copies)
    }

    #[test]
    fn an_epoch_holds_every_copy_once_and_is_a_function_of_seed_and_epoch() {
        for (groups, window, batch) in [(1, 1, 4), (5, 2, 3), (23, 4, 32), (40, 100, 7)] {
            let planned = planned(groups, 6);
            let rows =
                |seed, epoch| flat(Epoch::mixed(&planned, window, batch, Seed(seed), epoch), 0, Rank::ALONE);
            let mut found = rows(1, 0);
            assert_eq!(found, rows(1, 0));
            assert_ne!(found, rows(1, 1));
            assert_ne!(found, rows(2, 0));
            assert_eq!(found.len() as u64, planned.in_epoch());
            found.sort_unstable();
            let places = (0..groups as u32).flat_map(|group| planned.rows_of(group));
            let expected: Vec<EpochRow> = places
                .flat_map(|place| (0..planned.copies(place)).map(move |copy| EpochRow { place, copy }))
                .collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn in_order_each_row_comes_once_where_it_is() {
        let planned = planned(5, 6);
        let found = flat(Epoch::in_order(&planned.once(), 4), 0, Rank::ALONE);
        assert!(found.is_sorted() && found.len() == planned.found(), "{found:?}");
        let half = planned.once().with_copies((0..planned.found() as u32).map(|row| row % 2).collect());
        let found = flat(Epoch::in_order(&half, 4), 0, Rank::ALONE);
        assert!(found.is_sorted() && found.len() == planned.found() / 2, "{found:?}");
    }

    #[test]
    fn an_epoch_cut_after_any_batch_goes_on_as_the_whole_and_reads_no_group_that_is_done() {
        let planned = planned(23, 6);
        for epoch in [Epoch::mixed(&planned, 4, 16, Seed(3), 2), Epoch::in_order(&planned.once(), 16)] {
            let whole = flat(epoch.clone(), 0, Rank::ALONE);
            for done in 0..=epoch.batches() {
                let start = epoch.batch(done).start as usize;
                assert_eq!(flat(epoch.clone(), done, Rank::ALONE), whole[start..], "after {done}");
                for window in Arc::new(epoch.clone()).windows(done, Rank::ALONE) {
                    let is_needed = |group: &u32| window.rows.iter().any(|row| row.place.group == *group);
                    assert!(window.groups.iter().all(is_needed), "after {done}: {window:?}");
                }
            }
        }
    }

    #[test]
    fn the_parts_of_all_ranks_are_the_global_batches_in_order() {
        let planned = planned(23, 6);
        let epoch = Epoch::mixed(&planned, 4, 10, Seed(3), 2);
        let whole = flat(epoch.clone(), 0, Rank::ALONE);
        for world in [1, 2, 4] {
            let ranks: Vec<Rank> = (0..world).map(|rank| Rank::new(rank, world).unwrap()).collect();
            for done in [0, 1, 7, epoch.batches() - 1] {
                let mut rows: Vec<_> =
                    ranks.iter().map(|rank| flat(epoch.clone(), done, *rank).into_iter()).collect();
                let mut sizes: Vec<_> = ranks.iter().map(|rank| epoch.sizes(done, *rank)).collect();
                for index in done..epoch.batches() {
                    let mut batch = Vec::new();
                    for (rows, sizes) in rows.iter_mut().zip(&mut sizes) {
                        let (number, size) = sizes.next().unwrap();
                        assert_eq!(number, index);
                        batch.extend(rows.take(size));
                    }
                    let range = epoch.batch(index);
                    assert_eq!(batch, whole[range.start as usize..range.end as usize], "{index} of {world}");
                }
                assert!(rows.iter_mut().all(|rows| rows.next().is_none()));
            }
        }
        assert_eq!((Rank::new(2, 2), Rank::new(0, 0)), (None, None));
    }

    #[test]
    fn no_batch_is_planned_with_a_single_row() {
        for (rows, size, expected) in [
            (7, 3, vec![3, 4]),
            (8, 3, vec![3, 3, 2]),
            (9, 3, vec![3, 3, 3]),
            (1, 3, vec![1]),
            (4, 3, vec![4]),
            (3, 1, vec![1, 1, 1]),
            (5, 2, vec![2, 3]),
            (0, 3, vec![]),
        ] {
            let epoch = Epoch::in_order(&PlannedRows::new(vec![rows]), size);
            let sizes: Vec<usize> = epoch.sizes(0, Rank::ALONE).map(|(_, size)| size).collect();
            assert_eq!(sizes, expected, "{rows} by {size}");
            assert_eq!(epoch.batches(), expected.len() as u64);
            assert_eq!(epoch.batch(epoch.batches()).start, epoch.rows());
        }
    }

    /// The copies of one row lie in the epoch as if each had been drawn uniformly: so many in each tenth of it, and
    /// no gap longer than such draws leave.
    #[test]
    fn copies_are_spread_over_the_whole_epoch_as_uniform_draws_are() {
        for (rows, copies) in [(2_000, 84), (5_000, 100), (20_000, 50)] {
            let (mut tenths, mut gaps, mut total) = ([0u64; 10], Vec::new(), 0u64);
            for seed in 0..5 {
                let groups = PlannedRows::new(vec![100; rows / 100]);
                // One row in a hundred, wherever it is.
                let of = |row: usize| if row % 100 == row / 100 % 100 { copies } else { 1 };
                let planned = groups.with_copies((0..rows).map(of).collect());
                let found = flat(Epoch::mixed(&planned, 4, 32, Seed(seed), 0), 0, Rank::ALONE);
                let mut places = std::collections::BTreeMap::<RowPlace, Vec<usize>>::new();
                for (number, row) in found.iter().enumerate().filter(|(_, row)| planned.copies(row.place) > 1)
                {
                    places.entry(row.place).or_default().push(number);
                }
                for numbers in places.values() {
                    assert_eq!(numbers.len(), copies as usize);
                    for number in numbers {
                        tenths[number * 10 / found.len()] += 1;
                        total += 1;
                    }
                    let inner = numbers.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
                    let ends = numbers[0].max(found.len() - 1 - numbers[numbers.len() - 1]);
                    gaps.push(inner.max(ends) as f64 / found.len() as f64);
                }
            }
            // Five standard deviations of a binomial count.
            let mean = total as f64 / 10.0;
            for count in tenths {
                assert!((count as f64 - mean).abs() < 5.0 * (mean * 0.9).sqrt(), "{tenths:?} of {total}");
            }
            // The largest of n + 1 spacings is H(n + 1) / (n + 1) on average (Holst, 1980).
            let n = f64::from(copies) + 1.0;
            let expected = (n.ln() + 0.5772) / n;
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            assert!((mean / expected - 1.0).abs() < 0.1, "{mean} where {expected} is expected");
            let largest = gaps.iter().copied().fold(0.0, f64::max);
            assert!(largest < 4.0 * expected, "{largest} where {expected} is expected");
        }
    }
}
