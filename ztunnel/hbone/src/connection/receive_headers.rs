// SPDX-License-Identifier: Apache-2.0
//! Header lists from the peer: requests, answers, trailers.

use std::time::Instant;

use super::event::{Event, StreamId};
use super::recent::Past;
use super::send::EARNED_PER_STREAM;
use super::state::{Connection, Life, Role};
use super::streams::Half;
use crate::error::{ConnectionError, ErrorCode};
use crate::flood::Kind;
use crate::frame;
use crate::header::{AnswerFields, Limits, RequestFields, Requested, Size};

impl Connection {
    pub(super) fn headers_received<'i>(
        &mut self,
        now: Instant,
        number: u32,
        end: bool,
        block: &[u8],
    ) -> Result<Option<Event<'i>>, ConnectionError> {
        match self.streams.find(number) {
            Ok(stream) => match self.streams.get(stream).map(|stream| stream.remote) {
                Some(Half::Waiting) => self.answer_received(now, stream, end, block),
                Some(Half::Open) => {
                    self.pass_over(block)?;
                    if end {
                        // Trailers say nothing in HBONE, but do no harm.
                        return Ok(self.end_remote(stream));
                    }
                    self.fault(now, stream, ErrorCode::PROTOCOL_ERROR, "a second header list").map(Some)
                }
                Some(Half::Ended) | None => {
                    self.pass_over(block)?;
                    self.fault(now, stream, ErrorCode::STREAM_CLOSED, "headers behind END_STREAM").map(Some)
                }
            },
            Err(Past::Idle) if self.role == Role::Server && !number.is_multiple_of(2) => {
                self.request_received(now, number, end, block)
            }
            Err(Past::Idle) => Err(ConnectionError::Protocol("HEADERS on a stream the peer cannot open")),
            Err(Past::Skipped) => Err(ConnectionError::Protocol("a stream number lower than one used before")),
            Err(Past::Closed) => Err(ConnectionError::StreamClosed(number)),
            Err(Past::Forgiven) => {
                self.spend(Kind::Noise, now)?;
                self.pass_over(block).map(|()| None)
            }
        }
    }

    fn request_received<'i>(
        &mut self,
        now: Instant,
        number: u32,
        end: bool,
        block: &[u8],
    ) -> Result<Option<Event<'i>>, ConnectionError> {
        self.streams.begin(number);
        self.guard.flood.earn(Kind::Noise, EARNED_PER_STREAM);
        if let Life::Leaving { .. } = self.life {
            // The client has been told that this one is not looked at (RFC 9113 §6.8).
            self.streams.forgive(number);
            self.spend(Kind::Noise, now)?;
            return self.pass_over(block).map(|()| None);
        }
        let mut fields = RequestFields::default();
        let within = self.decode(block, |name, value| fields.field(name, value))?;
        // Lingering streams cost memory without counting as open; a client that collects them has to wait as well.
        let most = self.options.max_streams as usize;
        if self.streams.open() >= most || self.streams.len() >= 2 * most {
            // Until it has read our SETTINGS the client does not know better.
            let kind = if self.guard.opening.ack_seen { Kind::Faults } else { Kind::Noise };
            self.spend(kind, now)?;
            return Ok(Some(self.refuse(number, ErrorCode::REFUSED_STREAM, "too many streams on this connection")));
        }
        let requested = match fields.finish() {
            _ if !within => Requested::Bad { status: 431, reason: "the header list is over the limit" },
            Ok(requested) => requested,
            Err(malformed) => {
                self.spend(Kind::Faults, now)?;
                return Ok(Some(self.refuse(number, ErrorCode::PROTOCOL_ERROR, malformed.0)));
            }
        };
        if let Requested::Bad { .. } = requested {
            // Each is answered and told to the caller, who may log it: no proxy sends many.
            self.spend(Kind::Faults, now)?;
        }
        let stream = self.insert(now, number, Half::Waiting, Half::Open);
        self.input.reading.ended = end.then_some(stream);
        Ok(Some(match requested {
            Requested::Connect(request) => Event::Request { stream, request },
            Requested::Bad { status, reason } => Event::BadRequest { stream, status, reason },
        }))
    }

    fn refuse(&mut self, number: u32, code: ErrorCode, reason: &'static str) -> Event<'static> {
        frame::reset(&mut self.output.control, number, code.0);
        self.streams.forgive(number);
        Event::Refused { number, code, reason }
    }

    fn answer_received<'i>(
        &mut self,
        now: Instant,
        stream: StreamId,
        end: bool,
        block: &[u8],
    ) -> Result<Option<Event<'i>>, ConnectionError> {
        let mut fields = AnswerFields::default();
        let within = self.decode(block, |name, value| fields.field(name, value))?;
        if !within {
            return self.fault(now, stream, ErrorCode::ENHANCE_YOUR_CALM, "header list over the limit").map(Some);
        }
        let answer = match fields.finish() {
            Ok(answer) => answer,
            Err(malformed) => return self.fault(now, stream, ErrorCode::PROTOCOL_ERROR, malformed.0).map(Some),
        };
        if answer.status < 200 {
            if end {
                return self.fault(now, stream, ErrorCode::PROTOCOL_ERROR, "interim answer with END_STREAM").map(Some);
            }
            self.spend(Kind::Noise, now)?;
            return Ok(None);
        }
        if let Some(entry) = self.streams.get_mut(stream) {
            entry.remote = Half::Open;
        }
        self.input.reading.ended = end.then_some(stream);
        Ok(Some(Event::Answer { stream, answer }))
    }

    /// Reads a header list nobody wants: the compression state must follow it all the same.
    fn pass_over(&mut self, block: &[u8]) -> Result<(), ConnectionError> {
        self.decode(block, |_, _| {}).map(|_| ())
    }

    /// Whether the list is within its limits.
    fn decode(&mut self, block: &[u8], field: impl FnMut(&[u8], &[u8])) -> Result<bool, ConnectionError> {
        let limits = Limits { bytes: self.options.max_header_bytes, fields: self.options.max_header_fields };
        match self.input.decoder.decode(block, limits, field).map_err(ConnectionError::Compression)? {
            Size::Within => Ok(true),
            Size::Over => Ok(false),
            Size::Absurd => Err(ConnectionError::HeaderList { limit: self.options.max_header_bytes as usize }),
        }
    }
}
