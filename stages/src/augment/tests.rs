//! Every augmentation: identity at zero strength, geometry on tiny images, draws of its own.

use forebay_datasets::seed::Seed;

use super::*;

fn draws(index: u32) -> Draws {
    Seed(1).draws("cat/1.jpg", index, 0)
}

/// An image in which every pixel is different.
fn distinct(width: u32, height: u32) -> Pixels {
    let pixel = |x: u32, y: u32| [(x * 7) as u8, (y * 11) as u8, (x + 16 * y) as u8];
    let data = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
    Pixels { original: (100, 200).into(), ..Pixels::new(width, height, data) }
}

/// One grey level per pixel, written out.
fn grays<const W: usize>(rows: &[[u8; W]]) -> Pixels {
    let data = rows.iter().flatten().flat_map(|&level| [level; 3]).collect();
    Pixels::new(W as u32, rows.len() as u32, data)
}

fn run<S: Stage<In = Pixels, Out = Pixels>>(stage: &S, pixels: &Pixels, index: u32) -> Pixels {
    stage.apply(pixels.clone(), &draws(index)).unwrap()
}

#[test]
fn every_augmentation_at_zero_strength_is_the_identity() {
    let image = distinct(9, 6);
    for index in 0..20 {
        let full = RandomResizedCrop { side: None, scale: [1.0, 1.0], ratio: [1.0, 1.0] };
        assert_eq!(run(&full, &distinct(7, 7), index), distinct(7, 7));
        assert_eq!(run(&HorizontalFlip { probability: 0.0 }, &image, index), image);
        assert_eq!(run(&VerticalFlip { probability: 0.0 }, &image, index), image);
        assert_eq!(run(&Scale { factor: [1.0, 1.0], fill: [9; 3] }, &image, index), image);
        assert_eq!(run(&Rotation { degrees: 0.0, fill: [9; 3] }, &image, index), image);
        assert_eq!(run(&Translation { fraction: [0.0, 0.0], fill: [9; 3] }, &image, index), image);
        let still = ColorJitter { brightness: 0.0, contrast: 0.0, saturation: 0.0, hue: 0.0 };
        assert_eq!(run(&still, &image, index), image);
        assert_eq!(run(&GaussianNoise { sigma: 0.0, probability: 1.0 }, &image, index), image);
        let never = RandomErasing { probability: 0.0, ..RandomErasing::default() };
        assert_eq!(run(&never, &image, index), image);
        assert_eq!(run(&Augment::default(), &image, index), image);
    }
}

#[test]
fn flips_mirror_and_two_of_them_give_back_the_image() {
    let image = grays(&[[1, 2, 3], [4, 5, 6], [7, 8, 9]]);
    let horizontal = HorizontalFlip { probability: 1.0 };
    let vertical = VerticalFlip { probability: 1.0 };
    assert_eq!(run(&horizontal, &image, 0), grays(&[[3, 2, 1], [6, 5, 4], [9, 8, 7]]));
    assert_eq!(run(&vertical, &image, 0), grays(&[[7, 8, 9], [4, 5, 6], [1, 2, 3]]));
    assert_eq!(run(&horizontal, &run(&horizontal, &image, 0), 0), image);
    assert_eq!(run(&vertical, &run(&vertical, &image, 0), 0), image);
    let colours = Pixels::new(2, 1, vec![1, 2, 3, 4, 5, 6]);
    assert_eq!(run(&horizontal, &colours, 0).data, [4, 5, 6, 1, 2, 3]);
    assert_eq!(run(&vertical, &colours, 0), colours);
}

#[test]
fn half_of_the_images_are_flipped() {
    let image = grays(&[[1, 2]]);
    let flip = HorizontalFlip::default();
    let flipped = (0..1000).filter(|&index| run(&flip, &image, index) != image).count();
    // Four standard deviations of a fair coin.
    assert!((437..=563).contains(&flipped), "{flipped}");
}

fn rotated(image: Pixels, degrees: f64, fill: [u8; 3]) -> Pixels {
    rotation::rotate(Moves::of(image), degrees, fill).pixels()
}

#[test]
fn moves_in_one_pass_are_those_one_after_the_other() {
    let always = (Some(HorizontalFlip { probability: 1.0 }), Some(VerticalFlip { probability: 1.0 }));
    let scale = Some(Scale { factor: [0.6, 1.7], fill: [200, 10, 60] });
    let rotation = Some(Rotation { degrees: 180.0, fill: [30, 90, 250] });
    let translation = Some(Translation { fraction: [0.4, 0.4], fill: [120, 0, 7] });
    let (mut n, mut others) = (0, 0);
    for (width, height) in [(1, 1), (1, 7), (2, 2), (9, 6), (31, 40), (64, 48)] {
        let image = distinct(width, height);
        for (index, on) in (0..20).flat_map(|index| (0..32).map(move |on| (index, on))) {
            let is_on = |bit: u32| on >> bit & 1 == 1;
            let augment = Augment {
                horizontal_flip: always.0.clone().filter(|_| is_on(0)),
                vertical_flip: always.1.clone().filter(|_| is_on(1)),
                scale: scale.clone().filter(|_| is_on(2)),
                rotation: rotation.clone().filter(|_| is_on(3)),
                translation: translation.clone().filter(|_| is_on(4)),
                ..Augment::default()
            };
            let mut expected = image.clone();
            let Augment { horizontal_flip, vertical_flip, scale, rotation, translation, .. } = &augment;
            expected = horizontal_flip.iter().fold(expected, |image, stage| run(stage, &image, index));
            expected = vertical_flip.iter().fold(expected, |image, stage| run(stage, &image, index));
            expected = scale.iter().fold(expected, |image, stage| run(stage, &image, index));
            expected = rotation.iter().fold(expected, |image, stage| run(stage, &image, index));
            expected = translation.iter().fold(expected, |image, stage| run(stage, &image, index));
            let found = run(&augment, &image, index);
            assert_eq!((found.width, found.height, found.original), (width, height, image.original));
            for (found, expected) in found.data.iter().zip(&expected.data) {
                assert!(found.abs_diff(*expected) <= 1, "{width}x{height} {index} {on:b}");
                (n, others) = (n + 1, others + usize::from(found != expected));
            }
        }
    }
    // Of roundings alone.
    assert!(others * 1000 < n, "{others} of {n}");
}

#[test]
fn a_quarter_turn_moves_every_pixel_counter_clockwise() {
    let image = grays(&[[1, 2, 3], [4, 5, 6], [7, 8, 9]]);
    assert_eq!(rotated(image.clone(), 90.0, [0; 3]), grays(&[[3, 6, 9], [2, 5, 8], [1, 4, 7]]));
    assert_eq!(rotated(image.clone(), 180.0, [0; 3]), grays(&[[9, 8, 7], [6, 5, 4], [3, 2, 1]]));
    let wide = grays(&[[1, 2, 3]]);
    assert_eq!(rotated(wide, 90.0, [50; 3]), grays(&[[50, 2, 50]]));
}

#[test]
fn a_rotation_stays_within_its_angle_and_fills_the_corners() {
    let image = Pixels::new(21, 21, vec![200; 21 * 21 * 3]);
    let filled = (0..20).map(|index| {
        let turned = run(&Rotation { degrees: 45.0, fill: [0; 3] }, &image, index);
        assert_eq!(turned.data[(10 * 21 + 10) * 3], 200, "the centre stays");
        turned.data.iter().filter(|&&value| value == 0).count()
    });
    assert!(filled.max().unwrap() > 60, "some angle is large");
}

#[test]
fn zooming_by_two_shows_the_middle_and_by_a_half_frames_it() {
    let image = grays(&[[10, 20, 30], [40, 50, 60], [70, 80, 90]]);
    let larger = run(&Scale { factor: [2.0, 2.0], fill: [0; 3] }, &image, 0);
    assert_eq!(larger, grays(&[[30, 35, 40], [45, 50, 55], [60, 65, 70]]));
    let smaller = run(&Scale { factor: [0.5, 0.5], fill: [7; 3] }, &image, 0);
    assert_eq!(smaller, grays(&[[7, 7, 7], [7, 50, 7], [7, 7, 7]]));
}

#[test]
fn a_translation_moves_whole_pixels_and_at_most_its_share() {
    let image = grays(&[[1, 2, 3, 4], [5, 6, 7, 8]]);
    let stage = Translation { fraction: [0.25, 0.0], fill: [9; 3] };
    let mut seen = [false; 3];
    for index in 0..50 {
        let moved = run(&stage, &image, index);
        let shifts =
            [grays(&[[2, 3, 4, 9], [6, 7, 8, 9]]), image.clone(), grays(&[[9, 1, 2, 3], [9, 5, 6, 7]])];
        let shift = shifts.iter().position(|expected| *expected == moved).expect("a shift by -1, 0 or 1");
        seen[shift] = true;
    }
    assert_eq!(seen, [true; 3]);
}

#[test]
fn a_translation_by_the_whole_image_leaves_the_fill() {
    let image = grays(&[[1, 2]]);
    let stage = Translation { fraction: [1.0, 1.0], fill: [9; 3] };
    assert!((0..50).any(|index| run(&stage, &image, index) == grays(&[[9, 9]])));
}

#[test]
fn a_random_window_lies_within_the_image_and_keeps_to_its_area_and_aspect() {
    let stage = RandomResizedCrop::default();
    for index in 0..500 {
        let [left, top, width, height] = stage.window(100, 80, &mut draws(index).of("w"));
        assert!(left + width <= 100 && top + height <= 80 && width > 0 && height > 0);
        let share = f64::from(width * height) / 8000.0;
        let aspect = f64::from(width) / f64::from(height);
        // Rounding to whole pixels moves both a little.
        assert!((0.07..=1.01).contains(&share) && (0.7..=1.4).contains(&aspect), "{share} {aspect}");
    }
}

#[test]
fn a_window_of_an_image_that_is_too_long_is_its_middle() {
    let stage = RandomResizedCrop { side: None, scale: [1.0, 1.0], ratio: [0.75, 4.0 / 3.0] };
    assert_eq!(stage.window(1000, 30, &mut draws(0).of("w")), [480, 0, 40, 30]);
    assert_eq!(stage.window(3, 900, &mut draws(0).of("w")), [0, 448, 3, 4]);
    assert_eq!(stage.window(1, 1, &mut draws(0).of("w")), [0, 0, 1, 1]);
}

#[test]
fn a_random_resized_crop_has_its_side_and_keeps_the_original_size() {
    let stage = RandomResizedCrop { side: Some(5), ..RandomResizedCrop::default() };
    for (width, height) in [(40, 30), (1, 1), (1, 50), (3, 2)] {
        let pixels = run(&stage, &distinct(width, height), 3);
        assert_eq!((pixels.width, pixels.height, pixels.original.size), (5, 5, (100, 200)));
        assert_eq!(pixels.data.len(), 75);
    }
}

#[test]
fn a_crop_without_resize_is_a_cut() {
    let stage = RandomResizedCrop { side: Some(4), scale: [0.16, 0.16], ratio: [1.0, 1.0] };
    let image = distinct(10, 10);
    let pixels = run(&stage, &image, 5);
    let [left, top, width, height] = stage.window(10, 10, &mut draws(5).of(RandomResizedCrop::NAME));
    assert_eq!((width, height), (4, 4));
    let start = ((top * 10 + left) * 3) as usize;
    assert_eq!(pixels.data[..12], image.data[start..start + 12]);
}

#[test]
fn noise_has_its_deviation_and_stays_within_the_range() {
    let stage = GaussianNoise { sigma: 0.04, probability: 1.0 };
    let noisy = run(&stage, &Pixels::new(60, 60, vec![128; 60 * 60 * 3]), 0);
    let differences: Vec<f64> = noisy.data.iter().map(|&value| f64::from(value) - 128.0).collect();
    let mean = differences.iter().sum::<f64>() / differences.len() as f64;
    let deviation = (differences.iter().map(|d| d * d).sum::<f64>() / differences.len() as f64).sqrt();
    assert!(mean.abs() < 0.5 && (deviation - 10.2).abs() < 0.5, "{mean} {deviation}");
    let black = run(&stage, &Pixels::new(20, 20, vec![0; 1200]), 0);
    let zeros = black.data.iter().filter(|&&value| value == 0).count();
    assert!((400..800).contains(&zeros), "half of the noise is clipped at black: {zeros}");
}

#[test]
fn erasing_covers_one_rectangle_of_its_area_with_its_colour() {
    let stage = RandomErasing { probability: 1.0, scale: [0.1, 0.2], ratio: [0.5, 2.0], fill: [9, 8, 7] };
    let image = Pixels::new(50, 40, vec![200; 6000]);
    for index in 0..50 {
        let erased = run(&stage, &image, index);
        let places: Vec<usize> =
            (0..2000).filter(|&place| erased.data[place * 3..][..3] == [9, 8, 7]).collect();
        assert!((180..=420).contains(&places.len()), "{}", places.len());
        let columns = places.iter().map(|place| place % 50);
        let rows = places.iter().map(|place| place / 50);
        let width = columns.clone().max().unwrap() - columns.min().unwrap() + 1;
        let height = rows.clone().max().unwrap() - rows.min().unwrap() + 1;
        assert_eq!(width * height, places.len(), "the erased pixels fill their rectangle");
        assert!(erased.data.chunks_exact(3).all(|pixel| pixel == [9, 8, 7] || pixel == [200; 3]));
    }
}

#[test]
fn an_image_too_small_to_erase_from_stays_whole() {
    let stage = RandomErasing { probability: 1.0, ..RandomErasing::default() };
    assert_eq!(run(&stage, &grays(&[[5]]), 0), grays(&[[5]]));
}

#[test]
fn colour_jitter_stays_in_range_and_differs_from_copy_to_copy() {
    let stage = ColorJitter { brightness: 0.9, contrast: 0.9, saturation: 0.9, hue: 0.5 };
    let image = distinct(8, 8);
    assert_ne!(run(&stage, &image, 0), run(&stage, &image, 1));
    let brighter = ColorJitter { brightness: 0.5, contrast: 0.0, saturation: 0.0, hue: 0.0 };
    let factor = |index| f64::from(run(&brighter, &grays(&[[100]]), index).data[0]) / 100.0;
    let factors: Vec<f64> = (0..200).map(factor).collect();
    assert!(factors.iter().all(|factor| (0.5..=1.5).contains(factor)));
    assert!(factors.iter().any(|factor| *factor < 0.7) && factors.iter().any(|factor| *factor > 1.3));
}

#[test]
fn switching_hue_on_leaves_the_other_factors_as_they_were() {
    let gray = grays(&[[100, 50]]);
    let without = ColorJitter { brightness: 0.4, contrast: 0.0, saturation: 0.0, hue: 0.0 };
    let with = ColorJitter { hue: 0.5, ..without.clone() };
    // Gray has no hue, so that only the brightness shows.
    assert_eq!(run(&without, &gray, 4), run(&with, &gray, 4));
}

#[test]
fn adding_an_augmentation_changes_the_draws_of_no_other() {
    let image = distinct(16, 16);
    for index in 0..10 {
        let flip = run(&HorizontalFlip { probability: 0.5 }, &image, index) != image;
        let both = Augment {
            horizontal_flip: Some(HorizontalFlip { probability: 0.5 }),
            translation: Some(Translation { fraction: [0.0, 0.0], fill: [0; 3] }),
            rotation: Some(Rotation { degrees: 0.0, fill: [0; 3] }),
            random_erasing: Some(RandomErasing { probability: 0.0, ..RandomErasing::default() }),
            ..Augment::default()
        };
        assert_eq!(run(&both, &image, index) != image, flip);
    }
}

#[test]
fn the_same_draws_give_the_same_pixels_and_a_window_becomes_a_square() {
    let image = distinct(40, 30);
    for name in Augment::PRESETS {
        let augment: Augment = name.parse().unwrap();
        assert_eq!(augment.problems(), Vec::<String>::new());
        assert_eq!(augment.is_off(), name == "none");
        for index in 0..5 {
            let pixels = run(&augment, &image, index);
            assert_eq!(pixels, run(&augment, &image, index));
            let size = if augment.random_resized_crop.is_some() { (30, 30) } else { (40, 30) };
            assert_eq!(((pixels.width, pixels.height), pixels.original.size), (size, (100, 200)));
        }
    }
    assert!("extreme".parse::<Augment>().unwrap_err().contains("none, light, standard, strong"));
}

#[test]
fn every_augmentation_takes_images_one_pixel_wide() {
    let mut strong: Augment = "strong".parse().unwrap();
    strong.vertical_flip = Some(VerticalFlip::default());
    strong.scale = Some(Scale::default());
    strong.translation = Some(Translation::default());
    for (width, height) in [(1, 1), (1, 9), (9, 1), (2, 2)] {
        for index in 0..20 {
            let pixels = run(&strong, &distinct(width, height), index);
            let side = width.min(height);
            assert_eq!((pixels.width, pixels.height), (side, side));
        }
    }
}

#[test]
fn a_circle_stays_round_on_images_that_are_not_square() {
    // A white disc on black, 160 × 90: what a window of it shows is stretched by the aspect of the window alone.
    let disc = |x: i32, y: i32| (x - 80).pow(2) + (y - 45).pow(2) < 400;
    let data = (0..90).flat_map(|y| (0..160).flat_map(move |x| [if disc(x, y) { 255 } else { 0 }; 3]));
    let image = Pixels::new(160, 90, data.collect());
    let augment: Augment = "light".parse().unwrap();
    let stage = augment.random_resized_crop.unwrap();
    for index in 0..50 {
        let [left, top, width, height] = stage.window(160, 90, &mut draws(index).of(RandomResizedCrop::NAME));
        if left > 59 || top > 24 || left + width < 101 || top + height < 66 {
            continue;
        }
        let pixels = run(&stage, &image, index);
        assert_eq!((pixels.width, pixels.height), (90, 90));
        let white: Vec<usize> = (0..90 * 90).filter(|place| pixels.data[place * 3] > 127).collect();
        let extent = |of: fn(usize) -> usize| {
            let places = || white.iter().map(|&place| of(place));
            (places().max().unwrap() - places().min().unwrap() + 1) as f64
        };
        let stretch = extent(|place| place % 90) / extent(|place| place / 90);
        assert!((0.70..1.43).contains(&stretch), "{stretch} of {width}x{height}");
    }
}

#[test]
fn windows_of_long_images_are_seldom_the_one_in_the_middle() {
    for (name, [width, height], most) in [
        ("light", [300, 200], 10),
        ("light", [320, 180], 60),
        ("standard", [320, 180], 10),
        ("strong", [320, 180], 2),
        ("light", [200, 300], 10),
    ] {
        let augment: Augment = name.parse().unwrap();
        let stage = augment.random_resized_crop.unwrap();
        let windows =
            (0..200).map(|n| stage.window(width, height, &mut draws(n).of(RandomResizedCrop::NAME)));
        // What is left when ten draws have failed: all of the shorter side, at the longest aspect allowed.
        let whole = f64::from(width.min(height));
        let long = (whole * 4.0 / 3.0).round() as u32;
        let middle =
            windows.filter(|[_, _, w, h]| w.max(h) == &long && w.min(h) == &width.min(height)).count();
        assert!(middle <= most, "{name} {width}x{height}: {middle} of 200");
    }
}

#[test]
fn a_random_window_is_cut_from_the_whole_image_where_a_size_is_wanted() {
    let augment: Augment = "standard".parse().unwrap();
    let size = |side, enlarge| Resize { size: Size::Side(side), enlarge, ..Resize::default() };
    let side = |augment: Option<Augment>| augment.map(|augment| augment.random_resized_crop.unwrap().side);
    assert_eq!(side(augment.of_whole_images(&size(64, true))), Some(Some(64)));
    assert_eq!(side(augment.of_whole_images(&size(64, false))), None);
    assert_eq!(side(augment.of_whole_images(&Resize::default())), Some(None));
    let named = RandomResizedCrop { side: Some(28), ..RandomResizedCrop::default() };
    let named = Augment { random_resized_crop: Some(named), ..Augment::default() };
    assert_eq!(side(named.of_whole_images(&size(64, true))), Some(Some(28)));
    assert_eq!(Augment::default().of_whole_images(&size(64, true)), None);
    let cropped = Augment { random_crop: Some(RandomCrop::new(32, 4)), ..augment };
    assert_eq!(cropped.of_whole_images(&size(64, true)), None);
}

#[test]
fn a_side_that_no_image_may_have_is_refused() {
    let augment = Augment {
        random_crop: Some(RandomCrop::new(16_385, 0)),
        random_resized_crop: Some(RandomResizedCrop { side: Some(60_000), ..RandomResizedCrop::default() }),
        ..Augment::default()
    };
    let expected = [
        "random_crop.side is 16385, and must be at most 16384 pixels",
        "random_resized_crop.side is 60000, and must be at most 16384 pixels",
    ];
    assert_eq!(augment.problems(), expected);
}

#[test]
fn parameters_out_of_range_are_named_by_their_keys() {
    let augment = Augment {
        random_resized_crop: Some(RandomResizedCrop { scale: [0.9, 0.1], ..RandomResizedCrop::default() }),
        horizontal_flip: Some(HorizontalFlip { probability: 1.5 }),
        rotation: Some(Rotation { degrees: f64::NAN, ..Rotation::default() }),
        color_jitter: Some(ColorJitter { hue: 0.7, ..ColorJitter::default() }),
        ..Augment::default()
    };
    assert_eq!(
        augment.problems(),
        [
            "random_resized_crop.scale is [0.9, 0.1], and must be two numbers in order, 0.001 to 1",
            "horizontal_flip.probability is 1.5, and must be 0 to 1",
            "rotation.degrees is NaN, and must be 0 to 180",
            "color_jitter.hue is 0.7, and must be 0 to 0.5",
        ]
    );
}

#[test]
fn a_run_file_names_only_what_is_on_and_unknown_keys_are_refused() {
    let augment: Augment = serde_json::from_str(r#"{"rotation": {"degrees": 5}}"#).unwrap();
    assert_eq!(augment.rotation, Some(Rotation { degrees: 5.0, fill: [0; 3] }));
    let written = serde_json::to_string(&augment).unwrap();
    assert_eq!(written, r#"{"rotation":{"degrees":5.0,"fill":[0,0,0]}}"#);
    assert!(serde_json::from_str::<Augment>(r#"{"rotate": {}}"#).is_err());
    assert!(serde_json::from_str::<Augment>(r#"{"rotation": {"angle": 5}}"#).is_err());
}

#[test]
fn what_changes_no_image_is_off() {
    let still = Augment {
        horizontal_flip: Some(HorizontalFlip { probability: 0.0 }),
        vertical_flip: Some(VerticalFlip { probability: 0.0 }),
        scale: Some(Scale { factor: [1.0, 1.0], fill: [9; 3] }),
        rotation: Some(Rotation { degrees: 0.0, fill: [9; 3] }),
        translation: Some(Translation { fraction: [0.0, 0.0], fill: [9; 3] }),
        color_jitter: Some(ColorJitter { brightness: 0.0, contrast: 0.0, saturation: 0.0, hue: 0.0 }),
        gaussian_noise: Some(GaussianNoise { sigma: 0.0, probability: 1.0 }),
        random_erasing: Some(RandomErasing { probability: 0.0, ..RandomErasing::default() }),
        ..Augment::default()
    };
    assert!(still.without_idle().is_off());
    for preset in Augment::PRESETS {
        let preset: Augment = preset.parse().expect("a preset");
        assert_eq!(preset.clone().without_idle(), preset);
    }
}
