//! `bench`: what it measures adds up, what it is compared with is the same work, and what makes no sense is refused.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fixture::{Place, Said};

const BENCH: &str = "bench images --size 32 --batch-size 8 --max-rejects 100 --epochs 1";

fn number(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number {path} in {value}"))
}

/// Lines that say what is wrong, beside warnings about the images.
fn errors(said: &Said) -> usize {
    said.stderr.lines().filter(|line| !line.starts_with("warning: ")).count()
}

#[test]
fn a_bench_tells_every_stage_both_ways_and_what_bounds_it_of_a_folder_and_of_shards() {
    let place = Place::new();
    place.draw();
    place.run("prepare images shards --size 32 --fit crop --max-rejects 10").done();
    for (source, reads) in [("images", &["read"][..]), ("shards", &["read", "unpack", "shuffle"])] {
        let options = "--size 32 --epochs 2 --repetitions 3 --augment light --max-rejects 100 --threads 2";
        let done = place.run(&format!("bench {source} {options} --json")).done().json();
        assert_eq!(done["repetitions"].as_array().unwrap().len(), 3, "{done}");
        let rates =
            done["repetitions"].as_array().unwrap().iter().map(|one| number(one, "/images_per_second"));
        let mut rates: Vec<f64> = rates.collect();
        rates.sort_by(f64::total_cmp);
        assert_eq!(number(&done, "/images_per_second"), rates[1]);
        let ends = [
            number(&done, "/figures/images_per_second/min"),
            number(&done, "/figures/images_per_second/max"),
        ];
        assert_eq!(ends, [rates[0], rates[2]]);
        assert_eq!(
            number(&done, "/images"),
            6.0 * (number(&done, "/workload/images") - number(&done, "/rejected"))
        );
        for key in ["cpu_seconds_per_1000", "first_batch_seconds", "peak_memory_bytes", "threads"] {
            assert!(number(&done, &format!("/{key}")) > 0.0, "{key} of {done}");
        }
        for key in ["cpu", "system", "target", "forebay"] {
            assert!(!done["machine"][key].as_str().unwrap().is_empty(), "{key} of {done}");
        }
        let stages = done["stages"].as_array().unwrap();
        assert!(stages.iter().any(|stage| stage["name"] == done["bottleneck"]), "{done}");
        for stage in stages.iter().filter(|stage| stage["slot_seconds"].as_f64().unwrap() > 0.0) {
            let shares = ["busy", "contended", "blocked", "starved"].map(|key| stage[key].as_f64().unwrap());
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{stage}");
        }
        let (alone, others): (Vec<&Value>, Vec<&Value>) =
            done["stage_times"].as_array().unwrap().iter().partition(|time| time["ms_alone"].is_object());
        let names = |times: Vec<&Value>| -> Vec<String> {
            times.iter().map(|time| time["name"].as_str().unwrap().to_string()).collect()
        };
        assert_eq!(names(alone), ["decode", "augment", "resize", "collate"], "{done}");
        assert_eq!(names(others), reads, "{done}");
        for key in ["sweep", "replay", "compare"] {
            assert!(done.get(key).is_none(), "nobody asked for {key}");
        }
    }
    let said =
        place.run("bench images --size 32 --seconds 0.05 --repetitions 5 --max-rejects 100").done().stdout;
    for words in [
        " images/s (",
        ", 5 times 0.",
        "CPU-seconds per 1000 images (",
        "ms/image     alone",
        "cores, forebay",
    ] {
        assert!(said.contains(words), "{words} is not in {said}");
    }
}

#[test]
fn a_bench_is_compared_with_an_earlier_one_of_the_same_work_only() {
    let place = Place::new();
    place.draw();
    let before = place.run(&format!("{BENCH} --json")).done().stdout;
    place.write("before.json", before.as_bytes());
    let said = place.run(&format!("{BENCH} --compare before.json --threads 1")).done().stdout;
    let beside = said.split("beside before.json:\n").nth(1).unwrap_or_else(|| panic!("{said}"));
    let lines: Vec<&str> = beside.lines().collect();
    for (line, unit) in lines.iter().zip(["images/s", "CPU-seconds per 1000", "first batch"]) {
        assert!(line.trim().starts_with(unit) && line.contains("beyond the spread of ±"), "{line}");
    }
    let done = place.run(&format!("{BENCH} --compare before.json --json")).done().json();
    assert!(number(&done, "/compare/images_per_second/before") > 0.0);
    // Images of another folder with the same names and sizes are the same work; others are not.
    std::fs::rename(place.path("images"), place.path("moved")).unwrap();
    place.run(&BENCH.replace("images ", "moved --compare before.json ")).done();
    let refuse = |from: &str, to: &str, words: &str| {
        let line = BENCH.replace("images ", "moved --compare before.json ").replace(from, to);
        let said = place.run(&line).refused(2, words);
        assert_eq!(errors(&said), 1, "{}", said.stderr);
    };
    for (from, to, words) in [
        ("--batch-size 8", "--batch-size 9", "is of other work: batches of 8 there, 9 here; measure"),
        ("--size 32", "--size 16", "size 32x32 px there, 16x16 px here"),
        ("--epochs 1", "--seconds 1", "whole epochs there, seconds from the first batch here"),
        ("--epochs 1", "--epochs 1 --augment light", "augment none there, "),
    ] {
        refuse(from, to, words);
    }
    for index in 0..20 {
        place.write_png(&format!("moved/star/other-{index}.png"), 9, 9, index);
    }
    refuse("--epochs 1", "--epochs 1", "images of an epoch: ");
}

#[test]
fn what_a_bench_cannot_measure_or_compare_is_one_line() {
    let place = Place::new();
    place.draw();
    place.write("text.json", b"fast\n");
    place.write("empty.json", b"");
    place.write("other.json", b"{\"images_per_second\": 700.0}\n");
    let few = place.run(&format!("{BENCH} --repetitions 2 --json")).done().stdout;
    place.write("few.json", few.as_bytes());
    for (options, words) in [
        ("--compare none.json", "cannot read --compare none.json: there is no such file"),
        ("--compare text.json", "text.json is no result of forebay bench SOURCE --json"),
        ("--compare empty.json", "empty.json is no result of forebay bench SOURCE --json"),
        ("--compare other.json", "is no result of forebay bench SOURCE --json: missing field"),
        ("--compare images", "images"),
        ("--compare few.json", "has 2 repetitions, and 5 or more say how far they lie apart"),
        ("--compare few.json --repetitions 3", "bench.repetitions: --compare needs 5 or more"),
        ("--repetitions 0", "0 is not a whole number from 1 to 1000"),
        ("--seconds 2", "bench.seconds: --epochs says how long is measured each time"),
        ("--sweep cores", "\"cores\" is not one of threads"),
        ("--replay resnet19", "\"resnet19\" is not one of small, "),
        ("--replay inception_v3", "which needs 75 or more"),
    ] {
        let said = place.run(&format!("{BENCH} {options}")).refused(2, words);
        assert_eq!(errors(&said), 1, "{options}: {}", said.stderr);
        assert_eq!(said.stdout, "", "{options}");
    }
    place.run(&BENCH.replace("--epochs 1", "--seconds 0")).refused(2, "0 is not a number from 0.01 to 3600");
    place.run(&format!("{BENCH} --repetitions 1")).done();
}

#[test]
fn threads_are_swept_and_batches_replayed_in_turn() {
    let place = Place::new();
    place.draw();
    let options = "--threads 3 --repetitions 2 --sweep threads --replay resnet20";
    let done = place.run(&format!("{BENCH} {options} --json")).done().json();
    let threads: Vec<u64> =
        done["sweep"].as_array().unwrap().iter().map(|point| point["threads"].as_u64().unwrap()).collect();
    assert_eq!(threads, [1, 2, 3]);
    assert_eq!(done["sweep"][2]["images_per_second"], done["figures"]["images_per_second"]);
    assert_eq!(done["replay"]["network"], "resnet20");
    let (trained, together) = (
        number(&done, "/replay/images_per_second/median"),
        number(&done, "/replay/together_images_per_second"),
    );
    assert!(trained > 0.0 && together > 0.0 && together <= trained, "{done}");
    let said = place.run(&format!("{BENCH} {options}")).done().stdout;
    for words in [" 1 thread ", " 3 threads", "resnet20 on the same 4 batches again and again trains on "] {
        assert!(said.contains(words), "{words} is not in {said}");
    }
}

#[test]
fn a_bench_that_is_stopped_ends_at_once_and_tells_nothing_as_a_result() {
    let place = Place::new();
    place.draw();
    for options in ["--seconds 60", "--seconds 60 --replay resnet20"] {
        let line = format!("bench images --size 32 --max-rejects 100 {options}");
        let mut child =
            place.command(&line.split(' ').collect::<Vec<_>>()).stdin(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(700));
        assert!(child.try_wait().unwrap().is_none(), "it measures");
        let asked = Instant::now();
        let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        let said = Said::of(child.wait_with_output().unwrap()).refused(130, "interrupted by Ctrl-C");
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        assert_eq!(said.stdout, "");
    }
}
