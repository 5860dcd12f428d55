//! The order of samples in an epoch: a pure function of (seed, epoch), in two steps, so that a store is read in
//! large pieces and a batch is still a mixture.
//!
//! First the groups of rows are permuted and cut into windows, then the rows of a window are sorted by a hash of
//! what they are. Sorting instead of permuting makes the order of the rest independent of a row that is missing.

use crate::seed::Seed;

/// The groups to read in one epoch, window by window: `groups` groups, permuted, in windows of `window` groups.
pub fn windows(groups: usize, window: usize, seed: Seed, epoch: u32) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..groups).collect();
    seed.stream(&format!("order/groups/{epoch}")).shuffle(&mut order);
    order.chunks(window.max(1)).map(<[usize]>::to_vec).collect()
}

/// Sorts the rows of one window into the order in which they are trained on; `identity` gives id and copy.
pub fn shuffle_window<T>(rows: &mut [T], seed: Seed, epoch: u32, identity: impl Fn(&T) -> (&str, u32)) {
    rows.sort_by_cached_key(|row| {
        let (id, copy) = identity(row);
        (seed.rank("order/rows", id, copy, epoch), id.to_string(), copy)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_comes_once_in_an_epoch_and_epochs_differ() {
        let order = |epoch| windows(23, 5, Seed(1), epoch);
        let mut flat: Vec<usize> = order(0).concat();
        assert_ne!(flat, order(1).concat());
        assert_eq!(order(0), order(0));
        assert_eq!(order(0).iter().map(Vec::len).collect::<Vec<_>>(), [5, 5, 5, 5, 3]);
        flat.sort_unstable();
        assert_eq!(flat, (0..23).collect::<Vec<_>>());
    }

    #[test]
    fn a_missing_row_moves_no_other() {
        let ids: Vec<String> = (0..40).map(|i| format!("s{i}")).collect();
        let sorted = |mut ids: Vec<String>| {
            shuffle_window(&mut ids, Seed(1), 2, |id| (id, 0));
            ids
        };
        let mut all = sorted(ids.clone());
        let fewer = sorted(ids.into_iter().filter(|id| id != "s7").collect());
        all.retain(|id| id != "s7");
        assert_eq!(all, fewer);
    }
}
