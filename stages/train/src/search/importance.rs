//! Which settings mattered: PED-ANOVA (Watanabe et al., IJCAI 2023).
//!
//! The share of a setting is how much the good tenth of the trials is distributed otherwise along its axis than all of them: the
//! Pearson divergence of the two densities. It costs no model of the scores, and sees no interactions.

use super::parzen::Density;
use super::{Axis, Tried, losses, ranked};

/// Trials below which nothing is said, and the fewest that count as good.
const TRIALS_MIN: usize = 20;
const GOOD_MIN: usize = 10;
/// Points of an axis at which densities are compared.
const POINTS: u32 = 100;

/// The importance of each axis, which are 1 together; `None` of too few trials, or where all are alike.
pub fn importance(axes: &[Axis], tried: &[Tried]) -> Option<Vec<f64>> {
    if tried.len() < TRIALS_MIN || axes.is_empty() {
        return None;
    }
    let order = ranked(&losses(tried));
    let good = tried.len().div_ceil(10).max(GOOD_MIN);
    let of_axis = |index: usize| {
        let axis = [axes[index]];
        let column: Vec<[f64; 1]> = tried.iter().map(|tried| [tried.point[index]]).collect();
        let density =
            |places: &[usize]| Density::of(&axis, places.iter().map(|place| &column[*place][..]).collect());
        let (good, all) = (density(&order[..good]), density(&order));
        let n = axis[0].values().unwrap_or(POINTS);
        let divergence = |i: u32| {
            let at = [(f64::from(i) + 0.5) / f64::from(n)];
            let (good, all) = (good.log(&at), all.log(&at));
            all.exp() * ((good - all).exp() - 1.0).powi(2) / f64::from(n)
        };
        (0..n).map(divergence).sum::<f64>()
    };
    let shares: Vec<f64> = (0..axes.len()).map(of_axis).collect();
    let sum: f64 = shares.iter().sum();
    (sum > 0.0).then(|| shares.iter().map(|share| share / sum).collect())
}
