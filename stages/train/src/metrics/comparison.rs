//! Two classifiers on the same samples: how far apart they are, and whether that could be chance.

use std::fmt::Write;

use forebay_datasets::escape::printable;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::interval::{coin_p, percentiles, two_sided_p, two_sided_quantile};
use super::measured::{Measured, Totals, draw};
use super::{EvaluationOptions, Scored};

/// Below so many samples on which only one is right, McNemar's test is the exact one.
const EXACT_BELOW: u64 = 25;

/// The probability with which a detectable difference is found.
const POWER: f64 = 0.8;

/// Two classifiers on the same samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// How many samples there are.
    pub samples: u64,
    /// Of these, both are right about so many.
    pub both_right: u64,
    /// Only the first is.
    pub only_first_right: u64,
    /// Only the second is.
    pub only_second_right: u64,
    /// McNemar's test of whether the accuracies differ.
    pub mcnemar: McNemar,
    /// The figures of both, accuracy first.
    pub differences: Vec<Difference>,
    /// The smallest difference of accuracies that these samples would show with a probability of 80 %, given on how many
    /// the two disagree; in (0, 1].
    pub detectable: f64,
    /// The confidence level of the intervals; a test is significant below 1 less it.
    pub level: f64,
}

/// McNemar's test (1947) of whether two classifiers are right equally often.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// The probability of a difference at least so large if there were none.
    pub p: f64,
    /// Whether it is the exact binomial test, else that by χ² with continuity correction.
    pub is_exact: bool,
}

/// A figure of both classifiers, and the paired bootstrap of their difference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Which: `accuracy`, `balanced_accuracy`, `macro_f1`, `log_loss`, `brier` or `ece`.
    pub figure: String,
    /// That of the first.
    pub first: f64,
    /// That of the second.
    pub second: f64,
    /// `second - first`.
    pub difference: f64,
    /// The lower end of its interval.
    pub low: f64,
    /// The upper end of its interval.
    pub high: f64,
}

/// Why two classifiers cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ComparisonError {
    /// A class is known to one only.
    #[error(
        "their classes differ: {only_first} only the first has, {only_second} only the second, {} is one of them",
        printable(example)
    )]
    Classes {
        /// Classes that only the first has.
        only_first: usize,
        /// Classes that only the second has.
        only_second: usize,
        /// One of these.
        example: String,
    },
    /// A sample was scored by one only.
    #[error(
        "their samples differ: {only_first} ids only the first has, {only_second} only the second, {} is one of them",
        printable(example)
    )]
    Samples {
        /// Ids that only the first has.
        only_first: usize,
        /// Ids that only the second has.
        only_second: usize,
        /// One of these.
        example: String,
    },
    /// A sample has another label.
    #[error(
        "the labels of {n} samples differ: {} is {} for the first and {} for the second",
        printable(id),
        printable(first),
        printable(second)
    )]
    Labels {
        /// How many.
        n: usize,
        /// One of them.
        id: String,
        /// Its class for the first.
        first: String,
        /// Its class for the second.
        second: String,
    },
    /// There is nothing to compare on.
    #[error("there is no sample to compare on")]
    Empty,
}

type FigureOf = fn(&Totals) -> f64;

const FIGURES: [(&str, FigureOf); 6] = [
    ("accuracy", |totals| totals.marginals.total_right() as f64 / totals.marginals.total() as f64),
    ("balanced_accuracy", |totals| totals.marginals.balanced_accuracy()),
    ("macro_f1", |totals| totals.marginals.macro_average().f1),
    ("log_loss", |totals| totals.log_loss),
    ("brier", |totals| totals.brier),
    ("ece", Totals::ece),
];

impl Difference {
    /// Whether the interval of the difference leaves 0 out.
    pub fn is_significant(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

impl Comparison {
    /// Compares two classifiers, sample by sample of the same id, class by class of the same name.
    ///
    /// # Errors
    /// [`ComparisonError`] when classes, samples or labels are not the same, or when there is no sample.
    ///
    /// # Panics
    /// When the temperature is not above 0, or the level not within (0, 1).
    pub fn of(
        first: &Scored,
        second: &Scored,
        options: &EvaluationOptions,
    ) -> Result<Comparison, ComparisonError> {
        let EvaluationOptions { temperature, level, draws, seed } = *options;
        let second = &aligned(first, second)?;
        let both = [first, second].map(|scored| Measured::new(scored, temperature));
        let n = both[0].len();
        let mut counts = [[0u64; 2]; 2];
        for sample in 0..n {
            let [first, second] =
                [&both[0], &both[1]].map(|side| side.labels[sample] == side.predictions[sample]);
            counts[usize::from(first)][usize::from(second)] += 1;
        }
        let [only_first, only_second] = [counts[1][0], counts[0][1]];
        let whole = both.each_ref().map(|side| side.totals(&vec![1; n]));
        let mut drawn = vec![Vec::with_capacity(draws as usize); FIGURES.len()];
        for number in 0..draws {
            let weights = draw(seed, number, n);
            let [first, second] = both.each_ref().map(|side| side.totals(&weights));
            for (differences, (_, of)) in drawn.iter_mut().zip(FIGURES) {
                differences.push(of(&second) - of(&first));
            }
        }
        let difference = |((name, of), drawn): ((&str, FigureOf), Vec<f64>)| {
            let [first, second] = whole.each_ref().map(of);
            let difference = second - first;
            let (low, high) = percentiles(drawn.into_iter(), level).unwrap_or((difference, difference));
            let (low, high) = (low.min(difference), high.max(difference));
            Difference { figure: name.into(), first, second, difference, low, high }
        };
        Ok(Comparison {
            samples: n as u64,
            both_right: counts[1][1],
            only_first_right: only_first,
            only_second_right: only_second,
            mcnemar: McNemar::of(only_first, only_second),
            differences: FIGURES.into_iter().zip(drawn).map(difference).collect(),
            detectable: detectable(only_first + only_second, n as u64, level),
            level,
        })
    }

    /// The difference of accuracies.
    pub fn accuracy(&self) -> &Difference {
        &self.differences[0]
    }

    /// Whether McNemar's test, with a probability of `p`, tells the accuracies apart: that of the test, or one that is
    /// adjusted for several comparisons by [`holm`].
    pub fn is_significant(&self, p: f64) -> bool {
        p < 1.0 - self.level
    }

    /// What the comparison says of the accuracies, in a sentence; `p` as for [`is_significant`](Comparison::is_significant).
    pub fn in_words(&self, first: &str, second: &str, p: f64) -> String {
        let &Difference { difference, low, high, .. } = self.accuracy();
        let n = self.samples;
        let test = if self.mcnemar.is_exact { "exact" } else { "chi-squared" };
        // With few samples that differ the bootstrap is too sure, and the exact test is what counts.
        let is_sure = low > 0.0 || high < 0.0;
        let interval = match is_sure && !self.is_significant(p) {
            true => String::new(),
            false => {
                let [level, low, high] = [self.level, low, high].map(|share| 100.0 * share);
                format!(" ({level:.0} %: {low:+.2} to {high:+.2})")
            }
        };
        let points = format!("{:.2} points of accuracy", 100.0 * difference.abs());
        let order = difference.total_cmp(&0.0);
        let mut text = match (order, self.is_significant(p)) {
            (std::cmp::Ordering::Equal, _) => format!("{second} is right as often as {first}"),
            (order, true) => {
                let is = if order.is_gt() { "better" } else { "worse" };
                format!("{second} is {is} than {first} by {points}{interval}")
            }
            (order, false) => {
                let than = if order.is_gt() { "above" } else { "below" };
                format!("{second} scored {points} {than} {first}{interval}")
            }
        };
        let p_words = if p < 1e-4 { "p < 0.0001".into() } else { format!("p = {p:.4}") };
        let finding = match self.is_significant(p) {
            true => "significant",
            false => "the difference is not significant",
        };
        write!(text, ": {finding} (McNemar's {test} test, {p_words}, n = {n})").expect("a string takes all");
        if !self.is_significant(p) {
            let points = 100.0 * self.detectable;
            write!(
                text,
                "; on {n} samples, a difference below {points:.1} points is found with less than 80 % probability"
            )
            .expect("a string takes all");
        }
        text
    }
}

impl McNemar {
    fn of(only_first: u64, only_second: u64) -> McNemar {
        let n = only_first + only_second;
        if n < EXACT_BELOW {
            return McNemar { p: coin_p(only_first, only_second), is_exact: true };
        }
        let gap = only_first.abs_diff(only_second).saturating_sub(1) as f64;
        // χ² of one degree of freedom is the square of a standard normal number.
        McNemar { p: two_sided_p(gap / (n as f64).sqrt()), is_exact: false }
    }
}

/// The second, its classes in the order of the first's.
fn aligned(first: &Scored, second: &Scored) -> Result<Scored, ComparisonError> {
    let missing = |names: &[String], from: &[String]| -> Vec<String> {
        names.iter().filter(|name| !from.contains(name)).cloned().collect()
    };
    let only_first = missing(first.classes(), second.classes());
    let only_second = missing(second.classes(), first.classes());
    if let Some(example) = only_first.first().or(only_second.first()).cloned() {
        let (only_first, only_second) = (only_first.len(), only_second.len());
        return Err(ComparisonError::Classes { only_first, only_second, example });
    }
    let unknown = |ids: &Scored, to: &Scored| -> Vec<String> {
        ids.ids().iter().filter(|id| to.position(id).is_none()).map(|id| id.to_string()).collect()
    };
    let only_first = unknown(first, second);
    let only_second = unknown(second, first);
    if let Some(example) = only_first.first().or(only_second.first()).cloned() {
        let (only_first, only_second) = (only_first.len(), only_second.len());
        return Err(ComparisonError::Samples { only_first, only_second, example });
    }
    if first.is_empty() {
        return Err(ComparisonError::Empty);
    }
    let second = second.with_classes(first.classes()).expect("the names are the same");
    let label_in = |scored: &Scored, id: &str| {
        scored.labels()[scored.position(id).expect("both have the same ids")] as usize
    };
    let differ: Vec<_> =
        first.ids().iter().filter(|id| label_in(first, id) != label_in(&second, id)).collect();
    if let Some(id) = differ.first() {
        let name = |scored: &Scored| scored.classes()[label_in(scored, id)].clone();
        let (first, second) = (name(first), name(&second));
        return Err(ComparisonError::Labels { n: differ.len(), id: id.to_string(), first, second });
    }
    Ok(second)
}

/// The smallest difference that McNemar's test finds with a probability of [`POWER`], where two classifiers disagree on so
/// many of `n` samples: δ = (z_α √ψ + z_β √(ψ - δ²)) / √n with ψ the share of these (Connor 1987, Biometrics 43).
fn detectable(discordant: u64, n: u64, level: f64) -> f64 {
    let (z_level, z_power) = (two_sided_quantile(level), two_sided_quantile(2.0 * POWER - 1.0));
    let (n, observed) = (n as f64, discordant as f64 / n as f64);
    let mut delta = 0.0f64;
    for _ in 0..200 {
        // A difference needs as much disagreement.
        let share = observed.max(delta).max(1.0 / n);
        let next = (z_level * share.sqrt() + z_power * (share - delta * delta).max(0.0).sqrt()) / n.sqrt();
        delta = (delta + next.min(1.0)) / 2.0;
    }
    delta
}

/// The probabilities of several tests, adjusted so that the chance of any false finding stays that of one test (Holm
/// 1979).
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let (mut adjusted, mut largest) = (vec![0.0; p.len()], 0.0f64);
    for (rank, index) in order.into_iter().enumerate() {
        largest = largest.max((p[index] * (p.len() - rank) as f64).min(1.0));
        adjusted[index] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples of two classes, the second of `n`: right where `is_right` says so.
    fn scored(n: usize, is_right: impl Fn(usize) -> bool) -> Scored {
        let mut scored = Scored::new(vec!["a".into(), "b".into()]);
        for index in 0..n {
            let label = (index % 2) as u32;
            let margin = if is_right(index) == (label == 1) { 1.0 } else { -1.0 };
            scored.push(format!("{index:04}").into(), label, &[0.0, margin]).unwrap();
        }
        scored
    }

    fn compare(first: &Scored, second: &Scored) -> Result<Comparison, ComparisonError> {
        Comparison::of(first, second, &EvaluationOptions { draws: 200, ..Default::default() })
    }

    #[test]
    fn mcnemars_test_equals_statsmodels() {
        // scipy.stats.binomtest(b, b + c).pvalue below 25, else scipy.stats.chi2.sf((|b - c| - 1)^2 / (b + c), 1), which
        // is statsmodels' mcnemar.
        for (b, c, p, is_exact) in [
            (0, 0, 1.0, true),
            (0, 6, 0.03125, true),
            (3, 12, 0.03515625, true),
            (10, 10, 1.0, true),
            (12, 12, 1.0, true),
            (20, 20, 1.0, false),
            (10, 25, 0.017960477526078766, false),
            (121, 59, 5.4506e-6, false),
        ] {
            let test = McNemar::of(b, c);
            assert!((test.p / p - 1.0).abs() < 1e-4 && test.is_exact == is_exact, "{b} {c}: {test:?}");
        }
    }

    #[test]
    fn a_difference_that_could_be_chance_is_not_significant_and_says_what_would_be() {
        let first = scored(153, |index| index >= 10);
        let second = scored(153, |index| index >= 6);
        let comparison = compare(&first, &second).unwrap();
        assert_eq!(
            (comparison.both_right, comparison.only_first_right, comparison.only_second_right),
            (143, 0, 4)
        );
        assert_eq!(comparison.mcnemar, McNemar { p: 0.125, is_exact: true });
        let text = comparison.in_words("one", "two", comparison.mcnemar.p);
        assert!(text.starts_with("two scored 2.61 points of accuracy above one (95 %: "), "{text}");
        let finding = "the difference is not significant (McNemar's exact test, p = 0.1250, n = 153); on 153 samples, a \
                       difference below ";
        assert!(text.contains(finding), "{text}");
        let worse = compare(&second, &scored(153, |index| index >= 30)).unwrap();
        let text = worse.in_words("two", "three", worse.mcnemar.p);
        assert!(
            worse.accuracy().is_significant() && text.contains(": significant (McNemar's exact"),
            "{text}"
        );
        let same = compare(&first, &first).unwrap();
        assert!(
            same.in_words("one", "two", 1.0)
                .starts_with("two is right as often as one: the difference is not")
        );
        assert!(same.differences.iter().all(|d| (d.difference, d.low, d.high) == (0.0, 0.0, 0.0)));
    }

    #[test]
    fn the_order_of_samples_and_classes_changes_nothing() {
        let (first, second) = (scored(60, |index| index % 7 > 0), scored(60, |index| index % 5 > 0));
        let mut other = Scored::new(vec!["b".into(), "a".into()]);
        for index in (0..60).rev() {
            let logits = second.logits(index);
            other
                .push(second.ids()[index].clone(), 1 - second.labels()[index], &[logits[1], logits[0]])
                .unwrap();
        }
        assert_eq!(compare(&first, &second), compare(&first, &other));
    }

    #[test]
    fn what_differs_is_counted_and_named() {
        let first = scored(20, |_| true);
        let message = |second: &Scored| compare(&first, second).unwrap_err().to_string();
        assert_eq!(
            message(&scored(22, |_| true)),
            "their samples differ: 0 ids only the first has, 2 only the second, 0020 is one of them"
        );
        let mut other = Scored::new(vec!["a".into(), "b".into()]);
        for index in 0..20 {
            other.push(first.ids()[index].clone(), 1, first.logits(index)).unwrap();
        }
        assert_eq!(
            message(&other),
            "the labels of 10 samples differ: 0000 is a for the first and b for the second"
        );
        assert_eq!(
            message(&Scored::new(vec!["a".into(), "c".into(), "d\n".into()])),
            "their classes differ: 1 only the first has, 2 only the second, b is one of them"
        );
        let none = Scored::new(vec!["a".into()]);
        assert_eq!(compare(&none, &none).unwrap_err(), ComparisonError::Empty);
    }

    #[test]
    fn a_detectable_difference_falls_with_the_samples_and_grows_with_disagreement() {
        // The root of (1.96 * sqrt(.15) + .8416 * sqrt(.15 - d^2)) / sqrt(1000) = d, by scipy.optimize.brentq.
        let found = detectable(150, 1000, 0.95);
        assert!((found - 0.03427183525).abs() < 1e-9, "{found}");
        assert!(detectable(15, 100, 0.95) > 0.1 && detectable(300, 1000, 0.95) > found);
        assert!(detectable(0, 1, 0.95) <= 1.0 && detectable(0, 1000, 0.95) > 0.0);
    }

    #[test]
    fn several_tests_are_adjusted_as_statsmodels_does() {
        // statsmodels.stats.multitest.multipletests([.01, .04, .03, .005], method="holm")
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (ours, theirs) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((ours - theirs).abs() < 1e-12, "{adjusted:?}");
        }
        assert_eq!(holm(&[0.8, 0.9]), [1.0, 1.0]);
    }
}
