//! Plans as people read them: `forebay plan` compared with the texts in `tests/snapshots/`.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test --test forebay plans` writes them anew: look at the difference before it is kept.

use std::sync::Arc;

use forebay::feed::{self, Pass};
use forebay::flow::{Run, RunOptions};
use forebay::options::{Command, Config};
use forebay::plan::{PlannedNode, PreparePlan};
use forebay::prepare;

use crate::fixture::Place;

fn place() -> Place {
    let place = Place::new();
    for index in 0..40u64 {
        place.write_png(
            &format!("in/{}/{index}.png", ["ant", "bee"][(index % 4 / 3) as usize]),
            32,
            24,
            index,
        );
    }
    place
}

/// Compares the plan of a command with the snapshot of this name. What differs from machine to machine, and the
/// fingerprint, which any change of format changes, are replaced by names.
fn check(place: &Place, name: &str, arguments: &str) {
    let said = place.run(&format!("plan {arguments} --threads 2")).done();
    let text: String = said
        .stdout
        .lines()
        .map(|line| match line.split_once("fingerprint  ") {
            Some((before, _)) => format!("{before}fingerprint  FINGERPRINT\n"),
            None => format!("{}\n", line.trim_end()),
        })
        .collect();
    let root = place.path("").to_string_lossy().into_owned();
    let text = format!("$ forebay plan {arguments}\n{}", text.replace(root.trim_end_matches('/'), "PLACE"));
    let path = format!("{}/tests/snapshots/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == kept, "{path} says\n{kept}\nand the program\n{text}");
    for code in ["{", "\"", "Some(", "_crop"] {
        assert!(!text.contains(code), "{name} shows code ({code}): {text}");
    }
}

#[test]
fn plans_read_as_they_did() {
    let place = place();
    check(&place, "prepare", "prepare in out --size 16 --fit crop");
    check(&place, "prepare-original", "prepare in out --size original --encode raw --split none");
    check(&place, "prepare-balanced", "prepare in out --size 16 --fit pad --balance over --augment strong");
    check(&place, "train", "train in --size 16");
    check(
        &place,
        "train-sgd",
        "train in --size 16 --optimizer sgd --lr 0.1 --schedule multi-step --lr-milestones 4,8 --augment standard",
    );
    check(
        &place,
        "train-stalls",
        "train in --size 16 --freeze backbone --unfreeze stall:layer4 --schedule plateau --loss focal --early-stop 3",
    );
    place.run("prepare in shards --size 16 --fit crop --encode png").done();
    check(&place, "train-shards", "train shards --schedule one-cycle --balance under");
}

#[test]
fn a_plan_as_json_is_one_object() {
    let place = place();
    let arguments = "plan train in --size 16 --augment light --epochs 3 --threads 2 --memory 300MiB --json";
    let said = place.run(arguments).done();
    assert_eq!(said.stdout.lines().count(), 1, "{}", said.stdout);
    let plan = said.json();
    assert_eq!((plan["epochs"].as_u64(), plan["settings"]["train.epochs"].as_u64()), (Some(3), Some(3)));
    let parts = plan["memory"]["parts"].as_array().unwrap();
    let sum: u64 = parts.iter().map(|part| part["bytes"].as_u64().unwrap()).sum();
    assert_eq!(plan["memory"]["most_bytes"].as_u64(), Some(sum));
    let settings = plan["settings"].as_object().unwrap();
    assert!(!settings.contains_key("train.momentum"), "what has no effect is not there: {settings:?}");
}

/// The nodes of a flow that ran, in the order in which it was built, without its sources.
fn ran(run: &Run) -> Vec<&'static str> {
    let report = run.meter().report();
    report.iter().filter(|node| format!("{:?}", node.verb) != "Source").map(|node| node.name).collect()
}

/// The names of planned nodes; those that come twice are one in metrics.
fn names(nodes: &[PlannedNode]) -> Vec<&'static str> {
    let mut names = Vec::new();
    for node in nodes {
        if !names.contains(&node.name) {
            names.push(node.name);
        }
    }
    names
}

#[test]
fn the_nodes_of_a_plan_are_those_that_run() {
    let place = place();
    let path = |name: &str| place.path(name).to_string_lossy().into_owned();
    let run = || {
        let rooms = forebay::plan::Rooms::of(&Config::resolve(None, &[], &[]).unwrap());
        Run::new(RunOptions { threads: 2, memory_bytes: 64 << 20, max_rejects: rooms.max_rejects }).unwrap()
    };
    let config = |more: &[(&'static str, String)]| {
        let flags = [more, &[("resize.size", "16".into()), ("threads", "2".into())]].concat();
        Config::resolve(None, &[], &flags).unwrap()
    };
    for (dest, augment) in [("plain", "none"), ("augmented", "light")] {
        // All in train: else images of other splits pass other stages.
        let config = config(&[
            ("source", path("in")),
            ("dest", path(dest)),
            ("augment", augment.into()),
            ("split.shares", "none".into()),
        ]);
        let run = run();
        let plan = Arc::new(run.block_on(PreparePlan::resolve(&run, &config)).unwrap());
        run.block_on(prepare::prepare(&run, plan.clone())).unwrap();
        let ran: Vec<_> =
            ran(&run).into_iter().filter(|name| !["reread", "checksum", "footers"].contains(name)).collect();
        assert_eq!(ran, names(&plan.nodes()), "{dest}");
    }
    for (source, augment) in [("in", "none"), ("in", "light"), ("plain", "none"), ("plain", "standard")] {
        let config =
            config(&[("source", path(source)), ("augment", augment.into()), ("resize.fit", "crop".into())]);
        let run = run();
        let (feed, ..) = run.block_on(feed::resolve(&run, &config, Command::Bench)).unwrap();
        run.block_on(feed.batches(&run, Pass::train(0)).collect()).unwrap();
        assert_eq!(ran(&run), names(&feed.nodes()), "{source} {augment}");
    }
}
