// SPDX-License-Identifier: Apache-2.0
//! A byte buffer with a filled middle: bytes are put at the end and taken from the front, and room is initialised only once.
//!
//! Used between sockets, TLS and HBONE; pooled per data thread. Pure.

/// Bytes `start..end` are filled, everything behind `end` is room.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// An empty buffer with that much room.
    pub fn with_room(room: usize) -> Self {
        Self { bytes: vec![0; room], start: 0, end: 0 }
    }

    /// The filled bytes.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The filled bytes, to be changed in place.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// The room behind the filled bytes.
    pub fn room_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.end..]
    }

    /// How many bytes are filled.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Nothing filled.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Size of the allocation.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The first `count` bytes of the room are filled now.
    pub fn fill(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    /// Takes `count` bytes from the front.
    pub fn take(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            self.clear();
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Makes sure `count` bytes of room follow the filled ones: by moving them to the front, else by growing.
    pub fn reserve(&mut self, count: usize) {
        if self.bytes.len() - self.end >= count {
            return;
        }
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.bytes.len() - self.end < count {
            self.bytes.resize(self.end + count, 0);
        }
    }

    /// Appends, growing if it must.
    pub fn put(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.bytes[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_the_order_they_went_in() {
        let mut buffer = Buffer::with_room(8);
        buffer.put(b"hello");
        buffer.take(4);
        assert_eq!(buffer.filled(), b"o");
        buffer.reserve(7);
        assert_eq!((buffer.filled(), buffer.size()), (&b"o"[..], 8), "moved, not grown");
        buffer.put(b" brave new world");
        assert_eq!(buffer.filled(), b"o brave new world");
        buffer.take(100);
        assert!(buffer.is_empty());
        buffer.room_mut()[..2].copy_from_slice(b"ok");
        buffer.fill(2);
        assert_eq!(buffer.filled(), b"ok");
    }
}
