//! Covariance matrix adaptation evolution strategy, as in Hansen's tutorial (arXiv 1604.00772) with positive weights.
//!
//! A generation is so many trials in a row; its distribution is computed from all generations before, anew for each trial. One
//! that has become narrow starts again elsewhere. Values that are counted take part by their coordinates, and are now and
//! then drawn at random, so that none is lost for good.

use forebay_datasets::seed::{Seed, Stream};

use super::linear::eigen;
use super::{Axis, ranked};

/// The first step size, and the one below which the search starts again.
const FIRST_STEP: f64 = 0.3;
const LAST_STEP: f64 = 1e-6;

/// The distribution of a generation.
struct Distribution {
    mean: Vec<f64>,
    step: f64,
    covariance: Vec<f64>,
    /// Its eigenvectors, in columns, and the roots of its eigenvalues.
    axes: Vec<f64>,
    lengths: Vec<f64>,
    step_path: Vec<f64>,
    path: Vec<f64>,
    generation: i32,
}

impl Distribution {
    fn around(mean: Vec<f64>) -> Distribution {
        let n = mean.len();
        let mut identity = vec![0.0; n * n];
        (0..n).for_each(|i| identity[i * n + i] = 1.0);
        Distribution {
            mean,
            step: FIRST_STEP,
            axes: identity.clone(),
            covariance: identity,
            lengths: vec![1.0; n],
            step_path: vec![0.0; n],
            path: vec![0.0; n],
            generation: 0,
        }
    }

    fn draw(&self, stream: &mut Stream) -> Vec<f64> {
        let n = self.mean.len();
        let normal: Vec<f64> = self.lengths.iter().map(|length| length * stream.normal()).collect();
        let along = |row: usize| (0..n).map(|k| self.axes[row * n + k] * normal[k]).sum::<f64>();
        (0..n).map(|row| self.mean[row] + self.step * along(row)).collect()
    }

    /// The distribution after a generation, whose points come from the best to the worst.
    fn update(&mut self, ranked: &[&[f64]]) {
        let (n, parents) = (self.mean.len(), ranked.len() / 2);
        let dimensions = n as f64;
        let raw: Vec<f64> =
            (0..parents).map(|i| ((ranked.len() as f64 + 1.0) / 2.0).ln() - (i as f64 + 1.0).ln()).collect();
        let sum: f64 = raw.iter().sum();
        let weights: Vec<f64> = raw.iter().map(|weight| weight / sum).collect();
        let mass = 1.0 / weights.iter().map(|weight| weight * weight).sum::<f64>();
        let c_step = (mass + 2.0) / (dimensions + mass + 5.0);
        let damping = 1.0 + 2.0 * (((mass - 1.0) / (dimensions + 1.0)).sqrt() - 1.0).max(0.0) + c_step;
        let c_path = (4.0 + mass / dimensions) / (dimensions + 4.0 + 2.0 * mass / dimensions);
        let c_one = 2.0 / ((dimensions + 1.3).powi(2) + mass);
        let c_mu = (2.0 * (mass - 2.0 + 1.0 / mass) / ((dimensions + 2.0).powi(2) + mass)).min(1.0 - c_one);
        let expected =
            dimensions.sqrt() * (1.0 - 1.0 / (4.0 * dimensions) + 1.0 / (21.0 * dimensions * dimensions));

        let moves: Vec<Vec<f64>> = ranked[..parents]
            .iter()
            .map(|point| point.iter().zip(&self.mean).map(|(x, mean)| (x - mean) / self.step).collect())
            .collect();
        let shift: Vec<f64> = (0..n)
            .map(|i| moves.iter().zip(&weights).map(|(moved, weight)| weight * moved[i]).sum())
            .collect();
        // The shift as it would be in a round distribution: B D⁻¹ Bᵀ.
        let inward =
            |k: usize| (0..n).map(|i| self.axes[i * n + k] * shift[i]).sum::<f64>() / self.lengths[k];
        let inward: Vec<f64> = (0..n).map(inward).collect();
        for i in 0..n {
            let round: f64 = (0..n).map(|k| self.axes[i * n + k] * inward[k]).sum();
            self.step_path[i] =
                (1.0 - c_step) * self.step_path[i] + (c_step * (2.0 - c_step) * mass).sqrt() * round;
        }
        let length = self.step_path.iter().map(|x| x * x).sum::<f64>().sqrt();
        self.generation += 1;
        let bias = (1.0 - (1.0 - c_step).powi(2 * self.generation)).sqrt();
        let is_steady = length / bias < (1.4 + 2.0 / (dimensions + 1.0)) * expected;
        let steady = f64::from(u8::from(is_steady));
        for (path, shift) in self.path.iter_mut().zip(&shift) {
            *path = (1.0 - c_path) * *path + steady * (c_path * (2.0 - c_path) * mass).sqrt() * shift;
        }
        let lost = (1.0 - steady) * c_path * (2.0 - c_path);
        for i in 0..n {
            for j in 0..n {
                let of_moves: f64 =
                    moves.iter().zip(&weights).map(|(moved, weight)| weight * moved[i] * moved[j]).sum();
                let before = self.covariance[i * n + j];
                self.covariance[i * n + j] = (1.0 - c_one - c_mu + c_one * lost) * before
                    + c_one * self.path[i] * self.path[j]
                    + c_mu * of_moves;
            }
        }
        for (mean, shift) in self.mean.iter_mut().zip(&shift) {
            *mean = (*mean + self.step * shift).clamp(0.0, 1.0);
        }
        self.step = (self.step * ((c_step / damping) * (length / expected - 1.0)).exp()).min(1.0);
        let (values, vectors) = eigen(self.covariance.clone(), n);
        self.lengths = values.iter().map(|value| value.max(1e-20).sqrt()).collect();
        self.axes = vectors;
    }

    fn is_narrow(&self) -> bool {
        self.step * self.lengths.iter().copied().fold(0.0, f64::max) < LAST_STEP
    }
}

/// The next point of the generation at hand.
pub(super) fn point(
    axes: &[Axis],
    points: &[&[f64]],
    losses: &[f64],
    seed: Seed,
    stream: &mut Stream,
) -> Vec<f64> {
    let n = axes.len();
    let trials = 4 + (3.0 * (n as f64).ln()).floor() as usize;
    let mut distribution = Distribution::around(vec![0.5; n]);
    for (generation, points) in points.chunks_exact(trials).enumerate() {
        let losses = &losses[generation * trials..][..trials];
        let order: Vec<&[f64]> = ranked(losses).into_iter().map(|place| points[place]).collect();
        distribution.update(&order);
        if distribution.is_narrow() {
            let mut stream = seed.stream(&format!("search cma-es start {generation}"));
            distribution = Distribution::around((0..n).map(|_| stream.unit()).collect());
        }
    }
    let is_inside = |point: &Vec<f64>| point.iter().all(|at| (0.0..=1.0).contains(at));
    let drawn = (0..100).map(|_| distribution.draw(stream)).find(is_inside);
    let mut point = drawn.unwrap_or_else(|| distribution.draw(stream));
    for (at, axis) in point.iter_mut().zip(axes) {
        if axis.values().is_some() && stream.chance(1.0 / (trials * n) as f64) {
            *at = stream.unit();
        }
    }
    point
}
