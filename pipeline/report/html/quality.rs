//! The plots of an evaluation: confusion, ROC, precision and recall, reliability, accuracy against coverage.

use forebay_train::metrics::{CurvePoint, Curves, Evaluation, Figure};

use super::super::palette::{GRID, INK, SERIES};
use super::chart::{self, Chart, ChartLine, Side};
use crate::plan::shorten;

/// Classes that each have a colour and a line in the legend; of more, so many of the worst.
const NAMED_MAX: usize = 8;
const WORST: usize = 4;

/// Classes whose curves are drawn at all.
const DRAWN_MAX: usize = 100;

fn points(curve: &[CurvePoint]) -> Vec<(f64, f64)> {
    curve.iter().map(|point| (point.x, point.y)).collect()
}

fn with_value(name: &str, figure: Option<Figure>) -> String {
    figure.map_or(name.to_string(), |figure| format!("{name}  {:.4}", figure.value))
}

/// Lines for each class against the rest, those of several averages, and what they are worth.
fn against_rest(
    evaluation: &Evaluation,
    curves: &Curves,
    worth: impl Fn(usize) -> Option<Figure>,
    averages: Vec<(String, Vec<(f64, f64)>)>,
) -> Vec<ChartLine> {
    let drawn: Vec<usize> =
        (0..evaluation.classes.len()).filter(|class| !curves.classes[*class].is_empty()).collect();
    let is_binary = evaluation.classes.len() == 2;
    let mut named = match is_binary {
        // The curves of two classes are one curve and its mirror.
        true => drawn.iter().copied().filter(|class| *class == 1).collect(),
        false => drawn.clone(),
    };
    if named.len() > NAMED_MAX {
        let value = |class: &usize| worth(*class).map_or(f64::INFINITY, |figure| figure.value);
        named.sort_by(|a, b| value(a).total_cmp(&value(b)));
        named.truncate(WORST);
    }
    let mut lines: Vec<ChartLine> = match is_binary {
        true => Vec::new(),
        false => drawn
            .iter()
            .filter(|class| !named.contains(class))
            .take(DRAWN_MAX)
            .map(|class| ChartLine::one_of_many(points(&curves.classes[*class])))
            .collect(),
    };
    for (name, points) in averages.into_iter().filter(|(_, points)| !points.is_empty() && !is_binary) {
        let dashed = name.starts_with("macro");
        lines.push(ChartLine { color: INK, width: 2.2, dashed, ..ChartLine::named(name, 0, points) });
    }
    for (place, class) in named.into_iter().enumerate() {
        let name = with_value(&evaluation.classes[class], worth(class));
        lines.push(ChartLine { width: 1.5, ..ChartLine::named(name, place, points(&curves.classes[class])) });
    }
    lines
}

/// The mean true positive rate of the classes at each false positive rate, as scikit-learn's example of a macro average
/// has it: each curve is interpolated between its points.
fn macro_roc(curves: &Curves) -> Vec<(f64, f64)> {
    let drawn: Vec<&Vec<CurvePoint>> = curves.classes.iter().filter(|curve| !curve.is_empty()).collect();
    if drawn.is_empty() {
        return Vec::new();
    }
    let mean = |x: f64| {
        let sum: f64 = drawn.iter().map(|curve| interpolated(curve, x)).sum();
        (x, sum / drawn.len() as f64)
    };
    let inner = (0..=100).map(|step| mean(f64::from(step) / 100.0));
    std::iter::once((0.0, 0.0)).chain(inner).collect()
}

/// The value of a rising curve at `x`, the highest where several points are there.
fn interpolated(curve: &[CurvePoint], x: f64) -> f64 {
    let after = curve.partition_point(|point| point.x <= x);
    match (after.checked_sub(1).map(|before| curve[before]), curve.get(after)) {
        (Some(before), Some(next)) => before.y + (next.y - before.y) * (x - before.x) / (next.x - before.x),
        (Some(last), None) => last.y,
        (None, next) => next.map_or(0.0, |next| next.y),
    }
}

/// The side of the field of a confusion matrix, pixels, and of its cells at most.
const FIELD: f64 = 460.0;
const CELL_MAX: f64 = 44.0;

/// The smallest cell that has room for its number, and for the name of its class beside it.
const CELL_WITH_NUMBER: f64 = 22.0;
const CELL_WITH_NAME: f64 = 9.0;

/// The most characters of a name beside a matrix.
const NAME_MAX: usize = 18;

/// The confusion matrix: a row for each true class, its images by what they were taken for.
pub(super) fn confusion(evaluation: &Evaluation) -> String {
    let Evaluation { classes, confusion, .. } = evaluation;
    let cell = (FIELD / classes.len() as f64).min(CELL_MAX);
    let (left, top, field) = (150.0, 172.0, cell * classes.len() as f64);
    let mut svg = chart::open(
        left + field + 70.0,
        top + field + 16.0,
        "Confusion: true class by what it was taken for",
    );
    let at = |index: usize| index as f64 * cell;
    for (index, class) in classes.iter().enumerate().filter(|_| cell >= CELL_WITH_NAME) {
        let (name, middle) = (shorten(class, NAME_MAX), at(index) + cell / 2.0);
        svg += &chart::label(left - 7.0, top + middle + 4.0, "end", &name);
        let (x, y) = (left + middle + 4.0, top - 8.0);
        svg += &format!(
            "<g transform=\"rotate(-60 {x:.1} {y:.1})\">{}</g>\n",
            chart::label(x, y, "start", &name).trim_end()
        );
    }
    for (truth, counts) in confusion.iter().enumerate() {
        let total = counts.iter().sum::<u64>().max(1) as f64;
        for (prediction, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let (x, y) = (left + at(prediction), top + at(truth));
            let color = if truth == prediction { SERIES[0] } else { SERIES[1] };
            // The ink stays readable on a share of 1.
            let shade = 0.07 + 0.48 * *count as f64 / total;
            svg += &format!(
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{cell:.2}\" height=\"{cell:.2}\" fill=\"{color}\" fill-opacity=\"{shade:.3}\"/>\n"
            );
            if cell >= CELL_WITH_NUMBER {
                svg += &chart::label(x + cell / 2.0, y + cell / 2.0 + 4.0, "middle", &count.to_string());
            }
        }
    }
    svg += &format!(
        "<rect x=\"{left}\" y=\"{top}\" width=\"{field:.1}\" height=\"{field:.1}\" fill=\"none\" stroke=\"{GRID}\"/>\n</svg>\n"
    );
    svg
}

/// The ROC curves: each class against the rest, micro and macro averages.
pub(super) fn roc(evaluation: &Evaluation) -> String {
    let Evaluation { roc: curves, roc_auc, per_class, .. } = evaluation;
    let averages = vec![
        (with_value("macro average", roc_auc.macro_average), macro_roc(curves)),
        (with_value("micro average", roc_auc.micro_average), points(&curves.micro)),
    ];
    let mut lines = against_rest(evaluation, curves, |class| per_class[class].roc_auc, averages);
    lines.push(ChartLine::reference(vec![(0.0, 0.0), (1.0, 1.0)]));
    let (x, y) = (Side::unit("false positive rate"), Side::unit("true positive rate"));
    Chart { title: "ROC, with the area under each curve", x, y, boxes: Vec::new(), lines }.svg()
}

/// The curves of precision against recall: each class against the rest, and the micro average.
pub(super) fn precision_recall(evaluation: &Evaluation) -> String {
    let Evaluation { pr: curves, average_precision, per_class, .. } = evaluation;
    let averages =
        vec![(with_value("micro average", average_precision.micro_average), points(&curves.micro))];
    let lines = against_rest(evaluation, curves, |class| per_class[class].average_precision, averages);
    let (x, y) = (Side::unit("recall"), Side::unit("precision"));
    Chart { title: "Precision and recall, with average precision", x, y, boxes: Vec::new(), lines }.svg()
}

/// Accuracy against confidence, in the bins of the calibration error, over how many images each holds.
pub(super) fn reliability(evaluation: &Evaluation) -> String {
    let bins = evaluation.reliability.iter().filter(|bin| bin.samples > 0);
    let points: Vec<(f64, f64)> = bins.clone().map(|bin| (bin.confidence, bin.accuracy)).collect();
    let most = bins.clone().map(|bin| bin.samples).max().unwrap_or(1).max(1) as f64;
    // The counts are bars behind the points, as high as their share of the largest one, in the lower third.
    let boxes = bins.clone().map(|bin| [bin.low, bin.high, 0.0, 0.3 * bin.samples as f64 / most]).collect();
    let dots =
        ChartLine { dots: true, color: SERIES[1], ..ChartLine::named(String::new(), 1, points.clone()) };
    let line = ChartLine {
        name: Some(format!("accuracy in a bin; bars: images in it, at most {most}")),
        color: SERIES[1],
        ..ChartLine::named(String::new(), 1, points)
    };
    let calibrated = ChartLine::reference(vec![(0.0, 0.0), (1.0, 1.0)]);
    let lines = vec![calibrated, line, ChartLine { name: None, ..dots }];
    let (x, y) = (Side::unit("confidence (probability of the prediction)"), Side::unit("accuracy"));
    Chart { title: "Reliability", x, y, boxes, lines }.svg()
}

/// Accuracy of the most confident predictions against the share of images that they are.
pub(super) fn coverage(evaluation: &Evaluation) -> String {
    let points: Vec<(f64, f64)> =
        evaluation.coverage.iter().map(|point| (point.coverage, point.accuracy)).collect();
    let lowest = points.iter().map(|point| point.1).fold(1.0, f64::min);
    let low = ((lowest - 0.02) * 10.0).floor().max(0.0) / 10.0;
    let whole = evaluation.accuracy.value;
    let lines = vec![
        ChartLine::reference(vec![(0.0, whole), (1.0, whole)]),
        ChartLine::named("accuracy where only the most confident are accepted".to_string(), 0, points),
    ];
    let y = Side { name: "accuracy", low, high: 1.0 };
    Chart {
        title: "Accuracy against coverage",
        x: Side::unit("share of images accepted"),
        y,
        boxes: Vec::new(),
        lines,
    }
    .svg()
}

/// How much is right where only confident predictions are accepted, in words: the largest coverage at which the accuracy
/// is at least each of some levels.
pub(super) fn coverage_in_words(evaluation: &Evaluation) -> String {
    let reached =
        [0.9, 0.95, 0.99].iter().filter(|level| **level > evaluation.accuracy.value).filter_map(|level| {
            let reaches = |point: &&forebay_train::metrics::CoveragePoint| point.accuracy >= *level;
            let point = evaluation
                .coverage
                .iter()
                .filter(reaches)
                .max_by(|a, b| a.coverage.total_cmp(&b.coverage))?;
            Some(format!(
                "for {:.0} % accuracy, accept {:.1} % of images: those with a confidence of at least {:.3}",
                level * 100.0,
                point.coverage * 100.0,
                point.threshold
            ))
        });
    let reached: Vec<String> = reached.collect();
    match reached.is_empty() {
        true => String::new(),
        false => format!("<p class=\"muted\">On these images, {}.</p>\n", reached.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_interpolated_between_its_points_and_jumps_to_the_highest() {
        let point = |x: f64, y: f64| CurvePoint { x, y, threshold: None };
        let curve = [point(0.0, 0.0), point(0.0, 0.4), point(0.5, 0.8), point(1.0, 1.0)];
        for (x, y) in [(0.0, 0.4), (0.25, 0.6), (0.5, 0.8), (0.75, 0.9), (1.0, 1.0)] {
            assert!((interpolated(&curve, x) - y).abs() < 1e-12, "{x}");
        }
    }
}
