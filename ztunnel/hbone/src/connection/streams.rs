// SPDX-License-Identifier: Apache-2.0
//! The table of open streams.

use slab::Slab;

use super::event::StreamId;
use super::recent::{Past, Recent};
use super::window::{SendWindow, StreamWindow};

/// One direction of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    /// Nothing but a header list may come: the answer, or for a server its own.
    Waiting,
    /// Data may flow.
    Open,
    /// END_STREAM has been seen or sent.
    Ended,
}

/// Whether the caller waits to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    None,
    /// Told 0 for want of stream window.
    ForStream,
    /// In the queue of those to be told.
    Queued,
    /// Told, and has not sent since.
    Told,
}

/// An open stream, or one that has ended with bytes the application has still to take.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) number: u32,
    /// What we send.
    pub(super) local: Half,
    /// What the peer sends.
    pub(super) remote: Half,
    pub(super) wish: Wish,
    /// Its turn among those that wait for the connection's window.
    pub(super) turn: u32,
    pub(super) send: SendWindow,
    pub(super) receive: StreamWindow,
}

impl Stream {
    /// Both directions have ended on the wire.
    pub(super) fn is_ended(&self) -> bool {
        self.local == Half::Ended && self.remote == Half::Ended
    }
}

/// Streams by slot and by number, and what became of earlier ones.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Slab<Stream>,
    /// (number, slot), ascending: numbers only ever rise.
    index: Vec<(u32, u32)>,
    recent: Recent,
    /// Streams in the table that have ended on the wire.
    lingering: u32,
}

impl Streams {
    /// All in the table.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Those that have not ended on the wire.
    pub(super) fn open(&self) -> usize {
        self.index.len() - self.lingering as usize
    }

    pub(super) fn highest(&self) -> u32 {
        self.recent.highest()
    }

    /// Notes a number as used. The stream may follow by [`Self::insert`].
    pub(super) fn begin(&mut self, number: u32) {
        self.recent.open(number);
    }

    /// Frames for this number may still arrive and mean no harm.
    pub(super) fn forgive(&mut self, number: u32) {
        self.recent.forgive(number);
    }

    pub(super) fn insert(&mut self, stream: Stream) -> StreamId {
        let number = stream.number;
        // There are never more than some hundred streams.
        let slot = self.slots.insert(stream) as u32;
        self.index.push((number, slot));
        StreamId { number, slot }
    }

    pub(super) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.slots.get(id.slot()).filter(|stream| stream.number == id.number)
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.slots.get_mut(id.slot()).filter(|stream| stream.number == id.number)
    }

    /// The stream of this number, or what became of it. A stream that has ended on the wire counts as past.
    pub(super) fn find(&self, number: u32) -> Result<StreamId, Past> {
        match self.index.binary_search_by_key(&number, |&(number, _)| number) {
            Ok(at) => {
                let id = StreamId { number, slot: self.index[at].1 };
                if self.get(id).is_some_and(Stream::is_ended) { Err(self.recent.judge(number)) } else { Ok(id) }
            }
            Err(_) => Err(self.recent.judge(number)),
        }
    }

    /// One direction has ended; both having done so, the stream lingers until it is removed.
    pub(super) fn end(&mut self, id: StreamId, half: impl FnOnce(&mut Stream) -> &mut Half) {
        if let Some(stream) = self.slots.get_mut(id.slot()).filter(|stream| stream.number == id.number) {
            let was = stream.is_ended();
            *half(stream) = Half::Ended;
            if stream.is_ended() && !was {
                self.lingering += 1;
            }
        }
    }

    pub(super) fn remove(&mut self, id: StreamId) -> Option<Stream> {
        self.get(id)?;
        let stream = self.slots.remove(id.slot());
        if stream.is_ended() {
            self.lingering -= 1;
        }
        if let Ok(at) = self.index.binary_search_by_key(&id.number, |&(number, _)| number) {
            self.index.remove(at);
        }
        if self.index.is_empty() && self.index.capacity() > KEPT {
            // An idle connection keeps little.
            self.index = Vec::new();
            self.slots = Slab::new();
        }
        Some(stream)
    }

    /// The highest open stream above `last`.
    pub(super) fn above(&self, last: u32) -> Option<StreamId> {
        let &(number, slot) = self.index.last()?;
        (number > last).then_some(StreamId { number, slot })
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (StreamId, &mut Stream)> {
        self.slots.iter_mut().map(|(slot, stream)| (StreamId { number: stream.number, slot: slot as u32 }, stream))
    }
}

/// Places kept for streams when none is open.
const KEPT: usize = 8;
