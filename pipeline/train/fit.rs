//! Whether a step fits in memory, found out before the first one: a run that would end after an hour ends in its first
//! second, or takes its batches in parts.

use std::fs;

use forebay_stages::collate::Batch;
use forebay_train::{DeviceKind, TrainError, Trainer};

use super::{TrainPlan, train_error};
use crate::flow::{Error, Run};
use crate::options::bytes_in_words;

/// The two trial sizes, in images, from which the memory of a whole step is extrapolated.
const FEW: usize = 2;
const MORE: usize = 6;
/// The share of the free memory that micro-batches are made to take.
const SHARE: f64 = 0.8;

/// Makes the micro-batches of `trainer` as large as memory allows where the run leaves that open, and says so.
///
/// # Errors
/// When a step does not fit.
pub(super) fn fit(
    run: &Run,
    plan: &TrainPlan,
    trainer: &mut Trainer,
    batch: &Batch,
) -> Result<Option<String>, Error> {
    let asked = trainer.micro_batch().unwrap_or(batch.len()).min(batch.len());
    let mut rehearse = |images: usize| {
        let done = run.install(|| trainer.rehearse(batch, images));
        match done {
            Ok(()) => Ok(true),
            Err(TrainError::OutOfMemory { .. }) if plan.fits_micro_batch && images > 2 => Ok(false),
            Err(error) => Err(train_error("rehearse a step", error)),
        }
    };
    let (images, why) = match plan.options.device {
        DeviceKind::Cuda(_) => {
            let mut images = asked;
            while !rehearse(images)? {
                images = images.div_ceil(2);
            }
            (images, "more did not fit on the device".to_string())
        }
        DeviceKind::Cpu if asked <= MORE => return Ok(None),
        DeviceKind::Cpu => {
            let Some(free) = free_bytes() else { return Ok(None) };
            let Some(before) = status_bytes("VmRSS") else { return Ok(None) };
            let mut peak = |images| {
                // Linux forgets the peak so far, and counts anew.
                fs::write("/proc/self/clear_refs", "5").ok();
                rehearse(images)?;
                Ok::<_, Error>(status_bytes("VmHWM").unwrap_or(before).saturating_sub(before))
            };
            let (few, more) = (peak(FEW)?, peak(MORE)?);
            let (needed, most) = estimate(few, more, asked, free);
            if needed <= free {
                return Ok(None);
            }
            let why = format!(
                "{asked} would take about {}, and {} are free",
                bytes_in_words(needed),
                bytes_in_words(free)
            );
            if !plan.fits_micro_batch {
                return Err(Error::Usage(format!(
                    "train.batch_size: of the images in a step {why}: give --micro-batch auto or {most}, or a smaller \
                     --batch-size or --size"
                )));
            }
            (most, why)
        }
    };
    if images == asked {
        return Ok(None);
    }
    trainer.set_micro_batch(Some(images));
    Ok(Some(format!("micro-batches of {images} images: {why}")))
}

/// What a step with `images` images takes, told from what one with [`FEW`] and one with [`MORE`] took, and how many fit.
fn estimate(few: u64, more: u64, images: usize, free: u64) -> (u64, usize) {
    let each = more.saturating_sub(few) as f64 / (MORE - FEW) as f64;
    let needed = more as f64 + each * images.saturating_sub(MORE) as f64;
    let most = MORE as f64 + (SHARE * free as f64 - more as f64) / each.max(1.0);
    (needed as u64, (most.max(2.0) as usize).min(images))
}

/// A line of `/proc/self/status`, in bytes; `None` on other systems than Linux.
fn status_bytes(name: &str) -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, name)
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// What the system, or the control group that this process is in, has left.
fn free_bytes() -> Option<u64> {
    let system = kibibytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable")?;
    let number =
        |name: &str| fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse::<u64>().ok();
    let group =
        number("memory.max").zip(number("memory.current")).map(|(most, now)| most.saturating_sub(now));
    Some(group.map_or(system, |group| group.min(system)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_extrapolated_from_two_trials() {
        // 100 whatever the batch, and 10 for each image.
        assert_eq!(estimate(120, 160, 64, 10_000), (740, 64));
        assert_eq!(estimate(120, 160, 64, 500), (740, 30));
        assert_eq!(estimate(120, 160, 64, 10), (740, 2));
        assert_eq!(estimate(120, 120, 64, 500), (120, 64));
    }

    #[test]
    fn lines_of_proc_are_read() {
        let text = "VmPeak:\t  100 kB\nVmRSS:\t   2048 kB\n";
        assert_eq!((kibibytes(text, "VmRSS"), kibibytes(text, "VmHWM")), (Some(2048 * 1024), None));
    }
}
