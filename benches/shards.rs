//! What does a shard cost beside its images? Encoding and reading 1000 rows of 20 KB, and of 196 KB as raw
//! shards of 256 pixels have them; bytes per second are those of the images.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use forebay_datasets::sample::Split;
use forebay_datasets::shard::{Footer, Index, ROWS_PER_GROUP, Row, encode};

const N_ROWS: usize = 1000;

fn groups(bytes: usize) -> Vec<Vec<Row>> {
    let row = |index: usize| Row {
        bytes: Bytes::from(vec![index as u8; bytes]),
        label: (index % 10) as u32,
        id: format!("class-{}/image-{index:06}.jpg", index % 10).into(),
        copy: 0,
        size: (256, 256),
        original_size: (500, 375),
        extension: "jpg",
        provenance: Default::default(),
    };
    let rows: Vec<Row> = (0..N_ROWS).map(row).collect();
    rows.chunks(ROWS_PER_GROUP).map(<[Row]>::to_vec).collect()
}

fn footer() -> Footer {
    Footer { fingerprint: "bench".into(), ..Footer::of(Split::Train, 0) }
}

fn shards(criterion: &mut Criterion) {
    let classes: Vec<String> = (0..10).map(|class| format!("class-{class}")).collect();
    let mut group = criterion.benchmark_group("shards");
    group.sample_size(10);
    for bytes in [20_000, 196_623] {
        group.throughput(Throughput::Bytes((N_ROWS * bytes) as u64));
        group.bench_function(format!("encode/{bytes}"), |bencher| {
            let run = |groups| encode(&classes, groups, footer()).expect("rows fit a shard");
            bencher.iter_batched(|| groups(bytes), run, BatchSize::PerIteration);
        });
        let (file, _) = encode(&classes, groups(bytes), footer()).expect("rows fit a shard");
        let index = Index::of_file(&file).expect("our own shard");
        group.bench_function(format!("read/{bytes}"), |bencher| {
            bencher.iter(|| {
                for group in 0..index.footer().groups.len() {
                    let range = index.group_range(group);
                    let bytes = file.slice(range.start as usize..range.end as usize);
                    assert_eq!(index.rows(group, bytes).expect("our own shard").len(), ROWS_PER_GROUP);
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, shards);
criterion_main!(benches);
