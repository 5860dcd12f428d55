//! When an option of the split has an effect: [`super::applies`] has the rest.

use super::applies::{Effect, Situation, only};
use super::choices::ShardOrder;
use super::command::Command;
use super::facts::PreparedRows;
use super::values::Layer;

/// What only `prepare` can decide, where the source is shards: fine when what is `given` is what they were prepared
/// with.
fn as_prepared(run: &Situation<'_>, of: impl Fn(&PreparedRows) -> Option<String>, given: String) -> Effect {
    let Some(prepared) = &run.facts.prepared else { return Effect::Yes };
    match of(prepared) {
        Some(prepared) if prepared == given => Effect::Idle,
        None if run.config.given(run.key) == Some(Layer::File) => Effect::Idle,
        prepared => {
            let with = prepared.map(|value| format!(" with {value}")).unwrap_or_default();
            Effect::No(format!(
                "the shards were prepared{with}, and {given} cannot change them; leave it out, or prepare them anew"
            ))
        }
    }
}

pub(super) fn shares(run: &Situation<'_>) -> Effect {
    match run.facts.declares_splits {
        true => run.no("the source has validation or test images of its own; leave it out, or merge them"),
        false => {
            let shares = run
                .config
                .numbers("split.shares")
                .map(|shares| shares.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
            as_prepared(run, PreparedRows::shares, shares.unwrap_or("none".to_string()))
        }
    }
}

pub(super) fn group(run: &Situation<'_>) -> Effect {
    let is_cut = run.config.numbers("split.shares").is_some() || run.has("split.folds");
    match run.facts.declares_splits {
        // It is looked for, and changes nothing that comes out.
        true => Effect::Idle,
        false if !is_cut => {
            run.no("nothing is split, so that nothing can be torn apart; leave it out, or give --split")
        }
        false => {
            let of = |prepared: &PreparedRows| {
                let together = &prepared.hash_split()?.together;
                match run.key {
                    "split.group" => Some(together.pictures.to_string()),
                    _ => together.by.clone(),
                }
            };
            as_prepared(run, of, run.config.text(run.key).unwrap_or_default())
        }
    }
}

pub(super) fn stratify(run: &Situation<'_>) -> Effect {
    match run.facts.declares_splits || run.config.numbers("split.shares").is_none() {
        true => run.no("nothing is split by shares; leave it out"),
        false => {
            let words = |is_on: bool| if is_on { "--stratify" } else { "no --stratify" }.to_string();
            let of = |prepared: &PreparedRows| Some(words(prepared.hash_split()?.stratify));
            as_prepared(run, of, words(run.config.is_on("split.stratify")))
        }
    }
}

pub(super) fn fold(run: &Situation<'_>) -> Effect {
    only(run.has("split.folds"), "it is one of --folds, which is not given; leave it out, or give --folds")
}

pub(super) fn split_seed(run: &Situation<'_>) -> Effect {
    let cuts = run.config.numbers("split.shares").is_some() && !run.facts.declares_splits;
    let shuffles = run.command != Command::Prepare
        || run.config.choice::<ShardOrder>("shards.order") == ShardOrder::Shuffled;
    match cuts || shuffles {
        true => as_prepared(run, PreparedRows::split_seed, run.config.whole("split.seed").to_string()),
        false => run.no("nothing is split and --order source shuffles nothing; leave it out"),
    }
}
