//! What the program itself says of files that lie.

use bytes::Bytes;
use forebay_datasets::shard::Index;

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
