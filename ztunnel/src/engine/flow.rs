// SPDX-License-Identifier: Apache-2.0
//! One proxied connection: the application's socket on one side, a stream of a tunnel or another socket on the far side, and what is
//! on its way between them.

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
use super::site::Site;
use super::table::Key;
use super::tunnel::Tunnel;

mod queue;
mod socket;

pub(super) use queue::Queue;
pub(super) use socket::{Read, Socket, Wrote};

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

/// What comes over a connection before it is thought to carry much.
const BULK: u32 = 64 * 1024;
/// What must come at once to be worth a pipe.
const LEAST_PIECE: u32 = 16 * 1024;
