// SPDX-License-Identifier: Apache-2.0
//! One CONNECT request and the answer to it, as values.

use std::sync::Arc;

use super::{Authority, Baggage, Forwarded, TraceParent};

/// A CONNECT request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectRequest {
    /// Where to connect to.
    pub authority: Authority,
    /// What the sender says of its workload.
    pub baggage: Option<Baggage>,
    /// Application address and service name.
    pub forwarded: Option<Forwarded>,
    /// The name of this connection in the logs.
    pub traceparent: Option<TraceParent>,
    /// `x-forwarded-network`: the sender's network, on the inner tunnel through a gateway.
    pub network: Option<Arc<str>>,
}

impl ConnectRequest {
    /// A request with nothing but its authority.
    pub fn new(authority: impl Into<Authority>) -> Self {
        Self { authority: authority.into(), baggage: None, forwarded: None, traceparent: None, network: None }
    }
}

/// The answer to a CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectAnswer {
    /// 200 once the application is connected; 400, 401, 503 and others for a refusal.
    pub status: u16,
    /// What the answering side says of its workload.
    pub baggage: Option<Baggage>,
}

impl ConnectAnswer {
    /// The tunnel stands.
    pub fn accepted(baggage: Option<Baggage>) -> Self {
        Self { status: 200, baggage }
    }

    /// Whether the tunnel stands: any 2xx does (RFC 9110 §9.3.6).
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_hundreds_are_a_success() {
        let successes = [199, 200, 299, 300, 503].map(|status| ConnectAnswer { status, baggage: None }.is_success());
        assert_eq!(successes, [false, true, true, false, false]);
    }
}
