//! How many images per second does the feed give from the demo's images: as a folder, as JPEG, as raw shards? And
//! what does a balance of 100 : 1 cost in bytes read?

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forebay::commands::bench::{BatchMaker, Length, repetition};
use forebay::demo::{DemoOptions, draw};
use forebay::feed;
use forebay::flow::Run;
use forebay::options::{Command, Config};
use forebay::plan::{PreparePlan, Rooms};
use forebay::prepare::prepare;
use forebay_datasets::seed::Seed;

fn config(flags: &[(&'static str, &str)]) -> Config {
    let flags: Vec<_> = flags.iter().map(|(key, text)| (*key, text.to_string())).collect();
    Config::resolve(None, &[], &flags).expect("options of a bench")
}

/// Of two classes one has a hundredth of the images, which make up half of the balanced epoch: its copies lie
/// everywhere in it, in windows of four groups.
fn balance() {
    let folder = tempfile::tempdir().expect("a folder for the bench");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    for index in 0..4_040u32 {
        let class = if index % 101 == 7 { "rare" } else { "common" };
        let pixel = |x, y| image::Rgb([(x * index) as u8, (y * index) as u8, (x * y) as u8]);
        let image = image::RgbImage::from_fn(48, 48, pixel);
        let name = folder.path().join("images").join(class);
        std::fs::create_dir_all(&name).expect("a folder of a class");
        image.save(name.join(format!("{index:04}.png"))).expect("an image");
    }
    for encode in ["jpeg", "raw"] {
        let options = config(&[
            ("source", &path("images")),
            ("dest", &path(encode)),
            ("resize.size", "48"),
            ("resize.fit", "crop"),
            ("encode.format", encode),
            ("split.shares", "none"),
        ]);
        let run = Run::new(Rooms::of(&options).run_options()).expect("threads");
        let prepared = run.block_on(async {
            let plan = PreparePlan::resolve(&run, &options).await.expect("a plan");
            prepare(&run, Arc::new(plan)).await.expect("shards")
        });
        let all: u64 = prepared.manifest.shards.iter().map(|shard| shard.bytes).sum();
        for (mode, repeats) in [("none", "1"), ("over", "100")] {
            let options = config(&[
                ("source", &path(encode)),
                ("resize.size", "224"),
                ("balance.mode", mode),
                ("balance.max_repeats", repeats),
            ]);
            let run = Run::new(Rooms::of(&options).run_options()).expect("threads");
            let (feed, ..) = run
                .block_on(feed::resolve(&run, &options, forebay::options::Command::Bench))
                .expect("a feed");
            let made = BatchMaker::of(&feed);
            let done = run.block_on(repetition(&run, &feed, &made, Length::Epochs(1), Arc::default()));
            let done = done.expect("an epoch");
            println!(
                "feed/balance {mode:<4} of {encode:<4}: {} images, {:.2} times the dataset read, {:.0} images/s",
                done.images,
                done.bytes_read as f64 / all as f64,
                done.images_per_second
            );
        }
    }
}

fn feed(criterion: &mut Criterion) {
    balance();
    let folder = tempfile::tempdir().expect("a folder for the bench");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    draw(folder.path().join("images").as_path(), Seed(0), DemoOptions::default()).expect("it can be drawn");
    for encode in ["jpeg", "raw"] {
        let options = config(&[
            ("source", &path("images")),
            ("dest", &path(encode)),
            ("resize.size", "64"),
            ("resize.fit", "crop"),
            ("encode.format", encode),
            ("max_rejects", "10"),
        ]);
        let run = Run::new(Rooms::of(&options).run_options()).expect("threads");
        run.block_on(async {
            let plan = PreparePlan::resolve(&run, &options).await.expect("a plan");
            prepare(&run, Arc::new(plan)).await.expect("shards");
        });
    }
    let mut group = criterion.benchmark_group("feed");
    group.sample_size(10);
    for source in ["images", "jpeg", "raw"] {
        let options = config(&[("source", &path(source)), ("resize.size", "64"), ("max_rejects", "1000000")]);
        let run = Run::new(Rooms::of(&options).run_options()).expect("threads");
        let (feed, ..) = run.block_on(feed::resolve(&run, &options, Command::Bench)).expect("a feed");
        group.throughput(Throughput::Elements(feed.rows(forebay_datasets::sample::Split::Train)));
        let made = BatchMaker::of(&feed);
        group.bench_function(source, |bencher| {
            let once = || repetition(&run, &feed, &made, Length::Epochs(1), Arc::default());
            bencher.iter(|| run.block_on(once()).expect("an epoch"));
        });
    }
    group.finish();
}

criterion_group!(benches, feed);
criterion_main!(benches);
