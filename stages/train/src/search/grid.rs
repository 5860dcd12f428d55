//! All combinations of a grid.

use forebay_datasets::seed::Seed;

use super::Axis;

/// Values of a range in a grid: both ends and three between them.
pub(super) const LEVELS: u32 = 5;
/// The most combinations whose order is mixed; those of a larger grid are tried in their own.
const MIXED_MAX: u64 = 1 << 20;

/// How many combinations a grid has.
pub fn grid_points(axes: &[Axis]) -> u64 {
    axes.iter().fold(1u64, |n, axis| n.saturating_mul(u64::from(axis.values().unwrap_or(LEVELS))))
}

/// The combination of trial `index`, each once.
pub(super) fn point(axes: &[Axis], seed: Seed, index: usize) -> Option<Vec<f64>> {
    let n = grid_points(axes);
    if index as u64 >= n {
        return None;
    }
    let mut rest = match n <= MIXED_MAX {
        true => {
            let mut order: Vec<u32> = (0..n as u32).collect();
            seed.stream("search grid").shuffle(&mut order);
            u64::from(order[index])
        }
        false => index as u64,
    };
    let mut point = Vec::with_capacity(axes.len());
    for axis in axes {
        let levels = u64::from(axis.values().unwrap_or(LEVELS));
        let level = (rest % levels) as f64;
        rest /= levels;
        point.push(match axis {
            Axis::Continuous => level / f64::from(LEVELS - 1),
            _ => (level + 0.5) / levels as f64,
        });
    }
    Some(point)
}
