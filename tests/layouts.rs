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

/// Split, class, id and pixels of every sample of a source, read with `options`: those of the shards that `prepare` makes of
/// it.
fn samples(place: &Place, source: &str, options: &str) -> BTreeSet<(String, String, String, Vec<u8>)> {
    place
        .run(&format!("prepare {source} read-back --size original --encode png --overwrite {options}"))
        .done();
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

const FORMS: [&str; 3] = ["parquet", "webdataset", "mds"];

/// How a form is read again as what it is to other programs.
fn reading(form: &str) -> &'static str {
    if form == "parquet" { "--layout parquet" } else { "" }
}

#[test]
fn every_form_becomes_every_other_with_the_same_ids_classes_and_pixels() {
    let place = Place::new();
    photos(&place);
    let expected = samples(&place, "photos", "");
    assert_eq!(expected.len(), 7);
    place.run("prepare photos shards --size original --encode png").done();
    for first in FORMS {
        for source in ["photos", "shards"] {
            let said = place
                .run(&format!("convert {source} {source}-{first} --format {first} --json"))
                .done()
                .json();
            assert_eq!((&said["written"], &said["rejected"]), (&7.into(), &0.into()), "{said}");
            let found = samples(&place, &format!("{source}-{first}"), reading(first));
            assert_eq!(found, expected, "{source} as {first}");
        }
    }
    // The same form again is the same bytes, whatever stood between; Parquet says where each row comes from.
    let digests = |folder: &str| -> Vec<(String, blake3::Hash)> {
        let files = place.files(folder).into_iter().filter(|(name, _)| name.starts_with("data/"));
        files.map(|(name, bytes)| (name, blake3::hash(&bytes))).collect()
    };
    for first in FORMS {
        for second in FORMS {
            let to = format!("{first}-{second}");
            place.run(&format!("convert photos-{first} {to} --format {second}")).done();
            match second {
                "parquet" => assert_eq!(samples(&place, &to, reading(second)), expected, "{to}"),
                _ => assert_eq!(digests(&to), digests(&format!("photos-{second}")), "{to}"),
            }
        }
    }
}

#[test]
fn a_conversion_keeps_files_byte_for_byte_and_is_trained_on() {
    let place = Place::new();
    photos(&place);
    place.run("convert photos shards").done();
    let file = place.files("photos")["train/b/0.x.png"].clone();
    let shard = place.files("shards").into_iter().find(|(name, _)| name.starts_with("data/train"));
    let shard = shard.expect("a shard").1;
    assert!(shard.windows(file.len()).any(|bytes| bytes == file), "the file is in the shard as it is");
    place.run("verify shards").done();
    let said = place.run("inspect shards").done().stdout;
    assert!(said.contains("images stored as kept"), "{said}");
    let traced = place.run("trace shards train/b/0.x.png --json").done().json();
    let hash = blake3::hash(&file).to_hex().to_string();
    assert_eq!(traced["rows"][0]["source_blake3"], Value::from(hash), "{traced}");
    place.run("bench shards --size 16 --batch-size 4 --epochs 1").done();
}

#[test]
fn a_conversion_goes_on_where_it_stopped_and_replaces_nothing_unasked() {
    let place = Place::new();
    photos(&place);
    place.run("convert photos out --format webdataset").done();
    let whole = place.files("out");
    std::fs::remove_file(place.path("out/data/test-000000.tar")).expect("it is there");
    std::fs::write(place.path("out/data/train-000000.tar"), "half").expect("a file");
    place.run("verify out").refused(4, "train-000000.tar: 4 bytes, the manifest says");
    let again = place.run("convert photos out --format webdataset --json").done().json();
    assert_eq!(again["shards_reused"], 0, "{again}");
    assert_eq!(place.files("out"), whole);
    assert_eq!(place.run("convert photos out --format webdataset --json").done().json()["shards_reused"], 2);
    place.run("verify out").done();
    // A record without its shard, a shard of which a byte has flipped, and one that lost its record: each is made again.
    let key = "out/data/train-000000.tar";
    let mut flipped = place.files("out")["data/train-000000.tar"].clone();
    flipped[600] ^= 1;
    std::fs::write(place.path(key), &flipped).expect("a file");
    std::fs::remove_file(place.path("out/.forebay/data/test-000000.tar.json")).expect("it is there");
    let again = place.run("convert photos out --format webdataset --json").done().json();
    assert_eq!(again["shards_reused"], 0, "{again}");
    assert_eq!(place.files("out"), whole);
    place
        .run("convert photos out --format mds")
        .refused(2, "holds another dataset: shards.format \"webdataset\" -> \"mds\"");
    assert_eq!(place.files("out"), whole);
    place.run("convert photos out --format mds --overwrite").done();
    let names: Vec<String> = place.files("out").into_keys().collect();
    assert_eq!(
        names,
        [
            ".forebay/data/test/shard.00000.mds.json",
            ".forebay/data/train/shard.00000.mds.json",
            "data/test/index.json",
            "data/test/shard.00000.mds",
            "data/train/index.json",
            "data/train/shard.00000.mds",
            "manifest.json",
            "plan.json",
            "rejects.jsonl",
        ]
    );
    place.run("convert photos out --overwrite").done();
    place.run("verify out").done();
    assert!(!place.files("out").keys().any(|name| name.contains("mds") || name.contains("index.json")));
    // What no run of Forebay wrote stays.
    place.write("mine/data/train-000000.tar", b"mine");
    for options in ["--format webdataset", "--format mds --overwrite"] {
        place.run(&format!("convert photos mine {options}")).refused(2, "is not of this program");
    }
    place.write("index/data/train/index.json", b"mine");
    place.run("convert photos index --format mds --overwrite").refused(2, "is not of this program");
    assert_eq!(place.files("mine").len() + place.files("index").len(), 2);
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
fn what_is_prepared_is_the_same_in_each_form() {
    let place = Place::new();
    for n in 0..230 {
        let class = ["a", "b", "c"][usize::from(n % 10 == 0) + usize::from(n % 50 == 0)];
        place.write_png(&format!("photos/{class}/{n:03}.png"), 9 + n % 5, 8, u64::from(n));
    }
    place.write("photos/a/broken.png", b"\x89PNG\r\n\x1a\nno more");
    let options = "--size 8 --fit crop --encode png --balance over --max-repeats 3 --samples-per-shard 100 --group none";
    for form in FORMS {
        let prepared = format!("prepare photos {form} {options} --format {form} --json");
        let said = place.run(&prepared).done().json();
        assert_eq!((&said["found"], &said["rejected"]), (&231.into(), &1.into()), "{said}");
        place.run(&format!("verify {form}")).done();
        let again = place.run(&prepared).done().json();
        assert_eq!(again["shards_reused"], again["shards"], "{again}");
    }
    let rows = |form: &str| {
        let layout = reading(form);
        let said = place.run(&format!("inspect {form} {layout} --json")).done().json();
        (said["found"].clone(), said["classes"].clone())
    };
    assert_eq!(rows("webdataset"), rows("parquet"));
    assert_eq!(rows("mds"), rows("parquet"));
    let once: Vec<_> = FORMS.iter().map(|form| samples(&place, form, reading(form))).collect();
    assert!(once.iter().all(|rows| *rows == once[0] && rows.len() > 230), "{:?}", once[0].len());
    // What is balanced is not balanced again, whatever it is written as.
    for form in FORMS {
        place
            .run(&format!("plan train {form} --out run --arch small --size 8 --balance over"))
            .refused(2, "balanced already");
        place.run(&format!("convert {form} {form}-again --format parquet")).done();
        place
            .run(&format!("plan train {form}-again --out run --arch small --size 8 --balance over"))
            .refused(2, "balanced already");
    }
    place.run("trace webdataset a/001.png").refused(2, "is written as webdataset");
    place
        .run("prepare photos more --format mds --size 8 --samples-per-shard 10000000")
        .refused(2, "give fewer");
}

#[test]
fn a_source_may_be_one_file_and_several_by_their_numbers() {
    let place = Place::new();
    photos(&place);
    place.run("convert photos tars --format webdataset").done();
    let n = |source: &str| place.run(&format!("inspect {source} --json")).done().json()["found"].clone();
    assert_eq!(
        (n("tars"), n("tars/data/test-000000.tar"), n("tars/data/train-{000000..000000}.tar")),
        (7.into(), 2.into(), 5.into())
    );
    place.write("photos/test/list.csv", b"path,kind\nb/4.x,x\n\xc3\xa9/5.x.png,y\n");
    assert_eq!(n("photos/test/list.csv"), 2);
    place.run("inspect photos/test/none.csv").refused(2, "photos/test/none.csv: there is no such file");
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

#[test]
fn a_name_stays_the_same_however_often_it_is_written_and_read() {
    let place = Place::new();
    for (n, class) in ["d\\e", "new\nline", "plain"].into_iter().enumerate() {
        place.write_png(&format!("in/{class}/x\\{n}.png"), 9, 9, n as u64);
    }
    let names = |source: &str, options: &str| {
        let said = place.run(&format!("inspect {source} {options} --json")).done().json();
        said["classes"].clone()
    };
    let classes = names("in", "");
    place.run("convert in w1 --format webdataset").done();
    place.run("convert w1 m1 --format mds").done();
    place.run("convert m1 p1").done();
    place.run("convert p1 w2 --format webdataset").done();
    for (source, options) in [("w1", ""), ("m1", ""), ("p1", "--layout parquet"), ("w2", "")] {
        assert_eq!(names(source, options), classes, "{source}");
    }
    let tar = |folder: &str| place.files(folder)["data/train-000000.tar"].clone();
    assert_eq!(tar("w1"), tar("w2"));
    let traced = place.run("trace p1 d\\\\e/x\\\\0.png --json").done().json();
    assert_eq!(traced["id"], "d\\\\e/x\\\\0.png", "{traced}");
}

#[test]
fn sizes_of_images_in_parquet_are_their_own() {
    let place = Place::new();
    for n in 0..24u32 {
        // In the order of their classes, and all of one size: a mean of each group would tell the classes apart.
        place.write_png(&format!("in/{}/{n}.png", n / 12), 9 + n % 2, 9, u64::from(n));
    }
    place.run("convert in parquet").done();
    let of = |source: &str| {
        let said = place.run(&format!("inspect {source} --json")).done().json();
        (said["bytes"].clone(), said["files"]["bytes"].clone(), said["shortcuts"].clone())
    };
    assert_eq!(of("parquet --layout parquet"), of("in"));
}

#[test]
fn columns_that_are_named_are_those_of_the_layout_or_refused_and_go_along() {
    let place = Place::new();
    for n in 0..8 {
        place.write_png(&format!("in/images/{n}.png"), 9, 9, n);
    }
    let rows: String = (0..8).map(|n| format!("images/{n}.png,c{},p{n}\n", n % 2)).collect();
    place.write("in/list.csv", format!("file_name,label,patient\n{rows}").as_bytes());
    place.run("prepare in kept --size 8 --encode png --split none --keep-columns patient").done();
    place.run("convert kept tars --format webdataset").done();
    place.run("convert tars again --keep-columns patient").done();
    for n in [0, 7] {
        let said = place.run(&format!("trace again images/{n}.png --json")).done().json();
        assert_eq!(said["rows"][0]["kept"], serde_json::json!([["patient", format!("p{n}")]]));
    }
    for (source, options, says) in [
        ("photos", "--layout folder --keep-columns patient", "--layout folder has no such column to name"),
        ("photos", "--layout folder --label-column x", "--layout folder has no such column to name"),
        ("cifar", "--keep-columns patient", "no dataset in"),
        ("cifar", "--layout cifar --keep-columns patient", "--layout cifar has no such column to name"),
    ] {
        photos(&place);
        place.write("cifar/data_batch_1.bin", &[0; 3073 * 3]);
        place.run(&format!("prepare {source} out {options}")).refused(2, says);
    }
}
