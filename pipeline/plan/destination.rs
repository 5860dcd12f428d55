//! What stands in the destination of `prepare`, and what a plan may do about it.

use std::collections::{BTreeMap, BTreeSet};

use forebay_datasets::formats;
use forebay_datasets::manifest::{
    CARD_KEY, MANIFEST_KEY, Manifest, ManifestError, NEXT_PLAN_KEY, PLAN_KEY, PlanRecord, Replacement,
};
use forebay_datasets::shard::{self, StandingShard};
use forebay_datasets::split::{Assignment, SplitRule};
use forebay_datasets::store::{Store, StoreError};
use futures::{StreamExt, TryStreamExt};

use super::difference::{differences, settings_differ};
use crate::flow::Error;

/// Footers that are asked for at once.
const FOOTERS_IN_FLIGHT: usize = 16;

/// What a plan may do with its destination.
#[derive(Clone, Debug, PartialEq)]
pub enum DestState {
    /// Nothing that would be in the way.
    Empty,
    /// The same plan, begun or finished.
    Same {
        /// Whether its manifest is there.
        is_finished: bool,
    },
    /// Another dataset that `--overwrite` allows to replace, or one that was never finished: the keys of its shards
    /// that are to go, each checked to be ours.
    Replace(Vec<String>),
}

/// A file of ours, as it stands in a destination.
#[derive(Clone, Debug)]
enum Stored<T> {
    Absent,
    Whole(T),
    Unusable(ManifestError),
}

impl<T> Stored<T> {
    async fn read(
        dest: &Store,
        key: &str,
        parse: impl Fn(&[u8]) -> Result<T, ManifestError>,
    ) -> Result<Stored<T>, Error> {
        let Some(bytes) = dest.find(key).await? else { return Ok(Stored::Absent) };
        Ok(match parse(&bytes) {
            Ok(value) => Stored::Whole(value),
            Err(error) => Stored::Unusable(error),
        })
    }

    fn is_there(&self) -> bool {
        !matches!(self, Stored::Absent)
    }

    /// Whether it is there and says by itself that it is ours.
    fn is_recognized(&self) -> bool {
        self.is_there() && self.unusable().is_none_or(ManifestError::is_ours)
    }

    fn unusable(&self) -> Option<&ManifestError> {
        match self {
            Stored::Unusable(error) => Some(error),
            _ => None,
        }
    }
}

/// The plans and the manifest that stand in a destination.
#[derive(Clone, Debug)]
pub struct Destination {
    plan: Stored<PlanRecord>,
    next: Stored<Replacement>,
    manifest: Stored<Manifest>,
}

impl Destination {
    /// Reads what stands in `dest`; its shards are looked at where it matters.
    ///
    /// # Errors
    /// When the store fails. A file that is damaged or of another program is none.
    pub async fn read(dest: &Store) -> Result<Destination, Error> {
        Ok(Destination {
            plan: Stored::read(dest, PLAN_KEY, PlanRecord::parse).await?,
            next: Stored::read(dest, NEXT_PLAN_KEY, Replacement::parse).await?,
            manifest: Stored::read(dest, MANIFEST_KEY, Manifest::parse).await?,
        })
    }

    /// The replacement that was begun and not carried through. Where the manifest is still there, nothing of the old
    /// dataset has gone, so that the replacement is none yet.
    fn under_way(&self) -> Option<&Replacement> {
        match &self.next {
            Stored::Whole(next) if !self.manifest.is_there() => Some(next),
            _ => None,
        }
    }

    /// The plan that what stands there belongs to.
    fn in_effect(&self) -> Option<&PlanRecord> {
        match (self.under_way(), &self.plan) {
            (Some(next), _) => Some(&next.plan),
            (None, Stored::Whole(plan)) => Some(plan),
            _ => None,
        }
    }

    /// The splits that images of an earlier plan are in.
    pub fn assignment(&self) -> Option<&Assignment> {
        self.in_effect().map(|plan| &plan.assignment)
    }

    /// Of which versions of its files the groups of the images that stand there were found.
    pub fn versions(&self) -> Option<&str> {
        self.in_effect().map(|plan| plan.versions.as_str())
    }

    /// What decided the splits of the images that stand there, by the plan, or by the manifest where only that can be
    /// read; `None` where nothing stands there.
    pub fn rule(&self) -> Option<SplitRule> {
        match (self.in_effect(), &self.manifest) {
            (Some(plan), _) => Some(plan.assignment.rule().clone()),
            (None, Stored::Whole(manifest)) => Some(manifest.split_rule.clone()),
            _ => None,
        }
    }

    /// Whether a plan or a manifest stands there that says by itself that it is ours.
    fn is_recognized(&self) -> bool {
        self.plan.is_recognized() || self.next.is_recognized() || self.manifest.is_recognized()
    }

    /// Whether a plan or a manifest of ours stands there, whole or damaged.
    fn is_ours(&self) -> bool {
        self.plan.is_there() || self.next.is_there() || self.manifest.is_there()
    }

    /// The fingerprint of the plan that the destination belongs to, where one can be read.
    pub fn fingerprint(&self) -> Option<&str> {
        self.in_effect().map(|plan| plan.fingerprint.as_str())
    }

    /// Whether the destination belongs to this plan: its samples, its splits and the versions of its files.
    pub fn is_of(&self, plan: &PlanRecord) -> bool {
        self.under_way().is_none() && self.in_effect().is_some_and(|standing| is_same(standing, plan))
    }

    /// What `plan` may do here. Nothing is changed; all that would be deleted has been looked at.
    ///
    /// # Errors
    /// [`Error::Usage`] with what is in the way and what to do about it.
    pub async fn state(&self, dest: &Store, plan: &PlanRecord, overwrite: bool) -> Result<DestState, Error> {
        let location = dest.location();
        let refuse = |why: String| Err(Error::Usage(format!("{location} {why}")));
        let unusable =
            [self.plan.unusable(), self.next.unusable(), self.manifest.unusable()].into_iter().flatten();
        let is_unknown = |error: &ManifestError| matches!(error, ManifestError::Unknown { .. });
        let is_ours_beside =
            self.is_recognized() || (unusable.clone().any(is_unknown) && has_ours(dest).await?);
        for error in unusable.clone() {
            match error {
                ManifestError::Unknown { .. } if is_ours_beside => {}
                ManifestError::Foreign { key } | ManifestError::Unknown { key } => {
                    return refuse(format!(
                        "holds a {key} that is not of this program; move it away, or choose another DEST"
                    ));
                }
                ManifestError::OtherFormat { .. } | ManifestError::Damaged { .. } => {}
            }
        }
        if dest.is_through_link(shard::FOLDER) {
            let folder = shard::FOLDER;
            return refuse(format!("holds {folder} as a link: what lies behind it is not of this dataset"));
        }
        let is_finished = matches!(&self.manifest, Stored::Whole(m) if m.fingerprint == plan.fingerprint);
        if self.is_of(plan) {
            match beside(dest, plan).await? {
                Some(key) if !overwrite => {
                    return refuse(format!(
                        "holds {key} beside the shards of this plan, and other programs would read it as one; move it \
                         away, or --overwrite to delete it if it is a shard of Forebay"
                    ));
                }
                Some(_) => {}
                None => return Ok(DestState::Same { is_finished }),
            }
        }
        // Where only the plan is damaged, the manifest tells that this is the dataset.
        let is_known = is_finished && !matches!(self.plan, Stored::Whole(_));
        if self.manifest.is_there() && !overwrite && !is_known {
            let parts = match (unusable.clone().next(), self.in_effect(), &self.manifest) {
                (Some(error), ..) => {
                    return refuse(format!("holds another dataset: {error}; --overwrite makes it anew"));
                }
                (None, Some(standing), _) => differences(standing, plan),
                (None, None, Stored::Whole(manifest)) => settings_differ(&manifest.settings, &plan.settings),
                (None, None, _) => Vec::new(),
            };
            let parts = match parts.is_empty() {
                true => format!("in what it differs cannot be told without its {PLAN_KEY}"),
                false => parts.join("; "),
            };
            return refuse(format!(
                "holds another dataset: {parts}; choose another DEST, or --overwrite to replace it, which keeps the \
                 shards whose own images and settings are the same"
            ));
        }
        if !self.is_ours() && !is_ours_or_absent(dest, CARD_KEY).await? {
            return refuse(format!("holds a {CARD_KEY} that is not of this program; choose another DEST"));
        }
        let delete = self.stale(dest, plan).await?;
        match self.is_ours() || !delete.is_empty() {
            true => Ok(DestState::Replace(delete)),
            false => Ok(DestState::Empty),
        }
    }

    /// The shards that stand there and are none of `plan`'s.
    ///
    /// # Errors
    /// [`Error::Usage`] when something else stands among them, that is nothing we may delete.
    async fn stale(&self, dest: &Store, plan: &PlanRecord) -> Result<Vec<String>, Error> {
        let standing: Vec<(String, StandingShard)> = standing_shards(dest).await?;
        let is_ours = |key: &str, shard: &StandingShard| {
            (formats::of_key(key).is_some() || formats::is_beside(key))
                && !dest.is_through_link(key)
                && match shard {
                    StandingShard::Ours(_) => true,
                    StandingShard::Damaged => self.is_ours(),
                    StandingShard::Foreign => false,
                }
        };
        let foreign: Vec<&str> = (standing.iter())
            .filter(|(key, shard)| !is_ours(key, shard))
            .map(|(key, _)| key.as_str())
            .collect();
        if let [first, others @ ..] = &foreign[..] {
            let more = match others.len() {
                0 => String::new(),
                n => format!(" and {n} more"),
            };
            return Err(Error::Usage(format!(
                "{} holds {first}{more}, which is not of this program; move it away, or choose another DEST",
                dest.location()
            )));
        }
        let planned: BTreeMap<&str, _> = plan
            .shards
            .iter()
            .map(|shard| (shard.key.as_str(), (&shard.fingerprint, &shard.versions)))
            .collect();
        let known: BTreeMap<&str, &String> = self
            .in_effect()
            .into_iter()
            .flat_map(|plan| &plan.shards)
            .map(|shard| (shard.key.as_str(), &shard.versions))
            .collect();
        // Shards that an earlier replacement was to delete are of no plan that is in effect.
        let doomed: BTreeSet<&str> =
            self.under_way().into_iter().flat_map(|next| &next.delete).map(String::as_str).collect();
        let is_stale = |key: &str, shard: &StandingShard| {
            let Some((fingerprint, versions)) = planned.get(key) else { return true };
            match shard {
                // By its bytes it is the planned one, so that only we can tell that its files have changed.
                StandingShard::Ours(Some(footer)) if footer.fingerprint == **fingerprint => {
                    known.get(key) != Some(versions) || doomed.contains(key)
                }
                // Work sees that it is not the planned one, and puts that in its place.
                _ => false,
            }
        };
        Ok(standing.into_iter().filter(|(key, shard)| is_stale(key, shard)).map(|(key, _)| key).collect())
    }

    /// Whether a manifest stands there that is not that of `plan`: it has to go before work begins.
    pub fn has_other_manifest(&self, plan: &PlanRecord) -> bool {
        match &self.manifest {
            Stored::Absent => false,
            Stored::Whole(manifest) => manifest.fingerprint != plan.fingerprint,
            Stored::Unusable(_) => true,
        }
    }

    /// Whether what is left of a replacement stands there.
    pub fn has_next(&self) -> bool {
        self.next.is_there()
    }
}

fn is_same(standing: &PlanRecord, plan: &PlanRecord) -> bool {
    standing.fingerprint == plan.fingerprint
        && standing.shards == plan.shards
        && standing.assignment == plan.assignment
}

/// Everything below the folder of the shards, and what it is.
///
/// # Errors
/// When the store fails.
async fn standing_shards(dest: &Store) -> Result<Vec<(String, StandingShard)>, Error> {
    let listed = dest.list(shard::FOLDER).await?;
    let look = |(key, bytes): (String, u64)| async move {
        let found = formats::standing(dest, &key, bytes).await?;
        Ok::<_, StoreError>((key, found))
    };
    let looks = listed.into_iter().filter(|(key, _)| !is_leftover(key)).map(look);
    Ok(futures::stream::iter(looks).buffered(FOOTERS_IN_FLIGHT).try_collect().await?)
}

/// Whether a shard of ours stands there.
async fn has_ours(dest: &Store) -> Result<bool, Error> {
    let standing = standing_shards(dest).await?;
    Ok(standing.iter().any(|(_, shard)| matches!(shard, StandingShard::Ours(_))))
}

/// Whether a key is what a killed put leaves beside a shard: `KEY#NUMBER`.
pub(crate) fn is_leftover(key: &str) -> bool {
    key.rsplit_once('#').is_some_and(|(base, number)| {
        formats::is_of_shards(base) && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The first file below the folder of the shards that is none of `plan`'s.
async fn beside(dest: &Store, plan: &PlanRecord) -> Result<Option<String>, Error> {
    let planned: BTreeSet<&str> = plan.shards.iter().map(|shard| shard.key.as_str()).collect();
    let listed = dest.list(shard::FOLDER).await?.into_iter().map(|(key, _)| key);
    let is_beside = |key: &str| !planned.contains(key) && !is_leftover(key) && !formats::is_beside(key);
    Ok(listed.into_iter().find(|key| is_beside(key)))
}

async fn is_ours_or_absent(dest: &Store, key: &str) -> Result<bool, Error> {
    let found = dest.find(key).await?;
    Ok(found.is_none_or(|bytes| String::from_utf8_lossy(&bytes).contains("written by Forebay")))
}
