//! A feed of shards in memory: what an epoch reads, mixes and balances, and what that costs in bytes.

use std::collections::BTreeSet;

use bytes::Bytes;
use forebay_datasets::formats::DatasetFormat;
use forebay_datasets::manifest::{Counts, FORMAT, Manifest, RowOrder, ShardRecord, StoredFormat};
use forebay_datasets::sample::SampleId;
use forebay_datasets::shard::{self, Footer, Row};
use forebay_datasets::split::SplitRule;
use forebay_datasets::store::StoreOptions;
use forebay_stages::balance::Balance;
use forebay_stages::chain::Wanted;
use forebay_stages::decode::{Decode, Limits};

use super::shards::WINDOW_BYTES_MAX;
use super::*;
use crate::flow::{MaxRejects, RunOptions};

const ROOMS: Rooms = Rooms { threads: 2, memory_bytes: 64 << 20, max_rejects: MaxRejects::Count(0) };

fn run() -> Run {
    Run::new(RunOptions { threads: 2, memory_bytes: 64 << 20, max_rejects: MaxRejects::Count(0) }).unwrap()
}

/// A training split of `rows` rows, of which every hundredth is of the second class, with images of about `bytes`
/// bytes that nobody decodes, in shards of 500 rows; the store and how many bytes the shards take.
fn dataset(run: &Run, rows: usize, bytes: usize) -> (Store, Manifest, u64) {
    dataset_in(Store::memory(), run, rows, bytes)
}

fn dataset_in(store: Store, run: &Run, rows: usize, bytes: usize) -> (Store, Manifest, u64) {
    let classes = vec!["common".to_string(), "rare".to_string()];
    let row = |index: usize| Row {
        bytes: Bytes::from(vec![index as u8; bytes * 3 / 4 + bytes * (index % 7) / 12]),
        label: u32::from(index % 100 == 7),
        id: format!("{index:05}.png").into(),
        copy: 0,
        size: (1, 1),
        original_size: (1, 1),
        extension: "png",
        provenance: Default::default(),
    };
    let starts: Vec<usize> = (0..rows).step_by(500).collect();
    let mut shards = Vec::new();
    for (index, &start) in starts.iter().enumerate() {
        let all: Vec<Row> = (start..(start + 500).min(rows)).map(row).collect();
        let groups = all.chunks(ROWS_PER_GROUP).map(<[Row]>::to_vec).collect();
        let footer = Footer { fingerprint: "f".into(), ..Footer::of(Split::Train, index) };
        let (file, footer) = shard::encode(&classes, groups, footer).unwrap();
        let key = shard::key(Split::Train, index, starts.len());
        shards.push(ShardRecord {
            key: key.clone(),
            fingerprint: "f".into(),
            split: Split::Train,
            bytes: file.len() as u64,
            blake3: String::new(),
            groups: footer.groups,
            index: (index % 2 == 0).then(|| shard::packed_index(&file)),
        });
        run.block_on(store.put(&key, file)).unwrap();
    }
    let all = shards.iter().map(|shard| shard.bytes).sum();
    let manifest = Manifest {
        format: FORMAT,
        fingerprint: "f".into(),
        classes,
        chain: serde_json::json!(null),
        balanced: false,
        augment: None,
        split_rule: SplitRule::AllTrain,
        row_order: RowOrder::Source,
        stored_format: StoredFormat::Png,
        dataset_format: DatasetFormat::Parquet,
        settings: serde_json::json!({}),
        fixes: None,
        kept: vec![],
        counts: Counts::default(),
        splits: vec![],
        beside: vec![],
        shards,
    };
    (store, manifest, all)
}

fn feed(run: &Run, store: &Store, manifest: Manifest, window_bytes_max: u64) -> Feed {
    let shards = run.block_on(Shards::open(store, manifest)).unwrap().with_windows_of(window_bytes_max);
    let decode =
        Decode { limits: Limits { side_px_max: 1 << 16, memory_bytes_max: 1 << 26 }, ..Decode::default() };
    let wanted = Wanted { side: Some(256), ..Wanted::default() };
    let composed = Chain::of_files().then(&wanted).expect("files become anything");
    Feed::new(store.clone(), Arc::new(shards), composed, decode, None, 32, Seed(3), ROOMS)
}

/// Ids and copies of an epoch as they come from the source, after the first batches.
fn rows(run: &Run, feed: &Feed, epoch: u32, done: u64) -> Vec<(SampleId, u32)> {
    let windows = Arc::new(feed.epoch(Pass::train(epoch))).windows(done, Rank::ALONE);
    let images = feed.images(run, Split::Train, windows, feed.window_groups());
    let chunks = run.block_on(images.collect()).unwrap();
    chunks.into_iter().flatten().map(|sample| (sample.id, sample.copy)).collect()
}

fn over() -> BalanceOptions {
    BalanceOptions { max_repeats: 1000, ..BalanceOptions::of(Balance::Over) }
}

/// Of 5000 images one in a hundred is of a class that makes up half of the balanced epoch. Its copies lie
/// everywhere, and yet no more is read than the dataset and a fifth.
#[test]
fn an_imbalance_of_100_to_1_reads_at_most_one_and_a_fifth_of_the_dataset_in_an_epoch() {
    let run = run();
    for bytes in [3_000, 20_000] {
        let (store, manifest, all) = dataset(&run, 5_000, bytes);
        let mut feed = feed(&run, &store, manifest, WINDOW_BYTES_MAX);
        run.block_on(feed.balance(&over(), Seed(0))).unwrap();
        assert_eq!(feed.rows(Split::Train), 2 * 4_950);
        for epoch in 0..2 {
            let before = feed.source.bytes_read();
            let found = rows(&run, &feed, epoch, 0);
            assert_eq!(found.len(), 2 * 4_950);
            assert_eq!(found.into_iter().collect::<BTreeSet<_>>().len(), 2 * 4_950, "each copy comes once");
            let share = (feed.source.bytes_read() - before) as f64 / all as f64;
            println!("{bytes} bytes an image, epoch {epoch}: {share:.3} of the dataset read");
            assert!((0.9..1.2).contains(&share), "{bytes} bytes an image: {share} of the dataset in {epoch}");
        }
    }
}

#[test]
fn rows_come_in_one_order_whether_groups_are_read_or_rows_and_whatever_is_kept() {
    let run = run();
    let (store, manifest, _) = dataset(&run, 1_030, 500);
    for balance in [None, Some(over())] {
        let of = |window_bytes_max: u64, memory_bytes: u64, done: u64| {
            let mut feed = feed(&run, &store, manifest.clone(), window_bytes_max);
            feed.rooms.memory_bytes = memory_bytes;
            if let Some(options) = &balance {
                run.block_on(feed.balance(options, Seed(0))).unwrap();
            }
            rows(&run, &feed, 1, done)
        };
        let whole = of(WINDOW_BYTES_MAX, 64 << 20, 0);
        assert_eq!(of(0, 64 << 20, 0), whole);
        assert_eq!(of(WINDOW_BYTES_MAX, 1 << 10, 0), whole);
        for done in [1, 20] {
            assert_eq!(of(WINDOW_BYTES_MAX, 64 << 20, done), whole[32 * done as usize..]);
            assert_eq!(of(0, 1 << 10, done), whole[32 * done as usize..]);
        }
    }
}

/// Rows of a local folder that are large are read alone, in the same order; what a plan says of their memory is no more than what
/// groups would take.
#[test]
fn large_rows_of_a_local_folder_come_one_by_one_in_the_same_order() {
    let run = run();
    let folder = tempfile::tempdir().unwrap();
    let local = Store::open(&folder.path().to_string_lossy(), &StoreOptions::default()).unwrap();
    let (local, manifest, all) = dataset_in(local, &run, 520, 90_000);
    let (memory, ..) = dataset(&run, 520, 90_000);
    for balance in [None, Some(over())] {
        let of = |store: &Store| {
            let mut feed = feed(&run, store, manifest.clone(), WINDOW_BYTES_MAX);
            if let Some(options) = &balance {
                run.block_on(feed.balance(options, Seed(0))).unwrap();
            }
            let found = [0, 1].map(|epoch| rows(&run, &feed, epoch, 3));
            (found, feed.source.bytes_read(), feed.nodes()[0].what.clone(), feed.memory()[0])
        };
        let (one_by_one, read, said, (_, bytes)) = of(&local);
        let (by_groups, _, said_of_groups, _) = of(&memory);
        assert_eq!(one_by_one, by_groups);
        assert!(said.contains("row by row") && !said_of_groups.contains("row by row"), "{said}");
        assert!(read <= 2 * all + all / 5, "{read} bytes of {all} for two epochs");
        assert!(bytes <= 4 * all, "{bytes} bytes in flight of {all}");
    }
}

#[test]
fn a_label_that_is_no_class_is_damage_that_is_named() {
    let run = run();
    let (store, manifest, _) = dataset(&run, 120, 500);
    let manifest = Manifest { classes: vec!["common".to_string()], ..manifest };
    for window_bytes_max in [WINDOW_BYTES_MAX, 0] {
        let feed = feed(&run, &store, manifest.clone(), window_bytes_max);
        let windows = Arc::new(feed.epoch(Pass::train(0))).windows(0, Rank::ALONE);
        let images = feed.images(&self::run(), Split::Train, windows, 1);
        let labels = run.block_on(feed.class_counts()).unwrap_err();
        for error in [run.block_on(images.collect()).unwrap_err(), labels] {
            assert_eq!(error.exit_code(), 4);
            let line = error.to_string();
            assert!(line.contains("has label 1, but there are 1 classes"), "{line}");
        }
    }
}
