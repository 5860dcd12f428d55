//! `forebay convert`: a dataset in another form, its image files as they are. It is `prepare` with nothing to prepare.

use forebay_datasets::words::Words;

use super::prepare;
use crate::flow::{Error, Run};
use crate::options::{self, Invocation, StoreAs};
use crate::plan;

/// Runs the command.
///
/// # Errors
/// As [`prepare::run`].
pub async fn run(run: &Run, asked: &Invocation) -> Result<(), Error> {
    // Every image stays in the split that the source gives it, and in the order of the source.
    let mut config = asked.config.clone();
    for (key, value) in [
        ("encode.format", StoreAs::Keep.name()),
        ("shards.order", "source"),
        ("split.shares", "none"),
        ("split.group", "none"),
    ] {
        config = config.with(key, value);
    }
    let (opened, layout) = (plan::open_source(&config)?, options::layout(&config));
    let shards = run.until_stopped(move || async move { plan::shards_of(&opened, &layout).await }).await?;
    if let Some(manifest) = shards {
        config = config.with("data.layout", "parquet");
        // What they keep of their source goes along.
        let kept: Vec<&str> = manifest.kept.iter().map(|column| column.name.as_str()).collect();
        if !kept.is_empty() && !config.is_given("data.keep_columns") {
            config = config.with("data.keep_columns", kept.join(","));
        }
    }
    prepare::of(run, &Invocation { config, ..asked.clone() }).await
}
