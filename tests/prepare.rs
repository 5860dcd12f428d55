//! `prepare`: what goes in comes out, the same bytes for any number of threads and after any kill.

use std::collections::BTreeMap;

use bytes::Bytes;
use forebay_datasets::shard::{Index, StoredRow};
use image::RgbImage;
use parquet::column::page::Page;
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::fixture::Place;

fn rows(file: Vec<u8>) -> Vec<StoredRow> {
    let file = Bytes::from(file);
    let index = Index::of_file(&file).unwrap();
    let groups = 0..index.footer().groups.len();
    groups
        .flat_map(|group| {
            let range = index.group_range(group);
            index.rows(group, file.slice(range.start as usize..range.end as usize)).unwrap()
        })
        .collect()
}

/// Of each row, columns and rows of the stored image and of the one that was read.
fn sizes(file: &[u8]) -> Vec<[(u32, u32); 2]> {
    let reader = SerializedFileReader::new(Bytes::copy_from_slice(file)).unwrap();
    let of = |row: parquet::record::Row| {
        let number = |name: &str| {
            let field = row.get_column_iter().find(|(column, _)| *column == name).expect(name).1;
            field.to_string().parse().expect("a number")
        };
        [(number("width"), number("height")), (number("original_width"), number("original_height"))]
    };
    reader.get_row_iter(None).unwrap().map(|row| of(row.unwrap())).collect()
}

fn shards(place: &Place, name: &str) -> BTreeMap<String, Vec<u8>> {
    place.files(name).into_iter().filter(|(name, _)| name.ends_with(".parquet")).collect()
}

#[test]
fn every_pixel_survives_png_and_raw_shards() {
    let place = Place::new();
    let mut originals: BTreeMap<String, RgbImage> = BTreeMap::new();
    for index in 0..12u32 {
        let name = format!("{}/{index}.PNG", ["cat", "dog"][index as usize % 2]);
        let (width, height) = (1 + index * 7 % 40, 1 + index * 11 % 30);
        originals
            .insert(name.clone(), place.write_png(&format!("in/{name}"), width, height, u64::from(index)));
    }
    for encode in ["png", "raw"] {
        place.run(&format!("prepare in {encode} --size original --encode {encode} --split none")).done();
        let mut found = 0;
        for file in shards(&place, encode).into_values() {
            let sizes = sizes(&file);
            for (row, sizes) in rows(file).into_iter().zip(sizes) {
                let stored = image::load_from_memory(&row.bytes).unwrap().to_rgb8();
                assert_eq!(stored, originals[&*row.id], "{} as {encode}", row.id);
                assert_eq!(sizes, [stored.dimensions(); 2]);
                found += 1;
            }
        }
        assert_eq!(found, originals.len());
    }
}

#[test]
fn one_two_and_eight_threads_write_the_same_bytes() {
    let place = Place::new();
    place.draw();
    let run = |threads: &str, out: &str| {
        let arguments = format!(
            "prepare images {out} --size 32 --fit crop --samples-per-shard 10 --balance over --augment strong \
             --max-rejects 10 --threads {threads}"
        );
        place.run(&arguments).done();
        place.files(out)
    };
    let one = run("1", "one");
    assert!(one.len() > 8, "{:?}", one.keys());
    assert!(one == run("2", "two"), "two threads wrote other bytes");
    assert!(one == run("8", "eight"), "eight threads wrote other bytes");
}

#[test]
fn a_killed_run_resumes_to_the_same_bytes_and_computes_no_finished_shard_again() {
    let place = Place::new();
    place.draw();
    let arguments = |out: &str| {
        format!(
            "prepare images {out} --size 48 --samples-per-shard 3 --encode png --max-rejects 10 --threads 1 --json"
        )
    };
    let whole = place.run(&arguments("whole")).done().json();
    let n_shards = whole["shards"].as_u64().unwrap();
    let mut killed = 0;
    for after in [1, 4, 9] {
        let out = format!("out{after}");
        let finished = || shards(&place, &out).len() >= after;
        if place.run_and_kill(&arguments(&out), finished) {
            killed += 1;
            assert!(!place.path(&out).join("manifest.json").exists(), "a killed run leaves no dataset");
            // What a kill in the middle of a put leaves behind.
            place.write(&format!("{out}/data/train-00000-of-00018.parquet#1"), b"half a shard");
        }
        let done = place.run(&arguments(&out)).done().json();
        let reused = done["shards_reused"].as_u64().unwrap();
        assert!(reused >= after as u64 && reused <= n_shards, "{reused} of {n_shards} after {after}");
        assert!(place.files(&out) == place.files("whole"), "killed after {after} shards: other bytes");
    }
    assert!(killed > 0, "no run lasted long enough to be killed");
    let again = place.run(&arguments("whole")).done().json();
    assert_eq!(again["shards_reused"], whole["shards"]);
}

#[test]
fn a_damaged_shard_is_written_again_and_verify_names_it() {
    let place = Place::new();
    place.draw();
    let prepare = "prepare images out --size 32 --samples-per-shard 20 --max-rejects 10 --json";
    let done = place.run(prepare).done().json();
    let before = place.files("out");
    assert!(
        place
            .run("verify out")
            .done()
            .stdout
            .ends_with("all as the manifest says; JPEG was decoded scaled\n")
    );
    let exact = prepare.replace(" out ", " exact ");
    place.run(&format!("{exact} --decode exact")).done();
    assert_eq!(place.run("verify exact --json").done().json()["decode"], "exact");
    let name = "data/train-00001-of-00003.parquet";
    let mut bytes = before[name].clone();
    bytes[200] ^= 1;
    place.write(&format!("out/{name}"), &bytes);
    place.run("verify out").refused(4, &format!("{name}: checksum"));
    std::fs::remove_file(place.path("out").join("data/test-00000-of-00001.parquet")).unwrap();
    place.run("verify out").refused(4, "data/test-00000-of-00001.parquet: missing");
    let again = place.run(prepare).done().json();
    assert_eq!(again["shards_reused"].as_u64().unwrap(), done["shards"].as_u64().unwrap() - 2);
    assert!(place.files("out") == before, "the same bytes again");
}

#[test]
fn a_shard_that_lacks_a_file_which_may_be_readable_by_now_is_made_again() {
    let place = Place::new();
    place.draw();
    let prepare = "prepare images out --size 32 --samples-per-shard 20 --max-rejects 10 --json";
    let done = place.run(prepare).done().json();
    let before = place.files("out");
    // No file is unreadable for every user that runs tests: what the decoder refused is told as if it had been one.
    let (decode, read) = (b"\"stage\":\"decode\"", b"\"stage\":\"read\"  ");
    let is_at = |bytes: &[u8]| bytes.windows(decode.len()).rposition(|found| found == decode);
    let shards: Vec<&String> =
        before.iter().filter(|(_, file)| is_at(file).is_some()).map(|(name, _)| name).collect();
    let shard = shards.into_iter().find(|name| name.ends_with(".parquet")).expect("a shard with a reject");
    let mut bytes = before[shard].clone();
    let at = is_at(&bytes).unwrap();
    bytes[at..at + read.len()].copy_from_slice(read);
    place.write(&format!("out/{shard}"), &bytes);
    let again = place.run(prepare).done().json();
    assert_eq!(again["shards_reused"].as_u64().unwrap(), done["shards"].as_u64().unwrap() - 1);
    assert!(place.files("out") == before, "the same bytes again");
}

#[test]
fn samples_are_conserved_and_every_reject_is_named() {
    let place = Place::new();
    place.draw();
    let done =
        place.run("prepare images out --size 32 --balance under --max-rejects 10 --json").done().json();
    let count = |key: &str| done[key].as_u64().unwrap();
    assert_eq!(count("written") + count("rejected") + count("dropped"), count("found"));
    assert!(count("dropped") > 0 && count("rejected") > 0);
    let rejects = String::from_utf8(place.files("out")["rejects.jsonl"].clone()).unwrap();
    assert_eq!(rejects.lines().count() as u64, count("rejected"), "{rejects}");
    assert!(rejects.lines().all(|line| line.contains("\"stage\":\"decode\"")), "{rejects}");
    assert!(count("peak_memory_bytes") > 1 << 20 && done["cpu_seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn only_the_training_split_is_balanced_and_augmented() {
    let place = Place::new();
    for index in 0..40 {
        let class = if index < 32 { "many" } else { "few" };
        place.write_png(&format!("in/{class}/{index}.png"), 9, 9, index);
    }
    let plain = "prepare in plain --size original --encode png --split 0.5,0.25,0.25";
    place.run(plain).done();
    let balanced = "prepare in balanced --size original --encode png --split 0.5,0.25,0.25 --balance over --augment strong";
    let said = place.run(balanced).done();
    let train = |name: &str| rows(place.files(name)["data/train-00000-of-00001.parquet"].clone());
    let of = |rows: &[StoredRow], label: u32| rows.iter().filter(|row| row.label == label).count();
    let (few, many) = (of(&train("plain"), 0), of(&train("plain"), 1));
    assert!(few > 0 && few < many, "{few} {many}");
    assert!(said.stderr.contains("few") && said.stderr.contains(&many.to_string()), "{}", said.stderr);
    for split in ["validation", "test"] {
        let name = format!("data/{split}-00000-of-00001.parquet");
        assert_eq!(
            rows(place.files("plain")[&name].clone()),
            rows(place.files("balanced")[&name].clone()),
            "{split}"
        );
    }
    let train = train("balanced");
    assert_eq!((of(&train, 0), of(&train, 1)), (many, many));
    let copies: Vec<&StoredRow> = train.iter().filter(|row| row.id == train[0].id).collect();
    for pair in copies.windows(2) {
        assert_ne!(pair[0].bytes, pair[1].bytes, "copies are drawn anew");
    }
    place.run("train balanced --out run --balance over").refused(2, "balanced already");
    place.run("train balanced --out run --augment light").refused(2, "augmented already");
}

#[test]
fn without_augment_the_summary_recommends_the_sampler() {
    let place = Place::new();
    place.draw();
    let said = place.run("prepare images out --size 16 --balance over --max-rejects 10").done();
    assert!(said.stderr.contains("costs no disk"), "{}", said.stderr);
}

#[test]
fn adding_images_moves_no_old_one_to_another_split() {
    let place = Place::new();
    let add = |range: std::ops::Range<u64>| {
        for index in range {
            place.write_png(&format!("in/{}/{index}.png", ["a", "b"][index as usize % 2]), 4, 4, index);
        }
    };
    add(0..30);
    place.run("prepare in out --encode png").done();
    let splits = || -> BTreeMap<String, String> {
        let of = |name: &str| name["data/".len()..].split('-').next().unwrap().to_string();
        let shards = shards(&place, "out").into_iter();
        shards
            .flat_map(|(name, file)| rows(file).into_iter().map(move |row| (row.id.to_string(), of(&name))))
            .collect()
    };
    let before = splits();
    add(30..90);
    place.run("prepare in out --encode png").refused(2, "holds another dataset");
    place.run("prepare in out --encode png --overwrite").done();
    let after = splits();
    assert_eq!(after.len(), 90);
    for (id, split) in &before {
        assert_eq!(&after[id], split, "{id}");
    }
    let again = place.run("prepare in out --encode png --json").done().json();
    assert_eq!(again["shards_reused"], again["shards"], "an overwritten dataset resumes as any other");
}

#[test]
fn no_page_of_a_shard_is_empty_and_the_features_stand_in_both_places() {
    let place = Place::new();
    place.draw();
    for encode in ["jpeg", "png", "raw"] {
        place.run(&format!("prepare images {encode} --size 64 --encode {encode} --max-rejects 10")).done();
        for (name, file) in shards(&place, encode) {
            let reader = SerializedFileReader::new(Bytes::from(file)).unwrap();
            let pairs = reader.metadata().file_metadata().key_value_metadata().unwrap();
            let value =
                |key: &str| pairs.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone());
            assert!(value("huggingface").unwrap().contains(r#""image": {"_type": "Image"}"#), "{name}");
            assert!(value("ARROW:schema").is_some());
            for group in 0..reader.num_row_groups() {
                let group = reader.get_row_group(group).unwrap();
                assert!(group.metadata().num_rows() > 0, "{name}: a row group without rows");
                for column in 0..group.num_columns() {
                    for page in group.get_column_page_reader(column).unwrap() {
                        let page = page.unwrap();
                        let is_data = !matches!(page, Page::DictionaryPage { .. });
                        assert!(!is_data || page.num_values() > 0, "{name}: a page without rows");
                    }
                }
            }
        }
        let card = String::from_utf8(place.files(encode)["README.md"].clone()).unwrap();
        assert!(card.contains("path: data/train-*") && card.contains("'7': \"triangle\""), "{card}");
    }
}

#[test]
fn an_interrupted_run_keeps_whole_shards_and_says_how_to_go_on() {
    let place = Place::new();
    place.draw();
    let arguments =
        "prepare images out --size 256 --samples-per-shard 2 --encode png --max-rejects 10 --threads 1";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let child = place.command(&arguments).spawn().unwrap();
        let before = shards(&place, "out").len();
        while shards(&place, "out").len() <= before {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        let said = crate::fixture::Said::of(child.wait_with_output().unwrap());
        said.refused(code, "the same command goes on from there");
        assert!(!place.path("out/manifest.json").exists());
    }
    place.run_with(&arguments).done();
    place.run("verify out").done();
}

#[test]
fn a_plan_is_printed_and_runs_nothing() {
    let place = Place::new();
    place.draw();
    let said = place.run("plan prepare images out --size 32 --fit crop").done();
    for text in ["decode", "write", "memory", "train ", "at most", "fingerprint"] {
        assert!(said.stdout.contains(text), "{text} in {}", said.stdout);
    }
    assert!(!place.path("out").exists());
}

#[test]
fn a_closed_stdout_ends_quietly() {
    let place = Place::new();
    for index in 0..8 {
        place.write_png(&format!("in/{}/{index}.png", ["a", "b"][index as usize % 2]), 6, 6, index);
    }
    let mut child = place.command(&["inspect", "in"]).spawn().unwrap();
    drop(child.stdout.take());
    let said = crate::fixture::Said::of(child.wait_with_output().unwrap());
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
}

#[test]
fn labels_are_mended_by_id_and_what_was_done_is_accounted_for() {
    let place = Place::new();
    for index in 0..24u64 {
        place.write_png(&format!("in/{}/{index}.png", ["cat", "dog"][index as usize % 2]), 16, 16, index);
    }
    place.write("in/cat/broken.png", b"no image");
    let prepare = "prepare in shards --size 16 --encode raw --split none --max-rejects 3";
    place.run(prepare).done();
    let plain = place.files("shards");
    // Nothing happens until somebody has decided something.
    place.write("fixes.csv", b"id,action,label,suggested\ncat/0.png,keep,cat,dog\ncat/2.png,,cat,dog\n");
    place.run(&format!("{prepare} --fixes fixes.csv --overwrite")).done();
    for (name, bytes) in shards(&place, "shards") {
        assert_eq!(plain[&name], bytes, "{name}");
    }
    place.write(
        "fixes.csv",
        b"id,action,label,suggested\ncat/0.png,relabel,cat,dog\ncat/2.png,drop,cat,dog\ndog/1.png,keep,,\n",
    );
    let plan = place.run("plan prepare in other --size 16 --fixes fixes.csv").done();
    assert!(
        plan.stdout.contains("  fixes        1 relabelled, 1 dropped, 1 kept as they are\n"),
        "{}",
        plan.stdout
    );
    let refused = place.run(&format!("{prepare} --fixes fixes.csv"));
    refused.refused(2, "fixes");
    let said = place.run(&format!("{prepare} --fixes fixes.csv --overwrite")).done();
    assert!(
        said.stdout.contains(
            "25 found = 23 written + 1 rejected + 0 dropped by the balance + 1 dropped by --fixes\n"
        ),
        "{}",
        said.stdout
    );
    let found: BTreeMap<String, u32> = shards(&place, "shards")
        .into_values()
        .flat_map(rows)
        .map(|row| (row.id.to_string(), row.label))
        .collect();
    assert_eq!((found.len(), found["cat/0.png"], found["cat/4.png"]), (23, 1, 0));
    assert!(!found.contains_key("cat/2.png"));
    let files = place.files("shards");
    let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    let fixes = serde_json::json!({"relabelled": 1, "dropped": 1, "kept": 1});
    assert_eq!((&manifest["fixes"], &manifest["settings"]["fixes"]), (&fixes, &fixes));
    assert_eq!((&manifest["counts"]["found"], &manifest["counts"]["dropped"]), (&25.into(), &1.into()));
    let card = String::from_utf8(files["README.md"].clone()).unwrap();
    assert!(card.contains("1 were relabelled and 1 left out"), "{card}");
    place.run("verify shards").done();
}

#[test]
fn fixes_that_cannot_be_are_named_in_one_answer() {
    let place = Place::new();
    for index in 0..8u64 {
        place.write_png(&format!("in/{}/{index}.png", ["cat", "dog"][index as usize % 2]), 16, 16, index);
    }
    let prepare = "prepare in shards --size 16 --fixes fixes.csv";
    place.run(prepare).refused(2, "cannot read --fixes fixes.csv: there is no such file");
    place.write("fixes.csv", b"id,action,suggested\nno/1.png,drop,\ncat/0.png,relabel,fox\nno/2.png,keep,\n");
    place
        .run(prepare)
        .refused(2, "--fixes fixes.csv: these are the ids of no image of SOURCE: no/1.png, no/2.png")
        .refused(2, "SOURCE has no class called (it has cat, dog): fox (for cat/0.png)");
    place.write("fixes.csv", b"id,action,suggested\ncat/0.png,delete,\ncat/0.png,drop,\n");
    place
        .run(prepare)
        .refused(2, "an action is keep, relabel or drop, and not delete (line 2)")
        .refused(2, "an image has one line, but these have two: cat/0.png (lines 2 and 3)");
    assert!(!place.path("shards/manifest.json").exists());
}
