//! How many items a node has room for, and what follows for a whole flow.

use serde::Serialize;

/// How many items a node has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Room {
    /// Items in work, or done and waiting for their turn to leave. 0 counts as 1.
    pub slots: usize,
    /// Items that wait for the next node. 0 counts as 1.
    pub queue: usize,
}

impl Room {
    pub(super) fn slots(self) -> usize {
        self.slots.max(1)
    }

    pub(super) fn queue(self) -> usize {
        self.queue.max(1)
    }
}

/// The most items that can be in flight in a flow whose nodes have these rooms: one that the source has pulled
/// and not yet handed over, slots + queue of each node, and one in the hands of the consumer. A regroup is a
/// room with as many slots as one push releases at most (and at least 1); what it holds back comes on top.
pub fn peak_items(rooms: &[Room]) -> usize {
    1 + rooms.iter().map(|room| room.slots() + room.queue()).sum::<usize>() + 1
}

/// The most bytes that can be on loan when each item weighs `item_bytes`, for the `rooms` from the weighed node
/// to the regroup (1 slot, no queue) or consumer that takes the item: as many items as there is room for, and
/// one in hand, but no more than the budget of `memory_bytes` holds. A heavier item runs alone.
pub fn peak_bytes(rooms: &[Room], item_bytes: u64, memory_bytes: u64) -> u64 {
    let n_items = rooms.iter().map(|room| room.slots() + room.queue()).sum::<usize>() as u64 + 1;
    let item_bytes = item_bytes.min(memory_bytes);
    if item_bytes == 0 {
        return 0;
    }
    n_items.min(memory_bytes / item_bytes) * item_bytes
}
