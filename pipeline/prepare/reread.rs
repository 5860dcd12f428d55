//! Shards read again, whole and in order, of which a piece is held at a time: a shard may be larger than the memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use forebay_datasets::store::Store;

use crate::flow::{Error, Run};
use crate::plan::Rooms;
use crate::report::{Bar, Unit};

/// What is read at once; as many are in flight as [`Rooms::piece`] says.
const PIECE_BYTES: u64 = 4 * 1024 * 1024;

/// A file to read.
pub(crate) struct Reread {
    pub key: String,
    /// How large it is.
    pub bytes: u64,
    /// How many bytes at its start have a checksum of their own.
    pub start: u64,
}

/// The blake3 checksums of a file of `bytes` bytes, in hexadecimal digits.
pub(crate) struct Checksums {
    pub bytes: u64,
    pub whole: String,
    pub start: String,
}

/// Part of a file. The parts of a file come one after the other.
struct FilePart {
    file: usize,
    from: u64,
    to: u64,
}

/// Reads `files` and returns the checksums of those that could be read to their ends, by their keys.
///
/// # Errors
/// When the store fails or the run ends.
pub(crate) async fn checksums(
    run: &Run,
    rooms: &Rooms,
    store: &Store,
    files: Vec<Reread>,
) -> Result<BTreeMap<String, Checksums>, Error> {
    if files.is_empty() {
        return Ok(BTreeMap::new());
    }
    let bar = Bar::begin("check", files.iter().map(|file| file.bytes).sum(), Unit::Bytes);
    let read = AtomicU64::new(0);
    let files = Arc::new(files);
    let (reader, known) = (store.clone(), files.clone());
    let summing = Mutex::new(Summing::default());
    let planned = files.clone();
    let pieces = (0..files.len()).flat_map(move |file| pieces(file, &planned[file]).collect::<Vec<_>>());
    let found = run
        .source("shards", pieces)
        .io("reread", rooms.piece(), move |piece: FilePart| {
            let (store, files) = (reader.clone(), known.clone());
            async move {
                match store.get_range(&files[piece.file].key, piece.from..piece.to).await {
                    Ok(bytes) => Ok((piece, Some(bytes))),
                    Err(error) if error.loses_only_this_object() => Ok((piece, None)),
                    Err(error) => Err(error.into()),
                }
            }
        })
        // One at a time and in order: it remembers the file that is open.
        .compute("checksum", rooms.shard(), {
            let files = files.clone();
            move |(piece, bytes)| {
                let mut summing = summing.lock().expect("no panic under the lock");
                let file = &files[piece.file];
                let bytes_read = piece.to - piece.from;
                bar.at(read.fetch_add(bytes_read, Ordering::Relaxed) + bytes_read);
                Ok(summing.push(file, &piece, bytes).map(|checksums| (file.key.clone(), checksums)))
            }
        })
        .collect()
        .await?;
    Ok(found.into_iter().flatten().collect())
}

/// A file is cut at its start's end too, so that the checksum of the start is that of whole pieces.
fn pieces(file: usize, reread: &Reread) -> impl Iterator<Item = FilePart> {
    let &Reread { bytes, start, .. } = reread;
    let start = start.min(bytes);
    let cuts = |from: u64, to: u64| {
        (from..to).step_by(PIECE_BYTES as usize).map(move |from| (from, (from + PIECE_BYTES).min(to)))
    };
    cuts(0, start).chain(cuts(start, bytes)).map(move |(from, to)| FilePart { file, from, to })
}

/// The file that is being summed up.
#[derive(Default)]
struct Summing {
    whole: blake3::Hasher,
    start: Option<String>,
    is_lost: bool,
}

impl Summing {
    /// Takes a piece, and gives the checksums of its file with the last one, where no piece is lost.
    fn push(&mut self, file: &Reread, piece: &FilePart, bytes: Option<Bytes>) -> Option<Checksums> {
        let bytes = bytes.filter(|bytes| bytes.len() as u64 == piece.to - piece.from);
        self.is_lost |= bytes.is_none();
        self.whole.update(&bytes.unwrap_or_default());
        if piece.to == file.start.min(file.bytes) {
            self.start = Some(self.whole.finalize().to_hex().to_string());
        }
        if piece.to < file.bytes {
            return None;
        }
        let Summing { whole, start, is_lost } = std::mem::take(self);
        let whole = whole.finalize().to_hex().to_string();
        // A start of no bytes has no piece.
        let start = start.unwrap_or_else(|| blake3::hash(&[]).to_hex().to_string());
        (!is_lost).then_some(Checksums { bytes: file.bytes, whole, start })
    }
}
