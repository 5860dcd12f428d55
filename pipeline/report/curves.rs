//! Line plots as SVG: a drawing that browsers, READMEs and papers show as it is, and that needs no fonts to make.

use std::fmt::Write as _;

use forebay_datasets::escape;

use super::axis::{Division, PlotAxis, number};
use super::palette::{AXIS, GRID, INK, MUTED, PAPER, SERIES};

/// The most points of a line; of more, each drawn one stands for several.
const POINTS_MAX: usize = 800;

/// One line of a plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What it shows, for the legend.
    pub name: &'static str,
    /// Its colour, as in CSS.
    pub color: &'static str,
    /// The points from left to right; those that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// Whether each point gets a dot: for points that are few.
    pub dots: bool,
}

/// The colour of what was measured in training.
pub const TRAIN: &str = SERIES[0];

/// The colour of what was measured on validation images.
pub const VALIDATION: &str = SERIES[1];

/// Evenly chosen points, the last one among them.
pub fn thinned(points: &[(f64, f64)], most: usize) -> Vec<(f64, f64)> {
    let finite: Vec<(f64, f64)> =
        points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    if finite.len() <= most || most < 2 {
        return finite;
    }
    let last = finite.len() - 1;
    (0..most).map(|index| finite[index * last / (most - 1)]).collect()
}

/// What a plot shows over what.
#[derive(Clone, Copy, Debug)]
pub struct Plot<'a> {
    /// What it shows, with its unit.
    pub title: &'a str,
    /// What it is shown over.
    pub x_name: &'a str,
    /// Whether equal ratios are equally far apart from left to right.
    pub x_is_log: bool,
    /// Whether the values may be on a logarithmic scale where that shows more.
    pub y_may_be_log: bool,
}

/// The plot of some lines, with round ticks on both sides; it stands alone as a file or in a page.
pub fn svg(plot: Plot<'_>, series: &[Series]) -> String {
    let (width, height, left, right, top, bottom) = (520.0, 260.0, 60.0, 16.0, 36.0, 34.0);
    let lines: Vec<(&Series, Vec<(f64, f64)>)> = series
        .iter()
        .map(|series| (series, thinned(&series.points, POINTS_MAX)))
        .filter(|(_, points)| !points.is_empty())
        .collect();
    let values =
        |pick: fn(&(f64, f64)) -> f64| lines.iter().flat_map(move |(_, points)| points.iter().map(pick));
    let x_axis =
        PlotAxis::of(values(|point| point.0), if plot.x_is_log { Division::Log } else { Division::Linear });
    let y_axis = PlotAxis::of(
        values(|point| point.1),
        if plot.y_may_be_log { Division::Fitting } else { Division::Robust },
    );
    let title = escape::html(plot.title);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" font-family=\"system-ui, sans-serif\">\n<title>{title}</title>\n<rect width=\"{width}\" height=\"{height}\" fill=\"{PAPER}\"/>\n"
    );
    let (Some(x_axis), Some(y_axis)) = (x_axis, y_axis) else {
        let _ = writeln!(
            svg,
            "<text x=\"{left}\" y=\"20\" font-size=\"14\" font-weight=\"600\" fill=\"{INK}\">{title}</text>\n<text x=\"{left}\" y=\"60\" font-size=\"12\" fill=\"{MUTED}\">nothing to plot</text>"
        );
        return svg + "</svg>\n";
    };
    let _ = writeln!(
        svg,
        "<text x=\"{left}\" y=\"20\" font-size=\"14\" font-weight=\"600\" fill=\"{INK}\">{title}<tspan font-size=\"12\" font-weight=\"400\" fill=\"{MUTED}\">{}</tspan></text>",
        escape::html(&y_axis.remark())
    );
    let x = |value: f64| left + (width - left - right) * x_axis.position(value);
    let y = |value: f64| height - bottom - (height - bottom - top) * y_axis.position(value);
    for value in y_axis.ticks(6) {
        let _ = writeln!(
            svg,
            "<line x1=\"{left}\" x2=\"{}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"{GRID}\"/><text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\" font-size=\"12\" fill=\"{MUTED}\">{4}</text>",
            width - right,
            y(value),
            left - 8.0,
            y(value) + 4.0,
            number(value)
        );
    }
    let base = height - bottom;
    let name = escape::html(plot.x_name);
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"12\" fill=\"{MUTED}\">{name}</text>",
        left - 8.0,
        base + 20.0
    );
    for value in x_axis.ticks(8) {
        let _ = writeln!(
            svg,
            "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{base}\" y2=\"{1}\" stroke=\"{AXIS}\"/><text x=\"{0:.1}\" y=\"{2}\" text-anchor=\"middle\" font-size=\"12\" fill=\"{MUTED}\">{3}</text>",
            x(value),
            base + 5.0,
            base + 20.0,
            number(value)
        );
    }
    for (place, (series, points)) in lines.iter().enumerate() {
        let Series { name, color, dots, .. } = series;
        let path: Vec<String> = points.iter().map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" stroke-linejoin=\"round\"/>",
            path.join(" ")
        );
        for (a, b) in points.iter().filter(|_| *dots || points.len() == 1) {
            let _ =
                writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{color}\"/>", x(*a), y(*b));
        }
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"20\" text-anchor=\"end\" font-size=\"13\" fill=\"{color}\">{name}</text>",
            width - right - 90.0 * place as f64
        );
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLOT: Plot<'static> = Plot { title: "loss", x_name: "epoch", x_is_log: false, y_may_be_log: true };

    #[test]
    fn a_plot_shows_what_is_finite_and_is_whole_for_nothing_and_for_one_point() {
        let series = |points: &[(f64, f64)]| {
            [Series { name: "train", color: TRAIN, points: points.to_vec(), dots: false }]
        };
        assert!(svg(PLOT, &series(&[])).contains("nothing to plot"));
        assert!(svg(PLOT, &series(&[(1.0, f64::NAN)])).contains("nothing to plot"));
        let one = svg(PLOT, &series(&[(1.0, 2.0)]));
        assert!(one.contains("<circle") && !one.contains("NaN") && !one.contains("inf"), "{one}");
        let many: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
        assert!(svg(PLOT, &series(&many)).len() < 20_000);
        assert_eq!(thinned(&many, 5).last(), many.last());
    }
}
