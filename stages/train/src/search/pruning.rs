//! Which trials are stopped early: successive halving (Jamieson and Talwalkar 2016) and Hyperband (Li et al. 2018).
//!
//! Trials run one after the other, so that a rung is never complete: as in the asynchronous form (ASHA, Li et al. 2020) a trial
//! is compared with those that reached the rung before it, and none is begun twice.

use forebay_datasets::words;

/// Which trials are stopped early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pruning {
    /// None.
    #[default]
    None,
    /// From one epoch on, at each rung all but the best third.
    Halving,
    /// The same in several brackets, which begin to compare later and later.
    Hyperband,
}

words!(Pruning { None => "none", Halving => "halving", Hyperband => "hyperband" });

/// Of so many trials one goes on past a rung.
pub(super) const REDUCTION: u32 = 3;

/// Trials that are compared with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bracket {
    /// How many it has.
    pub trials: u32,
    /// The epochs after which they are compared; at the last of them they are done.
    pub rungs: Vec<u32>,
}

/// The brackets of trials of so many epochs, in the order in which trials take them; after the last the first comes again.
///
/// Those of Hyperband are those of algorithm 1 of Li et al. (JMLR 18, 2018): bracket `s` has `⌈(s_max + 1) / (s + 1) ηˢ⌉` trials
/// and begins to compare after `R η⁻ˢ` epochs.
pub fn brackets(pruning: Pruning, epochs: u32) -> Vec<Bracket> {
    let eta = REDUCTION;
    let most = epochs.max(1).ilog(eta);
    let rungs = |s: u32| {
        let mut rungs: Vec<u32> = (0..=s).map(|i| (epochs / eta.pow(s - i)).max(1)).collect();
        rungs.dedup();
        rungs
    };
    match pruning {
        Pruning::None => vec![Bracket { trials: 1, rungs: vec![epochs] }],
        Pruning::Halving => vec![Bracket { trials: eta.pow(most), rungs: rungs(most) }],
        Pruning::Hyperband => (0..=most)
            .rev()
            .map(|s| Bracket { trials: ((most + 1) * eta.pow(s)).div_ceil(s + 1), rungs: rungs(s) })
            .collect(),
    }
}

/// Whether a trial goes on past a rung, where trials before it scored `before` there: whether it is among the best third, or
/// the best of fewer than three.
pub fn goes_on(before: &[f64], score: f64) -> bool {
    let better = before.iter().filter(|other| **other >= score).count();
    better < ((before.len() + 1) / REDUCTION as usize).max(1)
}
