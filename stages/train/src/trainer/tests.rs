//! The trainer as its callers see it.

use std::collections::BTreeMap;

use forebay_datasets::seed::Seed;
use forebay_stages::chain::Chain;
use forebay_stages::normalize::Normalize;

use super::*;
use crate::file::{self, FileDescription};
use crate::loss::{ClassWeights, Loss};
use crate::metrics::{cross_entropy, prediction};
use crate::mixing::Mixing;
use crate::optim::OptimizerKind;
use crate::options::{Freeze, Precision, Unfreeze};
use crate::schedule::{Schedule, Shape};

fn options(model: &str, classes: usize) -> TrainOptions {
    let classes = (0..classes).map(|class| format!("class {class}")).collect();
    TrainOptions {
        optimizer: OptimizerKind::Sgd { momentum: 0.9, nesterov: true },
        schedule: Schedule {
            shape: Shape::Cosine { floor: 0.0 },
            peak: 0.05,
            warmup_steps: 4,
            steps_total: 30,
        },
        weight_decay: 5e-4,
        label_smoothing: 0.1,
        chain: Chain::of_pixels(Normalize { mean: [0.5; 3], std: [0.25; 3] }),
        seed: Seed(5),
        ..TrainOptions::new(model, classes)
    }
}

/// Noisy images of a square whose colour is the class: red, green or blue.
fn squares(count: usize, side: usize, seed: u64) -> Batch {
    let mut stream = Seed(seed).stream("squares");
    let mut batch = Batch { images: vec![].into(), labels: vec![], ids: vec![], side: side as u32 };
    for index in 0..count {
        let class = stream.below(3) as usize;
        let (left, top) = (stream.below(side as u64 / 2) as usize, stream.below(side as u64 / 2) as usize);
        for channel in 0..3 {
            for row in 0..side {
                for column in 0..side {
                    let inside =
                        (top..top + side / 2).contains(&row) && (left..left + side / 2).contains(&column);
                    let base = if inside && channel == class { 140 } else { 60 };
                    batch.images.push(base + stream.below(60) as u8);
                }
            }
        }
        batch.labels.push(class as u32);
        batch.ids.push(format!("{index}").into());
    }
    batch
}

fn trainer(options: &TrainOptions) -> Trainer {
    Trainer::new(options).expect("sound options")
}

#[test]
fn a_trainer_may_move_to_the_thread_that_trains() {
    fn is_send<T: Send>() {}
    is_send::<Trainer>();
}

#[test]
fn coloured_squares_are_learnt() {
    let mut trainer = trainer(&options("small", 3));
    let first = trainer.step(&squares(16, 16, 0)).expect("a step").loss;
    let last = (1..30).map(|step| trainer.step(&squares(16, 16, step)).expect("a step").loss).last();
    assert!(last.expect("thirty steps") < 0.6 * first, "{first} then {last:?}");
    let unseen = squares(60, 16, 1000);
    let logits = trainer.predictor().predict(&unseen).expect("logits");
    let right =
        logits.iter().zip(&unseen.labels).filter(|(row, label)| prediction(row) == Some(**label as usize));
    assert!(right.count() >= 58, "more than 95 % of 60");
    assert!(cross_entropy(&logits, &unseen.labels) < 0.4);
}

#[test]
fn a_resumed_run_has_the_weights_of_an_uninterrupted_one() {
    let adamw = OptimizerKind::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 };
    for optimizer in [options("small", 3).optimizer, adamw] {
        let options = TrainOptions { optimizer, ..options("small", 3) };
        let mut whole = trainer(&options);
        let mut part = trainer(&options);
        for step in 0..3 {
            assert_eq!(whole.step(&squares(5, 8, step)).ok(), part.step(&squares(5, 8, step)).ok());
        }
        let metadata = BTreeMap::from([("epoch".to_owned(), "2".to_owned())]);
        let saved = part.checkpoint(&metadata).expect("a checkpoint");
        let described = FileDescription::read(&saved).expect("its own file").expect("a header");
        assert_eq!((described.step, described.optimizer), (3, Some(optimizer)));
        assert_eq!((&*described.model, described.classes.len()), ("small", 3));
        // Another seed: everything must come from the file.
        let mut resumed = trainer(&TrainOptions { seed: Seed(99), ..options });
        assert_eq!(resumed.restore(&saved).expect("its own file"), metadata);
        assert_eq!(resumed.steps_done(), 3);
        for step in 3..6 {
            let report = whole.step(&squares(5, 8, step)).expect("a step");
            assert_eq!(resumed.step(&squares(5, 8, step)).expect("a step"), report);
        }
        let end = BTreeMap::new();
        assert!(whole.checkpoint(&end).expect("bytes") == resumed.checkpoint(&end).expect("bytes"));
    }
}

#[test]
fn one_two_and_eight_threads_give_the_same_weights() {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| {
            let mut trainer = trainer(&options("small", 3));
            for step in 0..2 {
                trainer.step(&squares(19, 17, step)).expect("a step");
            }
            trainer.checkpoint(&BTreeMap::new()).expect("bytes")
        })
    };
    let one = run(1);
    assert!(one == run(2), "two threads");
    assert!(one == run(8), "eight threads");
}

#[test]
fn a_frozen_backbone_does_not_move_and_the_head_does() {
    let mut trainer = trainer(&TrainOptions { freeze: Freeze::Backbone, ..options("small", 3) });
    assert_eq!(trainer.parameters().trainable, 256 * 3 + 3);
    let before = bits(&trainer);
    for step in 0..2 {
        trainer.step(&squares(6, 8, step)).expect("a step");
    }
    for (name, after) in bits(&trainer) {
        assert_eq!(after != before[&name], name.starts_with("fc."), "{name}");
    }
}

/// Every tensor by name, as bits.
fn bits(trainer: &Trainer) -> BTreeMap<String, Vec<u32>> {
    let bits = |tensor: Tensor| -> Vec<u32> {
        let values = tensor.flatten_all().and_then(|tensor| tensor.to_vec1::<f32>());
        values.expect("values").iter().map(|value| value.to_bits()).collect()
    };
    trainer.tensors().into_iter().map(|(name, tensor)| (name, bits(tensor))).collect()
}

#[test]
fn parts_thaw_at_their_step_and_frozen_statistics_stay() {
    let unfreeze = |step, part: &str| Unfreeze { step, part: part.into() };
    let options = TrainOptions {
        freeze: Freeze::Until("layer4".into()),
        unfreeze: vec![unfreeze(1, "layer4"), unfreeze(2, "layer3")],
        ..options("small", 3)
    };
    let mut trainer = trainer(&options);
    let moves: [&[&str]; 3] = [&["fc"], &["fc", "layer4"], &["fc", "layer4", "layer3"]];
    for (step, moving) in moves.iter().enumerate() {
        let before = bits(&trainer);
        trainer.step(&squares(6, 8, step as u64)).expect("a step");
        for (name, after) in bits(&trainer) {
            let moved = moving.iter().any(|part| name.starts_with(&format!("{part}.")));
            assert_eq!(after != before[&name], moved, "step {step}: {name}");
        }
    }
    // A run that stops in the middle goes on with the same parts.
    let saved = trainer.checkpoint(&BTreeMap::new()).expect("bytes");
    let mut again = self::trainer(&options);
    again.restore(&saved).expect("the same run");
    trainer.step(&squares(6, 8, 9)).expect("a step");
    again.step(&squares(6, 8, 9)).expect("a step");
    assert!(bits(&trainer) == bits(&again));
}

#[test]
fn earlier_parts_learn_more_slowly_with_layer_decay() {
    let plain = TrainOptions {
        optimizer: OptimizerKind::Sgd { momentum: 0.0, nesterov: false },
        weight_decay: 0.0,
        ..options("small", 3)
    };
    let moved = |layer_decay: f64, name: &str| {
        let mut trainer = trainer(&TrainOptions { layer_decay, ..plain.clone() });
        let value = |trainer: &Trainer| trainer.store.get(name).expect("a tensor").values();
        let before = value(&trainer).copy().expect("a copy");
        trainer.step(&squares(6, 8, 0)).expect("a step");
        let difference = (value(&trainer) - before).and_then(|d| d.abs()?.sum_all()?.to_scalar::<f32>());
        difference.expect("a number")
    };
    // Parts: conv1, layer1 to layer4, head.
    for (name, parts) in [("fc.weight", 0), ("layer4.0.conv1.weight", 1), ("conv1.weight", 5)] {
        let ratio = moved(0.5, name) / moved(1.0, name);
        assert!((ratio - 0.5f32.powi(parts)).abs() < 1e-3, "{name}: {ratio}");
    }
}

#[test]
fn micro_batches_add_up_to_the_batch_where_no_norm_sees_them() {
    // With a frozen backbone there is no batch statistic, so that only the order of sums differs.
    let whole = TrainOptions {
        freeze: Freeze::Backbone,
        class_weights: ClassWeights::Inverse,
        class_counts: vec![3.0, 1.0, 6.0],
        ..options("small", 3)
    };
    let parts = TrainOptions { micro_batch: Some(4), ..whole.clone() };
    let (mut whole, mut parts) = (trainer(&whole), trainer(&parts));
    for step in 0..3 {
        let batch = squares(11, 8, step);
        let (one, other) = (whole.step(&batch).expect("a step"), parts.step(&batch).expect("a step"));
        assert!((one.loss - other.loss).abs() < 1e-5, "{one:?} {other:?}");
        assert_eq!(one.correct, other.correct);
    }
    for ((name, one), (_, other)) in whole.tensors().into_iter().zip(parts.tensors()) {
        crate::ops::gradient_check::close(&one, &other, 1e-5).unwrap_or_else(|_| panic!("{name}"));
    }
}

#[test]
fn the_moving_average_is_what_is_evaluated_and_resumes() {
    let options = TrainOptions { ema: Some(0.9), clip_norm: Some(0.5), l1: 1e-4, ..options("small", 3) };
    let mut trainer = trainer(&options);
    for step in 0..3 {
        trainer.step(&squares(8, 8, step)).expect("a step");
    }
    let head = |bytes: Vec<u8>| {
        let (_, tensors) = file::decode(&bytes).expect("a file");
        tensors["fc.weight"].flatten_all().and_then(|values| values.to_vec1::<f32>()).expect("values")
    };
    let kept = head(trainer.weights(&BTreeMap::new()).expect("bytes"));
    let saved = trainer.checkpoint(&BTreeMap::new()).expect("bytes");
    assert_ne!(kept, head(saved.clone()), "the average lags behind");
    let mut again = self::trainer(&options);
    again.restore(&saved).expect("the same run");
    trainer.step(&squares(8, 8, 9)).expect("a step");
    again.step(&squares(8, 8, 9)).expect("a step");
    let file = |trainer: &Trainer| trainer.weights(&BTreeMap::new()).expect("bytes");
    assert!(file(&trainer) == file(&again));
    let mut other = self::trainer(&TrainOptions { ema: None, ..options });
    assert!(other.restore(&saved).is_err(), "a run without an average does not go on with one");
}

#[test]
fn mixed_batches_and_focal_losses_train_and_repeat() {
    let mixing = Some(Mixing { mixup: 0.4, cutmix: 1.0, probability: 1.0 });
    let options = TrainOptions { mixing, loss: Loss::Focal { gamma: 2.0 }, ..options("small", 3) };
    let run = || {
        let mut trainer = trainer(&options);
        let losses: Vec<f64> =
            (0..4).map(|step| trainer.step(&squares(8, 8, step)).expect("a step").loss).collect();
        (losses, bits(&trainer))
    };
    assert!(run() == run());
    assert!(
        run().0 != {
            let mut plain = trainer(&TrainOptions { mixing: None, ..options.clone() });
            (0..4).map(|step| plain.step(&squares(8, 8, step)).expect("a step").loss).collect::<Vec<_>>()
        }
    );
}

#[test]
fn a_step_on_features_is_the_step_on_images_bit_for_bit() {
    for (freeze, shape) in [(Freeze::Backbone, vec![256]), (Freeze::Until("layer1".into()), vec![32, 8, 8])] {
        let options = TrainOptions { freeze, ema: Some(0.9), ..options("small", 3) };
        let (mut images, mut features) = (trainer(&options), trainer(&options));
        let first = features.frozen_prefix().expect("a part is frozen");
        for step in 0..3 {
            let batch = squares(6, 8, step);
            images.step(&batch).expect("a step");
            let (values, of_row) = features.features(&batch, first).expect("features");
            assert_eq!(of_row, shape);
            let values = Tensor::from_vec(values, [&[6], &*of_row].concat(), &Device::Cpu).expect("six rows");
            features.step_on_features(&values, first, &batch.labels).expect("a step");
            let logits = features.predictor().predict_on_features(&values, first).expect("logits");
            assert_eq!(logits, images.predictor().predict(&batch).expect("logits"));
        }
        let end = BTreeMap::new();
        assert!(images.checkpoint(&end).expect("bytes") == features.checkpoint(&end).expect("bytes"));
    }
    assert!(trainer(&self::options("small", 3)).frozen_prefix().is_none());
}

#[test]
fn parts_thaw_one_by_one_where_a_run_stalls() {
    let options = TrainOptions {
        freeze: Freeze::Backbone,
        unfreeze_on_stall: vec!["layer3".into(), "layer2".into()],
        ..options("small", 3)
    };
    let mut trainer = trainer(&options);
    let names: Vec<String> = Trainer::part_names("small");
    let part = |name: &str| names.iter().position(|part| part == name);
    assert_eq!(trainer.frozen_prefix(), part("layer2"), "what never thaws");
    assert_eq!(Some(trainer.first_trained(5)), part("head"));
    trainer.set_stalls(vec![5]);
    assert_eq!(
        (Some(trainer.first_trained(4)), Some(trainer.first_trained(5))),
        (part("head"), part("layer3"))
    );
    trainer.set_stalls(vec![5, 9, 12]);
    assert_eq!(
        (Some(trainer.first_trained(8)), Some(trainer.first_trained(50))),
        (part("layer3"), part("layer2"))
    );
    let wrong = TrainOptions { unfreeze_on_stall: vec!["layer9".into()], ..options };
    assert!(Trainer::check(&wrong, 32).expect_err("no such part")[0].contains("no part `layer9`"));
}

#[test]
fn half_precision_trains_as_single_precision_does_and_resumes() {
    let run = |precision| {
        let options = TrainOptions { precision, ..options("small", 3) };
        let mut trainer = trainer(&options);
        let losses: Vec<f64> =
            (0..6).map(|step| trainer.step(&squares(8, 16, step)).expect("a step").loss).collect();
        (trainer, losses, options)
    };
    let (_, single, _) = run(Precision::F32);
    // The processor has no product of bf16 matrices.
    let (mut half, losses, options) = run(Precision::F16);
    // Later steps magnify what rounding differs by.
    for (half, single) in losses.iter().zip(&single).take(4) {
        assert!((half - single).abs() < 0.01 * single && half != single, "{half} is not {single}");
    }
    let logits = half.predictor().predict(&squares(4, 16, 9)).expect("logits");
    assert!(logits.iter().flatten().all(|logit| logit.is_finite()));
    let saved = half.checkpoint(&BTreeMap::new()).expect("bytes");
    let mut resumed = trainer(&TrainOptions { seed: Seed(99), ..options });
    resumed.restore(&saved).expect("its own file");
    half.step(&squares(8, 16, 7)).expect("a step");
    resumed.step(&squares(8, 16, 7)).expect("a step");
    assert!(bits(&half) == bits(&resumed));
}

#[test]
fn a_loss_scale_halves_at_an_overflow_and_doubles_after_two_thousand_sound_steps() {
    let start = LossScale::START;
    assert_eq!(start.after(false), LossScale { factor: 32_768.0, steady: 0 });
    let later = (0..1999).fold(start, |scale, _| scale.after(true));
    assert_eq!((later.factor, later.after(true).factor), (65_536.0, 131_072.0));
    let mut trainer = trainer(&TrainOptions { precision: Precision::F16, ..options("small", 3) });
    trainer.loss_scale.factor = 1e9;
    let before = bits(&trainer);
    let report = trainer.step(&squares(8, 16, 0)).expect("passed over");
    assert!(report.loss.is_finite() && trainer.loss_scale.factor == 5e8 && trainer.steps_done() == 1);
    assert!(before == bits(&trainer));
}

#[test]
fn a_batch_is_overfitted_and_forgotten() {
    let batch = squares(8, 16, 0);
    let mut sound = trainer(&options("small", 3));
    let before = sound.checkpoint(&BTreeMap::new()).expect("bytes");
    sound.rehearse(&batch, 2).expect("room");
    assert_eq!(sound.overfit(&batch).expect("a batch"), Vec::<String>::new());
    assert!(before == sound.checkpoint(&BTreeMap::new()).expect("bytes"), "nothing is changed");
    let still = Schedule { peak: 0.0, ..options("small", 3).schedule };
    let mut idle = trainer(&TrainOptions { schedule: still, ..options("small", 3) });
    let complaints = idle.overfit(&batch).expect("a batch");
    assert!(complaints.len() == 1 && complaints[0].contains("cannot be overfitted"), "{complaints:?}");
    let wild = Schedule { peak: 1e12, ..options("small", 3).schedule };
    let mut wild = trainer(&TrainOptions { schedule: wild, ..options("small", 3) });
    let complaints = wild.overfit(&batch).expect("a batch");
    assert!(complaints.len() == 1 && complaints[0].contains("is not a number"), "{complaints:?}");
}

#[test]
fn a_first_batch_is_examined() {
    let mut sound = trainer(&options("small", 3));
    let before = bits(&sound);
    assert!(sound.examine(&squares(6, 8, 0)).expect("a batch").is_empty());
    assert!(before == bits(&sound), "nothing is changed");
    let mut dead = trainer(&options("small", 3));
    // A last layer of zeros lets no gradient through.
    let head = dead.store.get("fc.weight").expect("a tensor").values();
    dead.store.set("fc.weight", &head.zeros_like().expect("zeros")).expect("the same shape");
    let complaints = dead.examine(&squares(6, 8, 0)).expect("a batch");
    assert!(
        complaints.iter().any(|line| line.contains("gradient of `layer4.0.conv1.weight` is 0")),
        "{complaints:?}"
    );
}

#[test]
fn parts_that_the_network_has_not_are_named() {
    let line = |freeze: Freeze, unfreeze: &[&str]| {
        let unfreeze = unfreeze.iter().map(|part| Unfreeze { step: 1, part: (*part).into() }).collect();
        Trainer::check(&TrainOptions { freeze, unfreeze, ..options("small", 3) }, 32)
            .map_err(|lines| lines.join("; "))
            .expect_err("no such part")
    };
    let parts = "conv1, layer1, layer2, layer3, layer4, head";
    assert_eq!(
        line(Freeze::Until("layer7".into()), &[]),
        format!("small has no part `layer7`; its parts are {parts}")
    );
    assert_eq!(
        line(Freeze::Until("head".into()), &[]),
        format!("freezing `head` leaves nothing to train; the parts are {parts}")
    );
    assert!(line(Freeze::None, &["fc"]).starts_with("small has no part `fc`"));
    let small = Trainer::check(&options("inception_v3", 3), 64).expect_err("too small").join("; ");
    assert_eq!(
        small,
        "images of 64 pixels are too small for inception_v3, which needs 75 or more; give --size"
    );
}

#[test]
fn a_loss_that_is_not_a_number_names_the_step_and_changes_nothing() {
    let mut trainer = trainer(&options("small", 3));
    trainer.step(&squares(4, 8, 0)).expect("a step");
    let poison = Tensor::new(&[f32::NAN, 0.0, 0.0], &Device::Cpu).expect("three numbers");
    trainer.store.set("fc.bias", &poison).expect("the bias of the head");
    let before = trainer.checkpoint(&BTreeMap::new()).expect("bytes");
    let error = trainer.step(&squares(4, 8, 1)).expect_err("a loss of NaN").to_string();
    assert!(error.starts_with("the loss is NaN at step 1 (learning rate 2.500e-2): try"), "{error}");
    assert!(before == trainer.checkpoint(&BTreeMap::new()).expect("bytes"));
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let mut trainer = trainer(&options("small", 3));
    let row = |class: usize| vec![if class == 0 { 1e30f32 } else { 0.0 }; 256];
    let huge = Tensor::new(vec![row(0), row(1), row(2)], &Device::Cpu).expect("a matrix");
    trainer.store.set("fc.weight", &huge).expect("the same shape");
    let before = trainer.checkpoint(&BTreeMap::new()).expect("bytes");
    let batch = Batch { labels: vec![1, 2, 1, 2], ..squares(4, 8, 1) };
    let error = trainer.step(&batch).expect_err("a gradient of 1e30 squared").to_string();
    assert!(error.starts_with("the norm of the gradients is inf at step 0"), "{error}");
    assert!(before == trainer.checkpoint(&BTreeMap::new()).expect("bytes"));
}

#[test]
fn weights_of_other_classes_keep_the_new_head_and_say_so() {
    let donor = trainer(&options("small", 5));
    let file = donor.weights(&BTreeMap::new()).expect("bytes");
    let mut taker = trainer(&TrainOptions { seed: Seed(6), ..options("small", 3) });
    let report = taker.load_weights(&file, Strictness::Strict).expect("the same network");
    assert_eq!(report.loaded.len(), taker.tensors().len() - 2);
    assert!(report.missing.is_empty() && report.unexpected.is_empty(), "{report}");
    let text = report.to_string();
    assert!(text.contains("fc.weight: [5, 256] in the file, [3, 256] here; initialised anew"), "{text}");
    let value = |trainer: &Trainer| trainer.store.get("conv1.weight").map(|entry| entry.values().to_string());
    assert_eq!(value(&donor), value(&taker));
}

#[test]
fn a_classifier_of_as_many_other_classes_is_not_taken() {
    let donor = trainer(&options("small", 3));
    let file = donor.weights(&BTreeMap::new()).expect("bytes");
    let classes = ["x", "y", "z"].map(str::to_owned).to_vec();
    let mut taker = trainer(&TrainOptions { classes, seed: Seed(6), ..options("small", 3) });
    let before = bits(&taker);
    let report = taker.load_weights(&file, Strictness::Strict).expect("the same network");
    assert_eq!(report.missing, ["fc.bias", "fc.weight"]);
    assert!(
        report.to_string().contains("anew: the file's classes are class 0, class 1, class 2"),
        "{report}"
    );
    for (name, after) in bits(&taker) {
        let is_kept = name.starts_with("fc.");
        assert_eq!(after == before[&name], is_kept || before[&name] == bits(&donor)[&name], "{name}");
    }
    let mut same = trainer(&TrainOptions { seed: Seed(6), ..options("small", 3) });
    assert!(same.load_weights(&file, Strictness::Strict).expect("the same network").missing.is_empty());
    assert!(bits(&same) == bits(&donor));
}

#[test]
fn a_trainer_of_a_file_is_one_that_was_drawn_and_then_loaded() {
    let file = trainer(&options("small", 5)).weights(&BTreeMap::new()).expect("bytes");
    // A head of other classes is drawn, and the moving average begins at what is there.
    let options = TrainOptions { seed: Seed(6), ema: Some(0.9), ..options("small", 3) };
    let mut loaded = trainer(&options);
    loaded.load_weights(&file, Strictness::Strict).expect("the same network");
    let (built, _) = Trainer::with_weights(&options, &file, Strictness::Strict).expect("the same network");
    let metadata = BTreeMap::new();
    assert!(built.checkpoint(&metadata).expect("bytes") == loaded.checkpoint(&metadata).expect("bytes"));
    assert!(bits(&built).keys().any(|name| name.starts_with("fc.")));
}

#[test]
fn wrappers_prefixes_and_counters_are_understood() {
    let donor = trainer(&options("small", 3));
    let mut tensors: Vec<_> =
        donor.tensors().into_iter().map(|(name, tensor)| (format!("module.model.{name}"), tensor)).collect();
    let counter = Tensor::new(&[3f32], &Device::Cpu).expect("a number");
    tensors.push(("module.model.bn1.num_batches_tracked".into(), counter.clone()));
    tensors.push(("extra".into(), counter));
    tensors.retain(|(name, _)| !name.ends_with("fc.bias"));
    let file = file::encode(&donor.header(None, &BTreeMap::new()), &tensors).expect("bytes");
    let report =
        trainer(&options("small", 3)).load_weights(&file, Strictness::Strict).expect("the same network");
    // Half a layer would be half trained.
    assert_eq!(report.missing, ["fc.bias", "fc.weight"]);
    assert_eq!(report.unexpected, ["extra"]);
}

#[test]
fn files_that_do_not_belong_get_one_line() {
    let mut small = trainer(&options("small", 3));
    small.step(&squares(4, 8, 0)).expect("a step");
    let weights = small.weights(&BTreeMap::new()).expect("bytes");
    let saved = small.checkpoint(&BTreeMap::new()).expect("bytes");
    let mut large = trainer(&options("resnet18", 3));
    let check = |result: Result<(), TrainError>, expected: &str| {
        let error = result.expect_err("a file that does not belong").to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    };
    check(
        large.load_weights(&weights, Strictness::Strict).map(drop),
        "the file is for another network than resnet18: it says that it is of small",
    );
    check(large.load_weights(&weights[..100], Strictness::Strict).map(drop), "not a whole safetensors file");
    check(large.load_weights(b"", Strictness::Strict).map(drop), "not a whole safetensors file");
    check(large.restore(&saved).map(drop), "this checkpoint is of small, and the run trains resnet18");
    let mut other = trainer(&options("small", 3));
    check(other.restore(&weights).map(drop), "holds weights only");
    let mut other = trainer(&options("small", 4));
    check(other.restore(&saved).map(drop), "was trained on other classes");
    let mut other = trainer(&TrainOptions { freeze: Freeze::Backbone, ..options("small", 3) });
    check(other.restore(&saved).map(drop), "trains what the run freezes");
    let adamw = OptimizerKind::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 };
    let mut other = trainer(&TrainOptions { optimizer: adamw, ..options("small", 3) });
    check(other.restore(&saved).map(drop), "was trained with Sgd");
}

#[test]
fn bad_options_and_batches_get_one_line() {
    let refused = |options: TrainOptions| Trainer::new(&options).expect_err("bad options").to_string();
    assert_eq!(refused(options("small", 1)), "a classifier needs two classes or more, got 1");
    let unknown = refused(options("vgg", 2));
    assert!(unknown.starts_with("no network is called `vgg`: known are small, vgg11, "), "{unknown}");
    let mut rate = options("small", 2);
    rate.schedule.peak = f64::NAN;
    assert_eq!(refused(rate), "learning rate is NaN: expected 0 or more");
    let mut trainer = trainer(&options("small", 2));
    let mut batch = squares(2, 8, 0);
    batch.labels = vec![0, 9];
    let error = trainer.step(&batch).expect_err("a label out of range").to_string();
    assert_eq!(error, "image 1 has label 9, but there are 2 classes");
    let empty = Batch { images: vec![].into(), labels: vec![], ids: vec![], side: 8 };
    assert!(trainer.step(&empty).is_err());
    assert!(trainer.predictor().predict(&empty).expect("no logits").is_empty());
}

#[test]
fn a_checkpoint_of_a_run_with_an_average_gives_the_average_as_weights() {
    let averaging = TrainOptions { ema: Some(0.9), ..options("small", 3) };
    let mut donor = trainer(&averaging);
    for step in 0..3 {
        donor.step(&squares(4, 8, step)).expect("a step");
    }
    let checkpoint = donor.checkpoint(&BTreeMap::new()).expect("bytes");
    let mut taker = trainer(&TrainOptions { seed: Seed(6), ..options("small", 3) });
    let report = taker.load_weights(&checkpoint, Strictness::Strict).expect("the same network");
    assert!(report.missing.is_empty() && report.unexpected.is_empty(), "{report}");
    assert_eq!(report.found_under.as_deref(), Some("average"));
    let unseen = squares(4, 8, 9);
    let logits = |trainer: &Trainer| trainer.predictor().predict(&unseen).expect("logits");
    assert_eq!(logits(&taker), logits(&donor));
    // Without an average the weights are those of the checkpoint, and its optimiser is passed over.
    let mut plain = trainer(&options("small", 3));
    plain.step(&squares(4, 8, 0)).expect("a step");
    let checkpoint = plain.checkpoint(&BTreeMap::new()).expect("bytes");
    let report = taker.load_weights(&checkpoint, Strictness::Strict).expect("the same network");
    assert!(report.unexpected.is_empty() && report.passed_over > 0, "{report}");
    assert_eq!(logits(&taker), logits(&plain));
}
