//! Bad input gets one clear line, the documented exit code, and loses nothing.

use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;

use crate::fixture::Place;

fn two_classes(place: &Place) {
    for index in 0..8 {
        place.write_png(&format!("in/{}/{index}.png", ["a", "b"][index as usize % 2]), 6, 6, index);
    }
}

#[test]
fn sources_that_hold_nothing() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("empty")).unwrap();
    place.write("file.jpg", b"x");
    for command in ["prepare", "plan prepare"] {
        place.run(&format!("{command} empty out")).refused(2, "empty");
        place.run(&format!("{command} missing out")).refused(2, "there is no such folder");
        place.run(&format!("{command} file.jpg out")).refused(2, "is a file");
    }
    place.run("train empty --out run").refused(2, "empty");
    place.run("inspect missing").refused(2, "there is no such folder");
    for command in ["inspect", "plan train", "train --out run", "bench", "verify"] {
        place.run(&format!("{command} file.jpg")).refused(2, "file.jpg is a file: give the folder");
    }
    place.run("verify empty").refused(2, "no manifest.json");
    place.run("prepare in").refused(2, "DEST is missing");
    assert!(!place.path("out").exists() && !place.path("run").exists());
}

#[test]
fn an_image_without_pixels_costs_no_other() {
    let place = Place::new();
    two_classes(&place);
    for (name, bytes) in
        [("wide.ppm", "P6 0 5 255\n"), ("high.ppm", "P6 5 0 255\n"), ("gray.pgm", "P5 0 5 255\n")]
    {
        place.write(&format!("in/a/{name}"), bytes.as_bytes());
    }
    for fit in ["shortest", "crop", "pad", "squash"] {
        let prepare = format!("prepare in {fit} --size 8 --fit {fit} --split none --max-rejects 3 --json");
        let said = place.run(&prepare).done();
        let done = said.json();
        assert_eq!((&done["rejected"], &done["written"]), (&3.into(), &8.into()), "{done}");
    }
    place.run("bench in --size 8 --seconds 0.05 --repetitions 1 --split none --max-rejects 3").done();
}

#[test]
fn one_class_is_prepared_with_a_warning_and_not_trained() {
    let place = Place::new();
    for index in 0..10 {
        place.write_png(&format!("in/only/{index}.png"), 4, 4, index);
    }
    let said = place.run("prepare in out --encode png").done();
    assert!(said.stderr.contains("warning") && said.stderr.contains("class"), "{}", said.stderr);
    place.run("train out --out run").refused(2, "two or more");
    place.run("train in --out run").refused(2, "two or more");
}

#[test]
fn a_class_with_one_image_is_named_with_the_splits_that_lack_it() {
    let place = Place::new();
    two_classes(&place);
    place.write_png("in/single/1.png", 4, 4, 9);
    let said = place.run("prepare in out --encode png --size original").done();
    assert!(
        said.stderr.lines().any(|line| line.contains("single") && line.contains("warning")),
        "{}",
        said.stderr
    );
    let manifest: serde_json::Value = serde_json::from_slice(&place.files("out")["manifest.json"]).unwrap();
    let splits = manifest["splits"].as_array().unwrap();
    let of = |name: &str| splits.iter().find(|split| split["split"] == name);
    let mut n = 0;
    for name in ["train", "validation", "test"] {
        let rows = of(name).map_or(0, |split| split["classes"][2]["rows"].as_u64().unwrap());
        let line = format!("no image in {name}");
        let is_named = said.stderr.lines().any(|said| said.contains(&line) && said.contains("single"));
        assert_eq!(is_named, rows == 0, "{name}: {}", said.stderr);
        n += rows;
    }
    assert_eq!(n, 1);
}

#[test]
fn broken_files_are_rejects_with_reasons() {
    let place = Place::new();
    two_classes(&place);
    let noise: Vec<u8> = (0..64 * 64 * 3u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let encoder = libjpeg_turbo_rs::Encoder::new(&noise, 64, 64, libjpeg_turbo_rs::PixelFormat::Rgb);
    let jpeg = encoder.quality(90).encode().unwrap();
    let half = &jpeg[..jpeg.len() / 2];
    let mut huge = jpeg.clone();
    let sof = huge.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    huge[sof + 5..sof + 9].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]);
    let cases: [(&str, &[u8]); 6] = [
        ("text.jpg", b"<html>404 not found</html>"),
        ("zero.png", b""),
        ("magic.jpg", &[0xff, 0xd8, 0xff]),
        ("half.jpg", half),
        ("nearly.jpg", &jpeg[..jpeg.len() * 99 / 100]),
        ("huge.jpg", &huge),
    ];
    for (name, bytes) in cases {
        place.write(&format!("in/a/{name}"), bytes);
    }
    place.write("in/a/whole.jpg", &jpeg);
    place.write("in/a/no-end.jpg", &jpeg[..jpeg.len() - 2]);
    place.write("in/a/trailing.jpg", &[jpeg.as_slice(), b"trailing bytes"].concat());
    place.write_png("in/b/wide.png", 500, 1, 1);
    place.write_png("in/b/high.png", 1, 500, 2);
    let done = place.run("prepare in out --size 16 --split none --max-rejects 6 --json").done().json();
    assert_eq!((done["rejected"].as_u64(), done["written"].as_u64()), (Some(6), Some(13)));
    let rejects = String::from_utf8(place.files("out")["rejects.jsonl"].clone()).unwrap();
    for (name, _) in cases {
        assert!(rejects.contains(&format!("a/{name}")), "{name} in {rejects}");
    }
    assert!(rejects.contains("65535"), "{rejects}");
    let said = place.run("inspect in").done();
    assert!(
        said.stdout.contains("a/half.jpg") && said.stdout.contains("6 would be rejected"),
        "{}",
        said.stdout
    );
    // A budget that is spent leaves no dataset, and everything else as it was.
    place.run("prepare in none --size 16 --split none --max-rejects 5").refused(3, "--max-rejects");
    assert!(!place.path("none/manifest.json").exists());
}

#[test]
fn a_dataset_of_broken_files_only_is_no_dataset() {
    let place = Place::new();
    place.write("in/a/1.jpg", b"x");
    place.write("in/b/2.jpg", b"y");
    place.run("prepare in out --max-rejects 1.0").refused(3, "nothing was written");
    place.run("train in --out run --max-rejects 1.0").refused(3, "no training image");
}

#[test]
fn training_counts_and_names_what_it_cannot_read() {
    let place = Place::new();
    for index in 0..20 {
        place.write_png(&format!("in/{}/{index}.png", ["a", "b"][index % 2]), 16, 16, index as u64);
    }
    place.write("in/a/broken.png", b"no image");
    std::os::unix::fs::symlink("nowhere.png", place.path("in/b/dangling.png")).unwrap();
    let train = "train in --size 16 --batch-size 8 --epochs 2 --split none --max-rejects 2 --json --out";
    let said = place.run(&format!("{train} run")).done();
    assert!(said.stderr.contains("1 of the files can be no samples"), "{}", said.stderr);
    let done = said.json();
    assert_eq!((done["found"].as_u64(), done["rejected"].as_u64()), (Some(22), Some(2)), "{done}");
    let rejects = place.files("run")["rejects.jsonl"].clone();
    let rejects = String::from_utf8(rejects).unwrap();
    assert_eq!(rejects.lines().count(), 2, "{rejects}");
    for id in ["a/broken.png", "b/dangling.png"] {
        assert!(rejects.contains(id), "{rejects}");
    }
    // A resumed run knows what the one before has refused.
    place.run(&format!("{train} run --resume").replace("--epochs 2", "--epochs 3")).done();
    assert_eq!(String::from_utf8(place.files("run")["rejects.jsonl"].clone()).unwrap(), rejects);
    let said = place
        .run("bench in --size 16 --batch-size 8 --split none --max-rejects 2 --epochs 1 --json")
        .done()
        .json();
    assert_eq!(said["rejected"], 2, "{said}");
    // What is too much before anything is read leaves no run.
    for index in 0..30 {
        std::os::unix::fs::symlink("nowhere.png", place.path(&format!("in/b/{index}-dangling.png"))).unwrap();
    }
    place
        .run(&format!("{train} other").replace("--max-rejects 2", "--max-rejects 0.5"))
        .refused(3, "dangling");
    assert!(!place.path("other/last.safetensors").exists());
}

#[test]
fn odd_names_are_samples_or_named_rejects() {
    let place = Place::new();
    two_classes(&place);
    let odd =
        ["with space.png", "ünï-😀.png", "a#1.png", "100%.png", "..dots..png", "[x].png", "quote\".png"];
    for (index, name) in odd.iter().enumerate() {
        place.write_png(&format!("in/c d/{name}"), 5, 5, index as u64);
    }
    place.write_png("in/a/new\nline.png", 5, 5, 1);
    let bytes = std::fs::read(place.path("in/a/0.png")).unwrap();
    let not_utf8 = std::ffi::OsString::from_vec(b"bad-\xff.png".to_vec());
    std::fs::write(place.path("in/a").join(not_utf8), bytes).unwrap();
    symlink(place.path("in"), place.path("in/a/loop")).unwrap();
    symlink(place.path("in/a/nowhere"), place.path("in/a/broken.png")).unwrap();
    for hidden in ["in/.DS_Store", "in/a/._0.png", "in/a/Thumbs.db", "in/__MACOSX/a/0.png", "in/a/notes.txt"]
    {
        place.write(hidden, b"x");
    }
    let done =
        place.run("prepare in out --encode png --size original --split none --max-rejects 50 --json").done();
    let json = done.json();
    let rejects = String::from_utf8(place.files("out")["rejects.jsonl"].clone()).unwrap();
    let ids: Vec<String> = rejects
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_string()
        })
        .collect();
    // A line break and a byte that is not UTF-8 are escaped in the id, and read by the true name.
    assert_eq!(ids, ["a/broken.png"]);
    let count = |key: &str| json[key].as_u64().unwrap();
    assert_eq!(count("written") + count("rejected"), count("found"));
    for name in odd {
        assert!(!ids.iter().any(|id| id.contains(name)), "{name} is a sample: {rejects}");
    }
    place.run("verify out").done();
}

#[test]
fn destinations_that_cannot_be_written() {
    let place = Place::new();
    two_classes(&place);
    place.write("file", b"a regular file");
    place.run("prepare in file/below").refused(1, "file/below");
    place.run("train in --out file/below --size 16 --epochs 1").refused(1, "file/below");
    assert_eq!(std::fs::read(place.path("file")).unwrap(), b"a regular file");
    place.run("prepare in in").refused(2, "both");
    place.run("prepare in gopher://x/y").refused(2, "gopher");
}

#[test]
fn a_full_disk_is_one_line_and_a_resume_finishes_the_work() {
    let place = Place::new();
    for index in 0..8 {
        place.write_png(&format!("in/{}/{index}.png", ["a", "b"][index as usize % 2]), 200, 200, index);
    }
    let arguments = "prepare in out --encode raw --size original --split none --samples-per-shard 2";
    let script = format!("ulimit -f 64; exec {} {arguments}", env!("CARGO_BIN_EXE_forebay"));
    let output = std::process::Command::new("bash")
        .arg("-c")
        .arg(script)
        .current_dir(place.path(""))
        .output()
        .unwrap();
    let said = crate::fixture::Said::of(output);
    said.refused(1, "cannot write");
    assert!(!place.path("out/manifest.json").exists());
    assert!(place.files("out").keys().all(|name| !name.contains('#')), "{:?}", place.files("out").keys());
    place.run(arguments).done();
    place.run("verify out").done();
}

#[test]
fn another_dataset_is_replaced_only_when_asked() {
    let place = Place::new();
    two_classes(&place);
    place.run("prepare in out --encode png").done();
    place.write("out/notes.txt", b"mine");
    let before = place.files("out");
    place.run("prepare in out --encode raw").refused(2, "--overwrite");
    place.run("plan prepare in out --encode raw").refused(2, "--overwrite");
    assert!(place.files("out") == before, "a refusal changes nothing");
    place.run("prepare in out --encode raw --samples-per-shard 1 --overwrite").done();
    place.run("verify out").done();
    let after = place.files("out");
    assert_eq!(after["notes.txt"], b"mine", "what no plan lists is not deleted");
    assert!(!after.contains_key("data/train-00000-of-00001.parquet"), "{:?}", after.keys());
    place.write("foreign/README.md", b"somebody's");
    place.run("prepare in foreign").refused(2, "README.md");
}

#[test]
fn every_problem_of_a_run_file_is_named_at_once() {
    let place = Place::new();
    two_classes(&place);
    place.write(
        "run.toml",
        b"[resize]\nsize = \"big\"\n[encode]\nqualty = 3\n[split]\nshares = [0.9, 0.2, 0.1]\n",
    );
    let said = place.run("plan prepare in out --config run.toml").refused(2, "encode.qualty");
    assert!(said.stderr.contains("resize.size"), "{}", said.stderr);
    place.write(
        "run.toml",
        b"memory = \"1 MiB\"\n[split]\nshares = [0.9, 0.2, 0.1]\n[augment.rotation]\ndegrees = 999\n",
    );
    let said = place.run("plan prepare in out --config run.toml").refused(2, "split.shares");
    assert!(said.stderr.contains("memory") && said.stderr.contains("augment.rotation"), "{}", said.stderr);
    place.run("prepare in out --config nowhere.toml").refused(2, "nowhere.toml");
    place.run("prepare in out --quality 0").refused(2, "--quality");
    place.run("prepare in out --no-such-flag").refused(2, "--no-such-flag");
    place.run("train in --out run --device cuda:0").refused(2, "--features cuda");
    place.run("train in --out run --size original").refused(2, "resize.size");
    place.run("train in --out run --resume").refused(2, "--resume");
}

#[test]
fn every_problem_of_the_options_of_a_training_is_named_at_once_before_anything_is_read() {
    let mut place = Place::new();
    two_classes(&place);
    // Nothing answers there: whoever asks for the weights first hears of nothing else.
    place.set("HF_ENDPOINT", "http://127.0.0.1:1");
    let options = [
        ("--checkpoint-every 1d", "train.checkpoint_every: \"1d\" is neither"),
        ("--device tpu", "train.device: \"tpu\" is not cpu or cuda:N"),
        ("--freeze layer9", "small has no part `layer9`"),
        ("--unfreeze 0:layer4", "train.unfreeze: \"0:layer4\" is not EPOCH: PART"),
        ("--optimizer sgd --momentum 1", "momentum is 1: expected from 0 to below 1"),
        ("--label-smoothing 1", "label smoothing is 1"),
        ("--schedule multi-step", "multi-step needs --lr-milestones"),
        ("--lr-power 2", "train.lr_power: schedule multi-step does not use it"),
        ("--balance over --class-weights inverse", "--balance evens the classes out already"),
        ("--size original", "resize.size: a batch needs one size"),
        ("--split 0.9,0.9,0.1", "split.shares:"),
        ("--set augment.rotation.degrees=999", "augment.rotation"),
        ("--std 0,1,1", "train.std"),
    ];
    let given: Vec<&str> = options.iter().map(|(options, _)| *options).collect();
    for command in ["plan train in", "train in"] {
        let arguments = format!("{command} --weights hf:o/n {}", given.join(" "));
        let said = place.run(&arguments).refused(2, "train.checkpoint_every");
        for (option, line) in options {
            let n = said.stderr.lines().filter(|said| said.contains(line)).count();
            assert_eq!(n, 1, "{option}: {}", said.stderr);
        }
        assert!(!said.stderr.contains("127.0.0.1"), "{}", said.stderr);
        let lacks_a_folder = said.stderr.contains("--out RUN is missing");
        assert_eq!(lacks_a_folder, command == "train in", "{}", said.stderr);
    }
    place.run("plan train in --size 8 --freeze layer1 --weights hf:o").refused(2, "expected hf:OWNER/NAME");
}

#[test]
fn an_option_without_effect_is_refused_and_all_of_them_at_once() {
    let place = Place::new();
    two_classes(&place);
    let prepare = "prepare in out --encode png --quality 80 --balance-ratio 0.5 --size original --fit crop";
    for command in [prepare.to_string(), format!("plan {prepare}")] {
        let said = place.run(&command).refused(2, "encode.quality: png loses nothing");
        assert!(said.stderr.contains("balance.ratio: nothing is balanced"), "{}", said.stderr);
        assert!(said.stderr.contains("resize.fit: --size original resizes nothing"), "{}", said.stderr);
    }
    place.run("export run --output m.onnx --region x").refused(2, "store.region: no place of this run");
    place.run("bench in --max-repeats 3").refused(2, "balance.max_repeats");
    place.run("train in --out run --overwrite --resume").refused(2, "overwrite");
    assert!(!place.path("out").exists() && !place.path("run").exists());
    // What the shards were prepared with cannot be changed when they are read.
    place.run("prepare in out --encode png --size 8 --fit crop").done();
    place.run("train out --out run --split none").refused(2, "split.shares: the shards were prepared with");
    place.run("train out --out run --split-seed 5").refused(2, "prepared with 0, and 5 cannot change them");
    place.run("bench out --background white").refused(2, "decode.background");
    place.write_png("declared/train/a/1.png", 6, 6, 1);
    place.write_png("declared/val/a/2.png", 6, 6, 2);
    place
        .run("prepare declared x --split 0.5,0.25,0.25")
        .refused(2, "split.shares: the source has validation or test images of its own");
}

#[test]
fn one_run_file_serves_prepare_and_train() {
    let place = Place::new();
    two_classes(&place);
    let file = b"seed = 7\n[resize]\nsize = 8\n[encode]\nformat = \"raw\"\n[shards]\norder = \"source\"\n[split]\nshares = \"none\"\nseed = 3\n[train]\nepochs = 1\nbatch_size = 4\n";
    place.write("run.toml", file);
    place.run("prepare in out --config run.toml --fit crop").done();
    place.run("train out --config run.toml --out run").done();
    place.run("train in --config run.toml --out folder").done();
    let kept = String::from_utf8(place.files("run")["config.toml"].clone()).unwrap();
    assert!(!kept.contains("encode") && !kept.contains("shares"), "{kept}");
}

#[test]
fn a_kept_run_file_does_not_replace_the_run_and_says_what_a_resume_changed() {
    let place = Place::new();
    two_classes(&place);
    place.run("train in --out run --size 8 --batch-size 4 --epochs 1 --overwrite").done();
    let before = place.files("run");
    place.run("train --config run/config.toml").refused(2, "holds a run already");
    assert!(place.files("run") == before, "a refusal changes nothing");
    place.run("train --config run/config.toml --resume --epochs 2").done();
    let kept = String::from_utf8(place.files("run")["config.toml"].clone()).unwrap();
    assert!(kept.contains("epochs = 2") && !kept.contains("resume"), "{kept}");
}

#[test]
fn settings_that_come_to_the_same_make_the_same_dataset() {
    let place = Place::new();
    two_classes(&place);
    let prepare = "prepare in out --encode png --size 8";
    place.run(&format!("{prepare} --balance over --balance-ratio 1")).done();
    let before = place.files("out");
    place.run(&format!("{prepare} --balance over --balance-ratio 1.0")).done();
    place.run(&format!("{prepare} --balance over")).done();
    assert!(place.files("out") == before);
}

#[test]
fn a_leading_tilde_is_the_home_folder() {
    let place = Place::new();
    two_classes(&place);
    place.run("prepare in --set dest=~/set --encode png --size 8").done();
    place.write("run.toml", b"source = \"~/in\"\ndest = \"~/file\"\n");
    place.run("prepare --config=~/run.toml --encode png --size 8").done();
    // The fixture's home is its folder.
    assert!(place.path("set/manifest.json").exists() && place.path("file/manifest.json").exists());
    place.run("prepare in --set dest=~nobody/x").refused(2, "home folder of another user");
    assert!(!place.path("~").exists() && !place.path("~nobody").exists());
}

#[test]
fn what_has_no_end_or_no_room_and_what_is_no_file_get_one_line() {
    let place = Place::new();
    for index in 0..8u64 {
        place.write_png(&format!("in/{}/{index}.png", ["a", "b"][index as usize % 2]), 16, 16, index);
    }
    place.run("prepare in shards --encode png").done();
    for command in ["inspect in", "prepare in out", "train in --out run"] {
        place.run(&format!("{command} --config /dev/zero")).refused(2, "larger than 4 MiB");
    }
    place.run("prepare in out --memory 1").refused(2, "one image must fit");
    for command in ["plan train in", "plan train shards", "bench shards --epochs 1"] {
        let said = place.run(&format!("{command} --memory 1")).done();
        assert!(said.stderr.contains("one image must fit, and one that takes more"), "{}", said.stderr);
    }
    place.run("plan train in --weights in").refused(2, "in is a folder: give the file of its weights");
    let said =
        place.run_with(&["inspect", "no\nforebay: all is well"]).refused(2, "no\\nforebay: all is well");
    assert_eq!(said.stderr.trim().lines().count(), 1, "{}", said.stderr);
}
