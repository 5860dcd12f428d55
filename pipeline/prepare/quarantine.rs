//! Rejected files, copied aside: where a person looks at them, and other programs find them.

use std::collections::BTreeSet;

use forebay_datasets::catalog::Entry;
use forebay_datasets::manifest::REJECTS_KEY;
use forebay_datasets::shard::Reject;
use forebay_datasets::store::Store;

use crate::flow::Error;
use crate::plan::PreparePlan;

/// What came of copying rejected files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quarantined {
    /// Files that were copied.
    pub copied: u64,
    /// Rejects of which there is no file to copy: it cannot be read, or is no sample of the source.
    pub without: u64,
}

/// Copies the files of these rejects to `quarantine`, each under its id, beside the list of them.
///
/// # Errors
/// When a store fails.
pub async fn quarantine(
    plan: &PreparePlan,
    quarantine: &Store,
    rejects: &[Reject],
) -> Result<Quarantined, Error> {
    let mut done = Quarantined::default();
    // The list first: without it the folder would be taken for another's. What earlier runs have put there stays on it.
    let earlier = quarantine.find(REJECTS_KEY).await?;
    let mut listed =
        earlier.map(|bytes| Reject::of_lines(&String::from_utf8_lossy(&bytes))).unwrap_or_default();
    listed.retain(|earlier| !rejects.iter().any(|reject| reject.id == earlier.id));
    listed.extend_from_slice(rejects);
    listed.sort();
    quarantine.put(REJECTS_KEY, Reject::to_lines(&listed).into()).await?;
    let entries = plan.rows.catalog.entries();
    let mut names: BTreeSet<String> = BTreeSet::new();
    for reject in rejects {
        let entry = entries.binary_search_by(|entry| (*entry.id).cmp(&reject.id)).ok().map(|at| &entries[at]);
        let bytes = match entry {
            None => None,
            Some(Entry { locator, .. }) => match locator.read(&plan.source).await {
                Ok(bytes) => Some(bytes),
                Err(error) if error.loses_only_this_object() => None,
                Err(error) => return Err(error.into()),
            },
        };
        let Some(bytes) = bytes else {
            done.without += 1;
            continue;
        };
        quarantine.put(&name_of(&reject.id, &mut names), bytes).await?;
        done.copied += 1;
    }
    Ok(done)
}

/// A key for a sample: its id, but for what no key may be; never one that another has, nor a folder of another, nor in one.
fn name_of(id: &str, taken: &mut BTreeSet<String>) -> String {
    let part = |part: &str| match part {
        "" | "." | ".." => "_".to_string(),
        // Stores take a number after `#` for a file that is under way.
        part => part.replace(['#', '\\', '\0'], "_"),
    };
    let name = id.split('/').map(part).collect::<Vec<_>>().join("/");
    let mut name = if name == REJECTS_KEY { format!("_{name}") } else { name };
    let is_in_the_way = |name: &str| {
        let is_below =
            |other: &str, folder: &str| other.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        taken.contains(name) || taken.iter().any(|other| is_below(other, name) || is_below(name, other))
    };
    while is_in_the_way(&name) {
        name.insert(0, '_');
    }
    taken.insert(name.clone());
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_the_folder_and_differ() {
        let mut taken = BTreeSet::new();
        let mut of = |id: &str| name_of(id, &mut taken);
        assert_eq!(of("a/b.jpg"), "a/b.jpg");
        assert_eq!(of("a/b#1"), "a/b_1");
        assert_eq!(of("a/b_1"), "_a/b_1");
        // A folder of others, and below a file.
        assert_eq!(of("a"), "__a");
        assert_eq!(of("a/b.jpg/c"), "_a/b.jpg/c");
        assert_eq!(of("/../x"), "_/_/x");
        assert_eq!(of("rejects.jsonl"), "_rejects.jsonl");
    }
}
