//! Rows that come often in an epoch are kept as they are stored, so that their copies are not read again.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use bytes::Bytes;
use forebay_datasets::order::{PlannedRows, RowPlace};
use forebay_datasets::sample::{Encoded, Sample};

/// The rows of the training split that a balance repeats, most repeated first, as far as memory allows. What is
/// kept changes how much is read, and nothing of what comes out.
#[derive(Debug, Default)]
pub struct KeptRows {
    wanted: HashSet<RowPlace>,
    bytes_max: u64,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    bytes: u64,
    rows: HashMap<RowPlace, Sample<Encoded>>,
}

impl KeptRows {
    /// Those of `planned` that come more than once, where a row takes `mean_bytes` and all of them may take
    /// `bytes_max`.
    pub fn of(planned: &PlannedRows, mean_bytes: u64, bytes_max: u64) -> KeptRows {
        let groups = 0..planned.groups().len() as u32;
        let rows = groups.flat_map(|group| planned.rows_of(group));
        let mut repeated: Vec<RowPlace> = rows.filter(|&place| planned.copies(place) > 1).collect();
        repeated.sort_by_key(|&place| (std::cmp::Reverse(planned.copies(place)), place));
        repeated.truncate((bytes_max / mean_bytes.max(1)) as usize);
        let wanted: HashSet<RowPlace> = repeated.into_iter().collect();
        // Rows are of different sizes; with so much of the budget nearly all that are wanted fit.
        let bytes_max = bytes_max.min(2 * mean_bytes.max(1) * wanted.len() as u64);
        KeptRows { wanted, bytes_max, held: Mutex::default() }
    }

    /// The most bytes that are kept.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// True when no row comes more than once.
    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    pub(super) fn get(&self, place: RowPlace) -> Option<Sample<Encoded>> {
        if !self.wanted.contains(&place) {
            return None;
        }
        self.held.lock().expect("no panic under the lock").rows.get(&place).cloned()
    }

    /// Keeps a row if it is one of those, and there is room for it. A row that cannot be read takes none.
    pub(super) fn offer(&self, place: RowPlace, sample: &Sample<Encoded>) {
        if !self.wanted.contains(&place) {
            return;
        }
        let bytes = sample.payload.as_ref().map_or(0, |encoded| encoded.bytes.len() as u64);
        let mut held = self.held.lock().expect("no panic under the lock");
        if held.rows.contains_key(&place) || held.bytes + bytes > self.bytes_max {
            return;
        }
        held.bytes += bytes;
        let mut kept = sample.clone();
        if let Ok(encoded) = &mut kept.payload {
            // A copy: the bytes share the memory of a whole group.
            encoded.bytes = Bytes::copy_from_slice(&encoded.bytes);
        }
        held.rows.insert(place, kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_repeated_rows_are_kept_and_no_more_than_may_be() {
        let planned = PlannedRows::new(vec![4]).with_copies(vec![1, 2, 5, 3]);
        let kept = KeptRows::of(&planned, 10, 25);
        let place = |row| RowPlace { group: 0, row };
        let sample = |bytes: usize| Sample {
            id: "a".into(),
            copy: 0,
            label: 0,
            payload: Ok(Encoded { bytes: Bytes::from(vec![0; bytes]) }),
        };
        for row in 0..4 {
            kept.offer(place(row), &sample(10));
        }
        let held = |row| kept.get(place(row)).is_some();
        assert_eq!([held(0), held(1), held(2), held(3)], [false, false, true, true]);
        let kept = KeptRows::of(&planned, 10, 25);
        kept.offer(place(2), &sample(20));
        kept.offer(place(3), &sample(6));
        assert!(kept.get(place(2)).is_some() && kept.get(place(3)).is_none());
        assert!(KeptRows::of(&PlannedRows::new(vec![4]), 10, 25).is_empty());
    }
}
