//! Which of the ways to train on uneven classes serves this data: a head on cached features for each of them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use forebay_datasets::escape;
use forebay_datasets::sample::Split;
use forebay_datasets::seed::Seed;
use forebay_train::metrics::Scored;
use serde::Serialize;
use toml::Value;

use crate::flow::{Error, Run};
use crate::options::Config;
use crate::report::{note, warn};
use crate::train::{KeptFeatures, TrainPlan, TrainSources, trial};

/// What is compared: a name, the options that make it, and whether it counts rare classes more from the first step on by
/// weighing or repeating them.
struct Variant {
    name: &'static str,
    options: &'static [(&'static str, &'static str)],
    is_naive: bool,
}

/// The name of plain training, and of what costs no other training than that.
const PLAIN: &str = "cross-entropy";
const POST_HOC: &str = "post-hoc logit adjustment";

const VARIANTS: &[Variant] = &[
    Variant { name: PLAIN, options: &[], is_naive: false },
    Variant { name: "inverse weights", options: &[("train.class_weights", "inverse")], is_naive: true },
    Variant { name: "effective weights", options: &[("train.class_weights", "effective")], is_naive: true },
    Variant { name: "focal", options: &[("train.loss", "focal")], is_naive: false },
    Variant { name: "class-balanced focal", options: &[("train.loss", "cb-focal")], is_naive: true },
    Variant { name: "LDAM-DRW", options: &[("train.loss", "ldam")], is_naive: false },
    Variant { name: "balanced softmax", options: &[("train.loss", "balanced-softmax")], is_naive: false },
    Variant { name: "logit adjustment", options: &[("train.loss", "logit-adjustment")], is_naive: false },
    Variant { name: "oversampling", options: &[("balance.mode", "over")], is_naive: true },
    Variant { name: "square-root sampling", options: &[("balance.mode", "sqrt")], is_naive: true },
    Variant { name: "SMOTE on features", options: &[("balance.mode", "smote")], is_naive: true },
];

/// How often samples and seeds are drawn anew for the intervals.
const DRAWS: usize = 2000;

/// The level of the intervals.
const LEVEL: f64 = 0.95;

/// A mean over seeds and the middle of what resampled seeds and samples make of it: 95 %, of differences 95 % for all ways
/// together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MeanRange {
    /// On all seeds and samples.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl MeanRange {
    /// The difference the other way round.
    fn negated(self) -> MeanRange {
        MeanRange { value: -self.value, low: -self.high, high: -self.low }
    }

    /// The middle of the draws that leaves out a share of `outside` of them.
    fn of(value: f64, mut draws: Vec<f64>, outside: f64) -> MeanRange {
        draws.sort_by(f64::total_cmp);
        let at = |share: f64| draws[((draws.len() - 1) as f64 * share).round() as usize];
        let tail = outside / 2.0;
        MeanRange { value, low: at(tail).min(value), high: at(1.0 - tail).max(value) }
    }
}

/// What a way to train came to, on the validation images.
#[derive(Clone, Debug, Serialize)]
pub struct VariantScores {
    /// Its name.
    pub name: &'static str,
    /// The options of `forebay train` that make it.
    pub options: BTreeMap<&'static str, &'static str>,
    /// The accuracy where all classes are equally likely: the mean recall.
    pub balanced_accuracy: MeanRange,
    /// The mean F1 of the classes.
    pub macro_f1: MeanRange,
    /// The accuracy on the images as they come.
    pub accuracy: MeanRange,
    /// The smallest recall of a class.
    pub worst_recall: MeanRange,
    /// Its balanced accuracy less that of post-hoc logit adjustment, on the same draws.
    pub over_post_hoc: MeanRange,
    /// Its balanced accuracy less that of plain training, on the same draws.
    pub over_plain: MeanRange,
    /// Its accuracy as the images come less that of plain training, on the same draws.
    pub accuracy_over_plain: MeanRange,
    /// How long its trainings took, all seeds together.
    pub seconds: f64,
}

/// What is advised.
#[derive(Clone, Debug, Serialize)]
pub struct Advised {
    /// Training images of each class, by name.
    pub training_images: Vec<(String, u64)>,
    /// Validation images.
    pub validation_images: usize,
    /// Seeds.
    pub seeds: u64,
    /// The ways, the one with the highest balanced accuracy first.
    pub variants: Vec<VariantScores>,
    /// The name of the one that is recommended.
    pub recommended: &'static str,
    /// Why.
    pub why: String,
    /// Which ways do harm here.
    pub warnings: Vec<String>,
}

/// What one training said of the validation images.
struct TrialAnswers {
    labels: Vec<u32>,
    predictions: Vec<u32>,
}

impl TrialAnswers {
    fn of(scored: &Scored) -> TrialAnswers {
        let predictions = (0..scored.len()).map(|index| scored.prediction(index)).collect();
        TrialAnswers { labels: scored.labels().to_vec(), predictions }
    }

    /// With the logarithms of the priors that were trained on taken from the logits.
    fn adjusted(scored: &Scored, counts: &[f64]) -> TrialAnswers {
        let largest = |index: usize| {
            let logits = scored.logits(index).iter().zip(counts);
            let adjusted = logits.map(|(logit, count)| f64::from(*logit) - count.ln());
            let best = adjusted.enumerate().fold((0, f64::NEG_INFINITY), |best, (class, logit)| {
                if logit > best.1 { (class, logit) } else { best }
            });
            best.0 as u32
        };
        let predictions = (0..scored.len()).map(largest).collect();
        TrialAnswers { labels: scored.labels().to_vec(), predictions }
    }

    /// The figures of these samples, a sample as often as it is named.
    fn figures(&self, samples: &[u32], classes: usize) -> Figures {
        let (mut support, mut predicted, mut right) =
            (vec![0u32; classes], vec![0u32; classes], vec![0u32; classes]);
        for &sample in samples {
            let (label, prediction) =
                (self.labels[sample as usize] as usize, self.predictions[sample as usize] as usize);
            support[label] += 1;
            predicted[prediction] += 1;
            right[label] += u32::from(label == prediction);
        }
        let there = (0..classes).filter(|class| support[*class] > 0);
        let recalls: Vec<f64> =
            there.map(|class| f64::from(right[class]) / f64::from(support[class])).collect();
        let seen = (0..classes).filter(|class| support[*class] + predicted[*class] > 0);
        let f1: Vec<f64> = seen
            .map(|class| 2.0 * f64::from(right[class]) / f64::from(support[class] + predicted[class]))
            .collect();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        Figures {
            balanced_accuracy: mean(&recalls),
            macro_f1: mean(&f1),
            accuracy: f64::from(right.iter().sum::<u32>()) / samples.len().max(1) as f64,
            worst_recall: recalls.iter().copied().fold(1.0, f64::min),
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Figures {
    balanced_accuracy: f64,
    macro_f1: f64,
    accuracy: f64,
    worst_recall: f64,
}

impl Figures {
    /// The means over trainings.
    fn mean(all: &[Figures]) -> Figures {
        let mean = |of: fn(&Figures) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
        Figures {
            balanced_accuracy: mean(|figures| figures.balanced_accuracy),
            macro_f1: mean(|figures| figures.macro_f1),
            accuracy: mean(|figures| figures.accuracy),
            worst_recall: mean(|figures| figures.worst_recall),
        }
    }
}

/// A way with what its trainings said.
struct Tried {
    name: &'static str,
    options: &'static [(&'static str, &'static str)],
    is_naive: bool,
    by_seed: Vec<TrialAnswers>,
    seconds: f64,
}

/// Compares the ways to train a head on the features of a frozen network. `on_training` is told of each training before it
/// begins: its number, how many there are, and what it is.
///
/// # Errors
/// [`Error::Usage`] without validation images; the first error of a training.
pub async fn advise(
    run: &Run,
    config: &Config,
    on_training: &mut (dyn FnMut(usize, usize, &str) + Send),
) -> Result<Advised, Error> {
    let base = match config.text("train.freeze") {
        None => config.clone().with("train.freeze", "backbone"),
        Some(_) => config.clone(),
    };
    let seeds = base.whole("advise.seeds");
    let (settings, opening) = (base.clone(), run.clone());
    let open = move || async move { TrainSources::open(&opening, &settings).await };
    let sources = run.until_stopped(open).await?;
    let (kept, mut tried) = (KeptFeatures::default(), Vec::new());
    let (mut classes, mut found) = (Vec::new(), Vec::new());
    let n_trainings = VARIANTS.len() * seeds as usize;
    for (index, variant) in VARIANTS.iter().enumerate() {
        let start = Instant::now();
        let (mut by_seed, mut adjusted) = (Vec::new(), Vec::new());
        for seed in 0..seeds {
            on_training(index * seeds as usize + seed as usize + 1, n_trainings, variant.name);
            let first = i64::try_from(config.whole("seed")).unwrap_or(0);
            let mut of_variant = base.clone().with("seed", Value::from(first.wrapping_add(seed as i64)));
            for (key, value) in variant.options {
                of_variant = of_variant.with(key, *value);
            }
            let plan = Arc::new(TrainPlan::on(&of_variant, &sources).await?);
            if tried.is_empty() && by_seed.is_empty() {
                warn(&plan.warnings);
            }
            if plan.feed.rows(Split::Validation) == 0 {
                return Err(Error::Usage(
                    "advise compares on validation images, and there are none; see --split".to_string(),
                ));
            }
            let done = trial(run, &plan, &kept, true, &mut |_| ControlFlow::Continue(())).await?;
            let scored = done.validation.expect("there are validation images");
            let empty = done.class_counts.iter().position(|count| *count == 0.0);
            if let Some(empty) = empty {
                return Err(Error::Usage(format!(
                    "{} has no training image that can be read of {}: nothing treats a class that is not there; take its folder \
                     away, or see --split",
                    plan.feed.store.location(),
                    escape::printable(&plan.options.classes[empty])
                )));
            }
            if variant.name == PLAIN {
                adjusted.push(TrialAnswers::adjusted(&scored, &done.class_counts));
                classes.clone_from(&plan.options.classes);
                found.clone_from(&plan.class_counts);
            }
            by_seed.push(TrialAnswers::of(&scored));
        }
        let seconds = start.elapsed().as_secs_f64();
        let Variant { name, options, is_naive } = *variant;
        tried.push(Tried { name, options, is_naive, by_seed, seconds });
        if !adjusted.is_empty() {
            let (by_seed, is_naive) = (adjusted, false);
            tried.push(Tried { name: POST_HOC, options: &[], is_naive, by_seed, seconds });
        }
    }
    let validation_images = tried[0].by_seed[0].labels.len();
    if tried.iter().flat_map(|tried| &tried.by_seed).any(|one| one.labels != tried[0].by_seed[0].labels) {
        return Err(Error::failed("compare", "the trainings scored different images"));
    }
    note(
        "the figures are of the images that the best epoch was chosen on: compare them with each other, and test what is \
         chosen on others",
    );
    let training_images: Vec<(String, u64)> = classes.into_iter().zip(found).collect();
    Ok(run.install(|| weigh(&tried, training_images, validation_images, seeds, Seed(config.whole("seed")))))
}

/// Scores what was tried, and decides.
fn weigh(
    tried: &[Tried],
    training_images: Vec<(String, u64)>,
    validation_images: usize,
    seeds: u64,
    seed: Seed,
) -> Advised {
    let classes = training_images.len();
    let all: Vec<u32> = (0..validation_images as u32).collect();
    // The same draws of samples and seeds for every way, so that differences are of pairs.
    let mut draws: Vec<Vec<Figures>> = vec![Vec::with_capacity(DRAWS); tried.len()];
    let mut stream = seed.stream("advise");
    for _ in 0..DRAWS {
        let samples: Vec<u32> = (0..all.len()).map(|_| stream.below(all.len() as u64) as u32).collect();
        let drawn: Vec<usize> = (0..seeds).map(|_| stream.below(seeds) as usize).collect();
        for (tried, draws) in tried.iter().zip(&mut draws) {
            let mut by_seed: BTreeMap<usize, Figures> = BTreeMap::new();
            for seed in &drawn {
                by_seed.entry(*seed).or_insert_with(|| tried.by_seed[*seed].figures(&samples, classes));
            }
            draws.push(Figures::mean(&drawn.iter().map(|seed| by_seed[seed]).collect::<Vec<_>>()));
        }
    }
    let values: Vec<Figures> = tried
        .iter()
        .map(|tried| {
            Figures::mean(&tried.by_seed.iter().map(|one| one.figures(&all, classes)).collect::<Vec<_>>())
        })
        .collect();
    let place = |name: &str| tried.iter().position(|tried| tried.name == name).expect("it was tried");
    let range = |at: usize, of: fn(&Figures) -> f64| {
        MeanRange::of(of(&values[at]), draws[at].iter().map(of).collect(), 1.0 - LEVEL)
    };
    // The best of many differences is more often above 0 by chance than one: together they are so in 5 % of cases (Bonferroni).
    let outside = (1.0 - LEVEL) / (tried.len() - 1) as f64;
    let over = |at: usize, other: usize, of: fn(&Figures) -> f64| {
        let pairs = draws[at].iter().zip(&draws[other]);
        let pairs = pairs.map(|(a, b)| of(a) - of(b)).collect();
        MeanRange::of(of(&values[at]) - of(&values[other]), pairs, outside)
    };
    let (plain, post_hoc) = (place(PLAIN), place(POST_HOC));
    let mut variants: Vec<VariantScores> = (0..tried.len())
        .map(|at| VariantScores {
            name: tried[at].name,
            options: tried[at].options.iter().copied().collect(),
            balanced_accuracy: range(at, |figures| figures.balanced_accuracy),
            macro_f1: range(at, |figures| figures.macro_f1),
            accuracy: range(at, |figures| figures.accuracy),
            worst_recall: range(at, |figures| figures.worst_recall),
            over_post_hoc: over(at, post_hoc, |figures| figures.balanced_accuracy),
            over_plain: over(at, plain, |figures| figures.balanced_accuracy),
            accuracy_over_plain: over(at, plain, |figures| figures.accuracy),
            seconds: tried[at].seconds,
        })
        .collect();
    let counts: Vec<u64> = training_images.iter().map(|(_, count)| *count).collect();
    let (recommended, why) = decide(&variants[post_hoc], &variants, &counts);
    let warnings = tried.iter().zip(&variants).filter(|(tried, _)| tried.is_naive);
    let warnings = warnings.filter_map(|(_, scores)| harm(scores)).collect();
    variants.sort_by(|a, b| b.balanced_accuracy.value.total_cmp(&a.balanced_accuracy.value));
    Advised { training_images, validation_images, seeds, variants, recommended, why, warnings }
}

/// Which way to take, and why: adjusting the logits of plain training, which needs no other training, unless classes are
/// even or another way is better by more than chance.
fn decide(post_hoc: &VariantScores, all: &[VariantScores], counts: &[u64]) -> (&'static str, String) {
    let there = || counts.iter().copied().filter(|count| *count > 0);
    let ratio = there().max().unwrap_or(1) as f64 / there().min().unwrap_or(1) as f64;
    if ratio < 1.5 {
        return (
            PLAIN,
            format!(
                "the largest class has {ratio:.1} times the images of the smallest: there is little to correct"
            ),
        );
    }
    let better = all.iter().filter(|scores| scores.over_post_hoc.low > 0.0);
    let best = better.max_by(|a, b| a.over_post_hoc.value.total_cmp(&b.over_post_hoc.value));
    let points = |range: MeanRange| {
        format!(
            "{:+.1} points ({:+.1} to {:+.1})",
            100.0 * range.value,
            100.0 * range.low,
            100.0 * range.high
        )
    };
    if let Some(best) = best {
        return (
            best.name,
            format!(
                "its balanced accuracy is better than that of adjusting the logits afterwards by {}",
                points(best.over_post_hoc)
            ),
        );
    }
    let gain = post_hoc.over_plain;
    let why = match gain.low > 0.0 {
        true => format!(
            "it needs no other training than plain one, gains {} of balanced accuracy over it, and nothing that was tried is \
             better by more than chance; it costs {} of accuracy where classes come as they do here",
            points(gain),
            points(post_hoc.accuracy_over_plain.negated())
        ),
        false => format!(
            "nothing that was tried differs from plain training by more than chance ({} of balanced accuracy): this needs no \
             other training, and can be left out again",
            points(gain)
        ),
    };
    (POST_HOC, why)
}

/// What harm weighing or repeating rare classes does here, where it is more than chance.
fn harm(scores: &VariantScores) -> Option<String> {
    let points = |range: MeanRange| format!("{:.1} points", -100.0 * range.value);
    if scores.over_plain.high < 0.0 {
        return Some(format!(
            "{} hurts: its balanced accuracy is {} below that of plain training",
            scores.name,
            points(scores.over_plain)
        ));
    }
    (scores.over_post_hoc.high < 0.0 && scores.accuracy_over_plain.high < 0.0).then(|| {
        format!(
            "{} costs {} of accuracy as images come, and its balanced accuracy is {} below that of adjusting the logits",
            scores.name,
            points(scores.accuracy_over_plain),
            points(scores.over_post_hoc)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 200 samples of class 0 and 50 of class 1, of which so many are right.
    fn predicted(right: [usize; 2]) -> TrialAnswers {
        let labels: Vec<u32> = (0..250).map(|sample| u32::from(sample >= 200)).collect();
        let is_right = |sample: usize| match sample < 200 {
            true => sample < right[0],
            false => sample - 200 < right[1],
        };
        let predictions =
            (0..250).map(|sample| if is_right(sample) { labels[sample] } else { 1 - labels[sample] });
        TrialAnswers { predictions: predictions.collect(), labels }
    }

    fn tried(name: &'static str, is_naive: bool, right: [usize; 2]) -> Tried {
        let by_seed = (0..3).map(|seed| predicted([right[0] + seed % 2, right[1]])).collect();
        Tried { name, options: &[], is_naive, by_seed, seconds: 1.0 }
    }

    fn weighed(all: &[Tried], counts: [u64; 2]) -> Advised {
        let images = vec![("common".to_string(), counts[0]), ("rare".to_string(), counts[1])];
        weigh(all, images, 250, 3, Seed(0))
    }

    #[test]
    fn figures_are_those_of_their_formulas() {
        let all: Vec<u32> = (0..250).collect();
        let figures = predicted([180, 20]).figures(&all, 2);
        assert!((figures.accuracy - 0.8).abs() < 1e-12);
        assert!(
            (figures.balanced_accuracy - 0.65).abs() < 1e-12 && (figures.worst_recall - 0.4).abs() < 1e-12
        );
        // TrialAnswers as common: 180 + 30; as rare: 20 + 20.
        let f1 = (2.0 * 180.0 / 410.0 + 2.0 * 20.0 / 90.0) / 2.0;
        assert!((figures.macro_f1 - f1).abs() < 1e-12);
    }

    #[test]
    fn adjusting_afterwards_is_advised_unless_something_is_better_by_more_than_chance() {
        let base = [tried(PLAIN, false, [195, 15]), tried(POST_HOC, false, [170, 40])];
        let [plain, post_hoc] = base;
        let close = tried("oversampling", true, [172, 40]);
        let advised = weighed(&[plain, post_hoc, close], [900, 90]);
        assert_eq!(advised.recommended, POST_HOC, "{}", advised.why);
        assert!(advised.why.contains("no other training"), "{}", advised.why);
        let all = [
            tried(PLAIN, false, [195, 15]),
            tried(POST_HOC, false, [170, 40]),
            tried("balanced softmax", false, [198, 49]),
        ];
        let advised = weighed(&all, [900, 90]);
        assert_eq!(advised.recommended, "balanced softmax", "{}", advised.why);
        assert_eq!(weighed(&all, [100, 90]).recommended, PLAIN, "even classes need nothing");
    }

    #[test]
    fn what_hurts_is_said() {
        let all = [
            tried(PLAIN, false, [195, 25]),
            tried(POST_HOC, false, [185, 45]),
            tried("inverse weights", true, [90, 30]),
            tried("oversampling", true, [194, 26]),
        ];
        let warnings = weighed(&all, [900, 90]).warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].starts_with("inverse weights hurts"), "{warnings:?}");
    }

    #[test]
    fn priors_are_taken_from_the_logits() {
        let mut scored = Scored::new(["a", "b"].map(String::from).to_vec());
        scored.push("x".into(), 1, &[1.0, 0.0]).expect("a sample");
        scored.push("y".into(), 0, &[4.0, 0.0]).expect("a sample");
        assert_eq!(TrialAnswers::of(&scored).predictions, [0, 0]);
        // ln 90 - ln 10 is 2.2.
        assert_eq!(TrialAnswers::adjusted(&scored, &[90.0, 10.0]).predictions, [1, 0]);
    }
}
