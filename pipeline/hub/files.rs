//! Files of the cache: written whole, linked, locked, and named by their checksums.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::flow::Error;
use crate::report::wait_for;

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
    let temporary = beside(path);
    fs::write(&temporary, bytes)?;
    fs::rename(temporary, path)
}

/// A name beside a file that no other process takes.
fn beside(path: &Path) -> PathBuf {
    path.with_extension(format!("{}.tmp", std::process::id()))
}

/// Opens what an earlier try left of a download, or a new file. Whatever else has that name, such as a link to a file
/// of the user, is not opened.
pub(super) fn open_part(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = File::options();
    options.create(true).read(true).write(true).truncate(false);
    let file =
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).map_err(|error| match error
            .raw_os_error()
        {
            Some(libc::ELOOP) => io::Error::other("it is a link: delete it"),
            _ => error,
        })?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no file: delete it")),
    }
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
                let temporary = beside(path);
                if std::os::unix::fs::symlink(up.join("blobs").join(etag), &temporary)
                    .and_then(|()| fs::rename(temporary, path))
                    .is_ok()
                {
                    return Ok(());
                }
            }
        }
    }
    let _ = name;
    let temporary = beside(path);
    fs::copy(blob, &temporary).and_then(|_| fs::rename(temporary, path))
}

/// Waits for the lock while `part` grows; it is given back when the file is closed, by a process that dies too.
pub(super) async fn lock_file(path: &Path, name: &str, part: &Path) -> Result<File, Error> {
    let file =
        File::options().create(true).append(true).open(path).map_err(|error| write_error(path, error))?;
    let downloaded = || fs::metadata(part).map_or(0, |metadata| metadata.len());
    let what = format!("another process to download {name}");
    wait_for(&what, downloaded, || match file.try_lock() {
        Err(TryLockError::WouldBlock) => Ok(None),
        // A file system without locks costs a second download at worst: blobs are put in place whole.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(())),
    })
    .await?;
    Ok(file)
}

/// The SHA-256 of some bytes, in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hexadecimal(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
