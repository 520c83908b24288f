// SPDX-License-Identifier: Apache-2.0
//! What the peer does, frame by frame (RFC 9113 §5, §6). Header lists are in `receive_headers`.

use std::time::Instant;

use super::event::{Event, ResetReason, StreamId};
use super::keepalive::{DRAIN, KEEPALIVE};
use super::recent::Past;
use super::state::{Connection, Life, Role, Table};
use super::streams::{Half, Wish};
use crate::error::{ConnectionError, ErrorCode};
use crate::flood::Kind;
use crate::frame::{self, MAX_FRAME_SIZE, MIN_FRAME_SIZE, Piece, setting_id};

impl Connection {
    /// The next thing that happened. Call until `None`: then all input is used up and nothing else is to be told. The caller
    /// may act on streams between calls. After an error, write what is queued and close.
    pub fn next_event<'i>(&mut self, now: Instant, input: &mut &'i [u8]) -> Result<Option<Event<'i>>, ConnectionError> {
        if self.life == Life::Ended {
            return Err(ConnectionError::Ended);
        }
        if !input.is_empty() {
            self.guard.keepalive.heard(now, self.options.ping_timeout);
        }
        self.advance(now, input).map_err(|error| self.fail(error))
    }

    /// Directly after [`Event::Data`], with the input as it was left: whether that stream's [`Event::End`] is known to follow in it, with no more data before.
    /// Then the application's bytes and its FIN may leave in one packet. `false` says nothing.
    pub fn end_follows(&self, stream: StreamId, input: &[u8]) -> bool {
        self.input.reader.end_follows(stream.number, input)
    }

    /// Directly after [`Event::Request`], with the input as it was left: whether the first bytes of that stream are in it.
    pub fn data_follows(&self, stream: StreamId, input: &[u8]) -> bool {
        self.input.reader.data_follows(stream.number, input)
    }

    fn advance<'i>(&mut self, now: Instant, input: &mut &'i [u8]) -> Result<Option<Event<'i>>, ConnectionError> {
        loop {
            if let Some(event) = self.pending() {
                return Ok(Some(event));
            }
            let Some(piece) = self.input.reader.next(input)? else { return Ok(None) };
            let queued = self.output.control.len();
            let event = self.take(now, piece)?;
            self.output.forced += self.output.control.len() - queued;
            let limit = self.options.control_limit;
            if self.output.forced > limit || self.output.control.len() > limit * OWN_CONTROL {
                return Err(ConnectionError::ControlBacklog { queued: self.output.control.len() });
            }
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// What is to be told without more input.
    fn pending(&mut self) -> Option<Event<'static>> {
        if let Some(event) = self.input.reading.ended.take().and_then(|stream| self.end_remote(stream)) {
            return Some(event);
        }
        if self.role == Role::Client
            && let Some(last) = self.peer.last_stream
            && let Some(stream) = self.streams.above(last)
        {
            self.forget(stream);
            return Some(Event::Reset { stream, code: ErrorCode::REFUSED_STREAM, reason: ResetReason::NotProcessed });
        }
        if let Some(event) = self.stopped_and_empty() {
            return Some(event);
        }
        while self.output.window.open() > 0 {
            let stream = self.output.turns.take()?;
            let Some(entry) = self.streams.get_mut(stream) else { continue };
            if entry.send.open() == 0 {
                entry.wish = Wish::ForStream;
                continue;
            }
            entry.wish = Wish::Told;
            if entry.local == Half::Open {
                return Some(Event::Writable { stream });
            }
        }
        None
    }

    /// A stream that was reset behind its end, once the application has all of it.
    fn stopped_and_empty(&mut self) -> Option<Event<'static>> {
        let is_over = |stream| self.streams.get(stream).is_none_or(|entry| entry.receive.is_empty());
        while let Some(at) = self.waiting.stopped.iter().position(|&(stream, _)| is_over(stream)) {
            let (stream, code) = self.waiting.stopped.swap_remove(at);
            if self.streams.get(stream).is_some() {
                self.forget(stream);
                return Some(Event::Reset { stream, code, reason: ResetReason::Peer });
            }
        }
        None
    }

    fn take<'i>(&mut self, now: Instant, piece: Piece<'i>) -> Result<Option<Event<'i>>, ConnectionError> {
        let opens = matches!(piece, Piece::Setting { .. } | Piece::SettingsEnd);
        if !self.guard.opening.settings_seen && !opens {
            return Err(ConnectionError::Protocol("the first frame is not SETTINGS"));
        }
        match piece {
            Piece::Data(bytes) => return Ok(self.data(bytes)),
            Piece::DataStart { stream, length } => return self.data_start(now, stream, length),
            Piece::DataEnd { end } => return self.data_end(now, end),
            Piece::Padding(length) => self.padding(now, length),
            Piece::HeadersStart => self.input.block_began = Some(now),
            Piece::Headers { stream, end, block } => {
                self.input.block_began = None;
                return self.headers_received(now, stream, end, &block);
            }
            Piece::Setting { id, value } => self.setting(id, value)?,
            Piece::SettingsEnd => {
                self.spend(Kind::Settings, now)?;
                self.guard.opening.settings_seen = true;
                frame::settings_ack(&mut self.output.control);
                return Ok(Some(Event::Settings));
            }
            Piece::SettingsAck => {
                self.spend(Kind::Settings, now)?;
                self.guard.opening.ack_seen = true;
            }
            Piece::Ping { ack: false, payload } => {
                self.spend(Kind::Pings, now)?;
                frame::ping(&mut self.output.control, true, payload);
            }
            Piece::Ping { ack: true, payload } => {
                let is_expected = match payload {
                    KEEPALIVE => self.guard.keepalive.pong(now, self.options.ping_interval),
                    DRAIN => self.announcement_arrived(),
                    _ => false,
                };
                if !is_expected {
                    self.spend(Kind::Noise, now)?;
                }
            }
            Piece::GoAway { last, code } => {
                self.spend(Kind::Noise, now)?;
                // The last stream must not rise again (RFC 9113 §6.8).
                self.peer.last_stream = Some(self.peer.last_stream.map_or(last, |before| before.min(last)));
                return Ok(Some(Event::GoAway { code }));
            }
            Piece::Reset { stream, code } => return self.reset_received(now, stream, code),
            Piece::WindowUpdate { stream, increment } => return self.window_update(now, stream, increment),
            Piece::Ignored => self.spend(Kind::Noise, now)?,
        }
        Ok(None)
    }

    /// One more of what there can be too much of.
    pub(super) fn spend(&mut self, kind: Kind, now: Instant) -> Result<(), ConnectionError> {
        if self.guard.flood.take(kind, now) { Ok(()) } else { Err(ConnectionError::Flood(kind)) }
    }

    fn data_start<'i>(&mut self, now: Instant, number: u32, length: u32) -> Result<Option<Event<'i>>, ConnectionError> {
        self.input.reading.stream = None;
        self.input.reading.empty = length == 0;
        if !self.input.window.arrive(length) {
            return Err(ConnectionError::FlowControl("more data than the connection's window"));
        }
        let id = match self.streams.find(number) {
            Ok(id) => id,
            Err(past) => {
                self.late(now, number, past)?;
                return Ok(None);
            }
        };
        let Some(stream) = self.streams.get_mut(id) else { return Ok(None) };
        match stream.remote {
            Half::Waiting => self.fault(now, id, ErrorCode::PROTOCOL_ERROR, "data before the answer").map(Some),
            Half::Ended => self.fault(now, id, ErrorCode::STREAM_CLOSED, "data behind END_STREAM").map(Some),
            Half::Open if !stream.receive.arrive(length) => {
                self.fault(now, id, ErrorCode::FLOW_CONTROL_ERROR, "more data than the stream's window").map(Some)
            }
            Half::Open => {
                self.input.reading.stream = Some(id);
                Ok(None)
            }
        }
    }

    fn data<'i>(&mut self, bytes: &'i [u8]) -> Option<Event<'i>> {
        // A frame has at most 2^24 bytes.
        self.credit(bytes.len() as u32);
        let stream = self.input.reading.stream?;
        self.streams.get(stream)?;
        Some(Event::Data { stream, bytes })
    }

    /// Padding counts as data in flow control, and nobody will ever consume it.
    fn padding(&mut self, now: Instant, length: u32) {
        self.credit(length);
        if let Some(stream) = self.input.reading.stream {
            self.consumed(now, stream, length as usize);
        }
    }

    fn credit(&mut self, length: u32) {
        if let Some(credit) = self.input.window.received(length) {
            frame::window_update(&mut self.output.control, 0, credit);
        }
    }

    fn data_end<'i>(&mut self, now: Instant, end: bool) -> Result<Option<Event<'i>>, ConnectionError> {
        if self.input.reading.empty && !end {
            self.spend(Kind::Noise, now)?;
        }
        let stream = self.input.reading.stream.take();
        Ok(stream.filter(|_| end).and_then(|stream| self.end_remote(stream)))
    }

    /// The peer has sent END_STREAM.
    pub(super) fn end_remote(&mut self, stream: StreamId) -> Option<Event<'static>> {
        self.streams.get(stream)?;
        self.streams.end(stream, |stream| &mut stream.remote);
        if self.streams.get(stream).is_some_and(|stream| stream.is_ended() && stream.receive.is_empty()) {
            self.forget(stream);
        }
        Some(Event::End { stream })
    }

    /// A frame with content for a stream that is not open.
    pub(super) fn late(&mut self, now: Instant, number: u32, past: Past) -> Result<(), ConnectionError> {
        match past {
            Past::Idle => Err(ConnectionError::Protocol("a frame on a stream that was never opened")),
            Past::Skipped => Err(ConnectionError::Protocol("a frame on a stream that was passed over")),
            Past::Forgiven => Ok(()),
            Past::Closed => {
                self.spend(Kind::Faults, now)?;
                frame::reset(&mut self.output.control, number, ErrorCode::STREAM_CLOSED.0);
                self.streams.forgive(number);
                Ok(())
            }
        }
    }

    /// The peer broke the rules on one stream: it is reset, the others go on.
    pub(super) fn fault(
        &mut self,
        now: Instant,
        stream: StreamId,
        code: ErrorCode,
        reason: &'static str,
    ) -> Result<Event<'static>, ConnectionError> {
        self.spend(Kind::Faults, now)?;
        self.abort(stream, code);
        Ok(Event::Reset { stream, code, reason: ResetReason::Fault(reason) })
    }

    /// The caller has found a fault of the peer that only it can see, such as a request for an address that is not its own. It
    /// counts like those found here; an error ends the connection as one from [`Self::next_event`] does.
    pub fn fault_found(&mut self, now: Instant) -> Result<(), ConnectionError> {
        if self.life == Life::Ended {
            return Ok(());
        }
        self.spend(Kind::Faults, now).map_err(|error| self.fail(error))
    }

    fn reset_received<'i>(
        &mut self,
        now: Instant,
        number: u32,
        code: ErrorCode,
    ) -> Result<Option<Event<'i>>, ConnectionError> {
        let stream = match self.streams.find(number) {
            Ok(stream) => stream,
            Err(Past::Idle) => return Err(ConnectionError::Protocol("RST_STREAM on a stream that was never opened")),
            Err(_) => return self.spend(Kind::Noise, now).map(|()| None),
        };
        let Some(entry) = self.streams.get(stream) else { return Ok(None) };
        let (local, remote) = (entry.local, entry.remote);
        // An application on this machine may be connected before the next frame is read: that its peer was answered says nothing then.
        if local == Half::Waiting || self.output.unseen.contains(&number) {
            self.spend(Kind::Resets, now)?;
        }
        if local != Half::Waiting && remote == Half::Ended {
            self.streams.end(stream, |stream| &mut stream.local);
            self.waiting.stopped.push((stream, code));
            return Ok(None);
        }
        self.forget(stream);
        Ok(Some(Event::Reset { stream, code, reason: ResetReason::Peer }))
    }

    fn window_update<'i>(
        &mut self,
        now: Instant,
        number: u32,
        increment: u32,
    ) -> Result<Option<Event<'i>>, ConnectionError> {
        self.spend(Kind::WindowUpdates, now)?;
        if number == 0 {
            if increment == 0 {
                return Err(ConnectionError::Protocol("WINDOW_UPDATE of 0 on the connection"));
            }
            if !self.output.window.add(increment) {
                return Err(ConnectionError::FlowControl("the connection's window raised over 2^31-1"));
            }
            return Ok(None);
        }
        let id = match self.streams.find(number) {
            Ok(id) => id,
            Err(Past::Idle) => {
                return Err(ConnectionError::Protocol("WINDOW_UPDATE on a stream that was never opened"));
            }
            Err(_) => return Ok(None),
        };
        if increment == 0 {
            return self.fault(now, id, ErrorCode::PROTOCOL_ERROR, "WINDOW_UPDATE of 0").map(Some);
        }
        let Some(stream) = self.streams.get_mut(id) else { return Ok(None) };
        if !stream.send.add(increment) {
            return self.fault(now, id, ErrorCode::FLOW_CONTROL_ERROR, "window raised over 2^31-1").map(Some);
        }
        if stream.wish == Wish::ForStream && stream.send.open() > 0 {
            self.output.turns.put(id, stream);
        }
        Ok(None)
    }

    fn setting(&mut self, id: u16, value: u32) -> Result<(), ConnectionError> {
        match id {
            setting_id::HEADER_TABLE_SIZE if value < DEFAULT_TABLE && self.peer.table == Table::Assumed => {
                self.peer.table = Table::Due;
            }
            setting_id::ENABLE_PUSH if value > 1 || (value == 1 && self.role == Role::Client) => {
                return Err(ConnectionError::Protocol("ENABLE_PUSH with a value that is not allowed"));
            }
            setting_id::MAX_CONCURRENT_STREAMS => self.peer.max_streams = value,
            setting_id::INITIAL_WINDOW_SIZE => self.initial_window_changed(value)?,
            setting_id::MAX_FRAME_SIZE => {
                if !(MIN_FRAME_SIZE..=MAX_FRAME_SIZE).contains(&value) {
                    return Err(ConnectionError::Protocol("MAX_FRAME_SIZE out of bounds"));
                }
                self.peer.max_frame_size = value;
            }
            _ => {}
        }
        Ok(())
    }

    /// Changes what every open stream may send by the difference, below zero if need be (RFC 9113 §6.9.2).
    fn initial_window_changed(&mut self, value: u32) -> Result<(), ConnectionError> {
        let too_large = ConnectionError::FlowControl("INITIAL_WINDOW_SIZE over 2^31-1, or a window raised over it");
        let (Ok(new), Ok(old)) = (i32::try_from(value), i32::try_from(self.peer.initial_window)) else {
            return Err(too_large);
        };
        self.peer.initial_window = value;
        for (id, stream) in self.streams.iter_mut() {
            if !stream.send.shift(new - old) {
                return Err(too_large);
            }
            if stream.wish == Wish::ForStream && stream.send.open() > 0 {
                self.output.turns.put(id, stream);
            }
        }
        Ok(())
    }
}

/// How many times `control_limit` may be queued, answers of the caller included.
pub(super) const OWN_CONTROL: usize = 4;
/// The size of a header table before SETTINGS say otherwise.
const DEFAULT_TABLE: u32 = 4096;
