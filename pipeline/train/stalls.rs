//! What a run does when validation gets no better: lowers its learning rate, or trains more parts.

use super::keeping::Best;
use super::plan::TrainPlan;
use crate::report::EpochMetrics;

/// What the learning rate is multiplied by after these epochs: a function of what validation said, so that a resumed run
/// cannot drift from it.
pub(super) fn rate_scale(plan: &TrainPlan, history: &[EpochMetrics]) -> f64 {
    let Some(mut plateau) = plan.plateau.clone() else { return 1.0 };
    for metrics in history {
        if let Some(score) = plan.keeping.monitor.score(metrics) {
            plateau.observe(score, true);
        }
    }
    plateau.scale
}

/// The first steps after each time in these epochs that nothing got better for as long as the run waits before it trains
/// more parts.
pub(super) fn stalls(plan: &TrainPlan, history: &[EpochMetrics]) -> Vec<u64> {
    let (mut best, mut stalls) = (Best::default(), Vec::new());
    for metrics in history {
        let Some(score) = plan.keeping.monitor.score(metrics) else { continue };
        best = best.after(metrics.epoch, score, &plan.keeping);
        if best.stale >= plan.unfreeze_patience {
            stalls.push(metrics.steps);
            best.stale = 0;
        }
    }
    stalls
}
