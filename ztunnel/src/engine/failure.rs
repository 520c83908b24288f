// SPDX-License-Identifier: Apache-2.0
//! Why a connection ended badly: whose fault it is, whether to try again, and what the account calls it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hbone::{ConnectionError, ErrorCode, NoStream, OverBudget};
use mesh_proto::spiffe::Identity;

use super::account::{Flag, Reason};
use super::shares::{Kind, Refusal};
use crate::decide::{Denied, InboundError, RouteError};
use crate::net::NetError;
use crate::tls::TlsError;

/// See the module. The text goes into the access log and says what to check next. Cheap to clone: all streams of a tunnel may fail
/// for one reason.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Route(Arc<RouteError>),
    #[error("{0}")]
    Inbound(Arc<InboundError>),
    #[error(
        "failed to fetch information about local workload {namespace}/{name} within {waited:?}; check that the control plane knows the pod"
    )]
    WorkloadUnknown { namespace: Arc<str>, name: Arc<str>, waited: Duration },
    #[error(
        "discovery did not send what this connection depends on within {waited:?}; check the connection to the control plane"
    )]
    Discovery { waited: Duration },
    #[error("no certificate for {identity}: {reason}")]
    Certificate { identity: Identity, reason: Arc<str> },
    #[error("{0}")]
    Net(Arc<NetError>),
    #[error("connection failed: {0}")]
    Connect(Arc<io::Error>),
    #[error("connection timed out: no answer within {after:?}")]
    ConnectTimeout { after: Duration },
    #[error("connection timed out, maybe a NetworkPolicy is blocking HBONE port {}: no answer from {to} within {after:?}", to.port())]
    HboneTimeout { to: SocketAddr, after: Duration },
    #[error("{0}")]
    Tls(Arc<TlsError>),
    #[error("the peer did not finish the TLS handshake within {0:?}")]
    HandshakeTimeout(Duration),
    #[error("the pod's own workload record and certificate did not arrive within {0:?}; check the control plane")]
    NotReady(Duration),
    #[error(
        "too many handshakes under way from this address: it has {0}; check what it wants on port 15008, and LATEEN_MAX_HANDSHAKES_PER_SOURCE"
    )]
    HandshakesOfSource(usize),
    #[error(
        "too many handshakes under way: {0}, and this address is in no workload's record, for which half is kept; check who connects to port 15008"
    )]
    HandshakesOfStrangers(usize),
    #[error("too many {0}; check who opens them, LATEEN_MAX_*, and the limit on open files")]
    Refused(Refusal),
    #[error(
        "no HBONE connection to {to} stands after {after:?}, for others wait for one as well; check that node's ztunnel"
    )]
    NoTunnel { to: SocketAddr, after: Duration },
    #[error("h2 failed: {0}")]
    Hbone(Arc<ConnectionError>),
    #[error("h2 failed: {0}")]
    NoStream(NoStream),
    #[error("h2 failed: stream reset by the peer: {0}")]
    StreamReset(ErrorCode),
    #[error("h2 failed: the peer broke the protocol: {0}")]
    StreamFault(&'static str),
    #[error("the tunnel ended without goodbye: {0}")]
    TunnelBroken(Arc<io::Error>),
    #[error("the peer closed the tunnel")]
    TunnelClosed,
    #[error("{0}")]
    OverBudget(OverBudget),
    #[error("http status: {0}")]
    Status(Status),
    #[error("the peer did not answer the request within {0:?}")]
    AnswerTimeout(Duration),
    #[error("connection closed due to policy rejection: {0}")]
    Denied(Arc<Denied>),
    #[error("connection closed due to policy change: {0}")]
    PolicyChange(Arc<Denied>),
    #[error("attempted recursive call to ourselves")]
    SelfCall,
    #[error("expected method CONNECT with an authority: {0}")]
    BadRequest(&'static str),
    #[error("connection closed due to connection drain")]
    Drained,
}

/// An HTTP status as logs show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status(pub(super) u16);

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.0 {
            400 => " Bad Request",
            401 => " Unauthorized",
            403 => " Forbidden",
            404 => " Not Found",
            429 => " Too Many Requests",
            500 => " Internal Server Error",
            502 => " Bad Gateway",
            503 => " Service Unavailable",
            504 => " Gateway Timeout",
            _ => "",
        };
        write!(f, "{}{name}", self.0)
    }
}

impl Failure {
    /// The response flag (ztunnel.md §13.2).
    pub(super) fn flag(&self) -> Flag {
        match self {
            Self::Denied(_) | Self::PolicyChange(_) => Flag::Deny,
            Self::Tls(_) | Self::HandshakeTimeout(_) | Self::HandshakesOfSource(_) | Self::HandshakesOfStrangers(_) => {
                Flag::TlsFailure
            }
            Self::Hbone(_) | Self::NoStream(_) | Self::StreamReset(_) | Self::StreamFault(_) => {
                Flag::H2HandshakeFailure
            }
            Self::HboneTimeout { .. } => Flag::NetworkPolicy,
            Self::Certificate { .. } | Self::NotReady(_) => Flag::IdentityError,
            Self::Drained => Flag::None,
            Self::Route(_)
            | Self::Inbound(_)
            | Self::WorkloadUnknown { .. }
            | Self::Discovery { .. }
            | Self::Net(_)
            | Self::Connect(_)
            | Self::ConnectTimeout { .. }
            | Self::TunnelBroken(_)
            | Self::TunnelClosed
            | Self::OverBudget(_)
            | Self::Status(_)
            | Self::AnswerTimeout(_)
            | Self::Refused(_)
            | Self::NoTunnel { .. }
            | Self::SelfCall
            | Self::BadRequest(_) => Flag::Connect,
        }
    }

    /// What answers a CONNECT that fails like this (ztunnel.md §7.2).
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Denied(_) | Self::PolicyChange(_) => 401,
            Self::BadRequest(_) => 400,
            Self::Inbound(error) => error.status(),
            _ => 503,
        }
    }

    /// Why, as label value: for what ends before it is known what it is, and hence has no series of its own.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Route(_) | Self::SelfCall => Reason::Route,
            Self::Inbound(_) | Self::BadRequest(_) => Reason::Request,
            Self::WorkloadUnknown { .. } | Self::Discovery { .. } | Self::NotReady(_) => Reason::Discovery,
            Self::Certificate { .. } => Reason::Certificate,
            Self::Net(_) | Self::Connect(_) => Reason::Connect,
            Self::ConnectTimeout { .. }
            | Self::HboneTimeout { .. }
            | Self::HandshakeTimeout(_)
            | Self::NoTunnel { .. }
            | Self::AnswerTimeout(_) => Reason::Timeout,
            Self::Tls(_) => Reason::Tls,
            Self::HandshakesOfSource(_) | Self::HandshakesOfStrangers(_) => Reason::Handshakes,
            Self::Refused(refusal) => match refusal.kind() {
                Kind::Sockets => Reason::Sockets,
                Kind::Dials => Reason::Dials,
                Kind::Handshakes => Reason::Handshakes,
            },
            Self::Hbone(_) | Self::NoStream(_) | Self::StreamReset(_) | Self::StreamFault(_) => Reason::Http2,
            Self::TunnelBroken(_) | Self::TunnelClosed => Reason::Closed,
            Self::OverBudget(_) => Reason::Buffers,
            Self::Status(_) => Reason::Status,
            Self::Denied(_) | Self::PolicyChange(_) => Reason::Policy,
            Self::Drained => Reason::Drain,
        }
    }

    /// How long a dial that failed like this answers for the connections that come next.
    ///
    /// A hop that refuses, or breaks off, or is silent may be back the next moment, and whoever restarts a server wants to reach it
    /// then: nothing of that is remembered. It need not be: a refusal costs a SYN, and of the silent ones there is one dial at a
    /// time for everybody. A peer that is somebody else, or that does not believe us, costs both sides a handshake each time, and
    /// what mends it is a new certificate or another record (which is another key of the pool): that is remembered for a moment.
    pub(super) fn speaks_for(&self) -> Duration {
        match self {
            Self::Tls(_) => WRONG_FOR,
            _ => Duration::ZERO,
        }
    }

    /// Whether the peer broke the rules of the connection itself, rather than going away.
    pub(super) fn is_misconduct(&self) -> bool {
        match self {
            Self::Hbone(error) => !matches!(**error, ConnectionError::PingTimeout(_)),
            Self::Tls(_) => true,
            _ => false,
        }
    }

    /// Whether it is certain that the peer has done nothing for the connection.
    pub(super) fn is_certain(&self) -> bool {
        match self {
            Self::NoStream(_) => true,
            Self::StreamReset(code) => *code == ErrorCode::REFUSED_STREAM,
            _ => false,
        }
    }

    /// Whether a connection that has not carried a byte may try once more on another tunnel: the one it was given had gone stale.
    pub(super) fn is_retryable(&self) -> bool {
        match self {
            Self::TunnelBroken(_) | Self::TunnelClosed | Self::NoStream(_) => true,
            Self::StreamReset(code) => *code == ErrorCode::REFUSED_STREAM,
            Self::Hbone(error) => matches!(**error, ConnectionError::PingTimeout(_)),
            _ => false,
        }
    }
}

impl From<NetError> for Failure {
    fn from(error: NetError) -> Self {
        match error {
            NetError::Connect(error) => Self::Connect(Arc::new(error)),
            other => Self::Net(Arc::new(other)),
        }
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        Self::Tls(Arc::new(error))
    }
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Self {
        Self::Hbone(Arc::new(error))
    }
}

/// How long it is remembered that TLS with a peer failed: too short to be noticed by somebody who mends it, long enough to make a hundred
/// handshakes a second into five.
const WRONG_FOR: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_costs_both_sides_a_handshake_is_remembered() {
        let refused = || Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused));
        let hop = SocketAddr::from(([10, 0, 0, 1], 15008));
        let may_be_back = [
            Failure::Connect(refused()),
            Failure::TunnelBroken(refused()),
            Failure::TunnelClosed,
            Failure::HboneTimeout { to: hop, after: Duration::from_secs(10) },
            Failure::HandshakeTimeout(Duration::from_secs(10)),
            Failure::Refused(Refusal::Node { kind: Kind::Sockets, most: 1 }),
        ];
        for failure in may_be_back {
            assert_eq!(failure.speaks_for(), Duration::ZERO, "{failure}");
        }
        let stranger = TlsError::Exhausted;
        let time = Failure::from(stranger).speaks_for();
        assert!(time > Duration::ZERO && time <= Duration::from_millis(250), "{time:?}");
    }
}
