//! Which samples the model learns from, which choose the best checkpoint, and which it never sees.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::catalog::{Catalog, Entry};
use crate::groups::{self, ClassGroups, SamePicture, Together};
use crate::sample::{Label, SampleId, Split};
use crate::seed::Seed;
use crate::words::few;

/// The shares of all samples that go to each split, on average; they add up to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "[f64; 3]", into = "[f64; 3]")]
pub struct Shares {
    shares: [f64; 3],
}

/// Without the digits that adding leaves behind.
fn rounded(sum: f64) -> f64 {
    (sum * 1e6).round() / 1e6
}

impl Shares {
    /// The shares of train, validation and test.
    ///
    /// # Errors
    /// One line when a share is below 0 or the sum differs from 1 by more than 10⁻⁶.
    pub fn new(train: f64, validation: f64, test: f64) -> Result<Shares, String> {
        let shares = [train, validation, test];
        if shares.iter().any(|share| !share.is_finite() || *share < 0.0) {
            return Err(format!("{train},{validation},{test}: a share is at least 0"));
        }
        let sum: f64 = shares.iter().sum();
        if (sum - 1.0).abs() > 1e-6 {
            return Err(format!(
                "{train},{validation},{test}: the shares add up to {} and not to 1",
                rounded(sum)
            ));
        }
        Ok(Shares { shares })
    }

    /// The share of one split, in `[0, 1]`.
    pub fn of(&self, split: Split) -> f64 {
        self.shares[split as usize]
    }

    /// The splits that are to get samples.
    fn wanted(&self) -> impl Iterator<Item = Split> {
        Split::ALL.into_iter().filter(|split| self.of(*split) > 0.0)
    }

    /// The split of a sample, or of a group of samples that stay together, by its own hash.
    fn split_by_hash(&self, seed: u64, group: &str) -> Split {
        // The upper 53 bits, which a double holds exactly.
        self.split_at((Seed(seed).rank("split", group, 0, 0) >> 75) as f64 / (1u64 << 53) as f64)
    }

    /// The split of a place in `[0, 1)`, the shares laid one after the other. A place that rounding leaves beyond
    /// their sum belongs to the last split that has a share.
    fn split_at(&self, place: f64) -> Split {
        let mut end = 0.0;
        let mut last = Split::Train;
        for split in self.wanted() {
            end += self.of(split);
            last = split;
            if place < end {
                break;
            }
        }
        last
    }
}

/// 0.8, 0.1 and 0.1.
impl Default for Shares {
    fn default() -> Shares {
        Shares { shares: [0.8, 0.1, 0.1] }
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [train, validation, test] = self.shares;
        write!(f, "{train},{validation},{test}")
    }
}

impl TryFrom<[f64; 3]> for Shares {
    type Error = String;

    fn try_from([train, validation, test]: [f64; 3]) -> Result<Shares, String> {
        Shares::new(train, validation, test)
    }
}

impl From<Shares> for [f64; 3] {
    fn from(shares: Shares) -> [f64; 3] {
        shares.shares
    }
}

/// What decides the split of a sample. A setting without effect on that is no part of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum SplitRule {
    /// What the source declares of it; a sample of which it declares nothing is train.
    Declared,
    /// All samples are train.
    AllTrain,
    /// Its own hash, or that of its group, against shares.
    Hash(HashSplit),
}

/// A split by the hash of each sample, or of its group: the split of a sample depends on no other sample, and shares are met
/// on average, not to the image; unless it is stratified.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HashSplit {
    /// The shares of the splits.
    pub shares: Shares,
    /// The seed of the hash.
    pub seed: u64,
    /// What else than the source says which samples belong together.
    #[serde(default)]
    pub together: Together,
    /// Whether each class is cut by the shares for itself, to the sample as far as groups allow: the split of a new sample
    /// then depends on those that are there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stratify: bool,
}

impl SplitRule {
    /// The rule for a source: what it declares, where it declares validation or test, or else the split that was asked
    /// for; without one all is train.
    pub fn of(catalog: &Catalog, wanted: Option<HashSplit>) -> SplitRule {
        match wanted {
            _ if catalog.declares_splits() => SplitRule::Declared,
            None => SplitRule::AllTrain,
            Some(wanted) => SplitRule::Hash(wanted),
        }
    }

    /// The split of an entry by this rule alone.
    fn split(&self, entry: &Entry) -> Split {
        match self {
            SplitRule::Declared => entry.split.unwrap_or(Split::Train),
            SplitRule::AllTrain => Split::Train,
            SplitRule::Hash(HashSplit { shares, seed, .. }) => shares.split_by_hash(*seed, &entry.group),
        }
    }
}

impl fmt::Display for SplitRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SplitRule::Declared => write!(f, "the train, validation and test splits of its source"),
            SplitRule::AllTrain => write!(f, "--split none"),
            SplitRule::Hash(HashSplit { shares, seed, together, stratify }) => {
                write!(f, "--split {shares} --split-seed {seed}")?;
                if *stratify {
                    write!(f, " --stratify")?;
                }
                if together.pictures != SamePicture::default() {
                    write!(f, " --group {}", together.pictures)?;
                }
                together.by.iter().try_for_each(|by| write!(f, " --group-by '{by}'"))
            }
        }
    }
}

/// Sample to split, for *every* sample of a catalog, also those that a balance drops or a stage rejects.
///
/// Samples are sorted by id and each is there once; the constructors see to both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "StoredAssignment", into = "StoredAssignment")]
pub struct Assignment {
    rule: SplitRule,
    samples: Vec<(SampleId, Split)>,
    /// The group of each sample that is not the only one of it, sorted by id.
    groups: Vec<(SampleId, SampleId)>,
}

/// An [`Assignment`] as `plan.json` holds it: the names of each split, sorted.
#[derive(Serialize, Deserialize)]
struct StoredAssignment {
    rule: SplitRule,
    train: Vec<String>,
    validation: Vec<String>,
    test: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    groups: BTreeMap<String, String>,
}

impl Assignment {
    /// The assignment of every entry of a catalog.
    ///
    /// First comes what an earlier assignment of the same rule says of a sample: what it was, it stays. Of the others each
    /// group has one split: that of the first of its samples of which the earlier one says something, or else that of
    /// the rule. See [`Assignment::torn`].
    pub fn of(catalog: &Catalog, rule: SplitRule, earlier: Option<&Assignment>) -> Assignment {
        let known = |entry: &Entry| earlier.filter(|earlier| earlier.rule == rule)?.split(&entry.id);
        let entries = catalog.entries();
        let mut groups: HashMap<&SampleId, Split> = HashMap::new();
        for entry in entries {
            if let Some(split) = known(entry) {
                groups.entry(&entry.group).or_insert(split);
            }
        }
        if let SplitRule::Hash(HashSplit { shares, seed, stratify: true, .. }) = &rule {
            stratify(catalog, shares, Seed(*seed), &mut groups);
        }
        // A catalog is sorted by id and holds each once, and so is this.
        let split = |entry: &Entry| {
            known(entry).or(groups.get(&entry.group).copied()).unwrap_or_else(|| rule.split(entry))
        };
        let samples = entries.iter().map(|entry| (entry.id.clone(), split(entry))).collect();
        let mut sizes: HashMap<&SampleId, u32> = HashMap::new();
        for entry in entries {
            *sizes.entry(&entry.group).or_default() += 1;
        }
        let grouped = entries.iter().filter(|entry| sizes[&entry.group] > 1);
        let groups = grouped.map(|entry| (entry.id.clone(), entry.group.clone())).collect();
        Assignment { rule, samples, groups }
    }

    /// Two samples of one group of the catalog that this has in different splits, for each group that has such: another
    /// sample has joined what was split before.
    pub fn torn<'a>(&self, catalog: &'a Catalog) -> Vec<[&'a Entry; 2]> {
        let entries = catalog.entries().iter().zip(self.splits(catalog));
        groups::torn(entries.map(|(entry, split)| (entry, &entry.group, split)))
    }

    /// The samples that are not alone in their group, sorted by id, each with its group.
    pub fn groups(&self) -> &[(SampleId, SampleId)] {
        &self.groups
    }

    /// The group of a sample that was not alone in its own.
    pub fn group(&self, id: &str) -> Option<&SampleId> {
        let index = self.groups.binary_search_by(|(sample, _)| (**sample).cmp(id)).ok()?;
        Some(&self.groups[index].1)
    }

    /// What decided the split of each sample.
    pub fn rule(&self) -> &SplitRule {
        &self.rule
    }

    /// The split of a sample; `None` for one that is not among them.
    pub fn split(&self, id: &str) -> Option<Split> {
        let index = self.samples.binary_search_by(|(sample, _)| (**sample).cmp(id)).ok()?;
        Some(self.samples[index].1)
    }

    /// Every sample and its split, sorted by id.
    pub fn samples(&self) -> &[(SampleId, Split)] {
        &self.samples
    }

    /// The split of each entry of the catalog that this is the assignment of, in its order.
    ///
    /// # Panics
    /// When it is the assignment of another catalog.
    pub fn splits(&self, catalog: &Catalog) -> Vec<Split> {
        let of = |(index, entry): (usize, &Entry)| match self.samples.get(index) {
            // Both are sorted, so that as a rule it is at the same place.
            Some((id, split)) if *id == entry.id => *split,
            _ => self.split(&entry.id).expect("an assignment holds every sample of its catalog"),
        };
        catalog.entries().iter().enumerate().map(of).collect()
    }

    /// What a user would want to know of it, one line each: the classes that get no image in a split that has a
    /// share, and the smallest seed that would give every class one in each.
    pub fn warnings(&self, catalog: &Catalog) -> Vec<String> {
        let SplitRule::Hash(HashSplit { shares, stratify, .. }) = &self.rule else { return vec![] };
        let mut counts = vec![[0u64; 3]; catalog.classes().len()];
        for (entry, split) in catalog.entries().iter().zip(self.splits(catalog)) {
            counts[entry.label as usize][split as usize] += 1;
        }
        let mut warnings = Vec::new();
        for split in shares.wanted() {
            let without: Vec<&str> = (catalog.classes().iter().zip(&counts))
                .filter(|(_, counts)| counts.iter().sum::<u64>() > 0 && counts[split as usize] == 0)
                .map(|(class, _)| class.as_str())
                .collect();
            if !without.is_empty() {
                warnings.push(format!("no image in {split}: class {}", few(&without)));
            }
        }
        if !warnings.is_empty() && !stratify {
            warnings.push(match smallest_seed(catalog, shares) {
                Ok(seed) => format!("--split-seed {seed} gives every class an image in each split"),
                Err(reason) => reason,
            });
        }
        warnings
    }
}

/// Adds the split of every group that has none yet: of each class the shares are met as nearly as its groups allow, those
/// that have a split already included, and what a class lacks or has too much of a split, up to an image, goes to the next
/// one, so that the whole meets the shares too. A group counts for each class by its samples of it.
fn stratify<'a>(
    catalog: &'a Catalog,
    shares: &Shares,
    seed: Seed,
    splits: &mut HashMap<&'a SampleId, Split>,
) {
    let groups = ClassGroups::of(catalog.entries().iter().map(|entry| (&entry.group, entry.label)));
    // Of each class, what is in each split.
    let mut assigned = vec![[0.0; 3]; groups.totals.len()];
    for (group, split) in splits.iter() {
        for (label, n) in groups.counts.get(*group).into_iter().flatten() {
            assigned[*label as usize][*split as usize] += *n as f64;
        }
    }
    let mut lacking = [0.0; 3];
    for (label, mut of_class) in groups.by_rarest_class() {
        // The large ones first, while there is room for them everywhere; among those of a size in an order that tells
        // nothing, so that those of one folder do not end up in one split.
        of_class.sort_by_cached_key(|(group, n)| (Reverse(*n), seed.rank("split", group, 0, 0)));
        let total = groups.totals[label as usize] as f64;
        let mut wanting = Split::ALL.map(|split| {
            let at = split as usize;
            shares.of(split) * total - assigned[label as usize][at] + f64::clamp(lacking[at], -1.0, 1.0)
        });
        for (group, n) in of_class {
            if splits.contains_key(group) {
                continue;
            }
            let most = shares.wanted().reduce(|most, split| {
                if wanting[split as usize] > wanting[most as usize] { split } else { most }
            });
            let split = most.expect("shares add up to 1");
            wanting[split as usize] -= n as f64;
            for (label, n) in &groups.counts[group] {
                assigned[*label as usize][split as usize] += *n as f64;
            }
            splits.insert(group, split);
        }
        lacking = wanting;
    }
}

/// Hashes that the search for a seed may take: about a second.
const SEARCH_HASHES_MAX: usize = 4_000_000;

/// The smallest seed that gives every class an image in every split that has a share, or why none was found.
fn smallest_seed(catalog: &Catalog, shares: &Shares) -> Result<u64, String> {
    let wanted: Vec<Split> = shares.wanted().collect();
    let mut groups: Vec<Vec<&str>> = vec![vec![]; catalog.classes().len()];
    for entry in catalog.entries() {
        groups[entry.label as usize].push(&entry.group);
    }
    for class in &mut groups {
        class.sort_unstable();
        class.dedup();
    }
    groups.retain(|class| !class.is_empty());
    // The smallest class fails first, so that most seeds cost a few hashes.
    groups.sort_by_key(Vec::len);
    if groups.first().is_some_and(|class| class.len() < wanted.len()) {
        let n = groups.iter().filter(|class| class.len() < wanted.len()).count();
        let splits = wanted.len();
        return Err(format!("{n} of the classes have fewer images than there are splits ({splits})"));
    }
    let mut hashes = 0;
    for seed in 0.. {
        let serves = |class: &Vec<&str>, hashes: &mut usize| {
            let mut seen = [false; 3];
            for group in class {
                *hashes += 1;
                seen[shares.split_by_hash(seed, group) as usize] = true;
                if wanted.iter().all(|split| seen[*split as usize]) {
                    return true;
                }
            }
            false
        };
        if groups.iter().all(|class| serves(class, &mut hashes)) {
            return Ok(seed);
        }
        if hashes > SEARCH_HASHES_MAX {
            return Err(format!("no --split-seed up to {seed} gives every class an image in each split"));
        }
    }
    unreachable!("the search ends by its limit")
}

impl From<Assignment> for StoredAssignment {
    fn from(assignment: Assignment) -> StoredAssignment {
        let of = |wanted: Split| {
            let samples = assignment.samples.iter().filter(|(_, split)| *split == wanted);
            samples.map(|(id, _)| id.to_string()).collect()
        };
        StoredAssignment {
            rule: assignment.rule,
            train: of(Split::Train),
            validation: of(Split::Validation),
            test: of(Split::Test),
            groups: assignment.groups.iter().map(|(id, group)| (id.to_string(), group.to_string())).collect(),
        }
    }
}

impl TryFrom<StoredAssignment> for Assignment {
    type Error = String;

    fn try_from(stored: StoredAssignment) -> Result<Assignment, String> {
        let StoredAssignment { rule, train, validation, test, groups } = stored;
        let mut samples: Vec<(SampleId, Split)> = [train, validation, test]
            .into_iter()
            .zip(Split::ALL)
            .flat_map(|(ids, split)| ids.into_iter().map(move |id| (id.into(), split)))
            .collect();
        samples.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        match samples.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(format!("{} is in the assignment twice", pair[0].0)),
            // A map is sorted.
            None => Ok(Assignment {
                rule,
                samples,
                groups: groups.into_iter().map(|(id, group)| (id.into(), group.into())).collect(),
            }),
        }
    }
}

/// Samples of the train split and of no other: what may be balanced. Its only constructor takes the split of
/// each sample and keeps those of train, so that a test image cannot be repeated or dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainSamples {
    samples: Vec<(SampleId, Label)>,
    classes: usize,
}

impl TrainSamples {
    /// The train samples among `samples`, in their order; labels are below `classes`.
    ///
    /// # Panics
    /// When a label is not below `classes`.
    pub fn among<'a>(
        samples: impl IntoIterator<Item = (&'a SampleId, Label, Split)>,
        classes: usize,
    ) -> TrainSamples {
        let samples: Vec<_> = samples
            .into_iter()
            .filter(|(_, _, split)| *split == Split::Train)
            .map(|(id, label, _)| (SampleId::clone(id), label))
            .collect();
        for (id, label) in &samples {
            assert!((*label as usize) < classes, "{id} has label {label} of {classes} classes");
        }
        TrainSamples { samples, classes }
    }

    /// The train samples of a catalog whose entries have these splits; see [`Assignment::splits`].
    ///
    /// # Panics
    /// When there is not one split per entry.
    pub fn of(catalog: &Catalog, splits: &[Split]) -> TrainSamples {
        assert_eq!(catalog.entries().len(), splits.len(), "one split per entry");
        let samples =
            catalog.entries().iter().zip(splits).map(|(entry, split)| (&entry.id, entry.label, *split));
        TrainSamples::among(samples, catalog.classes().len())
    }

    /// Name and label of each, in the order they came.
    pub fn samples(&self) -> &[(SampleId, Label)] {
        &self.samples
    }

    /// The number of classes, those without a sample included.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// `[classes]`: the samples of each class.
    pub fn counts(&self) -> Vec<u64> {
        let mut counts = vec![0; self.classes];
        for (_, label) in &self.samples {
            counts[*label as usize] += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Locator, SourceContents};
    use crate::store::Version;

    fn of_entries(classes: usize, entries: Vec<Entry>, declared: Option<Split>) -> Catalog {
        let classes = (0..classes).map(|class| class.to_string()).collect();
        let declared = declared.into_iter().collect();
        Catalog::new(SourceContents { classes, entries, declared, ..SourceContents::default() })
            .expect("a catalog")
    }

    /// A catalog of classes with so many images each.
    fn catalog(counts: &[usize], declared: Option<Split>) -> Catalog {
        let mut entries = vec![];
        for (label, count) in (0..).zip(counts) {
            for n in 0..*count {
                let id = format!("{label}/{n:05}");
                let locator = Locator::whole(id.as_str().into(), 1);
                entries.push(Entry::new(id.into(), label, None, locator, Version::UNKNOWN));
            }
        }
        if let (Some(split), Some(first)) = (declared, entries.first_mut()) {
            first.split = Some(split);
        }
        of_entries(counts.len(), entries, declared)
    }

    fn rule(train: f64, validation: f64, test: f64, seed: u64) -> SplitRule {
        let shares = Shares::new(train, validation, test).expect("shares");
        SplitRule::Hash(HashSplit { shares, seed, ..HashSplit::default() })
    }

    fn cut(catalog: &Catalog, rule: SplitRule) -> Vec<Split> {
        Assignment::of(catalog, rule, None).splits(catalog)
    }

    #[test]
    fn shares_are_met_on_average() {
        let catalog = catalog(&[20_000], None);
        for shares in [[0.8, 0.1, 0.1], [0.5, 0.25, 0.25], [0.7, 0.3, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
        {
            let splits = cut(&catalog, rule(shares[0], shares[1], shares[2], 3));
            for split in Split::ALL {
                let n = splits.iter().filter(|of| **of == split).count() as f64;
                let share = shares[split as usize];
                // Five standard deviations of a binomial draw.
                let bound = 5.0 * (20_000.0 * share * (1.0 - share)).sqrt();
                assert!((n - 20_000.0 * share).abs() <= bound, "{split} of {shares:?}: {n}");
            }
        }
        assert!(cut(&catalog, SplitRule::AllTrain).iter().all(|split| *split == Split::Train));
    }

    #[test]
    fn another_seed_is_another_cut_and_the_same_seed_the_same() {
        let catalog = catalog(&[100], None);
        let of = |seed| cut(&catalog, rule(0.8, 0.1, 0.1, seed));
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn adding_or_dropping_images_or_classes_moves_no_other_without_any_memory() {
        for seed in 0..20 {
            let rule = rule(0.6, 0.2, 0.2, seed);
            let whole = Assignment::of(&catalog(&[300, 40, 7], None), rule.clone(), None);
            let mut part = catalog(&[300, 40], None).entries().to_vec();
            part.retain(|entry| !Seed(seed).rank("keep", &entry.id, 0, 0).is_multiple_of(3));
            let part = Assignment::of(&of_entries(2, part, None), rule, None);
            assert!(part.samples().len() < 300);
            for (id, split) in part.samples() {
                assert_eq!(whole.split(id), Some(*split), "{id}, seed {seed}");
            }
        }
    }

    #[test]
    fn every_sample_has_one_split_and_comes_back_from_json() {
        let catalog = catalog(&[50, 3], None);
        let assignment = Assignment::of(&catalog, rule(0.5, 0.25, 0.25, 1), None);
        assert_eq!(assignment.samples().len(), catalog.entries().len());
        let json = serde_json::to_string(&assignment).expect("writes");
        assert_eq!(serde_json::from_str::<Assignment>(&json).expect("reads"), assignment);
        let twice = r#"{"rule":{"by":"all-train"},"train":["a","b"],"validation":[],"test":["a"]}"#;
        let error = serde_json::from_str::<Assignment>(twice).unwrap_err().to_string();
        assert!(error.starts_with("a is in the assignment twice"), "{error}");
    }

    #[test]
    fn a_rule_holds_only_what_decides_a_split() {
        let (declared, plain) = (catalog(&[3], Some(Split::Validation)), catalog(&[3], None));
        let wanted = HashSplit { seed: 7, ..HashSplit::default() };
        for wanted in [None, Some(wanted.clone())] {
            assert_eq!(SplitRule::of(&declared, wanted), SplitRule::Declared);
        }
        assert_eq!(SplitRule::of(&plain, Some(wanted.clone())), SplitRule::Hash(wanted));
        // A train folder alone leaves the cut to the shares.
        let lone = catalog(&[3], Some(Split::Train));
        assert_eq!(SplitRule::of(&lone, None), SplitRule::AllTrain);
        assert_eq!(cut(&lone, rule(0.0, 0.0, 1.0, 0)), [Split::Test; 3]);
        assert_eq!(cut(&declared, SplitRule::Declared), [Split::Validation, Split::Train, Split::Train]);
    }

    /// Pairs of samples that belong together, which the names of the samples alone would part.
    fn pairs(split: impl Fn(usize) -> Option<Split>) -> Result<Catalog, String> {
        let entries = catalog(&[40], None).entries().to_vec().into_iter().enumerate();
        let entries =
            entries.map(|(n, entry)| Entry { group: format!("{}", n / 2).into(), split: split(n), ..entry });
        let (classes, declared) = (vec!["0".to_string()], Split::ALL.into());
        Catalog::new(SourceContents {
            classes,
            entries: entries.collect(),
            declared,
            ..SourceContents::default()
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn samples_of_one_group_are_in_one_split_whatever_decides_it() {
        let catalog = pairs(|n| Some(Split::ALL[n / 2 % 3])).expect("a catalog");
        for rule in [rule(0.4, 0.3, 0.3, 1), SplitRule::Declared] {
            let splits = cut(&catalog, rule.clone());
            assert!(splits.chunks(2).all(|pair| pair[0] == pair[1]), "{rule}: {splits:?}");
            assert!(Split::ALL.into_iter().all(|split| splits.contains(&split)), "{rule}: {splits:?}");
        }
        // Of a group that is half known, the other half follows.
        let ids: Vec<SampleId> = catalog.entries().iter().map(|entry| entry.id.clone()).collect();
        let other = |split: Split| Split::ALL[(split as usize + 1) % 3];
        let moved: Vec<Split> = cut(&catalog, SplitRule::Declared).into_iter().map(other).collect();
        let samples = ids.iter().cloned().zip(moved.iter().copied()).step_by(2).collect();
        let half = Assignment { rule: SplitRule::Declared, samples, groups: vec![] };
        let splits = Assignment::of(&catalog, SplitRule::Declared, Some(&half)).splits(&catalog);
        assert_eq!(splits, moved);
        assert_eq!(
            Assignment::of(&catalog, SplitRule::Declared, Some(&half)).torn(&catalog),
            <[[&Entry; 2]; 0]>::default()
        );
    }

    #[test]
    fn a_sample_that_joins_what_was_split_moves_nothing_and_is_named() {
        // Three of the group are known, in two splits; the fourth comes to the first of them.
        let mut entries = catalog(&[4], None).entries().to_vec();
        for entry in &mut entries {
            entry.group = "g".into();
        }
        let catalog = of_entries(1, entries, None);
        let rule = rule(0.0, 0.5, 0.5, 0);
        let known = [Split::Test, Split::Train, Split::Test];
        let ids = catalog.entries().iter().map(|entry| entry.id.clone());
        let earlier =
            Assignment { rule: rule.clone(), samples: ids.skip(1).zip(known).collect(), groups: vec![] };
        let now = Assignment::of(&catalog, rule, Some(&earlier));
        assert_eq!(now.splits(&catalog), [Split::Test, Split::Test, Split::Train, Split::Test]);
        let torn: Vec<[&str; 2]> =
            now.torn(&catalog).iter().map(|pair| pair.map(|entry| &*entry.id)).collect();
        assert_eq!(torn, [["0/00000", "0/00002"]]);
        assert_eq!(now.group("0/00003").map(|group| &**group), Some("g"));
    }

    #[test]
    fn a_stratified_split_meets_the_shares_in_each_class_and_moves_nothing_later() {
        let SplitRule::Hash(wanted) = rule(0.6, 0.2, 0.2, 1) else { panic!("a rule by hash") };
        let rule = SplitRule::Hash(HashSplit { stratify: true, ..wanted });
        let count = |catalog: &Catalog, assignment: &Assignment, class: u32| {
            let splits = assignment.splits(catalog);
            let of = |split| {
                let is = |(entry, of): &(&Entry, &Split)| entry.label == class && **of == split;
                catalog.entries().iter().zip(&splits).filter(is).count()
            };
            Split::ALL.map(of)
        };
        let small = catalog(&[50, 5, 10], None);
        let first = Assignment::of(&small, rule.clone(), None);
        assert_eq!([0, 1, 2].map(|class| count(&small, &first, class)), [[30, 10, 10], [3, 1, 1], [6, 2, 2]]);
        let large = catalog(&[100, 5, 25], None);
        let second = Assignment::of(&large, rule.clone(), Some(&first));
        assert_eq!(
            [0, 1, 2].map(|class| count(&large, &second, class)),
            [[60, 20, 20], [3, 1, 1], [15, 5, 5]]
        );
        for (id, split) in first.samples() {
            assert_eq!(second.split(id), Some(*split), "{id}");
        }
        // What classes lack to an image, the whole does not.
        let SplitRule::Hash(wanted) = super::tests::rule(0.8, 0.1, 0.1, 1) else { panic!("a rule by hash") };
        let few = catalog(&[4; 10], None);
        let of = Assignment::of(&few, SplitRule::Hash(HashSplit { stratify: true, ..wanted }), None);
        let all = (0..10)
            .map(|class| count(&few, &of, class))
            .fold([0; 3], |sum, of| [0, 1, 2].map(|i| sum[i] + of[i]));
        assert_eq!(all, [32, 4, 4]);
        // Groups are kept whole.
        let mut entries = catalog(&[40], None).entries().to_vec();
        for (n, entry) in entries.iter_mut().enumerate() {
            entry.group = format!("{}", n / 4).into();
        }
        let grouped = of_entries(1, entries, None);
        let assignment = Assignment::of(&grouped, rule, None);
        assert_eq!(count(&grouped, &assignment, 0), [24, 8, 8]);
        assert!(assignment.torn(&grouped).is_empty());
    }

    #[test]
    fn a_group_that_declares_two_splits_is_an_error_in_one_line() {
        let error = pairs(|n| if n == 7 { Some(Split::Test) } else { None }).expect_err("torn");
        let line =
            "0/00006 is in train and 0/00007 in test, but both belong to 3, which cannot be in two splits";
        assert_eq!(error, line);
    }

    #[test]
    fn an_earlier_assignment_wins_where_it_is_of_the_same_rule() {
        let undecided = catalog(&[3], None);
        let earlier = Assignment {
            rule: SplitRule::Declared,
            samples: vec![("0/00001".into(), Split::Test)],
            groups: vec![],
        };
        let of = |rule| Assignment::of(&undecided, rule, Some(&earlier)).splits(&undecided);
        assert_eq!(of(SplitRule::Declared), [Split::Train, Split::Test, Split::Train]);
        assert_eq!(of(SplitRule::AllTrain), [Split::Train; 3]);
    }

    #[test]
    fn a_class_without_an_image_in_a_split_is_named_with_the_smallest_seed_that_mends_it() {
        let catalog = catalog(&[200, 6], None);
        let serves = |seed: u64| {
            let splits = cut(&catalog, rule(0.5, 0.25, 0.25, seed));
            Split::ALL.into_iter().all(|split| splits[200..].contains(&split))
        };
        let bad = (0..).find(|seed| !serves(*seed)).expect("some seed leaves one out");
        let good = (0..).find(|seed| serves(*seed)).expect("some seed serves all");
        let warnings = |seed| Assignment::of(&catalog, rule(0.5, 0.25, 0.25, seed), None).warnings(&catalog);
        assert_eq!(warnings(good), Vec::<String>::new());
        let said = warnings(bad);
        assert!(said[0].starts_with("no image in ") && said[0].ends_with(": class 1"), "{said:?}");
        let last = format!("--split-seed {good} gives every class an image in each split");
        assert_eq!(said.last(), Some(&last));
        let tiny = self::catalog(&[200, 2], None);
        let said = Assignment::of(&tiny, rule(0.5, 0.25, 0.25, 0), None).warnings(&tiny);
        assert!(said.last().expect("a line").contains("fewer images than there are splits (3)"), "{said:?}");
    }

    #[test]
    fn shares_are_read_and_checked() {
        assert_eq!(Shares::new(0.7, 0.2, 0.1).expect("shares").to_string(), "0.7,0.2,0.1");
        for (shares, problem) in [
            ([0.5, 0.5, 0.5], "0.5,0.5,0.5: the shares add up to 1.5 and not to 1"),
            ([1.5, -0.5, 0.0], "1.5,-0.5,0: a share is at least 0"),
            ([f64::NAN, 0.0, 1.0], "NaN,0,1: a share is at least 0"),
        ] {
            assert_eq!(Shares::try_from(shares), Err(problem.to_string()));
        }
        let json = serde_json::to_string(&Shares::default()).expect("writes");
        assert_eq!(json, "[0.8,0.1,0.1]");
        assert!(serde_json::from_str::<Shares>("[1.0,1.0,0.0]").is_err());
    }

    #[test]
    fn only_train_can_be_balanced() {
        let catalog = catalog(&[2, 1], None);
        let train = TrainSamples::of(&catalog, &[Split::Test, Split::Train, Split::Validation]);
        assert_eq!(train.samples(), [("0/00001".into(), 0)]);
        assert_eq!(train.counts(), [1, 0]);
    }
}
