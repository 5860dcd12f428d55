//! What is made of the features of the training images: new ones of rare classes, and fewer doubtful ones.

use forebay_datasets::seed::Seed;
use forebay_stages::balance::{Balance, BalanceOptions};
use forebay_train::sampling::{Clean, Oversampling};

use crate::options::Config;

/// What is made of the features of the training images. Validation and test images stay what they are.
///
/// How many rows an epoch has is known before anything is read, as it is for images: rows that are cleaned away, and images
/// that cannot be read, leave holes in its batches.
#[derive(Clone, Debug, PartialEq)]
pub struct Resampling {
    /// How new features are made, where they are.
    pub oversampling: Option<Oversampling>,
    /// What is left out afterwards.
    pub clean: Clean,
    /// Features of each class, made ones among them, before any is left out, `[classes]`.
    pub targets: Vec<u64>,
    /// Rows of a step.
    pub batch_size: usize,
    /// Decides what is made, and the order.
    pub seed: Seed,
}

impl Resampling {
    /// What the options ask for, where the training split has `found` `[classes]` images; `None` where it is nothing.
    pub(super) fn of(config: &Config, found: &[u64], batch_size: usize) -> Option<Resampling> {
        let oversampling = match config.choice::<Balance>("balance.mode") {
            Balance::Smote => Some(Oversampling::Smote),
            Balance::BorderlineSmote => Some(Oversampling::BorderlineSmote),
            Balance::Adasyn => Some(Oversampling::Adasyn),
            _ => None,
        };
        let clean: Clean = config.choice("balance.clean");
        let balance = BalanceOptions {
            mode: Balance::None,
            ratio: config.real("balance.ratio"),
            max_repeats: config.whole("balance.max_repeats") as u32,
            ..BalanceOptions::of(Balance::Over)
        };
        let targets = match oversampling {
            Some(_) => balance.feature_targets(found),
            None => found.to_vec(),
        };
        let seed = Seed(config.whole("seed"));
        let is_asked = oversampling.is_some() || clean != Clean::None;
        is_asked.then_some(Resampling { oversampling, clean, targets, batch_size, seed })
    }

    /// The planned rows of an epoch.
    pub(super) fn rows(&self) -> u64 {
        self.targets.iter().sum()
    }

    /// The steps of an epoch.
    pub(super) fn steps_per_epoch(&self) -> u64 {
        self.rows().div_ceil(self.batch_size as u64)
    }

    /// The rows of each batch of an epoch after the first `done`, with the number of the batch, where there are `there` rows: a
    /// number of `there` or more is a hole.
    pub(super) fn batches(&self, there: usize, epoch: u32, done: u64) -> Vec<(u64, Vec<usize>)> {
        let planned = self.rows() as usize;
        let mut rows: Vec<usize> = (0..planned.max(there)).collect();
        self.seed.stream(&format!("resampled/order/{epoch}")).shuffle(&mut rows);
        rows.truncate(planned);
        let batches = (0..).zip(rows.chunks(self.batch_size).map(<[usize]>::to_vec));
        batches.skip(done as usize).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_every_row_once_and_its_holes_move_no_batch() {
        let resampling = Resampling {
            oversampling: Some(Oversampling::Smote),
            clean: Clean::Tomek,
            targets: vec![5, 5],
            batch_size: 4,
            seed: Seed(1),
        };
        assert_eq!(resampling.steps_per_epoch(), 3);
        let whole = resampling.batches(8, 2, 0);
        let mut rows: Vec<usize> = whole.iter().flat_map(|(_, rows)| rows.clone()).collect();
        rows.sort();
        assert_eq!(rows, (0..10).collect::<Vec<_>>());
        assert_eq!(resampling.batches(8, 2, 1), whole[1..]);
        assert_eq!(resampling.batches(10, 2, 0), whole);
        assert_ne!(resampling.batches(10, 3, 0), whole);
        // More rows than planned take turns.
        assert_eq!(resampling.batches(12, 2, 0).iter().map(|(_, rows)| rows.len()).sum::<usize>(), 10);
    }
}
