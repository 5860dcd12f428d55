//! What `inspect` finds in a source with planted faults, and that it finds nothing else.

use serde_json::{Value, json};

use crate::fixture::Place;

/// 12 pictures of noise in each of two classes for training, and 6 for validation.
fn place() -> Place {
    let place = Place::new();
    for (split, n) in [("train", 12), ("val", 6)] {
        for class in ["a", "b"] {
            for index in 0..n {
                let seed = (split.len() * 1000 + class.as_bytes()[0] as usize * 100 + index) as u64;
                place.write_png(&format!("in/{split}/{class}/{index}.png"), 32, 24, seed);
            }
        }
    }
    place
}

/// A PNG of gray levels.
fn gray(width: u32, height: u32, level: impl Fn(u32, u32) -> u8) -> Vec<u8> {
    let image = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([level(x, y); 3]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).expect("it can be encoded");
    bytes.into_inner()
}

#[test]
fn an_ordinary_source_has_no_fault() {
    let place = place();
    let said = place.run("inspect in --json --fail-on leaks,duplicates,rejects,mislabelled,shortcuts").done();
    let found = said.json();
    assert_eq!(found["warnings"], json!([]), "{found}");
    assert_eq!(found["pictures"]["flagged"], json!({}));
    assert_eq!(found["duplicates"]["groups"], json!([]));
    assert_eq!(found["class_shares"]["imbalance"], 1.0);
    assert_eq!(found["class_shares"]["majority_accuracy"], 0.5);
    assert_eq!(found["files"]["damaged"], json!({}));
    assert_eq!(found["suggestion"]["command"], "forebay prepare in shards --size 32 --fit crop");
}

#[test]
fn each_planted_fault_is_found_and_nothing_else() {
    let place = place();
    let copy = |from: &str, to: &str| {
        place.write(to, &std::fs::read(place.path(from)).unwrap());
    };
    copy("in/train/a/0.png", "in/val/a/leak.png");
    copy("in/train/a/1.png", "in/train/b/other-class.png");
    copy("in/train/b/2.png", "in/train/b/same.png");
    copy("in/train/b/3.png", "in/train/b/really-a-png.jpg");
    std::fs::remove_file(place.path("in/train/b/3.png")).unwrap();
    let noise = |x: u32, y: u32| (x * 7919 + y * 104_729).wrapping_mul(2_654_435_761) as u8;
    place.write("in/train/a/dark.png", &gray(32, 24, |x, y| noise(x, y) / 4));
    place.write("in/train/a/flat.png", &gray(32, 24, |_, _| 130));
    place.write("in/train/a/white.png", &gray(32, 24, |x, y| 250 + noise(x, y) % 6));
    place.write("in/train/b/soft.png", &gray(120, 90, |x, y| (x + y) as u8));
    place.write("in/train/b/long.png", &gray(96, 24, noise));
    place.write("in/train/a/empty.png", b"");
    place.write("in/train/a/page.jpg", b"<html>not found</html>");
    let whole = std::fs::read(place.path("in/train/a/4.png")).unwrap();
    place.write("in/train/b/cut.png", &whole[..whole.len() / 2]);
    place.write("in/val/c/new.png", &gray(32, 24, |x, y| noise(x + 99, y)));

    let said = place.run("inspect in --json").done();
    let found = said.json();
    let duplicates = &found["duplicates"];
    let groups: Vec<Vec<&str>> = duplicates["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| {
            group["images"].as_array().unwrap().iter().map(|image| image["id"].as_str().unwrap()).collect()
        })
        .collect();
    let expected = [
        vec!["train/a/0.png", "val/a/leak.png"],
        vec!["train/a/1.png", "train/b/other-class.png"],
        vec!["train/b/2.png", "train/b/same.png"],
    ];
    assert_eq!(groups, expected);
    assert_eq!((&duplicates["across_splits"], &duplicates["across_classes"]), (&json!(1), &json!(1)));
    assert_eq!(duplicates["superfluous"], 3);
    assert_eq!(
        found["pictures"]["flagged"],
        json!({"dark": ["train/a/dark.png"], "bright": ["train/a/white.png"],
               "low-information": ["train/a/flat.png", "train/a/white.png"],
               "blurry": ["train/b/soft.png"], "odd-aspect": ["train/b/long.png"]})
    );
    assert_eq!(found["files"]["damaged"], json!({"empty": 1, "not-an-image": 1, "truncated": 1}));
    assert_eq!(
        found["files"]["mislabelled"],
        json!([{"id": "train/b/really-a-png.jpg", "extension": "JPEG", "content": "PNG"}])
    );
    assert_eq!(found["files"]["gray_as_color"], 6);
    assert_eq!(found["class_shares"]["not_in_train"], json!([["c", "validation", 1]]));
    let warnings = found["warnings"].to_string();
    for text in [
        "class c has no image in train and 1 in validation",
        "the same image is in several splits, which makes scores too good: train/a/0.png and val/a/leak.png",
        "the same image is in several classes, so that a label is wrong",
        "the extension is of another format than the content",
    ] {
        assert!(warnings.contains(text), "{text}: {warnings}");
    }
    let said = place.run("inspect in").done();
    for text in [
        "looks    dark 1, bright 1, low-information 2, blurry 1,",
        "copies   groups 3, images too many 3, in several splits 1,",
        "3 would be rejected:",
        "1 empty, 1 no image by content, 1 truncated",
        "next\n  forebay prepare in shards --size 32 --fit crop",
    ] {
        assert!(said.stdout.contains(text), "{text}: {}", said.stdout);
    }
    for (kinds, text) in [
        ("leaks", "in: groups of the same image in several splits: 1"),
        (
            "duplicates,mislabelled",
            "groups of the same image: 3, files with the extension of another format: 1",
        ),
        ("rejects", "files that would be rejected: 3"),
    ] {
        place.run(&format!("inspect in --fail-on {kinds}")).refused(3, text);
    }
    place.run("inspect in --fail-on shortcuts").done();
}

#[test]
fn what_to_fail_on_and_where_a_page_goes_are_checked_before_an_image_is_read() {
    let place = place();
    place.run("inspect in --fail-on leeks").refused(2, "\"leeks\" is not one of leaks, duplicates");
    place.write("page.html", b"mine");
    place.run("inspect in --html page.html").refused(2, "choose another --html, or --overwrite");
    place.run("inspect in --html in").refused(2, "is a folder");
    place.run("prepare in shards").done();
    place.run("inspect shards --fail-on leaks").refused(2, "of which inspect shows the manifest only");
    assert!(place.run("inspect shards").done().stdout.contains("inspect shows the manifest"));
}

/// Pictures of noise whose class shows in the quality at which they were encoded, or in nothing.
fn encoded(place: &Place, quality: impl Fn(usize, u64) -> u8) {
    for (label, class) in ["a", "b"].iter().enumerate() {
        for index in 0..60u64 {
            let mut stream = forebay_datasets::seed::Seed(index * 2 + label as u64).stream("pixels");
            let image =
                image::RgbImage::from_fn(32, 32, |_, _| image::Rgb([(); 3].map(|()| stream.bits() as u8)));
            let mut bytes = Vec::new();
            let encoder =
                image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, quality(label, index));
            image.write_with_encoder(encoder).expect("it can be encoded");
            place.write(&format!("in/{class}/{index}.jpg"), &bytes);
        }
    }
}

fn named(found: &Value) -> Vec<&str> {
    let attributes = found["shortcuts"]["attributes"].as_array().expect("a probe");
    let predicts = |attribute: &&Value| attribute["predicts"] == true;
    attributes.iter().filter(predicts).map(|attribute| attribute["name"].as_str().unwrap()).collect()
}

#[test]
fn a_planted_shortcut_is_named() {
    let place = Place::new();
    encoded(&place, |label, index| [80, 90][label] + (index % 3) as u8);
    let found = place.run("inspect in --json").done().json();
    assert_eq!(named(&found), ["file size", "jpeg quality", "all together"], "{}", found["shortcuts"]);
    assert_eq!(found["files"]["jpeg_quality"]["min"], 80);
    let warnings = found["warnings"].to_string();
    assert!(warnings.contains("can be told without looking at the picture (50 % by chance)"), "{warnings}");
    place.run("inspect in --fail-on shortcuts").refused(3, "facts that predict the class: 3");
}

#[test]
fn no_shortcut_is_named_where_qualities_are_the_same_in_all_classes() {
    let place = Place::new();
    encoded(&place, |_, index| 80 + (index % 5) as u8 * 3);
    let found = place.run("inspect in --json --fail-on shortcuts").done().json();
    assert_eq!(named(&found), [""; 0], "{}", found["shortcuts"]);
}

#[test]
fn the_page_holds_its_pictures_and_asks_for_nothing() {
    let place = place();
    place.write("in/train/b/<img src=x>.png", &gray(32, 24, |_, _| 130));
    std::fs::copy(place.path("in/train/a/0.png"), place.path("in/val/a/leak.png")).unwrap();
    place.run("inspect in --html page.html").done();
    let page = std::fs::read_to_string(place.path("page.html")).unwrap();
    assert_eq!(page.matches("background-image:url(data:image/jpeg;base64,").count(), 3);
    for word in ["http://", "https://", "src=\"", "<link", "@import", "<img"] {
        let own = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        assert!(!own.contains(word), "{word}");
    }
    for text in ["Majority baseline", "id=\"duplicates\"", "id=\"pictures\"", "forebay prepare in shards"] {
        assert!(page.contains(text), "{text}");
    }
    // The same source gives the same page.
    place.run("inspect in --html again.html").done();
    let again = std::fs::read_to_string(place.path("again.html")).unwrap();
    assert_eq!(again.replace("again.html", "page.html"), page);
}

#[test]
fn a_pair_that_is_told_is_a_leak_and_pixels_that_are_equal_ask_for_their_groups() {
    let place = Place::new();
    for n in 0..12 {
        place.write_png(&format!("in/train/{}/{n}.png", n % 2), 40, 40, n);
    }
    // The same picture in two classes of train, and in test.
    let bytes = place.files("in")["train/0/0.png"].clone();
    place.write("in/train/1/copy.png", &bytes);
    place.write("in/test/0/copy.png", &bytes);
    let said = place.run("inspect in --json").done().json();
    let lines: Vec<&str> =
        said["warnings"].as_array().expect("lines").iter().filter_map(Value::as_str).collect();
    let pair = |what: &str| {
        let line = lines.iter().find(|line| line.contains(what)).expect(what);
        line.rsplit(": ").next().expect("a pair").to_string()
    };
    assert_eq!(pair("in several splits"), "test/0/copy.png and train/0/0.png");
    assert_eq!(pair("in several classes"), "test/0/copy.png and train/1/copy.png");
    // Saved anew, a picture is another file: copies by the byte do not join it.
    for n in 0..12 {
        place.write_png(&format!("again/{}/{n}.png", n % 2), 40, 40, n);
    }
    let image = image::load_from_memory(&place.files("again")["0/0.png"]).expect("a PNG").to_rgb8();
    let mut file = std::io::Cursor::new(Vec::new());
    image::DynamicImage::ImageRgb8(image).write_to(&mut file, image::ImageFormat::Bmp).expect("a BMP");
    place.write("again/0/resaved.bmp", file.get_ref());
    let said = place.run("inspect again --json").done().json();
    let group = &said["duplicates"]["groups"][0];
    assert_eq!((&group["alike"], &group["is_exact"]), (&"exact".into(), &false.into()), "{group}");
    let command = said["suggestion"]["command"].as_str().expect("a command");
    assert!(command.contains("--group duplicates"), "{command}");
}
