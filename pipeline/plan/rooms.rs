//! What a run may use, and how many items each node of it may hold.

use forebay_stages::decode::{Decode, KEPT_BYTES_MAX};
use toml::Value;

use crate::flow::{MaxRejects, Room, RunOptions};
use crate::options::{Config, bytes_in_words};

/// What the run may use, and how many items each node of it may hold.
#[derive(Clone, Copy, Debug)]
pub struct Rooms {
    /// Threads that compute.
    pub threads: usize,
    /// The byte budget of decoded images.
    pub memory_bytes: u64,
    /// How many samples may be refused.
    pub max_rejects: MaxRejects,
}

impl Rooms {
    /// Cores that this process may use.
    pub fn cores() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    /// What the run file gives.
    pub fn of(config: &Config) -> Rooms {
        Rooms {
            threads: config.integer("threads").map_or_else(Rooms::cores, |threads| threads as usize),
            memory_bytes: config.whole("memory"),
            max_rejects: match config.get("max_rejects") {
                Some(Value::Integer(count)) => MaxRejects::Count(*count as u64),
                other => MaxRejects::Share(other.and_then(Value::as_float).expect("a share or a count")),
            },
        }
    }

    /// What is wrong where not even one image fits.
    pub fn too_small_for(&self, decode: &Decode) -> Option<String> {
        let most = decode.limits.memory_bytes_max;
        (most > self.memory_bytes).then(|| {
            format!(
                "memory: {} is less than decode.max_bytes {}; one image must fit",
                bytes_in_words(self.memory_bytes),
                bytes_in_words(most)
            )
        })
    }

    /// What a [`crate::flow::Run`] is started with.
    pub fn run_options(&self) -> RunOptions {
        RunOptions { threads: self.threads, memory_bytes: self.memory_bytes, max_rejects: self.max_rejects }
    }

    /// The most bytes that images take which pass together: a small part of the budget, so that no thread waits for
    /// the images of another.
    pub fn part_bytes(&self) -> u64 {
        self.memory_bytes / (4 * self.threads as u64)
    }

    /// What threads keep between two images, bytes at most.
    pub fn kept_bytes(&self) -> u64 {
        (self.threads * KEPT_BYTES_MAX) as u64
    }

    /// Reads wait, they do not compute: enough of them to keep the pool fed from a store that answers slowly.
    pub fn read(&self) -> Room {
        Room { slots: 2 * self.threads.max(4), queue: 2 }
    }

    /// A window of about twice the pool's threads hides that the head of the line may be slow.
    pub fn compute(&self) -> Room {
        Room { slots: 2 * self.threads, queue: 2 }
    }

    /// Groups of rows are worth hundreds of images, so two in work and one that waits are enough.
    pub fn group(&self) -> Room {
        Room { slots: 2, queue: 1 }
    }

    /// Pieces of a large file that is read through: enough to keep a store busy that answers slowly, whatever the
    /// threads.
    pub fn piece(&self) -> Room {
        Room { slots: 4, queue: 1 }
    }

    /// Shards in the making are large, so there are few: one encoded, one written.
    pub fn shard(&self) -> Room {
        Room { slots: 1, queue: 1 }
    }
}
