//! What a source holds, split and balanced: the rows of every split in the order in which they are written.

use std::collections::BTreeMap;

use forebay_datasets::catalog::Catalog;
use forebay_datasets::sample::{SampleId, Split};
use forebay_datasets::seed::Seed;
use forebay_datasets::split::{self, TrainSamples};
use forebay_stages::balance::{self, Balance, BalanceSummary};

use crate::flow::Error;
use crate::options::{Config, ShardOrder, balance_options, shares};

/// One row that is to be written: which entry of the catalog, and which copy of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedRow {
    /// Index into [`Catalog::entries`].
    pub entry: usize,
    /// 0 is the original.
    pub copy: u32,
}

/// What a source holds, split and balanced: the rows of every split in the order in which they are written.
#[derive(Clone, Debug)]
pub struct Rows {
    /// What was found.
    pub catalog: Catalog,
    /// The split of each entry.
    pub splits: Vec<Split>,
    /// The rows of each split, in the order of [`Split::ALL`].
    pub planned: [Vec<PlannedRow>; 3],
    /// The classes of the training split before and after balancing.
    pub balance: BalanceSummary,
    /// Assignments that an earlier dataset fixed and a fresh cut would not give.
    pub pinned: BTreeMap<String, Split>,
}

impl Rows {
    /// The rows of one split.
    pub fn of(&self, split: Split) -> &[PlannedRow] {
        &self.planned[split as usize]
    }

    /// Entries that the balance gave no copy.
    pub fn dropped(&self) -> u64 {
        let planned = self.planned.iter().flatten().filter(|row| row.copy == 0).count();
        (self.catalog.entries.len() - planned) as u64
    }
}

/// Splits, balances and orders what a catalog holds.
pub fn rows(
    config: &Config,
    catalog: Catalog,
    previous: &BTreeMap<SampleId, Split>,
    balance: bool,
) -> Result<Rows, Error> {
    let mut problems = Vec::new();
    let shares = shares(config, &mut problems);
    let mut options = balance_options(config, &mut problems);
    if !problems.is_empty() {
        return Err(Error::Plan(problems));
    }
    if !balance {
        options.mode = Balance::None;
    }
    let split_seed = Seed(config.whole("split.seed"));
    let seed = Seed(config.whole("seed"));
    let fresh = split::assign(&catalog, shares, split_seed, &BTreeMap::new());
    let splits = split::assign(&catalog, shares, split_seed, previous);
    let pinned = catalog.entries.iter().zip(fresh.iter().zip(&splits));
    let pinned = pinned
        .filter(|(_, (fresh, split))| fresh != split)
        .map(|(entry, (_, split))| (entry.id.to_string(), *split))
        .collect();

    let train = TrainSamples::of(&catalog, &splits);
    let copies = balance::copies(&train, &options, seed);
    let summary = BalanceSummary::of(&train, &copies, &options);
    let mut copies = copies.into_iter();
    let mut planned = [const { Vec::new() }; 3];
    for (index, split) in splits.iter().enumerate() {
        let n = if *split == Split::Train { copies.next().expect("one per train sample") } else { 1 };
        planned[*split as usize].extend((0..n).map(|copy| PlannedRow { entry: index, copy }));
    }
    if config.choice::<ShardOrder>("shards.order") == ShardOrder::Shuffled {
        for rows in &mut planned {
            rows.sort_by_cached_key(|row| {
                split_seed.rank("shards/order", &catalog.entries[row.entry].id, row.copy, 0)
            });
        }
    }
    Ok(Rows { catalog, splits, planned, balance: summary, pinned })
}
