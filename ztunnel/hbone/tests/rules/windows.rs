// SPDX-License-Identifier: Apache-2.0
//! SETTINGS and windows, of a connection and of its streams.

use std::time::Instant;

use hbone::{ConnectionError, ErrorCode, Options, ResetReason};

use super::peer::{ACK, DATA, END_HEADERS, HEADERS, PADDED, PING, Peer, SETTINGS, WINDOW_UPDATE};
use super::shell::{End, PREFACE, Seen, budget, frame};

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
