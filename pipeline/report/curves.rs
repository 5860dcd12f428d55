//! Line plots as SVG: a drawing that browsers, READMEs and papers show as it is, and that needs no fonts to make.

use std::fmt::Write as _;

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
pub const TRAIN: &str = "#2a6fdb";

/// The colour of what was measured on validation images.
pub const VALIDATION: &str = "#e0702c";

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

/// The plot of some lines over `x_name`, with a scale on the left; it stands alone as a file or in a page.
pub fn svg(title: &str, x_name: &str, series: &[Series]) -> String {
    let (width, height, left, right, top, bottom) = (800.0, 280.0, 70.0, 20.0, 36.0, 34.0);
    let lines: Vec<(&Series, Vec<(f64, f64)>)> = series
        .iter()
        .map(|series| (series, thinned(&series.points, POINTS_MAX)))
        .filter(|(_, points)| !points.is_empty())
        .collect();
    let bounds = |pick: fn(&(f64, f64)) -> f64| {
        let values = || lines.iter().flat_map(|(_, points)| points.iter().map(pick));
        let low = values().fold(f64::INFINITY, f64::min);
        let high = values().fold(f64::NEG_INFINITY, f64::max);
        let room = 1e-9 * low.abs().max(high.abs()).max(1e-30);
        match high - low > room {
            true => (low, high),
            false => (low - low.abs().max(0.1) / 2.0, high + high.abs().max(0.1) / 2.0),
        }
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" font-family=\"system-ui, sans-serif\">\n<title>{title}</title>\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n<text x=\"{left}\" y=\"20\" font-size=\"14\" font-weight=\"600\" fill=\"#1c2733\">{title}</text>\n"
    );
    if lines.is_empty() {
        let _ = writeln!(
            svg,
            "<text x=\"{left}\" y=\"60\" font-size=\"12\" fill=\"#66788a\">nothing to plot</text>"
        );
        return svg + "</svg>\n";
    }
    let ((x_low, x_high), (low, high)) = (bounds(|point| point.0), bounds(|point| point.1));
    let x = |value: f64| left + (width - left - right) * (value - x_low) / (x_high - x_low);
    let y = |value: f64| top + (height - bottom - top) * (high - value) / (high - low);
    for line in 0..=4 {
        let value = low + (high - low) * f64::from(line) / 4.0;
        let _ = writeln!(
            svg,
            "<line x1=\"{left}\" x2=\"{}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"#e3e8ee\"/><text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\" font-size=\"12\" fill=\"#66788a\">{4}</text>",
            width - right,
            y(value),
            left - 8.0,
            y(value) + 4.0,
            number(value)
        );
    }
    for (value, anchor) in [(x_low, "start"), (x_high, "end")] {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"{anchor}\" font-size=\"12\" fill=\"#66788a\">{x_name} {}</text>",
            x(value),
            height - 10.0,
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

/// Three digits that count, without zeros at the end; very small and very large ones as `1.2e-6`.
pub fn number(value: f64) -> String {
    let exponent = if value == 0.0 { 0 } else { value.abs().log10().floor().clamp(-400.0, 400.0) as i32 };
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text.to_string(),
    };
    if !(-3..6).contains(&exponent) {
        let text = format!("{value:.2e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{}e{power}", trim(digits));
    }
    trim(&format!("{value:.*}", (2 - exponent).max(0) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_on_the_scale_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (1.0, "1"),
            (12.34, "12.3"),
            (0.00123, "0.00123"),
            (1234.0, "1234"),
            (-0.25, "-0.25"),
            (0.0000114, "1.14e-5"),
            (6.0e15, "6e15"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_plot_shows_what_is_finite_and_is_whole_for_nothing_and_for_one_point() {
        let series = |points: &[(f64, f64)]| {
            [Series { name: "train", color: TRAIN, points: points.to_vec(), dots: false }]
        };
        assert!(svg("loss", "epoch", &series(&[])).contains("nothing to plot"));
        assert!(svg("loss", "epoch", &series(&[(1.0, f64::NAN)])).contains("nothing to plot"));
        let one = svg("loss", "epoch", &series(&[(1.0, 2.0)]));
        assert!(one.contains("<circle") && !one.contains("NaN") && !one.contains("inf"), "{one}");
        let many: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
        assert!(svg("loss", "epoch", &series(&many)).len() < 20_000);
        assert_eq!(thinned(&many, 5).last(), many.last());
    }
}
