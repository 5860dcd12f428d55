//! A folder of this machine that keeps objects of buckets and web servers: never larger than its limit, whatever number of
//! processes share it.
//!
//! An object is one file: its bytes, a CRC-32C of each 256 KiB of them, and their number. It is written beside its place
//! and renamed, and compared with its sums whenever a part of it is read. The least recently used give way. A file under way
//! is reserved with its whole size under the lock of the folder, and locked by its writer: what nobody locks any more is
//! left of a process that was killed, and goes.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

/// Where objects are kept, and how many bytes they may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// The folder; made where it is missing.
    pub folder: PathBuf,
    /// The most bytes that it may take.
    pub bytes_max: u64,
}

/// Bytes that have a sum of their own.
const CHUNK_BYTES: usize = 256 << 10;

/// The number of bytes, the sum of the sums, and what files of this form begin their end with.
const END_BYTES: usize = 8 + 4 + MARK.len();
const MARK: &[u8; 8] = b"fbcache1";

/// A use is noted when the last one is longer ago.
const NOTED_AFTER: Duration = Duration::from_secs(10);

/// The folder.
#[derive(Debug)]
pub(super) struct DiskCache {
    objects: PathBuf,
    bytes_max: u64,
}

/// Why an object is not kept.
#[derive(Debug)]
pub(super) enum NoRoom {
    /// It is larger than the limit.
    TooLarge,
    /// What others bring right now takes all of it.
    Busy,
    /// The folder cannot be written.
    Io(io::Error),
}

impl From<io::Error> for NoRoom {
    fn from(error: io::Error) -> NoRoom {
        NoRoom::Io(error)
    }
}

/// An object on its way into the cache. Dropped before its end, it leaves nothing.
#[derive(Debug)]
pub(super) struct Filling {
    file: File,
    path: PathBuf,
    objects: PathBuf,
    sums: Vec<u8>,
    /// Of the chunk that is being written.
    chunk_bytes: usize,
    chunk_sum: u32,
    bytes: u64,
    expected: u64,
}

/// What is behind the name of the folder in that of the file with the total. Once it was `total`, which held the lengths of
/// the files.
const TOTAL: &str = "taken";

/// How long the file of an object is.
fn file_bytes(bytes: u64) -> u64 {
    bytes + bytes.div_ceil(CHUNK_BYTES as u64) * 4 + END_BYTES as u64
}

/// A disk gives files whole blocks: of usual file systems, of so many bytes.
const BLOCK_BYTES: u64 = 4 << 10;

/// What a file of this length takes of the disk.
fn taken(file_bytes: u64) -> u64 {
    file_bytes.next_multiple_of(BLOCK_BYTES)
}

impl DiskCache {
    /// Makes the folder where it is missing, and lets the least recently used go where there is more than the limit allows.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn open(options: &CacheOptions) -> io::Result<DiskCache> {
        let objects = options.folder.join("objects");
        fs::create_dir_all(&objects)?;
        let cache = DiskCache { objects, bytes_max: options.bytes_max };
        // Without a lock it is only looked at: whoever only reads may find the folder read-only.
        if cache.total().is_none_or(|total| total > cache.bytes_max) {
            let _lock = lock(&cache.objects)?;
            let total = cache.make_room(0)?;
            cache.note_total(total)?;
        }
        Ok(cache)
    }

    /// The limit, in bytes.
    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// An object of so many bytes, or a part of it; `None` where it is not there whole and undamaged.
    pub(super) fn read(&self, id: &str, range: Option<&Range<u64>>, bytes: u64) -> Option<Bytes> {
        let path = self.objects.join(id);
        let mut file = File::open(&path).ok()?;
        let found = read_checked(&mut file, range, bytes);
        if found.is_none() {
            let _ = fs::remove_file(&path);
            return None;
        }
        let last_used = file.metadata().and_then(|metadata| metadata.modified()).ok();
        if last_used.and_then(|time| time.elapsed().ok()).is_none_or(|since| since > NOTED_AFTER) {
            // One that cannot be noted goes a little earlier.
            let _ = file.set_modified(SystemTime::now());
        }
        found
    }

    /// Makes room for an object of so many bytes.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn begin(&self, bytes: u64) -> Result<Filling, NoRoom> {
        static N: AtomicU64 = AtomicU64::new(0);
        let needed = taken(file_bytes(bytes));
        if needed > self.bytes_max {
            return Err(NoRoom::TooLarge);
        }
        let lock = lock(&self.objects)?;
        let total = self.total().filter(|total| total.saturating_add(needed) <= self.bytes_max);
        let total = match total {
            Some(total) => total,
            None => self.make_room(needed)?,
        };
        if total.saturating_add(needed) > self.bytes_max {
            return Err(NoRoom::Busy);
        }
        let name = format!("{}-{}.part", std::process::id(), N.fetch_add(1, Ordering::Relaxed));
        let path = self.objects.join(name);
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&path)?;
        file.lock()?;
        let filling = Filling {
            file,
            path,
            objects: self.objects.clone(),
            sums: Vec::new(),
            chunk_bytes: 0,
            chunk_sum: 0,
            bytes: 0,
            expected: bytes,
        };
        filling.file.set_len(file_bytes(bytes))?;
        self.note_total(total + needed)?;
        drop(lock);
        Ok(filling)
    }

    /// What all files take of the disk at most; `None` where nobody knows.
    fn total(&self) -> Option<u64> {
        fs::read_to_string(beside(&self.objects, TOTAL)).ok()?.trim().parse().ok()
    }

    fn note_total(&self, total: u64) -> io::Result<()> {
        fs::write(beside(&self.objects, TOTAL), total.to_string())
    }

    /// Counts what is there, and lets the least recently used go until there is room, and a little more, so that not every
    /// object has to count anew. Gives what is left.
    fn make_room(&self, needed: u64) -> io::Result<u64> {
        let mut kept: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        let mut total = 0;
        for entry in fs::read_dir(&self.objects)? {
            let path = entry?.path();
            // It may be gone by now.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            if is_part(&path) {
                match File::open(&path).map(|file| file.try_lock()) {
                    Ok(Err(TryLockError::WouldBlock)) => total += taken(metadata.len()),
                    // Nobody writes it any more; whoever gave it up may have deleted it by now.
                    Ok(_) => match fs::remove_file(&path) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => {
                            total += taken(metadata.len())
                        }
                        _ => {}
                    },
                    Err(_) => {}
                }
            } else if is_object(&path) {
                let bytes = taken(metadata.len());
                total += bytes;
                kept.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), bytes, path));
            }
        }
        kept.sort();
        let enough = (self.bytes_max - self.bytes_max / 16).max(needed);
        for (_, bytes, path) in kept {
            if total + needed <= enough {
                break;
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => total -= bytes,
            }
        }
        Ok(total)
    }
}

fn beside(objects: &Path, name: &str) -> PathBuf {
    objects.with_file_name(format!("objects.{name}"))
}

/// Waits for the lock of the folder, under which files are counted, begin, get their names and go.
fn lock(objects: &Path) -> io::Result<File> {
    let lock = File::options().create(true).append(true).open(beside(objects, "lock"))?;
    lock.lock()?;
    Ok(lock)
}

fn is_part(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "part")
}

/// Whether a file is called as objects are: nothing else is counted or deleted.
fn is_object(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The range of a file of the cache, where its sums say that it is right.
fn read_checked(file: &mut File, range: Option<&Range<u64>>, bytes: u64) -> Option<Bytes> {
    if file.metadata().ok()?.len() != file_bytes(bytes) {
        return None;
    }
    let n_chunks = bytes.div_ceil(CHUNK_BYTES as u64) as usize;
    let mut end = vec![0; n_chunks * 4 + END_BYTES];
    file.seek(SeekFrom::Start(bytes)).ok()?;
    file.read_exact(&mut end).ok()?;
    let (sums, end) = end.split_at(n_chunks * 4);
    if end != seal(bytes, sums) {
        return None;
    }
    let range = range.cloned().unwrap_or(0..bytes);
    let (start, until) = (range.start.min(bytes), range.end.min(bytes));
    if start >= until {
        return Some(Bytes::new());
    }
    let chunk = CHUNK_BYTES as u64;
    let (first, last) = (start / chunk, until.div_ceil(chunk));
    let mut read = vec![0; ((last * chunk).min(bytes) - first * chunk) as usize];
    file.seek(SeekFrom::Start(first * chunk)).ok()?;
    file.read_exact(&mut read).ok()?;
    let sums = sums[first as usize * 4..last as usize * 4].chunks_exact(4);
    let is_right = |(chunk, sum): (&[u8], &[u8])| crc32c::crc32c(chunk).to_le_bytes() == sum;
    let is_whole = read.chunks(CHUNK_BYTES).zip(sums).all(is_right);
    let skipped = (start - first * chunk) as usize;
    is_whole.then(|| Bytes::from(read).slice(skipped..skipped + (until - start) as usize))
}

/// The end of a file with these sums.
fn seal(bytes: u64, sums: &[u8]) -> Vec<u8> {
    let length = bytes.to_le_bytes();
    let sum = crc32c::crc32c_append(crc32c::crc32c(sums), &length).to_le_bytes();
    [&length[..], &sum, MARK].concat()
}

impl Filling {
    /// Adds bytes at the end.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.expected {
            return Err(io::Error::other("more bytes come than were announced"));
        }
        self.file.write_all(bytes)?;
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.chunk_bytes));
            self.chunk_sum = crc32c::crc32c_append(self.chunk_sum, now);
            self.chunk_bytes += now.len();
            if self.chunk_bytes == CHUNK_BYTES {
                self.end_chunk();
            }
            bytes = rest;
        }
        Ok(())
    }

    fn end_chunk(&mut self) {
        self.sums.extend_from_slice(&self.chunk_sum.to_le_bytes());
        (self.chunk_bytes, self.chunk_sum) = (0, 0);
    }

    /// Puts the object in its place, whole.
    pub(super) fn finish(mut self, id: &str) -> io::Result<()> {
        if self.bytes != self.expected {
            return Err(io::Error::other("fewer bytes came than were announced"));
        }
        if self.chunk_bytes > 0 {
            self.end_chunk();
        }
        let sums = std::mem::take(&mut self.sums);
        self.file.write_all(&sums)?;
        self.file.write_all(&seal(self.bytes, &sums))?;
        // Whoever counts meanwhile would see it under neither name, or under both.
        let _lock = lock(&self.objects)?;
        fs::rename(&self.path, self.objects.join(id))
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        // After `finish` it is called otherwise.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> String {
        format!("{n:064x}")
    }

    fn cache(folder: &Path, bytes_max: u64) -> DiskCache {
        DiskCache::open(&CacheOptions { folder: folder.to_path_buf(), bytes_max }).expect("opens")
    }

    fn put(cache: &DiskCache, n: u8, bytes: &[u8]) {
        let mut filling = cache.begin(bytes.len() as u64).expect("room");
        bytes.chunks(100_000).for_each(|piece| filling.write(piece).expect("room"));
        filling.finish(&id(n)).expect("room");
    }

    fn size(folder: &Path) -> u64 {
        let files = fs::read_dir(folder.join("objects")).expect("a folder");
        files.map(|file| taken(file.expect("a file").metadata().expect("it").len())).sum()
    }

    #[test]
    fn what_was_put_is_read_whole_and_in_parts() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = cache(folder.path(), 4 << 20);
        for (n, length) in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 7].into_iter().enumerate() {
            let bytes: Vec<u8> = (0..length).map(|at| (at * 31 + n) as u8).collect();
            put(&cache, n as u8, &bytes);
            let read = |range: Option<Range<u64>>| cache.read(&id(n as u8), range.as_ref(), length as u64);
            assert_eq!(read(None).expect("it is there"), bytes);
            for range in [0..1, 5..length as u64, 200_000..600_000, length as u64..length as u64 + 9] {
                let (from, to) = (length.min(range.start as usize), length.min(range.end as usize));
                assert_eq!(
                    read(Some(range)).expect("it is there"),
                    bytes[from..to.max(from)],
                    "{from}..{to}"
                );
            }
            assert!(cache.read(&id(n as u8), None, length as u64 + 1).is_none(), "of another size");
        }
        assert!(cache.read(&id(99), None, 1).is_none());
    }

    #[test]
    fn a_damaged_object_is_not_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = cache(folder.path(), 4 << 20);
        let bytes = vec![7; CHUNK_BYTES + 10];
        let path = folder.path().join("objects").join(id(1));
        put(&cache, 1, &bytes);
        let whole = fs::read(&path).expect("the file");
        for at in [0, CHUNK_BYTES, CHUNK_BYTES + 9, CHUNK_BYTES + 10, whole.len() - 20, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).expect("room");
            assert!(cache.read(&id(1), None, bytes.len() as u64).is_none(), "byte {at}");
            assert!(!path.exists(), "it makes room for the right one");
        }
        fs::write(&path, &whole[..whole.len() - 1]).expect("room");
        assert!(cache.read(&id(1), None, bytes.len() as u64).is_none());
    }

    #[test]
    fn the_least_recently_used_give_way_and_the_limit_holds() {
        /// Four blocks, each of which a small object takes whole, and not quite a fifth.
        const LIMIT: u64 = 5 * BLOCK_BYTES - 1;
        let folder = tempfile::tempdir().expect("a folder");
        let cache = cache(folder.path(), LIMIT);
        fs::write(folder.path().join("objects/mine.txt"), "of somebody else").expect("room");
        let old = |n: u8, seconds| {
            let file = File::options().write(true).open(folder.path().join("objects").join(id(n)));
            let time = SystemTime::now() - Duration::from_secs(seconds);
            file.expect("it is there").set_modified(time).expect("a time");
        };
        for n in 1..=4 {
            put(&cache, n, &[n; 2000]);
            old(n, 1000 - u64::from(n));
        }
        assert!(cache.read(&id(1), None, 2000).is_some(), "now it is the one used last");
        for n in 5..=20 {
            put(&cache, n, &[n; 2000]);
            assert!(size(folder.path()) - BLOCK_BYTES <= LIMIT, "{}", size(folder.path()));
            if n == 5 {
                assert!(cache.read(&id(1), None, 2000).is_some() && cache.read(&id(2), None, 2000).is_none());
            }
        }
        assert!(matches!(cache.begin(LIMIT), Err(NoRoom::TooLarge)));
        put(&cache, 30, &[1; 16_000]);
        assert!(cache.read(&id(30), None, 16_000).is_some() && size(folder.path()) - BLOCK_BYTES <= LIMIT);
        assert!(folder.path().join("objects/mine.txt").exists());
    }

    #[test]
    fn what_is_under_way_counts_and_what_a_killed_process_left_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cache, other) = (cache(folder.path(), 12_288), cache(folder.path(), 12_288));
        let filling = cache.begin(6000).expect("room");
        assert!(matches!(other.begin(6000), Err(NoRoom::Busy)));
        assert!(size(folder.path()) >= 6000, "it is reserved");
        drop(filling);
        fs::write(folder.path().join("objects/123-4.part"), vec![0; 6000]).expect("room");
        drop(other.begin(6000).expect("nobody locks it"));
        assert_eq!(size(folder.path()), 0);
        // Where nobody knows what there is, it is counted.
        fs::remove_file(folder.path().join("objects.taken")).expect("it is there");
        put(&cache, 1, &[1; 6000]);
        fs::write(folder.path().join("objects.taken"), "none").expect("room");
        put(&cache, 2, &[1; 6000]);
        assert!(cache.read(&id(1), None, 6000).is_none() && cache.read(&id(2), None, 6000).is_some());
    }

    #[test]
    fn small_objects_take_a_block_each_and_a_smaller_limit_holds_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let large = cache(folder.path(), 1 << 20);
        for n in 1..=50 {
            put(&large, n, &[n; 900]);
        }
        assert_eq!(size(folder.path()), 50 * BLOCK_BYTES);
        assert_eq!(large.total(), Some(50 * BLOCK_BYTES));
        let small = cache(folder.path(), 16 * BLOCK_BYTES);
        assert!((14 * BLOCK_BYTES..=16 * BLOCK_BYTES).contains(&size(folder.path())));
        assert_eq!(small.total(), Some(size(folder.path())));
        assert!(small.read(&id(50), None, 900).is_some() && small.read(&id(1), None, 900).is_none());
        // What an earlier version left has no total of this kind.
        fs::remove_file(folder.path().join("objects.taken")).expect("it is there");
        cache(folder.path(), 2 * BLOCK_BYTES);
        assert!(size(folder.path()) <= 2 * BLOCK_BYTES);
    }
}
