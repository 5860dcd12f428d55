//! A run as it is checked before anything starts. Nothing runs that was not a plan.

mod destination;
mod difference;
mod digests;
pub mod fixes;
mod identity;
mod in_words;
mod memory;
mod nodes;
mod outputs;
mod places;
mod prepare;
mod problems;
mod rooms;
mod rows;
mod shards;
mod side;
mod text;

pub(crate) use crate::options::folder_and_file;
pub(crate) use destination::is_leftover;
pub use destination::{DestState, Destination};
pub(crate) use identity::{Digest, fingerprint, images_fingerprint, samples_fingerprint};
pub(crate) use in_words::shorten;
pub use in_words::{augment_in_words, balance_in_words, schedule_in_words};
pub use memory::{check_memory, sum_of_largest};
pub use nodes::{PlannedNode, nodes_in_words};
pub(crate) use outputs::{refuse_file, refuse_folder};
pub(crate) use places::{Purpose, refuse_unreached};
pub use places::{finished, open, open_source, prepared, shards_of};
pub use prepare::PreparePlan;
pub(crate) use problems::{gather, refuse};
pub use rooms::Rooms;
pub use rows::{PlannedRow, Rows, rows};
pub use shards::{PlannedShard, chunk, chunk_of};
pub use side::{DecidedBy, OF_A_BATCH_PX, OF_A_SHARD_PX, ShorterSides, side_of};
pub(crate) use text::indented;
pub use text::{memory_as_json, memory_in_words};
