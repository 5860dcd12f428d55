//! What a source holds, split and balanced: the rows of every split in the order in which they are written.

use forebay_datasets::catalog::{Catalog, Locator};
use forebay_datasets::manifest::RowOrder;
use forebay_datasets::sample::{Sample, Split};
use forebay_datasets::seed::Seed;
use forebay_datasets::split::{Assignment, SplitRule, TrainSamples};
use forebay_stages::balance::{self, Balance, BalanceSummary};

use super::grouping::other_groups;
use crate::flow::Error;
use crate::options::{Config, ShardOrder, balance_options, hash_split};

/// One row that is to be written: which entry of the catalog, and which copy of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedRow {
    /// Index into [`Catalog::entries()`].
    pub entry: usize,
    /// 0 is the original.
    pub copy: u32,
}

/// What a source holds, split and balanced: the rows of every split in the order in which they are written.
#[derive(Clone, Debug)]
pub struct Rows {
    /// What was found.
    pub catalog: Catalog,
    /// The split of every sample.
    pub assignment: Assignment,
    /// The split of each entry: those of the assignment, in the order of the catalog.
    pub splits: Vec<Split>,
    /// How the rows of each split are ordered.
    pub order: RowOrder,
    /// The rows of each split, in the order of [`Split::ALL`].
    pub planned: [Vec<PlannedRow>; 3],
    /// The classes of the training split before and after balancing.
    pub balance: BalanceSummary,
    /// What a user would want to know of the source and its splits before going on, one line each.
    pub warnings: Vec<String>,
}

impl Rows {
    /// The rows of one split.
    pub fn of(&self, split: Split) -> &[PlannedRow] {
        &self.planned[split as usize]
    }

    /// The sample of a planned row, not yet read.
    pub(crate) fn sample(&self, row: &PlannedRow) -> Sample<Locator> {
        let entry = &self.catalog.entries()[row.entry];
        let payload = Ok(entry.locator.clone());
        Sample { id: entry.id.clone(), copy: row.copy, label: entry.label, payload }
    }

    /// Entries that the balance gave no copy.
    pub fn dropped(&self) -> u64 {
        let mut is_planned = vec![false; self.catalog.entries().len()];
        for row in self.planned.iter().flatten() {
            is_planned[row.entry] = true;
        }
        is_planned.iter().filter(|is_planned| !**is_planned).count() as u64
    }
}

/// A line where a sample has joined what an earlier run split: what belongs together is then in several splits.
fn torn(assignment: &Assignment, catalog: &Catalog) -> Option<String> {
    let torn = assignment.torn(catalog);
    let [a, b] = torn.first()?;
    let [in_a, in_b] = [a, b].map(|entry| assignment.split(&entry.id).unwrap_or(Split::Train));
    let others = other_groups(torn.len());
    Some(format!(
        "an image that came later has joined what was split before, and nothing is moved: {} stays in {in_a} and {} in \
         {in_b}, though they belong together{others}; --resplit splits anew",
        a.id, b.id
    ))
}

/// Splits, balances and orders what a catalog holds; `earlier` is the assignment of a dataset that this one takes the
/// place of.
///
/// # Errors
/// [`Error::Plan`] for options that cannot be, [`Error::Usage`] for folders that are hardly the classes.
pub fn rows(
    config: &Config,
    catalog: Catalog,
    earlier: Option<&Assignment>,
    balance: bool,
) -> Result<Rows, Error> {
    if let Some(mistake) = catalog.mistake() {
        return Err(Error::Usage(mistake.to_string()));
    }
    let mut problems = Vec::new();
    let hash_split = hash_split(config, &mut problems);
    let mut options = balance_options(config, &mut problems);
    if !problems.is_empty() {
        return Err(Error::Plan(problems));
    }
    if !balance {
        options.mode = Balance::None;
    }
    let names = catalog.classes().to_vec();
    let split_seed = config.whole("split.seed");
    let seed = Seed(config.whole("seed"));
    let rule = SplitRule::of(&catalog, hash_split);
    let assignment = Assignment::of(&catalog, rule, earlier);
    let splits = assignment.splits(&catalog);
    let torn = torn(&assignment, &catalog);
    let warnings = [catalog.warnings(), &assignment.warnings(&catalog), torn.as_slice()].concat();

    let train = TrainSamples::of(&catalog, &splits);
    let problems = options.problems_of(&names, &train.counts());
    if !problems.is_empty() {
        return Err(Error::Plan(problems));
    }
    let copies = balance::copies(&train, &names, &options, seed);
    let summary = BalanceSummary::of(&train, &names, &copies, &options);
    let mut copies = copies.into_iter();
    let mut planned = [const { Vec::new() }; 3];
    for (index, split) in splits.iter().enumerate() {
        let n = if *split == Split::Train { copies.next().expect("one per train sample") } else { 1 };
        planned[*split as usize].extend((0..n).map(|copy| PlannedRow { entry: index, copy }));
    }
    let order = match config.choice("shards.order") {
        ShardOrder::Shuffled => RowOrder::Shuffled { seed: split_seed },
        ShardOrder::Source => RowOrder::Source,
    };
    if let RowOrder::Shuffled { seed } = order {
        for rows in &mut planned {
            rows.sort_by_cached_key(|row| {
                Seed(seed).rank("shards/order", &catalog.entries()[row.entry].id, row.copy, 0)
            });
        }
    }
    Ok(Rows { catalog, assignment, splits, order, planned, balance: summary, warnings })
}
