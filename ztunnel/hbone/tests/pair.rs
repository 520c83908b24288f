// SPDX-License-Identifier: Apache-2.0
//! Both ends are ours, in virtual time: what each guarantees to the other.
#![allow(clippy::unwrap_used)]

mod shell;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hbone::request::{Authority, Baggage, ConnectAnswer, ConnectRequest, Forwarded, TraceParent};
use hbone::{Budget, Connection, ConnectionError, ErrorCode, NoStream, Options, ResetReason, Scope};
use proptest::prelude::*;
use shell::{End, Pair, Seen, budget};

const MIB: usize = 1 << 20;

// HB-6
#[test]
fn a_request_arrives_as_it_was_made() {
    let mut pair = Pair::new();
    let request = ConnectRequest {
        authority: Authority::Name { host: "web.default.svc.cluster.local".into(), port: 80 },
        baggage: Baggage::new("k8s.cluster.name=Kubernetes,service.name=client"),
        forwarded: Some(Forwarded { client: "[2001:db8::1]:4711".parse().ok(), host: Some("web.default".into()) }),
        traceparent: Some(TraceParent::new(1 << 100, 77)),
        network: Some("network-2".into()),
    };
    pair.server.accept = false;
    let stream = pair.client.conn.request(pair.now, &request).unwrap();
    pair.settle();
    let Some(Seen::Request(asked, seen)) = pair.server.seen.pop() else { panic!("no request") };
    assert_eq!((asked.number(), &seen), (1, &request));

    let baggage = Baggage::new("service.name=server");
    pair.server.conn.answer(asked, &ConnectAnswer::accepted(baggage));
    pair.settle();
    assert_eq!(pair.client.seen.last(), Some(&Seen::Answer(stream, 200)));
}

// HB-11
#[test]
fn bytes_cross_both_ways_and_both_fins_close_the_stream() {
    let mut pair = Pair::new();
    let stream = pair.client.request(pair.now, 3 * MIB, true);
    pair.settle();
    let there = pair.server_side(stream);
    assert_eq!(pair.server.app(there).taken, 3 * MIB);
    assert!(pair.server.app(there).ended);
    // Half-closed: the other direction goes on.
    pair.server.app(there).to_send = 5 * MIB;
    pair.server.app(there).then_end = true;
    pair.settle();
    assert_eq!(pair.client.app(stream).taken, 5 * MIB);
    assert!(pair.client.app(stream).ended);
    assert_eq!((pair.client.conn.open_streams(), pair.server.conn.open_streams()), (0, 0));
    assert!(!pair.client.conn.is_open(stream) && !pair.server.conn.is_open(there));
    assert!(pair.client.largest > 16_384, "frames as large as the peer allows, not {}", pair.client.largest);
}

#[test]
fn the_end_of_a_message_is_known_with_its_last_bytes() {
    let mut pair = Pair::new();
    let going_on = pair.client.request(pair.now, 64, false);
    pair.settle();
    let ending = pair.client.request(pair.now, 64, true);
    pair.settle();
    assert_eq!(pair.server.foreseen, [pair.server_side(ending)]);
    let there = pair.server_side(going_on);
    assert_eq!((pair.server.app(there).taken, pair.server.app(there).ended), (64, false));
}

#[test]
fn a_window_grows_while_the_application_keeps_up() {
    let mut pair = Pair::new();
    let stream = pair.client.request(pair.now, 64 * MIB, false);
    pair.settle();
    let there = pair.server_side(stream);
    // Now it stalls: what the peer may still send is the window it has grown to.
    pair.server.app(there).stalled = true;
    pair.client.app(stream).to_send = 64 * MIB;
    pair.settle();
    let held = pair.server.app(there).held;
    assert!((3 * MIB..=4 * MIB).contains(&held), "{held}");
    pair.server.unstall(pair.now, there);
    pair.settle();
    assert_eq!(pair.server.app(there).taken, 128 * MIB);
}

#[test]
fn a_window_stays_small_for_a_slow_stream() {
    let mut pair = Pair::new();
    let stream = pair.open();
    let there = pair.server_side(stream);
    for _ in 0..200 {
        pair.client.app(stream).to_send = 32 << 10;
        pair.now += Duration::from_millis(500);
        pair.settle();
    }
    pair.server.app(there).stalled = true;
    pair.client.app(stream).to_send = 64 * MIB;
    pair.settle();
    assert!(pair.server.app(there).held <= 256 << 10, "{}", pair.server.app(there).held);
}

#[test]
fn a_window_does_not_grow_without_room_in_the_budget() {
    let now = Instant::now();
    let node = Budget::node(2 * MIB);
    let server = End::new(Connection::server(Arc::new(Options::server(node.pod(2 * MIB))), now));
    let mut pair = Pair::of(now, End::client(now), server);
    // Half of the node is held by one reader, so nobody gets more than the initial window.
    pair.server.stall_new = true;
    for _ in 0..5 {
        pair.client.request(now, 64 * MIB, false);
    }
    pair.settle();
    assert_eq!(node.used(), 5 * (256 << 10));
    pair.server.stall_new = false;
    let quick = pair.client.request(now, 64 * MIB, false);
    pair.settle();
    let there = pair.server_side(quick);
    assert_eq!(pair.server.app(there).taken, 64 * MIB);
    pair.server.app(there).stalled = true;
    pair.client.app(quick).to_send = 64 * MIB;
    pair.settle();
    assert_eq!(pair.server.app(there).held, 256 << 10);
    drop(pair);
    assert_eq!(node.used(), 0);
}

#[test]
fn a_grown_window_shrinks_when_memory_runs_short() {
    let now = Instant::now();
    let node = Budget::node(8 * MIB);
    let server = End::new(Connection::server(Arc::new(Options::server(node.pod(8 * MIB))), now));
    let mut pair = Pair::of(now, End::client(now), server);
    let quick = pair.client.request(now, 64 * MIB, false);
    pair.settle();
    pair.server.stall_new = true;
    for _ in 0..17 {
        pair.client.request(now, MIB, false);
    }
    pair.settle();
    assert!(node.used() > 4 * MIB);
    pair.client.app(quick).to_send = 64 * MIB;
    pair.settle();
    let there = pair.server_side(quick);
    assert_eq!(pair.server.app(there).taken, 128 * MIB);
    pair.server.app(there).stalled = true;
    pair.client.app(quick).to_send = 64 * MIB;
    pair.settle();
    assert_eq!(pair.server.app(there).held, 256 << 10);
    assert_eq!(pair.server.app(there).over_budget, None);
}

// HB-14
#[test]
fn readers_that_stall_do_not_stall_their_neighbours() {
    let mut pair = Pair::new();
    pair.server.stall_new = true;
    let stalled: Vec<_> = (0..80).map(|_| pair.client.request(pair.now, MIB, false)).collect();
    pair.settle();
    pair.server.stall_new = false;
    let quick = pair.client.request(pair.now, MIB, true);
    pair.settle();
    let there = pair.server_side(quick);
    assert_eq!(pair.server.app(there).taken, MIB);
    for stream in stalled {
        let there = pair.server_side(stream);
        assert_eq!(pair.server.app(there).held, 256 << 10);
        pair.server.unstall(pair.now, there);
        pair.settle();
        assert_eq!(pair.server.app(there).taken, MIB);
    }
}

// HB-15
#[test]
fn past_a_budget_the_stream_is_reset_and_the_others_go_on() {
    let now = Instant::now();
    for scope in [Scope::Tunnel, Scope::Pod, Scope::Node] {
        let small = |at: Scope| if at == scope { MIB } else { 64 * MIB };
        let node = Budget::node(small(Scope::Node));
        let mut options = Options::server(node.pod(small(Scope::Pod)));
        options.tunnel_limit = small(Scope::Tunnel);
        let mut pair = Pair::of(now, End::client(now), End::new(Connection::server(Arc::new(options), now)));
        pair.server.stall_new = true;
        let streams: Vec<_> = (0..5).map(|_| pair.client.request(now, 16 * MIB, false)).collect();
        pair.settle();
        let over = pair.server.apps.values().filter_map(|app| app.over_budget);
        assert_eq!(over.map(|over| (over.scope, over.limit)).collect::<Vec<_>>(), [(scope, MIB)]);
        assert!(node.used() <= MIB);
        let reset = pair.client.seen.iter().filter(|seen| matches!(seen, Seen::Reset(..))).collect::<Vec<_>>();
        assert_eq!(reset, [&Seen::Reset(streams[4], ErrorCode::ENHANCE_YOUR_CALM, ResetReason::Peer)]);
        // Once they read again, all is given back.
        for &stream in &streams[..4] {
            let there = pair.server_side(stream);
            pair.server.unstall(now, there);
        }
        assert_eq!(node.used(), 0);
        pair.settle();
        assert_eq!(pair.server.apps.values().map(|app| app.taken).max(), Some(16 * MIB));
    }
}

#[test]
fn a_stream_limit_counts_for_itself() {
    let now = Instant::now();
    let mut options = Options::server(budget());
    options.stream_limit = 100_000;
    let mut pair = Pair::of(now, End::client(now), End::new(Connection::server(Arc::new(options), now)));
    pair.server.stall_new = true;
    let stream = pair.client.request(now, MIB, false);
    pair.settle();
    let there = pair.server_side(stream);
    assert_eq!(pair.server.app(there).over_budget.unwrap().scope, Scope::Stream);
}

#[test]
fn a_stream_ends_only_when_its_bytes_have_been_taken() {
    let mut pair = Pair::new();
    pair.server.stall_new = true;
    let stream = pair.client.request(pair.now, 1000, true);
    pair.settle();
    let there = pair.server_side(stream);
    pair.server.app(there).then_end = true;
    pair.settle();
    assert!(!pair.client.conn.is_open(stream));
    assert_eq!(pair.server.conn.open_streams(), 0);
    assert!(pair.server.conn.is_open(there), "bytes are still held");
    pair.server.unstall(pair.now, there);
    assert!(!pair.server.conn.is_open(there));
}

// HB-12
#[test]
fn a_reset_travels_as_what_it_is() {
    let mut pair = Pair::new();
    let (one, two) = (pair.open(), pair.open());
    pair.client.conn.reset(one, ErrorCode::CANCEL);
    let there = pair.server_side(two);
    pair.server.conn.reset(there, ErrorCode::CONNECT_ERROR);
    // Data of the client that crosses the reset on the way is nobody's fault.
    pair.client.app(two).to_send = 200_000;
    pair.settle();
    let there = pair.server_side(one);
    assert!(pair.server.seen.contains(&Seen::Reset(there, ErrorCode::CANCEL, ResetReason::Peer)));
    assert!(pair.client.seen.contains(&Seen::Reset(two, ErrorCode::CONNECT_ERROR, ResetReason::Peer)));
    assert_eq!((pair.client.conn.open_streams(), pair.server.conn.open_streams()), (0, 0));
    let (error, three) = (pair.client.error.clone(), pair.open());
    assert_eq!((error, three.number()), (None, 5));
}

// HB-9
#[test]
fn a_refusal_is_a_status_and_the_end() {
    let mut pair = Pair::new();
    pair.server.accept = false;
    let stream = pair.client.request(pair.now, 5000, false);
    pair.settle();
    let there = pair.server_side(stream);
    pair.server.conn.reject(there, 401);
    pair.settle();
    assert!(!pair.server.conn.is_open(there));
    let told = pair.client.seen.iter().filter(|seen| **seen != Seen::Settings).cloned().collect::<Vec<_>>();
    let stop = Seen::Reset(stream, ErrorCode::NO_ERROR, ResetReason::Peer);
    assert_eq!(told, [Seen::Answer(stream, 401), Seen::End(stream), stop]);
}

// HB-13
#[test]
fn a_reset_behind_the_end_leaves_what_was_sent() {
    let mut pair = Pair::new();
    pair.server.stall_new = true;
    let stream = pair.client.request(pair.now, 1000, true);
    pair.settle();
    let there = pair.server_side(stream);
    pair.client.conn.reset(stream, ErrorCode::CANCEL);
    pair.settle();
    assert_eq!(pair.server.seen.last(), Some(&Seen::End(there)));
    assert_eq!(pair.server.conn.send_capacity(there), 0);
    pair.server.unstall(pair.now, there);
    pair.server.turn(pair.now, &[]);
    let reset = Seen::Reset(there, ErrorCode::CANCEL, ResetReason::Peer);
    assert_eq!((pair.server.app(there).taken, pair.server.seen.last()), (1000, Some(&reset)));

    // One who gives up first is told nothing more.
    let stream = pair.client.request(pair.now, 1000, true);
    pair.settle();
    let there = pair.server_side(stream);
    pair.client.conn.reset(stream, ErrorCode::CANCEL);
    pair.settle();
    pair.server.conn.reset(there, ErrorCode::CANCEL);
    let seen = pair.server.seen.len();
    pair.server.turn(pair.now, &[]);
    assert_eq!((pair.server.seen.len(), pair.server.out.len()), (seen, 0));
}

// HB-19
#[test]
fn streams_are_limited_by_both_sides() {
    let mut pair = Pair::new();
    for _ in 0..100 {
        pair.client.request(pair.now, 0, false);
    }
    let another = ConnectRequest::new("10.0.0.2:80".parse::<Authority>().unwrap());
    assert_eq!(pair.client.conn.request(pair.now, &another), Err(NoStream::AtLimit { limit: 100 }));
    pair.settle();
    assert_eq!(pair.server.conn.open_streams(), 100);

    // A client that opens more than it is allowed, because it has not heard yet.
    let now = pair.now;
    let mut options = Options::server(budget());
    options.max_streams = 3;
    let mut pair = Pair::of(now, End::client(now), End::new(Connection::server(Arc::new(options), now)));
    let streams: Vec<_> = (0..5).map(|_| pair.client.request(now, 0, false)).collect();
    pair.settle();
    let reset = |n: usize| Seen::Reset(streams[n], ErrorCode::REFUSED_STREAM, ResetReason::Peer);
    assert!(pair.client.seen.contains(&reset(3)) && pair.client.seen.contains(&reset(4)));
    assert_eq!(pair.server.conn.open_streams(), 3);
    assert_eq!(pair.client.conn.request(now, &another), Err(NoStream::AtLimit { limit: 3 }));
}

// HB-18
#[test]
fn a_server_leaves_without_losing_what_was_under_way() {
    let mut pair = Pair::new();
    let first = pair.open();
    pair.server.conn.go_away_gracefully();
    // Sent before the client could know.
    let second = pair.client.request(pair.now, 10, true);
    pair.settle();
    assert_eq!(pair.client.seen.last(), Some(&Seen::GoAway(ErrorCode::NO_ERROR)));
    assert!(pair.client.seen.contains(&Seen::Answer(second, 200)));
    assert!(!pair.client.conn.may_request());
    assert_eq!(pair.server.conn.open_streams(), 2);
    for end in [&mut pair.client, &mut pair.server] {
        assert!(end.conn.is_going_away() && !end.conn.is_drained());
        for app in end.apps.values_mut() {
            app.then_end = app.answered && !(app.taken == 0 && app.sent == 10);
        }
    }
    pair.settle();
    assert!(pair.client.app(first).ended);
    assert!(pair.client.conn.is_drained() && pair.server.conn.is_drained(), "{pair:?}");
}

// HB-18
#[test]
fn a_client_leaves_when_its_streams_have_ended() {
    let mut pair = Pair::new();
    let stream = pair.open();
    pair.client.conn.go_away_gracefully();
    pair.settle();
    assert_eq!(pair.server.seen.last(), Some(&Seen::GoAway(ErrorCode::NO_ERROR)));
    let another = ConnectRequest::new("10.0.0.2:80".parse::<Authority>().unwrap());
    assert_eq!(pair.client.conn.request(pair.now, &another), Err(NoStream::GoingAway));
    let there = pair.server_side(stream);
    pair.client.app(stream).then_end = true;
    pair.server.app(there).then_end = true;
    pair.settle();
    assert!(pair.client.conn.is_drained() && pair.server.conn.is_drained());
}

#[test]
fn close_ends_it_at_once() {
    let mut pair = Pair::new();
    pair.open();
    pair.server.conn.close(ErrorCode::NO_ERROR);
    pair.settle();
    assert_eq!(pair.client.seen.last(), Some(&Seen::GoAway(ErrorCode::NO_ERROR)));
    assert!(pair.server.conn.is_drained());
    assert_eq!(pair.server.conn.next_event(pair.now, &mut &b"x"[..]).unwrap_err(), ConnectionError::Ended);
}

// HB-17
#[test]
fn pings_keep_time_and_silence_is_noticed() {
    let mut pair = Pair::new();
    pair.open();
    pair.pass(Duration::from_secs(3600));
    assert_eq!((&pair.client.error, &pair.server.error), (&None, &None));
    // The path breaks: first ping after 10 s at the latest, 20 s for its answer.
    let broken = pair.now;
    pair.server_deaf = true;
    pair.pass(Duration::from_secs(31));
    assert_eq!(pair.client.error, Some(ConnectionError::PingTimeout(Duration::from_secs(20))));
    assert!(pair.now - broken < Duration::from_secs(32));
    assert_eq!(pair.client.conn.next_deadline(), None);
}

// HB-17
#[test]
fn data_is_a_sign_of_life_when_the_pong_is_late() {
    let now = Instant::now();
    let mut pair = Pair::of(now, End::client(now), End::server(now));
    let stream = pair.open();
    let there = pair.server_side(stream);
    // The server no longer hears the client's pings, but keeps sending.
    pair.server_deaf = true;
    for _ in 0..20 {
        pair.server.app(there).to_send = 1000;
        pair.pass(Duration::from_secs(9));
        assert_eq!(pair.client.error, None);
        pair.server.error = None;
    }
}

// HB-2
#[test]
fn a_peer_that_never_begins_is_given_up() {
    let now = Instant::now();
    for mut end in [End::client(now), End::server(now)] {
        let deadline = end.conn.next_deadline().unwrap();
        assert_eq!(deadline, now + Duration::from_secs(10));
        let error = end.conn.handle_timeout(deadline).unwrap_err();
        assert_eq!(error.code(), ErrorCode::SETTINGS_TIMEOUT);
        assert!(matches!(error, ConnectionError::SlowOpening { what: "its SETTINGS", .. }));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_cuts_every_byte_arrives(
        sizes in proptest::collection::vec((0..300_000usize, 0..300_000usize), 1..6),
        cuts in proptest::collection::vec(1..5000usize, 1..20),
        stalled in 0..6usize,
    ) {
        let mut pair = Pair::new();
        let mut at = 0;
        let mut cut = move |_| { at += 1; cuts[at % cuts.len()] };
        let streams: Vec<_> = sizes.iter().map(|&(size, _)| pair.client.request(pair.now, size, true)).collect();
        pair.settle_cut(&mut cut);
        for (stream, &(_, back)) in streams.iter().zip(&sizes) {
            let there = pair.server_side(*stream);
            pair.server.app(there).to_send = back;
            pair.server.app(there).then_end = true;
        }
        if let Some(&stream) = streams.get(stalled) {
            pair.client.app(stream).stalled = true;
        }
        pair.settle_cut(&mut cut);
        if let Some(&stream) = streams.get(stalled) {
            pair.client.unstall(pair.now, stream);
            pair.settle_cut(&mut cut);
        }
        for (stream, &(size, back)) in streams.iter().zip(&sizes) {
            let there = pair.server_side(*stream);
            prop_assert_eq!(pair.server.app(there).taken, size);
            prop_assert_eq!(pair.client.app(*stream).taken, back);
            prop_assert!(pair.server.app(there).ended && pair.client.app(*stream).ended);
        }
        prop_assert_eq!((pair.client.conn.open_streams(), pair.server.conn.open_streams()), (0, 0));
    }
}
