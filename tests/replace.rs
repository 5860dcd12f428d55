//! What stands in a destination, what gives way to what, and that nothing is lost on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use forebay::flow::{Error, Interrupt, MaxRejects, Run, RunOptions};
use forebay::options::Config;
use forebay::plan::PreparePlan;
use forebay::prepare;
use forebay_datasets::manifest::{FORMAT, PlanRecord, Replacement, ShardPlan};
use forebay_datasets::shard::{self, Index, Row, StoredRow};
use serde_json::Value;

use crate::fixture::{Place, Said};

/// Draws the images of a range, two to one, as classes a and b.
fn draw(place: &Place, folder: &str, range: std::ops::Range<u64>) {
    for index in range {
        let class = if index % 3 == 0 { "b" } else { "a" };
        place.write_png(&format!("{folder}/{class}/{index}.png"), 5, 4, index);
    }
}

/// The split of every image that stands in the shards of a dataset, and of every one that its plan assigns.
fn splits(place: &Place, dataset: &str) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let files = place.files(dataset);
    let mut stored = BTreeMap::new();
    for (name, file) in files.iter().filter(|(name, _)| name.ends_with(".parquet")) {
        let file = Bytes::from(file.clone());
        let index = Index::of_file(&file).unwrap();
        for group in 0..index.metadata().num_row_groups() {
            let range = index.identity_range(group);
            let bytes = file.slice(range.start as usize..range.end as usize);
            for (id, ..) in index.identities(group, bytes).unwrap() {
                stored.insert(id.to_string(), index.footer().split.to_string());
            }
        }
        assert!(name.starts_with("data/"), "{name}");
    }
    let plan: Value = serde_json::from_slice(&files["plan.json"]).unwrap();
    let mut assigned = BTreeMap::new();
    for split in ["train", "validation", "test"] {
        for id in plan["assignment"][split].as_array().unwrap() {
            assigned.insert(id.as_str().unwrap().to_string(), split.to_string());
        }
    }
    (stored, assigned)
}

fn copy(place: &Place, from: &str, to: &str) {
    for (name, bytes) in place.files(from) {
        place.write(&format!("{to}/{name}"), &bytes);
    }
}

/// Runs until the process is killed at a named point; false if it never came there.
fn killed_at(place: &Place, arguments: &str, point: &str) -> bool {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let output = place.command(&arguments).env("FOREBAY_KILL_AT", point).output().unwrap();
    Said::of(output).code == 128 + 9
}

/// Invariants 7 to 9: a manifest means a dataset that is whole, nothing else stands beside it, its samples add up, and
/// no image is in another split than it was.
fn holds(place: &Place, dataset: &str, before: &BTreeMap<String, String>) {
    let files = place.files(dataset);
    if files.contains_key("manifest.json") {
        place.run(&format!("verify {dataset}")).done();
        let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        let count = |key: &str| manifest["counts"][key].as_u64().unwrap();
        assert_eq!(count("written") + count("rejected") + count("dropped"), count("found"));
        let (stored, assigned) = splits(place, dataset);
        assert_eq!(stored.len() as u64, count("written"));
        for (id, split) in before {
            assert_eq!(assigned.get(id), Some(split), "{id}");
        }
    }
}

#[test]
fn a_kill_at_any_point_of_a_replacement_leaves_the_old_whole_or_the_new_under_way() {
    let place = Place::new();
    draw(&place, "in", 0..24);
    let options = "--encode png --size original --samples-per-shard 5 --split 0.6,0.2,0.2";
    place.run(&format!("prepare in old {options}")).done();
    let (_, before) = splits(&place, "old");
    assert_eq!(before.len(), 24);
    draw(&place, "in", 24..40);
    copy(&place, "old", "undisturbed");
    place.run(&format!("prepare in undisturbed {options} --overwrite")).done();
    holds(&place, "undisturbed", &before);
    let (old, undisturbed) = (place.files("old"), place.files("undisturbed"));
    assert!(old.keys().any(|key| !undisturbed.contains_key(key)), "some old shards have to go");
    for (number, (point, old_is_whole)) in [
        ("prepare: before the next plan", true),
        ("prepare: after the next plan", true),
        ("prepare: after the old manifest", false),
        ("prepare: before the plan", false),
        ("prepare: after the plan", false),
        ("prepare: between old shards", false),
        ("prepare: after the old shards", false),
        ("prepare: between shards", false),
        ("prepare: before the rejects", false),
        ("prepare: before the manifest", false),
        ("prepare: after the manifest", false),
    ]
    .into_iter()
    .enumerate()
    {
        let out = format!("out{number}");
        copy(&place, "old", &out);
        assert!(killed_at(&place, &format!("prepare in {out} {options} --overwrite"), point), "{point}");
        let left = place.files(&out);
        if old_is_whole {
            assert!(old.iter().all(|(key, bytes)| left.get(key) == Some(bytes)), "{point}");
            place.run(&format!("verify {out}")).done();
        } else {
            assert_eq!(left.contains_key("manifest.json"), point == "prepare: after the manifest", "{point}");
        }
        holds(&place, &out, &if old_is_whole { BTreeMap::new() } else { before.clone() });
        // What was begun goes on without being asked again; what was not begun needs to be.
        let overwrite = if old_is_whole { "--overwrite" } else { "" };
        place.run(&format!("prepare in {out} {options} {overwrite}")).done();
        assert!(place.files(&out) == undisturbed, "{point}: other bytes");
        holds(&place, &out, &before);
    }
}

#[test]
fn a_kill_in_a_first_run_is_gone_on_from() {
    let place = Place::new();
    draw(&place, "in", 0..24);
    let arguments =
        |out: &str| format!("prepare in {out} --encode png --samples-per-shard 5 --max-rejects 1");
    place.run(&arguments("undisturbed")).done();
    for (number, point) in [
        "prepare: before the plan",
        "prepare: after the plan",
        "prepare: between shards",
        "prepare: before the rejects",
        "prepare: before the manifest",
        "prepare: after the manifest",
    ]
    .into_iter()
    .enumerate()
    {
        let out = format!("out{number}");
        assert!(killed_at(&place, &arguments(&out), point), "{point}");
        holds(&place, &out, &BTreeMap::new());
        place.run(&arguments(&out)).done();
        assert!(place.files(&out) == place.files("undisturbed"), "{point}: other bytes");
    }
}

#[test]
fn a_replacement_that_was_never_begun_takes_nothing_from_the_old_dataset() {
    let place = Place::new();
    draw(&place, "in", 0..12);
    place.run("prepare in out --encode png").done();
    draw(&place, "in", 12..20);
    assert!(killed_at(&place, "prepare in out --encode png --overwrite", "prepare: after the next plan"));
    let plan = place.files("out")["plan.json"].clone();
    place.run("prepare in out --encode png").refused(2, "holds another dataset");
    for index in 12..20 {
        let class = if index % 3 == 0 { "b" } else { "a" };
        std::fs::remove_file(place.path(&format!("in/{class}/{index}.png"))).unwrap();
    }
    let again = place.run("prepare in out --encode png --json").done().json();
    assert_eq!(again["shards_reused"], again["shards"]);
    let files = place.files("out");
    assert_eq!(files["plan.json"], plan);
    assert!(!files.contains_key("plan.next.json"));
}

#[test]
fn a_disk_that_fills_up_while_the_plan_is_put_leaves_the_old_dataset_whole() {
    let place = Place::new();
    draw(&place, "in", 0..12);
    place.run("prepare in out --encode png").done();
    let before = place.files("out");
    draw(&place, "in", 12..60);
    let arguments = "prepare in out --encode png --overwrite";
    let script = format!("ulimit -f 1; exec {} {arguments}", env!("CARGO_BIN_EXE_forebay"));
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .current_dir(place.path(""))
        .output()
        .unwrap();
    Said::of(output).refused(1, "cannot write");
    assert!(place.files("out") == before, "the old dataset is no longer what it was");
    place.run(arguments).done();
    place.run("verify out").done();
}

fn config(place: &Place, dest: &str, more: &[&str]) -> Config {
    let mut sets = vec![
        format!("source={}", place.path("in").display()),
        format!("dest={}", place.path(dest).display()),
        "encode.format=png".to_string(),
        "shards.samples_per_shard=4".to_string(),
        "threads=2".to_string(),
    ];
    sets.extend(more.iter().map(|set| set.to_string()));
    Config::resolve(None, &sets, &[]).unwrap()
}

fn start() -> Run {
    Run::new(RunOptions { threads: 2, memory_bytes: 1 << 30, max_rejects: MaxRejects::Share(0.05) }).unwrap()
}

fn plan(run: &Run, place: &Place, dest: &str, more: &[&str]) -> Arc<PreparePlan> {
    Arc::new(run.block_on(PreparePlan::resolve(run, &config(place, dest, more))).unwrap())
}

#[test]
fn an_interruption_before_work_begins_leaves_the_old_dataset_whole() {
    let place = Place::new();
    draw(&place, "in", 0..12);
    place.run("prepare in out --encode png").done();
    let before = place.files("out");
    draw(&place, "in", 12..20);
    let run = start();
    let plan = plan(&run, &place, "out", &["overwrite=true"]);
    run.stop(Interrupt::CtrlC);
    let error = run.block_on(prepare::prepare(&run, plan)).unwrap_err();
    assert!(matches!(error, Error::Interrupted(Interrupt::CtrlC)), "{error}");
    assert!(place.files("out") == before);
}

#[test]
fn two_workers_on_disjoint_ranges_write_the_bytes_of_one_process() {
    let place = Place::new();
    draw(&place, "in", 0..40);
    let run = start();
    run.block_on(prepare::prepare(&run, plan(&run, &place, "one", &[]))).unwrap();
    let shared = plan(&run, &place, "two", &[]);
    let n = shared.shards.len();
    assert!(n > 6);
    run.block_on(async {
        let begun = prepare::begin(&run, &shared).await.unwrap();
        // The second worker plans anew, as another machine would, and is done before the first.
        let other = start();
        let planned = Arc::new(PreparePlan::resolve(&run, &config(&place, "two", &[])).await.unwrap());
        let worked = prepare::work(&other, &planned, n / 2..n).await.unwrap();
        assert_eq!(worked.reused, 0);
        let early = prepare::commit(&other, &planned, &worked).await.unwrap_err();
        assert!(matches!(&early, Error::Integrity(line) if line.contains("is missing")), "{early}");
        let worked = prepare::work(&run, &shared, 0..n / 2).await.unwrap();
        assert_eq!(worked.reused, 0);
        // Whoever commits needs to know nothing of what the others did.
        prepare::commit(&run, &shared, &prepare::Worked::default()).await.unwrap();
        drop(begun);
    });
    assert!(place.files("two") == place.files("one"), "other bytes");
    place.run("verify two").done();
}

#[test]
fn a_sample_that_is_neither_written_nor_rejected_nor_dropped_is_found_out() {
    let place = Place::new();
    draw(&place, "in", 0..12);
    let run = start();
    let plan = plan(&run, &place, "out", &[]);
    run.block_on(prepare::begin(&run, &plan)).unwrap();
    run.block_on(prepare::work(&run, &plan, 0..plan.shards.len())).unwrap();
    let commit = || run.block_on(prepare::commit(&run, &plan, &prepare::Worked::default())).unwrap_err();
    let key = plan.shards[0].key();
    let whole = Bytes::from(place.files("out")[&key].clone());
    let index = Index::of_file(&whole).unwrap();
    let range = index.group_range(0);
    let rows = index.rows(0, whole.slice(range.start as usize..range.end as usize)).unwrap();
    for (holes, said) in [(vec![], "do not add up"), (vec![1], "is not 12 found")] {
        let row = |row: &StoredRow| Row {
            bytes: row.bytes.clone(),
            label: row.label,
            id: row.id.clone(),
            extension: "png",
            ..Row::default()
        };
        let mut rows: Vec<Row> = rows.iter().map(row).collect();
        rows.remove(1);
        let mut footer = index.footer().clone();
        (footer.groups, footer.row_groups, footer.holes) = (vec![], vec![], holes);
        let (file, _) = shard::encode(index.classes(), vec![rows], footer).unwrap();
        place.write(&format!("out/{key}"), &file);
        let error = commit();
        assert!(matches!(&error, Error::Integrity(line) if line.contains(said)), "{said}: {error}");
        assert!(!place.path("out/manifest.json").exists());
    }
}

#[test]
fn while_one_is_at_work_the_same_plan_joins_and_another_is_refused_by_name() {
    let place = Place::new();
    draw(&place, "in", 0..20);
    let run = start();
    let first = plan(&run, &place, "out", &[]);
    let begun = run.block_on(prepare::begin(&run, &first)).unwrap();
    // What the first has half written is none of the second's business.
    place.write(&format!("out/{}#1", first.shards[0].key()), b"half a shard");
    let name = format!("the plan {}", &first.fingerprint[..16]);
    let options = "--encode png --samples-per-shard 4";
    for other in ["--quality 3 --encode jpeg", "--encode raw --overwrite", "--encode raw"] {
        place.run(&format!("prepare in out {other}")).refused(2, &name);
    }
    place.run(&format!("prepare in out {options}")).done();
    assert!(place.files("out").contains_key(&format!("{}#1", first.shards[0].key())));
    let done = run.block_on(async {
        let worked = prepare::work(&run, &first, 0..first.shards.len()).await?;
        prepare::commit(&run, &first, &worked).await
    });
    assert_eq!(done.unwrap().shards_reused, first.shards.len());
    drop(begun);
    place.run(&format!("prepare in out {options}")).done();
    place.run("verify out").done();
    place.run(&format!("prepare in alone {options}")).done();
    assert!(place.files("out") == place.files("alone"));
}

#[test]
fn two_processes_with_the_same_plan_both_finish() {
    let place = Place::new();
    draw(&place, "in", 0..40);
    let arguments: Vec<&str> =
        "prepare in out --encode png --samples-per-shard 3 --threads 1".split(' ').collect();
    let children: Vec<_> = (0..3).map(|_| place.command(&arguments).spawn().unwrap()).collect();
    for child in children {
        Said::of(child.wait_with_output().unwrap()).done();
    }
    place.run("verify out").done();
    place.run("prepare in alone --encode png --samples-per-shard 3 --threads 1").done();
    assert!(place.files("out") == place.files("alone"));
}

#[test]
fn the_split_of_an_image_depends_on_no_other_image_and_no_other_dataset() {
    let place = Place::new();
    draw(&place, "in", 0..30);
    place.run("prepare in first --encode png").done();
    let (_, before) = splits(&place, "first");
    draw(&place, "in", 30..90);
    place.run("prepare in second --encode png").done();
    let (stored, after) = splits(&place, "second");
    assert_eq!((stored.len(), after.len()), (90, 90));
    for (id, split) in &before {
        assert_eq!(&after[id], split, "{id}");
    }
}

#[test]
fn what_the_balance_drops_and_a_stage_rejects_keeps_its_split() {
    let place = Place::new();
    draw(&place, "in", 0..60);
    // Of the smaller class, of which the balance drops none.
    let broken = place.files("in").into_keys().nth_back(7).unwrap();
    let whole = place.files("in")[&broken].clone();
    place.write(&format!("in/{broken}"), b"no image");
    let options = "--encode png --split 0.6,0.2,0.2 --max-rejects 1";
    let done = place.run(&format!("prepare in out {options} --balance under --json")).done().json();
    assert!(done["dropped"].as_u64().unwrap() > 0 && done["rejected"] == 1);
    let (stored, before) = splits(&place, "out");
    assert_eq!(before.len(), 60, "those that stand in no shard are assigned too");
    assert!(stored.len() < 60);
    place.write(&format!("in/{broken}"), &whole);
    draw(&place, "in", 60..80);
    place.run(&format!("prepare in out {options} --overwrite")).done();
    let (stored, after) = splits(&place, "out");
    assert_eq!(stored, after);
    for (id, split) in &before {
        assert_eq!(&after[id], split, "{id}");
    }
}

#[test]
fn another_cut_has_to_be_asked_for() {
    let place = Place::new();
    draw(&place, "in", 0..60);
    place.run("prepare in out --encode png").done();
    let before = place.files("out");
    for other in ["--split 0.5,0.25,0.25", "--split-seed 1", "--split none"] {
        place.run(&format!("prepare in out --encode png --overwrite {other}")).refused(2, "--resplit");
    }
    place.run("prepare in out --encode png --split-seed 1 --resplit").refused(2, "--overwrite");
    assert!(place.files("out") == before);
    let options = "--encode png --split 0.5,0.25,0.25";
    place.run(&format!("prepare in out {options} --overwrite --resplit")).done();
    place.run(&format!("prepare in fresh {options}")).done();
    assert_eq!(splits(&place, "out"), splits(&place, "fresh"));
    let again = place.run(&format!("prepare in out {options} --json")).done().json();
    assert_eq!(again["shards_reused"], again["shards"]);
}

#[test]
fn a_setting_of_a_shared_run_file_without_effect_makes_no_other_dataset() {
    let place = Place::new();
    for (number, split) in ["train", "train", "train", "val", "test"].into_iter().enumerate() {
        for class in ["a", "b"] {
            place.write_png(&format!("in/{split}/{class}/{number}.png"), 5, 4, number as u64);
        }
    }
    let prepare = "prepare in out --encode png --config run.toml --json";
    for shares in ["[0.8, 0.1, 0.1]", "[0.5, 0.25, 0.25]", "\"none\""] {
        place.write("run.toml", format!("[split]\nshares = {shares}\n").as_bytes());
        let done = place.run(prepare).done().json();
        let reused = if shares == "[0.8, 0.1, 0.1]" { 0 } else { 3 };
        assert_eq!((&done["shards"], &done["shards_reused"]), (&3.into(), &reused.into()), "{shares}");
    }
    // The seed orders the rows of shards too, so that it is no setting without effect.
    place.run(&format!("{prepare} --split-seed 1")).refused(2, "holds another dataset");
    // Nothing is cut by a seed where all is train.
    place.run("prepare in/train all --encode png --split none").done();
    place.run("prepare in/train all --encode png --split none --split-seed 1 --overwrite").done();
}

#[test]
fn a_test_folder_in_which_everything_broke_moves_no_train_image() {
    let place = Place::new();
    draw(&place, "in/train", 0..30);
    draw(&place, "in/test", 30..36);
    place.run("prepare in out --encode png").done();
    let (_, before) = splits(&place, "out");
    for name in place.files("in").into_keys().filter(|name| name.starts_with("test/")) {
        std::fs::remove_file(place.path(&format!("in/{name}"))).unwrap();
        std::os::unix::fs::symlink("nowhere.png", place.path(&format!("in/{name}"))).unwrap();
    }
    for out in ["out", "fresh"] {
        let said = place.run(&format!("prepare in {out} --encode png --max-rejects 6 --overwrite")).done();
        assert!(said.stderr.contains("no image that can be used in test/"), "{}", said.stderr);
        let (stored, assigned) = splits(&place, out);
        assert_eq!(stored.len(), 30);
        for (id, split) in &assigned {
            assert_eq!(before.get(id), Some(split), "{id} in {out}");
        }
    }
}

#[test]
fn splits_that_the_source_declares_from_now_on_have_to_be_asked_for() {
    let place = Place::new();
    draw(&place, "in/train", 0..30);
    place.run("prepare in out --encode png").done();
    let before = place.files("out");
    place.write_png("in/test/a/30.png", 5, 4, 30);
    let said = place.run("prepare in out --encode png --overwrite").refused(2, "--resplit");
    let line = "split by --split 0.8,0.1,0.1 --split-seed 0, and this run splits by the train, validation and test splits";
    assert!(said.stderr.contains(line), "{}", said.stderr);
    assert!(place.files("out") == before);
    place.run("prepare in out --encode png --overwrite --resplit").done();
    let (stored, _) = splits(&place, "out");
    assert!(stored.iter().all(|(id, split)| id.starts_with(split)), "{stored:?}");
    // And back.
    std::fs::remove_dir_all(place.path("in/test")).unwrap();
    place.run("prepare in out --encode png --overwrite").refused(2, "--resplit");
}

#[test]
fn a_class_without_an_image_in_a_split_is_named_with_a_seed_that_mends_it() {
    let place = Place::new();
    draw(&place, "in", 0..30);
    let said = place.run("plan prepare in out --split 0.9,0.05,0.05").done();
    let note = said.stdout.lines().find(|line| line.contains("no image in ")).expect("a note");
    assert!(note.contains("class "), "{note}");
    let seed = said.stdout.lines().find_map(|line| line.split_once("--split-seed ")).expect("a seed").1;
    let seed: u64 = seed.split(' ').next().unwrap().parse().unwrap();
    let mended = place.run(&format!("plan prepare in out --split 0.9,0.05,0.05 --split-seed {seed}")).done();
    assert!(!mended.stdout.contains("no image in "), "{}", mended.stdout);
}

#[test]
fn a_plan_is_one_object_with_json() {
    let place = Place::new();
    draw(&place, "in", 0..12);
    let said = place.run("plan prepare in out --encode png --json").done();
    assert_eq!(said.stdout.lines().count(), 1, "{}", said.stdout);
    let plan = said.json();
    assert_eq!(plan["samples"], 12);
    assert!(plan["memory"]["most_bytes"].as_u64().unwrap() > 0);
    assert!(!place.path("out").exists());
}

#[test]
fn whatever_is_damaged_is_made_again_by_the_same_command() {
    let place = Place::new();
    draw(&place, "in", 0..24);
    let arguments = "prepare in out --encode png --samples-per-shard 8 --split none";
    place.run(arguments).done();
    let whole = place.files("out");
    let shard = "data/train-00001-of-00003.parquet";
    let file = &whole[shard];
    let without_middle = [&file[..file.len() / 4], &file[file.len() / 3..]].concat();
    let without_end = file[..file.len() / 2].to_vec();
    let manifest = &whole["manifest.json"];
    for (name, bytes) in [
        (shard, without_middle),
        (shard, without_end),
        (shard, vec![]),
        (shard, b"not a table at all".to_vec()),
        ("manifest.json", manifest[..manifest.len() / 2].to_vec()),
        ("manifest.json", vec![]),
    ] {
        for overwrite in ["", "--overwrite"] {
            place.write(&format!("out/{name}"), &bytes);
            place.run(&format!("{arguments} {overwrite}")).done();
            assert!(place.files("out") == whole, "{name} of {} bytes", bytes.len());
        }
    }
    for bytes in
        [whole["plan.json"][..99].to_vec(), vec![], b"{\"format\": 1, \"fingerprint\": \"x\"}".to_vec()]
    {
        for overwrite in ["", "--overwrite"] {
            place.write("out/plan.json", &bytes);
            place.run(&format!("{arguments} {overwrite}")).done();
            assert!(place.files("out") == whole);
        }
    }
    std::fs::remove_file(place.path("out/plan.json")).unwrap();
    place.write(&format!("out/{shard}"), b"");
    place.run(&format!("{arguments} --overwrite")).done();
    assert!(place.files("out") == whole);
}

/// A plan is sealed as a manifest is: an edited one is no other dataset, which would be refused.
#[test]
fn an_edited_plan_is_damage_that_the_same_command_mends() {
    let place = Place::new();
    draw(&place, "in", 0..24);
    let arguments = "prepare in out --encode png --samples-per-shard 8";
    place.run(arguments).done();
    let whole = place.files("out");
    let text = String::from_utf8(whole["plan.json"].clone()).unwrap();
    let plan: Value = serde_json::from_str(&text).unwrap();
    let said = |pointer: &str| plan.pointer(pointer).unwrap().as_str().unwrap().to_string();
    for (from, to) in [
        (said("/fingerprint"), "0".repeat(64)),
        (said("/shards/0/versions"), "0".repeat(32)),
        (said("/assignment/train/0"), "a/another.png".to_string()),
        ("\"seed\": 0".to_string(), "\"seed\": 1".to_string()),
        ("\"classes\"".to_string(), "\"glasses\"".to_string()),
    ] {
        assert!(text.contains(&from), "{from} in {text}");
        place.write("out/plan.json", text.replacen(&from, &to, 1).as_bytes());
        place.run(arguments).done();
        assert!(place.files("out") == whole, "{to}");
    }
}

#[test]
fn a_refusal_says_in_what_the_plans_differ() {
    let place = Place::new();
    draw(&place, "in", 0..24);
    place.run("prepare in out --encode png --samples-per-shard 7").done();
    let refused = |arguments: &str, parts: &[&str]| {
        let said = place
            .run(&format!("prepare in out --samples-per-shard 7 {arguments}"))
            .refused(2, "holds another dataset: ");
        let line = said.stderr.split_once("holds another dataset: ").unwrap().1;
        assert_eq!(line.split_once("; choose another DEST").unwrap().0, parts.join("; "), "{arguments}");
    };
    refused("--encode raw", &["encode.format \"png\" -> \"raw\""]);
    refused("--encode png --size 64", &["resize.size 32 -> 64"]);
    refused(
        "--encode png --fit pad --background white",
        &["decode.background \"drop\" -> \"white\"", "resize.fit \"shortest\" -> \"pad\""],
    );
    let reseeded = "prepare in out --samples-per-shard 7 --encode png --split-seed 1 --resplit";
    let said = place.run(reseeded).refused(2, "split.seed 0 -> 1; ");
    let rules = "split by --split 0.8,0.1,0.1 --split-seed 0 -> --split 0.8,0.1,0.1 --split-seed 1; ";
    assert!(said.stderr.contains(rules) && said.stderr.contains(" to another split; "), "{}", said.stderr);
    std::fs::create_dir(place.path("in/c")).unwrap();
    refused("--encode png", &["1 class came (c)"]);
    std::fs::remove_dir(place.path("in/c")).unwrap();
    draw(&place, "in", 24..29);
    std::fs::remove_file(place.path("in/b/3.png")).unwrap();
    let images = ["5 images came (a/25.png, a/26.png, a/28.png, ..)", "1 image went (b/3.png)"];
    refused("--encode png", &images);
    let balance = [
        "balance.max_repeats not set -> 100",
        "balance.mode \"none\" -> \"over\"",
        "balance.ratio not set -> 1.0",
        "seed not set -> 0",
    ];
    refused("--encode png --balance over", &[&balance[..], &images].concat());
}

/// A manifest is sealed, so that whatever is edited in it is damage, which is made again.
#[test]
fn an_edited_manifest_is_damage_to_everyone_and_is_made_again() {
    let place = Place::new();
    draw(&place, "in", 0..24);
    let arguments = "prepare in out --encode png --samples-per-shard 8";
    place.run(arguments).done();
    let whole = place.files("out");
    let text = String::from_utf8(whole["manifest.json"].clone()).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let digest = manifest["shards"][0]["blake3"].as_str().unwrap();
    let class = format!("\"{}\"", manifest["classes"][0].as_str().unwrap());
    for (from, to) in [
        (digest, "0000000000000000000000000000000000000000000000000000000000000000"),
        ("\"written\": 24", "\"written\": 25"),
        (&class, "\"other\""),
        ("\"format\"", "\"formal\""),
    ] {
        assert!(text.contains(from), "{from} in {text}");
        place.write("out/manifest.json", text.replacen(from, to, 1).as_bytes());
        place.run("verify out").refused(4, "is damaged");
        place.run("train out --out run").refused(4, "is damaged");
        place.run(arguments).done();
        assert!(place.files("out") == whole, "{to}");
    }
    // Not even JSON: ours, because our plan or our shards stand beside it.
    for (name, bytes) in
        [("manifest.json", &b"garbage"[..]), ("manifest.json", &[0; 99]), ("plan.json", b"garbage")]
    {
        place.write(&format!("out/{name}"), bytes);
        place.run(arguments).done();
        assert!(place.files("out") == whole, "{name}");
    }
    place.write("out/plan.next.json", b"garbage");
    place.run(arguments).done();
    assert!(place.files("out") == whole);
    place.write("empty/manifest.json", b"garbage");
    place.run("prepare in empty").refused(2, "move it away, or choose another DEST");
    // The cut is known by the manifest where the plan is gone.
    for plan in [&b"{\"format\""[..], b"garbage"] {
        place.write("out/plan.json", plan);
        place.run(&format!("{arguments} --split 0.5,0.25,0.25 --overwrite")).refused(2, "--resplit");
    }
}

#[test]
fn a_replacement_over_a_damaged_plan_leaves_no_old_shard_and_verify_names_strangers() {
    let place = Place::new();
    draw(&place, "in", 0..24);
    for plan in [Some(&b"{\"format\": 3, \"fing"[..]), Some(b"{\"format\": 1, \"fingerprint\": \"x\"}"), None]
    {
        place.run("prepare in out --encode png --samples-per-shard 3 --overwrite").done();
        match plan {
            Some(bytes) => place.write("out/plan.json", bytes),
            None => std::fs::remove_file(place.path("out/plan.json")).unwrap(),
        }
        place.run("prepare in out --encode png --samples-per-shard 7 --overwrite").done();
        let manifest: Value = serde_json::from_slice(&place.files("out")["manifest.json"]).unwrap();
        let listed: BTreeSet<String> = (manifest["shards"].as_array().unwrap().iter())
            .map(|shard| shard["key"].as_str().unwrap().to_string())
            .collect();
        let standing = place.files("out").into_keys().filter(|name| name.starts_with("data/"));
        assert_eq!(standing.collect::<BTreeSet<_>>(), listed);
    }
    let plan = place.files("out")["plan.json"].clone();
    place.run("prepare in other --encode raw").done();
    place.write("out/plan.json", &place.files("other")["plan.json"]);
    place.run("verify out").refused(4, "plan.json: of another dataset");
    place.write("out/plan.json", &plan);
    let shard = place.files("out").into_iter().find(|(name, _)| name.starts_with("data/")).unwrap().1;
    let stranger = "data/train-00007-of-00099.parquet";
    place.write(&format!("out/{stranger}"), &shard);
    place.run("verify out").refused(4, &format!("{stranger}: not listed"));
    let arguments = "prepare in out --encode png --samples-per-shard 7";
    place.run(arguments).refused(2, stranger);
    place.run(&format!("{arguments} --overwrite")).done();
    place.run("verify out").done();
}

#[test]
fn a_plan_that_was_never_committed_gives_way_and_keeps_shards_whose_inputs_did_not_change() {
    let place = Place::new();
    draw(&place, "in", 0..40);
    let broken = place.files("in").into_keys().nth(11).unwrap();
    let whole = place.files("in")[&broken].clone();
    place.write(&format!("in/{broken}"), b"no image");
    let arguments = "prepare in out --encode png --samples-per-shard 5 --split none --threads 1 --json";
    place.run(&format!("{arguments} --max-rejects 0.0001")).refused(3, "--max-rejects");
    assert!(!place.path("out/manifest.json").exists());
    assert!(killed_at(&place, &format!("{arguments} --max-rejects 1"), "prepare: before the rejects"));
    let before = place.files("out").into_keys().filter(|name| name.starts_with("data/")).count();
    place.write(&format!("in/{broken}"), &whole);
    let done = place.run(arguments).done().json();
    let reused = done["shards_reused"].as_u64().unwrap();
    assert_eq!(done["rejected"], 0);
    assert_eq!(reused, before.saturating_sub(1) as u64, "all but the one with the broken image");
    place.run(&arguments.replace(" out ", " fresh ")).done();
    assert!(place.files("out") == place.files("fresh"));
}

#[test]
fn a_file_changed_in_place_at_the_same_size_is_made_again_and_no_other() {
    let place = Place::new();
    let image = |value: u8| [&b"P6 4 4 255\n"[..], &[value; 48]].concat();
    for index in 0..12u8 {
        place.write(&format!("in/{}/{index}.ppm", ["a", "b"][usize::from(index) % 2]), &image(index));
    }
    let options = "--encode png --size original --split none --samples-per-shard 3";
    let done = place.run(&format!("prepare in old {options} --json")).done().json();
    assert_eq!(done["shards"], 4);
    // A new file takes its place, so that its version is another one whatever the clock says.
    place.write("new.ppm", &image(200));
    std::fs::rename(place.path("new.ppm"), place.path("in/a/4.ppm")).unwrap();
    place.run(&format!("prepare in fresh {options}")).done();
    for (number, point) in
        ["prepare: after the old manifest", "prepare: after the plan", "never"].into_iter().enumerate()
    {
        let out = format!("out{number}");
        copy(&place, "old", &out);
        let refused = place.run(&format!("prepare in {out} {options}"));
        refused.refused(2, "holds another dataset: files of the source have changed; ");
        let arguments = format!("prepare in {out} {options} --overwrite --json");
        assert_eq!(killed_at(&place, &arguments, point), point != "never");
        let again = place.run(&format!("prepare in {out} {options} --json")).done().json();
        if point != "never" {
            assert_eq!(again["shards_reused"], 3, "{point}");
        }
        assert!(place.files(&out) == place.files("fresh"), "{point}: other bytes");
    }
}

#[test]
fn a_foreign_manifest_in_an_image_folder_is_no_dataset_of_ours() {
    let place = Place::new();
    draw(&place, "in", 0..12);
    for bytes in [&br#"{"name": "app", "icons": []}"#[..], b"not even JSON", b"[]"] {
        place.write("in/manifest.json", bytes);
        place.run("inspect in").done();
        place.run("plan train in --size 16 --out run").done();
        place.run("verify in").refused(2, "no manifest.json");
        // And in a destination it is somebody's file.
        place.write("out/manifest.json", bytes);
        for overwrite in ["", "--overwrite"] {
            place.run(&format!("prepare in out --encode png {overwrite}")).refused(2, "not of this program");
            assert_eq!(place.files("out")["manifest.json"], bytes);
        }
    }
}

#[test]
fn overwrite_deletes_only_what_is_ours_and_follows_no_link() {
    let place = Place::new();
    draw(&place, "in", 0..12);
    place.run("prepare in out --encode png").done();
    place.write("out/notes/thesis.txt", b"years of work");
    place.write("victim/secret.txt", b"somebody's");
    std::os::unix::fs::symlink("../victim", place.path("out/link")).unwrap();
    let plan = String::from_utf8(place.files("out")["plan.json"].clone()).unwrap();
    let mut lies = PlanRecord::parse(plan.as_bytes()).unwrap();
    let keys = ["notes/thesis.txt", "link/secret.txt", "../victim/secret.txt"].map(String::from);
    for key in keys.clone() {
        lies.shards.push(ShardPlan { key, fingerprint: String::new(), versions: String::new() });
    }
    // Whoever wants to lie can seal the lie.
    place.write("out/plan.json", &lies.to_bytes());
    let next = Replacement { format: FORMAT, plan: lies, delete: keys.to_vec() };
    place.write("out/plan.next.json", &next.to_bytes());
    place.run("prepare in out --encode raw --overwrite").done();
    place.write("out/plan.next.json", &next.to_bytes());
    std::fs::remove_file(place.path("out/manifest.json")).unwrap();
    place.run("prepare in out --encode raw").done();
    assert_eq!(place.files("out")["notes/thesis.txt"], b"years of work");
    assert_eq!(place.files("victim")["secret.txt"], b"somebody's");

    // A table of another program under a name of ours, and a link to one of ours, are refused before anything goes.
    let ours = place.files("out").into_iter().find(|(name, _)| name.starts_with("data/")).unwrap();
    place.write("victim/shard.parquet", &ours.1);
    let name = "out/data/train-00009-of-00010.parquet";
    std::os::unix::fs::symlink(place.path("victim/shard.parquet"), place.path(name)).unwrap();
    let before = place.files("out");
    place.run("prepare in out --encode png --overwrite").refused(2, "train-00009-of-00010.parquet");
    std::fs::remove_file(place.path(name)).unwrap();
    place.write("out/data/holiday.parquet", b"somebody's");
    place.run("prepare in out --encode png --overwrite").refused(2, "holiday.parquet");
    std::fs::remove_file(place.path("out/data/holiday.parquet")).unwrap();
    assert!(place.files("out").iter().all(|(name, bytes)| before.get(name) == Some(bytes)));

    std::fs::create_dir(place.path("linked")).unwrap();
    std::os::unix::fs::symlink("../victim", place.path("linked/data")).unwrap();
    place.run("prepare in linked --encode png").refused(2, "as a link");
    assert_eq!(place.files("victim").len(), 2, "nothing was written through the link");
}

#[test]
fn one_place_under_two_names_is_not_source_and_destination() {
    let place = Place::new();
    draw(&place, "d", 0..6);
    std::os::unix::fs::symlink("d", place.path("link")).unwrap();
    let before = place.files("d");
    for dest in ["d", "./d", "d/", "link", "link/a/..", &format!("file://{}", place.path("d").display())] {
        place.run(&format!("prepare d {dest}")).refused(2, "both");
    }
    // Its folders are classes: shards among them would be one more.
    for dest in ["d/shards", "./d/a/b", "link/shards"] {
        place.run(&format!("prepare d {dest}")).refused(2, "whose folders are classes");
    }
    place.run("train d --size 16 --out d/run").refused(2, "whose folders are classes");
    assert!(place.files("d") == before);
}

#[test]
fn the_demo_replaces_nothing_that_it_did_not_make() {
    let place = Place::new();
    place.write("mine/shards/data/train.parquet", b"somebody's");
    place.run("demo --out mine").refused(2, "no demo made");
    place.run("demo --out=~/mine").refused(2, "no demo made");
    place.run("demo --out=s3://bucket/mine").refused(2, "is none");
    assert_eq!(place.files("mine").len(), 1);
}
