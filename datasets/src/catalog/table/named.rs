//! The images of a source by the names that rows of tables have for them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::StreamExt;

use super::super::gathered::{Gathered, split_of_path};
use super::super::kept::Kept;
use super::super::listing::File;
use super::super::{LayoutOptions, Source};
use crate::escape::{escape_text, printable};
use crate::sample::{SampleId, Split};
use crate::store::{Object, Store, is_url, without_secrets};
use crate::words::few;

/// What a row says of an image.
#[derive(Clone)]
pub(super) struct Named {
    pub(super) class: Option<Arc<str>>,
    pub(super) split: Option<Split>,
    pub(super) kept: Option<Kept>,
    /// The table and the row that said it first.
    pub(super) row: String,
    /// Why it cannot be a sample.
    pub(super) conflict: Option<String>,
}

impl Named {
    /// Notes that another row of the same image says something else.
    pub(super) fn compare(&mut self, other: &Named, options: &LayoutOptions) {
        let what = match self {
            Named { class, .. } if *class != other.class => "labels".to_string(),
            Named { split, .. } if *split != other.split => "splits".to_string(),
            Named { kept, .. } if *kept != other.kept => format!("values of {}", few(&options.keep_columns)),
            _ => return,
        };
        let conflict = format!("{} and {} give it different {what}", self.row, other.row);
        self.conflict.get_or_insert(conflict);
    }
}

/// The images of a source by the names that rows have for them.
pub(super) struct NamedImages<'a> {
    /// The source as it was given, and where that truly is.
    roots: Vec<String>,
    pub(super) files: Vec<&'a File>,
    by_id: HashMap<&'a str, usize>,
    /// By the path without its extension, made when it is needed.
    by_stem: Option<HashMap<&'a str, Vec<usize>>>,
    /// By what stands behind the last slash, with and without the extension.
    by_name: Option<HashMap<&'a str, Vec<usize>>>,
}

/// What a source may be called at the start of a whole path or URL.
pub(super) fn roots(store: &Store) -> Vec<String> {
    let root = store.local_root().and_then(|root| root.canonicalize().ok());
    let root = root.and_then(|root| root.to_str().map(str::to_string));
    [store.location().to_string()].into_iter().chain(root).collect()
}

/// What a row names below the source, where it names it by its whole path or URL.
pub(super) fn below<'a>(name: &'a str, roots: &[String]) -> &'a str {
    let below = |root: &String| name.strip_prefix(root.as_str())?.strip_prefix('/');
    roots.iter().find_map(below).unwrap_or(name)
}

impl<'a> NamedImages<'a> {
    pub(super) fn of(source: &Source<'a>) -> NamedImages<'a> {
        let files: Vec<&File> = source.listing.files.iter().filter(|file| file.is_image()).collect();
        let by_id = files.iter().enumerate().map(|(index, file)| (&*file.id, index)).collect();
        NamedImages { roots: roots(source.store), files, by_id, by_stem: None, by_name: None }
    }

    /// Whether a name is the whole URL of an image of another place.
    pub(super) fn is_elsewhere(&self, name: &str) -> bool {
        is_url(below(name, &self.roots))
    }

    /// The image that a row of `table` names, or why there is none.
    pub(super) fn find(&mut self, name: &str, table: &File, split: Option<Split>) -> Result<usize, String> {
        let name = below(name, &self.roots).to_string();
        let slashes = name.replace('\\', "/");
        let name = if self.by_id.contains_key(&*escape_text(&name)) { &name } else { &slashes };
        let name = name.trim_start_matches("./");
        if name.starts_with('/') || name.split('/').any(|part| part == "..") {
            return Err("its path leads out of the source".to_string());
        }
        let name = escape_text(name);
        let folder = table.id.rsplit_once('/').map_or("", |(folder, _)| folder);
        let beside = if folder.is_empty() { name.to_string() } else { format!("{folder}/{name}") };
        if let Some(index) = self.by_id.get(&*beside).or_else(|| self.by_id.get(&*name)) {
            return Ok(*index);
        }
        let files = &self.files;
        let stem = |id: &'a str| {
            let base = id.rfind('/').map_or(0, |slash| slash + 1);
            id[base..].rfind('.').map_or(id, |dot| &id[..base + dot])
        };
        let by_stem = self.by_stem.get_or_insert_with(|| {
            let mut by_stem: HashMap<&str, Vec<usize>> = HashMap::new();
            for (index, file) in files.iter().enumerate() {
                by_stem.entry(stem(&file.id)).or_default().push(index);
            }
            by_stem
        });
        if let Some(found) = by_stem.get(&*beside).or_else(|| by_stem.get(&*name)) {
            return only(files, found, split);
        }
        let by_name = self.by_name.get_or_insert_with(|| {
            let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
            for (index, file) in files.iter().enumerate() {
                let base = file.base_name();
                by_name.entry(base).or_default().push(index);
                if stem(base) != base {
                    by_name.entry(stem(base)).or_default().push(index);
                }
            }
            by_name
        });
        let base = name.rsplit('/').next().unwrap_or(&name);
        match by_name.get(base) {
            Some(found) => only(files, found, split),
            None => Err("there is no such image".to_string()),
        }
    }
}

/// Images of other places, as their servers tell of them, each with what its row says; what cannot be read is a reject.
pub(super) async fn elsewhere(
    store: &Store,
    rows: BTreeMap<String, Named>,
    found: &mut Gathered,
) -> Vec<(File, Named)> {
    /// More would wait for their turn at their servers.
    const ASKED_AT_ONCE: usize = 64;
    let looks = rows.into_iter().map(|(url, row)| async move {
        let looked = store.look_elsewhere(&url).await;
        (url, row, looked)
    });
    let mut looks = futures::stream::iter(looks).buffered(ASKED_AT_ONCE);
    let mut images = Vec::new();
    while let Some((url, row, looked)) = looks.next().await {
        // A query may be a signature.
        let id: SampleId = printable(&without_secrets(&url)).into();
        match looked {
            Ok(Object { name, bytes, version }) => {
                images.push((File { id, name, bytes, version, fault: None }, row))
            }
            Err(why) => found.reject(id, format!("{why} ({})", row.row)),
        }
    }
    images
}

/// The only one of several images, or the only one in a folder of the split.
fn only(files: &[&File], found: &[usize], split: Option<Split>) -> Result<usize, String> {
    let of_split: Vec<usize> = found
        .iter()
        .copied()
        .filter(|index| split.is_some() && split_of_path(&files[*index].id) == split)
        .collect();
    match (found, &of_split[..]) {
        ([only], _) | (_, [only]) => Ok(*only),
        ([first, second, ..], _) => {
            Err(format!("several images are called so, {} and {}", files[*first].id, files[*second].id))
        }
        ([], _) => Err("there is no such image".to_string()),
    }
}
