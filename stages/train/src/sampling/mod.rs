//! More rows of rare classes and fewer doubtful ones of common classes, for features: SMOTE and its relatives, Tomek links and
//! edited nearest neighbours, as imbalanced-learn has them.
//!
//! They act on `[n, d]` features, in which what lies between two rows of a class is mostly of that class too. Pixels are no
//! such space: the mean of two photographs shows no third object.
//! Everything is a function of rows, labels and seed, for any number of threads.

mod clean;
mod oversample;
#[cfg(test)]
mod tests;

pub use clean::{Agreement, Clean, edited_neighbours, tomek_links};
pub use oversample::{Oversampled, Oversampling, Synthetic, oversample};

/// Rows of features, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct FeatureRows<'a> {
    /// `[n, width]`.
    pub values: &'a [f32],
    /// Features of a row, at least 1.
    pub width: usize,
}

impl<'a> FeatureRows<'a> {
    /// The row of this number.
    pub fn row(&self, index: u32) -> &'a [f32] {
        &self.values[index as usize * self.width..(index as usize + 1) * self.width]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// The numbers of the rows of each class, ascending.
fn by_class(labels: &[u32], classes: usize) -> Vec<Vec<u32>> {
    let mut rows = vec![Vec::new(); classes];
    for (row, label) in (0..).zip(labels) {
        rows[*label as usize].push(row);
    }
    rows
}
