//! A run owns its folder, loses nothing in it, and goes on exactly from its checkpoint alone.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use crate::fixture::{Place, Said};

/// 24 images of 16 pixels in two classes.
fn place() -> Place {
    let place = Place::new();
    for index in 0..24u64 {
        place.write_png(&format!("in/{}/{index}.png", ["a", "b"][index as usize % 2]), 16, 16, index);
    }
    place
}

const TRAIN: &str = "train in --size 16 --batch-size 4";

fn bytes(place: &Place, name: &str) -> Vec<u8> {
    std::fs::read(place.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn text(place: &Place, name: &str) -> String {
    String::from_utf8(bytes(place, name)).unwrap()
}

/// Starts a run that goes on until it is ended, and waits until an epoch of it is done.
fn start(place: &Place, arguments: &str) -> std::process::Child {
    start_by(place, &[], arguments)
}

/// As [`start`], by a program that starts another one.
fn start_by(place: &Place, by: &[&str], arguments: &str) -> std::process::Child {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    std::fs::remove_file(place.path("run/metrics.jsonl")).ok();
    let mut command = place.command(&arguments);
    if let [program, first @ ..] = by {
        let mut other = std::process::Command::new(program);
        other.args(first).arg(command.get_program()).args(command.get_args()).current_dir(place.path(""));
        other.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        other.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command = other;
    }
    let mut child = command.spawn().unwrap();
    while !place.path("run/metrics.jsonl").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the run goes on");
        std::thread::yield_now();
    }
    child
}

fn signal(child: std::process::Child, name: &str) -> Said {
    std::process::Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    Said::of(child.wait_with_output().unwrap())
}

#[test]
fn no_file_of_a_folder_is_replaced_without_being_asked() {
    let place = place();
    let train = format!("{TRAIN} --epochs 1 --out run");
    for name in
        ["model.safetensors", "config.json", "chain.json", "report.html", "events.out.tfevents.1.forebay.0"]
    {
        place.write(&format!("run/{name}"), b"of a user");
        place.run(&train).refused(2, &format!("run holds {name}, which a run would replace"));
        assert_eq!(bytes(&place, &format!("run/{name}")), b"of a user");
        assert_eq!(place.files("run").len(), 1, "nothing else is written");
        std::fs::remove_file(place.path(&format!("run/{name}"))).unwrap();
    }
    place.write("run/notes.txt", b"of a user");
    place.run(&train).done();
    place.run(&train).refused(2, "run holds a run already: --resume goes on with it");
    place.run(&format!("{train} --overwrite")).done();
    assert_eq!(bytes(&place, "run/notes.txt"), b"of a user");
}

#[test]
fn no_run_is_written_into_a_dataset_or_among_images() {
    let place = place();
    place.run("prepare in shards --size 16 --fit crop").done();
    let before = (place.files("in"), place.files("shards"));
    let train = "train shards --epochs 1 --batch-size 8";
    for out in ["shards", "shards/data", "shards/data/run"] {
        place.run(&format!("{train} --overwrite --out {out}")).refused(2, "is part of the dataset of shards");
        let find = format!("train shards --batch-size 8 --find-lr --overwrite --out {out}");
        place.run(&find).refused(2, "is part of the dataset of shards");
    }
    let frozen = "--out run --freeze backbone --feature-cache";
    place.run(&format!("{train} {frozen} shards/data")).refused(2, "--feature-cache shards/data is part of");
    place.run(&format!("{TRAIN} {frozen} in/a")).refused(2, "--feature-cache in/a lies in in");
    place.run(&format!("{TRAIN} --out in/run")).refused(2, "--out in/run lies in in");
    place.run(&format!("{TRAIN} --find-lr --out in/run")).refused(2, "--out in/run lies in in");
    place.run(&format!("{train} --out run")).done();
    for output in ["shards/data/x.onnx", "shards/manifest.json"] {
        place.run(&format!("export run --overwrite --output {output}")).refused(2, "part of the dataset");
    }
    assert!((place.files("in"), place.files("shards")) == before);
    for dest in ["shards/data", "shards/data/other"] {
        place.run(&format!("prepare in {dest}")).refused(2, "is part of the dataset of shards");
    }
    place.write("file", b"");
    place.run("prepare in file").refused(2, "DEST file is a file, and not a folder");
    place.run(&format!("{train} --out file")).refused(2, "--out file is a file, and not a folder");
    // Beside the shards of a dataset there is room.
    place.run("export run --output shards/model.onnx").done();
    place.run("verify shards").done();
}

#[test]
fn a_run_is_not_replaced_by_one_that_begins_with_its_weights() {
    let place = place();
    place.run(&format!("{TRAIN} --epochs 1 --out run")).done();
    let before = place.files("run");
    std::os::unix::fs::symlink("run/model.safetensors", place.path("link.safetensors")).unwrap();
    for weights in ["run/model.safetensors", "run/last.safetensors", "link.safetensors"] {
        place
            .run(&format!("{TRAIN} --epochs 1 --out run --overwrite --weights {weights}"))
            .refused(2, "which --overwrite deletes: copy it to another place");
    }
    assert!(place.files("run") == before);
}

#[test]
fn a_resume_goes_on_with_no_model_of_another_run() {
    let place = place();
    place.run(&format!("{TRAIN} --epochs 1 --out run")).done();
    place.run(&format!("{TRAIN} --epochs 1 --seed 1 --out other")).done();
    let (last, own) = (bytes(&place, "run/last.safetensors"), bytes(&place, "run/model.safetensors"));
    let resume = format!("{TRAIN} --epochs 2 --out run --resume");
    place.write("run/model.safetensors", &bytes(&place, "other/model.safetensors"));
    place.run(&resume).refused(4, "run/model.safetensors is of another run; put it back");
    std::fs::remove_file(place.path("run/model.safetensors")).unwrap();
    place.run(&resume).refused(4, "run/model.safetensors is missing; put it back");
    assert!(bytes(&place, "run/last.safetensors") == last, "nothing was trained");
    place.write("run/model.safetensors", &own);
    // What is not known is not guessed.
    std::fs::remove_file(place.path("run/config.toml")).unwrap();
    place.run(&format!("{resume} --lr 0.5")).refused(2, "(in what, its config.toml does not say)");
    place.run(&resume).done();
}

#[test]
fn one_process_at_a_time_owns_a_folder() {
    let place = place();
    let train = format!("{TRAIN} --out run");
    let first = start(&place, &format!("{train} --epochs 100000"));
    for more in ["--epochs 1", "--epochs 100000 --resume", "--epochs 1 --overwrite"] {
        place.run(&format!("{train} {more}")).refused(2, "another process writes run");
    }
    assert_eq!(signal(first, "-KILL").code, 137);
    place.run(&format!("{train} --epochs 1 --overwrite")).done();
}

#[test]
fn what_a_killed_run_was_writing_is_removed_at_the_next_start() {
    let place = place();
    let train = format!("{TRAIN} --epochs 1 --out run");
    place.run(&train).done();
    for name in
        ["last.safetensors#1", "model.safetensors#12", "metrics.jsonl#2", "notes#1", "last.safetensors#x"]
    {
        place.write(&format!("run/{name}"), b"half");
    }
    place.run(&format!("{train} --resume")).done();
    let left: Vec<String> = place.files("run").into_keys().filter(|name| name.contains('#')).collect();
    assert_eq!(left, ["last.safetensors#x", "notes#1"], "what is not ours stays");
}

#[test]
fn a_resumed_run_needs_nothing_but_its_checkpoint() {
    let place = place();
    // Nothing ever gets better at a learning rate of 0: the plateau lowers it, and parts thaw.
    let train = format!(
        "{TRAIN} --lr 0 --warmup 0 --weight-decay 0 --schedule plateau --lr-patience 0 --freeze backbone --unfreeze \
         stall:layer3,stall:layer2 --unfreeze-patience 2 --early-stop 4 --feature-cache off"
    );
    place.run(&format!("{train} --epochs 12 --out whole")).done();
    place.run(&format!("{train} --epochs 4 --out part")).done();
    for lost in ["metrics.jsonl", "steps.jsonl", "chain.json", "config.toml", "labels.txt"] {
        std::fs::remove_file(place.path(&format!("part/{lost}"))).unwrap();
    }
    place.run(&format!("{train} --epochs 12 --out part --resume")).done();
    for name in ["last.safetensors", "model.safetensors"] {
        assert!(bytes(&place, &format!("whole/{name}")) == bytes(&place, &format!("part/{name}")), "{name}");
    }
    let last = |run: &str| {
        let text = text(&place, &format!("{run}/metrics.jsonl"));
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        (last["epoch"].clone(), last["learning_rate"].clone(), last["epochs_without_improvement"].clone())
    };
    assert_eq!(last("whole"), last("part"));
    assert!(place.path("part/chain.json").exists());
}

#[test]
fn what_decides_a_thaw_cannot_be_changed_by_a_resume() {
    let place = place();
    let train =
        format!("{TRAIN} --epochs 2 --out run --freeze backbone --unfreeze stall:layer3 --feature-cache off");
    place.run(&format!("{train} --early-stop 9")).done();
    place.run(&format!("{train} --early-stop 9 --resume --min-delta 0.5")).refused(2, "(train.min_delta: ");
    place.run(&format!("{train} --resume --early-stop 8")).done();
}

#[test]
fn a_resume_keeps_what_the_run_began_with_and_writes_what_it_changed() {
    let place = place();
    for (donor, seed) in [("one", 1), ("two", 2)] {
        place.run(&format!("{TRAIN} --epochs 1 --out {donor} --seed {seed}")).done();
    }
    std::fs::copy(place.path("one/model.safetensors"), place.path("w.safetensors")).unwrap();
    let train = format!("{TRAIN} --out run --weights w.safetensors --recipe plain --force");
    place.run(&format!("{train} --epochs 1")).done();
    let chain = text(&place, "run/chain.json");
    assert!(text(&place, "run/config.toml").contains("epochs = 1\n"));

    std::fs::copy(place.path("two/model.safetensors"), place.path("w.safetensors")).unwrap();
    let said = place.run(&format!("{train} --epochs 2 --resume"));
    let said =
        said.refused(2, "w.safetensors is not the file that the run of run/last.safetensors began with");
    assert_eq!(
        said.stderr.lines().filter(|line| line.starts_with("forebay: ")).count(),
        1,
        "{}",
        said.stderr
    );
    assert!(text(&place, "run/config.toml").contains("epochs = 1\n"), "nothing is written");

    std::fs::copy(place.path("one/model.safetensors"), place.path("w.safetensors")).unwrap();
    place.run(&format!("{train} --epochs 2 --resume")).done();
    assert!(text(&place, "run/config.toml").contains("epochs = 2\n"));
    assert_eq!(text(&place, "run/chain.json"), chain);
}

#[test]
fn a_run_without_anything_to_resume_is_refused_and_makes_no_folder() {
    let place = place();
    place
        .run(&format!("{TRAIN} --out run --resume"))
        .refused(2, "run holds no last.safetensors to resume from");
    assert!(!place.path("run").exists());
}

#[test]
fn killed_at_any_point_of_checkpointing_a_run_ends_with_the_weights_of_an_undisturbed_one() {
    let place = place();
    let train = |run: &str| format!("{TRAIN} --epochs 2 --checkpoint-every 2 --threads 1 --out {run}");
    place.run(&train("whole")).done();
    let mut points = vec!["train: after the first checkpoint".to_string()];
    for moment in ["epoch 0 batch 2", "epoch 1 batch 0", "epoch 1 batch 1", "epoch 2 batch 0"] {
        points.extend(["before", "after"].map(|when| format!("train: {when} the checkpoint, {moment}")));
    }
    for epoch in [1, 2] {
        points.extend(["before", "after"].map(|when| format!("train: {when} the metrics, epoch {epoch}")));
    }
    points.extend(
        ["before", "inside", "after"].map(|when| format!("train: {when} the model, epoch 1 batch 0")),
    );
    for (index, point) in points.iter().enumerate() {
        let run = format!("killed{index}");
        let arguments = train(&run);
        let mut command = place.command(&arguments.split_whitespace().collect::<Vec<_>>());
        let output = command.env("FOREBAY_KILL_AT", point).output().unwrap();
        assert_eq!(output.status.signal(), Some(9), "{point}: {}", String::from_utf8_lossy(&output.stderr));
        // As a store leaves it that is killed inside a put.
        let half = bytes(&place, "whole/last.safetensors");
        place.write(&format!("{run}/last.safetensors#1"), &half[..half.len() / 2]);
        place.run(&format!("{} --resume", train(&run))).done();
        for name in ["last.safetensors", "model.safetensors"] {
            let (whole, killed) =
                (bytes(&place, &format!("whole/{name}")), bytes(&place, &format!("{run}/{name}")));
            assert!(whole == killed, "{point}: {name}");
        }
        assert!(!place.path(&format!("{run}/last.safetensors#1")).exists(), "{point}");
        assert_eq!(text(&place, &format!("{run}/metrics.jsonl")).lines().count(), 2, "{point}");
    }
}

#[test]
fn every_signal_leaves_a_checkpoint_and_has_its_exit_code() {
    let place = place();
    let train = format!("{TRAIN} --epochs 100000 --out run");
    let mut more = "";
    // Whoever runs the tests may ignore SIGHUP, which the run would inherit: bit 0 is signal 1.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let by: &[&str] = if ignored & 1 == 1 { &["env", "--default-signal=HUP"] } else { &[] };
    for (name, code, words) in [("-HUP", 129, "SIGHUP"), ("-TERM", 143, "SIGTERM"), ("-INT", 130, "Ctrl-C")] {
        let child = start_by(&place, by, &format!("{train} {more}"));
        signal(child, name).refused(code, &format!("interrupted by {words}"));
        more = "--resume";
    }
}

#[test]
fn a_run_under_nohup_goes_on_when_the_terminal_goes() {
    let place = place();
    let nohup = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"];
    let mut child = start_by(&place, &nohup, &format!("{TRAIN} --epochs 100000 --out run"));
    std::process::Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap();
    let epochs = || text(&place, "run/metrics.jsonl").lines().count();
    let before = epochs();
    while epochs() < before + 2 {
        assert!(child.try_wait().unwrap().is_none(), "the run goes on");
        std::thread::yield_now();
    }
    signal(child, "-TERM").refused(143, "interrupted by SIGTERM");
}

#[test]
fn a_saved_run_file_replaces_and_resumes_nothing_by_itself() {
    let place = place();
    place.run(&format!("{TRAIN} --epochs 1 --out run --overwrite")).done();
    let saved = "train --config run/config.toml";
    place.run(saved).refused(2, "run holds a run already");
    place.run(&format!("{saved} --epochs 2 --resume")).done();
    place.run(saved).refused(2, "run holds a run already");
    place.run(&format!("{saved} --resume --overwrite")).refused(2, "leave one out");
    place.run(&format!("{saved} --resume")).done();
}
