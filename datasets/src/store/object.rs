//! What a store says of an object without reading it: its name, its size and which version of it is there.

use std::ffi::OsStr;
use std::fmt;
use std::fs::Metadata;
use std::path::Path;
use std::sync::Arc;

use crate::escape::escape;

/// The name of an object relative to the root of its store, as the store has it: parts joined by `/`, not always
/// printable, and on a disk not always UTF-8. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(Name);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Name {
    /// Nearly all: the sample's id is the same text and shares its memory.
    Text(Arc<str>),
    Bytes(Arc<OsStr>),
}

impl ObjectName {
    /// The name that an operating system has for it.
    pub fn of_os(name: &OsStr) -> ObjectName {
        match name.to_str() {
            Some(text) => ObjectName(Name::Text(text.into())),
            None => ObjectName(Name::Bytes(name.into())),
        }
    }

    /// The name as text, where it is text.
    pub fn text(&self) -> Option<&str> {
        match &self.0 {
            Name::Text(text) => Some(text),
            Name::Bytes(_) => None,
        }
    }

    /// The name as the operating system has it.
    pub fn os(&self) -> &OsStr {
        match &self.0 {
            Name::Text(text) => OsStr::new(&**text),
            Name::Bytes(name) => name,
        }
    }

    /// The name as a path relative to the root.
    pub fn path(&self) -> &Path {
        Path::new(self.os())
    }

    /// The name with what does not print escaped, unique among names; see [`escape`].
    pub fn printable(&self) -> Arc<str> {
        match (&self.0, escape(self.os())) {
            (Name::Text(text), std::borrow::Cow::Borrowed(_)) => Arc::clone(text),
            (_, escaped) => escaped.into(),
        }
    }
}

impl From<&str> for ObjectName {
    fn from(name: &str) -> ObjectName {
        ObjectName(Name::Text(name.into()))
    }
}

/// Which bytes an object holds, as far as its store can tell without reading them: a digest of its ETag, or of
/// modification time and inode on a local disk. An object whose version is unchanged holds the same bytes; a
/// copy of it elsewhere has another version.
///
/// A version is no function of the bytes alone, so that none may reach a shard or a manifest: it decides only
/// whether what was made of an object is still true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version([u8; 16]);

impl Version {
    /// Of an object of which its store says nothing.
    pub const UNKNOWN: Version = Version([0; 16]);

    /// By an entity tag, with or without quotes.
    pub fn of_etag(tag: &str) -> Version {
        Version::of("etag", tag.trim().trim_start_matches("W/").trim_matches('"').as_bytes())
    }

    /// By the time of the last change, in seconds since 1970.
    pub fn of_seconds(seconds: i64) -> Version {
        Version::of("time", seconds.to_string().as_bytes())
    }

    /// Of a local file.
    pub fn of_file(file: &Metadata) -> Version {
        #[cfg(unix)]
        let stamp = {
            use std::os::unix::fs::MetadataExt;
            format!("{} {} {}", file.mtime(), file.mtime_nsec(), file.ino())
        };
        #[cfg(not(unix))]
        let stamp = format!("{:?}", file.modified().ok());
        Version::of("file", stamp.as_bytes())
    }

    fn of(kind: &str, text: &[u8]) -> Version {
        let mut hasher = blake3::Hasher::new();
        hasher.update(kind.as_bytes()).update(&[0]).update(text);
        let mut version = [0; 16];
        version.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Version(version)
    }

    /// Its 16 bytes, for digests.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its name; in a bucket any text, such as `a//x` or, for a marker of an empty folder, `a/`.
    pub name: ObjectName,
    /// Its size in bytes.
    pub bytes: u64,
    /// Which version of it was there.
    pub version: Version,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_changed_in_place_or_replaced_is_another_version() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        let version = || Version::of_file(&std::fs::metadata(&path).expect("the file"));
        std::fs::write(&path, "one").expect("a file");
        let before = version();
        assert_eq!(before, version());
        let file = std::fs::File::options().write(true).open(&path).expect("the file");
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(2);
        file.set_modified(later).expect("a later time");
        let changed = version();
        assert_ne!(before, changed);
        // A file that takes its place keeps neither inode nor, here, time.
        let other = folder.path().join("y");
        std::fs::write(&other, "two").expect("a file");
        std::fs::File::options().write(true).open(&other).expect("it").set_modified(later).expect("a time");
        std::fs::rename(&other, &path).expect("takes its place");
        assert_ne!(changed, version());
    }

    #[test]
    fn a_tag_is_the_same_with_and_without_quotes() {
        assert_eq!(Version::of_etag("\"abc\""), Version::of_etag("abc"));
        assert_eq!(Version::of_etag("W/\"abc\""), Version::of_etag("abc"));
        assert_ne!(Version::of_etag("abc"), Version::of_etag("abd"));
        assert_ne!(Version::of_etag("7"), Version::of_seconds(7));
    }

    #[test]
    fn a_plain_name_and_its_text_share_their_memory() {
        let name = ObjectName::from("a/b c.jpg");
        let id = name.printable();
        assert!(std::ptr::eq(id.as_ptr(), name.text().expect("text").as_ptr()));
        assert_eq!(&*ObjectName::from("a\\b").printable(), "a\\\\b");
    }
}
