//! Uneven classes: the losses, the weights and the features that are made against them, and what is refused.

use forebay_train::FileDescription;

use crate::fixture::Place;

/// 30 images of class `a`, 10 of `b` and 4 of `c` for training, and 4 of each for validation.
fn place() -> Place {
    let place = Place::new();
    for (class, count) in [("a", 30u64), ("b", 10), ("c", 4)] {
        let brightness = u64::from(class.as_bytes()[0]) * 1000;
        for index in 0..count {
            place.write_png(&format!("in/train/{class}/{index}.png"), 16, 16, brightness + index);
        }
        for index in 0..4 {
            place.write_png(&format!("in/val/{class}/v{index}.png"), 16, 16, brightness + 500 + index);
        }
    }
    place
}

const TRAIN: &str = "train in --size 16 --batch-size 8 --epochs 2 --freeze backbone --doctor off --out";

fn description(place: &Place, run: &str) -> FileDescription {
    described(place, &format!("{run}/model.safetensors"))
}

fn described(place: &Place, file: &str) -> FileDescription {
    let bytes = std::fs::read(place.path(file)).expect("a file of a run");
    FileDescription::read(&bytes).expect("a file").expect("one of ours")
}

#[test]
fn every_loss_trains_and_the_model_says_which_shares_of_classes_its_logits_stand_for() {
    let place = place();
    let train = [30.0 / 44.0, 10.0 / 44.0, 4.0 / 44.0];
    let even = [1.0 / 3.0; 3];
    for (index, (options, prior)) in [
        ("--loss ce", train),
        ("--loss focal --focal-gamma 1", train),
        ("--loss bsm", even),
        ("--loss la", even),
        ("--loss la --logit-tau 0", train),
        ("--class-weights inverse", even),
        // They begin to count only after the last step.
        ("--class-weights inverse --defer 1", train),
    ]
    .into_iter()
    .enumerate()
    {
        let run = format!("run{index}");
        place.run(&format!("{TRAIN} {run} {options}")).done();
        let description = description(&place, &run);
        assert_eq!(description.class_counts(), Some(vec![30.0, 10.0, 4.0]), "{options}");
        let found = description.logit_prior().expect("it says");
        for (found, expected) in found.iter().zip(prior) {
            assert!((found - expected).abs() < 1e-9, "{options}: {found} is not {expected}");
        }
    }
    let said = place.run(&format!("{TRAIN} cb --loss cb-focal --effective-beta 0.9")).done();
    assert!(
        said.stderr.contains("loss cb-focal: of the training images 68.2 %, 22.7 %, 9.1 %"),
        "{}",
        said.stderr
    );
    let said = place.run(&format!("{TRAIN} effective --class-weights effective --defer 0.5")).done();
    assert!(said.stderr.contains("from 50 % of the run on"), "{}", said.stderr);
}

#[test]
fn a_head_of_unit_vectors_is_the_same_in_training_evaluation_and_an_exported_file() {
    let place = place();
    let said = place.run(&format!("{TRAIN} run --loss ldam")).done();
    assert!(said.stderr.contains("from 80 % of the run on"), "{}", said.stderr);
    assert!(description(&place, "run").head.normalized);
    let summary: serde_json::Value =
        serde_json::from_slice(&std::fs::read(place.path("run/summary.json")).unwrap()).unwrap();
    let evaluated = place.run("eval run --split validation --json").done().json();
    assert_eq!(evaluated["evaluation"]["accuracy"]["value"], summary["accuracy"], "{evaluated}");
    place.run("export run --output run.onnx").done();
    let file = std::fs::read(place.path("run.onnx")).unwrap();
    assert!(file.windows(15).any(|window| window == b"LpNormalization"));
    // Weights of another head begin a run with one, and the other way round.
    place.run(&format!("{TRAIN} linear --weights run/model.safetensors --loss ce")).done();
    place.run(&format!("{TRAIN} again --weights linear/model.safetensors --loss ldam-drw")).done();
}

#[test]
fn an_image_that_cannot_be_read_is_counted_in_no_class() {
    let place = place();
    place.write("in/train/a/broken.png", b"no image");
    place.write("in/train/c/broken.png", b"no image");
    let counts = Some(vec![30.0, 10.0, 4.0]);
    // Of features it is known before the first step, and of images from the second epoch on.
    place.run(&format!("{TRAIN} features --max-rejects 0.2 --loss bsm")).done();
    assert_eq!(description(&place, "features").class_counts(), counts);
    let train = TRAIN.replace("--freeze backbone ", "");
    place.run(&format!("{train} images --max-rejects 0.2 --loss bsm")).done();
    assert_eq!(described(&place, "images/last.safetensors").class_counts(), counts);
    // The model says it of any number of epochs, and the report with it.
    place
        .run(&format!("{} one --max-rejects 0.2 --loss bsm", train.replace("--epochs 2", "--epochs 1")))
        .done();
    assert_eq!(description(&place, "one").class_counts(), counts);
    let prior = description(&place, "one").logit_prior();
    assert_eq!(prior, Some(vec![1.0 / 3.0; 3]), "what the loss corrected");
}

#[test]
fn features_are_made_for_training_only_and_the_same_for_the_same_seed() {
    let place = place();
    for balance in ["smote", "borderline-smote", "adasyn"] {
        let said = place.run(&format!("{TRAIN} {balance} --balance {balance}")).done();
        assert!(said.stderr.contains("features and not images"), "{}", said.stderr);
        let counts = description(&place, balance).class_counts().expect("it says");
        assert!(counts[0] == 30.0 && counts.iter().all(|count| (27.0..=33.0).contains(count)), "{counts:?}");
        let summary = std::fs::read_to_string(place.path(&format!("{balance}/summary.json"))).unwrap();
        let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
        let support: Vec<u64> = summary["classes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["support"].as_u64().unwrap())
            .collect();
        assert_eq!(support, [4, 4, 4], "validation is what it was");
        place.run(&format!("{TRAIN} {balance}-again --balance {balance}")).done();
        let bytes = |run: &str| std::fs::read(place.path(&format!("{run}/model.safetensors"))).unwrap();
        assert!(bytes(balance) == bytes(&format!("{balance}-again")));
    }
    for clean in ["tomek", "enn"] {
        let said = place.run(&format!("{TRAIN} {clean} --clean {clean}")).done();
        assert!(
            said.stderr.contains(&format!("features are left out by --clean {clean}")),
            "{}",
            said.stderr
        );
        assert_eq!(description(&place, clean).class_counts().expect("it says")[2], 4.0, "none of the rarest");
        place.run(&format!("{TRAIN} both-{clean} --balance smote --clean {clean}")).done();
    }
}

#[test]
fn a_training_on_made_features_resumes_to_the_same_bytes() {
    let place = place();
    let options = "--balance smote --clean tomek --loss ce --dropout 0.2";
    place.run(&format!("{TRAIN} whole {options}")).done();
    let killed = format!("{TRAIN} part {options} --checkpoint-every 1");
    place.run_and_kill(&killed, || place.path("part/last.safetensors").exists());
    place.run(&format!("{killed} --resume")).done();
    let bytes = |run: &str| std::fs::read(place.path(&format!("{run}/model.safetensors"))).unwrap();
    assert!(bytes("whole") == bytes("part"));
}

#[test]
fn what_would_have_no_effect_or_correct_twice_is_refused_in_one_line_each() {
    let place = place();
    let refused = |options: &str, text: &str| {
        let train = TRAIN.replace("--freeze backbone ", "");
        place.run(&format!("{train} run {options}")).refused(2, text);
        assert!(place.files("run").is_empty(), "nothing is written: {options}");
    };
    refused("--loss bsm --balance over", "train.loss: --balance evens the classes out already");
    refused("--loss la --balance over", "train.loss: --balance evens the classes out already");
    refused("--loss cb-focal --balance sqrt", "train.loss: --balance evens the classes out already");
    refused("--loss bsm --class-weights inverse", "train.class_weights: loss balanced-softmax corrects");
    refused("--loss ldam --mixup 0.2", "neither mixed images nor label smoothing");
    refused("--loss ldam --label-smoothing 0.1", "neither mixed images nor label smoothing");
    refused("--logit-tau 2", "train.logit_tau: cross-entropy has no tau");
    refused("--focal-gamma 2 --loss bsm", "train.focal_gamma: balanced-softmax has no gamma");
    refused("--effective-beta 0.9", "train.effective_beta: no class weighs by its effective number");
    refused("--defer 0.5", "train.defer: there are no class weights");
    refused("--loss dice", "--loss: \"dice\" is not one of cross-entropy, focal, cb-focal, ldam");
    refused(
        "--balance smote",
        "balance.mode: smote is for the features of a frozen network, and not for pixels",
    );
    refused("--clean enn", "balance.clean: enn is for the features of a frozen network");
    refused("--freeze backbone --balance smote --augment light", "--augment gives an image other features");
    refused(
        "--freeze backbone --balance adasyn --feature-cache off",
        "--feature-cache off keeps no features",
    );
    refused("--freeze backbone --balance smote --memory 1KiB", "the features of all training images");
    refused("--freeze backbone --balance smote --loss bsm", "train.loss: --balance evens the classes out");
    place
        .run("prepare in shards --size 16 --balance smote")
        .refused(2, "balance.mode: smote is for the features of a frozen network");
    place.run(&format!("{TRAIN} forced --loss bsm --balance over --force")).done();
}

#[test]
fn advice_names_a_class_without_training_images_and_needs_validation_images() {
    let place = Place::new();
    for index in 0..24 {
        let (split, class) = (["train", "train", "val"][index % 3], ["a", "b"][index / 3 % 2]);
        place.write_png(&format!("in/{split}/{class}/{index}.png"), 16, 16, index as u64);
    }
    place.write_png("in/val/c/0.png", 16, 16, 99);
    place.run(&format!("train in --out base {}", crate::evaluation::QUICK)).done();
    let advise = format!("advise in --weights base/model.safetensors --seeds 1 {}", crate::evaluation::QUICK);
    place.run(&advise).refused(2, "has no training image that can be read of c");
    std::fs::remove_dir_all(place.path("in/val/c")).unwrap();
    let said = place.run(&advise).done();
    assert!(
        said.stdout.contains("--freeze backbone"),
        "what was compared is what is advised: {}",
        said.stdout
    );
    std::fs::remove_dir_all(place.path("in/val")).unwrap();
    let said = place.run(&advise).refused(2, "advise compares on validation images, and there are none");
    assert!(!said.stdout.contains("advice"), "{}", said.stdout);
}

#[test]
fn each_plan_of_a_balance_says_its_counts_and_what_each_class_then_counts() {
    let place = place();
    place.write("targets.csv", b"class,images\nb,20\nc,20\n");
    place.write("run.toml", b"[balance]\nmode = \"targets\"\n[balance.targets]\nb = 20\nc = 20\n");
    for (options, rows) in [
        ("--balance repeat-factor", ["30", "12", "8"]),
        ("--balance repeat-factor --balance-threshold 0.001", ["30", "10", "4"]),
        ("--balance effective-number", ["15", "15", "14"]),
        ("--balance effective-number --balance-beta 0", ["30", "10", "4"]),
        ("--balance targets --balance-targets targets.csv", ["30", "20", "20"]),
        ("--config run.toml", ["30", "20", "20"]),
    ] {
        for command in ["plan train in --size 16", "plan prepare in out --size 16"] {
            let said = place.run(&format!("{command} {options}")).done();
            let cells = |name: &str| -> Vec<Vec<&str>> {
                let lines = said.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
                lines.filter(|cells| cells.first() == Some(&name)).collect()
            };
            for (class, rows) in ["a", "b", "c"].into_iter().zip(rows) {
                assert_eq!(cells(class)[0][2], rows, "{command} {options}: {}", said.stdout);
            }
            if command.contains("train") {
                let share = |class| cells(class)[1][3].parse::<f64>().expect("a share");
                let sum = share("a") + share("b") + share("c");
                assert!((sum - 100.0).abs() < 0.2, "{}", said.stdout);
            }
        }
    }
    let said = place.run(&format!("{TRAIN} targets --balance targets --balance-targets {{c=10}}")).done();
    assert_eq!(description(&place, "targets").class_counts(), Some(vec![30.0, 10.0, 10.0]));
    assert!(
        said.stderr
            .contains("balance targets: the classes count in the loss as a 60.0 %, b 20.0 %, c 20.0 %")
    );
}

#[test]
fn a_table_of_targets_that_names_no_class_and_a_plan_that_corrects_twice_are_refused() {
    let place = place();
    place.run("plan train in --balance targets").refused(2, "needs a number for at least one class");
    for command in ["plan train in", "plan prepare in out"] {
        let command = format!("{command} --size 16 --balance targets --balance-targets {{d=3}}");
        place.run(&command).refused(2, "\"d\" is no class of the source");
    }
    place
        .run("plan train in --balance-targets none.csv --balance targets")
        .refused(2, "none.csv: cannot read it");
    place.run("plan train in --balance-targets {c=3}").refused(2, "--balance targets, which is not given");
    let twice = "plan train in --size 16 --balance targets --balance-targets {c=90}";
    let line = "c has 4 images and would count 9.0 times as much as b with 10";
    place.run(twice).refused(2, line);
    let said = place.run(&format!("{twice} --force --json")).done();
    assert!(said.stdout.contains(line) || said.stderr.contains(line), "{} {}", said.stdout, said.stderr);
}

#[test]
fn rare_classes_alone_are_augmented_or_more_strongly() {
    let place = place();
    let rows = |dest: &str| -> std::collections::BTreeMap<String, Vec<u8>> {
        let mut found = std::collections::BTreeMap::new();
        for (_, bytes) in place.files(dest).into_iter().filter(|(name, _)| name.starts_with("data/train")) {
            let file = bytes::Bytes::from(bytes);
            let index = forebay_datasets::shard::Index::of_file(&file).expect("a shard");
            for group in 0..index.footer().groups.len() {
                let range = index.group_range(group);
                let part = file.slice(range.start as usize..range.end as usize);
                let rows = index.rows(group, part).expect("rows");
                found.extend(rows.into_iter().map(|row| (row.id.to_string(), row.bytes.to_vec())));
            }
        }
        found
    };
    let prepare = |dest: &str, more: &str| {
        place.run(&format!("prepare in {dest} --size 16 --encode png {more}")).done();
        rows(dest)
    };
    let changed = |one: &std::collections::BTreeMap<String, Vec<u8>>,
                   other: &std::collections::BTreeMap<String, Vec<u8>>| {
        let of = |class: &str| {
            let of_class = one.iter().filter(|(id, _)| id.starts_with(&format!("train/{class}/")));
            of_class.filter(|(id, bytes)| other[*id] != **bytes).count()
        };
        ["a", "b", "c"].map(of)
    };
    let plain = prepare("plain", "");
    // Fewer than half of 30: b and c.
    assert_eq!(changed(&plain, &prepare("rare", "--augment-minority strong")), [0, 10, 4]);
    let light = prepare("light", "--augment light");
    let both = prepare("both", "--augment light --augment-minority strong");
    assert_eq!(changed(&light, &both), [0, 10, 4]);
    place.write("run.toml", b"[augment.minority]\npreset = \"strong\"\nbelow = 0.2\n");
    assert_eq!(changed(&plain, &prepare("few", "--config run.toml")), [0, 0, 4]);
    place.write("run.toml", b"[augment.minority]\npreset = \"strong\"\nclasses = [\"a\"]\n");
    assert_eq!(changed(&plain, &prepare("named", "--config run.toml")), [30, 0, 0]);
    // What it says of itself, and what cannot be.
    let draws = |id: &str| {
        let said = place.run(&format!("trace rare {id} --json")).done().json();
        said["rows"][0]["draws"].as_array().expect("draws").len()
    };
    assert!(draws("train/a/0.png") == 0 && draws("train/c/0.png") > 3);
    let said = place.run("plan train in --size 16 --out run --augment-minority strong").done();
    assert!(said.stdout.contains("of 2 rare classes: random resized crop"), "{}", said.stdout);
    for (text, line) in [
        ("preset = \"light\"\nclasses = [\"z\"]", "there is no class z"),
        ("classes = [\"c\"]", "changes rare classes as all others"),
        ("preset = \"light\"\nbelow = 2.0", "below is 2, and must be above 0 and at most 1"),
        ("preset = \"wild\"", "must be one of none, light"),
    ] {
        place.write("run.toml", format!("[augment.minority]\n{text}\n").as_bytes());
        place.run("plan prepare in other --size 16 --config run.toml").refused(2, line);
    }
    let train =
        format!("{TRAIN} trained --augment-minority strong --arch small").replace("--freeze backbone ", "");
    place.run(&train).done();
}
