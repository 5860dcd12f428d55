//! What memory is taken: by a weights file, at most 64 MiB beyond its own size before it is refused, whatever it holds; by
//! a predictor, no more for many images than for a micro-batch of them.
//!
//! A program of its own, because the allocator is that of a whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use forebay_stages::chain::Chain;
use forebay_stages::collate::Batch;
use forebay_stages::normalize::Normalize;
use forebay_train::models::Head;
use forebay_train::{Predictor, TrainOptions, Trainer};

/// Counts what is allocated at a time.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn take(bytes: usize) {
    let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(held, Ordering::Relaxed);
}

#[allow(unsafe_code, reason = "an allocator has no other form; each call goes to the system's as it is")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One measurement at a time.
/// What is allocated at the most while `work` runs, beyond what is there before it, in bytes.
fn taken<R>(work: impl FnOnce() -> R) -> (R, usize) {
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let done = work();
    (done, PEAK.load(Ordering::Relaxed).saturating_sub(before))
}

const MOST_MIB: usize = 63;

/// An archive with these files, as `torch.save` lays them out.
fn archive(files: &[(String, &[u8])]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in files {
        let at = bytes.len() as u32;
        let mut shared = [0u8; 26];
        for place in [14, 18] {
            shared[place..place + 4].copy_from_slice(&(data.len() as u32).to_le_bytes());
        }
        shared[22..24].copy_from_slice(&(name.len() as u16).to_le_bytes());
        bytes.extend_from_slice(b"PK\x03\x04");
        bytes.extend_from_slice(&shared);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(data);
        directory.extend_from_slice(b"PK\x01\x02\0\0");
        directory.extend_from_slice(&shared);
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&at.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let at = bytes.len() as u32;
    // The number of files stands in a record for large archives.
    let record = bytes.len() + directory.len();
    bytes.extend_from_slice(&directory);
    let mut large = b"PK\x06\x06".to_vec();
    large.resize(32, 0);
    large.extend_from_slice(&(files.len() as u64).to_le_bytes());
    large.extend_from_slice(&(directory.len() as u64).to_le_bytes());
    large.extend_from_slice(&u64::from(at).to_le_bytes());
    bytes.extend_from_slice(&large);
    bytes.extend_from_slice(b"PK\x06\x07\0\0\0\0");
    bytes.extend_from_slice(&(record as u64).to_le_bytes());
    bytes.extend_from_slice(&[1, 0, 0, 0]);
    bytes.extend_from_slice(b"PK\x05\x06");
    bytes.extend_from_slice(&[0xff; 16]);
    bytes.extend_from_slice(&[0, 0]);
    bytes
}

fn pickled(pickle: &[u8]) -> Vec<u8> {
    archive(&[("a/data.pkl".to_owned(), pickle), ("a/data/0".to_owned(), &[0; 1024])])
}

/// What `torch.save` wrote before 1.6, with this as the pickle of the state dict.
fn legacy(pickle: &[u8]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".as_slice();
    [magic, b"M\xe9\x03.", b"}.", pickle, b"]."].concat()
}

/// A state dict of `n` tensors that each show one value of a storage very often.
fn expanded(n: usize, side: u32) -> Vec<u8> {
    let mut pickle = b"}(".to_vec();
    for tensor in 0..n {
        let name = format!("tensor{tensor:06}");
        pickle.extend_from_slice(b"X\x0c\0\0\0");
        pickle.extend_from_slice(name.as_bytes());
        pickle.extend_from_slice(b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQK\0J");
        pickle.extend_from_slice(&side.to_le_bytes());
        pickle.extend_from_slice(b"\x85K\0\x85\x89}tR");
    }
    pickle.extend_from_slice(b"u.");
    pickle
}

fn safetensors(header: &str) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat()
}

/// The allocator counts for the whole process: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn no_file_takes_more_than_64_mib_beyond_its_size() {
    let _alone = alone();
    let repeat = |start: &[u8], one: &[u8], bytes: usize| [start, &one.repeat(bytes / one.len())].concat();
    const LARGE: usize = 60 << 20;
    let list = repeat(b"](", b"K\x01K\x02\x86", 500_000);
    let many_dicts = [list.as_slice(), b"e\x85q\0"].concat();
    let ordered = repeat(&many_dicts, b"ccollections\nOrderedDict\nh\0R", 2 << 20);
    let shapes =
        format!(r#"{{"w":{{"dtype":"F32","shape":[{}0],"data_offsets":[0,0]}}}}"#, "1,".repeat(LARGE / 2));
    let entries: String = (0..400_000)
        .map(|n| format!(r#""{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}},"#))
        .collect();
    let entries = format!("{{{}}}", entries.trim_end_matches(','));
    let names: Vec<(String, &[u8])> = (0..400_000).map(|n| (format!("a/{n}"), &[][..])).collect();
    let long_key = |n: u32| [b"X".as_slice(), &n.to_le_bytes(), &vec![b'k'; n as usize]].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("memoize", pickled(&repeat(b"N", b"\x94", LARGE))),
        ("memoize, legacy", legacy(&repeat(b"N", b"\x94", 200 << 20))),
        (
            "put under every key",
            legacy(&{
                let keys = (0..8u32 << 20).flat_map(|key| [&b"r"[..], &key.to_le_bytes()].concat());
                [b"N".to_vec(), keys.collect()].concat()
            }),
        ),
        ("get", legacy(&repeat(b"Nq\0", b"h\0", 100 << 20))),
        ("duplicate", pickled(&repeat(b"N", b"2", LARGE))),
        ("marks", pickled(&repeat(b"", b"(", LARGE))),
        ("none", legacy(&repeat(b"", b"N", 100 << 20))),
        ("empty tuples", pickled(&repeat(b"", b")", LARGE))),
        ("empty dicts", pickled(&repeat(b"", b"}", LARGE))),
        ("tuples in each other", pickled(&repeat(b")", b"\x85", LARGE))),
        ("floats", pickled(&repeat(b"", b"G\0\0\0\0\0\0\0\0", LARGE))),
        ("names of classes", pickled(&repeat(b"", b"ca\nb\n", LARGE))),
        ("appended", pickled(&repeat(b"]q\0Nq\x010h\0", b"h\x01a", LARGE))),
        ("appended at once", pickled(&repeat(b"](", b"N", LARGE))),
        ("one list for many dicts", pickled(&ordered)),
        (
            "a text of the whole file",
            pickled(&[b"}".to_vec(), long_key(LARGE as u32), b"Ns.".to_vec()].concat()),
        ),
        ("expanded views", pickled(&expanded(20_000, 300))),
        ("one expanded view", pickled(&expanded(1, 60_000))),
        ("a shape of many sides", safetensors(&shapes)),
        ("many tensors", safetensors(&entries)),
        ("many files", archive(&names)),
    ];
    for (what, file) in cases {
        let (loaded, bytes) =
            taken(|| Predictor::load("small", &Head::linear(2), &file, Chain::of_pixels(Normalize::UNIT)));
        let line = loaded.expect_err("no weights").to_string();
        assert!(line.len() < 1000, "{what}: a line of {} bytes", line.len());
        let (taken, size) = (bytes >> 20, file.len() >> 20);
        assert!(taken <= MOST_MIB, "{what}: {taken} MiB beyond a file of {size} MiB: {line}");
    }
}

#[test]
fn a_micro_batch_bounds_what_a_prediction_takes() {
    let _alone = alone();
    let classes = ["a", "b"].map(String::from).to_vec();
    let predictor = Trainer::new(&TrainOptions::new("small", classes)).expect("a network").predictor();
    // Enough of them that what a convolution packs for itself, whatever the batch, is little.
    let (n, side) = (512, 32);
    let images = vec![7; n * 3 * side * side].into();
    let batch = Batch { images, labels: vec![0; n], ids: vec![], side: side as u32 };
    // Buffers that threads keep are made first.
    predictor.predict(&batch).expect("logits");
    let (_, whole) = taken(|| predictor.predict(&batch).expect("logits"));
    let small = predictor.with_micro_batch(Some(4));
    let (_, cut) = taken(|| small.predict(&batch).expect("logits"));
    assert!(cut * 4 < whole, "{cut} bytes in parts of 4 images, {whole} for all {n}");
}
