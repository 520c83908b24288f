// SPDX-License-Identifier: Apache-2.0
//! Per-thread pools of large buffers: a connection has one only while it holds something.

use crate::net::Buffer;

/// Buffers of [`ROOM`] bytes that nobody uses at the moment.
pub(super) struct Buffers {
    free: Vec<Buffer>,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self { free: Vec::new() }
    }

    /// An empty buffer.
    pub(super) fn take(&mut self) -> Buffer {
        self.free.pop().unwrap_or_else(|| Buffer::with_room(ROOM))
    }

    /// Makes sure there is one in `slot`.
    pub(super) fn fill(&mut self, slot: &mut Buffer) {
        if slot.size() == 0 {
            *slot = self.take();
        }
    }

    /// Takes a buffer back if it is empty.
    pub(super) fn give(&mut self, slot: &mut Buffer) {
        if !slot.is_empty() || slot.size() == 0 {
            return;
        }
        let mut buffer = std::mem::take(slot);
        buffer.clear();
        // One that was never of this pool, or had to grow far beyond the usual, goes back to the allocator.
        if self.free.len() < KEPT && (ROOM..=2 * ROOM).contains(&buffer.size()) {
            self.free.push(buffer);
        }
    }
}

/// Sixteen full records with their overhead, and control frames beside them.
pub(super) const ROOM: usize = 272 * 1024;
/// What a quiet thread keeps.
const KEPT: usize = 8;
