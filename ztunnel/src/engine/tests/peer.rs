// SPDX-License-Identifier: Apache-2.0
//! A peer that is no engine: TLS with a credential of the test's CA and the protocol core, driven by hand, so that it can do what no honest
//! proxy does.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use hbone::request::{Authority, ConnectAnswer, ConnectRequest};
use hbone::{Budget, Connection, ConnectionError, ErrorCode, Event, Options, StreamId};

use super::world::{PATIENCE, dial};
use crate::net::Buffer;
use crate::tls::record::{Opened, Records};
use crate::tls::{Credential, Handshake, Progress};

/// See the module.
pub(super) struct Peer {
    stream: TcpStream,
    records: Box<dyn Records>,
    pub(super) core: Connection,
    /// What came right behind the handshake.
    early: Vec<Told>,
}

/// What a peer was told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Request(StreamId),
    Answer(StreamId, u16),
    Data(StreamId, Vec<u8>),
    End(StreamId),
    Reset(StreamId, ErrorCode),
    GoAway(ErrorCode),
    /// The connection is over.
    Over,
}

impl Peer {
    /// A client, at the server engine's door.
    pub(super) fn dial(credential: &Credential, to: SocketAddr, server: &str) -> Self {
        Self::over(dial(to), credential, server)
    }

    /// The same on a connection that stands.
    pub(super) fn over(stream: TcpStream, credential: &Credential, server: &str) -> Self {
        let handshake = credential.dial(vec![server.parse().unwrap()]).unwrap();
        let core = Connection::client(Arc::new(Options::client(budget())), Instant::now());
        Self::shake(stream, handshake, core)
    }

    /// A server, called by a client engine. It has greeted.
    pub(super) fn accept(credential: &Credential, listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let core = Connection::server(Arc::new(Options::server(budget())), Instant::now());
        let mut peer = Self::shake(stream, credential.accept().unwrap(), core);
        peer.flush();
        peer
    }

    fn shake(mut stream: TcpStream, mut handshake: Handshake, core: Connection) -> Self {
        let (mut out, mut plain) = (Buffer::default(), Buffer::default());
        let mut piece = [0; 16 * 1024];
        let mut count = 0;
        loop {
            let progress = handshake.advance(&piece[..count], &mut out, &mut plain).unwrap();
            stream.write_all(out.filled()).unwrap();
            out.clear();
            if progress == Progress::Done {
                break;
            }
            count = stream.read(&mut piece).unwrap();
            assert!(count > 0, "the engine broke the handshake off");
        }
        let records = handshake.finish().unwrap().records;
        let mut peer = Self { stream, records, core, early: Vec::new() };
        peer.early = peer.feed(plain.filled());
        peer
    }

    /// Writes what the core has to say. False if nobody takes it.
    pub(super) fn flush(&mut self) -> bool {
        let mut control = Vec::new();
        self.core.write_control(&mut control);
        self.send(&control)
    }

    /// Writes frames.
    pub(super) fn send(&mut self, frames: &[u8]) -> bool {
        let mut sealed = Buffer::default();
        self.records.seal(frames, &mut sealed).unwrap();
        self.stream.write_all(sealed.filled()).is_ok()
    }

    /// Opens a stream.
    pub(super) fn request(&mut self, authority: SocketAddr) -> StreamId {
        let id = self.core.request(Instant::now(), &ConnectRequest::new(Authority::Ip(authority))).unwrap();
        self.flush();
        id
    }

    pub(super) fn answer(&mut self, stream: StreamId) {
        self.core.answer(stream, &ConnectAnswer::accepted(None));
        self.flush();
    }

    /// Sends bytes on a stream, as far as the windows allow; answers how many.
    pub(super) fn put(&mut self, stream: StreamId, bytes: &[u8]) -> usize {
        let count = self.core.send_capacity(stream).min(bytes.len());
        let Some(header) = self.core.data_header(stream, count, false) else { return 0 };
        self.send(&[&header, &bytes[..count]].concat());
        count
    }

    /// Reads once, answers, and tells what happened.
    pub(super) fn hear(&mut self) -> Vec<Told> {
        if !self.early.is_empty() {
            return std::mem::take(&mut self.early);
        }
        let mut input = Buffer::default();
        self.records.resume(&mut input);
        let mut piece = vec![0; 64 * 1024];
        let count = match self.stream.read(&mut piece) {
            Ok(0) => return vec![Told::Over],
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return vec![Told::Over],
            Err(error) => panic!("the engine says nothing: {error}"),
        };
        input.put(&piece[..count]);
        let (mut plain, mut back) = (Buffer::default(), Buffer::default());
        let opened = self.records.open(&mut input, &mut plain, &mut back).unwrap();
        let mut told = self.feed(plain.filled());
        if opened == Opened::Closed {
            told.push(Told::Over);
        }
        self.flush();
        told
    }

    /// Goes on until something happens that is wanted.
    pub(super) fn wait(&mut self, wanted: impl Fn(&Told) -> bool) -> Told {
        loop {
            let mut told = self.hear();
            if let Some(at) = told.iter().position(&wanted) {
                // The rest is for whoever waits next.
                self.early = told.split_off(at + 1);
                return told.remove(at);
            }
            assert!(!told.contains(&Told::Over), "the engine has ended the tunnel");
        }
    }

    fn feed(&mut self, mut input: &[u8]) -> Vec<Told> {
        let mut all = Vec::new();
        let now = Instant::now();
        loop {
            let told = match self.core.next_event(now, &mut input) {
                Ok(None) | Err(ConnectionError::Ended) => return all,
                Ok(Some(event)) => match event {
                    Event::Request { stream, .. } => Told::Request(stream),
                    Event::Answer { stream, answer } => Told::Answer(stream, answer.status),
                    Event::Data { stream, bytes } => {
                        let bytes = bytes.to_vec();
                        self.core.consumed(now, stream, bytes.len());
                        Told::Data(stream, bytes)
                    }
                    Event::End { stream } => Told::End(stream),
                    Event::Reset { stream, code, .. } => Told::Reset(stream, code),
                    Event::GoAway { code } => Told::GoAway(code),
                    _ => continue,
                },
                Err(error) => panic!("the engine broke the protocol: {error}"),
            };
            all.push(told);
        }
    }
}

/// Connects from an address of this machine.
pub(super) fn dial_from(from: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn budget() -> Budget {
    Budget::node(1 << 30).pod(1 << 30)
}
