//! The levels of an image: in memory of their own, or rows that lie in a file or are to be read backwards.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;

use bytes::Bytes;

/// The levels of an image, `[height, width, 3]`, values 0 to 255.
///
/// They are a slice of bytes. Those of [`StoredRows`] are copied the first time that someone asks for them as one: who can take them
/// row by row asks for [`Levels::stored`] before.
#[derive(Clone)]
pub struct Levels {
    own: OnceLock<Vec<u8>>,
    stored: Option<StoredRows>,
}

/// Rows of levels in a file, or other memory, which may be mirrored.
#[derive(Clone)]
pub struct StoredRows {
    memory: Bytes,
    /// Where the first row is in it.
    start: usize,
    /// Bytes from one row to the next.
    stride: usize,
    /// Columns and rows.
    size: [usize; 2],
    /// Left to right, and top to bottom.
    mirrored: [bool; 2],
}

impl StoredRows {
    /// So many columns and rows, the first one at `start`, and the others each `stride` bytes further.
    ///
    /// # Panics
    /// When the memory ends before, there are none, or rows lie in each other.
    pub fn new(memory: Bytes, start: usize, stride: usize, size: [usize; 2]) -> StoredRows {
        let [columns, rows] = size;
        assert!(
            columns > 0 && rows > 0 && stride >= 3 * columns,
            "{columns}x{rows} pixels of rows of {stride} bytes"
        );
        let end = (rows - 1).checked_mul(stride).and_then(|last| last.checked_add(start + 3 * columns));
        assert!(end.is_some_and(|end| end <= memory.len()), "rows of a file that ends before");
        StoredRows { memory, start, stride, size, mirrored: [false; 2] }
    }

    /// Columns and rows.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Whether each row is to be read from its last pixel to its first one.
    pub fn is_mirrored(&self) -> bool {
        self.mirrored[0]
    }

    /// A rectangle of them: its left column and upper row, and so many columns and rows.
    ///
    /// # Panics
    /// When it reaches over the edge.
    pub fn part(self, from: [usize; 2], size: [usize; 2]) -> StoredRows {
        let [left, top] = [0, 1].map(|axis| {
            let behind =
                self.size[axis].checked_sub(from[axis] + size[axis]).expect("a rectangle within the image");
            if self.mirrored[axis] { behind } else { from[axis] }
        });
        StoredRows { start: self.start + top * self.stride + 3 * left, size, ..self }
    }

    /// A row of the image as it is stored, `[columns, 3]`, and what follows it there.
    ///
    /// # Panics
    /// When there is none.
    pub fn row(&self, row: usize) -> &[u8] {
        assert!(row < self.size[1], "row {row} of {}", self.size[1]);
        let row = if self.mirrored[1] { self.size[1] - 1 - row } else { row };
        &self.memory[self.start + row * self.stride..]
    }

    /// What is stored from the first row on, and how many bytes lie from one row to the next; `None` where rows are mirrored.
    pub fn in_order(&self) -> Option<(&[u8], usize)> {
        (self.mirrored == [false; 2]).then(|| (&self.memory[self.start..], self.stride))
    }

    fn copied(&self) -> Vec<u8> {
        let [columns, rows] = self.size;
        let mut levels = Vec::with_capacity(3 * columns * rows);
        for row in (0..rows).map(|row| &self.row(row)[..3 * columns]) {
            match self.is_mirrored() {
                true => levels.extend(row.rchunks_exact(3).flatten()),
                false => levels.extend_from_slice(row),
            }
        }
        levels
    }
}

impl Levels {
    /// Bytes of them, which need not be in one piece for it.
    pub fn len(&self) -> usize {
        match &self.stored {
            Some(StoredRows { size: [columns, rows], .. }) => 3 * columns * rows,
            None => self.own.get().map_or(0, Vec::len),
        }
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where they are, if not in memory of their own, in their order.
    pub fn stored(&self) -> Option<&StoredRows> {
        self.stored.as_ref().filter(|_| self.own.get().is_none())
    }

    /// The same mirrored, left to right and top to bottom, of an image of so many columns and rows; nothing is copied.
    ///
    /// # Panics
    /// When they are in memory of their own, and fewer.
    pub fn mirrored(mut self, size: [usize; 2], by: [bool; 2]) -> Levels {
        if by == [false; 2] {
            return self;
        }
        let stored = match self.stored.take() {
            Some(stored) if self.own.get().is_none() => stored,
            _ => StoredRows::new(self.into_vec().into(), 0, 3 * size[0], size),
        };
        let mirrored = [0, 1].map(|axis| stored.mirrored[axis] ^ by[axis]);
        StoredRows { mirrored, ..stored }.into()
    }

    /// Puts them in memory of their own; what held them is let go.
    pub fn settle(&mut self) -> &mut Vec<u8> {
        if let Some(stored) = self.stored.take() {
            self.own.get_or_init(|| stored.copied());
        }
        self.own.get_mut().expect("what no file holds is here")
    }

    /// The same as bytes in one piece.
    pub fn into_vec(mut self) -> Vec<u8> {
        std::mem::take(self.settle())
    }
}

impl From<Vec<u8>> for Levels {
    fn from(own: Vec<u8>) -> Levels {
        Levels { own: own.into(), stored: None }
    }
}

impl From<StoredRows> for Levels {
    fn from(stored: StoredRows) -> Levels {
        Levels { own: OnceLock::new(), stored: Some(stored) }
    }
}

impl Deref for Levels {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.own.get_or_init(|| self.stored.as_ref().map(StoredRows::copied).unwrap_or_default())
    }
}

impl DerefMut for Levels {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.settle()
    }
}

impl PartialEq for Levels {
    fn eq(&self, other: &Levels) -> bool {
        **self == **other
    }
}

impl<B: AsRef<[u8]> + ?Sized> PartialEq<B> for Levels {
    fn eq(&self, other: &B) -> bool {
        **self == *other.as_ref()
    }
}

impl Eq for Levels {}

impl<'a> IntoIterator for &'a Levels {
    type Item = &'a u8;
    type IntoIter = std::slice::Iter<'a, u8>;

    fn into_iter(self) -> std::slice::Iter<'a, u8> {
        self.iter()
    }
}

impl fmt::Debug for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows of two pixels within four columns.
    fn stored() -> StoredRows {
        StoredRows::new(Bytes::from_iter(0..30), 4, 12, [2, 2])
    }

    #[test]
    fn rows_of_a_file_are_those_that_are_asked_for_however_they_are_mirrored() {
        let rows = [[4, 5, 6, 7, 8, 9], [16, 17, 18, 19, 20, 21]];
        let back = rows.map(|[a, b, c, d, e, f]| [d, e, f, a, b, c]);
        for (by, expected) in [
            ([false, false], rows.concat()),
            ([true, false], back.concat()),
            ([false, true], [rows[1], rows[0]].concat()),
            ([true, true], [back[1], back[0]].concat()),
        ] {
            let levels = Levels::from(stored()).mirrored([2, 2], by);
            assert_eq!((levels.len(), levels.stored().is_some()), (12, true));
            assert_eq!(levels, expected);
            assert!(levels.stored().is_none(), "they have been copied");
            for at in 0..4 {
                let [x, y] = [at % 2, at / 2];
                let one =
                    Levels::from(stored()).mirrored([2, 2], by).stored().cloned().expect("as it is stored");
                assert_eq!(Levels::from(one.part([x, y], [1, 1])), expected[3 * at..3 * at + 3]);
            }
            for levels in [levels, Levels::from(stored()).mirrored([2, 2], by)] {
                assert_eq!(levels.mirrored([2, 2], by), rows.concat());
            }
        }
    }

    #[test]
    fn levels_that_are_changed_are_not_those_of_the_file() {
        let mut levels = Levels::from(stored());
        let file = levels.clone();
        levels[0] = 200;
        assert_eq!((levels[0], file[0], levels.len()), (200, 4, 12));
        assert!(levels.stored().is_none());
        levels.settle().truncate(3);
        assert_eq!(levels.into_vec(), [200, 5, 6]);
    }

    #[test]
    #[should_panic(expected = "ends before")]
    fn rows_reach_over_the_end_of_no_file() {
        StoredRows::new(Bytes::from_iter(0..30), 4, 24, [2, 2]);
    }
}
