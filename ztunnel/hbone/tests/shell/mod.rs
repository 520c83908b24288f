// SPDX-License-Identifier: Apache-2.0
//! A small caller for tests: it drives one [`Connection`] over byte queues, with applications that send and take a known pattern
//! of bytes, and writes down what it was told. No sockets, no clock.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hbone::request::{Authority, ConnectAnswer, ConnectRequest};
use hbone::{Budget, Connection, ConnectionError, ErrorCode, Event, Options, OverBudget, ResetReason, StreamId};

/// What an end was told, data aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Settings,
    Request(StreamId, ConnectRequest),
    BadRequest(StreamId, u16, &'static str),
    Refused(u32, ErrorCode, &'static str),
    Answer(StreamId, u16),
    End(StreamId),
    Reset(StreamId, ErrorCode, ResetReason),
    GoAway(ErrorCode),
}

/// The application behind one stream.
#[derive(Debug, Default)]
pub struct App {
    /// Bytes it still wants to send, after `sent`.
    pub to_send: usize,
    pub sent: usize,
    /// Send FIN when `to_send` is through.
    pub then_end: bool,
    /// Bytes it has taken.
    pub taken: usize,
    /// Bytes the shell holds for it.
    pub held: usize,
    /// It takes nothing.
    pub stalled: bool,
    /// It saw the peer's FIN.
    pub ended: bool,
    pub over_budget: Option<OverBudget>,
    /// The tunnel stands, or is this end's own request.
    pub answered: bool,
    blocked: bool,
}

/// One end of a connection.
#[derive(Debug)]
pub struct End {
    pub conn: Connection,
    pub out: Vec<u8>,
    pub seen: Vec<Seen>,
    pub apps: BTreeMap<StreamId, App>,
    pub error: Option<ConnectionError>,
    /// Answer requests with 200 at once.
    pub accept: bool,
    /// New applications take nothing.
    pub stall_new: bool,
    /// DATA frames written, and the largest.
    pub frames: usize,
    pub largest: usize,
    /// Streams that were told that they may send, in order.
    told: Vec<StreamId>,
    /// Streams whose end was known with their last bytes.
    pub foreseen: Vec<StreamId>,
}

/// The byte at a place of any application's stream.
pub fn pattern(stream: StreamId, at: usize) -> u8 {
    (at.wrapping_mul(7) ^ (at >> 8) ^ stream.number() as usize) as u8
}

impl End {
    pub fn new(conn: Connection) -> Self {
        Self {
            conn,
            out: Vec::new(),
            seen: Vec::new(),
            apps: BTreeMap::new(),
            error: None,
            accept: true,
            stall_new: false,
            frames: 0,
            largest: 0,
            told: Vec::new(),
            foreseen: Vec::new(),
        }
    }

    pub fn client(now: Instant) -> Self {
        Self::new(Connection::client(Arc::new(Options::client(budget())), now))
    }

    pub fn server(now: Instant) -> Self {
        Self::new(Connection::server(Arc::new(Options::server(budget())), now))
    }

    pub fn request(&mut self, now: Instant, to_send: usize, then_end: bool) -> StreamId {
        let authority: Authority = "10.0.0.2:8080".parse().unwrap();
        let stream = self.conn.request(now, &ConnectRequest::new(authority)).unwrap();
        self.apps.insert(stream, App { to_send, then_end, answered: true, ..App::default() });
        stream
    }

    pub fn app(&mut self, stream: StreamId) -> &mut App {
        self.apps.get_mut(&stream).expect("a stream of this end")
    }

    /// Reads `input`, acts on what it says, and writes.
    pub fn turn(&mut self, now: Instant, input: &[u8]) {
        self.read(now, input);
        self.write();
    }

    pub fn read(&mut self, now: Instant, mut input: &[u8]) {
        loop {
            match self.conn.next_event(now, &mut input) {
                Ok(Some(event)) => {
                    if let Event::Data { stream, .. } = event {
                        assert!(!self.foreseen.contains(&stream), "data where the end was foreseen");
                        self.foreseen.extend(self.conn.end_follows(stream, input).then_some(stream));
                    }
                    self.act(now, &event);
                }
                Ok(None) => break,
                Err(ConnectionError::Ended) if self.error.is_some() => break,
                Err(error) => {
                    self.error = Some(error);
                    break;
                }
            }
        }
        assert!(self.error.is_some() || input.is_empty(), "None with input left");
        let is_over =
            |stream: &StreamId| !self.conn.is_open(*stream) || self.apps.get(stream).is_none_or(|app| app.ended);
        assert!(self.error.is_some() || self.foreseen.iter().all(is_over), "an end was foreseen and did not come");
    }

    fn act(&mut self, now: Instant, event: &Event<'_>) {
        match *event {
            Event::Settings => self.seen.push(Seen::Settings),
            Event::Request { stream, ref request } => {
                self.seen.push(Seen::Request(stream, (**request).clone()));
                self.apps.insert(stream, App { stalled: self.stall_new, answered: self.accept, ..App::default() });
                if self.accept {
                    self.conn.answer(stream, &ConnectAnswer::accepted(None));
                }
            }
            Event::BadRequest { stream, status, reason } => {
                self.seen.push(Seen::BadRequest(stream, status, reason));
                self.conn.reject(stream, status);
            }
            Event::Refused { number, code, reason } => self.seen.push(Seen::Refused(number, code, reason)),
            Event::Answer { stream, ref answer } => self.seen.push(Seen::Answer(stream, answer.status)),
            Event::Data { stream, bytes } => self.data(now, stream, bytes),
            Event::End { stream } => {
                self.seen.push(Seen::End(stream));
                self.app(stream).ended = true;
            }
            Event::Reset { stream, code, reason } => {
                assert!(!self.conn.is_open(stream));
                self.seen.push(Seen::Reset(stream, code, reason));
            }
            Event::Writable { stream } => {
                self.app(stream).blocked = false;
                self.told.push(stream);
            }
            Event::GoAway { code } => self.seen.push(Seen::GoAway(code)),
        }
    }

    fn data(&mut self, now: Instant, stream: StreamId, bytes: &[u8]) {
        let app = self.apps.get_mut(&stream).expect("data for a stream that was told");
        assert!(!bytes.is_empty() && !app.ended);
        let at = app.taken + app.held;
        assert!(bytes.iter().enumerate().all(|(n, &b)| b == pattern(stream, at + n)), "bytes as they were sent");
        if app.stalled {
            app.held += bytes.len();
            if let Err(over) = self.conn.hold(stream, bytes.len()) {
                app.over_budget = Some(over);
                self.conn.reset(stream, ErrorCode::ENHANCE_YOUR_CALM);
            }
        } else {
            app.taken += bytes.len();
            self.conn.consumed(now, stream, bytes.len());
        }
    }

    /// The application goes on reading: all that was held for it is taken.
    pub fn unstall(&mut self, now: Instant, stream: StreamId) {
        let app = self.app(stream);
        app.stalled = false;
        let held = std::mem::take(&mut app.held);
        app.taken += held;
        self.conn.consumed(now, stream, held);
    }

    /// Writes queued control frames, then what the applications have to send.
    pub fn write(&mut self) {
        self.conn.write_control(&mut self.out);
        if self.error.is_some() {
            return;
        }
        let mut order = std::mem::take(&mut self.told);
        order.extend(self.apps.keys());
        for stream in order {
            let Some(app) = self.apps.get_mut(&stream).filter(|app| app.answered) else { continue };
            while app.to_send > 0 && !app.blocked && self.conn.is_open(stream) {
                let length = self.conn.send_capacity(stream).min(app.to_send);
                if length == 0 {
                    app.blocked = true;
                    break;
                }
                let header = self.conn.data_header(stream, length, false).unwrap();
                self.out.extend_from_slice(&header);
                self.out.extend((app.sent..app.sent + length).map(|at| pattern(stream, at)));
                app.sent += length;
                app.to_send -= length;
                self.frames += 1;
                self.largest = self.largest.max(length);
            }
            if app.to_send == 0 && app.then_end {
                app.then_end = false;
                self.conn.finish(stream);
            }
        }
        self.conn.write_control(&mut self.out);
    }
}

/// A client and a server with nothing but byte queues between them, in virtual time.
#[derive(Debug)]
pub struct Pair {
    pub now: Instant,
    pub client: End,
    pub server: End,
    /// What the client still has to read is kept from it.
    pub client_deaf: bool,
    pub server_deaf: bool,
}

impl Pair {
    pub fn new() -> Self {
        let now = Instant::now();
        Self::of(now, End::client(now), End::server(now))
    }

    pub fn of(now: Instant, client: End, server: End) -> Self {
        Self { now, client, server, client_deaf: false, server_deaf: false }
    }

    /// Carries bytes to and fro until nothing moves.
    pub fn settle(&mut self) {
        self.settle_cut(|whole| whole);
    }

    /// The same with reads cut to the lengths `cut` gives.
    pub fn settle_cut(&mut self, mut cut: impl FnMut(usize) -> usize) {
        self.client.write();
        self.server.write();
        loop {
            let mut moved = false;
            if !self.server_deaf && !self.client.out.is_empty() {
                moved = true;
                carry(self.now, &mut self.client, &mut self.server, &mut cut);
            }
            if !self.client_deaf && !self.server.out.is_empty() {
                moved = true;
                carry(self.now, &mut self.server, &mut self.client, &mut cut);
            }
            if !moved {
                break;
            }
        }
    }

    /// Lets time pass, with every deadline on the way kept.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            self.settle();
            let deadline = [&self.client, &self.server].into_iter().filter_map(|end| end.conn.next_deadline()).min();
            let Some(deadline) = deadline.filter(|&deadline| deadline <= until) else { break };
            self.now = self.now.max(deadline);
            for end in [&mut self.client, &mut self.server] {
                if let Err(error) = end.conn.handle_timeout(self.now) {
                    end.error = Some(error);
                }
            }
        }
        self.now = until;
    }

    /// Opens a stream and waits for its answer.
    pub fn open(&mut self) -> StreamId {
        let stream = self.client.request(self.now, 0, false);
        self.settle();
        assert!(self.client.seen.contains(&Seen::Answer(stream, 200)), "{:?}", self.client.seen);
        stream
    }

    /// The server's name for a stream of the client.
    pub fn server_side(&self, stream: StreamId) -> StreamId {
        *self.server.apps.keys().find(|id| id.number() == stream.number()).expect("the request arrived")
    }
}

fn carry(now: Instant, from: &mut End, to: &mut End, cut: &mut impl FnMut(usize) -> usize) {
    let bytes = std::mem::take(&mut from.out);
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (now_read, later) = rest.split_at(cut(rest.len()).clamp(1, rest.len()));
        to.read(now, now_read);
        rest = later;
    }
    to.write();
}

/// A budget nobody reaches by accident.
pub fn budget() -> Budget {
    Budget::node(1 << 30).pod(1 << 29)
}

/// A whole frame, for peers that are no [`Connection`].
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A frame of a [`Connection`]'s output, for peers that are none: (type, flags, stream, payload).
pub fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
    bytes = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
    let mut frames = Vec::new();
    while let [a, b, c, kind, flags, d, e, f, g, rest @ ..] = bytes {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        frames.push((*kind, *flags, u32::from_be_bytes([*d, *e, *f, *g]), rest[..length].to_vec()));
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty(), "whole frames only");
    frames
}

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
