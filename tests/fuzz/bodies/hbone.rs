// SPDX-License-Identifier: Apache-2.0
//! What is to hold for whatever bytes: the bodies of the fuzz targets of the HBONE core. `cargo test -p hbone --test fuzz` runs them as bounded properties,
//! `cargo fuzz run <name>` (in `tests/fuzz`) without bound. Plain functions: they panic where something does not hold.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hbone::request::{Authority, Baggage, ConnectAnswer, ConnectRequest, Forwarded, TraceParent};
use hbone::{Budget, Connection, ConnectionError, ErrorCode, Event, FloodKind, HeaderError, Options, StreamId};

use super::shell::{End, PREFACE, Seen, frame};

/// Bytes from a peer, in whatever pieces: the same is told, and the same error found, as when they come whole.
pub fn frames(input: &[u8]) {
    let [first, rest @ ..] = input else { return };
    let is_server = first & 1 == 0;
    let greeting: Vec<u8> = match (is_server, first & 2 == 0) {
        (true, true) => [PREFACE, &frame(4, 0, 0, &[])].concat(),
        (false, true) => frame(4, 0, 0, &[]),
        (_, false) => Vec::new(),
    };
    let bytes = [&greeting[..], rest].concat();
    let whole = hear(is_server, *first, bytes.chunks(bytes.len().max(1)));
    let mut cuts = u64::from(*first) + 1;
    let mut pieces = Vec::new();
    let mut left = &bytes[..];
    while !left.is_empty() {
        cuts = cuts.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (piece, later) = left.split_at(left.len().min((cuts >> 60) as usize + 1));
        pieces.push(piece);
        left = later;
    }
    assert_eq!(hear(is_server, *first, pieces.into_iter()), whole, "told by the cuts between reads");
}

/// What one end makes of the pieces: its events as text, data of one stream put together, and how it ended.
fn hear<'i>(
    is_server: bool,
    choice: u8,
    pieces: impl Iterator<Item = &'i [u8]>,
) -> (Vec<String>, Option<ConnectionError>) {
    let now = Instant::now();
    let node = Budget::node(1 << 20);
    let mut told: Vec<String> = Vec::new();
    let mut error = None;
    let mut connection = if is_server {
        Connection::server(Arc::new(Options::server(node.pod(1 << 20))), now)
    } else {
        let mut client = Connection::client(Arc::new(Options::client(node.pod(1 << 20))), now);
        let request = ConnectRequest::new("10.0.0.2:80".parse::<Authority>().expect("an authority"));
        for _ in 0..2 {
            assert!(client.request(now, &request).is_ok());
        }
        client
    };
    let mut out = Vec::new();
    let mut data: Option<(StreamId, Vec<u8>)> = None;
    'all: for mut piece in pieces {
        let mut foreseen = None;
        loop {
            let event = match connection.next_event(now, &mut piece) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(end) => {
                    error = Some(end);
                    break 'all;
                }
            };
            if let Event::Data { stream, bytes } = event {
                assert!(!bytes.is_empty() && foreseen != Some(stream));
                foreseen = connection.end_follows(stream, piece).then_some(stream).or(foreseen);
                connection.consumed(now, stream, bytes.len());
                match &mut data {
                    Some((same, sum)) if *same == stream => sum.extend_from_slice(bytes),
                    _ => {
                        told.extend(data.take().map(|data| format!("{data:?}")));
                        data = Some((stream, bytes.to_vec()));
                    }
                }
                continue;
            }
            told.extend(data.take().map(|data| format!("{data:?}")));
            told.push(format!("{event:?}"));
            match event {
                Event::End { stream } if foreseen == Some(stream) => foreseen = None,
                Event::Request { stream, .. } if choice & 4 == 0 => {
                    connection.answer(stream, &ConnectAnswer::accepted(None));
                }
                Event::Request { stream, .. } => connection.reject(stream, 503),
                Event::BadRequest { stream, status, .. } => connection.reject(stream, status),
                _ => {}
            }
        }
        assert!(piece.is_empty(), "None with input left");
        assert!(foreseen.is_none(), "an end was foreseen and did not come");
        // The peer reads what is said to it.
        connection.write_control(&mut out);
        out.clear();
    }
    told.extend(data.take().map(|data| format!("{data:?}")));
    if let Some(error) = &error {
        connection.write_control(&mut out);
        let goaway = out.len().checked_sub(17).map(|at| &out[at..]).expect("a GOAWAY goes before the end");
        assert_eq!((goaway[3], &goaway[13..]), (7, &error.code().0.to_be_bytes()[..]), "{error}");
        assert_eq!(connection.next_event(now, &mut &b"x"[..]).err(), Some(ConnectionError::Ended));
    }
    drop(connection);
    assert_eq!(node.used(), 0);
    (told, error)
}

/// Header blocks, one after the other on one connection: understood as the HPACK library understands them, refused where it refuses them,
/// or where our own limits say so.
pub fn headers(input: &[u8]) {
    let now = Instant::now();
    let mut server = Connection::server(Arc::new(Options::server(Budget::node(1 << 20).pod(1 << 20))), now);
    let greeting = [PREFACE, &frame(4, 0, 0, &[])].concat();
    assert!(matches!(server.next_event(now, &mut &greeting[..]), Ok(Some(Event::Settings))));
    let mut oracle = loona_hpack::Decoder::new();
    oracle.set_max_allowed_table_size(4096);
    let mut rest = input;
    let mut number = 1;
    while let [length, after @ ..] = rest {
        let (block, later) = after.split_at(after.len().min(usize::from(*length) * 4));
        rest = later;
        let list = oracle.decode(block);
        let bytes = frame(1, 5, number, block);
        let mut bytes = &bytes[..];
        number += 2;
        match server.next_event(now, &mut bytes) {
            Ok(Some(event)) => judge(&event, list.expect("the library decodes what we do")),
            Ok(None) => panic!("a whole request and nothing told"),
            Err(ConnectionError::Compression(HeaderError::SizeUpdate)) => return,
            Err(ConnectionError::Compression(_)) => return assert!(list.is_err(), "{list:?}"),
            Err(ConnectionError::HeaderList { .. }) => {
                return assert!(list.map_or(usize::MAX, |list| size(&list)) > 4 * (64 << 10));
            }
            // A block without fields is a malformed request, and so on: there may only be so many.
            Err(ConnectionError::Flood(FloodKind::Faults | FloodKind::Noise)) => return,
            Err(other) => panic!("{other}"),
        }
        while let Ok(Some(event)) = server.next_event(now, &mut bytes) {
            assert!(matches!(event, Event::End { .. }), "{event:?}");
        }
        let mut out = Vec::new();
        server.write_control(&mut out);
    }
}

type List = Vec<(Vec<u8>, Vec<u8>)>;

fn size(list: &List) -> usize {
    list.iter().map(|(name, value)| name.len() + value.len() + 32).sum()
}

/// Whether what we told fits the list the library found.
fn judge(event: &Event<'_>, list: List) {
    let value = |name: &str| list.iter().find(|(found, _)| found == name.as_bytes()).map(|(_, value)| &value[..]);
    let authority = || value(":authority").and_then(|text| std::str::from_utf8(text).ok()?.parse::<Authority>().ok());
    let fits = list.len() <= 100 && size(&list) <= 64 << 10;
    match event {
        Event::Request { request, .. } => {
            assert_eq!((value(":method"), fits), (Some(&b"CONNECT"[..]), true));
            assert_eq!(Some(&request.authority), authority().as_ref());
            assert!(request.forwarded.is_none() || value("forwarded").is_some());
            if let Some(trace) = request.traceparent {
                let texts: Vec<_> = list.iter().filter(|(name, _)| name == b"traceparent").collect();
                assert!(texts.iter().any(|(_, text)| TraceParent::parse(text) == Some(trace)));
            }
        }
        Event::BadRequest { status: 431, .. } => assert!(!fits),
        Event::BadRequest { status, .. } => {
            assert!(*status == 400 && fits);
            assert!(value(":method").is_some_and(|method| method != b"CONNECT") || authority().is_none());
        }
        // No stream is ever left open, so it is refused for what it says and not for their number.
        Event::Refused { code, .. } => {
            assert!(fits && *code == ErrorCode::PROTOCOL_ERROR);
            let plain = [(&b":method"[..], &b"CONNECT"[..])];
            let is_plain =
                list.len() == 2 && (&list[0].0[..], &list[0].1[..]) == plain[0] && list[1].0 == b":authority";
            assert!(!is_plain || list[1].1.iter().any(|b| matches!(b, 0 | b'\r' | b'\n')), "{list:?}");
        }
        other => panic!("{other:?}"),
    }
}

/// Two ends of ours, doing whatever comes, with every byte delivered in order but cut anywhere and as late as may be. Nobody is ever found at fault, what
/// both sides ended arrives whole, nothing stalls, and every budget is empty at the end.
pub fn operations(input: &[u8]) {
    let [size, rest @ ..] = input else { return };
    let start = Instant::now();
    let node = Budget::node(usize::from(*size % 16 + 1) * (128 << 10));
    let (client, server) = (Options::client(node.pod(8 << 20)), Options::server(node.pod(8 << 20)));
    let mut play = Play {
        now: start,
        client: End::new(Connection::client(Arc::new(client), start)),
        server: End::new(Connection::server(Arc::new(server), start)),
        streams: Vec::new(),
        gone: BTreeSet::new(),
        judged: 0,
    };
    for step in rest.chunks_exact(2).take(400) {
        play.step(step[0], step[1]);
        assert!(node.used() <= node.limit());
        play.check_faultless();
    }
    play.finish();
    assert_eq!(node.used(), 0, "held bytes are given back");
}

/// The two ends, and what was done to their streams.
struct Play {
    now: Instant,
    client: End,
    server: End,
    /// The client's names, in order.
    streams: Vec<StreamId>,
    /// Numbers of streams that were reset or refused by anybody.
    gone: BTreeSet<u32>,
    /// How many of the server's events have been looked at for requests to refuse.
    judged: usize,
}

impl Play {
    fn step(&mut self, kind: u8, argument: u8) {
        let more = usize::from(argument).pow(2) * 2;
        let at_client = kind & 0x80 == 0;
        match kind % 12 {
            0 | 1 => {
                if self.client.conn.may_request() {
                    let stream = self.client.request(self.now, more, argument & 1 == 0);
                    self.streams.push(stream);
                }
            }
            2 => {
                // The server says no to whatever is under way.
                self.server.accept = false;
                self.deliver(true, usize::MAX);
                self.server.accept = true;
                self.refuse();
            }
            3 | 4 => {
                let Some((end, stream)) = self.pick(at_client, argument) else { return };
                let app = end.app(stream);
                if !app.then_end && end.conn.can_send(stream) {
                    end.app(stream).to_send += more;
                }
            }
            5 => {
                if let Some((end, stream)) = self.pick(at_client, argument) {
                    end.app(stream).then_end = end.conn.can_send(stream);
                }
            }
            6 => {
                if let Some((end, stream)) = self.pick(at_client, argument) {
                    end.conn.reset(stream, ErrorCode::CANCEL);
                    self.gone.insert(stream.number());
                }
            }
            7 => {
                if let Some((end, stream)) = self.pick(at_client, argument) {
                    end.app(stream).stalled = true;
                }
            }
            8 => {
                let now = self.now;
                if let Some((end, stream)) = self.pick(at_client, argument) {
                    end.unstall(now, stream);
                }
            }
            9 => self.deliver(at_client, more / 4),
            10 => {
                self.settle();
                self.now += Duration::from_millis(u64::from(argument) * 36);
                for end in [&mut self.client, &mut self.server] {
                    assert_eq!(end.conn.handle_timeout(self.now), Ok(()));
                }
                self.settle();
            }
            _ => {
                if argument == 7 {
                    let end = if at_client { &mut self.client } else { &mut self.server };
                    end.conn.go_away_gracefully();
                } else {
                    self.settle();
                }
            }
        }
        self.client.write();
        self.server.write();
    }

    /// One stream of one end that has an application there.
    fn pick(&mut self, at_client: bool, argument: u8) -> Option<(&mut End, StreamId)> {
        let end = if at_client { &mut self.client } else { &mut self.server };
        let nth = usize::from(argument) % end.apps.len().max(1);
        let stream = *end.apps.keys().nth(nth)?;
        Some((end, stream))
    }

    fn refuse(&mut self) {
        for seen in &self.server.seen[self.judged..] {
            if let Seen::Request(stream, _) = *seen
                && !self.server.apps[&stream].answered
            {
                self.server.conn.reject(stream, 503);
                self.gone.insert(stream.number());
            }
        }
        self.judged = self.server.seen.len();
    }

    /// Some of what one end has written reaches the other.
    fn deliver(&mut self, from_client: bool, most: usize) {
        let (from, to) = match from_client {
            true => (&mut self.client, &mut self.server),
            false => (&mut self.server, &mut self.client),
        };
        from.write();
        let length = most.min(from.out.len());
        let bytes: Vec<u8> = from.out.drain(..length).collect();
        to.turn(self.now, &bytes);
    }

    fn settle(&mut self) {
        while !self.client.out.is_empty() || !self.server.out.is_empty() {
            self.deliver(true, usize::MAX);
            self.deliver(false, usize::MAX);
        }
    }

    fn check_faultless(&self) {
        for end in [&self.client, &self.server] {
            assert_eq!(end.error, None);
        }
    }

    fn finish(mut self) {
        self.client.write();
        self.server.write();
        self.settle();
        let now = self.now;
        // Until nothing changes: an application that has read on may let the other one send.
        for _ in 0..3 {
            for end in [&mut self.client, &mut self.server] {
                let streams: Vec<StreamId> = end.apps.keys().copied().collect();
                for stream in streams {
                    end.unstall(now, stream);
                    if end.conn.can_send(stream) {
                        end.app(stream).then_end = true;
                    }
                }
                end.turn(now, &[]);
            }
            self.settle();
        }
        self.check_faultless();
        for end in [&self.client, &self.server] {
            for seen in &end.seen {
                match seen {
                    Seen::Reset(stream, ..) => self.gone.extend([stream.number()]),
                    Seen::Refused(number, ..) => self.gone.extend([*number]),
                    Seen::BadRequest(..) => panic!("{seen:?} between two of ours"),
                    _ => {}
                }
            }
            let over = end.apps.iter().filter(|(_, app)| app.over_budget.is_some());
            self.gone.extend(over.map(|(stream, _)| stream.number()));
            assert_eq!(end.conn.open_streams(), 0, "a stream that nobody ends: {:?}", end.apps);
        }
        for stream in self.streams.iter().filter(|stream| !self.gone.contains(&stream.number())) {
            let here = &self.client.apps[stream];
            let there = self.server.apps.iter().find(|(id, _)| id.number() == stream.number());
            let (_, there) = there.expect("a request that arrived");
            assert_eq!((here.to_send, there.to_send), (0, 0), "bytes that were never sent");
            assert_eq!((here.sent, there.sent), (there.taken, here.taken), "bytes that were sent and not taken");
            assert!(here.ended && there.ended);
        }
    }
}

/// Values of headers: what is understood can be written and is understood the same again; nothing makes a header of two.
pub fn values(input: &[u8]) {
    let forwarded = Forwarded::parse(input);
    assert_eq!(Forwarded::parse(forwarded.to_string().as_bytes()), forwarded);
    if let Some(trace) = TraceParent::parse(input) {
        assert_eq!(TraceParent::parse(trace.to_string().as_bytes()), Some(trace));
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(authority) = text.parse::<Authority>() {
        assert_ne!(authority.port(), 0);
        let again = authority.to_string();
        assert!(again.bytes().all(|b| b.is_ascii_graphic()));
        assert_eq!(again.parse::<Authority>(), Ok(authority));
    }
    if let Some(baggage) = Baggage::new(text) {
        assert!(baggage.as_str().bytes().all(|b| (b' '..0x7f).contains(&b)));
        let again = baggage.fields().to_baggage();
        assert_eq!(baggage.fields(), again.as_ref().map(Baggage::fields).unwrap_or_default());
    }
}
