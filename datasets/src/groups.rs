//! Which samples belong together, so that no split and no fold tears them apart: copies of an image, photos of a patient.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::sample::{SampleId, Split};
use crate::words;

/// Which images belong together by what they show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SamePicture {
    /// None do.
    None,
    /// Those whose files are the same, byte by byte.
    #[default]
    Copies,
    /// Those that show the same picture, re-encoded, resized, cropped a little or mirrored too: see
    /// [`crate::duplicates`].
    Duplicates,
}
words!(SamePicture { None => "none", Copies => "copies", Duplicates => "duplicates" });

/// What decides which samples belong together, beside what the source says of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Together {
    /// By what they show.
    #[serde(default)]
    pub pictures: SamePicture,
    /// By a column of the source, or by a pattern of their ids, as `--group-by` has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// The groups of samples, once those of each pair belong together as well: where two groups are joined they are called by
/// the name of them that is smallest.
///
/// # Panics
/// When a pair is not of two samples.
pub fn join(groups: &[SampleId], pairs: impl IntoIterator<Item = [u32; 2]>) -> Vec<SampleId> {
    let mut names: Vec<&SampleId> = groups.iter().collect();
    names.sort_unstable();
    names.dedup();
    let places: HashMap<&SampleId, u32> = names.iter().copied().zip(0..).collect();
    let mut joined = Joined::new(names.len());
    for pair in pairs {
        let [a, b] = pair.map(|sample| places[&groups[sample as usize]]);
        joined.join(a, b);
    }
    // The root of a set is its smallest place, and names are sorted.
    groups.iter().map(|group| names[joined.root(places[group]) as usize].clone()).collect()
}

/// Two samples in different splits for each group that has such: the first of the group, and the first that is elsewhere.
pub fn torn<'a, T: Copy>(samples: impl IntoIterator<Item = (T, &'a SampleId, Split)>) -> Vec<[T; 2]> {
    let mut firsts: HashMap<&SampleId, Option<(T, Split)>> = HashMap::new();
    let mut torn = Vec::new();
    for (sample, group, split) in samples {
        let first = firsts.entry(group).or_insert(Some((sample, split)));
        if let Some((other, _)) = first.filter(|(_, of_first)| *of_first != split) {
            torn.push([other, sample]);
            // One pair tells of the group.
            *first = None;
        }
    }
    torn
}

/// What is joined (union-find); the root of each is the smallest of its set.
pub(crate) struct Joined {
    above: Vec<u32>,
}

impl Joined {
    pub(crate) fn new(n: usize) -> Joined {
        Joined { above: (0..n as u32).collect() }
    }

    pub(crate) fn root(&mut self, mut at: u32) -> u32 {
        while self.above[at as usize] != at {
            let next = self.above[at as usize];
            self.above[at as usize] = self.above[next as usize];
            at = next;
        }
        at
    }

    /// Whether they were apart.
    pub(crate) fn join(&mut self, a: u32, b: u32) -> bool {
        let (a, b) = (self.root(a), self.root(b));
        self.above[a.max(b) as usize] = a.min(b);
        a != b
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_share_a_pair_are_one_and_called_by_the_smallest_name() {
        let groups: Vec<SampleId> = ["d", "b", "b", "a", "c", "e"].map(Into::into).into();
        let of = |pairs: &[[u32; 2]]| join(&groups, pairs.iter().copied()).join("");
        assert_eq!(of(&[]), "dbbace");
        assert_eq!(of(&[[0, 1]]), "bbbace");
        assert_eq!(of(&[[4, 5], [0, 2], [2, 4]]), "bbbabb");
        assert_eq!(of(&[[4, 5], [0, 2], [2, 4]]), of(&[[4, 2], [5, 0], [0, 4]]));
    }
}
