// SPDX-License-Identifier: Apache-2.0
//! What may come on a stream and when, and what the caller may do with one.

use hbone::ErrorCode;
use hbone::request::ConnectAnswer;

use super::peer::{
    DATA, END_HEADERS, END_STREAM, HEADERS, PRIORITY, PUSH_PROMISE, Peer, RST_STREAM, WINDOW_UPDATE, connect, field,
};
use super::shell::{self, App, Seen, frame};

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
