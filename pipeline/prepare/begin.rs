//! The plan goes to its destination, and what stood there gives way.

use std::sync::Arc;

use bytes::Bytes;
use forebay_datasets::formats;
use forebay_datasets::manifest::{
    CARD_KEY, FORMAT, MANIFEST_KEY, NEXT_PLAN_KEY, PLAN_KEY, REJECTS_KEY, Replacement,
};
use forebay_datasets::store::{Claim, Store};

use crate::flow::{Error, Run, kill_point};
use crate::plan::{DestState, Destination, PreparePlan};
use crate::report::wait_for;

/// A destination that belongs to a plan: nobody with another plan begins while this lives.
#[derive(Debug)]
pub struct Begun {
    _claim: Claim,
}

/// Stores the plan in its destination, so that work on its shards may begin.
///
/// The old gives way in this order, from every point of which a rerun goes on: the new plan is stored beside the old
/// one with the keys that are to go; the old manifest goes, and with it the old dataset; the plan takes its place; the
/// old shards go; what was stored beside goes. Another process with the same plan may be at work: then nothing is left
/// to do.
///
/// # Errors
/// [`Error::Usage`] when a process with another plan is at work there, or something else is in the way;
/// [`Error::Interrupted`] before anything was changed; others when the store fails.
pub async fn begin(run: &Run, plan: &Arc<PreparePlan>) -> Result<Begun, Error> {
    let dest = &plan.dest;
    interrupted(run)?;
    let claim = match dest.claim_alone()? {
        Some(claim) => claim,
        None => match join(run, plan).await {
            Ok(begun) => return Ok(begun),
            // Whoever was at work may have ended, or may have been killed halfway, while we waited.
            Err(refused) => dest.claim_alone()?.ok_or(refused)?,
        },
    };
    let record = plan.record();
    let destination = Destination::read(dest).await?;
    let state = destination.state(dest, &record, plan.overwrite).await?;
    if claim.is_held() {
        // Nobody is at work, so that what lies there half written was left by a process that was killed.
        dest.delete_leftovers("", is_ours).await?;
    }
    match state {
        DestState::Same { .. } => {
            if destination.has_other_manifest(&record) {
                dest.delete(&[MANIFEST_KEY], is_ours).await?;
            }
            if destination.has_next() {
                dest.delete(&[NEXT_PLAN_KEY], is_ours).await?;
            }
        }
        state if state != plan.dest_state => {
            let location = dest.location();
            return Err(Error::Usage(format!("{location} changed while this run was planned; run it again")));
        }
        DestState::Empty => {
            kill_point("prepare: before the plan");
            let is_first = dest.put_new(PLAN_KEY, Bytes::from(record.to_bytes())).await?;
            if !is_first {
                return join(run, plan).await;
            }
            kill_point("prepare: after the plan");
        }
        DestState::Replace(delete) => {
            replace(run, dest, Replacement { format: FORMAT, plan: record, delete }).await?;
        }
    }
    claim.share().map_err(|error| Error::failed(format!("share {}", dest.location()), error))?;
    // Between having it alone and sharing it another may have been there.
    still_ours(plan).await?;
    Ok(Begun { _claim: claim })
}

/// Joins the processes that are at work on the same plan.
pub(super) async fn join(run: &Run, plan: &Arc<PreparePlan>) -> Result<Begun, Error> {
    let dest = plan.dest.clone();
    let alone = async move {
        let what = format!("another run to have begun in {}", dest.location());
        wait_for(&what, || 0, || Ok(dest.claim_shared()?)).await
    };
    let claim = run.until_stopped(|| alone).await?;
    still_ours(plan).await?;
    Ok(Begun { _claim: claim })
}

/// The destination belongs to this plan, and not to another that came before or in between.
pub(super) async fn still_ours(plan: &PreparePlan) -> Result<(), Error> {
    let (dest, record) = (&plan.dest, plan.record());
    let destination = Destination::read(dest).await?;
    if destination.is_of(&record) {
        return Ok(());
    }
    let (location, ours) = (dest.location(), &record.fingerprint[..16]);
    Err(Error::Usage(match destination.fingerprint() {
        Some(fingerprint) if fingerprint == record.fingerprint => format!(
            "{location} is being prepared by another run, of the same plan with other versions of its files: wait for \
             it to end, or choose another DEST"
        ),
        Some(fingerprint) => format!(
            "{location} is being prepared by another run, of the plan {}, and this is {ours}: wait for it to end, or \
             choose another DEST",
            fingerprint.chars().take(16).collect::<String>()
        ),
        None => format!("{location} has lost its {PLAN_KEY} while this run was at work; run it again"),
    }))
}

async fn replace(run: &Run, dest: &Store, replacement: Replacement) -> Result<(), Error> {
    kill_point("prepare: before the next plan");
    dest.put(NEXT_PLAN_KEY, Bytes::from(replacement.to_bytes())).await?;
    kill_point("prepare: after the next plan");
    // The last moment at which the old dataset is whole.
    if let Err(interrupt) = interrupted(run) {
        dest.delete(&[NEXT_PLAN_KEY], is_ours).await?;
        return Err(interrupt);
    }
    dest.delete(&[MANIFEST_KEY], is_ours).await?;
    kill_point("prepare: after the old manifest");
    dest.delete(&[CARD_KEY, REJECTS_KEY], is_ours).await?;
    kill_point("prepare: before the plan");
    dest.put(PLAN_KEY, Bytes::from(replacement.plan.to_bytes())).await?;
    kill_point("prepare: after the plan");
    for key in &replacement.delete {
        dest.delete(&formats::files_of(key), is_ours).await?;
        kill_point("prepare: between old shards");
    }
    kill_point("prepare: after the old shards");
    dest.delete(&[NEXT_PLAN_KEY], is_ours).await.map_err(Error::from)
}

fn interrupted(run: &Run) -> Result<(), Error> {
    run.interrupted().map_or(Ok(()), |interrupt| Err(Error::Interrupted(interrupt)))
}

fn is_ours(key: &str) -> bool {
    [PLAN_KEY, NEXT_PLAN_KEY, MANIFEST_KEY, CARD_KEY, REJECTS_KEY].contains(&key)
        || formats::is_of_shards(key)
}
