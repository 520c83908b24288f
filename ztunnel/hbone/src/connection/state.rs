// SPDX-License-Identifier: Apache-2.0
//! The state of one connection, how it begins and what can be asked of it. What peers do is in `receive`, what the caller does in
//! `send`, time and the end in `life`.

use std::sync::Arc;
use std::time::Instant;

use super::event::StreamId;
use super::keepalive::Keepalive;
use super::streams::{Stream, Streams};
use super::turns::Turns;
use super::window::{ConnectionWindow, SendWindow, clock};
use crate::error::ErrorCode;
use crate::flood::Flood;
use crate::frame::{self, MIN_FRAME_SIZE, PREFACE, Reader, setting_id};
use crate::header::Decoder;
use crate::options::{DEFAULT_WINDOW, Options};

/// One HBONE connection without its socket: bytes in, [`super::Event`]s out, frames to send. See the crate's documentation.
#[derive(Debug)]
pub struct Connection {
    pub(super) options: Arc<Options>,
    pub(super) role: Role,
    pub(super) life: Life,
    pub(super) streams: Streams,
    pub(super) waiting: Waiting,
    pub(super) input: Input,
    pub(super) output: Output,
    pub(super) peer: Peer,
    pub(super) guard: Guard,
}

/// What is being read.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) reader: Reader,
    pub(super) decoder: Decoder,
    /// The stream whose DATA frame is being read, unless nobody wants it, and how the frame began.
    pub(super) reading: Reading,
    /// A header block began then and is not whole yet.
    pub(super) block_began: Option<Instant>,
    pub(super) window: ConnectionWindow,
}

/// What is to be sent.
#[derive(Debug)]
pub(super) struct Output {
    /// Frames to send before any data.
    pub(super) control: Vec<u8>,
    /// How many bytes of `control` the peer alone has caused.
    pub(super) forced: usize,
    /// Streams whose acceptance is still among `control`: the peer cannot know of it.
    pub(super) unseen: Vec<u32>,
    pub(super) window: SendWindow,
    /// Streams to be told that they may send.
    pub(super) turns: Turns,
}

/// What waits for applications.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Bytes held for all streams.
    pub(super) held: usize,
    /// Streams the peer has reset behind its own end, to be told when they are empty.
    pub(super) stopped: Vec<(StreamId, ErrorCode)>,
}

/// What keeps the peer in time and within its limits.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) flood: Flood,
    pub(super) keepalive: Keepalive,
    pub(super) opening: Opening,
    pub(super) started: Instant,
}

/// Which end this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Client,
    Server,
}

/// How far the connection is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Running,
    /// We have sent a GOAWAY that names no last stream yet, and wait for the pong behind it.
    Announced,
    /// We have sent GOAWAY with this last stream.
    Leaving {
        last: u32,
    },
    /// Closed by an error or by the caller: nothing is read any more.
    Ended,
}

/// What is still outstanding of the exchange of SETTINGS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) settings_seen: bool,
    pub(super) ack_seen: bool,
}

/// What the peer has said about itself.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) initial_window: u32,
    pub(super) max_frame_size: u32,
    pub(super) max_streams: u32,
    /// The last stream it looks at, after its GOAWAY.
    pub(super) last_stream: Option<u32>,
    pub(super) table: Table,
}

/// Whether the peer has to be told that our header compression keeps no table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// It assumes the default of 4096 bytes, which we do not use.
    Assumed,
    /// It has lowered the size and waits to be told.
    Due,
    Told,
}

/// What is known of the DATA frame being read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) stream: Option<StreamId>,
    pub(super) empty: bool,
    /// A stream that ended with its HEADERS: its `End` comes next.
    pub(super) ended: Option<StreamId>,
}

impl Connection {
    /// The side that opens streams. Its preface and SETTINGS are queued at once: start by writing.
    pub fn client(options: Arc<Options>, now: Instant) -> Self {
        let mut connection = Self::new(options, Role::Client, now);
        let options = &connection.options;
        connection.output.control.extend_from_slice(PREFACE);
        frame::settings(
            &mut connection.output.control,
            &[
                (setting_id::ENABLE_PUSH, 0),
                (setting_id::INITIAL_WINDOW_SIZE, options.initial_window),
                (setting_id::MAX_FRAME_SIZE, options.max_frame_size),
                (setting_id::MAX_HEADER_LIST_SIZE, options.max_header_bytes),
            ],
        );
        connection.widen();
        connection
    }

    /// The side that answers them. Its SETTINGS are queued at once and may be written before anything has been read.
    pub fn server(options: Arc<Options>, now: Instant) -> Self {
        let mut connection = Self::new(options, Role::Server, now);
        let options = &connection.options;
        frame::settings(
            &mut connection.output.control,
            &[
                (setting_id::MAX_CONCURRENT_STREAMS, options.max_streams),
                (setting_id::INITIAL_WINDOW_SIZE, options.initial_window),
                (setting_id::MAX_FRAME_SIZE, options.max_frame_size),
                (setting_id::MAX_HEADER_LIST_SIZE, options.max_header_bytes),
            ],
        );
        connection.widen();
        connection
    }

    fn new(options: Arc<Options>, role: Role, now: Instant) -> Self {
        let options = options.sound();
        Self {
            role,
            life: Life::Running,
            streams: Streams::default(),
            waiting: Waiting::default(),
            input: Input {
                reader: Reader::new(role == Role::Server, options.max_frame_size, options.max_header_bytes),
                decoder: Decoder::new(),
                reading: Reading { stream: None, empty: true, ended: None },
                block_began: None,
                window: ConnectionWindow::new(options.connection_window),
            },
            output: Output {
                control: Vec::new(),
                forced: 0,
                unseen: Vec::new(),
                window: SendWindow::new(DEFAULT_WINDOW),
                turns: Turns::default(),
            },
            peer: Peer {
                initial_window: DEFAULT_WINDOW,
                max_frame_size: MIN_FRAME_SIZE,
                max_streams: u32::MAX,
                last_stream: None,
                table: Table::Assumed,
            },
            guard: Guard {
                flood: Flood::new(now),
                keepalive: Keepalive::new(now, options.ping_interval),
                opening: Opening { settings_seen: false, ack_seen: false },
                started: now,
            },
            options,
        }
    }

    /// Opens the connection's window from the 65,535 bytes every connection starts with. SETTINGS cannot do this.
    fn widen(&mut self) {
        if let Some(more) = self.options.connection_window.checked_sub(DEFAULT_WINDOW).filter(|&more| more > 0) {
            frame::window_update(&mut self.output.control, 0, more);
        }
    }

    /// Streams that have not ended on the wire.
    pub fn open_streams(&self) -> usize {
        self.streams.open()
    }

    /// Whether the core still knows this stream: it has not ended, or the application has still to take some of its bytes.
    pub fn is_open(&self, stream: StreamId) -> bool {
        self.streams.get(stream).is_some()
    }

    /// Whether either side has said that it takes no more streams, or the connection has ended.
    pub fn is_going_away(&self) -> bool {
        self.life != Life::Running || self.peer.last_stream.is_some()
    }

    /// Whether the connection may be closed: it is going away, no stream is left and everything queued has been taken. Write
    /// what you have, then close.
    pub fn is_drained(&self) -> bool {
        let settled = match self.life {
            Life::Running => self.peer.last_stream.is_some(),
            Life::Announced => false,
            Life::Leaving { .. } | Life::Ended => true,
        };
        settled && self.output.control.is_empty() && (self.life == Life::Ended || self.streams.len() == 0)
    }

    /// Whether [`Self::write_control`] has something to write.
    pub fn has_control(&self) -> bool {
        !self.output.control.is_empty()
    }

    /// Moves the queued control frames to the end of `out`. Frames of one stream must leave in the order of the calls that made
    /// them, so what was queued before a [`Self::data_header`] is to be written before it, and what is queued after it, after
    /// its payload. Free when nothing is queued.
    pub fn write_control(&mut self, out: &mut Vec<u8>) {
        const KEPT: usize = 256;
        out.append(&mut self.output.control);
        self.output.forced = 0;
        self.output.control.shrink_to(KEPT);
        self.output.unseen.clear();
        self.output.unseen.shrink_to(KEPT / 16);
    }

    /// Milliseconds since the connection began.
    pub(super) fn clock(&self, now: Instant) -> u32 {
        clock(self.guard.started, now)
    }

    /// Takes a stream out of the table, and its share out of the budgets.
    pub(super) fn forget(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.remove(id) {
            self.release(id, &stream);
        }
    }

    /// Resets a stream that is in the table. Frames of it that are under way are forgiven.
    pub(super) fn abort(&mut self, id: StreamId, code: ErrorCode) {
        if let Some(stream) = self.streams.remove(id) {
            if !stream.is_ended() {
                frame::reset(&mut self.output.control, id.number, code.0);
            }
            self.streams.forgive(id.number);
            self.release(id, &stream);
        }
    }

    fn release(&mut self, id: StreamId, stream: &Stream) {
        self.output.turns.leave(id, stream);
        let held = stream.receive.held() as usize;
        if held > 0 {
            self.waiting.held -= held;
            self.options.budget.refund(held);
        }
        let grown = stream.receive.grown(self.options.initial_window) as usize;
        if grown > 0 {
            self.options.budget.retract(grown);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // What the streams had in the budgets goes back with them.
        let left: Vec<StreamId> = self.streams.iter_mut().map(|(id, _)| id).collect();
        for id in left {
            self.forget(id);
        }
    }
}
