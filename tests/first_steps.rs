//! What people try first: the wrong folder, data that is elsewhere, shards that are not finished; and what a first look
//! at their data shows.

use std::fs;

use crate::fixture::Place;

/// Every command that takes a SOURCE, with `SOURCE` where it stands.
const TAKE_A_SOURCE: [&str; 8] = [
    "inspect SOURCE",
    "prepare SOURCE out",
    "plan prepare SOURCE out",
    "train SOURCE --out run",
    "plan train SOURCE",
    "train SOURCE --find-lr",
    "bench SOURCE",
    "verify SOURCE",
];

/// Images of 8 x 8 pixels, so many in each folder.
fn write(place: &Place, folders: &[(&str, u64)]) {
    for (folder, n) in folders {
        (0..*n).for_each(|index| drop(place.write_png(&format!("{folder}/{index}.png"), 8, 8, index)));
    }
}

/// What is wrong with a place is one plain line and exit code 2, whatever the command.
#[test]
fn every_command_says_alike_what_is_wrong_with_a_source() {
    let place = Place::new();
    place.write("README.md", b"text");
    fs::create_dir_all(place.path("empty")).unwrap();
    place.write("notes/a/x.txt", b"text");
    let cases = [
        ("README.md", "README.md is a file: give the folder that holds one folder per class"),
        ("missing", "cannot read missing: there is no such folder"),
        ("missing/deeper", "cannot read missing/deeper: there is no such folder"),
        ("README.md/deeper", "README.md/deeper is a file"),
        ("empty", "empty"),
        ("notes", "notes"),
        (
            "hf:cifar10",
            "SOURCE hf:cifar10: a dataset on the Hugging Face hub is written hf://datasets/OWNER/NAME",
        ),
        ("hf://b/x", "hf://b/x: expected hf://datasets/OWNER/NAME"),
        ("gs://bucket/images", "gs://bucket/images: no credentials: set GOOGLE_APPLICATION_CREDENTIALS or"),
        (
            "az://container/images",
            "az://container/images: the storage account is not named: set AZURE_STORAGE_ACC",
        ),
        ("gcs://b/x", "SOURCE gcs://b/x: a place in Google Cloud Storage is written gs://BUCKET/PREFIX"),
        ("abfss://b@me/x", "SOURCE abfss://me/x: a place in Azure storage is written az://CONTAINER/PREFIX"),
        ("https://host/a.zip", "SOURCE https://host/a.zip: what is packed is not read from the web"),
    ];
    for (source, says) in cases {
        for command in TAKE_A_SOURCE {
            let said = place.run(&command.replace("SOURCE", source)).refused(2, says);
            assert_eq!(said.stderr.lines().count(), 1, "{command} on {source}: {}", said.stderr);
            assert!(said.stdout.is_empty(), "{command} on {source}: {}", said.stdout);
        }
    }
    assert!(!place.path("out").exists() && !place.path("run").exists());
}

#[test]
fn a_place_that_nothing_can_be_written_to_is_named() {
    let place = Place::new();
    write(&place, &[("in/a", 4), ("in/b", 4)]);
    place.run("prepare in hf:me/shards").refused(2, "nothing is written to the Hugging Face hub yet");
    place
        .run("prepare in gs://bucket/shards")
        .refused(2, "gs://bucket/shards: no credentials: set GOOGLE_APPLI");
    place
        .run("train in --out https://host/run")
        .refused(2, "--out RUN https://host/run: nothing can be written");
    place.run("train in --out az://container/run").refused(2, "AZURE_STORAGE_ACCOUNT_NAME");
    place.run("export run --output gs://b/m.onnx").refused(2, "there is no such run folder");
    place.write("w.safetensors", b"");
    place.run("export w.safetensors --output gs://b/m.onnx").refused(2, "set GOOGLE_APPLICATION_CREDENTIALS");
}

#[test]
fn a_weights_file_that_is_elsewhere_is_named_with_how_to_get_it() {
    let place = Place::new();
    write(&place, &[("in/a", 4), ("in/b", 4)]);
    let says = "https://host/resnet18.pth: a file from the web is not read yet: download it (curl -LO https://host/res";
    let said = place.run("plan train in --weights https://me:secret@host/resnet18.pth?token=secret");
    let said = said.refused(2, says);
    assert!(!said.stderr.contains("secret"), "{}", said.stderr);
    place.run("export https://host/resnet18.pth --output m.onnx").refused(2, says);
}

#[test]
fn shards_that_are_not_finished_or_prepared_already_are_named_with_what_to_do() {
    let place = Place::new();
    write(&place, &[("in/a", 6), ("in/b", 6)]);
    place.run("prepare in shards").done();
    for command in ["prepare", "plan prepare"] {
        let said = place.run(&format!("{command} shards out"));
        said.refused(2, "SOURCE shards is shards already: train on them (forebay train shards --out RUN)");
    }
    fs::remove_file(place.path("shards/manifest.json")).unwrap();
    for command in TAKE_A_SOURCE {
        let said = place.run(&command.replace("SOURCE", "shards"));
        let said = said
            .refused(2, "shards holds shards that prepare has not finished: run the same forebay prepare");
        assert_eq!(said.stderr.lines().count(), 1, "{command}: {}", said.stderr);
    }
    place.run("prepare in shards").done();
    place.run("plan train shards").done();
}

#[test]
fn the_root_of_a_repository_is_refused_where_its_dataset_is_meant() {
    let place = Place::new();
    let digits = ["0", "1", "2"].map(|digit| format!("repo/Dataset/{digit}"));
    let mut folders: Vec<(&str, u64)> = digits.iter().map(|folder| (folder.as_str(), 8)).collect();
    folders.push(("repo/Examples", 1));
    write(&place, &folders);
    let says =
        "Dataset holds 3 folders of images, and nearly all images are in them: did you mean repo/Dataset?";
    for command in
        TAKE_A_SOURCE.iter().filter(|command| !command.contains("inspect") && !command.contains("verify"))
    {
        place.run(&command.replace("SOURCE", "repo")).refused(2, says);
    }
    let said = place.run("inspect repo").done();
    assert!(said.stderr.contains(says), "{}", said.stderr);
    place.run("prepare repo/Dataset out").done();
    // Folders within classes belong to them, as ever.
    write(&place, &[("pets/cat/2019", 4), ("pets/cat/2020", 4), ("pets/dog/2019", 4), ("pets/dog/2020", 4)]);
    let said = place.run("inspect pets").done();
    assert!(
        said.stdout.contains("16 samples in 2 classes") && !said.stderr.contains("did you mean"),
        "{}",
        said.stderr
    );
    place.run("prepare pets pet-shards").done();
}

#[test]
fn inspect_shows_each_split_its_classes_and_the_tails_of_the_sizes_in_60_columns() {
    let place = Place::new();
    let folders =
        [("train/bag", 60), ("train/shoes", 60), ("test/bag", 50), ("test/shoes", 10), ("val/bag", 1)];
    for (folder, n) in folders {
        (0..n).for_each(|index| {
            drop(place.write_png(&format!("in/{folder}/{index}.png"), 8 + index as u32 / 50 * 92, 8, 1))
        });
    }
    let said = place.run("inspect in").done();
    assert!(said.stdout.contains("  class      train validation       test\n"), "{}", said.stdout);
    assert!(said.stdout.contains("  bag           60          1         50\n"), "{}", said.stdout);
    assert!(said.stdout.contains("width    min 8, p5 8, median 8, p95 100, max 100 px"), "{}", said.stdout);
    let says = "class proportions differ between test and train: bag is 83 % of test and 50 % of train";
    assert!(said.stderr.contains(says), "{}", said.stderr);
    assert!(said.stdout.lines().skip(1).all(|line| line.chars().count() <= 60), "{}", said.stdout);
    let found = place.run("inspect in --json").done().json();
    assert_eq!(found["classes_by_split"]["test"], serde_json::json!([50, 10]));
    assert_eq!(found["width"], serde_json::json!({"min": 8, "p5": 8, "median": 8, "p95": 100, "max": 100}));
    assert!(found["warnings"].to_string().contains("class proportions"), "{found}");
    place.run("prepare in shards").done();
    let said = place.run("inspect shards").done();
    assert!(said.stdout.contains("  shoes         60          0         10\n"), "{}", said.stdout);
}

#[test]
fn a_plan_shows_what_a_balance_makes_of_the_classes() {
    let place = Place::new();
    write(&place, &[("in/ant", 12), ("in/bee", 3)]);
    for command in
        ["prepare in out --split none", "train in --split none", "train in --split none --batch-size 4"]
    {
        let said = place.run(&format!("plan {command} --balance over")).done();
        assert!(said.stdout.contains("  balance      over, training split:\n"), "{}", said.stdout);
        let row = said.stdout.lines().find(|line| line.trim_start().starts_with("bee ")).expect("a row");
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["bee", "3", "12"], "{}", said.stdout);
        let said = place.run(&format!("plan {command}")).done();
        assert!(!said.stdout.contains("balance"), "{}", said.stdout);
    }
}

#[test]
fn a_plan_says_which_networks_open_in_forebay_and_onnx_readers_only() {
    let place = Place::new();
    write(&place, &[("in/ant", 8), ("in/bee", 8)]);
    for (network, has_no) in [
        ("--arch resnet20", "have no resnet20"),
        ("--arch cifar_resnet18", "have no cifar_resnet18"),
        ("--arch small", "have no small"),
        ("--arch resnet18 --head-width 8", "have no resnet18 with a hidden layer in its head"),
    ] {
        let said = place.run(&format!("plan train in {network}")).done();
        let line = said.stdout.lines().find(|line| line.starts_with("  opens in ")).expect("it is said");
        assert!(
            line.contains("Forebay, and by forebay export in ONNX readers, only") && line.ends_with(has_no),
            "{line}"
        );
    }
    assert!(!place.run("plan train in --arch resnet18").done().stdout.contains("opens in"));
    place.run("train in --arch resnet20 --epochs 1 --split none --out run").done();
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(place.path("run/config.json")).unwrap()).unwrap();
    assert_eq!(config["architecture"], "forebay_resnet20");
    assert_eq!(config["forebay_opens_in"], serde_json::json!(["forebay", "onnx"]));
    assert!(config.get("architectures").is_none() && config.get("model_type").is_none(), "{config}");
}
