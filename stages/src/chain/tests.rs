//! Chains over many sizes, fits and shards: what they say is what is done to pixels, and comes back exactly.

use forebay_datasets::sample::Pixels;
use forebay_datasets::seed::{Seed, Stream};
use serde_json::json;

use super::*;
use crate::stage::Stage;

fn step(side: u32, fit: Fit, crop_pct: f64) -> ResizeStep {
    ResizeStep { side, fit, crop_pct, filter: Filter::Bilinear, enlarge: true, pad_color: [0; 3] }
}

fn prepared(steps: Vec<ResizeStep>) -> Chain {
    Chain::new(None, steps, None, None).expect("a sound chain")
}

fn side(side: u32) -> Wanted {
    Wanted { side: Some(side), ..Wanted::default() }
}

fn choose<T: Clone>(stream: &mut Stream, of: &[T]) -> T {
    of[(stream.bits() % of.len() as u64) as usize].clone()
}

const FITS: [Fit; 4] = [Fit::Shortest, Fit::Crop, Fit::Pad, Fit::Squash];
const FILTERS: [Filter; 3] = [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos3];

/// A step of any kind.
fn any_step(stream: &mut Stream) -> ResizeStep {
    let fit = choose(stream, &FITS);
    ResizeStep {
        side: choose(stream, &[8, 12, 14, 16, 17, 20, 24]),
        fit,
        crop_pct: if fit == Fit::Crop { choose(stream, &[1.0, 1.0, 0.875, 0.5, 0.95]) } else { 1.0 },
        filter: choose(stream, &FILTERS),
        enlarge: choose(stream, &[true, true, false]),
        pad_color: choose(stream, &[[0; 3], [124, 116, 104]]),
    }
}

fn any_wanted(stream: &mut Stream) -> Wanted {
    let fit = choose(stream, &[None, None, Some(Fit::Crop), Some(Fit::Pad), Some(Fit::Squash)]);
    let cuts = fit.is_none_or(|fit| fit == Fit::Crop);
    let shares = if cuts { &[None, None, Some(1.0), Some(0.875), Some(0.5)][..] } else { &[None, Some(1.0)] };
    Wanted {
        side: choose(stream, &[None, Some(8), Some(12), Some(14), Some(16), Some(24)]),
        fit,
        crop_pct: choose(stream, shares),
        filter: choose(stream, &[None, None, Some(Filter::Bilinear), Some(Filter::Bicubic)]),
        background: choose(stream, &[None, None, Some(None), Some(Some([255; 3]))]),
        normalize: choose(stream, &[None, Some(Normalize::IMAGENET), Some(Normalize::UNIT)]),
    }
}

fn any_chain(stream: &mut Stream) -> Chain {
    let steps = (0..choose(stream, &[0, 1, 1, 2])).map(|_| any_step(stream)).collect();
    let normalize = Normalize { mean: [0.1, 0.333_333_34, 0.97], std: [0.01, 0.229, 1.0] };
    Chain::new(
        choose(stream, &[None, Some([255; 3]), Some([1, 2, 3])]),
        steps,
        choose(stream, &[None, Some(90)]),
        choose(stream, &[None, Some(normalize), Some(Normalize::IMAGENET)]),
    )
    .expect("a sound chain")
}

fn image(width: u32, height: u32) -> Pixels {
    let pixel = |x: u32, y: u32| [(x * 37 + y * 11) as u8, (x * x * 5) as u8, (y * 53) as u8];
    let data = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
    Pixels::new(width, height, data)
}

fn run(steps: &[ResizeStep], image: Pixels) -> Pixels {
    let draws = Seed(0).draws("a", 0, 0);
    steps.iter().fold(image, |image, step| step.resize().apply(image, &draws).expect("it fits"))
}

#[test]
fn a_chain_comes_back_from_its_json_exactly() {
    let mut stream = Seed(1).stream("chains");
    for _ in 0..300 {
        let chain = any_chain(&mut stream);
        let chain = match choose(&mut stream, &[None, Some(DecodeScale::Exact), Some(DecodeScale::Scaled)]) {
            Some(scale) => chain.decoded(scale),
            None => chain,
        };
        let json = serde_json::to_string(&chain).expect("plain data");
        let back = serde_json::from_str::<Chain>(&json).expect("its own form");
        assert_eq!((&back, back.decode()), (&chain, chain.decode()), "{json}");
        let value = serde_json::to_value(&chain).expect("plain data");
        assert_eq!(serde_json::from_value::<Chain>(value).expect("its own form"), chain, "{json}");
    }
}

#[test]
fn what_was_decoded_scaled_once_stays_so_and_is_not_compared() {
    let chain = || Chain::new(None, vec![step(32, Fit::Crop, 0.5)], None, None).expect("a sound chain");
    assert_eq!(chain().decode(), None);
    let [exact, scaled] = [DecodeScale::Exact, DecodeScale::Scaled].map(|scale| chain().decoded(scale));
    for (first, again, both) in [
        (exact.clone(), DecodeScale::Exact, Some(DecodeScale::Exact)),
        (exact.clone(), DecodeScale::Scaled, Some(DecodeScale::Scaled)),
        (scaled.clone(), DecodeScale::Exact, Some(DecodeScale::Scaled)),
        (chain(), DecodeScale::Exact, None),
        (chain(), DecodeScale::Scaled, Some(DecodeScale::Scaled)),
    ] {
        let composed = first.then(&Wanted::default()).expect("nothing else is wanted").chain;
        assert_eq!(composed.decoded_again(again).decode(), both);
    }
    assert!(exact == scaled && exact == chain());
    let old = serde_json::to_string(&chain()).expect("plain data");
    assert!(!old.contains("decode"), "as it was written before: {old}");
}

#[test]
fn what_is_no_chain_is_refused_with_what_it_should_be() {
    let chain = Chain::new(None, vec![step(32, Fit::Crop, 0.5)], None, Some(Normalize::IMAGENET));
    let sound = serde_json::to_value(chain.expect("a sound chain")).expect("plain data");
    let refused = |pointer: &str, value: serde_json::Value| {
        let mut json = sound.clone();
        *json.pointer_mut(pointer).expect("it is there") = value;
        serde_json::from_value::<Chain>(json).expect_err("it is not sound").to_string()
    };
    assert_eq!(refused("/resize/0/side", json!(0)), "size is 0, and must be 1 to 16384 pixels");
    assert_eq!(refused("/resize/0/crop_pct", json!(0.01)), "crop_pct is 0.01, and must be within 0.05 and 1");
    assert_eq!(
        refused("/resize/0/fit", json!("pad")),
        "crop_pct is 0.5, and only fit crop cuts a margin off"
    );
    assert!(refused("/normalize/std/1", json!(1e-45)).starts_with("std is [0.229, 1e-45, 0.225], and each"));
    assert!(refused("/normalize/mean/0", json!(124)).starts_with("mean is [124.0, "));
    assert_eq!(refused("/jpeg_quality", json!(0)), "jpeg_quality is 0, and must be within 1 and 100");
    assert!(refused("/background", json!("white")).contains("expected"));
}

/// The property that everything else hangs on.
#[test]
fn what_is_done_to_shards_after_what_was_done_is_what_the_chain_says() {
    let (mut agreed, mut joined) = (0, 0);
    let mut stream = Seed(2).stream("chains");
    for _ in 0..600 {
        let before =
            prepared((0..choose(&mut stream, &[0, 1, 1, 1])).map(|_| any_step(&mut stream)).collect());
        let wanted = any_wanted(&mut stream);
        let composed = match before.then(&wanted) {
            Ok(composed) => {
                agreed += 1;
                composed
            }
            Err(conflict) => {
                assert!(!conflict.contradictions.is_empty());
                *conflict.forced
            }
        };
        joined += usize::from(composed.chain.steps().len() == 1 && before.steps().len() == 1);
        for (width, height) in [(40, 30), (21, 37), (9, 9), (16, 16), (50, 11)] {
            let stored = run(before.steps(), image(width, height));
            let draws = Seed(0).draws("a", 0, 0);
            let done = composed.resize.apply(stored, &draws).expect("it fits");
            let said = run(composed.chain.steps(), image(width, height));
            assert_eq!((done.width, done.height), (said.width, said.height));
            assert_eq!(composed.chain.side(), Some(done.width), "{before:?} {wanted:?}");
            // A weight may round the other way.
            let far = done.data.iter().zip(&said.data).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(far <= Some(1), "{before:?} {wanted:?} {width}x{height}: {far:?}, {:?}", composed.chain);
        }
    }
    assert!((200..590).contains(&agreed) && joined > 50, "{agreed} agreed, {joined} joined");
}

#[test]
fn nothing_that_is_wanted_is_lost_in_silence() {
    let mut stream = Seed(3).stream("chains");
    for _ in 0..2000 {
        let before = prepared((0..choose(&mut stream, &[0, 1, 1])).map(|_| any_step(&mut stream)).collect());
        let wanted = any_wanted(&mut stream);
        let Ok(Composed { chain, .. }) = before.then(&wanted) else { continue };
        let said = chain.wanted();
        assert!(wanted.side.is_none() || wanted.side == said.side, "{before:?} {wanted:?} {chain:?}");
        assert!(wanted.background.is_none() || wanted.background == said.background);
        assert!(wanted.normalize.is_none() || wanted.normalize == said.normalize);
        if let Some(filter) = wanted.filter {
            assert!(
                chain.steps().iter().any(|step| step.filter == filter),
                "{before:?} {wanted:?} {chain:?}"
            );
        }
        if let (Some(share), Some(found)) = (wanted.crop_pct, said.crop_pct) {
            assert!((share - found).abs() < 0.06, "{before:?} {wanted:?} {chain:?}");
        }
        // What was prepared stays as it was, whatever comes after.
        for (before, after) in before.steps().iter().zip(chain.steps()) {
            assert_eq!(before.filter, after.filter, "{before:?} {wanted:?} {chain:?}");
        }
        // The model's own chain asks for nothing that it is not.
        let again = Chain::of_files().then(&said).expect("files become anything");
        assert_eq!(again.chain.wanted(), said);
        if chain.caveats().is_empty() && chain.steps().len() == 1 {
            assert_eq!(again.chain, chain);
        }
    }
}

#[test]
fn to_go_on_as_the_shards_are_changes_nothing() {
    let mut stream = Seed(4).stream("chains");
    for _ in 0..300 {
        let step = any_step(&mut stream);
        let before = prepared(vec![step.clone()]);
        if !step.makes_squares() {
            continue;
        }
        let Composed { chain, resize } = before.then(&Wanted::default()).expect("nothing is wanted");
        assert_eq!(chain.steps(), before.steps());
        let square = image(step.side, step.side);
        assert_eq!(resize.apply(square.clone(), &Seed(0).draws("a", 0, 0)).expect("it fits"), square);
        // And its own chain is no contradiction.
        assert_eq!(before.then(&chain.wanted()).expect("the same").chain, chain);
    }
}

#[test]
fn shards_without_a_margin_cannot_be_given_one() {
    let crop = |share| Wanted { crop_pct: Some(share), ..Wanted::default() };
    let whole = prepared(vec![step(32, Fit::Crop, 1.0)]);
    let Err(conflict) = whole.then(&crop(0.5)) else { panic!("nothing can be cut off") };
    assert_eq!(
        conflict.to_string(),
        "crop_pct 0.5 of 32 px is wanted, and the images were prepared to 32 px with crop_pct 1"
    );
    assert_eq!(conflict.contradictions[0].property, Property::CropPct);
    // What is done all the same says what it is.
    assert_eq!(conflict.forced.chain.steps(), whole.steps());
    let half = prepared(vec![ResizeStep { filter: Filter::Bicubic, ..step(32, Fit::Crop, 0.5) }]);
    assert_eq!(half.then(&crop(0.5)).expect("the same").chain.steps(), half.steps());
    assert!(half.then(&crop(1.0)).is_err());
    assert_eq!(half.then(&Wanted::default()).expect("as prepared").chain.steps(), half.steps());
    // With room around it, the margin is cut off the shards' images.
    let larger = prepared(vec![step(64, Fit::Crop, 1.0)]);
    let cut = larger.then(&Wanted { side: Some(32), ..crop(0.5) }).expect("64 px are enough");
    assert_eq!(cut.chain.steps(), [step(32, Fit::Crop, 0.5)]);
}

#[test]
fn other_fits_filters_and_backgrounds_are_conflicts_that_name_both_sides() {
    let shards = Chain::new(Some([255; 3]), vec![step(32, Fit::Pad, 1.0)], Some(90), None).expect("sound");
    let wanted = Wanted {
        fit: Some(Fit::Squash),
        filter: Some(Filter::Bicubic),
        background: Some(None),
        ..Wanted::default()
    };
    let Err(conflict) = shards.then(&wanted) else { panic!("it contradicts") };
    assert_eq!(
        conflict.to_string(),
        "alpha dropped is wanted, and the images were prepared with background white; \
         fit squash is wanted, and the images were prepared with fit pad; \
         filter bicubic is wanted, and the images were prepared with filter bilinear"
    );
    assert_eq!(conflict.forced.chain.steps(), shards.steps());
    assert_eq!(conflict.forced.chain.jpeg_quality(), Some(90));
}

#[test]
fn two_resizes_stay_two_and_say_so() {
    let twice = prepared(vec![step(256, Fit::Shortest, 1.0)]).then(&side(224)).expect("no conflict").chain;
    assert_eq!(twice.steps(), [step(256, Fit::Shortest, 1.0), step(224, Fit::Crop, 1.0)]);
    assert_eq!(
        twice.caveats(),
        ["images were resized 2 times (to 256, then to 224 pixels), and other programs resize once"]
    );
    // The usual margin is one resize: what was resized to 256 is only cut.
    let usual = Wanted { crop_pct: Some(0.875), ..side(224) };
    let once = prepared(vec![step(256, Fit::Shortest, 1.0)]).then(&usual).expect("no conflict").chain;
    assert_eq!(once.steps(), [step(224, Fit::Crop, 0.875)]);
    assert_eq!(once.caveats(), [""; 0]);
}

#[test]
fn the_fields_of_timm_come_back_as_what_is_wanted() {
    let mut stream = Seed(5).stream("chains");
    let mut told = 0;
    for _ in 0..1500 {
        let Ok(Composed { chain, .. }) = any_chain(&mut stream).then(&any_wanted(&mut stream)) else {
            continue;
        };
        let fields = serde_json::to_value(chain.timm().expect("squares, normalised")).expect("plain data");
        let found = Described::from_timm(&json!({"pretrained_cfg": fields})).expect("it says all");
        if chain.steps().len() == 1 && chain.background().is_none() {
            told += 1;
            assert_eq!(found.unknown, [""; 0]);
            assert_eq!(Wanted { background: Some(None), ..found.wanted }, chain.wanted(), "{fields}");
        }
    }
    assert!(told > 50, "{told}");
}

#[test]
fn the_configurations_of_libraries_are_read() {
    let timm = |more: serde_json::Value| {
        let mut config = json!({"input_size": [3, 224, 224], "crop_pct": 0.95, "crop_mode": "center",
            "interpolation": "bicubic", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]});
        config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let found = Described::from_timm(&json!({"architecture": "resnet18", "pretrained_cfg": config}));
        found.expect("it says something of images")
    };
    let usual = Wanted {
        side: Some(224),
        fit: Some(Fit::Crop),
        crop_pct: Some(0.95),
        filter: Some(Filter::Bicubic),
        background: None,
        normalize: Some(Normalize::IMAGENET),
    };
    assert_eq!(timm(json!({})), Described { wanted: usual, unknown: vec![] });
    let squashed = timm(json!({"crop_mode": "squash", "crop_pct": 1.0}));
    let expected = Wanted { fit: Some(Fit::Squash), crop_pct: None, ..usual };
    assert_eq!(squashed, Described { wanted: expected, unknown: vec![] });
    // What is understood is kept, and what is not is named.
    for (more, unknown, wanted) in [
        (json!({"crop_mode": "spiral"}), "crop_mode \"spiral\"", Wanted { fit: None, ..usual }),
        (json!({"interpolation": "nearest"}), "interpolation \"nearest\"", Wanted { filter: None, ..usual }),
        (
            json!({"input_size": [3, 224, 192]}),
            "input_size is [3,224,192], and only squares of 3 channels are taken",
            Wanted { side: None, ..usual },
        ),
        (
            json!({"std": [1e-45, 1, 1]}),
            "std is [1e-45, 1.0, 1.0], and each value must be within 0.01 and 1",
            Wanted { normalize: None, ..usual },
        ),
        (
            json!({"crop_pct": 0.0}),
            "crop_pct is 0, and must be within 0.05 and 1",
            Wanted { crop_pct: None, ..usual },
        ),
        (
            json!({"crop_mode": "squash"}),
            "crop_pct is 0.95, and only fit crop cuts a margin off",
            Wanted { fit: Some(Fit::Squash), crop_pct: None, ..usual },
        ),
    ] {
        assert_eq!(timm(more.clone()), Described { wanted, unknown: vec![unknown.to_string()] }, "{more}");
    }
    assert_eq!(Described::from_timm(&json!({})), None);

    let transformers = |config: serde_json::Value| {
        let found = Described::from_transformers(&config).expect("it says something of images");
        assert_eq!(found.unknown, [""; 0]);
        found.wanted
    };
    // As microsoft/resnet-50 has it.
    let convnext = |size: u32| {
        transformers(json!({"crop_pct": 0.875, "do_resize": true, "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225], "resample": 3, "size": {"shortest_edge": size}}))
    };
    assert_eq!(convnext(224), Wanted { crop_pct: Some(0.875), ..usual });
    // From 384 pixels on it squashes.
    let expected = Wanted { side: Some(384), fit: Some(Fit::Squash), crop_pct: None, ..usual };
    assert_eq!(convnext(384), expected);
    let half = json!({"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 2});
    let with = |more: serde_json::Value| {
        let mut config = half.clone();
        config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        config
    };
    let found =
        transformers(with(json!({"crop_size": {"height": 224, "width": 224}, "do_center_crop": true,
        "size": {"shortest_edge": 256}})));
    assert_eq!((found.side, found.crop_pct, found.filter), (Some(224), Some(0.875), Some(Filter::Bilinear)));
    let found = transformers(with(json!({"size": {"height": 224, "width": 224}})));
    assert_eq!((found.side, found.fit, found.crop_pct), (Some(224), Some(Fit::Squash), None));
    let odd = Described::from_transformers(&with(
        json!({"size": {"height": 256, "width": 256}, "crop_size": 224, "resample": 0}),
    ));
    let odd = odd.expect("it says something of images");
    assert_eq!((odd.wanted.side, odd.wanted.filter, odd.unknown.len()), (None, None, 2), "{odd:?}");
    assert_eq!(odd.wanted.normalize.map(|normalize| normalize.mean), Some([0.5; 3]));
}
