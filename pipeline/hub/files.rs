//! Files of the cache: written whole, linked, locked, and named by their checksums.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::flow::Error;

pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hexadecimal(text)
}

pub(super) fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

pub(super) fn write_error(path: &Path, error: io::Error) -> Error {
    let attempt = format!("write {}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull => Error::failed(
            attempt,
            "the disk is full; make room and run again, or let HF_HOME name a folder on another disk",
        ),
        _ => Error::failed(attempt, error),
    }
}

/// A small file, whole or not at all.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&temporary, bytes)?;
    fs::rename(temporary, path)
}

/// Links a snapshot to its blob as Python does, relatively, so that the cache can be moved; where the file system
/// has no links, copies it.
pub(super) fn link(blob: &Path, path: &Path, name: &str) -> io::Result<()> {
    #[cfg(unix)]
    {
        let etag = blob.file_name().expect("a blob has a name");
        let up: PathBuf = std::iter::repeat_n("..", 2 + name.matches('/').count()).collect();
        match std::os::unix::fs::symlink(up.join("blobs").join(etag), path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_file() => return Ok(()),
            Err(_) => {
                // A link to a blob that was deleted.
                let _ = fs::remove_file(path);
                if std::os::unix::fs::symlink(up.join("blobs").join(etag), path).is_ok() {
                    return Ok(());
                }
            }
        }
    }
    let _ = name;
    fs::copy(blob, path).map(drop)
}

/// Waits for the lock; it is given back when the file is closed, by a process that dies too.
pub(super) async fn lock_file(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).append(true).open(path)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(100)).await,
            // A file system without locks costs a second download at worst: blobs are put in place whole.
            Err(TryLockError::Error(_)) => return Ok(file),
        }
    }
}

/// The SHA-256 of some bytes, in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hexadecimal(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
