//! What does a training step cost? Images per second of forward, backward and update, and of a forward pass, on
//! random weights and noise: `cargo bench --bench train`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forebay_datasets::seed::Seed;
use forebay_stages::collate::Batch;
use forebay_train::{Freeze, TrainOptions, Trainer};

/// (network, side in pixels, images per batch): CIFAR's size, the demo's, and ImageNet's.
const CASES: &[(&str, u32, usize)] = &[("small", 32, 64), ("small", 64, 32), ("resnet18", 224, 16)];

fn options(model: &str, freeze: Freeze) -> TrainOptions {
    let classes = (0..10).map(|class| class.to_string()).collect();
    TrainOptions { freeze, label_smoothing: 0.1, ..TrainOptions::new(model, classes) }
}

fn noise(side: u32, count: usize) -> Batch {
    let mut stream = Seed(1).stream("noise");
    let values = count * 3 * side as usize * side as usize;
    Batch {
        images: (0..values).map(|_| stream.below(256) as u8).collect(),
        labels: (0..count).map(|index| (index % 10) as u32).collect(),
        ids: (0..count).map(|index| index.to_string().into()).collect(),
        side,
    }
}

fn train(criterion: &mut Criterion) {
    for &(model, side, count) in CASES {
        let mut group = criterion.benchmark_group(format!("{model}-{side}px"));
        group.throughput(Throughput::Elements(count as u64));
        group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(10));
        let batch = noise(side, count);
        for (name, freeze) in [("step", Freeze::None), ("step-frozen-backbone", Freeze::Backbone)] {
            let mut trainer = Trainer::new(&options(model, freeze)).expect("sound options");
            group.bench_function(name, |bencher| {
                bencher.iter(|| trainer.step(black_box(&batch)).expect("a step"))
            });
        }
        let trainer = Trainer::new(&options(model, Freeze::None)).expect("sound options");
        group.bench_function("predict", |bencher| {
            bencher.iter(|| trainer.predictor().predict(black_box(&batch)).expect("logits"))
        });
        group.finish();
    }
}

criterion_group!(benches, train);
criterion_main!(benches);
