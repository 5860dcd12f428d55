//! What of the options a run is: the settings that take part in it, in one form, for fingerprints and for the run file
//! that gives the same run again.

use std::collections::BTreeMap;

use forebay_datasets::escape;
use toml::{Table, Value};

use super::applies::{Effect, Situation};
use super::command::Command;
use super::facts::Facts;
use super::sections;
use super::table::{Identity, InRangeTest, Kind, OPTIONS, OptionRow};
use super::values::{Config, Layer, nest};

/// A word of a command line.
fn shell(word: &str) -> String {
    escape::shell(word).into_owned()
}

impl Config {
    /// Whether the option of a row takes part in a run of `command` with a source of which `facts` are known.
    pub fn effect(&self, row: &OptionRow, command: Command, facts: &Facts) -> Effect {
        (row.applies)(&Situation { key: row.key, command, config: self, facts })
    }

    /// Whether the option of a row takes part in a run of which nothing is known but the options.
    pub fn takes_part(&self, row: &OptionRow, command: Command) -> bool {
        self.effect(row, command, &Facts::default()) == Effect::Yes
    }

    /// One line for each option that the user gave and that has no effect: why, and what to do.
    pub fn without_effect(&self, command: Command, facts: &Facts) -> Vec<String> {
        let given = |row: &&OptionRow| row.is_of(command) && self.is_changed(row);
        let effect = |row: &OptionRow| {
            let run = Situation { key: row.key, command, config: self, facts };
            match (row.applies)(&run) {
                Effect::Yes if run.finds_a_rate() && row.range_test == InRangeTest::Ignored => {
                    run.of_a_whole_training()
                }
                effect => effect,
            }
        };
        let why = |row: &OptionRow| match effect(row) {
            Effect::No(why) => Some(format!("{}: {why}", row.key)),
            Effect::Yes | Effect::Idle => None,
        };
        OPTIONS.iter().filter(given).filter_map(why).collect()
    }

    /// Whether the user gave a value; a switch that is given as it would be anyway says nothing.
    fn is_changed(&self, row: &OptionRow) -> bool {
        let is_default =
            || self.get(row.key).and_then(Value::as_bool).is_some_and(|on| on.to_string() == row.default);
        self.is_given(row.key) && !is_default()
    }

    /// The rows that take part in a run, each with its value.
    fn effective(
        &self,
        command: Command,
        facts: &Facts,
    ) -> impl Iterator<Item = (&'static OptionRow, Value)> {
        OPTIONS.iter().filter_map(move |row| {
            let takes_part = row.is_of(command) && self.effect(row, command, facts) == Effect::Yes;
            Some((row, self.get(row.key).filter(|_| takes_part)?.clone()))
        })
    }

    /// The settings that decide `what` of a run and take part in it, by key: what fingerprints and manifests hold.
    /// Settings that come to the same are the same here.
    pub fn settings(
        &self,
        command: Command,
        facts: &Facts,
        what: &[Identity],
    ) -> BTreeMap<String, serde_json::Value> {
        self.effective(command, facts)
            .filter(|(row, _)| what.contains(&row.identity))
            .filter_map(|(row, value)| Some((row.key.to_string(), self.one_form(row.key, &value)?)))
            .collect()
    }

    /// A value as it is written in fingerprints; `None` where it turns something off that is off without it.
    fn one_form(&self, key: &str, value: &Value) -> Option<serde_json::Value> {
        fn json(value: impl serde::Serialize) -> serde_json::Value {
            serde_json::to_value(value).expect("settings are plain data")
        }
        match key {
            // A preset and the same settings written out are one augmentation.
            "augment" => sections::augment(self, &mut Vec::new()).map(json),
            "train.mean" => Some(json(sections::normalize(self).mean)),
            "train.std" => Some(json(sections::normalize(self).std)),
            // Else a run that is given more patience would be another one.
            "train.min_delta" if value.as_float() == Some(0.0) => None,
            "train.unfreeze" => {
                let text = value.as_str()?;
                Some(text.chars().filter(|c| !c.is_whitespace()).collect::<String>().into())
            }
            _ => Some(json(value)),
        }
    }

    /// SOURCE and how it is read, as words of a shell for any command that reads it.
    pub fn source_arguments(&self) -> Vec<String> {
        let keys = ["source", "data.layout", "data.image_column", "data.label_column"];
        let given = OPTIONS.iter().filter(|row| keys.contains(&row.key) && self.is_given(row.key));
        let words = given.filter_map(|row| {
            let value = shell(&self.text(row.key)?);
            Some(if row.flag.is_empty() { value } else { format!("--{} {value}", row.flag) })
        });
        words.collect()
    }

    /// What was given on the command line, with the run file, as words of a shell for `command`: its own options only.
    pub fn to_arguments(&self, command: Command) -> Vec<String> {
        let word = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Array(values) => {
                let texts =
                    values.iter().map(|value| value.as_str().map_or(value.to_string(), str::to_string));
                texts.collect::<Vec<_>>().join(",")
            }
            value => value.to_string(),
        };
        let (mut places, mut words): (Vec<String>, Vec<String>) =
            (Vec::new(), self.file().iter().flat_map(|file| ["--config".into(), shell(file)]).collect());
        for row in OPTIONS.iter().filter(|row| row.is_of(command)) {
            let Some(value) = self.get(row.key) else { continue };
            match (self.given(row.key), row.flag, row.kind) {
                (Some(Layer::Flag), "", _) => match value.as_array() {
                    Some(values) => places.extend(values.iter().map(|value| shell(&word(value)))),
                    None => places.push(shell(&word(value))),
                },
                (Some(Layer::Flag), flag, Kind::Switch(_)) => words.push(format!("--{flag}")),
                (Some(Layer::Flag), flag, _) => words.extend([format!("--{flag}"), shell(&word(value))]),
                (Some(Layer::Set), ..) => {
                    words.extend(["--set".into(), shell(&format!("{}={}", row.key, word(value)))]);
                }
                (Some(Layer::File) | None, ..) => {}
            }
        }
        places.append(&mut words);
        places
    }

    /// The resolved run file, which gives the same run again: what takes part in it, without what meant this one start
    /// only. Secrets have no keys, so none can stand in it.
    pub fn to_toml(&self, command: Command, facts: &Facts) -> String {
        let mut table = Table::new();
        for (row, value) in self.effective(command, facts).filter(|(row, _)| row.identity != Identity::Once) {
            nest(&mut table, row.key, value);
        }
        toml::to_string_pretty(&table).expect("a table of plain values")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Kind, PreparedRows};
    use Command::{Ensemble, Prepare, Trace, Train};
    use forebay_datasets::manifest::RowOrder;
    use forebay_datasets::split::{HashSplit, SplitRule};

    fn config(flags: &[(&'static str, &str)]) -> Config {
        let flags: Vec<_> = flags.iter().map(|(key, text)| (*key, text.to_string())).collect();
        Config::resolve(None, &[], &flags).expect("sound options")
    }

    /// All that is part of a fingerprint.
    fn fingerprint(config: &Config, command: Command) -> BTreeMap<String, serde_json::Value> {
        config.settings(
            command,
            &Facts::default(),
            &[Identity::Pixels, Identity::Views, Identity::Rows, Identity::Run],
        )
    }

    /// What else must be given for an option to have an effect.
    fn company(key: &str) -> &'static [(&'static str, &'static str)] {
        match key {
            "seed" | "augment.minority" => &[("augment", "light")],
            "resize.crop_pct" => &[("resize.fit", "crop")],
            "balance.ratio" | "balance.max_repeats" => &[("balance.mode", "over")],
            "balance.beta" => &[("balance.mode", "effective-number")],
            "balance.threshold" => &[("balance.mode", "repeat-factor")],
            "balance.targets" => &[("balance.mode", "targets")],
            "store.allow_private" => &[("source", "https://host/x.tar")],
            "store.endpoint"
            | "store.region"
            | "store.anonymous"
            | "store.cache"
            | "store.instance_metadata" => &[("source", "s3://bucket/images")],
            "store.cache_limit" => &[("source", "s3://bucket/images"), ("store.cache", "kept")],
            "split.fold" => &[("split.folds", "7")],
            "train.recipe" => &[("train.weights", "w.pth")],
            "train.momentum" | "train.nesterov" => &[("train.optimizer", "sgd")],
            "train.lr_gamma" | "train.lr_every" => &[("train.schedule", "step")],
            "train.lr_milestones" => &[("train.schedule", "multi-step")],
            "train.snapshots" => &[("train.epochs", "18")],
            "train.lr_power" => &[("train.schedule", "polynomial")],
            "train.lr_patience" => &[("train.schedule", "plateau")],
            "train.focal_gamma" => &[("train.loss", "focal")],
            "train.logit_tau" => &[("train.loss", "logit-adjustment")],
            "train.effective_beta" | "train.defer" => &[("train.class_weights", "effective")],
            "balance.clean" => &[("train.freeze", "layer1")],
            "train.unfreeze_patience" => &[("train.unfreeze", "stall: layer4")],
            "train.min_delta" => &[("train.early_stop", "2")],
            "train.head_activation" => &[("train.head_width", "8")],
            "train.feature_cache" => &[("train.freeze", "layer1")],
            "train.feature_views" => &[("augment", "light"), ("train.freeze", "layer1")],
            _ => &[],
        }
    }

    /// A value of a row other than the one it has.
    fn another(row: &OptionRow) -> &'static str {
        match (row.kind, row.key) {
            (_, "train.unfreeze") => "3: layer4",
            (_, "train.device") => "cuda:1",
            (_, "split.shares") => "0.5,0.25,0.25",
            (Kind::Choice(words) | Kind::Preset(words), _) => {
                words.iter().find(|word| **word != row.default).expect("a choice is of two or more")
            }
            (Kind::Switch(_), _) => "",
            (Kind::Numbers(..), _) => "7,9",
            (Kind::Bytes, _) => "300 MiB",
            (Kind::ChoiceOrShares(..), _) => "0.25,0.5,0.25",
            (Kind::Integer(..) | Kind::ChoiceOrInteger(..), _) => "6",
            (Kind::Number(..) | Kind::ShareOrCount, _) => "0.25",
            (Kind::Text | Kind::Place | Kind::Places, _) => "elsewhere",
            (Kind::Space, _) => "train.dropout=0..0.5",
            (Kind::Counts, _) => "{ant = 3}",
        }
    }

    #[test]
    fn every_option_is_part_of_the_fingerprint_exactly_where_the_table_says_so() {
        let mut checked = 0;
        for command in [Prepare, Train] {
            for row in OPTIONS.iter().filter(|row| row.commands.contains(&command)) {
                let before = config(company(row.key));
                let after = config(&[company(row.key), &[(row.key, another(row))]].concat());
                let effect = after.effect(row, command, &Facts::default());
                assert_eq!(effect, Effect::Yes, "{} with {:?}", row.key, company(row.key));
                let differs = fingerprint(&before, command) != fingerprint(&after, command);
                let decides = !matches!(row.identity, Identity::Neither | Identity::Once);
                assert_eq!(differs, decides, "{} of {command:?}", row.key);
                checked += 1;
            }
        }
        assert!(checked > 80, "only {checked} rows were looked at");
    }

    #[test]
    fn a_setting_without_effect_is_part_of_no_fingerprint() {
        let mut checked = 0;
        for command in [Prepare, Train] {
            for row in OPTIONS.iter().filter(|row| row.commands.contains(&command)) {
                let config = config(&[(row.key, another(row))]);
                if config.effect(row, command, &Facts::default()) != Effect::Yes {
                    assert!(!fingerprint(&config, command).contains_key(row.key), "{}", row.key);
                    let toml = config.to_toml(command, &Facts::default());
                    let again = Config::resolve(Some(("run.toml", &toml)), &[], &[]).expect("its own text");
                    assert!(!again.is_given(row.key), "{} in {toml}", row.key);
                    checked += 1;
                }
            }
        }
        assert!(checked > 15, "only {checked} settings were without effect");
    }

    #[test]
    fn settings_that_come_to_the_same_have_one_fingerprint() {
        let table = r#"
            [augment.random_resized_crop]
            scale = [0.5, 1.0]
            ratio = [0.75, 1.3333333333333333]
            [augment.horizontal_flip]
            probability = 0.5
        "#;
        let written = Config::resolve(Some(("run.toml", table)), &[], &[]).expect("sound");
        assert_eq!(fingerprint(&written, Prepare), fingerprint(&config(&[("augment", "light")]), Prepare));
        let still = "[augment.rotation]\ndegrees = 0.0\n[augment.horizontal_flip]\nprobability = 0.0\n";
        let still = Config::resolve(Some(("run.toml", still)), &[], &[]).expect("sound");
        assert_eq!(fingerprint(&still, Prepare), fingerprint(&config(&[]), Prepare));
        let same = |a: &[(&'static str, &str)], b: &[(&'static str, &str)]| {
            assert_eq!(fingerprint(&config(a), Train), fingerprint(&config(b), Train), "{a:?} and {b:?}");
        };
        let over = ("balance.mode", "over");
        same(&[over, ("balance.ratio", "1")], &[over, ("balance.ratio", "1.0")]);
        same(&[("train.mean", "imagenet")], &[("train.mean", "0.485,0.456,0.406")]);
        same(&[("train.unfreeze", "3:layer4,5:layer3")], &[("train.unfreeze", "3: layer4, 5: layer3")]);
    }

    #[test]
    fn the_resolved_run_file_gives_the_same_run_and_keeps_nothing_that_meant_one_start_only() {
        let given = config(&[
            ("augment", "strong"),
            ("memory", "64 MiB"),
            ("overwrite", ""),
            ("force", ""),
            ("train.resume", ""),
            ("train.live", ""),
            ("train.epochs", "3"),
        ]);
        let toml = given.to_toml(Train, &Facts::default());
        let again = Config::resolve(Some(("run.toml", &toml)), &[], &[]).expect("its own text");
        assert_eq!(again.without_effect(Train, &Facts::default()), Vec::<String>::new());
        assert_eq!(again.to_toml(Train, &Facts::default()), toml);
        assert_eq!(fingerprint(&again, Train), fingerprint(&given, Train));
        assert_eq!((again.integer("memory"), again.integer("train.epochs")), (Some(64 << 20), Some(3)));
        for row in OPTIONS.iter().filter(|row| row.identity == Identity::Once) {
            assert!(!again.is_given(row.key), "{} in {toml}", row.key);
        }
    }

    #[test]
    fn an_option_that_is_given_without_effect_is_named_with_what_to_do() {
        let shards = Facts {
            prepared: Some(PreparedRows {
                split_rule: SplitRule::Hash(HashSplit { seed: 3, ..HashSplit::default() }),
                row_order: RowOrder::Shuffled { seed: 3 },
            }),
            ..Facts::default()
        };
        let declared = Facts { declares_splits: true, ..Facts::default() };
        let unvalidated = Facts { validates: false, ..Facts::default() };
        let any = Facts::default();
        type Case<'a> = (Command, &'a Facts, &'a [(&'static str, &'a str)], &'a str, &'a str);
        let cases: &[Case<'_>] = &[
            (Train, &any, &[("train.momentum", "0.8")], "train.momentum", "adamw"),
            (Train, &shards, &[("data.layout", "auto")], "data.layout", "shards"),
            (Train, &shards, &[("data.image_column", "x")], "data.image_column", "shards"),
            (Train, &shards, &[("data.label_column", "x")], "data.label_column", "shards"),
            (
                Train,
                &any,
                &[("train.momentum", "0.8"), ("train.optimizer", "rmsprop")],
                "train.momentum",
                "sgd",
            ),
            (
                Train,
                &any,
                &[("train.momentum", "0.8"), ("train.optimizer", "sgd"), ("train.schedule", "one-cycle")],
                "train.momentum",
                "0.85 and 0.95",
            ),
            (Train, &any, &[("train.nesterov", "")], "train.nesterov", "only sgd"),
            (Train, &any, &[("train.lr_gamma", "0.5")], "train.lr_gamma", "cosine does not use it"),
            (Train, &any, &[("train.lr_every", "5")], "train.lr_every", "--schedule step"),
            (
                Train,
                &any,
                &[("train.snapshots", "5"), ("train.schedule", "linear")],
                "train.snapshots",
                "no schedule linear",
            ),
            (Train, &any, &[("train.snapshots", "3")], "train.snapshots", "give --epochs 12"),
            (
                Train,
                &any,
                &[("train.loss", "balanced-softmax"), ("balance.mode", "over")],
                "train.loss",
                "leave one out, or --force",
            ),
            (
                Train,
                &any,
                &[("train.class_weights", "inverse"), ("balance.mode", "over")],
                "train.class_weights",
                "leave one out, or --force",
            ),
            (Train, &any, &[("train.lr_milestones", "5,6")], "train.lr_milestones", "--schedule multi-step"),
            (Train, &any, &[("train.lr_power", "2")], "train.lr_power", "--schedule polynomial"),
            (Train, &any, &[("train.lr_patience", "2")], "train.lr_patience", "--schedule plateau"),
            (Train, &any, &[("train.focal_gamma", "1")], "train.focal_gamma", "--loss focal"),
            (Train, &any, &[("train.logit_tau", "2")], "train.logit_tau", "--loss logit-adjustment"),
            (
                Train,
                &any,
                &[("train.class_weights", "inverse"), ("train.loss", "balanced-softmax")],
                "train.class_weights",
                "by itself",
            ),
            (
                Train,
                &any,
                &[("train.effective_beta", "0.9")],
                "train.effective_beta",
                "--class-weights effective",
            ),
            (Train, &any, &[("train.defer", "0.5")], "train.defer", "no class weights"),
            (Train, &any, &[("train.mixup", "1"), ("train.loss", "ldam")], "train.mixup", "is of labels"),
            (Train, &any, &[("train.cutmix", "1"), ("train.loss", "ldam")], "train.cutmix", "is of labels"),
            (
                Train,
                &any,
                &[("train.label_smoothing", "0.1"), ("train.loss", "ldam")],
                "train.label_smoothing",
                "is of labels",
            ),
            (Train, &any, &[("balance.mode", "smote")], "balance.mode", "give --freeze backbone"),
            (Train, &any, &[("balance.clean", "tomek")], "balance.clean", "give --freeze backbone"),
            (Train, &any, &[("train.head_activation", "gelu")], "train.head_activation", "--head-width"),
            (
                Train,
                &any,
                &[("train.warmup", "1"), ("train.schedule", "one-cycle")],
                "train.warmup",
                "of its own",
            ),
            (Train, &any, &[("train.recipe", "plain")], "train.recipe", "--weights"),
            (Train, &any, &[("train.micro_batch", "32")], "train.micro_batch", "fits in one"),
            (Train, &any, &[("train.unfreeze", "2: fc"), ("train.freeze", "none")], "train.unfreeze", "thaw"),
            (Train, &any, &[("train.unfreeze_patience", "2")], "train.unfreeze_patience", "stall"),
            (
                Train,
                &any,
                &[("train.layer_decay", "0.5"), ("train.freeze", "backbone")],
                "train.layer_decay",
                "head",
            ),
            (Train, &any, &[("train.feature_cache", "here")], "train.feature_cache", "--freeze"),
            (
                Train,
                &any,
                &[("train.feature_cache", "here"), ("train.weights", "w.pth")],
                "train.feature_cache",
                "recipe fine-tune trains all of the network from epoch 2 on",
            ),
            (
                Train,
                &any,
                &[("train.feature_cache", "here"), ("train.unfreeze", "2: conv1")],
                "train.feature_cache",
                "--unfreeze trains all of the network in the end",
            ),
            (
                Train,
                &any,
                &[("train.feature_cache", "here"), ("train.freeze", "backbone"), ("train.cutmix", "1")],
                "train.feature_cache",
                "mix images",
            ),
            (
                Train,
                &any,
                &[("train.feature_cache", "here"), ("train.freeze", "backbone"), ("augment", "light")],
                "train.feature_cache",
                "--feature-views 4",
            ),
            (
                Train,
                &any,
                &[("train.layer_decay", "0.5"), ("train.weights", "w.pth"), ("train.epochs", "1")],
                "train.layer_decay",
                "more --epochs",
            ),
            (
                Train,
                &any,
                &[("train.layer_decay", "0.5"), ("train.weights", "w.pth"), ("train.find_lr", "")],
                "train.layer_decay",
                "--find-lr trains the head alone",
            ),
            (
                Train,
                &any,
                &[("train.recipe", "plain"), ("train.weights", "w.pth"), ("train.freeze", "backbone")],
                "train.recipe",
                "only the head",
            ),
            (
                Train,
                &any,
                &[("train.micro_batch", "auto"), ("train.find_lr", "")],
                "train.micro_batch",
                "--find-lr",
            ),
            (
                Train,
                &any,
                &[
                    ("train.feature_views", "2"),
                    ("train.freeze", "backbone"),
                    ("augment", "light"),
                    ("train.find_lr", ""),
                ],
                "train.feature_views",
                "--find-lr",
            ),
            (Train, &any, &[("train.feature_views", "2")], "train.feature_views", "--augment"),
            (Train, &any, &[("split.fold", "2")], "split.fold", "--folds"),
            (
                Prepare,
                &any,
                &[("split.shares", "none"), ("split.group", "none")],
                "split.group",
                "nothing is split",
            ),
            (
                Prepare,
                &any,
                &[("split.shares", "none"), ("split.group_by", "(a)")],
                "split.group_by",
                "nothing is split",
            ),
            (
                Prepare,
                &any,
                &[("split.shares", "none"), ("split.stratify", "")],
                "split.stratify",
                "nothing is split",
            ),
            (Trace, &any, &[("trace.run", "run")], "trace.run", "give both"),
            (Trace, &any, &[("trace.epoch", "1")], "trace.epoch", "give both"),
            (Ensemble, &any, &[("ensemble.soup", ""), ("ensemble.vote", "hard")], "ensemble.vote", "--soup"),
            (
                Ensemble,
                &any,
                &[("ensemble.soup", ""), ("ensemble.weights", "fitted")],
                "ensemble.weights",
                "--soup",
            ),
            (Train, &any, &[("train.min_delta", "0.1")], "train.min_delta", "--early-stop"),
            (Train, &any, &[("train.resume", ""), ("overwrite", "")], "overwrite", "leave one out"),
            (Train, &any, &[("train.find_lr", ""), ("train.epochs", "3")], "train.epochs", "--find-lr"),
            (
                Train,
                &any,
                &[("train.schedule", "step"), ("train.lr_every", "50")],
                "train.lr_every",
                "after the last of 10 epochs",
            ),
            (
                Train,
                &any,
                &[("train.schedule", "multi-step"), ("train.lr_milestones", "50,60")],
                "train.lr_milestones",
                "after the last",
            ),
            (Train, &any, &[("train.find_lr", ""), ("train.resume", "")], "train.resume", "--find-lr"),
            (
                Train,
                &any,
                &[("train.find_lr", ""), ("train.learning_rate", "1")],
                "train.learning_rate",
                "leave",
            ),
            (Train, &any, &[("store.region", "eu-west-1")], "store.region", "s3://"),
            (
                Train,
                &any,
                &[("source", "hf://datasets/o/d"), ("store.endpoint", "http://h")],
                "store.endpoint",
                "no place of this run is in a bucket",
            ),
            (
                Train,
                &any,
                &[("source", "https://host/x.tar"), ("store.endpoint", "http://h")],
                "store.endpoint",
                "no place of this run is in a bucket",
            ),
            (
                Train,
                &any,
                &[("source", "https://host/x.tar"), ("store.region", "x")],
                "store.region",
                "in a bucket of S3",
            ),
            (
                Train,
                &any,
                &[("source", "gs://bucket/x"), ("store.region", "x")],
                "store.region",
                "in a bucket of S3",
            ),
            (
                Train,
                &any,
                &[("source", "https://host/x.tar"), ("store.anonymous", "")],
                "store.anonymous",
                "nothing else is sent credentials",
            ),
            (
                Trace,
                &any,
                &[("source", "gs://bucket/x"), ("store.allow_private", "")],
                "store.allow_private",
                "on the web",
            ),
            (
                Train,
                &any,
                &[("source", "hf://datasets/o/d"), ("store.cache", "kept")],
                "store.cache",
                "HF_HUB_CACHE",
            ),
            (Train, &any, &[("store.cache", "kept")], "store.cache", "in a bucket"),
            (Train, &any, &[("store.cache_limit", "1 GiB")], "store.cache_limit", "--cache"),
            (
                Train,
                &any,
                &[("source", "https://host/x.tar"), ("store.instance_metadata", "")],
                "store.instance_metadata",
                "in a bucket",
            ),
            (Train, &unvalidated, &[("train.monitor", "loss")], "train.monitor", "validation"),
            (Train, &unvalidated, &[("train.early_stop", "2")], "train.early_stop", "validation"),
            (Train, &shards, &[("split.seed", "4")], "split.seed", "prepared with 3"),
            (
                Train,
                &shards,
                &[("split.shares", "none")],
                "split.shares",
                "with 0.8,0.1,0.1, and none cannot change them; leave it out, or prepare them anew",
            ),
            (Prepare, &any, &[("seed", "4")], "seed", "--split-seed"),
            (
                Prepare,
                &any,
                &[("encode.quality", "90"), ("encode.format", "png")],
                "encode.quality",
                "--encode jpeg",
            ),
            (
                Prepare,
                &any,
                &[("encode.restarts", ""), ("encode.format", "png")],
                "encode.restarts",
                "--encode jpeg",
            ),
            (
                Prepare,
                &any,
                &[("resize.size", "64"), ("encode.format", "keep")],
                "resize.size",
                "--encode keep",
            ),
            (
                Prepare,
                &any,
                &[("resize.fit", "crop"), ("encode.format", "keep")],
                "resize.fit",
                "--encode keep",
            ),
            (Prepare, &any, &[("augment", "light"), ("encode.format", "keep")], "augment", "--encode keep"),
            (
                Prepare,
                &any,
                &[("decode.background", "white"), ("encode.format", "keep")],
                "decode.background",
                "--encode keep",
            ),
            (
                Prepare,
                &any,
                &[("decode.decoder", "image"), ("encode.format", "keep")],
                "decode.decoder",
                "--encode keep",
            ),
            (
                Prepare,
                &any,
                &[("decode.scale", "exact"), ("encode.format", "keep")],
                "decode.scale",
                "--encode keep",
            ),
            (
                Prepare,
                &any,
                &[("decode.scale", "exact"), ("decode.decoder", "image")],
                "decode.scale",
                "--decoder image",
            ),
            (
                Prepare,
                &any,
                &[("decode.max_side", "99"), ("encode.format", "keep")],
                "decode.max_side",
                "--encode keep",
            ),
            (
                Prepare,
                &any,
                &[("decode.max_bytes", "1 MiB"), ("encode.format", "keep")],
                "decode.max_bytes",
                "--encode keep",
            ),
            (Prepare, &any, &[("memory", "1 GiB"), ("encode.format", "keep")], "memory", "--encode keep"),
            (Prepare, &any, &[("resize.fit", "crop"), ("resize.size", "original")], "resize.fit", "--size"),
            (
                Prepare,
                &any,
                &[("resize.filter", "bicubic"), ("resize.size", "original")],
                "resize.filter",
                "--size",
            ),
            (
                Prepare,
                &any,
                &[("resize.enlarge", ""), ("resize.size", "original")],
                "resize.enlarge",
                "--size",
            ),
            (Prepare, &any, &[("resize.crop_pct", "0.9")], "resize.crop_pct", "--fit crop"),
            (Prepare, &any, &[("balance.ratio", "0.5")], "balance.ratio", "--balance"),
            (Prepare, &any, &[("balance.ratio", "0.5"), ("balance.mode", "sqrt")], "balance.ratio", "sqrt"),
            (Prepare, &any, &[("balance.beta", "0.9")], "balance.beta", "--balance effective-number"),
            (Prepare, &any, &[("balance.threshold", "0.1")], "balance.threshold", "--balance repeat-factor"),
            (Prepare, &any, &[("balance.targets", "{a = 1}")], "balance.targets", "--balance targets"),
            (
                Prepare,
                &any,
                &[("balance.max_repeats", "5"), ("balance.mode", "under")],
                "balance.max_repeats",
                "under",
            ),
            (Prepare, &declared, &[("split.shares", "0.5,0.25,0.25")], "split.shares", "of its own"),
            (
                Prepare,
                &any,
                &[("split.seed", "1"), ("split.shares", "none"), ("shards.order", "source")],
                "split.seed",
                "leave it out",
            ),
            (
                Command::Bench,
                &any,
                &[("bench.seconds", "1"), ("bench.epochs", "2")],
                "bench.seconds",
                "--epochs",
            ),
            (
                Command::Bench,
                &any,
                &[("bench.repetitions", "4"), ("bench.compare", "before.json")],
                "bench.repetitions",
                "--compare",
            ),
            (
                Command::BenchModel,
                &any,
                &[("bench_model.frozen", "backbone")],
                "bench_model.frozen",
                "--mode step",
            ),
        ];
        for (command, facts, flags, key, says) in cases {
            let problems = config(flags).without_effect(*command, facts);
            let of_key = problems.iter().find(|line| line.starts_with(&format!("{key}: ")));
            assert!(of_key.is_some_and(|line| line.contains(says)), "{flags:?}: {problems:?}");
            assert_eq!(problems.len(), 1, "{flags:?}: {problems:?}");
        }
        // All at once.
        let many = config(&[("train.momentum", "0.8"), ("train.lr_power", "2"), ("train.focal_gamma", "1")]);
        assert_eq!(many.without_effect(Train, &any).len(), 3);
        // Every condition of the table has a case.
        let always = |row: &OptionRow| {
            let run = Situation { key: row.key, command: Train, config: &many, facts: &any };
            std::ptr::fn_addr_eq(row.applies, OPTIONS[0].applies) && (row.applies)(&run) == Effect::Yes
        };
        for row in OPTIONS.iter().filter(|row| !always(row)) {
            let known = cases.iter().any(|case| case.3 == row.key);
            assert!(known, "{} has a condition and no case here", row.key);
        }
    }

    #[test]
    fn what_says_how_shards_were_prepared_is_accepted_and_takes_no_part() {
        let facts = |split_rule: SplitRule, row_order: RowOrder| Facts {
            prepared: Some(PreparedRows { split_rule, row_order }),
            ..Facts::default()
        };
        let hash = |seed: u64| SplitRule::Hash(HashSplit { seed, ..HashSplit::default() });
        let (shuffled, source) = (RowOrder::Shuffled { seed: 3 }, RowOrder::Source);
        let check = |facts: &Facts, flags: &[(&'static str, &str)], is_accepted: bool| {
            let config = config(flags);
            let problems = config.without_effect(Train, facts);
            assert_eq!(problems.is_empty(), is_accepted, "{flags:?} of {facts:?}: {problems:?}");
            assert!(!config.to_toml(Train, facts).contains("split"), "{flags:?} of {facts:?}");
        };
        let shares = ("split.shares", "0.8,0.1,0.1");
        check(&facts(hash(3), source), &[shares, ("split.seed", "3")], true);
        check(&facts(hash(3), shuffled), &[("split.shares", "none")], false);
        check(&facts(SplitRule::AllTrain, shuffled), &[("split.shares", "none"), ("split.seed", "3")], true);
        check(&facts(SplitRule::AllTrain, shuffled), &[shares], false);
        check(&facts(SplitRule::Declared, shuffled), &[("split.seed", "3")], true);
        check(&facts(SplitRule::Declared, source), &[("split.seed", "3")], false);
        check(&facts(SplitRule::Declared, source), &[shares], false);
    }

    #[test]
    fn what_was_given_is_given_again_to_another_command() {
        let config = config(&[
            ("source", "my photos"),
            ("train.arch", "resnet18"),
            ("train.freeze", "backbone"),
            ("train.mean", "0.5,0.5,0.5"),
            ("train.nesterov", ""),
        ]);
        let words = config.to_arguments(Train).join(" ");
        assert!(words.starts_with("'my photos' "), "{words}");
        for given in ["--arch resnet18", "--freeze backbone", "--mean 0.5,0.5,0.5", "--nesterov"] {
            assert!(words.contains(given), "{words}");
        }
        assert!(!words.contains("--epochs"), "{words}");
    }

    #[test]
    fn a_range_test_refuses_every_option_of_a_whole_training_and_takes_the_others() {
        let mut refused = 0;
        for row in OPTIONS.iter().filter(|row| row.key != "train.find_lr") {
            let is_of_train = row.commands.contains(&Train);
            assert_eq!(row.range_test != InRangeTest::Absent, is_of_train, "{}", row.key);
            if !is_of_train {
                continue;
            }
            let given = [company(row.key), &[(row.key, another(row)), ("train.find_lr", "")]].concat();
            let problems = config(&given).without_effect(Train, &Facts::default());
            let is_refused = problems.iter().any(|line| line.starts_with(&format!("{}: ", row.key)));
            assert_eq!(is_refused, row.range_test == InRangeTest::Ignored, "{}: {problems:?}", row.key);
            refused += usize::from(is_refused);
        }
        assert!(refused > 15, "only {refused} options were refused");
    }

    #[test]
    fn a_run_file_may_serve_another_command_and_a_seed_in_it_another_one() {
        let file = "seed = 4\n[split]\nseed = 3\n[store]\nregion = \"eu-west-1\"\n[encode]\nquality = 80\n";
        let config = Config::resolve(Some(("run.toml", file)), &[], &[]).expect("sound");
        assert_eq!(config.without_effect(Prepare, &Facts::default()), Vec::<String>::new());
        assert_eq!(config.without_effect(Train, &Facts::default()), Vec::<String>::new());
        let file = format!("{file}[train]\nmomentum = 0.8\n");
        let config = Config::resolve(Some(("run.toml", &file)), &[], &[]).expect("sound");
        assert_eq!(config.without_effect(Prepare, &Facts::default()), Vec::<String>::new());
        assert_eq!(config.without_effect(Train, &Facts::default()).len(), 1);
    }
}
