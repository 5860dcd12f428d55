//! What a run does when validation gets no better: lowers its learning rate, or trains more parts.

use std::collections::BTreeMap;

use forebay_train::schedule::Plateau;

use super::keeping::Best;
use super::plan::TrainPlan;
use crate::report::EpochMetrics;

/// What validation has said so far, as far as it decides the rest of a run. A checkpoint carries it, so that a resumed run
/// needs nothing but the checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reactions {
    /// What lowers the learning rate, where the schedule is that.
    plateau: Option<Plateau>,
    /// The best score, and the epochs without a better one, since the run began or last stalled.
    best: Best,
    /// The first step after each time that nothing got better for as long as the run waits before it trains more parts.
    stalls: Vec<u64>,
}

impl Reactions {
    /// Those of a run that begins.
    pub(super) fn new(plan: &TrainPlan) -> Reactions {
        Reactions { plateau: plan.plateau.clone(), best: Best::default(), stalls: Vec::new() }
    }

    /// What the schedule's learning rate is multiplied by.
    pub(super) fn rate_scale(&self) -> f64 {
        self.plateau.as_ref().map_or(1.0, |plateau| plateau.scale)
    }

    /// The first step after each stall.
    pub(super) fn stalls(&self) -> &[u64] {
        &self.stalls
    }

    /// Takes in a finished epoch; true when the run has stalled with it.
    pub(super) fn observe(&mut self, plan: &TrainPlan, metrics: &EpochMetrics) -> bool {
        let Some(score) = plan.keeping.monitor.score(metrics) else { return false };
        if let Some(plateau) = &mut self.plateau {
            plateau.observe(score, true);
        }
        self.best = self.best.after(metrics.epoch, score, &plan.keeping);
        let has_stalled = self.best.stale >= plan.unfreeze_patience;
        if has_stalled {
            self.stalls.push(metrics.steps);
            self.best.stale = 0;
        }
        has_stalled
    }

    /// Adds what a checkpoint keeps of it. A float is kept as its bits.
    pub(super) fn add_to(&self, metadata: &mut BTreeMap<String, String>) {
        let mut add = |key: &str, value: u64| metadata.insert(key.to_string(), value.to_string());
        if let Some(plateau) = &self.plateau {
            add("plateau_scale", plateau.scale.to_bits());
            add("plateau_stale", plateau.stale.into());
            if let Some(best) = plateau.best {
                add("plateau_best", best.to_bits());
            }
        }
        add("stall_epoch", self.best.epoch.into());
        add("stall_score", self.best.score.to_bits());
        add("stall_reference", self.best.reference.to_bits());
        add("stall_stale", self.best.stale.into());
        let stalls: Vec<String> = self.stalls.iter().map(u64::to_string).collect();
        metadata.insert("stalls".to_string(), stalls.join(","));
    }

    /// What [`add_to`](Reactions::add_to) kept of a run with this plan; `None` when it is not all there.
    pub(super) fn from_metadata(plan: &TrainPlan, metadata: &BTreeMap<String, String>) -> Option<Reactions> {
        let number = |key: &str| metadata.get(key)?.parse::<u64>().ok();
        let mut reactions = Reactions::new(plan);
        if let Some(plateau) = &mut reactions.plateau {
            plateau.scale = f64::from_bits(number("plateau_scale")?);
            plateau.stale = number("plateau_stale")? as u32;
            plateau.best = number("plateau_best").map(f64::from_bits);
        }
        reactions.best = Best {
            epoch: number("stall_epoch")? as u32,
            score: f64::from_bits(number("stall_score")?),
            reference: f64::from_bits(number("stall_reference")?),
            stale: number("stall_stale")? as u32,
        };
        let stalls = metadata.get("stalls")?.split(',').filter(|text| !text.is_empty());
        reactions.stalls = stalls.map(|text| text.parse().ok()).collect::<Option<_>>()?;
        Some(reactions)
    }
}
