// SPDX-License-Identifier: Apache-2.0
//! One proxied connection: the application's socket on one side, a stream of a tunnel or another socket on the far side, and what is
//! on its way between them.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use hbone::StreamId;
use hbone::request::ConnectRequest;
use mesh_proto::spiffe::Identity;

use super::account::{Record, Reporter};
use super::buffers::Lent;
use super::failure::Failure;
use super::outbound::Hop;
use super::poll::Readiness;
use super::site::Site;
use super::table::Key;
use super::tunnel::Tunnel;
use crate::net::{Pipe, Stream};

/// See the module.
pub(super) struct Flow {
    pub(super) site: Rc<Site>,
    pub(super) origin: Origin,
    pub(super) stage: Stage,
    /// Accepted for outbound and plaintext flows, dialled for streams that came in.
    pub(super) app: Option<Socket>,
    pub(super) far: Far,
    pub(super) to_app: Way,
    pub(super) to_far: Way,
    pub(super) story: Story,
    /// When the stage has taken too long.
    pub(super) deadline: Option<Instant>,
    /// Bytes in its queues that no stream's account answers for: the pod's own does.
    pub(super) charged: usize,
    /// Bytes that went out with the request and still lie in the application's socket (see `early`).
    pub(super) early: u16,
    /// Whether its first bytes came with the request.
    pub(super) speaks: bool,
    /// Whether it is in the queue of flows to be moved.
    pub(super) is_queued: bool,
    /// Whether it is among those its tunnel tells when it can be written to again.
    pub(super) is_waiting: bool,
}

impl Flow {
    /// The socket we have dialled, if there is one: all others were accepted and have what their listener has.
    pub(super) fn dialled(&self) -> Option<&Socket> {
        match (&self.far, self.origin) {
            (Far::Socket(far), _) => Some(far),
            (Far::Stream { .. } | Far::Nothing, Origin::Stream) => self.app.as_ref(),
            (Far::Stream { .. } | Far::Nothing, Origin::Outbound | Origin::Plaintext) => None,
        }
    }
}

/// How far a flow has got. Only a flow in `Open` moves bytes both ways.
pub(super) enum Stage {
    /// Waits for a fact from the control side.
    Parked(Waiting),
    /// Waits for a tunnel.
    Pooled(Box<Hop>),
    /// Waits for the answer to its CONNECT.
    Asked(Box<Hop>),
    /// Waits for a TCP connection to the far side (outbound, plaintext) or to the application (inbound).
    Dialling,
    /// Bytes flow.
    Open,
}

/// What a parked flow is about to become.
pub(super) enum Waiting {
    Outbound,
    Plaintext,
    /// Without its certificate an outbound connection goes no further.
    Certificate(Box<Hop>),
    /// A stream that came in, with what it asks for.
    Request(Box<ConnectRequest>),
}

/// How a flow ends.
pub(super) enum Ending {
    /// Both ends have finished.
    Complete,
    /// One of the ends was reset, and so is the other.
    Reset,
    Failed(Failure),
}

/// The side away from the application.
pub(super) enum Far {
    Nothing,
    Stream { tunnel: Key<Tunnel>, id: StreamId },
    Socket(Socket),
}

/// How a flow came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Accepted on 15001.
    Outbound,
    /// Accepted on 15006.
    Plaintext,
    /// A CONNECT on 15008.
    Stream,
}

impl Origin {
    pub(super) fn reporter(self) -> Reporter {
        match self {
            Self::Outbound => Reporter::Source,
            Self::Plaintext | Self::Stream => Reporter::Destination,
        }
    }
}

/// What is known about a flow for the log.
pub(super) enum Story {
    /// Not yet what it is: a failure now is an early denial.
    Early { source: SocketAddr, destination: SocketAddr },
    /// Opened, counted.
    Told(Box<Told>),
}

pub(super) struct Told {
    pub(super) origin: Origin,
    pub(super) record: Record,
    /// For inbound flows: what policies judge, now and later.
    pub(super) judged: Option<Judged>,
}

impl Story {
    /// Bytes the application's socket has taken.
    pub(super) fn count_to_app(&mut self, bytes: usize) {
        let Self::Told(told) = self else { return };
        match told.origin {
            // The application's socket is the client's for what was accepted, the server's for streams.
            Origin::Outbound | Origin::Plaintext => told.record.count_sent(bytes),
            Origin::Stream => told.record.count_received(bytes),
        }
    }

    /// Bytes read from the application's socket.
    pub(super) fn count_to_far(&mut self, bytes: usize) {
        let Self::Told(told) = self else { return };
        match told.origin {
            Origin::Outbound | Origin::Plaintext => told.record.count_received(bytes),
            Origin::Stream => told.record.count_sent(bytes),
        }
    }
}

/// What a verdict was based on.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) identity: Option<Identity>,
    /// Since when only a provisional reason stands against it.
    pub(super) doubtful_since: Option<Instant>,
}

/// One direction.
#[derive(Default)]
pub(super) struct Way {
    /// Whether there is more to come from its source.
    pub(super) source: Source,
    /// Whether its sink has been told the end.
    pub(super) sink: Sink,
    /// Bytes the sink has not taken.
    pub(super) queue: Queue,
    /// Such bytes between two sockets of which we have seen nothing.
    pub(super) pipe: Option<Box<Lent>>,
    /// How much has come between two sockets, as far as that matters, and how much at last.
    seen: u32,
    last: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Source {
    #[default]
    Open,
    /// It has sent its FIN.
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sink {
    #[default]
    Open,
    /// It has been told that nothing more comes.
    Finished,
    /// It is gone: what is for it is thrown away.
    Gone,
}

impl Way {
    /// The source has ended and the sink has everything but the news.
    pub(super) fn owes_end(&self) -> bool {
        self.source == Source::Ended && self.sink == Sink::Open && self.is_empty()
    }

    /// Nothing waits for the sink.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.in_pipe() == 0
    }

    /// How much waits for the sink.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len() + self.in_pipe()
    }

    fn in_pipe(&self) -> usize {
        self.pipe.as_ref().map_or(0, |lent| lent.pipe.held())
    }

    /// So much has come at once.
    pub(super) fn arrived(&mut self, count: usize) {
        self.last = u32::try_from(count).unwrap_or(u32::MAX);
        self.seen = self.seen.saturating_add(self.last);
    }

    /// Much has come and goes on coming: worth a pipe, which costs more per piece and less per byte.
    pub(super) fn is_bulk(&self) -> bool {
        self.seen >= BULK && self.last >= LEAST_PIECE
    }
}

/// A socket and what epoll has said about it.
pub(super) struct Socket {
    stream: Stream,
    readable: bool,
    writable: bool,
    hung_up: bool,
    broken: bool,
}

/// The outcome of a read.
pub(super) enum Read {
    Bytes(usize),
    End,
    Nothing,
    Broken(io::Error),
}

/// The outcome of a write.
pub(super) enum Wrote {
    Bytes(usize),
    Nothing,
    Broken(io::Error),
}

impl Socket {
    /// An accepted or connected socket can be written to; whether there is something to read, epoll says when it is added.
    pub(super) fn connected(stream: Stream) -> Self {
        Self { stream, readable: false, writable: true, hung_up: false, broken: false }
    }

    /// One that is being connected says when it is ready.
    pub(super) fn connecting(stream: Stream) -> Self {
        Self { stream, readable: false, writable: false, hung_up: false, broken: false }
    }

    pub(super) fn note(&mut self, readiness: Readiness) {
        self.readable |= readiness.readable;
        self.writable |= readiness.writable;
        self.hung_up |= readiness.hung_up;
        self.broken |= readiness.broken;
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    /// It was reset. Reading finds that too, behind what came before; who cannot read must ask.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    pub(super) fn is_readable(&self) -> bool {
        self.readable
    }

    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }

    pub(super) fn read(&mut self, room: &mut [u8]) -> Read {
        match self.stream.read(room) {
            Ok(0) => {
                self.readable = false;
                Read::End
            }
            Ok(count) => {
                // A short read has drained the socket, unless the peer's FIN lies behind it: its edge may be the one we are in.
                if count < room.len() && !self.hung_up {
                    self.readable = false;
                }
                Read::Bytes(count)
            }
            Err(error) => self.unread(error),
        }
    }

    /// Copies what is there and leaves it where it is. Says nothing of whether there is more.
    pub(super) fn peek(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self.stream.peek(room) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            other => other,
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Wrote {
        let wrote = self.stream.write(bytes);
        self.wrote(wrote, bytes.len())
    }

    /// The same for bytes that a FIN follows at once.
    pub(super) fn write_before_end(&mut self, bytes: &[u8]) -> Wrote {
        let wrote = self.stream.write_before_end(bytes);
        self.wrote(wrote, bytes.len())
    }

    fn write_pieces(&mut self, pieces: &[IoSlice<'_>]) -> Wrote {
        let wrote = self.stream.write_pieces(pieces);
        self.wrote(wrote, pieces.iter().map(|piece| piece.len()).sum())
    }

    /// Reads into a pipe.
    pub(super) fn fill(&mut self, pipe: &mut Pipe) -> Read {
        match pipe.fill(&self.stream) {
            Ok(0) => {
                self.readable = false;
                Read::End
            }
            // However little it is, there may be more: a pipe takes so many pieces, not so many bytes.
            Ok(count) => Read::Bytes(count),
            Err(error) => self.unread(error),
        }
    }

    /// Writes what a pipe holds.
    pub(super) fn drain(&mut self, pipe: &mut Pipe) -> Wrote {
        let held = pipe.held();
        let wrote = pipe.drain(&self.stream);
        self.wrote(wrote, held)
    }

    fn unread(&mut self, error: io::Error) -> Read {
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                self.readable = false;
                Read::Nothing
            }
            io::ErrorKind::Interrupted => Read::Nothing,
            _ => {
                self.readable = false;
                Read::Broken(error)
            }
        }
    }

    fn wrote(&mut self, result: io::Result<usize>, wanted: usize) -> Wrote {
        match result {
            Ok(count) => {
                if count < wanted {
                    self.writable = false;
                }
                Wrote::Bytes(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.writable = false;
                Wrote::Nothing
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Wrote::Nothing,
            Err(error) => Wrote::Broken(error),
        }
    }
}

/// Bytes that wait for a sink. Most connections never have any, so an empty queue is one word.
#[derive(Default)]
pub(super) struct Queue(Option<Box<Held>>);

/// In chunks: growing never moves them.
#[derive(Default)]
struct Held {
    chunks: VecDeque<Vec<u8>>,
    /// How much of the first chunk is gone.
    taken: usize,
    /// Bytes at the front that are our own and that no peer must be credited for.
    own: usize,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |held| held.chunks.iter().map(Vec::len).sum::<usize>() - held.taken)
    }

    pub(super) fn put(&mut self, mut bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let chunks = &mut self.0.get_or_insert_default().chunks;
        if let Some(last) = chunks.back_mut() {
            let fits = (CHUNK - last.len().min(CHUNK)).min(bytes.len());
            last.extend_from_slice(&bytes[..fits]);
            bytes = &bytes[fits..];
        }
        for chunk in bytes.chunks(CHUNK) {
            chunks.push_back(chunk.to_vec());
        }
    }

    /// Puts bytes of our own in front of all that waits; nothing of it may have been taken yet.
    pub(super) fn put_own(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let held = self.0.get_or_insert_default();
        held.chunks.push_front(bytes.to_vec());
        held.own += bytes.len();
    }

    /// Writes what the socket takes; answers how many of the bytes were somebody's.
    pub(super) fn write_to(&mut self, socket: &mut Socket) -> Wrote {
        let Some(held) = &self.0 else { return Wrote::Nothing };
        let skip = held.taken;
        let pieces = held.chunks.iter().enumerate().take(PIECES);
        let pieces: Vec<_> = pieces.map(|(at, chunk)| IoSlice::new(&chunk[if at == 0 { skip } else { 0 }..])).collect();
        match socket.write_pieces(&pieces) {
            Wrote::Bytes(count) => Wrote::Bytes(self.take(count)),
            other => other,
        }
    }

    /// Throws everything away; answers how many of the bytes were somebody's.
    pub(super) fn discard(&mut self) -> usize {
        self.take(self.len())
    }

    fn take(&mut self, count: usize) -> usize {
        let Some(held) = &mut self.0 else { return 0 };
        held.taken += count;
        while let Some(first) = held.chunks.front().filter(|first| first.len() <= held.taken) {
            held.taken -= first.len();
            held.chunks.pop_front();
        }
        let own = count.min(held.own);
        held.own -= own;
        if held.chunks.is_empty() {
            self.0 = None;
        }
        count - own
    }
}

/// What comes over a connection before it is thought to carry much.
const BULK: u32 = 64 * 1024;
/// What must come at once to be worth a pipe.
const LEAST_PIECE: u32 = 16 * 1024;
/// Size of a chunk.
const CHUNK: usize = 64 * 1024;
/// Chunks written at once.
const PIECES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_bytes_go_before_what_came_while_a_request_waited() {
        let mut queue = Queue::default();
        queue.put(b"data");
        queue.put_own(b"header");
        let chunks: Vec<_> = queue.0.iter().flat_map(|held| &held.chunks).flatten().copied().collect();
        assert_eq!(chunks, b"headerdata");
        assert_eq!(queue.take(8), 2, "two bytes of the peer's");
    }

    #[test]
    fn a_queue_gives_back_what_was_put_in_and_counts_its_own_bytes_apart() {
        let mut queue = Queue::default();
        queue.put_own(b"header");
        queue.put(&vec![7; CHUNK + 10]);
        assert_eq!(queue.take(4), 0);
        assert_eq!(queue.take(5), 3);
        assert_eq!(queue.discard(), CHUNK + 7);
        assert!(queue.is_empty());
        queue.put(b"x");
        assert_eq!(queue.take(1), 1);
        assert!(queue.is_empty());
    }
}
