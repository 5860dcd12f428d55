//! Images to shards: plan, work, commit.
//!
//! 1. [`begin`] stores the plan; where another dataset stands, it gives way. Interrupted anywhere, what is there is the
//!    old dataset whole, or the new one under way.
//! 2. [`work`] makes shards, any range of them: a shard is a pure function of the plan and its index, so that workers
//!    need not know of each other. It deletes nothing.
//! 3. [`commit`] looks at every shard, decides the reject budget on the whole, and puts the manifest, last.

mod begin;
mod commit;
mod pack;
mod quarantine;
mod reread;
mod work;

use std::sync::Arc;

pub use begin::{Begun, begin};
pub use commit::{Prepared, commit};
pub use quarantine::{Quarantined, quarantine};
pub(crate) use reread::{Reread, checksums};
pub use work::{Worked, work};

use crate::flow::{Error, Run};
use crate::plan::PreparePlan;

/// Runs a plan: begin, work on every shard, commit.
///
/// # Errors
/// The first error of the run; too many rejects or nothing written end it without a manifest.
pub async fn prepare(run: &Run, plan: Arc<PreparePlan>) -> Result<Prepared, Error> {
    run.rejects().begin(plan.rows.catalog.found());
    let begun = begin(run, &plan).await?;
    let worked = work(run, &plan, 0..plan.shards.len()).await?;
    let prepared = commit(run, &plan, &worked).await;
    drop(begun);
    prepared
}
