//! The colours of plots: those of a drawing on white paper, and what a page in the dark has in their place.
//!
//! A drawing has its colours as attributes, so that it stands alone as a file. A page repaints them by their values.

use std::fmt::Write as _;

/// What a drawing is on.
pub(crate) const PAPER: &str = "#fff";
/// Text.
pub(crate) const INK: &str = "#1c2733";
/// Text beside the text; 5.5 : 1 on paper.
pub(crate) const MUTED: &str = "#5b6b7b";
/// Lines behind the data.
pub(crate) const GRID: &str = "#e3e8ee";
/// The ends of the data, and what is drawn only to compare with.
pub(crate) const AXIS: &str = "#9aa7b4";
/// Lines and bars, in the order in which they are used; each at least 4.5 : 1 on paper, as it is also that of a name.
pub(crate) const SERIES: [&str; 8] =
    ["#2a6fdb", "#b8540f", "#1b7f4d", "#7a45c9", "#c2303a", "#0f7d8c", "#b83280", "#7a6a00"];

/// What takes the place of each in the dark.
const DARK: [(&str, &str); 13] = [
    (PAPER, "#161c23"),
    (INK, "#e6edf3"),
    (MUTED, "#9fb0c0"),
    (GRID, "#2a333d"),
    (AXIS, "#5d6b79"),
    (SERIES[0], "#6ea8ff"),
    (SERIES[1], "#f0955a"),
    (SERIES[2], "#57c98f"),
    (SERIES[3], "#b794f4"),
    (SERIES[4], "#ff8087"),
    (SERIES[5], "#4fc3d1"),
    (SERIES[6], "#f08fc4"),
    (SERIES[7], "#d4c255"),
];

/// The rules that repaint the drawings of a page in the dark.
pub(crate) fn dark_rules() -> String {
    let mut rules = String::new();
    for (light, dark) in DARK {
        let _ =
            writeln!(rules, "svg [fill=\"{light}\"]{{fill:{dark}}}svg [stroke=\"{light}\"]{{stroke:{dark}}}");
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contrast of two colours by WCAG 2: 1 to 21.
    fn contrast(a: &str, b: &str) -> f64 {
        let luminance = |color: &str| {
            let digits: String = match color.len() {
                4 => color[1..].chars().flat_map(|digit| [digit, digit]).collect(),
                _ => color[1..].to_string(),
            };
            let channel = |at: usize| {
                let value = f64::from(u8::from_str_radix(&digits[at..at + 2], 16).unwrap()) / 255.0;
                if value <= 0.03928 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * channel(0) + 0.7152 * channel(2) + 0.0722 * channel(4)
        };
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn every_text_has_the_contrast_of_wcag_aa_in_light_and_dark() {
        let dark = |color: &str| DARK.iter().find(|(light, _)| *light == color).unwrap().1;
        for color in SERIES.iter().chain(&[INK, MUTED]) {
            for (text, paper) in [(*color, PAPER), (dark(color), dark(PAPER))] {
                assert!(contrast(text, paper) >= 4.5, "{text} on {paper}: {:.2}", contrast(text, paper));
            }
        }
    }
}
