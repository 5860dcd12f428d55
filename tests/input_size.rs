//! How large the images of a run are, and who decides it.

use crate::fixture::Place;
use crate::weights::of_another_program;

/// Two classes of images of this size.
fn images(width: u32, height: u32) -> Place {
    let place = Place::new();
    for index in 0..8u64 {
        place.write_png(
            &format!("in/{}/{index}.png", ["ant", "bee"][index as usize % 2]),
            width,
            height,
            index,
        );
    }
    place
}

/// The line of a plan that says the size, and what the plan warns of.
#[track_caller]
fn check(place: &Place, arguments: &str, size: &str, warns: Option<&str>) {
    let said = place.run(&format!("plan {arguments}")).done();
    let line = said.stdout.lines().find(|line| line.starts_with("  size ")).expect("a line for the size");
    assert_eq!(line.trim_start_matches("  size").trim(), size, "{arguments}");
    let warning = [said.stdout.as_str(), said.stderr.as_str()].concat();
    let warning = warning.lines().find(|line| line.contains("enlarged more than twice"));
    match warns {
        None => assert_eq!(warning, None, "{arguments}"),
        Some(words) => {
            assert!(warning.is_some_and(|line| line.contains(words)), "{arguments}: {warning:?}")
        }
    }
}

#[test]
fn a_network_for_small_images_trains_at_their_size_without_a_flag() {
    let place = images(32, 40);
    let train = "train in --arch resnet20 --split none --batch-size 4 --out run";
    check(&place, train, "32 x 32 (network)", None);
    place.run(&format!("{train} --epochs 1")).done();
    let kept = std::fs::read_to_string(place.path("run/config.toml")).unwrap();
    assert!(kept.contains("size = 32"), "the size is part of the run: {kept}");
    // Whoever gives the same size goes on with the same run.
    place.run(&format!("{train} --epochs 2 --resume --size 32")).done();
    place.run(&format!("{train} --epochs 2 --resume --size 64")).refused(2, "resize.size: 32 there, 64 here");
    let exported = place.run("export run --output run.onnx --json").done().json();
    assert_eq!(exported["size"], 32);
}

#[test]
fn the_size_is_given_or_else_of_the_weights_the_shards_the_network_or_the_images() {
    let place = images(32, 40);
    check(&place, "train in", "32 x 32 (images: median 32)", None);
    check(
        &place,
        "train in --arch inception_v3",
        "299 x 299 (network)",
        Some("--size 32 is about their size"),
    );
    check(&place, "train in --arch resnet18", "224 x 224 (network)", Some("8 of 8 that were looked at"));
    check(
        &place,
        "train in --arch resnet18 --size 96",
        "96 x 96 (given)",
        Some("is 32 px, and the size is 96"),
    );
    check(&place, "train in --arch resnet18 --size 64", "64 x 64 (given)", None);

    place.run("train in --arch resnet20 --split none --epochs 1 --batch-size 4 --out run").done();
    let weights = std::fs::read(place.path("run/model.safetensors")).unwrap();
    place.write("w/model.safetensors", &of_another_program(&weights));
    place.write(
        "w/config.json",
        br#"{"architecture": "small", "pretrained_cfg": {"input_size": [3, 160, 160]}}"#,
    );
    let with_weights = "train in --arch resnet20 --weights w/model.safetensors --force";
    check(&place, with_weights, "160 x 160 (weights)", Some("--size 32 --force"));
    check(&place, &format!("{with_weights} --size 32"), "32 x 32 (given)", None);

    check(&place, "prepare in small", "shorter side 32 (images: median 32)", None);
    check(
        &place,
        "prepare in large --size 96",
        "shorter side 96 (given)",
        Some("--size 32, or --no-enlarge"),
    );
    check(&place, "prepare in large --size 96 --no-enlarge", "shorter side 96 (given)", None);
    place.run("prepare in small").done();
    check(&place, "train small", "32 x 32 (images: median 32)", None);
    check(&place, "train small --arch resnet20", "32 x 32 (network)", None);
    check(&place, "train small --arch resnet18", "224 x 224 (network)", Some("--size 32"));
    place.run("prepare in squares --size 48 --fit crop").done();
    check(&place, "train squares --arch resnet20", "48 x 48 (shards)", None);
}

#[test]
fn icons_are_enlarged_to_the_least_size_with_a_warning_that_says_theirs() {
    let place = images(6, 9);
    check(&place, "train in", "32 x 32 (images: median 6)", Some("--size 6 is about their size"));
    check(&place, "prepare in out", "shorter side 32 (images: median 6)", Some("--size 6, or --no-enlarge"));
}

#[test]
fn large_images_are_taken_at_224_and_stored_at_256() {
    let place = images(300, 400);
    check(&place, "train in", "224 x 224 (images: median 300)", None);
    check(&place, "prepare in out", "shorter side 256 (images: median 300)", None);
}
