//! What people who come from other programs write: further names of options, letters for the usual ones, and what to
//! answer to a name that is none.

use super::command::Command;
use super::nearest::nearest;
use super::table::{OPTIONS, OptionRow};

/// Further names of an option.
#[derive(Debug)]
pub(super) struct Spelling {
    /// The key of the option.
    pub key: &'static str,
    /// Its letter.
    pub short: Option<char>,
    /// Its names in timm, torchvision, Keras, Lightning and transformers.
    pub names: &'static [&'static str],
}

/// The options that have further names.
const SPELLINGS: &[Spelling] = &[
    Spelling { key: "out", short: Some('o'), names: &["output", "output-dir"] },
    Spelling { key: "tune.out", short: Some('o'), names: &["output", "output-dir"] },
    Spelling { key: "export.output", short: Some('o'), names: &["out"] },
    Spelling { key: "forward.output", short: Some('o'), names: &["out"] },
    Spelling { key: "threads", short: Some('j'), names: &["workers", "num-workers"] },
    Spelling { key: "resize.size", short: Some('s'), names: &["img-size", "image-size", "imgsz"] },
    Spelling { key: "export.size", short: Some('s'), names: &["img-size", "image-size", "imgsz"] },
    Spelling { key: "bench_model.size", short: Some('s'), names: &["img-size", "image-size", "imgsz"] },
    Spelling { key: "resize.filter", short: None, names: &["interpolation"] },
    Spelling { key: "train.arch", short: Some('a'), names: &["model"] },
    Spelling { key: "export.arch", short: Some('a'), names: &["model"] },
    Spelling { key: "train.weights", short: Some('w'), names: &[] },
    Spelling { key: "train.epochs", short: Some('e'), names: &[] },
    Spelling { key: "bench.epochs", short: Some('e'), names: &[] },
    Spelling { key: "train.batch_size", short: Some('b'), names: &["batch"] },
    Spelling { key: "bench_model.batch", short: Some('b'), names: &["batch-size"] },
    Spelling { key: "train.optimizer", short: None, names: &["opt"] },
    Spelling { key: "train.learning_rate", short: None, names: &["learning-rate"] },
    Spelling { key: "train.weight_decay", short: None, names: &["wd"] },
    Spelling { key: "train.clip_norm", short: None, names: &["clip-grad", "max-grad-norm"] },
    Spelling { key: "train.schedule", short: None, names: &["sched", "scheduler", "lr-scheduler"] },
    Spelling { key: "train.warmup", short: None, names: &["warmup-epochs"] },
    Spelling { key: "train.early_stop", short: None, names: &["patience", "early-stopping"] },
    Spelling { key: "train.label_smoothing", short: None, names: &["smoothing"] },
    Spelling { key: "train.dropout", short: None, names: &["drop"] },
];

/// Words of choices as other programs and papers have them, and ours.
const WORDS: &[(&str, &[(&str, &str)])] = &[
    (
        "train.loss",
        &[
            ("ce", "cross-entropy"),
            ("crossentropy", "cross-entropy"),
            ("cross_entropy", "cross-entropy"),
            ("class-balanced-focal", "cb-focal"),
            ("cb_focal", "cb-focal"),
            ("ldam-drw", "ldam"),
            ("bsm", "balanced-softmax"),
            ("bs", "balanced-softmax"),
            ("balanced_softmax", "balanced-softmax"),
            ("la", "logit-adjustment"),
            ("logit-adjusted", "logit-adjustment"),
            ("logit_adjustment", "logit-adjustment"),
        ],
    ),
    (
        "train.class_weights",
        &[("balanced", "inverse"), ("effective-number", "effective"), ("class-balanced", "effective")],
    ),
    ("train.head_activation", &[("hardswish", "hard-swish"), ("swish", "silu")]),
    ("balance.mode", &[("oversample", "over"), ("undersample", "under"), ("borderline", "borderline-smote")]),
    ("balance.clean", &[("tomek-links", "tomek"), ("edited-nearest-neighbours", "enn")]),
];

/// Our word for what is written for a choice; what is no further name stays as it is.
pub(super) fn word_of<'a>(key: &str, written: &'a str) -> &'a str {
    let words = WORDS.iter().find(|(of, _)| *of == key).map_or(&[][..], |(_, words)| words);
    words.iter().find(|(theirs, _)| *theirs == written).map_or(written, |(_, ours)| ours)
}

/// What to write instead of names that stand for no single option here.
const INSTEAD: &[(&[&str], &str)] = &[
    (&["pretrained", "checkpoint-path"], "--weights FILE, or --weights hf:OWNER/NAME"),
    (&["gpu", "gpus", "cuda"], "--device cuda:0"),
    (&["fp16", "half", "amp"], "--precision f16 or bf16, with --device cuda:0"),
    (&["bf16"], "--precision bf16, with --device cuda:0"),
    (&["crop", "center-crop"], "--fit crop"),
    (
        &["val-split", "validation-split", "test-split", "split-ratio"],
        "--split TRAIN,VAL,TEST, such as --split 0.8,0.1,0.1",
    ),
    (&["oversample", "weighted-sampler"], "--balance over"),
    (&["undersample"], "--balance under"),
    (
        &["aug", "augmentation", "hflip", "rotation", "color-jitter"],
        "--augment light|standard|strong, and single settings with --set augment.NAME.SETTING=VALUE",
    ),
    (
        &["data", "data-dir", "dataset", "input", "source", "train-dir"],
        "the folder or the URL as the first argument, without a name before it",
    ),
    (&["debug", "log-level"], "-v"),
    (&["silent", "no-progress"], "-q"),
    (&["unfreeze-epoch", "freeze-epochs"], "--unfreeze \"3: layer4\""),
    (&["lr-decay", "decay-rate", "gamma"], "--lr-gamma"),
];

impl Spelling {
    /// The further names of an option, if it has any.
    pub(super) fn of(key: &str) -> Option<&'static Spelling> {
        SPELLINGS.iter().find(|spelling| spelling.key == key)
    }
}

/// What of a command a flag that it does not have may be meant to be, in words; `flag` is without its dashes.
pub(super) fn instead_of(command: Command, flag: &str) -> Option<String> {
    let own = || OPTIONS.iter().filter(move |row| row.is_of(command) && !row.flag.is_empty());
    let written = INSTEAD.iter().find(|(names, _)| names.contains(&flag));
    if let Some((_, words)) = written {
        let is_own = |row: &OptionRow| words.starts_with(&format!("--{}", row.flag));
        if !words.starts_with("--") || own().any(is_own) {
            return Some(words.to_string());
        }
    }
    let names = own().flat_map(|row| {
        let further = Spelling::of(row.key).map_or(&[][..], |spelling| spelling.names);
        further.iter().chain(std::iter::once(&row.flag)).map(|name| (*name, row.flag))
    });
    let names: Vec<(&str, &str)> = names.collect();
    let near = nearest(flag, names.iter().map(|(name, _)| *name))?;
    names.iter().find(|(name, _)| *name == near).map(|(_, flag)| format!("--{flag}"))
}

#[cfg(test)]
mod tests {
    use super::super::table::option;
    use super::*;

    #[test]
    fn every_further_name_is_of_an_option_that_is_there() {
        for Spelling { key, names, .. } in SPELLINGS {
            let row = option(key).unwrap_or_else(|| panic!("{key} is no option"));
            assert!(!names.contains(&row.flag), "{key}");
        }
        for (_, words) in INSTEAD.iter().filter(|(_, words)| words.starts_with("--")) {
            let flag = words[2..].split([' ', ',']).next().unwrap();
            assert!(OPTIONS.iter().any(|row| row.flag == flag), "{words}");
        }
    }

    #[test]
    fn every_further_word_is_of_a_choice_and_stands_for_one_of_its_words() {
        use super::super::table::Kind;
        for (key, words) in WORDS {
            let row = option(key).unwrap_or_else(|| panic!("{key} is no option"));
            let Kind::Choice(known) = row.kind else { panic!("{key} is no choice") };
            for (theirs, ours) in *words {
                assert!(known.contains(ours) && !known.contains(theirs), "{key}: {theirs} for {ours}");
            }
        }
        assert_eq!((word_of("train.loss", "bsm"), word_of("train.loss", "x")), ("balanced-softmax", "x"));
    }

    #[test]
    fn a_flag_of_another_program_is_answered_with_ours() {
        for (command, flag, answer) in [
            (Command::Train, "pretrained", Some("--weights FILE, or --weights hf:OWNER/NAME")),
            (Command::Train, "lerning-rate", Some("--lr")),
            (Command::Train, "batchsize", Some("--batch-size")),
            (Command::Train, "crop", Some("--fit crop")),
            (Command::Prepare, "pretrained", None),
            (Command::Verify, "sizes", None),
            (Command::Prepare, "qualty", Some("--quality")),
        ] {
            assert_eq!(instead_of(command, flag).as_deref(), answer, "{flag}");
        }
    }
}
