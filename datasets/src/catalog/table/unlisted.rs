//! The images of a table on a web server, which lists nothing: each that a row names is asked for.

use std::collections::BTreeSet;

use super::super::listing::{self, Listing};
use super::super::{Misfit, Source};
use super::named::{below, roots};
use super::{Rows, TableColumns, Value, tables};
use crate::store::is_url;

/// What the source was listed with, and the images beside its tables that rows of these name and that are there.
pub(super) async fn with_images(source: &Source<'_>) -> Result<Listing, Misfit> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    let roots = roots(source.store);
    for file in tables(source) {
        // What is wrong with a table is said when it is read.
        let Ok(table) = Rows::open(source.store, file).await else { continue };
        let Ok(columns) = TableColumns::of(&table.columns, source.options, false) else { continue };
        let mut note = |_: u64, values: &[Value]| {
            if let Some(Value::Text(name)) = values.first() {
                let name = below(name, &roots).replace('\\', "/");
                let name = name.trim_start_matches("./");
                let is_below = |part: &str| !["", ".", ".."].contains(&part);
                if !is_url(name) && name.split('/').all(is_below) {
                    names.insert(name.to_string());
                }
            }
            Ok(())
        };
        let _ = table.each(source.store, &[columns.image], &mut note).await;
    }
    let names: Vec<String> = names.into_iter().collect();
    let (mut listing, _) = listing::of_names(source.store, names).await?;
    listing.files.retain(|image| source.listing.files.iter().all(|file| file.id != image.id));
    listing.files.extend(source.listing.files.iter().cloned());
    Ok(listing.sorted())
}
