//! A network by itself: how fast this machine runs and trains it, and its outputs for given inputs.

use std::time::Instant;

use forebay_datasets::seed::Seed;
use forebay_stages::collate::Batch;
use forebay_stages::train::{Forward, Freeze, TrainError, TrainOptions, Trainer, WeightsReport, forward};
use serde::Serialize;

use crate::config::Config;
use crate::flow::{Error, Run};
use crate::usage::Usage;

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
    let integer = |key: &str| config.integer(key).expect("it has a default");
    let (arch, mode, frozen) =
        (arch(config)?, config.word("bench_model.mode"), config.word("bench_model.frozen"));
    let (batch, size) = (integer("bench_model.batch"), integer("bench_model.size"));
    let options = TrainOptions {
        weight_decay: 1e-4,
        freeze: if frozen == "backbone" { Freeze::Backbone } else { Freeze::None },
        ..TrainOptions::new(&arch, (0..1000).map(|class| class.to_string()).collect())
    };
    Trainer::check(&options, size as u32).map_err(Error::Usage)?;
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
            "step" => trainer.step(&noise).map(drop),
            _ => trainer.predict(&noise).map(drop),
        })
        .map_err(failed)
    };
    pass()?;
    let (before, start) = (Usage::now(), Instant::now());
    let mut seconds = Vec::new();
    while seconds.len() < 3
        || start.elapsed().as_secs_f64() < config.number("bench_model.seconds").unwrap_or(0.0)
    {
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
        writeln!(f, "  {:>10} peak memory", crate::plan::bytes_in_words(self.peak_memory_bytes))
    }
}

/// Runs a network over the tensors of a file, and writes what it computes to another.
///
/// # Errors
/// [`Error::Usage`] when a file is missing, or they do not belong together; others when the output cannot be written.
pub fn forward_files(run: &Run, config: &Config) -> Result<WeightsReport, Error> {
    let needed = |key: &str, flag: &str| {
        config.text(key).ok_or_else(|| Error::Usage(format!("forward needs {flag} FILE")))
    };
    let (weights, input, output) = (
        needed("forward.weights", "--weights")?,
        needed("forward.input", "--input")?,
        needed("forward.output", "--output")?,
    );
    let arch = arch(config)?;
    let read = |path: &str| {
        std::fs::read(path).map_err(|error| Error::Usage(format!("cannot read {path}: {error}")))
    };
    let (weights_bytes, input_bytes) = (read(&weights)?, read(&input)?);
    let what = Forward {
        train: config.word("forward.mode") == "train",
        gradients: config.is_on("forward.gradients"),
    };
    let done = run.install(|| forward(&arch, &weights_bytes, &input_bytes, what));
    let (bytes, report) = done.map_err(|error| match error {
        TrainError::File { what: "weights", source } => {
            Error::Usage(format!("cannot read {weights}: not a whole safetensors file: {source}"))
        }
        TrainError::File { source, .. } => {
            Error::Usage(format!("cannot read {input}: not a whole safetensors file: {source}"))
        }
        TrainError::Compute { source, what } => Error::Usage(format!("cannot {what} of {arch}: {source}")),
        other => Error::Usage(other.to_string()),
    })?;
    std::fs::write(&output, bytes).map_err(|error| Error::failed(format!("write {output}"), error))?;
    Ok(report)
}

fn arch(config: &Config) -> Result<String, Error> {
    config.text("arch").ok_or_else(|| {
        let known = forebay_stages::train::models::NAMES.join(", ");
        Error::Usage(format!("no ARCH given: one of {known}"))
    })
}
