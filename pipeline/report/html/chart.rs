//! Plots of an evaluation and of a search as SVG: curves over thresholds, reliability, parallel coordinates. Each stands
//! alone as a file, and is repainted in a page that is read in the dark.

use std::fmt::Write as _;

use forebay_datasets::escape;

use super::super::axis::{Division, PlotAxis, number};
use super::super::palette::{AXIS, GRID, INK, MUTED, PAPER, SERIES};
use crate::plan::shorten;

/// The most characters of a name in a legend.
const NAME_MAX: usize = 46;

/// One line of a chart.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ChartLine {
    /// For the legend; one without is drawn behind those that have one.
    pub(super) name: Option<String>,
    pub(super) color: &'static str,
    /// Stroke width, pixels.
    pub(super) width: f64,
    pub(super) dashed: bool,
    /// Whether the points are drawn and not the line.
    pub(super) dots: bool,
    pub(super) points: Vec<(f64, f64)>,
}

impl ChartLine {
    /// A line with a name in the legend, in the colour of its place among them.
    pub(super) fn named(name: String, place: usize, points: Vec<(f64, f64)>) -> ChartLine {
        let color = SERIES[place % SERIES.len()];
        ChartLine { name: Some(name), color, width: 2.0, dashed: false, dots: false, points }
    }

    /// A line to compare with.
    pub(super) fn reference(points: Vec<(f64, f64)>) -> ChartLine {
        ChartLine { name: None, color: AXIS, width: 1.2, dashed: true, dots: false, points }
    }

    /// One of many that are not told apart.
    pub(super) fn one_of_many(points: Vec<(f64, f64)>) -> ChartLine {
        ChartLine { name: None, color: AXIS, width: 0.7, dashed: false, dots: false, points }
    }
}

/// A plot with lines over two sides of a given extent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chart {
    pub(super) title: &'static str,
    pub(super) x: Side,
    pub(super) y: Side,
    /// Rectangles behind the lines: left, right, bottom, top, in values.
    pub(super) boxes: Vec<[f64; 4]>,
    pub(super) lines: Vec<ChartLine>,
}

/// A side of a plot: what it is, and from where to where.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Side {
    pub(super) name: &'static str,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Side {
    /// Shares, from 0 to 1.
    pub(super) fn unit(name: &'static str) -> Side {
        Side { name, low: 0.0, high: 1.0 }
    }

    fn axis(self) -> PlotAxis {
        PlotAxis { low: self.low, high: self.high, is_log: false, above: None }
    }
}

/// The first tag of a drawing, its paper and its title.
pub(super) fn open(width: f64, height: f64, title: &str) -> String {
    let title = escape::html(title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" font-family=\"system-ui, sans-serif\">\n\
         <title>{title}</title>\n<rect width=\"{width}\" height=\"{height}\" fill=\"{PAPER}\"/>\n\
         <text x=\"14\" y=\"22\" font-size=\"14\" font-weight=\"600\" fill=\"{INK}\">{title}</text>\n"
    )
}

/// A text of a drawing; `anchor` is `start`, `middle` or `end`.
pub(super) fn label(x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"12\" fill=\"{MUTED}\">{}</text>\n",
        escape::html(text)
    )
}

/// A line through points of a drawing.
pub(super) fn polyline(points: &[(f64, f64)], color: &str, width: f64, more: &str) -> String {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    format!(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"{width}\" stroke-linejoin=\"round\"{more}/>\n",
        points.join(" ")
    )
}

impl Chart {
    /// The drawing, with a legend below.
    pub(super) fn svg(&self) -> String {
        let (width, plot, left, top) = (420.0, 300.0, 52.0, 52.0);
        let right = 18.0;
        let inner = width - left - right;
        let named: Vec<&ChartLine> = self.lines.iter().filter(|line| line.name.is_some()).collect();
        let height = top + plot + 44.0 + 18.0 * named.len() as f64 + if named.is_empty() { 0.0 } else { 6.0 };
        let (x_axis, y_axis) = (self.x.axis(), self.y.axis());
        let x = |value: f64| left + inner * x_axis.position(value);
        let y = |value: f64| top + plot * (1.0 - y_axis.position(value));
        let mut svg = open(width, height, self.title);
        for value in y_axis.ticks(6) {
            let at = y(value);
            let _ = writeln!(
                svg,
                "<line x1=\"{left}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"{GRID}\"/>",
                width - right
            );
            svg += &label(left - 7.0, at + 4.0, "end", &number(value));
        }
        for value in x_axis.ticks(6) {
            let at = x(value);
            let _ = writeln!(
                svg,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{:.1}\" stroke=\"{GRID}\"/>",
                top + plot
            );
            svg += &label(at, top + plot + 17.0, "middle", &number(value));
        }
        svg += &label(left + inner / 2.0, top + plot + 34.0, "middle", self.x.name);
        svg += &label(left - 38.0, top - 11.0, "start", self.y.name);
        for [from, to, bottom, upper] in &self.boxes {
            let (x0, x1, y0, y1) = (x(*from), x(*to), y(*upper), y(*bottom));
            let _ = writeln!(
                svg,
                "<rect x=\"{x0:.1}\" y=\"{y0:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\" fill-opacity=\"0.35\"/>",
                (x1 - x0).max(0.0),
                (y1 - y0).max(0.0),
                SERIES[0]
            );
        }
        let behind = self.lines.iter().filter(|line| line.name.is_none());
        for line in behind.chain(named.iter().copied()) {
            let finite = |point: &&(f64, f64)| point.0.is_finite() && point.1.is_finite();
            let points: Vec<(f64, f64)> =
                line.points.iter().filter(finite).map(|point| (x(point.0), y(point.1))).collect();
            if line.dots || points.len() == 1 {
                for (x, y) in points {
                    let _ = writeln!(
                        svg,
                        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{}\"/>",
                        line.color
                    );
                }
                continue;
            }
            let more = if line.dashed { " stroke-dasharray=\"5 4\"" } else { "" };
            svg += &polyline(&points, line.color, line.width, more);
        }
        for (place, line) in named.iter().enumerate() {
            let at = top + plot + 56.0 + 18.0 * place as f64;
            let name = shorten(line.name.as_deref().unwrap_or_default(), NAME_MAX);
            let more = if line.dashed { " stroke-dasharray=\"5 4\"" } else { "" };
            svg += &polyline(&[(left, at - 4.0), (left + 22.0, at - 4.0)], line.color, 3.0, more);
            svg += &label(left + 30.0, at, "start", &name);
        }
        svg + "</svg>\n"
    }
}

/// Lines through parallel axes, one line per trial: brighter is better. `axes` are the names and values of each, `None`
/// where a trial has none; `scores` colour the lines, the higher the better.
pub(super) fn parallel(
    title: &str,
    axes: &[(String, Vec<Option<Coordinate>>)],
    scores: &[Option<f64>],
) -> String {
    let (plot, left, top) = (260.0, 60.0, 64.0);
    let gap = 150.0;
    let width = (left + gap * axes.len().saturating_sub(1) as f64 + 110.0).max(420.0);
    let mut svg = open(width, top + plot + 30.0, title);
    let drawn: Vec<AxisScale> = axes.iter().map(|(_, values)| AxisScale::of(values)).collect();
    let x = |axis: usize| left + gap * axis as f64;
    let y = |share: f64| top + plot * (1.0 - share);
    let known = || scores.iter().flatten().copied().filter(|score| score.is_finite());
    let (worst, best) = (known().fold(f64::INFINITY, f64::min), known().fold(f64::NEG_INFINITY, f64::max));
    let mut order: Vec<(usize, f64)> = (0..scores.len())
        .filter_map(|trial| Some((trial, scores[trial].filter(|score| score.is_finite())?)))
        .collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    for (place, (trial, score)) in order.iter().enumerate() {
        let points: Vec<(f64, f64)> = axes
            .iter()
            .enumerate()
            .filter_map(|(axis, (_, values))| {
                Some((x(axis), y(drawn[axis].position(values[*trial].as_ref()?))))
            })
            .collect();
        let share = if best > worst { (score - worst) / (best - worst) } else { 1.0 };
        let is_best = place + 1 == order.len();
        let (color, line) = if is_best { (SERIES[1], 2.5) } else { (SERIES[0], 1.2) };
        let opacity = if is_best { 1.0 } else { 0.12 + 0.6 * share * share };
        svg += &polyline(&points, color, line, &format!(" stroke-opacity=\"{opacity:.2}\""));
    }
    for (axis, (name, _)) in axes.iter().enumerate() {
        let at = x(axis);
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{:.1}\" stroke=\"{AXIS}\"/>",
            top + plot
        );
        svg += &label(at, top - 12.0, "middle", &shorten(name, 22));
        for (share, text) in drawn[axis].ticks() {
            svg += &label(at + 5.0, y(share) + 4.0, "start", &shorten(&text, 15));
        }
    }
    svg + "</svg>\n"
}

/// A value of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Coordinate {
    Number(f64),
    Word(String),
}

impl Coordinate {
    /// As it was written.
    pub(super) fn of(text: &str) -> Coordinate {
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Coordinate::Number(value),
            _ => Coordinate::Word(text.to_string()),
        }
    }
}

/// Where values of a parameter lie on its axis.
enum AxisScale {
    Numbers(PlotAxis),
    Words(Vec<String>),
}

impl AxisScale {
    fn of(values: &[Option<Coordinate>]) -> AxisScale {
        let numbers: Option<Vec<f64>> = values
            .iter()
            .flatten()
            .map(|value| match value {
                Coordinate::Number(value) => Some(*value),
                Coordinate::Word(_) => None,
            })
            .collect();
        let axis = numbers.and_then(|numbers| {
            let is_wide = numbers.iter().all(|value| *value > 0.0)
                && numbers.iter().copied().fold(0.0, f64::max)
                    >= 30.0 * numbers.iter().copied().fold(f64::INFINITY, f64::min);
            let division = if is_wide { Division::Log } else { Division::Linear };
            PlotAxis::of(numbers.into_iter(), division)
        });
        axis.map(AxisScale::Numbers).unwrap_or_else(|| {
            let mut words: Vec<String> = values.iter().flatten().map(Coordinate::to_string).collect();
            words.sort();
            words.dedup();
            AxisScale::Words(words)
        })
    }

    fn position(&self, value: &Coordinate) -> f64 {
        match (self, value) {
            (AxisScale::Numbers(axis), Coordinate::Number(value)) => axis.position(*value),
            (AxisScale::Numbers(_), Coordinate::Word(_)) => 0.0,
            (AxisScale::Words(words), value) => {
                let place = words.binary_search(&value.to_string()).unwrap_or(0);
                (place as f64 + 0.5) / words.len().max(1) as f64
            }
        }
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        match self {
            AxisScale::Numbers(axis) => {
                axis.ticks(6).into_iter().map(|tick| (axis.position(tick), number(tick))).collect()
            }
            AxisScale::Words(words) => {
                let place = |(index, word): (usize, &String)| {
                    ((index as f64 + 0.5) / words.len() as f64, word.clone())
                };
                words.iter().enumerate().take(20).map(place).collect()
            }
        }
    }
}

impl std::fmt::Display for Coordinate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Coordinate::Number(value) => f.write_str(&number(*value)),
            Coordinate::Word(word) => f.write_str(word),
        }
    }
}
