// SPDX-License-Identifier: Apache-2.0
//! The accounts and limits of one connection, to the byte and the millisecond: states that a peer would need many frames to reach are
//! made by hand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::receive::OWN_CONTROL;
use super::state::Table;
use super::streams::{Half, Wish};
use super::{Connection, Event, ResetReason, StreamId};
use crate::budget::{Budget, OverBudget, Scope};
use crate::error::{ConnectionError, ErrorCode, NoStream};
use crate::frame::{MIN_FRAME_SIZE, setting_id};
use crate::options::Options;
use crate::request::{Authority, Baggage, ConnectAnswer, ConnectRequest};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// What happens on these bytes, in words.
fn read(conn: &mut Connection, now: Instant, bytes: &[u8]) -> Result<Vec<String>, ConnectionError> {
    let mut input = bytes;
    let mut seen = Vec::new();
    while let Some(event) = conn.next_event(now, &mut input)? {
        seen.push(match event {
            Event::Data { stream, bytes } => format!("data {} {}", stream.number, bytes.len()),
            Event::End { stream } => format!("end {}", stream.number),
            Event::Reset { stream, reason: ResetReason::Peer, .. } => format!("reset {}", stream.number),
            Event::Writable { stream } => format!("writable {}", stream.number),
            other => format!("{other:?}"),
        });
    }
    Ok(seen)
}

fn written(conn: &mut Connection) -> Vec<u8> {
    let mut out = Vec::new();
    conn.write_control(&mut out);
    out
}

/// A server whose client has exchanged SETTINGS with it, and when.
fn server(options: Options) -> (Connection, Instant) {
    let now = Instant::now();
    let mut conn = Connection::server(Arc::new(options), now);
    let greeting = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(SETTINGS, 1, 0, &[])].concat();
    read(&mut conn, now, &greeting).unwrap();
    written(&mut conn);
    (conn, now)
}

fn client(options: Options) -> (Connection, Instant) {
    let now = Instant::now();
    let mut conn = Connection::client(Arc::new(options), now);
    read(&mut conn, now, &[frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, 1, 0, &[])].concat()).unwrap();
    written(&mut conn);
    (conn, now)
}

fn budget() -> Budget {
    Budget::node(1 << 30)
}

/// A stream on which both sides may send.
fn open(conn: &mut Connection, now: Instant, number: u32) -> StreamId {
    conn.streams.begin(number);
    conn.insert(now, number, Half::Open, Half::Open)
}

/// So many bytes have arrived, and nobody has taken them.
fn arrive(conn: &mut Connection, stream: StreamId, length: u32) {
    assert!(conn.streams.get_mut(stream).unwrap().receive.arrive(length));
}

fn request(baggage: Option<Baggage>) -> ConnectRequest {
    let mut request = ConnectRequest::new("10.0.0.2:80".parse::<Authority>().unwrap());
    request.baggage = baggage;
    request
}

// HB-9
#[test]
fn bytes_are_held_up_to_each_limit_and_given_back_to_every_account() {
    let budget = budget();
    let options = Options { stream_limit: 600, tunnel_limit: 1000, ..Options::server(budget.clone()) };
    let (mut conn, now) = server(options);
    let (one, two) = (open(&mut conn, now, 1), open(&mut conn, now, 3));
    let over = |scope, limit| Err(OverBudget { scope, limit });
    arrive(&mut conn, one, 601);
    assert_eq!(conn.hold(one, 600), Ok(()));
    assert_eq!(conn.hold(one, 1), over(Scope::Stream, 600));
    arrive(&mut conn, two, 402);
    assert_eq!(conn.hold(two, 400), Ok(()));
    assert_eq!(conn.hold(two, 1), over(Scope::Tunnel, 1000));
    conn.streams.get_mut(one).unwrap().receive.consume(0);
    assert_eq!((conn.waiting.held, budget.used()), (1000, 1000));
    conn.consumed(now, one, 601);
    assert_eq!((conn.waiting.held, budget.used()), (400, 400));
    assert_eq!(conn.hold(two, 1), Ok(()));
    conn.reset(two, ErrorCode::CANCEL);
    assert_eq!((conn.waiting.held, budget.used()), (0, 0));
    arrive(&mut conn, one, 5);
    assert_eq!((conn.hold(one, 5), budget.used()), (Ok(()), 5));
    drop(conn);
    assert_eq!(budget.used(), 0);
}

// HB-9
#[test]
fn what_a_window_grew_by_is_free_again_when_the_stream_or_the_connection_is_gone() {
    // Room for one stream to grow by one step.
    let budget = Budget::node(16_384);
    let options = Options { initial_window: 65_535, max_window: 131_070, ..Options::server(budget.clone()) };
    let (mut conn, now) = server(options);
    for number in [1, 3] {
        let stream = open(&mut conn, now, number);
        arrive(&mut conn, stream, 65_535);
        conn.consumed(now, stream, 65_535);
        assert_eq!(conn.streams.get(stream).unwrap().receive.grown(65_535), 65_535);
        assert!(!budget.promise(2));
        if number == 1 {
            conn.reset(stream, ErrorCode::CANCEL);
        }
    }
    drop(conn);
    assert!(budget.promise(65_535));
}

// HB-9
#[test]
fn windows_grow_while_no_more_than_half_of_the_tunnel_s_bytes_are_held() {
    for (held, grown) in [(500, 65_535), (501, 0)] {
        let options = Options { initial_window: 65_535, tunnel_limit: 1000, ..Options::server(budget()) };
        let (mut conn, now) = server(options);
        let (slow, quick) = (open(&mut conn, now, 1), open(&mut conn, now, 3));
        arrive(&mut conn, slow, held);
        conn.hold(slow, held as usize).unwrap();
        arrive(&mut conn, quick, 65_535);
        conn.consumed(now, quick, 65_535);
        assert_eq!(conn.streams.get(quick).unwrap().receive.grown(65_535), grown, "{held}");
    }
}

#[test]
fn a_request_may_be_made_exactly_when_one_would_be_taken() {
    let (mut conn, now) = client(Options { control_limit: 1000, max_streams: 2, ..Options::client(budget()) });
    assert_eq!((conn.request_room(), conn.may_request()), (2, true));
    conn.output.control = vec![0; 500];
    assert_eq!((conn.request_room(), conn.may_request()), (2, true));
    conn.output.control.push(0);
    assert_eq!((conn.request_room(), conn.may_request()), (0, false));
    assert_eq!(conn.request(now, &request(None)), Err(NoStream::Backlog));
    conn.output.control = vec![0; 500];
    assert!(conn.request(now, &request(None)).is_ok());
    conn.output.control.clear();
    assert!(conn.request(now, &request(None)).is_ok());
    assert_eq!((conn.request_room(), conn.may_request()), (0, false));
    assert_eq!(conn.request(now, &request(None)), Err(NoStream::AtLimit { limit: 2 }));
}

#[test]
fn the_last_number_of_all_can_be_used_and_then_there_is_no_room() {
    let (mut conn, now) = client(Options::client(budget()));
    conn.streams.begin(0x7fff_fffd);
    assert!(conn.may_request());
    assert_eq!(conn.request(now, &request(None)).unwrap().number(), 0x7fff_ffff);
    assert!(!conn.may_request());
    assert_eq!(conn.request(now, &request(None)), Err(NoStream::IdsExhausted));
}

/// The longest baggage with which `size` says that a block fits, and the size of the first that does not.
fn longest(size: impl Fn(&Baggage) -> usize) -> usize {
    let most = MIN_FRAME_SIZE as usize;
    (most - 500..).map(|length| size(&Baggage::new("x".repeat(length)).unwrap())).find(|&size| size > most).unwrap()
}

#[test]
fn a_header_block_may_fill_its_frame_to_the_last_byte_whatever_is_queued_before() {
    let too_long = longest(|baggage| {
        let (mut conn, now) = client(Options::client(budget()));
        conn.output.control = vec![0; 20_000];
        match conn.request(now, &request(Some(baggage.clone()))) {
            Ok(_) => conn.output.control.len() - 20_000 - 9,
            Err(NoStream::TooLarge { size, limit }) => {
                assert!(size > limit, "{size}");
                size
            }
            Err(other) => panic!("{other}"),
        }
    });
    assert_eq!(too_long, 16_385);

    let answered = |length: usize| {
        let (mut conn, now) = server(Options::server(budget()));
        conn.streams.begin(1);
        let stream = conn.insert(now, 1, Half::Waiting, Half::Open);
        conn.answer(stream, &ConnectAnswer::accepted(Baggage::new("x".repeat(length))));
        written(&mut conn).len() - 9
    };
    let fits = (15_900..17_000).map(answered).take_while(|&size| size > 1).last();
    assert_eq!(fits, Some(16_384));
}

// HB-7
#[test]
fn what_waits_to_be_written_ends_the_connection_only_past_its_limits() {
    let options = || Options { control_limit: 1000, ..Options::server(budget()) };
    let ping = frame(PING, 0, 0, &[1; 8]);
    let answer = ping.len();
    for (queued, within) in [(1000 * OWN_CONTROL - answer, true), (1000 * OWN_CONTROL - answer + 1, false)] {
        let (mut conn, now) = server(options());
        // Queued by what the caller did.
        conn.output.control = vec![0; queued];
        assert_eq!(read(&mut conn, now, &ping).is_ok(), within, "{queued}");
    }
    let (mut conn, now) = server(Options { control_limit: 10 * answer, ..options() });
    assert_eq!(read(&mut conn, now, &ping.repeat(10)), Ok(Vec::new()));
    assert_eq!(read(&mut conn, now, &ping), Err(ConnectionError::ControlBacklog { queued: 11 * answer }));
}

// HB-17
#[test]
fn a_call_too_early_does_nothing_and_no_bytes_are_no_sign_of_life() {
    let (mut conn, now) = server(Options::server(budget()));
    let (due, tick) = (now + Duration::from_secs(10), Duration::from_millis(1));
    assert_eq!((conn.handle_timeout(due - tick), conn.has_control()), (Ok(()), false));
    assert_eq!((conn.handle_timeout(due), conn.has_control()), (Ok(()), true));
    let end = due + Duration::from_secs(20);
    assert_eq!(read(&mut conn, end - tick, &[]), Ok(Vec::new()));
    assert_eq!((conn.handle_timeout(end - tick), conn.next_deadline()), (Ok(()), Some(end)));
    assert!(matches!(conn.handle_timeout(end), Err(ConnectionError::PingTimeout(_))));
}

// HB-2
#[test]
fn the_opening_may_take_its_time_to_the_end_and_needs_the_acknowledgement() {
    let now = Instant::now();
    let mut conn = Connection::server(Arc::new(Options::server(budget())), now);
    read(&mut conn, now, &[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).unwrap();
    let end = now + Duration::from_secs(10);
    assert_eq!(conn.next_deadline(), Some(end));
    assert_eq!(conn.handle_timeout(end - Duration::from_millis(1)), Ok(()));
    let error = conn.handle_timeout(end).unwrap_err();
    assert!(error.to_string().contains("acknowledgement"), "{error}");
    assert_eq!(error.code(), ErrorCode::SETTINGS_TIMEOUT);
}

#[test]
fn the_baggage_of_an_answer_is_told() {
    let (mut conn, now) = client(Options::client(budget()));
    conn.request(now, &request(None)).unwrap();
    let mut block = Vec::new();
    crate::header::answer(&mut block, &ConnectAnswer::accepted(Baggage::new("a=b")));
    let seen = read(&mut conn, now, &frame(HEADERS, 4, 1, &block)).unwrap();
    assert!(seen[0].starts_with("Answer") && seen[0].contains("a=b"), "{seen:?}");
}

#[test]
fn a_connection_is_drained_when_its_streams_are_gone_and_all_is_written() {
    let (mut conn, now) = client(Options::client(budget()));
    let stream = open(&mut conn, now, 1);
    assert!(!conn.is_drained());
    conn.go_away_gracefully();
    assert!(!conn.is_drained());
    written(&mut conn);
    assert!(!conn.is_drained(), "a stream is open");
    conn.reset(stream, ErrorCode::CANCEL);
    assert!(!conn.is_drained(), "its reset is not written");
    written(&mut conn);
    assert!(conn.is_drained());

    let (mut conn, now) = client(Options::client(budget()));
    open(&mut conn, now, 1);
    conn.close(ErrorCode::NO_ERROR);
    assert!(!conn.is_drained());
    written(&mut conn);
    assert!(conn.is_drained(), "streams are no reason to wait any more");
}

// HB-18
#[test]
fn a_server_that_leaves_names_no_last_stream_at_first() {
    let (mut conn, _) = server(Options::server(budget()));
    conn.go_away_gracefully();
    assert_eq!(written(&mut conn)[9..17], [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
}

#[test]
fn a_window_that_is_the_default_already_is_not_opened_by_nothing() {
    for (window, updates) in [(65_535, 0), (65_536, 1)] {
        let options = Options { connection_window: window, ..Options::server(budget()) };
        let mut conn = Connection::server(Arc::new(options), Instant::now());
        let greeting = written(&mut conn);
        let settings = 9 + usize::from(greeting[2]);
        assert_eq!(greeting.len() - settings, 13 * updates, "{window}");
    }
}

#[test]
fn a_stream_that_both_have_ended_is_forgotten_by_whoever_ends_last() {
    let (mut conn, now) = server(Options::server(budget()));
    let stream = open(&mut conn, now, 1);
    assert_eq!(read(&mut conn, now, &frame(DATA, 1, 1, &[])), Ok(vec!["end 1".to_owned()]));
    assert!(conn.is_open(stream));
    conn.finish(stream);
    assert!(!conn.is_open(stream) && conn.open_streams() == 0);
}

// HB-16
#[test]
fn nobody_is_told_to_send_who_did_not_ask_or_cannot() {
    let (mut conn, now) = server(Options::server(budget()));
    let (one, two) = (open(&mut conn, now, 1), open(&mut conn, now, 3));
    let update = |stream: u32| frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 10]);
    assert_eq!(read(&mut conn, now, &update(1)), Ok(Vec::new()), "it never asked");
    conn.data_header(two, 16_384, false).unwrap();
    conn.output.window.spend(65_535 - 16_384);
    assert_eq!(conn.send_capacity(one), 0);
    assert_eq!(conn.streams.get(one).unwrap().wish, Wish::Queued);
    assert_eq!(read(&mut conn, now, &update(1)), Ok(Vec::new()), "the connection has no window");
    assert_eq!(read(&mut conn, now, &update(0)), Ok(vec!["writable 1".to_owned()]));
    assert_eq!(read(&mut conn, now, &update(0)), Ok(Vec::new()), "once is enough");
}

// HB-7
#[test]
fn small_frames_with_something_in_them_are_no_flood() {
    let (mut conn, now) = server(Options::server(budget()));
    let stream = open(&mut conn, now, 1);
    for _ in 0..3000 {
        assert_eq!(read(&mut conn, now, &frame(DATA, 0, 1, b"x")), Ok(vec!["data 1 1".to_owned()]));
        conn.consumed(now, stream, 1);
    }
}

#[test]
fn a_reset_in_the_middle_is_told_at_once_though_bytes_wait() {
    let (mut conn, now) = server(Options::server(budget()));
    let stream = open(&mut conn, now, 1);
    assert_eq!(read(&mut conn, now, &frame(DATA, 0, 1, b"abc")), Ok(vec!["data 1 3".to_owned()]));
    conn.hold(stream, 3).unwrap();
    assert_eq!(read(&mut conn, now, &frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])), Ok(vec!["reset 1".to_owned()]));
    assert!(!conn.is_open(stream));
}

// HB-2
#[test]
fn only_a_peer_that_lowers_the_table_is_told_and_once() {
    let (mut conn, now) = client(Options::client(budget()));
    let mut set = |value: u32| {
        let entry = [&setting_id::HEADER_TABLE_SIZE.to_be_bytes()[..], &value.to_be_bytes()].concat();
        read(&mut conn, now, &frame(SETTINGS, 0, 0, &entry)).unwrap();
        let table = conn.peer.table;
        if table == Table::Due {
            conn.request(now, &request(None)).unwrap();
        }
        table
    };
    assert_eq!([4096, 65_536].map(&mut set), [Table::Assumed; 2]);
    assert_eq!([4095, 0, 100].map(&mut set), [Table::Due, Table::Told, Table::Told]);
}

#[test]
fn streams_whose_bytes_nobody_takes_count_up_to_twice_the_limit() {
    let connect = {
        let mut block = Vec::new();
        crate::header::request(&mut block, &request(None));
        block
    };
    for (lingering, taken) in [(7, true), (8, false)] {
        let (mut conn, now) = server(Options { max_streams: 4, ..Options::server(budget()) });
        for n in 0..lingering {
            let stream = open(&mut conn, now, 2 * n + 1);
            arrive(&mut conn, stream, 1);
            conn.streams.end(stream, |stream| &mut stream.local);
            conn.streams.end(stream, |stream| &mut stream.remote);
        }
        let seen = read(&mut conn, now, &frame(HEADERS, 4, 2 * lingering + 1, &connect)).unwrap();
        assert_eq!(seen[0].starts_with("Request"), taken, "{lingering}: {seen:?}");
    }
}

#[test]
fn a_stream_that_goes_takes_no_other_with_it() {
    let (mut conn, now) = server(Options::server(budget()));
    let streams: Vec<_> = (0..40).map(|n| open(&mut conn, now, 2 * n + 1)).collect();
    for (n, &stream) in streams.iter().enumerate() {
        conn.reset(stream, ErrorCode::CANCEL);
        assert_eq!(conn.open_streams(), 39 - n);
        assert!(streams[n + 1..].iter().all(|&other| conn.is_open(other)), "{n}");
    }
}
