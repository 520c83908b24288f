// SPDX-License-Identifier: Apache-2.0
//! Both roles over plain TCP, without the mutual TLS that HBONE requires: for trying things out and for conformance tests.
//!
//! `echo server 127.0.0.1:15008` accepts every CONNECT and sends back what it gets. `echo client 127.0.0.1:15008 10.0.0.2:80 some words`
//! asks for a tunnel to 10.0.0.2:80, sends the words and prints what comes back.

use std::collections::HashMap;
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hbone::request::{Authority, ConnectAnswer, ConnectRequest};
use hbone::{Budget, Connection, ErrorCode, Event, Options, StreamId};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let node = Budget::node(64 << 20);
    match arguments[..] {
        ["server", listen] => {
            let options = Arc::new(Options::server(node.pod(32 << 20)));
            for socket in TcpListener::bind(listen)?.incoming() {
                let (socket, options) = (socket?, options.clone());
                std::thread::spawn(move || {
                    let mut tunnel = Tunnel::new(Connection::server(options, Instant::now()), socket);
                    if let Err(error) = tunnel.run() {
                        println!("{error}");
                    }
                });
            }
        }
        ["client", server, target, ref words @ ..] => {
            let now = Instant::now();
            let mut connection = Connection::client(Arc::new(Options::client(node.pod(32 << 20))), now);
            let stream = connection.request(now, &ConnectRequest::new(target.parse::<Authority>()?))?;
            let mut tunnel = Tunnel::new(connection, TcpStream::connect(server)?);
            let to_send = Waiting { bytes: words.join(" ").into_bytes(), received: 0, end: true };
            tunnel.waiting.insert(stream, to_send);
            tunnel.run()?;
        }
        _ => println!("usage: echo server ADDRESS | echo client ADDRESS AUTHORITY WORD.."),
    }
    Ok(())
}

/// A connection and its socket.
struct Tunnel {
    connection: Connection,
    socket: TcpStream,
    waiting: HashMap<StreamId, Waiting>,
    /// The server sends back what it gets; the client prints it.
    is_client: bool,
}

/// What is to be sent on a stream.
#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// How many of them were received on the same stream, and are credited when they have been sent back.
    received: usize,
    end: bool,
}

impl Tunnel {
    fn new(connection: Connection, socket: TcpStream) -> Self {
        let is_client = connection.has_control() && connection.open_streams() > 0;
        Self { connection, socket, waiting: HashMap::new(), is_client }
    }

    fn run(&mut self) -> Result<(), Box<dyn Error>> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            self.flush()?;
            if self.connection.is_drained() {
                return Ok(());
            }
            let now = Instant::now();
            let deadline = self.connection.next_deadline().unwrap_or(now);
            let patience = deadline.saturating_duration_since(now).max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(patience))?;
            let length = match self.socket.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
                Err(error) => return Err(error.into()),
            };
            let turn = self.turn(Instant::now(), &buffer[..length]);
            if turn.is_err() {
                // The GOAWAY that says why.
                self.flush()?;
            }
            turn?;
        }
    }

    fn turn(&mut self, now: Instant, mut input: &[u8]) -> Result<(), Box<dyn Error>> {
        self.connection.handle_timeout(now)?;
        while let Some(event) = self.connection.next_event(now, &mut input)? {
            match event {
                Event::Request { stream, request } => {
                    println!("tunnel {} to {}", stream.number(), request.authority);
                    self.waiting.insert(stream, Waiting::default());
                    self.connection.answer(stream, &ConnectAnswer::accepted(None));
                }
                Event::BadRequest { stream, status, reason } => {
                    println!("tunnel {} answered {status}: {reason}", stream.number());
                    self.connection.reject(stream, status);
                }
                Event::Data { stream, bytes } if self.is_client => {
                    println!("{}", String::from_utf8_lossy(bytes));
                    self.connection.consumed(now, stream, bytes.len());
                }
                Event::Data { stream, bytes } => match self.connection.hold(stream, bytes.len()) {
                    Ok(()) => {
                        let waiting = self.waiting.entry(stream).or_default();
                        waiting.bytes.extend_from_slice(bytes);
                        waiting.received += bytes.len();
                    }
                    Err(over) => {
                        println!("tunnel {}: {over}", stream.number());
                        self.connection.reset(stream, ErrorCode::ENHANCE_YOUR_CALM);
                        self.waiting.remove(&stream);
                    }
                },
                Event::End { .. } if self.is_client => self.connection.go_away_gracefully(),
                Event::End { stream } => self.waiting.entry(stream).or_default().end = true,
                Event::Reset { stream, .. } => {
                    self.waiting.remove(&stream);
                }
                other => println!("{other:?}"),
            }
        }
        Ok(())
    }

    /// Writes everything that may be written.
    fn flush(&mut self) -> std::io::Result<()> {
        let now = Instant::now();
        let mut out = Vec::new();
        for (&stream, waiting) in &mut self.waiting {
            if !self.connection.can_send(stream) {
                // The client wants nothing back any more.
                self.connection.consumed(now, stream, std::mem::take(&mut waiting.received));
                waiting.bytes.clear();
            }
            while !waiting.bytes.is_empty() {
                let length = self.connection.send_capacity(stream).min(waiting.bytes.len());
                self.connection.write_control(&mut out);
                let header = self.connection.data_header(stream, length, false).filter(|_| length > 0);
                let Some(header) = header else { break };
                out.extend_from_slice(&header);
                out.extend(waiting.bytes.drain(..length));
                let returned = length.min(waiting.received);
                waiting.received -= returned;
                self.connection.consumed(now, stream, returned);
            }
            if waiting.end && waiting.bytes.is_empty() {
                self.connection.finish(stream);
                waiting.end = false;
            }
        }
        let connection = &self.connection;
        self.waiting.retain(|&stream, _| connection.is_open(stream));
        self.connection.write_control(&mut out);
        self.socket.write_all(&out)
    }
}
