//! Blocks of memory that serve again and again. The system clears every page of a block that is taken anew, which costs as
//! much as reading as many bytes from its cache: blocks of rows, of groups of them and of batches are kept.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

/// Blocks that are kept at most.
const BLOCKS_MAX: usize = 256;

/// Lends blocks, and keeps those that come back: as many as were lent at once, each as large as it ever had to be.
pub struct Blocks<T> {
    kept: Arc<Mutex<Vec<Vec<T>>>>,
    /// Values of a block that is kept, at most.
    most: usize,
}

impl<T: Copy + Default> Blocks<T> {
    /// A block of so many values, which are those of an earlier loan: whoever takes it writes all of them, or makes it shorter.
    /// A block that is larger than those that are kept is freed in the end.
    pub fn lend(&self, length: usize) -> Block<T> {
        if length > self.most {
            return vec![T::default(); length].into();
        }
        let kept = self.kept.lock().expect("no panic under the lock").pop();
        let values = match kept {
            Some(mut values) if values.capacity() >= length => {
                values.resize(length, T::default());
                values
            }
            // No larger than it has to be, and without what an earlier one held.
            _ => vec![T::default(); length],
        };
        Block { values, from: Some(self.clone()) }
    }
}

impl<T> Blocks<T> {
    /// Keeps blocks of up to so many values: for those that are of very different sizes, each of which would become as large as
    /// the largest.
    pub fn up_to(most: usize) -> Blocks<T> {
        Blocks { kept: Arc::default(), most }
    }
}

impl<T> Default for Blocks<T> {
    /// Keeps all of them.
    fn default() -> Blocks<T> {
        Blocks::up_to(usize::MAX)
    }
}

impl<T> Clone for Blocks<T> {
    fn clone(&self) -> Blocks<T> {
        Blocks { kept: self.kept.clone(), most: self.most }
    }
}

impl<T> fmt::Debug for Blocks<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.kept.lock().expect("no panic under the lock").len();
        write!(f, "{kept} blocks")
    }
}

/// Values in a block, which goes back to who lent it.
pub struct Block<T> {
    values: Vec<T>,
    from: Option<Blocks<T>>,
}

impl<T> Drop for Block<T> {
    fn drop(&mut self) {
        if let Some(blocks) = self.from.take() {
            let values = std::mem::take(&mut self.values);
            let mut kept = blocks.kept.lock().expect("no panic under the lock");
            if kept.len() < BLOCKS_MAX {
                kept.push(values);
            }
        }
    }
}

impl<T> From<Vec<T>> for Block<T> {
    /// A block that is freed in the end.
    fn from(values: Vec<T>) -> Block<T> {
        Block { values, from: None }
    }
}

impl<T> FromIterator<T> for Block<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Block<T> {
        Vec::from_iter(values).into()
    }
}

impl<T: Clone> Clone for Block<T> {
    /// The values in memory of their own.
    fn clone(&self) -> Block<T> {
        self.values.clone().into()
    }
}

impl<T: PartialEq> PartialEq for Block<T> {
    fn eq(&self, other: &Block<T>) -> bool {
        self.values == other.values
    }
}

impl<T: Eq> Eq for Block<T> {}

impl<T: fmt::Debug> fmt::Debug for Block<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.values.fmt(f)
    }
}

impl<T> Deref for Block<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.values
    }
}

impl<T> DerefMut for Block<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.values
    }
}

impl AsRef<[u8]> for Block<u8> {
    fn as_ref(&self) -> &[u8] {
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_came_back_is_lent_again_and_no_other() {
        let blocks = Blocks::<u8>::default();
        let first = blocks.lend(3);
        assert_eq!(*first, [0u8; 3]);
        let (place, second) = (first.as_ptr(), blocks.lend(3));
        assert_ne!(second.as_ptr(), place, "the first is lent");
        let copy = first.clone();
        drop((first, copy, Block::from(vec![4u8])));
        let again = blocks.lend(2);
        assert_eq!((again.len(), again.as_ptr()), (2, place));
        assert_eq!(blocks.lend(0).capacity(), 0, "neither a copy nor what was not lent is kept");
        drop(second);
        let grown = Blocks::<u8>::default();
        drop(grown.lend(63));
        assert_eq!(grown.lend(64).capacity(), 64, "no larger than it has to be");
        let small = Blocks::<u8>::up_to(10);
        drop((small.lend(10), small.lend(11)));
        assert_eq!(
            (small.lend(1).capacity(), small.lend(1).capacity()),
            (10, 1),
            "the larger one is not kept"
        );
    }
}
