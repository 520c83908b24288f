// SPDX-License-Identifier: Apache-2.0
//! Header blocks: requests, answers, and what is in them.

use std::time::Duration;

use hbone::request::{Authority, Baggage, ConnectAnswer, ConnectRequest};
use hbone::{ConnectionError, ErrorCode, FloodKind};

use super::peer::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Peer, RST_STREAM, SETTINGS, connect, field, fields,
};
use super::shell::{Seen, frame};

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
