//! Which samples are prepared where only some are: those of a list of rejects, tried once more.

use std::collections::HashSet;

use bytes::Bytes;
use forebay_datasets::catalog::Catalog;
use forebay_datasets::shard::Reject;
use forebay_datasets::store::Store;

use super::places::{Purpose, refuse_unreached};
use crate::flow::Error;
use crate::options::{self, Config};

/// The samples of a catalog that a list of rejects names; classes stay what they are.
///
/// # Errors
/// [`Error::Usage`] when there is no such list, or it names no sample of the catalog.
pub(super) async fn replayed(config: &Config, place: &str, catalog: Catalog) -> Result<Catalog, Error> {
    if config.is_on("split.stratify") {
        return Err(Error::Plan(vec![
            "replay: --stratify cuts a class by all of its samples, and only some are prepared; leave one of them out"
                .to_string(),
        ]));
    }
    let bytes = listed_file(config, "--replay", place).await?;
    let text = String::from_utf8_lossy(&bytes);
    let mut rejects: Vec<Reject> = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        rejects.push(serde_json::from_str(line).map_err(|_| {
            Error::Usage(format!(
                "--replay {place}: line {number} is no reject, which has an id, a stage and a reason: mend it, or leave it out"
            ))
        })?);
    }
    let wanted: HashSet<&str> = rejects.iter().map(|reject| reject.id.as_str()).collect();
    let mut contents = catalog.into_contents();
    contents.entries.retain(|entry| wanted.contains(&*entry.id));
    contents.rejects.retain(|(id, _)| wanted.contains(&**id));
    contents.unlabelled.clear();
    let n = contents.entries.len() + contents.rejects.len();
    if n == 0 {
        return Err(Error::Usage(format!(
            "--replay {place} names no sample of the source: it has {} lines of rejects",
            rejects.len()
        )));
    }
    if n < wanted.len() {
        let missing = wanted.len() - n;
        contents
            .warnings
            .push(format!("{missing} of the {} samples of --replay are not in the source", wanted.len()));
    }
    Ok(Catalog::new(contents)?)
}

/// A file that an option names.
///
/// # Errors
/// [`Error::Usage`] when there is none.
pub(crate) async fn listed_file(config: &Config, flag: &str, place: &str) -> Result<Bytes, Error> {
    refuse_unreached(flag, place, Purpose::File)?;
    let (folder, file) = options::folder_and_file(place);
    let key = options::file_key(place, file);
    let bytes = Store::open(folder, &options::store_options(config))?.find(&key).await?;
    bytes.ok_or_else(|| Error::Usage(format!("cannot read {flag} {place}: there is no such file")))
}
