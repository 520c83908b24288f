// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with a connection or a stream, and the HTTP/2 code that says so to the peer.
//!
//! A [`ConnectionError`] ends the connection: the core has already queued the GOAWAY with [`ConnectionError::code`], the caller
//! writes what is queued and closes. Messages tell the operator what the peer did and which limit stood against it.

use std::fmt;
use std::time::Duration;

/// An HTTP/2 error code (RFC 9113 §7), as carried by RST_STREAM and GOAWAY.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    /// The end was intended.
    pub const NO_ERROR: Self = Self(0x0);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    /// Our own failure.
    pub const INTERNAL_ERROR: Self = Self(0x2);
    /// The peer sent more than its window.
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    /// Our SETTINGS were never acknowledged.
    pub const SETTINGS_TIMEOUT: Self = Self(0x4);
    /// A frame for a stream that has ended.
    pub const STREAM_CLOSED: Self = Self(0x5);
    /// A frame of a size that its type does not have.
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    /// The stream was not looked at; asking again elsewhere is safe.
    pub const REFUSED_STREAM: Self = Self(0x7);
    /// The stream is no longer wanted; HBONE carries a TCP reset as this.
    pub const CANCEL: Self = Self(0x8);
    /// The header compression state is lost.
    pub const COMPRESSION_ERROR: Self = Self(0x9);
    /// The TCP connection behind a CONNECT was reset or failed.
    pub const CONNECT_ERROR: Self = Self(0xa);
    /// The peer spends more of us than we grant.
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);
    /// The transport is too weak.
    pub const INADEQUATE_SECURITY: Self = Self(0xc);
    /// The peer wants HTTP/1.1.
    pub const HTTP_1_1_REQUIRED: Self = Self(0xd);

    /// The name RFC 9113 gives the code, if it gives one.
    pub fn name(self) -> Option<&'static str> {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        NAMES.get(self.0 as usize).copied()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error code {:#x}", self.0),
        }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a connection is over. The GOAWAY that says so is already queued when the caller sees this.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The first bytes were not HTTP/2: plaintext, HTTP/1.1 or another protocol was sent to the HBONE port.
    #[error("the peer does not speak HTTP/2 here: its first bytes are not the connection preface")]
    NotHttp2,
    /// A frame that RFC 9113 does not allow at this place.
    #[error("protocol error by the peer: {0}")]
    Protocol(&'static str),
    /// A frame whose length does not fit its type or is over MAX_FRAME_SIZE.
    #[error("frame of type {kind:#x} with {length} bytes: the size is not allowed for it")]
    FrameSize {
        /// The frame type.
        kind: u8,
        /// The length in its header.
        length: u32,
    },
    /// The peer sent beyond the connection window, or raised one of ours over 2^31-1.
    #[error("flow control violated by the peer: {0}")]
    FlowControl(&'static str),
    /// A frame for a stream that had ended, of a kind that ends the connection.
    #[error("the peer went on with stream {0} after it had ended")]
    StreamClosed(u32),
    /// A header block that cannot be decoded; the shared compression state is lost with it.
    #[error("header block cannot be decoded: {0}")]
    Compression(#[source] crate::header::HeaderError),
    /// More of something cheap to send than the limits of this connection grant.
    #[error("the peer sent too many {0}: over the limit for one connection")]
    Flood(crate::flood::Kind),
    /// A header block that is longer, or cut into more pieces, than we gather.
    #[error("header block over {limit} bytes or in too many pieces")]
    HeaderBlock {
        /// The most bytes one block may have.
        limit: usize,
    },
    /// A header block whose decoded list is several times what is allowed: reading on would cost more than the connection is worth.
    #[error("header list of many times the {limit} bytes it may have")]
    HeaderList {
        /// The most bytes one list may have.
        limit: usize,
    },
    /// The peer makes us answer but does not read the answers.
    #[error("{queued} bytes of control frames wait because the peer does not read them")]
    ControlBacklog {
        /// How many bytes were waiting.
        queued: usize,
    },
    /// No sign of life within the time a ping has.
    #[error("no answer to a ping within {0:?} and nothing else received: the peer or the path to it is gone")]
    PingTimeout(Duration),
    /// The peer has not sent its SETTINGS, or not acknowledged ours, in time.
    #[error("the peer has not sent {what} within {limit:?} of the opening")]
    SlowOpening {
        /// What is missing.
        what: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// The peer began a header block, which nothing may interrupt, and has not ended it in time.
    #[error("a header block was not complete within {0:?}")]
    SlowHeaders(Duration),
    /// The connection was used after it had ended.
    #[error("the connection has ended")]
    Ended,
}

impl ConnectionError {
    /// The code that goes out in the GOAWAY.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotHttp2 | Self::Protocol(_) => ErrorCode::PROTOCOL_ERROR,
            Self::FrameSize { .. } => ErrorCode::FRAME_SIZE_ERROR,
            Self::FlowControl(_) => ErrorCode::FLOW_CONTROL_ERROR,
            Self::StreamClosed(_) => ErrorCode::STREAM_CLOSED,
            Self::Compression(_) => ErrorCode::COMPRESSION_ERROR,
            Self::Flood(_)
            | Self::HeaderBlock { .. }
            | Self::HeaderList { .. }
            | Self::SlowHeaders(_)
            | Self::ControlBacklog { .. } => ErrorCode::ENHANCE_YOUR_CALM,
            // As ztunnel: a peer that is gone is told nothing is wrong, should it come back.
            Self::PingTimeout(_) | Self::Ended => ErrorCode::NO_ERROR,
            Self::SlowOpening { .. } => ErrorCode::SETTINGS_TIMEOUT,
        }
    }
}

/// Why no stream could be opened now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoStream {
    /// As many streams are open as the peer or our own options allow.
    #[error("{limit} streams are open, which is the most this connection may carry: use another connection")]
    AtLimit {
        /// The limit that applies.
        limit: u32,
    },
    /// One side has sent GOAWAY, or the connection has ended.
    #[error("the connection takes no more streams: it is going away")]
    GoingAway,
    /// Stream identifiers are used up.
    #[error("the connection has used all its stream identifiers: use another connection")]
    IdsExhausted,
    /// The peer does not read what is queued already.
    #[error("control frames wait for a peer that does not read: use another connection")]
    Backlog,
    /// The request's header block does not fit one frame.
    #[error("the request's headers take {size} bytes, more than the {limit} that fit one frame: shorten the baggage")]
    TooLarge {
        /// Bytes of the block.
        size: usize,
        /// The most that fit.
        limit: usize,
    },
    /// Requests go from client to server.
    #[error("a server cannot open streams")]
    NotClient,
}
