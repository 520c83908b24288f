// SPDX-License-Identifier: Apache-2.0
//! The traffic label set, in its output order. Pure.

use mesh_proto::spiffe::Identity;

use crate::decide::{Security, ServiceRef, Traffic};

/// Which end of a connection reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reporter {
    /// The client's proxy.
    Source,
    /// The server's proxy.
    Destination,
}

impl Reporter {
    /// As label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }

    /// As the access log calls it.
    pub(crate) fn direction(self) -> &'static str {
        match self {
            Self::Source => "outbound",
            Self::Destination => "inbound",
        }
    }
}

/// Why a connection ended badly, as label value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub enum Flag {
    /// It did not.
    #[default]
    None,
    /// A policy.
    Deny,
    /// The next hop could not be reached, and whatever has no flag of its own.
    Connect,
    /// TLS.
    TlsFailure,
    /// HTTP/2.
    H2HandshakeFailure,
    /// Nothing answers on the HBONE port.
    NetworkPolicy,
    /// There is no certificate.
    IdentityError,
    /// The peer's certificate was revoked.
    CertRevoked,
}

impl Flag {
    /// As label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Deny => "DENY",
            Self::Connect => "CONNECT",
            Self::TlsFailure => "TLS_FAILURE",
            Self::H2HandshakeFailure => "H2_HANDSHAKE_FAILURE",
            Self::NetworkPolicy => "NETWORK_POLICY",
            Self::IdentityError => "IDENTITY_ERROR",
            Self::CertRevoked => "CERT_REVOKED",
        }
    }
}

/// The label set of one series.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Labels {
    /// Who reports.
    pub reporter: Reporter,
    /// Who talks to whom.
    pub traffic: Traffic,
    /// How it ended; bytes are counted under `-` whatever happens later.
    pub flag: Flag,
}

impl Labels {
    /// The same connection, ended with a flag.
    pub(crate) fn with_flag(&self, flag: Flag) -> Self {
        Self { flag, ..self.clone() }
    }

    /// Name and value of every label, in output order.
    pub fn pairs(&self) -> Vec<(&'static str, &str)> {
        let Traffic { source, destination, service, .. } = &self.traffic;
        let service = |text: fn(&ServiceRef) -> &str| service.as_ref().map_or("", text);
        let is_mutual = self.traffic.security == Security::MutualTls;
        let mut pairs = vec![
            ("reporter", self.reporter.as_str()),
            ("source_workload", source.workload_name()),
            ("source_canonical_service", source.canonical_name()),
            ("source_canonical_revision", source.canonical_revision()),
            ("source_workload_namespace", source.namespace()),
            ("source_principal", uri(self.traffic.source_identity.as_ref())),
            ("source_app", source.app()),
            ("source_version", source.canonical_revision()),
            ("source_cluster", source.cluster()),
            ("destination_service", service(|service| &service.hostname)),
            ("destination_service_namespace", service(|service| &service.namespace)),
            ("destination_service_name", service(|service| &service.name)),
            ("destination_workload", destination.workload_name()),
            ("destination_canonical_service", destination.canonical_name()),
            ("destination_canonical_revision", destination.canonical_revision()),
            ("destination_workload_namespace", destination.namespace()),
            ("destination_principal", uri(self.traffic.destination_identity.as_ref())),
            ("destination_app", destination.app()),
            ("destination_version", destination.canonical_revision()),
            ("destination_cluster", destination.cluster()),
            ("request_protocol", "tcp"),
            ("response_flags", self.flag.as_str()),
            ("connection_security_policy", if is_mutual { "mutual_tls" } else { UNKNOWN }),
        ];
        if source.is_known() || destination.is_known() {
            pairs.extend([
                ("source_region", source.region()),
                ("source_zone", source.zone()),
                ("destination_region", destination.region()),
                ("destination_zone", destination.zone()),
            ]);
        }
        for (_, value) in pairs.iter_mut().filter(|(_, value)| value.is_empty()) {
            *value = UNKNOWN;
        }
        pairs
    }
}

fn uri(identity: Option<&Identity>) -> &str {
    identity.map_or("", Identity::as_uri)
}

const UNKNOWN: &str = "unknown";
