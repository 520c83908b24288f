// SPDX-License-Identifier: Apache-2.0
//! Bytes on their way to an application or another socket that its buffer has no room for yet.

use std::collections::VecDeque;
use std::io::IoSlice;

use super::socket::{Socket, Wrote};

/// Bytes that wait for a sink. Most connections never have any, so an empty queue is one word.
#[derive(Default)]
pub(in crate::engine) struct Queue(Option<Box<Held>>);

/// In chunks: growing never moves them.
#[derive(Default)]
struct Held {
    chunks: VecDeque<Vec<u8>>,
    /// How much of the first chunk is gone.
    taken: usize,
    /// Bytes at the front that are our own and that no peer must be credited for.
    own: usize,
}

impl Queue {
    pub(in crate::engine) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// How many bytes wait.
    pub(in crate::engine) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |held| held.chunks.iter().map(Vec::len).sum::<usize>() - held.taken)
    }

    pub(in crate::engine) fn put(&mut self, mut bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let chunks = &mut self.0.get_or_insert_default().chunks;
        if let Some(last) = chunks.back_mut() {
            let fits = (CHUNK - last.len().min(CHUNK)).min(bytes.len());
            last.extend_from_slice(&bytes[..fits]);
            bytes = &bytes[fits..];
        }
        for chunk in bytes.chunks(CHUNK) {
            chunks.push_back(chunk.to_vec());
        }
    }

    /// Puts bytes of our own in front of all that waits; nothing of it may have been taken yet.
    pub(in crate::engine) fn put_own(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let held = self.0.get_or_insert_default();
        held.chunks.push_front(bytes.to_vec());
        held.own += bytes.len();
    }

    /// Writes what the socket takes; answers how many of the bytes were somebody's.
    pub(in crate::engine) fn write_to(&mut self, socket: &mut Socket) -> Wrote {
        let Some(held) = &self.0 else { return Wrote::Nothing };
        let skip = held.taken;
        let pieces = held.chunks.iter().enumerate().take(PIECES);
        let pieces: Vec<_> = pieces.map(|(at, chunk)| IoSlice::new(&chunk[if at == 0 { skip } else { 0 }..])).collect();
        match socket.write_pieces(&pieces) {
            Wrote::Bytes(count) => Wrote::Bytes(self.take(count)),
            other => other,
        }
    }

    /// Throws everything away; answers how many of the bytes were somebody's.
    pub(in crate::engine) fn discard(&mut self) -> usize {
        self.take(self.len())
    }

    fn take(&mut self, count: usize) -> usize {
        let Some(held) = &mut self.0 else { return 0 };
        held.taken += count;
        while let Some(first) = held.chunks.front().filter(|first| first.len() <= held.taken) {
            held.taken -= first.len();
            held.chunks.pop_front();
        }
        let own = count.min(held.own);
        held.own -= own;
        if held.chunks.is_empty() {
            self.0 = None;
        }
        count - own
    }
}

/// Size of a chunk.
const CHUNK: usize = 64 * 1024;
/// Chunks written at once.
const PIECES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_bytes_go_before_what_came_while_a_request_waited() {
        let mut queue = Queue::default();
        queue.put(b"data");
        queue.put_own(b"header");
        let chunks: Vec<_> = queue.0.iter().flat_map(|held| &held.chunks).flatten().copied().collect();
        assert_eq!(chunks, b"headerdata");
        assert_eq!(queue.take(8), 2, "two bytes of the peer's");
    }

    #[test]
    fn a_queue_gives_back_what_was_put_in_and_counts_its_own_bytes_apart() {
        let mut queue = Queue::default();
        queue.put_own(b"header");
        queue.put(&vec![7; CHUNK + 10]);
        assert_eq!(queue.take(4), 0);
        assert_eq!(queue.take(5), 3);
        assert_eq!(queue.discard(), CHUNK + 7);
        assert!(queue.is_empty());
        queue.put(b"x");
        assert_eq!(queue.take(1), 1);
        assert!(queue.is_empty());
    }
}
