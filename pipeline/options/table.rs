//! The one table of options: each row is a flag, its key in the run file, what its value may be, and what it does.

use forebay_datasets::catalog::LayoutKind;
use forebay_datasets::formats::DatasetFormat;
use forebay_datasets::groups::SamePicture;
use forebay_datasets::words;
use forebay_datasets::words::Words;
use forebay_stages::augment::Augment;
use forebay_stages::balance::Balance;
use forebay_stages::collate::Dtype;
use forebay_stages::decode::{DecodeScale, Decoder};
use forebay_stages::resize::{Filter, Fit};
use forebay_train::models::NAMES;
use forebay_train::sampling::Clean;
use forebay_train::search::{Method, Pruning};
use forebay_train::{ClassWeights, Loss, OptimizerKind, Precision, Vote};
use toml::Value;

use super::applies::{self, Effect, Situation};
use super::bytes::parse_bytes;
use super::choices::{
    Background, BenchFrozen, BenchSweep, Doctor, EvalSplit, HeadActivation, ModelPass, Monitor, NormMode,
    PredictFormat, Recipe, ScheduleKind, ShardOrder, StoreAs, VoteWeights,
};
use super::command::Command;
use super::counts;
use super::nearest::nearest;
use super::{space, splits, stores};

use Command::{
    Advise, Bench, BenchModel, Compare, Convert, Demo, Ensemble, Eval, Export, Forward, Inspect, Models,
    Predict, Prepare, Trace, Train, Tune, Verify,
};
use Identity::{Neither, Once, Pixels, Rows, Run, Views};
use InRangeTest::{Absent, Ignored, Read};

/// What a value of the run file may be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `true` or `false`; the flag takes no value and sets the one given here.
    Switch(bool),
    /// Any text.
    Text,
    /// A path or a URL; a leading `~/` is the home folder.
    Place,
    /// Paths or URLs, one or more.
    Places,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number from the first to the second.
    Integer(i64, i64),
    /// A number from the first to the second.
    Number(f64, f64),
    /// A number of bytes: `536870912` or `512 MiB`.
    Bytes,
    /// One of these words, or a whole number from the second to the third.
    ChoiceOrInteger(&'static [&'static str], i64, i64),
    /// One of these words, or so many numbers from 0 to 1.
    ChoiceOrShares(&'static [&'static str], usize),
    /// Numbers from the first to the second, one or more, separated by commas.
    Numbers(f64, f64),
    /// A share between 0 and 1, or a whole number of at least 1.
    ShareOrCount,
    /// A preset by name, or a table of settings.
    Preset(&'static [&'static str]),
    /// A table of whole numbers by name; the flag takes a CSV file of them.
    Counts,
    /// What a search tries: a table of options, each with a range or a list of values. The flag is given once for each.
    Space,
}

/// What of a run's outcome an option decides: which fingerprints it is part of.
///
/// A setting without effect in the run at hand is part of none, whatever stands here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The pixels of an image, or whether it is refused.
    Pixels,
    /// The pixels of a training image that is changed at random.
    Views,
    /// Which images there are, in which split, how often and in which order.
    Rows,
    /// What training makes of them.
    Run,
    /// Nothing that comes out: places, threads, how long a run goes on. It is kept in the resolved run file.
    Neither,
    /// What this one start of the program does: it is not even kept in the resolved run file.
    Once,
}

/// What `train --find-lr` makes of an option: it begins a training and does not go on with it, and so takes some of the
/// options of `train` and not others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InRangeTest {
    /// It has the effect that it has in a training.
    Read,
    /// It means something for a whole training only: whoever gives both is told so. It stays part of what a run is.
    Ignored,
    /// It is no option of `train`.
    Absent,
}

/// One option: a key of the run file, and the flag that sets it.
#[derive(Clone, Copy, Debug)]
pub struct OptionRow {
    /// The key, with dots between tables.
    pub key: &'static str,
    /// The flag without its dashes; empty for a positional argument.
    pub flag: &'static str,
    /// What `--help` calls the value.
    pub value: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// The default as text, or empty where there is none.
    pub default: &'static str,
    /// The commands that have the flag.
    pub commands: &'static [Command],
    /// What of a run's outcome it decides.
    pub identity: Identity,
    /// What `train --find-lr` makes of it.
    pub range_test: InRangeTest,
    /// Whether it has an effect in the run at hand.
    pub applies: fn(&Situation<'_>) -> Effect,
    /// Whether it is among those that `-h` shows.
    pub is_usual: bool,
    /// What it is about: its heading in the help.
    pub heading: Heading,
    /// What it does.
    pub help: &'static str,
}

/// What a whole training has and none of the many of a search: where it goes, and what it keeps.
const NOT_OF_TRIALS: &[&str] =
    &["out", "split.fold", "train.checkpoint_every", "train.log_every", "train.seal_test", "train.snapshots"];

/// What a comparison of losses and balances decides by itself.
const NOT_OF_ADVICE: &[&str] = &[
    "split.folds",
    "balance.mode",
    "balance.ratio",
    "balance.max_repeats",
    "balance.beta",
    "balance.threshold",
    "balance.targets",
    "balance.clean",
    "train.loss",
    "train.focal_gamma",
    "train.logit_tau",
    "train.class_weights",
    "train.effective_beta",
    "train.defer",
    "train.mixup",
    "train.cutmix",
    "train.label_smoothing",
];

impl OptionRow {
    /// Whether a command takes it: as its own, or because it repeats a training.
    pub fn is_of(&self, command: Command) -> bool {
        let is_of_trials =
            || self.commands.contains(&Train) && self.identity != Once && !NOT_OF_TRIALS.contains(&self.key);
        let is_of_advice = || is_of_trials() && !NOT_OF_ADVICE.contains(&self.key);
        self.commands.contains(&command)
            || (command == Tune && is_of_trials())
            || (command == Advise && is_of_advice())
    }
}

/// What options are about: the headings of the help, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Heading {
    /// What is read, how it is cut, balanced and augmented.
    Data,
    /// How an image is prepared.
    Images,
    /// The network and its initial weights.
    Network,
    /// How a run goes on and what it keeps.
    Training,
    /// The update rule and its schedule.
    Optimizer,
    /// What training minimises.
    Loss,
    /// What a search tries, and how.
    Search,
    /// Where results go.
    Output,
    /// What of the machine is used.
    Machine,
    /// How a bucket is reached.
    Buckets,
}
words!(Heading {
    Data => "Data",
    Images => "Images",
    Network => "Network",
    Training => "Training",
    Optimizer => "Optimizer and schedule",
    Loss => "Loss",
    Search => "Search",
    Output => "Output",
    Machine => "Machine",
    Buckets => "Buckets",
});

const EVERY: &[Command] = &[
    Demo, Inspect, Prepare, Convert, Verify, Trace, Train, Bench, BenchModel, Forward, Export, Eval, Compare,
    Ensemble, Predict,
];
const SOURCES: &[Command] = &[Inspect, Prepare, Convert, Verify, Trace, Train, Bench, Eval];
const STORES: &[Command] =
    &[Inspect, Prepare, Convert, Verify, Trace, Train, Bench, Export, Eval, Compare, Ensemble, Predict];
/// What turns images into batches as its own options say.
const PREPARES: &[Command] = &[Prepare, Train, Bench, Eval];
/// What reads sources of any layout.
const LAYOUTS: &[Command] = &[Inspect, Prepare, Convert, Train, Bench, Eval, Predict];
/// What decodes images.
const READS: &[Command] = &[Prepare, Train, Bench, Eval, Ensemble, Predict];
/// What ends when too many images cannot be read.
const REJECTS: &[Command] = &[Prepare, Convert, Train, Bench, Eval, Ensemble];

macro_rules! options {
    ($($key:literal, $flag:literal, $value:literal, $kind:expr, $default:literal, $commands:expr, $identity:expr, $range_test:expr, $applies:expr, $often:ident $heading:ident, $help:literal;)*) => {
        &[$(OptionRow {
            key: $key, flag: $flag, value: $value, kind: $kind, default: $default, commands: $commands,
            identity: $identity, range_test: $range_test, applies: $applies, is_usual: options!(@ $often),
            heading: Heading::$heading, help: $help,
        }),*]
    };
    (@ usual) => { true };
    (@ more) => { false };
}

/// Every option there is: key, flag, value name, kind, default, commands, identity, what the range test makes of it, applies,
/// whether `-h` shows it and under which heading, help.
#[rustfmt::skip]
pub const OPTIONS: &[OptionRow] = options![
    "model", "", "MODEL", Kind::Place, "", &[Predict, Eval], Neither, Absent, applies::always, usual Data, "A run folder, an ensemble, or a weights file: a path or a URL, or hf:OWNER/NAME[@REVISION][:FILE]";
    "predict.images", "", "IMAGES", Kind::Places, "", &[Predict], Neither, Absent, applies::always, usual Data, "Images: files, folders of any depth, or folders of shards; paths, or URLs such as s3://bucket/prefix";
    "source", "", "SOURCE", Kind::Place, "", SOURCES, Neither, Read, applies::always, usual Data, "Images with labels in any layout, one of their files (labels.csv, train-{000..031}.tar), or a folder of shards: a path, or a URL such as s3://bucket/prefix, https://host/train.tar or hf://datasets/OWNER/NAME";
    "inspect.html", "html", "FILE", Kind::Place, "", &[Inspect], Neither, Absent, applies::always, usual Output, "Also write what was found as a page with charts and thumbnails: a path, or a URL";
    "inspect.fail_on", "fail-on", "KINDS", Kind::Text, "", &[Inspect], Neither, Absent, applies::always, usual Output, "End with exit code 3 where there are such, separated by commas: leaks, the same image in several splits; duplicates; rejects; mislabelled, files with the extension of another format; shortcuts, facts beside the picture that predict its class";
    "trace.id", "", "ID", Kind::Text, "", &[Trace], Neither, Absent, applies::always, usual Data, "The sample, by its id";
    "trace.run", "run", "RUN", Kind::Place, "", &[Trace], Neither, Absent, applies::traced_epoch, usual Data, "A run that was trained on SOURCE: with --epoch, also what it drew for the sample";
    "trace.epoch", "epoch", "N", Kind::Integer(1, 1_000_000), "", &[Trace], Neither, Absent, applies::traced_epoch, usual Data, "The epoch of --run, counted from 1";
    "dest", "", "DEST", Kind::Place, "", &[Prepare, Convert], Neither, Absent, applies::always, usual Data, "Where the shards go: a path, or a URL such as s3://bucket/prefix";

    "arch", "", "ARCH", Kind::Choice(NAMES), "", &[Forward, BenchModel], Neither, Absent, applies::always, usual Network, "The network, by torchvision's name";
    "models.arch", "", "NETWORK", Kind::Choice(NAMES), "", &[Models], Neither, Absent, applies::always, usual Network, "The network that is described [default: all are listed]";
    "forward.weights", "weights", "FILE", Kind::Place, "", &[Forward], Neither, Absent, applies::always, usual Network, "Weights of the network: a safetensors file";
    "forward.input", "input", "FILE", Kind::Place, "", &[Forward], Neither, Absent, applies::always, usual Data, "A safetensors file with input [batch, 3, height, width], normalised, and for gradients or heatmaps label [batch]";
    "forward.output", "output", "FILE", Kind::Place, "", &[Forward], Neither, Absent, applies::always, usual Output, "Where logits, loss and grad.NAME go, as a safetensors file";
    "forward.mode", "mode", "MODE", Kind::Choice(NormMode::WORDS), "eval", &[Forward], Neither, Absent, applies::always, more Network, "eval: norms by their running statistics; train: by those of the batch. No dropout in either";
    "forward.gradients", "gradients", "", Kind::Switch(true), "false", &[Forward], Neither, Absent, applies::always, usual Training, "Also the mean cross-entropy and the gradient of every parameter";
    "forward.grad_cam", "grad-cam", "", Kind::Switch(true), "false", &[Forward], Neither, Absent, applies::always, more Training, "Also a heatmap of each image for its label (Grad-CAM), as grad_cam [batch, rows, columns]";
    "export.source", "", "SOURCE", Kind::Place, "", &[Export], Neither, Absent, applies::always, usual Data, "A run folder, or a weights file: a path or a URL, or hf:OWNER/NAME[@REVISION][:FILE]";
    "export.output", "output", "FILE", Kind::Place, "", &[Export], Neither, Absent, applies::always, usual Output, "Where the ONNX file goes: a path, or a URL";
    "export.arch", "arch", "NAME", Kind::Choice(NAMES), "", &[Export], Neither, Absent, applies::always, usual Network, "The network, by torchvision's name [default: what the weights say, if this program wrote them]";
    "export.size", "size", "PIXELS", Kind::Integer(1, 16_384), "", &[Export], Neither, Absent, applies::always, more Images, "Side of the images [default: that of the weights' own, else that of the network, else 224]";
    "bench.repetitions", "repetitions", "N", Kind::Integer(1, 1000), "5", &[Bench], Neither, Absent, applies::bench_repetitions, usual Training, "Measure so many times, after one time to warm up; medians are told, with the smallest and the largest";
    "bench.seconds", "seconds", "X", Kind::Number(0.01, 3600.0), "3", &[Bench], Neither, Absent, applies::bench_seconds, usual Training, "Measure at least so long each time, from the first batch on, over as many epochs as that takes";
    "bench.epochs", "epochs", "N", Kind::Integer(1, 100_000), "", &[Bench], Neither, Absent, applies::always, usual Training, "Measure so many whole epochs each time, their start included, instead of --seconds";
    "bench.sweep", "sweep", "WHAT", Kind::Choice(BenchSweep::WORDS), "", &[Bench], Neither, Absent, applies::always, usual Machine, "Also measure with 1, 2, 4 and so on up to --threads, in turn";
    "bench.replay", "replay", "NETWORK", Kind::Choice(NAMES), "", &[Bench], Neither, Absent, applies::always, usual Network, "Also train this network, all of it, on the same few batches again and again: how fast training could go if no image had to be waited for";
    "bench.dtype", "dtype", "TYPE", Kind::Choice(Dtype::WORDS), "u8", &[Bench], Neither, Absent, applies::always, usual Output, "What the values of a batch are: u8, which the device normalises, or f32, f16 or bf16, normalised as the batch is made";
    "bench.compare", "compare", "BEFORE.json", Kind::Place, "", &[Bench], Neither, Absent, applies::always, usual Output, "Say whether the difference to an earlier bench of the same work, as --json told it, is larger than the spread of both";
    "bench_model.mode", "mode", "MODE", Kind::Choice(ModelPass::WORDS), "forward", &[BenchModel], Neither, Absent, applies::always, usual Training, "forward: evaluation; step: forward, backward and update, norms in training form";
    "bench_model.batch", "batch", "N", Kind::Integer(1, 65_536), "8", &[BenchModel], Neither, Absent, applies::always, usual Training, "Images per pass";
    "bench_model.size", "size", "PIXELS", Kind::Integer(1, 16_384), "", &[BenchModel], Neither, Absent, applies::always, usual Images, "Side of the images [default: that of the network, else 224]";
    "bench_model.frozen", "frozen", "WHAT", Kind::Choice(BenchFrozen::WORDS), "none", &[BenchModel], Neither, Absent, applies::bench_frozen, more Network, "What a step does not train";
    "bench_model.seconds", "seconds", "X", Kind::Number(0.0, 3600.0), "5", &[BenchModel], Neither, Absent, applies::always, more Training, "Measure at least so long, after one pass to warm up";

    "compare.runs", "", "RUN", Kind::Places, "", &[Compare], Neither, Absent, applies::always, usual Data, "Run folders, folders of eval --out, or files of predictions: two or more, each a path or a URL";
    "compare.split", "split", "WHICH", Kind::Choice(EvalSplit::WORDS), "test", &[Compare], Neither, Absent, applies::always, usual Data, "Which samples are compared";
    "ensemble.runs", "", "RUN", Kind::Places, "", &[Ensemble], Neither, Absent, applies::always, usual Data, "Run folders, or weights files of runs: two or more; or one run with --snapshots, for these";
    "ensemble.out", "out", "DIR", Kind::Place, "", &[Ensemble], Neither, Absent, applies::always, usual Output, "Where the ensemble goes: a path, or a URL";
    "ensemble.vote", "vote", "HOW", Kind::Choice(Vote::WORDS), "soft", &[Ensemble], Neither, Absent, applies::vote, usual Network, "soft: the weighted mean of the members' probabilities; hard: the weighted share of the members that predict a class";
    "ensemble.weights", "weights", "HOW", Kind::Choice(VoteWeights::WORDS), "equal", &[Ensemble], Neither, Absent, applies::vote, usual Network, "How members weigh: all the same, or fitted on the validation images, which may overfit few images";
    "ensemble.soup", "soup", "", Kind::Switch(true), "false", &[Ensemble], Neither, Absent, applies::always, usual Network, "One network with the mean of the weights of those runs that make it better on the validation images (greedy soup): for runs of one network that began at the same weights";
    "advise.seeds", "seeds", "N", Kind::Integer(1, 100), "3", &[Advise], Neither, Absent, applies::always, usual Training, "Trainings of each way, with so many seeds from --seed on";
    "tune.out", "out", "DIR", Kind::Place, "", &[Tune], Neither, Absent, applies::always, usual Output, "Where the journal, the table of trials, the report and the best run file go: a local folder";
    "tune.space", "space", "KEY=RANGE", Kind::Space, "", &[Tune], Neither, Absent, applies::always, usual Search, "What is searched, once for each option: a range KEY=LOW..HIGH or KEY=LOW..HIGH,log, or values KEY=A,B,C, of which unset leaves the option out; a table [tune.space] in the run file [default: learning rate, weight decay, label smoothing, dropout and batch size; with --freeze backbone the width and activation of the head; where classes are uneven loss, class weights and balance]";
    "tune.search", "search", "METHOD", Kind::Choice(Method::WORDS), "tpe", &[Tune], Neither, Absent, applies::always, usual Search, "How the next settings are chosen: at random, from a grid, by a model of the scores (tpe, gp), or by evolution (cma-es, de)";
    "tune.prune", "prune", "HOW", Kind::Choice(Pruning::WORDS), "none", &[Tune], Neither, Absent, applies::always, usual Search, "End trials early that are not among the best third: halving looks after 1, 3, 9, .. epochs, hyperband in brackets that begin to look later and later";
    "tune.trials", "trials", "N", Kind::Integer(1, 1_000_000), "", &[Tune], Neither, Absent, applies::always, usual Search, "End after so many trials [default: 50, or all of a grid]";
    "tune.budget", "budget", "TIME", Kind::Text, "", &[Tune], Neither, Absent, applies::always, usual Search, "End after so much time of training, such as 90s, 10m or 1h, whatever is under way";
    "tune.resume", "resume", "", Kind::Switch(true), "false", &[Tune], Once, Absent, applies::always, usual Search, "Go on with the search in DIR, with the trial that would have been next";
    "model.arch", "arch", "NAME", Kind::Choice(NAMES), "", &[Predict, Eval], Neither, Absent, applies::always, usual Network, "The network of a weights file, by torchvision's name [default: what the file says, if this program wrote it]";
    "model.temperature", "temperature", "X", Kind::Number(0.01, 100.0), "", &[Predict, Eval], Neither, Absent, applies::always, more Network, "What logits are divided by before they become probabilities [default: what training fitted on its validation images, else 1]";
    "model.tta", "tta", "HOW", Kind::ChoiceOrInteger(&["off", "flip", "five-crop"], 1, 1000), "off", &[Predict, Eval], Neither, Absent, applies::always, usual Network, "Test-time augmentation, the mean of the probabilities of several views: flip, the image and its mirror image; five-crop, corners and centre of the margin that the chain cuts off, or of 8/7 of the side; N, so many views drawn by the augmentation of the run";
    "predict.top", "top", "K", Kind::Integer(1, 100_000), "5", &[Predict], Neither, Absent, applies::always, usual Output, "How many classes are named of each image, the likeliest first; parquet has all";
    "predict.format", "format", "FORMAT", Kind::Choice(PredictFormat::WORDS), "", &[Predict], Neither, Absent, applies::always, usual Output, "text, for people; for programs jsonl, csv, or parquet, which needs --output [default: by the ending of --output, else text, with --json jsonl]";
    "predict.output", "output", "FILE", Kind::Place, "", &[Predict], Neither, Absent, applies::always, usual Output, "Where predictions go: a path, or a URL [default: stdout, as they are made]";
    "predict.explain", "explain", "DIR", Kind::Place, "", &[Predict], Neither, Absent, applies::always, usual Output, "Where a heatmap over each image goes that shows what spoke for its likeliest class (Grad-CAM), as PNG: a path, or a URL";
    "model.prior", "prior", "uniform|CLASS=SHARE,..|FILE", Kind::Text, "", &[Predict, Eval], Neither, Absent, applies::always, usual Network, "How often classes come among these images, where that differs from the training images, by which probabilities are adjusted: uniform; shares such as rare=0.01, of which classes that are not named have the rest in equal parts; or a JSON file of shares or counts by class. It needs no training anew";
    "eval.split", "split", "WHICH", Kind::Choice(EvalSplit::WORDS), "", &[Eval], Neither, Absent, applies::always, usual Data, "Which images are scored [default: test, else validation, where the source has such; of a sealed run validation; all of an image folder that has no splits of its own]";
    "eval.final", "final", "", Kind::Switch(true), "false", &[Eval], Neither, Absent, applies::always, usual Data, "Open the sealed test images of a run, once the choice among runs is made; it is counted how often";
    "eval.out", "out", "DIR", Kind::Place, "", &[Eval], Neither, Absent, applies::always, usual Output, "Where predictions.parquet, evaluation.json and the report go: a path, or a URL [default: nothing is kept]";
    "eval.draws", "draws", "N", Kind::Integer(0, 1_000_000), "1000", &[Eval, Compare], Neither, Absent, applies::always, more Training, "How often the samples are drawn anew for the intervals that have no formula";
    "eval.level", "level", "SHARE", Kind::Number(0.5, 0.9999), "0.95", &[Eval, Compare], Neither, Absent, applies::always, more Training, "Confidence level of the intervals";
    "report.bytes", "report-bytes", "BYTES", Kind::Bytes, "8 MiB", &[Train, Demo, Eval, Ensemble, Inspect], Neither, Ignored, applies::always, more Output, "The most that report.html may take: what is left by its text holds thumbnails of images";
    "out", "out", "RUN", Kind::Place, "", &[Train, Demo], Neither, Read, applies::always, usual Output, "Where checkpoints, metrics and the report go: a path, or a URL";
    "threads", "threads", "N", Kind::Integer(1, 4096), "", EVERY, Neither, Read, applies::always, usual Machine, "Threads of the one pool that does all CPU work [default: one per core]";
    "memory", "memory", "BYTES", Kind::Bytes, "1 GiB", READS, Neither, Read, applies::decodes, usual Machine, "The most memory that images on their way may take, decoding and storing included";
    "seed", "seed", "N", Kind::Integer(0, i64::MAX), "0", &[Demo, Prepare, Train, Bench, Eval, Compare, Ensemble, Predict], Rows, Read, applies::seed, more Training, "Seed of every random draw but the split";
    "max_rejects", "max-rejects", "SHARE|COUNT", Kind::ShareOrCount, "0.05", REJECTS, Neither, Read, applies::always, more Data, "How many samples may be refused before the run fails";
    "overwrite", "overwrite", "", Kind::Switch(true), "false", &[Prepare, Convert, Train, Export, Forward, Eval, Ensemble, Predict, Inspect], Once, Read, applies::overwrite, usual Output, "Replace what an earlier, different run left in the destination, or the file that is there";
    "force", "force", "", Kind::Switch(true), "false", &[Train], Once, Read, applies::always, more Training, "Continue where shards, weights and options contradict each other: the shards win, then the options; also balance or augment again shards that are balanced or augmented already";

    "store.endpoint", "endpoint", "URL", Kind::Text, "", STORES, Neither, Read, stores::of_buckets, more Buckets, "Address of the server of every bucket, such as one that speaks as S3 does; a plain http:// one is allowed";
    "store.region", "region", "NAME", Kind::Text, "", STORES, Neither, Read, stores::region, more Buckets, "Region of a bucket of S3 [default: AWS_REGION, else us-east-1]";
    "store.anonymous", "anonymous", "", Kind::Switch(true), "false", STORES, Neither, Read, stores::anonymous, more Buckets, "Read a public bucket, or what is public on the hub, without credentials";
    "store.allow_private", "allow-private", "", Kind::Switch(true), "false", STORES, Neither, Read, stores::allow_private, more Buckets, "Follow a redirect of a public web server to a private address, such as one of this machine";
    "store.cache", "cache", "DIR", Kind::Place, "", STORES, Neither, Read, stores::cache, more Buckets, "Keep what is read of buckets and web servers in this folder, for the next epoch and the next run; several processes may share it";
    "store.cache_limit", "cache-limit", "BYTES", Kind::Bytes, "50 GiB", STORES, Neither, Read, stores::cache_limit, more Buckets, "The most bytes that the folder of --cache takes: what was not used for longest gives way";
    "store.instance_metadata", "instance-metadata", "", Kind::Switch(true), "false", STORES, Neither, Read, stores::of_buckets, more Buckets, "Ask the cloud's metadata service for credentials";

    "decode.background", "background", "COLOR", Kind::Choice(Background::WORDS), "", PREPARES, Pixels, Read, applies::decodes, more Images, "What shows through transparent pixels: drop keeps their color, as Pillow does [default: drop, or what the shards were prepared with]";
    "decode.decoder", "decoder", "NAME", Kind::Choice(Decoder::WORDS), "forebay", READS, Pixels, Read, applies::decodes, more Images, "Who decodes JPEG: forebay decodes of an image what is seen of it, with libjpeg-turbo's pixels; image is the decoder of the image crate";
    "decode.scale", "decode", "HOW", Kind::Choice(DecodeScale::WORDS), "scaled", READS, Pixels, Read, applies::scales, more Images, "scaled: large JPEGs at a half, a quarter or an eighth of their size, where at least 4.5 times the columns and rows that are wanted remain (8 times where a side becomes less than 64); exact: at their full size";
    "decode.max_side", "max-side", "PIXELS", Kind::Integer(1, 65_535), "16384", READS, Pixels, Read, applies::decodes, more Images, "Refuse images wider or higher than this";
    "decode.max_bytes", "max-bytes", "BYTES", Kind::Bytes, "256 MiB", READS, Pixels, Read, applies::decodes, more Images, "Refuse images that take more than this to decode";

    "resize.size", "size", "PIXELS", Kind::ChoiceOrInteger(&["original"], 1, 16_384), "", PREPARES, Pixels, Read, applies::decodes, usual Images, "Side of the images, or original [default: train takes that of the weights, else that of shards of squares, else that of the network, else of the images: their median shorter side, rounded to a multiple of 32, at most 224; prepare 256, or for smaller images their median so rounded]";
    "resize.fit", "fit", "HOW", Kind::Choice(Fit::WORDS), "", PREPARES, Pixels, Read, applies::resizes, usual Images, "shortest: shorter side to size, aspect kept; crop: then the centre square; pad: whole image on a square, in train with bars of the mean's color; squash: aspect ignored [default: prepare shortest; train crop, or what the shards or the weights have]";
    "resize.enlarge", "no-enlarge", "", Kind::Switch(false), "true", &[Prepare], Pixels, Absent, applies::resizes, more Images, "Leave images smaller than the size as they are; --fit crop still cuts what is longer";
    "resize.filter", "filter", "NAME", Kind::Choice(Filter::WORDS), "", PREPARES, Pixels, Read, applies::resizes, more Images, "Interpolation, antialiased as in Pillow [default: bilinear, or what the shards or the weights have]";
    "resize.crop_pct", "crop-pct", "SHARE", Kind::Number(0.05, 1.0), "", PREPARES, Pixels, Read, applies::crop_pct, more Images, "Side of the centre crop over the shorter side before it, as in timm; only --fit crop cuts a margin off [default: 1, or what the shards or the weights have]";

    "encode.format", "encode", "FORMAT", Kind::Choice(StoreAs::WORDS), "jpeg", &[Prepare], Pixels, Absent, applies::always, usual Images, "How images are stored; png and raw (PPM) lose nothing; keep: the image files byte for byte, which changes and resizes none";
    "encode.quality", "quality", "1-100", Kind::Integer(1, 100), "90", &[Prepare], Pixels, Absent, applies::quality, more Images, "Quality of stored JPEGs (4:2:0)";
    "encode.restarts", "restarts", "", Kind::Switch(true), "false", &[Prepare], Pixels, Absent, applies::restarts, more Images, "A restart marker after each row of blocks of stored JPEGs, at which a reader can begin that wants a part of the image; 0.1 to 0.4 % more bytes";

    "data.layout", "layout", "LAYOUT", Kind::Choice(LayoutKind::WORDS), "auto", LAYOUTS, Neither, Read, applies::layout, more Data, "How SOURCE holds its samples: a folder per class, a table of files and labels (CSV, TSV, JSON lines, Parquet), WebDataset's tar files, Parquet files of images as on the Hugging Face hub, MosaicML's MDS, CIFAR's binary files, or MNIST's IDX; auto finds out";
    "data.image_column", "image-column", "NAME", Kind::Text, "", LAYOUTS, Neither, Read, applies::layout, more Data, "Column of the images or of their file names; of tar files the extension of the images [default: the usual names]";
    "data.label_column", "label-column", "NAME", Kind::Text, "", LAYOUTS, Neither, Read, applies::layout, more Data, "Column of the labels; of tar files their extension, or a key of .json [default: the usual names]";

    "split.shares", "split", "TRAIN,VAL,TEST", Kind::ChoiceOrShares(&["none"], 3), "0.8,0.1,0.1", &[Prepare, Train, Bench], Rows, Read, splits::shares, usual Data, "Shares of a source without validation and test folders; none keeps all in train";
    "split.seed", "split-seed", "N", Kind::Integer(0, i64::MAX), "0", &[Prepare, Train, Bench], Rows, Read, splits::split_seed, more Data, "Seed of the split and of the order in shards";

    "split.group", "group", "WHAT", Kind::Choice(SamePicture::WORDS), "copies", &[Prepare, Train, Bench], Rows, Read, splits::group, more Data, "Images that stay in one split: copies, files that are the same byte by byte; duplicates, also what shows the same picture re-encoded, resized, cropped a little or mirrored, for which every image is decoded once more; none. Where SOURCE has splits of its own it is checked for such";
    "split.group_by", "group-by", "COLUMN|PATTERN", Kind::Text, "", &[Prepare, Train, Bench], Rows, Read, splits::group, more Data, "Samples of one patient, video or burst stay in one split: a column of the source's table, or a pattern (a regular expression) of ids with parentheses around what they share, such as '([^/_]+)_[0-9]+'";
    "split.stratify", "stratify", "", Kind::Switch(true), "false", &[Prepare, Train, Bench], Rows, Read, splits::stratify, more Data, "Cut each class by the shares, to the image as far as groups allow; images that are added later may then depend on those that are there";
    "data.keep_columns", "keep-columns", "NAMES", Kind::Text, "", &[Prepare, Convert], Rows, Absent, applies::always, more Data, "Columns of the source's table that go into the shards, separated by commas; of tar files keys of .json";

    "split.folds", "folds", "K", Kind::Integer(2, 100), "", &[Train], Rows, Ignored, applies::always, usual Data, "Cross-validation: deal all images but those for the test into K parts of equal mixture, and train K times, each time with another part as the validation images; RUN holds a run for each";
    "split.fold", "fold", "N", Kind::Integer(1, 100), "", &[Train], Rows, Ignored, splits::fold, more Data, "With --folds, only the training that holds out part N, counted from 1";

    "quarantine", "quarantine", "DIR", Kind::Place, "", &[Prepare], Neither, Absent, applies::always, more Output, "Copy rejected files there, each with the stage that refused it and why in rejects.jsonl: a path, or a URL";
    "replay", "replay", "FILE", Kind::Place, "", &[Prepare], Rows, Absent, applies::always, more Data, "Prepare only the samples of a rejects.jsonl, in the splits that they would be in: a path, or a URL";
    "resplit", "resplit", "", Kind::Switch(true), "false", &[Prepare], Once, Absent, applies::always, more Data, "Split anew where DEST was split by another --split or --split-seed, or by other train, validation and test folders: images move between training and test";
    "fixes", "fixes", "FILE", Kind::Place, "", &[Prepare], Neither, Absent, applies::always, more Data, "A fixes.csv in which a person has decided what to do about labels that look wrong: keep, relabel or drop, by id. eval --out and train write one";
    "balance.mode", "balance", "MODE", Kind::Choice(Balance::WORDS), "none", &[Prepare, Train, Bench], Rows, Read, applies::balance, usual Data, "Repeat samples of rare classes, drop samples of common ones, both, or go towards the square root of the counts or an even share by effective numbers; repeat-factor: repeat classes rarer than --balance-threshold, as LVIS; targets: by the table [balance.targets] or --balance-targets; training split only. smote, borderline-smote, adasyn: make features of rare classes between those that are there, in train with --freeze backbone";
    "balance.clean", "clean", "HOW", Kind::Choice(Clean::WORDS), "none", &[Train], Rows, Ignored, applies::clean, more Data, "Leave out training images by their features, with --freeze backbone and after what --balance makes of them: tomek, those of two classes that are each other's nearest; enn, those whose three nearest are not all of their class. Without --balance smote none of the rarest class";
    "balance.ratio", "balance-ratio", "0-1", Kind::Number(0.0, 1.0), "1.0", &[Prepare, Train, Bench], Rows, Read, applies::balance_ratio, more Data, "Ratio of the smallest class to the largest one that balancing aims at";
    "balance.beta", "balance-beta", "X", Kind::Number(0.0, 0.999_999_999), "0.9999", &[Prepare, Train, Bench], Rows, Read, applies::of_one_balance, more Data, "Beta of the effective number (1 - beta^n) / (1 - beta) of --balance effective-number: 0 leaves the classes as they are, near 1 they are even";
    "balance.threshold", "balance-threshold", "SHARE", Kind::Number(0.000_000_001, 1.0), "", &[Prepare, Train, Bench], Rows, Read, applies::of_one_balance, more Data, "With --balance repeat-factor, the share of the images below which those of a class are repeated [default: one over the number of classes; LVIS 0.001]";
    "balance.targets", "balance-targets", "FILE", Kind::Counts, "", &[Prepare, Train, Bench], Rows, Read, applies::of_one_balance, more Data, "With --balance targets, the images of each class: a CSV file with a head and the columns class and images, or a table [balance.targets] in the run file; other classes stay as they are";
    "balance.max_repeats", "max-repeats", "N", Kind::Integer(1, 1_000_000), "100", &[Prepare, Train, Bench], Rows, Read, applies::max_repeats, more Data, "Most copies of one sample";

    "augment.minority", "augment-minority", "PRESET", Kind::Preset(&Augment::PRESETS), "", &[Prepare, Train, Bench], Views, Read, applies::always, more Data, "Other changes of training images of rare classes, those with fewer than half of the images of the largest: a preset here; in the run file a table of settings that may name `preset`, `below` (that share) and `classes`";
    "augment", "augment", "PRESET", Kind::Preset(&Augment::PRESETS), "none", &[Prepare, Train, Bench], Views, Read, applies::decodes, usual Data, "Random changes of training images: a preset here, or a table of settings in the run file";

    "shards.samples_per_shard", "samples-per-shard", "N", Kind::Integer(1, 10_000_000), "", &[Prepare], Rows, Absent, applies::always, more Data, "Rows per shard [default: about 64 MiB, a multiple of 100 between 100 and 10000]";
    "shards.format", "format", "FORMAT", Kind::Choice(DatasetFormat::WORDS), "parquet", &[Prepare, Convert], Pixels, Absent, applies::always, usual Output, "The form of DEST: parquet, shards of Forebay, which Hugging Face datasets opens; webdataset, tar files; mds of MosaicML Streaming";
    "shards.order", "order", "ORDER", Kind::Choice(ShardOrder::WORDS), "shuffled", &[Prepare], Rows, Absent, applies::always, more Data, "shuffled makes each shard a fair mixture; source keeps the order of names";

    "train.arch", "arch", "NAME", Kind::Choice(NAMES), "small", &[Train, Demo], Run, Read, applies::always, usual Network, "The network, by torchvision's name; small is a residual network for images up to about 100 pixels";
    "train.epochs", "epochs", "N", Kind::Integer(1, 100_000), "10", &[Demo, Train], Neither, Ignored, applies::always, usual Training, "Passes over the training split";
    "train.batch_size", "batch-size", "N", Kind::Integer(1, 65_536), "32", &[Train, Bench, Eval, Ensemble, Predict], Run, Read, applies::always, usual Training, "Images per step";
    "train.recipe", "recipe", "NAME", Kind::Choice(Recipe::WORDS), "fine-tune", &[Train], Run, Read, applies::recipe, more Network, "With --weights, fine-tune trains the new head for one epoch, then all of the network, each part at 0.75 of the learning rate of the part after it; --freeze and --unfreeze replace its steps, plain leaves them out. Without --weights everything is trained";
    "train.optimizer", "optimizer", "NAME", Kind::Choice(OptimizerKind::WORDS), "adamw", &[Train], Run, Read, applies::always, usual Optimizer, "The update rule; sgd has momentum";
    "train.learning_rate", "lr", "X", Kind::Number(0.0, 100.0), "", &[Train], Run, Ignored, applies::learning_rate, usual Optimizer, "Peak learning rate [default: adam and adamw 0.001, sgd 0.05, rmsprop 0.0001]";
    "train.momentum", "momentum", "X", Kind::Number(0.0, 1.0), "0.9", &[Train], Run, Read, applies::momentum, more Optimizer, "Momentum of sgd";
    "train.nesterov", "nesterov", "", Kind::Switch(true), "false", &[Train], Run, Read, applies::nesterov, more Optimizer, "Nesterov momentum for sgd";
    "train.weight_decay", "weight-decay", "X", Kind::Number(0.0, 10.0), "", &[Train], Run, Read, applies::always, more Optimizer, "L2 decay of weights, not of biases and norms [default: adamw 0.05, sgd 0.0005]";
    "train.l1", "l1", "X", Kind::Number(0.0, 10.0), "0.0", &[Train], Run, Read, applies::always, more Optimizer, "L1 penalty of weights, not of biases and norms";
    "train.clip_norm", "clip-norm", "X", Kind::Number(1e-9, 1e9), "", &[Train], Run, Read, applies::always, more Optimizer, "Clip the gradients of a step to this global norm";
    "train.micro_batch", "micro-batch", "N|auto", Kind::ChoiceOrInteger(&["auto"], 2, 65_536), "", &[Train], Run, Read, applies::micro_batch, more Training, "Images per forward and backward pass; gradients are accumulated over the batch, which takes less memory. Batch norms see a micro-batch. auto: as many as fit, found out before the first step";
    "train.ema", "ema", "X", Kind::Number(0.0, 0.999_999), "", &[Train], Run, Ignored, applies::always, more Optimizer, "Evaluate and keep a moving average of the weights with this decay, such as 0.999; in step t no more than (1 + t) / (10 + t), so that it follows closely at first";
    "train.schedule", "schedule", "SHAPE", Kind::Choice(ScheduleKind::WORDS), "cosine", &[Train], Run, Ignored, applies::always, usual Optimizer, "How the learning rate falls after the warm-up: cosine, constant, linear, polynomial, step, multi-step, exponential, cosine-restarts, one-cycle (which has a warm-up of its own), or plateau, which lowers it when validation stalls";
    "train.warmup", "warmup", "EPOCHS", Kind::Number(0.0, 1000.0), "1.0", &[Train], Run, Ignored, applies::warmup, more Optimizer, "Epochs in which the learning rate rises";
    "train.lr_gamma", "lr-gamma", "X", Kind::Number(0.0, 1.0), "0.1", &[Train], Run, Ignored, applies::lr_gamma, more Optimizer, "Factor of schedules step, multi-step, plateau, and exponential per epoch";
    "train.lr_every", "lr-every", "EPOCHS", Kind::Number(0.01, 100_000.0), "10", &[Train], Run, Ignored, applies::lr_every, more Optimizer, "Epochs between two steps of schedule step, or of the first cycle of cosine-restarts, of which each is twice as long as the one before";
    "train.lr_milestones", "lr-milestones", "EPOCHS", Kind::Numbers(0.01, 1e6), "", &[Train], Run, Ignored, applies::lr_milestones, more Optimizer, "Epochs of the run after which schedule multi-step lowers the learning rate, such as 30,60";
    "train.lr_power", "lr-power", "X", Kind::Number(0.0, 100.0), "1.0", &[Train], Run, Ignored, applies::lr_power, more Optimizer, "Power of schedule polynomial";
    "train.lr_patience", "lr-patience", "EPOCHS", Kind::Integer(0, 100_000), "3", &[Train], Run, Ignored, applies::lr_patience, more Optimizer, "Epochs without improvement that schedule plateau waits for";
    "train.snapshots", "snapshots", "N", Kind::Integer(2, 1000), "", &[Train], Run, Ignored, applies::snapshots, more Training, "Train in N cycles, in each of which the learning rate falls anew, and keep the weights at the end of each: forebay ensemble RUN makes one model of them";
    "train.loss", "loss", "NAME", Kind::Choice(Loss::WORDS), "cross-entropy", &[Train], Run, Read, applies::loss, more Loss, "cross-entropy; focal: images that are classified well already count less; cb-focal: and rare classes more, by their effective numbers; ldam: a larger margin for rarer classes, with a head of unit vectors and class weights from --defer on; balanced-softmax and logit-adjustment: rare classes by the logarithms of their counts, after which the logits stand for classes that are equally likely";
    "train.focal_gamma", "focal-gamma", "X", Kind::Number(0.0, 100.0), "2.0", &[Train], Run, Read, applies::focal_gamma, more Loss, "Power of the focal losses";
    "train.logit_tau", "logit-tau", "X", Kind::Number(0.0, 10.0), "1.0", &[Train], Run, Read, applies::logit_tau, more Loss, "How much of the priors loss logit-adjustment takes out of the logits; 1 is all of them";
    "train.class_weights", "class-weights", "HOW", Kind::Choice(ClassWeights::WORDS), "", &[Train], Run, Read, applies::class_weights, more Loss, "Weights of the classes in the training loss: by the inverse of their counts, of the square roots of these, or of their effective numbers [default: none; with loss ldam effective]";
    "train.effective_beta", "effective-beta", "X", Kind::Number(0.0, 0.999_999_999), "0.9999", &[Train], Run, Read, applies::effective_beta, more Loss, "Beta of the effective number (1 - beta^n) / (1 - beta) of n images";
    "train.defer", "defer", "SHARE", Kind::Number(0.0, 1.0), "", &[Train], Run, Ignored, applies::defer, more Loss, "Share of the run after which class weights begin to count (deferred re-weighting) [default: 0, from the start; with loss ldam 0.8]";
    "train.mixup", "mixup", "ALPHA", Kind::Number(0.0, 100.0), "0.0", &[Train], Run, Read, applies::soft_targets, more Loss, "Mix pairs of images of a batch in a proportion drawn from Beta(ALPHA, ALPHA); 0.2 is usual, 0 is off";
    "train.cutmix", "cutmix", "ALPHA", Kind::Number(0.0, 100.0), "0.0", &[Train], Run, Read, applies::soft_targets, more Loss, "Paste a box of one image of a batch into another; 1.0 is usual, 0 is off";
    "train.label_smoothing", "label-smoothing", "X", Kind::Number(0.0, 1.0), "0.0", &[Train], Run, Read, applies::soft_targets, more Loss, "Share of the target spread over all classes";
    "train.weights", "weights", "FILE|hf:OWNER/NAME", Kind::Place, "", &[Train], Run, Read, applies::always, usual Network, "Initial weights: a safetensors, .pth or .bin file, or hf:OWNER/NAME[@REVISION][:FILE] of the Hugging Face hub; size, crop, filter, mean and std are then theirs";
    "train.freeze", "freeze", "none|backbone|PART", Kind::Text, "", &[Train], Run, Read, applies::always, usual Network, "Layers that are not trained: backbone is all but the head, PART is all up to and including that part (resnet50: conv1, layer1, ..., layer4). Frozen batch norms keep their statistics";
    "train.unfreeze", "unfreeze", "EPOCH|stall: PART, ..", Kind::Text, "", &[Train], Run, Read, applies::unfreeze, more Network, "From an epoch on, counted from 1, train that part and those after it: \"3: layer4, 5: layer3\"; or one after the other, each when validation stalls: \"stall: layer4, stall: layer3\"";
    "train.unfreeze_patience", "unfreeze-patience", "EPOCHS", Kind::Integer(1, 100_000), "2", &[Train], Run, Ignored, applies::unfreeze_patience, more Network, "Epochs in a row without an improvement after which --unfreeze \"stall: PART\" trains the next part";
    "train.layer_decay", "layer-decay", "X", Kind::Number(0.01, 1.0), "", &[Train], Run, Read, applies::layer_decay, more Network, "Learning rate of each part as a share of that of the part after it [default: 0.75 in recipe fine-tune, else 1]";
    "train.head_width", "head-width", "N", Kind::Integer(1, 1_000_000), "", &[Train], Run, Read, applies::always, more Network, "Features of a hidden layer in the head [default: no hidden layer]";
    "train.head_activation", "head-activation", "NAME", Kind::Choice(HeadActivation::WORDS), "relu", &[Train], Run, Read, applies::head_activation, more Network, "Activation after the hidden layer of the head";
    "train.dropout", "dropout", "SHARE", Kind::Number(0.0, 0.999), "", &[Train], Run, Read, applies::always, more Network, "Dropout before the last layer [default: that of the family: VGG and Inception 0.5, MobileNet and EfficientNet 0.2, ResNet none]";
    "train.find_lr", "find-lr", "", Kind::Switch(true), "false", &[Train], Once, Read, applies::always, more Optimizer, "Learning-rate range test: train nothing, raise the rate from step to step and suggest one; --out keeps the curve and its numbers";
    "train.feature_cache", "feature-cache", "DIR|off", Kind::Place, "", &[Train], Neither, Ignored, applies::feature_cache, more Network, "Where the outputs of the frozen first layers are kept, so that these run once per image: used when they stay frozen for the whole run and nothing about an image is random. off: never [default: the user's cache folder, for features that fit in --memory]";
    "train.feature_views", "feature-views", "N", Kind::Integer(1, 10_000), "", &[Train], Run, Ignored, applies::feature_views, more Network, "With --augment, run the frozen layers on N views of each training image, with which epochs take turns, instead of on a new one in every epoch";
    "train.doctor", "doctor", "HOW", Kind::Choice(Doctor::WORDS), "quick", &[Train], Neither, Ignored, applies::always, more Training, "Look at the first batch: quick, whether a step fits in memory, its loss, and whether a gradient reaches every trained tensor; full, also whether the network overfits that batch within 100 steps, which are undone";
    "train.early_stop", "early-stop", "EPOCHS", Kind::Integer(1, 100_000), "", &[Train], Neither, Ignored, applies::early_stop, usual Training, "End the run after so many epochs in a row without an improvement; the best epoch is what is kept in any case";
    "train.monitor", "monitor", "SCORE", Kind::Choice(Monitor::WORDS), "accuracy", &[Train], Run, Ignored, applies::monitor, more Training, "The validation score that selects the best epoch";
    "train.min_delta", "min-delta", "X", Kind::Number(0.0, 1000.0), "0.0", &[Train], Run, Ignored, applies::min_delta, more Training, "How much better an epoch must be to count as an improvement for --early-stop and --unfreeze \"stall: PART\"";
    "train.checkpoint_every", "checkpoint-every", "STEPS|TIME", Kind::Text, "10m", &[Train], Neither, Ignored, applies::always, more Output, "Write a checkpoint every so many steps (500) or so often (90s, 10m, 1h), besides the one after each epoch";
    "train.log_every", "log-every", "STEPS", Kind::Integer(1, 1_000_000), "10", &[Train], Neither, Ignored, applies::always, more Output, "Steps between two points of the training curves";
    "train.seal_test", "seal-test", "", Kind::Switch(true), "false", &[Train], Neither, Ignored, applies::always, more Training, "Do not score the test images at the end: for runs among which one is chosen. forebay eval RUN --final opens them, and counts how often";
    "train.live", "live", "", Kind::Switch(true), "false", &[Train], Once, Ignored, applies::always, usual Output, "Show curves, learning rate and the state of the feed in the terminal while it runs; Ctrl-C stops it with a checkpoint, and what is typed meanwhile is kept for the shell";
    "train.resume", "resume", "", Kind::Switch(true), "false", &[Train], Once, Ignored, applies::always, usual Training, "Go on from the last checkpoint in RUN";
    "train.precision", "precision", "NAME", Kind::Choice(Precision::WORDS), "f32", &[Train], Run, Read, applies::always, more Machine, "Precision of the activations on a GPU; weights, moments and the loss stay in single precision, and with f16 the loss is scaled";
    "train.device", "device", "DEVICE", Kind::Text, "cpu", &[Train], Neither, Read, applies::always, usual Machine, "cpu, or cuda:0 in a build with --features cuda";
    "train.mean", "mean", "R,G,B", Kind::ChoiceOrShares(&["imagenet"], 3), "imagenet", &[Train, Eval], Pixels, Read, applies::always, more Images, "Mean of the normalisation, of values from 0 to 1";
    "train.std", "std", "R,G,B", Kind::ChoiceOrShares(&["imagenet"], 3), "imagenet", &[Train, Eval], Pixels, Read, applies::always, more Images, "Standard deviation of the normalisation";
];

/// The row of a key.
pub fn option(key: &str) -> Option<&'static OptionRow> {
    OPTIONS.iter().find(|option| option.key == key)
}

impl Kind {
    /// Text from a flag, `--set` or the table of defaults, as a value of this kind.
    pub(super) fn read(self, text: &str) -> Result<Value, String> {
        let whole = || text.parse::<i64>().ok().map(Value::Integer);
        let number = || text.parse::<f64>().ok().map(Value::Float);
        let value = match self {
            Kind::Switch(_) => text.parse::<bool>().ok().map(Value::Boolean),
            Kind::Integer(..) => whole(),
            Kind::Number(..) => number(),
            Kind::ShareOrCount => whole().or_else(number),
            Kind::ChoiceOrInteger(words, ..) if !words.contains(&text) => whole(),
            Kind::ChoiceOrShares(words, _) if !words.contains(&text) => list_of_numbers(text),
            // No argument of a program holds a zero byte.
            Kind::Places => Some(text.split('\0').map(Value::from).collect::<Vec<_>>().into()),
            Kind::Space => return space::read(text).map(Value::Table),
            Kind::Counts => return counts::read(text).map(Value::Table),
            _ => Some(Value::from(text)),
        };
        self.check(value.unwrap_or_else(|| Value::from(text)))
    }

    /// The value in its one form if it is of this kind, or what was expected and found.
    pub fn check(self, value: Value) -> Result<Value, String> {
        let value = match (self, value) {
            // A run file may write a list as the flag does.
            (Kind::Numbers(..), Value::String(text)) => list_of_numbers(&text).unwrap_or(Value::String(text)),
            (Kind::Places, Value::String(text)) => vec![text].into(),
            (_, value) => value,
        };
        let number = |value: &Value| value.as_float().or_else(|| value.as_integer().map(|v| v as f64));
        let word = |words: &[&str]| value.as_str().is_some_and(|text| words.contains(&text));
        let within = |low: i64, high: i64| value.as_integer().is_some_and(|v| (low..=high).contains(&v));
        let list = |words: &[&str]| words.join(", ");
        let (fits, expected) = match self {
            Kind::Switch(_) => (value.is_bool(), "true or false".to_string()),
            Kind::Place => match value.as_str() {
                Some(text) if text.starts_with('~') => return at_home(text).map(Value::from),
                text => (text.is_some_and(|text| !text.is_empty()), "a path or a URL".to_string()),
            },
            Kind::Places => {
                let place = |value: &Value| Kind::Place.check(value.clone());
                match value.as_array().map(|values| values.iter().map(place).collect::<Result<Vec<_>, _>>()) {
                    Some(Ok(places)) if !places.is_empty() => return Ok(places.into()),
                    Some(Err(line)) => return Err(line),
                    _ => (false, "one or more paths or URLs".to_string()),
                }
            }
            Kind::Text => (value.as_str().is_some_and(|text| !text.is_empty()), "a text".to_string()),
            Kind::Choice(words) => (word(words), choice(words, &value)),
            Kind::Integer(low, high) => {
                let bounds = if high > 1 << 30 {
                    format!("of at least {low}")
                } else {
                    format!("from {low} to {high}")
                };
                (within(low, high), format!("a whole number {bounds}"))
            }
            Kind::Number(low, high) => (
                number(&value).is_some_and(|v| (low..=high).contains(&v)),
                format!("a number from {low} to {high}"),
            ),
            Kind::Bytes => {
                let bytes = value.as_integer().filter(|&v| v > 0).map(|v| v as u64);
                match bytes.or_else(|| value.as_str().and_then(parse_bytes)) {
                    Some(bytes) => return Ok(Value::Integer(bytes as i64)),
                    None => (false, "a number of bytes such as 512 MiB".to_string()),
                }
            }
            Kind::ChoiceOrInteger(words, low, high) => (
                word(words) || within(low, high),
                format!("{}, or a whole number from {low} to {high}", list(words)),
            ),
            Kind::ChoiceOrShares(words, n) => {
                let shares = value.as_array().is_some_and(|values| {
                    values.len() == n
                        && values.iter().all(|v| number(v).is_some_and(|share| (0.0..=1.0).contains(&share)))
                });
                (word(words) || shares, format!("{}, or {n} numbers from 0 to 1", list(words)))
            }
            Kind::Numbers(low, high) => {
                let fits = |values: &Vec<Value>| {
                    !values.is_empty()
                        && values.iter().all(|v| number(v).is_some_and(|v| (low..=high).contains(&v)))
                };
                (
                    value.as_array().is_some_and(fits),
                    format!("one or more numbers from {low} to {high}, as in 30,60"),
                )
            }
            Kind::ShareOrCount => {
                let share = value.as_float().is_some_and(|share| (0.0..=1.0).contains(&share));
                (share || within(0, i64::MAX), "a share from 0.0 to 1.0, or a whole number".to_string())
            }
            Kind::Space => (value.is_table(), "a table of options, each with a range or values".to_string()),
            Kind::Counts => {
                let is_count = |value: &Value| value.as_integer().is_some_and(|n| n >= 0);
                let fits = value.as_table().is_some_and(|table| table.values().all(is_count));
                (fits, "a table of whole numbers, one for each class".to_string())
            }
            Kind::Preset(words) => {
                (word(words) || value.is_table(), format!("one of {}, or a table of settings", list(words)))
            }
        };
        if fits {
            Ok(self.canonical(value))
        } else {
            Err(format!("{value} is not {expected}").replace('\n', " "))
        }
    }

    /// Equal values in one form, so that `1` and `1.0` are one setting.
    fn canonical(self, value: Value) -> Value {
        let float = |value: Value| match value {
            Value::Integer(whole) => Value::Float(whole as f64),
            other => other,
        };
        match (self, value) {
            (Kind::Number(..), value) => float(value),
            (Kind::ChoiceOrShares(..) | Kind::Numbers(..), Value::Array(values)) => {
                Value::Array(values.into_iter().map(float).collect())
            }
            (_, value) => value,
        }
    }
}

/// What was expected of a choice, and what of it may have been meant.
fn choice(words: &[&str], found: &Value) -> String {
    let list = format!("one of {}", words.join(", "));
    let near = found.as_str().and_then(|word| nearest(word, words.iter().copied()));
    match near {
        // A long list would hide it.
        Some(near) if words.len() > 10 => format!("a choice; did you mean {near}?"),
        Some(near) => format!("{list}; did you mean {near}?"),
        None => list,
    }
}

/// Numbers separated by commas; `None` of anything else.
fn list_of_numbers(text: &str) -> Option<Value> {
    let numbers: Option<Vec<Value>> =
        text.split(',').map(|part| part.trim().parse().ok().map(Value::Float)).collect();
    numbers.map(Value::Array)
}

/// A path that begins with `~`, below the home folder.
pub(super) fn at_home(text: &str) -> Result<String, String> {
    let rest = match text.strip_prefix('~') {
        Some("") => "",
        Some(rest) if rest.starts_with('/') => rest,
        _ => {
            return Err(format!(
                "\"{text}\" is the home folder of another user, which is not looked up; write it out"
            ));
        }
    };
    match std::env::home_dir() {
        Some(home) if !home.as_os_str().is_empty() => Ok(format!("{}{rest}", home.display())),
        _ => Err(format!("\"{text}\" is in the home folder, and HOME names none; write it out")),
    }
}
