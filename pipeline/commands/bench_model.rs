//! `forebay bench model`: how fast this machine runs and trains a network.

use std::time::Instant;

use forebay_datasets::seed::Seed;
use forebay_stages::collate::Batch;
use forebay_train::{Freeze, TrainError, TrainOptions, Trainer};
use serde::Serialize;

use crate::flow::{Error, Run};
use crate::options::{BenchFrozen, Config, Invocation, ModelPass, bytes_in_words};
use crate::plan::{Rooms, side_of};
use crate::report::{Usage, say, say_json};

/// What the bench of a network measured.
#[derive(Clone, Debug, Serialize)]
pub struct ModelBenched {
    /// The network.
    pub arch: String,
    /// `forward` or `step`.
    pub mode: String,
    /// Images per pass.
    pub batch: u64,
    /// Side of the images, in pixels.
    pub size: u64,
    /// What a step did not train.
    pub frozen: String,
    /// Threads of the pool.
    pub threads: usize,
    /// Passes that were measured.
    pub passes: u64,
    /// Images per second of wall time, the median of the passes.
    pub images_per_second: f64,
    /// Processor time per 1000 images, user and system, over all passes.
    pub cpu_seconds_per_1000: f64,
    /// The largest resident set of the process.
    pub peak_memory_bytes: u64,
}

/// Runs a network on random weights and noise.
///
/// # Errors
/// [`Error::Usage`] when the images are too small for the network.
pub fn bench(run: &Run, config: &Config, threads: usize) -> Result<ModelBenched, Error> {
    let integer = |key: &str| config.whole(key);
    let arch = arch(config)?;
    let mode: ModelPass = config.choice("bench_model.mode");
    let frozen: BenchFrozen = config.choice("bench_model.frozen");
    let batch = integer("bench_model.batch");
    let size = config.integer("bench_model.size").unwrap_or_else(|| u64::from(side_of(&arch)));
    let options = TrainOptions {
        weight_decay: 1e-4,
        freeze: match frozen {
            BenchFrozen::None => Freeze::None,
            BenchFrozen::Backbone => Freeze::Backbone,
        },
        ..TrainOptions::new(&arch, (0..1000).map(|class| class.to_string()).collect())
    };
    Trainer::check(&options, size as u32).map_err(Error::Plan)?;
    let failed = |error: TrainError| match error {
        TrainError::Compute { source, .. } => Error::Usage(format!("{arch} at {size} pixels: {source}")),
        other => Error::Usage(other.to_string()),
    };
    let mut stream = Seed(1).stream("noise");
    let images = batch as usize;
    let noise = Batch {
        images: (0..images * 3 * (size * size) as usize).map(|_| stream.bits() as u8).collect(),
        labels: (0..images).map(|image| (image % 1000) as u32).collect(),
        ids: (0..images).map(|image| image.to_string().into()).collect(),
        side: size as u32,
    };
    let mut trainer = run.install(|| Trainer::new(&options)).map_err(failed)?;
    let mut pass = || {
        run.install(|| match mode {
            ModelPass::Step => trainer.step(&noise).map(drop),
            ModelPass::Forward => trainer.predictor().predict(&noise).map(drop),
        })
        .map_err(failed)
    };
    pass()?;
    let (before, start) = (Usage::now(), Instant::now());
    let mut seconds = Vec::new();
    while seconds.len() < 3 || start.elapsed().as_secs_f64() < config.real("bench_model.seconds") {
        let start = Instant::now();
        pass()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    let after = Usage::now();
    seconds.sort_by(f64::total_cmp);
    let passes = seconds.len() as u64;
    Ok(ModelBenched {
        mode: mode.to_string(),
        batch,
        size,
        frozen: frozen.to_string(),
        threads,
        passes,
        images_per_second: batch as f64 / seconds[seconds.len() / 2],
        cpu_seconds_per_1000: (after.cpu_seconds - before.cpu_seconds) / (passes * batch) as f64 * 1000.0,
        peak_memory_bytes: after.peak_memory_bytes,
        arch,
    })
}

impl std::fmt::Display for ModelBenched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let frozen = if self.frozen == "none" { String::new() } else { format!(", frozen {}", self.frozen) };
        writeln!(
            f,
            "{} {}, batches of {} at {}x{} px, {} threads{frozen}",
            self.arch, self.mode, self.batch, self.size, self.size, self.threads
        )?;
        writeln!(f, "  {:>10.1} images/s (median of {} passes)", self.images_per_second, self.passes)?;
        writeln!(f, "  {:>10.2} CPU-seconds per 1000 images", self.cpu_seconds_per_1000)?;
        writeln!(f, "  {:>10} peak memory", bytes_in_words(self.peak_memory_bytes))
    }
}

/// Runs the command.
///
/// # Errors
/// The first error of the run.
pub fn run(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let done = bench(run, &asked.config, Rooms::of(&asked.config).threads)?;
    match asked.json {
        true => say_json(&done),
        false => say(&done.to_string()),
    }
    Ok(())
}

/// The network that is asked for.
pub(super) fn arch(config: &Config) -> Result<String, Error> {
    config.text("arch").ok_or_else(|| {
        let known = forebay_train::models::NAMES.join(", ");
        Error::Usage(format!("no ARCH given: one of {known}"))
    })
}
