//! What a bench was of, and where it ran: figures of other work say nothing about each other.

use std::collections::BTreeMap;

use forebay_datasets::sample::Split;
use forebay_stages::collate::Dtype;
use serde::{Deserialize, Serialize};

use super::repetition::Length;
use crate::feed::Feed;
use crate::options::{Command, Config, Facts, Identity};
use crate::plan::{Rooms, machine_bytes};

/// What was measured. Two benches of equal work may be compared, wherever the images lie.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// Names, sizes and labels of the images, or the checksums of the shards, as one checksum.
    pub samples: String,
    /// `images` or `shards`.
    pub kind: String,
    /// Images of an epoch of training.
    pub images: u64,
    /// Side of the images of a batch, in pixels.
    pub side: u32,
    /// Images of a batch.
    pub batch: usize,
    /// What the values of a batch are; bytes in what earlier versions told.
    #[serde(default)]
    pub dtype: Dtype,
    /// How an image is prepared.
    pub chain: String,
    /// What counts: `seconds from the first batch`, or `whole epochs`.
    pub counted: String,
    /// Other settings that decide what comes out, by key.
    pub settings: BTreeMap<String, serde_json::Value>,
}

impl Workload {
    /// That of a feed, made as the options say.
    pub fn of(feed: &Feed, config: &Config, length: Length) -> Workload {
        let decided = [Identity::Pixels, Identity::Views, Identity::Rows, Identity::Run];
        let mut settings = config.settings(Command::Bench, &Facts::default(), &decided);
        // These are said above as what they came to.
        settings.retain(|key, _| !key.starts_with("resize.") && key != "train.batch_size");
        Workload {
            samples: feed.source.samples_fingerprint(),
            kind: feed.source.kind().to_string(),
            images: feed.rows(Split::Train),
            side: feed.side,
            batch: feed.batch_size,
            dtype: feed.dtype,
            chain: feed.chain.to_string(),
            counted: match length {
                Length::Seconds(_) => "seconds from the first batch".to_string(),
                Length::Epochs(_) => "whole epochs".to_string(),
            },
            settings,
        }
    }

    /// How another workload differs from this one, in one line; `None` where it does not.
    pub fn difference(&self, other: &Workload) -> Option<String> {
        let pixels = |work: &Workload| format!("{0}x{0} px", work.side);
        let other_settings = || {
            let keys = self.settings.keys().chain(other.settings.keys());
            let differs = |key: &&String| self.settings.get(*key) != other.settings.get(*key);
            let key = keys.into_iter().find(differs)?;
            let said =
                |work: &Workload| work.settings.get(key).map_or("none".to_string(), ToString::to_string);
            Some(format!("{key} {} there, {} here", said(other), said(self)))
        };
        let pairs = [
            ("", other.kind.clone(), self.kind.clone()),
            ("images of an epoch: ", other.images.to_string(), self.images.to_string()),
            ("size ", pixels(other), pixels(self)),
            ("batches of ", other.batch.to_string(), self.batch.to_string()),
            ("values of ", other.dtype.to_string(), self.dtype.to_string()),
            ("", other.chain.clone(), self.chain.clone()),
            ("", other.counted.clone(), self.counted.clone()),
        ];
        let differs = |(name, there, here): &(&str, String, String)| {
            (there != here).then(|| format!("{name}{there} there, {here} here"))
        };
        let other_images = (self.samples != other.samples).then(|| "the images are others".to_string());
        pairs.iter().find_map(differs).or(other_images).or_else(other_settings)
    }
}

/// Where a bench ran, and with which program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor, as the system calls it.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory that it may use, bytes; 0 where the system does not say.
    pub memory_bytes: u64,
    /// The system and its version.
    pub system: String,
    /// What the program was built for.
    pub target: String,
    /// Version and commit of the program, which fix those of all its libraries.
    pub forebay: String,
}

impl Machine {
    /// This one.
    pub fn here() -> Machine {
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = file("/proc/cpuinfo");
        let line = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let cpu = line.and_then(|line| line.split(':').nth(1)).map_or(std::env::consts::ARCH, str::trim);
        let release = file("/proc/sys/kernel/osrelease");
        let debug = if cfg!(debug_assertions) { ", not optimised" } else { "" };
        Machine {
            cpu: cpu.to_string(),
            cores: Rooms::cores(),
            memory_bytes: machine_bytes().unwrap_or(0),
            system: format!("{} {}", std::env::consts::OS, release.trim()).trim().to_string(),
            target: env!("FOREBAY_TARGET").to_string(),
            forebay: format!("{} ({}{debug})", env!("CARGO_PKG_VERSION"), env!("FOREBAY_COMMIT")),
        }
    }
}
