// SPDX-License-Identifier: Apache-2.0
//! HBONE: two connections with nothing between them. What is counted is both ends together, without sockets and TLS.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hbone::request::{Authority, Baggage, ConnectAnswer, ConnectRequest};
use hbone::{Budget, Connection, Event, Options, StreamId};

use crate::case::Case;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("hbone: a connection opened, settings agreed on", 34_500, 10, || {
            Box::new(|| (0..10).for_each(|_| drop(Pair::new())))
        }),
        Case::new("hbone: a CONNECT, its answer, both ends closed", 28_000, 100, || {
            let mut pair = Pair::new();
            Box::new(move || (0..100).for_each(|_| pair.tunnel()))
        }),
        Case::new("hbone: a CONNECT refused with a status", 20_500, 10, || {
            let mut pair = Pair::new();
            Box::new(move || (0..10).for_each(|_| pair.refused_tunnel()))
        }),
        Case::new("hbone: up, a DATA frame of 64 KiB in records of 16 KiB", 5_950, 256, || data(Way::Up, 64 << 10)),
        Case::new("hbone: down, a DATA frame of 64 KiB in records of 16 KiB", 6_000, 256, || data(Way::Down, 64 << 10)),
        Case::new("hbone: up, a DATA frame of 64 B", 2_450, 256, || data(Way::Up, 64)),
        Case::new("hbone: down, a DATA frame of 64 B", 2_450, 256, || data(Way::Down, 64)),
        Case::new("hbone: a DATA frame of 16 KiB held for a slow application", 2_200, 256, || {
            let mut pair = Pair::new();
            let stream = pair.open();
            Box::new(move || (0..256).for_each(|_| pair.hold(stream)))
        }),
        Case::new("hbone: a PING and its answer", 4_350, 8, || {
            let mut pair = Pair::new();
            Box::new(move || (0..8).for_each(|_| pair.ping()))
        }),
        Case::new("hbone: a WINDOW_UPDATE of a stream", 930, 64, || {
            let mut pair = Pair::new();
            let stream = pair.open();
            let frame = frame(8, 0, stream.1.number(), &1_u32.to_be_bytes());
            Box::new(move || (0..64).for_each(|_| pair.feed_server(&frame)))
        }),
        Case::new("hbone: a turn of the clock with 100 idle streams", 240, 100, || {
            let mut pair = Pair::new();
            (0..100).for_each(|_| {
                pair.open();
            });
            Box::new(move || {
                (0..100).for_each(|_| {
                    let _ = std::hint::black_box(pair.server.next_deadline());
                    pair.server.handle_timeout(pair.now).unwrap();
                });
            })
        }),
    ]
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Up,
    Down,
}

/// The two names of one stream: the client's and the server's.
type Both = (StreamId, StreamId);

struct Pair {
    client: Connection,
    server: Connection,
    request: ConnectRequest,
    answer: ConnectAnswer,
    now: Instant,
    wire: Vec<u8>,
    opened: Option<StreamId>,
    refuses: bool,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let pod = Budget::node(512 << 20).pod(128 << 20);
        let mut request = ConnectRequest::new("10.0.0.2:8080".parse::<Authority>().unwrap());
        request.baggage = Baggage::new(BAGGAGE);
        let mut pair = Self {
            client: Connection::client(Arc::new(Options::client(pod.clone())), now),
            server: Connection::server(Arc::new(Options::server(pod)), now),
            request,
            answer: ConnectAnswer::accepted(Baggage::new(BAGGAGE)),
            now,
            wire: Vec::with_capacity(64 << 10),
            opened: None,
            refuses: false,
        };
        pair.settle();
        pair
    }

    /// Carries frames to and fro until both have said everything.
    fn settle(&mut self) {
        while self.client.has_control() || self.server.has_control() {
            let mut wire = std::mem::take(&mut self.wire);
            wire.clear();
            self.client.write_control(&mut wire);
            self.feed_server(&wire);
            wire.clear();
            self.server.write_control(&mut wire);
            self.feed_client(&wire);
            self.wire = wire;
        }
    }

    fn feed_server(&mut self, mut input: &[u8]) {
        while let Some(event) = self.server.next_event(self.now, &mut input).unwrap() {
            match event {
                Event::Request { stream, .. } if self.refuses => self.server.reject(stream, 503),
                Event::Request { stream, .. } => {
                    self.server.answer(stream, &self.answer);
                    self.opened = Some(stream);
                }
                Event::Data { stream, bytes } => self.server.consumed(self.now, stream, bytes.len()),
                Event::End { stream } => self.server.finish(stream),
                _ => {}
            }
        }
    }

    fn feed_client(&mut self, mut input: &[u8]) {
        while let Some(event) = self.client.next_event(self.now, &mut input).unwrap() {
            match event {
                Event::Data { stream, bytes } => self.client.consumed(self.now, stream, bytes.len()),
                Event::Answer { answer, .. } => assert_eq!(answer.is_success(), !self.refuses),
                _ => {}
            }
        }
    }

    fn open(&mut self) -> Both {
        let stream = self.client.request(self.now, &self.request).unwrap();
        self.settle();
        (stream, self.opened.take().unwrap())
    }

    fn tunnel(&mut self) {
        let (stream, _) = self.open();
        self.client.finish(stream);
        self.settle();
        assert_eq!((self.client.open_streams(), self.server.open_streams()), (0, 0));
    }

    fn refused_tunnel(&mut self) {
        self.refuses = true;
        let stream = self.client.request(self.now, &self.request).unwrap();
        self.settle();
        self.client.reset(stream, hbone::ErrorCode::CANCEL);
        self.settle();
        assert_eq!((self.client.open_streams(), self.server.open_streams()), (0, 0));
    }

    fn up(&mut self, (client, _): Both, payload: &[u8]) {
        assert!(self.client.send_capacity(client) >= payload.len(), "the window is too small for this case");
        let header = self.client.data_header(client, payload.len(), false).unwrap();
        self.feed_server(&header);
        payload.chunks(RECORD).for_each(|record| self.feed_server(record));
        self.settle();
    }

    fn down(&mut self, (_, server): Both, payload: &[u8]) {
        assert!(self.server.send_capacity(server) >= payload.len(), "the window is too small for this case");
        let header = self.server.data_header(server, payload.len(), false).unwrap();
        self.feed_client(&header);
        payload.chunks(RECORD).for_each(|record| self.feed_client(record));
        self.settle();
    }

    /// The server's application takes nothing at first.
    fn hold(&mut self, (client, server): Both) {
        let header = self.client.data_header(client, RECORD, false).unwrap();
        for mut input in [&header[..], &PAYLOAD[..RECORD]] {
            while let Some(event) = self.server.next_event(self.now, &mut input).unwrap() {
                let Event::Data { stream, bytes } = event else { continue };
                self.server.hold(stream, bytes.len()).unwrap();
            }
        }
        self.server.consumed(self.now, server, RECORD);
        self.settle();
    }

    fn ping(&mut self) {
        self.feed_server(&frame(6, 0, 0, b"abcdefgh"));
        assert!(self.server.has_control());
        self.settle();
    }
}

fn data(way: Way, size: usize) -> Box<dyn FnMut()> {
    let mut pair = Pair::new();
    let both = pair.open();
    Box::new(move || {
        for _ in 0..256 {
            pair.now += Duration::from_micros(100);
            match way {
                Way::Up => pair.up(both, &PAYLOAD[..size]),
                Way::Down => pair.down(both, &PAYLOAD[..size]),
            }
        }
    })
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What a TLS record carries.
const RECORD: usize = 16 << 10;
static PAYLOAD: [u8; 64 << 10] = [7; 64 << 10];
const BAGGAGE: &str = "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=cart,service.name=cart,service.version=v1,cloud.region=r1,cloud.availability_zone=z1";
