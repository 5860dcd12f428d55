//! Intervals and tail probabilities, each by its textbook formula in f64.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// Wilson's score interval of a proportion (Wilson 1927, without continuity correction): (0, 1) where there is nothing to
/// count.
pub(super) fn wilson(successes: u64, n: u64, level: f64) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let (n, p) = (n as f64, successes as f64 / n as f64);
    let z = two_sided_quantile(level);
    let middle = p + z * z / (2.0 * n);
    let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    (((middle - half) / scale).max(0.0), ((middle + half) / scale).min(1.0))
}

/// The middle `level` of `values` (percentile bootstrap, Efron 1979); `None` where none of them is a number.
pub(super) fn percentiles(values: impl Iterator<Item = f64>, level: f64) -> Option<(f64, f64)> {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    (!values.is_empty()).then(|| (quantile(&values, tail), quantile(&values, 1.0 - tail)))
}

/// The quantile of sorted values, linear between two of them, as numpy's.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (below, part) = (sorted[at.floor() as usize], at.fract());
    below + part * (sorted[at.ceil() as usize] - below)
}

/// The probability that a standard normal number is above `z` or below `-z`.
pub(super) fn two_sided_p(z: f64) -> f64 {
    erfc(z.abs() * FRAC_1_SQRT_2)
}

/// The `z` within which, on both sides of 0, a standard normal number lies with probability `level`: 1.96 for 0.95.
pub(super) fn two_sided_quantile(level: f64) -> f64 {
    // The tail falls with z, and 40 is beyond where it is above 0 in f64.
    let (mut low, mut high) = (0.0, 40.0);
    for _ in 0..80 {
        let middle = (low + high) / 2.0;
        if two_sided_p(middle) > 1.0 - level { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

/// The two-sided probability of a coin of at least as uneven counts as these (the exact test of McNemar 1947); 1 without
/// any.
pub(super) fn coin_p(heads: u64, tails: u64) -> f64 {
    let n = heads + tails;
    // P(X = 0) is 2^-n, and each next one is (n - k) / (k + 1) times the one before.
    let mut log_p = -(n as f64) * std::f64::consts::LN_2;
    let mut below = log_p.exp();
    for k in 0..heads.min(tails) {
        log_p += ((n - k) as f64 / (k + 1) as f64).ln();
        below += log_p.exp();
    }
    (2.0 * below).min(1.0)
}

/// The complementary error function, to about 1e-15 of its value: its series up to 2, its continued fraction above.
fn erfc(x: f64) -> f64 {
    debug_assert!(x >= 0.0);
    if x < 2.0 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > sum.abs() * 1e-17 {
            n += 1.0;
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        return 1.0 - 2.0 / PI.sqrt() * sum;
    }
    // From the back: x + 1/2 / (x + 2/2 / (x + 3/2 / ...)).
    let fraction = (1..=120).rev().fold(x, |below, n| x + f64::from(n) / 2.0 / below);
    (-x * x).exp() / (PI.sqrt() * fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_tails_equal_scipys() {
        // 2 * scipy.stats.norm.sf(z), scipy.stats.norm.ppf((1 + level) / 2): scipy 1.17.
        for (z, p) in NORMAL_TAILS {
            assert!((two_sided_p(z) / p - 1.0).abs() < 1e-12, "{z}: {} {p}", two_sided_p(z));
        }
        for (level, z) in NORMAL_QUANTILES {
            assert!((two_sided_quantile(level) - z).abs() < 1e-12, "{level}");
        }
    }

    #[test]
    fn wilsons_interval_equals_scipys_and_stays_within_bounds() {
        // scipy.stats.binomtest(k, n).proportion_ci(level, method="wilson")
        for (k, n, level, low, high) in WILSON {
            let ours = wilson(k, n, level);
            assert!((ours.0 - low).abs() < 1e-12 && (ours.1 - high).abs() < 1e-12, "{k} of {n}: {ours:?}");
        }
        assert_eq!(wilson(0, 0, 0.95), (0.0, 1.0));
    }

    #[test]
    fn a_coin_is_judged_as_by_scipy() {
        // scipy.stats.binomtest(k, n).pvalue
        for ((heads, tails), p) in COINS {
            assert!(
                (coin_p(heads, tails) / p - 1.0).abs() < 1e-10,
                "{heads} {tails}: {}",
                coin_p(heads, tails)
            );
        }
        assert_eq!(coin_p(0, 0), 1.0);
    }

    #[test]
    fn percentiles_are_numpys_and_leave_out_what_is_no_number() {
        let values = [3.0, f64::NAN, 1.0, 2.0, 10.0];
        let (low, high) = percentiles(values.into_iter(), 0.9).unwrap();
        // numpy.quantile([1, 2, 3, 10], [0.05, 0.95])
        assert!((low - 1.15).abs() < 1e-12 && (high - 8.95).abs() < 1e-12, "{low} {high}");
        assert_eq!(percentiles([f64::NAN].into_iter(), 0.9), None);
    }

    const NORMAL_TAILS: [(f64, f64); 7] = [
        (0.0, 1.0),
        (0.5, 0.6170750774519738),
        (1.0, 0.31731050786291415),
        (1.96, 0.04999579029644087),
        (2.8, 0.005110260660855864),
        (3.5, 0.00046525815807105003),
        (6.0, 1.973175290075389e-09),
    ];
    const NORMAL_QUANTILES: [(f64, f64); 4] = [
        (0.5, 0.6744897501960817),
        (0.8, 1.2815515655446004),
        (0.95, 1.959963984540054),
        (0.999, 3.2905267314919255),
    ];
    const WILSON: [(u64, u64, f64, f64, f64); 6] = [
        (0, 10, 0.95, 0.0, 0.27753279986288926),
        (10, 10, 0.95, 0.7224672001371109, 1.0),
        (1, 1, 0.95, 0.20654931437723745, 1.0),
        (143, 153, 0.95, 0.8838761830582917, 0.9641138892098424),
        (9000, 10000, 0.99, 0.892005302918395, 0.9074642572948373),
        (3, 7, 0.5, 0.3106034777497514, 0.5552572159915451),
    ];
    const COINS: [((u64, u64), f64); 6] = [
        ((0, 1), 1.0),
        ((0, 6), 0.03125),
        ((3, 12), 0.03515625),
        ((10, 10), 1.0),
        ((40, 61), 0.046044066929342785),
        ((700, 900), 6.319484959450105e-07),
    ];
}
