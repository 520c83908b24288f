// SPDX-License-Identifier: Apache-2.0
//! Why connections came to nothing before it was known what they were: they have no series of their own, only these.

/// See the module. Label `reason` of `mesh_refused_connections_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// There is no way to the target, or it is ourselves.
    Route,
    /// A request on 15008 that nobody can serve.
    Request,
    /// The control plane did not say what is needed.
    Discovery,
    /// There is no certificate.
    Certificate,
    /// A socket could not be had or connected.
    Connect,
    /// Somebody was too slow.
    Timeout,
    /// TLS.
    Tls,
    /// The pod or the node has all the sockets it may have.
    Sockets,
    /// Too many connections are being opened.
    Dials,
    /// Too many handshakes are under way.
    Handshakes,
    /// HTTP/2.
    Http2,
    /// The peer went away.
    Closed,
    /// Too many bytes wait for slow readers.
    Buffers,
    /// The peer refused with an HTTP status.
    Status,
    /// A policy.
    Policy,
    /// The pod or the process was being stopped.
    Drain,
}

impl Reason {
    /// How many there are.
    pub(super) const COUNT: usize = Self::ALL.len();

    pub(super) const ALL: [Self; 16] = [
        Self::Route,
        Self::Request,
        Self::Discovery,
        Self::Certificate,
        Self::Connect,
        Self::Timeout,
        Self::Tls,
        Self::Sockets,
        Self::Dials,
        Self::Handshakes,
        Self::Http2,
        Self::Closed,
        Self::Buffers,
        Self::Status,
        Self::Policy,
        Self::Drain,
    ];

    /// As label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Request => "request",
            Self::Discovery => "discovery",
            Self::Certificate => "certificate",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Sockets => "sockets",
            Self::Dials => "dials",
            Self::Handshakes => "handshakes",
            Self::Http2 => "http2",
            Self::Closed => "closed",
            Self::Buffers => "buffers",
            Self::Status => "status",
            Self::Policy => "policy",
            Self::Drain => "drain",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place, "{reason:?}");
        }
    }
}
