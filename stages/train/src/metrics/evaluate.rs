//! From scored samples to an evaluation: every figure, its interval and its baseline.

use super::confusion::{ClassScores, Marginals};
use super::interval::{percentiles, wilson};
use super::measured::{Measured, Totals, draw, log_loss};
use super::ranking::{Areas, POINTS_MAX, Ranking, Sweep, thin};
use super::{
    AverageFigures, ClassFigures, Confusion, CoveragePoint, CurvePoint, Curves, Evaluation,
    EvaluationOptions, Figure, Majority, RankFigures, ScoreError, Scored,
};

/// Ranks are passed about so often for their intervals, a nanosecond or two each; but [`RANK_DRAWS_MIN`] times in any case.
const RANK_STEPS_MAX: u64 = 2_000_000_000;

/// Fewer draws are no interval.
const RANK_DRAWS_MIN: u64 = 50;

/// The figures of one resample, and of all samples; NaN where one is undefined.
struct Resample {
    balanced_accuracy: f64,
    /// Macro and weighted.
    averages: [ClassScores; 2],
    f1: Vec<f64>,
    kappa: f64,
    mcc: f64,
    log_loss: f64,
    brier: f64,
    ece: f64,
}

impl Resample {
    fn of(totals: &Totals) -> Resample {
        let marginals = &totals.marginals;
        Resample {
            balanced_accuracy: marginals.balanced_accuracy(),
            averages: [marginals.macro_average(), marginals.weighted_average()],
            f1: (0..marginals.support.len()).map(|class| marginals.class(class).f1).collect(),
            kappa: marginals.kappa().unwrap_or(f64::NAN),
            mcc: marginals.mcc(),
            log_loss: totals.log_loss,
            brier: totals.brier,
            ece: totals.ece(),
        }
    }
}

/// The areas of one resample.
struct AreasOfAll {
    by_class: Vec<Areas>,
    micro: Option<Areas>,
}

impl AreasOfAll {
    fn of(by_class: &[Ranking], micro: Option<&Ranking>, weights: &[u32]) -> AreasOfAll {
        AreasOfAll {
            by_class: by_class.iter().map(|ranking| ranking.areas(weights)).collect(),
            micro: micro.map(|ranking| ranking.areas(weights)),
        }
    }
}

type Area = fn(&Areas) -> Option<f64>;

/// The mean over the classes for which it is defined; NaN without any.
fn mean_area(areas: &[Areas], area: Area) -> f64 {
    let defined: Vec<f64> = areas.iter().filter_map(area).collect();
    defined.iter().sum::<f64>() / defined.len() as f64
}

impl Figure {
    /// A figure whose interval holds its value also where resamples lie to one side of it, as those of the ECE do.
    fn new(value: f64, (low, high): (f64, f64), baseline: impl Into<Option<f64>>) -> Figure {
        Figure { value, low: low.min(value), high: high.max(value), baseline: baseline.into() }
    }

    /// A share of `n` with Wilson's interval.
    pub(super) fn share(part: u64, n: u64, level: f64, baseline: f64) -> Figure {
        let value = if n == 0 { 0.0 } else { part as f64 / n as f64 };
        Figure::new(value, wilson(part, n, level), baseline)
    }

    /// A figure with the middle of what `draws` have of it; `None` where the value is undefined. Without draws the
    /// interval is the value.
    pub(super) fn drawn(
        value: f64,
        draws: impl Iterator<Item = f64>,
        level: f64,
        baseline: impl Into<Option<f64>>,
    ) -> Option<Figure> {
        let interval = percentiles(draws, level).unwrap_or((value, value));
        value.is_finite().then(|| Figure::new(value, interval, baseline))
    }
}

/// What the classifier that gives every sample the shares of the classes comes to.
struct Baseline {
    majority: usize,
    shares: Vec<f64>,
    figures: Resample,
    marginals: Marginals,
    micro: Areas,
}

impl Baseline {
    fn of(support: &[u64]) -> Baseline {
        let n: u64 = support.iter().sum();
        // The first of equally frequent ones.
        let majority =
            (0..support.len()).rev().max_by_key(|class| support[*class]).expect("there are classes");
        let shares: Vec<f64> = support.iter().map(|count| *count as f64 / n as f64).collect();
        let mut marginals = Marginals::new(support.len());
        support.iter().enumerate().for_each(|(class, count)| marginals.add(class, majority, *count));
        let halves = if support.len() == 2 { 0.5 } else { 1.0 };
        let entropy = shares.iter().filter(|share| **share > 0.0).map(|share| share * log_loss(*share));
        let figures = Resample {
            log_loss: entropy.sum(),
            brier: halves * (1.0 - shares.iter().map(|share| share * share).sum::<f64>()),
            // Of the share of the majority, so many are right.
            ece: 0.0,
            balanced_accuracy: marginals.balanced_accuracy(),
            averages: [marginals.macro_average(), marginals.weighted_average()],
            f1: (0..support.len()).map(|class| marginals.class(class).f1).collect(),
            kappa: marginals.kappa().unwrap_or(f64::NAN),
            mcc: marginals.mcc(),
        };
        // Every sample has the same probabilities: all pairs of a class, and of equally frequent classes, are ties.
        let mut counts = support.to_vec();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let mut sweep = Sweep::default();
        for equals in counts.chunk_by(|a, b| a == b) {
            let positives = equals.iter().sum::<u64>();
            sweep.pass(positives, equals.len() as u64 * n - positives);
        }
        Baseline { majority, shares, figures, marginals, micro: sweep.areas() }
    }
}

impl Evaluation {
    /// Measures a classifier. The result is a function of the samples by id and of the options: not of their order.
    ///
    /// # Errors
    /// [`ScoreError::Empty`] when there is no sample.
    ///
    /// # Panics
    /// When the temperature is not above 0, or the level not within (0, 1).
    pub fn of(scored: &Scored, options: &EvaluationOptions) -> Result<Evaluation, ScoreError> {
        let EvaluationOptions { temperature, level, draws, seed } = *options;
        assert!(temperature > 0.0 && temperature.is_finite(), "temperature {temperature} is not above 0");
        assert!(level > 0.0 && level < 1.0, "confidence level {level} is not within (0, 1)");
        if scored.is_empty() {
            return Err(ScoreError::Empty);
        }
        let measured = Measured::new(scored, temperature);
        let n = measured.len();
        let once = vec![1; n];
        let totals = measured.totals(&once);
        let whole = Resample::of(&totals);
        let (by_class, micro) = measured.rankings();
        let areas = AreasOfAll::of(&by_class, micro.as_ref(), &once);

        let pairs = (2 * n * scored.classes().len()) as u64;
        let rank_draws = u64::from(draws).min((RANK_STEPS_MAX / pairs).max(RANK_DRAWS_MIN)) as u32;
        let (mut resamples, mut areas_drawn) = (Vec::new(), Vec::new());
        for number in 0..draws {
            let weights = draw(seed, number, n);
            resamples.push(Resample::of(&measured.totals(&weights)));
            if number < rank_draws {
                areas_drawn.push(AreasOfAll::of(&by_class, micro.as_ref(), &weights));
            }
        }

        let baseline = Baseline::of(&totals.marginals.support);
        let figure = |of: &dyn Fn(&Resample) -> f64| {
            let drawn = resamples.iter().map(of);
            Figure::drawn(of(&whole), drawn, level, Some(of(&baseline.figures)).filter(|b| b.is_finite()))
        };
        let always = |of: &dyn Fn(&Resample) -> f64| figure(of).expect("it is defined for every sample");
        let average = |which: usize| AverageFigures {
            precision: always(&|resample| resample.averages[which].precision),
            recall: always(&|resample| resample.averages[which].recall),
            f1: always(&|resample| resample.averages[which].f1),
        };
        let majority_share = baseline.shares[baseline.majority];
        let accuracy = Figure::share(totals.marginals.total_right(), n as u64, level, majority_share);
        let rank = |area: Area, baselines: &[Option<f64>], micro_baseline: Option<f64>| {
            let of_class = |class: usize| {
                let drawn = areas_drawn.iter().filter_map(|areas| area(&areas.by_class[class]));
                let value = area(&areas.by_class[class])?;
                Figure::drawn(value, drawn, level, baselines[class])
            };
            let of_micro = |areas: &AreasOfAll| areas.micro.as_ref().and_then(area);
            let defined: Vec<f64> = baselines.iter().copied().flatten().collect();
            let mean = defined.iter().sum::<f64>() / defined.len() as f64;
            let macro_drawn = areas_drawn.iter().map(|areas| mean_area(&areas.by_class, area));
            let figures = RankFigures {
                macro_average: Figure::drawn(mean_area(&areas.by_class, area), macro_drawn, level, mean),
                micro_average: of_micro(&areas).and_then(|value| {
                    Figure::drawn(value, areas_drawn.iter().filter_map(of_micro), level, micro_baseline)
                }),
                binary: (by_class.len() == 2).then(|| of_class(1)).flatten(),
            };
            (figures, (0..by_class.len()).map(of_class).collect::<Vec<_>>())
        };
        let roc_baselines: Vec<Option<f64>> =
            areas.by_class.iter().map(|areas| areas.roc_auc.map(|_| 0.5)).collect();
        let pr_baselines: Vec<Option<f64>> =
            baseline.shares.iter().map(|share| (*share > 0.0).then_some(*share)).collect();
        let (roc_auc, class_aucs) = rank(|areas| areas.roc_auc, &roc_baselines, baseline.micro.roc_auc);
        let (average_precision, class_precisions) =
            rank(|areas| areas.average_precision, &pr_baselines, baseline.micro.average_precision);

        let marginals = &totals.marginals;
        let class = |(class, name): (usize, &String)| {
            let (right, support, predicted) =
                (marginals.right[class], marginals.support[class], marginals.predicted[class]);
            let without_skill = baseline.marginals.class(class);
            ClassFigures {
                class: name.clone(),
                support,
                predicted,
                precision: Figure::share(right, predicted, level, without_skill.precision),
                recall: Figure::share(right, support, level, without_skill.recall),
                f1: always(&|resample| resample.f1[class]),
                roc_auc: class_aucs[class],
                average_precision: class_precisions[class],
            }
        };
        let (roc, pr) = by_class.iter().map(|ranking| (ranking.roc.clone(), ranking.pr.clone())).unzip();
        let (micro_roc, micro_pr) = micro.map_or_else(Default::default, |ranking| (ranking.roc, ranking.pr));
        let mut confusion = Confusion::new(scored.classes().len());
        for (truth, prediction) in measured.labels.iter().zip(&measured.predictions) {
            confusion.add(*truth, *prediction);
        }
        Ok(Evaluation {
            classes: scored.classes().to_vec(),
            samples: n as u64,
            temperature,
            level,
            draws,
            rank_draws,
            seed,
            confusion: confusion.rows(),
            majority: Majority {
                class: scored.classes()[baseline.majority].clone(),
                accuracy: majority_share,
            },
            accuracy,
            top5: (scored.classes().len() > 5).then(|| {
                let mut shares = marginals.support.clone();
                shares.sort_unstable_by(|a, b| b.cmp(a));
                let most_frequent = shares[..5].iter().sum::<u64>() as f64 / n as f64;
                Figure::share(measured.among_top(5), n as u64, level, most_frequent)
            }),
            balanced_accuracy: always(&|resample| resample.balanced_accuracy),
            macro_average: average(0),
            weighted_average: average(1),
            micro_average: AverageFigures { precision: accuracy, recall: accuracy, f1: accuracy },
            kappa: figure(&|resample| resample.kappa),
            mcc: always(&|resample| resample.mcc),
            log_loss: always(&|resample| resample.log_loss),
            brier: always(&|resample| resample.brier),
            ece: always(&|resample| resample.ece),
            roc_auc,
            average_precision,
            per_class: scored.classes().iter().enumerate().map(class).collect(),
            roc: Curves { classes: roc, micro: micro_roc },
            pr: Curves { classes: pr, micro: micro_pr },
            reliability: totals.reliability(),
            coverage: coverage(&measured),
        })
    }
}

/// Accuracy against coverage: the most confident predictions first, those of equal confidence together.
fn coverage(measured: &Measured) -> Vec<CoveragePoint> {
    let mut order: Vec<usize> = (0..measured.len()).collect();
    order.sort_by(|a, b| measured.confidences[*b].total_cmp(&measured.confidences[*a]));
    let (mut accepted, mut right) = (0.0, 0.0);
    let mut points = Vec::new();
    for equals in order.chunk_by(|a, b| measured.confidences[*a] == measured.confidences[*b]) {
        accepted += equals.len() as f64;
        let is_right = |sample: &&usize| measured.labels[**sample] == measured.predictions[**sample];
        right += equals.iter().filter(is_right).count() as f64;
        points.push(CurvePoint {
            x: accepted / measured.len() as f64,
            y: right / accepted,
            threshold: Some(measured.confidences[equals[0]]),
        });
    }
    let point = |CurvePoint { x, y, threshold }| CoveragePoint {
        threshold: threshold.expect("every point has one"),
        coverage: x,
        accuracy: y,
    };
    thin(points, POINTS_MAX).into_iter().map(point).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::{TemperatureEnd, classification_report, fit_temperature};
    use super::*;

    /// Samples called `0000`, `0001` and so on.
    fn scored(classes: &[&str], rows: &[(u32, &[f32])]) -> Scored {
        let mut scored = Scored::new(classes.iter().map(|class| class.to_string()).collect());
        for (index, (label, logits)) in rows.iter().enumerate() {
            scored.push(format!("{index:04}").into(), *label, logits).unwrap();
        }
        scored
    }

    /// That all that is expected is there, as a number or as the value of a figure.
    fn check(place: &str, ours: &Value, expected: &Value) {
        match expected {
            Value::Object(expected) => {
                expected.iter().for_each(|(key, value)| check(&format!("{place}.{key}"), &ours[key], value));
            }
            Value::Array(expected) => {
                assert_eq!(ours.as_array().map(Vec::len), Some(expected.len()), "{place}");
                expected
                    .iter()
                    .enumerate()
                    .for_each(|(index, value)| check(&format!("{place}[{index}]"), &ours[index], value));
            }
            Value::Number(expected) => {
                let value = ours.as_f64().or(ours["value"].as_f64());
                let value = value.unwrap_or_else(|| panic!("{place}: {ours} is not {expected}"));
                assert!((value - expected.as_f64().unwrap()).abs() < 1e-12, "{place}: {ours} {expected}");
            }
            _ => assert_eq!(ours, expected, "{place}"),
        }
    }

    #[test]
    fn every_figure_equals_scikit_learns() {
        // Written by tests/interop/metrics.py --write: random and degenerate inputs, and what scikit-learn 1.9 says.
        let cases: Vec<Value> = serde_json::from_str(include_str!("testdata/scikit_learn.json")).unwrap();
        assert!(cases.len() > 30);
        for (index, case) in cases.iter().enumerate() {
            let names: Vec<String> = serde_json::from_value(case["classes"].clone()).unwrap();
            let labels: Vec<u32> = serde_json::from_value(case["labels"].clone()).unwrap();
            let rows: Vec<Vec<Option<f32>>> = serde_json::from_value(case["logits"].clone()).unwrap();
            let mut scored = Scored::new(names.clone());
            for (index, (label, row)) in labels.iter().zip(rows).enumerate() {
                let row: Vec<f32> = row.into_iter().map(|logit| logit.unwrap_or(f32::NEG_INFINITY)).collect();
                scored.push(format!("{index:04}").into(), *label, &row).unwrap();
            }
            let options = EvaluationOptions { draws: 0, ..Default::default() };
            let evaluation = Evaluation::of(&scored, &options).unwrap();
            let mut ours = serde_json::to_value(&evaluation).unwrap();
            assert_eq!(serde_json::from_value::<Evaluation>(ours.clone()).unwrap(), evaluation);
            let mut confusion = Confusion::new(names.len());
            for (index, label) in labels.iter().enumerate() {
                confusion.add(*label as usize, scored.prediction(index) as usize);
            }
            ours["report"] = classification_report(&confusion, &names).into();
            check(&format!("input {index}"), &ours, &case["expected"]);
            // That of the smallest log loss, by scipy.optimize; absent where there is none within the bounds.
            let fit = fit_temperature(&scored).unwrap();
            let found = (fit.end == TemperatureEnd::Minimum).then_some(fit.temperature);
            match (found, case["temperature"].as_f64()) {
                (Some(ours), Some(theirs)) => assert!((ours / theirs - 1.0).abs() < 1e-6, "{ours} {theirs}"),
                (ours, theirs) => assert_eq!(ours, theirs, "input {index}: {fit:?}"),
            }
        }
    }

    #[test]
    fn the_baseline_is_what_a_classifier_without_skill_comes_to() {
        // Everyone gets the shares 1/2, 1/4, 1/4: measured, they are the baseline.
        let shares = [0.5f32, 0.25, 0.25].map(f32::ln);
        let rows = [0, 0, 1, 2].map(|label| (label, &shares[..]));
        let evaluation = Evaluation::of(&scored(&["a", "b", "c"], &rows), &Default::default()).unwrap();
        assert_eq!(evaluation.majority, Majority { class: "a".into(), accuracy: 0.5 });
        let Evaluation { macro_average, weighted_average, roc_auc, average_precision, .. } = &evaluation;
        let figures = [
            evaluation.accuracy,
            evaluation.balanced_accuracy,
            macro_average.precision,
            macro_average.f1,
            weighted_average.f1,
            evaluation.kappa.unwrap(),
            evaluation.mcc,
            evaluation.log_loss,
            evaluation.brier,
            evaluation.ece,
            roc_auc.macro_average.unwrap(),
            roc_auc.micro_average.unwrap(),
            average_precision.macro_average.unwrap(),
            average_precision.micro_average.unwrap(),
        ];
        for (index, figure) in figures.iter().enumerate() {
            let baseline = figure.baseline.unwrap();
            assert!((figure.value - baseline).abs() < 1e-7, "{index}: {figure:?}");
        }
        for class in &evaluation.per_class {
            let figures = [class.precision, class.recall, class.f1, class.roc_auc.unwrap()];
            for figure in figures.iter().chain(&class.average_precision) {
                assert!((figure.value - figure.baseline.unwrap()).abs() < 1e-12, "{class:?}");
            }
        }
    }

    #[test]
    fn degenerate_samples_have_values_and_not_panics() {
        let infinite = f32::NEG_INFINITY;
        let options = EvaluationOptions { draws: 20, ..Default::default() };
        let of = |classes: &[&str], rows: &[(u32, &[f32])]| {
            let evaluation = Evaluation::of(&scored(classes, rows), &options).unwrap();
            // Every number is one: what is no number would be null, and read as absent.
            let text = serde_json::to_string(&evaluation).unwrap();
            assert_eq!(serde_json::from_str::<Evaluation>(&text).unwrap(), evaluation);
            evaluation
        };
        let one = of(&["a"], &[(0, &[1.0])]);
        assert_eq!((one.accuracy.value, one.kappa, one.roc_auc.macro_average), (1.0, None, None));
        let sure = of(&["a", "b"], &[(0, &[infinite, 0.0]), (1, &[0.0, infinite])]);
        assert!(sure.log_loss.value > 36.0 && sure.log_loss.value.is_finite());
        assert_eq!((sure.brier.value, sure.ece.value, sure.mcc.value), (1.0, 1.0, -1.0));
        let of_one_class = of(&["a", "b", "c"], &[(1, &[0.0, 1.0, 0.5]), (1, &[2.0, 1.0, 0.5])]);
        assert_eq!(of_one_class.roc_auc.macro_average, None);
        assert_eq!(of_one_class.per_class[0].average_precision, None);
        assert_eq!(of_one_class.per_class[1].average_precision.unwrap().value, 1.0);
        assert_eq!((of_one_class.per_class[0].recall.low, of_one_class.per_class[0].recall.high), (0.0, 1.0));
        let none = Scored::new(vec!["a".into()]);
        assert_eq!(Evaluation::of(&none, &options), Err(ScoreError::Empty));
    }

    /// Ten classes, most samples right.
    fn many(n: usize, seed: u64) -> Vec<(u32, Vec<f32>)> {
        let mut stream = forebay_datasets::seed::Seed(seed).stream("evaluation");
        let row = |_| {
            let label = stream.below(10) as u32;
            let logit = |class| stream.normal() as f32 + if class == label { 1.5 } else { 0.0 };
            (label, (0..10).map(logit).collect())
        };
        (0..n).map(row).collect()
    }

    fn borrowed(rows: &[(u32, Vec<f32>)]) -> Vec<(u32, &[f32])> {
        rows.iter().map(|(label, row)| (*label, &row[..])).collect()
    }

    const TEN: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        // The truth is what a hundred times as many samples have.
        let options = EvaluationOptions { draws: 0, ..Default::default() };
        let truth = Evaluation::of(&scored(&TEN, &borrowed(&many(20_000, 1))), &options).unwrap();
        type Of = fn(&Evaluation) -> Figure;
        let figures: [(&str, Of); 6] = [
            ("accuracy", |of| of.accuracy),
            ("balanced accuracy", |of| of.balanced_accuracy),
            ("kappa", |of| of.kappa.unwrap()),
            ("log loss", |of| of.log_loss),
            ("AUC", |of| of.roc_auc.macro_average.unwrap()),
            ("average precision", |of| of.average_precision.micro_average.unwrap()),
        ];
        let mut held = [0; 6];
        for seed in 0..100 {
            let options = EvaluationOptions { draws: 200, seed, ..Default::default() };
            let evaluation =
                Evaluation::of(&scored(&TEN, &borrowed(&many(200, 100 + seed))), &options).unwrap();
            for (held, (_, of)) in held.iter_mut().zip(figures) {
                let (figure, truth) = (of(&evaluation), of(&truth).value);
                *held += u32::from(figure.low <= truth && truth <= figure.high);
            }
        }
        // Of 100 with 95 % each: below 88 once in some hundred.
        for (held, (name, _)) in held.iter().zip(figures) {
            assert!((88..=100).contains(held), "{name}: {held} of 100 intervals hold it");
        }
    }

    #[test]
    fn an_evaluation_is_a_function_of_the_samples_and_the_seed_and_not_of_their_order() {
        let rows = many(300, 3);
        let scored = scored(&TEN, &borrowed(&rows));
        let mut backwards = Scored::new(scored.classes().to_vec());
        for index in (0..scored.len()).rev() {
            backwards
                .push(scored.ids()[index].clone(), scored.labels()[index], scored.logits(index))
                .unwrap();
        }
        let options = EvaluationOptions { draws: 50, temperature: 1.7, ..Default::default() };
        let evaluation = Evaluation::of(&scored, &options).unwrap();
        assert_eq!(Evaluation::of(&backwards, &options).unwrap(), evaluation);
        let other = Evaluation::of(&scored, &EvaluationOptions { seed: 1, ..options }).unwrap();
        assert!(other.kappa != evaluation.kappa && other.accuracy == evaluation.accuracy);
    }

    #[test]
    fn coverage_falls_from_all_to_the_surest_and_calibration_sums_to_its_error() {
        let evaluation = Evaluation::of(
            &scored(&TEN, &borrowed(&many(2000, 4))),
            &EvaluationOptions { draws: 10, ..Default::default() },
        )
        .unwrap();
        let (first, last) = (evaluation.coverage[0], evaluation.coverage.last().unwrap());
        assert!(evaluation.coverage.len() <= POINTS_MAX && first.coverage < 0.01);
        assert_eq!((last.coverage, last.accuracy), (1.0, evaluation.accuracy.value));
        assert!(
            evaluation.coverage.is_sorted_by(|a, b| a.threshold > b.threshold && a.coverage < b.coverage)
        );
        let gap = |bin: &super::super::ReliabilityBin| {
            bin.samples as f64 / 2000.0 * (bin.accuracy - bin.confidence).abs()
        };
        let error: f64 = evaluation.reliability.iter().map(gap).sum();
        assert!((error - evaluation.ece.value).abs() < 1e-12);
        assert_eq!(evaluation.reliability.iter().map(|bin| bin.samples).sum::<u64>(), 2000);
    }
}
