//! Bayesian optimisation with a Gaussian process: Matérn 5/2 kernel with a length for each axis (Snoek et al. 2012), its
//! lengths and noise where the marginal likelihood is largest, and the expected improvement.

use forebay_datasets::seed::Stream;

use super::linear::{backward, cholesky, forward};
use super::parzen::{normal_below, normal_density};
use super::{Axis, ranked, uniform};

/// The most trials that the process is fitted to: the best half and the last ones.
const TRIALS_MAX: usize = 120;
/// Points that are drawn all over the cube, and around each of the best trials.
const ANYWHERE: usize = 600;
const AROUND: usize = 120;
/// Rounds in which the best points so far are moved a little.
const REFINEMENTS: usize = 30;

/// The bounds of the logarithms of lengths and of the noise.
const LENGTH: (f64, f64) = (-3.5, 2.0);
const NOISE: (f64, f64) = (-16.0, -1.0);

/// A process that was fitted.
struct Process<'a> {
    axes: &'a [Axis],
    points: Vec<&'a [f64]>,
    /// Of each axis.
    inverse_lengths: Vec<f64>,
    factor: Vec<f64>,
    /// The inverse of the kernel matrix times the values.
    weights: Vec<f64>,
    /// What the kernel is multiplied by.
    variance: f64,
    best: f64,
}

/// The distance of two coordinates; two values without order are 1 apart.
fn difference(axis: Axis, a: f64, b: f64) -> f64 {
    match axis {
        Axis::Unordered(_) => f64::from(axis.index(a) != axis.index(b)),
        _ => a - b,
    }
}

fn kernel(axes: &[Axis], inverse_lengths: &[f64], a: &[f64], b: &[f64]) -> f64 {
    let squares = axes.iter().zip(inverse_lengths).zip(a.iter().zip(b));
    let square: f64 =
        squares.map(|((axis, inverse), (a, b))| (difference(*axis, *a, *b) * inverse).powi(2)).sum();
    let r = (5.0 * square).sqrt();
    (1.0 + r + r * r / 3.0) * (-r).exp()
}

impl<'a> Process<'a> {
    /// The process with these logarithms of lengths and noise, and how likely it makes the values: the logarithm, up to a
    /// constant. `None` where it has no numbers.
    fn with(
        axes: &'a [Axis],
        points: &[&'a [f64]],
        values: &[f64],
        logs: &[f64],
    ) -> Option<(Process<'a>, f64)> {
        let n = points.len();
        let inverse_lengths: Vec<f64> = logs[..axes.len()].iter().map(|log| (-log).exp()).collect();
        let mut factor = vec![0.0; n * n];
        for row in 0..n {
            for column in 0..row {
                factor[row * n + column] = kernel(axes, &inverse_lengths, points[row], points[column]);
            }
            factor[row * n + row] = 1.0 + logs[axes.len()].exp();
        }
        if !cholesky(&mut factor, n) {
            return None;
        }
        let mut weights = values.to_vec();
        forward(&factor, n, &mut weights);
        let variance = (weights.iter().map(|weight| weight * weight).sum::<f64>() / n as f64).max(1e-12);
        let determinant: f64 = (0..n).map(|row| factor[row * n + row].ln()).sum();
        // Lengths about half of the cube, where the values say nothing else.
        let prior: f64 = logs[..axes.len()].iter().map(|log| (log + 0.7).powi(2)).sum();
        let likelihood = -0.5 * n as f64 * variance.ln() - determinant - 0.25 * prior;
        backward(&factor, n, &mut weights);
        let best = values.iter().copied().fold(f64::INFINITY, f64::min);
        let process =
            Process { axes, points: points.to_vec(), inverse_lengths, factor, weights, variance, best };
        Some((process, likelihood))
    }

    /// The most likely one: a pattern search from two starts.
    fn fit(axes: &'a [Axis], points: &[&'a [f64]], values: &[f64]) -> Option<Process<'a>> {
        let mut best: Option<(Process<'a>, f64)> = None;
        for (length, noise) in [(-0.7, -9.0), (-1.6, -4.0)] {
            let mut logs = vec![length; axes.len()];
            logs.push(noise);
            let mut here = Process::with(axes, points, values, &logs);
            let mut step = 1.0;
            while step > 0.2 {
                let mut moved = false;
                for index in 0..logs.len() {
                    let (low, high) = if index < axes.len() { LENGTH } else { NOISE };
                    let scale = if index < axes.len() { 1.0 } else { 3.0 };
                    for sign in [1.0, -1.0] {
                        let before = logs[index];
                        logs[index] = (before + sign * step * scale).clamp(low, high);
                        let there = Process::with(axes, points, values, &logs);
                        let likelihood =
                            |of: &Option<(Process<'_>, f64)>| of.as_ref().map(|(_, likely)| *likely);
                        if likelihood(&there) > likelihood(&here) {
                            (here, moved) = (there, true);
                            break;
                        }
                        logs[index] = before;
                    }
                }
                if !moved {
                    step /= 2.0;
                }
            }
            if let Some(here) = here.filter(|here| best.as_ref().is_none_or(|best| here.1 > best.1)) {
                best = Some(here);
            }
        }
        best.map(|(process, _)| process)
    }

    /// The logarithm of the expected improvement at a point.
    fn log_improvement(&self, point: &[f64], scratch: &mut Vec<f64>) -> f64 {
        let kernels = self.points.iter().map(|other| kernel(self.axes, &self.inverse_lengths, point, other));
        scratch.clear();
        scratch.extend(kernels);
        let mean: f64 = scratch.iter().zip(&self.weights).map(|(a, b)| a * b).sum();
        forward(&self.factor, self.points.len(), scratch);
        let explained: f64 = scratch.iter().map(|value| value * value).sum();
        let deviation = (self.variance * (1.0 - explained).max(1e-12)).sqrt();
        let z = (self.best - mean) / deviation;
        let improvement = match z > -5.0 {
            true => (z * normal_below(z) + normal_density(z)).max(1e-300).ln(),
            // Its asymptote, since the difference of two small numbers is noise.
            false => -0.5 * z * z - 0.919 - 2.0 * z.abs().ln(),
        };
        improvement + deviation.ln()
    }
}

/// The losses as the process sees them: large ones are drawn together by a logarithm, since where a training diverges says
/// little about where it is best; then mean 0 and deviation 1.
fn warped(losses: &[f64]) -> Vec<f64> {
    let order = ranked(losses);
    let (best, quarter) = (losses[order[0]], losses[order[losses.len() / 4]]);
    let spread = losses[order[losses.len() - 1]] - best;
    let scale = if quarter > best { quarter - best } else { spread.max(1e-12) };
    let warped: Vec<f64> = losses.iter().map(|loss| ((loss - best) / scale).ln_1p()).collect();
    let n = warped.len() as f64;
    let mean = warped.iter().sum::<f64>() / n;
    let deviation = (warped.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt().max(1e-9);
    warped.iter().map(|value| (value - mean) / deviation).collect()
}

/// Where the expected improvement is largest, of many points that are drawn.
pub(super) fn point(axes: &[Axis], points: &[&[f64]], losses: &[f64], stream: &mut Stream) -> Vec<f64> {
    let order = ranked(losses);
    let n = losses.len();
    let mut places: Vec<usize> = (0..n).collect();
    if n > TRIALS_MAX {
        let best = &order[..TRIALS_MAX / 2];
        let last = (0..n).rev().filter(|place| !best.contains(place)).take(TRIALS_MAX - best.len());
        places = best.iter().copied().chain(last).collect();
    }
    let fitted: Vec<&[f64]> = places.iter().map(|place| points[*place]).collect();
    let values = warped(&places.iter().map(|place| losses[*place]).collect::<Vec<_>>());
    let Some(process) = Process::fit(axes, &fitted, &values) else { return uniform(axes, stream) };
    let mut scratch = Vec::new();
    let mut found: Vec<(f64, Vec<f64>)> = Vec::new();
    let mut look = |point: Vec<f64>, found: &mut Vec<(f64, Vec<f64>)>| {
        let point: Vec<f64> = point.iter().zip(axes).map(|(at, axis)| axis.snap(*at)).collect();
        if !points.contains(&point.as_slice()) {
            found.push((process.log_improvement(&point, &mut scratch), point));
        }
    };
    for _ in 0..ANYWHERE {
        look(uniform(axes, stream), &mut found);
    }
    for place in order.iter().take(5) {
        for index in 0..AROUND {
            let width = [0.2, 0.05, 0.01][index % 3];
            look(near(axes, points[*place], width, stream), &mut found);
        }
    }
    let mut width = 0.05;
    for _ in 0..REFINEMENTS {
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        found.truncate(8);
        for centre in found.iter().map(|(_, point)| point.clone()).collect::<Vec<_>>() {
            for _ in 0..6 {
                look(near(axes, &centre, width, stream), &mut found);
            }
        }
        width *= 0.85;
    }
    let best = found.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
    best.map_or_else(|| uniform(axes, stream), |(_, point)| point)
}

/// A point near another: some of its coordinates a little moved.
fn near(axes: &[Axis], centre: &[f64], width: f64, stream: &mut Stream) -> Vec<f64> {
    let share = (2.0 / axes.len() as f64).max(0.4);
    let of_axis = |(axis, at): (&Axis, &f64)| match axis {
        Axis::Continuous if stream.chance(share) => at + width * stream.normal(),
        Axis::Ordered(n) if stream.chance(share) => at + (stream.normal() / f64::from(*n)),
        Axis::Unordered(_) if stream.chance(share * 0.3) => stream.unit(),
        _ => *at,
    };
    axes.iter().zip(centre).map(of_axis).collect()
}
