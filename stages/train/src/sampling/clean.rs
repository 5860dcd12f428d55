//! Rows that lie among those of other classes.

use forebay_datasets::words;

use super::{FeatureRows, by_class};
use crate::ops::nearest;

/// Which rows are taken out of a training split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clean {
    /// None.
    #[default]
    None,
    /// Those of Tomek links: two rows of different classes that are each other's nearest (Tomek 1976).
    Tomek,
    /// Those whose three nearest neighbours are not all of their class (Wilson 1972).
    Enn,
}

words!(Clean { None => "none", Tomek => "tomek", Enn => "enn" });

/// Neighbours that are asked in edited nearest neighbours.
const NEIGHBOURS: usize = 3;

/// How the neighbours of a row decide whether it stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// All must be of its class.
    All,
    /// Its class must be the one that most of them are of, the first of several.
    Majority,
}

impl Clean {
    /// Whether each row stays. Only rows of the classes for which `cleans` is true go.
    ///
    /// # Panics
    /// When there is not one label for each row, or one is none of `cleans`.
    pub fn keeps(self, rows: FeatureRows<'_>, labels: &[u32], cleans: &[bool]) -> Vec<bool> {
        match self {
            Clean::None => vec![true; labels.len()],
            Clean::Tomek => {
                tomek_links(rows, labels, cleans).into_iter().map(|is_linked| !is_linked).collect()
            }
            Clean::Enn => edited_neighbours(rows, labels, cleans, Agreement::All),
        }
    }
}

/// Whether each row is one of a Tomek link and of a class for which `cleans` is true: `TomekLinks` of imbalanced-learn.
///
/// # Panics
/// As [`Clean::keeps`].
pub fn tomek_links(rows: FeatureRows<'_>, labels: &[u32], cleans: &[bool]) -> Vec<bool> {
    assert_eq!(rows.len(), labels.len(), "a label for each row");
    let all: Vec<u32> = (0..labels.len() as u32).collect();
    let neighbours = nearest(rows.values, rows.width, &all, &all, 1);
    let other = |row: u32| neighbours[row as usize].first().copied();
    let is_link = |&row: &u32| {
        let label = labels[row as usize];
        let linked = other(row).filter(|other| labels[*other as usize] != label);
        cleans[label as usize] && linked.is_some_and(|linked| other(linked) == Some(row))
    };
    all.iter().map(is_link).collect()
}

/// Whether each row stays: it agrees with its three nearest neighbours, or is of a class for which `cleans` is false.
/// `EditedNearestNeighbours` of imbalanced-learn, whose `kind_sel` is `all` or `mode`.
///
/// # Panics
/// As [`Clean::keeps`].
pub fn edited_neighbours(
    rows: FeatureRows<'_>,
    labels: &[u32],
    cleans: &[bool],
    agreement: Agreement,
) -> Vec<bool> {
    assert_eq!(rows.len(), labels.len(), "a label for each row");
    let all: Vec<u32> = (0..labels.len() as u32).collect();
    let judged = by_class(labels, cleans.len()).into_iter().zip(cleans).filter(|(_, cleans)| **cleans);
    let judged: Vec<u32> = judged.flat_map(|(rows, _)| rows).collect();
    let mut keeps = vec![true; labels.len()];
    let neighbours = nearest(rows.values, rows.width, &judged, &all, NEIGHBOURS);
    for (row, neighbours) in judged.iter().zip(neighbours) {
        let own = labels[*row as usize];
        let of = |row: &u32| labels[*row as usize];
        keeps[*row as usize] = match agreement {
            Agreement::All => neighbours.iter().all(|row| of(row) == own),
            Agreement::Majority => {
                let votes = |class: u32| neighbours.iter().filter(|row| of(row) == class).count();
                let most = neighbours.iter().map(|row| votes(of(row))).max().unwrap_or(0);
                let first = neighbours.iter().map(of).filter(|class| votes(*class) == most).min();
                first.is_none_or(|first| first == own)
            }
        };
    }
    keeps
}
