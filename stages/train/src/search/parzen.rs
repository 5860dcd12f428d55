//! Tree-structured Parzen estimator (Bergstra et al. 2011), with kernels over all axes together (Falkner et al. 2018, BOHB).

use forebay_datasets::seed::Stream;

use super::{Axis, ranked};

/// Points that are drawn from the density of the good trials, of which the best is taken: as many as in hyperopt and Optuna.
const CANDIDATES: usize = 24;
/// The most trials that count as good, as in Optuna.
const GOOD_MAX: usize = 25;

/// The width of the kernel of a single trial.
const WIDTH: f64 = 0.12;

/// A density of trials: a kernel at each, and one that knows nothing.
pub(super) struct Density<'a> {
    axes: &'a [Axis],
    centres: Vec<&'a [f64]>,
    width: f64,
}

impl<'a> Density<'a> {
    /// That of these points. The width of a kernel falls with their number as in Optuna's multivariate estimator, from
    /// [`WIDTH`] on and not from 0.2, which found the minima of the tests later.
    pub(super) fn of(axes: &'a [Axis], centres: Vec<&'a [f64]>) -> Density<'a> {
        let n = centres.len().max(1) as f64;
        let width = WIDTH * n.powf(-1.0 / (axes.len() as f64 + 4.0));
        Density { axes, width, centres }
    }

    /// How probable it makes another value than the centre's, of `n` without order.
    fn spread(&self, n: u32) -> f64 {
        let n = f64::from(n);
        (n - 1.0) / n * (2.0 * self.width).min(1.0)
    }

    /// The logarithm of the density at a point.
    pub(super) fn log(&self, point: &[f64]) -> f64 {
        let mut logs: Vec<f64> = self.centres.iter().map(|centre| self.log_kernel(centre, point)).collect();
        // What knows nothing weighs as much as one trial.
        logs.push(0.0);
        let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logs.iter().map(|log| (log - most).exp()).sum();
        most + (sum / logs.len() as f64).ln()
    }

    fn log_kernel(&self, centre: &[f64], point: &[f64]) -> f64 {
        let of_axis = |((axis, centre), at): ((&Axis, &f64), &f64)| match *axis {
            // Relative to the uniform density of 1 over n.
            Axis::Unordered(n) if n > 1 => {
                let spread = self.spread(n);
                let share = if axis.index(*centre) == axis.index(*at) {
                    1.0 - spread
                } else {
                    spread / (f64::from(n) - 1.0)
                };
                (share * f64::from(n)).max(1e-300).ln()
            }
            Axis::Unordered(_) => 0.0,
            _ => {
                let z = (at - centre) / self.width;
                let inside = normal_below((1.0 - centre) / self.width) - normal_below(-centre / self.width);
                -0.5 * z * z - (self.width * (2.0 * std::f64::consts::PI).sqrt() * inside).ln()
            }
        };
        self.axes.iter().zip(centre).zip(point).map(of_axis).sum()
    }

    /// A point drawn from it.
    fn draw(&self, stream: &mut Stream) -> Vec<f64> {
        let place = stream.below(self.centres.len() as u64 + 1) as usize;
        let Some(centre) = self.centres.get(place) else {
            return self.axes.iter().map(|axis| axis.snap(stream.unit())).collect();
        };
        let of_axis = |(axis, centre): (&Axis, &f64)| match *axis {
            Axis::Unordered(n) if n > 1 && stream.chance(self.spread(n)) => {
                let others = u64::from(n) - 1;
                let other =
                    (u64::from(axis.index(*centre).unwrap_or(0)) + 1 + stream.below(others)) % (others + 1);
                (other as f64 + 0.5) / f64::from(n)
            }
            Axis::Unordered(_) => *centre,
            _ => {
                let drawn = (0..100).map(|_| centre + self.width * stream.normal());
                let inside = drawn.into_iter().find(|at| (0.0..=1.0).contains(at));
                axis.snap(inside.unwrap_or(*centre))
            }
        };
        self.axes.iter().zip(*centre).map(of_axis).collect()
    }
}

/// Where the density of good trials is largest beside that of the others.
pub(super) fn point(axes: &[Axis], points: &[&[f64]], losses: &[f64], stream: &mut Stream) -> Vec<f64> {
    let order = ranked(losses);
    let good = losses.len().div_ceil(10).clamp(1, GOOD_MAX);
    let of = |places: &[usize]| Density::of(axes, places.iter().map(|place| points[*place]).collect());
    let (good, bad) = (of(&order[..good]), of(&order[good..]));
    let mut best = (f64::NEG_INFINITY, Vec::new());
    for _ in 0..CANDIDATES {
        let drawn = good.draw(stream);
        let gain = good.log(&drawn) - bad.log(&drawn);
        if gain > best.0 || best.1.is_empty() {
            best = (gain, drawn);
        }
    }
    best.1
}

/// The probability that a standard normal number is below `x`, within 1e-7 (Abramowitz and Stegun 26.2.17).
pub(super) fn normal_below(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let series = t
        * (0.319_381_530
            + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let tail = normal_density(x) * series;
    if x >= 0.0 { 1.0 - tail } else { tail }
}

/// The density of a standard normal number.
pub(super) fn normal_density(x: f64) -> f64 {
    (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
}
