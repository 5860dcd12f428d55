//! What each shard of a plan is a function of, so that one whose inputs are the same is kept from plan to plan.

use std::collections::BTreeMap;

use forebay_datasets::catalog::KeptColumn;
use forebay_datasets::manifest::{FORMAT, ShardPlan};
use forebay_datasets::sample::Split;

use super::identity::{Digest, versions_digest};
use super::rows::{PlannedRow, Rows};
use super::shards::PlannedShard;
use crate::options::{Identity, option};

/// Whether a setting decides what an image is stored as.
fn decides(key: &str, is_augmented: bool) -> bool {
    match option(key).map(|row| row.identity) {
        Some(Identity::Views) => is_augmented,
        Some(Identity::Rows) => is_augmented && key == "seed",
        Some(Identity::Run | Identity::Neither | Identity::Once) => false,
        // What no row of the table is, as the chain, was made of those that decide pixels.
        Some(Identity::Pixels) | None => true,
    }
}

/// Every shard with the digests of what it is made from, in the order of `shards`.
pub(super) fn shard_plans(
    rows: &Rows,
    shards: &[PlannedShard],
    settings: &BTreeMap<String, serde_json::Value>,
    is_augmented: bool,
    kept: &[(usize, KeptColumn)],
    is_rare: Option<&[bool]>,
) -> Vec<ShardPlan> {
    let plan = |shard: &PlannedShard| {
        let is_augmented = is_augmented && shard.split == Split::Train;
        let mut made_of = Digest::default();
        made_of.field(&format!("forebay shard {FORMAT} {} {}", shard.split, shard.index));
        for (key, value) in settings.iter().filter(|(key, _)| decides(key, is_augmented)) {
            made_of.field(key);
            made_of.field(&value.to_string());
        }
        for class in rows.catalog.classes() {
            made_of.field(class);
        }
        for (_, column) in kept {
            made_of.field(&format!("kept {} {}", column.kind.dtype(), column.name));
        }
        if let Some(is_rare) = is_rare.filter(|_| is_augmented) {
            made_of.field(&format!("rare {is_rare:?}"));
        }
        let planned = &rows.of(shard.split)[shard.first..shard.first + shard.rows];
        let entry = |row: &PlannedRow| &rows.catalog.entries()[row.entry];
        for row in planned {
            made_of.field(&entry(row).id);
            made_of.field(&format!("{} {} {}", row.copy, entry(row).label, entry(row).bytes()));
            made_of.field(&entry(row).locator.place());
            for (at, _) in kept {
                let value = entry(row).kept.as_ref().map(|kept| &kept[*at]);
                made_of.field(&format!("{value:?}"));
            }
        }
        ShardPlan {
            key: shard.key(),
            fingerprint: made_of.hex(),
            versions: versions_digest(planned.iter().map(entry)),
        }
    };
    shards.iter().map(plan).collect()
}
