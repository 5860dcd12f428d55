//! Choices that only the program has: each an enum that owns its words. Those of a stage or of training are with it.

use forebay_datasets::words;
use forebay_datasets::words::Words;
use serde::{Deserialize, Serialize};

/// How much is said besides results, warnings and errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    Quiet,
    /// Notes, tables, progress.
    #[default]
    Normal,
    /// Also the plan of a run, and its log.
    Verbose,
}

/// What shows through transparent pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    /// Their own colour, as in Pillow.
    Drop,
    /// White.
    White,
    /// Black.
    Black,
}
words!(Background { Drop => "drop", White => "white", Black => "black" });

impl Background {
    /// The colour that is blended in; `None` drops the alpha channel.
    pub fn color(self) -> Option<[u8; 3]> {
        match self {
            Background::Drop => None,
            Background::White => Some([255; 3]),
            Background::Black => Some([0; 3]),
        }
    }

    /// The one of this colour, if there is one.
    pub fn of_color(color: Option<[u8; 3]>) -> Option<Background> {
        Background::ALL.iter().copied().find(|background| background.color() == color)
    }
}

/// How images are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreAs {
    /// As JPEG files.
    Jpeg,
    /// As PNG files.
    Png,
    /// As binary PPM files.
    Raw,
    /// As the files that they are.
    Keep,
}
words!(StoreAs { Jpeg => "jpeg", Png => "png", Raw => "raw", Keep => "keep" });

/// In which order the rows of a split stand in its shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardOrder {
    /// At random, so that each shard is a fair mixture.
    Shuffled,
    /// As the source names them.
    Source,
}
words!(ShardOrder { Shuffled => "shuffled", Source => "source" });

/// Which images `eval` scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvalSplit {
    /// The training images.
    Train,
    /// The validation images.
    Validation,
    /// The test images.
    Test,
    /// All of them.
    All,
}
words!(EvalSplit { Train => "train", Validation => "validation", Test => "test", All => "all" });

/// What ends an inspection with exit code 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailOn {
    /// The same image in several splits.
    Leaks,
    /// The same image twice.
    Duplicates,
    /// A file that cannot be decoded.
    Rejects,
    /// A file with the extension of another format.
    Mislabelled,
    /// A fact beside the picture that predicts its class.
    Shortcuts,
}
words!(FailOn {
    Leaks => "leaks",
    Duplicates => "duplicates",
    Rejects => "rejects",
    Mislabelled => "mislabelled",
    Shortcuts => "shortcuts",
});

/// How predictions are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredictFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Jsonl,
    /// A table with a header, fields quoted as RFC 4180 has it.
    Csv,
    /// A table with the probability of every class.
    Parquet,
}
words!(PredictFormat { Text => "text", Jsonl => "jsonl", Csv => "csv", Parquet => "parquet" });

/// How the members of an ensemble weigh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteWeights {
    /// All the same.
    Equal,
    /// So that the validation images have the largest likelihood.
    Fitted,
}
words!(VoteWeights { Equal => "equal", Fitted => "fitted" });

/// Which statistics norms use in `forward`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormMode {
    /// Their running statistics.
    Eval,
    /// Those of the batch.
    Train,
}
words!(NormMode { Eval => "eval", Train => "train" });

/// What `bench model` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelPass {
    /// Evaluation.
    Forward,
    /// Forward, backward and update.
    Step,
}
words!(ModelPass { Forward => "forward", Step => "step" });

/// Of what `bench` measures several numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BenchSweep {
    /// Of threads.
    Threads,
}
words!(BenchSweep { Threads => "threads" });

/// What a step of `bench model` does not train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BenchFrozen {
    /// Everything is trained.
    None,
    /// Only the head is trained.
    Backbone,
}
words!(BenchFrozen { None => "none", Backbone => "backbone" });

/// What is done with pretrained weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// One epoch for the new head, then everything, earlier parts more slowly.
    FineTune,
    /// Everything from the start.
    Plain,
}
words!(Recipe { FineTune => "fine-tune", Plain => "plain" });

/// How the learning rate moves after the warm-up, by name; its numbers are options of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleKind {
    /// Half a cosine down to zero.
    Cosine,
    /// It stays.
    Constant,
    /// Straight down to zero.
    Linear,
    /// The share of the steps that is left, to a power.
    Polynomial,
    /// Multiplied by a factor every so many epochs.
    Step,
    /// Multiplied by a factor at given epochs.
    MultiStep,
    /// Multiplied by a factor every epoch, step by step.
    Exponential,
    /// Half cosines, each longer than the one before.
    CosineRestarts,
    /// Up and down once, with a warm-up of its own.
    OneCycle,
    /// Multiplied by a factor when validation stalls.
    Plateau,
}
words!(ScheduleKind {
    Cosine => "cosine",
    Constant => "constant",
    Linear => "linear",
    Polynomial => "polynomial",
    Step => "step",
    MultiStep => "multi-step",
    Exponential => "exponential",
    CosineRestarts => "cosine-restarts",
    OneCycle => "one-cycle",
    Plateau => "plateau",
});

/// What follows a hidden layer of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadActivation {
    /// `max(x, 0)`
    Relu,
    /// `x · Φ(x)`
    Gelu,
    /// `x / (1 + exp(-x))`
    Silu,
    /// `x · min(max(x + 3, 0), 6) / 6`
    HardSwish,
    /// The hyperbolic tangent.
    Tanh,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
}
words!(HeadActivation {
    Relu => "relu",
    Gelu => "gelu",
    Silu => "silu",
    HardSwish => "hard-swish",
    Tanh => "tanh",
    Sigmoid => "sigmoid",
});

/// How closely the first batch is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doctor {
    /// Its memory, loss and gradients.
    Quick,
    /// Also whether the network can overfit it.
    Full,
    /// Not at all.
    Off,
}
words!(Doctor { Quick => "quick", Full => "full", Off => "off" });

/// The validation score that selects the best epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Monitor {
    /// The accuracy: the higher the better.
    Accuracy,
    /// The mean loss: the lower the better.
    Loss,
    /// The mean F1 of the classes, each weighing the same: the higher the better.
    MacroF1,
}
words!(Monitor { Accuracy => "accuracy", Loss => "loss", MacroF1 => "macro-f1" });
