//! A sample is one image on its way: what it is called, what it is, and its bytes or pixels, or why it has none.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::escape::one_line;
use crate::levels::{Levels, StoredRows};

/// The name of a sample in its dataset: the path relative to the source with `/` between its parts, or,
/// in a layout without paths, its key. Never an absolute path.
pub type SampleId = Arc<str>;

/// The index of a class in the sorted list of class names.
pub type Label = u32;

/// What may be known of the class of a sample.
pub trait AsClass {
    /// The class; `None` of an image that nobody has labelled.
    fn as_class(&self) -> Option<Label>;
}

impl AsClass for Label {
    fn as_class(&self) -> Option<Label> {
        Some(*self)
    }
}

impl AsClass for () {
    fn as_class(&self) -> Option<Label> {
        None
    }
}

/// Which of the three parts of a dataset a sample belongs to. The names are those of the folders on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What the model learns from.
    Train,
    /// What the best checkpoint is chosen by.
    Validation,
    /// What training never sees.
    Test,
}

impl Split {
    /// All three, in the order in which they are planned, written and printed.
    pub const ALL: [Split; 3] = [Split::Train, Split::Validation, Split::Test];

    /// `train`, `validation` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Validation => "validation",
            Split::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why one sample was refused. A fault costs this sample only; the run goes on within its reject budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The name of the stage that refused it.
    pub stage: String,
    /// What was wrong, in one line of lower case.
    pub reason: String,
}

impl Fault {
    /// The stage of a fault that is of the store and not of the bytes, such as a missing permission.
    pub const READ: &str = "read";

    /// A fault of `stage`; `reason` becomes one line that prints, since decoders repeat what they found in a file.
    pub fn new(stage: &str, reason: impl fmt::Display) -> Fault {
        let reason = one_line(&reason.to_string()).into_owned();
        Fault { stage: stage.to_string(), reason }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.stage, self.reason)
    }
}

/// One image on its way through the dataflow, as its file's bytes ([`Encoded`]), its pixels ([`Pixels`]) or
/// whatever stage it has reached; or, once a stage has refused it, as a tombstone.
///
/// (`id`, `copy`) is unique in a dataset.
///
/// `L` is what is known of its class: a [`Label`] in a dataset, nothing (`()`) of an image that nobody has labelled.
#[derive(Clone, Debug)]
pub struct Sample<P, L = Label> {
    /// Its name in the dataset.
    pub id: SampleId,
    /// 0 is the original; balancing adds copies 1, 2, ….
    pub copy: u32,
    /// Its class.
    pub label: L,
    /// The payload, or the fault that made this sample a tombstone. A tombstone travels to the end, so that
    /// whoever waits for a planned sample learns that it will not come.
    pub payload: Result<P, Fault>,
}

impl<P, L> Sample<P, L> {
    /// The same sample with another payload; a tombstone stays one.
    pub fn map<Q>(self, f: impl FnOnce(P) -> Result<Q, Fault>) -> Sample<Q, L> {
        Sample { id: self.id, copy: self.copy, label: self.label, payload: self.payload.and_then(f) }
    }
}

/// An image as a file holds it: JPEG, PNG, … bytes, recognised by content and not by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The whole file.
    pub bytes: Bytes,
}

/// The file that pixels were decoded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Original {
    /// Width and height of the image as it was read, after its orientation was applied and before any resize.
    pub size: (u32, u32),
    /// BLAKE3 of its bytes, where that was asked for.
    pub blake3: Option<[u8; 32]>,
}

impl From<(u32, u32)> for Original {
    fn from(size: (u32, u32)) -> Original {
        Original { size, blake3: None }
    }
}

/// A decoded image: 8-bit RGB, rows from the top, no padding, values 0 to 255 in the file's own gamma.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Columns, at least 1.
    pub width: u32,
    /// Rows, at least 1.
    pub height: u32,
    /// `[height, width, 3]`, `width * height * 3` bytes.
    pub data: Levels,
    /// What it was made of.
    pub original: Original,
    /// Which part of the original is here, where the stage after the decoder sees no more. No other stage takes a part.
    pub part: Option<SeenPart>,
}

/// A part of an image that was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenPart {
    /// The column of the whole image that is the first one here, pixels of the whole image.
    pub left: u32,
    /// The row of the whole image that is the first one here, pixels of the whole image.
    pub top: u32,
    /// How many columns and rows of the whole image a column and a row here stand for: 1, 2, 4 or 8.
    pub reduced: u32,
    /// Whether the rows are already as many as the stage after the decoder makes of them, by the view that it told the decoder, so
    /// that columns are left to it.
    pub rows_are_resized: bool,
}

impl Pixels {
    /// An image that was just made or decoded, so that its original size is its size.
    ///
    /// # Panics
    /// When `data` is not `width * height * 3` bytes.
    pub fn new(width: u32, height: u32, data: Vec<u8>) -> Pixels {
        assert_eq!(data.len(), width as usize * height as usize * 3, "pixels of a {width}x{height} image");
        Pixels { width, height, data: data.into(), original: (width, height).into(), part: None }
    }

    /// The same of an image that a file holds as it is.
    pub fn stored(rows: StoredRows) -> Pixels {
        let [width, height] = rows.size().map(|length| length as u32);
        Pixels { width, height, data: rows.into(), original: (width, height).into(), part: None }
    }

    /// Width and height of the whole image, of which this may be a part.
    pub fn whole(&self) -> (u32, u32) {
        match self.part {
            Some(_) => self.original.size,
            None => (self.width, self.height),
        }
    }
}
