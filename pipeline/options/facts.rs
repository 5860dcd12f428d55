//! What is known of a source, as far as it decides which options have an effect.

use forebay_datasets::manifest::{Manifest, RowOrder};
use forebay_datasets::split::{HashSplit, SplitRule};

/// What `prepare` decided of the rows of shards, and nothing can change when they are read.
#[derive(Clone, Debug, PartialEq)]
pub struct PreparedRows {
    /// What decided the split of each sample.
    pub split_rule: SplitRule,
    /// How the rows of each split are ordered.
    pub row_order: RowOrder,
}

impl PreparedRows {
    /// Those of a dataset.
    pub fn of(manifest: &Manifest) -> PreparedRows {
        PreparedRows { split_rule: manifest.split_rule.clone(), row_order: manifest.row_order }
    }

    /// `split.shares`, as it is written; `None` where it was without effect.
    pub(super) fn shares(&self) -> Option<String> {
        match &self.split_rule {
            SplitRule::Declared => None,
            SplitRule::AllTrain => Some("none".to_string()),
            SplitRule::Hash(HashSplit { shares, .. }) => Some(shares.to_string()),
        }
    }

    /// The split by hash; `None` where there was none.
    pub(super) fn hash_split(&self) -> Option<&HashSplit> {
        match &self.split_rule {
            SplitRule::Hash(split) => Some(split),
            SplitRule::Declared | SplitRule::AllTrain => None,
        }
    }

    /// `split.seed`, as it is written; `None` where it was without effect.
    pub(super) fn split_seed(&self) -> Option<String> {
        match (&self.split_rule, &self.row_order) {
            (SplitRule::Hash(HashSplit { seed, .. }), _) | (_, RowOrder::Shuffled { seed }) => {
                Some(seed.to_string())
            }
            (SplitRule::Declared | SplitRule::AllTrain, RowOrder::Source) => None,
        }
    }
}

/// What is known of a source; by [`Default`], nothing that would make an option useless.
#[derive(Clone, Debug)]
pub struct Facts {
    /// How the rows of the source were split and ordered, where it is shards.
    pub prepared: Option<PreparedRows>,
    /// Whether the source has validation or test images of its own.
    pub declares_splits: bool,
    /// Whether there are validation images.
    pub validates: bool,
}

impl Default for Facts {
    fn default() -> Facts {
        Facts { prepared: None, declares_splits: false, validates: true }
    }
}
