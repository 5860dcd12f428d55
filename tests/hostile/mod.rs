//! Files that lie. Every reader of bytes that come from others meets mutations of small whole files: it must not panic,
//! hang, put into what it says what a terminal would obey, or take more memory than its limit.
//!
//! Readers are called by their public doors, in this one binary: so there is one mutator, one allocator that counts and
//! one table, and what is measured is what the program itself runs. `FOREBAY_MUTATIONS=100000` tries more.

mod measure;
mod mutate;
mod originals;
mod promises;
mod readers;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay_datasets::escape::is_printable;

pub(crate) use measure::measured;
use measure::{Measured, Watch};
use mutate::Mutator;
use readers::Reader;

/// What one file may take of a processor. Our own code is hardly optimised here.
const TIME_MAX: Duration = Duration::from_secs(2);

/// Kinds of faults that are shown for a reader.
const FAULTS_SHOWN: usize = 6;

/// What the files of one reader came to.
#[derive(Default)]
struct Row {
    accepted: usize,
    refused: usize,
    /// Of these, those where a library panicked and the reader made that an error.
    caught: BTreeMap<String, usize>,
    slowest: Duration,
    peak_bytes: u64,
    /// What a reader should not have done, with the number of files that did it and the first of them.
    faults: BTreeMap<String, (usize, usize)>,
}

impl Row {
    fn add(&mut self, number: usize, reader: &Reader, bytes: &[u8], measured: Measured<Result<(), String>>) {
        let Measured { result, time, peak_bytes } = measured;
        let mut fault = |what: String| self.faults.entry(what).or_insert((0, number)).0 += 1;
        if time > TIME_MAX {
            fault("takes longer than 2 s".to_string());
        }
        if peak_bytes > reader.bytes_max + reader.bytes_per_byte * bytes.len() as u64 {
            fault(format!("takes more than {} allows", reader.limit));
        }
        if let Ok(Err(line)) = &result
            && !is_printable(line)
        {
            fault(format!("says what a terminal obeys: {line:?}"));
        }
        match &result {
            Err(panic) => fault(format!("panics: {panic}")),
            Ok(Err(line)) if line.contains("panicked: ") => {
                // By what it says, without the numbers in it.
                let says = line.split("panicked: ").nth(1).unwrap_or_default();
                let says = says.replace(|c: char| c.is_ascii_digit(), "#");
                *self.caught.entry(says).or_default() += 1;
            }
            _ => {}
        }
        match result {
            Ok(Ok(())) => self.accepted += 1,
            _ => self.refused += 1,
        }
        self.slowest = self.slowest.max(time);
        self.peak_bytes = self.peak_bytes.max(peak_bytes);
    }
}

fn try_reader(reader: &Reader, mutations: usize, watch: &Watch) -> Row {
    // What is made once for all files is not a file's.
    let mut row = Row::default();
    for original in &reader.originals {
        match measured(|| (reader.read)(original)).result {
            Ok(Ok(())) => {}
            said => {
                row.faults.entry(format!("refuses what mutations begin with: {said:?}")).or_default().0 += 1
            }
        }
    }
    let mut mutator = Mutator::new(reader.name, &reader.originals, reader.is_text);
    for number in 0..mutations {
        let (mut bytes, repairs) = mutator.next();
        if repairs {
            bytes = (reader.repair)(&bytes);
        }
        watch.begin();
        let measured = measured(|| (reader.read)(&bytes));
        watch.end();
        row.add(number, reader, &bytes, measured);
    }
    row
}

#[test]
fn no_reader_of_the_bytes_of_others_panics_hangs_commands_a_terminal_or_takes_more_than_its_limit() {
    let mutations = std::env::var("FOREBAY_MUTATIONS").ok().map(|n| n.parse().expect("a number of files"));
    let mutations = mutations.unwrap_or(10_000);
    let only = std::env::var("FOREBAY_READER").ok();
    let mut readers = readers::all();
    readers.retain(|reader| only.as_ref().is_none_or(|only| reader.name.contains(only.as_str())));
    for reader in &readers {
        for original in &reader.originals {
            assert!(original.len() < 10_000, "{}: a small file is {} bytes", reader.name, original.len());
        }
    }
    let names: Vec<&str> = readers.iter().map(|reader| reader.name).collect();
    let waiting = Mutex::new(readers.into_iter().enumerate().rev().collect::<Vec<_>>());
    let done = Mutex::new(BTreeMap::new());
    let ended = AtomicBool::new(false);
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get()).min(4);
    let watches: Vec<(Watch, Mutex<&str>)> = (0..threads).map(|_| (Watch::new(), Mutex::new(""))).collect();
    std::thread::scope(|scope| {
        let workers: Vec<_> = watches
            .iter()
            .map(|(watch, name)| {
                let (waiting, done) = (&waiting, &done);
                scope.spawn(move || {
                    while let Some((place, reader)) = { waiting.lock().expect("no panic here").pop() } {
                        *name.lock().expect("no panic here") = reader.name;
                        let row = try_reader(&reader, mutations, watch);
                        done.lock().expect("no panic here").insert(place, (row, reader.limit));
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                watches.iter().for_each(|(watch, name)| watch.look(&name.lock().expect("no panic here")));
                std::thread::park_timeout(Duration::from_millis(200));
            }
        });
        let joined: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        ended.store(true, Ordering::Relaxed);
        joined.into_iter().for_each(|worker| worker.expect("the harness does not panic"));
    });
    let mut table = format!(
        "{:<26}{:>8}{:>10}{:>9}{:>8}{:>12}{:>10}  limit\n",
        "reader", "tried", "accepted", "refused", "caught", "slowest ms", "peak MiB"
    );
    let (mut faults, mut panics) = (String::new(), String::new());
    for (place, (row, limit)) in done.into_inner().expect("no panic here") {
        let Row { accepted, refused, caught, slowest, peak_bytes, faults: found } = row;
        for (says, n) in &caught {
            writeln!(panics, "{}: a library panicked {n} times, and that was an error: {says}", names[place])
                .expect("a string takes it");
        }
        let caught: usize = caught.values().sum();
        let (name, slowest) = (names[place], slowest.as_secs_f64() * 1e3);
        let peak = peak_bytes as f64 / f64::from(1 << 20);
        writeln!(
            table,
            "{name:<26}{mutations:>8}{accepted:>10}{refused:>9}{caught:>8}{slowest:>12.1}{peak:>10.2}  {limit}"
        )
        .expect("a string takes it");
        for (what, (n, first)) in found.iter().take(FAULTS_SHOWN) {
            let what: String = what.chars().take(300).collect();
            writeln!(faults, "{name}: {n} files, the first is number {first}: {what}")
                .expect("a string takes it");
        }
    }
    println!("{table}\n{panics}");
    let place = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(place).expect("cargo's own folder");
    std::fs::write(place.join("hostile.txt"), &table).expect("cargo's own folder");
    assert!(faults.is_empty(), "\n{faults}");
}
