//! What a model sees in images: every format, in order, whatever cannot be read.

use std::collections::BTreeMap;

use candle_core::Tensor;
use forebay_datasets::seed::Seed;
use forebay_stages::chain::{Chain, Wanted};
use forebay_train::{CLASS_COUNTS, TEMPERATURE, TrainOptions, Trainer};
use serde_json::{Value, json};

use crate::fixture::Place;

const CLASSES: [&str; 4] = ["cat", "dog, \"large\"", "owl", "fox"];

/// A network that has learned nothing, for images of 16 pixels.
fn trainer() -> Trainer {
    let wanted = Wanted { side: Some(16), ..Wanted::default() };
    let chain = Chain::of_files().then(&wanted).expect("files become anything").chain;
    let classes = CLASSES.map(String::from).to_vec();
    Trainer::new(&TrainOptions { chain, seed: Seed(5), ..TrainOptions::new("small", classes) })
        .expect("a network")
}

/// The file of a network, with what it says of itself and its checksum.
fn file(trainer: &Trainer, metadata: &[(&str, &str)]) -> Vec<u8> {
    let blank = "0".repeat(64);
    let metadata: BTreeMap<String, String> = [("blake3", &*blank)]
        .iter()
        .chain(metadata)
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect();
    let mut bytes = trainer.weights(&metadata).expect("a file");
    let start = bytes.windows(64).position(|digits| digits == blank.as_bytes()).expect("a blank checksum");
    let digits = blake3::hash(&bytes).to_hex();
    bytes[start..start + 64].copy_from_slice(digits.as_bytes());
    bytes
}

/// A run folder called `run`.
fn write_run(place: &Place, metadata: &[(&str, &str)]) {
    place.write("run/model.safetensors", &file(&trainer(), metadata));
    place.write("run/config.toml", b"source = \"in\"\naugment = \"standard\"\n");
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// A run folder of this name whose network is whole, and so large that its logits are infinite.
fn write_unsound(place: &Place, name: &str) {
    let trainer = trainer();
    let map = trainer.predictor().var_map();
    let weight = map.data().lock().unwrap()["fc.weight"].clone();
    weight.set(&Tensor::full(f32::MAX, weight.dims(), weight.device()).unwrap()).unwrap();
    place.write(&format!("{name}/model.safetensors"), &file(&trainer, &[]));
    place.write(&format!("{name}/config.toml"), b"source = \"in\"\n");
}

/// Eleven images in folders of some depth, of which number 3 is none.
fn write_images(place: &Place) -> Vec<String> {
    let mut ids = Vec::new();
    for index in 0..11u64 {
        let id = format!("{}/{index:02},\"x\".png", ["a", "b/c"][index as usize / 6]);
        match index {
            3 => place.write(&format!("in/{id}"), b"no image"),
            _ => drop(place.write_png(&format!("in/{id}"), 20 + index as u32, 17, index)),
        }
        ids.push(id);
    }
    place.write("in/notes.txt", b"not asked about");
    ids
}

#[test]
fn images_are_answered_in_order_and_one_that_is_broken_is_named_and_costs_no_other() {
    let place = Place::new();
    write_run(&place, &[]);
    let ids = write_images(&place);
    let said = place.run("predict run in --format jsonl --batch-size 4 --top 2");
    let said = said.refused(3, "1 of 11 images could not be read, and the others are answered: a/03");
    let rows = lines(&said.stdout);
    assert_eq!(rows.iter().map(|row| row["id"].as_str().unwrap()).collect::<Vec<_>>(), ids);
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(row["error"].as_str().is_some(), index == 3, "{row}");
        let Some(top) = row["top"].as_array() else { continue };
        assert_eq!((top.len(), &top[0]["class"]), (2, &row["prediction"]));
        assert!(CLASSES.contains(&row["prediction"].as_str().unwrap()));
        assert!(top[0]["probability"].as_f64() >= top[1]["probability"].as_f64());
    }
    assert!(said.stderr.contains("passed over in in: 1 .txt"), "{}", said.stderr);
    // How they are cut into batches and how many threads there are changes nothing.
    let other =
        place.run("predict run in --format jsonl --batch-size 1 --top 2 --threads 1").refused(3, "1 of 11");
    let numbers = |text: &str| -> Vec<(Value, f64)> {
        lines(text)
            .into_iter()
            .map(|row| (row["prediction"].clone(), row["confidence"].as_f64().unwrap_or(0.0)))
            .collect()
    };
    for ((class, a), (other, b)) in numbers(&said.stdout).into_iter().zip(numbers(&other.stdout)) {
        assert!(class == other && (a - b).abs() < 1e-5, "{class} {a}, {other} {b}");
    }
    // Files one by one are called as they were given.
    let one = format!("in/{}", ids[5]);
    let said = place.run_with(&["predict", "run", &one, "in/b", "--format", "jsonl"]).done();
    let named: Vec<String> =
        lines(&said.stdout).iter().map(|row| row["id"].as_str().unwrap().to_string()).collect();
    assert_eq!(named[..2], [one, format!("in/{}", ids[6])]);
}

#[test]
fn every_format_says_the_same() {
    let place = Place::new();
    write_run(&place, &[(TEMPERATURE, "2")]);
    write_images(&place);
    let text = place.run("predict run in").refused(3, "1 of 11");
    assert!(text.stderr.contains("calibrated by the temperature of the model, 2.000"), "{}", text.stderr);
    assert_eq!(text.stdout.lines().count(), 11);
    assert!(text.stdout.lines().nth(3).unwrap().contains("cannot be read: decode: "), "{}", text.stdout);
    let rows = lines(&place.run("predict run in --format jsonl --top 4").refused(3, "1 of 11").stdout);
    for (line, row) in text.stdout.lines().zip(&rows).filter(|(_, row)| row["error"].is_null()) {
        let percent = format!(
            "{:.1} %  {}",
            100.0 * row["confidence"].as_f64().unwrap(),
            row["prediction"].as_str().unwrap()
        );
        assert!(line.contains(&percent), "{line} lacks {percent}");
        let sum: f64 =
            row["top"].as_array().unwrap().iter().map(|class| class["probability"].as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{row}");
    }
    let said = place.run("predict run in --output out/rows.csv --top 1 --json").refused(3, "1 of 11");
    let summary = &lines(&said.stdout)[0];
    assert_eq!(
        (&summary["images"], &summary["rejected"], &summary["temperature"]),
        (&json!(11), &json!(1), &json!(2.0))
    );
    let csv = String::from_utf8(place.files("out")["rows.csv"].clone()).unwrap();
    assert_eq!(csv.lines().count(), 12);
    assert_eq!(csv.lines().next(), Some("id,class_1,probability_1,error"));
    assert!(csv.lines().nth(1).unwrap().starts_with("\"a/00,\"\"x\"\".png\","), "{csv}");
    place.run("predict run in --output out/rows.csv").refused(2, "out/rows.csv is there already");
    place.run("predict run in --output out/rows.parquet").refused(3, "1 of 11");
    assert!(place.files("out")["rows.parquet"].starts_with(b"PAR1"));
    let single = place.run_with(&["predict", "run", "in/a/00,\"x\".png", "--top", "9"]).done();
    assert_eq!(single.stdout.lines().count(), 5, "{}", single.stdout);
}

#[test]
fn shards_are_answered_as_the_images_that_they_were_made_of() {
    let place = Place::new();
    write_run(&place, &[]);
    for index in 0..9 {
        place.write_png(&format!("in/{}/{index}.png", ["x", "y", "z"][index as usize % 3]), 24, 16, index);
    }
    place.run("prepare in shards --size 16 --fit crop --encode png").done();
    let of = |source: &str| -> BTreeMap<String, f64> {
        let said = place.run(&format!("predict run {source} --format jsonl")).done();
        lines(&said.stdout)
            .into_iter()
            .map(|row| (row["id"].as_str().unwrap().to_string(), row["confidence"].as_f64().unwrap()))
            .collect()
    };
    let (folder, shards) = (of("in"), of("shards"));
    assert_eq!(folder.keys().collect::<Vec<_>>(), shards.keys().collect::<Vec<_>>());
    for (id, confidence) in folder {
        assert!((confidence - shards[&id]).abs() < 1e-5, "{id}");
    }
}

#[test]
fn probabilities_are_adjusted_to_another_prior() {
    let place = Place::new();
    write_run(&place, &[(CLASS_COUNTS, "[10, 20, 30, 40]")]);
    place.write_png("one.png", 16, 16, 1);
    let of = |more: &[&str]| -> BTreeMap<String, f64> {
        let arguments = [&["predict", "run", "one.png", "--format", "jsonl"], more].concat();
        let rows = lines(&place.run_with(&arguments).done().stdout);
        let top = rows[0]["top"].as_array().unwrap();
        top.iter()
            .map(|row| (row["class"].as_str().unwrap().to_string(), row["probability"].as_f64().unwrap()))
            .collect()
    };
    let (plain, uniform) = (of(&[]), of(&["--prior", "uniform"]));
    let shares: BTreeMap<&str, f64> = CLASSES.into_iter().zip([0.1, 0.2, 0.3, 0.4]).collect();
    let sum: f64 = plain.iter().map(|(class, p)| p / shares[&**class]).sum();
    for (class, p) in &plain {
        assert!((uniform[class] - p / shares[&**class] / sum).abs() < 1e-5, "{class}");
    }
    place.write("prior.json", br#"{"cat": 1, "dog, \"large\"": 2, "owl": 3, "fox": 4}"#);
    for prior in ["cat=0.1,dog, \"large\"=0.2,owl=0.3,fox=0.4", "prior.json"] {
        for (class, p) in of(&["--prior", prior]) {
            assert!((plain[&class] - p).abs() < 1e-5, "{prior}: the prior of the training changes nothing");
        }
    }
    place.run("predict run one.png --prior cat=0.9,owl=0.3").refused(2, "leave nothing to 2 other classes");
    place.run("predict run one.png --prior cow=0.9").refused(2, "the model has no class cow");
    place.run("predict run one.png --prior none.json").refused(2, "none.json is no file");
    write_run(&place, &[]);
    place.run("predict run one.png --prior uniform").refused(2, "does not say how many images of each class");
}

#[test]
fn several_views_are_averaged_and_the_same_each_time() {
    let place = Place::new();
    write_run(&place, &[]);
    place.write_png("one.png", 30, 20, 1);
    let of = |tta: &str| {
        let said = place.run(&format!("predict run one.png --json --tta {tta}")).done();
        let rows = lines(&said.stdout);
        assert_eq!(rows[1]["tta"], tta);
        rows[0].clone()
    };
    let all: Vec<Value> = ["off", "flip", "five-crop", "3"].into_iter().map(of).collect();
    for (index, row) in all.iter().enumerate() {
        assert!(!all[..index].contains(row), "{row}");
    }
    assert_eq!(of("3"), all[3]);
    place.write("run/config.toml", b"source = \"in\"\n");
    place
        .run("predict run one.png --tta 3")
        .refused(2, "drawn by the augmentation that run was trained with");
    place.run("predict run one.png --tta ten-crop").refused(2, "--tta: \"ten-crop\" is not off");
}

#[test]
fn heatmaps_are_written_beside_the_answers() {
    let place = Place::new();
    write_run(&place, &[]);
    place.write_png("in/a/x.png", 16, 16, 1);
    place.write_png("in/b/x.png", 20, 30, 2);
    place.run("predict run in --explain maps").done();
    let maps = place.files("maps");
    assert_eq!(maps.keys().collect::<Vec<_>>(), ["a%2Fx.png.png", "b%2Fx.png.png"]);
    let picture = image::load_from_memory(&maps["a%2Fx.png.png"]).expect("a PNG");
    assert_eq!((picture.width(), picture.height()), (224, 224));
    place.run("predict run in --explain maps").refused(2, "a%2Fx.png.png is there already");
    place.run("predict run in --explain maps --overwrite --tta flip").done();
    place.run("predict run in --explain in/maps").refused(2, "--explain");
    let url = format!("file://{}", place.path("in").display());
    place.run(&format!("predict run {url} --explain in/maps")).refused(2, "--explain");
    place.run(&format!("predict run in --explain {url}/maps")).refused(2, "--explain");
    assert_eq!(place.files("in").len(), 2);
    // Among shards neither heatmaps of the images of a folder nor of one alone.
    place.run("prepare in shards --size 16 --encode png").done();
    for images in ["in", "in/a/x.png"] {
        for folder in ["shards", "shards/data", "shards/data/maps"] {
            place.run(&format!("predict run {images} --explain {folder}")).refused(2, "dataset of shards");
        }
    }
    place.run("predict run in --explain more --tta five-crop").refused(2, "predict.explain");
}

#[test]
fn what_cannot_be_predicted_is_one_line() {
    let place = Place::new();
    write_run(&place, &[]);
    place.write_png("one.png", 16, 16, 1);
    place.write("notes.txt", b"hello");
    std::fs::create_dir_all(place.path("empty")).unwrap();
    place.run("predict run").refused(2, "predict needs IMAGES");
    place.run("predict").refused(2, "predict needs a MODEL");
    place.run("predict run empty").refused(2, "no image in empty: it holds nothing");
    place.run("predict run missing.png").refused(2, "missing.png: there is no such image or folder");
    place.run("predict empty one.png").refused(2, "empty holds no model.safetensors, so it is no run folder");
    place.run("predict notes.txt one.png --arch small").refused(2, "notes.txt");
    place.run("predict run notes.txt").refused(3, "no image could be read: notes.txt: decode: ");
    place.run("predict run one.png --format parquet").refused(2, "give --output FILE");
    place.write_png("many/one.png", 16, 16, 1);
    let before = place.files("many");
    let over = "predict run many --format csv --overwrite --output";
    place.run(&format!("{over} many/one.png")).refused(2, "is one of the images");
    place.run(&format!("{over} ./many/../many/one.png")).refused(2, "is one of the images");
    assert_eq!(place.files("many"), before);
    place.run("predict run one.png --output rows").refused(2, "nothing says in which format");
    place
        .run("predict run one.png --output one.png --format csv --overwrite")
        .refused(2, "is one.png, which is read");
    for (value, code, expected) in [
        (f32::NAN, 2, "holds values that are no finite numbers"),
        // The sum of such numbers is infinite, and so is that of every class.
        (f32::MAX, 1, "cannot predict one.png: the network gives no numbers"),
    ] {
        let trainer = trainer();
        let map = trainer.predictor().var_map();
        let weight = map.data().lock().unwrap()["fc.weight"].clone();
        weight.set(&Tensor::full(value, weight.dims(), weight.device()).unwrap()).unwrap();
        place.write("unsound.safetensors", &file(&trainer, &[]));
        place.run("predict unsound.safetensors one.png").refused(code, expected);
    }
}

/// A reader that has gone ends the work, and is no error.
#[test]
fn nothing_is_predicted_for_a_reader_that_has_gone() {
    use std::io::{BufRead, BufReader};
    let place = Place::new();
    write_run(&place, &[]);
    for index in 0..300 {
        place.write_png(&format!("in/{index:03}.png"), 16, 16, index);
    }
    let mut child = place.command(&["predict", "run", "in", "--batch-size", "1"]).spawn().unwrap();
    let mut first = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut first).unwrap();
    assert!(first.starts_with("000.png"), "{first}");
    drop(stdout);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_network_that_gives_no_numbers_is_named_and_leaves_nothing() {
    let place = Place::new();
    write_run(&place, &[]);
    write_unsound(&place, "unsound");
    for index in 0..40 {
        place.write_png(&format!("in/{}/{index}.png", CLASSES[index as usize % 4]), 16, 16, index);
    }
    for (command, line) in [
        ("eval unsound in --split all --out made", "cannot score the images: the logits of "),
        ("predict unsound in --output made.csv", "the network gives no numbers"),
        ("predict unsound in --output made.parquet --tta flip", "the network gives no numbers"),
        ("ensemble run unsound --out made", "cannot take unsound into the ensemble: "),
        ("ensemble run unsound --out made --soup", "cannot take unsound into the ensemble: "),
        ("ensemble run unsound --out made --vote hard", "cannot take unsound into the ensemble: "),
    ] {
        let said = place.run(command).refused(1, line);
        assert_eq!(said.stderr.lines().filter(|said| said.starts_with("forebay: ")).count(), 1, "{command}");
        for made in ["made", "made.csv", "made.parquet"] {
            assert!(!place.path(made).exists(), "{command} has written {made}");
        }
    }
}
