//! Which settings a search tries next, which trials it stops early, and which settings mattered.
//!
//! A setting is a coordinate from 0 to 1 on an [`Axis`]; a trial is a point in the unit cube, and what came of it. [`next`] is a
//! pure function of the axes, the seed and the trials before: nothing is kept between two calls, so that a search that is
//! rebuilt from its journal goes on with the same trial.

mod cma_es;
mod evolution;
mod gaussian_process;
mod grid;
mod importance;
mod linear;
mod parzen;
mod pruning;
#[cfg(test)]
mod tests;

use forebay_datasets::seed::{Seed, Stream};
use forebay_datasets::words;

pub use grid::grid_points;
pub use importance::importance;
pub use pruning::{Bracket, Pruning, brackets, goes_on};

/// How the next settings are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Uniformly, whatever came of the trials before.
    Random,
    /// All combinations, in an order that the seed decides; of a range five values.
    Grid,
    /// Tree-structured Parzen estimator: where good trials are dense and bad ones are not.
    #[default]
    Tpe,
    /// Gaussian process: where the expected improvement is largest.
    GaussianProcess,
    /// Covariance matrix adaptation evolution strategy.
    CmaEs,
    /// Differential evolution.
    Evolution,
}

words!(Method {
    Random => "random",
    Grid => "grid",
    Tpe => "tpe",
    GaussianProcess => "gp",
    CmaEs => "cma-es",
    Evolution => "de",
});

/// What a coordinate from 0 to 1 stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// A number: every coordinate is another one.
    Continuous,
    /// One of so many values in order: coordinate `(i + 0.5) / n` is value `i`.
    Ordered(u32),
    /// One of so many values without order, in the same coordinates.
    Unordered(u32),
}

impl Axis {
    /// How many values it has; `None` where any coordinate is one.
    pub fn values(self) -> Option<u32> {
        match self {
            Axis::Continuous => None,
            Axis::Ordered(n) | Axis::Unordered(n) => Some(n),
        }
    }

    /// The value that a coordinate stands for, where they are counted.
    pub fn index(self, coordinate: f64) -> Option<u32> {
        self.values().map(|n| ((coordinate * f64::from(n)) as u32).min(n - 1))
    }

    /// The coordinate of the value nearest to a number, which may lie outside.
    fn snap(self, coordinate: f64) -> f64 {
        let inside = if coordinate.is_nan() { 0.5 } else { coordinate.clamp(0.0, 1.0) };
        match (self.index(inside), self.values()) {
            (Some(index), Some(n)) => (f64::from(index) + 0.5) / f64::from(n),
            _ => inside,
        }
    }
}

/// A trial that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Tried {
    /// Its coordinates, one for each axis.
    pub point: Vec<f64>,
    /// What it scored, the higher the better; `None` where it failed.
    pub score: Option<f64>,
}

/// Trials that a model of the scores needs before it says more than chance.
const STARTUP: usize = 10;
/// How often a point is drawn anew that was tried already.
const REDRAWS: u32 = 50;

/// The point of the next trial; `None` where a grid has no further one.
///
/// Trials that failed count as the worst score that was seen.
pub fn next(method: Method, axes: &[Axis], seed: Seed, tried: &[Tried]) -> Option<Vec<f64>> {
    if method == Method::Grid {
        return grid::point(axes, seed, tried.len());
    }
    let losses = losses(tried);
    let points: Vec<&[f64]> = tried.iter().map(|tried| tried.point.as_slice()).collect();
    let (n, mut point) = (tried.len(), Vec::new());
    for attempt in 0..=REDRAWS {
        let stream = &mut seed.stream(&format!("search {method} trial {n} attempt {attempt}"));
        point = match method {
            Method::CmaEs => cma_es::point(axes, &points, &losses, seed, stream),
            Method::Evolution => evolution::point(axes, &points, &losses, stream),
            Method::Tpe if n >= STARTUP => parzen::point(axes, &points, &losses, stream),
            Method::GaussianProcess if n >= STARTUP => {
                gaussian_process::point(axes, &points, &losses, stream)
            }
            _ => uniform(axes, stream),
        };
        for (coordinate, axis) in point.iter_mut().zip(axes) {
            *coordinate = axis.snap(*coordinate);
        }
        if !points.contains(&point.as_slice()) {
            break;
        }
    }
    Some(point)
}

fn uniform(axes: &[Axis], stream: &mut Stream) -> Vec<f64> {
    axes.iter().map(|_| stream.unit()).collect()
}

/// What is minimised: the negative scores, and for what failed the worst of them.
fn losses(tried: &[Tried]) -> Vec<f64> {
    let loss = |tried: &Tried| tried.score.filter(|score| score.is_finite()).map(|score| -score);
    let worst = tried.iter().filter_map(loss).fold(f64::NEG_INFINITY, f64::max);
    let worst = if worst.is_finite() { worst } else { 0.0 };
    tried.iter().map(|tried| loss(tried).unwrap_or(worst)).collect()
}

/// Places of the losses from the smallest to the largest, earlier ones first among equals.
fn ranked(losses: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..losses.len()).collect();
    order.sort_by(|a, b| losses[*a].total_cmp(&losses[*b]));
    order
}
