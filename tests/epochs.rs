//! What an epoch is: planned before anything is read, and the same whatever can be.

use forebay::feed::{self, Pass};
use forebay::flow::{MaxRejects, Run, RunOptions};
use forebay_datasets::order::Rank;

use crate::fixture::Place;

/// `n` images of 8 pixels in two classes; those whose number is in `broken` are no images.
fn images(place: &Place, folder: &str, n: u64, broken: &[u64]) {
    for index in 0..n {
        let name = format!("{folder}/{}/{index:03}.png", ["a", "b"][index as usize % 2]);
        match broken.contains(&index) {
            true => place.write(&name, b"\x89PNG\r\n\x1a\n and then nothing"),
            false => drop(place.write_png(&name, 8, 8, index)),
        }
    }
}

/// What `rank` gets of each batch of an epoch: its number, planned rows and ids; and the planned number of batches.
fn batches_of(
    place: &Place,
    folder: &str,
    more: &[(&'static str, &str)],
    rank: Rank,
) -> (Vec<(u64, usize, Vec<String>)>, u64) {
    let source = place.path(folder).to_string_lossy().into_owned();
    let mut flags = vec![
        ("source", source),
        ("resize.size", "16".into()),
        ("train.batch_size", "4".into()),
        ("split.shares", "none".into()),
    ];
    flags.extend(more.iter().map(|(key, value)| (*key, value.to_string())));
    let config = forebay::options::Config::resolve(None, &[], &flags).unwrap();
    let options = RunOptions { threads: 2, memory_bytes: 64 << 20, max_rejects: MaxRejects::Count(1000) };
    let run = Run::new(options).unwrap();
    run.block_on(async {
        let (feed, ..) = feed::resolve(&run, &config, forebay::options::Command::Train).await.unwrap();
        let found = feed.batches_from(&run, Pass::train(1), 0, rank).collect().await.unwrap();
        let ids =
            |batch: &forebay_stages::collate::Batch| batch.ids.iter().map(|id| id.to_string()).collect();
        let found = found.iter().map(|fed| (fed.index, fed.planned, ids(&fed.batch)));
        (found.collect(), feed.batches_per_epoch())
    })
}

/// Planned rows and ids of each global batch of an epoch, and its planned number of batches.
fn batches(place: &Place, folder: &str, more: &[(&'static str, &str)]) -> (Vec<(usize, Vec<String>)>, u64) {
    let (found, planned) = batches_of(place, folder, more, Rank::ALONE);
    (found.into_iter().map(|(_, planned, ids)| (planned, ids)).collect(), planned)
}

#[test]
fn the_batches_of_all_ranks_together_are_the_global_batches() {
    let place = Place::new();
    // 350 planned rows: the tail of two is smaller than four ranks.
    images(&place, "in", 350, &[5, 6, 7, 200]);
    let (whole, planned) = batches(&place, "in", &[]);
    assert_eq!((whole.len(), planned), (88, 88));
    for world in [1, 2, 4] {
        let mut together = vec![(0, Vec::new()); 88];
        for rank in 0..world {
            let (part, of_all) = batches_of(&place, "in", &[], Rank::new(rank, world).unwrap());
            assert_eq!(of_all, 88, "every rank plans the same steps");
            for (index, planned, ids) in part {
                let (rows, all) = &mut together[index as usize];
                *rows += planned;
                all.extend(ids);
            }
        }
        assert!(together == whole, "{world} ranks");
    }
}

#[test]
fn a_broken_image_leaves_a_hole_in_its_batch_and_moves_no_other() {
    let place = Place::new();
    let broken: Vec<u64> = (0..100).filter(|index| index % 5 < 2).collect();
    images(&place, "whole", 100, &[]);
    images(&place, "broken", 100, &broken);
    let balance: [(&'static str, &str); 2] = [("balance.mode", "over"), ("balance.ratio", "0.5")];
    for more in [&[][..], &balance[..]] {
        let (whole, planned) = batches(&place, "whole", more);
        let (rest, planned_with_holes) = batches(&place, "broken", more);
        assert_eq!((planned, planned_with_holes), (25, 25));
        assert_eq!((whole.len(), rest.len()), (25, 25));
        for ((planned, ids), (planned_with_holes, left)) in whole.iter().zip(&rest) {
            assert_eq!((*planned, *planned_with_holes), (4, 4));
            let is_whole =
                |id: &&String| !broken.iter().any(|index| id.ends_with(&format!("/{index:03}.png")));
            assert_eq!(ids.iter().filter(is_whole).collect::<Vec<_>>(), left.iter().collect::<Vec<_>>());
        }
    }
}

/// Steps, schedule and thaws are those of the plan: batches of planned rows, whatever is broken.
#[test]
fn broken_images_shift_neither_steps_nor_schedules_nor_thaws() {
    let place = Place::new();
    // Runs of broken files, so that some batches are all holes or all but one.
    let broken: Vec<u64> = (0..100).filter(|index| index % 5 < 2).collect();
    images(&place, "whole", 100, &[]);
    images(&place, "broken", 100, &broken);
    let epochs = |folder: &str| -> Vec<serde_json::Value> {
        let options = "--split none --arch resnet20 --size 32 --batch-size 4 --epochs 2 --schedule cosine \
                       --freeze backbone --max-rejects 50 --doctor off";
        place.run(&format!("train {folder} --out run-{folder} {options}")).done();
        let text = std::fs::read_to_string(place.path(&format!("run-{folder}/metrics.jsonl"))).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (whole, rest) = (epochs("whole"), epochs("broken"));
    for (epoch, (a, b)) in whole.iter().zip(&rest).enumerate() {
        assert_eq!(a["steps"], 25 * (epoch + 1));
        assert_eq!((&a["steps"], &a["learning_rate"]), (&b["steps"], &b["learning_rate"]));
    }
    // What is frozen is the same whatever the learning rate, and what has thawed is not.
    let layers = |rate: f64| -> [Vec<u8>; 2] {
        let options = "--split none --arch resnet20 --size 32 --batch-size 4 --epochs 3 --freeze backbone \
                       --unfreeze 3:layer3 --max-rejects 50 --doctor off --overwrite";
        place.run(&format!("train broken --out thaws {options} --lr {rate}")).done();
        let file = std::fs::read(place.path("thaws/last.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
        ["layer2.0.conv1.weight", "layer3.0.conv1.weight"]
            .map(|name| tensors.tensor(name).unwrap().data().to_vec())
    };
    let (slow, fast) = (layers(0.1), layers(0.2));
    assert!(slow[0] == fast[0], "layer2 stays frozen");
    assert!(slow[1] != fast[1], "layer3 thaws in the last epoch");
}

#[test]
fn a_broken_image_is_one_reject_whatever_its_copies_and_epochs() {
    let place = Place::new();
    images(&place, "in", 21, &[4]);
    for more in ["--balance over --epochs 4", "--epochs 10"] {
        let options = "--split none --size 16 --arch small --batch-size 4 --max-rejects 1 --overwrite";
        place.run(&format!("train in --out run {options} {more}")).done();
    }
    images(&place, "in", 21, &[4, 9]);
    let refused =
        place.run("train in --out run --split none --size 16 --arch small --max-rejects 1 --overwrite");
    refused.refused(3, "2 of 21 samples were rejected, which is more than 1");
}

/// 4 % of the images are broken and 5 % may be: wherever in the order they stand, and however many threads there
/// are, the run goes on. One of them more than 5 % ends it, whoever comes first.
#[test]
fn the_outcome_of_a_reject_budget_is_the_same_for_every_seed_and_number_of_threads() {
    let place = Place::new();
    for (broken, code) in [(8, 0), (11, 3)] {
        images(&place, "in", 200, &(0..broken).map(|index| 17 * index).collect::<Vec<_>>());
        for seed in 0..4 {
            let threads = seed % 2 + 1;
            let said = place
                .run(&format!("bench in --size 8 --split none --epochs 1 --seed {seed} --threads {threads}"));
            match code {
                0 => drop(said.done()),
                code => drop(said.refused(code, "which is more than 5 %")),
            }
        }
    }
}

#[test]
fn shards_in_the_order_of_their_source_are_mixed_or_a_warning_says_that_they_are_not() {
    let place = Place::new();
    images(&place, "in", 350, &[]);
    place.run("prepare in shards --size 8 --fit crop --split none --order source --encode raw").done();
    let few = "the shards keep the order of their source";
    // 64 MiB hold one group of 100 images of 400 pixels, and four of 8.
    let said = place.run("bench shards --size 8 --epochs 1").done();
    assert!(!said.stderr.contains(few), "{}", said.stderr);
    let said = place.run("plan train shards --size 400").done();
    assert!(said.stderr.contains(few), "{}", said.stderr);
}
