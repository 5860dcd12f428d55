//! A folder as a store: names of any kind, regular files only, and what the file system's refusals mean.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;

use super::object::ObjectName;
use super::patience::Patience;
use super::{StoreError, one_line};

/// A local folder, which need not exist.
#[derive(Clone, Debug)]
pub(super) struct Local {
    pub(super) root: Arc<Path>,
}

impl Local {
    /// The objects of the folder; `None` where it does not exist and is not to be made.
    pub(super) fn objects(&self, make: bool) -> io::Result<Option<LocalFileSystem>> {
        if make {
            fs::create_dir_all(&self.root)?;
        } else if !self.root.exists() {
            return Ok(None);
        }
        let store = LocalFileSystem::new_with_prefix(&self.root).map_err(io::Error::other)?;
        Ok(Some(store.with_fsync(true)))
    }

    /// Refuses what is there and is no file: opening a named pipe would wait for ever.
    pub(super) fn check_regular(&self, key: &str) -> io::Result<()> {
        match fs::metadata(self.root.join(key)) {
            Ok(metadata) if !metadata.is_dir() => regular(&metadata),
            _ => Ok(()),
        }
    }

    /// Opens an object; nothing is asked of what is no file, see [`Local::check_regular`].
    fn open(&self, name: &ObjectName) -> io::Result<File> {
        let name = name.path();
        if !name.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name leaves the source folder"));
        }
        let path = self.root.join(name);
        regular(&fs::metadata(&path)?)?;
        open(&path)
    }

    /// The bytes of an object, or a range of them (fewer where it ends before), on the calling thread.
    pub(super) fn read(&self, name: &ObjectName, range: Option<&Range<u64>>) -> io::Result<Bytes> {
        let Some(range) = range else {
            let mut file = self.open(name)?;
            let mut bytes = Vec::new();
            // What a sparse file says of its size need not fit.
            bytes.try_reserve_exact(usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX))?;
            file.read_to_end(&mut bytes)?;
            return Ok(bytes.into());
        };
        let mut file = self.open(name)?;
        file.seek(io::SeekFrom::Start(range.start))?;
        let mut bytes = Vec::new();
        file.take(range.end.saturating_sub(range.start)).read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }

    /// Reads the bytes of an object from `start` on, as many as there is room for, on the calling thread; says how many came.
    pub(super) fn read_into(&self, name: &ObjectName, start: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let mut file = self.open(name)?;
        file.seek(io::SeekFrom::Start(start))?;
        let mut came = 0;
        while came < bytes.len() {
            match file.read(&mut bytes[came..]) {
                Ok(0) => break,
                Ok(more) => came += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(came)
    }

    /// Tells the system that a range will be read soon, in any order, so that it comes from the disk in one.
    pub(super) fn expect(&self, name: &ObjectName, range: &Range<u64>) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
            let length = range.end.saturating_sub(range.start);
            let file = self.open(name)?;
            // A file system that takes no advice is read without.
            let _ = posix_fadvise(
                &file,
                range.start as i64,
                length as i64,
                PosixFadviseAdvice::POSIX_FADV_WILLNEED,
            );
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (name, range);
        Ok(())
    }

    /// The keys of the files below `prefix` and their bytes, in any order.
    pub(super) fn list(&self, prefix: &Key) -> io::Result<Vec<(String, u64)>> {
        let mut found = vec![];
        list_files(&self.root.join(prefix.as_ref()), prefix.as_ref(), &mut found)?;
        Ok(found)
    }

    /// One line for what the file system refused; `line` puts a reason behind what was attempted.
    pub(super) fn explain(
        &self,
        verb: &str,
        key: &str,
        error: &io::Error,
        line: impl Fn(&str) -> String,
    ) -> StoreError {
        match error.kind() {
            io::ErrorKind::NotFound if verb == "read" => StoreError::LeaveOut(line("no such file")),
            io::ErrorKind::NotFound => StoreError::Stop(line("no such folder")),
            io::ErrorKind::InvalidInput | io::ErrorKind::IsADirectory if verb == "read" => {
                StoreError::LeaveOut(line(&one_line(&error.to_string())))
            }
            io::ErrorKind::PermissionDenied if verb == "read" => {
                StoreError::LeaveOut(line("permission denied"))
            }
            io::ErrorKind::PermissionDenied => StoreError::Stop(line("permission denied")),
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                StoreError::Stop(line(&match self.file_on_the_way(key) {
                    Some(file) => format!("{} is a file, not a folder", file.display()),
                    None => "a file stands where a folder is needed".to_string(),
                }))
            }
            io::ErrorKind::StorageFull => StoreError::Stop(line("the disk is full")),
            io::ErrorKind::QuotaExceeded => StoreError::Stop(line("the disk quota is used up")),
            io::ErrorKind::FileTooLarge => {
                StoreError::Stop(line("the file is larger than this process may write"))
            }
            io::ErrorKind::ReadOnlyFilesystem => StoreError::Stop(line("the file system is read-only")),
            _ if matches!(error.raw_os_error(), Some(23 | 24)) && cfg!(unix) => StoreError::Stop(line(
                "too many files are open: raise the limit (ulimit -n), or use fewer --threads",
            )),
            _ => StoreError::Stop(line(&one_line(&error.to_string()))),
        }
    }

    /// The first ancestor of `key` that is a file.
    fn file_on_the_way(&self, key: &str) -> Option<PathBuf> {
        let path = self.root.join(key);
        let mut ancestors: Vec<&Path> = path.ancestors().skip(1).collect();
        ancestors.reverse();
        ancestors.into_iter().find(|path| path.is_file()).map(Path::to_path_buf)
    }
}

/// The local path that `text` stands for: a leading `~/` is the user's home folder, as shells have it. A shell
/// does not expand it inside a word (`--out=~/x`), nor in a run file.
///
/// # Errors
/// [`StoreError::Correct`] when there is a `~/` and no home folder is known.
pub fn local_path(text: &str) -> Result<PathBuf, StoreError> {
    let Some(below) = text.strip_prefix('~').filter(|below| below.is_empty() || below.starts_with('/'))
    else {
        return Ok(PathBuf::from(text));
    };
    let home = std::env::home_dir().filter(|home| home.is_absolute());
    let home = home.ok_or_else(|| {
        StoreError::Correct(format!("{text}: no home folder is known: set HOME, or write a path"))
    })?;
    Ok(home.join(below.trim_start_matches('/')))
}

/// Opens a file to read it. Where the process or the system has too many files open, others will soon be closed.
fn open(path: &Path) -> io::Result<File> {
    // EMFILE and ENFILE, on every unix.
    let is_crowded = |error: &io::Error| matches!(error.raw_os_error(), Some(23 | 24)) && cfg!(unix);
    let (patience, began) = (Patience::usual(), Instant::now());
    for tried in 1.. {
        match File::open(path) {
            Err(error) if is_crowded(&error) && patience.allows(tried, began) => {
                std::thread::sleep(patience.wait_after(tried));
            }
            opened => return opened,
        }
    }
    unreachable!("patience has an end")
}

fn regular(metadata: &Metadata) -> io::Result<()> {
    match metadata.is_file() {
        true => Ok(()),
        false if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a pipe or a device and not a file")),
    }
}

fn list_files(folder: &Path, key: &str, found: &mut Vec<(String, u64)>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().map(str::to_string) else { continue };
        let key = if key.is_empty() { name } else { format!("{key}/{name}") };
        let kind = entry.file_type()?;
        // A link to a folder is not followed: what a destination lists is what it holds.
        if kind.is_dir() {
            list_files(&entry.path(), &key, found)?;
        } else if Key::parse(&key).is_ok()
            && let Ok(metadata) = fs::metadata(entry.path())
            && metadata.is_file()
        {
            found.push((key, metadata.len()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leading_tilde_is_the_home_folder_and_any_other_a_name() {
        let home = std::env::home_dir().filter(|home| home.is_absolute());
        assert_eq!(local_path("~/a/b").ok(), home.as_ref().map(|home| home.join("a/b")));
        assert_eq!(local_path("~").ok(), home);
        for name in ["a/~/b", "~x/y", "a~", "./~/x"] {
            assert_eq!(local_path(name), Ok(PathBuf::from(name)));
        }
    }
}
