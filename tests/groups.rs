//! What belongs together stays together: copies, pictures that were changed a little, and what a column or a name says.

use std::collections::{BTreeMap, BTreeSet};

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, resize};
use serde_json::Value;

use crate::fixture::Place;

/// The split of every sample of a dataset, by its plan.
fn splits(place: &Place, dest: &str) -> BTreeMap<String, String> {
    let plan: Value = serde_json::from_slice(&place.files(dest)["plan.json"]).expect("a plan");
    let of = |split: &str| -> Vec<(String, String)> {
        let ids = plan["assignment"][split].as_array().expect("ids").iter();
        ids.map(|id| (id.as_str().expect("an id").to_string(), split.to_string())).collect()
    };
    ["train", "validation", "test"].into_iter().flat_map(of).collect()
}

/// A picture of soft blobs, 64 x 48.
fn picture(seed: u64) -> image::RgbImage {
    let mut stream = forebay_datasets::seed::Seed(seed).stream("blobs");
    let small = image::RgbImage::from_fn(8, 6, |_, _| image::Rgb([0; 3].map(|_: u8| stream.bits() as u8)));
    resize(&small, 64, 48, FilterType::CatmullRom)
}

fn write_jpeg(place: &Place, name: &str, image: &image::RgbImage, quality: u8) {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(image).expect("a JPEG");
    place.write(name, &bytes);
}

#[test]
fn copies_of_an_image_are_in_one_split_and_with_group_none_are_not() {
    let place = Place::new();
    for n in 0..40 {
        for copy in ["a", "b", "c"] {
            place.write_png(&format!("in/{}/{n}.{copy}.png", n % 2), 30, 60, n);
        }
    }
    place.run("prepare in out --encode png --size 8").done();
    let number = |id: &str| id.split(['/', '.']).nth(1).expect("a number").to_string();
    let torn = |splits: &BTreeMap<String, String>| {
        let mut of: BTreeMap<String, BTreeSet<&String>> = BTreeMap::new();
        for (id, split) in splits {
            of.entry(number(id)).or_default().insert(split);
        }
        assert!(splits.values().collect::<BTreeSet<_>>().len() == 3, "{splits:?}");
        of.values().filter(|splits| splits.len() > 1).count()
    };
    assert_eq!(torn(&splits(&place, "out")), 0);
    place.run("prepare in apart --encode png --size 8 --group none").done();
    assert!(torn(&splits(&place, "apart")) > 5);
    // Training on the images splits them as the shards were split.
    let plan = |source: &str, more: &str| {
        let said = place.run(&format!("plan train {source} --out run --arch resnet18 --json {more}"));
        said.done().json()["images"].clone()
    };
    assert_eq!(plan("in", ""), plan("out", ""));
    assert_eq!(plan("in", "--group none"), plan("apart", ""));
    place.run("plan train out --out run --group none").refused(2, "the shards were prepared with copies");
    place.run("prepare in out --encode png --size 8 --overwrite --group none").refused(2, "--resplit");
}

#[test]
fn pictures_that_were_changed_a_little_stay_together_and_nothing_old_moves() {
    let place = Place::new();
    let names = |n: u64| -> Vec<String> {
        ["full", "small", "mirrored", "worse"]
            .iter()
            .map(|kind| format!("{}/{n}-{kind}.jpg", n % 2))
            .collect()
    };
    for n in 0..24 {
        let image = picture(n);
        let small = resize(&image, 45, 34, FilterType::Triangle);
        let mirrored = image::imageops::flip_horizontal(&image);
        for (name, (image, quality)) in
            names(n).iter().zip([(&image, 95), (&small, 95), (&mirrored, 95), (&image, 40)])
        {
            write_jpeg(&place, &format!("in/{name}"), image, quality);
        }
    }
    let prepare = "prepare in out --size 16 --split 0.4,0.3,0.3 --group duplicates";
    place.run(prepare).done();
    let before = splits(&place, "out");
    for n in 0..24 {
        let of: BTreeSet<&String> = names(n).iter().map(|name| &before[name]).collect();
        assert_eq!(of.len(), 1, "picture {n}: {of:?}");
    }
    // One more of each comes to where the others are, though its own name says otherwise.
    for n in 0..24 {
        write_jpeg(&place, &format!("in/{}/a-{n}.jpg", n % 2), &picture(n), 70);
    }
    place.run(&format!("{prepare} --overwrite")).done();
    let after = splits(&place, "out");
    for n in 0..24 {
        assert_eq!(after[&format!("{}/a-{n}.jpg", n % 2)], before[&names(n)[0]], "picture {n}");
    }
    assert!(before.iter().all(|(id, split)| after[id] == *split));
}

#[test]
fn an_image_that_joins_two_groups_on_different_sides_is_named_and_moves_nothing() {
    let place = Place::new();
    // Of every third image the patient is not known at first.
    let table = |unknown: &str| -> String {
        let patient = |n: u32| if n % 3 == 2 { unknown.to_string() } else { format!("p{n}") };
        let rows = (0..30).map(|n| format!("{n}.png,x{},{}\n", n % 2, patient(n)));
        "file_name,label,patient\n".to_string() + &rows.collect::<String>()
    };
    for n in 0..30 {
        place.write_png(&format!("in/{n}.png"), 9, 9, n);
    }
    place.write("in/metadata.csv", table("").as_bytes());
    let prepare = "prepare in out --encode png --size 8 --split 0.4,0.3,0.3 --group-by patient";
    place.run(prepare).done();
    let first = splits(&place, "out");
    place.write("in/metadata.csv", table("zz").as_bytes());
    let said = place.run(&format!("{prepare} --overwrite")).done();
    assert!(
        said.stderr.contains("has joined what was split before, and nothing is moved"),
        "{}",
        said.stderr
    );
    assert_eq!(splits(&place, "out"), first);
    place.run(&format!("{prepare} --overwrite --resplit")).done();
    let together = splits(&place, "out");
    let of: BTreeSet<&String> = (0..10).map(|n| &together[&format!("{}.png", 3 * n + 2)]).collect();
    assert_eq!(of.len(), 1);
}

#[test]
fn what_declared_splits_share_is_told_and_patterns_are_checked() {
    let place = Place::new();
    for n in 0..6 {
        place.write_png(&format!("in/train/a/p{n}_1.png"), 9, 9, n);
        place.write_png(&format!("in/test/a/p{}_2.png", n + 3), 9, 9, n + 5);
    }
    let said = place.run("prepare in out --encode png --size 8").done();
    // Seed 5 is in both: train/a/p5_1.png and test/a/p3_2.png.
    let line = "several splits of the source, which makes scores too good: test/a/p3_2.png (test) and train/a/p5_1.png (train)";
    assert!(said.stderr.contains(line), "{}", said.stderr);
    let said = place.run("prepare in by --encode png --size 8 --group-by /(p[0-9]+)_").done();
    assert!(
        said.stderr.contains("(test) and train/a/p3_1.png (train), and another group"),
        "{}",
        said.stderr
    );
    for (by, line) in [
        ("(", "is no pattern: unclosed group"),
        ("(?:a)", "has no group in parentheses"),
        ("patient", "a column"),
        ("(zzz)", "says nothing of any sample"),
        ("^(.)", "puts all 12 samples in one group"),
    ] {
        place.run_with(&["plan", "prepare", "in", "other", "--group-by", by]).refused(2, line);
    }
    place.run("plan prepare in other --stratify").refused(2, "nothing is split by shares");
    place
        .run("plan prepare in other --keep-columns age")
        .refused(2, "(a folder per class has no columns to name)");
    // Nearly all in one group is worth a word.
    std::fs::remove_dir_all(place.path("in/test")).expect("a folder");
    let said = place.run_with(&["plan", "prepare", "in", "other", "--group-by", "/(p)[0-4]"]).done();
    assert!(said.stdout.contains("5 of 6 samples belong together"), "{}", said.stdout);
}

#[test]
fn a_stratified_split_gives_every_class_its_shares() {
    let place = Place::new();
    for n in 0..30 {
        place.write_png(&format!("in/{}/{n}.png", if n < 20 { "common" } else { "rare" }), 9, 9, n);
    }
    place.run("prepare in out --encode png --size 8 --split 0.6,0.2,0.2 --stratify").done();
    let mut counts: BTreeMap<(String, String), u32> = BTreeMap::new();
    for (id, split) in splits(&place, "out") {
        *counts.entry((id.split('/').next().expect("a class").to_string(), split)).or_default() += 1;
    }
    let of = |class: &str| ["train", "validation", "test"].map(|split| counts[&(class.into(), split.into())]);
    assert_eq!((of("common"), of("rare")), ([12, 4, 4], [6, 2, 2]));
}

#[test]
fn a_file_that_becomes_a_copy_of_one_in_another_split_is_named() {
    let place = Place::new();
    for n in 0..20 {
        place.write_png(&format!("in/{}/{n}.png", n % 2), 9, 9, n);
    }
    let prepare = "prepare in out --encode png --size 8 --split 0.5,0.3,0.2";
    place.run(prepare).done();
    let before = splits(&place, "out");
    let of = |split: &str| before.iter().find(|(_, of)| *of == split).expect("an image").0.clone();
    let (first, second) = (of("train"), of("validation"));
    let bytes = place.files("in")[&first].clone();
    place.write(&format!("in/{second}"), &bytes);
    let said = place.run(&format!("{prepare} --overwrite")).done();
    assert!(said.stderr.contains("has joined what was split before"), "{}", said.stderr);
    assert_eq!(splits(&place, "out"), before);
}

#[test]
fn stratified_shares_are_met_with_large_groups_too() {
    let place = Place::new();
    for n in 0..40 {
        let class = ["cat", "dog"][n % 2];
        let name = if n < 20 { format!("burst{class}_{n}") } else { format!("single{n}_{n}") };
        place.write_png(&format!("in/{class}/{name}.png"), 9, 9, n as u64);
    }
    for seed in 0..6 {
        let out = format!("out{seed}");
        place
            .run(&format!(
                "prepare in {out} --encode png --size 8 --stratify --group-by ([^/_]+)_[0-9]+ --split-seed {seed}"
            ))
            .done();
        let found = splits(&place, &out);
        let n = |split: &str| found.values().filter(|of| *of == split).count();
        assert_eq!([n("train"), n("validation"), n("test")], [32, 4, 4], "seed {seed}");
    }
}

#[test]
fn groups_of_several_classes_are_dealt_by_each_of_them() {
    let place = Place::new();
    let mut rows = String::from("file_name,label,patient\n");
    for n in 0..60_u64 {
        let (patient, is_rare) = (n / 6, n % 6 == 0);
        place.write_png(&format!("in/{n}.png"), 9, 9, n);
        rows += &format!("{n}.png,{},p{patient}\n", if is_rare { "malignant" } else { "benign" });
    }
    place.write("in/metadata.csv", rows.as_bytes());
    let prepare = "prepare in out --encode png --size 8 --group-by patient --stratify";
    place.run(prepare).done();
    let found = splits(&place, "out");
    let n = |split: &str, rare: bool| {
        let is_it = |id: &str| id.trim_end_matches(".png").parse::<u64>().is_ok_and(|n| (n % 6 == 0) == rare);
        found.iter().filter(|(id, of)| *of == split && is_it(id)).count()
    };
    for (split, patients) in [("train", 8), ("validation", 1), ("test", 1)] {
        assert_eq!((n(split, true), n(split, false)), (patients, 5 * patients), "{split}");
    }
    // Ten patients have the rare class: enough for five folds.
    let folds = "--folds 5 --fold 1 --group-by patient --split 1,0,0";
    place.run(&format!("plan train in --out run --arch small --size 8 {folds}")).done();
}

#[test]
fn a_table_beside_folders_of_classes_says_what_belongs_together() {
    let place = Place::new();
    let mut rows = String::from("file_name,patient\n");
    for n in 0..40_u64 {
        let class = ["cat", "dog"][(n % 2) as usize];
        place.write_png(&format!("in/{class}/{n}.png"), 9, 9, n);
        rows += &format!("{class}/{n}.png,p{}\n", n / 4);
    }
    place.write("in/metadata.csv", rows.as_bytes());
    place.run("prepare in out --encode png --size 8 --group-by patient --split 0.5,0.3,0.2").done();
    let found = splits(&place, "out");
    for patient in 0..10_u64 {
        let of: BTreeSet<&String> = (4 * patient..4 * patient + 4)
            .map(|n| &found[&format!("{}/{n}.png", ["cat", "dog"][(n % 2) as usize])])
            .collect();
        assert_eq!(of.len(), 1, "patient {patient}");
    }
}
