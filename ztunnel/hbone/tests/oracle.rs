// SPDX-License-Identifier: Apache-2.0
//! The `h2` crate as the other end, in both roles, over an in-memory pipe with random cuts: whatever it allows itself, we take,
//! and whatever we send, it takes.
#![allow(clippy::unwrap_used)]

mod shell;

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use h2::{Reason, RecvStream, SendStream};
use hbone::request::{Authority, Baggage, ConnectAnswer, ConnectRequest, Forwarded, TraceParent};
use hbone::{Connection, ConnectionError, ErrorCode, Event, Options, StreamId};
use http::{HeaderValue, Method, Request, Response};
use proptest::prelude::*;
use shell::budget;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::LocalSet;

type Bytes = std::io::Cursor<Vec<u8>>;

/// How the pipe between the two cuts the bytes.
#[derive(Debug, Clone)]
struct Cuts {
    pipe: usize,
    reads: Vec<usize>,
}

fn cuts() -> impl Strategy<Value = Cuts> {
    let reads = proptest::collection::vec(prop_oneof![1..20usize, 1000..60_000usize], 1..10);
    (prop_oneof![50..500usize, 10_000..200_000usize], reads).prop_map(|(pipe, reads)| Cuts { pipe, reads })
}

/// What the peer announces.
#[derive(Debug, Clone)]
struct Theirs {
    window: u32,
    connection: u32,
    frame: u32,
}

fn theirs() -> impl Strategy<Value = Theirs> {
    let window = prop_oneof![1..2000u32, 65_000..70_000u32, Just(4 << 20)];
    let connection = prop_oneof![Just(65_535u32), Just(16 << 20)];
    let frame = prop_oneof![Just(16_384u32), Just(1 << 20), 16_384..40_000u32];
    (window, connection, frame).prop_map(|(window, connection, frame)| Theirs { window, connection, frame })
}

/// Our end over the pipe: what comes in on a stream and what is to go out.
struct Ours {
    conn: Connection,
    streams: BTreeMap<StreamId, Flow>,
    /// Send back what comes in, instead of collecting it.
    echo: bool,
    told: Vec<String>,
    answered: usize,
    /// Done once a request has been answered.
    then: fn(&mut Connection),
}

#[derive(Default)]
struct Flow {
    /// The tunnel stands. An h2 server that announces a window under 65,535 and is sent more before it has been heard never
    /// opens that window again (0.4.20: it does not look at it again when its SETTINGS are acknowledged).
    open: bool,
    out: VecDeque<u8>,
    end: bool,
    finished: bool,
    got: Vec<u8>,
    ended: bool,
}

impl Ours {
    fn new(conn: Connection, echo: bool) -> Self {
        Self { conn, streams: BTreeMap::new(), echo, told: Vec::new(), answered: 0, then: |_| {} }
    }

    fn act(&mut self, now: Instant, event: &Event<'_>) {
        match *event {
            Event::Request { stream, .. } => {
                self.told.push(format!("{event:?}"));
                self.streams.insert(stream, Flow { open: true, ..Flow::default() });
                self.conn.answer(stream, &ConnectAnswer::accepted(Baggage::new("service.name=ours")));
                (self.then)(&mut self.conn);
            }
            Event::BadRequest { stream, status, .. } => self.conn.reject(stream, status),
            Event::Answer { stream, .. } => {
                self.answered += 1;
                self.streams.get_mut(&stream).unwrap().open = true;
            }
            Event::Data { stream, bytes } => {
                let flow = self.streams.get_mut(&stream).unwrap();
                if self.echo {
                    flow.out.extend(bytes);
                    self.conn.hold(stream, bytes.len()).unwrap();
                } else {
                    flow.got.extend_from_slice(bytes);
                    self.conn.consumed(now, stream, bytes.len());
                }
            }
            Event::End { stream } => {
                let flow = self.streams.get_mut(&stream).unwrap();
                flow.ended = true;
                flow.end |= self.echo;
            }
            Event::Settings | Event::Writable { .. } => {}
            _ => self.told.push(format!("{event:?}")),
        }
    }

    fn produce(&mut self, now: Instant, out: &mut Vec<u8>) {
        self.conn.write_control(out);
        for (&stream, flow) in self.streams.iter_mut().filter(|(_, flow)| flow.open) {
            while !flow.out.is_empty() {
                let length = self.conn.send_capacity(stream).min(flow.out.len());
                let Some(header) = self.conn.data_header(stream, length, false).filter(|_| length > 0) else { break };
                out.extend_from_slice(&header);
                out.extend(flow.out.drain(..length));
                if self.echo {
                    self.conn.consumed(now, stream, length);
                }
            }
            if flow.out.is_empty() && flow.end && !flow.finished {
                flow.finished = true;
                self.conn.finish(stream);
            }
        }
        self.conn.write_control(out);
    }

    /// Works until the peer closes the pipe or `done` says so.
    async fn run(
        &mut self,
        io: DuplexStream,
        cuts: &Cuts,
        done: impl Fn(&Self) -> bool,
    ) -> Result<(), ConnectionError> {
        let (mut read, mut write) = tokio::io::split(io);
        let (mut out, mut sent, mut turn) = (Vec::new(), 0, 0);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let now = Instant::now();
            if sent == out.len() {
                out.clear();
                sent = 0;
                self.produce(now, &mut out);
                if out.is_empty() && done(self) {
                    return Ok(());
                }
            }
            turn += 1;
            let most = cuts.reads[turn % cuts.reads.len()];
            tokio::select! {
                biased;
                written = write.write(&out[sent..]), if sent < out.len() => match written {
                    Ok(written) => sent += written,
                    Err(_) => return Ok(()),
                },
                read = read.read(&mut buffer[..most]) => {
                    let length = read.unwrap();
                    if length == 0 {
                        return Ok(());
                    }
                    let mut input = &buffer[..length];
                    loop {
                        match self.conn.next_event(now, &mut input) {
                            Ok(Some(event)) => self.act(now, &event),
                            Ok(None) => break,
                            Err(error) => {
                                let mut last = out.split_off(sent);
                                self.conn.write_control(&mut last);
                                let _ = write.write_all(&last).await;
                                return Err(error);
                            }
                        }
                    }
                }
            }
        }
    }
}

fn server() -> Ours {
    Ours::new(Connection::server(Arc::new(Options::server(budget())), Instant::now()), true)
}

fn client() -> Ours {
    Ours::new(Connection::client(Arc::new(Options::client(budget())), Instant::now()), false)
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let limited = async { tokio::time::timeout(Duration::from_secs(20), future).await.expect("done in time") };
    LocalSet::new().block_on(&runtime, limited)
}

fn body(size: usize, salt: usize) -> Vec<u8> {
    (0..size).map(|at| (at.wrapping_mul(13) ^ (at >> 9) ^ salt) as u8).collect()
}

/// Sends all of `bytes` and the end, as h2 wants it: capacity first.
async fn send(stream: &mut SendStream<Bytes>, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let Some(Ok(room)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
        let (now, later) = rest.split_at(room.min(rest.len()));
        if stream.send_data(Bytes::new(now.to_vec()), false).is_err() {
            return;
        }
        rest = later;
    }
    let _ = stream.send_data(Bytes::default(), true);
}

async fn receive(stream: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut got = Vec::new();
    while let Some(bytes) = stream.data().await {
        let bytes = bytes?;
        got.extend_from_slice(&bytes);
        stream.flow_control().release_capacity(bytes.len())?;
    }
    Ok(got)
}

fn connect() -> Request<()> {
    let mut request = Request::builder().method(Method::CONNECT).uri("10.0.0.2:8080").body(()).unwrap();
    let headers = request.headers_mut();
    headers.insert("baggage", HeaderValue::from_static("k8s.cluster.name=Kubernetes,service.name=theirs"));
    headers.insert("forwarded", HeaderValue::from_static("for=\"10.0.0.1:4711\";host=web.default"));
    let trace = "00-d4bef22868ae20d4600b9766e0939bb8-4b9f1adeb1edf0f6-00";
    headers.insert("traceparent", HeaderValue::from_static(trace));
    headers.insert("x-unknown", HeaderValue::from_static("passed over"));
    request
}

async fn h2_client(
    io: DuplexStream,
    theirs: &Theirs,
) -> (h2::client::SendRequest<Bytes>, h2::client::Connection<DuplexStream, Bytes>) {
    h2::client::Builder::new()
        .initial_window_size(theirs.window)
        .initial_connection_window_size(theirs.connection)
        .max_frame_size(theirs.frame)
        .handshake(io)
        .await
        .unwrap()
}

async fn h2_server(io: DuplexStream, theirs: &Theirs) -> h2::server::Connection<DuplexStream, Bytes> {
    h2::server::Builder::new()
        .initial_window_size(theirs.window)
        .initial_connection_window_size(theirs.connection)
        .max_frame_size(theirs.frame)
        .handshake(io)
        .await
        .unwrap()
}

/// An h2 server that sends back what it gets, until the pipe closes.
async fn h2_echo(io: DuplexStream, theirs: Theirs) {
    let mut connection = h2_server(io, &theirs).await;
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::task::spawn_local(async move {
            assert_eq!(request.method(), Method::CONNECT);
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            let mut body = request.into_body();
            let mut got = VecDeque::new();
            while let Some(Ok(bytes)) = body.data().await {
                got.push_back(bytes);
                while let Some(bytes) = got.pop_front() {
                    let mut rest = &bytes[..];
                    while !rest.is_empty() {
                        stream.reserve_capacity(rest.len());
                        let Some(Ok(room)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
                        let (now, later) = rest.split_at(room.min(rest.len()));
                        stream.send_data(Bytes::new(now.to_vec()), false).unwrap();
                        rest = later;
                    }
                    body.flow_control().release_capacity(bytes.len()).unwrap();
                }
            }
            let _ = stream.send_data(Bytes::default(), true);
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_h2_client_gets_back_what_it_sent(
        cuts in cuts(),
        theirs in theirs(),
        sizes in proptest::collection::vec(0..400_000usize, 1..5),
    ) {
        // A window of one byte makes a frame of each byte, both ways.
        let sizes: Vec<_> = sizes.into_iter().map(|size| size.min(theirs.window as usize * 200)).collect();
        block_on(async {
            let (near, far) = tokio::io::duplex(cuts.pipe);
            let mut ours = server();
            let exchange = async {
                let (mut sender, connection) = h2_client(far, &theirs).await;
                let connection = tokio::task::spawn_local(connection);
                let mut streams = Vec::new();
                for (n, &size) in sizes.iter().enumerate() {
                    sender = sender.ready().await.unwrap();
                    let (answer, mut out) = sender.send_request(connect(), false).unwrap();
                    streams.push(tokio::task::spawn_local(async move {
                        let answer = answer.await.unwrap();
                        assert_eq!(answer.status(), 200);
                        assert_eq!(answer.headers()["baggage"], "service.name=ours");
                        let sent = body(size, n);
                        let mut incoming = answer.into_body();
                        let (got, ()) = tokio::join!(receive(&mut incoming), send(&mut out, &sent));
                        assert!(got.unwrap() == sent);
                    }));
                }
                for stream in streams {
                    stream.await.unwrap();
                }
                drop(sender);
                connection.await.unwrap().unwrap();
            };
            let (result, ()) = tokio::join!(ours.run(near, &cuts, |_| false), exchange);
            assert_eq!(result, Ok(()));
            assert_eq!(ours.conn.open_streams(), 0);
        });
    }

    #[test]
    fn an_h2_server_sends_back_what_it_got(
        cuts in cuts(),
        theirs in theirs(),
        sizes in proptest::collection::vec(0..400_000usize, 1..5),
    ) {
        let sizes: Vec<_> = sizes.into_iter().map(|size| size.min(theirs.window as usize * 200)).collect();
        block_on(async {
            let (near, far) = tokio::io::duplex(cuts.pipe);
            tokio::task::spawn_local(h2_echo(far, theirs));
            let mut ours = client();
            let request = ConnectRequest {
                authority: Authority::Name { host: "web.default.svc.cluster.local".into(), port: 80 },
                baggage: Baggage::new("service.name=ours"),
                forwarded: Some(Forwarded { client: "10.0.0.1:4711".parse().ok(), host: None }),
                traceparent: Some(TraceParent::new(1, 2)),
                network: None,
            };
            for (n, &size) in sizes.iter().enumerate() {
                let stream = ours.conn.request(Instant::now(), &request).unwrap();
                ours.streams.insert(stream, Flow { out: body(size, n).into(), end: true, ..Flow::default() });
            }
            let result = ours.run(near, &cuts, |ours| ours.streams.values().all(|flow| flow.ended)).await;
            assert_eq!(result, Ok(()));
            for ((n, &size), flow) in sizes.iter().enumerate().zip(ours.streams.values()) {
                assert!(flow.got == body(size, n), "{} of {size}", flow.got.len());
            }
            assert_eq!((ours.answered, ours.conn.open_streams()), (sizes.len(), 0));
        });
    }
}

fn plain() -> (Cuts, Theirs) {
    (Cuts { pipe: 1 << 20, reads: vec![1 << 16] }, Theirs { window: 65_535, connection: 1 << 20, frame: 16_384 })
}

#[test]
fn an_h2_client_sees_our_resets_refusals_and_pongs() {
    let (cuts, theirs) = plain();
    block_on(async {
        let (near, far) = tokio::io::duplex(cuts.pipe);
        let mut ours = server();
        let exchange = async {
            let (mut sender, mut connection) = h2_client(far, &theirs).await;
            let mut pings = connection.ping_pong().unwrap();
            let connection = tokio::task::spawn_local(connection);
            pings.ping(h2::Ping::opaque()).await.unwrap();

            // Not CONNECT: 400 and the end.
            let get = Request::get("https://10.0.0.2:8080/").body(()).unwrap();
            let answer = sender.send_request(get, true).unwrap().0.await.unwrap();
            assert_eq!(answer.status(), 400);
            assert!(answer.into_body().data().await.is_none());

            // A request of its own is reset on the way, and the next one still works.
            let (answer, mut out) = sender.send_request(connect(), false).unwrap();
            let answer = answer.await.unwrap();
            out.send_reset(Reason::CANCEL);
            drop((answer, out));
            let (answer, mut out) = sender.send_request(connect(), false).unwrap();
            send(&mut out, b"still here").await;
            assert_eq!(receive(&mut answer.await.unwrap().into_body()).await.unwrap(), b"still here");
            drop((sender, out));
            connection.await.unwrap().unwrap();
        };
        let (result, ()) = tokio::join!(ours.run(near, &cuts, |_| false), exchange);
        assert_eq!(result, Ok(()));
        let told = ours.told.join("\n");
        assert!(told.contains("code: CANCEL, reason: Peer"), "{told}");
        assert!(told.contains("cluster.name=Kubernetes,service.name=theirs"), "{told}");
        assert!(told.contains("client: Some(10.0.0.1:4711), host: Some(\"web.default\")"), "{told}");
        assert!(
            told.contains("trace_id: 282787783054171315727234809857897110456, span_id: 5449103617911812342"),
            "{told}"
        );
    });
}

#[test]
fn our_client_understands_resets_and_the_leaving_of_an_h2_server() {
    let (cuts, theirs) = plain();
    block_on(async {
        let (near, far) = tokio::io::duplex(cuts.pipe);
        tokio::task::spawn_local(async move {
            let mut connection = h2_server(far, &theirs).await;
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            let mut first = respond.send_response(Response::new(()), false).unwrap();
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            respond.send_reset(Reason::CONNECT_ERROR);
            connection.graceful_shutdown();
            let _ = first.send_data(Bytes::default(), true);
            while connection.accept().await.is_some() {}
        });
        let mut ours = client();
        let request = ConnectRequest::new("10.0.0.2:8080".parse::<Authority>().unwrap());
        for _ in 0..2 {
            let stream = ours.conn.request(Instant::now(), &request).unwrap();
            ours.streams.insert(stream, Flow { end: true, ..Flow::default() });
        }
        ours.run(near, &cuts, |ours| ours.conn.is_drained()).await.unwrap();
        let told = ours.told.join("\n");
        assert!(told.contains("code: CONNECT_ERROR, reason: Peer"), "{told}");
        assert!(told.contains("GoAway { code: NO_ERROR }"), "{told}");
        assert!(ours.conn.request(Instant::now(), &request).is_err());
    });
}

#[test]
fn an_h2_client_understands_our_leaving_and_our_faults() {
    let (cuts, theirs) = plain();
    block_on(async {
        let (near, far) = tokio::io::duplex(cuts.pipe);
        let mut ours = server();
        let exchange = async {
            let (sender, connection) = h2_client(far, &theirs).await;
            let connection = tokio::task::spawn_local(connection);
            let mut sender = sender.ready().await.unwrap();
            let (answer, mut out) = sender.send_request(connect(), false).unwrap();
            send(&mut out, b"before").await;
            assert_eq!(receive(&mut answer.await.unwrap().into_body()).await.unwrap(), b"before");
            // The GOAWAY is here once no new request may be sent.
            while let Ok(next) = sender.ready().await {
                sender = next;
                tokio::task::yield_now().await;
            }
            if let Err(end) = connection.await.unwrap() {
                assert_eq!(end.reason(), Some(Reason::NO_ERROR));
            }
        };
        ours.then = Connection::go_away_gracefully;
        let (result, ()) = tokio::join!(ours.run(near, &cuts, |ours| ours.conn.is_drained()), exchange);
        assert_eq!(result, Ok(()));

        // And an abrupt end carries its code.
        let (near, far) = tokio::io::duplex(cuts.pipe);
        let mut ours = server();
        let exchange = async {
            let (mut sender, connection) = h2_client(far, &theirs).await;
            let connection = tokio::task::spawn_local(connection);
            let (answer, out) = sender.send_request(connect(), false).unwrap();
            // The answer may have come before.
            let end = connection.await.unwrap().unwrap_err();
            assert_eq!((end.is_go_away(), end.reason()), (true, Some(Reason::ENHANCE_YOUR_CALM)));
            drop((sender, out, answer));
        };
        ours.then = |conn| conn.close(ErrorCode::ENHANCE_YOUR_CALM);
        let (result, ()) = tokio::join!(ours.run(near, &cuts, |_| false), exchange);
        assert_eq!(result, Err(ConnectionError::Ended));
    });
}

// HB-3, HB-16
#[test]
fn windows_that_change_under_way_are_kept() {
    let (cuts, theirs) = plain();
    block_on(async {
        let (near, far) = tokio::io::duplex(cuts.pipe);
        tokio::task::spawn_local(async move {
            let mut connection = h2_server(far, &theirs).await;
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            let mut out = respond.send_response(Response::new(()), false).unwrap();
            let mut incoming = request.into_body();
            let reader = tokio::task::spawn_local(async move { receive(&mut incoming).await.unwrap() });
            for size in [0, 1, 100_000, 10, 70_000, 0, 65_535, 1 << 20] {
                // One change at a time: it is acknowledged before the next.
                while connection.set_initial_window_size(size).is_err() {
                    tokio::select! { biased; _ = connection.accept() => {}, () = tokio::task::yield_now() => {} }
                }
                for _ in 0..50 {
                    tokio::select! { biased; _ = connection.accept() => {}, () = tokio::task::yield_now() => {} }
                }
            }
            let finish = async {
                let got = reader.await.unwrap();
                assert!(got == body(3_000_000, 5));
                out.send_data(Bytes::default(), true).unwrap();
            };
            tokio::join!(finish, async { while connection.accept().await.is_some() {} });
        });
        let mut ours = client();
        let request = ConnectRequest::new("10.0.0.2:8080".parse::<Authority>().unwrap());
        let stream = ours.conn.request(Instant::now(), &request).unwrap();
        ours.streams.insert(stream, Flow { out: body(3_000_000, 5).into(), end: true, ..Flow::default() });
        let result = ours.run(near, &cuts, |ours| ours.streams.values().all(|flow| flow.ended)).await;
        assert_eq!((result, ours.told), (Ok(()), vec![]));
    });
}
