//! Which samples of a source belong together, so that a split does not tear them apart: by what they show, by a column
//! of the source, by a pattern of their ids.
//!
//! Copies are told by their files: of files of one size the last bytes are read, and of those that agree in them the
//! whole, so that few are. Other duplicates are told by their pixels, for which every image is decoded once more.

use std::collections::HashMap;
use std::sync::Arc;

use forebay_datasets::catalog::{Catalog, Entry, Locator, text_of};
use forebay_datasets::duplicates::{Fingerprint, find};
use forebay_datasets::escape::escape_text;
use forebay_datasets::groups::{SamePicture, Together, join, torn};
use forebay_datasets::sample::{Encoded, Sample, SampleId, Split};
use forebay_datasets::seed::Seed;
use forebay_datasets::split::Assignment;
use forebay_datasets::store::{Store, StoreError};
use forebay_datasets::words::few;
use forebay_stages::fingerprint::Fingerprinting;
use forebay_stages::stage::Stage;
use futures::executor::block_on;
use futures::{StreamExt, TryStreamExt};

use super::{Rooms, images_of};
use crate::flow::{Chunk, Error, Run, blocking};
use crate::options::{self, Config, GroupBy};

/// A source that is read before anything is planned, and with what.
pub(crate) struct GroupedSource<'a> {
    /// Threads and rooms.
    pub(crate) run: &'a Run,
    /// The options.
    pub(crate) config: &'a Config,
    /// Where the images are.
    pub(crate) store: &'a Store,
}

/// A catalog whose samples know their groups, and what a user would want to know of them. `known` are the groups that were
/// found in these very files before: they are not looked for again.
///
/// Where the source declares splits nothing is grouped: what is in several of them is told of, where `looks_for_leaks`.
///
/// # Errors
/// [`Error::Plan`] for a pattern or a column that groups nothing; others when the source cannot be read.
pub(crate) async fn grouped(
    source: &GroupedSource<'_>,
    catalog: Catalog,
    known: Option<&Assignment>,
    looks_for_leaks: bool,
) -> Result<(Catalog, Vec<String>), Error> {
    let config = source.config;
    let declares = catalog.declares_splits();
    let is_cut = config.numbers("split.shares").is_some() || config.get("split.folds").is_some();
    let is_of_use = if declares { looks_for_leaks } else { is_cut };
    if !is_of_use {
        return Ok((catalog, Vec::new()));
    }
    let entries = catalog.entries();
    let mut warnings = Vec::new();
    let refuse = |problem: String| Error::Plan(vec![problem]);
    let groups: Vec<SampleId> = match options::group_by(config).map_err(refuse)? {
        None => entries.iter().map(|entry| entry.group.clone()).collect(),
        Some(by) => groups_by(&by, &catalog, &mut warnings).map_err(refuse)?,
    };
    let Together { pictures, .. } = options::together(config);
    let pairs = match (pictures, known) {
        (SamePicture::None, _) => Vec::new(),
        (_, Some(earlier)) if !declares => known_pairs(earlier, entries),
        (SamePicture::Copies, _) => copies(source, entries).await?,
        (SamePicture::Duplicates, _) => duplicates(source, entries).await?,
    };
    let groups = join(&groups, pairs);
    if declares {
        warnings.extend(leaks(entries, &groups));
        return Ok((catalog, warnings));
    }
    warnings.extend(too_large(&groups));
    let mut contents = catalog.into_contents();
    for (entry, group) in contents.entries.iter_mut().zip(groups) {
        entry.group = group;
    }
    Ok((Catalog::new(contents)?, warnings))
}

/// Pairs that join the groups of an earlier assignment.
fn known_pairs(earlier: &Assignment, entries: &[Entry]) -> Vec<[u32; 2]> {
    let mut firsts: HashMap<&SampleId, u32> = HashMap::new();
    let pair = |(at, entry): (u32, &Entry)| {
        let first = *firsts.entry(earlier.group(&entry.id)?).or_insert(at);
        (first != at).then_some([first, at])
    };
    (0..).zip(entries).filter_map(pair).collect()
}

/// The group of each sample by a column or a pattern; one of which it says nothing stays in its own.
fn groups_by(by: &GroupBy, catalog: &Catalog, warnings: &mut Vec<String>) -> Result<Vec<SampleId>, String> {
    let entries = catalog.entries();
    let key = |entry: &Entry| -> Option<String> {
        match by {
            GroupBy::Pattern(pattern) => {
                let found = pattern.captures(&entry.id)?;
                let shared: Vec<&str> = found.iter().skip(1).flatten().map(|part| part.as_str()).collect();
                Some(shared.join("\0"))
            }
            GroupBy::Column(column) => {
                let at = catalog.kept_columns().iter().position(|name| name == column)?;
                text_of(&entry.kept.as_ref()?[at])
            }
        }
    };
    let mut without: Vec<&str> = Vec::new();
    let mut sizes: HashMap<SampleId, u64> = HashMap::new();
    let groups: Vec<SampleId> = entries
        .iter()
        .map(|entry| match key(entry) {
            // No id of a sample, so that no group is taken for one of them.
            Some(key) => format!("{by}: {}", escape_text(&key)).into(),
            None => {
                without.push(&entry.id);
                entry.group.clone()
            }
        })
        .inspect(|group| *sizes.entry(group.clone()).or_default() += 1)
        .collect();
    match (entries.len() - without.len(), sizes.values().max()) {
        (0, _) => Err(format!(
            "split.group_by: {by} says nothing of any sample, such as {}",
            entries.first().map_or("", |entry| &entry.id)
        )),
        (n, Some(n_largest)) if n > 1 && *n_largest as usize == entries.len() => {
            Err(format!("split.group_by: {by} puts all {n} samples in one group, which cannot be split"))
        }
        _ => {
            if !without.is_empty() {
                let (n, which) = (without.len(), few(&without));
                warnings.push(format!("{by} says nothing of {n} samples, each a group of its own: {which}"));
            }
            Ok(groups)
        }
    }
}

/// How the groups beside the first of so many are told of.
pub(super) fn other_groups(n: usize) -> String {
    match n {
        0 | 1 => String::new(),
        2 => ", and another group".to_string(),
        n => format!(", and {} more groups", n - 1),
    }
}

/// A line where most samples are in one group, which lies in one split as a whole.
fn too_large(groups: &[SampleId]) -> Option<String> {
    let mut sizes: HashMap<&SampleId, usize> = HashMap::new();
    for group in groups {
        *sizes.entry(group).or_default() += 1;
    }
    let (group, n) = sizes.into_iter().max_by_key(|(group, n)| (*n, *group))?;
    (n > 2 && 2 * n > groups.len()).then(|| {
        format!(
            "{n} of {} samples belong together and are in one split as a whole: group {group}",
            groups.len()
        )
    })
}

/// A line for the groups that are in several of the splits that the source declares.
fn leaks(entries: &[Entry], groups: &[SampleId]) -> Option<String> {
    let split = |entry: &Entry| entry.split.unwrap_or(Split::Train);
    let torn = torn(entries.iter().zip(groups).map(|(entry, group)| (entry, group, split(entry))));
    let [a, b] = torn.first()?;
    let others = other_groups(torn.len());
    Some(format!(
        "what belongs together is in several splits of the source, which makes scores too good: {} ({}) and {} ({}){others}",
        a.id,
        split(a),
        b.id,
        split(b)
    ))
}

/// The last bytes of files of one size that are compared first: where headers are the same, they rarely are.
const TAIL_BYTES: u64 = 4096;

/// Samples that are read at once.
const CHUNK: usize = 32;

/// The hash of a sample or of its end, and its place among the entries.
type Hashed = ([u8; 16], u32);

/// Which samples have the same bytes: for each but the first of such, that and the first.
async fn copies(source: &GroupedSource<'_>, entries: &[Entry]) -> Result<Vec<[u32; 2]>, Error> {
    // Of a row that is packed with others only the mean size is known.
    let size = |at: &u32| {
        let locator = &entries[*at as usize].locator;
        (!locator.is_packed()).then(|| locator.bytes())
    };
    let mut all: Vec<u32> = (0..entries.len() as u32).collect();
    all.sort_by_key(|at| (size(at), *at));
    let (mut small, mut large) = (Vec::new(), Vec::new());
    for same in all.chunk_by(|a, b| size(a) == size(b)).filter(|same| same.len() > 1) {
        match size(&same[0]) {
            Some(bytes) if bytes > TAIL_BYTES => large.extend_from_slice(same),
            _ => small.extend_from_slice(same),
        }
    }
    let tails = hashes(source, entries, large, true).await?;
    for same in tails.chunk_by(|a, b| (size(&a.1), a.0) == (size(&b.1), b.0)).filter(|same| same.len() > 1) {
        small.extend(same.iter().map(|(_, at)| *at));
    }
    let whole = hashes(source, entries, small, false).await?;
    let same = whole.chunk_by(|a, b| a.0 == b.0);
    Ok(same.flat_map(|same| same[1..].iter().map(|(_, at)| [same[0].1, *at])).collect())
}

/// The hashes of these samples or of their last bytes, sorted; what cannot be read has none.
async fn hashes(
    source: &GroupedSource<'_>,
    entries: &[Entry],
    mut wanted: Vec<u32>,
    of_tails: bool,
) -> Result<Vec<Hashed>, Error> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    // Packed rows one after the other, as they lie.
    wanted.sort_by_cached_key(|at| entries[*at as usize].locator.order());
    let chunks: Vec<Vec<(u32, Locator)>> = wanted
        .chunks(CHUNK)
        .map(|chunk| chunk.iter().map(|at| (*at, entries[*at as usize].locator.clone())).collect())
        .collect();
    let store = source.store.clone();
    let hash = move |store: Store, (at, locator): (u32, Locator)| {
        async move {
            let bytes = match of_tails {
                true => locator.read_end(&store, TAIL_BYTES).await,
                false => locator.read(&store).await,
            };
            match bytes {
                Ok(bytes) => {
                    let mut hash = [0; 16];
                    hash.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..16]);
                    Ok(Some((hash, at)))
                }
                // Whoever needs it says so.
                Err(error) if error.loses_only_this_object() => Ok(None),
                Err(error) => Err(error),
            }
        }
    };
    // Not a flow: what is looked at before a run is planned is no stage of it.
    let work = chunks.into_iter().map(move |chunk| {
        let store = store.clone();
        async move {
            let hashes: Result<Vec<_>, StoreError> = match store.local_root() {
                Some(_) => {
                    blocking(move || {
                        chunk.into_iter().map(|one| block_on(hash(store.clone(), one))).collect()
                    })
                    .await
                }
                None => {
                    let hashes = chunk.into_iter().map(|one| hash(store.clone(), one));
                    futures::stream::iter(hashes).buffered(8).try_collect().await
                }
            };
            hashes
        }
    });
    let work = futures::stream::iter(work).buffered(Rooms::of(source.config).read().slots).try_collect();
    let found: Vec<Vec<Option<Hashed>>> = work.await?;
    let mut hashes: Vec<Hashed> = found.into_iter().flatten().flatten().collect();
    match of_tails {
        true => hashes.sort_by_key(|(hash, at)| (entries[*at as usize].bytes(), *hash, *at)),
        false => hashes.sort_unstable(),
    }
    Ok(hashes)
}

/// Which samples show the same picture: pairs that join those that do. Every image is decoded; one that cannot be is alone.
async fn duplicates(source: &GroupedSource<'_>, entries: &[Entry]) -> Result<Vec<[u32; 2]>, Error> {
    let GroupedSource { run, config, store } = source;
    let mut order: Vec<u32> = (0..entries.len() as u32).collect();
    order.sort_by_cached_key(|at| entries[*at as usize].locator.order());
    let decode = Arc::new(options::decode(config, None));
    let images = images_of(run, config, store, order.iter().map(|at| &entries[*at as usize]), &decode);
    let room = Rooms::of(config).compute();
    let prints = images.compute(Fingerprinting::NAME, room, move |chunk: Chunk<Encoded>| {
        let print = |sample: Sample<Encoded>| {
            let draws = Seed(0).draws(&sample.id, 0, 0);
            let pixels = decode.apply(sample.payload.ok()?, &draws).ok()?;
            Fingerprinting.apply(pixels, &draws).ok()
        };
        Ok(chunk.into_iter().map(print).collect())
    });
    let prints: Vec<Vec<Option<Fingerprint>>> = prints.collect().await?;
    let prints = order.into_iter().zip(prints.into_iter().flatten());
    let (places, prints): (Vec<u32>, Vec<Fingerprint>) =
        prints.filter_map(|(at, print)| Some((at, print?))).unzip();
    let ids: Vec<SampleId> = places.iter().map(|at| entries[*at as usize].id.clone()).collect();
    let found = run.install(|| find(&ids, &prints));
    Ok(found.links.iter().map(|link| [link.first, link.second].map(|at| places[at as usize])).collect())
}
