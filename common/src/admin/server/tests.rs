// SPDX-License-Identifier: Apache-2.0
//! Over real sockets, with friendly and hostile clients.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::*;
use crate::lifecycle::{Drainer, drain};

struct World {
    address: SocketAddr,
    tasks: Tasks,
    drainer: Drainer,
}

fn routes() -> Routes {
    Routes::new()
        .get("/hello", "greets", |_| async { Response::text("hello\n") })
        .post("/echo", "gives back", |request| async move { Response::text(request.body) })
        .get("/big", "much", |_| async { Response::text(vec![b'x'; 32 << 20]) })
        .get("/slow", "takes its time", |_| async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Response::text("done\n")
        })
        .get("/peer", "who asks", |request| async move { Response::text(format!("{:?}", request.peer)) })
}

async fn world(limits: Limits) -> World {
    let listeners = bind("test", Listen::Exact(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).await.unwrap();
    let server = Server::of("test", listeners.into_iter().map(Listener::Tcp).collect(), routes(), limits);
    let address = server.addresses()[0];
    let (tasks, (drainer, draining)) = (Tasks::new(), drain());
    server.serve(&tasks, &draining);
    World { address, tasks, drainer }
}

impl World {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends and reads until the server closes.
    async fn exchange(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The server may refuse before it has read everything.
        let _ = stream.write_all(request).await;
        rest(&mut stream).await
    }

    async fn end(self) {
        self.drainer.drain(Duration::from_secs(20)).await;
        self.tasks.finished().await;
    }
}

async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes));
    // A reset is an end as well.
    let _ = read.await.expect("the server neither answers nor closes");
    String::from_utf8(bytes).unwrap()
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn routes_are_found_by_path_and_method() {
    let world = world(LIMITS).await;
    let answer = world.exchange(&get("/hello?x=1")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: text/plain; charset=utf-8\r\n") && answer.ends_with("\r\n\r\nhello\n"));
    assert!(world.exchange(&get("/nothing")).await.starts_with("HTTP/1.1 404 "));
    assert!(world.exchange(&get("/")).await.starts_with("HTTP/1.1 404 "));
    assert!(world.exchange(&get("/echo")).await.starts_with("HTTP/1.1 405 "));
    let post = b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody";
    assert!(world.exchange(post).await.ends_with("\r\n\r\nbody"));
    assert!(world.exchange(&get("/peer")).await.contains("Tcp(127.0.0.1:"));
    world.end().await;
}

#[tokio::test]
async fn a_client_that_half_closes_gets_its_answer() {
    let world = world(LIMITS).await;
    let mut stream = world.connect().await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(rest(&mut stream).await.ends_with("done\n"));
    world.end().await;
}

#[tokio::test]
async fn a_slow_head_ends_the_connection() {
    let world = world(Limits { head: Duration::from_millis(200), ..LIMITS }).await;
    let before = Instant::now();
    let answer = world.exchange(b"GET /hello HTTP/1.1\r\nHost:").await;
    assert!(!answer.contains("200"), "{answer}");
    assert!(before.elapsed() >= Duration::from_millis(150));
    // So does silence.
    world.exchange(b"").await;
    world.end().await;
}

#[tokio::test]
async fn a_slow_or_long_body_is_refused() {
    let world = world(Limits { body: Duration::from_millis(200), ..LIMITS }).await;
    let head = "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let slow = format!("{head}Content-Length: 10\r\n\r\nabc");
    assert!(world.exchange(slow.as_bytes()).await.starts_with("HTTP/1.1 408 "));
    let announced = format!("{head}Content-Length: 100000\r\n\r\n");
    assert!(world.exchange(announced.as_bytes()).await.starts_with("HTTP/1.1 413 "));
    let mut chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
    for _ in 0..70 {
        chunked.push_str(&format!("400\r\n{}\r\n", "x".repeat(0x400)));
    }
    assert!(world.exchange(chunked.as_bytes()).await.starts_with("HTTP/1.1 413 "));
    world.end().await;
}

#[tokio::test]
async fn a_head_that_does_not_fit_and_nonsense_are_refused() {
    let world = world(LIMITS).await;
    let long = format!("GET /hello HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(20_000));
    let answer = world.exchange(long.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let answer = world.exchange(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 nonsense\r\n\r\n").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(world.exchange(&get("/hello")).await.ends_with("hello\n"));
    world.end().await;
}

#[tokio::test]
async fn an_answer_that_nobody_reads_does_not_keep_its_connection() {
    let world = world(Limits { stalled: Duration::from_millis(200), ..LIMITS }).await;
    let mut stalled = world.connect().await;
    stalled.write_all(&get("/big")).await.unwrap();
    let mut first = [0; 12];
    stalled.read_exact(&mut first).await.unwrap();
    let ended = async {
        while world.tasks.running().iter().any(|(name, _)| name == "test") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the connection is still there");
    world.end().await;
}

#[tokio::test]
async fn a_thousand_silent_clients_keep_nobody_waiting() {
    // Silence would be ended only after minutes here.
    let patient = Duration::from_secs(600);
    let world = world(Limits { head: patient, stalled: patient, connections: 8, ..LIMITS }).await;
    let mut silent = Vec::new();
    for number in 0..1000 {
        let mut stream = world.connect().await;
        // Some are slow rather than silent.
        if number % 2 == 0 {
            stream.write_all(b"GET /hello HTTP/1.1\r\nHost:").await.unwrap();
        }
        silent.push(stream);
        if number % 100 == 99 {
            assert!(world.exchange(&get("/hello")).await.ends_with("hello\n"));
        }
    }
    // All but the last few were sent away.
    for stream in &mut silent[..900] {
        rest(stream).await;
    }
    drop(silent);
    world.end().await;
}

#[tokio::test]
async fn answers_nobody_reads_do_not_pile_up() {
    let patient = Duration::from_secs(600);
    let world = world(Limits { stalled: patient, answer_bytes: 64 << 20, ..LIMITS }).await;
    let mut stalled = Vec::new();
    for _ in 0..10 {
        let mut stream = world.connect().await;
        stream.write_all(&get("/big")).await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        stalled.push(stream);
    }
    // Two of 32 MiB fit; the others were cut off by those that came after them.
    for stream in &mut stalled[..8] {
        assert!(rest(stream).await.len() < 32 << 20);
    }
    assert!(rest(&mut stalled[9]).await.len() >= 32 << 20, "the newest is read to its end");
    drop(stalled);
    world.end().await;
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order_and_wait_for_their_reader() {
    let world = world(LIMITS).await;
    let mut stream = world.connect().await;
    let (mut reading, mut writing) = stream.split();
    let requests = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2000);
    let mut answers = Vec::new();
    let read = async {
        writing.write_all(&requests).await.unwrap();
        writing.write_all(&get("/peer")).await.unwrap();
        writing.shutdown().await.unwrap();
    };
    let (_, got) = tokio::join!(read, reading.read_to_end(&mut answers));
    got.unwrap();
    let answers = String::from_utf8(answers).unwrap();
    assert_eq!(answers.matches("\r\n\r\nhello\n").count(), 2000);
    assert!(answers.rfind("Tcp(127.0.0.1").unwrap() > answers.rfind("hello\n").unwrap());
    world.end().await;
}

#[tokio::test]
async fn a_connection_that_is_kept_open_without_a_request_ends() {
    let world = world(Limits { head: Duration::from_millis(200), ..LIMITS }).await;
    let mut stream = world.connect().await;
    stream.write_all(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(rest(&mut stream).await.ends_with("hello\n"));
    world.end().await;
}

#[tokio::test]
async fn a_drain_finishes_requests_and_accepts_no_more() {
    let world = world(LIMITS).await;
    let mut busy = world.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut idle = world.connect().await;
    idle.write_all(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    let address = world.address;
    let before = Instant::now();
    let (end, answer, _) = tokio::join!(world.drainer.drain(Duration::from_secs(20)), rest(&mut busy), rest(&mut idle));
    assert_eq!(end, crate::lifecycle::DrainEnd::Complete);
    assert!(answer.ends_with("done\n"), "{answer}");
    assert!(before.elapsed() < Duration::from_secs(10));
    world.tasks.finished().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_forced_drain_does_not_wait_for_slow_requests() {
    let world = world(LIMITS).await;
    let mut stalled = world.connect().await;
    stalled.write_all(&get("/big")).await.unwrap();
    let mut first = [0; 1];
    stalled.read_exact(&mut first).await.unwrap();
    let end = world.drainer.drain(Duration::ZERO).await;
    assert_eq!(end, crate::lifecycle::DrainEnd::Forced { cut_off: vec!["test".to_owned()] });
    world.tasks.finished().await;
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = Server::bind("admin", &[Listen::Exact(address)], routes()).await.err().unwrap();
    assert_eq!(
        error.to_string(),
        format!("cannot bind the admin server to {address}: check that no other process has the port")
    );
    assert!(Server::bind("admin", &[Listen::Loopback(address.port())], routes()).await.is_err());
}

#[tokio::test]
async fn both_loopback_addresses_and_all_addresses_are_served() {
    let server = Server::bind("admin", &[Listen::Loopback(0), Listen::Everywhere(0)], routes()).await.unwrap();
    let addresses = server.addresses();
    let (tasks, (drainer, draining)) = (Tasks::new(), drain());
    server.serve(&tasks, &draining);
    assert!(addresses.len() >= 2);
    for address in &addresses {
        let ip = if address.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address.ip() };
        let mut stream = TcpStream::connect((ip, address.port())).await.unwrap();
        stream.write_all(&get("/hello")).await.unwrap();
        assert!(rest(&mut stream).await.ends_with("hello\n"));
    }
    drainer.drain(Duration::from_secs(20)).await;
    tasks.finished().await;
}

#[tokio::test]
async fn a_unix_socket_is_served_and_tells_who_asks() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("plugin.sock");
    let (tasks, (drainer, draining)) = (Tasks::new(), drain());
    Server::on_unix("plugin", UnixListener::bind(&path).unwrap(), routes()).serve(&tasks, &draining);
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(&get("/peer")).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.contains("Unix { uid: Some("), "{answer}");
    drainer.drain(Duration::from_secs(20)).await;
    tasks.finished().await;
}

#[tokio::test]
async fn a_route_is_dropped_when_its_client_over_a_unix_socket_gives_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("plugin.sock");
    let (tasks, (drainer, draining)) = (Tasks::new(), drain());
    let (entered, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let routes = Routes::new().get("/for-ever", "", move |_request| {
        let entered = entered.clone();
        async move {
            let (held_until_dropped, dropped) = tokio::sync::oneshot::channel::<()>();
            let _ = entered.send(dropped);
            std::future::pending::<()>().await;
            drop(held_until_dropped);
            Response::text("")
        }
    });
    Server::on_unix("plugin", UnixListener::bind(&path).unwrap(), routes).serve(&tasks, &draining);
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(&get("/for-ever")).await.unwrap();
    let dropped = seen.recv().await.unwrap();
    drop(stream);
    tokio::time::timeout(Duration::from_secs(20), dropped).await.unwrap().unwrap_err();
    drainer.drain(Duration::from_secs(20)).await;
    tasks.finished().await;
}
