//! `train` beyond its defaults: what is frozen and thaws, every optimiser, schedule and loss, and what is refused.

use crate::fixture::Place;

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
    assert!(said.stdout.contains("schedule"), "{}", said.stdout);
}

#[test]
fn what_cannot_be_is_refused_in_one_line_each() {
    let place = place();
    let refused = |options: &str, text: &str| {
        place.run(&format!("{TRAIN} run {options}")).refused(2, text);
        assert!(!place.path("run").exists(), "nothing is written: {options}");
    };
    refused("--freeze layer9", "small has no part `layer9`; its parts are conv1, layer1");
    refused("--freeze head", "to freeze `head` leaves nothing to train");
    refused("--unfreeze layer4", "train.unfreeze: \"layer4\" is not EPOCH: PART");
    refused("--unfreeze 2:fc", "small has no part `fc`");
    refused("--schedule multi-step", "multi-step needs --lr-milestones");
    refused("--schedule multi-step --lr-milestones a", "train.lr_milestones: \"a\" is not a list of epochs");
    refused("--schedule multi-step --lr-milestones nan", "\"nan\" is not a list of epochs");
    refused("--schedule multi-step --lr-milestones 1,-5", "is not a list of epochs");
    refused("--schedule plateau --split 1,0,0", "plateau needs validation images");
    refused("--nesterov", "train.nesterov: only sgd with a momentum looks ahead");
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
