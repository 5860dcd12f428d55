//! What a local disk does better than others: it reads into memory that is there, and takes advice.

use std::ops::Range;

use bytes::Bytes;

use super::{Root, Store, StoreError};
use crate::blocks::Blocks;

/// Bytes of a block, at most: few groups of rows are as large.
const BLOCK_BYTES_MAX: usize = 1 << 30;

impl Store {
    /// As [`Store::get_range`], and from a local folder in one of `blocks`: then it blocks the calling thread, and is to be called
    /// where that may wait.
    ///
    /// # Errors
    /// As [`Store::get_range`].
    pub async fn get_range_in(
        &self,
        key: &str,
        range: Range<u64>,
        blocks: &Blocks<u8>,
    ) -> Result<Bytes, StoreError> {
        let Root::Local(local) = &self.root else { return self.get_range(key, range).await };
        let length = range.end.saturating_sub(range.start);
        // What claims to be larger is read as it comes.
        let Some(length) = usize::try_from(length).ok().filter(|length| *length <= BLOCK_BYTES_MAX) else {
            return self.get_range(key, range).await;
        };
        let mut block = blocks.lend(length);
        let came = local.read_into(&key.into(), range.start, &mut block);
        let came = came.map_err(|error| self.explain_io("read", key, &error))?;
        block.truncate(came);
        Ok(Bytes::from_owner(block))
    }

    /// Says that a range of an object will be read soon, in any order. Where the object is no file of a local folder, or there is
    /// none, nothing happens.
    pub fn expect(&self, key: &str, range: Range<u64>) {
        if let Root::Local(local) = &self.root {
            // Whoever reads it is told what is wrong.
            let _ = local.expect(&key.into(), &range);
        }
    }
}
