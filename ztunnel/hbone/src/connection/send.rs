// SPDX-License-Identifier: Apache-2.0
//! What the caller does: open and answer streams, send, take, end. Calls for a stream that is over do nothing.

use std::time::Instant;

use super::event::StreamId;
use super::state::{Connection, Life, Role, Table};
use super::streams::{Half, Stream, Wish};
use super::window::{SendWindow, StreamWindow};
use crate::budget::{OverBudget, Scope};
use crate::error::{ErrorCode, NoStream};
use crate::flood::Kind;
use crate::frame::{self, MIN_FRAME_SIZE};
use crate::header;
use crate::request::{ConnectAnswer, ConnectRequest};

impl Connection {
    /// Client: how many more streams may be opened now.
    pub fn request_room(&self) -> usize {
        let refused = self.role != Role::Client
            || self.is_going_away()
            || self.streams.highest() >= LAST_NUMBER
            || self.output.control.len() > self.options.control_limit / 2;
        if refused { 0 } else { (self.stream_limit() as usize).saturating_sub(self.streams.open()) }
    }

    /// Client: whether [`Self::request`] would open a stream now.
    pub fn may_request(&self) -> bool {
        self.request_room() > 0
    }

    /// Client: opens a stream. Its HEADERS are queued; data may follow at once, though peers promise to take it only after the
    /// answer.
    pub fn request(&mut self, now: Instant, request: &ConnectRequest) -> Result<StreamId, NoStream> {
        if self.role != Role::Client {
            return Err(NoStream::NotClient);
        }
        if self.is_going_away() {
            return Err(NoStream::GoingAway);
        }
        let number = match self.streams.highest() {
            0 => 1,
            LAST_NUMBER.. => return Err(NoStream::IdsExhausted),
            highest => highest + 2,
        };
        let limit = self.stream_limit();
        if self.streams.open() >= limit as usize {
            return Err(NoStream::AtLimit { limit });
        }
        if self.output.control.len() > self.options.control_limit / 2 {
            return Err(NoStream::Backlog);
        }
        let size = self.headers(number, false, |out| header::request(out, request));
        let limit = MIN_FRAME_SIZE as usize;
        if size > limit {
            return Err(NoStream::TooLarge { size, limit });
        }
        self.streams.begin(number);
        self.guard.flood.earn(Kind::Noise, EARNED_PER_STREAM);
        Ok(self.insert(now, number, Half::Open, Half::Waiting))
    }

    /// Server: answers a request. With a 2xx the tunnel stands; any other status ends the stream as [`Self::reject`] does.
    pub fn answer(&mut self, stream: StreamId, answer: &ConnectAnswer) {
        if !answer.is_success() {
            return self.reject(stream, answer.status);
        }
        if !self.is_unanswered(stream) {
            return;
        }
        let size = self.headers(stream.number, false, |out| header::answer(out, answer));
        if size > MIN_FRAME_SIZE as usize {
            // Only baggage can be that long, and it is worth nothing to the tunnel itself.
            let bare = ConnectAnswer { status: answer.status, baggage: None };
            self.headers(stream.number, false, |out| header::answer(out, &bare));
        }
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.local = Half::Open;
            self.output.unseen.push(stream.number);
        }
    }

    /// Server: refuses a request with a status and ends the stream, as ztunnel does: HEADERS with END_STREAM, then RST_STREAM
    /// with NO_ERROR against data already under way.
    pub fn reject(&mut self, stream: StreamId, status: u16) {
        if !self.is_unanswered(stream) {
            return;
        }
        let answer = ConnectAnswer { status, baggage: None };
        self.headers(stream.number, true, |out| header::answer(out, &answer));
        self.abort(stream, ErrorCode::NO_ERROR);
    }

    /// How many bytes one DATA frame of this stream may carry now: the least of its window, the connection's and the peer's
    /// MAX_FRAME_SIZE. After a 0 there is one [`super::Event::Writable`] when that changes; not so for a stream that cannot send at
    /// all ([`Self::can_send`]).
    pub fn send_capacity(&mut self, stream: StreamId) -> usize {
        let Some(entry) = self.streams.get_mut(stream).filter(|stream| stream.local == Half::Open) else { return 0 };
        let of_stream = entry.send.open();
        let most = of_stream.min(self.output.window.open());
        if most == 0 && matches!(entry.wish, Wish::None | Wish::Told) {
            if of_stream == 0 {
                entry.wish = Wish::ForStream;
            } else {
                self.output.turns.put(stream, entry);
            }
        }
        most.min(self.peer.max_frame_size) as usize
    }

    /// Whether anything can still be sent on this stream, now or once the windows open: it is answered, not finished, and the peer
    /// has not reset it.
    pub fn can_send(&self, stream: StreamId) -> bool {
        self.streams.get(stream).is_some_and(|stream| stream.local == Half::Open)
    }

    /// The header of a DATA frame. It spends the windows, so exactly `length` bytes must follow it. `None` if the stream cannot send,
    /// or not that much.
    pub fn data_header(&mut self, stream: StreamId, length: usize, end: bool) -> Option<[u8; 9]> {
        let size = u32::try_from(length).ok()?;
        let entry = self.streams.get_mut(stream).filter(|stream| stream.local == Half::Open)?;
        let most = entry.send.open().min(self.output.window.open()).min(self.peer.max_frame_size);
        if size > most {
            return None;
        }
        entry.send.spend(size);
        if entry.wish == Wish::Told {
            entry.wish = Wish::None;
        }
        self.output.window.spend(size);
        // A peer may well answer each frame with an update for the stream and one for the connection.
        self.guard.flood.earn(Kind::WindowUpdates, EARNED_PER_FRAME);
        if end {
            self.end_local(stream);
        }
        Some(frame::data_header(stream.number, length, end))
    }

    /// The application has taken `length` bytes of what `Data` handed out: they are credited to the peer.
    pub fn consumed(&mut self, now: Instant, stream: StreamId, length: usize) {
        let clock = self.clock(now);
        let Some(entry) = self.streams.get_mut(stream) else { return };
        let released = entry.receive.consume(u32::try_from(length).unwrap_or(u32::MAX)) as usize;
        if released > 0 {
            self.waiting.held -= released;
            self.options.budget.refund(released);
        }
        if entry.remote == Half::Ended {
            let is_over = entry.is_ended() && entry.receive.is_empty();
            if is_over && !self.waiting.stopped.iter().any(|&(stopped, _)| stopped == stream) {
                self.forget(stream);
            }
            return;
        }
        let room = self.waiting.held <= self.options.tunnel_limit / 2;
        let options = &self.options;
        entry.receive.resize(clock, (options.initial_window, options.max_window), &options.budget, room);
        if let Some(credit) = entry.receive.credit() {
            frame::window_update(&mut self.output.control, stream.number, credit);
        }
    }

    /// The caller must buffer `length` bytes of what `Data` handed out, because the application does not take them now. They are
    /// charged to stream, connection, pod and node until they are consumed or the stream ends. On an error nothing is
    /// charged, and the stream is to be reset with [`ErrorCode::ENHANCE_YOUR_CALM`].
    pub fn hold(&mut self, stream: StreamId, length: usize) -> Result<(), OverBudget> {
        let Some(entry) = self.streams.get_mut(stream) else { return Ok(()) };
        let length = entry.receive.can_hold(length);
        let bytes = length as usize;
        if entry.receive.held() as usize + bytes > self.options.stream_limit {
            return Err(OverBudget { scope: Scope::Stream, limit: self.options.stream_limit });
        }
        if self.waiting.held + bytes > self.options.tunnel_limit {
            return Err(OverBudget { scope: Scope::Tunnel, limit: self.options.tunnel_limit });
        }
        self.options.budget.charge(bytes)?;
        self.waiting.held += bytes;
        entry.receive.hold(length);
        Ok(())
    }

    /// The application has sent its FIN: END_STREAM on an empty DATA frame, queued as a control frame. The same in the caller's own
    /// order is `data_header(stream, 0, true)`. A server that has not answered yet does nothing.
    pub fn finish(&mut self, stream: StreamId) {
        if self.can_send(stream) {
            self.output.control.extend_from_slice(&frame::data_header(stream.number, 0, true));
            self.end_local(stream);
        }
    }

    /// Ends a stream at once, whatever its state: RST_STREAM if it has not ended on the wire. An application's TCP reset is
    /// [`ErrorCode::CANCEL`].
    pub fn reset(&mut self, stream: StreamId, code: ErrorCode) {
        self.abort(stream, code);
    }

    fn stream_limit(&self) -> u32 {
        self.options.max_streams.min(self.peer.max_streams)
    }

    fn is_unanswered(&self, stream: StreamId) -> bool {
        self.streams.get(stream).is_some_and(|stream| stream.local == Half::Waiting) && self.life != Life::Ended
    }

    pub(super) fn insert(&mut self, now: Instant, number: u32, local: Half, remote: Half) -> StreamId {
        let receive = StreamWindow::new(self.options.initial_window, self.clock(now));
        let send = SendWindow::new(self.peer.initial_window);
        self.streams.insert(Stream { number, local, remote, wish: Wish::None, turn: 0, send, receive })
    }

    /// Queues a HEADERS frame and returns the size of its block. A block that does not fit one frame is taken back.
    fn headers(&mut self, number: u32, end: bool, block: impl FnOnce(&mut Vec<u8>)) -> usize {
        let before = self.output.control.len();
        let start = frame::start_headers(&mut self.output.control);
        if self.peer.table == Table::Due {
            header::no_table(&mut self.output.control);
        }
        block(&mut self.output.control);
        let size = self.output.control.len() - start;
        if size > MIN_FRAME_SIZE as usize {
            self.output.control.truncate(before);
            return size;
        }
        frame::end_headers(&mut self.output.control, start, number, end);
        if self.peer.table == Table::Due {
            self.peer.table = Table::Told;
        }
        size
    }

    fn end_local(&mut self, id: StreamId) {
        self.streams.end(id, |stream| &mut stream.local);
        if self.streams.get(id).is_some_and(|stream| stream.is_ended() && stream.receive.is_empty()) {
            self.forget(id);
        }
    }
}

/// The last number a client may use.
const LAST_NUMBER: u32 = (1 << 31) - 1;
/// Frames without content a peer may send for each stream: a reset that crosses ours, an empty DATA frame.
pub(super) const EARNED_PER_STREAM: u16 = 2;
/// WINDOW_UPDATEs a peer may send for each DATA frame it gets.
const EARNED_PER_FRAME: u16 = 4;
