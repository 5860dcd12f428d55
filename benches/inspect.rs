//! What does a look at an image cost beside decoding it? The facts that `inspect` keeps of an image may take at most 0.3 of
//! the processor time that decoding it takes.
//!
//! `FOREBAY_IMAGES=FOLDER cargo bench --bench inspect` measures the files below a folder, in turn with and without facts,
//! and prints the medians over nine rounds in milliseconds of processor time of one thread.

use std::path::{Path, PathBuf};

use forebay_datasets::sample::Encoded;
use forebay_datasets::seed::Seed;
use forebay_datasets::statistics::Channels;
use forebay_stages::decode::Decode;
use forebay_stages::facts::{FileFacts, PixelFacts};
use forebay_stages::fingerprint::Fingerprinting;
use forebay_stages::stage::Stage;

const ROUNDS: usize = 9;

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// Processor time of the process, milliseconds; there is one thread.
fn cpu_ms() -> f64 {
    let usage =
        nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).expect("it is known");
    let ms = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e3 + time.tv_usec() as f64 / 1e3;
    ms(usage.user_time()) + ms(usage.system_time())
}

fn main() {
    let Some(folder) = std::env::var_os("FOREBAY_IMAGES") else { return };
    let mut paths = Vec::new();
    files(Path::new(&folder), &mut paths);
    paths.sort();
    let images: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).expect("a file")).collect();
    let decode = Decode::default();
    let draws = Seed(0).draws("bench", 0, 0);
    let round = |looks: bool| {
        let before = cpu_ms();
        let mut channels = Channels::default();
        for bytes in &images {
            let encoded = Encoded { bytes: bytes.clone().into() };
            let Ok(pixels) = decode.apply(encoded, &draws) else { continue };
            if looks {
                std::hint::black_box((
                    FileFacts::of(bytes).is_ok(),
                    PixelFacts::of(&pixels),
                    blake3::hash(bytes),
                ));
                channels.add(&pixels.data);
                std::hint::black_box(Fingerprinting.apply(pixels, &draws).is_ok());
                continue;
            }
            std::hint::black_box(pixels);
        }
        std::hint::black_box(channels);
        cpu_ms() - before
    };
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (looks, times) in [false, true].into_iter().zip(&mut times) {
            times.push(round(looks));
        }
    }
    let [bare, looked] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    });
    let n = images.len();
    eprintln!("{n} images: decode {bare:.0} ms, with facts {looked:.0} ms, {:.3} times", looked / bare);
}
