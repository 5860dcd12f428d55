//! What is said of a model: that `eval` says what training said, that folds hold out every image once, that sealed test
//! images stay sealed, and that several runs answer as one.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::fixture::Place;

/// `n` images of three classes, 16 pixels a side: noise with a left half of another level in each class.
pub(crate) fn images(place: &Place, n: u64) {
    for index in 0..n {
        let class = index as usize % 3;
        let name = format!("in/{}/{index:03}.png", ["dark", "light", "mid"][class]);
        let mut image = place.write_png(&name, 16, 16, index);
        for (x, _, pixel) in image.enumerate_pixels_mut() {
            if x < 8 {
                *pixel = image::Rgb([[20, 230, 120][class]; 3]);
            }
        }
        image.save(place.path(&name)).unwrap();
    }
}

pub(crate) const QUICK: &str = "--size 16 --epochs 2 --batch-size 8 --doctor off";

fn number(value: &Value, keys: &[&str]) -> f64 {
    let value = keys.iter().fold(value, |value, key| &value[key]);
    value.as_f64().unwrap_or_else(|| panic!("{keys:?} is {value}"))
}

#[test]
fn eval_says_of_a_run_what_its_training_said_and_counts_each_look_at_the_test() {
    let place = Place::new();
    images(&place, 120);
    let trained = place.run(&format!("train in --out run {QUICK} --json")).done().json();
    assert_eq!((&trained["split"], &trained["test_openings"]), (&"test".into(), &1.into()));
    for openings in 2..=3 {
        let said = place.run("eval run --json").done().json();
        assert_eq!(said["evaluation"]["confusion"], trained["confusion"]);
        assert_eq!(number(&said, &["evaluation", "accuracy", "value"]), number(&trained, &["accuracy"]));
        assert_eq!(number(&said, &["evaluation", "temperature"]), number(&trained, &["temperature"]));
        assert_eq!(said["test_openings"], openings);
    }
    // What training kept is what is found again, also of the validation images.
    let kept: Value = serde_json::from_slice(&place.files("run")["evaluation.json"]).unwrap();
    let said = place.run("eval run --split validation --json").done().json();
    assert_eq!(said["evaluation"], kept["validation"]);
    assert_eq!(said["test_openings"], Value::Null);
    // A page whose text alone is more than it may take is written, and said to be.
    let said = place.run("eval run --split validation --out page --report-bytes 1KiB").done();
    let line = "without any image, more than the 1.0 KiB of --report-bytes";
    assert_eq!(said.stderr.matches(line).count(), 1, "{}", said.stderr);
    assert!(!String::from_utf8_lossy(&place.files("page")["report.html"]).contains("data:image/jpeg"));
    // Another folder of images has no split: all of it is scored, by the names of its classes.
    std::fs::rename(place.path("in/light"), place.path("light")).unwrap();
    std::fs::create_dir_all(place.path("other/light")).unwrap();
    for (index, entry) in std::fs::read_dir(place.path("light")).unwrap().enumerate() {
        std::fs::rename(entry.unwrap().path(), place.path(&format!("other/light/{index}.png"))).unwrap();
    }
    std::fs::rename(place.path("in/dark"), place.path("other/unheard-of")).unwrap();
    let said = place.run("eval run other --json").done();
    let found = said.json();
    assert_eq!((&found["split"], number(&found, &["evaluation", "samples"])), (&"all".into(), 40.0));
    assert_eq!(found["unknown"], 40);
    assert!(said.stderr.contains("unheard-of"), "{}", said.stderr);
    std::fs::remove_dir_all(place.path("other/light")).unwrap();
    std::fs::create_dir_all(place.path("other/else")).unwrap();
    place.write_png("other/else/x.png", 16, 16, 1);
    place.run("eval run other").refused(2, "no class in common");
}

#[test]
fn folds_hold_out_every_image_once_and_leave_the_test_sealed() {
    let place = Place::new();
    images(&place, 96);
    let done = place.run(&format!("train in --out cv --folds 3 {QUICK} --json")).done().json();
    assert_eq!(done["scores"].as_array().unwrap().len(), 3);
    let images: u64 =
        done["scores"].as_array().unwrap().iter().map(|fold| fold["images"].as_u64().unwrap()).sum();
    assert_eq!(number(&done, &["evaluation", "samples"]) as u64, images);
    // Neither more nor fewer are for the test than in a training without folds.
    let plain = place.run("plan train in --size 16 --json").done().json();
    let planned = |split: &str| plain["images"][split].as_u64().unwrap();
    assert_eq!(images, planned("train") + planned("validation"));
    assert!(place.files("cv").contains_key("fold-2/model.safetensors"));
    // The report is of what all folds held out, and has its pictures.
    let page = String::from_utf8_lossy(&place.files("cv")["report.html"]).into_owned();
    for part in [
        &*format!("{images} held-out images"),
        "Fold 2: ",
        "data:image/jpeg;base64,",
        "forebay train in --",
        "--folds 3",
    ] {
        assert!(page.contains(part), "the report lacks {part}");
    }
    assert!(place.files("cv").contains_key("fixes.csv"));
    // By default what a fold held out is what its model is scored on.
    let fold = place.run("eval cv/fold-2 --json").done().json();
    assert_eq!(fold["split"], "validation");
    assert_eq!(
        number(&fold, &["evaluation", "accuracy", "value"]),
        number(&done["scores"][1], &["accuracy"])
    );
    place.run("eval cv/fold-1 --split test").refused(2, "sealed");
    place.run("eval cv/fold-1/model.safetensors --split test").refused(2, "sealed");
    let opened = place.run("eval cv/fold-1 --final --json").done().json();
    assert_eq!(
        (&opened["split"], number(&opened, &["evaluation", "samples"]) as u64, &opened["test_openings"]),
        (&"test".into(), planned("test"), &1.into())
    );
    // One fold alone is the same run as among the others.
    place.run(&format!("train in --out alone --folds 3 --fold 2 --seal-test {QUICK}")).done();
    assert!(place.files("cv")["fold-2/model.safetensors"] == place.files("alone")["model.safetensors"]);
    // A finished cross-validation that is resumed trains nothing and says the same.
    let again = place.run(&format!("train in --out cv --folds 3 {QUICK} --resume --json")).done().json();
    assert_eq!(again, done);
    place.run(&format!("train in --out few --folds 40 {QUICK}")).refused(2, "fewer images than that");
    place.run(&format!("train in --out few --folds 3 --fold 4 {QUICK}")).refused(2, "4 of 3 folds");
    place.run(&format!("train in --out few --fold 1 {QUICK}")).refused(2, "--folds");
}

#[test]
fn folds_of_shards_are_those_of_the_folder_and_take_their_features_from_one_cache() {
    let place = Place::new();
    images(&place, 90);
    place.run("prepare in shards --size original --encode png").done();
    place.run(&format!("train in --out base {QUICK}")).done();
    let train = |source: &str, out: &str| {
        let said = place.run(&format!(
            "train {source} --out {out} --folds 3 --weights base/model.safetensors --freeze backbone --feature-cache cache \
             {QUICK} --json"
        ));
        said.done()
    };
    let (shards, folder) = (train("shards", "a"), train("in", "b"));
    let confusion = |said: &crate::fixture::Said| said.json()["evaluation"]["confusion"].clone();
    assert_eq!(confusion(&shards), confusion(&folder));
    // The frozen part sees the images once, in the first fold.
    assert_eq!(shards.stderr.matches("the frozen part saw").count(), 1, "{}", shards.stderr);
    assert_eq!(shards.stderr.matches("an earlier run computed").count(), 2, "{}", shards.stderr);
    // With augmented views, held-out images are scored as they are.
    let said = place.run(&format!(
        "train in --out c --folds 2 --weights base/model.safetensors --freeze backbone --augment light --feature-views 2 \
         --feature-cache cache {QUICK} --json"
    ));
    let evaluated = place.run("eval c/fold-1 --json").done().json();
    assert_eq!(
        number(&said.done().json()["scores"][0], &["accuracy"]),
        number(&evaluated, &["evaluation", "accuracy", "value"])
    );
}

#[test]
fn an_ensemble_answers_as_its_members_vote_and_refuses_what_does_not_fit() {
    let place = Place::new();
    images(&place, 90);
    for seed in 1..=3 {
        place.run(&format!("train in --out run{seed} --seed {seed} {QUICK}")).done();
    }
    let done = place.run("ensemble run1 run2 run3 --out both --json").done().json();
    let members = done["members"].as_array().unwrap();
    assert_eq!(members.len(), 3);
    for (seed, member) in (1..).zip(members) {
        let alone = place.run(&format!("eval run{seed} --split validation --json")).done().json();
        assert_eq!(member["accuracy"], alone["evaluation"]["accuracy"], "member {seed}");
    }
    let whole = place.run("eval both --split validation --json").done().json();
    assert_eq!(whole["evaluation"]["confusion"], done["validation"]["confusion"]);
    let gap = number(&whole, &["evaluation", "log_loss", "value"])
        - number(&done, &["validation", "log_loss", "value"]);
    assert!(gap.abs() < 1e-5, "{gap}");
    for more in ["--vote hard", "--weights fitted"] {
        let said =
            place.run(&format!("ensemble run1 run2 run3 --out other {more} --overwrite --json")).done();
        let whole = place.run("eval other --split validation --json").done().json();
        assert_eq!(whole["evaluation"]["confusion"], said.json()["validation"]["confusion"], "{more}");
    }
    let seen = place.run("eval both --split train").done().stderr;
    assert!(seen.contains("training has seen some of these images"), "{seen}");
    place.run("ensemble run1 run2 --out both").refused(2, "already");
    place.run("ensemble run1 --out alone").refused(2, "train --snapshots), and run1 has none");
    place.run("ensemble run1/model.safetensors --out alone").refused(2, "two RUNs");
    // What cannot be made replaces nothing, and only an ensemble is replaced.
    let before = place.files("both");
    place.run("ensemble run1 nowhere --out both --overwrite").refused(2, "no such run folder");
    assert!(place.files("both") == before, "the ensemble that was there");
    place.run("eval run1 --split validation --out judged").done();
    place.run("ensemble run1 run2 --out judged --overwrite").refused(2, "of no ensemble");
    place.run("ensemble run1 run2 --out run1 --overwrite").refused(2, "of no ensemble");
    place.run("ensemble run1 run1 --out twice").refused(2, "named twice");
    place.run("eval both/member-1.safetensors --split validation").done();
    let file = String::from_utf8(place.files("both")["ensemble.json"].clone()).unwrap();
    let cold = file.replacen("\"temperature\": ", "\"temperature\": -", 1);
    place.write("both/ensemble.json", cold.as_bytes());
    place.run("eval both --split validation").refused(4, "is no temperature");
    place.run("ensemble run1 run2 --out in").refused(2, "of no ensemble");
    place.run("ensemble run1 run2 --out in/both").refused(2, "whose folders are classes");
    place.run(&format!("tune in --out in/tune {QUICK} --trials 1")).refused(2, "whose folders are classes");
    // One that prepares images differently, and one of other classes.
    place.run("train in --out large --size 24 --epochs 1 --batch-size 8 --doctor off").done();
    place.run("ensemble run1 large --out x").refused(2, "size 24, and not 16");
    std::fs::rename(place.path("in/mid"), place.path("in/middle")).unwrap();
    place.run(&format!("train in --out renamed {QUICK}")).done();
    place.run("ensemble run1 renamed --out x").refused(2, "middle");
    assert!(!place.path("x").exists());
}

#[test]
fn a_soup_is_one_network_that_is_no_worse_than_its_best_member() {
    let place = Place::new();
    images(&place, 90);
    place.run(&format!("train in --out base {QUICK}")).done();
    for seed in 1..=3 {
        let run = format!(
            "train in --out run{seed} --seed {seed} --weights base/model.safetensors --recipe plain {QUICK}"
        );
        place.run(&run).done();
    }
    let done = place.run("ensemble run1 run2 run3 --soup --out soup --json").done().json();
    let alone =
        done["members"].as_array().unwrap().iter().map(|member| number(member, &["accuracy", "value"]));
    let best = alone.fold(0.0, f64::max);
    assert!(number(&done, &["validation", "accuracy", "value"]) >= best);
    let whole = place.run("eval soup --split validation --json").done().json();
    assert_eq!(whole["evaluation"], done["validation"]);
    let names: BTreeSet<String> = place.files("soup").into_keys().collect();
    assert!(!names.contains("ensemble.json") && names.contains("config.json"), "{names:?}");
    place.run("export soup --output soup.onnx").done();
    place.run("ensemble run1 run2 --soup --vote hard --out x").refused(2, "--soup makes one network");
}

#[test]
fn the_snapshots_of_a_run_are_its_weights_at_the_end_of_each_cycle_and_vote() {
    let place = Place::new();
    images(&place, 90);
    let run = "train in --size 16 --batch-size 8 --doctor off --seal-test";
    place.run(&format!("{run} --out cycles --epochs 4 --snapshots 2")).done();
    let kept = place.files("cycles");
    let names: Vec<&String> = kept.keys().filter(|name| name.starts_with("snapshot")).collect();
    assert_eq!(names, ["snapshot-1.safetensors", "snapshot-2.safetensors"]);
    // The learning rate is as high after the first cycle as in it.
    let rates: Vec<f64> = String::from_utf8_lossy(&kept["metrics.jsonl"])
        .lines()
        .map(|line| number(&serde_json::from_str(line).unwrap(), &["learning_rate"]))
        .collect();
    assert!(rates[1] < rates[2] && rates[3] < rates[2], "{rates:?}");
    let done = place.run("ensemble cycles --out vote --json").done().json();
    for (index, member) in done["members"].as_array().unwrap().iter().enumerate() {
        let file = format!("cycles/snapshot-{}.safetensors", index + 1);
        assert_eq!(member["from"], *file);
        let alone = place.run(&format!("eval {file} --split validation --json")).done().json();
        assert_eq!(member["accuracy"], alone["evaluation"]["accuracy"], "{file}");
        place.run(&format!("eval {file} --split test")).refused(2, "sealed");
    }
    let last = place.run("eval cycles/snapshot-2.safetensors --split validation --json").done().json();
    let metrics = String::from_utf8_lossy(&kept["metrics.jsonl"]).into_owned();
    let last_epoch: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    assert_eq!(
        number(&last, &["evaluation", "accuracy", "value"]),
        number(&last_epoch, &["validation_accuracy"])
    );
    place.run("ensemble cycles --soup --out soup").done();
    place.run("export vote --output vote.onnx").done();
    // Another run in its place has none.
    place.run(&format!("{run} --out cycles --epochs 2 --overwrite")).done();
    assert!(!place.files("cycles").keys().any(|name| name.starts_with("snapshot")));
    place.run(&format!("{run} --out no --epochs 4 --snapshots 3")).refused(2, "give --epochs 6");
    place.run(&format!("{run} --out no --epochs 4 --snapshots 2 --schedule step")).refused(2, "cosines");
}

#[test]
fn a_model_is_scored_as_it_predicts_with_another_prior() {
    let place = Place::new();
    images(&place, 60);
    place.run(&format!("train in --out run {QUICK}")).done();
    let of = |more: &str| {
        place.run(&format!("eval run in --split validation {more} --json")).done().json()["evaluation"]
            .clone()
    };
    let plain = of("");
    let certain = of("--prior dark=0.9999998,light=0.0000001,mid=0.0000001");
    let of_dark =
        certain["confusion"].as_array().unwrap().iter().map(|row| number(&row[0], &[])).sum::<f64>();
    assert_eq!(of_dark, number(&plain, &["samples"]), "all are called dark");
    // What predict says of an image is what it is scored by.
    place.run("eval run --split validation --prior dark=0.7 --out scored").done();
    let table = place.files("scored")["predictions.parquet"].clone();
    let table = forebay::predictions::Predictions::from_parquet("scored", table.into()).unwrap();
    let scored = table.scored(None, "scored").unwrap();
    let id = scored.ids()[0].to_string();
    let said = place.run(&format!("predict run in/{id} --prior dark=0.7 --format jsonl")).done().json();
    let top = &said["top"][0];
    let class = scored.classes().iter().position(|class| top["class"] == **class).unwrap();
    let gap = number(top, &["probability"]) - scored.probabilities(0, 1.0)[class];
    assert!(gap.abs() < 1e-5, "{gap}");
    let compared = place.run("compare scored run --split validation").done().stderr;
    assert!(compared.contains("scored was scored with --prior dark=0.7"), "{compared}");
    let page = String::from_utf8_lossy(&place.files("scored")["report.html"]).into_owned();
    for part in ["forebay eval run --", "--split validation", "--prior", "dark=0.7", "--out scored"] {
        assert!(page.contains(part), "the command lacks {part}");
    }
    place.run("eval run --prior cow=1").refused(2, "the model has no class cow");
}

#[test]
fn sealed_test_images_stay_so_however_the_run_and_its_images_are_named() {
    let place = Place::new();
    images(&place, 90);
    let train = format!("train in --out run {QUICK}");
    place.run(&format!("{train} --seal-test")).done();
    let absolute = place.path("in").to_string_lossy().into_owned();
    place.run_with(&["eval", "run", &absolute, "--split", "all"]).refused(2, "sealed");
    // The same images in another place are the same, and others in the same place are not.
    place.run("eval run in --split validation").done();
    crate::bucket::copy(&place.path("in"), &place.path("moved"));
    let said = place.run("eval run moved --split validation --json").done();
    assert!(said.stderr.contains("holds the images of the run in another place"), "{}", said.stderr);
    place.run("eval run moved --split test").refused(2, "sealed");
    place.write_png("moved/dark/more.png", 16, 16, 999);
    let said = place.run("eval run moved").done();
    assert!(said.stderr.contains("does not hold the images of the run"), "{}", said.stderr);
    // A run that is resumed without the seal keeps it.
    place.run(&format!("{train} --resume")).done();
    place.run("eval run --split test").refused(2, "sealed");
    // A copy without the count is sealed by its run file; a run file that cannot be read hides nothing.
    place.write("copy/model.safetensors", &place.files("run")["model.safetensors"]);
    place.write(
        "copy/config.toml",
        &[&place.files("run")["config.toml"][..], b"\n[train2]\nx = 1\n"].concat(),
    );
    place.run("eval copy in").refused(4, "train2");
    place.write("copy/config.toml", &place.files("run")["config.toml"]);
    place.run("train in --out open --size 16 --epochs 2 --batch-size 8 --doctor off").done();
    // What is done and resumed is not looked at again.
    place.run("train in --out open --size 16 --epochs 2 --batch-size 8 --doctor off --resume").done();
    let tests: Value = serde_json::from_slice(&place.files("open")["test.json"]).unwrap();
    assert_eq!(tests["openings"], 1);
    // One fold alone is sealed too.
    place.run(&format!("train in --out fold --folds 3 --fold 1 {QUICK}")).done();
    place.run("eval fold --split test").refused(2, "sealed");
}

#[test]
fn folds_take_no_folder_of_another_kind_and_a_persons_marks_stay() {
    let place = Place::new();
    images(&place, 60);
    place.run(&format!("train in --out run {QUICK}")).done();
    let before = place.files("run");
    place.run(&format!("train in --out run --folds 2 {QUICK}")).refused(2, "folder of one run");
    assert!(place.files("run") == before);
    place.write("mine/fixes.csv", b"mine");
    place.run(&format!("train in --out mine --folds 2 {QUICK}")).refused(2, "of no cross-validation");
    // One that was killed between its report and its scores goes on; one with fewer folds leaves none of another behind.
    place.run(&format!("train in --out cv --folds 3 {QUICK}")).done();
    let scores = place.files("cv")["folds.json"].clone();
    std::fs::remove_file(place.path("cv/folds.json")).unwrap();
    place.run(&format!("train in --out cv --folds 3 {QUICK}")).refused(2, "--resume goes on");
    place.run(&format!("train in --out cv --folds 3 {QUICK} --resume")).done();
    assert!(place.files("cv")["folds.json"] == scores);
    place.run(&format!("train in --out cv --folds 2 {QUICK} --overwrite")).refused(2, "with more folds");
    place.write("eval/roc.svg", b"mine");
    place.run("eval run --split validation --out eval").refused(2, "roc.svg already");
    place.write("run/fixes.csv", b"id,action,label,suggested,probability,margin\nmarked,drop,,,,\n");
    place.run(&format!("train in --out run {QUICK} --resume")).done();
    assert!(place.files("run")["fixes.csv"].ends_with(b"marked,drop,,,,\n"), "what a person decided");
    place.run("eval run --set split.seed=9").refused(2, "--set split.seed: forebay eval has no such option");
}
