//! Balancing: how many copies of each train sample to make, so that rare classes count as much as common ones.
//!
//! Index arithmetic over labels: it is done before a byte is read, and a sample with zero copies never is.
//! With n_c the images of class c, over the classes that have any, and r the ratio, the target of a class is
//!
//! | mode | target of class c |
//! |---|---|
//! | `none` | n_c |
//! | `over` | at least ⌈r · max n⌉: smaller classes are raised to it, larger ones stay |
//! | `under` | at most ⌊min n / r⌋: larger classes are cut to it, smaller ones stay |
//! | `both` | between ⌈m · √r⌉ and ⌊m / √r⌋ with m = √(min n · max n); where no whole number lies between, m rounded |
//! | `sqrt` | Σn · √n_c / Σ√n, rounded so that the sum stays Σn (largest remainders first, then the lower class) |
//! | `effective-number` | Σn · (n_c / E_c) / Σ(n / E) with the effective numbers E_c = (1 - β^n_c) / (1 - β) of Cui et al. 2019, rounded as for `sqrt`: β 0 leaves the classes as they are, and β towards 1 evens them out |
//! | `repeat-factor` | n_c · max(1, √(t / f_c)) to the nearest whole number, with f_c = n_c / Σn, as LVIS repeats images (Gupta et al. 2019); t is one over the number of classes where none is given |
//! | `targets` | what a table says, and n_c of a class that it does not name |
//! | `smote`, `borderline-smote`, `adasyn` | n_c: features are made instead, see [`BalanceOptions::feature_targets`] |
//!
//! and never more than n_c times the most repeats. A class without images stays without. A product within
//! 10⁻⁹ of a whole number counts as that number, so that 0.1 · 30 is 3. Within a class with target t each
//! image gets ⌊t / n⌋ copies, and t mod n of them, those that `seed.rank("balance", id, 0, 0)` puts first, one
//! more. After `over`, `under` or `both` without a cap, every class holds at least r times the largest.

use std::collections::BTreeMap;

use forebay_datasets::seed::Seed;
use forebay_datasets::split::TrainSamples;
use forebay_datasets::words;
use serde::{Deserialize, Serialize};

/// How the classes of the train split are evened out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// As they come.
    #[default]
    None,
    /// Images of rare classes are repeated.
    Over,
    /// Images of common classes are dropped.
    Under,
    /// Both, towards the geometric mean of the smallest and the largest class.
    Both,
    /// Classes in proportion to the square roots of their sizes, and as many images in all as before.
    Sqrt,
    /// Classes in proportion to their images over their effective numbers, and as many images in all as before.
    EffectiveNumber,
    /// Images of classes rarer than a share are repeated, by the square root of how much rarer they are.
    RepeatFactor,
    /// As many images of each class as a table says.
    Targets,
    /// Features of rare classes are made between those that are there: no image is repeated or dropped.
    Smote,
    /// The same from those that lie among other classes.
    BorderlineSmote,
    /// The same, the more the more other classes lie around one.
    Adasyn,
}

words!(Balance {
    None => "none",
    Over => "over",
    Under => "under",
    Both => "both",
    Sqrt => "sqrt",
    EffectiveNumber => "effective-number",
    RepeatFactor => "repeat-factor",
    Targets => "targets",
    Smote => "smote",
    BorderlineSmote => "borderline-smote",
    Adasyn => "adasyn",
});

impl Balance {
    /// Whether it makes features and leaves the images as they are.
    pub fn makes_features(self) -> bool {
        matches!(self, Balance::Smote | Balance::BorderlineSmote | Balance::Adasyn)
    }
}

/// The settings of balancing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalanceOptions {
    /// What is done.
    pub mode: Balance,
    /// The least that the smallest class may be of the largest afterwards, in `(0, 1]`; `sqrt` takes none.
    pub ratio: f64,
    /// The most copies of one image, at least 1.
    pub max_repeats: u32,
    /// Beta of the effective numbers, at least 0 and below 1.
    pub beta: f64,
    /// The share of the images below which `repeat-factor` repeats those of a class, above 0 and at most 1; `None` for one
    /// over the number of classes that have any.
    pub threshold: Option<f64>,
    /// The images of each class that `targets` asks for, by name.
    pub targets: BTreeMap<String, u64>,
}

impl BalanceOptions {
    /// A mode with ratio 1 and what else is the default: at most 100 copies, and beta 0.9999.
    pub fn of(mode: Balance) -> BalanceOptions {
        BalanceOptions {
            mode,
            ratio: 1.0,
            max_repeats: 100,
            beta: 0.9999,
            threshold: None,
            targets: BTreeMap::new(),
        }
    }
}

impl BalanceOptions {
    /// Every problem of the settings, one line each, as a plan lists them.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = vec![];
        if !(self.ratio > 0.0 && self.ratio <= 1.0) {
            problems.push(format!("balance.ratio: {} is not above 0 and at most 1", self.ratio));
        }
        if self.max_repeats == 0 {
            problems.push("balance.max_repeats: 0 would drop every image".to_string());
        }
        if !(0.0..1.0).contains(&self.beta) {
            problems.push(format!("balance.beta: {} is not at least 0 and below 1", self.beta));
        }
        if let Some(threshold) = self.threshold.filter(|share| !(*share > 0.0 && *share <= 1.0)) {
            problems.push(format!("balance.threshold: {threshold} is not above 0 and at most 1"));
        }
        if self.mode == Balance::Targets && self.targets.is_empty() {
            problems.push(
                "balance.targets: --balance targets needs a number for at least one class: a table [balance.targets] in the run \
                 file, or --balance-targets FILE"
                    .to_string(),
            );
        }
        problems
    }
}

impl BalanceOptions {
    /// A line for each class that the table of targets names and that there is not, or that has no image to be repeated.
    pub fn problems_of(&self, classes: &[String], counts: &[u64]) -> Vec<String> {
        let named = self.targets.iter().filter(|_| self.mode == Balance::Targets);
        let problem = |(name, target): (&String, &u64)| match classes.iter().position(|class| class == name) {
            None => Some(format!("balance.targets: {name:?} is no class of the source")),
            Some(class) if counts[class] == 0 && *target > 0 => {
                Some(format!("balance.targets: {name:?} has no training image that could be repeated"))
            }
            Some(_) => None,
        };
        named.filter_map(problem).collect()
    }

    /// How many features of each class there are to be where features are made, from how many images there are: as for
    /// `over`, without a cap.
    pub fn feature_targets(&self, counts: &[u64]) -> Vec<u64> {
        targets(counts, &[], &BalanceOptions { mode: Balance::Over, ..self.clone() })
    }
}

/// How many copies to make of each train sample, in the order of `train.samples()`; 0 drops it. `classes` are the names of
/// the labels.
///
/// # Panics
/// When the options have [`problems`](BalanceOptions::problems).
pub fn copies(train: &TrainSamples, classes: &[String], options: &BalanceOptions, seed: Seed) -> Vec<u32> {
    let problems = options.problems();
    assert!(problems.is_empty(), "balance with {problems:?}");
    let counts = train.counts();
    let targets = capped(&counts, &targets(&counts, classes, options), options);

    let mut by_class: Vec<Vec<(u128, usize)>> = vec![vec![]; train.classes()];
    for (index, (id, label)) in train.samples().iter().enumerate() {
        by_class[*label as usize].push((seed.rank("balance", id, 0, 0), index));
    }
    let mut copies = vec![0; train.samples().len()];
    for (class, target) in by_class.iter_mut().zip(targets) {
        class.sort_unstable();
        let n = class.len() as u64;
        for (rank, (_, index)) in (0..).zip(class.iter()) {
            let number = target / n + u64::from(rank < target % n);
            copies[*index] = u32::try_from(number).expect("a target is at most max_repeats a sample");
        }
    }
    copies
}

/// `[classes]`: the wanted number of images of each class, before the cap.
fn targets(counts: &[u64], classes: &[String], options: &BalanceOptions) -> Vec<u64> {
    let filled = || counts.iter().copied().filter(|n| *n > 0);
    let (Some(least), Some(most)) = (filled().min(), filled().max()) else { return counts.to_vec() };
    let (least, most, ratio) = (least as f64, most as f64, options.ratio);
    let (low, high) = match options.mode {
        Balance::None | Balance::Smote | Balance::BorderlineSmote | Balance::Adasyn => {
            return counts.to_vec();
        }
        Balance::Sqrt => return in_proportion(counts, |n| n.sqrt()),
        Balance::EffectiveNumber => {
            let beta = options.beta;
            return in_proportion(counts, |n| n * (1.0 - beta) / (1.0 - beta.powf(n)));
        }
        Balance::RepeatFactor => {
            let threshold = options.threshold.unwrap_or(1.0 / filled().count() as f64);
            let total = counts.iter().sum::<u64>() as f64;
            let target = |n: f64| (n * (threshold * total / n).sqrt().max(1.0)).round() as u64;
            return counts.iter().map(|n| if *n == 0 { 0 } else { target(*n as f64) }).collect();
        }
        Balance::Targets => {
            let named = |class: usize| classes.get(class).and_then(|name| options.targets.get(name)).copied();
            return counts.iter().enumerate().map(|(class, n)| named(class).unwrap_or(*n)).collect();
        }
        Balance::Over => (up(ratio * most), u64::MAX),
        Balance::Under => (0, down(least / ratio)),
        Balance::Both => {
            let middle = (least * most).sqrt();
            let (low, high) = (up(middle * ratio.sqrt()), down(middle / ratio.sqrt()));
            if low <= high { (low, high) } else { (middle.round() as u64, middle.round() as u64) }
        }
    };
    counts.iter().map(|n| if *n == 0 { 0 } else { (*n).clamp(low, high) }).collect()
}

/// As many images in all, and of each class in proportion to a weight of its number, which rises with that number and less
/// than it does.
fn in_proportion(counts: &[u64], weight: impl Fn(f64) -> f64) -> Vec<u64> {
    let total: u64 = counts.iter().sum();
    let weights: Vec<f64> = counts.iter().map(|n| if *n == 0 { 0.0 } else { weight(*n as f64) }).collect();
    let all: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights.iter().map(|weight| total as f64 * weight / all).collect();
    // No class is lost: the smallest is raised, so that all are at least what that one was.
    let mut targets: Vec<u64> = exact.iter().map(|exact| down(*exact)).collect();
    let mut order: Vec<usize> = (0..counts.len()).filter(|class| counts[*class] > 0).collect();
    let remainder = |class: usize| exact[class] - targets[class] as f64;
    order.sort_by(|a, b| remainder(*b).total_cmp(&remainder(*a)).then(a.cmp(b)));
    let rest = total.saturating_sub(targets.iter().sum::<u64>());
    for class in order.into_iter().take(rest as usize) {
        targets[class] += 1;
    }
    targets
}

fn capped(counts: &[u64], targets: &[u64], options: &BalanceOptions) -> Vec<u64> {
    counts.iter().zip(targets).map(|(n, target)| (*target).min(n * u64::from(options.max_repeats))).collect()
}

/// Rounds up and down, with 10⁻⁹ of tolerance for products that should be whole.
fn up(x: f64) -> u64 {
    (x - 1e-9).ceil() as u64
}

fn down(x: f64) -> u64 {
    (x + 1e-9).floor() as u64
}

/// What balancing did, for the summary of a run and the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceSummary {
    /// `[classes]`.
    pub classes: Vec<ClassBalance>,
    /// Train images with zero copies.
    pub dropped: u64,
}

/// One class of the train split before and after balancing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassBalance {
    /// Its images in the source.
    pub before: u64,
    /// Its rows afterwards, copies included.
    pub after: u64,
    /// The rows it should have had when the most repeats kept it below.
    pub wanted: Option<u64>,
}

impl BalanceSummary {
    /// Sums up `copies` of these samples, as [`copies`] gave them.
    ///
    /// # Panics
    /// When there is not one number of copies per sample.
    pub fn of(
        train: &TrainSamples,
        classes: &[String],
        copies: &[u32],
        options: &BalanceOptions,
    ) -> BalanceSummary {
        assert_eq!(train.samples().len(), copies.len(), "one number of copies per sample");
        let counts = train.counts();
        let mut after = vec![0; train.classes()];
        for ((_, label), n) in train.samples().iter().zip(copies) {
            after[*label as usize] += u64::from(*n);
        }
        let classes = counts.iter().zip(&after).zip(targets(&counts, classes, options)).map(
            |((before, after), target)| ClassBalance {
                before: *before,
                after: *after,
                wanted: (target > *after).then_some(target),
            },
        );
        let dropped = copies.iter().filter(|n| **n == 0).count() as u64;
        BalanceSummary { classes: classes.collect(), dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_datasets::sample::{SampleId, Split};

    fn train(counts: &[u64]) -> TrainSamples {
        let ids: Vec<(SampleId, u32)> = (0..)
            .zip(counts)
            .flat_map(|(label, count)| (0..*count).map(move |n| (format!("{label}/{n}").into(), label)))
            .collect();
        TrainSamples::among(ids.iter().map(|(id, label)| (id, *label, Split::Train)), counts.len())
    }

    fn options(mode: Balance, ratio: f64, max_repeats: u32) -> BalanceOptions {
        BalanceOptions { ratio, max_repeats, ..BalanceOptions::of(mode) }
    }

    /// The names of so many classes: `a`, `b`, ….
    fn names(n: usize) -> Vec<String> {
        (b'a'..).take(n).map(|letter| char::from(letter).to_string()).collect()
    }

    fn check(counts: &[u64], options: BalanceOptions, expected: &[u64]) {
        let (train, names) = (train(counts), names(counts.len()));
        let copies = copies(&train, &names, &options, Seed(1));
        let summary = BalanceSummary::of(&train, &names, &copies, &options);
        let after: Vec<u64> = summary.classes.iter().map(|class| class.after).collect();
        assert_eq!(after, expected, "{counts:?} with {options:?}");
        for (label, class) in (0..).zip(&summary.classes) {
            let own =
                train.samples().iter().zip(&copies).filter(|((_, of), _)| *of == label).map(|(_, n)| *n);
            let (least, most) = own.fold((u32::MAX, 0), |(least, most), n| (least.min(n), most.max(n)));
            assert!(class.before == 0 || most - least <= 1, "copies of one class differ by more than one");
        }
    }

    #[test]
    fn each_mode_reaches_its_target() {
        use Balance::*;
        check(&[100, 10, 0, 37], options(None, 0.5, 10), &[100, 10, 0, 37]);
        check(&[100, 10, 0, 37], options(Over, 1.0, 10), &[100, 100, 0, 100]);
        check(&[100, 10, 0, 37], options(Over, 0.5, 10), &[100, 50, 0, 50]);
        check(&[30, 1], options(Over, 0.1, 10), &[30, 3]);
        check(&[31, 1], options(Over, 0.1, 10), &[31, 4]);
        check(&[100, 10, 0, 37], options(Under, 1.0, 10), &[10, 10, 0, 10]);
        check(&[100, 10, 0, 37], options(Under, 0.3, 10), &[33, 10, 0, 33]);
        check(&[90, 10, 0, 37], options(Both, 1.0, 10), &[30, 30, 0, 30]);
        check(&[90, 10, 0, 37], options(Both, 0.25, 10), &[60, 15, 0, 37]);
        check(&[2, 1], options(Both, 1.0, 10), &[1, 1]);
        check(&[81, 16, 1, 0], options(Sqrt, 1.0, 99), &[63, 28, 7, 0]);
        // 1000, 400 and 40 images are worth 951.7, 392.1 and 39.9 at beta 0.9999: what remains is nearly even.
        check(&[1000, 400, 40, 0], options(EffectiveNumber, 1.0, 99), &[492, 478, 470, 0]);
        let beta = |beta| BalanceOptions { beta, ..options(EffectiveNumber, 1.0, 99) };
        check(&[1000, 40], beta(0.0), &[1000, 40]);
        // Of 1000, 500 and 20 of 1520 images the last is 1/25 of a third: it is repeated √25.33 times.
        check(&[1000, 500, 20, 0], options(RepeatFactor, 1.0, 99), &[1000, 503, 101, 0]);
        let threshold = |share| BalanceOptions { threshold: Some(share), ..options(RepeatFactor, 1.0, 3) };
        check(&[9900, 90, 10], threshold(0.004), &[9900, 90, 20]);
        check(&[9900, 90, 10], threshold(0.001), &[9900, 90, 10]);
        check(&[9900, 90, 10], threshold(0.4), &[9900, 270, 30]);
        let table = BTreeMap::from([("a".to_string(), 5), ("c".to_string(), 7), ("d".to_string(), 0)]);
        check(&[9, 4, 3, 2], BalanceOptions { targets: table, ..options(Targets, 1.0, 99) }, &[5, 4, 7, 0]);
        check(&[], options(Over, 1.0, 10), &[]);
        check(&[0, 0], options(Sqrt, 1.0, 10), &[0, 0]);
    }

    #[test]
    fn the_square_root_and_the_effective_number_keep_the_total() {
        for counts in [vec![1, 2, 3, 5, 8, 1000], vec![7; 13], vec![1, 1, 1], vec![999, 1]] {
            for mode in [Balance::Sqrt, Balance::EffectiveNumber] {
                let targets = targets(&counts, &[], &BalanceOptions::of(mode));
                assert_eq!(
                    targets.iter().sum::<u64>(),
                    counts.iter().sum::<u64>(),
                    "{counts:?}: {targets:?}"
                );
                assert!(targets.iter().all(|target| *target > 0));
            }
        }
    }

    #[test]
    fn the_cap_holds_and_is_reported() {
        let train = train(&[100, 10, 3]);
        let options = options(Balance::Over, 1.0, 5);
        let copies = copies(&train, &names(3), &options, Seed(1));
        let summary = BalanceSummary::of(&train, &names(3), &copies, &options);
        assert_eq!(copies.iter().max(), Some(&5));
        let class = |before, after, wanted| ClassBalance { before, after, wanted };
        assert_eq!(
            summary.classes,
            [class(100, 100, None), class(10, 50, Some(100)), class(3, 15, Some(100))]
        );
        assert_eq!(summary.dropped, 0);
    }

    #[test]
    fn which_image_is_dropped_or_repeated_depends_on_the_seed_and_on_no_other_class() {
        let under = options(Balance::Under, 1.0, 10);
        let copies = |counts: &[u64], seed| copies(&train(counts), &names(counts.len()), &under, Seed(seed));
        let first = copies(&[20, 5], 1);
        assert_eq!(first.iter().filter(|n| **n == 0).count(), 15);
        assert_ne!(first, copies(&[20, 5], 2));
        assert_eq!(first[..20], copies(&[20, 5, 9], 1)[..20]);
    }

    #[test]
    fn settings_that_make_no_sense_are_problems() {
        assert!(options(Balance::None, 1.0, 1).problems().is_empty());
        for ratio in [0.0, -1.0, 1.1, f64::NAN] {
            assert_eq!(options(Balance::Over, ratio, 1).problems().len(), 1);
        }
        assert_eq!(options(Balance::Over, 2.0, 0).problems().len(), 2);
        let beta = BalanceOptions { beta: 1.0, ..options(Balance::EffectiveNumber, 1.0, 1) };
        assert_eq!(beta.problems().len(), 1);
        let threshold = BalanceOptions { threshold: Some(0.0), ..options(Balance::RepeatFactor, 1.0, 1) };
        assert_eq!(threshold.problems().len(), 1);
        assert_eq!(options(Balance::Targets, 1.0, 1).problems().len(), 1);
        let table = BTreeMap::from([("a".to_string(), 5), ("b".to_string(), 7), ("x".to_string(), 1)]);
        let targets = BalanceOptions { targets: table, ..options(Balance::Targets, 1.0, 1) };
        assert_eq!(targets.problems_of(&names(2), &[3, 0]).len(), 2);
        assert_eq!("both".parse(), Ok(Balance::Both));
        assert_eq!(
            "most".parse::<Balance>(),
            Err("\"most\" is not one of none, over, under, both, sqrt, effective-number, repeat-factor, targets, smote, borderline-smote, adasyn"
                .to_string())
        );
    }
}
