// SPDX-License-Identifier: Apache-2.0
//! Per-thread pools of large buffers and of pipes: a connection has one only while it holds something.

use std::rc::Rc;

use crate::net::{Buffer, Pipe};

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

/// Pipes that nobody uses at the moment.
pub(super) struct Pipes {
    free: Vec<Lent>,
    /// Every pipe there is holds a clone.
    all: Rc<()>,
    /// How many there may be, two descriptors each. Connections that find none copy.
    most: usize,
}

/// A pipe of the pool.
pub(super) struct Lent {
    pub(super) pipe: Pipe,
    _counted: Rc<()>,
}

impl Pipes {
    pub(super) fn new(most: usize) -> Self {
        Self { free: Vec::new(), all: Rc::new(()), most }
    }

    /// An empty pipe; none if there are as many as there may be, or no more descriptors.
    pub(super) fn take(&mut self) -> Option<Box<Lent>> {
        if let Some(lent) = self.free.pop() {
            return Some(Box::new(lent));
        }
        if Rc::strong_count(&self.all) > self.most {
            return None;
        }
        let pipe = Pipe::new(PIPE_ROOM).ok()?;
        Some(Box::new(Lent { pipe, _counted: Rc::clone(&self.all) }))
    }

    /// Takes back a pipe that is empty again.
    pub(super) fn give(&mut self, slot: &mut Option<Box<Lent>>) {
        if self.free.len() < KEPT
            && let Some(lent) = slot.take_if(|lent| lent.pipe.held() == 0)
        {
            self.free.push(*lent);
        }
    }
}

/// Sixteen full records with their overhead, and control frames beside them.
pub(super) const ROOM: usize = 272 * 1024;
/// What a quiet thread keeps.
const KEPT: usize = 8;
/// What a pipe holds if the kernel grants it.
const PIPE_ROOM: i32 = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_pipes_and_those_that_come_back_are_used_again() {
        let mut pipes = Pipes::new(3);
        let mut lent: Vec<_> = (0..3).map(|_| pipes.take()).collect();
        assert!(lent.iter().all(Option::is_some));
        assert!(pipes.take().is_none());
        pipes.give(&mut lent[0]);
        assert!(lent[0].is_none() && pipes.take().is_some());
        drop(lent);
        assert!(pipes.take().is_some(), "those that were dropped count no more");
    }
}
