// SPDX-License-Identifier: Apache-2.0
//! Who is told first that it may send, when the connection's window was used up and opens a little.

use std::collections::VecDeque;

use super::event::StreamId;
use super::streams::{Stream, Wish};

/// Streams to be told that they may send, in the order of their turns.
///
/// All that wait are told at once, and the first may use up all there is. Who was told and got nothing keeps its turn, who has sent goes to
/// the end: so each comes to be the first.
#[derive(Debug, Default)]
pub(super) struct Turns {
    queue: VecDeque<(u32, StreamId)>,
    next: u32,
}

impl Turns {
    /// Puts a stream in the queue, with the turn it has kept or a new one.
    pub(super) fn put(&mut self, id: StreamId, stream: &mut Stream) {
        if stream.wish != Wish::Told {
            stream.turn = self.next;
            self.next = self.next.wrapping_add(1);
        }
        stream.wish = Wish::Queued;
        let turn = stream.turn;
        self.queue.insert(self.place(turn), (turn, id));
    }

    /// A stream is gone: its entry must not outlive it, or a peer that keeps the connection's window shut and its streams coming
    /// and going makes us keep one for each.
    pub(super) fn leave(&mut self, id: StreamId, stream: &Stream) {
        if stream.wish == Wish::Queued {
            let at = self.place(stream.turn);
            if self.queue.get(at).is_some_and(|&(_, other)| other == id) {
                self.queue.remove(at);
            }
        }
    }

    /// Where this turn stands or would stand. Turns come round after 2^32, so only their distance says which is first.
    fn place(&self, turn: u32) -> usize {
        self.queue.partition_point(|&(other, _)| (other.wrapping_sub(turn) as i32) < 0)
    }

    pub(super) fn take(&mut self) -> Option<StreamId> {
        self.queue.pop_front().map(|(_, id)| id)
    }
}

#[cfg(test)]
mod tests {
    use super::super::streams::Half;
    use super::super::window::{SendWindow, StreamWindow};
    use super::*;

    fn streams() -> Vec<(StreamId, Stream)> {
        (0..4u32)
            .map(|slot| {
                let (send, receive) = (SendWindow::new(100), StreamWindow::new(100, 0));
                let (local, remote) = (Half::Open, Half::Open);
                let stream = Stream { number: 2 * slot + 1, local, remote, wish: Wish::None, turn: 0, send, receive };
                (StreamId { number: stream.number, slot }, stream)
            })
            .collect()
    }

    #[test]
    fn who_leaves_gives_up_its_place_and_no_other() {
        let mut streams = streams();
        let mut turns = Turns { next: u32::MAX - 1, ..Turns::default() };
        for (id, stream) in &mut streams {
            turns.put(*id, stream);
        }
        let (third, gone) = &streams[2];
        turns.leave(*third, gone);
        // One that has been told already, or never asked, has no place to give up.
        let first = turns.take();
        streams[0].1.wish = Wish::Told;
        turns.leave(streams[0].0, &streams[0].1);
        let rest: Vec<_> = std::iter::from_fn(|| turns.take()).collect();
        assert_eq!((first, rest), (Some(streams[0].0), vec![streams[1].0, streams[3].0]));
    }

    #[test]
    fn when_there_is_only_enough_for_one_each_comes_to_be_that_one() {
        let mut streams = streams();
        // Just before the turns come round.
        let mut turns = Turns { next: u32::MAX - 5, ..Turns::default() };
        for (id, stream) in &mut streams {
            turns.put(*id, stream);
        }
        let mut served = Vec::new();
        for _ in 0..12 {
            let told: Vec<_> = std::iter::from_fn(|| turns.take()).collect();
            assert_eq!(told.len(), 4);
            for (n, id) in told.into_iter().enumerate() {
                let (id, stream) = &mut streams[id.slot()];
                // The first sends; all ask again.
                stream.wish = if n == 0 { Wish::None } else { Wish::Told };
                turns.put(*id, stream);
                if n == 0 {
                    served.push(id.slot());
                }
            }
        }
        assert_eq!(served, [0, 1, 2, 3].repeat(3));
    }
}
