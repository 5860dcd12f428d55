//! Datasets in every layout: what goes into one comes out of it, and what cannot be read is one line.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::fixture::Place;

/// 7 PNGs in three classes and two splits, whose pixels all differ.
fn photos(place: &Place) {
    for (n, (split, class)) in [
        ("train", "b"),
        ("train", "a.b"),
        ("train", "é"),
        ("train", "b"),
        ("test", "b"),
        ("test", "é"),
        ("train", "é"),
    ]
    .into_iter()
    .enumerate()
    {
        place.write_png(&format!("photos/{split}/{class}/{n}.x.png"), 8 + n as u32, 9, n as u64);
    }
}

/// Split, class, id and pixels of every sample of a source: those of the shards that `prepare` makes of it.
fn samples(place: &Place, source: &str) -> BTreeSet<(String, String, String, Vec<u8>)> {
    place.run(&format!("prepare {source} read-back --size original --encode png --overwrite")).done();
    let manifest: Value =
        serde_json::from_slice(&place.files("read-back")["manifest.json"]).expect("a manifest");
    let files = place.files("read-back");
    let shards = files.iter().filter(|(name, _)| name.ends_with(".parquet"));
    let mut found = BTreeSet::new();
    for (name, bytes) in shards {
        let split = name.split(['/', '-']).nth(1).expect("a split");
        let file = bytes::Bytes::from(bytes.clone());
        let index = forebay_datasets::shard::Index::of_file(&file).expect("a shard");
        for group in 0..index.footer().groups.len() {
            let range = index.group_range(group);
            let part = file.slice(range.start as usize..range.end as usize);
            for row in index.rows(group, part).expect("rows") {
                let class = manifest["classes"][row.label as usize].as_str().expect("a name");
                let image = image::load_from_memory(&row.bytes).expect("a PNG").to_rgb8();
                found.insert((split.to_string(), class.to_string(), row.id.to_string(), image.into_raw()));
            }
        }
    }
    found
}

#[test]
fn every_form_becomes_every_other_with_the_same_ids_classes_and_pixels() {
    let place = Place::new();
    photos(&place);
    let expected = samples(&place, "photos");
    assert_eq!(expected.len(), 7);
    place.run("prepare photos shards --size original --encode png").done();
    for first in ["parquet", "webdataset", "mds"] {
        for source in ["photos", "shards"] {
            let said = place
                .run(&format!("convert {source} {source}-{first} --format {first} --json"))
                .done()
                .json();
            assert_eq!((&said["written"], &said["rejected"]), (&7.into(), &0.into()), "{said}");
            assert_eq!(samples(&place, &format!("{source}-{first}")), expected, "{source} as {first}");
        }
    }
    // The same form again is the same bytes, whatever stood between.
    let digests = |folder: &str| -> Vec<(String, blake3::Hash)> {
        let files = place.files(folder).into_iter().filter(|(name, _)| name != "convert.json");
        files.map(|(name, bytes)| (name, blake3::hash(&bytes))).collect()
    };
    for first in ["parquet", "webdataset", "mds"] {
        for second in ["parquet", "webdataset", "mds"] {
            let to = format!("{first}-{second}");
            place.run(&format!("convert photos-{first} {to} --format {second}")).done();
            assert_eq!(digests(&to), digests(&format!("photos-{second}")), "{to}");
        }
    }
}

#[test]
fn a_conversion_goes_on_where_it_stopped_and_replaces_nothing_unasked() {
    let place = Place::new();
    photos(&place);
    place.run("convert photos out --format webdataset").done();
    let whole = place.files("out");
    std::fs::remove_file(place.path("out/test-000000.tar")).expect("it is there");
    std::fs::write(place.path("out/train-000000.tar"), "half").expect("a file");
    let again = place.run("convert photos out --format webdataset --json").done().json();
    assert_eq!(again["shards_reused"], 0, "{again}");
    assert_eq!(place.files("out"), whole);
    assert_eq!(place.run("convert photos out --format webdataset --json").done().json()["shards_reused"], 2);
    place.run("convert photos out --format mds").refused(2, "holds another conversion");
    assert_eq!(place.files("out"), whole);
    place.run("convert photos out --format mds --overwrite").done();
    let names: Vec<String> = place.files("out").into_keys().collect();
    assert_eq!(
        names,
        [
            "convert.json",
            "test/index.json",
            "test/shard.00000.mds",
            "train/index.json",
            "train/shard.00000.mds"
        ]
    );
    // What a conversion did not write stays, whatever its record says.
    place.write("mine/notes.txt", b"mine");
    place.run("convert photos mine --format mds --overwrite").refused(2, "1 files that no conversion wrote");
    place.write(
        "mine/convert.json",
        br#"{"format": "mds", "fingerprint": "x", "files": ["notes.txt"], "is_finished": true}"#,
    );
    place.run("convert photos mine --format mds --overwrite").refused(1, "it is no file of Forebay's");
    assert_eq!(place.files("mine")["notes.txt"], b"mine");
    place.run("convert photos photos").refused(2, "the same place");
    place.run("convert photos photos/train/b/out").refused(2, "DEST");
    // What changes pixels is of prepare.
    for option in ["--size=64", "--encode=png", "--balance=over", "--augment=light", "--fit=crop"] {
        place
            .run(&format!("convert photos new {option}"))
            .refused(2, option.split('=').next().expect("a flag"));
    }
}

#[test]
fn a_source_may_be_one_file_and_several_by_their_numbers() {
    let place = Place::new();
    photos(&place);
    place.run("convert photos tars --format webdataset").done();
    let n = |source: &str| place.run(&format!("inspect {source} --json")).done().json()["found"].clone();
    assert_eq!(
        (n("tars"), n("tars/test-000000.tar"), n("tars/train-{000000..000000}.tar")),
        (7.into(), 2.into(), 5.into())
    );
    place.write("photos/test/list.csv", b"path,kind\nb/4.x,x\n\xc3\xa9/5.x.png,y\n");
    assert_eq!(n("photos/test/list.csv"), 2);
    place.run("inspect photos/test/none.csv").refused(2, "no dataset in photos/test/none.csv");
    place.run("inspect photos --layout mds").refused(2, "looked for index.json beside the .mds shards");
    place.run("inspect photos --label-column x").refused(2, "looked for");
}

#[test]
fn a_network_is_trained_scored_and_asked_on_tars_as_on_the_folder_that_they_are_of() {
    let place = Place::new();
    for n in 0..24 {
        place.write_png(&format!("photos/{}/{n}.png", ["a", "b"][n % 2]), 16, 16, n as u64);
    }
    place.run("convert photos tars --format webdataset").done();
    let options = "--arch small --size 16 --epochs 1 --batch-size 8 --seed 3 --json";
    let last = |source: &str| {
        let said = place.run(&format!("train {source} --out run-{source} {options}")).done().json();
        (said["best"].clone(), said["test"].clone())
    };
    assert_eq!(last("photos"), last("tars"));
    let of = |source: &str| {
        let said = place.run(&format!("predict run-photos {source} --json")).done().stdout;
        said.lines().count()
    };
    assert_eq!(of("photos"), of("tars"));
    place.run("eval run-tars").done();
    place.run("bench tars --size 16 --batch-size 8 --epochs 1").done();
}
