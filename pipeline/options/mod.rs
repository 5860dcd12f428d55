//! Options: what may be set, who sets it, and what a run is given.

mod applies;
mod bytes;
mod cache_home;
mod choices;
mod command;
mod command_line;
mod counts;
mod facts;
mod freezing;
mod identity;
mod layers;
mod nearest;
mod sections;
mod space;
mod spellings;
mod splits;
mod stores;
mod table;
mod values;

pub use applies::{Effect, SPREAD_REPETITIONS_MIN, Situation};
pub use bytes::{bytes_in_words, parse_bytes};
pub(crate) use cache_home::cache_home;
pub use choices::{
    Background, BenchFrozen, BenchSweep, Doctor, EvalSplit, FailOn, HeadActivation, Level, ModelPass,
    Monitor, NormMode, PredictFormat, Recipe, ScheduleKind, ShardOrder, StoreAs, VoteWeights,
};
pub use command::{COMMANDS, Command, CommandRow};
pub use command_line::{Invocation, command_line, explain, resolve, switches_last};
pub use facts::{Facts, PreparedRows};
pub use freezing::{FreezePlan, Thaw};
pub use layers::{Problems, unknown as unknown_key};
pub use sections::{
    GroupBy, class_weights, dataset_file, decode, deferred_share, fold, group_by, keep_columns, layout,
    layout_at, loss, store_options, together, wanted,
};
pub(crate) use sections::{
    augment, balance_options, file_key, fold_problem, folder_and_file, hash_split, shares,
};
pub use table::{Heading, Identity, InRangeTest, Kind, OPTIONS, OptionRow, option};
pub use values::{Config, Layer};
