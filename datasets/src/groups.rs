//! Which samples belong together, so that no split and no fold tears them apart: copies of an image, photos of a patient.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::sample::{Label, SampleId, Split};
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

/// Groups of samples by the classes that they have, for whoever deals groups and is to meet a share of each class.
pub(crate) struct ClassGroups<'a> {
    /// How many samples each group has of each of its classes, in the order in which they come.
    pub(crate) counts: HashMap<&'a SampleId, Vec<(Label, usize)>>,
    /// How many samples each class has.
    pub(crate) totals: Vec<usize>,
}

impl<'a> ClassGroups<'a> {
    pub(crate) fn of(samples: impl Iterator<Item = (&'a SampleId, Label)>) -> ClassGroups<'a> {
        let mut groups = ClassGroups { counts: HashMap::new(), totals: Vec::new() };
        for (group, label) in samples {
            let n_classes = groups.totals.len().max(label as usize + 1);
            groups.totals.resize(n_classes, 0);
            groups.totals[label as usize] += 1;
            let counts = groups.counts.entry(group).or_default();
            match counts.iter_mut().find(|(of, _)| *of == label) {
                Some((_, n)) => *n += 1,
                None => counts.push((label, 1)),
            }
        }
        groups
    }

    /// How many groups have samples of each class.
    pub(crate) fn groups_of_classes(&self) -> Vec<usize> {
        let mut n = vec![0; self.totals.len()];
        self.counts.values().flatten().for_each(|(label, _)| n[*label as usize] += 1);
        n
    }

    /// The classes, the rarest first, each with the groups of which it is the rarest class, and their samples of it: what is rare
    /// is dealt while there is room for it everywhere.
    pub(crate) fn by_rarest_class(&self) -> Vec<(Label, Vec<(&'a SampleId, usize)>)> {
        let rarity = |label: Label| (self.totals[label as usize], label);
        let mut of_class: BTreeMap<(usize, Label), Vec<(&'a SampleId, usize)>> = BTreeMap::new();
        for (group, counts) in &self.counts {
            let rarest = counts.iter().min_by_key(|(label, _)| rarity(*label));
            let (label, n) = rarest.expect("a group has samples");
            of_class.entry(rarity(*label)).or_default().push((group, *n));
        }
        of_class.into_iter().map(|((_, label), groups)| (label, groups)).collect()
    }
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
