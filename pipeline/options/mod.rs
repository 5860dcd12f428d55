//! Options: what may be set, who sets it, and what a run is given.

mod bytes;
mod command_line;
mod layers;
mod sections;
mod table;

pub use bytes::{bytes_in_words, parse_bytes};
pub use command_line::{Invocation, command_line, resolve};
pub use layers::{Config, Problems};
pub(crate) use sections::{augment, balance_options, shares};
pub use sections::{decode, store_options, wanted};
pub use table::{Command, Kind, OPTIONS, OptionRow, option};
