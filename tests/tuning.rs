//! What a search promises: a best run file that trains to the same score, a journal that outlives the process, trials that fail
//! without ending it, and test images that it does not see.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use serde_json::Value;

use crate::evaluation::{QUICK, images};
use crate::fixture::{Place, Said};

fn place() -> Place {
    let place = Place::new();
    images(&place, 60);
    place
}

/// A journal without what differs from one time to the next.
fn journal(place: &Place, out: &str) -> Vec<Value> {
    let text = String::from_utf8(place.files(out)["journal.jsonl"].clone()).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &mut lines {
        line.as_object_mut().unwrap().remove("seconds");
    }
    lines
}

fn events<'a>(lines: &'a [Value], event: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["event"] == event).collect()
}

const SPACE: &str = "--space train.learning_rate=1e-4..1e-1,log --space train.optimizer=adamw,sgd --space train.momentum=0.5,0.9";

#[test]
fn the_best_run_file_trains_to_the_score_of_its_trial_and_no_trial_sees_the_test() {
    let place = place();
    let tune = format!("tune in --out tune {QUICK} {SPACE} --trials 5 --search random");
    let said = place.run(&tune).done();
    assert!(
        said.stdout.contains("best: trial") && said.stdout.contains("--config tune/best.toml"),
        "{}",
        said.stdout
    );
    let files = place.files("tune");
    let found: Value = serde_json::from_slice(&files["tune.json"]).unwrap();
    let trials = found["trials"].as_array().unwrap();
    assert_eq!((trials.len(), &found["ended_by"]), (5, &"trials".into()));
    let best = trials.iter().find(|trial| trial["trial"] == found["best"]).unwrap();
    assert!(trials.iter().all(|trial| trial["score"].as_f64() <= best["score"].as_f64()));
    // The momentum is a setting of sgd only.
    for trial in trials {
        let settings = &trial["settings"];
        assert_eq!(
            settings["train.optimizer"] == "sgd",
            settings.get("train.momentum").is_some(),
            "{settings}"
        );
    }
    let table = String::from_utf8(files["trials.csv"].clone()).unwrap();
    assert_eq!(table.lines().count(), 6);
    assert!(table.starts_with("trial,outcome,score,"), "{table}");
    let report = String::from_utf8(files["report.html"].clone()).unwrap();
    assert!(report.contains("train.learning_rate") && report.contains("--config tune/best.toml"));
    assert!(files.contains_key("best_so_far.svg") && files.contains_key("parallel.svg"));
    // The run file of the search makes the same search.
    place.run("tune --config tune/tune.toml --out again").done();
    let ended = |out: &str| -> Vec<Value> {
        let lines = journal(&place, out);
        events(&lines, "ended").into_iter().cloned().collect()
    };
    assert_eq!(ended("again"), ended("tune"));
    place.run("train --config tune/best.toml --out run").done();
    let metrics = String::from_utf8(place.files("run")["metrics.jsonl"].clone()).unwrap();
    let scores = metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let score = scores.map(|epoch| epoch["validation_accuracy"].as_f64().unwrap()).fold(0.0, f64::max);
    assert_eq!(Some(score), best["score"].as_f64());
    let tests: Value = serde_json::from_slice(&place.files("run")["test.json"]).unwrap();
    assert_eq!((&tests["openings"], &tests["sealed"]), (&0.into(), &true.into()));
}

#[test]
fn killed_at_any_point_a_search_goes_on_with_the_trials_of_an_undisturbed_one() {
    let place = place();
    let tune = |out: &str, more: &str| {
        format!(
            "tune in --out {out} {QUICK} --threads 1 --space train.learning_rate=1e-4..1e-1,log --trials 3 --search cma-es {more}"
        )
    };
    place.run(&tune("whole", "")).done();
    let whole = journal(&place, "whole");
    let points = [
        "after trial 1 begun",
        "after trial 2 epoch 1",
        "before trial 2 ended",
        "after trial 2 ended",
        "before trial 3 begun",
    ];
    for (index, point) in points.iter().enumerate() {
        let out = format!("killed{index}");
        let arguments = tune(&out, "");
        let mut command = place.command(&arguments.split_whitespace().collect::<Vec<_>>());
        let output = command.env("FOREBAY_KILL_AT", format!("tune: {point}")).output().unwrap();
        assert_eq!(output.status.signal(), Some(9), "{point}: {}", Said::of(output).stderr);
        place.run(&tune(&out, "")).refused(2, "holds a search already: --resume");
        place.run(&tune(&out, "--resume")).done();
        let resumed = journal(&place, &out);
        assert_eq!(events(&resumed, "ended"), events(&whole, "ended"), "{point}");
        let mut begun = events(&resumed, "begun");
        begun.dedup();
        assert_eq!(begun, events(&whole, "begun"), "{point}");
    }
    // What has ended goes on where more is asked for, with what a longer search would have tried.
    place.run(&tune("whole", "--resume").replace("--trials 3", "--trials 4")).done();
    assert_eq!(events(&journal(&place, "whole"), "ended").len(), 4);
    place.run(&tune("whole", "--resume --dropout 0.1")).refused(2, "other options of the training");
    let other = tune("whole", "--resume").replace("1e-1,log", "1e-2,log");
    place.run(&other).refused(2, "another space (train.learning_rate)");
    place.run(&tune("nowhere", "--resume")).refused(2, "leave --resume out");
    // A journal that somebody has changed.
    let text = String::from_utf8(place.files("whole")["journal.jsonl"].clone()).unwrap();
    let point = text.split("\"point\":").nth(1).and_then(|rest| rest.split(']').next()).unwrap();
    for other in ["[", "[7.5", "[0.5,0.5"] {
        place.write("whole/journal.jsonl", text.replacen(point, other, 1).as_bytes());
        place
            .run(&tune("whole", "--resume").replace("--trials 3", "--trials 5"))
            .refused(4, "line 2 of whole/journal.jsonl is of a trial that lies outside the space");
    }
}

#[test]
fn an_interrupted_search_leaves_what_it_found_and_goes_on() {
    let place = place();
    let tune = format!("tune in --out tune {QUICK} --space train.learning_rate=1e-4..1e-1,log");
    let arguments = format!("{tune} --trials 100000");
    let mut child = place.command(&arguments.split_whitespace().collect::<Vec<_>>()).spawn().unwrap();
    let ended = || {
        let text = std::fs::read_to_string(place.path("tune/journal.jsonl")).unwrap_or_default();
        text.lines().filter(|line| line.contains("\"ended\"")).count()
    };
    while ended() < 2 {
        assert!(child.try_wait().unwrap().is_none(), "the search goes on");
        std::thread::yield_now();
    }
    let signalled = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signalled.success());
    let said = Said::of(child.wait_with_output().unwrap()).refused(130, "interrupted by Ctrl-C");
    assert!(said.stderr.contains("--resume"), "{}", said.stderr);
    let n = ended();
    let table = String::from_utf8(place.files("tune")["trials.csv"].clone()).unwrap();
    assert_eq!(table.lines().count(), n + 1);
    assert!(place.files("tune").contains_key("best.toml"));
    place.run(&format!("{tune} --trials {} --resume", n + 1)).done();
    assert_eq!(ended(), n + 1);
}

#[test]
fn a_grid_is_tried_whole_and_a_trial_that_cannot_be_trained_is_a_result() {
    let place = place();
    let space = "--space train.freeze=none,nowhere --space train.label_smoothing=0.0,0.1";
    let said = place.run(&format!("tune in --out tune {QUICK} {space} --search grid --json")).done().json();
    let trials = said["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 4);
    for trial in trials {
        let fails = trial["settings"]["train.freeze"] == "nowhere";
        assert_eq!(trial["outcome"], if fails { "failed" } else { "done" }, "{trial}");
        let reason = trial.get("reason").and_then(Value::as_str);
        assert_eq!(reason.is_some_and(|reason| reason.contains("nowhere")), fails, "{trial}");
    }
    // So is one whose network comes to give no numbers.
    let rates = "--epochs 4 --schedule constant --optimizer sgd --momentum 0.99 --space train.learning_rate=100.0,0.001";
    let tune =
        format!("tune in --out rates --size 16 --batch-size 8 --doctor off {rates} --search grid --json");
    let said = place.run(&tune).done().json();
    let trials = said["trials"].as_array().unwrap();
    assert_eq!((&trials[0]["outcome"], &trials[1]["outcome"]), (&"failed".into(), &"done".into()));
    assert!(trials[0]["reason"].as_str().unwrap().contains("gives no numbers"), "{}", trials[0]);
    let only = "--space train.freeze=nowhere,elsewhere";
    place
        .run(&format!("tune in --out none {QUICK} {only} --search grid"))
        .refused(3, "none of 2 trials came to its end with a score");
}

#[test]
fn what_contradicts_what_else_a_trial_has_is_left_out_of_it() {
    let place = place();
    let space = "--space train.loss=ce,balanced-softmax --space train.class_weights=none,inverse \
                 --space balance.mode=none,over";
    let said = place
        .run(
            &format!("tune in --out tune {QUICK} --epochs 1 {space} --search grid --json")
                .replace("--epochs 2 ", ""),
        )
        .done()
        .json();
    let trials = said["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 8);
    for trial in trials {
        assert_eq!(trial["outcome"], "done", "{trial}");
        let has = |key: &str, value: &str| trial["settings"][key] == value;
        let corrections = [
            has("train.loss", "balanced-softmax"),
            has("train.class_weights", "inverse"),
            has("balance.mode", "over"),
        ];
        assert!(corrections.iter().filter(|corrects| **corrects).count() <= 1, "{trial}");
    }
}

#[test]
fn pruned_trials_end_at_a_rung_and_folds_are_scored_by_their_mean() {
    let place = place();
    let rates = "--space train.learning_rate=1e-6..1e-1,log";
    let said = place.run(&format!(
        "tune in --out tune --size 16 --epochs 3 --batch-size 8 --doctor off {rates} --trials 8 --prune halving --search random --json"
    ));
    let said = said.done().json();
    let trials = said["trials"].as_array().unwrap();
    let pruned: Vec<&Value> = trials.iter().filter(|trial| trial["outcome"] == "pruned").collect();
    assert!(!pruned.is_empty() && pruned.iter().all(|trial| trial["epochs"] == 1), "{trials:?}");
    assert_eq!(trials[0]["outcome"], "done", "the first has nothing to be compared with");
    let folded =
        place.run(&format!("tune in --out folded {QUICK} {rates} --trials 1 --folds 2 --json")).done().json();
    let score = folded["trials"][0]["score"].as_f64().unwrap();
    let best = String::from_utf8(place.files("folded")["best.toml"].clone()).unwrap();
    assert!(best.contains("--folds 2 trains again") && !best.contains("fold = 1"), "{best}");
    place.run("train --config folded/best.toml --out one").done();
    assert!(place.files("one").contains_key("model.safetensors"), "it trains a model");
    place.run("train --config folded/best.toml --folds 2 --out folds").done();
    let folds: Value = serde_json::from_slice(&place.files("folds")["folds.json"]).unwrap();
    assert_eq!(folds["accuracy"]["mean"].as_f64(), Some(score));
}

#[test]
fn what_is_wrong_with_a_search_is_said_before_anything_is_trained() {
    let place = place();
    let tune = format!("tune in --out tune {QUICK}");
    for (more, line) in [
        ("--space train.droput=0.1,0.2", "did you mean train.dropout?"),
        ("--space train.dropout=0.5..0.1", "is not below"),
        ("--space train.dropout", "KEY=LOW..HIGH"),
        ("--budget soon", "is not a time such as 90s"),
        ("--split none", "no validation images"),
        ("--prune halving --folds 3", "leave out one of them"),
        ("--prune halving --space train.epochs=2,4", "leave out one of them"),
        ("--search annealing", "random, grid, tpe, gp, cma-es, de"),
        ("--lr-gamma 0.5", "train.lr_gamma"),
    ] {
        place.run(&format!("{tune} {more}")).refused(2, line);
        assert!(!place.path("tune").exists(), "{more}");
    }
    place.run(&format!("tune in {QUICK}")).refused(2, "tune needs --out DIR");
    place.write("full/notes.txt", b"mine");
    place.run(&format!("tune in --out full {QUICK}")).refused(2, "holds notes.txt");
}
