//! What a person types, and what is said to them: help, other programs' words, levels, JSON.

use crate::fixture::Place;

fn place() -> Place {
    let place = Place::new();
    for index in 0..20u64 {
        place.write_png(&format!("in/{}/{index}.png", ["a", "b"][index as usize % 2]), 16, 16, index);
    }
    place
}

#[test]
fn short_help_is_a_screen_and_long_help_has_every_option_under_a_heading() {
    let place = Place::new();
    for command in ["prepare", "train", "bench", "export", "inspect", "forward", "bench model", "plan train"]
    {
        let (short, long) =
            (place.run(&format!("{command} -h")).done(), place.run(&format!("{command} --help")).done());
        let lines = short.stdout.lines().count();
        assert!(lines <= 80, "{command} -h has {lines} lines\n{}", short.stdout);
        assert!(long.stdout.lines().count() > lines, "{command}");
        assert!(!long.stdout.contains("\nOptions:\n  -h"), "{}", long.stdout);
        assert!(long.stdout.contains("Exit codes: 0 done"), "{}", long.stdout);
    }
    let long = place.run("train --help").done().stdout;
    let headings = [
        "Data:",
        "Images:",
        "Network:",
        "Training:",
        "Optimizer and schedule:",
        "Loss:",
        "Output:",
        "Machine:",
    ];
    let places: Vec<Option<usize>> =
        headings.iter().map(|heading| long.find(&format!("\n{heading}\n"))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} in\n{long}");
}

#[test]
fn the_words_of_other_programs_are_understood_or_answered() {
    let place = place();
    let ours =
        "plan train in --size 32 --batch-size 4 --threads 1 --epochs 9 --early-stop 3 --arch resnet20 --json";
    let theirs = "plan train in --img-size 32 -b 4 --workers 1 -e 9 --patience 3 --model resnet20 --json";
    assert_eq!(place.run(ours).done().json()["identity"], place.run(theirs).done().json()["identity"]);
    place.run("prepare in one -s 16 -j 1").done();
    place.run("train one -o run -e 1 -b 8").done();
    place.run("export run --out model.onnx").done();
    for (arguments, answer) in [
        ("train in --pretrained", "forebay train has no option --pretrained; did you mean --weights FILE"),
        ("train in --batchsize 3", "forebay train has no option --batchsize; did you mean --batch-size?"),
        ("prepare in out --crop", "forebay prepare has no option --crop; did you mean --fit crop?"),
        (
            "verify out --size 3",
            "forebay verify has no option --size; `forebay verify --help` lists what there is",
        ),
        ("bench model resnet18 --weights x", "forebay bench model has no option --weights"),
        ("trian in", "there is no command trian; did you mean `forebay train`?"),
        ("verify one two", "forebay verify takes no further argument: two"),
        ("train in --arch ResNet18", "\"ResNet18\" is not a choice; did you mean resnet18?"),
        ("train in --optimizer adma", "did you mean adam?"),
        ("prepare in out --fit Crop", "did you mean crop?"),
    ] {
        let said = place.run(arguments).refused(2, answer);
        assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
    }
}

#[test]
fn a_program_reads_every_note_and_warning_and_why_a_run_ended() {
    let place = place();
    place.write("in/c/notes.txt", b"no image");
    let said = place.run("inspect in --json").done().json();
    let warnings = said["warnings"].as_array().unwrap();
    assert!(!warnings.is_empty(), "{said}");
    let train = "train in --size 16 --batch-size 8 --epochs 1 --split none --freeze backbone --out";
    let done = place.run(&format!("{train} run --json")).done().json();
    let is_said = |list: &str, words: &str| {
        done[list].as_array().unwrap().iter().any(|line| line.as_str().unwrap().contains(words))
    };
    assert!(is_said("warnings", "no validation images"), "{done}");
    assert!(is_said("notes", "trains a head on random features"), "{done}");
    for (arguments, code, words) in [
        ("train in --json --out run", 2, "holds a run already"),
        ("train in --json --out new --batch-size no", 2, "is not a whole number"),
        ("train in --json --nothing", 2, "has no option --nothing"),
        ("verify in --json", 2, "no manifest.json"),
    ] {
        let said = place.run(arguments).refused(code, words);
        let object = said.json();
        assert_eq!(object["exit_code"], code, "{object}");
        assert!(object["error"][0].as_str().unwrap().contains(words), "{object}");
    }
}

#[test]
fn quiet_keeps_warnings_and_results_and_verbose_says_the_plan() {
    let place = place();
    let train =
        "train in --size 16 --batch-size 8 --epochs 1 --split none --freeze backbone --overwrite --out run";
    let normal = place.run(train).done();
    let quiet = place.run(&format!("{train} -q")).done();
    let verbose = place.run(&format!("{train} -v")).done();
    assert!(normal.stderr.contains("note: ") && normal.stderr.contains("warning: no validation images"));
    assert!(!quiet.stderr.contains("note: ") && quiet.stderr.contains("warning: no validation images"));
    assert!(quiet.stdout.contains("accuracy"), "{}", quiet.stdout);
    assert!(verbose.stderr.contains("stages       (slots + queue"), "{}", verbose.stderr);
    assert!(!normal.stderr.contains("stages       (slots + queue"), "{}", normal.stderr);
    place.run(&format!("{train} -q -v")).refused(2, "cannot be used with");
}

#[test]
fn every_network_is_listed_with_what_it_is_for() {
    let place = Place::new();
    let all = place.run("models").done().stdout;
    for (network, words) in
        [("resnet18", "11.7 M"), ("inception_v3", "299 px"), ("resnet20", "32 px"), ("small", "any size")]
    {
        let row = all.lines().find(|line| line.split_whitespace().next() == Some(network)).unwrap();
        assert!(row.contains(words), "{row}");
    }
    let one = place.run("models resnet18").done().stdout;
    for words in ["conv1", "layer4", "hf:timm/resnet18.a1_in1k", "resnet18-f37072fd.pth", "bsd-3-clause"] {
        assert!(one.contains(words), "{words} in {one}");
    }
    let json = place.run("models --json").done().json();
    assert_eq!(json["networks"].as_array().unwrap().len(), forebay_train::models::NAMES.len());
    place.run("models resnet19").refused(2, "is not one of");
}
