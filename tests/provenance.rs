//! Where a sample comes from, what made it, and what becomes of those that were refused.

use serde_json::{Value, json};

use crate::fixture::Place;

/// Photos of a table, of which one is broken.
fn photos(place: &Place) {
    let mut table = String::from("file_name,label,patient,age\n");
    for n in 0..24 {
        place.write_png(&format!("in/{n}.png"), 20, 30, n);
        table += &format!("{n}.png,{},p{},{}\n", if n % 2 == 0 { "cat" } else { "dog" }, n / 3, 20 + n);
    }
    table += "broken.jpg,cat,p0,\n";
    place.write("in/broken.jpg", b"\xff\xd8\xff\xe0no image");
    place.write("in/metadata.csv", table.as_bytes());
}

#[test]
fn a_row_says_its_file_its_hash_and_the_columns_that_it_keeps() {
    let place = Place::new();
    photos(&place);
    place.run("prepare in out --encode png --size 8 --keep-columns patient,age --split none").done();
    let traced = place.run("trace out 5.png --json").done().json();
    let row = &traced["rows"][0];
    let hash = blake3::hash(&place.files("in")["5.png"]).to_hex().to_string();
    assert_eq!((&traced["split"], &traced["class"]), (&json!("train"), &json!("dog")));
    assert_eq!((&row["source"], &row["source_blake3"]), (&json!("5.png"), &json!(hash)));
    assert_eq!(row["original_size"], json!([20, 30]));
    assert_eq!(row["kept"], json!([["patient", "p1"], ["age", "25"]]));
    let said = place.run("trace out broken.jpg").done();
    assert!(said.stdout.contains("rejected by decode: "), "{}", said.stdout);
    place.run("trace out 99.png").refused(2, "knows no sample 99.png");
    place.run("trace in 5.png").refused(2, "is no dataset of shards");
    place.run("trace out 5.png --epoch 1").refused(2, "give both, or neither");
    // In tar files and Parquet a sample is a part of a file.
    for (form, source) in [("webdataset", "#bytes="), ("parquet", "#row=")] {
        place.run(&format!("convert in {form} --format {form}")).done();
        place
            .run(&format!("prepare {form} of-{form} --layout {form} --encode png --size 8 --split none"))
            .done();
        let traced = place.run(&format!("trace of-{form} 5.png --json")).done().json();
        let row = &traced["rows"][0];
        assert!(row["source"].as_str().expect("a place").contains(source), "{traced}");
        assert_eq!(row["source_blake3"], json!(hash));
    }
    for (columns, line) in [
        ("patient,label", "shards have a column `label` of their own"),
        ("weight", "has no column `weight`; it has file_name, label, patient, age"),
    ] {
        place.run(&format!("plan prepare in other --keep-columns {columns}")).refused(2, line);
    }
    // Other values of a column are other shards.
    let table = String::from_utf8(place.files("in")["metadata.csv"].clone()).expect("text");
    place.write("in/metadata.csv", table.replace("p1,", "p100,").as_bytes());
    let again = "prepare in out --encode png --size 8 --keep-columns patient,age --split none --overwrite";
    place.run(again).done();
    assert_eq!(place.run("trace out 5.png --json").done().json()["rows"][0]["kept"][0][1], "p100");
}

#[test]
fn the_draws_that_made_a_row_are_told_and_those_of_an_epoch() {
    let place = Place::new();
    photos(&place);
    place
        .run("prepare in out --encode png --size 8 --augment light --balance over --split none --seed 3")
        .done();
    let traced = place.run("trace out 5.png --json").done().json();
    let draws = traced["rows"][0]["draws"].as_array().expect("draws");
    assert!(
        draws.len() > 3 && draws.iter().any(|line| line.as_str().unwrap().starts_with("horizontal_flip: "))
    );
    place.run("prepare in plain --encode png --size 8 --split 0.8,0.2,0").done();
    place
        .run("train plain --out run --arch small --augment light --epochs 2 --batch-size 4 --threads 1")
        .done();
    let drawn = |epoch: u32| -> Value {
        let said = place.run(&format!("trace plain 5.png --run run --epoch {epoch} --json")).done().json();
        let row = said["rows"][0].clone();
        assert_eq!(row["draws"], json!([]));
        row["epoch"].clone()
    };
    let (first, second) = (drawn(1), drawn(2));
    assert_eq!(first[0]["copy"], 0);
    assert!(first[0]["draws"].as_array().expect("draws").len() > 3, "{first}");
    assert_ne!(first[0]["draws"], second[0]["draws"]);
    place.run("trace out 5.png --run run --epoch 1").refused(2, "was not trained on out");
}

#[test]
fn rejected_files_are_copied_aside_and_tried_again_alone() {
    let place = Place::new();
    photos(&place);
    let prepare = "prepare in out --encode png --size 8 --quarantine aside";
    let said = place.run(prepare).done();
    assert!(said.stderr.contains("1 rejected file is copied to aside"), "{}", said.stderr);
    let files = place.files("aside");
    assert_eq!(files["broken.jpg"], place.files("in")["broken.jpg"]);
    let line: Value = serde_json::from_slice(&files["rejects.jsonl"]).expect("a line");
    assert_eq!((&line["id"], &line["stage"]), (&json!("broken.jpg"), &json!("decode")));
    // A run that ends because of them copies them too.
    place
        .run("prepare in none --encode png --size 8 --quarantine other --max-rejects 0")
        .refused(3, "broken.jpg");
    assert!(place.files("other").contains_key("broken.jpg"));
    place.run("prepare in out2 --quarantine in/aside").refused(2, "--quarantine");
    place.write("full/x", b"");
    place.run("prepare in out2 --quarantine full").refused(2, "holds other files");
    // Mended, it is what it would be in the whole.
    std::fs::copy(place.path("in/7.png"), place.path("in/broken.jpg")).expect("a copy");
    let again = "prepare in again --encode png --size 8 --group none --replay aside/rejects.jsonl --json";
    let said = place.run(again).done().json();
    assert_eq!((&said["found"], &said["written"]), (&json!(1), &json!(1)), "{said}");
    place.run("prepare in whole --encode png --size 8 --group none").done();
    let split =
        |dest: &str| place.run(&format!("trace {dest} broken.jpg --json")).done().json()["split"].clone();
    assert_eq!(split("again"), split("whole"));
    place.run(&again.replace("aside/rejects.jsonl", "in/metadata.csv")).refused(2, "line 1 is no reject");
    place.write("other.jsonl", br#"{"id": "other.png", "stage": "read", "reason": "gone"}"#);
    place
        .run(&again.replace("aside/rejects.jsonl", "other.jsonl"))
        .refused(2, "names no sample of the source");
    place.run(&again.replace("aside/rejects.jsonl", "nowhere.jsonl")).refused(2, "there is no such file");
}

#[test]
fn a_list_of_rejects_is_read_to_its_last_line() {
    let place = Place::new();
    for n in 0..6 {
        place.write_png(&format!("in/images/{n}.png"), 9, 9, n);
    }
    let mut rows: String =
        (0..6).map(|n| format!("{{\"file_name\": \"images/{n}.png\", \"label\": \"a\"}}\n")).collect();
    for file in ["x.jpg", "y.jpg"] {
        place.write(&format!("in/images/{file}"), b"\xff\xd8\xff\xe0no image");
        rows += &format!("{{\"file_name\": \"images/{file}\", \"label\": \"a\"}}\n");
    }
    place.write("in/metadata.jsonl", rows.as_bytes());
    let options = "--encode png --size 8 --max-rejects 9";
    place.run(&format!("prepare in out {options} --quarantine aside")).done();
    let aside = place.files("aside");
    assert_eq!(aside.len(), 3, "{:?}", aside.keys());
    // A line that is cut off, and one that lacks its reason, are no rejects.
    let whole = String::from_utf8(aside["rejects.jsonl"].clone()).expect("text");
    for (n, list) in [
        (2, format!("{}\n{{\"id\": \"x\"}}\n", whole.lines().next().expect("a line"))),
        (1, whole[..20].to_string()),
    ] {
        place.write("list.jsonl", list.as_bytes());
        place
            .run(&format!("prepare in again {options} --replay list.jsonl"))
            .refused(2, &format!("line {n} is no reject"));
    }
}
