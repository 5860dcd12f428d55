//! What a local disk does better than others: it reads into memory that is there, and takes advice.

use std::ops::Range;

use bytes::Bytes;

use super::{Root, Store, StoreError};
use crate::blocks::Blocks;

impl Store {
    /// As [`Store::get_range`]; from a local folder, where nothing of it waits but the calling thread does, in one of `blocks`.
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
        let mut block = blocks.lend(range.end.saturating_sub(range.start) as usize);
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
