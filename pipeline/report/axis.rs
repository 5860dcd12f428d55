//! The scale of one side of a plot: its bounds, round ticks, and where a value lies. The SVG curves, the live view and the
//! range test draw with the same one.

/// Of linear values, the share that the scale shows for sure; what lies further out than [`ROOM`] ranges of these is drawn at
/// the edge, so that one outlier does not flatten the rest.
const SHOWN: f64 = 0.98;
const ROOM: f64 = 1.5;
/// Among fewer values none is an outlier.
const VALUES_MIN: usize = 20;

/// From so many times the smallest value on, values are shown on a logarithmic scale where it may be one.
const LOG_FROM: f64 = 30.0;

/// The scale of one side of a plot.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PlotAxis {
    /// The smallest value.
    pub low: f64,
    /// The largest value that is not drawn at the edge.
    pub high: f64,
    /// Whether equal ratios are equally far apart.
    pub is_log: bool,
    /// How many values lie above `high`, and the largest of them.
    pub above: Option<(usize, f64)>,
}

/// How a side of a plot is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Division {
    /// Equal differences are equally far apart, whatever the values.
    Linear,
    /// As `Linear`, but one outlier among many values is drawn at the edge.
    Robust,
    /// As `Robust`, or logarithmic where positive values differ by much.
    Fitting,
    /// Equal ratios are equally far apart.
    Log,
}

impl PlotAxis {
    /// The scale for these values, of which those that are not finite count for nothing; `None` when there is no other.
    pub(crate) fn of(values: impl Iterator<Item = f64>, division: Division) -> Option<PlotAxis> {
        let is_positive = |value: &f64| division != Division::Log || *value > 0.0;
        let mut sorted: Vec<f64> = values.filter(|value| value.is_finite()).filter(is_positive).collect();
        sorted.sort_by(f64::total_cmp);
        let (low, mut high) = (*sorted.first()?, *sorted.last()?);
        let usual = sorted[(sorted.len() - 1) - ((sorted.len() - 1) as f64 * (1.0 - SHOWN)).ceil() as usize];
        let is_log = match division {
            Division::Log => true,
            Division::Fitting => low > 0.0 && usual / low >= LOG_FROM,
            _ => false,
        };
        let is_robust = matches!(division, Division::Robust | Division::Fitting) && !is_log;
        let mut above = None;
        if is_robust && sorted.len() >= VALUES_MIN && usual > low && high > usual + ROOM * (usual - low) {
            let first = sorted.partition_point(|value| *value <= usual + 0.1 * (usual - low));
            above = Some((sorted.len() - first, high));
            high = usual + 0.1 * (usual - low);
        }
        // What is all but one value is shown in the middle.
        let room = 1e-9 * low.abs().max(high.abs()).max(1e-30);
        if high - low <= room {
            return Some(match is_log {
                true => PlotAxis { low: low / 2.0, high: high * 2.0, is_log, above },
                false => {
                    let around = low.abs().max(0.1) / 2.0;
                    PlotAxis { low: low - around, high: high + around, is_log, above }
                }
            });
        }
        Some(PlotAxis { low, high, is_log, above })
    }

    /// What a reader must know of the scale, to stand after its name; mostly nothing.
    pub(crate) fn remark(&self) -> String {
        match self.above {
            _ if self.is_log => " (log scale)".to_string(),
            Some((n, most)) => format!(" ({n} higher, up to {})", number(most)),
            None => String::new(),
        }
    }

    /// Where a value lies, from 0 at the lowest to 1 at the highest; what lies outside is at the edge.
    pub(crate) fn position(&self, value: f64) -> f64 {
        let (low, high, value) = match self.is_log {
            true => (self.low.ln(), self.high.ln(), value.max(f64::MIN_POSITIVE).ln()),
            false => (self.low, self.high, value),
        };
        ((value - low) / (high - low)).clamp(0.0, 1.0)
    }

    /// Round values within the bounds, at most so many: 1, 2 or 5 times a power of ten apart; on a logarithmic scale such
    /// values themselves.
    pub(crate) fn ticks(&self, most: usize) -> Vec<f64> {
        let most = most.max(2);
        if self.is_log {
            let found =
                [&[1.0, 2.0, 5.0][..], &[1.0][..]].into_iter().map(|digits| self.log_ticks(digits, 1));
            // Where even the powers of ten are too many, every second, third, ...
            let sparse = (2..).map(|every| self.log_ticks(&[1.0], every));
            let fit = found.chain(sparse).find(|ticks| ticks.len() <= most).unwrap_or_default();
            if fit.len() >= 2 {
                return fit;
            }
        }
        let span = self.high - self.low;
        let power = (span / most as f64).log10().floor() as i32;
        let steps = (power..power + 3).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| (digit, power)));
        for (digit, power) in steps {
            // A division by a power of ten keeps 0.3 what it is, where a product with 0.1 does not.
            let value = |index: f64| match power < 0 {
                true => index * digit / 10f64.powi(-power),
                false => index * digit * 10f64.powi(power),
            };
            let step = value(1.0);
            // What the bounds miss by rounding alone.
            let (first, last) = ((self.low / step - 1e-6).ceil(), (self.high / step + 1e-6).floor());
            if last - first < most as f64 {
                return (0..=(last - first).max(-1.0) as i64)
                    .map(|index| value(first + index as f64))
                    .collect();
            }
        }
        Vec::new()
    }

    fn log_ticks(&self, digits: &[f64], every: i32) -> Vec<f64> {
        let powers = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let within = |value: &f64| *value >= self.low * (1.0 - 1e-9) && *value <= self.high * (1.0 + 1e-9);
        powers
            .filter(|power| power.rem_euclid(every) == 0)
            .flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)))
            .filter(within)
            .collect()
    }
}

/// A value as it stands beside a tick: three digits that count, without zeros at the end; very small and very large ones as
/// `1.2e-6`.
pub(crate) fn number(value: f64) -> String {
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

    fn axis(values: &[f64], division: Division) -> PlotAxis {
        PlotAxis::of(values.iter().copied(), division).unwrap()
    }

    #[test]
    fn ticks_are_round_and_within_the_bounds() {
        for (values, division, most, ticks) in [
            (&[0.192, 0.577][..], Division::Linear, 5, &[0.2, 0.3, 0.4, 0.5][..]),
            (&[0.0, 10.0], Division::Linear, 6, &[0.0, 2.0, 4.0, 6.0, 8.0, 10.0]),
            (&[0.0, 10.0], Division::Linear, 3, &[0.0, 5.0, 10.0]),
            (&[-3.0, 123.0], Division::Linear, 4, &[0.0, 50.0, 100.0]),
            (&[1e-7, 10.0], Division::Log, 9, &[1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0]),
            (&[1e-7, 10.0], Division::Log, 5, &[1e-6, 1e-4, 1e-2, 1.0]),
            (&[1e-4, 1e-3], Division::Log, 5, &[1e-4, 2e-4, 5e-4, 1e-3]),
            (&[3.0, 4.0], Division::Log, 5, &[3.0, 3.5, 4.0]),
        ] {
            let found = axis(values, division).ticks(most);
            assert!(found.len() <= most, "{found:?}");
            let texts = |ticks: &[f64]| ticks.iter().map(|tick| number(*tick)).collect::<Vec<_>>();
            assert_eq!(texts(&found), texts(ticks), "{values:?}");
        }
        for exponent in -12..12 {
            for span in [1.0, 1.7, 3.3, 9.99] {
                let axis = axis(&[0.1, 0.1 + span * 10f64.powi(exponent)], Division::Linear);
                let ticks = axis.ticks(5);
                assert!((1..=5).contains(&ticks.len()), "{axis:?}: {ticks:?}");
            }
        }
    }

    #[test]
    fn an_outlier_is_named_and_flattens_nothing() {
        let mut losses: Vec<f64> = (0..200).map(|step| 2.0 - f64::from(step) / 200.0).collect();
        losses[3] = 60.0;
        let robust = axis(&losses, Division::Fitting);
        assert!(robust.high < 2.5 && !robust.is_log, "{robust:?}");
        assert_eq!(robust.above, Some((1, 60.0)));
        assert_eq!(robust.position(60.0), 1.0);
        // A loss that falls over many orders has no outlier.
        let falling: Vec<f64> = (0..200).map(|step| 3.0 * 0.95f64.powi(step)).collect();
        let falling = axis(&falling, Division::Fitting);
        assert!(falling.is_log && falling.above.is_none(), "{falling:?}");
        assert!((falling.position(3.0) - 1.0).abs() < 1e-9);
        // Of few values none is one.
        assert_eq!(axis(&[1.0, 1.1, 60.0], Division::Fitting).above, None);
        assert_eq!(PlotAxis::of([f64::NAN].into_iter(), Division::Fitting), None);
        let one = axis(&[2.0], Division::Fitting);
        assert!(one.low < 2.0 && one.high > 2.0);
    }

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
}
