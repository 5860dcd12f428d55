//! A bench for people.

use std::fmt::Write as _;

use super::{Benched, Measure};
use crate::options::bytes_in_words;

/// What was measured, where slot-time went, what bounds it.
pub(super) fn benched(location: &str, done: &Benched) -> String {
    let Benched { workload, machine, figures, repetitions, .. } = done;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{location} ({}), batches of {} at {}x{} px ({}), {} images an epoch",
        workload.kind, workload.batch, workload.side, workload.side, workload.dtype, workload.images
    );
    let _ = writeln!(
        text,
        "{}, {} of {} cores, forebay {}\n",
        machine.cpu, done.threads, machine.cores, machine.forebay
    );
    text += &stages(done);
    let _ = writeln!(text, "{}\n", done.verdict);
    let Measure { median, min, max } = figures.images_per_second;
    let seconds = done.seconds / repetitions.len() as f64;
    let times = match repetitions.len() {
        1 => format!("once {seconds:.1} s, which says nothing of the spread"),
        n => format!("{min:.0} to {max:.0}, {n} times {seconds:.1} s after a warm-up"),
    };
    let _ =
        writeln!(text, "{median:.0} images/s ({times}), first batch after {:.3} s", done.first_batch_seconds);
    let Measure { median, min, max } = figures.cpu_seconds_per_1000;
    let _ = writeln!(
        text,
        "{median:.3} CPU-seconds per 1000 images ({min:.3} to {max:.3}), {}/s read, peak memory {}",
        bytes_in_words((done.bytes_read as f64 / done.seconds) as u64),
        bytes_in_words(done.peak_memory_bytes)
    );
    text += &sweep(done);
    done.replay.iter().for_each(|replay| text += &replay.to_string());
    done.compare.iter().for_each(|compare| text += &compare.to_string());
    text
}

/// Where slot-time went, and what an image took in each stage.
fn stages(done: &Benched) -> String {
    let mut text = format!(
        "{:<10} {:>6} {:>9} {:>8} {:>8}  {:>9} {:>9}\n",
        "stage", "busy", "contended", "blocked", "starved", "ms/image", "alone"
    );
    for node in &done.stages {
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let time = done.stage_times.iter().find(|time| time.name == node.name);
        let in_flow = time.map_or_else(String::new, |time| format!("{:.3}", time.ms_in_flow));
        let alone = time.and_then(|time| time.ms_alone);
        let alone = alone.map_or_else(String::new, |alone| format!("{:.3}", alone.median));
        let line = format!(
            "{:<10} {:>6} {:>9} {:>8} {:>8}  {in_flow:>9} {alone:>9}",
            node.name,
            percent(node.busy),
            percent(node.contended),
            percent(node.blocked),
            percent(node.starved)
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// How the rate grows with threads.
fn sweep(done: &Benched) -> String {
    let mut text = String::new();
    let first = done.sweep.first().map_or(1.0, |point| point.figures.images_per_second.median);
    for point in &done.sweep {
        let Measure { median, min, max } = point.figures.images_per_second;
        let threads = match point.threads {
            1 => " 1 thread ".to_string(),
            n => format!("{n:>2} threads"),
        };
        let _ = writeln!(
            text,
            "{threads} {median:>8.0} images/s ({min:.0} to {max:.0}), {:.2} times one thread, {:.3} CPU-seconds per 1000",
            median / first,
            point.figures.cpu_seconds_per_1000.median
        );
    }
    text
}
