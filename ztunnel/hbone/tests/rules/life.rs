// SPDX-License-Identifier: Apache-2.0
//! How a connection ends: in peace, or because of a flood.

use std::time::{Duration, Instant};

use hbone::{ConnectionError, ErrorCode, FloodKind, ResetReason};

use super::peer::{
    ACK, DATA, END_HEADERS, GOAWAY, HEADERS, PING, PRIORITY, Peer, RST_STREAM, SETTINGS, WINDOW_UPDATE, connect, fields,
};
use super::shell::{End, PREFACE, Seen, frame};

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
