//! What does each step of one image cost: decoding, resizing, encoding, augmenting?
//!
//! The images are drawn here: a photograph-like mixture of gradients and texture, 500 × 375 pixels, the size of
//! a typical ImageNet file. Throughput is in pixels of the input.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use forebay_datasets::sample::{Encoded, Pixels};
use forebay_datasets::seed::{Draws, Seed};
use forebay_stages::augment::Augment;
use forebay_stages::decode::{Decode, probe};
use forebay_stages::encode::{Encode, Encoding};
use forebay_stages::resize::{Fit, Resize, Size};
use forebay_stages::stage::Stage;

const WIDTH: u32 = 500;
const HEIGHT: u32 = 375;

/// Smooth colour, a few edges, and noise of a few grey levels.
fn photograph(width: u32, height: u32) -> Pixels {
    let mut stream = Seed(0).stream("photograph");
    let mut data = Vec::with_capacity((width * height * 3) as usize);
    for y in 0..height {
        for x in 0..width {
            let wave = ((x as f64 / 23.0).sin() + (y as f64 / 31.0).cos()) * 40.0;
            let edge = if (x / 60 + y / 45) % 3 == 0 { 50.0 } else { 0.0 };
            for shift in [90.0, 100.0, 70.0] {
                data.push((shift + wave + edge + stream.range(-6.0, 6.0)) as u8);
            }
        }
    }
    Pixels::new(width, height, data)
}

fn draws() -> Draws {
    Seed(0).draws("photograph", 0, 0)
}

fn encoded(pixels: &Pixels, encoding: Encoding) -> Bytes {
    Encode { encoding }.apply(pixels.clone(), &draws()).expect("the photograph is encoded").bytes
}

/// One stage over one input, which is copied outside the measured time.
fn bench<S: Stage>(criterion: &mut Criterion, name: &str, stage: &S, input: &S::In)
where
    S::In: Clone,
{
    let mut group = criterion.benchmark_group(S::NAME);
    group.throughput(Throughput::Elements(u64::from(WIDTH * HEIGHT)));
    let draws = draws();
    group.bench_function(name, |bencher| {
        let run = |input| stage.apply(black_box(input), &draws).map_err(|fault| fault.to_string());
        bencher.iter_batched(
            || input.clone(),
            |input| run(input).expect("the image is good"),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn stages(criterion: &mut Criterion) {
    let pixels = photograph(WIDTH, HEIGHT);
    let square = photograph(256, 256);
    for encoding in [Encoding::default(), Encoding::Png, Encoding::Raw] {
        let bytes = encoded(&pixels, encoding);
        bench(criterion, &encoding.to_string(), &Decode::default(), &Encoded { bytes });
    }
    for fit in [Fit::Shortest, Fit::Crop] {
        let resize = Resize { size: Size::Side(256), fit, ..Resize::default() };
        bench(criterion, &format!("{fit} 256"), &resize, &pixels);
    }
    for encoding in [Encoding::default(), Encoding::Png, Encoding::Raw] {
        bench(criterion, &format!("{encoding} of 256x256"), &Encode { encoding }, &square);
    }
    for preset in Augment::PRESETS {
        let augment: Augment = preset.parse().expect("a preset");
        bench(criterion, &format!("{preset} of 256x256"), &augment, &square);
    }
    let bytes = encoded(&pixels, Encoding::default());
    criterion.bench_function("probe jpeg", |bencher| bencher.iter(|| probe(black_box(&bytes))));
}

criterion_group!(benches, stages);
criterion_main!(benches);
