//! The `prepare` command that a source asks for, and why.

use forebay_datasets::catalog::Catalog;
use serde::Serialize;

use super::classes::ClassShares;
use super::{Duplicates, Percentiles};
use crate::plan::{OF_A_SHARD_PX, ShorterSides};

/// A centre crop that cuts away more than this share may cut away what the picture is of: a photo of 3:2 loses a third.
const CROP_LOSS_MAX: f64 = 0.34;

/// Classes that are less even than this are worth a word.
const IMBALANCE_MIN: f64 = 3.0;

/// The share of rejects that `prepare` allows by itself.
const REJECTED_SHARE_MAX: f64 = 0.05;

/// How a source would be prepared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Suggestion {
    /// The command, for a shell.
    pub command: String,
    /// Why it is so, a line for each choice.
    pub reasons: Vec<String>,
}

/// What a suggestion follows from.
pub(super) struct Grounds<'a> {
    /// The source and how it is read, as words of a shell.
    pub(super) source: &'a str,
    pub(super) catalog: &'a Catalog,
    /// Shorter sides of the images, pixels.
    pub(super) shorter_sides: Vec<u32>,
    pub(super) crop_loss: Option<Percentiles<f64>>,
    pub(super) n_rejects: u64,
    pub(super) class_shares: &'a ClassShares,
    pub(super) duplicates: &'a Duplicates,
}

/// Chooses size, fit and what else a source asks for.
pub(super) fn suggest(grounds: Grounds<'_>) -> Suggestion {
    let Grounds { source, catalog, shorter_sides, crop_loss, n_rejects, class_shares, duplicates } = grounds;
    let sides = ShorterSides::of_pixels(shorter_sides);
    let (size, _) = sides.side(OF_A_SHARD_PX);
    let mut command = format!("forebay prepare {source} shards --size {size}");
    let median = sides.median().map(|median| format!("size {size}: the median shorter side is {median} px"));
    let mut reasons = Vec::from_iter(median);
    match crop_loss {
        Some(Percentiles { max: 0.0, .. }) => {
            command += " --fit crop";
            reasons.push("fit crop: all images are squares, nothing is cut".to_string());
        }
        Some(Percentiles { p95, .. }) if p95 <= CROP_LOSS_MAX => {
            command += " --fit crop";
            reasons.push(match p95 > 0.0 {
                true => format!("fit crop: 19 of 20 images lose at most {:.0} %", 100.0 * p95),
                false => "fit crop: nearly all images are squares, and lose nothing".to_string(),
            });
        }
        Some(Percentiles { p95, .. }) => {
            command += " --fit shortest";
            reasons.push(format!("fit shortest: a crop cuts {:.0} % or more off 1 in 20", 100.0 * p95));
        }
        None => {}
    }
    if n_rejects as f64 > REJECTED_SHARE_MAX * catalog.found() as f64 {
        command += &format!(" --max-rejects {n_rejects}");
        reasons.push(format!("max-rejects: {n_rejects} files are more than 5 %"));
    }
    let n_changed = duplicates.groups.iter().filter(|group| !group.is_exact).count();
    if n_changed > 0 && !catalog.declares_splits() {
        command += " --group duplicates";
        reasons.push(format!("group duplicates: {n_changed} pictures are there in several forms"));
    }
    reasons.push(match (catalog.declares_splits(), duplicates.across_splits) {
        (true, 0) => "split: as the source says".to_string(),
        (true, n) => format!("split: as the source says; first see to leaks ({n})"),
        (false, _) => "split: 80, 10 and 10 % by hash, as none is given".to_string(),
    });
    match class_shares.imbalance {
        Some(ratio) if ratio >= IMBALANCE_MIN => {
            reasons.push(format!("balance {ratio:.1} to 1: leave it to train; see forebay advise"));
        }
        _ => reasons.push("balance: none, the classes are even enough".to_string()),
    }
    Suggestion { command, reasons }
}
