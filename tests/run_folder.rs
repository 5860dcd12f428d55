//! What a training run leaves, and that it goes on as if nothing had happened, wherever it was killed.

use crate::fixture::Place;

/// `n` images in two classes, 16 pixels a side, of random pixels whose left half is darker in one class; some of
/// the files are no images.
fn images(place: &Place, n: u64) {
    for index in 0..n {
        let name = format!("in/{}/{index:03}.png", ["dark", "light"][index as usize % 2]);
        if index % 11 == 5 {
            place.write(&name, b"\x89PNG\r\n\x1a\n and then nothing");
            continue;
        }
        let mut image = place.write_png(&name, 16, 16, index);
        for (x, _, pixel) in image.enumerate_pixels_mut() {
            if x < 8 && index % 2 == 0 {
                pixel.0 = pixel.0.map(|value| value / 2);
            }
        }
        image.save(place.path(&name)).unwrap();
    }
}

fn lines(place: &Place, name: &str) -> usize {
    let text = std::fs::read_to_string(place.path(name)).unwrap_or_default();
    text.lines().count()
}

fn bytes(place: &Place, name: &str) -> Vec<u8> {
    std::fs::read(place.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The files that a run and a resumed one must have in common, byte for byte.
fn assert_same_run(place: &Place, one: &str, other: &str) {
    for name in ["last.safetensors", "model.safetensors", "config.json", "preprocessor_config.json"] {
        let (a, b) = (bytes(place, &format!("{one}/{name}")), bytes(place, &format!("{other}/{name}")));
        assert!(a == b, "{name} of {one} and of {other} differ");
    }
    let metrics = |run: &str| -> Vec<serde_json::Value> {
        let text = String::from_utf8(bytes(place, &format!("{run}/metrics.jsonl"))).unwrap();
        let mut epochs: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for epoch in &mut epochs {
            // How long it took is the only thing that may differ.
            epoch.as_object_mut().unwrap().retain(|key, _| key != "seconds" && !key.ends_with("_per_second"));
        }
        epochs
    };
    assert_eq!(metrics(one), metrics(other));
}

#[test]
fn killed_at_twenty_moments_a_run_ends_with_the_bytes_of_an_undisturbed_one() {
    let place = Place::new();
    images(&place, 96);
    // A folder with broken images, copies of a balance and random augmentation: the position in the feed is then
    // not the number of images seen.
    let train = |out: &str, more: &str| {
        format!(
            "train in --size 16 --out {out} --epochs 3 --batch-size 4 --augment standard --balance over \
             --max-rejects 50 --checkpoint-every 3 --log-every 1 --threads 2 {more}"
        )
    };
    place.run(&train("whole", "")).done();
    let steps = lines(&place, "whole/steps.jsonl");
    assert!(steps > 45, "{steps}");
    let mut kills = 0;
    for kill in 0..20 {
        let wanted = 1 + kill * (steps - 2) / 20;
        let more = match place.path("killed/last.safetensors").exists() {
            true => "--resume",
            false => "",
        };
        let when = || lines(&place, "killed/steps.jsonl") >= wanted;
        kills += usize::from(place.run_and_kill(&train("killed", more), when));
    }
    assert!(kills >= 15, "only {kills} runs could be killed");
    place.run(&train("killed", "--resume")).done();
    assert_same_run(&place, "whole", "killed");
    assert_eq!(lines(&place, "killed/steps.jsonl"), steps);
}

#[test]
fn a_run_from_shards_goes_on_in_the_middle_of_an_epoch() {
    let place = Place::new();
    images(&place, 250);
    place.run("prepare in shards --size original --encode png --max-rejects 50").done();
    // 182 training rows are two groups in one window; small windows are tested where they are made.
    let train = |out: &str, more: &str| {
        format!(
            "train shards --out {out} --size 16 --epochs 2 --batch-size 8 --checkpoint-every 5 --log-every 1 {more}"
        )
    };
    place.run(&train("whole", "")).done();
    for (kill, wanted) in [7, 13, 30].into_iter().enumerate() {
        // Another number of threads and another memory change nothing.
        let more = ["--threads 1", "--resume --threads 4", "--resume --memory 256MiB"][kill];
        assert!(place.run_and_kill(&train("killed", more), || lines(&place, "killed/steps.jsonl") >= wanted));
    }
    place.run(&train("killed", "--resume --threads 3 --memory 300MiB")).done();
    assert_same_run(&place, "whole", "killed");
}

#[test]
fn a_run_that_gets_no_better_is_stopped_and_one_that_was_killed_counts_on() {
    let place = Place::new();
    images(&place, 60);
    let train = |out: &str, more: &str| {
        format!(
            "train in --size 16 --out {out} --epochs 30 --batch-size 8 --max-rejects 50 --split 0.6,0.2,0.2 {more}"
        )
    };
    // No accuracy is better by more than 1: the first epoch is the last improvement.
    let stop = "--early-stop 3 --min-delta 1";
    let said = place.run(&train("whole", stop)).done();
    let line = "stopped early after epoch 4: validation accuracy did not improve for 3 epochs";
    assert!(said.stdout.lines().any(|said| said == line), "{}", said.stdout);
    assert_eq!(lines(&place, "whole/metrics.jsonl"), 4);
    let summary: serde_json::Value = serde_json::from_slice(&bytes(&place, "whole/summary.json")).unwrap();
    assert_eq!((&summary["stopped_early"], &summary["monitor"]), (&true.into(), &"accuracy".into()));
    assert!(String::from_utf8(bytes(&place, "whole/summary.md")).unwrap().contains(line));
    let accuracies: Vec<f64> = summary["epochs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|epoch| epoch["validation_accuracy"].as_f64().unwrap())
        .collect();
    let best = summary["best_epoch"].as_u64().unwrap() as usize;
    let highest = accuracies.iter().copied().fold(0.0, f64::max);
    assert_eq!(accuracies[best - 1], highest, "the best epoch is kept, not the last: {accuracies:?}");

    let killed = || lines(&place, "killed/metrics.jsonl") >= 2;
    place.run_and_kill(&train("killed", stop), killed);
    place.run(&train("killed", &format!("{stop} --resume"))).done();
    assert_same_run(&place, "whole", "killed");
    // It stays stopped, and goes on when it is given more patience.
    place.run(&train("killed", &format!("{stop} --resume"))).done();
    assert_same_run(&place, "whole", "killed");
    place.run(&train("killed", "--early-stop 5 --min-delta 1 --resume")).done();
    assert_eq!(lines(&place, "killed/metrics.jsonl"), 6);

    let said = place.run(&train("loss", "--early-stop 1 --min-delta 1000 --monitor loss --json")).done();
    let done = said.json();
    assert_eq!((&done["monitor"], &done["stopped_early"]), (&"loss".into(), &true.into()));
    assert_eq!(done["epochs"].as_array().unwrap().len(), 2);
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let place = Place::new();
    images(&place, 30);
    let train = "train in --size 16 --out run --epochs 1 --batch-size 8 --max-rejects 50";
    place.run(train).done();
    let whole = bytes(&place, "run/last.safetensors");
    let refused = |bytes: &[u8]| {
        place.write("run/last.safetensors", bytes);
        place.run(&format!("{train} --resume")).refused(4, "run/last.safetensors is damaged")
    };
    for at in [0, 20, whole.len() / 2, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        let said = refused(&flipped);
        assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
    }
    refused(&whole[..whole.len() / 3]);
    refused(b"");
    place.write("run/last.safetensors", &whole);
    place.run(&format!("{train} --resume")).done();
    place
        .run(&format!("{train} --resume --lr 0.1"))
        .refused(2, "(train.learning_rate: the default there, 0.1 here)");
    place.run(&format!("{train} --resume --arch resnet18")).refused(2, "of small");

    let mut model = bytes(&place, "run/model.safetensors");
    let last = model.len() - 1;
    model[last] ^= 1;
    place.write("run/model.safetensors", &model);
    place.run(&format!("{train} --resume")).refused(4, "run/model.safetensors is damaged");
}

#[test]
fn options_that_cannot_be_met_are_refused_in_a_line() {
    let place = Place::new();
    images(&place, 30);
    place.write("file", b"not a folder");
    let train = "train in --size 16 --epochs 1 --batch-size 8 --max-rejects 50 --out";
    place.run(&format!("{train} file/run")).refused(1, "file/run");
    place.run(&format!("{train} run --early-stop 2 --split none")).refused(2, "no validation images");
    place.run(&format!("{train} run --min-delta 0.1")).refused(2, "train.min_delta");
    place.run(&format!("{train} run --checkpoint-every often")).refused(2, "train.checkpoint_every");
    place.run(&format!("{train} run --monitor luck")).refused(2, "--monitor");
}

#[test]
fn the_folder_holds_what_other_programs_open() {
    let place = Place::new();
    images(&place, 60);
    // Without a terminal the live view is a line of warning and then the lines of any run.
    let said = place
        .run("train in --size 32 --out run --arch resnet18 --epochs 2 --batch-size 8 --max-rejects 50 --log-every 2 --live")
        .done();
    assert!(said.stderr.contains("--live needs a terminal"), "{}", said.stderr);
    let files = place.files("run");
    let text = |name: &str| String::from_utf8(files[name].clone()).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text("config.json")).unwrap();
    assert_eq!(config["architecture"], "resnet18");
    assert_eq!(config["architectures"][0], "TimmWrapperForImageClassification");
    assert_eq!((&config["num_features"], &config["num_classes"]), (&512.into(), &2.into()));
    assert_eq!(config["id2label"]["1"], "light");
    let cfg = &config["pretrained_cfg"];
    assert_eq!(cfg["input_size"], serde_json::json!([3, 32, 32]));
    assert_eq!(cfg["mean"], serde_json::json!([0.485, 0.456, 0.406]));
    assert_eq!(text("labels.txt"), "dark\nlight\n");
    let processor: serde_json::Value = serde_json::from_str(&text("preprocessor_config.json")).unwrap();
    assert_eq!(processor["image_processor_type"], "TimmWrapperImageProcessor");
    for curve in ["loss.svg", "accuracy.svg", "learning_rate.svg"] {
        assert!(text(curve).contains("<polyline") && text("report.html").contains(&text(curve)), "{curve}");
    }
    // What transformers and torch want of a file of weights.
    let model = safetensors::SafeTensors::deserialize(&files["model.safetensors"]).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&files["model.safetensors"]).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
    let counter = model.tensor("bn1.num_batches_tracked").unwrap();
    assert_eq!((counter.dtype(), counter.shape()), (safetensors::Dtype::I64, &[][..]));
    assert_eq!(model.tensor("fc.weight").unwrap().shape(), [2, 512]);

    let events = |place: &Place| place.files("run").keys().filter(|name| name.contains("tfevents")).count();
    assert_eq!(events(&place), 1);
    place.run("train --config run/config.toml --resume").done();
    assert_eq!(events(&place), 2);
    place.run("train --config run/config.toml --overwrite --epochs 1").done();
    assert_eq!(events(&place), 1);
    assert_eq!(lines(&place, "run/metrics.jsonl"), 1);
}

/// Digest and number of each batch of an epoch after its first `done`, how many times the source was read, and how many
/// images were decoded.
fn batches(
    place: &Place,
    source: &str,
    more: &[(&'static str, &str)],
    done: u64,
) -> (Vec<(String, u64)>, u64, u64) {
    use forebay::flow::{MaxRejects, Run, RunOptions};

    let source = place.path(source).to_string_lossy().into_owned();
    let mut flags = vec![("source", source), ("resize.size", "256".into()), ("train.batch_size", "7".into())];
    flags.extend(more.iter().map(|(key, value)| (*key, value.to_string())));
    let config = forebay::options::Config::resolve(None, &[], &flags).unwrap();
    let options = RunOptions { threads: 2, memory_bytes: 64 << 20, max_rejects: MaxRejects::Count(1000) };
    let run = Run::new(options).unwrap();
    let found = run.block_on(async {
        let (feed, ..) =
            forebay::feed::resolve(&run, &config, forebay::options::Command::Train).await.unwrap();
        let rank = forebay_datasets::order::Rank::ALONE;
        let flow = feed.batches_from(&run, forebay::feed::Pass::train(1), done, rank);
        flow.collect().await.unwrap()
    });
    let digest = |batch: &forebay_stages::collate::Batch| {
        let ids = batch.ids.join("\n");
        blake3::hash(&[&batch.images[..], ids.as_bytes()].concat()).to_hex().to_string()
    };
    let digests = found.iter().map(|fed| (digest(&fed.batch), fed.index)).collect();
    (digests, run.meter().items("read"), run.meter().samples("decode"))
}

#[test]
fn a_feed_that_is_cut_after_any_batch_gives_the_rest_bit_for_bit() {
    let place = Place::new();
    // 256 pixels a side make windows of three groups, so that there are several; the images are small files.
    images(&place, 700);
    place.run("prepare in shards --size original --encode png --max-rejects 100 --split none").done();
    let cases: [(&str, &[(&'static str, &str)]); 3] = [
        ("shards", &[("augment", "light")]),
        ("shards", &[("balance.mode", "both"), ("balance.ratio", "0.5")]),
        ("in", &[("augment", "light"), ("split.shares", "none")]),
    ];
    for (source, more) in cases {
        let (whole, read, decoded) = batches(&place, source, more, 0);
        assert!(whole.len() > 80, "{}", whole.len());
        for done in [1, whole.len() / 2, whole.len() - 2] {
            let (rest, read_of_rest, decoded_of_rest) = batches(&place, source, more, done as u64);
            assert!(rest == whole[done..], "{source} {more:?} after {done} batches");
            assert_eq!(decoded_of_rest, decoded - 7 * done as u64, "what is done is not decoded");
            assert!(done < whole.len() / 2 || read_of_rest < read, "{read_of_rest} of {read} read");
        }
    }
}
