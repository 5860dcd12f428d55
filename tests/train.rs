//! `train`: what can be learnt is learnt, and a run that was stopped goes on as if it had not been.

use std::collections::BTreeMap;

use crate::fixture::Place;

/// Two classes that differ in their left half, 16 pixels a side.
fn learnable(place: &Place, n: u64) {
    for index in 0..n {
        let name = format!("in/{}/{index}.png", ["dark", "light"][index as usize % 2]);
        let image = place.write_png(&name, 16, 16, index);
        let level = if index % 2 == 0 { 30 } else { 220 };
        let mut image = image;
        for (x, _, pixel) in image.enumerate_pixels_mut() {
            if x < 8 {
                *pixel = image::Rgb([level; 3]);
            }
        }
        image.save(place.path(&name)).unwrap();
    }
}

/// The digest of every tensor of a file, by name: short enough to be printed when two differ.
fn tensors(place: &Place, name: &str) -> BTreeMap<String, String> {
    let bytes = std::fs::read(place.path(name)).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    tensors
        .iter()
        .map(|(name, tensor)| (name.to_string(), blake3::hash(tensor.data()).to_hex().to_string()))
        .collect()
}

#[test]
fn what_can_be_learnt_is_learnt_and_everything_is_kept() {
    let place = Place::new();
    learnable(&place, 80);
    place.run("prepare in shards --size original --encode png").done();
    let said = place.run("train shards --size 16 --out run --epochs 4 --batch-size 8 --json").done();
    let done = said.json();
    assert_eq!(done["split"], "test");
    assert!(done["accuracy"].as_f64().unwrap() >= 0.9, "{done}");
    let losses: Vec<f64> =
        done["epochs"].as_array().unwrap().iter().map(|e| e["train_loss"].as_f64().unwrap()).collect();
    assert!(losses[3] < losses[0] / 2.0, "{losses:?}");
    let files = place.files("run");
    for name in [
        "config.toml",
        "chain.json",
        "metrics.jsonl",
        "last.safetensors",
        "model.safetensors",
        "summary.json",
        "report.html",
    ] {
        assert!(files.contains_key(name), "{name} in {:?}", files.keys());
    }
    assert_eq!(String::from_utf8(files["metrics.jsonl"].clone()).unwrap().lines().count(), 4);
    assert!(String::from_utf8(files["report.html"].clone()).unwrap().contains("<svg"));
    // The resolved run file gives the same run.
    place.run("train --config run/config.toml --out again --json").done();
    assert_eq!(tensors(&place, "run/last.safetensors"), tensors(&place, "again/last.safetensors"));
    place.run("train shards --size 16 --out run --epochs 4").refused(2, "holds a run already");
}

#[test]
fn a_folder_and_lossless_shards_give_the_same_weights() {
    let place = Place::new();
    place.draw();
    // A folder's balance cannot know which files are broken, shards hold none of them.
    for broken in ["circle/cut-short.jpg", "ring/cut-short.png", "square/only-text.jpg", "triangle/empty.jpg"]
    {
        std::fs::remove_file(place.path("images").join(broken)).unwrap();
    }
    // A random window is drawn from the image as it was stored, so that only whole images give the same ones.
    let flip = "--set augment.horizontal_flip.probability=0.5";
    for (prepared, augment) in [("--size original", "--augment light"), ("--size 24 --fit crop", flip)] {
        for encode in ["png", "raw"] {
            let prepare = format!("prepare images {encode} {prepared} --encode {encode} --overwrite");
            place.run(&format!("{prepare} --max-rejects 10")).done();
        }
        let options = format!(
            "--size 24 --epochs 2 --batch-size 16 {augment} --balance over --max-rejects 100 --overwrite"
        );
        for source in ["images", "png", "raw"] {
            place.run(&format!("train {source} --out run-{source} {options}")).done();
        }
        let of = |source: &str| tensors(&place, &format!("run-{source}/last.safetensors"));
        assert_eq!(of("png"), of("raw"), "{prepared}");
        assert_eq!(of("png"), of("images"), "{prepared}");
    }
}

#[test]
fn a_resumed_run_has_the_weights_of_an_uninterrupted_one() {
    let place = Place::new();
    learnable(&place, 160);
    place.run("prepare in shards --size original --encode png").done();
    let train = |out: &str, more: &str| {
        format!(
            "train shards --size 16 --out {out} --epochs 3 --batch-size 4 --optimizer sgd --augment standard {more}"
        )
    };
    place.run(&train("whole", "")).done();
    // Killed with SIGKILL after the first checkpoint, and interrupted with SIGINT in the middle of an epoch.
    let first = || place.path("killed/last.safetensors").exists();
    place.run_and_kill(&train("killed", ""), first);
    place.run(&train("killed", "--resume")).done();
    assert_eq!(tensors(&place, "killed/last.safetensors"), tensors(&place, "whole/last.safetensors"));

    let arguments = train("stopped", "");
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let child = place.command(&arguments).spawn().unwrap();
    while !place.path("stopped/last.safetensors").exists() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    std::thread::sleep(std::time::Duration::from_millis(60));
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let said = crate::fixture::Said::of(child.wait_with_output().unwrap());
    if said.code != 0 {
        said.refused(130, "the same command goes on with --resume");
        place.run(&train("stopped", "--resume")).done();
    }
    let (stopped, whole) =
        (tensors(&place, "stopped/last.safetensors"), tensors(&place, "whole/last.safetensors"));
    assert_eq!(stopped, whole);
    let fewer = train("whole", "--resume").replace("--epochs 3", "--epochs 1");
    place.run(&fewer).refused(2, "has done 3 epochs, more than --epochs 1");
    place.run(&train("whole", "--resume --seed 5")).refused(2, "(seed: 0 there, 5 here)");
}

#[test]
fn weights_of_an_earlier_run_are_loaded_and_the_backbone_stays_frozen() {
    let place = Place::new();
    learnable(&place, 40);
    let train = "train in --size 16 --batch-size 8 --epochs 1 --split none";
    place.run(&format!("{train} --out first")).done();
    let said = place
        .run(&format!("{train} --out second --weights first/model.safetensors --freeze backbone"))
        .done();
    assert!(said.stderr.contains("loaded"), "{}", said.stderr);
    let (before, after) =
        (tensors(&place, "first/model.safetensors"), tensors(&place, "second/model.safetensors"));
    let changed: Vec<&String> =
        after.iter().filter(|(name, data)| before[*name] != **data).map(|(n, _)| n).collect();
    assert!(!changed.is_empty() && changed.iter().all(|name| name.starts_with("fc.")), "{changed:?}");
    place.write("broken.safetensors", b"no weights");
    place.run(&format!("{train} --out third --weights broken.safetensors")).refused(1, "broken.safetensors");
    place
        .run(&format!("{train} --out third --weights missing.safetensors"))
        .refused(2, "missing.safetensors");
}

#[test]
fn threads_change_no_weight() {
    let place = Place::new();
    learnable(&place, 40);
    for threads in [1, 2, 8] {
        place
            .run(&format!(
                "train in --size 16 --batch-size 8 --epochs 1 --out run{threads} --threads {threads}"
            ))
            .done();
    }
    let one = tensors(&place, "run1/last.safetensors");
    assert_eq!(one, tensors(&place, "run2/last.safetensors"));
    assert_eq!(one, tensors(&place, "run8/last.safetensors"));
}

#[test]
fn the_demo_runs_the_whole_job_and_says_what_to_do_next() {
    let place = Place::new();
    let said = place.run("demo --epochs 1 --json").done();
    let done = said.json();
    assert!(done["accuracy"].as_f64().unwrap() > 0.125, "better than a guess among eight: {done}");
    // One count everywhere: what is drawn is what is found.
    assert!(said.stderr.contains("600 images in 8 classes, 4 of them broken"), "{}", said.stderr);
    assert!(said.stdout.contains("\"found\":600"), "{}", said.stdout);
    let majority = done["majority_accuracy"].as_f64().unwrap();
    assert!((0.125..0.3).contains(&majority), "{done}");
    for line in ["for always answering", "rarest     star", "s: draw ", "forebay prepare PHOTOS SHARDS"] {
        assert!(said.stderr.contains(line), "{line} is not in {}", said.stderr);
    }
    place.run("verify forebay-demo/shards").done();
}
