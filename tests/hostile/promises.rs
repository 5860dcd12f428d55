//! What the program itself says of files that lie.

use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use forebay::predictions::Predictions;
use forebay_datasets::shard::Index;

use super::measure::measured;
use crate::fixture::Place;

fn draw(place: &Place) {
    for index in 0..12 {
        place.write_png(&format!("in/{}/{index}.png", ["a", "b"][index % 2]), 16, 16, index as u64);
    }
}

#[test]
fn a_flipped_byte_of_a_stored_image_ends_training_and_names_shard_and_row() {
    let place = Place::new();
    draw(&place);
    place.run("prepare in shards --size 16 --split none").done();
    let files = place.files("shards");
    let (key, whole) = files.iter().find(|(name, _)| name.ends_with(".parquet")).expect("a shard");
    let whole = Bytes::from(whole.clone());
    let index = Index::of_file(&whole).expect("a shard");
    let range = index.group_range(0);
    let rows = index.rows(0, whole.slice(range.start as usize..range.end as usize)).expect("rows");
    let image = &rows[3].bytes;
    let start =
        whole.windows(image.len()).position(|window| window == &image[..]).expect("it is stored as it is");
    let mut flipped = whole.to_vec();
    // Within what is entropy coded, so that the image still decodes.
    flipped[start + image.len() - 8] ^= 1;
    place.write(&format!("shards/{key}"), &flipped);
    for command in [
        "train shards --model small --epochs 1 --batch-size 4 --out run",
        "bench shards --epochs 1 --batch-size 4",
    ] {
        let said = place.run(command).refused(4, "row 3 of group 0 is not what was written");
        assert!(said.stderr.contains(key.as_str()) && said.stderr.contains(&*rows[3].id), "{}", said.stderr);
    }
}

#[test]
fn a_named_pipe_in_the_place_of_a_plan_is_never_waited_for() {
    let place = Place::new();
    draw(&place);
    for name in ["plan.json", "plan.next.json", "manifest.json"] {
        std::fs::create_dir_all(place.path(&format!("of {name}"))).expect("a folder");
        let path = place.path(&format!("of {name}/{name}"));
        assert!(std::process::Command::new("mkfifo").arg(path).status().expect("it starts").success());
        let destination = format!("of {name}");
        let said = place.run_with(&["prepare", "in", &destination, "--size", "16", "--split", "none"]);
        assert!(said.code != 101 && said.stderr.contains(name), "{name}: {}", said.stderr);
        assert_ne!(said.code, 0, "{name} is no file: {}", said.stderr);
    }
}

#[test]
fn weights_that_want_more_memory_than_the_machine_has_are_refused_by_the_plan_and_by_training() {
    let place = Place::new();
    draw(&place);
    place.run("train in --model small --size 16 --split none --batch-size 8 --epochs 1 --out first").done();
    let trained = std::fs::read(place.path("first/model.safetensors")).expect("weights");
    // Without what our own files say of themselves, so that what lies beside them counts.
    let tensors = safetensors::SafeTensors::deserialize(&trained).expect("weights");
    place.write("w/model.safetensors", &safetensors::serialize(tensors.iter(), None).expect("room"));
    place
        .write("w/config.json", br#"{"pretrained_cfg": {"input_size": [3, 16384, 16384], "crop_pct": 1.0}}"#);
    let options = "in --model small --weights w/model.safetensors --split none --batch-size 4096 --epochs 1";
    for command in ["plan train", "train"] {
        place.run(&format!("{command} {options} --out run")).refused(2, "memory: the run may hold");
    }
    assert!(!place.path("run").exists(), "nothing was begun");
}

#[test]
fn a_description_of_gigabytes_beside_weights_is_refused_before_it_is_read() {
    let place = Place::new();
    draw(&place);
    place.write("w/model.safetensors", b"x");
    let file = std::fs::File::create(place.path("w/config.json")).expect("a file");
    // It has holes, and takes no room on the disk.
    file.set_len(5 << 30).expect("the file system has large files");
    place
        .run("train in --model small --weights w/model.safetensors --split none --epochs 1 --out run")
        .refused(2, "w/model.safetensors: the config.json beside it has 5.0 GiB");
}

/// A file of `n` predictions among `n_classes`, as another program may write it: the same row again and again, which a
/// dictionary makes a few bytes of.
fn repeated(n: usize, n_classes: usize, id: impl Fn(usize) -> String) -> Bytes {
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let list = DataType::FixedSizeList(item.clone(), n_classes as i32);
    let classes: Vec<String> = (0..n_classes).map(|class| class.to_string()).collect();
    let classes = serde_json::to_string(&classes).expect("text");
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let fields = vec![text("id"), text("split"), text("label"), Field::new("probabilities", list, false)];
    let schema = Schema::new(fields)
        .with_metadata(std::collections::HashMap::from([("classes".to_string(), classes)]));
    let shares = Arc::new(Float32Array::from(vec![1.0 / n_classes as f32; n * n_classes]));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values((0..n).map(id))),
        Arc::new(StringArray::from_iter_values((0..n).map(|_| "test"))),
        Arc::new(StringArray::from_iter_values((0..n).map(|_| "0"))),
        Arc::new(FixedSizeListArray::new(item, n_classes as i32, shares, None)),
    ];
    let schema = Arc::new(schema);
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(Vec::new(), schema.clone(), None).expect("a writer");
    writer.write(&RecordBatch::try_new(schema, columns).expect("columns of one length")).expect("room");
    writer.into_inner().expect("room").into()
}

#[test]
fn predictions_that_become_a_thousand_times_their_file_are_refused_before_that() {
    for (n, n_classes, id, line) in [
        (20, 3, None, None),
        (3_000_000, 1, Some(""), Some(" rows or more in ")),
        (5_000, 2_000, None, Some("takes more than ")),
        // A long id of a dictionary, named by every row.
        (2_000, 2, Some("x"), Some("takes more than ")),
    ] {
        let id = |index: usize| match id {
            None => format!("{index}.jpg"),
            Some("x") => "x".repeat(100_000),
            Some(id) => id.to_string(),
        };
        let file = repeated(n, n_classes, id);
        let (bytes, read) = (file.len() as u64, measured(|| Predictions::from_parquet("p", file)));
        let said = read.result.expect("no panic").map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(said.is_ok(), line.is_none(), "{said:?}");
        assert!(line.is_none_or(|line| said.as_ref().is_err_and(|said| said.contains(line))), "{said:?}");
        let peak = read.peak_bytes;
        assert!(bytes < 400_000 && peak < (16 << 20), "{n} rows in {bytes} bytes take {peak}");
    }
}

#[test]
fn predictions_of_gigabytes_are_refused_before_they_are_read() {
    let place = Place::new();
    for name in ["a", "b"] {
        place.write(&format!("{name}/predictions.parquet"), b"PAR1");
        let file =
            std::fs::File::options().write(true).open(place.path(&format!("{name}/predictions.parquet")));
        // It has holes, and takes no room on the disk.
        file.expect("a file").set_len(5 << 30).expect("the file system has large files");
    }
    place.run("compare a b").refused(2, "a/predictions.parquet has 5.0 GiB");
}
