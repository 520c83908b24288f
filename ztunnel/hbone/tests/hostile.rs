// SPDX-License-Identifier: Apache-2.0
//! Whatever bytes come and whatever the caller does meanwhile: no panic, and everything that is kept stays within its bound.
#![allow(clippy::unwrap_used)]

mod shell;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hbone::request::{Authority, Baggage, ConnectAnswer, ConnectRequest, Forwarded, TraceParent};
use hbone::{Budget, Connection, ErrorCode, Event, Options, StreamId};
use proptest::prelude::*;
use shell::{PREFACE, frame};

/// One thing that happens to a connection.
#[derive(Debug, Clone)]
enum Op {
    /// Bytes from the peer.
    Input(Vec<u8>),
    /// The caller on one of the streams it knows.
    Request,
    Answer(usize),
    Reject(usize),
    Consume(usize, usize),
    Hold(usize, usize),
    Send(usize, usize, bool),
    Finish(usize),
    Reset(usize),
    Write,
    Wait(u64),
    GoAway,
    Close,
}

fn connect_block() -> Vec<u8> {
    [&b"\0\x07:method\x07CONNECT\0\x0a:authority\x0b10.0.0.2:80"[..]].concat()
}

fn block() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => Just(connect_block()),
        2 => Just(vec![0x88]),
        1 => Just(b"\x40\x01a\x01b\xbe".to_vec()),
        2 => proptest::collection::vec(any::<u8>(), 0..60),
    ]
}

/// Frames, most of them nearly right.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let stream = prop_oneof![8 => 0..8u32, 1 => any::<u32>()];
    let small = prop_oneof![Just([0u8; 4]), Just([0, 0, 0, 1]), Just([0x7f, 0xff, 0xff, 0xff]), any::<[u8; 4]>()];
    let setting = (0..9u16, prop_oneof![Just(0u32), 0..100_000u32, any::<u32>()])
        .prop_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
    prop_oneof![
        3 => (block(), stream.clone(), any::<u8>()).prop_map(|(block, stream, flags)| frame(1, flags & 0x2d | 4, stream, &block)),
        1 => (block(), stream.clone(), any::<u8>()).prop_map(|(block, stream, flags)| frame(9, flags, stream, &block)),
        3 => (0..70_000usize, stream.clone(), any::<u8>()).prop_map(|(n, stream, flags)| frame(0, flags & 9, stream, &vec![3; n])),
        2 => (small.clone(), stream.clone()).prop_map(|(value, stream)| frame(8, 0, stream, &value)),
        2 => (small, stream.clone()).prop_map(|(value, stream)| frame(3, 0, stream, &value)),
        2 => (proptest::collection::vec(setting, 0..4), 0..2u8).prop_map(|(list, ack)| frame(4, ack, 0, &list.concat())),
        1 => (any::<[u8; 8]>(), 0..2u8).prop_map(|(payload, ack)| frame(6, ack, 0, &payload)),
        1 => (0..2u8).prop_map(|ack| frame(6, ack, 0, b"hb-drain")),
        1 => any::<[u8; 12]>().prop_map(|payload| frame(7, 0, 0, &payload)),
        1 => (any::<u8>(), any::<u8>(), stream, proptest::collection::vec(any::<u8>(), 0..30))
            .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload)),
        1 => proptest::collection::vec(any::<u8>(), 0..30),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let stream = 0..8usize;
    prop_oneof![
        12 => bytes().prop_map(Op::Input),
        2 => Just(Op::Request),
        2 => stream.clone().prop_map(Op::Answer),
        1 => stream.clone().prop_map(Op::Reject),
        3 => (stream.clone(), 0..100_000usize).prop_map(|(stream, length)| Op::Consume(stream, length)),
        3 => (stream.clone(), 0..100_000usize).prop_map(|(stream, length)| Op::Hold(stream, length)),
        3 => (stream.clone(), 0..100_000usize, any::<bool>()).prop_map(|(stream, length, end)| Op::Send(stream, length, end)),
        1 => stream.clone().prop_map(Op::Finish),
        1 => stream.prop_map(Op::Reset),
        3 => Just(Op::Write),
        1 => (0..20_000u64).prop_map(Op::Wait),
        1 => Just(Op::GoAway),
        1 => prop_oneof![9 => Just(Op::Write), 1 => Just(Op::Close)],
    ]
}

/// Does it all, and checks the bounds after each step.
fn play(mut conn: Connection, budget: &Budget, start: Instant, ops: &[Op]) {
    let mut now = start;
    let mut streams: Vec<StreamId> = Vec::new();
    let mut out = Vec::new();
    let mut dead = false;
    for op in ops {
        let of = |n: usize| streams.get(n % streams.len().max(1)).copied();
        match op {
            Op::Input(bytes) => {
                let mut input = &bytes[..];
                loop {
                    match conn.next_event(now, &mut input) {
                        Ok(Some(Event::Request { stream, .. } | Event::BadRequest { stream, .. })) => {
                            streams.push(stream)
                        }
                        Ok(Some(Event::Data { stream, bytes })) => {
                            assert!(!bytes.is_empty() && streams.contains(&stream));
                        }
                        Ok(Some(_)) => {}
                        Ok(None) => {
                            assert!(input.is_empty());
                            break;
                        }
                        Err(_) => {
                            dead = true;
                            break;
                        }
                    }
                }
            }
            Op::Request => {
                if let Ok(stream) = conn.request(now, &ConnectRequest::new("10.0.0.2:80".parse::<Authority>().unwrap()))
                {
                    streams.push(stream);
                }
            }
            Op::Answer(n) => of(*n).into_iter().for_each(|s| conn.answer(s, &ConnectAnswer::accepted(None))),
            Op::Reject(n) => of(*n).into_iter().for_each(|s| conn.reject(s, 503)),
            Op::Consume(n, length) => of(*n).into_iter().for_each(|s| conn.consumed(now, s, *length)),
            Op::Hold(n, length) => {
                if of(*n).is_some_and(|s| conn.hold(s, *length).is_err()) {
                    of(*n).into_iter().for_each(|s| conn.reset(s, ErrorCode::ENHANCE_YOUR_CALM));
                }
            }
            Op::Send(n, length, end) => {
                conn.write_control(&mut out);
                if let Some(stream) = of(*n) {
                    let length = (*length).min(conn.send_capacity(stream));
                    assert!(length == 0 || conn.data_header(stream, length, *end).is_some());
                }
            }
            Op::Finish(n) => of(*n).into_iter().for_each(|s| conn.finish(s)),
            Op::Reset(n) => of(*n).into_iter().for_each(|s| conn.reset(s, ErrorCode::CANCEL)),
            Op::Write => {
                conn.write_control(&mut out);
                assert!(!conn.has_control());
                out.clear();
            }
            Op::Wait(millis) => {
                now += Duration::from_millis(*millis);
                dead |= conn.handle_timeout(now).is_err();
                assert!(
                    dead || conn.next_deadline().is_some_and(|deadline| deadline > now)
                        || conn.next_deadline().is_none()
                );
            }
            Op::GoAway => conn.go_away_gracefully(),
            Op::Close => conn.close(ErrorCode::NO_ERROR),
        }
        assert!(budget.used() <= budget.limit());
        assert!(conn.open_streams() <= 200);
    }
    drop(conn);
    assert_eq!(budget.used(), 0, "what was charged comes back");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_server_stands_whatever_happens(ops in proptest::collection::vec(op(), 1..60), limit in 1_000..200_000usize) {
        let (now, node) = (Instant::now(), Budget::node(limit));
        let conn = Connection::server(Arc::new(Options::server(node.pod(limit))), now);
        let greeting = Op::Input([PREFACE, &frame(4, 0, 0, &[])].concat());
        play(conn, &node, now, &[&[greeting], &ops[..]].concat());
    }

    #[test]
    fn a_client_stands_whatever_happens(ops in proptest::collection::vec(op(), 1..60), limit in 1_000..200_000usize) {
        let (now, node) = (Instant::now(), Budget::node(limit));
        let conn = Connection::client(Arc::new(Options::client(node.pod(limit))), now);
        play(conn, &node, now, &[&[Op::Input(frame(4, 0, 0, &[])), Op::Request, Op::Request], &ops[..]].concat());
    }

    #[test]
    fn bytes_without_any_sense_are_refused_quietly(noise in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let now = Instant::now();
        for greeting in [&b""[..], PREFACE] {
            let node = Budget::node(1 << 20);
            let conn = Connection::server(Arc::new(Options::server(node.pod(1 << 20))), now);
            play(conn, &node, now, &[Op::Input(greeting.to_vec()), Op::Input(noise.clone())]);
        }
    }

    #[test]
    fn header_values_parse_or_do_not(text in "\\PC{0,80}", noise in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(authority) = text.parse::<Authority>() {
            prop_assert_eq!(authority.to_string().parse::<Authority>(), Ok(authority));
        }
        for value in [text.as_bytes(), &noise[..]] {
            let forwarded = Forwarded::parse(value);
            prop_assert_eq!(Forwarded::parse(forwarded.to_string().as_bytes()), forwarded);
            if let Some(trace) = TraceParent::parse(value) {
                prop_assert_eq!(TraceParent::parse(trace.to_string().as_bytes()), Some(trace));
            }
        }
        if let Some(baggage) = Baggage::new(text) {
            let again = baggage.fields().to_baggage();
            let fields = again.as_ref().map(Baggage::fields).unwrap_or_default();
            prop_assert_eq!(baggage.fields(), fields);
        }
    }
}
