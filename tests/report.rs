//! A run is not ended by whoever stops to listen to it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::fixture::{Place, Said};

fn place() -> Place {
    let place = Place::new();
    for index in 0..24u64 {
        place.write_png(&format!("in/{}/{index}.png", ["a", "b"][index as usize % 2]), 16, 16, index);
    }
    place
}

const TRAIN: &str = "train in --size 16 --batch-size 8 --epochs 4 --balance over --out run";

fn command(place: &Place, arguments: &str) -> Command {
    let mut command = place.command(&arguments.split_whitespace().collect::<Vec<_>>());
    command.env("FOREBAY_LOG", "debug");
    command
}

/// The run went on to its end.
#[track_caller]
fn assert_is_whole(place: &Place) {
    let metrics = std::fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 4);
    for name in ["model.safetensors", "summary.json", "report.html"] {
        assert!(place.path(&format!("run/{name}")).exists(), "{name}");
    }
}

#[test]
fn a_run_whose_reader_has_gone_goes_on_to_its_end() {
    let place = place();
    let mut child = command(&place, TRAIN).spawn().unwrap();
    // As `2>&1 | head -1`: one line is read, and then both pipes are closed.
    drop(child.stderr.take());
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("epoch   1/4"), "{first}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_is_whole(&place);
}

#[test]
fn a_result_that_cannot_be_written_is_an_error_once_the_run_is_done() {
    let place = place();
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let output = command(&place, TRAIN).stdout(full()).output().unwrap();
    Said::of(output).refused(1, "forebay: cannot write the result to stdout: No space left on device");
    assert_is_whole(&place);
    for arguments in [
        "inspect in",
        "inspect in --json",
        "bench in --size 16 --epochs 1",
        "plan train in",
        "models",
        "completions bash",
        "man train",
    ] {
        let output = command(&place, arguments).stdout(full()).output().unwrap();
        Said::of(output).refused(1, "cannot write the result to stdout");
    }
    // What is said beside the result is missed by nobody.
    let output = command(&place, &format!("{TRAIN} --overwrite")).stderr(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_is_whole(&place);
}

#[test]
fn no_command_minds_a_closed_stdout_or_stderr() {
    let place = place();
    for closed in ["2>&-", ">&-", ">&- 2>&-"] {
        for arguments in [
            "inspect in",
            "prepare in shards --size 16 --fit crop --balance over --overwrite",
            "verify shards",
            "bench in --size 16 --epochs 1",
            &format!("{TRAIN} --overwrite"),
            "export run --output model.onnx --overwrite",
            "models",
            "completions zsh",
            "man",
        ] {
            let mut shell = Command::new("sh");
            let line = format!("exec {} {arguments} {closed}", env!("CARGO_BIN_EXE_forebay"));
            shell.args(["-c", &line]).current_dir(place.path("")).stdin(Stdio::null());
            let output = shell.env("HOME", place.path("")).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{arguments} {closed}: {said}");
        }
    }
    // An error has its exit code though nobody is told.
    let mut child = command(&place, "train nothing --out x").spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(2));
}

#[test]
fn names_from_outside_command_no_terminal() {
    let place = place();
    place.write("in/a\u{1b}[2Jforged/x.png", b"no image");
    let said = place.run("inspect in").done();
    assert!(!said.stdout.contains('\u{1b}') && said.stdout.contains("forged"), "{}", said.stdout);
}
