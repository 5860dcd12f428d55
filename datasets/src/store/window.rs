//! Small parts of a large object, read in an order that mostly ascends.

use bytes::Bytes;

use super::{ObjectName, Store, StoreError};

/// The least and the most that is read at once.
const STEP_BYTES: [u64; 2] = [4 << 10, 256 << 10];

/// What was read last of an object, and how much is read next.
pub(crate) struct ByteWindow<'a> {
    /// Where more of it is; `None` where all of it is held.
    object: Option<(&'a Store, &'a ObjectName)>,
    object_bytes: u64,
    start: u64,
    bytes: Bytes,
    step: u64,
}

impl<'a> ByteWindow<'a> {
    /// A window on an object of so many bytes.
    pub(crate) fn new(store: &'a Store, object: &'a ObjectName, object_bytes: u64) -> ByteWindow<'a> {
        let object = Some((store, object));
        ByteWindow { object, object_bytes, start: 0, bytes: Bytes::new(), step: STEP_BYTES[0] }
    }

    /// A window on bytes that are held, which begin at `start` of their object: nothing is waited for.
    pub(crate) fn held(start: u64, bytes: Bytes) -> ByteWindow<'static> {
        let object_bytes = start + bytes.len() as u64;
        ByteWindow { object: None, object_bytes, start, bytes, step: 0 }
    }

    /// `length` bytes from `start` on, which the object has; fewer where only its start is held.
    pub(crate) async fn at(&mut self, start: u64, length: u64) -> Result<Bytes, StoreError> {
        let end = start + length;
        let held = self.start..self.start + self.bytes.len() as u64;
        if let Some((store, object)) = self.object
            && (start < held.start || end > held.end)
        {
            // What lies close together is read in larger steps, and what lies far apart in smaller ones.
            let skipped = start.saturating_sub(held.end);
            let [least, most] = STEP_BYTES;
            self.step = if skipped > self.step { self.step / 2 } else { self.step * 2 }.clamp(least, most);
            let until = (start + length.max(self.step)).min(self.object_bytes);
            self.bytes = store.read_exactly(object, start..until).await?;
            self.start = start;
        }
        let first = start.saturating_sub(self.start).min(self.bytes.len() as u64) as usize;
        let last = (first as u64).saturating_add(length).min(self.bytes.len() as u64) as usize;
        Ok(self.bytes.slice(first..last))
    }
}
