//! The images of a source by the names that rows of tables have for them.

use std::collections::HashMap;

use super::super::Source;
use super::super::gathered::split_of_path;
use super::super::listing::File;
use super::name_of;
use crate::escape::escape_text;
use crate::sample::Split;

/// The images of a source by the names that rows have for them.
pub(super) struct NamedImages<'a> {
    location: &'a str,
    pub(super) files: Vec<&'a File>,
    by_id: HashMap<&'a str, usize>,
    /// By the path without its extension, made when it is needed.
    by_stem: Option<HashMap<&'a str, Vec<usize>>>,
    /// By what stands behind the last slash, with and without the extension.
    by_name: Option<HashMap<&'a str, Vec<usize>>>,
}

/// What a row names below the source, where it names it by its whole URL.
pub(super) fn below<'a>(name: &'a str, location: &str) -> &'a str {
    name.strip_prefix(location).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name)
}

impl<'a> NamedImages<'a> {
    pub(super) fn of(source: &Source<'a>) -> NamedImages<'a> {
        let files: Vec<&File> = source.listing.files.iter().filter(|file| file.is_image()).collect();
        let by_id = files.iter().enumerate().map(|(index, file)| (&*file.id, index)).collect();
        let location = source.store.location();
        NamedImages { location, files, by_id, by_stem: None, by_name: None }
    }

    /// The image that a row of `table` names, or why there is none.
    pub(super) fn find(&mut self, name: &str, table: &File, split: Option<Split>) -> Result<usize, String> {
        let name = below(name, self.location);
        if name.contains("://") {
            return Err(
                "it is a URL of another place, and images of a table are read from the source".to_string()
            );
        }
        let slashes = name.replace('\\', "/");
        let name = if self.by_id.contains_key(&*escape_text(name)) { name } else { &slashes };
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
                let base = name_of(file);
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
