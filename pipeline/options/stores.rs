//! When an option of the stores has an effect: [`super::applies`] has the rest.

use super::applies::{Effect, Situation};
use super::command::Command;

const BUCKETS: [&str; 3] = ["s3", "gs", "az"];
const WEB: [&str; 2] = ["http", "https"];

/// Whether a place of the run is a URL with one of these schemes.
fn has_place(run: &Situation<'_>, schemes: &[&str]) -> bool {
    // The address of a server is no place.
    let mut places = run.config.texts().filter(|(key, _)| !key.starts_with("store."));
    let scheme = |place: &str| place.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    places.any(|(_, place)| scheme(place).is_some_and(|scheme| schemes.contains(&&*scheme)))
}

pub(super) fn of_buckets(run: &Situation<'_>) -> Effect {
    match has_place(run, &BUCKETS) {
        true => Effect::Yes,
        false => run.no(
            "no place of this run is in a bucket (s3://, gs:// or az://); leave it out, or name one as s3://BUCKET/PREFIX",
        ),
    }
}

pub(super) fn region(run: &Situation<'_>) -> Effect {
    match has_place(run, &["s3"]) {
        true => Effect::Yes,
        false => run
            .no("no place of this run is in a bucket of S3; leave it out, or name one as s3://BUCKET/PREFIX"),
    }
}

pub(super) fn anonymous(run: &Situation<'_>) -> Effect {
    // Weights of the hub, hf:OWNER/NAME, are no place, and its datasets are.
    let is_of_hub = run.config.texts().any(|(_, text)| text.starts_with("hf:"));
    match has_place(run, &BUCKETS) || is_of_hub {
        true => Effect::Yes,
        false => run.no(
            "no place of this run is in a bucket (s3://, gs:// or az://) or on the hub (hf:), and nothing else is sent \
             credentials; leave it out",
        ),
    }
}

pub(super) fn allow_private(run: &Situation<'_>) -> Effect {
    // A table may name images by URLs, wherever it is.
    let may_be_a_table = matches!(
        run.command,
        Command::Inspect
            | Command::Prepare
            | Command::Convert
            | Command::Train
            | Command::Bench
            | Command::Eval
            | Command::Predict
    ) && run.facts.prepared.is_none();
    match has_place(run, &WEB) || may_be_a_table {
        true => Effect::Yes,
        false => run.no("no place of this run is on the web (https://), where a redirect could lead elsewhere; leave it out"),
    }
}

pub(super) fn cache(run: &Situation<'_>) -> Effect {
    if has_place(run, &BUCKETS) || has_place(run, &WEB) {
        return Effect::Yes;
    }
    match has_place(run, &["hf"]) {
        true => run.no("files of the hub (hf://) are kept in its own cache, which HF_HUB_CACHE names; leave it out"),
        false => run.no(
            "no place of this run is in a bucket (s3://, gs:// or az://) or on the web (https://); leave it out, or name \
             one as s3://BUCKET/PREFIX",
        ),
    }
}

pub(super) fn cache_limit(run: &Situation<'_>) -> Effect {
    match run.config.text("store.cache") {
        Some(_) => cache(run),
        None => run.no("nothing is kept without --cache; leave it out, or name a folder with --cache"),
    }
}
