// SPDX-License-Identifier: Apache-2.0
//! What a connection tells its caller.

use crate::error::ErrorCode;
use crate::request::{ConnectAnswer, ConnectRequest};

/// Names one stream of one connection. It stays valid, and names nothing else, after the stream has ended: calls with it then do
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    pub(super) number: u32,
    pub(super) slot: u32,
}

impl StreamId {
    /// The HTTP/2 stream identifier, for logs.
    pub fn number(self) -> u32 {
        self.number
    }

    /// A small number no other open stream of this connection has: an index for a table of the caller. It is reused after the
    /// stream has ended ([`super::Connection::is_open`]), so the table should keep the whole `StreamId` beside its entry.
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// Something the peer did, or that became possible.
#[derive(Debug)]
pub enum Event<'i> {
    /// The peer's SETTINGS have been applied (first or changed): [`super::Connection::may_request`] may answer differently now.
    Settings,
    /// Server: a client asks for a tunnel. Answer with `answer` or `reject`; data may already follow.
    Request {
        /// The new stream.
        stream: StreamId,
        /// What it asks for.
        request: Box<ConnectRequest>,
    },
    /// Server: a request that is well-formed HTTP/2 but no usable CONNECT. Answer with `reject(stream, status)`.
    BadRequest {
        /// The new stream.
        stream: StreamId,
        /// The status to answer: 400.
        status: u16,
        /// What is wrong, for the log.
        reason: &'static str,
    },
    /// A stream the core has refused or reset by itself before the caller heard of it; for logs and counters.
    Refused {
        /// The stream's number.
        number: u32,
        /// The code it was reset with.
        code: ErrorCode,
        /// Why.
        reason: &'static str,
    },
    /// Client: the answer to a request. If it is no success, `reset` the stream.
    Answer {
        /// The stream of the request.
        stream: StreamId,
        /// Status and baggage.
        answer: ConnectAnswer,
    },
    /// Bytes for the application, in place in the input. Every byte must come back through `consumed` once the application has
    /// taken it; what it has not taken at once, the caller copies and declares with `hold`.
    Data {
        /// The stream.
        stream: StreamId,
        /// The bytes, never empty.
        bytes: &'i [u8],
    },
    /// The peer will send no more on this stream: a FIN for the application, behind all its data.
    End {
        /// The stream.
        stream: StreamId,
    },
    /// The stream is over at once: by the peer's RST_STREAM, a fault of the peer on this stream, or its GOAWAY. Already forgotten
    /// by the core; bytes held for it are no longer charged. An RST for the application.
    ///
    /// A reset that comes behind the peer's `End` takes nothing back of what was sent: peers built on the h2 crate send one as soon as
    /// they want no more themselves. It is told when the last of those bytes has been consumed, and until then nothing can
    /// be sent; so after `consumed` ask once more for events.
    Reset {
        /// The stream.
        stream: StreamId,
        /// The peer's code, or the one we answered its fault with.
        code: ErrorCode,
        /// Why, for the log.
        reason: ResetReason,
    },
    /// `send_capacity` answered 0 for this stream, and would not now. All that wait are told; serve them in the order of these
    /// events, and none starves when the first takes it all.
    Writable {
        /// The stream.
        stream: StreamId,
    },
    /// The peer sends GOAWAY: no new streams; those it will not look at follow as `Reset`.
    GoAway {
        /// Its code; anything but NO_ERROR means it found fault with us.
        code: ErrorCode,
    },
}

/// Who ended a stream and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetReason {
    /// The peer sent RST_STREAM.
    Peer,
    /// The peer's GOAWAY says it has not looked at this stream: asking elsewhere is safe.
    NotProcessed,
    /// The peer broke the protocol on this stream.
    Fault(&'static str),
}
