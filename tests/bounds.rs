//! The most memory that a plan names is the most that the process takes, on the shapes of input that are worst.

use image::{ExtendedColorType, ImageEncoder};

use crate::fixture::Place;

/// What the process takes beside what it works on: code, threads, and what the allocator keeps.
const PROGRAM_BYTES: f64 = 32.0 * 1024.0 * 1024.0;

/// The figure of a plan: `memory  at most 1.2 GiB in flight`.
fn planned_bytes(plan: &str) -> f64 {
    let line =
        plan.lines().find(|line| line.contains("in flight")).unwrap_or_else(|| panic!("no figure: {plan}"));
    let mut words = line.split_whitespace().skip_while(|word| *word != "most").skip(1);
    let (number, unit) = (words.next().expect("a number"), words.next().expect("a unit"));
    let unit =
        ["bytes", "KiB", "MiB", "GiB"].iter().position(|known| *known == unit).expect("a unit of bytes");
    // What was rounded away is less than a half of the last digit.
    number.parse::<f64>().expect("a number") * 1024_f64.powi(unit as i32) * 1.01
}

/// Runs a command and finds its peak below the figure of its plan.
#[track_caller]
fn check(place: &Place, plan: &str, run: &str) {
    let planned = planned_bytes(&place.run(&format!("plan {plan}")).done().stdout);
    let result = place.run(&format!("{run} --json")).done().json();
    let peak = result["peak_memory_bytes"].as_f64();
    let peak = peak.unwrap_or_else(|| panic!("no peak: {result}"));
    let mib = |bytes: f64| bytes / 1024.0 / 1024.0;
    println!("{run}: plan {:.0} MiB, peak {:.0} MiB", mib(planned), mib(peak));
    assert!(
        peak <= planned + PROGRAM_BYTES,
        "{run}: plan {:.0} MiB, peak {:.0} MiB",
        mib(planned),
        mib(peak)
    );
}

#[track_caller]
fn check_prepare(place: &Place, options: &str) {
    let options = format!("prepare in out --split none {options}");
    check(place, &options, &options);
}

/// The same file under `n` names, in two classes.
fn copies(place: &Place, n: usize, extension: &str, bytes: &[u8]) {
    for index in 0..n {
        place.write(&format!("in/{}/{index}.{extension}", ["a", "b"][index % 2]), bytes);
    }
}

/// A PNG of one colour.
fn flat(width: u32, height: u32, color: ::png::ColorType, depth: ::png::BitDepth) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    let row = (width as usize * color.samples() * depth as usize).div_ceil(8);
    encoder.write_header().unwrap().write_image_data(&vec![0x55; row * height as usize]).unwrap();
    bytes
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut stream = forebay_datasets::seed::Seed(5).stream("noise");
    (0..bytes).map(|_| stream.bits() as u8).collect()
}

#[test]
fn flat_images_that_are_stored_raw_stay_below_the_plan() {
    let place = Place::new();
    copies(&place, 300, "png", &flat(1000, 1000, ::png::ColorType::Rgb, ::png::BitDepth::Eight));
    check_prepare(&place, "--size original --encode raw --memory 300MiB");
}

#[test]
fn small_images_that_are_enlarged_stay_below_the_plan() {
    let place = Place::new();
    copies(&place, 160, "png", &flat(32, 32, ::png::ColorType::Rgb, ::png::BitDepth::Eight));
    check_prepare(&place, "--size 1024 --threads 16 --memory 256MiB");
}

#[test]
fn images_of_one_bit_stay_below_the_plan() {
    let place = Place::new();
    copies(&place, 40, "png", &flat(4000, 4000, ::png::ColorType::Grayscale, ::png::BitDepth::One));
    check_prepare(&place, "--memory 256MiB");
}

#[test]
fn an_image_of_sixteen_bits_with_alpha_stays_below_the_plan() {
    let place = Place::new();
    copies(&place, 1, "png", &flat(4000, 4000, ::png::ColorType::Rgba, ::png::BitDepth::Sixteen));
    check_prepare(&place, "--memory 72MiB --max-bytes 72MiB");
}

#[test]
fn rows_that_are_larger_than_what_is_trained_on_stay_below_the_plan() {
    let place = Place::new();
    copies(&place, 120, "png", &flat(1000, 1000, ::png::ColorType::Rgb, ::png::BitDepth::Eight));
    place.run("prepare in shards --split none --size original --encode raw").done();
    let options = "shards --size 32 --memory 256MiB --epochs 1";
    check(&place, &format!("train {options} --out run"), &format!("bench {options}"));
}

#[test]
fn shards_that_are_read_again_stay_below_the_plan() {
    let place = Place::new();
    copies(&place, 1000, "png", &flat(500, 500, ::png::ColorType::Rgb, ::png::BitDepth::Eight));
    let options = "--size original --encode raw --samples-per-shard 1000 --memory 64MiB --max-bytes 64MiB";
    check_prepare(&place, options);
    let verified = place.run("verify out --json").done().json();
    assert_eq!(verified["shards"], 1, "{verified}");
    let (shard, peak) =
        (verified["bytes"].as_f64().unwrap(), verified["peak_memory_bytes"].as_f64().unwrap());
    println!("verify: a shard of {shard} bytes, peak {peak}");
    assert!(peak < shard / 4.0, "{verified}");
    // A dataset that was interrupted before its end.
    std::fs::remove_file(place.path("out/manifest.json")).unwrap();
    check_prepare(&place, options);
}

#[test]
fn progressive_files_stay_below_the_plan() {
    let place = Place::new();
    let noise = noise(1500 * 1200 * 3);
    let encoder = libjpeg_turbo_rs::Encoder::new(&noise, 1500, 1200, libjpeg_turbo_rs::PixelFormat::Rgb);
    let encoder = encoder.quality(90).progressive(true).subsampling(libjpeg_turbo_rs::Subsampling::S444);
    let bytes = encoder.encode().unwrap();
    copies(&place, 16, "jpg", &bytes);
    check_prepare(&place, "--size 64 --threads 8 --memory 64MiB --max-bytes 64MiB");
}

#[test]
fn webp_files_with_alpha_stay_below_the_plan() {
    let place = Place::new();
    let mut bytes = Vec::new();
    image::codecs::webp::WebPEncoder::new_lossless(&mut bytes)
        .write_image(&vec![100; 1500 * 1500 * 4], 1500, 1500, ExtendedColorType::Rgba8)
        .unwrap();
    copies(&place, 30, "webp", &bytes);
    check_prepare(&place, "--size 64 --filter lanczos3 --threads 8 --memory 64MiB --max-bytes 64MiB");
}

#[test]
fn windows_that_are_put_out_large_stay_below_the_plan() {
    let place = Place::new();
    copies(&place, 40, "png", &flat(48, 64, ::png::ColorType::Rgb, ::png::BitDepth::Eight));
    let augment = "--set augment.random_resized_crop.side=2048";
    check_prepare(&place, &format!("--size 64 --threads 8 --memory 64MiB --max-bytes 64MiB {augment}"));
}

#[test]
fn many_images_are_predicted_in_the_memory_of_a_few() {
    let place = Place::new();
    crate::evaluation::images(&place, 30);
    place.run(&format!("train in --out run {}", crate::evaluation::QUICK)).done();
    let png = flat(600, 600, ::png::ColorType::Rgb, ::png::BitDepth::Eight);
    let peak = |n: usize, ending: &str| -> f64 {
        (0..n).for_each(|index| place.write(&format!("{n}/{index:05}.png"), &png));
        let predict = format!("predict run {n} --memory 64MiB --output {n}.{ending} --json");
        let peak = place.run(&predict).done().json()["peak_memory_bytes"].as_f64().unwrap();
        println!("{predict}: peak {:.1} MiB", peak / 1024.0 / 1024.0);
        peak
    };
    for (n, ending) in [(100, "csv"), (400, "csv"), (400, "parquet")] {
        // Decoded they are 100 MiB and 400 MiB.
        let peak = peak(n, ending);
        assert!(peak < 64.0 * 1024.0 * 1024.0 + 2.0 * PROGRAM_BYTES, "{peak} of {n} images");
    }
}

/// A batch after others of its size, of which one came back, takes no memory but for the names and labels in it; nor does a group
/// of rows that is read.
#[test]
fn what_came_back_serves_the_next_batch_and_the_next_rows() {
    use forebay_datasets::blocks::Blocks;
    use forebay_datasets::sample::{Encoded, Pixels, Sample};
    use forebay_datasets::seed::Seed;
    use forebay_datasets::store::{Store, StoreOptions};
    use forebay_stages::augment::Augment;
    use forebay_stages::batches::Batches;
    use forebay_stages::collate::Collate;
    use forebay_stages::decode::Decode;
    use forebay_stages::normalize::Normalize;
    use forebay_stages::stage::{Gather, Stage};
    use forebay_stages::weight::{Scales, Step};
    use futures::executor::block_on;

    let side = 64;
    let samples = || -> Vec<Sample<Pixels>> {
        let pixels = || Ok(Pixels::new(side, side, vec![7; 3 * side as usize * side as usize]));
        (0..32).map(|copy| Sample { id: "a".into(), copy, label: 0, payload: pixels() }).collect()
    };
    let collate = Collate::<f32>::normalized(side, &Normalize::IMAGENET);
    let batch_bytes = 32 * 3 * u64::from(side) * u64::from(side) * 4;
    let peak = |work: &mut dyn FnMut()| crate::hostile::measured(work).peak_bytes;
    let first = samples();
    let mut taken = Some(first);
    assert!(peak(&mut || drop(collate.batch(taken.take().expect("once")))) >= batch_bytes);
    let mut taken = Some(samples());
    let again = peak(&mut || drop(collate.batch(taken.take().expect("once"))));
    assert!(again < 4096, "{again} bytes for a batch after one that came back");

    // Crops of raw images, every second one mirrored, take none between the bytes of their files and the batch.
    let file = bytes::Bytes::from([b"P6\n72 72\n255\n".as_slice(), &noise(72 * 72 * 3)].concat());
    let augment: Augment =
        toml::from_str("[random_crop]\nside = 64\n[horizontal_flip]\n").expect("two changes");
    let steps = vec![Step::Augment(augment.clone())];
    let scales = Scales { decode: Decode::default(), steps, encode: None };
    let decode = scales.decode_seen();
    let mut batches = Batches::new([((), 32), ((), 32)], collate.clone());
    let mut crops = || {
        for copy in 0..32 {
            let draws = Seed(1).draws("a", copy, 0);
            let crop = |bytes| augment.apply(decode.apply(Encoded { bytes }, &draws)?, &draws);
            let sample = Sample { id: "a".into(), copy, label: 0, payload: Ok(file.clone()) };
            batches.take(vec![sample.map(crop)]);
            assert_eq!(batches.fill().map(|(_, batch)| batch.len()), (copy == 31).then_some(32));
        }
    };
    peak(&mut crops);
    let again = peak(&mut crops);
    assert!(again < 4096, "{again} bytes for a batch of crops");

    let place = Place::new();
    place.write("group", &noise(1 << 20));
    let store = Store::open(&place.path("").to_string_lossy(), &StoreOptions::default()).expect("a folder");
    let blocks = Blocks::default();
    let mut read = || drop(block_on(store.get_range_in("group", 0..1 << 20, &blocks)).expect("the file"));
    assert!(peak(&mut read) >= 1 << 20);
    let again = peak(&mut read);
    assert!(again < 16 << 10, "{again} bytes for a group after one that came back");
}
