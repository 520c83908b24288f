// SPDX-License-Identifier: Apache-2.0
//! A peer that is written out frame by frame.

use std::sync::Arc;
use std::time::Instant;

use hbone::{Connection, ConnectionError, ErrorCode, Options, StreamId};

use super::shell::{End, PREFACE, Seen, budget, frame, frames};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;

/// A peer that has exchanged SETTINGS with us.
pub(super) struct Peer {
    pub(super) end: End,
    pub(super) now: Instant,
}

impl Peer {
    pub(super) fn client() -> Self {
        Self::client_of(Options::server(budget()))
    }

    pub(super) fn client_of(options: Options) -> Self {
        let now = Instant::now();
        let mut peer = Self { end: End::new(Connection::server(Arc::new(options), now)), now };
        peer.send(PREFACE);
        peer.greet();
        peer
    }

    /// The peer is a server, and we have one request out, answered.
    pub(super) fn server() -> (Self, StreamId) {
        let now = Instant::now();
        let mut peer = Self { end: End::client(now), now };
        peer.greet();
        let stream = peer.end.request(now, 0, false);
        peer.send(&frame(HEADERS, END_HEADERS, 1, &[0x88]));
        assert_eq!(peer.end.seen, [Seen::Settings, Seen::Answer(stream, 200)]);
        peer.heard();
        (peer, stream)
    }

    pub(super) fn greet(&mut self) {
        self.send(&frame(SETTINGS, 0, 0, &[]));
        self.send(&frame(SETTINGS, ACK, 0, &[]));
        self.heard();
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.end.turn(self.now, bytes);
    }

    /// What was said to the peer since the last time.
    pub(super) fn heard(&mut self) -> Vec<(u8, u8, u32, Vec<u8>)> {
        frames(&std::mem::take(&mut self.end.out))
    }

    /// Opens a stream with a plain CONNECT.
    pub(super) fn open(&mut self, number: u32) -> StreamId {
        self.send(&frame(HEADERS, END_HEADERS, number, &connect()));
        match self.end.seen.last() {
            Some(&Seen::Request(stream, _)) if stream.number() == number => stream,
            other => panic!("{other:?} {:?}", self.end.error),
        }
    }

    /// The bytes end the connection with this code.
    pub(super) fn dies_of(mut self, bytes: &[u8], code: ErrorCode) -> ConnectionError {
        self.send(bytes);
        let error = self.end.error.clone().unwrap_or_else(|| panic!("nothing happened: {:?}", self.end.seen));
        assert_eq!(error.code(), code, "{error}");
        let last = self.heard().pop().unwrap();
        assert_eq!((last.0, &last.3[4..]), (GOAWAY, &code.0.to_be_bytes()[..]));
        error
    }

    /// The bytes reset this stream with this code, and the connection goes on.
    pub(super) fn resets(&mut self, bytes: &[u8], number: u32, code: ErrorCode) {
        self.send(bytes);
        assert_eq!(self.end.error, None);
        let expected = (RST_STREAM, 0, number, code.0.to_be_bytes().to_vec());
        let heard = self.heard();
        assert!(heard.contains(&expected), "{heard:?} {:?}", self.end.seen);
        self.works();
    }

    /// The connection still answers.
    pub(super) fn works(&mut self) {
        self.send(&frame(PING, 0, 0, b"12345678"));
        assert_eq!(self.end.error, None);
        assert_eq!(self.heard().last(), Some(&(PING, ACK, 0, b"12345678".to_vec())));
    }
}

/// A literal that is not indexed.
pub(super) fn field(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0, name.len() as u8];
    out.extend(name.bytes());
    out.push(value.len() as u8);
    out.extend(value.bytes());
    out
}

pub(super) fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    list.iter().flat_map(|(name, value)| field(name, value)).collect()
}

pub(super) fn connect() -> Vec<u8> {
    fields(&[(":method", "CONNECT"), (":authority", "10.0.0.2:8080")])
}
