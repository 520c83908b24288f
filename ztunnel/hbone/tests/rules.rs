// SPDX-License-Identifier: Apache-2.0
//! RFC 9113 and our own limits against a peer that is written out frame by frame: what is a fault of one stream, what of the
//! connection, what is passed over, and which code says so.
#![allow(clippy::unwrap_used)]

mod shell;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hbone::request::{Authority, Baggage, ConnectAnswer, ConnectRequest};
use hbone::{Connection, ConnectionError, ErrorCode, FloodKind, Options, ResetReason, StreamId};
use shell::{App, End, PREFACE, Seen, budget, frame, frames};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// A peer that has exchanged SETTINGS with us.
struct Peer {
    end: End,
    now: Instant,
}

impl Peer {
    fn client() -> Self {
        Self::client_of(Options::server(budget()))
    }

    fn client_of(options: Options) -> Self {
        let now = Instant::now();
        let mut peer = Self { end: End::new(Connection::server(Arc::new(options), now)), now };
        peer.send(PREFACE);
        peer.greet();
        peer
    }

    /// The peer is a server, and we have one request out, answered.
    fn server() -> (Self, StreamId) {
        let now = Instant::now();
        let mut peer = Self { end: End::client(now), now };
        peer.greet();
        let stream = peer.end.request(now, 0, false);
        peer.send(&frame(HEADERS, END_HEADERS, 1, &[0x88]));
        assert_eq!(peer.end.seen, [Seen::Settings, Seen::Answer(stream, 200)]);
        peer.heard();
        (peer, stream)
    }

    fn greet(&mut self) {
        self.send(&frame(SETTINGS, 0, 0, &[]));
        self.send(&frame(SETTINGS, ACK, 0, &[]));
        self.heard();
    }

    fn send(&mut self, bytes: &[u8]) {
        self.end.turn(self.now, bytes);
    }

    /// What was said to the peer since the last time.
    fn heard(&mut self) -> Vec<(u8, u8, u32, Vec<u8>)> {
        frames(&std::mem::take(&mut self.end.out))
    }

    /// Opens a stream with a plain CONNECT.
    fn open(&mut self, number: u32) -> StreamId {
        self.send(&frame(HEADERS, END_HEADERS, number, &connect()));
        match self.end.seen.last() {
            Some(&Seen::Request(stream, _)) if stream.number() == number => stream,
            other => panic!("{other:?} {:?}", self.end.error),
        }
    }

    /// The bytes end the connection with this code.
    fn dies_of(mut self, bytes: &[u8], code: ErrorCode) -> ConnectionError {
        self.send(bytes);
        let error = self.end.error.clone().unwrap_or_else(|| panic!("nothing happened: {:?}", self.end.seen));
        assert_eq!(error.code(), code, "{error}");
        let last = self.heard().pop().unwrap();
        assert_eq!((last.0, &last.3[4..]), (GOAWAY, &code.0.to_be_bytes()[..]));
        error
    }

    /// The bytes reset this stream with this code, and the connection goes on.
    fn resets(&mut self, bytes: &[u8], number: u32, code: ErrorCode) {
        self.send(bytes);
        assert_eq!(self.end.error, None);
        let expected = (RST_STREAM, 0, number, code.0.to_be_bytes().to_vec());
        let heard = self.heard();
        assert!(heard.contains(&expected), "{heard:?} {:?}", self.end.seen);
        self.works();
    }

    /// The connection still answers.
    fn works(&mut self) {
        self.send(&frame(PING, 0, 0, b"12345678"));
        assert_eq!(self.end.error, None);
        assert_eq!(self.heard().last(), Some(&(PING, ACK, 0, b"12345678".to_vec())));
    }
}

/// A literal that is not indexed.
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0, name.len() as u8];
    out.extend(name.bytes());
    out.push(value.len() as u8);
    out.extend(value.bytes());
    out
}

fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    list.iter().flat_map(|(name, value)| field(name, value)).collect()
}

fn connect() -> Vec<u8> {
    fields(&[(":method", "CONNECT"), (":authority", "10.0.0.2:8080")])
}

// HB-2
#[test]
fn settings_come_first() {
    for bytes in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, ACK, 0, &[]), frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])] {
        let now = Instant::now();
        Peer { end: End::client(now), now }.dies_of(&bytes, ErrorCode::PROTOCOL_ERROR);
        let bytes = [PREFACE, &bytes].concat();
        Peer { end: End::server(now), now }.dies_of(&bytes, ErrorCode::PROTOCOL_ERROR);
    }
    let now = Instant::now();
    let error = Peer { end: End::server(now), now }.dies_of(b"GET / HTTP/1.1\r\n\r\n", ErrorCode::PROTOCOL_ERROR);
    assert_eq!(error, ConnectionError::NotHttp2);
}

// HB-3, HB-20
#[test]
fn settings_are_within_their_bounds_and_acknowledged() {
    let setting = |id: u16, value: u32| {
        let payload = [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
        frame(SETTINGS, 0, 0, &payload)
    };
    Peer::client().dies_of(&setting(2, 2), ErrorCode::PROTOCOL_ERROR);
    Peer::server().0.dies_of(&setting(2, 1), ErrorCode::PROTOCOL_ERROR);
    Peer::client().dies_of(&setting(4, 1 << 31), ErrorCode::FLOW_CONTROL_ERROR);
    Peer::client().dies_of(&setting(5, 16_383), ErrorCode::PROTOCOL_ERROR);
    Peer::client().dies_of(&setting(5, 1 << 24), ErrorCode::PROTOCOL_ERROR);
    let mut peer = Peer::client();
    for (id, value) in [(1, 0), (2, 1), (3, 0), (4, 0), (4, u32::MAX >> 1), (5, 16_384), (6, 0), (8, 1), (0xffff, 7)] {
        peer.send(&setting(id, value));
        assert_eq!(peer.heard(), [(SETTINGS, ACK, 0, vec![])]);
    }
    peer.works();
}

// HB-3
#[test]
fn a_changed_initial_window_moves_open_streams_below_zero_and_back() {
    let (mut peer, stream) = Peer::server();
    peer.end.app(stream).to_send = 200_000;
    peer.send(&[]);
    let sent = |peer: &mut Peer| peer.heard().iter().filter(|f| f.0 == DATA).map(|f| f.3.len()).sum::<usize>();
    assert_eq!(sent(&mut peer), 65_535);
    let window = |size: u32| frame(SETTINGS, 0, 0, &[&[0, 4][..], &size.to_be_bytes()].concat());
    peer.send(&frame(WINDOW_UPDATE, 0, 0, &(1u32 << 20).to_be_bytes()));
    // 65,535 were sent: from 10,000 on, the stream is 55,535 in debt.
    peer.send(&window(10_000));
    peer.send(&frame(WINDOW_UPDATE, 0, 1, &55_535u32.to_be_bytes()));
    assert_eq!(sent(&mut peer), 0);
    peer.send(&frame(WINDOW_UPDATE, 0, 1, &7u32.to_be_bytes()));
    assert_eq!(sent(&mut peer), 7);
    peer.send(&window(11_000));
    assert_eq!(sent(&mut peer), 1_000);
    peer.dies_of(
        &[frame(WINDOW_UPDATE, 0, 1, &0x7fff_0000u32.to_be_bytes()), window(u32::MAX >> 1)].concat(),
        ErrorCode::FLOW_CONTROL_ERROR,
    );
}

// HB-16
#[test]
fn who_waits_for_the_connection_is_told_in_turn() {
    let (mut peer, first) = Peer::server();
    let window = |stream: u32, more: u32| frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
    let second = peer.end.request(peer.now, 100, false);
    peer.send(&frame(HEADERS, END_HEADERS, 3, &[0x88]));
    peer.end.app(first).to_send = 200_000;
    peer.send(&window(1, 1 << 20));
    assert_eq!((peer.end.app(first).sent, peer.end.app(second).sent), (65_435, 100));
    peer.end.app(second).to_send = 100;
    peer.send(&[]);
    peer.heard();
    // Ten bytes for the first in the queue, ten for the next, and so on.
    for sent in [(65_445, 100), (65_445, 110), (65_455, 110), (65_455, 120)] {
        peer.send(&window(0, 10));
        assert_eq!((peer.end.app(first).sent, peer.end.app(second).sent), sent);
    }
    // A stream without a window of its own does not hold up the others.
    peer.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    peer.send(&window(0, 10));
    assert_eq!((peer.end.app(first).sent, peer.end.app(second).sent), (65_465, 120));
    peer.send(&window(3, 65_535));
    peer.send(&window(0, 1000));
    peer.send(&window(0, 1000));
    assert_eq!((peer.end.app(first).sent, peer.end.app(second).to_send), (67_385, 0));
}

// HB-20
#[test]
fn window_updates_are_neither_empty_nor_too_much() {
    let update = |stream: u32, increment: u32| frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
    Peer::client().dies_of(&update(0, 0), ErrorCode::PROTOCOL_ERROR);
    Peer::client().dies_of(&update(0, u32::MAX >> 1), ErrorCode::FLOW_CONTROL_ERROR);
    for (increment, code) in [(0, ErrorCode::PROTOCOL_ERROR), (u32::MAX >> 1, ErrorCode::FLOW_CONTROL_ERROR)] {
        let mut peer = Peer::client();
        let stream = peer.open(1);
        peer.resets(&update(1, increment), 1, code);
        assert!(
            matches!(peer.end.seen.last(), Some(&Seen::Reset(s, c, ResetReason::Fault(_))) if s == stream && c == code)
        );
    }
}

// HB-20
#[test]
fn windows_are_not_overdrawn() {
    let mut options = Options::server(budget());
    options.initial_window = 70_000;
    options.max_window = 70_000;
    options.connection_window = 100_000;
    let mut peer = Peer::client_of(options.clone());
    peer.end.stall_new = true;
    let stream = peer.open(1);
    // The shell checks a pattern, which zeros are not: padding is data to flow control, and to nobody else.
    let padding = |stream: u32, length: usize| {
        let mut payload = vec![0; length];
        payload[0] = (length - 1) as u8;
        frame(DATA, PADDED, stream, &payload)
    };
    for _ in 0..1000 {
        peer.send(&padding(1, 256));
    }
    assert_eq!(peer.end.error, None, "padding is credited at once on both levels");
    assert!(peer.end.conn.is_open(stream));
    peer.resets(&frame(DATA, 0, 1, &vec![0; 70_001]), 1, ErrorCode::FLOW_CONTROL_ERROR);

    options.initial_window = 200_000;
    let mut peer = Peer::client_of(options);
    peer.open(1);
    let error = peer.dies_of(&frame(DATA, 0, 1, &vec![0; 100_001])[..9], ErrorCode::FLOW_CONTROL_ERROR);
    assert!(error.to_string().contains("connection's window"));
}

// HB-20
#[test]
fn frames_on_streams_that_were_never_opened_end_the_connection() {
    for number in [1, 2, 7] {
        for bytes in [
            frame(DATA, 0, number, b"x"),
            frame(RST_STREAM, 0, number, &[0; 4]),
            frame(WINDOW_UPDATE, 0, number, &[0, 0, 0, 1]),
        ] {
            Peer::client().dies_of(&bytes, ErrorCode::PROTOCOL_ERROR);
            let (peer, _) = Peer::server();
            if number != 1 {
                peer.dies_of(&bytes, ErrorCode::PROTOCOL_ERROR);
            }
        }
    }
    Peer::client().dies_of(&frame(HEADERS, END_HEADERS, 2, &connect()), ErrorCode::PROTOCOL_ERROR);
    Peer::server().0.dies_of(&frame(HEADERS, END_HEADERS, 2, &[0x88]), ErrorCode::PROTOCOL_ERROR);
    Peer::server().0.dies_of(&frame(HEADERS, END_HEADERS, 3, &[0x88]), ErrorCode::PROTOCOL_ERROR);
    Peer::server().0.dies_of(&frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x88]), ErrorCode::PROTOCOL_ERROR);
    let mut peer = Peer::client();
    peer.open(5);
    peer.dies_of(&frame(HEADERS, END_HEADERS, 3, &connect()), ErrorCode::PROTOCOL_ERROR);
}

// HB-20
#[test]
fn frames_behind_end_stream_are_faults() {
    let mut peer = Peer::client();
    peer.open(1);
    peer.send(&frame(DATA, END_STREAM, 1, &[]));
    peer.resets(&frame(DATA, 0, 1, &[1]), 1, ErrorCode::STREAM_CLOSED);
    peer.open(3);
    peer.send(&frame(DATA, END_STREAM, 3, &[]));
    peer.resets(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &[]), 3, ErrorCode::STREAM_CLOSED);
    // Closed by both: data is answered once, updates and resets may be late, headers cannot.
    let stream = peer.open(5);
    peer.end.conn.finish(stream);
    peer.send(&frame(DATA, END_STREAM, 5, &[]));
    peer.send(&frame(WINDOW_UPDATE, 0, 5, &[0, 0, 0, 1]));
    peer.send(&frame(RST_STREAM, 0, 5, &[0; 4]));
    peer.works();
    peer.resets(&frame(DATA, 0, 5, &[1]), 5, ErrorCode::STREAM_CLOSED);
    peer.send(&frame(DATA, 0, 5, &[1]));
    peer.works();
    // Reset by the peer itself.
    peer.open(7);
    peer.send(&frame(RST_STREAM, 0, 7, &8u32.to_be_bytes()));
    peer.dies_of(&frame(HEADERS, END_HEADERS, 7, &connect()), ErrorCode::STREAM_CLOSED);
}

// HB-12
#[test]
fn frames_that_cross_our_reset_are_passed_over() {
    let mut peer = Peer::client();
    let stream = peer.open(1);
    peer.end.conn.reset(stream, ErrorCode::CANCEL);
    for bytes in [
        frame(DATA, 0, 1, &[0; 60_000]),
        frame(WINDOW_UPDATE, 0, 1, &[0; 4]),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &field("trailer", "x")),
        frame(RST_STREAM, 0, 1, &[0; 4]),
    ] {
        peer.send(&bytes);
    }
    assert_eq!(peer.heard().len(), 2, "the answer and the reset");
    peer.works();
    assert!(!peer.end.seen.iter().any(|seen| matches!(seen, Seen::Reset(..) | Seen::End(_))));
}

// HB-20
#[test]
fn trailers_and_frames_without_meaning_do_no_harm() {
    let mut peer = Peer::client();
    let stream = peer.open(1);
    peer.send(&frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 5]));
    peer.send(&frame(PRIORITY, 0, 99, &[0, 0, 0, 1, 5]));
    peer.send(&frame(0xbe, 0xff, 1, b"anything"));
    peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &field("grpc-status", "0")));
    assert_eq!(peer.end.seen.last(), Some(&Seen::End(stream)));
    peer.works();
    peer.open(3);
    peer.resets(&frame(HEADERS, END_HEADERS, 3, &field("a", "b")), 3, ErrorCode::PROTOCOL_ERROR);
}

#[test]
fn a_request_that_ends_at_once_is_told_so() {
    let mut peer = Peer::client();
    peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &connect()));
    assert!(matches!(peer.end.seen[1..], [Seen::Request(asked, _), Seen::End(ended)] if asked == ended));
}

// HB-7
#[test]
fn malformed_requests_are_reset_before_the_caller_hears_of_them() {
    let connect =
        |more: &[(&str, &str)]| fields(&[&[(":method", "CONNECT"), (":authority", "10.0.0.2:80")][..], more].concat());
    let bad = [
        connect(&[(":path", "/")]),
        connect(&[(":scheme", "https")]),
        connect(&[(":protocol", "websocket"), (":path", "/")]),
        connect(&[(":status", "200")]),
        connect(&[(":method", "CONNECT")]),
        connect(&[(":authority", "10.0.0.2:80")]),
        connect(&[("Baggage", "x")]),
        connect(&[("", "x")]),
        connect(&[("a b", "x")]),
        connect(&[("connection", "close")]),
        connect(&[("transfer-encoding", "chunked")]),
        connect(&[("te", "gzip")]),
        connect(&[("a", "b\r\nc: d")]),
        connect(&[("a", "b"), (":authority", "10.0.0.2:80")]),
        fields(&[("a", "b"), (":method", "CONNECT"), (":authority", "10.0.0.2:80")]),
        fields(&[(":method", "CONNECT")]),
        fields(&[(":authority", "10.0.0.2:80")]),
        fields(&[(":method", "GET"), (":authority", "10.0.0.2:80"), (":path", "/")]),
        fields(&[(":method", "GET"), (":scheme", "https"), (":path", "")]),
        vec![],
    ];
    let mut peer = Peer::client();
    for (n, block) in bad.iter().enumerate() {
        let number = 2 * n as u32 + 1;
        peer.resets(&frame(HEADERS, END_HEADERS, number, block), number, ErrorCode::PROTOCOL_ERROR);
        assert!(matches!(peer.end.seen.last(), Some(&Seen::Refused(n, ErrorCode::PROTOCOL_ERROR, _)) if n == number));
    }
}

// HB-7
#[test]
fn requests_that_are_only_useless_get_an_answer() {
    let mut peer = Peer::client();
    let useless = [
        fields(&[(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "10.0.0.2:80")]),
        fields(&[(":method", "CONNECT"), (":authority", "10.0.0.2")]),
        fields(&[(":method", "CONNECT"), (":authority", "::1:80")]),
        fields(&[(":method", "CONNECT"), (":authority", "user@host:80")]),
    ];
    for (n, block) in useless.iter().enumerate() {
        let number = 2 * n as u32 + 1;
        peer.send(&frame(HEADERS, END_HEADERS, number, block));
        assert!(matches!(peer.end.seen.last(), Some(Seen::BadRequest(_, 400, _))));
        let answer = (HEADERS, END_HEADERS | END_STREAM, number, vec![0x8c]);
        let reset = (RST_STREAM, 0, number, vec![0; 4]);
        assert_eq!(peer.heard(), [answer, reset]);
    }
}

#[test]
fn faults_that_only_the_caller_sees_count_as_well() {
    let mut peer = Peer::client();
    let now = peer.now;
    for _ in 0..128 {
        peer.end.conn.fault_found(now).unwrap();
    }
    assert_eq!(peer.end.conn.fault_found(now), Err(ConnectionError::Flood(FloodKind::Faults)));
    assert!(peer.end.conn.is_going_away(), "a GOAWAY is queued");
    assert_eq!(peer.end.conn.fault_found(now), Ok(()), "over is over");
}

// HB-8
#[test]
fn telemetry_headers_never_make_a_request_fail() {
    let mut peer = Peer::client();
    let odd = [
        ("traceparent", "0123456789012345678901234567890123456789012345678901234"),
        ("traceparent", ""),
        ("baggage", "=,,;=;"),
        ("baggage", "k=v\u{e9}"),
        ("forwarded", "for=;host=\"\""),
        ("x-forwarded-network", ""),
        ("x-anything", "at all"),
        ("te", "trailers"),
    ];
    for (n, odd) in odd.into_iter().enumerate() {
        let block = [connect(), fields(&[odd])].concat();
        let number = 2 * n as u32 + 1;
        peer.send(&frame(HEADERS, END_HEADERS, number, &block));
        let Some(Seen::Request(_, request)) = peer.end.seen.last() else { panic!("{odd:?}: {:?}", peer.end.seen) };
        assert_eq!(request.traceparent, None);
    }
    let several = [connect(), fields(&[("baggage", "a=1"), ("baggage", "b=2"), ("baggage", "\u{e9}")])].concat();
    peer.send(&frame(HEADERS, END_HEADERS, 99, &several));
    let Some(Seen::Request(_, request)) = peer.end.seen.last() else { panic!() };
    assert_eq!(request.baggage, Baggage::new("a=1,b=2"));
}

// HB-5
#[test]
fn header_lists_have_limits_in_bytes_and_fields() {
    let mut peer = Peer::client();
    let many = [connect(), field("a", "").repeat(99)].concat();
    peer.send(&frame(HEADERS, END_HEADERS, 1, &many));
    assert!(matches!(peer.end.seen.last(), Some(Seen::BadRequest(_, 431, _))));
    // One field of 3,000 bytes put into the dynamic table, then named by one byte each: 90 KB from a handful.
    let mut bomb = connect();
    bomb.extend([0x40, 1, b'a', 0x7f, 0xb9, 0x16]);
    bomb.extend([b'x'; 3000]);
    bomb.extend([0xbe; 30]);
    peer.send(&frame(HEADERS, END_HEADERS, 3, &bomb));
    assert!(matches!(peer.end.seen.last(), Some(Seen::BadRequest(_, 431, _))));
    // Compression is still in step.
    let named = [connect(), vec![0xbe]].concat();
    peer.send(&frame(HEADERS, END_HEADERS, 5, &named));
    assert!(matches!(peer.end.seen.last(), Some(Seen::Request(..))));
    let block = field("a", &"b".repeat(100)).repeat(700);
    peer.send(&frame(HEADERS, 0, 7, &block[..40_000]));
    peer.dies_of(&frame(CONTINUATION, 0, 7, &block[40_000..]), ErrorCode::ENHANCE_YOUR_CALM);
}

// HB-5
#[test]
fn a_header_list_of_many_times_its_limit_is_not_read_to_its_end() {
    // A field of 4,000 bytes in the table; each further byte stands for it once more. `copies` of them are wanted.
    let bomb = |copies: usize, by: &[u8]| {
        let mut block = [connect(), vec![0x40, 1, b'a', 0x7f, 0xa1, 0x1e]].concat();
        block.extend([b'x'; 4000]);
        block.extend(by.repeat(copies));
        block
    };
    // 64 KiB are allowed; four times that is read through and answered with a status.
    let mut peer = Peer::client();
    peer.send(&frame(HEADERS, END_HEADERS, 1, &bomb(63, &[0xbe])));
    assert!(matches!(peer.end.seen.last(), Some(Seen::BadRequest(_, 431, _))));
    let error = peer.dies_of(&frame(HEADERS, END_HEADERS, 3, &bomb(64, &[0xbe])), ErrorCode::ENHANCE_YOUR_CALM);
    assert_eq!(error, ConnectionError::HeaderList { limit: 64 << 10 });
    // Also where nobody wants the list, and where one is garbage behind what was read.
    let mut peer = Peer::client();
    let stream = peer.open(1);
    peer.end.conn.reset(stream, ErrorCode::CANCEL);
    let garbage = [bomb(65, &[0xbe]), vec![0x80; 100]].concat();
    let error = peer.dies_of(&frame(HEADERS, END_HEADERS, 1, &garbage), ErrorCode::ENHANCE_YOUR_CALM);
    assert_eq!(error, ConnectionError::HeaderList { limit: 64 << 10 });
    // A client allows less.
    let (peer, _) = Peer::server();
    let trailer = frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb(17, &[0xbe])[connect().len()..]);
    let error = peer.dies_of(&trailer, ErrorCode::ENHANCE_YOUR_CALM);
    assert_eq!(error, ConnectionError::HeaderList { limit: 16 << 10 });
}

// HB-4
#[test]
fn a_header_block_that_cannot_be_decoded_ends_the_connection() {
    let update_to = |size: &[u8]| [size, &connect()].concat();
    for block in [
        vec![0x80],
        vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        vec![0x00, 0x01],
        vec![0x00, 0x05, b'a'],
        vec![0x00, 0x81, 0x00, 0x00],
        [connect(), vec![0xbe]].concat(),
        [connect(), vec![0x20]].concat(),
        update_to(&[0x3f, 0xe2, 0x1f]),
        update_to(&[0x20, 0x20, 0x20]),
    ] {
        Peer::client().dies_of(&frame(HEADERS, END_HEADERS, 1, &block), ErrorCode::COMPRESSION_ERROR);
    }
    let mut peer = Peer::client();
    peer.send(&frame(HEADERS, END_HEADERS, 1, &update_to(&[0x20, 0x3f, 0xe1, 0x1f])));
    assert!(matches!(peer.end.seen.last(), Some(Seen::Request(..))));
}

// HB-5
#[test]
fn a_slow_header_block_is_not_waited_for() {
    let mut peer = Peer::client();
    peer.send(&frame(HEADERS, 0, 1, &connect()[..5]));
    let deadline = peer.end.conn.next_deadline().unwrap();
    assert_eq!(deadline, peer.now + Duration::from_secs(10));
    let error = peer.end.conn.handle_timeout(deadline).unwrap_err();
    assert_eq!(error, ConnectionError::SlowHeaders(Duration::from_secs(10)));
    assert_eq!(error.code(), ErrorCode::ENHANCE_YOUR_CALM);
}

#[test]
fn a_peer_that_keeps_no_table_is_told_that_we_keep_none() {
    let (mut peer, _) = Peer::server();
    peer.send(&frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]));
    for expected in [0x20, 0x02] {
        peer.heard();
        peer.end.request(peer.now, 0, false);
        peer.send(&[]);
        let headers = peer.heard().pop().unwrap();
        assert_eq!((headers.0, headers.3[0]), (HEADERS, expected));
    }
}

// HB-7
#[test]
fn answers_are_read_with_the_same_care() {
    let answer = |block: &[u8], flags: u8| frame(HEADERS, END_HEADERS | flags, 3, block);
    for (block, flags) in [
        (vec![], 0),
        (fields(&[(":status", "20")]), 0),
        (fields(&[(":status", "2000")]), 0),
        (fields(&[(":status", "abc")]), 0),
        (fields(&[(":status", "200"), (":status", "200")]), 0),
        (fields(&[(":method", "CONNECT")]), 0),
        (fields(&[(":status", "200"), (":path", "/")]), 0),
        (fields(&[(":status", "100")]), END_STREAM),
    ] {
        let (mut peer, _) = Peer::server();
        peer.end.request(peer.now, 0, false);
        peer.resets(&answer(&block, flags), 3, ErrorCode::PROTOCOL_ERROR);
    }
    let (mut peer, _) = Peer::server();
    let stream = peer.end.request(peer.now, 0, false);
    peer.send(&answer(&fields(&[(":status", "103"), ("link", "x")]), 0));
    peer.send(&answer(&fields(&[(":status", "418"), ("x", "y")]), END_STREAM));
    assert_eq!(peer.end.seen[2..], [Seen::Answer(stream, 418), Seen::End(stream)]);
    let (mut peer, _) = Peer::server();
    peer.end.request(peer.now, 0, false);
    peer.resets(&frame(DATA, 0, 3, b"early"), 3, ErrorCode::PROTOCOL_ERROR);
}

// HB-18
#[test]
fn a_go_away_takes_back_what_was_not_looked_at() {
    let (mut peer, first) = Peer::server();
    let second = peer.end.request(peer.now, 0, false);
    let third = peer.end.request(peer.now, 0, false);
    peer.send(&frame(GOAWAY, 0, 0, &[&1u32.to_be_bytes()[..], &0u32.to_be_bytes(), b"and a word"].concat()));
    let refused = |stream| Seen::Reset(stream, ErrorCode::REFUSED_STREAM, ResetReason::NotProcessed);
    assert_eq!(peer.end.seen[2..], [Seen::GoAway(ErrorCode::NO_ERROR), refused(third), refused(second)]);
    assert!(peer.end.conn.is_open(first));
    // The last stream cannot rise again, only fall.
    peer.send(&frame(GOAWAY, 0, 0, &[0, 0, 0, 9, 0, 0, 0, 0]));
    assert!(!peer.end.conn.may_request());
    peer.send(&frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 2]));
    assert_eq!(peer.end.seen.last(), Some(&refused(first)));
    assert!(peer.end.conn.is_drained());
}

// HB-18
#[test]
fn requests_behind_our_last_stream_are_passed_over() {
    let mut peer = Peer::client();
    peer.open(1);
    peer.end.conn.go_away_gracefully();
    peer.send(&[]);
    let ping = peer.heard().pop().unwrap();
    peer.open(3);
    peer.send(&frame(PING, ACK, 0, &ping.3));
    assert_eq!(peer.heard().pop().unwrap(), (GOAWAY, 0, 0, vec![0, 0, 0, 3, 0, 0, 0, 0]));
    let seen = peer.end.seen.len();
    peer.send(&frame(HEADERS, END_HEADERS, 5, &connect()));
    peer.send(&frame(DATA, 0, 5, b"for nobody"));
    peer.works();
    assert_eq!(peer.end.seen.len(), seen);
}

// HB-21
#[test]
fn a_reset_that_cannot_know_of_the_answer_counts_as_one_before_it() {
    let (open, reset) = (
        |n: u32| frame(HEADERS, END_HEADERS, 2 * n + 1, &connect()),
        |n: u32| frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8]),
    );
    let mut peer = Peer::client();
    for n in 0..512 {
        peer.heard();
        peer.send(&[open(n), reset(n)].concat());
        assert_eq!(peer.end.error, None, "after {n}");
    }
    peer.send(&[open(512), reset(512)].concat());
    assert_eq!(peer.end.error, Some(ConnectionError::Flood(FloodKind::Resets)));
    // Whoever has read the answer may go as he pleases.
    let mut peer = Peer::client();
    for n in 0..2000 {
        peer.send(&open(n));
        assert!(peer.heard().iter().any(|(kind, _, stream, _)| (*kind, *stream) == (HEADERS, 2 * n + 1)));
        peer.send(&reset(n));
        assert_eq!(peer.end.error, None, "after {n}");
    }
}

#[test]
fn floods_end_in_a_go_away_that_says_which() {
    let flood = |kind: FloodKind, frame_of: &dyn Fn(u32) -> Vec<u8>| {
        let mut peer = Peer::client();
        peer.end.accept = false;
        for n in 0..20_000 {
            // The peer reads what we say, so that it is not the backlog that ends it.
            peer.heard();
            peer.send(&frame_of(n));
            if let Some(error) = peer.end.error {
                assert_eq!(error, ConnectionError::Flood(kind), "after {n}");
                assert_eq!(error.code(), ErrorCode::ENHANCE_YOUR_CALM);
                return n;
            }
        }
        panic!("{kind} is not limited");
    };
    assert_eq!(flood(FloodKind::Pings, &|_| frame(PING, 0, 0, &[7; 8])), 512);
    assert_eq!(flood(FloodKind::Settings, &|_| frame(SETTINGS, 0, 0, &[])), 62);
    assert_eq!(flood(FloodKind::Settings, &|_| frame(SETTINGS, ACK, 0, &[])), 62);
    assert_eq!(flood(FloodKind::Noise, &|_| frame(PRIORITY, 0, 1, &[0; 5])), 1024);
    assert_eq!(flood(FloodKind::Noise, &|_| frame(0xaa, 0, 1, &[0; 5])), 1024);
    assert_eq!(flood(FloodKind::Noise, &|_| frame(PING, ACK, 0, &[7; 8])), 1024);
    assert_eq!(flood(FloodKind::Noise, &|_| frame(PING, ACK, 0, b"hb-alive")), 1024);
    assert_eq!(flood(FloodKind::Noise, &|_| frame(PING, ACK, 0, b"hb-drain")), 1024);
    assert_eq!(flood(FloodKind::WindowUpdates, &|_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])), 8192);
    let number = |n: u32| 2 * n + 1;
    let rapid_reset = |n| {
        [frame(HEADERS, END_HEADERS, number(n), &connect()), frame(RST_STREAM, 0, number(n), &[0, 0, 0, 8])].concat()
    };
    assert_eq!(flood(FloodKind::Resets, &rapid_reset), 512);
    let induced = |n| {
        let update = frame(WINDOW_UPDATE, 0, number(n), &[0; 4]);
        [frame(HEADERS, END_HEADERS, number(n), &connect()), update].concat()
    };
    assert_eq!(flood(FloodKind::Faults, &induced), 128);
    assert_eq!(flood(FloodKind::Faults, &|n| frame(HEADERS, END_HEADERS, number(n), &[])), 128);
    let useless = fields(&[(":method", "CONNECT"), (":authority", "10.0.0.2")]);
    assert_eq!(flood(FloodKind::Faults, &|n| frame(HEADERS, END_HEADERS, number(n), &useless)), 128);
    let empty = |n| match n {
        0 => frame(HEADERS, END_HEADERS, 1, &connect()),
        _ => frame(DATA, 0, 1, &[]),
    };
    assert_eq!(flood(FloodKind::Noise, &empty), 1025);
    // 200 streams are open, and every further one is refused.
    assert_eq!(flood(FloodKind::Faults, &|n| frame(HEADERS, END_HEADERS, number(n), &connect())), 200 + 128);
}

#[test]
fn resets_of_answered_streams_are_ordinary_closes() {
    let mut peer = Peer::client();
    for n in 0..5000 {
        peer.open(2 * n + 1);
        peer.send(&frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8]));
        peer.heard();
    }
    peer.works();
}

#[test]
fn refusals_in_great_number_are_no_flood() {
    // A client of the h2 crate answers each refusal with a reset of its own.
    let mut peer = Peer::client();
    peer.end.accept = false;
    for n in 0..5000 {
        let stream = peer.open(2 * n + 1);
        peer.end.conn.reject(stream, 401);
        peer.send(&frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8]));
        peer.heard();
    }
    peer.works();
}

// HB-21
#[test]
fn a_peer_that_does_not_read_cannot_make_us_queue() {
    let mut server = End::server(Instant::now());
    let greeting = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(SETTINGS, ACK, 0, &[])].concat();
    server.read(Instant::now(), &greeting);
    // At the rate pings are allowed for ever, nobody writing.
    let mut now = Instant::now();
    let mut pings = 0;
    while server.error.is_none() {
        server.read(now, &frame(PING, 0, 0, &[1; 8]).repeat(100));
        now += Duration::from_secs(1);
        pings += 100;
        assert!(pings < 10_000);
    }
    assert!(matches!(server.error, Some(ConnectionError::ControlBacklog { queued }) if queued < 70_000));

    // Nor by making us refuse requests, at the rate that is allowed for ever.
    let mut server = End::server(now);
    server.accept = false;
    server.read(now, &greeting);
    let bad = fields(&[(":method", "CONNECT"), (":authority", "nowhere")]);
    for n in 0..50_000 {
        server.read(now, &frame(HEADERS, END_HEADERS, 2 * n + 1, &bad));
        now += Duration::from_secs(1) / 16;
        if server.error.is_some() {
            break;
        }
    }
    assert!(matches!(server.error, Some(ConnectionError::ControlBacklog { queued }) if queued < 300_000));
}

// HB-21
#[test]
fn small_windows_of_the_peer_do_not_outlast_its_updates() {
    // A peer that opens its window byte by byte pays with its WINDOW_UPDATEs for what it gets, no more.
    let (mut peer, stream) = Peer::server();
    peer.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    peer.end.app(stream).to_send = 1 << 20;
    for _ in 0..100_000 {
        peer.send(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]));
        peer.end.out.clear();
        if peer.end.error.is_some() {
            break;
        }
    }
    // 65,535 of connection window, one frame each; then updates of the stream alone buy nothing.
    assert_eq!(peer.end.frames, 65_535);
    assert_eq!(peer.end.error, Some(ConnectionError::Flood(FloodKind::WindowUpdates)));
}

#[test]
fn calls_for_streams_that_are_over_do_nothing() {
    let mut peer = Peer::client();
    let stream = peer.open(1);
    peer.send(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]));
    peer.heard();
    let conn = &mut peer.end.conn;
    conn.answer(stream, &ConnectAnswer::accepted(None));
    conn.reject(stream, 503);
    conn.finish(stream);
    conn.consumed(peer.now, stream, 10);
    conn.reset(stream, ErrorCode::CANCEL);
    assert_eq!((conn.hold(stream, 10), conn.send_capacity(stream)), (Ok(()), 0));
    assert_eq!(conn.data_header(stream, 0, true), None);
    assert!(!conn.has_control() && !conn.is_open(stream));
    // The slot is given out again; the old name does not reach the new stream.
    let next = peer.open(3);
    assert_eq!((next.slot(), next.number()), (stream.slot(), 3));
    peer.end.conn.reset(stream, ErrorCode::CANCEL);
    assert!(peer.end.conn.is_open(next));
}

// HB-10
#[test]
fn a_server_sends_nothing_before_it_has_answered() {
    let mut peer = Peer::client();
    peer.end.accept = false;
    let stream = peer.open(1);
    peer.heard();
    let conn = &mut peer.end.conn;
    assert_eq!((conn.send_capacity(stream), conn.data_header(stream, 1, false)), (0, None));
    conn.finish(stream);
    assert!(!conn.has_control());
    conn.answer(stream, &ConnectAnswer::accepted(None));
    conn.answer(stream, &ConnectAnswer::accepted(None));
    conn.reject(stream, 503);
    peer.send(&[]);
    assert_eq!(peer.heard(), [(HEADERS, END_HEADERS, 1, vec![0x88])]);
    assert_eq!(peer.end.conn.send_capacity(stream), 16_384);
    assert_eq!(peer.end.conn.data_header(stream, 16_385, false), None);
}

#[test]
fn baggage_that_fits_no_frame_is_refused_or_left_out() {
    let (mut peer, _) = Peer::server();
    let mut request = ConnectRequest::new("10.0.0.2:80".parse::<Authority>().unwrap());
    request.baggage = Baggage::new("x".repeat(17_000));
    let error = peer.end.conn.request(peer.now, &request).unwrap_err();
    assert!(error.to_string().contains("shorten the baggage"), "{error}");
    assert!(!peer.end.conn.has_control());

    let mut peer = Peer::client();
    peer.end.accept = false;
    let stream = peer.open(1);
    peer.end.conn.answer(stream, &ConnectAnswer::accepted(request.baggage));
    peer.send(&[]);
    assert_eq!(peer.heard(), [(HEADERS, END_HEADERS, 1, vec![0x88])]);
}

// HB-10
#[test]
fn unanswered_streams_hold_what_comes_early() {
    let mut peer = Peer::client();
    peer.end.accept = false;
    peer.end.stall_new = true;
    let stream = peer.open(1);
    let early: Vec<u8> = (0..1000).map(|at| shell::pattern(stream, at)).collect();
    peer.send(&frame(DATA, 0, 1, &early));
    assert_eq!(peer.end.apps.get(&stream).map(|app: &App| app.held), Some(1000));
    peer.end.conn.reject(stream, 401);
    peer.send(&frame(DATA, 0, 1, &early));
    assert_eq!(peer.end.error, None);
}
