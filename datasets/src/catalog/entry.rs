//! One sample of a source: what it is, where its bytes are, and which bytes they are.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::kept::Kept;
use super::packed::{PackedRow, Piece};
use super::pixels::RawPixels;
use crate::sample::{Label, SampleId, Split};
use crate::store::{ObjectName, Store, StoreError, Version};

/// One sample of a catalog. Its id says what it is, its locator where its bytes are: a sample may be a file, or
/// a piece of one.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its name in the dataset: printable, and unique in its catalog.
    pub id: SampleId,
    /// What must not be torn apart by a split: an assignment puts samples of one group in one split, and a catalog in
    /// which they declare two is none. A sample that belongs to no other is a group of its own, called by its id.
    pub group: SampleId,
    /// Its class.
    pub label: Label,
    /// The split that the source declares.
    pub split: Option<Split>,
    /// Where its bytes are.
    pub locator: Locator,
    /// Which version of its object was listed.
    pub version: Version,
    /// What the source says of it in the columns that are kept; `None` where none are.
    pub kept: Option<Kept>,
}

impl Entry {
    /// A sample that is a group of its own. What makes ids unique and labels valid is the catalog's to check.
    pub fn new(
        id: SampleId,
        label: Label,
        split: Option<Split>,
        locator: Locator,
        version: Version,
    ) -> Entry {
        Entry { group: id.clone(), id, label, split, locator, version, kept: None }
    }

    /// The size of its encoded image.
    pub fn bytes(&self) -> u64 {
        self.locator.bytes()
    }
}

/// Where the bytes of a sample are: in which object of the store, and which part of it they are. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locator {
    object: ObjectName,
    part: Part,
}

/// Which part of an object a sample is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// All of it, of so many bytes.
    Whole(u64),
    /// A range of its bytes, as the members of a tar file are.
    Range(Range<u64>),
    /// Pixels from this byte on, which are a file once they have a header.
    Pixels(u64, RawPixels),
    /// A row of a piece that is unpacked as a whole, as a group of rows of a Parquet file may be.
    Packed(PackedRow),
}

impl Locator {
    /// A whole object of `bytes` bytes.
    pub fn whole(object: ObjectName, bytes: u64) -> Locator {
        Locator { object, part: Part::Whole(bytes) }
    }

    /// The bytes `range` of an object that has `object_bytes`; `None` when it does not have them.
    pub fn range(object: ObjectName, range: Range<u64>, object_bytes: u64) -> Option<Locator> {
        let is_inside = range.start <= range.end && range.end <= object_bytes;
        is_inside.then_some(Locator { object, part: Part::Range(range) })
    }

    /// The pixels from byte `start` of an object of `object_bytes` on; `None` when it ends before they do.
    pub(super) fn pixels(
        object: ObjectName,
        start: u64,
        pixels: RawPixels,
        object_bytes: u64,
    ) -> Option<Locator> {
        let end = start.checked_add(pixels.bytes())?;
        (end <= object_bytes).then_some(Locator { object, part: Part::Pixels(start, pixels) })
    }

    /// A row of a packed piece.
    pub(super) fn packed(row: PackedRow) -> Locator {
        Locator { object: row.object().clone(), part: Part::Packed(row) }
    }

    /// The object that holds the sample.
    pub fn object(&self) -> &ObjectName {
        &self.object
    }

    /// Whether it is a file of its own, so that its name is that of a file.
    pub fn is_file(&self) -> bool {
        matches!(self.part, Part::Whole(_))
    }

    /// How many bytes it is; of a row of a packed piece, the mean of its rows.
    pub fn bytes(&self) -> u64 {
        match &self.part {
            Part::Whole(bytes) => *bytes,
            Part::Range(range) => range.end - range.start,
            Part::Pixels(_, pixels) => pixels.file_bytes(),
            Part::Packed(row) => row.mean_bytes(),
        }
    }

    /// Where it is in the source, in words: `a/x.jpg`, `train.tar#bytes=1536-9321` (the first and the last of its bytes, counted
    /// from 0) or `train.parquet#row=17` (counted from 0).
    pub fn place(&self) -> String {
        let object = self.object.printable();
        let of_bytes = |start: u64, bytes: u64| match bytes {
            0 => format!("{object}#bytes={start}"),
            _ => format!("{object}#bytes={start}-{}", start + bytes - 1),
        };
        match &self.part {
            Part::Whole(_) => object.to_string(),
            Part::Range(range) => of_bytes(range.start, range.end - range.start),
            Part::Pixels(start, pixels) => of_bytes(*start, pixels.bytes()),
            Part::Packed(row) => format!("{object}#row={}", row.number()),
        }
    }

    /// The piece that is unpacked to reach it, if it lies in one.
    pub(super) fn piece(&self) -> Option<&Arc<Piece>> {
        match &self.part {
            Part::Packed(row) => Some(row.piece()),
            _ => None,
        }
    }

    /// Whether it is a row of a piece that is unpacked as a whole, so that only the mean size of its rows is known.
    pub fn is_packed(&self) -> bool {
        self.piece().is_some()
    }

    /// What samples are sorted by where they are to be read as they lie: one that lies in a piece after those before it there.
    pub fn order(&self) -> (ObjectName, u64) {
        let start = match &self.part {
            Part::Whole(_) => 0,
            Part::Range(range) => range.start,
            Part::Pixels(start, _) => *start,
            Part::Packed(row) => row.number(),
        };
        (self.object.clone(), start)
    }

    /// Reads the last `bytes` of the sample, all of it where it has no more.
    ///
    /// # Errors
    /// As [`Locator::read`].
    pub async fn read_end(&self, store: &Store, bytes: u64) -> Result<Bytes, StoreError> {
        let range = match &self.part {
            Part::Whole(all) => 0..*all,
            Part::Range(range) => range.clone(),
            Part::Pixels(..) | Part::Packed(_) => {
                let whole = self.read(store).await?;
                return Ok(
                    whole.slice(whole.len().saturating_sub(usize::try_from(bytes).unwrap_or(usize::MAX))..)
                );
            }
        };
        store.read_exactly(&self.object, range.end - bytes.min(range.end - range.start)..range.end).await
    }

    /// Reads the first `bytes` of the sample, all of it where it has no more: enough to look at a header.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn read_start(&self, store: &Store, bytes: u64) -> Result<Bytes, StoreError> {
        let start = match &self.part {
            Part::Whole(_) => 0,
            Part::Range(range) => range.start,
            // Small, or read at once in any case.
            Part::Pixels(..) | Part::Packed(_) => {
                let whole = self.read(store).await?;
                return Ok(whole.slice(..whole.len().min(usize::try_from(bytes).unwrap_or(usize::MAX))));
            }
        };
        store.read(&self.object, Some(start..start + bytes.min(self.bytes())), bytes).await
    }

    /// Reads the sample; of a local root on the calling thread. Bytes that are not as many as were listed are
    /// asked for again, and end the run if they stay so: a changed file never becomes a sample in silence.
    ///
    /// # Errors
    /// [`StoreError::LeaveOut`] when only this sample is lost, [`StoreError::Stop`] when its object changed or
    /// the store fails.
    pub async fn read(&self, store: &Store) -> Result<Bytes, StoreError> {
        match &self.part {
            Part::Whole(bytes) => store.read_whole(&self.object, *bytes).await,
            Part::Range(range) => store.read_exactly(&self.object, range.clone()).await,
            Part::Pixels(start, pixels) => {
                let bytes = store.read_exactly(&self.object, *start..start + pixels.bytes()).await?;
                Ok(pixels.file(&bytes))
            }
            Part::Packed(row) => row.read(store).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;
    use futures::executor::block_on;

    fn stores() -> (tempfile::TempDir, [Store; 2]) {
        let folder = tempfile::tempdir().expect("a folder");
        let local =
            Store::open(folder.path().to_str().expect("UTF-8"), &StoreOptions::default()).expect("opens");
        (folder, [local, Store::memory()])
    }

    #[test]
    fn a_sample_is_read_whole_or_as_a_range() {
        let (_folder, stores) = stores();
        for store in stores {
            block_on(store.put("a/x", "0123456789".into())).expect("an object");
            let whole = Locator::whole("a/x".into(), 10);
            assert_eq!(block_on(whole.read(&store)).expect("the object"), "0123456789");
            let part = Locator::range("a/x".into(), 3..6, 10).expect("it has them");
            assert_eq!((part.bytes(), block_on(part.read(&store)).expect("a part")), (3, "345".into()));
            assert_eq!(Locator::range("a/x".into(), 3..11, 10), None);
        }
    }

    #[test]
    fn a_changed_size_is_an_error_and_never_a_sample() {
        let (_folder, stores) = stores();
        for store in stores {
            block_on(store.put("a/x", "0123456789".into())).expect("an object");
            let range = Locator::range("a/x".into(), 3..6, 12).expect("it had them");
            let grown = Locator::whole("a/x".into(), 9);
            block_on(store.put("a/x", "01234".into())).expect("a shorter one");
            for (locator, came) in [(grown, 5), (range, 2)] {
                let error = block_on(locator.read(&store)).expect_err("changed");
                assert!(!error.loses_only_this_object(), "{error}");
                assert!(error.to_string().contains(&format!("a/x: {came} bytes came where")), "{error}");
            }
            let gone = block_on(Locator::whole("a/y".into(), 1).read(&store)).expect_err("gone");
            assert!(gone.loses_only_this_object(), "{gone}");
        }
    }

    #[test]
    fn a_local_sample_is_read_whatever_its_name_and_never_outside() {
        let (folder, [store, _]) = stores();
        let read = |name: ObjectName| block_on(Locator::whole(name, 1).read(&store));
        std::fs::write(folder.path().join("a#1"), "x").expect("a file");
        assert_eq!(read("a#1".into()).expect("the file"), "x");
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt;
            let name = std::ffi::OsStr::from_bytes(b"l\xe4\n.jpg");
            std::fs::write(folder.path().join(name), "y").expect("a file");
            assert_eq!(read(ObjectName::of_os(name)).expect("the file"), "y");
        }
        for name in ["../a", "/etc/hostname", "b/../../a", "missing"] {
            let error = read(name.into()).expect_err(name);
            assert!(error.loses_only_this_object(), "{name}: {error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_named_pipe_is_refused_and_not_waited_for() {
        let (folder, [store, _]) = stores();
        let path = folder.path().join("x.jpg");
        let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo runs");
        assert!(made.success());
        let expected = "it is a pipe or a device and not a file";
        let error = block_on(Locator::whole("x.jpg".into(), 1).read(&store)).expect_err("a pipe");
        assert!(error.loses_only_this_object() && error.to_string().contains(expected), "{error}");
        for error in [
            block_on(store.get("x.jpg")).expect_err("a pipe"),
            block_on(store.get_range("x.jpg", 0..1)).expect_err("a pipe"),
            block_on(store.size("x.jpg")).expect_err("a pipe"),
        ] {
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
