//! What a dataset and a model say of how their images were prepared is what was done.

use serde_json::{Value, json};

use crate::fixture::Place;

/// Images of two classes that are told apart by their light, wider than high.
fn images(place: &Place, n: u64) {
    for index in 0..n {
        let name = format!("in/{}/{index:03}.png", ["dark", "light"][index as usize % 2]);
        let mut image = place.write_png(&name, 40, 30, index);
        for pixel in image.pixels_mut() {
            pixel.0 = pixel.0.map(|value| value / 2 + 100 * (index as u8 % 2));
        }
        image.save(place.path(&name)).unwrap();
    }
}

fn json_of(place: &Place, name: &str) -> Value {
    serde_json::from_slice(&place.files("")[name]).unwrap_or_else(|error| panic!("{name}: {error}"))
}

const TRAIN: &str = "--epochs 1 --batch-size 8 --doctor off --feature-cache off";

#[test]
fn a_model_says_the_preparation_of_the_shards_that_it_was_trained_on() {
    let place = Place::new();
    images(&place, 24);
    let prepare = "prepare in shards --size 16 --fit crop --filter bicubic --crop-pct 0.5 --encode png";
    place.run(prepare).done();
    let step = json!({"side": 16, "fit": "crop", "crop_pct": 0.5, "filter": "bicubic", "enlarge": true,
        "pad_color": [0, 0, 0]});
    assert_eq!(json_of(&place, "shards/manifest.json")["chain"]["resize"], json!([step]));

    place.run(&format!("train shards --out run --arch resnet18 {TRAIN}")).done();
    let config = json_of(&place, "run/config.json");
    for cfg in [&config["pretrained_cfg"], &json_of(&place, "run/preprocessor_config.json")["data_config"]] {
        assert_eq!(cfg["interpolation"], "bicubic");
        assert_eq!((&cfg["crop_pct"], &cfg["crop_mode"]), (&0.5.into(), &"center".into()));
        assert_eq!(cfg["input_size"], json!([3, 16, 16]));
    }
    assert_eq!(json_of(&place, "run/chain.json")["chain"]["resize"], json!([step]));
    place.run("export run --output model.onnx").done();
    let onnx = String::from_utf8_lossy(&place.files("")["model.onnx"]).into_owned();
    assert!(onnx.contains("\"fit\":\"crop\",\"crop_pct\":0.5,\"filter\":\"bicubic\""));

    // Fine-tuning inherits it, from the same shards and from the files themselves.
    let weights = "--weights run/model.safetensors --arch resnet18";
    place.run(&format!("train shards --out tuned {weights} {TRAIN}")).done();
    place.run(&format!("train in --out of_files {weights} {TRAIN}")).done();
    for run in ["tuned", "of_files"] {
        assert_eq!(json_of(&place, &format!("{run}/chain.json"))["chain"]["resize"], json!([step]), "{run}");
    }
}

#[test]
fn what_contradicts_the_shards_is_refused_in_a_line_that_names_both_sides() {
    let place = Place::new();
    images(&place, 24);
    place.run("prepare in shards --size 16 --fit crop --encode png").done();
    place.run("prepare in padded --size 16 --fit pad --background white --encode png").done();
    let train = |more: &str| place.run(&format!("train {more} {TRAIN} --overwrite --out run"));
    let cases = [
        (
            "shards --crop-pct 0.5",
            "resize.crop_pct: crop_pct 0.5 of 16 px is wanted by the options, and the images of",
        ),
        ("shards --fit squash", "resize.fit: fit squash is wanted by the options"),
        ("shards --filter bicubic", "were prepared with filter bilinear"),
        ("padded --fit crop", "were prepared with fit pad"),
        ("padded --background black", "decode.background: background black is wanted by the options"),
        ("in --fit shortest", "resize.fit is shortest, and a batch needs squares"),
        ("in --fit pad --crop-pct 0.5 --size 16", "only fit crop cuts a margin off"),
        ("in --size 16 --std 0.001,0.2,0.2", "train.std is [0.001, 0.2, 0.2], and each value must be"),
    ];
    for (more, line) in cases {
        train(more).refused(2, line);
    }
    // With --force what the shards hold stands, and the model says that.
    let said = train("shards --crop-pct 0.5 --force").done();
    assert!(said.stderr.contains("which stands, as --force says"), "{}", said.stderr);
    assert_eq!(json_of(&place, "run/config.json")["pretrained_cfg"]["crop_pct"], 1.0);
    // The words of the shards themselves contradict nothing.
    train("shards --crop-pct 1 --fit crop --filter bilinear --size 16").done();
    train("padded --fit pad --background white").done();
}

#[test]
fn weights_that_want_a_margin_are_refused_for_shards_without_one() {
    let place = Place::new();
    images(&place, 24);
    place.run(&format!("train in --out donor --size 16 --crop-pct 0.5 {TRAIN}")).done();
    place.run("prepare in shards --size 16 --fit crop --encode png").done();
    let train = format!("train shards --out run --weights donor/model.safetensors {TRAIN}");
    place.run(&train).refused(2, "crop_pct 0.5 of 16 px is wanted by the weights, and the images of");
    place.run(&format!("{train} --force")).done();
    assert_eq!(json_of(&place, "run/config.json")["pretrained_cfg"]["crop_pct"], 1.0);
    // With room for the margin they are taken.
    place.run("prepare in larger --size 32 --fit crop --encode png").done();
    place.run(&format!("train larger --out wide --weights donor/model.safetensors {TRAIN}")).done();
    assert_eq!(json_of(&place, "wide/config.json")["pretrained_cfg"]["crop_pct"], 0.5);
}

#[test]
fn every_fit_can_be_trained_and_twice_resized_images_are_said_to_be() {
    let place = Place::new();
    images(&place, 24);
    for (fit, mode) in [("crop", "center"), ("pad", "border"), ("squash", "squash")] {
        let said = place
            .run(&format!("train in --out {fit} --size 16 --fit {fit} --mean 0.5,0.4,0.3 {TRAIN}"))
            .done();
        // Bars of an odd width lie otherwise in timm, which is said.
        assert_eq!(
            said.stderr.contains("cannot reproduce this preparation of images"),
            fit == "pad",
            "{}",
            said.stderr
        );
        assert_eq!(json_of(&place, &format!("{fit}/config.json"))["pretrained_cfg"]["crop_mode"], mode);
    }
    let step = &json_of(&place, "pad/chain.json")["chain"]["resize"][0];
    assert_eq!(step["pad_color"], json!([128, 102, 77]), "timm's bars have the colour of the mean");
    place.run("prepare in shards --size 24 --encode png").done();
    let said = place.run(&format!("train shards --out twice --size 16 {TRAIN}")).done();
    assert!(
        said.stderr.contains("images were resized 2 times (to 24, then to 16 pixels)"),
        "{}",
        said.stderr
    );
    let told = &json_of(&place, "twice/config.json")["forebay_caveats"][0];
    assert!(told.as_str().unwrap().contains("resized 2 times"), "{told}");
    assert_eq!(json_of(&place, "twice/chain.json")["chain"]["resize"].as_array().unwrap().len(), 2);
}

#[test]
fn a_folder_that_timm_cannot_open_does_not_claim_to_be_its_model() {
    let place = Place::new();
    images(&place, 24);
    let train = format!("in --size 32 --arch resnet18 {TRAIN}");
    let said = place.run(&format!("plan train {train} --head-width 8 --out wide")).done();
    assert!(said.stdout.contains("have no resnet18 with a hidden layer in its head"), "{}", said.stdout);
    place.run(&format!("train {train} --head-width 8 --out wide")).done();
    let config = json_of(&place, "wide/config.json");
    assert_eq!(config["forebay_opens_in"], json!(["forebay", "onnx"]));
    assert_eq!((&config["architectures"], &config["model_type"]), (&Value::Null, &Value::Null));
    assert_eq!(config["architecture"], "forebay_resnet18");
    place.run("export wide --output wide.onnx").done();
    place
        .run(&format!("train {} --head-width 8 --out mobile", train.replace("resnet18", "mobilenet_v2")))
        .done();
    for (run, first, classifier, features) in
        [("wide", "conv1", "fc.3", 512), ("mobile", "features.0.0", "classifier.1.3", 1280)]
    {
        let config = json_of(&place, &format!("{run}/config.json"));
        let cfg = &config["pretrained_cfg"];
        assert_eq!((&cfg["first_conv"], &cfg["classifier"]), (&first.into(), &classifier.into()), "{run}");
        assert_eq!(config["num_features"], features, "{run}");
        let model = std::fs::read(place.path(&format!("{run}/model.safetensors"))).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&model).unwrap();
        for layer in [first, classifier] {
            assert!(tensors.tensor(&format!("{layer}.weight")).is_ok(), "{run} has no {layer}");
        }
    }
    place.run(&format!("train {train} --out plain")).done();
    assert_eq!(json_of(&place, "plain/config.json")["architecture"], "resnet18");
}

#[test]
fn what_a_configuration_says_is_kept_and_what_is_not_understood_is_named() {
    let place = Place::new();
    images(&place, 24);
    place.run(&format!("train in --out donor --size 32 --arch resnet18 {TRAIN}")).done();
    let train = format!("train in --weights w/model.safetensors --arch resnet18 {TRAIN}");
    let told = |mode: &str, out: &str| {
        let cfg = json!({"input_size": [3, 32, 32], "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": mode,
            "mean": [0.5, 0.4, 0.3], "std": [0.25, 0.25, 0.25]});
        // Weights of another program: without our own words in the header.
        let bytes = place.files("donor")["model.safetensors"].clone();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let bare = safetensors::serialize(tensors.tensors(), None).unwrap();
        place.write("w/model.safetensors", &bare);
        place.write(
            "w/config.json",
            json!({"architecture": "resnet18", "pretrained_cfg": cfg}).to_string().as_bytes(),
        );
        let said = place.run(&format!("{train} --out {out}")).done();
        (said.stderr, json_of(&place, &format!("{out}/config.json"))["pretrained_cfg"].clone())
    };
    let (said, cfg) = told("squash", "squashed");
    assert!(!said.contains("not all understood"), "{said}");
    assert_eq!((&cfg["crop_mode"], &cfg["mean"]), (&"squash".into(), &json!([0.5, 0.4, 0.3])));
    let (said, cfg) = told("spiral", "spiral");
    assert!(said.contains("is not all understood, and that is left out: crop_mode \"spiral\""), "{said}");
    assert_eq!((&cfg["crop_mode"], &cfg["mean"]), (&"center".into(), &json!([0.5, 0.4, 0.3])));
    assert_eq!((&cfg["input_size"], &cfg["interpolation"]), (&json!([3, 32, 32]), &"bicubic".into()));
}

#[test]
fn the_manifest_says_the_side_of_the_rows_as_they_are_stored() {
    let place = Place::new();
    images(&place, 24);
    place.write("run.toml", b"[augment.random_crop]\nside = 12\npad = 0\n");
    place.run("prepare in shards --size 16 --fit crop --encode png --config run.toml").done();
    let splits = json_of(&place, "shards/manifest.json")["splits"].clone();
    let sides: Vec<&Value> = splits.as_array().unwrap().iter().map(|split| &split["side_px"]).collect();
    assert_eq!(sides, [12, 16, 16]);
}

#[test]
fn a_model_holds_no_path_of_the_machine_that_made_it() {
    let place = Place::new();
    images(&place, 24);
    let folder = place.path("");
    let folder = folder.to_str().unwrap().trim_end_matches('/');
    let train = format!("train {folder}/in --size 16 {TRAIN}");
    place.run(&format!("{train} --out {folder}/donor")).done();
    place.run(&format!("{train} --out {folder}/run --weights {folder}/donor/model.safetensors")).done();
    place.run(&format!("export {folder}/run --output {folder}/run/model.onnx")).done();
    let weights = &json_of(&place, "run/chain.json")["weights"];
    assert_eq!(weights["file"], "model.safetensors");
    assert_eq!(weights["sha256"].as_str().map(str::len), Some(64));
    let published = [
        "model.safetensors",
        "last.safetensors",
        "config.json",
        "preprocessor_config.json",
        "chain.json",
        "model.onnx",
    ];
    for name in published {
        let bytes = &place.files("run")[name];
        assert!(!String::from_utf8_lossy(bytes).contains(folder), "{name} holds {folder}");
    }
}
