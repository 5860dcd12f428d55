//! `train` beyond its defaults: what is frozen and thaws, every optimiser, schedule and loss, and what is refused.

use crate::fixture::{Place, Said};

fn place() -> Place {
    let place = Place::new();
    for index in 0..24u64 {
        place.write_png(&format!("in/{}/{index}.png", ["a", "b"][index as usize % 2]), 16, 16, index);
    }
    place
}

const TRAIN: &str = "train in --size 16 --batch-size 8 --epochs 2 --out";

#[test]
fn every_optimizer_schedule_and_loss_trains_and_resumes_to_the_same_bytes() {
    let place = place();
    for (index, options) in [
        "--optimizer sgd --nesterov --schedule step --lr-every 1 --clip-norm 1 --l1 0.0001",
        "--optimizer adam --schedule one-cycle --loss focal --class-weights inverse",
        "--optimizer rmsprop --schedule plateau --lr-patience 0 --ema 0.9 --micro-batch 3",
        "--schedule cosine-restarts --mixup 0.2 --cutmix 1 --dropout 0.3 --head-width 8 --head-activation gelu",
        "--schedule multi-step --lr-milestones 1 --freeze layer2 --unfreeze 2:layer2 --layer-decay 0.8",
        "--schedule exponential --class-weights effective --arch resnet20",
    ]
    .into_iter()
    .enumerate()
    {
        place.run(&format!("{TRAIN} whole{index} {options}")).done();
        let killed = format!("{TRAIN} part{index} {options} --checkpoint-every 1");
        place.run_and_kill(&killed, || place.path(&format!("part{index}/last.safetensors")).exists());
        place.run(&format!("{killed} --resume")).done();
        let bytes = |name: &str| std::fs::read(place.path(&format!("{name}{index}/model.safetensors"))).unwrap();
        assert!(bytes("whole") == bytes("part"), "{options}");
    }
}

#[test]
fn an_epoch_whose_last_image_would_be_alone_is_trained() {
    let place = place();
    // 24 images by 23, of a network whose last maps are a single pixel; then micro-batches of an odd batch.
    for options in ["--batch-size 23", "--batch-size 3 --micro-batch 2"] {
        let train = "train in --split none --size 16 --arch resnet18 --epochs 1 --overwrite --out run";
        place.run(&format!("{train} {options}")).done();
        let metrics = std::fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
        let steps = if options.ends_with("23") { "\"steps\":1," } else { "\"steps\":8," };
        assert!(metrics.contains(steps), "{metrics}");
    }
}

#[test]
fn pretrained_weights_train_the_head_first_and_then_everything() {
    let place = place();
    place.run(&format!("{TRAIN} donor")).done();
    let with = "--weights donor/last.safetensors --force";
    let said = place.run(&format!("{TRAIN} tuned {with}")).done();
    assert!(said.stderr.contains("recipe fine-tune: epoch 1 trains the head, then all"), "{}", said.stderr);
    let said = place.run(&format!("{TRAIN} plain {with} --recipe plain")).done();
    assert!(!said.stderr.contains("recipe fine-tune"), "{}", said.stderr);
    let said = place.run(&format!("plan {} {with} --unfreeze 2:layer4", TRAIN.replace(" --out", ""))).done();
    assert!(said.stdout.contains("from epoch 2 on"), "{}", said.stdout);
}

/// Everything that a run kept, but for how long it took.
fn kept(place: &Place, run: &str) -> (Vec<u8>, Vec<serde_json::Value>) {
    let lines = std::fs::read_to_string(place.path(&format!("{run}/metrics.jsonl"))).unwrap();
    let line = |line: &str| {
        let mut metrics: serde_json::Value = serde_json::from_str(line).unwrap();
        metrics.as_object_mut().unwrap().retain(|name, _| !name.contains("second"));
        metrics
    };
    (
        std::fs::read(place.path(&format!("{run}/last.safetensors"))).unwrap(),
        lines.lines().map(line).collect(),
    )
}

#[test]
fn training_on_features_is_training_on_images_bit_for_bit() {
    let place = place();
    place.write("in/a/broken.png", b"no image");
    place.run("prepare in shards --size 16 --fit crop --encode raw --max-rejects 1").done();
    for (index, options) in
        ["in --freeze backbone", "in --freeze layer1 --balance over", "shards --freeze backbone --ema 0.9"]
            .into_iter()
            .enumerate()
    {
        let (source, options) = options.split_once(' ').unwrap();
        let train = format!(
            "train {source} {options} --size 16 --batch-size 5 --epochs 3 --max-rejects 1 --seed {index} --force --overwrite --out"
        );
        place.run(&format!("{train} images --feature-cache off")).done();
        let said = place.run(&format!("{train} features --feature-cache cache")).done();
        assert!(said.stderr.contains("times less than to see them each time"), "{}", said.stderr);
        assert!(kept(&place, "images") == kept(&place, "features"), "{options}");
        let said = place.run(&format!("{train} again --feature-cache cache --memory 1")).done();
        assert!(said.stderr.contains("that an earlier run computed"), "{}", said.stderr);
        assert!(
            kept(&place, "images") == kept(&place, "again"),
            "{options}: from the folder, not from memory"
        );
        let said = place.run(&format!("{train} again --memory 1")).done();
        assert!(
            said.stderr.contains("more than --memory; --feature-cache DIR keeps them"),
            "{}",
            said.stderr
        );
    }
}

#[test]
fn features_that_are_lost_while_a_run_uses_them_are_a_note_and_the_run_is_as_without() {
    let place = place();
    let train = format!(
        "{} --freeze backbone --checkpoint-every 1 --out",
        TRAIN.replace("--epochs 2 --out", "--epochs 60")
    );
    place.run(&format!("{train} images --feature-cache off")).done();
    let command = format!("{train} features --feature-cache cache --memory 1");
    let mut child = place.command(&command.split_whitespace().collect::<Vec<_>>()).spawn().unwrap();
    while !place.path("features/metrics.jsonl").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before its first epoch was kept");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    std::fs::remove_dir_all(place.path("cache")).unwrap();
    let said = Said::of(child.wait_with_output().unwrap()).done();
    let notes = said.stderr.matches("its features are lost: cannot read").count();
    assert_eq!(notes, 1, "{}", said.stderr);
    assert!(kept(&place, "images") == kept(&place, "features"));
}

#[test]
fn another_split_takes_the_features_of_its_images_from_the_one_before() {
    let place = place();
    place.write("in/a/broken.png", b"no image");
    let train =
        "train in --freeze backbone --size 16 --batch-size 5 --epochs 2 --max-rejects 9 --overwrite --out";
    place.run(&format!("{train} first --feature-cache cache")).done();
    for options in ["--split-seed 1", "--split-seed 2 --balance over", "--split 0.5,0.3,0.2 --seed 7"] {
        place.run(&format!("{train} images --feature-cache off {options}")).done();
        let said = place.run(&format!("{train} fold --feature-cache cache {options}")).done();
        assert_eq!(
            said.stderr.contains("that an earlier run computed"),
            !options.contains("--seed"),
            "{}",
            said.stderr
        );
        assert!(kept(&place, "images") == kept(&place, "fold"), "{options}");
    }
}

#[test]
fn shards_have_the_same_features_whatever_seed_and_balance() {
    let place = place();
    place.run("prepare in shards --size 16 --fit crop --encode raw").done();
    let train = "train shards --freeze backbone --batch-size 5 --epochs 2 --overwrite --out";
    place.run(&format!("{train} first --feature-cache cache")).done();
    for options in ["--seed 3", "--balance over --seed 4"] {
        place
            .run(&format!("{train} images --feature-cache off {options} --weights first/model.safetensors"))
            .done();
        let first = place.run(&format!(
            "{train} cached --feature-cache cache {options} --weights first/model.safetensors"
        ));
        first.done();
        assert!(kept(&place, "images") == kept(&place, "cached"), "{options}");
    }
    let said = place
        .run(&format!("{train} again --feature-cache cache --seed 9 --weights first/model.safetensors"))
        .done();
    assert!(said.stderr.contains("that an earlier run computed"), "{}", said.stderr);
}

#[test]
fn images_of_another_folder_have_features_of_their_own() {
    let place = place();
    // Pictures without compression: the same names and sizes, and other pixels.
    for (folder, seed) in [("one", 0), ("two", 100)] {
        for index in 0..24u8 {
            let class = ["a", "b"][index as usize % 2];
            let pixels = (0..16 * 16 * 3).map(|at: usize| (at * (seed + 1 + index as usize) % 251) as u8);
            let file = [b"P6 16 16 255\n".to_vec(), pixels.collect()].concat();
            place.write(&format!("{folder}/{class}/{index}.ppm"), &file);
        }
    }
    let train = "--freeze backbone --size 16 --epochs 1 --overwrite --out";
    place.run(&format!("train one {train} one-run --feature-cache cache")).done();
    let said = place.run(&format!("train two {train} two-run --feature-cache cache")).done();
    assert!(said.stderr.contains("the frozen part saw"), "{}", said.stderr);
    place.run(&format!("train two {train} images --feature-cache off")).done();
    assert!(kept(&place, "two-run").1 == kept(&place, "images").1);
}

#[test]
fn missing_and_damaged_features_are_computed_again_and_never_taken() {
    let place = place();
    let train = format!("{TRAIN} run --overwrite --freeze backbone --feature-cache cache");
    place.run(&train).done();
    let first = kept(&place, "run");
    let inner = |path: std::path::PathBuf| std::fs::read_dir(path).unwrap().next().unwrap().unwrap().path();
    let folder = inner(inner(place.path("cache")));
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let [record, tensor, ..] = &files[..] else { panic!("{files:?}") };
    assert!(record.extension().unwrap() == "json" && tensor.extension().unwrap() == "safetensors");
    let (records, features) = (std::fs::read(record).unwrap(), std::fs::read(tensor).unwrap());
    let flipped = |bytes: &[u8], at: usize| [&bytes[..at], &[bytes[at] ^ 4], &bytes[at + 1..]].concat();
    std::fs::remove_file(record).unwrap();
    place.run(&train).done();
    assert!(first == kept(&place, "run") && std::fs::read(record).unwrap() == records);
    for (file, damaged) in [
        (tensor, features[..20].to_vec()),
        (tensor, features[..features.len() - 44].to_vec()),
        (tensor, features[44..].iter().chain(&[0; 44]).copied().collect()),
        (tensor, flipped(&features, features.len() - 5)),
        (record, flipped(&records, records.len() / 2)),
        (record, records[..records.len() / 2].to_vec()),
        (tensor, Vec::new()),
    ] {
        // Held in memory, and read from the folder.
        for memory in ["", "--memory 1"] {
            std::fs::write(file, &damaged).unwrap();
            let said = place.run(&format!("{train} {memory}")).done();
            assert!(said.stderr.contains("1 files of features in"), "{}", said.stderr);
            assert!(said.stderr.contains("are damaged, and are computed again"), "{}", said.stderr);
            assert!(first == kept(&place, "run"));
            assert!(std::fs::read(tensor).unwrap() == features && std::fs::read(record).unwrap() == records);
        }
    }
}

#[test]
fn a_cache_that_cannot_be_written_is_a_note_and_the_run_goes_on() {
    let mut place = place();
    place.write("file", b"no folder");
    place.run(&format!("{TRAIN} images --freeze backbone --feature-cache off")).done();
    let noted = "note: the frozen part runs in every epoch: its features cannot be kept: cannot";
    let said = place.run(&format!("{TRAIN} chosen --freeze backbone --feature-cache file/cache")).done();
    assert!(said.stderr.contains(noted), "{}", said.stderr);
    assert!(kept(&place, "images") == kept(&place, "chosen"));
    let views = "--freeze backbone --augment light --feature-views 2 --feature-cache file/cache";
    place
        .run(&format!("{TRAIN} views {views}"))
        .refused(1, "train.feature_views: the features cannot be kept: cannot");
    place.write(".cache/forebay/features", b"no folder");
    place.set("XDG_CACHE_HOME", &place.path(".cache").to_string_lossy());
    let said = place.run(&format!("{TRAIN} default --freeze backbone")).done();
    assert!(said.stderr.contains(noted), "{}", said.stderr);
    assert!(kept(&place, "images") == kept(&place, "default"));
}

#[test]
fn the_first_batch_is_looked_at_also_where_its_features_are_cached() {
    let place = place();
    let train =
        format!("{TRAIN} run --freeze backbone --overwrite --feature-cache cache --lr 0.1 --doctor full");
    for said in ["the frozen part saw", "that an earlier run computed"] {
        let run = place.run(&train).done();
        assert!(run.stderr.contains(said), "{}", run.stderr);
        let is_looked_at = |line: &str| line.contains("overfits the first batch");
        assert_eq!(run.stderr.lines().filter(|line| is_looked_at(line)).count(), 1, "{}", run.stderr);
    }
}

#[test]
fn views_that_cannot_be_had_are_refused_before_anything_is_written() {
    let place = place();
    let views = "--augment light --feature-views 2";
    for (options, text) in [
        ("--freeze backbone --feature-cache off", "--feature-cache off keeps no features"),
        ("--feature-cache cache", "no part of the network is frozen"),
        ("--freeze backbone --feature-cache cache --mixup 0.2", "--mixup and --cutmix mix images"),
        ("--freeze backbone --memory 1", "more than --memory; --feature-cache DIR keeps them there"),
    ] {
        place.run(&format!("{TRAIN} run {views} {options}")).refused(2, text);
        assert!(!place.path("run/last.safetensors").exists() && !place.path("run/config.toml").exists());
    }
    place.run(&format!("{TRAIN} run {views} --freeze backbone --feature-cache cache")).done();
    let resume = TRAIN.replace("--epochs 2", "--epochs 3");
    let resumed = format!("{resume} run {views} --freeze backbone --resume");
    place.run(&format!("{resumed} --memory 1")).refused(2, "more than --memory");
    place.run(&format!("{resumed} --feature-cache off")).refused(2, "--feature-cache off keeps no features");
    place.run(&format!("{resumed} --feature-cache cache")).done();
}

#[test]
fn a_range_test_trains_what_the_run_trains_first_and_keeps_its_curve() {
    let place = place();
    let find = "train in --size 16 --batch-size 8 --find-lr --out found";
    let said = place.run(&format!("{find} --freeze backbone --unfreeze 1:layer4")).done();
    assert!(said.stdout.contains(" for small from layer4 on"), "{}", said.stdout);
    assert!(place.path("found/find-lr.svg").exists());
    place.run(find).refused(2, "found holds find-lr.svg already");
    let said = place.run(&format!("{find} --overwrite --freeze backbone --unfreeze 2:layer4 --json")).done();
    assert_eq!(said.json()["trained"], "the head of small");
}

#[test]
fn views_of_augmented_images_are_computed_once() {
    let place = place();
    let train = TRAIN.replace("--epochs 2 --out", "--epochs 3 --out run");
    let train = format!("{train} --overwrite --freeze backbone");
    let said = place.run(&format!("{train} --augment light")).done();
    assert!(said.stderr.contains("--feature-views 4 runs it once for each of 4 views"), "{}", said.stderr);
    let said = place.run(&format!("{train} --augment light --feature-views 2 --feature-cache cache")).done();
    assert!(said.stderr.contains("images in 2 views in"), "{}", said.stderr);
    let views = kept(&place, "run");
    assert_ne!(views.1[0]["train_loss"], views.1[2]["train_loss"]);
    let said = place.run(&format!("{train} --augment light --feature-views 2 --feature-cache cache")).done();
    assert!(said.stderr.contains("that an earlier run computed"), "{}", said.stderr);
    assert!(views == kept(&place, "run"));
    // The first view is what the first epoch sees without views.
    place.run(&format!("{train} --augment light --feature-cache off")).done();
    assert_eq!(views.1[0], kept(&place, "run").1[0]);
    place.run(&format!("{train} --feature-views 2")).refused(2, "without --augment all views are the same");
}

#[test]
fn a_stall_thaws_the_next_part_and_resumes() {
    let place = place();
    let options = "--freeze backbone --unfreeze \"stall:layer3,stall:layer2\" --unfreeze-patience 1 --early-stop 2 --lr 0 --schedule constant --warmup 0 --weight-decay 0 --optimizer adam";
    let options = options.replace('"', "");
    let train = format!("{} {options} --feature-cache cache", TRAIN.replace("--epochs 2 --out", ""));
    // Nothing ever gets better at a learning rate of 0: a part thaws after epochs 2 and 3, and the run ends at 5.
    let said = place.run(&format!("{train} --epochs 9 --out whole")).done();
    assert!(said.stderr.contains("epoch 2 did not improve: from now on layer3"), "{}", said.stderr);
    assert!(said.stderr.contains("epoch 3 did not improve: from now on layer2"), "{}", said.stderr);
    let (_, epochs) = kept(&place, "whole");
    assert_eq!(epochs.len(), 5, "{}", said.stderr);
    place.run(&format!("{train} --epochs 3 --out part")).done();
    place.run(&format!("{train} --epochs 9 --out part --resume")).done();
    assert!(kept(&place, "whole") == kept(&place, "part"));
    let refused = train.replace("--early-stop 2", "--epochs 2 --split none --out other");
    place.run(&refused).refused(2, "there are no validation images to tell a stall by");
}

#[test]
fn the_doctor_overfits_a_batch_and_changes_nothing() {
    let place = place();
    place.run(&format!("{TRAIN} quick --micro-batch auto")).done();
    let said = place.run(&format!("{TRAIN} full --micro-batch auto --doctor full --lr 0.01")).done();
    assert!(said.stderr.contains("the network overfits the first batch"), "{}", said.stderr);
    place.run(&format!("{TRAIN} other --lr 0.01 --doctor off --micro-batch auto")).done();
    assert!(kept(&place, "full").1 == kept(&place, "other").1);
    let said = place.run(&format!("{TRAIN} still --doctor full --lr 0")).done();
    assert!(said.stderr.contains("warning: one batch cannot be overfitted"), "{}", said.stderr);
}

#[test]
fn what_cannot_be_is_refused_in_one_line_each() {
    let place = place();
    let refused = |options: &str, text: &str| {
        place.run(&format!("{TRAIN} run {options}")).refused(2, text);
        assert!(!place.path("run").exists(), "nothing is written: {options}");
    };
    refused("--freeze layer9", "small has no part `layer9`; its parts are conv1, layer1");
    refused("--freeze head", "freezing `head` leaves nothing to train");
    refused("--precision bf16", "train.precision: half precision is for GPUs");
    refused("--unfreeze layer4", "train.unfreeze: \"layer4\" is not EPOCH: PART");
    refused("--unfreeze 2:fc", "small has no part `fc`");
    refused("--schedule multi-step", "multi-step needs --lr-milestones");
    refused("--schedule multi-step --lr-milestones a", "--lr-milestones: \"a\" is not one or more numbers");
    refused("--schedule multi-step --lr-milestones nan", "--lr-milestones: [nan] is not one or more numbers");
    refused("--schedule multi-step --lr-milestones 1,-5", "is not one or more numbers");
    refused("--schedule plateau --split 1,0,0", "plateau needs validation images");
    refused("--nesterov", "train.nesterov: only sgd with a momentum looks ahead");
    refused("--freeze backbone --unfreeze 9:layer4", "epoch 9 comes after the last");
    refused("--freeze layer1 --unfreeze 2:layer3", "`layer3` is trained by then already");
    refused("--momentum 0.8 --lr-power 2", "train.momentum: adamw has none to set");
    refused("--momentum 0.8 --lr-power 2", "train.lr_power: schedule cosine does not use it");
    refused(
        "--weights w.pth --feature-cache kept",
        "recipe fine-tune trains all of the network from epoch 2 on",
    );
    refused(
        "--freeze backbone --mixup 0.2 --feature-cache kept",
        "train.feature_cache: --mixup and --cutmix",
    );
    refused("--unfreeze 2:conv1 --feature-cache kept", "--unfreeze trains all of the network in the end");
    refused("--find-lr --micro-batch auto", "train.micro_batch: --find-lr does not find out");
    refused("--find-lr --freeze layer1 --augment light --feature-views 2", "train.feature_views: --find-lr");
    refused("--clip-norm 0", "--clip-norm");
    refused("--micro-batch 1", "--micro-batch");
    refused(
        "--arch inception_v3",
        "images of 16 pixels are too small for inception_v3, which needs 75 or more",
    );
    refused("--arch vgg", "--arch");
    refused("--class-weights inverse --balance over", "--balance evens the classes out already");
    refused("--layer-decay 0", "--layer-decay");
    refused("--mixup -1", "--mixup");
    place
        .run("train in --out run --size 16 --epochs 1 --weights w.pth --layer-decay 0.5")
        .refused(2, "train.layer_decay: only the head is trained");
}

#[test]
fn a_batch_of_one_that_a_norm_cannot_normalise_is_said_in_one_line() {
    let mut place = place();
    place.set("RUST_BACKTRACE", "1");
    let said = place
        .run("train in --out run --size 16 --batch-size 1 --arch resnet18 --split-seed 3")
        .refused(1, "batch normalisation needs more than one value per channel: use a larger batch or image");
    assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
}

#[test]
fn a_network_runs_over_given_tensors_and_is_measured() {
    let place = place();
    place.run(&format!("{TRAIN} run --arch resnet20")).done();
    place
        .run("forward resnet20 --weights run/last.safetensors --input none --output y")
        .refused(2, "cannot read none");
    place.write("x.safetensors", b"{}");
    place
        .run("forward resnet20 --weights run/last.safetensors --input x.safetensors --output y")
        .refused(2, "x.safetensors");
    place.write("y", b"somebody's");
    place
        .run("forward resnet20 --weights run/last.safetensors --input=~/x.safetensors --output=~/y")
        .refused(2, "is there already");
    std::fs::remove_file(place.path("y")).unwrap();
    place.run("forward vgg11 --weights run/last.safetensors --input x.safetensors --output y").refused(2, "");
    place.run("forward --weights run/last.safetensors --input x --output y").refused(2, "no ARCH given");
    assert!(!place.path("y").exists());
    let said = place
        .run("bench model resnet20 --batch 2 --size 16 --mode step --seconds 0 --threads 1 --json")
        .done();
    let measured = said.json();
    for key in ["images_per_second", "cpu_seconds_per_1000", "peak_memory_bytes"] {
        assert!(measured[key].as_f64().unwrap() > 0.0, "{measured}");
    }
    place.run("bench model inception_v3 --size 32").refused(2, "which needs 75 or more");
}
